"""Reading from and sending to many sockets in one call."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator

import pytest

from dtp.core import Buffer, ReadySet, accept, dial, scatter, sockets_supported

pytestmark = pytest.mark.skipif(not sockets_supported(), reason="this system has no epoll")
BUFFER = Buffer(1 << 20)


@pytest.fixture
def pairs() -> Iterator[list[tuple[socket.socket, socket.socket]]]:
    """Five pairs of connected sockets; the first of each is ours, and doesn't block."""
    made = [socket.socketpair() for _ in range(5)]
    for ours, _ in made:
        ours.setblocking(False)
    yield made
    for pair in made:
        for one in pair:
            one.close()


def gathered(ready: ReadySet, piece: int = 1000) -> dict[int, bytes | int]:
    """By descriptor what came: bytes, or what ended it."""
    found: dict[int, bytes | int] = {}
    at = 0
    for fd, size in ready.gather(BUFFER, piece):
        assert fd not in found
        found[fd] = bytes(BUFFER.view[at : at + size]) if size > 0 else size
        at += max(size, 0)
    return found


def test_all_that_is_ready_comes_at_once(pairs: list[tuple[socket.socket, socket.socket]]) -> None:
    ready = ReadySet()
    for number, (ours, theirs) in enumerate(pairs):
        ready.add(ours.fileno())
        if number:
            theirs.sendall(bytes([number]) * number)
    expected = {ours.fileno(): bytes([number]) * number for number, (ours, _) in enumerate(pairs) if number}
    assert gathered(ready) == expected
    assert gathered(ready) == {}
    ready.close()


def test_a_piece_at_a_time_and_only_what_there_is_room_for(
    pairs: list[tuple[socket.socket, socket.socket]],
) -> None:
    ready, small = ReadySet(), Buffer(4096)
    for ours, theirs in pairs:
        ready.add(ours.fileno())
        theirs.sendall(bytes(3000))
    assert [size for _, size in ready.gather(small, 1000)] == [1000] * 4
    sizes = [size for _ in range(20) for _, size in ready.gather(small, 1000)]
    assert sum(sizes) == 11_000
    assert max(sizes) == 1000
    ready.close()


def test_ends_and_errors_are_told(pairs: list[tuple[socket.socket, socket.socket]]) -> None:
    ready = ReadySet()
    with socket.create_server(("127.0.0.1", 0)) as server:
        reset = socket.create_connection(server.getsockname())
        other, _ = server.accept()
    other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    other.close()
    pairs[0][1].close()
    for fd in (reset.fileno(), pairs[0][0].fileno()):
        ready.add(fd)
    assert gathered(ready) == {reset.fileno(): -errno.ECONNRESET, pairs[0][0].fileno(): 0}
    ready.remove(reset.fileno())
    reset.close()
    ready.close()


def test_removed_ones_are_left_alone(pairs: list[tuple[socket.socket, socket.socket]]) -> None:
    ready = ReadySet()
    for ours, theirs in pairs[:2]:
        ready.add(ours.fileno())
        theirs.sendall(b"x")
    ready.remove(pairs[0][0].fileno())
    assert gathered(ready) == {pairs[1][0].fileno(): b"x"}
    ready.close()
    with pytest.raises(OSError, match="can't be asked"):
        ready.gather(BUFFER, 1000)
    ready.close()


def test_each_socket_gets_its_spans_in_order(pairs: list[tuple[socket.socket, socket.socket]]) -> None:
    BUFFER.view[:10] = b"0123456789"
    fds = [pairs[number][0].fileno() for number in (0, 1, 0, 2)]
    assert scatter(BUFFER, fds, [0, 3, 6, 1], [3, 2, 4, 1]) is None
    assert [pairs[number][1].recv(100) for number in range(3)] == [b"0126789", b"34", b"1"]


def test_a_socket_that_did_not_take_all_gets_nothing_behind(
    pairs: list[tuple[socket.socket, socket.socket]],
) -> None:
    full, free = pairs[0][0].fileno(), pairs[1][0].fileno()
    big = BUFFER.size
    sent = scatter(BUFFER, [full, free, full, -1], [0, 0, 0, 0], [big, 5, 1, 7])
    assert sent is not None
    assert 0 < sent[0] < big
    assert sent.tolist()[1:] == [5, 0, 0]
    assert len(pairs[1][1].recv(100)) == 5
    pairs[0][0].shutdown(socket.SHUT_WR)
    with pairs[0][1].makefile("rb") as file:
        assert len(file.read()) == sent[0]


