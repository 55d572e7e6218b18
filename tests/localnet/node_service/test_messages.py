"""Everything that a transaction and its effects can hold has a message, also what this node doesn't bring about."""

import asyncio
from typing import Any

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from dtp.localnet.grpc import requests, transactions
from dtp.localnet.grpc.masks import EVERYTHING
from dtp.localnet.grpc.messages import library
from dtp.localnet.grpc.objects import Objects
from dtp.localnet.grpc.transactions import Transactions
from dtp.localnet.node import LocalNode
from dtp.sui import effects as fx
from dtp.sui import transaction as sui
from dtp.sui.grpc import decode, encode
from dtp.sui.names import parse_type

ID = b"\5" * 32
SUI = parse_type("0x2::sui::SUI")
CONTENT: dict[str, Any] = {
    **dict.fromkeys(("object_size", "current_size", "value_size"), 1),
    **dict.fromkeys(("max_object_size", "max_size", "max_scaled_size"), 2),
    **dict.fromkeys(("object", "id", "address"), ID),
    "coin_type": "0x2::sui::SUI",
    "location": fx.CodeLocation(b"\1" * 32, "m", 3, 4, "f"),
    "code": 7,
    "argument": 1,
    "result": 1,
    "secondary": 2,
    "index": 3,
    "congested_objects": (ID,),
}
PROBLEMS: dict[str, tuple[Any, ...]] = {
    "CommandArgumentError": tuple(
        fx.ArgumentProblem(name, tuple(range(count))) for name, (_, count) in fx.ARGUMENT_PROBLEMS.items()
    ),
    "TypeArgumentError": ("TypeNotFound", "ConstraintNotSatisfied"),
    "PackageUpgradeError": (
        fx.UpgradeProblem("UnableToFetchPackage", (ID,)),
        fx.UpgradeProblem("NotAPackage", (ID,)),
        fx.UpgradeProblem("IncompatibleUpgrade"),
        fx.UpgradeProblem("DigestDoesNotMatch", (b"\1",)),
        fx.UpgradeProblem("UnknownUpgradePolicy", (3,)),
        fx.UpgradeProblem("PackageIDDoesNotMatch", (ID, ID)),
    ),
}


def whole(message):
    """The message as it arrives."""
    return decode(type(message), encode(message))


@pytest.fixture(scope="module")
def maker():
    with LocalNode.open(now=None) as node:
        yield Transactions(node, Objects(node))


@pytest.mark.parametrize("kind", list(fx.FAILURES))
def test_every_failure(maker, kind):
    number, fields = fx.FAILURES[kind]
    for problem in PROBLEMS.get(kind, (None,)):
        content = {name: problem if name == "problem" else CONTENT[name] for name in fields}
        found = whole(maker.error_message(fx.ExecutionError(kind, content, 3)))
        assert (int(found.kind), found.command) == (number + 1, 3)
        expected = RENAMED.get(kind, kind).replace("_", "").lower()
        assert found.kind.name.replace("_", "").lower() == expected
        details = {
            "abort": found.abort,
            "argument": found.command_argument_error,
            "type": found.type_argument_error,
            "upgrade": found.package_upgrade_error,
            "index": found.index_error,
            "size": found.size_error,
            "object": found.object_id,
            "coin": found.coin_deny_list_error,
            "congested": found.congested_objects,
        }
        assert bool(fields) == any(each is not None for each in details.values()), details


#: Failures whose names in BCS and in messages differ.
RENAMED = {
    "MoveObjectTooBig": "OBJECT_TOO_BIG",
    "MovePackageTooBig": "PACKAGE_TOO_BIG",
    "SharedObjectOperationNotAllowed": "CONSENSUS_OBJECT_OPERATION_NOT_ALLOWED",
    "ExecutionCancelledDueToSharedObjectCongestion": "EXECUTION_CANCELED_DUE_TO_CONSENSUS_OBJECT_CONGESTION",
    "ExecutionCancelledDueToRandomnessUnavailable": "EXECUTION_CANCELED_DUE_TO_RANDOMNESS_UNAVAILABLE",
}


