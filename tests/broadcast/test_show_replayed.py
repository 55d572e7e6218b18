"""An older stream of a show, sent again as it was: the one that the producer announced last counts."""

import asyncio

import pytest
from shows import ME, chain, hear, liar, on_the_wire, run, until

from dtp.broadcast import messages as m
from dtp.broadcast.errors import ShowReplaced
from dtp.broadcast.parents import MOST, Parents
from dtp.identity import Identity

BEFORE, NOW = 1_000, 2_000


def words(text, announced_ms, others=(), **options):
    """What somebody says who has a stream with one segment."""
    announcement, ((segment, body),) = chain(text, announced_ms=announced_ms, **options)
    state = m.ShowState((ME.id,), others, room=True)
    return [m.Announced(announcement.encoded), state, *on_the_wire(segment, body)]


@pytest.mark.parametrize("is_first", [True, False])
def test_of_several_neighbours_the_newest_stream_counts(is_first):
    async def test():
        async with liar(*words(b"old", BEFORE)) as old, liar(*words(b"new", NOW)) as new:
            given = (old, new) if is_first else (new, old)
            async with hear(*given, show=bytes(32)) as stream:
                heard = []
                listening = asyncio.ensure_future(collect(stream, heard))
                await until(lambda: heard)
                listening.cancel()
                assert heard == [b"new"]

    run(test())


def test_listening_to_an_older_stream_ends_by_name_when_a_newer_one_is_found():
    async def test():
        heard = []
        async with liar(*words(b"new", NOW)) as new, liar(*words(b"old", BEFORE, (new,))) as old:
            with pytest.raises(ShowReplaced, match="begun the show anew") as told:
                await collect(hear(old, show=bytes(32)), heard)
        assert heard == [b"old"]
        assert told.value.code == "show-replaced"

    run(test())


def test_another_producers_stream_makes_none_older():
    parents = Parents([])
    ours, _ = chain(b"one", announced_ms=BEFORE)
    for options in ({"identity": Identity.generate()}, {"show": bytes([1] * 32)}):
        other, _ = chain(b"one", announced_ms=NOW, **options)
        parents.note_announced(other)
        assert not parents.has_newer(ours)
    parents.note_announced(ours)
    assert not parents.has_newer(ours)
    newer, _ = chain(b"one", announced_ms=NOW)
    parents.note_announced(newer)
    parents.note_announced(ours)
    assert parents.has_newer(ours)
    assert not parents.has_newer(newer)


def test_many_shows_that_are_announced_take_no_more_room():
    parents = Parents([])
    ours, newer = (chain(b"one", announced_ms=at)[0] for at in (BEFORE, NOW))
    parents.note_announced(ours)
    others = [chain(b"one", show=at.to_bytes(32), announced_ms=BEFORE)[0] for at in range(1, MOST + 1)]
    for each in others:
        parents.note_announced(each)
    last, _ = chain(b"one", show=MOST.to_bytes(32), announced_ms=NOW)
    parents.note_announced(last)
    assert not parents.has_newer(others[-1])  # there was no room for it
    parents.note_announced(newer)
    assert parents.has_newer(ours)


async def collect(stream, heard):
    async for each in stream:
        heard.append(each.data)
