"""The only file of the client that imports pysui (1.5.1): transactions into bytes and into messages of `sui.rpc.v2`.

pysui is imported when the first of its parts is needed, and only what is used: a fifth of the whole. That is the
builder and the BCS types for transactions, messages and stubs for calls (`_wire.py`). What is wrong in it is kept
away from here on; `tests/chain/nodes/test_pysui_faults.py` has a test for each:

- its client always speaks TLS: the channel is made here;
- `move_call` encodes `Option` Some as None, parses nested type tags wrongly and writes a length into those of
  vectors: arguments are encoded by dtp, tags built up by it;
- its transaction object forgets argument types after 256 functions (KeyError): not used;
- it takes shared objects that are passed by value as immutable: whoever builds the program says how it uses them;
- lists of bytes are checked and joined byte by byte, in quadratic time: `_ByteList` takes them whole;
- results of failed transactions say "ok": `effects.status` decides (in `client.py`);
- errors are logged with their traceback and returned as values: stubs are called directly, errors are raised;
- its configuration writes keys to world-readable files: it is not used, keys stay with the `Signer`.
"""

from __future__ import annotations

import asyncio
import importlib.util
import sys
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

from dtp.chain import model
from dtp.chain.errors import ProgramError
from dtp.chain.node.commands import PureInput
from dtp.sui import transaction as sui
from dtp.sui.bcs import BYTES, vector
from dtp.sui.commands import command_message
from dtp.sui.grpc import GrpcCodec, joined
from dtp.sui.names import TypeTag

if TYPE_CHECKING:
    from dtp.chain.node.commands import Program

PYSUI_VERSION: Final = "1.5.1"


@cache
def library() -> SimpleNamespace:
    """Return pysui's parts, imported once. Raises `ProgramError` when the installed one is another release."""
    from importlib.metadata import version

    found = version("pysui")
    if found != PYSUI_VERSION:
        raise ProgramError(f"pysui {found} is installed; this dtp needs {PYSUI_VERSION}: reinstall dtp")
    from grpclib.client import Channel
    from grpclib.const import Cardinality
    from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError
    from h2.exceptions import H2Error

    _put_off("pysui")
    from pysui.sui.sui_bcs import bcs
    from pysui.sui.sui_common.txn_transaction_builder import ProgrammableTransactionBuilder
    from pysui.sui.sui_grpc.suimsgs.google import protobuf
    from pysui.sui.sui_grpc.suimsgs.sui.rpc import v2

    return SimpleNamespace(
        bcs=bcs,
        builder=ProgrammableTransactionBuilder,
        v2=v2,
        protobuf=protobuf,
        Channel=_channel_class(Channel),
        Cardinality=Cardinality,
        GRPCError=GRPCError,
        lost=(
            ProtocolError,
            StreamTerminatedError,
            H2Error,
            OSError,
            TimeoutError,
            asyncio.IncompleteReadError,
        ),
        fast=_fast_types(bcs),
    )


def _put_off(package: str) -> None:
    """Have the `__init__` of `package` run when somebody asks for a name in it, not when a module of it is imported.

    pysui's imports both of its clients, GraphQL's among them: 560 modules, half a second of each `dtp` command that
    talks to a chain, of which a fifth is needed. To programs that use pysui themselves it is as ever.
    """
    found = importlib.util.find_spec(package) if package not in sys.modules else None
    if found is None or found.loader is None:
        return
    loader, lock, begun = found.loader, threading.RLock(), False
    module = importlib.util.module_from_spec(found)

    def missing(name: str) -> Any:
        nonlocal begun
        with lock:  # others wait until all is there; this thread may come by again, in a circle of imports
            if not begun:
                begun = True
                loader.exec_module(module)
        if name in vars(module):
            return vars(module)[name]
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    vars(module)["__getattr__"] = missing  # PEP 562
    sys.modules[package] = module


def _channel_class(base: Any) -> Any:
    class Channel(base):  # type: ignore[misc]
        """grpclib's, with dtp's codec, and each request in one write."""

        def __init__(self, host: str, port: int, ssl: Any = None) -> None:
            super().__init__(host, port, ssl=ssl, codec=GrpcCodec())
            self._over = False

        def close(self) -> None:
            """Close, and cancel a connection that is being made, which grpclib would leave behind."""
            self._over = True
            super().close()

        async def _create_connection(self) -> Any:
            protocol = await super()._create_connection()
            if self._over:
                protocol.processor.close()
                raise OSError("closed while it was being connected")
            return protocol

        def _protocol_factory(self) -> Any:
            return joined(super()._protocol_factory())

    return Channel


