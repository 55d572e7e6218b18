"""Packets of QUIC that move nothing: repetitions, questions, pieces behind gaps. All may send some, nobody a flood.

The library keeps 12 bytes for each byte of pieces that wait for what is before them, and of answers that wait, where
nobody sees them. So what comes is held against what it moved. See docs/decisions/0299.
"""

from __future__ import annotations

from typing import Final

#: Bytes of a packet around what it carries: header, number, tag, frame, and what it says of ours that have come.
AROUND: Final = 40
#: Of what moved, so much again is allowed: one part in eight, for what was sent twice since packets came late.
AGAIN: Final = 8
#: What the other side may say of each piece of ours, beside one byte of eight: that it came, and after which gaps.
ANSWER: Final = 128
#: Bytes a second that are allowed in any case.
RATE: Final = 4096.0
#: What the library takes for each of those bytes: between 1, in large pieces, and 12.
TAKES: Final = 8
#: Packets that it may want in answer, beyond one for each of its own and some for what is sent here. A question takes
#: 8 bytes, and its answer a packet, which the library keeps until it has come.
MOST_ANSWERS: Final = 512
#: Packets that each piece that is sent may become, and each so many bytes of it: lost ones are sent again.
_TIMES, _PACKET = 4, 1024
#: Seconds of processor time for a packet, 25 times the usual: one that takes more and moves nothing counts as so many
#: bytes. 30 new identifiers in one, which take the place of all before, take the library 3 to 8 ms. A collection of
#: garbage that falls into a packet's time counts as one.
DEAR: Final = 0.001
DEAR_COUNTS: Final = 32 * 1024
#: Packets that took so long, and identifiers that the other side has done with, in the life of a carrier. The library
#: goes through all former ones for each, 13 ns for one: 200 in a packet took 21 ms where 8,000 had been before.
MOST_DEAR: Final = 512
MOST_RETIRED: Final = 512
#: Identifiers until then, and one more for so many bytes that moved. Who moves to another network is done with one,
#: and a library may change them every ten thousand packets. 200 in one packet take 0.6 ms, and nobody sees them
#: before: who means no more than that was let have three such packets, and comes again, for a handshake each time.
FEW_RETIRED: Final = 64
RETIRED_FOR: Final = 1024 * 1024


class IdlePackets:
    """What has come of one connection and moved nothing of late, against what is allowed. Times are the loop's."""

    __slots__ = ("_answers", "_dear", "_moved", "_retired", "_since", "size")

    def __init__(self, now: float) -> None:
        #: Bytes that have come and were not made up for yet.
        self.size = 0
        self._answers = 0  # packets
        self._retired = self._dear = self._moved = 0  # so far
        self._since = now

    def note_received(self, packets: int, size: int, moved: int, now: float, took: float = 0.0) -> None:
        """So many packets have come, of `size` bytes in all; they brought `moved` bytes, and took `took` seconds of
        processor time."""
        allowed = int((now - self._since) * RATE)
        if allowed:
            self._since = now
        if moved:
            self._moved += moved
            allowed += moved + moved // AGAIN + packets * AROUND
        elif took > packets * DEAR:
            size += packets * DEAR_COUNTS
            self._dear += packets
        self.size = max(0, self.size + size - allowed)
        self._answers = max(0, self._answers - packets)

    def note_given(self, size: int) -> None:
        """Note that a piece of so many bytes was given to the library to be sent."""
        self.size = max(0, self.size - ANSWER - size // AGAIN)
        self._answers = max(0, self._answers - _TIMES * (1 + size // _PACKET))

    def note_retired(self) -> None:
        """Note that the other side is done with an identifier: another one was acknowledged in its place."""
        self._retired += 1

    def note_sent(self, packets: int) -> None:
        """So many packets were sent, whatever is in them."""
        self._answers += packets

    def is_flood(self, most: int) -> bool:
        """Return True if more than `most` bytes were not made up for, or too many answers are wanted; or where the
        carrier is used up."""
        return self.size > most or self._answers > MOST_ANSWERS or self.is_used_up

    @property
    def is_used_up(self) -> bool:
        """True if so much was wanted of the library by now that all more is dear: another carrier begins anew."""
        retired = min(MOST_RETIRED, FEW_RETIRED + self._moved // RETIRED_FOR)
        return self._retired > retired or self._dear > MOST_DEAR
