"""Candidates that don't answer have the next one dialled beside them; the first that is done is taken."""

import asyncio

import pytest

import dtp
from dtp import carriers
from dtp.carriers.base import CarrierKind
from dtp.carriers.errors import DialError
from dtp.net.dial import STAGGER, connect
from dtp.net.listener import listen
from dtp.session.codes import HandshakeRefused, Refusal
from dtp.testing.clock import run
from dtp.testing.resolvers import FakeResolver

ME = dtp.Identity(bytes(range(32)))
NAME = dtp.Address.parse("dtp://somebody")


class Places:
    """Where somebody is said to be, and how long each place takes to answer; None: it never does."""

    def __init__(self, listener: dtp.Listener, delays: dict[str, float | Exception | None]) -> None:
        self._real = listener.address("echo").carrier_url
        self._delays = delays
        self.began: dict[str, float] = {}
        self.given_up: list[str] = []
        urls = [place if ":" in place else f"memory:{place}" for place in delays]
        direct = [dtp.Address.direct(ME.id, url.replace(":", "://")) for url in urls]
        self.resolver = FakeResolver({NAME: direct})

    async def dial(self, url: str) -> carriers.Carrier:
        place = url.partition("://")[2]
        loop = asyncio.get_running_loop()
        self.began[place] = loop.time()
        delay = next(each for name, each in self._delays.items() if name.endswith(place))
        try:
            if isinstance(delay, Exception):
                raise delay
            if delay is None:
                await asyncio.Event().wait()
            else:
                await asyncio.sleep(delay)
        except asyncio.CancelledError:
            self.given_up.append(place)
            raise
        return await carriers.dial(self._real)


#: Who was let in: once for each that dials, whatever is dialled beside it.
SERVED: list[dtp.Connection] = []


async def echo(connection: dtp.Connection) -> None:
    SERVED.append(connection)
    async for stream in connection:
        stream.write(await stream.read())
        stream.write_eof()


def dialled(delays: dict[str, float | Exception | None], *, later: int = 0) -> tuple[Places, float]:
    """Connect to somebody who is said to be at these places, the last `later` of them when asked again; return them,
    and how long it took."""

    async def main() -> tuple[Places, float]:
        SERVED.clear()
        loop = asyncio.get_running_loop()
        async with await listen("memory://real", {"echo": echo}, identity=ME) as listener:
            places = Places(listener, delays)
            if later:
                places.resolver.keep_back(NAME, later)
            began = loop.time()
            async with connect(
                NAME.with_service("echo"), resolvers=[places.resolver], dial_carrier=places.dial
            ) as connection:
                took = loop.time() - began
                stream = await connection.open_stream()
                stream.write(b"heard")
                stream.write_eof()
                assert await stream.read() == b"heard"
                assert len(connection.stats.carriers) == 1
            await asyncio.sleep(1)
            assert len(SERVED) == 1
            places.began = {place: when - began for place, when in places.began.items()}
            return places, took

    return run(main())


def test_places_that_say_nothing_cost_less_than_a_second() -> None:
    """The addresses of its own network, from elsewhere: each would take the whole time of a handshake."""
    places, took = dialled({"private": None, "private-too": None, "relayed": 0.05})
    assert took == pytest.approx(2 * STAGGER + 0.05)
    assert sorted(places.given_up) == ["private", "private-too"]


def test_who_answers_in_time_is_the_only_one_that_is_dialled() -> None:
    places, took = dialled({"near": STAGGER * 0.9, "next": 0.0})
    assert took == pytest.approx(STAGGER * 0.9)
    assert list(places.began) == ["near"]


def test_one_that_is_late_and_still_first_is_taken_and_the_other_given_up() -> None:
    places, took = dialled({"late": STAGGER * 2, "later": STAGGER * 3})
    assert took == pytest.approx(STAGGER * 2)
    assert places.given_up == ["later"]


def test_of_two_that_are_done_at_the_same_moment_one_is_taken() -> None:
    _, took = dialled({"one": STAGGER * 2, "other": STAGGER})
    assert took == pytest.approx(STAGGER * 2)


def test_who_fails_has_the_next_one_dialled_at_once() -> None:
    places, took = dialled({"refuses": DialError("refused"), "next": 0.0})
    assert took == pytest.approx(0)
    assert places.began["next"] == pytest.approx(0)


def test_the_error_is_that_of_the_last_candidate_whoever_failed_last() -> None:
    with pytest.raises(DialError, match="the last one"):
        dialled({"silent": None, "last": DialError("the last one")})


def test_a_carrier_that_costs_for_each_message_waits_for_all_before_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    usual = carriers.CARRIERS["ws"]
    monkeypatch.setitem(carriers.CARRIERS, "ws", CarrierKind("ws", usual.dial, usual.listen, 60.0))
    places, took = dialled({"silent": None, "ws:costly": 0.0})
    assert places.began["costly"] == pytest.approx(10.0)
    assert took == pytest.approx(10.0)


def test_where_none_leads_anywhere_resolvers_are_asked_for_others() -> None:
    places, took = dialled({"old": DialError("nobody"), "older": None, "new": 0.5}, later=1)
    assert took == pytest.approx(10.5)
    assert places.began["new"] == pytest.approx(10.0)


def test_who_says_no_is_not_looked_for_elsewhere() -> None:
    with pytest.raises(HandshakeRefused):
        dialled({"full": HandshakeRefused(Refusal.BUSY), "other": 0.0}, later=1)


def test_the_error_stays_where_nobody_knows_another_place() -> None:
    with pytest.raises(DialError, match="nobody"):
        dialled({"old": DialError("nobody")})


def test_all_are_given_up_with_the_dial() -> None:
    async def main() -> None:
        async with await listen("memory://real", {"echo": echo}, identity=ME) as listener:
            places = Places(listener, {"one": None, "two": None, "three": None})
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(STAGGER * 1.5):
                    await connect(NAME, resolvers=[places.resolver], dial_carrier=places.dial)
            assert sorted(places.given_up) == ["one", "two"]

    run(main())
