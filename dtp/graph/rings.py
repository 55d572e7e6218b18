"""Where the rings of private nodes are: docs/graph.md, "Private nodes"."""

from __future__ import annotations

from typing import Final

#: Below an owner's soul: the rings of its private nodes, by path.
RINGS: Final = ".rings/"
#: The register that has the ring.
RING_KEY: Final = "ring"


def ring_soul(soul: str) -> str:
    """The soul of the ring that a node at this soul, an owned one, has if it is private."""
    owner, _, path = soul.partition("/")
    return f"{owner}/{RINGS}{path}"
