"""Peers that lie about heads, flood with them, never answer, or break the protocol of a shared graph."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from random import Random
from typing import Any, cast

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shared_worlds import LIMITS, Said, World
from small_internet import Internet

import dtp
from dtp.carriers.nearness import Nearness
from dtp.errors import DtpError
from dtp.limited_log import OF_ONE
from dtp.net.stream import Stream
from dtp.node.heads import (
    DialAnnouncer,
    Fetch,
    Heads,
    HeadsError,
    HeadsPlan,
    ProbeNeighbour,
    ShareLimits,
    decode,
    encode,
)
from dtp.node.sharing import PROTOCOL
from dtp.peers.links import PeerLink
from dtp.session.limits import DEFAULT
from dtp.testing.clock import FakeClockLoop, run

AUTHORS = [bytes([number]) * 32 for number in range(6)]
PEERS = [bytes([100 + number]) * 32 for number in range(5)]
DIGEST = bytes(16)


def claim(heads: dict[bytes, int], digest: bytes = b"d" * 16) -> bytes:
    return encode(Heads(digest, heads, True))


# ---- messages --------------------------------------------------------------------------------------------------


@given(
    st.dictionaries(st.binary(min_size=32, max_size=32), st.integers(1, (1 << 62) - 1), max_size=64),
    st.binary(min_size=16, max_size=16),
    st.booleans(),
)
def test_messages_come_back_as_they_were(heads: dict[bytes, int], digest: bytes, is_all: bool) -> None:
    assert decode(encode(Heads(digest, heads, is_all)), most=64) == (digest, heads, is_all)


@given(st.binary(max_size=200))
def test_other_bytes_are_refused(data: bytes) -> None:
    try:
        heads = decode(data, most=64)
    except HeadsError:
        return
    assert encode(heads) == data


@pytest.mark.parametrize(
    "parts",
    [
        (2, DIGEST, [], True),
        (1, DIGEST[1:], [], True),
        (1, DIGEST, [AUTHORS[1], 1, AUTHORS[0], 1], True),  # not in order
        (1, DIGEST, [AUTHORS[0], 1, AUTHORS[0], 2], True),  # twice
        (1, DIGEST, [AUTHORS[0], 0], True),
        (1, DIGEST, [AUTHORS[0], True], True),
        (1, DIGEST, [AUTHORS[0], 1 << 62], True),
        (1, DIGEST, [AUTHORS[0]], True),
        (1, DIGEST, [b"short", 1], True),
        (1, DIGEST, [], 1),
        (1, DIGEST, [part for number in range(65) for part in (bytes([number]) * 32, 1)], True),
        (1, DIGEST, {}, True),  # since Python 3.12 a slice of a dict is a key that is missing
        (1, DIGEST, [[], 1], True),
        (1, DIGEST, []),
        "text",
    ],
)
def test_malformed_announcements_are_refused(parts: object) -> None:
    with pytest.raises(HeadsError):
        decode(msgpack.packb(parts), most=64)


# ---- the plan, by itself ---------------------------------------------------------------------------------------


def plan() -> HeadsPlan:
    made = HeadsPlan(b"o" * 32, limits=LIMITS, random=Random(1))
    made.set_announced({})
    return made


def test_a_liar_is_not_believed_for_a_while_that_grows() -> None:
    made, now = plan(), 0.0
    made.on_link_up(PEERS[0], now, outgoing=False)
    pauses = []
    for _ in range(4):
        assert made.may_announce(PEERS[0], now)
        made.on_announcement(PEERS[0], Heads(b"x" * 16, {AUTHORS[0]: 1 << 60}, True), {}, DIGEST, now)
        assert made.next_actions({}, DIGEST, (), now) == [Fetch(PEERS[0])]
        assert not made.on_fetched(PEERS[0], {}, (), now)
        assert made.missing_from({}) == {}
        began = now
        while not made.may_announce(PEERS[0], now):
            made.on_announcement(PEERS[0], Heads(b"x" * 16, {AUTHORS[0]: 1 << 60}, True), {}, DIGEST, now)
            assert made.missing_from({}) == {}
            now += 1
        pauses.append(now - began)
    assert pauses == [30, 60, 120, 240]


def test_what_is_announced_during_a_sync_is_no_lie_and_is_fetched_next() -> None:
    """Who writes without a pause announces more while others sync: they can't have got that yet."""
    made = plan()
    made.on_link_up(PEERS[0], 0.0, outgoing=False)
    made.on_announcement(PEERS[0], Heads(b"x" * 16, {AUTHORS[0]: 3}, True), {}, DIGEST, 0.0)
    assert made.next_actions({}, DIGEST, (), 0.0) == [Fetch(PEERS[0])]
    made.on_announcement(PEERS[0], Heads(b"y" * 16, {AUTHORS[0]: 5, AUTHORS[1]: 1}, True), {}, DIGEST, 0.1)
    ours = {AUTHORS[0]: 3}
    assert made.on_fetched(PEERS[0], ours, (), 0.2)
    assert made.may_announce(PEERS[0], 0.2)
    assert made.missing_from(ours) == {AUTHORS[0]: 5, AUTHORS[1]: 1}
    assert made.next_actions(ours, DIGEST, (), 0.3) == [Fetch(PEERS[0])]
    assert not made.on_fetched(PEERS[0], ours, (), 0.4)  # by now it should have given them
    assert not made.may_announce(PEERS[0], 0.5)


