"""The embedded node: executes transactions on Move bytecode, keeps objects, checkpoints and events. No network.

`LocalNode.open()` makes one in memory, `LocalNode.open(path)` one that lasts in an SQLite file. Everything is
synchronous and done when a call returns; a node is used from one thread at a time. The gRPC service and tests stand
on this class.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dtp.errors import LocalError
from dtp.localnet.admission import admit, check_expiration, check_form, check_signatures, decode_transaction
from dtp.localnet.chain import Chain
from dtp.localnet.engine import Admitted
from dtp.localnet.limits import MAX_GAS_PRICE
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
    TransactionRejected,
    UnresolvedTransaction,
)
from dtp.localnet.resolve import resolve
from dtp.localnet.simulate import Simulator
from dtp.localnet.store import ChainStore
from dtp.localnet.system import CLOCK, RANDOM
from dtp.localnet.views.queries import ChainQueries
from dtp.localnet.views.reflect import Reflection
from dtp.sui.bcs import U64
from dtp.sui.names import TypeTag
from dtp.sui.objects import GAS_COIN_TYPE, MovePackageData
from dtp.sui.signature import KeyScheme, PublicKey, SimpleSignature, address_of_key
from dtp.sui.transaction import (
    GasCoin,
    GasData,
    Input,
    NestedResult,
    ProgrammableTransaction,
    Pure,
    SplitCoins,
    TransactionData,
    TransferObjects,
    signing_hash,
    transaction_digest,
)

__all__ = ["DEFAULT_GENESIS_TIME_MS", "ClockError", "LocalNode", "system_time_ms"]

DEFAULT_GENESIS_TIME_MS: Final = 1_700_000_000_000
"""When a chain without a clock of its own begins."""
SERVER_VERSION: Final = "1"
FAUCET_BUDGET: Final = 5_000_000_000
#: 1 January 9000. Timestamps of messages end with 9999, and what was told can't be taken back.
_LAST_TIME_MS: Final = 221_845_392_000_000
#: How far the clock may be behind when it is read, or something is simulated.
_TICK_MS: Final = 250
_FAUCET_SEED: Final = b"dtp.localnet.faucet"


class ClockError(LocalError):
    """Time or price can't be set so."""

    code = "localnet-clock"


def system_time_ms() -> int:
    """Return the system's clock, ms since 1970."""
    return time.time_ns() // 1_000_000


