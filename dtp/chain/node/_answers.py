"""Messages of `sui.rpc.v2` as the client's own values. Pure: whatever a node answers comes through here.

What is not an answer ends in one of Python's own errors for bad values; `_wire.py` says whose fault that is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from dtp.chain import model
from dtp.chain.model import canonical_id, canonical_type
from dtp.sui.names import parse_digest

if TYPE_CHECKING:
    import datetime


@dataclass(frozen=True)
class Failure:
    """Why a transaction failed, as the node tells. `abort` is set for `MOVE_ABORT`."""

    kind: str
    description: str
    command: int | None
    abort: AbortInfo | None = None


@dataclass(frozen=True)
class AbortInfo:
    """An abort: raw code, where, and what the node makes of it (`constant` and `text` may be empty)."""

    raw: int
    package: str
    module: str
    function: str
    instruction: int
    constant: str
    text: str
    number: int | None


@dataclass(frozen=True)
class CommandValues:
    """What one command gave back: BCS values with their types."""

    returned: tuple[tuple[str, bytes], ...]


@dataclass(frozen=True)
class ExecutionOutcome:
    """A transaction that was executed or simulated. `failure` is None when it did what it was to do."""

    executed: model.Executed
    failure: Failure | None
    #: Simulation only: the transaction that was simulated (BCS), and what the commands returned.
    transaction: bytes = b""
    outputs: tuple[CommandValues, ...] = ()


@dataclass(frozen=True)
class EventFrame:
    """One frame of an event stream: maybe an event, and how far the scan has come.

    `cursor` is opaque and resumes after this frame; `covered` the checkpoint up to which all was delivered, if told;
    `end` the reason why the stream ended here.
    """

    event: model.ChainEvent | None
    cursor: bytes
    covered: int | None
    end: str = ""


def milliseconds(moment: datetime.datetime | None) -> int | None:
    """Return a time as Unix ms."""
    return None if moment is None else round(moment.timestamp() * 1000)


def _owner(owner: Any) -> model.Owner:
    kinds = {1: "address", 2: "object", 3: "shared", 4: "immutable", 5: "consensus"}
    kind = kinds[int(owner.kind or 0)]
    address = canonical_id(owner.address) if owner.address else ""
    return model.Owner(kind, address, int(owner.version or 0))


def _reference(id: str, version: Any, digest: Any) -> model.ObjectRef:
    parse_digest(digest)  # who signs for the object would notice only then
    return model.ObjectRef(id, int(version), digest)


def object_data(found: Any) -> model.ObjectData:
    """Return the object that a node's message describes."""
    kind = found.object_type or ""
    return model.ObjectData(
        ref=_reference(canonical_id(found.object_id), found.version, found.digest),
        owner=_owner(found.owner),
        type=kind if kind in ("", "package") else canonical_type(kind),
        contents=found.contents.value if found.contents is not None and found.contents.value else b"",
        balance=found.balance,
        previous_transaction=found.previous_transaction or "",
        storage_rebate=found.storage_rebate or 0,
    )


def balance(found: Any) -> model.Balance:
    """Return the balance that a node's message describes."""
    return model.Balance(
        coin=canonical_type(found.coin_type),
        total=int(found.balance or 0),
        coins=int(found.coin_balance or 0),
        address=int(found.address_balance or 0),
    )


def dynamic_field(found: Any) -> model.DynamicField:
    """Return the dynamic field that a node's message describes."""
    name, value = found.name, found.value
    return model.DynamicField(
        parent=canonical_id(found.parent),
        field_id=canonical_id(found.field_id),
        kind="object" if int(found.kind or 0) == 2 else "field",
        name_type=name.name or "" if name else "",
        name=name.value or b"" if name else b"",
        value_type=found.value_type or "",
        value=value.value or b"" if value else b"",
        child_id=found.child_id or "",
    )


def _event(found: Any, digest: str, index: int) -> model.ChainEvent:
    return model.ChainEvent(
        type=canonical_type(found.event_type),
        contents=found.contents.value or b"",
        package=canonical_id(found.package_id),
        module=found.module,
        sender=canonical_id(found.sender),
        transaction=found.transaction_digest or digest,
        index=found.event_index if found.event_index is not None else index,
        checkpoint=found.checkpoint,
        transaction_index=found.transaction_index,
    )


