"""A login server in this process, and clients without streams, for tests."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dtp
from dtp.identity import Identity
from dtp.messaging.login.conversation import LoginConversation, LoginServer, Moment
from dtp.messaging.login.limits import LoginLimits
from dtp.messaging.login.opaque import OpaqueLogin, Registration, make_proof
from dtp.messaging.login.protocol import (
    LOGIN_SERVICE,
    Credential,
    LoginOp,
    Slot,
    registration_statement,
)
from dtp.messaging.login.service import LoginService
from dtp.messaging.login.store import LoginStore
from dtp.messaging.login.vault import Vault, make_key, wrap_key

SERVER = Identity(bytes([21]) * 32, bytes([22]) * 32)
#: Seconds after which a test has failed that waits for something.
LIMIT = 240
#: Unix time in seconds.
NOW = 1_800_000_000
PASSWORD = "correct horse battery"


class World:
    """A login server at an address, whose calendar is `now`."""

    def __init__(self, stack: AsyncExitStack, folder: Path) -> None:
        self._stack, self.folder, self.now = stack, folder, float(NOW)
        self.address = ""

    async def serve(
        self, name: str = "box", limits: LoginLimits | None = None, **options: Any
    ) -> LoginService:
        store = LoginStore(self.folder / f"{name}.sqlite", limits)
        self._stack.callback(store.close)
        service = LoginService(store, SERVER.id, now=lambda: self.now, **options)
        service.begin()
        self._stack.push_async_callback(service.stop)
        url = f"memory://{os.urandom(8).hex()}"
        listener = await dtp.listen(url, {LOGIN_SERVICE: service.serve}, identity=SERVER)
        await self._stack.enter_async_context(listener)
        self.address = str(dtp.Address.direct(SERVER.id, url, LOGIN_SERVICE))
        return service

    async def register(
        self, name: str = "alice", password: str = PASSWORD, **options: Any
    ) -> dtp.LoginSession:
        options.setdefault("remember", self.folder / "seen.sqlite")
        session = await dtp.register_account(self.address, name, password, **options)
        return await self._stack.enter_async_context(session)

    async def login(self, name: str = "alice", password: str = PASSWORD, **options: Any) -> dtp.LoginSession:
        options.setdefault("remember", self.folder / "seen.sqlite")
        session = await dtp.login(self.address, name, password, **options)
        return await self._stack.enter_async_context(session)


def in_world(test: Callable[[World], Awaitable[None]], folder: Path) -> None:
    """Run a test in a loop, with a limit."""

    async def main() -> None:
        async with asyncio.timeout(LIMIT), AsyncExitStack() as stack:
            await test(World(stack, folder))

    asyncio.run(main())


@dataclass
class Desk:
    """A server without streams, and its clock."""

    server: LoginServer
    steady: float = 1000.0
    #: By how much its clock is ahead, seconds.
    ahead: float = 0.0
    sources: dict[str, str] = field(default_factory=dict)

    @classmethod
    def make(cls, limits: LoginLimits | None = None, path: Any = ":memory:", **options: Any) -> Desk:
        return cls(LoginServer(LoginStore(path, limits), SERVER.id, **options))

    @property
    def now(self) -> Moment:
        return Moment(self.steady, NOW + self.steady + self.ahead)

    def caller(self, who: Identity | None = None, source: str = "here") -> Caller:
        identity = who or Identity.generate()
        return Caller(self, identity, LoginConversation(self.server, identity.id, source))


@dataclass
class Caller:
    """A client of it: one conversation."""

    desk: Desk
    identity: Identity
    conversation: LoginConversation

    def ask(self, op: LoginOp, *fields: Any) -> tuple[Any, ...]:
        return self.desk.server.answer_request(self.conversation, op, list(fields), self.desk.now)

    def credential(self, name: str, slot: Slot, password: str, key: bytes) -> Credential:
        registration = Registration(password)
        _, response = self.ask(LoginOp.REGISTER_START, name, int(slot), registration.request)
        record, export = registration.finish(response)
        return Credential(slot, record, wrap_key(key, export, name, slot))

    def register(
        self, name: str, password: str = PASSWORD, *, account: Identity | None = None, invitation: bytes = b""
    ) -> tuple[Any, ...]:
        vault, key = Vault(account or Identity.generate()), make_key()
        sealed = vault.seal(key, name)
        credentials = [self.credential(name, slot, password, key) for slot in Slot]
        signature = vault.identity.sign(registration_statement(SERVER.id.key, name, credentials, sealed))
        rows = [each.to_row() for each in credentials]
        return self.ask(LoginOp.REGISTER, name, invitation, vault.identity.id.key, signature, rows, sealed)

    def begin(self, name: str, password: str = PASSWORD) -> tuple[OpaqueLogin, tuple[Any, ...]]:
        login = OpaqueLogin(password)
        return login, self.ask(LoginOp.LOGIN_START, name, int(Slot.PASSWORD), login.request)

    def proof(self, key: bytes, name: str) -> bytes:
        return make_proof(key, b"client", SERVER.id.key, self.identity.id.key, name.encode())

    def login(self, name: str, password: str = PASSWORD, *, seconds: int = 0) -> tuple[Any, ...]:
        login, (_, response) = self.begin(name, password)
        finalization, key, _ = login.finish(response)
        return self.ask(LoginOp.LOGIN_FINISH, finalization, self.proof(key, name), seconds)
