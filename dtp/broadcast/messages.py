"""Messages between the sender of a show and a listener, on a stream of a connection: frames as values. No IO.

Source: docs/broadcast.md, "Between neighbours".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from typing import Any, Final

from dtp.broadcast.errors import ShowMessageError
from dtp.broadcast.format.announcement import SHOW_SIZE
from dtp.broadcast.format.merkle import HASH_SIZE
from dtp.broadcast.format.segment import MAX_SIZE, PIECE_SIZE, SIGNED_SIZE
from dtp.broadcast.sealed.admission import Refusal, SeatClaim
from dtp.identity import PeerId, PeerIdError
from dtp.net.address import is_dialled_as_told
from dtp.packing import pack, unpack

VERSION: Final = 1
MAX_ADDRESSES: Final = 16
MAX_ADDRESS: Final = 256
#: The most relays between the producer and a listener. A tree with four branches each has a million listeners at
#: depth 10.
MAX_PATH: Final = 32
#: The most accounts that one listener speaks for, and keys that it is given at once.
MAX_CLAIMS: Final = 8
MAX_KEYS: Final = 16
#: The kind, and the number of bytes of the body.
HEAD: Final = Struct(">BI")
_PIECE: Final = Struct(">QI")
_RANGE: Final = Struct(">QQ")
_MAX_NUMBER: Final = 2**63 - 1


class FrameKind(IntEnum):
    """The kind of a frame."""

    HELLO = 1
    ANNOUNCEMENT = 2
    MANIFEST = 3
    PIECE = 4
    STATE = 5
    FULL = 6
    PROOF = 7
    GAP = 8
    KEY_WANTED = 9
    KEYS_GIVEN = 10
    KEY_REFUSED = 11
    ROOM = 12


#: The most bytes of each kind's body.
LARGEST: Final = {
    FrameKind.HELLO: 8192,
    FrameKind.ANNOUNCEMENT: 1024,
    FrameKind.MANIFEST: SIGNED_SIZE + HASH_SIZE * (MAX_SIZE // PIECE_SIZE),
    FrameKind.PIECE: _PIECE.size + PIECE_SIZE,
    FrameKind.STATE: 8192,
    FrameKind.FULL: 8192,
    FrameKind.PROOF: 2 * SIGNED_SIZE,
    FrameKind.GAP: _RANGE.size,
    FrameKind.KEY_WANTED: 2048,
    FrameKind.KEYS_GIVEN: 2048,
    FrameKind.KEY_REFUSED: 512,
    FrameKind.ROOM: 8192,
}


@dataclass(frozen=True, slots=True)
class Hello:
    """The listener's first message. `start` is the first segment that it wants, None for live; `back_ms` is how
    long before the newest segment to begin. With `count` it wants only that many, and with `heads` only their
    manifests. `addresses` are those at which it serves others itself."""

    start: int | None = None
    back_ms: int = 0
    count: int = 0
    addresses: tuple[str, ...] = ()
    heads: bool = False


@dataclass(frozen=True, slots=True)
class Announced:
    """The announcement of the stream, sent before all segments."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Manifest:
    """Head, signature and hashes of the next segment; its pieces follow."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of a segment whose manifest has come."""

    number: int
    index: int
    data: bytes


@dataclass(frozen=True, slots=True)
class SenderState:
    """The sender's state. `path` are the peers through which it hears the show, from the producer to itself,
    without the producer if that isn't heard; `others` also serve the show; `room` is True if it accepts another
    listener. Sent at least once a second."""

    path: tuple[PeerId, ...]
    others: tuple[str, ...]
    room: bool


@dataclass(frozen=True, slots=True)
class Full:
    """The sender accepts no more listeners; `others` may."""

    others: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ForkProof:
    """The producer has signed two chains."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Gap:
    """The sender doesn't have these segments, first and last included, and won't get them."""

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class FreePlace:
    """A place in the tree that accepts listeners: its address, how many, and how many steps it is below the
    reporter."""

    address: str
    free: int
    depth: int = 0


@dataclass(frozen=True, slots=True)
class RoomReport:
    """A listener tells its sender where there is room for others, at itself and below, nearest first."""

    places: tuple[FreePlace, ...]


@dataclass(frozen=True, slots=True)
class KeyWanted:
    """A listener asks for the keys of a sealed show. `claims` are of accounts with tickets. A buyer of a key says
    for which `epoch`."""

    claims: tuple[SeatClaim, ...] = ()
    epoch: int = 0


@dataclass(frozen=True, slots=True)
class KeysGiven:
    """The keys of the newest epochs, by number."""

    keys: dict[int, bytes]


@dataclass(frozen=True, slots=True)
class KeyRefused:
    """There is no key for this listener. `at` is where keys are sold, "" if they aren't."""

    why: Refusal
    at: str = ""


