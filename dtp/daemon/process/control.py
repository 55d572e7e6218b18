"""The control socket: a line of JSON asks, and a line answers. Whoever may open the socket may do everything it
offers."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import socket
import stat
import tomllib
import warnings
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from dtp.carriers import unix
from dtp.carriers.errors import ListenError, reason
from dtp.daemon.config.model import Config
from dtp.daemon.config.values import LONGEST_SOCKET
from dtp.errors import CarrierError, ConfigError, DtpError, LocalError, PeerError

#: The configuration of the system's daemon, and its control socket in the folder that the unit in packaging/ makes.
SYSTEM_FILE, SYSTEM_CONTROL = Path("/etc/dtpd/dtpd.toml"), Path("/run/dtpd/control.sock")

#: Takes the arguments of a command and returns its result.
Command = Callable[[Mapping[str, Any]], Awaitable[Mapping[str, Any]]]

_MAX_REQUEST = 64 * 1024
_MAX_ANSWER = 64 * 1024 * 1024


class NotRunning(CarrierError):
    """Nobody answers at the control socket."""

    code = "not-running"


class UntrustedFolder(LocalError):
    """The folder for the control socket belongs to another user."""

    code = "untrusted-folder"


class UnknownCommand(LocalError):
    """There is no such command."""

    code = "unknown"


class CommandFailed(PeerError):
    """The daemon couldn't carry out a command. The message is the daemon's."""

    code = "command-failed"


def path_of(config: Config) -> Path:
    """Return the path of the control socket of a configuration: as it says, otherwise in the user's runtime
    folder."""
    return _usual(config.path) if config.control is None else config.control


def path_near(file: Path) -> Path:
    """Return the path of the control socket for a file that may have mistakes, so that a daemon that runs by it can
    be asked."""
    try:
        return file.absolute().parent / Path(_control_in(file.read_text(encoding="utf-8-sig"))).expanduser()
    except (OSError, ValueError, LookupError, TypeError, RuntimeError):
        return _usual(file)


def _control_in(text: str) -> Any:
    """Return the value of `control` in `text`. If the text isn't TOML, look for the line that sets it."""
    with contextlib.suppress(tomllib.TOMLDecodeError):
        return tomllib.loads(text)["daemon"]["control"]
    lines = [line for line in text.splitlines() if line.lstrip().startswith("control")]
    return tomllib.loads("\n".join(lines))["control"]


def _usual(file: Path) -> Path:
    import platformdirs

    with warnings.catch_warnings():
        # That $XDG_RUNTIME_DIR isn't set, as in containers and under sudo, doesn't matter to our users.
        warnings.simplefilter("ignore", UserWarning)
        folder: Path = platformdirs.user_runtime_path("dtp", appauthor=False)
    if "XDG_RUNTIME_DIR" not in os.environ:
        _check_owner(folder.parent)
    # Files with the same name in different folders belong to different daemons.
    mark = hashlib.blake2s(os.fsencode(file.absolute()), digest_size=4).hexdigest()
    path = folder / f"dtpd-{file.stem}-{mark}.sock"
    if len(os.fsencode(path)) > LONGEST_SOCKET:
        raise ConfigError(
            f"{path} would be the control socket, and is longer than the {LONGEST_SOCKET} bytes that a socket's path "
            "may have: set XDG_RUNTIME_DIR to a shorter folder, or control in [daemon]"
        )
    return path


def _check_owner(folder: Path) -> None:
    """Raise `UntrustedFolder` unless a folder is ours, the system's, or missing.

    Without $XDG_RUNTIME_DIR the folder is in /tmp, where anybody may have made it first to answer in the daemon's
    place.
    """
    with contextlib.suppress(FileNotFoundError):
        found = os.lstat(folder)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid not in (0, os.getuid()):
            raise UntrustedFolder(
                f"{folder} is for the control socket and belongs to user {found.st_uid}: set XDG_RUNTIME_DIR to a "
                "folder of your own, or control in [daemon]"
            )


