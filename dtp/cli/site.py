"""`dtp serve --http`: a folder as a website over HTTP/1.1, GET and HEAD."""

from __future__ import annotations

import contextlib
import mimetypes
import os
import re
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from dtp.errors import DtpError
from dtp.files.names import open_below
from dtp.net.stream import Stream

#: Bytes of a request with its header fields; what browsers send is under 4 KiB.
_MAX_HEAD = 16 * 1024
_PIECE = 256 * 1024
_REQUEST = re.compile(rb"(?P<method>[A-Z]{1,16}) (?P<target>/[^\s]*) HTTP/1\.(?P<minor>[01])")
#: `dtp.files` begins with a length of at most 4096, so its first byte is below this; HTTP begins with a letter.
_FIRST_LETTER = ord("A")
_INDEX = "index.html"


def is_http(first: bytes) -> bool:
    """True if a stream that begins with this byte speaks HTTP; else it is of `dtp.files`."""
    return bool(first) and first[0] >= _FIRST_LETTER


async def serve_http(stream: Stream, root: Path, below: str) -> None:
    """Answer HTTP requests on a stream out of the folder `root`, until there are no more."""
    while head := await _read_head(stream):
        if not await _answer(stream, head, root, below):
            break
    stream.close()


async def _answer(stream: Stream, head: bytes, root: Path, below: str) -> bool:
    """Answer one request; whether the client may ask more on this stream."""
    lines = head.split(b"\r\n")
    request = _REQUEST.fullmatch(lines[0])
    if request is None:
        await _refuse(stream, HTTPStatus.BAD_REQUEST)
        return False
    fields = {name.strip().lower(): value.strip().lower() for name, _, value in (
        line.partition(b":") for line in lines[1:])}  # fmt: skip
    goes_on = request["minor"] == b"1" and fields.get(b"connection") != b"close"
    if fields.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in fields:
        goes_on = False  # what follows is a body that nobody reads
    if request["method"] not in (b"GET", b"HEAD"):
        await _refuse(stream, HTTPStatus.METHOD_NOT_ALLOWED)
        return goes_on
    path = unquote(request["target"].decode("ascii", "replace").partition("?")[0]).strip("/")
    await _give(stream, root, "/".join(filter(None, (below, path))), head_only=request["method"] == b"HEAD")
    return goes_on


async def _give(stream: Stream, root: Path, path: str, *, head_only: bool) -> None:
    try:
        descriptor, name = _open(root, path)
    except DtpError:
        await _refuse(stream, HTTPStatus.NOT_FOUND)
        return
    with contextlib.closing(os.fdopen(descriptor, "rb")) as file:
        size = os.fstat(descriptor).st_size
        kind, encoding = mimetypes.guess_type(name)
        content = "application/octet-stream" if kind is None or encoding else kind
        stream.write(_head(HTTPStatus.OK, size, content))
        while not head_only and size:
            piece = file.read(min(_PIECE, size))
            if not piece:  # it became shorter: what was promised can't be kept
                stream.reset()
                return
            stream.write(piece)
            await stream.drain()
            size -= len(piece)


def _open(root: Path, path: str) -> tuple[int, str]:
    with contextlib.suppress(DtpError):
        return open_below(root, path)
    return open_below(root, f"{path}/{_INDEX}" if path else _INDEX)


class Peeked:
    """A stream whose first byte was read to see what it is, and is read once more."""

    def __init__(self, stream: Stream, first: bytes) -> None:
        self._stream = stream
        self._first = first

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    async def read(self, n: int = -1) -> bytes:
        """Return up to `n` bytes, or all until the end where `n` is negative; b"" at the end."""
        if not self._first or n == 0:
            return await self._stream.read(n)
        first, self._first = self._first, b""
        return first + (await self._stream.read(-1) if n < 0 else b"")

    async def readexactly(self, n: int) -> bytes:
        """Return `n` bytes. Raises as `Stream.readexactly` does when fewer come."""
        if not self._first or n == 0:
            return await self._stream.readexactly(n)
        first, self._first = self._first, b""
        return first + await self._stream.readexactly(n - 1)


async def _read_head(stream: Stream) -> bytes:
    """Return a request with its fields, without the empty line behind; nothing at the end, or for one that is too
    long."""
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        if len(data) >= _MAX_HEAD:
            await _refuse(stream, HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
            return b""
        byte = await stream.read(1)
        if not byte:
            return b""
        data += byte
    return data[:-4]


def _head(status: HTTPStatus, size: int, content: str) -> bytes:
    return (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Length: {size}\r\nContent-Type: {content}\r\n\r\n"
    ).encode()


async def _refuse(stream: Stream, status: HTTPStatus) -> None:
    words = f"{status.value} {status.phrase}\n".encode()
    stream.write(_head(status, len(words), "text/plain") + words)
    await stream.drain()
