"""The client's driver of a meter: where a `Payer` meets its connection, the lane's key, the store and the clock.

Vouchers are reserved, signed, and go along with what is sent anyway; charges are decided, money is added, and the
end is agreed on. What concerns the channel behind the connection is asked of a `Purchase`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol

from dtp.chain.errors import NodeUnavailable, OutcomeUnknown, SignerError, StaleObject, was_signed
from dtp.chain.model import SUI_COIN
from dtp.chain.wallet import money
from dtp.errors import ChainError, DtpError, LimitError
from dtp.net.connection import Connection
from dtp.net.stream import Stream
from dtp.net.watch import NO_COUNT
from dtp.pay import answers, messages
from dtp.pay.client import payer_events
from dtp.pay.client.lane_signer import LaneSigner
from dtp.pay.client.payer import Payer
from dtp.pay.client.sealed_offers import SealedOffers
from dtp.pay.drivers import MeterDriver
from dtp.pay.errors import BudgetSpent, ChargeDeclined, MoneyNotAdded, OpeningBusy, PriceTooHigh
from dtp.pay.store import Store
from dtp.pay.store.journal import Journal
from dtp.pay.terms import NOTHING, Usage
from dtp.pay.voucher import LaneKey
from dtp.plurals import count_of
from dtp.session.codes import CloseCode, CloseDetail, ConnectionClosed
from dtp.tasks import as_future, start_task

log = logging.getLogger("dtp.pay")


class Purchase(ABC):
    """What a client's connection is paid by: a lane of a channel (see `channel_purchase`), settled when it ends."""

    #: What the lane came to before this connection, as far as it is known.
    start: int
    #: What its newest voucher comes to when the connection ends.
    signed: int = 0
    #: What the server counts beyond that, and isn't paid: then it agrees to no close.
    disputed: Usage = NOTHING
    #: Whether the connection ended before the server had the last word.
    broke_off: bool = False

    @property
    def coin(self) -> str:
        """The type of what is paid with."""
        return SUI_COIN

    @property
    @abstractmethod
    def closes(self) -> bool:
        """Whether the channel is to be closed with the connection."""

    def puts_off(self, wanted: int) -> bool:
        """Return whether so much money that isn't needed yet is left until it is."""
        return False

    @abstractmethod
    async def settle(self, agreed: messages.Agreed | None) -> None:
        """Close the channel once the connection is over, with the server's signature if there is one."""

    @abstractmethod
    async def break_off(self, agreed: messages.Agreed | None) -> None:
        """Let go of the lane, once the connection is over, without waiting for anything. After `settle` it does
        nothing."""


#: Decides about a charge: its units, what it comes to, and whether it is hash-locked. True agrees.
OnCharge = Callable[[int, int, bool], bool | Awaitable[bool]]


class OnLow(Protocol):
    """Adds money."""

    async def __call__(self, wanted: int, *, whole: bool = False) -> int | None:
        """Return what the lane may spend in all by now, or None when there is no more; with `whole`, when there isn't
        all that is wanted. Called again after a fault of the chain that may pass, it finds out first what became of
        the time before."""


