"""Money drives the air: transcripts of the judge and the slots, and properties of both."""

import asyncio
import itertools
import logging
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from variants import slow_after

from dtp.broadcast.money import shows
from dtp.broadcast.money.air import Air, AirJudge, Hysteresis, Slots, state_on_chain
from dtp.broadcast.money.keeping import ShowKeeper
from dtp.broadcast.money.shows import Found, read_at_news
from dtp.broadcast.money.watching import ShowWatcher
from dtp.chain.show import FIRST_HEAD, Show, ShowState, SlotsPosted
from dtp.errors import ChainError
from dtp.testing import clock

FUNDED = Show(
    id="0x1", version=1, key=b"k" * 32, hint=b"", slot_ms=1000, batch=10, rate=100, start_pot=300, ticket_price=0,
    fewest=0, slots=0, start_by_ms=0, prices=(0, 0, 0), state=0, pot=0, earned=0, prepaid=0, shares=0, round=0,
    tickets=0, posted=0, head=FIRST_HEAD, due_ms=0, asked=0, contributed=0, released=0, returned=0, tipped=0,
    collected=0,
)  # fmt: skip
ON = replace(FUNDED, state=ShowState.ON_AIR, pot=300, due_ms=11_000)
TICKETED = replace(FUNDED, rate=0, start_pot=0, ticket_price=50, fewest=2, slots=5)


@pytest.mark.parametrize(
    ("show", "owed", "air"),
    [
        (FUNDED, 0, Air.OFF),
        (replace(FUNDED, pot=299), 0, Air.FUNDING),
        (ON, 0, Air.ON_AIR),
        (ON, 2, Air.ON_AIR),
        (ON, 3, Air.PAUSED),
        (replace(ON, pot=50, prepaid=250), 2, Air.ON_AIR),
        (replace(ON, pot=50, prepaid=249), 2, Air.PAUSED),
        (replace(ON, pot=10_000), 10, Air.ON_AIR),
        (replace(ON, pot=10_000), 11, Air.PAUSED),  # the chain takes no more than a batch
        (replace(ON, pot=10_000, batch=1), 1, Air.ON_AIR),
        (replace(ON, pot=10_000, batch=1), 2, Air.PAUSED),
        (replace(TICKETED, tickets=2, pot=100, state=ShowState.ON_AIR, due_ms=1, slots=99), 11, Air.PAUSED),
        (replace(ON, pot=99), 0, Air.PAUSED),
        (replace(FUNDED, posted=3, pot=99), 0, Air.PAUSED),
        (replace(FUNDED, state=ShowState.ENDED), 0, Air.ENDED),
        (replace(TICKETED, tickets=1, pot=50), 0, Air.FUNDING),
        (replace(TICKETED, tickets=2, pot=100, state=ShowState.ON_AIR, due_ms=11_000), 4, Air.ON_AIR),
        (replace(TICKETED, tickets=2, pot=100, state=ShowState.ON_AIR, due_ms=11_000), 5, Air.PAUSED),
    ],
)
def test_how_a_show_stands(show, owed, air):
    assert state_on_chain(show, owed) == air


def test_the_air_does_not_flap():
    judge = AirJudge(Hysteresis(floor=5.0, linger=1.0))
    poor = replace(ON, pot=50)
    told = [
        judge.judge_show(show, 0, now)
        for show, now in [
            (FUNDED, 0),
            (ON, 1),
            (poor, 2),
            (poor, 5.9),
            (poor, 6.0),
            (ON, 6.1),
            (ON, 20),
            (poor, 20.5),
        ]
    ]
    assert told == ["off", "on air", "on air", "on air", "paused", "on air", "on air", "on air"]
    assert judge.judge_show(ON, 0, 21.4) == Air.ON_AIR  # paid again in time
    assert judge.judge_show(poor, 0, 30) == Air.ON_AIR
    assert judge.judge_show(poor, 0, 31) == Air.PAUSED
    assert judge.judge_show(replace(ON, state=ShowState.ENDED), 0, 31) == Air.ENDED


