"""Bytes out: what of all that waits goes into the next records of a link."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from dtp.core import STREAM_ROOM, Buffer
from dtp.session import events as ev
from dtp.session.datagrams import LinkPackets
from dtp.session.exchange import LOOK as LOOK_AT_EXCHANGE
from dtp.session.exchange import SLOW as SLOW_EXCHANGE
from dtp.session.frames import (
    AWAY,
    CONNECTION,
    EXCHANGE,
    FIN,
    LISTED,
    PING,
    RESET,
    STATE,
    STOP,
    STREAMS,
    FrameType,
    Outgoing,
    control,
)
from dtp.session.limits import NEVER
from dtp.session.link import LIST_PLACE, Link
from dtp.session.state import SessionState
from dtp.session.streams import SMALL

_STREAM = int(FrameType.STREAM)
#: What one frame adds at most to what is sealed: its header, and a share of its record's.
_FRAME_COST = 64
#: Bytes of what is sealed that no frame has.
_APART = 1024
#: And what EXCHANGE does.
_EXCHANGE_COST = EXCHANGE.size + _FRAME_COST


class Sealing(SessionState):
    """The sending half of a session: what of its parts goes over a link."""

    def seal_records(self, link: Link, out: Buffer, now: float, most: int | None = None) -> int:
        """Seal what waits for this link into `out`; gives how many bytes, 0 when there is nothing.

        At most `out` full, or `most` bytes (8 KiB or more; a larger datagram goes whole), so ask again until it is 0.
        """
        if not self.may_seal(link):
            return 0
        frames: list[Outgoing] = []
        record = self.limits.record
        size = out.size if most is None else min(most, out.size)
        if self._datagrams:  # the next one has to fit, or it and all behind it would wait for ever
            size = min(out.size, max(size, len(self._datagrams[0]) + _APART + 4 * _FRAME_COST))
        if self.limits.padding:  # may double what is sealed
            size = min(size, out.size // 2 - record)
        room = (size - _APART) * record // (record + _FRAME_COST)
        if link.control:
            room = self._take_own(link, frames, room)
        if link.attached and self.ended is None:
            streams, links = self.streams, self.links
            if now >= link.exchange.look_at and self._wants_fresh_keys(link, now):
                assert links.exchanges is not None
                frames.append(link.exchange.begin_exchange(links.exchanges, now))
                room -= _EXCHANGE_COST
            if self._control:
                room = self._take_control(self._control, frames, room)
            if streams.receive_credit.windows:
                room = self._take_windows(frames, room)
            if self._datagrams:
                room = self._take_datagrams(frames, room)
            if streams.turns and not links.history.awaiting_state:
                self._take_streams(frames, room)
        if not frames and not link.record_due:
            return 0
        link.record_due = False
        rekey = now >= link.rekey_at
        if rekey:
            link.rekey_at = now + self.limits.rekey_time
        return link.sealer.seal(frames, out, record, rekey)

    def carry_packets(self, link: Link, size: int, now: float) -> None:
        """Send datagrams from now on over the lossy path of the link's carrier, in packets of `size` bytes at most,
        and take them from there."""
        limits = self.limits
        link.packets = LinkPackets(
            link.suite.cipher,
            link.exchange.root,
            size,
            client=self.facts.client,
            rekey_bytes=limits.rekey_bytes,
            rekey_at=now + limits.rekey_time if limits.rekey_time else NEVER,
        )

    def _lossy_path(self) -> LinkPackets | None:
        """Return the packets of a link that carries some now: its peer has proven itself, so it has the keys, too."""
        for link in self.links.by_number.values():
            if link.packets is not None and link.confirmed and not link.lost:
                return link.packets
        return None

    def seal_packet(self, link: Link, out: Buffer, now: float) -> int:
        """Seal the next datagram for the lossy path of this link; return the packet's size, 0 when there is none."""
        packets, datagrams = link.packets, self._datagrams
        if packets is None or not datagrams or self.ended is not None or self._lossy_path() is not packets:
            return 0
        if not packets.fits_packet(datagrams[0]):
            return 0
        if now >= link.exchange.look_at and self._wants_fresh_keys(link, now):
            assert self.links.exchanges is not None
            link.control.append(link.exchange.begin_exchange(self.links.exchanges, now))
        rekey = now >= packets.rekey_at
        if rekey:
            packets.rekey_at = now + self.limits.rekey_time
        return packets.seal_packet(datagrams.take_datagram(), out, rekey=rekey)

    def _wants_fresh_keys(self, link: Link, now: float) -> bool:
        """True if the client is to ask for them: they are old, or have been used for much, and something moves."""
        exchange, limits = link.exchange, self.limits
        if not self.facts.client or self.links.exchanges is None or not limits.exchange:
            exchange.look_at = NEVER
            return False
        exchange.look_at = now + LOOK_AT_EXCHANGE
        if exchange.asked_at is not None:
            return False
        used = limits.rekey_bytes and self.streams.moved - exchange.moved >= limits.rekey_bytes
        if not used and now < exchange.since + max(limits.exchange, SLOW_EXCHANGE * link.patience):
            return False
        return bool(self.streams.turns or self._datagrams) or self._active_at > exchange.since

    def seal_write(self, link: Link, stream_id: int, data: bytes, out: Buffer, now: float) -> int:
        """Seal a small write as it is, when nothing else waits: the bytes in `out`; 0 when it has to be queued.

        What `write_stream` and `seal_records` do in all other cases, in the few steps that a message sent by itself
        needs: without it a message of 100 B and its echo take 1.4 times the processor time. Tests of sessions write
        either way.
        """
        streams = self.streams
        stream = streams.by_id.get(stream_id)
        if stream is None or not link.attached or link.control or link.lost or now >= link.rekey_at:
            return 0
        waits = streams.turns or streams.receive_credit.windows or self._control or self._datagrams
        if waits or self.links.history.awaiting_state:
            return 0
        send, size, record = stream.send, len(data), self.limits.record
        offset = send.end
        credit = streams.send_credit
        total = credit.sent + size
        if not 0 < size <= SMALL or size > record - STREAM_ROOM or total > credit.until:
            return 0
        if not send.send_now(data, offset + size):
            return 0
        credit.sent = total
        link.record_due = False
        return link.sealer.seal_stream(stream_id, offset, data, out, record)

    def seal_pieces(
        self, link: Link | None, pieces: Iterable[tuple[int, int, int]], block: bytes, out: Buffer, now: float
    ) -> tuple[int, list[int]]:
        """Seal many small writes at once: of each its stream, and where it stands in `block` and its size.

        Gives the bytes in `out`, and the streams whose piece had to be queued instead, as `write` does it, because
        something of theirs waits, the credit is used up, or there is no link that could take it now. Pieces for
        streams that take no more are void. `out` must have room for `block` and 64 bytes for each piece.
        Written one by one, 1, 4 and 16 pieces of 100 B take 1.4, 2.2 and 2.9 times the processor time.
        """
        ready = (
            link is not None
            and link.attached
            and not link.control  # such as the ATTACH that comes before all else
            and not link.lost
            and now < link.rekey_at
            and not self.links.history.awaiting_state
            and not self.limits.padding  # which `out` need not have the room for
        )
        streams = self.streams
        by_id, credit = streams.by_id, streams.send_credit
        fresh = credit.until - credit.sent
        ids: list[int] = []
        offsets: list[int] = []
        starts: list[int] = []
        sizes: list[int] = []
        queued: list[int] = []
        for stream_id, start, size in pieces:
            stream = by_id.get(stream_id)
            if stream is None:
                continue
            data = block[start : start + size]
            send = stream.send
            offset = send.end
            if ready and size <= fresh and send.send_now(data, offset + size):
                fresh -= size
                stream.announce = False  # these bytes do
                ids.append(stream_id)
                offsets.append(offset)
                starts.append(start)
                sizes.append(size)
            elif send.open:
                send.write_data(data)
                streams.take_turn(stream)
                queued.append(stream_id)
        if link is None or not ids:
            return 0, queued
        credit.sent += sum(sizes)
        link.record_due = False
        return link.sealer.seal_pieces(ids, offsets, starts, sizes, block, out, self.limits.record), queued

    def may_seal(self, link: Link) -> bool:
        """False when certainly nothing waits for this link: the usual answer, so it is to be a quick one."""
        if link.lost:
            return False
        streams = self.streams
        waits = streams.turns or streams.receive_credit.windows or self._control or self._datagrams
        if waits and link.attached and self.ended is None:
            return True
        return bool(link.control) or link.record_due

    def _take_own(self, link: Link, frames: list[Outgoing], room: int) -> int:
        """Take control frames of this link, and the lists that have their place among them; return the room left."""
        queue = link.control
        while queue and room > 4096:
            if queue[0][0] != LIST_PLACE:
                frame = queue.popleft()
                frames.append(frame)
                room -= len(frame[4]) + _FRAME_COST
                continue
            if self.ended is not None:
                link.listing.clear()
            elif not link.listing:
                link.listing.extend(self._list_resume_frames(queue[0][2]))
            room = self._take_control(link.listing, frames, room)
            if not link.listing:
                queue.popleft()
        return room

    def _list_resume_frames(self, lost: int) -> list[Outgoing]:
        """Return all that the peer must know to go on without what was in flight: docs/wire.md, section "Resume"."""
        frames: list[Outgoing] = []
        streams, numbers = self.streams, self.streams.numbers
        if numbers.away is not None:  # before anything of what it refuses is acknowledged
            frames.append(control(FrameType.AWAY, AWAY.pack(numbers.away)))
        for stream_id, stream in streams.by_id.items():
            frames.append(streams.build_window(stream, LISTED))
            if stream.send.reset_code is not None and not stream.send.done:
                body = RESET.pack(stream_id, stream.send.reset_code, stream.send.highest)
                frames.append(control(FrameType.RESET, body))
            if stream.receive.stop_code is not None and not stream.receive.ended:
                frames.append(control(FrameType.STOP, STOP.pack(stream_id, stream.receive.stop_code)))
        frames.append(streams.build_connection_window())
        frames.append(control(FrameType.STREAMS, STREAMS.pack(numbers.peer_allowed)))
        if not self.facts.client and self._readiness.ready:
            frames.append(control(FrameType.READY))
        frames += [control(FrameType.PING, PING.pack(token)) for token in self.liveness.pings.waiting]
        frames.append(
            control(FrameType.STATE, STATE.pack(numbers.next_peer >> 1, numbers.next_own >> 1, lost))
        )
        return frames

    def _take_control(self, queue: deque[Outgoing], frames: list[Outgoing], room: int) -> int:
        while queue and room > 4096:
            frame = queue.popleft()
            frames.append(frame)
            room -= len(frame[4]) + _FRAME_COST
        return room

    def _take_windows(self, frames: list[Outgoing], room: int) -> int:
        streams = self.streams
        windows = streams.receive_credit.windows
        while windows and room > 4096:
            stream_id, _ = windows.popitem()
            if stream_id == CONNECTION:
                frames.append(streams.build_connection_window())
            else:
                frames.append(streams.build_window(streams.by_id[stream_id]))
            room -= _FRAME_COST
        return room

    def _take_datagrams(self, frames: list[Outgoing], room: int) -> int:
        datagrams, packets = self._datagrams, self._lossy_path()
        while (
            datagrams
            and not (packets is not None and packets.fits_packet(datagrams[0]))
            and room >= len(datagrams[0]) + _FRAME_COST
        ):
            data = datagrams.take_datagram()
            frames.append(control(FrameType.DATAGRAM, data))
            room -= len(data) + _FRAME_COST
        return room

    def _take_streams(self, frames: list[Outgoing], room: int) -> None:
        """Round robin: each stream an equal part of the room at a time, a quantum at least.

        All that wait have a part in every call, so whose turn comes first in it hardly matters; and fewer, larger
        pieces cost the reader less.
        """
        turns, credit = self.streams.turns, self.streams.send_credit
        quantum = max(self.limits.quantum, room // max(1, len(turns)) - _FRAME_COST)
        limit = credit.until
        without_credit = 0
        while room > _FRAME_COST and without_credit < len(turns):
            stream = turns.popleft()
            send = stream.send
            if send.reset_code is not None:
                stream.queued = False
                continue
            if send.sent == send.end:  # no data: its beginning, its end, or what went elsewhere meanwhile
                fin = send.finished and not send.fin_sent
                if fin or stream.announce:
                    stream.announce = False
                    frames.append((_STREAM, FIN if fin else 0, stream.stream_id, send.end, b""))
                    room -= _FRAME_COST
                    without_credit = 0
                if fin:
                    send.fin_sent = send.told_end = True
                stream.queued = False
                continue
            before, waiting = send.highest, send.queued
            offset, piece, fin = send.next_piece(
                min(quantum if turns else room, room), max(0, limit - credit.sent)
            )
            credit.sent += send.highest - before
            if len(piece) or fin or stream.announce:
                stream.announce = False
                frames.append((_STREAM, FIN if fin else 0, stream.stream_id, offset, piece))
                room -= len(piece) + _FRAME_COST
                without_credit = 0
                if waiting > stream.low >= send.queued:
                    self._events.append(ev.StreamWritable(stream.stream_id))
            elif send.ready:
                without_credit += 1  # waits for the connection's credit, or for acknowledgements
            if send.ready:
                turns.append(stream)
            else:
                stream.queued = False
