"""`dtp serve`, `cat`, `ping`, `send`, `recv` and `demo` as people run them: real processes over loopback."""

import contextlib
import hashlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from click.testing import CliRunner

from dtp.cli import main, transfer
from dtp.identity import Identity, PeerId
from dtp.net.address import Address


def content(size, seed=b""):
    return hashlib.shake_128(seed).digest(size)


def error_of(program):
    """The error that a command with --json printed."""
    return json.loads(program.errors.splitlines()[-1])["error"]


# --- cat and echo.


def test_cat_both_ways_with_half_close(dtp, serve):
    _, address = serve("--echo")
    cat = dtp("cat", address["echo"])
    cat.stdin.write(b"one\n")
    cat.stdin.flush()
    assert cat.line() == "one"  # before the input has ended
    cat.stdin.write(b"two\n")
    assert cat.wait() == b"two\n"  # wait() ends the input, and the echo still comes


def test_cat_is_binary_clean_and_both_directions_run_at_once(dtp, serve):
    _, address = serve("--echo")
    data = content(8 << 20)
    cat = dtp("cat", address["echo"])
    writer = threading.Thread(target=lambda: (cat.stdin.write(data), cat.stdin.close()))
    writer.start()
    assert cat.stdout.read(len(data) + 1) == data
    writer.join()
    cat.wait()


def test_the_first_service_is_the_default_one(dtp, serve):
    _, address = serve("--echo", "--exec", "up=tr a-z A-Z")
    bare = str(Address.parse(address["echo"]).with_service(""))
    cat = dtp("cat", bare)
    cat.stdin.write(b"x")
    assert cat.wait() == b"x"


def test_output_that_nobody_reads_ends_cat_quietly(dtp, serve, tmp_path):
    _, address = serve("--exec", "yes")
    cat = dtp("cat", address["exec"])
    assert cat.line() == "y"
    cat.stdout.close()
    assert cat.process.wait(60) == 0  # though its input is still open
    cat.wait(0)
    assert cat.errors == b""


def test_cat_ends_when_the_peer_has_finished_though_input_has_not(dtp, serve):
    _, address = serve("--exec", "echo done")
    cat = dtp("cat", address["exec"])
    assert cat.line() == "done"
    assert cat.process.wait(60) == 0
    cat.wait()


# --- exec.


def test_exec_gets_input_and_gives_output(dtp, serve):
    _, address = serve("--exec", "sum=sha256sum")
    cat = dtp("cat", address["sum"])
    data = content(3 << 20)
    cat.stdin.write(data)
    assert cat.wait().split()[0].decode() == hashlib.sha256(data).hexdigest()


def test_exec_tells_who_is_calling(dtp, serve, home):
    me = Identity.generate()
    me.save(home.parent / "me.pem")
    _, address = serve("--exec", "who=sh -c 'echo $DTP_PEER $DTP_SERVICE'")
    assert dtp("cat", "-i", home.parent / "me.pem", address["who"]).wait().decode() == f"{me.id} who\n"


def test_the_exit_status_comes_back_behind_all_output(dtp, serve):
    _, address = serve("--exec", "sh -c 'head -c 300000 /dev/zero; exit 3'")
    cat = dtp("cat", "--json", address["exec"])
    assert len(cat.wait(4)) == 300_000
    assert "(code 3): exit status 3" in error_of(cat)["message"]


def test_a_program_that_a_signal_ends(dtp, serve):
    _, address = serve("--exec", "sh -c 'kill -9 $$'")
    cat = dtp("cat", "--json", address["exec"])
    cat.wait(4)
    assert "exit status 137" in error_of(cat)["message"]


def test_a_program_that_writes_without_end_ends_with_its_client_and_leaves_nothing(dtp, serve):
    server, address = serve("--exec", "yes", "--echo")
    with open("/dev/zero", "rb") as zeros:
        for cat in (dtp("cat", address["exec"]), dtp("cat", address["echo"], stdin=zeros)):
            assert cat.stdout.read(100_000)
            cat.signal(signal.SIGTERM)
            cat.wait(143)
    server.end_input()
    server.wait()
    assert b"Traceback" not in server.errors


