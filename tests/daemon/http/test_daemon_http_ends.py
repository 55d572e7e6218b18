"""When requests, answers and connections of HTTP end: early, late, by silence, by either side."""

from __future__ import annotations

import asyncio
import errno
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from dtp.daemon.config import model
from dtp.daemon.http.parsing import LEAST
from dtp.daemon.policies import Bounds
from dtp.daemon.policies.methods import MethodsPolicy
from dtp.daemon.reasons import Reason, words
from dtp.daemon.relays.ledger import Ending
from dtp.net.turns.fair_queue import ProcessorAccount
from dtp.session.codes import StreamReset
from dtp.testing.clock import FakeClockLoop

from ..conftest import RunTalk
from ..talk import Talk, seen
from .test_daemon_http_hostile import HEAD, OK, post
from .test_daemon_json_rpc import call

#: Seconds that nothing else waits.
FLUSH = 77.0
GET = b"GET /" + HEAD + b"\r\n"
LAST = b"GET /" + HEAD + b"Connection: close\r\n\r\n"


# ---- by a clock that jumps ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [b"", GET])
def test_a_client_that_asks_nothing_more_is_let_go_after_75_s(talk: RunTalk, first: bytes) -> None:
    """In order, and it is no failure: browsers and pools of clients keep connections for a while."""

    async def scenario(talk: Talk) -> None:
        talk.client.say(first)
        if first:
            (await talk.asked()).say(OK)
        await talk.answered(bool(first))
        assert not first or talk.session._looking.cancelled()
        assert await talk.ended() == 75 + 2  # to hear whether it says something yet
        assert (talk.client.code, talk.session.why) == (0, "")

    talk(scenario)


def test_what_was_read_is_answered_though_the_daemon_ends(talk: RunTalk) -> None:
    """Also while a rate of bytes has it wait."""

    async def scenario(talk: Talk) -> None:
        talk.exposed.compute_delay = lambda caller, size: 3.0
        talk.client.say(GET)
        await asyncio.sleep(1)
        talk.session.finish(Ending())
        (await talk.asked()).say(OK)
        await talk.ended()
        assert talk.client.heard.count(b"HTTP/1.1 200 ") == 1
        assert b"connection: close" in talk.client.heard.lower()

    talk(scenario)


def test_what_cannot_be_understood_is_not_logged(talk: RunTalk) -> None:
    """There may be a secret in it."""

    async def scenario(talk: Talk) -> None:
        talk.client.say(b"GET /" + HEAD + b"Bearer s3cret\r\n\r\n")
        await talk.ended()
        assert talk.client.heard.startswith(b"HTTP/1.1 400 ")
        assert talk.session.why == "the request can't be understood: illegal header line"

    talk(scenario)


def test_a_head_has_10_s(talk: RunTalk) -> None:
    async def scenario(talk: Talk) -> None:
        talk.client.say(GET[:10])
        for _ in range(9):
            await asyncio.sleep(1)
            talk.client.say(b"x")
        assert await talk.ended() == 1
        assert talk.client.code == Reason.IDLE

    talk(scenario)


