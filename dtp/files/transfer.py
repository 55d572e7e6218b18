"""Sending and receiving files on streams: the protocol of `dtp.files`, with disk and hash in threads.

The event loop only passes megabytes on; reading, hashing and writing run beside it, so that neither end's loop
is what limits the speed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from dtp.errors import DtpError, PeerError
from dtp.files import messages as m
from dtp.files.errors import (
    FileChanged,
    FileMissing,
    FileProblem,
    FileTransferError,
    NameRefused,
    NotTheSame,
    TransferRefused,
)
from dtp.files.names import check_name, check_path, open_below, open_regular
from dtp.files.store import CHUNK, MAX_PIECES, IncomingFile, OutgoingFile
from dtp.net.connection import Connection
from dtp.net.stream import Stream
from dtp.session.codes import StreamReset

_T = TypeVar("_T")

#: Received bytes wait at most this long (seconds) to become `CHUNK` before they are written.
_GATHER = 0.05
#: Chunks that are read ahead, or wait to be written: bounds memory, and bridges a thread that waits for its turn.
_AHEAD = 8
#: How long a sender that was stopped waits for the receiver's words (seconds).
_LAST_WORDS = 5.0
_RESETS = {m.RESET_READ: "the file could not be read", m.RESET_CHANGED: "the file changed while it was sent"}


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a transfer is. `done` of `file.size` bytes; the transfer itself began at `begin`.

    In the phase "check" both sides compare what the receiver has from before.
    """

    phase: Literal["check", "move"]
    file: m.FileInfo
    done: int
    begin: int


@dataclass(frozen=True, slots=True)
class Sent:
    """A file that the receiver has whole. `begin`: that many bytes were there before."""

    file: m.FileInfo
    digest: bytes
    begin: int


@dataclass(frozen=True, slots=True)
class Received:
    """A file that came whole, stored at `path`. `begin`: that many bytes were here before."""

    path: Path
    file: m.FileInfo
    digest: bytes
    begin: int


#: Called often, from the event loop.
OnProgress = Callable[[Progress], object]
OnOffer = Callable[[m.FileInfo], Awaitable[None]]


async def send_file(
    connection: Connection,
    path: str | os.PathLike[str],
    *,
    name: str | None = None,
    progress: OnProgress | None = None,
) -> Sent:
    """Send a file to a peer that receives (`receive_file`), under `name` (its own by default).

    Goes on where an earlier transfer broke off. Raises `FileProblem` for the file here, `NameRefused` for its name,
    `TransferRefused` (exists there, disk full...), `FileTransferError`, and what ends a connection.
    """
    path = Path(path)
    try:
        name = check_name(path.name if name is None else name)
    except NameRefused as error:
        raise FileProblem(f"{error}; send it under another name") from None
    with contextlib.closing(OutgoingFile(open_regular(path), name)) as file, _Threads() as threads:
        stream = await connection.open_stream()
        async with _ending(stream):
            await _say(stream, m.Put(file.info))
            return await _Sending(stream, file, threads, progress).send_file()


async def serve_file(
    stream: Stream, root: str | os.PathLike[str], below: str = "", *, progress: OnProgress | None = None
) -> Sent:
    """Answer one stream that wants a file (`fetch_file`) out of the folder `root`, or the file `root` itself.

    `below` goes in front of the path that is asked for. Hidden files and symbolic links are not served. Raises as
    `send_file`; the peer has been told.
    """
    async with _ending(stream):
        wanted = await _hear(stream, m.Get)
        check_path(wanted.name)
        path = "/".join(part for part in (below, wanted.name) if part)
        with contextlib.closing(OutgoingFile(*open_below(Path(root), path))) as file, _Threads() as threads:
            check_name(file.info.name)
            await _say(stream, m.Offer(file.info))
            return await _Sending(stream, file, threads, progress).send_file()