def test_a_program_that_can_not_be_started_any_more(dtp, serve, tmp_path):
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o700)
    server, address = serve("--exec", str(program))
    program.unlink()
    cat = dtp("cat", address["exec"])
    cat.wait(4)
    assert b"can't be started" in cat.errors
    assert "No such file" in server.event("failed")["reason"]


def test_a_program_ends_with_its_client(dtp, serve, tmp_path):
    """What it started reads a pipe that we hold, and would read for ever."""
    os.mkfifo(tmp_path / "fifo")
    server, address = serve("--exec", f"sh -c 'echo here; cat {tmp_path}/fifo'")
    cat = dtp("cat", address["exec"])
    assert cat.line() == "here"
    with open(tmp_path / "fifo", "wb", buffering=0) as fifo:  # waits until the program has opened it
        cat.signal(signal.SIGINT)
        cat.wait(130)
        with contextlib.suppress(BrokenPipeError):
            while fifo.write(bytes(65536)):
                pass  # until nobody reads any more; else for ever, and the watchdog ends the server
    assert server.process.poll() is None


# --- forward.


class Hello(BaseHTTPRequestHandler):
    """A tiny HTTP server."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[::-1])

    def log_message(self, *_):
        pass


def test_forward_to_an_http_server(dtp, serve, tmp_path):
    with HTTPServer(("127.0.0.1", 0), Hello) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        _, address = serve("--forward", f"web=127.0.0.1:{server.server_port}")
        cat = dtp("cat", address["web"])
        body = content(100_000)
        cat.stdin.write(
            b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 100000\r\n\r\n" + body
        )
        answer = cat.wait()
        server.shutdown()
        thread.join()
    head, _, rest = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.0 200 ")
    assert rest == body[::-1]


def test_forward_to_a_unix_socket_with_half_close(dtp, serve, tmp_path):
    """The server answers only when it has seen the end of what came."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()

        def answer():
            connection, _ = listener.accept()
            with connection, connection.makefile("rb") as file:
                connection.sendall(str(len(file.read())).encode())

        thread = threading.Thread(target=answer)
        thread.start()
        _, address = serve("--forward", f"unix:{tmp_path}/s")
        cat = dtp("cat", address["forward"])
        cat.stdin.write(bytes(1_000_000))
        assert cat.wait() == b"1000000"
        thread.join()


def test_forward_to_nobody(dtp, serve):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        server, address = serve("--forward", f"127.0.0.1:{unused.getsockname()[1]}")
        cat = dtp("cat", "--json", address["forward"])
        cat.wait(4)
    assert "behind this one can't be reached" in error_of(cat)["message"]
    assert server.event("unreachable")["service"] == "forward"


# --- Who may, and who is it.


def test_only_those_who_are_allowed(dtp, serve, tmp_path):
    friend, stranger = Identity.generate(), Identity.generate()
    friend.save(tmp_path / "friend.pem")
    stranger.save(tmp_path / "stranger.pem")
    _, address = serve("--echo", "--allow", friend.id)
    cat = dtp("cat", "-i", tmp_path / "friend.pem", address["echo"])
    cat.stdin.write(b"in")
    assert cat.wait() == b"in"
    refused = dtp("cat", "--json", "-i", tmp_path / "stranger.pem", address["echo"])
    refused.wait(4)
    assert error_of(refused)["code"] == "refused"
    assert f"DENIED: {stranger.id} is not allowed here" in error_of(refused)["message"]


def test_a_wrong_identity_is_told_nothing(dtp, serve):
    server, address = serve("--echo")
    right = str(Address.parse(address["echo"]).peer)
    cat = dtp("cat", "--json", address["echo"].replace(right, str(Identity.generate().id)))
    cat.stdin.write(b"secret")
    assert cat.wait(4) == b""
    assert error_of(cat)["code"] == "wrong-identity"
    server.end_input()
    assert b"connected" not in server.wait()


def test_an_unknown_service(dtp, serve):
    _, address = serve("--echo")
    for command in ("cat", "ping", "recv"):
        program = dtp(command, "--json", str(Address.parse(address["echo"]).with_service("nope")))
        program.wait(4)
        assert "UNKNOWN_SERVICE: no service 'nope' here" in error_of(program)["message"]


