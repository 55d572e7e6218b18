"""Request from others what one neighbour of a show has left out or lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final, Protocol

from dtp.broadcast import frames
from dtp.broadcast import messages as m
from dtp.broadcast.errors import ProducerEquivocated, SegmentError
from dtp.broadcast.format import Flag, Segment
from dtp.broadcast.held import HeldSegments
from dtp.broadcast.parents import Parents
from dtp.broadcast.tree.lateness import Overdue
from dtp.broadcast.tree.rooms import COMPARED
from dtp.carriers.nearness import Nearness, dialled_as_told
from dtp.errors import DtpError
from dtp.identity import PeerId
from dtp.net.connection import Connection
from dtp.net.stream import Stream
from dtp.tasks import start_task

log = logging.getLogger("dtp.broadcast")

#: Segments in one request: an answer has no more (see `feeding`).
_AT_ONCE: Final = 64
#: Seconds until what is heard is compared with what another one has: doubled each time, up to a minute; and
#: how many segments behind the newest one that is done, since others may be behind. Each listener takes up to
#: a quarter more or less: a crowd that came together would dial each other in the same second.
_COMPARE: Final = 10.0
_COMPARE_SELDOM: Final = 60.0
_COMPARED_BEHIND: Final = 4


class Dial(Protocol):
    """How a listener reaches an address."""

    def __call__(self, address: str) -> AbstractAsyncContextManager[Connection]: ...


def dial_told(dial: Dial, get_teller: Callable[[str], Nearness | None]) -> Dial:
    """Return a dialer like `dial` for which each address is as far away as its source."""

    @asynccontextmanager
    async def dial_one(address: str) -> AsyncIterator[Connection]:
        async with AsyncExitStack() as stack:
            with dialled_as_told(get_teller(address)):
                connection = await stack.enter_async_context(dial(address))
            yield connection

    return dial_one


@asynccontextmanager
async def open_ask_stream(connection: Connection, hello: m.Hello) -> AsyncIterator[Stream]:
    """Open a stream that asks a neighbour for what `hello` says, and yield it; end it after the block."""
    stream = await connection.open_stream()
    frames.write(stream, hello)
    try:
        yield stream
    finally:
        stream.reset()


@dataclass(frozen=True, slots=True)
class LateSegments:
    """Segments to request from others: those from `first` on, which the neighbour at `address` hasn't sent yet."""

    held: HeldSegments
    address: str
    first: int


