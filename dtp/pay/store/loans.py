"""What programs that share a store have lent of a budget to connections: each sees what the others may sign yet.

A loan is there from before a channel is opened for it until its connection is over. Whose program died is told by a
lock (`dtp.daemon.paying.lender`), and what it had lent is forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from dtp.pay.store.rows import Loan
from dtp.pay.store.spent import SpentStore


class LoanStore(SpentStore):
    """The table of loans, in a store's file. A loan is for one of several services of hosts on a chain, and which of
    them isn't known before its connection is there: it has a row for each."""

    def lend(
        self,
        loan: str,
        lender: str,
        chain: str,
        services: Collection[tuple[str, int]],
        share: Callable[[], int],
    ) -> int:
        """Keep that a connection may sign so much more, which `share` says by what the store has; return it. No two
        do so at once."""
        with self._write_transaction():
            amount = share()
            for host, number in services:
                self._db.execute(
                    "INSERT INTO loans VALUES (?, ?, ?, ?, ?, ?, '', 0, 0) "
                    "ON CONFLICT (loan, host, service) DO UPDATE SET amount = amount + excluded.amount",
                    (loan, lender, chain, host, number, amount),
                )
        return amount

    def place_loan(self, loan: str, channel: str, lane: int, start: int) -> None:
        """Keep on which lane a loan's connection is, and what had been signed there when it began."""
        with self._write_transaction():
            self._db.execute(
                "UPDATE loans SET channel = ?, lane = ?, start = ? WHERE loan = ?",
                (channel, lane, start, loan),
            )

    def forget_loan(self, loan: str) -> None:
        """Forget a loan: its connection is over, or didn't come about."""
        with self._write_transaction():
            self._db.execute("DELETE FROM loans WHERE loan = ?", (loan,))

    def forget_lender(self, lender: str) -> None:
        """Forget all that a program has lent, which is no more."""
        with self._write_transaction():
            self._db.execute("DELETE FROM loans WHERE lender = ?", (lender,))

    def lenders(self) -> set[str]:
        """Return the programs that have lent something."""
        return {lender for (lender,) in self._fetch_rows("SELECT DISTINCT lender FROM loans")}

    def loans_for(self, chain: str, services: Collection[tuple[str, int]]) -> list[Loan]:
        """Return what was lent for any of these services, each loan once."""
        rows = self._fetch_rows(
            "SELECT loan, lender, host, service, amount, channel, lane, start FROM loans WHERE chain = ?",
            chain,
        )
        found = {
            loan: Loan(lender, *rest)
            for loan, lender, host, service, *rest in rows
            if (host, service) in services
        }
        return list(found.values())
