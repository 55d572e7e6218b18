"""Two devices end to end, with a mailbox between them that drops, doubles, reorders, replays, swaps and lies."""

from __future__ import annotations

import os

import pytest
from ends_world import End, Killed, Mailbox, identity, pair, settle
from hypothesis import given, settings
from hypothesis import strategies as st

from dtp.messaging.ends.device import LocalDevice
from dtp.messaging.ends.envelope import MAX_BYTES, SIZES, Sealed, open_envelope, seal_envelope
from dtp.messaging.ends.keys import LIFETIME_MS, DeviceKeys, KeyBundle
from dtp.messaging.ends.letter import Letter
from dtp.messaging.ends.order import WINDOW, DeviceStream, Outgoing
from dtp.messaging.ends.peer import RemoteDevice
from dtp.messaging.errors import (
    EnvelopeBroken,
    KeysForged,
    KeysRolledBack,
    MessageTooLong,
    NoSession,
    NotOpened,
    StoreFailed,
)

NOW = 1_700_000_000_000


def test_two_devices_that_were_never_there_at_once() -> None:
    a, b = pair()
    a.send(b"one")
    a.send(b"two")
    for envelope in b.mailbox.envelopes:
        b.receive(envelope)
    assert b.received == [b"one", b"two"]
    b.send(b"three")
    a.receive(a.mailbox.envelopes.pop())
    assert a.received == [b"three"]
    assert a.outbox == {}  # the answer said that both have come


STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "send",
                "receive",
                "receive",
                "drop",
                "double",
                "swap",
                "change",
                "answer",
                "kill",
                "again",
                "old",
            ]
        ),
        st.booleans(),
        st.integers(0, 7),
    ),
    max_size=60,
)


def play(steps: list[tuple[str, bool, int]]) -> tuple[End, End, list[bytes], list[bytes]]:
    """Do the steps. Return both ends and what each has sent."""
    a, b = pair()
    sent: dict[bool, list[bytes]] = {True: [], False: []}
    seen: list[tuple[End, bytes]] = []
    for what, first, number in steps:
        end = a if first else b
        box = end.mailbox.envelopes
        at = number % len(box) if box else 0
        if what == "send":
            payload = b"%d %d" % (first, len(sent[first]))
            end.send(payload)
            sent[first].append(payload)
        elif what == "receive" and box:
            seen.append((end, box.pop(at)))
            end.receive(seen[-1][1])
        elif what == "drop" and box:
            del box[at]
        elif what == "double" and box:
            box.append(box[at])
        elif what == "swap" and box:  # to whom it isn't for
            with pytest.raises(EnvelopeBroken):
                (b if first else a).receive(box[at])
        elif what == "change" and box:
            spoiled = bytearray(box[at])
            spoiled[(number * 97 + 1) % len(spoiled)] ^= 1 << number
            with pytest.raises(EnvelopeBroken):
                end.receive(bytes(spoiled))
        elif what == "answer":
            end.answer()
        elif what == "kill":
            end.restart()
        elif what == "again" and seen:
            whose, envelope = seen[number % len(seen)]
            whose.receive(envelope)
        elif what == "old":  # keys: the oldest statement, or a one-time key for the second time
            end.mailbox.keys.append(end.mailbox.keys[0])
            end.now_ms += 60_000 * number
    return a, b, sent[True], sent[False]


@given(STEPS)
def test_nothing_is_doubled_or_out_of_order_and_in_the_end_nothing_is_lost(
    steps: list[tuple[str, bool, int]],
) -> None:
    a, b, from_a, from_b = play(steps)
    assert b.received == from_a[: len(b.received)]
    assert a.received == from_b[: len(a.received)]
    settle(a, b)
    assert (b.received, a.received) == (from_a, from_b)
    assert (a.outbox, b.outbox) == ({}, {})


@pytest.mark.long
@settings(max_examples=10_000, deadline=None)
@given(STEPS)
def test_ten_thousand_histories(steps: list[tuple[str, bool, int]]) -> None:
    a, b, from_a, from_b = play(steps)
    settle(a, b)
    assert (b.received, a.received) == (from_a, from_b)


def conversation(a: End, b: End) -> None:
    for number in range(4):
        a.send(b"a%d" % number)
        b.send(b"b%d" % number)
        for end in (a, b):
            while end.mailbox.envelopes:
                end.receive(end.mailbox.envelopes.pop(0))
            end.answer()


