"""A show that is paid for, of a `dtpd` in a process of its own, on the chain of a `dtp localnet`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

import dtp
from dtp.broadcast.errors import ShowSealed
from dtp.broadcast.hearing import listen_to
from dtp.broadcast.money import shows
from dtp.broadcast.money.shows import ShowTerms
from dtp.broadcast.sealed.admission import Refusal
from dtp.chain import ChainClient, KeySigner, find_network, publish
from dtp.chain.show import ShowState
from dtp.identity import Identity
from dtp.pay.hosting import make_host

from ..conftest import PATIENCE
from ..programs import (
    Place,
    place,  # noqa: F401  # a fixture
)

pytestmark = pytest.mark.slow
RATE = 1000
TERMS = ShowTerms(slot_ms=1000, rate=RATE, start_pot=2 * RATE, batch=2)
#: Writes a line each 20 ms for as long as it runs.
TICKER = "import itertools, time; [(print(n, flush=True), time.sleep(0.02)) for n in itertools.count()]"


def toml(show: Any, network: Any) -> Any:
    command = json.dumps([sys.executable, "-c", TICKER])
    return f"""[daemon]
listen = ["tcp://127.0.0.1:0"]
[chain]
network = "{network}"
[[expose]]
service = "show"
kind = "broadcast"
allow = ["*"]
[expose.broadcast]
show = "{show}"
command = {command}
cut = "lines"
store = "shows"
"""


@pytest.fixture
def paying(place: Place, monkeypatch: pytest.MonkeyPatch) -> Any:  # noqa: F811
    """A network of this test, and a producer and a payer that have money on it."""
    monkeypatch.setenv("DTP_HOME", str(place.folder / "home"))  # packages are noted there, for both
    producer, payer = place.identity("origin"), Identity.generate()
    fund = [each for one in (producer, payer) for each in ("--fund", one.id.sui_address)]
    ports = ("--port", 0, "--faucet-port", 0)
    node = place.program(sys.executable, "-P", "-m", "dtp", "localnet", "--json", *ports, *fund)
    ready = node.event("listening")
    return replace(find_network(ready["url"]), faucet=ready["faucet"]), ready["url"], producer, payer


@pytest.mark.parametrize("hosts", [0, 2])
def test_a_daemon_sells_the_keys_of_its_show(place: Place, paying: Any, hosts: Any) -> Any:  # noqa: F811
    """Under the host that its file names, where its wallet has several."""
    network, url, producer, payer = paying
    file = toml("", url).replace('show = ""', 'key-price = "0.001SUI"\nkey-listen = "tcp://127.0.0.1:0"')

    def sold_at() -> Any:
        said = json.loads(place.command("status", "--json", "-c", place.folder / "origin.toml"))
        return said["exposed"][0]["broadcast"].get("keys_sold_at", "")

    async def first(address: Any, **options: Any) -> Any:
        async with contextlib.aclosing(aiter(listen_to(address, **options))) as segments:  # type: ignore[type-var]
            async for each in segments:
                if each.data:
                    return each.data
        raise AssertionError("the show has ended")

    async def scenario() -> Any:
        async with asyncio.timeout(PATIENCE):
            async with ChainClient(network, KeySigner.from_identity(producer)) as own:
                await publish(own, "transport")
                made = [(await make_host(own)).host.id for _ in range(hosts)]
            named = file.replace("[chain]", f'[chain]\nhost = "{made[0]}"') if made else file
            _, (exposed,) = await asyncio.to_thread(place.dtpd, "origin", named)
            address = exposed["address"]
            with pytest.raises(ShowSealed) as refused:
                await first(address)
            assert refused.value.refusal in (Refusal.FOR_SALE, Refusal.NOT_INVITED)  # not for sale yet
            wallet = KeySigner.from_identity(payer)
            buy = partial(dtp.connect, wallet=wallet, network=network, budget="0.1SUI")
            while True:
                with contextlib.suppress(ShowSealed):  # not for sale yet
                    data = await first(address, identity=payer, buy=buy)
                    assert (await asyncio.to_thread(sold_at)).startswith(
                        f"dtp://{made[0]}/" if made else "dtp://0x"
                    )
                    return data

    assert asyncio.run(scenario()).strip().isdigit()


def test_a_daemon_is_on_air_while_its_show_is_paid_for(place: Place, paying: Any) -> Any:  # noqa: F811
    network, url, producer, payer = paying

    def air() -> Any:
        said = json.loads(place.command("status", "--json", "-c", place.folder / "origin.toml"))
        return said["exposed"][0]["broadcast"].get("air")

    async def until(chain: Any, show: Any, is_so: Any) -> Any:
        """Look at the show each time that the chain says that something has happened to it."""
        async with contextlib.aclosing(shows.events_of(chain, show, start=0)) as news:  # type: ignore[type-var]
            async for _ in news:
                if is_so(found := (await shows.read_show(chain, show)).show):
                    return found
        raise AssertionError("the events have ended")

    async def scenario() -> None:
        async with asyncio.timeout(PATIENCE), AsyncExitStack() as stack:
            signers = [KeySigner.from_identity(each) for each in (producer, payer)]
            own, ours = [await stack.enter_async_context(ChainClient(network, each)) for each in signers]
            await publish(own, "broadcast")
            show, _ = await shows.create(own, producer.id.key, TERMS)
            daemon, (exposed,) = await asyncio.to_thread(place.dtpd, "origin", toml(show, url))
            heard = []

            async def listen() -> None:
                async for each in listen_to(exposed["address"], start=0):
                    assert not each.missed
                    heard.append((each.segment.slot, each.data))

            listening = asyncio.create_task(listen())
            await asyncio.to_thread(daemon.log, "show: off")
            assert await asyncio.to_thread(air) == "off"
            await shows.fund(ours, show, 3 * RATE)
            # The pot is empty: three slots were posted, and nothing is sent that nobody pays.
            paused = await until(ours, show, lambda it: it.posted == 3)
            assert (paused.state, paused.pot, paused.earned) == (ShowState.OFF, 0, 3 * RATE)
            await asyncio.to_thread(daemon.log, "show: paused")
            assert await asyncio.to_thread(air) == "paused"
            await shows.fund(ours, show, 100 * RATE)
            await until(ours, show, lambda it: it.posted >= 5)
            await shows.end(own, show)
            await listening
            lines = [data for _, data in heard if data]
            # the command is run while the show is on air, and ended meanwhile
            assert lines.count(b"0\n") == 2
            assert {slot for slot, data in heard if data} >= {1, 2, 3}
            earned, _ = await shows.collect(own, show)
            back = sum(each.amount for each in await shows.refund(ours, show))
            assert earned + back == 103 * RATE

    asyncio.run(scenario())
