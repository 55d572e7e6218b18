"""The announcement: what a producer signs once for a stream. All segments name it by its hash."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from struct import Struct
from struct import error as StructError
from typing import Final

from dtp.broadcast.errors import BroadcastError, SegmentError, SegmentForged
from dtp.identity import Identity, PeerId, PeerIdError
from dtp.identity.keys import SIGNATURE_SIZE
from dtp.unicode import encode_text

VERSION: Final = 1
DOMAIN: Final = b"dtp.show.v1"
SHOW_SIZE: Final = 32
MAX_TEXT: Final = 255

#: version, producer's key, show, time (Unix ms), flags, bytes of the media type, bytes of the title
_HEAD: Final = Struct(">B32s32sQBBB")
_SEALED: Final = 1


@dataclass(frozen=True, slots=True)
class Announcement:
    """What a stream is, according to its producer. Made by `sign` and `decode`, which check it."""

    #: The identity that signs the segments.
    producer: PeerId
    #: 32 bytes: the id of the show's object on the chain, or random bytes for a show without one.
    show: bytes
    #: When it was announced, Unix ms by the producer's clock.
    time_ms: int
    #: True if segments are sealed, so that only those with the keys can open them.
    sealed: bool
    #: The media type of the stream, such as "video/mp4"; "" where the producer doesn't say.
    media: str
    title: str
    #: The announcement as bytes, signed.
    encoded: bytes

    @classmethod
    def sign(
        cls,
        identity: Identity,
        show: bytes,
        *,
        time_ms: int,
        media: str = "",
        title: str = "",
        sealed: bool = False,
    ) -> Announcement:
        """Return the signed announcement of a stream of `identity`. Raise `BroadcastError` when a limit is
        exceeded."""
        texts = encode_text(media, "the media type"), encode_text(title, "the title")
        if len(show) != SHOW_SIZE or max(map(len, texts)) > MAX_TEXT or not 0 <= time_ms < 2**63:
            raise BroadcastError(
                f"a show has an id of {SHOW_SIZE} bytes, and media type and title of at most {MAX_TEXT} bytes each"
            )
        head = _HEAD.pack(
            VERSION, identity.id.key, show, time_ms, _SEALED if sealed else 0, len(texts[0]), len(texts[1])
        )
        body = head + texts[0] + texts[1]
        return cls.decode(body + identity.sign(_message(body)))

    @classmethod
    def decode(cls, data: bytes) -> Announcement:
        """Return the announcement that was encoded. Raise `SegmentError` if it is malformed, `SegmentForged` if
        forged."""
        body, signature = data[:-SIGNATURE_SIZE], data[-SIGNATURE_SIZE:]
        try:
            version, key, show, time_ms, flags, media_size, title_size = _HEAD.unpack_from(body)
            texts = body[_HEAD.size :]
            if (
                version != VERSION
                or flags & ~_SEALED
                or len(texts) != media_size + title_size
                or time_ms >= 2**63
            ):
                raise SegmentError("an announcement has another version, size or flags than this one reads")
            producer = PeerId(key)
            media, title = texts[:media_size].decode(), texts[media_size:].decode()
        except (StructError, ValueError, PeerIdError) as fault:
            raise SegmentError(f"an announcement can't be read: {fault}") from None
        if not producer.verify(signature, _message(body)):
            raise SegmentForged(f"an announcement was not signed by {producer}, whom it names")
        return cls(producer, show, time_ms, bool(flags & _SEALED), media, title, bytes(data))

    @property
    def stream(self) -> bytes:
        """The stream's id, 32 bytes: the SHA-256 of what was signed."""
        return sha256(self.encoded[:-SIGNATURE_SIZE]).digest()


def _message(body: bytes) -> bytes:
    return bytes((len(DOMAIN),)) + DOMAIN + body
