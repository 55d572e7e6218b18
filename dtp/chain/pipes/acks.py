"""What an end knows of the other side's frames: which have come, what is acknowledged, where history is whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from dtp.chain.channel import Channel
from dtp.chain.events import Cursor
from dtp.chain.pipe import PipeFrame
from dtp.chain.pipes.frames import MAX_PIPES, Acks, ReceivedSequences, frames_ahead, newest
from dtp.chain.pipes.where import PipeEndpoint

#: Acknowledgements, each of a pipe by its index: all up to this sequence number.
SomeAcks = tuple[tuple[int, int], ...]


class FrameAcks:
    """Which frames have come on each pipe of the other side, what of them is acknowledged, and what it has
    acknowledged of ours."""

    def __init__(self, where: PipeEndpoint) -> None:
        self._where = where
        #: How many frames have come.
        self.came = 0
        #: Whether the channel is so new that all counts from 1.
        self.is_fresh = False
        #: Whether bytes of the stream have come since the last acknowledgement was begun.
        self.is_eager = False
        self._orders: dict[int, ReceivedSequences] = {}
        self._acks: dict[int, Acks] = {}
        self._peer_acks: dict[int, int] = {}
        self._is_acknowledging = False

    # ---- of the other side's frames -------------------------------------------------------------------------

    def take_frame(self, frame: PipeFrame, taken: int) -> bool:
        """Note a frame that came, and return False if it came before. `taken` is up to where the reader has taken the
        stream's bytes. Raise `PipeGapError`."""
        order = self._orders.setdefault(frame.index, ReceivedSequences(started=self.is_fresh))
        acks = self._acks.setdefault(frame.index, Acks())
        if not order.add_sequence(frame.sequence):
            return False
        if not acks.started:
            acks.begin(order.last - 1 if not order.gap else order.last)
        if acks.crowded:
            acks.sequence_to_acknowledge(min(order.last, frame.sequence - 1), taken)
        acks.frame_received(frame.sequence, 0)
        self.came += 1
        return True

    def note_bytes(self, frame: PipeFrame, until: int, *, any_came: bool) -> None:
        """Note that the bytes of a frame end at offset `until` of the live link."""
        self._acks[frame.index].frame_received(frame.sequence, until)
        self.is_eager |= any_came

    def has_gap(self, index: int) -> bool:
        """Return whether a frame is missing on this pipe."""
        return self._orders[index].gap

    @property
    def missing(self) -> bool:
        """Whether a frame is missing on any."""
        return any(each.gap for each in self._orders.values())

    def release(self) -> None:
        """Note that the link is gone: acknowledgements wait for no reader any more."""
        for each in self._acks.values():
            each.release()

    def list_due(self, taken: int) -> SomeAcks:
        """Return what may be acknowledged where the reader has taken the bytes up to `taken`: nothing below half a
        window of some pipe, nor while acknowledgements are being written."""
        if self._is_acknowledging:  # one task at a time, or two would make the same ones
            return ()
        due = {
            index: each.sequence_to_acknowledge(self._orders[index].last, taken)
            for index, each in self._acks.items()
            if each.started
        }
        half = max(1, frames_ahead(self._where.window) // 2)
        if all(due[each] - self._acks[each].acked < half for each in due):
            return ()
        return self.list_undone(due.items())

    @contextmanager
    def acknowledge(self, acks: SomeAcks) -> Iterator[None]:
        """Let no others become due while these are written to the chain in the block."""
        if acks:
            self._is_acknowledging, self.is_eager = True, False
        try:
            yield
        finally:
            if acks:
                self._is_acknowledging = False

    def list_undone(self, acks: Iterable[tuple[int, int]]) -> SomeAcks:
        """Return those that the chain doesn't have yet."""
        return tuple((index, sequence) for index, sequence in acks if sequence > self._acks[index].acked)

    def note_acknowledged(self, acks: Iterable[tuple[int, int]]) -> None:
        """Note what the chain has of our acknowledgements."""
        for index, sequence in acks:
            each = self._acks.setdefault(index, Acks(sequence))
            each.acked = max(each.acked, sequence)

    # ---- of our own -----------------------------------------------------------------------------------------

    def note_peer_acks(self, acks: Iterable[tuple[int, int]]) -> None:
        """Note what the other side has acknowledged."""
        newest(acks, self._peer_acks)

    def learn_channel(self, found: Channel) -> None:
        """Note the acknowledgements of both sides that the chain has."""
        own, theirs = found.acks_to_server, found.acks_to_client
        if not self._where.is_client:
            own, theirs = theirs, own
        self.note_peer_acks(enumerate(own))
        self.note_acknowledged(enumerate(theirs))

    def window_room(self, index: int, sequence: int) -> int:
        """Return how many frames the window has room for on our pipe, which is at `sequence`."""
        # Who tells of more than there is gets no more at once than a window.
        return frames_ahead(self._where.window) - max(0, sequence - self._peer_acks.get(index, 0))


class PipeHistory:
    """Up to where in the chain's history the pipes of the other side are known to be whole."""

    def __init__(self, since: Cursor | None = None, pipes: int = MAX_PIPES) -> None:
        """From `since` on frames may come."""
        self._since = since
        #: How many pipes the other side has at most.
        self.pipes = pipes
        self._places: dict[int, Cursor | None] = {}

    def expect_pipes(self, count: int) -> None:
        """Note how many pipes the other side says that it has: no fewer than frames came by."""
        self.pipes = max(count, len(self._places))

    def note_frame(self, index: int, place: Cursor | None, *, is_whole: bool) -> None:
        """Note where a frame of a pipe was, and whether that `is_whole` with it."""
        before = self._places.setdefault(index, self._since)
        if place is not None and is_whole and (before is None or before.place < place.place):
            self._places[index] = place

    def whole_until(self) -> Cursor | None:
        """Return from where on history may have frames that didn't come."""
        places = [*self._places.values()]
        if len(places) < self.pipes:
            places.append(self._since)  # the first frame of a pipe may be missing
        known = [place for place in places if place is not None]
        return min(known, key=lambda cursor: cursor.place, default=None)

    def note_read(self, until: Cursor) -> None:
        """Note that history was read up to there, and nothing is missing."""
        self._since = until
        for index, place in self._places.items():
            if place is None or place.place < until.place:
                self._places[index] = until
