"""Bytes in: records are opened, and each frame does what docs/wire.md says of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from operator import length_hint

from dtp.core import Buffer
from dtp.core import Frame as Received
from dtp.core.errors import FrameError, TooManyFrames
from dtp.core.records import RECORD_FRAMES
from dtp.session import events as ev
from dtp.session.codes import CloseCode, ProtocolError, describe
from dtp.session.exchange import COST as EXCHANGE_COST
from dtp.session.frames import (
    ADD,
    CONNECTION,
    FIN,
    FIXED,
    LISTED,
    MAX_METER,
    MAX_OFFSET,
    PING,
    STREAMS,
    CloseFrame,
    FrameType,
    control,
    parse_close,
    parse_fixed,
)
from dtp.session.link import Link, Unread
from dtp.session.sealing import Sealing
from dtp.session.streams import SessionStream

_STREAM = int(FrameType.STREAM)
#: Frames of one call of `receive_records` at most: they cost 1 to 5 us each, and others wait for their turn.
MOST_FRAMES = 64 * RECORD_FRAMES
#: A stream that is opened costs as much as so many frames: it is told to whoever takes it up.
STREAM_COST = 4

#: Data is handed on in pieces of at most this size, so that a reader who asks for 256 KiB at a time gets what there
#: is without another copy.
PIECE = 256 * 1024


def _pieces(flags: int, stream_id: int, offset: int, start: int, length: int) -> Iterator[Received]:
    """Yield the pieces of a STREAM frame that C has joined from many; the end of the stream is on the last."""
    for at in range(0, length, PIECE):
        size = min(PIECE, length - at)
        last = at + size == length
        yield _STREAM, flags if last else flags & ~FIN, stream_id, offset + at, start + at, size


class _TooManyOpened(Exception):
    """A frame opens more streams than one call of `receive_records` may."""


class Receiving(Sealing):
    """The receiving half of a session: what a link brought, for its parts."""

    #: Streams of the peer's below this id may be opened by this call of `receive_records`.
    _open_until = 0

    def receive_records(
        self, link: Link, buffer: Buffer, start: int, end: int, now: float, most: int = MOST_FRAMES
    ) -> tuple[int, int]:
        """Open what a carrier brought into `buffer[start:end]`; the records are opened in place.

        Return the index behind the last record that was opened, and what all that was taken cost, in frames:
        `LinkOpener.weight`, and `STREAM_COST` for each stream that was opened: one frame opens all up to its own.
        No more than `most` frames are taken, and streams opened for as much again. The other frames of a record stay
        in `link.unread`: call again, if need be without bytes. Where it cost `most` or more whole records may be left
        as well; else what follows is the start of one and belongs in front of what comes next. An error ends the link
        or the session; see the events.
        """
        numbers = self.streams.numbers
        used, count, first = start, 0, numbers.next_peer
        self._open_until = first + 2 * max(1, most // STREAM_COST)
        unread = link.unread
        if unread is not None and not link.lost and not link.refused:
            link.unread = None
            count = self._handle_unread(link, unread, now, most, kept=True)
        if used < end and link.unread is None and count < most and not link.lost and not link.refused:
            taken, frames, error = link.opener.open(buffer, used, end, most - count - 1)
            used += taken
            count += link.opener.weight - len(frames)
            self.liveness.idle.count += link.opener.rekeyed
            if taken:
                self._note_record(link, now)
            if error is not None and not isinstance(error, FrameError | TooManyFrames):
                refusal = self._refusal_at(link, buffer.view[used:end])
            else:
                refusal = None
            count += self._handle_unread(link, Unread(buffer.view, frames, error, refusal), now, most - count)
        # Not while reading, or one read could open what it made room for itself.
        if numbers.is_worth_allowing:
            self._queue_control(FrameType.STREAMS, STREAMS.pack(numbers.allow_more()))
        return used, count + STREAM_COST * ((numbers.next_peer - first) >> 1)

    def _note_record(self, link: Link, now: float) -> None:
        """Note that a record of the peer's has opened."""
        link.last_received = now
        link.ping_sent = None
        if link.exchange.changing and not link.opener.waits_for_fresh:
            self._peer_changed_over(link, now)
        if not link.confirmed:
            link.confirmed = True
            readiness = self._readiness
            if not readiness.confirmed:
                readiness.confirmed = True
                self._events.append(ev.Confirmed())
                if readiness.refusal is not None:
                    self.close(*readiness.refusal)

    def _handle_unread(self, link: Link, unread: Unread, now: float, most: int, *, kept: bool = False) -> int:
        """Do what the first `most` of the frames say, or fewer where they open many streams, and keep the others;
        return how many those were. Behind the last comes what was wrong."""
        frames = unread.frames
        some = frames if len(frames) <= most else frames[:most]
        going = iter(some)
        try:
            try:
                self._handle_frames(link, unread.view, going, now, kept=kept)
                done = len(some)
            except _TooManyOpened:  # the frame that would have opened them is done again
                done = len(some) - length_hint(going) - 1
            self.liveness.idle.check_rate(now, self.streams.moved)
        except ProtocolError as broken:
            self._fail_link(link, broken)
            return len(some)
        if done < len(frames):
            if self.ended is None:
                link.unread = unread.drop_first(done)
            return done
        error = unread.error
        if isinstance(error, FrameError):  # in a genuine record: the peer's doing, not the carrier's
            self._fail_link(link, ProtocolError(str(error)))
        elif isinstance(error, TooManyFrames):
            self._fail_link(link, ProtocolError(str(error), CloseCode.LIMIT))
        elif error is not None:
            self.link_lost(link, now, str(error), unread.refusal)
        return done

    def receive_packet(self, link: Link, packet: bytes, now: float) -> None:
        """Take a packet from the lossy path of a link's carrier. What can't be opened changes nothing."""
        packets = link.packets
        if packets is None or link.lost or not link.attached or not link.confirmed or self.ended is not None:
            return
        try:
            for data in packets.open_packet(packet):
                self._on_datagram(link, 0, now, data)
            self.liveness.idle.check_rate(now, self.streams.moved)
        except ProtocolError as broken:
            self._fail_link(link, broken)

    def _handle_frames(
        self, link: Link, view: memoryview, frames: Iterator[Received], now: float, *, kept: bool
    ) -> None:
        """Do what frames say; raise `_TooManyOpened` at one that would open more streams than may be by now. Of what
        was `kept` nothing is handed to splices as it stands, since they look into the buffer of the read."""
        streams, events = self.streams.by_id, self._events
        credit, acks = self.streams.receive_credit, self.streams.acks
        spliced: ev.SplicedData | None = None
        for frame, flags, stream_id, offset, start, length in frames:
            if frame == _STREAM and not flags and length and link.attached and self.ended is None:
                stream = streams.get(stream_id)
                splice = None if stream is None or kept else stream.splice
                if length > PIECE and splice is None:
                    self._handle_frames(
                        link, view, _pieces(flags, stream_id, offset, start, length), now, kept=kept
                    )
                    continue
                if stream is None:
                    stream = self._peer_stream(stream_id)
                # The usual case, made short.
                if stream is not None and stream.receive.receive_next(offset, length):
                    credit.received += length
                    if credit.received >= credit.scarce_at:
                        credit.check_received()
                    if stream.receive.next >= stream.receive.raise_at:
                        credit.raise_unread(stream)
                    if splice is None:
                        events.append(ev.StreamData(stream_id, bytes(view[start : start + length])))
                    else:
                        if spliced is None or events[-1] is not spliced:  # what came between keeps its place
                            spliced = ev.SplicedData([], [], [])
                            events.append(spliced)
                        spliced.splices.append(splice)
                        spliced.starts.append(start)
                        spliced.sizes.append(length)
                    self._active_at = now
                    acks.due[stream_id] = None
                    if now + acks.delay < acks.at:
                        acks.plan(stream, credit.received, now)
                    continue
            elif length > PIECE and frame == _STREAM:
                self._handle_frames(
                    link, view, _pieces(flags, stream_id, offset, start, length), now, kept=kept
                )
                continue
            body = bytes(view[start : start + length])
            if not link.attached:
                self._on_fresh_link(link, frame, flags, body, now)
            elif self.ended is not None:
                return
            elif frame == _STREAM:
                self._on_stream(stream_id, offset, body, bool(flags & FIN), now)
            elif frame in _HANDLERS:
                fields = parse_fixed(frame, body) if frame in FIXED else (body,)
                _HANDLERS[frame](self, link, flags, now, *fields)
            else:
                # C has skipped those that may be skipped.
                raise ProtocolError(f"unknown frame type 0x{frame:02x}", CloseCode.UNKNOWN_FRAME)

    def _refusal_at(self, link: Link, data: memoryview) -> int | None:
        """Return, as the client, the code of the refusal that stands where the server's first record should, if that
        is one."""
        if self.facts.client and not link.confirmed and len(data) >= 4 and data[:2] == bytes(2):
            return int.from_bytes(data[2:4])
        return None

    def _on_stream(self, stream_id: int, offset: int, data: bytes, fin: bool, now: float) -> None:
        streams = self.streams
        stream = streams.by_id.get(stream_id)
        is_new = stream is None
        if stream is None:
            stream = self._peer_stream(stream_id)
            if stream is None:
                self.liveness.idle.count += 1
                return  # over and forgotten: a repetition after a resume
        if not streams.receive_piece(stream, offset, data, fin, now) and not is_new:
            self.liveness.idle.count += 1
        if not stream.receive.ended:
            self._active_at = now

    def _peer_stream(self, stream_id: int) -> SessionStream | None:
        """Return the peer's stream with this id, opened now together with those before it; None if it is over."""
        streams, numbers = self.streams, self.streams.numbers
        if numbers.is_own(stream_id):
            if stream_id >= numbers.next_own:
                raise ProtocolError(f"frame for stream {stream_id}, which was never opened")
            return None
        if stream_id < numbers.next_peer:
            return None
        if stream_id >> 1 >= numbers.peer_allowed:
            raise ProtocolError(f"stream {stream_id} is above the limit", CloseCode.LIMIT)
        while numbers.next_peer <= stream_id:
            if numbers.next_peer >= self._open_until:
                raise _TooManyOpened
            streams.open_from_peer()
        return streams.by_id[stream_id]

    # ---- links ------------------------------------------------------------------------------------------

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
        add, links = bool(flags & ADD), self.links
        assert isinstance(number, int)
        assert isinstance(proof, bytes)
        if not links.is_proven(link, connection, proof):
            raise ProtocolError("a new carrier can't prove that it belongs here", CloseCode.RESUME_PROOF)
        if not self.facts.client:
            links.accept_link(link, number, add=add)
        elif (number, add) != (link.number, link.adding):
            raise ProtocolError("the server's ATTACH does not answer ours")
        elif number in links.history.heard:  # STATE came first, over another link
            link.close()
            self._events.append(ev.LinkLost(link, "the server lost this carrier"))
            return
        if link.adding and not links.by_number:
            links.send_lists(link)  # those there were have been lost meanwhile
        self._attach_link(link, now)

    def _on_fresh_close(self, link: Link, close: CloseFrame) -> None:
        """Note that the link is not taken. The session ends only with the last way to go on: nothing has proven the
        secret."""
        if self.facts.client and not self.links.by_number:
            self._closed_by_peer(close)
            return
        link.close()
        self._events.append(
            ev.LinkLost(link, f"refused: {describe(close.close_code)} {close.reason}".rstrip())
        )

    # ---- control frames from the peer -------------------------------------------------------------------

    def _on_ping(self, link: Link, flags: int, now: float, token: int) -> None:
        if len(link.control) >= self.limits.control:
            raise ProtocolError("too many pings", CloseCode.LIMIT)
        self.liveness.idle.count += 1
        self.liveness.pings.moved_at = self.streams.moved  # one question is enough
        link.control.append(control(FrameType.PONG, PING.pack(token)))

    def _on_pong(self, link: Link, flags: int, now: float, token: int) -> None:
        took = self.liveness.pings.take_pong(token, now)
        if took is not None:
            self.liveness.ack_watch.note_pong(token, now, link.patience)
            self._events.append(ev.Pong(token, took))
        else:
            self.liveness.idle.count += 1

    def _on_reset(self, link: Link, flags: int, now: float, stream_id: int, code: int, final: int) -> None:
        stream = self.streams.by_id.get(stream_id) or self._peer_stream(stream_id)
        if stream is None or not self.streams.receive_reset(stream, code, final):
            self.liveness.idle.count += 1

    def _on_stop(self, link: Link, flags: int, now: float, stream_id: int, code: int) -> None:
        stream = self.streams.by_id.get(stream_id) or self._peer_stream(stream_id)
        if stream is not None and not stream.send.done and stream.send.reset_code is None:
            self.streams.reset_stream(stream_id, code)
            self._events.append(ev.StreamStopped(stream_id, code))
        else:
            self.liveness.idle.count += 1

    def _on_window(self, link: Link, flags: int, now: float, stream_id: int, acked: int, limit: int) -> None:
        if stream_id == CONNECTION:
            self._count_raise(self.streams.send_credit.raise_limit(limit))
            return
        stream = self.streams.by_id.get(stream_id) or self._peer_stream(stream_id)
        if stream is None:
            self.liveness.idle.count += 1
            return
        send = stream.send
        if acked <= send.acked:
            self._count_raise(limit > send.limit)
        if flags & LISTED:
            link.listed.add(stream_id)
            by_id = self.streams.by_id
            if len(link.listed) > 2 * len(by_id) + self.limits.control:  # of many that are over
                link.listed.intersection_update(by_id)
        waiting = send.queued
        if acked > send.acked:
            self._active_at = now
            self.streams.mark_acknowledged(stream, acked)
        send.limit = max(send.limit, limit)
        if send.ready:
            self.streams.take_turn(stream)
        if self.streams.forget_if_done(stream):
            return
        if send.acked >= send.end or (waiting > stream.low >= send.queued):
            self._events.append(ev.StreamWritable(stream_id))

    def _on_streams(self, link: Link, flags: int, now: float, allowed: int) -> None:
        numbers = self.streams.numbers
        is_more = allowed > numbers.own_allowed
        self._count_raise(is_more)
        if is_more:
            numbers.own_allowed = allowed
            self._events.append(ev.StreamsAllowed())

    def _count_raise(self, is_more: bool) -> None:
        streams = self.streams
        self.liveness.idle.count_raise(is_more, streams.send_credit.sent + streams.numbers.next_own)

    def _on_datagram(self, link: Link, flags: int, now: float, data: bytes) -> None:
        if len(data) > self.limits.datagram:
            raise ProtocolError(f"datagram of {len(data)} bytes", CloseCode.LIMIT)
        self._active_at = now
        self.liveness.idle.count += not data
        self._events.append(ev.DatagramReceived(data))

    def _on_exchange(self, link: Link, flags: int, now: float, key: bytes, signature: bytes) -> None:
        own, exchange = self.links.exchanges, link.exchange
        if own is None:
            raise ProtocolError("EXCHANGE where none is made")
        if self.facts.client:
            fresh = exchange.finish_exchange(self.facts.peer, key, signature)
            if link.packets is not None:
                link.packets.add_root(fresh.root)
            link.opener.set_fresh(fresh.server)
            self._change_over(link, fresh.client, now)
            return
        if exchange.changing or link.sealer.waits_for_fresh:
            raise ProtocolError("EXCHANGE before the one before is done")
        self.liveness.idle.count += EXCHANGE_COST
        answer, fresh = exchange.answer_exchange(own, self.facts.peer, key, signature)
        if link.packets is not None:
            link.packets.add_root(fresh.root)
        link.opener.set_fresh(fresh.client)
        link.control.append(answer)

    def _peer_changed_over(self, link: Link, now: float) -> None:
        """Note that what comes from now on is under the fresh key."""
        key = link.exchange.finish_change(now, self.streams.moved)
        if not self.facts.client:
            self._change_over(link, key, now)

    def _change_over(self, link: Link, key: bytes, now: float) -> None:
        """Seal under the fresh key from the next record on."""
        link.sealer.set_fresh(key)
        if link.packets is not None:
            link.packets.change_keys()
        link.rekey_at = now
        link.record_due = True

    def _on_meter(self, link: Link, flags: int, now: float, data: bytes) -> None:
        if len(data) > MAX_METER:
            raise ProtocolError(f"metering frame of {len(data)} bytes", CloseCode.LIMIT)
        self.liveness.idle.count += 1
        self._events.append(ev.MeterReceived(data))

    def _on_close(self, link: Link, flags: int, now: float, body: bytes) -> None:
        self._closed_by_peer(parse_close(flags, body))

    def _on_away(self, link: Link, flags: int, now: float, first_refused: int) -> None:
        streams, numbers = self.streams, self.streams.numbers
        known = numbers.peer_away_from
        numbers.peer_away_from = min(first_refused, MAX_OFFSET if known is None else known)
        if known is None:
            self._events.append(ev.GoingAway())
            # Of what was opened here and not yet written to the peer knows nothing; it goes by the last one's number.
            newest = streams.by_id.get(numbers.next_own - 2)
            if newest is not None:
                link.control.append(streams.build_window(newest))
        else:
            self.liveness.idle.count += 1
        if first_refused < MAX_OFFSET and known in (None, MAX_OFFSET):
            for stream_id in [key for key in streams.by_id if key >= first_refused]:
                if numbers.is_own(stream_id):
                    streams.decline_stream(stream_id)

    def _on_ready(self, link: Link, flags: int, now: float) -> None:
        if not self.facts.client:
            raise ProtocolError("READY from a client: only a server admits")
        if not self._readiness.ready:
            self._readiness.ready = True
            self._events.append(ev.Ready())
        else:
            self.liveness.idle.count += 1

    def _on_attach(self, link: Link, flags: int, now: float, *fields: object) -> None:
        raise ProtocolError("ATTACH on a link that is attached")

    def _on_state(self, link: Link, flags: int, now: float, seen: int, opened: int, lost: int) -> None:
        """Handle the end of the peer's list: send again what it has not, forget what it has done with."""
        links, history, numbers = self.links, self.links.history, self.streams.numbers
        gone = links.by_number.get(lost)
        if lost not in history.used or (gone is link and not history.awaiting_state):
            raise ProtocolError(f"STATE of link {lost}, which is not lost")
        if seen > numbers.next_own >> 1:
            raise ProtocolError(
                f"STATE has seen {seen} streams, of which {numbers.next_own >> 1} were opened"
            )
        if opened > numbers.peer_allowed:
            raise ProtocolError(
                f"STATE has opened {opened} streams, of which {numbers.peer_allowed} were allowed"
            )
        listed, link.listed = link.listed, set()
        if gone is not None and gone is not link:
            self.link_lost(gone, now, "the peer lost this carrier")
        else:
            links.send_list(link, lost)  # it was not attached here yet, or the answer was lost
        history.unanswered.discard(lost)
        if gone is not link:
            if lost in history.heard or self.ended is not None:
                self.liveness.idle.count += 1
                return  # it says again what is known, be it because our own list has not come
            history.heard.add(lost)
        self.streams.send_again(listed, seen, opened)
        if history.awaiting_state:
            history.awaiting_state = False
            self._events.append(ev.Resumed())


_HANDLERS: dict[int, Callable[..., None]] = {
    FrameType.PING: Receiving._on_ping,
    FrameType.PONG: Receiving._on_pong,
    FrameType.RESET: Receiving._on_reset,
    FrameType.STOP: Receiving._on_stop,
    FrameType.WINDOW: Receiving._on_window,
    FrameType.STREAMS: Receiving._on_streams,
    FrameType.DATAGRAM: Receiving._on_datagram,
    FrameType.CLOSE: Receiving._on_close,
    FrameType.AWAY: Receiving._on_away,
    FrameType.READY: Receiving._on_ready,
    FrameType.ATTACH: Receiving._on_attach,
    FrameType.STATE: Receiving._on_state,
    FrameType.EXCHANGE: Receiving._on_exchange,
    FrameType.METER: Receiving._on_meter,
}
