"""The methods of `sui.rpc.v2` that this node serves: a request message in, an answer message out.

Nothing here knows gRPC; `server.py` carries the messages and turns errors into statuses.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from dtp.localnet import model
from dtp.localnet.grpc import masks, requests
from dtp.localnet.grpc.errors import BadRequest, Missing
from dtp.localnet.grpc.event_stream import Events
from dtp.localnet.grpc.masks import Mask
from dtp.localnet.grpc.messages import library, timestamp, value
from dtp.localnet.grpc.objects import (
    Objects,
    balance_message,
    bcs_message,
    coin_info_message,
    datatype_message,
    function_message,
    package_message,
)
from dtp.localnet.grpc.transactions import Transactions
from dtp.localnet.node import LocalNode
from dtp.sui.commands import argument_message
from dtp.sui.names import format_digest

_NOT_FOUND: Final = 5  # google.rpc.Code
_INVALID: Final = 3

_DEFAULT_OBJECT = "object_id,version,digest"
_DEFAULT_OWNED = "object_id,version,object_type"
_DEFAULT_FIELD = "parent,field_id"
_DEFAULT_TRANSACTION = "digest"
_DEFAULT_EXECUTED = "effects.status,checkpoint"
_DEFAULT_CHECKPOINT = "sequence_number,digest"
_DEFAULT_EPOCH = "epoch"
_ALL = "*"


class Services:
    """All methods over one node."""

    def __init__(self, node: LocalNode) -> None:
        self.node = node
        self.objects = Objects(node)
        self.transactions = Transactions(node, self.objects)
        self.events = Events(node, self.transactions)

    # ------------------------------------------------------------------------------------------------ ledger

    def get_service_info(self, request: Any) -> Any:
        """Return what the node is, and where it stands."""
        info = self.node.service_info()
        return library().v2.GetServiceInfoResponse(
            chain_id=format_digest(info.chain),
            chain=info.chain_name,
            epoch=info.epoch,
            checkpoint_height=info.checkpoint,
            timestamp=timestamp(info.timestamp_ms),
            lowest_available_checkpoint=info.lowest_checkpoint,
            lowest_available_checkpoint_objects=info.lowest_checkpoint_with_objects,
            server=info.server,
        )

    def get_epoch(self, request: Any) -> Any:
        """Return an epoch."""
        v2 = library().v2
        want = masks.parse(request.read_mask, _DEFAULT_EPOCH, v2.Epoch)
        found = self.node.find_epoch(requests.stored(request.epoch))
        if found is None:
            raise Missing(f"there is no epoch {request.epoch} yet")
        return v2.GetEpochResponse(epoch=masks.build(v2.Epoch, _EPOCH_MAKERS, found, want))

    def get_object(self, request: Any) -> Any:
        """Return an object, the newest version or a given one."""
        v2 = library().v2
        want = masks.parse(request.read_mask, _DEFAULT_OBJECT, v2.Object)
        return v2.GetObjectResponse(object=self._get_object(request, want))

    def _get_object(self, request: Any, want: Mask) -> Any:
        id = requests.address(request.object_id, "object_id")
        found = self.node.find_object(id, requests.stored(request.version))
        if found is None:
            version = f" with version {request.version}" if request.version is not None else ""
            raise Missing(f"Object {request.object_id}{version} not found")
        return self.objects.make_message(found, want)

    def batch_get_objects(self, request: Any) -> Any:
        """Return several objects; those that aren't there have an error in their place."""
        found, rpc = library(), library().rpc
        v2 = found.v2
        want = masks.parse(request.read_mask, _DEFAULT_OBJECT, v2.Object)
        results = []
        for each in requests.batch(request.requests, "requests"):
            try:
                results.append(v2.GetObjectResult(object=self._get_object(each, want)))
            except Missing as fault:
                results.append(v2.GetObjectResult(error=rpc.Status(code=_NOT_FOUND, message=str(fault))))
            except BadRequest as fault:
                results.append(v2.GetObjectResult(error=rpc.Status(code=_INVALID, message=str(fault))))
        return v2.BatchGetObjectsResponse(objects=results)

    def get_transaction(self, request: Any) -> Any:
        """Return an executed transaction."""
        v2 = library().v2
        want = masks.parse(request.read_mask, _DEFAULT_TRANSACTION, v2.ExecutedTransaction)
        return v2.GetTransactionResponse(transaction=self._get_transaction(request.digest, want))

    def _get_transaction(self, digest: str | None, want: Mask) -> Any:
        found = self.node.find_executed(requests.digest(digest, "digest"))
        if found is None:
            raise Missing(f"Transaction {digest} not found")
        return self.transactions.executed_message(found, want)

    def batch_get_transactions(self, request: Any) -> Any:
        """Return several transactions; those that aren't known have an error in their place."""
        v2, rpc = library().v2, library().rpc
        want = masks.parse(request.read_mask, _DEFAULT_TRANSACTION, v2.ExecutedTransaction)
        results = []
        for digest in requests.batch(request.digests, "digests"):
            try:
                results.append(v2.GetTransactionResult(transaction=self._get_transaction(digest, want)))
            except Missing as fault:
                results.append(v2.GetTransactionResult(error=rpc.Status(code=_NOT_FOUND, message=str(fault))))
            except BadRequest as fault:
                results.append(v2.GetTransactionResult(error=rpc.Status(code=_INVALID, message=str(fault))))
        return v2.BatchGetTransactionsResponse(transactions=results)

    def get_checkpoint(self, request: Any) -> Any:
        """Return a checkpoint by number or digest, the newest without either."""
        v2 = library().v2
        want = masks.parse(request.read_mask, _DEFAULT_CHECKPOINT, v2.Checkpoint)
        which: int | bytes | None = requests.stored(request.sequence_number)
        if which is None and request.digest is not None:
            which = requests.digest(request.digest, "digest")
        found = self.node.find_checkpoint(which)
        if found is None:
            raise Missing(f"Checkpoint {request.digest or request.sequence_number} not found")
        return v2.GetCheckpointResponse(checkpoint=self.transactions.checkpoint_message(found, want))

    def list_events(self, request: Any) -> Iterator[Any]:
        """Return events of the past, in either order."""
        want = masks.parse(request.read_mask, _ALL, library().v2.Event)
        return self.events.list_events(request, want)

    # ------------------------------------------------------------------------------------------------- state

    def list_owned_objects(self, request: Any) -> Any:
        """Return a page of what an address owns."""
        v2 = library().v2
        want = masks.parse(request.read_mask, _DEFAULT_OWNED, v2.Object)
        owner = requests.address(request.owner, "owner")
        kind = requests.type_tag(request.object_type, "object_type") if request.object_type else None
        size = requests.page_size(request.page_size)
        page = self.node.objects_owned_by(owner, kind, request.page_token or None, size)
        found = [self.objects.make_message(each, want) for each in page.items]
        return v2.ListOwnedObjectsResponse(objects=found, next_page_token=page.cursor)

    def list_dynamic_fields(self, request: Any) -> Any:
        """Return a page of the dynamic fields of an object."""
        v2 = library().v2
        want = masks.parse(request.read_mask, _DEFAULT_FIELD, v2.DynamicField)
        parent = requests.address(request.parent, "parent")
        page = self.node.dynamic_fields(
            parent, request.page_token or None, requests.page_size(request.page_size)
        )
        found = [self.objects.dynamic_field(each, want) for each in page.items]
        return v2.ListDynamicFieldsResponse(dynamic_fields=found, next_page_token=page.cursor)

    def get_balance(self, request: Any) -> Any:
        """Return what an address has of a coin."""
        owner = requests.address(request.owner, "owner")
        found = self.node.get_balance(owner, requests.type_tag(request.coin_type, "coin_type"))
        return library().v2.GetBalanceResponse(balance=balance_message(found))

    def list_balances(self, request: Any) -> Any:
        """Return a page of all that an address has."""
        owner = requests.address(request.owner, "owner")
        page = self.node.list_balances(
            owner, request.page_token or None, requests.page_size(request.page_size)
        )
        found = [balance_message(each) for each in page.items]
        return library().v2.ListBalancesResponse(balances=found, next_page_token=page.cursor)

    def get_coin_info(self, request: Any) -> Any:
        """Return what is known of a coin."""
        tag = requests.type_tag(request.coin_type, "coin_type")
        found = self.node.coin_info(tag)
        if found is None:
            raise Missing(f"Coin type {tag} not found")
        return coin_info_message(found)

    # ---------------------------------------------------------------------------------------------- packages

    def get_package(self, request: Any) -> Any:
        """Return a package."""
        found = self.node.find_package(requests.address(request.package_id, "package_id"))
        if found is None:
            raise Missing(f"Package {request.package_id} not found")
        return library().v2.GetPackageResponse(package=package_message(found))

    def get_datatype(self, request: Any) -> Any:
        """Return a struct or an enum."""
        module = requests.required(request.module_name, "module_name")
        name = requests.required(request.name, "name")
        found = self.node.find_datatype(requests.address(request.package_id, "package_id"), module, name)
        if found is None:
            raise Missing(f"Datatype {request.package_id}::{module}::{name} not found")
        return library().v2.GetDatatypeResponse(datatype=datatype_message(found))

    def get_function(self, request: Any) -> Any:
        """Return a function."""
        module = requests.required(request.module_name, "module_name")
        name = requests.required(request.name, "name")
        found = self.node.find_function(requests.address(request.package_id, "package_id"), module, name)
        if found is None:
            raise Missing(f"Function {request.package_id}::{module}::{name} not found")
        return library().v2.GetFunctionResponse(function=function_message(found))

    def list_package_versions(self, request: Any) -> Any:
        """Return a page of the versions of a package."""
        v2 = library().v2
        id = requests.address(request.package_id, "package_id")
        page = self.node.package_versions(
            id, request.page_token or None, requests.page_size(request.page_size)
        )
        versions = [
            v2.PackageVersion(package_id=f"0x{storage.hex()}", version=number)
            for number, storage in page.items
        ]
        return v2.ListPackageVersionsResponse(versions=versions, next_page_token=page.cursor)

    # ------------------------------------------------------------------------------------------ transactions

    def execute_transaction(self, request: Any) -> Any:
        """Execute a signed transaction, given as BCS or field by field."""
        v2 = library().v2
        want = masks.parse(request.read_mask, _DEFAULT_EXECUTED, v2.ExecutedTransaction)
        message = requests.required(request.transaction, "transaction")
        data = requests.transaction_bytes(message)
        if data is None:
            data = self.node.resolve(requests.unresolved(message)).encode()
        signatures = tuple(requests.signature(each, n) for n, each in enumerate(request.signatures))
        executed = self.node.execute(data, signatures)
        return v2.ExecuteTransactionResponse(transaction=self.transactions.executed_message(executed, want))

    def simulate_transaction(self, request: Any) -> Any:
        """Return what a transaction would do: one given as BCS, or one whose versions and gas are to be filled in."""
        v2 = library().v2
        want = masks.parse(request.read_mask, _ALL, v2.SimulateTransactionResponse)
        message = requests.required(request.transaction, "transaction")
        data = requests.transaction_bytes(message)
        asked = requests.unresolved(message) if data is None else requests.decode_transaction(data)
        simulated = self.node.simulate(
            asked,
            checks=request.checks is None or int(request.checks) == 0,
            select_gas=bool(request.do_gas_selection),
            outputs="command_outputs" in want,
        )
        answer = v2.SimulateTransactionResponse()
        if "transaction" in want:
            answer.transaction = self.transactions.executed_message(
                simulated.executed, want.below("transaction")
            )
        if "command_outputs" in want:
            answer.command_outputs = [_command_result(each) for each in simulated.commands]
        if "suggested_gas_price" in want:
            epoch = self.node.find_epoch()
            answer.suggested_gas_price = epoch.reference_gas_price if epoch is not None else None
        return answer