@pytest.mark.parametrize(
    ("unchanged", "kind"),
    [
        (fx.ReadOnlyRoot(5, ID), "READ_ONLY_ROOT"),
        (fx.MutateEnded(5), "MUTATE_CONSENSUS_STREAM_ENDED"),
        (fx.ReadEnded(5), "READ_CONSENSUS_STREAM_ENDED"),
        (fx.Cancelled(5), "CANCELED"),
        (fx.PerEpochConfig(), "PER_EPOCH_CONFIG"),
    ],
)
def test_objects_that_stay(unchanged, kind):
    found = whole(transactions.unchanged_message(ID, unchanged))
    assert found.kind.name == kind
    assert found.object_id == "0x" + ID.hex()


COMMANDS = (
    sui.MoveCall(ID, "m", "f", (SUI,), (sui.GasCoin(), sui.Input(1))),
    sui.TransferObjects((sui.Result(0),), sui.Input(0)),
    sui.SplitCoins(sui.GasCoin(), (sui.Input(0),)),
    sui.MergeCoins(sui.Input(0), (sui.NestedResult(1, 2),)),
    sui.Publish((b"code",), (ID,)),
    sui.MakeMoveVec(SUI, (sui.Input(0),)),
    sui.MakeMoveVec(None, (sui.Input(0),)),
    sui.Upgrade((b"code",), (ID,), ID, sui.Result(0)),
)
REF = sui.ObjectRef(ID, 7, ID)
INPUTS: tuple[Any, ...] = (
    sui.Pure(b"x"),
    sui.OwnedInput(REF),
    sui.ReceivingInput(REF),
    *(sui.SharedInput(ID, 3, each) for each in sui.Mutability),
    sui.FundsWithdrawal(5, SUI, False),
    sui.FundsWithdrawal(5, SUI, True),
)


def test_every_command_and_input():
    program = whole(transactions.kind_message(sui.ProgrammableTransaction(INPUTS, COMMANDS)))
    program = program.programmable_transaction
    set_ = [
        [name for name in vars(each) if name[0] != "_" and getattr(each, name) is not None]
        for each in program.commands
    ]
    assert [names[0] for names in set_] == [
        *("move_call", "transfer_objects", "split_coins", "merge_coins", "publish"),
        *("make_move_vector", "make_move_vector", "upgrade"),
    ]
    assert [each.kind.name for each in program.inputs] == [
        *("PURE", "IMMUTABLE_OR_OWNED", "RECEIVING", "SHARED", "SHARED", "SHARED"),
        *("FUNDS_WITHDRAWAL", "FUNDS_WITHDRAWAL"),
    ]


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (sui.ChangeEpoch(1, 2, 3, 4, 5, 6, 7, ()), "CHANGE_EPOCH"),
        (sui.Genesis(()), "GENESIS"),
        (sui.ConsensusCommitPrologue(1, 2, 2**64 - 1), "CONSENSUS_COMMIT_PROLOGUE_V1"),
        (sui.RandomnessStateUpdate(1, 2, b"r", 3), "RANDOMNESS_STATE_UPDATE"),
    ],
)
def test_system_transactions(kind, name):
    assert whole(transactions.kind_message(kind)).kind.name == name


def test_expirations_to_the_end_of_time():
    last = 2**64 - 1
    for expiration, name in (
        (sui.NoExpiration(), "NONE"),
        (sui.EpochExpiration(last), "EPOCH"),
        (sui.ValidDuring(1, 2, None, None, ID, 3), "VALID_DURING"),
        (sui.ValidDuring(1, 2, 0, last, ID, 3), "VALID_DURING"),
    ):
        assert whole(transactions.expiration_message(expiration)).kind.name == name


