"""Clocks that are wrong, or jump: no time is on the wire, so nothing depends on what the other side's says."""

from __future__ import annotations

import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

import dtp
from dtp.core import Buffer
from dtp.session.events import Event, LinkLost, SessionEnded, StreamData
from dtp.session.exchange import Exchanges
from dtp.session.handshake import HandshakeConfig
from dtp.session.limits import DEFAULT
from dtp.session.noise import Suite
from dtp.session.session import Session
from dtp.testing import clock
from dtp.testing.pairs import ALICE, BOB, entropy, shake_hands

YEAR = 365 * 86400.0


class End:
    """A session with a clock of its own."""

    def __init__(self, session: Session, now: float) -> None:
        self.session, self.now = session, now
        self.events: list[Event] = []

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.session.handle_timer(self.now)
        self.events += self.session.take_events()


class Two:
    """A client and a server, whose clocks say other times."""

    def __init__(self, client_now: float, server_now: float) -> None:
        ends = shake_hands(
            HandshakeConfig(ALICE, tuple(Suite)), HandshakeConfig(BOB, tuple(Suite)), known=True
        )
        self.client, self.server = (
            End(
                Session(
                    established,
                    DEFAULT,
                    now,
                    client=is_client,
                    exchanges=Exchanges(ALICE if is_client else BOB, entropy(f"{is_client}")),
                ),
                now,
            )
            for established, now, is_client in zip(ends, (client_now, server_now), (True, False), strict=True)
        )
        self._buffer = Buffer(1 << 18)

    def settle(self) -> None:
        """Move all there is, both ways."""
        moved = True
        while moved:
            moved = False
            for one, other in ((self.client, self.server), (self.server, self.client)):
                size = one.session.seal_records(one.session.link, self._buffer, one.now, 1 << 18)
                if size:
                    moved = True
                    other.session.receive_records(other.session.link, self._buffer, 0, size, other.now)
                for each in (one, other):
                    each.events += each.session.take_events()

    def pass_time(self, seconds: float) -> None:
        """So much passes for both."""
        for each in (self.client, self.server):
            each.pass_time(seconds)
        self.settle()

    def talk(self) -> None:
        """One message each way, on a stream of its own."""
        stream = self.client.session.open_stream()
        self.client.session.write_stream(stream, b"there")
        self.settle()
        self.server.session.write_stream(stream, b"and back")
        self.settle()
        assert StreamData(stream, b"there") in self.server.events
        assert StreamData(stream, b"and back") in self.client.events

    @property
    def over(self) -> list[Event]:
        """What has ended of either."""
        return [
            each
            for end in (self.client, self.server)
            for each in end.events
            if isinstance(each, SessionEnded | LinkLost)
        ]


@pytest.mark.parametrize("client", [0.0, -YEAR, YEAR, 1e15])
@pytest.mark.parametrize("server", [0.0, -YEAR, YEAR])
def test_clocks_of_the_ends_need_not_agree(client: float, server: float) -> None:
    two = Two(client, server)
    two.talk()
    for _ in range(40):  # fresh keys, pings, acknowledgements
        two.pass_time(20)
        two.talk()
    assert not two.over


@pytest.mark.parametrize("end", ["client", "server"])
def test_a_clock_that_jumps_a_year_asks_whether_the_peer_lives_and_goes_on(end: str) -> None:
    """As behind a suspend: what has come in is read before anybody is given up."""
    two = Two(0, 0)
    two.talk()
    jumped: End = getattr(two, end)
    jumped.pass_time(YEAR)
    two.settle()
    two.talk()
    two.pass_time(1)
    two.talk()
    assert not two.over


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 2 * YEAR)), max_size=12))
def test_however_clocks_go_nothing_but_the_link_is_lost(steps: list[tuple[bool, float]]) -> None:
    """Of either end, by other rates: what is due comes up, and the ends agree on what passed as long as it does."""
    two = Two(0, 1e6)
    two.talk()
    for of_client, seconds in steps:
        (two.client if of_client else two.server).pass_time(seconds)
        two.settle()
        for end in (two.client, two.server):
            assert (
                end.session.next_deadline() >= end.now
                or end.session.ended is not None
                or end.session.link.lost
            )
    if not two.over:
        two.talk()


def test_who_is_who_is_proven_whatever_the_wall_clocks_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """Proofs fit one handshake and have no epoch. Whoever looks, at either end, finds another year each time."""
    years = itertools.cycle((-YEAR, 0.0, YEAR))
    now = time.time

    async def echo(connection: dtp.Connection) -> None:
        async for stream in connection:
            stream.write(await stream.read())
            stream.write_eof()

    async def main() -> None:
        async with await dtp.listen("memory://x", echo, identity=BOB) as listener:
            monkeypatch.setattr(time, "time", lambda: now() + next(years))
            for _ in range(2):  # by XX, and by IK
                async with dtp.connect(listener.address(), identity=ALICE) as connection:
                    stream = await connection.open_stream()
                    stream.write(b"hi")
                    stream.write_eof()
                    assert await stream.read() == b"hi"
            monkeypatch.undo()

    clock.run(main())
