"""The values of settings: durations, sizes, rates, places, callers. Each function raises `Wrong` for what isn't
valid."""

from __future__ import annotations

import importlib.util
import ipaddress
import os
import re
import unicodedata
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import time
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from dtp.carriers.errors import CarrierUrlError
from dtp.carriers.url import parse_url
from dtp.daemon.config.reading import Wrong, did_you_mean, kind_of
from dtp.daemon.state import STORES
from dtp.identity import PeerId, PeerIdError
from dtp.net.address import Address, AddressError, check_service, is_ip_address
from dtp.net.reachable import is_any_url
from dtp.session.limits import LEAST_PADDING, MOST_PADDING

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
#: Other names of units, and ours.
_MEANT = {
    **dict.fromkeys(("sec", "secs", "second", "seconds"), "s"),
    **dict.fromkeys(("min", "mins", "minute", "minutes"), "m"),
    **dict.fromkeys(("hr", "hrs", "hour", "hours"), "h"),
    **dict.fromkeys(("day", "days"), "d"),
    "k": "KiB",
    "m": "MiB",
    "g": "GiB",
    "t": "TiB",
}
_NUMBER_UNIT = re.compile(r"(?P<number>\d+(?:\.\d+)?) ?(?P<unit>[A-Za-z]+)")
_HOST_PORT = re.compile(r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|(?P<host>[^:\[\]/\s]*)):(?P<port>[0-9]{1,5})")
_SUI_ADDRESS = re.compile(r"0x[0-9a-f]{64}")
_ORIGIN = re.compile(
    r"[a-z][a-z0-9+.-]*://[a-z0-9.-]+(?::\d{1,5})?|[a-z][a-z0-9+.-]*://\[[0-9a-f:]+\](?::\d{1,5})?"
)
_HOURS = re.compile(r"(?P<from>\d\d:\d\d) ?- ?(?P<to>\d\d:\d\d)")
#: The most bytes in the path of a Unix socket (Linux's sun_path, without its terminator).
LONGEST_SOCKET = 107
#: A host name: labels of up to 63 bytes (RFC 1035), with "_", which real networks use.
_HOST = re.compile(r"(?:[\w-]{1,63}\.)*[\w-]{1,63}\.?")
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


#: More cores than machines have today.
_MOST_WORKERS = 256


def workers(value: Any) -> int:
    """Return a number of processes: a number, or "auto" for one on each core that this process may use."""
    if value == "auto":
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if isinstance(value, str):
        raise Wrong(f'{value!r} is neither a number nor "auto"')
    return number(1, _MOST_WORKERS)(value)


def text(value: Any) -> str:
    """Return a text that isn't empty and has no control characters."""
    if not isinstance(value, str):
        raise Wrong(f'has to be a text, "...", not {kind_of(value)}')
    if not value.strip():
        raise Wrong("must not be empty")
    control = next((char for char in value if unicodedata.category(char) == "Cc"), None)
    if control is not None:
        raise Wrong(f"has the character {control!a}, which isn't allowed")
    return value


def boolean(value: Any) -> bool:
    """Return true or false."""
    if not isinstance(value, bool):
        raise Wrong(f"has to be true or false, not {kind_of(value)}")
    return value


def number(minimum: int, maximum: int = 2**53) -> Callable[[Any], int]:
    """Return what reads a whole number within bounds."""

    def read(value: Any) -> int:
        if type(value) is not int:
            raise Wrong(f"has to be a whole number, not {kind_of(value)}")
        if not minimum <= value <= maximum:
            bounds = f"at least {minimum}" if value < minimum else f"at most {maximum}"
            raise Wrong(f"{value} has to be {bounds}")
        return value

    return read


def choice(known: Collection[str]) -> Callable[[Any], str]:
    """Return what reads one of some words."""

    def read(value: Any) -> str:
        word = text(value)
        if word not in known:
            raise Wrong(f"there is no {word!r}; {did_you_mean(word, known)}")
        return word

    return read


def duration(value: Any) -> float:
    """Return seconds, from "500ms", "2s", "5m", "1h", "7d" or a number of seconds; above 0."""
    if type(value) in (int, float):
        seconds = float(value)
    else:
        amount, unit = _split(text(value), _SECONDS, 'a time such as "500ms", "2s", "5m", "1h" or "7d"')
        seconds = amount * _SECONDS[unit]
    if not 0 < seconds < 2**31:
        raise Wrong(f"{value} has to be a time above 0")
    return seconds


