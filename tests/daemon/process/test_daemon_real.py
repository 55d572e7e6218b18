"""More real programs through a pair of `dtpd` processes: databases, shells, browsers' ways, and protocols over UDP.

Each is compared with what it says and does when asked directly: bytes, ends, and errors.
"""

from __future__ import annotations

import asyncio
import getpass
import hashlib
import json
import os
import pty
import random
import select
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from noise.connection import Keypair, NoiseConnection

from ..databases import postgresql_url
from ..programs import DTPD, PATIENCE, Place, free_port, need, place, wait_for_port
from .test_daemon_programs import fetch, nginx

__all__ = ["nginx", "place", "postgresql_url"]


def run(*command: int | Path | str, code: int = 0, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """A program to its end; what it wrote."""
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, timeout=PATIENCE, check=False, **options
    )
    assert done.returncode == code, done.stderr.decode("utf-8", "replace")
    found: subprocess.CompletedProcess[bytes] = done
    return found


def udp_pair(place: Place, backend: int) -> int:
    """A pair for UDP; gives the near port."""
    _, exposed = place.dtpd(
        "far",
        f"""[daemon]
listen = ["tcp://127.0.0.1:0"]
[[expose]]
service = "udp"
kind = "udp"
backend = "127.0.0.1:{backend}"
allow = ["{place.identity("near").id}"]
""",
    )
    to = exposed[0]["address"]
    _, forwarded = place.dtpd("near", f'[[forward]]\nkind = "udp"\nlisten = "127.0.0.1:0"\nto = "{to}"\n')
    return int(forwarded[0]["listen"].rpartition(":")[2])


# ---- PostgreSQL ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_postgresql_and_pgbench(place: Place, postgresql_url: Any) -> None:
    """The benchmark's books are right in the end, and an error is word for word what the server says."""
    pgbench, psql = need("pgbench"), need("psql")
    server = urlsplit(postgresql_url)
    direct, name = server.port, server.path[1:]
    _, _, near = place.pair(f"127.0.0.1:{direct}")

    def at(port: int) -> Any:
        return ("-h", "127.0.0.1", "-p", port, "-U", server.username)

    run(pgbench, "-i", "-s", 1, "-q", *at(near), name)
    report = run(pgbench, "-n", "-c", 8, "-j", 2, "-t", 50, *at(near), name).stdout
    assert b"number of transactions actually processed: 400/400" in report
    sums = (
        "select (select sum(abalance) from pgbench_accounts), (select sum(bbalance) from pgbench_branches),\n"
    )
    sums += "(select sum(tbalance) from pgbench_tellers), (select sum(delta) from pgbench_history)"
    for port in (near, direct):
        (found,) = run(psql, *at(port), "-At", "-c", sums, name).stdout.split()
        assert len(set(found.split(b"|"))) == 1
    # A large answer, and a COPY that is ended by the client.
    answer = run(psql, *at(near), "-At", "-c", "select repeat('x', 20000000)", name).stdout
    assert answer == b"x" * 20_000_000 + b"\n"
    lines = b"".join(b"%d\tline\n" % number for number in range(50_000))
    run(psql, *at(near), "-c", "create table lines (n int, t text)", name)
    run(psql, *at(near), "-c", "copy lines from stdin", name, input=lines)
    assert run(psql, *at(near), "-At", "-c", "copy lines to stdout", name).stdout == lines
    wrong = ("-c", "select * from nowhere", name)
    assert run(psql, *at(near), *wrong, code=1).stderr == run(psql, *at(direct), *wrong, code=1).stderr
    refused = [run(psql, *at(port), "-c", "", "nobase", code=2).stderr for port in (near, direct)]
    assert all(b'database "nobase" does not exist' in one for one in refused)