def test_killed_before_any_write_and_never_a_key_is_used_twice() -> None:
    """Whoever is killed before a commit sends it again with other keys: no two envelopes differ under one."""
    writes = 0

    def count() -> None:
        nonlocal writes
        writes += 1

    a, b = pair()
    a.on_commit = b.on_commit = count
    conversation(a, b)
    assert writes > 20
    for fatal in range(1, writes + 1):
        a, b = pair()
        left = fatal

        def dies() -> None:
            nonlocal left
            left -= 1
            if left == 0:
                raise Killed

        a.on_commit = b.on_commit = dies
        with pytest.raises(Killed):
            conversation(a, b)
        a.on_commit = b.on_commit = lambda: None
        had = list(a.received), list(b.received)
        a.restart()
        b.restart()
        a.send(b"last of a")
        b.send(b"last of b")
        settle(a, b)
        assert a.received[: len(had[0])] == had[0]
        assert len(set(a.received)) == len(a.received)
        assert len(set(b.received)) == len(b.received)
        assert (a.received[-1], b.received[-1]) == (b"last of b", b"last of a")
        assert (a.outbox, b.outbox) == ({}, {})


def test_a_restored_backup_begins_a_new_instance_and_reuses_nothing() -> None:
    a, b = pair()
    conversation(a, b)
    backup = a.saved, dict(a.outbox), list(a.received)
    a.send(b"after the backup")
    settle(a, b)
    before = a.local.keys
    # Restored, and noticed: no session and no number of before is used again.
    a.saved, a.outbox, a.received = backup[0], dict(backup[1]), list(backup[2])
    a.restart()
    streams = a.peer.streams
    a.begin_instance(b"another instance", after=a.local.keys.sequence)
    a.peer.streams = streams
    assert a.local.instance != before.instance
    assert a.local.keys.olm != before.olm
    a.outbox = {}
    a.send(b"from the new one")
    b.send(b"to whom I knew")
    settle(a, b)
    assert b.received[-2:] == [b"after the backup", b"from the new one"]
    assert a.received[-1] == b"to whom I knew"


def test_an_older_statement_of_keys_is_noticed() -> None:
    a, b = pair()
    b.now_ms += 8 * 86_400_000
    b.local.renew_keys(b.now_ms)
    b.publish()
    a.now_ms = b.now_ms
    a.send(b"x")
    b.mailbox.keys.append(b.mailbox.keys[0])
    with pytest.raises(KeysRolledBack):
        a.peer.begin_session(a.local, b.mailbox.bundle(a.other, a.now_ms))
    b.receive(b.mailbox.envelopes.pop())
    assert b.received == [b"x"]


def test_keys_that_a_mailbox_made_up() -> None:
    a, b = pair()
    mallory = LocalDevice.create_instance(identity(3), bytes(16), NOW)
    with pytest.raises(KeysForged, match="another device"):
        KeyBundle.parse(mallory.keys.encoded, b"", device=a.other, now_ms=NOW)
    (other,) = mallory.make_one_time_keys(1)
    with pytest.raises(KeysForged, match="one-time"):
        KeyBundle.parse(b.local.keys.encoded, other, device=a.other, now_ms=NOW)
    for now in (NOW - LIFETIME_MS, NOW + LIFETIME_MS + 1):
        with pytest.raises(KeysForged, match="expired"):
            KeyBundle.parse(b.local.keys.encoded, b"", device=a.other, now_ms=now)
    for at in range(0, len(b.local.keys.encoded), 7):
        spoiled = bytearray(b.local.keys.encoded)
        spoiled[at] ^= 1
        with pytest.raises(KeysForged):
            DeviceKeys.parse(bytes(spoiled))


def test_no_one_is_taken_for_the_sender_of_what_was_written_to_another() -> None:
    """Mallory publishes Bob's Olm key as its own, and passes on to Bob what Alice writes to it."""
    alice, bob = pair()
    mallory = identity(3)
    stolen = DeviceKeys(
        mallory.id.key,
        bob.local.instance,
        NOW,
        bob.local.keys.olm,
        mallory.static_public,
        bob.local.keys.fallback,
    ).signed_by(mallory)
    to_mallory = RemoteDevice(mallory.id.key)
    to_mallory.begin_session(alice.local, KeyBundle(stolen))
    envelope = to_mallory.seal_payload(alice.local, to_mallory.outgoing.allot_number(), b"for Mallory's eyes")
    inside = open_envelope(envelope, mallory)
    passed_on = seal_envelope(inside, bob.identity.static_public)
    with pytest.raises(EnvelopeBroken, match="other devices"):
        bob.receive(passed_on)
    assert bob.received == []
    alice.send(b"for Bob")
    bob.receive(bob.mailbox.envelopes.pop())
    assert bob.received == [b"for Bob"]


