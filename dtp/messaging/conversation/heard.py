"""What the remover had received of a removed member's messages when it removed them. It decides which of these
messages count, whenever they come.

Source: docs/messaging.md, "Operations of groups".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from dtp.messaging.conversation.events import ID_BYTES, MAX_CLOCK
from dtp.messaging.packing import is_number

#: Devices of the removed member that a removal names, at most: those that have spoken last.
MAX_HEARD: Final = 32


@dataclass(frozen=True, slots=True)
class LastHeard:
    """The last event that the remover's device showed of each device of the removed member, by id and clock. The
    remover may lack events from before the clock `since`: its device came later, or was restored.
    """

    since: int = 0
    last: tuple[tuple[bytes, int], ...] = ()

    @property
    def fields(self) -> list[object]:
        """The value as it is encoded in an operation."""
        return [self.since, [list(each) for each in self.last]]

    @classmethod
    def read(cls, fields: Any) -> LastHeard | None:
        """Return the value that an operation encodes, or None if it is malformed."""
        match fields:
            case [since, [*told]] if is_number(since, MAX_CLOCK) and len(told) <= MAX_HEARD:
                pass
            case _:
                return None
        last = []
        for each in told:
            match each:
                case [bytes(event), clock] if len(event) == ID_BYTES and is_number(clock, MAX_CLOCK):
                    last.append((event, clock))
                case _:
                    return None
        return cls(since, tuple(last))


#: Stands for a removal that says nothing of what it has seen: all that is shown stays.
UNTOLD: Final = LastHeard(MAX_CLOCK + 1)


class SeenByRemovals:
    """What the removals of one person have seen, together. `places` maps events that are here to their device and
    number.
    """

    def __init__(self, removals: Iterable[LastHeard], places: Mapping[bytes, tuple[bytes, int]]) -> None:
        told = list(removals)
        self._since = max((each.since for each in told), default=0)
        self._last: dict[bytes, int] = {}
        last = [each for removal in told for each in removal.last]
        for event, _ in last:
            if event in places:
                device, number = places[event]
                self._last[device] = max(number, self._last.get(device, 0))
        self._highest = max((clock for _, clock in last), default=0)
        self._missing = max((clock for event, clock in last if event not in places), default=0)

    def has_seen(self, clock: int, device: bytes | None, number: int | None, *, shown: bool) -> bool:
        """True if an event counts that has this clock, and came from `device` under `number`.

        An event that is `shown` stays as long as this can't be decided: while an event that a removal names hasn't
        come, or if another of our own devices passed the event on.
        """
        if device is not None and number is not None and number <= self._last.get(device, 0):
            return True
        upto = self._highest if device is None else self._missing
        return shown and (clock < self._since or clock <= upto)
