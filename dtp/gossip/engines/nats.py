"""Topics over NATS (`pip install 'dtp-sockets[nats]'`), with JetStream to keep messages."""

from __future__ import annotations

import asyncio
import contextlib
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from dtp.errors import LocalError
from dtp.gossip.engines.bridge import Engine, OnMessages, OnReturn, subject_part
from dtp.gossip.errors import EngineError

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg
    from nats.js import JetStreamContext

_PREFIX: Final = "dtp.topic."
#: Seconds to wait for a connection, and for a message's acknowledgement.
_PATIENCE: Final = 5.0
#: The least seconds for each of several servers, so that a silent one doesn't keep the others from being tried.
_LEAST: Final = 1.0
#: Seconds within which JetStream accepts a message only once, by its id.
_DUPLICATES: Final = 120
#: Messages that are fetched at a time.
_BATCH: Final = 100


class NatsEngine(Engine):
    """A NATS server, or several of a cluster.

    With `last`, JetStream keeps messages for that many seconds, for nodes that join late with `history` or were away.
    """

    name = "nats"

    def __init__(self, url: str, *, last: float = 0.0, **options: Any) -> None:
        """`url` is such as `nats://127.0.0.1:4222`, or names several servers of a cluster, any of which is used:
        `nats://[USER:PASSWORD@]HOST:PORT[,HOST:PORT...]`. `options` are passed to `nats.connect` (credentials,
        TLS).
        """
        try:
            import nats
        except ImportError as error:
            raise LocalError("NATS needs nats-py: pip install 'dtp-sockets[nats]'") from error
        self._connect = nats.connect
        self._servers = split_servers(url)
        #: The server's name in errors, without the password.
        self._shown = ",".join(each.rpartition("@")[2].removeprefix("nats://") for each in self._servers)
        self._last = last
        self._options = options
        self._client: Client | None = None
        self._stream: JetStreamContext | None = None
        self._subscriptions: dict[bytes, Any] = {}
        self._away = 0
        #: The last error that the client reported.
        self._reported: Exception | None = None
        self._on_messages: OnMessages = lambda messages: None
        self._on_return: OnReturn = lambda since_ms: None

    async def start(self, on_messages: OnMessages, on_return: OnReturn) -> None:
        """Connect. Raise `EngineError` if that fails."""
        self._on_messages, self._on_return = on_messages, on_return
        options = {"max_reconnect_attempts": -1, "reconnect_time_wait": 0.5} | self._options
        try:
            # The client would try forever, which is right only after it was connected once.
            async with asyncio.timeout(_PATIENCE):
                self._client = await self._connect(
                    self._servers,
                    connect_timeout=max(_PATIENCE / len(self._servers), _LEAST),
                    allow_reconnect=True,
                    disconnected_cb=self._on_disconnected,
                    reconnected_cb=self._on_reconnected,
                    error_cb=self._on_error,
                    **options,
                )
        except _faults() as error:
            why = self._reported or error
            raise EngineError(f"{self._shown} can't be reached: {why or type(why).__name__}") from error
        if self._last:
            self._stream = self._client.jetstream(timeout=_PATIENCE)

    async def _on_disconnected(self) -> None:
        self._away = self._away or int(time.time() * 1000)

    async def _on_reconnected(self) -> None:
        since, self._away = self._away, 0
        self._on_return(since)

    async def _on_error(self, error: Exception) -> None:
        """Note what the client reports. It reconnects by itself."""
        self._reported = error

    async def subscribe(self, topic: bytes) -> None:
        """Begin to deliver the messages of a topic."""
        client, subject = self._client, _PREFIX + subject_part(topic)
        assert client is not None
        try:
            if self._stream is not None:
                await self._make_stream(topic, subject)
            self._subscriptions[topic] = await client.subscribe(subject, cb=self._on_message)
            await client.flush()
        except _faults() as error:
            # Otherwise the client would subscribe by itself when the server is back.
            with contextlib.suppress(EngineError):
                await self.unsubscribe(topic)
            raise EngineError(f"{self._shown}: {error or type(error).__name__}") from error

    async def _make_stream(self, topic: bytes, subject: str) -> None:
        from nats.js.api import StreamConfig

        assert self._stream is not None
        config = StreamConfig(
            name=_stream_name(topic),
            subjects=[subject],
            max_age=self._last,
            duplicate_window=min(_DUPLICATES, self._last),
        )
        await self._stream.add_stream(config)

    async def _on_message(self, message: Msg) -> None:
        self._on_messages((message.data,))

    async def unsubscribe(self, topic: bytes) -> None:
        """Stop delivering the messages of a topic."""
        if (subscription := self._subscriptions.pop(topic, None)) is not None:
            try:
                await subscription.unsubscribe()
            except _faults() as error:
                raise EngineError(f"{self._shown}: {error or type(error).__name__}") from error

    async def send(self, topic: bytes, message_id: bytes, encoded: bytes) -> None:
        """Send a message to the server. With JetStream, wait until it is kept."""
        assert self._client is not None
        subject = _PREFIX + subject_part(topic)
        try:
            if self._stream is None:
                await self._client.publish(subject, encoded)
                if self._client.pending_data_size > _PENDING:
                    await self._client.flush()
            else:
                await self._stream.publish(subject, encoded, headers={"Nats-Msg-Id": message_id.hex()})
        except _faults() as error:
            raise EngineError(f"{self._shown}: {error or type(error).__name__}") from error

    async def read_history(self, topic: bytes, since_ms: int, most: int) -> list[bytes]:
        """Return the messages that JetStream has kept since a time, the oldest first."""
        if self._stream is None:
            return []
        from nats.errors import TimeoutError as NothingMore
        from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

        start = datetime.fromtimestamp(since_ms / 1000, UTC).isoformat(timespec="milliseconds")
        config = ConsumerConfig(
            deliver_policy=DeliverPolicy.BY_START_TIME,
            opt_start_time=start,  # type: ignore[arg-type]  # it is sent as text
            ack_policy=AckPolicy.NONE,
        )
        found: list[bytes] = []
        try:
            puller = await self._stream.pull_subscribe(
                _PREFIX + subject_part(topic), stream=_stream_name(topic), config=config
            )
            info = await puller.consumer_info()
            wanted = min(info.num_pending or 0, most)
            while len(found) < wanted:
                fetched = await puller.fetch(min(_BATCH, wanted - len(found)), timeout=_PATIENCE)
                found += [message.data for message in fetched]
            await puller.unsubscribe()
        except NothingMore:
            pass
        except _faults() as error:
            raise EngineError(f"{self._shown}: {error or type(error).__name__}") from error
        return found

    async def stop(self) -> None:
        """Disconnect. Idempotent."""
        client, self._client = self._client, None
        if client is not None:
            try:
                await client.close()
            except _faults() as error:
                raise EngineError(f"{self._shown}: {error or type(error).__name__}") from error


