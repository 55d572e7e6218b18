"""The page of a show, for `dtp show broadcast` and `dtp show listen`, and what is kept of its moderation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Final

import click

from dtp.broadcast.gateway.server import Gateway
from dtp.broadcast.hearing import ShowStream
from dtp.broadcast.producing import Broadcast
from dtp.cli.accounts import WalletOptions
from dtp.cli.output import print_line
from dtp.errors import DtpError

if TYPE_CHECKING:
    from dtp.broadcast.money.watching import ShowWatcher
    from dtp.chain import ChainClient

#: Seconds for which a page is told why nothing more comes, before the server ends; pages ask twice a second.
_TOLD: Final = 3.0


def parse_place(ctx: click.Context, param: click.Parameter, text: str | None) -> tuple[str, int] | None:
    """Return the host and port of `HOST:PORT`; None if nothing was given."""
    if text is None:
        return None
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise click.BadParameter(f"{text!r} is not a place: write 127.0.0.1:8080")
    return host.strip("[]") or "127.0.0.1", int(port)


@asynccontextmanager
async def watching(account: WalletOptions, show: str) -> AsyncIterator[ShowWatcher]:
    """Follow a show on the chain for a listener. Nothing is signed."""
    from dtp.broadcast.money.watching import ShowWatcher

    async with account.make_client(signing=False) as chain, ShowWatcher(chain, show) as watcher:
        yield watcher


@asynccontextmanager
async def page_of(
    on_air: Broadcast, place: tuple[str, int] | None, chain: ChainClient | None = None
) -> AsyncIterator[None]:
    """Serve the producer's page, if it is wanted: of a show of the chain with its money, and to moderate its line."""
    if place is None:
        yield
        return
    async with AsyncExitStack() as stack:
        money, dismiss = None, None
        if chain is not None:
            from dtp.broadcast.money.watching import ShowWatcher, dismissed_of

            id = "0x" + on_air.announcement.show.hex()
            keeper = on_air.keeper
            air = None if keeper is None else lambda: keeper.air
            watcher = ShowWatcher(chain, id, on_air.identity, dismissed_of(id), air)
            await stack.enter_async_context(watcher)
            money, dismiss = watcher.make_page, watcher.dismiss_entry
        gateway = Gateway(on_air.held, *place, open=on_air.open_segment, money=money, dismiss=dismiss)
        page = await stack.enter_async_context(gateway)
        print_line({"event": "gateway", "url": page.url}, page.url, err=True)
        yield


@asynccontextmanager
async def page_beside(
    stream: ShowStream,
    place: tuple[str, int] | None,
    money: Callable[[], AbstractAsyncContextManager[ShowWatcher]] | None,
) -> AsyncIterator[Gateway | None]:
    """Serve a listener's page beside the block, if it is wanted, and behind it until this is ended from outside: who
    watches may be behind. Where listening fails the page says why, before that is raised."""
    if place is None:
        yield None
        return
    async with AsyncExitStack() as stack:
        watcher = None if money is None else await stack.enter_async_context(money())
        told = None if watcher is None else watcher.make_page
        held = await stream.receiver.wait_opened()
        page = await stack.enter_async_context(Gateway(held, *place, open=stream.open_segment, money=told))
        print_line({"event": "gateway", "url": page.url}, page.url)
        try:
            yield page
        except DtpError as fault:
            page.fault = str(fault)
            await asyncio.sleep(_TOLD)
            raise
        await asyncio.Event().wait()
