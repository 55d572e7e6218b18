"""Keys of private nodes, for undo: what is put back is sealed anew, to whoever may read by then."""

from __future__ import annotations

from typing import Final

from dtp.crdt import Replica, values
from dtp.graph.errors import KeyLost, NotReader
from dtp.graph.permission.private import PrivateNode
from dtp.graph.undo.edits import PlaceState, RegisterPlace, Where
from dtp.identity.sealing import SealBroken

#: The value of a state that can't be opened here.
_SEALED: Final = b""


class PrivatePlace(RegisterPlace):
    """A key of a private node, at its hidden name. The value of a state is the key and the value, opened."""

    def __init__(self, node: PrivateNode, hidden: str) -> None:
        super().__init__(node.soul, hidden)
        self._node = node
        self._hidden = hidden

    def read_value(self, replica: Replica) -> bytes | None:
        if super().read_value(replica) is None:
            return None
        try:
            key, value = self._node.open_hidden(self._hidden)
        except (SealBroken, NotReader, KeyLost):
            return _SEALED
        self.where = Where(self._node.soul, key, "register")
        return values.encode([key, value])

    def restore_state(self, replica: Replica, state: PlaceState) -> None:
        if state.value == _SEALED:
            raise SealBroken("the sealed value of before can't be opened here, so it can't be put back")
        if state.value is None:
            replica.delete(self._node.soul, self._hidden)
            return
        key, value = values.decode(state.value)
        self._node[key] = value

    @property
    def name(self) -> object:
        return self._node.soul, self._hidden
