"""A second implementation of docs/wire.md's records and frames, over noiseprotocol's ciphers: slow and plain."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from noise.backends.default.ciphers import AESGCMCipher, ChaCha20Cipher
from noise.state import CipherState

from dtp.core import PacketOpener

CIPHERS = {"AESGCM": AESGCMCipher, "ChaChaPoly": ChaCha20Cipher}
PADDING, STREAM, REKEY, FIN, FRESH = 0, 3, 11, 1, 1

#: type, flags, stream, offset, data
Plain = tuple[int, int, int, int, bytes]


def in_c(handle: Any) -> Any:
    """What C keeps of a sealer or an opener, for tests that call C or look at every byte of it."""
    return handle._opener if isinstance(handle, PacketOpener) else handle._cipher


class Broken(Exception):
    """The plaintext is not a sequence of whole frames."""


def cipher_state(suite: str, key: bytes, counter: int = 0) -> CipherState:
    state = CipherState(SimpleNamespace(cipher_class=CIPHERS[suite]))
    state.initialize_key(key)
    state.n = counter
    return state


def take_key(state: CipherState, key: bytes) -> None:
    counter = state.n
    state.initialize_key(key)
    state.n = counter


def frame(kind: int, body: bytes = b"", flags: int = 0) -> bytes:
    return bytes([kind, flags]) + len(body).to_bytes(2, "big") + body


def stream(stream_id: int, offset: int, data: bytes, flags: int = 0) -> bytes:
    return frame(STREAM, stream_id.to_bytes(8, "big") + offset.to_bytes(8, "big") + data, flags)


def parse(plaintext: bytes) -> list[Plain]:
    frames: list[Plain] = []
    while plaintext:
        size = int.from_bytes(plaintext[2:4], "big")
        if len(plaintext) < 4 + size:
            raise Broken("longer than its record")
        kind, flags, body, plaintext = (
            plaintext[0],
            plaintext[1],
            plaintext[4 : 4 + size],
            plaintext[4 + size :],
        )
        if kind == STREAM:
            if size < 16:
                raise Broken("no stream header")
            at = int.from_bytes(body[8:16], "big")
            frames.append((kind, flags, int.from_bytes(body[:8], "big"), at, body[16:]))
        else:
            frames.append((kind, flags, 0, 0, body))
        if kind == REKEY and (size or plaintext):
            raise Broken("REKEY is empty and the last")
    return frames


class ReferenceSealer:
    """Seals any plaintext, also one that no honest sender would make."""

    def __init__(self, suite: str, key: bytes) -> None:
        self.state = cipher_state(suite, key)

    def record(self, plaintext: bytes) -> bytes:
        message = self.state.encrypt_with_ad(b"", plaintext)
        return len(message).to_bytes(2, "big") + message

    def rekey(self) -> None:
        self.state.rekey()

    def take(self, key: bytes) -> None:
        """Go on with a key of a fresh exchange; the counter goes on, too."""
        take_key(self.state, key)


class ReferenceOpener:
    """Opens a byte string of whole records; `plaintexts` keeps each record's."""

    def __init__(self, suite: str, key: bytes) -> None:
        self.state = cipher_state(suite, key)
        self.plaintexts: list[bytes] = []
        self.fresh: bytes | None = None

    def open(self, data: bytes) -> list[Plain]:
        frames: list[Plain] = []
        while data:
            size = int.from_bytes(data[:2], "big")
            assert len(data) >= 2 + size, "the last record is not whole"
            plaintext = self.state.decrypt_with_ad(b"", data[2 : 2 + size])
            data = data[2 + size :]
            self.plaintexts.append(plaintext)
            found = parse(plaintext)
            frames += found
            if found and found[-1][0] == REKEY and found[-1][1] & FRESH:
                if self.fresh is None:
                    raise Broken("no fresh key was agreed on")
                take_key(self.state, self.fresh)
                self.fresh = None
            elif found and found[-1][0] == REKEY:
                self.state.rekey()
        return frames


def joined(frames: list[Plain]) -> list[Plain]:
    """What a receiver may be given instead: without PADDING, REKEY and the types from 0x80 on, and with continuing
    STREAM frames joined."""
    result: list[Plain] = []
    for kind, flags, stream_id, offset, data in frames:
        if kind in (PADDING, REKEY) or kind >= 0x80:
            continue
        last = result[-1] if result else (PADDING, 0, 0, 0, b"")
        goes_on = (last[0], last[2], last[3] + len(last[4])) == (STREAM, stream_id, offset) and not last[
            1
        ] & FIN
        if kind == STREAM and goes_on and not (last[1] ^ flags) & ~FIN:
            result[-1] = (STREAM, flags, stream_id, last[3], last[4] + data)
            continue
        result.append((kind, flags, stream_id, offset, data))
    return result
