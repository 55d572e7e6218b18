"""The states of a stream's directions, as docs/wire.md has them, at both ends of a pair of sessions."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dtp.session.codes import ProtocolError
from dtp.session.session import Session
from dtp.session.streams import ReceiveHalf
from dtp.testing.pairs import SessionPair

WIRE = Path(__file__).parents[2] / "docs" / "wire.md"


def documented(end: str) -> list[str]:
    """The states in the table of one end, in their order."""
    table = WIRE.read_text().partition(f"| at the {end} |")[2].partition("\n\n")[0]
    return re.findall(r"^\| ([A-Z ]+) \|", table, re.MULTILINE)


def sending(session: Session, stream_id: int) -> str:
    stream = session.streams.by_id.get(stream_id)
    if stream is None:
        return "forgotten"
    send = stream.send
    if send.done:
        return "ACKNOWLEDGED"
    if send.reset_code is not None:
        return "RESET"
    return "FINISHED" if send.told_end else "OPEN"


def state_of(receive: ReceiveHalf) -> str:
    if receive.ended:
        return "ENDED"
    return "OPEN" if receive.final is None else "FINAL KNOWN"


def receiving(session: Session, stream_id: int) -> str:
    stream = session.streams.by_id.get(stream_id)
    return "forgotten" if stream is None else state_of(stream.receive)


class Direction:
    """What a client sends on a stream of its own, and its server takes, by turns."""

    def __init__(self) -> None:
        self.pair = SessionPair()
        self.id = self.pair.client.open_stream()
        self.pair.client.write_stream(self.id, b"data")
        self.pair.settle()

    def states(self) -> tuple[str, str]:
        return sending(self.pair.client, self.id), receiving(self.pair.server, self.id)

    def send(self) -> None:
        """Have the server take what the client has to send, and keep its answer back."""
        wire = self.pair.wires[0]
        self.pair.seal(wire, client=True)
        self.pair.deliver(wire, 10_000, client=False)


@pytest.mark.parametrize("how", ["finished", "reset", "stopped", "finished and stopped"])
def test_a_direction_goes_from_state_to_state(how: str) -> None:
    one = Direction()
    pair = one.pair
    assert one.states() == ("OPEN", "OPEN")
    if how.startswith("finished"):
        pair.client.finish_stream(one.id)
        assert one.states() == ("OPEN", "OPEN")  # nothing was sent yet
        if how == "finished":
            one.send()
            assert one.states() == ("FINISHED", "ENDED")
        else:
            pair.seal(pair.wires[0], client=True)
            assert one.states() == ("FINISHED", "OPEN")
    if how == "reset":
        pair.client.reset_stream(one.id, 7)
        assert one.states() == ("RESET", "OPEN")
        one.send()
        assert one.states() == ("RESET", "ENDED")
    if "stopped" in how:
        pair.server.stop_stream(one.id, 7)
        assert one.states()[1] == "OPEN"
        pair.seal(pair.wires[0], client=False)
        pair.deliver(pair.wires[0], 10_000, client=True)
        assert one.states() == ("RESET", "OPEN")
    pair.settle()
    pair.pass_time(1.0)
    pair.settle()
    assert one.states() == ("ACKNOWLEDGED", "ENDED")
    pair.server.finish_stream(one.id)
    pair.settle()
    pair.pass_time(1.0)
    pair.settle()
    assert one.states() == ("forgotten", "forgotten")
    assert pair.client.ended is pair.server.ended is None


@pytest.mark.parametrize("reset", [False, True])
def test_what_comes_out_of_order_has_its_end_known_before_it_is_there(reset: bool) -> None:
    half = ReceiveHalf(4096, 4096, 64)
    assert half.receive_piece(2, b"cd", fin=True) == ([], 4)
    assert state_of(half) == "FINAL KNOWN"
    with pytest.raises(ProtocolError, match="contradicts its end"):
        half.receive_piece(4, b"e", fin=False)
    if reset:
        assert half.end_by_reset(4) == 4
    else:
        assert half.receive_piece(0, b"ab", fin=False) == ([b"ab", b"cd"], 0)
    assert state_of(half) == "ENDED"
    assert half.acked == 5
    assert half.receive_piece(0, b"ab", fin=False) == ([], 0)


def test_no_state_is_missing_in_the_tables() -> None:
    assert documented("sender") == ["OPEN", "FINISHED", "RESET", "ACKNOWLEDGED"]
    assert documented("receiver") == ["OPEN", "FINAL KNOWN", "ENDED"]
