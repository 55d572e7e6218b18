"""The bytes of messages and frames: vectors, a second implementation, and whatever Hypothesis makes of them."""

import json
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtp.gossip import frames
from dtp.gossip.errors import GossipFrameError, MessageError, TopicError
from dtp.gossip.frames import GossipFrameType, split_frames
from dtp.gossip.message import BATCH, MAX_DEPTH, Parsed, SignatureChecks, content_of, parse, sign_batch
from dtp.gossip.sealing import TopicKey
from dtp.identity import Identity

sys.path.insert(0, str(Path(__file__).parent))
import second_codec as second

VECTORS = json.loads((Path(__file__).parents[2] / "docs" / "vectors" / "gossip.json").read_text())
SEED = bytes.fromhex(VECTORS["seed"])
AUTHOR = Identity(SEED, bytes(32))

topics = st.text(st.characters(codec="utf-8"), min_size=1, max_size=30).map(str.encode)
numbers = st.integers(0, 2**63 - 1)
written = st.tuples(numbers, numbers, topics, st.binary(max_size=200))


def contents_of(many):
    return [
        content_of(AUTHOR.id.key, topic, sequence, time_ms, data) for sequence, time_ms, topic, data in many
    ]


# ---- vectors -----------------------------------------------------------------------------------------------------


def test_the_vectors_are_what_the_second_implementation_makes():
    assert second.make_vectors() == VECTORS


@pytest.mark.parametrize("count", [1, 2, 8])
def test_messages_are_those_of_the_vectors(count):
    contents = contents_of(
        [(7 + at, 1_700_000_000_000 + at, b"weather", b"%d.5" % (20 + at)) for at in range(count)]
    )
    encoded = sign_batch(AUTHOR, contents)
    assert [each.hex() for each in encoded] == VECTORS["messages"][str(count)]
    assert [parse(each).id.hex() for each in encoded] == VECTORS["ids"][:count]


def test_private_topics_are_those_of_the_vectors():
    told = VECTORS["private"]
    key = TopicKey(told["name"], told["secret"])
    assert key.wire_name == told["topic"]
    parsed = parse(bytes.fromhex(told["message"]))
    assert key.open(parsed).hex() == told["data"]
    sealed = key.seal(
        AUTHOR.id.key, 1, 1_700_000_000_000, bytes.fromhex(told["data"]), bytes.fromhex(told["nonce"])
    )
    assert sealed == parsed.data


def test_frames_are_those_of_the_vectors():
    told = {name: bytes.fromhex(each) for name, each in VECTORS["frames"].items()}
    bodies = {name: split_frames(each, 1 << 20)[0][0] for name, each in told.items()}
    topic, ids = frames.read_topic(bodies["ihave"][1])
    assert frames.ihave(topic, frames.read_ids(ids)) == told["ihave"]
    assert frames.graft(frames.read_topic(bodies["graft"][1])[0]) == told["graft"]
    assert frames.prune(*frames.read_prune(bodies["prune"][1])) == told["prune"]
    assert frames.neighbours(*frames.read_neighbours(bodies["neighbours"][1])) == told["neighbours"]
    assert frames.peers(*frames.read_peers(bodies["peers"][1])) == told["peers"]
    assert frames.history(*frames.read_history(bodies["history"][1])) == told["history"]
    assert frames.time(frames.read_time(bodies["time"][1])) == told["time"]
    names = frames.read_topics(bodies["subscribe"][1])
    assert frames.frame(GossipFrameType.SUBSCRIBE, *map(frames.named, names)) == told["subscribe"]
    assert {frames.GossipFrameType(kind).name.lower() for kind, _ in bodies.values()} == set(told)


# ---- both implementations ----------------------------------------------------------------------------------------


@given(st.lists(written, min_size=1, max_size=40))
def test_what_is_signed_here_is_read_there(many):
    for (sequence, time_ms, topic, data), encoded in zip(
        many, sign_batch(AUTHOR, contents_of(many)), strict=True
    ):
        parsed = parse(encoded)
        found = (parsed.key, parsed.sequence, parsed.time_ms, parsed.topic, parsed.data, parsed.id)
        assert found == second.read(encoded)
        assert found[:5] == (AUTHOR.id.key, sequence, time_ms, topic, data)


