"""How running code says that it stopped: raised inside the machine, made an `ExecutionFailure` at its door.

They carry no location: the translated frame in which they were raised knows it (`machine.locate`).
"""

from __future__ import annotations

__all__ = [
    "VECTOR_INDEX_OUT_OF_BOUNDS",
    "VECTOR_POP_EMPTY",
    "VECTOR_UNPACK_PARITY",
    "Abort",
    "NativeAbort",
    "PrimitiveError",
    "Stopped",
    "VmLimit",
]

VECTOR_INDEX_OUT_OF_BOUNDS = 1
VECTOR_POP_EMPTY = 2
VECTOR_UNPACK_PARITY = 3


class Stopped(Exception):
    """Base: the program can't go on."""


class Abort(Stopped):
    """The `Abort` instruction."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class NativeAbort(Abort):
    """A native function aborted: the location is the native's own."""


class PrimitiveError(Stopped):
    """An instruction failed: `reason` is `arithmetic`, `vector`, `variant`, `call_depth`, ...; `number` a vector
    error."""

    def __init__(self, reason: str, number: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.number = number


class VmLimit(Stopped):
    """A limit of the protocol on objects, events or types; `status` is its protocol name."""

    def __init__(self, status: str, message: str) -> None:
        super().__init__(message)
        self.status = status
