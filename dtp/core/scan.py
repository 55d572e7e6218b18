"""Patterns that the core looks for by itself: see dtp_core/graph/scan.c."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from dtp.core._dtp_core import ffi, lib
from dtp.core.crdt import GraphCore
from dtp.core.errors import merging_error

#: How many nodes and tests a pattern has at most.
NODES: Final = int(lib.DTP_SCAN_NODES)
TESTS: Final = int(lib.DTP_SCAN_TESTS)
#: How many properties of a node it gives at most.
COLUMNS: Final = int(lib.DTP_SCAN_COLUMNS)
#: How many nodes it is asked for at most that come first by a property.
MOST: Final = int(lib.DTP_SCAN_MOST)
#: Comparison -> its number.
COMPARISONS: Final = {
    "=": int(lib.DTP_SCAN_EQUAL),
    "<>": int(lib.DTP_SCAN_DIFFERENT),
    "<": int(lib.DTP_SCAN_BELOW),
    "<=": int(lib.DTP_SCAN_AT_MOST),
    ">": int(lib.DTP_SCAN_ABOVE),
    ">=": int(lib.DTP_SCAN_AT_LEAST),
}
_NO_OTHER: Final = 0xFFFF_FFFF


class Test(NamedTuple):
    """A property of a node compared with a value (MessagePack), or with the property `value` of the node `other`."""

    node: int
    key: bytes
    comparison: str
    value: bytes
    other: int | None = None


class First(NamedTuple):
    """Of a pattern of one node: the first so many by a property, upwards or down. Where it is absent comes last."""

    key: bytes
    down: bool
    most: int


class ScanCore:
    """Nodes in a row, each linked to the next: `labels` of nodes and `keys` of the links behind them are
    alternatives, (node, name) each; there is one of any name where none is given. With `first` those are shown that
    may be among them, and maybe others. With `columns` of the only node its properties are given, and nothing is
    shown."""

    def __init__(
        self,
        nodes: int,
        labels: Sequence[tuple[int, bytes]],
        keys: Sequence[tuple[int, bytes]],
        tests: Sequence[Test],
        *,
        shown: bool = False,
        first: First | None = None,
        columns: Sequence[bytes] = (),
    ) -> None:
        self._kept: list[Any] = []
        asked = self._asked = ffi.new("dtp_scan *")
        asked.nodes, asked.shown = nodes, shown
        asked.labels, asked.label_count = self._keep_names(labels), len(labels)
        asked.keys, asked.key_count = self._keep_names(keys), len(keys)
        asked.tests, asked.test_count = self._keep_tests(tests), len(tests)
        asked.columns, asked.column_count = self._keep_names([(0, one) for one in columns]), len(columns)
        if first is not None:
            asked.order, asked.order_length = self._keep_text(first.key), len(first.key)
            asked.most, asked.down = first.most, first.down

    def _keep_text(self, text: bytes) -> Any:
        self._kept.append(ffi.new("uint8_t[]", text))
        return self._kept[-1]

    def _keep_names(self, names: Sequence[tuple[int, bytes]]) -> Any:
        found = ffi.new("dtp_scan_name[]", len(names))
        for at, (node, name) in enumerate(names):
            found[at].text, found[at].length, found[at].node = self._keep_text(name), len(name), node
        self._kept.append(found)
        return found

    def _keep_tests(self, tests: Sequence[Test]) -> Any:
        found = ffi.new("dtp_scan_test[]", len(tests))
        for into, one in zip(found, tests, strict=True):
            into.key, into.key_length = self._keep_text(one.key), len(one.key)
            into.value, into.value_length = self._keep_text(one.value), len(one.value)
            into.node, into.other = one.node, _NO_OTHER if one.other is None else one.other
            into.comparison = COMPARISONS[one.comparison]
        self._kept.append(found)
        return found

    def count_matches(
        self, core: GraphCore, numbers: array[int] | None, first: int, behind: int
    ) -> tuple[int, bytes] | None:
        """Return how often it is there, begun at some of the souls with these numbers (None: all), and the texts of
        what is shown: souls, then keys; or of each node the values of its columns, as bytes. None where the core
        can't tell, or it would take too many steps."""
        view, found = ffi.new("dtp_view *"), ffi.new("uint64_t *")
        given = ffi.NULL if numbers is None else ffi.from_buffer("uint32_t[]", numbers)
        code = lib.dtp_graph_scan(core.handle, self._asked, given, first, behind, view, found)
        if code == lib.DTP_E_LIMIT:
            return None
        if code < 0:
            raise merging_error(code)
        return int(found[0]), bytes(ffi.buffer(view.bytes, view.length))
