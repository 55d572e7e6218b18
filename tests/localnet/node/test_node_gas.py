"""Gas: smashing, budgets, rounding, storage and rebates, running out; and where the money is afterwards."""

from __future__ import annotations

import pytest
from node_world import created
from playground import Play

from dtp.localnet.gas import StorageChange, computation_cost, object_size, storage_cost, total_cost
from dtp.localnet.model import TransactionRejected
from dtp.localnet.system import TOTAL_SUPPLY
from dtp.sui.effects import GasCost, IdOperation, OutAbsent
from dtp.sui.names import parse_type
from dtp.sui.objects import SUI_TYPE
from dtp.sui.transaction import Argument, MakeMoveVec


def balance(play: Play) -> int:
    return play.world.node.get_balance(play.alice.address, SUI_TYPE).amount


def test_a_gas_coin_costs_what_it_costs_on_mainnet(play: Play) -> None:
    """130 metered bytes at 7,600 MIST a byte: the figure every explorer shows for a SUI coin."""
    coin = play.world.coins(play.alice)[0]
    assert object_size(coin.value.data) == 130
    assert coin.storage_rebate == storage_cost(130) == 988_000


@pytest.mark.parametrize(
    ("units", "price", "cost"),
    [(0, 1000, 1_000_000), (1, 1000, 1_000_000), (1000, 1, 1000), (1001, 750, 1_500_000)],
)
def test_computation_is_rounded_up(units: int, price: int, cost: int) -> None:
    assert computation_cost(units, price) == cost


def test_rebates_are_99_percent_rounded_half_up() -> None:
    cost = total_cost(0, [StorageChange(0, 988_000)])
    assert cost == GasCost(0, 0, 978_120, 9_880)
    assert total_cost(0, [StorageChange(0, 50)]).storage_rebate == 50  # 49.5
    assert total_cost(0, [StorageChange(0, 51)]).storage_rebate == 50  # 50.49


def test_a_transfer_charges_storage_of_what_is_new_and_computation(play: Play) -> None:
    before = balance(play)
    tx = play.tx()
    tx.send(play.world.wallet("bob").address, tx.pay(1))
    done = play.ok(tx)
    cost = done.effects.gas_used
    # The gas coin is written again and the new coin besides.
    assert cost.storage == 2 * 988_000
    assert cost.storage_rebate + cost.non_refundable == 988_000
    assert cost.computation == 1_000_000
    assert balance(play) == before - 1 - cost.net


def test_deleting_gives_storage_back(play: Play) -> None:
    thing = play.thing()
    rebate = play.record(thing).storage_rebate
    before = balance(play)
    tx = play.tx()
    play.call(tx, "burn", tx.object(thing))
    cost = play.ok(tx).effects.gas_used
    assert cost.storage == 988_000
    assert cost.storage_rebate + cost.non_refundable == 988_000 + rebate
    assert balance(play) == before - cost.net


def test_several_gas_coins_become_one(play: Play) -> None:
    coins = play.world.coins(play.alice)
    total = balance(play)
    tx = play.tx()
    play.call(tx, "nothing")
    done = play.world.ok(tx, play.alice, payment=tuple(c.ref for c in coins))
    (left,) = play.world.coins(play.alice)
    assert left.id == coins[0].id
    assert balance(play) == total - done.effects.gas_used.net
    gone = dict(done.effects.changed)[coins[1].id]
    assert (gone.after, gone.id_operation) == (OutAbsent(), IdOperation.DELETED)


def test_they_become_one_when_the_transaction_fails_too(play: Play) -> None:
    coins = play.world.coins(play.alice)
    total = balance(play)
    tx = play.tx()
    play.call(tx, "fail")
    done = play.world.run(tx, play.alice, payment=tuple(c.ref for c in coins))
    assert not done.effects.ok
    assert balance(play) == total - done.effects.gas_used.net
    (left,) = play.world.coins(play.alice)
    assert [r.id for r in done.outputs] == [left.id]
    # Storage is charged for the one that is left only.
    assert done.effects.gas_used.storage == 988_000


def test_the_gas_coin_is_named_in_the_effects(play: Play) -> None:
    coin = play.world.coins(play.alice)[0]
    tx = play.tx()
    play.call(tx, "keep", tx.u64(1))
    effects = play.world.ok(tx, play.alice, payment=(coin.ref,)).effects
    assert effects.gas_object_index is not None
    assert effects.changed[effects.gas_object_index][0] == coin.id


@pytest.mark.parametrize("budget", [2_000_000, 2_500_000, 4_000_000])
def test_a_budget_that_does_not_cover_storage(play: Play, budget: int) -> None:
    before = balance(play)
    tx = play.tx()
    for _ in range(4):
        play.call(tx, "keep", tx.u64(1))
    done = play.world.fails(tx, play.alice, "InsufficientGas", None, budget=budget)
    assert done.effects.gas_used.net <= budget
    assert balance(play) == before - done.effects.gas_used.net


def test_a_program_that_never_ends(play: Play) -> None:
    before = balance(play)
    tx = play.tx()
    play.call(tx, "spin")
    done = play.world.fails(tx, play.alice, "InsufficientGas", 0, budget=20_000_000)
    assert done.effects.gas_used.computation == 20_000_000
    assert balance(play) == before - done.effects.gas_used.net


