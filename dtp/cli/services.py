"""What `dtp serve` can serve: each kind is a class that takes one stream. `KINDS` is the table of them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shlex
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import click

from dtp.cli.output import print_line
from dtp.cli.site import Peeked, is_http, serve_http
from dtp.errors import DtpError
from dtp.files import check_name, serve_file, tell_file
from dtp.net.connection import Connection
from dtp.net.relay import copy, relay
from dtp.net.stream import Stream
from dtp.plurals import count_of
from dtp.tasks import TaskSet, start_task

#: Buffer of a pipe or socket on this side of a stream, bytes.
_BUFFER = 1024 * 1024
#: How long a program whose client is gone has to end after SIGTERM, seconds.
_GRACE = 5.0
#: `NAME=VALUE`; a value that looks like that itself can be written ./NAME=VALUE.
_NAMED = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._/-]*)=(?P<value>.*)", re.DOTALL)
_HOST_PORT = re.compile(
    r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+(?:%\w+)?)\]|(?P<host>[^:\[\]/\s]+)):(?P<port>[0-9]{1,5})"
)

#: Error codes of RESET, and of CLOSE where the stream was the only one.
CANT_SERVE = 1


class NamedService:
    """A named service. `name` is without what comes below it, such as the path of a file."""

    kind: str
    #: Whether names below this one (`files/a/b`) are its own.
    has_below = False

    def __init__(self, name: str, value: str) -> None:
        self.name = name
        self.value = value

    def check_options(self) -> None:
        """Refuse what can't work, before anybody is let in. `click.UsageError`."""

    async def serve_stream(self, connection: Connection, stream: Stream, below: str) -> None:
        """Serve one stream. A `DtpError` or `OSError` ends that stream."""
        raise NotImplementedError


class EchoService(NamedService):
    """Sends back what it gets."""

    kind = "echo"

    async def serve_stream(self, connection: Connection, stream: Stream, below: str) -> None:
        """Send back what comes, until the peer has finished."""
        await copy(stream, stream)


class FileService(NamedService):
    """Gives files out of a folder, or one file."""

    kind = "file"
    has_below = True

    def __init__(self, name: str, value: str) -> None:
        super().__init__(name, value)
        self._root = Path(value)
        if not self._root.exists():
            raise click.UsageError(f"--{self.kind}: there is no {value}")
        if not self._root.is_dir():
            check_name(self._root.name)

    async def describe_file(self, stream: Stream, below: str) -> None:
        """Say what a file is, and give nothing of it."""
        await tell_file(stream, self._root, below)

    async def serve_stream(self, connection: Connection, stream: Stream, below: str) -> None:
        """Send one file."""
        try:
            sent = await serve_file(stream, self._root, below)
        except DtpError as error:  # the peer was told; a reset would overtake the words
            print_failed(self, connection, error)
            return
        print_line(
            {
                "event": "sent",
                "service": self.name,
                "peer": str(connection.peer),
                "name": sent.file.name,
                "size": sent.file.size,
                "from": sent.begin,
                "sha256": sent.digest.hex(),
            },
            f"{self.name}: sent {sent.file.name} ({count_of(sent.file.size, 'byte')}) to {connection.peer.short}",
            err=True,
        )


class SiteService(FileService):
    """A folder as a website, and its files for `dtp recv`: by what the client says first."""

    kind = "http"

    async def serve_stream(self, connection: Connection, stream: Stream, below: str) -> None:
        """Serve a file, or HTTP requests until the client has no more."""
        first = await stream.read(1)
        again = cast(Stream, Peeked(stream, first))
        if is_http(first):
            await serve_http(again, self._root, below)
        else:
            await super().serve_stream(connection, again, below)