def size(value: Any) -> int:
    """Return bytes, from "64KiB", "10MB", "1GiB" or a whole number; above 0."""
    if type(value) is int:
        found = value
    else:
        amount, unit = _split(text(value), _BYTES, 'a size such as "64KiB", "10MB" or "1GiB"')
        found = round(amount * _BYTES[unit])
    if found <= 0:
        raise Wrong(f"{value} has to be a size above 0")
    return int(found)


def padding(value: Any) -> int:
    """Return the least length of a record in bytes, from "64B" to "4KiB" or a whole number; 0 for no padding."""
    if type(value) is int and value == 0:
        return 0
    found = size(value)
    if not LEAST_PADDING <= found <= MOST_PADDING:
        raise Wrong(f"{value} is not from {LEAST_PADDING} to {MOST_PADDING} bytes, nor 0 for none")
    return found


def _split(value: str, units: Collection[str], example: str) -> tuple[float, str]:
    match = _NUMBER_UNIT.fullmatch(value)
    if match is None:
        raise Wrong(f"{value!r} is not {example}")
    unit = match["unit"]
    if unit not in units:
        same = [known for known in units if known in (_MEANT.get(unit.lower()), unit)]
        same += [known for known in units if known.lower() == unit.lower()]
        hint = f"did you mean {match['number']}{same[0]}?" if same else f"known here: {', '.join(units)}"
        raise Wrong(f"{value!r} has the unit {unit!r}; {hint}")
    return float(match["number"]), unit


@dataclass(frozen=True, slots=True)
class AllowedRate:
    """An amount of requests or bytes in a number of seconds."""

    amount: float
    seconds: float


def request_rate(value: Any) -> AllowedRate:
    """Return a rate of requests: "100/s", "10/m", "5/10s"."""
    amount, seconds = _per(value, '"100/s" or "10/m"')
    if not amount.isdecimal() or not int(amount):
        raise Wrong(f'{value!r}: {amount!r} has to be a whole number above 0, as in "100/s"')
    return AllowedRate(float(amount), seconds)


def byte_rate(value: Any) -> AllowedRate:
    """Return a rate of bytes: "10MiB/s", "1GB/h"."""
    amount, seconds = _per(value, '"10MiB/s"')
    return AllowedRate(float(size(amount)), seconds)


def _per(value: Any, example: str) -> tuple[str, float]:
    if not isinstance(value, str):
        raise Wrong(f"has to be a text such as {example}, not {kind_of(value)}")
    amount, slash, unit = text(value).partition("/")
    if not slash:
        raise Wrong(f"{value!r} has no time; write it as {example}")
    return amount.strip(), duration(unit if unit[:1].isdigit() else f"1{unit}")


@dataclass(frozen=True, slots=True)
class LocalPlace:
    """Where a program listens on or near this machine: a host and port, or the path of a Unix socket."""

    host: str = ""
    port: int = 0
    path: str = ""

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        if self.path or self.host == "localhost":
            return True
        return is_ip_address(self.host) and ipaddress.ip_address(self.host).is_loopback

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def place(value: Any) -> LocalPlace:
    """Return a place: HOST:PORT, [IPv6]:PORT or unix:/PATH. Port 0 is any free port to listen at."""
    spelled = str(value) if type(value) is int else text(value)
    if spelled.startswith("unix:"):
        path = spelled.removeprefix("unix:")
        if not path.startswith("/") or len(path.encode()) > LONGEST_SOCKET:
            raise Wrong(f"{spelled!r} has to be unix: and an absolute path of at most {LONGEST_SOCKET} bytes")
        return LocalPlace(path=path)
    match = _HOST_PORT.fullmatch(spelled)
    if match is None:
        raise Wrong(f"{spelled!r} {_no_place(spelled)}")
    port = int(match["port"])
    if port > 65535:
        raise Wrong(f"{spelled!r}: there is no port {port}; ports go up to 65535")
    host = match["ipv6"] or match["host"]
    if not host:
        raise Wrong(f"{spelled!r} has no host; did you mean 127.0.0.1:{port}?")
    if not is_ip_address(host) and (not _HOST.fullmatch(host) or host.replace(".", "").isdecimal()):
        raise Wrong(f"{spelled!r}: {host!r} is neither an IP address nor the name of a machine")
    return LocalPlace(host, port)


