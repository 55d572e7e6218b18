"""Who is there, as a value: against the model written from docs/presence.md, over rings and chains, under floods."""

from __future__ import annotations

from typing import Any

import presence_second as second
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dtp.graph import SyncError
from dtp.graph.presence.roster import LIFE, MAX_HERE, MAX_PAST, MAX_SESSIONS, PresencePeer, Roster
from dtp.graph.presence.state import Key, PresenceState, check_genuine, decode, decode_state, encode_state

WALL = 1_800_000_000_000
OWN = Key(bytes(32), bytes(16))


def state(author: int, session: int, sequence: int, *, date: int = WALL, gone: bool = False) -> PresenceState:
    value = b"" if gone else encode_state({"at": sequence})
    return PresenceState(author.to_bytes(32, "big"), bytes([session]) * 16, sequence, date, value, bytes(64))


def roster(own: Key = OWN, admits: Any = lambda author: True) -> tuple[Roster, list[tuple[Key, int | None]]]:
    told: list[tuple[Key, int | None]] = []
    return Roster(own, lambda key, s: told.append((key, None if s is None else s.sequence)), admits), told


STEP = st.one_of(
    st.tuples(
        st.just("state"),
        st.integers(0, 2),
        st.tuples(st.integers(0, 3), st.integers(0, 1), st.integers(1, 6), st.booleans()),
        st.integers(-100_000, 70_000),
    ),
    st.tuples(st.just("again"), st.integers(0, 2), st.integers(0, 30)),
    st.tuples(st.just("gone"), st.integers(0, 2), st.tuples(st.integers(0, 3), st.integers(0, 1))),
    st.tuples(st.just("ended"), st.integers(0, 2)),
    st.tuples(st.just("time"), st.integers(1, 20)),
)


@settings(max_examples=300)
@given(st.lists(STEP, max_size=60))
def test_who_is_there_is_what_the_document_says(steps: list[Any]) -> None:
    ours, told = roster()
    model, now, wall = second.Model((OWN.author, OWN.session)), 0.0, WALL
    links = [ours.attach_link(bytes([50 + at]) * 32) for at in range(3)]
    came: list[PresenceState] = []
    for what, *rest in steps:
        if what == "state":
            by, (author, session, sequence, leaves), off = rest
            came.append(state(author, session, sequence, date=wall + off, gone=leaves))
        elif what == "again" and came:
            by, which = rest
            came.append(came[which % len(came)])
        if what in ("state", "again") and came:
            one, before = came[-1], ours.counts.copy()
            expected = model.state(by, one.encode(), now, wall)
            ours.add_state(links[by], one, now, wall)
            assert dict(ours.counts - before) == {expected: 1}
        elif what == "gone":
            by, (author, session) = rest
            key = state(author, session, 1).key
            model.gone(by, (key.author, key.session))
            ours.remove_state(links[by], key)
        elif what == "ended":
            ours.detach_link(links[rest[0]])
            model.ended(rest[0])
            links[rest[0]] = ours.attach_link(bytes([50 + rest[0]]) * 32)
        elif what == "time":
            now, wall = now + rest[0], wall + rest[0] * 1000
            ours.expire(now)
            model.pass_time(now)
        assert {tuple(key): s.encode() for key, s in ours.states.items()} == {
            session: here.state for session, here in model.here.items()
        }
    shown: dict[Key, int | None] = {}
    for key, sequence in told:
        assert sequence is not None or shown[key] is not None, "who wasn't there is not gone"
        shown[key] = sequence
    assert {key for key, sequence in shown.items() if sequence} == set(ours.states)


