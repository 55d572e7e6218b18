"""Who passes on frames of an author that is away sends what still counts of them, by that author's own summary."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from typing import Any

import msgpack
import pytest
from graph_fixtures import ALICE, BOB, CAROL, churn, connected, identity, run, served

import dtp
from dtp.graph import Graph, SyncError
from dtp.graph.frames import envelope as envelopes
from dtp.graph.frames import summaries
from dtp.graph.stores.kept import KeptFrames
from dtp.graph.sync import passing, protocol
from dtp.graph.sync.passing import Passed, Taking
from dtp.graph.sync.replicating import PeerServing, answer_stream


@pytest.mark.parametrize("who_dials", ["relay", "author"])
def test_a_relay_does_not_send_what_was_overwritten(tmp_path: Path, who_dials: str) -> None:
    """Bob saw each of Alice's frames as it was made. Then she is gone, and Carol comes."""

    async def main() -> None:
        path = str(tmp_path / "bob.db")
        async with (
            await Graph.open("memory:", identity=ALICE) as alice,
            await Graph.open(path, identity=BOB) as bob,
        ):
            for _ in range(100):
                await churn(alice, 1)
                last = alice.frames.vector()[ALICE.id.key]
                await bob.receive(await alice.frames.read(ALICE.id.key, last, last))
            dialing, dialed = (bob, alice) if who_dials == "relay" else (alice, bob)
            async with served(dialed, f"first-{who_dials}") as client:
                await dialing.sync(client)
                await dialing.sync(client)  # offered once more, and not wanted
            assert bob.passed.last_of(ALICE.id.key) == 100
            assert bob.passed.size_of(ALICE.id.key) < 4000
            await churn(bob, 5)
            state, vector = alice.replica.save(), alice.frames.vector()
            assert len(await bob.history.versions("n/1", "k")) == 105  # it keeps what it saw
        async with (
            await Graph.open(path, identity=BOB) as bob,
            await Graph.open("memory:", identity=CAROL) as carol,
            await Graph.open("memory:", identity=identity("dave"), history=True) as dave,
            served(bob, f"second-{who_dials}") as client,
        ):
            done = await carol.sync(client)
            assert done.bytes_received < 8000
            assert carol.frames.vector() == bob.frames.vector() != vector
            assert carol.replica.save() == bob.replica.save() != state
            assert (await carol.sync(client)).received == 0
            assert await carol.verify() == 2
            assert (await dave.sync(client)).received == 105  # who wants the whole history gets it
            assert dave.replica.save() == bob.replica.save()

    run(main())


def test_who_takes_nothing_wants_nothing_that_it_is_offered() -> None:
    """A node that is fetching answers so; it asked for the summary, and ended the sync at what it had asked for."""

    async def main() -> None:
        async with (
            await Graph.open("memory:", identity=ALICE) as alice,
            await Graph.open("memory:", identity=BOB) as bob,
            connected("takes-nothing") as (client, server),
        ):
            for _ in range(100):
                await churn(alice, 1)
                last = alice.frames.vector()[ALICE.id.key]
                await bob.receive(await alice.frames.read(ALICE.id.key, last, last))

            async def answer() -> None:
                async for stream in server:
                    await answer_stream(bob, stream, PeerServing(takes=False))

            answering = asyncio.create_task(answer())
            async with asyncio.timeout(60):
                assert (await alice.sync(client)).received == 0
            assert bob.passed.last_of(ALICE.id.key) == 0
            await client.close()
            await answering

    run(main())


def test_offers_while_a_replica_follows() -> None:
    async def main() -> None:
        async with (
            await Graph.open("memory:", identity=ALICE) as alice,
            await Graph.open("memory:", identity=BOB) as bob,
            served(alice, "live") as client,
        ):
            alice.offering.least = 4096
            following = asyncio.create_task(bob.replicate(client))
            watch = bob.watch("last")
            for number in range(40):
                await churn(alice, 1, 20)
                alice.node("last")["k"] = number
                assert (await anext(watch)).soul == "last"
            assert 8 < bob.passed.last_of(ALICE.id.key) <= 80
            following.cancel()

    run(main())


