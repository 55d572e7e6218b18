"""How far counts what a neighbour says: of its own neighbours, of back-off, and of those that this side dialled."""

from random import Random

from test_must_hold import T, W, mesh_limits

from dtp.gossip import frames
from dtp.gossip.core import KNOWN_NAMES
from dtp.gossip.frames import GossipFrameType
from dtp.gossip.limits import DEFAULT
from dtp.gossip.router import Router
from dtp.testing.swarm import GossipSwarm

SUBSCRIBE = frames.frame(GossipFrameType.SUBSCRIBE, frames.named(W))
MANY = [b"%08d" % number for number in range(5000)]


def test_neighbours_of_who_has_not_the_topic_are_not_kept():
    """Nothing would remove them when it goes."""
    swarm = GossipSwarm(1)
    node = swarm.add_node(T)
    puppet = swarm.add_puppet(node)
    puppet.send_frames(node, frames.neighbours(W, MANY[:3]))
    assert node.router.count_kept_of(puppet.key)["neighbours"] == 0


def test_no_more_neighbours_are_kept_than_somebody_names_who_keeps_to_the_rules():
    swarm = GossipSwarm(1)
    node = swarm.add_node(T)
    puppet = swarm.add_puppet(node)
    puppet.send_frames(node, SUBSCRIBE, frames.neighbours(W, MANY))
    assert node.router.count_kept_of(puppet.key)["neighbours"] == DEFAULT.full_mesh + 1


def grafts_after(swarm, puppet, seconds):
    before = len(puppet.list_bodies(GossipFrameType.GRAFT))
    swarm.run_for(seconds)
    return len(puppet.list_bodies(GossipFrameType.GRAFT)) - before


def test_one_that_names_a_crowd_does_not_make_a_topic_large():
    swarm = GossipSwarm(1)
    node, *others = (swarm.add_node(T) for _ in range(21))
    for other in others:
        swarm.link_nodes(node, other)
    liar = swarm.add_puppet(node)
    liar.send_frames(node, SUBSCRIBE, frames.neighbours(W, MANY[:51]))
    swarm.run_for(3 * DEFAULT.idle_heartbeat)
    assert len(node.router.mesh_of(W)) == 21


def test_nobody_is_grafted_at_once_who_prunes_for_no_time():
    swarm = GossipSwarm(2)
    node = swarm.add_node(T)
    puppet = swarm.add_puppet(node)
    puppet.send_frames(node, SUBSCRIBE)
    swarm.run_for(1)
    puppet.send_frames(node, frames.prune(W, 0))
    assert grafts_after(swarm, puppet, DEFAULT.backoff - 1) == 0
    assert grafts_after(swarm, puppet, 2 * DEFAULT.idle_heartbeat) == 1


def test_who_prunes_for_a_day_is_grafted_again_after_an_hour():
    swarm = GossipSwarm(2)
    node = swarm.add_node(T)
    puppet = swarm.add_puppet(node)
    puppet.send_frames(node, SUBSCRIBE)
    swarm.run_for(1)
    puppet.send_frames(node, frames.prune(W, 65_535))
    assert grafts_after(swarm, puppet, DEFAULT.most_backoff - 1) == 0
    assert grafts_after(swarm, puppet, 2 * DEFAULT.idle_heartbeat) == 1


def test_one_that_this_side_dialled_gets_into_a_mesh_that_others_have_filled():
    swarm = GossipSwarm(3, limits=mesh_limits())
    node = swarm.add_node(T)
    others = [swarm.add_puppet(node) for _ in range(DEFAULT.degree_high + 2)]
    for other in others:
        other.send_frames(node, SUBSCRIBE, frames.graft(W))
    refused = [other for other in others if other.key not in node.router.mesh_of(W)]
    assert len(refused) >= 2
    dialled = swarm.add_puppet(node, outgoing=True)
    dialled.send_frames(node, SUBSCRIBE, frames.graft(W))
    assert dialled.key in node.router.mesh_of(W)


