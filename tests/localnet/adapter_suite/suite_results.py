"""What a task came to, as fields that can be compared one by one, from a genuine `.snap` text or from the node."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

GAS = re.compile(
    r"computation_cost: (\d+), storage_cost: (\d+),\s+storage_rebate: (\d+), non_refundable_storage_fee: (\d+)"
)
CHANGES = (
    "created", "mutated", "unwrapped", "deleted", "unwrapped_then_deleted", "wrapped", "unchanged_shared",
)  # fmt: skip
_KIND = re.compile(r"inner: ExecutionErrorInner \{ kind: (.*?), source: .*command: (None|Some\(\d+\))", re.S)
_DEBUG = re.compile(r"Debug of error: (.*) at command (None|Some\(\d+\))", re.S)
_DRY = re.compile(r"^Execution Error: (.*?)(?: in command (\d+))?$", re.M | re.S)

#: How suites of 2025 state a refusal: by its name.
_NAMED = re.compile(r"^Error: Error checking transaction input objects: (\w+)")

#: What a genuine refusal says, and the node's name of the same refusal.
REFUSALS = (
    ("Dependent package not found", "DependentPackageNotFound"),
    ("Balance of gas object", "GasBalanceTooLow"),
    ("Objects owned by other objects cannot", "InvalidChildObjectArgument"),
    ("Mutable parameter provided", "ImmutableParameterExpectedError"),
    ("Transaction was not signed by the correct sender", "IncorrectUserSignature"),
    ("Could not find the referenced object", "ObjectNotFound"),
    ("Commands following a command with Random", "PostRandomCommandRestrictions"),
    ("The transaction inputs contain duplicated", "DuplicateObjectRefInput"),
    ("Object used as shared is not shared", "NotSharedObjectError"),
    ("cannot have empty arg", "EmptyCommandInput"),
    ("Gas object is not an owned object", "GasObjectNotOwnedObject"),
    ("A move object is expected, instead a move package", "MovePackageAsObject"),
    ("Gas budget:", "GasBudgetTooLow"),
    ("Size limit exceeded", "SizeLimitExceeded"),
    ("Feature is not supported", "Unsupported"),
    ("is used as owned object", "NotOwnedObjectError"),
    ("is denied for coin", "AddressDeniedForCoin"),
    ("Coin type is globally paused", "CoinTypeGlobalPause"),
)


@dataclass
class Result:
    """`kind` says which fields are set: `done`, `failed`, `refused`, `view`, `text`, or `unrunnable`."""

    kind: str
    changes: dict[str, str] = field(default_factory=dict)
    events: str = ""
    gas: tuple[int, ...] = ()
    error: str = ""
    command: str = ""
    text: str = ""


def parse_result(text: str) -> Result:
    """Return the fields of a genuine result."""
    lines = [line for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("Error: ")]
    if errors:
        return _parse_error(text[text.index("Error: ") :])
    gas = GAS.search(text)
    if gas:
        result = Result("done", gas=tuple(int(part) for part in gas.groups()))
        for line in lines:
            name, _, value = line.partition(": ")
            if name in CHANGES:
                result.changes[name] = value
            elif name == "events":
                result.events = value
        return result
    if text.startswith("Owner: "):
        return Result("view", text=text)
    return Result("text", text=text)


def _parse_error(text: str) -> Result:
    for pattern in (_KIND, _DEBUG, _DRY):
        found = pattern.search(text)
        if found and "Transaction Effects Status" in text:
            command = re.sub(r"\D", "", found.group(2) or "")
            return Result("failed", error=" ".join(found.group(1).split()), command=command)
    named = _NAMED.match(text)
    if named:
        return Result("refused", error=named[1])
    for words, kind in REFUSALS:
        if words in text:
            return Result("refused", error=kind)
    return Result("refused", error=text.splitlines()[0][:100])


def differences(genuine: Result, ours: Result) -> list[str]:
    """Return what differs, as words from a fixed list; empty when both say the same."""
    if ours.kind == "unrunnable":
        return ["not runnable"]
    if genuine.kind != ours.kind:
        return [f"{genuine.kind}, here {ours.kind}"]
    found = []
    if _sets(genuine.changes) != _sets(ours.changes):
        found.append("objects")
    if not same_events(genuine.events, ours.events):
        found.append("events")
    found += [
        name
        for name, theirs, own in zip(
            ("computation", "storage", "rebate", "fee"), genuine.gas, ours.gas, strict=False
        )
        if theirs != own
    ]
    if genuine.error != ours.error:
        found.append("error")
    elif genuine.command != ours.command:
        found.append("command")
    if genuine.text != ours.text:
        found.append("text")
    return found


def _sets(changes: dict[str, str]) -> dict[str, list[str]]:
    """What changed, whatever the order: objects of one transaction are numbered by ids, which are random."""
    return {name: sorted(value.split(", ")) for name, value in changes.items()}


_CONTENTS = re.compile(r"contents: \[([^\]]*)\]")


def same_events(genuine: str, ours: str) -> bool:
    """True if both are the same events; ids in their contents, marked `-` in ours, differ from run to run."""
    if _CONTENTS.sub("", genuine) != _CONTENTS.sub("", ours):
        return False
    for theirs, own in zip(_CONTENTS.findall(genuine), _CONTENTS.findall(ours), strict=True):
        left, right = theirs.split(", "), own.split(", ")
        if len(left) != len(right) or any(b not in ("-", a) for a, b in zip(left, right, strict=True)):
            return False
    return True
