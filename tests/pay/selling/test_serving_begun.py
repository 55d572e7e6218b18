"""What a service is begun with: what was asked for is there before the first client comes."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from dtp.chain import host as host_module
from dtp.chain.host import Mode, ServiceKind
from dtp.chain.host_state import service_number
from dtp.chain.pipes.posts import hint_of
from dtp.errors import LocalError
from dtp.identity import Identity
from dtp.net.address import Address
from dtp.net.dial import connect
from dtp.net.driver import ClosedInHandshake
from dtp.net.reachable import is_any_url
from dtp.pay.errors import StoreError
from dtp.pay.server.book import BookLimits
from dtp.pay.serving import Selling, hint_among
from dtp.session.limits import DEFAULT

from ..buying.test_paid import give
from ..conftest import TERMS, Market, Play, owned_by


async def endpoints_of(market: Market, serving: Any) -> Any:
    """The endpoints of a service's host that the chain says are alive."""
    owned = await owned_by(serving)
    beacon = await serving.chain.read(host_module.SCHEMA, host_module.Beacon, owned.host.beacon)
    return beacon.live_endpoints(market.chain.now_ms())


def test_what_is_asked_for_is_begun(market: Play, tmp_path: Path) -> None:
    me, limits, book = Identity.generate(), replace(DEFAULT, handshake=77.0), BookLimits(channels=3)

    async def scenario(market: Market) -> None:
        serving = await market.serve(
            give,
            urls=["tcp://127.0.0.1:0"],
            kind=ServiceKind.HTTP,
            mode=Mode.ALLOW_LIST,
            identity=me,
            hint="tcp://there:1",
            selling=Selling(book=book, claim_every=3600),
            store=tmp_path / "pay.sqlite",
            pipe=True,
            limits=limits,
            psk=b"p" * 32,
        )
        service = (await owned_by(serving)).host.services[service_number("files")]
        assert (service.kind, service.mode, service.open) == (ServiceKind.HTTP, Mode.ALLOW_LIST, True)
        assert replace(service.terms, revision=0) == TERMS
        (endpoint,) = await endpoints_of(market, serving)
        assert (endpoint.key, endpoint.hint) == (me.id.key, hint_of("tcp://there:1", me))
        direct, piped = serving.listener.urls
        assert [urlsplit(each).scheme for each in (direct, piped)] == ["tcp", "pipe"]
        assert serving.book.limits == book
        most_ms = (
            0 if market.chain.localnet is not None else 60_000
        )  # a real chain's clock was read a while ago
        assert abs(serving.gate.now_ms() - market.chain.now_ms()) <= most_ms
        assert serving.firewall.rules is not None  # known before anybody can come
        with pytest.raises(ClosedInHandshake):  # who hasn't the key
            await connect(Address.direct(me.id, direct, "files"))
        await serving.close()
        with pytest.raises(StoreError):  # what was opened for it is closed with it
            serving.store.sold_lanes()

    market(scenario)


def test_others_find_it_where_it_listens_by_its_wallet_s_key(market: Play) -> None:
    async def scenario(market: Market) -> None:
        serving = await market.serve(give)
        (endpoint,) = await endpoints_of(market, serving)
        assert (endpoint.key, endpoint.url) == (market.server_wallet.public_key, serving.listener.urls[0])
        await serving.close()
        assert await endpoints_of(market, serving) == ()

    market(scenario)


def test_who_sends_no_heartbeats_is_served_and_found_by_nobody(market: Play) -> None:
    async def scenario(market: Market) -> None:
        serving = await market.serve(give, heartbeat=False)
        assert serving.heartbeat is None
        assert await endpoints_of(market, serving) == ()
        waiting = asyncio.ensure_future(serving.wait_replaced())
        await asyncio.sleep(0)
        assert not waiting.done()
        waiting.cancel()

    market(scenario)


@pytest.mark.parametrize("place", ["tcp://0.0.0.0:7", "ws://[::]:7/a"])
def test_nobody_is_sent_to_an_address_that_is_none(market: Play, place: str) -> None:
    """What listens at all addresses was announced as 0.0.0.0, which is whoever dials it."""
    told = hint_among(["unix:///x", place])
    assert not is_any_url(told)
    assert (urlsplit(told).scheme, urlsplit(told).port) == (urlsplit(place).scheme, 7)

    async def scenario(market: Market) -> None:
        with pytest.raises(LocalError, match="--hint"):
            await market.serve(give, hint=place)

    market(scenario)
