"""Accounts and transactions for tests of the embedded node: keys that sign, and a short way to write commands."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeAlias

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dtp.chain.packages import load
from dtp.localnet.model import Executed, ObjectRecord
from dtp.localnet.node import LocalNode
from dtp.sui.bcs import ADDRESS, BOOL, BYTES, U8, U16, U64, Codec, option, vector
from dtp.sui.effects import IdOperation, OutPackage
from dtp.sui.names import parse_type
from dtp.sui.objects import GAS_COIN_TYPE, SharedOwner
from dtp.sui.signature import KeyScheme, PublicKey, SimpleSignature, address_of_key
from dtp.sui.transaction import (
    Argument,
    CallArg,
    Command,
    Expiration,
    GasCoin,
    GasData,
    Input,
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
    ReceivingInput,
    Result,
    SharedInput,
    SplitCoins,
    TransactionData,
    TransferObjects,
    signing_hash,
)

BUDGET = 500_000_000
CLOCK = (6).to_bytes(32, "big")
SUI = (2).to_bytes(32, "big")
STD = (1).to_bytes(32, "big")
COIN = "0x2::sui::SUI"
FOR_EVER = NoExpiration()
FOREVER = (1 << 64) - 1
FIXTURES = Path(__file__).parent / "fixtures"


class Wallet:
    """An Ed25519 account with a known seed."""

    def __init__(self, name: str) -> None:
        self.key = Ed25519PrivateKey.from_private_bytes(blake2b(name.encode(), digest_size=32).digest())
        self.public = self.key.public_key().public_bytes_raw()
        self.address = address_of_key(PublicKey(KeyScheme.ED25519, self.public))

    def sign(self, raw: bytes) -> bytes:
        """A serialized signature over a transaction's BCS."""
        key = PublicKey(KeyScheme.ED25519, self.public)
        return SimpleSignature(key, self.key.sign(signing_hash(raw))).serialize()


#: Beside methods of these names.
_Bytes: TypeAlias = bytes
_Bool: TypeAlias = bool


@dataclass
class Tx:
    """A programmable transaction being written; `node` gives versions of objects."""

    node: LocalNode
    inputs: list[CallArg] = field(default_factory=list)
    commands: list[Command] = field(default_factory=list)
    shared: dict[bytes, int] = field(default_factory=dict)

    def add(self, arg: CallArg) -> Input:
        """A new input."""
        self.inputs.append(arg)
        return Input(len(self.inputs) - 1)

    def pure(self, codec: Codec[Any], value: Any) -> Input:
        """A pure input."""
        return self.add(Pure(codec.encode(value)))

    def u64(self, value: int) -> Input:
        """A u64."""
        return self.pure(U64, value)

    def u8(self, value: int) -> Input:
        """A u8."""
        return self.pure(U8, value)

    def u16(self, value: int) -> Input:
        """A u16."""
        return self.pure(U16, value)

    def bool(self, value: _Bool) -> Input:
        """A bool."""
        return self.pure(BOOL, value)

    def bytes(self, value: _Bytes) -> Input:
        """A vector<u8>."""
        return self.pure(BYTES, value)

    def maybe_bytes(self, value: _Bytes | None) -> Input:
        """An Option<vector<u8>>."""
        return self.pure(option(BYTES), value)

    def address(self, value: _Bytes) -> Input:
        """An address."""
        return self.pure(ADDRESS, value)

    def addresses(self, *values: _Bytes) -> Input:
        """A vector<address>."""
        return self.pure(vector(ADDRESS), values)

    def object(self, id: _Bytes, *, mutable: _Bool = True) -> Input:
        """An object by its live version, shared or owned; the same object gives the same input."""
        if id in self.shared:
            at = self.shared[id]
            known = self.inputs[at]
            if isinstance(known, SharedInput) and mutable:
                self.inputs[at] = SharedInput(id, known.initial_shared_version, Mutability.MUTABLE)
            return Input(at)
        record = self.node.find_object(id)
        assert record is not None, f"no object 0x{id.hex()}"
        if isinstance(record.owner, SharedOwner):
            mode = Mutability.MUTABLE if mutable else Mutability.IMMUTABLE
            made = self.add(SharedInput(id, record.owner.initial_shared_version, mode))
        else:
            made = self.add(OwnedInput(record.ref))
        self.shared[id] = made.index
        return made

    def read(self, id: _Bytes) -> Input:
        """A shared object that is only read."""
        return self.object(id, mutable=False)

    def receiving(self, id: _Bytes) -> Input:
        """An object to receive."""
        record = self.node.find_object(id)
        assert record is not None
        return self.add(ReceivingInput(record.ref))

    def clock(self) -> Input:
        """0x6."""
        return self.read(CLOCK)

    def command(self, command: Command) -> Result:
        """A command; its result."""
        self.commands.append(command)
        return Result(len(self.commands) - 1)

    def call(self, package: _Bytes, target: str, *arguments: Argument, types: tuple[str, ...] = ()) -> Result:
        """Call `module::function`."""
        module, function = target.split("::")
        tags = tuple(parse_type(t) for t in types)
        return self.command(MoveCall(package, module, function, tags, arguments))

    def split(self, coin: Argument, *amounts: int) -> list[NestedResult]:
        """Split amounts off a coin."""
        made = self.command(SplitCoins(coin, tuple(self.u64(a) for a in amounts)))
        return [NestedResult(made.command, at) for at in range(len(amounts))]

    def merge(self, target: Argument, *sources: Argument) -> None:
        """Merge coins."""
        self.command(MergeCoins(target, sources))

    def send(self, to: _Bytes, *objects: Argument) -> None:
        """Transfer objects."""
        self.command(TransferObjects(objects, self.address(to)))

    def pay(self, amount: int) -> NestedResult:
        """A coin split off the gas coin."""
        return self.split(GasCoin(), amount)[0]

    @property
    def kind(self) -> ProgrammableTransaction:
        """What was written."""
        return ProgrammableTransaction(tuple(self.inputs), tuple(self.commands))


