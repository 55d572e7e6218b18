"""A thief with somebody's static key, a retired one, and all proofs that its owner has shown: he is nobody.

By the doors that programs use, `dtp.connect` and `dtp.listen`; what he says is the second implementation's.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

import pytest

import dtp
from dtp import carriers
from dtp.carriers.base import Carrier
from dtp.errors import CarrierError
from dtp.identity import Identity
from dtp.session.codes import HandshakeError
from dtp.testing import clock

from .handshake import Handshake, Person
from .wire import Payload, Refusal, Refused

PARAMS = [1 << 20, 1 << 20, 9, 1000]
SUITE = "25519_ChaChaPoly_BLAKE2s"


def anybody() -> Person:
    """Somebody new: what a client has learned of a server's static key is kept from test to test."""
    return Person(os.urandom(32), os.urandom(32))


class Spoken:
    """One carrier, and a handshake of the second implementation over it."""

    def __init__(self, carrier: Carrier, handshake: Handshake) -> None:
        self.carrier, self.handshake = carrier, handshake
        #: All that came, and what the handshake made of it in the end.
        self.heard = b""
        loop = asyncio.get_running_loop()
        self.over: asyncio.Future[Refused | CarrierError | None] = loop.create_future()
        #: What the other side has said of itself, once it has proven it.
        self.met: asyncio.Future[Payload] = loop.create_future()
        self._buffer = bytearray(65536)
        carrier.start(self)
        self._say()

    def _say(self) -> None:
        out, self.handshake.out = self.handshake.out, b""
        if out:
            self.carrier.write(memoryview(out))

    def _end(self, how: Refused | CarrierError | None) -> None:
        if not self.over.done():
            self.over.set_result(how)

    def carrier_buffer(self) -> memoryview:
        return memoryview(self._buffer)

    def carrier_received(self, size: int) -> None:
        data = bytes(self._buffer[:size])
        self.heard += data
        if self.handshake.keys is not None:
            return
        try:
            self.handshake.feed(data)
        except Refused as refused:
            self._end(refused)
        if self.handshake.theirs is not None and not self.met.done():
            self.met.set_result(self.handshake.theirs)
        self._say()

    def carrier_writable(self) -> None: ...

    def carrier_packet(self, data: bytes) -> None: ...

    def carrier_lost(self, error: CarrierError | None) -> None:
        self._end(error)


def serving(person: Person, payload: Payload, heard: asyncio.Queue[Spoken]) -> Callable[[Carrier], None]:
    """Answers who comes as `person`."""

    def take(carrier: Carrier) -> None:
        heard.put_nowait(Spoken(carrier, Handshake(False, person, os.urandom(32), payload)))

    return take


def dialling(person: Person, payload: Payload, pattern: str, server: Person) -> Handshake:
    return Handshake(
        True,
        person,
        os.urandom(32),
        payload,
        pattern=pattern,
        suite=SUITE,
        server=server,
    )


async def knock(listener: dtp.Listener, handshake: Handshake) -> Spoken:
    return Spoken(await carriers.dial(listener.urls[0]), handshake)


@pytest.mark.parametrize("known", [False, True])
def test_he_does_not_serve_as_its_owner(known: bool) -> None:
    """Neither to who meets the owner for the first time, nor to who knows the static key from before (IK)."""
    alice, bob, mallory = anybody(), anybody(), anybody()
    alice_now, bob_now = Identity(alice.seed), Identity(bob.seed)
    heard: asyncio.Queue[Spoken] = asyncio.Queue()

    async def main() -> None:
        async with await dtp.listen("memory://bob", identity=Identity(bob.seed, bob.static)) as listener:
            visitor = await knock(listener, dialling(mallory, mallory.payload(params=PARAMS), "XX", bob))
            shown = (await visitor.met).proof
            visitor.carrier.abort()
            if known:
                async with dtp.connect(listener.address(), identity=alice_now):
                    pass
        # Bob has another static key now; the old one was on a disk that was thrown away.
        payload = Payload(bob.id, proof=shown, params=PARAMS)
        thief = Person(mallory.seed, bob.static)
        pretender = await carriers.listen("memory://thief", serving(thief, payload, heard))
        with pytest.raises(HandshakeError, match="has not signed this handshake"):
            await dtp.connect(f"dtp+memory://{bob_now.id}@thief", identity=alice_now)
        await pretender.close()
        # Whoever has the identity is believed, whatever his static key is.
        async with (
            await dtp.listen("memory://bob", identity=bob_now) as listener,
            dtp.connect(listener.address(), identity=alice_now) as connection,
        ):
            assert connection.peer == bob_now.id

    clock.run(main())
    one = heard.get_nowait()
    assert heard.empty()
    assert one.handshake.pattern == ("IK" if known else "XX")
    # By XX she has not said who she is; by IK she has, to whoever has that key, and not one record.
    assert (one.handshake.theirs is not None) == known
    assert len(one.heard) == 7 + 2 + int.from_bytes(one.heard[7:9])


@pytest.mark.parametrize("pattern", ["XX", "IK"])
def test_he_does_not_come_in_as_its_owner(pattern: str) -> None:
    """With a proof that he was shown as a server: nobody is asked about him, and he hears a refusal."""
    alice, bob, mallory = anybody(), anybody(), anybody()
    seen: asyncio.Queue[Spoken] = asyncio.Queue()
    asked: list[dtp.Request] = []

    async def main() -> None:
        host = await carriers.listen(
            "memory://mallory",
            serving(mallory, Payload(mallory.id, params=PARAMS), seen),
        )
        address = f"dtp+memory://{Identity(mallory.seed).id}@mallory"
        connecting = asyncio.create_task(
            dtp.connect(address, identity=Identity(alice.seed, alice.static)).__aenter__()
        )
        shown = (await (await seen.get()).met).proof
        connecting.cancel()
        await asyncio.gather(connecting, return_exceptions=True)
        await host.close()
        async with await dtp.listen(
            "memory://bob", identity=Identity(bob.seed, bob.static), admit=asked.append
        ) as listener:
            for proof, person in (
                (shown, Person(mallory.seed, alice.static)),  # the key and a proof
                (b"", Person(mallory.seed, alice.static)),  # the key, and his own signature
                (shown, Person(mallory.seed, mallory.static)),  # a proof alone
            ):
                payload = Payload(alice.id, proof=proof, params=PARAMS)
                thief = await knock(listener, dialling(person, payload, pattern, bob))
                await thief.over
                assert thief.heard.endswith(bytes(2) + int(Refusal.FAILED).to_bytes(2))
            assert listener.connections == []
            assert asked == []
            alice_now = Identity(alice.seed)
            async with dtp.connect(listener.address(), identity=alice_now):
                (request,) = asked
                assert request.peer == alice_now.id

    clock.run(main())
