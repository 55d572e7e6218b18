"""Blocking sockets with nothing around them: what the kernel can do."""

from __future__ import annotations

import socket
import time
from typing import Any

from bench.job import ACK, READ, SMALL, Job, Meter, Ready, Result, congestion_of, latencies


def serve(job: Job, ready: Ready) -> Result:
    """The server's side; one thread, so streams are served one after another."""
    meter = Meter()
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        ready({"port": listener.getsockname()[1]})
        facts: Result = {"congestion": congestion_of(listener)}
        socks = [listener.accept()[0] for _ in range(job.streams)]
        for sock in socks:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if job.workload == "roundtrip":
            _echo(job, socks[0], meter)
        else:
            _sink(job, socks, meter)
        for sock in socks:
            sock.recv(1)
            sock.close()
    return meter.result | facts


def _echo(job: Job, sock: socket.socket, meter: Meter) -> None:
    buffer = memoryview(bytearray(SMALL))
    for count in (job.warm_count, job.count):
        meter.start()
        for _ in range(count):
            _receive(sock, buffer)
            sock.sendall(buffer)
        meter.stop()


def _sink(job: Job, socks: list[socket.socket], meter: Meter) -> None:
    buffer = bytearray(READ)
    for size in (job.warm_per_stream, job.per_stream):
        meter.start()
        for sock in socks:
            left = size
            while left:
                left -= sock.recv_into(buffer, min(READ, left))
            sock.sendall(ACK)
        meter.stop()


def _receive(sock: socket.socket, buffer: memoryview) -> None:
    have = 0
    while have < len(buffer):
        have += sock.recv_into(buffer[have:])


def drive(job: Job, where: dict[str, Any]) -> Result:
    """The client's side."""
    socks = [socket.create_connection(("127.0.0.1", where["port"])) for _ in range(job.streams)]
    for sock in socks:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    result = _ask(job, socks[0]) if job.workload == "roundtrip" else _send(job, socks)
    for sock in socks:
        sock.close()
    return result


def _ask(job: Job, sock: socket.socket) -> Result:
    question = memoryview(bytearray(SMALL))
    times: list[int] = []
    meter = Meter()
    for count in (job.warm_count, job.count):
        meter.start()
        times.clear()
        for _ in range(count):
            asked = time.perf_counter_ns()
            sock.sendall(question)
            _receive(sock, question)
            times.append(time.perf_counter_ns() - asked)
        meter.stop()
    return meter.result | latencies(times)


def _send(job: Job, socks: list[socket.socket]) -> Result:
    piece = bytes(SMALL) if job.workload == "messages" else bytes(job.chunk)
    meter = Meter()
    for size in (job.warm_per_stream, job.per_stream):
        meter.start()
        for sock in socks:
            for _ in range(size // len(piece)):
                sock.sendall(piece)
            sock.sendall(piece[: size % len(piece)])
            sock.recv(1)
        meter.stop()
    return meter.result
