"""Blocking sockets over DTP behave as Python's own over TCP, and the standard library runs on them.

Threads are joined, never waited for by the clock; a timeout of `PATIENCE` only ends a test that would hang.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import select
import socket as stdlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

import dtp
from dtp.errors import LocalError
from dtp.session.codes import CloseCode, StreamClosed
from dtp.session.limits import DEFAULT, MIB
from dtp.socket import (
    NoSuchOption,
    Server,
    Socket,
    SocketClosed,
    TimedOut,
    WouldBlock,
    create_connection,
    create_server,
)

ME = dtp.Identity(bytes(range(32)))
PATIENCE = 60.0


@pytest.fixture
def server() -> Iterator[Server]:
    with create_server("tcp://127.0.0.1:0", identity=ME) as listening:
        listening.settimeout(PATIENCE)
        yield listening


@pytest.fixture
def pair(server: Server) -> Iterator[tuple[Socket, Socket]]:
    with create_connection(server.address, timeout=PATIENCE) as near:
        far, _ = server.accept()
        far.settimeout(PATIENCE)
        with far:
            yield near, far


@contextlib.contextmanager
def beside(work: Callable[[], object]) -> Iterator[None]:
    """Run `work` in a thread meanwhile; what it raises is raised here."""
    failures: list[BaseException] = []

    def body() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - handed on below
            failures.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    yield
    thread.join(PATIENCE)
    assert not thread.is_alive()
    if failures:
        raise failures[0]


def for_ever(work: Callable[[], object]) -> NoReturn:
    """Until it raises."""
    while True:
        work()


def read_all(sock: Any, size: int = 65536) -> bytes:
    parts = []
    while part := sock.recv(size):
        parts.append(part)
    return b"".join(parts)


# ---- the same as over TCP -------------------------------------------------------------------------------

OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.binary(max_size=300)),
        st.tuples(st.just("recv_into"), st.integers(1, 200)),
        st.tuples(st.just("read"), st.integers(0, 200)),
        st.tuples(st.just("readline"), st.none()),
        st.tuples(st.just("shutdown"), st.none()),
    ),
    max_size=12,
)


def play(near: Any, far: Any, operations: list[tuple[str, Any]]) -> list[object]:
    """What `near` writes, `far` reads, by itself and by a file; never more than was sent unless the end was, too."""
    results: list[object] = []
    sent, ended = bytearray(), False
    with far.makefile("rb") as file:
        for name, argument in operations:
            if name == "send":
                if ended:
                    with pytest.raises(OSError):  # noqa: PT011 - EPIPE there, StreamClosed here
                        near.sendall(argument)
                else:
                    near.sendall(argument)
                    sent += argument
            elif name == "shutdown" and not ended:
                near.shutdown(stdlib.SHUT_WR)
                ended = True
            elif name == "read" and (ended or len(sent) >= argument):
                results.append(file.read(argument))
                del sent[:argument]
            elif name == "readline" and (ended or b"\n" in sent):
                results.append(file.readline())
                del sent[: len(results[-1])]  # type: ignore[arg-type]
            elif name == "recv_into" and ended:
                results.append(file.readinto(bytearray(argument)))
                del sent[:argument]
        if not ended:
            near.shutdown(stdlib.SHUT_WR)
        results.append(file.read())
        results.append(file.read())
    far.sendall(b"goodbye")
    far.shutdown(stdlib.SHUT_WR)
    results.append(read_all(near))
    results.append(near.recv(1))
    return results


@pytest.fixture(scope="module")
def lasting_server() -> Iterator[Server]:
    with create_server("tcp://127.0.0.1:0", identity=ME) as listening:
        listening.settimeout(PATIENCE)
        yield listening


@given(operations=OPERATIONS)
def test_the_same_results_as_over_tcp(lasting_server: Server, operations: list[tuple[str, Any]]) -> None:
    with (
        stdlib.create_server(("127.0.0.1", 0)) as listening,
        stdlib.create_connection(listening.getsockname()) as near,
        listening.accept()[0] as far,
    ):
        expected = play(near, far, operations)
    with create_connection(lasting_server.address, PATIENCE) as near, lasting_server.accept()[0] as far:
        far.settimeout(PATIENCE)
        assert play(near, far, operations) == expected


# ---- moving bytes ---------------------------------------------------------------------------------------


def test_bytes_of_every_kind_arrive(pair: tuple[Socket, Socket]) -> None:
    near, far = pair
    near.sendall(b"bytes ")
    changing = bytearray(b"bytearray ")
    near.sendall(changing)
    changing[:] = b"x" * 10  # after `sendall` the memory is the caller's again
    near.sendall(memoryview(b"..view ")[2:])
    assert near.send(memoryview(bytearray(b"send"))) == 4
    near.sendall(b"")
    assert near.send(b"") == 0
    near.shutdown(stdlib.SHUT_WR)
    assert read_all(far, 3) == b"bytes bytearray view send"
    assert far.recv(10) == b""
    assert far.recv(0) == b""


def test_recv_into_fills_what_it_may(pair: tuple[Socket, Socket]) -> None:
    near, far = pair
    near.sendall(b"0123456789")
    buffer = bytearray(6)
    assert far.recv_into(buffer, 4) == 4
    assert buffer == b"0123\0\0"
    assert far.recv_into(memoryview(buffer)[2:]) == 4
    assert buffer == b"014567"
    assert far.recv_into(bytearray()) == 0
    assert far.recv_into(buffer) == 2
    with pytest.raises(LocalError, match="nbytes"):
        far.recv_into(buffer, 7)
    with pytest.raises(LocalError, match="size"):
        far.recv(-1)
    with pytest.raises(LocalError, match="flags"):
        far.recv(1, stdlib.MSG_PEEK)


@pytest.mark.parametrize(
    "limits", [DEFAULT, replace(DEFAULT, stream_window=20_000, write_high=0, write_low=0)]
)
def test_much_both_ways_at_once(limits: dtp.Limits) -> None:
    data = os.urandom(1024) * 8 * 1024
    with (
        create_server("tcp://127.0.0.1:0", identity=ME, limits=limits) as server,
        create_connection(server.address, PATIENCE, limits=limits) as near,
        server.accept()[0] as far,
    ):

        def echo() -> None:
            while part := far.recv(100_000):
                far.sendall(part)
            far.shutdown(stdlib.SHUT_WR)

        def write() -> None:
            near.sendall(data)
            near.shutdown(stdlib.SHUT_WR)

        with beside(echo), beside(write):
            assert read_all(near, MIB) == data


def test_sendall_waits_for_a_slow_reader_and_memory_stays_bounded(pair: tuple[Socket, Socket]) -> None:
    near, far = pair
    near.settimeout(0.2)
    sent = 0

    def send() -> None:
        nonlocal sent
        sent += near.send(bytes(65536))

    with pytest.raises(TimedOut):
        for_ever(send)
    # Bytes wait for: this side's thread, its transport, the peer's transport, its socket.
    assert sent <= MIB + 2 * DEFAULT.write_high + DEFAULT.stream_window + 2 * MIB
    near.settimeout(PATIENCE)
    with beside(lambda: near.shutdown(stdlib.SHUT_WR)):
        assert len(read_all(far, MIB)) == sent


def test_any_thread_may_use_any_socket(server: Server) -> None:
    def echo() -> None:
        for _ in range(20):
            sock, _ = server.accept()
            sock.settimeout(PATIENCE)
            with sock:
                sock.sendall(read_all(sock))

    def talk(number: int) -> None:
        with create_connection(server.address, PATIENCE) as sock:
            sock.sendall(number.to_bytes(2) * 30_000)
            sock.shutdown(stdlib.SHUT_WR)
            assert read_all(sock) == number.to_bytes(2) * 30_000

    with contextlib.ExitStack() as threads:
        threads.enter_context(beside(echo))
        for number in range(20):
            threads.enter_context(beside(lambda number=number: talk(number)))


# ---- timeouts -------------------------------------------------------------------------------------------


def test_a_timeout_loses_nothing(pair: tuple[Socket, Socket]) -> None:
    near, far = pair
    near.settimeout(0.01)
    assert near.gettimeout() == near.timeout == 0.01
    assert near.getblocking()
    for _ in range(3):
        with pytest.raises(TimeoutError) as caught:
            near.recv(10)
        assert isinstance(caught.value, TimedOut)
        assert isinstance(caught.value, stdlib.timeout)
    far.sendall(b"late")
    near.settimeout(PATIENCE)
    assert near.recv(10) == b"late"
    with pytest.raises(LocalError, match="timeout"):
        near.settimeout(-1)


def test_without_blocking(pair: tuple[Socket, Socket]) -> None:
    near, far = pair
    near.setblocking(False)
    assert near.gettimeout() == 0
    assert not near.getblocking()
    with pytest.raises(BlockingIOError) as caught:
        near.recv(10)
    assert isinstance(caught.value, WouldBlock)
    assert caught.value.errno == errno.EAGAIN
    with near.makefile("rb") as file:
        assert file.read(10) is None
    with pytest.raises(WouldBlock):
        for_ever(lambda: near.send(bytes(65536)))
    near.setblocking(True)
    assert near.gettimeout() is None
    far.sendall(b"x")
    assert near.recv(10) == b"x"


def test_connecting_times_out() -> None:
    with stdlib.create_server(("127.0.0.1", 0)) as deaf:
        port = deaf.getsockname()[1]
        with pytest.raises(TimedOut):
            create_connection(f"dtp+tcp://{ME.id}@127.0.0.1:{port}", timeout=0.05)


def test_accepting_times_out(server: Server) -> None:
    server.settimeout(0.01)
    assert server.gettimeout() == 0.01
    with pytest.raises(TimedOut):
        server.accept()
    server.settimeout(0)
    with pytest.raises(WouldBlock):
        server.accept()


# ---- files ----------------------------------------------------------------------------------------------


def test_files_of_every_mode(pair: tuple[Socket, Socket]) -> None:
    near, far = pair
    with (
        near.makefile("w", encoding="utf-8", newline="\n") as out,
        far.makefile("r", encoding="utf-8") as lines,
    ):
        assert out.mode == "w"
        out.write("första\nandra\n")
        out.flush()
        assert [next(lines), next(lines)] == ["första\n", "andra\n"]
    with near.makefile("rwb") as both, far.makefile("rwb", buffering=0) as raw:
        assert isinstance(both, io.BufferedRWPair)
        assert isinstance(raw, io.RawIOBase)
        both.write(b"question")
        both.flush()
        assert raw.read(100) == b"question"
        assert raw.write(b"answer\n") == 7
        assert both.readline() == b"answer\n"
    with near.makefile("wb", buffering=10) as out:
        assert isinstance(out, io.BufferedWriter)
        with pytest.raises(io.UnsupportedOperation):
            out.raw.readinto(bytearray(1))
    assert isinstance(near.makefile(), io.TextIOWrapper)
    with pytest.raises(LocalError, match="mode"):
        near.makefile("a")
    with pytest.raises(LocalError, match="binary"):
        near.makefile("r", buffering=0)


def test_files_keep_the_socket_open(pair: tuple[Socket, Socket]) -> None:
    near, far = pair
    file = near.makefile("rb")
    near.close()
    with pytest.raises(SocketClosed):
        near.recv(1)
    far.sendall(b"still read")
    assert file.read(10) == b"still read"
    file.close()
    assert far.recv(1) == b""
    with pytest.raises(ValueError, match="closed file"):
        file.read(1)


def test_a_file_that_timed_out_is_not_read_on_as_for_pythons_sockets(pair: tuple[Socket, Socket]) -> None:
    near, _ = pair
    near.settimeout(0.01)
    with near.makefile("rb") as file:
        with pytest.raises(TimeoutError):
            file.read(1)
        with pytest.raises(OSError, match="timed out object"):
            file.read(1)


# ---- the end --------------------------------------------------------------------------------------------


def test_shutdown_of_each_direction(pair: tuple[Socket, Socket]) -> None:
    near, far = pair
    near.shutdown(stdlib.SHUT_WR)
    with pytest.raises(StreamClosed):
        near.sendall(b"x")
    assert far.recv(1) == b""
    far.sendall(b"answer")
    assert near.recv(10) == b"answer"
    near.shutdown(stdlib.SHUT_RD)
    assert near.recv(10) == b""
    with pytest.raises(LocalError, match="SHUT_RD"):
        near.shutdown(3)
    # The peer hears that nobody reads; until then what it sends is dropped here.
    with pytest.raises(dtp.StreamReset) as caught:
        for_ever(lambda: far.sendall(bytes(65536)))
    assert caught.value.stopped


def test_shutdown_wakes_a_thread_that_reads(pair: tuple[Socket, Socket]) -> None:
    near, _ = pair
    received: list[bytes] = []
    with beside(lambda: received.append(near.recv(1))):
        near.shutdown(stdlib.SHUT_RDWR)
    assert received == [b""]


def test_close_wakes_a_thread_that_reads(pair: tuple[Socket, Socket]) -> None:
    near, _ = pair

    def read() -> None:
        with pytest.raises(SocketClosed):
            near.recv(1)

    with beside(read):
        near.close()


def test_what_was_sent_before_close_arrives(server: Server) -> None:
    near = create_connection(server.address, PATIENCE)
    far, _ = server.accept()
    with far, beside(lambda: (near.sendall(b"x" * 20 * MIB), near.close())):
        assert len(read_all(far, MIB)) == 20 * MIB
        with pytest.raises(ConnectionResetError):
            for_ever(lambda: far.sendall(b"is anybody there?"))


def test_a_closed_socket_says_so(pair: tuple[Socket, Socket]) -> None:
    near, far = pair
    assert repr(near).startswith("<dtp.socket.Socket to dtp1")
    near.close()
    near.close()
    assert repr(near) == "<dtp.socket.Socket closed>"
    for call in (
        lambda: near.recv(1),
        lambda: near.recv_into(bytearray(1)),
        lambda: near.sendall(b"x"),
        lambda: near.makefile(),
        near.getpeername,
        lambda: near.shutdown(stdlib.SHUT_WR),
    ):
        with pytest.raises(SocketClosed) as caught:
            call()
        assert caught.value.errno == errno.EBADF
    assert near.fileno() == -1
    assert near.peer_name == str(ME.id)
    assert far.recv(1) == b""


def test_errors_have_the_names_that_programs_catch(server: Server) -> None:
    near = create_connection(server.address, PATIENCE)
    far, _ = server.accept()
    with near, far:
        far._pipe.thread.call_in_loop(far.connection.abort, CloseCode.DENIED, "enough")
        with pytest.raises(ConnectionResetError) as caught:
            near.recv(1)
        assert isinstance(caught.value, dtp.ConnectionClosed)
        assert caught.value.reason == "enough"
        with pytest.raises(dtp.ConnectionClosed):
            near.sendall(b"x")
    with pytest.raises(dtp.ConnectionRefused, match="UNKNOWN_SERVICE"):
        create_connection(replace(server.address, service="elsewhere"))
    with pytest.raises(dtp.WrongIdentity):
        create_connection(replace(server.address, peer=dtp.Identity.generate().id))


def test_a_forgotten_socket_is_closed_with_a_warning(server: Server) -> None:
    near = create_connection(server.address, PATIENCE)
    far, _ = server.accept()
    with far:
        with pytest.warns(ResourceWarning, match="unclosed <dtp.socket.Socket"):
            del near
        assert far.recv(1) == b""


def test_blocking_in_the_loops_own_thread_is_refused(pair: tuple[Socket, Socket]) -> None:
    near, _ = pair
    errors: list[BaseException] = []
    done = threading.Event()

    def blocking() -> None:
        try:
            near.recv(1)
        except LocalError as error:
            errors.append(error)
        done.set()

    near._pipe.thread.call_in_loop(blocking)
    assert done.wait(PATIENCE)
    assert "own thread" in str(errors[0])


# ---- servers --------------------------------------------------------------------------------------------


def test_who_is_there(server: Server) -> None:
    me = dtp.Identity.generate()
    with create_connection(server.address, PATIENCE, identity=me) as near:
        far, address = server.accept()
        with far:
            assert address == far.getpeername() == (str(me.id), 0)
            assert near.getpeername() == (str(ME.id), 0)
            assert far.connection.peer == me.id
            assert server.getsockname() == (str(ME.id), 0)
            assert str(server.address) in repr(server)


def test_services_by_name() -> None:
    with create_server("tcp://127.0.0.1:0", identity=ME, service="one") as server:
        assert server.addresses[0].service == "one"
        with create_connection(server.address, PATIENCE) as near, server.accept()[0] as far:
            near.sendall(b"x")
            assert far.recv(1) == b"x"
            assert far.connection.service == "one"


def test_accepted_sockets_outlive_their_server(server: Server) -> None:
    with create_connection(server.address, PATIENCE) as near, server.accept()[0] as far:
        far.settimeout(PATIENCE)
        server.close()
        server.close()
        assert repr(server) == "<dtp.socket.Server closed>"
        near.sendall(b"still here")
        assert far.recv(100) == b"still here"


def test_close_wakes_a_thread_that_accepts(server: Server) -> None:
    def accept() -> None:
        with pytest.raises(SocketClosed):
            server.accept()

    with beside(accept):
        server.close()


def test_more_streams_than_the_backlog_are_reset() -> None:
    with (
        create_server("tcp://127.0.0.1:0", identity=ME, backlog=1) as server,
        create_connection(server.address, PATIENCE) as first,
    ):
        with pytest.raises(ConnectionResetError), create_connection(server.address, PATIENCE) as second:
            second.recv(1)
        first.sendall(b"waited")
        with server.accept()[0] as far:
            assert far.recv(100) == b"waited"


def test_what_nobody_accepted_is_reset_when_the_server_closes() -> None:
    with create_server("tcp://127.0.0.1:0", identity=ME) as server:
        near = create_connection(server.address, PATIENCE)
    with near, pytest.raises(ConnectionResetError):
        near.recv(1)


def test_select_sees_what_can_be_read_and_accepted(server: Server) -> None:
    def ready(what: Any, timeout: float) -> bool:
        return bool(select.select([what], [], [], timeout)[0])

    assert not ready(server, 0)
    with create_connection(server.address, PATIENCE) as near:
        assert ready(server, PATIENCE)
        with server.accept()[0] as far:
            assert not ready(server, 0)
            assert not ready(far, 0)
            near.sendall(b"ab")
            assert ready(far, PATIENCE)
            assert far.recv(1) == b"a"
            assert ready(far, 0)
            assert far.recv(1) == b"b"
            assert not ready(far, 0)
            near.shutdown(stdlib.SHUT_WR)
            assert ready(far, PATIENCE)
            assert far.recv(1) == b""
            assert ready(far, 0)
    server.close()
    assert server.fileno() == -1


def test_options(pair: tuple[Socket, Socket]) -> None:
    near, _ = pair
    near.setsockopt(stdlib.IPPROTO_TCP, stdlib.TCP_NODELAY, 1)
    near.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_KEEPALIVE, 1)
    with pytest.raises(NoSuchOption) as caught:
        near.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_RCVBUF, 1)
    assert caught.value.errno == errno.ENOPROTOOPT
