"""Addresses: URLs whose user part says who has to answer. `docs/addresses.md` is the reference.

Parsed here by RFC 3986 and not by `urllib.parse.urlsplit`, which drops tabs and newlines, takes what is no
URL and can't say where a mistake is.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal
from urllib.parse import quote, unquote_to_bytes

from dtp.carriers.nearness import Nearness
from dtp.errors import LocalError
from dtp.identity import PeerId, PeerIdError
from dtp.unicode import encode_text

#: A service's name has at most this many bytes of UTF-8: the handshake counts them in one byte.
MAX_SERVICE_SIZE = 255
#: More than any address that is meant has; keeps what is pasted by mistake out of error messages.
MAX_ADDRESS_LENGTH = 4096


@dataclass(frozen=True)
class Form:
    """A row of `FORMS`: what an address of one scheme is made of besides the identity."""

    #: The scheme of the carrier's URL; None if a resolver has to find one.
    carrier: str | None
    #: "host": the carrier goes to a host and the path of the URL names the service.
    #: "path": the carrier goes to a path of the file system, so the option `service` names the service.
    #: "none": resolved; the path of the URL names the service.
    place: Literal["host", "path", "none"]
    #: Whether a host needs a port (otherwise its carrier has a default).
    needs_port: bool = False
    #: Whether the carrier itself has a path on its host, given by the option `path`.
    has_path: bool = False
    #: Whether the host is a host object on Sui instead of a machine.
    on_chain: bool = False
    #: Whether the carrier has to know whom it leads to: its URL has the identity as `target`.
    names_peer: bool = False
    #: Whether it is dialled because somebody else tells of it. If not, it is of this machine, or costs money.
    told: bool = True


#: The schemes. A carrier that is new adds a line.
FORMS: Mapping[str, Form] = MappingProxyType(
    {
        "dtp": Form(carrier=None, place="none"),
        "dtp+memory": Form(carrier="memory", place="host"),
        "dtp+pipe": Form(carrier="pipe", place="host", on_chain=True, told=False),
        "dtp+quic": Form(carrier="quic", place="host", needs_port=True),
        "dtp+relay": Form(carrier="relay", place="host", names_peer=True),
        "dtp+tcp": Form(carrier="tcp", place="host", needs_port=True),
        "dtp+unix": Form(carrier="unix", place="path", told=False),
        "dtp+ws": Form(carrier="ws", place="host", has_path=True),
        "dtp+wss": Form(carrier="wss", place="host", has_path=True),
    }
)
_SCHEME_OF_CARRIER = {form.carrier: scheme for scheme, form in FORMS.items() if form.carrier}

_URL = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*):"
    r"(?://(?P<authority>[^/?#]*))?(?P<path>[^?#]*)(?:\?(?P<query>[^#]*))?(?P<fragment>#.*)?",
    re.DOTALL,
)
#: A label of a host name; also with '_', which service names in DNS have. The last may end in a dot.
_HOST_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_ZONE = re.compile(r"[A-Za-z0-9._~-]+")
_OBJECT_ID = re.compile(r"0x[0-9a-f]{64}")
#: A name out of a peer table. No upper case, since URLs fold it; dots, since other systems' names have them.
_PETNAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
#: Options with this in front belong to the carrier and go into its URL without it.
CARRIER_OPTION = "carrier."
#: Those that name what is on this machine: a file, reading which may never end, and a proxy that is dialled. Nobody
#: else chooses these (`dtp.carriers.websocket` has them, and resolved addresses hand them on).
_OWN_OPTIONS = frozenset({"carrier.ca", "carrier.proxy"})
_OPTION_NAME = re.compile(r"(carrier\.)?[a-z][a-z0-9_-]*")
_BAD_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
# RFC 3986, 3.3 and 3.4: what may stand unescaped; '+' is left out since many readers take it for a space.
_SAFE_IN_PATH = "/!$'()*,;:@~"
_SAFE_IN_QUERY = "/!$'()*,;:@~?"


class AddressError(LocalError, ValueError):
    """A text is not an address or can't be used as one; the message says where and what may have been meant."""

    code = "address"


