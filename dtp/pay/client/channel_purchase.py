"""What a connection is paid by: a channel of ours, kept, given up or closed at the end."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Final

from dtp.chain import channel as module
from dtp.chain.channel import Channel
from dtp.chain.errors import MoveAborted, TransactionFailed
from dtp.chain.host import Bearer
from dtp.chain.pipes.hub import surrender
from dtp.chain.wallet import money
from dtp.errors import ChainError
from dtp.pay import messages
from dtp.pay.client.client_meter import Purchase
from dtp.pay.client.lane_in_use import LaneInUse, in_turn
from dtp.pay.client.lane_start import PayerLane
from dtp.pay.client.lost import turn
from dtp.pay.client.top_up import LaneMoney, now_ms
from dtp.pay.costs import agreed_total, take_credits
from dtp.pay.errors import ChannelUnusable
from dtp.pay.settling import USUAL_CLOSE, USUAL_OPEN, Settlement, close_agreed, request_close
from dtp.pay.store import Store
from dtp.pay.terms import Prices, Usage

log = logging.getLogger("dtp.pay")

#: A channel is kept for the next connection where what it locks up is so many times the gas of another one, or less.
_KEPT_FOR: Final = 10
#: What opening and closing a channel in place of another would take, about, MIST.
GAS_OF_ANOTHER: Final = USUAL_OPEN + USUAL_CLOSE
#: How long a new channel that is refused is tried again before another one is opened.
_TRIAL_MS: Final = 600_000
#: Credits for transport that are worth a transaction, MIST.
_CREDITS_WORTH: Final = 1_100_000


@dataclass(slots=True)
class ChannelClosing:
    """The close of a channel: by agreement with its server, else by asking the chain."""

    in_use: LaneInUse
    #: What the close by agreement paid to whom, None as long as there was none.
    closed: Settlement | None = field(init=False, default=None)

    async def close_last(self, agreed: messages.Agreed | None) -> None:
        """Close the channel, unless another connection of ours uses it and the server hasn't signed its close; of
        several that end together the last one does. The lane is let go. Raises what the chain raises."""
        async with in_turn(self.in_use.journal, self.in_use.channel.id) as ours:
            # First: of two that see each other's lane in use none would close the channel.
            self.in_use.lock.release()
            # What the server has signed is closed, whoever came meanwhile: it takes the channel no more.
            ends = agreed is not None or (ours and not self.in_use.is_shared)
            if ends and not await self.in_use.is_closed():
                if self.in_use.allowance is not None:
                    self.in_use.allowance.kept = 0  # it was kept for this
                async with turn(self.in_use.chain, self.in_use.journal.store):
                    await self._close_channel(agreed)

    async def _close_channel(self, agreed: messages.Agreed | None) -> None:
        try:
            pipes = await surrender(self.in_use.chain, self.in_use.channel.id)
            if agreed is None or not await self._close_agreed(agreed, pipes):
                await self._ask_close()
        except BaseException:
            if agreed is not None:
                # The server, which has signed, takes this channel no more: left open, it would be used again.
                await self.in_use.set_state("refused")
            raise

    async def _close_agreed(self, agreed: messages.Agreed, pipes: tuple[str, ...]) -> bool:
        """Return whether the channel is closed by agreement. It isn't by one that is unfair or not signed, or that
        the chain refuses."""
        id = self.in_use.channel.id
        if not await self.is_fair(agreed):
            return False
        try:
            self.closed = await close_agreed(self.in_use.paying, self.in_use.channel, agreed, pipes)
        except ChannelUnusable as fault:  # it isn't signed by whom it says: the chain needn't be asked
            log.warning("channel %s can't be closed by agreement: %s", id, fault)
            return False
        except TransactionFailed as fault:
            # Asking needs no agreement. It is tried where refusing cost nothing, or where being late was all.
            late = isinstance(fault, MoveAborted) and fault.error is module.ChannelError.AGREEMENT_EXPIRED
            if not (fault.simulated or late):
                raise
            log.info("channel %s can't be closed by agreement: %s", id, fault)
            return False
        back = self.closed.to_client

        def note(store: Store) -> None:
            store.set_state(id, "closed")
            store.add_deposit(id, now_ms(), -back)

        await self.in_use.journal.run(note)
        return True

    async def _ask_close(self) -> None:
        id = self.in_use.channel.id
        if self.in_use.channel.terms.bearer == Bearer.SERVER and self.in_use.channel.terms.credit:
            # What the server bears of our transport comes back with the refund, if it is more than asking costs.
            await take_credits(self.in_use.paying, self.in_use.channel, _CREDITS_WORTH)
        try:
            await request_close(self.in_use.paying, self.in_use.channel)
        except MoveAborted as fault:  # anyone may ask for the close of a channel that is idle on chain
            if fault.error is not module.ChannelError.CHANNEL_CLOSED:
                raise
            log.info("channel %s is closing already", id)
        await self.in_use.set_state("closing")
        log.info("channel %s closes when the server's time for claims is over: dtp channel close", id)

    async def is_fair(self, agreed: messages.Agreed) -> bool:
        """Return whether the total is no more than what was signed on all lanes and transport comes to. The chain
        checks the rest.

        It isn't while a key is to be told for what was signed: a claim has to tell it, an agreement doesn't.
        """
        lanes = await self.in_use.journal.run(lambda store: store.payer_lanes(self.in_use.channel.id))
        signed = [lane.newest.voucher for _, lane in lanes if lane.newest is not None]
        if any(each.hash_lock is not None for each in signed):
            log.warning(
                "the server has not told the key that a voucher of channel %s pays for",
                self.in_use.channel.id,
            )
            return False
        used = Usage(sum(each.requests for each in signed), sum(each.bytes for each in signed))
        most = await agreed_total(
            self.in_use.chain, self.in_use.channel, sum(each.amount for each in signed), used
        )
        if agreed.total > most:
            sums = (money(each, self.in_use.channel.coin) for each in (agreed.total, most))
            log.warning("the server wants %s for the agreed close, and it comes to %s", *sums)
        return agreed.total <= most


@dataclass(slots=True)
class ChannelPurchase(Purchase):
    """A channel in use, the money on its lane, and its end.

    It is closed with the connection unless `keep`, or unless another connection uses it by then. With None it is kept
    where another one would cost more gas than a tenth of what it locks up.
    """

    in_use: LaneInUse
    money: LaneMoney
    prices: Prices
    keep: bool | None
    #: Whether it got more money for this connection, or not long before: the server may not know of that.
    topped_up: bool = False
    #: The BCS of the transaction that opened it for this connection, empty where it was there before.
    opened_by: bytes = b""
    closing: ChannelClosing = field(init=False)
    #: Dials the server once more, which broke off, for its signature under the close.
    redial: Callable[[ChannelPurchase], Awaitable[messages.Agreed | None]] | None = field(
        init=False, default=None
    )
    #: Whether it was found to be cheaper to keep the channel, where `keep` didn't say.
    kept_as_cheaper: bool = field(init=False, default=False)
    _settled: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self.closing = ChannelClosing(self.in_use)

    @property
    def channel(self) -> Channel:
        """The channel, as a node showed it last."""
        return self.in_use.channel

    @property
    def coin(self) -> str:
        """The type of the coin that the channel holds."""
        return self.channel.coin

    @property
    def start(self) -> int:
        """What the lane came to before this connection, as far as it is known."""
        return self.money.start

    @start.setter
    def start(self, amount: int) -> None:
        self.money.start = amount

    @property
    def fresh(self) -> bool:
        """Whether the channel was opened for this connection."""
        return bool(self.opened_by)

    @property
    def closes(self) -> bool:
        """Whether the channel ends with this connection."""
        return not self.keeps and not self.in_use.is_shared

    @property
    def keeps(self) -> bool:
        """Whether the channel is left open for the next connection."""
        if self.keep is None:
            left = self.in_use.unsigned(self.signed)
            # What is locked up in another coin can't be compared with gas, so it isn't.
            self.keep = not left or (self.money.budget.in_sui and left <= _KEPT_FOR * GAS_OF_ANOTHER)
            self.kept_as_cheaper = self.keep
        return self.keep

    @property
    def disputed_amount(self) -> int:
        """What the server wants beyond what is signed, in the coin: it agrees to no close without it."""
        return self.prices.cost_of(self.disputed)

    def puts_off(self, wanted: int) -> bool:
        """Return whether so much money that isn't needed yet is left until it is."""
        return self.money.is_put_off

    async def can_replace(self, now: float) -> bool:
        """Return whether another channel may be opened when the server refuses this one, at the Unix time
        `now` (s).

        Not for a new one that was never let in, which another would share the fate of; nor when one was given up that
        is new, too: a server that lets each in once would have all the client's money in channels.
        """
        if self.fresh:
            return False
        channels = await self.in_use.journal.run(lambda store: store.bought_channels())
        (ours,) = (each for each in channels if each.channel == self.channel.id)
        # By the clock that it was noted with: the channel's own date is a node's word.
        if is_new(ours.opened_ms, now) and self.in_use.lane == PayerLane(
            self.channel.id, self.in_use.lane.lane
        ):
            return False
        return not any(
            each.refused and each.purpose == ours.purpose and is_new(each.opened_ms, now)
            for each in channels
            if each is not ours
        )

    async def forgotten_lanes(self) -> list[ChannelPurchase]:
        """Return other lanes of the channel that nobody uses, as `LaneInUse.forgotten_lanes` does."""
        found = await self.in_use.forgotten_lanes()
        return [replace(self, in_use=each, money=replace(self.money, in_use=each)) for each in found]

    async def break_off(self, agreed: messages.Agreed | None) -> None:
        """Let the lane go without waiting for anything. The channel stays open for the next time, unless the server
        has signed its close."""
        if agreed is not None and not self._settled:
            await self.in_use.give_up()

    async def settle(self, agreed: messages.Agreed | None) -> None:
        """Close the channel unless it is kept: by agreement at once, else by asking, with `claim_ms` for claims. A
        server that broke off is dialled once more before that.

        Of several connections that end together the last one does. Idempotent. Raises what the chain raises, unless
        the channel is closed by then; then `dtp channel close` does it later, and a channel whose close was agreed on
        isn't used again.
        """
        if self._settled:
            return
        self._settled = True
        try:
            if not self.keeps:
                if agreed is None and self.broke_off and self.redial is not None and self.closes:
                    agreed = await self.redial(self)
                await self.closing.close_last(agreed)
        except ChainError:
            if not await self.in_use.is_closed():
                raise
        finally:
            self.in_use.lock.release()


def is_new(opened_ms: int, now: float) -> bool:
    """Return whether a channel was opened less than ten minutes before `now`, Unix time in s."""
    # A clock that was set back makes the age negative: however far, the trial isn't to be longer for it.
    return abs(now * 1000 - opened_ms) < _TRIAL_MS
