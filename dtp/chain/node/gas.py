"""Who may use which object when: gas coins, one queue per owned object, and what is known of objects.

Two transactions over the same version of an owned object can't both be executed, and on a real network they can lock
it until the epoch ends. So whoever uses an owned object waits until the one before is done.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, Protocol
from weakref import WeakValueDictionary

from dtp.bounded import BoundedDict
from dtp.chain.errors import GasTooHigh
from dtp.chain.model import Executed, ObjectData, ObjectRef, format_amount
from dtp.chain.node.commands import KnownObject

_REMEMBERED = 4096
#: The highest price of a unit of gas to sign for unasked, MIST: every node can make one up. Networks had 500 to 1,000
#: for years.
HIGHEST_GAS_PRICE: Final = 10_000


def check_price(price: int, highest: int) -> None:
    """Raise `GasTooHigh` where a unit of gas costs more MIST than `highest`, before anything is signed."""
    if price > highest:
        raise GasTooHigh(
            f"the node says that a unit of gas costs {price:,} MIST, and at most {highest:,} is to be paid: ask "
            "another node (`network`), or allow more (`max-gas-price`); nothing was signed",
            needed=price,
            most=highest,
        )


@dataclass(frozen=True)
class PaymentCoin:
    """A coin that can pay for gas, and what is in it (MIST)."""

    ref: ObjectRef
    balance: int


@dataclass
class GasAllowance:
    """What the gas of several transactions may come to together, agreed to before any of them is signed (MIST).

    `most` is the most in all, None for no limit; `highest_price` the most that a unit of computation may cost, None
    for the client's own limit. What is signed for counts with its whole gas budget until it is known what it took.
    """

    most: int | None = None
    highest_price: int | None = None
    #: Kept for what has to be done yet, such as closing: others leave so much of `most`.
    kept: int = 0
    #: What transactions took, storage given back counted.
    spent: int = field(init=False, default=0)
    _signed: int = field(init=False, default=0)

    def sign(self, budget: int) -> None:
        """Count a transaction that is about to be signed with so much gas. Raises `GasTooHigh`."""
        needed = max(0, self.spent) + self._signed + budget + self.kept
        if self.most is not None and needed > self.most:
            raise GasTooHigh(
                f"its gas may come to {format_amount(needed)} with what was spent before, and at most "
                f"{format_amount(self.most)} is agreed to: allow more (`max-gas`); nothing was signed",
                needed=needed,
                most=self.most,
            )
        self._signed += budget

    def settle_gas(self, budget: int, gas: int) -> None:
        """Note that a transaction counted with `budget` is over and took `gas`, 0 where it was never executed."""
        self._signed -= budget
        self.spent += gas


class TransactionNotes(Protocol):
    """Who is told of a client's transactions: before each is sent, and what gas it took once that is known."""

    async def transaction_sent(self, digest: str) -> None:
        """Keep that a transaction is about to be sent. Raises nothing."""

    async def transaction_done(self, digest: str, gas: int) -> None:
        """Keep what gas an executed transaction took (MIST, storage given back counted). Raises nothing."""


class ObjectQueues:
    """One queue per object: `holding` waits for all of them, in an order that can't deadlock."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def hold_objects(self, ids: Iterable[str]) -> AsyncIterator[None]:
        """Have these objects for oneself while the block runs."""
        async with AsyncExitStack() as stack:
            for each in sorted(set(ids)):
                lock = self._locks.get(each)
                if lock is None:
                    lock = self._locks[each] = asyncio.Lock()
                await stack.enter_async_context(lock)
            yield


@dataclass
class GasSlot:
    """What a transaction pays with; `coin` is None when the node is to choose. Set `coin` to what is left of it."""

    coin: PaymentCoin | None


class GasPool:
    """The gas coins of one account that are known. A transaction takes one and gives back what is left of it.

    While none is known the node chooses; it could choose any coin, so that transaction runs alone.
    """

    def __init__(self) -> None:
        self._idle: list[PaymentCoin] = []
        self._used = 0
        self._alone = False
        self._waiting: list[asyncio.Future[None]] = []

    @asynccontextmanager
    async def acquire_slot(self, *, alone: bool = False) -> AsyncIterator[GasSlot]:
        """Pay from the slot's coin while the block runs; the slot's coin at the end is kept for the next.

        `alone` waits until nothing else runs, and lets the node choose among all coins.
        """
        while self._alone or (self._used if alone else not self._idle and self._used):
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            await waiter
        if alone:
            self._idle.clear()
        slot = GasSlot(self._idle.pop() if self._idle else None)
        self._alone = slot.coin is None
        self._used += 1
        try:
            yield slot
        finally:
            self._used -= 1
            self._alone = False
            if slot.coin is not None:
                self._idle.append(slot.coin)
            for waiter in self._waiting:
                if not waiter.done():  # else its task was cancelled
                    waiter.set_result(None)
            self._waiting.clear()

    def add(self, coins: Iterable[PaymentCoin]) -> None:
        """Let more coins pay, so that as many transactions can run at once."""
        known = {coin.ref.id for coin in self._idle}
        self._idle.extend(coin for coin in coins if coin.ref.id not in known)

    def exclude_coins(self, ids: Iterable[str]) -> None:
        """Don't pay with these: a program uses them itself."""
        gone = set(ids)
        self._idle = [coin for coin in self._idle if coin.ref.id not in gone]

    def forget_coins(self) -> None:
        """Forget the coins that are not in use: the next transaction asks the node again."""
        self._idle.clear()

    @property
    def idle(self) -> tuple[PaymentCoin, ...]:
        """The coins that nothing uses now."""
        return tuple(self._idle)


class ObjectCache:
    """Newest known reference and owner of objects: shared ones for good, owned ones until they change.

    Holds the last few thousand; what falls out is asked for again.
    """

    def __init__(self) -> None:
        self._known: BoundedDict[str, KnownObject] = BoundedDict(_REMEMBERED)

    def get(self, id: str) -> KnownObject | None:
        """Return what is known of an object, None if nothing is."""
        return self._known.get(id)

    def get_known(self, ids: Iterable[str]) -> Mapping[str, KnownObject]:
        """Return what is known of each of those ids that is known at all."""
        return {each: self._known[each] for each in ids if each in self._known}

    def add_known(self, known: Iterable[KnownObject]) -> None:
        """Note references; an older one never replaces a newer one."""
        for each in known:
            before = self._known.get(each.ref.id)
            newest = before if before is not None and before.ref.version > each.ref.version else each
            self._known[each.ref.id] = newest

    def learn_objects(self, objects: Iterable[ObjectData]) -> None:
        """Note what was read."""
        self.add_known(KnownObject(each.ref, each.owner) for each in objects)

    def learn_changes(self, executed: Executed) -> None:
        """Note what a transaction wrote, and forget what it removed."""
        for change in executed.changes:
            if change.output is None:
                self._known.pop(change.id, None)
        self.add_known(
            KnownObject(change.output, change.owner)
            for change in executed.changes
            if change.output is not None and change.owner is not None
        )

    def remove_known(self, ids: Iterable[str]) -> None:
        """Forget: the next use asks the node."""
        for each in ids:
            self._known.pop(each, None)
