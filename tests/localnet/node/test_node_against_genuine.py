"""The same transactions on the genuine Move machine, from the wheel `sui-sandbox`: what it reads, what comes out.

The wheel reads our BCS with Sui's own types. Its runner of commands is not the chain's: it checks no unused values,
reports no deletions and counts what died as created. Compared are success, abort code, place and command, objects
created and contents changed.
"""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from node_world import Tx, World
from playground import Play

from dtp.localnet.node import LocalNode
from dtp.sui.effects import IdOperation, OutObject
from dtp.sui.objects import AddressOwner, SharedOwner
from dtp.sui.transaction import Argument, GasCoin, OwnedInput, ProgrammableTransaction, SharedInput

sui_sandbox = pytest.importorskip("sui_sandbox", reason="the genuine machine is the wheel sui-sandbox")

_ABORT = re.compile(r"major_status: ABORTED, sub_status: Some\((\d+)\)")
_OFFSET = re.compile(r"offsets: \[\(FunctionDefinitionIndex\((\d+)\), (\d+)\)")


def state_of(play: Play, tx: Tx) -> dict[str, Any]:
    """What the wheel needs: the transaction as it reads it from BCS, objects, the package."""
    data = play.world.data(tx, play.alice)
    assert isinstance(data.kind, ProgrammableTransaction)
    objects = {}
    for arg in data.kind.inputs:
        if not isinstance(arg, OwnedInput | SharedInput):
            continue
        record = play.record(arg.ref.id if isinstance(arg, OwnedInput) else arg.id)
        owner: Any = "Immutable"
        if isinstance(record.owner, AddressOwner):
            owner = {"AddressOwner": f"0x{record.owner.address.hex()}"}
        elif isinstance(record.owner, SharedOwner):
            owner = {"Shared": {"initial_shared_version": record.owner.initial_shared_version}}
        objects[f"0x{record.id.hex()}"] = {
            "id": f"0x{record.id.hex()}",
            "version": record.version,
            "type_tag": str(record.type),
            "bcs_base64": base64.b64encode(record.contents).decode(),
            "owner": owner,
            "is_shared": isinstance(record.owner, SharedOwner),
        }
    package = play.record(play.package).package
    assert package is not None
    id = f"0x{package.id.hex()}"
    shown = {
        "id": id,
        "original_id": id,
        "version": package.version,
        "modules": {n: base64.b64encode(code).decode() for n, code in package.modules.items()},
        "linkage": {f"0x{k.hex()}": f"0x{v.upgraded_id.hex()}" for k, v in package.linkage.items()},
    }
    transaction = sui_sandbox.deserialize_transaction(data.encode())
    return {"transaction": transaction, "objects": objects, "packages": {id: shown}}


def compare(play: Play, tx: Tx, folder: Path, *, exact: bool = True) -> bool:
    """Run on both; they must agree. Returns whether it succeeded. `exact`: nothing new is used up again."""
    file = folder / "state.json"
    file.write_text(json.dumps(state_of(play, tx)))
    theirs = sui_sandbox.replay(state_file=str(file), vm_only=True, allow_fallback=False, no_prefetch=True)[
        "effects"
    ]
    ours = play.world.node.simulate(play.world.data(tx, play.alice))
    error = ours.effects.error
    assert theirs["success"] is (error is None), (theirs["error"], error)
    if error is not None:
        assert theirs["failed_command_index"] == error.command
        location = error.content.get("location")
        if error.kind == "MoveAbort":
            found = _ABORT.search(theirs["error"])
            assert found is not None, theirs["error"]
            assert int(found[1]) == error.content["code"]
        if location is not None and location.package == play.package:
            place = _OFFSET.search(theirs["error"])
            assert place is not None, theirs["error"]
            assert (int(place[1]), int(place[2])) == (location.function, location.instruction)
        return False
    created = [
        id
        for id, c in ours.effects.changed
        if c.id_operation is IdOperation.CREATED and isinstance(c.after, OutObject)
    ]
    if exact:
        assert len(theirs["created"]) == len(created)
    before = {r.id: r.contents for r in ours.executed.inputs}
    gas = {ref.id for ref in ours.data.gas_data.payment}
    changed = {r.id for r in ours.executed.outputs if r.id in before and before[r.id] != r.contents} - gas
    named = {bytes.fromhex(text[2:].zfill(64)) for text in (*theirs["mutated"], *theirs["transferred"])}
    assert changed <= named | set(created)
    return True


