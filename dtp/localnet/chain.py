"""Checkpoint by checkpoint: runs transactions in order, writes what they do, seals it. The one writer of the store.

`Chain` owns the store, the engine and the running numbers (`Status`). A checkpoint is one block of `open_checkpoint`:
every outcome applied within it is in the store at its end, or nothing is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from typing import Any, Final

from dtp.localnet.engine import ChainState, MoveEngine, TransactionOutcome
from dtp.localnet.limits import DEFAULT_REFERENCE_GAS_PRICE, PROTOCOL_VERSION
from dtp.localnet.model import (
    BalanceChange,
    CheckpointRecord,
    EpochRecord,
    EventRecord,
    Executed,
    ObjectRecord,
    TransactionRecord,
)
from dtp.localnet.packages import PackageCatalog
from dtp.localnet.store import ChainStore, Removed, StoredTransaction
from dtp.localnet.system import CLOCK, RANDOM, SYSTEM_STATE, end_epoch, genesis, randomness, set_clock
from dtp.localnet.views.render import to_json
from dtp.localnet.vm import ExecutionFailure
from dtp.sui.bcs import BYTES, vector
from dtp.sui.effects import (
    CHECKPOINT_CONTENTS,
    CHECKPOINT_SUMMARY,
    TRANSACTION_EVENTS,
    CheckpointContents,
    CheckpointSummary,
    EndOfEpoch,
    ExecutionDigests,
    GasCost,
    InExisting,
    MoveEvent,
    OutAbsent,
    OutPackage,
    TransactionEffects,
    effects_digest,
)
from dtp.sui.names import TypeTag, parse_type
from dtp.sui.objects import ConsensusAddressOwner, SharedOwner
from dtp.sui.transaction import TransactionData

__all__ = ["Chain", "ChainStatus"]

_SIGNATURES: Final = vector(BYTES)
# The committee that a checkpoint at the end of an epoch names: one validator with all the weight.
_COMMITTEE: Final = ((bytes(96), 10_000),)


@dataclass(frozen=True)
class ChainStatus:
    """The chain's running numbers. `sequence` and `digest` are of the last checkpoint."""

    seed: str
    chain: str
    epoch: int
    epoch_start_ms: int
    reference_gas_price: int
    clock_ms: int
    offset_ms: int
    sequence: int
    digest: str
    transactions: int
    random_round: int
    lowest: int
    rolling: tuple[int, int, int, int]
    totals: tuple[int, int, int]

    @property
    def state(self) -> ChainState:
        """What transactions see of it."""
        return ChainState(self.epoch, self.epoch_start_ms, self.reference_gas_price)


class CheckpointSealing:
    """The checkpoint being made."""

    def __init__(self) -> None:
        self.executed: list[Executed] = []
        self.cost = GasCost()
        self.next_epoch: EpochRecord | None = None


