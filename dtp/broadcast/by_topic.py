"""Small feeds by a topic of the node: each segment is one message, which every neighbour checks before it forwards
it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Final

from dtp.broadcast import messages as m
from dtp.broadcast.errors import BroadcastError, SegmentError, ShowMessageError
from dtp.broadcast.format import Announcement, Flag, Segment
from dtp.broadcast.format.segment import PIECE_SIZE, pieces_of
from dtp.broadcast.receiving import ShowReceiver
from dtp.gossip.core import Verdict
from dtp.gossip.engines.bridge import Engine
from dtp.gossip.errors import NoTopicPeers
from dtp.gossip.message import Message
from dtp.gossip.topics import Topic
from dtp.identity import PeerId
from dtp.tasks import TaskSet

#: The largest segment of a feed: a message has to be whole before it is passed on, so larger ones go by the tree.
MOST: Final = 4 * PIECE_SIZE
#: Seconds between announcements of a producer that sends nothing else.
_TELL: Final = 15.0
#: Seconds that a segment may be late once a later one is here; then it is requested where the show is served.
_LATE: Final = 1.0
#: ... and seconds for that request: a feed doesn't wait long for one message.
_REPAIRED: Final = 5.0
#: Seconds for which a broker keeps messages: a listener that comes late can go back that far.
_KEPT_BY_BROKER: Final = 3600.0


def broker_of(url: str) -> Engine:
    """Return the NATS server of a URL, `nats://HOST:PORT`, which keeps an hour of a feed."""
    from dtp.gossip.engines.nats import NatsEngine

    return NatsEngine(url, last=_KEPT_BY_BROKER)


class TopicSender:
    """Publishes what a producer sends."""

    def __init__(self, topic: Topic, announcement: Announcement) -> None:
        self._topic, self._announced = topic, m.build(m.Announced(announcement.encoded))
        self._waiting: list[bytes] = []

    def check_data(self, data: bytes, flags: Flag) -> None:
        """Raise `BroadcastError` for data that a topic can't carry."""
        if Flag.INIT in flags:
            raise BroadcastError(
                "a topic carries feeds, whose segments stand alone: leave topic out for media"
            )
        if len(data) > MOST:
            raise BroadcastError(f"a segment of {len(data):,} bytes; {MOST:,} are the most in a topic")

    def add_segment(self, segment: Segment, data: bytes) -> None:
        """Queue a segment to be published."""
        pieces = [m.Piece(segment.number, at, bytes(each)) for at, each in enumerate(pieces_of(data))]
        built = m.build(m.Manifest(segment.encoded)) + b"".join(m.build(each) for each in pieces)
        self._waiting.append(self._announced + built)

    async def publish_waiting(self) -> None:
        """Publish the queued segments; wait while the network can't take more. Without listeners they go to
        nobody."""
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            await self._publish_data(each)

    async def announce_repeatedly(self) -> None:
        """Publish the announcement at intervals, until this is cancelled."""
        while True:
            await self._publish_data(self._announced)
            await asyncio.sleep(_TELL)

    async def _publish_data(self, data: bytes) -> None:
        with contextlib.suppress(NoTopicPeers):
            await self._topic.publish(data, patience=0)


def parse_feed(message: Message) -> list[m.Message]:
    """Return the contents of a message. Raise `ShowMessageError` if it isn't of this protocol or not by the show's
    author, and `SegmentError` if the announcement isn't signed."""
    data, found = message.data, list[m.Message]()
    while data:
        if len(data) < m.HEAD.size:
            raise ShowMessageError("a message of a topic ends within a frame")
        kind, size = m.parse_head(data[: m.HEAD.size])
        found.append(m.parse(kind, data[m.HEAD.size : m.HEAD.size + size]))
        data = data[m.HEAD.size + size :]
    if not found or not isinstance(found[0], m.Announced):
        raise ShowMessageError("a message of a topic begins with the announcement")
    if Announcement.decode(found[0].data).producer != message.author:
        raise ShowMessageError("the message is of another author than the show")
    return found


def validate_feed(message: Message) -> Verdict:
    """Return `ACCEPT` for a message of its author's own show, otherwise `IGNORE`: it isn't forwarded, and its sender
    isn't blamed, since a daemon that carries the topic doesn't know that it is a feed."""
    try:
        parse_feed(message)
    except (ShowMessageError, SegmentError):
        return Verdict.IGNORE
    return Verdict.ACCEPT


class TopicReceiver(ShowReceiver):
    """Fills `held` from a topic. Missing segments are requested at the addresses that it was given."""

    _recovers_within: ClassVar[float] = _REPAIRED

    def __init__(self, topic: Callable[..., Topic], *arguments: Any, **options: Any) -> None:
        """`topic` makes the topic, with a `validator`; the other arguments are those of `ShowReceiver`."""
        super().__init__(*arguments, **options)
        self._topic = topic
        self._repairs = TaskSet(on_error=lambda *_: None)

    async def _run_receiver(self) -> None:
        self._lost.say_alive(self._patience.anybody)
        try:
            async with self._topic(validator=validate_feed) as topic:
                async for message in topic:
                    self._take_all(message.author, parse_feed(message))
                    self._streams.check_replaced(self._progress.announcement)
                    if self._progress.ended:
                        return
                    self._look_for_missing()
        finally:
            await self._repairs.stop()

    def _take_all(self, author: PeerId, messages: Iterable[m.Message]) -> None:
        """Take a segment. A forged one, or one of another show, changes nothing."""
        with contextlib.suppress(SegmentError):
            for each in messages:
                match each:
                    case m.Announced(data):
                        self._accept_announcement(data, "", author)
                        self._open_held()
                        self._lost.say_alive()
                        self._come_through((author,))
                    case m.Manifest(data):
                        segment = self._open_held().add_manifest(data)
                        if self.start is None and Flag.KEYS not in segment.flags:
                            self._progress.start = segment.number
                    case m.Piece(number, index, data):
                        if self._open_held().add_piece(number, index, data):
                            self.completed += 1

    def _look_for_missing(self) -> None:
        wanted = self._progress.first_wanted()
        if wanted is not None and self.held is not None and wanted < self.held.edge and not self._repairs:
            self._repairs.start(self._fetch_missing(wanted), name="dtp-show-repair")

    async def _fetch_missing(self, wanted: int) -> None:
        """Wait a moment for what is missing; then request it from those who serve the show, and count it as lost if
        nobody has it."""
        await asyncio.sleep(_LATE)
        held = self._open_held()
        if self._progress.first_wanted() != wanted:
            return
        behind = min(held.find_held(wanted), held.edge)
        await self._recover_lost("", wanted, max(wanted, behind - 1))
