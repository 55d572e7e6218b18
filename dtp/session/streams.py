"""The two halves of a stream: what is to be sent and not yet acknowledged, and what was received.

Source: docs/wire.md, section "Streams". Offsets are absolute, so bytes may come over any carrier, twice or out
of order. The end of a stream (finish or reset) counts as one more: `acked == final + 1` says that it arrived.
"""

from __future__ import annotations

from collections import deque

from dtp.session.codes import CloseCode, ProtocolError
from dtp.session.frames import MAX_OFFSET
from dtp.session.limits import STREAMS_AHEAD, Limits
from dtp.session.reassembly import Reassembly

#: A stream may be ahead of its reader by this part of the connection's window in any case, and so much of that is
#: worth telling where little is left.
LEAST_PART = 64
#: An offset that no stream comes to.
NO_OFFSET = MAX_OFFSET + 1
#: Of what is left, where that is less than half, a stream goes on to have one part of so many ahead of its reader.
LEFT_PARTS = 4
#: A stream may be ahead of its reader by so many times of what that has read, where it is more than at first.
EARNED = 2
#: Times in a window that credit is told for a stream, and for one of which somebody wants to see what is read.
USUAL, OFTEN = 4, 64
#: Pieces below this are joined before they are sealed: a C call per write costs more than the copy.
SMALL = 4096
_JOIN = 64 * 1024

#: Bytes of a window for each piece that may wait with a gap before it. A sender over several links leaves gaps of
#: what one call seals: 16 KiB and more where much is under way.
_RUN_SHARE = 4096

#: What a stream has that nothing was written to, of all of them: two empty deques each would be 1.2 KB.
_NOTHING: deque[bytes | memoryview] = deque(maxlen=0)


