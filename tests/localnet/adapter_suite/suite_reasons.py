"""Why a result of Sui's suite differs on the embedded node: the reasons, and which one a difference has."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

from suite_results import Result

REASONS: dict[str, str] = {
    "balances": "balances of addresses, allowances and transactions without gas are absent from the node",
    "compiler": "the project's compiler does not take the source: an older edition, or a test of the compiler itself",
    "coin rules": "registries (objects 0xc, 0xd, 0xacc) are absent from the node",
    "pinned": "the test asks for another protocol version than the one that the node models",
    "natives": "the framework function is absent from the node: the list in docs/chain.md",
    "own framework": "the node has a framework of its own: functions and instructions have other numbers there",
    "old versions": "the node simulates on the present objects only, the test inspects old versions",
    "hot arguments": "what private entry functions take was changed after the protocol version that is modelled",
    "linkage": "InvalidLinkage came after the protocol version that is modelled",
    "references": "references as results, and TxContext anywhere, came after the version that is modelled",
    "init on upgrade": "init on upgrade came after the protocol version that is modelled",
    "rounding": "computation is rounded to half of its digits since version 108, to 1,000 units before",
    "copies": "the node does not charge copies of values between commands",
    "order": "ids of dynamic fields are random, and so is the order in which equal types are numbered",
    "later": "the same test was identical in the suite of January 2026, version 106: it changed after that",
    "runner": "the runner does not read or play this as Sui's does",
    "fault": "a fault of the node, not mended yet",
    "follows": "an earlier task of the test differs, and this one uses what it made",
    "static": "static checks of a transaction run before its first command there, each before its own command here",
    "inspections": "a simulation without checks takes more than a transaction there: other owners, bytes of any type",
    "exclusion": "writes without exclusion are switched off on mainnet in the version that is modelled",
    "gas": "sizes of values in long loops: the node follows figures of the suite that were recorded later",
    "open": "not looked into yet",
}


#: Tests whose first differences were looked into one by one.
BY_NAME: dict[str, str] = {
    "entry_points/generic_by_ref_invalid": "later",
    "entry_points/large_enum": "later",
    "programmable/cannot_call_emit": "later",
    "programmable/gas_coin_by_value_invalid": "later",
    "programmable/gas_coin_by_value_118": "later",
    "receive_object/receive_object_owner": "later",
    "upgrade/type_names": "later",
    "programmable/cannot_call_emit_authenticated": "natives",
    "programmable/coin_negative": "coin rules",
    "programmable/coin_operations_custom_coin": "coin rules",
    "programmable/merge_coin_mismatched_coin": "coin rules",
    "programmable_transaction_examples/bad_syntax": "runner",
    "programmable_transaction_examples/coin_limit": "runner",
    "upgrade/upgrade_ratchet": "runner",
    "programmable/pure_arg_mut": "runner",
    "upgrade/multiple_attempts": "own framework",
    "upgrade/modules": "runner",
    "receive_object/duplicate_receive_argument": "fault",
    "child_count/non_zero_child_count_valid": "order",
    "dynamic_fields/borrow_wrong_type_object": "order",
    "dynamic_fields/mut_unchanged": "order",
    "dynamic_fields/mut_unchanged_chain_dof": "order",
    "dynamic_fields/remove_wrong_type_object": "order",
    "dynamic_fields/wrap_object": "order",
    "receive_object/receive_dof_and_mutate": "order",
    "receive_object/shared_parent/receive_dof_and_mutate": "order",
    "dev_inspect/mismatched_owner": "inspections",
    "programmable/large_dev_inspect_pure": "inspections",
    "receive_object/pt_receive_type_separation": "inspections",
    "dry_run/gas_missing": "runner",
    "programmable_transaction_examples/publish": "runner",
    "txn_gas_api/gas_api": "runner",
    "programmable/index_before_typing": "static",
    "programmable/out_of_bounds_result": "static",
    "programmable/private_transfer_invalid": "static",
    "receive_object/receive_ticket_coin_operations": "static",
    "transfer_object/does_not_have_store_receive": "static",
    "runtime_behavior/versioned_check_swap_loc_old": "pinned",
    "transfer_object/does_not_have_store_receive_version30": "pinned",
    "upgrade/type_resolution": "pinned",
    "shared/non_exclusive_write": "exclusion",
    "size_limits/event_limits_tests": "gas",
    "size_limits/move_object_size_limit": "gas",
    "size_limits/object_runtime_limits": "gas",
    "size_limits/transfered_id_limits_tests": "gas",
    "size_limits/vector_len_limits": "gas",
    "upgrade/type_name_unit_tests": "gas",
}


class Differing(Protocol):
    """What a reason is given for."""

    test: str
    task: int
    command: str
    differs: list[str]
    genuine: Result
    ours: Result


def reason_of(outcome: Differing, earlier: Sequence[Differing]) -> str:
    """Return the name of the reason. `earlier` are the differing tasks before it."""
    return (
        _by_itself(outcome)
        or ("follows" if earlier else "")
        or _by_folder(outcome)
        or BY_NAME.get(outcome.test, "open")
    )


def _by_itself(outcome: Differing) -> str:
    genuine, ours, test = outcome.genuine, outcome.ours, outcome.test
    if ours.text.startswith("its source"):
        return "compiler"
    if re.match(r"the command (view-funds|gasless)|withdrawals|gas from the balance", ours.text):
        return "balances"
    if re.search(r"_v\d+$", test) or "/v0/" in test:
        return "pinned"
    if test.startswith(("address_balances/", "gasless/")):
        return "balances"
    if test.startswith("deny_list") or re.match(r"object\(\d+,None\)", ours.text):
        return "coin rules"
    if "InvalidLinkage" in genuine.error:
        return "linkage"
    if "computation" in outcome.differs and len(outcome.differs) == 1:
        if -(-genuine.gas[0] // 1_000_000) * 1_000_000 == ours.gas[0]:
            return "rounding"
        return "copies" if "large_vector" in test else ""
    if genuine.error != ours.error and _without_numbers(genuine.error) == _without_numbers(ours.error):
        return "own framework"
    if test.startswith("mvcc/") or ours.error in ("ObjectVersionUnavailableForConsumption",):
        return "order" if "text" in outcome.differs else "old versions"
    if re.search(
        "InvalidPublicFunctionReturnType|CannotWriteToExtendedReference|InvalidReference",
        ours.error + genuine.error,
    ):
        return "references"
    if "tx_context" in test or "borrowed_arg" in test or "reference" in test:
        return "references"
    if (
        "hot_" in test
        or "private_entry" in test
        or "InvalidArgumentToPrivateEntry" in genuine.error + ours.error
    ):
        return "hot arguments"
    return ""


def _by_folder(outcome: Differing) -> str:
    test, ours = outcome.test, outcome.ours
    if test.startswith(("init/upgrade", "upgrade/upgrade_init")):
        return "init on upgrade"
    if outcome.genuine.kind == "done" and ours.error in (
        "FunctionNotFound",
        "VMVerificationOrDeserializationError",
    ):
        return "natives"
    if test.startswith(("rangeproofs/", "event_streams/", "party/", "random/", "epoch/")):
        return "natives"
    if test.startswith(("dry_run/", "dev_inspect/")):
        return "old versions" if "object" in ours.text else ""
    return ""


def _without_numbers(error: str) -> str:
    # Functions and instructions of the framework, and the lines that its `#[error]` codes carry.
    if "address: sui" not in error and "address: std" not in error:
        return error
    return re.sub(r"function: \d+, instruction: \d+|, \d{19,20}\)", "", error)