def test_who_cannot_be_told_what_topics_there_are_is_cut_off_and_told_anew():
    """What was left out of a message is asked for; nobody asks again who has a topic."""
    swarm = GossipSwarm(4)
    node, slow = swarm.add_node(T), swarm.add_node(T)
    swarm.link_nodes(node, slow)
    swarm.run_for(1)
    slow.reads_nothing_of.add(node.key)
    for number in range(DEFAULT.queue_hard * 3 // 200):
        node.join(name := f"{number:0100}")
        node.leave(name)
    assert node.router.counts["control-lost"] > 0
    swarm.run_for(0.1)
    assert {each.peer for each in node.cut_off} == {slow.key}
    assert len(node.cut_off) == 1  # however much more had no room


def test_nobody_is_cut_off_since_a_crowd_comes_and_goes():
    """Each one that went had 40 KB of NEIGHBOURS sent at once to everybody else; only the last ones count."""
    swarm = GossipSwarm(4)
    names = [f"{number:0100}" for number in range(300)]
    node, slow = swarm.add_node(*names), swarm.add_node(*names)
    swarm.link_nodes(node, slow)
    swarm.run_for(3)
    slow.reads_nothing_of.add(node.key)
    subscribed = frames.subscriptions(map(str.encode, names))
    crowd = [swarm.add_puppet(node) for _ in range(40)]
    for puppet in crowd:
        puppet.send_frames(node, *subscribed)
    swarm.run_for(5)
    for puppet in crowd[1:]:
        node.router.remove_peer(puppet.key, swarm.now)
    swarm.flush_soon(node)
    swarm.run_for(5)
    assert not node.cut_off
    swarm.read_again(slow)
    swarm.run_for(5)
    assert slow.router.count_kept_of(node.key)["neighbours"] == 2 * len(names)  # itself, and one of the crowd


def test_nobody_is_cut_off_since_many_topics_are_left_at_once():
    """Each PRUNE has the records of up to 50 others: 3 MB together, for neighbours that read all."""
    swarm = GossipSwarm(4)
    names = [f"{number:0100}" for number in range(300)]
    node = swarm.add_node(*names)
    node.router.set_records(lambda peer, hearer: bytes(500))
    for puppet in [swarm.add_puppet(node) for _ in range(20)]:
        puppet.send_frames(node, *frames.subscriptions(map(str.encode, names)))
    swarm.run_for(3)
    for name in names:
        node.leave(name)
    swarm.run_for(0.1)
    assert not node.cut_off


def test_what_only_spares_something_is_left_out_for_who_reads_slowly():
    """An author of many messages would have had it cut off."""
    swarm = GossipSwarm(4)
    node, slow = swarm.add_node(T), swarm.add_node(T)
    author = swarm.add_node(T)
    swarm.link_nodes(node, slow)
    swarm.link_nodes(node, author)
    swarm.run_for(3)
    slow.reads_nothing_of.add(node.key)
    for _ in range(2 * DEFAULT.queue_soft // 2000):
        author.publish(T, bytes(2000))
        swarm.run_for(0.02)
    assert node.router.counts["hint-left-out"] > 0
    assert not node.cut_off


# ---- one router ----------------------------------------------------------------------------------------------------


def router_of_topic():
    router = Router(bytes(32), random=Random(5))
    router.join(W, 0.0)
    return router


def receive(router, peer, now, *packed):
    found, _ = frames.split_frames(b"".join(packed), DEFAULT.message)
    router.receive(peer, found, now)


def test_who_reads_nothing_is_grafted_once_it_reads_on():
    """Until it is cut off it would have the place in the mesh of somebody who passes messages on."""
    router, peer = router_of_topic(), b"p" * 32
    router.add_peer(peer, 0.0, outgoing=True)
    now = DEFAULT.stalled + 0.1
    receive(router, peer, now, SUBSCRIBE)
    assert router.members_of(W) == {peer}
    assert not router.mesh_of(W)
    router.tick(now := router.next_time() + now)
    assert not router.mesh_of(W)
    router.take_frames(peer, 1 << 20, now)
    router.tick(now + 2 * DEFAULT.idle_heartbeat)
    assert router.mesh_of(W) == {peer}


def test_of_a_crowd_that_comes_prunes_and_goes_the_newest_are_remembered():
    """Each has us wait an hour until it is grafted again, and is told on from where it left."""
    router = router_of_topic()
    for number in range(KNOWN_NAMES + 100):
        peer = number.to_bytes(32)
        router.add_peer(peer, 0.0, outgoing=False)
        receive(router, peer, 0.0, SUBSCRIBE, frames.prune(W, 3600))
        router.remove_peer(peer, 0.0)
    kept = router.count_kept()
    assert kept["told"] == kept["backoffs"] == KNOWN_NAMES
