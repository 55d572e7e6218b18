"""A graph: what a program holds. One replica, the store it is kept in, and whoever watches it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from dtp.core.errors import NotOwner, StateLimit
from dtp.crdt import Change, Clock, Replica
from dtp.crdt.access import Grant
from dtp.crdt.clock import seconds
from dtp.crdt.replica import SPACES, Frame
from dtp.crdt.rules import RuleBroken, Rules
from dtp.crdt.sequences import Name
from dtp.errors import DtpError
from dtp.graph import access, loading
from dtp.graph import envelope as envelopes
from dtp.graph.accounts import Accounts
from dtp.graph.admission import Admission, Inside, read_policy
from dtp.graph.blobs import BlobStore
from dtp.graph.chains import Chains
from dtp.graph.contents import CLOSED, READ_ONLY
from dtp.graph.envelope import Envelope, Skipped, Summary, last_clock
from dtp.graph.errors import (
    EnvelopeError,
    Equivocation,
    GraphBehind,
    GraphError,
    GraphForked,
    GraphReadOnly,
    StoreError,
)
from dtp.graph.graph_connections import GraphConnections
from dtp.graph.graph_files import GraphFiles
from dtp.graph.graph_part import GraphPart
from dtp.graph.graph_past import GraphPast
from dtp.graph.graph_upkeep import GraphUpkeep
from dtp.graph.passing import Offering, Passed
from dtp.graph.proving import Proof
from dtp.graph.pruning import Pruner
from dtp.graph.store import Damage, Store
from dtp.graph.vector import MARK, Head, Vector
from dtp.graph.verifying import verify
from dtp.identity import Identity, PeerId
from dtp.tasks import start_task

if TYPE_CHECKING:
    from dtp.graph.part import Part
    from dtp.graph.private import PrivateNode
    from dtp.graph.resigning import Resigned

log = logging.getLogger("dtp.graph")

_T = TypeVar("_T")
#: Bytes of frames that are taken before the state is kept again, so that opening and revoking read few frames: as
#: many as the state has, but within these bounds.
_STATE_LEAST: Final = 4 << 20
_STATE_MOST: Final = 16 << 20
#: Envelopes that go to the store in one transaction.
_AT_ONCE: Final = 256
#: The wall clock is asked again after so many seconds whether something is due: it may have been set.
_LOOK_AGAIN: Final = 60.0


class Graph(GraphPart, GraphFiles, GraphUpkeep, GraphPast, GraphConnections):
    """A replicated graph, opened by `Graph.open`; `async with` closes it.

    Nodes and the other types are read and changed by plain calls, which only touch memory. What was changed is signed
    and stored by the next `commit`; while an event loop runs, one follows by itself in its next turn. What others
    made comes by `sync`, `replicate` and `serve` over connections, or by `receive`.

    Only one program at a time may write as one identity: two machines of one person have an identity each.
    Errors of the types are those of `dtp.crdt.Replica`. Use it from the thread of its event loop.
    """

    def __init__(
        self,
        identity: Identity,
        store: Store,
        replica: Replica,
        *,
        history: bool = False,
        read_only: bool = False,
        prune: bool = False,
    ) -> None:
        """See `open`."""
        super().__init__(identity, replica, BlobStore(store.blob_folder, scratch=store.forgets))
        self.name = store.name
        #: Whether peers are asked for every frame; else what was overwritten meanwhile may be left out.
        self.keeps_history = history
        #: Peer (public key) -> `vector.digest` of what both had when they last synced.
        self.agreed: dict[bytes, bytes] = {}
        #: What it passes on of authors who may be away, and when it sums up its own.
        self.passed = Passed(store.passed_folder)
        self.offering = Offering()
        #: Whether it is only read: what would change it raises `GraphReadOnly`.
        self.read_only = read_only
        self._store = store
        #: Raised by all changes while what this identity signed may not be all here; else None.
        self.behind: GraphBehind | None = None
        self._chains = self._read_chains()
        self._ask_whether_behind()
        self._pruner = Pruner(self) if prune else None
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="dtp-graph")
        self._loop = asyncio.get_running_loop()
        self._lock = asyncio.Lock()
        self._listeners: set[Callable[[], None]] = set()
        self._refused: NotOwner | RuleBroken | None = None
        self._failure: DtpError | None = None
        self._unsigned: list[Frame] = []
        #: Author (public key) -> the proof that it signed two histories, as far as is known here.
        self.forks: dict[bytes, Proof] = {proof.author: proof for proof in loading.proofs(store)}
        self._unsaved: dict[tuple[bytes, int], Envelope | Summary] = {}
        self._since_state = 0
        self._state_every = _STATE_LEAST
        self._cards = 0  # of accounts, and words about devices, that were looked at
        self._flush: asyncio.Task[None] | None = None
        self._news: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        #: Whom it takes in: bans, purges, quotas, and what was refused.
        self.admission = Admission(
            self, store, Inside(self._run, lambda: self._chains, self._tell, self._lock)
        )
        replica.on_made = self._made
        replica.on_edited = self._edited
        self._wait_for_due()
        store.follow(self._followed)
        store.follow_damage(self._damaged)

    def _read_chains(self) -> Chains:
        heads = loading.heads(self._store)  # damage may be found now, and is mended then
        #: Of authors of whom frames were lost: the last one behind those.
        self._beyond = loading.beyond(self._store)
        return Chains(heads, self._standing, self._last_clock, whole=self.keeps_history)

    def _damaged(self) -> None:
        """Some of what was stored is gone: told by a thread."""
        self._loop.call_soon_threadsafe(self._look_again)

    def _look_again(self) -> None:
        if not self._closed:
            self._chains = self._read_chains()
            self._ask_whether_behind()

    def _ask_whether_behind(self) -> None:
        self.behind = loading.behind(self._store, self.identity)
        self._replica.refusal = GraphReadOnly(READ_ONLY) if self.read_only else self.behind

    # ---- opening and closing --------------------------------------------------------------------------------

    @classmethod
    async def open(
        cls,
        place: str,
        *,
        identity: Identity,
        name: str | None = None,
        clock: Clock | None = None,
        history: bool = False,
        blobs: str | os.PathLike[str] | None = None,
        read_only: bool = False,
        prune: bool = False,
        part: Part | None = None,
    ) -> Graph:
        """The graph kept at `place`: the path of a SQLite file, made if need be, `memory:`, or a `postgresql://` URL.

        In PostgreSQL (`pip install 'dtp-sockets[graph-postgres]'`) several programs share a graph, each as an
        identity of its own; what one stores the others have at once. Blobs are kept
        in the folder `blobs`, by default one beside the file.

        `name` (at most 255 bytes; that of the file, else "") is signed with every frame: graphs of different names
        don't mix. With `history` peers are asked for all that ever was, and nothing else is taken: what comes summed
        up by its author is left, and `gaps` tells what is missing until a peer comes that has the frames. Else peers
        may leave out what was overwritten while this graph was away. What is stored summed up stays so: where it
        matters, as in votes, begin with `history`, and all programs that share a store.

        With `prune` frames of which nothing counts any more are dropped as the store grows (`Graph.prune`), so that
        it stays in proportion to what stands; it can't be had with `history`.

        With `part` only a part of the graph is asked of peers, and kept: `Part(prefixes=["note/"])`. It can be larger
        the next time, or with `grow`; what isn't in it raises `GraphPartial` when it is read. docs/partial.md.

        With `read_only` it is opened beside the program that has it, which isn't held up, and shows what was stored
        then; open it again for what came since. The file isn't written to, and `GraphReadOnly` is raised by what
        would change it or exchange it with peers. Raises `StoreError`, `GraphError`.
        """
        if name is not None and len(name.encode()) > envelopes.MAX_NAME:
            raise GraphError(f"a graph's name has at most {envelopes.MAX_NAME} bytes of UTF-8")
        if prune and (history or read_only):
            raise GraphError("a graph that keeps its history, or is only read, can't be pruned")
        if part is not None and (history or read_only):
            raise GraphError(
                "who wants every frame wants all of a graph, and who only reads it takes what is there"
            )
        opened = partial(loading.opened, place, name, identity.id.key, read_only=read_only)
        store: Store = await asyncio.to_thread(opened)
        if blobs is not None:
            store.blob_folder = Path(blobs)
        try:
            store.hidden = frozenset((await asyncio.to_thread(read_policy, store)).hidden)
            part = await asyncio.to_thread(loading.settle_part, store, part, identity.id.key)
            replica = await asyncio.to_thread(loading.load, store, identity, clock)
            graph = cls(identity, store, replica, history=history, read_only=read_only, prune=prune)
            graph.show_part(part)
            store.loaded()
            return graph
        except BaseException:
            store.close()
            raise

    async def close(self) -> None:
        """Commit, keep the state, let go of the store; watches end. Idempotent."""
        if self._closed:
            return
        try:
            if self._pruner is not None:
                await self._pruner.close()
            await self.commit()
            async with self._lock:
                await self.admission.close()
                await self._save_state(always=True)
        finally:
            self._closed = True
            self._replica.refusal = GraphError(CLOSED)
            if self._timer is not None:
                self._timer.cancel()
            if self._news is not None:
                self._news.cancel()
            self._readers.close()
            self._replica.sequences.end_changes()
            if self._beside is not None:
                await self._beside.close()
            self._worker.shutdown(wait=True)
            self._store.close()
            self.blobs.close()
            self._tell()

    async def __aenter__(self) -> Graph:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # ---- what was made here ---------------------------------------------------------------------------------

    def _made(self) -> None:
        self._offer(is_local=True)
        self._flush_later()

    def _edited(self, name: Name) -> None:
        """A text or a list was written; who watches hears of it when it becomes an op."""
        space, soul, key = name
        self._note([Change(soul, key, SPACES[space], self.identity.id.key, 0)])
        self._flush_later()

    def _flush_later(self) -> None:
        if self._flush is None and self._loop.is_running():
            self._flush = start_task(self._flush_soon(), name="dtp-graph-flush", loop=self._loop)

    async def _flush_soon(self) -> None:
        self._flush = None
        try:
            await self._commit()
        except (NotOwner, RuleBroken) as error:
            self._refused = error
        except DtpError as error:
            if not self._closed:
                self._failure = error
                context = {
                    "message": "what was made in a graph was not signed and stored",
                    "exception": error,
                }
                self._loop.call_exception_handler(context)

    @property
    def failed(self) -> DtpError | None:
        """Why the last commit in the background failed, None if it didn't.

        What it could not sign and store is kept in memory, and each `commit` tries again and raises what is still
        wrong; so does all that begins with one, such as `sync` and `close`. Edits of texts that were refused
        (`NotOwner`, `RuleBroken`) are gone: the next `commit` raises that, once. `GraphForked` when it became known
        that this identity signed two histories; `sync` raises that, too, once all that can be exchanged is.
        """
        return self._refused or self._failure or self.own_fork() or self.behind

    @property
    def damage(self) -> Damage | None:
        """What was found damaged in the store, and mended, since it was opened; None if nothing was. `gaps` tells
        what is missing since, until a sync with a peer brings it."""
        return self._store.damage

    def recover(self) -> None:
        """Let this store go on for its identity, though it was copied or restored: no other one has more of what this
        identity signed, or ever will. A store that a peer can bring up to date needs only a `sync`.

        Where damage took frames from the middle of what this identity signed, those behind them are signed again, and
        what was in the lost ones is gone. Raises `GraphBehind` if that can't be.
        """
        self.check_writable()
        if self.behind is None:
            return
        loading.adopt(self._store, self.identity, self._chains.tip(self.identity.id.key))
        fresh = self._replica.fresh()  # what the kept state had of lost frames nobody else will ever have
        loading.replay(self._store, fresh)
        changes = access.differences(self._replica, fresh)
        self._replica.become(fresh)
        self._tell_rebuilt(changes)
        self._look_again()

    async def recover_from(
        self, source: str | None = None, author: PeerId | str | bytes | None = None
    ) -> Resigned:
        """Sign again what an author, by default this identity, made that others don't take: in another history than
        the one that is here, or since it was revoked. It is this identity's then, and what is newer here stays.

        `source` is a store (as `open` names it) that has the author's frames, such as the file of a lost device or
        the copy that wrote as well; None looks at what is here. What nothing speaks against is taken as it is signed.
        What this identity may not write, or is sealed, is `left`. Do it on one device. Raises `GraphError`,
        `StoreError`.
        """
        from dtp.graph.resigning import recover_from

        whose = self.identity.id.key if author is None else access.key_of(author)
        return await recover_from(self, source, whose)

    async def widen(self, part: Part) -> None:
        """See `grow`."""
        self.check_writable()
        await self.commit()
        async with self._lock:
            self.show_part(await self._run(loading.settle_part, self._store, part, self.identity.id.key))
            fresh = self._replica.fresh()
            await self._run(loading.replay, self._store, fresh)
            changes = access.differences(self._replica, fresh)
            self._replica.become(fresh)
            self._look_again()
            self.agreed.clear()
        self._tell_rebuilt(changes)
        self._tell()

    def caught_up(self) -> None:
        """Sign again, as a peer that knows this identity has told all that it has of it; not if more was signed here:
        others may have that."""
        own = self.identity.id.key
        if self.behind is None or own in self._beyond:
            return
        if self._store.witnessed(own) > self.vector().get(own, 0):
            self._ask_whether_behind()
            return
        log.info("graph %r signs again: a peer knew all that its identity had signed", self.name)
        self.recover()

    def own_fork(self) -> GraphForked | None:
        """Return the error that this identity signed two histories, None if nothing of that is known here."""
        proof = self.forks.get(self.identity.id.key)
        if proof is None:
            return None
        return GraphForked(
            f"{proof.describe()}: a copy of this store, or a restored one, has written as well; those who have the "
            "other history don't take what is made here. Go on with another identity",
            proof,
        )

    async def commit(self) -> None:
        """Sign and store all that was made here. When it returns, it survives the death of the machine.

        Raises `StoreError`, and `GraphForked` if another machine writes as this identity; what could not be signed or
        stored is kept, and the next commit tries again. Raises `RuleBroken` and `NotOwner` for edits of texts that
        became too much, or were revoked, before they were signed: they are taken back.
        """
        await self._commit()
        if self._refused is not None:
            refused, self._refused = self._refused, None
            raise refused

    async def _commit(self) -> None:
        async with self._lock:
            try:
                self.sign()
            finally:
                await self._save(synced=True)
                await self._rebuild()
            self._failure = None
            self._readers.stored()

    def sign(self) -> None:
        """Sign all that was made here, and leave storing it to the next `commit`, as which it raises."""
        self._check_open()
        if self._replica.recorder is not None:
            self._replica.recorder.committed()
        try:
            self._replica.write_edits()
        finally:
            self._unsigned += self._replica.take_frames()
            self._sign_frames()
            self._readers.signed()

    def _sign_frames(self) -> None:
        while self._unsigned:
            frame = self._unsigned[0]
            tip = self._chains.tip(frame.author)
            if frame.after != tip.clock:
                raise GraphForked(
                    "another machine writes as this identity, so what was made here is not signed; give each "
                    "machine an identity of its own"
                )
            made = envelopes.seal(self.identity, self.name, tip.sequence + 1, tip.hash, frame.body)
            self._chains.advance(made, frame.last)
            self._unsaved[made.author, made.sequence] = made
            del self._unsigned[0]

    @property
    def clock_ahead(self) -> float:
        """How far what is written now is dated ahead of this machine's clock, seconds; 0 if it isn't.

        It is dated after all that was seen here, so it is ahead when this clock was set back, or was ahead once.
        Others show what is more than a minute ahead of their clocks when it is due.
        """
        return max(0.0, seconds(self._replica.core.newest) - self._replica.clock.wall())

    def waits(self, author: bytes) -> int:
        """Return how many frames of an author are here and wait until they are due."""
        return self._replica.waiting_of(author)

    # ---- what others made -----------------------------------------------------------------------------------

    async def receive(self, data: Iterable[bytes], *, part: Part | None = None) -> int:
        """Take envelopes of others (or of the own key, from elsewhere); how many were new.

        Those whose predecessors are missing are put aside until they come (`gaps`). Raises `EnvelopeError` when one
        isn't genuine, and nothing was taken; `Equivocation`, `EnvelopeError`, `EncodingError`, `StateLimit` when one
        can't be taken, and those before it were; `StoreError`. `part` is what who sends them was asked for: what it
        skips is taken where that is what is here.
        """
        async with self._lock:
            self.check_writable()
            batch = [envelopes.decode(self.name, one) for one in data]
            self.check_skipped(batch, part)
            wrong = await loading.first_forged(batch)
            if wrong is not None:
                raise EnvelopeError(
                    f"envelope {wrong} is not signed by its author for graph {self.name!r}: it was changed, or is "
                    "of a graph of another name"
                )
            taken = 0
            self._replica.read_clock()
            try:
                for one in await self.admission.admit(batch):
                    taken += self._take(one)
            except Equivocation as error:
                self._chains.found.append(error.proof)
                raise
            finally:
                self._readers.received()
                await self._save(synced=False)
                for author in self._beyond.keys() & {one.author for one in batch}:
                    taken += await self._rejoin(author)
                await self._rebuild()
                while self._chains.found:
                    await self._keep_proof(self._chains.found[-1])
                    self._chains.found.pop()
            return taken

    async def _rejoin(self, author: bytes) -> int:
        """Go on with what was behind lost frames of an author that have come; return how many that had waited for it
        were taken."""
        taken = 0
        while (last := await self._run(self._store.rejoin, author)) is not None:
            self._chains.jump(author, loading.stored(self._store, last).head)
            if not any(one[0] == author for one in self._store.gaps()):
                del self._beyond[author]
            taken += self._take(self._chains.held_next(author))
            self._readers.received()
            await self._save(synced=False)
        return taken

    async def _keep_proof(self, proof: Proof) -> None:
        if proof.author not in self.forks:
            await self._run(self._store.add_proof, proof)
            self.forks[proof.author] = proof
            log.warning("%s", proof.describe())

    async def take_proof(self, first: bytes, second: bytes) -> None:
        """Keep a proof that an author signed two histories; one of an author of whom nothing is here is left.

        Raises `EnvelopeError` if it proves nothing.
        """
        self.check_writable()
        proof = Proof(envelopes.decode(self.name, first), envelopes.decode(self.name, second))
        if proof.author in self.forks or proof.author not in self._chains.heads:
            return
        if not await self._run(proof.is_valid):
            raise EnvelopeError("two envelopes that are said to contradict each other don't")
        async with self._lock:
            self._check_open()
            await self._keep_proof(proof)

    def _followed(self) -> None:
        """Another program may have stored something: told by a thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed already
            self._loop.call_soon_threadsafe(self._take_news_soon)

    def _take_news_soon(self) -> None:
        if self._news is None and not self._closed:
            self._news = start_task(self._take_news(), name="dtp-graph-news", loop=self._loop)

    async def _take_news(self) -> None:
        try:
            await self.admission.reload()
            found = await self._run(self._store.news)
            self._news = None  # what is told from here on may not be in it
            if found:
                await self.receive(found)
        except DtpError as error:
            self._news = None
            if not self._closed:  # it is in the store, and the next that opens it hears of it again
                context = {"message": "what another program stored could not be taken", "exception": error}
                self._loop.call_exception_handler(context)

    def _take(self, envelope: Envelope | Summary | None) -> int:
        """Merge it, and those that waited for it."""
        taken = 0
        while envelope is not None and self._chains.is_next(envelope):
            changed = loading.merge(self._replica, envelope)
            is_skipped = isinstance(envelope, Skipped)
            self._chains.advance(envelope, 0 if is_skipped else self._replica.core.covered[1])
            self._unsaved[envelope.author, envelope.sequence] = envelope
            self.admission.took(envelope)
            taken += 1
            if changed:
                self._offer(is_local=False)
            envelope = self._chains.held_next(envelope.author)
        self._wait_for_due()
        return taken

    def _wait_for_due(self) -> None:
        """Frames from the future are applied when their time has come; the wall clock may be set meanwhile."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if waiting := self._replica.core.waiting:
            pause = min(max(0.01, self._replica.clock.until(waiting)), _LOOK_AGAIN)
            self._timer = self._loop.call_later(pause, self._apply_due)

    def _apply_due(self) -> None:
        self._timer, is_due = None, False
        for changed in self._replica.due():
            is_due = True
            if changed:
                self._offer(is_local=False)
        self._readers.received()
        self._wait_for_due()
        if is_due:
            self._tell()  # there may be room again for frames that are due later
        if self._replica.must_rebuild and self._flush is None:
            self._flush = start_task(self._flush_soon(), name="dtp-graph-flush", loop=self._loop)

    async def _rebuild(self) -> None:
        """Take all frames again when what was let in is void now, or builds on text that was forgotten here."""
        await self.admission.refresh()
        while self._replica.must_rebuild:
            try:
                self.sign()
            except (NotOwner, RuleBroken) as error:  # those edits are lost, and who commits next hears of it
                self._refused = error
                self.sign()
            version = self._replica.version
            await self._save(synced=True)
            fresh, whole = (
                self._replica.fresh(),
                self._replica.sequences.stale or self._replica.access.is_outdated,
            )
            fresh = await self._run(partial(loading.rebuilt, whole=whole), self._store, fresh)
            if self._replica.version != version:  # something was made meanwhile
                continue
            changes = access.differences(self._replica, fresh)
            self._replica.become(fresh)
            self._since_state += 1  # what was kept is as before
            self._tell_rebuilt(changes)
        cards = self._replica.access.accounts.version
        if cards != self._cards and self._replica.refusal is None:
            from dtp.graph.private import renew_all

            self._cards = cards
            renew_all(self)

    # ---- who may write --------------------------------------------------------------------------------------

    def grant(self, peer: PeerId | str | bytes, path: str = "", *, until: float | None = None) -> Grant:
        """Let somebody write at `own(path)` and below it, until a time (seconds since 1970) or for good.

        Its graph finds the grant once it has come there, and uses it when it writes. It is never for rings of private
        nodes and the static key, without which what is sealed is lost. Raises `GraphError`.
        """
        return access.grant(self, peer, path, until)

    def revoke(self, grant: Grant) -> None:
        """Take back a grant of one's own. What the other made up to what has come here stays; all else is void on
        all replicas, whenever they saw it. Raises `GraphError`."""
        access.revoke(self, grant, self._last_taken(grant.grantee))

    def _last_taken(self, author: bytes) -> int:
        """The clock of what is here last of an author. Raises `GraphPartial` where that isn't known."""
        tip = self._chains.tip(author)
        if tip.sequence and not tip.clock:
            self.check_whole("revoking")
        return tip.clock

    def grants(self) -> _Grants:
        """One's own grants that aren't revoked."""
        return access.grants(self)

    @property
    def accounts(self) -> Accounts:
        """The accounts whose devices write in this graph."""
        return Accounts(self, self._last_taken)

    def allow(self, rules: Rules) -> Rules:
        """Let nodes be made under these rules (`rules.soul(path)`); the first op takes them into the graph."""
        self._replica.permits.rules[rules.root] = rules
        return rules

    def private(self, place: str, readers: Iterable[PeerId | str | bytes] | None = None) -> PrivateNode:
        """A node that only named readers can read: at a path of one's own, or, by its soul, another's.

        Queries see what it says from then on. With `readers` it is made if it isn't there; the owner is always one.
        They publish their static keys in this graph first (`publish_key`). Raises `ReaderUnknown`, and `GraphError`
        for `readers` of another's node.
        """
        from dtp.graph.private import private

        node = private(self, place, readers)
        self.check_here(node.soul)
        if node.soul not in self._private:
            self._note([Change(node.soul, "", "register", self.identity.id.key, 0)])
        return self._private.setdefault(node.soul, node)

    def publish_key(self) -> None:
        """Let others seal private nodes to this identity: its static key, with its proof, at its own soul."""
        from dtp.graph.private import publish_key

        publish_key(self)

    async def offences(self) -> _Offences:
        """Proofs that authors signed what the rules of a kind of node forbid: the first of each, for each kind."""
        await self.commit()
        return await access.offences(self)

    # ---- what is known of whom ------------------------------------------------------------------------------

    def vector(self) -> dict[bytes, int]:
        """Return author (public key) -> the last sequence that is stored here."""
        return {author: head.sequence for author, head in self.heads().items()}

    def heads(self) -> Vector:
        """Return author (public key) -> the end of its chain as it is stored here."""
        found = self._chains.heads | self._beyond
        for one in reversed(self._unsaved.values()):
            found[one.author] = Head(one.first - 1, one.previous[:MARK])
        return {
            author: head
            for author, head in found.items()
            if head.sequence and author not in self._store.hidden
        }

    async def read(self, author: bytes, first: int, last: int) -> _Encoded:
        """Return the stored envelopes of an author from one sequence to another."""
        return await self.read_parts([(author, first, last)])

    async def read_parts(self, parts: Iterable[tuple[bytes, int, int]]) -> _Encoded:
        """Return the stored envelopes of each (author, first sequence, last), one part behind the other."""
        self._check_open()
        return await self._run(lambda: [one for part in parts for one in self._store.read(*part)])

    async def read_over(self, author: bytes, last: int) -> _Encoded:
        """Return the stored summary that stands for an author's frame and for some behind it, if there is one."""
        found = await self._run(self._store.covering, author, last)
        one = None if found is None else loading.stored(self._store, found)
        return [one.encode()] if one is not None and one.first <= last < one.sequence else []

    async def stored_bytes(self, author: bytes, first: int, last: int) -> int:
        """Bytes of what `read` would give."""
        self._check_open()
        return await self._run(self._store.size, author, first, last)

    def gaps(self) -> _Gaps:
        """What is known to be missing: (author, first, last). With `history` also what came only summed up."""
        gaps = self._store.gaps() + self._chains.gaps()
        return sorted(one for one in gaps if one[0] not in self._store.hidden)

    def lost(self) -> _Gaps:
        """What damage took of the stored frames, as far as it is known: (author, first, last)."""
        return self._store.gaps()

    async def proofs(self) -> _Proofs:
        """Proofs that authors signed two histories."""
        return await self._run(loading.proofs, self._store)

    def listen(self, on_stored: Callable[[], None]) -> Callable[[], None]:
        """Have `on_stored` called when frames were stored and when the graph is closed; gives what ends that."""
        self._listeners.add(on_stored)
        return lambda: self._listeners.discard(on_stored)

    def _tell(self) -> None:
        for listener in list(self._listeners):
            listener()

    # ---- what is stored -------------------------------------------------------------------------------------

    async def verify(self, *, repair: bool = False) -> int:
        """Check all that is stored: signatures, chains, frames; how many envelopes. `StoreError` at a fault.

        With `repair` a store with a fault is written anew without it first. `damage` tells what was found, `gaps`
        what is missing then, and a sync with a peer brings it.
        """
        async with self._lock:
            if repair:
                self.check_writable()
            self._check_open()
            before = self.damage
            try:
                count = await self._run(verify, self._store)
                if self.damage is not before:
                    self._look_again()
                return count
            except StoreError:
                if self.damage is before:  # else it was mended while it was read
                    if not repair:
                        raise
                    await self._run(self._store.mend)
                self._look_again()
                return await self._run(verify, self._store)

    # ---- the store ------------------------------------------------------------------------------------------

    def _run(self, function: Callable[..., _T], *arguments: Any) -> asyncio.Future[_T]:
        return self._loop.run_in_executor(self._worker, function, *arguments)

    def stored(self, author: bytes, sequence: int) -> Envelope | Summary | None:
        """What is here that an author signed and ends with this sequence."""
        unsaved = self._unsaved.get((author, sequence))
        if unsaved is not None:
            return unsaved
        found = self._store.read(author, sequence, sequence)
        return loading.stored(self._store, found[0]) if found else None

    def _standing(self, author: bytes, sequence: int) -> Envelope | Summary | None:
        """What is here that stands for an author's frame."""
        found = self._store.covering(author, sequence)
        if found is not None:
            return loading.stored(self._store, found)
        mine = (one for one in self._unsaved.values() if one.author == author and one.sequence >= sequence)
        return self._unsaved.get((author, sequence)) or next(mine, None)

    def _last_clock(self, envelope: Envelope | Summary) -> int:
        return last_clock(self._replica.core, envelope)

    async def _save(self, *, synced: bool) -> None:
        """Store what isn't yet. What fails stays, for the next time."""
        told = bool(self._unsaved)
        while self._unsaved:
            some = [one for one, _ in zip(self._unsaved.values(), range(_AT_ONCE), strict=False)]
            await self._run(partial(self._store.add, some, synced=synced))
            self._witness(some)
            for one in some:
                del self._unsaved[one.author, one.sequence]
                self._since_state += (
                    len(one.body) + envelopes.OVERHEAD
                )  # reading many small ones takes time, too
            if self._pruner is not None:
                self._pruner.grew(sum(len(one.encode()) for one in some))
        if told:
            self._tell()
            await self._save_state()

    async def replace_stored(self, parts: list[Envelope | Summary]) -> int:
        """Put parts, from an author's first frame on and without gaps, in the place of the frames that they stand
        for; how many were dropped, 0 where the store can't."""
        async with self._lock:
            self.check_writable()
            dropped = await self._run(self._store.replace, parts)
            self.admission.recount(parts[0].author)
            return dropped

    async def shrink(self) -> None:
        """Give back the room of what was dropped."""
        async with self._lock:
            await self._run(self._store.shrink)

    @contextlib.asynccontextmanager
    async def held(self) -> AsyncIterator[Replica]:
        """The replica, while nothing else is signed, taken or stored."""
        async with self._lock:
            self._check_open()
            yield self._replica

    def outgrew(self, size: int) -> None:
        """Note that the state which is kept is so much older."""
        self._since_state += size

    def _witness(self, stored: list[Envelope | Summary]) -> None:
        own = [one.sequence for one in stored if one.author == self.identity.id.key]
        if own and self.behind is None:
            self._store.witness(self.identity.id.key, own[-1])

    async def _save_state(self, *, always: bool = False) -> None:
        if not self._since_state or not (always or self._since_state > self._state_every):
            return
        if self._unsaved or self._unsigned or self._replica.must_rebuild:
            return
        try:
            state = self._replica.save()
        except StateLimit:  # something was made meanwhile: after its commit
            return
        self._since_state = 0
        self._state_every = min(_STATE_MOST, max(_STATE_LEAST, len(state)))
        await self._run(self._store.save_state, state)


# `Graph` has a method of this name.
_Souls = list[str]
_Encoded = list[bytes]
_Gaps = list[tuple[bytes, int, int]]
_Proofs = list[Proof]
_Grants = list[Grant]
_Offences = list[access.OffenceProof]
