"""Carriers within one process, with whatever faults a test asks for: `memory://name`, and `pair()`.

Everything is scheduled on the running loop, and every choice comes from a seeded `random.Random`, so under
`dtp.testing.clock` a run can be repeated exactly. The bytes keep their order and lose nothing until the carrier is
cut; with `packets=True` there is a lossy path beside them, which loses, doubles, delays and reorders.

Options when dialling, the same for both directions: `delay` and `jitter` (seconds), `capacity` (bytes),
`chunk` (most bytes per read), `cut_at` (bytes), `packets=1`, `loss`, `duplicate` (0 to 1), `seed`.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar
from weakref import WeakKeyDictionary

from dtp.carriers.base import Accept, Carrier, CarrierListener, Receiver
from dtp.carriers.errors import BrokenError, CarrierUrlError, DialError, ListenError
from dtp.carriers.stream_socket import LINGER, hand_over
from dtp.carriers.url import CarrierUrl, parse_url
from dtp.errors import CarrierError

#: Bytes under way in one direction from which on `write` says to wait.
CAPACITY = 256 * 1024

#: Most bytes of a packet on the lossy path: what UDP over IPv6 carries without fragments (1280 - 48).
PACKET_SIZE = 1232

_OPTIONS = {
    "delay", "jitter", "capacity", "chunk", "cut_at", "packets", "loss", "duplicate", "seed"
}  # fmt: skip


@dataclass(frozen=True)
class MemoryLink:
    """What happens to bytes in one direction.

    `delay`: seconds each write takes; `jitter`: up to so many more at random, which reorders packets (and
    only slows the bytes). `capacity`: bytes under way from which on `write` says to wait, and packets are dropped.
    `chunks`: sizes in which bytes arrive, repeated for ever (empty: as they come). `cut_at`: the carrier is lost, at
    both ends and with `BrokenError`, when so many bytes have arrived; 0 cuts at the first write. `loss` and
    `duplicate`: chance that a packet is lost, or comes twice.
    """

    delay: float = 0.0
    jitter: float = 0.0
    capacity: int = CAPACITY
    chunks: Sequence[int] = ()
    cut_at: int | None = None
    loss: float = 0.0
    duplicate: float = 0.0


@dataclass(order=True)
class _Item:
    """Something under way: data, or with `end` the end of the direction (by `error`, or orderly with
    None)."""

    due: float
    number: int
    data: memoryview = field(compare=False)
    end: bool = field(default=False, compare=False)
    error: CarrierError | None = field(default=None, compare=False)


class _Direction:
    """What is on the way from one end to the other."""

    def __init__(self, link: MemoryLink, rng: random.Random) -> None:
        self._link = link
        self._rng = rng
        self._loop = asyncio.get_running_loop()
        self._items: list[_Item] = []
        self._numbers = itertools.count()
        self._last_due = 0.0
        self._arrived = 0
        self._chunks = itertools.cycle(link.chunks) if link.chunks else None
        self._handle: asyncio.Handle | None = None
        self._under_way = 0
        self._shut = False
        self.blocked = False
        # The two ends, until they are over: they refer to this, and neither would go by itself.
        self.sender: MemoryCarrier | None
        self.receiver: MemoryCarrier | None

    def put_data(self, data: memoryview) -> bool:
        """Send `data`; return whether more may follow at once."""
        if self._shut or not data:
            return not self.blocked
        self._add_item(memoryview(bytes(data)))
        self.blocked = self._under_way >= self._link.capacity
        return not self.blocked

    def put_end(self, error: CarrierError | None) -> None:
        """Send the end, after the data when it is orderly, instead of the data otherwise."""
        if self._shut:
            return
        if error is not None:
            self.drop_pending()
        self._add_item(memoryview(b""), end=True, error=error)

    def drop_pending(self) -> None:
        """Forget what is on the way."""
        self._items.clear()
        self._under_way = 0
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def close_receiver(self) -> None:
        """Note that the receiving end is gone: what is on the way and what is still sent goes nowhere."""
        self.drop_pending()
        self._shut = True

    def start_receiver(self) -> None:
        """Note that the receiving end has started."""
        self._schedule_delivery()

    @property
    def error(self) -> CarrierError | None:
        """By what it has broken off, if it has; the receiving end may not have asked for it yet."""
        broken = self._items and self._items[-1].due <= self._loop.time()
        return self._items[-1].error if broken else None

    @property
    def at_end(self) -> bool:
        """True if nothing is on the way but the end, and that has come."""
        return bool(self._items) and self._items[0].end and self._items[0].due <= self._loop.time()

    def _add_item(self, data: memoryview, end: bool = False, error: CarrierError | None = None) -> None:
        due = self._loop.time() + self._link.delay
        if self._link.jitter:
            due += self._rng.random() * self._link.jitter
        due = self._last_due = max(due, self._last_due)
        heapq.heappush(self._items, _Item(due, next(self._numbers), data, end, error))
        self._under_way += len(data)
        self._schedule_delivery()

    def _schedule_delivery(self) -> None:
        receiver = self.receiver
        if receiver is None or not receiver.started or receiver.paused or not self._items:
            return
        due = self._items[0].due
        if self._handle is not None:
            if not isinstance(self._handle, asyncio.TimerHandle) or self._handle.when() <= due:
                return
            self._handle.cancel()
        if due <= self._loop.time():
            self._handle = self._loop.call_soon(self._deliver_due, due)
        else:
            self._handle = self._loop.call_at(due, self._deliver_due, due)

    def _deliver_due(self, due: float) -> None:
        """Hand on one read that is due. A loop's timers may be early by its clock's resolution, so
        the time that was waited for counts as reached."""
        self._handle = None
        receiver = self.receiver
        if receiver is None or receiver.paused:
            return
        now = max(due, self._loop.time())
        if self._link.cut_at is not None and self._arrived >= self._link.cut_at and not self._items[0].end:
            self._cut_link()
            return
        if self._items[0].end:
            error = heapq.heappop(self._items).error
            receiver.end_arrived(error)
            return
        size = self._fill_buffer(receiver.receive_buffer(), now)
        self._arrived += size
        self._under_way -= size
        if size:
            receiver.data_arrived(size)
        if self._link.cut_at is not None and self._arrived >= self._link.cut_at:
            self._handle = self._loop.call_soon(self._cut_link)
            return
        self._schedule_delivery()
        if self.blocked and self._under_way <= self._link.capacity // 2:
            self.blocked = False
            if self.sender is not None:
                self._loop.call_soon(self.sender.writable_again)

    def _fill_buffer(self, buffer: memoryview, now: float) -> int:
        """Copy what is due into `buffer`, as far as one read goes; return how many bytes."""
        room = min(len(buffer), next(self._chunks)) if self._chunks is not None else len(buffer)
        if self._link.cut_at is not None:
            room = min(room, self._link.cut_at - self._arrived)
        size = 0
        while size < room and self._items and self._items[0].due <= now and not self._items[0].end:
            item = self._items[0]
            part = item.data[: room - size]
            buffer[size : size + len(part)] = part
            size += len(part)
            item.data = item.data[len(part) :]
            if not item.data:
                heapq.heappop(self._items)
        return size

    def _cut_link(self) -> None:
        self._handle = None
        error = BrokenError(f"cut after {self._arrived} bytes")
        for end in (self.receiver, self.sender):
            if end is not None:
                end.cut_link(error)


class _LossyPath:
    """Packets in one direction, and what happens to them."""

    def __init__(self, link: MemoryLink, rng: random.Random) -> None:
        self._link = link
        self._rng = rng
        self._loop = asyncio.get_running_loop()
        self._items: list[_Item] = []
        self._numbers = itertools.count()
        self._under_way = 0
        self.receiver: MemoryCarrier

    def put_packet(self, data: bytes) -> None:
        """Send a packet, or lose it."""
        link, rng = self._link, self._rng
        if rng.random() < link.loss or self._under_way >= link.capacity:
            return
        for _ in range(2 if rng.random() < link.duplicate else 1):
            self._under_way += len(data)
            due = self._loop.time() + link.delay + rng.random() * link.jitter
            heapq.heappush(self._items, _Item(due, next(self._numbers), memoryview(data)))
            self._loop.call_at(due, self._deliver_packet)

    def _deliver_packet(self) -> None:
        """Hand on the first: of those that are due at one time, the one that was sent first."""
        data = heapq.heappop(self._items).data
        self._under_way -= len(data)
        self.receiver.packet_arrived(bytes(data))


class MemoryCarrier(Carrier):
    """One end of a pair in memory. Made by `pair` and `dial`."""

    scheme: ClassVar[str] = "memory"

    def __init__(self, out: _Direction, into: _Direction, remote: str, packets: _LossyPath | None) -> None:
        self.source = "memory"
        self.remote = remote
        self.packet_size = 0 if packets is None else PACKET_SIZE
        self.started = False
        self.paused = False
        self._loop = asyncio.get_running_loop()
        self._out = out
        self._in = into
        self._packets = packets
        self._receiver: Receiver | None = None
        self._closing = False
        self._ended = False
        self._lost: CarrierError | None = None
        self._linger: asyncio.TimerHandle | None = None
        out.sender = self
        into.receiver = self

    def start(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self.started = True
        if self._ended:
            self._loop.call_soon(receiver.carrier_lost, self._lost)
        else:
            self._in.start_receiver()

    def write(self, data: memoryview) -> bool:
        if self._ended or self._closing:
            return False
        return self._out.put_data(data)

    def write_packet(self, data: memoryview) -> None:
        if (
            self._packets is not None
            and len(data) <= self.packet_size
            and not self._ended
            and not self._closing
        ):
            self._packets.put_packet(bytes(data))

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False
        self._in.start_receiver()

    def close(self) -> None:
        if self._ended or self._closing:
            return
        self._closing = True
        self.paused = False
        self.started = True  # what still comes is dropped, whether or not anyone has started
        self._in.start_receiver()
        self._linger = self._loop.call_later(LINGER, self._end_carrier, None)
        self._out.put_end(None)

    def abort(self) -> None:
        if self._ended:
            return
        self._out.put_end(BrokenError("reset by the other side"))
        self._let_go()
        receiver, self._receiver = self._receiver, None  # which has this carrier: neither would go by itself
        if receiver is not None:
            self._loop.call_soon(receiver.carrier_lost, None)

    def broken_off(self) -> bool:
        error = self._in.error
        if error is not None and not self._ended:
            self._loop.call_soon(self.end_arrived, error)
        return self._ended or error is not None

    def has_ended(self) -> bool:
        return self.broken_off() or self._in.at_end

    # From the directions, always called by the loop.

    def receive_buffer(self) -> memoryview:
        """Return where the next bytes go."""
        if self._receiver is None or self._closing:
            return memoryview(bytearray(65536))
        return self._receiver.carrier_buffer()

    def data_arrived(self, size: int) -> None:
        """Called when `size` bytes are in the buffer."""
        if self._receiver is not None and not self._closing:
            self._receiver.carrier_received(size)

    def packet_arrived(self, data: bytes) -> None:
        """Called when a packet has come over the lossy path."""
        if self._receiver is not None and not self._closing and not self._ended:
            self._receiver.carrier_packet(data)

    def writable_again(self) -> None:
        """Called when enough of what was written has arrived."""
        if self._receiver is not None and not self._closing and not self._ended:
            self._receiver.carrier_writable()

    def end_arrived(self, error: CarrierError | None) -> None:
        """Called when the other side has ended: end, too, and say so, as a socket's owner would."""
        if self._ended:
            return
        if not self._closing:
            self._out.drop_pending()
            self._out.put_end(error)
        self._end_carrier(error)

    def cut_link(self, error: CarrierError) -> None:
        """End, since the link was cut."""
        self._out.drop_pending()
        self._end_carrier(error)

    def _end_carrier(self, error: CarrierError | None) -> None:
        if self._ended:
            return
        self._let_go()
        self._lost = None if self._closing else error
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.carrier_lost(self._lost)

    def _let_go(self) -> None:
        """Forget everything: nothing comes any more, and nothing is called."""
        self._ended = True
        self._in.close_receiver()
        self._in.receiver = self._out.sender = self._packets = None
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None


