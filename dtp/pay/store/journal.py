"""The store beside an event loop: checking and writing several at a time in one transaction, off the loop's thread.

A sync of the disk takes milliseconds, and may not stop the loop. While one transaction is under way, everything that
comes waits together and goes into the next (group commit). Vouchers are cumulative, so of several that wait for one
lane only the newest good one is checked and stored.

Where a store can (`PromptStore`), a few vouchers are checked and written on the loop's thread, and only the sync is
left to the other: two threads that take turns in one interpreter, on processors that a fast stream keeps busy, cost
each other many times what the work takes (docs/decisions/0063): 1.7 times in all beside a loop that works.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, Generic, Protocol, TypeVar, runtime_checkable

from dtp.errors import DtpError
from dtp.pay.errors import StoreError
from dtp.pay.store.holding import VoucherStore
from dtp.pay.terms import Usage
from dtp.pay.voucher import SignedVoucher, Voucher

#: So many vouchers are checked between two turns of the loop; more take longer than a stream may wait.
_FEW: Final = 4

T = TypeVar("T")
S_co = TypeVar("S_co", bound=VoucherStore, covariant=True)


class VoucherVerdict(Enum):
    """What became of a voucher that was to be checked."""

    #: Good, newer than all before, and in the store.
    STORED = auto()
    #: Good or not: a newer one was stored.
    SUPERSEDED = auto()
    #: The signature is not of the lane's key.
    FORGED = auto()


@runtime_checkable
class PromptStore(Protocol):
    """A store that can write at once what is only synced later."""

    def receive_now(self, received: Iterable[tuple[SignedVoucher, Usage]]) -> list[bool] | None:
        """Do what `VoucherStore.received_all` does, without a sync and without waiting for anybody. Return None, with
        nothing written, where it would have to wait. Before anything of it counts, `sync` has to have returned."""

    def sync(self) -> None:
        """Make what was written outlast a power cut. For any thread. Raises `StoreError`."""


@dataclass(frozen=True, slots=True)
class _Check:
    keys: tuple[bytes, ...]
    signed: SignedVoucher
    used: Usage
    answer: asyncio.Future[VoucherVerdict]


class Journal(Generic[S_co]):
    """A store for one event loop. Close it; the store stays open.

    Servers take one of any `VoucherStore`, clients one of a `Store`, which knows what is bought, too.
    """

    def __init__(self, store: S_co) -> None:
        self.store = store
        self._prompt = store if isinstance(store, PromptStore) else None
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="dtp-pay")
        self._waiting: list[_Check] = []
        self._writing: asyncio.Future[list[_Answer]] | None = None
        #: Why something could not be written, None once something was.
        self.fault: StoreError | None = None
        self._closed = False

    def check_voucher(
        self, keys: Iterable[bytes], signed: SignedVoucher, used: Usage
    ) -> asyncio.Future[VoucherVerdict]:
        """Store a voucher if one of `keys` signed it and it is newer; `used` is our count.

        The answer comes when it is on the disk. `StoreError`.
        """
        answer: asyncio.Future[VoucherVerdict] = self._loop.create_future()
        if self._closed:
            answer.set_exception(_closed())
            return answer
        self._waiting.append(_Check(tuple(keys), signed, used, answer))
        if self._writing is None and len(self._waiting) == 1:
            self._loop.call_soon(self._write_next)  # with what else comes in this turn of the loop
        return answer

    async def run(self, work: Callable[[S_co], T]) -> T:
        """Do something else with the store, in its thread. Raises what `work` raises, `StoreError` once it is
        closed."""
        if self._closed:
            raise _closed()
        try:
            return await self._loop.run_in_executor(self._thread, work, self.store)
        except StoreError as fault:
            self.fault = fault
            raise

    async def write(self, work: Callable[[S_co], T]) -> T:
        """Run what writes, as `run` does; that it could shows that the store is there again."""
        done = await self.run(work)
        self.fault = None
        return done

    async def close(self) -> None:
        """Wait until everything is written; whoever comes later gets `StoreError`. Idempotent."""
        if self._closed:
            return
        while self._waiting or self._writing is not None:
            await asyncio.wait([self._writing] if self._writing is not None else [self._waiting[-1].answer])
        await self._loop.run_in_executor(self._thread, _pass)  # behind everything that `run` was given
        self._closed = True
        self._thread.shutdown(wait=False)

    def _write_next(self) -> None:
        """Begin the next transaction. Nothing is under way, and something waits."""
        jobs, self._waiting = self._waiting, []
        answers = _do_now(self._prompt, jobs) if self._prompt is not None and len(jobs) <= _FEW else None
        if answers is not None and self._prompt is not None:
            work = functools.partial(_synced, self._prompt, answers)
        else:
            work = functools.partial(_do, self.store, jobs)
        self._writing = self._loop.run_in_executor(self._thread, work)
        self._writing.add_done_callback(functools.partial(self._write_checks, jobs))

    def _write_checks(self, jobs: list[_Check], done: asyncio.Future[list[_Answer]]) -> None:
        self._writing = None
        if self._waiting:
            self._write_next()
        fault = done.exception()
        if fault is not None:  # none that anybody foresaw: who waits isn't to wait for ever
            for job in jobs:
                if not job.answer.done():
                    job.answer.set_exception(fault)
            return
        for job, answer in zip(jobs, done.result(), strict=True):
            if answer is VoucherVerdict.STORED:
                self.fault = None
            elif isinstance(answer, StoreError):
                self.fault = answer
            if job.answer.done():
                continue  # nobody waits any more
            if isinstance(answer, DtpError):
                job.answer.set_exception(answer)
            else:
                job.answer.set_result(answer)


def _closed() -> StoreError:
    return StoreError("this store of vouchers is closed here: whoever uses it is ending")


def _pass() -> None:
    """Do nothing: it only has its turn."""


_Answer = VoucherVerdict | DtpError


def _do(store: VoucherStore, jobs: list[_Check]) -> list[_Answer]:
    """Do all jobs in one transaction; where that fails, each in its own, so that only the broken one suffers."""
    try:
        return _together(store, jobs)
    except DtpError as fault:  # of the store, or of a row in it that is broken
        if len(jobs) == 1:
            return [fault]
    return [_do(store, [job])[0] for job in jobs]


def _together(store: VoucherStore, jobs: list[_Check]) -> list[_Answer]:
    answers = _kept(store.received_all, jobs)
    assert answers is not None
    return answers


def _do_now(store: PromptStore, jobs: list[_Check]) -> list[_Answer] | None:
    """Return what `_together` does, yet to be synced; None when it has to be done in the thread."""
    try:
        return _kept(store.receive_now, jobs)
    except DtpError:
        return None  # which job it is that can't be written, and why, is found there


def _synced(store: PromptStore, answers: list[_Answer]) -> list[_Answer]:
    if VoucherVerdict.STORED in answers:
        try:
            store.sync()
        except StoreError as fault:
            return [fault if each is VoucherVerdict.STORED else each for each in answers]
    return answers


def _kept(
    keep: Callable[[list[tuple[SignedVoucher, Usage]]], list[bool] | None], jobs: list[_Check]
) -> list[_Answer] | None:
    """Check, and `keep` what is good; return the answers, None when that gave None."""
    verdicts = _checked(jobs)
    good = [(job, key) for key, (job, verdict) in verdicts.items() if verdict is VoucherVerdict.STORED]
    if good:
        news = keep([(job.signed, job.used) for job, _ in good])
        if news is None:
            return None
        for (job, key), new in zip(good, news, strict=True):
            if not new:
                verdicts[key] = (job, VoucherVerdict.SUPERSEDED)
    return [verdicts[id(job)][1] for job in jobs]


def _checked(jobs: list[_Check]) -> dict[int, tuple[_Check, VoucherVerdict]]:
    """Return of each lane the newest voucher that is good; older ones that it covers aren't even looked at."""
    verdicts: dict[int, tuple[_Check, VoucherVerdict]] = {}
    good: dict[tuple[str, int], Voucher] = {}
    for job in sorted(jobs, key=lambda each: -each.signed.voucher.sequence):
        voucher = job.signed.voucher
        newer = good.get((voucher.channel, voucher.lane))
        if newer is not None and covers(newer, voucher):
            verdict = VoucherVerdict.SUPERSEDED
        elif any(job.signed.is_by(key) for key in job.keys):
            verdict = VoucherVerdict.STORED
            good.setdefault((voucher.channel, voucher.lane), voucher)
        else:
            verdict = VoucherVerdict.FORGED
        verdicts[id(job)] = (job, verdict)
    return dict(reversed(verdicts.items()))  # oldest first: the store takes what rises


def covers(newer: Voucher, older: Voucher) -> bool:
    """Return whether a voucher is at least as good as an older one: a newer sequence alone doesn't make it so."""
    return newer.amount >= older.amount and newer.requests >= older.requests and newer.bytes >= older.bytes