@given(st.integers(0, MAX_DEPTH), written)
def test_what_is_signed_there_is_read_here(depth, one):
    sequence, time_ms, topic, data = one
    contents = [
        second.content(AUTHOR.id.key, sequence, time_ms, topic, data + bytes([at])) for at in range(2**depth)
    ]
    for encoded in second.sign_together(SEED, contents):
        assert parse(encoded).data[:-1] == data


def verdict_here(encoded):
    try:
        parsed = parse(encoded)
    except MessageError:
        return None
    return parsed.key, parsed.sequence, parsed.time_ms, parsed.topic, parsed.data, parsed.id


@given(st.lists(written, min_size=1, max_size=4), st.data())
def test_both_take_and_refuse_the_same_of_what_was_changed(many, data):
    encoded = bytearray(data.draw(st.sampled_from(sign_batch(AUTHOR, contents_of(many)))))
    for _ in range(data.draw(st.integers(1, 3))):
        kind = data.draw(st.sampled_from(["flip", "cut", "add"]))
        at = data.draw(st.integers(0, len(encoded) - 1)) if encoded else 0
        if kind == "flip" and encoded:
            encoded[at] ^= 1 << data.draw(st.integers(0, 7))
        elif kind == "cut":
            del encoded[at:]
        else:
            encoded[at:at] = data.draw(st.binary(max_size=40))
    assert verdict_here(bytes(encoded)) == second.read(bytes(encoded))


@given(st.binary(max_size=300))
def test_any_bytes_are_a_message_or_a_named_error(data):
    assert verdict_here(data) == second.read(data)


def test_a_batch_has_as_many_signatures_as_whole_trees():
    contents = contents_of([(at, 0, b"t", b"") for at in range(2 * BATCH + 13)])
    encoded = sign_batch(AUTHOR, contents)
    assert [each[-66] for each in encoded] == [4] * 32 + [3] * 8 + [2] * 4 + [0]
    checks = SignatureChecks()
    assert all(checks.check([Parsed(each) for each in encoded]))
    assert (checks.checked, checks.known) == (5, 40)


def test_a_message_of_a_batch_does_not_prove_another():
    one, other = sign_batch(AUTHOR, contents_of([(1, 0, b"t", b"one"), (2, 0, b"t", b"other")]))
    spliced = one[:-98] + other[-98:]
    assert SignatureChecks().check([Parsed(one), Parsed(spliced), Parsed(other)]) == [True, False, True]


def test_checks_are_bounded_and_forget_the_oldest_of_their_kind():
    checks = SignatureChecks(remembered=10)
    genuine = [sign_batch(AUTHOR, contents_of([(at, 0, b"t", b"")]))[0] for at in range(30)]
    forged = [each[:-1] + bytes([each[-1] ^ 1]) for each in genuine]
    assert checks.check([Parsed(genuine[0])]) == [True]
    assert not any(checks.check([Parsed(each) for each in forged]))
    assert checks.check([Parsed(genuine[0])]) == [True]
    assert (checks.checked, checks.known) == (31, 1)  # forgeries pushed out no genuine one
    assert all(checks.check([Parsed(each) for each in genuine]))
    assert len(checks._good) == len(checks._bad) == 10


def test_keys_that_are_no_keys_sign_nothing():
    content = content_of(bytes(32), b"t", 0, 0, b"")
    assert SignatureChecks().check([Parsed(content + bytes(2) + bytes(64))]) == [False]


# ---- sealing -----------------------------------------------------------------------------------------------------


