"""Who is in a mesh, what goes along in one piece, and of whom newcomers are told."""

from dataclasses import replace

from test_must_hold import T, W, mesh_limits

from dtp.gossip import frames
from dtp.gossip.frames import GossipFrameType
from dtp.gossip.limits import DEFAULT, DEFAULT_WEIGHTS, GossipLimits
from dtp.gossip.message import Parsed
from dtp.testing.swarm import GossipSwarm


def test_in_a_mesh_that_is_chosen_addresses_are_spread():
    swarm = GossipSwarm(21, limits=mesh_limits())
    node = swarm.add_node(T)
    sybils = [swarm.add_node(T) for _ in range(40)]
    others = [swarm.add_node(T) for _ in range(8)]
    for sybil in sybils:
        swarm.link_nodes(node, sybil, source="8.8.8.8")
    for at, other in enumerate(others):
        swarm.link_nodes(node, other, source=f"9.9.9.{at}")
    swarm.run_for(0.2)
    state = node.router._core.topics[W]
    for peer in list(state.mesh):
        node.router._meshes._remove_from_mesh(state, peer, swarm.now)
    state.backoff.clear()
    node.router._meshes.run_heartbeat(swarm.now)
    mesh = node.router.mesh_of(W)
    assert sum(other.key in mesh for other in others) >= DEFAULT.degree - 1


def test_all_frames_of_a_turn_go_in_one_piece():
    swarm = GossipSwarm(22)
    pieces = []

    def carry(sender, receiver, data, now):
        pieces.append((sender, now))
        return (0.01,)

    swarm.carry = carry
    author, node = swarm.add_node(T, "other"), swarm.add_node(T, "other")
    swarm.link_nodes(author, node)
    swarm.run_for(3)
    pieces.clear()
    for number in range(50):
        author.publish(T, b"%d" % number)
        author.publish("other", b"%d" % number)
    swarm.run_for(0.05)
    assert len([sender for sender, _ in pieces if sender == author.key]) == 1
    assert len(node.data) == 100


def between_puppets():
    """An author, and a node in whose mesh there are two puppets: one brings messages, the other gets them."""
    swarm = GossipSwarm(23)
    author, node = swarm.add_node(T), swarm.add_node(T)
    puppets = swarm.add_puppet(node), swarm.add_puppet(node)
    for puppet in puppets:
        puppet.send_frames(node, frames.frame(GossipFrameType.SUBSCRIBE, frames.named(W)), frames.graft(W))
    swarm.run_for(1)
    return swarm, author, node, *puppets


def test_large_messages_are_told_not_to_be_sent_again():
    swarm, author, node, bringer, other = between_puppets()
    small, large = author.sign_message(T, bytes(100)), author.sign_message(T, bytes(50_000))
    bringer.send_frames(
        node, frames.frame(GossipFrameType.MESSAGE, small), frames.frame(GossipFrameType.MESSAGE, large)
    )
    swarm.run_for(1)
    assert other.list_bodies(GossipFrameType.IDONTWANT) == [Parsed(large).id]
    assert bringer.list_bodies(GossipFrameType.IDONTWANT) == []
    assert set(other.list_bodies(GossipFrameType.MESSAGE)) == {small, large}


def test_what_a_neighbour_does_not_want_is_not_sent_to_it_not_even_when_it_waits_already():
    swarm, author, node, bringer, other = between_puppets()
    before, waiting = author.sign_message(T, b"before"), author.sign_message(T, b"waiting")
    other.send_frames(node, frames.frame(GossipFrameType.IDONTWANT, Parsed(before).id))
    bringer.send_frames(
        node, frames.frame(GossipFrameType.MESSAGE, before), frames.frame(GossipFrameType.MESSAGE, waiting)
    )
    other.send_frames(
        node, frames.frame(GossipFrameType.IDONTWANT, Parsed(waiting).id)
    )  # the turn isn't over: it hasn't gone
    swarm.run_for(1)
    assert node.data == [b"before", b"waiting"]
    assert other.list_bodies(GossipFrameType.MESSAGE) == []
    assert node.router.counts["not-wanted"] == 1


def test_signed_records_are_given_to_newcomers_of_small_topics_and_to_those_that_are_pruned():
    swarm = GossipSwarm(24)
    hub, first, second = swarm.add_node(T), swarm.add_node(T), swarm.add_node(T)
    hub.router.set_records(lambda peer, hearer: b"record of " + peer)
    swarm.link_nodes(first, hub)
    swarm.run_for(1)
    swarm.link_nodes(second, hub)
    swarm.run_for(1)
    (offered,) = second.offered
    assert offered.records == (b"record of " + first.key,)
    hub.leave(T)
    swarm.run_for(1)
    assert any(b"record of " + second.key in each.records for each in first.offered)


def test_newcomers_are_not_told_of_those_that_are_worth_nothing():
    swarm = GossipSwarm(24)
    hub, first, bad, second = (swarm.add_node(T) for _ in range(4))
    hub.router.set_records(lambda peer, hearer: b"record of " + peer)
    for node in (first, bad):
        swarm.link_nodes(node, hub)
    hub.router.set_application_score(bad.key, -1.0)
    swarm.run_for(1)
    swarm.link_nodes(second, hub)
    swarm.run_for(1)
    assert [offered.records for offered in second.offered] == [(b"record of " + first.key,)]