def test_an_end_is_heard_at_once():
    judge = AirJudge(Hysteresis(floor=100.0, linger=100.0))
    assert judge.judge_show(ON, 0, 0) == Air.ON_AIR
    assert judge.judge_show(replace(ON, state=ShowState.ENDED), 0, 0.1) == Air.ENDED


@given(st.lists(st.tuples(st.floats(0.01, 3), st.integers(0, 500)), max_size=40))
def test_between_on_and_off_is_the_floor(steps):
    judge, now, changes, air = AirJudge(Hysteresis(floor=4.0, linger=1.0)), 0.0, [], Air.OFF
    for pause, pot in steps:
        now += pause
        told = judge.judge_show(replace(ON, pot=pot), 0, now)
        if told != air:
            changes.append((told, now))
            air = told
    for (one, begun), (_, ended) in itertools.pairwise(changes):
        if one == Air.ON_AIR:
            assert ended - begun >= 4.0


def links(count):
    return [bytes([at]) * 32 for at in range(count)]


def begun(show=ON, *before):
    """Slots of a producer that was there when the show went on air."""
    slots = Slots(*before)
    slots.update_from_chain(show, show.due_ms - show.slot_ms)
    return slots


def test_slots_are_posted_in_batches_and_where_the_money_ends():
    slots, rich = begun(), replace(ON, pot=10_000)
    for at, link in enumerate(links(12)):
        slots.note_sent(at, link)
    assert slots.current_slot(rich, 10_500) == 0
    assert slots.current_slot(rich, 13_000) == 3
    assert slots.count_over(rich, 10_999) == 0
    assert slots.count_over(rich, 11_000) == 1
    assert slots.due_hashes(rich, 18_999) == []
    assert slots.due_hashes(rich, 19_000) == links(9)
    assert slots.due_hashes(rich, 99_000) == links(10)  # no more than a batch
    assert slots.due_hashes(rich, 12_000, closing=True) == links(2)
    assert slots.due_hashes(ON, 12_999) == []
    assert slots.due_hashes(ON, 13_000) == links(3)  # the pot is spent with these
    assert slots.due_hashes(replace(ON, pot=0, prepaid=300), 13_000) == links(3)
    assert slots.due_hashes(replace(ON, state=ShowState.OFF), 13_000) == []


def test_a_slot_without_segments_has_the_link_before():
    slots = begun()
    slots.note_sent(0, b"a" * 32)
    slots.note_sent(0, b"b" * 32)
    slots.note_sent(2, b"c" * 32)
    assert slots.due_hashes(ON, 13_000) == [b"b" * 32, b"b" * 32, b"c" * 32]
    slots.note_posted(3)
    slots.update_from_chain(later := replace(ON, posted=3, due_ms=14_000), 13_500)
    assert slots.due_hashes(later, 14_000, closing=True) == [b"c" * 32]


def test_a_ticketed_show_is_posted_to_its_last_slot():
    show = replace(TICKETED, state=ShowState.ON_AIR, pot=100, due_ms=11_000)
    slots = begun(show)
    assert slots.due_hashes(show, 14_999) == []
    assert slots.due_hashes(show, 15_000) == [FIRST_HEAD] * 5
    assert slots.due_hashes(show, 99_000) == [FIRST_HEAD] * 5


def test_time_in_which_no_producer_was_there_isnt_posted():
    """It was stopped behind slot 1, and comes again an hour later: nobody pays for what nobody heard."""
    show, link, now = replace(ON, pot=10_000, posted=2, due_ms=13_000), b"a" * 32, 3_612_000
    slots = Slots(2, link)
    slots.update_from_chain(show, now)
    assert (slots.count_over(show, now), slots.current_slot(show, now)) == (0, 2)
    assert slots.due_hashes(show, now, closing=True) == []
    slots.note_sent(2, b"b" * 32)
    assert slots.due_hashes(show, now + 1_500, closing=True) == [b"b" * 32]
    slots.update_from_chain(
        later := replace(show, posted=3, due_ms=now - 6_500), now + 1_600
    )  # the chain has left out the rest
    assert slots.count_over(later, now + 1_999) == 0
    assert slots.count_over(later, now + 2_000) == 1


