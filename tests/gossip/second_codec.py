"""A second implementation of messages and frames, written from docs/gossip.md: slow, plain, with other libraries."""

import base64
import hashlib
import struct
from collections.abc import Callable

from Crypto.Cipher import ChaCha20_Poly1305
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SIGNED = b"\x0edtp.message.v1"


def leaf(content):
    return hashlib.blake2b(content, digest_size=32, person=b"dtp.message.v1").digest()


def node(left, right):
    return hashlib.blake2b(left + right, digest_size=32, person=b"dtp.msg.node.v1").digest()


def content(author, sequence, time_ms, topic, payload):
    return b"\x01" + author + struct.pack(">QQ", sequence, time_ms) + bytes([len(topic)]) + topic + payload


def tree(leaves):
    """All levels of the tree, from the leaves up."""
    levels = [leaves]
    while len(levels[-1]) > 1:
        below = levels[-1]
        levels.append([node(below[at], below[at + 1]) for at in range(0, len(below), 2)])
    return levels


def sign_together(seed, contents):
    """1, 2, 4, ... contents as messages under one signature."""
    levels = tree([leaf(each) for each in contents])
    signature = Ed25519PrivateKey.from_private_bytes(seed).sign(SIGNED + levels[-1][0])
    messages = []
    for place, each in enumerate(contents):
        path, at = b"", place
        for level in levels[:-1]:
            path += level[at + 1 if at % 2 == 0 else at - 1]
            at //= 2
        messages.append(each + path + bytes([len(levels) - 1, place]) + signature)
    return messages


def read(message):
    """(author, sequence, time_ms, topic, payload, id), or None for what is no signed message."""
    if len(message) < 66:
        return None
    depth, place, signature = message[-66], message[-65], message[-64:]
    if depth > 6 or place >= 2**depth or len(message) < 66 + 32 * depth:
        return None
    told = message[: -66 - 32 * depth]
    path = message[len(told) : -66]
    if len(told) < 51 or told[0] != 1:
        return None
    author = told[1:33]
    sequence, time_ms = struct.unpack(">QQ", told[33:49])
    size = told[49]
    if not 1 <= size <= 128 or 50 + size > len(told) or max(sequence, time_ms) >= 2**63:
        return None
    own = root = leaf(told)
    for level in range(depth):
        sibling = path[32 * level : 32 * level + 32]
        root = node(sibling, root) if place >> level & 1 else node(root, sibling)
    try:
        Ed25519PublicKey.from_public_bytes(author).verify(signature, SIGNED + root)
    except InvalidSignature:
        return None
    return author, sequence, time_ms, told[50 : 50 + size], told[50 + size :], own[:20]


# ---- private topics ----------------------------------------------------------------------------------------------


def derive(name, secret, size, purpose):
    key = hashlib.blake2b(secret).digest()
    return hashlib.blake2b(name, key=key, digest_size=size, person=purpose).digest()


def private_topic(name, secret):
    return b"~" + base64.b32encode(derive(name, secret, 20, b"dtp.topic.name")).lower()


def seal(name, secret, author, sequence, time_ms, data, nonce):
    cipher = ChaCha20_Poly1305.new(key=derive(name, secret, 32, b"dtp.topic.seal"), nonce=nonce)
    cipher.update(content(author, sequence, time_ms, private_topic(name, secret), b""))
    return nonce + b"".join(cipher.encrypt_and_digest(data))


# ---- frames ------------------------------------------------------------------------------------------------------


def topic_field(name):
    return bytes([len(name)]) + name


def record_field(record):
    return struct.pack(">H", len(record)) + record


BODIES: dict[str, tuple[int, Callable[..., bytes]]] = {
    "subscribe": (1, lambda topics: b"".join(map(topic_field, topics))),
    "ihave": (4, lambda topic, ids: topic_field(topic) + b"".join(ids)),
    "graft": (7, topic_field),
    "prune": (
        8,
        lambda topic, seconds, records: (
            topic_field(topic) + struct.pack(">H", seconds) + b"".join(map(record_field, records))
        ),
    ),
    "neighbours": (9, lambda topic, names: topic_field(topic) + b"".join(sorted(names))),
    "peers": (10, lambda topic, records: topic_field(topic) + b"".join(map(record_field, records))),
    "history": (11, lambda topic, since, count: topic_field(topic) + struct.pack(">QH", since, count)),
    "time": (128, lambda wall_ms: struct.pack(">Q", wall_ms)),
}


def frame(kind, body):
    return struct.pack(">I", kind << 24 | len(body)) + body


def frame_of(name, *fields):
    kind, body = BODIES[name]
    return frame(kind, body(*fields))


def make_vectors():
    """What docs/vectors/gossip.json has; all of it follows from this file."""
    seed = hashlib.sha256(b"dtp.gossip vectors").digest()
    author = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    contents = [
        content(author, 7 + at, 1_700_000_000_000 + at, b"weather", b"%d.5" % (20 + at)) for at in range(8)
    ]
    batches = {str(count): sign_together(seed, contents[:count]) for count in (1, 2, 8)}
    secret, nonce = b"correct horse battery staple", bytes(range(24))
    name = private_topic(b"family", secret)
    sealed = seal(b"family", secret, author, 1, 1_700_000_000_000, b"hello", nonce)
    ids = [hashlib.sha256(bytes([at])).digest()[:20] for at in range(3)]
    frames = {
        "subscribe": frame_of("subscribe", [b"weather", "größe".encode()]),
        "ihave": frame_of("ihave", b"weather", ids),
        "graft": frame_of("graft", b"weather"),
        "prune": frame_of("prune", b"weather", 60, [b"record one", b"record two"]),
        "neighbours": frame_of("neighbours", b"weather", [bytes([9] * 8), bytes([3] * 8)]),
        "peers": frame_of("peers", b"weather", [b"record one"]),
        "history": frame_of("history", b"weather", 1_700_000_000_000, 1000),
        "time": frame_of("time", 1_700_000_000_000),
    }
    return {
        "seed": seed.hex(),
        "author": author.hex(),
        "messages": {count: [each.hex() for each in batch] for count, batch in batches.items()},
        "ids": [leaf(each)[:20].hex() for each in contents],
        "private": {
            "name": "family",
            "secret": secret.decode(),
            "topic": name.decode(),
            "nonce": nonce.hex(),
            "data": b"hello".hex(),
            "message": sign_together(seed, [content(author, 1, 1_700_000_000_000, name, sealed)])[0].hex(),
        },
        "frames": {name: each.hex() for name, each in frames.items()},
    }