@dataclass(frozen=True, slots=True)
class Address:
    """Whom to reach, by which carrier, for which service. Immutable, hashable; `str` and `parse` are inverse.

    Direct addresses have a `peer` and a place to dial. Resolved ones (`dtp:`) have exactly one of `peer`,
    `host_object` and `name`, which a resolver turns into direct ones. Whatever is built is checked:
    `AddressError`.
    """

    #: A key of `FORMS`.
    scheme: str
    #: Who has to answer. None only for a resolved address by host object or by name.
    peer: PeerId | None = None
    #: Name or IP address (IPv6 without brackets) for carriers that have hosts, else "".
    host: str = ""
    #: 1 to 65535, or None for the carrier's default.
    port: int | None = None
    #: Absolute path of a Unix socket, or of the WebSocket on its host ("" is the same as "/"), else "".
    path: str = ""
    #: The name of the service, at most `MAX_SERVICE_SIZE` bytes of UTF-8; "" is the listener's default one.
    service: str = ""
    #: Id of a host object on Sui, "0x" and 64 lower-case hex digits.
    host_object: str | None = None
    #: A name out of a peer table.
    name: str | None = None
    #: Options besides those that belong to the form, in order.
    query: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        form = FORMS.get(self.scheme)
        if form is None:
            raise AddressError(f"there is no scheme {self.scheme!r}; known: {', '.join(FORMS)}")
        _check_target(self, form)
        _check_place(self, form)
        check_service(self.service)
        _check_query(self, form)
        # Host names have no case; the zone of an IPv6 address ("%eth0") has.
        host, percent, zone = self.host.partition("%")
        object.__setattr__(self, "host", host.lower() + percent + zone)

    @classmethod
    def parse(cls, text: str, *, peer: PeerId | None = None) -> Address:
        """Return the address that `text` spells.

        With `peer` a direct address may leave its identity out, and may not have another one: that is how a
        peer table writes where a known peer is. Raises `AddressError`.
        """
        return _Parser(text).parse(peer)

    @classmethod
    def of(cls, address: str | Address) -> Address:
        """Return the address that `address` is or spells. Raises `AddressError`, and `TypeError` for anything
        else."""
        if isinstance(address, str):
            return cls.parse(address)
        if not isinstance(address, Address):
            raise TypeError(f"an address is a str or a dtp.Address, not {type(address).__name__}")
        return address

    @classmethod
    def direct(cls, peer: PeerId, carrier_url: str, service: str = "") -> Address:
        """Return the address of `service` of `peer` at a carrier's URL, such as `CarrierListener.urls` has.

        The URL's options become options of the carrier. Raises `AddressError` for a URL of no known carrier.
        """
        carrier, _, rest = carrier_url.partition("://")
        scheme = _SCHEME_OF_CARRIER.get(carrier)
        if scheme is None:
            raise AddressError(
                f"{carrier_url!r} is of no carrier in addresses: {', '.join(_SCHEME_OF_CARRIER)}"
            )
        place, _, query = rest.partition("?")
        path = ""
        if FORMS[scheme].has_path:
            place, slash, path = place.partition("/")
            path = _decode(slash + path)
        address = cls.parse(f"{scheme}://{place}", peer=peer)
        pairs = _split_query(query)
        if FORMS[scheme].names_peer and (target := _take(pairs, "target")) not in ("", str(peer)):
            raise AddressError(f"{carrier_url!r} leads to {target}, but {peer} is meant")
        options = tuple((CARRIER_OPTION + name, value) for name, value in pairs)
        return replace(address, path=path or address.path, service=service, query=options)

    @property
    def carrier_url(self) -> str:
        """What the carrier dials: `tcp://host:port`, `unix:///path`, `ws://host/path`, with its options.

        Raises `AddressError` for a resolved address.
        """
        form = FORMS[self.scheme]
        if form.carrier is None:
            raise AddressError(f"{self} names no place to dial; a resolver has to find one")
        where = "" if form.place == "path" else _join_host(self)
        pairs = [(n.removeprefix(CARRIER_OPTION), v) for n, v in self.query if n.startswith(CARRIER_OPTION)]
        if form.names_peer:
            pairs.append(("target", str(self.peer)))
        return f"{form.carrier}://{where}{quote(self.path, safe=_SAFE_IN_PATH)}{_join_query(pairs)}"

    @property
    def nearness(self) -> Nearness:
        """How near the place is that is dialled, as far as that is known without a look-up."""
        form = FORMS[self.scheme]
        if form.carrier == "memory":
            return Nearness.PROCESS
        return Nearness.MACHINE if form.place == "path" else Nearness.of_host(self.host)

    @property
    def costs_money(self) -> bool:
        """Whether it leads through the chain, where each message costs whoever dials it."""
        return FORMS[self.scheme].on_chain

    @property
    def is_direct(self) -> bool:
        """Whether it says where to dial, so that no resolver is needed."""
        return FORMS[self.scheme].carrier is not None

    @property
    def options(self) -> Mapping[str, str]:
        """The options for the connection, read-only; those of the carrier and of the form are not in it."""
        return MappingProxyType({n: v for n, v in self.query if not n.startswith(CARRIER_OPTION)})

    def check_options(self, known: Collection[str]) -> None:
        """Raise `AddressError` for an option that is not in `known`: a misspelt one must not be ignored."""
        for name in self.options:
            if name not in known:
                import difflib

                near = difflib.get_close_matches(name, known, n=1)
                hint = (
                    f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(known)) or 'none'}"
                )
                raise AddressError(f"{self}: there is no option {name!r}; {hint}")

    def with_service(self, service: str) -> Address:
        """Return the same address for another service."""
        return replace(self, service=service)

    def __str__(self) -> str:
        form = FORMS[self.scheme]
        pairs = list(self.query)
        if form.place == "path":
            where, path = f"{self.peer}@", self.path
            if self.service:
                pairs.insert(0, ("service", self.service))
        else:
            where = f"{self.peer}@{_join_host(self)}" if form.place == "host" else _target(self)
            path = f"/{self.service}" if self.service else ""
            if self.path:
                pairs.insert(0, ("path", self.path))
        return f"{self.scheme}://{where}{quote(path, safe=_SAFE_IN_PATH)}{_join_query(pairs)}"


