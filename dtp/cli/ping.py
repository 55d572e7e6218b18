"""`dtp ping`: is a peer there, is it the right one, and how long does a round trip take."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Sequence
from typing import Any

import click

from dtp.cli.durations import duration
from dtp.cli.options import (
    IdentitySource,
    address_argument,
    identity_options,
    psk_file_option,
    verbose_option,
)
from dtp.cli.output import json_option, print_line
from dtp.cli.run import run
from dtp.errors import CarrierError
from dtp.identity import Identity
from dtp.net.address import Address
from dtp.net.connection import Connection
from dtp.net.dial import connect
from dtp.plurals import count_of


class NoAnswer(CarrierError):
    """A ping was not answered in time."""

    code = "no-answer"


@click.command()
@address_argument
@click.option("-c", "--count", type=click.IntRange(min=0), default=4, show_default=True,
              help="Pings to send; 0: until interrupted.")  # fmt: skip
@click.option("--interval", type=duration(), default="1s", show_default=True,
              help="From one ping to the next.")  # fmt: skip
@click.option("-t", "--timeout", "patience", type=duration(0.001), default="10s",
              show_default=True, help="How long to wait for an answer.")  # fmt: skip
@identity_options("--identity", "-i")
@psk_file_option
@verbose_option
@json_option
def ping(
    address: Address,
    count: int,
    interval: float,
    patience: float,
    identity: IdentitySource,
    psk: bytes | None,
) -> None:
    """Connect to a peer and measure round trips within the connection.

    Two connections are made, one by Noise XX as with an unknown peer and one by IK with its key known, to show
    what each handshake takes (with dialling).

    \b
    Examples:
      dtp ping dtp+tcp://dtp1...@127.0.0.1:9700/echo
      dtp ping -c 100 --interval 0.01 --json dtp://alice
    """
    run(_ping(address, identity.load_or_make(), psk, count, interval, patience))


async def _ping(
    address: Address, identity: Identity, psk: bytes | None, count: int, interval: float, patience: float
) -> None:
    seconds = []
    for known in (False, True):
        began = time.perf_counter()
        async with connect(address, identity=identity, psk=psk) as connection:
            seconds.append(time.perf_counter() - began)
            if known:
                _print_connected(connection, *seconds)
                await _round_trips(connection, count, interval, patience)


async def _round_trips(connection: Connection, count: int, interval: float, patience: float) -> None:
    times: list[float] = []
    try:
        while True:
            times.append(await _one(connection, patience))
            ms = times[-1] * 1000
            print_line({"event": "pong", "number": len(times), "rtt_ms": round(ms, 3)},
                           f"{len(times):>4}  {ms:8.3f} ms")  # fmt: skip
            if len(times) == count:
                break
            await asyncio.sleep(interval)
    finally:
        if times:
            _print_summary(times)


async def _one(connection: Connection, patience: float) -> float:
    try:
        async with asyncio.timeout(patience):
            return await connection.ping()
    except TimeoutError:
        raise NoAnswer(f"{connection.peer} did not answer within {patience:g} s") from None


def _print_connected(connection: Connection, unknown: float, known: float) -> None:
    stats = connection.stats
    carrier = stats.carriers[0] if stats.carriers else ""
    record: dict[str, Any] = {
        "event": "connected",
        "peer": str(connection.peer),
        "carrier": carrier,
        "cipher": stats.cipher,
        "handshake": stats.handshake,
        "connect_ms": round(unknown * 1000, 3),
        "connect_known_ms": round(known * 1000, 3),
    }
    print_line(
        record,
        f"peer       {connection.peer}\n"
        f"carrier    {carrier}\n"
        f"handshake  {stats.handshake}\n"
        f"cipher     {stats.cipher}\n"
        f"connected  in {unknown * 1000:.1f} ms; again, with its key known, in {known * 1000:.1f} ms",
    )


def _print_summary(times: Sequence[float]) -> None:
    ms = sorted(seconds * 1000 for seconds in times)
    figures = {
        "min": ms[0],
        "avg": statistics.fmean(ms),
        "p50": statistics.median(ms),
        "p99": ms[min(len(ms) - 1, len(ms) * 99 // 100)],
        "max": ms[-1],
    }
    text = "  ".join(f"{name} {value:.3f}" for name, value in figures.items())
    record = {f"{name}_ms": round(value, 3) for name, value in figures.items()}
    trips = count_of(len(ms), "round trip")
    print_line({"event": "summary", "count": len(ms), **record}, f"{trips}: {text} ms")
