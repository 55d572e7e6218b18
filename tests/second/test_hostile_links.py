"""The second implementation as a hostile peer that resumes: ATTACH without proof, STATE that lies."""

from __future__ import annotations

import pytest

from dtp.session import events as ev
from dtp.session.codes import CloseCode, ProtocolError

from .hostile import MALLORY, attach, attack, bystander, fresh, stream  # noqa: F401 - a fixture
from .ours import ALICE, Duo, endpoint, shake
from .peer import SecondPeer
from .test_interop import BOTH, admitted
from .wire import ADD, LISTED, Code, RecordSealer, Type, attach_proof, frame, raw_frame


@pytest.mark.parametrize(
    "wrong",
    [
        "proof",
        "id",
        "side",
        "old h",
        "not ATTACH",
        "STREAM",
        "used number",
        "garbage",
        "CLOSE",
        "CLOSE, then ATTACH",
        "PING, then ATTACH",
    ],
)
def test_a_link_that_can_not_prove_itself_does_not_harm_the_session(wrong: str) -> None:
    duo = admitted(Duo(False))
    name, sealer, h = fresh(duo)
    good = attach(duo, h)
    frames = {
        "proof": attach(duo, h, secret=bytes(32)),
        "id": good[:4] + bytes(16) + good[20:],
        "side": frame(
            Type.ATTACH, duo.us.connection_id, 1, attach_proof(duo.second.first.secret, "server", h)
        ),
        "old h": attach(duo, duo.second.first.h),
        "not ATTACH": frame(Type.PING, 1),
        "STREAM": stream(0, 0, b"smuggled"),
        "used number": attach(duo, h, number=0),
        "garbage": raw_frame(0x0D, 0, b"short"),
        "CLOSE": frame(Type.CLOSE, int(Code.INTERNAL), 0),
        "CLOSE, then ATTACH": frame(Type.CLOSE, int(Code.INTERNAL), 0) + good,
        "PING, then ATTACH": frame(Type.PING, 1) + good,
    }[wrong]
    duo.ours.receive(name, sealer.seal(frames))
    assert duo.us.ended is None
    assert not duo.ours.links[name].attached
    assert [event.link for event in duo.ours.named(ev.LinkLost)] == [duo.ours.links[name]]
    answer = duo.ours.take(name)
    assert (answer == b"") == wrong.startswith("CLOSE")
    duo.ours.receive(name, sealer.seal(good))  # no second guess on the same link
    assert not duo.ours.links[name].attached
    assert duo.ours.got == {}
    number = duo.second.open()
    duo.second.write(number, b"unharmed", fin=True)
    duo.settle()
    assert duo.ours.got[number] == b"unharmed"


def test_the_number_of_a_link_that_was_lost_is_not_taken_again() -> None:
    """A STATE that names it may still be under way."""
    duo = admitted(Duo(False))
    added = duo.dial(add=True)
    duo.settle()
    duo.cut(added)
    duo.settle()
    name, sealer, h = fresh(duo)
    duo.ours.receive(name, sealer.seal(attach(duo, h, number=1, flags=ADD)))
    assert not duo.ours.links[name].attached
    assert duo.us.ended is None


def test_what_is_skipped_anyway_may_come_before_attach() -> None:
    duo = admitted(Duo(False))
    name, sealer, h = fresh(duo)
    skipped = raw_frame(0, 0xFF, b"padding") + raw_frame(0x80, 1, b"later") + raw_frame(0xFF, 0, b"")
    duo.ours.receive(name, sealer.seal(b"") + sealer.seal(skipped + frame(Type.REKEY)))
    sealer.rekey()
    duo.ours.receive(name, sealer.seal(skipped + attach(duo, h)))
    assert duo.ours.links[name].attached
    theirs = admitted(Duo(True))  # and the second implementation reads it likewise
    theirs.cut(0)
    again = theirs.dial()
    theirs.ours.links[again].control.appendleft((0x80, 0, 0, 0, b"later"))
    theirs.settle()
    assert theirs.ours.links[again].attached


def test_a_refused_attach_leaves_its_number_free() -> None:
    duo = admitted(Duo(False))
    for secret, taken in ((b"\x01" * 32, False), (None, True)):
        name, sealer, h = fresh(duo)
        duo.ours.receive(name, sealer.seal(attach(duo, h, number=5, secret=secret, flags=ADD)))
        assert duo.ours.links[name].attached == taken


@pytest.mark.parametrize("we_dial", [True, False])
def test_a_second_state_that_names_the_link_it_comes_on_is_an_error(we_dial: bool) -> None:
    duo = admitted(Duo(we_dial))
    duo.cut(0)
    name = duo.dial()
    duo.settle()
    number = duo.second.links[duo.theirs[name]].number
    assert attack(duo, frame(Type.STATE, 0, 0, number), name=name) == CloseCode.PROTOCOL


@pytest.mark.parametrize("we_dial", [True, False])
def test_a_link_that_replaced_all_and_is_lost_has_two_lists(we_dial: bool) -> None:
    """The one it began with, and another, over the next link, that counts for itself."""
    duo = admitted(Duo(we_dial))
    duo.cut(0)
    first = duo.dial()
    duo.settle()
    duo.dial(add=True)
    duo.settle()
    number = duo.second.open()
    duo.second.write(number, b"x" * 500)
    duo.second.pump(duo.second.links[duo.theirs[first]].number)
    duo.cut(first)  # with what is under way, which the second list brings back
    duo.second.write(number, b"y", fin=True)
    duo.settle()
    assert duo.ours.got[number] == b"x" * 500 + b"y"
    assert duo.us.ended is None


