"""What a node has signed while its clock was ahead is signed anew once that is right: nobody takes it before."""

from __future__ import annotations

import asyncio
import time

import pytest

from dtp.identity import Identity
from dtp.node.finding import PeerFinding
from dtp.peers.book import PeerBook
from dtp.peers.dht import Dht
from dtp.peers.dht.limits import DEFAULT_LIMITS
from dtp.peers.dht.records import Mutable, Provider, Record, RecordKind
from dtp.peers.record import MAX_SKEW, PeerRecord
from dtp.testing.clock import run
from dtp.testing.dht import DhtSwarm

DAY = 86_400.0
AHEAD = [MAX_SKEW + 60, 2 * DAY, 400 * DAY]


@pytest.mark.parametrize("ahead", AHEAD)
@pytest.mark.parametrize("kind", [RecordKind.PEER, RecordKind.MUTABLE, RecordKind.PROVIDER])
def test_what_was_published_by_a_clock_that_was_ahead_is_found_once_it_is_right(
    kind: RecordKind, ahead: float
) -> None:
    swarm = DhtSwarm(1)
    swarm.add_nodes(12)
    swarm.run_for(2)
    here, there, *_ = swarm.nodes
    node, wrong = swarm.nodes[here], swarm.unix + ahead
    node.set_unix(swarm.now, wrong)
    value: PeerRecord | Mutable | Provider
    if kind is RecordKind.PEER:
        value = PeerRecord.sign(node.identity, now=wrong, addresses=["tcp://192.0.2.7:9000"])
    elif kind is RecordKind.MUTABLE:
        value = Mutable.sign(node.identity, b"x", name="n", sequence=1, now=wrong)
    else:
        value = Provider.sign(node.identity, bytes(32), now=wrong)
    record = Record.from_value(value)
    swarm.run_operation(here, lambda node, now: node.publish_record(record, now))
    get = lambda node, now: node.get_records(kind, record.target, now)  # noqa: E731
    assert swarm.run_operation(there, get) == []
    node.set_unix(swarm.now, swarm.unix)
    swarm.run_for(DEFAULT_LIMITS.republish + 60)
    (found,) = swarm.run_operation(there, get)
    assert found.author == node.identity.id.key
    assert found.expires <= swarm.unix + DAY


@pytest.mark.parametrize("ahead", AHEAD)
def test_a_node_s_record_is_of_the_time_that_its_clock_has_when_that_was_ahead(ahead: float) -> None:
    clock = [1_800_000_000.0 + ahead]
    finding = PeerFinding(Identity.generate(), PeerBook(), (), clock=lambda: clock[0])
    finding.publish_record(["tcp://192.0.2.1:9000"], ["dtp.node"], 3600)
    clock[0] -= ahead
    finding.publish_record(["tcp://192.0.2.1:9000"], ["dtp.node"], 3600)
    assert finding.record is not None
    finding.record.check_time(clock[0])
    assert finding.record.expires == clock[0] + 3600
    first = finding.record
    clock[0] -= 60  # as clocks are set a little: later ones are newer all the same
    finding.publish_record(["tcp://192.0.2.1:9000"], ["dtp.node"], 3600)
    assert finding.record.supersedes(first)


def test_the_driver_takes_what_is_of_now_instead_of_what_is_of_the_future() -> None:
    async def main() -> None:
        alice = Identity.generate()
        async with (
            Dht(alice, bind=("127.0.0.1", 0)) as one,
            Dht(Identity.generate(), bind=("127.0.0.1", 0), bootstrap=[one.endpoint]) as other,
        ):
            await one.wait_joined()
            future = PeerRecord.sign(alice, now=time.time() + 2 * DAY, addresses=["tcp://192.0.2.1:1"])
            one.publish_later(future)
            now = PeerRecord.sign(alice, now=time.time(), addresses=["tcp://192.0.2.2:2"])
            assert await one.publish(now) == 1
            assert await other.find(alice.id) == now

    run(main(), loop_factory=asyncio.SelectorEventLoop)
