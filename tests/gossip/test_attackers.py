"""Who attacks gossip, and what becomes of it: a count, bounded memory, and nobody else harmed. Each attack a test."""

from dataclasses import replace

import pytest

from dtp.gossip import frames
from dtp.gossip.core import KNOWN_TOPICS, LEAST_TOPICS, Verdict
from dtp.gossip.frames import GossipFrameType
from dtp.gossip.limits import DEFAULT, DEFAULT_WEIGHTS
from dtp.gossip.message import MIN_SIZE, Parsed, SignatureChecks, content_of, sign_batch
from dtp.gossip.outbox import Outbox
from dtp.testing.swarm import WALL, GossipSwarm

T = "weather"
W = T.encode()
SUBSCRIBE = frames.frame(GossipFrameType.SUBSCRIBE, frames.named(W))


@pytest.fixture
def swarm():
    return GossipSwarm(100)


@pytest.fixture
def scene(swarm):
    """A node, an honest neighbour of it that has the topic, and an attacker."""
    node, honest = swarm.add_node(T), swarm.add_node(T)
    swarm.link_nodes(node, honest)
    attacker = swarm.add_puppet(node)
    attacker.send_frames(node, SUBSCRIBE, frames.graft(W))
    swarm.run_for(2)
    return node, honest, attacker


def message(encoded):
    return frames.frame(GossipFrameType.MESSAGE, encoded)


def still_works(swarm, node, honest):
    """What honest neighbours write still passes, both ways."""
    seen = len(node.messages), len(honest.messages)
    honest.publish(T, b"still here")
    node.publish(T, b"I, too")
    swarm.run_for(2)
    assert (len(node.messages), len(honest.messages)) == (seen[0] + 1, seen[1] + 1)


def forge(encoded):
    return encoded[:-1] + bytes([encoded[-1] ^ 1])


# ---- messages ----------------------------------------------------------------------------------------------------


def test_forged_messages_are_counted_not_passed_on_and_end_the_neighbour(swarm, scene):
    node, honest, attacker = scene
    for number in range(10):
        attacker.send_frames(node, message(forge(honest.sign_message(T, b"%d" % number))))
    swarm.run_for(1)
    assert node.data == honest.data == []
    assert node.router.counts["message-forged"] + node.router.counts["graylisted"] == 10
    assert node.router.score_of(attacker.key) < DEFAULT_WEIGHTS.graylist
    assert attacker.key not in node.router.mesh_of(W)
    assert [each.peer for each in node.cut_off][:1] == [attacker.key]
    still_works(swarm, node, honest)


def test_a_message_in_anothers_name_is_forged(swarm, scene):
    node, honest, attacker = scene
    own = swarm.add_node().sign_message(T, b"I am you")
    attacker.send_frames(node, message(own[:1] + honest.key + own[33:]))
    assert node.router.counts["message-forged"] == 1


def test_replays_are_dropped_while_they_are_remembered_and_stale_afterwards(swarm, scene):
    node, honest, attacker = scene
    honest.publish(T, b"once")
    swarm.run_for(0.5)
    replay = message(node.messages[0].encoded)
    attacker.send_frames(node, replay)
    assert node.router.counts["duplicate"] == 1
    for _ in range(30):
        swarm.run_for(10)
        attacker.send_frames(node, replay)
    assert node.data == [b"once"]
    assert node.router.counts["duplicate"] + node.router.counts["message-stale"] == 31


def test_replays_are_not_taken_when_the_cache_is_full():
    swarm = GossipSwarm(101, limits=replace(DEFAULT, seen=100))
    node, author = swarm.add_node(T), swarm.add_node()
    attacker = swarm.add_puppet(node)
    attacker.send_frames(node, SUBSCRIBE)
    sent = []
    for number in range(400):
        # Dated as far ahead as is taken: forgotten while its date is still to come.
        sent.append(message(author.sign_message(T, b"%d" % number, age=-DEFAULT.future + 0.1)))
        attacker.send_frames(node, sent[-1])
        swarm.run_for(0.2)
    assert node.router.count_kept()["seen"] <= 100
    assert len(node.data) == 400
    for each in sent:
        attacker.send_frames(node, each)
    swarm.run_for(1)
    assert len(node.data) == len(set(node.data)) == 400