@pytest.mark.slow
def test_nobody_there(dtp):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"dtp+tcp://{Identity.generate().id}@127.0.0.1:{unused.getsockname()[1]}"
        for command in (["cat"], ["ping"], ["recv"], ["send", __file__]):
            program = dtp(*command, "--json", address)
            program.wait(5)
            assert error_of(program)["exit_code"] == 5


def test_a_pre_shared_key(dtp, serve, tmp_path):
    for name, key in (("a", "11" * 32), ("b", "22" * 32)):
        (tmp_path / name).write_text(key + "\n")
        (tmp_path / name).chmod(0o600)
    _, address = serve("--echo", "--psk-file", tmp_path / "a")
    cat = dtp("cat", "--psk-file", tmp_path / "a", address["echo"])
    cat.stdin.write(b"in")
    assert cat.wait() == b"in"
    for options, status, code in (
        ((), 5, "closed-in-handshake"),
        (("--psk-file", tmp_path / "b"), 4, "handshake"),
    ):
        program = dtp("cat", "--json", *options, address["echo"])
        program.wait(status)
        assert error_of(program)["code"] == code


def test_an_identity_of_ones_own_is_used_when_there_is_one(dtp, serve, home):
    me = Identity.generate()
    me.save(home / "identity.pem")
    server, address = serve("--echo")
    assert Address.parse(address["echo"]).peer == me.id
    dtp("cat", address["echo"]).wait()
    assert server.event("connected")["peer"] == str(me.id)


# --- ping.


def test_ping_for_programs(dtp, serve):
    _, address = serve("--echo")
    ping = dtp("ping", "--json", "-c", "3", "--interval", "0", address["echo"])
    connected, *pongs, summary = map(json.loads, ping.wait().splitlines())
    assert connected["peer"] == str(Address.parse(address["echo"]).peer)
    assert connected["carrier"].startswith("tcp://127.0.0.1:")
    assert connected["handshake"].startswith("Noise_IK_25519_")
    assert connected["cipher"] in connected["handshake"]
    assert [pong["number"] for pong in pongs] == [1, 2, 3]
    assert summary["count"] == 3
    assert summary["min_ms"] <= summary["p50_ms"] <= summary["max_ms"]
    assert min(pong["rtt_ms"] for pong in pongs) == summary["min_ms"]


def test_ping_until_interrupted_still_sums_up(dtp, serve):
    _, address = serve("--echo")
    ping = dtp("ping", "-c", "0", "--interval", "1000", address["echo"])
    lines = [ping.line() for _ in range(6)]
    assert [line.split()[0] for line in lines] == ["peer", "carrier", "handshake", "cipher", "connected", "1"]
    assert lines[5].endswith(" ms")
    ping.signal(signal.SIGINT)
    assert ping.wait(130).startswith(b"1 round trip: min ")


