"""A network of listeners in memory: whom they dial, what they hear, and how long that takes by the fake clock."""

from __future__ import annotations

import asyncio
import collections
import contextlib

from dtp.broadcast.feeding import Feeder
from dtp.broadcast.format import PIECE_SIZE
from dtp.broadcast.parents import Parents
from dtp.broadcast.receiving import ShowReceiver
from dtp.broadcast.tree.measuring import is_served_by
from dtp.carriers.nearness import Nearness
from dtp.errors import CarrierError
from dtp.identity import Identity
from dtp.session.codes import StreamReset

#: Frames that a stream takes before whoever writes waits, where there is a processor.
QUEUED = 4


class Network:
    """Those who serve a show, by address, in memory; it counts who is dialled, and times are of the fake clock."""

    def __init__(self, delay=lambda: 0.0, processor=None):
        """`delay` gives the seconds that a connection takes each way, for each new one; `processor` is what all
        share, if that counts."""
        self.processor = processor
        self.serving, self.dialled, self._live, self._delay = {}, [], [], delay
        #: Where those were who measured somebody.
        self.measured = []
        #: Whose identity is at an address; and how many seconds more the way there is, each way.
        self.identities, self.farther = {}, {}
        #: Seconds that everything takes longer now: all share what is short, such as a processor.
        self.slower = 0.0

    @contextlib.asynccontextmanager
    async def dial(self, peer, address, source=""):
        """`source` is where the one who dials is, by default a place of its own."""
        self.dialled.append((asyncio.get_running_loop().time(), address))
        if address not in self.serving:
            raise CarrierError(f"{address} is down")
        own = self._delay() + self.farther.get(address, 0.0)
        delay = lambda: own + self.slower  # noqa: E731
        source = source or str(peer)
        there = self.identities.get(address, peer)
        near, far = (Connection(each, delay, source, self.processor) for each in (there, peer))
        near.other, far.other = far, near
        if self.processor is not None:
            await self.processor.take_dial(peer)
        if delay():
            await asyncio.sleep(4 * delay())  # two round trips of a handshake
        if address not in self.serving:
            raise CarrierError(f"{address} went down")
        served = asyncio.ensure_future(self.serving[address].serve_connection(far))
        self._live.append((address, near))
        try:
            yield near
        finally:
            served.cancel()
            await asyncio.gather(served, return_exceptions=True)
            self._live.remove((address, near))
            near.cut()

    def count_open(self, address=None):
        """How many connections are open, to an address or in all."""
        return sum(address in (None, where) for where, _ in self._live)

    def down(self, address):
        """Whoever listens there hears nothing more, nor reaches it again."""
        del self.serving[address]
        for where, connection in self._live:
            if where == address:
                connection.cut()

    def freeze(self, address):
        """Who is there says nothing more, as a process that is stopped, and its connections stay: what comes over
        them isn't read, and whoever dials has no answer."""
        self.serving[address] = Frozen()
        for where, connection in self._live:
            if where == address:
                connection.silence_other()

    async def relay(self, address, *given, patience=None, identity=None, source=""):
        """One who hears the show at `given`, and serves it at `address`; gives its receiver and its task.

        `address` has `{}` for its identity, where others are to be sent there.
        """
        peer = identity or Identity.generate().id
        address = address.format(peer)
        parents = Parents(given)
        parents.avoid_addresses([address])
        receiver = ShowReceiver(peer, lambda to: self.dial(peer, to, source), parents, patience=patience)
        receiver.serving = lambda: (address,)
        task = asyncio.ensure_future(receiver.run())
        self.serving[address] = soon = Soon()
        held = await receiver.wait_opened()
        feeder = Feeder(held, peer, measure=self.measure_from(address, held.announcement))
        feeder.know_others(lambda: parents.useful)
        receiver.room = lambda: feeder.list_places((address,))
        receiver.on_path = feeder.come_through
        feeder.come_through(receiver.path)
        soon.feeder.set_result(feeder)
        return receiver, task

    def measure_from(self, source, announcement):
        """What measures listeners of one who is at `source`: a stranger comes to them from there."""

        async def measure(who, addresses):
            self.measured.append(source)
            stranger = Identity.generate().id
            dial = lambda to: self.dial(stranger, to, source)  # noqa: E731
            return await is_served_by(dial, stranger, who, addresses, announcement)

        return measure

    async def rider(
        self, given, *, identity=None, address="", serves=None, source="", nearest=Nearness.ANYWHERE
    ):
        """One who hears the show at `given` and serves nobody, whatever it says: `address` is where it says that it
        does, and `serves` what is there. Gives its receiver and its task."""
        peer = identity or Identity.generate().id
        parents = Parents([given], nearest=nearest)
        receiver = ShowReceiver(peer, lambda to: self.dial(peer, to, source), parents)
        if address:
            address = address.format(peer)
            parents.avoid_addresses([address])
            receiver.serving = lambda: (address,)
            if serves is not None:
                self.serving[address] = serves
        return receiver, asyncio.ensure_future(receiver.run())