def test_a_flood_of_genuine_messages_makes_old_ones_stale_not_doubled():
    swarm = GossipSwarm(102, limits=replace(DEFAULT, seen=100))
    node, author = swarm.add_node(T), swarm.add_node()
    attacker = swarm.add_puppet(node)
    attacker.send_frames(node, SUBSCRIBE)
    first = message(author.sign_message(T, b"first"))
    attacker.send_frames(node, first)
    swarm.run_for(11)
    attacker.send_frames(node, *(message(author.sign_message(T, b"%d" % number)) for number in range(150)))
    attacker.send_frames(node, first)
    swarm.run_for(1)
    assert node.data.count(b"first") == 1
    assert node.router.counts["message-stale"] >= 1


@pytest.mark.parametrize(
    ("age", "count"), [(121, "message-stale"), (-11, "message-future"), (119, ""), (-9, "")]
)
def test_stale_and_future_messages_are_refused_before_their_signature(swarm, scene, age, count):
    node, honest, attacker = scene
    checked = node.router.checks.checked
    attacker.send_frames(node, message(swarm.add_node().sign_message(T, b"when", age=age)))
    assert node.router.counts[count] == (1 if count else 0)
    assert node.router.checks.checked - checked == (0 if count else 1)
    swarm.run_for(1)
    still_works(swarm, node, honest)


def test_messages_that_are_too_large_are_refused(swarm, scene):
    node, honest, attacker = scene
    huge = honest.sign_message(T, bytes(DEFAULT.message - MIN_SIZE))
    assert len(huge) > DEFAULT.message
    # The frame itself is refused where frames are read (test_codec); this is what would come past it.
    node.router.receive(attacker.key, [(GossipFrameType.MESSAGE, huge)], swarm.now)
    assert node.router.counts["message-oversize"] == 1
    assert node.router.score_of(attacker.key) < 0
    still_works(swarm, node, honest)


@pytest.mark.parametrize("body", [b"", bytes(10), bytes(200), b"\xff" * 500])
def test_what_is_no_message_costs_its_bringer(swarm, scene, body):
    node, honest, attacker = scene
    attacker.send_frames(node, message(body))
    assert node.router.counts["message-malformed"] == 1
    assert node.router.score_of(attacker.key) < 0
    still_works(swarm, node, honest)


@pytest.mark.parametrize(
    "packed",
    [
        frames.frame(99),
        frames.frame(GossipFrameType.IWANT, b"half an id"),
        frames.frame(GossipFrameType.GRAFT),
        frames.frame(GossipFrameType.PRUNE, b"\x01a"),
    ],
)
def test_what_is_no_frame_ends_the_stream(swarm, scene, packed):
    node, honest, attacker = scene
    attacker.send_frames(node, packed)
    swarm.run_for(0.1)
    assert {each.peer for each in node.cut_off} == {attacker.key}
    assert node.router.counts["frame-broken"] == 1
    attacker.send_frames(node, SUBSCRIBE)
    assert node.router.counts["graylisted"] == 1
    still_works(swarm, node, honest)


def test_frames_of_later_versions_are_skipped(scene):
    node, _, attacker = scene
    attacker.send_frames(node, frames.frame(0xFF, b"whatever"))
    assert node.router.counts["frame-skipped"] == 1
    assert node.cut_off == []


def test_messages_of_topics_that_are_not_joined_are_not_kept(swarm, scene):
    node, honest, attacker = scene
    attacker.send_frames(node, message(honest.sign_message("elsewhere", b"x")))
    assert node.router.counts["message-unknown-topic"] == 1
    assert node.router.count_kept()["held"] == 0


# ---- floods ------------------------------------------------------------------------------------------------------


def fake_ids(count, start=0):
    return [number.to_bytes(20, "big") for number in range(start, start + count)]


