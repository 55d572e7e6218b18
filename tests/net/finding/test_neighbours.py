"""Carriers that came to one of several listeners, which asked the others first: what came meanwhile isn't lost."""

from __future__ import annotations

import asyncio

import pytest
from echo_service import echo, on_fake_clock

import dtp
from dtp.net.dial import Dialer, suites
from dtp.net.driver import LinkDriver, OnEstablished
from dtp.net.listener import Listener
from dtp.session.codes import ConnectionLost
from dtp.session.handshake import Established, HandshakeConfig
from dtp.session.limits import DEFAULT
from dtp.testing.pairs import ALICE, BOB

#: Seconds that the others take to say that they don't have it: the client's next record has long come.
ASKING = 0.5


class Alone:
    """Neighbours that have nothing, and say so late."""

    def __init__(self) -> None:
        self.listener: Listener | None = None

    def note_opened(self, connection_id: bytes) -> None:
        pass

    def note_closed(self, connection_id: bytes) -> None:
        pass

    def takes_over(self, driver: LinkDriver, established: Established) -> bool:
        assert self.listener is not None
        if not established.payload.resume:
            return False
        asyncio.get_running_loop().call_later(ASKING, self.listener.give_back, driver, established)
        return True


@on_fake_clock
async def test_who_resumes_what_nobody_has_is_told_at_once_when_all_were_asked() -> None:
    alone = Alone()
    async with await dtp.listen("memory://x", echo, identity=BOB, neighbours=alone) as listener:
        alone.listener = listener
        async with dtp.connect(listener.address(), identity=ALICE) as connection:
            dialer = Dialer(listener.address(), HandshakeConfig(ALICE, suites(), DEFAULT), "", ())
            loop = asyncio.get_running_loop()
            attempts: list[float] = []

            async def redial(resume: bytes, take_over: OnEstablished) -> None:
                attempts.append(loop.time())
                await dialer.dial_candidates(bytes(16), take_over)  # of a worker that died

            connection._resumption.redial = redial
            began = loop.time()
            connection.outlet.drivers[0].carrier.abort()
            with pytest.raises(ConnectionLost, match="no such connection"):
                await connection.accept_stream()
            assert loop.time() - began == pytest.approx(ASKING, abs=0.1)
            assert len(attempts) == 1
