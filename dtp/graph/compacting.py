"""Forgetting text that is deleted and that everybody has seen so. docs/text.md, "Compaction".

Each author says in its own frames which version of which text it has. When all others that wrote in the graph have
said it, what is deleted in all these versions is forgotten here. Somebody who wasn't asked and writes on is no harm:
the text is built again from the frames then.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from dtp.core.text import TextFormat
from dtp.crdt import values
from dtp.crdt.owners import owned
from dtp.crdt.text import Version

if TYPE_CHECKING:
    from dtp.crdt import Replica

#: Below an author's soul: the versions that it has, by text.
SEEN: Final = ".seen"


def name_of(soul: str, key: str) -> str:
    """Where a report on a text is: BLAKE2b-128 of its soul and key, in base32."""
    digest = hashlib.blake2b(values.encode([soul, key]), digest_size=16).digest()
    return base64.b32encode(digest).decode().rstrip("=").lower()


def report(replica: Replica) -> int:
    """Say which version of each text with something deleted is here, where that is news; how many."""
    node = replica.node(owned(replica.author, SEEN))
    count = 0
    for soul, key in replica.texts.names():
        text = replica.text(soul, key)
        version = text.encoded_version()
        if text.deleted and node.get(name_of(soul, key)) != version:
            node[name_of(soul, key)] = version
            count += 1
    return count


def compact(replica: Replica, others: Iterable[bytes]) -> int:
    """Forget what all these have reported, which are all other authors that may write; how many characters."""
    nodes = {author: replica.node(owned(author, SEEN)).to_dict() for author in others}
    forgotten = 0
    for name in replica.texts.names():
        reports = {author: _version(node.get(name_of(*name))) for author, node in nodes.items()}
        if all(reports.values()):
            known = {author: one for author, one in reports.items() if one}
            forgotten += replica.texts.compact(name, known)
    return forgotten


def _version(data: object) -> Version | None:
    try:
        return Version.decode(data) if isinstance(data, bytes) and data else None
    except TextFormat:
        return None