def test_a_flood_of_ihave_is_bounded_and_nobody_listens_once_its_promises_are_broken(swarm, scene):
    node, honest, attacker = scene
    for beat in range(40):
        for at in range(15):
            attacker.send_frames(node, frames.ihave(W, fake_ids(5000, (beat * 15 + at) * 5000)))
        assert node.router.count_kept()["asked"] <= 20_000
        swarm.run_for(0.5)
    for beat in range(60):  # it goes on with little
        attacker.send_frames(node, frames.ihave(W, fake_ids(1, 10_000_000 + beat)))
        swarm.run_for(0.5)
    counts = node.router.counts
    assert counts["ihave-flood"] > 0
    assert counts["promise-broken"] > 0
    assert node.router.score_of(attacker.key) < DEFAULT_WEIGHTS.gossip
    assert counts["ihave-low-score"] > 0
    swarm.run_for(5)
    assert node.router.count_kept()["asked"] == 0
    still_works(swarm, node, honest)


def test_ids_that_an_attacker_promised_are_asked_of_others(swarm, scene):
    node, honest, attacker = scene
    helper = swarm.add_puppet(node)
    helper.send_frames(node, SUBSCRIBE)
    swarm.run_for(1)
    encoded = honest.sign_message(T, b"kept back")
    attacker.send_frames(node, frames.ihave(W, [Parsed(encoded).id]))
    helper.send_frames(node, frames.ihave(W, [Parsed(encoded).id]))
    swarm.run_for(0.1)
    assert helper.list_bodies(GossipFrameType.IWANT) == []
    swarm.run_for(4)
    assert helper.list_bodies(GossipFrameType.IWANT) == [Parsed(encoded).id]
    helper.send_frames(node, message(encoded))
    swarm.run_for(0.1)
    assert node.data == [b"kept back"]


def test_what_many_promise_and_do_not_give_is_asked_of_one_that_does(swarm, scene):
    node, honest, _ = scene
    encoded = honest.sign_message(T, b"kept back by six")
    told = frames.ihave(W, [Parsed(encoded).id])
    liars = [swarm.add_puppet(node) for _ in range(6)]
    helper = swarm.add_puppet(node)
    for puppet in (*liars, helper):
        puppet.send_frames(node, SUBSCRIBE, told)
    swarm.run_for(30)
    assert [liar.list_bodies(GossipFrameType.IWANT) for liar in liars] == [[Parsed(encoded).id]] * 6
    assert helper.list_bodies(GossipFrameType.IWANT) == [Parsed(encoded).id]
    helper.send_frames(node, message(encoded))
    swarm.run_for(0.1)
    assert node.data == [b"kept back by six"]


def test_a_flood_of_iwant_gets_each_message_a_few_times(swarm, scene):
    node, honest, attacker = scene
    ids = [honest.publish(T, b"%d" % number) for number in range(20)]
    swarm.run_for(0.1)
    before = len(attacker.list_bodies(GossipFrameType.MESSAGE))
    for _ in range(100):
        attacker.send_frames(node, frames.frame(GossipFrameType.IWANT, *ids, *fake_ids(100)))
    swarm.run_for(0.1)
    assert len(attacker.list_bodies(GossipFrameType.MESSAGE)) - before == 20 * DEFAULT.iwants
    assert node.router.counts["iwant-flood"] == 20 * (100 - DEFAULT.iwants)
    assert node.router.count_kept_of(attacker.key)["served"] <= 20
    still_works(swarm, node, honest)


def test_a_flood_of_graft_and_prune_is_not_answered_for_ever(swarm, scene):
    node, honest, attacker = scene
    attacker.send_frames(node, frames.prune(W, 3600))  # so that every graft of it is one in back-off
    for _ in range(500):
        attacker.send_frames(node, frames.graft(W))
    swarm.run_for(0.1)
    assert len(attacker.list_bodies(GossipFrameType.PRUNE)) <= DEFAULT.grafts
    assert node.router.counts["graft-in-backoff"] > 0
    assert node.router.score_of(attacker.key) < DEFAULT_WEIGHTS.graylist
    still_works(swarm, node, honest)


