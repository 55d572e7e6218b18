"""`dtp show` with money, in processes of its own: made, asked for, funded, on air, over; and what comes back."""

from __future__ import annotations

import contextlib
import datetime
import json
import re
import shutil
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest

from dtp.broadcast.format import Position

from ..homes import PATIENCE, Home

HERE = ("--listen", "tcp://127.0.0.1:0", "--discover", "none")
#: What a show sends: a word ten times a second.
WORDS = ("--cut", "lines", "--command", "sh -c 'while echo word; do sleep 0.1; done'")


@pytest.fixture
def people(homes: Any) -> Any:
    """A producer and a listener, with the packages on their network."""
    there = homes[0].run("chain", "info")[0]["packages"]
    for name in {"transport", "broadcast"}.difference(there):
        homes[0].run("move", "publish", name)
    return homes


class Running:
    """A `dtp` that runs until it ends, or the test does."""

    def __init__(self, home: Any, *arguments: Any, **pipes: Any) -> None:
        pipes = {"stdout": subprocess.PIPE, **pipes}
        self.process = subprocess.Popen(home.command(*arguments), env=home.env, cwd=home.folder, **pipes)
        self._watchdog = threading.Timer(PATIENCE, self.process.kill)
        self._watchdog.start()

    def event(self, name: Any, **fields: Any) -> Any:
        """Return the next event that is so called, and has these fields."""
        for line in self.process.stdout:
            record = json.loads(line)
            if record["event"] == name and fields.items() <= record.items():
                return record
        raise AssertionError(f"no {name} {fields}")

    def close(self) -> None:
        self._watchdog.cancel()
        self.process.kill()
        self.process.wait(100)
        for each in (self.process.stdin, self.process.stdout, self.process.stderr):
            if each is not None:
                each.close()


@pytest.fixture
def start() -> Iterator[Any]:
    """Start a `dtp` that is ended with the test."""
    with contextlib.ExitStack() as stack:

        def begin(home: Any, *arguments: Any, **pipes: Any) -> Any:
            running = Running(home, *arguments, **pipes)
            stack.callback(running.close)
            return running

        yield begin


@pytest.fixture
def broadcast(start: Any) -> Any:
    """Put words on air as somebody's show; wait until it says how it stands."""

    def begin(home: Any, show: Any, *options: Any) -> Any:
        on_air = start(
            home, "show", "broadcast", show, *WORDS, *HERE, "--json", *options, stderr=subprocess.STDOUT
        )
        page = on_air.event("gateway")["url"] if "--gateway" in options else None
        on_air.event("air")
        return on_air, page

    return begin


def state_of(page: Any) -> Any:
    with urllib.request.urlopen(page + "state", timeout=60) as answer:
        return json.load(answer)


@pytest.mark.slow
def test_a_show_is_on_air_while_it_is_paid_for(people: Any, start: Any, broadcast: Any) -> None:
    producer, listener = people
    producer.run("show", "create", code=2)
    producer.run("show", "create", "--rate", "1SUI", code=2)
    (made,) = producer.run(
        "show",
        "create",
        "--rate",
        "0.06SUI/min",
        "--slot",
        "1s",
        "--batch",
        "2",
        "--price",
        "question=0.001SUI",
    )
    show = made["show"]
    (status,) = listener.run("show", "status", show)
    assert (status["air"], status["rate"], status["start_pot"]) == ("off", 1_000_000, 2_000_000)
    told = listener.text("show", "status", show)
    assert "0.001 SUI each 1 s" in told
    assert "nowhere yet" in told
    assert "question 0.001 SUI" in told
    assert not re.search(r"\b0x[0-9a-f]", told.partition("\n")[2])  # no raw fields, no hashes
    assert listener.failing("show", "end", show, code=6)["code"] == "not-producer"
    listener.run("show", "ask", show, code=2)  # there is nothing to ask
    assert producer.text("show", "collect", show).split() == ["collected", "0", "SUI"]
    # The command is started when the money is there, and ended when it isn't.
    on_air, page = broadcast(producer, show, "--gateway", "127.0.0.1:0")
    (funded,) = listener.run("show", "fund", show, "0.003SUI")
    assert on_air.event("air", air="on air")["next_slot"] == 1_000_000
    (asked,) = listener.run("show", "ask", show, "why?", "--sealed")
    listener.run("show", "tip", show, "0.002SUI", "thanks")
    listener.run("show", "ask", show, "--raise", asked["number"], "--amount", "0.005SUI")
    heard = start(listener, "show", "listen", show, *HERE).process
    on_air.event("air", air="paused")
    first, second = producer.run("show", "watch", show, "--past")
    assert (first["text"], first["amount"], first["raised"]) == ("why?", 6_000_000, 1)
    assert (second["kind"], second["text"]) == ("tip", "thanks")
    assert listener.run("show", "watch", show, "--past")[0]["text"] == ""
    assert state_of(page)["money"]["line"][0]["text"] == "why?"  # it was sealed to the producer
    moderate = urllib.request.Request(
        f"{page}line/{asked['number']}/dismiss", b"", {"Origin": page.rstrip("/")}, method="POST"
    )
    with urllib.request.urlopen(moderate, timeout=60) as answer:
        assert answer.status == 200
    assert [each["text"] for each in state_of(page)["money"]["line"]] == ["thanks"]
    producer.run("show", "dismiss", show, second["number"] + 1, code=2)  # it may be asked yet
    producer.run("show", "dismiss", show, second["number"])
    assert producer.run("show", "watch", show, "--past") == []
    producer.run("show", "end", show)
    assert set(heard.communicate(timeout=100)[0].splitlines()) <= {b"word"}
    posted = on_air.event("posted")
    assert (posted["slots"], posted["released"]) == (3, 3_000_000)
    assert isinstance(posted["gas_mist"], int)
    assert on_air.process.wait(100) == 0
    (collected,) = producer.run("show", "collect", show)
    assert collected["collected"] == 3_000_000 + 8_000_000
    (back,) = listener.run("show", "refund", show)
    assert [(each["share"], each["amount"]) for each in back["shares"]] == [(funded["share"], 0)]
    listener.run("show", "collect", show, code=6)
    listener.run("show", "fund", show, "1SUI", code=6)
    late = start(listener, "show", "listen", show, *HERE, stderr=subprocess.PIPE).process
    assert b"has ended" in late.stderr.readline()  # it still looks whether somebody has what was sent


