"""Where the rings of private nodes are: docs/graph.md, "Private nodes"."""

from __future__ import annotations

from typing import Final

from dtp.crdt.permission.owners import RINGS

#: The register that has the ring.
RING_KEY: Final = "ring"


def ring_soul(soul: str) -> str:
    """Return the soul of the ring that a node at this soul, an owned one, has if it is private."""
    owner, _, path = soul.partition("/")
    return f"{owner}/{RINGS}/{path}"
