"""Pairs of tunnel ends for `bench.daemon`: dtpd, HAProxy, stunnel, nginx and spiped, and the servers behind them."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bench.contenders import certificates
from bench.contenders.tunnels import START, _die_with_parent
from dtp.identity import Identity

#: Bytes of the large file.
BULK = 1 << 30
_TICKS = os.sysconf("SC_CLK_TCK")
_NGINX_STREAM = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
_DTPD = [sys.executable, "-P", "-c", "from dtp.cli.daemon import main; main(prog_name='dtpd')"]
#: Rules of a real service, for the policy figure.
RULES = """rate = { requests = "1000000/s" }
methods = { allow = ["eth_call", "eth_get*"], deny = ["admin_*"] }"""


class Missing(Exception):
    """A program that isn't installed."""


def need(name: str) -> str:
    """The path of a program."""
    path = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    if path is None:
        raise Missing(name)
    return path


def free_port() -> int:
    """A port of loopback that nobody has."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def wait_for(port: int) -> None:
    """Until somebody listens at a port."""
    deadline = time.monotonic() + START
    while time.monotonic() < deadline:
        with socket.socket() as sock:
            if sock.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise RuntimeError(f"nobody listens at port {port}; the programs' output is above")


class Program:
    """A process of the scene."""

    def __init__(self, command: list[str]) -> None:
        self._command = command
        self._run()

    def _run(self) -> None:
        # What a pair says on losing its other end belongs to the measurement and would hide the report.
        self._process = subprocess.Popen(
            self._command, stdout=subprocess.DEVNULL, preexec_fn=_die_with_parent
        )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def stop(self) -> None:
        """End it, also when it is stopped."""
        self.signal(signal.SIGCONT)
        self._process.terminate()
        self._process.wait()

    def restart_killed(self) -> None:
        """Kill it without a word, and start it again at once."""
        self._process.kill()
        self._process.wait()
        self._run()

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self._process.send_signal(number)


class Scene:
    """The folder, the processes and the servers of a run."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self.folder, self._stack = folder, stack
        certificates.make(folder)
        (folder / "both.pem").write_bytes(
            (folder / "cert.pem").read_bytes() + (folder / "key.pem").read_bytes()
        )
        self.redis, self.web, self.rpc = free_port(), free_port(), free_port()

    def start(self, *command: object) -> Program:
        """Start a program that ends with the run."""
        program = Program([str(word) for word in command])
        self._stack.callback(program.stop)
        return program

    def servers(self) -> None:
        """Redis for small requests, nginx for a large file and for JSON-RPC."""
        self.start(need("redis-server"), "--port", self.redis, "--save", "", "--dir", self.folder,
                   "--maxclients", "20000")  # fmt: skip
        with (self.folder / "large").open("wb") as file:
            file.truncate(BULK)
        config = self.folder / "web.conf"
        config.write_text(
            f"daemon off; master_process off; pid {self.folder}/web.pid; error_log stderr;"
            "events { worker_connections 9000; } http { access_log off; sendfile on;"
            f"server {{ listen 127.0.0.1:{self.web}; root {self.folder}; }}"
            f"server {{ listen 127.0.0.1:{self.rpc}; keepalive_requests 1000000; default_type application/json;"
            """ location / { return 200 '{"jsonrpc":"2.0","id":1,"result":"0x1"}'; } } }"""
        )
        self.start(need("nginx"), "-c", config, "-p", self.folder, "-e", "stderr")
        wait_for(self.redis)
        wait_for(self.web)


@dataclass
class Pair:
    """A pair of tunnel ends: where to dial for Redis and for the web, and its processes."""

    name: str
    redis: int
    web: int
    #: The far end first.
    programs: list[Program] = field(default_factory=list)
    #: Of `dtpd`: where the near end serves JSON-RPC without and with rules, and the control socket of the far end.
    rpc: tuple[int, int] = (0, 0)
    control: Path | None = None
    figures: dict[str, list[float]] = field(default_factory=dict)

    def processes(self) -> list[int]:
        """Its processes and their children."""
        found = [program.pid for program in self.programs]
        for pid in found:
            children = Path(f"/proc/{pid}/task/{pid}/children")
            found += map(int, children.read_text().split()) if children.exists() else []
        return found

    def cpu(self) -> float:
        """Processor seconds so far."""
        total = 0
        for pid in self.processes():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
            total += int(fields[11]) + int(fields[12])
        return total / _TICKS

    def memory(self) -> int:
        """Proportional set size, bytes."""
        total = 0
        for pid in self.processes():
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
        return total

    def note(self, name: str, value: float) -> None:
        """One more sample."""
        self.figures.setdefault(name, []).append(value)


