"""Programs in Move's intermediate representation that no compiler of Move would make: what is wrong with each.

The statuses are facts of Sui's verifier; the wheel `sui-sandbox`, where it is installed, is asked as well.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ir_compiler import compile_module
from ir_parser import IrError, parse
from ir_suite import ACCEPTED, NOT_MADE, play, statuses_of, verdict
from move_writer import write_module
from test_verifier_suite import REASONS

STRUCTS = """
struct Coin { value: u64 }
struct Pair has copy, drop { left: u64, right: u64 }
struct Box<T> has copy, drop { inside: T }
struct Tag<phantom T> has copy, drop { number: u64 }
"""
#: Status, and the functions of a module that has the structs above.
PROGRAMS = [
    ("" if status == "accepted" else status, functions)
    for status, functions in re.findall(
        r"^=== (\w+)\n(.*?)(?=^===|\Z)", (Path(__file__).parent / "programs.txt").read_text(), re.M | re.S
    )
]
IDS = [f"{at}-{status or 'accepted'}" for at, (status, _) in enumerate(PROGRAMS)]


def text_of(functions: str) -> str:
    return f"module 0x77.m {{ {STRUCTS} public probe() {{ label b0: return; }} {functions} }}"


def is_ours(status: str, reason: str) -> bool:
    return reason in REASONS[status] if status in REASONS else reason == "type_mismatch"


@pytest.mark.parametrize(("status", "functions"), PROGRAMS, ids=IDS)
def test_what_is_wrong_with_a_program(status: str, functions: str) -> None:
    reason = verdict(compile_module(parse(text_of(functions)), {}), {})
    assert reason == ACCEPTED if not status else is_ours(status, reason)


@pytest.mark.parametrize(("status", "functions"), PROGRAMS, ids=IDS)
def test_the_genuine_verifier_says_so(status: str, functions: str) -> None:
    genuine = pytest.importorskip("genuine")
    module = write_module(compile_module(parse(text_of(functions)), {}))
    assert genuine.genuine_call("m", "probe", [], modules=(module,)).failure == status


@pytest.mark.parametrize(
    "text",
    [
        "module 0x1.m { f() { label b0: return }",
        "module 0x1.m { f() { let x u64; label b0: return; } }",
        "module m { }",
        "module 0x1.m { } }",
        "module 0x1.m { f() { label b0: ?; } }",
        "module 0x1.m { f() { label b0: jump b9; } }",
        "module 0x1.m { f() { label b0: _ = copy(x); return; } }",
        "module 0x1.m { f() { label b0: Self.g(); return; } }",
        "module 0x1.m { f() { label b0: _ = 256u8; return; } }",
        "module 0x1.m { f(x: T) { label b0: return; } }",
        "module 0x1.m { f(x: N.S) { label b0: return; } }",
    ],
)
def test_what_is_not_of_the_language_makes_no_module(text: str) -> None:
    with pytest.raises(IrError):
        compile_module(parse(text), {})


FILE = """//# publish
module 0x1.Lib { struct S { x: u64 } public one(): u64 { label b0: return 1; } }

//# print-bytecode
module 0x1.Shown { f() { label b0: return true; } }

//# run --args 1
module 0x2.User { import 0x1.Lib as L; f() { label b0: assert(L.one() == 1, 0); return; } }

//# publish
module 0x3.Bad { import 0x1.Lib; f(x: Lib.S) { label b0: return; } }

//# publish
module 0x4.Broken {
"""
RESULTS = """processed 5 tasks

task 2 'run'. lines 7-8:
Error: Function execution failed with VMError: {
    major_status: ABORTED,
}

task 3 'publish'. lines 10-11:
Error: Unable to publish module '3::Bad'. Got VMError: {
    major_status: UNSAFE_RET_UNUSED_VALUES_WITHOUT_DROP,
}

task 4 'publish'. lines 13-14:
Error: ParserError: Invalid Token
"""


def test_a_file_is_played_task_by_task() -> None:
    bad = "UNSAFE_RET_UNUSED_VALUES_WITHOUT_DROP"
    assert statuses_of(RESULTS) == {3: bad, 4: NOT_MADE}
    found = [(each.task, each.status, each.reason) for each in play("file", FILE, RESULTS)]
    assert found == [
        (0, ACCEPTED, ACCEPTED),
        (2, ACCEPTED, ACCEPTED),
        (3, bad, "missing_ability"),
        (4, NOT_MADE, NOT_MADE),
    ]
