"""Streams of shows after docs/broadcast.md alone: no code of dtp, signatures by another library."""

import hashlib
import struct

from Crypto.Cipher import ChaCha20_Poly1305
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.poly1305 import Poly1305

PIECE = 16384
NONE = 2**64 - 1


def domain(name, what):
    return bytes([len(name)]) + name + what


def tree(pieces):
    """RFC 6962, 2.1, word for word: split at the largest power of two below n."""
    if not pieces:
        return hashlib.sha256(b"").digest()
    if len(pieces) == 1:
        return hashlib.sha256(b"\0" + pieces[0]).digest()
    split = 1
    while split * 2 < len(pieces):
        split *= 2
    return hashlib.sha256(b"\1" + tree(pieces[:split]) + tree(pieces[split:])).digest()


def cut(data):
    return [data[at : at + PIECE] for at in range(0, len(data), PIECE)]


class Producer:
    def __init__(self, seed, show, time, media=b"", title=b"", sealed=0):
        self.key = Ed25519PrivateKey.from_private_bytes(seed)
        public = self.key.public_key().public_bytes_raw()
        body = (
            struct.pack(">B32s32sQBBB", 1, public, show, time, sealed, len(media), len(title)) + media + title
        )
        self.announcement = body + self.key.sign(domain(b"dtp.show.v1", body))
        self.stream = hashlib.sha256(body).digest()
        self.link, self.number = bytes(32), 0

    def segment(self, data, *, init=NONE, slot=0, time=0, duration=0, epoch=0, flags=1):
        """The manifest."""
        head = struct.pack(
            ">B32sQQQQIIIB32s32s",
            *(1, self.stream, self.number, init, slot, time, duration, len(data), epoch, flags),
            *(tree(cut(data)), self.link),
        )
        self.number, self.link = self.number + 1, hashlib.blake2b(head, digest_size=32).digest()
        hashes = [hashlib.sha256(b"\0" + piece).digest() for piece in cut(data)]
        return head + self.key.sign(domain(b"dtp.segment.v1", head)) + b"".join(hashes)


def check(announcement, manifests, bodies):
    """Check a stream from its beginning, as a listener does that has all of it. Raise for what isn't in order."""
    body, signature = announcement[:-64], announcement[-64:]
    key = Ed25519PublicKey.from_public_bytes(body[1:33])
    key.verify(signature, domain(b"dtp.show.v1", body))
    link = bytes(32)
    for number, (manifest, data) in enumerate(zip(manifests, bodies, strict=True)):
        head, signature, hashes = manifest[:142], manifest[142:206], manifest[206:]
        key.verify(signature, domain(b"dtp.segment.v1", head))
        fields = struct.unpack(">B32sQQQQIIIB32s32s", head)
        assert fields[1] == hashlib.sha256(body).digest()
        assert fields[2] == number
        assert fields[7] == len(data)
        assert fields[10] == tree(cut(data))
        assert fields[11] == link
        assert hashes == b"".join(hashlib.sha256(b"\0" + piece).digest() for piece in cut(data))
        link = hashlib.blake2b(head, digest_size=32).digest()


