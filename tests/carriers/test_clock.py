"""The virtual clock: exact, fast, and it says where a program is stuck."""

import asyncio
import threading

import pytest

from dtp.carriers import dial, listen
from dtp.carriers.errors import EventLoopError
from dtp.testing.clock import DeadlockError, FakeClockLoop, VirtualTimeError, run


def test_time_jumps_exactly_to_the_next_timer() -> None:
    async def main() -> list[float]:
        loop = asyncio.get_running_loop()
        times = []
        for delay in (0.1, 0.2, 1e-9, 86400 * 365, 0):
            await asyncio.sleep(delay)
            times.append(loop.time())
        return times

    year = 0.1 + 0.2 + 1e-9 + 86400 * 365
    assert run(main()) == [0.1, 0.1 + 0.2, 0.1 + 0.2 + 1e-9, year, year]


def test_timers_fire_in_their_order_and_only_when_nothing_is_ready() -> None:
    async def main() -> list[str]:
        loop = asyncio.get_running_loop()
        seen: list[str] = []
        loop.call_later(2, seen.append, "two")
        loop.call_later(1, seen.append, "one")
        loop.call_later(1.5, seen.append, "cancelled").cancel()
        for _ in range(100):
            await asyncio.sleep(0)
            seen.append("ready") if not seen else None
        await asyncio.sleep(3)
        return seen

    assert run(main()) == ["ready", "one", "two"]


def test_advance_lets_no_timer_run_in_between() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, FakeClockLoop)
        fired = loop.create_future()
        loop.call_later(5, lambda: fired.set_result(loop.time()))
        loop.advance(7)
        assert not fired.done()
        assert await fired == 7

    run(main())


def test_a_deadlock_names_the_tasks_and_the_lines() -> None:
    async def inner(event: asyncio.Event) -> None:
        await event.wait()

    async def main() -> None:
        event = asyncio.Event()
        waiting = asyncio.create_task(inner(event), name="the one that waits")
        await waiting

    with pytest.raises(DeadlockError, match=r"the one that waits at .*locks\.py:\d+ \(Event\.wait\)"):
        run(main())


def test_what_callbacks_raise_fails_the_run() -> None:
    async def main() -> str:
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)
        await asyncio.sleep(0)
        return "fine"

    with pytest.raises(ExceptionGroup) as caught:
        run(main())
    assert [type(error) for error in caught.value.exceptions] == [ZeroDivisionError]


def test_what_callbacks_raise_is_noted_when_the_program_fails_too() -> None:
    async def main() -> None:
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)
        await asyncio.sleep(0)
        raise KeyError("mine")

    with pytest.raises(KeyError) as caught:
        run(main())
    assert "ZeroDivisionError" in caught.value.__notes__[0]


def test_threads_become_calls() -> None:
    async def main() -> None:
        assert await asyncio.to_thread(threading.get_ident) == threading.get_ident()
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(lambda: 1 / 0)
        with pytest.raises(RuntimeError, match="StopIteration"):
            await asyncio.to_thread(next, iter(()))

    run(main())


def test_other_threads_are_refused() -> None:
    async def main() -> list[Exception]:
        loop = asyncio.get_running_loop()
        raised: list[Exception] = []

        def reach() -> None:
            try:
                loop.call_soon_threadsafe(print)
            except VirtualTimeError as error:
                raised.append(error)

        thread = threading.Thread(target=reach)
        thread.start()
        thread.join()
        return raised

    assert len(run(main())) == 1


def test_cancelled_tasks_are_cleared_away_after_a_failure() -> None:
    cleared = []

    async def stays() -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            cleared.append(True)

    async def main() -> None:
        task = asyncio.create_task(stays())
        await asyncio.sleep(1)
        raise KeyError(task.get_name())

    with pytest.raises(KeyError):
        run(main())
    assert cleared == [True]


@pytest.mark.parametrize("url", ["tcp://127.0.0.1:1", "unix:///tmp/x", "ws://127.0.0.1:1"])
def test_sockets_are_refused_by_name(url: str) -> None:
    async def dials() -> None:
        await dial(url)

    async def listens() -> None:
        await listen(url, lambda _carrier: None)

    for main in (dials, listens):
        with pytest.raises(EventLoopError, match=r"FakeClockLoop.*SelectorEventLoop"):
            run(main())
