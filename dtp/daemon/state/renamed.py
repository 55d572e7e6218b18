"""Bans of daemons of a host object that kept them by identity: before there was the host, or a name for it."""

from __future__ import annotations

import time

from dtp.daemon import state
from dtp.daemon.config.model import Config

#: The end of a mark: it ended long ago, so that it keeps nobody out and no daemon tells of it.
_MARKED = 1.0


async def take_over_bans(config: Config, identity: object) -> None:
    """Keep out under the host object's name, where that is used, who was kept out by the name of `identity`.

    Each ban once, or one that was ended there would begin again with each start. It stays in the old place, where
    the process that is replaced reads it. Raises `StateError`.
    """
    before, now = str(identity), time.time()
    name = config.counted_as(identity)
    if config.state is None or config.state_name is not None or name == before:
        return
    old, new = state.make(config.state, before), state.make(config.state, name)
    try:
        await old.open()
        known = await old.list_bans(0.0)  # marks, too
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
