"""Run Sui's adapter suite on the embedded node: `python run_suite.py SUI_FOLDER [--write] [name...]`.

It prints every difference and the counts. With `--write` it renews `known.json`, the list of known differences, each
with a reason by the rules of `suite_reasons`.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from hashlib import blake2b
from multiprocessing import Pool
from pathlib import Path
from tempfile import gettempdir
from typing import Any

from suite_files import SuiteTest, names_of_tests, read_test
from suite_format import older_format
from suite_play import Account, Player, account_names
from suite_reasons import REASONS, reason_of
from suite_results import Result, differences, parse_result
from suite_sources import Compiled, compile_tests

KNOWN = Path(__file__).with_name("known.json")


@dataclass
class Outcome:
    """How one task compares: what differs (nothing when it is the same), and both results."""

    test: str
    task: int
    command: str
    differs: list[str]
    genuine: Result
    ours: Result


def play_test(
    test: SuiteTest, compiled: dict[tuple[str, int], Compiled], older: bool = False
) -> list[Outcome]:
    """Return how every task of a test that has a genuine result compares."""
    player = Player(test, compiled, older=older)
    found = []
    try:
        for task in test.tasks[1:]:
            ours = player.play(task)
            # Checkpoints are numbered otherwise here: each transaction has one of its own.
            if task.number in test.results and task.command != "create-checkpoint":
                genuine = parse_result(test.results[task.number])
                found.append(
                    Outcome(test.name, task.number, task.command, differences(genuine, ours), genuine, ours)
                )
    finally:
        player.close()
    return found


def _play(work: tuple[SuiteTest, dict[tuple[str, int], Compiled], bool]) -> list[Outcome]:
    return play_test(*work)


#: A test whose only package, without an enum, says by what storing it costs in which format the suite's modules are.
PROBE = "call/simple"


def _older(compiled: dict[tuple[str, int], Compiled]) -> dict[tuple[str, int], Compiled]:
    return {key: replace(made, modules=[*map(older_format, made.modules)]) for key, made in compiled.items()}


def run(source: Path, names: Iterable[str]) -> list[Outcome]:
    """Return how all tasks of the named tests compare. Compiled packages are kept in `$SUI_SUITE_CACHE`.

    Modules are in the older format where Sui's compiler wrote that for the suite: such a suite is an older one.
    """
    names = list(names)
    tests = [read_test(source, name) for name in {PROBE: None, **dict.fromkeys(names)}]
    accounts = {t.name: {n: Account(n).address for n in account_names(t) if n} for t in tests}
    cache = Path(os.environ.get("SUI_SUITE_CACHE", Path(gettempdir()) / "dtp-adapter-suite"))
    compiled = compile_tests(tests, accounts, source / "crates/sui-framework/packages", cache)
    probe = {key: made for key, made in compiled.items() if key[0] == PROBE}
    first = next(test for test in tests if test.name == PROBE)
    older = bool(play_test(first, probe)[0].differs) and not play_test(first, _older(probe))[0].differs
    if older:
        compiled = _older(compiled)
    tests = [test for test in tests if test.name in set(names)]
    work = [(t, {key: made for key, made in compiled.items() if key[0] == t.name}, older) for t in tests]
    with Pool(2) as pool:
        return [outcome for found in pool.imap(_play, work, chunksize=4) for outcome in found]


def count(outcomes: Iterable[Outcome]) -> Counter[str]:
    """Return how many results are identical, and how many differ in what."""
    return Counter(", ".join(o.differs) or "identical" for o in outcomes)


def _digest(test: SuiteTest) -> str:
    return blake2b(test.text.encode(), digest_size=8).hexdigest()


def read_known() -> dict[str, Any]:
    """Return the known differences: `tests` by name, each with a digest of its files and its differing tasks."""
    known: dict[str, Any] = json.loads(KNOWN.read_text())
    return known


def same_files(source: Path, known: dict[str, Any]) -> set[str]:
    """Return the names of the tests whose files are those that `known` was written for."""
    tests = known["tests"]
    return {
        n for n in names_of_tests(source) if n in tests and _digest(read_test(source, n)) == tests[n]["files"]
    }


def write_known(source: Path, outcomes: list[Outcome]) -> int:
    """Write all differences with their reasons; return how many have none."""
    tests: dict[str, Any] = {
        name: {"files": _digest(read_test(source, name)), "tasks": {}} for name in names_of_tests(source)
    }
    missing = 0
    before: dict[str, list[Outcome]] = {}
    for o in outcomes:
        earlier = before.setdefault(o.test, [])
        if o.differs:
            reason = reason_of(o, earlier)
            missing += reason not in REASONS
            tests[o.test]["tasks"][str(o.task)] = {"differs": ", ".join(o.differs), "reason": reason}
            earlier.append(o)
    counts = dict(count(outcomes).most_common())
    known = {"counts": counts, "reasons": REASONS, "tests": tests}
    KNOWN.write_text(json.dumps(known, separators=(",", ":")).replace('},"', '},\n"') + "\n")
    return missing


def main() -> None:
    """Print each difference and the counts."""
    source, *words = sys.argv[1:]
    prefixes = tuple(word for word in words if word != "--write")
    names = [n for n in names_of_tests(Path(source)) if not prefixes or n.startswith(prefixes)]
    outcomes = run(Path(source), names)
    earlier: dict[str, list[Outcome]] = {}
    for o in outcomes:
        if o.differs:
            reason = reason_of(o, earlier.setdefault(o.test, []))
            earlier[o.test].append(o)
            print(
                f"{o.test} {o.task} {o.command}: {', '.join(o.differs)} [{reason}]\n  - {o.genuine}\n  + {o.ours}"
            )
    print(f"{len(names)} tests, {len(outcomes)} results")
    for what, number in count(outcomes).most_common():
        print(f"{number:6} {what}")
    if "--write" in words:
        print(f"{write_known(Path(source), outcomes)} without a reason")


if __name__ == "__main__":
    main()
