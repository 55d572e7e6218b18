"""A session of HTTP by a clock that jumps: its client and its backends are the test."""

import asyncio
from types import SimpleNamespace

import pytest

from dtp.daemon.http.grpc_session import GrpcSession
from dtp.daemon.http.rpc_session import RpcSession
from dtp.daemon.http.session import HttpSession
from dtp.daemon.policies import Bounds
from dtp.daemon.relays.expose import Exposed
from dtp.net.turns.clock import TurnClock

from .conftest import config
from .test_daemon_http import CALLER, expose


async def seen(true):
    """What nobody tells of, while the clock goes on."""
    while not true():  # noqa: ASYNC110 - there is no event
        await asyncio.sleep(0.01)


#: What serves a kind of service, if not `HttpSession`.
SESSIONS = {"json-rpc": RpcSession, "grpc": GrpcSession}


class End:
    """A client or a backend that is the test: what it says, and what it has heard. Stands where the stream is."""

    write_error = None

    def __init__(self):
        self.mouth = asyncio.StreamReader(limit=1 << 30)
        self.say, self.read, self.at_eof = self.mouth.feed_data, self.mouth.read, self.mouth.at_eof
        self.heard, self.code = b"", None
        account = TurnClock.of_loop(asyncio.get_running_loop()).shares.get_account("192.0.2.1")
        self.connection = SimpleNamespace(account=account, charged=lambda work: work, ping=self.ping)

    @property
    def buffered(self):
        return len(vars(self.mouth)["_buffer"])

    async def ping(self):
        """What was sent before the answer has come by then."""

    def write(self, data):
        self.heard += data

    async def drain(self):
        pass

    def write_eof(self):
        self.code = self.code or 0

    def reset(self, code):
        self.code = code

    def close(self):
        self.write_eof()

    def is_closing(self):
        return False


class Talk:
    """A session between them; `links` are those that it has had to the backend."""

    def __init__(self, tmp_path, kind="http", policies=(), bounds=None):
        self.client, self.links, self._kind = End(), [], SESSIONS.get(kind, HttpSession)
        self.exposed = Exposed(
            config(tmp_path, f'[daemon]\nlisten = ["tcp://127.0.0.1:0"]\n{expose(1, kind)}').expose[0],
            policies,
        )
        self.exposed.dial_streams = self._dial
        self.running = asyncio.ensure_future(self._run(bounds or Bounds()))

    async def _dial(self, caller):
        backend = End()
        self.links.append(backend)
        return SimpleNamespace(reader=backend.mouth, writer=backend, close=backend.close)

    async def _run(self, bounds):
        self.session = self._kind(self.exposed, CALLER, self.client, bounds)
        await self.session.run()

    async def asked(self, number=1):
        """The backend of now, when so many heads have been heard."""
        await seen(lambda: sum(one.heard.count(b"\r\n\r\n") for one in self.links) >= number)
        return self.links[-1]

    async def answered(self, number=1):
        await seen(lambda: self.client.heard.count(b"\r\n\r\nok") >= number)

    async def refused(self):
        """When an answer of the session itself has been heard."""
        await seen(lambda: b"via: 1.1 dtpd" in self.client.heard)

    async def ended(self):
        """How many seconds it still took."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        await asyncio.wait([self.running])
        return pytest.approx(loop.time() - began, abs=0.1)
