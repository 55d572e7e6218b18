"""A graph: what a program holds. One replica, the store it is kept in, and whoever watches it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dtp.crdt import Change, Clock, Replica, Value
from dtp.crdt.clock import clock_seconds
from dtp.crdt.replica import SPACES
from dtp.crdt.sequences import Name
from dtp.errors import DtpError
from dtp.graph.blobs.blobs import Blobs
from dtp.graph.blobs.store import BlobStore
from dtp.graph.committing import CommitParts, Commits
from dtp.graph.contents import CLOSED, READ_ONLY, Contents
from dtp.graph.errors import GraphBehind, GraphError, GraphForked, GraphReadOnly, StoreError
from dtp.graph.formats.carrying import Files
from dtp.graph.frames import envelope as envelopes
from dtp.graph.frames.envelope import Envelope, Summary
from dtp.graph.frames.proving import Proof
from dtp.graph.intake import Intake, IntakeParts
from dtp.graph.past.looking import History
from dtp.graph.past.resigning import recover_from
from dtp.graph.permission import access, admission
from dtp.graph.permission.accounts import Accounts
from dtp.graph.permission.admission import Admission
from dtp.graph.permission.granting import Access
from dtp.graph.permission.policy import read_policy
from dtp.graph.permission.private import private, renew_all
from dtp.graph.presence.presence import Presence
from dtp.graph.stores import loading
from dtp.graph.stores.kept import KeptFrames
from dtp.graph.stores.store import Damage, Store
from dtp.graph.stores.verifying import verify
from dtp.graph.sync.passing import Offering, Passed
from dtp.graph.upkeep import deleting
from dtp.graph.upkeep.pruning import Pruner
from dtp.graph.upkeep.upkeep import Upkeep
from dtp.identity import Identity, PeerId
from dtp.unicode import encode_text

if TYPE_CHECKING:
    from dtp.graph.past.resigning import Resigned
    from dtp.graph.permission.private import PrivateNode
    from dtp.graph.sync.keeping import Connect
    from dtp.graph.sync.messages import Exchanged
    from dtp.graph.sync.part import Part
    from dtp.net.connection import Connection

log = logging.getLogger("dtp.graph")


class Graph(Contents):
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
        ends: loading.Ends,
        *,
        history: bool = False,
        read_only: bool = False,
        prune: bool = False,
    ) -> None:
        """Hold what was loaded from a store, as `open` does."""
        super().__init__(identity, replica)
        self.name = store.name
        #: Whether peers are asked for every frame; else what was overwritten meanwhile may be left out.
        self.keeps_history = history
        #: Peer (public key) -> `vector.digest` of what both had when they last synced.
        self.agreed: dict[bytes, bytes] = {}
        #: What it passes on of authors who may be away, and when it sums up its own.
        self.passed = Passed(store.passed_folder, store.name)
        self.offering = Offering()
        #: Whether it is only read: what would change it raises `GraphReadOnly`.
        self.read_only = read_only
        self.frames = KeptFrames(store, lambda: self._replica, self.check_open, ends, whole=history)
        #: Raised by all changes while what this identity signed may not be all here; else None.
        self.behind: GraphBehind | None = None
        self._set_behind(ends.behind)
        self._pruner = Pruner(self) if prune else None
        self._lock = asyncio.Lock()
        self._listeners: set[Callable[[], None]] = set()
        #: Author (public key) -> the proof that it signed two histories, as far as is known here.
        self.forks: dict[bytes, Proof] = {proof.author: proof for proof in ends.proofs}
        self._cards = 0  # of accounts, and words about devices, that were looked at
        #: Files beside it.
        self.blobs = Blobs(self, BlobStore(store.blob_folder, scratch=store.forgets))
        #: What carries it without a connection.
        self.files = Files(self)
        #: What it was.
        self.history = History(self)
        #: What keeps it small.
        self.upkeep = Upkeep(self)
        #: Who may write, and by what rules.
        self.access = Access(self, self._last_taken)
        self._presence: Presence | None = None
        frames, tell = self.frames, self._notify_listeners
        inside = admission.AdmissionParts(frames.ask_store, lambda: frames.chains, tell, self._lock)
        #: Whom it takes in: bans, purges, quotas, and what was refused.
        self.admission = Admission(self, store, inside)
        #: What was made here, until it is stored.
        self.commits = Commits(
            self,
            CommitParts(self._lock, self._readers, self._rebuild_state, tell, self._pruner),
        )
        replica.on_made = self._on_made
        replica.on_edited = self._on_edited
        #: What others made comes in by it.
        self.intake = Intake(
            self,
            IntakeParts(
                self._lock,
                self._readers,
                self.commits.save_frames,
                self._rebuild_state,
                self._notify_readers,
                self._notify_listeners,
                self.commits.commit_later,
            ),
        )
        self.intake.wait_for_due()
        store.watch_news(self.intake.on_store_changed)
        store.watch_damage(self.intake.on_damage_found)

    async def look_again(self) -> None:
        """Read anew how far each author's chain is here; with the lock."""
        ends = await self.frames.ask_store(loading.read_ends, self.frames.store, self.identity)
        self.frames.set_ends(ends)
        self._set_behind(ends.behind)

    def _replace_replica(self, fresh: Replica) -> list[Change]:  # what is different
        changes = access.owned_changes(self._replica, fresh)
        self._replica.replace_by(fresh)
        self.admission.note_memory_released()
        self.intake.wait_for_due()
        return changes

    def _set_behind(self, why: GraphBehind | None) -> None:
        self.behind = why
        self._replica.refusal = GraphReadOnly(READ_ONLY) if self.read_only else self.behind

    # ---- opening and closing --------------------------------------------------------------------------------

    @classmethod
    async def open(
        cls,
        place: str | Store,
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
        """Return the graph kept at `place`: the path of a SQLite file, made if need be, `memory:`, a `postgresql://`
        URL, or a `Store` of `dtp.graph.stores`, which it closes.

        In PostgreSQL (`pip install 'dtp-sockets[graph-postgres]'`) several programs share a graph, each as an
        identity of its own; what one stores the others have at once. Blobs are kept
        in the folder `blobs`, by default one beside the file.

        `name` (at most 255 bytes; that of the file, else "") is signed with every frame: graphs of different names
        don't mix. With `history` peers are asked for all that ever was, and nothing else is taken: what comes summed
        up by its author is left, and `gaps` tells what is missing until a peer comes that has the frames. Else peers
        may leave out what was overwritten while this graph was away. What is stored summed up stays so: where it
        matters, as in votes, begin with `history`, and all programs that share a store.

        With `prune` frames of which nothing counts any more are dropped as the store grows (`Graph.upkeep.prune`): it
        stays in proportion to what stands then. It can't be had with `history`.

        With `part` only a part of the graph is asked of peers, and kept: `Part(prefixes=["note/"])`. It can be larger
        the next time, or with `grow`; what isn't in it raises `GraphPartial` when it is read. docs/partial.md.

        With `read_only` it is opened beside the program that has it, which isn't held up, and shows what was stored
        then; open it again for what came since. The file isn't written to, and `GraphReadOnly` is raised by what
        would change it or exchange it with peers. Raises `StoreError`, `GraphError`.
        """
        if name is not None and len(encode_text(name, "a graph's name", GraphError)) > envelopes.MAX_NAME:
            raise GraphError(f"a graph's name has at most {envelopes.MAX_NAME} bytes of UTF-8")
        if prune and (history or read_only):
            raise GraphError("a graph that keeps its history, or is only read, can't be pruned")
        if part is not None and (history or read_only):
            raise GraphError(
                "`part` goes neither with `history`, which takes all of a graph, nor with `read_only`"
            )
        opened = partial(loading.open_store, place, name, identity.id.key, read_only=read_only)
        store: Store = await asyncio.to_thread(opened)
        if blobs is not None:
            store.blob_folder = Path(blobs)
        try:
            store.hidden = frozenset((await asyncio.to_thread(read_policy, store)).hidden)
            part = await asyncio.to_thread(loading.settle_part, store, part, identity.id.key)
            replica = await asyncio.to_thread(loading.load_replica, store, identity, clock)
            ends = await asyncio.to_thread(loading.read_ends, store, identity)
            graph = cls(identity, store, replica, ends, history=history, read_only=read_only, prune=prune)
            graph.show_part(part)
            await graph.frames.load_own_end(identity.id.key)
            store.on_loaded()
            return graph
        except BaseException:
            store.close()
            raise

    async def close(self) -> None:
        """Commit, keep the state, let go of the store; watches end. Idempotent. Raises what `commit` does."""
        if self._closed:
            return
        try:
            if self._pruner is not None:
                await self._pruner.close()
            await self.commits.commit()
            async with self._lock:
                await self.admission.close()
                await self.commits.save_state(always=True)
        finally:
            self._closed = True
            self._replica.refusal = GraphError(CLOSED)
            self.intake.close()
            self._readers.close()
            self._replica.sequences.end_changes()
            await self._queries.close()
            await self.frames.close()
            await asyncio.to_thread(self.blobs.store.close)
            self._notify_listeners()
        self.commits.raise_if_forked()

    async def __aenter__(self) -> Graph:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # ---- what was made here ---------------------------------------------------------------------------------

    def _on_made(self) -> None:
        self._notify_readers(is_local=True)
        self.commits.commit_later()

    def _on_edited(self, name: Name) -> None:
        """Note that a text or a list was written; who watches hears of it when it becomes an op."""
        space, soul, key = name
        self._update_indexes([Change(soul, key, SPACES[space], self.identity.id.key, 0)])
        self.commits.commit_later()

    @property
    def failed(self) -> DtpError | None:
        """Why the last commit in the background failed, None if it didn't.

        The loop's exception handler hears of it, too, once until it is another reason or a commit succeeds. What it
        could not sign and store is kept in memory, and each `commit` tries again and raises what is still wrong; so
        does all that begins with one, such as `sync` and `close`. Edits of texts that were refused
        (`NotOwner`, `RuleBroken`) are gone: the next `commit` raises that, once. `GraphForked` when it became known
        that this identity signed two histories; `sync` raises that, too, once all that can be exchanged is, and so
        does each `commit` that stores something more.
        """
        return self.commits.failed or self.own_fork() or self.behind

    @property
    def damage(self) -> Damage | None:
        """What was found damaged in the store, and mended, since it was opened; None if nothing was. `gaps` tells
        what is missing since, until a sync with a peer brings it."""
        return self.frames.store.damage

    async def recover(self) -> None:
        """Let this store go on for its identity, though it was copied or restored: no other one has more of what this
        identity signed, or ever will. A store that a peer can bring up to date needs only a `sync`.

        Where damage took frames from the middle of what this identity signed, those behind them are signed again, and
        what was in the lost ones is gone. Raises `GraphBehind` if that can't be.
        """
        self.check_writable()
        async with self._lock:
            if self.behind is None:
                return
            tip = self.frames.chains.get_tip(self.identity.id.key)
            await self.frames.ask_store(loading.adopt_store, self.frames.store, self.identity, tip)
            # what the kept state had of lost frames nobody else will ever have
            fresh = self._replica.empty_copy()
            await self.frames.ask_store(loading.merge_all_stored, self.frames.store, fresh)
            self._tell_rebuilt(self._replace_replica(fresh))
            await self.look_again()
            self._replica.take_back_seen()  # others' frames may be lost that had been seen

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
        whose = self.identity.id.key if author is None else access.key_of(author)
        return await recover_from(self, source, whose)

    async def grow(self, part: Part) -> None:
        """Have a larger part here from now on, which has all of the one before. `sync` brings what it has more.

        Until then it has less: of each author what is behind the first frame that was skipped goes, to come again.
        Live replication ends; `keep_replicating` begins anew by itself. Raises `GraphError`.
        """
        self.check_writable()
        await self.commits.commit()
        async with self._lock:
            store, own = self.frames.store, self.identity.id.key
            self.show_part(await self.frames.ask_store(loading.settle_part, store, part, own))
            fresh = self._replica.empty_copy()
            await self.frames.ask_store(loading.merge_all_stored, self.frames.store, fresh)
            changes = self._replace_replica(fresh)
            await self.look_again()
            self.agreed.clear()
        self._tell_rebuilt(changes)
        self._notify_listeners()

    async def caught_up(self) -> None:
        """Sign again, as a peer that knows this identity has told all that it has of it; not if more was signed here:
        others may have that."""
        own = self.identity.id.key
        if self.behind is None or own in self.frames.beyond:
            return
        signed = await self.frames.ask_store(self.frames.store.count_signed, own)
        if signed > self.frames.last_of(own):
            why = await self.frames.ask_store(loading.why_behind, self.frames.store, self.identity)
            self._set_behind(why)
            return
        log.info("graph %r signs again: a peer knew all that its identity had signed", self.name)
        await self.recover()

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
        stored is kept, and the next commit tries again. Where it is known that this identity signed two histories,
        what was made since the last commit is signed and stored, and `GraphForked` with its `proof` is raised then.
        Raises `RuleBroken` and `NotOwner` for edits of texts that became too much, or were revoked, before they were
        signed: they are taken back.
        """
        await self.commits.commit()
        self.commits.raise_if_forked()

    def sign(self) -> None:
        """Sign all that was made here, and leave storing it to the next `commit`, as which it raises."""
        self.commits.sign()

    @property
    def clock_ahead(self) -> float:
        """How far what is written now is dated ahead of this machine's clock, seconds; 0 if it isn't.

        It is dated after all that was seen here, so it is ahead when this clock was set back, or was ahead once.
        Others show what is more than a minute ahead of their clocks when it is due.
        """
        return max(0.0, clock_seconds(self._replica.core.newest_clock) - self._replica.clock.wall())

    def waiting_frames(self, author: bytes) -> int:
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
        return await self.intake.receive(data, part)

    async def take_proof(self, first: bytes, second: bytes) -> None:
        """Keep a proof that an author signed two histories; one of an author of whom nothing is here is left.

        Raises `EnvelopeError` if it proves nothing.
        """
        await self.intake.take_proof(first, second)

    async def _rebuild_state(self) -> None:
        """Take all frames again when what was let in is void now, or builds on text that was forgotten here."""
        await self.admission.apply_bans()
        while self._replica.must_rebuild:
            self.commits.sign_what_counts()
            version = self._replica.version
            await self.commits.save_frames(synced=True)
            whole = self._replica.sequences.stale or self._replica.access.is_outdated
            rebuild = partial(loading.rebuild_replica, whole=whole)
            fresh = await self.frames.ask_store(rebuild, self.frames.store, self._replica.empty_copy())
            if self._replica.version != version:  # something was made meanwhile
                continue
            changes = self._replace_replica(fresh)
            self.commits.note_taken(1)  # what was kept is as before
            self._tell_rebuilt(changes)
        cards = self._replica.access.accounts.version
        if cards != self._cards and self._replica.refusal is None:
            self._cards = cards
            renew_all(self)

    # ---- who may write --------------------------------------------------------------------------------------

    def _last_taken(self, author: bytes) -> int:
        """Return the clock of what is here last of an author. Raises `GraphPartial` where that isn't known."""
        tip = self.frames.chains.get_tip(author)
        if tip.sequence and not tip.clock:
            self.check_whole("revoking")
        return tip.clock

    @property
    def accounts(self) -> Accounts:
        """The accounts whose devices write in this graph."""
        return Accounts(self, self._last_taken)

    def private(self, place: str, readers: Iterable[PeerId | str | bytes] | None = None) -> PrivateNode:
        """Return a node that only named readers can read: at a path of one's own, or, by its soul, another's.

        Queries see what it says from then on. With `readers` it is made if it isn't there; the owner is always one.
        They publish their static keys in this graph first (`publish_key`). Raises `ReaderUnknown`, and `GraphError`
        for `readers` of another's node.
        """
        node = private(self, place, readers)
        self.check_here(node.soul)
        if node.soul not in self._private:
            self._update_indexes([Change(node.soul, "", "register", self.identity.id.key, 0)])
        return self._private.setdefault(node.soul, node)

    # ---- what it holds -----------------------------------------------------------------------------------------

    def delete(self, soul: str) -> bool:
        """Delete a node: all that is at its soul, of every type; return whether there was anything.

        Whole or not at all, and a change like any other: what others write there at the same time stays. Links to it
        stay, too. Raises `NotOwner`, `RuleBroken`.
        """
        return deleting.delete(self, soul)

    # ---- over connections ----------------------------------------------------------------------------------------

    @property
    def presence(self) -> Presence:
        """Return who has the graph open, and where they are: states that are told over connections, never stored."""
        if self._presence is None:
            self._presence = Presence(self)
        return self._presence

    async def sync(self, connection: Connection) -> Exchanged:
        """Bring both ends of a connection to the same; the other end must `serve` it.

        When it returns, each has stored all that the other had when it began. Raises `SyncError` and what ends
        connections and streams; what came until then is kept, and the next sync goes on from there.
        """
        self.check_writable()
        from dtp.graph.sync.replicating import sync

        return await sync(self, connection)

    async def replicate(self, connection: Connection, *, blobs: bool = False) -> None:
        """Sync, and go on with all that is stored at either end, until the connection or the graph is closed. With
        `blobs` those come, too, to which values here refer (`blobs.follow`)."""
        from dtp.graph.sync.replicating import replicate

        self.check_writable()
        await replicate(self, connection, blobs=blobs)

    async def keep_replicating(self, connect: Connect, *, blobs: bool = False) -> None:
        """Replicate over one connection after the other, until the graph is closed; pauses between them grow to a
        minute: `graph.keep_replicating(lambda: dtp.connect(address, identity=me))`, as a task of the program's.

        Raises a `LocalError`, which trying again won't mend.
        """
        self.check_writable()
        from dtp.graph.sync.keeping import keep_replicating

        await keep_replicating(self, connect, blobs=blobs)

    async def serve(
        self,
        connection: Connection,
        *,
        part: Part | None = None,
        read_only: bool = False,
        queries: bool = False,
    ) -> None:
        """Answer the other end's `sync` and `replicate`, until the connection or the graph is closed.

        With `part` it is given nothing else: it has to ask for that part, or less (`Graph.open`). Frames go whole, so
        what their authors committed together goes together. With `read_only` nothing is taken from it.
        With `queries` it may `ask`, within `query_budget`; not with `part`, since answers tell of all.
        """
        self.check_writable()
        from dtp.graph.sync.replicating import PeerServing, serve

        await serve(self, connection, PeerServing(part, not read_only, queries))

    async def ask(self, connection: Connection, text: str, **parameters: Value) -> Part:
        """Return the nodes that a query finds at a peer, which serves `queries`, as a part to `grow` by.

        They are what the peer says: names, which nothing proves to be all. What is found later isn't in it; ask
        again. Raises `QueryError` where the peer doesn't answer, `SyncError`, and what ends connections and streams.
        """
        self.check_open()
        from dtp.graph.sync.asking import ask

        return await ask(self, connection, text, parameters)

    def listen(self, on_stored: Callable[[], None]) -> Callable[[], None]:
        """Have `on_stored` called when frames were stored and when the graph is closed; gives what ends that."""
        self._listeners.add(on_stored)
        return lambda: self._listeners.discard(on_stored)

    def _notify_listeners(self) -> None:
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
            self.check_open()
            before = self.damage
            try:
                count = await self.frames.ask_store(verify, self.frames.store)
                if self.damage is not before:
                    await self.look_again()
                return count
            except StoreError:
                if self.damage is before:  # else it was mended while it was read
                    if not repair:
                        raise
                    await self.frames.ask_store(self.frames.store.rewrite_file)
                await self.look_again()
                return await self.frames.ask_store(verify, self.frames.store)

    # ---- the store ------------------------------------------------------------------------------------------

    async def replace_stored(self, parts: list[Envelope | Summary]) -> int:
        """Put parts, from an author's first frame on and without gaps, in the place of the frames that they stand
        for; how many were dropped, 0 where the store can't."""
        async with self._lock:
            self.check_writable()
            dropped = await self.frames.ask_store(self.frames.store.replace_frames, parts)
            self.admission.count_author_again(parts[0].author)
            return dropped

    async def shrink(self) -> None:
        """Give back the room of what was dropped."""
        async with self._lock:
            await self.frames.ask_store(self.frames.store.release_space)

    @contextlib.asynccontextmanager
    async def hold_replica(self) -> AsyncIterator[Replica]:
        """Give the replica, while nothing else is signed, taken or stored."""
        async with self._lock:
            self.check_open()
            yield self._replica
