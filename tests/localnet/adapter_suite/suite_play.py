"""Play the tasks of one test on the embedded node, and say what each came to."""

from __future__ import annotations

import re
from dataclasses import replace
from hashlib import blake2b
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from suite_commands import parse_commands
from suite_files import SuiteTest, Task
from suite_results import CHANGES, Result
from suite_show import show_error, show_event, show_owner, show_type, show_value
from suite_sources import Compiled
from suite_values import Named, NotUnderstood, Objects, PackageDigest, parse_types, parse_values

from dtp.localnet.limits import MAX_GAS_BUDGET
from dtp.localnet.model import Executed, ObjectRecord, TransactionRejected
from dtp.localnet.node import LocalNode
from dtp.localnet.outcome import record_of
from dtp.localnet.packages import PackageCatalog
from dtp.localnet.store import ChainStore
from dtp.localnet.vm import VM
from dtp.sui.bcs import uleb128
from dtp.sui.effects import Failed, IdOperation, InAbsent, OutAbsent
from dtp.sui.names import parse_type
from dtp.sui.objects import (
    GAS_COIN_TYPE,
    AddressOwner,
    ConsensusAddressOwner,
    MoveObject,
    ObjectValue,
    SharedOwner,
    fresh_object_id,
)
from dtp.sui.signature import KeyScheme, PublicKey, SimpleSignature, address_of_key
from dtp.sui.transaction import (
    Argument,
    CallArg,
    Command,
    EpochExpiration,
    GasData,
    Input,
    MakeMoveVec,
    MoveCall,
    Mutability,
    NoExpiration,
    OwnedInput,
    ProgrammableTransaction,
    Publish,
    Pure,
    ReceivingInput,
    SharedInput,
    TransactionData,
    TransferObjects,
    Upgrade,
    signing_hash,
)
from dtp.sui.transaction import Result as CommandResult

STD, SUI = ((number).to_bytes(32, "big") for number in (1, 2))
GAS = 300_000_000_000_000
BUDGET = 5_000_000_000
PRICE = 1_000
#: What Sui's test authority asks at least, which is what an inspection pays.
INSPECT_PRICE = 500
#: Sui's runner asks for one page of events, and counts these.
EVENTS_COUNTED = 50
POLICIES = {"compatible": 0, "additive": 128, "dep_only": 192}
FRAMEWORK = {"std": 1, "sui": 2, "sui_system": 3, "deepbook": 0xDEE9, "bridge": 11}
KNOWN = frozenset({1, 2, 3, 5, 6, 8, 0xC, 0xD, 0x403, 0xACC, 0xDEE9})


class Unrunnable(Exception):
    """The node or this runner has no counterpart for what a task asks."""


class Account:
    """A key with a coin."""

    def __init__(self, name: str) -> None:
        self.key = Ed25519PrivateKey.from_private_bytes(
            blake2b(b"suite" + name.encode(), digest_size=32).digest()
        )
        self.public = PublicKey(KeyScheme.ED25519, self.key.public_key().public_bytes_raw())
        self.address = address_of_key(self.public)
        self.gas = blake2b(b"gas" + name.encode(), digest_size=32).digest()

    def sign(self, raw: bytes) -> bytes:
        """Return a signature over a transaction."""
        return SimpleSignature(self.public, self.key.sign(signing_hash(raw))).serialize()

    def coin(self) -> ObjectRecord:
        """Return the coin that it has at first, for which no storage was paid."""
        contents = self.gas + GAS.to_bytes(8, "little")
        value = MoveObject(GAS_COIN_TYPE, True, 1, contents)
        return record_of(ObjectValue(value, AddressOwner(self.address), bytes(32), 0))


def account_names(test: SuiteTest) -> list[str]:
    """Return the names of the test's accounts; the one without a name is the default."""
    return [*sorted(set(test.tasks[0].options.get("accounts", []))), ""]


class Inputs:
    """The inputs of a transaction that is being made; equal ones are one, as Sui's builder has it."""

    def __init__(self) -> None:
        self.args: list[CallArg] = []

    def add(self, arg: CallArg) -> Input:
        """Return the input for `arg`."""
        if arg not in self.args:
            self.args.append(arg)
        return Input(self.args.index(arg))


