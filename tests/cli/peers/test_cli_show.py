"""`dtp show` in processes of its own: a producer, relays of which one is killed, listeners, recordings."""

import asyncio
import hashlib
import json
import signal
import time
import urllib.request

import pytest

from dtp.broadcast.places import Place
from dtp.broadcast.producing import Broadcast
from dtp.identity import Identity
from dtp.net.address import Address

HERE = ("--listen", "tcp://127.0.0.1:0", "--discover", "none")


def begin(dtp, *options):
    """Put lines on air; gives the program and the address."""
    program = dtp("show", "broadcast", *HERE, "--cut", "lines", "--json", *options)
    say(program, b"first\n")
    return program, program.event("listening")["address"]


def say(program, *lines):
    for each in lines:
        program.stdin.write(each)
        program.stdin.flush()


def test_what_is_put_on_air_is_heard_recorded_and_played(dtp, tmp_path):
    producer, address = begin(dtp, "--title", "prices", "--record", "kept")
    listener = dtp("show", "listen", address, *HERE, "--record", "heard")
    assert listener.stdout.readline() == b"first\n"
    say(producer, b"21.5\n", b"22.0\n")
    assert listener.stdout.readline() == b"21.5\n"
    producer.end_input()
    assert listener.wait() == b"22.0\n"
    assert "prices" in listener.errors.decode()
    recorded = producer.event("recorded")
    producer.wait()
    kept = (tmp_path / "kept").read_bytes()
    assert recorded["sha256"] == hashlib.sha256(kept).hexdigest()
    assert kept == (tmp_path / "heard").read_bytes()
    assert dtp("show", "play", "kept").wait() == b"first\n21.5\n22.0\n"
    assert dtp("show", "play", "kept", "--from", "2").wait() == b"22.0\n"
    told = json.loads(dtp("show", "play", "kept", "--json").wait())
    assert (told["title"], told["segments"], told["ended"]) == ("prices", 4, True)
    (tmp_path / "cut").write_bytes(kept[:-500])
    cut = dtp("show", "play", "cut")
    assert cut.wait().startswith(b"first\n")
    assert b"cut ends before the show does" in cut.errors
    (tmp_path / "other").write_text("root:x:0:0:root:/root:/bin/bash\n")
    other = dtp("show", "play", "other")
    other.wait(4)
    assert b"other is not a recording of a show" in other.errors
    changed = bytearray(kept)
    changed[kept.index(b"22.0")] ^= 1
    (tmp_path / "changed").write_bytes(changed)
    played = dtp("show", "play", "changed")
    assert played.wait(None) == b"first\n21.5\n"
    assert b"not the one that was signed" in played.errors


@pytest.mark.slow
def test_a_finished_show_is_fetched_by_its_hash_from_another(dtp, tmp_path):
    dtp("keygen").wait()
    producer, address = begin(dtp, "--record", "kept")
    producer.end_input()
    name = producer.event("recorded")["sha256"]
    producer.wait()
    keeper = dtp("show", "keep", "kept", *HERE, "--json")
    kept = keeper.event("keeping")
    assert kept["sha256"] == [name]
    mine, its = (Address.parse(each).peer for each in (address, kept["address"]))
    assert mine != its  # else two nodes would have one identity, while the show goes on
    dtp("show", "fetch", name, "got", kept["address"], *HERE).wait()
    assert (tmp_path / "got").read_bytes() == (tmp_path / "kept").read_bytes()
    absent = dtp("show", "fetch", "00" * 32, "other", kept["address"], *HERE)
    absent.wait(5)
    assert b"nobody gives the recording" in absent.errors
    dtp("show", "fetch", "no hash", "other", *HERE).wait(2)
    keeper.signal(signal.SIGKILL)


@pytest.mark.slow
def test_a_killed_relay_leaves_no_gap(dtp):
    producer, address = begin(dtp, "--fan-out", "2")
    relays = [dtp("show", "listen", address, *HERE, "--json") for _ in range(2)]
    passed_on = [each.event("listening")["address"] for each in relays]
    for each in relays:
        each.event("segment", number=0)
    name = producer_of(address)
    listener = dtp(
        "show", "listen", passed_on[0], passed_on[1], "--producer", name, *HERE, "--json", "--no-share"
    )
    listener.event("segment", number=0)
    say(producer, b"second\n")
    listener.event("segment", number=1)
    relays[0].signal(signal.SIGKILL)
    say(producer, *(b"%d\n" % at for at in range(2, 10)))
    numbers = [listener.event("segment")["number"] for _ in range(8)]
    assert numbers == list(range(2, 10))
    producer.end_input()
    rest = [json.loads(line) for line in listener.wait().splitlines()]
    assert [each["number"] for each in rest] == [10]
    producer.wait()


