"""Real programs through a pair of `dtpd` processes, and the commands that talk to a running one."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dtp.cli.listening import own_host
from dtp.net.address import Address

from ..programs import DTPD, PATIENCE, Place, Program, free_port, need, place, wait_for_port

__all__ = ["place"]


@pytest.fixture
def nginx(place: Place) -> int:
    """nginx with a large file; gives its port."""
    program = need("nginx")
    port = free_port()
    (place.folder / "www").mkdir()
    (place.folder / "www" / "large").write_bytes(os.urandom(1 << 20) * 20)
    (place.folder / "nginx.conf").write_text(
        f"""daemon off; master_process off; pid {place.folder}/nginx.pid; error_log stderr;
events {{}}
http {{
    access_log off; client_body_temp_path {place.folder}/body; proxy_temp_path {place.folder}/proxy;
    fastcgi_temp_path {place.folder}/f; uwsgi_temp_path {place.folder}/u; scgi_temp_path {place.folder}/s;
    server {{
        listen 127.0.0.1:{port}; root {place.folder}/www; client_max_body_size 0;
        location /put/ {{ dav_methods PUT; create_full_put_path on; }}
    }}
}}
"""
    )
    running = place.program(program, "-p", place.folder, "-c", place.folder / "nginx.conf", "-e", "stderr")
    wait_for_port(port, running)
    return port


def fetch(*arguments: Path | str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["curl", "--silent", "--show-error", "--max-time", str(PATIENCE), *map(str, arguments)],
        capture_output=True,
        check=False,
        timeout=PATIENCE,
    )


def test_curl_and_nginx(place: Place, nginx: int) -> None:
    need("curl")
    _, _, port = place.pair(f"127.0.0.1:{nginx}")
    expected = hashlib.sha256((place.folder / "www" / "large").read_bytes()).digest()
    files = [place.folder / f"got{number}" for number in range(3)]
    wanted = [word for file in files for word in ("-o", file, f"http://127.0.0.1:{port}/large")]
    done = fetch("--parallel", *wanted)
    assert done.returncode == 0, done.stderr
    for file in files:
        assert hashlib.sha256(file.read_bytes()).digest() == expected
    assert fetch("-o", "/dev/null", "-w", "%{http_code}", f"http://127.0.0.1:{port}/none").stdout == b"404"


def test_redis(place: Place) -> None:
    server, benchmark = need("redis-server"), need("redis-benchmark")
    port = free_port()
    running = place.program(server, "--port", port, "--save", "", "--dir", place.folder)
    wait_for_port(port, running)
    _, _, near = place.pair(f"127.0.0.1:{port}")
    done = subprocess.run(
        [
            benchmark,
            "-p",
            str(near),
            "-c",
            "20",
            "-n",
            "2000",
            "-t",
            "set,get,lrange_100",
            "-d",
            "1000",
            "--csv",
        ],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    assert '"SET"' in done.stdout
    assert "rror" not in done.stdout


def iperf3(*command: str) -> dict[str, Any]:
    """The report of a run; while the server is still busy with the end of the one before, it is asked again. Such a
    server says so and closes with our first bytes unread, so that its reset may overtake the word."""
    for _ in range(50):
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
        report = json.loads(done.stdout)
        error = report.get("error", "")
        if "busy" not in error and not ("reset by peer" in error and not report["start"]["connected"]):
            break
    assert "error" not in report, report["error"]
    found: dict[str, Any] = report
    return found


def test_iperf3_over_tcp_and_udp(place: Place) -> None:
    """Its control connection is TCP, its data one or the other, at the same port."""
    program = need("iperf3")
    port, near = free_port(), free_port()
    wait_for_port(port, place.program(program, "--server", "--bind", "127.0.0.1", "--port", port))
    caller = place.identity("near").id
    _, exposed = place.dtpd(
        "far",
        '[daemon]\nlisten = ["tcp://127.0.0.1:0"]\n'
        + "".join(
            f'[[expose]]\nservice = "{kind}"\nkind = "{kind}"\nbackend = "127.0.0.1:{port}"\nallow = ["{caller}"]\n'
            for kind in ("tcp", "udp")
        ),
    )
    place.dtpd(
        "near",
        "".join(
            f'[[forward]]\nkind = "{one["service"]}"\nlisten = "127.0.0.1:{near}"\nto = "{one["address"]}"\n'
            for one in exposed
        ),
    )
    for options in (["-n", "20M"], ["-n", "20M", "-R"], ["-u", "-b", "20M", "-n", "1M"]):
        report = iperf3(program, "--client", "127.0.0.1", "--port", str(near), "--json", *options)
        if "-u" in options:
            # Loss is allowed, but not much of it on an idle path.
            assert report["end"]["sum"]["packets"] > 10
            assert report["end"]["sum"]["lost_percent"] < 50
        else:
            # The control connection may overtake the last data, so less is counted than arrives.
            assert report["end"]["sum_sent"]["bytes"] >= 20 << 20
            assert report["end"]["sum_received"]["bytes"] > 1 << 20


def echo_server(place: Place) -> int:
    """A TCP echo in a process of its own; gives its port."""
    code = """
