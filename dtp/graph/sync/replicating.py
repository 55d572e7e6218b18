"""Graphs over connections: one stream carries the messages of `dtp.graph.sync.protocol`, each behind its length."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Final, NamedTuple

from dtp.core import crdt as core
from dtp.core.errors import StateLimit
from dtp.crdt.permission.owners import owner_name
from dtp.errors import PeerError
from dtp.graph.blobs import fetching
from dtp.graph.errors import Equivocation, GraphError, HistoryUnclear, SyncError
from dtp.graph.frames import envelope as envelopes
from dtp.graph.frames import summaries, vector
from dtp.graph.frames.proving import Proof
from dtp.graph.presence import links
from dtp.graph.sync import asking, passing, protocol
from dtp.graph.sync.choosing import Choosing, SyncTerms, chosen
from dtp.graph.sync.messages import Exchanged, SyncMessages, read_message
from dtp.graph.sync.offers import SummaryOffers
from dtp.graph.sync.refusals import RefusedAuthors
from dtp.session.codes import ConnectionClosed, StreamReset
from dtp.tasks import start_task

if TYPE_CHECKING:
    from dtp.graph.frames.envelope import Envelope, Summary
    from dtp.graph.frames.vector import Vector
    from dtp.graph.graph import Graph
    from dtp.graph.sync.part import Part
    from dtp.net.connection import Connection
    from dtp.net.stream import Stream

log = logging.getLogger("dtp.graph")

#: Of how many peers it is remembered what both had.
_PEERS: Final = 1024
#: The code that a stream is reset with when the other end broke the protocol.
BROKEN: Final = 1


class PeerServing(NamedTuple):
    """What a side does for a peer."""

    #: The part that it gives; None: all that is here.
    gives: Part | None = None
    #: Whether it takes what the peer has.
    takes: bool = True
    #: Whether it answers queries.
    queries: bool = False


#: What a side does that wasn't told otherwise.
EVERYTHING: Final = PeerServing()


class _Session:
    """One stream between two graphs. `live` goes on when both have all."""

    def __init__(
        self,
        graph: Graph,
        stream: Stream,
        *,
        live: bool,
        first: bytes | None = None,
        serving: PeerServing = EVERYTHING,
        without: frozenset[bytes] = frozenset(),
        exchanged: Exchanged | None = None,
    ) -> None:
        self._graph = graph
        self._stream = stream
        self._live = live
        self._terms = terms = SyncTerms(
            graph.part, graph.part if serving.gives is None else serving.gives, serving.takes
        )
        self._is_limit = serving.gives is not None
        self._side = protocol.SyncSide(graph.name, history=graph.admission.wants_frames, terms=terms)
        self._wake = asyncio.Event()
        self._peer = stream.connection.peer.key
        self._own = graph.identity.id.key
        #: Frames of the own identity that were here when this began; the peer knows no fewer if it knows them.
        self._owned = graph.frames.heads().get(self._own, vector.Head(0, b"")).sequence
        self._is_known = False
        self._asked_for: set[tuple[bytes, int, int]] = set()  # of what was lost here
        self._is_refused = False  # the peer takes nothing of this identity
        self._messages = SyncMessages(stream, Exchanged() if exchanged is None else exchanged, first)
        self._refused = RefusedAuthors(without)
        self._offers = SummaryOffers(graph, self._side, self._messages, terms, self._peer)

    @property
    def exchanged(self) -> Exchanged:
        """What went over the stream."""
        return self._messages.exchanged

    async def run(self) -> Exchanged:
        """Sync until both have all, or, if `live`, until the stream or the graph ends; return what was exchanged."""
        forget = self._graph.listen(self._wake.set)
        tasks: set[asyncio.Future[None]] = set()
        try:
            await self._graph.commits.commit()  # what was made just now is part of what there is
            agreed = self._graph.agreed.get(self._peer)
            await self._messages.send_message(self._side.start(self._graph.frames.heads(), agreed=agreed))
            self._tell_refused()
            proof = self._graph.forks.get(self._peer)
            if proof is not None:
                await self._send_proof(proof)
            tasks = {
                start_task(self._receive_on(), name="dtp-sync-receive"),
                start_task(self._send_on(), name="dtp-sync-send"),
            }
            pending = tasks
            while pending:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
                if self._live:
                    break
        except StreamReset as error:
            if error.error_code == BROKEN:
                raise SyncError(
                    "the peer ended the sync because of what this side sent; it tells its own log why. Mostly its "
                    f"graph has another name than {self._graph.name!r}, or it is another version"
                ) from error
            raise
        except PeerError:
            self._stream.reset(BROKEN)
            raise
        finally:
            forget()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._save_heads()
        return self.exchanged

    def _save_heads(self) -> None:
        """Keep what both have now, for the next time."""
        ours, agreed = self._graph.frames.heads(), self._graph.agreed
        if self._side.is_in_sync(ours, self._graph.admission.unwanted):
            agreed.pop(self._peer, None)
            agreed[self._peer] = vector.digest(ours)
            self._offers.note_taken()
            if len(agreed) > _PEERS:
                del agreed[next(iter(agreed))]

    # ---- sending ------------------------------------------------------------------------------------------------

    async def _send_on(self) -> None:
        said_done = False
        while not self._graph.closed:
            await self._wake.wait()
            self._wake.clear()
            if self._graph.closed or not self._side.knows_peer:
                continue
            await self._ask_again()
            self._ask_for_lost()
            self._tell_refused()
            await self._send_missing()
            if self._terms.part != self._graph.part:
                return  # it has grown: what is asked for is another
            if self._terms.is_whole and self._side.theirs.is_whole and self._side.theirs.takes:
                await self._offers.offer_summaries()
            if not said_done:
                await self._messages.send_message(self._side.encode_done())
                said_done = True
            if not self._live:
                return

    async def _ask_again(self) -> None:
        for author in [
            one for one in self._refused.full if self._graph.waiting_frames(one) <= core.DEFERRED_FRAMES // 2
        ]:
            self._refused.full.discard(author)
            await self._messages.send_message(
                self._side.encode_again(author, self._graph.frames.last_of(author))
            )

    def _ask_for_lost(self) -> None:
        """Ask for what damage took here, once for each run of frames, and as soon as it is known."""
        if not self._side.knows_peer:
            return
        fresh = [one for one in self._graph.frames.lost() if one not in self._asked_for][: protocol.MAX_LOST]
        if fresh:
            self._asked_for.update(fresh)
            self._messages.write_message(self._side.encode_lost(fresh))

    def _tell_refused(self) -> None:
        """Tell the peer of whom nothing is wanted, and of whom something is again: at once, as two tasks do, and the
        peer goes by what it hears last. Whoever reads mustn't wait for room either, as the peer may do the same."""
        early = self._graph.intake.early_from(self._peer)
        fresh, again = self._refused.update_told(early | self._graph.admission.unwanted)
        for at in range(0, len(fresh), protocol.REFUSED_AT_ONCE):
            self._messages.write_message(self._side.encode_refusal(fresh[at : at + protocol.REFUSED_AT_ONCE]))
        for author in again:
            self._messages.write_message(self._side.encode_again(author, self._graph.frames.last_of(author)))

    async def _send_missing(self) -> None:
        heads = self._graph.frames.heads()
        if not (self._terms.is_whole and self._side.theirs.is_whole and self._side.theirs.takes):
            await self._send_chosen(heads)
            return
        parts: list[tuple[bytes, int, int]] = []
        for author, first, last in self._side.to_send(heads):
            if (
                author == self._own
                and first < last
                and not self._side.wants_history
                and not self._graph.behind
            ):
                self._graph.offering.note_sent(self._peer, first, last)  # the answer may come meanwhile
                for begin, end in self._graph.offering.parts_for(self._peer, first, last):
                    async for some in summaries.own(self._graph, begin, end):
                        await self._messages.send_envelopes(some)
                self._side.set_peer_head(author, heads[author])
            else:
                if not self._side.wants_history:
                    first = await self._send_passed(author, first)
                parts.append((author, first, last))
        async for some in summaries.stored(self._graph, parts):
            await self._messages.send_envelopes(some)
        for author, _, _ in parts:
            self._side.set_peer_head(author, heads[author])

    async def _send_chosen(self, heads: Vector) -> None:
        """Send a peer of other terms what it lacks of its part and is here."""
        parts = self._side.to_send(heads)
        if self._side.theirs.takes:
            async for some in self._choose_envelopes(parts):
                await self._messages.send_envelopes(some)
        for author, _, _ in parts:
            self._side.set_peer_head(author, heads[author])

    def _choose_envelopes(self, parts: list[tuple[bytes, int, int]]) -> AsyncIterator[list[bytes]]:
        choosing = Choosing(self._terms, self._side.theirs, self._peer, is_limit=self._is_limit)
        return chosen(self._graph, parts, choosing)

    async def _send_passed(self, author: bytes, first: int) -> int:
        """Send the author's summary of everything instead of frames, if it is smaller, and due; return where to go
        on."""
        passed = self._graph.passed
        upto = passed.last_of(author)
        if upto < first or passed.size_of(author) >= await self._graph.frames.stored_bytes(
            author, first, upto
        ):
            return first
        parts = await self._graph.frames.ask_store(passed.parts_of, author)
        if not parts or not passing.are_due(self._graph, map(self._graph.intake.decode, parts)):
            return first
        await self._messages.send_envelopes(parts)
        return upto + 1

    async def _send_lost(self, told: list[tuple[bytes, int, int]]) -> None:
        here = self._graph.frames.last_of
        parts = [(author, first, min(last, here(author))) for author, first, last in told]
        is_whole = self._terms.is_whole and self._side.theirs.is_whole
        async for some in summaries.stored(self._graph, parts) if is_whole else self._choose_envelopes(parts):
            await self._messages.send_envelopes(some)
        for author, _, last in parts if is_whole else ():
            over = await self._graph.frames.read_over(author, last)
            await self._messages.send_envelopes(over)
        await self._messages.send_message(self._side.encode_done())

    # ---- receiving ----------------------------------------------------------------------------------------------

    async def _receive_on(self) -> None:
        while (message := await self._messages.next_message()) is not None:
            step = self._side.receive(message, self._graph.frames.heads)
            self._look_whether_refused()
            if step.forked is not None:
                await self._graph.take_proof(*step.forked)
            await self._catch_up()  # before the peer hears that all is stored
            for reply in step.replies:
                await self._messages.send_message(reply)
            if step.envelopes:
                data = await self._offers.take_parts(step.envelopes)
                await self._take_envelopes(data)
            if step.offered is not None:
                await self._offers.consider_offer(*step.offered)
            if step.wanted is not None:
                await self._offers.send_summary(*step.wanted)
            if step.lost:
                await self._send_lost(step.lost)
            if step.told:
                self._ask_for_lost()
                knows = self._side.theirs.gives is None and self._side.peer_has(
                    self._own, max(1, self._owned)
                )
                self._is_known = self._is_known or knows
                self.exchanged.is_whole = _gives_all(self._side.theirs, self._graph.part)
                self._wake.set()
            await self._catch_up()
            self._ask_for_lost()  # that reads all, and may have found damage
            if self._side.is_done and not self._live:
                return
        if not self._live:
            raise SyncError("the peer ended the sync before it had sent all")

    def _look_whether_refused(self) -> None:
        """Note that the peer takes nothing of this identity, if it said so."""
        was_refused, self._is_refused = self._is_refused, self._own in self._side.refused
        if not self._is_refused or was_refused:
            return
        self._graph.offering.note_refusal(self._peer)
        if not self.exchanged.refused:
            self.exchanged.refused = True
            log.warning(
                "%s takes nothing more of this identity: it is banned there, has sent more than is taken, or is "
                "dated ahead",
                self._stream.connection.peer.short,
            )

    async def _catch_up(self) -> None:
        """Sign again where nothing could be signed, once a peer that knows this identity has told all of it."""
        if self._is_known and self._side.told_all and self._own not in self._refused.unclear:
            await self._graph.caught_up()

    async def _take_envelopes(self, data: list[bytes]) -> None:
        """Take envelopes; of an author who can't be followed further, no more in this session."""
        intake, out = self._graph.intake, self._refused_authors()
        batch = [intake.decode(one) for one in data]
        for envelope in batch:
            self._side.set_peer_head(envelope.author, envelope.head)
        try:
            wanted = [one for one in batch if one.author not in out] if out else batch
            new = await intake.receive_decoded(wanted, self._terms.part)
            self.exchanged.received += new
        except (Equivocation, HistoryUnclear, StateLimit):
            for envelope in batch:
                await self._take_one(envelope)
        self._tell_refused()  # before STORED, which may be the last that the peer reads

    def _refused_authors(self) -> set[bytes]:
        """Return the authors of whom nothing is taken from this peer, for now or for good."""
        return self._refused.union(self._graph.intake.early_from(self._peer))

    async def _take_one(self, envelope: Envelope | Summary) -> None:
        author = envelope.author
        if author in self._refused_authors():
            return
        try:
            new = await self._graph.intake.receive_decoded([envelope], self._terms.part)
            self.exchanged.received += new
        except Equivocation as error:
            self._refused.unclear.add(author)  # the peer may be honest: it saw the other history
            await self._send_proof(error.proof)
        except HistoryUnclear as error:
            self._refused.unclear.add(author)
            log.warning("%s", error)
        except StateLimit as error:
            if isinstance(envelope, envelopes.Summary):
                self._graph.intake.add_early(self._peer, envelope)
                # the peer is told, and again when it is due
            else:
                self._refused.full.add(author)
            log.warning("%s is not followed further for now: %s", owner_name(author), error)

    async def _send_proof(self, proof: Proof) -> None:
        await self._messages.send_message(
            self._side.encode_forked(proof.first.encode(), proof.second.encode())
        )