def test_what_is_announced_while_a_peer_is_asked_is_no_lie() -> None:
    made = plan()
    made.on_link_up(PEERS[0], 0.0, outgoing=True)
    assert made.next_actions({}, DIGEST, (), 0.0) == [ProbeNeighbour(PEERS[0])]
    made.on_announcement(PEERS[0], Heads(b"y" * 16, {AUTHORS[0]: 5}, True), {}, DIGEST, 0.1)
    made.on_answer(PEERS[0], Heads(b"x" * 16, {AUTHORS[0]: 3}, True), {}, DIGEST, 0.2)  # as of before
    assert made.may_announce(PEERS[0], 0.2)
    assert made.missing_from({}) == {AUTHORS[0]: 5}


def test_a_digest_that_is_announced_during_a_sync_is_compared_afterwards() -> None:
    """More authors than an announcement names: what it didn't name is missing all the same."""
    made = plan()
    made.on_link_up(PEERS[0], 0.0, outgoing=False)
    made.on_announcement(PEERS[0], Heads(b"x" * 16, {AUTHORS[0]: 1}, False), {}, DIGEST, 0.0)
    assert made.next_actions({}, DIGEST, (), 0.0) == [Fetch(PEERS[0])]
    made.on_announcement(PEERS[0], Heads(b"y" * 16, {AUTHORS[0]: 1}, False), {}, DIGEST, 0.1)
    assert made.on_fetched(PEERS[0], {AUTHORS[0]: 1}, (), 0.2)
    assert made.next_actions({AUTHORS[0]: 1}, DIGEST, (), 0.3) == [Fetch(PEERS[0])]
    assert made.on_fetched(PEERS[0], {AUTHORS[0]: 1}, (), 0.4)
    assert made.next_actions({AUTHORS[0]: 1}, DIGEST, (), 0.5) == []  # once: it doesn't go on for ever


def test_what_a_liar_says_keeps_nobody_from_announcing() -> None:
    made = plan()
    made.on_announcement(PEERS[0], Heads(b"x" * 16, {AUTHORS[0]: 1 << 60}, True), {}, DIGEST, 0.0)
    ours = {AUTHORS[0]: 3}
    assert made.next_announcement(ours, lambda: DIGEST, 0.0) is None  # somebody else's: held back at first
    said = made.next_announcement(ours, lambda: DIGEST, 1.0)
    assert said is not None
    assert said.heads == ours


