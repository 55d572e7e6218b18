"""Transactions, effects, events and checkpoints as messages. Tables say how each field is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from dtp.localnet import model
from dtp.localnet.grpc.masks import EVERYTHING, Maker, Mask, build
from dtp.localnet.grpc.messages import library, timestamp, value
from dtp.localnet.grpc.objects import Objects, bcs_message, owner_message, type_text
from dtp.localnet.node import LocalNode
from dtp.sui import effects as fx
from dtp.sui import transaction as sui
from dtp.sui.bytecode import CompiledModule, deserialize
from dtp.sui.commands import command_message
from dtp.sui.names import format_address, format_digest
from dtp.sui.objects import OBJECT_DATA, MovePackageData


@dataclass(frozen=True)
class PlacedEvent:
    """An event and the position of its transaction in its checkpoint."""

    event: model.EventRecord
    transaction_index: int | None


class Transactions:
    """Transactions of one node as messages."""

    def __init__(self, node: LocalNode, objects: Objects) -> None:
        self._node = node
        self._objects = objects

    # -------------------------------------------------------------------------------------------- transactions

    def executed_message(self, found: model.Executed, want: Mask) -> Any:
        """Return an executed (or simulated) transaction with the wanted fields."""
        return build(library().v2.ExecutedTransaction, self._executed_makers, found, want)

    @cached_property
    def _executed_makers(self) -> Mapping[str, Maker]:
        return {
            "digest": lambda found, want: format_digest(found.transaction.digest),
            "transaction": lambda found, want: self._transaction_message(found.transaction, want),
            "signatures": lambda found, want: [_signature(each) for each in found.transaction.signatures],
            "effects": self._effects_message,
            "events": lambda found, want: self._events_message(found.transaction, want),
            "checkpoint": lambda found, want: found.transaction.checkpoint,
            "timestamp": lambda found, want: timestamp(found.transaction.timestamp_ms),
            "balance_changes": lambda found, want: [
                _balance_change(each) for each in found.transaction.balance_changes
            ],
            "objects": self._object_set,
            "transaction_index": lambda found, want: self.find_place(found.transaction),
        }

    def find_place(self, record: model.TransactionRecord) -> int | None:
        """Return the position of a transaction in its checkpoint."""
        if record.checkpoint is None:
            return None
        found = self._node.find_checkpoint(record.checkpoint)
        return None if found is None else found.digests.index(record.digest)

    def _object_set(self, found: model.Executed, want: Mask) -> Any:
        inner = want.below("objects") if "objects" in want else EVERYTHING
        records = {(each.id, each.version): each for each in (*found.inputs, *found.outputs)}
        messages = [self._objects.make_message(each, inner) for each in records.values()]
        return library().v2.ObjectSet(objects=messages)

    def _transaction_message(self, record: model.TransactionRecord, want: Mask) -> Any:
        return build(library().v2.Transaction, TRANSACTION_MAKERS, record, want)

    # ------------------------------------------------------------------------------------------------- effects

    def _effects_message(self, found: model.Executed, want: Mask) -> Any:
        return build(library().v2.TransactionEffects, self._effects_makers, found, want)

    @cached_property
    def _effects_makers(self) -> Mapping[str, Maker]:
        return {
            "bcs": lambda found, want: bcs_message("TransactionEffects", found.transaction.effects_bcs),
            "digest": lambda found, want: format_digest(found.transaction.effects_digest),
            "version": lambda found, want: 2,
            "status": lambda found, want: self._status_message(found.effects),
            "epoch": lambda found, want: found.effects.epoch,
            "gas_used": lambda found, want: _gas(found.effects.gas_used),
            "transaction_digest": lambda found, want: format_digest(found.effects.transaction_digest),
            "gas_object": self._gas_object,
            "events_digest": lambda found, want: _maybe_digest(found.effects.events_digest),
            "dependencies": lambda found, want: [format_digest(each) for each in found.effects.dependencies],
            "lamport_version": lambda found, want: found.effects.lamport_version,
            "changed_objects": lambda found, want: _changes(found),
            "unchanged_consensus_objects": lambda found, want: [
                unchanged_message(id, each) for id, each in found.effects.unchanged
            ],
            "auxiliary_data_digest": lambda found, want: _maybe_digest(found.effects.aux_data_digest),
        }

    @staticmethod
    def _gas_object(found: model.Executed, want: Mask) -> Any:
        place = found.effects.gas_object_index
        if place is None:
            return None
        id, change = found.effects.changed[place]
        return _change(id, change, found.effects.lamport_version, _types(found).get(id))

    def _status_message(self, effects: fx.TransactionEffects) -> Any:
        v2 = library().v2
        error = effects.error
        if error is None:
            return v2.ExecutionStatus(success=True)
        return v2.ExecutionStatus(success=False, error=self.error_message(error))

    def error_message(self, error: fx.ExecutionError) -> Any:
        v2 = library().v2
        number, _ = fx.FAILURES[error.kind]
        # The message's kinds are the format's numbers with 0 for "unknown" in front.
        message = v2.ExecutionError(
            description=error.description or error.kind,
            command=error.command,
            kind=v2.ExecutionErrorExecutionErrorKind(number + 1),
        )
        content = error.content
        if error.kind in ("MoveAbort", "MovePrimitiveRuntimeError"):
            location: Any = content.get("location")
            code = content.get("code")
            message.abort = v2.MoveAbort(
                abort_code=code,
                location=_location(location) if location is not None else None,
                clever_error=self._clever_message(location, code) if code is not None else None,
            )
        elif error.kind == "CommandArgumentError":
            message.command_argument_error = _argument_problem(content)
        elif error.kind == "TypeArgumentError":
            kinds = v2.TypeArgumentErrorTypeArgumentErrorKind
            found = (
                kinds.TYPE_NOT_FOUND
                if content["problem"] == "TypeNotFound"
                else kinds.CONSTRAINT_NOT_SATISFIED
            )
            message.type_argument_error = v2.TypeArgumentError(type_argument=content["argument"], kind=found)
        elif error.kind == "PackageUpgradeError":
            message.package_upgrade_error = _upgrade_problem(content["problem"])
        elif error.kind in ("UnusedValueWithoutDrop", "InvalidPublicFunctionReturnType"):
            message.index_error = v2.IndexError(
                index=content.get("result", content.get("index")), subresult=content.get("secondary")
            )
        else:
            _plain_content(message, content)
        return message

    def _clever_message(self, location: fx.CodeLocation, code: int) -> Any:
        module = self._find_module(location.package, location.module)
        found = None if module is None else module.describe_abort(code)
        if found is None or found.line is None:
            return None
        return library().v2.CleverError(
            error_code=found.number, line_number=found.line, constant_name=found.name, rendered=found.message
        )

    def _find_module(self, package: bytes, name: str) -> CompiledModule | None:
        info = self._node.find_package(package)
        found = [] if info is None else [each.contents for each in info.modules if each.name == name]
        return _compiled(found[0]) if found else None

    # -------------------------------------------------------------------------------------------------- events

    def _events_message(self, record: model.TransactionRecord, want: Mask) -> Any:
        if not record.events:
            return None
        fields: dict[str, Any] = {}
        if "bcs" in want:
            fields["bcs"] = bcs_message("TransactionEvents", record.events_bcs)
        if "digest" in want:
            fields["digest"] = _maybe_digest(record.effects.events_digest)
        if "events" in want:
            inner = want.below("events")
            place = self.find_place(record) if "transaction_index" in inner else None
            fields["events"] = [self.event_message(PlacedEvent(each, place), inner) for each in record.events]
        return library().v2.TransactionEvents(**fields)

    def event_message(self, found: PlacedEvent, want: Mask) -> Any:
        """Return an event with the wanted fields."""
        return build(library().v2.Event, _EVENT_MAKERS, found, want)

    # --------------------------------------------------------------------------------------------- checkpoints

    def checkpoint_message(self, found: model.CheckpointRecord, want: Mask) -> Any:
        """Return a checkpoint with the wanted fields."""
        return build(library().v2.Checkpoint, self._checkpoint_makers, found, want)

    @cached_property
    def _checkpoint_makers(self) -> Mapping[str, Maker]:
        return {
            "sequence_number": lambda found, want: found.sequence,
            "digest": lambda found, want: format_digest(found.digest),
            "summary": lambda found, want: build(
                library().v2.CheckpointSummary, _SUMMARY_MAKERS, found, want
            ),
            "contents": lambda found, want: _contents(found.contents),
            "transactions": lambda found, want: [
                self.executed_message(each, want)
                for each in self._node.checkpoint_transactions(found.sequence)
            ],
            "objects": self._checkpoint_objects,
        }

    def _checkpoint_objects(self, found: model.CheckpointRecord, want: Mask) -> Any:
        inner = want.below("objects") if "objects" in want else EVERYTHING
        records = {
            (each.id, each.version): each
            for executed in self._node.checkpoint_transactions(found.sequence)
            for each in (*executed.inputs, *executed.outputs)
        }
        messages = [self._objects.make_message(each, inner) for each in records.values()]
        return library().v2.ObjectSet(objects=messages)


# ------------------------------------------------------------------------------------------------------- parts


@lru_cache(maxsize=64)
def _compiled(code: bytes) -> CompiledModule:
    return deserialize(code)


def _maybe_digest(digest: bytes | None) -> str | None:
    return None if digest is None else format_digest(digest)


def _gas(gas: fx.GasCost) -> Any:
    return library().v2.GasCostSummary(
        computation_cost=gas.computation,
        storage_cost=gas.storage,
        storage_rebate=gas.storage_rebate,
        non_refundable_storage_fee=gas.non_refundable,
    )


def _balance_change(found: model.BalanceChange) -> Any:
    return library().v2.BalanceChange(
        address=format_address(found.address), coin_type=str(found.coin_type), amount=str(found.amount)
    )


def _signature(signature: bytes) -> Any:
    v2 = library().v2
    scheme = v2.SignatureScheme(signature[0])
    message = v2.UserSignature(bcs=bcs_message("UserSignatureBytes", signature), scheme=scheme)
    if signature[0] < 3:
        message.simple = v2.SimpleSignature(
            scheme=scheme, signature=signature[1:65], public_key=signature[65:]
        )
    return message


def _location(found: fx.CodeLocation) -> Any:
    return library().v2.MoveLocation(
        package=format_address(found.package),
        module=found.module,
        function=found.function,
        instruction=found.instruction,
        function_name=found.function_name,
    )


def _argument_problem(content: Mapping[str, Any]) -> Any:
    v2 = library().v2
    problem: fx.ArgumentProblem = content["problem"]
    number, _ = fx.ARGUMENT_PROBLEMS[problem.name]
    index = None
    if problem.numbers:
        second = problem.numbers[1] if len(problem.numbers) > 1 else None
        index = v2.IndexError(index=problem.numbers[0], subresult=second)
    return v2.CommandArgumentError(
        argument=content["argument"],
        kind=v2.CommandArgumentErrorCommandArgumentErrorKind(number + 1),
        index_error=index,
    )


def _upgrade_problem(problem: fx.UpgradeProblem) -> Any:
    v2 = library().v2
    kinds = v2.PackageUpgradeErrorPackageUpgradeErrorKind
    first: Any = problem.content[0] if problem.content else None
    match problem.name:
        case "UnableToFetchPackage":
            return v2.PackageUpgradeError(
                kind=kinds.UNABLE_TO_FETCH_PACKAGE, package_id=format_address(first)
            )
        case "NotAPackage":
            return v2.PackageUpgradeError(kind=kinds.NOT_A_PACKAGE, package_id=format_address(first))
        case "DigestDoesNotMatch":
            return v2.PackageUpgradeError(kind=kinds.DIGEST_DOES_NOT_MATCH, digest=bytes(first).hex())
        case "UnknownUpgradePolicy":
            return v2.PackageUpgradeError(kind=kinds.UNKNOWN_UPGRADE_POLICY, policy=first)
        case "PackageIDDoesNotMatch":
            return v2.PackageUpgradeError(
                kind=kinds.PACKAGE_ID_DOES_NOT_MATCH,
                package_id=format_address(first),
                ticket_id=format_address(problem.content[1]),
            )
    return v2.PackageUpgradeError(kind=kinds.INCOMPATIBLE_UPGRADE)


def _plain_content(message: Any, content: Mapping[str, Any]) -> None:
    v2 = library().v2
    sizes = [each for name, each in content.items() if name.endswith("size")]
    if len(sizes) == 2:
        message.size_error = v2.SizeError(size=sizes[0], max_size=sizes[1])
    for name in ("object", "id"):
        if name in content:
            message.object_id = format_address(content[name])
    if "coin_type" in content:
        held = content.get("address")
        message.coin_deny_list_error = v2.CoinDenyListError(
            address=format_address(held) if held is not None else None, coin_type=content["coin_type"]
        )
    if "congested_objects" in content:
        ids = [format_address(each) for each in content["congested_objects"]]
        message.congested_objects = v2.CongestedObjects(objects=ids)


def _types(found: model.Executed) -> dict[bytes, str | None]:
    return {each.id: type_text(each) for each in (*found.inputs, *found.outputs)}


def _changes(found: model.Executed) -> list[Any]:
    types, lamport = _types(found), found.effects.lamport_version
    return [_change(id, change, lamport, types.get(id)) for id, change in found.effects.changed]


def _change(id: bytes, change: fx.ObjectChange, lamport: int, object_type: str | None) -> Any:
    v2 = library().v2
    before, after = v2.ChangedObjectInputObjectState, v2.ChangedObjectOutputObjectState
    message = v2.ChangedObject(
        object_id=format_address(id),
        id_operation=v2.ChangedObjectIdOperation(int(change.id_operation) + 1),
        input_state=before.DOES_NOT_EXIST,
        output_state=after.DOES_NOT_EXIST,
        object_type=object_type,
    )
    if isinstance(change.before, fx.InExisting):
        message.input_state = before.EXISTS
        message.input_version = change.before.version
        message.input_digest = format_digest(change.before.digest)
        message.input_owner = owner_message(change.before.owner)
    match change.after:
        case fx.OutObject(digest, owner):
            message.output_state = after.OBJECT_WRITE
            message.output_version = lamport
            message.output_digest = format_digest(digest)
            message.output_owner = owner_message(owner)
        case fx.OutPackage(version, digest):
            message.output_state = after.PACKAGE_WRITE
            message.output_version = version
            message.output_digest = format_digest(digest)
            message.output_owner = v2.Owner(kind=v2.OwnerOwnerKind.IMMUTABLE)
    return message


def unchanged_message(id: bytes, found: fx.Unchanged) -> Any:
    v2 = library().v2
    kinds = v2.UnchangedConsensusObjectUnchangedConsensusObjectKind
    message = v2.UnchangedConsensusObject(object_id=format_address(id))
    match found:
        case fx.ReadOnlyRoot(version, digest):
            message.kind, message.version = kinds.READ_ONLY_ROOT, version
            message.digest = format_digest(digest)
        case fx.MutateEnded(version):
            message.kind, message.version = kinds.MUTATE_CONSENSUS_STREAM_ENDED, version
        case fx.ReadEnded(version):
            message.kind, message.version = kinds.READ_CONSENSUS_STREAM_ENDED, version
        case fx.Cancelled(version):
            message.kind, message.version = kinds.CANCELED, version
        case fx.PerEpochConfig():
            message.kind = kinds.PER_EPOCH_CONFIG
    return message


def _input_message(value: sui.CallArg) -> Any:
    v2 = library().v2
    kinds = v2.InputInputKind
    match value:
        case sui.Pure(data):
            return v2.Input(kind=kinds.PURE, pure=data)
        case sui.OwnedInput(ref) | sui.ReceivingInput(ref):
            owned = isinstance(value, sui.OwnedInput)
            return v2.Input(
                kind=kinds.IMMUTABLE_OR_OWNED if owned else kinds.RECEIVING,
                object_id=format_address(ref.id),
                version=ref.version,
                digest=format_digest(ref.digest),
            )
        case sui.SharedInput(id, version, mutability):
            return v2.Input(
                kind=kinds.SHARED,
                object_id=format_address(id),
                version=version,
                mutable=mutability is not sui.Mutability.IMMUTABLE,
                mutability=v2.InputMutability(int(mutability) + 1),
            )
        case sui.FundsWithdrawal(amount, tag, from_sponsor):
            sources = v2.FundsWithdrawalSource
            withdrawal = v2.FundsWithdrawal(
                amount=amount,
                coin_type=str(tag),
                source=sources.SPONSOR if from_sponsor else sources.SENDER,
            )
            return v2.Input(kind=kinds.FUNDS_WITHDRAWAL, funds_withdrawal=withdrawal)


def kind_message(kind: sui.TransactionKind) -> Any:
    v2 = library().v2
    kinds = v2.TransactionKindKind
    match kind:
        case sui.ProgrammableTransaction(inputs, commands):
            program = v2.ProgrammableTransaction(
                inputs=[_input_message(each) for each in inputs],
                commands=[command_message(each, library().v2) for each in commands],
            )
            return v2.TransactionKind(kind=kinds.PROGRAMMABLE_TRANSACTION, programmable_transaction=program)
        case sui.ChangeEpoch():
            change = v2.ChangeEpoch(
                epoch=kind.epoch,
                protocol_version=kind.protocol_version,
                storage_charge=kind.storage_charge,
                computation_charge=kind.computation_charge,
                storage_rebate=kind.storage_rebate,
                non_refundable_storage_fee=kind.non_refundable_storage_fee,
                epoch_start_timestamp=timestamp(kind.epoch_start_timestamp_ms),
            )
            return v2.TransactionKind(kind=kinds.CHANGE_EPOCH, change_epoch=change)
        case sui.Genesis(objects):
            genesis = v2.GenesisTransaction(objects=[_genesis_object(each) for each in objects])
            return v2.TransactionKind(kind=kinds.GENESIS, genesis=genesis)
        case sui.ConsensusCommitPrologue(epoch, round, ms):
            prologue = v2.ConsensusCommitPrologue(epoch=epoch, round=round, commit_timestamp=timestamp(ms))
            return v2.TransactionKind(
                kind=kinds.CONSENSUS_COMMIT_PROLOGUE_V1, consensus_commit_prologue=prologue
            )
        case sui.RandomnessStateUpdate(epoch, round, random, version):
            update = v2.RandomnessStateUpdate(
                epoch=epoch,
                randomness_round=round,
                random_bytes=random,
                randomness_object_initial_shared_version=version,
            )
            return v2.TransactionKind(kind=kinds.RANDOMNESS_STATE_UPDATE, randomness_state_update=update)


def _genesis_object(found: sui.GenesisObject) -> Any:
    v2 = library().v2
    data = OBJECT_DATA.decode(found.data)
    package = isinstance(data, MovePackageData)
    id = data.id if isinstance(data, MovePackageData) else data.contents[:32]
    kind = "package" if isinstance(data, MovePackageData) else str(data.type)
    contents = None if isinstance(data, MovePackageData) else bcs_message(kind, data.contents)
    return v2.Object(
        object_id=format_address(id),
        version=data.version,
        owner=owner_message(found.owner),
        object_type=kind,
        contents=None if package else contents,
    )


def expiration_message(expiration: sui.Expiration) -> Any:
    v2 = library().v2
    kinds = v2.TransactionExpirationTransactionExpirationKind
    match expiration:
        case sui.NoExpiration():
            return v2.TransactionExpiration(kind=kinds.NONE)
        case sui.EpochExpiration(epoch):
            return v2.TransactionExpiration(kind=kinds.EPOCH, epoch=epoch)
        case sui.ValidDuring():
            low, high = expiration.min_timestamp, expiration.max_timestamp
            return v2.TransactionExpiration(
                kind=kinds.VALID_DURING,
                epoch=expiration.max_epoch,
                min_epoch=expiration.min_epoch,
                min_timestamp=None if low is None else timestamp(low),
                max_timestamp=None if high is None else timestamp(high),
                chain=format_digest(expiration.chain),
                nonce=expiration.nonce,
            )


def _payment_message(gas: sui.GasData) -> Any:
    v2 = library().v2
    return v2.GasPayment(
        objects=[
            v2.ObjectReference(
                object_id=format_address(each.id), version=each.version, digest=format_digest(each.digest)
            )
            for each in gas.payment
        ],
        owner=format_address(gas.owner),
        price=gas.price,
        budget=gas.budget,
    )


TRANSACTION_MAKERS: Mapping[str, Maker] = {
    "bcs": lambda record, want: bcs_message("TransactionData", record.data_bcs),
    "digest": lambda record, want: format_digest(record.digest),
    "version": lambda record, want: 1,
    "kind": lambda record, want: kind_message(record.data.kind),
    "sender": lambda record, want: format_address(record.data.sender),
    "gas_payment": lambda record, want: _payment_message(record.data.gas_data),
    "expiration": lambda record, want: expiration_message(record.data.expiration),
}

_EVENT_MAKERS: Mapping[str, Maker] = {
    "package_id": lambda found, want: format_address(found.event.package),
    "module": lambda found, want: found.event.module,
    "sender": lambda found, want: format_address(found.event.sender),
    "event_type": lambda found, want: str(found.event.type),
    "contents": lambda found, want: bcs_message(str(found.event.type), found.event.contents),
    "json": lambda found, want: None if found.event.json is None else value(found.event.json),
    "checkpoint": lambda found, want: found.event.checkpoint,
    "transaction_digest": lambda found, want: format_digest(found.event.digest),
    "transaction_index": lambda found, want: found.transaction_index,
    "event_index": lambda found, want: found.event.index,
}

_SUMMARY_MAKERS: Mapping[str, Maker] = {
    "bcs": lambda found, want: bcs_message("CheckpointSummary", found.summary.encode()),
    "digest": lambda found, want: format_digest(found.digest),
    "epoch": lambda found, want: found.summary.epoch,
    "sequence_number": lambda found, want: found.summary.sequence_number,
    "total_network_transactions": lambda found, want: found.summary.network_total_transactions,
    "content_digest": lambda found, want: format_digest(found.summary.content_digest),
    "previous_digest": lambda found, want: _maybe_digest(found.summary.previous_digest),
    "epoch_rolling_gas_cost_summary": lambda found, want: _gas(found.summary.epoch_rolling_gas_cost),
    "timestamp": lambda found, want: timestamp(found.summary.timestamp_ms),
    "end_of_epoch_data": lambda found, want: _end_of_epoch(found.summary.end_of_epoch),
    "version_specific_data": lambda found, want: found.summary.version_specific_data or None,
}


def _end_of_epoch(found: fx.EndOfEpoch | None) -> Any:
    if found is None:
        return None
    v2 = library().v2
    return v2.EndOfEpochData(
        next_epoch_committee=[
            v2.ValidatorCommitteeMember(public_key=key, weight=weight) for key, weight in found.next_committee
        ],
        next_epoch_protocol_version=found.next_protocol_version,
    )


def _contents(found: fx.CheckpointContents) -> Any:
    v2 = library().v2
    pairs = zip(found.transactions, found.signatures, strict=True)
    return v2.CheckpointContents(
        bcs=bcs_message("CheckpointContents", found.encode()),
        digest=format_digest(found.digest()),
        version=1,
        transactions=[
            v2.CheckpointedTransactionInfo(
                transaction=format_digest(each.transaction),
                effects=format_digest(each.effects),
                signatures=[_signature(signature) for signature in signatures],
            )
            for each, signatures in pairs
        ],
    )
