"""Money on chain: opening channels, claiming several in one transaction, and every way a channel can end.

Programs are built here out of `dtp.chain.channel`; what to do when is decided in `dtp.pay.claims`.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, TypeAlias

from dtp.chain import Executed, Program
from dtp.chain import channel as module
from dtp.chain import pipe as pipe_module
from dtp.chain.channel import Channel, ChannelOpened, ChannelState, Claimed, CloseAgreement, Settled
from dtp.chain.errors import (
    MALFORMED,
    InsufficientFunds,
    NodeRefused,
    ProgramError,
    TransactionFailed,
    was_signed,
)
from dtp.chain.host import Host
from dtp.chain.model import SUI_COIN, Id, canonical_type, format_amount
from dtp.chain.node.client import ChainClient, Signed
from dtp.chain.node.coins import coins_for
from dtp.chain.node.gas import GasAllowance
from dtp.chain.node.made import check_made, only_one
from dtp.errors import ChainError, DtpError
from dtp.pay import messages
from dtp.pay.answers import lock_of
from dtp.pay.claims import Action, Decision, Policy, gain_of
from dtp.pay.errors import ChannelUnusable
from dtp.pay.server.backing import came_to_nothing
from dtp.pay.store.rows import Sold
from dtp.pay.voucher import verify_raw
from dtp.plurals import count_of

log = logging.getLogger("dtp.pay")

#: What stays in the account when money goes into a channel, MIST: what asking for its close and finalizing it have
#: to have ahead, at localnet's prices (10.6 million for one lane, 19 for sixteen), or the deposit would be stuck for
#: want of gas. Closing by agreement has half of that ahead. All of it but a million comes back.
_GAS_TO_CLOSE: Final = 11_000_000
_GAS_TO_CLOSE_LANE: Final = 600_000
#: What opening and topping up have to have ahead themselves, about, MIST.
_GAS_TO_OPEN: Final = 9_000_000
_GAS_TO_ADD: Final = 9_000_000
#: What opening, closing by agreement and topping up take in the end, storage given back counted, about, MIST: for
#: estimates (docs/paying.md has the table).
USUAL_OPEN: Final = 6_300_000
USUAL_CLOSE: Final = -2_300_000
USUAL_TOP_UP: Final = 1_060_000
#: Transactions of a channel that are looked through for a key: more than a claim an hour for a year.
MOST_LOOKED_THROUGH: Final = 10_000
#: The key of a lane that is never opened.
_ANY_KEY: Final = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")


def gas_to_close(lanes: int = 1) -> int:
    """Return what stays in the account for closing a channel of so many lanes, MIST."""
    return _GAS_TO_CLOSE + _GAS_TO_CLOSE_LANE * (lanes - 1)


#: Hears what could not be done with a channel, and why.
OnFailed: TypeAlias = Callable[[str, DtpError], None]


def log_failed(channel: str, fault: DtpError) -> None:
    """Log what could not be done with a channel."""
    log.warning("channel %s: %s", channel, fault)


@dataclass(frozen=True, slots=True)
class Settlement:
    """What a transaction moved of `coin` (its type): to the server for vouchers, to the client; its gas (MIST); of
    which channels. `unpaid` are those whose deposit paid nothing for vouchers that were accepted."""

    digest: str
    to_server: int
    to_client: int
    gas: int
    state: int | None = None
    coin: str = SUI_COIN
    channels: tuple[str, ...] = ()
    unpaid: tuple[str, ...] = ()


def result_of(chain: ChainClient, executed: Executed, channels: Iterable[Channel]) -> list[Settlement]:
    """Return what a transaction over these channels did, by its events: for each of their coins, the gas with the
    first."""
    coins: dict[str, set[Id]] = {}
    channels = list(channels)
    for channel in channels:
        coins.setdefault(channel.coin, set()).add(channel.id)
    found: list[Settlement] = []
    for coin, ids in coins.items():
        claims = [each for each in chain.events_in(executed, module.SCHEMA, Claimed) if each.channel in ids]
        ends = [each for each in chain.events_in(executed, module.SCHEMA, Settled) if each.channel in ids]
        to_server = sum(each.paid for each in claims) + sum(each.to_server for each in ends)
        to_client = sum(each.to_client for each in ends)
        gas, state = 0 if found else executed.gas.net, ends[-1].state if ends else None
        moved = tuple(sorted({str(each.channel) for each in claims} | {str(each.channel) for each in ends}))
        unpaid = tuple(each.id for each in channels if each.id in ids and came_to_nothing(each, claims))
        found.append(Settlement(executed.digest, to_server, to_client, gas, state, coin, moved, unpaid))
    return found


# ---------------------------------------------------------------------------------------------------- the client


async def key_on_chain(chain: ChainClient, channel: str, lock: bytes) -> bytes | None:
    """Return what opens a sealed answer of this lock (32 bytes), as a claim on the channel told it; None where none
    has.

    The channel has to be there still, so look before `dtp channel close` ends it. Raises what the chain raises, and
    `NodeRefused` of a node that names ever more transactions of it.
    """
    found = await chain.object(channel)
    for _ in range(MOST_LOOKED_THROUGH):
        executed = await chain.transaction(found.previous_transaction)
        if executed is None:
            return None
        for claimed in chain.events_in(executed, module.SCHEMA, Claimed):
            if claimed.channel == found.id and lock_of(claimed.preimage) == lock:
                return claimed.preimage
        change = only_one(
            executed, [each for each in executed.changes if each.id == found.id], f"change of {found.id}"
        )
        if change.input_version is None:  # it was opened here
            return None
        if change.input_version >= found.version:  # or a node could have it looked for without an end
            raise NodeRefused(
                f"the node says that transaction {executed.digest} made version {found.version} of {found.id} of "
                f"version {change.input_version}: ask another node",
                MALFORMED,
            )
        found = await chain.object(channel, change.input_version)
    raise NodeRefused(
        f"the node says that {found.id} was in more than {MOST_LOOKED_THROUGH:,} transactions: ask another node",
        MALFORMED,
    )


async def open_channel(
    chain: ChainClient,
    host: Host,
    service: int,
    revision: int,
    deposit: int,
    key: bytes,
    merged: Sequence[str] = (),
    *,
    signed: Signed | None = None,
) -> tuple[str, Executed]:
    """Open a channel with a deposit, under the terms of `revision`; return its id. Coins of SUI that are `merged`
    into the one that pays for gas are used by the same transaction. Raises as `ChainClient.execute` does.

    `InsufficientFunds` also where the gas for closing it would not be left.
    """
    coin = host.services[service].terms.coin
    program = await _opening_program(chain, host, service, revision, deposit, key, merged)
    executed = await _deposit(chain, program, coin, deposit, _GAS_TO_OPEN, gas_to_close(), signed)
    return opened_in(chain, executed), executed


async def gas_of_opening(chain: ChainClient, host: Host, service: int, revision: int, deposit: int) -> int:
    """Return what opening a channel would take (MIST), by a simulation; what is usual where the account can't pay for
    it, which is found out, and said, when it is opened."""
    program = await _opening_program(chain, host, service, revision, deposit, _ANY_KEY)
    try:
        return (await chain.simulate(program)).executed.gas.net
    except (InsufficientFunds, TransactionFailed):
        return USUAL_OPEN


async def _opening_program(
    chain: ChainClient,
    host: Host,
    service: int,
    revision: int,
    deposit: int,
    key: bytes,
    merged: Sequence[str] = (),
) -> Program:
    coin = host.services[service].terms.coin
    program = Program()
    program.merge(program.gas, merged)
    money = await coins_for(chain, program, coin, deposit)
    made = module.open(program, host.id, host.beacon, service, revision, money, key, coin=coin)
    module.share(program, made, coin=coin)
    return program


async def open_under_pass(
    chain: ChainClient,
    host: Host,
    plan: str,
    pass_: str,
    revision: int,
    key: bytes,
    coin: str,
    *,
    signed: Signed | None = None,
) -> tuple[str, Executed]:
    """Open a channel under a pass, without a deposit; return its id."""
    program = Program()
    made = module.open_with_pass(program, host.id, host.beacon, plan, pass_, revision, key, coin=coin)
    module.share(program, made, coin=coin)
    executed = await chain.execute(program, signed=signed)
    return opened_in(chain, executed), executed


def opened_in(chain: ChainClient, executed: Executed) -> str:
    """Return the channel that a transaction opened.

    Raise `ChannelUnusable` when it opened none or several, `NodeRefused` for one of somebody else's.
    """
    opened = chain.events_in(executed, module.SCHEMA, ChannelOpened)
    if len(opened) != 1:
        raise ChannelUnusable(f"transaction {executed.digest} opened {len(opened)} channels")
    check_made(executed, opened[0].channel)
    return opened[0].channel


async def add_money(
    chain: ChainClient, channel: Channel, amount: int, signed: Signed | None = None
) -> Executed:
    """Top a channel up. `InsufficientFunds` also where the gas for closing it would not be left."""
    program = Program()
    money = await coins_for(chain, program, channel.coin, amount)
    module.top_up(program, channel.id, money, coin=channel.coin)
    kept = gas_to_close(len(channel.lanes))
    return await _deposit(chain, program, channel.coin, amount, _GAS_TO_ADD, kept, signed)


async def _deposit(
    chain: ChainClient,
    program: Program,
    coin: str,
    amount: int,
    gas: int,
    kept: int,
    signed: Signed | None = None,
) -> Executed:
    """Execute what puts an amount into a channel, if the gas for closing stays in the account. Of coins that pay for
    gas already: the transaction itself sees to it, whatever else the account does at that moment."""
    program.merge(program.gas, program.split(program.gas, [kept]))
    try:
        return await chain.execute(program, signed=signed)
    except InsufficientFunds as fault:
        if was_signed(fault):  # whoever calls has to hear that, whatever follows
            raise
        try:
            there = (await chain.balance(chain.address)).total
        except ChainError as unasked:
            raise fault from unasked
        spent = amount if canonical_type(coin) == SUI_COIN else 0
        missing = spent + gas + kept - there
        if missing <= 0:
            raise
        poor = InsufficientFunds(
            f"{chain.address} has {format_amount(there)}, and needs {format_amount(spent)} for the deposit, "
            f"{format_amount(gas)} for its gas, and the gas for closing, {format_amount(kept)}, or the money "
            f"would be stuck: {format_amount(missing)} is missing: send it, or give a smaller deposit or budget"
        )
        poor.missing = missing
        raise poor from fault


async def close_agreed(
    chain: ChainClient, channel: Channel, agreed: messages.Agreed, pipes: Iterable[Id] = ()
) -> Settlement:
    """Close with the server's signature, and delete the channel, which is empty then, and `pipes`: one transaction.

    Raises `ChannelUnusable` when the signature is no use, before anything is sent.
    """
    agreement = CloseAgreement(channel.id, agreed.total, agreed.not_after_ms)
    if not verify_raw(agreed.public_key, module.agreement_bytes(agreement), agreed.signature):
        raise ChannelUnusable("the server's signature under the agreed close does not verify")
    program = Program()
    module.close_agreed(program, agreement, agreed.public_key, agreed.signature, coin=channel.coin)
    # By agreement nothing is left to drain, so it is closed and its storage deposit comes back to us.
    module.destroy(program, channel.id, coin=channel.coin)
    for each in pipes:
        pipe_module.destroy(program, each)
    (paid,) = result_of(chain, await chain.execute(program), [channel])
    return paid


async def request_close(chain: ChainClient, channel: Channel) -> Executed:
    """Ask for the close: claims count for `claim_ms`, then `finalize` pays both. By another than the client the chain
    takes it once the channel was idle for `idle_ms`."""
    program = Program()
    module.request_close(program, channel.id, coin=channel.coin)
    return await chain.execute(program)


async def finalize(chain: ChainClient, channel: Channel) -> Settlement:
    """Pay both sides after the time for claims, whoever we are; the client's own is deleted once it is empty."""
    program = Program()
    module.finalize(program, channel.id, coin=channel.coin)
    (paid,) = result_of(chain, await chain.execute(program), [channel])
    if paid.state == ChannelState.CLOSED and channel.client == chain.address:
        destroyed = await destroy(chain, channel)
        paid = replace(paid, gas=paid.gas + destroyed.gas.net)
    return paid