class ExecService(NamedService):
    """Runs a program for each stream: what comes is its input, its output goes back.

    An exit status other than 0 closes the connection with it as the code, or resets the stream with it where the
    connection has others. The program finds the client's identity in `$DTP_PEER`.
    """

    kind = "exec"

    def __init__(self, name: str, value: str) -> None:
        super().__init__(name, value)
        try:
            self._command = shlex.split(value)
        except ValueError as error:
            raise click.UsageError(f"--exec {value!r}: {error}") from None
        if not self._command:
            raise click.UsageError("--exec needs a program")

    def check_options(self) -> None:
        """Refuse a program that isn't there. `click.UsageError`."""
        if shutil.which(self._command[0]) is None:
            raise click.UsageError(f"--exec: there is no program {self._command[0]}")

    async def serve_stream(self, connection: Connection, stream: Stream, below: str) -> None:
        """Join the stream to a program of its own, until that has ended."""
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env={**os.environ, "DTP_PEER": str(connection.peer), "DTP_SERVICE": connection.service},
                limit=_BUFFER,
                start_new_session=True,  # Ctrl-C is for us; we tell the program
            )
        except OSError as error:
            print_failed(self, connection, error)
            await fail(connection, stream, CANT_SERVE, "the program of this service can't be started")
            return
        assert process.stdin is not None
        assert process.stdout is not None
        feeding = start_task(self._feed_input(stream, process.stdin), name="dtp-feed")
        reading = start_task(self._copy_output(process.stdout, stream), name="dtp-give")
        try:
            await asyncio.wait((feeding, reading), return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                await feeding  # raises if the client is gone; else its input has ended
            await reading
            status = await process.wait()
        finally:
            feeding.cancel()
            reading.cancel()
            await asyncio.gather(feeding, reading, return_exceptions=True)
            await _end(process)
        if status:
            status = 128 - status if status < 0 else status
            await stream.flush()
            await fail(connection, stream, status, f"exit status {status}")
        else:
            stream.close()

    @staticmethod
    async def _feed_input(stream: Stream, stdin: asyncio.StreamWriter) -> None:
        while data := await stream.read(_BUFFER):
            try:
                stdin.write(data)
                await stdin.drain()
            except (BrokenPipeError, ConnectionResetError):  # the program reads no more, and may still write
                stream.stop()
                return
        stdin.close()

    @staticmethod
    async def _copy_output(stdout: asyncio.StreamReader, stream: Stream) -> None:
        while data := await stdout.read(_BUFFER):
            stream.write(data)
            await stream.drain()


async def _end(process: asyncio.subprocess.Process) -> None:
    """End the program and what it started, if that isn't over. Its pipes are closed when they are at their end."""
    assert process.stdin is not None
    process.stdin.close()
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GRACE):
                await _drop(process.stdout)
                await process.wait()
                return


async def _drop(stdout: asyncio.StreamReader | None) -> None:
    assert stdout is not None
    while await stdout.read(_BUFFER):
        pass


class ForwardService(NamedService):
    """Passes each stream on to a TCP or Unix socket."""

    kind = "forward"

    def __init__(self, name: str, value: str) -> None:
        super().__init__(name, value)
        self._path = value.removeprefix("unix:") if value.startswith("unix:") else ""
        match = _HOST_PORT.fullmatch(value)
        if match is not None and 0 < int(match["port"]) < 65536:
            self._host, self._port = match["ipv6"] or match["host"], int(match["port"])
        elif not self._path:
            raise click.UsageError(f"--forward {value!r}: HOST:PORT or unix:/PATH is needed")

    async def serve_stream(self, connection: Connection, stream: Stream, below: str) -> None:
        """Relay until both directions have ended."""
        try:
            if self._path:
                reader, writer = await asyncio.open_unix_connection(self._path, limit=_BUFFER)
            else:
                reader, writer = await asyncio.open_connection(self._host, self._port, limit=_BUFFER)
        except OSError as error:
            print_line(
                {"event": "unreachable", "service": self.name, "target": self.value, "reason": str(error)},
                f"{self.name}: can't reach {self.value}: {error}",
                err=True,
            )
            await fail(connection, stream, CANT_SERVE, "the service behind this one can't be reached")
            return
        try:
            await relay((stream, stream), (reader, writer))
        except BaseException:
            writer.transport.abort()
            raise
        writer.close()


