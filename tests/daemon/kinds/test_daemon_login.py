"""`kind = "login"` and `login = "opaque"`: only who is logged in comes to the backend, which is told the account."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import dtp
from dtp.daemon.config.model import Config
from dtp.daemon.config.reading import ConfigMistakes
from dtp.daemon.http.headers import to_backend
from dtp.daemon.policies import Arrive, Caller, MethodCall, Moment, Move, Open
from dtp.daemon.policies.logged_in import LoggedInPolicy
from dtp.daemon.reasons import Reason
from dtp.daemon.relays.backends import proxy_protocol
from dtp.daemon.server import Daemon
from dtp.identity import Identity
from dtp.messaging.errors import StoreFailed
from dtp.messaging.login.sessions import Login
from dtp.session.codes import ConnectionRefused, StreamReset

from ..conftest import NEAR, Backend, config, echo, listener_of, run_scenario, serving

PHONE, THIEF = Identity(bytes([4]) * 32), Identity(bytes([5]) * 32)
SERVER = (
    '[[expose]]\nservice = "dtp.login"\nkind = "login"\nallow = ["*"]\n{}\n'
    '[expose.accounts]\nstore = "l.sqlite"\n'
)
APP = '[[expose]]\nservice = "app"\nkind = "{}"\nbackend = "127.0.0.1:{}"\nallow = ["*"]\nlogin = "opaque"\n{}\n'


def settings(tmp_path: Path, app: str = "", more: str = "", accounts: str = "", top: str = "") -> Config:
    text = f'[daemon]\nlisten = ["tcp://127.0.0.1:0"]\n{top}\n{SERVER.format(more)}{accounts}\n{app}'
    return config(tmp_path, text)


async def ask(daemon: Daemon, identity: Identity, data: bytes = b"hello") -> bytes:
    async with dtp.connect(listener_of(daemon).address("app"), identity=identity) as connection:
        stream = await connection.open_stream()
        stream.write(data)
        stream.write_eof()
        return await stream.read(-1)


def test_only_who_is_logged_in_comes_through(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with (
            Backend(echo) as backend,
            serving(settings(tmp_path, APP.format("tcp", backend.port, ""))) as far,
        ):
            at = listener_of(far).address("dtp.login")
            with pytest.raises(ConnectionRefused) as refused:
                await ask(far, PHONE)
            assert refused.value.detail == Reason.NOT_LOGGED_IN
            session = await dtp.register_account(
                at, "alice", "a good password", identity=PHONE, remember=False
            )
            async with session:
                assert await ask(far, PHONE) == b"hello"
                assert await ask(far, session.identity) == b"hello"  # the account's own
                with pytest.raises(ConnectionRefused):
                    await ask(far, THIEF)
                async with dtp.connect(listener_of(far).address("app"), identity=PHONE) as connection:
                    stream = await connection.open_stream()
                    stream.write(b"a")
                    assert await stream.readexactly(1) == b"a"
                    await session.log_out(everywhere=True)
                    stream.write(b"b")  # what is open is cut
                    with pytest.raises(StreamReset) as reset:
                        await stream.readexactly(1)
                    assert reset.value.error_code == Reason.NOT_LOGGED_IN
                with pytest.raises(ConnectionRefused):
                    await ask(far, session.identity)
            status = {one["service"]: one for one in far.get_status()["exposed"]}
            assert status["app"]["denials"]["login"] >= 3
            assert status["dtp.login"]["login"]["login_finish"] == 1
            assert "for those who are logged in" in status["app"]["rules"]

    run_scenario(scenario)


def test_logins_outlive_reloads_and_restarts(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Backend(echo) as backend:
            app = APP.format("tcp", backend.port, "")
            async with serving(settings(tmp_path, app)) as far:
                at = listener_of(far).address("dtp.login")
                session = await dtp.register_account(
                    at, "alice", "a good password", identity=PHONE, remember=False
                )
                await session.close()
                await far.reload(settings(tmp_path, app, "concurrency = {service = 100}"))
                assert await ask(far, PHONE) == b"hello"
                await far.reload(settings(tmp_path, app, accounts='session = "1h"'))
                assert await ask(far, PHONE) == b"hello"
                session = await dtp.login(at, "alice", "a good password", identity=THIEF, remember=False)
                assert await ask(far, THIEF) == b"hello"
                await session.close()
            async with serving(settings(tmp_path, app)) as far:
                assert await ask(far, session.identity) == b"hello"

    run_scenario(scenario)


def test_a_backend_is_told_the_account(tmp_path: Path) -> None:
    async def scenario() -> None:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(head), head))
            await writer.drain()

        async with (
            Backend(handle) as backend,
            serving(settings(tmp_path, APP.format("http", backend.port, ""))) as far,
        ):
            at = listener_of(far).address("dtp.login")
            session = await dtp.register_account(
                at, "j\u00fcrgen", "a good password", identity=PHONE, remember=False
            )
            async with session:
                request = b"GET / HTTP/1.1\r\nhost: x\r\ndtp-login: admin\r\nconnection: close\r\n\r\n"
                head = (await ask(far, PHONE, request)).decode().lower().splitlines()
                assert [line for line in head if line.startswith("dtp-login:")] == ["dtp-login: j%c3%bcrgen"]
                assert f"dtp-login-identity: {session.identity.id}" in head
                assert f"dtp-peer: {PHONE.id}" in head

    run_scenario(scenario)


def test_the_policy_goes_by_the_time() -> None:
    policy = LoggedInPolicy("opaque")
    caller = Caller(NEAR.id, "", "")
    for event in (Arrive(caller), Open(caller), MethodCall(caller), Move(caller, 1)):
        assert (
            policy.check_event(event, Moment(0, 0)).reason is Reason.NOT_LOGGED_IN
        )  # nobody has said who is
    policy.ask_logins(lambda key, now: Login("alice", bytes(32)) if key == NEAR.id.key and now < 10 else None)
    assert policy.check_event(Open(caller), Moment(0, 9)) is None
    assert policy.check_event(Open(caller), Moment(0, 10)).reason is Reason.NOT_LOGGED_IN


def test_what_is_told_of_an_account() -> None:
    caller = Caller(NEAR.id, "0x1", "", Login("a b%\u00fc", NEAR.id.key))
    fields = dict(to_backend([], caller, "app"))
    assert fields[b"dtp-login"] == b"a%20b%25%C3%BC"
    assert fields[b"dtp-login-identity"] == str(NEAR.id).encode()
    header = proxy_protocol.header(caller, "app", None)
    assert b"\xe2\x00\x06a b%\xc3\xbc" in header
    assert b"\xe3" + len(str(NEAR.id)).to_bytes(2, "big") + str(NEAR.id).encode() in header
    assert b"dtp-login" not in dict(to_backend([], Caller(NEAR.id, "0x1", ""), "app"))


def test_a_file_that_keeps_no_accounts_ends_the_start(tmp_path: Path) -> None:
    (tmp_path / "l.sqlite").write_bytes(b"these are notes of something else, not accounts" * 40)

    async def scenario() -> None:
        with pytest.raises(StoreFailed):
            async with serving(settings(tmp_path)):
                raise AssertionError("it began")

    run_scenario(scenario)


@pytest.mark.parametrize(
    ("made", "why"),
    [
        ({"more": 'backend = "127.0.0.1:1"'}, "backend: a login server keeps accounts itself"),
        ({"more": "quota = {requests = 1, every = '1d'}"}, "quota: a login server has limits of its own"),
        ({"more": 'login = "opaque"'}, "callers can.t be logged in before"),
        ({"more": "on-chain = true"}, "can't pay"),
        ({"accounts": 'registration = "some"'}, "registration"),
        ({"accounts": 'session = "0s"'}, "session"),
        ({"top": "workers = 2"}, "known to one process"),
        ({"app": SERVER.format("").replace("dtp.login", "b").replace("l.sqlite", "m")}, "one login server"),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_a_mistake(tmp_path: Path, made: dict[str, str], why: str) -> None:
    with pytest.raises(ConfigMistakes, match=why):
        settings(tmp_path, **made)


def test_logins_need_a_server(tmp_path: Path) -> None:
    with pytest.raises(ConfigMistakes, match="needs a login server"):
        config(tmp_path, '[daemon]\nlisten = ["tcp://127.0.0.1:0"]\n' + APP.format("tcp", 1, ""))
    with pytest.raises(ConfigMistakes, match="login"):
        settings(tmp_path, APP.format("tcp", 1, "").replace("opaque", "basic"))