async def tell_file(stream: Stream, root: str | os.PathLike[str], below: str = "") -> m.FileInfo:
    """Answer one stream that asks about a file (`ask_file`) out of the folder `root`, or the file `root` itself; what
    was told. Nothing of it is read. Raises as `serve_file`; the peer has been told."""
    async with _ending(stream):
        wanted = await _hear(stream, m.Get)
        check_path(wanted.name)
        path = "/".join(part for part in (below, wanted.name) if part)
        with contextlib.closing(OutgoingFile(*open_below(Path(root), path))) as file:
            check_name(file.info.name)
            await _say(stream, m.Offer(file.info))
            return file.info


async def ask_file(connection: Connection, path: str = "") -> m.FileInfo:
    """Return what a peer says of a file (`tell_file`): `path` below what the connection's service names.

    Raises `TransferRefused` when the peer has no such file, `FileTransferError`, and what ends a connection.
    """
    check_path(path)
    stream = await connection.open_stream()
    async with _ending(stream):
        await _say(stream, m.Get(path))
        return (await _hear(stream, m.Offer)).file


async def receive_file(
    stream: Stream,
    folder: str | os.PathLike[str],
    *,
    name: str | None = None,
    overwrite: bool = False,
    offered: OnOffer | None = None,
    progress: OnProgress | None = None,
) -> Received:
    """Take the file that a peer sends (`send_file`) on this stream, into `folder`, as `name` or as it calls it.

    `offered` is awaited with what is known of the file, before anything is opened.

    What comes before a cut stays as `NAME.dtp-part` and is used the next time. A file of that name that is there and
    not equal is kept, unless `overwrite`. Raises `FileProblem` (`FileExists`, `NoSpace`, ...), `NameRefused`,
    `NotTheSame`, `FileTransferError`, and what ends a connection; the peer has been told.
    """
    async with _ending(stream):
        offer = await _hear(stream, m.Put)
        if offered is not None:
            await offered(offer.file)
        return await _receive(stream, offer.file, Path(folder), name, overwrite, progress)


async def fetch_file(
    connection: Connection,
    folder: str | os.PathLike[str],
    path: str = "",
    *,
    name: str | None = None,
    overwrite: bool = False,
    progress: OnProgress | None = None,
) -> Received:
    """Get a file from a peer that serves (`serve_file`): `path` below what the connection's service names.

    Stores it and raises as `receive_file` does; `TransferRefused` when the peer has no such file.
    """
    check_path(path)
    stream = await connection.open_stream()
    async with _ending(stream):
        await _say(stream, m.Get(path))
        offer = await _hear(stream, m.Offer)
        return await _receive(stream, offer.file, Path(folder), name, overwrite, progress)


# ---- the two roles --------------------------------------------------------------------------------------


class _Sending:
    """The sender's part, from the receiver's `accept` on."""

    def __init__(
        self, stream: Stream, file: OutgoingFile, threads: _Threads, progress: OnProgress | None
    ) -> None:
        self._stream, self._file, self._threads, self._progress = stream, file, threads, progress

    async def send_file(self) -> Sent:
        stream, file, size = self._stream, self._file, self._file.info.size
        accept = await _hear(stream, m.Accept)
        if accept.have > size:
            raise FileTransferError(f"the peer claims to have {accept.have} of {size} bytes")
        begin = await self._show_beginning(accept.have) if accept.have else 0
        try:
            await self._send_bytes(begin)
            file.check_unchanged()
            digest = file.hash.digest()
            await _say(stream, m.FileEnd(digest))
            await _hear(stream, m.Done)
        except FileChanged:
            stream.reset(m.RESET_CHANGED)
            raise
        except FileProblem:
            stream.reset(m.RESET_READ)
            raise
        except StreamReset as error:
            if error.stopped:  # the receiver gave up, and says why
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LAST_WORDS):
                        await _hear(stream, m.Done)
            raise
        return Sent(file.info, digest, begin)

    async def _show_beginning(self, have: int) -> int:
        """Tell the receiver the digest of as much as it may have; return where it wants the file to begin."""
        file = self._file
        while file.at < have:
            await _finished(self._threads.run_on_disk(file.read_next, have))
            self._report_progress("check", file.at, 0)
        await _say(self._stream, m.Same(file.hash.digest()))
        begin = (await _hear(self._stream, m.Start)).begin
        if begin not in (0, have):
            raise FileTransferError(f"the peer begins at {begin}, which is neither 0 nor {have}")
        if not begin:
            file.rewind()
        return begin

    async def _send_bytes(self, begin: int) -> None:
        """Send what a thread has read and hashed ahead."""
        stream, file, at = self._stream, self._file, begin
        self._report_progress("move", at, begin)
        ahead: deque[Future[bytes]] = deque()
        while at < file.info.size:
            while len(ahead) < _AHEAD:
                ahead.append(self._threads.run_on_disk(file.read_next))
            data = await _finished(ahead.popleft())
            at += len(data)
            stream.write(data)
            await stream.drain()
            self._report_progress("move", at, begin)

    def _report_progress(self, phase: Literal["check", "move"], done: int, begin: int) -> None:
        if self._progress is not None:
            self._progress(Progress(phase, self._file.info, done, begin))


