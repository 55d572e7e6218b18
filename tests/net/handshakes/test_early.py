"""Dialling with `early`: the first words leave with the first record, and are nobody's to replay."""

from __future__ import annotations

import asyncio

import pytest
from echo_service import on_fake_clock
from middleman import middleman
from newcomers import strangers

import dtp
from dtp.session.codes import CloseCode, Refuse
from dtp.testing.pairs import ALICE, BOB

#: Seconds that each way takes.
WAY = 0.1


class Counting:
    """A service that notes what it is told and when, and answers."""

    def __init__(self) -> None:
        self.told: list[bytes] = []
        self.asked = 0
        self.at = 0.0

    async def serve(self, connection: dtp.Connection) -> None:
        async for stream in connection:
            self.told.append(await stream.read())
            self.at = asyncio.get_running_loop().time()
            stream.write(b"heard")
            stream.write_eof()

    def admit(self, request: dtp.Request) -> None:
        self.asked += 1


def far(listener: dtp.Listener) -> str:
    return f"{listener.address()}?carrier.delay={WAY}"


async def ask(connection: dtp.Connection) -> bytes:
    stream = await connection.open_stream()
    stream.write(b"hello")
    stream.write_eof()
    return await stream.read()


@pytest.mark.parametrize("known", [False, True], ids=["XX", "IK"])
@pytest.mark.parametrize("psk", [None, bytes(32)], ids=["no key", "pre-shared key"])
@on_fake_clock
async def test_an_early_answer_is_there_after_two_round_trips_by_either_pattern(
    known: bool, psk: bytes | None
) -> None:
    service, loop = Counting(), asyncio.get_running_loop()
    async with await dtp.listen("memory://x", service.serve, identity=BOB, psk=psk) as listener:
        if known:
            async with dtp.connect(listener.address(), psk=psk):
                pass
        start = loop.time()
        async with dtp.connect(far(listener), psk=psk, early=True) as connection:
            assert loop.time() - start == pytest.approx(2 * WAY)
            assert not connection.admitted
            assert connection.stats.handshake.startswith("Noise_IK" if known else "Noise_XX")
            assert await ask(connection) == b"heard"
            assert service.at - start == pytest.approx(3 * WAY)
            assert loop.time() - start == pytest.approx(4 * WAY)
            assert connection.admitted
        start = loop.time()
        async with dtp.connect(far(listener), psk=psk) as connection:
            assert loop.time() - start == pytest.approx(4 * WAY)
            assert await ask(connection) == b"heard"
            assert loop.time() - start == pytest.approx(6 * WAY)


@pytest.mark.parametrize("later", [False, True])
@on_fake_clock
async def test_the_words_of_who_is_refused_are_read_by_nobody(later: bool) -> None:
    service = Counting()

    async def refuse_later(request: dtp.Request) -> None:
        await asyncio.sleep(5)
        raise Refuse(CloseCode.DENIED, "not you")

    def refuse(request: dtp.Request) -> None:
        raise Refuse(CloseCode.DENIED, "not you")

    admit = refuse_later if later else refuse
    async with (
        await dtp.listen("memory://x", service.serve, identity=BOB, admit=admit) as listener,
        dtp.connect(far(listener), early=True) as connection,
    ):
        with pytest.raises(dtp.ConnectionClosed, match=r"\(DENIED\): not you") as refused:
            await ask(connection)
        assert refused.value.close_code == CloseCode.DENIED
        with pytest.raises(dtp.ConnectionClosed, match=r"\(DENIED\): not you"):
            await connection.wait_ready()
    assert service.told == []


@on_fake_clock
async def test_who_only_wants_the_verdict_waits_for_it() -> None:
    async with (
        await dtp.listen("memory://x", Counting().serve, identity=BOB) as listener,
        dtp.connect(far(listener), early=True) as connection,
    ):
        await connection.wait_ready()
        assert connection.admitted


@pytest.mark.parametrize("psk", [None, bytes(32)], ids=["no key", "pre-shared key"])
@pytest.mark.parametrize("known", [False, True], ids=["XX", "IK"])
@on_fake_clock
async def test_all_that_an_early_client_said_is_of_no_use_to_who_says_it_again(
    known: bool, psk: bytes | None
) -> None:
    service = Counting()
    async with await dtp.listen(
        "memory://x", service.serve, identity=BOB, psk=psk, admit=service.admit
    ) as listener:
        if known:
            async with dtp.connect(listener.address(), psk=psk):
                service.asked = 0
        async with (
            middleman(listener) as (address, man),
            dtp.connect(address, identity=ALICE, psk=psk, early=True) as connection,
        ):
            assert await ask(connection) == b"heard"
        assert (service.asked, service.told) == (1, [b"hello"])
        [said] = man.said
        async with strangers(listener, 3) as guests:
            for guest in guests:
                guest.carrier.write(memoryview(said))
            for guest in guests:
                await guest.ended
            # The second message, for which nothing of the first was looked at, and maybe a refusal of the third.
            assert len({len(guest.heard) for guest in guests}) == 1
            assert all(BOB.id.key not in guest.heard for guest in guests)
        assert (service.asked, service.told) == (1, [b"hello"])
        assert listener.connections == []


def test_a_paid_connection_is_not_dialled_early() -> None:
    with pytest.raises(dtp.LocalError, match="`early` and `wallet`"):
        dtp.connect("dtp://alice/files", wallet=object(), early=True)  # type: ignore[call-overload]
