"""A graph over connections, as its user has it: sync, live replication, presence."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from dtp.crdt.values import Value
from dtp.graph.graph_formats import GraphFormats

if TYPE_CHECKING:
    from dtp.graph.graph import Graph
    from dtp.graph.keeping import Connect
    from dtp.graph.part import Part
    from dtp.graph.presence.presence import Presence
    from dtp.graph.replicating import Exchanged
    from dtp.net.connection import Connection


class GraphConnections(GraphFormats):
    """What a graph does with connections."""

    _presence: Presence | None = None

    @property
    def presence(self) -> Presence:
        """Return who has the graph open, and where they are: states that are told over connections, never stored."""
        if self._presence is None:
            from dtp.graph.presence.presence import Presence

            self._presence = Presence(cast("Graph", self))
        return self._presence

    async def sync(self, connection: Connection) -> Exchanged:
        """Bring both ends of a connection to the same; the other end must `serve` it.

        When it returns, each has stored all that the other had when it began. Raises `SyncError` and what ends
        connections and streams; what came until then is kept, and the next sync goes on from there.
        """
        self.check_writable()
        from dtp.graph.replicating import sync

        return await sync(cast("Graph", self), connection)

    async def replicate(self, connection: Connection) -> None:
        """Sync, and go on with all that is stored at either end, until the connection or the graph is closed."""
        self.check_writable()
        from dtp.graph.replicating import replicate

        await replicate(cast("Graph", self), connection)

    async def keep_replicating(self, connect: Connect) -> None:
        """Replicate over one connection after the other, until the graph is closed; pauses between them grow to a
        minute: `graph.keep_replicating(lambda: dtp.connect(address, identity=me))`, as a task of the program's.

        Raises a `LocalError`, which trying again won't mend.
        """
        self.check_writable()
        from dtp.graph.keeping import keep_replicating

        await keep_replicating(cast("Graph", self), connect)

    async def serve(
        self,
        connection: Connection,
        *,
        part: Part | None = None,
        read_only: bool = False,
        queries: bool = False,
    ) -> None:
        """Answer the other end's `sync` and `replicate`, until the connection or the graph is closed.

        With `part` it is given nothing else: it has to ask for that part, or less (`Graph.open`). Frames go whole, so
        what their authors committed together goes together. With `read_only` nothing is taken from it.
        With `queries` it may `ask`, within `query_budget`; not with `part`, since answers tell of all.
        """
        self.check_writable()
        from dtp.graph.replicating import Serving, serve

        await serve(cast("Graph", self), connection, Serving(part, not read_only, queries))

    async def ask(self, connection: Connection, text: str, **parameters: Value) -> Part:
        """Return the nodes that a query finds at a peer, which serves `queries`, as a part to `grow` by.

        They are what the peer says: names, which nothing proves to be all. What is found later isn't in it; ask
        again. Raises `QueryError` where the peer doesn't answer, `SyncError`, and what ends connections and streams.
        """
        self._check_open()
        from dtp.graph.asking import ask

        return await ask(cast("Graph", self), connection, text, parameters)
