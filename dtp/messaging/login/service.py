"""Logins as a service: `LoginService.serve` is the handler of connections, by convention of `LOGIN_SERVICE`."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from dtp.carriers.crowd import source_group
from dtp.errors import DtpError
from dtp.identity import PeerId
from dtp.messaging.errors import StoreFailed
from dtp.messaging.login.conversation import LoginConversation, LoginServer, Moment, Registration
from dtp.messaging.login.errors import LoginMalformed
from dtp.messaging.login.protocol import MAX_MESSAGE, LoginOp, Refusal, parse_request
from dtp.messaging.login.sessions import Sessions
from dtp.messaging.login.store import LoginStore
from dtp.messaging.packing import pack_frame, read_frame
from dtp.net.connection import Connection
from dtp.net.stream import Stream
from dtp.tasks import SupervisedTask, TaskSet

log = logging.getLogger("dtp.messaging")

#: Seconds between two searches for what has expired.
_SWEEP: Final = 600.0
_T = TypeVar("_T")


class LoginService:
    """The service. `begin` it in a loop, `stop` it; connections belong to their listener, the store to its caller."""

    def __init__(
        self,
        store: LoginStore,
        identity: PeerId,
        *,
        registration: Registration = "open",
        now: Callable[[], float] = time.time,
    ) -> None:
        """`identity` is the one that the listener proves; `now` returns Unix time in seconds."""
        self.server = LoginServer(store, identity, registration=registration)
        self.now = now
        self._thread: ThreadPoolExecutor | None = None
        self._sweeping = SupervisedTask(self._run_expiry, name="dtp-login-sweep")

    @property
    def sessions(self) -> Sessions:
        """The present logins."""
        return self.server.sessions

    def begin(self) -> None:
        """Load the logins of before, ahead of the first connection. Raise `StoreFailed`."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="dtp-login")
        self.server.load_sessions(self.now())
        self._sweeping.start()

    async def stop(self) -> None:
        """Wait until everything is written. Idempotent."""
        await self._sweeping.stop()
        thread, self._thread = self._thread, None
        if thread is not None:
            await asyncio.get_running_loop().run_in_executor(thread, lambda: None)
            thread.shutdown(wait=False)

    async def run_in_store(self, work: Callable[..., _T], *arguments: object) -> _T:
        """Return what `work` returns in the store's thread. Raise what it raises."""
        assert self._thread is not None, "begin the service first"
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    async def _run_expiry(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP)
            await self.run_in_store(self.server.expire_keys, self.now())

    async def serve(self, connection: Connection) -> None:
        """Serve one connection until it ends: the handler of a service."""
        tasks = TaskSet()
        try:
            async for stream in connection:
                tasks.start(self.answer_stream(connection, stream), name="dtp-login")
        finally:
            await tasks.stop()

    async def answer_stream(self, connection: Connection, stream: Stream) -> None:
        """Serve one stream until it ends. For programs that accept a connection's streams themselves."""
        source = source_group(connection.source) or connection.peer.short
        conversation = LoginConversation(self.server, connection.peer, source)
        try:
            while body := await read_frame(stream, MAX_MESSAGE, LoginMalformed):
                op, fields = parse_request(body)
                stream.write(pack_frame(*await self._answer_request(conversation, op, fields)))
                await stream.drain()
            stream.close()
        except LoginMalformed as fault:
            self.server.counters["malformed"] += 1
            log.info("%r: %s", connection, fault)
            stream.reset(Refusal.MALFORMED)
        except DtpError as fault:  # the client is gone
            log.debug("%r: %s", connection, fault)

    async def _answer_request(
        self, conversation: LoginConversation, op: LoginOp, fields: list[Any]
    ) -> tuple[Any, ...]:
        moment = Moment(asyncio.get_running_loop().time(), self.now())
        try:
            return await self.run_in_store(self.server.answer_request, conversation, op, fields, moment)
        except StoreFailed as fault:
            log.error("the login server can't keep something: %s", fault)
            return (Refusal.NOT_STORED,)
