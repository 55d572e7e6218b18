"""A session of HTTP by a clock that jumps: its client and its backends are the test."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dtp.daemon.http.grpc_session import GrpcSession
from dtp.daemon.http.rpc_session import RpcSession
from dtp.daemon.http.session import HttpSession
from dtp.daemon.policies import Bounds, Caller, Policy
from dtp.daemon.reasons import Reason
from dtp.daemon.relays.expose import Exposed
from dtp.daemon.relays.sockets import BackendLink
from dtp.net.stream import Stream
from dtp.net.turns.clock import TurnClock

from .conftest import config
from .http.test_daemon_http import CALLER, expose


async def seen(true: Callable[[], object]) -> None:
    """What nobody tells of, while the clock goes on."""
    while not true():  # noqa: ASYNC110 - there is no event
        await asyncio.sleep(0.01)


#: What serves a kind of service, if not `HttpSession`.
SESSIONS: dict[str, type[HttpSession | GrpcSession]] = {"json-rpc": RpcSession, "grpc": GrpcSession}


class End:
    """A client or a backend that is the test: what it says, and what it has heard. Stands where the stream is."""

    write_error: Exception | None = None

    def __init__(self) -> None:
        self.mouth = asyncio.StreamReader(limit=1 << 30)
        self.say, self.read, self.at_eof = self.mouth.feed_data, self.mouth.read, self.mouth.at_eof
        self.heard = b""
        self.code: int | None = None
        account = TurnClock.of_loop(asyncio.get_running_loop()).shares.get_account("192.0.2.1")
        self.connection = SimpleNamespace(account=account, count_work=lambda work: work, ping=self.ping)

    @property
    def buffered(self) -> Any:
        return len(vars(self.mouth)["_buffer"])

    async def ping(self) -> None:
        """What was sent before the answer has come by then."""

    def write(self, data: bytes) -> None:
        self.heard += data

    async def drain(self) -> None:
        pass

    def write_eof(self) -> None:
        self.code = self.code or 0

    def reset(self, code: int) -> None:
        self.code = code

    def close(self) -> None:
        self.write_eof()

    def is_closing(self) -> bool:
        return False


class Talk:
    """A session between them; `links` are those that it has had to the backend."""

    #: Of the kind that is spoken.
    session: Any

    def __init__(
        self,
        tmp_path: Path,
        kind: str = "http",
        policies: Sequence[Policy] = (),
        bounds: Bounds | None = None,
    ) -> None:
        self.client, self._kind = End(), SESSIONS.get(kind, HttpSession)
        self.links: list[End] = []
        self.exposed = Exposed(
            config(tmp_path, f'[daemon]\nlisten = ["tcp://127.0.0.1:0"]\n{expose(1, kind)}').expose[0],
            policies,
        )
        self.exposed.dial_streams = self._dial
        self.running = asyncio.ensure_future(self._run(bounds or Bounds()))

    async def _dial(self, caller: Caller) -> BackendLink | Reason:
        backend = End()
        self.links.append(backend)
        return cast(BackendLink, SimpleNamespace(reader=backend.mouth, writer=backend, close=backend.close))

    async def _run(self, bounds: Bounds) -> None:
        self.session = self._kind(self.exposed, CALLER, cast(Stream, self.client), bounds)
        await self.session.run()

    async def asked(self, number: int = 1) -> End:
        """The backend of now, when so many heads have been heard."""
        await seen(lambda: sum(one.heard.count(b"\r\n\r\n") for one in self.links) >= number)
        return self.links[-1]

    async def answered(self, number: int = 1) -> None:
        await seen(lambda: self.client.heard.count(b"\r\n\r\nok") >= number)

    async def refused(self) -> None:
        """When an answer of the session itself has been heard."""
        await seen(lambda: b"via: 1.1 dtpd" in self.client.heard)

    async def ended(self) -> object:
        """How many seconds it still took, about."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        await asyncio.wait([self.running])
        return pytest.approx(loop.time() - began, abs=0.1)
