"""Messages and notices that wait for the program."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import TypeAlias

from dtp.messaging.person.notices import CallSignalled, Notice, NoticeQueue, What, list_without_calls

#: The place of a message: its conversation, sender and id.
MessagePlace: TypeAlias = tuple[bytes, bytes, bytes]


class MessengerInbox:
    """Messages and notices, in the order in which they came. Signals of calls are passed on at once."""

    def __init__(self) -> None:
        #: Called with each signal about a call, by `Calls`. Without it, calls are missed.
        self.on_call_signal: Callable[[CallSignalled], None] | None = None
        self._messages: asyncio.Queue[MessagePlace] = asyncio.Queue()
        self.notices = NoticeQueue()

    def add(self, notices: Iterable[Notice | CallSignalled]) -> list[Notice]:
        """Add notices, and return those that wait for the program now."""
        added = []
        for each in notices if self.on_call_signal else list_without_calls(notices):
            if isinstance(each, CallSignalled):
                if self.on_call_signal is not None:
                    self.on_call_signal(each)
                continue
            if each.what is What.MESSAGE:
                self._messages.put_nowait((each.conversation, each.person, each.message))
            self.notices.put(each)
            added.append(each)
        return added

    def add_messages(self, places: Iterable[MessagePlace]) -> None:
        """Queue these messages after those that already wait."""
        for each in places:
            self._messages.put_nowait(each)

    async def next_message(self) -> MessagePlace:
        """Wait for a message, and return its place."""
        return await self._messages.get()
