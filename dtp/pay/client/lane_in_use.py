"""A lane of a channel of ours that a connection uses, and who else uses the channel."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Final

from dtp.chain import channel as module
from dtp.chain.channel import Channel
from dtp.chain.node.client import ChainClient
from dtp.chain.node.gas import GasAllowance
from dtp.pay.client.lane_lock import LaneLock
from dtp.pay.client.lane_start import PayerLane
from dtp.pay.server.book import affordable
from dtp.pay.spent import noted
from dtp.pay.store import Store
from dtp.pay.store.journal import Journal
from dtp.pay.ticket import MAX_LANES, make_ticket
from dtp.pay.voucher import MAX_COUNT, LaneKey

#: How long to wait for whoever takes a lane of a channel, or finds out whether others use it: so many pauses, s.
_TURNS: Final = 100
_TURN: Final = 0.01


@dataclass(slots=True)
class LaneInUse:
    """A lane whose lock is ours, and its channel as a node showed it last."""

    chain: ChainClient
    journal: Journal[Store]
    channel: Channel
    key: LaneKey
    lane: PayerLane
    lock: LaneLock
    #: What the gas of its transactions is taken out of, None without limits.
    allowance: GasAllowance | None = None

    @property
    def paying(self) -> ChainClient:
        """The client that pays for transactions out of the allowance, and notes what they took."""
        paying = self.chain if self.allowance is None else self.chain.paying_from(self.allowance)
        return noted(paying, self.journal.run, self.channel.id)

    @property
    def gas(self) -> int:
        """What the transactions of this connection took, MIST, storage given back counted."""
        return 0 if self.allowance is None else self.allowance.spent

    @property
    def signed_before(self) -> int:
        """What the lane's vouchers come to, as far as it is known here or on the chain."""
        return signed_on(self.lane, self.channel)

    @property
    def is_shared(self) -> bool:
        """Whether another connection of ours uses the channel."""
        store, id = self.journal.store, self.channel.id
        others = (LaneLock(store.path, id, lane) for lane in range(MAX_LANES) if lane != self.lane.lane)
        return any(each.is_taken() for each in others)

    def unsigned(self, signed: int) -> int:
        """Return what the channel holds that no voucher is for, in its coin, where ours come to `signed`."""
        lanes = [lane for _, lane in self.journal.store.payer_lanes(self.channel.id)]
        # Not `most_signed`: after a program that was killed that is all that it had reserved, and never signed.
        amounts = {lane.lane: lane.newest.voucher.amount for lane in lanes if lane.newest is not None}
        ours = self.lane.lane
        amounts[ours] = max(amounts.get(ours, 0), signed)
        return max(0, self.channel.deposited - sum(amounts.values()))

    async def count_on(self, least: int, most: int) -> int:
        """Return what the lane may count on of the channel's money, as `count_on` does."""
        return await count_on(self.journal, self.channel, self.lane.lane, least, most)

    async def read_channel(self) -> None:
        """Read the channel again. Raises as `read_ours` does."""
        self.channel = await read_ours(self.chain, self.journal, self.channel.id)

    def make_ticket(self, binding: bytes, *, closes: bool) -> bytes:
        """Return the lane's ticket for a handshake with this `binding`, as `make_ticket` does."""
        return make_ticket(self.key, self.channel.id, self.lane.lane, binding, closes=closes)

    async def read_lane(self) -> None:
        """Go on from what the store knows of the lane by now."""
        lanes = await self.journal.run(lambda store: store.payer_lanes(self.channel.id))
        (lane,) = (each for _, each in lanes if each.lane == self.lane.lane)
        self.lane = replace(lane, claimed=self.lane.claimed)

    async def forgotten_lanes(self) -> list[LaneInUse]:
        """Return other lanes of the channel that nobody uses, whose program died: what they have signed only the
        server knows. Each has its lock, to be released."""
        found = []
        for key, lane in await self.journal.run(lambda store: store.payer_lanes(self.channel.id)):
            lock = LaneLock(self.journal.store.path, self.channel.id, lane.lane)
            if lane.lane != self.lane.lane and lane.died and lock.try_acquire():
                found.append(replace(self, key=key, lane=lane, lock=lock))
        return found

    async def is_closed(self) -> bool:
        """Return whether another connection, or who uses the store, has closed the channel or asked for it."""
        ours = await self.journal.run(lambda store: store.bought_channels(self.channel.id))
        return any(each.state in ("closing", "closed") for each in ours)

    async def set_state(self, state: str) -> None:
        """Note what has become of the channel."""
        await self.journal.run(lambda store: store.set_state(self.channel.id, state))

    async def give_up(self) -> None:
        """Give up a channel that its server takes no more: it isn't used again, and whoever opens the store next
        closes it."""
        await self.set_state("refused")
        self.lock.release()


@contextlib.asynccontextmanager
async def in_turn(journal: Journal[Store], channel: str) -> AsyncIterator[bool]:
    """Hold a channel's turn: its lanes are taken, and it is closed, by one at a time: who begins to use it sees the
    close, or is seen. False where it isn't our turn in a second, since somebody closes the channel. Raises
    `StoreError`."""
    lock = LaneLock(journal.store.path, channel, MAX_LANES)  # behind all lanes
    for _ in range(_TURNS):
        if ours := lock.try_acquire():
            break
        await asyncio.sleep(_TURN)
    try:
        yield ours
    finally:
        lock.release()


async def read_ours(chain: ChainClient, journal: Journal[Store], id: str) -> Channel:
    """Return a channel of ours as a node shows it, as far as that agrees with what is noted."""
    found = await chain.read(module.SCHEMA, Channel, id)
    return await journal.run(lambda store: believable(store, found))


def believable(store: Store, channel: Channel) -> Channel:
    """Return the channel with a deposit that agrees with what is noted: no less than what surely went in, as an older
    version of it says or a node that lies, and no more than what was ever signed for it."""
    total = store.deposited_sum(channel.id)
    if not total:  # opened under a pass, or nothing is noted
        return channel
    doubted = sum(store.doubted_deposits(channel.id).values())
    return replace(channel, deposited=min(max(channel.deposited, total - doubted), total))


def signed_on(lane: PayerLane, channel: Channel) -> int:
    """Return what the lane's vouchers come to, as far as it is known here or on the chain."""
    remembered = lane.newest.voucher.amount if lane.newest is not None else 0
    return max(remembered, channel.lanes[lane.lane].amount)


async def count_on(journal: Journal[Store], channel: Channel, lane: int, least: int, most: int) -> int:
    """Return what the connection that has a lane may count on of the channel's money: `least`, and up to `most` as
    far as no other connection counts on it. It is noted until another one begins on the lane."""

    def share(counted_on: dict[int, int]) -> int:
        # Others may have signed all that they have reserved: they are in use, or died.
        signed = {each.lane: each.most_signed for _, each in journal.store.payer_lanes(channel.id)}
        taken = {
            each: max(signed[each], amount)
            for each, amount in counted_on.items()
            if LaneLock(journal.store.path, channel.id, each).is_taken()
        }
        return min(max(least, min(affordable(channel, lane, signed | taken), most)), MAX_COUNT)

    return await journal.run(lambda store: store.hold_deposit(channel.id, lane, share))
