"""The gRPC server: carries messages to `Services`, streams to subscribers, and turns every error into a status.

Whatever a caller sends, the node lives on: bytes that aren't a message, or not a transaction, a stream that is cut.
All runs on one event loop, the node included, which is used by one caller at a time.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final, Self

from dtp.errors import DtpError
from dtp.localnet.grpc import masks
from dtp.localnet.grpc.errors import BadRequest, GrpcFailure, TooSlow, Unsupported
from dtp.localnet.grpc.event_stream import predicate
from dtp.localnet.grpc.messages import library
from dtp.localnet.grpc.services import UNARY, UNSUPPORTED, Services
from dtp.localnet.grpc.transactions import PlacedEvent
from dtp.localnet.model import BadCursor, CheckpointRecord, Executed, TransactionRejected
from dtp.localnet.node import LocalNode
from dtp.sui.grpc import GrpcCodec, GrpcMessageError, joined

logger = logging.getLogger("dtp.localnet.grpc")

#: Frames that a subscriber may be behind before it is cut off.
MAX_BEHIND: Final = 10_000
#: The node's errors, and the status that each is answered with.
_STATUS_OF: Final[tuple[tuple[type[DtpError], str], ...]] = (
    (TransactionRejected, "INVALID_ARGUMENT"),
    (BadCursor, "INVALID_ARGUMENT"),
    (GrpcMessageError, "INVALID_ARGUMENT"),
)


class NodeServer:
    """`sui.rpc.v2` for a node, in the clear. `start` gives the port; `close` ends all streams."""

    def __init__(self, node: LocalNode) -> None:
        self.node = node
        self._services = Services(node)
        self._server: Any = None
        self._started = False
        self._protocols: Iterable[Any] = ()
        self._subscribers: set[_Subscriber] = set()
        self._unsubscribe: Callable[[], None] | None = None
        self.port = 0

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> int:
        """Listen; port 0 takes a free one. Raises `OSError` when the address is taken."""
        self._server, self._protocols = _grpc_server(_Handlers(self))
        await self._server.start(host, port)
        self._started = True
        self._unsubscribe = self.node.subscribe(self._on_checkpoint)
        self.port = self._server._server.sockets[0].getsockname()[1]
        return self.port

    async def close(self) -> None:
        """Stop listening and end all streams; the node stays open."""
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None
        for subscriber in tuple(self._subscribers):
            subscriber.end_stream()
        if self._server is not None and self._started:
            self._server.close()
            # grpclib leaves connections open, and callers would wait for answers on them.
            for protocol in tuple(self._protocols):
                if hasattr(protocol, "processor"):  # else it is just being connected
                    protocol.processor.close("the node ends")
            await self._server.wait_closed()
        self._server, self._started = None, False

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    # --------------------------------------------------------------------------------------------- subscriptions

    def _on_checkpoint(self, checkpoint: CheckpointRecord, executed: tuple[Executed, ...]) -> None:
        for subscriber in tuple(self._subscribers):
            subscriber.put_checkpoint(checkpoint, executed)

    @contextmanager
    def subscribe(
        self, frames: Callable[[CheckpointRecord, tuple[Executed, ...]], Iterable[Any]]
    ) -> Iterator[_Subscriber]:
        """Collect what `frames` makes of each new checkpoint while the block runs."""
        subscriber = _Subscriber(frames)
        self._subscribers.add(subscriber)
        try:
            yield subscriber
        finally:
            self._subscribers.discard(subscriber)

    def event_frames(self, request: Any) -> Callable[[CheckpointRecord, tuple[Executed, ...]], Iterable[Any]]:
        """Return what a subscriber to events gets of a checkpoint."""
        want = masks.parse(request.read_mask, "*", library().v2.Event)
        fits = predicate(request.filter)
        events = self._services.events

        def frames(checkpoint: CheckpointRecord, executed: tuple[Executed, ...]) -> Iterable[Any]:
            placed = [PlacedEvent(event, n) for n, each in enumerate(executed) for event in each.events]
            return events.checkpoint_frames(checkpoint.sequence, placed, fits, want)

        return frames

    def checkpoint_frames(
        self, request: Any
    ) -> Callable[[CheckpointRecord, tuple[Executed, ...]], Iterable[Any]]:
        """Return what a subscriber to checkpoints gets of a checkpoint."""
        v2 = library().v2
        if request.filter is not None:
            raise Unsupported("filter: checkpoints are streamed unfiltered here; filter events instead")
        want = masks.parse(request.read_mask, "sequence_number,digest", v2.Checkpoint)
        transactions = self._services.transactions

        def frames(checkpoint: CheckpointRecord, executed: tuple[Executed, ...]) -> Iterable[Any]:
            message = transactions.checkpoint_message(checkpoint, want)
            yield v2.SubscribeCheckpointsResponse(cursor=checkpoint.sequence, checkpoint=message)

        return frames

    def find_method(self, attribute: str) -> Callable[[Any], Any]:
        """Return a method of the services by name."""
        method: Callable[[Any], Any] = getattr(self._services, attribute)
        return method


class _Subscriber:
    """Frames that wait to be sent to one subscriber."""

    def __init__(self, frames: Callable[[CheckpointRecord, tuple[Executed, ...]], Iterable[Any]]) -> None:
        self._frames = frames
        self._queue: asyncio.Queue[Any] = asyncio.Queue()
        self._late = False

    def put_checkpoint(self, checkpoint: CheckpointRecord, executed: tuple[Executed, ...]) -> None:
        """Take a new checkpoint."""
        if self._late:
            return
        for frame in self._frames(checkpoint, executed):
            self._queue.put_nowait(frame)
        if self._queue.qsize() > MAX_BEHIND:
            self._late = True
            self._queue.put_nowait(
                TooSlow(f"over {MAX_BEHIND} frames behind: list what you missed, and subscribe again")
            )

    def end_stream(self) -> None:
        """Let the stream end."""
        self._queue.put_nowait(None)

    async def next_frame(self) -> Any:
        """Return the next frame, None at the end. Raises `TooSlow`."""
        frame = await self._queue.get()
        if isinstance(frame, TooSlow):
            raise frame
        return frame


class _Handlers:
    """The table that grpclib serves: path -> handler."""

    def __init__(self, server: NodeServer) -> None:
        self._server = server

    def __mapping__(self) -> dict[str, Any]:
        from grpclib.const import Cardinality, Handler

        v2 = library().v2
        found: dict[str, Any] = {}
        for service, method, attribute in UNARY:
            found[f"/sui.rpc.v2.{service}/{method}"] = Handler(
                self._unary_handler(attribute),
                Cardinality.UNARY_UNARY,
                getattr(v2, f"{method}Request"),
                getattr(v2, f"{method}Response"),
            )
        streams = (
            ("LedgerService", "ListEvents", self._list_events),
            ("SubscriptionService", "SubscribeEvents", self._subscription_handler(self._server.event_frames)),
            (
                "SubscriptionService",
                "SubscribeCheckpoints",
                self._subscription_handler(self._server.checkpoint_frames),
            ),
        )
        for service, method, handler in streams:
            found[f"/sui.rpc.v2.{service}/{method}"] = Handler(
                handler,
                Cardinality.UNARY_STREAM,
                getattr(v2, f"{method}Request"),
                getattr(v2, f"{method}Response"),
            )
        for service, method in UNSUPPORTED:
            found[f"/sui.rpc.v2.{service}/{method}"] = Handler(
                _unsupported(method),
                Cardinality.UNARY_STREAM,
                getattr(v2, f"{method}Request"),
                getattr(v2, f"{method}Response"),
            )
        return found

    def _unary_handler(self, attribute: str) -> Callable[[Any], Awaitable[None]]:
        method = self._server.find_method(attribute)

        async def handle(stream: Any) -> None:
            with _statuses():
                await stream.send_message(method(await _received(stream)))

        return handle

    async def _list_events(self, stream: Any) -> None:
        with _statuses():
            for frame in self._server.find_method("list_events")(await _received(stream)):
                await stream.send_message(frame)

    def _subscription_handler(
        self, frames_of: Callable[[Any], Callable[[CheckpointRecord, tuple[Executed, ...]], Iterable[Any]]]
    ) -> Callable[[Any], Awaitable[None]]:
        async def handle(stream: Any) -> None:
            with _statuses():
                frames = frames_of(await _received(stream))
                with self._server.subscribe(frames) as subscriber:
                    # The headers tell the caller that nothing is missed from here on.
                    await stream.send_initial_metadata()
                    while (frame := await subscriber.next_frame()) is not None:
                        await stream.send_message(frame)

        return handle


def _unsupported(method: str) -> Callable[[Any], Awaitable[None]]:
    async def handle(stream: Any) -> None:
        with _statuses():
            raise Unsupported(f"{method}: this node doesn't serve it")

    return handle


async def _received(stream: Any) -> Any:
    try:
        message = await stream.recv_message()
    except NotImplementedError as fault:
        raise Unsupported("compressed messages") from fault
    except AssertionError as fault:
        raise BadRequest(f"the message is cut off: {fault}") from fault
    if message is None:
        raise BadRequest("there is no message in the request")
    return message


@contextmanager
def _statuses() -> Iterator[None]:
    from grpclib.const import Status
    from grpclib.exceptions import GRPCError

    try:
        yield
    except GrpcFailure as fault:
        raise GRPCError(Status[fault.status], str(fault)) from fault
    except DtpError as fault:
        for kind, status in _STATUS_OF:
            if isinstance(fault, kind):
                raise GRPCError(Status[status], str(fault)) from fault
        raise GRPCError(Status.INTERNAL, str(fault)) from fault


def _grpc_server(handlers: _Handlers) -> tuple[Any, Iterable[Any]]:
    """Return grpclib's server, and the protocols of its connections."""
    from grpclib.server import Server as GrpcServer

    protocols: weakref.WeakSet[Any] = weakref.WeakSet()

    class CountingServer(GrpcServer):
        def _protocol_factory(self) -> Any:
            protocol = super()._protocol_factory()
            protocols.add(protocol)
            return joined(protocol)

    codec: Any = GrpcCodec()
    return CountingServer([handlers], codec=codec), protocols
