"""Topics over zenoh (`pip install 'dtp-sockets[zenoh]'`): peers, routers and brokers of its own network."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Iterator, Mapping
from typing import Any, Final

from dtp.errors import LocalError
from dtp.gossip.engines.bridge import Engine, OnMessages, OnReturn, subject_part
from dtp.gossip.errors import EngineError

_PREFIX: Final = "dtp/topic/"
#: Messages that wait for the event loop, unless another number is given.
_WAITING: Final = 16_384


class ZenohEngine(Engine):
    """A session of zenoh, which calls back on its own threads. Messages that come together are passed to the loop
    in one call.
    """

    name = "zenoh"

    def __init__(self, config: Mapping[str, Any] | None = None, *, most_waiting: int = _WAITING) -> None:
        """`config` is as in zenoh's file, such as `{"connect": {"endpoints": ["tcp/127.0.0.1:7447"]}}`.

        At most `most_waiting` messages wait for the event loop. Beyond that the oldest are dropped and counted:
        zenoh can't be made to wait.
        """
        try:
            import zenoh
        except ImportError as error:
            raise LocalError("zenoh needs eclipse-zenoh: pip install 'dtp-sockets[zenoh]'") from error
        self._zenoh = zenoh
        self._config = config or {}
        self._session: Any = None
        self._subscribers: dict[bytes, Any] = {}
        self._publishers: dict[bytes, Any] = {}
        self._lock = threading.Lock()
        self._came: list[bytes] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._on_messages: OnMessages = lambda messages: None
        self._most_waiting, self._dropped = most_waiting, 0

    async def start(self, on_messages: OnMessages, on_return: OnReturn) -> None:
        """Open the session. Raise `EngineError` if that fails."""
        self._on_messages = on_messages
        self._loop = asyncio.get_running_loop()
        with self._translate_faults("can't be started"):
            config = self._zenoh.Config.from_json5(json.dumps(self._config))
            self._session = await asyncio.to_thread(self._zenoh.open, config)

    @contextlib.contextmanager
    def _translate_faults(self, what: str) -> Iterator[None]:
        try:
            yield
        except self._zenoh.ZError as error:
            raise EngineError(f"zenoh {what}: {error}") from error

    async def subscribe(self, topic: bytes) -> None:
        """Begin to deliver the messages of a topic."""
        key = _PREFIX + subject_part(topic)
        with self._translate_faults("does not subscribe"):
            self._subscribers[topic] = await asyncio.to_thread(
                self._session.declare_subscriber, key, self._on_sample
            )
            self._publishers[topic] = await asyncio.to_thread(self._session.declare_publisher, key)

    def _on_sample(self, sample: Any) -> None:
        """Keep a sample, and wake the loop unless it was woken already. Called on a thread of zenoh."""
        data = sample.payload.to_bytes()
        with self._lock:
            self._came.append(data)
            is_first = len(self._came) == 1
            if len(self._came) > self._most_waiting:
                del self._came[0]
                self._dropped += 1
        loop = self._loop
        if is_first and loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._hand_over)

    def take_dropped(self) -> int:
        """Return how many messages were dropped since the last call, as they came faster than the loop took them."""
        with self._lock:
            dropped, self._dropped = self._dropped, 0
        return dropped

    def _hand_over(self) -> None:
        with self._lock:
            came, self._came = self._came, []
        if came and self._loop is not None:
            self._on_messages(came)

    async def unsubscribe(self, topic: bytes) -> None:
        """Stop delivering the messages of a topic."""
        for declared in (self._subscribers.pop(topic, None), self._publishers.pop(topic, None)):
            if declared is not None:
                with self._translate_faults("does not end a subscription"):
                    await asyncio.to_thread(declared.undeclare)

    async def send(self, topic: bytes, message_id: bytes, encoded: bytes) -> None:
        """Pass a message to zenoh."""
        publisher = self._publishers.get(topic)
        if publisher is None:
            raise EngineError("zenoh doesn't carry this topic")
        with self._translate_faults("does not take a message"):
            publisher.put(encoded)

    async def stop(self) -> None:
        """Close the session. Idempotent."""
        session, self._session, self._loop = self._session, None, None
        if session is not None:
            with self._translate_faults("does not end"):
                await asyncio.to_thread(session.close)
