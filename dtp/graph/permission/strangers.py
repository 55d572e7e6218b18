"""Who is a stranger in a graph, and what is here of each author and of all strangers together."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

from dtp.graph.frames import envelope as envelopes
from dtp.graph.frames.chains import Chains
from dtp.graph.frames.envelope import Envelope, Summary
from dtp.graph.permission.quotas import StoredUsage, ops_in, usage_of
from dtp.graph.stores.store import Store

if TYPE_CHECKING:
    from dtp.graph.graph import Graph

#: Envelopes that are read at once, to count what is in them.
_READ: Final = 256
#: Authors of whom it is remembered how much is here.
_MOST: Final = 65_536


class Acquaintances:
    """Which authors the program or its identity knows. Finding that out takes long in a large graph, so it is done
    where somebody would be refused, once for each batch."""

    def __init__(self, graph: Graph, named: Callable[[], set[bytes]]) -> None:
        """`named` gives those who are known whatever is granted in the graph."""
        self._graph, self._named = graph, named
        self._met: set[bytes] = set()
        self._known: set[bytes] = set()  # as it was found last
        self._is_current = False

    def __contains__(self, author: object) -> bool:
        """True if an author was known when that was found out last."""
        return author in self._known

    def add_dialled(self, author: bytes) -> bool:
        """Count an author as known until the graph is closed. True if it wasn't dialled before."""
        is_new = author not in self._met
        self._met.add(author)
        return is_new

    def expire(self) -> None:
        """Have the next `refresh` find out anew who is known."""
        self._is_current = False

    def refresh(self) -> None:
        """Find out who is known, unless that was done since `expire`."""
        if self._is_current:
            return
        graph = self._graph
        grants = graph.access.grants()
        granted = {one.grantee_name for one in grants}
        known = self._met | self._named() | {one.grantee for one in grants if not one.to_account}
        cards = [
            card
            for card in graph.accounts.cards()
            if card.name in granted or card.names(graph.identity.id.key)
        ]
        self._known = known | {one.key for card in cards for one in card.devices}
        self._is_current = True


class StoredUsages:
    """What each author's envelopes take that are here. It is counted from the store when it is asked for first."""

    def __init__(
        self,
        graph: Graph,
        store: Store,
        run: Callable[..., Awaitable[Any]],
        chains: Callable[[], Chains],
        acquaintances: Acquaintances,
    ) -> None:
        """`run` calls something of the store's, in its thread."""
        self._graph, self._store, self._run, self._chains = graph, store, run, chains
        self._acquaintances = acquaintances
        self._usage: dict[bytes, StoredUsage] = {}
        self._strangers_bytes: int | None = None

    async def count_author(self, author: bytes) -> StoredUsage:
        """Return what is here of an author."""
        found = self._usage.get(author)
        return found if found is not None else await self._read_usage(author)

    async def _read_usage(self, author: bytes) -> StoredUsage:
        usage, graph = StoredUsage(), self._graph
        head = self._chains().heads.get(author)
        if head is not None:
            usage.frames = head.sequence
            usage.bytes = await graph.frames.stored_bytes(author, 1, head.sequence)
            for first in range(1, head.sequence + 1, _READ):
                for data in await graph.frames.read(author, first, first + _READ - 1):
                    usage.ops += ops_in(envelopes.decode(graph.name, data).body)
        self._usage[author] = usage
        return usage

    async def count_strangers_bytes(self) -> int:
        """Return the bytes that are here of all strangers."""
        if self._strangers_bytes is None:
            sizes = await self._run(self._store.author_sizes)
            self._acquaintances.expire()
            self._acquaintances.refresh()
            self._strangers_bytes = sum(n for who, n in sizes.items() if who not in self._acquaintances)
        return self._strangers_bytes

    def add_envelope(self, envelope: Envelope | Summary) -> StoredUsage | None:
        """Count an envelope that was taken, and return what it takes; None where its author isn't counted."""
        usage = self._usage.get(envelope.author)
        if usage is None:
            return None
        more = usage_of(envelope)
        usage.add_usage(more)
        if self._strangers_bytes is not None and envelope.author not in self._acquaintances:
            self._strangers_bytes += more.bytes
        return more

    def forget_author(self, author: bytes) -> None:
        """Count an author anew, since other envelopes are in the place of those that were here."""
        self._usage.pop(author, None)
        self._strangers_bytes = None

    def forget_all(self) -> None:
        """Count all anew."""
        self._usage.clear()
        self._strangers_bytes = None

    def forget_strangers(self) -> None:
        """Add up strangers anew, since somebody isn't one any more."""
        self._strangers_bytes = None

    def bound(self) -> None:
        """Forget what each author takes where that are too many; it is counted again."""
        if len(self._usage) > _MOST:
            self._usage.clear()
