"""Native functions of the framework: those that have no bytecode, one table per subject, joined here.

A native takes the session's meter `c` (with `c.session`), the type arguments and the arguments, in the machine's
representation (`dtp.localnet.vm.types`), and returns None, one value or a tuple. It aborts with `NativeAbort`. Prices
are in internal gas units, from the protocol's published configuration; sizes are those of `dtp.localnet.vm.sizes`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dtp.localnet.vm.natives import crypto, plain
from dtp.localnet.vm.natives import object as objects

__all__ = ["NATIVES", "Native"]

Native = Callable[..., Any]

NATIVES: dict[tuple[int, str, str], Native] = {**plain.TABLE, **objects.TABLE, **crypto.TABLE}
"""(package as a number, module, function) -> implementation."""
