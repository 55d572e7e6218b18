"""Decides which header fields pass: none that concern only one hop, none with which a caller could pretend to be
another. No IO.

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

#: The most fields of a head. Each takes about 300 bytes of memory until the backend, and whoever pays, is done.
MOST_FIELDS = 256

#: Fields of one hop, in addition to those that `Connection` names.
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
#: Fields of the message itself, whatever `Connection` says.
_OF_THE_MESSAGE = {b"host", b"content-length"}
#: Fields that backends trust because proxies set them: who the caller is, and what was asked. Only the daemon may
#: set them.
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
#: CGI, WSGI and others map "-" and other characters to one, so all such spellings name the same field.
_PLAIN = bytes(byte if chr(byte).isascii() and chr(byte).isalnum() else ord("-") for byte in range(256))
#: The only protocol that a connection may change to. In others, such as HTTP/2, requests would follow that no rule
#: sees.
WEBSOCKET = b"websocket"
#: A host with an optional port and without a user name: a name, an IPv4 address, or an IP address in brackets.
_AUTHORITY = re.compile(
    rb"(?:(?:[A-Za-z0-9\-._~!$&'()*+,;=]|%[0-9A-Fa-f]{2})*|\[(?:[0-9A-Fa-f:.]+|v[0-9A-Fa-f]+\.[A-Za-z0-9\-._~!$&'()*+,;=:]+)\])"
    rb"(?::[0-9]*)?"
)
#: How the daemon names itself in `Via`.
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
    """True if it is a host with or without a port, as a `Host` field has to be. It is empty where there is no
    host."""
    return _AUTHORITY.fullmatch(value) is not None


def _passing(headers: Headers) -> Headers:
    hop = _HOP | (tokens(headers, b"connection") - _OF_THE_MESSAGE)
    return [
        # Some parsers read a number with a leading 0 as octal.
        (key, b"%d" % int(value) if key == b"content-length" else value)
        for key, value in headers
        if key not in hop and not _spells_framing(key)
    ]


def _spells_framing(name: bytes) -> bool:
    """True if a backend may read a field as one of the connection or the message although it is spelt differently:
    `Content_Length` would give a body two lengths."""
    spelt = plain(name)
    return spelt in _HOP or (spelt in _OF_THE_MESSAGE and spelt != name)


def plain(name: bytes) -> bytes:
    """Return the name of a field (in lower case) with `-` for everything but letters and digits."""
    return name.translate(_PLAIN)


def spoofs(name: bytes) -> bool:
    """True if a backend may read a field of this name as one that says who the caller is."""
    spelt = plain(name)
    return spelt in _BELIEVED or spelt.startswith(_BELIEVED_PREFIXES)


def to_backend(headers: Headers, caller: Caller, service: str) -> Headers:
    """Return the fields of a request (names in lower case) for the backend, with the proven identity of the
    caller."""
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
    """Return the fields with the account's name, percent-encoded (RFC 3986) where it isn't ASCII, and its
    identity."""
    if caller.login is None:
        return []
    name, identity = caller.login
    return [
        (b"dtp-login", quote(name, safe="!$&'()*+,;=:@/").encode()),
        (b"dtp-login-identity", str(PeerId(identity)).encode()),
    ]


def to_grpc_backend(headers: Headers, caller: Caller, service: str) -> Headers:
    """Return the fields of a gRPC call for the backend. HTTP/2 has no fields of one hop but `te`, which is kept.

    Fields that pass are the same objects, so that one that must not be indexed (RFC 7541, 7.1.3) stays so.
    """
    kept = [field for field in headers if not spoofs(field[0])]
    return [*kept, *_who(caller, service), (b"via", b"2.0 dtpd")]


def to_client(headers: Headers, status: int = 200) -> Headers:
    """Return the fields of an answer for the client, without a length where the status allows no body."""
    found = [*_passing(headers), (b"via", _VIA)]
    if status < 200 or status == 204:
        found = [field for field in found if field[0] != b"content-length"]
    if status == 101:
        found.append((b"connection", b"upgrade"))
        found += [(key, value) for key, value in headers if key == b"upgrade"]
    return found


def behind_body(headers: Headers) -> Headers:
    """Return the trailers of an answer for the client, without fields that belong in its head."""
    return [field for field in _passing(headers) if field[0] not in _OF_THE_MESSAGE]
