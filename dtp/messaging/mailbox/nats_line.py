"""A mailbox's connection to JetStream: a thread with a loop, a client, and the index that follows the stream.

If the connection breaks, or a server doesn't answer, both the connection and the index are made anew.
"""

from __future__ import annotations

import asyncio
import bisect
import json
import re
import threading
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from functools import partial
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from dtp.certificates import is_refused_for_good
from dtp.errors import LocalError
from dtp.gossip.engines.nats import split_servers
from dtp.messaging.errors import StoreAway, StoreFailed, StoreUnusable
from dtp.messaging.mailbox.store import Tray
from dtp.messaging.mailbox.stream_index import HEADER, Facts, Row, StreamIndex

try:
    import nats.errors
    import nats.js.errors
    from nats.aio.client import Client
    from nats.aio.msg import Msg
    from nats.js import JetStreamContext
    from nats.js.api import (
        AckPolicy,
        ConsumerConfig,
        DeliverPolicy,
        DiscardPolicy,
        RawStreamMsg,
        StreamConfig,
    )
except ImportError as error:
    raise StoreUnusable("a mailbox in NATS needs a package: pip install 'dtp-sockets[nats]'") from error

#: Seconds to wait for a connection, and for an answer. A server that sends nothing at all counts as gone after two
#: intervals of the second value.
_PATIENCE: Final = 5.0
_PING_SECONDS: Final = 3
#: Seconds to wait until the index is read: a million headers.
_READ_SECONDS: Final = 60.0
#: Seconds until the next attempt to connect.
_PAUSE: Final = 0.25
#: Seconds between two checks whether the index is complete.
_LOOK_SECONDS: Final = 0.02
#: Requests under way at once.
_AT_ONCE: Final = 256
#: JetStream's code for a message whose expected last sequence of its subject is wrong.
_WRONG_LAST: Final = 10071
#: ... and for a missing stream. A server also says this while its cluster has no leader that knows the stream.
_NO_STREAM: Final = 10059
_NO_JETSTREAM: Final = "this server has no JetStream: start it with -js"

#: Allowed names of streams: they are a word of subjects, and names of files at the server.
_STREAM: Final = re.compile(r"[A-Za-z0-9_-]{1,255}")

_FAULTS: Final = (nats.errors.Error, nats.js.errors.Error, OSError, TimeoutError)
_T = TypeVar("_T")


