"""The server's driver of a meter: where a `Payee` meets its connection, the journal and the clock.

Vouchers wait while exposure is left, and only the newest is checked and stored. What concerns more than one
connection is asked of an `ChannelAccount`.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import math
from abc import ABC, abstractmethod
from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from dtp.errors import DtpError
from dtp.net.connection import Connection
from dtp.pay import messages
from dtp.pay.drivers import REPEATS, MeterDriver
from dtp.pay.errors import ChargeDeclined, Flaw, MalformedMeter, QuotaUsedUp, VoucherRefused
from dtp.pay.server import payee
from dtp.pay.server.charges import check_units
from dtp.pay.server.held_vouchers import LINGER, HeldVouchers
from dtp.pay.server.payee import Payee
from dtp.pay.store.holding import VoucherStore
from dtp.pay.store.journal import Journal, VoucherVerdict
from dtp.pay.terms import LEAST_INTERVAL, QUOTA_USED_UP, Prices, Usage
from dtp.pay.voucher import SignedVoucher
from dtp.plurals import count_of
from dtp.session.codes import CloseCode, CloseDetail

log = logging.getLogger("dtp.pay")

#: Bytes that a server moves under a quota before it counts again: the quota is shared with other connections.
LOOK_EACH: Final = 2 * 1024 * 1024
#: Vouchers that need not wait, however little they pay: each costs a signature and a write. One more for each request
#: that is used, or `LEAST_INTERVAL` bytes: so who pays by single bytes, or nothing more, has two checks a second.
AT_ONCE: Final = 64
#: Calls of `charge` that one connection may have waiting; more are refused.
MOST_WAITING: Final = 4096
#: ... that go into one charge: what a stream of `dtpd` may have waiting, so that a round trip pays for all of it.
_MOST_TOGETHER: Final = 1024
#: ... that are told their outcome in one turn of the event loop, for each then goes on with its work.
TOLD_PER_TURN: Final = 64
#: Bytes of exposure from which on what comes needn't be counted at each read, and the part of it that may come then.
_ROOM: Final = 4 * 1024 * 1024
_PART: Final = 4


@dataclass(eq=False, slots=True)
class _Ask:
    """What one caller of `charge` wants paid. `refund` is what others get by it if the caller is cancelled."""

    units: int
    refund: int
    told: asyncio.Future[None]  # done when it is decided, or metering is over
    paid: bool | None = None  # None while it isn't decided
    late: bool = False  # the client didn't decide in time
    dropped: bool = False  # nobody waits for it any more
    over: bool = False  # it was not asked for: a pass gives no more
    company: int = _MOST_TOGETHER  # most that go into one charge with it


class ServerMeter(MeterDriver):
    """The server's driver. What concerns more than this connection is asked of `account`."""

    def __init__(
        self,
        connection: Connection,
        journal: Journal[VoucherStore],
        meter: Payee,
        account: ChannelAccount,
        *,
        linger: float = LINGER,
    ) -> None:
        """`linger`: seconds that vouchers may wait for newer ones."""
        super().__init__(connection)
        self.journal = journal
        self.payee = meter
        self._account = account
        #: That no charge is for yet, in order: any may leave, and those of a declined sum come back in front.
        self._waiting: OrderedDict[_Ask, None] = OrderedDict()
        self._asked: list[_Ask] = []  # that the charge under way is for
        self._decided: deque[_Ask] = deque()  # that haven't been told yet
        self._selling = asyncio.Lock()  # held while a locked charge has its turn
        self._credit = 0  # units that are paid for nobody: who asked for them was cancelled
        self._told = meter.used
        self._hear_at = -1  # bytes, sent and received, up to which vouchers may wait
        self._checks: set[asyncio.Future[VoucherVerdict]] = set()  # that are under way
        #: Vouchers that wait.
        self.held = HeldVouchers(self.loop, self._hear_late, linger)
        # Vouchers that may still be checked without a wait, and what was used by then.
        self._at_once = AT_ONCE
        self._used_by_then = meter.used
        self._received = 0  # when the limits were set

    @property
    def checking(self) -> int:
        """How many vouchers are being checked and stored."""
        return len(self._checks)

    def begin(self) -> None:
        """Attach and welcome the client."""
        self._set_repeat_interval()
        self.payee.deposit.keep_for(self._account.carrier_prices(self))
        self.connection.callbacks.on_carrier = self._on_carrier_changed
        self.payee.begin(self.loop.time())
        self.start_counting()
        self.process_turn()

    def _on_carrier_changed(self, _: Connection) -> None:
        """Note that another carrier has come: what goes over it may cost us more than the one before."""
        if self._over:
            return
        self.payee.deposit.keep_for(self._account.carrier_prices(self))
        self.update_counts()

    def _set_repeat_interval(self) -> None:
        """Repeat as often as the carrier of now makes sensible: over pipes each frame is a transaction of ours."""
        patience = self.connection.patience
        usual = patience <= self.connection.limits.handshake
        self.payee.repeat = payee.REPEAT if usual else max(payee.REPEAT, patience / REPEATS)
        self.payee.charges.patience = max(self.payee.exposure.patience, patience)

    # ---- what the meter says

    def _on_frame(self, data: bytes) -> None:
        if self._over:  # frames that came before metering began are given all at once
            return
        if data.startswith(messages.VOUCHER_HEAD) and self._has_to_wait():
            if self.held.add(data) and not self._checks:
                self.watch.total = min(self.watch.total, self._hear_at)
        elif self._process_newest_voucher():
            super()._on_frame(data)

    def _has_to_wait(self) -> bool:
        """True if a voucher that has come is to wait. One that isn't is counted, as the check that it will cost."""
        # While one is being written, another would only be written after it: by then there may be a newer one.
        if self._checks or self.connection.moved < self._hear_at:
            return True
        more = self.payee.used.above(self._used_by_then)
        earned = more.requests + more.bytes // LEAST_INTERVAL
        if earned:
            self._at_once = min(AT_ONCE, self._at_once + earned)
            self._used_by_then = self.payee.used
        if not self._at_once:
            return True
        self._at_once -= 1
        return False

    def _hear_late(self) -> None:
        self._read_counts()
        if self._process_newest_voucher():
            super().process_turn()

    def _process_newest_voucher(self) -> bool:
        """Give the meter the newest of the vouchers that wait: the older ones say less, and would be skipped.

        False when it was wrong, and the connection ends; then one before it is taken, if that is good.
        """
        held = self.held.take_all()
        fault: DtpError | None = None
        while held:
            try:
                self._receive_frame(held.pop())
                break
            except (MalformedMeter, VoucherRefused) as error:
                fault = error
        if fault is not None:
            self.fail(fault)
        return fault is None

    def process_turn(self) -> None:
        """Process a turn as both ends do, and hear vouchers that wait when it is time."""
        super().process_turn()
        if self.held and not self._over and not self._checks:
            _, sent, received = self._traffic
            due = sent + received >= self._hear_at and not self._has_to_wait()
            if due and self._process_newest_voucher():
                super().process_turn()

    def _update_counts(self, opened: int, sent: int, received: int) -> None:
        self.payee.set_counts(opened, sent, received, self.loop.time())
        self._send_state()

    def _send_state(self) -> None:
        used, before = self.payee.used, self._told
        if used != before:
            self._told = used
            self._account.add_usage(self, used.above(before))

    def _receive_frame(self, data: bytes) -> None:
        self.payee.least_end_ms = self._account.least_end_ms(self)
        self.payee.receive_frame(data, self.loop.time())

    def _report_time(self) -> None:
        self._set_repeat_interval()
        self.payee.handle_timer(self.loop.time())

    def _next_deadline(self) -> float:
        return self.payee.next_deadline()

    def _process_events(self) -> None:
        while events := self.payee.take_events():
            for event in events:
                match event:
                    case messages.SendFrame(frame):
                        self._send_frame(frame)
                    case payee.CheckWanted(voucher, charge):
                        self._check_voucher(voucher, charge)
                    case payee.ChargePaid():
                        self._charge_ended(paid=True)
                        self._send_state()
                    case payee.ChargeRefused():
                        self._charge_ended(paid=False)
                    case payee.ChargeOverdue():
                        self._charge_overdue()
                    case payee.LookAgain():
                        self._account.look_again(self)
                    case payee.CloseAsked():
                        self._account.close_asked(self)
                    case payee.Late():
                        self._end_if_late()
                    case payee.Paused(paused):
                        log.debug("%r: serving %s", self.connection, "stopped" if paused else "goes on")
            self._charge_waiting()
        self._apply_limits()

    def _apply_limits(self) -> None:
        """Hold the connection to what the meter allows, and say when to look again.

        Sending and receiving use up the same exposure. What is sent stops by itself at its limit, to the byte; what
        comes is counted at each read, unless there is room enough to keep a part of it for what comes uncounted.
        """
        meter, (_, sent, received) = self.payee, self._traffic
        allowance = meter.send_limit()
        room = allowance - sent
        kept = room // _PART if room >= _ROOM and received > self._received else 0
        self._received = received
        self.watch.received = received + kept
        self.connection.limit_sending(allowance - kept)
        self.connection.limit_receiving(meter.receive_limit())
        self._hear_at = sent + received + meter.patience
        self.watch.total = received + allowance - kept
        if meter.quota.bytes is not None:
            self.watch.total = min(self.watch.total, sent + received + LOOK_EACH)
        # While one is being written none is heard, and then we look anyway.
        if self.held and not self._checks:
            self.watch.total = min(self.watch.total, self._hear_at)

    def _check_voucher(self, signed: SignedVoucher, charge: int) -> None:
        if not self._account.reserve(self, signed.voucher.amount):
            self.fail(VoucherRefused(Flaw.OVERDRAWN))
            return
        answer = self.journal.check_voucher(
            self._account.keys(self), signed, self.payee.used_with(signed.voucher, charge)
        )
        self._checks.add(answer)
        answer.add_done_callback(functools.partial(self._on_voucher_checked, signed, charge))

    def _on_voucher_checked(
        self, signed: SignedVoucher, charge: int, done: asyncio.Future[VoucherVerdict]
    ) -> None:
        self._checks.discard(done)
        if done.cancelled():
            return
        fault = done.exception()
        if isinstance(fault, DtpError):
            self.fail(fault)
        elif done.result() is VoucherVerdict.FORGED:
            self.fail(VoucherRefused(Flaw.FORGED))
        elif done.result() is VoucherVerdict.STORED:
            self._account.voucher_stored(self, signed)
            if not self._over:
                self._read_counts()
            self.payee.voucher_stored(signed, charge, self.loop.time())
            self.process_turn()

    def _end_if_late(self) -> None:
        detail = CloseDetail.NOT_PAID
        if self.payee.quota.is_over(self.payee.used):
            reason, detail = QUOTA_USED_UP, CloseDetail.QUOTA_USED_UP
        elif any(self.payee.quota.spent_counts(self.payee.used)):
            reason = "what is left of the pass's quota can't be had at the moment: connect again later"
        elif self.payee.unproven:
            reason = "what is vouched can't be claimed at the moment: connect again later"
        elif self.payee.spent:
            reason, detail = "the deposit is used up: top up, and connect again", CloseDetail.DEPOSIT_USED_UP
        else:
            reason = f"not paid within {self.payee.exposure.patience:g} s"
        self.connection.abort(CloseCode.PAYMENT, reason, detail=detail)

    def on_connection_ended(self) -> None:
        """Keep the counts. Vouchers that still waited are stored: they are money, whoever ended the connection."""
        self._resolve_charges([*self._asked, *self._waiting], paid=None)
        self._waiting.clear()
        self._process_newest_voucher()
        for event in self.payee.take_events():
            if isinstance(event, payee.CheckWanted):
                self._check_voucher(event.voucher, event.charge)
        self.spawn(self._end_connection())

    async def wait_checked(self) -> None:
        """Wait until no voucher that was heard is being checked or written."""
        while self._checks:
            await asyncio.wait(set(self._checks))

    async def _end_connection(self) -> None:
        await self.wait_checked()
        await self._account.on_connection_ended(self)

    # ---- what a handler asks for

    async def wait_until_paid(self) -> None:
        """Wait while too many requests are unpaid."""
        while not self.payee.serving:
            await self.wait_changed()

    async def charge(self, units: int, preimage: bytes | None = None) -> None:
        """Have the client pay `units` requests more, under the preimage's hash lock if there is one.

        What is asked for while a charge is under way becomes one charge, the next: with a round trip for each, a
        connection would get few calls a second. Raises `ChargeDeclined`, also where too many wait, or the client
        has not decided one for too long; and what ended the connection.
        """
        check_units(units)
        self._raise_if_over()
        if preimage is not None:
            await self._sell_units(units, preimage)
            return
        await self._make_room(units)
        self._raise_if_overdue()
        if len(self._waiting) >= MOST_WAITING:
            raise ChargeDeclined(
                f"{MOST_WAITING} charges of this connection wait for the client: ask for less at once"
            )
        ask = self._new_ask(units, refund=units)
        self._waiting[ask] = None
        self._charge_waiting()
        self.process_turn()
        await self._wait_outcome(ask)

    async def _sell_units(self, units: int, preimage: bytes) -> None:
        """Charge under a lock, for one thing only; its key is kept before, in the place of the one before."""
        lane = self.payee.lane
        try:
            async with self._selling:
                while not self.payee.may_charge(locked=True):
                    self._raise_if_overdue()
                    await self.wait_changed()
                await self._make_room(units)
                await self.journal.run(lambda store: store.keep_preimage(lane.channel, lane.lane, preimage))
                ask = self._new_ask(units, refund=0)
                self._read_counts()
                if units <= self._requests_left():
                    self._begin_charge([ask], preimage)
                else:
                    self._refuse_over([ask])
                self.process_turn()
                await self._wait_outcome(ask)
        finally:
            self._charge_waiting()
            self.process_turn()

    async def _make_room(self, units: int) -> None:
        """Have a pass, if there is one, give so many requests beside those that wait, if it still does."""
        if self.payee.quota.requests is not None:
            waiting = sum(each.units for each in self._waiting)
            if units + waiting > self._requests_left() - self.payee.pending:
                await self._account.make_room(self, units + waiting)
                self._raise_if_over()

    def _new_ask(self, units: int, refund: int) -> _Ask:
        return _Ask(units, refund, self.loop.create_future())

    def _raise_if_overdue(self) -> None:
        """Raise `ChargeDeclined` if the client is overdue: who asked would wait for one that says nothing."""
        if self.payee.charges.is_overdue:
            raise ChargeDeclined(self._lateness_text())

    def _lateness_text(self) -> str:
        return f"the client has not decided a charge within {self.payee.charges.patience:g} s"

    def _charge_waiting(self) -> None:
        """Ask for what waits as one charge, unless one is under way or a locked one has its turn."""
        if self._over or not self._waiting or self._asked or self._selling.locked():
            return
        self._read_counts()
        if not self.payee.may_charge(locked=False):
            return
        asks: list[_Ask] = []
        over: list[_Ask] = []
        units, room = 0, self._requests_left()
        # Those in front were declined together, so fewer go into one charge with them than with any behind.
        most = next(iter(self._waiting)).company
        while self._waiting and len(asks) < most:
            ask, _ = self._waiting.popitem(last=False)
            if ask.units <= self._credit:
                self._credit -= ask.units
                self._resolve_charges([ask], paid=True)
            elif units + ask.units <= room:
                units += ask.units
                asks.append(ask)
            else:
                over.append(ask)
        self._refuse_over(over)
        if asks:
            self._begin_charge(asks)

    def _requests_left(self) -> float:
        """Return requests that a pass, if there is one, still gives. What is beyond isn't charged: once it were,
        answers could only be held back, and all that is open with them. Nor is what others of the pass may pay yet.
        """
        most = self.payee.quota.requests
        if most is None:
            return math.inf
        return most - self.payee.used.requests - self._account.pending_beside(self)

    @property
    def pending(self) -> int:
        """Requests that the client was asked for, and that it may still have by paying: also where it is overdue."""
        return 0 if self._over else self.payee.pending

    def _refuse_over(self, asks: list[_Ask]) -> None:
        for ask in asks:
            ask.over = True
        self._resolve_charges(asks, paid=False)

    def _begin_charge(self, asks: list[_Ask], preimage: bytes | None = None) -> None:
        self._asked = asks
        self.payee.charge(sum(ask.units for ask in asks), self.loop.time(), preimage)

    def _charge_ended(self, *, paid: bool) -> None:
        asks, self._asked = self._asked, []
        if paid:
            self._credit += sum(ask.refund for ask in asks if ask.dropped)
        left = [ask for ask in asks if not ask.dropped]
        if paid or len(asks) == 1:
            self._resolve_charges(left, paid=paid)
            return
        for ask in reversed(left):  # it may be the sum that is too much, for the client's budget say
            ask.company = len(asks) // 2
            self._waiting[ask] = None
            self._waiting.move_to_end(ask, last=False)

    def _charge_overdue(self) -> None:
        """Let nobody wait for a client that says nothing. Should it pay all the same, that is the next one's."""
        late = [*(ask for ask in self._asked if not ask.dropped), *self._waiting]
        self._waiting.clear()
        for ask in late:
            ask.late = ask.dropped = True
        self._resolve_charges(late, paid=False)

    def _resolve_charges(self, asks: Iterable[_Ask], *, paid: bool | None) -> None:
        """Tell each its outcome by and by: None when metering is over."""
        begun = bool(self._decided)
        for ask in asks:
            ask.paid = paid
            self._decided.append(ask)
        if self._decided and not begun:
            self.loop.call_soon(self._tell_decided)

    def _tell_decided(self) -> None:
        for _ in range(min(TOLD_PER_TURN, len(self._decided))):
            told = self._decided.popleft().told
            if not told.done():
                told.set_result(None)
        if self._decided:
            self.loop.call_soon(self._tell_decided)

    async def _wait_outcome(self, ask: _Ask) -> None:
        """Wait until the client has decided. What is paid for whoever was cancelled meanwhile is the next one's."""
        try:
            await ask.told
        except asyncio.CancelledError:
            ask.dropped = True
            self._waiting.pop(ask, None)
            if ask.paid:
                self._credit += ask.refund
            raise
        if ask.paid is None:
            self._raise_if_over()
        if ask.late:
            raise ChargeDeclined(self._lateness_text())
        if not ask.paid:
            if ask.over:
                raise QuotaUsedUp(QUOTA_USED_UP)
            raise ChargeDeclined(
                f"the client declined a charge of {count_of(ask.units, 'request')}: it is above its budget, or above "
                "what it agreed to, by default one request for each stream (more by `on_charge`, or "
                "`Spending.charge_units`, at the client)"
            )

    async def paid_up(self) -> None:
        """Ask for what is unpaid, and wait until it is paid; at most `end_patience` seconds."""
        self._read_counts()
        self.payee.request_voucher()
        self.process_turn()
        with contextlib.suppress(TimeoutError, DtpError):
            async with asyncio.timeout(self.end_patience):
                while any(self.payee.owed) and not self._over:
                    await self.wait_changed()


