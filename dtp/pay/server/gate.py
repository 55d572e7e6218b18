"""Who gets a paid service: tickets are checked against channel, firewall and store before a byte is served.

The order is by cost: the ticket's form, what is remembered of the channel, a signature; a question to the chain only
for channels that aren't known, and those are rationed (`book`). A refusal is one CLOSE frame with the reason.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from dtp.chain.channel import Channel, ChannelState, Lane
from dtp.chain.firewall import (
    AccessRules,
    Firewall,
    FirewallDecision,
    FirewallRefusal,
    HolderOfPass,
    plans_taken,
    refuse,
)
from dtp.errors import ChainError, DtpError
from dtp.net.listener import Request
from dtp.pay.claims import MINUTE
from dtp.pay.drivers import store_away
from dtp.pay.errors import StoreError, TicketRefused
from dtp.pay.server.backing import contradiction
from dtp.pay.server.book import ChannelBook, TooManyQuestions, affordable
from dtp.pay.server.quota import PassQuotas, period_of
from dtp.pay.server.stored_vouchers import Floor, PayeeLane
from dtp.pay.store.holding import VoucherStore
from dtp.pay.store.journal import Journal
from dtp.pay.store.sold import SoldStore
from dtp.pay.terms import FREE_NO_MORE, QUOTA_USED_UP, Prices, is_free_no_more
from dtp.pay.ticket import Ticket, parse_ticket
from dtp.session.codes import CloseCode, CloseDetail, Refuse

log = logging.getLogger("dtp.pay")


#: How long the signature under an agreed close is good, ms: a transaction takes a second, a busy chain minutes. At
#: most half of the time for claims: a client that asks the chain for the close instead owes for transport as before,
#: and as long as the signature is good nothing of that is taken.
AGREEMENT_MS: Final = 10 * 60_000
_RESTORED: Final = (
    "the server was restored from a backup, and the channel's close may have been agreed on since"
)
_PASS_OVER: Final = "the pass of this channel is over or not known here"
#: Refusals of somebody who holds a channel that may rest on rules read a moment too early: a pass was just bought.
_MAY_HAVE_CHANGED: Final = (
    FirewallRefusal.NEEDS_PASS,
    FirewallRefusal.NOT_ALLOWED,
    FirewallRefusal.NO_SERVICE,
    FirewallRefusal.SERVICE_CLOSED,
)


@dataclass(frozen=True, slots=True)
class AdmittedClient:
    """Who was let in, and by which lane: all that a meter needs. `affordable` as `Payee` has it. Who `closes` is
    served nothing."""

    channel: Channel
    lane: PayeeLane
    keys: tuple[bytes, ...]
    prices: Prices
    affordable: int
    pass_: HolderOfPass | None
    closes: bool = False


class _UsedUp(TicketRefused):
    """Nothing is left to pay with, as far as it is known."""


def floor_of(lane: Lane) -> Floor:
    """Return what the chain has accepted of a lane."""
    return Floor(lane.sequence, lane.amount, lane.requests, lane.bytes)


def honoured_keys(lane: Lane, now_ms: int) -> tuple[bytes, ...]:
    """Return the keys that sign for a lane at the chain's time `now_ms`: its own, and the one before for a while."""
    return (lane.key, lane.old_key) if lane.old_key and now_ms < lane.old_until_ms else (lane.key,)


def channel_flaw(channel: Channel, rules: AccessRules, number: int, least_revision: int = 0) -> str | None:
    """Return why a channel doesn't pay for service `number` of this host, None when it does.

    An open channel keeps the terms it was opened under, so an older revision is good, if it isn't from when the
    service was free; `least_revision` refuses those below it.
    """
    host = rules.state.host
    if channel.host != host.id:
        return "the channel is with another host"
    if channel.service != number:
        return f"the channel is for service {channel.service}, not {number}"
    if channel.server != host.owner:
        return "the channel pays another account than this host's: it has a new owner; open another channel"
    if channel.state != ChannelState.OPEN:
        return "the channel is closing or closed; open another"
    if (flaw := contradiction(channel)) is not None:
        return f"{flaw}; open another channel"
    terms = host.services[number].terms
    # One under a pass is of its plan's coin, and holds none.
    if channel.pass_ is None and channel.terms.coin != terms.coin:
        return f"the channel holds {channel.terms.coin}, and the service is paid in {terms.coin}"
    if is_free_no_more(channel, terms):
        return FREE_NO_MORE
    if channel.terms.revision < least_revision:
        return "the channel's terms are too old; open another"
    return None


