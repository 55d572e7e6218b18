"""Endpoints (address and port) as bytes, and the kind of network that they are in."""

from __future__ import annotations

from enum import IntEnum
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, TypeAlias

#: An IP address as text, without a zone, and a UDP port.
Endpoint: TypeAlias = tuple[str, int]

_REMEMBERED: Final = 8192
_SIZES: Final = {6: 4, 18: 16}


class Scope(IntEnum):
    """The scope of an address: this machine, this network, or everywhere."""

    LOOPBACK = 0
    PRIVATE = 1
    GLOBAL = 2


@lru_cache(maxsize=_REMEMBERED)
def pack_endpoint(endpoint: Endpoint) -> bytes:
    """Return 4 or 16 bytes of address, and 2 of port. Raise `ValueError` for something else than an address."""
    host, port = endpoint
    return _address(host).packed + port.to_bytes(2, "big")


@lru_cache(maxsize=_REMEMBERED)
def unpack_endpoint(data: bytes) -> Endpoint:
    """Return the endpoint that `pack_endpoint` has packed into 6 or 18 bytes. Raise `ValueError` for
    another length.
    """
    size = _SIZES.get(len(data))
    if size is None:
        raise ValueError(f"an endpoint has 6 or 18 bytes, not {len(data)}")
    return str(_address(str(ip_address(data[:size])))), int.from_bytes(data[size:], "big")


@lru_cache(maxsize=_REMEMBERED)
def scope_of(endpoint: Endpoint) -> Scope | None:
    """Return the scope from which the endpoint can be reached; None if nobody can be there (port 0, multicast,
    reserved).
    """
    host, port = endpoint
    try:
        address = _address(host)
    except ValueError:
        return None
    if port == 0 or address.is_multicast or address.is_unspecified or "%" in host:
        return None
    if address.is_loopback:
        return Scope.LOOPBACK
    if address.is_global:
        return Scope.GLOBAL
    return None if address.is_reserved else Scope.PRIVATE


@lru_cache(maxsize=_REMEMBERED)
def subnet_of(endpoint: Endpoint) -> bytes:
    """Return the subnet of a global address, IPv4 /24 or IPv6 /48, which probably has a single owner.

    It is empty for other addresses, of which everybody can have any number.
    """
    if scope_of(endpoint) is not Scope.GLOBAL:
        return b""
    packed = _address(endpoint[0]).packed
    return packed[:3] if len(packed) == 4 else packed[:6]


def may_tell(told: Endpoint, teller: Endpoint) -> bool:
    """True if somebody at `teller` can know of `told`, and `told` means the same there as here.

    So nobody far away can direct us to addresses of our own machine or network.
    """
    there, here = scope_of(told), scope_of(teller)
    return there is not None and here is not None and (there is Scope.GLOBAL or there >= here)


def _address(host: str) -> IPv4Address | IPv6Address:
    address = ip_address(host)
    mapped = getattr(address, "ipv4_mapped", None)  # from a socket for both address families
    return mapped or address
