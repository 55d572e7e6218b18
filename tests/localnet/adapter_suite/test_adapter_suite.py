"""Sui's adapter suite on the embedded node: every difference from the genuine results is known, with a reason.

    SUI_SOURCE=/path/to/sui pytest -n 0 -m long tests/localnet/adapter_suite

It needs a checkout of Sui, `node`, and the packages of `move/` (`npm ci` there). A test whose files are not those
that `known.json` was written for is played and counted, but decides nothing.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from run_suite import KNOWN, Outcome, count, read_known, run, same_files
from suite_files import FOLDER, names_of_tests
from suite_sources import ROOT

pytestmark = pytest.mark.long


def _source() -> Path:
    given = os.environ.get("SUI_SOURCE")
    if given is None:
        pytest.skip("SUI_SOURCE does not name a checkout of Sui")
    source = Path(given)
    for folder in (FOLDER, Path("crates/sui-framework/packages")):
        if not (source / folder).is_dir():
            pytest.skip(f"{source / folder} is missing")
    if shutil.which("node") is None:
        pytest.skip("the program node is missing")
    if not (ROOT / "move" / "node_modules" / "@zktx.io").is_dir():
        pytest.skip("@zktx.io/sui-move-builder is missing: 'npm ci' in move/")
    return source


def _differing(outcomes: list[Outcome]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for o in outcomes:
        if o.differs:
            found.setdefault(o.test, {})[str(o.task)] = ", ".join(o.differs)
    return found


def test_differences_are_those_that_are_known(capsys: pytest.CaptureFixture[str]) -> None:
    source = _source()
    outcomes = run(source, names_of_tests(source))
    known = read_known()
    judged = same_files(source, known)
    with capsys.disabled():
        print(f"\n{len(outcomes)} results, {len(judged)} tests of {KNOWN.name} are these very files")
        for what, number in count(outcomes).most_common():
            print(f"{number:6} {what}")
    found = _differing(outcomes)
    assert judged, "no test is one that known.json was written for"
    assert {name: found.get(name, {}) for name in judged} == {
        name: {task: entry["differs"] for task, entry in known["tests"][name]["tasks"].items()}
        for name in judged
    }


def test_every_known_difference_has_a_reason() -> None:
    known = read_known()
    missing = [
        (name, task)
        for name, test in known["tests"].items()
        for task, entry in test["tasks"].items()
        if entry["reason"] not in known["reasons"]
    ]
    assert missing == []
