"""The state of a show on the chain for anybody who watches it: its funding and the audience line, as shown on the
page."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

from dtp.broadcast.money import shows
from dtp.broadcast.money.air import Air, count_unposted, state_on_chain
from dtp.broadcast.money.audience import AudienceLine
from dtp.broadcast.producing import parse_show
from dtp.chain import OLDEST
from dtp.chain.node.client import ChainClient
from dtp.chain.show import EntryAsked, Raised
from dtp.chain.wallet import money
from dtp.config import data_dir
from dtp.errors import ChainError, ConfigError
from dtp.identity import Identity
from dtp.identity.private import make_private_folder
from dtp.replacing import replace_file
from dtp.tasks import SupervisedTask

#: The most entries of the line that the page shows.
SHOWN: Final = 50
#: Seconds between two reads of the chain, beside its events, since the pot changes as slots are posted.
_LOOK: Final = 5.0
#: Seconds after which the page says that the chain hasn't answered.
_OLD: Final = 4 * _LOOK


class Dismissed:
    """The numbers of entries that a moderator has dismissed, in a file, so that they don't come back."""

    def __init__(self, path: Path) -> None:
        """Raise `ConfigError` for a file that can't be read."""
        self._path = path
        try:
            self.numbers = (
                {int(each) for each in json.loads(path.read_text())} if path.exists() else set[int]()
            )
        except (OSError, ValueError, TypeError) as fault:
            raise ConfigError(f"{path} can't be read: {fault}; remove it to see all entries again") from None

    def add_number(self, number: int) -> None:
        """Add a number. Raise `ConfigError` if the file can't be written."""
        self.numbers.add(number)
        try:
            make_private_folder(self._path.parent)
            replace_file(self._path, json.dumps(sorted(self.numbers)).encode())
        except OSError as fault:
            raise ConfigError(f"can't write {self._path}: {fault.strerror}") from fault


def dismissed_of(show: str) -> Dismissed:
    """Return what was dismissed from a show's line on this machine. Raise `BroadcastError` if `show` isn't an
    id."""
    return Dismissed(data_dir() / "shows" / f"{parse_show(show).hex()}.dismissed")


class ShowWatcher:
    """Follows a show on the chain. `async with` opens it."""

    def __init__(
        self,
        chain: ChainClient,
        id: str,
        identity: Identity | None = None,
        dismissed: Dismissed | None = None,
        air: Callable[[], Air] | None = None,
    ) -> None:
        """`identity` is the producer's, for what is sealed to it. `dismissed` has earlier dismissals. `air` returns
        the show's state as the producer sees it, who sends nothing that it can't post, which the chain doesn't
        know."""
        self._chain, self._id, self._dismissed, self._air = chain, id, dismissed, air
        self.line = AudienceLine(identity)
        for number in () if dismissed is None else dismissed.numbers:
            self.line.dismiss(number)
        self._found: shows.Found | None = None
        #: The number of slots that are over but not posted, and when the chain said so, by the loop's clock.
        self._unposted, self._read_at = 0, 0.0
        self._news = asyncio.Event()
        self._tasks = [
            SupervisedTask(self._follow_events, name="dtp-show-line", foreseen=(ChainError,)),
            SupervisedTask(
                partial(shows.read_at_news, self._news, _LOOK, self._read_show),
                name="dtp-show-look",
                longest_pause=_LOOK,
                foreseen=(ChainError,),
            ),
        ]

    async def __aenter__(self) -> ShowWatcher:
        """Raise as `read_show` does."""
        await self._read_show()
        for each in self._tasks:
            each.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        for each in self._tasks:
            await each.stop()

    async def _follow_events(self) -> None:
        self.line.begin_anew()  # or additions by others would count twice
        async for each in shows.events_of(self._chain, self._id, start=OLDEST):
            if isinstance(each, EntryAsked):
                self.line.add_entry(each)
            elif isinstance(each, Raised):
                self.line.raise_entry(each)
            else:
                self._news.set()

    async def _read_show(self) -> None:
        found = await shows.read_show(self._chain, self._id)
        chain_ms = (await self._chain.service_info()).timestamp_ms
        self._unposted = 0 if chain_ms is None else count_unposted(found.show, chain_ms)
        self._found, self._read_at = found, asyncio.get_running_loop().time()

    def dismiss_entry(self, number: int) -> None:
        """Remove an entry for good, which was answered or isn't wanted. Raises `ConfigError`."""
        self.line.dismiss(number)
        if self._dismissed is not None:
            self._dismissed.add_number(number)

    def make_page(self) -> dict[str, Any]:
        """Return the show's state in words, with amounts in its coin."""
        assert self._found is not None, "only while it is open"
        show, coin = self._found.show, self._found.coin
        told = state_on_chain(show, 0)
        air = told if self._air is None else self._air()
        is_paused = air == Air.PAUSED and told == Air.ON_AIR
        old_s = asyncio.get_running_loop().time() - self._read_at
        shown = {
            "show": show.id,
            "air": str(air),
            #: Nobody pays now, since no slots are posted: the producer can't, or is away.
            "is_unposted": is_paused or self._unposted > show.batch,
            #: Seconds since the chain was last read; None if that was just now.
            "old_s": old_s if old_s >= _OLD else None,
            "pot": money(show.pot, coin),
            "is_unspent": show.pot > 0,
            "next_slot": money(show.next_slot, coin),
            "slot_s": show.slot_ms / 1000,
            "paid": money(show.released, coin),
            "tips": money(show.tipped, coin),
            "rate": money(show.rate, coin) if show.rate else None,
            "lasts_s": show.paid_slots * show.slot_ms / 1000 if show.rate else None,
            "starts_at": money(show.start_pot, coin) if show.rate else None,
            "tickets": None if show.rate else {"held": show.tickets, "wanted": show.fewest},
            "ticket": money(show.ticket_price, coin) if show.ticket_price else None,
            "start_by_ms": show.start_by_ms or None,
        }
        ranked = self.line.ranked()
        line = [
            {
                "number": each.number,
                "kind": each.kind.name.lower(),
                "amount": money(each.amount, coin),
                "raised": each.raised,
                "text": each.text or ("(sealed)" if each.sealed else ""),
            }
            for each in ranked[:SHOWN]
        ]
        return {**shown, "line": line, "more": len(ranked) - len(line)}
