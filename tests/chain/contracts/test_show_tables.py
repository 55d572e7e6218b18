"""The tables of docs/broadcast.md: what posting costs by batch, and what a producer takes who sends nothing."""

import re
from pathlib import Path

import pytest

from dtp.chain import show
from dtp.chain.model import MIST_PER_SUI

from .test_show import HASH, SLOT, do, make, pay, play, take_back

__all__ = ["play"]
TEXT = (Path(__file__).parents[3] / "docs" / "broadcast.md").read_text()
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


#: How many slots have passed when the listener leaves, and how many of them the producer has posted.
LEAVING = {
    "in the first slot": lambda batch: (0, 0),
    "n slots later, all of which are posted": lambda batch: (batch, batch),
    "n slots later, none of which is posted": lambda batch: (batch, 0),
    "2 n slots later, none of which is posted": lambda batch: (2 * batch, 0),
    "one later than that": lambda batch: (2 * batch + 1, 0),
}


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 3, 10])
@pytest.mark.parametrize("row", rows("What a producer takes who sends nothing"), ids=lambda row: row[0])
def test_what_is_lost_is_as_the_table_says(play, net, row, batch):
    lost = {"1": 1, "n + 1": batch + 1, "0": 0}[row[1]]
    passed, posted = LEAVING[row[0]](batch)

    async def scenario(producer, listener):
        id, cap = await make(producer, show.new_funded, rate=100, start_pot=100, batch=batch)
        share, _ = await pay(listener, show.contribute, id, 100_000)
        if passed:
            net.advance_clock(passed * SLOT)
        if posted:
            await do(producer, show.post, id, cap, [HASH] * posted)
        assert 100_000 - await take_back(listener, id, share) == 100 * lost

    play(scenario)


def test_the_tables_name_every_scheme_and_bound():
    assert [row[0] for row in rows("What a producer takes who sends nothing")] == list(LEAVING)
    assert [int(row[0]) for row in rows("What posting costs")] == [1, 2, 10, 64]
    assert re.search(r"`--batch`, 10", TEXT)
