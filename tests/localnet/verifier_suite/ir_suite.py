"""The tests of Sui's bytecode verifier in Move's intermediate representation: what they are, and what ours says.

A test is a file of tasks, each of which publishes a module; beside it stands what came of each (`.exp`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ir_compiler import compile_module
from ir_parser import IrError, parse
from move_writer import write_module

from dtp.localnet.framework import system_packages
from dtp.localnet.vm.verify import ModuleRefused, verify_move
from dtp.sui.bytecode import BytecodeError, CompiledModule, deserialize

#: Where the tests are in a checkout of Sui, and in one of its mirror that has Move alone.
FOLDERS = ("external-crates/move/crates", "crates")
SUITES = ("bytecode-verifier-transactional-tests", "move-ir-compiler-transactional-tests")
ACCEPTED = ""
#: Not a module at all: what makes modules of the texts says so.
NOT_MADE = "not made"
#: Of Move's own library, which Sui's hasn't: some of the tests name it.
_SIGNER = """module 0x1.signer {
    native public borrow_address(s: &signer): &address;
    public address_of(s: &signer): address { label b0: return *Self.borrow_address(move(s)); }
}"""
_TASK = re.compile(r"^//# ?(\w+)(.*)$", re.M)
_RESULT = re.compile(r"^task (\d+) .*?:\n(.*?)(?=^task |\Z)", re.M | re.S)
_STATUS = re.compile(r"major_status: (\w+)")


@dataclass(frozen=True)
class Outcome:
    """A task: what Sui's suite says of it, and what ours says: a status and a reason, `ACCEPTED` or `NOT_MADE`."""

    test: str
    task: int
    status: str
    reason: str


def folders(source: Path) -> list[Path]:
    """The suites of a checkout that are there."""
    found = [source / folder / suite / "tests" for folder in FOLDERS for suite in SUITES]
    return [each for each in found if each.is_dir()]


def texts_of(file: str) -> Iterator[tuple[int, str, str]]:
    """The tasks of a file that publish a module: number, what is done with it, the module's text."""
    found = list(_TASK.finditer(file))
    for number, (task, following) in enumerate(zip(found, [*found[1:], None], strict=True)):
        text = file[task.end() : following.start() if following else len(file)]
        # Those of other kinds are printed, and judged by nobody.
        if task[1] in ("publish", "run") and re.search(r"^\s*module\b", text, re.M):
            yield number, task[1], text


def statuses_of(results: str) -> dict[int, str]:
    """What came of the tasks that did not just succeed, by number."""
    found = {}
    for number, text in _RESULT.findall(results):
        status = _STATUS.search(text)
        if status is not None and "Unable to publish" in text:
            found[int(number)] = status[1]
        elif status is None and "Error" in text:  # with one it was published, and failed when it ran
            found[int(number)] = NOT_MADE
    return found


def verdict(module: CompiledModule, others: Mapping[tuple[bytes, str], CompiledModule]) -> str:
    """Why ours refuses a module by the rules of Move, `ACCEPTED` where it doesn't."""
    try:
        verify_move(deserialize(write_module(module)), others)
    except ModuleRefused as refused:
        return refused.reason
    except BytecodeError as error:
        return error.fault.name.lower()
    return ACCEPTED


def play(test: str, file: str, results: str) -> Iterator[Outcome]:
    """What ours says of each module of a file, in its order: later ones may use those before."""
    known = {
        (package.original_id, name): deserialize(data)
        for package in system_packages()
        for name, data in package.modules.items()
    }
    signer = compile_module(parse(_SIGNER), known)
    known[signer.address, signer.name] = signer
    statuses = statuses_of(results)
    for number, _, text in texts_of(file):
        status = statuses.get(number, ACCEPTED)
        try:
            module = compile_module(parse(text), known)
        except IrError:
            yield Outcome(test, number, status, NOT_MADE)
            continue
        reason = verdict(module, known)
        if reason == ACCEPTED:
            known[module.address, module.name] = module
        yield Outcome(test, number, status, reason)


def run(folder: Path) -> Iterator[Outcome]:
    """All tests of a suite."""
    for path in sorted(folder.rglob("*.mvir")):
        results = path.with_suffix(".exp")
        test = f"{folder.parent.name}/{path.relative_to(folder).with_suffix('')}"
        yield from play(test, path.read_text(), results.read_text() if results.exists() else "")
