"""Listeners with a pre-shared key: who has not got it hears nothing, and nobody is asked about him."""

from __future__ import annotations

import asyncio
import hashlib
import os
from dataclasses import replace

import pytest
from echo_service import echo, on_fake_clock, roundtrip
from newcomers import strangers

import dtp
from dtp.net import dial as dialing
from dtp.session.handshake import ClientHandshake, HandshakeConfig
from dtp.session.limits import DEFAULT
from dtp.session.noise import StaticKey, Suite
from dtp.testing import clock
from dtp.testing.pairs import ALICE, BOB

PSK = bytes(range(32))
STATIC = StaticKey(BOB.static_private).public


def first_message(psk: bytes | None, static: bytes | None) -> bytes:
    client = ClientHandshake(
        HandshakeConfig(ALICE, dialing.suites(), psk=psk),
        os.urandom,
        expected=BOB.id,
        suite=dialing.suites()[0],
        remote_static=static,
    )
    return client.data_to_send()


#: All that a stranger may know but the key: also the server's static key, and whom it lets in.
SAID = {
    "no DTP": b"GET / HTTP/1.1\r\n\r\n",
    "another version": b"DTP\x09\x01\x01\x0f",
    "an unknown pattern": b"DTP\x01\x09\x01\x0f",
    "an unknown suite": b"DTP\x01\x03\x09\xff",
    "XX": first_message(None, None),
    "IK": first_message(None, STATIC),
    "XX, another key": first_message(bytes(32), None),
    "IK, another key": first_message(bytes(32), STATIC),
    "too long": b"DTP\x01\x03\x01\x0f\xff\xff" + bytes(100),
    "a refusal": b"DTP\x01\x03\x01\x0f\x00\x00\x00\x03",
}


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("said", SAID.values(), ids=SAID)
def test_a_stranger_hears_not_one_byte_and_nobody_is_asked_about_him(said: bytes, full: bool) -> None:
    async def main() -> None:
        asked: list[dtp.Request] = []
        limits = replace(DEFAULT, connections=0) if full else DEFAULT
        async with (
            await dtp.listen(
                "memory://x", echo, identity=BOB, psk=PSK, admit=asked.append, limits=limits
            ) as listener,
            strangers(listener, 1) as [guest],
        ):
            guest.carrier.write(memoryview(said))
            await guest.ended
            assert guest.heard == b""
        assert asked == []

    clock.run(main())


@on_fake_clock
async def test_a_recorded_message_sent_again_gives_a_stranger_no_name_and_asks_nobody() -> None:
    asked: list[dtp.Request] = []
    async with (
        await dtp.listen("memory://x", echo, identity=BOB, psk=PSK, admit=asked.append) as listener,
        strangers(listener, 2) as guests,
    ):
        for guest, static in zip(guests, (None, STATIC), strict=True):
            guest.carrier.write(memoryview(first_message(PSK, static)))
        for guest in guests:
            await guest.ended
            assert BOB.id.key not in guest.heard
            assert STATIC not in guest.heard
        assert asked == []


@on_fake_clock
async def test_who_has_the_key_gets_through_whatever_else_has_changed() -> None:
    """A server says nothing to what it can't read, be it for another static key or another suite."""
    async with await dtp.listen("memory://x", echo, identity=BOB, psk=PSK) as listener:
        for _ in range(2):
            async with dtp.connect(listener.address(), psk=PSK) as connection:
                assert await roundtrip(connection, b"hi") == b"hi"
        assert connection.stats.handshake.startswith("Noise_IKpsk0_")
    restarted = dtp.Identity(BOB.seed, hashlib.sha256(b"another static").digest())
    async with await dtp.listen("memory://x", echo, identity=restarted, psk=PSK) as listener:
        async with dtp.connect(listener.address(), psk=PSK) as connection:
            assert await roundtrip(connection, b"hi") == b"hi"
        assert connection.stats.handshake.startswith("Noise_XXpsk0_")
        object.__setattr__(listener._endpoint, "suites", (Suite.CHACHAPOLY_BLAKE2S,))
        async with dtp.connect(listener.address(), psk=PSK) as connection:
            assert await roundtrip(connection, b"hi") == b"hi"


@pytest.mark.parametrize("psk", [b"", b"short", bytes(31), bytes(33)])
@on_fake_clock
async def test_a_key_of_another_length_is_refused_before_anything_is_dialled_or_heard(psk: bytes) -> None:
    with pytest.raises(dtp.LocalError, match=f"a pre-shared key has 32 bytes, not {len(psk)}"):
        dtp.connect(f"dtp+memory://{BOB.id}@nowhere/", psk=psk)
    with pytest.raises(dtp.LocalError, match=f"a pre-shared key has 32 bytes, not {len(psk)}"):
        await dtp.listen("memory://x", echo, identity=BOB, psk=psk)


@on_fake_clock
async def test_the_wrong_key_is_said_to_be_wrong_and_dialled_for_each_suite_alone() -> None:
    failed: list[Exception] = []
    async with await dtp.listen(
        "memory://x", echo, identity=BOB, psk=PSK, on_failed=lambda _, error: failed.append(error)
    ) as listener:
        with pytest.raises(dtp.HandshakeError, match="pre-shared key must be another one"):
            await dtp.connect(listener.address(), psk=bytes(32))
        await asyncio.sleep(1)
    assert len(failed) == len(dialing.suites())
