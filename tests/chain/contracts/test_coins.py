"""Which coins a sum is taken from."""

import asyncio
from types import SimpleNamespace

import pytest

from dtp.chain.errors import InsufficientFunds
from dtp.chain.model import SUI_COIN
from dtp.chain.node.coins import MOST_COINS, coins_for
from dtp.chain.node.commands import Program
from dtp.sui import transaction as sui

OTHER_COIN = "0x2::other::COIN"


def taken(balances, amount, coin=OTHER_COIN):
    """The balances of the coins that a sum is taken from, and how many are merged into the first."""

    async def coins(account, kind):
        return [SimpleNamespace(id=hex(at + 1), balance=each) for at, each in enumerate(balances)]

    program = Program()
    asyncio.run(coins_for(SimpleNamespace(address="0xc", coins=coins), program, coin, amount))
    used = [balances[int(each.id, 16) - 1] for each in program.objects]
    merged = [
        len(each.sources) for each in program.commands(lambda _: "0x0") if isinstance(each, sui.MergeCoins)
    ]
    return used, merged


def test_the_largest_coins_are_taken_and_no_more_of_them_than_needed():
    dust = [1] * 1000
    assert taken([*dust, 600, 400, 500], 1000) == ([600, 500], [1])
    assert taken([*dust, 600, 400, 500], 600) == ([600], [])
    assert taken([0, 5], 0) == ([5], [])


def test_no_more_than_the_chain_merges_are_taken():
    used, merged = taken([2] * MOST_COINS + [1], 2 * MOST_COINS)
    assert (len(used), merged) == (512, [511])
    with pytest.raises(InsufficientFunds, match=r"has 1024 of .* in its 512 largest coins .* less than 1025"):
        taken([2] * MOST_COINS + [1], 2 * MOST_COINS + 1)


def test_coins_of_another_type_have_to_suffice():
    assert taken([600, 400], 1000)[0] == [600, 400]
    with pytest.raises(InsufficientFunds, match="has 1000 of 0x2::other::COIN, less than 1001"):
        taken([600, 400], 1001)
    with pytest.raises(InsufficientFunds, match="has 0 of"):
        taken([0], 0)


def test_sui_is_taken_off_the_coin_that_pays_the_gas():
    assert taken([5], 1000, "0x2::sui::SUI") == taken([5], 1000, SUI_COIN) == ([], [])


@pytest.mark.parametrize("coin", [SUI_COIN, OTHER_COIN])
def test_nobody_has_more_than_a_coin_holds(coin):
    """As a pass of very many periods costs: it said that a number does not fit u64."""
    with pytest.raises(InsufficientFunds, match="more than a coin can hold"):
        taken([5], 2**64, coin)