def _gives_all(theirs: SyncTerms, part: Part | None) -> bool:
    return theirs.gives is None or (part is not None and theirs.gives.covers_part(part))


async def sync(graph: Graph, connection: Connection) -> Exchanged:
    """Exchange what either end lacks; return what was exchanged, as `Graph.sync` does."""
    graph.admission.add_dialled(connection.peer.key)
    exchanged = Exchanged()
    await sync_stream(graph, await connection.open_stream(), exchanged)
    return exchanged


async def sync_stream(
    graph: Graph, stream: Stream, exchanged: Exchanged, *, without: frozenset[bytes] = frozenset()
) -> None:
    """Sync over a stream that `answer_stream` serves at the other end, but for frames of the authors `without`.

    `exchanged` tells meanwhile what went over it. Errors as of `Graph.sync`; the stream ends in any case.
    """
    try:
        await _Session(graph, stream, live=False, without=without, exchanged=exchanged).run()
    except BaseException:
        stream.reset()
        raise
    stream.close()
    fork = graph.own_fork()
    if fork is not None:
        graph.commits.note_fork_told()
        raise fork


async def answer_stream(graph: Graph, stream: Stream, serving: PeerServing = EVERYTHING) -> None:
    """Serve what a peer opened a stream for, as `Graph.serve` does: a sync, a blob, a query, presence.

    What the peer does wrong ends the stream, and is logged.
    """
    await _answer(graph, stream, serving)


