"""What a neighbour is given, and what is taken of it: by who it is, what was asked, and for how long it counts."""

from test_must_hold import T, W

from dtp.gossip import Verdict, frames
from dtp.gossip.frames import GossipFrameType
from dtp.gossip.limits import DEFAULT, DEFAULT_WEIGHTS
from dtp.gossip.message import Parsed
from dtp.testing.swarm import GossipSwarm

SUBSCRIBE = frames.frame(GossipFrameType.SUBSCRIBE, frames.named(W))
#: Below zero: nobody passes on where such a neighbour is.
BAD = -1.0 / DEFAULT_WEIGHTS.application


def test_who_asks_for_a_message_that_it_had_refused_is_given_it():
    """It may have lost the copy that it waited for."""
    swarm = GossipSwarm(1)
    node = swarm.add_node(T)
    puppet = swarm.add_puppet(node)
    encoded = node.sign_message(T, b"21.5")
    message_id = Parsed(encoded).id
    puppet.send_frames(node, SUBSCRIBE, frames.frame(GossipFrameType.IDONTWANT, message_id))
    node.router.publish(encoded, swarm.now)
    swarm.flush_soon(node)
    swarm.run_for(1)
    assert puppet.list_bodies(GossipFrameType.MESSAGE) == []
    puppet.send_frames(node, frames.frame(GossipFrameType.IWANT, message_id))
    swarm.run_for(1)
    assert puppet.list_bodies(GossipFrameType.MESSAGE) == [encoded]


def test_who_has_not_the_topic_is_given_nothing_of_its_past():
    swarm = GossipSwarm(1)
    node = swarm.add_node(T)
    puppet = swarm.add_puppet(node)
    node.publish(T, b"21.5")
    puppet.send_frames(node, frames.history(W, 0, 100))
    swarm.run_for(1)
    assert puppet.list_bodies(GossipFrameType.PAST) == []
    assert node.router.counts["history-unknown-topic"] == 1


def test_of_the_past_no_more_is_taken_than_was_asked_for():
    swarm = GossipSwarm(1)
    node = swarm.add_node()
    node.join(T, history=10.0)
    puppet, author = swarm.add_puppet(node), swarm.add_node(T)
    puppet.send_frames(node, SUBSCRIBE)
    for age in (30, 5):
        told = author.sign_message(T, b"%d s ago" % age, age=age)
        puppet.send_frames(node, frames.frame(GossipFrameType.PAST, told))
    swarm.run_for(1)
    assert node.data == [b"5 s ago"]
    assert node.router.counts["past-unasked"] == 1


def test_a_verdict_on_a_message_of_a_topic_that_was_left_comes_too_late():
    swarm = GossipSwarm(1)
    node, author = swarm.add_node(), swarm.add_node(T)
    asked = []
    node.join(T, validate=lambda message: asked.append(message))
    puppet = swarm.add_puppet(node)
    puppet.send_frames(node, SUBSCRIBE, frames.frame(GossipFrameType.MESSAGE, author.sign_message(T, b"a")))
    node.leave(T)
    node.router.set_verdict(asked[0].id, Verdict.ACCEPT, swarm.now)
    swarm.run_for(1)
    assert node.data == []
    assert node.router.count_kept()["held"] == 0


def test_a_new_record_of_a_neighbour_with_a_negative_score_is_given_to_nobody():
    swarm = GossipSwarm(1)
    hub, bad, other = swarm.add_node(T), swarm.add_node(T), swarm.add_node(T)
    hub.router.set_records(lambda peer, hearer: b"record of " + peer)
    swarm.link_nodes(bad, hub)
    swarm.link_nodes(other, hub)
    swarm.run_for(1)
    other.offered.clear()
    hub.router.set_application_score(bad.key, BAD)
    hub.router.renew_record(bad.key, swarm.now)
    swarm.run_for(DEFAULT.introduce + 5)
    assert other.offered == []


def test_who_is_pruned_for_its_score_is_told_of_nobody():
    swarm = GossipSwarm(1)
    node, other = swarm.add_node(T), swarm.add_node(T)
    swarm.link_nodes(other, node)
    puppet = swarm.add_puppet(node)
    puppet.send_frames(node, SUBSCRIBE)
    swarm.run_for(1)
    node.router.set_records(lambda peer, hearer: b"record of " + peer)
    node.router.set_application_score(puppet.key, BAD)
    swarm.run_for(2 * DEFAULT.idle_heartbeat)
    ((_, _, records),) = map(frames.read_prune, puppet.list_bodies(GossipFrameType.PRUNE))
    assert records == []


def test_of_a_crowd_that_promises_the_same_few_are_asked():
    swarm = GossipSwarm(1)
    node, honest = swarm.add_node(T), swarm.add_node(T)
    told = frames.ihave(W, [Parsed(honest.sign_message(T, b"kept back")).id])
    liars = [swarm.add_puppet(node) for _ in range(20)]
    for liar in liars:
        liar.send_frames(node, SUBSCRIBE, told)
    swarm.run_for(100)
    assert (
        sum(bool(liar.list_bodies(GossipFrameType.IWANT)) for liar in liars) == 9
    )  # the first, and 8 others


def test_what_a_neighbour_was_given_is_remembered_for_so_many_messages():
    swarm = GossipSwarm(1)
    node = swarm.add_node(T)
    attacker = swarm.add_puppet(node)
    attacker.send_frames(node, SUBSCRIBE)
    ids = [node.publish(T, b"%d" % number) for number in range(8300)]
    for half in (ids[:4150], ids[4150:]):
        attacker.send_frames(node, frames.frame(GossipFrameType.IWANT, *half))
    swarm.run_for(0.1)
    assert node.router.count_kept_of(attacker.key)["served"] == 8192
