"""The rewriting of asserts, shared among the workers of a run.

Each worker imports all tests, and in a fresh checkout each would rewrite all of them: 15 s of processor time that
three workers spend on the same files side by side.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from _pytest.assertion.rewrite import (
    PYC_TAIL,
    _rewrite_test,
    _write_pyc,
    assertstate_key,
    get_cache_dir,
    try_makedirs,
)


def rewrite_part(config: pytest.Config, folder: Path) -> None:
    """Have this worker's part of the tests in `folder` rewritten and kept, where they aren't yet, before it imports
    them. What others haven't done by then it rewrites as usual."""
    worker = getattr(config, "workerinput", None)
    if worker is None or sys.dont_write_bytecode:
        return
    first, step = int(worker["workerid"].removeprefix("gw")), worker["workercount"]
    for path in sorted(folder.rglob("test_*.py"))[first::step]:
        place = get_cache_dir(path)
        kept = place / f"{path.stem}{PYC_TAIL}"
        if not kept.exists() and try_makedirs(place):
            source, code = _rewrite_test(path, config)
            _write_pyc(config.stash[assertstate_key], code, source, kept)