# --- The end.


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_serve_ends_in_order(dtp, serve, number, code):
    server, address = serve("--echo")
    cat = dtp("cat", "--json", address["echo"])
    cat.stdin.write(b"x")
    cat.stdin.flush()
    assert cat.stdout.read(1) == b"x"
    server.signal(number)
    server.wait(code)
    assert server.errors == b"" or b"Traceback" not in server.errors
    cat.wait(5)  # it may come again
    assert "SHUTDOWN" in error_of(cat)["message"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_cat_ends_in_order(dtp, serve, number, code):
    _, address = serve("--echo")
    cat = dtp("cat", address["echo"])
    cat.stdin.write(b"x")
    cat.stdin.flush()
    assert cat.stdout.read(1) == b"x"
    cat.signal(number)
    cat.process.wait(60)
    cat.wait(code)
    assert cat.errors == b""


def test_serve_ends_when_its_parent_does(serve):
    server, _ = serve("--echo")
    server.end_input()
    server.wait(0)


# --- Unix and WebSocket carriers.


def test_several_carriers(dtp, serve, tmp_path):
    server = dtp(
        *("serve", "--json", "--until-eof", "--echo", "--listen", "tcp://127.0.0.1:0"),
        *("--listen", f"unix://{tmp_path}/dtp.sock", "--listen", "ws://127.0.0.1:0/dtp"),
    )
    addresses = [server.event("listening")["address"] for _ in range(3)]
    assert [address.partition(":")[0] for address in addresses] == ["dtp+tcp", "dtp+unix", "dtp+ws"]
    for address in addresses:
        cat = dtp("cat", address)
        cat.stdin.write(b"x")
        assert cat.wait() == b"x"


@pytest.mark.parametrize("listen", [(), ("--listen", "tcp://127.0.0.1:0")])
def test_who_serves_hears_that_only_this_machine_reaches_it(dtp, home, listen):
    server = dtp("serve", "--json", "--until-eof", "--echo", *listen)
    server.event("listening")
    server.wait()
    assert (b'{"event": "this-machine-only"}' in server.errors) == (not listen)


def test_an_address_that_others_can_reach(dtp):
    server = dtp("serve", "--json", "--until-eof", "--echo", "--listen", "tcp://0.0.0.0:0")
    address = Address.parse(server.event("listening")["address"])
    assert address.host not in ("0.0.0.0", "")
    cat = dtp("cat", str(address))
    cat.stdin.write(b"x")
    assert cat.wait() == b"x"


# --- send and recv.


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "a file.bin"
    path.write_bytes(content(3 << 20))
    return path


@pytest.fixture
def inbox(tmp_path):
    (tmp_path / "inbox").mkdir()
    return tmp_path / "inbox"


def receiver(dtp, inbox, *options):
    program = dtp("recv", "--json", "--until-eof", "--output", inbox, *options)
    return program, program.event("listening")["address"]


def test_send_and_receive(dtp, file, inbox):
    recv, address = receiver(dtp, inbox)
    sent = json.loads(dtp("send", "--json", file, address).wait().splitlines()[-1])
    received = recv.event("received")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert sent["sha256"] == received["sha256"] == digest
    assert sent["size"] == received["size"] == 3 << 20
    assert PeerId.parse(sent["peer"]) == Address.parse(address).peer
    assert (inbox / file.name).read_bytes() == file.read_bytes()
    assert recv.process.wait(60) == 0  # one file, and done


def test_for_people(dtp, file, inbox):
    recv = dtp("recv", "--until-eof", "--output", inbox)
    send = dtp("send", file, recv.line())
    assert send.wait().startswith(b"sent a file.bin: 3.0 MiB in ")
    assert recv.line().startswith(f"received {inbox}/a file.bin: 3.0 MiB in ")
    assert send.errors == b""
    recv.wait()
    assert b"this one is for this run only" in recv.errors


def test_receive_several(dtp, file, inbox):
    recv, address = receiver(dtp, inbox, "--keep")
    for name in ("one", "two"):
        dtp("send", "--name", name, file, address).wait()
        assert recv.event("received")["path"] == str(inbox / name)
    recv.end_input()
    recv.wait(0)


def test_fetch(dtp, serve, file, inbox, tmp_path):
    _, address = serve("--file", tmp_path)
    fetch = dtp("recv", "--json", "-o", inbox / "mine", address["files"] + "/a%20file.bin")
    record = json.loads(fetch.wait().splitlines()[-1])
    assert record["path"] == str(inbox / "mine")
    assert (inbox / "mine").read_bytes() == file.read_bytes()
    for name, words in (
        ("", "this is a folder"),
        ("/inbox", "inbox is a folder; add the name of a file in it"),
        ("/none", "no file none"),
        ("/inbox/../x", "not a file name"),
    ):
        refused = dtp("recv", "--json", address["files"] + name)
        refused.wait(4)
        assert words in error_of(refused)["message"]


def test_services_that_have_no_files_or_want_none(dtp, serve, file, inbox):
    _, address = serve("--echo", "--exec", "talk=yes", "--file", file.parent)
    for arguments, words in (
        (("recv", "-o", inbox, address["echo"]), "gives no file: is it of 'dtp serve --file'? ('get' came"),
        (("recv", "-o", inbox, address["talk"]), "gives no file: is it of 'dtp serve --file'? (a message of"),
        (("send", file, address["echo"]), "takes no file that is sent: is it of 'dtp recv'? ('put' came"),
        (
            ("send", file, address["files"]),
            "takes no file that is sent: is it of 'dtp recv'? (the peer refused",
        ),
    ):
        other = dtp(arguments[0], "--json", *arguments[1:])
        other.wait(4)
        assert error_of(other)["code"] == "other-service"
        assert words in error_of(other)["message"]
    assert os.listdir(inbox) == []


def test_a_service_that_waits_for_ever_is_none_of_files(dtp, serve, inbox, monkeypatch):
    _, address = serve("--exec", "wait=sha256sum")
    monkeypatch.setattr(transfer, "_OFFER", 0.01)
    result = CliRunner().invoke(main, ["recv", "--output", str(inbox), address["wait"]])
    assert result.exit_code == 4
    assert (
        result.stderr
        == "dtp: no answer within 0.01 s; the service gives no file: is it of 'dtp serve --file'?\n"
    )


def test_what_is_there_stays(dtp, serve, file, inbox):
    _, address = serve("--file", f"one={file}")
    (inbox / file.name).write_bytes(b"mine")
    fetch = dtp("recv", "--json", "-o", inbox, address["one"])
    fetch.wait(3)
    assert error_of(fetch)["code"] == "file-exists"
    assert (inbox / file.name).read_bytes() == b"mine"
    dtp("recv", "--force", "-o", inbox, address["one"]).wait()
    assert (inbox / file.name).read_bytes() == file.read_bytes()


def test_a_stranger_does_not_find_the_receiver(dtp, file, inbox):
    recv, address = receiver(dtp, inbox)
    send = dtp("send", "--json", file, str(Address.parse(address).with_service("recv")))
    send.wait(4)
    assert "UNKNOWN_SERVICE" in error_of(send)["message"]
    assert os.listdir(inbox) == []
    recv.end_input()
    recv.wait(0)


BIG = 24 << 20
CUT = 12 << 20


@pytest.fixture
def big(tmp_path):
    path = tmp_path / "big.bin"
    path.write_bytes(content(BIG))
    return path


class Gate:
    """A TCP relay that lets `limit` bytes through towards the receiver and then holds back what comes."""

    def __init__(self, address):
        self.limit, self.port = CUT, Address.parse(address).port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = str(replace(Address.parse(address), port=self._listener.getsockname()[1]))
        self._start(self._accept)

    def _start(self, function, *arguments):
        threading.Thread(target=function, args=arguments, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                try:
                    far = socket.create_connection(("127.0.0.1", self.port))
                except ConnectionRefusedError:
                    near.close()
                    continue
                self._start(self._pump, near, far, self.limit)
                self._start(self._pump, far, near, None)

    def _pump(self, source, sink, limit):
        with contextlib.suppress(OSError), source, sink:
            while limit != 0 and (data := source.recv(65536 if limit is None else min(65536, limit))):
                sink.sendall(data)
                limit = None if limit is None else limit - len(data)
            if limit == 0:  # what comes now stays there, until one of the two is gone
                waiting = select.poll()
                waiting.register(source, select.POLLRDHUP)
                waiting.poll()
            for end in (source, sink):  # also wakes the other direction
                end.shutdown(socket.SHUT_RDWR)

    def close(self):
        self._listener.close()


@pytest.fixture
def gate():
    with contextlib.ExitStack() as stack:
        yield lambda address: stack.enter_context(contextlib.closing(Gate(address)))


def kept_by(recv, inbox):
    """Wait until the receiver has stored some of the file; how much."""
    recv.event("progress", phase="move")
    while recv.process.poll() is None:
        if size := (inbox / "big.bin.dtp-part").stat().st_size:
            return size
        os.sched_yield()
    return 0


@pytest.mark.slow
def test_going_on_after_the_sender_was_killed(dtp, big, inbox, gate):
    recv, address = receiver(dtp, inbox, "--service", "drop")
    send = dtp("send", "--json", big, gate(address).address)
    assert kept_by(recv, inbox) > 0
    send.signal(signal.SIGKILL)
    send.wait(-signal.SIGKILL)
    again = json.loads(dtp("send", "--json", big, address).wait().splitlines()[-1])
    received = recv.event("received")
    assert 0 < again["from"] == received["from"] < CUT
    assert received["sha256"] == hashlib.sha256(big.read_bytes()).hexdigest()
    assert os.listdir(inbox) == ["big.bin"]
    assert (inbox / "big.bin").read_bytes() == big.read_bytes()


@pytest.mark.slow
def test_going_on_after_the_receiver_was_killed(dtp, big, inbox, home, gate):
    """It starts again, and the sender that is still there goes on by itself."""
    Identity.generate().save(home / "identity.pem")
    recv, address = receiver(dtp, inbox, "--service", "drop")
    relay = gate(address)
    send = dtp("send", "--json", big, relay.address)
    kept_by(recv, inbox)
    recv.signal(signal.SIGKILL)
    recv.wait(-signal.SIGKILL)
    kept = (inbox / "big.bin.dtp-part").stat().st_size
    recv, address = receiver(dtp, inbox, "--service", "drop")
    relay.limit, relay.port = None, Address.parse(address).port
    received = recv.event("received")
    assert 0 < received["from"] == kept < CUT
    events = [json.loads(line) for line in send.wait().splitlines()]
    assert "redial" in {record["event"] for record in events}
    assert events[-1]["from"] == kept
    assert (inbox / "big.bin").read_bytes() == big.read_bytes()


@pytest.mark.slow
def test_an_interrupted_receiver_keeps_what_came(dtp, big, inbox, gate):
    recv, address = receiver(dtp, inbox)
    send = dtp("send", "--json", big, gate(address).address)
    assert kept_by(recv, inbox) > 0
    recv.signal(signal.SIGINT)
    recv.wait(130)
    assert b"Traceback" not in recv.errors
    assert json.loads(send.wait(5).splitlines()[-1])["event"] == "kept"
    assert "SHUTDOWN" in error_of(send)["message"]
    assert os.listdir(inbox) == ["big.bin.dtp-part"]
    recv, address = receiver(dtp, inbox)
    dtp("send", big, address).wait()
    assert recv.event("received")["from"] > 0
    assert (inbox / "big.bin").read_bytes() == big.read_bytes()


# --- demo.


@pytest.mark.parametrize("carrier", ["tcp", "unix", "ws"])
def test_demo(dtp, tmp_path, monkeypatch, carrier):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    lines = dtp("demo", "--json", "--size", "3M", "--carrier", carrier).wait().splitlines()
    record = json.loads(lines[-1])
    assert record["event"] == "demo"
    assert record["ok"] is True
    assert record["bytes"] == 3 << 20
    assert record["sha256"] == record["sha256_received"] == record["sha256_stored"]
    assert record["handshake"].startswith("Noise_XX_25519_")
    assert record["bytes_per_second"] > 0
    assert os.listdir(tmp_path / "temporary") == []


def test_demo_over_a_unix_socket_where_the_temporary_folder_is_long(dtp, tmp_path, monkeypatch):
    """A Unix socket's path has at most 107 bytes; and a folder may have characters that mean something in URLs."""
    folder = tmp_path / ("a long name 100%" * 8)
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    lines = dtp("demo", "--json", "--size", "1M", "--carrier", "unix").wait().splitlines()
    assert json.loads(lines[-1])["ok"] is True
    assert os.listdir(folder) == []


def test_demo_of_a_file(dtp, file):
    shown = dtp("demo", "--file", file).wait().decode()
    assert hashlib.sha256(file.read_bytes()).hexdigest() + "  sent" in shown
    assert "3.0 MiB in " in shown
    assert shown.endswith("equal: the file arrived as it was sent\n")


def test_demo_that_is_interrupted_leaves_nothing(dtp, tmp_path, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    demo = dtp("demo", "--json", "--size", "512M")
    demo.event("connected")
    demo.signal(signal.SIGINT)
    demo.wait(130)
    assert os.listdir(tmp_path / "temporary") == []


def test_the_package_is_a_command_too():
    shown = subprocess.run([sys.executable, "-P", "-m", "dtp", "--version"], capture_output=True, check=True)
    assert shown.stdout.startswith(b"dtp ")
