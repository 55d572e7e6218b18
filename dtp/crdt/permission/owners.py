"""Names of authors in souls, and which souls are whose. docs/graph.md, "Owned souls"."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from dtp.identity import bech32


@lru_cache(maxsize=8192)
def owner_name(author: bytes) -> str:
    """Return how souls name the author that owns them: `dtp1...`, as `PeerId` writes it, whether or not the key is
    one."""
    return bech32.encode("dtp", author)


def owned_soul(author: bytes, path: str = "") -> str:
    """Return the soul of an author's own at `path`: only that author, and whom it lets, can write there."""
    return f"~{owner_name(author)}/{path}" if path else f"~{owner_name(author)}"


#: Below an owner's soul: rings of private nodes (`dtp.graph.permission.private`).
RINGS: Final = ".rings"
#: Below an owner's soul: whom it bans in this graph (`dtp.graph.permission.admission`).
BANS: Final = ".bans"
#: Below an identity's soul: which sums of others' frames it agrees to (`dtp.graph.permission.agreement`).
AGREED: Final = ".agreed"
#: Below an identity's soul: which version of each text and list it has seen (`dtp.graph.upkeep.compacting`).
SEEN: Final = ".seen"
#: A register there: what was said before it doesn't count, as less is here than was then.
SEEN_ANEW: Final = "anew"
#: Below an identity's soul: whose stranded work it has signed again (`dtp.graph.past.resigning`).
RECOVERED: Final = ".recovered"
#: At an identity's own soul: its static key and the proof of it.
STATIC_KEY: Final = "static"
#: Below an owner's soul: what it says itself, whatever it grants.
_SAID_ALONE: Final = (BANS, AGREED, SEEN, RECOVERED)


def is_reserved(owner: bytes, soul: str, key: str) -> bool:
    """Return whether only the owner writes there, whatever it grants: with other rings or keys its sealed nodes are
    lost, and whom it bans, what it agrees to, has seen and has recovered it says itself."""
    return is_reserved_of(owner_name(owner), soul, key)


def is_reserved_of(owner: str, soul: str, key: str) -> bool:
    """Return whether only the owner of this name writes there, as `is_reserved` does."""
    own = f"~{owner}"
    if soul == own:
        return key == STATIC_KEY
    if not soul.startswith(f"{own}/."):
        return False
    below = soul[len(own) + 1 :]
    return below.startswith(f"{RINGS}/") or below in _SAID_ALONE


def may_write(author: bytes, soul: str) -> bool:
    """Return whether ops of the author on this soul count by themselves: it is nobody's, or the author's own."""
    own = owned_soul(author)
    return not soul.startswith("~") or soul == own or soul.startswith(f"{own}/")
