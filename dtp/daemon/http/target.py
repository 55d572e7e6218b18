"""What a request asks for, read in every way in which a backend may read it; and what could be read in two. No IO.

Sources: RFC 9112 (3.2 targets, 6.1 and 6.3 where a body ends), RFC 3986 section 6.2.2 (spellings of one path).
"""

from __future__ import annotations

import re

import h11

from dtp.daemon.http.headers import Headers, plain

#: By which forms and old clients ask for another method than the request line's; some frameworks do as they say.
_OVERRIDES = {b"x-http-method-override", b"x-http-method", b"x-method-override"}
#: What may stand for itself as well: the printable characters of ASCII.
_ENCODED = re.compile(r"%(2[1-9A-Fa-f]|[3-6][0-9A-Fa-f]|7[0-9A-Ea-e])")
_PARAMETERS = re.compile(r";[^/]*")
#: What a method is made of (RFC 9110, 5.6.2): backends trim and cut the rest off in ways of their own.
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Z]+")
_ABSOLUTE = re.compile(rb"https?://([^/?#]+)([^#]*)", re.IGNORECASE)


def fault(request: h11.Request) -> str | None:
    """Why a request's end, or its target, could be found in two ways; None when there is one."""
    names = [name for name, _ in request.headers]
    if b"transfer-encoding" in names:
        if b"content-length" in names:
            return "Content-Length beside Transfer-Encoding"
        if request.http_version < b"1.1":
            return f"Transfer-Encoding in HTTP/{request.http_version.decode('ascii')}"
    if names.count(b"origin") > 1:
        return "more than one Origin"
    if b"#" in request.target:
        return "a fragment in the target"
    if request.method == b"CONNECT" or (request.method == b"OPTIONS" and request.target == b"*"):
        return None
    if not request.target.startswith(b"/") and not _ABSOLUTE.fullmatch(request.target):
        return "the target is no path"
    return None


def in_origin_form(request: h11.Request) -> h11.Request:
    """The same request with a path for its target. The host of a whole URL counts, not the field (3.2.2).

    OPTIONS of a URL that is a host alone asks about the server as such: that is `*` (3.2.4).
    """
    match = _ABSOLUTE.fullmatch(request.target)
    if match is None:
        return request
    authority, rest = match.groups()
    headers: Headers = [(b"host", authority), *(one for one in request.headers if one[0] != b"host")]
    whole = request.method == b"OPTIONS" and not rest
    path = b"*" if whole else rest if rest.startswith(b"/") else b"/" + rest
    return h11.Request(method=request.method, target=path, headers=headers, http_version=request.http_version)


def spellings(request: h11.Request) -> tuple[str, ...]:
    """`METHOD /path` as it came, then as backends may understand it, each once."""
    verb = request.method.decode("ascii")
    path = request.target.decode("ascii").partition("?")[0]
    verbs = [verb, verb.upper()]
    for name, value in request.headers:
        if plain(name) in _OVERRIDES:
            told = value.decode("ascii", "replace").upper()
            verbs += [told, *_TOKEN.findall(told)]
    return tuple(dict.fromkeys(f"{one} {each}" for each in (path, _plain_path(path)) for one in verbs))


def _plain_path(path: str) -> str:
    """Without encoding that isn't needed, parameters of segments, and segments that are empty, `.` or `..`."""
    if not path.startswith("/"):
        return path
    decoded = _ENCODED.sub(lambda match: chr(int(match[1], 16)), path).replace("\\", "/")
    kept: list[str] = []
    segments = _PARAMETERS.sub("", decoded).split("/")
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment not in ("", "."):
            kept.append(segment)
    ending = "/" if kept and segments[-1] in ("", ".", "..") else ""
    return f"/{'/'.join(kept)}{ending}"
