"""The messages of the DHT as bytes, one in each datagram. Source: docs/dht.md, "Datagrams".

Everything is checked here, by a table, before anything is trusted. `MessageError` says what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, TypeAlias

from dtp.packing import pack, unpack
from dtp.peers.dht import admission
from dtp.peers.dht.addresses import pack_endpoint
from dtp.peers.dht.errors import MessageError
from dtp.peers.dht.ids import SIZE as ID_SIZE
from dtp.peers.record import MAX_BYTES as MAX_RECORD

MAGIC: Final = 0xD7
#: The largest datagram before sealing: the 1,280 bytes that every IPv6 network carries, less the headers of IPv6
#: and UDP (48) and what the seal of a private network adds (40).
MAX_DATAGRAM: Final = 1192
KEY_SIZE: Final = 32
SIGNATURE_SIZE: Final = 64
TRANSACTION_SIZE: Final = 8
NONCE_SIZE: Final = 8

_HEAD: Final = 2 + TRANSACTION_SIZE
_PROVEN: Final = 1
_CLIENT: Final = 2
_TOKEN: Final = 2
#: The signed part of a question, or of an answer, follows this and the other node's key.
QUESTION_DOMAIN: Final = b"dtp.dht.question.v1"
ANSWER_DOMAIN: Final = b"dtp.dht.answer.v1"

#: Records of an answer, at most: no more fit.
MAX_RECORDS: Final = 16
_ENTRY_SIZES: Final = {4: 1 + KEY_SIZE + 6, 6: 1 + KEY_SIZE + 18}


class DatagramKind(IntEnum):
    """The kind of a datagram. Questions are below 0x80; an answer is 0x80 more than its question."""

    PING = 0x01
    FIND = 0x02
    GET = 0x03
    STORE = 0x04
    CHECK = 0x05
    DIAL = 0x06
    #: The packet that another node was asked to send. It isn't answered.
    PROBE = 0x07
    PONG = 0x81
    NODES = 0x82
    FOUND = 0x83
    STORED = 0x84
    CHECKING = 0x85
    DIALLED = 0x86
    #: Instead of an answer: ask again with this token, and prove who you are.
    RETRY = 0xF0
    #: Instead of an answer, to a proven node: why there is none.
    REFUSED = 0xF1


class StoreVerdict(IntEnum):
    """The outcome of storing a record, or why a question was refused."""

    STORED = 0
    #: The node keeps a newer record.
    OLDER = 1
    #: Other nodes are nearer to it.
    FAR = 2
    #: There is no room, or its author or sender has used up its share.
    FULL = 3
    #: It is malformed, forged, expired or from the future.
    BAD = 4
    #: The sender has asked too often.
    BUSY = 5
    #: This node serves nobody.
    CLIENT = 6
    #: A code of a later version, not known here.
    OTHER = 255


Arguments: TypeAlias = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Question:
    """A question of one node to another. `args` are those of its kind (`_ARGUMENTS`)."""

    kind: DatagramKind
    transaction: bytes
    key: bytes
    args: Arguments = ()
    token: bytes = admission.NONE
    client: bool = False
    proof: bytes = b""


@dataclass(frozen=True, slots=True)
class DhtAnswer:
    """An answer. `token` is empty, or the one for further questions. `key` and `proof` are both given or
    both empty.
    """

    kind: DatagramKind
    transaction: bytes
    args: Arguments = ()
    token: bytes = b""
    key: bytes = b""
    proof: bytes = b""


@dataclass(frozen=True, slots=True)
class ProbePacket:
    """A packet that shows by its source that it has arrived from there."""

    nonce: bytes


Message: TypeAlias = Question | DhtAnswer | ProbePacket


# ---------------------------------------------------------------------------------------------------------- entries


def pack_entry(key: bytes, endpoint: tuple[str, int]) -> bytes:
    """Return a node as it is encoded in answers: 4 or 6, its key, its address and port."""
    packed = pack_endpoint(endpoint)
    return bytes((4 if len(packed) == 6 else 6,)) + key + packed


def split_entries(data: bytes) -> list[bytes]:
    """Return the entries in an answer. Raise `MessageError` unless they are complete."""
    found, at = [], 0
    while at < len(data):
        size = _ENTRY_SIZES.get(data[at])
        if size is None or at + size > len(data):
            raise MessageError("a list of nodes is malformed")
        found.append(data[at : at + size])
        at += size
    return found


# --------------------------------------------------------------------------------------------------------- encoding


def encode(message: Message) -> bytes:
    """Return the message as a datagram. Raise `MessageError` if it would be larger than `MAX_DATAGRAM`."""
    data = _encode(message)
    if len(data) > MAX_DATAGRAM:
        raise MessageError(f"a datagram of {len(data)} bytes; {MAX_DATAGRAM} are the most")
    return data


def _encode(message: Message) -> bytes:
    match message:
        case ProbePacket(nonce):
            return bytes((MAGIC, DatagramKind.PROBE)) + nonce
        case Question():
            flags = (_PROVEN if message.proof else 0) | (_CLIENT if message.client else 0)
            fixed = bytes((flags,)) + message.key + message.token + message.proof
        case DhtAnswer(kind=DatagramKind.RETRY):
            return bytes((MAGIC, DatagramKind.RETRY)) + message.transaction + message.token + message.key
        case DhtAnswer():
            flags = (_PROVEN if message.proof else 0) | (_TOKEN if message.token else 0)
            fixed = bytes((flags,)) + message.token + message.key + message.proof
    packed = pack(message.args)
    return bytes((MAGIC, message.kind)) + message.transaction + fixed + packed


def question_to_sign(question: Question, recipient: bytes) -> bytes:
    """Return what the asker signs: the recipient's key, and the question without its proof."""
    bare = Question(question.kind, question.transaction, question.key, question.args, question.token,
                    question.client)  # fmt: skip
    return bytes((len(QUESTION_DOMAIN),)) + QUESTION_DOMAIN + recipient + _encode(bare)


