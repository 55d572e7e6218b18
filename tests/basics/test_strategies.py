"""`dtp.testing.strategies`: what is drawn is what it says, and a story of cuts is told right."""

from __future__ import annotations

import subprocess
import sys
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

import dtp
from dtp.core import MAX_PLAINTEXT
from dtp.crdt import Replica
from dtp.crdt.values import decode, encode
from dtp.session.frames import FIXED, FrameType, parse_close, parse_fixed
from dtp.testing import strategies as drawn
from dtp.testing.pairs import SessionPair
from dtp.testing.strategies import Step


@given(drawn.identities(), drawn.peer_ids(), drawn.services())
def test_names_are_read_as_they_are_written(identity: dtp.Identity, peer: dtp.PeerId, service: str) -> None:
    assert dtp.PeerId.parse(str(peer)) == peer
    assert identity.id.key == dtp.PeerId.parse(str(identity.id)).key
    address = dtp.Address.direct(peer, "tcp://127.0.0.1:1", service)
    assert dtp.Address.parse(str(address)).service == service


@given(drawn.frames())
def test_frames_are_well_formed(frame: tuple[int, int, int, int, bytes]) -> None:
    kind, flags, _, _, body = frame
    assert len(body) < MAX_PLAINTEXT
    if kind in FIXED:
        parse_fixed(kind, bytes(body))
    if kind == FrameType.CLOSE:
        parse_close(flags, bytes(body))


@given(drawn.faults())
def test_faults_are_options_of_an_address(fault: drawn.Faults) -> None:
    peer = dtp.Identity(bytes(32), bytes(32)).id
    query = dict(fault.on(dtp.Address.direct(peer, "memory://x")).query)
    assert float(query["carrier.delay"]) == fault.delay
    assert query.get("carrier.cut_at") == (None if fault.cut_at is None else str(fault.cut_at))


@settings(max_examples=20)
@given(drawn.steps())
def test_stories_end_with_everything_delivered(story: list[Step]) -> None:
    pair = SessionPair()
    written = drawn.play(pair, story)
    for client in (True, False):
        sent = {number: data for (by, number), data in written.items() if by != client and data}
        assert drawn.read_by(pair, client=client) == sent


def test_a_story_with_each_step_moves_what_it_says() -> None:
    pair = SessionPair()
    story = [
        Step("write", True, 0, 5000),
        Step("widen"),
        Step("write", False, 0, 9000),
        Step("deliver", False, 1, 100),
        Step("cut", which=1),
        Step("cut"),
        Step("cut"),
        Step("wait", size=9000),
        Step("resume"),
        Step("deliver", True, 0, 9000),
    ]
    written = drawn.play(pair, story)
    assert sorted(map(len, written.values())) == [5000, 9000]
    assert drawn.read_by(pair, client=True) == {n: d for (by, n), d in written.items() if not by}


@given(drawn.graph_values())
def test_values_of_graphs_come_back(value: object) -> None:
    assert decode(encode(value)) == value


@settings(max_examples=20)
@given(drawn.graph_edits(authors=3), st.randoms(use_true_random=False))
def test_edits_merge_in_any_order(edits: list[drawn.Edit], random: Random) -> None:
    """What three people do to a graph at the same time."""
    authors = [Replica(bytes([number]) * 32) for number in range(1, 4)]
    for edit in edits:
        one = authors[edit.author]
        one.delete(edit.soul, edit.key) if edit.value is None else one.put(edit.soul, edit.key, edit.value)
    frames = [frame for one in authors for frame in one.commit()]
    for one in authors:
        random.shuffle(frames)
        for frame in frames:
            if frame.author != one.author:
                one.merge(frame.author, frame.body)
    places = {(edit.soul, edit.key) for edit in edits}
    for soul, key in places:
        assert len({encode(one.get(soul, key)) for one in authors}) == 1


@given(drawn.terms(), drawn.usages(), drawn.amounts(7))
def test_payments_are_in_range(terms: dtp.Terms, usage: tuple[int, int], amount: int) -> None:
    assert terms.claim_ms >= 60_000
    assert min(usage) >= 0
    assert 0 <= amount <= 7


def test_without_hypothesis_it_says_what_to_install() -> None:
    program = "import sys; sys.modules['hypothesis'] = None; import dtp.testing.strategies"
    done = subprocess.run(
        [sys.executable, "-P", "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "pip install 'dtp-sockets[test]'" in done.stderr.splitlines()[-1]