class Processor:
    """What all who are in a network share, each in turn: each frame and each dial takes its time of it.

    What is for nobody any more takes none. `run` it in a task.
    """

    def __init__(self, *, piece, dial):
        """`piece` and `dial` are seconds, where `speed` is 1."""
        self.speed, self._piece, self._dial = 1.0, piece, dial
        self._queues, self._wake = collections.defaultdict(collections.deque), asyncio.Event()

    async def run(self):
        while True:
            await self._wake.wait()
            self._wake.clear()
            while waiting := [each for each in self._queues.values() if each]:
                for queue in waiting:
                    await self._do_next(queue)

    async def _do_next(self, queue):
        while queue:
            seconds, is_wanted, do = queue.popleft()
            if is_wanted():
                await asyncio.sleep(seconds / self.speed)
                do()
                return

    def _add(self, who, seconds, is_wanted, do):
        self._queues[who].append((seconds, is_wanted, do))
        self._wake.set()

    def take_frame(self, who, size, is_wanted, do):
        self._add(who, self._piece * max(size / PIECE_SIZE, 0.2), is_wanted, do)

    async def take_dial(self, who):
        taken = asyncio.get_running_loop().create_future()
        self._add(who, self._dial, lambda: not taken.done(), lambda: taken.done() or taken.set_result(None))
        await taken


class Soon:
    """One that listens, and serves whoever comes as soon as it hears the show itself."""

    def __init__(self):
        self.feeder = asyncio.get_running_loop().create_future()

    async def serve_connection(self, connection):
        await (await asyncio.shield(self.feeder)).serve_connection(connection)


class Frozen:
    """One that is stopped, and whose machine takes connections for it."""

    async def serve_connection(self, connection):
        await asyncio.Event().wait()


class Connection:
    """An end of a connection: a queue of streams that the other end opened."""

    other: Connection

    def __init__(self, peer, delay, source, processor=None):
        self.peer, self.source, self._delay, self._streams = peer, source, delay, asyncio.Queue()
        self._processor = processor
        self._opened = []

    async def open_stream(self):
        near, far = (End(self._delay, self._processor, each) for each in (self.peer, self.other.peer))
        near.other, far.other = far, near
        self._opened.append(near)
        self.other._streams.put_nowait(far)
        return near

    def cut(self):
        for each in self._opened:
            each.reset()

    def silence_other(self):
        """Nothing comes any more over the streams that were opened here."""
        for each in self._opened:
            each.other.write = lambda data: None

    def __aiter__(self):
        return self

    async def __anext__(self):
        return await self._streams.get()


class End:
    """An end of a stream: what `frames` and `Feeder` need of one."""

    other: End

    def __init__(self, delay, processor=None, there=None):
        """Who is `there` has to read what is written here."""
        self.reader, self.write_error = asyncio.StreamReader(), None
        self._delay, self._last = delay, 0.0
        self._processor, self._there, self._queued = processor, there, 0

    def write(self, data):
        if self.write_error is not None:
            raise self.write_error
        self._send(len(data), self.other.reader.feed_data, data)

    def _send(self, size, what, *arguments):
        if self._processor is None:
            self._later(what, *arguments)
            return

        def pass_on():
            self._queued -= 1
            self._later(what, *arguments)

        self._queued += 1
        self._processor.take_frame(self._there, size, lambda: self.write_error is None, pass_on)

    def _later(self, what, *arguments):
        delay, loop = self._delay(), asyncio.get_running_loop()
        if delay or self._last > loop.time():
            # In the order in which it was sent.
            self._last = max(loop.time() + delay, self._last + 1e-9)
            loop.call_at(self._last, what, *arguments)
        else:
            what(*arguments)

    async def drain(self):
        while self._queued > QUEUED and self.write_error is None:  # noqa: ASYNC110  # a reset tells nobody
            await asyncio.sleep(0.02)

    async def flush(self):
        while self._queued and self.write_error is None:  # noqa: ASYNC110
            await asyncio.sleep(0.02)

    def write_eof(self):
        self._send(0, self.other.reader.feed_eof)

    async def readexactly(self, size):
        return await self.reader.readexactly(size)

    def reset(self):
        for each in (self, self.other):
            if each.write_error is None:
                each.write_error = StreamReset(0)
                each.reader.set_exception(each.write_error)
