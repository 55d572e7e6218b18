"""Who may write in a graph, as its user has it: `Graph.access`. The functions are in `permission.access`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from dtp.crdt.permission.grants import Grant
from dtp.crdt.permission.rules import Rules
from dtp.graph.permission import access
from dtp.graph.permission.private import publish_key

if TYPE_CHECKING:
    from dtp.graph.graph import Graph


class Access:
    """Who may write in a graph besides the owners of souls, and by what rules. `Graph.access`."""

    def __init__(self, graph: Graph, last_clock: Callable[[bytes], int]) -> None:
        """`last_clock` gives the clock of what is here last of an author."""
        self._graph = graph
        self._last_clock = last_clock

    def grant(self, peer: access.Grantee, path: str = "", *, until: float | None = None) -> Grant:
        """Let somebody write at `own(path)` and below it, until a time (seconds since 1970) or for good.

        An account (`dtpa1...`, or its card) is granted it for each device that it has, also those that it gets later;
        one that is put out may no longer write. The other's graph finds the grant once it has come there, and uses it
        when it writes. It is never for rings of private nodes and the static key, without which what is sealed is
        lost. Raises `GraphError`.
        """
        return access.grant(self._graph, peer, path, until)

    def use(self, grant: Grant | bytes) -> Grant:
        """Use a grant that was handed over beside this graph, as it is or encoded; return it.

        It is needed where the owner's frames don't come, or wait because the owner's clock is ahead; a grant that
        came by the graph is used by itself. One to an account is for a device that shows its card (`accounts.join`).
        Raises `GrantError`, and `GraphError` for another's.
        """
        return access.use(self._graph, grant)

    def revoke(self, grant: Grant) -> None:
        """Take back a grant of one's own. What the other made up to what has come here stays; all else is void on
        all replicas, whenever they saw it. Raises `GraphError`."""
        access.revoke(self._graph, grant, self._last_clock)

    def grants(self) -> list[Grant]:
        """Return this identity's grants that aren't revoked."""
        return access.grants(self._graph)

    def allow(self, rules: Rules) -> Rules:
        """Let nodes be made under these rules (`rules.soul(path)`); the first op takes them into the graph."""
        self._graph.replica.permits.rules[rules.root] = rules
        return rules

    def publish_key(self) -> None:
        """Let others seal private nodes to this identity: its static key, with its proof, at its own soul."""
        publish_key(self._graph)

    async def offences(self) -> list[access.OffenceProof]:
        """Return proofs that authors signed what the rules of a kind of node forbid: the first of each, for each
        kind."""
        await self._graph.commits.commit()
        return await access.offences(self._graph)
