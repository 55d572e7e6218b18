"""What a replica tells of what is about to be made here, to whoever wants to take it back later."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

from dtp.crdt.values import Value

if TYPE_CHECKING:
    from dtp.crdt.sequences import GraphList, Name


class EditRecorder(Protocol):
    """Told of everything that is made here, before it is, and whether it was.

    What gives a context is left with an error where nothing was made.
    """

    def record_registers(
        self, rows: Sequence[tuple[str, str, Value] | tuple[str, str]]
    ) -> AbstractContextManager[Any]:
        """Note that registers are about to be set, or deleted."""

    def record_op(self, kind: int, soul: str, key: str, value: bytes) -> AbstractContextManager[Any]:
        """Note that an op of another kind is about to be made, as `Replica.do` makes it."""

    def begin_edit(self, name: Name) -> None:
        """Note that a text is about to be edited; it may be refused still."""

    def record_edit(self, name: Name) -> None:
        """Note that a text was edited."""

    def check_undo(self) -> None:
        """Raise why a text can't undo or redo by itself now."""

    def record_insert(self, items: GraphList, position: int, count: int) -> AbstractContextManager[Any]:
        """Note that elements are about to be inserted into a list."""

    def record_delete(self, items: GraphList, position: int, count: int) -> AbstractContextManager[Any]:
        """Note that elements of a list are about to be deleted."""

    def record_assign(self, items: GraphList, position: int) -> AbstractContextManager[Any]:
        """Note that an element of a list is about to get another value."""

    def record_move(self, items: GraphList, position: int, to: int) -> AbstractContextManager[Any]:
        """Note that an element of a list is about to be moved."""

    def on_committed(self) -> None:
        """Note that all that was made until now goes out."""
