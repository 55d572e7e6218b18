"""The event loops that carriers over sockets are tested on."""

import asyncio
import importlib.util
import socket
from collections.abc import Callable

import pytest

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def _uvloop() -> asyncio.AbstractEventLoop:
    import uvloop

    return uvloop.new_event_loop()


on_every_loop = pytest.mark.parametrize(
    "loop_factory",
    [
        pytest.param(asyncio.SelectorEventLoop, id="asyncio"),
        pytest.param(
            _uvloop,
            id="uvloop",
            marks=pytest.mark.skipif(
                importlib.util.find_spec("uvloop") is None, reason="uvloop not installed"
            ),
        ),
    ],
)


def _has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not _has_ipv6(), reason="no IPv6 on this machine")