@pytest.mark.parametrize(
    ("frame", "what"), [(frames.graft(W), "graft"), (frames.prune(W, 60), "prune")], ids=["graft", "prune"]
)
def test_a_flood_of_one_topic_s_grafts_or_prunes_costs_whoever_sends_it(swarm, scene, frame, what):
    node, honest, attacker = scene
    for _ in range(DEFAULT.grafts):
        attacker.send_frames(node, frame)
    assert node.router.counts[f"{what}-flood"] == 0
    for _ in range(100):
        attacker.send_frames(node, frame)
    assert node.router.counts[f"{what}-flood"] > 0
    swarm.run_for(1)
    assert any(each.peer == attacker.key for each in node.cut_off)
    still_works(swarm, node, honest)


def test_who_is_worth_little_is_neither_asked_nor_answered(swarm, scene):
    node, honest, attacker = scene
    held = honest.publish(T, b"held")
    swarm.run_for(0.1)
    node.router.set_application_score(attacker.key, DEFAULT_WEIGHTS.gossip - 10)
    had = len(attacker.frames)
    attacker.send_frames(node, frames.ihave(W, fake_ids(1)), frames.frame(GossipFrameType.IWANT, held))
    swarm.run_for(0.1)
    assert [
        kind for kind, _ in attacker.frames[had:] if kind in (GossipFrameType.IWANT, GossipFrameType.MESSAGE)
    ] == []
    assert (node.router.counts["ihave-low-score"], node.router.counts["iwant-low-score"]) == (1, 1)
    still_works(swarm, node, honest)


def test_messages_that_wait_for_a_slow_validator_are_bounded_and_can_come_again(swarm):
    node, honest = swarm.add_node(limits=replace(DEFAULT, validating=10)), swarm.add_node(T)
    asked = []
    node.join(T, validate=lambda message: asked.append(message))
    swarm.link_nodes(node, honest)
    swarm.run_for(1)
    for number in range(20):
        honest.publish(T, b"%d" % number)
    swarm.run_for(0.1)
    assert (len(asked), node.router.counts["validators-busy"]) == (10, 10)
    for _ in range(2):
        for each in asked:
            node.router.set_verdict(each.id, Verdict.ACCEPT, swarm.now)
        swarm.flush_soon(node)
        swarm.run_for(10)  # told of them again, it asks
    assert sorted(node.data) == sorted(b"%d" % number for number in range(20))


@pytest.mark.parametrize("wrong", [-3600, 3600])
def test_a_node_whose_clock_is_wrong_by_an_hour_blames_nobody_and_hears_all_once_it_is_right(swarm, wrong):
    others = [swarm.add_node(T) for _ in range(3)]
    node = swarm.add_node(T)
    swarm.link_all()
    swarm.run_for(1)
    node.router.set_wall(WALL + wrong)
    for number in range(60):
        for each in others:
            each.publish(T, b"%d" % number)
        swarm.run_for(1)
    assert (node.data, [len(each.data) for each in others]) == ([], [120] * 3)
    assert all(node.router.score_of(each.key) > DEFAULT_WEIGHTS.gossip for each in others)
    assert not node.cut_off
    assert node.router.counts["asked"] == 0  # for what it has refused already
    node.router.set_wall(WALL)
    others[0].publish(T, b"right")
    swarm.run_for(1)
    assert b"right" in node.data


def test_nothing_is_kept_for_long_of_what_and_who_has_gone(swarm):
    node = swarm.add_node(T)
    guest = swarm.add_puppet(node)
    guest.send_frames(node, SUBSCRIBE)
    visitors = [swarm.add_puppet(node) for _ in range(30)]
    for number, visitor in enumerate(visitors):
        told = Parsed(encoded := visitor_message(swarm, visitor, number))
        never_given = frames.ihave(W, fake_ids(10, 10 * number))
        visitor.send_frames(node, SUBSCRIBE, message(encoded), never_given)
        guest.send_frames(node, frames.frame(GossipFrameType.IWANT, told.id))
    swarm.run_for(DEFAULT.promise + 1)
    for visitor in visitors:
        node.router.remove_peer(visitor.key, swarm.now)
    assert len(node.data) == 30
    assert node.router.count_kept()["late"] > 200
    assert node.router.count_kept_of(guest.key)["served"] == 30
    swarm.run_for(DEFAULT.stale + DEFAULT.idle_heartbeat + 5)
    kept = node.router.count_kept()
    assert kept["told"] == 1  # the guest
    assert kept | {"topics": 0, "seen": 0, "told": 0} == dict.fromkeys(kept, 0)
    assert node.router.count_kept_of(guest.key)["served"] == 0


