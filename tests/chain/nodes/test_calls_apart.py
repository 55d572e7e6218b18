"""Calls to a node that are given up: nobody hears of how they ended."""

import asyncio
import gc

import pytest

from dtp.chain.errors import NodeUnavailable
from dtp.chain.node._calls import apart


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
        caller = asyncio.ensure_future(apart(call(), "http://node", 3, lambda: None))
        await asyncio.sleep(0)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        del caller
        gc.collect()

    asyncio.run(main())
    assert told == []
