"""Functions that only the module of a type may call for it: which, and for which of their type parameters.

Sui's verifier holds modules to it at publish, transactions can't call them at all: no type is their own.
The names are those of `private_generics_verifier_v2` in Sui's repository.
"""

from __future__ import annotations

from typing import Final

__all__ = ["internal_parameters"]

_STD: Final = (1).to_bytes(32, "big")
_SUI: Final = (2).to_bytes(32, "big")

_INTERNAL: Final[dict[tuple[bytes, str], tuple[str, ...]]] = {
    (_STD, "internal"): ("permit",),
    (_SUI, "event"): ("emit", "emit_authenticated"),
    (_SUI, "transfer"): ("transfer", "freeze_object", "share_object", "receive", "party_transfer"),
    (_SUI, "coin_registry"): ("new_currency",),
}


def internal_parameters(package: bytes, module: str, function: str) -> tuple[int, ...]:
    """Return the type parameters that take only types of the calling module; `package` is the original id."""
    return (0,) if function in _INTERNAL.get((package, module), ()) else ()