async def _receive(
    stream: Stream,
    info: m.FileInfo,
    folder: Path,
    name: str | None,
    overwrite: bool,
    progress: OnProgress | None,
) -> Received:
    """Return the receiver's part, once it knows what comes."""
    report = progress or (lambda _: None)

    try:
        made = IncomingFile(folder, name or info.name, info, overwrite=overwrite)
        with contextlib.closing(made) as file, _Threads() as threads:
            await _say(stream, m.Accept(file.have))
            begin = await _find_beginning(stream, file, threads, report)
            await _receive_bytes(stream, file, threads, begin, report)
            digest = (await _hear(stream, m.FileEnd)).digest
            if digest != file.hash.digest():
                file.discard()
                raise NotTheSame(
                    f"{info.name} arrived with another content than it was sent with; thrown away"
                )
            file.commit()
    except StreamReset as error:
        if error.error_code in _RESETS:
            raise FileTransferError(f"{info.name}: {_RESETS[error.error_code]} at the peer") from None
        raise
    # The file is here and right, whether or not the peer hears it: the last bytes may have used up the budget.
    with contextlib.suppress(ConnectionError, DtpError):
        await _say(stream, m.Done())
        stream.write_eof()
        await stream.flush()
    return Received(file.path, info, digest, begin)


async def _find_beginning(stream: Stream, file: IncomingFile, threads: _Threads, report: OnProgress) -> int:
    """Return how many bytes of what is here the sender has, too: all or none. `FileExists`.

    The sender has to say their digest: one that was told it could try what is in a file of which it guesses the name
    and the size.
    """
    have = 0
    while have < file.have:
        have += await _finished(threads.submit_hash(file.hash_here, have))
        report(Progress("check", file.info, have, 0))
    if have and (await _hear(stream, m.Same)).digest != file.hash.digest():
        have = 0
    file.begin_at(have)
    if file.have:
        await _say(stream, m.Start(have))
    return have


async def _receive_bytes(
    stream: Stream, file: IncomingFile, threads: _Threads, begin: int, report: OnProgress
) -> None:
    """Have threads write and hash what came, in large pieces, while more comes in."""
    info, at = file.info, begin
    loop = asyncio.get_running_loop()
    pieces: list[bytes] = []
    size, due = 0, 0.0
    jobs: deque[tuple[Future[None], Future[None], int]] = deque()

    async def finish_first() -> None:
        written, hashed, end = jobs.popleft()
        await _finished(written)
        await _finished(hashed)
        report(Progress("move", info, end, begin))

    report(Progress("move", info, at, begin))
    while at < info.size:
        try:
            piece = await stream.read(min(CHUNK, info.size - at))
            if not piece:
                raise FileTransferError(f"the peer ended after {at} of {info.size} bytes")
        except BaseException:
            threads.write_all(file, pieces)  # what has come was paid for, perhaps: it needn't come again
            raise
        pieces.append(piece)
        at += len(piece)
        size += len(piece)
        if size < CHUNK and len(pieces) < MAX_PIECES and at < info.size and loop.time() < due:
            continue
        jobs.append(
            (
                threads.run_on_disk(file.write_pieces, pieces),
                threads.submit_hash(file.hash_pieces, pieces),
                at,
            )
        )
        pieces, size, due = [], 0, loop.time() + _GATHER
        while len(jobs) > _AHEAD or (jobs and jobs[0][0].done() and jobs[0][1].done()):
            await finish_first()
    while jobs:
        await finish_first()