async def destroy(chain: ChainClient, channel: Channel) -> Executed:
    """Delete a closed channel of ours: its storage deposit comes back."""
    program = Program()
    module.destroy(program, channel.id, coin=channel.coin)
    return await chain.execute(program)


# ---------------------------------------------------------------------------------------------------- the server


def settle_program(chain: ChainClient, decisions: Sequence[Decision]) -> Program:
    """Return one transaction for several decisions. By anyone: what is paid goes to the channels' servers."""
    program = Program()
    for decision in decisions:
        channel = decision.view.channel
        for sold in decision.lanes:
            _claim(program, sold, channel, ours=chain.address == channel.server)
        match decision.action:
            case Action.RELEASE if chain.address == channel.server:
                module.release(program, channel.id, coin=channel.coin)
            case Action.PAY_OWED:
                module.pay_owed(program, channel.id, coin=channel.coin)
            case Action.FINALIZE:
                module.finalize(program, channel.id, coin=channel.coin)
    return program


def _claim(program: Program, sold: Sold, channel: Channel, *, ours: bool) -> None:
    voucher, signature = sold.newest.voucher, sold.newest.signature
    locked = voucher.hash_lock is not None
    preimage = sold.preimage if locked and sold.preimage is not None else b""
    if ours and channel.coin == SUI_COIN:
        # Into the coin that pays the gas: a coin of its own would cost its storage.
        program.merge(program.gas, [module.claim(program, voucher, signature, preimage)])
    else:
        module.claim_for(program, voucher, signature, preimage, coin=channel.coin)


