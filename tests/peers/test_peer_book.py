"""The book: the newest record counts, floods push out only what nobody has tried, and a file proves itself."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from pathlib import Path
from types import FrameType

import msgpack
import pytest

from dtp.carriers.nearness import Nearness
from dtp.identity import Identity, PeerId
from dtp.peers.book import BookNotKept, Known, PeerBook
from dtp.peers.record import MAX_ADDRESSES, PeerRecord
from dtp.testing.pairs import ALICE, BOB


class Clock:
    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def record(
    identity: Identity,
    *,
    at: float = Clock.now,
    services: tuple[str, ...] = (),
    url: str = "tcp://192.0.2.7:9000",
    dht: str = "",
) -> PeerRecord:
    return PeerRecord.sign(identity, now=at, ttl=600, addresses=[url], services=services, dht=dht)


def forge(encoded: bytes) -> bytes:
    """Return what was signed with one bit of its signature changed: setting a byte may change nothing."""
    return encoded[:-1] + bytes((encoded[-1] ^ 1,))


def test_newest_record_counts() -> None:
    book, heard = PeerBook(clock=Clock()), list[PeerRecord]()
    end = book.on_change(heard.append)
    old, new = record(ALICE, at=Clock.now - 60), record(ALICE)
    assert book.learn_record(old, "lan")
    assert book.learn_record(new, "dht")
    assert not book.learn_record(old, "lan")  # replayed
    assert not book.learn_record(new, "lan")
    assert book.get(ALICE.id) == new
    assert book.counters == {"stale": 1}
    assert heard == [old, new]
    end()
    book.learn_record(record(BOB), "lan")
    assert heard == [old, new]


def test_what_has_ended_is_not_given() -> None:
    clock = Clock()
    book = PeerBook(clock=clock)
    book.learn_record(record(ALICE), "lan")
    clock.now += 601
    assert book.get(ALICE.id) is None
    assert list(book) == []
    assert not book.learn_record(record(ALICE), "lan")
    assert book.counters == {"peer-record-expired": 1}


def test_forged_and_future_records_are_counted() -> None:
    book = PeerBook(clock=Clock())
    forged = forge(record(ALICE).encoded)
    assert book.learn_encoded(forged, "lan") is None
    assert book.learn_encoded(record(ALICE, at=Clock.now + 3600).encoded, "lan") is None
    assert book.learn_encoded(b"x" * 5000, "lan") is None
    assert book.counters == {"peer-record-forged": 1, "peer-record-future": 1, "peer-record": 1}
    assert len(book) == 0


def test_flood_pushes_out_only_what_nobody_has_tried() -> None:
    book = PeerBook(size=10, proven=5, clock=Clock())
    friends = [Identity.generate() for _ in range(6)]
    for each in friends:
        book.learn_record(record(each), "lan")
        book.mark_useful(each.id)
    for _ in range(100):
        book.learn_record(record(Identity.generate()), "lan")
    assert len(book) == 10
    kept = [each for each in friends if book.get(each.id)]
    assert kept == friends[1:]  # the one that was of use longest ago lost its place among five
    assert book.counters["crowded-out"] == 96


def test_peers_in_no_network_on_the_internet_make_no_crowd() -> None:
    """They are as many as there are addresses; those of one network may all be one person's."""
    book = PeerBook(size=10, proven=5, clock=Clock())
    near, crowd = [Identity.generate() for _ in range(4)], [Identity.generate() for _ in range(2)]
    for each in (*near, *crowd):
        book.learn_record(record(each), "lan")
        book.mark_useful(each.id, "5.0.0.0/24" if each in crowd else "")
    for _ in range(100):
        book.learn_record(record(Identity.generate()), "lan")
    assert [each for each in (*near, *crowd) if book.get(each.id)] == [*near, crowd[1]]


def known_of(book: PeerBook, peer: PeerId) -> Known:
    known = book.get_known(peer)
    assert known is not None
    return known


