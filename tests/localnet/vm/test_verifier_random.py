"""Random control flow with references: the verifier always comes to a verdict, and it is the genuine one."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from module_maker import Maker, code
from move_writer import write_module
from vm_world import address

from dtp.localnet.vm.verify import ModuleRefused, verify_move
from dtp.sui.bytecode import CompiledModule, Instruction, Primitive, ReferenceType

HOME = address(0x77)
U64 = Primitive.U64
# Local 0 is the condition, 1 and 2 are `&u64`, 3 and 4 `&mut u64`, 5 to 8 are numbers.
_SHARED, _MUTABLE, _NUMBERS = (1, 2), (3, 4), (5, 6)
STATEMENTS = st.one_of(
    st.tuples(st.just("borrow"), st.sampled_from(_SHARED), st.sampled_from(_NUMBERS)),
    st.tuples(st.just("borrow_mut"), st.sampled_from(_MUTABLE), st.sampled_from(_NUMBERS)),
    st.tuples(st.just("copy"), st.sampled_from(_SHARED), st.sampled_from(_SHARED)),
    st.tuples(st.just("copy"), st.sampled_from(_MUTABLE), st.sampled_from(_MUTABLE)),
    st.tuples(st.just("move"), st.sampled_from(_MUTABLE), st.sampled_from(_MUTABLE)),
    st.tuples(st.just("freeze"), st.sampled_from(_SHARED), st.sampled_from(_MUTABLE)),
    st.tuples(st.just("read"), st.sampled_from((*_SHARED, *_MUTABLE)), st.just(0)),
    st.tuples(st.just("write"), st.sampled_from(_MUTABLE), st.just(0)),
    st.tuples(st.just("larger"), st.sampled_from(_SHARED), st.sampled_from(_SHARED)),
    st.tuples(st.just("set"), st.sampled_from(_NUMBERS), st.just(0)),
)
PROGRAMS = st.recursive(
    st.lists(STATEMENTS, max_size=4),
    lambda inner: st.lists(
        st.one_of(STATEMENTS, st.tuples(st.just("if"), inner, inner), st.tuples(st.just("while"), inner)),
        max_size=4,
    ),
    max_leaves=12,
)


def _statement(kind: str, target: int, source: int) -> list[tuple[str, int | None]]:
    match kind:
        case "borrow" | "borrow_mut":
            op = "IMM_BORROW_LOC" if kind == "borrow" else "MUT_BORROW_LOC"
            return [(op, source), ("ST_LOC", target)]
        case "copy":
            return [("COPY_LOC", source), ("ST_LOC", target)]
        case "move":
            return [("MOVE_LOC", source), ("ST_LOC", target)]
        case "freeze":
            return [("COPY_LOC", source), ("FREEZE_REF", None), ("ST_LOC", target)]
        case "read":
            return [("COPY_LOC", target), ("READ_REF", None), ("POP", None)]
        case "write":
            return [("LD_U64", 7), ("COPY_LOC", target), ("WRITE_REF", None)]
        case "larger":
            return [("COPY_LOC", target), ("COPY_LOC", source), ("CALL", 1), ("ST_LOC", target)]
        case _:
            return [("LD_U64", 1), ("ST_LOC", target)]


def _compile(program: list[tuple], made: list[tuple[str, int | None]]) -> None:
    for entry in program:
        if entry[0] == "if":
            made.extend([("COPY_LOC", 0), ("BR_FALSE", None)])
            branch = len(made) - 1
            _compile(entry[1], made)
            made.append(("BRANCH", None))
            leave = len(made) - 1
            made[branch] = ("BR_FALSE", len(made))
            _compile(entry[2], made)
            made[leave] = ("BRANCH", len(made))
        elif entry[0] == "while":
            head = len(made)
            made.extend([("COPY_LOC", 0), ("BR_FALSE", None)])
            branch = len(made) - 1
            _compile(entry[1], made)
            made.append(("BRANCH", head))
            made[branch] = ("BR_FALSE", len(made))
        else:
            made.extend(_statement(*entry))


def instructions(program: list[tuple]) -> tuple[Instruction, ...]:
    """Code in which every local holds something at first."""
    made: list[tuple[str, int | None]] = []
    for number in (5, 6, 7, 8):
        made.extend(_statement("set", number, 0))
    for statement in (("borrow", 1, 5), ("borrow", 2, 6), ("borrow_mut", 3, 7), ("borrow_mut", 4, 8)):
        made.extend(_statement(*statement))
    _compile(program, made)
    return code(*made, "RET")


def module(program: list[tuple]) -> CompiledModule:
    """A module with the program as a function."""
    shared, mutable = ReferenceType(U64, False), ReferenceType(U64, True)
    maker = Maker(address=HOME)
    maker.function("probe", code("RET"))
    maker.function("larger", code(("MOVE_LOC", 0), "RET"), [shared, shared], [shared])
    numbers = [U64] * 4
    maker.function(
        "f", instructions(program), [Primitive.BOOL], [], [shared, shared, mutable, mutable, *numbers]
    )
    return maker.build()


def verdict(made: CompiledModule) -> str:
    """Our verifier's reason, or nothing when it accepts. Whatever else is raised fails the test."""
    try:
        verify_move(made, {(HOME, "m"): made})
    except ModuleRefused as refused:
        return refused.reason
    return ""


MUTUAL = ("if", [("borrow", 1, 5), ("copy", 2, 1)], [("borrow", 2, 5), ("copy", 1, 2)])
BORROWED_FROM_EACH_OTHER = [MUTUAL, ("read", 1, 0), ("read", 2, 0)]


@given(PROGRAMS)
@example(BORROWED_FROM_EACH_OTHER)
@example([("while", BORROWED_FROM_EACH_OTHER), ("set", 5, 0)])
def test_there_is_a_verdict_for_every_program(program: list[tuple]) -> None:
    assert verdict(module(program)) in ("", "reference_safety", "empty_local", "loop_max_depth_reached")


def test_references_that_two_ways_borrow_from_each_other_are_fine() -> None:
    """`if (c) { x = &v; y = x } else { y = &v; x = y }; *x; *y`: a valid program, which crashed the verifier."""
    assert verdict(module(BORROWED_FROM_EACH_OTHER)) == ""
    # The number is borrowed by both as long as they are there.
    assert verdict(module([MUTUAL, ("set", 5, 0), ("read", 1, 0)])) == "reference_safety"


@pytest.mark.slow
@settings(max_examples=300)
@given(PROGRAMS)
@example(BORROWED_FROM_EACH_OTHER)
def test_the_verdict_is_the_genuine_one(program: list[tuple]) -> None:
    genuine = pytest.importorskip("genuine")
    made = module(program)
    answer = genuine.genuine_call("m", "probe", [], modules=(write_module(made),))
    ours = verdict(made)
    if ours != "loop_max_depth_reached":  # the wheel has no limits
        assert bool(ours) == bool(answer.failure), f"ours {ours!r}, genuine {answer}"