# ---- the pairs ---------------------------------------------------------------------------------------------------


def direct(scene: Scene) -> Pair:
    """No tunnel."""
    return Pair("no tunnel", scene.redis, scene.web)


def dtpd(scene: Scene) -> Pair:
    """Two `dtpd`, with an allow-list and a rate."""
    near, far, port = Identity.generate(), Identity.generate(), free_port()
    for identity, end in ((near, "near"), (far, "far")):
        identity.save(scene.folder / f"dtpd-{end}.pem")
    services = (
        ("redis", scene.redis, "tcp", RULES.splitlines()[0]),
        ("web", scene.web, "tcp", RULES.splitlines()[0]),
        ("rpc", scene.rpc, "json-rpc", ""),
        ("ruled", scene.rpc, "json-rpc", RULES),
    )
    ports = {service: free_port() for service, *_ in services}
    expose = forward = ""
    for service, backend, kind, rules in services:
        expose += f'[[expose]]\nservice = "{service}"\nkind = "{kind}"\nallow = ["{near.id}"]\n'
        expose += f'backend = "127.0.0.1:{backend}"\n{rules}\n'
        forward += f'[[forward]]\nlisten = "127.0.0.1:{ports[service]}"\n'
        forward += f'to = "dtp+tcp://{far.id}@127.0.0.1:{port}/{service}"\n'
    programs = []
    for end, text in (("far", f'listen = ["tcp://127.0.0.1:{port}"]\n{expose}'), ("near", forward)):
        config = scene.folder / f"dtpd-{end}.toml"
        config.write_text(
            f'[identity]\nfile = "dtpd-{end}.pem"\n[log]\nlevel = "error"\n'
            f'[daemon]\ncontrol = "{scene.folder}/dtpd-{end}.sock"\n{text}'
        )
        programs.append(scene.start(*_DTPD, "run", "-c", config))
        wait_for(port if end == "far" else ports["redis"])
    pair = Pair("dtpd", ports["redis"], ports["web"], programs)
    pair.rpc = (ports["rpc"], ports["ruled"])
    pair.control = scene.folder / "dtpd-far.sock"
    return _listening(pair)


def stunnel(scene: Scene) -> Pair:
    """stunnel on both ends, TLS 1.3."""
    program = need("stunnel")
    ports = {service: (free_port(), free_port()) for service in ("redis", "web")}
    backends = {"redis": scene.redis, "web": scene.web}
    programs = []
    for end in ("far", "near"):
        lines = [
            "foreground = quiet",
            "pid =",
            "debug = err",
            "socket = l:TCP_NODELAY=1",
            "socket = r:TCP_NODELAY=1",
        ]
        for service, (near, hop) in ports.items():
            accept, connect = (hop, backends[service]) if end == "far" else (near, hop)
            lines += [f"[{service}]", "sslVersion = TLSv1.3", f"accept = 127.0.0.1:{accept}",
                      f"connect = 127.0.0.1:{connect}"]  # fmt: skip
            if end == "far":
                lines += [f"cert = {scene.folder}/cert.pem", f"key = {scene.folder}/key.pem"]
            else:
                lines += ["client = yes", "verifyPeer = yes", f"CAfile = {scene.folder}/cert.pem"]
        config = scene.folder / f"stunnel-{end}.conf"
        config.write_text("\n".join(lines) + "\n")
        programs.append(scene.start(program, config))
    return _listening(Pair("stunnel", ports["redis"][0], ports["web"][0], programs))


def haproxy(scene: Scene) -> Pair:
    """HAProxy on both ends, TLS 1.3, one thread each as `dtpd` has."""
    return _haproxy(scene, "HAProxy", 1)