class ClientMeter(MeterDriver):
    """The client's driver."""

    def __init__(
        self,
        connection: Connection,
        journal: Journal[Store],
        meter: Payer,
        key: LaneKey,
        *,
        on_charge: OnCharge | None = None,
        on_low: OnLow | None = None,
        purchase: Purchase | None = None,
    ) -> None:
        super().__init__(connection)
        self.journal = journal
        self.payer = meter
        self.purchase = purchase
        #: What signs, and what of it is reserved on the disk.
        self.signer = LaneSigner(journal, meter, key)
        self._on_charge = on_charge
        self._on_low = on_low
        self._asked: set[asyncio.Future[bool]] = set()  # what `on_charge` is thinking about
        #: Sealed answers on their way.
        self.sealed = SealedOffers()
        #: The server's signature under an agreed close, once it is here.
        self.agreed: messages.Agreed | None = None
        #: Why the last charge was declined; None where it wasn't.
        self.declined: BudgetSpent | MoneyNotAdded | ChargeDeclined | None = None
        self._finished: payer_events.Finished | None = None
        self._adding = False
        self._put_off = False  # more money is to be had, and not worth adding before it is needed
        self._affording = asyncio.Lock()
        self._no_more = on_low is None  # money can't be added
        self._refused: MoneyNotAdded | None = None  # why
        self._leaving = False  # since it is used up
        self.watch.received = NO_COUNT  # what is sent and what comes is the same to a client
        self.watch.going = self._before_send
        self._looks = False

    def begin(self) -> None:
        """Attach; the server's welcome follows."""
        self._reserve_soon()
        self.start_counting()
        self.process_turn()

    def _look_at_counts(self) -> None:
        # Not yet: who reads what came gives the server credit for more in this turn of the loop, and a voucher goes
        # along with that.
        if not self._looks:
            self._looks = True
            self.loop.call_soon(self._look_now)

    def _before_send(self, moved: int, now: float) -> bytes | None:
        """Return a voucher that was signed before, to go along with what is about to be sent; do nothing else."""
        frame = self.payer.take_signed_frame(moved, now)
        if frame is None:
            self.update_counts()
            return None
        watch, due = self.watch, self.payer.next_due
        watch.total += due - watch.along
        watch.along = due
        if self._timer is None or self._timer.when() > now + self.payer.schedule.spending.repeat:
            self.process_turn()
        return frame

    def _look_now(self) -> None:
        self._looks = False
        self.update_counts()

    def _update_counts(self, opened: int, sent: int, received: int) -> None:
        waiting = self.connection.unanswered if self.payer.schedule.spending.when_answered else 0
        self.payer.set_counts(opened, sent + received, self.loop.time(), waiting)

    def _receive_frame(self, data: bytes) -> None:
        self.payer.receive_frame(data, self.loop.time())

    def _report_time(self) -> None:
        self.payer.handle_timer(self.loop.time())

    def _next_deadline(self) -> float:
        return self.payer.next_deadline()

    def _process_events(self) -> None:
        while events := self.payer.take_events():
            for event in events:
                match event:
                    case messages.SendFrame(frame):
                        self._send_frame(frame)
                    case payer_events.SignWanted():
                        self._sign_voucher(event)
                    case payer_events.ChargeOffered():
                        self._on_charge_offered(event)
                    case payer_events.FundsLow(wanted):
                        self._top_up(wanted)
                    case payer_events.Revealed(preimage):
                        self.sealed.add_key(preimage)
                    case payer_events.AgreementGiven(agreed):
                        self.agreed = agreed
                    case payer_events.Adopted(voucher):
                        if self.purchase is not None:  # it was signed by one that died, for that one's budget
                            self.purchase.start = max(self.purchase.start, voucher.voucher.amount)
                        self.spawn(self.signer.keep_adopted(voucher, self.payer.used))
                    case payer_events.Finished():
                        self._finished = event
        _, sent, received = self._traffic
        due, leeway = sent + received + self.payer.next_look, self.payer.leeway
        self.watch.total = due + leeway
        # Where nothing more may go, whatever is written next is looked at before it waits.
        self.watch.along = due if leeway or self.payer.spent else NO_COUNT
        self.limit_sending()
        if self._put_off and self.payer.spent and not self._adding:
            self._top_up(max(1, self.payer.missing_funds(0)))
        if self._no_more and not self._leaving and self.payer.spent and self._has_waiting_stream():
            self._leaving = True
            self.spawn(self._end_unfunded())

    def limit_sending(self) -> None:
        """Have no more sent than the money pays for beside what has moved and the streams that were opened, those too
        that nothing has been counted of yet."""
        left = self.payer.bytes_left_beside(self.connection.traffic.opened)
        self.connection.limit_sending(None if left is None else max(0, self._traffic.sent + left))

    def _sign_voucher(self, wanted: payer_events.SignWanted) -> None:
        """Sign what is reserved on the disk, else reserve it first. What comes next is reserved ahead."""
        self.signer.sign(wanted, self.loop.time())
        if self.signer.is_short:
            self._reserve_soon()

    def _reserve_soon(self) -> None:
        if not self.signer.is_reserving and not self._over:
            self.signer.is_reserving = True
            self.spawn(self._reserve_more())

    async def _reserve_more(self) -> None:
        await self.signer.reserve()
        wanted = self.signer.take_waiting()
        if wanted is not None and not self._over:
            self._sign_voucher(wanted)
            self.process_turn()

    def on_connection_ended(self) -> None:
        for asked in self._asked:
            asked.cancel()
        lane, used, newest, believed = (
            self.payer.lane,
            self.payer.owed,
            self.payer.newest,
            self.payer.believed,
        )
        clean = self._finished is not None and self._finished.exact
        self.spawn(
            self.journal.run(
                lambda store: store.end_lane(
                    lane.channel,
                    lane.lane,
                    used,
                    newest,
                    clean=clean,
                    before=lane.reserved,
                    believed=believed,
                )
            )
        )

    # ---- money

    def _top_up(self, wanted: int) -> None:
        self._put_off = self.purchase is not None and not self.payer.spent and self.purchase.puts_off(wanted)
        if self._on_low is not None and not self._adding and not self._put_off:
            self._adding = True
            self.spawn(self._add_money(wanted, ahead=True))

    async def _add_money(self, wanted: int, *, ahead: bool = False) -> None:
        """Add money: `ahead` of its being needed, so that nobody waits for it yet, or all that is wanted."""
        funds: int | None = None
        try:
            funds = await self._more_funds(wanted, ahead)
            self._refused = None
        except MoneyNotAdded:
            raise
        # The wallet is empty, a limit is reached, or somebody declined to sign: what the channel has is spent first.
        except (ChainError, LimitError, OpeningBusy, SignerError) as fault:
            self._refused = MoneyNotAdded(f"no more money could be added: {fault}")
            self._refused.__cause__ = fault
        finally:
            self._adding = False
        if self._over:
            return
        if funds is not None and funds > self.payer.funds.most:
            self._no_more = False
            self.payer.update_funds(funds, self.loop.time())
        elif ahead or self._refused is not None:  # else less may be had
            self._no_more = True
        self.process_turn()

    async def _more_funds(self, wanted: int, ahead: bool) -> int | None:
        """Return what `on_low` gives, asked again while the chain's nodes are away: streams wait meanwhile.

        Raises `MoneyNotAdded` after `Spending.funding` seconds in which something waited, and other faults at once.
        """
        assert self._on_low is not None
        spending, late = self.payer.schedule.spending, None
        while not self._over:
            try:
                return await self._on_low(wanted, whole=not ahead)
            except (NodeUnavailable, OutcomeUnknown, StaleObject) as fault:
                if isinstance(fault, StaleObject) and was_signed(fault):
                    raise
                log.info("%r: no money was added: %s", self.connection, fault)
                await self._wait_before_retry(late, fault)
            if ahead and not self.payer.spent:
                late = None
            elif late is None:
                late = self.loop.time() + spending.funding
        return None

    async def _wait_before_retry(self, late: float | None, fault: ChainError) -> None:
        """Wait before the next try. Raises `MoneyNotAdded` when `late` is over."""
        spending = self.payer.schedule.spending
        if late is not None and self.loop.time() >= late:
            raise MoneyNotAdded(f"no money could be added in {spending.funding:g} s: {fault}") from fault
        await asyncio.sleep(spending.repeat)

    async def afford_request(self) -> None:
        """Add money where the lane's doesn't cover one more request, and more can be had."""
        if self.payer.missing_funds() > 0 and self._on_low is not None and not self._over:
            await self._to_its_end(self._check_funds())
            if self._refused is not None and self.payer.missing_funds() > 0:
                raise self._refused

    async def _check_funds(self) -> None:
        async with self._affording:  # what was added for one may do for the next
            if (missing := self.payer.missing_funds()) > 0 and not self._over:
                await self._add_money(missing)

    async def _to_its_end(self, adding: Coroutine[Any, Any, None]) -> None:
        """Wait for money that is added; when that is cancelled, it is added all the same, and counted."""
        task = start_task(adding, name="dtp-pay", loop=self.loop)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await asyncio.shield(task)

    def _has_waiting_stream(self) -> bool:
        """Return whether a stream waits for something to come or to go, which costs money."""
        return any(each.waiting for each in self.connection.streams)

    async def _end_unfunded(self) -> None:
        """Pay the last of the money that is used up, agree on the close, and end the connection with `BudgetSpent`,
        or with what kept more from being added.

        By then streams that were complete have ended in order. If all have, the connection is its user's to close.
        """
        await self.last_words()
        if self._over or not self._has_waiting_stream():
            self._leaving = False  # so that the next stream is told
            return
        self.error = self._refused or self.payer.out_of_money()
        log.info("%r: %s", self.connection, self.error)
        self.connection.abort(CloseCode.PAYMENT, "the client's budget is used up")

    def explain_end(self, closed: ConnectionClosed) -> DtpError | None:
        """Return what a connection ended for that has ended so, where this side knows it better; else None."""
        if not closed.by_peer:
            return self.error if isinstance(self.error, BudgetSpent | MoneyNotAdded) else None
        if closed.close_code != CloseCode.PAYMENT:
            return None
        if closed.detail == CloseDetail.DEPOSIT_USED_UP and self.payer.spent:
            return self._refused or self.payer.out_of_money()
        return self.declined if closed.detail == CloseDetail.CHARGE_DECLINED else None

    def _on_charge_offered(self, offer: payer_events.ChargeOffered) -> None:
        if offer.lock is None:
            self.spawn(self._decide_charge(offer))
        elif not self.sealed.add_offer(offer.lock, offer):
            # Else decided by `buy_answer`, when it has arrived.
            self._refuse_offer(offer)

    def _refuse_offer(self, offer: payer_events.ChargeOffered) -> None:
        self.payer.answer_charge(offer.charge, False, self.loop.time())
        self.loop.call_soon(self.process_turn)

    async def _decide_charge(self, offer: payer_events.ChargeOffered) -> None:
        if self._over:
            return
        agree = False
        try:
            agree = await self._agrees_to(offer)
        finally:  # also when it is cancelled, or an error of the program: the server waits
            if not self._over:
                self.payer.answer_charge(offer.charge, agree, self.loop.time())
                self.process_turn()

    async def _agrees_to(self, offer: payer_events.ChargeOffered) -> bool:
        """Return whether to agree: what the caller says, else to what `buy` asks for, and by `charge_units`; with
        more money where that is needed."""
        if self._on_charge is not None:
            answer = self._on_charge(offer.units, offer.amount, offer.lock is not None)
            agree = answer if isinstance(answer, bool) else await self._ask_caller(answer)
        else:
            agree = offer.lock is not None or self.payer.is_expected(offer.units)
        needed = self.payer.missing_funds(offer.units)
        if agree and needed > 0 and self._on_low is not None:
            await self._to_its_end(self._add_money(needed))
        self.declined = None
        if not agree:
            self.declined = ChargeDeclined(
                f"the server asked for {money(offer.amount, self._coin)} ({count_of(offer.units, 'request')}) beyond "
                "what was agreed to, and was declined here: agree by `on_charge`, or by `Spending.charge_units`"
            )
        elif (lacking := self.payer.missing_funds(offer.units)) > 0:
            self.declined = self._refused or self._budget_error(offer.amount, lacking)
        return agree

    @property
    def _coin(self) -> str:
        return self.purchase.coin if self.purchase is not None else SUI_COIN

    def _budget_error(self, amount: int, lacking: int) -> BudgetSpent:
        coin = self._coin
        return BudgetSpent(
            f"a charge of {money(amount, coin)} is {money(lacking, coin)} more than what is left of the budget, and "
            "was declined: give a larger one",
            paid=self.payer.signed.amount,
            requests=self.payer.used.requests,
            bytes=self.payer.used.bytes,
        )

    async def _ask_caller(self, answer: Awaitable[bool]) -> bool:
        """Return what the caller says; no when the connection is over first, for then nobody waits for it any
        more."""
        asked = as_future(answer, name="dtp-pay-charge")
        self._asked.add(asked)
        try:
            await asyncio.wait([asked])
        finally:
            self._asked.discard(asked)
            asked.cancel()
        return not (self._over and asked.cancelled()) and asked.result()

    async def buy_answer(self, stream: Stream, most: int | None) -> bytes:
        """Return the answer that comes sealed on a stream, once it is paid; at most `most`. Raise `PriceTooHigh`,
        `ChargeDeclined`, and what ended the connection."""
        lock, size = await answers.read_head(stream)
        try:
            answer = await answers.read_answer(stream, lock, size)
            while lock not in self.sealed.offers:
                await self.wait_changed()
            offer = self.sealed.offers[lock]
            if most is not None and offer.amount > most:
                price, limit = money(offer.amount, self._coin), money(most, self._coin)
                raise PriceTooHigh(f"the answer costs {price}, and at most {limit} is to be paid")
            del self.sealed.offers[lock]
        except BaseException:  # cancelled, say
            self._decline_charge(lock)
            raise
        await self._decide_charge(offer)
        if self.payer.charges.agreed != offer.charge:
            self._raise_if_over()
            assert self.declined is not None
            raise self.declined
        self.sealed.unopened[answer.lock] = answer
        return await self.open_answer(answer)

    def _decline_charge(self, lock: bytes) -> None:
        """Decline the charge of an answer that nobody waits for any more, now or as soon as it is asked for."""
        if (offer := self.sealed.drop(lock)) is not None:
            self._refuse_offer(offer)

    async def open_answer(self, answer: answers.SealedAnswer) -> bytes:
        """Return what is in an answer that was paid, once its key is told. Raise what ended the connection."""
        while not self.sealed.has_key(answer):
            await self.wait_changed()
        return self.sealed.open(answer)

    # ---- beginning and end

    async def wait_welcome(self) -> None:
        """Wait until the server has said how it meters. Raises what is wrong with it."""
        while not self.payer.welcomed:
            await self.wait_changed()

    async def pay_rest(self) -> bool:
        """Pay for everything that has come, in order; return whether both sides came to the same. Doesn't raise."""
        if self._over or not self.payer.welcomed:
            return False
        self._read_counts()
        self.payer.finish(self.loop.time())
        self.process_turn()
        with contextlib.suppress(DtpError):
            while self._finished is None:
                await self.wait_changed()
        return self._finished is not None and self._finished.exact

    async def last_words(self) -> messages.Agreed | None:
        """Pay the rest, and agree on the close where it is wanted, before the connection closes."""
        purchase, exact, agreed = self.purchase, await self.pay_rest(), self.agreed
        if purchase is not None:
            purchase.signed, purchase.disputed = self.payer.signed.amount, self.payer.left
            if exact and purchase.closes:
                agreed = await self.request_agreement()
            purchase.broke_off = self._over
        return agreed

    async def request_agreement(self) -> messages.Agreed | None:
        """Return the server's signature under an agreed close; None when it gives none in time. Doesn't raise."""
        if self._over or self.agreed is not None or not self.payer.agrees or not self.payer.agrees_on_counts:
            return self.agreed
        self.payer.ask_close()
        self.process_turn()
        with contextlib.suppress(DtpError, TimeoutError):
            async with asyncio.timeout(self.end_patience):
                while self.agreed is None:
                    await self.wait_changed()
        return self.agreed
