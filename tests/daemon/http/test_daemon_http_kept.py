"""Connections that clients of HTTP keep, where the daemon is reloaded or ends: no request is cut off."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from dtp.daemon.config.model import AccessRule, ConcurrencyRule
from dtp.daemon.policies import Moment, Open
from dtp.daemon.policies.access import AccessPolicy
from dtp.daemon.policies.concurrency import ConcurrencyPolicy
from dtp.daemon.reasons import Reason
from dtp.daemon.relays.expose import Exposed
from dtp.daemon.relays.ledger import Ending

from ..conftest import Pair, Run, RunTalk, config
from ..streams.test_daemon_relay import until
from ..talk import Talk, seen
from .test_daemon_http import CALLER, expose, site
from .test_daemon_http_ends import GET
from .test_daemon_http_hostile import OK

REQUEST = b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n"
NOW = Moment(0.0, 0.0)


def another(
    talk: Talk, tmp_path: Path, *policies: AccessPolicy | ConcurrencyPolicy, kind: str = "http"
) -> tuple[Exposed, Ending]:
    """What stands in the place of `talk.exposed` after a reload, and how sessions are told of it."""
    made = Exposed(
        config(tmp_path, f'[daemon]\nlisten = ["tcp://127.0.0.1:0"]\n{expose(2, kind)}').expose[0], policies
    )
    made.dial_streams = talk.exposed.dial_streams
    return made, Ending(5.0, lambda connection: made)


def is_last(talk: Talk) -> bool:
    """Whether the last answer that the client has heard says that it is."""
    return b"connection: close" in talk.client.heard.lower().rpartition(b"http/1.1 200")[2]


def test_an_idle_client_goes_over_to_what_a_reload_made(talk: RunTalk, tmp_path: Path) -> None:
    """Its next request is asked about there, and isn't the last; what was moved before counts where it was."""

    async def scenario(talk: Talk) -> None:
        before = talk.exposed
        talk.client.say(GET)
        (await talk.asked()).say(OK)
        await talk.answered()
        after, end = another(talk, tmp_path)
        moved = talk.session.counts.received
        talk.session.finish(end)
        assert talk.session.exposed is after
        assert (before.ledger.received, after.ledger.received) == (moved, 0)
        await asyncio.sleep(60)  # longer than who has to leave may be idle
        talk.client.say(GET)
        (await talk.asked(2)).say(OK)
        await talk.answered(2)
        assert len(talk.links) == 2  # its backends may be others
        assert not is_last(talk)
        assert after.ledger.received == moved

    talk(scenario)


def test_who_is_being_answered_goes_over_with_the_next_request(talk: RunTalk, tmp_path: Path) -> None:
    async def scenario(talk: Talk) -> None:
        before = talk.exposed
        talk.client.say(GET)
        backend = await talk.asked()
        after, end = another(talk, tmp_path)
        talk.session.finish(end)
        assert talk.session.exposed is before
        backend.say(OK)
        await talk.answered()
        await seen(lambda: talk.session.exposed is after)
        talk.client.say(GET)
        (await talk.asked(2)).say(OK)
        await talk.answered(2)
        assert not is_last(talk)

    talk(scenario)


def test_who_may_not_come_in_any_more_does_not_go_over(talk: RunTalk, tmp_path: Path) -> None:
    async def scenario(talk: Talk) -> None:
        await asyncio.sleep(1)
        after, end = another(talk, tmp_path, AccessPolicy(AccessRule(peers=frozenset())))
        talk.session.finish(end)
        await talk.ended()
        assert talk.client.code == Reason.DENIED
        assert after.denials == {"access": 1}

    talk(scenario)


def test_what_is_open_stays_beyond_a_lower_limit(talk: RunTalk, tmp_path: Path) -> None:
    """As bytes of a relay do; and each stream is counted once, where both have the same rule."""

    async def scenario(talk: Talk) -> None:
        rule = ConcurrencyPolicy(ConcurrencyRule(identity=1))
        after, end = another(talk, tmp_path, rule)
        talk.exposed.chain = after.chain
        assert talk.exposed.chain.ask_policies(Open(CALLER), NOW) is None  # as it was let in
        await asyncio.sleep(1)
        talk.session.finish(end)
        talk.client.say(GET)
        (await talk.asked()).say(OK)
        await talk.answered()
        denial = after.chain.ask_policies(Open(CALLER), NOW)
        assert denial is not None
        assert denial.reason == Reason.TOO_MANY

    talk(scenario)


