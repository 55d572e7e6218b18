"""What a node's complaint means: refusals and failures as typed errors that say what to do.

An abort of one of our packages gets the name and text of its constant and the member of the generated enum, from the
bytecode that ships; the node's own reading of it is used for packages of others.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import IntEnum
from typing import Final

from dtp.chain import packages
from dtp.chain.errors import (
    AbortPlace,
    InsufficientFunds,
    MoveAborted,
    NodeRefused,
    StaleObject,
    TransactionFailed,
    TransactionRefused,
)
from dtp.chain.model import Executed
from dtp.chain.node._answers import AbortInfo, Failure
from dtp.chain.packages import PackageError
from dtp.chain.packages.broadcast_names.show import ShowError
from dtp.chain.packages.deployments import Deployments
from dtp.chain.packages.directory_names.card import CardError
from dtp.chain.packages.escrow_names.lock import LockError
from dtp.chain.packages.transport_names.channel import ChannelError
from dtp.chain.packages.transport_names.host import HostError
from dtp.chain.packages.transport_names.pass_ import PassError
from dtp.chain.packages.transport_names.pipe import PipeError

#: (package, module) -> the generated enum of its refusals.
ERRORS: Final[Mapping[tuple[str, str], type[IntEnum]]] = {
    ("transport", "host"): HostError,
    ("transport", "pass"): PassError,
    ("transport", "channel"): ChannelError,
    ("transport", "pipe"): PipeError,
    ("escrow", "lock"): LockError,
    ("directory", "card"): CardError,
    ("broadcast", "show"): ShowError,
}

#: What nodes say when a reference is no longer the newest, or is taken; theirs is text, so patterns have to do.
_STALE = re.compile(
    r"(?:not |un)available for consumption|needs to be rebuilt|ObjectVersionUnavailable|ObjectNotFound"
    r"|could not find the referenced object|already locked|reserved for another transaction"
    r"|conflicting transaction|object .* (?:is )?deleted",
    re.IGNORECASE,
)
_POOR = re.compile(
    r"GasBalanceTooLow|insufficient|balance of gas object|no (?:valid )?gas coin|unable to perform gas selection",
    re.IGNORECASE,
)
_CHEAP = re.compile(r"GasPriceUnderRGP|gas price .* (?:under|below|less than) .*reference", re.IGNORECASE)

_ADVICE: Final[Mapping[str, str]] = {
    "INSUFFICIENT_GAS": "the gas budget was too small: give a larger one, or none and let it be found by simulation",
    "INSUFFICIENT_COIN_BALANCE": "a coin holds less than is to be split off: check the balance",
    "FUNCTION_NOT_FOUND": "the published package has no such function: is it this release?",
    "PUBLISH_UPGRADE_MISSING_DEPENDENCY": "a package it depends on isn't published on this network",
    "EXECUTION_CANCELED_DUE_TO_CONSENSUS_OBJECT_CONGESTION": "a shared object is in great demand: try again",
}


class PriceTooLow(TransactionRefused):
    """The gas price is below the epoch's: read it again."""

    code = "price-too-low"


def refusal(fault: NodeRefused, digest: str = "") -> TransactionRefused | InsufficientFunds:
    """Return the error for a node that would not take a transaction; `digest` is that of one that was signed."""
    found = _refusal(f"{fault}; signed as {digest}" if digest else str(fault), fault.status)
    found.digest = digest
    return found


def _refusal(text: str, status: str) -> TransactionRefused | InsufficientFunds:
    if _CHEAP.search(text):
        return PriceTooLow(text, status)
    if _STALE.search(text):
        return StaleObject(f"{text}; an object was changed by another transaction: build it anew", status)
    if _POOR.search(text):
        return InsufficientFunds(f"{text}; send SUI to the account (dtp wallet faucet, on a test network)")
    return TransactionRefused(text, status)


def failure(found: Failure, deployments: Deployments, executed: Executed | None = None) -> TransactionFailed:
    """Return the error for a transaction that ran and failed; `executed` is None for a simulation."""
    if found.abort is not None and found.kind == "MOVE_ABORT":
        return _abort(found, found.abort, deployments, executed)
    advice = _ADVICE.get(found.kind, "")
    parts = [found.kind.replace("_", " ").lower(), found.description, advice]
    place = f" in command {found.command}" if found.command is not None else ""
    return TransactionFailed(
        f"the transaction failed{place}: " + "; ".join(part for part in parts if part),
        kind=found.kind,
        command=found.command,
        executed=executed,
    )


def _abort(
    found: Failure, abort: AbortInfo, deployments: Deployments, executed: Executed | None
) -> MoveAborted:
    name, text, number, error = abort.constant, abort.text, abort.number, None
    deployment = deployments.by_id(abort.package)
    if deployment is not None and deployment.package in packages.available():
        try:
            known = packages.load(deployment.package).describe_abort(abort.module, abort.raw)
        except PackageError:
            known = None  # a module that a later release has
        if known is not None and known.name is not None:
            name, text, number = known.name, known.message or text, known.number
            members = ERRORS.get((deployment.package, abort.module))
            if members is not None and number is not None and number in members._value2member_map_:
                error = members(number)
    package = deployment.package if deployment is not None else abort.package
    what = name or f"code {abort.raw}"
    return MoveAborted(
        f"{package}::{abort.module}::{abort.function or '?'} refused: {what}"
        + (f" ({text})" if text else ""),
        place=AbortPlace(abort.package, abort.module, abort.function, abort.instruction),
        raw=abort.raw,
        number=number if number is not None else abort.raw,
        name=name,
        error=error,
        command=found.command,
        executed=executed,
    )