@pytest.mark.slow
def test_tickets_are_sold_and_paid_back(people: Any) -> None:
    producer, listener = people
    producer.run("show", "create", "--ticket", "0.01SUI", code=2)
    producer.run("show", "create", "--ticket", "0.01SUI", "--at-least", "2", "--start-by", "tomorrow", code=2)
    start_by = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1)
    sale = ("show", "create", "--ticket", "0.01SUI", "--at-least", "2", "--length", "1h", "--start-by")
    producer.run(*sale, (start_by + datetime.timedelta(days=400)).isoformat(), code=6)
    (made,) = producer.run(*sale, start_by.isoformat())
    listener.run("show", "buy", made["show"], "--most", "0.009SUI", code=3)
    listener.run("show", "buy", made["show"], "--coin", "0x2::clock::Clock", code=3)
    (bought,) = listener.run("show", "buy", made["show"], "--most", "0.01SUI")
    (status,) = listener.run("show", "status", made["show"])
    assert (status["air"], status["tickets"], status["slots"]) == ("funding", 1, 120)
    listener.run("show", "refund", made["show"], code=6)  # tickets stand
    listener.run("show", "end", made["show"], code=6)  # nor is it late
    producer.run("show", "end", made["show"])
    (back,) = listener.run("show", "refund", made["show"])
    assert [(each["share"], each["amount"]) for each in back["shares"]] == [(bought["ticket"], 10_000_000)]
    listener.run("show", "refund", made["show"], code=6)
    listener.run("show", "buy", made["show"], code=6)


def refusal(person: Any, *arguments: Any) -> Any:
    """Return what a command says on standard error that is refused, and prints nothing."""
    done = subprocess.run(
        person.command(*arguments),
        env=person.env,
        cwd=person.folder,
        capture_output=True,
        timeout=100,
        check=False,
    )
    assert (done.returncode, done.stdout) == (3, b"")
    return done.stderr


@pytest.mark.slow
def test_a_show_with_tickets_is_heard_by_who_has_one(people: Any, broadcast: Any) -> None:
    producer, listener = people
    start_by = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1)
    sale = ("--ticket", "0.01SUI", "--at-least", "1", "--length", "1h", "--start-by", start_by.isoformat())
    show = producer.run("show", "create", *sale)[0]["show"]
    broadcast(producer, show)
    (bought,) = listener.run("show", "buy", show)
    assert first_line(listener, show, "--ticket", bought["ticket"]) == b"word\n"
    listener.run("show", "listen", show, *HERE, "--ticket", "none", code=2)
    # Another identity hears nothing, unless the holder's wallet says that it listens with the ticket.
    listener.run("keygen", "--identity", "other.pem")
    said = refusal(listener, "show", "listen", show, *HERE, "--identity", "other.pem")
    assert b"no-ticket" in said
    assert b"dtp show buy" in said
    wallet = listener.folder / "identity.pem"
    assert first_line(listener, show, "--identity", "other.pem", "--wallet", wallet) == b"word\n"