def test_who_waits_here_does_not_trickle(talk: RunTalk) -> None:
    """For others, whose heads are understood first, or for its rate."""

    async def scenario(talk: Talk) -> None:
        waiting = []

        async def turn(size: int, who: ProcessorAccount) -> None:
            waiting.append(size)
            await asyncio.sleep(60)

        await asyncio.sleep(0)
        talk.session._parsing = SimpleNamespace(wait_turn=turn)
        talk.exposed.compute_delay = lambda caller, size: 30.0 * bool(size)
        talk.client.say(GET[:-1])
        await seen(lambda: waiting)
        await asyncio.sleep(59)
        talk.client.say(GET[-1:])
        (await talk.asked()).say(OK)
        await talk.answered()
        assert waiting[:3] == [len(GET) // 16, LEAST, 0]  # and the end, which is nothing
        assert LEAST in waiting[3:]  # the answer's head is understood in turns, too

    talk(scenario)


@pytest.mark.parametrize("way", ["talk", "reset"])
def test_who_goes_on_talking_hears_the_last_words_for_2_s(talk: RunTalk, way: str) -> None:
    """Who has had enough may go at once: all was said."""

    async def scenario(talk: Talk) -> None:
        talk.client.say(LAST)
        (await talk.asked()).say(OK)
        await talk.answered()
        talk.client.say(b"and")
        if way == "reset":
            talk.client.mouth.set_exception(StreamReset(Reason.CLIENT_GONE))
        assert await talk.ended() == (2 if way == "talk" else 0)
        assert (talk.client.code, talk.session.why) == (0, "")

    talk(scenario)


def test_a_silent_backend_is_waited_for_as_long_as_its_client_is_there(talk: RunTalk) -> None:
    """As with long polls; who has said its end may yet want the answer."""

    async def scenario(talk: Talk) -> None:
        talk.client.say(GET)
        backend = await talk.asked()
        await asyncio.sleep(1000)
        backend.say(OK)
        await talk.answered()
        talk.client.say(GET)
        await talk.asked(2)
        talk.client.mouth.feed_eof()
        await asyncio.sleep(70)
        talk.links[-1].say(OK)
        await talk.answered(2)
        assert await talk.ended() == 0
        assert talk.client.code == 0

    talk(scenario)


def test_no_request_is_read_of_who_has_given_up(talk: RunTalk) -> None:
    """Requests of a flood wait here, and most are given up by the time it is their turn."""

    async def scenario(talk: Talk) -> None:
        talk.client.write_error = ConnectionResetError()
        talk.client.say(GET)
        await talk.ended()
        assert not talk.links
        assert talk.exposed.requests.get_status()["count"] == 0
        assert talk.session.why == words(Reason.CLIENT_GONE)

    talk(scenario)


@pytest.mark.parametrize(("way", "seconds"), [("end", 75), ("reset", 0)])
def test_a_silent_backend_is_left_when_its_client_is_gone(talk: RunTalk, way: str, seconds: int) -> None:
    """One of which nothing is heard but its end is gone after a while; one that takes nothing more is, at once."""

    async def scenario(talk: Talk) -> None:
        talk.client.say(GET)
        backend = await talk.asked()
        if way == "end":
            talk.client.mouth.feed_eof()
        else:
            talk.client.write_error = ConnectionResetError()
        took = await talk.ended()
        assert any(
            took == seconds + late for late in (0.1 * step for step in range(11))
        )  # it looks every second
        assert talk.session.why == words(Reason.CLIENT_GONE)
        assert backend.code == 0

    talk(scenario)


def test_a_loop_that_is_late_does_not_look_at_all_requests_at_once_ever_after(talk: RunTalk) -> None:
    """Each keeps its own part of the second: hundreds were looked at in one turn, for 3 ms."""

    async def scenario(talk: Talk) -> None:
        talk.client.say(GET)
        await talk.asked()
        loop = asyncio.get_running_loop()
        assert isinstance(loop, FakeClockLoop)
        begun = loop.time()
        loop.advance(3.3)  # looks were due behind 1 s, 2 s and 3 s
        await asyncio.sleep(0.1)
        talk.client.write_error = ConnectionResetError()
        await talk.ended()
        assert loop.time() - begun == pytest.approx(4, abs=0.1)

    talk(scenario)


def test_a_rule_about_silence_holds_for_backends(talk: RunTalk) -> None:
    async def scenario(talk: Talk) -> None:
        talk.client.say(GET)
        backend = await talk.asked()
        await asyncio.sleep(8)
        backend.say(b"HTTP/1.1 200 OK\r\n")
        talk.client.mouth.feed_eof()
        assert await talk.ended() == 9
        assert talk.client.heard.startswith(b"HTTP/1.1 504 ")
        assert (talk.client.code, talk.session.why) == (0, words(Reason.IDLE))

    talk(scenario, bounds=Bounds(idle=9))


def test_a_rule_about_silence_holds_for_who_takes_nothing(talk: RunTalk) -> None:
    """Then nobody reads from either side; it looks every second."""

    async def scenario(talk: Talk) -> None:
        talk.client.drain = asyncio.Event().wait
        talk.client.say(GET)
        (await talk.asked()).say(OK)
        assert await talk.ended() == 10
        assert (talk.client.code, talk.session.why) == (Reason.IDLE, words(Reason.IDLE))

    talk(scenario, bounds=Bounds(idle=9))


@pytest.mark.parametrize("asked", [b"GET a" + HEAD + b"\r\n", b"GET /" + HEAD + b"no field\r\n\r\n"])
@pytest.mark.parametrize(
    ("bounds", "took", "reason"),
    [(Bounds(idle=9), 10, Reason.IDLE), (Bounds(time=7), 7, Reason.TIME)],
)
def test_who_is_refused_and_takes_nothing_is_not_waited_for(
    talk: RunTalk, asked: bytes, bounds: Bounds, took: int, reason: Reason
) -> None:
    async def scenario(talk: Talk) -> None:
        talk.client.drain = asyncio.Event().wait
        talk.client.say(asked)
        assert await talk.ended() == took
        assert talk.client.heard.startswith(b"HTTP/1.1 400 ")
        assert talk.client.code == reason

    talk(scenario, bounds=bounds)


def test_who_takes_nothing_of_a_backends_failure_is_not_waited_for(talk: RunTalk) -> None:
    async def scenario(talk: Talk) -> None:
        talk.client.drain = asyncio.Event().wait
        talk.client.say(GET)
        (await talk.asked()).mouth.feed_eof()
        assert await talk.ended() == 7
        assert talk.client.heard.startswith(b"HTTP/1.1 502 ")

    talk(scenario, bounds=Bounds(time=7))


def test_bandwidth_pauses_in_both_directions(talk: RunTalk) -> None:
    """What was read waits here for so long as the rate says, and goes on whole."""

    async def scenario(talk: Talk) -> None:
        talk.exposed.count_moved = talk.exposed.compute_delay = lambda caller, size: size * 0.1
        loop = asyncio.get_running_loop()
        talk.client.say(GET)
        backend = await talk.asked()
        assert loop.time() == pytest.approx(0.1 * len(GET), abs=0.1)
        backend.say(OK)
        await talk.answered()
        assert loop.time() == pytest.approx(0.1 * (len(GET) + len(OK)), abs=0.1)

    talk(scenario)


@pytest.mark.parametrize("way", ["alone", "beside a body"])
def test_who_waits_for_its_own_rate_is_not_silent(talk: RunTalk, way: str) -> None:
    """It is the daemon that holds the bytes back, longer than the rule about silence lets anyone be quiet."""

    async def scenario(talk: Talk) -> None:
        head = b"Content-Length: 2\r\n\r\n"
        talk.client.say(b"POST /" + HEAD + head + b"a" if way == "beside a body" else GET)
        backend = await talk.asked()
        waits = [20.0]
        talk.exposed.count_moved = lambda caller, size: waits.pop() if waits else None  # type: ignore[return-value]
        if way == "alone":
            backend.say(OK)
        else:
            talk.client.say(b"b")  # waits, and the answer doesn't, which comes meanwhile
            await seen(lambda: not waits)
            backend.say(OK[:20])
            await asyncio.sleep(21)
            backend.say(OK[20:])
        await talk.answered()
        assert talk.client.heard.endswith(b"\r\n\r\nok")

    talk(scenario, bounds=Bounds(idle=9))


@pytest.mark.parametrize("kind", ["http", "json-rpc"])
def test_each_request_has_its_time(talk: RunTalk, kind: str) -> None:
    """A connection that is kept may last longer than one request; the time for a silent client isn't its."""

    async def scenario(talk: Talk) -> None:
        asked = post(json.dumps(call("a")).encode())
        for number in range(1, 4):
            talk.client.say(asked)
            backend = await talk.asked(number)
            await asyncio.sleep(7)
            backend.say(OK)
            await talk.answered(number)
            await asyncio.sleep(20)
        talk.client.say(asked)
        await talk.asked(4)
        talk.client.mouth.feed_eof()  # and is told why, not cut off
        assert await talk.ended() == 9
        assert talk.client.heard.rpartition(b"HTTP/1.1 ")[2].startswith(b"504 ")
        assert (talk.client.code, talk.session.why) == (0, words(Reason.TIME))
        assert talk.exposed.requests.get_status()["statuses"] == {"2xx": 3, "5xx": 1}

    talk(scenario, kind=kind, bounds=Bounds(time=9))


@pytest.mark.parametrize("bounds", [Bounds(time=9), Bounds(idle=9)])
@pytest.mark.parametrize("asked", [GET, b"POST /" + HEAD + b"Content-Length: 1\r\n\r\na"])
def test_whose_backend_says_nothing_is_told_so(talk: RunTalk, asked: bytes, bounds: Bounds) -> None:
    async def scenario(talk: Talk) -> None:
        talk.client.say(asked)
        backend = await talk.asked()
        await talk.refused()
        assert talk.client.heard.startswith(b"HTTP/1.1 504 ")
        assert b"connection: close\r\n" in talk.client.heard.lower()
        assert backend.code == 0  # what it may yet say is nobody's
        talk.client.mouth.feed_eof()
        await talk.ended()
        assert talk.client.code == 0

    talk(scenario, bounds=bounds)


@pytest.mark.parametrize("answered", [b"", OK[:-1]])
def test_who_is_too_slow_or_has_heard_a_part_is_cut_off(talk: RunTalk, answered: bytes) -> None:
    """A body that trickles in, and an answer that can't become another one."""

    async def scenario(talk: Talk) -> None:
        length = b"Content-Length: 9\r\n\r\n" if not answered else b"Content-Length: 0\r\n\r\n"
        talk.client.say(b"POST /" + HEAD + length + (b"a" if not answered else b""))
        (await talk.asked()).say(answered)
        assert await talk.ended() == 9
        assert talk.client.code == Reason.TIME
        assert b" 504 " not in talk.client.heard

    talk(scenario, bounds=Bounds(time=9))


@pytest.mark.parametrize("bounds", [Bounds(), Bounds(time=100, idle=100)])
@pytest.mark.parametrize("code", [errno.ETIMEDOUT, errno.EHOSTUNREACH])
def test_a_time_out_of_the_system_is_the_backends_fault(talk: RunTalk, code: int, bounds: Bounds) -> None:
    """Python calls both by one name, and it was told as a limit of the rules."""

    async def scenario(talk: Talk) -> None:
        talk.client.say(GET)
        backend = await talk.asked()
        backend.mouth.set_exception(OSError(code, "away"))
        await talk.ended()
        assert talk.client.heard.startswith(b"HTTP/1.1 502 ")
        assert talk.session.why == words(Reason.BACKEND_BROKE)

    talk(scenario, bounds=bounds)


# ---- others meanwhile --------------------------------------------------------------------------------------------


async def turns(true: Callable[..., Any]) -> int:
    """How often others have their turn until it is so."""
    count = 0
    while not true():
        count += 1
        await asyncio.sleep(0)
    return count


TINY = b"1\r\nx\r\n" * 20_000


def test_tiny_chunks_hold_up_nobody(talk: RunTalk) -> None:
    """Those of one read go on together; 2.4 MB of them were 3 s in which nobody else was heard."""

    async def scenario(talk: Talk) -> None:
        talk.client.say(b"POST /" + HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + TINY + b"0\r\n\r\n")
        await turns(lambda: talk.links)
        (backend,) = talk.links
        assert await turns(lambda: backend.heard.endswith(b"\r\n0\r\n\r\n")) > 20_000 / 256 - 5
        body = backend.heard.partition(b"\r\n\r\n")[2]
        assert body.count(b"x") == 20_000
        assert body.count(b"\r\n") < 2 * 20_000 / 200

    talk(scenario)


def test_tiny_chunks_of_a_call_hold_up_nobody(talk: RunTalk) -> None:
    async def scenario(talk: Talk) -> None:
        talk.client.say(b"POST /" + HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + TINY + b"0\r\n\r\n")
        assert await turns(lambda: b"is not JSON" in talk.client.heard) > 20_000 / 256 - 5

    talk(scenario, kind="json-rpc")


def test_tiny_chunks_of_a_backend_hold_up_nobody(talk: RunTalk) -> None:
    async def scenario(talk: Talk) -> None:
        talk.client.say(GET)
        backend = await talk.asked()
        backend.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + TINY + b"0\r\n\r\n")
        assert await turns(lambda: talk.client.heard.endswith(b"\r\n0\r\n\r\n")) > 20_000 / 256 - 5
        assert talk.client.heard.count(b"x") == 20_000

    talk(scenario)


