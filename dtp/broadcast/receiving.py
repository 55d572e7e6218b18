"""The listener's side: it hears one neighbour at a time, and another when that fails, lies or falls behind."""

from __future__ import annotations

import asyncio
import contextlib
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
from dtp.broadcast.fetching import Dial, Fetcher, dial_told, open_ask_stream
from dtp.broadcast.format import NO_INIT, Announcement, Flag, Segment
from dtp.broadcast.held import HELD, HeldSegments
from dtp.broadcast.newest import NewestStreams
from dtp.broadcast.parents import ALIVE, LONGEST, Pace, Parents, Patience
from dtp.broadcast.standing import PauseWatch
from dtp.broadcast.tree.comparing import Measured, Probe, put_stale_last
from dtp.broadcast.tree.rooms import COMPARED
from dtp.carriers.nearness import Nearness
from dtp.errors import DtpError, PeerError
from dtp.identity import PeerId
from dtp.net.connection import Connection
from dtp.net.stream import Stream
from dtp.session.limits import DEFAULT, Limits
from dtp.tasks import TaskSet, start_task

log = logging.getLogger("dtp.broadcast")

#: Limits of connections of shows. Whose connection breaks off is left for another one within a second; whoever says
#: nothing is left before `dead`, if others do better (see `ShowReceiver`): where all have too little of the
#: processor, connections that are dialled anew would take the rest of it.
SHOW_LIMITS: Final[Limits] = replace(DEFAULT, resume=1.0, keepalive=2.0, dead=10.0, handshake=10.0)
#: Seconds that those which are compared have behind the first one. In the beginning those that were given have more
#: (`Patience.silence`): who has an older stream of the show isn't heard just because it is faster than the producer.
_SLOWER: Final = 0.25
#: Seconds between two looks at a neighbour, at least.
_TICK: Final = 0.05
#: Seconds after the first choice of a neighbour that brought nothing new; doubled each time, up to `LONGEST`.
_PAUSE: Final = 0.01
#: ... where all that were chosen have answered that they are full: each has a time of its own (`Parents`), and others
#: have told within a second where there is room. Where some don't answer, all may have too much to do: to dial sooner
#: makes that worse.
_ROOM_TOLD: Final = 1.0
#: Seconds until those that were given and didn't answer in the beginning are asked again which stream they have;
#: doubled each time, up to ten minutes. Each is asked until it has said so once.
_ASK_AGAIN: Final = 1.0
_ASK_SELDOM: Final = 600.0


class NeighbourUnfit(PeerError):
    """A neighbour can't be heard now; the next one is."""

    code = "show-neighbour"


class NeighbourFull(NeighbourUnfit):
    """A neighbour takes no more listeners."""

    code = "show-neighbour-full"


class NeighbourSlow(NeighbourUnfit):
    """A neighbour is silent or late, and another one is there that isn't."""

    code = "show-neighbour-slow"