def test_wrong_proofs_are_told_so() -> None:
    duo = admitted(Duo(False))
    duo.names += 1
    established, keys, _ = shake(False, theirs=ALICE.payload(resume=duo.us.connection_id), seed=7)
    duo.ours.add(1, established)
    intruder = SecondPeer(keys)
    intruder.links[0].sealer = RecordSealer(keys.suite, keys.send)  # as if nothing had been sent yet
    intruder.take(0)
    intruder.raw(attach(duo, keys.h, secret=b"\x01" * 32))
    duo.ours.receive(1, intruder.take(0))
    intruder.receive(0, duo.ours.take(1))
    assert intruder.closed is not None
    assert intruder.closed[:2] == (False, Code.RESUME_PROOF)


def test_another_identity_can_not_carry_a_session_on() -> None:
    duo = admitted(Duo(False))
    established, _, _ = shake(False, seed=8)
    stranger = endpoint(MALLORY).identity.id
    object.__setattr__(established, "peer", stranger)
    with pytest.raises(ProtocolError) as refused:
        duo.us.new_link(established, duo.ours.now)
    assert refused.value.close_code == CloseCode.RESUME_PROOF
    assert duo.us.attached


def test_a_server_that_answers_with_a_wrong_proof() -> None:
    for secret, number, flags in ((bytes(32), 1, 0), (None, 2, 0), (None, 1, ADD)):
        duo = admitted(Duo(True))
        duo.cut(0)
        name, sealer, h = fresh(duo)
        duo.ours.receive(name, sealer.seal(attach(duo, h, number, secret=secret, flags=flags)))
        assert not duo.us.attached
        assert duo.us.ended is None
        duo.dial()
        duo.settle()
        assert duo.us.attached


def test_a_server_that_does_not_know_the_session_ends_it() -> None:
    duo = admitted(Duo(True))
    duo.cut(0)
    name, sealer, _ = fresh(duo)
    duo.ours.receive(name, sealer.seal(frame(Type.CLOSE, int(Code.RESUME_UNKNOWN), 0)))
    assert duo.us.ended is not None
    assert duo.us.ended.lost
    assert duo.us.ended.close_code == CloseCode.RESUME_UNKNOWN


@BOTH
def test_a_refused_added_link_leaves_the_others(we_dial: bool) -> None:
    duo = admitted(Duo(we_dial))
    if we_dial:
        established, keys, _ = shake(True, seed=9, resume=duo.us.connection_id)
        duo.ours.add(1, established, add=True)
        sealer = RecordSealer(keys.suite, keys.send)
        duo.ours.receive(1, sealer.seal(frame(Type.CLOSE, int(Code.LIMIT), 0)))
    else:
        for _ in range(7):
            duo.dial(add=True)
            duo.settle()
        assert len(duo.us.links.by_number) == 8
        name, sealer, h = fresh(duo)
        duo.ours.receive(name, sealer.seal(attach(duo, h, 99, flags=ADD)))
        assert not duo.ours.links[name].attached
        assert duo.ours.take(name)
    assert duo.us.ended is None
    number = duo.us.open_stream()
    duo.us.write_stream(number, b"goes on")
    duo.settle()
    assert duo.second.streams[number].got == b"goes on"


@BOTH
@pytest.mark.parametrize("resumed", [False, True])
def test_attach_on_a_link_that_is_attached(we_dial: bool, resumed: bool) -> None:
    duo = admitted(Duo(we_dial))
    name = 0
    if resumed:
        duo.cut(0)
        name = duo.dial()
        duo.settle()
    assert (
        attack(duo, attach(duo, duo.second.links[duo.theirs[name]].keys.h, 5), name=name)
        == CloseCode.PROTOCOL
    )


def lies(duo: Duo, ours: int, theirs: int, name: int) -> dict[str, list[bytes]]:
    """Lists that can't be true, for a session in which both sides have one open stream with data on it."""
    listed = [
        frame(Type.WINDOW, ours, 3, 9999, flags=LISTED),
        frame(Type.WINDOW, theirs, 0, 9999, flags=LISTED),
    ]
    return {
        "a link that never was": [*listed, frame(Type.STATE, 1, 1, 77)],
        "more streams seen than opened": [*listed, frame(Type.STATE, 2, 1, 0)],
        "more streams opened than allowed": [*listed, frame(Type.STATE, 1, 9999, 0)],
        "an acknowledged stream not seen": [*listed, frame(Type.STATE, 0, 1, 0)],
        "our open stream is done with": [listed[1], frame(Type.STATE, 1, 1, 0)],
        "its own open stream is done with": [listed[0], frame(Type.STATE, 1, 1, 0)],
        "an acknowledgement beyond what was sent": [
            frame(Type.WINDOW, ours, 7, 9999, flags=LISTED),
            frame(Type.STATE, 1, 1, 0),
        ],
        "the link it comes on": [*listed, frame(Type.STATE, 1, 1, name)],
    }


@BOTH
@pytest.mark.parametrize(
    "lie",
    [
        "a link that never was",
        "more streams seen than opened",
        "more streams opened than allowed",
        "an acknowledged stream not seen",
        "our open stream is done with",
        "its own open stream is done with",
        "an acknowledgement beyond what was sent",
        "the link it comes on",
    ],
)
def test_state_that_lies(we_dial: bool, lie: str) -> None:
    duo = admitted(Duo(we_dial))
    ours, theirs = duo.us.open_stream(), duo.second.open()
    duo.us.write_stream(ours, b"123456")
    duo.second.write(theirs, b"abc")
    duo.settle()
    name = duo.dial(add=True)
    duo.settle()
    number = duo.second.links[duo.theirs[name]].number
    duo.us.link_lost(duo.ours.links[0], duo.ours.now)
    assert attack(duo, *lies(duo, ours, theirs, number)[lie], name=name) == CloseCode.PROTOCOL