async def replicate(graph: Graph, connection: Connection, *, blobs: bool) -> None:
    """Sync, and go on until the connection or the graph is closed, as `Graph.replicate` says."""
    graph.admission.add_dialled(connection.peer.key)
    following = graph.blobs.follow(connection, part=graph.part) if blobs else None
    stream = await connection.open_stream()
    presence = start_task(links.open_link(graph, connection), name="dtp-presence")
    try:
        await _live(graph, stream)
    finally:
        if not graph.closed:
            presence.cancel()
        if following is not None:
            await following.close()
        await asyncio.gather(presence, return_exceptions=True)


async def serve(graph: Graph, connection: Connection, serving: PeerServing) -> None:
    """Answer the streams that a peer opens until the connection or the graph is closed, as `Graph.serve` does."""
    gives = serving.gives
    if gives is not None and serving.queries:
        raise GraphError("who may ask any query learns of all of the graph: serve a part, or queries")
    if gives is not None and graph.part is not None and not graph.part.covers_part(gives):
        raise GraphError("only a part of the graph is here, and what is to be served isn't within it")
    ended = asyncio.Event()
    forget = graph.listen(lambda: ended.set() if graph.closed else None)
    try:
        async with asyncio.TaskGroup() as group:
            accepting = group.create_task(_accept(graph, connection, group, serving))
            closing = group.create_task(ended.wait())
            await asyncio.wait((accepting, closing), return_when=asyncio.FIRST_COMPLETED)
            accepting.cancel()
            closing.cancel()
    except BaseExceptionGroup as group_error:  # what went wrong first; the others were cancelled for it
        raise group_error.exceptions[0] from None
    finally:
        forget()


