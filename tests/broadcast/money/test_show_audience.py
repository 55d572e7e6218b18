"""The audience line: sorted by what was paid, bounded, moderated, sealed where it should be."""

import asyncio
from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st
from test_show_air import ON

from dtp.broadcast.money import shows
from dtp.broadcast.money.audience import AudienceLine, seal_text
from dtp.broadcast.money.watching import ShowWatcher
from dtp.chain.errors import MALFORMED, NodeRefused
from dtp.chain.show import EntryAsked, EntryKind, Raised
from dtp.identity import Identity
from dtp.testing import clock

ME, OTHER = Identity(bytes(range(32))), Identity(bytes([1] * 32))


def asked(number, amount, text=b"?", kind=EntryKind.QUESTION, sealed=False):
    return EntryAsked("0x1", number, kind, "0x2", amount, text, sealed)


def test_the_best_paid_comes_first_and_others_raise():
    line = AudienceLine()
    for number, amount in enumerate([5, 9, 7]):
        line.add_entry(asked(number, amount))
    assert [each.number for each in line.ranked()] == [1, 2, 0]
    raised = line.raise_entry(Raised("0x1", 0, "0x3", 5))
    assert (raised.amount, raised.raised) == (10, 1)
    assert [each.number for each in line.ranked()] == [0, 1, 2]
    line.add_entry(asked(0, 5))  # told again
    assert line.ranked()[0].amount == 10
    line.dismiss(0)
    assert line.add_entry(asked(0, 5)) is None
    assert line.raise_entry(Raised("0x1", 0, "0x3", 500)) is None
    assert [each.number for each in line.ranked()] == [1, 2]


@given(st.lists(st.integers(1, 1000), min_size=30, max_size=90))
def test_dust_buries_nothing(amounts):
    line = AudienceLine(most=4)
    for number, amount in enumerate(amounts):
        line.add_entry(asked(number, amount))
    best = sorted(range(len(amounts)), key=lambda number: (-amounts[number], number))
    assert [each.number for each in line.ranked()] == best[:4]
    assert len(line) == min(len(amounts), 40)
    assert all(
        line.raise_entry(Raised("0x1", number, "0x3", 5)) for number in best[:40]
    )  # of those, none is lost


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("ask"), st.integers(1, 9)),
            st.tuples(st.just("raise"), st.integers(0, 60)),
            st.tuples(st.just("dismiss"), st.integers(0, 60)),
        ),
        min_size=30,
        max_size=150,
    )
)
def test_who_has_the_least_is_left_out_also_where_some_were_raised_and_others_dismissed(steps):
    line, kept, least = AudienceLine(most=1), {}, 0
    for number, (step, value) in enumerate(steps):
        if step == "ask":
            line.add_entry(asked(number, value))
            if len(kept) < 10 or value > least:
                kept[number] = value
            if len(kept) > 10:
                worst = min(kept, key=lambda each: (kept[each], -each))
                least = kept.pop(worst)
        elif step == "raise":
            line.raise_entry(Raised("0x1", value, "0x3", 5))
            if value in kept:
                kept[value] += 5
        elif value in kept:
            line.dismiss(value)
            del kept[value]
        best = sorted(kept, key=lambda each: (-kept[each], each))[:1]
        assert [each.number for each in line.ranked()] == best
    assert {each: line.raise_entry(Raised("0x1", each, "0x3", 0)).amount for each in kept} == kept
    assert len(line) == len(kept)


def test_a_question_that_dust_pushed_off_the_line_is_back_when_others_raise_it():
    line = AudienceLine(most=10)
    line.add_entry(asked(0, 1, b"why?"))
    for number in range(1, 60):
        line.add_entry(asked(number, 2))
    assert 0 not in [each.number for each in line.ranked()]
    assert line.raise_entry(Raised("0x1", 0, "0x3", 500)).text == "why?"
    assert line.ranked()[0].number == 0


def test_sealed_texts_are_for_the_producer_alone():
    event = asked(0, 5, seal_text(b"secret", ME.id.key), sealed=True)
    assert AudienceLine(ME).add_entry(event).text == "secret"
    assert AudienceLine(OTHER).add_entry(event).text == ""
    assert AudienceLine().add_entry(event).text == ""
    assert AudienceLine(ME).add_entry(asked(0, 5, b"nonsense", sealed=True)).text == ""


def test_texts_drive_no_terminal():
    assert AudienceLine().add_entry(asked(0, 5, b"\x1b[2Jhi\xff")).text == "\\x1b[2Jhi\ufffd"


def test_what_a_node_tells_again_after_a_bad_answer_counts_once(monkeypatch):
    """Else what was raised once would be worth more with each bad answer, and come before what more was paid for."""
    told = []

    async def events_of(chain, id, *, start):
        told.append(start)
        for each in (asked(0, 5), asked(1, 9), Raised("0x1", 0, "0x3", 3)):
            yield each
        if len(told) < 4:
            raise NodeRefused("this is no answer", MALFORMED)
        await asyncio.Event().wait()

    async def read_show(chain, id):
        return shows.Found(ON, "0x2::sui::SUI", 1)

    monkeypatch.setattr(shows, "events_of", events_of)
    monkeypatch.setattr(shows, "read_show", read_show)

    async def service_info():
        return SimpleNamespace(timestamp_ms=None)

    async def test():
        async with ShowWatcher(SimpleNamespace(service_info=service_info), "0x1") as watcher:
            watcher.dismiss_entry(7)
            await asyncio.sleep(60)
            assert len(told) == 4
            assert [(each.number, each.amount, each.raised) for each in watcher.line.ranked()] == [
                (1, 9, 0),
                (0, 8, 1),
            ]
            assert watcher.line.add_entry(asked(7, 5)) is None

    clock.run(test())