@pytest.fixture(scope="module")
def shared_play() -> Play:
    """One node for all: simulation keeps nothing."""
    return Play.begin(World(LocalNode.open(now=None)))


NAMES = (
    *("new", "set", "swap", "field", "unfield", "keep", "divide", "burn"),
    *("wrap", "unwrap", "bump", "grow", "split", "shout", "fail", "hidden"),
)
STEPS = st.tuples(st.sampled_from(NAMES), st.integers(0, 5), st.integers(0, 5))


@given(steps=st.lists(STEPS, min_size=1, max_size=8))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_programs_come_to_the_same(
    shared_play: Play, tmp_path: Path, steps: list[tuple[str, int, int]]
) -> None:
    play = shared_play
    if not _STOCK:
        _STOCK.extend((play.thing(1), play.thing(2), play.shared()))
    tx = play.tx()
    things: list[Argument] = [tx.object(_STOCK[0]), tx.object(_STOCK[1])]
    made: list[Argument] = []
    boxes: list[Argument] = []
    counter = tx.object(_STOCK[2])
    for name, a, b in steps:
        every = things + made
        if not every:
            break
        one, two = every[a % len(every)], every[b % len(every)]
        if name == "new":
            made.append(play.call(tx, "new", tx.u64(a)))
        elif name == "set":
            play.call(tx, "set", one, tx.u64(b))
        elif name == "swap" and one != two:
            play.call(tx, "swap", one, two)
        elif name == "field":
            play.call(tx, "add_field", one, tx.u64(b), tx.u64(a))
        elif name == "unfield":
            play.call(tx, "drop_field", one, tx.u64(b))
        elif name == "keep":
            play.call(tx, "keep", tx.u64(a))
        elif name == "divide":
            play.call(tx, "divide", tx.u64(a), tx.u64(b))
        elif name == "burn" and made:
            play.call(tx, "burn", made.pop(a % len(made)))
        elif name == "wrap" and made:
            boxes.append(play.call(tx, "wrap", made.pop(a % len(made))))
        elif name == "unwrap" and boxes:
            made.append(play.call(tx, "unwrap", boxes.pop()))
        elif name == "bump":
            play.call(tx, "bump", counter)
        elif name == "grow":
            play.call(tx, "grow", tx.u64(a))
        elif name == "split":
            tx.send(play.alice.address, *tx.split(GasCoin(), a, b))
        elif name == "shout":
            play.call(tx, "shout", tx.u64(a))
        elif name in ("fail", "hidden") and a == 0:
            play.call(tx, name)
    for rest in (*made, *boxes):
        tx.send(play.alice.address, rest)
    if tx.commands:
        exact = not {"burn", "wrap", "unwrap"} & {name for name, _, _ in steps}
        compare(play, tx, tmp_path, exact=exact)


_STOCK: list[bytes] = []


@pytest.mark.parametrize(
    ("name", "numbers", "ok"),
    [
        ("keep", (4,), True),
        ("pair", (), True),
        ("fail", (), False),
        ("divide", (7, 2), True),
        ("divide", (7, 0), False),
        ("hidden", (), False),
        ("friendly", (), False),
        ("only_entry", (1,), False),
        ("burn_gas", (50,), True),
        ("bind_to_sender", (), True),
        ("start", (), True),
        ("missing", (), False),
    ],
)
def test_single_calls(
    shared_play: Play, tmp_path: Path, name: str, numbers: tuple[int, ...], ok: bool
) -> None:
    tx = shared_play.tx()
    shared_play.call(tx, name, *(tx.u64(n) for n in numbers))
    assert compare(shared_play, tx, tmp_path) is ok


def test_fields_that_are_there_twice_or_not(shared_play: Play, tmp_path: Path) -> None:
    thing = shared_play.thing(1)
    tx = shared_play.tx()
    for _ in range(2):
        shared_play.call(tx, "add_field", tx.object(thing), tx.u64(1), tx.u64(1))
    assert not compare(shared_play, tx, tmp_path)
    tx = shared_play.tx()
    shared_play.call(tx, "read_field", tx.object(thing), tx.u64(1))
    assert not compare(shared_play, tx, tmp_path)