class Line:
    """A connection to the stream that a URL names. Its calls block, and raise `StoreAway` within seconds."""

    def __init__(self, url: str, most_bytes: int) -> None:
        """Connect, and read the index. Raise `StoreUnusable` if the server refuses for good, else `StoreAway`."""
        self._servers, self.name = parse_servers(url)
        self._most_bytes = most_bytes
        self._index = StreamIndex()
        self.came: Callable[[bytes], None] | None = None
        self._client: Client | None = None
        self._stream: JetStreamContext | None = None
        #: True once the index has everything that was in the stream when reading began.
        self._is_read = False
        self._told: list[tuple[int, asyncio.Future[None]]] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="dtp-mailbox-nats", daemon=True)
        self._thread.start()
        self._closed = False
        try:
            self.run_in_loop(self._open_stream(), "opened")
        except StoreFailed:
            self.close()
            raise
        self._follower = asyncio.run_coroutine_threadsafe(self._keep_connected(), self._loop)

    def close(self) -> None:
        """Disconnect. Idempotent."""
        if not self._closed:
            self._closed = True
            asyncio.run_coroutine_threadsafe(self._end_loop(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    async def _end_loop(self) -> None:
        await self._drop_connection()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)  # one may be connecting

    def run_in_loop(self, work: Coroutine[Any, Any, _T], what: str) -> _T:
        """Return what `work` returns in the loop. Raise `StoreFailed`, which says what could not be done (`what`)."""
        if self._closed:
            work.close()
            raise StoreFailed("this mailbox is closed")
        return asyncio.run_coroutine_threadsafe(self._run_translated(work, what), self._loop).result()

    async def _run_translated(self, work: Coroutine[Any, Any, _T], what: str) -> _T:
        try:
            return await work
        except _FAULTS as fault:
            silent = isinstance(fault, TimeoutError)
            if silent:
                await self._drop_connection()
            raise _failed(fault, what, self._servers) from fault

    # ---- the connection ----------------------------------------------------------------------------------------

    async def _open_stream(self) -> None:
        await self._drop_connection()
        client = await _connect_client(self._servers)
        self._client, self._index, self._is_read = client, (index := StreamIndex()), False
        _check_payload(client, self._most_bytes)
        self._stream = client.jetstream(timeout=_PATIENCE)
        await self._make_stream(self._stream)
        await client.subscribe(f"{self.name}.gone", cb=partial(_on_gone, index))
        await self._stream.subscribe(
            f"{self.name}.row.>", stream=self.name, ordered_consumer=True, cb=partial(self._on_row, index),
            config=ConsumerConfig(
                deliver_policy=DeliverPolicy.ALL, ack_policy=AckPolicy.NONE, headers_only=True
            ),
        )  # fmt: skip
        await self._read_all(self._stream, _READ_SECONDS)
        await self._check_complete(self._stream)
        self._is_read = True

    async def _read_all(self, stream: JetStreamContext, patience: float) -> None:
        """Wait until the index has all that the stream has now. Raise `TimeoutError` after `patience` seconds."""
        async with asyncio.timeout(patience):
            while self._index.seen < await self._find_last(stream):  # noqa: ASYNC110 - it may be deleted unnoticed
                await asyncio.sleep(_LOOK_SECONDS)

    async def _check_complete(self, stream: JetStreamContext) -> None:
        """Raise `StoreAway` if the index lacks some of the stream's messages: a server that has just started may
        deliver the last messages and leave out the first ones.
        """
        before = self._index.gone
        there = (await stream.stream_info(self.name)).state
        await self._read_all(stream, _PATIENCE)
        found = self._index.count_rows(there.last_seq) + self._index.gone - before
        if found < there.messages:
            raise StoreAway(
                f"the mailbox in NATS could not be opened: its server tells of {found} of {there.messages} messages"
            )

    async def _find_last(self, stream: JetStreamContext) -> int:
        """Return the number of the last message in the stream, 0 if there is none. The server that leads the stream
        is asked, since one that only follows may have fewer messages, and so may a consumer there.
        """
        try:
            return (await stream.get_msg(self.name, subject=f"{self.name}.row.>")).seq or 0
        except nats.js.errors.NotFoundError as fault:
            _check_stream_is_there(fault)
            return 0

    async def _make_stream(self, stream: JetStreamContext) -> None:
        try:
            found = await stream.stream_info(self.name)
        except nats.js.errors.NotFoundError:
            # A full stream refuses new messages: it drops none that wait.
            config = StreamConfig(
                name=self.name, subjects=[f"{self.name}.row.>"], max_msgs_per_subject=1,
                discard=DiscardPolicy.NEW, duplicate_window=1,
            )  # fmt: skip
            await stream.add_stream(config)
            return
        if found.config.discard != DiscardPolicy.NEW:
            await stream.update_stream(found.config, discard=DiscardPolicy.NEW)

    async def _drop_connection(self) -> None:
        client, self._client, self._stream = self._client, None, None
        for _, waiting in self._told:
            if not waiting.done():
                waiting.set_exception(nats.errors.ConnectionClosedError())
        self._told.clear()
        if client is not None and not client.is_closed:
            await _let_go(client)

    async def _keep_connected(self) -> None:
        """Connect again whenever the connection was lost, also while nobody calls: what other processes keep has to
        be pushed.
        """
        while True:
            await asyncio.sleep(_PAUSE)
            if self._client is not None and not self._client.is_closed:
                continue
            try:
                await self._open_stream()
            except (*_FAULTS, StoreFailed):
                await self._drop_connection()
                continue
            if self.came is not None:
                self.came(b"")  # whatever came meanwhile is found by looking

    @property
    def index(self) -> StreamIndex:
        """The index of the stream. Raise `ConnectionClosedError` while it isn't complete: an incomplete index might
        miss something that is there.
        """
        self._check_connected()
        return self._index

    def _check_connected(self) -> JetStreamContext:
        stream, client = self._stream, self._client
        if stream is None or client is None or client.is_closed or not self._is_read:
            raise nats.errors.ConnectionClosedError
        return stream

    # ---- messages of the stream --------------------------------------------------------------------------------

    async def _on_row(self, index: StreamIndex, message: Msg) -> None:
        number, row = message.metadata.sequence.stream, _row_of(message)
        index.add_row(number, row)
        if index is not self._index:
            return  # from a connection that was given up
        while self._told and self._told[0][0] <= number:
            _, waiting = self._told.pop(0)
            if not waiting.done():
                waiting.set_result(None)
        if self.came is not None and row.tray is not None and self._is_read:
            self.came(row.device)

    # ---- rows --------------------------------------------------------------------------------------------------

    async def put_row(self, row: Row, body: bytes, last: int | None = 0) -> bool:
        """Store a row, and wait until the index has it. Return False if the last row of its subject isn't number
        `last`; with None it may be any.
        """
        stream = self._check_connected()
        headers = {HEADER: _header_of(row), "Nats-Expected-Last-Subject-Sequence": str(last)}
        if last is None:
            del headers["Nats-Expected-Last-Subject-Sequence"]
        try:
            kept = await stream.publish(f"{self.name}.row.{_subject_of(row)}", body, headers=headers)
        except nats.js.errors.APIError as refused:
            if refused.err_code == _WRONG_LAST:
                return False
            raise
        await self._wait_told(kept.seq)
        return True

    async def _wait_told(self, number: int) -> None:
        """Wait until the index has the stream's messages up to this number."""
        if number > self._index.seen:
            told: asyncio.Future[None] = self._loop.create_future()
            bisect.insort(self._told, (number, told), key=lambda each: each[0])
            async with asyncio.timeout(_PATIENCE):
                await told

    async def get_body(self, number: int) -> bytes | None:
        """Return the body of the row with this number, None if it is gone."""
        stream = self._check_connected()
        try:
            found: RawStreamMsg = await stream.get_msg(self.name, number)
        except nats.js.errors.NotFoundError as fault:
            _check_stream_is_there(fault)
            self._index.forget_rows([number])
            return None
        return found.data or b""

    async def forget_rows(self, numbers: Iterable[int]) -> None:
        """Delete rows, and notify the other processes."""
        gone = list(numbers)
        await self.map_values(gone, self._forget_row)
        if gone and self._client is not None:
            self._index.forget_rows(gone)
            await self._client.publish(f"{self.name}.gone", json.dumps(gone).encode())
            await self._client.flush(timeout=int(_PATIENCE))

    async def _forget_row(self, number: int) -> None:
        stream = self._check_connected()
        try:
            await stream.delete_msg(self.name, number)
        except (
            nats.js.errors.NotFoundError,
            nats.js.errors.BadRequestError,
            nats.js.errors.ServerError,
        ) as fault:
            _check_stream_is_there(fault)  # otherwise another process has deleted it

    async def query_index(self, look: Callable[[], _T]) -> _T:
        """Call `look` in the thread of the index, and return what it returns."""
        return look()

    async def catch_up(self) -> None:
        """Wait until the index has all that the stream has now."""
        stream = self._check_connected()
        await self._read_all(stream, _PATIENCE)

    async def map_values(
        self, values: Iterable[Any], work: Callable[[Any], Coroutine[Any, Any, _T]]
    ) -> list[_T]:
        """Return what `work` returns for each value, with some hundred calls at a time."""
        slots = asyncio.Semaphore(_AT_ONCE)

        async def take(value: Any) -> _T:
            async with slots:
                return await work(value)

        return list(await asyncio.gather(*(take(value) for value in values)))


async def _on_gone(index: StreamIndex, message: Msg) -> None:
    index.forget_rows(json.loads(message.data))


async def _connect_client(servers: list[str]) -> Client:
    client = Client()
    try:
        await client.connect(
            servers, connect_timeout=int(_PATIENCE), error_cb=_ignore, ping_interval=_PING_SECONDS,
            max_outstanding_pings=1, allow_reconnect=False, max_reconnect_attempts=1, reconnect_time_wait=0,
        )  # fmt: skip
    except (*_FAULTS, asyncio.CancelledError):
        await _let_go(client)  # a client that was refused still has a socket
        raise
    return client


def _check_payload(client: Client, most_bytes: int) -> None:
    if client.max_payload < most_bytes:
        what = f"its max_payload is {client.max_payload:,} bytes, and a mailbox takes {most_bytes:,}"
        raise StoreUnusable(f"the mailbox in NATS could not be opened: {what}")


def look_at(url: str, most_bytes: int) -> None:
    """Connect to the servers of `url` and check that they have JetStream and accept messages of so many bytes.
    Nothing is changed.

    Raise `StoreUnusable` if the server refuses for good, else `StoreAway`.
    """
    servers, name = parse_servers(url)

    async def look() -> None:
        client = await _connect_client(servers)
        try:
            _check_payload(client, most_bytes)
            with suppress(nats.js.errors.NotFoundError):
                await client.jetstream(timeout=_PATIENCE).stream_info(name)
        finally:
            await _let_go(client)

    try:
        asyncio.run(look())
    except _FAULTS as fault:
        raise _failed(fault, "looked at", servers) from fault


async def _let_go(client: Client) -> None:
    """Close a client, and ignore faults. After a failed TLS handshake closing would wait forever."""
    with suppress(*_FAULTS):
        async with asyncio.timeout(_PATIENCE):
            await client.close()


def parse_servers(url: str) -> tuple[list[str], str]:
    """Return the servers that `nats://[USER:PASSWORD@]HOST:PORT[,HOST:PORT...][/NAME]` names, and the name of the
    stream. Raise `StoreUnusable` if the URL names no server, or an impossible stream.
    """
    parts = urlsplit(url)
    name = parts.path.strip("/") or "dtp_mailbox"
    try:
        servers = split_servers(f"{parts.scheme}://{parts.netloc}")
    except LocalError:
        servers = []
    if not servers or not _STREAM.fullmatch(name):
        example = "nats://[USER:PASSWORD@]HOST:PORT[,HOST:PORT...][/NAME]"
        raise StoreUnusable(
            f"the mailbox in NATS: the URL has to be as in {example}, and the stream's name has no dots"
        )
    return servers, name


async def _ignore(fault: Exception) -> None:
    """Ignore what the client reports: calls fail by themselves, and the connection is made anew."""


def _check_stream_is_there(fault: nats.js.errors.APIError) -> None:
    """Raise `fault` if it says that the stream is missing: then nothing is known about its contents."""
    if fault.err_code == _NO_STREAM:
        raise fault


def _failed(fault: Exception, what: str, servers: list[str]) -> StoreFailed:
    named = ", ".join(urlsplit(each).netloc.rpartition("@")[2] for each in servers)
    text = _NO_JETSTREAM if _has_none(fault) else str(fault) or type(fault).__name__
    message = f"the mailbox in NATS could not be {what}: {named}: {text}"
    return StoreUnusable(message) if _is_final(fault) else StoreAway(message)


def _has_none(fault: Exception) -> bool:
    """Return whether a server says with `fault` that it has no JetStream, or none for this account."""
    return isinstance(fault, nats.js.errors.ServiceUnavailableError) and fault.err_code in (
        None,
        10039,
        10076,
    )


def _is_final(fault: Exception) -> bool:
    """Return whether trying again doesn't help."""
    refused = isinstance(fault, nats.errors.AuthorizationError) or "authorization" in str(fault).lower()
    return refused or _has_none(fault) or is_refused_for_good(fault)


def _subject_of(row: Row) -> str:
    if row.swept:
        return f"swept.{row.device.hex()}"
    if row.facts is not None:
        return f"device.{row.device.hex()}"
    kind = "piece" if row.tray is None else f"envelope{int(row.tray)}"
    return f"{kind}.{row.device.hex()}.{row.digest.hex()}"


def _header_of(row: Row) -> str:
    if row.swept:
        return json.dumps(row.swept)
    return row.facts.encode() if row.facts else json.dumps([row.received, row.expires, row.size])


def _row_of(message: Msg) -> Row:
    """Return the row that a message of the stream encodes."""
    kind, device, *digest = message.subject.split(".")[2:]
    header = (message.headers or {})[HEADER]
    if kind == "device":
        return Row(bytes.fromhex(device), facts=Facts.decode(header))
    if kind == "swept":
        return Row(bytes.fromhex(device), swept=json.loads(header))
    tray = None if kind == "piece" else Tray(int(kind.removeprefix("envelope")))
    return Row(bytes.fromhex(device), bytes.fromhex(digest[0]), tray, *json.loads(header))
