"""The authors' chains: who is next, what waits for what is missing, and who told two histories. No IO but reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from dtp.graph import vector
from dtp.graph.envelope import NONE_BEFORE, Envelope, Proof, contradict
from dtp.graph.errors import EnvelopeError, Equivocation

#: Frames that came before those they build on: kept, for all authors together. More are dropped; they come again.
MAX_HELD: Final = 4096
MAX_HELD_BYTES: Final = 64 << 20


class Tip(NamedTuple):
    """The end of an author's chain."""

    sequence: int
    hash: bytes
    clock: int


START: Final = Tip(0, NONE_BEFORE, 0)


class Chains:
    """What is known of each author. `read` gives a stored envelope, `clock_of` the last clock of one."""

    def __init__(
        self,
        lasts: vector.Vector,
        read: Callable[[bytes, int], Envelope],
        clock_of: Callable[[Envelope], int],
    ) -> None:
        self.lasts = lasts
        self._read = read
        self._clock_of = clock_of
        self._tips: dict[bytes, Tip] = {}
        self._held: dict[tuple[bytes, int], Envelope] = {}
        self._held_bytes = 0

    def tip(self, author: bytes) -> Tip:
        """The end of the author's chain."""
        tip = self._tips.get(author)
        if tip is None:
            last = self.lasts.get(author, 0)
            tip = START
            if last:
                envelope = self._read(author, last)
                tip = Tip(last, envelope.hash, self._clock_of(envelope))
            self._tips[author] = tip
        return tip

    def is_next(self, envelope: Envelope) -> bool:
        """Whether this genuine envelope is the next of its author: True, else it is known or was put aside.

        Raises `Equivocation`, and `EnvelopeError` for a frame that doesn't begin where its author's last ended.
        """
        tip = self.tip(envelope.author)
        if envelope.sequence <= tip.sequence:
            self._compare(self._read(envelope.author, envelope.sequence), envelope)
            return False
        if envelope.sequence > tip.sequence + 1:
            self._hold(envelope)
            return False
        if envelope.previous != tip.hash:
            self._compare(self._read(envelope.author, tip.sequence), envelope)
        if int.from_bytes(envelope.body[1:9], "little") != tip.clock:
            raise EnvelopeError("a frame does not begin at the clock at which its author's last one ended")
        return True

    @staticmethod
    def _compare(ours: Envelope, theirs: Envelope) -> None:
        first, second = sorted((ours, theirs), key=lambda one: one.sequence)
        if contradict(first, second):
            raise Equivocation(
                f"author {theirs.author.hex()} signed two histories at {theirs.sequence}; keep the proof, and don't "
                "trust that key: two machines write as one author, or it is in wrong hands",
                Proof(ours, theirs),
            )

    def _hold(self, envelope: Envelope) -> None:
        key = envelope.author, envelope.sequence
        size = len(envelope.body)
        if key in self._held:
            self._compare(self._held[key], envelope)
        elif len(self._held) < MAX_HELD and self._held_bytes + size <= MAX_HELD_BYTES:
            self._held[key] = envelope
            self._held_bytes += size

    def advance(self, envelope: Envelope, clock: int) -> None:
        """The envelope was taken; its last clock is `clock`."""
        self._tips[envelope.author] = Tip(envelope.sequence, envelope.hash, clock)
        self.lasts[envelope.author] = envelope.sequence

    def held_next(self, author: bytes) -> Envelope | None:
        """What was put aside and is next now."""
        envelope = self._held.pop((author, self.tip(author).sequence + 1), None)
        if envelope is not None:
            self._held_bytes -= len(envelope.body)
        return envelope

    def gaps(self) -> list[tuple[bytes, int, int]]:
        """What is known to be missing, as something behind it was put aside: (author, first, last)."""
        found: list[tuple[bytes, int, int]] = []
        before, expected = b"", 0
        for author, sequence in sorted(self._held):
            expected = expected if author == before else self.lasts.get(author, 0) + 1
            if sequence > expected:
                found.append((author, expected, sequence - 1))
            before, expected = author, sequence + 1
        return found
