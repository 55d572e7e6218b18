"""What workers have counted: added up in a store, and told to the others as news."""

from __future__ import annotations

from collections.abc import Mapping

from dtp.daemon.state import CountKey, CountStore, Used
from dtp.daemon.workers.sharing import Foreign, is_of_rate


class CountExchange:
    """One for all workers. Their buckets are in a table that all have, so of rates only what others than they have
    filled in is news, and is told once."""

    def __init__(self) -> None:
        self._foreign = Foreign()
        #: By worker that is there: totals of quotas that others have changed since it asked last.
        self._news: dict[int, dict[CountKey, Used]] = {}

    def begin(self, worker: int) -> None:
        """Know a worker that has heard nothing yet."""
        self._news[worker] = {}

    def end(self, worker: int) -> None:
        """Forget a worker that is gone. Idempotent."""
        self._news.pop(worker, None)

    async def exchange_counts(
        self, store: CountStore, worker: int, deltas: Mapping[CountKey, Used]
    ) -> dict[CountKey, Used]:
        """Take what a worker has counted; return the totals, and those that the others have changed."""
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
