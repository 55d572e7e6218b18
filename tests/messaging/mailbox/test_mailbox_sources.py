"""Somebody who has many addresses, at a mailbox: an IPv6 network has 65,536 sources, and one owner."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from conditions import until
from mailbox_stores import ACCESS, envelope
from test_mailbox import SERVER, register, run

import dtp
from dtp.carriers.crowd import source_group
from dtp.carriers.nearness import OF_NETWORK
from dtp.carriers.source_rates import SourceLimiter
from dtp.identity import Identity
from dtp.messaging.mailbox.client import MailboxClient
from dtp.messaging.mailbox.limits import MailboxLimits
from dtp.messaging.mailbox.protocol import MAILBOX_SERVICE, MailboxRefused, Refusal
from dtp.messaging.mailbox.service import Mailbox
from dtp.messaging.mailbox.sqlite_store import SqliteMailbox

Connect = Callable[[str, Identity], Awaitable[MailboxClient]]


def of_48(number: int) -> str:
    """Return one of the addresses of a /48, each in a /64 of its own."""
    return f"2a02:db8:1:{number:x}::7"


class Coming:
    """A connection that comes from another source."""

    def __init__(self, connection: Any, source: str) -> None:
        self._connection, self.source = connection, source

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def __aiter__(self) -> AsyncIterator[Any]:
        return aiter(self._connection)


@asynccontextmanager
async def serving(mailbox: Mailbox) -> AsyncIterator[Connect]:
    """Serve a mailbox to those who come from anywhere."""
    name, sources = os.urandom(8).hex(), list[str]()

    async def serve(connection: Any) -> None:
        await mailbox.serve(Coming(connection, sources.pop()))  # type: ignore[arg-type]

    async with AsyncExitStack() as stack:
        await stack.enter_async_context(
            await dtp.listen(f"memory://{name}", {MAILBOX_SERVICE: serve}, identity=SERVER)
        )
        stack.push_async_callback(mailbox.stop)

        async def connect(source: str, identity: Identity) -> MailboxClient:
            sources.append(source)
            address = dtp.Address.direct(SERVER.id, f"memory://{name}", MAILBOX_SERVICE)
            client = await MailboxClient.connect(address, identity=identity)
            stack.push_async_callback(client.close)
            return client

        yield connect


def mailbox_of(**limits: Any) -> Mailbox:
    return Mailbox(SqliteMailbox(limits=MailboxLimits(**limits)))


async def is_let(asked: Awaitable[object]) -> bool:
    try:
        await asked
    except MailboxRefused as refused:
        if refused.refusal is not Refusal.TOO_OFTEN:
            raise
        return False
    return True


def test_a_network_takes_a_few_times_as_much_as_a_source_from_however_many() -> None:
    limiter = SourceLimiter(3, 1.0, remembered=1000)
    sources = [source_group(of_48(number)) for number in range(100)]
    taken = [limiter.try_take(each, 100.0) for each in sources for _ in range(4)]
    assert sum(taken) == 3 * OF_NETWORK
    assert taken[:4] == [True, True, True, False]
    assert limiter.seconds_until_allowed(of_48(500), 100.0) == pytest.approx(1 / OF_NETWORK)
    assert limiter.try_take("2a02:db8:2::/64", 100.0)  # another network
    assert limiter.try_take(of_48(500), 101.0)


def test_one_source_alone_uses_up_nothing_of_its_neighbours() -> None:
    limiter = SourceLimiter(3, 1.0, remembered=1000)
    for _ in range(100):
        limiter.try_take("203.0.113.7", 100.0)
    assert [limiter.try_take("203.0.113.8", 100.0) for _ in range(4)] == [True, True, True, False]


def test_sources_of_no_network_have_what_is_theirs() -> None:
    limiter = SourceLimiter(1, 1.0, remembered=1000)
    for each in ("10.0.0.7", "10.0.0.8", "10.0.0.9", "dtp1abc", "dtp1abd", "fd00::/64", "fd00:0:0:1::/64"):
        assert [limiter.try_take(each, 100.0) for _ in range(2)] == [True, False]


def test_one_network_never_has_all_places() -> None:
    """Each /64 of a /48 had as many new devices as if it were alone: all places of an open mailbox in minutes."""

    async def main() -> None:
        async with serving(mailbox_of(new_devices=3, new_device_pause=1000.0)) as connect:
            let = []
            for number in range(6):
                who = Identity.generate()
                let.append(await is_let(register(await connect(of_48(number), who), who)))
            assert let == [*[True] * 3, *[False] * 3]
            other = Identity.generate()
            await register(await connect("2a02:db8:2::7", other), other)

    run(main())


def test_one_network_leaves_so_many_bytes_from_however_many_addresses() -> None:
    async def main() -> None:
        async with serving(mailbox_of(source_bytes=2 * 1024)) as connect:
            alice = Identity.generate()
            await register(await connect("203.0.113.7", alice), alice)

            async def leave(number: int, source: str) -> bool:
                client = await connect(source, Identity.generate())
                left = client.deposit_envelope(alice.id.key, envelope(number), seconds=9, access=ACCESS)
                return await is_let(left)

            let = [await leave(number, of_48(number // 4)) for number in range(40)]
            assert let[:4] == [True, True, False, False]
            assert sum(let) == 2 * OF_NETWORK
            assert await leave(50, "2a02:db8:2::7")

    run(main())


class HeldMailbox(SqliteMailbox):
    """A mailbox whose store is busy with the first acknowledgement, as long as it is wanted."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on, self.acknowledged, self.before = threading.Event(), 0, -1

    def acknowledge_envelopes(self, device: bytes, ids: Sequence[int]) -> None:
        self.go_on.wait()
        self.acknowledged += 1

    def device_status(self, device: bytes) -> Any:
        self.before = self.acknowledged
        return None


def test_others_come_behind_a_few_requests_of_a_source_however_many_it_makes() -> None:
    """Acknowledgements and questions are counted for nobody, and one thread answered all in the order they came."""
    store = HeldMailbox()

    async def main() -> None:
        mailbox = Mailbox(store)
        async with serving(mailbox) as connect:
            flood = [await connect(of_48(7), Identity.generate()) for _ in range(4)]
            other = await connect("203.0.113.8", Identity.generate())
            acknowledging = [
                asyncio.ensure_future(each.acknowledge_envelopes([1])) for each in flood for _ in range(20)
            ]
            await until(lambda: mailbox.counters["acknowledge"] == len(acknowledging))
            asking = asyncio.ensure_future(is_let(other.get_status()))
            await until(lambda: mailbox.counters["status"] == 1)
            store.go_on.set()
            with pytest.raises(MailboxRefused):
                await asking
            await asyncio.gather(*acknowledging)
        assert store.acknowledged == len(acknowledging)
        assert store.before <= store.limits.store_requests

    try:
        run(main())
    finally:
        store.go_on.set()