class Net:
    """Rosters that are connected, whose messages arrive in rounds, each signed state as it is."""

    def __init__(self, count: int) -> None:
        self.names = [Key((100 + at).to_bytes(32, "big"), bytes(16)) for at in range(count)]
        self.rosters = [roster(name)[0] for name in self.names]
        self.sequences = [0] * count
        self.ends: dict[tuple[int, int], PresencePeer] = {}
        self.now = 0.0

    def wall(self) -> int:
        return WALL + int(self.now * 1000)

    def connect(self, a: int, b: int) -> None:
        if a != b and (a, b) not in self.ends:
            self.ends[a, b] = self.rosters[a].attach_link(self.names[b].author)
            self.ends[b, a] = self.rosters[b].attach_link(self.names[a].author)

    def cut(self, a: int, b: int) -> None:
        for here, there in ((a, b), (b, a)):
            if (here, there) in self.ends:
                self.rosters[here].detach_link(self.ends.pop((here, there)))

    def publish(self, at: int, *, gone: bool = False) -> None:
        self.sequences[at] += 1
        value = b"" if gone else encode_state({"n": self.sequences[at]})
        name = self.names[at]
        self.rosters[at].publish(PresenceState(*name, self.sequences[at], self.wall(), value, bytes(64)))

    def settle(self) -> None:
        for _ in range(3 * len(self.rosters)):
            for (a, b), link in list(self.ends.items()):
                states, gone = link.take_pending(64, 65536)
                for key in gone:
                    self.rosters[b].remove_state(self.ends[b, a], key)
                for one in states:
                    if self.rosters[b].find_fault(one, self.wall()) is None:
                        self.rosters[b].add_state(self.ends[b, a], one, self.now, self.wall())
                    else:
                        self.rosters[b].note_known(self.ends[b, a], one)
        assert not any(link.pending for link in self.ends.values())

    def reached(self, at: int) -> set[int]:
        found, todo = {at}, [at]
        while todo:
            here = todo.pop()
            for a, b in self.ends:
                if a == here and b not in found:
                    found.add(b)
                    todo.append(b)
        return found - {at}


CHANGE = st.tuples(
    st.sampled_from(["connect", "connect", "cut", "publish", "publish", "leave", "settle"]),
    st.integers(0, 4),
    st.integers(0, 4),
)


@settings(max_examples=150)
@given(st.lists(CHANGE, max_size=40))
def test_everybody_who_is_connected_sees_who_is_there_and_nobody_else(changes: list[Any]) -> None:
    """Over any connections that come and go: at once who has come, within the life of a state who has gone."""
    net, present = Net(5), set[int]()
    for what, a, b in changes:
        if what == "connect":
            net.connect(a, b)
        elif what == "cut":
            net.cut(a, b)
        elif what == "publish":
            present.add(a)
            net.publish(a)
        elif what == "leave" and a in present:
            present.discard(a)
            net.publish(a, gone=True)
        else:
            net.settle()
    for at in present:  # as each does within 10 s
        net.publish(at)
    net.settle()
    for at, one in enumerate(net.rosters):
        seen = {net.names.index(key) for key in one.states}
        assert net.reached(at) & present <= seen
    net.now += LIFE
    for at in present:
        net.publish(at)
    net.settle()
    for at, one in enumerate(net.rosters):
        one.expire(net.now)
        assert {net.names.index(key) for key in one.states} == net.reached(at) & present


@pytest.mark.parametrize("edges", [[(0, 1), (0, 2), (0, 3)], [(0, 1), (1, 2), (2, 3)]], ids=["star", "chain"])
def test_who_is_lost_is_gone_at_once_where_connections_make_no_ring(edges: list[tuple[int, int]]) -> None:
    net = Net(4)
    for a, b in edges:
        net.connect(a, b)
    for at in range(4):
        net.publish(at)
    net.settle()
    assert [len(one.states) for one in net.rosters] == [3, 3, 3, 3]
    net.cut(*edges[-1])
    net.settle()
    assert [len(one.states) for one in net.rosters] == [2, 2, 2, 0]
    net.connect(*edges[-1])
    net.settle()
    assert [len(one.states) for one in net.rosters] == [3, 3, 3, 3], "the states are what they were"


def test_thousands_of_made_up_authors_push_out_each_other() -> None:
    ours, told = roster()
    bad, good = ours.attach_link(bytes([1]) * 32), ours.attach_link(bytes([2]) * 32)
    other = ours.attach_link(bytes([3]) * 32)
    for number in range(5000):
        ours.add_state(bad, state(1000 + number, 0, 1), 0, WALL)
    assert len(ours.states) == MAX_HERE
    assert ours.counts == {"taken": MAX_HERE, "crowded": 5000 - MAX_HERE}
    for number in range(100):
        assert ours.add_state(good, state(10 + number, 0, 1), 0, WALL)
    assert len(ours.states) == MAX_HERE
    for number in range(5000):
        ours.add_state(bad, state(10_000 + number, 0, 1), 0, WALL)
    assert {key for key in ours.states if key.author[-1] in range(10, 110) and not any(key.author[:-1])} == {
        state(10 + number, 0, 1).key for number in range(100)
    }
    own = PresenceState(bad.peer, bytes(16), 1, WALL, encode_state({"a": 1}), bytes(64))
    assert ours.add_state(bad, own, 0, WALL), (
        "what a peer says of itself finds room at the cost of what it passes on"
    )
    assert own.key in ours.states
    assert len(other.pending) <= MAX_HERE
    assert len(bad.has) + len(bad.pending) <= 2 * MAX_HERE
    shown = {key for key, sequence in told if sequence}
    assert len(shown) == MAX_HERE + 101
    ours.detach_link(bad)
    assert len(ours.states) == 100