# ---- pieces ---------------------------------------------------------------------------------------------


async def _hear(stream: Stream, kind: type[_T]) -> _T:
    """Return the next message, which has to be a `kind`. `TransferRefused`, `NameRefused`, `FileTransferError`."""
    try:
        size = int.from_bytes(await stream.readexactly(2))
        if size > m.MAX_MESSAGE:
            raise FileTransferError(f"a message of {size} bytes, the most is {m.MAX_MESSAGE}")
        message = m.parse(await stream.readexactly(size))
    except asyncio.IncompleteReadError:
        raise FileTransferError(f"the peer ended where {m.OPS[kind]!r} was due") from None
    if not isinstance(message, kind):
        raise FileTransferError(f"{m.OPS[type(message)]!r} came where {m.OPS[kind]!r} was due")
    return message


async def _say(stream: Stream, message: m.Message) -> None:
    stream.write(m.build(message))
    await stream.drain()


@contextlib.asynccontextmanager
async def _ending(stream: Stream) -> AsyncIterator[None]:
    """Finish the stream; after an error of ours tell the other side which, in a way that it can still read."""
    try:
        yield
    except (FileProblem, NameRefused, FileTransferError) as error:
        # What the peer did wrong it may read; paths and the state of this machine are none of its business.
        told = str(error) if isinstance(error, PeerError | FileMissing) else m.REFUSALS[error.refusal]
        with contextlib.suppress(ConnectionError, DtpError):
            stream.write(m.build(m.FileRefusal(error.refusal, told)))
        stream.write_eof()
        stream.stop()
        raise
    except TransferRefused:
        stream.close()
        raise
    except BaseException:
        stream.reset()
        raise
    stream.write_eof()


class _Threads:
    """Two threads for as long as a file moves, one for the disk and one for the hash. Each does its jobs in order.

    What they begin are futures of `concurrent.futures`: a loop that doesn't have to wait for one (see `finished`)
    isn't woken by it, which on a busy machine costs more than the job.
    """

    def __init__(self) -> None:
        self._disk = ThreadPoolExecutor(1, "dtp-disk")
        self._hash = ThreadPoolExecutor(1, "dtp-hash")

    def run_on_disk(self, function: Callable[..., _T], *arguments: object) -> Future[_T]:
        """Begin `function(*arguments)` in the disk's thread."""
        return self._disk.submit(function, *arguments)

    def submit_hash(self, function: Callable[..., _T], *arguments: object) -> Future[_T]:
        """Begin `function(*arguments)` in the hash's thread."""
        return self._hash.submit(function, *arguments)

    def write_all(self, file: IncomingFile, pieces: list[bytes]) -> None:
        """Write these last bytes behind all that waits, in whatever way the transfer ends."""
        if pieces:
            self.run_on_disk(file.write_pieces, pieces)

    def __enter__(self) -> _Threads:
        return self

    def __exit__(self, *_: object) -> None:
        # The file is closed behind this. The disk does all that waits for it, which is `_AHEAD` chunks: where writes
        # are taken out of the queue while its thread takes them, too, one in the middle could be missing.
        self._hash.shutdown(cancel_futures=True)
        self._disk.shutdown()


async def _finished(job: Future[_T]) -> _T:
    """Return the result of a job, waiting only if it isn't there yet.

    Who is cancelled meanwhile doesn't take it back: writes that come after it would take its place.
    """
    return job.result() if job.done() else await asyncio.shield(asyncio.wrap_future(job))