def test_what_others_have_announced_is_not_announced_again() -> None:
    made = plan()
    ours = {AUTHORS[0]: 3}
    assert made.next_announcement(ours, lambda: DIGEST, 0.0) is None
    made.on_announcement(PEERS[0], Heads(DIGEST, ours, True), ours, DIGEST, 0.05)
    assert made.next_announcement(ours, lambda: DIGEST, 5.0) is None


def test_a_flood_is_passed_on_by_nobody_and_memory_is_bounded() -> None:
    made = plan()
    assert sum(made.may_announce(PEERS[0], 0.0) for _ in range(1000)) == LIMITS.burst
    assert made.may_announce(PEERS[0], 1.0)
    random = Random(2)
    for number in range(1500):
        peer = number.to_bytes(32, "big")
        made.may_announce(peer, 2.0)
        heads = {random.randbytes(32): 7 for _ in range(LIMITS.announced)}
        for _ in range(2):
            made.on_announcement(peer, Heads(b"x" * 16, heads, True), {}, DIGEST, 2.0)
        made.next_actions({}, DIGEST, (), 2.0)
    assert len(made.missing_from({})) <= LIMITS.claims * LIMITS.announced
    kept = (made._claims, made._rates, made._disbelieved)  # what a stranger can make it remember
    assert [len(each) for each in kept] == [LIMITS.claims, LIMITS.remembered, 0]


def test_an_announcer_that_is_no_neighbour_is_asked_for_by_way_of_others_then_dialled() -> None:
    made = plan()
    for peer in PEERS[:4]:
        made.on_link_up(peer, 0.0, outgoing=False)
    made.on_announcement(PEERS[4], Heads(b"x" * 16, {AUTHORS[0]: 2}, True), {}, DIGEST, 0.0)
    asked, dialled, now = [], [], 0.0
    while made.missing_from({}):
        for action in made.next_actions({}, DIGEST, (), now):
            if isinstance(action, DialAnnouncer):
                dialled.append((action.peer, len(asked)))
                made.on_failed(action.peer, now)
            else:
                assert isinstance(action, ProbeNeighbour)
                asked.append(action.peer)
                made.on_answer(action.peer, Heads(DIGEST, {}, True), {}, DIGEST, now)
        now += 0.01
    assert dialled == [(PEERS[4], 2 * LIMITS.asked)]  # once, after two rounds
    assert len(asked) == LIMITS.rounds * LIMITS.asked
    assert len(set(asked[: LIMITS.asked])) == LIMITS.asked
    assert now < 10  # then the polls are left


@settings(max_examples=100)
@given(st.data())
def test_each_author_is_asked_of_one_peer_at_a_time(data: st.DataObject) -> None:
    """Whatever peers announce and however syncs end, what runs at once overlaps nowhere and is bounded."""
    made, ours, now = HeadsPlan(b"o" * 32, limits=LIMITS, random=Random(3)), {}, 0.0
    running: dict[bytes, Fetch] = {}
    for _ in range(data.draw(st.integers(1, 20))):
        match data.draw(st.sampled_from(("up", "down", "hear", "end", "fail", "wait"))):
            case "up":
                peer = data.draw(st.sampled_from(PEERS))
                if peer not in running:
                    made.on_link_up(peer, now, outgoing=data.draw(st.booleans()))
            case "down":
                peer = data.draw(st.sampled_from(PEERS))
                if peer not in running:
                    made.on_link_down(peer)
            case "hear":
                heads = data.draw(st.dictionaries(st.sampled_from(AUTHORS), st.integers(1, 2000), max_size=5))
                peer = data.draw(st.sampled_from(PEERS))
                made.on_announcement(
                    peer, Heads(b"x" * 16, heads, data.draw(st.booleans())), ours, DIGEST, now
                )
            case "end" if running:
                peer, fetch = running.popitem()
                for author, last in made.missing_from(ours).items():
                    if author not in fetch.without:
                        ours[author] = last
                made.on_fetched(peer, ours, (), now)
            case "fail" if running:
                made.on_failed(running.popitem()[0], now)
            case _:
                now = max(now, made.next_time(now)) + data.draw(st.floats(0, 100))
        for action in made.next_actions(ours, DIGEST, (), now):
            if isinstance(action, ProbeNeighbour):
                made.on_failed(action.peer, now)
            elif isinstance(action, Fetch):
                running[action.peer] = action
        assert len(running) <= LIMITS.fetches
        for one in running.values():
            for other in running.values():
                assert (
                    one is other
                    or set(AUTHORS) & made.missing_from(ours).keys() <= one.without | other.without
                )
        assert made.is_fetching == bool(running)


