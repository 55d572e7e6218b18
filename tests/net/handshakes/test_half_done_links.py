"""Handshakes whose last word fails, and links that never say what they are for."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from echo_service import echo, on_fake_clock, roundtrip
from middleman import middleman

import dtp
from dtp.net import dial as dialing
from dtp.net.connection import Connection
from dtp.net.driver import LinkDriver
from dtp.session.codes import HandshakeRefused, Refusal
from dtp.session.handshake import Established, HandshakeConfig
from dtp.session.limits import DEFAULT
from dtp.session.session import Session
from dtp.testing.pairs import ALICE, BOB


@pytest.mark.parametrize(("place", "error"), [(10, HandshakeRefused), (-1, dtp.ConnectionLost)])
@on_fake_clock
async def test_a_last_word_that_was_changed_on_the_way_lets_nobody_in(
    place: int, error: type[dtp.DtpError]
) -> None:
    """The third message is refused; of the first record behind it nobody can say what is wrong."""
    asked: list[dtp.Request] = []

    def spoil(number: int, data: bytes) -> bytes:
        if number:
            return data
        changed = bytearray(data)
        changed[place] ^= 1
        return bytes(changed)

    async with await dtp.listen("memory://x", echo, identity=BOB, admit=asked.append) as listener:
        async with middleman(listener) as (address, man):
            man.later = spoil
            start = asyncio.get_running_loop().time()
            with pytest.raises(error):
                await dtp.connect(address, identity=ALICE)
            assert asyncio.get_running_loop().time() - start <= 1
        assert asked == []
        async with dtp.connect(listener.address()) as connection:
            assert await roundtrip(connection, b"hi") == b"hi"


@on_fake_clock
async def test_who_is_refused_at_the_third_message_hears_why() -> None:
    limits = replace(DEFAULT, payload=100)  # less than any has
    async with await dtp.listen("memory://x", echo, identity=BOB, limits=limits) as listener:
        start = asyncio.get_running_loop().time()
        with pytest.raises(HandshakeRefused) as refused:
            await dtp.connect(listener.address(), identity=ALICE)
        assert refused.value.refusal == Refusal.FAILED
        async with dtp.connect(listener.address(), identity=ALICE, early=True) as early:
            stream = await early.open_stream()
            with pytest.raises(HandshakeRefused):
                await stream.read()
        assert asyncio.get_running_loop().time() - start < 1


@on_fake_clock
async def test_a_link_that_never_proves_itself_is_closed_in_time_and_harms_nothing() -> None:
    """Of one that is to resume, the first record is not enough: ATTACH is."""
    async with (
        await dtp.listen("memory://x", echo, identity=BOB) as listener,
        dtp.connect(listener.address(), identity=ALICE) as connection,
    ):
        loop = asyncio.get_running_loop()
        start = loop.time()
        dialer = dialing.Dialer(listener.address(), HandshakeConfig(ALICE, dialing.suites()), "", ())
        made: list[Connection] = []

        def take_over(driver: LinkDriver, established: Established) -> None:
            session = Session(
                established, DEFAULT, loop.time(), client=True
            )  # says an empty record, and no ATTACH
            made.append(Connection(session, driver, loop, None))

        await dialer.dial_candidates(connection._session.connection_id, take_over)
        await made[0].wait_closed()  # it waits for another carrier before
        assert loop.time() - start == pytest.approx(DEFAULT.handshake + DEFAULT.resume, abs=0.2)
        assert await roundtrip(connection, b"hi") == b"hi"
        assert connection.stats.resumes == 0
