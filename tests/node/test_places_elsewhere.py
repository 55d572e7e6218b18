"""Where a hidden node takes its place, and by which ways others hear that it is reached there."""

from __future__ import annotations

import asyncio
import time
from urllib.parse import urlsplit

import dtp
from dtp.carriers.nearness import Nearness
from dtp.net.address import Address
from dtp.node.finding import PeerFinding
from dtp.node.places import (
    MOST_RELAYS,
    PLACE_TIME,
    LinkedRelays,
    list_other_ways,
    list_told,
    list_ways,
    take_first,
)
from dtp.peers.book import PeerBook
from dtp.peers.links import NODE_SERVICE
from dtp.peers.reach.messages import RELAY_SERVICE
from dtp.peers.reach.relay_client import RelayPlace
from dtp.peers.record import MAX_ADDRESSES, PeerRecord
from dtp.testing.clock import run
from dtp.testing.pairs import ALICE

ME, RELAY = dtp.Identity(bytes(range(32))), dtp.Identity(bytes(range(1, 33)))
URLS = ("tcp://192.0.2.7:9001", "tcp://10.0.0.7:9001", "quic://10.0.0.7:9000", "quic://192.0.2.7:9000")
RECORD = PeerRecord.sign(RELAY, now=0.0, addresses=URLS, services=(NODE_SERVICE, RELAY_SERVICE))
QUIC = RelayPlace.parse(f"relay://192.0.2.7:9000?relay={RELAY.id}&via=quic")
TCP = RelayPlace.parse(f"relay://192.0.2.7:9001?relay={RELAY.id}")


def asked(*answers: str) -> list[tuple[str, float]]:
    """Return which of a place's URLs were tried when at a relay that swallows all, or refuses, but `answers`."""
    tried: list[tuple[str, float]] = []

    async def take(url: str) -> bool:
        tried.append((url, asyncio.get_running_loop().time()))
        if answers and url not in answers:
            await asyncio.Event().wait()
        return url in answers

    async def main() -> None:
        assert await take_first([QUIC.own_url, TCP.own_url], take) is bool(answers)

    run(main())
    return tried


def test_where_udp_is_swallowed_a_place_comes_by_tcp_in_seconds() -> None:
    (first, began), (second, at) = asked(TCP.own_url)
    assert (first, second) == (QUIC.own_url, TCP.own_url)
    assert at - began == PLACE_TIME


def test_where_udp_passes_nothing_else_is_asked() -> None:
    assert [url for url, _ in asked(QUIC.own_url)] == [QUIC.own_url]


def test_where_all_refuse_there_is_no_place() -> None:
    assert [url for url, _ in asked()] == [QUIC.own_url, TCP.own_url]


def test_a_place_is_told_by_the_other_carriers_of_its_relay_at_that_address() -> None:
    """Who dials may have no UDP, and a relay leads to a place by whatever it is reached."""
    others = list(list_other_ways([QUIC.own_url], lambda _: RECORD, ME.id))
    assert others == [TCP.url_for(ME.id)]
    assert not list(list_other_ways([QUIC.own_url], lambda _: None, ME.id))


def test_who_leads_nowhere_by_what_is_known_is_asked_for_at_linked_relays() -> None:
    relays = LinkedRelays(lambda: [QUIC, TCP] * 4)
    address = Address("dtp", peer=ME.id, service="echo")

    async def main() -> None:
        assert await relays.resolve(address) == []
        found = await relays.resolve_again(address)
        places = [RelayPlace.parse(each.address.carrier_url) for each in found[:2]]
        assert [(each.address, each.target) for each in places] == [
            (QUIC.address, ME.id),
            (TCP.address, ME.id),
        ]
        assert {each.address.service for each in found} == {"echo"}
        assert len(found) == MOST_RELAYS
        assert await relays.resolve_again(Address.parse("dtp://somebody")) == []

    run(main())


def test_of_a_machine_with_many_networks_places_at_relays_stay_in_the_record() -> None:
    finding = PeerFinding(ME, PeerBook(), ())
    own = [f"tcp://10.{number}.0.1:9000" for number in range(MAX_ADDRESSES + 4)]
    place = f"relay://192.0.2.7:9000?relay={RELAY.id}&target={ME.id}"
    finding.publish_record((*own, place), (NODE_SERVICE,), 3600.0)
    assert finding.record is not None
    assert list(finding.record.addresses) == [*own[: MAX_ADDRESSES - 1], place]


def test_a_relay_whose_record_names_what_is_no_address_is_asked_at_the_others() -> None:
    """Else one linked node would keep this one from all relays."""
    nonsense = ["tcp://[192.0.2.7", "quic://192.0.2.7:99999", "tcp://", "://"]
    record = PeerRecord.sign(
        ALICE, now=time.time(), addresses=[*nonsense, "tcp://192.0.2.7:1"], services=[RELAY_SERVICE]
    )
    assert [way.carrier_url for way in list_ways(record)] == ["tcp://192.0.2.7:1"]


def test_of_a_record_that_is_dialled_which_its_teller_may_have_dialled() -> None:
    """Who is on the internet has nothing here dialled, and nobody what uses this machine's proxies."""
    urls = (
        "tcp://10.0.0.1:1",
        "tcp://8.8.8.8:2",
        "wss://8.8.4.4:3?proxy=http://h:1",
        "relay://8.8.8.8:4?relay=x",
    )
    record = PeerRecord.sign(RELAY, now=0.0, addresses=urls)

    def ports(teller: Nearness) -> list[int | None]:
        return [urlsplit(each.carrier_url).port for each in list_told(record, teller)]

    assert ports(Nearness.PROCESS) == [1, 2]
    assert ports(Nearness.ANYWHERE) == [2]
    assert list_told(None, Nearness.PROCESS) == []
