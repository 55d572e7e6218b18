"""`dtp show` with money, in processes of its own: made, asked for, funded, on air, over; and what comes back."""

import datetime
import json
import subprocess
import threading
import urllib.request

import pytest

HERE = ("--listen", "tcp://127.0.0.1:0", "--discover", "none")


def publish(home):
    """Have the package on the network; once for all tests of the folder."""
    there = home.run("chain", "info")[0]["packages"]
    for name in {"transport", "broadcast"}.difference(there):
        home.run("move", "publish", name)


def state_of(page):
    with urllib.request.urlopen(page + "state", timeout=60) as answer:
        return json.load(answer)


@pytest.mark.slow
def test_a_show_is_on_air_while_it_is_paid_for(homes):
    producer, listener = homes
    publish(producer)
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
    assert "0.001 SUI" in listener.text("show", "status", show)
    # The command is started when the money is there, and ended when it isn't.
    words = "sh -c 'while echo word; do sleep 0.1; done'"
    on_air = subprocess.Popen(
        producer.command(
            "show",
            "broadcast",
            show,
            "--cut",
            "lines",
            "--command",
            words,
            *HERE,
            "--json",
            "--gateway",
            "127.0.0.1:0",
        ),
        env=producer.env,
        cwd=producer.folder,
        stdout=subprocess.PIPE,
    )
    watchdog = threading.Timer(100, on_air.kill)
    watchdog.start()
    try:

        def event(name, **fields):
            for line in on_air.stdout:
                record = json.loads(line)
                if record["event"] == name and fields.items() <= record.items():
                    return record
            raise AssertionError(f"no {name} {fields}")

        page = event("gateway")["url"]
        event("air", air="off")
        (funded,) = listener.run("show", "fund", show, "0.003SUI")
        assert event("air", air="on air")["next_slot"] == 1_000_000
        (asked,) = listener.run("show", "ask", show, "why?", "--sealed")
        listener.run("show", "tip", show, "0.002SUI", "thanks")
        listener.run("show", "ask", show, "", "--raise", asked["number"], "--amount", "0.005SUI")
        heard = subprocess.Popen(
            listener.command("show", "listen", show, *HERE),
            env=listener.env,
            cwd=listener.folder,
            stdout=subprocess.PIPE,
        )
        event("air", air="paused")
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
        producer.run("show", "dismiss", show, second["number"])
        assert producer.run("show", "watch", show, "--past") == []
        producer.run("show", "end", show)
        assert set(heard.communicate(timeout=100)[0].splitlines()) <= {b"word"}
        assert on_air.wait(100) == 0
    finally:
        watchdog.cancel()
        on_air.kill()
        on_air.stdout.close()
    (collected,) = producer.run("show", "collect", show)
    assert collected["collected"] == 3_000_000 + 8_000_000
    (back,) = listener.run("show", "refund", show)
    assert [(each["share"], each["amount"]) for each in back["shares"]] == [(funded["share"], 0)]
    listener.run("show", "collect", show, code=6)
    listener.run("show", "fund", show, "1SUI", code=6)


@pytest.mark.slow
def test_tickets_are_sold_and_paid_back(homes):
    producer, listener = homes
    publish(producer)
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


@pytest.mark.slow
def test_a_show_with_tickets_is_heard_by_who_has_one(homes):
    producer, listener = homes
    publish(producer)
    start_by = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1)
    sale = ("--ticket", "0.01SUI", "--at-least", "1", "--length", "1h", "--start-by", start_by.isoformat())
    show = producer.run("show", "create", *sale)[0]["show"]
    words = "sh -c 'while echo word; do sleep 0.1; done'"
    on_air = subprocess.Popen(
        producer.command("show", "broadcast", show, "--cut", "lines", "--command", words, *HERE, "--json"),
        env=producer.env,
        cwd=producer.folder,
        stdout=subprocess.PIPE,
    )
    watchdog = threading.Timer(100, on_air.kill)
    watchdog.start()
    try:
        for line in on_air.stdout:
            if json.loads(line)["event"] == "air":
                break
        listener.run("show", "buy", show)
        assert first_line(listener, show) == b"word\n"
        # Another identity hears nothing, unless the holder's wallet says that it listens with the ticket.
        listener.run("keygen", "--identity", "other.pem")
        without = subprocess.run(
            listener.command("show", "listen", show, *HERE, "--identity", "other.pem"),
            env=listener.env,
            cwd=listener.folder,
            capture_output=True,
            timeout=100,
            check=False,
        )
        assert (without.returncode, without.stdout) == (3, b"")
        assert b"no-ticket" in without.stderr
        assert b"dtp show buy" in without.stderr
        wallet = listener.folder / "identity.pem"
        assert first_line(listener, show, "--identity", "other.pem", "--wallet", wallet) == b"word\n"
    finally:
        watchdog.cancel()
        on_air.kill()
        on_air.communicate(timeout=100)


