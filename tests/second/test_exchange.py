"""Fresh keys on a link that goes on: with the second implementation, and against who has stolen the keys before."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from dtp.session import events as ev
from dtp.session.codes import CloseCode
from dtp.session.limits import DEFAULT

from .exchange import what_client_signs, what_server_signs
from .hostile import MALLORY, attack
from .noise import PATTERNS, public
from .ours import Duo
from .test_interop import BOTH, admitted
from .wire import FRESH, LinkLost, RecordOpener, Type, decode_frames, frame, prove

#: Seconds after which ours asks.
EVERY = 120.0


class Thief:
    """Has the keys of the first link as they are now, and hears all that passes on it."""

    def __init__(self, duo: Duo) -> None:
        link = duo.second.links[0]
        self.openers = {}
        for side, one in (("ours", link.opener), ("second", link.sealer)):
            opener = self.openers[side] = RecordOpener(one.suite, one.key)
            opener.n = one.n
        self.read = {"ours": b"", "second": b""}
        self.rekeys = {"ours": 0, "second": 0}
        self.blind: set[str] = set()
        ours, second = duo.ours.take, duo.second.take

        def take_ours(name: int, most: int = 64) -> bytes:
            return self.hear("ours", ours(name, most))

        def take_second(number: int) -> bytes:
            return self.hear("second", second(number))

        duo.ours.take, duo.second.take = take_ours, take_second

    def hear(self, side: str, data: bytes) -> bytes:
        opener = self.openers[side]
        opener.feed(data)
        try:
            while side not in self.blind and (plaintext := opener.next()) is not None:
                self.read[side] += plaintext
                for got in decode_frames(plaintext):
                    if got.type == Type.REKEY:
                        opener.rekey()  # all that can be done with FRESH, too
                        self.rekeys[side] += 1
        except LinkLost:
            self.blind.add(side)
        return data


def use(duo: Duo, up: bytes, down: bytes) -> None:
    """A stream both ways, opened by the client."""
    stream = duo.us.open_stream() if duo.we_dial else duo.second.open()
    duo.us.write_stream(stream, up) if duo.we_dial else duo.second.write(stream, up, fin=True)
    if duo.we_dial:
        duo.us.finish_stream(stream)
    duo.settle()
    if duo.we_dial:
        duo.second.write(stream, down, fin=True)
    else:
        duo.us.write_stream(stream, down)
        duo.us.finish_stream(stream)
    duo.settle()
    got, back = duo.second.archive[stream].got, duo.ours.got[stream]
    assert (bytes(got), bytes(back)) == ((up, down) if duo.we_dial else (down, up))


def refresh(duo: Duo) -> None:
    """Let the client ask, whichever it is, while something moves."""
    if duo.we_dial:
        duo.ours.wait(EVERY + 1)
    else:
        duo.second.ask_for_fresh_keys()
    use(duo, b"x" * 700, b"y" * 700)


@BOTH
@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_thief_of_keys_reads_no_more_after_the_next_exchange(pattern: str, we_dial: bool) -> None:
    duo = admitted(Duo(we_dial, pattern=pattern, cuts=random.Random(1)))
    thief = Thief(duo)
    use(duo, b"SECRET UP", b"SECRET DOWN")
    assert b"SECRET UP" in thief.read["ours" if we_dial else "second"]
    assert b"SECRET DOWN" in thief.read["second" if we_dial else "ours"]
    refresh(duo)
    for n in range(2):
        use(duo, b"HIDDEN UP %d" % n, b"HIDDEN DOWN %d" % n)
        assert b"HIDDEN" not in thief.read["ours"] + thief.read["second"]
        assert thief.blind == {"ours", "second"}
        refresh(duo)
    assert duo.second.links[0].exchange.n == 3
    assert duo.us.ended is None
    assert duo.ours.named(ev.LinkLost) == []


@BOTH
def test_without_an_exchange_the_thief_follows_every_rekey(we_dial: bool) -> None:
    """So the test above tells something."""
    limits = replace(DEFAULT, exchange=0.0, rekey_time=50.0)
    duo = admitted(Duo(we_dial, limits=limits))
    thief = Thief(duo)
    for n in range(3):
        duo.ours.wait(EVERY + 1)
        use(duo, b"OPEN UP %d" % n, b"OPEN DOWN %d" % n)
        assert b"OPEN UP %d" % n in thief.read["ours" if we_dial else "second"]
        assert b"OPEN DOWN %d" % n in thief.read["second" if we_dial else "ours"]
    assert thief.rekeys["ours"] == 3
    assert not thief.blind


@BOTH
def test_each_link_has_exchanges_of_its_own(we_dial: bool) -> None:
    duo = admitted(Duo(we_dial))
    added = duo.dial(add=True)
    duo.settle()
    if we_dial:
        duo.ours.wait(EVERY + 1)
    else:
        for number in duo.second.attached:
            duo.second.ask_for_fresh_keys(number)
    for _ in range(3):
        use(duo, b"x" * 5000, b"y" * 5000)
    assert {one.exchange.n for one in duo.second.links.values()} == {1} if not we_dial else {0, 1}
    duo.cut(0)
    duo.settle()
    refresh(duo)
    assert duo.second.links[duo.theirs[added]].exchange.n >= 1
    use(duo, b"x", b"y")


def exchanges(duo: Duo) -> int:
    return duo.second.links[0].exchange.n


def test_a_client_asks_only_while_something_moves() -> None:
    duo = admitted(Duo(True))
    for _ in range(10):
        duo.ours.wait(EVERY)
        duo.us.send_ping(duo.ours.now)
        duo.settle()
    assert exchanges(duo) == 0
    for n in range(1, 4):
        use(duo, b"x", b"y")
        assert exchanges(duo) == n
        use(duo, b"x", b"y")
        assert exchanges(duo) == n
        duo.ours.wait(EVERY)
    duo.us.send_datagram(b"a datagram alone")
    duo.settle()
    assert exchanges(duo) == 4


def test_a_client_asks_after_much_has_moved() -> None:
    duo = admitted(Duo(True, limits=replace(DEFAULT, rekey_bytes=20_000)))
    for _ in range(9):
        use(duo, bytes(5000), bytes(5000))
    assert 3 <= exchanges(duo) <= 5


def test_what_moved_before_does_not_count_for_a_new_link() -> None:
    duo = admitted(Duo(True, limits=replace(DEFAULT, rekey_bytes=20_000)))
    use(duo, bytes(9000), bytes(9000))
    name = duo.dial()
    duo.settle()
    use(duo, bytes(5000), bytes(5000))
    link = duo.second.links[duo.theirs[name]]
    assert link.exchange.n == 0
    use(duo, bytes(9000), bytes(9000))
    assert link.exchange.n == 1


def test_a_client_that_is_not_to_ask_never_does() -> None:
    duo = admitted(Duo(True, limits=replace(DEFAULT, exchange=0.0)))
    for _ in range(5):
        duo.ours.wait(1000)
        use(duo, b"x", b"y")
    assert exchanges(duo) == 0


def test_who_holds_an_exchange_back_loses_the_link_and_not_the_session() -> None:
    """He has the keys and stands between: without an end they would stay in use."""
    duo = admitted(Duo(True))
    duo.ours.wait(EVERY + 1)
    duo.us.write_stream(duo.us.open_stream(), b"data")
    asked = duo.ours.take(0)
    assert len(asked) > 100
    for _ in range(12):
        duo.ours.wait(4)
        duo.second.raw(frame(Type.PING, 1))  # the link is alive otherwise
        duo.ours.receive(0, duo.second.take(0))
        duo.ours.take(0)
        assert duo.ours.named(ev.LinkLost) == []
    duo.ours.wait(14)
    [lost] = duo.ours.named(ev.LinkLost)
    assert lost.reason == "no fresh keys for 60 s"
    assert duo.us.ended is None


def attacked(duo: Duo, *frames: bytes) -> None:
    assert attack(duo, *frames) == CloseCode.PROTOCOL


@BOTH
def test_an_exchange_that_the_identity_has_not_signed_ends_the_session(we_dial: bool) -> None:
    """Also where who forges it has the keys of the link."""
    for n, seed, h in ((1, MALLORY.seed, b""), (2, b"", b""), (1, b"", bytes(32))):
        duo = admitted(Duo(we_dial))
        keys = duo.second.first
        key = public(bytes(32))
        if we_dial:
            duo.ours.wait(EVERY + 1)
            duo.us.write_stream(duo.us.open_stream(), b"data")
            opener = duo.second.links[0].opener
            opener.feed(duo.ours.take(0))
            plaintext = opener.next()
            assert plaintext is not None
            [asked] = [got for got in decode_frames(plaintext) if got.type == Type.EXCHANGE]
            signed = what_server_signs(h or keys.h, n, asked.fields[0], key)
        else:
            signed = what_client_signs(h or keys.h, n, key)
        attacked(duo, frame(Type.EXCHANGE, key, prove(seed or keys.seed, signed)))


def test_a_key_that_agrees_on_nothing_ends_the_session() -> None:
    duo = admitted(Duo(False))
    keys = duo.second.first
    attacked(
        duo,
        frame(Type.EXCHANGE, bytes(32), prove(keys.seed, what_client_signs(keys.h, 1, bytes(32)))),
    )


def test_a_server_takes_one_exchange_at_a_time() -> None:
    duo = admitted(Duo(False))
    keys = duo.second.first
    duo.second.ask_for_fresh_keys()
    duo.carry_to_ours(0)
    key = public(bytes(32))
    attacked(duo, frame(Type.EXCHANGE, key, prove(keys.seed, what_client_signs(keys.h, 2, key))))


@BOTH
def test_an_old_exchange_that_comes_again_ends_the_session(we_dial: bool) -> None:
    duo = admitted(Duo(we_dial))
    said: list[bytes] = []
    link = duo.second.links[0]
    send = link.send

    def remember(*frames: bytes) -> None:
        said.extend(each for each in frames if each[0] == Type.EXCHANGE)
        send(*frames)

    link.send = remember
    refresh(duo)
    use(duo, b"x", b"y")
    assert duo.second.links[0].exchange.n == 1
    [old] = said
    attacked(duo, old)


@BOTH
def test_a_fresh_key_is_not_taken_before_one_was_agreed_on(we_dial: bool) -> None:
    attacked(admitted(Duo(we_dial)), frame(Type.REKEY, flags=FRESH))


def test_exchanges_without_end_are_too_many() -> None:
    duo = admitted(Duo(False))
    for _ in range(40):
        duo.second.ask_for_fresh_keys()
        for _ in range(3):
            duo.carry_to_ours(0)
            if duo.ours.closed_with is None:
                duo.carry_to_second(0)
        if duo.ours.closed_with is not None:
            break
    assert duo.ours.closed_with == CloseCode.LIMIT
    assert duo.second.links[0].exchange.n == DEFAULT.idle_frames // 256


@BOTH
def test_rekeys_of_both_kinds_may_mix(we_dial: bool) -> None:
    limits = replace(DEFAULT, rekey_bytes=3000, record=512, exchange=1.0)
    duo = admitted(Duo(we_dial, limits=limits, cuts=random.Random(2)))
    for n in range(6):
        if not we_dial:
            duo.second.rekey()
            duo.second.ask_for_fresh_keys()
            duo.second.rekey()
        duo.ours.wait(2.0)
        use(duo, bytes([n]) * 9000, bytes([n]) * 7000)
    assert duo.second.links[0].exchange.n >= 6
    assert duo.us.ended is None