def test_messages_of_transactions_are_read_as_what_they_were():
    """What the node shows of a transaction, a client may send back, field by field."""
    inputs = tuple(each for each in INPUTS if not isinstance(each, sui.FundsWithdrawal))
    for expiration in (sui.NoExpiration(), sui.EpochExpiration(9)):
        data = sui.TransactionData(
            sui.ProgrammableTransaction(inputs, COMMANDS), ID, sui.GasData((REF,), ID, 1000, 5000), expiration
        )
        shown = {
            name: make(_Record(data), EVERYTHING)
            for name, make in transactions.TRANSACTION_MAKERS.items()
            if name not in ("bcs", "digest")
        }
        found = requests.unresolved(whole(library().v2.Transaction(**shown)))
        assert found.commands == COMMANDS
        assert (found.sender, found.gas_owner, found.gas_price, found.gas_budget) == (ID, ID, 1000, 5000)
        assert found.gas_payment == (REF,)
        assert found.expiration == expiration
        assert [type(each).__name__ for each in found.inputs] == ["PureInput", *["ObjectInput"] * 5]
        assert [each.receiving for each in found.inputs[1:]] == [False, True, False, False, False]
        assert [each.mutable for each in found.inputs[3:]] == [
            each is sui.Mutability.MUTABLE for each in sui.Mutability
        ]


class _Record:
    def __init__(self, data):
        self.data = data


LARGEST = 2**64 - 1


@pytest.mark.parametrize("version", [0, 2**63 - 1, 2**63, LARGEST])
@pytest.mark.parametrize("make", [sui.OwnedInput, sui.ReceivingInput])
def test_versions_of_any_size(call, history, version, make):
    """The database's numbers end at 2^63 - 1, those of transactions don't."""
    v2 = library().v2
    signer = history.signer
    cap = bytes.fromhex(history.cap[2:])
    program = sui.ProgrammableTransaction(
        (make(sui.ObjectRef(cap, version, ID)), sui.Pure(ID)),
        (sui.TransferObjects((sui.Input(0),), sui.Input(1)),),
    )
    owner = bytes.fromhex(signer.address[2:])
    for payment in ((), (sui.ObjectRef(cap, version, ID),)):
        data = sui.TransactionData(
            program, owner, sui.GasData(payment, owner, 1000, 10**7), sui.NoExpiration()
        )
        raw = data.encode()
        simulate = v2.SimulateTransactionRequest(transaction=v2.Transaction(bcs=v2.Bcs(value=raw)))
        signature = asyncio.run(signer.sign_transaction(raw))
        execute = v2.ExecuteTransactionRequest(
            transaction=v2.Transaction(bcs=v2.Bcs(value=raw)),
            signatures=[v2.UserSignature(bcs=v2.Bcs(value=signature))],
        )
        for method, request in (("simulate_transaction", simulate), ("execute_transaction", execute)):
            with pytest.raises(GRPCError) as refused:
                call("TransactionExecutionService", method, request)
            assert refused.value.status is Status.INVALID_ARGUMENT, refused.value


@pytest.mark.parametrize("scheme", [-1, 300, 2**31 - 1])
def test_schemes_that_are_none(call, history, scheme):
    v2 = library().v2
    simple = v2.SimpleSignature(scheme=scheme, signature=bytes(64), public_key=bytes(32))
    request = v2.ExecuteTransactionRequest(
        transaction=v2.Transaction(bcs=v2.Bcs(value=b"x")), signatures=[v2.UserSignature(simple=simple)]
    )
    with pytest.raises(GRPCError) as refused:
        call("TransactionExecutionService", "execute_transaction", request)
    assert refused.value.status is Status.INVALID_ARGUMENT
    assert "signatures[0]" in refused.value.message  # type: ignore[operator]


@pytest.mark.parametrize("number", [2**63, LARGEST])
def test_numbers_in_questions_of_any_size(call, number):
    v2 = library().v2
    for service, method, request in (
        ("LedgerService", "get_object", v2.GetObjectRequest(object_id="0x6", version=number)),
        ("LedgerService", "get_epoch", v2.GetEpochRequest(epoch=number)),
        ("LedgerService", "get_checkpoint", v2.GetCheckpointRequest(sequence_number=number)),
    ):
        with pytest.raises(GRPCError) as refused:
            call(service, method, request)
        assert refused.value.status is Status.NOT_FOUND
    frames = call(
        "LedgerService", "list_events", v2.ListEventsRequest(start_checkpoint=number, end_checkpoint=number)
    )
    assert frames[-1].end is not None
