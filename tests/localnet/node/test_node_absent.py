"""What the node has not (docs/chain.md): a program that needs it hears the name of what is missing."""

from __future__ import annotations

import pytest
from module_maker import Maker, code
from move_writer import write_module
from node_world import STD, SUI
from playground import Play

from dtp.sui.transaction import Publish

#: Modules of 0x2 and functions of theirs that mainnet has, or will have.
ABSENT = [
    ("balance", "send_funds"),
    ("balance", "redeem_funds"),
    ("balance", "withdraw_funds_from_object"),
    ("coin", "send_funds"),
    ("coin", "redeem_funds"),
    ("event", "emit_authenticated"),
    ("coin_registry", "new_currency"),
    ("funds_accumulator", "withdrawal_limit"),
    ("kiosk", "new"),
]


def calls(module: str, function: str) -> bytes:
    """A module that calls a function of 0x2, whatever that would take."""
    maker = Maker(name="wants")
    handle = maker.handle(function, module=maker.module(SUI, module))
    maker.function("f", code(("CALL", handle), "RET"))
    return write_module(maker.build())


def name_of(module: str, function: str) -> str:
    """What is missing: the function, or its module where that is absent whole."""
    return f"0x2::{module}::{function}" if module in ("balance", "coin", "event") else f"0x2::{module}"


@pytest.mark.parametrize(("module", "function"), ABSENT)
def test_a_package_that_calls_what_is_absent_is_refused_by_its_name(
    play: Play, module: str, function: str
) -> None:
    tx = play.tx()
    tx.send(play.alice.address, tx.command(Publish((calls(module, function),), (STD, SUI))))
    error = play.fails(tx, "VMVerificationOrDeserializationError").effects.error
    assert error is not None
    assert f"{name_of(module, function)} does not exist" in error.description


@pytest.mark.parametrize(("module", "function"), ABSENT)
def test_a_transaction_that_calls_what_is_absent_is_told_its_name(
    play: Play, module: str, function: str
) -> None:
    tx = play.tx()
    tx.call(SUI, f"{module}::{function}")
    error = play.fails(tx, "FunctionNotFound").effects.error
    assert error is not None
    assert module in error.description
    if module in ("balance", "coin", "event"):
        assert function in error.description
