"""What was made here, until it is signed and stored: at each `commit`, which follows by itself while a loop runs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from dtp.core.errors import NotOwner, StateLimit
from dtp.crdt.permission.rules import RuleBroken
from dtp.crdt.replica import Frame
from dtp.errors import DtpError
from dtp.graph.changes import Readers
from dtp.graph.errors import GraphForked
from dtp.graph.frames import envelope as envelopes
from dtp.graph.frames.envelope import Envelope, Summary
from dtp.graph.upkeep.pruning import Pruner
from dtp.tasks import start_task

if TYPE_CHECKING:
    from dtp.graph.graph import Graph

#: Bytes of frames that are taken before the state is kept again, so that opening and revoking read few frames: as
#: many as the state has, but within these bounds.
_STATE_LEAST: Final = 4 << 20
_STATE_MOST: Final = 16 << 20
#: Envelopes that go to the store in one transaction.
_AT_ONCE: Final = 256


@dataclass(frozen=True)
class CommitParts:
    """What committing needs of the inside of a graph."""

    lock: asyncio.Lock
    readers: Readers
    #: Take all frames again where what was let in is void now.
    rebuild: Callable[[], Awaitable[None]]
    #: Tell who listens that frames were stored.
    tell: Callable[[], None]
    #: Drops what nothing counts of any more, where the graph is pruned.
    pruner: Pruner | None


class Commits:
    """Signs what was made in a graph and stores it, and keeps the merged state now and then."""

    def __init__(self, graph: Graph, inside: CommitParts) -> None:
        """Commit what is made in a graph."""
        self._graph = graph
        self._inside = inside
        self._loop = asyncio.get_running_loop()
        self._soon: asyncio.Task[None] | None = None
        self._unsigned: list[Frame] = []
        #: Why edits of texts were taken back, which the next commit raises.
        self._refused: NotOwner | RuleBroken | None = None
        #: Whether something was signed since this identity is known to have two histories, and nobody was told.
        self._is_fork_untold = False
        #: Why the last commit in the background failed.
        self._failure: DtpError | None = None
        self._since_state = 0
        self._state_every = _STATE_LEAST

    @property
    def failed(self) -> DtpError | None:
        """Why what was made could not be signed and stored; None if it could."""
        return self._refused or self._failure

    def commit_later(self) -> None:
        """Commit in the loop's next turn, in the background."""
        if self._soon is None and self._loop.is_running():
            self._soon = start_task(self._commit_soon(), name="dtp-graph-flush", loop=self._loop)

    async def _commit_soon(self) -> None:
        self._soon = None
        try:
            await self._commit_changes()
        except (NotOwner, RuleBroken) as error:
            self._refused = error
        except DtpError as error:
            if not self._graph.closed:
                before, self._failure = self._failure, error
                if (type(before), str(before)) == (type(error), str(error)):
                    return  # it was told, and each change here tries again
                context = {
                    "message": "what was made in a graph was not signed and stored",
                    "exception": error,
                }
                self._loop.call_exception_handler(context)

    async def commit(self) -> None:
        """Sign and store all that was made, as `Graph.commit` does, but don't raise because of a known fork: for what
        has more to do. Whoever commits next hears of it."""
        await self._commit_changes()
        if self._refused is not None:
            refused, self._refused = self._refused, None
            raise refused

    def raise_if_forked(self) -> None:
        """Raise `GraphForked` if something was signed, since this last did, that those with the other history of this
        identity won't take."""
        fork, is_untold = self._graph.own_fork(), self._is_fork_untold
        self.note_fork_told()
        if fork is not None and is_untold:
            raise fork

    def note_fork_told(self) -> None:
        """Note that the program has heard that others don't take what was signed until now."""
        self._is_fork_untold = False

    async def _commit_changes(self) -> None:
        inside = self._inside
        async with inside.lock:
            try:
                self.sign()
            finally:
                await self.save_frames(synced=True)
                await inside.rebuild()
            self._failure = None
            inside.readers.on_stored()

    def sign(self) -> None:
        """Sign all that was made, and leave storing it to the next commit, as which it raises."""
        self._graph.check_open()
        replica = self._graph.replica
        if replica.recorder is not None:
            replica.recorder.on_committed()
        try:
            replica.write_edits()
        finally:
            self._unsigned += replica.take_frames()
            self._sign_frames()
            self._inside.readers.on_signed()

    def sign_what_counts(self) -> None:
        """Sign all that was made but for edits that are refused: they are lost, and who commits next hears of it."""
        try:
            self.sign()
        except (NotOwner, RuleBroken) as error:
            self._refused = error
            self.sign()

    def _sign_frames(self) -> None:
        graph, frames = self._graph, self._graph.frames
        while self._unsigned:
            frame = self._unsigned[0]
            tip = frames.chains.get_tip(frame.author)
            if frame.after != tip.clock:
                raise GraphForked(
                    "another machine writes as this identity, so what was made here is not signed; give each "
                    "machine an identity of its own"
                )
            made = envelopes.sign_frame(graph.identity, graph.name, tip.sequence + 1, tip.hash, frame.body)
            frames.chains.note_accepted(made, frame.last)
            frames.unsaved[made.author, made.sequence] = made
            self._is_fork_untold |= made.author in graph.forks
            del self._unsigned[0]

    # ---- the store ------------------------------------------------------------------------------------------

    async def save_frames(self, *, synced: bool) -> None:
        """Store what isn't yet. What fails stays, for the next time."""
        await self._graph.intake.settle_own()
        frames = self._graph.frames
        told = bool(frames.unsaved)
        while frames.unsaved:
            some = [one for one, _ in zip(frames.unsaved.values(), range(_AT_ONCE), strict=False)]
            await frames.ask_store(self._store_some, some, synced)
            for one in some:
                del frames.unsaved[one.author, one.sequence]
                self.note_taken(len(one.body) + envelopes.OVERHEAD)  # many small ones take time, too
            if self._inside.pruner is not None:
                self._inside.pruner.on_stored_bytes(sum(len(one.encode()) for one in some))
        if told:
            self._inside.tell()
            await self.save_state()

    def _store_some(self, some: list[Envelope | Summary], synced: bool) -> None:  # beside the loop
        graph, store = self._graph, self._graph.frames.store
        store.add_frames(some, synced=synced)
        own = [one.sequence for one in some if one.author == graph.identity.id.key]
        if own and graph.behind is None:
            store.remember_signed(graph.identity.id.key, own[-1])

    def note_taken(self, size: int) -> None:
        """Note that the state which is kept is so many bytes older."""
        self._since_state += size

    async def save_state(self, *, always: bool = False) -> None:
        """Keep the merged state, if what was taken since the last time is worth it, or `always` if there was any."""
        if not self._since_state or not (always or self._since_state > self._state_every):
            return
        frames, replica = self._graph.frames, self._graph.replica
        if frames.unsaved or self._unsigned or replica.must_rebuild:
            return
        try:
            state = replica.save()
            replica.core.release_memory()  # as seldom as this, its cost is small beside the state's
        except StateLimit:  # something was made meanwhile: after its commit
            return
        self._since_state = 0
        self._state_every = min(_STATE_MOST, max(_STATE_LEAST, len(state)))
        await frames.ask_store(frames.store.save_state, state)
