"""ZeroMQ's PAIR sockets with CURVE, blocking: its own thread does the cryptography and the sockets."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from bench.job import ACK, SMALL, Job, Meter, Ready, Result, latencies

#: Messages that wait at each end: of large ones few, or a queue of gigabytes is measured.
_WAITING = {"bulk": 16, "messages": 10_000, "roundtrip": 16}


def _socket(context: Any, job: Job) -> Any:
    import zmq

    sock = context.socket(zmq.PAIR)
    sock.sndhwm = sock.rcvhwm = _WAITING[job.workload]
    sock.linger = 1000
    return sock


def serve(job: Job, ready: Ready) -> Result:
    """The server's side."""
    import zmq

    public, secret = zmq.curve_keypair()
    meter = Meter()
    with zmq.Context() as context:
        socks, ports = [], []
        for _ in range(job.streams):
            sock = _socket(context, job)
            sock.curve_server, sock.curve_secretkey, sock.curve_publickey = True, secret, public
            ports.append(sock.bind_to_random_port("tcp://127.0.0.1"))
            socks.append(sock)
        ready({"ports": ports, "key": public.decode()})
        if job.workload == "roundtrip":
            _echo(job, socks[0], meter)
        else:
            _sink(job, socks, meter)
        for sock in socks:
            sock.close()
    return meter.result | {"cipher": "XSalsa20-Poly1305", "congestion": _default_congestion()}


def _default_congestion() -> str:
    path = Path("/proc/sys/net/ipv4/tcp_congestion_control")
    return f"{path.read_text().strip()} (machine's; can't be set)" if path.exists() else ""


def _echo(job: Job, sock: Any, meter: Meter) -> None:
    for count in (job.warm_count, job.count):
        meter.start()
        for _ in range(count):
            sock.send(sock.recv())
        meter.stop()


def _sink(job: Job, socks: list[Any], meter: Meter) -> None:
    import zmq

    for size in (job.warm_per_stream, job.per_stream):
        meter.start()
        poller = zmq.Poller()
        left = dict.fromkeys(socks, size)
        for sock in socks:
            poller.register(sock, zmq.POLLIN)
        while left:
            for sock, _ in poller.poll():
                _take(sock, left)
                if not left[sock]:
                    del left[sock]
                    poller.unregister(sock)
        meter.stop()
        for sock in socks:
            sock.send(ACK)


def _take(sock: Any, left: dict[Any, int]) -> None:
    """All that is there, at most 64 messages, so that other sockets get their turn."""
    import zmq

    for _ in range(64):
        try:
            left[sock] -= len(sock.recv(zmq.NOBLOCK))
        except zmq.Again:
            return
        if not left[sock]:
            return


def drive(job: Job, where: dict[str, Any]) -> Result:
    """The client's side."""
    import zmq

    with zmq.Context() as context:
        socks = []
        for port in where["ports"]:
            sock = _socket(context, job)
            sock.curve_publickey, sock.curve_secretkey = zmq.curve_keypair()
            sock.curve_serverkey = where["key"].encode()
            sock.connect(f"tcp://127.0.0.1:{port}")
            socks.append(sock)
        result = _ask(job, socks[0]) if job.workload == "roundtrip" else _send(job, socks)
        for sock in socks:
            sock.close()
    return result


def _ask(job: Job, sock: Any) -> Result:
    question = bytes(SMALL)
    times: list[int] = []
    meter = Meter()
    for count in (job.warm_count, job.count):
        meter.start()
        times.clear()
        for _ in range(count):
            asked = time.perf_counter_ns()
            sock.send(question)
            sock.recv()
            times.append(time.perf_counter_ns() - asked)
        meter.stop()
    return meter.result | latencies(times)


def _send(job: Job, socks: list[Any]) -> Result:
    piece = bytes(SMALL) if job.workload == "messages" else bytes(job.chunk)
    meter = Meter()
    for size in (job.warm_per_stream, job.per_stream):
        meter.start()
        for _ in range(size // len(piece)):
            for sock in socks:
                sock.send(piece)
        if size % len(piece):
            for sock in socks:
                sock.send(piece[: size % len(piece)])
        for sock in socks:
            sock.recv()
        meter.stop()
    return meter.result
