"""What drives a meter: where `Payer` and `Payee` meet a connection, the journal and the clock.

Counts come from the connection's traffic, frames go through its METER frames, vouchers through the journal. What
concerns more than one connection is asked of an `Account` (server) or a `Deal` (client).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

from dtp.errors import DtpError
from dtp.net.connection import Connection
from dtp.net.stream import Stream
from dtp.net.watch import NO_COUNT, Watch
from dtp.pay import answers, messages, payee, payer
from dtp.pay.errors import (
    ChargeDeclined,
    CountsDisputed,
    Flaw,
    MalformedMeter,
    NotMetered,
    PriceTooHigh,
    VoucherRefused,
)
from dtp.pay.holding import VoucherStore
from dtp.pay.journal import Journal, Verdict
from dtp.pay.payee import Payee
from dtp.pay.payer import UNRESERVED, Payer, Reserved
from dtp.pay.store import Store
from dtp.pay.terms import Usage
from dtp.pay.voucher import LaneKey, SignedVoucher
from dtp.session.codes import CloseCode
from dtp.session.session import Traffic

log = logging.getLogger("dtp.pay")

#: Seconds that a server waits at the end for what is unpaid, and a client for an answer about closing; over carriers
#: that are slow by nature half of the connection's patience, if that is more.
END_PATIENCE: Final = 5.0
#: How often an unanswered frame is said again within the patience of carriers that are slow by nature.
REPEATS: Final = 12
#: Bytes that a server moves under a quota before it counts again: the quota is shared with other connections.
_LOOK_EACH: Final = 2 * 1024 * 1024
#: Seconds that a voucher may wait at a server which has exposure enough left, so that several are checked at once and
#: only the newest is written: each time costs both processors more than it costs the disk.
_LINGER: Final = 0.5
#: ... and how many may wait.
_MOST_HELD: Final = 64
_INT_SIZES: Final = {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8}
#: Bytes of exposure from which on what comes needn't be counted at each read, and the part of it that may come then.
_ROOM: Final = 4 * 1024 * 1024
_PART: Final = 4


class _Meter(ABC):
    """What both ends' drivers share: frames in, counts in, the timer, tasks that end with the connection."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.loop = asyncio.get_running_loop()
        #: What ended metering, if something of it was wrong.
        self.error: DtpError | None = None
        self._traffic = Traffic(-1, -1, -1)
        #: From which counts on the connection is to tell.
        self.watch = Watch(self._moved)
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed: list[asyncio.Future[None]] = []
        self._over = False

    def attach(self) -> None:
        """Begin: from now on everything that moves is counted."""
        before = self.connection.on_end

        def ended(connection: Connection) -> None:
            if before is not None:
                before(connection)
            self.over()

        self.connection.on_end = ended
        self.connection.watch = self.watch
        self._moved()
        self.connection.take_meter(self._frame)
        if self.connection.closed:
            self.over()

    @property
    def end_patience(self) -> float:
        """Seconds that the last words of a connection may take."""
        return max(END_PATIENCE, self.connection.patience / 2)

    def over(self) -> None:
        """The connection has ended."""
        if self._over:
            return
        self._count()
        self._over = True
        if self._timer is not None:
            self._timer.cancel()
        self._wake()
        self.ended()

    @abstractmethod
    def ended(self) -> None:
        """Keep what has to be kept of a connection that is over."""

    def _count(self) -> None:
        """Tell the meter the counts."""
        self._traffic = self.connection.traffic
        self.watch.opened = self._traffic.opened
        self._counted(*self._traffic)

    @abstractmethod
    def _counted(self, opened: int, sent: int, received: int) -> None:
        """Tell the meter these counts."""

    @abstractmethod
    def _take(self, data: bytes) -> None:
        """Give the meter a frame."""

    @abstractmethod
    def _tick(self) -> None:
        """Tell the meter the time."""

    @abstractmethod
    def _deadline(self) -> float:
        """When the meter wants to be told the time."""

    @abstractmethod
    def _act(self) -> None:
        """Do what the meter asks for, and say when to look next (`watch`)."""

    def turn(self) -> None:
        """After anything happened: act, and set the timer."""
        if self._over:
            return
        self._act()
        if self._changed:
            self._wake()
        deadline = self._deadline()
        if self._timer is not None:
            if self._timer.when() <= deadline:
                return  # it comes earlier, looks, and is set again
            self._timer.cancel()
        self._timer = None if deadline == payer.NEVER else self.loop.call_at(deadline, self._timed)

    def _moved(self) -> None:
        """So much moved that it is to be looked at."""
        if self.connection.traffic != self._traffic and not self._over:
            self._look()

    def _look(self) -> None:
        """Something moved that the meter has to know of."""
        self.recount()

    def recount(self) -> None:
        """Bring the counts up to now, and do what follows."""
        if not self._over:
            self._count()
            self.turn()

    def _timed(self) -> None:
        self._timer = None
        self._count()
        self._tick()
        self.turn()

    def _frame(self, data: bytes) -> None:
        if self._over:
            return
        self._count()
        try:
            self._take(data)
        except (MalformedMeter, VoucherRefused, CountsDisputed) as error:
            self.fail(error)
            return
        self.turn()

    def fail(self, error: DtpError) -> None:
        """Something of metering is wrong: the connection ends with PAYMENT and the reason."""
        if self.error is None:
            self.error = error
            log.info("%r: %s", self.connection, error)
        self.connection.abort(CloseCode.PAYMENT, str(error)[:256])

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something beside; what goes wrong with it ends the connection."""

        async def guarded() -> None:
            try:
                await work
            except DtpError as error:
                if not self.connection.closed:
                    self.fail(error)

        task = self.loop.create_task(guarded(), name="dtp-pay")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def settled(self) -> None:
        """Wait until what was begun for this connection is done, such as writing its last counts."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    def _send(self, frame: bytes) -> None:
        if not self.connection.closed:
            self.connection.send_meter(frame)

    async def changed(self) -> None:
        """Wait until something has happened. Raises what ended the connection."""
        self._raise_if_over()
        future = self.loop.create_future()
        self._changed.append(future)
        await future
        self._raise_if_over()

    def _raise_if_over(self) -> None:
        if self._over:
            if self.error is not None:
                raise self.error
            self.connection._check()
            raise NotMetered("metering of this connection is over")

    def _wake(self) -> None:
        waiting, self._changed = self._changed, []
        for future in waiting:
            if not future.done():
                future.set_result(None)


