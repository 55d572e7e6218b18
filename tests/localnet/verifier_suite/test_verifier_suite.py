"""The tests of Sui's bytecode verifier on ours: what Sui refuses is refused, for the same reason, and nothing else.

    SUI_SOURCE=/path/to/sui pytest -n 0 -m slow tests/localnet/verifier_suite

A checkout of Sui's mirror that has Move alone will do.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest
from ir_suite import ACCEPTED, NOT_MADE, Outcome, folders, run

#: What our verifier calls what Sui's status says. The first that fits in order; our passes are in another one, so
#: a module with two faults may be refused for the other.
REASONS = {
    "BORROWFIELD_EXISTS_MUTABLE_BORROW_ERROR": ("reference_safety",),
    "BORROWLOC_EXISTS_BORROW_ERROR": ("reference_safety",),
    "BORROWLOC_UNAVAILABLE_ERROR": ("empty_local", "missing_ability"),
    "CALL_BORROWED_MUTABLE_REFERENCE_ERROR": ("reference_safety",),
    "CALL_TYPE_MISMATCH_ERROR": ("type_mismatch", "not_visible"),
    "CONSTRAINT_NOT_SATISFIED": ("constraint",),
    "COPYLOC_EXISTS_BORROW_ERROR": ("reference_safety",),
    "COPYLOC_UNAVAILABLE_ERROR": ("empty_local",),
    "COPYLOC_WITHOUT_COPY_ABILITY": ("missing_ability",),
    "DUPLICATE_ELEMENT": ("duplicate",),
    "EMPTY_CODE_UNIT": ("control_flow",),
    "EQUALITY_OP_TYPE_MISMATCH_ERROR": ("type_mismatch", "missing_ability"),
    "FIELD_MISSING_TYPE_ABILITY": ("field_abilities",),
    "FREEZEREF_EXISTS_MUTABLE_BORROW_ERROR": ("reference_safety",),
    "INDEX_OUT_OF_BOUNDS": ("index_out_of_bounds",),
    "INVALID_FALL_THROUGH": ("control_flow",),
    "INVALID_FRIEND_DECL_WITH_MODULES_OUTSIDE_ACCOUNT_ADDRESS": ("foreign_friend",),
    "INVALID_FRIEND_DECL_WITH_SELF": ("invalid_friend_decl_with_self",),
    "INVALID_PHANTOM_TYPE_PARAM_POSITION": ("phantom",),
    "INVALID_SIGNATURE_TOKEN": ("reference", "unbalanced_stack"),
    "LINKER_ERROR": ("missing_module",),
    "LOOKUP_FAILED": ("not_visible",),
    "LOOP_IN_INSTANTIATION_GRAPH": ("instantiation_loop",),
    "MOVELOC_EXISTS_BORROW_ERROR": ("reference_safety",),
    "MOVELOC_UNAVAILABLE_ERROR": ("empty_local",),
    "NEGATIVE_STACK_SIZE_WITHIN_BLOCK": ("unbalanced_stack", "type_mismatch", "missing_ability"),
    "NUMBER_OF_TYPE_ARGUMENTS_MISMATCH": ("number_of_type_arguments_mismatch", "type_arity"),
    "POP_WITHOUT_DROP_ABILITY": ("missing_ability",),
    "POSITIVE_STACK_SIZE_AT_BLOCK_END": ("unbalanced_stack", "type_mismatch"),
    "READREF_EXISTS_MUTABLE_BORROW_ERROR": ("reference_safety",),
    "READREF_WITHOUT_COPY_ABILITY": ("missing_ability",),
    "RECURSIVE_STRUCT_DEFINITION": ("recursive_type",),
    "RET_BORROWED_MUTABLE_REFERENCE_ERROR": ("reference_safety",),
    "STLOC_UNSAFE_TO_DESTROY_ERROR": ("reference_safety", "missing_ability", "not_visible"),
    "TOO_MANY_LOCALS": ("too_many_locals",),
    "UNSAFE_RET_LOCAL_OR_RESOURCE_STILL_BORROWED": ("reference_safety",),
    "UNSAFE_RET_UNUSED_VALUES_WITHOUT_DROP": ("missing_ability",),
    "VEC_BORROW_ELEMENT_EXISTS_MUTABLE_BORROW_ERROR": ("reference_safety",),
    "VEC_UPDATE_EXISTS_MUTABLE_BORROW_ERROR": ("reference_safety",),
    "WRITEREF_EXISTS_BORROW_ERROR": ("reference_safety",),
    "WRITEREF_WITHOUT_DROP_ABILITY": ("missing_ability",),
    "ZERO_SIZED_STRUCT": ("zero_sized_struct",),
}
_OF_TYPES = ("TYPE_MISMATCH", "TYPE_MISMATCH_ERROR", "REFERENCE_ERROR")
#: Refused by limits of the protocol, with which the suite doesn't run, or which its texts meet as texts.
_LIMITS = ("too_many_basic_blocks", "limit_exceeded")


def agrees(outcome: Outcome) -> bool:
    """Whether ours says what Sui says."""
    if ACCEPTED in (outcome.status, outcome.reason):
        return outcome.status == outcome.reason
    if outcome.reason in _LIMITS:
        return True
    if NOT_MADE in (outcome.status, outcome.reason):
        return outcome.status == outcome.reason
    if outcome.status in REASONS:
        return outcome.reason in REASONS[outcome.status]
    return (
        outcome.status.endswith((*_OF_TYPES, "NO_MUTABLE_REFERENCE_ERROR"))
        and outcome.reason == "type_mismatch"
    )


@pytest.mark.slow
def test_the_verdicts_are_those_of_sui(capsys: pytest.CaptureFixture[str]) -> None:
    given = os.environ.get("SUI_SOURCE")
    if given is None:
        pytest.skip("SUI_SOURCE does not name a checkout of Sui")
    suites = folders(Path(given))
    if not suites:
        pytest.skip(f"no suite of the bytecode verifier is in {given}")
    outcomes = [outcome for folder in suites for outcome in run(folder)]
    counts = Counter(
        "made by nobody"
        if NOT_MADE in (each.status, each.reason)
        else "accepted"
        if each.status == ACCEPTED
        else "refused"
        for each in outcomes
    )
    with capsys.disabled():
        print(f"\n{len(outcomes)} modules: {', '.join(f'{n} {what}' for what, n in counts.items())}")
    assert len(outcomes) > 500
    assert [each for each in outcomes if not agrees(each)] == []
