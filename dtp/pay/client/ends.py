"""Channels of ours that nothing uses any more: each is brought a step nearer to its end, by whoever opens the
store."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeAlias

from dtp.chain.channel import Channel, ChannelError, ChannelState
from dtp.chain.errors import MoveAborted, SignerError
from dtp.chain.model import SUI_COIN, canonical_type
from dtp.chain.node.client import ChainClient
from dtp.chain.node.gas import GasAllowance
from dtp.errors import ChainError, DtpError
from dtp.pay.claims import claims_are_over
from dtp.pay.client.budget import is_in_use
from dtp.pay.client.lost import bought_of, turn
from dtp.pay.errors import OpeningBusy
from dtp.pay.server.cashier import read_channels
from dtp.pay.settling import Settlement, destroy, finalize, request_close
from dtp.pay.spent import at_once, noted, settle_spent
from dtp.pay.store import Store
from dtp.pay.store.journal import Journal
from dtp.pay.store.rows import Bought

log = logging.getLogger("dtp.pay")

#: Closes a channel by agreement with its server, if that is there and agrees; whether it is closed.
Agree: TypeAlias = Callable[[str], Awaitable[bool]]

#: So many are looked at by a program that does something else.
_AT_ONCE: Final = 8
#: What their gas may come to there, MIST: asking and finalizing for some of them.
_GAS: Final = 100_000_000
#: What has to be in a channel for that, MIST: some more than finalizing it, and also asking for it, takes.
_FINALIZED: Final = 5_000_000
_ASKED: Final = 10_000_000


@dataclass(frozen=True, slots=True)
class ClosingStep:
    """What was done with a channel, or is waited for.

    `event` is "closed", "closing" (the server may claim for `seconds`), or "open" (nothing was asked for). `digest`
    is of the transaction that asked for the close just now. `gas` is what the step took (MIST), storage given back
    counted.
    """

    event: str
    paid: Settlement | None = None
    seconds: float = 0.0
    digest: str = ""
    gas: int = 0


async def close_further(
    chain: ChainClient,
    store: Store,
    found: Channel,
    chain_ms: int,
    *,
    ask: bool,
    clock: Callable[[], float] = time.time,
) -> ClosingStep:
    """Take the next step of closing a channel of ours, at `chain_ms` by the chain's clock and `clock` (Unix time in
    seconds) by the one here; with `ask` one that is open is asked to close. In turn with others of the account.
    Raises `OpeningBusy`, and what the chain and the store raise."""
    async with turn(chain, store):
        noting = noted(chain, at_once(store), found.id)
        return await _close_further(noting, store, found, chain_ms, round(clock() * 1000), ask=ask)


async def _close_further(
    chain: ChainClient, store: Store, found: Channel, chain_ms: int, now_ms: int, *, ask: bool
) -> ClosingStep:
    if claims_are_over(found, chain_ms) or found.state == ChannelState.DRAINING:
        return await _finalize(chain, store, found, now_ms)
    if claims_are_over(found, now_ms):
        # By the clock here. That of a node that nobody uses stands still until it is asked to simulate, as the next
        # does before anything is signed (docs/decisions/0120).
        try:
            return await _finalize(chain, store, found, now_ms)
        except MoveAborted as refused:
            if refused.error is not ChannelError.TOO_EARLY:
                raise
    if found.state == ChannelState.CLOSED:
        destroyed = await destroy(chain, found)
        store.set_state(found.id, "closed")
        _note_return(store, found, found.refunded, now_ms)
        return ClosingStep("closed", gas=destroyed.gas.net)
    if found.state == ChannelState.OPEN and ask:
        executed = await request_close(chain, found)
        if found.client == chain.address:
            # Also one that the store didn't know: the next run has to finish it.
            store.add_closing(bought_of(chain, found, "closing"), now_ms)
        seconds, gas = found.terms.claim_ms / 1000, executed.gas.net
        return ClosingStep("closing", seconds=seconds, digest=executed.digest, gas=gas)
    if found.claims_until_ms is not None:
        return ClosingStep("closing", seconds=(found.claims_until_ms - chain_ms) / 1000)
    return ClosingStep("open")


async def _finalize(chain: ChainClient, store: Store, found: Channel, now_ms: int) -> ClosingStep:
    paid = await finalize(chain, found)
    store.set_state(found.id, "closed" if paid.state == ChannelState.CLOSED else "closing")
    _note_return(store, found, paid.to_client, now_ms)
    return ClosingStep("closed", paid, gas=paid.gas)


def _note_return(store: Store, found: Channel, amount: int, now_ms: int) -> None:
    """Note what came back: only once, whoever finalized it. By the clock here, as what went out is."""
    for each in store.bought_channels(found.id):
        if each.deposited > 0:
            store.add_deposit(found.id, now_ms, -min(amount, each.deposited))


def _log_failed(id: str, fault: DtpError) -> None:
    log.info("channel %s can't be brought to its end yet: %s", id, fault)


async def close_due(
    chain: ChainClient,
    journal: Journal[Store],
    chain_ms: int,
    on_failed: Callable[[str, DtpError], object] = _log_failed,
    agree: Agree | None = None,
    clock: Callable[[], float] = time.time,
) -> list[tuple[Channel, ClosingStep]]:
    """Bring channels of the account nearer to their end that were refused, or wait for time that is over; each step
    that was made. `on_failed` hears of each that a node or the chain says something against: the next look tries
    again. Those that would be asked to close are closed by agreement where `agree` does that.

    Only what brings back more than it costs, as deleting one that its server has closed always does: a channel with
    less is left to 'dtp channel close'.
    """
    await settle_spent(chain, journal)
    waiting = await journal.run(partial(_waiting, chain=chain))
    if not waiting:
        return []
    paying, done = chain.paying_from(GasAllowance(_GAS)), []
    try:
        channels = await read_channels(chain, [each.channel for each in waiting])
    except ChainError as fault:
        log.info("channels on their way to their end can't be read: %s", fault)
        return []
    refused = {each.channel for each in waiting if each.state == "refused"}
    for id, found in channels.items():
        over = claims_are_over(found, max(chain_ms, round(clock() * 1000)))
        due = over or found.state in (ChannelState.DRAINING, ChannelState.CLOSED)
        asks = id in refused and found.state == ChannelState.OPEN
        if not (due or asks) or not _is_worth(found, _FINALIZED if due else _ASKED):
            continue
        if asks and agree is not None and await agree(id):
            done.append((found, ClosingStep("closed")))
            log.info("channel %s: closed by agreement with its server", id)
            continue
        try:
            step = await close_further(paying, journal.store, found, chain_ms, ask=id in refused, clock=clock)
        except (ChainError, SignerError, OpeningBusy) as fault:
            on_failed(id, fault)
            continue
        if step.event == "closing" and not step.digest:  # the clock here is ahead of the chain's
            continue
        done.append((found, step))
        log.info("channel %s: %s", id, "its close is asked for" if step.digest else step.event)
    return done


def _is_worth(found: Channel, least: int) -> bool:
    if found.state == ChannelState.CLOSED:  # deleting it brings back more storage than its gas takes
        return True
    return canonical_type(found.coin) != SUI_COIN or found.balance >= least


def _waiting(store: Store, chain: ChainClient) -> list[Bought]:
    ours = [
        each
        for each in store.bought_channels()
        if (each.chain, each.account) == (chain.chain_id, chain.address)
        and each.state in ("closing", "refused")
        and not is_in_use(store, each.channel)
    ]
    # Those that hold most: what is never worth its gas would keep others from being looked at for good.
    return sorted(ours, key=lambda each: each.deposited, reverse=True)[:_AT_ONCE]