def test_what_was_kept_is_there_again_and_half_written_ones_are_not(tmp_path: Path) -> None:
    async def frames() -> list[bytes]:
        async with await Graph.open("memory:", identity=ALICE) as alice:
            await churn(alice, 3, 1)
            return await alice.frames.read(ALICE.id.key, 1, 3)

    folder, author, parts = tmp_path / "s", ALICE.id.key, asyncio.run(frames())
    passed = Passed(folder, "")
    assert (passed.list_authors(), passed.last_of(author)) == ([], 0)
    assert not folder.exists()
    passed.put_summary(author, 2, parts[:2])
    passed.put_summary(author, 3, parts)
    (folder / "half.new").write_bytes(b"half")
    again = Passed(folder, "")
    size = sum(len(part) + 4 for part in parts)
    assert (again.list_authors(), again.last_of(author), again.size_of(author)) == ([author], 3, size)
    assert again.parts_of(author) == parts
    assert len(list(folder.iterdir())) == 1


def test_who_sends_something_else_than_it_offered() -> None:
    async def main() -> None:
        async with await Graph.open("memory:", identity=ALICE) as alice:
            await churn(alice, 3, 2000)
            parts = [envelopes.decode("", one) for one in await alice.frames.read(ALICE.id.key, 1, 3)]
            sizes = [len(one.encode()) + 4 for one in parts]
            for size, order in ((sum(sizes) - 1, (0, 1, 2)), (sum(sizes), (1,)), (sum(sizes), (0, 2))):
                taking = Taking(ALICE.id.key, 3, size)
                with pytest.raises(SyncError, match="another summary"):
                    [taking.add_part(parts[at], parts[at].encode()) for at in order]
            with pytest.raises(SyncError, match="another summary"):
                Taking(BOB.id.key, 3, 1 << 30).add_part(parts[0], parts[0].encode())
            forged = dataclasses.replace(parts[0], body=parts[1].body)
            with pytest.raises(SyncError, match="not signed"):
                passing.decode_part(alice.name, forged.encode())
            taking = Taking(ALICE.id.key, 3, sum(sizes))
            assert [taking.add_part(one, one.encode()) for one in parts] == [False, False, True]
            passed = Passed(None, "")
            taking.keep_passed(passed, lambda author, sequence: parts[1])
            assert passed.list_authors() == []  # of another history than what is here
            taking.keep_passed(passed, lambda author, sequence: parts[2])
            assert passed.parts_of(ALICE.id.key) == [one.encode() for one in parts]

    run(main())


def test_what_was_not_offered_is_not_given() -> None:
    async def main() -> None:
        async with (
            await Graph.open("memory:", identity=BOB) as bob,
            connected("not-offered") as (client, server),
        ):
            serving = asyncio.create_task(bob.serve(server))
            stream = await client.open_stream()
            side = protocol.SyncSide("")
            for message in (side.start({}), side.encode_want(ALICE.id.key, 5)):
                stream.write(len(message).to_bytes(4, "big") + message)
            with pytest.raises(dtp.StreamReset):
                await stream.read()
            await client.close()
            await serving

    run(main())


class _Peer:
    """A peer whose messages the test sends one by one, over a stream to a graph that is served."""

    def __init__(self, graph: str, client: Any) -> None:
        self.side = protocol.SyncSide(graph)
        self._client = client

    async def greet(self, vector: dict[bytes, Any]) -> None:
        self._stream = await self._client.open_stream()
        await self.send(self.side.start(vector))

    async def send(self, *messages: bytes) -> None:
        for message in messages:
            self._stream.write(len(message).to_bytes(4, "big") + message)
        await self._stream.drain()

    async def until(self, *kinds: protocol.SyncMessage) -> list[Any]:
        """Read on until there is a message of these kinds; return it."""
        while True:
            size = int.from_bytes(await self._stream.readexactly(4), "big")
            message = msgpack.unpackb(await self._stream.readexactly(size))
            if message[0] in kinds:
                return message
            self.side.receive(msgpack.packb(message), dict)