# ---- ssh -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def sshd(place: Place) -> tuple[int, list[Path | str]]:
    """A server for this user alone, by a key of its own; gives its port and the options for clients."""
    program, keygen = need("sshd"), need("ssh-keygen")
    need("ssh")
    if os.getuid() == 0 and not os.path.isdir("/run/sshd"):
        os.mkdir("/run/sshd", 0o755)  # where the server wants to be locked up; its service makes it
        place.stack.callback(os.rmdir, "/run/sshd")
    folder = place.folder / "ssh"
    folder.mkdir(mode=0o700)
    for name in ("host", "user"):
        run(keygen, "-q", "-t", "ed25519", "-N", "", "-f", folder / name)
    (folder / "authorized").write_bytes((folder / "user.pub").read_bytes())
    port = free_port()
    (folder / "sshd_config").write_text(
        f"""Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host
PidFile none
AuthorizedKeysFile {folder}/authorized
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
Subsystem sftp internal-sftp
"""
    )
    running = place.program(program, "-D", "-e", "-f", folder / "sshd_config")
    wait_for_port(port, running)
    options: list[Path | str] = [
        "-F",
        "none",
        "-i",
        folder / "user",
        "-o",
        "BatchMode=yes",
        "-o",
        "LogLevel=ERROR",
    ]
    options += ["-o", "StrictHostKeyChecking=no", "-o", f"UserKnownHostsFile={folder}/known"]
    return port, options


@pytest.mark.slow
def test_ssh_and_its_files(place: Place, sshd: Any) -> None:
    direct, options = sshd
    _, _, near = place.pair(f"127.0.0.1:{direct}")
    ssh, scp, sftp = need("ssh"), need("scp"), need("sftp")
    to = f"{getpass.getuser()}@127.0.0.1"
    data = random.Random(1).randbytes(8_000_000)
    # Standard input ends before the answer does, and the exit code comes back.
    done = run(ssh, *options, "-p", near, to, "cat; echo to the error >&2; exit 7", code=7, input=data)
    assert done.stdout == data
    assert done.stderr == b"to the error\n"
    (place.folder / "file").write_bytes(data)
    run(scp, *options, "-P", near, place.folder / "file", f"{to}:{place.folder}/there")
    run(scp, *options, "-P", near, f"{to}:{place.folder}/there", place.folder / "back")
    assert (place.folder / "back").read_bytes() == data
    batch = f"get {place.folder}/there {place.folder}/got\nrm {place.folder}/there\nbye\n".encode()
    run(sftp, *options, "-P", near, "-b", "-", to, input=batch)
    assert (place.folder / "got").read_bytes() == data
    assert not (place.folder / "there").exists()
    said = run(scp, *options, "-P", near, f"{to}:/nonexistent", place.folder / "x", code=1).stderr
    assert b"No such file" in said


def test_an_interactive_shell(place: Place, sshd: tuple[int, list[Path | str]]) -> None:
    """A terminal at both ends: each line is answered before the next one is typed."""
    direct, options = sshd
    _, _, near = place.pair(f"127.0.0.1:{direct}")
    command = [need("ssh"), *options, "-tt", "-p", near, f"{getpass.getuser()}@127.0.0.1", "/bin/sh"]
    own, theirs = pty.openpty()
    with subprocess.Popen(
        [str(word) for word in command], stdin=theirs, stdout=theirs, stderr=theirs
    ) as shell:
        os.close(theirs)

        def expect(words: bytes) -> None:
            seen = b""
            while words not in seen:
                readable, _, _ = select.select([own], [], [], PATIENCE)
                assert readable, seen
                seen += os.read(own, 4096)

        os.write(own, b"PS1='rea''dy> '\n")  # so that its echo doesn't look like the prompt
        expect(b"ready> ")
        for number in range(20):
            os.write(own, b"echo $((%d * 6))\n" % number)
            # With the prompt behind it: what is typed before it comes is echoed between them.
            expect(b"\n%d\r\nready> " % (number * 6))
        os.write(own, b"exit 9\n")
        assert shell.wait(PATIENCE) == 9
    os.close(own)


