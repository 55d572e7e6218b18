"""`python -m bench.daemon`: a pair of `dtpd` beside pairs of stunnel, HAProxy and nginx, under the same programs.

Plaintext goes into the near end, encrypted to the far one, and out as plaintext to Redis or nginx on this machine.
What is not installed is left out and said. Each figure is the median of interleaved rounds; processor time is that
of both ends of the pair, user and system together.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bench.contenders import certificates
from bench.contenders.tunnels import START, _die_with_parent
from bench.machine import facts
from dtp.identity import Identity

#: Bytes of the file that is fetched for the bulk figures, and idle connections for the memory figure.
BULK, IDLE = 1 << 30, 2000
_TICKS = os.sysconf("SC_CLK_TCK")
_NGINX_STREAM = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
_DTPD = [sys.executable, "-P", "-c", "from dtp.cli.daemon import main; main(prog_name='dtpd')"]


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


class Scene:
    """The folder, the processes and the servers of a run."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self.folder, self._stack = folder, stack
        certificates.make(folder)
        (folder / "both.pem").write_bytes(
            (folder / "cert.pem").read_bytes() + (folder / "key.pem").read_bytes()
        )
        self.redis, self.web = free_port(), free_port()

    def start(self, *command: object) -> int:
        """Start a program that ends with the run; gives its process id."""
        process = subprocess.Popen(
            [str(word) for word in command], stdout=subprocess.DEVNULL, preexec_fn=_die_with_parent
        )

        def stop() -> None:
            process.terminate()
            process.wait()

        self._stack.callback(stop)
        return process.pid

    def servers(self) -> None:
        """Redis for small requests, nginx for a large file."""
        self.start(need("redis-server"), "--port", self.redis, "--save", "", "--dir", self.folder,
                   "--maxclients", "20000")  # fmt: skip
        with (self.folder / "large").open("wb") as file:
            file.truncate(BULK)
        config = self.folder / "web.conf"
        config.write_text(
            f"daemon off; master_process off; pid {self.folder}/web.pid; error_log stderr;"
            "events { worker_connections 4096; } http { access_log off; sendfile on;"
            f"server {{ listen 127.0.0.1:{self.web}; root {self.folder}; }} }}"
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
    pids: list[int] = field(default_factory=list)
    figures: dict[str, list[float]] = field(default_factory=dict)

    def processes(self) -> list[int]:
        """Its processes and their children."""
        found = list(self.pids)
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
    """Two `dtpd`, with the rules of a real service (allow, rate)."""
    return _dtpd(scene, "dtpd", 'rate = { requests = "1000000/s" }')


def dtpd_plain(scene: Scene) -> Pair:
    """Two `dtpd`, with an allow-list alone."""
    return _dtpd(scene, "dtpd, allow only", "")


def _dtpd(scene: Scene, name: str, rules: str) -> Pair:
    near, far, port, redis, web = Identity.generate(), Identity.generate(), *(free_port() for _ in range(3))
    slug = name.replace(", ", "-").replace(" ", "-")
    for identity, end in ((near, "near"), (far, "far")):
        identity.save(scene.folder / f"{slug}-{end}.pem")
    expose = "".join(
        f'[[expose]]\nservice = "{service}"\nallow = ["{near.id}"]\nbackend = "127.0.0.1:{backend}"\n{rules}\n'
        for service, backend in (("redis", scene.redis), ("web", scene.web))
    )
    forward = "".join(
        f'[[forward]]\nlisten = "127.0.0.1:{listen}"\nto = "dtp+tcp://{far.id}@127.0.0.1:{port}/{service}"\n'
        for service, listen in (("redis", redis), ("web", web))
    )
    pids = []
    for end, text in (("far", f'listen = ["tcp://127.0.0.1:{port}"]\n{expose}'), ("near", forward)):
        config = scene.folder / f"{slug}-{end}.toml"
        config.write_text(
            f'[identity]\nfile = "{slug}-{end}.pem"\n[log]\nlevel = "warning"\n'
            f'[daemon]\ncontrol = "{scene.folder}/{slug}-{end}.sock"\n{text}'
        )
        pids.append(scene.start(*_DTPD, "run", "-c", config))
    for listen in (redis, web):
        wait_for(listen)
    return Pair(name, redis, web, pids)


def stunnel(scene: Scene) -> Pair:
    """stunnel on both ends, TLS 1.3."""
    program = need("stunnel")
    ports = {service: (free_port(), free_port()) for service in ("redis", "web")}
    backends = {"redis": scene.redis, "web": scene.web}
    pids = []
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
        pids.append(scene.start(program, config))
    return _listening(Pair("stunnel", ports["redis"][0], ports["web"][0], pids))


def haproxy(scene: Scene) -> Pair:
    """HAProxy on both ends, TLS 1.3, one thread each as `dtpd` has."""
    program = need("haproxy")
    near, hop = (free_port(), free_port()), (free_port(), free_port())
    backends = (scene.redis, scene.web)
    pids = []
    for end in ("far", "near"):
        text = (
            "global\n  nbthread 1\n  maxconn 4000\n  ssl-default-bind-options ssl-min-ver TLSv1.3\n"
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
        config = scene.folder / f"haproxy-{end}.cfg"
        config.write_text(text)
        pids.append(scene.start(program, "-db", "-f", config))
    return _listening(Pair("HAProxy", *near, pids))


def nginx(scene: Scene) -> Pair:
    """nginx's stream module on both ends, TLS 1.3."""
    program = need("nginx")
    if not _NGINX_STREAM.exists():
        raise Missing("nginx's stream module")
    near, hop = (free_port(), free_port()), (free_port(), free_port())
    backends = (scene.redis, scene.web)
    pids = []
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
        pids.append(scene.start(program, "-c", config, "-p", scene.folder, "-e", "stderr"))
    return _listening(Pair("nginx", *near, pids))


def _listening(pair: Pair) -> Pair:
    wait_for(pair.redis)
    wait_for(pair.web)
    return pair


PAIRS: dict[str, Callable[[Scene], Pair]] = {
    "direct": direct,
    "dtpd": dtpd,
    "dtpd-plain": dtpd_plain,
    "haproxy": haproxy,
    "nginx": nginx,
    "stunnel": stunnel,
}


# ---- what is measured --------------------------------------------------------------------------------------------


def _redis(pair: Pair, clients: int, requests: int, *options: str) -> dict[str, float]:
    """GETs of 64 bytes by redis-benchmark: requests/s and p99 in ms."""
    done = subprocess.run(
        [need("redis-benchmark"), "-p", str(pair.redis), "-c", str(clients), "-n", str(requests), "-t", "get",
         "--csv", "--precision", "3", *options],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )  # fmt: skip
    names, values = (line.replace('"', "").split(",") for line in done.stdout.strip().splitlines()[-2:])
    row = dict(zip(names, values, strict=True))
    return {"per s": float(row["rps"]), "p99 ms": float(row["p99_latency_ms"])}


def small(pair: Pair, clients: int, requests: int) -> None:
    """Requests of 64 bytes on connections that stay."""
    before = pair.cpu()
    found = _redis(pair, clients, requests)
    pair.note(f"requests/s, {clients}", found["per s"])
    pair.note(f"p99 ms, {clients}", found["p99 ms"])
    pair.note(f"CPU us/request, {clients}", (pair.cpu() - before) / requests * 1e6)


def fresh(pair: Pair, requests: int) -> None:
    """A new connection for each request."""
    before = pair.cpu()
    pair.note("new/s", _redis(pair, 20, requests, "-k", "0")["per s"])
    pair.note("CPU us/new", (pair.cpu() - before) / requests * 1e6)


def bulk(pair: Pair, streams: int, size: int) -> None:
    """A large file by curl, over several connections at once."""
    before, began = pair.cpu(), time.perf_counter()
    done = [_fetch(pair, size) for _ in range(streams)]
    for process in done:
        if process.wait(timeout=300):
            raise RuntimeError(f"curl failed through {pair.name}")
    total = streams * size / 1e9
    pair.note(f"GB/s, {streams}", total / (time.perf_counter() - began))
    pair.note(f"CPU s/GB, {streams}", (pair.cpu() - before) / total)


def _fetch(pair: Pair, size: int) -> subprocess.Popen[bytes]:
    where = f"http://127.0.0.1:{pair.web}/large"
    return subprocess.Popen(
        [need("curl"), "--silent", "--fail", "--range", f"0-{size - 1}", "-o", "/dev/null", where],
        preexec_fn=_die_with_parent,
    )


def beside(pair: Pair, requests: int) -> None:
    """A small request at a time while bulk runs."""
    loads = [_fetch(pair, BULK) for _ in range(2)]
    try:
        pair.note("p99 ms beside bulk", _redis(pair, 1, requests)["p99 ms"])
    finally:
        for process in loads:
            process.kill()
            process.wait()


def idle(pair: Pair, count: int) -> None:
    """Memory of connections that do nothing, both ends."""
    if not pair.pids:
        return
    before = pair.memory()
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(socket.create_connection(("127.0.0.1", pair.redis)))
        time.sleep(2)
        pair.note("KB/idle", (pair.memory() - before) / count / 1000)
    time.sleep(1)


def measure(pairs: list[Pair], *, quick: bool, rounds: int) -> Iterator[str]:
    """Interleaved rounds of everything; yields what is going on."""
    scale = 10 if quick else 1
    steps: list[tuple[str, Callable[[Pair], None]]] = [
        ("50 connections", lambda pair: small(pair, 50, 100_000 // scale)),
        ("500 connections", lambda pair: small(pair, 500, 100_000 // scale)),
        ("new connections", lambda pair: fresh(pair, 10_000 // scale)),
        ("bulk, 1", lambda pair: bulk(pair, 1, BULK // scale)),
        ("bulk, 8", lambda pair: bulk(pair, 8, BULK // scale // 4)),
        ("beside bulk", lambda pair: beside(pair, 10_000 // scale)),
    ]
    for number in range(rounds):
        for name, step in steps:
            for pair in pairs:
                yield f"round {number + 1}, {name}, {pair.name}"
                step(pair)
    for pair in pairs:
        yield f"idle, {pair.name}"
        idle(pair, IDLE // scale)


def table(pairs: list[Pair]) -> str:
    """Markdown: a row for each figure, a column for each pair, medians."""
    names = list(dict.fromkeys(name for pair in pairs for name in pair.figures))
    lines = [f"| | {' | '.join(pair.name for pair in pairs)} |", f"|---|{'---|' * len(pairs)}"]
    for name in names:
        cells = []
        for pair in pairs:
            samples = pair.figures.get(name)
            cells.append(f"{statistics.median(samples):,.4g}" if samples else "")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print Markdown, keep JSON with `--save`."""
    parser = argparse.ArgumentParser(prog="python -m bench.daemon", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of everything")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--only", action="append", choices=PAIRS, help="repeatable; default: all that are installed"
    )
    parser.add_argument("--save", type=Path, metavar="FILE", help="keep the samples as JSON")
    arguments = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        scene = Scene(Path(folder), stack)
        scene.servers()
        pairs = []
        for name in arguments.only or PAIRS:
            try:
                pairs.append(PAIRS[name](scene))
            except Missing as missing:
                print(f"{name} is left out: {missing} is not installed", file=sys.stderr)
        fill = [need("redis-benchmark"), "-p", str(scene.redis), "-n", "1", "-t", "set", "-d", "64", "--csv"]
        subprocess.run(fill, check=True, capture_output=True)
        for doing in measure(pairs, quick=arguments.quick, rounds=arguments.rounds):
            print(doing, file=sys.stderr)
        print(table(pairs))
        if arguments.save:
            record = {"machine": facts(), "figures": {pair.name: pair.figures for pair in pairs}}
            arguments.save.write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
