"""System transactions: genesis, the clock, randomness, the end of an epoch. They pay nothing and can't fail."""

from __future__ import annotations

from dataclasses import replace
from hashlib import blake2b
from typing import Final

from dtp.localnet.denials import DENY_LIST
from dtp.localnet.engine import Admitted, ChainState, MoveEngine, Run, TransactionOutcome
from dtp.localnet.framework import SUI, system_packages
from dtp.localnet.limits import PROTOCOL_VERSION
from dtp.localnet.model import ObjectRecord
from dtp.localnet.outcome import InputObject, Writes, collect
from dtp.localnet.packages import package_data
from dtp.localnet.vm import ArgumentSlot
from dtp.sui.effects import GasCost
from dtp.sui.names import parse_type
from dtp.sui.objects import (
    GAS_COIN_TYPE,
    OBJECT_DATA,
    AddressOwner,
    Immutable,
    MoveObject,
    SharedOwner,
    fresh_object_id,
)
from dtp.sui.transaction import (
    ChangeEpoch,
    ConsensusCommitPrologue,
    GasData,
    Genesis,
    GenesisObject,
    NoExpiration,
    ObjectRef,
    RandomnessStateUpdate,
    TransactionData,
    TransactionKind,
)

__all__ = [
    "CLOCK",
    "RANDOM",
    "SYSTEM_STATE",
    "TOTAL_SUPPLY",
    "end_epoch",
    "genesis",
    "randomness",
    "set_clock",
]

SYSTEM_STATE: Final = (5).to_bytes(32, "big")
CLOCK: Final = (6).to_bytes(32, "big")
RANDOM: Final = (8).to_bytes(32, "big")
TOTAL_SUPPLY: Final = 10_000_000_000 * 10**9
"""MIST that exist, all of it in the genesis account's coin at first."""

_ZERO: Final = bytes(32)
_SYSTEM_STATE_TYPE: Final = parse_type("0x3::sui_system::SuiSystemState")


def system_transaction(kind: TransactionKind) -> TransactionData:
    """Return a transaction of the system: sender 0x0, no gas, the form validators give it."""
    gas = GasData((ObjectRef(_ZERO, 0, _ZERO),), _ZERO, 1, 0)
    return TransactionData(kind, _ZERO, gas, NoExpiration())


def genesis(engine: MoveEngine, state: ChainState, account: bytes, seed: bytes) -> TransactionOutcome:
    """Return the first transaction: framework, clock, randomness, system state, and all SUI for `account`.

    `seed` goes into the ids of the first objects, and so into the identifier of the chain.
    """
    salt = blake2b(b"dtp.localnet.genesis" + seed, digest_size=32).digest()
    placeholder = Admitted(system_transaction(Genesis(())), salt)

    writes = _first_objects(engine, engine.system_run(placeholder, state), account)
    objects = [GenesisObject(OBJECT_DATA.encode(p), Immutable()) for p in writes.packages.values()]
    objects += [GenesisObject(OBJECT_DATA.encode(data), owner) for data, owner in writes.objects.values()]
    data = system_transaction(Genesis(tuple(objects)))
    final = engine.system_run(Admitted(data, data.digest()), state)
    return final.make_outcome(writes, None, GasCost(), 1, None, True)


def _first_objects(engine: MoveEngine, run: Run, account: bytes) -> Writes:
    for package in system_packages():
        engine.packages.add_package(package)
    run.session.call_function(SUI, "clock", "create", (), ())
    run.runtime.new_id(RANDOM)  # its id is given, not made by `object::new`
    run.session.call_function(SUI, "random", "create", (), ())
    run.runtime.new_id(DENY_LIST)
    run.session.call_function(SUI, "deny_list", "create", (), ())
    writes = collect(engine.vm, run.runtime.collect_effects(), (), {}, 1)
    for package in system_packages():
        writes.packages[package.storage_id] = package_data(package, lambda _: 1)
    coin = fresh_object_id(run.session.tx.digest, run.session.tx.ids_created)
    contents = coin + TOTAL_SUPPLY.to_bytes(8, "little")
    writes.objects[coin] = (MoveObject(GAS_COIN_TYPE, True, 1, contents), AddressOwner(account))
    contents = SYSTEM_STATE + (2).to_bytes(8, "little")
    writes.objects[SYSTEM_STATE] = (MoveObject(_SYSTEM_STATE_TYPE, False, 1, contents), SharedOwner(1))
    writes.created |= writes.objects.keys()
    return writes


def set_clock(
    engine: MoveEngine, state: ChainState, clock: ObjectRecord, round: int, now_ms: int
) -> TransactionOutcome:
    """Set 0x6 to `now_ms`: the first transaction of a checkpoint."""
    data = system_transaction(ConsensusCommitPrologue(state.epoch, round, now_ms))
    return _rewrite(engine, state, data, clock, CLOCK + now_ms.to_bytes(8, "little"))


def end_epoch(
    engine: MoveEngine, state: ChainState, system_state: ObjectRecord, spent: GasCost, now_ms: int
) -> TransactionOutcome:
    """Return the last transaction of an epoch. `spent` is what its transactions cost together."""
    kind = ChangeEpoch(
        state.epoch + 1,
        PROTOCOL_VERSION,
        spent.storage,
        spent.computation,
        spent.storage_rebate,
        spent.non_refundable,
        now_ms,
    )
    return _rewrite(engine, state, system_transaction(kind), system_state, system_state.contents)


def _rewrite(
    engine: MoveEngine, state: ChainState, data: TransactionData, record: ObjectRecord, contents: bytes
) -> TransactionOutcome:
    admitted = Admitted(data, data.digest(), [InputObject(record, True)])
    lamport = record.version + 1
    assert isinstance(record.value.data, MoveObject)
    changed = replace(record.value.data, version=lamport, contents=contents)
    writes = Writes({record.id: (changed, record.owner)})
    return engine.system_run(admitted, state).make_outcome(writes, None, GasCost(), lamport, None, True)


def randomness(
    engine: MoveEngine, state: ChainState, random: ObjectRecord, round: int, random_bytes: bytes
) -> TransactionOutcome:
    """Give 0x8 new bytes, by the framework's own function."""
    assert isinstance(random.owner, SharedOwner)
    version = random.owner.initial_shared_version
    kind = RandomnessStateUpdate(state.epoch, round, random_bytes, version)
    data = system_transaction(kind)
    admitted = Admitted(data, data.digest(), [InputObject(random, True)])
    run = engine.system_run(admitted, state)
    vm = engine.vm
    type = vm.parse_type(str(random.type))
    slots = [
        ArgumentSlot(type, vm.decode_value(type, random.contents)),
        ArgumentSlot(vm.parse_type("u64"), round),
        ArgumentSlot(vm.parse_type("vector<u8>"), bytearray(random_bytes)),
    ]
    run.session.call_function(SUI, "random", "update_randomness_state", (), slots)
    before = {random.id: random}
    run.before = {**before, **run.children.read}
    lamport = random.version + 1
    writes = collect(vm, run.runtime.collect_effects(), (), run.before, lamport)
    data_after = random.value.data
    assert isinstance(data_after, MoveObject)
    writes.objects[random.id] = (replace(data_after, version=lamport), random.owner)
    return run.make_outcome(writes, None, GasCost(), lamport, None, True)