# ---- whole nodes -----------------------------------------------------------------------------------------------


def test_lies_and_floods_in_the_topic_harm_nobody() -> None:
    async def main() -> None:
        async with World("a", "b", "liar") as world:
            await world.start()
            await world.link("a", "b")
            await world.link("a", "liar")
            liar, victim = world["liar"].identity.id, world["a"]
            assert victim.share is not None
            topic = next(each for each in world.hub.topics if each.node is victim)
            for number in range(500):
                topic.take(Said(liar, claim({AUTHORS[number % 6]: 1000 + number})))
                topic.take(Said(liar, b"garbage"))
            await asyncio.sleep(1)
            await world.write("b", 3)
            await asyncio.sleep(5)
            assert victim.graph.frames.heads() == world["b"].graph.frames.heads()
            assert victim.share.counts["ignored"] >= 470
            assert victim.share.counts["heard"] <= LIMITS.burst + 3
            await world.settle()
            assert victim.share.missing == 0
            assert victim.share.counts["disbelieved"] >= 1
            assert victim.share.counts["failed"] < 10

    run(main())


async def never(link: PeerLink, stream: Stream) -> None:
    await asyncio.sleep(100_000)


async def garbage(link: PeerLink, stream: Stream) -> None:
    stream.write(bytes(range(256)) * 20)
    await stream.flush()


async def drips(link: PeerLink, stream: Stream) -> None:
    while True:
        stream.write(b"\0")
        await asyncio.sleep(5)


async def resets(link: PeerLink, stream: Stream) -> None:
    stream.reset(16)


async def large(link: PeerLink, stream: Stream) -> None:
    stream.write(b"\xff" * 100)
    await asyncio.sleep(100)


