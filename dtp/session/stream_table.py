"""The streams of a session: which there are, what was written and read of them, and what the peer is told of that.

Source: docs/wire.md, sections "Streams", "Credit" and "Resume".
"""

from __future__ import annotations

from collections import deque

from dtp.session import events as ev
from dtp.session.codes import CloseCode, ProtocolError, StreamClosed, check_code
from dtp.session.credit import Acknowledgements, ReceiveCredit, SendCredit
from dtp.session.frames import CONNECTION, RESET, STOP, WINDOW, ControlQueue, FrameType, Outgoing
from dtp.session.limits import Limits
from dtp.session.payload import Params
from dtp.session.reassembly import RUN
from dtp.session.streams import Gaps, SessionStream, StreamNumbers, most_runs

_WINDOW, _pack_window = int(FrameType.WINDOW), WINDOW.pack  # one for each stream: looked up once
#: About what a stream takes, bytes.
_STREAM = 2048


class StreamTable:
    """The streams that are not over, by their numbers in the order in which they were opened here or heard of.

    `by_id` is shared with what counts or bounds streams: it stays the same dict until the end.
    """

    __slots__ = (
        "_control",
        "_events",
        "_limits",
        "_undelivered",
        "_window",
        "acks",
        "by_id",
        "gaps",
        "numbers",
        "receive_credit",
        "send_credit",
        "turns",
    )

    def __init__(
        self,
        allowed: Params,
        limits: Limits,
        by_id: dict[int, SessionStream],
        control: ControlQueue,
        events: list[ev.Event],
        *,
        client: bool,
    ) -> None:
        """`allowed` is what the peer lets this side do at first; frames for it go into `control`."""
        self._limits, self._control, self._events = limits, control, events
        self._window = allowed.stream_window
        self.by_id = by_id
        self.numbers = StreamNumbers(allowed.streams, limits.streams, client=client)
        #: Streams with something to send, in the order of their turns.
        self.turns: deque[SessionStream] = deque()
        self.send_credit = SendCredit(allowed.connection_window, limits.unacknowledged)
        self.receive_credit = ReceiveCredit(limits.connection_window, by_id)
        self.gaps = Gaps()
        self.acks = Acknowledgements(limits)
        self._undelivered: frozenset[int] = frozenset()  # once ended: streams the peer has not all of

    # ---- what moved, and what is kept --------------------------------------------------------------------

    @property
    def moved(self) -> int:
        """Bytes both ways so far."""
        return self.send_credit.sent + self.receive_credit.received - self.gaps.never_arrived

    @property
    def arrived(self) -> int:
        """Bytes that came so far, each once."""
        return self.receive_credit.received - self.gaps.never_arrived

    @property
    def kept_unread(self) -> int:
        """Bytes that were received and not consumed, with the gaps between them and what keeping the order takes."""
        return self.receive_credit.unread + self.gaps.runs * RUN

    @property
    def kept_for_peer(self) -> int:
        """Bytes that are kept for the peer's sake: received and not consumed, or sent and not acknowledged, with what
        streams take; in few steps."""
        sent, received = self.send_credit, self.receive_credit
        kept = sent.sent - sent.released + received.received - received.consumed
        return kept + self.gaps.runs * RUN + len(self.by_id) * _STREAM

    @property
    def kept_unacknowledged(self) -> int:
        """Bytes that were written and not acknowledged, be they sent or not."""
        return sum(max(0, each.send.end - each.send.acked) for each in self.by_id.values())

    @property
    def has_undelivered(self) -> bool:
        """True if anything that was written is not acknowledged."""
        return any(each.send.acked < each.send.end for each in self.by_id.values())

    @property
    def unanswered(self) -> int:
        """Streams that this side opened and got neither a byte nor an end of, be they given up since."""
        numbers = self.numbers
        return numbers.never_answered + sum(
            numbers.is_own(each.stream_id) and not each.receive.ended and not each.receive.next
            for each in self.by_id.values()
        )

    def is_acknowledged(self, stream_id: int) -> bool:
        """True when the peer has everything that was written to this stream: see `Session.is_acknowledged`."""
        stream = self.by_id.get(stream_id)
        if stream is None:
            return stream_id not in self._undelivered
        send = stream.send
        if send.finished and send.reset_code is None:
            return send.done
        return send.done or min(send.acked, send.highest) == send.end

    # ---- beginning and end -------------------------------------------------------------------------------

    def open_stream(self) -> int | None:
        """Open a stream and return its id; None when the peer's limit is reached."""
        numbers = self.numbers
        if not numbers.can_open:
            return None
        stream_id = numbers.next_own
        numbers.next_own += 2
        stream = self._add_stream(stream_id)
        stream.announce = stream.queued = True
        self.turns.append(stream)
        return stream_id

    def open_from_peer(self) -> None:
        """Open the peer's next stream; where this side is away, refuse it and tell nobody here."""
        numbers = self.numbers
        opened = numbers.next_peer
        numbers.next_peer += 2
        self._add_stream(opened)
        if numbers.is_refused(opened):
            self.reset_stream(opened, CloseCode.SHUTDOWN)
            self.stop_stream(opened, CloseCode.SHUTDOWN)
        else:
            self._events.append(ev.StreamOpened(opened))

    def _add_stream(self, stream_id: int) -> SessionStream:
        stream = SessionStream(stream_id, self._window, self._limits)
        self.by_id[stream_id] = stream
        return stream

    def get_writable(self, stream_id: int) -> SessionStream:
        """Return a stream that may be written to. `StreamClosed`."""
        stream = self.by_id.get(stream_id)
        if stream is None or not stream.send.open:
            raise StreamClosed(f"stream {stream_id} can't be written to: it was finished or reset")
        return stream

    def take_turn(self, stream: SessionStream) -> None:
        """Have a stream sent from, if it isn't already."""
        if not stream.queued:
            stream.queued = True
            self.turns.append(stream)

    def reset_stream(self, stream_id: int, error_code: int) -> None:
        """Give up sending: see `Session.reset_stream`. `ProtocolError` where too many frames wait for the peer."""
        check_code(error_code)
        stream = self.by_id.get(stream_id)
        if stream is not None and stream.send.reset_code is None and not stream.send.done:
            self.send_credit.release_bytes(stream.send.kept)
            stream.send.reset_sending(error_code)
            self._control.queue_frame(FrameType.RESET, RESET.pack(stream_id, error_code, stream.send.highest))

    def stop_stream(self, stream_id: int, error_code: int) -> None:
        """End reading: see `Session.stop_stream`. `ProtocolError` where too many frames wait for the peer."""
        check_code(error_code)
        stream = self.by_id.get(stream_id)
        if stream is not None and stream.receive.stop_code is None and not stream.receive.ended:
            receive = stream.receive
            receive.stop_code = error_code
            self.receive_credit.note_read(stream, receive.next - receive.consumed)
            self._control.extend(self.take_due_acks(stream_id))
            self._control.queue_frame(FrameType.STOP, STOP.pack(stream_id, error_code))

    def decline_stream(self, stream_id: int) -> None:
        """Note that the peer takes no stream of this number up, and tell what was written to it, since that may go
        another way."""
        stream = self.by_id.get(stream_id)
        if stream is not None and not stream.receive.ended and not stream.receive.next:
            self._events.append(ev.StreamDeclined(stream_id, stream.send.written))
            self.reset_stream(stream_id, CloseCode.SHUTDOWN)

    def forget_if_done(self, stream: SessionStream) -> bool:
        """True when it is over and forgotten now."""
        stream_id = stream.stream_id
        if not stream.receive.ended or not stream.send.done or stream_id not in self.by_id:
            return False
        del self.by_id[stream_id]
        self._events.append(ev.StreamDone(stream_id))
        # The peer learns from this last word that it may forget the stream, too.
        if self.receive_credit.forget_stream(stream_id):
            self._control.append(self.build_window(stream))
        self.numbers.note_closed(stream_id)
        return True

    def end_all(self, *, lost: bool) -> None:
        """Forget all streams, since the session has ended. Where it was `lost`, nobody knows if the peer has heard of
        the end of those whose bytes it has."""
        self._undelivered = frozenset(
            key
            for key, stream in self.by_id.items()
            if not self.is_acknowledged(key) and (lost or stream.send.acked < stream.send.end)
        )
        # What waits behind a gap is dropped; what came in order is with whoever reads it.
        self.receive_credit.note_dropped(
            sum(each.receive.highest - each.receive.next for each in self.by_id.values())
        )
        self.by_id.clear()
        self.turns.clear()
        self.receive_credit.windows.clear()

    # ---- from the peer -----------------------------------------------------------------------------------

    def receive_piece(self, stream: SessionStream, offset: int, data: bytes, fin: bool, now: float) -> bool:
        """Take a STREAM frame's data; False if that brought nothing: it came before, or is empty."""
        stream_id, receive, credit = stream.stream_id, stream.receive, self.receive_credit
        known_end = receive.ended
        runs, gap = receive.runs, receive.highest - receive.next
        pieces, rise = receive.receive_piece(offset, data, fin)
        # What lies behind a gap doesn't count before that is filled: it might never be.
        self.gaps.never_arrived += receive.highest - receive.next - gap
        if runs or receive.early is not None:
            self.gaps.runs += receive.runs - runs
            if self.gaps.runs > len(self.by_id) + most_runs(self._limits.connection_window):
                raise ProtocolError("streams arrive in too many scattered pieces", CloseCode.LIMIT)
        credit.received += rise
        if credit.received >= credit.scarce_at:
            credit.check_received()
        if receive.stop_code is not None:
            credit.note_read(stream, sum(map(len, pieces)))
        else:
            for piece in pieces:
                if piece:
                    self._events.append(ev.StreamData(stream_id, piece))
        if receive.ended:
            self._note_ended(stream, None if known_end else ev.StreamFinished(stream_id))
        else:
            self.acks.due[stream_id] = None
            self.acks.plan(stream, credit.received, now)
            if receive.next >= receive.raise_at:
                credit.raise_unread(stream)
        return rise > 0 or receive.ended != known_end

    def receive_reset(self, stream: SessionStream, code: int, final: int) -> bool:
        """Take the end of a stream that the peer has given up; False if it had ended before."""
        receive, credit = stream.receive, self.receive_credit
        receive.check_final(final, True)
        if receive.ended:
            return False
        if not receive.next and self.numbers.is_own(stream.stream_id):
            self.numbers.never_answered += 1
        rise = max(0, final - receive.highest)
        self.gaps.runs -= receive.runs
        missing = receive.end_by_reset(final)
        credit.received += rise
        self.gaps.never_arrived += rise
        if credit.received > credit.limit:
            raise ProtocolError("reset goes beyond the connection's credit", CloseCode.FLOW)
        credit.note_dropped(missing)
        self._note_ended(stream, ev.StreamWasReset(stream.stream_id, code))
        return True

    def _note_ended(self, stream: SessionStream, told: ev.Event | None) -> None:
        self.receive_credit.note_ended(stream.stream_id)
        if told is not None and not self.numbers.is_refused(stream.stream_id):
            self._events.append(told)
        self.forget_if_done(stream)

    def mark_acknowledged(self, stream: SessionStream, acked: int) -> None:
        """Note that the peer has all below `acked`, more than before: what was kept of that need not be any more."""
        kept = stream.send.kept
        stream.send.mark_acknowledged(acked)
        if kept:
            self.send_credit.release_bytes(kept - stream.send.kept)

    def send_again(self, listed: set[int], seen: int, opened: int) -> None:
        """Send again what the peer doesn't have, and forget what it has done with, by its list: it has `seen` so many
        of this side's streams, and `opened` so many; those it has not done with are `listed`."""
        for stream in list(self.by_id.values()):
            own = self.numbers.is_own(stream.stream_id)
            # A stream of the peer's may be newer than this list, and have come over a faster link.
            told = stream.stream_id >> 1 < (seen if own else opened)
            if told and stream.stream_id not in listed:
                if not stream.may_be_forgotten:
                    raise ProtocolError(f"STATE has done with stream {stream.stream_id}, which has not ended")
                self.send_credit.release_bytes(stream.send.kept)
                stream.send.forget_kept()
                self.forget_if_done(stream)
                continue
            if own and not told and stream.send.acked:
                raise ProtocolError(f"STATE has not seen stream {stream.stream_id}, which was acknowledged")
            if stream.send.reset_code is None:
                stream.send.rewind_unacked()
        self.turns.clear()
        for stream in self.by_id.values():
            stream.queued = False
            if stream.send.ready or stream.announce:
                self.take_turn(stream)

    # ---- to the peer -------------------------------------------------------------------------------------

    def build_window(self, stream: SessionStream, flags: int = 0) -> Outgoing:
        """Return a WINDOW frame: what was received of a stream, which is acknowledged by that, and its credit."""
        stream_id, receive = stream.stream_id, stream.receive
        self.acks.due.pop(stream_id, None)
        return (_WINDOW, flags, 0, 0, _pack_window(stream_id, receive.acked, receive.limit))

    def build_connection_window(self) -> Outgoing:
        """Return a WINDOW frame with the credit of all streams together."""
        credit = self.receive_credit
        return (_WINDOW, 0, 0, 0, _pack_window(CONNECTION, credit.received, credit.limit))

    def take_due_acks(self, *stream_ids: int) -> list[Outgoing]:
        """Return what was received of these streams and not yet acknowledged: with a goodbye it is said at once."""
        due = [self.by_id[key] for key in stream_ids if key in self.acks.due and key in self.by_id]
        return [self.build_window(each) for each in due]

    def plan_due_acks(self) -> None:
        """Have the acknowledgements sent that are due."""
        due = self.acks.take_due(self.receive_credit.received)
        self.receive_credit.windows.update((key, None) for key in due if key in self.by_id)