async def _accept(
    graph: Graph, connection: Connection, group: asyncio.TaskGroup, serving: PeerServing
) -> None:
    async for stream in connection:
        group.create_task(_answer(graph, stream, serving))


async def _answer(graph: Graph, stream: Stream, serving: PeerServing) -> None:
    """Answer a stream; what the peer does wrong on it ends it alone."""
    try:
        first = await _first(stream)
        if first is not None and fetching.is_request(first):
            await _send_blob(graph, stream, first)
        elif first is not None and links.is_hello(first):
            await links.run(graph, stream, first)
        elif first is not None and asking.is_question(first):
            await _answer_question(graph, stream, first, is_served=serving.queries)
        elif first is not None:
            await _live(graph, stream, first, serving)
    except PeerError as error:
        log.warning("a sync with %s ended: %s", stream.connection.peer.short, error)


async def _answer_question(graph: Graph, stream: Stream, question: bytes, *, is_served: bool) -> None:
    try:
        await asking.answer(graph, stream, question, is_served=is_served)
    except (ConnectionClosed, StreamReset):
        return
    except GraphError:
        stream.reset()
        if not graph.closed:
            raise
    except PeerError:
        stream.reset(BROKEN)
        raise


async def _first(stream: Stream) -> bytes | None:
    """Return what a stream begins with: it tells what it is for. None when it ends before."""
    try:
        return await read_message(stream)
    except (ConnectionClosed, StreamReset):
        return None
    except PeerError:
        stream.reset(BROKEN)
        raise


async def _send_blob(graph: Graph, stream: Stream, request: bytes) -> None:
    try:
        await fetching.answer(graph, stream, request)
    except (ConnectionClosed, StreamReset):
        return  # the peer has what it wanted, or will ask again
    except PeerError:
        stream.reset(BROKEN)
        raise


async def _live(
    graph: Graph, stream: Stream, first: bytes | None = None, serving: PeerServing = EVERYTHING
) -> None:
    """Sync live until the stream, the connection or the graph ends."""
    try:
        await _Session(graph, stream, live=True, first=first, serving=serving).run()
    except ConnectionClosed:
        return
    except StreamReset:
        stream.close()  # the peer has what it wanted and reads no more
    except GraphError:
        if not graph.closed:
            raise
    except BaseException:
        stream.reset()
        raise
    stream.close()