class SlowStream:
    """A stream whose bytes are read seconds after they were written, as over a link that others fill."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    async def readexactly(self, size: int) -> bytes:
        await asyncio.sleep(4)
        return await self._stream.readexactly(size)


def test_a_peer_whose_streams_are_for_something_unknown_does_not_fill_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        async with World("a", "b") as world:
            await world.start()
            await world.link("a", "b")
            share, (link,) = world["a"].share, world["a"].links
            assert share is not None
            token = share.make_token(world["a"].identity.id.key, world["b"].identity.id.key)
            for _ in range(50):
                stream = await link.open(PROTOCOL)
                stream.write(token + b"\xff")
                with pytest.raises(DtpError):
                    await stream.readexactly(1)

    run(main())
    assert sum("for a shared graph" in each for each in caplog.messages) == OF_ONE


def test_a_small_sync_may_take_longer_than_one_that_has_stalled() -> None:
    """Its round trips took 20 s, in which it moved less than 4 KB: it was given up, and begun anew, for good."""

    async def main() -> None:
        async with World("a", "b") as world:
            await world.start()
            serve = world["b"].shares.serve_stream
            world["b"].links.protocols[PROTOCOL] = lambda link, stream: serve(
                link, cast(Any, SlowStream(stream))
            )
            await world.write("b", 1)
            await world.link("a", "b")
            began = asyncio.get_running_loop().time()
            async with asyncio.timeout(60):
                while not world.agree():  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
            assert asyncio.get_running_loop().time() - began > LIMITS.stall
            assert world["a"].share is not None
            assert world["a"].share.counts["failed"] == 0

    run(main())


@pytest.mark.parametrize("behaviour", [never, garbage, drips, resets, large])
def test_a_peer_that_does_not_do_its_part_keeps_nobody_from_another(behaviour: object) -> None:
    async def main() -> None:
        async with World("a", "b", "bad") as world:
            await world["a"].start()
            await world["b"].start()
            await world["bad"].start(shares=False)
            world["bad"].links.protocols[PROTOCOL] = behaviour
            await world.write("b", 10)
            await world.link("a", "bad")
            topic = next(each for each in world.hub.topics if each.node is world["a"])
            topic.take(Said(world["bad"].identity.id, claim({world["b"].identity.id.key: 10})))
            await asyncio.sleep(1)
            await world.link("a", "b")
            await asyncio.sleep(30)
            assert world.agree("a", "b")
            share = world["a"].share
            assert share is not None
            before = share.counts["failed"]
            await asyncio.sleep(3600)
            assert share.counts["failed"] - before < 80  # it is tried again, ever more seldom

    run(main())


async def dribbles(link: PeerLink, stream: Stream) -> None:
    stream.write((1000).to_bytes(4))
    await drips(link, stream)


@pytest.mark.parametrize("key", [None, "a long enough secret"])
@pytest.mark.parametrize("behaviour", [never, garbage, dribbles, resets])
def test_a_neighbour_that_gives_no_blob_keeps_nobody_from_another(behaviour: object, key: str | None) -> None:
    """Who said nothing was waited for without an end, or until it had to prove the topic's key, and that was all."""

    async def main() -> None:
        async with World("a", "b", "bad") as world:
            for name in ("a", "b"):
                await world[name].start(key=key)
            await world["bad"].start(shares=False)
            world["bad"].links.protocols[PROTOCOL] = behaviour
            await world.link("a", "bad")
            await world.link("a", "b")
            share = world["a"].share
            assert share is not None
            async with asyncio.timeout(10 * (LIMITS.unhurried + 2 * LIMITS.stall)):
                for number in range(10):  # in a random order of neighbours
                    ref = await world["b"].graph.blobs.add(b"photo %d" % number * 50_000)
                    failed = share.counts["failed"]
                    assert (await share.fetch(ref)).is_here
                    if share.counts["failed"] > failed:
                        break
                else:
                    pytest.fail("the other one was never asked")

    run(main())


class SlowDisk(FakeClockLoop):
    """A machine on which one thing takes longer than a peer may say nothing."""

    def __init__(self, slow: str) -> None:
        super().__init__()
        self._slow = slow

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        done = super().run_in_executor(executor, func, *args)
        call = func.args[0] if isinstance(func, partial) else func  # what `asyncio.to_thread` was given
        if getattr(call, "__name__", "") != self._slow:
            return done
        later = self.create_future()
        self.call_later(3 * LIMITS.stall, later.set_result, done.result())
        return later


@pytest.mark.parametrize("work", ["begin_incoming", "publish_blob"])
def test_a_peer_that_gives_a_blob_is_not_given_up_for_what_takes_long_here(work: str) -> None:
    """To read what is here of a large blob, or to write the last of it, took longer than a silent peer has."""

    async def main() -> None:
        async with World("a", "b") as world:
            for name in ("a", "b"):
                await world[name].start()
            await world.link("a", "b")
            ref = await world["b"].graph.blobs.add(b"photo" * 100_000)
            listing = world["b"].graph.blobs.store.read_listing(ref)
            assert listing is not None
            world["a"].graph.blobs.store.begin_incoming(ref, listing).close()  # broken off before
            share = world["a"].share
            assert share is not None
            assert (await share.fetch(ref)).is_here
            assert share.counts["failed"] == 0

    run(main(), loop_factory=lambda: SlowDisk(work))