#: Bytes that may wait in the client before the server has to read them.
_PENDING: Final = 256 * 1024


def split_servers(url: str) -> list[str]:
    """Return the servers that `nats://[USER:PASSWORD@]HOST:PORT[,HOST:PORT...]` names, each as a URL of its own. A
    user and password before the first host are also used for those without any. Raise `LocalError` if one has no
    host, or an impossible port.
    """
    first, *others = (each.strip() for each in url.split(","))
    scheme, _, place = first.rpartition("://")
    account, at, _ = place.rpartition("@")
    before = f"{scheme or 'nats'}://{account}{at}"
    if not scheme:
        first = f"nats://{first}"
    servers = [first, *(each if "://" in each else before + each for each in others)]
    if not all(map(_is_place, servers)):  # the URL may have a password, which isn't shown
        raise LocalError("a NATS server has to be HOST:PORT, and its password in a URL can't have a comma")
    return servers


def _is_place(server: str) -> bool:
    parts = urlsplit(server)
    try:
        return bool(parts.hostname) and parts.port != 0
    except ValueError:  # the port isn't a number
        return False


def _stream_name(topic: bytes) -> str:
    return "dtp_" + subject_part(topic)


def _faults() -> tuple[type[Exception], ...]:
    import nats.errors
    import nats.js.errors

    return (nats.errors.Error, nats.js.errors.Error, OSError, TimeoutError)