import socketserver, sys
class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        while data := self.request.recv(65536):
            self.request.sendall(data)
class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
with Server(("127.0.0.1", 0), Echo) as server:
    print('{"event": "ready", "port": %d}' % server.server_address[1], flush=True)
    server.serve_forever()
"""
    found: int = place.program(sys.executable, "-c", code).event("ready")["port"]
    return found


def ask(sock: socket.socket, data: bytes) -> None:
    sock.sendall(data)
    got = b""
    while len(got) < len(data):
        piece = sock.recv(len(data) - len(got))
        assert piece, "the connection ended"
        got += piece
    assert got == data


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)


@pytest.mark.slow
def test_status_reload_and_drain_while_a_client_stays(place: Place) -> None:
    far, near, port = place.pair(f"127.0.0.1:{echo_server(place)}")
    far_file = place.folder / "far.toml"
    with connected(port) as client:
        ask(client, b"before")
        status = json.loads(place.command("status", "--json", "-c", far_file))
        assert status["exposed"][0]["open"] == 1
        assert status["exposed"][0]["received"] == 6
        assert status["callers"][0]["peer"] == str(place.identity("near").id)
        assert "api" in place.command("status", "-c", far_file)
        looks = place.command("top", "-n", 2, "--interval", 0.1, "--json", "-c", far_file).splitlines()
        assert [json.loads(look)["rates"]["received"] for look in looks] == [0, 0]
        assert "0 new streams/s" in place.command("top", "-n", 1, "-c", far_file)

        # A reload by command, then one by signal: the client stays, and new rules hold for new streams.
        original = far_file.read_text()
        far_file.write_text(f'{original}deny = ["{place.identity("near").id}"]\n')
        assert place.command("reload", "-c", far_file) == "reloaded\n"
        ask(client, b"after")
        with pytest.raises(ConnectionResetError), connected(port) as second:
            second.recv(1)
        far.log("refused by access")
        far_file.write_text(original)
        far.process.send_signal(signal.SIGHUP)
        far.log("reloaded")
        ask(client, b"still")
        with connected(port) as second:
            ask(second, b"again")

        # A file with a mistake changes nothing.
        far_file.write_text(original + "colour = 'red'\n")
        said = place.command("reload", "-c", far_file, code=3)
        assert "colour is not a setting" in said
        far_file.write_text(original)

        assert "draining 1 stream" in place.command("drain", "-c", far_file)
        ask(client, b"to the end")
    far.wait(0)
    near.process.send_signal(signal.SIGTERM)
    near.wait(0)


@pytest.mark.slow
def test_kill_and_restart_of_the_far_daemon(place: Place) -> None:
    backend = echo_server(place)
    far, _, port = place.pair(f"127.0.0.1:{backend}")
    with connected(port) as client:
        ask(client, b"before")
    address = json.loads(place.command("status", "--json", "-c", place.folder / "far.toml"))["listen"][0]
    far.process.kill()
    far.process.wait()
    carrier = "tcp://" + address.partition("@")[2]
    text = (place.folder / "far.toml").read_text().replace("tcp://127.0.0.1:0", carrier)
    (place.folder / "far.sock").unlink(missing_ok=True)
    place.dtpd(
        "far", text.partition("\n[daemon]")[2].replace(f'control = "{place.folder}/far.sock"', "[daemon]", 1)
    )
    with connected(port) as client:
        ask(client, b"after")


def activated(
    place: Place, path: Path, listening: socket.socket, more: dict[str, str] | None = None
) -> Program:
    """Start a daemon as systemd does with a socket unit: descriptor 3 listens already."""
    code = """