Message = (
    Hello
    | Announced
    | Manifest
    | Piece
    | SenderState
    | Full
    | ForkProof
    | Gap
    | KeyWanted
    | KeysGiven
    | KeyRefused
    | RoomReport
)


def build(message: Message) -> bytes:
    """Return a message as a frame. Addresses beyond the limit are left out."""
    match message:
        case Piece(number, index, data):
            head = HEAD.pack(FrameKind.PIECE, _PIECE.size + len(data))
            return b"".join((head, _PIECE.pack(number, index), data))
        case Manifest(data):
            return _frame(FrameKind.MANIFEST, data)
        case Announced(data):
            return _frame(FrameKind.ANNOUNCEMENT, data)
        case ForkProof(data):
            return _frame(FrameKind.PROOF, data)
        case Gap(first, last):
            return _frame(FrameKind.GAP, _RANGE.pack(first, last))
        case Hello(start, back_ms, count, addresses, heads):
            fields = {"version": VERSION, "start": start, "back_ms": back_ms, "count": count, "heads": heads}
            return _frame(FrameKind.HELLO, pack({**fields, "addresses": _fitting(addresses)}))
        case SenderState(path, others, room):
            keys = [each.key for each in path]
            state = {"path": keys, "others": _fitting(others), "room": room}
            return _frame(FrameKind.STATE, pack(state))
        case Full(others):
            return _frame(FrameKind.FULL, pack({"others": _fitting(others)}))
        case KeyWanted(claims, epoch):
            rows = [[each.account, each.time_ms, each.signature, each.ticket] for each in claims]
            return _frame(FrameKind.KEY_WANTED, pack({"claims": rows, "epoch": epoch}))
        case KeysGiven(keys):
            return _frame(FrameKind.KEYS_GIVEN, pack({"keys": [list(each) for each in keys.items()]}))
        case RoomReport(places):
            free = [[each.address, each.free, each.depth] for each in places[:MAX_ADDRESSES]]
            return _frame(FrameKind.ROOM, pack({"places": free}))
        case KeyRefused(why, at):
            return _frame(FrameKind.KEY_REFUSED, pack({"why": str(why), "at": at}))


def _frame(kind: FrameKind, body: bytes) -> bytes:
    return HEAD.pack(kind, len(body)) + body


def _fitting(addresses: tuple[str, ...]) -> list[str]:
    return [each for each in addresses if len(each.encode()) <= MAX_ADDRESS][:MAX_ADDRESSES]


def parse_head(data: bytes) -> tuple[FrameKind, int]:
    """Return a frame's kind and the size of its body. Raise `ShowMessageError`."""
    number, size = HEAD.unpack(data)
    try:
        kind = FrameKind(number)
    except ValueError:
        raise ShowMessageError(f"there is no frame of kind {number}") from None
    if size > LARGEST[kind]:
        raise ShowMessageError(f"a frame {kind.name} has {size:,} bytes, the most is {LARGEST[kind]:,}")
    return kind, size


def parse(kind: FrameKind, body: bytes) -> Message:
    """Return the message of a frame. Raise `ShowMessageError`."""
    return _PARSERS[kind](body)


def _piece(body: bytes) -> Message:
    if len(body) <= _PIECE.size:
        raise ShowMessageError("a piece has no bytes")
    number, index = _PIECE.unpack_from(body)
    return Piece(number, index, body[_PIECE.size :])


def _gap(body: bytes) -> Message:
    if len(body) != _RANGE.size:
        raise ShowMessageError("a gap is two numbers")
    first, last = _RANGE.unpack(body)
    if not first <= last <= _MAX_NUMBER:
        raise ShowMessageError(f"{first} to {last} is not a gap")
    return Gap(first, last)


def _hello(body: bytes) -> Message:
    fields = _map(body)
    if fields.get("version") != VERSION:
        raise ShowMessageError(
            f"the listener speaks version {ascii(fields.get('version'))[:20]}, not {VERSION}"
        )
    start = None if fields.get("start") is None else _number(fields, "start")
    heads = fields.get("heads", False)
    if not isinstance(heads, bool):
        raise ShowMessageError("'heads' of a hello is true or false")
    numbers = _number(fields, "back_ms"), _number(fields, "count")
    return Hello(start, *numbers, _addresses(fields, "addresses"), heads)


