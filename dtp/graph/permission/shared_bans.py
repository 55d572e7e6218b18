"""Bans that are said in a graph, by those who have the say there or are followed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from dtp.core import crdt as core
from dtp.crdt import values
from dtp.crdt.permission.owners import BANS
from dtp.identity import CardError, PeerId
from dtp.identity.card import PREFIX, parse_account
from dtp.identity.peer_id import PeerIdError

if TYPE_CHECKING:
    from dtp.graph.graph import Graph


def owner_of(graph: str) -> str | None:
    """Return the name of who has the say in the graph of this name: the identity or account that it begins with."""
    name = graph.partition("/")[0]
    return name if is_owner(name) else None


def is_owner(name: str) -> bool:
    """Return whether this is the name of an identity or an account."""
    try:
        parse_account(name) if name.startswith(f"{PREFIX}1") else PeerId.parse(name)
    except (CardError, PeerIdError):
        return False
    return True


class SharedBans:
    """Whom some owners have banned in a graph, as it was read last."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        #: Author -> the names of those who ban it.
        self.authors: dict[bytes, tuple[str, ...]] = {}
        self._told: dict[str, bytes] = {}  # owner's name -> its bans, as they were read last

    def read(self, owners: Iterable[str]) -> None:
        """Read what these owners have banned by now."""
        replica = self._graph.replica
        told = {
            name: replica.core.read_keys(core.REGISTER, values.encode_name(f"~{name}/{BANS}"))
            for name in owners
        }
        if told != self._told:
            self._told = told
            self.authors = _read_shared(told)


def _read_shared(told: Mapping[str, bytes]) -> dict[bytes, tuple[str, ...]]:
    """Return author -> the names of those who ban it, out of what they say."""
    found: dict[bytes, tuple[str, ...]] = {}
    for owner, bans in sorted(told.items()):
        for name, value in values.decode(bans).items():
            if value is True and is_owner(name) and not name.startswith(f"{PREFIX}1"):
                author = PeerId.parse(name).key
                found[author] = (*found.get(author, ()), owner)
    return found
