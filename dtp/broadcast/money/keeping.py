"""What a producer does on the chain during a show: it follows events, decides whether the show is on air, and posts
slots."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from dtp.broadcast.errors import OffAir
from dtp.broadcast.money import shows
from dtp.broadcast.money.air import Air, AirJudge, Hysteresis, Slots
from dtp.chain.errors import MoveAborted, NodeUnavailable
from dtp.chain.node.client import ChainClient
from dtp.chain.node.gas import TransactionNotes
from dtp.chain.show import Show, ShowError, ShowState
from dtp.errors import ChainError
from dtp.tasks import SupervisedTask

log = logging.getLogger("dtp.broadcast")

#: Seconds between two checks of the time.
_TICK = 0.25
#: Seconds between two reads of the chain, beside its events.
_LOOK = 10.0
#: Refusals of the chain for slots that it may accept later, or fewer of them.
_NOT_NOW = (ShowError.TOO_EARLY, ShowError.NOT_ON_AIR)
#: Log messages for a chain that doesn't answer.
_CANT_POST = "slots can't be posted, which is tried again: %s"
_CANT_TELL = "whether the show can start yet isn't known, which is asked again: %s"
#: Logged once when fewer tickets are left than a show needs.
_FEW_LEFT: Final = "%d of %d tickets are left, since some were taken back; 'dtp show end' ends the show"


@dataclass(frozen=True, slots=True)
class Takings:
    """What a show has earned since the keeper began, and what the keeper's transactions cost."""

    #: Slots that were posted.
    posted: int
    #: What slots have earned, including refunds that paid for slots before they were posted; in units of the show's
    #: coin.
    released: int
    #: Gas of executed transactions in MIST, including those that the chain refused.
    gas: int


class _GasNotes(TransactionNotes):
    """Adds up the gas of transactions."""

    def __init__(self) -> None:
        self.gas = 0

    async def transaction_sent(self, digest: str) -> None:
        pass

    async def transaction_done(self, digest: str, gas: int) -> None:
        self.gas += gas


