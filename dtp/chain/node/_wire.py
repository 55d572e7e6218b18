"""One node: calls of `sui.rpc.v2` over grpclib with pysui's stubs, answers as our values, failures as our errors.

A `NodeRpc` is one endpoint and one HTTP/2 connection, made when it is first needed and again when it is lost. It
doesn't repeat anything: `client.py` decides what may be repeated, and where. Each call is a task of its own
(`_calls.py`). Errors mean: `NodeUnavailable` the call may not have reached the node, or its answer was lost;
`NodeRefused` and its subclasses that the node said no.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final
from urllib.parse import urlsplit

from dtp.chain import model
from dtp.chain.errors import (
    MALFORMED,
    ClientClosed,
    NetworkError,
    NodeRefused,
    NodeUnavailable,
    NotFound,
    UnknownMethod,
)
from dtp.chain.model import canonical_id
from dtp.chain.node import _answers as answers
from dtp.chain.node._calls import NodeCalls, messages_apart
from dtp.chain.node._pysui import Unresolved, library, unresolved_message
from dtp.sui.grpc import GrpcMessageError, from_value
from dtp.sui.names import SuiNameError

#: The part of a call's time after which it is said what is waited for.
_SILENCE: Final = 0.3
#: Of an event inside its transaction; where it stands is known there (and older nodes have no more).
_EVENT_FIELDS: Final = ("package_id", "module", "sender", "event_type", "contents")
EVENT_MASK: Final = (
    *_EVENT_FIELDS,
    "checkpoint",
    "transaction_digest",
    "transaction_index",
    "event_index",
)
#: What executing asks for: everything that a caller or the caches need, so that no second question is needed.
EXECUTED_MASK: Final = (
    "digest",
    "effects.status",
    "effects.epoch",
    "effects.gas_used",
    "effects.gas_object",
    "effects.changed_objects",
    *(f"events.events.{path}" for path in _EVENT_FIELDS),
    "checkpoint",
    "timestamp",
    "balance_changes",
    "objects.objects.object_id",
    "objects.objects.version",
    "objects.objects.digest",
    "objects.objects.owner",
    "objects.objects.object_type",
    "objects.objects.contents",
    "objects.objects.balance",
)
SIMULATED_MASK: Final = (
    *(f"transaction.{path}" for path in EXECUTED_MASK),
    "transaction.transaction.bcs",
    "command_outputs",
)
#: What choosing the gas asks for: what it costs, or why it fails, and what the node filled in.
ESTIMATED_MASK: Final = (
    "transaction.effects.status",
    "transaction.effects.epoch",
    "transaction.effects.gas_used",
    "transaction.transaction.bcs",
)
OBJECT_MASK: Final = (
    "object_id",
    "version",
    "digest",
    "owner",
    "object_type",
    "contents",
    "balance",
    "previous_transaction",
    "storage_rebate",
)
_CHECKPOINT_MASK: Final = (
    "sequence_number",
    "digest",
    "summary.timestamp",
    "transactions.digest",
    *(f"transactions.events.events.{path}" for path in _EVENT_FIELDS),
)
#: gRPC answers after which the same call may succeed, here or at another node.
_PASSING: Final = frozenset(
    ("UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "ABORTED", "CANCELLED", "INTERNAL", "UNKNOWN")
)
#: What grpclib and h2 raise of answers that they did not foresee.
_LIBRARY_FAULTS = (
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    AssertionError,
    NotImplementedError,
)
_ANSWER_FAULTS = (ValueError, TypeError, AttributeError, KeyError, IndexError, SuiNameError)


def parse_url(url: str) -> tuple[str, int, bool]:
    """Host, port and whether to speak TLS, of an `http://` or `https://` URL. Raises `NetworkError`."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as fault:
        raise NetworkError(f"{url!r} is not a URL of a node: {fault}") from fault
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise NetworkError(f"{url!r} is not a URL of a node: write http://host:port or https://host")
    if parts.path not in ("", "/") or parts.query or parts.username:
        shown = repr(url) if parts.username is None else "a URL with a password"  # which isn't for logs
        raise NetworkError(f"{shown}: a node's URL has a host and a port and nothing else")
    secure = parts.scheme == "https"
    return parts.hostname, port or (443 if secure else 80), secure


