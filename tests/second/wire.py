"""What docs/wire.md puts on the wire, as values: identity proof, hello, payload, frames, records, packets."""

import functools
import hashlib
import hmac
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import msgpack
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from .noise import PATTERNS, SUITES, NoiseFault, decrypt, encrypt, rekey

CONNECTION = 2**64 - 1
MAX_OFFSET = 2**62
MAX_PLAINTEXT = 65535 - 16


class Code(IntEnum):
    """The codes of CLOSE, without the flag APPLICATION."""

    NORMAL = 0
    INTERNAL = 1
    PROTOCOL = 2
    FLOW = 3
    LIMIT = 4
    UNKNOWN_FRAME = 5
    IDLE = 6
    UNKNOWN_SERVICE = 7
    DENIED = 8
    BUSY = 9
    RESUME_UNKNOWN = 10
    RESUME_PROOF = 11
    SHUTDOWN = 12
    PAYMENT = 13
    TICKET = 14


class Refusal(IntEnum):
    """The codes of a handshake's refusal."""

    VERSION = 1
    SUITE = 2
    FAILED = 3
    BUSY = 4
    DOWNGRADE = 5


class Breach(Exception):
    """The peer did what the specification forbids; `code` is what CLOSE would say."""

    def __init__(self, code: Code, why: str) -> None:
        super().__init__(f"{code.name}: {why}")
        self.code = code


class Refused(Exception):
    """The handshake is refused: by us (`code` is what to say) or by the peer (`heard`)."""

    def __init__(self, code: int, why: str, heard: bool = False) -> None:
        super().__init__(f"{code}: {why}")
        self.code, self.heard = code, heard


# --- identity -------------------------------------------------------------------------------------------

P = 2**255 - 19
D = -121665 * pow(121666, P - 2, P) % P
ORDER = 2**252 + 27742317777372353535851937790883648493


def add(one: tuple[int, int], two: tuple[int, int]) -> tuple[int, int]:
    """The sum of two points of the curve."""
    (x1, y1), (x2, y2) = one, two
    t = D * x1 * x2 * y1 * y2
    return (x1 * y2 + x2 * y1) * pow(1 + t, P - 2, P) % P, (y1 * y2 + x1 * x2) * pow(1 - t, P - 2, P) % P


def times(count: int, point: tuple[int, int]) -> tuple[int, int]:
    """`count` times the point."""
    total = (0, 1)
    while count:
        if count & 1:
            total = add(total, point)
        point, count = add(point, point), count >> 1
    return total


