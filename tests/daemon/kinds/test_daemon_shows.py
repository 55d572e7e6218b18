"""A service of kind `broadcast`: `dtpd` makes a show, or passes one on, over reloads, upgrades, and kills."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dtp.broadcast.hearing import listen_to
from dtp.broadcast.parents import Patience
from dtp.broadcast.places import Place
from dtp.broadcast.producing import Broadcast
from dtp.broadcast.recording import Recording
from dtp.daemon.config.model import Config
from dtp.daemon.config.reading import ConfigMistakes
from dtp.daemon.server import Daemon
from dtp.daemon.web.metrics import exposition
from dtp.identity import Identity

from .. import programs
from ..conftest import FAR, NEAR, OTHER, PATIENCE, config, listener_of, run_scenario, serving
from ..programs import free_port, is_alive, place  # noqa: F401  # a fixture

#: Writes a line each 20 ms, up to as many as it is told; then it stays, or ends.
COUNTER = "import itertools, time; [(print(n, flush=True), time.sleep(0.02)) for n in itertools.count()]"
STAYS = "import time; print(*range({}), sep=chr(10), flush=True); time.sleep(9999)"
ENDS = "print(*range({}), sep=chr(10), flush=True)"
HASTY = Patience(answer=5.0, silence=1.0, late=30.0, anybody=60.0)


def exposing(
    tmp_path: Path, show: str, top: str = "", listen: str = "tcp://127.0.0.1:0", rules: str = ""
) -> Config:
    expose = f'[[expose]]\nservice = "show"\nkind = "broadcast"\nallow = ["*"]\n{rules}\n[expose.broadcast]\n{show}'
    return config(tmp_path, f'[daemon]\nlisten = ["{listen}"]\n{top}\n{expose}')


def origin(code: str, more: str = "") -> str:
    words = json.dumps([sys.executable, "-c", code])
    return f'command = {words}\ncut = "lines"\nstore = "shows"\n{more}\n'


def edge(address: str, more: str = "") -> str:
    return f'from = ["{address}"]\n{more}\n'


async def hear(address: str, count: int, *, start: int | None = 0, **options: Any) -> list[str]:
    """The first `count` lines from segment `start` on, each of which has to be there."""
    lines = []
    async for each in listen_to(address, start=start, patience=HASTY, **options):
        assert not each.missed
        lines.append(each.data.decode().strip())
        if len(lines) == count:
            break
    return lines


def told(daemon: Daemon) -> dict[str, Any]:
    (status,) = daemon.get_status()["exposed"]
    found: dict[str, Any] = status["broadcast"]
    return found


async def until(condition: Callable[..., Any]) -> None:
    while not condition():  # noqa: ASYNC110  # what is looked at tells nobody
        await asyncio.sleep(0.01)


@pytest.mark.slow
def test_an_edge_hears_a_feed_by_its_topic_and_passes_it_on_to_who_has_none(tmp_path: Path) -> None:
    async def scenario() -> None:
        here = Place(listen=("tcp://127.0.0.1:0",))
        async with Broadcast(identity=FAR, place=here, topic="prices", fan_out=0) as producer:
            (address,) = producer.addresses
            async with serving(exposing(tmp_path, edge(address, 'topic = "prices"')), NEAR) as between:
                there = str(listener_of(between).address("show"))
                listening = asyncio.ensure_future(hear(there, 3, start=None, producer=FAR.id))
                made = 0
                while not listening.done():
                    await producer.write(b"%d\n" % made)
                    made += 1
                    await asyncio.sleep(0.05)
                first, *following = map(int, await listening)
                assert following == [first + 1, first + 2]
                assert producer.listeners == 0

    run_scenario(scenario)


NODE = "[node]\ndiscover = []\nstore = 'peers'"


@pytest.mark.slow
def test_an_origin_is_a_topic_of_the_daemons_node_and_goes_on_after_a_reload(tmp_path: Path) -> None:
    async def scenario() -> None:
        def made(more: str = "") -> Any:
            return exposing(tmp_path, origin(COUNTER, f'topic = "prices"\nfan-out = 1\n{more}'), NODE)

        async with serving(made()) as daemon:
            address = str(listener_of(daemon).address("show"))
            first, *following = map(int, await hear(address, 5, start=None, producer=FAR.id, topic="prices"))
            assert following == list(range(first + 1, first + 5))
            status = told(daemon)
            assert (status["topic"], status["listeners"], status["why"]) == ("prices", 0, "")
            await daemon.reload(made('title = "other"'))  # the topic is that of the show that ended
            await until(lambda: told(daemon)["listeners"] == 0 and told(daemon)["segments"] > 0)
            assert len(await hear(address, 5, start=None, producer=FAR.id, topic="prices")) == 5

    run_scenario(scenario)


def test_an_origin_is_heard_through_an_edge_and_both_tell_how_they_stand(tmp_path: Path) -> None:
    async def scenario() -> None:
        settings = exposing(tmp_path, origin(STAYS.format(30), 'title = "numbers"\nrecord = "kept"'))
        async with serving(settings) as producer:
            address = str(listener_of(producer).address("show"))
            relayed = edge(address, f'producer = "{FAR.id}"\nfan-out = 7')
            async with serving(exposing(tmp_path, relayed), NEAR) as between:
                there = str(listener_of(between).address("show"))
                lines = await hear(there, 30, producer=FAR.id)
                assert lines == [str(each) for each in range(30)]
                seen, relays = told(producer), told(between)
                assert (seen["role"], relays["role"]) == ("origin", "edge")
                assert (seen["title"], relays["segments"]) == ("numbers", 30)
                assert (relays["fan_out"], relays["why"]) == (7, "")
                assert relays["path"] == [str(FAR.id), str(NEAR.id)]
                metrics = exposition(between).decode()
                assert 'dtpd_show_segments_total{role="edge",service="show"} 30.0' in metrics
                assert 'dtpd_show_up{role="edge",service="show"} 1.0' in metrics
        (kept,) = (tmp_path / "kept").iterdir()
        recording = Recording(kept)
        with contextlib.closing(recording):
            assert b"".join(data for _, data in recording.segments()).split() == [
                str(each).encode() for each in range(30)
            ]

    run_scenario(scenario)


def test_a_restart_and_a_command_that_ends_go_on_with_one_chain(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(exposing(tmp_path, origin(ENDS.format(2)))) as daemon:
            address = str(listener_of(daemon).address("show"))
            assert await hear(address, 6) == ["0", "1"] * 3  # it was run again
            before = told(daemon)
            assert before["segments"] >= 6
        async with serving(exposing(tmp_path, origin(STAYS.format(3)))) as daemon:
            await until(lambda: told(daemon)["segments"] >= before["segments"] + 3)
            after = told(daemon)
            assert (after["show"], after["why"]) == (before["show"], "")
            address = str(listener_of(daemon).address("show"))
            assert await hear(address, 3, start=after["segments"] - 3) == ["0", "1", "2"]

    run_scenario(scenario)


def test_a_command_that_cant_be_run_is_said_and_so_is_a_producer_that_isnt_there(tmp_path: Path) -> None:
    async def scenario() -> None:
        missing = 'command = "/nowhere/encoder"\nstore = "shows"\n'
        async with serving(exposing(tmp_path, missing)) as daemon:
            await until(lambda: "can't run /nowhere/encoder" in told(daemon)["why"])
        nobody = edge(f"dtp+tcp://{OTHER.id}@127.0.0.1:{free_port()}/show")
        async with serving(exposing(tmp_path, nobody)) as daemon:
            assert told(daemon)["listeners"] == 0
            assert 'dtpd_show_segments_total{role="edge",service="show"} 0.0' in exposition(daemon).decode()

    run_scenario(scenario)


def test_a_second_daemon_with_the_same_store_waits_and_says_why(tmp_path: Path) -> None:
    async def scenario() -> None:
        settings = exposing(tmp_path, origin(STAYS.format(3)))
        async with serving(settings) as first, serving(settings) as second:
            await until(lambda: "another process broadcasts the show" in told(second)["why"])
            await until(lambda: told(first)["segments"] == 3)
            await first.close()
            await until(lambda: told(second)["segments"] == 6 and not told(second)["why"])

    run_scenario(scenario)


@pytest.mark.slow
def test_a_reload_of_rules_keeps_the_show_and_one_of_the_show_begins_it_anew(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(exposing(tmp_path, origin(COUNTER))) as daemon:
            address = str(listener_of(daemon).address("show"))
            heard = asyncio.ensure_future(hear(address, 200))
            await until(lambda: told(daemon)["listeners"] == 1)
            before = told(daemon)["segments"]
            await daemon.reload(exposing(tmp_path, origin(COUNTER), rules="concurrency = {service = 1000}"))
            assert told(daemon)["segments"] >= before
            assert await heard == [str(each) for each in range(200)]
            await daemon.reload(exposing(tmp_path, origin(STAYS.format(2), 'title = "other"')))
            await until(lambda: told(daemon)["segments"] > 200)

    run_scenario(scenario)


def test_a_show_for_one_is_sealed_and_keys_are_asked_for_at_the_same_service(tmp_path: Path) -> None:
    async def scenario() -> None:
        made = origin(STAYS.format(4), f'for = "{NEAR.id}"')
        async with serving(exposing(tmp_path, made)) as producer:
            address = str(listener_of(producer).address("show"))
            await until(lambda: told(producer)["segments"] >= 5)
            assert told(producer)["sealed"]
            lines = await hear(address, 4, start=1, identity=NEAR)
            assert [each for each in lines if each] == ["0", "1", "2"] or lines[-1] == "3"

    run_scenario(scenario)


def test_an_edge_that_the_origin_names_has_the_place_of_another_listener(tmp_path: Path) -> None:
    async def scenario() -> None:
        made = origin(STAYS.format(9), f'fan-out = 1\nrelays = "{NEAR.id}"')
        async with serving(exposing(tmp_path, made)) as producer:
            address = str(listener_of(producer).address("show"))
            shared = Place(listen=("tcp://127.0.0.1:0",))
            async with listen_to(address, place=shared, patience=HASTY) as stream:
                await stream.announcement()
                await until(lambda: stream.receiver.path == (FAR.id,))
                async with serving(exposing(tmp_path, edge(address)), NEAR) as between:
                    await until(lambda: told(between).get("path") == [str(FAR.id), str(NEAR.id)])
                    await until(lambda: stream.receiver.path == (FAR.id, NEAR.id))

    run_scenario(scenario)


@pytest.mark.parametrize(
    ("show", "rules", "why"),
    [
        (origin(ENDS), 'backend = ["127.0.0.1:1"]', "has no backends"),
        (origin(ENDS), 'limits = {time = "1m"}', "fan-out limits"),
        (origin(ENDS), 'price = {request = "0.01SUI"}', "don't pay by connection"),
        ('title = "x"\n', "", "needs command"),
        (origin(ENDS, f'from = ["dtp+tcp://{FAR.id}@127.0.0.1:1/show"]'), "", "comes from elsewhere"),
        (
            edge(f"dtp+tcp://{FAR.id}@127.0.0.1:1/show", 'title = "x"'),
            "",
            "title: only applies to shows that begin here",
        ),
        (origin(ENDS, "back = 3"), "", "back: "),
        (origin(ENDS, f'fan-out = 1\nrelays = ["{NEAR.id}", "{OTHER.id}"]'), "", "has no room for 2 relays"),
        (origin(ENDS, 'topic = "prices"'), "", r"topic: needs \[node\]"),
        (origin(ENDS, 'over = "nats://127.0.0.1:4222"'), "", "over: carries a topic"),
        (
            edge(f"dtp+tcp://{FAR.id}@192.0.2.7:1", 'topic = "prices"\nback = "10s"'),
            "",
            "back: a topic keeps nothing",
        ),
        (
            edge(f"dtp+tcp://{FAR.id}@127.0.0.1:1/show", 'over = "nats://127.0.0.1:4222"'),
            "",
            "over: carries a topic",
        ),
        (
            edge(f"dtp+tcp://{FAR.id}@127.0.0.1:1/show", 'topic = "x"\nover = "127.0.0.1:4222"'),
            "",
            "is not a broker",
        ),
        (origin(ENDS, "sealed = true"), "", "sealed: needs show"),
        (origin(ENDS, 'key-price = "0.001SUI"'), "", r"key-price: needs \[chain\]"),
        (origin(ENDS, "key-price = 0"), "", "to everybody"),
        (origin(ENDS, 'key-listen = "tcp://127.0.0.1:0"'), "", "key-listen: only applies with key-price"),
        (origin(ENDS, "key-price = 5\nsealed = false"), "", "a show that isn.t for everybody"),
        (origin(ENDS, f'show = "0x{"1" * 64}"'), "", r"show: needs \[chain\]"),
        (origin(ENDS, 'rotate = "10ms"'), "", "at least a second"),
        ('command = "a \'b"\n', "", "isn't a command"),
        ("command = []\n", "", "name a program"),
    ],
)
def test_what_a_show_does_not_have_is_a_mistake(tmp_path: Path, show: str, rules: str, why: str) -> None:
    with pytest.raises(ConfigMistakes, match=why):
        exposing(tmp_path, show, rules=rules)


def test_a_topic_is_in_a_node_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigMistakes, match="a node has a topic once"):
        exposing(tmp_path, origin(ENDS, 'topic = "prices"'), '[node]\ntopics = ["prices"]')


def test_a_show_is_one_process(tmp_path: Path) -> None:
    with pytest.raises(ConfigMistakes, match="one chain, which one process"):
        exposing(tmp_path, origin(ENDS), top="workers = 2")


# ---- real processes ----------------------------------------------------------------------------------------------


def toml(show: Any, port: int, web: Any = None) -> str:
    more = "" if web is None else f'[web]\nlisten = "127.0.0.1:{web}"\n'
    return (
        f'[daemon]\nlisten = ["tcp://127.0.0.1:{port}"]\n{more}'
        f'[[expose]]\nservice = "show"\nkind = "broadcast"\nallow = ["*"]\n[expose.broadcast]\n{show}'
    )


@pytest.mark.slow
def test_upgrades_of_origin_and_edge_and_a_killed_edge_leave_no_gap(place: programs.Place) -> None:  # noqa: F811
    """A listener of two edges hears all, while the origin and one edge are upgraded and the other is killed."""
    ports = [free_port() for _ in range(4)]
    pids = []
    _, (source,) = place.dtpd("origin", toml(origin(COUNTER), ports[0]))
    one, (first, *_) = place.dtpd("one", toml(edge(source["address"]), ports[1], web=ports[3]))
    two, (second,) = place.dtpd("two", toml(edge(source["address"]), ports[2]))
    listener = Identity.generate()

    def upgrade(name: str) -> None:
        answer = json.loads(place.command("upgrade", "--json", "-c", place.folder / f"{name}.toml"))
        pids.append(answer["pid"])

    numbers: list[int] = []

    def kill_other_edge() -> None:
        """Kill one edge once the other has all that isn't heard yet: what only one has goes with it."""
        deadline, began = time.monotonic() + PATIENCE, 0
        while not began or numbers[-1] < began:
            assert time.monotonic() < deadline
            began = began or count_segments("one")
        two.process.kill()

    def count_segments(name: str) -> int:
        """How many segments there are as far as an edge knows; 0 before it hears the show."""
        status = json.loads(place.command("status", "--json", "-c", place.folder / f"{name}.toml"))
        (show,) = (each["broadcast"] for each in status["exposed"])
        return int(show["segments"]) if show.get("path") else 0

    async def scenario() -> Any:
        lines, step = [], 0
        steps = [lambda: upgrade("one"), lambda: upgrade("origin"), kill_other_edge, lambda: None]
        stream = listen_to(
            second["address"], first["address"], producer=place.identity("origin").id, identity=listener,
            start=0, patience=replace(HASTY, anybody=PATIENCE, lost=PATIENCE),
        )  # fmt: skip
        doing = None
        async with asyncio.timeout(PATIENCE):
            async for each in stream:
                assert not each.missed
                numbers.append(each.segment.number)
                lines.append(int(each.data))
                if len(numbers) >= 60 * (step + 1) and (doing is None or doing.done()):
                    if step == len(steps):
                        break
                    doing = asyncio.ensure_future(asyncio.to_thread(steps[step]))
                    step += 1
            await doing
        return lines

    try:
        lines = asyncio.run(scenario())
        assert numbers == list(range(len(numbers)))
        assert lines.count(0) == 2  # the command was run again by the process after the upgrade
        with urllib.request.urlopen(f"http://127.0.0.1:{ports[3]}/health", timeout=60) as answer:
            assert json.load(answer)["healthy"]
    finally:
        for name in ("one", "origin"):
            with contextlib.suppress(AssertionError):
                place.command("drain", "-c", place.folder / f"{name}.toml")
        for pid in pids:
            wait_gone(pid)
    one.wait(None)


def wait_gone(pid: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while is_alive(pid):
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            raise AssertionError(f"process {pid} has not ended")
        time.sleep(0.05)