def haproxy2(scene: Scene) -> Pair:
    """The same with two threads each."""
    return _haproxy(scene, "HAProxy, 2 threads", 2)


def _haproxy(scene: Scene, name: str, threads: int) -> Pair:
    program = need("haproxy")
    near, hop = (free_port(), free_port()), (free_port(), free_port())
    backends = (scene.redis, scene.web)
    programs = []
    for end in ("far", "near"):
        text = (
            f"global\n  nbthread {threads}\n  maxconn 4000\n  ssl-default-bind-options ssl-min-ver TLSv1.3\n"
            "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 300s\n  timeout server 300s\n"
        )
        for number in range(2):
            if end == "far":
                accept = f"127.0.0.1:{hop[number]} ssl crt {scene.folder}/both.pem"
                server = f"127.0.0.1:{backends[number]}"
            else:
                accept = f"127.0.0.1:{near[number]}"
                server = f"127.0.0.1:{hop[number]} ssl ca-file {scene.folder}/cert.pem verify required"
            text += f"listen l{number}\n  bind {accept}\n  server s {server}\n"
        config = scene.folder / f"haproxy{threads}-{end}.cfg"
        config.write_text(text)
        programs.append(scene.start(program, "-db", "-f", config))
    return _listening(Pair(name, *near, programs))


def nginx(scene: Scene) -> Pair:
    """nginx's stream module on both ends, TLS 1.3."""
    program = need("nginx")
    if not _NGINX_STREAM.exists():
        raise Missing("nginx's stream module")
    near, hop = (free_port(), free_port()), (free_port(), free_port())
    backends = (scene.redis, scene.web)
    programs = []
    for end in ("far", "near"):
        servers = ""
        for number in range(2):
            if end == "far":
                servers += (
                    f"server {{ listen 127.0.0.1:{hop[number]} ssl; ssl_protocols TLSv1.3; "
                    f"ssl_certificate {scene.folder}/cert.pem; ssl_certificate_key {scene.folder}/key.pem; "
                    f"proxy_pass 127.0.0.1:{backends[number]}; }}\n"
                )
            else:
                servers += (
                    f"server {{ listen 127.0.0.1:{near[number]}; proxy_ssl on; proxy_ssl_protocols TLSv1.3; "
                    f"proxy_ssl_verify on; proxy_ssl_name {certificates.HOST}; "
                    f"proxy_ssl_trusted_certificate {scene.folder}/cert.pem; "
                    f"proxy_pass 127.0.0.1:{hop[number]}; }}\n"
                )
        config = scene.folder / f"nginx-{end}.conf"
        config.write_text(
            f"load_module {_NGINX_STREAM}; daemon off; master_process off; pid {scene.folder}/nginx-{end}.pid;\n"
            f"error_log stderr; events {{ worker_connections 9000; }}\nstream {{ tcp_nodelay on; {servers} }}\n"
        )
        programs.append(scene.start(program, "-c", config, "-p", scene.folder, "-e", "stderr"))
    return _listening(Pair("nginx", *near, programs))


def spiped(scene: Scene) -> Pair:
    """spiped on both ends."""
    program = need("spiped")
    key = scene.folder / "spiped.key"
    key.write_bytes(os.urandom(32))
    near = (free_port(), free_port())
    programs = []
    for accept, backend in zip(near, (scene.redis, scene.web), strict=True):
        hop = free_port()
        for way, source, target in (("-d", hop, backend), ("-e", accept, hop)):
            programs.append(
                scene.start(program, way, "-F", "-n", "20000", "-k", key, "-s", f"[127.0.0.1]:{source}",
                            "-t", f"[127.0.0.1]:{target}")
            )  # fmt: skip
    return _listening(Pair("spiped", *near, programs))


def _listening(pair: Pair) -> Pair:
    wait_for(pair.redis)
    wait_for(pair.web)
    return pair


PAIRS: dict[str, Callable[[Scene], Pair]] = {
    "direct": direct,
    "dtpd": dtpd,
    "haproxy": haproxy,
    "haproxy2": haproxy2,
    "nginx": nginx,
    "stunnel": stunnel,
    "spiped": spiped,
}
