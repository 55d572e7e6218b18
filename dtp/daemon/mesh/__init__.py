"""How the daemon takes part in a network of nodes: `[node]` of its file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dtp.daemon.config.model import Config
from dtp.daemon.mesh.absent import Member
from dtp.identity import Identity
from dtp.session.limits import Limits

if TYPE_CHECKING:
    from dtp.peers.private import PrivateNetwork

__all__ = ["Member", "member_of"]


def member_of(config: Config, identity: Identity, limits: Limits, network: PrivateNetwork | None) -> Member:
    """Return the daemon's membership of a network of nodes. The code for it is only loaded if the file has
    `[node]`."""
    if config.node is None:
        return Member()
    from dtp.daemon.mesh.member import NodeMember

    return NodeMember(config.node, identity, limits, network)
