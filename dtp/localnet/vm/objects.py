"""What a running program does to objects: the state behind `object`, `transfer`, `dynamic_field` and `event`.

One `ObjectRuntime` serves one session. It reads child and received objects through the node's `ChildStore`, keeps
them as live data, and at the end tells what changed (`collect_effects`). Its limits are the protocol's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from dtp.localnet.limits import (
    MAX_CACHED_OBJECTS,
    MAX_DELETED_IDS,
    MAX_EVENT_SIZE,
    MAX_EVENTS,
    MAX_EVENTS_SIZE,
    MAX_INSTANCE_NODES,
    MAX_LAYOUT_NODES,
    MAX_NEW_IDS,
    MAX_TRANSFERRED_IDS,
)
from dtp.localnet.vm.contract import (
    ChildStore,
    EmittedEvent,
    OwnerKind,
    RuntimeEffects,
    StoredObject,
    Transfer,
    Value,
    VmOwner,
)
from dtp.localnet.vm.signals import (
    CACHED_OBJECTS,
    DELETED_IDS,
    EVENT_SIZE,
    EVENTS,
    EVENTS_SIZE,
    NEW_IDS,
    TRANSFERRED_IDS,
    MemoryLimit,
    VmLimit,
)
from dtp.localnet.vm.sizes import sizer, tag_size
from dtp.localnet.vm.types import Type
from dtp.localnet.vm.values import BadBcs, decode, encode

__all__ = ["ObjectRuntime", "TypeMismatch", "object_id"]

# Objects of genesis: sharing them is not sharing a used object.
_SYSTEM_STATE: Final = (5).to_bytes(32, "big")
_CLOCK: Final = (6).to_bytes(32, "big")


class TypeMismatch(Exception):
    """The child object is there with another type."""


@dataclass(slots=True)
class _Child:
    """A child slot: what the store had, and what is there now (`data` is None when it was taken out)."""

    parent: bytes
    type: Type | None
    data: Any
    stored: StoredObject | None


def object_id(data: Any) -> bytes:
    """Return the id of an object: its first field is `UID { id: ID { bytes: address } }`."""
    return data[0][0][0]  # type: ignore[no-any-return]


class ObjectRuntime:
    """Object state of one session.

    `inputs` maps the ids of the transaction's input objects to their owners (`transfer::share_object` refuses an
    object that had another owner before).
    """

    def __init__(self, children: ChildStore, inputs: Mapping[bytes, VmOwner] | None = None) -> None:
        self._store = children
        self._inputs = dict(inputs or {})
        self._effects = RuntimeEffects()
        self._children: dict[bytes, _Child] = {}
        self._events_size = 0
        self._fetched = 0

    # ------------------------------------------------------------------------------------------------- ids

    def new_id(self, id: bytes) -> None:
        """Note that `object::new` made `id`, or a wrapped id came back to life."""
        effects = self._effects
        if len(effects.created) >= MAX_NEW_IDS:
            raise MemoryLimit(NEW_IDS, f"more than {MAX_NEW_IDS} objects created")
        if effects.deleted.pop(id, id) is not None:
            effects.created[id] = None

    def delete_id(self, id: bytes) -> None:
        """Note that `object::delete` consumed the UID of `id`."""
        effects = self._effects
        if len(effects.deleted) >= MAX_DELETED_IDS:
            raise MemoryLimit(DELETED_IDS, f"more than {MAX_DELETED_IDS} objects deleted")
        if effects.created.pop(id, id) is not None:
            effects.deleted[id] = None

    # ------------------------------------------------------------------------------------------- ownership

    def transfer_object(self, owner: VmOwner, type: Type, data: Any) -> bool:
        """Give an object an owner. False when the object had another owner before (not new, not the same)."""
        id = object_id(data)
        transfers = self._effects.transfers
        if len(transfers) >= MAX_TRANSFERRED_IDS:
            raise MemoryLimit(TRANSFERRED_IDS, f"more than {MAX_TRANSFERRED_IDS} objects transferred")
        transfers.pop(id, None)
        transfers[id] = Transfer(id, owner, Value(type, data))
        if id in self._effects.created or id in (_SYSTEM_STATE, _CLOCK):
            return True
        before = self._inputs.get(id)
        if before is None:
            return False
        return before == owner or (before.kind is owner.kind is OwnerKind.SHARED)

    def receive_object(self, parent: bytes, id: bytes, version: int, type: Type) -> Any | None:
        """Return the object that `parent` was sent, or None if it can't be had. Raises `TypeMismatch`."""
        effects = self._effects
        if id in effects.received:
            return None
        stored = self._store.find_received(parent, id, version)
        if stored is None:
            return None
        if stored.type_tag != type.tag:
            raise TypeMismatch(stored.type_tag)
        effects.received[id] = None
        effects.loaded[id] = stored.version
        return self._decode_stored(stored, type)

    # -------------------------------------------------------------------------------------- dynamic fields

    def _decode_stored(self, stored: StoredObject, type: Type) -> Any:
        try:
            return decode(type, stored.contents)
        except BadBcs as error:
            raise VmLimit("VMInvariantViolation", f"stored object 0x{stored.id.hex()}: {error}") from None

    def _load_child(self, parent: bytes, id: bytes) -> _Child:
        found = self._children.get(id)
        nowhere = found is not None and found.type is None and found.stored is None
        if found is not None and not (nowhere and found.parent != parent):
            return found
        if len(self._children) >= MAX_CACHED_OBJECTS:
            raise MemoryLimit(CACHED_OBJECTS, f"more than {MAX_CACHED_OBJECTS} dynamic fields touched")
        stored = self._store.find_child(parent, id)
        if stored is not None:
            self._effects.loaded[id] = stored.version
            self._fetched += len(stored.contents)
        found = self._children[id] = _Child(parent, None, None, stored)
        return found

    def fetched_bytes(self) -> int:
        """Return how many bytes of children were read from the store since the last call."""
        fetched, self._fetched = self._fetched, 0
        return fetched

    def is_read(self, id: bytes) -> bool:
        """True if the data of child `id` is here, or was: it need not be made of its bytes."""
        child = self._children.get(id)
        return child is not None and child.type is not None

    def child_exists(self, parent: bytes, id: bytes) -> bool:
        """True if `parent` has the child `id` now."""
        child = self._load_child(parent, id)
        return child.parent == parent and (
            child.data is not None or (child.type is None and child.stored is not None)
        )

    def child_has_type(self, parent: bytes, id: bytes, type: Type) -> bool:
        """True if `parent` has the child `id` with that type."""
        if not self.child_exists(parent, id):
            return False
        child = self._children[id]
        if child.type is not None:
            return child.type is type
        return child.stored is not None and child.stored.type_tag == type.tag

    def read_setting(self, config: bytes, id: bytes, type: Type) -> Any | None:
        """Return what a configuration says as it was before the transaction; None if there is nothing of that
        type."""
        stored = self._store.find_setting(config, id)
        return None if stored is None or stored.type_tag != type.tag else self._decode_stored(stored, type)

    def borrow_child(self, parent: bytes, id: bytes, type: Type) -> Any | None:
        """Return the live data of a child, None if there is none. Raises `TypeMismatch`."""
        if not self.child_exists(parent, id):
            return None
        child = self._children[id]
        if child.type is None:
            assert child.stored is not None
            if child.stored.type_tag != type.tag:
                raise TypeMismatch(child.stored.type_tag)
            child.data = self._decode_stored(child.stored, type)
            child.type = type
        elif child.type is not type:
            raise TypeMismatch(child.type.tag)
        return child.data

    def add_child(self, parent: bytes, type: Type, data: Any) -> None:
        """Make an object a child of `parent`."""
        id = object_id(data)
        child = self._children.get(id)
        if child is None:
            if len(self._children) >= MAX_CACHED_OBJECTS:
                raise MemoryLimit(CACHED_OBJECTS, f"more than {MAX_CACHED_OBJECTS} dynamic fields touched")
            child = self._children[id] = _Child(parent, None, None, self._store.find_child(parent, id))
            if child.stored is not None:
                self._effects.loaded[id] = child.stored.version
        elif self.child_exists(child.parent, id):
            raise VmLimit("VMInvariantViolation", f"object 0x{id.hex()} is a child already")
        child.parent, child.type, child.data = parent, type, data

    def remove_child(self, parent: bytes, id: bytes, type: Type) -> Any | None:
        """Take a child out of `parent`, None if there is none. Raises `TypeMismatch`."""
        data = self.borrow_child(parent, id, type)
        if data is not None:
            self._children[id].data = None
        return data

    # ---------------------------------------------------------------------------------------------- events

    def emit_event(self, package: bytes, module: str, type: Type, data: Any) -> None:
        """Do `event::emit` of a value while `module` was called. Its size is the value's and its type's name's."""
        events = self._effects.events
        if len(events) >= MAX_EVENTS:
            raise MemoryLimit(EVENTS, f"more than {MAX_EVENTS} events")
        if type.layout_nodes > MAX_LAYOUT_NODES:
            raise VmLimit(
                "VMVerificationOrDeserializationError",
                f"event of a type whose layout has {type.layout_nodes} nodes, {MAX_LAYOUT_NODES} at most",
            )
        if type.nodes > MAX_INSTANCE_NODES:
            raise VmLimit(
                "VMVerificationOrDeserializationError",
                f"event of a type of {type.nodes} parts, {MAX_INSTANCE_NODES} at most",
            )
        size = tag_size(type) + sizer(type)(data)
        if size > MAX_EVENT_SIZE:
            raise MemoryLimit(EVENT_SIZE, f"event of {size} bytes, {MAX_EVENT_SIZE} at most")
        self._events_size += size
        if self._events_size > MAX_EVENTS_SIZE:
            raise MemoryLimit(EVENTS_SIZE, f"events of more than {MAX_EVENTS_SIZE} bytes")
        events.append(EmittedEvent(package, module, type, encode(type, data)))

    # --------------------------------------------------------------------------------------------- outcome

    def collect_effects(self) -> RuntimeEffects:
        """Return what happened so far. Children are compared with what was stored, so only changed ones are named."""
        effects = self._effects
        effects.children, effects.removed_children = {}, {}
        for id, child in self._children.items():
            if child.type is None:
                continue
            stored = child.stored
            if child.data is None:
                if stored is not None:
                    effects.removed_children[id] = None
                continue
            changed = stored is None or stored.type_tag != child.type.tag or self._was_moved(child)
            if changed or stored is None or encode(child.type, child.data) != stored.contents:
                owner = VmOwner(OwnerKind.OBJECT, child.parent)
                effects.children[id] = Transfer(id, owner, Value(child.type, child.data))
        return effects

    def _was_moved(self, child: _Child) -> bool:
        return child.stored is not None and self._store.find_child(child.parent, child.stored.id) is None
