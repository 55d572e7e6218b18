"""Every method of the node: what it answers, by masks and in pages, and what it says when it can't."""

import datetime

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from dtp.chain import Program
from dtp.chain.node._pysui import Unresolved, unresolved_message
from dtp.localnet.grpc import masks
from dtp.localnet.grpc.errors import BadRequest
from dtp.localnet.grpc.messages import library, milliseconds, timestamp, value
from dtp.localnet.limits import PROTOCOL_VERSION
from dtp.sui.grpc import from_value
from dtp.sui.names import parse_digest
from dtp.sui.objects import OBJECT
from dtp.sui.transaction import TransactionData

SUI = "0x2::sui::SUI"
COIN = "0x" + "0" * 63 + "2::coin::Coin<0x" + "0" * 63 + "2::sui::SUI>"
NOBODY = "0x" + "7" * 64


def set_fields(message):
    return {
        name
        for name, found in vars(message).items()
        if found not in (None, [], {}) and not name.startswith("_")
    }


def refuses(status, call, *arguments, match="", **options):
    with pytest.raises(GRPCError) as refused:
        call(*arguments, **options)
    assert refused.value.status is status, refused.value
    assert match in refused.value.message  # type: ignore[operator]


# ---- ledger


def test_service_info(call, v2, history, net):
    info = call("LedgerService", "get_service_info", v2.GetServiceInfoRequest())
    epoch = net.run(lambda node: node.find_epoch()).epoch  # other tests move it
    assert (info.chain, info.epoch, info.chain_id) == ("localnet", epoch, net.chain_id)
    assert len(parse_digest(info.chain_id)) == 32
    assert info.checkpoint_height > 3
    assert info.timestamp.tzinfo is not None


def test_epochs(call, v2):
    epoch = call("LedgerService", "get_epoch", v2.GetEpochRequest()).epoch
    assert set_fields(epoch) == {"epoch"}
    mask = ["epoch", "reference_gas_price", "first_checkpoint", "protocol_config.protocol_version"]
    epoch = call("LedgerService", "get_epoch", v2.GetEpochRequest(epoch=0), mask).epoch
    assert epoch.reference_gas_price == 1000
    assert epoch.protocol_config.protocol_version == PROTOCOL_VERSION == 107
    refuses(Status.NOT_FOUND, call, "LedgerService", "get_epoch", v2.GetEpochRequest(epoch=99))


def test_objects(call, v2, history):
    request = v2.GetObjectRequest(object_id=history.host)
    found = call("LedgerService", "get_object", request).object
    assert set_fields(found) == {"object_id", "version", "digest"}
    assert found.object_id == history.host
    whole = call("LedgerService", "get_object", request, ["*"]).object
    assert whole.object_type == f"{history.package}::host::Host"
    assert whole.owner.kind is v2.OwnerOwnerKind.SHARED
    value_ = OBJECT.decode(whole.bcs.value)
    assert value_.data.contents == whole.contents.value
    assert whole.contents.name == whole.object_type
    assert from_value(whole.json)["revision"] == "1"
    assert whole.previous_transaction == history.changed
    first = whole.owner.version  # at which it was shared
    older = call("LedgerService", "get_object", v2.GetObjectRequest(object_id=history.host, version=first))
    assert older.object.version == first < whole.version


def test_coins_have_a_balance_and_packages_a_package(call, v2, history):
    request = v2.ListOwnedObjectsRequest(owner=history.signer.address, object_type=COIN)
    listed = call("StateService", "list_owned_objects", request, ["balance", "object_id"]).objects
    assert max(each.balance for each in listed) == 10_000_000_000
    package = call(
        "LedgerService", "get_object", v2.GetObjectRequest(object_id=history.package), ["*"]
    ).object
    assert package.object_type == "package"
    assert package.owner.kind is v2.OwnerOwnerKind.IMMUTABLE
    assert [each.name for each in package.package.modules] == ["channel", "host", "pass", "pipe"]
    assert package.contents is None


@pytest.mark.parametrize(
    ("id", "version", "status"),
    [
        (NOBODY, None, Status.NOT_FOUND),
        ("0x6", 10**9, Status.NOT_FOUND),
        ("0xzz", None, Status.INVALID_ARGUMENT),
        ("", None, Status.INVALID_ARGUMENT),
        (None, None, Status.INVALID_ARGUMENT),
    ],
)
def test_objects_that_are_not_there(call, v2, id, version, status):
    request = v2.GetObjectRequest(object_id=id, version=version)
    refuses(
        status, call, "LedgerService", "get_object", request, match="object_id" if status.value == 3 else ""
    )