class Fetcher:
    """Requests segments from others."""

    def __init__(self, me: PeerId, dial: Dial, parents: Parents, within: float, next_after: float) -> None:
        """Others have `within` seconds in all; after `next_after` seconds another one is asked as well."""
        self._dial, self._parents = dial, parents
        self._own_pace = 0.75 + 0.5 * int.from_bytes(me.key[-2:], "big") / 65_536
        self._within, self._next_after = within, next_after

    async def fetch_from_others(self, held: HeldSegments, address: str, first: int, last: int) -> None:
        """Request these segments from others than the neighbour at `address`, as far as they have them.

        The next one is asked when the one before has no more, or takes long. A slow one isn't given up: if all have
        too little processor time nobody answers soon, and the segments that they have would be lost.
        """
        await self._ask_others(
            address,
            lambda other: self._take_from(other, lambda at: _fetch_range(held, at, first, last)),
            lambda: all(held.has_whole(each) for each in range(first, last + 1)),
        )

    async def catch_up_repeatedly(
        self,
        deprived: asyncio.Event,
        overdue: Overdue,
        find_missing: Callable[[], LateSegments | None],
        note_sent: Callable[[], object],
    ) -> None:
        """Request segments that come too late from others, again and again. They need no free place for that.

        `find_missing` gives what may be late, and is asked while `deprived` is set; `note_sent` is called when others
        have sent it.
        """
        loop = asyncio.get_running_loop()
        while True:
            await deprived.wait()
            if (missing := find_missing()) is None:
                deprived.clear()
                continue
            before = missing.held.get_segment(missing.first - 1)
            began = loop.time()
            due = overdue.find_due(None if before is None else before.segment, began)
            if due > began:
                await asyncio.sleep(due - began)
                continue
            await self._fetch_following(missing)
            # Segments that the neighbour has sent meanwhile don't count: they may only have been late.
            if sent := missing.held.has_whole(missing.first) and not overdue.was_sent(missing.first):
                note_sent()
            overdue.note_asked(sent, began, loop.time())

    async def _fetch_following(self, missing: LateSegments) -> None:
        """Request the first missing segment from others, and those after it that they have."""
        held, first = missing.held, missing.first
        await self._ask_others(
            missing.address,
            lambda other: self._take_from(
                other, lambda at: _fetch_some(held, at, first, first + _AT_ONCE - 1)
            ),
            lambda: held.has_whole(first),
        )

    async def _ask_others(
        self, address: str, ask: Callable[[str], Coroutine[None, None, None]], is_done: Callable[[], bool]
    ) -> None:
        """Ask others than the neighbour at `address`, until nothing is missing: see `fetch_from_others`."""
        pending = set[asyncio.Task[None]]()
        others = self._parents.list_others(address, COMPARED)
        try:
            async with asyncio.timeout(self._within):
                while (others or pending) and not is_done():
                    if others:
                        pending.add(start_task(ask(others.pop(0)), name="dtp-show-fetch"))
                    timeout = self._next_after if others else None
                    _, pending = await asyncio.wait(
                        pending, timeout=timeout, return_when=asyncio.FIRST_COMPLETED
                    )
        except TimeoutError:
            log.info("others don't send in time what is missing")
        finally:
            for each in pending:
                each.cancel()
            await asyncio.gather(*pending, return_exceptions=True)

    async def compare_repeatedly(self, get_heard: Callable[[], tuple[HeldSegments | None, str]]) -> None:
        """Compare what is heard with what others have, one after another. `get_heard` returns what is heard, and from
        which address.

        Otherwise a neighbour that sends in time would be heard for ever, even if it had a second chain of the
        producer.
        """
        turn, pause = 0, _COMPARE
        while True:
            await asyncio.sleep(self._own_pace * pause)
            turn, pause = turn + 1, min(2 * pause, _COMPARE_SELDOM)
            held, address = get_heard()
            others = self._parents.list_others(address, len(self._parents))
            if held is not None and others and held.edge >= 0:
                number = max(held.edge - _COMPARED_BEHIND, held.oldest)
                await self._compare_with(held, others[turn % len(others)], number)

    async def _compare_with(self, held: HeldSegments, other: str, number: int) -> None:
        """Request the head of a segment that is here from somebody else. Two chains of the producer end the
        stream."""
        try:
            async with asyncio.timeout(self._within), self._dial(other) as connection:
                # One that is farther behind, such as a device that began later, is asked for its newest head.
                if not await _compare_head(held, connection, number):
                    await _compare_head(held, connection, None)
        except ProducerEquivocated as fault:
            log.warning("%s", fault)
        except SegmentError:
            self._parents.note_forged(other, asyncio.get_running_loop().time())
        except (DtpError, OSError, TimeoutError) as fault:
            log.info("%s doesn't say what it has: %s", other, fault or "no answer")

    async def _take_from(self, other: str, take: Callable[[Connection], Awaitable[object]]) -> None:
        """Fetch what is missing over a connection to somebody else."""
        try:
            async with self._dial(other) as connection:
                await take(connection)
        except SegmentError:
            self._parents.note_forged(other, asyncio.get_running_loop().time())
        except (DtpError, OSError, TimeoutError) as fault:
            log.info("%s hasn't what is missing: %s", other, fault)


async def _fetch_range(held: HeldSegments, connection: Connection, first: int, last: int) -> None:
    """Fetch these segments, as far as the other side has them; each request brings only some."""
    following = first
    while following <= last:
        before, following = following, await _fetch_some(held, connection, following, last)
        if following == before:
            return


async def _compare_head(held: HeldSegments, connection: Connection, number: int | None) -> bool:
    """Compare the other side's head of segment `number`, by default its newest one, with what is here. Return False
    if it doesn't have it. Raise `ProducerEquivocated`."""
    async with open_ask_stream(connection, m.Hello(number, count=1, heads=True)) as stream:
        while (message := await frames.read(stream)) is not None:
            match message:
                case m.Announced(data) if data != held.announcement.encoded:
                    return True
                case m.ForkProof(data):
                    held.accept_proof(data)
                case m.Manifest(data):
                    segment = Segment.decode(data)
                    is_newest = number is None and not segment.flags & (Flag.INIT | Flag.KEYS)
                    if segment.number == number or is_newest:
                        if segment.number <= held.edge:  # later segments come from the neighbour
                            held.add_manifest(data)
                        return True
    return False


async def _fetch_some(held: HeldSegments, connection: Connection, first: int, last: int) -> int:
    """Fetch some of these segments. Return the first number of which nothing came, for the next request."""
    following = first
    async with open_ask_stream(connection, m.Hello(first, count=min(_AT_ONCE, last + 1 - first))) as stream:
        while (message := await frames.read(stream)) is not None:
            match message:
                case m.Announced(data) if data != held.announcement.encoded:
                    return following  # it has another stream, which isn't a forgery
                case m.Manifest(data):
                    number = held.add_manifest(data).number
                    following = max(following, number + 1) if number <= last else following
                case m.Piece(number, index, data):
                    held.add_piece(number, index, data)
                case m.Gap(begin, end) if begin <= following:
                    following = max(following, end + 1)
    return following
