"""A model of a small network: nodes join, leave, link, break and publish in any order, and what must hold of it."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule

from dtp.gossip import frames
from dtp.gossip.frames import GossipFrameType
from dtp.gossip.limits import DEFAULT, GossipLimits
from dtp.testing.swarm import GossipSwarm

TOPICS = ("a", "b")
LIMITS = {
    "small": DEFAULT,
    "large": GossipLimits(full_mesh=2, degree=3, degree_low=3, degree_high=4, degree_score=1),
}


class Network(RuleBasedStateMachine):
    """The model: who is linked with whom, who has which topic since when, and what was published where."""

    nodes = Bundle("nodes")

    @initialize(kind=st.sampled_from(sorted(LIMITS)), target=nodes)
    def begin(self, kind):
        self.swarm = GossipSwarm(7, limits=LIMITS[kind])
        self.links = set()
        self.joined = {}
        self.published = {}
        self.puppets = []
        made = [self.swarm.add_node() for _ in range(6)]
        for node in made:
            self.joined[node.key] = {}
        return multiple(*made)

    @rule(one=nodes, other=nodes)
    def link(self, one, other):
        if one is not other:
            self.swarm.link_nodes(one, other)
            self.links.add(frozenset((one.key, other.key)))

    @rule(one=nodes, other=nodes)
    def unlink(self, one, other):
        if frozenset((one.key, other.key)) in self.links:
            self.swarm.unlink_nodes(one, other)
            self.links.discard(frozenset((one.key, other.key)))

    @rule(node=nodes, topic=st.sampled_from(TOPICS))
    def join(self, node, topic):
        if topic not in self.joined[node.key]:
            node.join(topic)
            self.joined[node.key][topic] = self.swarm.now

    @rule(node=nodes, topic=st.sampled_from(TOPICS))
    def leave(self, node, topic):
        if topic in self.joined[node.key]:
            node.leave(topic)
            del self.joined[node.key][topic]

    @rule(node=nodes, topic=st.sampled_from(TOPICS), size=st.sampled_from([10, 3000]))
    def publish(self, node, topic, size):
        data = b"%d " % len(self.published) + bytes(size)
        self.published[node.publish(topic, data)] = (node.key, topic, data)

    @rule(node=nodes, topic=st.sampled_from(TOPICS), kind=st.integers(1, 12), body=st.binary(max_size=60))
    def misbehave(self, node, topic, kind, body):
        puppet = self.swarm.add_puppet(node)
        puppet.send_frames(node, frames.frame(GossipFrameType.SUBSCRIBE, frames.named(topic.encode())))
        puppet.send_frames(node, frames.frame(kind, frames.named(topic.encode()) + body))
        self.puppets.append((node, puppet))

    @rule(seconds=st.sampled_from([0.02, 0.6, 5.0]))
    def wait(self, seconds):
        self.swarm.run_for(seconds)

    @rule()
    def settle(self):
        """What is published in a settled network reaches everybody whom links of members lead to, once."""
        self.swarm.run_for(65.0)
        for topic in TOPICS:
            members = [node for node in self.swarm.nodes.values() if topic in self.joined[node.key]]
            if members:
                data = b"settled %d" % len(self.published)
                author = members[0]
                self.published[author.publish(topic, data)] = (author.key, topic, data)
                self.swarm.run_for(8.0)
                for node in self.reached(author, topic) - {author}:
                    assert node.data.count(data) == 1

    def reached(self, author, topic):
        found, new = {author}, [author]
        while new:
            node = new.pop()
            for other in self.swarm.nodes.values():
                is_linked = frozenset((node.key, other.key)) in self.links
                if other not in found and is_linked and topic in self.joined[other.key]:
                    found.add(other)
                    new.append(other)
        return found

    @invariant()
    def everything_came_once_and_was_published(self):
        for node in self.swarm.nodes.values():
            ids = [message.id for message in node.messages]
            assert len(ids) == len(set(ids))
            for message in node.messages:
                author, topic, data = self.published[message.id]
                assert (message.key, message.topic, message.data) == (author, topic, data)
                assert author != node.key

    @invariant()
    def meshes_are_of_members_and_members_of_neighbours(self):
        for node in self.swarm.nodes.values():
            core = node.router._core
            for state in core.topics.values():
                assert state.mesh <= state.members <= core.neighbours.keys()
                assert state.joined or not state.mesh
                assert state.owed.keys() <= state.members
                assert set(node.router.joined_topics()) == {each.encode() for each in self.joined[node.key]}
            assert core.held.size == sum(len(held.encoded) for held in core.held._order)
            assert core.held.size <= core.limits.held
            for neighbour in core.neighbours.values():
                outbox = neighbour.outbox
                assert outbox.size == sum(len(frame) for _, frame in outbox._frames)
                assert set(neighbour.topics) <= core.topics.keys()


Network.TestCase.settings = settings(max_examples=15, stateful_step_count=30, deadline=None)
TestNetwork = Network.TestCase