def test_the_nearest_who_tells_a_record_counts_and_is_kept(tmp_path: Path) -> None:
    book = PeerBook(tmp_path / "peers", clock=Clock())
    first, second = record(BOB), record(BOB, at=Clock.now + 1)
    book.learn_record(first, "exchange", Nearness.ANYWHERE)
    book.learn_record(first, "lan", Nearness.NETWORK)
    book.learn_record(first, "gossip", Nearness.ANYWHERE)
    assert known_of(book, BOB.id).teller is Nearness.NETWORK
    asyncio.run(book.save())
    assert known_of(PeerBook(tmp_path / "peers", clock=Clock()), BOB.id).teller is Nearness.NETWORK
    book.learn_record(second, "gossip", Nearness.ANYWHERE)  # nobody near has told this one
    assert known_of(book, BOB.id).teller is Nearness.ANYWHERE


def test_somebody_nearer_who_tells_what_is_known_is_heard_of() -> None:
    book, told, changed = PeerBook(clock=Clock()), list[PeerRecord](), list[PeerRecord]()
    end = book.on_nearer(told.append)
    book.on_change(changed.append)
    first = record(BOB)
    for teller in (Nearness.ANYWHERE, Nearness.NETWORK, Nearness.NETWORK, Nearness.ANYWHERE):
        book.learn_record(first, "gossip", teller)
    assert told == changed == [first]
    end()
    book.learn_record(first, "lan", Nearness.MACHINE)
    assert told == changed == [first]


@pytest.mark.parametrize(
    ("url", "hearers"),
    [
        ("tcp://8.8.8.8:9000", {Nearness.MACHINE, Nearness.NETWORK, Nearness.ANYWHERE}),
        ("tcp://192.168.1.1:80", {Nearness.ANYWHERE}),
        ("tcp://127.0.0.1:80", {Nearness.NETWORK, Nearness.ANYWHERE}),
        ("unheard-of://127.0.0.1:80", {Nearness.MACHINE, Nearness.NETWORK, Nearness.ANYWHERE}),
        # Whoever hears of a name would look it up as told by a neighbour.
        ("tcp://printer.example:80", {Nearness.ANYWHERE}),
        ("ws://127.1:80/path", {Nearness.ANYWHERE}),
        (f"relay://nas.example:80?relay={ALICE.id}&target={BOB.id}", {Nearness.ANYWHERE}),
    ],
)
def test_what_a_stranger_says_of_a_network_is_told_to_nobody_there(url: str, hearers: set[Nearness]) -> None:
    book = PeerBook(clock=Clock())
    book.learn_record(record(BOB, url=url), "exchange", Nearness.ANYWHERE)
    book.learn_record(record(ALICE, url=url), "lan", Nearness.MACHINE)
    each_hearer = (Nearness.MACHINE, Nearness.NETWORK, Nearness.ANYWHERE)
    assert {each for each in each_hearer if known_of(book, BOB.id).is_for(each)} == hearers
    assert all(known_of(book, ALICE.id).is_for(each) for each in each_hearer)


def test_who_may_be_told_is_looked_up_and_not_worked_out_each_time() -> None:
    """An exchange of a neighbour goes through the whole book where strangers have filled it with such records."""
    book, parsed = PeerBook(clock=Clock()), Counter[str]()
    urls = [f"ws://192.168.1.{number}:80/path" for number in range(MAX_ADDRESSES)]
    for _ in range(8):
        stranger = PeerRecord.sign(Identity.generate(), now=Clock.now, ttl=600, addresses=urls)
        book.learn_record(stranger, "exchange", Nearness.ANYWHERE)

    def note(frame: FrameType, event: str, _: object) -> None:
        parsed[frame.f_code.co_name] += event == "call"

    sys.setprofile(note)
    told = [known for known in book if known.is_for(Nearness.NETWORK)]
    sys.setprofile(None)
    assert told == []
    assert parsed["is_for"] == 8
    assert not parsed["direct"]


