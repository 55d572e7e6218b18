"""Links come and go: attaching, replacing, losing them, and the lists by which both sides then go on.

Source: docs/wire.md, "Resume" and "Several links".
"""

from __future__ import annotations

import hmac

from dtp.session import events as ev
from dtp.session.codes import CloseCode, ProtocolError, describe
from dtp.session.frames import (
    ADD,
    CloseFrame,
    FrameType,
    parse_close,
    parse_fixed,
)
from dtp.session.handshake import Established
from dtp.session.link import Link, attach_proof, build_attach
from dtp.session.sealing import Sealing, list_place


class Linking(Sealing):
    """What a session does about its carriers."""

    def new_link(self, established: Established, now: float, *, add: bool = False) -> Link:
        """Return a link from another handshake of the same two identities, to resume the session or (`add`) to widen
        it.

        On the client's side ATTACH is queued on it at once; on the server's the link waits for the client's.
        """
        if established.peer != self.peer:
            raise ProtocolError("another identity tries to take over a connection", CloseCode.RESUME_PROOF)
        # The client numbers the links; a server's link has no number until ATTACH tells it.
        history = self._link_history
        number = history.next if self.client or not history.next else -1
        link = Link(number, established, self.limits, now)
        link.exchange.moved = self.moved
        if number > 0:
            history.used.add(number)
            link.adding = add
            link.control.append(build_attach(self.connection_id, self._secret, link, client=True))
            if not add:
                self._replace_links(link)
                self._link_times.note_replaced(now)
        history.next += 1
        return link

    def link_lost(
        self, link: Link, now: float, reason: str = "carrier lost", refusal: int | None = None
    ) -> None:
        """Note that this carrier is gone. With others left they take over; else `Detached` until resumed.
        Idempotent."""
        if link.lost:
            return
        link.close()
        if self._links.pop(link.number, None) is None or self.ended is not None:
            return
        self._events.append(ev.LinkLost(link, reason, refusal))
        self._ack_watch.reset_watch(now)
        self._link_history.unanswered.add(link.number)
        if len(self._link_history.unanswered) > self.limits.control:
            self.close(CloseCode.LIMIT, "too many carriers were lost of which the peer says nothing")
            return
        if not self.client and not self._confirmed:
            # Whoever sent the first message never proved to be alive: nothing to resume.
            self._end_session(ev.SessionEnded(CloseCode.IDLE, reason, by_peer=True, lost=True))
        elif self._links:
            self._send_lists(next(iter(self._links.values())))
        elif self._link_times.detached_at is None:
            self._note_detached(now)

    @property
    def attached(self) -> bool:
        """True while at least one link carries the session."""
        return bool(self._links)

    def _note_detached(self, now: float) -> None:
        """Note that no link is left. When the last one carried nothing of what waits, the time for resuming
        goes on."""
        waits = any(stream.send.acked < stream.send.end for stream in self._streams.values())
        moved = self._active_at >= self._link_times.attached_at
        self._link_times.note_detached(now, was_of_use=moved or not waits)
        self._events.append(ev.Detached())

    def _attach_link(self, link: Link, now: float) -> None:
        link.attached = True
        self._links[link.number] = link
        for other in [each for each in self._links.values() if each.is_silent] if self.client else ():
            self.link_lost(other, now, "silent while another carrier answers")
        self._idle.count = 0  # a list repeats much, and a handshake was paid for it
        self._ack_watch.reset_watch(now)
        self._link_times.note_attached(now)
        self._events.append(ev.LinkAttached(link))

    def _replace_links(self, link: Link) -> None:
        """Let `link` take the place of all others: both sides begin it with their lists."""
        for old in list(self._links.values()):
            old.close()
            self._events.append(ev.LinkLost(old, "replaced by a newer carrier"))
        self._links.clear()
        history = self._link_history
        history.awaiting_state = True
        history.unanswered = {link.number}
        history.told.clear()
        self._send_lists(link)

    def _send_lists(self, link: Link) -> None:
        """Send a list for each lost link that the peer has not answered for, unless one is on its way."""
        history = self._link_history
        for lost in sorted(history.unanswered):
            if history.told.get(lost) not in self._links:
                self._send_list(link, lost)

    def _send_list(self, link: Link, lost: int) -> None:
        self._link_history.told[lost] = link.number
        link.control.append(list_place(lost))

    def _on_fresh_link(self, link: Link, frame: int, flags: int, body: bytes, now: float) -> None:
        """Take the first frame of a link that wants to carry this session: it must prove that it may."""
        if link.lost:  # by a CLOSE before, in the same batch
            return
        if frame == FrameType.CLOSE:
            self._on_fresh_close(link, parse_close(flags, body))
            return
        if frame != FrameType.ATTACH:
            raise ProtocolError("a new carrier must begin with ATTACH", CloseCode.RESUME_PROOF)
        connection, number, proof = parse_fixed(frame, body)
        add = bool(flags & ADD)
        expected = attach_proof(self._secret, link.hash, client=not self.client)
        if connection != self.connection_id or not hmac.compare_digest(expected, bytes(proof)):
            raise ProtocolError("a new carrier can't prove that it belongs here", CloseCode.RESUME_PROOF)
        assert isinstance(number, int)
        if not self.client:
            self._attach_server(link, number, add=add)
        elif (number, add) != (link.number, link.adding):
            raise ProtocolError("the server's ATTACH does not answer ours")
        elif number in self._link_history.heard:  # STATE came first, over another link
            link.close()
            self._events.append(ev.LinkLost(link, "the server lost this carrier"))
            return
        if link.adding and not self._links:
            self._send_lists(link)  # those there were have been lost meanwhile
        self._attach_link(link, now)

    def _on_fresh_close(self, link: Link, close: CloseFrame) -> None:
        """Note that the link is not taken. The session ends only with the last way to go on: nothing has proven the
        secret."""
        if self.client and not self._links:
            self._closed_by_peer(close)
            return
        link.close()
        self._events.append(
            ev.LinkLost(link, f"refused: {describe(close.close_code)} {close.reason}".rstrip())
        )

    def _attach_server(self, link: Link, number: int, *, add: bool) -> None:
        if number in self._link_history.used:
            raise ProtocolError(f"link number {number} was used before")
        if add and len(self._links) >= self.limits.links:
            raise ProtocolError(f"there are {len(self._links)} links already", CloseCode.LIMIT)
        self._link_history.used.add(number)
        link.number, link.adding = number, add
        link.control.append(build_attach(self.connection_id, self._secret, link, client=False))
        if not add:
            self._replace_links(link)
