"""The parts of a session, and how it ends."""

from __future__ import annotations

import hashlib

from dtp.session import events as ev
from dtp.session.codes import CloseCode, ConnectionClosed, ProtocolError, check_code
from dtp.session.datagrams import DatagramQueue
from dtp.session.exchange import Exchanges
from dtp.session.frames import CloseFrame, ControlQueue, FrameType, build_close
from dtp.session.handshake import Established
from dtp.session.limits import Limits
from dtp.session.link import Link, LinkTable, SessionFacts
from dtp.session.noise import protocol_name
from dtp.session.payload import CONNECTION_ID
from dtp.session.stream_table import StreamTable
from dtp.session.streams import SessionStream
from dtp.session.watches import Liveness, Readiness


class SessionState:
    """What a session consists of, each part with its own invariant; and its end, which concerns all of them.

    `Session` has the interface, and `Sealing` and `Receiving`, which have no fields, what goes over links.
    """

    def __init__(
        self,
        established: Established,
        limits: Limits,
        now: float,
        *,
        client: bool,
        exchanges: Exchanges | None = None,
    ) -> None:
        split = established.split
        self.limits = limits
        self.facts = SessionFacts(
            client,
            established.peer,
            established.payload.service,
            protocol_name(established.pattern, established.suite),
            hashlib.sha256(b"dtp.connection.v1" + split.hash).digest()[:CONNECTION_ID],
            split.secret,
            established.payload.params.datagram,
        )
        self.ended: ev.SessionEnded | None = None
        self._active_at = now
        self._readiness = Readiness(client=client)
        # What has happened and the program wasn't told yet, and what the peer wasn't: the parts add to both.
        self._events: list[ev.Event] = []
        streams: dict[int, SessionStream] = {}
        self._control = ControlQueue(limits.control, streams)
        self._datagrams = DatagramQueue(limits)
        self.streams = StreamTable(
            established.payload.params, limits, streams, self._control, self._events, client=client
        )
        self.links = LinkTable(self.facts, limits, self._events, now, exchanges)
        self.liveness = Liveness(limits, self._readiness, self.links, self.streams, now)

    # ---- ends -------------------------------------------------------------------------------------------

    def close(self, code: int = 0, reason: str = "", *, application: bool = False, detail: int = 0) -> None:
        """End the session. One CLOSE frame is still to be sealed on each link; then the carriers may go."""
        check_code(code)
        check_code(detail)
        if self.ended is None:
            acks = self.streams.take_due_acks(*self.streams.acks.due)
            self._end_session(
                ev.SessionEnded(code, reason, by_peer=False, application=application, detail=detail)
            )
            close = build_close(CloseFrame(code, reason, application, detail))
            for link in self.links.by_number.values():
                link.control += acks
                link.control.append(close)

    def link_lost(
        self, link: Link, now: float, reason: str = "carrier lost", refusal: int | None = None
    ) -> None:
        """Note that this carrier is gone. With others left they take over; else `Detached` until resumed.
        Idempotent."""
        if link.lost or not self.links.remove_link(link) or self.ended is not None:
            return
        history, times, left = self.links.history, self.links.times, self.links.by_number
        self._events.append(ev.LinkLost(link, reason, refusal))
        self.liveness.ack_watch.reset_watch(now)
        history.unanswered.add(link.number)
        if len(history.unanswered) > self.limits.control:
            self.close(CloseCode.LIMIT, "too many carriers were lost of which the peer says nothing")
        elif not self._readiness.confirmed:
            # Whoever sent the first message never proved to be alive: nothing to resume.
            self._end_session(ev.SessionEnded(CloseCode.IDLE, reason, by_peer=True, lost=True))
        elif left:
            self.links.send_lists(next(iter(left.values())))
        elif times.detached_at is None:
            # When the last one carried nothing of what waits, the time for resuming goes on.
            moved = self._active_at >= times.attached_at
            times.note_detached(now, was_of_use=moved or not self.streams.has_undelivered)
            self._events.append(ev.Detached())

    def _attach_link(self, link: Link, now: float) -> None:
        links = self.links
        links.attach_link(link, now)
        if self.facts.client:
            for other in [each for each in links.by_number.values() if each.is_silent]:
                self.link_lost(other, now, "silent while another carrier answers")
        self.liveness.idle.count = 0  # a list repeats much, and a handshake was paid for it
        self.liveness.ack_watch.reset_watch(now)
        self._events.append(ev.LinkAttached(link))

    def _closed_by_peer(self, close: CloseFrame) -> None:
        lost = close.close_code == CloseCode.RESUME_UNKNOWN and not close.application
        self._end_session(
            ev.SessionEnded(close.close_code, close.reason, True, close.application, lost, close.detail)
        )

    def _end_by(self, error: ProtocolError) -> None:
        self.close(error.close_code, str(error))

    def _fail_link(self, link: Link, error: ProtocolError) -> None:
        """End the session of a peer that broke the rules; only the link, if it never proved itself."""
        if link.attached:
            self._end_by(error)
        else:
            link.control.clear()
            link.control.append(build_close(CloseFrame(error.close_code, str(error))))
            link.refused = True
            self._events.append(ev.LinkLost(link, str(error)))

    def _end_session(self, ended: ev.SessionEnded) -> None:
        if self.ended is None:
            self.ended = ended
            self.streams.end_all(lost=ended.lost)
            self._control.clear()
            self._datagrams.clear()
            self._events.append(ended)

    # ---- steps ------------------------------------------------------------------------------------------

    def _check_open(self) -> None:
        ended = self.ended
        if ended is not None:
            raise closed_error(ended)

    def _queue_control(self, frame: FrameType, body: bytes = b"") -> None:
        """Queue a frame; end the session where too many wait."""
        try:
            self._control.queue_frame(frame, body)
        except ProtocolError as crowded:
            self._end_by(crowded)


def closed_error(ended: ev.SessionEnded) -> ConnectionClosed:
    """Return the exception for what is asked of a session that has ended."""
    return ConnectionClosed(ended.close_code, ended.reason, ended.by_peer, ended.application, ended.detail)
