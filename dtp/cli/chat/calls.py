"""Calls in `dtp chat`: one at a time, with whom the room is with."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Final

from dtp.cli.chat.mistakes import ChatMistake
from dtp.messaging.calls.book import Phase
from dtp.messaging.calls.calling import ActiveCall, Calls, Media
from dtp.messaging.calls.signals import Reason

#: Makes this end's media of a call, which sends a file where one is named.
MakeMedia = Callable[[str | None], Media]

_PHASES: Final = {
    Phase.RINGING: "{name} is calling: /answer, or /hangup",
    Phase.RINGS_THERE: "it rings at {name}'s",
    Phase.TALKING: "in a call with {name}: /hangup ends it",
}
_REASONS: Final = {
    Reason.HUNG_UP: "the call with {name} is over",
    Reason.REFUSED: "{name} doesn't take the call",
    Reason.BUSY: "{name} is in another call",
    Reason.NO_ANSWER: "nobody has answered the call with {name}",
    Reason.TAKEN: "another device has taken the call of {name}",
    Reason.FAILED: "no sound or picture gets through to {name}",
    Reason.CROSSED: "{name} was calling as well: that call goes on",
}


class ChatCalls:
    """The call of a chat, if there is one. `tell` is given what happens to it, `run` runs what follows it."""

    def __init__(
        self,
        calls: Calls,
        make_media: MakeMedia,
        tell: Callable[[str], None],
        run: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self._calls, self._make_media, self._tell, self._run = calls, make_media, tell, run
        self._call: ActiveCall | None = None

    async def follow_calls(self) -> None:
        """Ring as long as this runs. A call ends with it."""
        async with self._calls as calls:
            async for call in calls:
                self._call = call
                self._run(self._follow_phases(call))

    async def call_person(self, person: bytes, file: str | None) -> str:
        """Call a person, and return their name. Raise `ChatMistake` in a group, and as `Calls.call`."""
        if (contact := self._calls.messenger.find_contact(person)) is None:
            raise ChatMistake("calls are for two: go to the room of somebody")
        self._call = await self._calls.call(person, self._make_media(file))
        self._run(self._follow_phases(self._call))
        return contact.name

    async def answer_call(self, file: str | None) -> None:
        """Answer the call that rings. Raise `ChatMistake` where none does, and as `ActiveCall.answer`."""
        if self._call is None or self._call.phase is not Phase.RINGING:
            raise ChatMistake("nobody is calling")
        await self._call.answer(self._make_media(file))

    async def hang_up(self) -> None:
        """End the call, or refuse the one that rings. Raise `ChatMistake` where there is none."""
        if self._call is None or self._call.phase is Phase.OVER:
            raise ChatMistake("there is no call")
        if self._call.phase is Phase.RINGING:
            await self._call.refuse()
        else:
            await self._call.hang_up()

    async def _follow_phases(self, call: ActiveCall) -> None:
        name = call.contact.name
        async for phase in call.phases():
            if text := _PHASES.get(phase):
                self._tell(text.format(name=name))
        self._tell(_REASONS[call.reason or Reason.FAILED].format(name=name))
