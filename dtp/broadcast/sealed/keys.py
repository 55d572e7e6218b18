"""Keys of sealed shows as values: segments sealed with a key, and a key sealed to those who may listen. No IO.

Source: docs/broadcast.md, "Sealed shows".
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from struct import Struct
from typing import Final

from dtp.broadcast.errors import SegmentError
from dtp.broadcast.format.segment import Segment
from dtp.errors import PeerError
from dtp.identity import Identity, PeerId
from dtp.identity.sealing import MAX_RECIPIENTS, open_sealed, seal

KEY_SIZE: Final = 32
#: What sealing adds to a segment.
OVERHEAD: Final = 16
SEGMENT_DOMAIN: Final = b"dtp.show.sealed.v1"
KEYS_DOMAIN: Final = b"dtp.show.keys.v1"
#: Four zero bytes and a segment's number: no key seals two segments of one number.
_NONCE: Final = Struct(">4xQ")
_SIZE: Final = Struct(">I")
_EPOCH: Final = Struct(">I")


def seal_segment(key: bytes, stream: bytes, number: int, data: bytes) -> bytes:
    """Return a segment's bytes sealed: ChaCha20-Poly1305 (RFC 8439). A key seals one segment of each number."""
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

    return ChaCha20Poly1305(key).encrypt(_NONCE.pack(number), data, _bound(SEGMENT_DOMAIN, stream))


def open_segment(key: bytes, segment: Segment, data: bytes) -> bytes:
    """Return what was sealed in a segment. Raise `SegmentError` where the producer sealed it with another key."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

    bound = _bound(SEGMENT_DOMAIN, segment.stream)
    try:
        return ChaCha20Poly1305(key).decrypt(_NONCE.pack(segment.number), data, bound)
    except InvalidTag:
        raise SegmentError(
            f"segment {segment.number} isn't sealed with the key of epoch {segment.epoch}, as its producer says"
        ) from None


def seal_key(key: bytes, stream: bytes, epoch: int, listeners: Sequence[PeerId]) -> bytes:
    """Return what a segment of keys has: the key of an epoch, sealed to these. Each listener takes 84 bytes."""
    bound = _bound(KEYS_DOMAIN, stream, epoch)
    parts = []
    for at in range(0, len(listeners), MAX_RECIPIENTS):
        sealed = seal(key, [_box_key(each.key) for each in listeners[at : at + MAX_RECIPIENTS]], bound)
        parts += [_SIZE.pack(len(sealed)), sealed]
    return b"".join(parts)


def open_key(data: bytes, stream: bytes, epoch: int, identity: Identity) -> bytes | None:
    """Return the key of an epoch out of a segment of keys, None where it isn't sealed to this identity.

    Raise `SegmentError` for what is no such segment.
    """
    from nacl.signing import SigningKey

    private = bytes(SigningKey(identity.seed).to_curve25519_private_key())
    bound = _bound(KEYS_DOMAIN, stream, epoch)
    at = 0
    while at < len(data):
        begin = at + _SIZE.size
        at = begin + (_SIZE.unpack_from(data, at)[0] if begin <= len(data) else len(data))
        if at > len(data):
            raise SegmentError("a segment of keys is cut short")
        try:
            key = open_sealed(data[begin:at], private, bound)
        except PeerError:
            continue
        if len(key) != KEY_SIZE:
            raise SegmentError(f"the key of epoch {epoch} has {len(key)} bytes, not {KEY_SIZE}")
        return key
    return None


@cache
def _box_key(key: bytes) -> bytes:
    """Return the X25519 key of an Ed25519 one."""
    from nacl.signing import VerifyKey

    return bytes(VerifyKey(key).to_curve25519_public_key())


def _bound(domain: bytes, stream: bytes, epoch: int | None = None) -> bytes:
    """Return what is authenticated beside what is sealed."""
    return bytes((len(domain),)) + domain + stream + (b"" if epoch is None else _EPOCH.pack(epoch))
