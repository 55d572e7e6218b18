"""Natives without side effects: numbers, bytes, strings, hashes, type names, `vector` called as functions."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from dtp.localnet.limits import MAX_LAYOUT_NODES, MAX_VECTOR_LENGTH
from dtp.localnet.vm.gas import GasMeter
from dtp.localnet.vm.signals import (
    VECTOR_INDEX_OUT_OF_BOUNDS,
    VECTOR_POP_EMPTY,
    VECTOR_TOO_LONG,
    VECTOR_UNPACK_PARITY,
    NativeAbort,
)
from dtp.localnet.vm.sizes import sizer
from dtp.localnet.vm.tags import plain_name
from dtp.localnet.vm.types import Type
from dtp.localnet.vm.values import encode

__all__ = ["TABLE"]

Types = tuple[Type, ...]

_BASE = 52
_PER_BYTE = 2
_ENCODED_PER_BYTE = 2
_PUSHED_PER_BYTE = 2

_ADDRESS_PARSE_ERROR = 0
_TOO_LARGE_A_TYPE = 453


# --------------------------------------------------------------------------------------------------- bytes


def _bcs_to_bytes(c: GasMeter, types: Types, value: Any) -> bytearray:
    target = types[0]
    if target.layout_nodes > MAX_LAYOUT_NODES:
        c.charge_native(_BASE)
        raise NativeAbort(_TOO_LARGE_A_TYPE)
    data = value if target.is_container else value[0][value[1]]
    out = bytearray(encode(target, data))
    c.charge_native(_ENCODED_PER_BYTE * len(out))
    return out


def _sha2_256(c: GasMeter, _: Types, data: bytearray) -> bytearray:
    c.charge_native(_BASE + _PER_BYTE * max(1, len(data)))
    return bytearray(hashlib.sha256(data).digest())


def _sha3_256(c: GasMeter, _: Types, data: bytearray) -> bytearray:
    c.charge_native(_BASE + _PER_BYTE * max(1, len(data)))
    return bytearray(hashlib.sha3_256(data).digest())


def _check_utf8(c: GasMeter, _: Types, data: bytearray) -> bool:
    c.charge_native(_BASE + _PER_BYTE * len(data))
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_char_boundary(c: GasMeter, _: Types, data: bytearray, at: int) -> bool:
    c.charge_native(_BASE)
    return at == len(data) or (at < len(data) and data[at] & 0xC0 != 0x80)


def _sub_string(c: GasMeter, _: Types, data: bytearray, start: int, end: int) -> bytearray:
    c.charge_native(_BASE + _PER_BYTE * max(0, end - start))
    if end > len(data) or start > end:
        raise NativeAbort(1)
    return data[start:end]


def _index_of(c: GasMeter, _: Types, data: bytearray, sought: bytearray) -> int:
    c.charge_native(_BASE + _PER_BYTE * (len(data) + len(sought)))
    found = data.find(sought)
    return len(data) if found < 0 else found


# ---------------------------------------------------------------------------------------------- type names


def _with_defining_ids(c: GasMeter, types: Types) -> list[Any]:
    return _type_name(c, types[0], original=False)


def _with_original_ids(c: GasMeter, types: Types) -> list[Any]:
    return _type_name(c, types[0], original=True)


def _type_name(c: GasMeter, type: Type, original: bool) -> list[Any]:
    name = plain_name(type, original=original).encode()
    c.charge_native(_BASE + _PER_BYTE * len(name))
    # TypeName { name: ascii::String { bytes } }
    return [[bytearray(name)]]


def _defining_id(c: GasMeter, types: Types) -> bytes:
    c.charge_native(_BASE)
    if types[0].datatype is None:
        raise NativeAbort(0)
    return types[0].datatype.package


def _original_id(c: GasMeter, types: Types) -> bytes:
    c.charge_native(_BASE)
    if types[0].datatype is None:
        raise NativeAbort(0)
    return types[0].datatype.original_package


# ------------------------------------------------------------------------------------------------- address


def _address_to_u256(c: GasMeter, _: Types, address: bytes) -> int:
    c.charge_native(_BASE)
    return int.from_bytes(address, "big")


def _address_from_u256(c: GasMeter, _: Types, number: int) -> bytes:
    c.charge_native(_BASE)
    return number.to_bytes(32, "big")


def _address_from_bytes(c: GasMeter, _: Types, data: bytearray) -> bytes:
    c.charge_native(_BASE)
    if len(data) != 32:
        raise NativeAbort(_ADDRESS_PARSE_ERROR)
    return bytes(data)


# -------------------------------------------------------------------------------------------------- vector
# The compiler turns these into instructions; transactions call them, and they abort where instructions fail.


def _vector_empty(c: GasMeter, types: Types) -> Any:
    c.charge_native(_BASE)
    return bytearray() if types[0].kind == "u8" else []


def _vector_length(c: GasMeter, _: Types, vector: Any) -> int:
    c.charge_native(_BASE)
    return len(vector)


def _vector_borrow(c: GasMeter, types: Types, vector: Any, at: int) -> Any:
    c.charge_native(_BASE)
    if at >= len(vector):
        raise NativeAbort(VECTOR_INDEX_OUT_OF_BOUNDS)
    return vector[at] if types[0].is_container else (vector, at)


def _vector_push_back(c: GasMeter, types: Types, vector: Any, value: Any) -> None:
    c.charge_native(_BASE + _PUSHED_PER_BYTE * sizer(types[0])(value))
    if len(vector) >= MAX_VECTOR_LENGTH:
        raise NativeAbort(VECTOR_TOO_LONG)
    vector.append(value)


def _vector_pop_back(c: GasMeter, _: Types, vector: Any) -> Any:
    c.charge_native(_BASE)
    if not vector:
        raise NativeAbort(VECTOR_POP_EMPTY)
    return vector.pop()


def _vector_destroy_empty(c: GasMeter, _: Types, vector: Any) -> None:
    c.charge_native(_BASE)
    if vector:
        raise NativeAbort(VECTOR_UNPACK_PARITY)


def _vector_swap(c: GasMeter, _: Types, vector: Any, i: int, j: int) -> None:
    c.charge_native(_BASE)
    if i >= len(vector) or j >= len(vector):
        raise NativeAbort(VECTOR_INDEX_OUT_OF_BOUNDS)
    vector[i], vector[j] = vector[j], vector[i]


# --------------------------------------------------------------------------------------------------- debug


def _debug_print(c: GasMeter, types: Types, value: Any) -> None:
    c.session.debug(types[0], value if types[0].is_container else value[0][value[1]])


def _debug_stack(_: GasMeter, __: Types) -> None:
    # There is no console a node could print a stack to; the function exists so that modules link.
    return


TABLE: dict[tuple[int, str, str], Callable[..., Any]] = {
    (1, "bcs", "to_bytes"): _bcs_to_bytes,
    (1, "hash", "sha2_256"): _sha2_256,
    (1, "hash", "sha3_256"): _sha3_256,
    (1, "string", "internal_check_utf8"): _check_utf8,
    (1, "string", "internal_is_char_boundary"): _is_char_boundary,
    (1, "string", "internal_sub_string"): _sub_string,
    (1, "string", "internal_index_of"): _index_of,
    (1, "type_name", "get"): _with_defining_ids,
    (1, "type_name", "get_with_original_ids"): _with_original_ids,
    (1, "type_name", "with_defining_ids"): _with_defining_ids,
    (1, "type_name", "with_original_ids"): _with_original_ids,
    (1, "type_name", "defining_id"): _defining_id,
    (1, "type_name", "original_id"): _original_id,
    (1, "vector", "empty"): _vector_empty,
    (1, "vector", "length"): _vector_length,
    (1, "vector", "borrow"): _vector_borrow,
    (1, "vector", "borrow_mut"): _vector_borrow,
    (1, "vector", "push_back"): _vector_push_back,
    (1, "vector", "pop_back"): _vector_pop_back,
    (1, "vector", "destroy_empty"): _vector_destroy_empty,
    (1, "vector", "swap"): _vector_swap,
    (1, "debug", "print"): _debug_print,
    (1, "debug", "print_stack_trace"): _debug_stack,
    (2, "address", "to_u256"): _address_to_u256,
    (2, "address", "from_u256"): _address_from_u256,
    (2, "address", "from_bytes"): _address_from_bytes,
}