def visitor_message(swarm, visitor, number):
    """Return a message of a puppet's own."""
    content = content_of(visitor.key, W, number, int((swarm.now + WALL) * 1000), b"%d" % number)
    return sign_batch(visitor.identity, [content])[0]


@pytest.mark.parametrize(("age", "is_taken_later"), [(-15, True), (200, False)])
def test_what_was_refused_for_its_time_is_not_asked_for_before_it_would_be_taken(
    swarm, scene, age, is_taken_later
):
    node, _honest, attacker = scene
    told = Parsed(encoded := swarm.add_node().sign_message(T, b"when", age=age))
    attacker.send_frames(node, message(encoded))
    for _ in range(4):
        attacker.send_frames(node, frames.ihave(W, [told.id]))
        swarm.run_for(1)
    assert node.router.counts["asked"] == 0
    assert node.router.count_kept()["refused"] == 1
    swarm.run_for(2)
    attacker.send_frames(node, frames.ihave(W, [told.id]))
    assert node.router.counts["asked"] == is_taken_later
    swarm.run_for(DEFAULT.stale)
    node.router.tick(swarm.now + DEFAULT.idle_heartbeat)
    assert node.router.count_kept()["refused"] == 0


def test_who_gives_what_was_asked_for_is_not_blamed_for_this_side_s_slow_validator(swarm):
    node, honest = swarm.add_node(limits=replace(DEFAULT, validating=1)), swarm.add_node(T)
    node.join(T, validate=lambda message: None)
    swarm.link_nodes(node, honest)
    swarm.run_for(1)
    for number in range(30):
        honest.publish(T, b"%d" % number)
        swarm.run_for(5)
    assert node.router.counts["asked"] > 20
    assert node.router.score_of(honest.key) >= 0


def test_grafts_for_topics_that_are_not_here_are_not_answered(swarm, scene):
    node, _, attacker = scene
    had = len(attacker.frames)
    for number in range(60):
        attacker.send_frames(node, frames.graft(b"%d" % number))
    swarm.run_for(1)
    assert [kind for kind, _ in attacker.frames[had:] if kind == GossipFrameType.PRUNE] == []
    assert node.router.count_kept()["topics"] == 1


def test_frames_for_topics_that_are_not_here_are_counted_and_nothing_is_kept_of_them(swarm, scene):
    """They may have crossed with word that the topics were left, so nobody is blamed."""
    node, honest, attacker = scene
    for number in range(500):
        name = b"%d" % number
        attacker.send_frames(
            node,
            frames.graft(name),
            frames.prune(name, 60),
            frames.ihave(name, fake_ids(1)),
            frames.neighbours(name, [b"somebody"]),
            frames.peers(name, [b"record"]),
        )
    for kind in ("graft", "prune", "ihave", "neighbours", "peers"):
        assert node.router.counts[f"{kind}-unknown-topic"] == 500
    assert node.router.count_kept_of(attacker.key)["frames"] <= 1  # the graft of a topic that is here
    assert node.router.score_of(attacker.key) >= 0
    still_works(swarm, node, honest)


