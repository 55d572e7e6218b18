"""What a server knows of channels in use: all connections of each, and what they owe together.

A meter knows one lane. That the vouchers of all lanes fit the deposit, that a lane is used by one connection, that
nothing more is served once a close was agreed, how much of a subscription's quota is left: that is known here.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Final

from dtp.bounded import BoundedDict
from dtp.chain.channel import Channel, ChannelState, CloseAgreement, Lane, agreement_bytes
from dtp.chain.firewall import AccessRules, FirewallRefusal, refuse
from dtp.chain.host import Bearer
from dtp.chain.node.client import ChainClient
from dtp.chain.pipes.where import channel_of
from dtp.chain.signer import KeySigner, Scheme
from dtp.errors import ChainError
from dtp.net.connection import Connection
from dtp.pay import messages
from dtp.pay.claims import Policy, claim_margin
from dtp.pay.costs import agreed_total, carriage
from dtp.pay.drivers import store_away
from dtp.pay.errors import StoreError
from dtp.pay.server.backing import believed, claimed_of, contradiction
from dtp.pay.server.book import ChannelBook, affordable
from dtp.pay.server.cashier import read_channels
from dtp.pay.server.gate import AGREEMENT_MS, AdmittedClient, floor_of, honoured_keys
from dtp.pay.server.payee import Payee
from dtp.pay.server.quota import PassQuotas
from dtp.pay.server.server_meter import ChannelAccount, ServerMeter
from dtp.pay.server.stored_vouchers import PayeeLane
from dtp.pay.settling import Settlement
from dtp.pay.store.holding import VoucherStore
from dtp.pay.store.journal import Journal
from dtp.pay.store.rows import End
from dtp.pay.terms import (
    FREE_NO_MORE,
    MIB,
    NO_CARRIAGE,
    OTHERS_PART,
    Exposure,
    Prices,
    Usage,
    is_free_no_more,
)
from dtp.pay.ticket import MAX_LANES
from dtp.pay.voucher import SignedVoucher
from dtp.session.codes import CloseCode, CloseDetail, Refuse
from dtp.tasks import TaskSet

log = logging.getLogger("dtp.pay")

#: So many channels are remembered that didn't pay, and what their clients are told.
_MOST_UNPAID: Final = 10_000
_UNPAID: Final = "the deposit didn't pay for the vouchers that were claimed"
#: Seconds between two looks at one channel that a client can ask for.
LOOK_INTERVAL: Final = 2.0
#: Seconds that a connection may last whose client has come only to agree on a close.
_CLOSING: Final = 30.0
#: Vouchers must be claimable for at least so long after they come, ms: an hour is time for a server that was down.
_LEAST_CLAIM_TIME: Final = 3_600_000
#: Where the server bears transport cost a client's counts may be so far above ours: what is under way.
_MOST_AHEAD: Final = Usage(64, 8 * MIB)


@dataclass(slots=True)
class _Entry:
    """A channel in use. `vouched` is stored, `pending` is being checked, by lane."""

    channel: Channel
    vouched: dict[int, int]
    pending: dict[int, int] = field(default_factory=dict)
    meters: dict[int, ServerMeter] = field(default_factory=dict)
    lanes: dict[int, Lane] = field(default_factory=dict)
    ending: bool = False
    #: The close that was agreed on before the first of these connections.
    end: End | None = None
    agreeing: bool = False
    agreed: messages.Agreed | None = None
    looked_at: float = float("-inf")
    looking: bool = False
    claimed_at: float = float("-inf")  # when the cashier was last asked to claim

    @property
    def _most(self) -> dict[int, int]:
        return {
            each: max(self.vouched.get(each, 0), self.pending.get(each, 0))
            for each in self.vouched.keys() | self.pending.keys()
        }

    def affordable_amount(self, lane: int) -> int:
        """Return what the lane's vouchers may come to, beside what others have and are about to have."""
        return affordable(self.channel, lane, self._most)

    def trusted_amount(self, lane: int, policy: Policy) -> int | None:
        """Return what the lane is served for before more is claimed; None for all of its deposit."""
        if self.channel.pass_ is not None:
            return None
        others = sum(amount for each, amount in self._most.items() if each != lane)
        return believed(self.channel, others, policy.unclaimed_in(self.channel.coin))

    def is_to_be_claimed(self, policy: Policy) -> bool:
        """Return whether so much isn't claimed that serving would stop soon."""
        most = policy.unclaimed_in(self.channel.coin)
        unclaimed = sum(self.vouched.values()) - claimed_of(self.channel)
        return most is not None and 2 * unclaimed >= most


