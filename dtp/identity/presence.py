"""Presence: what a peer signs to say that it is alive now, and where; a statement that anybody may carry.

Source: docs/wire.md, section "Presence". Whoever dials the peer is told the newest one; tables, a LAN or gossip can
pass it on, since it ends by itself and proves who said it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

from dtp.errors import PeerError
from dtp.identity.keys import SIGNATURE_SIZE, Identity
from dtp.identity.peer_id import PeerId, PeerIdError
from dtp.packing import pack, unpack
from dtp.unicode import encode_text

DOMAIN: Final = b"dtp.presence.v1"
VERSION: Final = 1
#: The longest statement, bytes: eight hints and their frame.
MAX_BYTES: Final = 4608
MAX_HINTS: Final = 8
MAX_HINT_BYTES: Final = 512
#: A statement is for now: none is good for longer, ms.
MAX_LIFETIME_MS: Final = 24 * 3_600_000
_MAX_NUMBER: Final = 2**63 - 1
_HOST_BYTES: Final = 32


class PresenceError(PeerError):
    """A statement of presence is malformed, or not by whom it names."""

    code: ClassVar[str] = "presence"


@dataclass(frozen=True, slots=True)
class PresenceStatement:
    """That `peer` was alive at `issued_ms` (Unix time), as far as it knows until `expires_ms`.

    `host` is the host object that it serves ("0x" and 64 digits), "" for none; `generation` its generation in that
    host's beacon, 0 for none; `sequence` rises with each statement of one generation. `hints` are carrier URLs.
    """

    peer: PeerId
    host: str
    generation: int
    sequence: int
    issued_ms: int
    expires_ms: int
    hints: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        numbers = (self.generation, self.sequence, self.issued_ms, self.expires_ms)
        if not all(type(each) is int and 0 <= each <= _MAX_NUMBER for each in numbers):
            raise PresenceError("a number of a statement of presence is out of bounds")
        if not self.issued_ms < self.expires_ms <= self.issued_ms + MAX_LIFETIME_MS:
            raise PresenceError("a statement of presence is good for a day at most, from when it was issued")
        hints = [encode_text(each, "a hint") for each in self.hints]
        if len(hints) > MAX_HINTS or any(len(each) > MAX_HINT_BYTES for each in hints):
            raise PresenceError(f"a statement has {MAX_HINTS} hints at most, of {MAX_HINT_BYTES} bytes each")

    def sign(self, identity: Identity) -> bytes:
        """Return the statement as bytes, signed. Raise `PresenceError` where `identity` isn't its peer."""
        if identity.id != self.peer:
            raise PresenceError(f"{identity.id} can't sign what {self.peer} says")
        host = bytes.fromhex(self.host.removeprefix("0x"))
        numbers = (self.generation, self.sequence, self.issued_ms, self.expires_ms)
        body = pack([VERSION, self.peer.key, host, *numbers, list(self.hints)])
        return pack([body, identity.sign(_message(body))])

    @classmethod
    def parse(cls, data: bytes) -> PresenceStatement:
        """Return the statement that these bytes are. Raise `PresenceError` unless its peer has signed it.

        Whether it still holds is `is_current`'s affair.
        """
        body, signature = _envelope(data)
        match unpack(body, PresenceError, "a statement of presence"):
            case [int(version), *_] if version != VERSION:
                raise PresenceError(f"a statement of version {version}; {VERSION} is spoken here")
            case [_, bytes(key), bytes(host), generation, sequence, issued, expires, [*hints]]:
                pass
            case _:
                raise PresenceError("a statement of presence is malformed")
        if len(host) not in (0, _HOST_BYTES) or not all(isinstance(each, str) for each in hints):
            raise PresenceError("a statement of presence names no host that can be")
        try:
            peer = PeerId(key)
        except PeerIdError as fault:
            raise PresenceError(f"a statement of presence names no peer: {fault}") from None
        if not peer.verify(signature, _message(body)):
            raise PresenceError(f"{peer} has not signed this statement")
        named = "0x" + host.hex() if host else ""
        return cls(peer, named, generation, sequence, issued, expires, tuple(hints))

    def is_current(self, now_ms: int, skew_ms: int = 60_000) -> bool:
        """True while it holds, for clocks that differ by `skew_ms` at most."""
        return self.issued_ms - skew_ms <= now_ms <= self.expires_ms + skew_ms

    def supersedes(self, other: PresenceStatement) -> bool:
        """True when this is newer than `other` of the same peer: what was learned of it before is to be forgotten."""
        newer = (self.generation, self.sequence, self.issued_ms)
        return self.peer == other.peer and newer > (other.generation, other.sequence, other.issued_ms)


def _message(body: bytes) -> bytes:
    return bytes((len(DOMAIN),)) + DOMAIN + body


def _envelope(data: bytes) -> tuple[bytes, bytes]:
    if len(data) > MAX_BYTES:
        raise PresenceError(f"a statement of presence of {len(data)} bytes; {MAX_BYTES} are the most")
    match unpack(data, PresenceError, "a statement of presence"):
        case [bytes(body), bytes(signature)] if len(signature) == SIGNATURE_SIZE:
            return body, signature
    raise PresenceError("a statement of presence is malformed")
