"""A node with the package `playground` (see `fixtures/`) and an account that plays with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from node_world import STD, SUI, Tx, Wallet, World, created, fixture_modules

from dtp.localnet.model import Executed, ObjectRecord
from dtp.sui.effects import ArgumentProblem
from dtp.sui.names import TypeTag, parse_type
from dtp.sui.transaction import Result


@dataclass
class Play:
    """A node with the package `playground` and an account."""

    world: World
    alice: Wallet
    package: bytes

    @classmethod
    def begin(cls, world: World) -> Play:
        """Publish the package from a new account."""
        alice = world.wallet("alice", 50_000_000_000, 10_000_000_000)
        return cls(world, alice, world.publish(alice, fixture_modules("playground"), (STD, SUI)))

    def tx(self) -> Tx:
        """An empty transaction."""
        return self.world.tx()

    def call(self, tx: Tx, name: str, *arguments: Any, types: tuple[str, ...] = ()) -> Result:
        """Call a function of `things`."""
        return tx.call(self.package, f"things::{name}", *arguments, types=types)

    def ok(self, tx: Tx) -> Executed:
        """Run as Alice; it must succeed."""
        return self.world.ok(tx, self.alice)

    def fails(self, tx: Tx, kind: str, command: int | None = 0) -> Executed:
        """Run as Alice; it must fail so."""
        return self.world.fails(tx, self.alice, kind, command)

    def argument_fails(self, tx: Tx, argument: int, problem: str, *numbers: int, command: int = 0) -> None:
        """Run as Alice; an argument must be refused so."""
        error = self.fails(tx, "CommandArgumentError", command).effects.error
        assert error is not None
        assert error.content == {"argument": argument, "problem": ArgumentProblem(problem, numbers)}, error

    def thing(self, value: int = 1) -> bytes:
        """A new `Thing` of Alice's."""
        tx = self.tx()
        self.call(tx, "keep", tx.u64(value))
        return created(self.ok(tx), "::things::Thing")

    def shared(self) -> bytes:
        """A new shared `Counter`."""
        tx = self.tx()
        self.call(tx, "start")
        return created(self.ok(tx), "::things::Counter")

    def tag(self, name: str) -> TypeTag:
        """The type `module::Name` of the package."""
        return parse_type(f"0x{self.package.hex()}::{name}")

    def treasury_cap(self) -> bytes:
        """The cap over the package's coin, which Alice has."""
        tag = parse_type(f"0x2::coin::TreasuryCap<{self.tag('gold::GOLD')}>")
        (cap,) = self.world.node.objects_owned_by(self.alice.address, tag).items
        return cap.id

    def value(self, id: bytes) -> int:
        """The u64 after the id of an object."""
        record = self.record(id)
        return int.from_bytes(record.contents[32:40], "little")

    def record(self, id: bytes) -> ObjectRecord:
        """A live object."""
        record = self.world.node.find_object(id)
        assert record is not None
        return record