def test_batches_answer_each_by_itself(call, v2, history):
    requests = [v2.GetObjectRequest(object_id=each) for each in (history.host, NOBODY, "nonsense")]
    request = v2.BatchGetObjectsRequest(requests=requests)
    found = call("LedgerService", "batch_get_objects", request, ["object_type"]).objects
    assert found[0].object.object_type.endswith("::Host")
    assert [each.error.code if each.error else 0 for each in found] == [0, 5, 3]
    request = v2.BatchGetTransactionsRequest(digests=[history.created, history.signer.address, "1" * 32])
    found = call("LedgerService", "batch_get_transactions", request).transactions
    assert found[0].transaction.digest == history.created
    assert [each.error.code if each.error else 0 for each in found] == [0, 3, 5]
    many = v2.BatchGetObjectsRequest(requests=requests * 500)
    refuses(
        Status.INVALID_ARGUMENT, call, "LedgerService", "batch_get_objects", many, match="1500 in one batch"
    )


def test_transactions(call, v2, history):
    request = v2.GetTransactionRequest(digest=history.changed)
    assert set_fields(call("LedgerService", "get_transaction", request).transaction) == {"digest"}
    found = call("LedgerService", "get_transaction", request, ["*"]).transaction
    data = TransactionData.decode(found.transaction.bcs.value)
    assert found.transaction.sender == history.signer.address
    assert found.transaction.gas_payment.budget == data.gas_data.budget
    program = found.transaction.kind.programmable_transaction
    assert [each.move_call.function for each in program.commands] == [
        "allow",
        "new_terms",
        "new_rate_limit",
        "add_service",
    ]
    kinds = {each.kind for each in program.inputs}
    assert kinds == {v2.InputInputKind.SHARED, v2.InputInputKind.IMMUTABLE_OR_OWNED, v2.InputInputKind.PURE}
    (signature,) = found.signatures
    assert (signature.scheme, len(signature.simple.signature)) == (v2.SignatureScheme.ED25519, 64)
    assert found.effects.status.success
    assert found.effects.transaction_digest == history.changed
    assert found.effects.lamport_version in {each.output_version for each in found.effects.changed_objects}
    assert found.effects.gas_object.object_type == COIN
    assert [each.event_type.split("::")[2] for each in found.events.events] == [
        "ListChanged",
        "ServiceChanged",
    ]
    assert found.balance_changes[0].coin_type.endswith("::sui::SUI")
    assert int(found.balance_changes[0].amount) < 0
    assert {each.object_id for each in found.objects.objects} >= {history.host}
    refuses(
        Status.NOT_FOUND, call, "LedgerService", "get_transaction", v2.GetTransactionRequest(digest="1" * 32)
    )
    bad = v2.GetTransactionRequest(digest="0OIl")
    refuses(Status.INVALID_ARGUMENT, call, "LedgerService", "get_transaction", bad, match="digest")


def test_checkpoints(call, v2, history):
    newest = call("LedgerService", "get_checkpoint", v2.GetCheckpointRequest()).checkpoint
    assert set_fields(newest) == {"sequence_number", "digest"}
    for number in range(newest.sequence_number + 1):  # the system's own transactions as well
        request = v2.GetCheckpointRequest(sequence_number=number)
        found = call("LedgerService", "get_checkpoint", request, ["*"]).checkpoint
        assert found.summary.sequence_number == number
        infos = [each.transaction for each in found.contents.transactions]
        assert infos == [each.digest for each in found.transactions]
        assert found.transactions[0].transaction.kind.kind is not None
        again = v2.GetCheckpointRequest(digest=found.digest)
        assert call("LedgerService", "get_checkpoint", again).checkpoint.sequence_number == number
    refuses(
        Status.NOT_FOUND,
        call,
        "LedgerService",
        "get_checkpoint",
        v2.GetCheckpointRequest(sequence_number=10**9),
    )


# ---- state


