"""Frames between neighbours: converts the bytes of a stream to tuples, and back. docs/gossip.md specifies each
byte.

A frame is a type, the length of its body in three bytes, and the body. The format of bodies is checked here; acting
on them is up to the router. Unknown types from 0x80 on are skipped.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from enum import IntEnum
from struct import Struct
from typing import Final

from dtp.gossip.errors import GossipFrameError
from dtp.gossip.message import ID_SIZE, MAX_TOPIC_BYTES

#: The name of the protocol at the beginning of a stream.
PROTOCOL: Final = "gossip/1"
HEADER_SIZE: Final = 4
#: Bytes of a neighbour's name in NEIGHBOURS, which is the beginning of its key.
SHORT_NAME: Final = 8
#: Unknown types from here on are skipped.
IGNORABLE: Final = 0x80
#: The largest record of a peer (`dtp.peers.record`).
MAX_RECORD: Final = 1100
#: Records in one frame, at most.
MAX_RECORDS: Final = 50
#: The longest body of frames other than messages.
MAX_CONTROL: Final = 128 * 1024

_PRUNE: Final = Struct(">H")
_HISTORY: Final = Struct(">QH")
_TIME: Final = Struct(">Q")


class GossipFrameType(IntEnum):
    """The type of a frame."""

    SUBSCRIBE = 1
    UNSUBSCRIBE = 2
    MESSAGE = 3
    IHAVE = 4
    IWANT = 5
    IDONTWANT = 6
    GRAFT = 7
    PRUNE = 8
    NEIGHBOURS = 9
    PEERS = 10
    HISTORY = 11
    PAST = 12
    TIME = 0x80


#: Frames whose body is a message.
CARRYING: Final = frozenset((GossipFrameType.MESSAGE, GossipFrameType.PAST))


def frame(kind: int, *parts: bytes) -> bytes:
    """Return a frame with this body."""
    body = b"".join(parts)
    return bytes((kind,)) + len(body).to_bytes(3, "big") + body


def split_frames(buffer: bytes, most: int, count: int = sys.maxsize) -> tuple[list[tuple[int, bytes]], int]:
    """Return the complete frames at the beginning of `buffer`, `count` at most, and the number of their bytes.

    `most` bounds the body of a message. Raise `GossipFrameError` for a frame that is too long.
    """
    found: list[tuple[int, bytes]] = []
    at, size = 0, len(buffer)
    while size - at >= HEADER_SIZE and len(found) < count:
        head = int.from_bytes(buffer[at : at + HEADER_SIZE], "big")
        kind, length = head >> 24, head & 0xFFFFFF
        if length > (most if kind in CARRYING else MAX_CONTROL):
            raise GossipFrameError(f"a frame of type {kind} with {length} bytes")
        end = at + HEADER_SIZE + length
        if end > size:
            break
        found.append((kind, buffer[at + HEADER_SIZE : end]))
        at = end
    return found, at


# ---- bodies ------------------------------------------------------------------------------------------------------


def named(topic: bytes) -> bytes:
    """Return a topic's name, after its length."""
    return bytes((len(topic),)) + topic


def subscriptions(topics: Iterable[bytes]) -> list[bytes]:
    """Return the SUBSCRIBE frames that name the topics of this side, as many as are needed."""
    bodies = [b""]
    for name in map(named, topics):
        if len(bodies[-1]) + len(name) > MAX_CONTROL:
            bodies.append(b"")
        bodies[-1] += name
    return [frame(GossipFrameType.SUBSCRIBE, body) for body in bodies if body]


def read_topic(body: bytes) -> tuple[bytes, bytes]:
    """Return the topic at the beginning of a body, and the rest."""
    topic, end = _read_name(body, 0)
    return topic, body[end:]


def _read_name(body: bytes, at: int) -> tuple[bytes, int]:
    """Return the name at an index, which follows its length, and the index of its end."""
    length = body[at] if at < len(body) else 0
    end = at + 1 + length
    if not 0 < length <= MAX_TOPIC_BYTES or len(body) < end:
        raise GossipFrameError("a frame without the name of a topic")
    return body[at + 1 : end], end


