"""What is remembered of channels: ages and rations that a clock which is set can't stretch."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from dtp.chain.errors import ObjectMissing
from dtp.pay.server.book import BookLimits, ChannelBook, TooManyQuestions, affordable

from ..meters import CHANNEL
from .test_claims import NOW, channel

DAY = 86_400
OTHER = "0x" + "0d" * 32


class Asked:
    """A book over a chain that says what the test wants; how often it was asked, and the time."""

    def __init__(self, **limits: Any) -> None:
        self.now = NOW / 1000
        self.found = None
        self.asked = 0
        chain = SimpleNamespace(read=self._read)
        self.book = ChannelBook(chain, limits=BookLimits(**limits), clock=lambda: self.now)

    async def _read(self, schema: Any, cls: Any, id: Any) -> Any:
        self.asked += 1
        if self.found is None:
            raise ObjectMissing("there is none")
        return self.found


def test_what_is_not_there_is_asked_again_soon_also_when_the_clock_is_set_back() -> None:
    async def scenario() -> None:
        asked = Asked()
        for _ in range(3):
            assert await asked.book.find(CHANNEL, "source") is None
        assert asked.asked == 1
        asked.found = channel()
        asked.now -= DAY
        assert await asked.book.find(CHANNEL, "source") == asked.found

    asyncio.run(scenario())


def test_what_is_not_there_is_not_asked_about_each_time() -> None:
    async def scenario() -> None:
        asked = Asked()
        await asked.book.find(CHANNEL, "source")
        asked.now += 1.9
        await asked.book.find(CHANNEL, "source")
        assert asked.asked == 1
        asked.now += 0.2
        await asked.book.find(CHANNEL, "source")
        assert asked.asked == 2

    asyncio.run(scenario())


@pytest.mark.parametrize(("later", "asked_again"), [(29.9, 0), (30.1, 1), (-1.0, 1)])
def test_what_is_known_is_read_again_when_it_is_old_or_of_the_future(later: Any, asked_again: Any) -> None:
    async def scenario() -> None:
        asked = Asked()
        asked.found = channel()
        await asked.book.find(CHANNEL, "source")
        asked.now += later
        await asked.book.find(CHANNEL, "source")
        assert asked.asked == 1 + asked_again

    asyncio.run(scenario())


def test_rations_end_also_when_the_clock_is_set_back() -> None:
    async def scenario() -> None:
        asked = Asked(source_burst=3, source_interval=1e-6, all_interval=1e-6)
        for _ in range(2):
            await asked.book.read_again(CHANNEL, "source")
        asked.now -= DAY
        await asked.book.read_again(CHANNEL, "source")
        for _ in range(2):
            await asked.book.read_again(CHANNEL, "source")

    asyncio.run(scenario())


def test_questions_are_rationed_for_each_source_and_in_all() -> None:
    async def scenario() -> None:
        asked = Asked(source_burst=2, source_interval=3600.0, all_burst=3, all_interval=3600.0)
        for _ in range(2):
            await asked.book.read_again(CHANNEL, "one")
        with pytest.raises(TooManyQuestions, match="channels from one"):
            await asked.book.read_again(CHANNEL, "one")
        await asked.book.read_again(CHANNEL, "another")
        with pytest.raises(TooManyQuestions):
            await asked.book.read_again(CHANNEL, "a third")
        assert asked.asked == 3

    asyncio.run(scenario())


def test_who_asks_at_the_same_time_shares_a_question() -> None:
    async def scenario() -> None:
        asked = Asked(source_burst=1, source_interval=3600.0)
        asked.found = channel()
        found = await asyncio.gather(*(asked.book.find(CHANNEL, "source") for _ in range(5)))
        assert found == [asked.found] * 5
        assert asked.asked == 1

    asyncio.run(scenario())


def test_the_book_is_bounded() -> None:
    asked = Asked(channels=2, missing=1, sources=1, source_burst=100, all_burst=100)

    async def scenario() -> None:
        for id in (CHANNEL, OTHER):
            await asked.book.find(id, id)
        assert list(asked.book._missing) == [OTHER]
        assert len(asked.book._sources) == 1
        for number in range(3):
            asked.book.add_read(channel(id=f"0x{number}"))
        assert asked.book.get_known("0x0") is None
        assert asked.book.get_known("0x2").channel.id == "0x2"

    asyncio.run(scenario())


def test_a_lane_may_have_what_others_have_neither_vouched_nor_claimed() -> None:
    made = channel(deposited=1000, balance=1000)
    assert affordable(made, 0, {}) == 1000
    assert affordable(made, 1, {0: 300, 1: 200}) == 700


def test_what_has_gone_is_not_known_any_more() -> None:
    async def scenario() -> None:
        asked = Asked()
        asked.found = channel()
        assert await asked.book.find(CHANNEL, "source") == asked.found
        asked.found = None
        assert await asked.book.read_again(CHANNEL, "source") is None
        assert await asked.book.find(CHANNEL, "source") is None
        assert asked.book.get_known(CHANNEL) is None
        made = channel()
        asked.book.add_read(made)  # of another node, which is ahead
        assert await asked.book.find(CHANNEL, "source") == made

    asyncio.run(scenario())