@pytest.mark.slow
def test_a_ticket_that_is_given_away_is_somebody_elses(people: Any) -> None:
    giver, friend = people
    start_by = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1)
    sale = ("--ticket", "0.01SUI", "--at-least", "1", "--length", "1h", "--start-by", start_by.isoformat())
    show = giver.run("show", "create", *sale)[0]["show"]
    (me,) = friend.run("id")
    giver.run("show", "give", show, me["id"], code=6)
    tickets = {giver.run("show", "buy", show)[0]["ticket"] for _ in range(2)}
    giver.run("show", "give", show, "nobody", code=3)
    giver.run("show", "give", show, me["sui_address"][:-1], code=3)
    giver.run("show", "give", show, me["id"], "--ticket", show, code=6)
    first = min(tickets)
    assert giver.run("show", "give", show, me["id"], "--ticket", first)[0]["given"] == first
    assert {giver.run("show", "give", show, me["sui_address"])[0]["given"]} == tickets - {first}
    giver.run("show", "refund", show, code=6)
    (back,) = friend.run("show", "refund", show)
    assert {each["share"] for each in back["shares"]} == tickets
    assert len({each["transaction"] for each in back["shares"]}) == 1
    assert isinstance(back["gas_mist"], int)
    pot = giver.run("show", "create", "--rate", "0.06SUI/min", "--slot", "1h")[0]["show"]
    shares = [giver.run("show", "fund", pot, "0.1SUI")[0]["share"] for _ in range(2)]
    giver.run("show", "give", pot, me["id"], code=6)  # which one?
    assert giver.run("show", "give", pot, me["id"], "--ticket", shares[1])[0]["given"] == shares[1]
    assert giver.run("show", "give", pot, me["id"])[0]["given"] == shares[0]


@pytest.mark.slow
def test_a_producer_hears_its_own_show_and_what_comes_back_is_said(people: Any, broadcast: Any) -> None:
    producer, _ = people
    (made,) = producer.run("show", "create", "--rate", "0.06SUI/min", "--slot", "1h")
    show = made["show"]
    on_air, _ = broadcast(producer, show)
    producer.run("show", "fund", show, "8SUI")
    assert first_line(producer, show) == b"word\n"
    came_back, gas = producer.text("show", "refund", show).splitlines()
    assert came_back.endswith(": 4.4 SUI back; 3.6 SUI for slots that had begun")
    assert "gas" in gas
    producer.run("show", "end", show)
    assert producer.text("show", "collect", show).split()[2] == "SUI"
    assert on_air.process.wait(100) == 0


@pytest.mark.slow
def test_keys_are_sold_to_who_has_a_budget(people: Any, start: Any) -> None:
    producer, listener = people
    arguments = ("show", "broadcast", "--key-price", "0.001SUI", "--cut", "lines", *HERE, "--json")
    on_air = start(producer, *arguments, stdin=subprocess.PIPE).process
    told = [json.loads(on_air.stdout.readline()) for _ in range(2)]
    assert [each["event"] for each in told] == ["selling", "listening"]
    address = told[1]["address"]
    on_air.stdin.write(b"word\n")
    on_air.stdin.flush()
    listening = (listener, "show", "listen", address, *HERE, "--back", "60")
    buying = start(*listening, "--budget", "0.1SUI", stderr=subprocess.PIPE).process
    line = buying.stdout.readline()
    assert line == b"word\n", buying.communicate()[1]
    said = refusal(listener, "show", "listen", address, *HERE, "--back", "60")
    assert b"listen with a budget" in said
    on_air.stdin.close()
    on_air.stdin = None  # or `communicate` flushes it
    rest, said = buying.communicate(timeout=100)
    assert (buying.returncode, rest) == (0, b"")
    assert b"paid 0.001 SUI for 1 request" in said
    listener.run("show", "listen", address, "--most-per-key", "1MIST", code=2)
    producer.run("show", "broadcast", "--open", "--key-price", "1MIST", code=2)
    assert on_air.wait(100) == 0


def first_line(home: Any, show: Any, *options: Any) -> Any:
    """Listen until something is heard."""
    command = home.command("show", "listen", show, *HERE, *options)
    with subprocess.Popen(command, env=home.env, cwd=home.folder, stdout=subprocess.PIPE) as heard:
        watchdog = threading.Timer(PATIENCE, heard.kill)
        watchdog.start()
        line = heard.stdout.readline()
        watchdog.cancel()
        heard.kill()
    return line