def _has_listener(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as sock:
        try:
            sock.connect(os.fspath(path))
        except OSError:
            return False
    return True


class Control:
    """Serves the control socket."""

    def __init__(self, path: Path, commands: Mapping[str, Command]) -> None:
        self._path = path
        self._commands = commands
        self._server: asyncio.Server | None = None
        self._sock: socket.socket | None = None
        #: Whether this process has to remove the path.
        self._owns_place = True

    @property
    def place(self) -> str:
        """Where the socket is, as `dtp.daemon.relays.sockets.name_of` spells it."""
        return f"unix:{self._path}"

    @property
    def sockets(self) -> list[socket.socket]:
        """The listening sockets, which stay owned by this object."""
        return [] if self._sock is None else [self._sock]

    async def start(self, adopted: socket.socket | None = None) -> None:
        """Listen, at `adopted` if it is given, whose path stays until `own_place`. Only this user can connect.
        Raise `ListenError`."""
        if adopted is not None:
            self._sock, self._owns_place = adopted, False
        else:
            try:
                _make_folder(self._path.parent)
            except OSError as error:
                why = f"the folder of the control socket can't be made: {reason(error)}"
                raise ListenError(f"{self._path}: {why}") from error
            try:
                self._sock, _ = unix.listening_socket(f"unix://{quote(str(self._path))}?mode=0600")
            except ListenError as error:
                if not _has_listener(self._path):
                    raise
                raise ListenError(
                    f"{self._path}: a dtpd that runs already has this control socket; 'dtpd status' shows it, 'dtpd "
                    "drain' ends it. A second one takes a file of its own, or another control in [daemon]"
                ) from error
        # A copy, since asyncio closes the socket it gets, and removes its path from Python 3.13 on.
        self._server = await asyncio.start_server(
            self._serve_client, sock=self._sock.dup(), limit=_MAX_REQUEST
        )

    def own_place(self) -> None:
        """Remove the path at the end, since the previous process has given way."""
        self._owns_place = True

    async def close(self, *, keep_place: bool = False) -> None:
        """Stop listening. With `keep_place`, another process listens there. Idempotent."""
        if self._server is not None and self._sock is not None:
            self._server.close()
            self._sock.close()
            self._server = self._sock = None
            if self._owns_place and not keep_place:
                self._path.unlink(missing_ok=True)

    async def _serve_client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # The loop cancels it at its end, and asyncio would log that as a fault (Python 3.11).
        ends = contextlib.suppress(ConnectionError, ValueError, asyncio.CancelledError)
        with contextlib.closing(writer), ends:
            while line := await reader.readline():
                writer.write(json.dumps(await self._answer_line(line)).encode() + b"\n")
                await writer.drain()

    async def _answer_line(self, line: bytes) -> Mapping[str, Any]:
        try:
            request = json.loads(line)
        except ValueError:
            return {"error": {"code": "malformed", "message": "this is not JSON"}}
        try:
            return {"ok": await self.carry_out(request if isinstance(request, dict) else {})}
        except DtpError as error:
            return {"error": {"code": error.code, "message": str(error)}}

    async def carry_out(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the result of the command that `do` of `request` names. Raise `UnknownCommand`, and what the
        command raises."""
        do = request.get("do")
        command = self._commands.get(do) if isinstance(do, str) else None
        if command is None:
            raise UnknownCommand(f"there is no such command; known: {', '.join(self._commands)}")
        return await command(request)


def _make_folder(folder: Path) -> None:
    """Make a folder and its parents, for this user only."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        _check_owner(folder)


async def ask(path: Path, do: str, **arguments: Any) -> Any:
    """Send a command to the daemon at `path`, and return its result. Raise `NotRunning`, or `CommandFailed` with
    its message."""
    try:
        reader, writer = await asyncio.open_unix_connection(os.fspath(path), limit=_MAX_ANSWER)
    except OSError as error:
        raise NotRunning(f"no dtpd answers at {path}: {error.strerror}") from error
    with contextlib.closing(writer):
        writer.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
        line = b""
        with contextlib.suppress(ConnectionError):
            line = await reader.readline()
    if not line:
        raise NotRunning(f"the dtpd at {path} ended before it answered")
    answer = json.loads(line)
    if "error" in answer:
        raise CommandFailed(answer["error"]["message"])
    return answer["ok"]