def pair(
    there: MemoryLink | None = None,
    back: MemoryLink | None = None,
    *,
    packets: bool = False,
    seed: int = 0,
    remote: str = "memory:",
) -> tuple[MemoryCarrier, MemoryCarrier]:
    """Return two carriers that lead to each other, not started.

    `there` says what happens from the first to the second, `back` the other way. With `packets` they have a lossy
    path beside the bytes. All chance comes from `seed`.
    """
    there, back = there or MemoryLink(), back or MemoryLink()
    rng = random.Random(seed)
    first, second = _Direction(there, rng), _Direction(back, rng)
    chance = random.Random(seed)
    outward, homeward = _LossyPath(there, chance), _LossyPath(back, chance)
    near = MemoryCarrier(first, second, remote, outward if packets else None)
    far = MemoryCarrier(second, first, remote, homeward if packets else None)
    outward.receiver, homeward.receiver = far, near
    return near, far


# A name means something within one event loop only: tests that run side by side don't meet. Keyed by the
# loop, weakly, since loops written in C take no attributes.
_listeners: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, MemoryListener]] = WeakKeyDictionary()


class MemoryListener(CarrierListener):
    """Accepts at one name within the running loop."""

    def __init__(self, name: str, accept: Accept) -> None:
        self.urls = [f"memory://{name}"]
        self._name = name
        self._accept = accept
        self._names = _listeners.setdefault(asyncio.get_running_loop(), {})
        if name in self._names:
            raise ListenError(f"memory://{name}: address in use")
        self._names[name] = self

    async def close(self) -> None:
        if self._names.get(self._name) is self:
            del self._names[self._name]

    def accept_carrier(self, carrier: MemoryCarrier) -> None:
        """Accept the far end of a dial."""
        hand_over(carrier, self._accept)


