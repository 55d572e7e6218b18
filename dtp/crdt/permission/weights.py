"""How much memory verdicts need for what they depend on, about: strangers may fill it, a few bytes for each entry."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from dtp.crdt.permission.accounts import AccountStanding
    from dtp.crdt.permission.grants import Revocation
    from dtp.crdt.permission.rules import Offence

#: Bytes of memory for each byte of a document of rules, once it is read.
DOCUMENT_BYTE: Final = 64
#: Bytes for each document that an author has shipped, grant that it uses, account and generation that it has shown,
#: rate, and clock that a rate counts.
SHIPPED: Final = 200
GRANT: Final = 1_100
SHOWN: Final = 400
RATE: Final = 1_000
CLOCK: Final = 48
_ONCE: Final = 350
_OFFENCE: Final = 500
_ENDED: Final = 200


def weigh_once(names: Iterable[tuple[str, int, str, str]]) -> int:
    """Return the bytes of so many ops that may be made once."""
    return sum(_ONCE + len(soul) + len(key) for _, _, soul, key in names)


def weigh_offence(offence: Offence) -> int:
    """Return the bytes of an offence."""
    return _OFFENCE + CLOCK * len(offence.earlier)


def weigh_revocation(revocation: Revocation | None) -> int:
    """Return the bytes of what was revoked of a grant."""
    return 0 if revocation is None else _ENDED * (3 + len(revocation.clocks))


def weigh_standing(standing: AccountStanding | None) -> int:
    """Return the bytes of what is known of an account's devices."""
    return 0 if standing is None else _ENDED * (3 + len(standing.named) + len(standing.clocks))
