"""What a removal has seen of the removed member's messages: what counts of them, whenever they come.

Source: docs/messaging.md, "Operations of groups".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from dtp.messaging.conversation.events import ID_BYTES, MAX_CLOCK
from dtp.messaging.packing import is_number

#: Devices of the removed member of which a removal says what it has seen, at most: those that spoke last.
MAX_HEARD: Final = 32


@dataclass(frozen=True, slots=True)
class LastHeard:
    """The last event, by id and clock, that the remover's device showed of each device of the one removed. What was
    said before the clock `since` it may not have: it came later, or was restored."""

    since: int = 0
    last: tuple[tuple[bytes, int], ...] = ()

    @property
    def fields(self) -> list[object]:
        """What an operation says of it."""
        return [self.since, [list(each) for each in self.last]]

    @classmethod
    def read(cls, fields: Any) -> LastHeard | None:
        """Return what an operation says, None for anything else."""
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


#: What a removal has seen that says nothing of it: what is shown stays.
UNTOLD: Final = LastHeard(MAX_CLOCK + 1)


class SeenByRemovals:
    """What the removals of somebody have seen, any of them: `places` has the device and number of those of their
    events that are here."""

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
        """True if an event of this clock counts, which came from this device as what has this number.

        What is `shown` stays for as long as that can't be told: while what a removal names hasn't come, or where a
        device of ours has passed the event on.
        """
        if device is not None and number is not None and number <= self._last.get(device, 0):
            return True
        upto = self._highest if device is None else self._missing
        return shown and (clock < self._since or clock <= upto)