def make_vectors():
    """What docs/vectors/broadcast.json has; all of it follows from this file."""
    seed = hashlib.sha256(b"dtp.broadcast vectors").digest()
    show = hashlib.sha256(b"a show").digest()
    begin = 1_700_000_000_000
    one, other = (Producer(seed, show, begin, b"video/mp4", "Größen".encode()) for _ in range(2))
    bodies = [b"init", bytes(range(256)) * 200, b"", b"bye"]
    details = [
        {"init": 0, "flags": 2},
        {"init": 0, "slot": 0, "duration": 2000, "flags": 1},
        {"init": 0, "slot": 1, "duration": 0, "flags": 0},
        {"init": 0, "slot": 1, "duration": 40, "epoch": 7, "flags": 5},
    ]
    manifests = [
        one.segment(body, time=begin + 2000 * at, **detail)
        for at, (body, detail) in enumerate(zip(bodies, details, strict=True))
    ]
    twin = other.segment(b"another init", init=0, flags=2, time=begin)
    return {
        "seed": seed.hex(),
        "show": show.hex(),
        "announcement": one.announcement.hex(),
        "stream": one.stream.hex(),
        "segments": [
            {
                "data": body.hex() if len(body) < 100 else "256 bytes from 0 to 255, 200 times",
                "manifest": made.hex(),
            }
            for body, made in zip(bodies, manifests, strict=True)
        ],
        "last_link": one.link.hex(),
        "equivocation": (manifests[0][:206] + twin[:206]).hex(),
        "sealed": make_sealed_vectors(show, one.stream),
    }


# ---- sealed shows ------------------------------------------------------------------------------------------------


def public(seed):
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


def _salsa(key, first, last, block):
    """The Salsa20 core (Bernstein, 2005): ten double rounds; gives the state before them and behind them."""
    words = lambda data: list(struct.unpack(f"<{len(data) // 4}I", data))  # noqa: E731
    c, k, n = words(b"expand 32-byte k"), words(key), words(first + last)
    before = [c[0], *k[:4], c[1], *n, c[2], *k[4:], c[3]]
    x = list(before)

    def quarter(a, b, c, d):
        for to, one, two, by in ((b, a, d, 7), (c, b, a, 9), (d, c, b, 13), (a, d, c, 18)):
            value = (x[one] + x[two]) & 0xFFFFFFFF
            x[to] ^= ((value << by) | (value >> (32 - by))) & 0xFFFFFFFF

    for _ in range(10):
        for at in ((0, 4, 8, 12), (5, 9, 13, 1), (10, 14, 2, 6), (15, 3, 7, 11)):
            quarter(*at)
        for at in ((0, 1, 2, 3), (5, 6, 7, 4), (10, 11, 8, 9), (15, 12, 13, 14)):
            quarter(*at)
    if block:
        return struct.pack("<16I", *((a + b) & 0xFFFFFFFF for a, b in zip(x, before, strict=True)))
    return struct.pack("<8I", *(x[at] for at in (0, 5, 10, 15, 6, 7, 8, 9)))


