"""The frames of a graph: those that are stored, and those that are about to be. What sync and history read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from dtp.crdt import Replica
from dtp.graph.frames.chains import Chains
from dtp.graph.frames.envelope import OVERHEAD, Envelope, Summary, last_clock
from dtp.graph.frames.proving import Proof
from dtp.graph.frames.summaries import SharedAlone
from dtp.graph.frames.vector import MARK, Head, Vector
from dtp.graph.stores import loading
from dtp.graph.stores.loading import Ends
from dtp.graph.stores.store import Store

_T = TypeVar("_T")

#: Bytes of frames that are read ahead to be compared; what is beyond is read one by one.
_KNOWN_BYTES: Final = 32 << 20


class KeptFrames:
    """The frames of a graph: who has how many, and reading them. `Graph.frames`.

    The store is asked in a thread of its own, one question at a time.
    """

    def __init__(
        self,
        store: Store,
        replica: Callable[[], Replica],
        check_open: Callable[[], None],
        ends: Ends,
        *,
        whole: bool,
    ) -> None:
        """`check_open` raises once the graph is closed; `whole`: what comes summed up is not enough."""
        self.store = store
        self._replica = replica
        self._check_open = check_open
        self._whole = whole
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="dtp-graph")
        self._loop = asyncio.get_running_loop()
        #: (author, sequence) -> what was signed or taken, and isn't stored yet.
        self.unsaved: dict[tuple[bytes, int], Envelope | Summary] = {}
        self._known: dict[tuple[bytes, int], Envelope | Summary] = {}
        #: What of them sums of the own ones are worked out by.
        self.own_alone = SharedAlone()
        self.set_ends(ends)

    def set_ends(self, ends: Ends) -> None:
        """Take what was read from the store of how far each author's chain is here."""
        #: Of authors of whom frames were lost: the last one behind those.
        self.beyond = ends.beyond
        self.chains = Chains(ends.heads, self._find_standing, self._last_clock, whole=self._whole)

    def ask_store(self, function: Callable[..., _T], *arguments: Any) -> asyncio.Future[_T]:
        """Return what a function will have returned that asks the store."""
        return self._loop.run_in_executor(self._worker, function, *arguments)

    async def close(self) -> None:
        """Wait for what is being asked, and let go of the store."""
        try:
            await self.ask_store(self.store.close)
        finally:
            await asyncio.to_thread(self._worker.shutdown)

    # ---- so that the loop doesn't wait for the store ----------------------------------------------------------

    async def load_own_end(self, author: bytes) -> None:
        """Have the end of an author's chain in memory."""
        await self._load_ends([author])

    async def load_known(self, batch: Sequence[Envelope | Summary]) -> None:
        """Have in memory what these will be compared with, until `forget_known`: the ends of their authors' chains,
        and what stands here for the same frames."""
        await self._load_ends({one.author for one in batch})
        heads = self.chains.heads
        known = [
            (one.author, one.first_sequence, min(one.sequence, heads[one.author].sequence))
            for one in batch
            if one.author in heads
            and one.first_sequence <= heads[one.author].sequence
            and not self.chains.has_agreed(one)
        ]
        if known:
            self._known = await self.ask_store(self._read_known, known)
            self.chains.forget_last_read()  # of before others may have taken its place

    def forget_known(self) -> None:
        """Let go of what `load_known` has loaded."""
        self._known = {}

    async def _load_ends(self, authors: Iterable[bytes]) -> None:
        unknown = self.chains.unread_ends(authors)
        if unknown:
            for one in await self.ask_store(lambda: [self._find_stored(*end) for end in unknown]):
                if one is not None:
                    self.chains.note_end(one)

    def _read_known(self, known: list[tuple[bytes, int, int]]) -> dict[tuple[bytes, int], Envelope | Summary]:
        found: dict[tuple[bytes, int], Envelope | Summary] = {}
        size = 0
        for author, place, last in known:
            while place <= last and size < _KNOWN_BYTES:
                one = self._find_stored(author, place)
                if one is None:
                    break
                found[author, place] = one
                size += len(one.body) + OVERHEAD
                place = one.sequence + 1
        return found

    # ---- what is known of whom ------------------------------------------------------------------------------

    def vector(self) -> dict[bytes, int]:
        """Return author (public key) -> the last sequence that is stored here."""
        return {author: head.sequence for author, head in self.heads().items()}

    def last_of(self, author: bytes) -> int:
        """Return what `vector` has of an author, 0 if nothing: for whoever asks of one, however many there are."""
        if author in self.store.hidden:
            return 0
        unsaved = next((one for one in self.unsaved.values() if one.author == author), None)
        if unsaved is not None:
            return unsaved.first_sequence - 1
        head = self.beyond.get(author) or self.chains.heads.get(author)
        return 0 if head is None else head.sequence

    def heads(self) -> Vector:
        """Return author (public key) -> the end of its chain as it is stored here."""
        found = self.chains.heads | self.beyond
        for one in reversed(self.unsaved.values()):
            found[one.author] = Head(one.first_sequence - 1, one.previous[:MARK])
        return {
            author: head
            for author, head in found.items()
            if head.sequence and author not in self.store.hidden
        }

    async def read(self, author: bytes, first: int, last: int) -> list[bytes]:
        """Return the stored envelopes of an author from one sequence to another."""
        return await self.read_parts([(author, first, last)])

    async def read_parts(self, parts: Iterable[tuple[bytes, int, int]]) -> list[bytes]:
        """Return the stored envelopes of each (author, first sequence, last), one part behind the other."""
        self._check_open()
        return await self.ask_store(lambda: [one for part in parts for one in self.store.read_frames(*part)])

    async def read_over(self, author: bytes, last: int) -> list[bytes]:
        """Return the stored summary that stands for an author's frame and for some behind it, if there is one."""
        found = await self.ask_store(self.store.find_covering, author, last)
        one = None if found is None else loading.decode_stored(self.store, found)
        return [one.encode()] if one is not None and one.first_sequence <= last < one.sequence else []

    async def stored_bytes(self, author: bytes, first: int, last: int) -> int:
        """Return the bytes of what `read` would give."""
        self._check_open()
        return await self.ask_store(self.store.size_of, author, first, last)

    def gaps(self) -> list[tuple[bytes, int, int]]:
        """Return what is known to be missing: (author, first, last). With `history` also what came only summed up."""
        gaps = self.store.read_gaps() + self.chains.list_gaps()
        return sorted(one for one in gaps if one[0] not in self.store.hidden)

    def lost(self) -> list[tuple[bytes, int, int]]:
        """Return what damage took of the stored frames, as far as it is known: (author, first, last)."""
        return self.store.read_gaps()

    async def proofs(self) -> list[Proof]:
        """Return proofs that authors signed two histories."""
        return await self.ask_store(loading.read_proofs, self.store)

    # ---- one by one -------------------------------------------------------------------------------------------

    def find(self, author: bytes, sequence: int) -> Envelope | Summary | None:
        """Return what is here that an author signed and ends with this sequence."""
        unsaved = self.unsaved.get((author, sequence))
        if unsaved is not None:
            return unsaved
        found = self.store.read_frames(author, sequence, sequence)
        return loading.decode_stored(self.store, found[0]) if found else None

    def _find_stored(self, author: bytes, sequence: int) -> Envelope | Summary | None:
        """Return what is stored that stands for an author's frame."""
        found = self.store.find_covering(author, sequence)
        return None if found is None else loading.decode_stored(self.store, found)

    def _find_standing(self, author: bytes, sequence: int) -> Envelope | Summary | None:
        """Return what is here that stands for an author's frame."""
        place = author, sequence
        found = self._known.get(place) or self.unsaved.get(place) or self._find_stored(author, sequence)
        if found is not None:
            return found
        mine = (one for one in self.unsaved.values() if one.author == author and one.sequence >= sequence)
        return next(mine, None)

    def _last_clock(self, envelope: Envelope | Summary) -> int:
        return last_clock(self._replica().core, envelope)