class ChannelAccount(ABC):
    """What a server's meter asks of whatever knows all connections of a channel (`dtp.pay.serving`)."""

    @abstractmethod
    def keys(self, meter: ServerMeter) -> tuple[bytes, ...]:
        """Return the keys that sign for the lane."""

    @abstractmethod
    def least_end_ms(self, meter: ServerMeter) -> int:
        """Return the soonest end that a voucher which comes now may have, Unix ms."""

    @abstractmethod
    def carrier_prices(self, meter: ServerMeter) -> Prices:
        """Return what is kept of the deposit for transport, by what carries the connection now; ends a connection
        over pipes whose frames the channel doesn't pay for."""

    @abstractmethod
    def reserve(self, meter: ServerMeter, amount: int) -> bool:
        """Return whether a voucher of this amount fits the deposit beside all other lanes; if so it is set aside,
        until it is stored or the connection has ended."""

    @abstractmethod
    def voucher_stored(self, meter: ServerMeter, signed: SignedVoucher) -> None:
        """Take note that a voucher is in the store."""

    @abstractmethod
    def add_usage(self, meter: ServerMeter, more: Usage) -> None:
        """Count that so much more was served."""

    @abstractmethod
    def pending_beside(self, meter: ServerMeter) -> int:
        """Return requests that the clients of all other connections under the same pass were asked for and may still
        pay."""

    @abstractmethod
    async def make_room(self, meter: ServerMeter, requests: int) -> None:
        """Let the pass of a connection give so many requests more here, if it has them. Raises `StoreError`."""

    @abstractmethod
    def look_again(self, meter: ServerMeter) -> None:
        """Look at the channel again, which has changed on chain, as the client says."""

    @abstractmethod
    def close_asked(self, meter: ServerMeter) -> None:
        """Begin to close the channel by agreement, as the client wants it."""

    @abstractmethod
    async def on_connection_ended(self, meter: ServerMeter) -> None:
        """Keep the counts of the connection, which is over."""
