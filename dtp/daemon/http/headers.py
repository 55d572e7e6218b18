"""Which headers pass: none that belong to one hop, none by which a caller could pretend to be another. No IO.

Sources: RFC 9110 section 7.6.1 (fields of one hop), RFC 7239 and custom (fields that say who came).
"""

from __future__ import annotations

from collections.abc import Iterable

from dtp.daemon.policies import Caller

Headers = list[tuple[bytes, bytes]]

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
#: Fields that backends believe: only the daemon may set them.
_WHO = {b"forwarded", b"via", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-real-ip"}
_OWN = b"dtp-"
#: How the daemon calls itself to others.
_VIA = b"1.1 dtpd"


def tokens(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> set[bytes]:
    """The elements of a field that is a list, in lower case."""
    return {
        token.strip().lower()
        for key, value in headers
        if key == name
        for token in value.split(b",")
        if token.strip()
    }


def upgrade_of(headers: Headers) -> bytes | None:
    """The protocol that a request wants to change to, None if it doesn't."""
    if b"upgrade" not in tokens(headers, b"connection"):
        return None
    return next((value for key, value in headers if key == b"upgrade"), None)


def _passing(headers: Headers) -> Headers:
    hop = _HOP | tokens(headers, b"connection")
    return [(key, value) for key, value in headers if key not in hop]


def _spoofs(name: bytes) -> bool:
    # CGI and WSGI turn "-" and "_" into one character, so both spell the same field.
    plain = name.replace(b"_", b"-")
    return plain in _WHO or plain.startswith(_OWN)


def to_backend(headers: Headers, caller: Caller, service: str) -> Headers:
    """The fields of a request (names in lower case) as the backend is to get them: with who came, proven."""
    upgrade = upgrade_of(headers)
    chunked = b"chunked" in tokens(headers, b"transfer-encoding")
    found = [(key, value) for key, value in _passing(headers) if not _spoofs(key)]
    if not any(key == b"host" for key, _ in found):
        found.insert(0, (b"host", b"localhost"))
    found += [*_who(caller, service), (b"via", _VIA)]
    if chunked:
        found.append((b"transfer-encoding", b"chunked"))
    if upgrade is not None:
        found += [(b"connection", b"upgrade"), (b"upgrade", upgrade)]
    return found


def _who(caller: Caller, service: str) -> Headers:
    return [
        (b"dtp-peer", str(caller.peer).encode()),
        (b"dtp-account", caller.account.encode()),
        (b"dtp-service", service.encode("utf-8")),
        (b"x-forwarded-for", (caller.source or "unknown").encode()),
    ]


def to_grpc_backend(headers: Headers, caller: Caller, service: str) -> Headers:
    """The fields of a gRPC call as the backend is to get them. HTTP/2 has no fields of one hop but `te`, which stays.

    What passes are the same objects, so that a field that must not be indexed (RFC 7541, 7.1.3) stays one.
    """
    kept = [field for field in headers if not _spoofs(field[0])]
    return [*kept, *_who(caller, service), (b"via", b"2.0 dtpd")]


def to_client(headers: Headers, *, switching: bool = False) -> Headers:
    """The fields of an answer as the client is to get them."""
    found = [*_passing(headers), (b"via", _VIA)]
    if switching:
        found.append((b"connection", b"upgrade"))
        found += [(key, value) for key, value in headers if key == b"upgrade"]
    return found