def test_owned_objects_in_pages(call, v2, history):
    seen, token = [], None
    while True:
        request = v2.ListOwnedObjectsRequest(owner=history.signer.address, page_size=2, page_token=token)
        page = call("StateService", "list_owned_objects", request)
        assert len(page.objects) <= 2
        seen += [each.object_id for each in page.objects]
        token = page.next_page_token
        if not token:
            break
    assert len(seen) == len(set(seen)) == 6  # three coins, two caps, the upgrade cap
    request = v2.ListOwnedObjectsRequest(owner=history.signer.address, object_type="0x2::coin::Coin")
    assert len(call("StateService", "list_owned_objects", request).objects) == 3
    request = v2.ListOwnedObjectsRequest(owner=history.signer.address, object_type="0x2::coin::Coin<u8>")
    assert call("StateService", "list_owned_objects", request).objects == []
    assert call("StateService", "list_owned_objects", v2.ListOwnedObjectsRequest(owner=NOBODY)).objects == []
    bad = v2.ListOwnedObjectsRequest(owner=history.signer.address, page_token=b"no token")
    refuses(Status.INVALID_ARGUMENT, call, "StateService", "list_owned_objects", bad)
    bad = v2.ListOwnedObjectsRequest(owner=history.signer.address, object_type="Coin")
    refuses(Status.INVALID_ARGUMENT, call, "StateService", "list_owned_objects", bad, match="object_type")


def test_dynamic_fields_in_pages(call, v2, history):
    names, token = [], None
    while True:
        request = v2.ListDynamicFieldsRequest(parent=history.allow, page_size=3, page_token=token)
        page = call("StateService", "list_dynamic_fields", request, ["name", "value", "value_type", "kind"])
        names += [each.name.value for each in page.dynamic_fields]
        assert {each.value_type for each in page.dynamic_fields} == {"bool"}
        assert {each.name.name for each in page.dynamic_fields} == {"address"}
        token = page.next_page_token
        if not token:
            break
    assert sorted(names) == [n.to_bytes(32, "big") for n in range(1, 8)]
    first = call(
        "StateService", "list_dynamic_fields", v2.ListDynamicFieldsRequest(parent=history.allow, page_size=1)
    )
    assert set_fields(first.dynamic_fields[0]) == {"parent", "field_id"}
    linked = v2.ListDynamicFieldsRequest(parent=history.allow, page_size=1)
    page = call("StateService", "list_dynamic_fields", linked, ["field_object.object_type"])
    assert "::dynamic_field::Field<address,bool>" in page.dynamic_fields[0].field_object.object_type


def test_balances(call, v2, history):
    request = v2.GetBalanceRequest(owner=history.signer.address, coin_type=SUI)
    found = call("StateService", "get_balance", request).balance
    assert found.balance == found.coin_balance > 0
    listed = call(
        "StateService", "list_balances", v2.ListBalancesRequest(owner=history.signer.address)
    ).balances
    assert [(each.coin_type.endswith("::sui::SUI"), each.balance) for each in listed] == [
        (True, found.balance)
    ]
    assert (
        call("StateService", "get_balance", v2.GetBalanceRequest(owner=NOBODY, coin_type=SUI)).balance.balance
        == 0
    )
    bad = v2.GetBalanceRequest(owner=NOBODY)
    refuses(Status.INVALID_ARGUMENT, call, "StateService", "get_balance", bad, match="coin_type")


def test_coin_info(call, v2):
    found = call("StateService", "get_coin_info", v2.GetCoinInfoRequest(coin_type=SUI))
    assert (found.metadata.symbol, found.metadata.decimals) == ("SUI", 9)
    unknown = v2.GetCoinInfoRequest(coin_type=f"{NOBODY}::m::COIN")
    refuses(Status.NOT_FOUND, call, "StateService", "get_coin_info", unknown)


# ---- packages


