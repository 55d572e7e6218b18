"""Summaries of everything that an author made, as one session offers and takes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dtp.graph.errors import SyncError
from dtp.graph.frames import envelope as envelopes
from dtp.graph.permission.agreement import is_asked
from dtp.graph.sync import passing, protocol
from dtp.graph.sync.choosing import SyncTerms
from dtp.graph.sync.messages import SyncMessages
from dtp.graph.sync.passing import Taking

if TYPE_CHECKING:
    from dtp.graph.graph import Graph


class SummaryOffers:
    """What was offered to a peer, and which of its offers were accepted. Nothing is given that wasn't offered, and an
    author's parts are all of one offer."""

    def __init__(
        self,
        graph: Graph,
        side: protocol.SyncSide,
        messages: SyncMessages,
        terms: SyncTerms,
        peer: bytes,
    ) -> None:
        self._graph, self._side, self._messages, self._terms, self._peer = graph, side, messages, terms, peer
        self._offered: dict[bytes, int] = {}
        self._taking: dict[bytes, Taking] = {}
        self._newer: dict[bytes, tuple[int, int]] = {}  # offers that came while parts of one before them did

    def note_taken(self) -> None:
        """Note that the peer has all now, so that it isn't offered the same again."""
        wants_frames = self._side.wants_history
        self._graph.offering.add_taken(self._peer, self._offered, wants_frames=wants_frames)

    async def offer_summaries(self) -> None:
        """Offer summaries of everything to a peer that has all the frames: it may meet others who don't."""
        await self._graph.offering.refresh_offer(self._graph)
        passed = self._graph.passed
        out = self._graph.admission.hidden | self._side.refused
        offering, wants_frames = self._graph.offering, self._side.wants_history
        for author, upto in offering.to_make(passed, self._peer, wants_frames=wants_frames):
            if author in out:
                continue
            if upto > self._offered.get(author, 0) and self._side.peer_has(author, upto):
                self._offered[author] = upto
                await self._messages.send_message(protocol.encode_offer(author, upto, passed.size_of(author)))

    async def send_summary(self, author: bytes, sequence: int) -> None:
        if self._offered.get(author, 0) < sequence:
            raise SyncError("the peer asks for something that was not offered to it")
        if (
            self._graph.passed.last_of(author) == sequence
        ):  # else there is a newer one, which is offered or was
            parts = await self._graph.frames.ask_store(self._graph.passed.parts_of, author)
            for message in protocol.encode_frames(parts):
                await self._messages.send_message(message)
        await self._messages.send_message(self._side.encode_done())

    async def consider_offer(self, author: bytes, sequence: int, size: int) -> None:
        """Take an offer of what is all here, if it is half as large as the frames or less, or one's word is asked
        for."""
        graph = self._graph
        here = graph.frames.last_of(author)
        if not (self._terms.takes and self._terms.is_whole and self._side.theirs.is_whole):
            return
        if author in self._taking and self._taking[author].has_begun:
            self._newer[author] = sequence, size  # its other parts are on their way
            return
        if author == graph.identity.id.key or graph.keeps_history or size > passing.MOST or sequence > here:
            return
        upto, stored = graph.passed.last_of(author), None
        if is_asked(graph):  # by what is stored, and not by an offer that was taken before, and may be a lie
            stored = await graph.frames.stored_bytes(author, 1, sequence)
            most = 2 * stored
        else:
            behind = await graph.frames.stored_bytes(author, upto + 1, sequence)
            most = (graph.passed.size_of(author) + behind) // 2
        if (
            sequence > upto
            and size <= most
            and (stored is None or graph.offering.may_take_again(author, stored))
        ):
            self._taking[author] = Taking(author, sequence, size)
            await self._messages.send_message(self._side.encode_want(author, sequence))

    async def take_parts(self, data: list[bytes]) -> list[bytes]:
        """Keep the parts of summaries of everything; return what else there is."""
        if not self._taking:
            return data
        others = []
        for one in data:
            envelope = envelopes.decode(self._graph.name, one)
            taking = self._taking.get(envelope.author)
            if taking is None or envelope.sequence > taking.sequence or not taking.is_next(envelope):
                others.append(one)  # also a frame that was asked for again, and came another way meanwhile
            elif taking.add_part(passing.decode_part(self._graph.name, one), one):
                frames = self._graph.frames
                await frames.ask_store(taking.keep_passed, self._graph.passed, frames.find)
                size = await frames.stored_bytes(envelope.author, 1, taking.sequence)
                self._graph.offering.count_taken(envelope.author, size)
                del self._taking[envelope.author]
                if envelope.author in self._newer:
                    await self.consider_offer(envelope.author, *self._newer.pop(envelope.author))
        return others
