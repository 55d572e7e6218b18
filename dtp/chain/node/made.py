"""What a transaction has made, held against its digest: a node can't have somebody else's object taken for it."""

from __future__ import annotations

from dtp.chain.errors import MALFORMED, NodeRefused
from dtp.chain.model import Executed
from dtp.chain.node._answers import ExecutionOutcome


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
