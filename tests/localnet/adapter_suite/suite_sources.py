"""Compile the packages of the tests: many in one run, each at a place-holder address, results kept on disk."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

from suite_files import SuiteTest, Task

from dtp.sui.bytecode import deserialize

ROOT = Path(__file__).parents[3]
FRAMEWORK_NAMES = frozenset({"std", "sui", "sui_system", "deepbook", "bridge"})
BATCH = 40
_MODULE = re.compile(r"^\s*(?:#\[[^\]]*\]\s*)*module\s+(\w+)::\w+", re.M)


def placeholder(name: str) -> bytes:
    """Return the address that stands for a name until the package is published."""
    return blake2b(b"place" + name.encode(), digest_size=32).digest()


@dataclass
class Compiled:
    """What one task compiled to: the name that its modules stand under, and their bytecode with place-holders."""

    package: str
    place: bytes
    modules: list[bytes] = field(default_factory=list)
    error: str = ""


@dataclass
class _Unit:
    test: SuiteTest
    task: Task
    package: str
    file: str
    text: str


def compile_tests(
    tests: Iterable[SuiteTest], accounts: dict[str, dict[str, bytes]], framework: Path, cache: Path
) -> dict[tuple[str, int], Compiled]:
    """Return what every task with Move sources compiles to, by test name and task number."""
    found: dict[tuple[str, int], Compiled] = {}
    waiting: list[SuiteTest] = []
    cache.mkdir(parents=True, exist_ok=True)
    for test in tests:
        kept = cache / _key(test)
        if kept.exists():
            _take(found, test, json.loads(kept.read_text()))
        else:
            waiting.append(test)
    for at in range(0, len(waiting), BATCH):
        for test, made in _compile_batch(waiting[at : at + BATCH], accounts, framework):
            (cache / _key(test)).write_text(json.dumps(made))
            _take(found, test, made)
    return found


def _key(test: SuiteTest) -> str:
    return blake2b((test.name + test.text).encode(), digest_size=16).hexdigest() + ".json"


def _take(found: dict[tuple[str, int], Compiled], test: SuiteTest, made: dict[str, dict]) -> None:
    for number, entry in made.items():
        modules = [base64.b64decode(text) for text in entry["modules"]]
        found[test.name, int(number)] = Compiled(
            entry["package"], bytes.fromhex(entry["place"]), modules, entry["error"]
        )


def _units(test: SuiteTest, prefix: str, accounts: dict[str, bytes]) -> tuple[list[_Unit], dict[str, bytes]]:
    addresses: dict[str, bytes] = {f"{prefix}{name}": value for name, value in accounts.items()}
    current: dict[str, str] = {name: f"{prefix}{name}" for name in accounts}
    units = []
    for word in test.tasks[0].options.get("addresses", []):
        name, _, value = word.partition("=")
        current[name] = f"{prefix}{name}"
        number = int(value, 16)
        # One that is zero becomes the name of a package.
        addresses[current[name]] = number.to_bytes(32, "big") if number else placeholder(current[name])
    for task in test.tasks:
        if task.command not in ("publish", "upgrade", "stage-package"):
            continue
        own = _MODULE.search(task.source)
        package = own.group(1) if own else ""
        if package in current or package == "0x0":
            current[package] = f"{prefix}{task.number}_{package}"
            addresses[current[package]] = placeholder(current[package])
        text = task.source
        for name, other in current.items():
            text = re.sub(rf"(?<![\w:@]){name}(?=\s*::)", other, text)
            text = re.sub(rf"@{name}\b", f"@{other}", text)
        units.append(
            _Unit(test, task, current.get(package, package), f"sources/{prefix}{task.number}.move", text)
        )
    return units, addresses


def _compile_batch(
    tests: list[SuiteTest], accounts: dict[str, dict[str, bytes]], framework: Path
) -> Iterable[tuple[SuiteTest, dict[str, dict]]]:
    prepared = {}
    for at, test in enumerate(tests):
        prefix = f"x{at}_"
        prepared[prefix] = (test, *_units(test, prefix, accounts[test.name]))
    errors: dict[str, str] = {}
    modules: list[bytes] = []
    units = [unit for _, own, _ in prepared.values() for unit in own]
    addresses = {name: value for _, _, own in prepared.values() for name, value in own.items()}
    while alive := [unit for unit in units if unit.file not in errors]:
        answer = _run(alive, addresses, framework)
        if "error" not in answer:
            modules = [base64.b64decode(text) for text in answer["modules"]]
            break
        blamed = set(re.findall(r"sources/x\d+_\d+\.move", answer["error"]))
        if not blamed and len(tests) > 1:  # nobody is named: the others are to compile without him
            yield from _compile_batch(tests[: len(tests) // 2], accounts, framework)
            yield from _compile_batch(tests[len(tests) // 2 :], accounts, framework)
            return
        for file in blamed or {unit.file for unit in alive}:
            errors[file] = "does not compile"
    by_address: dict[bytes, list[bytes]] = {}
    for module in modules:
        by_address.setdefault(deserialize(module).address, []).append(module)
    for prefix, (test, units, _) in prepared.items():
        made = {}
        for unit in units:
            mine = by_address.get(addresses.get(unit.package, b""), [])
            error = errors.get(unit.file, "") or ("" if mine else "no module")
            encoded = [base64.b64encode(m).decode() for m in mine]
            name = unit.package.removeprefix(prefix)
            place = addresses.get(unit.package, b"").hex()
            made[str(unit.task.number)] = {
                "package": name,
                "modules": encoded,
                "error": error,
                "place": place,
            }
        yield test, made


def _run(units: list[_Unit], addresses: dict[str, bytes], framework: Path) -> dict:
    request = {
        "framework": str(framework),
        "builder": os.environ.get("DTP_MOVE_BUILDER", str(ROOT / "move")),
        "addresses": {name: f"0x{value.hex()}" for name, value in addresses.items()},
        "files": {unit.file: unit.text for unit in units},
    }
    script = Path(__file__).with_name("compile_batch.mjs")
    done = subprocess.run(
        ["node", str(script)], input=json.dumps(request), capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        return {"error": f"the compiler stopped: {done.stderr[-500:]}"}
    return json.loads(done.stdout)
