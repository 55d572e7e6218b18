"""What `dtp graph status` tells of what isn't shown: who is kept out, and what is dated ahead."""

from __future__ import annotations

import time
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


def waiting(graph: Graph) -> dict[str, Any]:
    """Return how many frames are dated ahead and wait, whose they are, and when the first is due, as JSON has it."""
    counts = {owner_name(one): graph.waiting_frames(one) for one in sorted(graph.frames.vector())}
    clock = graph.replica.core.first_due_clock
    return {
        "waiting": sum(counts.values()),
        "due": time.time() + graph.replica.clock.seconds_until(clock) if clock else None,
        "ahead": [author for author, count in counts.items() if count],
    }


def waiting_frames(found: dict[str, Any], most: int = 5) -> Iterator[str]:
    """Yield what a person wants to know of what waits: a line, if something does."""
    if not found["waiting"]:
        return
    of = found["ahead"]
    more = f" and {len(of) - most} more" if len(of) > most else ""
    due = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(found["due"]))
    frames = f"{count_of(found['waiting'], 'frame')} {'is' if found['waiting'] == 1 else 'are'} dated ahead"
    yield (
        f"{frames} of this machine's clock, by {', '.join(of[:most])}{more}, and shown when due: the first "
        f"at {due}"
    )