# ------------------------------------------------------------------------------------------------------- server


class ServerMeter(_Meter):
    """The server's driver. What concerns more than this connection is asked of `account`."""

    def __init__(
        self, connection: Connection, journal: Journal[VoucherStore], meter: Payee, account: Account
    ) -> None:
        super().__init__(connection)
        self.journal = journal
        self.payee = meter
        self._account = account
        self._charging = asyncio.Lock()
        self._outcomes: dict[int, bool] = {}
        self._told = meter.used
        self._hear_at = -1  # bytes, sent and received, up to which vouchers may wait
        self._checks: set[asyncio.Future[Verdict]] = set()  # that are under way
        self._held: list[bytes] = []
        self._received = 0  # when the limits were set
        self._hearing: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Attach and welcome the client."""
        self._pace()
        self.payee.begin(self.loop.time())
        self.attach()
        self.turn()

    def _pace(self) -> None:
        """Repeat as often as the carrier of now makes sensible: over pipes each frame is a transaction of ours."""
        patience = self.connection.patience
        usual = patience <= self.connection.limits.handshake
        self.payee.repeat = payee.REPEAT if usual else max(payee.REPEAT, patience / REPEATS)

    # ---- what the meter says

    def _frame(self, data: bytes) -> None:
        # While one is being written, another would only be written after it: by then there may be a newer one.
        waits = data.startswith(messages.VOUCHER_HEAD) and (
            self._checks or self.connection.moved < self._hear_at
        )
        if waits and len(self._held) < _MOST_HELD:
            self._held.append(data)
            if self._hearing is None:
                self.watch.total = min(self.watch.total, self._hear_at)
                self._hearing = self.loop.call_later(_LINGER, self._hear_late)
        elif self._hear():
            super()._frame(data)

    def _hear_late(self) -> None:
        self._hearing = None
        if not self._over:
            self._count()
            if self._hear():
                super().turn()

    def _hear(self) -> bool:
        """Give the meter the newest of the vouchers that wait: the older ones say less, and would be skipped.

        False when it was wrong, and the connection ends; then one before it is taken, if that is good.
        """
        if self._hearing is not None:
            self._hearing.cancel()
            self._hearing = None
        held, self._held = sorted(self._held, key=_sequence_in), []
        fault: DtpError | None = None
        while held:
            try:
                self._take(held.pop())
                break
            except (MalformedMeter, VoucherRefused) as error:
                fault = fault or error
        if fault is not None:
            self.fail(fault)
        return fault is None

    def turn(self) -> None:
        """As for both; vouchers that wait are heard when it is time."""
        super().turn()
        if self._held and not self._over and not self._checks:
            _, sent, received = self._traffic
            if sent + received >= self._hear_at and self._hear():
                super().turn()

    def _counted(self, opened: int, sent: int, received: int) -> None:
        self.payee.count(opened, sent, received, self.loop.time())
        self._tell()

    def _tell(self) -> None:
        used, before = self.payee.used, self._told
        if used != before:
            self._told = used
            self._account.used(self, used.beyond(before))

    def _take(self, data: bytes) -> None:
        self.payee.receive(data, self.loop.time())

    def _tick(self) -> None:
        self._pace()
        self.payee.tick(self.loop.time())

    def _deadline(self) -> float:
        return self.payee.deadline()

    def _act(self) -> None:
        while events := self.payee.events():
            for event in events:
                match event:
                    case payee.Send(frame):
                        self._send(frame)
                    case payee.CheckWanted(voucher, charge):
                        self._check(voucher, charge)
                    case payee.ChargePaid(number):
                        self._outcomes[number] = True
                        self._tell()
                    case payee.ChargeRefused(number):
                        self._outcomes[number] = False
                    case payee.LookAgain():
                        self._account.look_again(self)
                    case payee.CloseAsked():
                        self._account.close_asked(self)
                    case payee.Late():
                        self._late()
                    case payee.Paused(paused):
                        log.debug("%r: serving %s", self.connection, "stopped" if paused else "goes on")
        self._limit()

    def _limit(self) -> None:
        """Hold the connection to what the meter allows, and say when to look again.

        Sending and receiving use up the same exposure. What is sent stops by itself at its limit, to the byte; what
        comes is counted at each read, unless there is room enough to keep a part of it for what comes uncounted.
        """
        meter, (_, sent, received) = self.payee, self._traffic
        allowance = meter.allowance()
        room = allowance - sent
        kept = room // _PART if room >= _ROOM and received > self._received else 0
        self._received = received
        self.watch.received = received + kept
        self.connection.limit_sending(allowance - kept)
        self.connection.limit_receiving(meter.reception())
        self._hear_at = sent + received + meter.patience
        self.watch.total = received + allowance - kept
        if meter.quota_bytes is not None:
            self.watch.total = min(self.watch.total, sent + received + _LOOK_EACH)
        if self._held:
            self.watch.total = min(self.watch.total, self._hear_at)

    def _check(self, signed: SignedVoucher, charge: int) -> None:
        if not self._account.reserve(self, signed.voucher.amount):
            self.fail(VoucherRefused(Flaw.OVERDRAWN))
            return
        answer = self.journal.check(self._account.keys(self), signed, self.payee.used)
        self._checks.add(answer)
        answer.add_done_callback(functools.partial(self._checked, signed, charge))

    def _checked(self, signed: SignedVoucher, charge: int, done: asyncio.Future[Verdict]) -> None:
        self._checks.discard(done)
        if done.cancelled():
            return
        fault = done.exception()
        if isinstance(fault, DtpError):
            self._account.unreserve(self)
            self.fail(fault)
        elif done.result() is Verdict.FORGED:
            self._account.unreserve(self)
            self.fail(VoucherRefused(Flaw.FORGED))
        elif done.result() is Verdict.STORED:
            self._account.stored(self, signed)
            self.payee.stored(signed, charge, self.loop.time())
            self.turn()

    def _late(self) -> None:
        if self.payee.spent:
            reason = "deposit or quota are used up: top up or renew, and connect again"
        else:
            reason = f"not paid within {self.payee.exposure.patience:g} s"
        self.connection.abort(CloseCode.PAYMENT, reason)

    def ended(self) -> None:
        """Keep the counts. Vouchers that still waited are stored: they are money, whoever ended the connection."""
        self._hear()
        for event in self.payee.events():
            if isinstance(event, payee.CheckWanted):
                self._check(event.voucher, event.charge)
        self.spawn(self._end())

    async def _end(self) -> None:
        while self._checks:
            await asyncio.wait(set(self._checks))
        await self._account.ended(self)

    # ---- what a handler asks for

    async def serving(self) -> None:
        """Wait while too many requests are unpaid."""
        while not self.payee.serving:
            await self.changed()

    async def charge(self, units: int, preimage: bytes | None = None) -> None:
        """Have the client pay `units` requests more, under the preimage's hash lock if there is one.

        Raises `ChargeDeclined`, and what ended the connection.
        """
        async with self._charging:
            locked = preimage is not None
            while not self.payee.may_charge(locked=locked):
                await self.changed()
            lane = self.payee.lane
            if preimage is not None:
                kept: bytes = preimage
                await self.journal.run(lambda store: store.keep_preimage(lane.channel, lane.lane, kept))
            self._count()
            number = self.payee.charge(units, self.loop.time(), preimage)
            self.turn()
            while number not in self._outcomes:
                await self.changed()
            if not self._outcomes.pop(number):
                raise ChargeDeclined(f"the client declined a charge of {units} requests")

    async def paid_up(self) -> None:
        """Ask for what is unpaid, and wait until it is paid; at most `end_patience` seconds."""
        self._count()
        self.payee.demand()
        self.turn()
        with contextlib.suppress(TimeoutError, DtpError):
            async with asyncio.timeout(self.end_patience):
                while any(self.payee.unpaid) and not self._over:
                    await self.changed()


def _sequence_in(frame: bytes) -> int:
    """The sequence in a frame that begins as vouchers do, as far as it is one: MessagePack's unsigned forms."""
    size = _INT_SIZES.get(frame[2]) if len(frame) > 2 else 0
    return frame[2] if size is None else int.from_bytes(frame[3 : 3 + size])