class Player:
    """One test on a node of its own. An `older` suite numbers what a task made by types, and not as it was made."""

    def __init__(
        self, test: SuiteTest, compiled: dict[tuple[str, int], Compiled], *, older: bool = False
    ) -> None:
        self.test = test
        self.older = older
        self.compiled = compiled
        store = ChainStore(None)
        self.node = LocalNode(store, None, 0, b"")
        self.vm = VM(PackageCatalog(self.node.find_object))
        self.accounts = {name: Account(name) for name in account_names(test)}
        self.names = {name: number.to_bytes(32, "big") for name, number in FRAMEWORK.items()}
        self.ids: dict[bytes, tuple[int, int]] = {}
        self.order: dict[bytes, int] = {}
        self.places: dict[bytes, bytes] = {}
        self.original: dict[bytes, bytes] = {}
        self.staged: dict[str, tuple[bytes, ...]] = {}
        self.digests: dict[str, bytes] = {}
        self.task = 0
        self.next = 0
        for word in test.tasks[0].options.get("addresses", []):
            name, _, value = word.partition("=")
            self.names[name] = int(value, 16).to_bytes(32, "big")
        with store.write_checkpoint():
            store.put_objects([account.coin() for account in self.accounts.values()], 0)
        for name, account in self.accounts.items():
            if name:
                self.names[name] = account.address
            self._enumerate(account.gas)

    def close(self) -> None:
        """Close the node."""
        self.node.close()

    # names

    def _enumerate(self, id: bytes) -> None:
        if id not in self.ids:
            self.ids[id] = (self.task, self.next)
            self.next += 1

    def name(self, address: bytes) -> str:
        """Return what the suite calls an address."""
        for known in sorted(self.names):
            if self.names[known] == address:
                return known
        if int.from_bytes(address, "big") in KNOWN:
            return f"0x{int.from_bytes(address, 'big'):x}"
        found = self.ids.get(address)
        return "_" if found is None else f"fake({found[0]},{found[1]})"

    def _object_name(self, id: bytes) -> str:
        if int.from_bytes(id, "big") in KNOWN:
            return f"0x{id.hex()}"
        found = self.ids.get(id)
        return "object(_)" if found is None else f"object({found[0]},{found[1]})"

    def resolve(self, text: str) -> bytes:
        """Return the address that a name or number is."""
        if text in self.names:
            return self.names[text]
        if text[0].isdigit():
            return int(text, 0).to_bytes(32, "big")
        raise NotUnderstood(f"the address {text}")

    def _id(self, task: int, index: int | None) -> bytes:
        if index is None:
            return task.to_bytes(32, "big")
        for id, place in self.ids.items():
            if place == (task, index):
                return id
        raise NotUnderstood(f"object({task},{index}) is not there")

    # inputs

    def _record(self, named: Named) -> ObjectRecord:
        found = self.node.find_object(self._id(named.task, named.index), named.version)
        if found is None:
            raise NotUnderstood(f"object({named.task},{named.index}) can't be read")
        return found

    def _input(self, value: bytes | Named | Objects | PackageDigest) -> CallArg:
        if isinstance(value, bytes):
            return Pure(value)
        if isinstance(value, PackageDigest):
            return Pure(uleb128(32) + self.digests[value.name])
        if isinstance(value, Objects):
            raise NotUnderstood("a vector of objects as an input")
        record = self._record(value)
        owner = record.owner
        if value.how == "receiving":
            return ReceivingInput(record.ref)
        if value.how == "owned":
            return OwnedInput(record.ref)
        shared = {"mutshared": 1, "immshared": 0, "nonexclusive": 2}.get(value.how)
        if shared is not None or isinstance(owner, SharedOwner | ConsensusAddressOwner):
            start = getattr(owner, "initial_shared_version", getattr(owner, "start_version", 0))
            return SharedInput(record.id, start, Mutability(1 if shared is None else shared))
        return OwnedInput(record.ref)

    def _dependencies(self, names: list[str]) -> tuple[bytes, ...]:
        return (*(self.names[name] for name in names), STD, SUI)

    @staticmethod
    def _package_digest(modules: tuple[bytes, ...], dependencies: tuple[bytes, ...]) -> bytes:
        parts = [blake2b(module, digest_size=32).digest() for module in modules] + list(dependencies)
        return blake2b(b"".join(sorted(parts)), digest_size=32).digest()

    def _modules(self, task: Task) -> tuple[bytes, ...]:
        made = self.compiled.get((self.test.name, task.number))
        if made is None or made.error:
            raise Unrunnable("its source " + (made.error if made else "is not Move"))
        # A name that is published already is not zero any more: Sui refuses that, and so must the node.
        name = _package_name(made)
        own = self.names.get(name, bytes(32)) if task.command == "publish" else bytes(32)
        modules = []
        for module in made.modules:
            module = module.replace(made.place, own)
            for place, id in self.places.items():
                module = module.replace(place, id)
            modules.append(module)
        return tuple(modules)

    # transactions

    def _data(self, task: Task, inputs: list[CallArg], commands: list[Command]) -> TransactionData:
        sender = self.accounts[task.option("sender") or ""]
        sponsor = self.accounts[task.option("sponsor")] if task.option("sponsor") else sender  # type: ignore[index]
        payment = [Named("object", *self.ids[sponsor.gas], None)]
        if task.options.get("gas-payment"):
            payment = parse_values(task.options["gas-payment"], self.resolve)
        coins = tuple(self._record(named).ref for named in payment)
        budget = task.number_of("gas-budget", BUDGET)
        if self.test.tasks[0].options.get(
            "max-gas"
        ):  # Sui's runner raises the largest budget, the node has one
            budget = min(budget, MAX_GAS_BUDGET)
        gas = GasData(coins, sponsor.address, task.number_of("gas-price", PRICE), budget)
        ends = task.option("expiration")
        expiration = NoExpiration() if ends is None else EpochExpiration(int(ends))
        return TransactionData(
            ProgrammableTransaction(tuple(inputs), tuple(commands)), sender.address, gas, expiration
        )

    def _execute(
        self, task: Task, inputs: list[CallArg], commands: list[Command]
    ) -> tuple[Executed | None, Result]:
        if task.flag("address-balance-gas"):
            raise Unrunnable("gas from the balance of an address")
        data = self._data(task, inputs, commands)
        try:
            if task.flag("dev-inspect") or task.flag("dry-run"):
                if task.flag("dev-inspect"):
                    data = replace(
                        data,
                        gas_data=replace(data.gas_data, payment=(), budget=BUDGET * 10, price=INSPECT_PRICE),
                    )
                elif task.command == "upgrade":
                    data = replace(data, gas_data=replace(data.gas_data, payment=()))
                executed = self.node.simulate(
                    data, checks=not task.flag("dev-inspect") and task.command != "upgrade"
                ).executed
            else:
                raw = data.encode()
                signers = {data.sender, data.gas_data.owner}
                keys = sorted(
                    (a for a in self.accounts.values() if a.address in signers),
                    key=lambda a: a.address != data.sender,
                )
                executed = self.node.execute(raw, [account.sign(raw) for account in keys])
        except TransactionRejected as refused:
            return None, Result("refused", error=refused.kind)
        return executed, self._summary(executed, task.flag("summarize"))

    def _summary(self, executed: Executed, summarize: bool) -> Result:
        effects = executed.effects
        outputs = {record.id: record for record in executed.outputs}
        groups: dict[str, list[bytes]] = {name: [] for name in CHANGES}
        for id, change in effects.changed:
            groups[_group(change)].append(id)
        groups["unchanged_shared"] = [id for id, _ in effects.unchanged]
        self._note_order(effects.transaction_digest, groups["created"])
        fresh = groups["created"] + groups["unwrapped"]
        for id in sorted(fresh, key=lambda id: self._sort_key(outputs[id])):
            self._enumerate(id)
        if isinstance(effects.status, Failed):
            error = effects.status.error
            command = "" if error.command is None else str(error.command)
            return Result("failed", error=show_error(error, self.name), command=command)
        changes = {}
        for name, ids in groups.items():
            ids.sort(key=lambda id: (id in self.ids, self.ids.get(id, (0, 0)), id))
            if ids:
                changes[name] = str(len(ids)) if summarize else ", ".join(map(self._object_name, ids))
        shown = self._events(executed)
        gas = effects.gas_used
        return Result(
            "done",
            changes,
            str(min(len(executed.events), EVENTS_COUNTED)) if summarize and executed.events else shown,
            (gas.computation, gas.storage, gas.storage_rebate, gas.non_refundable),
        )

    def _events(self, executed: Executed) -> str:
        known = {*self.ids, *self.names.values(), *(record.id for record in executed.outputs)}
        return ", ".join(show_event(event, self.name, known) for event in executed.events)

    def _note_order(self, digest: bytes, created: list[bytes]) -> None:
        left = set(created)
        for number in range(2048):
            if not left:
                return
            id = fresh_object_id(digest, number)
            if id in left:
                left.remove(id)
                self.order[id] = len(self.order)

    def _sort_key(self, record: ObjectRecord) -> tuple[int, str, bytes]:
        package = record.package
        text = show_type(record.type, self.name) if package is None else ",".join(sorted(package.modules))  # type: ignore[arg-type]
        made = 0 if self.older else self.order.get(record.id, 1 << 64)
        return made, text, record.id

    # tasks

    def play(self, task: Task) -> Result:
        """Return what a task came to."""
        self.task, self.next = task.number, 0
        try:
            action = _TASKS.get(task.command)
            if action is None:
                raise Unrunnable(f"the command {task.command}")
            return action(self, task)
        except (Unrunnable, NotUnderstood) as reason:
            return Result("unrunnable", text=str(reason))
        except (KeyError, ValueError, AssertionError, IndexError, TypeError, AttributeError) as fault:
            # What the node lets out, or this runner: shown as a difference of its own, so that it is seen.
            return Result("crash", error=f"{type(fault).__name__}: {fault}")

    def publish(self, task: Task) -> Result:
        """Publish a package."""
        modules = self._modules(task)
        dependencies = self._dependencies(task.options.get("dependencies", []))
        sender = self.accounts[task.option("sender") or ""].address
        commands: list[Command] = [Publish(modules, dependencies)]
        inputs: list[CallArg] = []
        if task.flag("upgradeable"):
            inputs = [Pure(sender)]
            commands.append(TransferObjects((CommandResult(0),), Input(0)))
        else:
            made = MoveCall(SUI, "package", "make_immutable", (), (CommandResult(0),))
            commands.append(made)
        executed, result = self._execute(task, inputs, commands)
        self._published(task, executed, result)
        return result

    def _published(self, task: Task, executed: Executed | None, result: Result) -> None:
        if executed is None or result.kind != "done" or task.flag("dry-run"):
            return
        package = next(record for record in executed.outputs if record.package is not None)
        made = self.compiled[self.test.name, task.number]
        name = _package_name(made)
        before = self.names.get(task.option("package") or "", b"")
        original = self.original.get(before, package.id)
        self.original[package.id] = original
        self.places[made.place] = original
        if name:
            self.names[name] = package.id
        result.events = self._events(executed)

    def upgrade(self, task: Task) -> Result:
        """Upgrade a package."""
        modules = self._modules(task)
        dependencies = self._dependencies(task.options.get("dependencies", []))
        inputs = Inputs()
        task_number, _, index = (task.option("upgrade-capability") or "").partition(",")
        cap = inputs.add(self._input(Named("object", int(task_number), int(index), None)))
        policy = inputs.add(Pure(bytes([POLICIES[task.option("policy") or "compatible"]])))
        digest = inputs.add(Pure(uleb128(32) + self._package_digest(modules, dependencies)))
        commands: list[Command] = [
            MoveCall(SUI, "package", "authorize_upgrade", (), (cap, policy, digest)),
            Upgrade(modules, dependencies, self.names[task.option("package") or ""], CommandResult(0)),
            MoveCall(SUI, "package", "commit_upgrade", (), (cap, CommandResult(1))),
        ]
        executed, result = self._execute(task, inputs.args, commands)
        self._published(task, executed, result)
        return result

    def stage(self, task: Task) -> Result:
        """Keep a package for `Publish` and `Upgrade` commands."""
        modules = self._modules(task)
        name = _package_name(self.compiled[self.test.name, task.number])
        self.staged[name] = modules
        dependencies = self._dependencies(task.options.get("dependencies", []))
        self.digests[name] = self._package_digest(modules, dependencies)
        return Result("text")

    def run(self, task: Task) -> Result:
        """Call a function."""
        package, module, function = task.words[0].split("::")
        inputs = Inputs()
        commands: list[Command] = []
        arguments: list[Argument] = []
        for value in parse_values(task.options.get("args", []), self.resolve):
            if isinstance(value, Objects):
                items = tuple(inputs.add(self._input(item)) for item in value.items)
                commands.append(MakeMoveVec(None, items))
                arguments.append(CommandResult(len(commands) - 1))
            else:
                arguments.append(inputs.add(self._input(value)))
        types = parse_types(task.options.get("type-args", []), self.resolve)
        commands.append(MoveCall(self.resolve(package), module, function, types, tuple(arguments)))
        return self._execute(task, inputs.args, commands)[1]

    def programmable(self, task: Task) -> Result:
        """Run a programmable transaction."""
        values = parse_values(task.options.get("inputs", []), self.resolve)
        inputs = [self._input(value) for value in values]

        def staged(name: str) -> tuple[bytes, ...]:
            if name not in self.staged:
                raise NotUnderstood(f"no staged package {name}")
            return self.staged[name]

        commands = parse_commands(task.program, self.resolve, staged)
        return self._execute(task, inputs, list(commands))[1]

    def transfer(self, task: Task) -> Result:
        """Transfer an object."""
        at, _, index = task.words[0].partition(",")
        inputs = Inputs()
        moved = inputs.add(self._input(Named("object", int(at, 0), int(index) if index else None, None)))
        recipient = inputs.add(Pure(self.accounts[task.option("recipient") or ""].address))
        return self._execute(task, inputs.args, [TransferObjects((moved,), recipient)])[1]

    def view(self, task: Task) -> Result:
        """Show an object."""
        at, _, index = task.words[0].partition(",")
        id = self._id(int(at, 0), int(index) if index else None)
        record = self.node.find_object(id)
        if record is None:
            return Result("text", text=f"No object at id {task.words[0]}")
        package = record.package
        if package is not None:
            modules = sorted(package.modules)
            inner = modules[0] if len(modules) == 1 else "{" + ", ".join(modules) + "}"
            return Result("text", text=f"{task.words[0]}::{inner}")
        head = f"Owner: {show_owner(record.owner, self.name)}\nVersion: {record.version}\n"
        if task.flag("hide-contents"):
            return Result("view", text=f"{head}Type: {show_type(record.type, self.name)}")  # type: ignore[arg-type]
        vm = self.vm
        type = vm.parse_type(str(record.type))
        shown = show_value(type, parse_type(type.tag), vm.decode_value(type, record.contents), self.name)
        return Result("view", text=f"{head}Contents: {shown}")

    def checkpoint(self, task: Task) -> Result:
        """Make checkpoints; here every transaction has one, so their numbers say nothing."""
        return Result("text")

    def epoch(self, task: Task) -> Result:
        """End epochs."""
        for _ in range(int(task.words[0]) if task.words else 1):
            made = self.node.advance_epoch()
        return Result("text", text=f"Epoch advanced: {made.epoch}")

    def clock(self, task: Task) -> Result:
        """Move the clock."""
        self.node.advance_clock(max(1, int(task.option("duration-ns") or 0) // 1_000_000))
        return Result("text")

    def set_address(self, task: Task) -> Result:
        """Give a name to an address."""
        name, *value = task.words
        found = parse_values(value, self.resolve)[0]
        self.names[name] = found if isinstance(found, bytes) else self._id(found.task, found.index)
        return Result("text")


def _package_name(made: Compiled) -> str:
    return re.sub(r"^\d+_", "", made.package)


def _group(change: Any) -> str:
    before, after, operation = change.before, change.after, change.id_operation
    if isinstance(after, OutAbsent):
        if operation is IdOperation.DELETED:
            return "unwrapped_then_deleted" if isinstance(before, InAbsent) else "deleted"
        return "wrapped"
    if operation is IdOperation.CREATED:
        return "created"
    return "unwrapped" if isinstance(before, InAbsent) else "mutated"


_TASKS = {
    "init": lambda player, task: Result("text"),
    "publish": Player.publish,
    "upgrade": Player.upgrade,
    "stage-package": Player.stage,
    "run": Player.run,
    "bench": Player.run,
    "programmable": Player.programmable,
    "transfer-object": Player.transfer,
    "view-object": Player.view,
    "create-checkpoint": Player.checkpoint,
    "advance-epoch": Player.epoch,
    "advance-clock": Player.clock,
    "set-address": Player.set_address,
}
