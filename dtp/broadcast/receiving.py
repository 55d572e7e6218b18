"""The listener's side: it hears one neighbour at a time, and another when that fails, lies or falls behind."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import ClassVar, Final

from dtp.broadcast import frames
from dtp.broadcast import messages as m
from dtp.broadcast.errors import (
    BroadcastError,
    SegmentError,
    SegmentForeign,
    ShowLost,
    ShowMessageError,
    ShowReplaced,
    ShowUnreachable,
)
from dtp.broadcast.fetching import Dial, Fetcher, LateSegments, dial_told
from dtp.broadcast.format import Flag, Segment
from dtp.broadcast.held import HELD, HeldSegments, ShowProgress
from dtp.broadcast.newest import ShowStreams
from dtp.broadcast.parents import ALIVE, LONGEST, Pace, Parents, Patience
from dtp.broadcast.standing import LostTimer
from dtp.broadcast.tree.comparing import Measured, put_stale_last
from dtp.broadcast.tree.lateness import Overdue
from dtp.broadcast.tree.neighbour import HeardNeighbour
from dtp.broadcast.tree.probing import Prober
from dtp.broadcast.tree.rooms import COMPARED
from dtp.errors import DtpError, PeerError
from dtp.identity import PeerId
from dtp.net.connection import Connection
from dtp.net.stream import Stream
from dtp.session.limits import DEFAULT, Limits
from dtp.tasks import TaskSet, start_task

log = logging.getLogger("dtp.broadcast")

#: Limits of connections of shows. A neighbour whose connection breaks off is left for another one within a second;
#: one that is silent is left before `dead`, if others do better (see `ShowReceiver`): where all have too little
#: processor time, dialling anew would take what is left of it.
SHOW_LIMITS: Final[Limits] = replace(DEFAULT, resume=1.0, keepalive=2.0, dead=10.0, handshake=10.0)
#: Seconds between two looks at a neighbour, at least.
_TICK: Final = 0.05
#: Seconds to wait after choosing neighbours brought nothing new; doubled each time, up to `LONGEST`.
_PAUSE: Final = 0.01
#: ... at most, where all that were chosen have answered that they are full: each has a time of its own (`Parents`),
#: and within a second others have told where there is room. Where some don't answer, all may have too much to do, and
#: dialling sooner would make that worse.
_ROOM_TOLD: Final = 1.0
#: Seconds until the given neighbours that didn't answer in the beginning are asked again which stream they have;
#: doubled each time, up to ten minutes. Each is asked until it has answered once.
_ASK_AGAIN: Final = 1.0
_ASK_SELDOM: Final = 600.0


class NeighbourUnfit(PeerError):
    """A neighbour can't be heard now; the next one is."""

    code = "show-neighbour"


class NeighbourFull(NeighbourUnfit):
    """A neighbour takes no more listeners."""

    code = "show-neighbour-full"


class NeighbourSlow(NeighbourUnfit):
    """A neighbour is silent or late, and there is another one that isn't."""

    code = "show-neighbour-slow"


