"""Finished shows by their hash: whoever has a recording serves it, and others fetch it from them.

Format: docs/broadcast.md, "Recordings by hash".
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from hashlib import file_digest, sha256
from pathlib import Path
from struct import Struct
from typing import BinaryIO, ClassVar, Final

from dtp.broadcast.errors import SegmentError, ShowMessageError
from dtp.broadcast.fetching import Dial, dial_told
from dtp.broadcast.recording import Recording, RecordingError
from dtp.carriers.nearness import Nearness
from dtp.errors import CarrierError, DtpError, PeerError
from dtp.files.names import part_name
from dtp.net.address import Address
from dtp.net.connection import Connection
from dtp.net.stream import Stream
from dtp.node.node import Node
from dtp.replacing import rename_without_replacing
from dtp.tasks import TaskSet

log = logging.getLogger("dtp.broadcast")

#: The service that recordings are fetched from.
RECORDINGS: Final = "recordings"
#: The default for the most bytes of a recording that is fetched: a week at 4 Mbit/s. A liar can't fill a larger
#: disk.
MOST: Final = 320 * 1024**3
#: The hash of a recording, and the first byte that is wanted. The answer begins with the size of the whole.
_ASKED: Final = Struct(">32sQ")
_SIZE: Final = Struct(">Q")
#: Bytes that are read and sent at once.
_PART: Final = 256 * 1024
#: Seconds to send the request, and without a byte of the answer.
_PATIENCE: Final = 30.0
#: The most streams of one connection; one is enough to fetch.
_STREAMS: Final = 4


class RecordingAbsent(CarrierError):
    """Nobody has the recording with this hash now. Trying again later may help."""

    code: ClassVar[str] = "recording-absent"


class RecordingServer:
    """Serves recordings to whoever knows their hash. `serve_connection` is the handler of a service."""

    def __init__(self, paths: Iterable[Path]) -> None:
        """Read the files to check them, and to compute their hashes.

        Raise `RecordingError` for one that is damaged or can't be read, `ShowMessageError` for one that isn't a
        show.
        """
        #: The files that are served, by SHA-256.
        self.files: dict[bytes, Path] = {}
        for path in paths:
            with contextlib.closing(Recording(path)) as recording, open(path, "rb") as file:
                try:
                    deque(recording.segments(), maxlen=0)
                except (SegmentError, ShowMessageError) as fault:
                    raise RecordingError(f"{path} is damaged, and isn't served: {fault}") from fault
                self.files[file_digest(file, "sha256").digest()] = path

    async def serve_connection(self, connection: Connection) -> None:
        """Serve one connection, until it ends."""
        tasks = TaskSet(on_error=lambda task, fault: log.info("%s: %s", connection.peer.short, fault))
        try:
            async for stream in connection:
                if len(tasks) >= _STREAMS:
                    stream.reset()
                else:
                    tasks.start(self._answer_stream(connection, stream), name="dtp-recording-sent")
        finally:
            await tasks.stop()

    async def _answer_stream(self, connection: Connection, stream: Stream) -> None:
        try:
            async with asyncio.timeout(_PATIENCE):
                digest, begin = _ASKED.unpack(await stream.readexactly(_ASKED.size))
            path = self.files.get(digest)
            if path is None:
                stream.reset()
                return
            with await asyncio.to_thread(path.open, "rb") as file:
                size = os.fstat(file.fileno()).st_size
                file.seek(min(begin, size))
                stream.write(_SIZE.pack(size))
                while data := await asyncio.to_thread(file.read, _PART):
                    stream.write(data)
                    await stream.drain()
            stream.write_eof()
            await stream.flush()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, DtpError) as fault:
            log.info("%s is sent no recording: %s", connection.peer.short, fault)
            stream.reset()


async def places_in_dht(node: Node, digest: bytes) -> list[str]:
    """Return addresses of peers that say in the DHT that they have a recording. Raise as `Dht.providers` does."""
    found = await node.dht.providers(digest)
    return [str(Address("dtp", peer=each.peer, service=RECORDINGS)) for each in found]


def dial_found(node: Node, given: Collection[str]) -> Dial:
    """Return a function that dials as `node` does. Peers whose addresses weren't `given` are dialled as reported by
    those who know where they are, who may be anywhere in the DHT."""

    def find_teller(address: str) -> Nearness | None:
        peer = Address.parse(address).peer
        if address in given:
            return None
        return Nearness.ANYWHERE if peer is None else node.teller_of(peer)

    return dial_told(node.connect, find_teller)


async def fetch_recording(
    digest: bytes, path: Path, places: Sequence[str], dial: Dial, *, most: int = MOST
) -> None:
    """Fetch the recording with this SHA-256 into a new file, from the first of the addresses that has all of it.

    If one breaks off, the next continues. If the parts together have another hash, each is asked for all of it.
    Until it is verified, the file's name ends with `PART_SUFFIX`. Raise `RecordingAbsent`; and `RecordingError` if
    the file already exists or can't be written.
    """
    if await asyncio.to_thread(path.exists):
        raise RecordingError(f"can't fetch to {path}: the file is there already")
    at = path.with_name(part_name(path.name))
    try:
        with await asyncio.to_thread(at.open, "w+b") as file:
            part = _Part(file)
            await _fetch(digest, part, places, dial, most)
            await asyncio.to_thread(part.sync)
        rename_without_replacing(at, path)
    except DtpError:
        raise
    except FileExistsError:
        raise RecordingError(f"can't fetch to {path}: the file was made meanwhile by somebody else") from None
    except OSError as fault:
        raise RecordingError(f"can't fetch to {path}: {fault.strerror}") from fault
    finally:
        at.unlink(missing_ok=True)


class _Part:
    """What has come so far, in a file, and its hash."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._hash, self.size = file, sha256(), 0

    def add_data(self, data: bytes) -> None:
        self._file.write(data)
        self._hash.update(data)
        self.size += len(data)

    def restart(self) -> None:
        self._file.seek(0)
        self._file.truncate()
        self._hash, self.size = sha256(), 0

    def sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())

    @property
    def digest(self) -> bytes:
        return self._hash.digest()


async def _fetch(digest: bytes, part: _Part, places: Sequence[str], dial: Dial, most: int) -> None:
    why = "nobody says to have it"
    for goes_on in (True, False):
        for place in places:
            if not goes_on:
                part.restart()
            try:
                await _take(digest, part, place, dial, most)
            except (DtpError, TimeoutError, asyncio.IncompleteReadError) as fault:
                why = f"{place}: {fault or 'no answer'}"
                continue
            if part.digest == digest:
                return
            why = f"what {place} gave has another hash"
            part.restart()
    raise RecordingAbsent(f"nobody gives the recording {digest.hex()}: {why}")


async def _take(digest: bytes, part: _Part, place: str, dial: Dial, most: int) -> None:
    """Fetch what is missing from one address; return once its end was reached."""
    async with dial(place) as connection, await connection.open_stream() as stream:
        stream.write(_ASKED.pack(digest, part.size))
        stream.write_eof()
        async with asyncio.timeout(_PATIENCE):
            (size,) = _SIZE.unpack(await stream.readexactly(_SIZE.size))
        if not part.size <= size <= most:
            raise PeerError(f"it says that the recording has {size} bytes")
        while part.size < size:
            async with asyncio.timeout(_PATIENCE):
                data = await stream.read(min(_PART, size - part.size))
            if not data:
                raise PeerError("it broke off")
            await asyncio.to_thread(part.add_data, data)
