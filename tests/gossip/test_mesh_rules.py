"""Meshes against the rules of GossipSub v1.1, in histories of neighbours that come, go, graft, prune and lose score.

The model is written from the specification's text, knows only the frames that went to and fro and the scores, and is
looked at after each of them and after each heartbeat.
"""

from random import Random

import pytest

from dtp.gossip import frames
from dtp.gossip.frames import GossipFrameType
from dtp.gossip.limits import DEFAULT_WEIGHTS, GossipLimits
from dtp.gossip.message import content_of, sign_batch
from dtp.gossip.router import Router
from dtp.testing.swarm import GossipSwarm, Puppet

T = b"weather"
#: `full_mesh` below the degree: every topic is a large one.
LIMITS = GossipLimits(full_mesh=2)
#: Seconds by which a back-off of the other side may end earlier than this side's.
SLACK = 1.0
#: Better neighbours that are grafted at once where the mesh is poor.
OPPORTUNISTIC = 2


class Model:
    """A router, its neighbours, and what the specification says of its mesh."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.swarm = GossipSwarm(seed)  # for identities, and messages of puppets
        self.now = 0.0
        self.router = Router(b"\0" * 32, random=Random(seed), limits=LIMITS)
        self.router.set_wall(1_700_000_000.0)
        self.router.join(T, self.now)
        self.puppets: dict[bytes, Puppet] = {}
        self.outgoing: set[bytes] = set()
        self.members: set[bytes] = set()
        self.mesh: set[bytes] = set()
        self.backoff: dict[bytes, float] = {}
        #: The part of newcomers that this side has dialled: none at first, so that meshes fill up before.
        self.dialling = 0.0
        self.pruned = 0

    # ---- what goes ----------------------------------------------------------------------------------------------

    def take_sent(self) -> list[tuple[bytes, int, bytes]]:
        """Return what the router sends now; its GRAFTs and PRUNEs are the model's, too."""
        sent = []
        for peer in self.router.take_ready():
            while data := self.router.take_frames(peer, 1 << 20, self.now):
                found, used = frames.split_frames(data, LIMITS.message)
                assert used == len(data)
                sent += [(peer, kind, body) for kind, body in found]
        for peer, kind, body in sent:
            if kind == GossipFrameType.GRAFT:
                assert peer in self.members, "GRAFT to who hasn't the topic"
                assert self.backoff.get(peer, 0.0) <= self.now, "GRAFT within a back-off"
                assert self.router.score_of(peer) >= 0, "GRAFT to a negative score"
                self.mesh.add(peer)
            elif kind == GossipFrameType.PRUNE:
                _, seconds, _ = frames.read_prune(body)
                assert seconds >= LIMITS.backoff
                self.mesh.discard(peer)
                self.backoff[peer] = max(self.backoff.get(peer, 0.0), self.now + seconds)
        return sent

    def receive(self, peer: bytes, frame: bytes) -> list[tuple[bytes, int, bytes]]:
        found, _ = frames.split_frames(frame, LIMITS.message)
        self.router.receive(peer, found, self.now)
        return self.take_sent()

    def is_heard(self, peer: bytes) -> bool:
        """Whether frames of a neighbour are read: not below the graylist's score."""
        return self.router.score_of(peer) >= DEFAULT_WEIGHTS.graylist

    # ---- what happens -------------------------------------------------------------------------------------------

    def come(self) -> None:
        identity = self.swarm.next_identity()
        peer, dialled = identity.id.key, self.random.random() < self.dialling
        self.puppets[peer] = Puppet(self.swarm, identity)
        self.router.add_peer(peer, self.now, outgoing=dialled, source="127.0.0.1")
        if dialled:
            self.outgoing.add(peer)
        self.take_sent()
        self.members.add(peer)
        self.receive(peer, frames.frame(GossipFrameType.SUBSCRIBE, frames.named(T)))

    def dial(self) -> None:
        self.dialling = self.random.choice((0.0, 0.5))

    def go(self) -> None:
        if self.puppets:
            peer = self.random.choice(sorted(self.puppets))
            for names in (self.puppets, self.outgoing, self.members, self.mesh):
                names.pop(peer, None) if isinstance(names, dict) else names.discard(peer)
            self.router.remove_peer(peer, self.now)
            self.take_sent()

    def unsubscribe(self) -> None:
        if heard := sorted(filter(self.is_heard, self.members)):
            peer = self.random.choice(heard)
            self.members.discard(peer)
            self.mesh.discard(peer)
            self.receive(peer, frames.frame(GossipFrameType.UNSUBSCRIBE, frames.named(T)))

    def graft(self) -> None:
        """Handling GRAFT: PRUNE in back-off (with a penalty), with a negative score, and with a full mesh."""
        outside = sorted(filter(self.is_heard, self.members - self.mesh))
        if not outside:
            return
        peer = self.random.choice(outside)
        score, size = self.router.score_of(peer), len(self.mesh)
        dialled = peer in self.outgoing and len(self.mesh & self.outgoing) < LIMITS.degree_out
        in_backoff = self.backoff.get(peer, 0.0) > self.now + SLACK
        offences = self.router.counts["graft-in-backoff"]
        pruned = peer in {
            to for to, kind, _ in self.receive(peer, frames.graft(T)) if kind == GossipFrameType.PRUNE
        }
        assert pruned == (in_backoff or score < 0 or (size >= LIMITS.degree_high and not dialled))
        assert self.router.counts["graft-in-backoff"] - offences == in_backoff
        if not pruned:
            self.mesh.add(peer)
        else:
            assert self.backoff[peer] >= self.now + LIMITS.backoff

    def prune(self) -> None:
        """Handling PRUNE: out of the mesh, and no GRAFT for as long as it says, an hour at most."""
        if heard := sorted(filter(self.is_heard, self.members)):
            peer = self.random.choice(heard)
            seconds = self.random.choice((0, 5, 60, 300, 65_535))
            self.mesh.discard(peer)
            wait = min(seconds or LIMITS.backoff, LIMITS.most_backoff)
            self.backoff[peer] = max(self.backoff.get(peer, 0.0), self.now + wait)
            self.receive(peer, frames.prune(T, seconds))
            assert self.now + LIMITS.most_backoff >= self.backoff[peer]

    def score(self) -> None:
        if self.puppets:
            peer = self.random.choice(sorted(self.puppets))
            score = self.random.choice((-60.0, -15.0, -5.0, 0.0, self.random.uniform(1.0, 50.0)))
            self.router.set_application_score(peer, score)

    def publish(self) -> None:
        """A message comes, and goes on to the mesh alone."""
        heard = sorted(filter(self.is_heard, self.members))
        if not heard:
            return
        author = self.puppets[self.random.choice(heard)]
        sent = self.receive(author.key, frames.frame(GossipFrameType.MESSAGE, self._sign_message(author)))
        self.router.take_events()
        to = {peer for peer, kind, _ in sent if kind == GossipFrameType.MESSAGE}
        assert to == self.mesh - {author.key}

    def _sign_message(self, author: Puppet) -> bytes:
        time_ms = int((self.now + 1_700_000_000.0) * 1000)
        number = self.random.randrange(1 << 40)
        return sign_batch(author.identity, [content_of(author.key, T, number, time_ms, b"x")])[0]

    def beat(self) -> None:
        """Mesh maintenance."""
        self.now = max(self.now + self.random.choice((0.05, 0.5, 5.0)), self.router.next_time())
        before, scores = set(self.mesh), {}
        self.router.tick(self.now)
        scores = {peer: self.router.score_of(peer) for peer in self.puppets}
        held = bool(self.router.counts["delivered"])
        sent = self.take_sent()
        fit = {
            peer
            for peer in self.members - self.mesh
            if scores[peer] >= 0 and self.backoff.get(peer, 0.0) <= self.now
        }
        assert not [peer for peer in self.mesh if scores[peer] < 0]
        assert len(self.mesh) <= LIMITS.degree_high + LIMITS.degree_out + OPPORTUNISTIC
        assert len(self.mesh) >= LIMITS.degree_low or not fit, "below D_low, with some that could be grafted"
        assert len(self.mesh & self.outgoing) >= LIMITS.degree_out or not (fit & self.outgoing)
        stayed = {peer for peer in before if scores[peer] >= 0}
        if len(stayed) > LIMITS.degree_high:
            kept = stayed & self.mesh
            self.pruned += 1
            assert len(kept) == LIMITS.degree
            best = sorted((scores[peer] for peer in stayed), reverse=True)[: LIMITS.degree_score]
            assert sorted((scores[peer] for peer in kept), reverse=True)[: LIMITS.degree_score] == best
            assert len(kept & self.outgoing) >= min(LIMITS.degree_out, len(stayed & self.outgoing))
        told = {peer for peer, kind, _ in sent if kind == GossipFrameType.IHAVE}
        assert all(scores[peer] >= DEFAULT_WEIGHTS.gossip for peer in told)
        assert held or not told


STEPS = (
    (Model.come, 6),
    (Model.dial, 1),
    (Model.go, 2),
    (Model.unsubscribe, 1),
    (Model.graft, 8),
    (Model.prune, 3),
    (Model.score, 3),
    (Model.publish, 3),
    (Model.beat, 4),
)


@pytest.mark.parametrize("seed", range(30))
def test_meshes_keep_the_rules_of_gossipsub(seed: int) -> None:
    model = Model(seed)
    names = [step for step, often in STEPS for _ in range(often)]
    for _ in range(300):
        model.random.choice(names)(model)
        assert model.router.mesh_of(T) == model.mesh
