"""Shows through relays: a tree, neighbours that die, lie, withhold, and a producer that signs two chains."""

import asyncio
import contextlib
import errno
from collections.abc import Callable

import pytest
from shows import HERE, ME, all_of, chain, hear, liar, on_the_wire, produce, run, until

from dtp.broadcast import kept_position
from dtp.broadcast import messages as m
from dtp.broadcast.errors import (
    BroadcastError,
    ProducerEquivocated,
    SegmentForeign,
    ShowBusy,
    ShowUnreachable,
)
from dtp.broadcast.format import Announcement, Equivocation, Flag, Position, SegmentSigner
from dtp.broadcast.held import HeldSegments
from dtp.broadcast.parents import Patience
from dtp.broadcast.sealed.admission import Guests
from dtp.carriers.nearness import Nearness
from dtp.errors import ConfigError
from dtp.identity import Identity


def test_everybody_hears_all_through_a_tree():
    async def test():
        async with produce(fan_out=2, title="news") as on_air, contextlib.AsyncExitStack() as stack:
            await on_air.write(b"init", flags=Flag.INIT)
            await on_air.write(b"0" * 40_000)
            streams, listening = [], []
            for _ in range(9):
                stream = await stack.enter_async_context(hear(*on_air.addresses, place=HERE, fan_out=2))
                assert (await stream.announcement()).title == "news"
                streams.append(stream)
                listening.append(asyncio.ensure_future(all_of(stream)))
                await until(lambda stream=stream: stream.receiver.start is not None)
            for at in range(1, 6):
                await on_air.write(b"%d" % at * 40_000)
            await on_air.end()
            expected = [(0, b"init"), *((at + 1, b"%d" % at * 40_000) for at in range(6)), (7, b"")]
            for each in await asyncio.gather(*listening):
                assert each == expected
            assert on_air.listeners <= 2
            assert max(len(each.receiver.path) for each in streams) >= 3
            await on_air.wait_drained()

    run(test())


def test_one_who_comes_late_begins_where_it_is_live_or_before():
    async def test():
        async with produce() as on_air:
            await on_air.write(b"init", flags=Flag.INIT)
            for at in range(10):
                await on_air.write(b"%d" % at)
            live, first, third = (
                asyncio.ensure_future(all_of(hear(*on_air.addresses, **begin)))
                for begin in ({}, {"back_ms": 10**9}, {"start": 3})
            )
            await until(lambda: on_air.listeners == 3)
            await on_air.write(b"x", flags=Flag(0))
            await on_air.end()
            ends = [(11, b"x"), (12, b"")]
            assert await live == [(0, b"init"), (10, b"9"), *ends]
            assert await first == [(0, b"init"), *((at + 1, b"%d" % at) for at in range(10)), *ends]
            assert await third == [(0, b"init"), *((at + 1, b"%d" % at) for at in range(2, 10)), *ends]

    run(test())


def test_what_is_forgotten_is_named():
    async def test():
        async with produce(limit=100_000) as on_air:
            for at in range(8):
                await on_air.write(bytes([at]) * 30_000)
            await on_air.end()
            return [(each.segment.number, each.missed) async for each in hear(*on_air.addresses, start=1)]

    heard = run(test())
    assert heard[0][1] == range(1, heard[0][0])
    assert [number for number, _ in heard] == list(range(heard[0][0], 9))
    assert all(not missed for _, missed in heard[1:])


def test_a_relay_that_ends_leaves_no_gap():
    async def test():
        async with produce(fan_out=2) as on_air:
            await on_air.write(b"0")
            async with hear(*on_air.addresses) as other:
                relay = hear(*on_air.addresses, place=HERE)
                await relay.__aenter__()
                await until(lambda: on_air.listeners == 2)
                await relay.announcement()
                async with hear(*relay.addresses, *on_air.addresses) as stream:
                    heard = []
                    listening = asyncio.ensure_future(all_of(stream, heard))
                    await until(lambda: relay.listeners == 1 and heard)
                    await on_air.write(b"1")
                    await until(lambda: len(heard) == 2)
                    await relay.__aexit__()
                    for at in range(2, 6):
                        await on_air.write(b"%d" % at)
                    await until(lambda: len(heard) == 6)
                    await on_air.end()
                    assert await listening == [*((at, b"%d" % at) for at in range(6)), (6, b"")]
                    assert stream.receiver.heard >= 2
                    assert other.receiver.held is not None

    run(test())