def test_another_kind_of_service_takes_nothing_over(talk: RunTalk, tmp_path: Path) -> None:
    async def scenario(talk: Talk) -> None:
        await asyncio.sleep(1)
        _, end = another(talk, tmp_path, kind="json-rpc")
        talk.session.finish(end)
        assert await talk.ended() == 5 + 2

    talk(scenario)


@pytest.mark.parametrize("patience", [0.0, 5.0])
def test_an_idle_client_has_its_time_for_a_last_request(talk: RunTalk, patience: float) -> None:
    async def scenario(talk: Talk) -> None:
        await asyncio.sleep(1)
        talk.session.finish(Ending(patience))
        if patience:
            await asyncio.sleep(patience - 0.1)
        talk.client.say(GET)
        (await talk.asked()).say(OK)
        await talk.answered()
        assert is_last(talk)
        assert await talk.ended() == 2
        assert (talk.client.code, talk.session.why) == (0, "")

    talk(scenario)


@pytest.mark.parametrize("patience", [0.0, 5.0])
def test_an_idle_client_that_asks_nothing_is_let_go(talk: RunTalk, patience: float) -> None:
    async def scenario(talk: Talk) -> None:
        await asyncio.sleep(1)
        talk.session.finish(Ending(patience))
        assert await talk.ended() == patience + 2
        assert (talk.client.code, talk.session.why, talk.client.heard) == (0, "", b"")

    talk(scenario)


def test_who_was_answered_as_if_more_could_follow_has_one_more(talk: RunTalk) -> None:
    """The head of an answer was said before anybody knew that it is the last one."""

    async def scenario(talk: Talk) -> None:
        talk.client.say(GET)
        backend = await talk.asked()
        backend.say(OK[:-2])
        await seen(lambda: talk.client.heard)
        talk.session.finish(Ending(5.0))
        backend.say(OK[-2:])
        await talk.answered()
        assert not is_last(talk)
        await asyncio.sleep(4)
        talk.client.say(GET)
        (await talk.asked(2)).say(OK)
        await talk.answered(2)
        assert is_last(talk)
        await talk.ended()

    talk(scenario)


# ---- daemons -----------------------------------------------------------------------------------------------------


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """The head of an answer, in small letters."""
    writer.write(REQUEST)
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    await reader.readexactly(int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0]))
    return head


def test_a_kept_connection_survives_reloads(run: Run) -> None:
    """Twice, so that what took it over is replaced as well."""

    async def scenario(pair: Pair) -> None:
        async with site() as backend:
            port = await pair.start(text := f"{expose(backend, 'http')}\n")
            kept = await asyncio.open_connection("127.0.0.1", port)
            await ask(*kept)
            for seconds in (100, 200):
                await pair.far.reload(pair.far_config(f'{text}limits = {{ time = "{seconds}s" }}'))
                assert b"connection: close" not in await ask(*kept)
            assert pair.exposed.get_status(0)["open"] == pair.exposed.active == 1
            assert pair.far.open_streams == 1
            kept[1].close()
            await until(lambda: not pair.exposed.active)

    run(scenario)


def test_a_service_that_a_reload_removes_answers_once_more(run: Run) -> None:
    async def scenario(pair: Pair) -> None:
        async with site() as backend:
            port = await pair.start(expose(backend, "http"))
            kept = await asyncio.open_connection("127.0.0.1", port)
            await ask(*kept)
            other = expose(backend, "http").replace('"api"', '"other"')
            await pair.far.reload(pair.far_config(other))
            assert b"connection: close" in await ask(*kept)
            assert await kept[0].read() == b""
            kept[1].close()

    run(scenario)


def test_a_daemon_that_drains_answers_once_more(run: Run) -> None:
    async def scenario(pair: Pair) -> None:
        async with site() as backend:
            port = await pair.start(expose(backend, "http"))
            kept = await asyncio.open_connection("127.0.0.1", port)
            await ask(*kept)
            draining = asyncio.ensure_future(pair.far.drain(20))
            while b"connection: close" not in (answer := await ask(*kept)):
                assert answer.startswith(b"http/1.1 404")  # it hasn't told its callers yet
            assert await kept[0].read() == b""
            kept[1].close()
            assert await draining

    run(scenario)


