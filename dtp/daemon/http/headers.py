"""Which headers pass: none that belong to one hop, none by which a caller could pretend to be another. No IO.

Sources: RFC 9110 sections 7.6.1 (fields of one hop), 6.5.1 (fields behind a body) and 8.6 (where no length may
stand), RFC 3986 section 3.2 (hosts), RFC 7239 and custom (fields that say who came).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import quote

from dtp.daemon.policies import Caller
from dtp.identity import PeerId

Headers = list[tuple[bytes, bytes]]

#: Fields of a head: understood, each takes some 300 bytes for as long as the backend, or who pays, takes.
MOST_FIELDS = 256

#: Fields of one hop, besides those that `Connection` names.
_HOP = {
    b"connection",
    b"keep-alive",
    b"proxy-authenticate",
    b"proxy-authorization",
    b"proxy-connection",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
}
#: Fields of one message, whatever `Connection` says.
_OF_THE_MESSAGE = {b"host", b"content-length"}
#: Fields that backends believe, since proxies set them: who came, and what for. Only the daemon may.
_BELIEVED = {
    b"forwarded",
    b"via",
    b"proxy",
    b"x-real-ip",
    b"x-client-ip",
    b"x-cluster-client-ip",
    b"true-client-ip",
    b"cf-connecting-ip",
    b"fastly-client-ip",
    b"x-rewrite-url",
}
_BELIEVED_PREFIXES = (b"dtp-", b"x-forwarded-", b"x-original-")
#: CGI, WSGI and the like turn "-" and other marks into one character, so all of them spell the same field.
_PLAIN = bytes(byte if chr(byte).isascii() and chr(byte).isalnum() else ord("-") for byte in range(256))
#: What a connection may change to. In others, such as HTTP/2, more requests would come that no rule sees.
WEBSOCKET = b"websocket"
#: A host and maybe a port, without a user's name: a name or an IPv4 address, else an IP address in brackets.
_AUTHORITY = re.compile(
    rb"(?:(?:[A-Za-z0-9\-._~!$&'()*+,;=]|%[0-9A-Fa-f]{2})*|\[(?:[0-9A-Fa-f:.]+|v[0-9A-Fa-f]+\.[A-Za-z0-9\-._~!$&'()*+,;=:]+)\])"
    rb"(?::[0-9]*)?"
)
#: How the daemon calls itself to others.
_VIA = b"1.1 dtpd"


def tokens(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> set[bytes]:
    """Return the elements of a field that is a list, in lower case."""
    return {
        token.strip().lower()
        for key, value in headers
        if key == name
        for token in value.split(b",")
        if token.strip()
    }


def upgrades_of(headers: Headers) -> set[bytes]:
    """Return the protocols that a request wants to change to, in lower case; empty if it doesn't."""
    return tokens(headers, b"upgrade") if b"upgrade" in tokens(headers, b"connection") else set()


def is_authority(value: bytes) -> bool:
    """True if it is a host, with a port or without: what a `Host` has to be. Where there is none, it is empty."""
    return _AUTHORITY.fullmatch(value) is not None


def _passing(headers: Headers) -> Headers:
    hop = _HOP | (tokens(headers, b"connection") - _OF_THE_MESSAGE)
    return [
        # Some take a 0 in front for a number to the base of 8.
        (key, b"%d" % int(value) if key == b"content-length" else value)
        for key, value in headers
        if key not in hop and not _spells_framing(key)
    ]


def _spells_framing(name: bytes) -> bool:
    """True if a backend may take a field for one of the connection or the message that goes by another name here:
    `Content_Length` would give a body two lengths."""
    spelt = plain(name)
    return spelt in _HOP or (spelt in _OF_THE_MESSAGE and spelt != name)


def plain(name: bytes) -> bytes:
    """Return the name of a field (in lower case) with `-` for all that is neither letter nor digit."""
    return name.translate(_PLAIN)


def spoofs(name: bytes) -> bool:
    """True if a backend may take a field of this name for one that says who came."""
    spelt = plain(name)
    return spelt in _BELIEVED or spelt.startswith(_BELIEVED_PREFIXES)


def to_backend(headers: Headers, caller: Caller, service: str) -> Headers:
    """Return the fields of a request (names in lower case) as the backend is to get them: with who came, proven."""
    upgrades = WEBSOCKET in upgrades_of(headers)
    chunked = b"chunked" in tokens(headers, b"transfer-encoding")
    found = [(key, value) for key, value in _passing(headers) if not spoofs(key)]
    if not any(key == b"host" for key, _ in found):
        found.insert(0, (b"host", b"localhost"))
    found += [*_who(caller, service), (b"via", _VIA)]
    if chunked:
        found.append((b"transfer-encoding", b"chunked"))
    if upgrades:
        found += [(b"connection", b"upgrade"), (b"upgrade", WEBSOCKET)]
    return found


def _who(caller: Caller, service: str) -> Headers:
    return [
        (b"dtp-peer", str(caller.peer).encode()),
        (b"dtp-account", caller.account.encode()),
        *_logged_in(caller),
        (b"dtp-service", service.encode("utf-8")),
        (b"x-forwarded-for", (caller.source or "unknown").encode()),
    ]


def _logged_in(caller: Caller) -> Headers:
    """Return the name of the account, percent-encoded where it isn't ASCII (RFC 3986), and its identity."""
    if caller.login is None:
        return []
    name, identity = caller.login
    return [
        (b"dtp-login", quote(name, safe="!$&'()*+,;=:@/").encode()),
        (b"dtp-login-identity", str(PeerId(identity)).encode()),
    ]


def to_grpc_backend(headers: Headers, caller: Caller, service: str) -> Headers:
    """Return the fields of a gRPC call as the backend is to get them. HTTP/2 has no fields of one hop but `te`, which
    stays.

    What passes are the same objects, so that a field that must not be indexed (RFC 7541, 7.1.3) stays one.
    """
    kept = [field for field in headers if not spoofs(field[0])]
    return [*kept, *_who(caller, service), (b"via", b"2.0 dtpd")]


def to_client(headers: Headers, status: int = 200) -> Headers:
    """Return the fields of an answer as the client is to get them. One that has no body by its status has no
    length."""
    found = [*_passing(headers), (b"via", _VIA)]
    if status < 200 or status == 204:
        found = [field for field in found if field[0] != b"content-length"]
    if status == 101:
        found.append((b"connection", b"upgrade"))
        found += [(key, value) for key, value in headers if key == b"upgrade"]
    return found


def behind_body(headers: Headers) -> Headers:
    """Return the fields behind an answer's body as the client is to get them: those of its head don't belong
    there."""
    return [field for field in _passing(headers) if field[0] not in _OF_THE_MESSAGE]