# ------------------------------------------------------------------------------------------ transactions as bytes


class _ByteList:
    """`vector<u8>` for pysui's BCS library, from `bytes`, in one step instead of one per byte."""

    def encode(self, value: bytes) -> bytes:
        """Return length and bytes."""
        return BYTES.encode(value)

    def check_value(self, value: object) -> None:
        """Refuse anything but bytes, as the library's types do."""
        if not isinstance(value, bytes):
            raise TypeError(f"{type(value).__name__} is not bytes")


class _ByteLists:
    """`vector<vector<u8>>`, the same way."""

    def encode(self, value: tuple[bytes, ...]) -> bytes:
        """Return how many there are, and each with its length."""
        return vector(BYTES).encode(value)

    def check_value(self, value: object) -> None:
        """Refuse anything but a tuple of bytes."""
        if not isinstance(value, tuple) or not all(isinstance(each, bytes) for each in value):
            raise TypeError("modules are a tuple of bytes")


def _fast_types(bcs: Any) -> SimpleNamespace:
    call_arg = type("CallArg", (bcs.CallArg,), {"_enums": [("Pure", _ByteList()), *bcs.CallArg._enums[1:]]})
    # `_initialized` is inherited: set by a program that uses pysui's class itself, it would keep the old fields.
    publish, upgrade = (
        type(
            base.__name__,
            (base,),
            {"_fields": [("Modules", _ByteLists()), *base._fields[1:]], "_initialized": False},
        )
        for base in (bcs.Publish, bcs.Upgrade)
    )
    # `vector<T>` has no length in a type tag; pysui's has.
    variants = [(name, bcs.TypeTag if name == "Vector" else kind) for name, kind in bcs.TypeTag._enums]
    tag = type("TypeTag", (bcs.TypeTag,), {"_enums": variants})
    return SimpleNamespace(CallArg=call_arg, Publish=publish, Upgrade=upgrade, TypeTag=tag)


def encode_transaction(data: sui.TransactionData) -> bytes:
    """Return the BCS of a transaction of programmable kind, by pysui's builder and BCS types."""
    bcs = library().bcs
    if not isinstance(data.kind, sui.ProgrammableTransaction):
        raise ProgramError(f"a client sends programmable transactions, no {type(data.kind).__name__}")
    gas = data.gas_data
    encoded = bcs.TransactionData(
        "V1",
        bcs.TransactionDataV1(
            _builder(data.kind).finish_for_inspect(),
            _address(data.sender),
            bcs.GasData(
                [_reference(each) for each in gas.payment], _address(gas.owner), gas.price, gas.budget
            ),
            _expiration(data.expiration),
        ),
    ).serialize()
    return bytes(encoded)


def with_budget(transaction: bytes, budget: int) -> bytes:
    """Return the same transaction, of those that `encode_transaction` gives without expiration, with another gas
    budget."""
    head, none = transaction[:-9], transaction[-1:]
    if none != b"\0":
        raise ProgramError("only transactions without expiration end in their budget")
    return head + budget.to_bytes(8, "little") + none


def _builder(kind: sui.ProgrammableTransaction) -> Any:
    found = library()
    bcs, builder = found.bcs, found.builder()
    for value in kind.inputs:
        match value:
            case sui.Pure(data):
                # The builder's own way checks each byte twice. Keys of the inputs only have to differ.
                builder.inputs[bcs.BuilderArg("Pure", [])] = found.fast.CallArg("Pure", data)
            case sui.OwnedInput(ref):
                _add_object(builder, bcs.ObjectArg("ImmOrOwnedObject", _reference(ref)))
            case sui.ReceivingInput(ref):
                _add_object(builder, bcs.ObjectArg("Receiving", _reference(ref)))
            case sui.SharedInput(id, version, mutability):
                writes = mutability is sui.Mutability.MUTABLE
                shared = bcs.SharedObjectReference(_address(id), version, writes)
                _add_object(builder, bcs.ObjectArg("SharedObject", shared))
            case _:
                raise ProgramError(f"no input of a program: {value!r}")
    for command in kind.commands:
        builder.command(_command(command))
    return builder


def _add_object(builder: Any, value: Any) -> None:
    bcs = library().bcs
    builder.input_obj(bcs.BuilderArg("Object", value.value.ObjectID), value)


