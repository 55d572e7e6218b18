"""Carrier URLs taken apart, with errors that say what is wrong with them."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from dtp.carriers.errors import CarrierUrlError

_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off"}


@dataclass(frozen=True)
class CarrierUrl:
    """The parts of a carrier URL. `host` is without brackets; `options` is the query with each name once."""

    text: str
    scheme: str
    host: str
    port: int | None
    path: str
    options: dict[str, str]

    def get_flag(self, name: str) -> bool:
        """Return the option `name` as yes or no; no when it isn't there. Raises `CarrierUrlError` for other
        values."""
        value = self.options.get(name, "0").lower()
        if value not in _TRUE | _FALSE:
            raise CarrierUrlError(f"{self.text}: {name} is {value!r}, write {name}=1 or {name}=0")
        return value in _TRUE

    def get_number(self, name: str, default: float) -> float:
        """Return the option `name` as a number of at least 0. Raises `CarrierUrlError` for other values."""
        value = self.options.get(name)
        if value is None:
            return default
        try:
            number = float(value)
        except ValueError:
            number = -1.0
        if not 0 <= number < float("inf"):
            raise CarrierUrlError(f"{self.text}: {name} is {value!r}, write a number of at least 0")
        return number

    def get_integer(self, name: str, default: int, base: int = 10) -> int:
        """Return the option `name` as a whole number of at least 0. Raises `CarrierUrlError` for other values."""
        value = self.options.get(name)
        if value is None:
            return default
        try:
            number = int(value, base)
        except ValueError:
            number = -1
        if number < 0:
            raise CarrierUrlError(f"{self.text}: {name} is {value!r}, write a whole number of at least 0")
        return number


def parse_url(url: str, options: Collection[str] | None) -> CarrierUrl:
    """Take a carrier URL apart.

    `options` are the names the query may have, None for any. Raises `CarrierUrlError` for what is malformed,
    for a user part (an identity belongs into an address, not into a carrier URL) and for unknown or doubled
    options.
    """
    parts = _split(url)
    if not parts.scheme:
        raise CarrierUrlError(f"{url!r} has no scheme; carrier URLs look like tcp://host:port")
    if "@" in parts.netloc:
        # Without the user part in the message: it may be a password.
        where = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        raise CarrierUrlError(f"{where}: a carrier URL has no user part; identities belong into addresses")
    if parts.fragment:
        raise CarrierUrlError(f"{url}: a carrier URL has no fragment (#{parts.fragment})")
    query: dict[str, str] = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if options is not None and name not in options:
            known = ", ".join(sorted(options)) or "none"
            raise CarrierUrlError(f"{url}: unknown option {name!r}; known here: {known}")
        if name in query:
            raise CarrierUrlError(f"{url}: option {name!r} is given twice")
        query[name] = value
    return CarrierUrl(
        text=url,
        scheme=parts.scheme,
        host=unquote(parts.hostname or ""),
        port=parts.port,
        path=parts.path,
        options=query,
    )


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port  # urlsplit looks at the port only when it is asked for
    except ValueError as error:
        raise CarrierUrlError(f"{url!r} is not a URL: {error}") from error
    return parts


def format_host(host: str, port: int) -> str:
    """Return `host:port` as URLs write it: IPv6 addresses in brackets, the `%` of a scope escaped."""
    if ":" in host:
        return f"[{host.replace('%', '%25')}]:{port}"
    return f"{host}:{port}"


def plain_ip(address: Any) -> str:
    """Return the IP address in a socket address (`getpeername`): IPv4 inside IPv6 is given as IPv4, scopes are left
    out, so that one machine is one source. "" for what isn't an IP socket address."""
    if not isinstance(address, tuple):
        return ""
    return _plain_ip(str(address[0]).partition("%")[0])


@lru_cache(maxsize=4096)
def _plain_ip(host: str) -> str:
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return ""
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return str(ip)
