"""The embedded node: executes transactions on Move bytecode, keeps objects, checkpoints and events. No network.

`Node.open()` makes one in memory, `Node.open(path)` one that lasts in an SQLite file. Everything is synchronous and
done when a call returns; a node is used from one thread at a time. The gRPC service and the tests stand on this class.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType

from dtp.localnet.model import (
    Balance,
    CheckpointRecord,
    CoinInfo,
    DatatypeInfo,
    DynamicField,
    EpochRecord,
    EventFilter,
    EventRecord,
    Executed,
    FunctionInfo,
    ObjectRecord,
    PackageInfo,
    Page,
    ServiceInfo,
    Simulated,
    Totals,
    TransactionRecord,
    UnresolvedTransaction,
)
from dtp.sui.names import TypeTag
from dtp.sui.transaction import TransactionData

__all__ = ["Node"]


class Node:
    """One chain of one node. Make it with `open`; use it as a context manager, or `close` it.

    Time: the on-chain clock follows `now` (ms since 1970; the system's clock by default) plus what `advance_clock`
    added, and never goes back. With `now=None` it moves only by `advance_clock`.
    """

    @classmethod
    def open(
        cls,
        path: Path | str | None = None,
        *,
        now: Callable[[], int] | None = None,
        genesis_time_ms: int = 1_700_000_000_000,
    ) -> Node:
        """A node in memory, or on the file at `path`, made if it does not exist.

        Every executed transaction is in the file when `execute` returns; a process killed at any moment leaves a file
        that opens again with the last whole checkpoint. Raises `NodeStateError` for a file that is not one of these.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Close the file; idempotent."""
        raise NotImplementedError

    def __enter__(self) -> Node:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -------------------------------------------------------------------------------------- transactions

    def execute(self, transaction: bytes, signatures: Sequence[bytes]) -> Executed:
        """Execute BCS of `TransactionData` under serialized Sui signatures (sender's, and the gas owner's if another).

        A transaction that fails on chain is a result too (`effects.ok` is False). The same transaction again gives
        the same result. Raises `TransactionRejected` when it is not taken at all; then nothing happened.
        """
        raise NotImplementedError

    def simulate(
        self,
        transaction: TransactionData | UnresolvedTransaction,
        *,
        checks: bool = True,
        select_gas: bool = False,
    ) -> Simulated:
        """What a transaction would do; nothing is kept.

        An `UnresolvedTransaction` is resolved first (`resolve`). `select_gas` fills in payment and budget where they
        are missing (empty payment, budget 0): the budget by what a run costs, coins of the gas owner that cover it.
        With `checks=False` commands may call any function, and gas may be missing: a mock coin pays then.
        Raises `TransactionRejected`.
        """
        raise NotImplementedError

    def resolve(self, transaction: UnresolvedTransaction) -> TransactionData:
        """Fill in versions, digests, how shared objects are used, literals, price. Payment and budget stay empty or 0
        where not given. Raises `TransactionRejected`."""
        raise NotImplementedError

    def transaction(self, digest: bytes) -> TransactionRecord | None:
        """An executed transaction, None if unknown or pruned."""
        raise NotImplementedError

    def executed(self, digest: bytes) -> Executed | None:
        """The same with the objects before and after, as far as they are not pruned."""
        raise NotImplementedError

    # ------------------------------------------------------------------------------------------- objects

    def object(self, id: bytes, version: int | None = None) -> ObjectRecord | None:
        """The live object, or the given version of it; None if there is none (never was, deleted, wrapped, pruned)."""
        raise NotImplementedError

    def objects_owned_by(
        self, address: bytes, type: TypeTag | None = None, cursor: bytes | None = None, limit: int = 50
    ) -> Page[ObjectRecord]:
        """Objects owned by an address, party objects included; a `type` without arguments fits all its instances.

        Coins of one type come in falling order of balance. Raises `BadCursor`.
        """
        raise NotImplementedError

    def dynamic_fields(
        self, parent: bytes, cursor: bytes | None = None, limit: int = 50
    ) -> Page[DynamicField]:
        """Dynamic fields of an object (or of a table's id). Raises `BadCursor`."""
        raise NotImplementedError

    def balance(self, address: bytes, coin_type: TypeTag) -> Balance:
        """What an address owns in coins of a type."""
        raise NotImplementedError

    def balances(self, address: bytes, cursor: bytes | None = None, limit: int = 50) -> Page[Balance]:
        """All its balances. Raises `BadCursor`."""
        raise NotImplementedError

    def coin_info(self, coin_type: TypeTag) -> CoinInfo | None:
        """Metadata and supply of a coin type, None if its type does not exist."""
        raise NotImplementedError

    def json(self, type: TypeTag, contents: bytes) -> object:
        """A Move value as JSON (numbers over 32 bits as text, bytes as base64, ids as `0x…`); None if its type is not
        known here or the bytes don't fit it."""
        raise NotImplementedError

    # ------------------------------------------------------------------------------------------ packages

    def package(self, id: bytes) -> PackageInfo | None:
        """A package by storage id."""
        raise NotImplementedError

    def package_versions(
        self, id: bytes, cursor: bytes | None = None, limit: int = 50
    ) -> Page[tuple[int, bytes]]:
        """(version, storage id) of all versions of the package that `id`, any of them, belongs to."""
        raise NotImplementedError

    def datatype(self, package: bytes, module: str, name: str) -> DatatypeInfo | None:
        """A struct or enum as that package version defines it."""
        raise NotImplementedError

    def function(self, package: bytes, module: str, name: str) -> FunctionInfo | None:
        """A function as that package version defines it."""
        raise NotImplementedError

    # ----------------------------------------------------------------------- checkpoints, epochs, events

    def checkpoint(self, which: int | bytes | None = None) -> CheckpointRecord | None:
        """A checkpoint by sequence number or digest; the latest without argument; None if unknown or pruned."""
        raise NotImplementedError

    def checkpoint_transactions(self, sequence: int) -> tuple[Executed, ...]:
        """The transactions of a checkpoint, in order, with their objects as far as they are not pruned."""
        raise NotImplementedError

    def epoch(self, number: int | None = None) -> EpochRecord | None:
        """An epoch, the present one without argument."""
        raise NotImplementedError

    def service_info(self) -> ServiceInfo:
        """What the node is and where it stands."""
        raise NotImplementedError

    def events(
        self,
        filter: EventFilter | None = None,
        cursor: bytes | None = None,
        limit: int = 50,
        *,
        descending: bool = False,
        first_checkpoint: int | None = None,
        last_checkpoint: int | None = None,
    ) -> Page[EventRecord]:
        """Events in chain order after `cursor` (or from the start), or falling from the end. The cursor of a last page
        is not None when `limit` was reached; `event_cursor(event)` makes one for any event. Raises `BadCursor`."""
        raise NotImplementedError

    @staticmethod
    def event_cursor(event: EventRecord) -> bytes:
        """The cursor that continues after `event`."""
        raise NotImplementedError

    def subscribe(
        self, callback: Callable[[CheckpointRecord, tuple[Executed, ...]], None]
    ) -> Callable[[], None]:
        """Call `callback` with each new checkpoint and its transactions, in order, after it is stored.

        Returns what ends the subscription. A callback must not execute transactions, and what it raises goes to the
        caller of `execute` (the checkpoint stands).
        """
        raise NotImplementedError

    # ------------------------------------------------------------------------------- for development and tests

    def faucet(self, address: bytes, amount: int | Iterable[int] = 10_000_000_000) -> Executed:
        """Send new coins of `amount` MIST each to an address, by a signed transaction of the genesis account.

        Raises `TransactionRejected` when the genesis account can't pay.
        """
        raise NotImplementedError

    def advance_clock(self, ms: int) -> CheckpointRecord:
        """Move the clock forward by `ms` > 0, in a checkpoint of its own."""
        raise NotImplementedError

    def advance_epoch(self, *, reference_gas_price: int | None = None) -> EpochRecord:
        """End the epoch, in a checkpoint of its own; returns the new one. The price stays if not given."""
        raise NotImplementedError

    def totals(self) -> Totals:
        """Where the SUI is that is in no coin (for checks of conservation)."""
        raise NotImplementedError

    def prune(self, keep_checkpoints: int) -> int:
        """Forget events, transactions and old object versions of checkpoints but the last `keep_checkpoints`.

        Live objects and checkpoint digests stay. Returns the lowest checkpoint that is still whole.
        """
        raise NotImplementedError
