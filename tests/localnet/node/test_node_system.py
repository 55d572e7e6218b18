"""Genesis, the clock, epochs, randomness, the faucet."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from node_world import CLOCK, World
from playground import Play

from dtp.localnet.model import TransactionRejected
from dtp.localnet.node import DEFAULT_GENESIS_TIME_MS, ClockError, LocalNode
from dtp.localnet.system import SYSTEM_STATE, TOTAL_SUPPLY
from dtp.sui.objects import SUI_TYPE, SharedOwner
from dtp.sui.transaction import ChangeEpoch, ConsensusCommitPrologue, Genesis, RandomnessStateUpdate


def clock(node: LocalNode) -> int:
    record = node.find_object(CLOCK)
    assert record is not None
    return int.from_bytes(record.contents[32:], "little")


def test_genesis(world: World) -> None:
    node = world.node
    (first,) = node.checkpoint_transactions(0)
    assert isinstance(first.transaction.data.kind, Genesis)
    assert {r.id[-1] for r in first.outputs if r.package} == {1, 2}
    assert node.get_balance(node.faucet_address, SUI_TYPE).amount == TOTAL_SUPPLY
    for number in (5, 6, 8):
        record = node.find_object(number.to_bytes(32, "big"))
        assert record is not None
        assert record.owner == SharedOwner(1)
    zero = node.find_checkpoint(0)
    assert zero is not None
    assert node.service_info().chain == zero.digest


def test_chains_differ_by_seed_and_are_the_same_without() -> None:
    def chain(seed: bytes) -> bytes:
        with LocalNode.open(now=None, seed=seed) as node:
            return node.service_info().chain

    assert chain(b"") == chain(b"") != chain(b"x")


def test_the_clock_moves_by_hand(world: World) -> None:
    node = world.node
    assert clock(node) == DEFAULT_GENESIS_TIME_MS
    world.wallet("alice", 1)
    assert clock(node) == DEFAULT_GENESIS_TIME_MS
    record = node.advance_clock(1234)
    assert clock(node) == DEFAULT_GENESIS_TIME_MS + 1234
    assert record.summary.timestamp_ms == clock(node)
    (tick,) = node.checkpoint_transactions(record.sequence)
    assert isinstance(tick.transaction.data.kind, ConsensusCommitPrologue)
    for wrong in (0, -5):
        with pytest.raises(ClockError):
            node.advance_clock(wrong)


def test_the_clock_follows_a_clock() -> None:
    times = [1_000]
    with LocalNode.open(now=lambda: times[0]) as node:
        world = World(node)
        assert clock(node) == 1_000
        times[0] = 1_500
        world.wallet("alice", 1)
        assert clock(node) == 1_500
        latest = node.find_checkpoint()
        assert latest is not None
        assert len(latest.digests) == 2  # the clock, then the faucet's
        times[0] = 700  # a clock set back does not move time back
        world.wallet("alice", 1)
        assert clock(node) == 1_500
        node.advance_clock(10_000)
        assert clock(node) == 11_500
        times[0] = 2_000
        world.wallet("alice", 1)
        assert clock(node) == 12_000  # what was added stays added


@pytest.mark.parametrize("how", ["clock", "info", "checkpoint"])
def test_time_passes_while_nobody_transacts(how: str) -> None:
    """On Sui the clock ticks several times a second; who waited for a period here waited for ever."""
    times = [1_000]

    def read() -> int:
        if how == "clock":
            return clock(node)
        if how == "info":
            return node.service_info().timestamp_ms
        latest = node.find_checkpoint()
        assert latest is not None
        return latest.summary.timestamp_ms

    with LocalNode.open(now=lambda: times[0]) as node:
        assert read() == 1_000
        first = node.find_object(CLOCK)
        assert first is not None
        times[0] += 100  # too little for a checkpoint
        assert read() == 1_000
        times[0] += 60_000
        assert read() == 61_100
        now = node.find_object(CLOCK)
        assert now is not None
        assert int.from_bytes(now.contents[32:40], "little") == 61_100
        assert now.version > first.version
        assert node.find_object(CLOCK, first.version) == first  # who asks for a version gets that
        times[0] = 500
        assert read() == 61_100


def test_epochs(play: Play) -> None:
    node = play.world.node
    before = node.find_epoch()
    assert before is not None
    assert (before.epoch, before.last_checkpoint, before.reference_gas_price) == (0, None, 1000)
    fresh = node.advance_epoch(reference_gas_price=2000)
    assert (fresh.epoch, fresh.reference_gas_price) == (1, 2000)
    ended = node.find_epoch(0)
    assert ended is not None
    assert ended.last_checkpoint == fresh.first_checkpoint - 1
    last = node.find_checkpoint(ended.last_checkpoint)
    assert last is not None
    assert last.summary.end_of_epoch is not None
    assert last.summary.epoch == 0
    (change,) = node.checkpoint_transactions(ended.last_checkpoint)
    kind = change.transaction.data.kind
    assert isinstance(kind, ChangeEpoch)
    assert kind.epoch == 1
    assert kind.computation_charge > 0
    assert node.find_object(SYSTEM_STATE) is not None
    tx = play.tx()
    play.call(tx, "epoch")
    found = node.simulate(play.world.data(tx, play.alice))
    assert found.commands[0].returned[0].json == "1"
    done = play.world.ok(tx, play.alice)
    assert done.effects.epoch == 1
    latest = node.find_checkpoint()
    assert latest is not None
    # Costs roll up per epoch.
    assert latest.summary.epoch_rolling_gas_cost == done.effects.gas_used
    with pytest.raises(TransactionRejected):
        play.world.run(tx, play.alice, price=1000)
    with pytest.raises(ClockError):
        node.advance_epoch(reference_gas_price=0)
    assert node.find_epoch(7) is None


def test_randomness_is_new_each_time_and_repeats_with_the_chain() -> None:
    def rolls() -> Iterator[str]:
        with LocalNode.open(now=None) as node:
            play = Play.begin(World(node))
            for epoch in range(2):
                for _ in range(3):
                    tx = play.tx()
                    play.call(tx, "roll", tx.read((8).to_bytes(32, "big")))
                    done = play.ok(tx)
                    kinds = [
                        type(e.transaction.data.kind)
                        for e in node.checkpoint_transactions(node.service_info().checkpoint)
                    ]
                    assert RandomnessStateUpdate in kinds
                    yield done.events[0].json["value"]
                if epoch == 0:
                    node.advance_epoch()

    first = list(rolls())
    assert len(set(first)) == 6
    assert list(rolls()) == first


def test_nothing_may_judge_randomness_afterwards(play: Play) -> None:
    tx = play.tx()
    play.call(tx, "roll", tx.read((8).to_bytes(32, "big")))
    play.call(tx, "nothing")
    with pytest.raises(TransactionRejected) as refused:
        play.ok(tx)
    assert refused.value.kind == "PostRandomCommandRestrictions"


def test_the_faucet(world: World) -> None:
    address = bytes([7]) * 32
    done = world.node.fund_address(address)
    assert done.effects.ok
    assert world.node.get_balance(address, SUI_TYPE).amount == 10_000_000_000
    world.node.fund_address(address, [1, 2, 3])
    assert world.node.get_balance(address, SUI_TYPE).coins == 4
    sequence = world.node.service_info().checkpoint
    for wrong in ([], [-1], [0], [1 << 64], [TOTAL_SUPPLY]):
        with pytest.raises(TransactionRejected):
            world.node.fund_address(address, wrong)
    with pytest.raises(TransactionRejected):
        world.node.fund_address(b"short", 1)
    assert world.node.service_info().checkpoint == sequence