def live_ids(node: LocalNode, condition: str = "1") -> list[bytes]:
    """Return the ids of all objects that there are, in order; no question that a client may ask tells them."""
    return [id for (id,) in node._store.select_rows(f"SELECT id FROM live WHERE {condition} ORDER BY id")]


@dataclass
class World:
    """A node and what tests do with it."""

    node: LocalNode

    def wallet(self, name: str, *amounts: int) -> Wallet:
        """A wallet with coins."""
        wallet = Wallet(name)
        if amounts:
            assert self.node.fund_address(wallet.address, amounts).effects.ok
        return wallet

    def tx(self) -> Tx:
        """An empty transaction."""
        return Tx(self.node)

    def coins(self, wallet: Wallet) -> list[ObjectRecord]:
        """SUI coins, largest first."""
        return list(self.node.objects_owned_by(wallet.address, GAS_COIN_TYPE, limit=1000).items)

    def data(
        self,
        tx: Tx,
        sender: Wallet,
        *,
        payment: tuple[ObjectRef, ...] | None = None,
        sponsor: Wallet | None = None,
        price: int | None = None,
        budget: int = BUDGET,
        expiration: Expiration = FOR_EVER,
    ) -> TransactionData:
        """The whole transaction; gas from the payer's largest coin that is no input."""
        payer = sponsor or sender
        if payment is None:
            used = {a.ref.id for a in tx.inputs if isinstance(a, OwnedInput | ReceivingInput)}
            payment = tuple(c.ref for c in self.coins(payer) if c.id not in used)[:1]
        epoch = self.node.find_epoch()
        assert epoch is not None
        gas = GasData(payment, payer.address, price or epoch.reference_gas_price, budget)
        return TransactionData(tx.kind, sender.address, gas, expiration)

    def run(self, tx: Tx, sender: Wallet, **options: Any) -> Executed:
        """Sign and execute."""
        data = self.data(tx, sender, **options)
        raw = data.encode()
        signatures = [sender.sign(raw)]
        sponsor = options.get("sponsor")
        if sponsor is not None:
            signatures.append(sponsor.sign(raw))
        return self.node.execute(raw, signatures)

    def ok(self, tx: Tx, sender: Wallet, **options: Any) -> Executed:
        """Execute; it must succeed."""
        executed = self.run(tx, sender, **options)
        assert executed.effects.ok, executed.effects.error
        return executed

    def fails(self, tx: Tx, sender: Wallet, kind: str, command: int | None = 0, **options: Any) -> Executed:
        """Execute; it must fail on chain with that kind in that command."""
        executed = self.run(tx, sender, **options)
        error = executed.effects.error
        assert error is not None, "it succeeded"
        assert (error.kind, error.command) == (kind, command), error
        return executed

    def publish(self, sender: Wallet, modules: tuple[bytes, ...], dependencies: tuple[bytes, ...]) -> bytes:
        """Publish; the cap goes to the sender. Returns the package's id."""
        tx = self.tx()
        cap = tx.command(Publish(modules, dependencies))
        tx.send(sender.address, cap)
        return package_of(self.ok(tx, sender))

    def publish_shipped(self, sender: Wallet, name: str) -> bytes:
        """Publish one of our packages."""
        package = load(name)
        return self.publish(sender, tuple(package.modules.values()), package.dependencies)

    def sui_in_coins(self) -> int:
        """MIST in coins, whoever has them; money inside other objects is not counted."""
        records = [self.node.find_object(id) for id in live_ids(self.node, f"type = '{GAS_COIN_TYPE.text}'")]
        return sum(int.from_bytes(r.contents[32:40], "little") for r in records if r is not None)


def package_of(executed: Executed) -> bytes:
    """The id of the package that a transaction published."""
    (found,) = [id for id, c in executed.effects.changed if isinstance(c.after, OutPackage)]
    return found


def created(executed: Executed, ending: str) -> bytes:
    """The id of the only object made whose type without arguments ends so."""
    new = {id for id, c in executed.effects.changed if c.id_operation is IdOperation.CREATED}
    found = [
        record.id
        for record in executed.outputs
        if record.id in new and str(record.type).split("<")[0].endswith(ending)
    ]
    assert len(found) == 1, f"{len(found)} new objects ...{ending}"
    return found[0]


def fixture_modules(name: str) -> tuple[bytes, ...]:
    """Compiled modules of a package in `fixtures/`."""
    stored = json.loads((FIXTURES / f"{name}.json").read_text())
    return tuple(base64.b64decode(text) for text in stored["modules"])