async def settle(
    chain: ChainClient,
    decisions: Sequence[Decision],
    batch: int,
    on_failed: OnFailed = log_failed,
    *,
    policy: Policy | None = None,
) -> list[tuple[Settlement, list[Decision]]]:
    """Carry decisions out, `batch` claims in a transaction; return what each did, by coin. A refused channel is left
    out, and `on_failed` hears of it.

    Refusals are found by simulation and cost nothing, but for what somebody else does between that and ours: a
    watcher may claim at the same moment, a client close and delete its channel. Where the account can't pay the gas
    of all, which is more ahead than in the end, as much is done as it pays for, the cheapest first: what is claimed
    pays for more. With a `policy` what costs more gas than it brings, by a simulation, isn't done: the part of it
    that brings most is tried, and the rest waits for the next look. Raises `InsufficientFunds` when that is nothing,
    and what `ChainClient.execute` raises otherwise.
    """
    done: list[tuple[Settlement, list[Decision]]] = []
    parts = _parts([each for each in decisions if each.action not in (Action.WAIT, Action.FORGET)], batch)
    while parts:
        part = parts.popleft()
        program = settle_program(chain, part)
        if not len(program):
            continue
        try:
            paying = chain if policy is None else await _paying(chain, program, part, policy)
            if paying is None:
                parts.extendleft(_better(part))
                continue
            executed = await paying.execute(program)
        except (TransactionFailed, NodeRefused, ProgramError) as refused:
            # Halves find the one that is refused in few simulations, and the others still share their transactions.
            halves = _halves(part)
            if not halves:
                on_failed(part[0].view.channel.id, refused)
            parts.extendleft(reversed(halves))
        except InsufficientFunds as poor:
            left = sorted((each for some in (part, *parts) for each in some), key=partial(_dearness, chain))
            if part == left[:1]:
                halves = _halves(part)
                if not halves and not done:
                    raise
                if not halves:
                    for each in left:
                        on_failed(each.view.channel.id, poor)
                    break
                left[:1] = [each for half in halves for each in half]
            parts = _parts(left, max(1, sum(map(_claims_in, part)) // 2))
        else:
            for paid in result_of(chain, executed, [each.view.channel for each in part]):
                done.append((paid, [each for each in part if each.view.channel.coin == paid.coin]))
    return done


async def _paying(
    chain: ChainClient, program: Program, part: Sequence[Decision], policy: Policy
) -> ChainClient | None:
    """Return who is to sign a transaction: at no higher price of gas than it was weighed at. None where it brings no
    more than its gas, by a simulation. What it brings may have no known worth.

    Raises `TransactionFailed`.
    """
    worth = 0
    for each in part:
        mist = policy.in_mist(each.view.channel.coin, each.worth)
        if mist is None:
            return chain
        worth += mist
    weighed = await chain.simulate(program)
    if worth <= weighed.cost:
        sums = format_amount(worth), format_amount(weighed.cost)
        log.info(
            "%s would bring %s, and the gas would be %s: not claimed yet",
            count_of(len(part), "channel"),
            *sums,
        )
        return None
    return chain.paying_from(GasAllowance(highest_price=min(weighed.price, chain.max_gas_price)))


def _better(part: list[Decision]) -> list[list[Decision]]:
    """Return the half of a transaction's claims that brings more, as the only part; nothing of one claim."""
    if len(part) > 1:
        ranked = sorted(part, key=lambda each: -each.worth)
        return [ranked[: (len(part) + 1) // 2]]
    (only,) = part
    if len(only.lanes) < 2:
        return []
    channel = only.view.channel
    best = sorted(only.lanes, key=lambda each: -gain_of(channel, [each]))[: (len(only.lanes) + 1) // 2]
    return [[Decision(only.view, Action.CLAIM, tuple(best), gain_of(channel, best))]]


def _parts(decisions: Sequence[Decision], batch: int) -> deque[list[Decision]]:
    """Return one transaction's decisions each, in order, with `batch` claims, or one decision with more."""
    parts: deque[list[Decision]] = deque()
    for each in decisions:
        # A channel has up to sixteen lanes, and each is a claim: what a transaction can hold is counted in those.
        if parts and sum(map(_claims_in, parts[-1])) + _claims_in(each) <= batch:
            parts[-1].append(each)
        else:
            parts.append([each])
    return parts


def _claims_in(decision: Decision) -> int:
    return max(1, len(decision.lanes))


def _halves(part: list[Decision]) -> tuple[list[Decision], ...]:
    """Half of the channels and the rest; of one channel half of its lanes and the rest; none of one claim.

    A lane is refused once its client has claimed as much itself, which is to keep no other from its claim. What was
    to be done behind the claims isn't, since it may end them: it is for the next look.
    """
    middle = len(part) // 2
    if middle:
        return part[:middle], part[middle:]
    view, lanes = part[0].view, part[0].lanes
    middle = len(lanes) // 2
    claims = (lanes[:middle], lanes[middle:]) if middle else ()
    return tuple([Decision(view, Action.CLAIM, each, gain_of(view.channel, each))] for each in claims)


def _dearness(chain: ChainClient, decision: Decision) -> tuple[bool, int, int]:
    """Return the key to sort by: first what adds to the coin that pays the gas, in few claims, and much."""
    channel = decision.view.channel
    ours = channel.server == chain.address and channel.coin == SUI_COIN
    return not ours, _claims_in(decision), -decision.gain
