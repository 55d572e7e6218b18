"""Forgetting text that is deleted and that everybody has seen so. docs/text.md, "Compaction".

Each author says in its own frames which version of which text it has. When all others that wrote in the graph have
said it, what is deleted in all these versions is forgotten here. Somebody who wasn't asked and writes on is no harm:
the text is built again from the frames then.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from dtp.crdt.permission.owners import SEEN, owned_soul
from dtp.crdt.sequences import name_in_seen, version_said

if TYPE_CHECKING:
    from dtp.crdt import Replica
    from dtp.graph.graph import Graph


async def forget(graph: Graph, gone: set[bytes]) -> int:
    """Forget deleted text that all others but those who are `gone` have seen; return how many characters went."""
    graph.check_writable()
    graph.check_whole("forgetting deleted text")
    await graph.commits.commit()
    async with graph.hold_replica() as replica:
        left = gone | {graph.identity.id.key}
        forgotten = compact_texts(replica, [one for one in graph.frames.vector() if one not in left])
        graph.commits.note_taken(forgotten)
        report_versions(replica)
        replica.core.release_memory()
        graph.admission.note_memory_released()
    await graph.commits.commit()
    return forgotten


def report_versions(replica: Replica) -> int:
    """Say which version of each text and list with something deleted is here, where that is news; how many."""
    node = replica.node(owned_soul(replica.author, SEEN))
    count = 0
    for name in replica.sequences.list_names():
        replica.check_seen(name)
    for name in replica.sequences.list_names():
        text = replica.sequences.open_sequence(name)
        version = text.encoded_version()
        said = name_in_seen(*name)
        if text.deleted and not (replica.has_said_seen(replica.author, said) and node.get(said) == version):
            node[said] = version
            count += 1
    return count


def compact_texts(replica: Replica, others: Iterable[bytes]) -> int:
    """Forget what all these have reported, which are all other authors that may write; how many characters."""
    nodes = {author: replica.node(owned_soul(author, SEEN)).to_dict() for author in others}
    forgotten = 0
    for name in replica.sequences.list_names():
        said = name_in_seen(*name)
        reports = {
            author: version_said(node.get(said)) if replica.has_said_seen(author, said) else None
            for author, node in nodes.items()
        }
        if all(reports.values()):
            known = {author: one for author, one in reports.items() if one}
            forgotten += replica.sequences.compact_sequence(name, known)
    return forgotten