def test_requests_and_bodies_in_a_row_hold_up_nobody(talk: RunTalk) -> None:
    async def scenario(talk: Talk) -> None:
        talk.client.say((b"PUT /" + HEAD + b"\r\n") * 500)
        assert await turns(lambda: talk.client.heard.count(b"HTTP/1.1 403 ") == 500) >= 499
        talk.client.say(b"POST /" + HEAD + b"Content-Length: 10000000\r\n\r\n" + bytes(10_000_000))
        await turns(lambda: talk.links)
        assert await turns(lambda: len(talk.links[0].heard) > 10_000_000) > 100

    talk(scenario, policies=[MethodsPolicy(model.MethodRule(deny=("PUT",)))])


def test_who_is_waited_for_holds_up_nobody(talk: RunTalk) -> None:
    """Others had their turn meanwhile: none is left to them beside it."""

    async def scenario(talk: Talk) -> None:
        talk.client.say(b"POST /" + HEAD + b"Content-Length: 10000000\r\n\r\n")
        backend = await talk.asked()

        async def passed() -> int:
            length = len(backend.heard) + 48 * 1024
            talk.client.say(bytes(48 * 1024))
            return await turns(lambda: len(backend.heard) >= length)

        assert len({await passed() for _ in range(12)}) == 1

    talk(scenario)


