"""Private nodes: readers read, others pass on what they cannot, who left reads nothing new, nobody makes up any."""

from __future__ import annotations

import pytest
from graph_fixtures import ALICE, BOB, CAROL, close, everything, meet, run, three
from hypothesis import given
from hypothesis import strategies as st

from dtp.core.errors import NotOwner
from dtp.crdt import Link, values
from dtp.graph import Graph, GraphError, KeyLost, NotReader, NotSealed, ReaderUnknown
from dtp.graph.permission.private import MAX_KEYS, PrivateNode, Reader
from dtp.graph.permission.rings import RING_KEY
from dtp.identity import Account, Device, Identity
from dtp.identity.sealing import SealBroken

DAVE = Identity(b"d" * 32, b"s" * 32)
SECRET = "the diary says that tomorrow it will rain"


def visible(graph: Graph) -> bytes:
    """All that a replica's disk would have."""
    return graph.replica.save()


def test_what_can_not_be_sealed_is_not_written_at_a_private_soul() -> None:
    async def main() -> None:
        async with await Graph.open("memory:", identity=ALICE) as alice:
            alice.text(alice.own("diary")).insert(0, "before it was private")
            soul = alice.private("diary", readers=[]).soul
            kinds = (
                alice.text,
                alice.list,
                alice.set,
                alice.map,
                alice.counter,
                alice.multi_value,
                alice.node,
            )
            for kind in kinds:
                with pytest.raises(NotSealed, match="could be read by all"):
                    kind(soul)
            with pytest.raises(NotSealed, match="could be read by all"):
                alice.put_many([("public", "k", 1), (soul, "k", 1)])
            assert not alice.node("public")
            alice.text(alice.own("other")).insert(0, "public")
            alice.private("diary")["k"] = "sealed"
            alice.replica.node(soul)["past it"] = (
                "in clear"  # as a program may do that knows no private nodes
            )
            assert alice.private("diary").to_dict() == {"k": "sealed"}

    run(main())


def test_readers_read_and_others_pass_it_on() -> None:
    async def main() -> None:
        alice, bob, carol = await three("home")
        bob.access.publish_key()
        await meet(alice, bob, carol)
        diary = alice.private("diary", readers=[BOB.id])
        diary["secret-title"] = SECRET
        diary["mood"] = {"today": [1, 2.5, None, Link("user/a"), b"bytes", 1 << 70]}
        assert diary["secret-title"] == SECRET
        assert len(diary) == 2
        assert diary.readers == [ALICE.id, BOB.id]
        await carol.receive(await everything(alice))  # who can't read it has it ...
        await bob.receive(await everything(carol))  # ... and hands it on
        theirs = bob.private(diary.soul)
        assert theirs.to_dict() == diary.to_dict()
        assert theirs["mood"]["today"][3] == Link("user/a")
        assert set(theirs) == {"secret-title", "mood"}
        assert "mood" in theirs
        assert "nothing" not in theirs
        with pytest.raises(KeyError):
            theirs["nothing"]
        for graph in (alice, bob, carol):
            assert SECRET.encode() not in visible(graph)
            assert b"secret-title" not in visible(graph)
            assert b"mood" not in visible(graph)
        outside = carol.private(diary.soul)
        assert outside.readers == [ALICE.id, BOB.id]
        for attempt in (
            lambda: outside["mood"],
            lambda: len(outside),
            lambda: "mood" in outside,
            outside.to_dict,
        ):
            with pytest.raises(NotReader, match="sealed to others"):
                attempt()
        assert len(carol.replica.node(diary.soul)) == 2  # ciphertext merges as any value does
        del diary["mood"]
        await meet(alice, bob, carol)
        assert set(theirs) == {"secret-title"}
        with pytest.raises(KeyError):
            del diary["mood"]
        assert not carol.query("MATCH (n) WHERE n.mood IS NOT NULL RETURN n")
        await close(alice, bob, carol)

    run(main())


