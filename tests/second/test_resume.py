"""Links that are lost at bad moments: whatever was under way, nothing is lost and nothing comes twice."""

from __future__ import annotations

from dataclasses import replace

import pytest

from .hostile import attack, bystander  # noqa: F401 - a fixture
from .ours import SMALL, Duo
from .test_interop import BOTH, admitted
from .wire import LISTED, Type, decode_frames, frame


@BOTH
def test_a_state_that_tells_the_truth_twice(we_dial: bool) -> None:
    """A list may have been lost with its link, so it is sent again, and may come twice."""
    duo = admitted(Duo(we_dial))
    ours, theirs = duo.us.open_stream(), duo.second.open()
    duo.us.write_stream(ours, b"123456")
    duo.second.write(theirs, b"abc")
    duo.settle()
    name = duo.dial(add=True)
    duo.settle()
    duo.cut(0)
    link = duo.second.links[duo.theirs[name]]
    duo.second.send_list(link, 0)
    duo.second.send_list(link, 0)
    duo.settle()
    duo.us.write_stream(ours, b"789")
    duo.settle()
    assert duo.second.streams[ours].got == b"123456789"


@BOTH
def test_a_stream_that_is_newer_than_the_list_is_kept(we_dial: bool) -> None:
    """The list comes over a slow link, what was opened after it over a faster one: nothing of it may be dropped."""
    duo = admitted(Duo(we_dial))
    slow, fast, third = 0, duo.dial(add=True), duo.dial(add=True)
    duo.settle()
    lost = duo.theirs[third]
    duo.second.lose(lost)  # the list goes over the first link, and stays under way
    number = duo.second.open()
    duo.second.write(number, b"question", fin=True)
    duo.second.pump(duo.theirs[fast])
    duo.carry_to_ours(fast)
    assert bytes(duo.ours.got[number]) == b"question"
    duo.us.write_stream(number, b"answer")
    duo.us.finish_stream(number)
    answer = duo.ours.take(third)  # over the link that is lost for the other side
    assert answer
    duo.carry_to_ours(slow)
    duo.cut(third)
    duo.settle()
    assert duo.us.ended is None
    assert bytes(duo.second.archive[number].got) == b"answer"


@BOTH
@pytest.mark.parametrize("notices", ["ours", "second", "both"])
def test_added_link_while_the_others_are_lost(we_dial: bool, notices: str) -> None:
    """ADD sends no list; but when the others are lost before it is attached, what was in flight must still come."""
    duo = admitted(Duo(we_dial))
    ours, theirs = duo.us.open_stream(), duo.second.open()
    duo.us.write_stream(ours, b"ours, lost")
    duo.second.write(theirs, b"theirs, lost")
    duo.ours.take(0)
    duo.second.pump()
    duo.second.take(0)
    added = duo.dial(add=True)
    if notices == "ours":
        duo.ours.lose(0)
    elif notices == "second":
        duo.second.lose(0)
    else:
        duo.cut(0)
    for _ in range(6):
        duo.carry_to_ours(added)
        duo.carry_to_second(added)
    assert 0 not in duo.second.links
    assert duo.ours.links[0].lost
    duo.settle()
    assert duo.second.streams[ours].got == b"ours, lost"
    assert duo.ours.got[theirs] == b"theirs, lost"


@BOTH
def test_a_link_that_only_one_side_had_attached(we_dial: bool) -> None:
    """The server's ATTACH is lost with the added link, and so is what the server sent behind it."""
    duo = admitted(Duo(we_dial))
    ours, theirs = duo.us.open_stream(), duo.second.open()
    duo.settle()
    added = duo.dial(add=True)
    if we_dial:
        duo.carry_to_second(added)
        duo.second.write(theirs, b"into the void", fin=True)
        duo.second.pump(duo.theirs[added])
        duo.second.take(duo.theirs[added])
    else:
        duo.carry_to_ours(added)
        duo.us.write_stream(ours, b"into the void")
        duo.us.finish_stream(ours)
        duo.ours.take(added)
    duo.cut(added)
    duo.settle()
    if we_dial:
        assert duo.ours.got[theirs] == b"into the void"
    else:
        assert duo.second.streams[ours].got == b"into the void"


@BOTH
def test_a_list_that_is_lost_with_its_link_is_sent_again(we_dial: bool) -> None:
    """Only ours notices that the first link is lost; its list goes over the second, which is lost as well."""
    duo = admitted(Duo(we_dial))
    second, third = duo.dial(add=True), duo.dial(add=True)
    duo.settle()
    theirs = duo.second.open()
    duo.second.write(theirs, b"sent into the void")
    duo.second.pump(0)
    duo.second.take(0)
    duo.ours.lose(0)
    duo.ours.take(second)
    duo.cut(second)
    for _ in range(6):
        duo.carry_to_second(third)
        duo.carry_to_ours(third)
    assert 0 not in duo.second.links
    duo.second.pump()
    duo.carry_to_ours(third)
    assert duo.ours.got[theirs] == b"sent into the void"


@BOTH
def test_what_was_asked_before_the_cut_is_asked_again(we_dial: bool) -> None:
    """A stream without data, a RESET, a STOP, an end and the last acknowledgement: all lost with their link."""
    duo = admitted(Duo(we_dial))
    reset, stop, done = duo.us.open_stream(), duo.us.open_stream(), duo.us.open_stream()
    duo.us.write_stream(reset, b"some")
    duo.us.write_stream(stop, b"some")
    duo.us.finish_stream(done)
    duo.settle()
    duo.second.write(done, b"", fin=True)
    duo.second.pump()
    duo.carry_to_ours(0)
    duo.carry_to_second(0)
    assert done not in duo.second.streams  # it has all, and forgot the stream; what it said last is lost
    new, more = duo.us.open_stream(), duo.us.open_stream()
    duo.us.write_stream(more, b"more")
    duo.us.reset_stream(reset, 5)
    duo.us.stop_stream(stop, 6)
    duo.ours.take(0)
    duo.cut(0)
    duo.dial()
    duo.settle()
    assert duo.second.streams[new].got == b""
    assert duo.second.streams[more].got == b"more"
    assert duo.second.streams[reset].reset_heard == 5
    assert duo.second.streams[stop].stop_heard == 6
    assert duo.ours.resets == {stop: 6}
    assert done in duo.ours.done
    assert done not in duo.us.stream_ids