def test_a_fault_behind_what_came_in_the_same_read(talk: RunTalk) -> None:
    async def scenario(talk: Talk) -> None:
        talk.client.say(b"POST /" + HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\nno\r\n")
        await talk.ended()
        assert talk.client.heard.startswith(b"HTTP/1.1 400 ")
        assert talk.links[0].heard.endswith(b"\r\n\r\n1\r\na\r\n")

    talk(scenario)


def test_what_came_in_front_of_a_fault_goes_on(talk: RunTalk) -> None:
    """In the same read, too."""

    async def scenario(talk: Talk) -> None:
        talk.client.say(GET)
        backend = await talk.asked()
        backend.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n1\r\nb\r\nno\r\n")
        await talk.ended()
        assert talk.client.heard.endswith(b"\r\n\r\n2\r\nab\r\n")
        assert talk.client.code == Reason.BACKEND_BROKE

    talk(scenario)


# ---- kept connections --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seconds", "links"), [(3.9, 1), (4.1, 2)])
def test_a_backends_connection_is_used_again_within_4_s(talk: RunTalk, seconds: float, links: int) -> None:
    """Node's servers close theirs after 5: a request that meets the end could not be asked again."""

    async def scenario(talk: Talk) -> None:
        talk.client.say(GET)
        (await talk.asked()).say(OK)
        await talk.answered()
        await asyncio.sleep(seconds)
        talk.client.say(GET)
        (await talk.asked(2)).say(OK)
        await talk.answered(2)
        assert len(talk.links) == links

    talk(scenario)


@pytest.mark.parametrize("way", ["end", "reset"])
def test_a_backends_connection_that_has_ended_is_not_used_again(talk: RunTalk, way: str) -> None:
    """A POST could not be asked a second time."""

    async def scenario(talk: Talk) -> None:
        talk.client.say(GET)
        backend = await talk.asked()
        backend.say(OK)
        await talk.answered()
        if way == "end":
            backend.mouth.feed_eof()
        else:
            backend.is_closing = lambda: True
        talk.client.say(post(b"x"))
        (await talk.asked(2)).say(OK)
        await talk.answered(2)
        assert len(talk.links) == 2

    talk(scenario)


@pytest.mark.parametrize("way", ["answer", "408", "reset"])
@pytest.mark.parametrize("asked", [GET, post(b"x")])
def test_what_a_kept_connection_said_meanwhile_answers_nothing(talk: RunTalk, way: str, asked: bytes) -> None:
    """It would be taken for the answer to the next request, and each one after it would get the one before."""

    async def scenario(talk: Talk) -> None:
        talk.client.say(GET)
        backend = await talk.asked()
        backend.say(OK)
        await talk.answered()
        if way == "answer":
            backend.say(OK[:-2] + b"no")
        elif way == "408":
            backend.say(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
            backend.mouth.feed_eof()
        else:
            backend.mouth.set_exception(ConnectionResetError())
        talk.client.say(asked)
        (await talk.asked(2)).say(OK)
        await talk.answered(2)
        assert len(talk.links) == 2
        assert talk.client.heard.count(b"HTTP/1.1 ") == 2
        assert backend.code == 0

    talk(scenario)


@pytest.mark.parametrize(("kind", "asks"), [("http", GET), ("json-rpc", post(b'{"method":"a","id":1}'))])
def test_a_rule_about_bytes_ends_who_waits(talk: RunTalk, kind: str, asks: bytes) -> None:
    """Of what was let in; requests themselves are answered, and what is there already of an answer goes on: the
    backend has done what was asked."""

    async def scenario(talk: Talk) -> None:
        talk.exposed.count_moved = lambda caller, size: Reason.QUOTA
        for number in (1, 2):
            talk.client.say(asks)
            (await talk.asked(number)).say(OK)
            await talk.answered(number)
        talk.client.say(asks)
        backend = await talk.asked(3)
        backend.say(OK[:-1])
        assert talk.client.code is None
        assert await talk.ended() == 0
        assert talk.client.heard.endswith(OK[-4:-1])
        talk.client.heard = b""
        assert (talk.client.code, talk.session.why) == (Reason.QUOTA, words(Reason.QUOTA))

    talk(scenario, kind=kind)


def test_of_an_answer_beyond_what_a_request_may_have_nothing_is_heard(talk: RunTalk) -> None:
    async def scenario(talk: Talk) -> None:
        talk.client.say(GET)
        (await talk.asked()).say(OK)
        assert await talk.ended() == 0
        assert (talk.client.heard, talk.client.code) == (b"", Reason.SIZE)

    talk(scenario, bounds=Bounds(data=len(GET) + len(OK) - 1))


@pytest.mark.parametrize(("size", "stays"), [(256 * 1024, True), (256 * 1024 + 1, False)])
def test_so_much_is_read_of_a_body_that_nobody_wants(talk: RunTalk, size: int, stays: bool) -> None:
    async def scenario(talk: Talk) -> None:
        talk.client.say(b"POST /" + HEAD + b"Content-Length: %d\r\n\r\n" % size + bytes(size) + GET)
        if stays:
            (await talk.asked()).say(OK)
            await talk.answered()
        else:
            await talk.ended()
        assert talk.client.heard.count(b" 403 ") == 1
        assert (b"\r\nconnection: close\r\n" in talk.client.heard) is not stays  # or it would be used again
        assert len(talk.links) == stays

    talk(scenario, policies=[MethodsPolicy(model.MethodRule(deny=("POST",)))])


@pytest.mark.parametrize(("size", "passes"), [(16 << 20, True), ((16 << 20) + 1, False)])
def test_an_answer_that_has_to_be_kept_whole_has_a_bound(talk: RunTalk, size: int, passes: bool) -> None:
    """Of a batch of which a part was refused."""

    async def scenario(talk: Talk) -> None:
        talk.client.say(post(json.dumps([call("a"), call("b", 2)]).encode()))
        answer = b'{"id":1,"result":"' + b"x" * (size - 20) + b'"}'
        backend = await talk.asked()
        asked = talk.session.kept
        backend.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(answer) + answer[:100_000])
        await seen(lambda: talk.session.kept == asked + 100_000)
        backend.say(answer[100_000:])
        if passes:
            await seen(lambda: talk.client.heard.endswith(b"}]"))
            found = json.loads(talk.client.heard.partition(b"\r\n\r\n")[2])
            assert [one["id"] for one in found] == [1, 2]
            talk.client.say(GET)
            await seen(lambda: b"405" in talk.client.heard[-500:])
            assert talk.session.kept == 0
        else:
            await talk.ended()
            found = json.loads(talk.client.heard.partition(b"\r\n\r\n")[2])
            assert {one["id"]: "error" in one for one in found} == {1: True, 2: True}
            assert talk.client.code == 0

    talk(scenario, kind="json-rpc", policies=[MethodsPolicy(model.MethodRule(deny=("b",)))])
