"""The target of a request, in every way in which a backend may read it, and targets that are ambiguous. No IO.

Sources: RFC 9112 (3.2 targets and hosts, 6.1 and 6.3 where a body ends), RFC 3986 (4.2 what begins with "//", 6.2.2
spellings of one path), the URL standard (where "\\" is as good as "/").
"""

from __future__ import annotations

import re

import h11

from dtp.daemon.http.headers import MOST_FIELDS, Headers, is_authority, plain

#: Fields with which forms and old clients ask for another method than the request line's; some frameworks obey
#: them.
OVERRIDES = {b"x-http-method-override", b"x-http-method", b"x-method-override"}
#: Printable ASCII characters, which may also be written as they are, by their encoding in either case.
_PLAIN = {text: chr(code) for code in range(0x21, 0x7F) for text in (f"{code:02x}", f"{code:02X}")}
#: The longest path that rules about methods are applied to, since it is read in many ways.
_MOST_PATH = 4096
#: What some parsers take for a host where a path begins with two slashes.
_HOSTS = (re.compile(r"/[/\\]+[^/\\]*"), re.compile(r"/[/\\]+[^/]*"))
_PARAMETERS = re.compile(r";[^/]*")
#: The characters of a method (RFC 9110, 5.6.2). Backends differ in how they trim or cut off others.
_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_ABSOLUTE = re.compile(rb"https?://([^/?#]+)([^#]*)", re.IGNORECASE)


def fault(request: h11.Request) -> str | None:
    """Return why the end of a request or its target is ambiguous, or why its head is too large; else None."""
    names = [name for name, _ in request.headers]
    if len(names) > MOST_FIELDS:
        return f"more than {MOST_FIELDS} fields"
    version = request.http_version.decode("ascii")
    if version >= "2":
        return f"HTTP/{version} isn't spoken here"
    if b"transfer-encoding" in names:
        if b"content-length" in names:
            return "Content-Length beside Transfer-Encoding"
        if request.http_version < b"1.1":
            return f"Transfer-Encoding in HTTP/{version}"
    if names.count(b"origin") > 1:
        return "more than one Origin"
    if not all(is_authority(value) for name, value in request.headers if name == b"host"):
        return "the Host is not a host"
    if b"#" in request.target:
        return "a fragment in the target"
    if request.method == b"CONNECT" or (request.method == b"OPTIONS" and request.target == b"*"):
        return None
    if request.target.startswith(b"/"):
        return None
    absolute = _ABSOLUTE.fullmatch(request.target)
    if absolute is None:
        return "the target is not a path"
    return None if is_authority(absolute[1]) else "the target's host is malformed"


def in_origin_form(request: h11.Request) -> h11.Request:
    """Return the request with a path as its target. The host of a full URL replaces the `Host` field (3.2.2).

    OPTIONS for a URL without a path is about the server itself, which is `*` (3.2.4). HTTP/1.0 can't change to
    another protocol (RFC 9110, 7.8).
    """
    if request.http_version < b"1.1" and any(name == b"upgrade" for name, _ in request.headers):
        kept = [field for field in request.headers if field[0] != b"upgrade"]
        request = h11.Request(
            method=request.method, target=request.target, headers=kept, http_version=request.http_version
        )
    match = _ABSOLUTE.fullmatch(request.target)
    if match is None:
        return request
    authority, rest = match.groups()
    headers: Headers = [(b"host", authority), *(one for one in request.headers if one[0] != b"host")]
    whole = request.method == b"OPTIONS" and not rest
    path = b"*" if whole else rest if rest.startswith(b"/") else b"/" + rest
    return h11.Request(method=request.method, target=path, headers=headers, http_version=request.http_version)


def doubt(request: h11.Request) -> str | None:
    """Return why no rule about methods can tell what a backend makes of a request in origin form; None when one
    can.

    Which segments remain after `..` depends on what is decoded, cut off and joined before: that is too much to
    judge, and well-behaved clients resolve `..` themselves.
    """
    path = _path(request)
    if len(path) > _MOST_PATH:
        return f"a path of more than {_MOST_PATH} bytes"
    overrides = _overrides(request)
    if len(overrides) > 1 or not all(map(_TOKEN.fullmatch, overrides)):
        return "what overrides the method is not one method"
    if not {".", ".."}.isdisjoint(_segments(_decoded(path))):
        return "a path with . or .. in it"
    return None


def spellings(request: h11.Request) -> tuple[str, ...]:
    """Return `METHOD /path` as it came, then as backends may read it, without duplicates: at most eighteen, and
    some more where the path begins with two slashes.

    Parameters are cut off before the rest is decoded, as Tomcat does, or afterwards, which differs when they have
    an encoded slash. The request must have no `doubt`.
    """
    path = _path(request)
    paths = [path, _decoded(path)]
    hosts = [match.end() for host in _HOSTS if (match := host.match(path))]
    for rest in (path, *(path[at:] or "/" for at in hosts)) if path.startswith("/") else ():
        for one in (_decoded(rest), _decoded(_PARAMETERS.sub("", rest))):
            segments = _segments(one)
            kept = [segment for segment in segments if segment]
            ending = segments[-1:] if not segments[-1] else []
            paths.append("/" + "/".join(kept + ending) if kept else "/")
            if len(segments) > 2 and not segments[1]:  # some parsers read the next segment as a host
                paths.append("/" + "/".join(kept[1:] + ending) if kept[1:] else "/")
    verb = request.method.decode("ascii")
    verbs = [verb, verb.upper(), *(one.decode("ascii") for one in _overrides(request))]
    return tuple(dict.fromkeys(f"{verb} {each}" for each in paths for verb in verbs))


def _overrides(request: h11.Request) -> set[bytes]:
    """Return the methods that override fields ask for, in upper case."""
    return {value.upper() for name, value in request.headers if plain(name) in OVERRIDES}


def _path(request: h11.Request) -> str:
    return request.target.decode("ascii").partition("?")[0]


def _decoded(path: str) -> str:
    """Return the path without unnecessary percent-encoding."""
    first, *rest = path.split("%")
    return first + "".join(_PLAIN.get(one[:2], "%" + one[:2]) + one[2:] for one in rest)


def _segments(decoded: str) -> list[str]:
    """Return the segments between slashes of either kind, without parameters."""
    return _PARAMETERS.sub("", decoded.replace("\\", "/")).split("/")