def _command(command: sui.Command) -> Any:
    found = library()
    bcs, fast = found.bcs, found.fast
    match command:
        case sui.MoveCall(package, module, function, types, arguments):
            call = bcs.ProgrammableMoveCall(
                _address(package), module, function, [_tag(each) for each in types], _arguments(arguments)
            )
            return bcs.Command("MoveCall", call)
        case sui.TransferObjects(objects, recipient):
            return bcs.Command(
                "TransferObjects", bcs.TransferObjects(_arguments(objects), _argument(recipient))
            )
        case sui.SplitCoins(coin, amounts):
            return bcs.Command("SplitCoin", bcs.SplitCoin(_argument(coin), _arguments(amounts)))
        case sui.MergeCoins(target, sources):
            return bcs.Command("MergeCoins", bcs.MergeCoins(_argument(target), _arguments(sources)))
        case sui.Publish(modules, dependencies):
            return bcs.Command("Publish", fast.Publish(modules, [_address(each) for each in dependencies]))
        case sui.MakeMoveVec(tag, elements):
            kind = bcs.OptionalTypeTag(_tag(tag) if tag is not None else None)
            return bcs.Command("MakeMoveVec", bcs.MakeMoveVec(kind, _arguments(elements)))
        case sui.Upgrade(modules, dependencies, package, ticket):
            ids = [_address(each) for each in dependencies]
            return bcs.Command("Upgrade", fast.Upgrade(modules, ids, _address(package), _argument(ticket)))


def _address(value: bytes) -> Any:
    return library().bcs.Address(list(value))


def _reference(ref: sui.ObjectRef) -> Any:
    bcs = library().bcs
    return bcs.ObjectReference(_address(ref.id), ref.version, bcs.Digest.from_bytes(ref.digest))


def _argument(argument: sui.Argument) -> Any:
    bcs = library().bcs
    match argument:
        case sui.GasCoin():
            return bcs.Argument("GasCoin")
        case sui.Input(index):
            return bcs.Argument("Input", index)
        case sui.Result(command):
            return bcs.Argument("Result", command)
        case sui.NestedResult(command, index):
            return bcs.Argument("NestedResult", (command, index))


def _arguments(arguments: Iterable[sui.Argument]) -> list[Any]:
    return [_argument(each) for each in arguments]


def _tag(tag: TypeTag) -> Any:
    """Return a type tag, built up from the leaves: pysui's own parser mangles nested ones."""
    bcs = library().bcs
    if tag.address:
        struct = bcs.StructTag(
            _address(tag.address), tag.module, tag.name, [_tag(each) for each in tag.arguments]
        )
        return bcs.TypeTag("Struct", struct)
    if tag.name == "vector":
        return library().fast.TypeTag("Vector", _tag(tag.arguments[0]))
    return bcs.TypeTag(tag.name.capitalize())


def _expiration(expiration: sui.Expiration) -> Any:
    bcs = library().bcs
    match expiration:
        case sui.NoExpiration():
            return bcs.TransactionExpiration("None")
        case sui.EpochExpiration(epoch):
            return bcs.TransactionExpiration("Epoch", epoch)
    raise ProgramError(f"no expiration that a client sets: {expiration!r}")


# ------------------------------------------------------------------------------- transactions for a node to resolve


@dataclass(frozen=True)
class Unresolved:
    """A program whose objects' versions, and maybe gas, a node is to fill in."""

    program: Program
    commands: tuple[sui.Command, ...]
    sender: str
    gas_owner: str
    gas_price: int | None = None
    gas_budget: int | None = None
    payment: tuple[model.ObjectRef, ...] = ()


def unresolved_message(what: Unresolved) -> Any:
    v2 = library().v2
    inputs = [
        v2.Input(kind=v2.InputInputKind.PURE, pure=value.data)
        if isinstance(value, PureInput)
        else v2.Input(object_id=value.id)
        for value in what.program.inputs
    ]
    kind = v2.TransactionKind(
        kind=v2.TransactionKindKind.PROGRAMMABLE_TRANSACTION,
        programmable_transaction=v2.ProgrammableTransaction(
            inputs=inputs, commands=[command_message(each, v2) for each in what.commands]
        ),
    )
    payment = v2.GasPayment(
        objects=[
            v2.ObjectReference(object_id=r.id, version=r.version, digest=r.digest) for r in what.payment
        ],
        owner=what.gas_owner,
        price=what.gas_price,
        budget=what.gas_budget,
    )
    return v2.Transaction(kind=kind, sender=what.sender, gas_payment=payment)