async def fail(connection: Connection, stream: Stream, code: int, reason: str) -> None:
    """Say that a stream failed: by closing the connection, which has words, if nothing else runs on it."""
    if connection.stats.streams > 1:
        stream.reset(code)
    else:
        await connection.close(code, reason)


class RelayService(NamedService):
    """Relays between peers that can't dial each other; it sees who talks with whom, and ciphertext."""

    kind = "relay"

    def __init__(self, name: str, value: str) -> None:
        super().__init__(name, value)
        from dtp.peers.reach.relay import Relay

        self._relay = Relay()

    async def serve_stream(self, connection: Connection, stream: Stream, below: str) -> None:
        """Serve a reservation, or a circuit until either end has had enough."""
        await self._relay.answer_stream(connection, stream)


#: Option of `dtp serve` -> what it makes, and the name of the service where none is given.
KINDS: Mapping[str, tuple[type[NamedService], str]] = {
    "echo": (EchoService, "echo"),
    "file": (FileService, "files"),
    "exec": (ExecService, "exec"),
    "forward": (ForwardService, "forward"),
    "http": (SiteService, "site"),
    "relay": (RelayService, "dtp.relay"),
}


def make(kind: str, text: str) -> NamedService:
    """Return the service that an option of `KINDS` with the value `text` ([NAME=]VALUE) means. `click.UsageError`."""
    service, name = KINDS[kind]
    match = _NAMED.fullmatch(text)
    return service(match["name"], match["value"]) if match else service(name, text)


class ServiceDirectory:
    """The services of one listener by name; the first is also the default one, ""."""

    def __init__(self, services: list[NamedService]) -> None:
        self._by_name = {service.name: service for service in services}
        if len(self._by_name) < len(services):
            raise click.UsageError("two services have one name; name them: --exec NAME=COMMAND")
        self._default = services[0]

    def find_service(self, name: str) -> tuple[NamedService, str] | None:
        """Return the service that `name` means and what of the name is below it; None if there is none."""
        if not name:
            return self._default, ""
        if name in self._by_name:
            return self._by_name[name], ""
        for service in self._by_name.values():
            if service.has_below and name.startswith(service.name + "/"):
                return service, name[len(service.name) + 1 :]
        return None

    async def serve_connection(self, connection: Connection) -> None:
        """Serve every stream of a connection, until it is over."""
        found = self.find_service(connection.service)
        assert found is not None, "checked before it was admitted"
        tasks = TaskSet()
        try:
            while True:
                stream = await connection.accept_stream()
                tasks.start(self._serve_stream(*found, connection, stream), name="dtp-service")
        finally:
            await tasks.stop()

    async def describe_file(self, connection: Connection, name: str) -> None:
        """Answer who asks about a file of a service of ours; nothing else is told."""
        found = self.find_service(name)
        if found is None or not isinstance(found[0], FileService):
            await connection.close(CANT_SERVE, "nothing is told of this service")
            return
        with contextlib.suppress(DtpError):  # the peer was told
            await found[0].describe_file(await connection.accept_stream(), found[1])

    async def _serve_stream(
        self, service: NamedService, below: str, connection: Connection, stream: Stream
    ) -> None:
        try:
            await service.serve_stream(connection, stream, below)
        except (DtpError, OSError) as error:
            stream.reset(CANT_SERVE)
            print_failed(service, connection, error)


def print_failed(service: NamedService, connection: Connection, error: DtpError | OSError) -> None:
    """Say that a stream was not served to its end; not worth a word when the peer has left."""
    if not connection.closed:
        print_line(
            {
                "event": "failed",
                "service": service.name,
                "peer": str(connection.peer),
                "reason": str(error),
            },
            f"{service.name}: {connection.peer.short}: {error}",
            err=True,
        )
