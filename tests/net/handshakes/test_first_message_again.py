"""A recorded first message of IK that is sent again: nobody is asked about it, and the answer tells nothing."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import replace

import pytest
from echo_service import echo, on_fake_clock, roundtrip
from newcomers import strangers

import dtp
from dtp.net import dial as dialing
from dtp.net.presence import SERVICE as PRESENCE
from dtp.session.codes import CloseCode, ConnectionRefused, Refuse
from dtp.session.handshake import ClientHandshake, HandshakeConfig
from dtp.session.limits import DEFAULT
from dtp.session.noise import StaticKey
from dtp.testing import clock
from dtp.testing.pairs import ALICE, BOB

SERVER_STATIC = StaticKey(BOB.static_private).public


def first_message(service: str = "", resume: bytes = b"") -> bytes:
    """What Alice says when she dials Bob by IK."""
    client = ClientHandshake(
        HandshakeConfig(ALICE, dialing.suites()),
        os.urandom,
        expected=BOB.id,
        suite=dialing.suites()[0],
        service=service,
        remote_static=SERVER_STATIC,
        resume=resume,
    )
    return client.data_to_send()


async def answers(listener: dtp.Listener, said: bytes, times: int = 3) -> set[tuple[int, float]]:
    """How many bytes come back to who says this, and when the listener has enough of it."""
    start = asyncio.get_running_loop().time()
    found = set()
    async with strangers(listener, times) as guests:
        for guest in guests:
            guest.carrier.write(memoryview(said))
        for guest in guests:
            await guest.ended
            found.add((len(guest.heard), round(asyncio.get_running_loop().time() - start, 3)))
    return found


def refuse(request: dtp.Request) -> None:
    raise Refuse(CloseCode.DENIED, "not any more")


async def refuse_later(request: dtp.Request) -> None:
    await asyncio.sleep(1)
    raise Refuse(CloseCode.DENIED, "not any more")


@pytest.mark.parametrize("admit", [None, refuse, refuse_later])
@pytest.mark.parametrize("service", ["", "unknown", PRESENCE])
def test_the_answer_is_the_same_whoever_may_come_in(
    admit: Callable[[dtp.Request], object] | None, service: str
) -> None:
    asked: list[dtp.Request] = []

    def judge(request: dtp.Request) -> object:
        asked.append(request)
        return None if admit is None else admit(request)

    async def main() -> None:
        async with await dtp.listen("memory://x", {"": echo}, identity=BOB, admit=judge) as listener:
            [(size, when)] = await answers(listener, first_message(service))
            [(unknown, _)] = await answers(listener, first_message(service, resume=bytes(16)))
        async with await dtp.listen("memory://x", {"": echo}, identity=BOB) as listener:
            [(plain, _)] = await answers(listener, first_message())
        assert asked == []
        assert size == plain == unknown
        assert when == pytest.approx(DEFAULT.handshake, abs=0.1)

    clock.run(main())


@on_fake_clock
async def test_nobody_is_asked_for_a_sign_of_life_who_has_given_none() -> None:
    """A ping to those whose connection isn't known, and to no others, would tell them so."""
    limits = replace(DEFAULT, keepalive=2.0, dead=2.5)
    async with (
        await dtp.listen("memory://x", echo, identity=BOB, limits=limits) as listener,
        dtp.connect(listener.address(), identity=ALICE) as connection,
    ):
        new = await answers(listener, first_message())
        unknown = await answers(listener, first_message(resume=bytes(16)))
        known = await answers(listener, first_message(resume=connection._session.connection_id))
        assert new == unknown == known


@on_fake_clock
async def test_nobody_learns_whether_a_connection_lives_and_it_shows_no_other_source() -> None:
    async with (
        await dtp.listen("memory://x", echo, identity=BOB) as listener,
        dtp.connect(listener.address(), identity=ALICE) as connection,
    ):
        [there] = listener.connections
        source = there.source
        said = first_message(resume=connection._session.connection_id)
        guest_says = asyncio.create_task(answers(listener, said))
        await asyncio.sleep(1)
        assert there.source == source
        assert await roundtrip(connection, b"hi") == b"hi"
        [(known, _)] = await guest_says
        [(unknown, _)] = await answers(listener, first_message(resume=bytes(16)))
        assert known == unknown
        assert connection.stats.resumes == 0
        assert await roundtrip(connection, b"hi") == b"hi"


@on_fake_clock
async def test_who_holds_the_keys_is_asked_about_once_and_told_the_verdict() -> None:
    asked: list[str] = []
    async with await dtp.listen(
        "memory://x", {"good": echo, "bad": echo}, identity=BOB, admit=lambda r: asked.append(r.service)
    ) as listener:
        for _ in range(2):  # by XX, then by IK
            async with dtp.connect(listener.address("good"), identity=ALICE) as connection:
                assert await roundtrip(connection, b"hi") == b"hi"
            with pytest.raises(ConnectionRefused) as refused:
                await dtp.connect(listener.address("none"), identity=ALICE)
            assert refused.value.close_code == CloseCode.UNKNOWN_SERVICE
    assert asked == ["good", "good"]
