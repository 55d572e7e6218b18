"""A second decoder of peer records, written from docs/peers.md alone: no msgpack, no PyNaCl, nothing of dtp."""

from __future__ import annotations

from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


def read_record(data: bytes) -> dict[Any, Any]:
    """The map of a record whose signature is right. `ValueError` otherwise."""
    if not 64 < len(data) <= 1100:
        raise ValueError("size")
    body, signature = data[:-64], data[-64:]
    value, end = _read(body, 0)
    if end != len(body) or not isinstance(value, dict):
        raise ValueError("not one map")
    try:
        Ed25519PublicKey.from_public_bytes(value[1]).verify(signature, b"\x0bdtp.peer.v1" + body)
    except InvalidSignature:
        raise ValueError("signature") from None
    return value


def _read(data: bytes, at: int) -> tuple[Any, int]:
    """One MessagePack value (the specification's table of formats, but for floats and extensions)."""
    first = data[at]
    at += 1
    if first < 0x80:
        return first, at
    if first >= 0xE0:
        return first - 0x100, at
    if first < 0x90:
        return _read_map(data, at, first & 0x0F)
    if first < 0xA0:
        return _read_list(data, at, first & 0x0F)
    if first < 0xC0:
        return _take(data, at, first & 0x1F).decode(), at + (first & 0x1F)
    if first in (0xC0, 0xC2, 0xC3):
        return {0xC0: None, 0xC2: False, 0xC3: True}[first], at
    kinds = {0xC4: 1, 0xC5: 2, 0xD9: 1, 0xDA: 2, 0xDC: 2, 0xDE: 2, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8}
    width = kinds[first]
    number, at = int.from_bytes(_take(data, at, width)), at + width
    if first in (0xC4, 0xC5):
        return _take(data, at, number), at + number
    if first in (0xD9, 0xDA):
        return _take(data, at, number).decode(), at + number
    if first == 0xDC:
        return _read_list(data, at, number)
    if first == 0xDE:
        return _read_map(data, at, number)
    return number, at


def _take(data: bytes, at: int, size: int) -> bytes:
    if at + size > len(data):
        raise ValueError("short")
    return data[at : at + size]


def _read_list(data: bytes, at: int, count: int) -> tuple[list[Any], int]:
    found = []
    for _ in range(count):
        value, at = _read(data, at)
        found.append(value)
    return found, at


def _read_map(data: bytes, at: int, count: int) -> tuple[dict[Any, Any], int]:
    found = {}
    for _ in range(count):
        key, at = _read(data, at)
        found[key], at = _read(data, at)
    return found, at
