"""Who has a connection and comes over another carrier is asked about again: rules and places change meanwhile."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from echo_service import echo, on_fake_clock, roundtrip

import dtp
from dtp.session.codes import CloseCode, ConnectionClosed, Refuse
from dtp.session.limits import DEFAULT
from dtp.testing.pairs import ALICE, BOB


class Doorkeeper:
    """An `admit` that keeps what it was asked, and refuses from some time on."""

    def __init__(self, *, slow: bool = False) -> None:
        self.asked: list[dtp.Request] = []
        self.shut = False
        self._slow = slow

    def __call__(self, request: dtp.Request) -> object:
        self.asked.append(request)
        return self._later() if self._slow else self._now()

    def _now(self) -> str:
        if self.shut:
            raise Refuse(CloseCode.DENIED, "not any more")
        return f"admitted {len(self.asked)}"

    async def _later(self) -> str:
        await asyncio.sleep(0.5)
        return self._now()


async def cut(connection: dtp.Connection) -> None:
    """Lose the carrier, and wait until there is another one, or the connection is over."""
    resumes = connection.stats.resumes
    connection.outlet.drivers[0].carrier.abort()
    while connection.stats.resumes == resumes and not connection.closed:  # noqa: ASYNC110 - on virtual time
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.parametrize("how", ["resume", "add"])
def test_a_carrier_that_comes_later_is_asked_about(how: str, slow: bool) -> None:
    @on_fake_clock
    async def main() -> None:
        door = Doorkeeper(slow=slow)
        async with (
            await dtp.listen("memory://x", {"*": echo}, identity=BOB, admit=door) as listener,
            dtp.connect(listener.address("some"), identity=ALICE) as connection,
        ):
            for times in range(1, 4):
                assert await roundtrip(connection, b"hi") == b"hi"
                await asyncio.sleep(1)
                assert [each.again for each in door.asked] == [False, *[True] * (times - 1)]
                assert [each.admission for each in listener.connections] == ["admitted 1"]
                await (cut(connection) if how == "resume" else connection.add_carrier())
            first = door.asked[0]
            for each in door.asked:
                assert (
                    replace(each, again=False) == first
                )  # the ticket is of the first handshake, and its binding
            door.shut = True
            await (cut(connection) if how == "resume" else connection.add_carrier())
            await connection.wait_closed()
            with pytest.raises(ConnectionClosed, match="not any more") as caught:
                connection.try_open_stream()
            assert (caught.value.by_peer, caught.value.close_code) == (True, CloseCode.DENIED)
            await asyncio.sleep(0)
            assert listener.connections == []

    main()


@on_fake_clock
async def test_a_carrier_without_the_proof_is_not_asked_about() -> None:
    """Nobody learns of the rules by it."""
    door = Doorkeeper()
    async with (
        await dtp.listen("memory://x", {"*": echo}, identity=BOB, admit=door) as listener,
        dtp.connect(listener.address(), identity=ALICE) as connection,
    ):
        assert await roundtrip(connection, b"hi") == b"hi"
        object.__setattr__(connection._session.facts, "secret", bytes(32))
        await cut(connection)
        assert len(door.asked) == 1


@on_fake_clock
async def test_who_was_refused_while_a_carrier_was_away_is_told_when_it_resumes() -> None:
    door = Doorkeeper()
    limits = replace(DEFAULT, resume=30.0)
    async with (
        await dtp.listen("memory://x", {"*": echo}, identity=BOB, admit=door, limits=limits) as listener,
        dtp.connect(listener.address(), identity=ALICE, limits=limits) as connection,
    ):
        assert await roundtrip(connection, b"hi") == b"hi"
        door.shut = True
        stream = await connection.open_stream()
        connection.outlet.drivers[0].carrier.abort()
        stream.write(b"data")
        await connection.wait_closed()
        with pytest.raises(ConnectionClosed, match="not any more"):
            await stream.flush()
        assert len(door.asked) == 2