def test_who_left_reads_nothing_new() -> None:
    async def main() -> None:
        alice, bob, carol = await three()
        bob.access.publish_key()
        carol.access.publish_key()
        await meet(alice, bob, carol)
        diary = alice.private("diary", readers=[BOB.id, str(CAROL.id)])
        diary["old"] = "both"
        await meet(alice, bob, carol)
        bobs, carols = bob.private(diary.soul), carol.private(diary.soul)
        assert bobs["old"] == carols["old"] == "both"
        diary.remove_reader(BOB.id)
        diary["new"] = "Carol alone"
        diary["old"] = "changed"
        await meet(alice, bob, carol)
        assert carols.to_dict() == {"new": "Carol alone", "old": "changed"}
        with pytest.raises(NotReader):
            bobs.to_dict()
        kept = carols._open_ring()
        from nacl.exceptions import CryptoError
        from nacl.secret import Aead

        raw = bob.replica.node(diary.soul)[kept.hidden_key("new")]  # Bob kept the keys that he had
        assert raw[1:5] == (2).to_bytes(4, "big")
        with pytest.raises(CryptoError):
            Aead(kept.keys[0]).decrypt(raw[5:], bobs._value_context(kept.hidden_key("new"), 2, ALICE.id.key))
        diary.add_reader(BOB.id)  # friends again: he reads all
        await meet(alice, bob, carol)
        assert bobs.to_dict() == carols.to_dict() == diary.to_dict()
        with pytest.raises(GraphError, match="the owner, or no reader"):
            diary.remove_reader(DAVE.id)
        with pytest.raises(GraphError, match="the owner, or no reader"):
            diary.remove_reader(ALICE.id)
        with pytest.raises(GraphError, match="only the owner"):
            bobs.add_reader(DAVE.id)
        await close(alice, bob, carol)

    run(main())


def test_a_reader_who_may_write() -> None:
    async def main() -> None:
        alice, bob, carol = await three()
        bob.access.publish_key()
        await meet(alice, bob, carol)
        diary = alice.private("shared", readers=[BOB.id])
        alice.access.grant(BOB.id, "shared")
        diary["by"] = "Alice"
        await meet(alice, bob, carol)
        bobs = bob.private(diary.soul)
        bobs["by"] = "Bob"
        await meet(alice, bob, carol)
        assert diary["by"] == bobs["by"] == "Bob"
        # What he copies under his name, or puts elsewhere, opens for nobody.
        node, name = bob.replica.node(diary.soul), bobs._open_ring().hidden_key("by")
        diary["by"] = "Alice again"
        await meet(alice, bob, carol)
        copied = node[name]
        node[name] = copied
        node[bobs._open_ring().hidden_key("elsewhere")] = copied
        node["nonsense"] = "not sealed"
        await meet(alice, bob, carol)
        for graph in (alice, bob):
            seen = graph.private(diary.soul)
            assert seen.to_dict() == {}
            assert seen.broken == 3
            with pytest.raises(SealBroken):
                seen["by"]
        await close(alice, bob, carol)

    run(main())


def test_keys_that_are_lost_or_unknown() -> None:
    async def main() -> None:
        alice, bob, carol = await three()
        with pytest.raises(ReaderUnknown, match="publish_key"):
            alice.private("diary", readers=[BOB.id])
        bob.replica.node(bob.own())["static"] = CAROL.static_public + CAROL.static_proof  # another's
        await meet(alice, bob, carol)
        with pytest.raises(ReaderUnknown):
            alice.private("diary", readers=[BOB.id])
        bob.access.publish_key()
        bob.access.publish_key()
        await meet(alice, bob, carol)
        diary = alice.private("diary", readers=[BOB.id])
        diary["k"] = "v"
        await meet(alice, bob, carol)
        renewed = Identity(BOB.seed, b"another static key".ljust(32))
        async with await Graph.open("memory:", identity=renewed) as again:
            await again.receive(await everything(alice))
            with pytest.raises(KeyLost, match="identity file"):
                again.private(diary.soul)["k"]
            again.access.publish_key()
            await alice.receive(await everything(again))
            diary.add_reader(BOB.id)
            await again.receive(await everything(alice))
            assert again.private(diary.soul)["k"] == "v"
        async with await Graph.open("memory:", identity=Identity(DAVE.seed)) as dave:
            for attempt in (dave.access.publish_key, lambda: dave.private("x", readers=[])):
                with pytest.raises(GraphError, match="could never be opened"):
                    attempt()
        with pytest.raises(GraphError, match="not a private node"):
            alice.private("nothing")["k"]
        with pytest.raises(GraphError, match="at a path"):
            alice.private(alice.own())
        with pytest.raises(GraphError, match="not an identity"):
            alice.private("~nobody/x")
        with pytest.raises(GraphError, match="there already"):
            diary.make([])
        assert alice.private("diary", readers=[CAROL.id]).readers == [ALICE.id, BOB.id]  # it is there
        await close(alice, bob, carol)

    run(main())