class ShowReceiver:
    """Fills `held` from those who have the show. `run` it in a task of its own."""

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
        self.held: HeldSegments | None = None
        #: The first segment that is heard, but for init data; None before it is known.
        self.start = start
        #: Those through whom the neighbour hears the show that is heard, the producer first, the neighbour last.
        self.path: tuple[PeerId, ...] = ()
        #: Called with it when it is told.
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
        #: Why it has ended before the show.
        self.fault: DtpError | None = None
        self._dial = dial = dial_told(dial, parents.get_teller)
        self._me, self._producer, self._show = me, producer, show
        self._back_ms, self._limit = back_ms, limit
        self._patience = patience or Patience()
        self._fetcher = Fetcher(dial, parents, self._recovers_within, self._patience.silence)
        #: How many neighbours in a row were left for being slow: with each, the next one is given twice the time.
        #: Where all are slow, such as on a machine that has too much to do, leaving costs more than it brings.
        self._restless = 0
        #: How many times a neighbour could not be reached, or was left for what it did.
        self._failures = 0
        #: All segments below are here or lost.
        self._passed = 0
        #: What the neighbour says is lost, until a segment behind it has come.
        self._said_lost: m.Gap | None = None
        #: Ends connections to neighbours that were measured, and aren't heard.
        self._closing = TaskSet(on_error=lambda _, fault: log.info("a neighbour went: %s", fault))
        self._streams = NewestStreams()
        #: What the neighbour has announced, which is held from its next word on.
        self._announced: Announcement | None = None
        #: The neighbour that is heard, and its address; "" before the first.
        self._neighbour: Connection | None = None
        self._heard_at = ""
        #: Those that have said which stream they have, as far as they were given.
        self._said = set[str]()
        #: Set when the neighbour is to be looked at: segments come too late, or others are far ahead.
        self._look = asyncio.Event()
        #: One that was given has segments that are much newer than those that are heard.
        self._is_kept_back = False
        #: The init data that was looked for, since the neighbour left it out.
        self._init_looked_for = NO_INIT
        #: The newest segment that the neighbour has sent to be measured; -1 for none.
        self._shown = -1
        self._opened = asyncio.Event()
        #: Passes when nothing of the producer was heard for too long; not before the announcement.
        self._lost = asyncio.timeout(None)

    async def wait_opened(self) -> HeldSegments:
        """Wait for the announcement, and return what is held from then on. Raise what ended it before."""
        await self._opened.wait()
        if self.held is None:
            raise self.fault or BroadcastError("listening was ended before the show was heard")
        return self.held

    async def run(self) -> None:
        """Hear the show to its end. What goes wrong for good is in `fault`, and wakes whoever waits."""
        try:
            async with self._lost, PauseWatch(self._give_more_time):
                await self._run_receiver()
        except ShowReplaced as fault:
            self._give_up_rest()
            self.fault = fault
        except DtpError as fault:
            self.fault = fault
        except TimeoutError:  # of `_lost`
            self._give_up_rest()
            words = f"nothing of the show's producer was heard for {self._patience.lost:g} s, and the show has no end"
            self.fault = ShowLost(f"{words}: listen again when the producer is back")
        finally:
            self._closing.cancel()
            self._opened.set()
            if self.held is not None:
                self.held.notify_change()

    async def _run_receiver(self) -> None:
        """Choose neighbours until the show has ended."""
        beside = [
            start_task(self._ask_given(), name="dtp-show-given"),
            start_task(
                self._fetcher.compare_repeatedly(lambda: (self.held, self._heard_at)), name="dtp-show-compare"
            ),
        ]
        try:
            await self._hear_all()
        finally:
            for each in beside:
                each.cancel()
            await asyncio.gather(*beside, return_exceptions=True)

    async def _hear_all(self) -> None:
        loop = asyncio.get_running_loop()
        given_up = loop.time() + self._patience.anybody
        useless, refused, not_before = 0, 0, loop.time()
        while self.held is None or not self.held.ended:
            now = loop.time()
            self._check_replaced()
            if self.held is None:
                self._check_reachable(now >= given_up)
            wake = max(self.parents.next_time(now), not_before)
            if wake > now:
                await asyncio.sleep(min(wake, max(given_up, now + 1)) - now + 0.001)
                continue
            completed, heard, failures = self.completed, self.heard, self._failures
            why = await self._hear_best()
            self.why = why or self.why
            if self.completed > completed:
                useless = refused = 0
            elif self._failures > failures or (self.heard > heard and not isinstance(why, NeighbourFull)):
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
            raise ShowUnreachable(f"nobody who has the show could be heard: {self.why}") from self.why

    def _note_failure(self, address: str) -> None:
        self._failures += 1
        self.parents.note_failed(address, asyncio.get_running_loop().time())

    def _say_alive(self) -> None:
        """Note that the producer was heard, by this side or by somebody who says so."""
        self._lost.reschedule(asyncio.get_running_loop().time() + self._patience.lost)

    def _give_more_time(self, seconds: float) -> None:
        """Wait `seconds` longer for the show: this program stood still meanwhile, and heard nobody."""
        if (lost_at := self._lost.when()) is not None and not self._lost.expired():
            self._lost.reschedule(lost_at + seconds)

    def _is_from_producer(self, path: tuple[PeerId, ...]) -> bool:
        """True where who has this path hears the producer, as it says."""
        return self.held is not None and path[:1] == (self.held.announcement.producer,)

    def _give_up_rest(self) -> None:
        """Stop asking for segments that aren't whole: those behind them are delivered all the same."""
        held, wanted = self.held, self._first_wanted()
        if held is not None and wanted is not None and wanted <= held.edge:
            held.add_gap(wanted, held.edge)

    def _come_through(self, path: tuple[PeerId, ...]) -> None:
        """Note through whom the show comes now, nobody if `path` is empty, and tell those who listen here."""
        self.path = path
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
                measured = await self._measure_all(addresses, stack)
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
        self._shown = -1 if measured is None else measured.probe.number
        try:
            if measured is not None:
                connection = measured.connection
            else:
                async with asyncio.timeout(self._patience.answer):
                    connection = await stack.enter_async_context(self._dial(best))
            await self._hear_from(best, connection)
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
            self._failures += 1
            self.parents.note_slow(best, loop.time())
            return fault
        except (DtpError, OSError, TimeoutError) as fault:
            log.info("%s isn't heard any more: %s", best, fault)
            self._note_failure(best)
            return fault if isinstance(fault, DtpError) else NeighbourUnfit(f"{best}: {fault or 'no answer'}")
        finally:
            if self.held is None or not self.held.ended:
                self._come_through(())

    async def _measure_all(self, addresses: list[str], stack: AsyncExitStack) -> dict[str, Measured]:
        """Measure all of these, and return those that can be heard, with connections that last until `stack` ends.

        Who answers much later than the first one isn't waited for; in the beginning those that were given say beside
        what is heard which stream they have, and send no more.
        """
        chosen = asyncio.Event()
        tasks = {
            start_task(self._measure_one(each, chosen), name="dtp-show-measure"): each for each in addresses
        }
        stack.push_async_callback(_end_measuring, list(tasks))
        stack.callback(chosen.set)
        pending = set(tasks)
        timeout: float | None = None
        while pending:
            done, pending = await asyncio.wait(pending, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            given = [each for each in pending if self.held is None and self.parents.is_given(tasks[each])]
            if not done:
                break
            if any(has is not None and has.probe.number >= 0 for has in (each.result() for each in done)):
                timeout = self._patience.silence if given else _SLOWER
        chosen.set()
        for each in pending.difference(given):
            each.cancel()
        results = ((address, each.result()) for each, address in tasks.items() if each not in pending)
        return {address: measured for address, measured in results if measured is not None}

    async def _measure_one(self, address: str, chosen: asyncio.Event) -> Measured | None:
        """Have `address` send its newest segment, and note how fast it came; return what it said, None where it can't
        be heard.

        Its connection is left open, unless another one was chosen meanwhile. Nothing of it is believed but a newer
        announcement, and how new the segment is, which are signed: a neighbour that lies here is found out as soon as
        it is heard.
        """
        loop = asyncio.get_running_loop()
        began, probe = loop.time(), Probe()
        connection: Connection | None = None
        dialled: Connection | None = None
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(self._patience.answer):
                    dialled = await stack.enter_async_context(self._dial(address))
                    hello = m.Hello(count=1, addresses=tuple(self.serving()))
                    async with open_ask_stream(dialled, hello) as stream:
                        while (
                            not probe.done
                            and not (chosen.is_set() and probe.announcement)
                            and (message := await frames.read(stream)) is not None
                        ):
                            if isinstance(message, m.Announced):
                                probe.announcement = self._note_announced(message.data, address, dialled.peer)
                            probe.take_message(message)
                connection = dialled
            except TimeoutError:
                if not probe.answered:
                    self._note_failure(address)
            except (DtpError, OSError) as fault:
                log.info("%s can't be measured: %s", address, fault)
                self._note_failure(address)
                return None
            self._learn_others(probe.others, dialled)
            if not probe.room or self._me in probe.path:
                self.parents.note_full(address, loop.time())
            if probe.done:
                self.parents.note_rate(address, probe.size / max(loop.time() - began, 1e-6))
            if connection is None or chosen.is_set():
                return None
            return Measured(connection, probe, stack.pop_all())

    async def _ask_for(self, address: str, number: int) -> tuple[bool, bool]:
        """Return whether `address` says that it has segment `number`, or one behind it; and whether it hears the
        producer, and not through this side. Where it hasn't, nothing of the show is sent for this."""
        hears = False
        try:
            async with (
                asyncio.timeout(self._patience.answer),
                self._dial(address) as connection,
                open_ask_stream(connection, m.Hello(number, count=1)) as stream,
            ):
                while (message := await frames.read(stream)) is not None:
                    match message:
                        case m.Announced(data):
                            self._note_announced(data, address, connection.peer)
                        case m.SenderState(path, others, _):
                            self._learn_others(others, connection)
                            hears = self._is_from_producer(path) and self._me not in path
                        case m.Manifest(data):
                            if Segment.decode(data).number >= number:
                                return True, hears
                        case m.Gap():  # it has forgotten that already
                            return True, hears
        except (DtpError, OSError, TimeoutError) as fault:
            log.info("%s doesn't say what it has: %s", address, fault or "no answer")
            self._note_failure(address)
        return False, hears

    async def _ask_given(self) -> None:
        """Ask those that were given and haven't answered yet which stream they have, again and again: who sends an
        older one again, or keeps this one back, isn't heard for good because they were away in the beginning."""
        pause = _ASK_AGAIN
        while self.held is None or not self._said.issuperset(self.parents.given):
            await asyncio.sleep(pause)
            if self.held is not None:
                unasked = [each for each in self.parents.given if each not in self._said]
                await asyncio.gather(*(self._ask_newest(self.held, each) for each in unasked))
                pause = min(2 * pause, _ASK_SELDOM)

    async def _ask_newest(self, held: HeldSegments, address: str) -> None:
        """Ask which stream somebody has, and how new its newest segment is."""
        probe = Probe()
        try:
            async with (
                asyncio.timeout(self._patience.answer),
                self._dial(address) as connection,
                open_ask_stream(connection, m.Hello(count=1)) as stream,
            ):
                while not probe.time_ms and (message := await frames.read(stream)) is not None:
                    if isinstance(message, m.Announced):
                        probe.announcement = self._note_announced(message.data, address, connection.peer)
                    probe.take_message(message)
        except (DtpError, OSError, TimeoutError) as fault:
            log.info("%s doesn't say which stream it has: %s", address, fault or "no answer")
        newest = held.get_segment(held.edge)
        if newest is not None and probe.is_far_ahead(newest.segment):
            self._is_kept_back = True
            self._look.set()

    # ---- hearing ----------------------------------------------------------------------------------------

    async def _hear_from(self, address: str, connection: Connection) -> None:
        self._heard_at = address
        stream = await connection.open_stream()
        addresses = tuple(self.serving())
        self._announced, self._neighbour = None, connection
        self._init_looked_for = NO_INIT
        frames.write(stream, m.Hello(self._first_wanted(), self._back_ms, addresses=addresses))
        self.heard += 1
        self._said_lost = None
        self._is_kept_back = False
        pace = Pace(self._patience, asyncio.get_running_loop().time, self._restless)
        hearing = start_task(self._hear_messages(address, stream, pace), name="dtp-show-hear")
        watching = start_task(self._watch_pace(address, pace), name="dtp-show-watch")
        try:
            done, _ = await asyncio.wait({hearing, watching}, return_when=asyncio.FIRST_COMPLETED)
            await (hearing if hearing in done else watching)
        finally:
            for each in (hearing, watching):
                each.cancel()
            await asyncio.gather(hearing, watching, return_exceptions=True)

    async def _hear_messages(self, address: str, stream: Stream, pace: Pace) -> None:
        """Take what a neighbour says, until nothing is wanted of it."""
        told: tuple[m.FreePlace, ...] = ()
        while True:
            if (room := self.room()) != told and pace.segments:
                told = room
                frames.write(stream, m.RoomReport(room))
            message = await frames.read(stream)
            if message is None:
                if self.held is not None and self.held.ended:
                    return
                raise NeighbourUnfit(f"{address} has ended before the show")
            pace.note_said()
            await self._take_message(address, message, pace)
            self._check_replaced()
            if self.held is not None and self.held.ended and self._first_wanted() is None:
                return
            if pace.late:
                self._look.set()

    async def _watch_pace(self, address: str, pace: Pace) -> None:
        """Ask others while a neighbour is silent or late. Raise `NeighbourSlow` when one does better, and for one
        that is silent for good."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(_TICK, pace.quiet_until - pace.now())):
                    await self._look.wait()
            self._look.clear()
            if self._is_kept_back:
                raise NeighbourSlow(f"{address} is far behind others")
            if pace.silence >= (LONGEST if pace.segments else self._patience.answer):
                raise NeighbourSlow(f"{address} is silent")
            if pace.late or pace.now() >= pace.quiet_until:
                await self._look_elsewhere(address, pace)

    def _first_wanted(self) -> int | None:
        """Return the first segment that isn't here nor lost; None before any is known, and when all are here."""
        held, number = self.held, self.start
        if held is None or number is None:
            return number
        number = max(number, self._passed)
        while (whole := held.has_whole(number)) or held.is_lost(number):
            if held.last is not None and number >= held.last:
                return None
            number = number + 1 if whole else held.find_next(number)
        self._passed = number
        return number

    async def _take_message(self, address: str, message: m.Message, pace: Pace) -> None:
        match message:
            case m.Announced(data):
                assert self._neighbour is not None
                self._take_announcement(data, address, self._neighbour.peer)
            case m.Full(others):
                self._learn_others(others, self._neighbour)
                raise NeighbourFull(f"{address} takes no more listeners")
            case m.SenderState(path, others, _):
                if self._me in path:
                    raise NeighbourFull(f"{address} hears the show through this side")
                if self._announced is not None:
                    self._open_held()
                self._learn_others(others, self._neighbour)
                self._come_through(path)
                if self._is_from_producer(path):
                    self._say_alive()
            case m.Manifest(data):
                await self._take_manifest(address, data, pace)
            case m.Piece(number, index, data):
                held = self._open_held()
                if held.add_piece(number, index, data):
                    pace.note_piece(len(data))
                    each = held.get_segment(number)
                    if each is not None and each.whole:
                        self.completed += 1
                        self._say_alive()
                        pace.note_whole(each.segment)
                        self.parents.has_room(address)
                        if pace.steady:
                            self._restless = 0
                            self.parents.forget_slow()
                        self.parents.note_rate(address, pace.rate)
            case m.Gap(first, last):
                # It may be any: only what the producer has signed behind it says that there was something.
                if (said := self._said_lost) is not None and said.first <= first <= said.last + 1:
                    first = said.first
                self._said_lost = m.Gap(first, last)
            case m.ForkProof(data):
                self._open_held().accept_proof(data)
            case m.Hello() | m.RoomReport() | m.KeyWanted() | m.KeysGiven() | m.KeyRefused():
                raise ShowMessageError(
                    "this message comes from listeners alone, or belongs to another service"
                )

    def _learn_others(self, others: Sequence[str], teller: Connection | None) -> None:
        """Learn the addresses that a neighbour tells of."""
        if teller is not None:
            self.parents.learn_addresses(others, Nearness.of_source(teller.source))

    def _note_announced(self, data: bytes, address: str, peer: PeerId) -> Announcement | None:
        """Note what somebody has who isn't heard, and return it where it is of this show."""
        with contextlib.suppress(SegmentError):
            return self._check_announcement(data, address, peer)
        return None

    def _take_announcement(self, data: bytes, address: str, peer: PeerId) -> None:
        """Take what the neighbour that is heard has: what is held, or what will be, once something follows."""
        announcement = self._check_announcement(data, address, peer)
        if self.held is not None and data == self.held.announcement.encoded:
            return
        if self._streams.has_newer(announcement):
            raise SegmentForeign("this neighbour has a stream of the show that counts no more")
        if self.held is not None:
            raise SegmentForeign("this neighbour has another show")
        self._announced = announcement

    def _check_announcement(self, data: bytes, address: str, peer: PeerId) -> Announcement:
        """Return the announcement, noted, of a show that is listened to. Raise `SegmentError`."""
        announcement = Announcement.decode(data)
        if self._producer is not None and announcement.producer != self._producer:
            raise SegmentForeign(
                f"the show there isn't of {self._producer.short}, but of {announcement.producer}: if that is "
                "whom you mean, name it as --producer"
            )
        if self._show is not None and announcement.show != self._show:
            raise SegmentForeign(
                f"the show there is {announcement.show.hex()}, not {self._show.hex()}: ask its producer where"
            )
        self._note_stream(announcement, address, peer)
        return announcement

    def _note_stream(self, announcement: Announcement, address: str, peer: PeerId) -> None:
        """Note that `peer` has this stream. If it is the producer, at an address that was given, that is the show."""
        self._streams.note_announced(announcement)
        if self.parents.is_given(address):
            self._said.add(address)
            if peer == announcement.producer:
                self._streams.note_own(announcement, address)

    def _check_replaced(self) -> None:
        """Raise `ShowReplaced` where another stream counts than the one that is held."""
        if self.held is not None and self._streams.has_newer(self.held.announcement):
            raise ShowReplaced(
                "this is an older stream: the producer has begun the show anew since. Listen again, at the "
                "producer's own address"
            )

    def _open_held(self) -> HeldSegments:
        if self.held is None:
            if self._announced is None:
                raise ShowMessageError("the announcement comes before all segments")
            self.held = HeldSegments(self._announced, limit=self._limit)
            self._say_alive()
            self._opened.set()
        return self.held

    async def _take_manifest(self, address: str, data: bytes, pace: Pace) -> None:
        held = self._open_held()
        is_first = self.start is None and self._may_begin(address, Segment.decode(data))
        segment = held.add_manifest(data)
        if is_first:
            self.start = segment.number
        needs_init = not segment.flags & (Flag.INIT | Flag.KEYS)
        if needs_init and segment.init not in (NO_INIT, self._init_looked_for):
            self._init_looked_for = segment.init
            if not held.has_whole(segment.init):  # it comes before all that need it
                await self._fetcher.fetch_from_others(held, address, segment.init, segment.init)
        await self._pass_to(address, segment.number)
        pace.note_head(segment)

    def _may_begin(self, address: str, segment: Segment) -> bool:
        """Return whether listening begins with this segment, which shows something. Raise `NeighbourUnfit` for an
        older one than the neighbour has."""
        if segment.flags & (Flag.INIT | Flag.KEYS):
            return False
        if segment.number < self._shown and not self._back_ms:
            raise NeighbourUnfit(f"{address} sends older segments than it has")
        return True

    async def _pass_to(self, address: str, number: int) -> None:
        """Go on with a neighbour at segment `number`: all before are here, or it has said that they are lost. What it
        leaves out is lost as well, or others have it, and `NeighbourUnfit` is raised."""
        if (lost := self._said_lost) is not None and lost.first < number:
            self._said_lost = None
            await self._recover_lost(address, lost.first, min(lost.last, number - 1))
        wanted = self._first_wanted()
        if wanted is not None and wanted < number:
            await self._recover_lost(address, wanted, number - 1)
            raise NeighbourUnfit(f"{address} leaves out segment {wanted}")

    async def _recover_lost(self, address: str, first: int, last: int) -> None:
        """Ask others for segments that a neighbour calls lost, before that is believed."""
        held = self._open_held()
        first = max(first, self.start or 0)
        if last < first:
            return
        await self._fetcher.fetch_from_others(held, address, first, last)
        held.add_gap(first, last)

    async def _look_elsewhere(self, address: str, pace: Pace) -> None:
        """Compare a neighbour from which nothing came for a while, or late, with others, and raise `NeighbourSlow`
        where one does better. Where nobody does it is heard on: to leave it would bring nothing, and cost all."""
        silent, again = pace.silence > ALIVE, pace.looks > 0
        pace.note_looked()
        edge = -1 if self.held is None else self.held.edge
        others = [each for each in self.parents.list_due(pace.now(), COMPARED + 1) if each != address]
        told = await asyncio.gather(
            *(self._ask_for(each, edge + pace.required_lead) for each in others[:COMPARED])
        )
        self._check_replaced()
        if any(has for has, _ in told):
            raise NeighbourSlow(f"{address} is behind others")
        if silent and pace.silence > ALIVE and any(hears for _, hears in told):
            raise NeighbourSlow(f"{address} is silent")
        wanted = self._first_wanted()
        if again and wanted is not None and wanted <= edge:  # nobody need be ahead: no piece of that comes
            await self._fetcher.fetch_from_others(self._open_held(), address, wanted, wanted)
            if self._first_wanted() != wanted:
                raise NeighbourSlow(f"{address} leaves out a part of segment {wanted}")
        if self.path and not self._is_from_producer(self.path):
            raise NeighbourUnfit(f"{address} doesn't hear the producer any more")


async def _end_measuring(tasks: Sequence[asyncio.Task[Measured | None]]) -> None:
    """Cancel these, and end the connections of those that have one."""
    for each in tasks:
        each.cancel()
    for found in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(found, Measured):
            await found.stack.aclose()


def _pause_after(useless: int, longest: float) -> float:
    """Return the seconds until the next neighbour is chosen, after so many choices in a row that brought nothing."""
    return min(_PAUSE * 2.0 ** min(useless - 1, 32), longest) if useless else 0.0