class NodeRpc:
    """Calls to the node at `url`. `timeout` is in seconds, for each call. Close it with `close`."""

    def __init__(self, url: str, *, timeout: float) -> None:
        self.url = url
        self.timeout = timeout
        self._host, self._port, self._secure = parse_url(url)
        self._channel: Any = None
        #: Calls under way by the channel that has them; one that is no more in use is closed behind its last.
        self._using: Counter[Any] = Counter()
        self._closed = False
        self._calls = NodeCalls(url, _SILENCE * timeout)

    def open(self) -> None:
        """Let calls make a connection, again after `close`."""
        self._closed = False

    def close(self) -> None:
        """Close the connection. Calls raise `ClientClosed` from now on: what one opened that comes late, nobody
        would close."""
        self._closed = True
        channels = {*self._using, self._channel} - {None}
        self._channel = None
        for channel in channels:
            channel.close()

    def _ensure_connected(self) -> Any:
        if self._closed:
            raise ClientClosed(f"the client of {self.url} was closed")
        if self._channel is None:
            # pysui's client would speak TLS to a plaintext port.
            context = ssl.create_default_context() if self._secure else None
            self._channel = library().Channel(self._host, self._port, ssl=context)
        return self._channel

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        found = library()
        try:
            yield
        except found.GRPCError as fault:
            raise _refusal(self.url, fault.status.name, fault.message or "") from fault
        except GrpcMessageError as fault:
            raise NodeRefused(
                f"{self.url} gave an answer that is not of sui.rpc.v2: {fault}", MALFORMED
            ) from fault
        except found.lost as fault:
            late = isinstance(fault, TimeoutError)
            why = f"none in {self.timeout:g} s" if late else str(fault) or type(fault).__name__
            raise NodeUnavailable(f"no answer from {self.url}: {why}") from fault
        except _LIBRARY_FAULTS as fault:
            raise NodeRefused(f"{self.url} gave an answer that is not gRPC: {fault!r}", MALFORMED) from fault

    @contextmanager
    def _read_errors(self) -> Iterator[None]:
        try:
            yield
        except _ANSWER_FAULTS as fault:
            raise NodeRefused(
                f"{self.url} gave an answer that is not one of sui.rpc.v2: {fault!r}", MALFORMED
            ) from fault

    @contextmanager
    def _channel_for_call(self) -> Iterator[Any]:
        """Yield the connection for a call. When there is no answer in time another one is made for the next: the node
        may be well, and this connection dead."""
        channel = self._ensure_connected()
        self._using[channel] += 1
        try:
            yield channel
        except TimeoutError:
            if channel is self._channel:
                self._channel = None
            raise
        finally:
            self._using[channel] -= 1
            if not self._using[channel]:
                del self._using[channel]
                if channel is not self._channel:
                    channel.close()

    async def _call_method(self, service: str, method: str, message: Any) -> Any:
        async def asked() -> Any:
            with self._translate_errors(), self._channel_for_call() as channel:
                stub = getattr(library().v2, service)(channel, timeout=self.timeout)
                return await getattr(stub, method)(message)

        return await self._calls.make_call(asked())

    # ------------------------------------------------------------------------------------------------ ledger

    async def service_info(self) -> model.ServiceInfo:
        """Return what the node says of itself."""
        v2 = library().v2
        answer = await self._call_method("LedgerServiceStub", "get_service_info", v2.GetServiceInfoRequest())
        with self._read_errors():
            return model.ServiceInfo(
                chain_id=answer.chain_id or "",
                chain=answer.chain or "",
                epoch=answer.epoch or 0,
                checkpoint=answer.checkpoint_height or 0,
                timestamp_ms=answers.milliseconds(answer.timestamp),
                lowest_checkpoint=answer.lowest_available_checkpoint or 0,
                server=answer.server or "",
            )

    async def epoch(self, number: int | None = None) -> model.EpochInfo:
        """Return an epoch, the current one if no number is given."""
        v2 = library().v2
        mask = _mask("epoch", "reference_gas_price", "start", "protocol_config.protocol_version")
        answer = await self._call_method(
            "LedgerServiceStub", "get_epoch", v2.GetEpochRequest(epoch=number, read_mask=mask)
        )
        with self._read_errors():
            found = answer.epoch
            config = found.protocol_config
            return model.EpochInfo(
                epoch=int(found.epoch or 0),
                gas_price=int(found.reference_gas_price),
                start_ms=answers.milliseconds(found.start),
                protocol_version=config.protocol_version if config else None,
            )

    async def objects(self, ids: Sequence[str], version: int | None = None) -> dict[str, model.ObjectData]:
        """Return the newest versions (or exactly `version`) of those objects that are there."""
        v2 = library().v2
        requests = [v2.GetObjectRequest(object_id=each, version=version) for each in ids]
        answer = await self._call_method(
            "LedgerServiceStub",
            "batch_get_objects",
            v2.BatchGetObjectsRequest(requests=requests, read_mask=_mask(*OBJECT_MASK)),
        )
        with self._read_errors():
            found = [answers.object_data(each.object) for each in answer.objects if each.object is not None]
            return {each.id: each for each in found}

    async def object_json(self, id: str, version: int | None = None) -> Any:
        """Return the value of an object as the node renders it in JSON, None where it doesn't. Raises `NotFound`."""
        v2 = library().v2
        request = v2.GetObjectRequest(object_id=id, version=version, read_mask=_mask("json"))
        answer = await self._call_method("LedgerServiceStub", "get_object", request)
        with self._read_errors():
            found = answer.object.json
            return None if found is None else from_value(found)

    async def transaction(self, digest: str) -> answers.ExecutionOutcome | None:
        """Return an executed transaction, None if the node doesn't know it (yet)."""
        v2 = library().v2
        request = v2.GetTransactionRequest(digest=digest, read_mask=_mask(*EXECUTED_MASK))
        try:
            answer = await self._call_method("LedgerServiceStub", "get_transaction", request)
        except NotFound:
            return None
        with self._read_errors():
            return answers.outcome(answer.transaction)

    async def transaction_data(self, digest: str) -> bytes | None:
        """Return the BCS of what was signed as a transaction, None if the node doesn't know it."""
        v2 = library().v2
        request = v2.GetTransactionRequest(digest=digest, read_mask=_mask("digest", "transaction.bcs"))
        try:
            answer = await self._call_method("LedgerServiceStub", "get_transaction", request)
        except NotFound:
            return None
        with self._read_errors():
            return bytes(answer.transaction.transaction.bcs.value)

    async def checkpoint(self, sequence: int | None = None) -> model.CheckpointData | None:
        """Return a checkpoint with its events, the newest if no number is given; None if there is none of that
        number."""
        v2 = library().v2
        request = v2.GetCheckpointRequest(sequence_number=sequence, read_mask=_mask(*_CHECKPOINT_MASK))
        try:
            answer = await self._call_method("LedgerServiceStub", "get_checkpoint", request)
        except NotFound:
            return None
        with self._read_errors():
            return answers.checkpoint_data(answer.checkpoint)

    # ------------------------------------------------------------------------------------------------- state

    async def owned_objects(
        self, owner: str, object_type: str | None, page_token: bytes | None, page_size: int = 200
    ) -> tuple[list[model.ObjectData], bytes | None]:
        """Return a page of the objects that an address owns, and the token of the next page."""
        v2 = library().v2
        request = v2.ListOwnedObjectsRequest(
            owner=owner,
            object_type=object_type,
            page_size=page_size,
            page_token=page_token,
            read_mask=_mask(*OBJECT_MASK),
        )
        answer = await self._call_method("StateServiceStub", "list_owned_objects", request)
        with self._read_errors():
            return [answers.object_data(each) for each in answer.objects], answer.next_page_token or None

    async def dynamic_fields(
        self, parent: str, page_token: bytes | None, page_size: int = 200
    ) -> tuple[list[model.DynamicField], bytes | None]:
        """Return a page of the dynamic fields of an object, and the token of the next page."""
        v2 = library().v2
        request = v2.ListDynamicFieldsRequest(
            parent=parent,
            page_size=page_size,
            page_token=page_token,
            read_mask=_mask("kind", "parent", "field_id", "name", "value", "value_type", "child_id"),
        )
        answer = await self._call_method("StateServiceStub", "list_dynamic_fields", request)
        with self._read_errors():
            return [
                answers.dynamic_field(each) for each in answer.dynamic_fields
            ], answer.next_page_token or None

    async def balance(self, owner: str, coin: str) -> model.Balance:
        """Return what an address has of a coin."""
        v2 = library().v2
        request = v2.GetBalanceRequest(owner=owner, coin_type=coin)
        answer = await self._call_method("StateServiceStub", "get_balance", request)
        with self._read_errors():
            return answers.balance(answer.balance)

    async def balances(
        self, owner: str, page_token: bytes | None
    ) -> tuple[list[model.Balance], bytes | None]:
        """Return a page of all that an address has, and the token of the next page."""
        v2 = library().v2
        request = v2.ListBalancesRequest(owner=owner, page_token=page_token)
        answer = await self._call_method("StateServiceStub", "list_balances", request)
        with self._read_errors():
            return [answers.balance(each) for each in answer.balances], answer.next_page_token or None

    async def package(self, id: str) -> model.PackageInfo:
        """Return a published package."""
        v2 = library().v2
        answer = await self._call_method(
            "MovePackageServiceStub", "get_package", v2.GetPackageRequest(package_id=id)
        )
        with self._read_errors():
            found = answer.package
            return model.PackageInfo(
                id=canonical_id(found.storage_id),
                original_id=canonical_id(found.original_id),
                version=int(found.version),
                modules={module.name: module.contents or b"" for module in found.modules},
            )

    # ------------------------------------------------------------------------------------------ transactions

    async def simulate(
        self,
        transaction: bytes | Unresolved,
        *,
        select_gas: bool,
        checks: bool = True,
        mask: Sequence[str] = SIMULATED_MASK,
    ) -> answers.ExecutionOutcome:
        """Run a transaction without any effect: built (BCS), or one whose objects and gas the node is to fill in."""
        v2 = library().v2
        if isinstance(transaction, Unresolved):
            message = unresolved_message(transaction)
        else:
            message = v2.Transaction(bcs=v2.Bcs(value=transaction))
        choices = v2.SimulateTransactionRequestTransactionChecks
        request = v2.SimulateTransactionRequest(
            transaction=message,
            read_mask=_mask(*mask),
            checks=choices.ENABLED if checks else choices.DISABLED,
            do_gas_selection=select_gas,
        )
        answer = await self._call_method("TransactionExecutionServiceStub", "simulate_transaction", request)
        with self._read_errors():
            return answers.outcome(answer.transaction, answer.command_outputs)

    async def execute(self, transaction: bytes, signatures: Sequence[bytes]) -> answers.ExecutionOutcome:
        """Execute a signed transaction. The identical bytes may be sent again at any time."""
        v2 = library().v2
        request = v2.ExecuteTransactionRequest(
            transaction=v2.Transaction(bcs=v2.Bcs(value=transaction)),
            signatures=[v2.UserSignature(bcs=v2.Bcs(value=each)) for each in signatures],
            read_mask=_mask(*EXECUTED_MASK),
        )
        answer = await self._call_method("TransactionExecutionServiceStub", "execute_transaction", request)
        with self._read_errors():
            return answers.outcome(answer.transaction)

    # ------------------------------------------------------------------------------------------------ events

    async def list_events(
        self,
        types: Iterable[str],
        sender: str = "",
        *,
        after: bytes = b"",
        start: int | None = None,
        end: int | None = None,
    ) -> AsyncIterator[answers.EventFrame]:
        """Return past events whose type fits one of `types` (see `event_filter`), and of transactions of `sender`
        alone where one is given, oldest first, up to the node's limit."""
        v2 = library().v2
        request = v2.ListEventsRequest(
            read_mask=_mask(*EVENT_MASK),
            start_checkpoint=start,
            end_checkpoint=end,
            filter=_event_filter(types, sender),
            options=v2.QueryOptions(after=after or None),
        )

        async def asked() -> AsyncGenerator[Any, None]:
            with self._translate_errors(), self._channel_for_call() as channel:
                stub = v2.LedgerServiceStub(channel, timeout=self.timeout)
                async for message in stub.list_events(request):
                    yield message

        async with messages_apart(asked, self.url) as messages:
            async for answer in messages:
                with self._read_errors():
                    frame = answers.event_frame(answer, answer.end)
                yield frame

    @asynccontextmanager
    async def subscribe_events(
        self, types: Iterable[str], sender: str = ""
    ) -> AsyncIterator[AsyncIterator[answers.EventFrame]]:
        """Yield new events from now on. When the block begins, the node has begun to collect: nothing later is
        missed."""
        v2 = library().v2
        wanted = _event_filter(types, sender)
        request = v2.SubscribeEventsRequest(read_mask=_mask(*EVENT_MASK), filter=wanted)
        route, answer = "/sui.rpc.v2.SubscriptionService/SubscribeEvents", v2.SubscribeEventsResponse
        async with self._stream_answers(route, request, answer) as messages:

            async def frames() -> AsyncIterator[answers.EventFrame]:
                async for message in messages:
                    with self._read_errors():
                        frame = answers.event_frame(message, None)
                    yield frame

            yield frames()

    @asynccontextmanager
    async def subscribe_checkpoints(self) -> AsyncIterator[AsyncIterator[int]]:
        """Yield the numbers of new checkpoints from now on, without gaps."""
        v2 = library().v2
        request = v2.SubscribeCheckpointsRequest(read_mask=_mask("sequence_number"))
        route, answer = (
            "/sui.rpc.v2.SubscriptionService/SubscribeCheckpoints",
            v2.SubscribeCheckpointsResponse,
        )
        async with self._stream_answers(route, request, answer) as messages:

            async def numbers() -> AsyncIterator[int]:
                async for message in messages:
                    yield int(message.cursor or 0)

            yield numbers()

    @asynccontextmanager
    async def _stream_answers(
        self, route: str, request: Any, answer_type: Any
    ) -> AsyncIterator[AsyncIterator[Any]]:
        cardinality = library().Cardinality.UNARY_STREAM

        async def asked() -> AsyncGenerator[Any, None]:
            with self._translate_errors(), self._channel_for_call() as channel:
                async with channel.request(route, cardinality, type(request), answer_type) as stream:
                    # The node answers with headers when it has begun to collect; the stubs hide that moment.
                    async with asyncio.timeout(self.timeout):
                        await stream.send_message(request, end=True)
                        await stream.recv_initial_metadata()
                    yield None
                    async for message in stream:
                        yield message

        async with messages_apart(asked, self.url) as messages:
            await anext(messages)
            yield messages


# --------------------------------------------------------------------------------------------- questions and errors


def _refusal(url: str, status: str, message: str) -> NodeRefused | NodeUnavailable:
    text = f"{url}: {message or status}"
    if status in _PASSING:
        return NodeUnavailable(text)
    if status == "NOT_FOUND":
        return NotFound(text, status)
    if status == "UNIMPLEMENTED":
        return UnknownMethod(f"{text} (a node that doesn't serve this part of sui.rpc.v2)", status)
    return NodeRefused(text, status)


def _mask(*paths: str) -> Any:
    return library().protobuf.FieldMask(paths=list(paths))


def _event_filter(types: Iterable[str], sender: str) -> Any:
    """Return the filter for any of the types: `0xpackage`, `0xpackage::module`, or a whole type with or without type
    arguments."""
    v2 = library().v2
    by = [v2.EventLiteral(sender=v2.SenderFilter(address=sender))] if sender else []
    terms = [
        v2.EventTerm(literals=[v2.EventLiteral(event_type=v2.EventTypeFilter(event_type=each)), *by])
        for each in types
    ]
    if by and not terms:
        terms = [v2.EventTerm(literals=by)]
    return v2.EventFilter(terms=terms) if terms else None
