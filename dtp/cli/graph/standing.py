"""What `dtp graph status` tells of who is kept out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from dtp.crdt.permission.owners import owner_name
from dtp.plurals import count_of

if TYPE_CHECKING:
    from dtp.graph import Graph


def standing(graph: Graph) -> dict[str, Any]:
    """Return how many are banned, how much was refused, and of whom, as JSON has it."""
    refused = graph.admission.refused
    reasons = [
        {"reason": why, "envelopes": count, "bytes": size}
        for why, (count, size) in sorted(refused.reasons.items())
    ]
    authors = [
        {"author": owner_name(author), "reason": why, "envelopes": count}
        for author, (why, count) in sorted(refused.authors.items())
    ]
    return {
        "banned": len(graph.admission.banned()),
        "refused": refused.envelopes,
        "refusals": {"reasons": reasons, "authors": authors},
    }


def refusals(found: dict[str, Any], most: int = 5) -> Iterator[str]:
    """Yield what a person wants to know of it, a line each."""
    told = found["refusals"]
    for one in told["reasons"]:
        of = [each["author"] for each in told["authors"] if each["reason"] == one["reason"]]
        more = f" and {len(of) - most} more" if len(of) > most else ""
        whom = f": {', '.join(of[:most])}{more}" if of else ""
        yield f"refused, {one['reason']}: {count_of(one['envelopes'], 'envelope')}{whom}"