def test_a_wallet_that_is_named_and_isnt_there_is_told_at_once(dtp):
    """Else it is told when a key is asked for, behind half a minute of trying, as a fault of the producer's."""
    nobody = f"dtp+tcp://{Identity.generate().id}@127.0.0.1:9/show"
    listener = dtp("show", "listen", nobody, *HERE, "--wallet", "purse")
    listener.wait(3)
    assert b"there is no wallet 'purse'" in listener.errors


@pytest.mark.slow
def test_a_relay_that_the_producer_names_has_the_place_of_another_listener(dtp):
    dtp("keygen", "--identity", "relay.pem").wait()
    name = json.loads(dtp("id", "--identity", "relay.pem", "--json").wait())["id"]
    producer, address = begin(dtp, "--fan-out", "1", "--relay", name)
    first = dtp("show", "listen", address, *HERE, "--json")
    first.event("segment", number=0)
    relay = dtp("show", "listen", address, *HERE, "--json", "--identity", "relay.pem")
    relay.event("segment", number=0)
    say(producer, b"second\n")
    for each in (relay, first):
        each.event("segment", number=1)
    mistaken = dtp("show", "broadcast", "--fan-out", "0", "--relay", name)
    mistaken.wait(3)
    assert b"a fan-out of 0 has no room for 1 relay" in mistaken.errors


@pytest.mark.slow
def test_one_person_listens_with_two_devices(dtp):
    """Each passes the show on under an identity of its own, and both open what is sealed to the person."""
    dtp("keygen").wait()
    dtp("keygen", "--identity", "radio.pem").wait()
    me = json.loads(dtp("id", "--json").wait())["id"]
    _, address = begin(dtp, "--identity", "radio.pem", "--for", me)
    devices = [dtp("show", "listen", address, *HERE, "--json") for _ in range(2)]
    named = {producer_of(each.event("listening")["address"]) for each in devices}
    assert len({*named, me}) == 3
    for each in devices:
        each.event("segment", number=1)
    relay = dtp("show", "listen", address, *HERE, "--json", "--identity", "home/identity.pem")
    # One that others are told of stays the same.
    assert producer_of(relay.event("listening")["address"]) == me


def test_a_show_that_is_sent_again_isnt_taken_for_live(dtp):
    async def test():
        place = Place(listen=("tcp://127.0.0.1:0",))
        yesterday = Broadcast(place=place, clock_ms=lambda: int(1000 * time.time()) - 26 * 3_600_000)
        async with yesterday as on_air:
            await on_air.write(b"one")
            listener = dtp("show", "listen", on_air.addresses[0], *HERE, "--json")
            old = await asyncio.to_thread(listener.event, "old")
            assert abs(old["time_ms"] - 1000 * time.time() + 26 * 3_600_000) < 60_000
            await asyncio.to_thread(listener.event, "segment", number=0)
            await on_air.end()
            assert b'"old"' not in await asyncio.to_thread(listener.wait)  # once

    asyncio.run(test())


def producer_of(address):
    return address.partition("://")[2].partition("@")[0]


@pytest.mark.slow
def test_a_show_whose_producer_is_killed_is_given_up(dtp):
    producer, address = begin(dtp)
    listener = dtp("show", "listen", address, *HERE, "--give-up", "2")
    assert listener.stdout.readline() == b"first\n"
    producer.signal(signal.SIGKILL)
    assert listener.wait(5) == b""
    assert b"nothing of the show's producer was heard for 2 s" in listener.errors


@pytest.mark.slow
def test_a_wrong_or_missing_producer_is_said_at_once(dtp):
    _, address = begin(dtp)
    relay = dtp("show", "listen", address, *HERE, "--json")
    passed_on = relay.event("listening")["address"]
    relay.event("segment", number=0)
    for options in ((), ("--producer", producer_of(passed_on))):
        listener = dtp("show", "listen", passed_on, *HERE, *options)
        assert listener.wait(4) == b""
        assert f"but of {producer_of(address)}".encode() in listener.errors
        assert b"--producer" in listener.errors


@pytest.mark.slow
def test_an_address_without_a_service_is_that_of_a_show(dtp):
    _, address = begin(dtp)
    listener = dtp("show", "listen", address.removesuffix("/show"), *HERE)
    assert listener.stdout.readline() == b"first\n"


@pytest.mark.slow
def test_why_a_show_isnt_heard_yet_is_said(dtp):
    producer, address = begin(dtp)
    producer.signal(signal.SIGKILL)
    listener = dtp("show", "listen", address, *HERE, "--json")
    assert listener.event("waiting")["why"]


