"""Which coins a sum is paid with."""

from __future__ import annotations

from typing import Final

from dtp.chain.errors import InsufficientFunds
from dtp.chain.model import SUI_COIN, canonical_type
from dtp.chain.node.client import ChainClient
from dtp.chain.node.commands import Argument, Program

#: Coins that become one: the chain takes fewer than 512 beside the one that they are merged into.
MOST_COINS: Final = 512
#: The most that a coin holds, a u64.
_MOST_HELD: Final = 2**64 - 1


async def coins_for(chain: ChainClient, program: Program, coin: str, amount: int) -> Argument:
    """Return a coin of `amount` as an argument: off the gas coin for SUI, else out of the account's largest of that
    type.

    Not out of all: anybody may send thousands of them. Raises `InsufficientFunds`.
    """
    if amount > _MOST_HELD:
        raise InsufficientFunds(f"{amount:,} of {coin} are more than a coin can hold: nobody has so much")
    if canonical_type(coin) == SUI_COIN:
        (money,) = program.split(program.gas, [amount])
        return money
    owned = [(each.balance, each.id) for each in await chain.coins(chain.address, coin) if each.balance]
    owned.sort(reverse=True)
    used: list[str] = []
    there = 0
    for balance, id in owned[:MOST_COINS]:
        if used and there >= amount:
            break
        used.append(id)
        there += balance
    if not used or there < amount:
        in_many = f" in its {MOST_COINS} largest coins (sending that to itself makes one of them)"
        raise InsufficientFunds(
            f"{chain.address} has {there} of {coin}{in_many if len(used) < len(owned) else ''}, less than {amount}"
        )
    first, *others = map(program.object, used)
    program.merge(first, others)
    (money,) = program.split(first, [amount])
    return money