@pytest.mark.slow
def test_who_ends_a_show_on_air_is_paid_for_what_was_sent(people: Any, broadcast: Any) -> None:
    producer, listener = people
    made = producer.run("show", "create", "--rate", "0.06SUI/min", "--slot", "1s", "--batch", "60")
    show = made[0]["show"]
    on_air, _ = broadcast(producer, show)
    listener.run("show", "fund", show, "1SUI")
    on_air.event("air", air="on air")
    while producer.run("show", "status", show)[0]["due_ms"] + 2000 > time.time() * 1000:
        time.sleep(0.1)
    assert producer.run("show", "status", show)[0]["posted"] == 0  # a batch takes a minute
    assert producer.run("show", "end", show) == [{"ended": show}]
    assert on_air.process.wait(100) == 0
    (status,) = producer.run("show", "status", show)
    assert status["air"] == "ended"
    assert status["posted"] >= 2
    assert status["earned"] == status["posted"] * 1_000_000
    assert "Traceback" not in on_air.process.stdout.read().decode()


def wait_for_owed(home: Any, show: Any, slots: Any, slot_s: float = 1.0) -> None:
    """Wait until so many slots are over by the chain's time."""
    while home.run("show", "status", show)[0]["due_ms"] + 1000 * slot_s * (slots - 1) > time.time() * 1000:
        time.sleep(0.1)


@pytest.mark.slow
def test_a_show_on_air_from_another_machine_is_not_ended_before_it_is_posted(
    people: Any, broadcast: Any, net: Any, tmp_path: Path
) -> None:
    producer, listener = people
    made = producer.run("show", "create", "--rate", "0.06SUI/min", "--slot", "1s", "--batch", "60")
    show = made[0]["show"]
    on_air, _ = broadcast(producer, show)
    listener.run("show", "fund", show, "1SUI")
    on_air.event("air", air="on air")
    elsewhere = Home(net, tmp_path / "elsewhere")
    shutil.copytree(
        producer.folder, elsewhere.folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("shows")
    )
    said = elsewhere.failing("show", "end", show, code=3)
    assert said["code"] == "show-busy"
    assert "end it there" in said["message"]
    assert producer.run("show", "status", show)[0]["air"] == "on air"
    elsewhere.run("show", "end", show, "--unposted")
    assert on_air.process.wait(100) == 0


@pytest.mark.slow
def test_what_a_producer_had_sent_that_was_killed_is_posted_at_the_end(people: Any, broadcast: Any) -> None:
    producer, listener = people
    made = producer.run("show", "create", "--rate", "0.06SUI/min", "--slot", "1s", "--batch", "60")
    show = made[0]["show"]
    on_air, _ = broadcast(producer, show)
    listener.run("show", "fund", show, "1SUI")
    on_air.event("air", air="on air")
    wait_for_owed(producer, show, 4)
    on_air.process.kill()
    on_air.process.wait(100)
    (kept,) = producer.folder.rglob(f"{show.removeprefix('0x')}.show")
    before = Position.decode(msgpack.unpackb(kept.read_bytes())[1])
    wait_for_owed(producer, show, before.slot + 3)
    producer.run("show", "end", show)
    (status,) = producer.run("show", "status", show)
    assert status["air"] == "ended"
    assert status["posted"] == before.slot >= 2  # not the time since it was killed


@pytest.mark.slow
def test_who_listens_by_a_shows_id_follows_its_producer_to_another_port(
    people: Any, start: Any, broadcast: Any
) -> None:
    producer, listener = people
    show = producer.run("show", "create", "--rate", "0.06SUI/min", "--slot", "1s")[0]["show"]
    on_air, _ = broadcast(producer, show)
    listener.run("show", "fund", show, "1SUI")
    hearing = start(listener, "show", "listen", show, *HERE, "--json", stderr=subprocess.STDOUT)
    hearing.event("segment")
    on_air.process.kill()
    on_air.process.wait(100)
    broadcast(producer, show)
    producer_is_back = time.time() * 1000
    while hearing.event("segment")["time_ms"] < producer_is_back:
        pass


@pytest.mark.slow
def test_who_listens_before_the_producer_broadcasts_waits(people: Any, start: Any, broadcast: Any) -> None:
    producer, listener = people
    show = producer.run("show", "create", "--rate", "0.06SUI/min", "--slot", "1s")[0]["show"]
    assert (
        listener.failing("show", "listen", show, *HERE, "--give-up", "0.5", code=5)["code"]
        == "show-unreachable"
    )
    waiting = start(listener, "show", "listen", show, *HERE, "--json", stderr=subprocess.STDOUT)
    assert "doesn't say where it is heard" in waiting.event("waiting")["why"]
    broadcast(producer, show)
    producer.run("show", "fund", show, "0.1SUI")
    assert waiting.event("segment")["size"] == 5