@pytest.mark.parametrize(
    ("endpoint", "hearers"),
    [
        ("8.8.8.8:4000", {Nearness.NETWORK, Nearness.ANYWHERE}),
        ("192.168.1.1:53", {Nearness.ANYWHERE}),
        ("[fd00::1]:53", {Nearness.ANYWHERE}),
        ("router.example:53", {Nearness.ANYWHERE}),
    ],
)
def test_whom_to_ask_in_a_network_by_the_dht_is_told_to_nobody_there(
    endpoint: str, hearers: set[Nearness]
) -> None:
    book = PeerBook(clock=Clock())
    book.learn_record(record(BOB, url="tcp://8.8.8.8:9000", dht=endpoint), "exchange", Nearness.ANYWHERE)
    each_hearer = (Nearness.NETWORK, Nearness.ANYWHERE)
    assert {each for each in each_hearer if known_of(book, BOB.id).is_for(each)} == hearers


def test_services_are_found() -> None:
    book = PeerBook(clock=Clock())
    book.learn_record(record(ALICE, services=("echo", "files")), "lan")
    book.learn_record(record(BOB, services=("echo",)), "lan")
    book.mark_useful(ALICE.id)
    assert [each.record.peer for each in book.find_service("echo")] == [ALICE.id, BOB.id]
    assert [each.record.peer for each in book.find_service("files")] == [ALICE.id]
    assert list(book.find_service("fil")) == []


def test_book_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "peers"
    book = PeerBook(path, clock=Clock())
    book.learn_record(record(ALICE), "lan")
    book.learn_record(record(BOB), "dht")
    book.mark_useful(ALICE.id)
    asyncio.run(book.save())
    again = PeerBook(path, clock=Clock())
    assert {each.record.peer: each.source for each in again} == {ALICE.id: "lan", BOB.id: "dht"}
    assert [each.record.peer for each in again][-1] == ALICE.id
    assert not again.changed


def test_file_is_trusted_no_more_than_a_stranger(tmp_path: Path) -> None:
    path = tmp_path / "peers"
    forged = forge(record(BOB).encoded)
    entries = [
        [record(ALICE).encoded, "lan", True, 2, ""],
        [forged, "lan", True, 2, ""],
        "nonsense",
        [1, 2, 3],
    ]
    path.write_bytes(msgpack.packb([3, [], entries]))
    book = PeerBook(path, clock=Clock())
    assert [each.record.peer for each in book] == [ALICE.id]
    assert book.counters == {"peer-record-forged": 1, "peer-record": 2}