def test_who_comes_and_goes_again_and_again_costs_no_memory_at_a_link_that_takes_nothing() -> None:
    ours, _ = roster()
    bad, slow = ours.attach_link(bytes([1]) * 32), ours.attach_link(bytes([2]) * 32)
    for number in range(20_000):
        ours.add_state(bad, state(number + 10, 0, 1), 0, WALL)
        ours.add_state(bad, state(number + 10, 0, 2, gone=True), 0, WALL)
    assert not ours.states
    assert not slow.pending
    assert not bad.has
    refused = [
        number for number in range(20_000) if not ours.add_state(bad, state(number + 10, 0, 1), 0, WALL)
    ]
    assert len(refused) >= MAX_PAST


def test_sessions_of_an_author_are_bounded_and_the_oldest_goes() -> None:
    ours, _ = roster()
    link = ours.attach_link(bytes([1]) * 32)
    for session in range(20):
        assert ours.add_state(link, state(1, session, 1, date=WALL + session), 0, WALL)
    assert {key.session[0] for key in ours.states} == set(range(20 - MAX_SESSIONS, 20))
    assert not ours.add_state(link, state(1, 30, 1, date=WALL), 0, WALL)
    assert ours.counts["crowded"] == 1


def test_who_is_not_wanted_is_not_taken_and_not_passed_on() -> None:
    ours, _ = roster(admits=lambda author: author[-1] != 7)
    link, other = ours.attach_link(bytes([1]) * 32), ours.attach_link(bytes([2]) * 32)
    ours.add_state(link, state(7, 0, 1), 0, WALL)
    ours.add_state(link, state(8, 0, 1), 0, WALL)
    assert [key.author[-1] for key in other.pending] == [8]
    assert ours.counts == {"unwanted": 1, "taken": 1}


# ---- bytes --------------------------------------------------------------------------------------------------------

GOOD = second.sign(bytes(32), "g", bytes(16), 1, WALL, {"at": 1})


def test_states_are_read_as_the_second_implementation_writes_them() -> None:
    found = decode(list(GOOD))
    check_genuine([found], "g")
    assert decode_state(found.value) == {"at": 1}
    assert found.encode() == GOOD


@pytest.mark.parametrize("at", range(6))
@given(st.data())
def test_a_state_that_was_changed_is_not_taken(at: int, data: st.DataObject) -> None:
    parts: list[Any] = list(GOOD)
    if isinstance(parts[at], int):
        parts[at] = data.draw(st.integers(0, 1 << 63).filter(lambda n: n != GOOD[at]))
    else:
        place = data.draw(st.integers(0, len(parts[at]) - 1))
        flipped = parts[at][place] ^ data.draw(st.integers(1, 255))
        parts[at] = parts[at][:place] + bytes([flipped]) + parts[at][place + 1 :]
    with pytest.raises(SyncError):
        check_genuine([decode(parts)], "g")


def test_a_state_of_another_graph_is_not_taken() -> None:
    with pytest.raises(SyncError, match="did not sign"):
        check_genuine([decode(list(GOOD))], "other")


@given(st.binary(max_size=60))
def test_any_bytes_are_a_map_of_values_or_refused(data: bytes) -> None:
    try:
        found = decode_state(data)
    except SyncError:
        return
    assert decode_state(encode_state(found)).keys() == found.keys()


@pytest.mark.parametrize(
    "value",
    [
        b"\x90",  # no map
        b"\x81\x01\x01",  # a number as a key
        b"\x81\xa1a\xd6\xff\x00\x00\x00\x00",  # a timestamp
        b"\x81\xa1a\xd4\x07\x00",  # an extension that nothing is
        b"\x81\xa1a\xd4\x04\x07",  # no anchor
        b"\x81\xa1a" * 33 + b"\xc0",  # too deep
        b"\x81\xa1a" + b"\x91" * 2000 + b"\xc0",
        b"\x81\xa1a\xa1\xff",  # no UTF-8
        b"\x81\xa1a",
        b"\x80\x80",
    ],
    ids=lambda value: value.hex()[:20],
)
def test_values_that_are_none(value: bytes) -> None:
    with pytest.raises(SyncError):
        decode_state(value)