def test_more_work_costs_more(play: Play) -> None:
    costs = []
    for rounds in (1, 10_000, 20_000):
        tx = play.tx()
        play.call(tx, "burn_gas", tx.u64(rounds))
        costs.append(play.world.ok(tx, play.alice, budget=9_000_000_000).effects.gas_used.computation)
    assert costs[0] < costs[1] < costs[2]


def test_a_higher_price_costs_more(play: Play) -> None:
    costs = []
    for price in (1000, 3000):
        tx = play.tx()
        play.call(tx, "nothing")
        costs.append(play.world.ok(tx, play.alice, price=price).effects.gas_used.computation)
    assert costs == [1_000_000, 3_000_000]


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"budget": 999_999}, "GasBudgetTooLow"),
        ({"budget": 50_000_000_000_001}, "GasBudgetTooHigh"),
        ({"price": 999}, "GasPriceUnderRGP"),
        ({"price": 50_000_000_000, "budget": 50_000_000_000_000}, "GasPriceTooHigh"),
        ({"payment": ()}, "MissingGasPayment"),
    ],
)
def test_refusals(play: Play, options: dict[str, object], kind: str) -> None:
    sequence = play.world.node.service_info().checkpoint
    tx = play.tx()
    play.call(tx, "nothing")
    with pytest.raises(TransactionRejected) as refused:
        play.world.run(tx, play.alice, **options)
    assert refused.value.kind == kind
    assert play.world.node.service_info().checkpoint == sequence


def test_coins_that_do_not_hold_the_budget(play: Play) -> None:
    poor = play.world.wallet("poor", 1_500_000)
    tx = play.tx()
    play.call(tx, "nothing")
    with pytest.raises(TransactionRejected) as refused:
        play.world.run(tx, poor, budget=1_500_001)
    assert refused.value.kind == "GasBalanceTooLow"
    assert play.world.run(tx, poor, budget=1_500_000).effects.ok


def test_only_sui_of_the_payer_pays(play: Play) -> None:
    thing, bob = play.thing(), play.world.wallet("bob", 1_000_000_000)
    tx = play.tx()
    play.call(tx, "nothing")
    with pytest.raises(TransactionRejected) as refused:
        play.world.run(tx, play.alice, payment=(play.record(thing).ref,))
    assert refused.value.kind == "InvalidGasObject"
    with pytest.raises(TransactionRejected) as refused:
        play.world.run(tx, play.alice, payment=(play.world.coins(bob)[0].ref,))
    assert refused.value.kind == "IncorrectUserSignature"
    with pytest.raises(TransactionRejected) as refused:
        play.world.run(tx, play.alice, payment=(play.record(play.shared()).ref,))
    assert refused.value.kind == "GasObjectNotOwnedObject"


def test_a_sponsor_pays_for_another(play: Play) -> None:
    sponsor = play.world.wallet("sponsor", 5_000_000_000)
    before = balance(play)
    tx = play.tx()
    play.call(tx, "keep", tx.u64(1))
    done = play.world.ok(tx, play.alice, sponsor=sponsor)
    assert balance(play) == before
    assert play.record(created(done, "::Thing")).owner == play.world.coins(play.alice)[0].owner
    left = play.world.node.get_balance(sponsor.address, SUI_TYPE).amount
    assert left == 5_000_000_000 - done.effects.gas_used.net


def test_all_sui_is_somewhere(play: Play) -> None:
    for value in range(3):
        play.thing(value)
    tx = play.tx()
    play.call(tx, "fail")
    play.world.run(tx, play.alice)
    totals = play.world.node.get_totals()
    held = totals.storage + totals.computation_fees + totals.storage_fees
    assert play.world.sui_in_coins() + held == TOTAL_SUPPLY


def test_values_that_commands_copy_are_charged(play: Play) -> None:
    """Six times a vector of eight of the last, u64 at first: a figure of Sui's adapter suite."""
    tx = play.tx()
    made: Argument = tx.u64(0)
    tag = "u64"
    for _ in range(6):
        made = tx.command(MakeMoveVec(parse_type(tag), (made,) * 8))
        tag = f"vector<{tag}>"
    assert play.ok(tx).effects.gas_used.computation == 139_000_000


@pytest.mark.parametrize(("uses", "units"), [(20, 1), (40, 2), (60, 4)])
def test_the_last_use_of_a_value_is_no_copy(play: Play, uses: int, units: int) -> None:
    """16,000 bytes are loaded once, moved into a vector, and copied out of that each time but the last."""
    tx = play.tx()
    made = tx.command(MakeMoveVec(parse_type("vector<u8>"), (tx.bytes(bytes(16_000)),)))
    for _ in range(uses):
        tx.command(MakeMoveVec(parse_type("vector<vector<u8>>"), (made,)))
    size = 16_004  # two vectors with their heads
    total = 16_002 + (uses - 1) * size
    dear = total + max(0, total - 100_000) + 3 * max(0, total - 500_000)
    assert -(-dear // 1_000_000) == units
    assert play.ok(tx).effects.gas_used.computation == units * 1_000_000