def _state(body: bytes) -> Message:
    fields = _map(body)
    path = fields.get("path")
    if not isinstance(path, list) or not 1 <= len(path) <= MAX_PATH:
        raise ShowMessageError(f"a state needs a path of 1 to {MAX_PATH} peers")
    try:
        peers = tuple(map(PeerId, path))
    except (TypeError, PeerIdError):
        raise ShowMessageError("a path names something that is not a peer") from None
    room = fields.get("room")
    if not isinstance(room, bool):
        raise ShowMessageError("a state needs 'room', true or false")
    return SenderState(peers, _addresses(fields, "others"), room)


def _key_wanted(body: bytes) -> Message:
    claims, fields = [], _map(body)
    for each in _rows(fields, "claims", MAX_CLAIMS):
        match each:
            case [bytes(account), int(time_ms), bytes(signature), bytes(ticket)] if (
                0 <= time_ms <= _MAX_NUMBER and len(ticket) in (0, SHOW_SIZE)
            ):
                try:
                    claims.append(SeatClaim(PeerId(account).key, time_ms, signature, ticket))
                except PeerIdError:
                    raise ShowMessageError("a claim names something that is not an account") from None
            case _:
                raise ShowMessageError("a claim is an account, a time, a signature and a ticket or nothing")
    epoch = _number(fields, "epoch")
    if epoch >= 2**32:
        raise ShowMessageError("a key is asked for without the number of an epoch")
    return KeyWanted(tuple(claims), epoch)


def _keys_given(body: bytes) -> Message:
    keys = {}
    for each in _rows(_map(body), "keys", MAX_KEYS):
        match each:
            case [int(epoch), bytes(key)] if 0 < epoch < 2**32 and len(key) == HASH_SIZE:
                keys[epoch] = key
            case _:
                raise ShowMessageError("a key is the number of an epoch and 32 bytes")
    return KeysGiven(keys)


def _key_refused(body: bytes) -> Message:
    fields = _map(body)
    try:
        why = Refusal(str(fields.get("why")))
    except ValueError:
        raise ShowMessageError("there is no key, for a reason that isn't known") from None
    at = _address(fields.get("at"), "at")
    return KeyRefused(why, at if is_dialled_as_told(at) else "")


def _room(body: bytes) -> Message:
    places = []
    for each in _rows(_map(body), "places", MAX_ADDRESSES):
        match each:
            case [str(address), int(free), int(depth)] if 0 < free < 2**16 and 0 <= depth <= MAX_PATH:
                if is_dialled_as_told(_address(address, "places")):
                    places.append(FreePlace(address, free, depth))
            case _:
                raise ShowMessageError("a place is an address, how many it takes, and how deep it is")
    return RoomReport(tuple(places))


def _rows(fields: dict[Any, Any], name: str, most: int) -> list[Any]:
    value = fields.get(name)
    if not isinstance(value, list) or len(value) > most:
        raise ShowMessageError(f"{name!r} is not a list of at most {most}")
    return value


def _map(body: bytes) -> dict[Any, Any]:
    fields = unpack(body, ShowMessageError, "a message", max_map_len=16, max_array_len=MAX_PATH)
    if not isinstance(fields, dict):
        raise ShowMessageError("a message isn't a map")
    return fields


def _number(fields: dict[Any, Any], name: str) -> int:
    value = fields.get(name)
    if type(value) is not int or not 0 <= value <= _MAX_NUMBER:
        raise ShowMessageError(f"{name!r} is not a number from 0 on")
    return value


def _addresses(fields: dict[Any, Any], name: str) -> tuple[str, ...]:
    value = fields.get(name)
    if not isinstance(value, list) or len(value) > MAX_ADDRESSES:
        raise ShowMessageError(f"{name!r} is not a list of at most {MAX_ADDRESSES} addresses")
    return tuple(each for each in (_address(one, name) for one in value) if is_dialled_as_told(each))


def _address(value: Any, name: str) -> str:
    if not isinstance(value, str) or len(value) > MAX_ADDRESS:
        raise ShowMessageError(f"{name!r} has a value that is not an address")
    return value


_PARSERS: Final[dict[FrameKind, Callable[[bytes], Message]]] = {
    FrameKind.HELLO: _hello,
    FrameKind.ANNOUNCEMENT: Announced,
    FrameKind.MANIFEST: Manifest,
    FrameKind.PIECE: _piece,
    FrameKind.STATE: _state,
    FrameKind.FULL: lambda body: Full(_addresses(_map(body), "others")),
    FrameKind.PROOF: ForkProof,
    FrameKind.GAP: _gap,
    FrameKind.KEY_WANTED: _key_wanted,
    FrameKind.KEYS_GIVEN: _keys_given,
    FrameKind.KEY_REFUSED: _key_refused,
    FrameKind.ROOM: _room,
}