@pytest.mark.parametrize("behind", [0, 500, 9_000, 300_000, 86_400_000, -86_400_000])
def test_slots_that_were_sent_before_a_kill_are_owed_and_the_last_one_goes_on(behind):
    """Also by a clock that is behind the chain's: what was sent would be sent again for nothing."""
    show, link, now = replace(ON, pot=10_000), b"a" * 32, 20_000 - behind
    slots = Slots(3, link)
    slots.update_from_chain(show, now)
    assert slots.current_slot(show, now) == 3
    assert slots.due_hashes(show, now, closing=True) == [link] * 3
    slots.note_sent(3, b"b" * 32)
    slots.update_from_chain(show, now + 100)
    assert slots.due_hashes(show, now + 1000, closing=True) == [b"b" * 32] * 4


def test_a_producer_whose_clock_is_an_hour_ahead_owes_what_it_has_sent():
    hour = 3_600_000
    slots = Slots()
    slots.update_from_chain(FUNDED, hour + 9_900)
    slots.update_from_chain(ON, hour + 10_100)
    assert slots.count_over(ON, hour + 10_500) == 0
    assert slots.count_over(ON, hour + 13_000) == 3


@pytest.mark.parametrize("behind", [500, 5_000, 3_600_000])
def test_a_producer_whose_clock_is_behind_owes_what_it_has_sent(behind):
    slots = Slots()
    slots.update_from_chain(FUNDED, 9_900 - behind)
    for now in range(10_100, 13_000, 250):
        slots.update_from_chain(ON, now - behind)
    assert slots.count_over(ON, 10_500 - behind) == 0
    assert slots.count_over(ON, 13_100 - behind) == 3
    slots.update_from_chain(later := replace(ON, posted=3, due_ms=14_000), 13_200 - behind)
    assert slots.count_over(later, 13_900 - behind) == 0
    assert slots.count_over(later, 14_100 - behind) == 1


def test_a_show_that_goes_on_air_again_begins_with_its_first_slot():
    slots = begun()
    slots.update_from_chain(off := replace(ON, state=ShowState.OFF, posted=3, due_ms=14_000), 13_000)
    assert slots.count_over(off, 60_000) == 0
    slots.update_from_chain(off, 60_000)
    slots.update_from_chain(again := replace(ON, posted=3, due_ms=61_500), 60_700)
    assert (slots.current_slot(again, 61_499), slots.current_slot(again, 61_500)) == (3, 4)


def test_a_flood_of_events_has_a_show_read_once_more():
    """Each raise of a question is an event: who pays for many would have a producer late to hear of money."""
    reads = []

    async def read():
        reads.append(asyncio.get_running_loop().time())
        await asyncio.sleep(0.1)
        if len(reads) == 3:
            raise ChainError("the node is away")

    async def test():
        news, loop = asyncio.Event(), asyncio.get_running_loop()
        reading = asyncio.ensure_future(read_at_news(news, 10.0, read))
        began = loop.time()
        for _ in range(100):
            news.set()
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.2)
        assert len(reads) == 2  # one at once, and one for all that came meanwhile
        assert reads[0] == began
        with pytest.raises(ChainError):
            await reading
        assert reads[2] - reads[1] > 10  # without news
        reading = asyncio.ensure_future(read_at_news(news, 10.0, read))
        await asyncio.sleep(0.01)
        assert len(reads) == 4  # who begins again doesn't wait
        reading.cancel()

    clock.run(test())


# ---- a producer's dealings with a chain that is here -------------------------------------------------------------