def most_runs(window: int) -> int:
    """Return how many pieces that don't touch are kept of what has a window of so many bytes."""
    return max(1024, window // _RUN_SHARE)


class SendHalf:
    """Bytes from the application until the peer acknowledges them."""

    __slots__ = (
        "_base",
        "_unacked",
        "_unsent",
        "acked",
        "end",
        "fin_sent",
        "finished",
        "highest",
        "limit",
        "reset_code",
        "sent",
        "told_end",
    )

    def __init__(self, limit: int) -> None:
        self.limit = limit  # the peer's credit: offset up to which may be sent
        self.acked = 0  # the peer has all below
        self.sent = 0  # next offset to send
        self.highest = 0  # highest offset ever sent (after a resume, `sent` goes back)
        self.end = 0  # offset behind the last byte written
        self.finished = False
        self.fin_sent = False  # since the last rewind
        self.told_end = False  # ever: the peer may acknowledge the end
        self.reset_code: int | None = None
        self._base = 0  # offset of the first byte kept
        self._unacked = _NOTHING
        self._unsent = _NOTHING

    @property
    def open(self) -> bool:
        """True while the application may write."""
        return not self.finished and self.reset_code is None

    @property
    def queued(self) -> int:
        """Bytes written and not yet sent."""
        return self.end - self.sent if self.reset_code is None else 0

    @property
    def kept(self) -> int:
        """Bytes sent and kept, because the peer may have to get them again."""
        return max(0, self.highest - self.acked) if self.reset_code is None else 0

    @property
    def ready(self) -> bool:
        """True when there is something to send that the stream's own credit allows."""
        if self.reset_code is not None:
            return False
        if self.sent < self.end:
            return self.sent < self.limit
        return self.finished and not self.fin_sent

    @property
    def done(self) -> bool:
        """True when the peer knows all: data and end."""
        return self.acked == (self.end if self.reset_code is None else self.highest) + 1

    @property
    def written(self) -> bytes | None:
        """All that was written; None where a part was acknowledged, or dropped by a reset, and isn't kept."""
        if self.acked or self.reset_code is not None:
            return None
        return b"".join((*self._unacked, *self._unsent))

    def write_data(self, data: bytes | memoryview) -> None:
        """Queue `data`, which must not change any more."""
        if self._unsent is _NOTHING:
            self._unsent = deque()
        self._unsent.append(data)
        self.end += len(data)

    def send_now(self, data: bytes, end: int) -> bool:
        """Take `data` as sent at once, up to the offset `end`: when all before it was, and the credit allows it all;
        False without any effect when not."""
        if self.sent != self.end or self.highest != self.end or end > self.limit or not self.open:
            return False
        if self._unacked is _NOTHING:
            self._unacked = deque()
        self._unacked.append(data)
        self.sent = self.highest = self.end = end
        return True

    def next_piece(self, room: int, fresh: int) -> tuple[int, bytes | memoryview, bool]:
        """Return the next piece to seal: its offset, at most `room` bytes, and whether the stream ends behind it.

        `fresh` is the connection's credit, which only bytes above `highest` use up.
        """
        offset = self.sent
        room = min(room, self.limit - offset, self.highest - offset + fresh)
        piece = self._take_piece(room) if room > 0 and self._unsent else b""
        if len(piece):
            if self._unacked is _NOTHING:
                self._unacked = deque()
            self._unacked.append(piece)
            self.sent = offset + len(piece)
            if self.sent > self.highest:
                self.highest = self.sent
        fin = self.finished and self.sent == self.end
        self.fin_sent = fin
        self.told_end |= fin
        return offset, piece, fin

    def _take_piece(self, room: int) -> bytes | memoryview:
        unsent = self._unsent
        first = unsent[0]
        size = len(first)
        if size > room:
            view = memoryview(first)
            unsent[0] = view[room:]
            return view[:room]
        if size >= SMALL or len(unsent) == 1:
            return unsent.popleft()
        parts: list[bytes | memoryview] = []
        room, total = min(room, _JOIN), 0
        while unsent and total + len(unsent[0]) <= room:
            parts.append(unsent.popleft())
            total += len(parts[-1])
        return b"".join(parts)

    def mark_acknowledged(self, acked: int) -> None:
        """Note that the peer has all bytes below `acked`, which is one above the end when it also knows of the
        end."""
        if acked <= self.acked:
            return
        if acked > self.highest + self.told_end:
            raise ProtocolError(f"acknowledged {acked} of a stream of which {self.highest} bytes were sent")
        self.acked = acked
        unacked = self._unacked
        while unacked and self._base + len(unacked[0]) <= acked:
            self._base += len(unacked.popleft())
        # After a resume the peer may already have what we were about to send again.
        while self._unsent and self.sent < acked and self._base + len(self._unsent[0]) <= acked:
            size = len(self._unsent.popleft())
            self._base += size
            self.sent += size
        if acked > self.highest:
            self.fin_sent = True
            # An empty deque of its own takes 600 bytes for as long as the peer sends.
            self._unacked = _NOTHING

    def rewind_unacked(self) -> None:
        """Send again all that isn't acknowledged, for a carrier was lost."""
        had = self.acked - self._base
        if had > 0 and self._unacked:  # of the first piece the peer has a part: what is repeated must shrink
            self._unacked[0] = memoryview(self._unacked[0])[had:]
            self._base += had
        if self._unacked:
            if self._unsent is _NOTHING:
                self._unsent = deque()
            self._unsent.extendleft(reversed(self._unacked))
            self._unacked.clear()
        self.sent = self._base
        self.fin_sent = self.acked > self.highest

    def forget_kept(self) -> None:
        """Forget what was kept for sending it again: the peer has done with this stream, so it has all of it."""
        final = self.end if self.reset_code is None else self.highest
        self.acked = final + 1
        self._unsent.clear()
        self._unacked.clear()
        self.sent = self.highest = self.end = final
        self.fin_sent = True

    def reset_sending(self, code: int) -> None:
        """Give up: nothing more is sent, what is kept is dropped."""
        self.reset_code = code
        self.told_end = True
        self._unsent.clear()
        self._unacked.clear()


class ReceiveHalf:
    """Bytes from the peer, put in order, and the credit that it was given."""

    __slots__ = (
        "_looked_at",
        "consumed",
        "early",
        "ended",
        "final",
        "first",
        "grant_at",
        "grants",
        "highest",
        "limit",
        "next",
        "raise_at",
        "step",
        "stop_code",
        "window",
    )

    def __init__(self, window: int, first: int, step: int) -> None:
        #: The most that may come unread, at first, and each time that more may come though nothing was read.
        self.window, self.first, self.step = window, first, step
        self.limit = first  # offset up to which the peer may send
        self.grants = USUAL
        self.grant_at = first // USUAL  # when the application has read so far, more credit is worth telling
        self.raise_at = 0  # when so much has come it may have more, whether it is read or not
        self._plan_raise(window)
        self._looked_at = 0  # how far it had read when that was looked at last
        self.next = 0  # all below was received in order
        self.highest = 0  # highest offset seen, for the connection's credit
        self.consumed = 0  # the application has read all below
        self.final: int | None = None
        self.ended = False  # the end was reached (or the stream was reset)
        self.stop_code: int | None = None
        self.early: Reassembly | None = None  # what came out of order, if anything waits

    def receive_next(self, offset: int, size: int) -> bool:
        """Take a piece that is the next in order, within the credit, with nothing early and no end in sight; False
        without any effect when it is anything else, and `receive_piece` has to look at it."""
        end = offset + size
        if (
            offset != self.next
            or offset != self.highest
            or end > self.limit
            or self.final is not None
            or self.stop_code is not None
        ):
            return False
        self.next = self.highest = end
        return True

    @property
    def acked(self) -> int:
        """What to acknowledge: the bytes received in order, one more when the end is known."""
        return self.next + 1 if self.ended else self.next

    @property
    def runs(self) -> int:
        """Pieces that wait with a gap before them."""
        return 0 if self.early is None else self.early.runs

    def receive_piece(self, offset: int, data: bytes, fin: bool) -> tuple[list[bytes], int]:
        """Take a piece; give what is now in order, and by how much `highest` rose.

        `ProtocolError` when it goes beyond the credit or contradicts the end.
        """
        end = offset + len(data)
        if end > self.limit:
            raise ProtocolError(f"stream data up to {end}, credit is {self.limit}", CloseCode.FLOW)
        self.check_final(end, fin)
        rise = max(0, end - self.highest)
        self.highest += rise
        if fin:
            self.final = end
        if self.ended:
            return [], rise
        if offset > self.next:
            if data:
                self._keep_early(offset, data)
            return [], rise
        out: list[bytes] = []
        if end > self.next:
            out.append(data if offset == self.next else data[self.next - offset :])
            self.next = end
            if self.early is not None:
                joined = self.early.take_ready(end)
                if joined:
                    out.append(joined)
                    self.next += len(joined)
                if not self.early.runs:
                    self.early = None
        if self.next == self.final:
            self.ended = True
        return out, rise

    def check_final(self, end: int, fin: bool) -> None:
        """Raise `ProtocolError` when a piece ending at `end` contradicts what is known of the stream's end."""
        if end > MAX_OFFSET:
            raise ProtocolError(f"stream offset {end} is above 2^62", CloseCode.FLOW)
        if self.final is not None and (end > self.final or (fin and end != self.final)):
            raise ProtocolError(f"stream data up to {end} contradicts its end at {self.final}")
        if fin and end < self.highest:
            raise ProtocolError(f"stream ends at {end}, but {self.highest} bytes were seen")

    def _keep_early(self, offset: int, data: bytes) -> None:
        if self.early is None:
            self.early = Reassembly(self.next)
        self.early.put_piece(offset, data)
        if self.early.runs > most_runs(self.window):
            raise ProtocolError("stream arrives in too many scattered pieces", CloseCode.LIMIT)

    def grant_credit(self, room: int, window: int, share: int) -> bool:
        """Raise the credit to what the application has read and the window beyond it; True if that is any more.
        `share` is this stream's part of the connection's `window`, and `room` what is left of that.

        A stream of which little was read so far has little ahead: a kernel takes that for a program that reads
        nothing, too. Where less than half is left, no stream goes on to be ahead of its reader by more than a part of
        what is left for all others, and each comes near to that in small steps, since many do so at once. A part of
        the window each has in any case.
        """
        before, ahead = self.limit, min(self.window, max(self.first, min(share, EARNED * self.consumed)))
        step = ahead // self.grants
        if 2 * room < window:
            least = min(ahead, window // LEAST_PART)
            read = min(self.consumed - self._looked_at, ahead // 16)
            near = min(room // LEFT_PARTS, self.limit - self._looked_at + read // 4)
            ahead = min(ahead, max(least, near))
            step = max(1, ahead // max(16, self.grants))
        self.limit = max(before, self.consumed + ahead)
        self._looked_at, self.grant_at = self.consumed, self.consumed + step
        self._plan_raise(self.consumed + self.window)
        return self.limit > before

    def raise_unread(self) -> bool:
        """Raise the credit to a step beyond what has come, though nothing more was read; True if that is any more."""
        before, until = self.limit, self.consumed + self.window
        if self.takes_no_more:
            return False
        self.limit = max(before, min(until, self.next + self.step))
        self._plan_raise(until)
        return self.limit > before

    def _plan_raise(self, until: int) -> None:
        self.raise_at = self.limit - self.step // 2 if self.limit < until else NO_OFFSET

    @property
    def takes_no_more(self) -> bool:
        """True if nothing more is to come, or nobody reads what still does."""
        return self.ended or self.final is not None or self.stop_code is not None

    def grant_often(self) -> None:
        """Have credit told each time that a little was read."""
        self.grants = OFTEN
        self.grant_at = min(self.grant_at, self.consumed + self.window // OFTEN)

    @property
    def is_short(self) -> bool:
        """True if the peer was given less than the whole window beyond what was read, just now."""
        return self.limit - self.consumed < self.window and self.final is None and self.stop_code is None

    def end_by_reset(self, final: int) -> int:
        """RESET from the peer: nothing more comes. Gives how many bytes were never handed on, for the credit.

        What was handed on is reported as consumed by whoever has it, void or not: each byte's credit goes back once.
        """
        self.check_final(final, True)
        if final > self.limit:
            raise ProtocolError(f"reset at {final}, credit is {self.limit}", CloseCode.FLOW)
        missing = final - self.next
        self.final = self.next = self.highest = final
        self.ended = True
        self.early = None
        return missing


class RecentReaders:
    """How many streams of a connection are read at once, and not over yet: of so many some `span` of bytes was that
    were read last."""

    __slots__ = ("_before", "_now", "_span", "_until")

    def __init__(self, span: int) -> None:
        self._span = self._until = span
        self._before, self._now = set[int](), set[int]()

    def count_reader(self, stream_id: int, consumed: int) -> int:
        """Return how many they are, with this one; `consumed` is what was read of the connection so far."""
        if consumed >= self._until:
            self._before, self._now, self._until = self._now, set(), consumed + self._span
        self._now.add(stream_id)
        return max(len(self._before), len(self._now))

    def forget_reader(self, stream_id: int) -> None:
        """Count a stream no more: nothing more comes on it."""
        self._before.discard(stream_id)
        self._now.discard(stream_id)


class SessionStream:
    """A stream as the session sees it: two halves and a few marks."""

    __slots__ = ("acks_late", "announce", "low", "queued", "receive", "send", "splice", "stream_id")

    def __init__(self, stream_id: int, send_limit: int, limits: Limits) -> None:
        self.stream_id = stream_id
        self.low = limits.write_low  # `StreamWritable` is told when what waits to be sent falls to this
        self.send = SendHalf(send_limit)
        step = max(1, limits.connection_window // LEAST_PART)
        self.receive = ReceiveHalf(limits.stream_window, limits.first_credit, step)
        self.queued = False  # waits for its turn
        self.announce = False  # the peer is to hear of it, be it by an empty frame
        self.acks_late = False  # whoever sends on it waits for no acknowledgement
        self.splice: object | None = None  # whose bytes are to be reported where they stand, as `SplicedData`

    @property
    def may_be_forgotten(self) -> bool:
        """True when the peer may have done with it: our end was told, and its end has come."""
        return self.send.told_end and self.receive.ended


class StreamNumbers:
    """Which streams each side has opened, and may open: the client's have even numbers, the server's odd ones."""

    __slots__ = (
        "_closed",
        "_closed_for_more",
        "_most",
        "_opened_for_more",
        "_own",
        "away",
        "never_answered",
        "next_own",
        "next_peer",
        "own_allowed",
        "peer_allowed",
        "peer_away_from",
    )

    def __init__(self, own_allowed: int, most: int, *, client: bool) -> None:
        """`own_allowed` is what the peer allows at first; it may have `most` open at once."""
        self._own = self.next_own = 0 if client else 1
        self.next_peer = 1 if client else 0
        self.own_allowed, self._most = own_allowed, most
        self.peer_allowed = min(most, STREAMS_AHEAD)
        self._closed = 0  # of the peer's
        self.never_answered = 0  # streams opened here that the peer has reset before any byte of theirs
        #: The first of the peer's that is refused, since this side is away.
        self.away: int | None = None
        #: The peer takes no new streams from this one on; `MAX_OFFSET` where it has only asked for none.
        self.peer_away_from: int | None = None
        self._plan_more()

    def is_own(self, stream_id: int) -> bool:
        """True for a stream that this side opens."""
        return (stream_id & 1) == self._own

    @property
    def can_open(self) -> bool:
        """True when the peer allows another stream now."""
        return self.next_own >> 1 < self.own_allowed

    @property
    def opened_by_client(self) -> int:
        """Streams that the client has opened so far."""
        return (self.next_peer if self._own else self.next_own) >> 1

    @property
    def is_worth_allowing(self) -> bool:
        """True when so many were closed, and opened, that the peer is to be told of more."""
        return self._closed >= self._closed_for_more and self.next_peer >= self._opened_for_more

    def allow_more(self) -> int:
        """Allow the peer more streams; return how many it may have opened in all."""
        ahead = (self.next_peer >> 1) + STREAMS_AHEAD
        self.peer_allowed = min(self._closed + self._most, ahead)
        self._plan_more()
        return self.peer_allowed

    def note_closed(self, stream_id: int) -> None:
        """Note that a stream is over."""
        if not self.is_own(stream_id):
            self._closed += 1

    def is_refused(self, stream_id: int) -> bool:
        """True for a stream that the peer opened when this side was away: it was never told of, and never is."""
        return self.away is not None and stream_id >= self.away and not self.is_own(stream_id)

    def _plan_more(self) -> None:
        """Compute how many have to be closed, and which opened, until it is worth telling that more are allowed."""
        worth = self.peer_allowed + max(1, min(self._most, STREAMS_AHEAD) // 4)
        self._closed_for_more, self._opened_for_more = worth - self._most, 2 * (worth - STREAMS_AHEAD)


class Gaps:
    """What lies between, or behind, what has come of streams, and never came itself."""

    __slots__ = ("never_arrived", "runs")

    def __init__(self) -> None:
        #: Bytes that only the final offset of a RESET tells of, or that lie before what came early.
        self.never_arrived = 0
        #: Pieces that wait with a gap before them.
        self.runs = 0