def test_packages_datatypes_functions(call, v2, history):
    found = call(
        "MovePackageService", "get_package", v2.GetPackageRequest(package_id=history.package)
    ).package
    assert (found.storage_id, found.original_id, found.version) == (history.package, history.package, 1)
    assert {each.original_id[-1] for each in found.linkage} == {"1", "2"}
    assert all(module.contents[:4] == b"\xa1\x1c\xeb\x0b" for module in found.modules)
    request = v2.GetDatatypeRequest(package_id=history.package, module_name="channel", name="Channel")
    datatype = call("MovePackageService", "get_datatype", request).datatype
    assert datatype.kind is v2.DatatypeDescriptorDatatypeKind.STRUCT
    assert datatype.abilities == [v2.Ability.KEY]
    assert datatype.type_parameters[0].is_phantom
    assert [each.name for each in datatype.fields][:4] == ["id", "version", "host", "service"]
    assert datatype.fields[1].type.type is v2.OpenSignatureBodyType.U16
    request = v2.GetFunctionRequest(package_id=history.package, module_name="channel", name="claim")
    function = call("MovePackageService", "get_function", request).function
    assert function.visibility is v2.FunctionDescriptorVisibility.PUBLIC
    assert function.parameters[0].reference is v2.OpenSignatureReference.MUTABLE
    assert function.parameters[2].body.type is v2.OpenSignatureBodyType.VECTOR
    assert function.returns[0].body.type_name.endswith("::coin::Coin")
    versions = call(
        "MovePackageService",
        "list_package_versions",
        v2.ListPackageVersionsRequest(package_id=history.package),
    ).versions
    assert [(each.package_id, each.version) for each in versions] == [(history.package, 1)]
    service = "MovePackageService"
    for method, missing in (
        ("get_package", v2.GetPackageRequest(package_id=NOBODY)),
        ("get_datatype", v2.GetDatatypeRequest(package_id=history.package, module_name="channel", name="No")),
        ("get_function", v2.GetFunctionRequest(package_id=history.package, module_name="no", name="claim")),
    ):
        refuses(Status.NOT_FOUND, call, service, method, missing)


# ---- transactions


def unresolved(history, build):
    program = Program()
    build(program)
    commands = program.commands(lambda name: history.package)
    return unresolved_message(Unresolved(program, commands, history.signer.address, history.signer.address))


def test_simulation_fills_in_what_is_missing(call, v2, history):
    def build(program):
        program.transfer(list(program.split(program.gas, [5])), NOBODY)

    request = v2.SimulateTransactionRequest(transaction=unresolved(history, build), do_gas_selection=True)
    found = call("TransactionExecutionService", "simulate_transaction", request)
    assert found.transaction.effects.status.success
    data = TransactionData.decode(found.transaction.transaction.bcs.value)
    assert data.gas_data.budget > 0
    assert data.gas_data.payment
    assert found.suggested_gas_price == 1000
    (split, give) = found.command_outputs
    assert split.return_values[0].value.name == COIN
    assert split.return_values[0].value.value[32:] == (5).to_bytes(8, "little")
    assert give.return_values == []
    # The other form: the same transaction as BCS.
    again = v2.SimulateTransactionRequest(transaction=v2.Transaction(bcs=found.transaction.transaction.bcs))
    mask = ["transaction.digest", "transaction.effects.gas_used"]
    second = call("TransactionExecutionService", "simulate_transaction", again, mask)
    assert second.transaction.digest == found.transaction.digest
    assert second.transaction.effects.gas_used == found.transaction.effects.gas_used
    assert second.command_outputs == []
    assert second.transaction.events is None


def test_simulation_without_checks_reads(call, v2, history):
    def build(program):
        program.call(history.package, "host", "owner", [program.object(history.host, mutable=False)])

    message = unresolved(history, build)
    message.sender = NOBODY
    message.gas_payment = None
    checks = v2.SimulateTransactionRequestTransactionChecks.DISABLED
    request = v2.SimulateTransactionRequest(transaction=message, checks=checks)
    found = call("TransactionExecutionService", "simulate_transaction", request)
    assert found.command_outputs[0].return_values[0].value.value.hex() == history.signer.address[2:]


def test_literals_and_simulation_fields(call, v2, history):
    """Inputs as plain values, typed by the function that takes them."""
    literal = value("0x5")
    program = v2.ProgrammableTransaction(
        inputs=[v2.Input(object_id=history.host), v2.Input(literal=literal)],
        commands=[
            v2.Command(
                move_call=v2.MoveCall(
                    package=history.package,
                    module="host",
                    function="is_denied",
                    arguments=[v2.Argument(kind=v2.ArgumentArgumentKind.INPUT, input=n) for n in range(2)],
                )
            )
        ],
    )
    message = v2.Transaction(kind=v2.TransactionKind(programmable_transaction=program), sender=NOBODY)
    checks = v2.SimulateTransactionRequestTransactionChecks.DISABLED
    request = v2.SimulateTransactionRequest(transaction=message, checks=checks)
    found = call("TransactionExecutionService", "simulate_transaction", request)
    assert found.transaction.effects.status.success, found.transaction.effects.status
    assert found.command_outputs[0].return_values[0].value.value == b"\0"