class Account(ABC):
    """What a server's meter asks of who knows all connections of a channel (`dtp.pay.serving`)."""

    @abstractmethod
    def keys(self, meter: ServerMeter) -> tuple[bytes, ...]:
        """The keys that sign for the lane."""

    @abstractmethod
    def reserve(self, meter: ServerMeter, amount: int) -> bool:
        """Whether a voucher of this amount fits the deposit beside all other lanes; if so it is set aside."""

    @abstractmethod
    def unreserve(self, meter: ServerMeter) -> None:
        """What was set aside last for the lane turned out to be nothing."""

    @abstractmethod
    def stored(self, meter: ServerMeter, signed: SignedVoucher) -> None:
        """A voucher is in the store."""

    @abstractmethod
    def used(self, meter: ServerMeter, more: Usage) -> None:
        """So much more was served."""

    @abstractmethod
    def look_again(self, meter: ServerMeter) -> None:
        """The client says that the channel has changed on chain."""

    @abstractmethod
    def close_asked(self, meter: ServerMeter) -> None:
        """The client wants the channel closed by agreement."""

    @abstractmethod
    async def ended(self, meter: ServerMeter) -> None:
        """The connection is over: keep its counts."""


# ------------------------------------------------------------------------------------------------------- client


class Deal(ABC):
    """The channel behind a client's connection, as far as the connection's end concerns it (`dtp.pay.buying`)."""

    #: Whether the channel is to be closed with the connection.
    closes: bool

    @abstractmethod
    async def settle(self, agreed: messages.Agreed | None) -> None:
        """The connection is over: close the channel, with the server's signature if there is one."""