@pytest.mark.parametrize(
    "content", [b"", b"\xc1", b"\x91" * 2000, msgpack.packb([4, [], []]), bytes(9 << 20)]
)
def test_file_that_is_none_is_left_out(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "peers"
    path.write_bytes(content)
    assert len(PeerBook(path, clock=Clock())) == 0


def test_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "peers"
    path.write_bytes(msgpack.packb([3, [], [[record(ALICE).encoded, "lan", True, 2, ""], bytes(9 << 20)]]))
    assert len(PeerBook(path, clock=Clock())) == 0


def test_file_that_can_not_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    book = PeerBook(tmp_path / "file" / "peers", clock=Clock())
    book.learn_record(record(ALICE), "lan")
    with pytest.raises(BookNotKept, match="can't write"):
        asyncio.run(book.save())
    assert book.changed


def test_a_full_book_looks_for_records_that_have_ended_once_a_minute() -> None:
    """A flood of records would cost a look at all of them for each."""
    clock = Clock()
    book = PeerBook(size=10, clock=clock)
    ending = [record(Identity.generate(), at=Clock.now - 550) for _ in range(5)]  # for 50 s more
    for each in (*ending, *(record(Identity.generate()) for _ in range(6))):
        book.learn_record(each, "lan")
    assert book.counters["crowded-out"] == 1
    clock.now = Clock.now + 51
    book.learn_record(record(Identity.generate(), at=clock.now), "lan")
    assert book.counters["crowded-out"] == 2  # nobody has looked
    clock.now = Clock.now + 61
    book.learn_record(record(Identity.generate(), at=clock.now), "lan")
    assert book.counters["crowded-out"] == 2
    clock.now = Clock.now - 3600  # set back
    book.learn_record(record(Identity.generate(), at=clock.now), "lan")
    assert len(book) <= 10


YEAR = 365 * 86_400.0


@pytest.mark.parametrize("wrong", [-YEAR, -3600.0, YEAR])
def test_peers_are_known_again_though_the_clock_was_wrong_when_the_machine_started(
    wrong: float, tmp_path: Path
) -> None:
    """Many machines have no clock of their own: theirs is set after they have started."""
    book = PeerBook(tmp_path / "peers", clock=Clock())
    for each in (ALICE, BOB):
        book.learn_record(record(each), "lan", Nearness.NETWORK)
    book.mark_useful(ALICE.id)
    asyncio.run(book.save())
    clock = Clock()
    clock.now = Clock.now + wrong
    started = PeerBook(tmp_path / "peers", clock=clock)
    assert list(started) == []
    started.note_addresses(frozenset({"192.168.1.5"}))  # so that there is something to save
    asyncio.run(started.save())
    clock.now = Clock.now
    for again in (started, PeerBook(tmp_path / "peers", clock=Clock())):
        assert [each.record.peer for each in again] == [BOB.id, ALICE.id]
        assert known_of(again, BOB.id).teller is Nearness.NETWORK


def test_what_has_ended_is_not_kept_on_the_disk_for_ever(tmp_path: Path) -> None:
    clock = Clock()
    book = PeerBook(tmp_path / "peers", clock=clock)
    book.learn_record(record(ALICE, at=Clock.now - 550), "lan")
    clock.now = Clock.now + 100
    book.learn_record(record(BOB, at=clock.now), "lan")
    asyncio.run(book.save())
    assert len(PeerBook(tmp_path / "peers", clock=clock)) == 1


def test_a_record_of_a_clock_that_was_ahead_gives_way_to_one_of_now() -> None:
    clock = Clock()
    clock.now = Clock.now + YEAR
    book = PeerBook(clock=clock)
    book.learn_record(record(BOB, at=clock.now), "lan")
    clock.now = Clock.now
    assert book.get(BOB.id) is None
    assert list(book) == []
    assert book.learn_record(record(BOB), "lan")
    assert book.get(BOB.id) == record(BOB)


def test_who_was_told_of_in_another_network_counts_as_told_from_anywhere(tmp_path: Path) -> None:
    """At the same private addresses are others there, and neighbours there would take it as this node's word."""
    book, carol = PeerBook(tmp_path / "peers", clock=Clock()), Identity.generate()
    book.note_addresses(frozenset({"127.0.0.1", "192.168.1.5"}))
    book.learn_record(record(ALICE), "lan", Nearness.NETWORK)
    book.learn_record(record(BOB), "lan", Nearness.MACHINE)
    book.mark_useful(ALICE.id)
    book.note_addresses(frozenset({"127.0.0.1", "192.168.1.5", "10.0.0.5"}))  # another one besides
    assert known_of(book, ALICE.id).teller is Nearness.NETWORK
    asyncio.run(book.save())
    again = PeerBook(tmp_path / "peers", clock=Clock())
    for each in (book, again):  # it has moved while it ran, or while it didn't
        each.note_addresses(frozenset({"127.0.0.1", "10.0.0.5"}))
        assert known_of(each, ALICE.id).teller is Nearness.ANYWHERE
        assert known_of(each, BOB.id).teller is Nearness.MACHINE
        each.learn_record(record(carol), "lan", Nearness.NETWORK)
        each.learn_record(record(ALICE), "lan", Nearness.NETWORK)  # it is here, too
        each.note_addresses(frozenset({"127.0.0.1", "10.0.0.5"}))
        assert known_of(each, carol.id).teller is known_of(each, ALICE.id).teller is Nearness.NETWORK


def test_a_virtual_network_that_goes_takes_no_neighbour_of_another_network_with_it() -> None:
    """As of containers, or a VPN, that come and go; the same addresses are on other machines."""
    book, carol = PeerBook(clock=Clock()), Identity.generate()
    book.note_addresses(frozenset({"127.0.0.1", "192.168.1.5", "172.17.0.1", "5.0.0.1"}))
    told = {
        ALICE: ("tcp://192.168.1.9:1", "tcp://172.17.0.1:1"),
        BOB: ("tcp://172.17.0.9:1", "tcp://127.0.0.1:1", "tcp://[192.168.1.9", "unheard-of://192.168.1.9:1"),
        carol: ("tcp://172.17.0.8:1", "tcp://5.0.0.2:1"),
    }
    for identity, urls in told.items():
        signed = PeerRecord.sign(identity, now=Clock.now, addresses=urls)
        book.learn_record(signed, "lan", Nearness.NETWORK)
    book.note_addresses(frozenset({"127.0.0.1", "192.168.1.5", "5.0.0.1"}))
    assert known_of(book, ALICE.id).teller is Nearness.NETWORK
    assert known_of(book, BOB.id).teller is known_of(book, carol.id).teller is Nearness.ANYWHERE
    book.note_addresses(frozenset({"127.0.0.1", "192.168.1.77"}))  # another network of the same numbers
    assert known_of(book, ALICE.id).teller is Nearness.ANYWHERE


def test_at_another_router_of_the_same_address_nobody_is_a_neighbour_any_more(tmp_path: Path) -> None:
    """Also where the machine was off meanwhile; neighbours of other networks stay."""
    book = PeerBook(tmp_path / "peers", clock=Clock())
    own = {"127.0.0.1", "192.168.1.5", "172.17.0.1"}
    book.note_addresses(frozenset({*own, "02:00:00:00:00:01@192.168.1.1"}))
    for identity, host in ((ALICE, "192.168.1.9"), (BOB, "172.17.0.9")):
        signed = PeerRecord.sign(identity, now=Clock.now, addresses=[f"tcp://{host}:1"])
        book.learn_record(signed, "lan", Nearness.NETWORK)
    book.note_addresses(frozenset(own))  # it hasn't spoken with its router for a while
    asyncio.run(book.save())
    for each in (book, PeerBook(tmp_path / "peers", clock=Clock())):
        assert known_of(each, ALICE.id).teller is Nearness.NETWORK
        each.note_addresses(frozenset({*own, "02:00:00:00:00:02@192.168.1.1"}))
        assert known_of(each, ALICE.id).teller is Nearness.ANYWHERE
        assert known_of(each, BOB.id).teller is Nearness.NETWORK


@pytest.mark.parametrize(
    ("own", "stays"),
    [
        ("10.1.0.5/16", True),
        ("10.1.0.5/24", False),
        ("10.1.0.5", False),
        *[(text, False) for text in ("10.1.0.5/x", "10.1.0.5/99", "10.1.0", "fe80::1/64")],
    ],
)
def test_neighbours_of_a_large_network_stay_when_another_one_goes(own: str, *, stays: bool) -> None:
    """As of containers, which come and go on a server of a provider's network."""
    book = PeerBook(clock=Clock())
    book.note_addresses(frozenset({"127.0.0.1/8", own, "172.18.0.1/16"}))
    book.learn_record(
        PeerRecord.sign(ALICE, now=Clock.now, addresses=["tcp://10.1.7.9:1"]), "exchange", Nearness.NETWORK
    )
    book.note_addresses(frozenset({"127.0.0.1/8", own}))
    assert (known_of(book, ALICE.id).teller is Nearness.NETWORK) is stays
