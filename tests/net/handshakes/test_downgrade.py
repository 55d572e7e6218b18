"""Somebody between client and server who wants them to use a worse suite, or another pattern."""

from __future__ import annotations

import pytest
from echo_service import echo, on_fake_clock, roundtrip
from middleman import middleman

import dtp
from dtp.carriers.base import Carrier
from dtp.net import dial as dialing
from dtp.session.codes import HandshakeRefused, Refusal
from dtp.testing.pairs import BOB

PSK = bytes(range(32))


@pytest.mark.parametrize("psk", [None, PSK], ids=["no key", "pre-shared key"])
@pytest.mark.parametrize("known", [False, True], ids=["XX", "IK"])
@on_fake_clock
async def test_forged_refusals_of_the_best_suite_are_noticed_by_the_server_and_told(
    known: bool, psk: bytes | None
) -> None:
    asked: list[dtp.Request] = []
    best = dialing.suites()[0]

    def forge(number: int, data: bytes, carrier: Carrier) -> bytes | None:
        if data[5] != best:
            return data
        if psk is None:
            carrier.write(memoryview(bytes([0, 0, 0, Refusal.SUITE])))
        carrier.close()  # where a key is wanted a refusal is silence
        return None

    async with await dtp.listen("memory://x", echo, identity=BOB, psk=psk, admit=asked.append) as listener:
        if known:
            async with dtp.connect(listener.address(), psk=psk):
                asked.clear()
        async with middleman(listener, forge) as (address, man):
            with pytest.raises(HandshakeRefused, match="somebody between them forges refusals") as refused:
                await dtp.connect(address, psk=psk)
        assert refused.value.refusal == Refusal.DOWNGRADE
        assert [said[5] for said in man.said][-1] == dialing.suites()[1]
        assert asked == []


@on_fake_clock
async def test_an_offer_that_was_changed_on_the_way_ends_the_handshake() -> None:
    """Without the better suites in the offer the server would see nothing wrong; but the offer is in the prologue."""
    asked: list[dtp.Request] = []
    suites = dialing.suites()

    def forge(number: int, data: bytes, carrier: Carrier) -> bytes | None:
        if data[5] == suites[0]:
            carrier.write(memoryview(bytes([0, 0, 0, Refusal.SUITE])))
            carrier.close()
            return None
        return data[:6] + bytes([1 << data[5] - 1]) + data[7:]

    async with await dtp.listen("memory://x", echo, identity=BOB, admit=asked.append) as listener:
        for _ in range(2):  # by XX, then by IK
            async with middleman(listener, forge) as (address, _):
                with pytest.raises(dtp.HandshakeError):
                    await dtp.connect(address)
            assert asked == []
            async with dtp.connect(listener.address()) as connection:
                assert await roundtrip(connection, b"hi") == b"hi"
                asked.clear()


@on_fake_clock
async def test_a_forged_refusal_of_the_static_key_costs_a_message_and_nothing_else() -> None:
    """From IK to XX: the same is proven, and what IK hides (who dials) XX tells only to the server it has proven."""

    def forge(number: int, data: bytes, carrier: Carrier) -> bytes | None:
        if number:
            return data
        carrier.write(memoryview(bytes([0, 0, 0, Refusal.FAILED])))
        carrier.close()
        return None

    async with await dtp.listen("memory://x", echo, identity=BOB) as listener:
        async with dtp.connect(listener.address()):
            pass
        async with middleman(listener, forge) as (address, _), dtp.connect(address) as connection:
            assert connection.peer == BOB.id
            assert connection.stats.handshake.startswith("Noise_XX_")
            assert await roundtrip(connection, b"hi") == b"hi"