@pytest.mark.parametrize("form", ["bcs", "prefixed", "simple"])
def test_execution_takes_signatures_in_every_form(call, v2, history, net, form):
    from .conftest import run

    def build(program):
        program.transfer(list(program.split(program.gas, [5])), NOBODY)

    request = v2.SimulateTransactionRequest(transaction=unresolved(history, build), do_gas_selection=True)
    simulated = call("TransactionExecutionService", "simulate_transaction", request)
    data = simulated.transaction.transaction.bcs.value
    signature = run(history.signer.sign_transaction(data))
    if form == "simple":
        simple = v2.SimpleSignature(
            scheme=v2.SignatureScheme.ED25519, signature=signature[1:65], public_key=signature[65:]
        )
        signed = v2.UserSignature(simple=simple)
    else:
        signed = v2.UserSignature(bcs=v2.Bcs(value=(b"\x61" if form == "prefixed" else b"") + signature))
    request = v2.ExecuteTransactionRequest(
        transaction=v2.Transaction(bcs=v2.Bcs(value=data)), signatures=[signed]
    )
    found = call("TransactionExecutionService", "execute_transaction", request).transaction
    assert set_fields(found) == {"effects", "checkpoint"}
    assert found.effects.status.success
    assert set_fields(found.effects) == {"status"}
    # The identical bytes again: the same answer, and nothing is done twice.
    again = call(
        "TransactionExecutionService", "execute_transaction", request, ["digest", "checkpoint"]
    ).transaction
    assert (again.digest, again.checkpoint) == (simulated.transaction.digest, found.checkpoint)


def test_failures_carry_what_the_source_says(call, v2, history):
    def build(program):
        program.call("transport", "host", "new", [program.pure("u64", 1)], results=3)

    request = v2.SimulateTransactionRequest(transaction=unresolved(history, build), do_gas_selection=True)
    status = call("TransactionExecutionService", "simulate_transaction", request).transaction.effects.status
    assert status.success is False
    error = status.error
    assert error.kind is v2.ExecutionErrorExecutionErrorKind.MOVE_ABORT
    assert (error.command, error.abort.location.module) == (0, "host")
    assert error.abort.location.function_name == "assert_ttl"
    assert error.abort.clever_error.constant_name == "EBadTtl"
    assert "ten seconds" in error.abort.clever_error.rendered


@pytest.mark.parametrize(
    ("build", "kind", "part"),
    [
        (
            lambda program: program.call("0x1", "vector", "empty", [program.pure("u64", 1)], ["u8"]),
            "ARITY_MISMATCH",
            None,
        ),
        (
            lambda program: program.call("0x2", "coin", "value", [program.gas], ["0x2::clock::Clock"]),
            "COMMAND_ARGUMENT_ERROR",
            "command_argument_error",
        ),
        (lambda program: program.split(program.gas, [2**63]), "INSUFFICIENT_COIN_BALANCE", None),
        (
            lambda program: program.call("0x2", "coin", "zero", [], ["0x2::sui::SUI"]),
            "UNUSED_VALUE_WITHOUT_DROP",
            "index_error",
        ),
    ],
)
def test_failures_have_the_protocols_kind(call, v2, history, build, kind, part):
    request = v2.SimulateTransactionRequest(transaction=unresolved(history, build), do_gas_selection=True)
    try:
        found = call("TransactionExecutionService", "simulate_transaction", request)
    except GRPCError as refused:
        pytest.fail(f"refused instead of failed: {refused}")
    error = found.transaction.effects.status.error
    assert error.kind is v2.ExecutionErrorExecutionErrorKind[kind]
    assert part is None or getattr(error, part) is not None