def _xsalsa(key, nonce, size):
    inner = _salsa(key, nonce[:8], nonce[8:16], block=False)
    blocks = (_salsa(inner, nonce[16:], struct.pack("<Q", at), block=True) for at in range(-(-size // 64)))
    return b"".join(blocks)[:size]


def _box_key(ours, theirs):
    shared = ours.exchange(X25519PublicKey.from_public_bytes(theirs))
    return _salsa(shared, bytes(8), bytes(8), block=False)


def _sealed_box(data, theirs, ephemeral):
    """crypto_box_seal of libsodium, with a given key of the moment."""
    ours = X25519PrivateKey.from_private_bytes(ephemeral)
    mine = ours.public_key().public_bytes_raw()
    nonce = hashlib.blake2b(mine + theirs, digest_size=24).digest()
    stream = _xsalsa(_box_key(ours, theirs), nonce, 32 + len(data))
    body = bytes(a ^ b for a, b in zip(data, stream[32:], strict=True))
    return mine + Poly1305.generate_tag(stream[:32], body) + body


def _open_box(sealed, private):
    ours = X25519PrivateKey.from_private_bytes(private)
    mine = ours.public_key().public_bytes_raw()
    theirs, tag, body = sealed[:32], sealed[32:48], sealed[48:]
    nonce = hashlib.blake2b(theirs + mine, digest_size=24).digest()
    stream = _xsalsa(_box_key(ours, theirs), nonce, 32 + len(body))
    Poly1305.verify_tag(stream[:32], body, tag)
    return bytes(a ^ b for a, b in zip(body, stream[32:], strict=True))


def _montgomery(public_key):
    """The X25519 key of an Ed25519 one: u = (1 + y) / (1 - y)."""
    prime = 2**255 - 19
    y = int.from_bytes(public_key, "little") & (2**255 - 1)
    return ((1 + y) * pow(1 - y, -1, prime) % prime).to_bytes(32, "little")


def _private(seed):
    return hashlib.sha512(seed).digest()[:32]  # X25519 clamps it itself


def keys_bound(stream, epoch):
    return domain(b"dtp.show.keys.v1", stream + struct.pack(">I", epoch))


def seal_key(key, stream, epoch, listeners, secrets):
    """Listeners are Ed25519 keys; `secrets` are 32 bytes of the message key, and 32 from which the others follow."""
    message_key, moment = secrets[:32], secrets[32:]
    parts = [bytes([1, len(listeners)])]
    for at, each in enumerate(listeners):
        theirs = _montgomery(each)
        ephemeral = hashlib.sha256(moment + bytes([at])).digest()
        parts += [theirs[:4], _sealed_box(message_key, theirs, ephemeral)]
    nonce = hashlib.sha256(moment).digest()[:24]
    cipher = ChaCha20_Poly1305.new(key=message_key, nonce=nonce)  # 24 bytes of nonce make it XChaCha20
    cipher.update(keys_bound(stream, epoch))
    body, tag = cipher.encrypt_and_digest(key)
    sealed = b"".join([*parts, nonce, body, tag])
    return struct.pack(">I", len(sealed)) + sealed


def open_key(data, stream, epoch, seed):
    private = _private(seed)
    mine = _montgomery(public(seed))
    at = 0
    while at < len(data):
        (size,) = struct.unpack_from(">I", data, at)
        sealed, at = data[at + 4 : at + 4 + size], at + 4 + size
        version, count = sealed[:2]
        assert version == 1
        rest = sealed[2 + 84 * count :]
        for start in range(2, 2 + 84 * count, 84):
            if sealed[start : start + 4] == mine[:4]:
                message_key = _open_box(sealed[start + 4 : start + 84], private)
                cipher = ChaCha20_Poly1305.new(key=message_key, nonce=rest[:24])
                cipher.update(keys_bound(stream, epoch))
                return cipher.decrypt_and_verify(rest[24:-16], rest[-16:])
    return None


def _nonce(number):
    return bytes(4) + struct.pack(">Q", number)


def seal_segment(key, stream, number, data):
    cipher = ChaCha20_Poly1305.new(key=key, nonce=_nonce(number))
    cipher.update(domain(b"dtp.show.sealed.v1", stream))
    body, tag = cipher.encrypt_and_digest(data)
    return body + tag


def open_segment(key, stream, number, sealed):
    cipher = ChaCha20_Poly1305.new(key=key, nonce=_nonce(number))
    cipher.update(domain(b"dtp.show.sealed.v1", stream))
    return cipher.decrypt_and_verify(sealed[:-16], sealed[-16:])


def make_sealed_vectors(show, stream):
    listener, account, key = (
        hashlib.sha256(b"dtp.broadcast " + name).digest() for name in (b"listener", b"account", b"key")
    )
    claim = domain(b"dtp.show.seat.v1", show + public(listener) + struct.pack(">Q", 1_700_000_000_000))
    return {
        "listener_seed": listener.hex(),
        "account_seed": account.hex(),
        "show": show.hex(),
        "stream": stream.hex(),
        "epoch": 3,
        "key": key.hex(),
        "keys": seal_key(key, stream, 3, [public(account), public(listener)], bytes(64)).hex(),
        "number": 5,
        "data": "good evening",
        "segment": seal_segment(key, stream, 5, b"good evening").hex(),
        "claim_time_ms": 1_700_000_000_000,
        "claim_signature": Ed25519PrivateKey.from_private_bytes(account).sign(claim).hex(),
    }
