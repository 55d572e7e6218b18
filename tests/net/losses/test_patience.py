"""Carriers that are slow by nature: the handshake, the question whether the peer lives, and the end wait for them."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

import dtp
from dtp import carriers
from dtp.carriers.base import Carrier, CarrierKind
from dtp.session.limits import Limits
from dtp.testing.clock import run

ME = dtp.Identity(bytes(range(32)))
#: Shorter than a message takes here.
LIMITS = Limits(handshake=10, dead=10, keepalive=15)


class Slow(Carrier):
    """What is written arrives `delay` seconds later, one way."""

    scheme = "memory"

    def __init__(self, inner: Any, delay: Any) -> None:
        self._inner = inner
        self._delay = delay
        self.source, self.remote = inner.source, inner.remote
        self.written: list[Any] = []

    def start(self, receiver: Any) -> None:
        self._inner.start(receiver)

    def write(self, data: Any) -> Any:
        loop = asyncio.get_running_loop()
        self.written.append(loop.time())
        loop.call_later(self._delay, self._inner.write, memoryview(bytes(data)))
        return True

    def pause_reading(self) -> None:
        self._inner.pause_reading()

    def resume_reading(self) -> None:
        self._inner.resume_reading()

    def close(self) -> None:
        asyncio.get_running_loop().call_later(self._delay, self._inner.close)

    def abort(self) -> None:
        self._inner.abort()


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Carriers that take 8 s each way; `slow(patience)` says what the table has for them."""
    made = []

    def set_up(patience: Any) -> Any:
        usual = carriers.CARRIERS["memory"]

        async def dial(url: str) -> Any:
            made.append(Slow(await usual.dial(url), 8))
            return made[-1]

        async def listen(url: str, accept: Any) -> Any:
            def delayed(inner: Any) -> None:
                made.append(Slow(inner, 8))
                accept(made[-1])

            return await usual.listen(url, delayed)

        monkeypatch.setitem(carriers.CARRIERS, "memory", CarrierKind("memory", dial, listen, patience))
        return made

    return set_up


def test_a_handshake_that_takes_longer_than_the_limit(slow: Any) -> None:
    slow(60)

    async def main() -> None:
        async with (
            await dtp.listen("memory://slow", identity=ME, limits=LIMITS) as listener,
            dtp.connect(listener.address(), limits=LIMITS) as client,
        ):
            assert asyncio.get_running_loop().time() > 2 * LIMITS.handshake
            assert client.patience == 60
            assert await client.ping() > LIMITS.dead

    run(main())


def test_where_the_table_has_no_patience_the_limit_holds(slow: Any) -> None:
    slow(0)

    async def main() -> None:
        async with await dtp.listen("memory://slow", identity=ME, limits=LIMITS) as listener:
            with pytest.raises(dtp.CarrierError) as told:
                await dtp.connect(listener.address(), limits=LIMITS)
            assert told.value.code == "dial-timeout"
            assert asyncio.get_running_loop().time() == LIMITS.handshake

    run(main())


def test_the_peer_is_asked_seldom_and_given_time_to_answer(slow: Any) -> None:
    made = slow(60)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with (
            await dtp.listen("memory://slow", identity=ME, limits=LIMITS) as listener,
            dtp.connect(listener.address(), limits=LIMITS) as client,
        ):
            server = await listener.accept()
            await asyncio.sleep(100)  # the words of the handshake are over
            before = [len(each.written) for each in made]
            await asyncio.sleep(600)
            said = [len(each.written) - count for each, count in zip(made, before, strict=True)]
            assert all(
                0 < each <= 2 * 600 / 60 for each in said
            )  # questions and answers; 80 at the limits' pace
            assert client.stats.resumes == server.stats.resumes == 0
            assert loop.time() > 700

    run(main())


def test_what_was_written_before_the_end_arrives(slow: Any) -> None:
    slow(60)

    async def main() -> None:
        async with await dtp.listen("memory://slow", identity=ME, limits=LIMITS) as listener:
            async with dtp.connect(listener.address(), limits=LIMITS) as client:
                server = await listener.accept()
                stream = await client.open_stream()
                stream.write(b"to the last byte")
                stream.write_eof()
            assert await (await server.accept_stream()).read() == b"to the last byte"
            with pytest.raises(dtp.ConnectionClosed) as end:  # the goodbye came, too
                await server.accept_stream()
            assert end.value.close_code == 0

    run(main())


def test_limits_above_the_patience_hold(slow: Any) -> None:
    slow(60)

    async def main() -> None:
        longer = replace(LIMITS, handshake=300)
        async with (
            await dtp.listen("memory://slow", identity=ME, limits=longer) as listener,
            dtp.connect(listener.address(), limits=longer) as client,
        ):
            assert client.patience == 300

    run(main())