# ---- HTTP ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tcp", "http"])
def test_curl_keeps_uploads_and_asks_for_parts(place: Place, nginx: Any, kind: str) -> None:
    need("curl")
    _, _, port = place.pair(f"127.0.0.1:{nginx}", f'kind = "{kind}"')
    large = (place.folder / "www" / "large").read_bytes()
    url = f"http://127.0.0.1:{port}"
    # One connection for several requests; also behind an error.
    done = fetch("-w", "%{num_connects} %{http_code}\\n", *(f"{url}/{one}" for one in ("none", "large", "none")),
                 "-o", "/dev/null", "-o", "/dev/null", "-o", "/dev/null")  # fmt: skip
    assert done.stdout.split(b"\n")[:3] == [b"1 404", b"0 200", b"0 404"]
    part = fetch("-r", "1000000-2999999", "-w", "%{stderr}%{http_code}", f"{url}/large")
    assert (part.stderr, part.stdout) == (b"206", large[1_000_000:3_000_000])
    half = place.folder / "half"
    half.write_bytes(large[: len(large) // 2])
    assert fetch("-C", "-", "-o", half, f"{url}/large").returncode == 0  # goes on where it broke off
    assert hashlib.sha256(half.read_bytes()).digest() == hashlib.sha256(large).digest()
    assert fetch("-I", f"{url}/large").stdout.startswith(b"HTTP/1.1 200")
    upload = place.folder / "upload"
    upload.write_bytes(random.Random(2).randbytes(30_000_000))
    for options in ([], ["-H", "Transfer-Encoding: chunked"], ["-H", "Expect: 100-continue"]):
        done = fetch("-T", upload, "-w", "%{http_code}", *options, f"{url}/put/{len(options)}")
        assert done.stdout in (b"201", b"204"), done
        stored = place.folder / "www" / "put" / str(len(options))
        assert stored.read_bytes() == upload.read_bytes()


def test_a_websocket_client(place: Place) -> None:
    """websockets at both ends: text and bytes, large messages, pings, and the close code with its reason."""
    from websockets.asyncio.client import connect
    from websockets.asyncio.server import serve
    from websockets.exceptions import ConnectionClosedError

    async def answer(socket: Any) -> None:
        async for message in socket:
            if message == "end":
                await socket.close(4242, "as you wish")
            await socket.send(message)

    async def scenario() -> None:
        async with serve(answer, "127.0.0.1", 0, max_size=None) as server:
            backend = server.sockets[0].getsockname()[1]
            more = 'kind = "websocket"'
            _, _, port = await asyncio.to_thread(place.pair, f"127.0.0.1:{backend}", more)
            async with connect(f"ws://127.0.0.1:{port}/", max_size=None, proxy=None) as client:
                for message in ("text", b"bytes", "ä" * 100_000, bytes(3_000_000)):
                    await client.send(message)
                    assert await client.recv() == message
                await (await client.ping())
                await client.send("end")
                with pytest.raises(ConnectionClosedError) as caught:
                    await client.recv()
                assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (4242, "as you wish")

    asyncio.run(asyncio.wait_for(scenario(), PATIENCE))


# ---- over UDP ------------------------------------------------------------------------------------------------------


def test_quic(place: Place) -> None:
    """aioquic at both ends: a handshake, several streams at once, each half-closed by itself."""
    pytest.importorskip("aioquic", reason="aioquic is not installed")
    trustme = pytest.importorskip("trustme", reason="trustme is not installed")
    from aioquic.asyncio import connect, serve
    from aioquic.quic.configuration import QuicConfiguration

    authority = trustme.CA()
    certificate = authority.issue_cert("quic.test")
    certificate.cert_chain_pems[0].write_to_path(place.folder / "quic.pem")
    certificate.private_key_pem.write_to_path(place.folder / "quic.key")
    tasks = set()

    def on_stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def echo() -> None:
            while data := await reader.read(65536):
                writer.write(data)
            writer.write_eof()

        task = asyncio.ensure_future(echo())
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def ask(client: Any, data: bytes) -> bytes:
        reader, writer = await client.create_stream()
        writer.write(data)
        writer.write_eof()
        found: bytes = await reader.read()
        return found

    async def scenario() -> None:
        server = QuicConfiguration(is_client=False)
        server.load_cert_chain(place.folder / "quic.pem", place.folder / "quic.key")
        backend = free_port()
        running = await serve("127.0.0.1", backend, configuration=server, stream_handler=on_stream)
        port = await asyncio.to_thread(udp_pair, place, backend)
        trusted = QuicConfiguration(server_name="quic.test", cadata=authority.cert_pem.bytes())
        async with connect("127.0.0.1", port, configuration=trusted) as client:
            sent = [random.Random(number).randbytes(400_000) for number in range(5)]
            assert await asyncio.gather(*(ask(client, data) for data in sent)) == sent
        running.close()

    asyncio.run(asyncio.wait_for(scenario(), PATIENCE))


class WireGuard:
    """Messages as WireGuard has them (its paper, section 5.4), by noiseprotocol: what is in each datagram."""

    NAME = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"
    PROLOGUE = b"WireGuard v1 zx2c4 Jason@zx2c4.com"

    def __init__(self, own: bytes, number: int, theirs: bytes | None = None) -> None:
        self.noise = NoiseConnection.from_name(self.NAME)
        self.noise.set_prologue(self.PROLOGUE)
        self.noise.set_psks(bytes(32))
        self.noise.set_keypair_from_private_bytes(Keypair.STATIC, own)
        if theirs is not None:
            self.noise.set_keypair_from_public_bytes(Keypair.REMOTE_STATIC, theirs)
        (self.noise.set_as_responder if theirs is None else self.noise.set_as_initiator)()
        self.noise.start_handshake()
        self.number, self.sent = number, 0

    def initiation(self) -> bytes:
        """148 bytes: type, sender, ephemeral, static, timestamp (TAI64N), two MACs."""
        stamp = struct.pack("!QL", 2**62 + int(time.time()), 0)
        return struct.pack("<LL", 1, self.number) + bytes(self.noise.write_message(stamp)) + bytes(32)

    def respond(self, data: bytes) -> bytes:
        """92 bytes in answer to 148."""
        kind, self.other = struct.unpack_from("<LL", data)
        assert (kind, len(data)) == (1, 148)
        assert len(self.noise.read_message(data[8:-32])) == 12
        head = struct.pack("<LLL", 2, self.number, self.other)
        return head + bytes(self.noise.write_message()) + bytes(32)

    def finish(self, data: bytes) -> None:
        kind, self.other, own = struct.unpack_from("<LLL", data)
        assert (kind, own, len(data)) == (2, self.number, 92)
        assert self.noise.read_message(data[12:-32]) == b""

    def seal(self, packet: bytes) -> bytes:
        """A packet, padded to 16 bytes, behind receiver and counter."""
        head = struct.pack("<LLQ", 4, self.other, self.sent)
        self.sent += 1
        found: bytes = head + self.noise.encrypt(packet + bytes(-len(packet) % 16))
        return found

    def open(self, data: bytes) -> bytes:
        kind, own, _ = struct.unpack_from("<LLQ", data)
        assert (kind, own) == (4, self.number)
        found: bytes = self.noise.decrypt(data[16:])
        return found


def test_wireguard_by_its_messages(place: Place) -> None:
    """A handshake of IKpsk2 and packets both ways, up to what a tunnel of 1,420 bytes sends."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    keys = [bytes([number]) * 32 for number in (1, 2)]
    public = X25519PrivateKey.from_private_bytes(keys[1]).public_key().public_bytes_raw()
    with socket.socket(type=socket.SOCK_DGRAM) as server, socket.socket(type=socket.SOCK_DGRAM) as client:
        server.bind(("127.0.0.1", 0))
        port = udp_pair(place, server.getsockname()[1])
        client.connect(("127.0.0.1", port))
        for one in (server, client):
            one.settimeout(PATIENCE)
        initiator, responder = WireGuard(keys[0], 7, public), WireGuard(keys[1], 9)
        client.send(initiator.initiation())
        data, source = server.recvfrom(65536)
        server.sendto(responder.respond(data), source)
        initiator.finish(client.recv(65536))
        for size in (0, 1, 576, 1280, 1420):
            packet = bytes(size)
            client.send(initiator.seal(packet))
            data, source = server.recvfrom(65536)
            assert responder.open(data)[:size] == packet
            server.sendto(responder.seal(packet), source)
            assert initiator.open(client.recv(65536))[:size] == packet


class Namespace:
    """A network of its own, with nothing but what is put into it; for root."""

    def __init__(self, place: Place) -> None:
        self._holder = place.program(
            "unshare", "-n", "sh", "-c", 'echo \'{"event": "ready"}\'; exec sleep 600'
        )
        self._holder.event("ready")
        self.pid = self._holder.process.pid
        self.inside = ("nsenter", "-t", self.pid, "-n")
        self("ip", "link", "set", "lo", "up")

    def __call__(self, *command: int | Path | str, **options: Any) -> subprocess.CompletedProcess[bytes]:
        return run(*self.inside, *command, **options)


ECHO = """
import socket
with socket.create_server(("10.99.0.2", 8080)) as server:
    print('{"event": "ready"}', flush=True)
    client, _ = server.accept()
    with client:
        while data := client.recv(65536):
            client.sendall(data)
"""
ASK = """
import random, socket, threading
data = random.Random(3).randbytes(2_000_000)
with socket.create_connection(("10.99.0.2", 8080), 50) as sock:
    def send():
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
    threading.Thread(target=send).start()
    got = b""
    while piece := sock.recv(65536):
        got += piece
assert got == data
print("whole")
"""


def test_wireguard(place: Place) -> None:
    """wireguard-go at both ends, in networks of their own: TCP through the tunnel, that through the pair."""
    go, wg = need("wireguard-go"), need("wg")
    for program in ("ip", "unshare", "nsenter"):
        need(program)
    allowed = subprocess.run(["unshare", "-n", "true"], capture_output=True, check=False).returncode == 0
    if not allowed or not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        pytest.skip("networks of its own, and /dev/net/tun, are not to be had here")
    near, far = Namespace(place), Namespace(place)
    near("ip", "link", "add", "name", "end-a", "type", "veth", "peer", "name", "end-b")
    near("ip", "link", "set", "end-b", "netns", far.pid)
    keys = []
    for one, link, address in ((near, "end-a", "10.1.0.1/24"), (far, "end-b", "10.1.0.2/24")):
        one("ip", "address", "add", address, "dev", link)
        one("ip", "link", "set", link, "up")
        secret = run(wg, "genkey").stdout
        path = place.folder / f"wg-{link}"
        path.touch(0o600)
        path.write_bytes(secret)
        keys.append((path, run(wg, "pubkey", input=secret).stdout.strip().decode()))
    _, exposed = start(place, "far", near, f"""[daemon]
listen = ["tcp://127.0.0.1:0"]
[[expose]]
service = "wg"
kind = "udp"
backend = "10.1.0.2:51820"
allow = ["{place.identity("near").id}"]
""")  # fmt: skip
    to = exposed["address"]
    _, forwarded = start(
        place, "near", near, f'[[forward]]\nkind = "udp"\nlisten = "127.0.0.1:0"\nto = "{to}"\n'
    )
    endpoint = forwarded["listen"].removeprefix("udp:")
    names = [f"dtp{os.getpid()}{letter}"[:15] for letter in "ab"]
    settings = (
        ("peer", keys[1][1], "endpoint", endpoint, "allowed-ips", "10.99.0.2/32"),
        ("listen-port", 51820, "peer", keys[0][1], "allowed-ips", "10.99.0.1/32"),
    )
    for number, (one, name) in enumerate(zip((near, far), names, strict=True)):
        control = f"/var/run/wireguard/{name}.sock"
        place.stack.callback(lambda path: os.path.exists(path) and os.unlink(path), control)
        running = place.program(*one.inside, go, "-f", name)
        deadline = time.monotonic() + PATIENCE
        while not os.path.exists(control):
            assert running.process.poll() is None, running.errors
            assert time.monotonic() < deadline
        one(wg, "set", name, "private-key", keys[number][0], *settings[number])
        one("ip", "address", "add", f"10.99.0.{number + 1}/24", "dev", name)
        one("ip", "link", "set", name, "up")
    place.program(*far.inside, sys.executable, "-c", ECHO).event("ready")
    assert near(sys.executable, "-c", ASK).stdout == b"whole\n"
    moved = near(wg, "show", names[0], "transfer").stdout.split()
    assert all(int(size) > 2_000_000 for size in moved[1:])


def start(place: Place, name: str, namespace: Namespace, text: str) -> tuple[Any, ...]:
    """A daemon inside of a network; the program, and the first thing that it says it does."""
    path = place.file(name, text)
    command = (*namespace.inside, sys.executable, "-P", "-c", DTPD, "run", "--json", "-c", path)
    program = place.program(*command)
    return program, json.loads(program.process.stdout.readline())