class Ledger(ChannelAccount):
    """The channels in use of one listener. For one event loop. `now_ms` is the chain's time."""

    def __init__(
        self,
        book: ChannelBook,
        journal: Journal[VoucherStore],
        chain: ChainClient,
        quotas: PassQuotas,
        now_ms: Callable[[], int],
        policy: Policy | None = None,
    ) -> None:
        self._book = book
        self._policy = policy or Policy()
        self._journal = journal
        self._chain = chain
        signer = chain.signer
        self._signer = signer if isinstance(signer, KeySigner) and signer.scheme is Scheme.ED25519 else None
        self._quotas = quotas
        self._now_ms = now_ms
        #: Hears of each channel that begins to be used, and of each that ended since its close was asked for.
        self.on_channel: Callable[[Channel], None] = lambda channel: None
        #: Hears of each channel of which so much isn't claimed that serving stops soon.
        self.on_unclaimed: Callable[[str], None] = lambda channel: None
        self._open: dict[str, _Entry] = {}
        #: What was served on lanes, where it couldn't be written at the end of a connection.
        self._unwritten: dict[tuple[str, int], Usage] = {}
        #: Channels whose deposit paid nothing for what was claimed, whatever the node says of them.
        self._unpaid: BoundedDict[str, None] = BoundedDict(_MOST_UNPAID)
        self._holds = journal.store.open_holds()
        self._giving_back = TaskSet()
        self._loop = asyncio.get_running_loop()

    @property
    def channels(self) -> list[str]:
        """Ids of the channels that connections use now."""
        return list(self._open)

    def can_agree(self, channel: Channel) -> bool:
        """Return whether agreed closes of this channel can be signed here."""
        return self._signer is not None and self._signer.address == channel.server

    async def open_meter(
        self, connection: Connection, admission: AdmittedClient, exposure: Exposure, count_streams: bool
    ) -> ServerMeter | None:
        """Return the meter of a connection of this admission, which the caller begins.

        `count_streams` says whether each stream of the client's is a request.
        None when the channel ended meanwhile. Raises `Refuse` where another server that has the same store serves it,
        and while vouchers can't be stored: nobody is served before something could be written again.
        An older connection of the same lane is ended: its client has come again, or its key is used twice.
        """
        try:
            # Held before it is read: what another server has stored until then is known, and nothing comes after it.
            await self._hold_channel(admission.channel.id)
            meter = None
            try:
                meter = await self._begin_meter(connection, admission, exposure, count_streams)
            finally:
                if meter is None:
                    await self._free_channel(admission.channel.id)
        except StoreError as error:  # else it is served what can't be paid
            log.warning("channel %s is not served: %s", admission.channel.id, error)
            raise store_away() from error
        return meter

    async def _hold_channel(self, channel: str) -> None:
        """Hold a channel for a connection. Raises `Refuse` where another server has it, and `StoreError`."""
        held = False

        def hold(store: VoucherStore) -> None:
            nonlocal held
            held = self._holds.hold_channel(channel)

        try:
            await self._journal.run(hold)
        except asyncio.CancelledError:
            # The thread may be about to hold it, or to find that it was called off.
            self._giving_back.start(self._free_called_off(channel, lambda: held), name="dtp-pay-free")
            raise
        if not held:
            raise Refuse(
                CloseCode.PAYMENT,
                "another server of this host serves the channel now",
                detail=CloseDetail.CHANNEL_ELSEWHERE,
            )

    async def _free_called_off(self, channel: str, is_held: Callable[[], bool]) -> None:
        with contextlib.suppress(StoreError):  # the journal is closed: it has done what it was given
            await self._journal.run(lambda store: None)  # behind what was to hold it
        if is_held():
            await self._give_back(channel)

    async def _free_channel(self, channel: str) -> None:
        """Give a channel back, also where this is cancelled."""
        await asyncio.shield(self._giving_back.start(self._give_back(channel), name="dtp-pay-free"))

    async def _give_back(self, channel: str) -> None:
        # In any thread: the journal's may have ended before the last connections.
        try:
            await asyncio.to_thread(self._holds.free, channel)
        except StoreError as error:  # the database is away, and so are our locks
            log.debug("channel %s: %s", channel, error)

    async def _begin_meter(
        self, connection: Connection, admission: AdmittedClient, exposure: Exposure, count_streams: bool
    ) -> ServerMeter | None:
        channel, number = admission.channel, admission.lane.lane

        def known(store: VoucherStore) -> tuple[PayeeLane, dict[int, int], End | None]:
            lane = store.sold_lane(channel.id, number)
            if writes:  # else nobody is served: each connection would have the exposure for nothing
                store.save_served(channel.id, number, lane.used if unwritten is None else unwritten)
                lane = store.sold_lane(channel.id, number)
            return lane, store.vouched_sums(channel.id), store.end_of(channel.id)

        while True:
            entry = self._open.get(channel.id)
            if entry is not None and (older := entry.meters.get(number)) is not None:
                older.connection.abort(CloseCode.SHUTDOWN, "the lane is used by a newer connection")
                await older.wait_settled()
            # Only what is read after the older one has written is true.
            unwritten = self._unwritten.get((channel.id, number))
            writes = unwritten is not None or self._journal.fault is not None
            lane, vouched, end = await (self._journal.write if writes else self._journal.run)(known)
            if self._unwritten.get((channel.id, number)) is unwritten:
                self._unwritten.pop((channel.id, number), None)
            if end is not None and (end.over or not admission.closes):
                return None
            if admission.pass_ is not None:
                await self._quotas.lease_part(admission.pass_)
            entry = self._open.get(channel.id)
            if entry is None or number not in entry.meters:
                break
            # Meanwhile another has begun on this lane: two at a time would be paid by one voucher.
        ending = entry is not None and entry.ending and not admission.closes
        if ending or channel.id in self._unpaid:
            return None
        if entry is None:
            entry = self._open[channel.id] = _Entry(channel, vouched, end=end)
        entry.lanes[number] = channel.lanes[number]
        self.on_channel(channel)
        terms = channel.terms
        payee = Payee(
            replace(lane, floor=admission.lane.floor),
            admission.prices,
            admission.affordable,
            _begun(exposure, admission, vouched),
            count_streams,
            most_ahead=_MOST_AHEAD if terms.bearer == Bearer.SERVER else None,
            agrees=self.can_agree(channel),
            closing=admission.closes,
        )
        meter = entry.meters[number] = ServerMeter(connection, self._journal, payee, self)
        if admission.pass_ is not None:
            self._quotas.add_meter(meter, admission.pass_)
        self._spread_deposit(entry)
        return meter

    async def see_out(self, connection: Connection) -> None:
        """Wait until a connection is over whose client has come only to agree on a close, and end it where that takes
        longer than it may."""
        try:
            async with asyncio.timeout(max(_CLOSING, connection.patience)):
                await connection.wait_closed()
        except TimeoutError:
            connection.abort(CloseCode.PAYMENT, "closing takes too long", detail=CloseDetail.CHANNEL_CLOSED)

    # ---- what meters ask for

    def _entry_of(self, meter: ServerMeter) -> _Entry:
        return self._open[meter.payee.lane.channel]

    def keys(self, meter: ServerMeter) -> tuple[bytes, ...]:
        """Return the keys that sign for the lane now, without one whose grace ends before its vouchers could be
        claimed."""
        entry, now_ms = self._entry_of(meter), self._now_ms()
        lane = entry.lanes[meter.payee.lane.lane]
        # What the previous key signs is worth nothing once its grace is over: it has to be claimed before.
        return honoured_keys(lane, now_ms + claim_margin(entry.channel.terms.claim_ms))

    def least_end_ms(self, meter: ServerMeter) -> int:
        """Return the soonest end that a voucher which comes now may have, Unix ms: after the time that a claim
        takes."""
        return self._now_ms() + min(self._entry_of(meter).channel.terms.claim_ms, _LEAST_CLAIM_TIME)

    def carrier_prices(self, meter: ServerMeter) -> Prices:
        """Return what is kept of the deposit for transport, by what carries the connection now; end a connection
        whose pipes the channel doesn't pay for.

        Over other carriers than pipes no frame is sent, and nothing has to be kept; what went over pipes stays
        metered.

        A channel's vouchers are evidence for frames on its own pipes only: over those of another, which any client
        can open for the least deposit, transport that the client bears would be ours.
        """
        channel, connection = self._entry_of(meter).channel, meter.connection
        kept = carriage(channel.terms)
        if channel.terms.bearer != Bearer.CLIENT or not (any(kept) or channel.pass_):
            return NO_CARRIAGE
        over = {of for each in connection.stats.carriers if (of := channel_of(each)) is not None}
        if over and channel.pass_:  # it pays for periods, and not for what goes through the chain in them
            connection.abort(
                CloseCode.PAYMENT,
                "the client bears transport here, and a pass pays for none: come by another carrier than pipes",
            )
        elif over - {channel.id}:
            connection.abort(
                CloseCode.PAYMENT,
                f"the client bears transport here, so pipes have to be those of the channel that pays: {channel.id}",
            )
        return kept if over else meter.payee.deposit.carriage

    def reserve(self, meter: ServerMeter, amount: int) -> bool:
        """Set a sum aside for a voucher of the lane that is checked; False where it fits the deposit beside all lanes
        no more."""
        entry, lane = self._entry_of(meter), meter.payee.lane.lane
        if amount > entry.affordable_amount(lane):
            return False
        entry.pending[lane] = max(amount, entry.pending.get(lane, 0))
        return True

    def voucher_stored(self, meter: ServerMeter, signed: SignedVoucher) -> None:
        """Count a voucher that is in the store, tell the other lanes what is left for them, and have it claimed if it
        is due."""
        entry, lane = self._entry_of(meter), meter.payee.lane.lane
        entry.vouched[lane] = max(signed.voucher.amount, entry.vouched.get(lane, 0))
        if entry.pending.get(lane, 0) <= entry.vouched[lane]:
            entry.pending.pop(lane, None)
        if len(entry.meters) > 1:
            self._spread_deposit(entry)
        self._claim_if_due(entry)

    def _claim_if_due(self, entry: _Entry) -> None:
        now = self._loop.time()
        if entry.is_to_be_claimed(self._policy) and now >= entry.claimed_at + LOOK_INTERVAL:
            entry.claimed_at = now
            self.on_unclaimed(entry.channel.id)

    def add_usage(self, meter: ServerMeter, more: Usage) -> None:
        """Count what was served under a pass."""
        self._quotas.add_usage(meter, more)

    def pending_beside(self, meter: ServerMeter) -> int:
        """Return the requests that other connections under the same pass were asked for and may still pay."""
        return self._quotas.pending_beside(meter)

    async def make_room(self, meter: ServerMeter, requests: int) -> None:
        """Lease so many requests more of the pass of a connection, if it has them. Raise `StoreError`."""
        await self._quotas.make_room(meter, requests)

    def look_again(self, meter: ServerMeter) -> None:
        """Read the channel from the chain again, soon: its client says that it has changed."""
        entry = self._entry_of(meter)
        if entry.looking:
            return
        entry.looking = True
        wait = max(0.0, entry.looked_at + LOOK_INTERVAL - self._loop.time())
        meter.spawn(self._schedule_poll(entry, wait))

    async def _schedule_poll(self, entry: _Entry, wait: float) -> None:
        try:
            await asyncio.sleep(wait)
            await self.refresh(entry.channel.id)
            self._claim_if_due(entry)  # the claim before may have failed
            await self._quotas.refresh()
        except ChainError as error:
            log.warning("channel %s can't be read: %s", entry.channel.id, error)
        finally:
            entry.looked_at = self._loop.time()
            entry.looking = False

    async def refresh(self, id: str) -> None:
        """Read a channel in use again, and end its connections when it isn't open any more."""
        self._take_news(id, await self._book.read(id))

    def _take_news(self, id: str, found: Channel | None) -> None:
        entry = self._open.get(id)
        if entry is None:
            return
        if found is None or found.state != ChannelState.OPEN:
            entry.channel = found or entry.channel
            self.end_channel(id, "the channel is closing or closed", CloseDetail.CHANNEL_CLOSED)
            return
        if (flaw := contradiction(found)) is not None:
            log.warning("channel %s: %s: the node (`network`) shows what isn't so", id, flaw)
            self.end_channel(id, flaw)
            return
        if _is_before(found, entry.channel, entry.lanes):
            return  # of a node that is behind
        entry.channel = found
        for number, meter in entry.meters.items():
            entry.lanes[number] = found.lanes[number]
            meter.payee.raise_floor(floor_of(found.lanes[number]), self._loop.time())
        self._spread_deposit(entry)

    async def on_claimed(self, done: Iterable[Settlement]) -> None:
        """Read channels again of which something was claimed, and serve none any more whose deposit wasn't there."""
        for paid in done:
            for id in paid.unpaid:
                log.warning(
                    "channel %s: its deposit is not what the node (`network`) shows: it is served no more", id
                )
                self._unpaid[id] = None
                self.end_channel(id, _UNPAID, CloseDetail.NOT_PAID)
            for id in paid.channels:
                if id in self._open:
                    try:
                        await self.refresh(id)
                    except ChainError as error:
                        log.warning("channel %s can't be read: %s", id, error)

    async def check_open_channels(self, rules: AccessRules | None) -> None:
        """Look again at channels and passes in use: closes that were asked for, a price that is new, and who is
        denied, as the account that pays or as the identity that is connected.

        Raises `ChainError`, and of the store `StoreError`.
        """
        if rules is not None:
            self._send_away(rules)
        ids = self.channels
        found = await read_channels(self._chain, ids)
        for id in ids:
            if id in found:
                self._book.add_read(found[id])
                self._take_news(id, found[id])
            else:
                await self.refresh(id)
        await self._quotas.poll()

    def _send_away(self, rules: AccessRules) -> None:
        denied = refuse(FirewallRefusal.DENIED)
        for id, entry in list(self._open.items()):
            if all(meter.payee.closing for meter in entry.meters.values()):
                continue  # they have come to close, which is not a service
            if entry.channel.client in rules.deny:
                self.end_channel(id, denied.reason, CloseDetail.ON_DENY_LIST)
                continue
            service = rules.state.host.services.get(entry.channel.service)
            if service is not None and is_free_no_more(entry.channel, service.terms):
                self.end_channel(id, FREE_NO_MORE)
                continue
            for meter in list(entry.meters.values()):
                if meter.connection.peer.sui_address in rules.deny:
                    meter.connection.abort(denied.code, denied.reason, detail=denied.detail)

    def end_channel(self, id: str, reason: str, detail: CloseDetail = CloseDetail.CHANNEL_UNFIT) -> None:
        """End all connections of a channel."""
        entry = self._open.get(id)
        if entry is not None:
            entry.ending = True
            for meter in list(entry.meters.values()):
                meter.connection.abort(CloseCode.PAYMENT, reason, detail=detail)

    async def wait_settled(self) -> None:
        """Wait until all is written of connections that have ended, and their channels are free."""
        for entry in list(self._open.values()):
            for meter in list(entry.meters.values()):
                await meter.wait_settled()
        await self._giving_back.wait()

    def _spread_deposit(self, entry: _Entry) -> None:
        now = self._loop.time()
        for lane, meter in entry.meters.items():
            meter.payee.set_affordable(
                entry.affordable_amount(lane), now, entry.trusted_amount(lane, self._policy)
            )
            meter.process_turn()

    # ---- agreed closes

    def close_asked(self, meter: ServerMeter) -> None:
        """Sign the close that the client wants, once nothing is owed and where this server agrees to closes. What was
        agreed on before is given again."""
        entry = self._entry_of(meter)
        if entry.agreed is not None:  # the answer was lost
            meter.payee.send_agreement(entry.agreed)
        # Whoever still owes waits for the chain's own way to close; who owed nothing then was served nothing since.
        owes = any(meter.payee.owed) and entry.end is None
        if self._signer is None or entry.agreeing or owes:
            return
        if self.can_agree(entry.channel):
            entry.agreeing = True
            meter.spawn(self._sign_agreement(entry, meter, self._signer))

    async def _sign_agreement(self, entry: _Entry, meter: ServerMeter, signer: KeySigner) -> None:
        entry.ending = True  # from now on nobody begins anew on this channel
        meter.payee.stop_sending()
        meter.process_turn()
        for other in list(entry.meters.values()):
            if other is not meter:
                other.connection.abort(
                    CloseCode.PAYMENT, "the channel is closed", detail=CloseDetail.CHANNEL_CLOSED
                )
        while entry.pending:
            await meter.wait_changed()
        end = entry.end
        if end is None or end.not_after_ms < self._now_ms() + self._agreement_ms(entry.channel) // 2:
            end = await self._new_end(entry.channel)
        if end is None or end.over:
            entry.agreeing = False
            return
        statement = agreement_bytes(CloseAgreement(end.channel, end.total, end.not_after_ms))
        signature = signer.sign_statement(statement)
        entry.agreed = messages.Agreed(end.total, end.not_after_ms, signer.public_key, signature)
        meter.payee.send_agreement(entry.agreed)
        meter.process_turn()

    @staticmethod
    def _agreement_ms(channel: Channel) -> int:
        return min(AGREEMENT_MS, channel.terms.claim_ms // 2)

    async def _new_end(self, channel: Channel) -> End | None:
        """Keep what a channel is to be closed for by its vouchers, before the signature under it leaves; return it,
        None where it can't be known now."""
        sold = await self._journal.run(lambda store: store.sold_lanes(channel.id))
        vouchers = [each.newest.voucher for each in sold]
        used = Usage(sum(each.requests for each in vouchers), sum(each.bytes for each in vouchers))
        try:
            total = await agreed_total(self._chain, channel, sum(each.amount for each in vouchers), used)
        except ChainError as error:  # the client asks the chain for the close then, and the cashier claims
            log.warning("channel %s isn't closed by agreement: %s", channel.id, error)
            return None
        until, chain = self._now_ms() + self._agreement_ms(channel), self._chain.chain_id
        return await self._journal.run(lambda store: store.save_agreement(channel.id, total, until, chain))

    async def on_connection_ended(self, meter: ServerMeter) -> None:
        """Write what a connection that is over was served, and let its lane and pass go."""
        lane, used = meter.payee.lane, meter.payee.used
        entry = self._entry_of(meter)
        try:
            try:
                await self._journal.run(lambda store: store.save_served(lane.channel, lane.lane, used))
            finally:
                await self._quotas.remove_meter(meter)
        except StoreError as error:
            self._unwritten[lane.channel, lane.lane] = used
            log.warning("what was served on channel %s can't be written: %s", lane.channel, error)
        finally:  # also where nothing can be written: the next connection finds the channel free
            del entry.meters[lane.lane]  # which no other is in before this one has ended
            entry.pending.pop(lane.lane, None)
            if entry.meters:
                self._spread_deposit(entry)
            else:
                del self._open[lane.channel]
                if entry.channel.state != ChannelState.OPEN:
                    # Its last vouchers are stored, and the time for claims runs.
                    self.on_channel(entry.channel)
            await self._free_channel(lane.channel)


def _is_before(found: Channel, known: Channel, lanes: Iterable[int]) -> bool:
    """Return whether a channel was read as it had been before: what only rises is less, or a lane in use isn't there
    yet."""
    behind = found.deposited < known.deposited or found.claimed < known.claimed
    return behind or any(number >= len(found.lanes) for number in lanes)


def _begun(exposure: Exposure, admission: AdmittedClient, vouched: dict[int, int]) -> Exposure:
    """Return the exposure of a lane at its prices, with what its use may cost us through the chain, whatever carries
    it now.

    Lanes cost a client next to nothing: before they have paid, all of a channel may owe what one that has a single
    lane could. Those beyond the first share a part of it, or of what the channel has paid.
    """
    most, prices, more = exposure.first_amount, admission.prices, carriage(admission.channel.terms)
    if admission.lane.lane > 0:
        most = min(most, max(most, sum(vouched.values())) // (OTHERS_PART * MAX_LANES))
    else:
        most -= most // OTHERS_PART
    dear = Prices(prices.request + more.request, prices.mib + more.mib)
    return replace(exposure, first_amount=most).at_prices(dear)
