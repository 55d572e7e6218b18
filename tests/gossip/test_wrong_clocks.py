"""What was remembered while a node's clock was wrong harms nothing once it is right."""

from collections import Counter
from dataclasses import replace

import pytest

from dtp.gossip import frames
from dtp.gossip.frames import GossipFrameType
from dtp.gossip.limits import DEFAULT
from dtp.gossip.seen import SeenCache
from dtp.peers.clocks import LATE
from dtp.testing.swarm import WALL, GossipSwarm

T = "weather"
DAY = 86_400.0


def pair(ahead):
    """Return a swarm of two linked nodes, the first with a clock that is so far ahead, and few that it remembers."""
    swarm = GossipSwarm(7, limits=replace(DEFAULT, seen=200))
    wrong, right = swarm.add_node(), swarm.add_node(T)
    wrong.router.set_wall(WALL + ahead)
    wrong.join(T)
    swarm.link_nodes(wrong, right)
    swarm.run_for(1)
    return swarm, wrong, right


@pytest.mark.parametrize("ahead", [-365 * DAY, -DAY, -600.0, 600.0, DAY, 365 * DAY])
def test_a_node_takes_messages_again_once_its_clock_is_set(ahead):
    """However many it had written itself meanwhile, and however many come then."""
    swarm, wrong, right = pair(ahead)
    for number in range(30):
        wrong.publish(T, b"own %d" % number)
    right.publish(T, b"refused as of another time")
    swarm.run_for(1)
    assert wrong.data == []
    wrong.router.set_wall(WALL)
    for number in range(300):
        right.publish(T, b"now %d" % number)
        swarm.run_for(1)
    # What was refused is told again, so that it may come, too.
    assert Counter(wrong.data) - Counter([b"refused as of another time"]) == Counter(
        b"now %d" % number for number in range(300)
    )
    wrong.publish(T, b"here again")
    swarm.run_for(1)
    assert right.data[-1:] == [b"here again"]


@pytest.mark.parametrize(
    ("ahead", "is_refused"), [(-130.0, True), (-60.0, False), (8.0, False), (20.0, True), (DAY, True)]
)
def test_who_has_a_wrong_clock_knows_before_it_publishes_that_all_would_refuse_it(ahead, is_refused):
    _, wrong, _ = pair(ahead)
    found = wrong.router.find_refusing_clocks(T.encode())
    assert (found is not None) == is_refused
    if found is not None:
        assert (found.differing, found.told) == (1, 1)
        assert abs(found.seconds + ahead) <= LATE + 1


def test_a_clock_that_is_set_is_told_to_neighbours():
    swarm, wrong, right = pair(DAY)
    assert right.router.find_refusing_clocks(T.encode()) is not None
    wrong.router.set_wall(WALL)
    swarm.run_for(2 * DEFAULT.idle_heartbeat)
    for each in (wrong, right):
        assert each.router.find_refusing_clocks(T.encode()) is None


def test_where_somebody_takes_what_is_written_here_it_goes_though_others_have_wrong_clocks():
    swarm, wrong, right = pair(DAY)
    other = swarm.add_node(T)
    swarm.link_nodes(other, right)
    swarm.run_for(1)
    assert right.router.find_refusing_clocks(T.encode()) is None
    right.publish(T, b"taken")
    swarm.run_for(1)
    assert (other.data, wrong.data) == ([b"taken"], [])


def test_who_says_nothing_of_the_time_may_take_it():
    swarm, _, right = pair(DAY)
    swarm.add_puppet(right).send_frames(
        right, frames.frame(GossipFrameType.SUBSCRIBE, frames.named(T.encode()))
    )
    assert right.router.find_refusing_clocks(T.encode()) is None


@pytest.mark.parametrize("is_author_ahead", [False, True])
@pytest.mark.parametrize("ahead", [20.0, 60.0, 110.0])
def test_messages_come_once_though_the_clock_was_ahead_and_is_set_back(ahead, is_author_ahead):
    swarm = GossipSwarm(7, limits=DEFAULT)
    reader, author = swarm.add_node(T), swarm.add_node(T)
    reader.router.set_wall(WALL + ahead)
    author.router.set_wall(WALL + ahead * is_author_ahead)
    swarm.link_nodes(reader, author)
    swarm.run_for(1)
    for number in range(5):
        author.publish(T, b"%d" % number)
    swarm.run_for(1)
    for each in (reader, author):
        each.router.set_wall(WALL)
    for number in range(5, 35):  # for longer than what came before is refused as of the future
        author.publish(T, b"%d" % number)
        late = swarm.add_node(T)
        swarm.link_nodes(author, late)
        swarm.link_nodes(late, reader)
        swarm.run_for(10)
    assert Counter(reader.data) == Counter(b"%d" % number for number in range(35))


@pytest.mark.parametrize("ahead", [20.0, 60.0, 110.0])
def test_an_id_is_kept_while_its_message_could_be_taken_again_though_the_clock_was_set_back(ahead):
    seen = SeenCache(DEFAULT)
    seen.add(b"dated as far ahead as messages are taken", WALL + ahead)
    for number in range(int(ahead + DEFAULT.future + DEFAULT.stale)):
        seen.add(b"now %d" % number, WALL + number)
    assert b"dated as far ahead as messages are taken" in seen


def test_ids_of_a_clock_that_was_ahead_are_forgotten_in_time():
    limits = replace(DEFAULT, seen=1000)
    seen = SeenCache(limits)
    for number in range(10):
        seen.add(b"ahead %d" % number, WALL + DAY)
    for number in range(600):
        seen.add(b"now %d" % number, WALL + number)
    assert len(seen) <= limits.stale + 2 * limits.future + 1


def test_what_is_refused_for_the_crowd_of_a_clock_that_was_ahead_is_taken_once_it_is_set_back():
    """When there are too many ids, what is no newer than those that went is refused: for a day, had it stayed so."""
    seen = SeenCache(replace(DEFAULT, seen=10))
    for number in range(20):
        seen.add(b"ahead %d" % number, WALL + DAY)
    assert seen.is_too_old(int((WALL + DAY) * 1000), WALL + DAY)
    assert not seen.is_too_old(int(WALL * 1000), WALL)