def is_dialled_as_told(told: str | Address, teller: Nearness = Nearness.PROCESS) -> bool:
    """Return whether an address is dialled because somebody else tells of it, such as a neighbour or a card.

    False for one of this machine, also where it names a file or a proxy there, or stands in the peer table there; for
    one through the chain, which would cost whoever dials it money; and for a place that is nearer than `teller`: what
    is in this network is no business of a stranger on the internet.
    """
    try:
        address = Address.of(told)
    except AddressError:  # it leads nowhere: who dials it is told why
        return True
    return (
        FORMS[address.scheme].told
        and address.name is None
        and _OWN_OPTIONS.isdisjoint(name for name, _ in address.query)
        and address.options.get("via", "direct") == "direct"
        and address.nearness >= teller
    )


def check_told(told: str | Address) -> None:
    """Raise `AddressError` for an address that `is_dialled_as_told` is false for, whoever tells of it."""
    if not is_dialled_as_told(told):
        raise AddressError(
            f"{told} was told by somebody else, and is of this machine, uses what is on it, or costs money to dial: "
            "dial it yourself if that is meant"
        )


def check_service(name: str) -> None:
    """Raise `AddressError` unless `name` can name a service.

    At most 255 bytes of UTF-8 in normal form C (or two spellings of "é" would be two services), no control
    characters, no space at the ends. "/" may be in it ("db/replica") but not begin it. "" is the default one.
    """
    size = len(encode_text(name, f"the service {name!r}", AddressError))
    if size > MAX_SERVICE_SIZE:
        raise AddressError(
            f"the service {name[:20]!r}... has {size} bytes of UTF-8; at most {MAX_SERVICE_SIZE}"
        )
    if any(unicodedata.category(char) in ("Cc", "Zl", "Zp") for char in name):
        raise AddressError(f"the service {name!r} has a control character")
    if name != name.strip() or name.startswith("/"):
        raise AddressError(f"the service {name!r} must not begin or end with a space, nor begin with '/'")
    if not unicodedata.is_normalized("NFC", name):
        raise AddressError(f"the service {name!r} is not in Unicode normal form C")


