"""Messages of topics: signed statements of who wrote what, and when. Their bytes are the same whatever carries
them; docs/gossip.md specifies them.

Messages that an author publishes in one turn share a signature: it is over the root of a tree of their hashes, and
each message has the path from its own hash to the root (docs/decisions/0293).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from struct import Struct
from typing import Final

from dtp.bounded import BoundedDict
from dtp.core.signatures import SignedMessage, first_forged
from dtp.errors import LocalError
from dtp.gossip.errors import MessageError
from dtp.identity import Identity, PeerId, PeerIdError
from dtp.unicode import encode_text

VERSION: Final = 1
#: The domains of the signed root, and of the hashes below it.
DOMAIN: Final = b"dtp.message.v1"
NODE_DOMAIN: Final = b"dtp.msg.node.v1"
#: The size of a message's id in frames, which is the beginning of its hash.
ID_SIZE: Final = 20
HASH_SIZE: Final = 32
SIGNATURE_SIZE: Final = 64
#: Hashes on the path to the root, at most: 64 messages under one signature.
MAX_DEPTH: Final = 6
#: Messages that this side puts under one signature: it costs 128 bytes for each, and saves 15 of 16 signatures.
BATCH: Final = 16
MAX_TOPIC_BYTES: Final = 128

#: version, author, sequence, time (Unix milliseconds), bytes of the topic's name
_HEAD: Final = Struct(">B32sQQB")
#: What follows a message's content, apart from the path: depth, place among the leaves, signature.
_TRAIL: Final = 2 + SIGNATURE_SIZE
#: The shortest message: a name of one byte, no data, no path.
MIN_SIZE: Final = _HEAD.size + 1 + _TRAIL
_SIGNED: Final = bytes((len(DOMAIN),)) + DOMAIN
_MAX_NUMBER: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Message:
    """A message of a topic. It is made by `Parsed.to_message`, from a received or a signed message."""

    #: The first 20 bytes of its hash, the same wherever it is.
    id: bytes
    topic: str
    #: The author's public key, 32 bytes; `author` is its name.
    key: bytes
    #: A number that rises with each message of the author.
    sequence: int
    #: When it was written, as its author says, in Unix milliseconds.
    time_ms: int
    #: The payload as the program gave it; that of a private topic is already opened.
    data: bytes
    #: The whole encoded message, with its signature.
    encoded: bytes

    @property
    def author(self) -> PeerId:
        """The peer that has signed it."""
        return PeerId(self.key)

    @property
    def time(self) -> float:
        """When it was written, as its author says, as Unix time in seconds."""
        return self.time_ms / 1000


def check_topic(name: str) -> bytes:
    """Return a topic's name as bytes. Raise `LocalError` unless it has 1 to 128 bytes of UTF-8."""
    encoded = encode_text(name, "a topic's name")
    if not 0 < len(encoded) <= MAX_TOPIC_BYTES:
        raise LocalError(f"a topic's name has 1 to {MAX_TOPIC_BYTES} bytes, not {len(encoded)}")
    return encoded


def content_of(key: bytes, topic: bytes, sequence: int, time_ms: int, data: bytes) -> bytes:
    """Return the content of a message, which is hashed."""
    return _HEAD.pack(VERSION, key, sequence, time_ms, len(topic)) + topic + data


def hash_content(content: bytes | memoryview) -> bytes:
    """Return the hash of a message's content, the beginning of which is the message's id."""
    return blake2b(content, digest_size=HASH_SIZE, person=DOMAIN).digest()


def _hash_node(pair: bytes) -> bytes:
    return blake2b(pair, digest_size=HASH_SIZE, person=NODE_DOMAIN).digest()


def sign_batch(identity: Identity, contents: Sequence[bytes]) -> list[bytes]:
    """Return the encoded messages with these contents, in order, under as few signatures as complete trees allow.

    Of 13 messages, 8, 4 and 1 are under one signature each.
    """
    encoded: list[bytes] = []
    at, size = 0, BATCH
    while at < len(contents):
        while size > len(contents) - at:
            size //= 2
        encoded += _sign_tree(identity, contents[at : at + size])
        at += size
    return encoded


def _sign_tree(identity: Identity, contents: Sequence[bytes]) -> list[bytes]:
    """Return 1, 2, 4, ... encoded messages under one signature."""
    level = [hash_content(each) for each in contents]
    paths: list[list[bytes]] = [[] for _ in contents]
    for height in range(len(contents).bit_length() - 1):
        for place, path in enumerate(paths):
            path.append(level[place >> height ^ 1])
        level = [_hash_node(level[at] + level[at + 1]) for at in range(0, len(level), 2)]
    signature = identity.sign(_SIGNED + level[0])
    return [
        b"".join((content, *path, bytes((len(path), place)), signature))
        for place, (content, path) in enumerate(zip(contents, paths, strict=True))
    ]


