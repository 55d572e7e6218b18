"""Natives that touch objects, events and the transaction: `object`, `transfer`, `dynamic_field`, `event`,
`tx_context`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from dtp.localnet.limits import MAX_LAYOUT_NODES, READ_COST_PER_BYTE
from dtp.localnet.vm.contract import OwnerKind, TxData, VmOwner
from dtp.localnet.vm.gas import GasMeter
from dtp.localnet.vm.objects import TypeMismatch
from dtp.localnet.vm.signals import NativeAbort, VmLimit
from dtp.localnet.vm.sizes import REFERENCE_SIZE, STRUCT_SIZE, TAG_SIZE, sizer, tag_size, type_size
from dtp.localnet.vm.tags import tag_bcs
from dtp.localnet.vm.types import Type
from dtp.localnet.vm.values import encode
from dtp.sui.objects import fresh_object_id

__all__ = ["TABLE", "dynamic_field_id"]

Types = tuple[Type, ...]

_BASE = 52
_TX_BASE = 30
# What natives of dynamic fields cost for each part of a type, byte of a type's name, and byte of a value.
_HASH_TYPE, _HASH_NAME, _HASH_VALUE = 2, 2, 2
_ADD_TYPE, _ADD_NAME = 10, 10
_BORROW_TYPE, _REMOVE_TYPE, _HAS_TYPE, _HAS_NAME = 10, 2, 2, 2
_SETTING_BASE, _SETTING_PER_BYTE = 100, 40
# What measuring and writing cost for each byte of an event, and of its type's name.
_EVENT_PER_BYTE = 12
_EVENT_TAG_PER_BYTE = 15
_WITNESS_TYPE, _WITNESS_NAME = 2, 2

# std codes of sui::transfer and sui::dynamic_field
_SHARED_NON_NEW_OBJECT = 0
_RECEIVING_TYPE_MISMATCH = 2
_UNABLE_TO_RECEIVE = 3
_FIELD_DOES_NOT_EXIST = 1
_FIELD_TYPE_MISMATCH = 2
# A type whose layout has too many nodes has no BCS.
_FIELD_WITHOUT_BCS = 3
_RECEIVED_WITHOUT_BCS = 1
_SETTING_WITHOUT_BCS = 2

_CHILD_SCOPE = b"\xf0"
_ALL_PERMISSIONS = 0b1111


def dynamic_field_id(parent: bytes, key_type: Type, key: Any) -> bytes:
    """Return the id of the `Field` object of `parent` under a key."""
    return _field_id(parent, key_type, encode(key_type, key))


def _field_id(parent: bytes, key_type: Type, data: bytes) -> bytes:
    body = _CHILD_SCOPE + parent + len(data).to_bytes(8, "little") + data + tag_bcs(key_type)
    return hashlib.blake2b(body, digest_size=32).digest()


# -------------------------------------------------------------------------------------------------- object


def _borrow_uid(c: GasMeter, _: Types, object: list[Any]) -> Any:
    c.charge_native(_BASE)
    return object[0]


def _delete(c: GasMeter, _: Types, id: bytes) -> None:
    c.charge_native(_BASE)
    c.session.objects.delete_id(id)


def _record_new(c: GasMeter, _: Types, id: bytes) -> None:
    c.charge_native(_BASE)
    c.session.objects.new_id(id)


# ------------------------------------------------------------------------------------------------ transfer


def _transfer(c: GasMeter, types: Types, data: Any, recipient: bytes) -> None:
    c.charge_native(_BASE)
    c.session.objects.transfer_object(VmOwner(OwnerKind.ADDRESS, recipient), types[0], data)


def _freeze(c: GasMeter, types: Types, data: Any) -> None:
    c.charge_native(_BASE)
    c.session.objects.transfer_object(VmOwner(OwnerKind.IMMUTABLE), types[0], data)


def _share(c: GasMeter, types: Types, data: Any) -> None:
    c.charge_native(_BASE)
    if not c.session.objects.transfer_object(VmOwner(OwnerKind.SHARED), types[0], data):
        raise NativeAbort(_SHARED_NON_NEW_OBJECT)


def _party_transfer(
    c: GasMeter, types: Types, data: Any, default: int, members: list[bytes], rights: list[int]
) -> None:
    c.charge_native(_BASE)
    if default != 0 or rights != [_ALL_PERMISSIONS] or len(members) != 1:
        raise VmLimit("VMInvariantViolation", "a party has exactly one member with all permissions")
    c.session.objects.transfer_object(VmOwner(OwnerKind.CONSENSUS_ADDRESS, members[0]), types[0], data)


def _receive(c: GasMeter, types: Types, parent: bytes, id: list[Any], version: int) -> Any:
    c.charge_native(_BASE)
    _check_layout(types[0], _RECEIVED_WITHOUT_BCS)
    try:
        data = c.session.objects.receive_object(parent, id[0], version, types[0])
    except TypeMismatch:
        raise NativeAbort(_RECEIVING_TYPE_MISMATCH) from None
    if data is None:
        raise NativeAbort(_UNABLE_TO_RECEIVE)
    return data


# ------------------------------------------------------------------------------------------- dynamic_field


def _check_layout(type: Type, code: int) -> None:
    if type.layout_nodes > MAX_LAYOUT_NODES:
        raise NativeAbort(code)


def _hash_type_and_key(c: GasMeter, types: Types, parent: bytes, key: Any) -> bytes:
    type = types[0]
    name = TAG_SIZE + tag_size(type)
    size = sizer(type)(key)
    c.charge_native(_BASE + _HASH_TYPE * type_size(type) + _HASH_NAME * name + _HASH_VALUE * size)
    _check_layout(type, _FIELD_WITHOUT_BCS)
    return _field_id(parent, type, encode(type, key))


def _fetching(c: GasMeter) -> int:
    """Return what the children cost that this native had read from the store."""
    return READ_COST_PER_BYTE * int(c.session.objects.fetched_bytes())


def _add_child(c: GasMeter, types: Types, parent: bytes, child: Any) -> None:
    type = types[0]
    # The value is there already, whatever its size.
    c.charge_native(_BASE + STRUCT_SIZE + _ADD_TYPE * type_size(type) + _ADD_NAME * tag_size(type))
    c.session.objects.add_child(parent, type, child)


def _borrow_child(c: GasMeter, types: Types, parent: list[Any], id: bytes) -> Any:
    type, objects = types[0], c.session.objects
    cost, known = _BASE + _BORROW_TYPE * type_size(type), objects.is_read(id)
    _check_layout(type, _FIELD_WITHOUT_BCS)
    try:
        data = objects.borrow_child(parent[0][0], id, type)
    except TypeMismatch:
        c.charge_native(cost)
        raise NativeAbort(_FIELD_TYPE_MISMATCH) from None
    if data is None:
        c.charge_native(cost)
        raise NativeAbort(_FIELD_DOES_NOT_EXIST)
    c.charge_native(cost + _fetching(c) + REFERENCE_SIZE + (0 if known else sizer(type)(data)))
    return data


def _remove_child(c: GasMeter, types: Types, parent: bytes, id: bytes) -> Any:
    type, objects = types[0], c.session.objects
    cost, known = _BASE + _REMOVE_TYPE * type_size(type), objects.is_read(id)
    _check_layout(type, _FIELD_WITHOUT_BCS)
    try:
        data = objects.remove_child(parent, id, type)
    except TypeMismatch:
        c.charge_native(cost)
        raise NativeAbort(_FIELD_TYPE_MISMATCH) from None
    if data is None:
        c.charge_native(cost)
        raise NativeAbort(_FIELD_DOES_NOT_EXIST)
    c.charge_native(cost + _fetching(c) + (STRUCT_SIZE if known else sizer(type)(data)))
    return data


def _has_child(c: GasMeter, _: Types, parent: bytes, id: bytes) -> bool:
    found = c.session.objects.child_exists(parent, id)
    c.charge_native(_BASE + _fetching(c))
    return found  # type: ignore[no-any-return]


def _has_child_with_type(c: GasMeter, types: Types, parent: bytes, id: bytes) -> bool:
    type = types[0]
    found = c.session.objects.child_has_type(parent, id, type)
    c.charge_native(_BASE + _HAS_TYPE * type_size(type) + _HAS_NAME * tag_size(type) + _fetching(c))
    return found  # type: ignore[no-any-return]


# -------------------------------------------------------------------------------------------------- config


def _read_setting(c: GasMeter, types: Types, config: bytes, id: bytes, epoch: int) -> Any:
    """Return what a setting is in this epoch: whatever was set in it counts from the next one on."""
    c.charge_native(_SETTING_BASE)
    _check_layout(types[0], _SETTING_WITHOUT_BCS)
    field = c.session.objects.read_setting(config, id, types[0])
    value: list[Any] = [[]]
    if field is not None:
        (setting,) = field[2]
        for since, newer, older in setting[0]:  # one, or none
            value = newer if since < epoch else older
    size = STRUCT_SIZE + sum(map(sizer(types[3]), value[0]))
    c.charge_native(_SETTING_PER_BYTE * size)
    return value


# -------------------------------------------------------------------------------------------------- events


def _emit(c: GasMeter, types: Types, event: Any) -> None:
    session, type = c.session, types[0]
    name, size = tag_size(type), sizer(type)(event)
    c.charge_native(_BASE + _EVENT_PER_BYTE * size + _EVENT_TAG_PER_BYTE * name)
    session.objects.emit_event(session.package, session.module, type, event)


# ---------------------------------------------------------------------------------------------- tx_context


def _tx(c: GasMeter) -> TxData:
    c.charge_native(_TX_BASE)
    return c.session.tx  # type: ignore[no-any-return]


def _derive_id(c: GasMeter, _: Types, digest: bytearray, index: int) -> bytes:
    c.charge_native(_BASE)
    return fresh_object_id(bytes(digest), index)


def _fresh_id(c: GasMeter, _: Types) -> bytes:
    c.charge_native(_BASE)
    tx = c.session.tx
    id = fresh_object_id(tx.digest, tx.ids_created)
    tx.ids_created += 1
    c.session.objects.new_id(id)
    return id


def _sponsor(c: GasMeter, _: Types) -> list[bytes]:
    sponsor = _tx(c).sponsor
    return [] if sponsor is None else [sponsor]


def _is_one_time_witness(c: GasMeter, types: Types, _: Any) -> bool:
    name = TAG_SIZE + tag_size(types[0])
    c.charge_native(_BASE + _WITNESS_NAME * name + _WITNESS_TYPE * type_size(types[0]))
    datatype = types[0].datatype
    # Its name is that of its module; publishing saw to it that then it is a witness or that nobody can tell it is.
    return (
        datatype is not None
        and not datatype.is_enum
        and datatype.name == datatype.module.upper()
        and [f.kind for f in types[0].fields] == ["bool"]
    )


TABLE: dict[tuple[int, str, str], Callable[..., Any]] = {
    (2, "object", "borrow_uid"): _borrow_uid,
    (2, "object", "delete_impl"): _delete,
    (2, "object", "record_new_uid"): _record_new,
    (2, "transfer", "transfer_impl"): _transfer,
    (2, "transfer", "freeze_object_impl"): _freeze,
    (2, "transfer", "share_object_impl"): _share,
    (2, "transfer", "party_transfer_impl"): _party_transfer,
    (2, "transfer", "receive_impl"): _receive,
    (2, "dynamic_field", "hash_type_and_key"): _hash_type_and_key,
    (2, "dynamic_field", "add_child_object"): _add_child,
    (2, "dynamic_field", "borrow_child_object"): _borrow_child,
    (2, "dynamic_field", "borrow_child_object_mut"): _borrow_child,
    (2, "dynamic_field", "remove_child_object"): _remove_child,
    (2, "dynamic_field", "has_child_object"): _has_child,
    (2, "dynamic_field", "has_child_object_with_ty"): _has_child_with_type,
    (2, "config", "read_setting_impl"): _read_setting,
    (2, "event", "emit"): _emit,
    (2, "tx_context", "native_sender"): lambda c, _: _tx(c).sender,
    (2, "tx_context", "native_epoch"): lambda c, _: _tx(c).epoch,
    (2, "tx_context", "native_epoch_timestamp_ms"): lambda c, _: _tx(c).epoch_timestamp_ms,
    (2, "tx_context", "native_rgp"): lambda c, _: _tx(c).reference_gas_price,
    (2, "tx_context", "native_gas_price"): lambda c, _: _tx(c).gas_price,
    (2, "tx_context", "native_gas_budget"): lambda c, _: _tx(c).gas_budget,
    (2, "tx_context", "native_ids_created"): lambda c, _: _tx(c).ids_created,
    (2, "tx_context", "native_sponsor"): _sponsor,
    (2, "tx_context", "fresh_id"): _fresh_id,
    (2, "tx_context", "derive_id"): _derive_id,
    (2, "types", "is_one_time_witness"): _is_one_time_witness,
}