@functools.lru_cache(1024)
def check_identity(key: bytes) -> None:
    """Raises ValueError unless `key` is a canonical Ed25519 key, on the curve and of prime order."""
    if len(key) != 32:
        raise ValueError("an identity has 32 bytes")
    number = int.from_bytes(key, "little")
    sign, y = number >> 255, number & (2**255 - 1)
    if y >= P:
        raise ValueError("y is not canonical")
    u, v = (y * y - 1) % P, (D * y * y + 1) % P
    squared = u * pow(v, P - 2, P) % P
    x = pow(squared, (P + 3) // 8, P)
    if x * x % P != squared:
        x = x * pow(2, (P - 1) // 4, P) % P
    if x * x % P != squared:
        raise ValueError("not on the curve")
    if x == 0 and sign:
        raise ValueError("x = 0 with a sign is not canonical")
    if times(8, (x, y)) == (0, 1):
        raise ValueError("of small order")
    if times(ORDER, (x, y)) != (0, 1):
        raise ValueError("with a torsion part")


def recover(number: int) -> tuple[int, int]:
    """The point of a key, as the number that its 32 bytes are."""
    sign, y = number >> 255, number & (2**255 - 1)
    squared = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(squared, (P + 3) // 8, P)
    if x * x % P != squared:
        x = x * pow(2, (P - 1) // 4, P) % P
    return (P - x if x & 1 != sign else x), y


def torsion(key: bytes) -> bytes:
    """`key` and a point of order 8: on the curve, not of small order, and not of prime order either."""
    eighth = times(ORDER, recover(6))  # 6 is the y of a point whose order 8 divides
    assert times(4, eighth) != (0, 1)
    x, y = add(recover(int.from_bytes(key, "little")), eighth)
    return (y | (x & 1) << 255).to_bytes(32, "little")


def identity_public(seed: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


def what_client_signs(bound: bytes) -> bytes:
    """What the client's identity signs; `bound` is the handshake's binding."""
    return b"dtp.client.v1" + bound


def what_server_signs(
    seven: bytes, client_ephemeral: bytes, server_ephemeral: bytes, server_static: bytes
) -> bytes:
    """What the server's identity signs."""
    return b"dtp.server.v1" + seven + client_ephemeral + server_ephemeral + server_static


def prove(seed: bytes, signed: bytes) -> bytes:
    """`proof` of the payload: 64 bytes."""
    return Ed25519PrivateKey.from_private_bytes(seed).sign(signed)


def check_proof(identity: bytes, signed: bytes, proof: bytes) -> None:
    """Raises Refused unless the identity has signed this handshake."""
    try:
        check_identity(identity)
        Ed25519PublicKey.from_public_bytes(identity).verify(proof, signed)
    except (ValueError, InvalidSignature) as error:
        raise Refused(Refusal.FAILED, f"this handshake is not the identity's: {error!r}") from error


# --- hello, payload -------------------------------------------------------------------------------------

PATTERN_NAMES = dict(enumerate(PATTERNS, 1))
SUITE_NAMES = dict(enumerate(SUITES, 1))


def offer(suites: Iterable[str]) -> int:
    """The last byte of the hello: a bit for each suite that the client would use."""
    return sum(1 << SUITES.index(suite) for suite in set(suites))


def hello(pattern: str, suite: str, suites: Iterable[str] = ()) -> bytes:
    """The hello; `suites` are what else the client would use."""
    offered = offer({suite, *suites})
    return b"DTP" + bytes([1, list(PATTERNS).index(pattern) + 1, SUITES.index(suite) + 1, offered])


def prologue(seven: bytes) -> bytes:
    return b"dtp.noise.v1" + seven


def binding(seven: bytes, client_ephemeral: bytes, client_static: bytes, server_static: bytes) -> bytes:
    """What a ticket is bound to, 32 bytes."""
    return hashlib.sha256(
        b"dtp.binding.v1" + seven + client_ephemeral + client_static + server_static
    ).digest()


@dataclass
class Payload:
    """A handshake payload; `params` are stream window, connection window, streams, datagram."""

    id: bytes
    #: The signature of this handshake, 64 bytes. Empty until it is made.
    proof: bytes = b""
    versions: list[int] = field(default_factory=lambda: [1])
    params: list[int] = field(default_factory=lambda: [65536, 262144, 16, 1200])
    features: list[str] | None = None
    service: str | None = None
    ticket: bytes | None = None
    resume: bytes | None = None

    def encode(self) -> bytes:
        """In the order of the specification's table, without what is absent."""
        whole = {key: value for key, value in vars(self).items() if value is not None}
        packed: bytes = msgpack.packb(whole, use_bin_type=True)
        return packed


def ints(value: object, least: int = 1) -> bool:
    """Whether it is an array of `least` to 16 integers from 0 to 2^62 - 1."""
    return (
        isinstance(value, list)
        and least <= len(value) <= 16
        and all(isinstance(i, int) and not isinstance(i, bool) and 0 <= i < 2**62 for i in value)
    )


PAYLOAD_CHECKS = {
    "id": lambda v: isinstance(v, bytes) and len(v) == 32,
    "proof": lambda v: isinstance(v, bytes) and len(v) == 64,
    "versions": ints,
    "params": lambda v: ints(v, 4),
    "features": lambda v: isinstance(v, list) and len(v) <= 64 and all(isinstance(f, str) for f in v),
    "service": lambda v: isinstance(v, str) and len(v.encode()) <= 255,
    "ticket": lambda v: isinstance(v, bytes),
    "resume": lambda v: isinstance(v, bytes) and len(v) == 16,
}


def once(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    """The map; ValueError where a key comes twice."""
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a key comes twice")
    return dict(pairs)


def depth(value: Any) -> int:
    """How deep arrays and maps are in each other."""
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0


def decode_payload(data: bytes, *, from_server: bool = False) -> Payload:
    """Raises Refused(FAILED) at anything that isn't well-formed."""
    if len(data) > 8192:
        raise Refused(Refusal.FAILED, "the payload has more than 8192 bytes")
    try:
        value: Any = msgpack.unpackb(data, raw=False, strict_map_key=True, object_pairs_hook=once)
    except (ValueError, msgpack.UnpackException) as error:
        raise Refused(Refusal.FAILED, f"the payload is not MessagePack: {error}") from error
    if depth(value) > 16:
        raise Refused(Refusal.FAILED, "the payload nests too deep")
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise Refused(Refusal.FAILED, "the payload is not a map with string keys")
    asked = ("service", "ticket", "resume") if from_server else ()
    known = {key: value[key] for key in PAYLOAD_CHECKS if key in value and key not in asked}
    for key in ("id", "proof", "versions", "params"):
        if key not in known:
            raise Refused(Refusal.FAILED, f"the payload lacks {key}")
    for key, item in known.items():
        if not PAYLOAD_CHECKS[key](item):
            raise Refused(Refusal.FAILED, f"the payload's {key} has the wrong type or size")
    if 1 not in known["versions"]:
        raise Refused(Refusal.FAILED, "no version in common")
    try:
        check_identity(known["id"])
    except ValueError as error:
        raise Refused(Refusal.FAILED, f"the payload's id: {error}") from error
    return Payload(**known)


# --- secrets of a finished handshake ----------------------------------------------------------------------


def connection_id(h: bytes) -> bytes:
    return hashlib.sha256(b"dtp.connection.v1" + h).digest()[:16]


def attach_proof(secret: bytes, side: str, h: bytes) -> bytes:
    """`side` is "client" or "server", the one that proves; `h` is the new handshake's."""
    return hmac.new(secret, b"dtp.attach.v1" + side.encode() + h, hashlib.sha256).digest()


# --- frames -----------------------------------------------------------------------------------------------


class Type(IntEnum):
    """Frame types."""

    PADDING = 0x00
    PING = 0x01
    PONG = 0x02
    STREAM = 0x03
    RESET = 0x04
    STOP = 0x05
    WINDOW = 0x06
    STREAMS = 0x07
    DATAGRAM = 0x08
    CLOSE = 0x09
    AWAY = 0x0A
    REKEY = 0x0B
    READY = 0x0C
    ATTACH = 0x0D
    STATE = 0x0E
    EXCHANGE = 0x0F
    METER = 0x10


FIN = LISTED = APPLICATION = ADD = FRESH = 1

# The fixed part of each body, and whether more bytes may follow.
BODIES: dict[Type, tuple[str, bool]] = {
    Type.PADDING: (">", True),
    Type.PING: (">Q", False),
    Type.PONG: (">Q", False),
    Type.STREAM: (">QQ", True),
    Type.RESET: (">QIQ", False),
    Type.STOP: (">QI", False),
    Type.WINDOW: (">QQQ", False),
    Type.STREAMS: (">Q", False),
    Type.DATAGRAM: (">", True),
    Type.CLOSE: (">II", True),
    Type.AWAY: (">Q", False),
    Type.REKEY: (">", False),
    Type.READY: (">", False),
    Type.ATTACH: (">16sI32s", False),
    Type.STATE: (">QQI", False),
    Type.EXCHANGE: (">32s64s", False),
    Type.METER: (">", True),
}


@dataclass(frozen=True)
class Frame:
    """A frame that was read: its fixed fields in order and the bytes behind them."""

    type: Type
    flags: int
    fields: tuple[Any, ...]
    rest: bytes


def raw_frame(type_: int, flags: int, body: bytes) -> bytes:
    return struct.pack(">BBH", type_, flags, len(body)) + body


def frame(type_: Type, *fields: Any, flags: int = 0, rest: bytes = b"") -> bytes:
    """The bytes of one frame."""
    return raw_frame(type_, flags, struct.pack(BODIES[type_][0], *fields) + rest)


#: In a record at most, without PADDING and REKEY.
MOST_FRAMES = 256


def decode_frames(plaintext: bytes) -> list[Frame]:
    """The frames of one record, without those that are to be skipped; raises Breach."""
    out: list[Frame] = []
    at = count = 0
    while at < len(plaintext):
        if len(plaintext) - at < 4:
            raise Breach(Code.PROTOCOL, "a record ends inside a frame's head")
        kind, flags, length = struct.unpack_from(">BBH", plaintext, at)
        body = plaintext[at + 4 : at + 4 + length]
        at += 4 + length
        if len(body) < length:
            raise Breach(Code.PROTOCOL, "a record ends inside a frame")
        count += kind not in (Type.PADDING, Type.REKEY)
        if count > MOST_FRAMES:
            raise Breach(Code.LIMIT, f"a record of more than {MOST_FRAMES} frames")
        if kind not in Type.__members__.values():
            if kind < 0x80:
                raise Breach(Code.UNKNOWN_FRAME, f"frame type {kind:#x}")
            continue
        layout, more = BODIES[Type(kind)]
        size = struct.calcsize(layout)
        if len(body) < size or (len(body) > size and not more):
            raise Breach(Code.PROTOCOL, f"{Type(kind).name} of {len(body)} bytes")
        if kind == Type.REKEY and at < len(plaintext):
            raise Breach(Code.PROTOCOL, "REKEY is not the last of its record")
        if kind != Type.PADDING:
            out.append(Frame(Type(kind), flags, struct.unpack(layout, body[:size]), body[size:]))
    return out


# --- records ----------------------------------------------------------------------------------------------


class RecordSealer:
    """One direction's records, sending side."""

    def __init__(self, suite: str, key: bytes) -> None:
        self.suite, self.key, self.n = suite, key, 0

    def seal(self, plaintext: bytes) -> bytes:
        """One record. A REKEY at its end must be followed by `rekey`, or another `key`."""
        assert len(plaintext) <= MAX_PLAINTEXT
        sealed = encrypt(self.suite, self.key, self.n, b"", plaintext)
        self.n += 1
        return struct.pack(">H", len(sealed)) + sealed

    def rekey(self) -> None:
        self.key = rekey(self.suite, self.key)


class LinkLost(Exception):
    """What comes in can't be a record: the link is lost, the session is not."""


class RecordOpener:
    """One direction's records, receiving side: bytes in, the frames of each whole record out."""

    def __init__(self, suite: str, key: bytes) -> None:
        self.suite, self.key, self.n = suite, key, 0
        self.buffer = b""

    def feed(self, data: bytes) -> None:
        self.buffer += data

    def next(self) -> bytes | None:
        """The plaintext of the next record, None while it isn't whole; raises LinkLost."""
        if len(self.buffer) < 2:
            return None
        (length,) = struct.unpack_from(">H", self.buffer)
        if length < 16:
            raise LinkLost(f"a record of {length} bytes")
        if len(self.buffer) < 2 + length:
            return None
        sealed, self.buffer = self.buffer[2 : 2 + length], self.buffer[2 + length :]
        try:
            plaintext = decrypt(self.suite, self.key, self.n, b"", sealed)
        except NoiseFault as error:
            raise LinkLost("a tag does not fit") from error
        self.n += 1
        return plaintext

    def rekey(self) -> None:
        self.key = rekey(self.suite, self.key)


# --- packets ----------------------------------------------------------------------------------------------

EPOCH_BITS = 24
REPLAY_WINDOW = 2048
KEYS_AHEAD = 4


def key_number(suite: str, first: bytes, number: int) -> bytes:
    """Key `number` of a direction: that many REKEYs of the handshake's."""
    key = first
    for _ in range(number):
        key = rekey(suite, key)
    return key


def may_be_packed(plaintext: bytes) -> bool:
    """Whether a packet may hold it: whole frames, none of them REKEY."""
    at = 0
    while at + 4 <= len(plaintext):
        kind, _, length = struct.unpack_from(">BBH", plaintext, at)
        if kind == Type.REKEY:
            return False
        at += 4 + length
    return at == len(plaintext)


class PacketSealer:
    """One direction's packets, sending side; `counter` may be set ahead."""

    def __init__(self, suite: str, key: bytes) -> None:
        self.suite, self.first, self.counter = suite, key, 0

    def seal(self, plaintext: bytes) -> bytes:
        key = key_number(self.suite, self.first, self.counter >> EPOCH_BITS)
        sealed = struct.pack(">Q", self.counter) + encrypt(self.suite, key, self.counter, b"", plaintext)
        self.counter += 1
        return sealed

    def rekey(self) -> None:
        """Skips to the next key."""
        self.counter = ((self.counter >> EPOCH_BITS) + 1) << EPOCH_BITS


class PacketOpener:
    """One direction's packets, receiving side. Dropping a packet leaves no trace."""

    def __init__(self, suite: str, key: bytes) -> None:
        self.suite, self.first = suite, key
        self.newest = -1
        self.seen: set[int] = set()

    def open(self, packet: bytes) -> bytes | None:
        """The plaintext, or None for what is to be dropped."""
        if len(packet) < 8 + 16:
            return None
        (counter,) = struct.unpack_from(">Q", packet)
        current = max(self.newest, 0) >> EPOCH_BITS
        number = counter >> EPOCH_BITS
        if not current - 1 <= number <= current + KEYS_AHEAD:
            return None
        if counter in self.seen or counter <= self.newest - REPLAY_WINDOW:
            return None
        try:
            key = key_number(self.suite, self.first, number)
            plaintext = decrypt(self.suite, key, counter, b"", packet[8:])
        except NoiseFault:
            return None
        if not may_be_packed(plaintext):
            return None
        self.seen.add(counter)
        self.newest = max(self.newest, counter)
        return plaintext


# --- the lossy path ---------------------------------------------------------------------------------------


def path_key(root: bytes, side: str) -> bytes:
    """The first key of the packets that a side ("client", "server") sends under this root."""
    return hmac.new(root, side.encode() + b" packets", hashlib.sha256).digest()


def datagrams_of(plaintext: bytes) -> list[bytes]:
    """What the DATAGRAM frames of a packet hold; other frames are skipped."""
    found, at = [], 0
    while at + 4 <= len(plaintext):
        kind, _, length = struct.unpack_from(">BBH", plaintext, at)
        if kind == Type.DATAGRAM:
            found.append(plaintext[at + 4 : at + 4 + length])
        at += 4 + length
    return found


class PathOpener:
    """The receiving side of a lossy path: whose packets these are, and the exchanges of the link."""

    def __init__(self, suite: str, root: bytes, sender: str) -> None:
        self.suite, self.sender, self.number = suite, sender, 0
        self.openers = {0: PacketOpener(suite, path_key(root, sender))}

    def agree(self, root: bytes) -> None:
        """A further exchange is agreed on: its keys, and those of the one before."""
        self.number += 1
        last = (self.number - 1) % 256
        fresh = PacketOpener(self.suite, path_key(root, self.sender))
        self.openers = {last: self.openers[last], self.number % 256: fresh}

    def open(self, packet: bytes) -> list[bytes] | None:
        """The datagrams, or None for what is to be dropped."""
        opener = self.openers.get(packet[0]) if packet else None
        plaintext = None if opener is None else opener.open(packet[1:])
        return None if plaintext is None else datagrams_of(plaintext)
