"""How a running transaction stops: one internal exception, and what the machine's failures are called on chain."""

from __future__ import annotations

from typing import Any

from dtp.localnet.vm import ExecutionFailure, MoveLocation, PackageRejected
from dtp.sui.effects import (
    ARGUMENT_PROBLEMS,
    FAILURES,
    ArgumentProblem,
    CodeLocation,
    ExecutionError,
    UpgradeProblem,
)

__all__ = ["ExecutionStopped", "argument_failed", "from_machine", "from_package"]


class ExecutionStopped(Exception):
    """A transaction can't go on. Never leaves the node: it becomes the effects' status."""

    def __init__(self, kind: str, description: str, **content: Any) -> None:
        super().__init__(description)
        self.error = ExecutionError(kind, content, None, description)

    @classmethod
    def from_error(cls, error: ExecutionError) -> ExecutionStopped:
        """Return the exception for an error that is made already."""
        made = cls(error.kind, error.description)
        made.error = error
        return made


def argument_failed(argument: int, problem: str, description: str, *numbers: int) -> ExecutionStopped:
    """Return a command's argument is not right; `problem` is the protocol's name."""
    return ExecutionStopped(
        "CommandArgumentError",
        f"argument {argument}: {description}",
        argument=argument,
        problem=ArgumentProblem(problem, numbers),
    )


def _location(found: MoveLocation | None) -> CodeLocation | None:
    if found is None:
        return None
    return CodeLocation(found.package, found.module, found.function, found.instruction, found.function_name)


def from_machine(failure: ExecutionFailure) -> ExecutionError:
    """Return what the protocol calls a failure of the Move machine."""
    text = str(failure)
    kind = failure.status
    content: dict[str, Any]
    if kind == "MoveAbort" and failure.location is not None:
        content = {"location": _location(failure.location), "code": failure.abort_code or 0}
        return ExecutionError(kind, content, None, text)
    if kind == "CommandArgumentError":
        problem = failure.reason if failure.reason in ARGUMENT_PROBLEMS else "TypeMismatch"
        content = {"argument": failure.argument or 0, "problem": ArgumentProblem(problem)}
        return ExecutionError(kind, content, None, text)
    if kind == "TypeArgumentError":
        content = {"argument": failure.type_argument or 0, "problem": failure.reason}
        return ExecutionError(kind, content, None, text)
    if kind in ("MovePrimitiveRuntimeError", "MemoryLimitExceeded"):
        # Limits of memory have no kind of their own on chain.
        return ExecutionError(
            "MovePrimitiveRuntimeError", {"location": _location(failure.location)}, None, text
        )
    if kind in FAILURES and not FAILURES[kind][1]:
        return ExecutionError(kind, {}, None, text)
    return ExecutionError("VMInvariantViolation", {}, None, f"{kind}: {text}")


def from_package(rejected: PackageRejected, size: int, limit: int) -> ExecutionError:
    """Return what the protocol calls a package that is not accepted; `size` and `limit` are of its modules, in
    bytes."""
    text = str(rejected)
    if rejected.status == "PackageUpgradeError":
        return ExecutionError(
            rejected.status, {"problem": UpgradeProblem(rejected.detail or "IncompatibleUpgrade")}, None, text
        )
    if rejected.status == "MovePackageTooBig":
        content = {"object_size": size, "max_object_size": limit}
        return ExecutionError(rejected.status, content, None, text)
    if rejected.status in FAILURES and not FAILURES[rejected.status][1]:
        return ExecutionError(rejected.status, {}, None, text)
    return ExecutionError("VMVerificationOrDeserializationError", {}, None, text)
