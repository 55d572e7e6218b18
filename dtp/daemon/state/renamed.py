"""Bans that daemons of a host object kept under their identity, before there was a host or a name for it."""

from __future__ import annotations

import time

from dtp.daemon import state
from dtp.daemon.config.model import Config

#: The end of a mark: in the past, so that it bans nobody and no daemon reports it.
_MARKED = 1.0


async def take_over_bans(config: Config, identity: object) -> None:
    """Copy the bans kept under the name of `identity` to the host object's name, where that is used.

    Each ban is copied once, or a ban that was lifted there would return with each start. It also stays in the old
    place, where the replaced process reads it. Raise `StateError`.
    """
    before, now = str(identity), time.time()
    name = config.counted_as(identity)
    if config.state is None or config.state_name is not None or name == before:
        return
    old, new = state.make(config.state, before), state.make(config.state, name)
    try:
        await old.open()
        known = await old.list_bans(0.0)  # including marks
        left = {caller: until for caller, until in known.items() if until > now}
        left = {caller: until for caller, until in left.items() if _mark(caller, until) not in known}
        if not left:
            return
        await new.open()
        there = await new.list_bans(now)
        for caller, until in left.items():
            if until > there.get(caller, 0.0):
                await new.ban(caller, until)
            await old.ban(_mark(caller, until), _MARKED)
    finally:
        await old.close()
        await new.close()


def _mark(caller: str, until: float) -> str:
    return f"{caller} until {until!r}: taken over"