@pytest.mark.parametrize("ahead", [0, 86_400_000, -86_400_000])
def test_a_ticketed_show_that_cant_start_any_more_is_ended_by_the_chains_clock(monkeypatch, ahead):
    """Else its producer would wait for ever. A clock that is a day ahead of the chain's ends none, and by one that is
    a day behind it is ended as soon."""

    async def test():
        chain = OnChain(monkeypatch, 0)
        chain.versions = [replace(TICKETED, tickets=1, pot=50, start_by_ms=chain.now_ms + 100_000)]
        wall = SimpleNamespace(off=ahead)
        async with await open_keeper(chain, wall) as keeper:
            await asyncio.sleep(99)
            assert keeper.air == Air.FUNDING
            await asyncio.sleep(21)
            assert keeper.air == Air.ENDED
        assert chain.ended == 1
        assert chain.asked_time <= 13  # each ten seconds

    clock.run(test())


def test_a_show_that_started_in_time_isnt_ended_where_a_node_is_behind(monkeypatch):
    """The last ticket was sold just before, and the node that reads the show hasn't heard of it."""

    async def test():
        chain = OnChain(monkeypatch, 0)
        late = replace(TICKETED, slots=500, tickets=1, pot=50, start_by_ms=chain.now_ms + 10_000)
        started = replace(late, tickets=2, pot=10**6, state=ShowState.ON_AIR, due_ms=chain.now_ms + 11_000)
        chain.versions = [late, started]
        chain.unknown = 1
        async with await open_keeper(chain, SimpleNamespace(off=0)) as keeper:
            await asyncio.sleep(40)
            chain.unknown = 0
            await asyncio.sleep(11)
            assert keeper.air == Air.ON_AIR
        assert chain.ended == 0

    clock.run(test())


def test_a_show_that_starts_has_its_slots_posted_also_where_its_time_wasnt_known_for_long(monkeypatch):
    async def test():
        chain = OnChain(monkeypatch, 0)
        late = replace(TICKETED, slots=500, tickets=1, pot=50, start_by_ms=chain.now_ms + 1000_000)

        async def service_info():
            raise ChainError("no answer")

        chain.versions, chain.service_info = [late], service_info
        async with await open_keeper(chain, SimpleNamespace(off=0)):
            await asyncio.sleep(300)
            started = replace(late, tickets=2, pot=10**6, state=ShowState.ON_AIR, due_ms=chain.now_ms + 1000)
            chain.versions.append(started)
            await asyncio.sleep(15)
            assert chain.show.posted

    clock.run(test())


def test_a_producer_is_warned_once_when_tickets_were_taken_back(monkeypatch, caplog):
    """It plays for fewer than it asked then, and nobody else would tell it."""

    async def test():
        chain = OnChain(monkeypatch, 0)
        on_air = replace(TICKETED, slots=500, pot=10**6, state=ShowState.ON_AIR, due_ms=chain.now_ms + 1000)
        chain.versions = [replace(on_air, tickets=2)]
        async with await open_keeper(chain, SimpleNamespace(off=0)) as keeper:
            await asyncio.sleep(15)
            assert not [each for each in caplog.messages if "taken back" in each]
            for tickets in 1, 0:
                chain.versions.append(replace(on_air, tickets=tickets))
                await asyncio.sleep(15)
            assert keeper.air == Air.ON_AIR  # whether that is worth it is for the producer to say

    clock.run(test())
    assert [each for each in caplog.messages if "taken back" in each] == [
        "1 of 2 tickets are left, since some were taken back; 'dtp show end' ends the show"
    ]


def away_rows():
    """The table of docs/broadcast.md: for how many slots a node is away, and for how many the show is sent unpaid."""
    text = (Path(__file__).parents[3] / "docs" / "broadcast.md").read_text()
    table = text.partition("### While the producer's node is away\n")[2].partition("\n#")[0]
    rows = [line.strip("|").split("|") for line in table.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in row] for row in rows[1:]]


