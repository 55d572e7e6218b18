"""What a transaction has made, held against its digest: a node can't have somebody else's object taken for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from dtp.chain.errors import MALFORMED, NodeRefused
from dtp.chain.model import Executed, ObjectData
from dtp.chain.node._answers import ExecutionOutcome

T = TypeVar("T")


def check_outcome(outcome: ExecutionOutcome, digest: str) -> ExecutionOutcome:
    """Return what became of the transaction of a digest. Raise `NodeRefused` for what is told of another one, or
    names a package that it can't have published: all that is called later goes there."""
    executed = outcome.executed
    if executed.digest != digest:
        raise NodeRefused(f"asked about transaction {digest}, the node tells of {executed.digest}", MALFORMED)
    check_made(executed, *(each.id for each in executed.changes if each.type == "package" and each.output))
    return outcome


def check_made(executed: Executed, *ids: str) -> None:
    """Raise `NodeRefused` unless the transaction can have made objects of these ids."""
    for each in ids:
        if not executed.has_made(each):
            raise NodeRefused(
                f"the node says that transaction {executed.digest} has made {each}, which no transaction of that "
                "digest can: it is somebody else's; ask another node",
                MALFORMED,
            )


def only_one(executed: Executed, told: Sequence[T], what: str) -> T:
    """Return the one thing of its kind that a transaction brings about. Raise `NodeRefused` where the node tells of
    none, or of several: it was executed all the same."""
    if len(told) != 1:
        raise NodeRefused(
            f"transaction {executed.digest} has one {what}, and the node tells of {len(told):,}; it was executed: "
            "ask another node what it did",
            MALFORMED,
        )
    return told[0]


def object_made(executed: Executed, type: str) -> str:
    """Return the id of the one object of a type that a transaction makes. Raise `NodeRefused` where the node tells of
    none, of several, or of somebody else's."""
    found = only_one(executed, executed.created_objects(type), f"new {type}").id
    check_made(executed, found)
    return found


def object_left(executed: Executed, id: str) -> ObjectData:
    """Return an object as a transaction left it. Raise `NodeRefused` where the node doesn't show it."""
    if id not in executed.objects:
        raise NodeRefused(
            f"the node doesn't show {id} as transaction {executed.digest} left it; it was executed: ask another node "
            "what it did",
            MALFORMED,
        )
    return executed.objects[id]
