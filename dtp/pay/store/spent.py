"""Gas in a store's file: every transaction is noted before it is sent, and what it took once that is known.

So whoever is killed between the two knows of it at the next start, and asks the chain by its digest. What is noted
twice is one transaction.
"""

from __future__ import annotations

from dtp.pay.store.file import StoreFile
from dtp.pay.store.rows import Unsettled


class SpentStore(StoreFile):
    """The table of transactions, in a store's file. `purpose` is "pay" for those of a channel that we opened or were
    to open, "claim" for those that claim for a server."""

    def transaction_sent(
        self, digest: str, purpose: str, channel: str, chain: str, account: str, at_ms: int
    ) -> None:
        """Keep that a transaction is about to be sent, `channel` "" where it opens one or is for several."""
        with self._write_transaction():
            self._db.execute(
                "INSERT OR IGNORE INTO spent VALUES (?, ?, ?, ?, ?, ?, NULL)",
                (digest, purpose, channel, chain, account, at_ms),
            )

    def transaction_took(self, digest: str, gas: int) -> None:
        """Keep what gas a transaction took (MIST), below 0 where more storage was given back."""
        with self._write_transaction():
            self._db.execute("UPDATE spent SET gas = ? WHERE digest = ?", (gas, digest))

    def forget_transaction(self, digest: str) -> None:
        """Forget a transaction whose gas isn't known: it was never executed."""
        with self._write_transaction():
            self._db.execute("DELETE FROM spent WHERE digest = ? AND gas IS NULL", (digest,))

    def unsettled_transactions(self, chain: str = "", account: str = "") -> list[Unsettled]:
        """Return the transactions whose gas isn't known, the newest first: of an account on a chain, or all."""
        query = (
            "SELECT digest, purpose, at_ms FROM spent WHERE gas IS NULL "
            "AND ?1 IN ('', chain) AND ?2 IN ('', account) ORDER BY at_ms DESC"
        )
        return [Unsettled(*row) for row in self._fetch_rows(query, chain, account)]

    def gas_since(self, chain: str, host: str, account: str, since_ms: int) -> int:
        """Return what gas an account's transactions for channels with a host took since then (MIST), as far as it is
        known, what was given back counted."""
        query = (
            "SELECT coalesce(sum(spent.gas), 0) FROM spent JOIN bought USING (channel) "
            "WHERE bought.chain = ? AND host = ? AND bought.account = ? AND at_ms >= ?"
        )
        ((total,),) = self._fetch_rows(query, chain, host, account, since_ms)
        return int(total)

    def spent_beside(self, purpose: str) -> list[tuple[int, int]]:
        """Return when (Unix ms) transactions of a purpose were sent that are of no single channel, and what gas each
        took (MIST), the oldest first: openings that failed, and claims."""
        query = "SELECT at_ms, gas FROM spent WHERE purpose = ? AND channel = '' AND gas IS NOT NULL ORDER BY at_ms"
        return [(at_ms, gas) for at_ms, gas in self._fetch_rows(query, purpose)]
