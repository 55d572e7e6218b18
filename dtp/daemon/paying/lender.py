"""Notes what this process has lent from its budgets for other processes that use the store: during an upgrade the
old and the new daemon pay for the same services for a while.

Each process holds a lock beside the store while it lives, so that loans of a process that was killed end with it.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from dtp.locking import FileLock
from dtp.pay.client.lane_lock import path_beside
from dtp.pay.errors import StoreError
from dtp.pay.store import Store
from dtp.pay.store.rows import Loan

if TYPE_CHECKING:
    from dtp.daemon.paying.signed import PaidService


class Lender:
    """Notes in a store what this process lends, and reads what others have lent. Must be closed before the
    store."""

    def __init__(self, store: Store) -> None:
        self._store, self._name = store, secrets.token_hex(8)
        self._lock = _lock_of(store, self._name)
        self._loans: dict[object, str] = {}
        self._made = 0
        #: Loans that are over but couldn't be removed yet, and loans whose lane couldn't be noted yet.
        self._over: set[str] = set()
        self._unplaced: dict[str, tuple[str, int, int]] = {}

    def lend(
        self, borrower: object, chain: str, services: Collection[PaidService], share: Callable[[], int]
    ) -> int:
        """Lend a connection as much as `share` returns, given the store as it is then, and return it. Raise
        `StoreError`, after which nothing has changed."""
        try:
            if self._lock is not None and not self._lock.is_held:
                self._lock.take()
            self._place_loans()
            self._forget_dead()
        except OSError as fault:
            raise StoreError(f"can't lock what is lent of a budget: {fault}") from fault
        loan = self._loans.get(borrower)
        if loan is None:
            self._made += 1
            loan = f"{self._name}-{self._made}"
        amount = self._store.lend(loan, self._name, chain, services, share)
        self._loans[borrower] = loan
        return amount

    def place(self, borrower: object, channel: str, lane: int, start: int) -> None:
        """Note which lane a connection uses, and what had been signed there before."""
        self._unplaced[self._loans[borrower]] = channel, lane, start
        self._place_loans()

    def _place_loans(self) -> None:
        for loan, place in list(self._unplaced.items()):
            try:
                self._store.place_loan(loan, *place)
            except StoreError:
                # Until the next loan, others count both what it may sign and what they expect of its channel. That
                # is too much, but never too little.
                return
            del self._unplaced[loan]

    def end_loan(self, borrower: object) -> None:
        """Note that a connection is over, or was never made."""
        loan = self._loans.pop(borrower)
        self._unplaced.pop(loan, None)
        self._over.add(loan)
        self._forget_over()

    def list_elsewhere(self, chain: str, services: Collection[PaidService]) -> list[Loan]:
        """Return what other live processes have lent for these services. Raise `StoreError`."""
        alive = {self._name: False}
        found = []
        for each in self._store.loans_for(chain, services):
            if each.lender not in alive:
                alive[each.lender] = self._is_alive(each.lender)
            if alive[each.lender]:
                found.append(each)
        return found

    def close(self) -> None:
        """Remove everything that was lent here, since the connections are over. Idempotent."""
        self._over.update(self._loans.values())
        self._loans.clear()
        self._unplaced.clear()
        self._forget_over()
        if self._lock is not None:
            self._lock.release()

    def _forget_over(self) -> None:
        for loan in list(self._over):
            try:
                self._store.forget_loan(loan)
            except StoreError:
                return  # the disk is full, or another writes for long: the next loan tries again
            self._over.discard(loan)

    def _forget_dead(self) -> None:
        self._forget_over()
        for name in self._store.lenders() - {self._name}:
            lock = _lock_of(self._store, name)
            if not self._is_alive(name) and lock is not None and lock.take():
                try:
                    self._store.forget_lender(name)
                finally:
                    lock.release()  # or it would count as alive

    def _is_alive(self, name: str) -> bool:
        lock = _lock_of(self._store, name)
        try:
            return lock is not None and lock.is_taken()
        except OSError as fault:
            raise StoreError(f"can't look at who has lent of a budget: {fault}") from fault


def _lock_of(store: Store, name: str) -> FileLock | None:
    path = path_beside(store.path, f"lender-{name}")
    return None if path is None else FileLock(path)
