"""What an account puts into its pipes: coins for the gas of frames, and the deposits of channels that dials open."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import ClassVar, Final

from dtp.carriers.errors import DialError
from dtp.chain.model import format_amount
from dtp.chain.node.client import ChainClient, Signed, SignedTransaction
from dtp.chain.node.commitment import to_its_end
from dtp.chain.pipes.gas import GasGuess
from dtp.chain.wallet import parse_amount, split_gas

__all__ = ["DepositTooHigh", "PipeFunds"]

#: The most MIST that is put into each coin that pays for frames, and the least that is worth it.
_MAX_COIN: Final = 20_000_000_000
_MIN_COIN: Final = 50_000_000
#: The most MIST that is locked in channels to one host unasked: what a few MiB of frames cost in gas anyway.
_MOST_LOCKED: Final = 100_000_000
#: ... unless the environment names another amount.
_VARIABLE: Final = "DTP_PIPE_DEPOSIT"


class DepositTooHigh(DialError):
    """A host wants more deposited for pipes than is locked unasked; nothing was."""

    code: ClassVar[str] = "deposit-too-high"


class PipeFunds:
    """What a client spends on all its pipes: coins for gas, and deposits. `gas` knows what frames have cost."""

    def __init__(self, chain: ChainClient, gas: GasGuess) -> None:
        self._chain = chain
        self._gas = gas
        self._funding = asyncio.Lock()
        self._coin_value = 0
        self._funded_at = 0
        #: What this program has deposited in channels of its own, by host: it comes back when they are closed.
        self._locked: Counter[str] = Counter()

    async def ensure_coins(self, pipes: int) -> None:
        """Have a coin for each pipe: transactions that are to run at once can't pay with the same one."""
        async with self._funding:
            if self._coin_value and self._gas.spent - self._funded_at < pipes * self._coin_value // 2:
                return
            total = (await self._chain.balance(self._chain.address)).total
            value = min(_MAX_COIN, total // (2 * pipes + 2))
            if value >= _MIN_COIN:
                await to_its_end(partial(self._split_coins, pipes, value))

    async def _split_coins(self, pipes: int, value: int, signed: Signed) -> None:
        await split_gas(self._chain, pipes, value, signed)
        self._coin_value, self._funded_at = value, self._gas.spent

    @contextlib.contextmanager
    def deposit(self, host: str, amount: int, signed: Signed) -> Iterator[Signed]:
        """Deposit `amount` MIST with a host, by what is done in this block. Raises `DepositTooHigh` before that.

        The host says how much, and whoever follows an address has seen none of it. Gives what is to be told when the
        deposit is signed, and tells `signed` in turn: from then on it may be there, whatever becomes of the block.
        """
        most = parse_amount(os.environ.get(_VARIABLE) or str(_MOST_LOCKED))
        locked = self._locked[host]
        if amount and locked + amount > most:
            already = f" beside the {format_amount(locked)} that it has of this program" if locked else ""
            raise DepositTooHigh(
                f"host {host} wants a deposit of {format_amount(amount)} for pipes{already}, and at most "
                f"{format_amount(most)} are locked unasked: ${_VARIABLE} says another amount, or pay with a budget"
            )
        is_signed = False

        async def noted(transaction: SignedTransaction) -> None:
            nonlocal is_signed
            await signed(transaction)
            is_signed = True

        self._locked[host] += amount
        try:
            yield noted
        finally:
            if not is_signed:
                self._locked[host] -= amount
