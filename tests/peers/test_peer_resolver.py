"""The resolver: the book, then finders at the same time; the first answer counts, and a slow one holds up nobody."""

from __future__ import annotations

import asyncio
import gc

import pytest

from dtp.carriers.nearness import Nearness
from dtp.errors import CarrierError
from dtp.identity import Identity, PeerId
from dtp.net.address import Address
from dtp.net.resolver import resolve_others
from dtp.peers.book import PeerBook
from dtp.peers.record import PeerRecord
from dtp.peers.resolver import PATIENCE, PATIENCE_KNOWN, PeerResolver
from dtp.testing import clock
from dtp.testing.pairs import ALICE, BOB
from dtp.testing.resolvers import check_resolver

NOW = 1_800_000_000.0
AT_ALICE = Address("dtp", peer=ALICE.id, service="echo")


def record(*urls: str, at: float = NOW, by: Identity = ALICE) -> PeerRecord:
    return PeerRecord.sign(by, now=at, addresses=urls)


class Found:
    """A finder that has one answer, after so many seconds."""

    source, teller = "lan", Nearness.NETWORK

    def __init__(self, answer: PeerRecord | Exception | None, after: float = 0.0) -> None:
        self.answer, self.after = answer, after
        self.cancelled = False

    async def find_record(self, peer: PeerId) -> PeerRecord | None:
        try:
            await asyncio.sleep(self.after)
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def resolved(*finders: Found, known: PeerRecord | None = None) -> tuple[list[str], float, PeerBook]:
    """The URLs that are found, and after how long."""
    book = PeerBook(clock=lambda: NOW)
    if known is not None:
        book.learn_record(known, "cache")

    async def main() -> tuple[list[str], float]:
        found = await PeerResolver(book, finders).resolve(AT_ALICE)
        assert all(each.address.peer == ALICE.id and each.address.service == "echo" for each in found)
        ordered = sorted(found, key=lambda each: each.priority)
        return [each.address.carrier_url for each in ordered], asyncio.get_running_loop().time()

    return *clock.run(main()), book


def test_book_is_enough() -> None:
    assert resolved(known=record("tcp://a:1", "ws://b:2/x"))[:2] == (["tcp://a:1", "ws://b:2/x"], 0)


def test_first_finder_that_knows_counts() -> None:
    slow = Found(record("tcp://slow:1"), after=2)
    urls, after, book = resolved(Found(None), slow, Found(record("tcp://quick:1"), after=0.01))
    assert (urls, after) == (["tcp://quick:1"], 0.01)
    assert slow.cancelled
    assert book.get(ALICE.id) is not None


def test_a_finder_that_fails_as_another_one_finds_is_no_error_of_the_loop() -> None:
    book, reported = PeerBook(clock=lambda: NOW), list[str]()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: reported.append(context["message"]))
        for _ in range(32):  # in which order tasks of one turn are looked at differs
            closed = [Found(CarrierError("this one has been closed")) for _ in range(3)]
            found = await PeerResolver(book, [*closed, Found(record("tcp://a:1"))]).find_record(
                ALICE.id, PATIENCE
            )
            assert found is not None
        del found, closed
        gc.collect()

    clock.run(main())
    assert not reported


def test_nobody_is_waited_for_for_long() -> None:
    assert resolved(Found(record("tcp://a:1"), after=99))[:2] == ([], PATIENCE)


@pytest.mark.parametrize("is_known", [False, True])
def test_who_is_told_of_while_finders_look_is_found_by_that(is_known: bool) -> None:
    """A node that has just been linked tells of its peers, and the DHT may know nobody at all."""
    book = PeerBook(clock=lambda: NOW)
    told, after = record("tcp://told:1", at=NOW + 1), PATIENCE_KNOWN / 2
    if is_known:
        book.learn_record(record("tcp://old:1"), "cache")

    async def main() -> None:
        loop, slow = asyncio.get_running_loop(), Found(None, after=99)
        loop.call_later(after / 2, book.learn_record, record("tcp://b:1", by=BOB), "b")
        loop.call_later(after, book.learn_record, told, "b")
        found = await PeerResolver(book, [slow, Found(None)]).resolve(AT_ALICE)
        assert found[0].address.carrier_url == "tcp://told:1"
        assert loop.time() == after
        assert slow.cancelled
        assert (
            await PeerResolver(book, [Found(None)]).find_record(BOB.id, PATIENCE) is None
        )  # nobody is waited for then
        assert loop.time() == after

    clock.run(main())


def test_who_moved_long_ago_is_found_when_asked_again() -> None:
    """The DHT takes longer than one that is known is waited for, wherever there is a real network."""
    book = PeerBook(clock=lambda: NOW)
    book.learn_record(record("tcp://old:1"), "cache")
    finder = Found(record("tcp://new:1", at=NOW + 1), after=1)

    async def main() -> None:
        resolver = PeerResolver(book, [finder])
        old = await resolver.resolve(AT_ALICE)
        others = await resolve_others(AT_ALICE, [resolver], old)
        assert [each.address.carrier_url for each in old] == ["tcp://old:1"]
        assert [each.address.carrier_url for each in others] == ["tcp://new:1"]
        assert asyncio.get_running_loop().time() == PATIENCE_KNOWN + 1
        finder.answer = CarrierError("no DHT")
        assert await resolve_others(AT_ALICE, [resolver], [*old, *others]) == []
        nobody = Address("dtp", peer=BOB.id, service="echo")
        assert await resolver.resolve_again(nobody) == []  # it was waited for long enough before

    clock.run(main())


def test_peer_that_moved_is_dialled_at_the_new_place_first() -> None:
    moved = Found(record("tcp://new:1", at=NOW + 1), after=0.01)
    assert resolved(moved, known=record("tcp://old:1"))[0] == ["tcp://new:1", "tcp://old:1"]
    late = Found(record("tcp://new:1", at=NOW + 1), after=1)
    assert resolved(late, known=record("tcp://old:1"))[:2] == (["tcp://old:1"], PATIENCE_KNOWN)


def test_finder_that_fails_or_names_another_is_passed_over() -> None:
    other = Found(record("tcp://evil:1", by=BOB))
    broken = Found(CarrierError("no network"))
    assert resolved(other, broken, Found(record("tcp://a:1"), after=0.5))[:2] == (["tcp://a:1"], 0.5)


def test_record_leads_to_no_socket_of_this_machine_and_to_no_purse() -> None:
    here = ("unix:///run/secret", "wss://a/?ca=/dev/stdin", "ws://a:1/?x=1&proxy=http://127.0.0.1:1")
    known = record(*here, f"pipe://0x{'0' * 64}", "later://a:1", "tcp://no port", "tcp://a:1")
    assert resolved(known=known)[0] == ["tcp://a:1"]


def test_resolver_keeps_the_contract() -> None:
    book = PeerBook(clock=lambda: NOW)
    book.learn_record(record("tcp://192.0.2.7:9000"), "lan")

    async def main() -> None:
        known = Address("dtp", peer=ALICE.id, service="echo")
        for unknown in (Address("dtp", peer=BOB.id), Address("dtp", name="alice")):
            await check_resolver(PeerResolver(book), known, unknown)

    clock.run(main())
