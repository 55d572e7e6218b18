"""Random histories of stamps that are paid, beside a second implementation of what the page of messages says."""

from __future__ import annotations

import asyncio
import os
import random
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from dtp.identity import Identity
from dtp.messaging.mailbox.limits import MIB
from dtp.messaging.mailbox.store import access_hash
from dtp.messaging.person.notices import What

from ..boxes import BOB, LIMITS, PRICE, box
from ..conftest import Market, Play

SEEDS = range(*(int(each) for each in os.environ.get("STAMP_SEEDS", "0:2").split(":")))
STEPS = 10
#: Envelopes that a stamp is good for.
USES = 3


@dataclass
class Recipient:
    """A person who is written to, as the page says: what waits for them, and what its sender may spend and has."""

    mib: int = 0
    #: The sender's card goes first.
    waits: int = 0
    known_of: bool = False
    let_in: int = 0
    left: int = 0
    uses: int = 0
    withheld: bool = False
    told: tuple[What, str] | None = None


@dataclass
class Model:
    """The policy: a stamp is paid where that was agreed to, once, as room; it is good for so many envelopes; where it
    lets nothing in no other one is paid before it is agreed to again."""

    people: list[Recipient]
    withholding: bool = False
    paid: int = 0
    log: list[str] = field(default_factory=list)

    def settle(self) -> None:
        for each in self.people:
            while each.waits and self._let_one_in(each):
                each.waits, each.let_in = each.waits - 1, each.let_in + 1

    def _let_one_in(self, each: Recipient) -> bool:
        if not each.mib:
            return True
        if each.withheld:
            each.told = What.STAMP_WITHHELD, ""
            return False
        if not each.uses:
            price = each.mib * PRICE
            if price > each.left:
                each.told = What.STAMP_NEEDED, str(price)
                return False
            each.left, self.paid = each.left - price, self.paid + price
            if self.withholding:
                each.withheld = True
                each.told = What.STAMP_WITHHELD, ""
                return False
            each.uses = USES
        each.uses -= 1
        return True


class World:
    """Bob, and two who are away, beside the model of them."""

    def __init__(self, made: Any, rng: random.Random) -> None:
        self.made, self.rng = made, rng
        self.bob: Any = None
        self.keys = [Identity(bytes([number + 10]) * 32) for number in range(2)]
        self.cards: list[Any] = []
        self.access: list[bytes] = []
        self.model = Model([Recipient(), Recipient()])
        self.stack = AsyncExitStack()
        store = made.mailbox.store
        self._reserve = store.reserve_room
        store.reserve_room = self._reserve_or_not

    def _reserve_or_not(self, device: Any, size: Any, seconds: Any, now: Any, stamp: Any) -> Any:
        return self._reserve(device, size, seconds, now, b"" if self.model.withholding else stamp)

    async def begin(self) -> None:
        for number, key in enumerate(self.keys):
            async with self.made.messenger(f"r{number}", key) as one:
                await one.wait_reached()
                self.cards.append(one.card.public())
                self.access.append(access_hash(one.correspondence.access))
            await self.set_mib(number, 2)
        await self.restart()

    async def set_mib(self, number: int, mib: int) -> None:
        self.model.people[number].mib = mib
        store = self.made.mailbox.store
        of = self.keys[number].id.key, self.access[number], 1, mib
        await self.made.mailbox.keeper.run_in_store(store.set_access, *of)

    async def restart(self) -> None:
        if self.bob is not None:
            await self.bob.delivery.settled.wait()  # what is on its way comes in twice, and is shown once
        await self.stack.aclose()
        opened = self.made.messenger("bob", BOB, postage=await self.made.postage())
        self.bob = await self.stack.enter_async_context(opened)
        for card in self.cards:
            await self.bob.add_contact(card)

    async def step(self) -> None:
        number = self.rng.randrange(2)
        one, card = self.model.people[number], self.cards[number]
        match self.rng.choice(["say", "say", "say", "allow", "allow", "mib", "withhold", "restart"]):
            case "say":
                count = self.rng.randint(1, 4)
                self.model.log.append(f"{count} for {number}")
                one.waits += count + (not one.known_of)
                one.known_of = True
                for each in range(count):
                    await self.bob.send(card, str(each))
            case "allow":
                one.left = self.rng.choice([0, 1, 2, 4, 5]) * 2 * PRICE
                one.withheld = False
                self.model.log.append(f"{one.left} allowed for {number}")
                await self.bob.allow_stamps(card, one.left)
            case "mib":
                mib = self.rng.choice([0, 1, 2, 4])
                self.model.log.append(f"{number} asks {mib} MiB")
                await self.set_mib(number, mib)
            case "withhold":
                self.model.withholding = not self.model.withholding
                self.model.log.append(f"withholding: {self.model.withholding}")
            case "restart":
                self.model.log.append("begun again")
                await self.restart()

    async def compare(self) -> None:
        """Wait until all is as the model says, and fail where it doesn't come to that."""
        self.model.settle()
        wanted = [(each.let_in, each.told if each.waits else None) for each in self.model.people]
        found: Any = None
        try:
            async with asyncio.timeout(30):
                while found != (self.model.paid, wanted):
                    for key in self.keys:
                        await self.bob.delivery.run_in_thread(
                            self.bob.correspondence.desk.send_now, key.id.key
                        )
                    self.bob.delivery.wake_up()
                    await self.bob.wait_reached()
                    found = self.made.signed(), [await self.look(number) for number in range(2)]
        except TimeoutError:
            raise AssertionError(f"{self.model.log}: {found}, not {self.model.paid}, {wanted}") from None

    async def look(self, number: int) -> Any:
        device = self.keys[number].id.key
        status = await self.made.mailbox.keeper.run_in_store(self.made.mailbox.store.device_status, device)
        told = [each for each in self.bob.tasks.stamping.last_notices if each.person == device]
        waits = self.model.people[number].waits
        last = told[-1] if told and waits else None
        detail = last.detail if last and last.what is What.STAMP_NEEDED else ""
        return status.strangers, (last.what, detail) if last else None


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_stamps_are_paid_as_the_page_says(market: Play, seed: int) -> None:
    async def scenario(market: Market) -> None:
        async with box(market, replace(LIMITS, stamp_uses=USES, free_bytes=MIB)) as made:
            world = World(made, random.Random(seed))
            await world.begin()
            for _ in range(STEPS):
                await world.step()
                await world.compare()
            await world.stack.aclose()

    market(scenario, 300)