LIES: dict[str, Callable[..., list[m.Message]]] = {
    "forged": lambda ours: [m.Manifest(ours[0][0].encoded[:-1] + bytes((ours[0][0].encoded[-1] ^ 1,)))],
    "a piece": lambda ours: [m.Manifest(ours[0][0].encoded), m.Piece(0, 0, b"other")],
    "a piece first": lambda ours: [m.Piece(0, 0, b"one")],
    "a hello": lambda ours: [m.Hello()],
}


@pytest.mark.slow
@pytest.mark.parametrize("lie", LIES)
def test_a_relay_that_lies_is_left(lie):
    announcement, ours = chain(b"one", b"two")

    async def test():
        said = [m.Announced(announcement.encoded), *LIES[lie](ours)]
        honest = [m.Announced(announcement.encoded), m.SenderState((ME.id,), (), room=True)]
        for segment, body in ours:
            honest += on_the_wire(segment, body)
        async with liar(*said) as bad, liar(*honest) as good, hear(bad, good) as stream:
            heard = []
            listening = asyncio.ensure_future(all_of(stream, heard))
            await until(lambda: len(heard) == 2)
            listening.cancel()
            assert heard == [(0, b"one"), (1, b"two")]
            assert stream.receiver.parents.addresses[0] == good

    run(test())


def test_a_relay_of_another_show_is_left():
    announcement, ours = chain(b"one")
    foreign, theirs = chain(b"lie", show=bytes([1] * 32))

    async def test():
        good_words = [m.Announced(announcement.encoded), *on_the_wire(*ours[0])]
        bad_words = [m.Announced(foreign.encoded), *on_the_wire(*theirs[0])]
        async with (
            liar(*good_words, stay=False) as good,
            liar(*bad_words) as bad,
            hear(bad, good, show=bytes(32)) as stream,
        ):
            heard = []
            listening = asyncio.ensure_future(all_of(stream, heard))
            await until(lambda: heard)
            listening.cancel()
            assert heard == [(0, b"one")]

    run(test())


def test_a_show_of_somebody_else_is_refused():
    announcement, _ = chain(b"one", identity=Identity.generate())

    async def test():
        async with liar(m.Announced(announcement.encoded)) as bad:
            with pytest.raises(SegmentForeign, match=f"but of {announcement.producer}: .*--producer"):
                await all_of(hear(bad, patience=Patience(anybody=3600.0)))

    run(test())


def test_who_waits_for_a_show_whose_listening_is_ended_is_told():
    async def test():
        stream = hear(f"dtp+tcp://{ME.id}@127.0.0.1:1/show")
        async with stream:
            waiting = asyncio.ensure_future(stream.announcement())
            await asyncio.sleep(0)
        with pytest.raises(BroadcastError, match="ended before"):
            await waiting

    run(test())


def test_nobody_there_is_told():
    async def test():
        async with produce() as on_air, produce() as other:
            addresses = [*on_air.addresses[:1], *other.addresses[:1]]
        for given in (addresses[:1], addresses):
            with pytest.raises(ShowUnreachable, match="refused"):
                await all_of(hear(*given, patience=Patience(anybody=0.5)))

    run(test())