def _no_place(spelled: str) -> str:
    """Return what is wrong with a text that isn't HOST:PORT."""
    if "://" in spelled:
        return "is a URL; HOST:PORT or unix:/PATH is meant here"
    if spelled.isdecimal():
        return f"has no host; did you mean 127.0.0.1:{spelled}?"
    host, colon, port = spelled.rpartition(":")
    if ":" in host and is_ip_address(host):
        return f"is an IPv6 address without brackets; did you mean [{host}]:{port}?"
    if is_ip_address(spelled.strip("[]")) or (not colon and _HOST.fullmatch(spelled)):
        return "has no port; it is HOST:PORT or [IPv6]:PORT"
    return "is not HOST:PORT, [IPv6]:PORT or unix:/PATH"


def place_of(url: str) -> str:
    """Return where the carrier URL `url` listens, spelt as a `LocalPlace`."""
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return f"unix:{unquote(parts.path)}"
    return f"udp:{parts.netloc}" if parts.scheme == "quic" else parts.netloc


def backend(value: Any) -> LocalPlace:
    """Return a place that can be dialled, see `place`."""
    found = place(value)
    if not found.path and not found.port:
        raise Wrong(f"{value!r}: port 0 can't be dialled")
    return found


#: Carriers with which a daemon can listen.
_LISTENING = ("tcp", "quic", "unix", "ws", "wss")


def carrier_url(value: Any) -> str:
    """Return a URL at which to listen for peers: tcp://HOST:PORT, quic://HOST:PORT, unix:///PATH,
    ws://HOST:PORT/PATH."""
    url = text(value)
    scheme, colon, rest = url.partition("://")
    if not colon:
        name, _, place = url.partition(":")
        own = place if name == "unix" else place.lstrip("/")
        meant = f"{name}://{own}" if name in _LISTENING else f"tcp://{url}"
        raise Wrong(f"{url!r} is not a carrier's URL; did you mean {meant}?")
    if scheme not in _LISTENING:
        raise Wrong(f"there is no carrier {scheme!r}; {did_you_mean(scheme, _LISTENING)}")
    authority = re.split("[/?#]", rest, maxsplit=1)[0]  # paths and queries may have colons
    if scheme != "unix" and authority.count(":") > 1 and "[" not in authority:
        raise Wrong(f"{url!r} has an IPv6 address without brackets; write it as {scheme}://[::1]:9700")
    try:
        parsed = parse_url(url, None)
    except CarrierUrlError as error:
        raise Wrong(str(error)) from None
    if scheme == "quic" and importlib.util.find_spec("qh3") is None:
        raise Wrong(f"{url!r}: QUIC needs the library qh3: pip install 'dtp-sockets[quic]'")
    if scheme != "unix" and parsed.port is None:
        raise Wrong(f"{url!r} has no port; write it as {scheme}://0.0.0.0:9700")
    if scheme == "unix" and not parsed.path.startswith("/"):
        raise Wrong(f"{url!r} has no path; write it as unix:///run/dtpd/peers.sock")
    return url


def endpoint(value: Any) -> str:
    """Return the URL at which others dial this daemon: tcp://HOST:PORT, ws:// or wss://, without options."""
    url = carrier_url(value)
    if not url.startswith(("tcp://", "ws://", "wss://")) or any(mark in url for mark in "?@# "):
        raise Wrong(
            f"{url!r} can't be dialled by others: use tcp://HOST:PORT, ws:// or wss://, without options"
        )
    if is_any_url(url):
        raise Wrong(f"{url!r} can't be dialled by others: give the address that they reach this machine by")
    return url


_MONEY = re.compile(r"(?P<whole>\d+)(?:\.(?P<part>\d{1,9}))? ?SUI|(?P<mist>\d+) ?MIST")


def money(value: Any) -> int:
    """Return an amount: "0.5SUI", "1000MIST", or a number in the coin's smallest unit."""
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 0:
            raise Wrong(f"{value} is less than 0")
        return value
    match = _MONEY.fullmatch(text(value))
    if match is None:
        raise Wrong(f'{value!r} is not an amount: "0.5SUI", "1000MIST", or a number in the smallest unit')
    if match["mist"]:
        return int(match["mist"])
    return int(match["whole"]) * 10**9 + int((match["part"] or "").ljust(9, "0"))