def event_frame(answer: Any, end: Any) -> EventFrame:
    """Return a frame of a list or a stream of events; `end` is the list's, if it has come."""
    mark = answer.watermark
    return EventFrame(
        event=None if answer.event is None else _event(answer.event, "", 0),
        cursor=mark.cursor or b"" if mark else b"",
        covered=mark.checkpoint if mark else None,
        end="" if end is None else (end.reason.name if end.reason is not None else "UNKNOWN"),
    )


def checkpoint_data(found: Any) -> model.CheckpointData:
    """Return a checkpoint with its events, each in its place."""
    sequence = int(found.sequence_number or 0)
    events = []
    for place, transaction in enumerate(found.transactions):
        listed = transaction.events.events if transaction.events is not None else []
        for index, each in enumerate(listed):
            event = _event(each, transaction.digest, index)
            events.append(_placed(event, sequence, place))
    return model.CheckpointData(
        sequence=sequence,
        digest=found.digest or "",
        timestamp_ms=milliseconds(found.summary.timestamp) if found.summary else None,
        events=tuple(events),
        transactions=tuple(each.digest for each in found.transactions),
    )


def _placed(event: model.ChainEvent, checkpoint: int, place: int) -> model.ChainEvent:
    return replace(event, checkpoint=checkpoint, transaction_index=place)


def _change(found: Any) -> model.ObjectChange:
    operations = {2: "created", 3: "deleted"}
    written = int(found.output_state or 0) in (2, 3)  # an object, or a package
    id = canonical_id(found.object_id)
    kind = found.object_type or ""
    return model.ObjectChange(
        id=id,
        operation=operations.get(int(found.id_operation or 0), ""),
        type=kind if kind in ("", "package") else canonical_type(kind),
        input_version=found.input_version,
        output=_reference(id, found.output_version, found.output_digest) if written else None,
        owner=_owner(found.output_owner) if written and found.output_owner is not None else None,
    )


def _failure(error: Any) -> Failure:
    kind = error.kind.name if error.kind is not None else "UNKNOWN"
    abort = None
    if error.abort is not None:
        place, clever = error.abort.location, error.abort.clever_error
        abort = AbortInfo(
            raw=int(error.abort.abort_code or 0),
            package=canonical_id(place.package) if place is not None and place.package else "",
            module=place.module or "" if place else "",
            function=place.function_name or "" if place else "",
            instruction=int(place.instruction or 0) if place else 0,
            constant=clever.constant_name or "" if clever else "",
            text=clever.rendered or "" if clever else "",
            number=clever.error_code if clever else None,
        )
    return Failure(kind, error.description or "", error.command, abort)


def outcome(found: Any, outputs: Sequence[Any] = ()) -> ExecutionOutcome:
    """Return an executed or simulated transaction; `outputs` are what its commands gave back."""
    effects = found.effects
    gas = effects.gas_used
    digest = found.digest or ""
    objects: Mapping[str, model.ObjectData] = {}
    if found.objects is not None:
        # The set has each object before and after; the newest is wanted.
        listed = sorted((object_data(each) for each in found.objects.objects), key=lambda each: each.version)
        objects = {each.id: each for each in listed}
    executed = model.Executed(
        digest=digest,
        epoch=int(effects.epoch or 0),
        gas=model.GasUsed(
            int(gas.computation_cost or 0),
            int(gas.storage_cost or 0),
            int(gas.storage_rebate or 0),
            int(gas.non_refundable_storage_fee or 0),
        ),
        changes=tuple(map(_change, effects.changed_objects)),
        events=tuple(
            _event(each, digest, index)
            for index, each in enumerate(found.events.events if found.events is not None else [])
        ),
        objects=objects,
        gas_object=canonical_id(effects.gas_object.object_id) if effects.gas_object is not None else "",
        checkpoint=found.checkpoint,
        timestamp_ms=milliseconds(found.timestamp),
        balance_changes=tuple(
            model.BalanceChange(canonical_id(each.address), canonical_type(each.coin_type), int(each.amount))
            for each in found.balance_changes
        ),
    )
    status = effects.status
    failure = None if status.success else _failure(status.error)
    sent = found.transaction
    return ExecutionOutcome(
        executed,
        failure,
        transaction=sent.bcs.value or b"" if sent is not None and sent.bcs is not None else b"",
        outputs=tuple(
            CommandValues(
                tuple(
                    (each.value.name or "", each.value.value or b"")
                    for each in output.return_values
                    if each.value
                )
            )
            for output in outputs
        ),
    )