def pass_of(channel: Channel, rules: AccessRules, now: float) -> HolderOfPass | None:
    """Return the pass that the channel was opened under, if it is good now; None if not, or if its plan isn't known
    here."""
    now_ms = rules.state.now_ms(now)
    for each in rules.passes.get(channel.client, ()):
        if each.pass_id == channel.pass_ and each.service == channel.service:
            return each if each.is_good(now_ms, rules.epoch) else None
    return None


def _has_begun_since(held: HolderOfPass, rules: AccessRules, now: float) -> bool:
    """Return whether the pass's period began after the rules were read: its holder may have given it back until
    then."""
    state = rules.state
    return held.period_ms > 0 and period_of(held, state.now_ms(now), rules.epoch) > state.chain_ms


class TicketGate:
    """Checks tickets for a listener. For one event loop."""

    def __init__(
        self,
        book: ChannelBook,
        firewall: Firewall,
        journal: Journal[VoucherStore],
        quotas: PassQuotas,
        *,
        least_revision: int = 0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.book = book
        self.firewall = firewall
        self._journal = journal
        self._quotas = quotas
        self._least_revision = least_revision
        self._clock = clock
        #: When the store was restored from a copy, and until when by the clock here a close may be used that isn't in
        #: it, ms: the chain's time is a node's word.
        self.restored_ms = self.unknown_until_ms = 0

    def now_ms(self) -> int:
        """Return the chain's time, as far as it is known here."""
        rules = self.firewall.rules
        return rules.state.now_ms(self._clock()) if rules is not None else round(self._clock() * 1000)

    def own_ms(self) -> int:
        """Return the time by the clock here, ms."""
        return round(self._clock() * 1000)

    async def wait_for_closes(self) -> None:
        """Take no channel from before the copy that the store was restored from, if it was, until no close of it can
        be used that was agreed on behind the copy: what was served on it would be closed away. Raises
        `StoreError`."""
        own_ms = self.own_ms()
        last_ms = own_ms + AGREEMENT_MS + MINUTE
        restored_ms = max(own_ms, self.now_ms())
        wait = await self._journal.run(lambda store: _begin_wait(store, restored_ms, last_ms))
        if wait is not None:
            # A clock that was set back since is to keep nobody waiting for longer.
            self.restored_ms, self.unknown_until_ms = wait[0], min(wait[1], last_ms)
            seconds = max(0, self.unknown_until_ms - own_ms) / 1000
            log.warning("the store was restored from a copy: channels from before wait for %.0f s", seconds)

    async def go_on(self) -> None:
        """End that wait once it is over; a server that ended before goes on with it. Raises `StoreError`."""
        if self.restored_ms and self.own_ms() >= self.unknown_until_ms:
            await self._journal.run(_go_on_with_copy)
            self.restored_ms = 0

    async def admit(self, request: Request) -> AdmittedClient:
        """Return what is known of a request that may come in, for `listen(admit=...)`. Raises `Refuse`."""
        try:
            return await self._admit_client(request)
        except TicketRefused as error:
            log.info("%s refused for service %r: %s", request.peer.short, request.service, error)
            raise Refuse(CloseCode.TICKET, str(error), detail=error.detail) from error
        except TooManyQuestions as error:
            log.info("%s refused for service %r: %s", request.peer.short, request.service, error)
            raise Refuse(CloseCode.BUSY, str(error)) from error
        except ChainError as error:
            log.warning("a ticket of %s can't be checked: %s", request.peer.short, error)
            raise Refuse(CloseCode.BUSY, "the chain can't be asked at the moment: try again later") from error
        except StoreError as error:
            log.warning("a ticket of %s can't be checked: %s", request.peer.short, error)
            raise store_away() from error
        except DtpError as error:  # a row in the store is broken: said to the operator only
            log.warning("a ticket of %s can't be checked: %s", request.peer.short, error)
            raise Refuse(CloseCode.BUSY, "tickets can't be checked at the moment: try again later") from error

    async def _admit_client(self, request: Request) -> AdmittedClient:
        ticket = parse_ticket(request.ticket)
        channel, keys = await self._verify_ticket(ticket, request)
        if channel.opened_ms <= self.restored_ms and self.own_ms() < self.unknown_until_ms:
            seconds = (self.unknown_until_ms - self.own_ms()) / 1000
            why = f"{_RESTORED}: try again in {seconds:,.0f} s"
            raise Refuse(CloseCode.BUSY, why, detail=CloseDetail.SERVER_RESTORED)
        if ticket.closes:
            return await self._admitted_to_close(channel, ticket.lane, keys)
        decision, rules = await self._decide_admission(channel, request)
        flaw = channel_flaw(channel, rules, decision.number, self._least_revision)
        if flaw is not None:
            raise TicketRefused(flaw, CloseDetail.CHANNEL_UNFIT)
        held = None
        if channel.pass_ is not None:
            held = await self._find_pass(channel, rules, request)

        async def known(channel: Channel) -> AdmittedClient:
            return await self._journal.run(lambda store: _admission(store, channel, ticket.lane, keys, held))

        try:
            return await known(channel)
        except _UsedUp:
            # Its client may have topped it up just before: what is remembered isn't enough.
            found = await self.book.read_again(channel.id, request.source)
            if found is None or channel_flaw(found, rules, decision.number) is not None:
                raise
            return await known(found)

    async def _admitted_to_close(
        self, channel: Channel, number: int, keys: tuple[bytes, ...]
    ) -> AdmittedClient:
        """Let in who comes only to agree on the close, whatever keeps its channel from being served: what is left of
        the deposit is the client's. Raises `TicketRefused` where there is nothing to agree on."""
        if channel.state == ChannelState.OPEN:
            known = await self._journal.run(lambda store: _to_close(store, channel, number, keys))
            if known is not None:
                return known
        raise TicketRefused("the channel is closing or closed", CloseDetail.CHANNEL_CLOSED)

    async def _find_pass(self, channel: Channel, rules: AccessRules, request: Request) -> HolderOfPass:
        """Return the pass that a channel was opened under, with something left of its quota."""
        held = pass_of(channel, rules, self._clock())
        # Where it isn't asked of everybody, nobody has looked for one that was just bought.
        if held is None or _has_begun_since(held, rules, self._clock()):
            self.book.take_turn(request.source)
            rules = await self.firewall.refresh()
            held = pass_of(channel, rules, self._clock())
        elif await self._quotas.used_up(held):
            rules = await self._renewed_since(rules, request)
            held = pass_of(channel, rules, self._clock())
        else:
            return held
        if held is None:
            known = any(each.pass_id == channel.pass_ for each in rules.passes.get(channel.client, ()))
            taken = [each.id for each in rules.plans if each.service == channel.service]
            why = f"{_PASS_OVER}: renew it" if known else f"{_PASS_OVER}; {plans_taken(taken)}"
            raise TicketRefused(why, CloseDetail.PASS_OVER)
        if await self._quotas.used_up(held):
            log.info("%s refused for service %r: %s", request.peer.short, request.service, QUOTA_USED_UP)
            # No ticket would help: with another one the client would only open another channel.
            raise Refuse(CloseCode.PAYMENT, QUOTA_USED_UP, detail=CloseDetail.QUOTA_USED_UP)
        return held

    async def _renewed_since(self, rules: AccessRules, request: Request) -> AccessRules:
        """Read the rules again, or return those that are known where the chain can't be asked now.

        A pass may be over, or renewed, by the chain's clock, which is only reckoned here between readings.
        """
        try:
            self.book.take_turn(request.source)
            return await self.firewall.refresh()
        except (TooManyQuestions, ChainError) as error:
            log.info("rules aren't read again for %s: %s", request.peer.short, error)
            return rules

    async def _verify_ticket(self, ticket: Ticket, request: Request) -> tuple[Channel, tuple[bytes, ...]]:
        """Return the channel of a ticket that one of its lane's keys made for this handshake."""
        channel = await self.book.find(ticket.channel, request.source)
        for again in (True, False):
            if channel is None:
                raise TicketRefused("there is no such channel", CloseDetail.CHANNEL_UNKNOWN)
            if ticket.lane < len(channel.lanes):
                keys = honoured_keys(channel.lanes[ticket.lane], self.now_ms())
                if ticket.is_by(keys, request.binding):
                    return channel, keys
            if again:  # a lane may have been added, or got another key, just before
                channel = await self.book.read_again(ticket.channel, request.source)
        raise TicketRefused(
            "the ticket isn't by the lane's key, or not for this connection", CloseDetail.TICKET_NOT_PROVEN
        )

    async def _decide_admission(
        self, channel: Channel, request: Request
    ) -> tuple[FirewallDecision, AccessRules]:
        """Return what the host's firewall says of the account that pays, and of the identity that connects."""
        decision = await self.firewall.decide(channel.client, request.service)
        if decision.refusal in _MAY_HAVE_CHANGED:
            self.book.take_turn(request.source)
            await self.firewall.refresh()
            decision = await self.firewall.decide(channel.client, request.service)
        if decision.refusal is not None:
            raise refuse(decision.refusal, decision.plans)
        rules = self.firewall.rules
        assert rules is not None  # else everybody is refused
        if request.peer.sui_address in rules.deny:
            raise refuse(FirewallRefusal.DENIED)
        return decision, rules


def _admission(
    store: VoucherStore, channel: Channel, number: int, keys: tuple[bytes, ...], held: HolderOfPass | None
) -> AdmittedClient:
    """Return what the store knows of the lane. Raises `TicketRefused` when nothing is left to pay with."""
    if store.end_of(channel.id) is not None:
        raise TicketRefused("the channel is agreed to be closed; open another", CloseDetail.CHANNEL_CLOSED)
    known = _known(store, channel, number, keys, held)
    newest = known.lane.newest
    vouched = max(channel.lanes[number].amount, newest.voucher.amount if newest else 0)
    if any(known.prices) and known.affordable <= vouched:
        raise _UsedUp(
            "the channel's deposit is used up: top it up, or open another", CloseDetail.DEPOSIT_USED_UP
        )
    return known


def _to_close(
    store: VoucherStore, channel: Channel, number: int, keys: tuple[bytes, ...]
) -> AdmittedClient | None:
    """Return what the store knows of the lane of one who comes to close; None where the channel is over."""
    end = store.end_of(channel.id)
    if end is not None and end.over:
        return None
    return replace(_known(store, channel, number, keys, None), closes=True)


def _known(
    store: VoucherStore, channel: Channel, number: int, keys: tuple[bytes, ...], held: HolderOfPass | None
) -> AdmittedClient:
    # What was claimed was served and paid, also when this store knows nothing of it.
    lane = replace(store.sold_lane(channel.id, number), floor=floor_of(channel.lanes[number]))
    prices = Prices(channel.terms.price_request, channel.terms.price_mib)
    most = affordable(channel, number, store.vouched_sums(channel.id))
    return AdmittedClient(channel, lane, keys, prices, most, held)


def _begin_wait(store: VoucherStore, restored_ms: int, until_ms: int) -> tuple[int, int] | None:
    """Return since when a restored store is used, and until when channels from before wait; None for a store that
    isn't."""
    if not isinstance(store, SoldStore) or not store.is_copy():
        return None
    return store.begin_wait(restored_ms, until_ms)


def _go_on_with_copy(store: VoucherStore) -> None:
    if isinstance(store, SoldStore):
        store.go_on_with_copy()
