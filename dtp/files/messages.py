"""The messages of the file protocol as values: bytes to checked objects and back. No IO; spec in `__init__`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from dtp.files.errors import FileTransferError, TransferRefused
from dtp.files.names import MAX_PATH, check_name
from dtp.packing import pack, unpack

VERSION = 1
#: Bytes of a message's body; the longest has a name of 250 bytes or a path of 1024.
MAX_MESSAGE = 4096
#: SHA-256: half again to twice as fast as BLAKE2b where the CPU has its instructions, and `sha256sum` is everywhere.
HASH = "sha256"
DIGEST_SIZE = 32
MAX_SIZE = 2**63 - 1
MAX_REASON = 512

#: Code of a refusal -> what it means. A reader takes an unknown code for "io".
REFUSALS: Mapping[str, str] = {
    "name": "the file's name can't be taken",
    "exists": "another file of that name is there",
    "missing": "there is no such file",
    "space": "the disk is too full",
    "busy": "another transfer of that file is under way",
    "changed": "the file changes while it is read",
    "hash": "what arrived is not what was sent",
    "version": "another version of the protocol is needed",
    "protocol": "a message that was not due or can't be read",
    "full": "no further file is taken",
    "io": "the file can't be read or written",
}
#: Error codes of RESET while bytes go.
RESET_READ = 1
RESET_CHANGED = 2


@dataclass(frozen=True, slots=True)
class FileInfo:
    """What is said of a file before it goes: plain name, size in bytes, time of the last change in ns since 1970."""

    name: str
    size: int
    mtime: int


@dataclass(frozen=True, slots=True)
class Put:
    """The opener has a file to give."""

    file: FileInfo


@dataclass(frozen=True, slots=True)
class Get:
    """The opener wants the file at `name`, a path below what is served; "" for what the service names."""

    name: str


@dataclass(frozen=True, slots=True)
class Offer:
    """The answer to `Get`."""

    file: FileInfo


@dataclass(frozen=True, slots=True)
class Accept:
    """The receiver takes the file, and may have its first `have` bytes."""

    have: int


@dataclass(frozen=True, slots=True)
class Same:
    """`digest` is that of the file's bytes which the receiver may have."""

    digest: bytes


@dataclass(frozen=True, slots=True)
class Start:
    """The receiver wants the bytes of the file from `begin` on."""

    begin: int


@dataclass(frozen=True, slots=True)
class FileEnd:
    """All bytes were sent; `digest` is that of the whole file."""

    digest: bytes


@dataclass(frozen=True, slots=True)
class Done:
    """The receiver has compared the digests and stored the file."""


@dataclass(frozen=True, slots=True)
class FileRefusal:
    """A side won't go on; `code` is a key of `REFUSALS`, `message` is for people."""

    code: str
    message: str


Message = Put | Get | Offer | Accept | Same | Start | FileEnd | Done | FileRefusal
#: What each is called in a message.
OPS: Final[dict[type, str]] = {
    Put: "put", Get: "get", Offer: "file", Accept: "accept", Same: "same", Start: "start", FileEnd: "end",
    Done: "done", FileRefusal: "refuse",
}  # fmt: skip


def build(message: Message) -> bytes:
    """Return a message with its length in front."""
    body = pack({"op": OPS[type(message)], **_fields(message)})
    if len(body) > MAX_MESSAGE:
        raise AssertionError("checked names and cut reasons fit a message")
    return len(body).to_bytes(2) + body


def _fields(message: Message) -> dict[str, Any]:
    match message:
        case Put(file):
            return {"version": VERSION, **_file_fields(file)}
        case Offer(file):
            return _file_fields(file)
        case Get(name):
            return {"version": VERSION, "name": name}
        case Accept(have):
            return {"have": have}
        case Start(begin):
            return {"from": begin}
        case Same(digest) | FileEnd(digest):
            return {"digest": digest}
        case Done():
            return {}
        case FileRefusal(code, reason):
            return {"code": code, "message": reason[:MAX_REASON]}


def _file_fields(file: FileInfo) -> dict[str, Any]:
    return {"name": file.name, "size": file.size, "mtime": file.mtime, "hash": HASH}


def parse(body: bytes) -> Message:
    """Return the message in `body` (without its length).

    Raises `TransferRefused` for a refusal, `NameRefused` for a file name that isn't taken, and
    `FileTransferError` for anything else that isn't a message of this version.
    """
    fields = unpack(body, FileTransferError, "a message", max_map_len=32, max_array_len=32)
    if not isinstance(fields, dict):
        raise FileTransferError("a message is not a map")
    op = fields.get("op")
    if not isinstance(op, str) or op not in _PARSERS:
        raise FileTransferError(f"unknown message {ascii(op)[:80]}")
    return _PARSERS[op](fields)


def _get(fields: dict[Any, Any], key: str, kind: type) -> Any:
    value = fields.get(key)
    if type(value) is not kind:
        raise FileTransferError(f"{fields['op']!r} needs {key!r} of type {kind.__name__}")
    return value


def _number(fields: dict[Any, Any], key: str) -> int:
    value: int = _get(fields, key, int)
    if not 0 <= value <= MAX_SIZE:
        raise FileTransferError(f"{fields['op']!r}: {key!r} of {value} is out of range")
    return value


def _digest(fields: dict[Any, Any]) -> bytes:
    value: bytes = _get(fields, "digest", bytes)
    if len(value) != DIGEST_SIZE:
        raise FileTransferError(f"{fields['op']!r}: a digest has {DIGEST_SIZE} bytes, not {len(value)}")
    return value


def _version(fields: dict[Any, Any]) -> None:
    if _number(fields, "version") != VERSION:
        raise FileTransferError(
            f"the peer speaks version {fields['version']} of the file protocol, not {VERSION}"
        )


def _file(fields: dict[Any, Any]) -> FileInfo:
    if _get(fields, "hash", str) != HASH:
        raise FileTransferError(f"the peer wants the hash {ascii(fields['hash'])[:40]}, known is {HASH}")
    name = check_name(_get(fields, "name", str))
    return FileInfo(name, _number(fields, "size"), _number(fields, "mtime"))


def _put(fields: dict[Any, Any]) -> Put:
    _version(fields)
    return Put(_file(fields))


def _want(fields: dict[Any, Any]) -> Get:
    _version(fields)
    name: str = _get(fields, "name", str)
    if len(name) > MAX_PATH:
        raise FileTransferError(f"a path of {len(name)} characters, the most is {MAX_PATH}")
    return Get(name)


def _refuse(fields: dict[Any, Any]) -> FileRefusal:
    code = _get(fields, "code", str)
    raise TransferRefused(code if code in REFUSALS else "io", _get(fields, "message", str)[:MAX_REASON])


_PARSERS: Mapping[str, Callable[[dict[Any, Any]], Message]] = {
    "put": _put,
    "get": _want,
    "file": lambda fields: Offer(_file(fields)),
    "accept": lambda fields: Accept(_number(fields, "have")),
    "same": lambda fields: Same(_digest(fields)),
    "start": lambda fields: Start(_number(fields, "from")),
    "end": lambda fields: FileEnd(_digest(fields)),
    "done": lambda fields: Done(),
    "refuse": _refuse,
}
