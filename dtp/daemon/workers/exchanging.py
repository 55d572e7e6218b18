"""The counts of workers: they are added up in a store, and changes are reported to the other workers."""

from __future__ import annotations

from collections.abc import Mapping

from dtp.daemon.state import CountKey, CountStore, Used
from dtp.daemon.workers.sharing import Foreign, is_of_rate


class CountExchange:
    """The exchange for all workers. Since they share a table of buckets, only fillings by other daemons are news
    about rates, which are reported once."""

    def __init__(self) -> None:
        self._foreign = Foreign()
        #: For each running worker, the totals of quotas that others have changed since it last asked.
        self._news: dict[int, dict[CountKey, Used]] = {}

    def begin(self, worker: int) -> None:
        """Add a worker that hasn't been told anything yet."""
        self._news[worker] = {}

    def end(self, worker: int) -> None:
        """Remove a worker that is gone. Idempotent."""
        self._news.pop(worker, None)

    async def exchange_counts(
        self, store: CountStore, worker: int, deltas: Mapping[CountKey, Used]
    ) -> dict[CountKey, Used]:
        """Take what a worker has counted; return its totals, and those that others have changed."""
        totals = dict(await store.exchange_counts(deltas)) if deltas else {}
        of_rates = {key: used for key, used in totals.items() if is_of_rate(key)}
        totals |= self._foreign.find_news(deltas, of_rates)
        counted = [key for key, used in deltas.items() if any(used) and key in totals and key not in of_rates]
        changed = {key: totals[key] for key in counted}
        for other, news in self._news.items():
            if other != worker:
                news |= changed
        told = self._news.get(worker, {})
        if told:
            self._news[worker] = {}
        return {**told, **totals}
