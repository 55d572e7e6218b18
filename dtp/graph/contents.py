"""What a graph holds, seen by a program: nodes and the other types, watching, queries, pictures.

The part of `Graph` (dtp/graph/graph.py) that is memory alone: nothing here signs, stores or sends.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, cast

from dtp.core import crdt as core
from dtp.crdt import Change, Counter, Map, MultiValue, Node, Replica, Set, Value, parts, values
from dtp.crdt.document import NestedMap
from dtp.crdt.permission.access import is_internal
from dtp.crdt.permission.owners import owned_soul
from dtp.graph.changes import UNREAD, Changes, Readers, Watch
from dtp.graph.errors import GraphError, GraphPartial, GraphReadOnly, KeyLost, NotReader, NotSealed
from dtp.graph.permission.private import private
from dtp.graph.permission.rings import RING_KEY, ring_soul
from dtp.graph.query.asked import GraphQueries
from dtp.graph.query.budget import QueryBudget
from dtp.graph.query.errors import QueryError
from dtp.graph.undo.manager import UndoManager
from dtp.identity import Identity
from dtp.identity.sealing import SealBroken

if TYPE_CHECKING:
    from networkx import MultiDiGraph
    from pandas import DataFrame

    from dtp.crdt.sequences import GraphList, GraphText
    from dtp.graph.graph import Graph
    from dtp.graph.permission.private import PrivateNode
    from dtp.graph.query.live import RowChanges
    from dtp.graph.query.run import Row
    from dtp.graph.sync.part import Part

#: What there is at a soul beside registers, and how it is read.
_KINDS: Final[dict[str, tuple[int, Callable[[Replica, str, str], Any]]]] = {
    "counter": (core.COUNTER, lambda replica, soul, key: replica.counter(soul, key).value),
    "set": (core.SET, lambda replica, soul, key: list(replica.set(soul, key))),
    "values": (core.VALUES, lambda replica, soul, key: list(replica.multi_value(soul, key).values)),
    "list": (core.LIST, lambda replica, soul, key: list(replica.list(soul, key))),
    "text": (core.TEXT, lambda replica, soul, key: str(replica.text(soul, key))),
}
#: Why nothing can be done with a graph any more.
CLOSED = "this graph is closed; open it again"
#: Why nothing can be changed in one that was opened to read.
READ_ONLY = "this graph was opened to read only; open it without read_only to change or sync it"


class Contents:
    """A replica, whoever watches it, and the index of its queries."""

    read_only = False

    def __init__(self, identity: Identity, replica: Replica) -> None:
        """`identity` is who writes in the replica."""
        self.identity = identity
        self._replica = replica
        self._readers = Readers()
        self._private: dict[str, PrivateNode] = {}
        self._queries = GraphQueries(replica, self._private.keys)
        self._part: Part | None = None
        self._closed = False
        #: What each query may take.
        self.query_budget = QueryBudget()
        replica.reveal = self._read_private

    def check_open(self) -> None:
        """Raise `GraphError` when it is closed."""
        if self._closed:
            raise GraphError(CLOSED)

    def check_writable(self) -> None:
        """Raise `GraphError` when it is closed, `GraphReadOnly` when it is only read."""
        self.check_open()
        if self.read_only:
            raise GraphReadOnly(READ_ONLY)

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    # ---- what it holds --------------------------------------------------------------------------------------

    @property
    def replica(self) -> Replica:
        """What is below: the merged state, without signatures and store."""
        return self._replica

    def node(self, soul: str) -> Node:
        """Return the node: a mapping of keys to values, with links. There whether or not something was put into it.

        Raises `NotSealed` for a private one, whose sealed values are at `graph.replica.node(soul)`.
        """
        self.check_readable(soul)
        return self._replica.node(soul)

    def counter(self, soul: str, key: str = "") -> Counter:
        """Return the counter at (soul, key)."""
        self.check_readable(soul)
        return self._replica.counter(soul, key)

    def set(self, soul: str, key: str = "") -> Set:
        """Return the set at (soul, key)."""
        self.check_readable(soul)
        return self._replica.set(soul, key)

    def map(self, soul: str) -> Map:
        """Return the map at the soul: like a node, but what was written at the same time is all kept."""
        self.check_readable(soul)
        return self._replica.map(soul)

    def multi_value(self, soul: str, key: str = "") -> MultiValue:
        """Return the multi-value register at (soul, key)."""
        self.check_readable(soul)
        return self._replica.multi_value(soul, key)

    def list(self, soul: str, key: str = "") -> GraphList:
        """Return the list at (soul, key). Raises `GraphValueError` for a name that nothing can be kept at."""
        self.check_readable(soul)
        return self._replica.list(soul, key)

    def text(self, soul: str, key: str = "") -> GraphText:
        """Return the text at (soul, key), edited by all at the same time: `insert`, `delete`, slices, `undo`,
        anchors. Raises `GraphValueError` for a name that nothing can be kept at."""
        self.check_readable(soul)
        return self._replica.text(soul, key)

    @property
    def part(self) -> Part | None:
        """Return the part that is here, None if that is all: see `Graph.open`."""
        return self._part

    def show_part(self, part: Part | None) -> None:
        """Have this part here, and show nothing else."""
        self._part = part
        self._replica.shows = None if part is None else part.has_soul

    def check_here(self, soul: str) -> None:
        """Raise `GraphPartial` for a soul that isn't in the part that is here."""
        if self._part is not None and not self._part.has_soul(soul):
            raise GraphPartial(
                f"{soul!r} isn't in the part of the graph that is here: open or grow it with one that has it; "
                "`put_many` writes there all the same"
            )

    def check_whole(self, what: str) -> None:
        """Raise `GraphPartial` for what only a graph can do that has all."""
        if self._part is not None:
            raise GraphPartial(f"only a part of the graph is here: {what} takes all of it")

    def is_private(self, soul: str) -> bool:
        """Return whether a private node is at the soul, as far as is known here."""
        return soul.startswith("~") and RING_KEY in self._replica.node(ring_soul(soul))

    def check_readable(self, soul: str) -> None:
        """Raise `NotSealed` at the soul of a private node, and `GraphPartial` where it isn't here."""
        self.check_here(soul)
        self.check_public(soul)

    def check_public(self, soul: str) -> None:
        """Raise `NotSealed` at the soul of a private node: its registers are written by `Graph.private`."""
        if self.is_private(soul):
            raise NotSealed(
                f"{soul!r} is private, and what is written there so could be read by all: Graph.private(soul) reads "
                "and writes its sealed registers; texts, lists, sets and counters can't be sealed"
            )

    def put_many(self, rows: Iterable[tuple[str, str, Value] | tuple[str, str]]) -> None:
        """Set (soul, key, value), or delete (soul, key), many at once. Raises `NotSealed`, and puts none then."""
        rows = list(rows)
        for soul in {row[0] for row in rows if row[0].startswith("~")}:
            self.check_public(soul)
        self._replica.put_many(rows)

    def document(self, soul: str) -> NestedMap:
        """Return the document at the soul: a map of values, and of maps, lists and texts, each of which merges by its
        parts.

        Raises `NotSealed`, and `GraphError` for the soul of a part, or one that leaves no room for parts.
        """
        self.check_readable(soul)
        if parts.is_part(soul) or not parts.takes_parts(soul):
            raise GraphError(
                f"no document can be at {soul!r}: it is a part of one, or isn't of 1 to {parts.MAX_DOCUMENT} bytes"
            )
        return NestedMap(self._replica, soul)

    def everything(self, soul: str, *, parts_too: bool = True) -> dict[str, dict[str, Any]]:
        """Return all that is at a soul: key -> kind -> what is there. Kinds are "register", "counter" (an int),
        "set", "values" and "list" (lists; a set's in no order that means anything), "text" (a str); a key may have
        several. With a text come its "marks", [start, stop, name, value] each.

        Maps are "values" of each key, links a "set"; where links have properties, "relationships" has a dict of them
        for each target. Of a private node it is what can be read of its registers. Of a
        document, `parts_too` puts its parts in place of the links to them.
        """
        self.check_here(soul)
        return (parts.read_with_parts if parts_too else parts.with_relationships)(soul, self._read_all)

    def _read_all(self, soul: str) -> dict[str, dict[str, Any]]:
        if parts.is_relationship(soul) and self._replica.core.soul_number(values.encode_name(soul)) is None:
            return {}
        if self.is_private(soul):
            return {key: {"register": value} for key, value in (self._read_private(soul) or {}).items()}
        found: dict[str, dict[str, Any]] = {}
        for key, value in self._replica.node(soul).to_dict().items():
            found.setdefault(key, {})["register"] = value
        handle, name = self._replica.core, values.encode_name(soul)
        for kind, (space, read) in _KINDS.items():
            for key in values.decode(handle.read_keys(space, name)):
                found.setdefault(key, {})[kind] = read(self._replica, soul, key)
                if kind == "text" and (marked := self._replica.text(soul, key).marked_ranges()):
                    found[key]["marks"] = marked
        for (
            space,
            where,
            key,
        ) in self._replica.sequences.edited_names:  # what was written, and waits for the next commit
            if where != soul:
                continue
            if space == core.LIST:
                if elements := list(self._replica.list(soul, key)):
                    found.setdefault(key, {})["list"] = elements
            elif text := str(self._replica.text(soul, key)):
                found.setdefault(key, {})["text"] = text
                if marked := self._replica.text(soul, key).marked_ranges():
                    found[key]["marks"] = marked
        return found

    def souls(self, prefix: str = "", *, internal: bool = False, parts_too: bool = False) -> _Souls:
        """Return the souls that have something and begin with `prefix`, sorted.

        What is emptied or deleted has nothing: a text or a list without elements, a counter at 0. Souls of the
        graph's own book-keeping (what was granted, seen, and sealed to whom) are among them with `internal`, those of
        parts of documents with `parts_too`.
        """
        found = self._replica.souls(prefix)
        shows = self._replica.shows
        return sorted(
            soul
            for soul in found
            if (internal or not is_internal(soul))
            and (parts_too or not parts.is_part(soul))
            and (shows is None or shows(soul))
        )

    def own(self, path: str = "") -> str:
        """Return the soul of this identity's own at `path`. Only it can write there; all replicas see to that."""
        return owned_soul(self.identity.id.key, path)

    def watch(self, pattern: str = "*") -> Watch:
        """Return changes from now on, made here or elsewhere, at souls that match (`*`, `?`): `async for change in
        ...`."""
        self.check_open()
        return self._readers.new_watch(pattern)

    def changes(self, pattern: str = "*", *, name: str = "", limit: int = UNREAD) -> Changes:
        """Return what each commit changes from now on, made here or elsewhere: `async for batch in graph.changes()`.

        A batch has all that one commit made here, once it is stored, or what came from others at one time, at souls
        that match. At most `limit` changes wait for a reader; beyond, the next read raises `ChangesMissed`, and
        `name` says which reader was too slow.
        """
        self.check_open()
        return self._readers.new_reader(pattern, name, limit)

    def undo_manager(self, *, depth: int = 100, memory: int = 64 << 20) -> UndoManager:
        """Return what this program makes from now on, to be taken back and made again: `with undo.step("rename"):
        ...`.

        At most `depth` steps, which take `memory` bytes: older ones are forgotten, and one that is larger can't be
        taken back. Raises `GraphError` if there is one that isn't closed.
        """
        self.check_writable()

        return UndoManager(self._replica, depth, memory, self._private_at)

    def _private_at(self, soul: str) -> PrivateNode | None:
        return private(cast("Graph", self), soul, None) if self.is_private(soul) else None

    # ---- queries ----------------------------------------------------------------------------------------------

    def query(self, text: str, **parameters: Value) -> _Rows:
        """Return the rows of a query in openCypher's reading part (docs/query.md), each a dict of its columns.

        A node's label is what is before the first slash of its soul; relationships are links, by their key. The
        nodes that queries are about are kept in an index in memory, and kept up to date. Raises `QueryError`, and
        `QueryLimit` where it takes more than `query_budget`.
        """
        return self._queries.run_query(text, parameters, self.query_budget)

    async def query_async(self, text: str, **parameters: Value) -> _Rows:
        """Return the rows of a query, as `query` gives them, while the event loop goes on.

        It runs in a thread, over the graph as it was at one time after the call: what changes meanwhile isn't seen.
        One runs at a time, in the order of the calls. Cancelling it ends the query. Raises as `query`, and
        `GraphError` when the graph is closed.
        """
        self.check_open()
        try:
            return await self._queries.run_beside(text, parameters, self.query_budget, self.check_open)
        except QueryError:
            self.check_open()
            raise

    def live(self, text: str, **parameters: Value) -> AsyncIterator[RowChanges]:
        """Return the rows of a query, then how they differ whenever the graph has changed: `async for difference in
        ...`.

        The query is asked anew after changes, however many came together, beside the event loop as `query_async`
        does. It ends with the graph, and when its reader is cancelled. Raises as `query_async`.
        """
        from dtp.graph.query.live import follow

        return follow(self, text, parameters)

    def index(self, kind: str, key: str, *, full_text: bool = False) -> str:
        """Have queries look up a key of the nodes of a kind (what is before the first slash of their souls).

        Equality, ranges and STARTS WITH by its values; with `full_text` words and CONTAINS of its texts. Gives its
        name, "kind.key", for `CALL db.index.fulltext.queryNodes(name, query)`. It lasts as long as this object: say
        it after opening. Raises `QueryError`.
        """
        return self._queries.declare_index(kind, key, full_text=full_text)

    def explain(self, text: str, **parameters: Value) -> str:
        """Return the SELECTs that the MATCHes of a query become, and how SQLite goes about them."""
        return self._queries.explain_query(text, parameters)

    def to_networkx(self, prefix: str = "") -> MultiDiGraph:
        """Return a `networkx.MultiDiGraph` of the nodes that begin with `prefix` and the links between them.

        Nodes are souls with their registers as attributes, all else as "key (kind)"; edges have the link's key, and
        its properties as attributes.
        Needs `pip install 'dtp-sockets[graph]'`, else `GraphError`.
        """
        from dtp.graph.formats.networks import to_networkx

        return to_networkx(self, prefix)

    def to_pandas(self, prefix: str = "") -> DataFrame:
        """Return a `pandas.DataFrame` of the nodes that begin with `prefix`: a row for each soul, a column for each
        key of registers, and one, "key (kind)", for each of all else that `everything` has.

        For rows of a query: `pandas.DataFrame(graph.query(...))`. Needs `pip install 'dtp-sockets[graph-pandas]'`,
        else `GraphError`.
        """
        from dtp.graph.formats.networks import to_pandas

        return to_pandas(self, prefix)

    def to_svg(self, prefix: str = "") -> str:
        """Return a picture of the nodes that begin with `prefix` and the links between them, as an SVG document.

        Raises `GraphError` for more than 500 nodes.
        """
        from dtp.graph.formats.networks import to_svg

        return to_svg(self, prefix)

    # ---- telling of changes -----------------------------------------------------------------------------------

    def _notify_readers(self, *, is_local: bool) -> None:
        if self._readers or self._queries.is_used:
            self._tell_of(self._replica.take_changes(), is_local=is_local)

    def _tell_of(self, changes: _Changes, *, is_local: bool) -> None:
        shows = self._replica.shows
        if shows is not None:
            changes = [change for change in changes if shows(change.soul)]
        self._update_indexes(changes)
        for node in self._private.values():
            self._update_indexes([c._replace(soul=node.soul) for c in changes if c.soul == node.ring_soul])
        self._readers.notify(changes, is_local=is_local)

    def _tell_rebuilt(self, changes: _Changes) -> None:
        self._tell_of(changes, is_local=False)
        self._readers.on_received()

    def _update_indexes(self, changes: _Changes) -> None:
        """Tell the indexes that something is different at these souls; what is in a document is at the document's."""
        changes = changes + [
            one._replace(soul=parts.document_of(one.soul)) for one in changes if parts.is_part(one.soul)
        ]
        self._queries.on_changed(changes)

    def _read_private(self, soul: str) -> dict[str, Value] | None:
        """Return what a private node that was opened here says; nothing when it can't be read."""
        node = self._private.get(soul)
        if node is None:
            return None
        try:
            return node.to_dict()
        except (GraphError, NotReader, KeyLost, SealBroken):
            return {}


# `Contents` has methods of these names.
_Rows = list["Row"]
_Souls = list[str]
_Changes = list[Change]
