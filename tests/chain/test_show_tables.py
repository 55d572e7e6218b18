"""The tables of docs/broadcast.md: what posting costs by batch, and what a producer takes who sends nothing."""

import re
from pathlib import Path

import pytest

from dtp.chain import show
from dtp.chain.errors import MoveAborted
from dtp.chain.model import MIST_PER_SUI
from dtp.chain.show import ShowError

from .test_show import HASH, SLOT, do, make, pay, play, take_back

__all__ = ["play"]
TEXT = (Path(__file__).parents[2] / "docs" / "broadcast.md").read_text()
#: What a slot of 30 s brings at 0.02 SUI a minute.
PRICE = MIST_PER_SUI // 100


def rows(heading):
    """The cells of the table behind a heading of the page."""
    table = TEXT.partition(f"### {heading}\n")[2].partition("\n### ")[0].partition("\n## ")[0]
    found = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in table.splitlines()
        if line.startswith("| ")
    ]
    assert found, heading
    return found[1:]


@pytest.mark.slow
@pytest.mark.parametrize("row", rows("What posting costs"), ids=lambda row: row[0])
def test_what_posting_costs_is_as_the_table_says(play, net, row):
    batch, mist, percent = int(row[0]), int(row[1].replace(",", "")), float(row[2].removesuffix(" %"))

    async def scenario(producer, listener):
        id, cap = await make(producer, show.new_funded, rate=PRICE, start_pot=PRICE, batch=batch)
        await pay(listener, show.contribute, id, 3 * 64 * PRICE)
        gas = []
        for _ in range(2):  # the first one may pay for what is stored once
            net.advance_clock(batch * SLOT)
            executed = await do(producer, show.post, id, cap, [HASH] * batch)
            gas.append(executed.gas.net)
        assert round(gas[1] / batch) == mist
        assert round(100 * gas[1] / batch / PRICE, 1) == percent

    play(scenario)


#: What the producer does in each slot after the listener has asked to leave: so many slots are posted.
SCHEMES = {
    "posts each slot": lambda batch: [1] * (2 * batch + 2),
    "posts full batches": lambda batch: [*([0] * (batch - 1)), batch] * 2,
    "posts nothing": lambda batch: [0] * (2 * batch + 2),
    "waits, and posts a batch at the last moment": lambda batch: [*([0] * batch), batch, *([0] * batch)],
    "posts what it is owed, and waits": lambda batch: [*([0] * batch), batch, *([0] * batch)],
}


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 3, 10])
@pytest.mark.parametrize("row", rows("What a producer takes who sends nothing"), ids=lambda row: row[0])
def test_what_is_lost_is_as_the_table_says(play, net, row, batch):
    most = batch if row[1] == "n" else int(row[1])

    async def scenario(producer, listener):
        id, cap = await make(producer, show.new_funded, rate=100, start_pot=100, batch=batch)
        share, _ = await pay(listener, show.contribute, id, 100_000)
        owed = batch - 1 if row[0].startswith("posts what it is owed") else 0
        if owed:  # these were sent
            net.advance_clock(owed * SLOT)
        await do(listener, show.leave, id, share)
        if owed:
            await do(producer, show.post, id, cap, [HASH] * owed)
        back = None
        for count in SCHEMES[row[0]](batch):
            net.advance_clock(SLOT)
            if count:
                try:
                    await do(producer, show.post, id, cap, [HASH] * count)
                except MoveAborted as fault:
                    if fault.error is not ShowError.TOO_EARLY:
                        raise
            try:
                back = await take_back(listener, id, share)
                break
            except MoveAborted as fault:
                if fault.error is not ShowError.STILL_LEAVING:
                    raise
        assert back is not None, "it waits for longer than a batch and a slot"
        assert 100_000 - back == 100 * (owed + most)
        assert owed + most <= 2 * batch + 1

    play(scenario)


def test_the_tables_name_every_scheme_and_bound():
    assert [row[0] for row in rows("What a producer takes who sends nothing")] == list(SCHEMES)
    assert [int(row[0]) for row in rows("What posting costs")] == [1, 2, 10, 64]
    assert re.search(r"`--batch`, 10", TEXT)
