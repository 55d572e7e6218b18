"""The authors' chains: who is next, what waits for what is missing, and who told two histories. No IO but reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from dtp.bounded import BoundedDict
from dtp.core.errors import EncodingError
from dtp.crdt.permission.owners import owner_name
from dtp.graph.errors import EnvelopeError, Equivocation, HistoryUnclear, StoreError
from dtp.graph.frames import vector
from dtp.graph.frames.envelope import NONE_BEFORE, Envelope, Skipped, Summary
from dtp.graph.frames.proving import Comparing, Proof

#: Frames that came before those they build on: kept, for all authors together. More are dropped; they come again.
MAX_HELD: Final = 4096
MAX_HELD_BYTES: Final = 64 << 20
#: Summaries of what is known here that are remembered to agree with it.
_REMEMBERED: Final = 1024


class ChainTip(NamedTuple):
    """The end of an author's chain."""

    sequence: int
    hash: bytes
    clock: int


START: Final = ChainTip(0, NONE_BEFORE, 0)


class Chains:
    """What is known of each author.

    `read` gives what is stored that stands for an author's frame with a sequence, None when nothing does; `clock_of`
    the last clock of an envelope. With `whole` nothing but frames goes on with a chain, no summaries.
    """

    def __init__(
        self,
        heads: vector.Vector,
        read: Callable[[bytes, int], Envelope | Summary | None],
        clock_of: Callable[[Envelope | Summary], int],
        *,
        whole: bool = False,
    ) -> None:
        #: The end of each author's chain here.
        self.heads = heads
        self._whole = whole
        self._read = read
        self._clock_of = clock_of
        self._tips: dict[bytes, ChainTip] = {}
        self._held: dict[tuple[bytes, int], Envelope | Summary] = {}  # by the first frame in it
        self._held_bytes = 0
        #: Proofs of lies in what is not taken: for whoever keeps them.
        self.found: list[Proof] = []
        self._only_summed: dict[bytes, tuple[int, Summary | None]] = {}
        self._comparing = Comparing()
        self._near: tuple[Envelope | Summary | None, int] = None, 0  # what was read last, for which sequence
        self._agreed: BoundedDict[bytes, None] = BoundedDict(_REMEMBERED)

    def get_tip(self, author: bytes) -> ChainTip:
        """Return the end of the author's chain."""
        tip = self._tips.get(author)
        if tip is None:
            head = self.heads.get(author)
            tip = START
            if head is not None:
                last = head.sequence
                envelope = self._read(author, last)
                if envelope is None:
                    raise StoreError(
                        f"envelope {last} of {owner_name(author)} is not in the store, which is damaged"
                    )
                tip = ChainTip(last, envelope.hash, self._clock_of(envelope))
            self._tips[author] = tip
        return tip

    def unread_ends(self, authors: Iterable[bytes]) -> list[tuple[bytes, int]]:
        """Return (author, last sequence) of those of these authors for whom `get_tip` would have to read."""
        return [
            (one, self.heads[one].sequence) for one in authors if one in self.heads and one not in self._tips
        ]

    def note_end(self, last: Envelope | Summary) -> None:
        """Take what was read for the end of its author's chain, if it still is."""
        head = self.heads.get(last.author)
        if last.author not in self._tips and head is not None and head.sequence == last.sequence:
            self._tips[last.author] = ChainTip(last.sequence, last.hash, self._clock_of(last))

    def is_next(self, envelope: Envelope | Summary) -> bool:
        """Return whether this goes on where its author's chain ends here: True, else it is known or was put aside.

        It is genuine. A summary may begin before that end; where chains have to be `whole` it is left, and its frames
        count as missing. Raises `Equivocation`, and `EnvelopeError` for a frame that doesn't begin where its author's
        last ended.
        """
        tip = self.get_tip(envelope.author)
        if self._whole and isinstance(envelope, Summary) and envelope.sequence > tip.sequence:
            self.add_missing(envelope)
        if envelope.first_sequence > tip.sequence + 1:
            if not (self._whole and isinstance(envelope, Summary)):
                self._put_aside(envelope)
            return False
        if envelope.first_sequence <= tip.sequence:
            self._compare_known(envelope, min(envelope.sequence, tip.sequence))
            if envelope.sequence <= tip.sequence:
                return False
        elif envelope.previous != tip.hash:
            self._compare_frames(self._read(envelope.author, tip.sequence), envelope)
            if isinstance(envelope, Skipped):
                raise HistoryUnclear(
                    f"a peer skips frames of {owner_name(envelope.author)} that don't go on with what is here"
                )
        if isinstance(envelope, Skipped) or (tip.sequence and not tip.clock):
            begins = True  # the clocks of what was skipped aren't known
        elif isinstance(envelope, Summary):
            begins = envelope.after == tip.clock or (
                envelope.first_sequence <= tip.sequence and envelope.after < tip.clock < envelope.last
            )
        else:
            begins = int.from_bytes(envelope.body[1:9], "little") == tip.clock
        if not begins:
            raise EnvelopeError("a frame does not begin at the clock at which its author's last one ended")
        if isinstance(envelope, Envelope):
            self._accept_next(envelope)
        return not (self._whole and isinstance(envelope, Summary))

    def refused_summaries(self) -> list[Summary]:
        """Return the summaries that weren't taken, as far as there was room to keep them."""
        return [kept for _, kept in self._only_summed.values() if kept is not None]

    def list_waiting(self) -> list[Envelope | Summary]:
        """Return all that came and isn't taken yet."""
        return [*self.refused_summaries(), *self._held.values()]

    def add_missing(self, summary: Summary) -> None:
        """Leave a summary: its frames are there, somewhere, and have to come themselves. It is kept to be compared
        with them."""
        last, kept = self._only_summed.get(summary.author, (0, None))
        if summary.sequence > last and (last or len(self._only_summed) < MAX_HELD):
            self._held_bytes -= len(kept.body) if kept else 0
            kept = summary if self._held_bytes + len(summary.body) <= MAX_HELD_BYTES else None
            try:
                self._comparing.open_summary(summary)
            except EncodingError:
                kept = None
            self._held_bytes += len(kept.body) if kept else 0
            self._only_summed[summary.author] = summary.sequence, kept

    def _accept_next(self, envelope: Envelope) -> None:
        """Take a frame that is next, also when a summary says something else."""
        last, kept = self._only_summed.get(envelope.author, (0, None))
        if kept is not None and self._comparing.are_contradictory(kept, envelope):
            self.found.append(Proof(envelope, kept))
            self._held_bytes -= len(kept.body)
            self._only_summed[envelope.author] = last, None

    def _compare_known(self, theirs: Envelope | Summary, last: int) -> None:
        """Compare with all that is here of the same frames, up to `last`."""
        if self.has_agreed(theirs):
            return
        place = theirs.first_sequence
        while place <= last:
            ours = self._find_standing(theirs.author, place)
            self._compare_frames(ours, theirs)
            place = last + 1 if ours is None else ours.sequence + 1
        if isinstance(theirs, Summary):
            self._agreed[theirs.signature] = None

    def has_agreed(self, theirs: Envelope | Summary) -> bool:
        """Return whether it was compared with what is here not long ago, and agreed."""
        return theirs.signature in self._agreed

    def _find_standing(self, author: bytes, sequence: int) -> Envelope | Summary | None:
        near, asked = self._near
        if near is None or near.author != author or not asked <= sequence <= near.sequence:
            near = self._read(author, sequence)
            self._near = near, sequence
        return near

    def _compare_frames(self, ours: Envelope | Summary | None, theirs: Envelope | Summary) -> None:
        if ours is not None and self._comparing.are_contradictory(ours, theirs):
            raise Equivocation(
                f"author {owner_name(theirs.author)} signed two histories at {theirs.sequence}; keep the proof, and "
                "don't trust that key: two machines write as one author, or it is in wrong hands",
                Proof(ours, theirs),
            )

    def _put_aside(self, envelope: Envelope | Summary) -> None:
        key = envelope.author, envelope.first_sequence
        size = len(envelope.body)
        if key in self._held:
            self._compare_frames(self._held[key], envelope)
        elif len(self._held) < MAX_HELD and self._held_bytes + size <= MAX_HELD_BYTES:
            self._held[key] = envelope
            self._held_bytes += size

    def note_accepted(self, envelope: Envelope | Summary, clock: int) -> None:
        """Note that an envelope was taken: the author's chain ends with it, and `clock` is its last clock."""
        self._tips[envelope.author] = ChainTip(envelope.sequence, envelope.hash, clock)
        self.heads[envelope.author] = envelope.head
        last, kept = self._only_summed.get(envelope.author, (0, None))
        if 0 < last <= envelope.sequence:
            self._held_bytes -= len(kept.body) if kept else 0
            del self._only_summed[envelope.author]
        if isinstance(envelope, Summary) and self._held:  # it stands for what was put aside, too
            for author, sequence in [key for key in self._held if key[0] == envelope.author]:
                if sequence <= envelope.sequence:
                    self._let_go(author, sequence)

    def skip_to(self, author: bytes, head: vector.Head) -> None:
        """Note that an author's frames up to this one are stored, without having passed here."""
        self.heads[author] = head
        self._tips.pop(author, None)
        self._near = None, 0

    def forget_last_read(self) -> None:
        """Read again what stands for an author's frame, also where it was read last."""
        self._near = None, 0

    def forget_author(self, author: bytes) -> None:
        """Forget all that is known of an author."""
        for sequence in [sequence for one, sequence in self._held if one == author]:
            self._let_go(author, sequence)
        self.heads.pop(author, None)
        self._tips.pop(author, None)
        _, kept = self._only_summed.pop(author, (0, None))
        self._held_bytes -= len(kept.body) if kept else 0
        self._near = None, 0

    def held_next(self, author: bytes) -> Envelope | Summary | None:
        """Return what was put aside and is next now."""
        return self._let_go(author, self.get_tip(author).sequence + 1)

    def _let_go(self, author: bytes, sequence: int) -> Envelope | Summary | None:
        envelope = self._held.pop((author, sequence), None)
        if envelope is not None:
            self._held_bytes -= len(envelope.body)
        return envelope

    def list_gaps(self) -> list[tuple[bytes, int, int]]:
        """Return the known gaps, (author, first, last): frames behind them wait, or only a summary of them came."""
        waiting: dict[bytes, list[int]] = {}
        for author, sequence in sorted(self._held):
            waiting.setdefault(author, []).append(sequence)
        for author, (last, _) in self._only_summed.items():
            waiting.setdefault(author, []).append(last + 1)
        found: list[tuple[bytes, int, int]] = []
        for author in sorted(waiting):
            head = self.heads.get(author)
            expected = 1 if head is None else head.sequence + 1
            for sequence in sorted(waiting[author]):
                if sequence > expected:
                    found.append((author, expected, sequence - 1))
                held = self._held.get((author, sequence))
                expected = max(expected, sequence if held is None else held.sequence + 1)
        return found
