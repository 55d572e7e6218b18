"""How running code says that it stopped: raised inside the machine, made an `ExecutionFailure` at its door.

They carry no location: the translated frame in which they were raised knows it (`machine.locate`).
"""

from __future__ import annotations

__all__ = [
    "CACHED_OBJECTS",
    "DELETED_IDS",
    "EVENTS",
    "EVENTS_SIZE",
    "EVENT_SIZE",
    "NEW_IDS",
    "TRANSFERRED_IDS",
    "VECTOR_INDEX_OUT_OF_BOUNDS",
    "VECTOR_POP_EMPTY",
    "VECTOR_TOO_LONG",
    "VECTOR_UNPACK_PARITY",
    "Abort",
    "MemoryLimit",
    "NativeAbort",
    "PrimitiveError",
    "Stopped",
    "VmLimit",
]

VECTOR_INDEX_OUT_OF_BOUNDS = 1
VECTOR_POP_EMPTY = 2
VECTOR_UNPACK_PARITY = 3
VECTOR_TOO_LONG = 4

# Numbers of `MemoryLimit`.
EVENTS = 0
EVENT_SIZE = 1
NEW_IDS = 2
DELETED_IDS = 3
TRANSFERRED_IDS = 4
CACHED_OBJECTS = 5
EVENTS_SIZE = 7


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
    error; `message` more than the reason says."""

    message = ""

    def __init__(self, reason: str, number: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.number = number


class MemoryLimit(PrimitiveError):
    """A limit of the protocol on objects or events, `number`, in a native: the location is the native's."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__("memory_limit", number)
        self.message = message


class VmLimit(Stopped):
    """The machine can't go on with what it holds; `status` is the failure's protocol name."""

    def __init__(self, status: str, message: str) -> None:
        super().__init__(message)
        self.status = status
