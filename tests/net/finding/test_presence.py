"""Statements of presence: their bytes, and who gives them to whom."""

import asyncio
import hashlib
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dtp
from dtp.identity import Identity
from dtp.identity.presence import (
    DOMAIN,
    MAX_BYTES,
    MAX_HINT_BYTES,
    MAX_HINTS,
    MAX_LIFETIME_MS,
    PresenceError,
    PresenceStatement,
)
from dtp.net import presence
from dtp.net.address import Address
from dtp.net.listener import Listener, Request
from dtp.net.presence import Announcing
from dtp.session.codes import CloseCode, Refuse

ME = Identity(bytes(range(32)), bytes(range(32)))
HOST = "0x" + "ab" * 32
SAID = PresenceStatement(ME.id, HOST, 3, 7, 1_000_000, 1_060_000, ("tcp://192.0.2.1:9",))


def test_the_bytes_of_a_statement() -> None:
    """As docs/wire.md has them: the signature is checked here by another library than the one that made it."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    data = SAID.sign(ME)
    body, signature = msgpack.unpackb(data)
    assert msgpack.unpackb(body) == [
        1,
        ME.id.key,
        bytes.fromhex("ab" * 32),
        3,
        7,
        1_000_000,
        1_060_000,
        ["tcp://192.0.2.1:9"],
    ]
    message = b"\x0fdtp.presence.v1" + body
    assert message[1 : 1 + len(DOMAIN)] == DOMAIN
    Ed25519PublicKey.from_public_bytes(ME.id.key).verify(signature, message)
    assert hashlib.sha256(data).hexdigest() == VECTOR
    assert PresenceStatement.parse(data) == SAID


VECTOR = "8051d04a3dea9cd39874ac9f98691c788abed601cf1ec63342451cd059c9bce6"


@given(st.binary(max_size=300))
def test_what_is_none_is_refused(data: Any) -> None:
    with pytest.raises(PresenceError):
        PresenceStatement.parse(data)


@given(st.data())
def test_a_changed_statement_is_refused(data: Any) -> None:
    signed = bytearray(SAID.sign(ME))
    at = data.draw(st.integers(0, len(signed) - 1))
    signed[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(PresenceError):
        PresenceStatement.parse(bytes(signed))


def signed(fields: Any) -> Any:
    body = msgpack.packb(fields)
    return msgpack.packb([body, ME.sign(bytes([len(DOMAIN)]) + DOMAIN + body)])


@pytest.mark.parametrize(
    "fields",
    [
        [2, ME.id.key, b"", 0, 1, 5, 6, []],
        [1, ME.id.key[:31], b"", 0, 1, 5, 6, []],
        [1, ME.id.key, b"short", 0, 1, 5, 6, []],
        [1, ME.id.key, b"", -1, 1, 5, 6, []],
        [1, ME.id.key, b"", 0, 2**63, 5, 6, []],
        [1, ME.id.key, b"", 0, True, 5, 6, []],
        [1, ME.id.key, b"", 0, 1.0, 5, 6, []],
        [1, ME.id.key, b"", 0, 1, 6, 6, []],
        [1, ME.id.key, b"", 0, 1, 5, 6 + MAX_LIFETIME_MS, []],
        [1, ME.id.key, b"", 0, 1, 5, 6, [b"bytes"]],
        [1, ME.id.key, b"", 0, 1, 5, 6, ["x"] * (MAX_HINTS + 1)],
        [1, ME.id.key, b"", 0, 1, 5, 6, ["x" * (MAX_HINT_BYTES + 1)]],
        [1, ME.id.key, b"", 0, 1, 5, 6, [], "more"],
        {"version": 1},
    ],
)
def test_what_its_peer_signed_wrongly_is_refused(fields: Any) -> None:
    with pytest.raises(PresenceError):
        PresenceStatement.parse(signed(fields))


def test_the_largest_statement_fits() -> None:
    hints = tuple("x" * MAX_HINT_BYTES for _ in range(MAX_HINTS))
    most = 2**63 - 1
    data = PresenceStatement(ME.id, HOST, most, most, most - 1, most, hints).sign(ME)
    assert len(data) <= MAX_BYTES
    assert PresenceStatement.parse(data).hints == hints
    with pytest.raises(PresenceError):
        PresenceStatement.parse(data + bytes(MAX_BYTES))


def test_nobody_signs_for_another() -> None:
    with pytest.raises(PresenceError):
        SAID.sign(Identity.generate())


def test_when_it_holds_and_which_is_newer() -> None:
    assert SAID.is_current(1_000_000 - 60_000)
    assert SAID.is_current(1_060_000 + 60_000)
    assert not SAID.is_current(1_060_000 + 60_001)
    assert not SAID.is_current(1_000_000 - 60_001)
    other = PresenceStatement(ME.id, HOST, 4, 1, 5, 6)
    assert other.supersedes(SAID)
    assert not SAID.supersedes(other)
    assert not SAID.supersedes(SAID)
    assert not PresenceStatement(Identity.generate().id, HOST, 9, 9, 5, 6).supersedes(SAID)


def nobody(request: Request) -> None:
    raise Refuse(CloseCode.DENIED, "nobody comes in here")


def announcing(listener: Listener) -> Announcing:
    """What says that a listener is there."""
    assert listener.presence is not None
    return listener.presence


async def answer_of(address: Address) -> PresenceStatement:
    """What whoever is there says."""
    told = await presence.ask(address)
    assert told is not None
    return told


async def echo(connection: Any) -> None:
    await connection.wait_closed()


def test_a_listener_says_that_it_is_there_to_whoever_dials_it() -> None:
    """Whatever its rules and handlers are: who may not come in hears no more than the handshake proves."""

    async def scenario() -> None:
        async with await dtp.listen("tcp://127.0.0.1:0", {"x": echo}, identity=ME, admit=nobody) as listener:
            first = await answer_of(listener.address("files"))
            assert (first.peer, first.host, first.generation, first.hints) == (ME.id, "", 0, ())
            announcing(listener).announce_host(HOST, 4, "tcp://192.0.2.1:9")
            second = await answer_of(listener.address())
            assert (second.host, second.generation, second.hints) == (HOST, 4, ("tcp://192.0.2.1:9",))
            assert second.sequence > first.sequence
            with pytest.raises(dtp.ConnectionRefused, match="nobody"):
                async with dtp.connect(listener.address("x")):
                    pass

    asyncio.run(scenario())


def test_it_never_comes_to_a_program() -> None:
    """Not when it takes every service, and not where it takes connections by hand."""

    async def scenario() -> None:
        taken = []

        async def handler(connection: Any) -> None:
            taken.append(connection.service)

        async with await dtp.listen("tcp://127.0.0.1:0", handler, identity=ME) as listener:
            assert (await answer_of(listener.address())).peer == ME.id
            listener.presence = None
            assert await presence.ask(listener.address()) is None
        async with await dtp.listen("tcp://127.0.0.1:0", identity=ME) as listener:
            assert (await answer_of(listener.address())).peer == ME.id
            waiting = asyncio.ensure_future(listener.accept())
            async with dtp.connect(listener.address("mine")):
                assert (await waiting).service == "mine"
        assert taken == []

    asyncio.run(scenario())


def test_who_is_alive() -> None:
    async def scenario() -> None:
        key, psk = ME.id.key, b"p" * 32
        async with await dtp.listen("tcp://127.0.0.1:0", {"x": echo}, identity=ME) as listener:
            url = listener.urls[0]
            assert await presence.is_alive(key, url, generation=9)
            announcing(listener).announce_host(HOST, 4, "")
            assert await presence.is_alive(key, url, generation=4)
            assert not await presence.is_alive(key, url, generation=5)  # another one has replaced it
            assert not await presence.is_alive(Identity.generate().id.key, url)
            listener.presence = None
            assert await presence.is_alive(key, url)
        assert not await presence.is_alive(key, url)
        async with await dtp.listen("tcp://127.0.0.1:0", {"x": echo}, identity=ME, psk=psk) as listener:
            assert await presence.is_alive(key, listener.urls[0], psk=psk)

    asyncio.run(scenario())


def test_a_statement_of_another_is_refused() -> None:
    async def scenario() -> None:
        async def lies(connection: Any) -> None:
            stream = await connection.accept_stream()
            async with stream:
                stream.write(SAID.sign(ME))
                stream.write_eof()

        async with await dtp.listen("tcp://127.0.0.1:0", identity=Identity.generate()) as listener:
            announcing(listener).answer_connection = lies
            with pytest.raises(PresenceError, match="gives the statement of"):
                await presence.ask(Address.direct(listener.peer, listener.urls[0]))

    asyncio.run(scenario())


def test_a_peer_that_says_too_much_or_nothing_keeps_nobody() -> None:
    async def scenario() -> None:
        async def talks(connection: Any) -> None:
            stream = await connection.accept_stream()
            stream.write(bytes(1 << 20))
            await connection.wait_closed()

        async def silent(connection: Any) -> None:
            await connection.wait_closed()

        async with await dtp.listen("tcp://127.0.0.1:0", identity=ME) as listener:
            announcing(listener).answer_connection = talks
            with pytest.raises(PresenceError):
                await presence.ask(listener.address())
            announcing(listener).answer_connection = silent
            with pytest.raises(TimeoutError):
                await presence.ask(listener.address(), patience=0.05)

    asyncio.run(scenario())
