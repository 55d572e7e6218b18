"""Room in a daemon's mailbox, paid on the chain of a `dtp localnet`: a `dtpd` in a process of its own."""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from dtp.chain import ChainClient, KeySigner, find_network, publish
from dtp.daemon.config.reading import ConfigMistakes
from dtp.identity import Identity
from dtp.messaging.mailbox.limits import MIB
from dtp.messaging.person.messenger import Messenger
from dtp.messaging.person.notices import What
from dtp.messaging.person.rent import Rent

from ..conftest import PATIENCE, config
from ..programs import (
    Place,
    place,  # noqa: F401  # a fixture
)

ROOM = """[daemon]
listen = ["tcp://127.0.0.1:0"]
{chain}
[[expose]]
service = "dtp.mailbox"
kind = "mailbox"
allow = ["*"]
[expose.mailbox]
store = "box.sqlite"
{room}
"""
PRICE = 'price-mib-month = "0.01SUI"\npay-listen = "tcp://127.0.0.1:0"\n'


@pytest.mark.slow
def test_a_daemon_sells_room_in_its_mailbox(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setenv("DTP_HOME", str(place.folder / "home"))
    seller, buyer = place.identity("origin"), Identity.generate()
    fund = [each for one in (seller, buyer) for each in ("--fund", one.id.sui_address)]
    ports = ("--port", 0, "--faucet-port", 0)
    node = place.program(sys.executable, "-P", "-m", "dtp", "localnet", "--json", *ports, *fund)
    url = node.event("listening")["url"]
    network = find_network(url)

    async def scenario() -> None:
        async with asyncio.timeout(PATIENCE), AsyncExitStack() as stack:
            async with ChainClient(network, KeySigner.from_identity(seller)) as own:
                await publish(own, "transport")
            text = ROOM.format(chain=f'[chain]\nnetwork = "{url}"', room=PRICE)
            _, (exposed,) = await asyncio.to_thread(place.dtpd, "origin", text)
            chain = await stack.enter_async_context(ChainClient(network, KeySigner.from_identity(buyer)))
            assert chain.signer is not None
            rent = Rent(chain.signer, 2, "0.01SUI", network=chain, store=place.folder / "pay.sqlite")
            options: dict[str, Any] = {
                "store": place.folder / "alice.db",
                "mailboxes": [exposed["address"]],
                "rent": rent,
            }
            alice = await stack.enter_async_context(Messenger(identity=buyer, **options))
            await alice.wait_reached()
            (address,) = alice.card.mailboxes
            while not alice.tasks.renting.last_notices:  # it sells as soon as the chain has its host
                await alice.tasks.renting.pay_due(address, alice.delivery.own[address])
            assert [each.what for each in alice.tasks.renting.last_notices] == [What.ROOM_PAID]
            status, asked = await alice.tasks.renting.read_room(address)
            assert (status.reserved, asked.mib_month) == (2 * MIB, 10_000_000)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("chain", "room", "why"),
    [
        ("", PRICE, r"needs \[chain\]"),
        ('[chain]\nnetwork = "localnet"', 'free-bytes = "2MiB"', "only applies with price-mib-month"),
        ('[chain]\nnetwork = "localnet"', 'grace = "2d"', "only applies with price-mib-month"),
    ],
)
def test_a_price_takes_a_chain_and_what_belongs_to_it_takes_a_price(
    tmp_path: Path, chain: str, room: str, why: str
) -> None:
    with pytest.raises(ConfigMistakes, match=why):
        config(tmp_path, ROOM.format(chain=chain, room=room))


SHOW = """[[expose]]
service = "{name}"
kind = "broadcast"
allow = ["*"]
[expose.broadcast]
title = "A show"
command = ["cat"]
key-price = "0.001SUI"
"""
CHAIN = '[chain]\nnetwork = "localnet"'


@pytest.mark.parametrize(
    ("chain", "room", "more", "why"),
    [
        (CHAIN, PRICE, SHOW.format(name="a"), "key-price: .* of price-mib-month already"),
        (CHAIN, "", SHOW.format(name="a") + SHOW.format(name="b"), "key-price: .* of key-price already"),
        (f'{CHAIN}\nhost = "0x70"\nendpoint = "tcp://box:9700"', PRICE, "", "month: .* of endpoint already"),
        (CHAIN, PRICE, "", ""),
        (CHAIN, "", SHOW.format(name="a"), ""),
    ],
)
def test_a_daemon_sells_one_thing_beside_its_listener(
    tmp_path: Path, chain: str, room: str, more: str, why: str
) -> None:
    text = ROOM.format(chain=chain, room=room) + more
    if not why:
        config(tmp_path, text)
        return
    with pytest.raises(ConfigMistakes, match=why):
        config(tmp_path, text)