#: Decides about a charge: its units, what it comes to, and whether it is hash-locked. True agrees.
OnCharge = Callable[[int, int, bool], bool | Awaitable[bool]]
#: Adds money: gives what the lane may spend in all by now, or None when there is no more.
OnLow = Callable[[int], Awaitable[int | None]]


class ClientMeter(_Meter):
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
        deal: Deal | None = None,
    ) -> None:
        super().__init__(connection)
        self.journal = journal
        self.payer = meter
        self.deal = deal
        self._key = key
        self._on_charge = on_charge
        self._on_low = on_low
        self._offers: dict[bytes, payer.ChargeOffered] = {}
        self._revealed: dict[bytes, bytes] = {}
        self._agreed: messages.Agreed | None = None
        self._finished: payer.Finished | None = None
        self._adding = False
        self._no_more = on_low is None  # money can't be added
        self._leaving = False  # since it is used up
        self._reserved = UNRESERVED  # of this connection; what was reserved before isn't used again
        self._reserving = False
        self._unsigned: payer.SignWanted | None = None  # waits until it is reserved
        self.watch.received = NO_COUNT  # what is sent and what comes is the same to a client
        self.watch.going = self._going
        self._looks = False

    def begin(self) -> None:
        """Attach; the server's welcome follows."""
        self._reserve()
        self.attach()
        self.turn()

    def _look(self) -> None:
        # Not yet: who reads what came gives the server credit for more in this turn of the loop, and a voucher goes
        # along with that.
        if not self._looks:
            self._looks = True
            self.loop.call_soon(self._look_now)

    def _going(self, moved: int) -> None:
        """Something is about to be sent: let a voucher go along that was signed before, and do nothing else."""
        now = self.loop.time()
        frame = self.payer.release(moved, now)
        if frame is None:
            self.recount()
            return
        self.connection.send_meter(frame)
        watch, due = self.watch, self.payer.next_due
        watch.total += due - watch.along
        watch.along = due
        if self._timer is None or self._timer.when() > now + self.payer.spending.repeat:
            self.turn()

    def _look_now(self) -> None:
        self._looks = False
        self.recount()

    def _counted(self, opened: int, sent: int, received: int) -> None:
        self.payer.count(opened, sent + received, self.loop.time())

    def _take(self, data: bytes) -> None:
        self.payer.receive(data, self.loop.time())

    def _tick(self) -> None:
        self.payer.tick(self.loop.time())

    def _deadline(self) -> float:
        return self.payer.deadline()

    def _act(self) -> None:
        while events := self.payer.events():
            for event in events:
                match event:
                    case payer.Send(frame):
                        self._send(frame)
                    case payer.SignWanted():
                        self._sign(event)
                    case payer.ChargeOffered():
                        self._offered(event)
                    case payer.FundsLow(wanted):
                        self._low(wanted)
                    case payer.Revealed(preimage):
                        self._revealed[answers.lock_of(preimage)] = preimage
                    case payer.AgreementGiven(agreed):
                        self._agreed = agreed
                    case payer.Adopted(voucher):
                        self.spawn(self._adopt(voucher, self.payer.used))
                    case payer.Finished():
                        self._finished = event
        _, sent, received = self._traffic
        due, leeway = sent + received + self.payer.next_look, self.payer.leeway
        self.watch.total = due + leeway
        self.watch.along = due if leeway else NO_COUNT
        if self._no_more and not self._leaving and self.payer.spent and self._wanting():
            self._leaving = True
            self.spawn(self._leave())

    async def _adopt(self, voucher: SignedVoucher, used: Usage) -> None:
        await self.journal.run(lambda store: store.signed(voucher, used))

    def _sign(self, wanted: payer.SignWanted) -> None:
        """Sign what is reserved on the disk, else reserve it first. What comes next is reserved ahead."""
        voucher, reserved = wanted.voucher, self._reserved
        if not reserved.holds(voucher):
            self._unsigned = wanted
            self._reserve()
            return
        key, ahead = self._key, [each for each in wanted.ahead if reserved.holds(each)]
        signed = [key.sign(each) for each in (voucher, *ahead)]
        self.payer.signed(signed[0], wanted.charge, self.loop.time(), signed[1:])
        if 4 * (reserved.sequence - signed[-1].voucher.sequence) < self.payer.spending.reserve:
            self._reserve()

    def _reserve(self) -> None:
        if not self._reserving and not self._over:
            self._reserving = True
            self.spawn(self._reserve_more())

    async def _reserve_more(self) -> None:
        lane, more = self.payer.lane, self.payer.to_reserve
        if self._unsigned is not None:
            more = Reserved(more.sequence, max(more.amount, self._unsigned.voucher.amount))
        try:
            await self.journal.run(lambda store: store.reserve(lane.channel, lane.lane, more))
        finally:
            self._reserving = False
        self._reserved = more
        wanted, self._unsigned = self._unsigned, None
        if wanted is not None and not self._over:
            self._sign(wanted)
            self.turn()

    def ended(self) -> None:
        lane, used, newest = self.payer.lane, self.payer.used, self.payer.newest
        clean = self._finished is not None and self._finished.exact
        self.spawn(
            self.journal.run(lambda store: store.end_lane(lane.channel, lane.lane, used, newest, clean=clean))
        )

    # ---- money

    def _low(self, wanted: int) -> None:
        if self._on_low is not None and not self._adding:
            self._adding = True
            self.spawn(self._add(wanted))

    async def _add(self, wanted: int) -> None:
        assert self._on_low is not None
        try:
            funds = await self._on_low(wanted)
        finally:
            self._adding = False
        if self._over:
            return
        if funds is not None and funds > self.payer.funds:
            self.payer.funded(funds, self.loop.time())
        else:
            self._no_more = True
        self.turn()

    def _wanting(self) -> bool:
        """Whether a stream waits for something to come or to go, which costs money."""
        connection = self.connection
        return any(
            not (each._eof or each._read_error) or connection._queued(each.id)
            for each in connection._streams.values()
        )

    async def _leave(self) -> None:
        """The money is used up: pay the last of it, agree on the close, and end the connection with `BudgetSpent`.

        By then streams that were complete have ended in order. If all have, the connection is its user's to close.
        """
        if self.payer.cost <= self.payer.funds:
            await self.last_words()
        if self._over or not self._wanting():
            return
        connection, self.error = self.connection, self.payer.out_of_money()
        log.info("%r: %s", connection, self.error)
        for stream in tuple(connection._streams.values()):
            stream._fail_read(self.error)
            stream._fail_write(self.error, delivered=connection._acknowledged(stream.id))
        connection.abort(CloseCode.PAYMENT, "the client's budget is used up")

    def _offered(self, offer: payer.ChargeOffered) -> None:
        if offer.lock is not None:
            self._offers[offer.lock] = offer  # decided by `buy`, when what it is for has arrived
        else:
            self.spawn(self._decide(offer))

    async def _decide(self, offer: payer.ChargeOffered) -> None:
        agree = await self._wants(offer)
        if not self._over:
            self.payer.answer_charge(offer.charge, agree, self.loop.time())
            self.turn()

    async def _wants(self, offer: payer.ChargeOffered) -> bool:
        """Whether to agree: what the caller says, else by `charge_units`; with more money where that is needed."""
        if self._on_charge is not None:
            answer = self._on_charge(offer.units, offer.amount, offer.lock is not None)
            agree = answer if isinstance(answer, bool) else await answer
        else:
            agree = offer.units <= self.payer.spending.charge_units
        needed = self.payer.cost + offer.amount - self.payer.funds
        if agree and needed > 0 and self._on_low is not None:
            await self._add(needed)
        return agree

    async def buy(self, stream: Stream, most: int | None) -> bytes:
        """See `Metered.buy`."""
        lock, sealed = await answers.read_answer(stream)
        while lock not in self._offers:
            await self.changed()
        offer = self._offers.pop(lock)
        if most is not None and offer.amount > most:
            self.payer.answer_charge(offer.charge, False, self.loop.time())
            self.turn()
            raise PriceTooHigh(f"the answer costs {offer.amount}, and at most {most} is to be paid")
        await self._decide(offer)
        if not self.payer.agreed_to(offer.charge):
            raise ChargeDeclined(
                f"a charge of {offer.amount} for this answer was declined here, or above the budget"
            )
        while lock not in self._revealed:
            await self.changed()
        return answers.open_answer(self._revealed.pop(lock), sealed)

    # ---- beginning and end

    async def welcomed(self) -> None:
        """Wait until the server has said how it meters. Raises what is wrong with it."""
        while not self.payer.welcomed:
            await self.changed()

    async def finish(self) -> bool:
        """Pay for everything that has come, in order; whether both sides came to the same. Doesn't raise."""
        if self._over or not self.payer.welcomed:
            return False
        self._count()
        self.payer.finish(self.loop.time())
        self.turn()
        with contextlib.suppress(DtpError):
            while self._finished is None:
                await self.changed()
        return self._finished is not None and self._finished.exact

    async def last_words(self) -> messages.Agreed | None:
        """What is to be said before the connection closes: the rest is paid, the close agreed where it is wanted."""
        if self._over:
            return self._agreed
        exact = await self.finish()
        if exact and self.deal is not None and self.deal.closes:
            return await self.agreement()
        return self._agreed

    async def agreement(self) -> messages.Agreed | None:
        """The server's signature under an agreed close; None when it gives none in time. Doesn't raise."""
        if self._over or self._agreed is not None or not self.payer.agrees:
            return self._agreed
        self.payer.ask_close()
        self.turn()
        with contextlib.suppress(DtpError, TimeoutError):
            async with asyncio.timeout(self.end_patience):
                while self._agreed is None:
                    await self.changed()
        return self._agreed