@pytest.mark.parametrize("kind", ["offer", "lost"])
def test_tiny_messages_are_not_answered_by_looking_at_all_authors(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """With 20,000 authors that was 4 ms for each 48 bytes."""
    asked: list[None] = []
    heads = KeptFrames.heads

    def counted(self: KeptFrames) -> Any:
        asked.append(None)
        return heads(self)

    async def main() -> None:
        async with (
            await Graph.open("memory:", identity=ALICE) as alice,
            served(alice, f"tiny-{kind}") as client,
        ):
            peer = _Peer("", client)
            await peer.greet({})
            await peer.until(protocol.SyncMessage.DONE)
            monkeypatch.setattr(KeptFrames, "heads", counted)
            some = [identity(str(number)).id.key for number in range(300)]
            if kind == "offer":
                await peer.send(
                    *(protocol.encode_offer(author, 5, 100) for author in some), peer.side.encode_done()
                )
            else:
                await peer.send(
                    *(peer.side.encode_lost([(one, 1, 9)]) for one in some), peer.side.encode_done()
                )
            await peer.until(protocol.SyncMessage.STORED)
            assert len(asked) < 20

    run(main())


def test_what_is_here_of_one_author_is_what_is_here_of_all() -> None:
    async def main() -> None:
        async with (
            await Graph.open("memory:", identity=ALICE) as alice,
            await Graph.open("memory:", identity=BOB) as bob,
        ):
            await churn(alice, 3)
            await bob.receive(await alice.frames.read(ALICE.id.key, 1, 3))
            for turn in range(3):
                bob.node("a")["k"] = turn
                bob.sign()
                told = {one: bob.frames.last_of(one) for one in (ALICE.id.key, BOB.id.key, CAROL.id.key)}
                assert {author: last for author, last in told.items() if last} == bob.frames.vector()
                await bob.commit() if turn else None
            await bob.admission.ban(ALICE.id)
            assert bob.frames.last_of(ALICE.id.key) == 0

    run(main())


def test_an_offer_is_wanted_when_there_is_a_newer_one() -> None:
    """The peer is slow: before it has asked for what was offered, its author has offered the sum of more."""

    async def main() -> None:
        async with (
            await Graph.open("memory:", identity=ALICE) as alice,
            await Graph.open("memory:", identity=BOB) as bob,
            served(alice, "newer") as client,
        ):
            alice.offering.least = 4096
            await churn(alice, 40, 20)
            await bob.receive(await alice.frames.read(ALICE.id.key, 1, 40))
            peer = _Peer("", client)
            await peer.greet(bob.frames.heads())
            first = await peer.until(protocol.SyncMessage.OFFER)
            await churn(alice, 80, 20)
            second = await peer.until(protocol.SyncMessage.OFFER)
            assert first[2] < second[2]
            await peer.send(*(peer.side.encode_want(ALICE.id.key, offer[2]) for offer in (first, second)))
            while True:
                kind, *told = await peer.until(protocol.SyncMessage.OFFER, protocol.SyncMessage.FRAMES)
                if kind == protocol.SyncMessage.OFFER:
                    await peer.send(peer.side.encode_want(ALICE.id.key, told[1]))
                elif (
                    envelopes.decode("", told[0][0]).first_sequence == 1
                ):  # what was made meanwhile goes, too
                    break
            assert envelopes.decode("", told[0][-1]).sequence >= second[2]

    run(main())


@pytest.mark.parametrize("parts_before", [0, 1, 2, 3])
def test_a_newer_offer_comes_before_what_was_wanted(parts_before: int) -> None:
    """The parts of the older sum that are still on their way are no parts of the newer one."""

    async def main() -> None:
        async with (
            await Graph.open("memory:", identity=ALICE) as alice,
            await Graph.open("memory:", identity=BOB) as bob,
            served(bob, f"meanwhile-{parts_before}") as client,
        ):
            key = ALICE.id.key
            await churn(alice, 120, 20)
            spans = (1, 20), (21, 40), (41, 60)
            older = [part for span in spans for part in await _summed(alice, *span)]
            newer = await _summed(alice, 1, 120)
            assert (len(older), len(newer)) == (3, 1)
            await bob.receive(await alice.frames.read(key, 1, 120))
            peer = _Peer("", client)
            await peer.greet(alice.frames.heads())
            await peer.send(protocol.encode_offer(key, 60, sum(map(len, older)) + 12))
            assert (await peer.until(protocol.SyncMessage.WANT))[2] == 60
            offer = protocol.encode_offer(key, 120, sum(map(len, newer)) + 4 * len(newer))
            if parts_before:
                await peer.send(*protocol.encode_frames(older[:parts_before]), offer)
                await peer.send(*protocol.encode_frames(older[parts_before:]))
            else:  # what is wanted isn't there any more
                await peer.send(offer)
            assert (await peer.until(protocol.SyncMessage.WANT))[2] == 120
            await peer.send(*protocol.encode_frames(newer))
            await peer.send(peer.side.encode_done())
            await peer.until(protocol.SyncMessage.STORED)
            assert bob.passed.last_of(key) == 120
            assert bob.passed.parts_of(key) == newer

    run(main())


async def _summed(graph: Graph, first: int, last: int) -> list[bytes]:
    """What its author signs for these frames."""
    return [part async for some in summaries.own(graph, first, last) for part in some]
