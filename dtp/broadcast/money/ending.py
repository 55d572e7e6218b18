"""Ends a show without loss for its producer: what it is owed is posted first, by the process that knows it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from typing import Final

from dtp.broadcast.errors import ShowBusy
from dtp.broadcast.kept_position import KeptPosition
from dtp.broadcast.money import shows
from dtp.broadcast.money.air import Slots
from dtp.broadcast.money.keeping import ShowKeeper
from dtp.broadcast.places import is_heard_at
from dtp.broadcast.producing import parse_show
from dtp.chain import Executed
from dtp.chain.node.client import ChainClient
from dtp.chain.show import ShowState

#: Seconds for the process that broadcasts a show to post what it is owed, and to end it.
_BROADCASTER: Final = 30.0
#: Seconds between two checks whether it has.
_LOOK: Final = 0.5


async def end_show(
    chain: ChainClient, id: str, store: str | os.PathLike[str], *, unposted: bool = False
) -> Executed | None:
    """End a show; return what was executed, or None if the process that broadcasts it from `store` has ended it.

    That process first posts what it is owed; if it was killed, this function does. Raise `ShowBusy` for a show that
    is on air from elsewhere, unless `unposted`, since slots that were sent but not posted would be lost. Also raise
    what `shows.end` raises.
    """
    show = parse_show(id)
    if KeptPosition.ask_to_end(store, show) and await _is_ended(chain, id):
        return None
    found = (await shows.read_show(chain, id)).show
    if found.state == ShowState.ON_AIR and not unposted:
        await shows.cap_of(chain, id)
        where = found.hint.decode(errors="replace")
        if not await _post_kept(chain, id, store, show) and await is_heard_at(where):
            raise ShowBusy(
                f"the show is on air from elsewhere, at {where}, and what was sent and isn't posted yet would be "
                "lost: end it there, or with --unposted"
            )
    return await shows.end(chain, id)


async def _is_ended(chain: ChainClient, id: str) -> bool:
    """Wait until the show has ended; return False if that takes too long."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_BROADCASTER):
            while (await shows.read_show(chain, id)).show.state != ShowState.ENDED:  # noqa: ASYNC110
                await asyncio.sleep(_LOOK)
            return True
    return False


async def _post_kept(chain: ChainClient, id: str, store: str | os.PathLike[str], show: bytes) -> bool:
    """Post what a process that was killed has sent from `store`; return False if nothing was sent."""
    kept = KeptPosition(store, show) if KeptPosition.is_in(store, show) else None
    if kept is None:
        return False
    with contextlib.closing(kept):
        before = kept.load()
        if before is None:
            return False
        sent = Slots(before[1].slot, before[1].link)
        async with await ShowKeeper.open(chain, id, lambda: int(time.time() * 1000), slots=sent) as keeper:
            await keeper.post_owed()
    return True