def _link(url: CarrierUrl) -> MemoryLink:
    chunk = url.get_integer("chunk", 0)
    return MemoryLink(
        delay=url.get_number("delay", 0.0),
        jitter=url.get_number("jitter", 0.0),
        capacity=url.get_integer("capacity", CAPACITY),
        chunks=(chunk,) if chunk else (),
        cut_at=url.get_integer("cut_at", 0) if "cut_at" in url.options else None,
        loss=url.get_number("loss", 0.0),
        duplicate=url.get_number("duplicate", 0.0),
    )


def _parse(url: str, options: set[str]) -> CarrierUrl:
    parts = parse_url(url, options)
    if not parts.host or parts.port is not None or parts.path not in ("", "/"):
        raise CarrierUrlError(f"{url}: a memory URL is memory://name")
    return parts


async def dial(url: str) -> MemoryCarrier:
    """Dial `memory://name` in the running loop. Raises `DialError` when nobody listens, `CarrierUrlError`."""
    parts = _parse(url, _OPTIONS)
    packets = parts.get_flag("packets")
    loop = asyncio.get_running_loop()
    link, seed = _link(parts), parts.get_integer("seed", 0)
    listener = _listeners.get(loop, {}).get(parts.host)
    if listener is None:
        raise DialError(f"{url}: nobody listens there")
    near, far = pair(link, link, packets=packets, seed=seed, remote=url)
    loop.call_soon(listener.accept_carrier, far)
    return near


async def listen(url: str, accept: Accept) -> CarrierListener:
    """Listen at `memory://name` in the running loop. Raises `ListenError` when the name is taken,
    `CarrierUrlError`."""
    return MemoryListener(_parse(url, set()).host, accept)