def test_one_who_withholds_is_left_for_one_who_is_ahead():
    announcement, ours = chain(b"one", b"two", b"three")

    async def test():
        words = [m.Announced(announcement.encoded)]
        first = [*words, *on_the_wire(*ours[0])] + [m.SenderState((ME.id,), (), room=True)] * 400
        all_words = [*words, *(each for pair in ours for each in on_the_wire(*pair))]
        identity = Identity.generate()

        async with (
            withholder(first, identity) as bad,
            liar(*all_words, stay=False, measured=on_the_wire(*ours[2])) as good,
        ):
            stream = hear(bad)
            async with stream:
                heard = []
                listening = asyncio.ensure_future(all_of(stream, heard))
                await until(lambda: heard == [(0, b"one")])
                stream.receiver.parents.learn_addresses([good], Nearness.MACHINE)
                await until(lambda: len(heard) == 3)
                listening.cancel()
                assert [body for _, body in heard] == [b"one", b"two", b"three"]

    run(test())


@contextlib.asynccontextmanager
async def withholder(said, identity):
    """Says what it has at once, and then only that it is there."""
    import dtp
    from dtp.broadcast import frames

    async def serve(connection):
        async for stream in connection:
            await frames.read(stream)
            for each in said[:3]:
                frames.write(stream, each)
            for each in said[3:]:
                frames.write(stream, each)
                await asyncio.sleep(0.05)

    async with await dtp.listen("tcp://127.0.0.1:0", {"show": serve}, identity=identity) as listener:
        yield str(listener.address("show"))


def test_a_gap_that_another_can_fill_is_none():
    announcement, ours = chain(b"one", b"two", b"three")

    async def test():
        words = [m.Announced(announcement.encoded)]
        lying = [*words, *on_the_wire(*ours[0]), m.Gap(1, 1), *on_the_wire(*ours[2])]
        good_words = [*words, *on_the_wire(*ours[1])]
        async with liar(*lying) as bad, liar(*good_words, stay=False) as good, hear(bad) as stream:
            stream.receiver.parents.learn_addresses([good], Nearness.MACHINE)
            stream.receiver.parents.note_full(good, 10**9)  # not to be heard, only to be asked
            heard = []
            listening = asyncio.ensure_future(all_of(stream, heard))
            await until(lambda: len(heard) == 3)
            listening.cancel()
            assert [body for _, body in heard] == [b"one", b"two", b"three"]

    run(test())


def test_who_says_that_all_to_come_is_lost_is_left_as_one_who_withholds():
    """A gap beyond what the producer has signed would have others count as behind for ever."""
    announcement, ours = chain(b"one", b"two", b"three")

    async def test():
        words = [m.Announced(announcement.encoded), *on_the_wire(*ours[0])]
        lying = [*words, m.Gap(1, 2**63 - 1)] + [m.SenderState((ME.id,), (), room=True)] * 400
        all_words = [*words, *(each for pair in ours[1:] for each in on_the_wire(*pair))]
        async with (
            withholder(lying, Identity.generate()) as bad,
            liar(*all_words, stay=False, measured=on_the_wire(*ours[2])) as good,
            hear(bad) as stream,
        ):
            heard = []
            listening = asyncio.ensure_future(all_of(stream, heard))
            await until(lambda: heard == [(0, b"one")])
            stream.receiver.parents.learn_addresses([good], Nearness.MACHINE)
            await until(lambda: len(heard) == 3)
            listening.cancel()
            assert [body for _, body in heard] == [b"one", b"two", b"three"]

    run(test())


def test_who_asks_for_the_beginning_of_a_show_of_years_costs_no_count_of_them():
    position = Position(number=10**15)
    announcement = Announcement.sign(ME, bytes(32), time_ms=0)
    signer, held = SegmentSigner(ME, announcement, position), HeldSegments(announcement)
    held.edge = position.number - 1
    for body in (b"init", b"one", b"two"):
        flags = Flag.INIT if body == b"init" else Flag.START
        held.add_own(signer.sign(body, time_ms=1, duration_ms=0, slot=0, epoch=0, flags=flags), body)
    assert held.find_next(0) == position.number
    held.add_gap(position.number + 3, position.number + 9)
    assert held.find_next(position.number + 3) == position.number + 4  # what nobody has signed is none


