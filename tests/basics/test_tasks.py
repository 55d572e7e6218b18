"""`dtp.tasks`: what ends without being stopped begins again, and says so."""

import asyncio
import logging

import pytest

from dtp.tasks import LONGEST_PAUSE, SupervisedTask, TaskSet, as_future, start_task, supervised
from dtp.testing import clock


class Work:
    """Notes when it begins; ends as `ends` says for each beginning, and works on behind those."""

    def __init__(self, *ends):
        self.ends, self.began = list(ends), []

    async def __call__(self):
        loop = asyncio.get_running_loop()
        self.began.append(loop.time())
        if len(self.began) > len(self.ends):
            await asyncio.Event().wait()
        end = self.ends[len(self.began) - 1]
        if end == "cancelled":  # as grpclib does: twice, from outside
            task = asyncio.current_task()
            loop.call_soon(task.cancel)
            loop.call_soon(task.cancel)
            await asyncio.Event().wait()
        if isinstance(end, BaseException):
            raise end
        return end


@pytest.mark.parametrize(
    ("end", "why"),
    [
        ("cancelled", "it was cancelled"),
        (ValueError("a fault"), "a fault"),
        (ValueError(), "ValueError"),
        (None, "it came to its end"),
    ],
)
def test_what_ends_without_being_stopped_is_logged_counted_and_begins_again(end, why, caplog):
    async def scenario():
        work = Work(end)
        task = SupervisedTask(work, name="worker")
        task.start()
        await asyncio.sleep(0.5)
        (seen,) = supervised()
        assert (seen.name, seen.running, seen.waiting, seen.restarts, seen.error) == ("worker", 0, 1, 1, why)
        await asyncio.sleep(1)
        assert work.began == [0, 1]
        (seen,) = supervised()
        assert (seen.running, seen.waiting, seen.restarts, seen.error) == (1, 0, 1, why)
        await task.stop()
        assert not task.running
        (seen,) = supervised()  # what was counted stays
        assert (seen.running, seen.waiting, seen.restarts) == (0, 0, 1)

    with caplog.at_level(logging.ERROR, logger="dtp.tasks"):
        clock.run(scenario())
    (record,) = caplog.records
    when = "" if end == "cancelled" else " in 1 s"
    assert record.getMessage() == f"worker has ended without being stopped: {why}; it begins again{when}"
    assert record.fields == {"event": "task-restarted", "task": "worker", "why": why, "restarts": 1}


def test_foreseen_errors_are_told_without_a_traceback_and_once_loudly(caplog):
    async def scenario():
        async def work():
            raise ConnectionError("the relay is gone")

        task = SupervisedTask(work, name="worker", foreseen=(ConnectionError,))
        task.start()
        await asyncio.sleep(5)
        await task.stop()

    with caplog.at_level(logging.INFO, logger="dtp.tasks"):
        clock.run(scenario())
    assert [each.levelname for each in caplog.records] == ["WARNING", "INFO", "INFO"]
    assert caplog.records[0].getMessage() == "worker: the relay is gone; it begins again in 1 s"
    assert all(each.exc_info is None for each in caplog.records)
    assert caplog.records[2].fields["restarts"] == 3


def test_nothing_is_said_of_what_is_cancelled_since_the_program_ends(caplog):
    async def main():
        SupervisedTask(Work(), name="worker").start()
        await asyncio.sleep(0)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(main())
    assert caplog.records == []


def test_pauses_grow_up_to_a_bound_and_are_short_again_behind_a_time_of_work():
    async def scenario():
        work = Work(*[OSError("away")] * 9)
        task = SupervisedTask(work, name="worker")
        task.start()
        await asyncio.sleep(3 * LONGEST_PAUSE + 63.5)
        pauses = [b - a for a, b in zip(work.began, work.began[1:], strict=False)]
        assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
        await asyncio.sleep(3 * LONGEST_PAUSE)  # it works
        began = asyncio.get_running_loop().time()
        for each in asyncio.all_tasks():
            if each.get_name() == "worker":
                each.cancel()
        await asyncio.sleep(2)
        assert work.began[-1] == began + 1
        assert task.restarts == 10
        await task.stop()

    clock.run(scenario())


def test_what_is_stopped_does_not_begin_again(caplog):
    async def scenario():
        works = [Work() for _ in range(4)]
        stopped, cancelled, retired, pausing = (SupervisedTask(work, name="worker") for work in works)
        for each in (stopped, cancelled, retired):
            each.start()
        works[3].ends.append(OSError("away"))
        pausing.start()
        await asyncio.sleep(0.5)
        await stopped.stop()
        await stopped.stop()
        cancelled.cancel()
        retired.retire()
        await pausing.stop()
        await asyncio.sleep(100)
        assert [len(work.began) for work in works] == [1, 1, 1, 1]
        assert [each.started for each in (stopped, cancelled, retired, pausing)] == [False] * 4
        assert retired.running  # it may come to its end by itself
        await retired.stop()
        stopped.start()
        await asyncio.sleep(1)
        assert len(works[0].began) == 2
        await stopped.stop()

    clock.run(scenario())
    assert len(caplog.records) == 1  # of the one that was in a pause


def test_what_is_told_to_end_is_waited_for():
    async def scenario():
        told, done = asyncio.Event(), []

        async def work():
            await told.wait()
            await asyncio.sleep(5)
            done.append("all")

        task = SupervisedTask(work, name="worker")
        task.start()
        await asyncio.sleep(1)
        told.set()
        await task.finish()
        assert done == ["all"]
        assert not task.running

    clock.run(scenario())


def test_a_task_may_stop_its_own_supervisor():
    async def scenario():
        ran = []

        async def work():
            ran.append(await task.finish())

        task = SupervisedTask(work, name="worker")
        task.start()
        await asyncio.sleep(10)
        assert ran == [None]

    clock.run(scenario())


def test_errors_of_tasks_that_nobody_waits_for_are_reported_and_end_no_other():
    async def scenario():
        heard, mine = [], []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(context["message"]))

        async def fails():
            raise ValueError("a fault")

        async def works():
            await asyncio.sleep(5)
            mine.append("done")

        tasks = TaskSet()
        tasks.start(fails(), name="one")
        tasks.start(works(), name="two")
        await asyncio.sleep(1)
        assert len(tasks) == 1
        await tasks.wait()
        assert mine == ["done"]
        assert heard == ["one has ended by an error that nobody waits for"]

        told = TaskSet(lambda task, fault: mine.append(f"{task.get_name()}: {fault}"))
        told.start(fails(), name="three")
        tasks.start(works(), name="four")
        await asyncio.sleep(1)
        await tasks.stop()
        assert mine == ["done", "three: a fault"]

    clock.run(scenario())


def test_what_foreign_code_gives_is_awaited_whatever_it_is():
    async def scenario():
        class Later:
            def __await__(self):
                yield from asyncio.sleep(1).__await__()
                return 2

        async def one():
            return 1

        made = asyncio.get_running_loop().create_future()
        assert as_future(made, name="x") is made
        assert await as_future(one(), name="x") == 1
        assert await as_future(Later(), name="x") == 2
        assert await start_task(one(), name="x") == 1

    clock.run(scenario())


def test_without_a_loop_nothing_is_supervised():
    assert supervised() == []
