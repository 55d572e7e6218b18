"""A network of listeners in memory: whom they dial, what they hear, and how long that takes by the fake clock."""

import asyncio
import contextlib

from dtp.broadcast.feeding import Feeder
from dtp.broadcast.parents import Parents
from dtp.broadcast.receiving import Receiver
from dtp.errors import CarrierError
from dtp.identity import Identity
from dtp.session.codes import StreamReset


class Network:
    """Those who serve a show, by address, in memory; it counts who is dialled, and times are of the fake clock."""

    def __init__(self, delay=lambda: 0.0):
        """`delay` gives the seconds that a connection takes each way, for each new one."""
        self.serving, self.dialled, self._live, self._delay = {}, [], [], delay
        #: Seconds that everything takes longer now: all share what is short, such as a processor.
        self.slower = 0.0

    @contextlib.asynccontextmanager
    async def dial(self, peer, address):
        self.dialled.append((asyncio.get_running_loop().time(), address))
        if address not in self.serving:
            raise CarrierError(f"{address} is down")
        own = self._delay()
        delay = lambda: own + self.slower  # noqa: E731
        near, far = Connection(peer, delay), Connection(peer, delay)
        near.other, far.other = far, near
        if delay():
            await asyncio.sleep(4 * delay())  # two round trips of a handshake
        served = asyncio.ensure_future(self.serving[address].serve_connection(far))
        self._live.append((address, near))
        try:
            yield near
        finally:
            served.cancel()
            await asyncio.gather(served, return_exceptions=True)
            self._live.remove((address, near))
            near.cut()

    def down(self, address):
        """Whoever listens there hears nothing more, nor reaches it again."""
        del self.serving[address]
        for where, connection in self._live:
            if where == address:
                connection.cut()

    async def relay(self, address, *given, patience=None):
        """One who hears the show at `given`, and serves it at `address`; gives its receiver and its task.

        `address` has `{}` for its identity, where others are to be sent there.
        """
        peer = Identity.generate().id
        address = address.format(peer)
        parents = Parents(given)
        parents.avoid_addresses([address])
        receiver = Receiver(peer, lambda to: self.dial(peer, to), parents, patience=patience)
        receiver.serving = lambda: (address,)
        task = asyncio.ensure_future(receiver.run())
        feeder = Feeder(await receiver.wait_opened(), peer)
        feeder.know_others(lambda: parents.addresses)
        receiver.room = lambda: feeder.list_places((address,))
        receiver.on_path = feeder.come_through
        feeder.come_through(receiver.path)
        self.serving[address] = feeder
        return receiver, task


class Connection:
    """An end of a connection: a queue of streams that the other end opened."""

    def __init__(self, peer, delay):
        self.peer, self._delay, self._streams, self._opened = peer, delay, asyncio.Queue(), []

    async def open_stream(self):
        near, far = End(self._delay), End(self._delay)
        near.other, far.other = far, near
        self._opened.append(near)
        self.other._streams.put_nowait(far)
        return near

    def cut(self):
        for each in self._opened:
            each.reset()

    def __aiter__(self):
        return self

    async def __anext__(self):
        return await self._streams.get()


class End:
    """An end of a stream: what `frames` and `Feeder` need of one."""

    def __init__(self, delay):
        self.reader, self.write_error = asyncio.StreamReader(), None
        self._delay, self._last = delay, 0.0

    def write(self, data):
        if self.write_error is not None:
            raise self.write_error
        self._later(self.other.reader.feed_data, data)

    def _later(self, what, *arguments):
        delay, loop = self._delay(), asyncio.get_running_loop()
        if delay or self._last > loop.time():
            # In the order in which it was sent.
            self._last = max(loop.time() + delay, self._last + 1e-9)
            loop.call_at(self._last, what, *arguments)
        else:
            what(*arguments)

    async def drain(self):
        pass

    flush = drain

    def write_eof(self):
        self._later(self.other.reader.feed_eof)

    async def readexactly(self, size):
        return await self.reader.readexactly(size)

    def reset(self):
        for each in (self, self.other):
            if each.write_error is None:
                each.write_error = StreamReset(0)
                each.reader.set_exception(each.write_error)