def test_garbage_makes_no_more_sessions_than_the_pauses_allow() -> None:
    a, b = pair()
    conversation(a, b)
    forged = seal_envelope(
        Sealed(a.identity.id.key, 1, os.urandom(80), b"").encode(), b.identity.static_public
    )
    before = len(a.mailbox.envelopes)
    for _ in range(50):
        b.now_ms += 1_000
        b.receive(forged)
    assert len(a.mailbox.envelopes) - before == 1
    settle(a, b)
    a.send(b"still there")
    settle(a, b)
    assert b.received[-1] == b"still there"


def test_an_envelope_says_nothing_of_its_sender_and_has_one_of_few_sizes() -> None:
    a, b = pair()
    for size in (0, 1, 10, 100, 1000, 10_000, 60_000):
        a.send(os.urandom(size))
        envelope = b.mailbox.envelopes[-1]
        assert len(envelope) in SIZES
        assert a.identity.id.key not in envelope
        assert a.identity.static_public not in envelope
    short = {len(each) for each in b.mailbox.envelopes[:3]}
    assert len(short) == 1
    with pytest.raises(MessageTooLong):
        a.send(bytes(MAX_BYTES))


def test_a_session_is_needed() -> None:
    a, _ = pair()
    with pytest.raises(NoSession):
        RemoteDevice(a.other).seal_payload(a.local, 0, b"x")


def test_states_are_of_one_identity() -> None:
    a, _ = pair()
    a.send(b"x")
    with pytest.raises(StoreFailed):
        LocalDevice.load(identity(7), a.saved[0])
    with pytest.raises(StoreFailed):
        RemoteDevice.load(a.saved[1], bytes(32))
    with pytest.raises(StoreFailed):
        RemoteDevice.load(b"\xc1", bytes(32))


@given(st.binary(max_size=300))
def test_letters_of_anything(data: bytes) -> None:
    for parse in (Letter.parse, Sealed.parse):
        try:
            parse(data)
        except EnvelopeBroken:
            continue
        raise AssertionError("random bytes were taken for a letter")


@given(st.permutations(range(12)), st.lists(st.integers(0, 11), max_size=12))
def test_a_stream_passes_on_each_number_once_and_in_order(order: list[int], doubled: list[int]) -> None:
    stream, passed = DeviceStream(), []
    for number in [*doubled, *order]:
        passed += stream.add_payload(number, b"%d" % number)
    assert passed == [b"%d" % each for each in range(12)]
    assert stream.held == {}
    assert stream.missing == []


def test_a_stream_holds_no_more_than_its_window() -> None:
    stream = DeviceStream()
    assert stream.add_payload(WINDOW, b"x") == []
    assert stream.held == {}
    stream.add_payload(3, b"three")
    assert stream.missing == [0, 1, 2]
    for number in range(1, WINDOW):
        stream.add_payload(number, bytes(1 << 16))
    assert sum(map(len, stream.held.values())) <= 1 << 20
    assert stream.skip_to(WINDOW)[0] == bytes(1 << 16)
    assert stream.next == WINDOW


def test_what_can_not_be_true_of_acknowledgements_is_ignored() -> None:
    outgoing = Outgoing(5, 2)
    assert not outgoing.acknowledge_up_to(6)
    assert not outgoing.acknowledge_up_to(1)
    assert outgoing.find_held([0, 1, 2, 4, 4, 9]) == [2, 4]
    assert outgoing.acknowledge_up_to(5)
    assert outgoing.unacknowledged == []


def test_a_mailbox_without_one_time_keys_is_no_obstacle() -> None:
    a, b = pair()
    b.mailbox.one_time.clear()
    a.send(b"by the fallback key")
    b.receive(b.mailbox.envelopes.pop())
    assert b.received == [b"by the fallback key"]


def test_one_time_key_given_to_two() -> None:
    """The second one's first message doesn't open; the receiver makes a session, and it comes again."""
    shared = Mailbox()
    a, b = pair()
    c = End(3, 2, shared, b.mailbox)
    bundle = b.mailbox.bundle(b.identity.id.key, NOW)
    a.peer.begin_session(a.local, bundle)
    c.peer.begin_session(c.local, bundle)
    a.send(b"first")
    c.send(b"second")
    b.receive(b.mailbox.envelopes.pop(0))
    from_c = RemoteDevice(c.identity.id.key)
    sealed = Sealed.parse(open_envelope(b.mailbox.envelopes.pop(0), b.identity))
    with pytest.raises(NotOpened):
        from_c.open_sealed(b.local, sealed)
    assert from_c.begins_repair(NOW)
    from_c.begin_session(b.local, shared.bundle(c.identity.id.key, NOW))
    answer = from_c.seal_payload(b.local, repair=True)
    c.receive(answer)
    again = Sealed.parse(open_envelope(b.mailbox.envelopes.pop(0), b.identity))
    assert from_c.open_sealed(b.local, again).payloads == [b"second"]