def test_a_socket_that_takes_no_more_says_why(pairs: list[tuple[socket.socket, socket.socket]]) -> None:
    pairs[0][1].close()
    sent = scatter(BUFFER, [pairs[0][0].fileno(), pairs[1][0].fileno()], [0, 0], [1, 1])
    assert sent is not None
    assert sent.tolist() == [-errno.EPIPE, 1]


def test_many_spans_of_few_sockets_stay_in_order(pairs: list[tuple[socket.socket, socket.socket]]) -> None:
    """More spans than are looked at ahead, of sockets that alternate."""
    count = 1000
    BUFFER.view[: 4 * count] = b"".join(number.to_bytes(4) for number in range(count))
    fds = [pairs[number % 3][0].fileno() for number in range(count)]
    assert scatter(BUFFER, fds, range(0, 4 * count, 4), [4] * count) is None
    for which in range(3):
        expected = b"".join(number.to_bytes(4) for number in range(which, count, 3))
        assert pairs[which][1].recv(4 * count) == expected


def test_very_many_that_take_nothing_leave_the_rest_to_the_caller() -> None:
    made = [socket.socketpair() for _ in range(70)]
    for ours, _ in made:
        ours.setblocking(False)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    fds = [ours.fileno() for ours, _ in made]
    sent = scatter(BUFFER, fds, [0] * 70, [BUFFER.size] * 70)
    assert sent is not None
    assert all(0 < one < BUFFER.size for one in sent[:64])
    assert sent.tolist()[64:] == [0] * 6
    for pair in made:
        for one in pair:
            one.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_port_of_this_machine_is_reached_at_once_and_all_who_wait_are_taken(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    address = socket.inet_pton(family, host)
    with socket.create_server((host, 0), family=family) as server:
        server.setblocking(False)
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        assert accept(server, 10) == []
        made = [dial(address, server.getsockname()[1]) for _ in range(3)]
        found = accept(server, 2) + accept(server, 2)
        assert accept(server, 2) == []
        assert len(found) == 3
        for number, (ours, theirs) in enumerate(zip(made, found, strict=True)):
            assert ours is not None
            with ours, theirs:
                for one in (ours, theirs):
                    assert one.family == family
                    assert one.gettimeout() == 0
                    assert not one.get_inheritable()
                    assert one.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                ours.send(bytes([number]))
                assert theirs.recv(10) == bytes([number])
        port = server.getsockname()[1]
    with pytest.raises(ConnectionRefusedError):
        dial(address, port)


@pytest.mark.parametrize("name", [b"reno", None, b"no such thing"])
def test_a_connection_has_the_congestion_control_that_is_asked_for_where_there_is_one(
    name: bytes | None,
) -> None:
    option, size = socket.TCP_CONGESTION, 16
    with socket.create_server(("127.0.0.1", 0)) as server:
        usual = server.getsockopt(socket.IPPROTO_TCP, option, size)
        sock = dial(bytes([127, 0, 0, 1]), server.getsockname()[1], name)
        assert sock is not None
        with sock:
            found = sock.getsockopt(socket.IPPROTO_TCP, option, size)
            assert found == (usual if name != b"reno" else b"reno".ljust(len(found), b"\0"))


def test_what_can_not_be_dialled_or_accepted_is_an_error() -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        dial(b"12345", 80)
    with socket.socket() as idle, pytest.raises(OSError, match="Invalid argument"):
        accept(idle, 1)


def test_a_connect_that_takes_time_is_not_waited_for() -> None:
    """Its SYN is not answered, since the queue of the server is full."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        made = []
        for _ in range(4):
            sock = dial(bytes([127, 0, 0, 1]), server.getsockname()[1])
            if sock is None:
                break
            made.append(sock)
        assert 1 <= len(made) < 4
        for sock in made:
            sock.close()


def test_whoever_has_ended_before_it_is_taken_is_closed_unread_where_that_is_asked_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)

        def come(*data: bytes) -> socket.socket:
            guest = socket.create_connection(server.getsockname())
            for each in data:
                guest.sendall(each)
            return guest

        half, reset, silent, gone = come(b"DTP"), come(), come(), come(b"DTP")
        half.shutdown(socket.SHUT_WR)
        reset.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, 0, 0, 0, 0, 0, 0, 0]))
        reset.close()
        gone.close()
        (found,) = accept(server, 10, 10)
        with half, silent, found:
            assert found.getpeername() == silent.getsockname()
            half.settimeout(5)
            with pytest.raises(ConnectionResetError):  # what it said was not read
                half.recv(1)
            for _ in range(3):
                come().close()
            assert accept(server, 10, 2) == []  # so many at a time
            assert accept(server, 10, 2) == []
            with come() as again:
                again.shutdown(socket.SHUT_WR)
                (found,) = accept(server, 10)  # it may wait for all that a server says, of other protocols
                found.close()
