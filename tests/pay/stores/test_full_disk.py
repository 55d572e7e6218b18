"""A server whose disk is full serves nothing that it can't be paid for, says whose fault it is, and comes back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import small_disk

from dtp.pay.errors import StoreError
from dtp.pay.store import Store
from dtp.session.codes import CloseCode, CloseDetail, ConnectionClosed, ConnectionRefused

from ..buying.test_closing_with_server import ask, echo
from ..buying.test_paid import fetch, give
from ..conftest import TRUSTING, Play
from ..meters import PRICES
from ..stored import ScriptedStore


class SmallDisk:
    """A file system of 16 MiB of its own, which can be filled."""

    def __init__(self, folder: Any) -> None:
        self.folder, self.store = folder, Store(folder / "pay.sqlite")

    def fill(self) -> None:
        small_disk.fill(self.folder)

    def make_room(self) -> None:
        small_disk.make_room(self.folder)


class Refusing:
    """A store in the place of whose disk a test says that it is full."""

    def __init__(self, folder: Any) -> None:
        self.store = ScriptedStore(folder / "pay.sqlite")
        self._full = ExitStack()

    def fill(self) -> None:
        names = ("receive_now", "received_all", "save_served", "save_agreement")
        self._full.enter_context(self.store.failing(*names))

    def make_room(self) -> None:
        self._full.close()


@pytest.fixture(params=["a real file system", "a store that says so"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    folder = tmp_path / "small"
    folder.mkdir()
    if request.param != "a real file system":
        yield Refusing(folder)
        return
    with small_disk.mounted(folder):
        yield SmallDisk(folder)


async def fetch_on(connection: Any) -> None:
    for _ in range(40):  # far beyond the exposure
        await fetch(connection, 3_000_000)


def away(fault: Any) -> None:
    told = fault.value
    assert (told.close_code, told.detail) == (CloseCode.BUSY, CloseDetail.VOUCHERS_NOT_STORED)
    assert "no fault of yours" in told.reason


def test_a_server_with_a_full_disk_serves_nobody_until_there_is_room(market: Play, disk: Any) -> None:
    """It served on, and whoever came again heard INTERNAL."""

    async def scenario(made: Any) -> None:
        store = made.stack.enter_context(disk.store)
        await made.serve(give, store=store)
        buyer, other = await made.buyer(), await made.buyer()
        async with made.connect(buyer, budget=1_000_000_000, keep=True) as connection:
            await fetch(connection, 200_000)
            disk.fill()
            with pytest.raises(ConnectionClosed) as ended:
                await fetch_on(connection)
        away(ended)
        (channel,) = buyer["store"].bought_channels()
        stored = store.vouched_sums(channel.channel).get(0, 0)
        # Nobody is served, who has paid before or not.
        for each in (buyer, other):
            with pytest.raises(ConnectionRefused) as refused:
                await made.connect(each, budget=1_000_000_000, keep=True)
            away(refused)
        disk.make_room()
        async with made.connect(buyer, budget=1_000_000_000, keep=True) as again:
            served = PRICES.cost_of(store.sold_lane(channel.channel, 0).used)
            assert 0 < served - stored <= max(TRUSTING.first_amount, stored // 2)
            await fetch(again, 1000)
        # ... and all of it was paid when there was room.
        assert store.vouched_sums(channel.channel)[0] == again.paid >= served
        async with made.connect(other) as connection:
            await fetch(connection, 1000)

    market(scenario)


def test_a_fault_of_one_channel_keeps_no_other_from_being_served(market: Play) -> None:
    """What could not be written was one channel's: the next that is written shows that the disk is there."""

    async def scenario(made: Any) -> None:
        serving = await made.serve(echo)

        with serving.store.failing("keep_preimage"), pytest.raises(StoreError):
            await serving.journal.run(lambda store: store.keep_preimage("0x1", 0, bytes(32)))
        assert serving.journal.fault is not None
        async with made.connect(await made.buyer()) as connection:
            await ask(connection)
        assert serving.journal.fault is None

    market(scenario)
