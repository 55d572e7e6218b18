"""The devices that are no longer their persons', as operations of a group say.

A value: the same for everybody who has the same operations. Source: docs/messaging.md, "Operations of groups".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from dtp.identity.card import CardOrder

if TYPE_CHECKING:
    from dtp.messaging.conversation.operations import Operation

#: Times that a group is read, at most, until retirements cover what removals had seen: a long chain of these would
#: otherwise keep others reading for hours.
MAX_READINGS: Final = 8
#: By person and device, the ids of its valid retirements.
Retired = dict[tuple[bytes, bytes], list[bytes]]


def find_retirements(
    statements: Iterable[Operation], is_disowned: Callable[[Operation, Retired], bool]
) -> Retired:
    """Return those of the operations with a card that retire a device.

    An operation retires a device that its card doesn't name, unless a newer card of the person, in another
    operation, names the device. Newer cards are read first: they may have retired the device that has signed an
    older one.
    """
    shown, named = [], dict[tuple[bytes, bytes], CardOrder]()
    for each in statements:
        if (card := each.card) is None:
            continue
        shown.append((card.order, each))
        for device in card.devices:
            key = each.author, device.key
            named[key] = max(named.get(key, card.order), card.order)
    retired: Retired = {}
    for order, each in sorted(shown, key=lambda each: (each[0], each[1].id), reverse=True):
        key = each.author, each.subject
        if (key in named and order <= named[key]) or is_disowned(each, retired):
            continue
        retired.setdefault(key, []).append(each.id)
    return retired