@pytest.mark.parametrize("hangs", [False, True])
@pytest.mark.parametrize("batch", slow_after(1, [2, 1, 10]))
@pytest.mark.parametrize("row", away_rows(), ids=lambda row: row[0])
def test_while_the_node_is_away_what_is_sent_unpaid_is_as_the_table_says(monkeypatch, batch, row, hangs):
    """Else a producer would send an hour for nothing, and those who pay would hear it so. A node may also hang."""
    away = {"n - 1": batch - 1, "n + 1": batch + 1, "2 n": 2 * batch, "10 n": 10 * batch}[row[0]]
    unpaid, second = {"0": (0, 0), "1, and a second": (1, 1), "up to 1, and a second": (1, 1)}[row[1]]
    sent = 0.0

    async def scenario(chain, wall, keeper):
        nonlocal sent

        async def sleep(seconds):
            nonlocal sent
            for _ in range(round(seconds * 4)):
                sent += 0.25 * (keeper.air == Air.ON_AIR)
                await asyncio.sleep(0.25)

        before = (await chain.read_show(None, "")).show.posted
        while (await chain.read_show(None, "")).show.posted == before:
            await sleep(0.25)
        chain.away, chain.hangs = True, hangs
        await sleep(away * SLOT)
        assert (keeper.air == Air.ON_AIR) == (away <= batch + 1)
        chain.away = False
        await sleep(20)  # it is asked again each 15 s at most
        assert keeper.air == Air.ON_AIR
        await sleep(10 * SLOT * batch)

    show = keep(monkeypatch, 10**8, scenario, batch=batch, slot_ms=1000 * SLOT)
    lost = sent - show.posted * SLOT
    assert lost <= (unpaid + 1) * SLOT + second  # of the slot that runs in the end nothing is posted
    assert lost >= unpaid * SLOT * (away > batch + 1)


def test_the_table_of_what_is_sent_unpaid_is_there():
    assert [row[0] for row in away_rows()] == ["n - 1", "n + 1", "2 n", "10 n"]


#: Seconds of a slot of which it matters how many are sent unpaid: longer than a node is asked again.
SLOT = 30


class OnChain:
    """A show that takes slots as `show.move` does; what is read of it may be as it was before."""

    def __init__(self, monkeypatch, pot, **terms):
        slot_ms = terms.get("slot_ms", 1000)
        off = replace(FUNDED, **terms)
        self.versions = [off, replace(off, state=ShowState.ON_AIR, pot=pot, due_ms=self.now_ms + slot_ms)]
        self.away, self.hangs = False, False
        #: How many of the newest versions the node doesn't know.
        self.unknown = self.ended = self.asked_time = 0
        for name in ("read_show", "post", "events_of", "expire"):
            monkeypatch.setattr(shows, name, getattr(self, name))

    @property
    def now_ms(self):
        return round(asyncio.get_running_loop().time() * 1000)

    @property
    def show(self):
        return self.versions[-1]

    async def _answer(self):
        if self.away:
            if self.hangs:
                while self.away:  # noqa: ASYNC110  # a node that comes back tells nobody
                    await asyncio.sleep(0.5)
            raise ChainError("the node is away")

    async def read_show(self, chain, id):
        await self._answer()
        at = max(0, len(self.versions) - 1 - self.unknown)
        return Found(self.versions[at], "0x2::sui::SUI", at)

    async def events_of(self, chain, id, start=None):
        while True:
            await asyncio.sleep(0.7)
            yield None

    async def post(self, chain, found, cap, hashes):
        await self._answer()
        first, show = self.show.posted, self.show
        backlog = (show.batch - 1) * show.slot_ms
        show = replace(show, due_ms=max(show.due_ms, self.now_ms - backlog))
        for _ in hashes:
            assert show.due_ms <= self.now_ms  # the chain would refuse it
            show = replace(
                show, posted=show.posted + 1, pot=show.pot - 100, due_ms=show.due_ms + show.slot_ms
            )
        self.versions.append(show if show.pot >= 100 else replace(show, state=ShowState.OFF))
        return SlotsPosted("0x1", first, hashes, FIRST_HEAD, 100 * len(hashes), show.pot)

    async def expire(self, chain, found):
        if self.show.state != ShowState.OFF or self.now_ms <= self.show.start_by_ms:
            raise ChainError("it is still running")
        self.ended += 1
        self.versions.append(replace(self.show, state=ShowState.ENDED))

    def noted_by(self, notes):
        return self

    async def service_info(self):
        self.asked_time += 1
        return SimpleNamespace(timestamp_ms=self.now_ms)