_PERIODS = {"hour": 3600.0, "day": 86400.0, "week": 7 * 86400.0, "month": 30 * 86400.0}
_PER = re.compile(r"(?P<amount>.+?) (?:a|an|per|each) (?P<period>\w+)")


def money_per(value: Any) -> tuple[int, float | None]:
    """Return an amount and the seconds it is for, such as "0.5SUI a day" (hour, week, month of 30 days); the
    seconds are None where no period is given."""
    match = _PER.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        return money(value), None
    period = match["period"]
    if period not in _PERIODS:
        raise Wrong(f"{value!r}: there is no {period!r}; {did_you_mean(period, _PERIODS)}")
    return money(match["amount"]), _PERIODS[period]


def service(value: Any) -> str:
    """Return the name of a service."""
    name = text(value)
    try:
        check_service(name)
    except AddressError as error:
        raise Wrong(str(error)) from None
    return name


def bootstrap(value: Any) -> str:
    """Return the address of a first node: dtp+tcp://dtp1...@HOST:PORT, or HOST:PORT of the DHT."""
    spelled = text(value)
    if "://" not in spelled:
        return str(backend(value))
    found = address(value)
    if not found.is_direct:
        raise Wrong(f"{spelled!r} doesn't say where the node is; write it as dtp+tcp://dtp1...@HOST:PORT")
    return spelled


def relay_place(value: Any) -> str:
    """Return an address at a relay: relay://HOST:PORT?relay=dtp1...&via=quic."""
    from dtp.peers.reach.errors import RelayUrlError
    from dtp.peers.reach.relay_client import RelayPlace

    url = text(value)
    try:
        place = RelayPlace.parse(url)
    except (RelayUrlError, CarrierUrlError) as error:
        raise Wrong(str(error)) from None
    if place.target is not None:
        raise Wrong(f"{url!r}: this is a place of your own machine; leave target out")
    return url


def udp_place(value: Any) -> LocalPlace:
    """Return HOST:PORT for UDP, where the host has to be an IP address."""
    found = place(value)
    if found.path or not is_ip_address(found.host):
        raise Wrong(f"{value!r} has to be an IP address and a port, for UDP")
    return found


def topic(value: Any) -> str:
    """Return the name of a topic."""
    from dtp.gossip.errors import TopicError
    from dtp.gossip.message import check_topic
    from dtp.gossip.sealing import PRIVATE

    name = text(value)
    try:
        check_topic(name)
    except TopicError as error:
        raise Wrong(str(error)) from None
    if name.startswith(PRIVATE):
        raise Wrong(f"{name!r}: names that begin with {PRIVATE!r} are of private topics")
    return name


def address(value: Any) -> Address:
    """Return the address of a service: dtp://dtp1.../service, dtp+tcp://dtp1...@host:port/service."""
    try:
        return Address.parse(text(value))
    except AddressError as error:
        raise Wrong(str(error)) from None


#: Stands in a list of callers for everyone who proves an identity.
EVERYONE = "*"


def caller(value: Any) -> PeerId | str:
    """Return a caller in a list: an identity, a Sui address ("0x" and 64 hex digits), or `EVERYONE`."""
    return EVERYONE if value == EVERYONE else one_caller(value)


def one_caller(value: Any) -> PeerId | str:
    """Return an identity, or a Sui address ("0x" and 64 hex digits)."""
    spelled = text(value)
    if spelled.lower().startswith("0x"):
        if not _SUI_ADDRESS.fullmatch(spelled.lower()):
            raise Wrong(f"{spelled!r} is not a Sui address: that is 0x and 64 hex digits")
        return spelled.lower()
    if not spelled.startswith("dtp1"):
        raise Wrong(f"{spelled!r} is neither an identity (dtp1...) nor a Sui address (0x...)")
    try:
        return PeerId.parse(spelled)
    except PeerIdError as error:
        raise Wrong(str(error)) from None


def origin(value: Any) -> str:
    """Return the origin of a web page (RFC 6454): scheme://host:port, "null" (a file), or "*"."""
    spelled = text(value)
    if spelled not in ("*", "null") and not _ORIGIN.fullmatch(spelled):
        raise Wrong(
            f'{spelled!r} is not an origin such as "https://app.example", "null" (a file) or "*" (any page)'
        )
    return spelled


