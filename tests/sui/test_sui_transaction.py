"""Transactions, effects and objects in BCS: round trips, pysui's encoder beside ours, figures known from mainnet."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_sui_names import TAGS

from dtp.sui.bcs import BcsError
from dtp.sui.effects import (
    ARGUMENT_PROBLEMS,
    FAILURES,
    STATUS,
    TRANSACTION_EFFECTS,
    ArgumentProblem,
    CodeLocation,
    ExecutionError,
    Failed,
    GasCost,
    IdOperation,
    InAbsent,
    InExisting,
    ObjectChange,
    OutAbsent,
    OutObject,
    OutPackage,
    ReadOnlyRoot,
    Succeeded,
    TransactionEffects,
    UpgradeProblem,
)
from dtp.sui.names import TypeTag, parse_type
from dtp.sui.objects import (
    GAS_COIN_TYPE,
    OBJECT,
    OBJECT_TYPE,
    AddressOwner,
    ConsensusAddressOwner,
    Immutable,
    MoveObject,
    ObjectOwner,
    ObjectValue,
    SharedOwner,
    object_digest,
)
from dtp.sui.transaction import (
    ChangeEpoch,
    ConsensusCommitPrologue,
    EpochExpiration,
    FundsWithdrawal,
    GasCoin,
    GasData,
    Input,
    IntentScope,
    MakeMoveVec,
    MergeCoins,
    MoveCall,
    Mutability,
    NestedResult,
    NoExpiration,
    ObjectRef,
    OwnedInput,
    ProgrammableTransaction,
    Publish,
    Pure,
    RandomnessStateUpdate,
    ReceivingInput,
    Result,
    SharedInput,
    SplitCoins,
    TransactionData,
    TransferObjects,
    Upgrade,
    ValidDuring,
    arguments_of,
    signing_hash,
    transaction_digest,
)

IDS = st.binary(min_size=32, max_size=32)
U16S = st.integers(0, 2**16 - 1)
U64S = st.integers(0, 2**64 - 1)
REFS = st.builds(ObjectRef, IDS, U64S, IDS)
NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,10}", fullmatch=True)
ARGUMENTS = st.one_of(
    st.just(GasCoin()), st.builds(Input, U16S), st.builds(Result, U16S), st.builds(NestedResult, U16S, U16S)
)
MANY = st.lists(ARGUMENTS, max_size=3).map(tuple)
BLOBS = st.lists(st.binary(max_size=20), max_size=2).map(tuple)
ID_LISTS = st.lists(IDS, max_size=2).map(tuple)
COMMANDS = st.one_of(
    st.builds(MoveCall, IDS, NAMES, NAMES, st.lists(TAGS, max_size=2).map(tuple), MANY),
    st.builds(TransferObjects, MANY, ARGUMENTS),
    st.builds(SplitCoins, ARGUMENTS, MANY),
    st.builds(MergeCoins, ARGUMENTS, MANY),
    st.builds(Publish, BLOBS, ID_LISTS),
    st.builds(MakeMoveVec, st.none() | TAGS, MANY),
    st.builds(Upgrade, BLOBS, ID_LISTS, IDS, ARGUMENTS),
)
INPUTS = st.one_of(
    st.builds(Pure, st.binary(max_size=40)),
    st.builds(OwnedInput, REFS),
    st.builds(SharedInput, IDS, U64S, st.sampled_from(Mutability)),
    st.builds(ReceivingInput, REFS),
    st.builds(FundsWithdrawal, U64S, TAGS, st.booleans()),
)
OPTIONAL = st.none() | U64S
TRANSACTIONS = st.builds(
    TransactionData,
    st.one_of(
        st.builds(
            ProgrammableTransaction,
            st.lists(INPUTS, max_size=4).map(tuple),
            st.lists(COMMANDS, max_size=4).map(tuple),
        ),
        st.builds(ConsensusCommitPrologue, U64S, U64S, U64S),
        st.builds(ChangeEpoch, *[U64S] * 7),
        st.builds(RandomnessStateUpdate, U64S, U64S, st.binary(max_size=40), U64S),
    ),
    IDS,
    st.builds(GasData, st.lists(REFS, max_size=2).map(tuple), IDS, U64S, U64S),
    st.one_of(
        st.just(NoExpiration()),
        st.builds(EpochExpiration, U64S),
        st.builds(ValidDuring, OPTIONAL, OPTIONAL, OPTIONAL, OPTIONAL, IDS, st.integers(0, 2**32 - 1)),
    ),
)


@given(TRANSACTIONS)
def test_transactions_round_trip(data: TransactionData) -> None:
    raw = data.encode()
    assert TransactionData.decode(raw) == data
    assert data.digest() == transaction_digest(raw)


@given(TRANSACTIONS, st.data())
@settings(max_examples=100)
def test_damaged_transactions_are_refused_or_are_others(data: TransactionData, draw: st.DataObject) -> None:
    raw = bytearray(data.encode())
    at = draw.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= 1 << draw.draw(st.integers(0, 7))
    try:
        found = TransactionData.decode(bytes(raw))
    except BcsError:
        return
    assert found.encode() == bytes(raw)
    assert found.digest() != data.digest()


def test_kinds_that_are_not_here_are_named() -> None:
    with pytest.raises(BcsError, match="TransactionKind has no variant 9"):
        TransactionData.decode(b"\0\x09")


def test_arguments_of_each_command() -> None:
    a, b, c = Input(0), Input(1), GasCoin()
    id = bytes(32)
    assert [
        tuple(arguments_of(command))
        for command in (
            MoveCall(id, "m", "f", (), (a, b)),
            TransferObjects((a, b), c),
            SplitCoins(a, (b, c)),
            MergeCoins(a, (b,)),
            MakeMoveVec(None, (a,)),
            Upgrade((), (), id, c),
            Publish((), ()),
        )
    ] == [(a, b), (a, b, c), (a, b, c), (a, b), (a,), (c,), ()]


def test_what_is_signed_depends_on_the_scope() -> None:
    assert len({signing_hash(b"x", scope) for scope in IntentScope}) == len(IntentScope)


# ------------------------------------------------------------------------------------------------ pysui

DIGEST = bytes(range(32))
EXAMPLE = TransactionData(
    ProgrammableTransaction(
        (
            Pure(b"\1\2\3"),
            OwnedInput(ObjectRef(b"\2" * 32, 7, DIGEST)),
            SharedInput(b"\3" * 32, 9, Mutability.MUTABLE),
            ReceivingInput(ObjectRef(b"\4" * 32, 8, DIGEST)),
        ),
        (
            MoveCall(b"\5" * 32, "m", "f", (parse_type("0x2::sui::SUI"),), (Input(0), Result(3))),
            TransferObjects((NestedResult(1, 2),), GasCoin()),
            SplitCoins(GasCoin(), (Input(0),)),
            MergeCoins(Input(1), (Input(2), Input(3))),
            Publish((b"\1\2",), (b"\1" * 32,)),
            MakeMoveVec(TypeTag("u64"), (Input(0),)),
        ),
    ),
    b"\6" * 32,
    GasData((ObjectRef(b"\7" * 32, 1, DIGEST),), b"\x08" * 32, 1000, 5_000_000),
)


def _pysui_example(b: Any) -> Any:
    """The same transaction with the types that pysui ships."""

    def address(raw: bytes) -> Any:
        return b.Address(list(raw))

    def reference(id: bytes, version: int) -> Any:
        return b.ObjectReference(address(id), version, b.Digest(list(DIGEST)))

    sui = b.TypeTag.type_tag_from("0x2::sui::SUI")
    kind = b.TransactionKind(
        "ProgrammableTransaction",
        b.ProgrammableTransaction(
            [
                b.CallArg("Pure", [1, 2, 3]),
                b.CallArg("Object", b.ObjectArg("ImmOrOwnedObject", reference(b"\2" * 32, 7))),
                b.CallArg(
                    "Object",
                    b.ObjectArg("SharedObject", b.SharedObjectReference(address(b"\3" * 32), 9, True)),
                ),
                b.CallArg("Object", b.ObjectArg("Receiving", reference(b"\4" * 32, 8))),
            ],
            [
                b.Command(
                    "MoveCall",
                    b.ProgrammableMoveCall(
                        address(b"\5" * 32),
                        "m",
                        "f",
                        [sui],
                        [b.Argument("Input", 0), b.Argument("Result", 3)],
                    ),
                ),
                b.Command(
                    "TransferObjects",
                    b.TransferObjects([b.Argument("NestedResult", (1, 2))], b.Argument("GasCoin")),
                ),
                b.Command("SplitCoin", b.SplitCoin(b.Argument("GasCoin"), [b.Argument("Input", 0)])),
                b.Command(
                    "MergeCoins",
                    b.MergeCoins(b.Argument("Input", 1), [b.Argument("Input", 2), b.Argument("Input", 3)]),
                ),
                b.Command("Publish", b.Publish([[1, 2]], [address(b"\1" * 32)])),
                b.Command(
                    "MakeMoveVec",
                    b.MakeMoveVec(
                        b.OptionalTypeTag(b.TypeTag.type_tag_from("u64")), [b.Argument("Input", 0)]
                    ),
                ),
            ],
        ),
    )
    gas = b.GasData([reference(b"\7" * 32, 1)], address(b"\x08" * 32), 1000, 5_000_000)
    expiration = b.TransactionExpiration("None")
    return b.TransactionData("V1", b.TransactionDataV1(kind, address(b"\6" * 32), gas, expiration))


def test_pysui_writes_the_same_bytes() -> None:
    bcs = pytest.importorskip("pysui.sui.sui_bcs.bcs", reason="pysui is the second implementation")
    assert bytes(_pysui_example(bcs).serialize()) == EXAMPLE.encode()


# --------------------------------------------------------------------------------------- objects, effects


@pytest.mark.parametrize(
    ("tag", "size"),
    [
        ("0x2::coin::Coin<0x2::sui::SUI>", 1),
        ("0x3::staking_pool::StakedSui", 1),
        ("0x2::coin::Coin<0x5::usdc::USDC>", 45),
        ("0x2::clock::Clock", 46),
    ],
)
def test_object_types_have_short_forms(tag: str, size: int) -> None:
    raw = OBJECT_TYPE.encode(parse_type(tag))
    assert len(raw) == size
    assert OBJECT_TYPE.decode(raw) == parse_type(tag)


@pytest.mark.parametrize(
    "owner",
    [
        AddressOwner(b"\1" * 32),
        ObjectOwner(b"\1" * 32),
        SharedOwner(5),
        Immutable(),
        ConsensusAddressOwner(5, b"\1" * 32),
    ],
)
def test_objects_round_trip(owner: Any) -> None:
    value = ObjectValue(MoveObject(GAS_COIN_TYPE, True, 3, bytes(40)), owner, DIGEST, 988_000)
    raw = OBJECT.encode(value)
    assert OBJECT.decode(raw) == value
    assert object_digest(raw) != object_digest(raw[:-1] + b"\1")


LOCATION = CodeLocation(b"\1" * 32, "m", 3, 4, "f")
CONTENT: dict[str, Any] = {
    "object_size": 1,
    "max_object_size": 2,
    "current_size": 1,
    "max_size": 2,
    "value_size": 1,
    "max_scaled_size": 2,
    "object": DIGEST,
    "id": DIGEST,
    "address": DIGEST,
    "coin_type": "0x2::sui::SUI",
    "location": LOCATION,
    "code": 7,
    "argument": 1,
    "problem": None,
    "result": 1,
    "secondary": 2,
    "index": 3,
    "congested_objects": (DIGEST,),
}
PROBLEMS: dict[str, tuple[Any, ...]] = {
    "CommandArgumentError": tuple(
        ArgumentProblem(name, tuple(range(count))) for name, (_, count) in ARGUMENT_PROBLEMS.items()
    ),
    "TypeArgumentError": ("TypeNotFound", "ConstraintNotSatisfied"),
    "PackageUpgradeError": (
        UpgradeProblem("UnableToFetchPackage", (DIGEST,)),
        UpgradeProblem("NotAPackage", (DIGEST,)),
        UpgradeProblem("IncompatibleUpgrade"),
        UpgradeProblem("DigestDoesNotMatch", (b"\1",)),
        UpgradeProblem("UnknownUpgradePolicy", (3,)),
        UpgradeProblem("PackageIDDoesNotMatch", (DIGEST, DIGEST)),
    ),
}


@pytest.mark.parametrize("kind", list(FAILURES))
def test_every_failure_round_trips(kind: str) -> None:
    for problem in PROBLEMS.get(kind, (None,)):
        content = {name: CONTENT[name] for name in FAILURES[kind][1]}
        if "problem" in content:
            content["problem"] = problem
        for command in (None, 3):
            status = Failed(ExecutionError(kind, content, command))
            assert STATUS.decode(STATUS.encode(status)) == status


def test_failure_numbers_have_no_gap() -> None:
    assert [number for number, _ in FAILURES.values()] == list(range(len(FAILURES)))
    assert [number for number, _ in ARGUMENT_PROBLEMS.values()] == list(range(len(ARGUMENT_PROBLEMS)))


def test_effects_round_trip() -> None:
    changed = (
        (b"\1" * 32, ObjectChange(InAbsent(), OutObject(DIGEST, SharedOwner(1)), IdOperation.CREATED)),
        (
            b"\2" * 32,
            ObjectChange(InExisting(1, DIGEST, Immutable()), OutAbsent(), IdOperation.DELETED),
        ),
        (b"\3" * 32, ObjectChange(InAbsent(), OutPackage(1, DIGEST), IdOperation.CREATED)),
    )
    for status in (Succeeded(), Failed(ExecutionError("InsufficientGas"))):
        effects = TransactionEffects(
            status,
            1,
            GasCost(1, 2, 3, 4),
            DIGEST,
            0,
            DIGEST,
            (DIGEST,),
            9,
            changed,
            ((b"\4" * 32, ReadOnlyRoot(1, DIGEST)),),
        )
        assert TransactionEffects.decode(effects.encode()) == effects
        assert effects.encode()[0] == 1  # V2
        assert effects.ok is isinstance(status, Succeeded)
    with pytest.raises(BcsError):
        TRANSACTION_EFFECTS.decode(b"\0")


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        ("00", Succeeded()),
        ("010000", Failed(ExecutionError("InsufficientGas"))),
        ("0107010200000000000000", Failed(ExecutionError("InsufficientCoinBalance", {}, 2))),
    ],
)
def test_statuses_in_bytes(raw: str, status: object) -> None:
    assert STATUS.decode(bytes.fromhex(raw)) == status


@pytest.mark.parametrize("raw", ["", "02", "0100", "012a00", "01ff00"])
def test_what_is_no_status(raw: str) -> None:
    with pytest.raises(BcsError):
        STATUS.decode(bytes.fromhex(raw))


@given(TRANSACTIONS.filter(lambda data: isinstance(data.kind, ProgrammableTransaction)))
@settings(max_examples=40)
def test_sui_s_own_types_read_our_bytes(data: TransactionData) -> None:
    """The wheel `sui-sandbox` decodes with the chain's Rust types."""
    sandbox = pytest.importorskip("sui_sandbox", reason="the genuine types are in the wheel sui-sandbox")
    assert isinstance(data.kind, ProgrammableTransaction)
    if any(isinstance(arg, FundsWithdrawal) for arg in data.kind.inputs):
        return  # its reader has no word for them
    read = sandbox.deserialize_transaction(data.encode())
    assert int(read["sender"], 16) == int.from_bytes(data.sender, "big")
    assert (read["gas_budget"], read["gas_price"]) == (data.gas_data.budget, data.gas_data.price)
    names = [type(command).__name__ for command in data.kind.commands]
    assert [command["type"] for command in read["commands"]] == names
    kinds = {Pure: "Pure", OwnedInput: "Object", SharedInput: "SharedObject", ReceivingInput: "Receiving"}
    assert [arg["type"] for arg in read["inputs"]] == [kinds[type(arg)] for arg in data.kind.inputs]