def test_a_flood_of_subscriptions_is_bounded(swarm, scene):
    node, honest, attacker = scene
    names = [b"%d" % number for number in range(3000)]
    for at in range(0, 3000, 500):
        attacker.send_frames(
            node, frames.frame(GossipFrameType.SUBSCRIBE, *map(frames.named, names[at : at + 500]))
        )
    assert node.router.count_kept_of(attacker.key)["topics"] == DEFAULT.topics
    assert node.router.counts["topics-too-many"] > 0
    sybils = [swarm.add_puppet(node) for _ in range(30)]
    for at, sybil in enumerate(sybils):
        names = [b"%d %d" % (at, number) for number in range(1000)]
        sybil.send_frames(node, frames.frame(GossipFrameType.SUBSCRIBE, *map(frames.named, names)))
    assert KNOWN_TOPICS <= node.router.count_kept()["topics"] <= KNOWN_TOPICS + LEAST_TOPICS * len(sybils)
    for each in [attacker, *sybils]:
        node.router.remove_peer(each.key, swarm.now)
    assert node.router.count_kept()["topics"] == 1
    still_works(swarm, node, honest)


def test_nothing_is_kept_of_neighbours_in_topics_that_only_others_have(swarm, scene):
    """Each may name 1,024 such topics, and 51 neighbours in each: 4 MB of every neighbour."""
    node, honest, attacker = scene
    names = [b"%d" % number for number in range(100)]
    attacker.send_frames(node, frames.frame(GossipFrameType.SUBSCRIBE, *map(frames.named, names)))
    attacker.send_frames(node, *(frames.neighbours(name, [b"somebody"]) for name in (*names, W)))
    assert node.router.count_kept_of(attacker.key)["neighbours"] == 1  # in the topic that is here
    assert node.router.score_of(attacker.key) >= 0
    still_works(swarm, node, honest)


def test_a_flood_of_idontwant_is_bounded_and_keeps_nothing_from_others(swarm, scene):
    node, honest, attacker = scene
    for at in range(20):
        attacker.send_frames(node, frames.frame(GossipFrameType.IDONTWANT, *fake_ids(5000, at * 5000)))
    assert node.router.count_kept_of(attacker.key)["not-wanted"] == DEFAULT.dont_wants
    encoded = swarm.add_node().sign_message(T, b"wanted")
    attacker.send_frames(node, frames.frame(GossipFrameType.IDONTWANT, Parsed(encoded).id))
    other = swarm.add_puppet(node)
    other.send_frames(node, message(encoded))
    swarm.run_for(0.1)
    assert node.data == honest.data == [b"wanted"]


def test_the_past_is_given_now_and_then_only_and_taken_only_when_asked_for(swarm, scene):
    node, honest, attacker = scene
    for number in range(10):
        honest.publish(T, b"%d" % number)
    swarm.run_for(0.2)
    for _ in range(50):
        attacker.send_frames(node, frames.history(W, 0, 65535))
    swarm.run_for(0.1)
    assert len(attacker.list_bodies(GossipFrameType.PAST)) == 10
    assert node.router.counts["history-flood"] + node.router.counts["graylisted"] == 49
    other = swarm.add_puppet(node)
    other.send_frames(
        node, SUBSCRIBE, frames.frame(GossipFrameType.PAST, honest.sign_message(T, b"old", age=50))
    )
    assert node.router.counts["past-unasked"] == 1
    assert b"old" not in node.data


def test_more_neighbours_than_there_is_room_for_are_refused():
    swarm = GossipSwarm(103, limits=replace(DEFAULT, peers=5))
    node, honest = swarm.add_node(T), swarm.add_node(T)
    swarm.link_nodes(node, honest)
    puppets = [swarm.add_puppet(node) for _ in range(10)]
    keys = [honest.key, *(puppet.key for puppet in puppets)]
    assert sum(bool(node.router.source_of(key)) for key in keys) == 5
    assert node.router.counts["peers-too-many"] == 6
    swarm.run_for(1)
    still_works(swarm, node, honest)


def test_records_beyond_what_a_frame_may_have_end_the_stream(swarm, scene):
    node, _, attacker = scene
    body = frames.named(W) + b"\x00\x01x" * 51
    attacker.send_frames(node, frames.frame(GossipFrameType.PEERS, body))
    swarm.run_for(0.1)
    assert node.router.counts["frame-broken"] == 1


# ---- the mesh ----------------------------------------------------------------------------------------------------


