"""`dtp chat` as somebody at a terminal has it: what they see, and what they press."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from post_office import PostOffice

pytest.importorskip("textual")

from textual.pilot import Pilot
from textual.widgets import Input, OptionList, Static

from dtp.cli.chat.app import ChatApp
from dtp.messaging.person.messenger import Messenger

Test = Callable[[Callable[[PostOffice], Awaitable[None]]], None]


class PatientChat(ChatApp):
    """What it told stays until a test has looked: on a machine under load that may be minutes later."""

    NOTIFICATION_TIMEOUT = 3600.0


class Screen:
    """What somebody sees, and does."""

    def __init__(self, pilot: Pilot[None]) -> None:
        self.pilot = pilot
        self.app = pilot.app

    def lines(self, widget: str) -> list[str]:
        listed = self.app.query_one(widget, OptionList)
        return [str(each.prompt) for each in listed.options]

    @property
    def messages(self) -> list[str]:
        """Without the time of each."""
        return [re.sub(r"\A(\d{4}-\d\d-\d\d )?\d\d:\d\d ", "", line) for line in self.lines("#messages")]

    @property
    def rooms(self) -> list[str]:
        return [" ".join(line.split()) for line in self.lines("#rooms")]

    @property
    def typing(self) -> str:
        return str(self.app.query_one("#typing", Static).render())

    @property
    def told(self) -> list[str]:
        return [each.message for each in self.app._notifications]

    async def write(self, text: str) -> None:
        self.app.query_one("#write", Input).value = text
        await self.pilot.press("enter")

    async def until(self, holds: Callable[[], Any]) -> None:
        """Wait until it holds; the test has a limit."""
        while not holds():
            await self.pilot.pause()
            await asyncio.sleep(0.01)


@asynccontextmanager
async def opened(app: ChatApp) -> AsyncIterator[Screen]:
    async with app.run_test(size=(100, 30)) as pilot:
        yield Screen(pilot)
        app.workers.cancel_all()  # as quitting does, before the widgets go


def chat(messenger: Messenger, body: Callable[[Screen], Awaitable[None]]) -> Awaitable[None]:
    async def run() -> None:
        async with opened(PatientChat(messenger)) as screen:
            await body(screen)

    return run()