@given(st.data())
def test_whatever_is_changed_in_a_ring_or_a_value_opens_nothing(data: st.DataObject) -> None:
    async def main() -> None:
        async with await Graph.open("memory:", identity=ALICE) as alice:
            diary = alice.private("diary", readers=[])
            diary["k"] = "v"
            ring_node, node = alice.replica.node(diary.ring_soul), alice.replica.node(diary.soul)
            (name,) = node
            which, key = data.draw(st.sampled_from([(ring_node, RING_KEY), (node, name)]))
            changed = bytearray(which[key])
            changed[data.draw(st.integers(0, len(changed) - 1))] ^= data.draw(st.integers(1, 255))
            which[key] = data.draw(
                st.sampled_from([bytes(changed), bytes(changed[:-1]), b"", 1, None, [1, 2, 3, 4]])
            )
            again = PrivateNode(alice, Reader(ALICE.id.key), "diary")
            with pytest.raises((SealBroken, NotReader, KeyLost, KeyError, GraphError)):
                again["k"]

    run(main())


def test_limits() -> None:
    async def main() -> None:
        async with await Graph.open("memory:", identity=ALICE) as alice:
            diary = alice.private("diary", readers=[])
            ring = diary._open_ring()
            with pytest.raises(GraphError, match="keys"):
                diary._seal_ring(ring.names, [bytes(32)] * (MAX_KEYS + 1), [Reader(ALICE.id.key)])
            with pytest.raises(GraphError, match="readers"):
                diary._seal_ring(ring.names, [bytes(32)], [Reader(ALICE.id.key)] * 256)
            bad = values.encode([1, 1, [b"short"], b""])
            alice.replica.node(diary.ring_soul)[RING_KEY] = bad
            with pytest.raises(SealBroken):
                diary.readers  # noqa: B018

    run(main())


def test_queries_see_what_was_opened() -> None:
    async def main() -> None:
        alice, bob, carol = await three()
        bob.access.publish_key()
        await meet(alice, bob, carol)
        diary = alice.private("diary", readers=[BOB.id])
        diary["mood"] = "fine"
        await meet(alice, bob, carol)
        asked = "MATCH (n) WHERE n.mood = 'fine' RETURN n.mood AS mood"
        assert alice.query(asked) == [{"mood": "fine"}]
        assert bob.query(asked) == []  # not opened
        bobs = bob.private(diary.soul)
        assert bob.query(asked) == [{"mood": "fine"}]
        carol.private(diary.soul)
        assert carol.query(asked) == []
        diary["mood"] = "wet"
        await meet(alice, bob, carol)
        assert bob.query(asked) == []
        assert bob.query("MATCH (n {mood: 'wet'}) RETURN n.mood AS mood") == [{"mood": "wet"}]
        diary.remove_reader(BOB.id)
        await meet(alice, bob, carol)
        assert bob.query("MATCH (n {mood: 'wet'}) RETURN n.mood AS mood") == []
        assert bob.private(diary.soul) is bobs
        await close(alice, bob, carol)

    run(main())


def test_who_is_granted_everything_can_not_take_what_is_sealed() -> None:
    """Neither the ring nor the static key: with others the owner would have lost its own private nodes."""

    async def main() -> None:
        alice, bob, carol = await three("home")
        alice.access.publish_key()
        diary = alice.private("diary", readers=[])
        diary["monday"] = SECRET
        alice.access.grant(BOB.id)
        await meet(alice, bob, carol)
        bob.node(alice.own("note"))["said"] = "by Bob"  # as it was granted
        stolen = bob.replica.node(diary.ring_soul)
        for soul, key in ((stolen.soul, RING_KEY), (alice.own(), "static")):
            with pytest.raises(NotOwner):
                bob.replica.put(soul, key, b"Bob's")
        await meet(alice, bob, carol)
        assert alice.private("diary")["monday"] == SECRET
        assert carol.node(alice.own("note"))["said"] == "by Bob"
        with pytest.raises(GraphError, match="owner alone"):
            alice.access.grant(BOB.id, ".rings/diary")
        await close(alice, bob, carol)

    run(main())