def test_a_newcomer_is_told_of_a_peer_once_however_many_topics_they_have_in_common():
    swarm = GossipSwarm(24)
    names = [f"t{number}" for number in range(50)]
    hub, first, second = (swarm.add_node(*names) for _ in range(3))
    hub.router.set_records(lambda peer, hearer: b"record of " + peer)
    swarm.link_nodes(first, hub)
    swarm.run_for(1)
    swarm.link_nodes(second, hub)
    swarm.run_for(1)
    assert [offered.records for offered in second.offered] == [(b"record of " + first.key,)]
    swarm.unlink_nodes(second, hub)
    swarm.link_nodes(second, hub)
    swarm.run_for(1)
    assert [offered.records for offered in second.offered] == [(b"record of " + first.key,)] * 2


def test_a_new_record_is_given_to_members_that_its_peer_has_no_link_to():
    """Two that can't dial each other: one has moved behind a relay since the other was told of it."""
    swarm = GossipSwarm(24)
    hub, first, second, linked = (swarm.add_node(T) for _ in range(4))
    hub.router.set_records(lambda peer, hearer: b"record of " + peer)
    for node in (first, second, linked):
        swarm.link_nodes(node, hub)
    swarm.link_nodes(linked, first)
    swarm.run_for(1)
    first.offered.clear(), second.offered.clear(), linked.offered.clear()
    hub.router.renew_record(first.key, swarm.now)
    swarm.run_for(DEFAULT.introduce - 2)
    assert second.offered == []
    swarm.run_for(4)
    (offered,) = second.offered
    assert offered.records == (b"record of " + first.key,)
    assert first.offered == linked.offered == []


def test_a_new_record_is_given_to_a_member_once_however_many_topics_they_have_in_common():
    swarm = GossipSwarm(24)
    names = [f"t{number}" for number in range(50)]
    hub, first, second, linked = (swarm.add_node(*names) for _ in range(4))
    hub.router.set_records(lambda peer, hearer: b"record of " + peer)
    for node in (first, second, linked):
        swarm.link_nodes(node, hub)
    swarm.link_nodes(linked, first)
    swarm.run_for(1)
    first.offered.clear(), second.offered.clear(), linked.offered.clear()
    hub.router.renew_record(first.key, swarm.now)
    swarm.run_for(DEFAULT.introduce + 2)
    assert [offered.records for offered in second.offered] == [(b"record of " + first.key,)]
    assert first.offered == linked.offered == []


def test_one_that_signs_records_without_end_is_told_of_now_and_then():
    swarm = GossipSwarm(24)
    hub, first, second = swarm.add_node(T), swarm.add_node(T), swarm.add_node(T)
    hub.router.set_records(lambda peer, hearer: b"record of " + peer)
    swarm.link_nodes(first, hub)
    swarm.link_nodes(second, hub)
    swarm.run_for(1)
    second.offered.clear()
    for _ in range(600):
        hub.router.renew_record(first.key, swarm.now)
        hub.router.renew_record(b"nobody", swarm.now)
        swarm.run_for(0.1)
    assert len(second.offered) <= 60 / DEFAULT.introduce
    hub.router.remove_peer(first.key, swarm.now)
    swarm.run_for(30)
    assert len(second.offered) <= 60 / DEFAULT.introduce


def test_a_mesh_of_the_worthless_gets_better_neighbours_now_and_then():
    """Opportunistic grafting (GossipSub v1.1, "Opportunistic Grafting"): who fills a mesh isn't left alone in it."""
    limits = GossipLimits(full_mesh=2, degree=4, degree_low=3, degree_high=8, degree_score=1, degree_out=1)
    swarm = GossipSwarm(24, limits=limits, weights=replace(DEFAULT_WEIGHTS, time_in_mesh=0.0))
    node = swarm.add_node(T)
    puppets = [swarm.add_puppet(node) for _ in range(10)]
    for puppet in puppets:
        puppet.send_frames(node, frames.frame(GossipFrameType.SUBSCRIBE, frames.named(W)))
    swarm.run_for(100)
    poor = node.router.mesh_of(W)
    good = {puppet.key for puppet in puppets} - poor
    assert len(poor) < 9
    for peer in good:
        node.router.set_application_score(peer, 20.0)
    swarm.run_for(DEFAULT.idle_heartbeat)
    assert not good & node.router.mesh_of(W)
    swarm.run_for(700)
    assert len(good & node.router.mesh_of(W)) >= 2


def test_records_of_those_that_are_worth_nothing_are_not_believed():
    swarm = GossipSwarm(25)
    node = swarm.add_node(T)
    puppet = swarm.add_puppet(node)
    node.router.set_application_score(puppet.key, -1.0)
    puppet.send_frames(
        node, frames.frame(GossipFrameType.SUBSCRIBE, frames.named(W)), frames.peers(W, [b"record"])
    )
    swarm.run_for(1)
    assert node.offered == []
    assert node.router.counts["records-refused"] == 1
