"""One contender's measurement in a process of its own: `python -m bench.graph.side NAME NODES UPDATES` gives JSON."""

from __future__ import annotations

import ctypes
import gc
import json
import resource
import sys

from bench.graph.contenders import CONTENDERS, Contender, timed
from bench.graph.work import Work

#: Single messages are measured on so many, as some need a millisecond each.
_SINGLE = 20_000


def _resident() -> int:
    """Bytes of memory in use."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def _held(kind: type[Contender], work: Work) -> int:
    """Bytes that a replica with the initial nodes takes."""
    trim = ctypes.CDLL(None).malloc_trim
    kind(1).load_initial(Work(10, 1))  # loads the library
    gc.collect()
    trim(0)
    before = _resident()
    one = kind(2)
    one.load_initial(work)
    gc.collect()
    trim(0)
    held = _resident() - before
    one.get("node/0", "age")
    return held


def main(name: str, nodes: int, updates: int) -> None:
    kind, work = CONTENDERS[name], Work(nodes, updates)
    held = _held(kind, work)  # first of all, so that nothing that was freed before is used again
    maker = kind(1)
    maker.load_initial(work)
    frames = maker.made(work.remote, 1000)
    singles = maker.made(work.remote[:_SINGLE], 1)
    del maker
    one = kind(2)
    one.load_initial(work)
    found: dict[str, float] = {
        "local single /s": len(work.own) / timed(one.put, work.own),
        "bytes/update in 1000s": sum(map(len, frames)) / updates,
        "bytes/update alone": sum(map(len, singles)) / len(singles),
        "memory/property": held / (4 * nodes),
        "merge 1000s /s": updates / timed(one.merge, frames),
        "merge singles /s": len(singles) / timed(one.merge, singles),
        "local batch /s": updates / timed(one.put_batch, work.remote),
    }
    states: list[bytes] = []
    found["save ms"] = 1000 * timed(lambda: states.append(one.save()))
    other = kind(3)
    found["load ms"] = 1000 * timed(other.load, states[0])
    found["size MB"] = len(states[0]) / 1e6
    soul, key, value = work.remote[-1]
    if other.get(soul, key) != value:
        raise SystemExit(f"{name} lost a write")
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