def test_readers_of_anothers_node_are_not_ours_to_name() -> None:
    """They were left out in silence, and whoever named them believed that they can read."""

    async def main() -> None:
        alice, bob, carol = await three("home")
        soul = alice.private("diary", readers=[]).soul
        await meet(alice, bob, carol)
        with pytest.raises(GraphError, match="another's"):
            bob.private(soul, readers=[CAROL.id])
        assert bob.private(soul).soul == soul
        await close(alice, bob, carol)

    run(main())


def test_an_account_reads_by_its_devices_and_a_revoked_one_reads_nothing_new() -> None:
    """Bob's account has two devices; Alice seals to the account, and hears of the lost one by its card."""
    phone, key, recovery = (Identity(bytes([n]) * 32, bytes([n]) * 32) for n in (60, 61, 62))
    account = Account.create(key, recovery.id, [Device(BOB.id.key), Device(phone.id.key)])
    name = account.card.name

    async def main() -> None:
        alice, bob, carol = await three("home")
        lost = await Graph.open("memory:", identity=phone, name="home")
        everyone = (alice, bob, carol, lost)
        bob.accounts.join(account.card)
        await meet(*everyone)
        with pytest.raises(ReaderUnknown, match="no device of"):
            alice.private("diary", readers=[name])
        for one in (bob, lost):
            one.access.publish_key()
        await meet(*everyone)
        diary = alice.private("diary", readers=[name])
        assert diary.readers == [ALICE.id, name]
        diary["old"] = "for all devices"
        await meet(*everyone)
        for one in (bob, lost):
            assert one.private(diary.soul).to_dict() == {"old": "for all devices"}
        with pytest.raises(NotReader):
            carol.private(diary.soul)["old"]

        bob.accounts.revoke(account, phone.id)
        await alice.receive(await everything(bob))
        await meet(*everyone)  # Alice seals by herself when she hears of it
        diary["new"] = "not for the phone"
        await meet(*everyone)
        assert bob.private(diary.soul).to_dict() == {"old": "for all devices", "new": "not for the phone"}
        with pytest.raises(NotReader):
            lost.private(diary.soul)["new"]
        assert SECRET.encode() not in visible(lost)
        diary.remove_reader(name)
        with pytest.raises(GraphError, match="no reader"):
            diary.remove_reader(name)
        with pytest.raises(GraphError):
            diary.add_reader("dtpa1nonsense")
        await close(*everyone)

    run(main())


def test_an_account_owns_private_nodes() -> None:
    """Whichever device has sealed it; one that is added reads what was there."""
    phone, key, recovery = (Identity(bytes([n]) * 32, bytes([n]) * 32) for n in (60, 61, 62))
    account = Account.create(key, recovery.id, [Device(BOB.id.key)])

    async def main() -> None:
        bob, mine = [await Graph.open("memory:", identity=who, name="home") for who in (BOB, phone)]
        alice = await Graph.open("memory:", identity=ALICE, name="home")
        everyone = (alice, bob, mine)
        bob.accounts.join(account.card)
        bob.access.publish_key()
        soul = bob.accounts.own("diary")
        bob.private(soul, readers=[])["k"] = SECRET
        both = account.add(phone.id)
        mine.access.publish_key()
        await meet(*everyone)
        with pytest.raises(GraphError, match="another's"):
            mine.private(soul, readers=[])
        bob.accounts.join(both.card)
        await meet(*everyone)  # Bob's laptop hears of the phone's key, and of the card, and seals to both
        await meet(*everyone)
        assert mine.private(soul)["k"] == SECRET
        mine.private(soul)["k"] = "by the phone"
        await meet(*everyone)
        assert bob.private(soul)["k"] == "by the phone"
        with pytest.raises(NotReader):
            alice.private(soul)["k"]
        less = bob.accounts.revoke(both, phone.id)
        bob.private(soul)["k"] = "without the phone"
        await meet(*everyone)
        with pytest.raises(NotReader):
            mine.private(soul)["k"]
        assert less.card.generation == 1
        await close(*everyone)

    run(main())
