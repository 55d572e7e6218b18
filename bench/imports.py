"""How long `import dtp` takes in a fresh interpreter, and what it drags along."""

from __future__ import annotations

import json
import subprocess
import sys

from bench.runner import ROOT

#: What is timed, by row. The second is what a program that connects and listens loads in the end.
ROWS = {
    "import dtp": "import dtp",
    "import dtp; dtp.connect, dtp.listen": "import dtp; dtp.connect; dtp.listen; dtp.Identity",
    "import asyncio": "import asyncio",
    "import asyncio, ssl": "import asyncio, ssl",
}

#: Modules that have no business in a program that only opens sockets.
FOREIGN: tuple[str, ...] = (
    "dtp.chain",
    "dtp.sui",
    "dtp.pay",
    "dtp.crdt",
    "dtp.gossip",
    "dtp.graph",
    "dtp.daemon",
    "dtp.localnet",
)
FOREIGN += ("websockets", "libp2p", "trio", "aiohttp", "httpx", "rich", "click", "wasmtime")

_PROGRAM = """
import sys, time
before = set(sys.modules)
started = time.perf_counter()
{statement}
took = time.perf_counter() - started
import json
print(json.dumps([took * 1000, sorted(set(sys.modules) - before)]))
"""


def measure(row: str) -> tuple[float, list[str], int]:
    """Milliseconds, the foreign modules that came along, and how many modules came in all."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", _PROGRAM.format(statement=ROWS[row])],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    took, modules = json.loads(done.stdout)
    foreign = [m for m in modules if any(m == name or m.startswith(name + ".") for name in FOREIGN)]
    return took, foreign, len(modules)