@BOTH
def test_a_stream_reset_before_its_data_was_sent_is_forgotten(we_dial: bool) -> None:
    """The peer has done with it, its last acknowledgement is lost, and we had written more than we sent."""
    duo = admitted(Duo(we_dial))
    number = duo.second.open()
    duo.second.write(number, b"", fin=True)
    duo.settle()
    duo.us.write_stream(number, b"never sent")
    duo.us.reset_stream(number, 1)
    duo.carry_to_second(0)
    duo.second.pump()
    assert number in duo.second.archive
    duo.cut(0)
    duo.dial()
    duo.settle()
    assert number in duo.ours.done
    assert number not in duo.us.stream_ids


@BOTH
@pytest.mark.parametrize("records", range(1, 6))
def test_a_piece_that_came_in_part_goes_on_in_its_middle(we_dial: bool, records: int) -> None:
    """One write is several records, and the link is lost between them."""
    duo = admitted(
        Duo(we_dial, limits=replace(SMALL, stream_window=8192, connection_window=16384, quantum=4096))
    )
    number = duo.us.open_stream()
    sent = bytes(range(256)) * 12
    duo.us.write_stream(number, sent)
    duo.us.finish_stream(number)
    duo.carry_to_second(0, records * 530)
    came = len(duo.second.streams[number].got)
    assert 0 < came < len(sent)
    duo.second.pump()
    duo.carry_to_ours(0)
    duo.cut(0)
    duo.dial()
    duo.settle()
    assert duo.second.streams[number].got == sent


@BOTH
def test_a_replacement_that_dies_before_it_is_attached_leaves_time_to_try_again(we_dial: bool) -> None:
    duo = admitted(Duo(we_dial))
    name = duo.dial()
    duo.cut(name)
    duo.theirs.clear()
    if we_dial:
        assert not duo.us.attached
        assert duo.us.next_deadline() == duo.ours.now + duo.limits.resume
    duo.dial()
    duo.settle()
    assert duo.us.attached
    assert duo.us.ended is None
    duo.cut(duo.names)
    duo.ours.wait(duo.limits.resume)
    assert duo.us.ended is not None
    assert duo.us.ended.lost


def listed(duo: Duo, name: int) -> list[int]:
    """The lost links of the lists that our side sends now, which the other side does not get to see."""
    opener = duo.second.links[duo.theirs[name]].opener
    opener.feed(duo.ours.take(name))
    frames = [got for record in iter(opener.next, None) for got in decode_frames(record)]
    return [got.fields[2] for got in frames if got.type == Type.STATE]


@BOTH
def test_a_list_is_not_repeated_over_the_link_that_carries_it(we_dial: bool) -> None:
    duo = admitted(Duo(we_dial))
    names = [duo.dial(add=True) for _ in range(4)]
    duo.settle()
    told = []
    for name in names[1:]:
        duo.ours.lose(name)
        told += listed(duo, 0)
    assert told == names[1:]
    duo.ours.lose(0)  # and with it the three
    assert listed(duo, names[0]) == [0, *names[1:]]


@BOTH
def test_an_answer_that_was_lost_is_given_again(we_dial: bool) -> None:
    duo = admitted(Duo(we_dial))
    second, third = duo.dial(add=True), duo.dial(add=True)
    duo.settle()
    duo.second.lose(duo.theirs[third])
    duo.carry_to_ours(0)
    assert listed(duo, 0) == [third]
    duo.cut(0)
    assert duo.second.waiting == {0, duo.theirs[third]}
    duo.settle()
    assert duo.second.waiting == set()
    assert second in duo.theirs


@BOTH
def test_lists_over_two_links_at_once_are_told_apart(we_dial: bool) -> None:
    duo = admitted(Duo(we_dial))
    number = duo.us.open_stream()
    duo.us.write_stream(number, b"before")
    names = [duo.dial(add=True) for _ in range(3)]
    duo.settle()
    for name in names[:2]:
        duo.ours.lose(name)
    window = frame(Type.WINDOW, number, 6, 9999, flags=LISTED)
    numbers = [duo.ours.links[name].number for name in names]
    opened = 0 if not duo.second.opened[0] else 1
    state = [frame(Type.STATE, 1, opened, lost) for lost in numbers[:2]]
    assert attack(duo, window) is None
    assert attack(duo, window, state[1], name=names[2]) is None
    assert attack(duo, state[0]) is None


def test_a_carrier_that_the_server_says_is_lost_is_not_attached() -> None:
    """STATE comes over another link, and faster than the server's ATTACH."""
    duo = admitted(Duo(True))
    stream = duo.us.open_stream()
    duo.settle()
    added = duo.dial(add=True)
    duo.carry_to_second(added)
    attach = duo.second.take(duo.theirs[added])
    duo.second.lose(duo.theirs[added])
    duo.carry_to_ours(0)
    duo.ours.receive(added, attach)
    assert duo.ours.links[added].lost
    duo.us.write_stream(stream, b"goes on")
    duo.settle()
    assert duo.second.streams[stream].got == b"goes on"