def test_peers_that_take_no_stream_keep_nobody_from_another() -> None:
    """As many as syncs may run at once were waited for without an end, and nothing came from anybody."""

    async def main() -> None:
        deaf = [f"deaf{number}" for number in range(LIMITS.fetches)]
        async with World("a", "b", *deaf) as world:
            for name in ("a", "b"):
                await world[name].start()
            topic = next(each for each in world.hub.topics if each.node is world["a"])
            author = world["b"].identity.id.key
            await world.write("b", 10)
            for number, name in enumerate(deaf):
                await world[name].start(shares=False, connection=replace(DEFAULT, streams=0))
                world[name].links.protocols[PROTOCOL] = never
                await world.link(name, "a")
                topic.take(Said(world[name].identity.id, claim({author: 10, AUTHORS[number]: 2000})))
            await asyncio.sleep(1)
            await world.link("b", "a")
            await asyncio.sleep(60)
            assert world.agree("a", "b")

    run(main())


def test_one_peer_has_few_streams_at_once() -> None:
    async def main() -> None:
        async with World("a", "greedy") as world:
            await world["a"].start()
            await world["greedy"].start(shares=False)
            await world.link("greedy", "a")
            link = world["greedy"].links.get(world["a"].identity.id)
            assert link is not None
            streams = [await link.open(PROTOCOL) for _ in range(30)]
            ended = 0
            for stream in streams[LIMITS.served_each :]:
                with pytest.raises(DtpError):
                    await stream.read()
                ended += 1
            assert ended == 30 - LIMITS.served_each
            for stream in streams[: LIMITS.served_each]:  # said nothing: they end in time
                with pytest.raises(DtpError):
                    await stream.read()
            assert asyncio.get_running_loop().time() < 2 * LIMITS.stall

    run(main())


def test_a_peer_that_forges_frames_changes_nothing() -> None:
    async def main() -> None:
        async with World("a", "b") as world:
            await world.start(limits=ShareLimits(poll=10))
            await world.write("b", 3)
            real = world["b"].graph.frames.read_parts

            async def forged(parts: object) -> list[bytes]:
                return [one[:-1] + bytes([one[-1] ^ 1]) for one in await real(parts)]  # type: ignore[arg-type]

            world["b"].graph.frames.read_parts = forged
            await world.link("a", "b")
            await asyncio.sleep(30)
            assert world["a"].graph.frames.heads() == {}
            assert world["a"].share is not None
            assert world["a"].share.counts["failed"] >= 1

    run(main())


def test_who_announces_too_often_is_ignored_and_passed_on_by_nobody() -> None:
    """Each was listened to, and went on to all: the topic asked nobody what an announcement is worth."""

    limits = ShareLimits()

    async def main() -> None:
        internet = Internet()
        internet.passes = lambda one, other: {one, other} != {"192.168.1.1", "192.168.1.3"}
        async with (
            internet.node("192.168.1.1") as flooder,
            internet.node("192.168.1.2") as sharer,
            internet.node("192.168.1.3") as beyond,
            await dtp.Graph.open("memory:", identity=sharer.identity, name="g") as graph,
            flooder.topic("g") as flood,
            sharer.share(graph, topic="g") as share,
            beyond.topic("g") as heard,
        ):
            for each in (flooder, beyond):
                each.book.learn_record(sharer.record, "lan", Nearness.NETWORK)
            await asyncio.sleep(5)
            assert [link.peer for each in (flooder, beyond) for link in each.links] == [
                sharer.identity.id
            ] * 2
            for number in range(100):
                await flood.publish(claim({AUTHORS[0]: number + 1}))
            await flood.publish(b"something else")
            await asyncio.sleep(1)
            came = [(await anext(heard)).data for _ in range(heard.waiting)]
            assert share.counts["heard"] == limits.burst
            assert share.counts["ignored"] == 100 - limits.burst + 1
            assert len(came) == limits.burst + 1
            assert came[-1] == b"something else"

    run(main())