def test_two_chains_end_the_show_for_all_below():
    announcement, ours = chain(b"one", b"two")
    _, twin = chain(b"one", b"TWO")

    async def test():
        said = [m.Announced(announcement.encoded), m.SenderState((ME.id,), (), room=True)]
        said += [each for pair in (*ours, twin[1]) for each in on_the_wire(*pair)]
        async with liar(*said) as bad, hear(bad, place=HERE) as relay:
            await relay.announcement()
            with pytest.raises(ProducerEquivocated) as below:
                await all_of(hear(*relay.addresses))
            with pytest.raises(ProducerEquivocated) as caught:
                await all_of(relay)
            for each in (below, caught):
                proof = Equivocation.decode(each.value.proof.encode(), announcement)
                assert proof.first.number == proof.second.number == 1

    run(test())


@pytest.mark.slow
def test_nobody_hears_a_show_through_itself():
    announcement, ours = chain(b"one")
    listener = Identity.generate()

    async def test():
        words = [m.Announced(announcement.encoded), m.SenderState((ME.id, listener.id), (), room=True)]
        good_words = [m.Announced(announcement.encoded), *on_the_wire(*ours[0])]
        async with (
            liar(*words) as round_about,
            liar(*good_words) as good,
            hear(round_about, good, identity=listener) as stream,
        ):
            heard = []
            listening = asyncio.ensure_future(all_of(stream, heard))
            await until(lambda: heard)
            listening.cancel()

    run(test())


def test_a_show_goes_on_after_a_restart(tmp_path, caplog):
    async def test():
        show, heard = bytes(range(32)), []
        async with produce(show=show, store=tmp_path / "shows" / "mine", title="it") as on_air:
            await on_air.write(b"one")
            heard.append(on_air.held.get_segment(0).segment)
            first = on_air.announcement
        (
            tmp_path / "shows" / "mine" / f".{show.hex()}.show.killed"
        ).touch()  # in the middle of keeping its position
        async with produce(show=show, store=tmp_path / "shows" / "mine", title="other") as on_air:
            assert not list((tmp_path / "shows" / "mine").glob(".*"))
            assert on_air.announcement == first
            (told,) = (each.getMessage() for each in caplog.records if each.levelname == "WARNING")
            assert "goes on as it began" in told  # what a show says of itself stays so
            second = await on_air.write(b"two")
            assert (second.number, second.previous) == (1, heard[0].link)
            await on_air.end()
            assert await all_of(hear(*on_air.addresses, start=1)) == [(1, b"two"), (2, b"")]

    run(test())


def test_a_show_whose_disk_was_full_for_a_moment_goes_on(tmp_path, monkeypatch):
    """What couldn't be kept was sent to nobody: it leaves no number for which all would wait."""

    def is_full(path, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    async def test():
        async with produce(store=tmp_path) as on_air:
            listening = asyncio.ensure_future(all_of(hear(*on_air.addresses, start=0)))
            await on_air.write(b"first")
            with monkeypatch.context() as patched:
                patched.setattr(kept_position, "replace_file", is_full)
                for _ in range(2):
                    with pytest.raises(ConfigError, match="No space"):
                        await on_air.write(b"lost")
            await on_air.write(b"second")
            await on_air.end()
            return await listening

    assert run(test()) == [(0, b"first"), (1, b"second"), (2, b"")]


def test_a_second_producer_of_a_show_is_refused_by_name(tmp_path):
    async def test():
        options = {"show": bytes(range(32)), "store": tmp_path}
        async with produce(**options) as on_air:
            await on_air.write(b"one")
            with pytest.raises(ShowBusy, match="end that one first") as caught:
                produce(**options)
            assert caught.value.code == "show-busy"
            async with produce(show=bytes(32), store=tmp_path) as other:  # another show is nobody's affair
                await other.write(b"one")
        with pytest.raises(BroadcastError, match="stays so"):
            produce(admission=Guests([ME.id]), **options)
        async with produce(**options) as on_air:  # what was refused keeps nothing locked
            assert (await on_air.write(b"two")).number == 1

    run(test())


def test_a_store_that_cant_be_made_is_said(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigError, match="can't make the folder"):
        produce(store=tmp_path / "file" / "shows")