def collector(value: Any) -> str:
    """Return the base URL of an OTLP collector: http://HOST:PORT."""
    url = text(value)
    _check_port(url, "http://127.0.0.1:4318")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Wrong("has to be the URL of a collector, such as http://127.0.0.1:4318")
    if parts.path.rstrip("/").endswith(("/v1/metrics", "/v1/traces")):
        raise Wrong("has to be the URL without /v1/metrics or /v1/traces: both are asked for")
    return url


def object_id(value: Any) -> str:
    """Return the id of an object on Sui: "0x" and 64 hex digits."""
    spelled = text(value).lower()
    if not _SUI_ADDRESS.fullmatch(spelled):
        raise Wrong(f"{value!r} is not an object id: that is 0x and 64 hex digits")
    return spelled


def state_url(value: Any) -> str:
    """Return a URL at which counts are kept: sqlite:///PATH, redis://HOST:PORT/NUMBER,
    postgresql://USER@HOST/DATABASE."""
    url = text(value)
    scheme, colon, rest = url.partition("://")
    # The rest of the URL isn't quoted: it may have a password.
    if not colon:
        raise Wrong(
            "has to be a URL: sqlite:///PATH, redis://HOST:PORT/NUMBER or postgresql://USER@HOST/DATABASE"
        )
    if scheme not in STORES:
        raise Wrong(f"there is no state {scheme[:20]!r}; {did_you_mean(scheme, list(STORES))}")
    if scheme == "sqlite":
        if not rest.startswith("/"):
            raise Wrong("sqlite takes an absolute path, as in sqlite:///var/lib/dtpd/state.db")
        return url
    return _server(url)


def _server(url: str) -> str:
    """Return the URL of a server, which has to have a host. It isn't quoted in messages, since it may have a
    password."""
    _check_port(url, "redis://127.0.0.1:6379/0")
    database = urlsplit(url).path.strip("/")
    if url.startswith("redis") and database and not database.isdecimal():
        raise Wrong("a database of Redis is a number, as in redis://127.0.0.1:6379/0")
    return url


def _check_port(url: str, example: str) -> None:
    try:
        port = urlsplit(url).port
    except ValueError:
        raise Wrong(f"the URL's host and port can't be told; they are as in {example}") from None
    if port == 0:
        raise Wrong("port 0 can't be dialled")


def database_or(file: Callable[[Any], Path]) -> Callable[[Any], Path | str]:
    """Return what reads the URL of a PostgreSQL database or a Redis server; anything else is read by `file`."""

    def read(value: Any) -> Path | str:
        named = text(value)
        if named.startswith(("postgresql://", "redis://", "rediss://")):
            return _server(named)
        if "://" in named:
            # The value isn't quoted: it may have a password.
            raise Wrong("a file is meant, or postgresql://USER@HOST/DATABASE, or redis://HOST:PORT/NUMBER")
        return file(value)

    return read


def days(value: Any) -> frozenset[int]:
    """Return days of the week, 0 for Monday: "mon-fri", "sat,sun"."""
    found: set[int] = set()
    for part in text(value).replace(" ", "").lower().split(","):
        first, dash, last = part.partition("-")
        for word in (first, last) if dash else (first,):
            if word not in _DAYS:
                raise Wrong(f"there is no day {word!r}; {did_you_mean(word, _DAYS)}")
        begin, end = _DAYS.index(first), _DAYS.index(last if dash else first)
        found.update((begin + step) % 7 for step in range((end - begin) % 7 + 1))
    return frozenset(found)


def hours(value: Any) -> tuple[time, time]:
    """Return a part of the day: "08:00-18:00"; "22:00-06:00" spans midnight."""
    match = _HOURS.fullmatch(text(value))
    try:
        if match is None:
            raise ValueError
        end = "00:00" if match["to"] == "24:00" else match["to"]
        return time.fromisoformat(match["from"]), time.fromisoformat(end)
    except ValueError:
        raise Wrong(f'{value!r} is not a part of the day such as "08:00-18:00"') from None


def zone(value: Any) -> ZoneInfo:
    """Return a time zone by its IANA name."""
    try:
        return ZoneInfo(text(value))
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise Wrong(f'there is no time zone {value!r}; names are like "Europe/Berlin" or "UTC"') from None