def test_an_eclipse_by_grafts_leaves_neighbours_that_this_side_dialled():
    swarm = GossipSwarm(104, limits=replace(DEFAULT, full_mesh=4))
    node = swarm.add_node(T)
    chosen = [swarm.add_node(T) for _ in range(4)]
    for other in chosen:
        swarm.link_nodes(node, other)
    swarm.run_for(1)
    sybils = [swarm.add_puppet(node) for _ in range(100)]
    for _ in range(10):
        for sybil in sybils:
            if node.router.score_of(sybil.key) >= 0:
                sybil.send_frames(node, SUBSCRIBE, frames.graft(W))
        swarm.run_for(1)
    dialled = [other for other in chosen if other.key in node.router.mesh_of(W)]
    assert len(dialled) >= DEFAULT.degree_out
    assert len(node.router.mesh_of(W)) <= DEFAULT.degree_high
    chosen[0].publish(T, b"past the sybils")
    node.publish(T, b"and back")
    swarm.run_for(3)
    assert node.data == [b"past the sybils"]
    assert all(b"and back" in other.data for other in chosen)


def test_sybils_that_swallow_everything_only_delay():
    """Relays that drop: 20 honest nodes, each with 20 neighbours that take all and pass nothing on."""
    swarm = GossipSwarm(105, limits=replace(DEFAULT, full_mesh=4))
    nodes = [swarm.add_node(T) for _ in range(20)]
    for at, node in enumerate(nodes):
        for step in (1, 2, 5):
            swarm.link_nodes(node, nodes[(at + step) % 20])
        for _ in range(20):
            sybil = swarm.add_puppet(node)
            sybil.send_frames(node, SUBSCRIBE, frames.graft(W))
    swarm.run_for(5)
    for number in range(10):
        nodes[number].publish(T, b"%d" % number)
        swarm.run_for(0.5)
    swarm.run_for(15)
    assert [len(set(node.data)) for node in nodes] == [9] * 10 + [10] * 10


def test_a_relay_that_delays_is_overtaken_by_others():
    swarm = GossipSwarm(106, limits=replace(DEFAULT, full_mesh=4))
    author, slow, node = swarm.add_node(T), swarm.add_node(T), swarm.add_node(T)
    others = [swarm.add_node(T) for _ in range(4)]
    swarm.carry = lambda sender, receiver, data, now: (30.0 if sender == slow.key else 0.01,)
    for each in (slow, *others):
        swarm.link_nodes(author, each)
        swarm.link_nodes(each, node)
    swarm.run_for(70)
    author.publish(T, b"now")
    swarm.run_for(0.1)
    assert node.data == [b"now"]
    swarm.run_for(60)
    assert node.data == [b"now"]


def test_a_neighbour_that_lies_about_its_neighbours_keeps_nothing_from_them():
    swarm = GossipSwarm(107)
    author, node, victim = swarm.add_node(T), swarm.add_node(T), swarm.add_node(T)
    swarm.link_nodes(node, victim)
    liar = swarm.add_puppet(node)
    liar.send_frames(node, SUBSCRIBE, frames.graft(W), frames.neighbours(W, [victim.key[:8]]))
    swarm.run_for(1)
    liar.send_frames(node, message(author.sign_message(T, b"not for the victim")))
    swarm.run_for(0.1)
    assert victim.data == node.data == [b"not for the victim"]


def test_what_an_author_says_of_its_own_neighbours_is_believed_and_repaired():
    """By a lie it keeps its own messages from somebody for a heartbeat."""
    swarm = GossipSwarm(108)
    node, victim = swarm.add_node(T), swarm.add_node(T)
    swarm.link_nodes(node, victim)
    liar = swarm.add_puppet(node)
    liar.send_frames(node, SUBSCRIBE, frames.graft(W), frames.neighbours(W, [victim.key[:8]]))
    swarm.run_for(1)
    writer = swarm.add_node()
    writer.key, writer.identity = liar.key, liar.identity
    liar.send_frames(node, message(writer.sign_message(T, b"mine")))
    swarm.run_for(0.1)
    assert (node.data, victim.data) == ([b"mine"], [])
    swarm.run_for(2)
    assert victim.data == [b"mine"]