def _command_result(found: model.CommandOutput) -> Any:
    return library().v2.CommandResult(
        return_values=[_command_output(each) for each in found.returned],
        mutated_by_ref=[_command_output(each) for each in found.mutated],
    )


def _command_output(found: model.CommandValue) -> Any:
    return library().v2.CommandOutput(
        argument=None if found.argument is None else argument_message(found.argument, library().v2),
        value=bcs_message(str(found.type), found.bcs),
        json=None if found.json is None else value(found.json),
    )


def _protocol_config(found: model.EpochRecord, want: Mask) -> Any:
    return library().v2.ProtocolConfig(protocol_version=found.protocol_version)


_EPOCH_MAKERS: Final[dict[str, masks.Maker]] = {
    "epoch": lambda found, want: found.epoch,
    "first_checkpoint": lambda found, want: found.first_checkpoint,
    "last_checkpoint": lambda found, want: found.last_checkpoint,
    "start": lambda found, want: timestamp(found.start_ms),
    "end": lambda found, want: None if found.end_ms is None else timestamp(found.end_ms),
    "reference_gas_price": lambda found, want: found.reference_gas_price,
    "protocol_config": _protocol_config,
}


#: (service, method, attribute of `Services`): one answer each. Messages are `<method>Request` and `<method>Response`.
UNARY: Final = (
    ("LedgerService", "GetServiceInfo", "get_service_info"),
    ("LedgerService", "GetObject", "get_object"),
    ("LedgerService", "BatchGetObjects", "batch_get_objects"),
    ("LedgerService", "GetTransaction", "get_transaction"),
    ("LedgerService", "BatchGetTransactions", "batch_get_transactions"),
    ("LedgerService", "GetCheckpoint", "get_checkpoint"),
    ("LedgerService", "GetEpoch", "get_epoch"),
    ("StateService", "ListOwnedObjects", "list_owned_objects"),
    ("StateService", "ListDynamicFields", "list_dynamic_fields"),
    ("StateService", "GetBalance", "get_balance"),
    ("StateService", "ListBalances", "list_balances"),
    ("StateService", "GetCoinInfo", "get_coin_info"),
    ("MovePackageService", "GetPackage", "get_package"),
    ("MovePackageService", "GetDatatype", "get_datatype"),
    ("MovePackageService", "GetFunction", "get_function"),
    ("MovePackageService", "ListPackageVersions", "list_package_versions"),
    ("TransactionExecutionService", "ExecuteTransaction", "execute_transaction"),
    ("TransactionExecutionService", "SimulateTransaction", "simulate_transaction"),
)
#: Methods of `sui.rpc.v2` that are answered with "unimplemented", by name.
UNSUPPORTED: Final = (
    ("LedgerService", "ListCheckpoints"),
    ("LedgerService", "ListTransactions"),
    ("NameService", "LookupName"),
    ("NameService", "ReverseLookupName"),
    ("SignatureVerificationService", "VerifySignature"),
    ("SubscriptionService", "SubscribeTransactions"),
)