@pytest.mark.slow
def test_a_producer_hears_its_own_show_and_what_comes_back_is_said(homes):
    producer, _ = homes
    publish(producer)
    (made,) = producer.run("show", "create", "--rate", "0.06SUI/min", "--slot", "1h")
    show = made["show"]
    words = "sh -c 'while echo word; do sleep 0.1; done'"
    on_air = subprocess.Popen(
        producer.command("show", "broadcast", show, "--cut", "lines", "--command", words, *HERE, "--json"),
        env=producer.env,
        cwd=producer.folder,
        stdout=subprocess.PIPE,
    )
    watchdog = threading.Timer(100, on_air.kill)
    watchdog.start()
    try:
        for line in on_air.stdout:
            if json.loads(line)["event"] == "air":
                break
        producer.run("show", "fund", show, "8SUI")
        assert first_line(producer, show) == b"word\n"
        assert "leaves the show; once its last slot is posted" in producer.text("show", "refund", show)
        producer.run("show", "end", show)
        assert " SUI back" in producer.text("show", "refund", show)
        assert producer.text("show", "collect", show).split()[2] == "SUI"
        assert on_air.wait(100) == 0
    finally:
        watchdog.cancel()
        on_air.kill()
        on_air.communicate(timeout=100)


@pytest.mark.slow
def test_keys_are_sold_to_who_has_a_budget(homes):
    producer, listener = homes
    publish(producer)
    arguments = ("show", "broadcast", "--key-price", "0.001SUI", "--cut", "lines", *HERE, "--json")
    on_air = subprocess.Popen(
        producer.command(*arguments),
        env=producer.env,
        cwd=producer.folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    watchdog = threading.Timer(100, on_air.kill)
    watchdog.start()
    try:
        told = [json.loads(on_air.stdout.readline()) for _ in range(2)]
        assert [each["event"] for each in told] == ["selling", "listening"]
        address = told[1]["address"]
        on_air.stdin.write(b"word\n")
        on_air.stdin.flush()
        buying = subprocess.Popen(
            listener.command("show", "listen", address, *HERE, "--back", "60", "--budget", "0.1SUI"),
            env=listener.env,
            cwd=listener.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        line = buying.stdout.readline()
        assert line == b"word\n", buying.communicate()[1]
        without = subprocess.run(
            listener.command("show", "listen", address, *HERE, "--back", "60"),
            env=listener.env,
            cwd=listener.folder,
            capture_output=True,
            timeout=100,
            check=False,
        )
        assert (without.returncode, without.stdout) == (3, b"")
        assert b"listen with a budget" in without.stderr
        on_air.stdin.close()
        on_air.stdin = None  # or `communicate` flushes it
        rest, said = buying.communicate(timeout=100)
        assert (buying.returncode, rest) == (0, b"")
        assert b"paid 0.001 SUI for 1 request" in said
        listener.run("show", "listen", address, "--most-per-key", "1MIST", code=2)
        producer.run("show", "broadcast", "--open", "--key-price", "1MIST", code=2)
        assert on_air.wait(100) == 0
    finally:
        watchdog.cancel()
        on_air.kill()
        on_air.communicate(timeout=100)


def first_line(home, show, *options):
    """Listen until something is heard."""
    command = home.command("show", "listen", show, *HERE, *options)
    with subprocess.Popen(command, env=home.env, cwd=home.folder, stdout=subprocess.PIPE) as heard:
        watchdog = threading.Timer(100, heard.kill)
        watchdog.start()
        line = heard.stdout.readline()
        watchdog.cancel()
        heard.kill()
    return line
