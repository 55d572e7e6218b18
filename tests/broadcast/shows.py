"""Shows within one process, for tests: producers, listeners, and neighbours that lie."""

import asyncio
import contextlib

import dtp
from dtp.broadcast import frames
from dtp.broadcast import messages as m
from dtp.broadcast.format import Announcement, SegmentSigner
from dtp.broadcast.format.segment import pieces_of
from dtp.broadcast.hearing import listen_to
from dtp.broadcast.parents import Patience
from dtp.broadcast.places import Place
from dtp.broadcast.producing import Broadcast
from dtp.identity import Identity

HERE = Place(listen=("tcp://127.0.0.1:0",))
#: Short, where a test waits for it to pass; no test asserts how long it takes.
HASTY = Patience(answer=2.0, silence=0.2, late=1.0, anybody=30.0)
ME = Identity(bytes(range(32)))


def run(work):
    """Run a test, within a minute."""

    async def limited():
        async with asyncio.timeout(60):
            return await work

    return asyncio.run(limited())


def produce(**options):
    return Broadcast(identity=ME, place=HERE, **options)


def hear(*addresses, **options):
    return listen_to(*addresses, **{"patience": HASTY, "producer": ME.id, **options})


async def all_of(stream, heard=None):
    """What is heard to the end, as (number, bytes); `heard` gets each as it comes."""
    heard = [] if heard is None else heard
    async for each in stream:
        assert not each.missed
        heard.append((each.segment.number, each.data))
    return heard


async def until(condition):
    """Wait for a condition; the test's own limit ends it otherwise."""
    while not condition():  # noqa: ASYNC110  # what is looked at tells nobody
        await asyncio.sleep(0.005)


def chain(*bodies, identity=ME, show=bytes(32), announced_ms=0):
    """An announcement, and what goes on the wire for each body."""
    announcement = Announcement.sign(identity, show, time_ms=announced_ms)
    signer = SegmentSigner(identity, announcement)
    return announcement, [(signer.sign(body, time_ms=at), body) for at, body in enumerate(bodies)]


def on_the_wire(segment, body):
    pieces = [m.Piece(segment.number, index, bytes(piece)) for index, piece in enumerate(pieces_of(body))]
    return [m.Manifest(segment.encoded), *pieces]


@contextlib.asynccontextmanager
async def liar(*said, identity=None, stay=True, measured=None):
    """A neighbour that says this to everybody, whatever is true; gives its address. `measured` is what it says to who
    measures it."""
    identity = identity or Identity.generate()

    async def serve(connection):
        async for stream in connection:
            hello = await frames.read(stream)
            for each in measured if measured and hello.count else said:
                frames.write(stream, each)
            if stay:
                await asyncio.Event().wait()
            stream.write_eof()

    async with await dtp.listen("tcp://127.0.0.1:0", {"show": serve}, identity=identity) as listener:
        yield str(listener.address("show"))