def check_petname(name: str) -> None:
    """Raise `AddressError` unless `name` can stand for a peer in a peer table and in `dtp://name/`."""
    if name.startswith(("dtp1", "0x")):
        raise AddressError(f"the name {name!r} looks like an identity or an object id; choose another")
    if is_ip_address(name):
        raise AddressError(
            f"{name!r} is an IP address, not a peer; did you mean dtp+tcp://dtp1...@{name}:port?"
        )
    if not _PETNAME.fullmatch(name):
        raise AddressError(
            f"the name {name!r} can't stand for a peer: use at most 63 of a-z, 0-9, '-', '_' and '.', "
            "a letter or digit first"
        )


def is_ip_address(text: str) -> bool:
    """True if `text` is an IP address rather than a name."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _check_target(address: Address, form: Form) -> None:
    targets = [address.peer, address.host_object, address.name]
    if form.place != "none":
        if address.peer is None or targets.count(None) != 2:
            raise AddressError(f"a {address.scheme} address needs a peer, and no host object or name")
        return
    if targets.count(None) != 2:
        raise AddressError("a dtp address needs exactly one of peer, host_object and name")
    if address.host_object is not None and not _OBJECT_ID.fullmatch(address.host_object):
        raise AddressError(f"{address.host_object!r} is not an object id: that is '0x' and 64 hex digits")
    if address.name is not None:
        check_petname(address.name)


def _check_place(address: Address, form: Form) -> None:
    if form.on_chain:
        if not _OBJECT_ID.fullmatch(address.host.lower()) or address.port is not None:
            raise AddressError(
                f"a {address.scheme} address needs a host object, '0x' and 64 hex digits, and no port"
            )
    elif form.place == "host":
        _check_host(address.host)
        if address.port is None and form.needs_port:
            raise AddressError(
                f"a {address.scheme} address needs a port after the host, as in {address.host}:9000"
            )
        if address.port is not None and not 0 < address.port < 65536:
            raise AddressError(f"there is no port {address.port}; ports are 1 to 65535")
    elif address.host or address.port is not None:
        raise AddressError(f"a {address.scheme} address has no host and port")
    if form.place == "path" and len(address.path) < 2:
        raise AddressError(
            f"a {address.scheme} address needs the absolute path of a socket, as in /run/dtp.sock"
        )
    if address.path and not (form.place == "path" or form.has_path):
        raise AddressError(f"a {address.scheme} address has no path besides the service")
    if address.path and not address.path.startswith("/"):
        raise AddressError(f"the path {address.path!r} has to start with '/'")
    if any(unicodedata.category(char) in ("Cc", "Cs") for char in address.path):
        raise AddressError(f"the path {address.path!r} has a character that can't be in one")


def _check_host(host: str) -> None:
    if not host:
        raise AddressError("there is no host; put one, as in 127.0.0.1:9000 or [::1]:9000")
    if ":" in host:
        number, percent, zone = host.partition("%")
        try:
            ipaddress.IPv6Address(number)
        except ValueError as error:
            raise AddressError(f"{host!r} is not an IPv6 address: {error}") from None
        if percent and not _ZONE.fullmatch(zone):
            raise AddressError(
                f"{host!r} has the zone {zone!r}; an interface is named after '%', as in %eth0"
            )
    elif not host.isascii():
        raise AddressError(f"the host {host!r} is not ASCII; write it as the name server knows it (xn--...)")
    elif len(host) > 253 or not all(map(_HOST_LABEL.fullmatch, host.lower().removesuffix(".").split("."))):
        raise AddressError(f"{host!r} is neither a host name nor an IP address")


def _check_query(address: Address, form: Form) -> None:
    own = {"service"} if form.place == "path" else {"path"} if form.has_path else set()
    names = [name for name, _ in address.query]
    for name, value in address.query:
        if not _OPTION_NAME.fullmatch(name):
            raise AddressError(
                f"an option can't be called {name!r}; use a-z, 0-9, '-' and '_', a letter first"
            )
        if name in own:
            raise AddressError(f"{name!r} is a part of a {address.scheme} address, not an option")
        if names.count(name) > 1:
            raise AddressError(f"the option {name!r} is given twice")
        encode_text(value, f"the option {name!r}", AddressError)


def _target(address: Address) -> str:
    return str(address.peer or address.host_object or address.name)


def _join_query(pairs: list[tuple[str, str]]) -> str:
    query = "&".join(f"{name}={quote(value, safe=_SAFE_IN_QUERY)}" for name, value in pairs)
    return f"?{query}" if query else ""


def _join_host(address: Address) -> str:
    host = address.host
    if ":" in host:
        host = f"[{host.replace('%', '%25')}]"  # RFC 6874: the zone of a link-local address
    return host if address.port is None else f"{host}:{address.port}"


def _decode(text: str) -> str:
    """Undo percent-encoding; `AddressError` for a lone '%' and for what is not UTF-8."""
    if bad := _BAD_PERCENT.search(text):
        raise AddressError(
            f"the '%' in {text!r} (character {bad.start() + 1}) needs two hex digits; '%' itself is %25"
        )
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        raise AddressError(f"{text!r} does not decode to UTF-8") from None


def _split_query(query: str) -> list[tuple[str, str]]:
    pairs = []
    for part in query.split("&") if query else []:
        name, equals, value = part.partition("=")
        if not equals:
            raise AddressError(f"the option {part!r} has no value; write {part or 'name'}=...")
        pairs.append((name, _decode(value)))
    return pairs


class _Parser:
    """Takes one text apart."""

    def __init__(self, text: str) -> None:
        if not isinstance(text, str):
            raise AddressError(f"an address is a str, not {type(text).__name__}")
        if len(text) > MAX_ADDRESS_LENGTH:
            raise AddressError(f"a text of {len(text)} characters is not an address ({text[:40]!r}...)")
        self.text = text

    def parse(self, known: PeerId | None) -> Address:
        try:
            return self._parse_address(known)
        except AddressError as error:
            # Every complaint quotes the text, so that it can be found in a file or a command.
            raise AddressError(f"{self.text!r}: {error}") from None

    def _parse_address(self, known: PeerId | None) -> Address:
        for place, char in enumerate(self.text, 1):
            if char.isspace() or unicodedata.category(char) in ("Cc", "Cs"):
                raise AddressError(f"character {place} ({char!r}) can't be in an address; a space is %20")
        url = _URL.fullmatch(self.text)
        if url is None or url["scheme"].lower() not in FORMS:
            raise AddressError(self._explain_scheme(url))
        scheme = url["scheme"].lower()
        if url["authority"] is None:
            raise AddressError(f"'//' is missing after '{scheme}:'")
        if url["fragment"]:
            raise AddressError(f"addresses have no fragment ({url['fragment']}); '#' in a name is %23")
        pairs = _split_query(url["query"] or "")
        if FORMS[scheme].place == "none":
            return _resolved(scheme, url["authority"], _decode(url["path"][1:]), pairs)
        return _direct(scheme, url["authority"], _decode(url["path"]), pairs, known)

    def _explain_scheme(self, url: re.Match[str] | None) -> str:
        text = self.text
        if url is None or url["authority"] is None:
            first = text.partition("/")[0]
            who = first.partition(":")[0].lower()
            if "@" in first:
                return f"the scheme is missing; did you mean dtp+tcp://{text}?"
            if who.startswith("dtp1") or _OBJECT_ID.fullmatch(who):
                return f"the scheme is missing; did you mean dtp://{text}?"
            form = "an address is dtp://dtp1.../service or dtp+tcp://dtp1...@host:port/service"
            if _PETNAME.fullmatch(first.lower()):
                form += f", or, for a peer in peers.toml, dtp://{text}"
            return f"this is not a URL; {form}"
        scheme = url["scheme"].lower()
        guess = _SCHEME_OF_CARRIER.get(scheme) or {"http": "dtp+ws", "https": "dtp+wss"}.get(scheme)
        if guess is None:
            import difflib

            near = difflib.get_close_matches(scheme, FORMS, n=1, cutoff=0.5)
            guess = near[0] if near else None
        hint = f"did you mean {guess}:?" if guess else f"known: {', '.join(FORMS)}"
        return f"there is no scheme {scheme!r}; {hint}"


def _resolved(scheme: str, authority: str, service: str, pairs: list[tuple[str, str]]) -> Address:
    query = tuple(pairs)
    if not authority:
        raise AddressError("whom? put an identity, a host object or a name: dtp://dtp1.../service")
    user, at, place = authority.rpartition("@")
    if at or ":" in authority:
        meant = f"dtp+tcp://{user or 'dtp1...'}@{place}/{service}"
        raise AddressError(f"dtp: takes no host and port; did you mean {meant}?")
    who = _decode(authority)
    if who.lower().startswith("dtp1"):
        return Address(scheme, _parse_peer(who), service=service, query=query)
    if who.lower().startswith("0x"):
        return Address(scheme, host_object=who.lower(), service=service, query=query)
    return Address(scheme, name=who.lower(), service=service, query=query)


def _direct(
    scheme: str, authority: str, path: str, pairs: list[tuple[str, str]], known: PeerId | None
) -> Address:
    form = FORMS[scheme]
    user, _, place = authority.rpartition("@")
    peer = _parse_peer(_decode(user)) if user else known
    if peer is None:
        raise AddressError(_explain_missing_peer(scheme, place, path))
    if known is not None and peer != known:
        raise AddressError(f"this is of {peer}, but {known} is meant")
    if form.place == "path":
        if place:
            raise AddressError(f"a path has no host {place!r}; right after '@' comes the '/' of the path")
        service = _take(pairs, "service")
        return Address(scheme, peer, path=path, service=service, query=tuple(pairs))
    host, port = _host_and_port(place)
    carrier_path = _take(pairs, "path") if form.has_path else ""
    return Address(scheme, peer, host, port, carrier_path, path[1:], query=tuple(pairs))


def _explain_missing_peer(scheme: str, place: str, path: str) -> str:
    if place.lower().startswith("dtp1"):
        example = "@/run/dtp.sock" if FORMS[scheme].place == "path" else "@host:port"
        return f"there is no place to dial; did you mean dtp://{place}{path}, or {scheme}://{place}{example}?"
    return (
        "it does not say who has to answer; put the peer's identity in front: "
        f"{scheme}://dtp1...@{place}{path} ('dtp id' prints it on the peer's machine)"
    )


def _parse_peer(text: str) -> PeerId:
    if ":" in text:
        raise AddressError("there are no passwords; only an identity comes before '@'")
    try:
        return PeerId.parse(text)
    except PeerIdError as error:
        raise AddressError(str(error)) from None


def _host_and_port(place: str) -> tuple[str, int | None]:
    if place.startswith("["):
        inner, bracket, rest = place[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise AddressError(f"{place!r} is not an IPv6 address in brackets with a port, as in [::1]:9000")
        # RFC 6874 writes the '%' of a zone as %25; people paste it bare.
        host, port = _decode(inner) if "%25" in inner else inner, rest[1:]
        if ":" not in host:
            raise AddressError(f"only IPv6 addresses stand in brackets, not {host!r}")
    else:
        host, _, port = place.partition(":")
        if ":" in port:
            raise AddressError(f"an IPv6 address stands in brackets: [{place}]:port")
    if port and not (port.isascii() and port.isdecimal() and len(port) <= 5):
        raise AddressError(f"{port!r} is not a port; ports are 1 to 65535")
    return host, int(port) if port else None


def _take(pairs: list[tuple[str, str]], name: str) -> str:
    values = [value for key, value in pairs if key == name]
    if len(values) > 1:
        raise AddressError(f"the option {name!r} is given twice")
    pairs[:] = [pair for pair in pairs if pair[0] != name]
    return values[0] if values else ""