def test_transactions_that_are_not_taken(call, v2, history):
    service, method = "TransactionExecutionService", "execute_transaction"

    def build(program):
        program.transfer(list(program.split(program.gas, [5])), NOBODY)

    bad = Status.INVALID_ARGUMENT
    message = unresolved(history, build)
    refuses(bad, call, service, method, v2.ExecuteTransactionRequest(), match="transaction")
    broken = v2.Transaction(bcs=v2.Bcs(value=b"\0\1\2"))
    refuses(
        bad,
        call,
        service,
        method,
        v2.ExecuteTransactionRequest(transaction=broken),
        match="not the BCS of a transaction",
    )
    refuses(bad, call, service, method, v2.ExecuteTransactionRequest(transaction=message))
    request = v2.SimulateTransactionRequest(transaction=message, do_gas_selection=True)
    data = call(service, "simulate_transaction", request).transaction.transaction.bcs
    unsigned = v2.ExecuteTransactionRequest(transaction=v2.Transaction(bcs=data))
    refuses(bad, call, service, method, unsigned)
    forged = v2.UserSignature(bcs=v2.Bcs(value=b"\0" + bytes(96)))
    request = v2.ExecuteTransactionRequest(transaction=v2.Transaction(bcs=data), signatures=[forged])
    refuses(bad, call, service, method, request)
    empty = v2.UserSignature(bcs=v2.Bcs(value=b""))
    request = v2.ExecuteTransactionRequest(transaction=v2.Transaction(bcs=data), signatures=[empty])
    refuses(bad, call, service, method, request, match="signatures[0]")
    zk = v2.UserSignature(scheme=v2.SignatureScheme.ZKLOGIN)
    request = v2.ExecuteTransactionRequest(transaction=v2.Transaction(bcs=data), signatures=[zk])
    refuses(Status.UNIMPLEMENTED, call, service, method, request)


def test_parts_of_requests_that_are_named(call, v2, history):
    service, method, bad = "TransactionExecutionService", "simulate_transaction", Status.INVALID_ARGUMENT

    def request(**fields):
        program = v2.ProgrammableTransaction(**fields)
        kind = v2.TransactionKind(programmable_transaction=program)
        return v2.SimulateTransactionRequest(transaction=v2.Transaction(kind=kind, sender=NOBODY))

    refuses(bad, call, service, method, request(commands=[v2.Command()]), match="commands[0]")
    call_ = v2.MoveCall(package="0x2", module="m", function="f", arguments=[v2.Argument()])
    refuses(bad, call, service, method, request(commands=[v2.Command(move_call=call_)]), match="arguments[0]")
    far = v2.Argument(kind=v2.ArgumentArgumentKind.INPUT, input=1 << 20)
    call_ = v2.MoveCall(package="0x2", module="m", function="f", arguments=[far])
    refuses(bad, call, service, method, request(commands=[v2.Command(move_call=call_)]), match="not an index")
    refuses(bad, call, service, method, request(inputs=[v2.Input()]), match="inputs[0]")
    withdrawal = v2.Input(funds_withdrawal=v2.FundsWithdrawal(amount=1))
    refuses(Status.UNIMPLEMENTED, call, service, method, request(inputs=[withdrawal]), match="withdrawals")
    kind = v2.TransactionKind(kind=v2.TransactionKindKind.GENESIS, genesis=v2.GenesisTransaction())
    system = v2.SimulateTransactionRequest(transaction=v2.Transaction(kind=kind, sender=NOBODY))
    refuses(bad, call, service, method, system, match="programmable")


# ---- masks


@pytest.mark.parametrize(
    "path", ["nothing", "owner.nothing", "version.x", "", "json.a.b.c.d", "owner.", "object_id,version"]
)
def test_unknown_mask_paths_are_named(call, v2, path):
    request = v2.GetObjectRequest(object_id="0x6")
    refuses(Status.INVALID_ARGUMENT, call, "LedgerService", "get_object", request, [path], match="read_mask")


def test_masks_are_trees():
    v2 = library().v2
    mask = library().protobuf.FieldMask

    def parse(*paths):
        return masks.parse(mask(paths=list(paths)), "digest", v2.ExecutedTransaction)

    narrow = parse("effects.status", "events.events.json", "effects.gas_used.computation_cost")
    assert narrow.wants("effects.status.success")
    assert not narrow.wants("effects.epoch")
    assert not narrow.wants("digest")
    assert narrow.wants("events.events.json")
    assert parse("effects", "effects.status").wants("effects.epoch")
    assert parse("effects.status", "effects").wants("effects.epoch")
    assert parse("*").wants("anything")
    assert masks.parse(None, "digest", v2.ExecutedTransaction).wants("digest")
    with pytest.raises(BadRequest):
        parse("effects.status.error.abort.nothing")


@pytest.mark.parametrize("content", [None, True, 5, -1.5, "x", [], [1, [None]], {"a": {"b": [True]}}, {}])
def test_json_values_both_ways(content):
    message = value(content)
    assert from_value(type(message).parse(bytes(message))) == content


def test_times_both_ways():
    assert timestamp(2**64 - 1).year == 9999
    for ms in (0, 1, 1_700_000_000_123, 4_102_444_800_999):
        assert milliseconds(timestamp(ms)) == ms
    assert timestamp(0) == datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
