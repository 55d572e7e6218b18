"""`dtp show watch` in a terminal: the state of a show and its sorted audience line, kept up to date."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from dtp.chain import ChainClient
    from dtp.identity import Identity

#: Seconds between two updates.
_REFRESH = 0.5
#: Lines of the screen that aren't entries of the audience line: the state of the show, and the number of entries
#: left out.
_BESIDE = 6


def screen(page: Mapping[str, Any], lines: int) -> Group:
    """Return what a terminal with this many lines shows of a page (`ShowWatcher.make_page`)."""
    head = [f"next slot {page['next_slot']}", f"paid {page['paid']}", f"tips {page['tips']}"]
    if page["tickets"]:
        head.insert(0, f"{page['tickets']['held']} tickets held of {page['tickets']['wanted']} needed")
    else:
        head.insert(0, f"{page['pot']} in the pot")
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name, justify in (("no.", "right"), ("kind", "left"), ("paid", "right"), ("text", "left")):
        table.add_column(name, justify=justify, overflow="fold")  # type: ignore[arg-type]
    shown = page["line"][: max(1, lines - _BESIDE)]
    for each in shown:
        paid = each["amount"] + (f" (raised {each['raised']}x)" if each["raised"] else "")
        table.add_row(str(each["number"]), each["kind"], paid, Text(each["text"]))
    left_out = page["more"] + len(page["line"]) - len(shown)
    air = Text(page["air"], style="bold")
    if page["is_unposted"]:
        air.append("   no slots are posted, so nobody pays for them: its producer isn't there, or can't post")
    if page["old_s"] is not None:
        air.append(f"   the chain hasn't answered for {page['old_s']:.0f} s", style="dim")
    parts = [
        air,
        Text("   ".join(head)),
        Text(),
        table if shown else Text("nobody has asked yet"),
    ]
    if left_out:
        parts.append(Text(f"and {left_out} more, for less", style="dim"))
    return Group(*parts)


async def show_live(chain: ChainClient, show: str, identity: Identity) -> None:
    """Show it until this is interrupted. `identity` opens what is sealed to it."""
    from dtp.broadcast.money.watching import ShowWatcher, dismissed_of

    console = Console()
    async with ShowWatcher(chain, show, identity, dismissed_of(show)) as watcher:
        with Live(console=console, auto_refresh=False) as live:
            while True:
                live.update(screen(watcher.make_page(), console.size.height), refresh=True)
                await asyncio.sleep(_REFRESH)