def test_a_neighbour_that_never_reads_is_not_waited_for_and_cut_off(swarm):
    node, honest, mute = swarm.add_node(T), swarm.add_node(T), swarm.add_node(T)
    swarm.link_nodes(node, honest)
    swarm.link_nodes(node, mute)
    swarm.run_for(2)
    mute.reads_nothing_of = {node.key}
    most = 0
    for _ in range(200):
        node.publish(T, bytes(50_000))
        swarm.run_for(0.2)
        most = max(most, node.router.queued_bytes(mute.key))
    assert most <= DEFAULT.queue_hard
    assert node.router.counts["left-out"] > 100
    assert [each.peer for each in node.cut_off][:1] == [mute.key]
    assert node.router.counts["cut-off-unread"] >= 1
    assert len(honest.data) == 200


def test_frames_that_a_neighbour_does_not_take_are_bounded():
    outbox = Outbox(DEFAULT)
    room = 2 * DEFAULT.queue_hard
    frame = bytes(1000)
    taken = sum(outbox.try_put_control(frame, 0.0) for _ in range(room // len(frame)))
    assert DEFAULT.queue_hard < outbox.size == taken * len(frame) < room
    assert not outbox.try_put_message(bytes(20), frame, 0.0)
    assert len(outbox.take_frames(room, 0.0)) == taken * len(frame)
    assert outbox.try_put_message(bytes(20), frame, 0.0)


def test_forged_copies_cost_one_check_each_and_no_memory():
    swarm = GossipSwarm(109)
    checks = SignatureChecks(remembered=50)
    node, author = swarm.add_node(T, checks=checks), swarm.add_node()
    encoded = author.sign_message(T, b"x")
    for at in range(300):
        attacker = swarm.add_puppet(node)
        attacker.send_frames(node, SUBSCRIBE, message(encoded[:-2] + at.to_bytes(2, "big")))
        node.router.remove_peer(attacker.key, swarm.now)
    assert checks.checked == 300
    assert len(checks._bad) == 50
    assert node.router.count_kept()["scores-of-gone"] <= 2048
    assert node.router.count_kept()["seen"] == 0


def test_leaving_does_not_wash_a_bad_score(swarm, scene):
    node, honest, attacker = scene
    for number in range(4):
        attacker.send_frames(node, message(forge(honest.sign_message(T, b"%d" % number))))
    before = node.router.score_of(attacker.key)
    node.router.remove_peer(attacker.key, swarm.now)
    node.router.add_peer(attacker.key, swarm.now, outgoing=False)
    assert node.router.score_of(attacker.key) == pytest.approx(before, rel=0.1)


@pytest.mark.parametrize("gives_news", [True, False])
def test_who_gives_what_is_new_before_what_it_was_asked_for_is_slow_and_no_liar(swarm, scene, gives_news):
    """Behind a slow link much is under way before an answer: an honest node was cut off for it."""
    node, honest, slow = scene
    old = honest.publish(T, b"old")
    swarm.run_for(1)
    for beat in range(120):
        slow.send_frames(node, frames.ihave(W, fake_ids(3, beat * 3)))
        if beat % 20 == 0:
            data = honest.sign_message(T, b"%d" % beat) if gives_news else node.messages[0].encoded
            slow.send_frames(node, message(data))
        swarm.run_for(1)
    assert node.messages[0].id == old
    assert node.router.counts["promise-broken"] > 15
    assert (node.router.score_of(slow.key) >= 0) == gives_news  # what everybody has proves nothing
    still_works(swarm, node, honest)


def test_promises_that_are_never_kept_cost_even_without_a_flood(swarm, scene):
    node, honest, attacker = scene
    for beat in range(60):
        attacker.send_frames(node, frames.ihave(W, fake_ids(3, beat * 3)))
        swarm.run_for(1)
    assert node.router.counts["ihave-flood"] == 0
    assert node.router.counts["promise-broken"] > 15
    assert node.router.score_of(attacker.key) < DEFAULT_WEIGHTS.gossip
    still_works(swarm, node, honest)
