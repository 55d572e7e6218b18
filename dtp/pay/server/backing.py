"""How far a server believes a node about what a channel holds: vouchers above the deposit are worth nothing, and a
client and a node that work together would have them served.

What was claimed was there. Beyond that a server serves a limited sum by the node's word alone, and then claims; a
claim that doesn't pay what the node had shown ends the channel.
"""

from __future__ import annotations

from collections.abc import Iterable

from dtp.chain.channel import Channel, Claimed
from dtp.chain.host import NO_CAP, Bearer


def contradiction(channel: Channel) -> str | None:
    """Return what can't be true of a channel that a node shows, or keeps vouchers unpaid; None where it is sound."""
    held = channel.balance + channel.client_credit
    if channel.deposited != channel.claimed + channel.credited + channel.refunded + held:
        return "the sums of the channel contradict each other"
    # A claim pays all that it can at once, unless terms hold it back.
    if channel.owed > channel.balance or (channel.owed and channel.terms.epoch_cap == NO_CAP):
        return "the deposit didn't pay for the vouchers that were claimed"
    return None


def came_to_nothing(channel: Channel, claims: Iterable[Claimed]) -> bool:
    """Return whether vouchers of a channel were accepted, by these events, and its deposit paid nothing for them."""
    ours = [each for each in claims if each.channel == channel.id]
    more = sum(
        each.amount > channel.lanes[each.lane].amount for each in ours if each.lane < len(channel.lanes)
    )
    # A cap, or the client's credits, may keep all of it back for now.
    held_back = channel.terms.epoch_cap != NO_CAP or channel.terms.bearer == Bearer.SERVER
    return bool(more) and not held_back and not any(each.paid for each in ours)


def claimed_of(channel: Channel) -> int:
    """Return what the vouchers come to that the chain has accepted, of all lanes."""
    return sum(lane.amount for lane in channel.lanes)


def believed(channel: Channel, others: int, most_unclaimed: int | None) -> int | None:
    """Return the most that a lane is served for, where other lanes' vouchers come to `others`: what was claimed and
    `most_unclaimed` beyond. None where that has no limit."""
    return None if most_unclaimed is None else max(0, claimed_of(channel) + most_unclaimed - others)
