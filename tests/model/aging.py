"""What an edit costs after many others, by turns of three: bytes of its frame, of memory, and work in the core.

As a program it builds the core so that it counts the basic blocks that it runs, and prints what each type costs.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from dtp.crdt import Replica

ROOT = Path(__file__).parents[2]
COUNTER = """
#include <stdint.h>
__attribute__((visibility("default"))) uint64_t dtp_work;
__attribute__((no_sanitize_coverage)) void __sanitizer_cov_trace_pc(void) { dtp_work++; }
"""
#: What was held at most, in keys and elements.
HELD = 10


def _type(replica: Replica, turn: int) -> None:
    text = replica.text("t")
    text.insert(turn * 7 % (len(text) + 1), "x")
    if len(text) > HELD:
        text.delete(turn * 11 % len(text), 1)


def _list(replica: Replica, turn: int) -> None:
    items = replica.list("l")
    items.append(turn % 100)
    if len(items) > HELD:
        del items[turn * 11 % len(items)]


def _move(replica: Replica, turn: int) -> None:
    items = replica.list("l")
    if not items:
        items.extend(range(HELD))
    items.move(turn * 7 % len(items), turn * 3 % len(items))
    items[turn * 5 % len(items)] = turn % 100


def _set(replica: Replica, turn: int) -> None:
    replica.set("s").add(turn % HELD)
    replica.set("s").discard((turn + 3) % HELD)


def _delete(replica: Replica, turn: int) -> None:
    replica.put("n/1", str(turn % HELD), turn)
    replica.delete("n/1", str((turn + 3) % HELD))


def _unmap(replica: Replica, turn: int) -> None:
    replica.map("m")[str(turn)] = turn  # keys that come and go
    if turn >= HELD:
        replica.map("m").pop(str(turn - HELD), None)


def _mark(replica: Replica, turn: int) -> None:
    text = replica.text("t")
    if not len(text):
        text.insert(0, "x" * 4 * HELD)
    start = turn * 7 % (3 * HELD)
    name = ("bold", "link", "comment:1")[turn % 3]
    if turn % 4 == 3:
        text.unmark(start, start + HELD, name)
    else:
        text.mark(start, start + HELD, name, turn % 100)


def _undo(replica: Replica, turn: int) -> None:
    text = replica.text("t")
    text.insert(turn * 7 % (len(text) + 1), "x")
    text.end_step()
    if turn % 2:
        text.undo()
    elif len(text) > HELD:
        text.delete(0, len(text) - HELD)


def _nest(replica: Replica, turn: int) -> None:
    from dtp.crdt.document import NestedMap

    document = NestedMap(replica, "d/1")
    document[str(turn % HELD)] = {"n": turn, "tags": [turn % 3]}
    document.pop(str((turn + 3) % HELD), None)


def _rule(replica: Replica, turn: int) -> None:
    from dtp.crdt.permission.rules import Rule, Rules, Schema

    rules = Rules("thing", [Rule(path="*", key="*", value=Schema(type="int", min=0))])
    replica.permits.rules[rules.root] = rules
    replica.put(rules.soul(f"t{turn % 3}"), str(turn % HELD), turn)


EDITS: dict[str, Callable[[Replica, int], None]] = {
    "registers": lambda replica, turn: replica.put("n/1", str(turn % HELD), turn),
    "deleted registers": _delete,
    "counter": lambda replica, turn: replica.counter("c").add(turn % 5 - 2),
    "set": _set,
    "links": lambda replica, turn: replica.node(f"n/{turn % 3}").link("to", f"n/{turn % HELD}"),
    "multi-value": lambda replica, turn: replica.multi_value("v").set(turn),
    "map": _unmap,
    "text": _type,
    "list": _list,
    "moves": _move,
    "marks": _mark,
    "undone": _undo,
    "documents": _nest,
    "ruled registers": _rule,
}


class Cost(NamedTuple):
    """Of each edit: bytes of its frame and work, in the first part and in the last; then bytes of a replica's memory,
    of its state, and of the sum of its own frames, of which nothing was let go."""

    first_bytes: float
    last_bytes: float
    first_work: float
    last_work: float
    memory: int
    state: int
    sum: int


def sum_size(author: bytes, frames: list[bytes]) -> int:
    """Return the bytes of the sum of an author's frames."""
    from dtp.crdt.sums.alone import Alone
    from dtp.crdt.sums.summing import Summing

    alone = Alone(author)
    for body in frames:
        alone.add_frame(body)
    size, summing = 0, Summing(alone, 0)
    for body in frames:
        if not summing.add_frame(body):
            size += len(summing.finish_frame())
            summing = Summing(alone, alone.core.check_frame(body)[0])
            assert summing.add_frame(body)
    return size + len(summing.finish_frame())


def age(kind: str, turns: int, work: Callable[[], int] = lambda: 0) -> Cost:
    """Let three replicas edit by turns, each taking what the others make at once."""
    from dtp.crdt import Clock, Replica

    three = [Replica(bytes([number]) * 32, clock=Clock(wall=lambda: 1.7e9)) for number in (1, 2, 3)]
    part = turns // 10
    sizes, marks, own = [0, 0], [], []
    for turn in range(turns):
        if turn in (part, 2 * part, turns - part):
            marks.append(work())
        one = three[turn % 3]
        EDITS[kind](one, turn)
        for author, body, *_ in one.commit():
            for other in three:
                if other is not one:
                    other.merge(author, body)
            if one is three[0]:
                own.append(body)
            if turn >= turns - part or part <= turn < 2 * part:
                sizes[turn >= turns - part] += len(body)
    marks.append(work())
    states = {one.save() for one in three}
    assert len(states) == 1, f"{kind}: the three differ"
    memory = three[0].core.memory_bytes + sum(
        each.memory for each in (three[0].text("t"), three[0].list("l"))
    )
    each = sizes[0] / part, sizes[1] / part, (marks[1] - marks[0]) / part, (marks[3] - marks[2]) / part
    return Cost(*each, memory, len(states.pop()), sum_size(three[0].author, own))


def build(folder: Path) -> Path:
    """Build the core so that it counts the basic blocks that it runs; the extension's path."""
    spec = importlib.util.spec_from_file_location("dtp_core_build", ROOT / "dtp_core/build.py")
    assert spec
    assert spec.loader
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    made.ffi.emit_c_code(str(folder / "core.c"))
    (folder / "counter.c").write_text(COUNTER)
    extension = folder / f"_dtp_core{sysconfig.get_config_var('EXT_SUFFIX')}"
    sources = [str(ROOT / source) for source in made.SOURCES]
    flags = ["-std=gnu11", "-O1", "-w", "-fPIC", "-shared", "-fsanitize-coverage=trace-pc"]
    include = [f"-I{ROOT / 'dtp_core'}", f"-I{sysconfig.get_paths()['include']}"]
    command = [
        "gcc",
        *flags,
        *include,
        "-o",
        str(extension),
        str(folder / "core.c"),
        str(folder / "counter.c"),
    ]
    subprocess.run([*command, *sources, "-ldl"], check=True)
    return extension


def main(turns: int, kinds: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = build(Path(folder))
        name = "dtp.core._dtp_core"
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec
        assert spec.loader
        sys.modules[name] = counted = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(counted)
        counter = ctypes.c_uint64.in_dll(ctypes.CDLL(os.fspath(path)), "dtp_work")
        for kind in kinds or EDITS:
            print(json.dumps([kind, *age(kind, turns, lambda: counter.value)]), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