import os, sys
os.dup2(int(sys.argv[1]), 3, inheritable=True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv(sys.executable, [sys.executable, "-P", "-c", *sys.argv[2:]])
"""
    number = listening.fileno()
    return place.program(
        *(sys.executable, "-c", code, number, DTPD, "run", "--json", "-c", path),
        pass_fds=(number,),
        env={**os.environ, **(more or {})},
    )


def test_readiness_is_told_and_sockets_are_taken_over(place: Place) -> None:
    """As systemd does it: a datagram socket hears of readiness, descriptor 3 listens already."""
    backend = echo_server(place)
    with socket.socket() as listening, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(place.folder / "notify"))
        manager.settimeout(PATIENCE)
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        text = f'''[daemon]
listen = ["tcp://127.0.0.1:{port}"]
[[expose]]
service = "api"
backend = "127.0.0.1:{backend}"
allow = ["{place.identity("near").id}"]
'''
        path = place.file("far", text)
        far = activated(place, path, listening, {"NOTIFY_SOCKET": str(place.folder / "notify")})
        assert manager.recv(1000) == b"READY=1\nSTATUS=Serving"
        far.process.send_signal(signal.SIGHUP)
        assert manager.recv(1000).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
        assert manager.recv(1000) == b"READY=1"
        to = f"dtp+tcp://{place.identity('far').id}@127.0.0.1:{port}/api"
        _, places = place.dtpd("near", f'[[forward]]\nlisten = "127.0.0.1:0"\nto = "{to}"')
        with connected(int(places[0]["listen"].rpartition(":")[2])) as client:
            ask(client, b"hello")
        far.process.send_signal(signal.SIGTERM)
        assert manager.recv(1000) == b"STOPPING=1\nSTATUS=Draining"
        far.wait(0)


def test_what_it_prints_where_it_listens_everywhere_is_what_others_dial(place: Place) -> None:
    text = '[daemon]\nlisten = ["tcp://0.0.0.0:0"]\n[[expose]]\nservice = "api"\nallow = ["*"]\n'
    _, (exposed,) = place.dtpd("far", f'{text}backend = "127.0.0.1:{echo_server(place)}"\n')
    place_of = Address.parse(exposed["address"])
    assert place_of.host == own_host("0.0.0.0") != "0.0.0.0"
    _, (forwarded,) = place.dtpd("near", f'[[forward]]\nlisten = "127.0.0.1:0"\nto = "{place_of}"\n')
    with connected(int(forwarded["listen"].rpartition(":")[2])) as client:
        ask(client, b"is anybody there?")


@pytest.mark.slow
def test_an_upgrade_while_clients_come_and_stay(place: Place) -> None:
    """A new process takes the sockets over: TCP, Unix, UDP, control and web. Old streams finish in the old one."""
    backend, near, web = echo_server(place), free_port(), free_port()
    text = f"""[daemon]
listen = ["tcp://127.0.0.1:{free_port()}"]
drain = "20s"
[web]
listen = "127.0.0.1:{web}"
[[expose]]
service = "api"
backend = "127.0.0.1:{backend}"
allow = ["{place.identity("near").id}"]
"""
    far, exposed = place.dtpd("far", text)
    to = exposed[0]["address"]
    place.dtpd(
        "near",
        f'''[[forward]]
listen = "127.0.0.1:{near}"
to = "{to}"
[[forward]]
listen = "unix:{place.folder}/local"
to = "{to}"
''',
    )
    near_file, far_file = place.folder / "near.toml", place.folder / "far.toml"
    with connected(near) as old:
        ask(old, b"before")
        for file in (near_file, far_file):
            pid = json.loads(place.command("upgrade", "--json", "-c", file))["pid"]
            place.stack.callback(end, pid)
            ask(old, b"old stream")
            with connected(near) as new:
                ask(new, b"new stream")
        with socket.socket(socket.AF_UNIX) as local:
            local.connect(str(place.folder / "local"))
            ask(local, b"by its path")
        status = json.loads(place.command("status", "--json", "-c", far_file))
        assert status["uptime"] < json_uptime_of(far)
        assert status["pid"] == pid
        assert fetch(f"http://127.0.0.1:{web}/health").returncode == 0
        ask(old, b"to the end")
    far.wait(0)
    with connected(near) as new:
        ask(new, b"after all")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_an_upgrade_keeps_the_places_that_a_setting_leaves_open(place: Place, workers: int) -> None:
    """Ports that the kernel chose, and names: whoever was told of them goes on finding somebody there."""
    text = f"""[daemon]
listen = ["tcp://127.0.0.1:0", "ws://localhost:{free_port()}/peers"]
workers = {workers}
[web]
listen = "127.0.0.1:0"
[[expose]]
service = "api"
backend = "127.0.0.1:1"
allow = "*"
[[forward]]
listen = "127.0.0.1:0"
to = "dtp://alice/api"
[[forward]]
listen = "127.0.0.1:0"
kind = "udp"
to = "dtp://alice/api"
[[forward]]
listen = "localhost:{free_port()}"
to = "dtp://alice/api"
"""
    first, places = place.dtpd("far", text)
    file = place.folder / "far.toml"
    web = next(one["listen"] for one in places if one["event"] == "web")

    def listens() -> Any:
        status = json.loads(place.command("status", "--json", "-c", file))
        return [*status["listen"], *(one["listen"] for one in status["forwarded"])]

    before = listens()
    assert len(before) in (5, 6)  # a name may stand for two addresses
    pid = json.loads(place.command("upgrade", "--json", "-c", file))["pid"]
    place.stack.callback(end, pid)
    first.wait(0)
    assert listens() == before
    assert json.loads(fetch(f"http://{web}/status").stdout)["uptime"] >= 0


@pytest.mark.slow
def test_what_an_upgrade_cuts_off_is_counted(place: Place) -> None:
    """A stream of `tcp` goes on as long as the command says, the new process shows it, and then how many were cut."""
    far, _, port = place.pair(f"127.0.0.1:{echo_server(place)}")
    file = place.folder / "far.toml"

    def before() -> Any:
        (one,) = json.loads(place.command("status", "--json", "-c", file))["before"]
        return one["pid"], one["open"], one["cut"]

    with connected(port) as client:
        ask(client, b"before")
        old = json.loads(place.command("status", "--json", "-c", file))["pid"]
        pid = json.loads(place.command("upgrade", "--drain", "1h", "--json", "-c", file))["pid"]
        place.stack.callback(end, pid)
        while not json.loads(place.command("status", "--json", "-c", file)).get("before"):
            pass
        assert before() == (old, 1, 0)
        ask(client, b"still there")
        far.process.terminate()  # the operator has waited long enough
        far.wait(0)
        while before()[1]:
            pass
        assert before() == (old, 0, 1)
        with pytest.raises(ConnectionResetError):
            client.recv(1)


@pytest.mark.slow
def test_what_is_open_is_known_over_several_upgrades(place: Place) -> None:
    """The process in between had nothing open, and ended: of the first one nothing more was heard."""
    far, _, port = place.pair(f"127.0.0.1:{echo_server(place)}")
    file = place.folder / "far.toml"

    def status() -> Any:
        return json.loads(place.command("status", "--json", "-c", file))

    def of_first() -> Any:
        return [(one["open"], one["cut"]) for one in status().get("before", ()) if one["pid"] == first]

    with connected(port) as client:
        ask(client, b"before")
        first = status()["pid"]
        for _ in range(2):
            pid = json.loads(place.command("upgrade", "--json", "-c", file))["pid"]
            place.stack.callback(end, pid)
        while of_first() != [(1, 0)]:
            pass
        ask(client, b"still there")
    while of_first() != [(0, 0)]:
        pass
    far.wait(0)
    assert b"exception" not in far.errors


@pytest.mark.slow
def test_an_upgrade_cuts_off_nothing_of_tcp(place: Place) -> None:
    """Neither that of the daemon that exposes, nor of the one that forwards, whatever `drain` of the file is."""
    far, exposed = place.dtpd(
        "far",
        f"""[daemon]
listen = ["tcp://127.0.0.1:0"]
drain = "1ms"
[[expose]]
service = "api"
backend = "127.0.0.1:{echo_server(place)}"
allow = "*"
""",
    )
    near, forwarded = place.dtpd(
        "near",
        f"""[daemon]
drain = "1ms"
[[forward]]
listen = "127.0.0.1:0"
to = "{exposed[0]["address"]}"
""",
    )
    port = int(forwarded[0]["listen"].rpartition(":")[2])
    with connected(port) as client:
        ask(client, b"before")
        for name in ("far", "near", "far"):
            file = place.folder / f"{name}.toml"
            pid = json.loads(place.command("upgrade", "--json", "-c", file))["pid"]
            place.stack.callback(end, pid)
            ask(client, name.encode())
            with connected(port) as new:
                ask(new, b"somebody new")
        (one,) = json.loads(place.command("status", "--json", "-c", place.folder / "near.toml"))["before"]
        assert (one["open"], one["cut"]) == (1, 0)
        assert far.process.poll() is None
        ask(client, b"to the end")
    for old in (far, near):
        old.wait(0)


def json_uptime_of(program: Any) -> Any:
    """Seconds since a process began, by the kernel."""
    with open(f"/proc/{program.process.pid}/stat") as file:
        ticks = int(file.read().rpartition(") ")[2].split()[19])
    with open("/proc/uptime") as file:
        return float(file.read().split()[0]) - ticks / os.sysconf("SC_CLK_TCK")


def end(pid: int) -> None:
    """End a process that isn't our child."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def test_an_upgrade_that_fails_changes_nothing(place: Place) -> None:
    far, _, port = place.pair(f"127.0.0.1:{echo_server(place)}")
    file = place.folder / "far.toml"
    good = file.read_text()
    file.write_text(good + "colour = 1\n")
    # The command itself reads the file for the place of the socket, so it is asked directly.
    answer = subprocess.run(
        [sys.executable, "-c", ASK, str(place.folder / "far.sock")],
        capture_output=True,
        timeout=PATIENCE,
        check=True,
    )
    assert "did not begin to serve" in json.loads(answer.stdout)["error"]["message"]
    with connected(port) as client:
        ask(client, b"as before")
    assert far.process.poll() is None


ASK = """
import socket, sys
with socket.socket(socket.AF_UNIX) as sock:
    sock.connect(sys.argv[1])
    sock.sendall(b'{"do": "upgrade"}\\n')
    print(sock.makefile().readline())
"""


def test_a_socket_that_nothing_means(place: Place) -> None:
    path = place.file("near", '[[forward]]\nlisten = "127.0.0.1:1"\nto = "dtp://alice/api"')
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        program = activated(place, path, listening)
        program.wait(78)
    assert b"was handed over, and the configuration has 127.0.0.1:1" in program.errors


def test_json_logs_and_the_page(place: Place) -> None:
    need("curl")
    path = place.file(
        "near",
        """[log]
format = "json"
[web]
listen = "127.0.0.1:0"
[[forward]]
listen = "127.0.0.1:0"
to = "dtp+tcp://{}@127.0.0.1:1/api"
""".format(place.identity("far").id),
    )
    near = place.program(sys.executable, "-P", "-c", DTPD, "run", "-c", path)
    assert near.event("forwarded")["listen"].startswith(
        "127.0.0.1:"
    )  # what it prints goes where its log goes
    web = near.event("web")["listen"]
    near.event("ready")
    answer = fetch(f"http://{web}/health")
    assert json.loads(answer.stdout)["healthy"] is False
    refused = place.command("run", "-c", path, code=3)
    assert json.loads(refused.splitlines()[-1])["error"]["exit_code"] == 3
    near.log("not-connected")
    records = [json.loads(line) for line in near.errors.splitlines()]
    assert {"time", "level", "message", "event", "to", "why"} <= set(records[0])


def test_what_was_loaded_is_left_out_of_collections(place: Place) -> None:
    """Each full one went through it, 30 ms in which nobody was served; workers are forked behind it."""
    told = f"import atexit, gc; atexit.register(lambda: print('kept', gc.get_freeze_count())); {DTPD}"
    near, _ = place.dtpd("near", '[[forward]]\nlisten = "127.0.0.1:0"\nto = "dtp://alice/api"\n', code=told)
    near.process.send_signal(signal.SIGTERM)
    near.wait(0)
    assert int(near.process.stdout.read().split()[-1]) > 10_000


def test_a_port_that_is_taken(place: Place) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        taken = sock.getsockname()[1]
        path = place.file("near", f'[[forward]]\nlisten = "127.0.0.1:{taken}"\nto = "dtp://alice/api"')
        said = place.command("run", "-c", path, code=3)
    assert f"127.0.0.1:{taken}" in said
    assert "in use" in said


def test_who_it_is_can_not_be_told(place: Place) -> None:
    """What is said helps whoever has a file to edit, and no options."""
    forward = '[[forward]]\nlisten = "127.0.0.1:0"\nto = "dtp://alice/api"'
    path = place.file("near", forward)
    (place.folder / "near.pem").unlink()
    said = place.command("run", "-c", path, code=78)
    assert f"'dtp keygen --identity {place.folder / 'near.pem'}' makes one" in said
    place.identities["near"].save(place.folder / "near.pem", passphrase="secret")
    said = place.command("run", "-c", path, code=78)
    assert "name its passphrase-file in [identity]" in said


def test_nobody_to_ask(place: Place) -> None:
    path = place.file("near", '[[forward]]\nlisten = "127.0.0.1:0"\nto = "dtp://alice/api"')
    assert "no dtpd answers" in place.command("status", "-c", path, code=5)


@pytest.mark.slow
def test_a_daemon_is_asked_although_its_file_has_mistakes_by_now(place: Place) -> None:
    """Whoever edits a file may want to look, or to end it all; what reads the file anew says what is wrong."""
    place.identity("near")
    near, _ = place.dtpd("near", '[[forward]]\nlisten = "127.0.0.1:0"\nto = "dtp://alice/api"\n')
    path = place.folder / "near.toml"
    path.write_text(path.read_text() + "bakend = 1\n")
    assert "running" in place.command("status", "-c", path)
    for command in ("reload", "upgrade"):
        assert "bakend is not a setting" in place.command(command, "-c", path, code=3)
    assert "draining" in place.command("drain", "-c", path)
    near.wait(0)
    assert "bakend is not a setting" in place.command("status", "-c", path, code=3)


@pytest.mark.slow
def test_check_and_init(place: Place) -> None:
    path = place.folder / "made" / "dtpd.toml"
    path.parent.mkdir()
    place.command("init", "-c", path, "--expose", "api=127.0.0.1:80", "--allow", "*",
                  "--forward", "127.0.0.1:81=dtp://alice/web")  # fmt: skip
    assert "exposes 1, forwards 1" in place.command("check", "-c", path)
    assert json.loads(place.command("check", "--json", "-c", path))["warnings"] == []
    tight = place.file(
        "tight", '[daemon]\nmemory = "16MiB"\n[[forward]]\nlisten = "127.0.0.1:81"\nto = "dtp://alice/web"'
    )
    (warning,) = json.loads(place.command("check", "--json", "-c", tight))["warnings"]
    assert warning.startswith("memory: 16 MiB for each process, which takes ")
    assert "exists" in place.command("init", "-c", path, "--forward", "127.0.0.1:81=dtp://alice/web", code=3)
    path.write_text(path.read_text() + "bakend = 1\n")
    said = place.command("check", "-c", path, code=3)
    assert f"{path}:" in said
    assert "bakend is not a setting of [[forward]]" in said
    error = json.loads(place.command("check", "--json", "-c", path, code=3).splitlines()[0])["error"]
    assert error["column"] == 1
