"""What others made: taken from peers, files and programs that share the store, and shown when it is due."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from dtp.crdt.permission.access import Ruling
from dtp.crdt.permission.judging import JudgedPart
from dtp.crdt.replica import UNJUDGED
from dtp.errors import DtpError
from dtp.graph.changes import Readers
from dtp.graph.errors import EnvelopeError, Equivocation, StoreError
from dtp.graph.frames import envelope as envelopes
from dtp.graph.frames.envelope import Envelope, Signed, Skipped, Summary
from dtp.graph.frames.proving import Proof
from dtp.graph.stores import loading
from dtp.graph.sync.part import Part
from dtp.tasks import TaskSet, start_task

if TYPE_CHECKING:
    from dtp.graph.graph import Graph

log = logging.getLogger("dtp.graph")

#: The wall clock is asked again after so many seconds whether something is due: it may have been set.
_LOOK_AGAIN: Final = 60.0
#: Seconds between two looks at what is due, at least.
_SOON: Final = 0.01
#: Seconds after which what other programs stored is read again, where the store didn't answer.
_NEWS_AGAIN: Final = 1.0
#: Summaries of which it is remembered when they are due. More of them come again with each sync.
_MOST_EARLY: Final = 4096
#: Bytes of those that are kept until then; of others their peers are asked again.
_MOST_EARLY_BYTES: Final = 64 << 20
#: Bytes of ops, as they are read, that are judged in one turn of the loop, of one frame or several: some 100 ops, of
#: 30 us each.
_JUDGED_AT_ONCE: Final = 8192


class _Save(Protocol):
    def __call__(self, *, synced: bool) -> Awaitable[None]: ...


class _Offer(Protocol):
    def __call__(self, *, is_local: bool) -> None: ...


@dataclass(frozen=True)
class IntakeParts:
    """What taking frames needs of the inside of a graph."""

    lock: asyncio.Lock
    readers: Readers
    #: Store what isn't yet.
    save: _Save
    #: Take all frames again where what was let in is void now.
    rebuild: Callable[[], Awaitable[None]]
    #: Tell who watches of what was merged last.
    offer: _Offer
    #: Tell who listens that frames were stored.
    tell: Callable[[], None]
    #: Commit soon, in the background.
    flush: Callable[[], None]


@dataclass(frozen=True)
class _Early:
    """A summary that came before it was due."""

    #: Its last clock.
    last: int
    #: None where there was no room for it.
    kept: Summary | None


class Intake:
    """How frames of others come into a graph: each behind the one before, checked, and shown when due."""

    def __init__(self, graph: Graph, inside: IntakeParts) -> None:
        """Take what comes for a graph."""
        self._graph = graph
        self._inside = inside
        self._loop = asyncio.get_running_loop()
        self._news: asyncio.Task[None] | None = None
        #: Why what other programs stored could not be taken the last time.
        self._news_failure: str | None = None
        self._news_timer: asyncio.TimerHandle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._looking = TaskSet()
        #: Bytes of ops that were judged since others had their turn.
        self._judged = 0
        #: Peer -> author -> a summary that it sent too early.
        self._early: dict[bytes, dict[bytes, _Early]] = {}
        self._first_early = 0

    def close(self) -> None:
        """Take nothing more by itself."""
        for pending in (self._timer, self._news_timer, self._news):
            if pending is not None:
                pending.cancel()

    async def receive(self, data: Iterable[bytes], part: Part | None) -> int:
        """Take envelopes; return how many were new. As `Graph.receive`."""
        self._graph.check_writable()
        return await self.receive_decoded([self.decode(one) for one in data], part)

    def decode(self, data: bytes) -> Envelope | Summary:
        """Return the envelope of this graph in `data`, as `envelope.decode` does."""
        return envelopes.decode(self._graph.name, data)

    async def receive_decoded(self, batch: list[Envelope | Summary], part: Part | None) -> int:
        """Take what `decode` gave; return how many were new. As `Graph.receive`."""
        async with self._inside.lock:
            return await self._receive_locked(batch, part)

    async def _receive_locked(self, batch: list[Envelope | Summary], part: Part | None) -> int:
        self._graph.check_writable()
        self._check_skipped(batch, part)
        wrong = await loading.first_forged(batch)
        if wrong is not None:
            raise EnvelopeError(
                f"envelope {wrong} is not signed by its author for graph {self._graph.name!r}: it was changed, "
                "or is of a graph of another name"
            )
        await self._graph.frames.load_known(batch)
        taken = 0
        self._graph.replica.read_clock()
        try:
            async with contextlib.aclosing(self._graph.admission.admit(batch)) as admitted:
                async for some in admitted:
                    for one in some:
                        taken += await self._merge_envelope(one)
        except Equivocation as error:
            self._graph.frames.chains.found.append(error.proof)
            raise
        finally:
            self._graph.frames.forget_known()
            self._inside.readers.on_received()
            await self._inside.save(synced=False)
            taken += await self._take_agreed(batch)
            for author in self._graph.frames.beyond.keys() & {one.author for one in batch}:
                taken += await self._rejoin_author(author)
            await self._inside.rebuild()
            while self._graph.frames.chains.found:
                await self._keep_proof(self._graph.frames.chains.found[-1])
                self._graph.frames.chains.found.pop()
        return taken

    async def _take_agreed(self, batch: list[Envelope | Summary]) -> int:
        """Take the sums to which enough agree now; return how many. Say which of those that came have to wait."""
        asked, frames = self._graph.admission.agreement, self._graph.frames
        if asked is None:
            return 0
        taken, heads = 0, frames.chains.heads
        await self._graph.admission.pending_statements.add_statements(
            [
                one
                for one in batch
                if one.author in asked.of
                and (one.author not in heads or one.sequence > heads[one.author].sequence)
            ]
        )
        came = [one for one in batch if isinstance(one, Summary)]
        # Chains keep the sum that reaches farthest. A shorter one may have come before the words for it.
        if any(one.author in asked.of for one in batch) and (
            left := [*frames.chains.refused_summaries(), *came]
        ):
            taken = await self._take_again(left)
        authors = {one.author for one in came}
        for unagreed in self._graph.admission.unagreed() if came else ():
            if unagreed.author.key in authors:
                log.warning("graph %r: %s", self._graph.name, unagreed.describe())
        return taken

    async def _take_again(self, left: list[Summary]) -> int:
        await self._graph.frames.load_known(left)
        taken = 0
        for one in left:
            taken += await self._merge_envelope(one)
        self._graph.frames.forget_known()
        self._inside.readers.on_received()
        await self._inside.save(synced=False)
        return taken

    async def take_agreed(self) -> None:
        """Take the sums that waited for more, or for others, to agree than have to now."""
        async with self._inside.lock:
            self._graph.check_writable()
            await self._take_left()

    async def _take_agreed_soon(self) -> None:
        async with self._inside.lock:
            if not self._graph.closed:
                await self._take_left()

    async def _take_left(self) -> None:
        admission, chains = self._graph.admission, self._graph.frames.chains
        if (asked := admission.agreement) is not None:
            waiting = [one for one in chains.list_waiting() if one.author in asked.of]
            await admission.pending_statements.add_statements(waiting)
        await self._take_again(chains.refused_summaries())
        await self._inside.rebuild()

    async def _rejoin_author(self, author: bytes) -> int:
        """Go on with what was behind lost frames of an author that have come; return how many that had waited for it
        were taken."""
        taken = 0
        while (
            last := await self._graph.frames.ask_store(self._graph.frames.store.rejoin_aside, author)
        ) is not None:
            self._graph.frames.chains.skip_to(
                author, loading.decode_stored(self._graph.frames.store, last).head
            )
            if not any(one[0] == author for one in self._graph.frames.store.read_gaps()):
                del self._graph.frames.beyond[author]
            taken += await self._merge_envelope(self._graph.frames.chains.held_next(author))
            self._inside.readers.on_received()
            await self._inside.save(synced=False)
        return taken

    async def _keep_proof(self, proof: Proof) -> None:
        if proof.author not in self._graph.forks:
            await self._graph.frames.ask_store(self._graph.frames.store.add_proof, proof)
            self._graph.forks[proof.author] = proof
            log.warning("%s", proof.describe())

    async def take_proof(self, first: bytes, second: bytes) -> None:
        """Keep a proof that an author signed two histories. As `Graph.take_proof`."""
        self._graph.check_writable()
        proof = Proof(envelopes.decode(self._graph.name, first), envelopes.decode(self._graph.name, second))
        if proof.author in self._graph.forks or proof.author not in self._graph.frames.chains.heads:
            return
        if not await self._graph.frames.ask_store(proof.is_valid):
            raise EnvelopeError("two envelopes that are said to contradict each other don't")
        async with self._inside.lock:
            self._graph.check_open()
            await self._keep_proof(proof)

    def on_store_changed(self) -> None:
        """Note that another program may have stored something: told by a thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed already
            self._loop.call_soon_threadsafe(self._take_news_soon)

    def on_damage_found(self) -> None:
        """Note that something stored was found damaged, and mended: told by a thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed already
            self._loop.call_soon_threadsafe(self._look_soon)

    def _look_soon(self) -> None:
        self._looking.start(self._look_again(), name="dtp-graph-damage")

    async def _look_again(self) -> None:
        async with self._inside.lock:
            if not self._graph.closed:
                await self._graph.look_again()
                self._inside.tell()  # peers are asked for what is missing

    def _take_news_soon(self) -> None:
        if self._news is None and not self._graph.closed:
            self._news = start_task(self._take_news(), name="dtp-graph-news", loop=self._loop)

    async def _take_news(self) -> None:
        store, before = self._graph.frames.store, self._news_failure
        try:
            await self._graph.admission.reload_policy()
            async with self._inside.lock:  # no state is kept between, which would lack what was read
                found = await self._graph.frames.ask_store(store.read_added)
                self._news = self._news_failure = None  # what is told from here on may not be in it
                if found:
                    await self._take_added(found)
        except DtpError as error:
            self._news = None
            if self._graph.closed:
                return
            if isinstance(error, StoreError):  # nobody may tell of it once more
                self._news_failure = str(error)
                if self._news_timer is not None:
                    self._news_timer.cancel()
                self._news_timer = self._loop.call_later(_NEWS_AGAIN, self._take_news_soon)
            if str(error) != before:
                context = {"message": "what another program stored could not be taken", "exception": error}
                self._loop.call_exception_handler(context)

    async def _take_added(self, found: list[bytes]) -> None:
        try:
            await self._receive_locked([self.decode(one) for one in found], self._graph.part)
        except StoreError:
            await self._graph.frames.ask_store(self._graph.frames.store.return_added, found)
            raise

    async def _merge_envelope(self, envelope: Envelope | Summary | None) -> int:
        """Merge it, and those that waited for it, with the lock."""
        taken, chains = 0, self._graph.frames.chains
        while envelope is not None and chains.is_next(envelope):
            if isinstance(envelope, Summary) and not self._graph.admission.takes_sum(envelope):
                chains.add_missing(envelope)
                break
            changed = loading.merge_signed(self._graph.replica, envelope, judge=False)
            if changed == UNJUDGED:
                is_sum = isinstance(envelope, Summary)
                ruling = await self._judge_frame(envelope.author, envelope.body, is_sum=is_sum)
                if not chains.is_next(envelope):  # this identity has signed something meanwhile
                    continue
                changed = loading.merge_signed(self._graph.replica, envelope, ruling=ruling)
            self._note_taken(envelope)
            taken += 1
            if changed:
                self._inside.offer(is_local=False)
            envelope = chains.held_next(envelope.author)
            if envelope is not None and not self._graph.admission.takes_held(envelope):
                break
        self.wait_for_due()
        return taken

    def _note_taken(self, envelope: Envelope | Summary) -> None:
        clock = 0 if isinstance(envelope, Skipped) else self._graph.replica.core.covered_clocks[1]
        self._graph.frames.chains.note_accepted(envelope, clock)
        self._graph.frames.unsaved[envelope.author, envelope.sequence] = envelope
        self._graph.admission.count_envelope(envelope)

    async def _judge_frame(self, author: bytes, body: bytes, *, is_sum: bool = False) -> Ruling:
        """Return the verdicts on a frame, with the lock. On a full one they take seconds, so others have turns."""
        replica = self._graph.replica
        while True:
            ruling = replica.access.begin_ruling(author)
            for part in replica.judge_parts(ruling, body, is_sum=is_sum):
                await self._judge_part(part)
                if not ruling.is_current(replica.access):
                    break
            else:
                return ruling

    async def settle_own(self) -> None:
        """Judge what was committed here, with the lock. On a full frame that takes seconds, so others have turns."""
        for _ in self._graph.replica.permits.settle_parts():
            await asyncio.sleep(0)

    async def _judge_part(self, part: JudgedPart) -> None:
        if part.is_long:
            await asyncio.to_thread(part.find_verdicts)
            return
        part.find_verdicts()
        self._judged += len(part.packed)
        if self._judged >= _JUDGED_AT_ONCE:
            self._judged = 0
            await asyncio.sleep(0)

    def wait_for_due(self, least: float = _SOON) -> None:
        """Apply frames from the future when they are due, and ask again for summaries, until closed, in `least`
        seconds at the earliest; the wall clock may be set meanwhile."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting = [one for one in (self._graph.replica.core.first_due_clock, self._first_early) if one]
        if waiting:
            pause = min(max(least, self._graph.replica.clock.seconds_until(min(waiting))), _LOOK_AGAIN)
            self._timer = self._loop.call_later(pause, self._apply_due)

    def early_from(self, peer: bytes) -> set[bytes]:
        """Return the authors of whom a peer sent a summary too early: it would send the same again."""
        return set(self._early.get(peer, ()))

    def add_early(self, peer: bytes, summary: Summary) -> None:
        """Take a summary that a peer sent too early once it is due, and wake those who listen. It is kept: when it is
        due its author may have put another in its place, which isn't."""
        self._early.setdefault(peer, {})[summary.author] = _Early(summary.last, summary)
        self._limit_early()
        self._find_first_early()
        self.wait_for_due()

    def _limit_early(self) -> None:
        """Keep those for which there is room: what is due first, since others may never be."""
        by_clock = sorted(
            ((peer, author, one) for peer, early in self._early.items() for author, one in early.items()),
            key=lambda each: each[2].last,
        )
        self._early.clear()
        room = _MOST_EARLY_BYTES
        for peer, author, one in by_clock[:_MOST_EARLY]:
            size = len(one.kept.body) if one.kept is not None else 0
            kept = one if size <= room else _Early(one.last, None)
            room -= size if kept is one else 0
            self._early.setdefault(peer, {})[author] = kept

    def _find_first_early(self) -> None:
        clocks = (one.last for early in self._early.values() for one in early.values())
        self._first_early = min(clocks, default=0)

    def _pop_early(self) -> list[_Early]:
        """Remove the summaries that are due, and return them."""
        highest, due = self._graph.replica.clock.highest_clock(), list[_Early]()
        for peer, early in list(self._early.items()):
            for author, one in list(early.items()):
                if one.last <= highest:
                    due.append(early.pop(author))
            if not early:
                del self._early[peer]
        self._find_first_early()
        return due

    async def _take_early(self, due: list[_Early]) -> None:
        for one in due:
            try:
                if one.kept is not None:
                    await self.receive_decoded([one.kept], self._graph.part)
            except DtpError as error:
                if self._graph.closed:
                    return
                log.warning("a sum that was dated ahead is due, and not taken: %s", error)
        self._inside.tell()  # peers are asked for what comes behind them

    def _apply_due(self) -> None:
        self._timer = None
        if 0 < self._first_early <= self._graph.replica.clock.highest_clock():
            self._looking.start(self._take_early(self._pop_early()), name="dtp-graph-early")
        self._looking.start(self._take_due(), name="dtp-graph-due")

    async def _take_due(self) -> None:
        async with self._inside.lock:
            if self._graph.closed:
                return
            replica, is_due = self._graph.replica, False
            limit, pause = replica.clock.highest_clock(), _LOOK_AGAIN  # a fault may come again at once
            try:
                while due := replica.first_due(limit):
                    is_due = True
                    if replica.apply_due(due, limit, await self._judge_frame(*due)):
                        self._inside.offer(is_local=False)
                pause = _SOON
            finally:
                self._inside.readers.on_received()
                self.wait_for_due(pause)
        if is_due:
            self._inside.tell()  # there may be room again for what is due later
            if self._graph.frames.chains.refused_summaries():  # words for them may be due
                self._looking.start(self._take_agreed_soon(), name="dtp-graph-agreed")
        if self._graph.replica.must_rebuild:
            self._inside.flush()

    def _check_skipped(self, batch: Iterable[Signed], part: Part | None) -> None:
        """Raise `EnvelopeError` where something is skipped that may be in the part that is here, by a peer who was
        asked for `part`."""
        for one in batch:
            if isinstance(one, Skipped) and (part is None or part != self._graph.part):
                raise EnvelopeError("a peer skips frames of which nobody knows what is in them")
            if isinstance(one, Skipped) and one.author == self._graph.identity.id.key:
                raise EnvelopeError("a peer skips frames of this identity itself")
