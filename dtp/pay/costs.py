"""Who bears the cost of transport on chain: credits for frames that the other side agreed to bear, by evidence.

By a channel's terms each side pays the gas of what it sends through pipes (split), or the client or the server
bears both. Then the other side gets `credit` for 16 KiB of frames, and for fewer or more bytes in proportion, as far
as vouchers that the server has claimed with count bytes, each byte once; not after the time for claims that a
requested close leaves. The chain checks all of it; here is what may be asked for, and when it is worth its gas.
Frames that carried nothing earn nothing, and the others less than their gas.
A close by agreement settles the same off chain: the total that is signed has the credits in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dtp.chain import Program
from dtp.chain import pipe as module
from dtp.chain.channel import Channel, ChannelState
from dtp.chain.host import Bearer, Terms
from dtp.chain.model import Executed
from dtp.chain.node.client import ChainClient
from dtp.chain.pipe import CREDIT_BYTES, Direction, Pipe, credit_for, evidence
from dtp.pay.terms import MIB, NO_CARRIAGE, Prices, Usage


@dataclass(frozen=True, slots=True)
class Credit:
    """What a pipe can be credited with now: bytes of frames, and what they come to."""

    pipe: Pipe
    size: int
    amount: int


def carriage(terms: Terms) -> Prices:
    """Return what transport may come to for the client, for each MiB; requests cost none.

    Zero unless the client bears it.
    """
    if terms.bearer != Bearer.CLIENT:
        return NO_CARRIAGE
    return Prices(0, terms.credit * (MIB // CREDIT_BYTES))


def borne_direction(bearer: int) -> Direction | None:
    """Return the direction of the pipes whose sender is credited under these terms; None when the cost is split."""
    return {Bearer.CLIENT: Direction.TO_CLIENT, Bearer.SERVER: Direction.TO_SERVER}.get(Bearer(bearer))


def credits(channel: Channel, pipes: Sequence[Pipe], epoch: int) -> list[Credit]:
    """Return what these pipes of one sender can be credited with now, in their order, as the chain will count it.

    Credits of the server come out of what the deposit holds and isn't owed, within the epoch cap; those of the client
    are kept back from what the server will be paid, and need nothing now.
    """
    direction, terms = borne_direction(channel.terms.bearer), channel.terms
    if direction is None or not terms.credit or channel.state > ChannelState.CLOSING:
        return []
    left = evidence(channel)
    spent = channel.epoch_spent if epoch == channel.epoch else 0
    money = max(0, min(channel.balance - min(channel.owed, channel.balance), terms.epoch_cap - spent))
    found = []
    for pipe in pipes:
        if pipe.channel != channel.id or pipe.direction != direction:
            continue
        size = min(pipe.metered - pipe.credited, left)
        amount = credit_for(terms, size)
        if direction is Direction.TO_CLIENT:
            if amount > money:
                amount, size = money, -(-money * CREDIT_BYTES // terms.credit)
            money -= amount
        if amount > 0:
            left -= size
            found.append(Credit(pipe, size, amount))
    return found


def accrued(channel: Channel, pipes: Iterable[Pipe], used: Usage) -> int:
    """Return what these pipes would be credited with beyond what they were, had all vouchers, for `used`, been
    claimed."""
    direction = borne_direction(channel.terms.bearer)
    ours = (each for each in pipes if each.channel == channel.id and each.direction == direction)
    size = sum(each.metered - each.credited for each in ours)
    left = used.bytes - channel.credited_bytes
    return credit_for(channel.terms, max(0, min(size, left)))


async def agreed_total(chain: ChainClient, channel: Channel, vouched: int, used: Usage) -> int:
    """Return what the server is to have in all when a channel is closed by agreement.

    Its vouchers, for `used`, which come to `vouched`, more or less what is to be credited for transport. Either side
    can work it out. Raises what reading raises.
    """
    total, bearer = max(channel.claimed, vouched), channel.terms.bearer
    if bearer == Bearer.SPLIT or not channel.terms.credit:
        return total
    sender = channel.server if bearer == Bearer.CLIENT else channel.client
    amount = accrued(channel, await pipes_of(chain, channel.id, sender), used)
    if bearer == Bearer.CLIENT:
        return min(total + amount, channel.claimed + channel.balance)
    # What claims have kept back for the client isn't in `claimed`, and what is noted for it isn't kept back yet.
    return max(channel.claimed, vouched - channel.credited - channel.credit_due - amount)


async def pipes_of(chain: ChainClient, channel: str, sender: str = "") -> list[Pipe]:
    """Return the pipes that an account, ours by default, sends through on a channel, by index."""
    owned = await chain.owned(module.SCHEMA, Pipe, sender or chain.address)
    return sorted((each for each in owned if each.channel == channel), key=lambda each: each.index)


async def take_credits(chain: ChainClient, channel: Channel, least: float) -> tuple[int, Executed] | None:
    """Have the account's pipes credited, in one transaction; return what that comes to, None if less than `least`.

    The server's money comes at once; the client's is kept back from the server's next payments and comes with its
    refund.
    """
    epoch = (await chain.epoch()).epoch
    found = credits(channel, await pipes_of(chain, channel.id), epoch)
    amount = sum(each.amount for each in found)
    if not found or amount < least:
        return None
    program = Program()
    for each in found:
        if each.pipe.direction == Direction.TO_CLIENT:
            money = module.collect_credit(program, each.pipe.id, channel.id, coin=channel.coin)
            program.transfer([money], chain.address)
        else:
            module.charge_credit(program, each.pipe.id, channel.id, coin=channel.coin)
    return amount, await chain.execute(program)
