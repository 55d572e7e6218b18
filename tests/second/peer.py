"""`SecondPeer`: a session of docs/wire.md over one link or several, strict in what it takes.

The owner of a peer carries bytes: `receive(link, data)` takes what came, `take(link)` hands out what is to be
sent. `pump` decides what to send; `raw` seals any bytes as frames, which is how tests play a hostile peer.
"""

import hmac
import random
from dataclasses import dataclass, field

from .exchange import Exchanger
from .handshake import Keys
from .wire import (
    ADD,
    APPLICATION,
    CONNECTION,
    FIN,
    FRESH,
    LISTED,
    Breach,
    Code,
    Frame,
    RecordOpener,
    RecordSealer,
    Type,
    attach_proof,
    decode_frames,
    frame,
)


@dataclass
class Stream:
    """One stream. `data` is all that was ever written, `got` all that came in order."""

    id: int
    limit: int  # what the peer lets us send
    given: int  # what we let the peer send
    window: int

    data: bytearray = field(default_factory=bytearray)
    next: int = 0  # offset of the next byte to send
    high: int = 0  # one behind the highest byte ever sent
    acked: int = 0
    finished: bool = False  # nothing will be appended to `data`
    open_due: bool = False  # the peer may not know the stream: at least an empty frame is to be sent
    end_due: bool = False  # FIN is to be sent
    end_sent: bool = False  # FIN or RESET was sent, maybe on a link that is lost
    reset: tuple[int, int] | None = None  # code, final
    stop_heard: int | None = None

    got: bytearray = field(default_factory=bytearray)
    pieces: dict[int, bytes] = field(default_factory=dict)
    final: int | None = None
    arrived: int = 0  # one behind the highest byte that came
    taken: int = 0  # how much of `got` the application read
    reset_heard: int | None = None
    stopped: int | None = None
    announced: int = 0  # the `acked` that we told last
    told: int = 0  # the `given` that we told last

    @property
    def send_done(self) -> bool:
        return self.end_sent and self.acked == self.high + 1

    @property
    def receive_done(self) -> bool:
        return self.final is not None and (self.reset_heard is not None or len(self.got) == self.final)

    @property
    def to_acknowledge(self) -> int:
        if self.receive_done:
            assert self.final is not None
            return self.final + 1
        return len(self.got)


class Link:
    """One carrier with its keys. Until `attached`, nothing but ATTACH or CLOSE may come."""

    def __init__(self, number: int, keys: Keys, attached: bool) -> None:
        self.number, self.keys, self.attached = number, keys, attached
        self.adding = False
        self.state_due = False  # the list and STATE of the peer must come before any STREAM
        self.listed: set[int] = set()
        self.sealer = RecordSealer(keys.suite, keys.send)
        self.opener = RecordOpener(keys.suite, keys.receive)
        self.out = b""
        self.exchange = Exchanger(keys.client, keys.h, keys.root, keys.seed, keys.peer.id)

    def change_over(self) -> None:
        """Send under the fresh key from here on."""
        assert self.exchange.send_key is not None
        self.send(frame(Type.REKEY, flags=FRESH))
        self.sealer.key, self.exchange.send_key = self.exchange.send_key, None

    def send(self, *frames: bytes) -> None:
        self.out += self.sealer.seal(b"".join(frames))