class LocalNode:
    """One chain of one node. Make it with `open`; use it as a context manager, or `close` it.

    Time: the on-chain clock follows `now` (ms since 1970; the system's clock by default) plus what `advance_clock`
    added, and never goes back. With `now=None` it moves only by `advance_clock`. It moves in a checkpoint of its own
    when it is read by `find_object`, `find_checkpoint`, `service_info` or `simulate` and more than 250 ms behind;
    while nobody reads it or transacts, there are no checkpoints.
    """

    @classmethod
    def open(
        cls,
        path: Path | str | None = None,
        *,
        now: Callable[[], int] | None = system_time_ms,
        genesis_time_ms: int | None = None,
        seed: bytes = b"",
    ) -> LocalNode:
        """Return a node in memory, or on the file at `path`, made if it does not exist.

        Every executed transaction is in the file when `execute` returns; a process killed at any moment leaves a
        file that opens again with the last whole checkpoint. Time and `seed` of the genesis make the identifier of a
        new chain; the time is `now()`, or a fixed one without `now`. Raises `NodeStateError` for a file that
        isn't one of these.
        """
        if genesis_time_ms is None:
            genesis_time_ms = DEFAULT_GENESIS_TIME_MS if now is None else now()
        return cls(ChainStore(None if path is None else Path(path)), now, genesis_time_ms, seed)

    def __init__(
        self, store: ChainStore, now: Callable[[], int] | None, genesis_time_ms: int, seed: bytes
    ) -> None:
        self._store = store
        self._now = now
        # The genesis account's key is not a secret: anyone may have this money.
        self._faucet = Ed25519PrivateKey.from_private_bytes(blake2b(_FAUCET_SEED, digest_size=32).digest())
        key = PublicKey(KeyScheme.ED25519, self._faucet.public_key().public_bytes_raw())
        self._faucet_key = key
        self.faucet_address = address_of_key(key)
        self._chain = Chain(store, self.faucet_address, seed, genesis_time_ms)
        self._queries = ChainQueries(self._chain)
        self._reflections: dict[bytes, Reflection] = {}
        self._subscribers: list[Callable[[CheckpointRecord, tuple[Executed, ...]], None]] = []
        if store.fresh:
            # The clock of genesis says 0; from the first real checkpoint on it says the time.
            self._seal_time(genesis_time_ms)

    def close(self) -> None:
        """Close the file; idempotent."""
        self._store.close()

    def __enter__(self) -> LocalNode:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -------------------------------------------------------------------------------------- transactions

    def execute(self, transaction: bytes, signatures: Sequence[bytes]) -> Executed:
        """Execute BCS of `TransactionData` under serialized signatures (sender's, and the gas owner's if another).

        A transaction that fails on chain is a result too (`effects.ok` is False). The same transaction again gives
        the same result. Raises `TransactionRejected` when it is not taken at all; then nothing happened.
        """
        transaction = bytes(transaction)
        data = decode_transaction(transaction)
        check_form(data)
        check_signatures(data, transaction, signatures)
        digest = transaction_digest(transaction)
        known = self._chain.find_executed(digest)
        if known is not None:
            return known
        status = self._chain.status
        check_expiration(data, status.epoch, self._clock_time(), bytes.fromhex(status.chain))
        admitted = admit(data, digest, self._store, status.state)
        self._chain.engine.deny_list.check_sender(data.sender, admitted.used_objects())
        return self._execute_admitted(admitted, signatures)

    def simulate(
        self,
        transaction: TransactionData | UnresolvedTransaction,
        *,
        checks: bool = True,
        select_gas: bool = False,
        outputs: bool = True,
    ) -> Simulated:
        """Return what a transaction would do; nothing is kept, but the clock is moved to now first.

        Without `outputs` it doesn't tell what commands gave back.

        An `UnresolvedTransaction` is resolved first (`resolve`). `select_gas` fills in payment and budget where they
        are missing (empty payment, budget 0): the budget by what a run costs, coins of the gas owner that cover it.
        With `checks=False` commands may call any function, and gas may be missing: a mock coin pays then.
        Raises `TransactionRejected`.
        """
        self._catch_up()
        return Simulator(self._chain).simulate(
            transaction, checks=checks, select_gas=select_gas, outputs=outputs
        )

    def resolve(self, transaction: UnresolvedTransaction) -> TransactionData:
        """Fill in versions, digests, how shared objects are used, literals, price. Payment and budget stay empty or 0
        where not given. Raises `TransactionRejected`."""
        chain = self._chain
        return resolve(transaction, self._store, chain.engine.vm, chain.status.state)

    def find_transaction(self, digest: bytes) -> TransactionRecord | None:
        """Return an executed transaction, None if unknown or pruned."""
        return self._chain.find_transaction(digest)

    def find_executed(self, digest: bytes) -> Executed | None:
        """Return the same with the objects before and after, as far as they are not pruned."""
        return self._chain.find_executed(digest)

    # ------------------------------------------------------------------------------------------- objects

    def find_object(self, id: bytes, version: int | None = None) -> ObjectRecord | None:
        """Return the live object, or the given version of it; None if it never was, is deleted, wrapped or pruned.

        The live clock is moved to now first.
        """
        if id == CLOCK and version is None:
            self._catch_up()
        return self._store.find_live(id) if version is None else self._store.find_version(id, version)

    def objects_owned_by(
        self, address: bytes, type: TypeTag | None = None, cursor: bytes | None = None, limit: int = 50
    ) -> Page[ObjectRecord]:
        """Return objects owned by an address, party objects included; a `type` without arguments fits all its
        instances.

        Coins of one type come in falling order of balance. Raises `BadCursor`.
        """
        return self._queries.objects_owned_by(address, type, cursor, limit)

    def dynamic_fields(
        self, parent: bytes, cursor: bytes | None = None, limit: int = 50
    ) -> Page[DynamicField]:
        """Dynamic fields of an object (or of a table's id). Raises `BadCursor`."""
        return self._queries.dynamic_fields(parent, cursor, limit)

    def get_balance(self, address: bytes, coin_type: TypeTag) -> Balance:
        """Return what an address owns in coins of a type."""
        return self._queries.get_balance(address, coin_type)

    def list_balances(self, address: bytes, cursor: bytes | None = None, limit: int = 50) -> Page[Balance]:
        """Return all its balances. Raises `BadCursor`."""
        return self._queries.list_balances(address, cursor, limit)

    def coin_info(self, coin_type: TypeTag) -> CoinInfo | None:
        """Return metadata and supply of a coin type, None if its type does not exist."""
        return self._queries.coin_info(coin_type)

    def render_json(self, type: TypeTag, contents: bytes) -> Any:
        """Return a Move value as JSON (numbers over 32 bits as text, bytes as base64, ids as `0x…`); None if its type
        is not known here or the bytes don't fit it."""
        return self._chain.render_json(type, contents)

    # ------------------------------------------------------------------------------------------ packages

    def find_package(self, id: bytes) -> PackageInfo | None:
        """Return a package by storage id."""
        found = self._find_reflection(id)
        return None if found is None else found.package_info()

    def package_versions(
        self, id: bytes, cursor: bytes | None = None, limit: int = 50
    ) -> Page[tuple[int, bytes]]:
        """Return (version, storage id) of all versions of the package that `id`, any of them, belongs to."""
        return self._queries.package_versions(id, cursor, limit)

    def find_datatype(self, package: bytes, module: str, name: str) -> DatatypeInfo | None:
        """Return a struct or enum as that package version defines it."""
        found = self._find_reflection(package)
        return None if found is None else found.find_datatype(module, name)

    def find_function(self, package: bytes, module: str, name: str) -> FunctionInfo | None:
        """Return a function as that package version defines it."""
        found = self._find_reflection(package)
        return None if found is None else found.find_function(module, name)

    # ----------------------------------------------------------------------- checkpoints, epochs, events

    def find_checkpoint(self, which: int | bytes | None = None) -> CheckpointRecord | None:
        """Return a checkpoint by sequence number or digest; None if unknown or pruned.

        The latest without argument, after the clock was moved to now.
        """
        if which is None:
            self._catch_up()
            which = self._chain.status.sequence
        return self._chain.find_checkpoint(which)

    def checkpoint_transactions(self, sequence: int) -> tuple[Executed, ...]:
        """Return the transactions of a checkpoint, in order, with their objects as far as they are not pruned."""
        record = self._chain.find_checkpoint(sequence)
        if record is None:
            return ()
        found = (self._chain.find_executed(digest) for digest in record.digests)
        return tuple(executed for executed in found if executed is not None)

    def find_epoch(self, number: int | None = None) -> EpochRecord | None:
        """Return an epoch, the present one without argument."""
        return self._chain.find_epoch(self._chain.status.epoch if number is None else number)

    def service_info(self) -> ServiceInfo:
        """Return what the node is and where it stands; the clock is moved to now first."""
        self._catch_up()
        status = self._chain.status
        return ServiceInfo(
            bytes.fromhex(status.chain),
            "localnet",
            status.epoch,
            status.sequence,
            status.clock_ms,
            status.lowest,
            status.lowest,
            f"dtp-localnet/{SERVER_VERSION}",
        )

    def list_events(
        self,
        filter: EventFilter | None = None,
        cursor: bytes | None = None,
        limit: int = 50,
        *,
        descending: bool = False,
        first_checkpoint: int | None = None,
        last_checkpoint: int | None = None,
    ) -> Page[EventRecord]:
        """Return events in chain order after `cursor` (or from the start), or falling from the end.

        `event_cursor(event)` makes a cursor to go on from later. Raises `BadCursor`.
        """
        return self._queries.list_events(filter, cursor, limit, descending, first_checkpoint, last_checkpoint)

    @staticmethod
    def event_cursor(event: EventRecord) -> bytes:
        """Return the cursor that continues after `event`."""
        return ChainQueries.event_cursor(event)

    def subscribe(
        self, callback: Callable[[CheckpointRecord, tuple[Executed, ...]], None]
    ) -> Callable[[], None]:
        """Call `callback` with each new checkpoint and its transactions, in order, after it is stored.

        Returns what ends the subscription. A callback must not execute transactions, and what it raises goes to the
        caller of `execute` (the checkpoint stands).
        """
        self._subscribers.append(callback)

        def unsubscribe() -> None:
            if callback in self._subscribers:
                self._subscribers.remove(callback)

        return unsubscribe

    # ------------------------------------------------------------------------------- for development and tests

    def fund_address(self, address: bytes, amount: int | Iterable[int] = 10_000_000_000) -> Executed:
        """Send new coins of `amount` MIST each to an address, by a signed transaction of the genesis account.

        Raises `TransactionRejected` when the genesis account can't pay, or for amounts that are not positive numbers.
        """
        amounts = (amount,) if isinstance(amount, int) else tuple(amount)
        data = self._faucet_transaction(address, amounts)
        raw = data.encode()
        signature = SimpleSignature(self._faucet_key, self._faucet.sign(signing_hash(raw)))
        return self.execute(raw, (signature.serialize(),))

    def advance_clock(self, ms: int) -> CheckpointRecord:
        """Move the clock forward by `ms` > 0, in a checkpoint of its own. Raises `ClockError`; then nothing moved."""
        if ms <= 0:
            raise ClockError(f"the clock moves forward only, by at least 1 ms, not by {ms}")
        chain = self._chain
        time = self._clock_time() + ms
        if time > _LAST_TIME_MS:
            raise ClockError(f"{ms} ms are too many: the clock ends with the year 8999")
        before = chain.status
        chain.status = replace(before, offset_ms=before.offset_ms + ms)
        try:
            return self._seal_time(time)
        except BaseException:
            chain.status = before
            raise

    def advance_epoch(self, *, reference_gas_price: int | None = None) -> EpochRecord:
        """End the epoch, in a checkpoint of its own; returns the new one. The price stays if not given."""
        if reference_gas_price is not None and not 0 < reference_gas_price < MAX_GAS_PRICE:
            raise ClockError(f"a gas price is 1 to {MAX_GAS_PRICE - 1}, not {reference_gas_price}")
        executed = self._chain.next_epoch(self._clock_time(), reference_gas_price)
        self._notify_subscribers(executed)
        found = self.find_epoch()
        assert found is not None, "the new epoch was noted"
        return found

    def get_totals(self) -> Totals:
        """Return where the SUI is that is in no coin (for checks of conservation)."""
        return Totals(*self._chain.status.totals)

    def prune(self, keep_checkpoints: int) -> int:
        """Forget events, transactions and old object versions of all checkpoints but the last `keep_checkpoints`.

        Live objects and checkpoint digests stay. Returns the lowest checkpoint that is still whole.
        """
        return self._chain.prune(keep_checkpoints)

    # ---------------------------------------------------------------------------------------------- inside

    def _clock_time(self) -> int:
        """Return what the clock is to say now: never less than it said before."""
        status = self._chain.status
        if self._now is None:
            return status.clock_ms
        return max(status.clock_ms, self._now() + status.offset_ms)

    def _catch_up(self) -> None:
        """Move the clock to now, unless it is nearly there.

        On a real network it moves several times a second; a checkpoint for each would fill the file of a node that
        nobody asks anything.
        """
        time = self._clock_time()
        if time - self._chain.status.clock_ms >= _TICK_MS:
            self._seal_time(time)

    def _execute_admitted(self, admitted: Admitted, signatures: Sequence[bytes]) -> Executed:
        chain = self._chain
        time = self._clock_time()
        with chain.open_checkpoint(time) as sealing:
            chain.advance_clock(sealing, time)
            inputs = admitted.objects
            if any(entry.record.id == RANDOM for entry in inputs):
                chain.new_randomness(sealing)
            for entry in inputs:
                if entry.record.id in (CLOCK, RANDOM):
                    # They changed since admission, in this very checkpoint.
                    record = self._store.find_live(entry.record.id)
                    assert record is not None, "system objects are never deleted"
                    entry.record = record
            outcome = chain.engine.execute_transaction(admitted, chain.status.state)
            executed = chain.apply_outcome(sealing, outcome, [bytes(signature) for signature in signatures])
        self._notify_subscribers(sealing.executed)
        return executed

    def _seal_time(self, time: int) -> CheckpointRecord:
        with self._chain.open_checkpoint(time) as sealing:
            self._chain.advance_clock(sealing, time)
        return self._notify_subscribers(sealing.executed)

    def _notify_subscribers(self, executed: Sequence[Executed]) -> CheckpointRecord:
        record = self._chain.find_checkpoint(self._chain.status.sequence)
        assert record is not None, "the last checkpoint is never pruned"
        for callback in tuple(self._subscribers):
            callback(record, tuple(executed))
        return record

    def _find_reflection(self, id: bytes) -> Reflection | None:
        found = self._reflections.get(id)
        if found is None:
            record = self._store.find_live(id)
            if record is None or record.package is None:
                return None
            found = self._reflections[id] = Reflection(record.package, self._package_data)
        return found

    def _package_data(self, id: bytes) -> MovePackageData | None:
        record = self._store.find_live(id)
        return None if record is None else record.package

    def _faucet_transaction(self, address: bytes, amounts: Sequence[int]) -> TransactionData:
        coins = self.objects_owned_by(self.faucet_address, GAS_COIN_TYPE, limit=1).items
        held = sum(int.from_bytes(coin.contents[32:40], "little") for coin in coins)
        if not amounts or min(amounts) <= 0 or len(address) != 32:
            raise TransactionRejected(
                "InvalidFaucetRequest", "the faucet sends positive amounts to an address of 32 bytes"
            )
        if sum(amounts) + FAUCET_BUDGET > held:
            raise TransactionRejected(
                "GasBalanceTooLow", f"the faucet has {held} MIST, {sum(amounts)} MIST and gas are needed"
            )
        price = self._chain.status.reference_gas_price
        inputs = (*(Pure(U64.encode(a)) for a in amounts), Pure(address))
        commands = (
            SplitCoins(GasCoin(), tuple(Input(at) for at in range(len(amounts)))),
            TransferObjects(tuple(NestedResult(0, at) for at in range(len(amounts))), Input(len(amounts))),
        )
        gas = GasData(tuple(coin.ref for coin in coins), self.faucet_address, price, FAUCET_BUDGET)
        return TransactionData(ProgrammableTransaction(inputs, commands), self.faucet_address, gas)
