"""HPACK state between a client, a filter and a backend: what the header blocks of each may refer to. No IO.

Sources: RFC 7541 (HPACK), RFC 9113 (HTTP/2), section 6.5.2.
"""

from __future__ import annotations

from collections import deque

from hpack import Decoder, Encoder, HPACKError
from hpack.hpack import encode_integer
from hpack.struct import NeverIndexedHeaderTuple
from hyperframe.exceptions import HyperframeError
from hyperframe.frame import SettingsFrame

from dtp.daemon.http.conversation import HEAD_SIZE
from dtp.daemon.http.frames import MalformedHttp2
from dtp.daemon.http.headers import Headers

#: The size of HPACK's table until a peer sets another (RFC 7541, 4.2, and RFC 9113, 6.5.2).
_TABLE = 4096


class HeaderTables:
    """Decodes the client's header blocks, and encodes those for the backend and the answers made here, each with
    the table that both of its ends have agreed to."""

    def __init__(self) -> None:
        self._decoder, self._encoder = Decoder(max_header_list_size=HEAD_SIZE), Encoder()
        self._answers = Encoder()
        #: Table sizes that the backend has announced and the client hasn't acknowledged yet.
        self._announced: deque[int | None] = deque()
        #: Table sizes that the client has announced and the backend hasn't acknowledged yet, and the size in force.
        self._unanswered: deque[int | None] = deque()
        self._table = _TABLE
        #: The size to which the client's table has shrunk, where no header block has told it so yet (RFC 7541,
        #: 4.2).
        self._shrunk: int | None = None

    def decode_block(self, data: bytes) -> Headers:
        """Return the fields of a header block from the client. Raise `MalformedHttp2`."""
        try:
            return [*self._decoder.decode(data, raw=True)]
        except HPACKError as error:
            raise MalformedHttp2(f"a head that can't be decoded: {error}") from None

    def encode_block(self, fields: Headers) -> bytes:
        """Return a header block for the backend."""
        return self._encoder.encode(fields, huffman=False)

    def encode_answer(self, fields: Headers) -> bytes:
        """Return a header block for the client. Nothing is indexed, so that the table stays as the backend knows
        it."""
        data = self._answers.encode([NeverIndexedHeaderTuple(*one) for one in fields], huffman=False)
        if self._shrunk is not None:
            data, self._shrunk = _resized(self._shrunk) + data, None
        return data

    def note_client_settings(self, data: memoryview) -> None:
        """Note settings of the client, which take effect when the backend acknowledges them. Raise
        `MalformedHttp2`."""
        self._unanswered.append(_table_size(data))

    def apply_client_settings(self, data: memoryview) -> None:
        """Apply settings of the client at once. Raise `MalformedHttp2`."""
        self._resize_table(_table_size(data))

    def note_client_agreed(self) -> None:
        """Note that the client has acknowledged the backend's settings. Our encoder follows them from now on."""
        if self._announced and (size := self._announced.popleft()) is not None:
            self._encoder.header_table_size = min(size, _TABLE)

    def note_backend_settings(self, data: memoryview) -> None:
        """Note settings of the backend, which the client's encoder may use once it has acknowledged them. Raise
        `MalformedHttp2`."""
        size = _table_size(data)
        if size is not None:
            self._decoder.max_allowed_table_size = max(size, self._decoder.max_allowed_table_size)
        self._announced.append(size)

    def note_backend_agreed(self) -> None:
        """Note that the backend has acknowledged the client's settings."""
        if self._unanswered:
            self._resize_table(self._unanswered.popleft())

    def note_backend_head(self) -> None:
        """Note that the backend has sent a header block, which has told the client about its table."""
        self._shrunk = None

    def settle_all(self) -> int:
        """Apply all settings of the client that no backend will acknowledge; return how many there were."""
        many = len(self._unanswered)
        while self._unanswered:
            self.note_backend_agreed()
        return many

    def _resize_table(self, size: int | None) -> None:
        """Apply the size of the client's table from now on. Until now the backend may have used entries of a larger
        one."""
        if size is None:
            return
        if size < self._table:
            self._shrunk = size if self._shrunk is None else min(size, self._shrunk)
        self._table = size


def _table_size(data: memoryview) -> int | None:
    """Return the HPACK table size in these settings, or None. Raise `MalformedHttp2`."""
    settings = SettingsFrame(0)
    try:
        settings.parse_body(data)
    except HyperframeError as error:
        raise MalformedHttp2(f"malformed settings: {error}") from None
    return settings.settings.get(SettingsFrame.HEADER_TABLE_SIZE)


def _resized(size: int) -> bytes:
    """Return the update that begins a header block and sets the table's size (RFC 7541, 6.3)."""
    data = encode_integer(size, 5)
    data[0] |= 0x20
    return bytes(data)