def read_topics(body: bytes) -> list[bytes]:
    """Return the topics' names in a body that consists of them."""
    topics, at = [], 0
    while at < len(body):  # the rest isn't copied: there may be 65,536 names
        topic, at = _read_name(body, at)
        topics.append(topic)
    return topics


def _pieces(body: bytes, size: int) -> list[bytes]:
    if len(body) % size:
        raise GossipFrameError("a frame with a part of an id")
    return [body[at : at + size] for at in range(0, len(body), size)]


def read_ids(body: bytes) -> list[bytes]:
    """Return the messages' ids in a body that consists of them."""
    return _pieces(body, ID_SIZE)


def ihave(topic: bytes, ids: Iterable[bytes]) -> bytes:
    """Return an IHAVE frame, which names messages that are here."""
    return frame(GossipFrameType.IHAVE, named(topic), *ids)


def graft(topic: bytes) -> bytes:
    """Return a GRAFT frame, which asks for a topic's messages at once."""
    return frame(GossipFrameType.GRAFT, named(topic))


def prune(topic: bytes, backoff: int, records: Sequence[bytes] = ()) -> bytes:
    """Return a PRUNE frame, which ends that, with the seconds to wait and records of others to use instead."""
    return frame(GossipFrameType.PRUNE, named(topic), _PRUNE.pack(backoff), _packed_records(records))


def read_prune(body: bytes) -> tuple[bytes, int, list[bytes]]:
    """Return the topic, seconds and records of a PRUNE."""
    topic, rest = read_topic(body)
    if len(rest) < _PRUNE.size:
        raise GossipFrameError("a PRUNE without its seconds")
    return topic, *_PRUNE.unpack_from(rest), list(_records(rest[_PRUNE.size :]))


def peers(topic: bytes, records: Sequence[bytes]) -> bytes:
    """Return a PEERS frame, with records of peers that have a topic."""
    return frame(GossipFrameType.PEERS, named(topic), _packed_records(records))


def read_peers(body: bytes) -> tuple[bytes, list[bytes]]:
    """Return the topic and records of a PEERS."""
    topic, rest = read_topic(body)
    return topic, list(_records(rest))


def _packed_records(records: Sequence[bytes]) -> bytes:
    return b"".join(len(each).to_bytes(2, "big") + each for each in records[:MAX_RECORDS])


def _records(body: bytes) -> Iterator[bytes]:
    at = count = 0
    while at < len(body):
        end = at + 2 + int.from_bytes(body[at : at + 2], "big")
        count += 1
        if end > len(body) or not at + 2 < end <= at + 2 + MAX_RECORD or count > MAX_RECORDS:
            raise GossipFrameError("records of peers that are too many, too long or cut off")
        yield body[at + 2 : end]
        at = end


def neighbours(topic: bytes, short_names: Iterable[bytes]) -> bytes:
    """Return a NEIGHBOURS frame, which names the peers that this side sends a topic's messages at once."""
    return frame(GossipFrameType.NEIGHBOURS, named(topic), *sorted(short_names))


def read_neighbours(body: bytes) -> tuple[bytes, list[bytes]]:
    """Return the topic and short names of a NEIGHBOURS."""
    topic, rest = read_topic(body)
    return topic, _pieces(rest, SHORT_NAME)


def history(topic: bytes, since_ms: int, most: int) -> bytes:
    """Return a HISTORY frame, which asks for the newest `most` messages since a time that are still held."""
    return frame(GossipFrameType.HISTORY, named(topic), _HISTORY.pack(since_ms, most))


def read_history(body: bytes) -> tuple[bytes, int, int]:
    """Return the topic, Unix milliseconds and number of messages of a HISTORY."""
    topic, rest = read_topic(body)
    if len(rest) != _HISTORY.size:
        raise GossipFrameError("a malformed HISTORY")
    return topic, *_HISTORY.unpack(rest)


def time(wall_ms: int) -> bytes:
    """Return a TIME frame, which tells the time here in Unix milliseconds."""
    return frame(GossipFrameType.TIME, _TIME.pack(wall_ms))


def read_time(body: bytes) -> int:
    """Return the Unix milliseconds of a TIME."""
    if len(body) != _TIME.size:
        raise GossipFrameError("a malformed TIME")
    return int(_TIME.unpack(body)[0])
