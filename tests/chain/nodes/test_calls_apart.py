"""Calls to a node that are given up, and what is told of a node that is silent."""

import asyncio
import contextlib
import gc
import logging

import pytest

from dtp.chain.errors import NodeUnavailable, NotFound
from dtp.chain.node._calls import NodeCalls
from dtp.testing import clock


@pytest.mark.slow
def test_a_call_that_is_given_up_and_then_fails_is_not_told_of():
    """asyncio wrote "Task exception was never retrieved", some time later, into whatever ran then."""
    told = []

    async def call():
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise NodeUnavailable("the connection is gone") from None

    async def main():
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))
        caller = asyncio.ensure_future(NodeCalls("http://node", 3).make_call(call()))
        await asyncio.sleep(0)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        del caller
        gc.collect()

    asyncio.run(main())
    assert told == []


@pytest.mark.parametrize("answer", [None, NotFound("no such coin")], ids=["answered", "refused"])
def test_a_node_that_is_silent_again_is_told_of_again(
    answer: NotFound | None, caplog: pytest.LogCaptureFixture
) -> None:
    async def call(seconds: float, raised: Exception | None) -> None:
        await asyncio.sleep(seconds)
        if raised is not None:
            raise raised

    async def main() -> None:
        calls = NodeCalls("http://node", 3)
        lost = NodeUnavailable("no answer")
        for seconds, raised in (
            (4, lost),
            (4, lost),
            (1, answer),
            (4, lost),
            (4, answer),
            (2, lost),
            (4, lost),
        ):
            with contextlib.suppress(NodeUnavailable, NotFound):
                await calls.make_call(call(seconds, raised))

    clock.run(main())
    said = [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]
    assert said == ["http://node has not answered for 3 s; waiting for it"] * 3