@pytest.mark.slow
def test_a_show_for_named_people_is_for_them_alone(dtp, tmp_path):
    names = {}
    for each in ("alice", "bob"):
        dtp("keygen", "--identity", f"{each}.pem").wait()
        names[each] = json.loads(dtp("id", "--identity", f"{each}.pem", "--json").wait())["id"]
    producer, address = begin(dtp, "--for", names["alice"], "--record", "kept", "--rotate", "3600")
    alice = dtp("show", "listen", address, *HERE, "--identity", "alice.pem", "--record", "heard")
    assert alice.stdout.readline() == b"first\n"
    bob = dtp("show", "listen", address, *HERE, "--identity", "bob.pem")
    assert bob.wait(3) == b""
    assert b"not-invited" in bob.errors
    say(producer, b"second\n")
    producer.end_input()
    assert alice.wait() == b"second\n"
    producer.wait()
    assert (tmp_path / "kept").read_bytes() == (tmp_path / "heard").read_bytes()
    assert b"second" not in (tmp_path / "kept").read_bytes()
    assert dtp("show", "play", "kept", "--identity", "alice.pem").wait() == b"first\nsecond\n"
    played = dtp("show", "play", "kept", "--identity", "bob.pem")
    assert played.wait(3) == b""
    for wrong in (("--sealed",), ("--for", "dtp1x"), ("--open", "--for", names["bob"]), ("--pass", "0x1")):
        dtp("show", "broadcast", *HERE, *wrong).wait(2)


def test_a_file_may_be_put_on_air_and_nobody_is_there(dtp, tmp_path):
    (tmp_path / "input").write_bytes(b"all of it")
    with open(tmp_path / "input", "rb") as file:
        producer = dtp("show", "broadcast", *HERE, "--json", "--record", "kept", stdin=file)
        address = producer.event("listening")["address"]
        producer.wait()
    assert dtp("show", "play", "kept").wait() == b"all of it"
    again = dtp("show", "play", "missing")
    again.wait(3)
    assert b"can't read missing" in again.errors
    wrong = dtp("show", "listen", address, "--producer", "dtp1x", *HERE)
    wrong.wait(2)
    assert b"--producer" in wrong.errors


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--gateway", "127.0.0.1:0")], ids=["alone", "with a page"])
def test_that_a_recording_cant_be_made_is_said_before_the_show_ends(dtp, tmp_path, options):
    (tmp_path / "heard").write_bytes(b"the show of yesterday")
    _, address = begin(dtp)
    listener = dtp("show", "listen", address, *HERE, "--record", "heard", *options)
    assert b"first" not in listener.wait(3)
    assert b"can't record to heard: File exists" in listener.errors
    assert (tmp_path / "heard").read_bytes() == b"the show of yesterday"


def test_a_gateway_serves_a_page_and_a_playlist(dtp):
    producer, address = begin(dtp, "--title", "prices")
    listener = dtp("show", "listen", address, *HERE, "--gateway", "127.0.0.1:0", "--json")
    url = listener.event("gateway")["url"]
    listener.event("segment", number=0)
    with urllib.request.urlopen(url + "state", timeout=60) as answer:
        state = json.load(answer)
    assert (state["title"], state["edge"], state["producer"]) == ("prices", 0, producer_of(address))
    with urllib.request.urlopen(url + "segments/0", timeout=60) as answer:
        assert answer.read() == b"first\n"
    with urllib.request.urlopen(url + "live.m3u8", timeout=60) as answer:
        assert "segments/0.m4s" in answer.read().decode()
    producer.end_input()
    producer.wait()
    listener.event("segment", number=1)
    listener.signal(signal.SIGTERM)
    listener.wait(143)


def test_the_producer_has_a_page_of_its_own(dtp):
    program = dtp("show", "broadcast", *HERE, "--cut", "lines", "--json", "--gateway", "127.0.0.1:0")
    url = program.event("gateway")["url"]
    with urllib.request.urlopen(url + "state", timeout=60) as answer:
        state = json.load(answer)
    assert (state["money"], state["moderated_here"]) == (None, False)
    program.end_input()
    program.wait()


@pytest.mark.slow
def test_a_feed_is_heard_by_its_topic(dtp):
    producer, address = begin(dtp, "--topic", "prices")
    listener = dtp("show", "listen", address, *HERE, "--topic", "prices", "--json")
    listener.event("show")
    say(producer, b"21.5\n", b"22.0\n")
    assert listener.event("segment", number=2)["size"] == 5
    producer.end_input()
    listener.wait()
    producer.wait()