class ShowKeeper:
    """Follows one show for its producer. `async with` opens it, and at the end past slots are posted."""

    def __init__(
        self,
        chain: ChainClient,
        found: shows.Found,
        cap: str,
        clock_ms: Callable[[], int],
        hysteresis: Hysteresis | None = None,
        end_wanted: Callable[[], bool] = lambda: False,
        slots: Slots | None = None,
    ) -> None:
        """`end_wanted` returns True when the show should be ended: what is owed is then posted, and nothing more is
        sent. `slots` are those that a previous process has sent. `clock_ms` only counts as it is at the start:
        setting it later neither makes slots nor removes any."""
        self.found, self._end_wanted = found, end_wanted
        self.slots = slots or Slots()
        self._gas, self._began_with = _GasNotes(), found.show
        self._chain, self._cap = chain.noted_by(self._gas), cap
        loop = asyncio.get_running_loop()
        began = clock_ms() - loop.time() * 1000
        self._clock_ms: Callable[[], int] = lambda: round(began + loop.time() * 1000)
        self._judge = AirJudge(hysteresis)
        self._changed = asyncio.Event()
        self._follower = SupervisedTask(self._follow_show, name="dtp-show-events", foreseen=(ChainError,))
        self._news = asyncio.Event()
        reading = partial(shows.read_at_news, self._news, _LOOK, self._read_show)
        self._reader = SupervisedTask(reading, name="dtp-show-read", foreseen=(ChainError,))
        self._keeper = SupervisedTask(self._post_repeatedly, name="dtp-show-keeper", foreseen=(ChainError,))
        self._judging = SupervisedTask(self._judge_repeatedly, name="dtp-show-air")
        self._lock = asyncio.Lock()
        #: True where slots may have been posted that aren't known here, so that the chain is asked before the next
        #: ones.
        self._doubtful = False
        #: Warnings about the chain that were logged, each once until it recovers.
        self._warned = set[str]()
        #: When to ask the chain again whether it is too late for the show to start.
        self._look_again = -math.inf
        self.air = Air.OFF

    @classmethod
    async def open(
        cls,
        chain: ChainClient,
        id: str,
        clock_ms: Callable[[], int],
        hysteresis: Hysteresis | None = None,
        end_wanted: Callable[[], bool] = lambda: False,
        slots: Slots | None = None,
    ) -> ShowKeeper:
        """Read the show and the account's cap. Raise `NotProducer`."""
        found, cap = await shows.read_show(chain, id), await shows.cap_of(chain, id)
        return cls(chain, found, cap, clock_ms, hysteresis, end_wanted, slots)

    @property
    def show(self) -> Show:
        """The show, as last read."""
        return self.found.show

    @property
    def takings(self) -> Takings:
        """The show's earnings as last read, and costs."""
        show, before = self.show, self._began_with
        return Takings(show.posted - before.posted, show.released - before.released, self._gas.gas)

    @property
    def slot(self) -> int:
        """The number of the current slot."""
        return self.slots.current_slot(self.show, self._clock_ms())

    @property
    def _tasks(self) -> tuple[SupervisedTask, ...]:
        return self._follower, self._reader, self._keeper, self._judging

    async def __aenter__(self) -> ShowKeeper:
        self._judge_now()
        for each in self._tasks:
            each.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        for each in self._tasks:
            await each.stop()
        try:
            await self.post_owed()
        except ChainError as fault:
            log.warning("slots are left that aren't posted: broadcast again, or end the show: %s", fault)

    def check_on_air(self) -> None:
        """Raise `OffAir` if nobody pays for what would be sent now."""
        if self.air != Air.ON_AIR:
            raise OffAir(f"the show is {self.air}: wait until it is on air")

    async def states(self) -> AsyncIterator[Air]:
        """Yield the show's state, now and at each change, until it has ended."""
        told: Air | None = None
        while told != Air.ENDED:
            changed = self._changed
            if self.air != told:
                told = self.air
                yield told
                continue
            await changed.wait()

    async def say_where(self, hint: str) -> None:
        """Have the chain say where the show is heard, unless it already does."""
        if self.show.hint != hint.encode():
            await shows.set_hint(self._chain, self.found, self._cap, hint)

    def _judge_now(self) -> None:
        loop, now_ms = asyncio.get_running_loop(), self._clock_ms()
        self.slots.update_from_chain(self.show, now_ms)
        over = self.slots.count_over(self.show, now_ms)
        air = self._judge.judge_show(self.show, over, loop.time())
        if air != self.air:
            if air == Air.PAUSED and over > self.show.batch:
                log.warning(
                    "the show is off the air until slots can be posted: no more than a batch of them is paid"
                )
            self.air = air
            changed, self._changed = self._changed, asyncio.Event()
            changed.set()

    async def _judge_repeatedly(self) -> None:
        """Check the time, even while a request to a node hangs."""
        while True:
            await asyncio.sleep(_TICK)
            self._judge_now()

    async def _follow_show(self) -> None:
        async for _ in shows.events_of(self._chain, self.show.id):
            self._news.set()

    async def _read_show(self) -> None:
        found = await shows.read_show(self._chain, self.show.id)
        if found.version < self.found.version:
            raise NodeUnavailable("the node told of the show as it was before: it is behind the chain")
        self.found = found
        self._judge_now()
        self._tell_of_refunds()

    def _tell_of_refunds(self) -> None:
        """Warn once if fewer tickets are left than the show needs, since it may not be worth it any more."""
        show = self.show
        if show.state == ShowState.ON_AIR and show.tickets < show.fewest and _FEW_LEFT not in self._warned:
            self._warned.add(_FEW_LEFT)
            log.warning(_FEW_LEFT, show.tickets, show.fewest)

    async def _post_repeatedly(self) -> None:
        while True:
            await asyncio.sleep(_TICK)
            if self._end_wanted() and self.show.state != ShowState.ENDED:
                await self.post_owed()
                await shows.end(self._chain, self.show.id)
                await self._read_show()
            await self._end_late()
            await self.post_slots()

    async def _end_late(self) -> None:
        """End a ticketed show that can't start any more by the chain's clock, so that nobody can buy a ticket for
        it."""
        loop, show = asyncio.get_running_loop(), self.show
        is_off = bool(show.start_by_ms) and show.state == ShowState.OFF
        if not is_off or loop.time() < self._look_again:  # the local clock may be behind, and decides nothing
            return
        self._look_again = loop.time() + _LOOK
        try:
            if ((await self._chain.service_info()).timestamp_ms or 0) > show.start_by_ms:
                await self._end_unstarted()
            self._warned.discard(_CANT_TELL)
        # Longer and longer pauses would leave the slots unposted of a show that starts meanwhile.
        except ChainError as fault:
            self._warn_once(_CANT_TELL, fault)

    def _warn_once(self, words: str, fault: ChainError) -> None:
        log.log(logging.INFO if words in self._warned else logging.WARNING, words, fault)
        self._warned.add(words)

    async def _end_unstarted(self) -> None:
        await self._read_show()
        if self.show.state == ShowState.OFF:
            # Not `end`: the show may have started, if the node is behind.
            await shows.expire(self._chain, self.found)
            log.warning(
                "too few tickets were sold in time, so the show has ended: 'dtp show refund' brings their price back"
            )
            await self._read_show()

    async def post_slots(self) -> None:
        """Post the slots that are due. Those that can't be posted now are tried again the next time."""
        async with self._lock:
            try:
                if self._doubtful:
                    await self._read_again()
                while hashes := self.slots.due_hashes(self.show, self._clock_ms()):
                    await self._post_slots(hashes)
            except MoveAborted as fault:
                if fault.error not in _NOT_NOW:
                    raise
                # The clocks differ, or the pot has just run out.
                log.info("slots are posted a little later: %s", fault)
            except ChainError as fault:
                self._warn_once(_CANT_POST, fault)

    async def post_owed(self) -> None:
        """Post all slots that are over by the chain's time, so that nothing is owed when the show ends then.

        Raise `ChainError` if that can't be done now: ending the show would lose them.
        """
        async with self._lock:
            if self._doubtful:
                await self._read_again()
            most = self.show.batch
            while hashes := self.slots.due_hashes(self.show, self._clock_ms(), closing=True)[:most]:
                try:
                    await self._post_slots(hashes)
                except MoveAborted as fault:
                    if fault.error not in _NOT_NOW:
                        raise
                    # The local clock is ahead of the chain's, or the money ends within the batch: fewer may work.
                    most = len(hashes) // 2
                    await self._read_again()

    async def _post_slots(self, hashes: list[bytes]) -> None:
        self._doubtful = True
        posted = await shows.post(self._chain, self.found, self._cap, hashes)
        self._warned.discard(_CANT_POST)
        self.slots.note_posted(posted.first + len(posted.hashes))
        await self._read_again()

    async def _read_again(self) -> None:
        """Read which slots are posted from the chain."""
        await self._read_show()
        self._doubtful = False