class Parsed:
    """An encoded message, parsed as far as needed to know whether it is new. Its signature isn't checked yet."""

    __slots__ = ("content_end", "digest", "encoded", "id", "key", "sequence", "time_ms", "topic")

    def __init__(self, encoded: bytes) -> None:
        """Parse a message. Raise `MessageError` if it isn't one."""
        size = len(encoded)
        if size < MIN_SIZE:
            raise MessageError(f"a message of {size} bytes; the shortest has {MIN_SIZE}")
        depth = encoded[-_TRAIL]
        end = size - _TRAIL - HASH_SIZE * depth
        if depth > MAX_DEPTH or encoded[1 - _TRAIL] >> depth or end <= _HEAD.size:
            raise MessageError("a message has an impossible path to its signed root")
        version, self.key, self.sequence, self.time_ms, length = _HEAD.unpack_from(encoded)
        if version != VERSION:
            raise MessageError(f"a message of version {version}; this is version {VERSION}")
        if not 0 < length <= MAX_TOPIC_BYTES or _HEAD.size + length > end:
            raise MessageError("a message's topic is longer than the message, or than a name may be")
        if self.sequence > _MAX_NUMBER or self.time_ms > _MAX_NUMBER:
            raise MessageError("a number of a message is out of bounds")
        self.encoded = encoded
        self.content_end = end
        self.topic = encoded[_HEAD.size : _HEAD.size + length]
        self.digest = hash_content(encoded[:end])
        self.id = self.digest[:ID_SIZE]

    @property
    def data(self) -> bytes:
        """The payload as it is encoded."""
        return self.encoded[_HEAD.size + len(self.topic) : self.content_end]

    @property
    def signature(self) -> bytes:
        """The author's signature over the root."""
        return self.encoded[-SIGNATURE_SIZE:]

    @property
    def root(self) -> bytes:
        """The root that the author has signed, 32 bytes."""
        encoded, digest = self.encoded, self.digest
        depth, place = encoded[-_TRAIL], encoded[1 - _TRAIL]
        for at in range(self.content_end, self.content_end + depth * HASH_SIZE, HASH_SIZE):
            sibling = encoded[at : at + HASH_SIZE]
            digest = _hash_node(sibling + digest if place & 1 else digest + sibling)
            place >>= 1
        return digest

    def to_message(self, topic: str, data: bytes | None = None) -> Message:
        """Return the message for programs, with `data` as its payload if that was sealed."""
        return Message(
            self.id,
            topic,
            self.key,
            self.sequence,
            self.time_ms,
            self.data if data is None else data,
            self.encoded,
        )


#: Signatures that are remembered, valid and invalid ones separately: about 250 bytes each.
_REMEMBERED: Final = 4096


class SignatureChecks:
    """Checks whether messages are signed by the author that they name, each signature once.

    Bounded: valid and invalid ones are remembered separately, and the oldest are dropped first.
    """

    def __init__(self, remembered: int = _REMEMBERED) -> None:
        self._good: BoundedDict[bytes, None] = BoundedDict(remembered)
        self._bad: BoundedDict[bytes, None] = BoundedDict(remembered)
        #: The number of signatures that were checked, and of those that were known already.
        self.checked = 0
        self.known = 0

    def check(self, parsed: Sequence[Parsed]) -> list[bool]:
        """Return for each message whether its author has signed it."""
        found: list[bool | None] = []
        wanted: dict[bytes, SignedMessage] = {}
        names = []
        for one in parsed:
            signed = one.key + one.root
            name = signed + one.signature
            names.append(name)
            known = True if name in self._good else False if name in self._bad else None
            found.append(known)
            if known is None and name not in wanted:
                wanted[name] = SignedMessage(one.key, one.signature, _SIGNED + signed[32:])
            else:
                self.known += 1
        if wanted:
            verdicts = self._verify_messages(wanted)
            found = [verdicts[name] if one is None else one for name, one in zip(names, found, strict=True)]
        return [bool(one) for one in found]

    def _verify_messages(self, wanted: dict[bytes, SignedMessage]) -> dict[bytes, bool]:
        self.checked += len(wanted)
        verdicts = dict(zip(wanted, are_genuine(list(wanted.values())), strict=True))
        for name, is_genuine in verdicts.items():
            (self._good if is_genuine else self._bad)[name] = None
        return verdicts


def are_genuine(signed: Sequence[SignedMessage]) -> list[bool]:
    """Return for each whether its key has signed it. This takes one call of C if all are genuine."""
    verdicts = [_is_key(one.key) for one in signed]
    places = [at for at, is_key in enumerate(verdicts) if is_key]
    while places:
        forged = first_forged([signed[at] for at in places])
        if forged is None:
            break
        verdicts[places[forged]] = False
        places = places[forged + 1 :]
    return verdicts


def _is_key(key: bytes) -> bool:
    try:
        PeerId(key)
    except PeerIdError:
        return False
    return True


def parse(encoded: bytes) -> Parsed:
    """Return an encoded message after checking its signature. Raise `MessageError`.

    For messages from elsewhere than a mesh: a file or a broker.
    """
    parsed = Parsed(encoded)
    if not SignatureChecks(1).check([parsed])[0]:
        raise MessageError("a message isn't signed by the author that it names")
    return parsed
