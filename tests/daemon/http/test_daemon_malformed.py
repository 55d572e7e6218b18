"""Callers who say what can't be understood, again and again: they wait, and nobody else does."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtp.daemon.http.frames import PREFACE
from dtp.daemon.http.malformed import BURST, LONGEST, PER_SECOND, MalformedRequests
from dtp.daemon.http.parsing import LEAST, PER_TURN
from dtp.daemon.policies import Caller
from dtp.daemon.policies.base import Bounds
from dtp.daemon.relays.expose import Exposed
from dtp.identity import Identity
from dtp.identity.peer_id import PeerId
from dtp.net.turns.clock import TurnClock
from dtp.testing import clock

from ..conftest import RunTalk, config
from ..talk import Talk
from .test_daemon_http import CALLER, expose

OTHERS = [Identity(bytes([number]) * 32).id for number in range(70, 75)]


def count_often(counted: MalformedRequests, caller: Caller, times: int, now: float = 0.0) -> list[float]:
    return [counted.count_request(caller, now) for _ in range(times)]


def test_a_burst_is_answered_at_once_and_what_follows_a_part_of_a_second_later_each() -> None:
    delays = count_often(MalformedRequests(), CALLER, BURST + 5)
    assert delays == [0.0] * BURST + [number / PER_SECOND for number in range(1, 6)]


def test_nobody_waits_longer_than_that_however_many_there_were() -> None:
    counted = MalformedRequests()
    assert count_often(counted, CALLER, 10_000)[-1] == LONGEST
    assert counted.count_request(CALLER, LONGEST + BURST / PER_SECOND) == 0.0  # nor remembers it longer


@pytest.mark.parametrize("same", ["peer", "source"])
def test_neither_another_identity_nor_another_address_begins_anew(same: str) -> None:
    counted = MalformedRequests()
    count_often(counted, CALLER, BURST)
    other = replace(CALLER, **({"source": "198.51.100.9"} if same == "peer" else {"peer": OTHERS[0]}))
    assert counted.count_request(other, 0.0) > 0
    assert counted.count_request(Caller(OTHERS[1], "", "203.0.113.1"), 0.0) == 0.0


def test_who_has_many_addresses_of_one_network_is_one() -> None:
    counted = MalformedRequests()
    for number in range(BURST):
        counted.count_request(Caller(OTHERS[0], "", f"2001:db8::{number:x}"), 0.0)
    assert counted.count_request(Caller(OTHERS[1], "", "2001:db8::ffff"), 0.0) > 0
    assert counted.count_request(Caller(OTHERS[2], "", "2001:db8:0:1::1"), 0.0) == 0


def test_no_more_are_known_than_there_is_room_for() -> None:
    counted = MalformedRequests()
    for number in range(10_000):
        counted.count_request(Caller(OTHERS[0], "", f"10.0.{number >> 8}.{number & 255}"), 0.0)
    assert len(counted._empty_at) <= 4096
    assert counted.count_request(Caller(OTHERS[0], "", "192.0.2.1"), 0.0) == LONGEST  # heard of most lately


@given(
    st.lists(
        st.tuples(
            st.sampled_from(OTHERS[:2]), st.sampled_from("ab"), st.sampled_from([0.0, 0.03, 1.0, 20.0])
        ),
        max_size=400,
    )
)
def test_delays_are_those_of_leaking_buckets(events: list[tuple[PeerId, str, float]]) -> None:
    """A second way to say it: a level for each that drops, against the time at which it is empty."""
    levels: Counter[Any]
    counted, levels, now, before = MalformedRequests(), Counter(), 0.0, 0.0
    for peer, source, passed in events:
        now += passed
        for key in levels:
            levels[key] = max(0.0, levels[key] - (now - before) * PER_SECOND)
        before = now
        wanted = 0.0
        for key in (peer, source):
            levels[key] = min(levels[key] + 1, BURST + LONGEST * PER_SECOND)
            wanted = max(wanted, (levels[key] - BURST) / PER_SECOND)
        assert counted.count_request(Caller(peer, "", source), now) == pytest.approx(
            max(0.0, wanted), abs=1e-6
        )


# ---- sessions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "said", "told"),
    [
        ("http", b"GE\x01T / HTTP/1.1\r\n\r\n", b" 400 "),
        ("http", b"GET a HTTP/1.1\r\nHost: x\r\n\r\n", b" 400 "),
        ("json-rpc", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n{", b" 400 "),
        ("grpc", PREFACE + b"\0\0\1\1\4\0\0\0\1\xff", b"\0\0"),
    ],
)
def test_the_answer_waits_once_there_were_many(talk: RunTalk, kind: str, said: bytes, told: bytes) -> None:
    async def scenario(talk: Talk) -> None:
        assert talk.exposed.malformed.count_request(CALLER, 0.0) == 0
        count_often(talk.exposed.malformed, CALLER, BURST + PER_SECOND, asyncio.get_running_loop().time())
        talk.client.say(said)
        await asyncio.sleep(0.9)
        assert told not in talk.client.heard
        await asyncio.sleep(0.3)
        assert told in talk.client.heard

    talk(scenario, kind=kind)


def test_streams_begin_in_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each takes a part of a millisecond until it is answered; who opens many has the others wait for few of them."""
    turns, begun = itertools.count(), []

    class Session:
        def __init__(self, exposed: Exposed, caller: Caller, stream: SimpleNamespace, bounds: Bounds) -> None:
            begun.append((turn, caller))

    async def main() -> None:
        nonlocal turn
        text = f'[daemon]\nlisten = ["tcp://127.0.0.1:0"]\n{expose(1, "http")}'
        exposed = Exposed(config(tmp_path, text).expose[0], ())
        monkeypatch.setattr(exposed, "_conversation", Session)
        other = replace(CALLER, peer=OTHERS[0])
        callers = [CALLER] * 100 + [other]
        account = TurnClock.of_loop(asyncio.get_running_loop()).shares.get_account

        def stream(caller: Caller) -> SimpleNamespace:
            connection = SimpleNamespace(account=account("", caller.peer), peer_away=False)
            return SimpleNamespace(connection=connection)

        tasks = [
            asyncio.ensure_future(exposed._run_conversation(caller, stream(caller), None))  # type: ignore[arg-type]
            for caller in callers
        ]
        for turn in turns:  # noqa: B007 - told to sessions
            await asyncio.sleep(0)
            if len(begun) == len(callers):
                break
        await asyncio.gather(*tasks, return_exceptions=True)

    turn = 0
    clock.run(main())
    by_turn = Counter(at for at, _ in begun)
    assert max(by_turn.values()) <= PER_TURN // LEAST
    first = min(by_turn)
    assert next(at for at, caller in begun if caller is not CALLER) <= first + 3


@pytest.mark.parametrize(
    ("kind", "loaded"),
    [
        ("tcp", ""),
        ("http", "session"),
        ("websocket", "session"),
        ("json-rpc", "rpc_session"),
        ("grpc", "grpc_session"),
    ],
)
def test_a_parser_is_loaded_before_the_first_stream(kind: str, loaded: str) -> None:
    """It takes 14 ms, in which nobody was served; a daemon that passes bytes on needs none."""
    code = f"""
import sys
from dtp.daemon.config.model import Expose
from dtp.daemon.relays.expose import Exposed
found = "dtp.daemon.http.session", "dtp.daemon.http.rpc_session", "dtp.daemon.http.grpc_session"
assert not sys.modules.keys() & set(found)
Exposed(Expose("api", (), kind={kind!r}), ())
print(*sorted(sys.modules.keys() & set(found)))
"""
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    names = done.stdout.split()
    assert (f"dtp.daemon.http.{loaded}" in names) if loaded else not names