class ShowReceiver:
    """Fills `held` from neighbours that have the show. `run` it in a task of its own."""

    #: Seconds in which others may send what one neighbour has lost.
    _recovers_within: ClassVar[float] = LONGEST

    def __init__(
        self,
        me: PeerId,
        dial: Dial,
        parents: Parents,
        *,
        producer: PeerId | None = None,
        show: bytes | None = None,
        start: int | None = None,
        back_ms: int = 0,
        patience: Patience | None = None,
        limit: int = HELD,
    ) -> None:
        """`producer` and `show` are what the announcement must name, `start` the first segment, or None."""
        self.parents = parents
        #: Those through whom the neighbour hears the show that is heard, the producer first, the neighbour last.
        self.path: tuple[PeerId, ...] = ()
        #: Called with the new path when the neighbour tells one.
        self.on_path: Callable[[tuple[PeerId, ...]], object] = lambda _: None
        #: Gives the addresses at which this side serves others.
        self.serving: Callable[[], Sequence[str]] = tuple
        #: Gives where there is room for others, here and below.
        self.room: Callable[[], tuple[m.FreePlace, ...]] = tuple
        #: How many neighbours were heard, one after another.
        self.heard = 0
        #: How many segments became whole here.
        self.completed = 0
        #: Why the neighbour before isn't heard any more; None where nothing went wrong.
        self.why: DtpError | None = None
        #: Why hearing has ended before the show.
        self.fault: DtpError | None = None
        self._dial = dial = dial_told(dial, parents.get_teller)
        self._me, self._back_ms = me, back_ms
        self._patience = patience = patience or Patience()
        self._progress = ShowProgress(start, limit)
        self._streams = ShowStreams(parents, producer, show)
        self._fetcher = Fetcher(me, dial, parents, self._recovers_within, patience.silence)
        self._prober = Prober(
            me, dial, parents, self._streams, self._progress, patience, lambda: self.serving()
        )
        #: The neighbour that is heard; the last one while none is, None before the first.
        self._neighbour: HeardNeighbour | None = None
        #: How many neighbours in a row were left for being slow: with each, the next one is given twice the time.
        #: Where all are slow, such as on a machine that has too much to do, leaving costs more than it brings.
        self._restless = 0
        #: Set when perhaps nobody with room sends the show in time.
        self._deprived = asyncio.Event()
        self._overdue = Overdue()
        #: Ends connections to neighbours that were measured, and aren't heard.
        self._closing = TaskSet(on_error=lambda _, fault: log.info("a neighbour went: %s", fault))
        self._lost = LostTimer(patience.lost)

    @property
    def held(self) -> HeldSegments | None:
        """What is here of the show; None before the announcement."""
        return self._progress.held

    @property
    def start(self) -> int | None:
        """The first segment that is heard, but for init data; None before it is known."""
        return self._progress.start

    async def wait_opened(self) -> HeldSegments:
        """Wait for the announcement, and return what is held from then on. Raise what ended it before."""
        if (held := await self._progress.wait_opened()) is None:
            raise self.fault or BroadcastError("listening was ended before the show was heard")
        return held

    async def run(self) -> None:
        """Hear the show to its end. What goes wrong for good is in `fault`, and wakes whoever waits."""
        try:
            async with self._lost:
                await self._run_receiver()
        except ShowReplaced as fault:
            self._progress.give_up_rest()
            self.fault = fault
        except DtpError as fault:
            self.fault = fault
        except TimeoutError:  # of `_lost`
            self._progress.give_up_rest()
            words = f"nothing of the show's producer was heard for {self._patience.lost:g} s, and the show has no end"
            self.fault = ShowLost(f"{words}: listen again when the producer is back")
        finally:
            self._closing.cancel()
            self._progress.end()

    async def _run_receiver(self) -> None:
        """Choose neighbours until the show has ended."""
        beside = [
            start_task(self._ask_given(), name="dtp-show-given"),
            start_task(self._fetcher.compare_repeatedly(self._list_heard), name="dtp-show-compare"),
            start_task(
                self._fetcher.catch_up_repeatedly(
                    self._deprived, self._overdue, self._find_missing, self._note_overtaken
                ),
                name="dtp-show-catch-up",
            ),
        ]
        try:
            await self._hear_all()
        finally:
            for each in beside:
                each.cancel()
            await asyncio.gather(*beside, return_exceptions=True)

    def _list_heard(self) -> tuple[HeldSegments | None, str]:
        return self.held, "" if self._neighbour is None else self._neighbour.address

    async def _hear_all(self) -> None:
        loop = asyncio.get_running_loop()
        given_up = loop.time() + self._patience.anybody
        useless, refused, not_before = 0, 0, loop.time()
        while not self._progress.ended:
            now = loop.time()
            self._streams.check_replaced(self._progress.announcement)
            if self.held is None:
                self._check_reachable(now >= given_up)
            wake = max(self.parents.next_time(now), not_before)
            if wake > now:
                await asyncio.sleep(min(wake, max(given_up, now + 1)) - now + 0.001)
                continue
            completed, heard, failures = self.completed, self.heard, self.parents.failures
            why = await self._hear_best()
            self.why = why or self._prober.why or self.why
            if self.completed > completed:
                useless = refused = 0
            elif self.parents.failures > failures or (
                self.heard > heard and not isinstance(why, NeighbourFull)
            ):
                useless += 1
            else:
                refused += 1
            pause = max(_pause_after(useless, LONGEST), _pause_after(refused, _ROOM_TOLD))
            not_before = loop.time() + pause

    def _check_reachable(self, given_up: bool) -> None:
        """Raise why the show isn't heard where waiting is of no use: all have another show, or it took too long."""
        if isinstance(self.why, SegmentForeign) and self.parents.all_lied:
            raise self.why
        if given_up:
            why = self.why or "none of its addresses has answered"
            raise ShowUnreachable(f"nobody who has the show could be heard: {why}") from self.why

    def _come_through(self, path: tuple[PeerId, ...]) -> None:
        """Note through whom the show comes now, nobody if `path` is empty, and tell those who listen here."""
        self.path = path
        if not path:
            self._deprived.set()
        self.on_path(path)

    # ---- choosing ---------------------------------------------------------------------------------------

    async def _hear_best(self) -> DtpError | None:
        """Hear the best neighbour for as long as it does well; return what ended that."""
        loop = asyncio.get_running_loop()
        choose = self.parents.list_first if self.held is None else self.parents.list_due
        addresses = choose(loop.time(), COMPARED)
        async with AsyncExitStack() as stack:
            measured: dict[str, Measured] = {}
            if len(addresses) > 1:
                measured = await self._prober.measure_all(addresses, stack)
                # Those that have room now, as they say, come before all that weren't asked.
                due = self.parents.list_due(loop.time(), len(self.parents))
                addresses = put_stale_last([each for each in due if each in measured], measured) or due
            if not addresses:
                return None
            for address, each in measured.items():
                if address != addresses[0]:
                    self._closing.start(each.stack.aclose(), name="dtp-show-close")
            return await self._hear_one(addresses[0], measured.get(addresses[0]), stack)

    async def _hear_one(self, best: str, measured: Measured | None, stack: AsyncExitStack) -> DtpError | None:
        """Hear this neighbour, over the connection that measured it where there is one."""
        loop = asyncio.get_running_loop()
        try:
            if measured is not None:
                connection = measured.connection
            else:
                async with asyncio.timeout(self._patience.answer):
                    connection = await stack.enter_async_context(self._dial(best))
            await self._hear_from(best, connection, -1 if measured is None else measured.probe.number)
            return None
        except NeighbourFull as fault:
            self.parents.note_full(best, loop.time())
            return fault
        except (SegmentError, ShowMessageError) as fault:
            self.parents.note_forged(best, loop.time())
            return fault
        except NeighbourSlow as fault:
            log.info("%s", fault)
            self._restless += 1
            self._deprived.set()
            self.parents.note_slow(best, loop.time())
            return fault
        except (DtpError, OSError, TimeoutError) as fault:
            log.info("%s isn't heard any more: %s", best, fault)
            self._prober.note_failed(best)
            return fault if isinstance(fault, DtpError) else NeighbourUnfit(f"{best}: {fault or 'no answer'}")
        finally:
            if not self._progress.ended:
                self._come_through(())

    async def _ask_given(self) -> None:
        """Ask those that were given and haven't answered yet which stream they have, again and again: else one that
        sends an older stream again, or keeps this one back, would be heard for good because they were away in the
        beginning."""
        pause = _ASK_AGAIN
        while self.held is None or self._streams.unasked:
            await asyncio.sleep(pause)
            if self.held is not None:
                asked = (self._ask_newest(self.held, each) for each in self._streams.unasked)
                await asyncio.gather(*asked)
                pause = min(2 * pause, _ASK_SELDOM)

    async def _ask_newest(self, held: HeldSegments, address: str) -> None:
        probe = await self._prober.ask_newest(address)
        newest = held.get_segment(held.edge)
        if newest is not None and self._neighbour is not None and probe.is_far_ahead(newest.segment):
            self._neighbour.note_kept_back()

    # ---- hearing ----------------------------------------------------------------------------------------

    async def _hear_from(self, address: str, connection: Connection, shown: int) -> None:
        """Hear a neighbour until nothing is wanted of it; raise why it isn't heard any more. `shown` is the newest
        segment that it has sent to be measured."""
        stream = await connection.open_stream()
        pace = Pace(self._patience, asyncio.get_running_loop().time, self._restless)
        self._neighbour = neighbour = HeardNeighbour(address, connection, pace, shown)
        self._streams.announced = None
        hello = m.Hello(self._progress.first_wanted(), self._back_ms, addresses=tuple(self.serving()))
        frames.write(stream, hello)
        self.heard += 1
        hearing = start_task(self._hear_messages(neighbour, stream), name="dtp-show-hear")
        watching = start_task(self._watch_pace(neighbour), name="dtp-show-watch")
        try:
            done, _ = await asyncio.wait({hearing, watching}, return_when=asyncio.FIRST_COMPLETED)
            await (hearing if hearing in done else watching)
        finally:
            for each in (hearing, watching):
                each.cancel()
            await asyncio.gather(hearing, watching, return_exceptions=True)

    async def _hear_messages(self, neighbour: HeardNeighbour, stream: Stream) -> None:
        """Take what a neighbour says, until nothing is wanted of it."""
        pace = neighbour.pace
        told: tuple[m.FreePlace, ...] = ()
        while True:
            if (room := self.room()) != told and pace.segments:
                told = room
                frames.write(stream, m.RoomReport(room))
            message = await frames.read(stream)
            if message is None:
                if self._progress.ended:
                    return
                raise NeighbourUnfit(f"{neighbour.address} has ended before the show")
            pace.note_said()
            await self._take_message(neighbour, message)
            self._streams.check_replaced(self._progress.announcement)
            if self._progress.ended and self._progress.first_wanted() is None:
                return
            if pace.late:
                neighbour.look_soon()

    async def _watch_pace(self, neighbour: HeardNeighbour) -> None:
        """Ask others while a neighbour is silent or late. Raise `NeighbourSlow` when one does better, and for one
        that is silent for good."""
        pace, address = neighbour.pace, neighbour.address
        while True:
            await neighbour.wait_look(_TICK)
            if neighbour.is_kept_back:
                raise NeighbourSlow(f"{address} is far behind others")
            if pace.silence >= (LONGEST if pace.segments else self._patience.answer):
                raise NeighbourSlow(f"{address} is silent")
            if pace.may_look:
                await self._look_elsewhere(neighbour)

    def _find_missing(self) -> LateSegments | None:
        """Return what is to be asked of others once it is late: nobody sends the show now, or one that was too slow
        did, and others may have no room."""
        wanted = self._progress.first_wanted()
        if self.held is None or wanted is None or (self.path and not self._restless):
            return None
        return LateSegments(self.held, self._list_heard()[1] if self.path else "", wanted)

    def _note_overtaken(self) -> None:
        """Note that others have sent what the neighbour that is heard didn't have."""
        self._lost.say_alive()
        if self._neighbour is not None:
            self._neighbour.overtaken = self._progress.first_wanted() or 0

    async def _take_message(self, neighbour: HeardNeighbour, message: m.Message) -> None:
        address, connection = neighbour.address, neighbour.connection
        match message:
            case m.Announced(data):
                self._accept_announcement(data, address, connection.peer)
            case m.Full(others):
                self._prober.learn_others(others, connection)
                raise NeighbourFull(f"{address} takes no more listeners")
            case m.SenderState(path, others, _):
                if self._me in path:
                    raise NeighbourFull(f"{address} hears the show through this side")
                if self._streams.announced is not None:
                    self._open_held()
                self._prober.learn_others(others, connection)
                self._come_through(path)
                if self._progress.is_from_producer(path):
                    self._lost.say_alive()
            case m.Manifest(data):
                await self._take_manifest(neighbour, data)
            case m.Piece(number, index, data):
                self._take_piece(neighbour, number, index, data)
            case m.Gap(first, last):
                neighbour.note_lost(first, last)
            case m.ForkProof(data):
                self._open_held().accept_proof(data)
            case m.Hello() | m.RoomReport() | m.KeyWanted() | m.KeysGiven() | m.KeyRefused():
                raise ShowMessageError(
                    "this message comes from listeners alone, or belongs to another service"
                )

    def _take_piece(self, neighbour: HeardNeighbour, number: int, index: int, data: bytes) -> None:
        held, pace, address = self._open_held(), neighbour.pace, neighbour.address
        if not held.add_piece(number, index, data):
            return
        pace.note_piece(len(data))
        each = held.get_segment(number)
        if each is not None and each.whole:
            self.completed += 1
            self._lost.say_alive()
            pace.note_whole(each.segment)
            self._overdue.note_whole(each.segment, pace.now())
            self.parents.has_room(address)
            if pace.steady:
                self._restless = 0
                self.parents.forget_slow()
            self.parents.note_rate(address, pace.rate)

    def _accept_announcement(self, data: bytes, address: str, peer: PeerId) -> None:
        self._streams.accept_announcement(data, address, peer, self._progress.announcement)

    def _open_held(self) -> HeldSegments:
        """Return what is held, from the announcement's next word on. Raise `ShowMessageError` before."""
        if self.held is not None:
            return self.held
        if self._streams.announced is None:
            raise ShowMessageError("the announcement comes before all segments")
        self._lost.say_alive()
        return self._progress.open(self._streams.announced)

    async def _take_manifest(self, neighbour: HeardNeighbour, data: bytes) -> None:
        held = self._open_held()
        is_first = self.start is None and self._may_begin(neighbour, Segment.decode(data))
        segment = held.add_manifest(data)
        if is_first:
            self._progress.start = segment.number
        init = neighbour.find_left_out(segment)
        if init is not None and not held.has_whole(init):  # it comes before all that need it
            await self._fetcher.fetch_from_others(held, neighbour.address, init, init)
        await self._pass_to(neighbour, segment.number)
        neighbour.pace.note_head(segment)
        if neighbour.is_overtaken(segment):
            raise NeighbourSlow(f"{neighbour.address} sends what others have sent before")

    def _may_begin(self, neighbour: HeardNeighbour, segment: Segment) -> bool:
        """Return whether listening begins with this segment, which shows something. Raise `NeighbourUnfit` for an
        older one than the neighbour has."""
        if segment.flags & (Flag.INIT | Flag.KEYS):
            return False
        if segment.number < neighbour.shown and not self._back_ms:
            raise NeighbourUnfit(f"{neighbour.address} sends older segments than it has")
        return True

    async def _pass_to(self, neighbour: HeardNeighbour, number: int) -> None:
        """Go on with a neighbour at segment `number`: all before are here, or it has said that they are lost. What it
        leaves out is lost as well, or others have it, and `NeighbourUnfit` is raised."""
        if (lost := neighbour.take_lost(number)) is not None:
            await self._recover_lost(neighbour.address, *lost)
        wanted = self._progress.first_wanted()
        if wanted is not None and wanted < number:
            await self._recover_lost(neighbour.address, wanted, number - 1)
            raise NeighbourUnfit(f"{neighbour.address} leaves out segment {wanted}")

    async def _recover_lost(self, address: str, first: int, last: int) -> None:
        """Ask others for segments that a neighbour calls lost, before that is believed."""
        held = self._open_held()
        first = max(first, self.start or 0)
        if last < first:
            return
        await self._fetcher.fetch_from_others(held, address, first, last)
        held.add_gap(first, last)

    async def _look_elsewhere(self, neighbour: HeardNeighbour) -> None:
        """Compare a neighbour from which nothing came for a while, or late, with others, and raise `NeighbourSlow`
        where one does better. Where nobody does, it goes on being heard: leaving it would bring nothing, and cost
        everybody."""
        pace, address = neighbour.pace, neighbour.address
        silent, again = pace.silence > ALIVE, pace.looks > 0
        pace.note_looked()
        edge = -1 if self.held is None else self.held.edge
        began = pace.now()
        others = [each for each in self.parents.list_due(began, COMPARED + 1) if each != address][:COMPARED]
        if pace.busy_looks and others:  # one after the other: all have too much to do
            others = [others[pace.busy_looks % len(others)]]
        told = await asyncio.gather(
            *(self._prober.ask_for(each, edge + pace.required_lead) for each in others)
        )
        # Who doesn't answer at all may be gone: one that hears the show and answers soon says that not all are busy.
        answered = [took for _, hears, took in told if hears]
        pace.note_answered(min(answered) if answered else pace.now() - began)
        self._streams.check_replaced(self._progress.announcement)
        if any(has for has, _, _ in told):
            raise NeighbourSlow(f"{address} is behind others")
        if silent and pace.silence > ALIVE and any(hears for _, hears, _ in told):
            raise NeighbourSlow(f"{address} is silent")
        wanted = self._progress.first_wanted()
        # no other one has to be ahead: none of its pieces come
        if again and wanted is not None and wanted <= edge:
            await self._fetcher.fetch_from_others(self._open_held(), address, wanted, wanted)
            if self._progress.first_wanted() != wanted:
                raise NeighbourSlow(f"{address} leaves out a part of segment {wanted}")
        if self.path and not self._progress.is_from_producer(self.path):
            raise NeighbourUnfit(f"{address} doesn't hear the producer any more")


def _pause_after(useless: int, longest: float) -> float:
    """Return the seconds until the next neighbour is chosen, after so many choices in a row that brought nothing."""
    return min(_PAUSE * 2.0 ** min(useless - 1, 32), longest) if useless else 0.0
