"""Nodes that take connections and answer nothing: it is said what is waited for, and given up in sensible time."""

from __future__ import annotations

import asyncio
import logging
import socket

import pytest

from dtp.chain import Network
from dtp.chain.errors import NodeUnavailable
from dtp.chain.model import ServiceInfo
from dtp.chain.node._wire import NodeRpc
from dtp.chain.node.endpoints import Endpoints, Retry
from dtp.testing import clock


class SilentNode(NodeRpc):
    """Answers nothing; calls end when their time is over."""

    async def service_info(self) -> ServiceInfo:
        await asyncio.sleep(self.timeout)
        raise NodeUnavailable(f"no answer from {self.url}")


@pytest.mark.parametrize(("count", "most", "seconds"), [(1, 2, 21), (2, 2, 21), (3, 3, 32)])
def test_a_silent_node_is_given_up_once_each_was_asked(count: int, most: int, seconds: float) -> None:
    async def work() -> None:
        network = Network("x", tuple(f"http://127.0.0.1:{n}" for n in range(1, count + 1)))
        endpoints = Endpoints(network, timeout=10, retry=Retry(), rpc=SilentNode)
        loop = asyncio.get_running_loop()
        begun = loop.time()

        async def question(wire: NodeRpc) -> None:
            raise AssertionError("it was never checked")

        with pytest.raises(NodeUnavailable, match=f"no answer in {most} attempts") as error:
            await endpoints.ask(question)
        assert error.value.code == "node-unavailable"
        assert 10 * most <= loop.time() - begun < seconds

    clock.run(work())


def test_what_is_waited_for_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    async def work(url: str) -> None:
        node = NodeRpc(url, timeout=0.1)
        for _ in range(2):
            with pytest.raises(NodeUnavailable, match=f"no answer from {url}: none in 0.1 s"):
                await node.service_info()
        node.close()

    with socket.create_server(("127.0.0.1", 0)) as listening:  # the kernel takes connections, and nobody else
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        asyncio.run(work(url))
    said = [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]
    assert said == [f"{url} has not answered for 0.03 s; waiting for it"]