def test_an_end_stays_one_whatever_is_reloaded_then(talk: RunTalk, tmp_path: Path) -> None:
    """Where the daemon that forwards ends, no successor here keeps its stream."""

    async def scenario(talk: Talk) -> None:
        talk.client.say(GET)
        (await talk.asked()).say(OK)
        await talk.answered()
        _, end = another(talk, tmp_path)
        talk.session.finish(Ending(5.0))
        talk.session.finish(end)
        talk.client.say(GET)
        (await talk.asked(2)).say(OK)
        await talk.answered(2)
        assert is_last(talk)

    talk(scenario)


@pytest.mark.parametrize("way", ["upgrade", "drain"])
def test_a_forward_that_ends_has_its_programs_told(run: Run, way: str) -> None:
    """It passes bytes, and cut what programs kept open when `drain` was over, whatever was asked just then."""

    async def scenario(pair: Pair) -> None:
        async with site() as backend:
            port = await pair.start(expose(backend, "http"))
            kept = await asyncio.open_connection("127.0.0.1", port)
            await ask(*kept)
            if way == "upgrade":
                await pair.near.hand_over()
            draining = asyncio.ensure_future(pair.near.drain(20))
            while b"connection: close" not in (answer := await ask(*kept)):
                assert answer.startswith(b"http/1.1 ")
            assert await kept[0].read() == b""
            kept[1].close()
            assert await draining  # long before 20 s are over
            assert pair.exposed.ledger.failed == 0

    run(scenario)


def test_who_comes_through_a_forward_that_ends_hears_it_at_once(run: Run) -> None:
    """As a program that was being connected when the end began."""

    async def scenario(pair: Pair) -> None:
        async with site() as backend:
            port = await pair.start(expose(backend, "http"))
            first = await asyncio.open_connection("127.0.0.1", port)
            await ask(*first)
            await pair.pool.go_away()
            second = await asyncio.open_connection("127.0.0.1", port)
            assert b"connection: close" in await ask(*second)
            for _, writer in (first, second):
                writer.close()

    run(scenario)


def test_a_backend_is_let_go_while_a_client_asks_nothing(talk: RunTalk) -> None:
    """It held a descriptor for as long as the client was silent, or its connection waited to be resumed."""

    async def scenario(talk: Talk) -> None:
        talk.client.say(GET)
        backend = await talk.asked()
        backend.say(OK)
        await talk.answered()
        await asyncio.sleep(3.5)
        assert backend.code is None
        await asyncio.sleep(1)
        assert backend.code == 0
        talk.client.say(GET)
        (await talk.asked(2)).say(OK)
        await talk.answered(2)
        assert len(talk.links) == 2

    talk(scenario)


@pytest.mark.parametrize("given", [Ending(5.0), None], ids=["the daemon ends", "nothing for 75 s"])
def test_what_is_sent_by_the_end_of_its_time_is_answered(talk: Any, given: Any) -> None:
    """Where a machine stood still the time ran out of who asked all the while, and the request was cut off."""

    async def scenario(talk: Any) -> None:
        async def ping() -> None:
            await asyncio.sleep(0.3)
            talk.client.connection.ping = None
            talk.client.say(GET)

        talk.client.connection.ping = ping
        await asyncio.sleep(1)
        if given is not None:
            talk.session.finish(given)
        (await talk.asked()).say(OK)
        await talk.answered()
        if given is not None:
            assert is_last(talk)
        else:
            talk.session.abort(Reason.DRAINING)

    talk(scenario)


def test_what_comes_in_the_turn_in_which_its_time_ends_is_answered(talk: Any) -> None:
    """Whoever waited for it was woken to hear that the time is over."""

    async def scenario(talk: Any) -> None:
        await asyncio.sleep(1)
        talk.client.connection.ping = None
        loop = asyncio.get_running_loop()
        loop.call_at(loop.time() + 5.0 - 1e-12, talk.client.say, GET)
        talk.session.finish(Ending(5.0))
        (await talk.asked()).say(OK)
        await talk.answered()
        assert is_last(talk)

    talk(scenario)