def keep(monkeypatch, pot, scenario, **terms):
    """Run a scenario beside a keeper of a show on air; return what the chain has in the end."""

    async def test():
        chain, wall = OnChain(monkeypatch, pot, **terms), SimpleNamespace(off=0)
        async with await open_keeper(chain, wall) as keeper:
            await scenario(chain, wall, keeper)
        return chain.show

    return clock.run(test())


async def open_keeper(chain, wall):
    return ShowKeeper(chain, await chain.read_show(None, ""), "cap", lambda: chain.now_ms + wall.off)


@pytest.mark.parametrize("unknown", [1, 99])
@pytest.mark.parametrize("at", [55.0, 59.2])
def test_a_node_that_is_behind_costs_a_producer_nothing(monkeypatch, unknown, at):
    async def scenario(chain, wall, keeper):
        await asyncio.sleep(at)
        chain.unknown = unknown
        await asyncio.sleep(3)
        chain.unknown = 0
        await asyncio.sleep(40)
        assert keeper.air == Air.ON_AIR

    assert keep(monkeypatch, 10**6, scenario).posted == int(at + 43)


@pytest.mark.parametrize("set_by", [-3_600_000, 3_600_000])
def test_a_producers_clock_that_is_set_makes_no_slots_and_takes_none_away(monkeypatch, set_by):
    """Else what is in the pot would be spent on slots in which it sends nothing, or it would send for nothing."""

    async def scenario(chain, wall, keeper):
        await asyncio.sleep(5)
        wall.off = set_by
        await asyncio.sleep(90)
        assert keeper.air == Air.ON_AIR

    assert keep(monkeypatch, 10_000, scenario).posted == 95


@pytest.mark.parametrize("batch", [1, 10])
def test_a_page_says_that_nobody_pays_while_its_producer_is_away(monkeypatch, batch):
    """It said "on air" for as long as there was money."""

    async def test():
        chain = OnChain(monkeypatch, 10**6, batch=batch)
        async with ShowWatcher(chain, "0x1") as watcher:
            told = [watcher.make_page()["is_unposted"]]
            for _ in range(20):
                await asyncio.sleep(1)
                told.append(watcher.make_page()["is_unposted"])
            assert watcher.make_page()["air"] == "on air"
            return told

    told = clock.run(test())
    assert told.index(True) in range(batch + 1, batch + 3)
    assert not any(told[: batch + 1])
    assert all(told[batch + 2 :])


def test_a_producers_page_says_that_it_is_off_the_air_while_slots_cant_be_posted(monkeypatch, caplog):
    """The chain can't say so, as it is away; it said "on air", and tracebacks stood in the terminal."""

    async def scenario(chain, wall, keeper):
        async with ShowWatcher(chain, "0x1", air=lambda: keeper.air) as watcher:
            await asyncio.sleep(30)
            page = watcher.make_page()
            assert (page["air"], page["is_unposted"], page["old_s"]) == ("on air", False, None)
            chain.away = True
            await asyncio.sleep(60)
            page = watcher.make_page()
            assert (page["air"], page["is_unposted"]) == ("paused", True)
            assert 55 <= page["old_s"] <= 65
            chain.away = False
            await asyncio.sleep(30)
            page = watcher.make_page()
            assert (page["air"], page["is_unposted"], page["old_s"]) == ("on air", False, None)

    keep(monkeypatch, 10**6, scenario)
    assert not [each for each in caplog.records if each.exc_info]
    warned = [each.message for each in caplog.records if each.levelno >= logging.WARNING]
    assert warned.count(CANT_POST) == 1


CANT_POST = "slots can't be posted, which is tried again: the node is away"