class SecondPeer:
    """One side of a session, begun by a finished handshake (`Keys`)."""

    def __init__(self, keys: Keys, *, chunk: int = 1000) -> None:
        self.client = keys.client
        self.side, self.other = ("client", "server") if keys.client else ("server", "client")
        self.first = keys
        self.id = keys.connection_id
        self.chunk = chunk
        self.links: dict[int, Link] = {}
        self.used: set[int] = {0}
        self.streams: dict[int, Stream] = {}
        self.archive: dict[int, Stream] = {}  # the forgotten ones, for tests to look at
        self.opened = [0, 0]  # streams ever opened: [by us, by the peer]
        self.waiting: set[int] = set()  # lost links whose STATE has not come
        self.told: set[int] = set()  # lost links that we sent a list for
        self.blocked = False  # STREAM frames wait for the STATE that a replacement begins with
        self.places = 0  # names of links that ATTACH has not numbered yet
        self.pending: list[bytes] = []
        window, self.conn_limit, self.may_open, self.datagram_limit = keys.peer.params[:4]
        self.their_window = window
        self.my_window, self.conn_given, self.may_be_opened, self.datagram_given = keys.mine.params[:4]
        self.conn_window = self.conn_told = self.conn_given
        self.conn_sent = self.conn_arrived = self.conn_taken = 0
        self.draw = random.Random(keys.h).randbytes
        self.ready = False
        self.away: int | None = None
        self.datagrams: list[bytes] = []
        self.meters: list[bytes] = []
        self.pongs: list[int] = []
        self.closed: tuple[bool, int, str, int] | None = None
        self.links[0] = Link(0, keys, attached=True)
        if self.client:
            self.links[0].send()
        self.receive(0, keys.rest)

    # --- what the application does

    def open(self) -> int:
        """A new stream's id; raises AssertionError where the peer allows no more."""
        number = self.opened[0]
        assert number < self.may_open, "the peer allows no more streams"
        stream = number * 2 + (0 if self.client else 1)
        self.opened[0] += 1
        self.streams[stream] = self.new_stream(stream)
        self.streams[stream].open_due = True
        return stream

    def new_stream(self, stream: int) -> Stream:
        return Stream(stream, self.their_window, self.my_window, self.my_window, told=self.my_window)

    def write(self, stream: int, data: bytes, fin: bool = False) -> None:
        one = self.streams[stream]
        assert not one.finished
        if one.reset is not None:
            return
        one.data += data
        if fin:
            one.finished = one.end_due = True

    def do_reset(self, stream: int, code: int) -> None:
        one = self.streams.get(stream)
        if one is None or one.reset is not None or one.send_done:
            return
        final = one.high
        if one.finished and one.end_sent:
            final = len(one.data)
        one.reset, one.high, one.end_sent = (code, final), final, True
        self.pending.append(frame(Type.RESET, stream, code, final))

    def do_stop(self, stream: int, code: int) -> None:
        one = self.streams.get(stream)
        if one is None or one.receive_done or one.stopped is not None:
            return
        one.stopped = code
        self.pending.append(frame(Type.STOP, stream, code))

    def read(self, stream: int, most: int | None = None) -> bytes:
        """What came in order and was not read yet; gives the peer as much new credit."""
        one = self.streams[stream]
        end = len(one.got) if most is None else min(len(one.got), one.taken + most)
        out = bytes(one.got[one.taken : end])
        self.conn_taken += len(out)
        one.taken = end
        one.given = max(one.given, one.taken + one.window)
        self.conn_given = max(self.conn_given, self.conn_taken + self.conn_window)
        return out

    def allow_streams(self, count: int) -> None:
        self.may_be_opened = count
        self.pending.append(frame(Type.STREAMS, count))

    def send_datagram(self, data: bytes) -> None:
        assert len(data) <= self.datagram_limit
        self.pending.append(frame(Type.DATAGRAM, rest=data))

    def admit(self) -> None:
        """Server: READY."""
        self.ready = True
        self.pending.append(frame(Type.READY))

    def close(
        self,
        code: int,
        reason: str = "",
        *,
        detail: int = 0,
        application: bool = False,
        link: int | None = None,
    ) -> None:
        flags = APPLICATION if application else 0
        self.link(link).send(frame(Type.CLOSE, code, detail, flags=flags, rest=reason.encode()))

    # --- sending

    def link(self, number: int | None = None) -> Link:
        return self.links[min(self.attached) if number is None else number]

    @property
    def attached(self) -> list[int]:
        """The numbers of the links that carry the session."""
        return [number for number, link in self.links.items() if link.attached]

    def take(self, number: int) -> bytes:
        """The bytes to send on a link."""
        link = self.links[number]
        out, link.out = link.out, b""
        return out

    def raw(self, *frames: bytes, link: int | None = None) -> None:
        """Seals any bytes as one record, whatever the specification says of them."""
        self.link(link).send(*frames)

    def rekey(self, number: int | None = None, *frames: bytes) -> None:
        link = self.link(number)
        link.send(*frames, frame(Type.REKEY))
        link.sealer.rekey()

    def pump(self, number: int | None = None) -> None:
        """Sends all that may be sent, on one link (the lowest when not told)."""
        if not self.attached or self.closed:
            return
        link = self.link(number)
        if not link.attached:
            return
        frames, self.pending = self.pending, []
        for one in list(self.streams.values()):
            if (one.to_acknowledge, one.given) != (one.announced, one.told):
                frames.append(self.window_frame(one))
        if self.conn_told != self.conn_given:
            frames.append(self.conn_frame())
        if not self.blocked:
            for one in list(self.streams.values()):
                frames += self.stream_frames(one)
        for each in frames:
            link.send(each)
        self.forget()

    def conn_frame(self) -> bytes:
        self.conn_told = self.conn_given
        return frame(Type.WINDOW, CONNECTION, self.conn_arrived, self.conn_given)

    def window_frame(self, one: Stream, flags: int = 0) -> bytes:
        one.announced, one.told = one.to_acknowledge, one.given
        return frame(Type.WINDOW, one.id, one.announced, one.given, flags=flags)

    def stream_frames(self, one: Stream) -> list[bytes]:
        out: list[bytes] = []
        if one.reset is not None:
            return out
        while True:
            fresh = self.conn_limit - self.conn_sent
            size = min(
                self.chunk,
                len(one.data) - one.next,
                one.limit - one.next,
                fresh + max(0, one.high - one.next),
            )
            last = one.end_due and one.next == len(one.data)
            if size <= 0 and not one.open_due and not last:
                return out
            size = max(size, 0)
            end = one.next + size
            fin = one.finished and end == len(one.data)
            out.append(
                frame(
                    Type.STREAM,
                    one.id,
                    one.next,
                    flags=FIN if fin else 0,
                    rest=bytes(one.data[one.next : end]),
                )
            )
            self.conn_sent += max(0, end - one.high)
            one.next, one.high = end, max(one.high, end)
            one.open_due, one.end_due = False, one.end_due and not fin
            one.end_sent = one.end_sent or fin

    def forget(self) -> None:
        for stream, one in list(self.streams.items()):
            if one.send_done and one.receive_done and one.announced == one.to_acknowledge:
                self.archive[stream] = self.streams.pop(stream)

    # --- links

    def lose(self, number: int, *, tell: bool = True) -> None:
        """The link is lost. With others left, they carry the list."""
        if self.links.pop(number).attached:
            self.waiting.add(number)
            if tell:
                self.send_lists()

    def send_lists(self) -> None:
        """One for each lost link that the peer has not answered for, over the first link that is left."""
        if self.attached:
            for lost in sorted(self.waiting):
                self.send_list(self.link(), lost)

    def send_list(self, link: Link, lost: int) -> None:
        self.told.add(lost)
        for one in self.streams.values():
            link.send(self.window_frame(one, LISTED))
            if one.reset is not None and not one.send_done:
                link.send(frame(Type.RESET, one.id, *one.reset))
            if one.stopped is not None and not one.receive_done:
                link.send(frame(Type.STOP, one.id, one.stopped))
        link.send(self.conn_frame())
        link.send(frame(Type.STREAMS, self.may_be_opened))
        if self.ready and not self.client:
            link.send(frame(Type.READY))
        link.send(frame(Type.STATE, self.opened[1], self.opened[0], lost))

    def attach_frame(self, link: Link) -> bytes:
        proof = attach_proof(self.first.secret, self.side, link.keys.h)
        return frame(Type.ATTACH, self.id, link.number, proof, flags=ADD if link.adding else 0)

    def attach(self, keys: Keys, *, add: bool = False) -> int:
        """Client: carries the session on over a new handshake's link. Returns the link's number."""
        assert self.client
        number = max(self.used) + 1
        self.used.add(number)
        link = Link(number, keys, attached=False)
        link.adding = add
        if not add:
            self.links.clear()
        self.links[number] = link
        link.send(self.attach_frame(link))
        if not add:
            self.replace(link)
        self.receive(number, keys.rest)
        return number

    def replace(self, link: Link) -> None:
        """The link takes the place of all others: it begins with the list."""
        link.state_due = self.blocked = True
        self.waiting, self.told = {link.number}, set()
        self.send_list(link, link.number)

    def accept(self, keys: Keys) -> int:
        """Server: a new handshake's link that asks to be attached. Returns a number for it until ATTACH came."""
        assert not self.client
        assert keys.peer.resume == self.id
        assert keys.peer.id == self.first.peer.id
        self.places -= 1
        place = self.places
        self.links[place] = Link(place, keys, attached=False)
        self.receive(place, keys.rest)
        return place

    def on_attach(self, link: Link, got: Frame) -> None:
        if link.attached:
            raise Breach(Code.PROTOCOL, "ATTACH on a link that is attached")
        connection, number, proof = got.fields
        fits = hmac.compare_digest(proof, attach_proof(self.first.secret, self.other, link.keys.h))
        if connection != self.id or not fits:
            raise Breach(Code.RESUME_PROOF, "the proof does not fit")
        if self.client:
            if number != link.number or bool(got.flags & ADD) != link.adding:
                raise Breach(Code.PROTOCOL, "the server's ATTACH is not the answer to ours")
        else:
            self.take_number(link, number, bool(got.flags & ADD))
        link.attached = True
        if link.adding and not any(one.attached for one in self.links.values() if one is not link):
            self.send_lists()

    def take_number(self, link: Link, number: int, adding: bool) -> None:
        """Server: the client's ATTACH has come."""
        if number in self.used:
            raise Breach(Code.PROTOCOL, f"link {number} was used before")
        self.used.add(number)
        del self.links[link.number]
        link.number, link.adding = number, adding
        if not adding:
            self.links.clear()
        self.links[number] = link
        link.send(self.attach_frame(link))
        if not adding:
            self.replace(link)

    # --- receiving

    def receive(self, number: int, data: bytes) -> None:
        """Takes bytes from a link's carrier; raises Breach, and LinkLost where the link is at its end."""
        link = self.links[number]
        link.opener.feed(data)
        while (plaintext := link.opener.next()) is not None:
            self.hear(link, plaintext)
        self.forget()

    def hear(self, link: Link, plaintext: bytes) -> None:
        """Takes the frames of one record; raises Breach."""
        for got in decode_frames(plaintext):
            if self.closed:
                return
            if got.type == Type.REKEY and got.flags & FRESH:
                self.peer_changed_over(link)
                continue
            if got.type == Type.REKEY:
                link.opener.rekey()
                continue
            if not link.attached and got.type not in (Type.ATTACH, Type.CLOSE):
                raise Breach(Code.RESUME_PROOF, f"{got.type.name} before ATTACH")
            HANDLERS[got.type](self, link, got)

    def peer_changed_over(self, link: Link) -> None:
        key, link.exchange.receive_key = link.exchange.receive_key, None
        if key is None:
            raise Breach(Code.PROTOCOL, "FRESH where no key waits")
        link.opener.key = key
        if not self.client:
            link.change_over()

    def ask_for_fresh_keys(self, number: int | None = None) -> None:
        """Client: EXCHANGE on a link."""
        link = self.link(number)
        link.send(frame(Type.EXCHANGE, *link.exchange.ask(self.draw(32))))

    def on_exchange(self, link: Link, got: Frame) -> None:
        if self.client:
            link.exchange.heard(*got.fields)
            link.change_over()
        else:
            key, signature = got.fields
            link.send(frame(Type.EXCHANGE, *link.exchange.answer(key, signature, self.draw(32))))

    def named(self, stream: int) -> Stream | None:
        """The stream that a frame names, opened where it is the peer's; None when it is forgotten."""
        mine = (stream & 1) == (0 if self.client else 1)
        number = stream >> 1
        if mine:
            if number >= self.opened[0]:
                raise Breach(Code.PROTOCOL, f"our stream {stream} was never opened")
        elif number >= self.opened[1]:
            if number >= self.may_be_opened:
                raise Breach(Code.LIMIT, f"stream {stream} is beyond STREAMS")
            for each in range(self.opened[1], number + 1):
                name = each * 2 + (stream & 1)
                self.streams[name] = self.new_stream(name)
            self.opened[1] = number + 1
        return self.streams.get(stream)

    def account(self, one: Stream, end: int) -> None:
        """Counts bytes up to `end` against what we gave."""
        if end > one.given:
            raise Breach(Code.FLOW, f"stream {one.id} has {end} bytes, may have {one.given}")
        fresh = max(0, end - one.arrived)
        if self.conn_arrived + fresh > self.conn_given:
            raise Breach(Code.FLOW, "the connection's credit is used up")
        self.conn_arrived += fresh
        one.arrived = max(one.arrived, end)

    def on_stream(self, link: Link, got: Frame) -> None:
        if link.state_due:
            raise Breach(Code.PROTOCOL, "STREAM before STATE")
        stream, offset = got.fields
        one = self.named(stream)
        if one is None:
            return
        end = offset + len(got.rest)
        self.check_final(one, end, end if got.flags & FIN else None)
        self.account(one, end)
        if got.flags & FIN:
            one.final = end
        if one.reset_heard is not None:
            return
        if len(got.rest) > len(one.pieces.get(offset, b"")):
            one.pieces[offset] = got.rest
        while True:
            fitting = [o for o, d in one.pieces.items() if o <= len(one.got) < o + len(d)]
            if not fitting:
                break
            one.got += one.pieces[fitting[0]][len(one.got) - fitting[0] :]
        one.pieces = {o: d for o, d in one.pieces.items() if o + len(d) > len(one.got)}

    def check_final(self, one: Stream, end: int, final: int | None) -> None:
        if one.final is not None and end > one.final:
            raise Breach(Code.PROTOCOL, "data behind the end")
        if final is not None and (final < one.arrived or one.final not in (None, final)):
            raise Breach(Code.PROTOCOL, "the final offset changed")

    def on_reset(self, _link: Link, got: Frame) -> None:
        stream, code, final = got.fields
        one = self.named(stream)
        if one is None:
            return
        self.check_final(one, final, final)
        self.account(one, final)
        if one.receive_done:
            return
        one.final, one.reset_heard = final, code
        self.conn_taken += final - one.taken
        one.taken = final
        self.conn_given = max(self.conn_given, self.conn_taken + self.conn_window)

    def on_stop(self, _link: Link, got: Frame) -> None:
        stream, code = got.fields
        one = self.named(stream)
        if one is not None:
            one.stop_heard = code
            self.do_reset(stream, code)

    def on_window(self, link: Link, got: Frame) -> None:
        stream, acked, limit = got.fields
        if stream == CONNECTION:
            self.conn_limit = max(self.conn_limit, limit)
            return
        one = self.named(stream)
        if got.flags & LISTED:
            link.listed.add(stream)
        if one is None:
            return
        if acked > one.high + (1 if one.end_sent else 0):
            raise Breach(Code.PROTOCOL, f"{acked} acknowledged, {one.high} sent")
        one.acked = max(one.acked, acked)
        one.limit = max(one.limit, limit)
        if one.end_due and one.send_done:
            one.end_due = False

    def on_state(self, link: Link, got: Frame) -> None:
        seen, opened, lost = got.fields
        if lost not in self.used:
            raise Breach(Code.PROTOCOL, f"STATE of link {lost}, which never was")
        if seen > self.opened[0]:
            raise Breach(Code.PROTOCOL, f"{seen} streams seen, {self.opened[0]} opened")
        if opened > self.may_be_opened:
            raise Breach(Code.PROTOCOL, f"{opened} streams opened, {self.may_be_opened} allowed")
        replaces = link.state_due and lost == link.number
        if lost == link.number and not replaces:
            raise Breach(Code.PROTOCOL, "STATE says that the link it came on is lost")
        listed, link.listed, link.state_due = link.listed, set(), False
        self.blocked = False
        if lost in self.links and not replaces:
            self.lose(lost)
        elif lost not in self.told:
            self.send_list(link, lost)
        self.waiting.discard(lost)
        for stream, one in list(self.streams.items()):
            mine = (stream & 1) == (0 if self.client else 1)
            if mine and stream >> 1 >= seen:
                if one.acked:
                    raise Breach(Code.PROTOCOL, f"stream {stream} was acknowledged, is not seen")
                self.again(one, mine)
            elif not mine and stream >> 1 >= opened:
                self.again(one, mine)  # newer than the list: it came over a faster link
            elif stream not in listed:
                if not (one.end_sent and one.receive_done and one.announced == one.to_acknowledge):
                    raise Breach(Code.PROTOCOL, f"stream {stream} is not listed, but not done with")
                self.archive[stream] = self.streams.pop(stream)
            else:
                self.again(one, mine)

    def again(self, one: Stream, mine: bool) -> None:
        """Goes on from the last `acked`."""
        if one.send_done:
            return
        one.next = min(one.acked, len(one.data))
        one.open_due, one.end_due = mine and one.high == 0, one.finished

    def on_close(self, _link: Link, got: Frame) -> None:
        if len(got.rest) > 256:
            raise Breach(Code.PROTOCOL, "a reason above 256 bytes")
        code, detail = got.fields
        self.closed = (bool(got.flags & APPLICATION), code, got.rest.decode(errors="replace"), detail)

    def on_ping(self, link: Link, got: Frame) -> None:
        link.send(frame(Type.PONG, *got.fields))

    def on_pong(self, _link: Link, got: Frame) -> None:
        self.pongs.append(got.fields[0])

    def on_streams(self, _link: Link, got: Frame) -> None:
        self.may_open = max(self.may_open, got.fields[0])

    def on_datagram(self, _link: Link, got: Frame) -> None:
        if len(got.rest) > self.datagram_given:
            raise Breach(Code.LIMIT, f"a datagram of {len(got.rest)} bytes")
        self.datagrams.append(got.rest)

    def on_away(self, _link: Link, got: Frame) -> None:
        self.away = got.fields[0]

    def on_ready(self, _link: Link, _got: Frame) -> None:
        if not self.client:
            raise Breach(Code.PROTOCOL, "READY from a client")
        self.ready = True

    def on_meter(self, _link: Link, got: Frame) -> None:
        if len(got.rest) > 4096:
            raise Breach(Code.LIMIT, "METER above 4,096 bytes")
        self.meters.append(got.rest)


HANDLERS = {
    Type.PING: SecondPeer.on_ping,
    Type.PONG: SecondPeer.on_pong,
    Type.STREAM: SecondPeer.on_stream,
    Type.RESET: SecondPeer.on_reset,
    Type.STOP: SecondPeer.on_stop,
    Type.WINDOW: SecondPeer.on_window,
    Type.STREAMS: SecondPeer.on_streams,
    Type.DATAGRAM: SecondPeer.on_datagram,
    Type.CLOSE: SecondPeer.on_close,
    Type.AWAY: SecondPeer.on_away,
    Type.READY: SecondPeer.on_ready,
    Type.ATTACH: SecondPeer.on_attach,
    Type.STATE: SecondPeer.on_state,
    Type.METER: SecondPeer.on_meter,
    Type.EXCHANGE: SecondPeer.on_exchange,
}