def answer_to_sign(answer: DhtAnswer, asker: bytes) -> bytes:
    """Return what the answering node signs: the asker's key, its own key, and the answer without key and proof."""
    bare = DhtAnswer(answer.kind, answer.transaction, answer.args, answer.token)
    return bytes((len(ANSWER_DOMAIN),)) + ANSWER_DOMAIN + asker + answer.key + _encode(bare)


# --------------------------------------------------------------------------------------------------------- decoding


def decode(data: bytes) -> Message:
    """Return the message in a datagram. Raise `MessageError`. Its claims are still unproven."""
    if len(data) > MAX_DATAGRAM:
        raise MessageError(f"a datagram of {len(data)} bytes; {MAX_DATAGRAM} are the most")
    if len(data) < _HEAD or data[0] != MAGIC:
        raise MessageError("a datagram is not of this protocol")
    try:
        kind = DatagramKind(data[1])
    except ValueError:
        raise MessageError(f"a message of unknown kind {data[1]:#04x}") from None
    if kind is DatagramKind.PROBE:
        return ProbePacket(_fixed(data, 2, NONCE_SIZE, last=True))
    transaction = data[2:_HEAD]
    if kind is DatagramKind.RETRY:
        key = _fixed(data, _HEAD + admission.SIZE, KEY_SIZE, last=True)
        return DhtAnswer(kind, transaction, token=_fixed(data, _HEAD, admission.SIZE), key=key)
    flags = _fixed(data, _HEAD, 1)[0]
    return (_question if kind < 0x80 else _answer)(kind, transaction, flags, data, _HEAD + 1)


def _question(kind: DatagramKind, transaction: bytes, flags: int, data: bytes, at: int) -> Question:
    key = _fixed(data, at, KEY_SIZE)
    token = _fixed(data, at + KEY_SIZE, admission.SIZE)
    at += KEY_SIZE + admission.SIZE
    proof = _fixed(data, at, SIGNATURE_SIZE) if flags & _PROVEN else b""
    args = _arguments(kind, data[at + len(proof) :])
    return Question(kind, transaction, key, args, token, bool(flags & _CLIENT), proof)


def _answer(kind: DatagramKind, transaction: bytes, flags: int, data: bytes, at: int) -> DhtAnswer:
    token = _fixed(data, at, admission.SIZE) if flags & _TOKEN else b""
    at += len(token)
    proven = flags & _PROVEN
    key = _fixed(data, at, KEY_SIZE) if proven else b""
    proof = _fixed(data, at + KEY_SIZE, SIGNATURE_SIZE) if proven else b""
    args = _arguments(kind, data[at + len(key) + len(proof) :])
    return DhtAnswer(kind, transaction, args, token, key, proof)


def _fixed(data: bytes, at: int, size: int, *, last: bool = False) -> bytes:
    part = data[at : at + size]
    if len(part) != size or (last and at + size != len(data)):
        raise MessageError("a datagram doesn't have the length of its kind")
    return part


def _arguments(kind: DatagramKind, data: bytes) -> Arguments:
    """Return the arguments of a kind. A later version may send more; these are ignored."""
    told = unpack(data, MessageError, "what a message says")
    checks = _ARGUMENTS[kind]
    if type(told) is not list or len(told) < len(checks):
        raise MessageError(f"{kind.name} has {len(checks)} arguments")
    for check, value in zip(checks, told, strict=False):
        if not check(value):
            raise MessageError(f"{kind.name} has an invalid argument")
    return tuple(told[: len(checks)])


def _is_id(value: object) -> bool:
    return type(value) is bytes and len(value) == ID_SIZE


def _is_nonce(value: object) -> bool:
    return type(value) is bytes and len(value) == NONCE_SIZE


def _is_endpoint(value: object) -> bool:
    return type(value) is bytes and len(value) in (6, 18)


def _is_bytes(value: object) -> bool:
    return type(value) is bytes


def _is_small(value: object) -> bool:
    return type(value) is int and 0 <= value <= 255


def _is_record(value: object) -> bool:
    return type(value) is bytes and 0 < len(value) <= MAX_RECORD


def _is_records(value: object) -> bool:
    return type(value) is list and len(value) <= MAX_RECORDS and all(map(_is_record, value))


#: The checks of each kind's arguments.
_ARGUMENTS: Final[Mapping[DatagramKind, tuple[Callable[[object], bool], ...]]] = {
    DatagramKind.PING: (),
    DatagramKind.FIND: (_is_id,),
    DatagramKind.GET: (_is_id, _is_small),
    DatagramKind.STORE: (_is_small, _is_record),
    DatagramKind.CHECK: (_is_nonce,),
    DatagramKind.DIAL: (_is_endpoint, _is_nonce),
    DatagramKind.PONG: (_is_endpoint,),
    DatagramKind.NODES: (_is_bytes,),
    DatagramKind.FOUND: (_is_bytes, _is_records),
    DatagramKind.STORED: (_is_small, _is_bytes),
    DatagramKind.CHECKING: (_is_small,),
    DatagramKind.DIALLED: (),
    DatagramKind.REFUSED: (_is_small,),
}