@given(st.binary(max_size=100), numbers, numbers)
def test_sealed_payloads_are_for_one_message_only(data, sequence, time_ms):
    key = TopicKey("family", b"k" * 16)
    wire = key.wire_name.encode()
    sealed = key.seal(AUTHOR.id.key, sequence, time_ms, data, bytes(24))

    def opened(by, topic, number, when, payload):
        return key.open(Parsed(content_of(by, topic, number, when, payload) + bytes(66)))

    assert opened(AUTHOR.id.key, wire, sequence, time_ms, sealed) == data
    other = (sequence + 1) % 2**63
    assert opened(AUTHOR.id.key, wire, other, time_ms, sealed) is None
    assert opened(bytes(32), wire, sequence, time_ms, sealed) is None
    assert opened(AUTHOR.id.key, b"else", sequence, time_ms, sealed) is None
    assert opened(AUTHOR.id.key, wire, sequence, time_ms, sealed[:-1]) is None
    assert (
        TopicKey("family", b"j" * 16).open(
            Parsed(content_of(AUTHOR.id.key, wire, sequence, time_ms, sealed) + bytes(66))
        )
        is None
    )


def test_short_keys_are_refused():
    with pytest.raises(TopicError, match="16 bytes at least"):
        TopicKey("family", "fifteen letters")


# ---- frames ------------------------------------------------------------------------------------------------------

records = st.lists(st.binary(min_size=1, max_size=50), max_size=5)
ids = st.lists(st.binary(min_size=20, max_size=20), max_size=5)
packed = st.one_of(
    st.builds(frames.ihave, topics, ids),
    st.builds(frames.graft, topics),
    st.builds(frames.prune, topics, st.integers(0, 65535), records),
    st.builds(frames.peers, topics, records),
    st.builds(frames.history, topics, numbers, st.integers(0, 65535)),
    st.builds(frames.neighbours, topics, st.lists(st.binary(min_size=8, max_size=8), max_size=5)),
    st.builds(frames.frame, st.integers(0, 255), st.binary(max_size=60)),
)


@given(st.lists(packed, max_size=8), st.data())
def test_frames_are_the_same_however_their_bytes_are_cut(many, data):
    whole = b"".join(many)
    expected, used = split_frames(whole, 1 << 20)
    assert used == len(whole)
    found, rest = [], b""
    while whole:
        size = data.draw(st.integers(1, len(whole)))
        rest, whole = rest + whole[:size], whole[size:]
        some, used = split_frames(rest, 1 << 20)
        found += some
        rest = rest[used:]
    assert (found, rest) == (expected, b"")


@given(topics, st.integers(0, 65535), records, ids, numbers)
def test_frames_read_as_they_were_written_and_as_the_second_writes_them(topic, number, some, many, since):
    def both(ours, name, *fields):
        assert ours == second.frame_of(name, *fields)
        return split_frames(ours, 1 << 20)[0][0][1]

    body = both(frames.prune(topic, number, some), "prune", topic, number, some)
    assert frames.read_prune(body) == (topic, number, some)
    body = both(frames.peers(topic, some), "peers", topic, some)
    assert frames.read_peers(body) == (topic, some)
    body = both(frames.ihave(topic, many), "ihave", topic, many)
    assert (frames.read_topic(body)[0], frames.read_ids(frames.read_topic(body)[1])) == (topic, many)
    body = both(frames.history(topic, since, number), "history", topic, since, number)
    assert frames.read_history(body) == (topic, since, number)
    assert frames.read_time(both(frames.time(since), "time", since)) == since


@pytest.mark.parametrize(
    "read",
    [
        frames.read_topic,
        frames.read_topics,
        frames.read_ids,
        frames.read_prune,
        frames.read_peers,
        frames.read_neighbours,
        frames.read_history,
        frames.read_time,
    ],
)
@given(body=st.binary(max_size=80))
def test_any_body_is_read_or_a_named_error(read, body):
    try:
        read(body)
    except GossipFrameError:
        return


def test_frames_that_are_too_long_are_refused_before_they_have_come():
    with pytest.raises(GossipFrameError, match="type 3 with 1001 bytes"):
        split_frames(bytes((3,)) + (1001).to_bytes(3, "big"), 1000)
    with pytest.raises(GossipFrameError, match="type 4"):
        split_frames(bytes((4,)) + (frames.MAX_CONTROL + 1).to_bytes(3, "big"), 1000)
    assert split_frames(bytes((3,)) + (1000).to_bytes(3, "big"), 1000) == ([], 0)