class Chain:
    """A chain on a store. A fresh store gets its genesis, with all SUI in `account`'s hands."""

    def __init__(self, store: ChainStore, account: bytes, seed: bytes, genesis_time_ms: int) -> None:
        self.store = store
        self.engine = MoveEngine(store.find_live)
        if store.fresh:
            self._write_genesis(account, seed, genesis_time_ms)
        else:
            saved: dict[str, Any] = store.read_state()
            self.status = ChainStatus(
                **{**saved, "rolling": tuple(saved["rolling"]), "totals": tuple(saved["totals"])}
            )

    def _write_genesis(self, account: bytes, seed: bytes, time_ms: int) -> None:
        self.status = ChainStatus(
            seed.hex(),
            "",
            0,
            time_ms,
            DEFAULT_REFERENCE_GAS_PRICE,
            0,
            0,
            -1,
            "",
            0,
            -1,
            0,
            (0,) * 4,
            (0,) * 3,
        )
        with self.open_checkpoint(time_ms) as sealing:
            self.apply_outcome(sealing, genesis(self.engine, self.status.state, account, seed), ())
            self._put_epoch(EpochRecord(0, 0, None, time_ms, None, 1000, PROTOCOL_VERSION))

    # --------------------------------------------------------------------------------------- checkpoints

    @contextmanager
    def open_checkpoint(self, time_ms: int, end: EndOfEpoch | None = None) -> Iterator[CheckpointSealing]:
        """Open a checkpoint for the block: outcomes are applied within, and it is sealed and stored at the end."""
        sealing = CheckpointSealing()
        before = self.status
        try:
            with self.store.write_checkpoint():
                yield sealing
                self._seal_checkpoint(sealing, time_ms, end)
                if sealing.next_epoch is not None:
                    self._enter_epoch(sealing.next_epoch)
                self.store.put_state(asdict(self.status))
        except BaseException:
            self.status = before
            self.engine.discard_packages()
            raise
        self.engine.keep_packages()

    def _seal_checkpoint(self, sealing: CheckpointSealing, time_ms: int, end: EndOfEpoch | None) -> None:
        status = self.status
        records = [executed.transaction for executed in sealing.executed]
        contents = CheckpointContents(
            tuple(ExecutionDigests(r.digest, r.effects_digest) for r in records),
            tuple(r.signatures for r in records),
        )
        rolling = GasCost(*status.rolling) + sealing.cost
        summary = CheckpointSummary(
            status.epoch,
            status.sequence + 1,
            status.transactions + len(records),
            contents.digest(),
            bytes.fromhex(status.digest) or None,
            rolling,
            time_ms,
            end_of_epoch=end,
        )
        digest = summary.digest()
        self.store.put_checkpoint(summary.sequence_number, digest, summary.encode(), contents.encode())
        storage, computation, fees = status.totals
        cost = sealing.cost
        storage += cost.storage - cost.storage_rebate - cost.non_refundable
        self.status = replace(
            status,
            chain=status.chain or digest.hex(),
            sequence=summary.sequence_number,
            digest=digest.hex(),
            transactions=summary.network_total_transactions,
            rolling=(rolling.computation, rolling.storage, rolling.storage_rebate, rolling.non_refundable),
            totals=(storage, computation + cost.computation, fees + cost.non_refundable),
        )

    def _enter_epoch(self, epoch: EpochRecord) -> None:
        self.status = replace(
            self.status,
            epoch=epoch.epoch,
            epoch_start_ms=epoch.start_ms,
            reference_gas_price=epoch.reference_gas_price,
            rolling=(0, 0, 0, 0),
            random_round=-1,
        )

    def apply_outcome(
        self, sealing: CheckpointSealing, outcome: TransactionOutcome, signatures: Sequence[bytes]
    ) -> Executed:
        """Write what a transaction does into the checkpoint being made."""
        checkpoint = self.status.sequence + 1
        number = self.status.transactions + len(sealing.executed)
        effects = outcome.effects
        outputs = tuple(outcome.outputs.values())
        self.store.put_objects(outputs, checkpoint)
        self.store.remove_objects(_removed(outcome), checkpoint)
        for record in outputs:
            if record.package is not None:
                original = PackageCatalog.original_id(record.package)
                self.store.put_package(original, record.version, record.id)
        executed = self.make_record(outcome, signatures, checkpoint, self.status.clock_ms, store=True)
        transaction = executed.transaction
        self.store.put_transaction(
            StoredTransaction(
                transaction.digest,
                number,
                checkpoint,
                self.status.clock_ms,
                transaction.data_bcs,
                _SIGNATURES.encode(tuple(signatures)),
                transaction.effects_bcs,
                transaction.effects_digest,
                transaction.events_bcs,
                b"".join(r.id + r.version.to_bytes(8, "big") for r in executed.inputs),
                json.dumps(
                    [[c.address.hex(), str(c.coin_type), c.amount] for c in transaction.balance_changes]
                ),
            )
        )
        sealing.executed.append(executed)
        sealing.cost += effects.gas_used
        return executed

    # ------------------------------------------------------------------------------ system transactions

    def advance_clock(self, sealing: CheckpointSealing, time_ms: int) -> None:
        """Move the clock to `time_ms` if that is later."""
        if time_ms <= self.status.clock_ms:
            return
        clock = self.store.find_live(CLOCK)
        assert clock is not None, "genesis made the clock"
        self.status = replace(self.status, clock_ms=time_ms)
        outcome = set_clock(self.engine, self.status.state, clock, self.status.sequence + 1, time_ms)
        self.apply_outcome(sealing, outcome, ())

    def new_randomness(self, sealing: CheckpointSealing) -> None:
        """Give 0x8 new bytes. They follow from the seed and the chain so far: runs repeat, anyone can foresee it."""
        random = self.store.find_live(RANDOM)
        assert random is not None, "genesis made the randomness object"
        status = replace(self.status, random_round=self.status.random_round + 1)
        self.status = status
        source = bytes.fromhex(status.seed) + bytes.fromhex(status.digest)
        fresh = blake2b(b"dtp.localnet.random" + source, digest_size=32).digest()
        outcome = randomness(self.engine, status.state, random, status.random_round, fresh)
        self.apply_outcome(sealing, outcome, ())

    def next_epoch(self, time_ms: int, reference_gas_price: int | None) -> list[Executed]:
        """End the epoch in a checkpoint of its own."""
        end = EndOfEpoch(_COMMITTEE, PROTOCOL_VERSION)
        old = self.find_epoch(self.status.epoch)
        assert old is not None, "every epoch is noted when it begins"
        price = self.status.reference_gas_price if reference_gas_price is None else reference_gas_price
        with self.open_checkpoint(time_ms, end) as sealing:
            self.advance_clock(sealing, time_ms)
            state = self.store.find_live(SYSTEM_STATE)
            assert state is not None, "genesis made the system state"
            spent = GasCost(*self.status.rolling)
            self.apply_outcome(sealing, end_epoch(self.engine, self.status.state, state, spent, time_ms), ())
            last = self.status.sequence + 1
            self._put_epoch(replace(old, last_checkpoint=last, end_ms=time_ms))
            fresh = EpochRecord(old.epoch + 1, last + 1, None, time_ms, None, price, old.protocol_version)
            self._put_epoch(fresh)
            sealing.next_epoch = fresh
        return sealing.executed

    def _put_epoch(self, record: EpochRecord) -> None:
        self.store.put_epoch(record.epoch, asdict(record))

    def prune(self, keep: int) -> int:
        """Forget what checkpoints before the last `keep` hold; returns the lowest that is whole."""
        first = max(self.status.lowest, self.status.sequence + 1 - max(1, keep))
        with self.store.write_checkpoint():
            self.store.prune(first)
            self.status = replace(self.status, lowest=first)
            self.store.put_state(asdict(self.status))
        return first

    # ------------------------------------------------------------------------------------------- records

    def render_json(self, tag: TypeTag, contents: bytes) -> Any:
        """Return a Move value as JSON, None if its type is not known or the bytes don't fit."""
        try:
            type = self.engine.vm.parse_type(tag.text)
            return to_json(type, self.engine.vm.decode_value(type, contents))
        except ExecutionFailure:
            return None

    def make_record(
        self,
        outcome: TransactionOutcome,
        signatures: Sequence[bytes],
        checkpoint: int | None,
        time_ms: int,
        *,
        store: bool = False,
    ) -> Executed:
        """Return an outcome as it is handed out; with `store` its events are written."""
        data = outcome.admitted.data
        events = tuple(
            self._record_event(outcome.admitted.digest, index, event, checkpoint, time_ms, store)
            for index, event in enumerate(outcome.events)
        )
        record = TransactionRecord(
            outcome.admitted.digest,
            data,
            data.encode(),
            tuple(signatures),
            outcome.effects,
            outcome.effects_bcs,
            effects_digest(outcome.effects_bcs),
            events,
            outcome.events_bcs,
            outcome.balance_changes,
            checkpoint,
            time_ms,
        )
        return Executed(record, tuple(outcome.before.values()), tuple(outcome.outputs.values()))

    def _record_event(
        self, digest: bytes, index: int, event: MoveEvent, checkpoint: int | None, time_ms: int, store: bool
    ) -> EventRecord:
        tag = event.type
        number = 0
        if store:
            base = f"0x{tag.address.hex()}::{tag.module}::{tag.name}"
            number = self.store.put_event(
                (
                    digest,
                    index,
                    checkpoint,
                    time_ms,
                    event.package,
                    event.module,
                    event.sender,
                    tag.text,
                    base,
                    tag.address,
                    tag.module,
                    event.contents,
                )
            )
        return EventRecord(
            digest,
            index,
            checkpoint,
            time_ms,
            event.package,
            event.module,
            event.sender,
            tag,
            event.contents,
            number,
            self.render_json,
        )

    def find_transaction(self, digest: bytes) -> TransactionRecord | None:
        """Return an executed transaction from the store."""
        row = self.store.find_transaction(digest)
        if row is None:
            return None
        numbers = dict(
            self.store.select_rows("SELECT position, number FROM events WHERE digest = ?", (digest,))
        )
        events = tuple(
            replace(
                self._record_event(digest, at, event, row.checkpoint, row.timestamp, False),
                number=numbers.get(at, 0),
            )
            for at, event in enumerate(TRANSACTION_EVENTS.decode(row.events))
        )
        return TransactionRecord(
            digest,
            TransactionData.decode(row.data),
            row.data,
            _SIGNATURES.decode(row.signatures),
            TransactionEffects.decode(row.effects),
            row.effects,
            row.effects_digest,
            events,
            row.events,
            tuple(
                BalanceChange(bytes.fromhex(address), parse_type(tag), amount)
                for address, tag, amount in json.loads(row.balances)
            ),
            row.checkpoint,
            row.timestamp,
        )

    def find_executed(self, digest: bytes) -> Executed | None:
        """Return an executed transaction with its objects, as far as they are not pruned."""
        record = self.find_transaction(digest)
        row = self.store.find_transaction(digest)
        if record is None or row is None:
            return None
        reads = [row.reads[at : at + 40] for at in range(0, len(row.reads), 40)]
        inputs = [self.store.find_version(r[:32], int.from_bytes(r[32:], "big")) for r in reads]
        outputs: list[ObjectRecord | None] = []
        for id, change in record.effects.changed:
            if isinstance(change.after, OutPackage):
                outputs.append(self.store.find_version(id, change.after.version))
            elif not isinstance(change.after, OutAbsent):
                outputs.append(self.store.find_version(id, record.effects.lamport_version))
        return Executed(
            record, tuple(o for o in inputs if o is not None), tuple(o for o in outputs if o is not None)
        )

    def find_checkpoint(self, which: int | bytes) -> CheckpointRecord | None:
        """Return a checkpoint by number or digest, None if unknown or pruned."""
        column = "sequence" if isinstance(which, int) else "digest"
        rows = self.store.select_rows(
            f"SELECT sequence, digest, summary, contents FROM checkpoints WHERE {column} = ?", (which,)
        )
        if not rows or not rows[0][3]:
            return None
        sequence, digest, summary, contents = rows[0]
        return CheckpointRecord(
            sequence, digest, CHECKPOINT_SUMMARY.decode(summary), CHECKPOINT_CONTENTS.decode(contents)
        )

    def find_epoch(self, number: int) -> EpochRecord | None:
        """Return an epoch, None if it has not begun."""
        rows = self.store.select_rows("SELECT json FROM epochs WHERE epoch = ?", (number,))
        return EpochRecord(**json.loads(rows[0][0])) if rows else None


def _removed(outcome: TransactionOutcome) -> list[tuple[bytes, Removed]]:
    effects = outcome.effects
    gone = []
    for id, change in effects.changed:
        if isinstance(change.after, OutAbsent) and isinstance(change.before, InExisting):
            shared = isinstance(change.before.owner, SharedOwner | ConsensusAddressOwner)
            gone.append((id, Removed(effects.lamport_version, bool(change.id_operation), shared)))
    return gone
