"""`python -m bench.hostile`: what a visitor and newcomers feel while others attack the same listener.

Listener, attackers and the one that measures are processes of their own. Where the cores are fewer than the processes
attackers take processor time from everybody, whatever the listener does: the row `processor only` has as many
processes that connect to nothing, `honest and busy` as many connections with small round trips. What the listener
itself makes others wait is in `wait p99`: the processor time that it took between a request of the visitor and its
answer, whoever else had the processors meanwhile (not with HTTP, where a backend answers); and in `turn p99`: of its
processor time, 99 hundredths passed in turns of the loop no longer than that. `turns stolen` are long ones in which
the host of a virtual machine took a processor away, which its clocks count as used: they are in no other figure.
`own` is a visitor's round trips without the time in which the listener, or the visitor, was ready to run and had no
processor (`/proc/PID/schedstat`), and `queued` the part of the whole time in which the listener was.
The visitor is there before the attack, and stays: a round trip whose connection is lost lasts until one over another
is answered, and `lost` counts the attempts. Newcomers who are turned away come again until they are in.
`plain` is a visitor of a plain server of asyncio (`bench.hostile_plain`) while as many attack that in the same way,
and `ratio` the listener's p99 to it: what is left of a long wait when the machine's own part is taken away.

Two minutes for the half-open handshakes alone: `python -m bench.hostile --only "processor only" --only half-open
--seconds 24`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import datetime
import functools
import json
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import dtp
from bench import hostile_carriers, hostile_plain, machine
from bench.hostile_frames import TINY
from bench.hostile_http import ANSWER_END, ASKED
from bench.hostile_side import CLOCK, GOING, MOVING, PSK
from bench.runner import ROOT, MeasurementFailed

ATTACKS = ("processor only", "honest and busy", *TINY, *MOVING, "all in step", "memory holders", *GOING,
           "half-open", "half-open elsewhere", "strangers to a key", "IK, recorded", "IK, fresh", "IK by nobody",
           "resumes of others", "slow loris", "malformed HTTP, one caller", "malformed HTTP",
           "HTTP given up", "busy HTTP, one caller", "busy HTTP", *hostile_carriers.ATTACKS)  # fmt: skip
#: The bar: the visitor's p99 while the listener is attacked, and after, in ms.
BAR = 20.0
#: Seconds after the attack in which descriptors are to be given back.
SOON = 8.0
#: A round trip that takes longer is given up, and counts as so long; so is an attempt of a newcomer.
GIVE_UP = 5.0
Figures = dict[str, float]
T = TypeVar("T")


def _side(*arguments: object, nice: int = 0) -> subprocess.Popen[str]:
    way = ["nice", "-n", str(nice)] if nice else []
    return subprocess.Popen(
        [*way, sys.executable, "-m", "bench.hostile_side", *map(str, arguments)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


@contextlib.contextmanager
def _ended(*processes: subprocess.Popen[str]) -> Iterator[None]:
    try:
        yield
    finally:
        for each in processes:
            each.kill()
        for each in processes:
            each.communicate()


def _percentile(times: list[float], part: float) -> float:
    """In ms; what nobody got through in the whole time is endless."""
    ordered = sorted(times)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))] * 1e3 if ordered else float("inf")


async def _ask(stream: dtp.Stream, *, http: bool) -> None:
    """One round trip: of 64 bytes, or a request of HTTP."""
    stream.write(ASKED if http else bytes(64))
    await (stream.readuntil(ANSWER_END) if http else stream.readexactly(64))


def _queued(*processes: int) -> float:
    """Return the seconds for which processes were ready and had no processor; 0 where the system doesn't tell."""
    try:
        return sum(int(Path(f"/proc/{each}/schedstat").read_text().split()[1]) for each in processes) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0


class Visitor:
    """One who was there before the attack, over one connection, and comes again when that is lost."""

    def __init__(self, address: str, *, psk: bytes | None, service: str | None = None) -> None:
        self._dial = functools.partial(dtp.connect, address, psk=psk, service=service)
        self._here: tuple[dtp.Connection, dtp.Stream] | None = None
        #: How often its connection was lost, or a round trip given up.
        self.lost = 0

    async def ask(self, exchange: Callable[[dtp.Stream], Awaitable[T]]) -> T:
        """Return what an exchange over its stream gives, over another connection where this one is lost. Raises
        `TimeoutError` when that takes too long."""
        try:
            async with asyncio.timeout(GIVE_UP):
                while True:
                    with contextlib.suppress(dtp.DtpError):
                        return await exchange(await self._come())
                    self._note_lost()
        except TimeoutError:
            self._note_lost()
            raise

    def _note_lost(self) -> None:
        self.leave()
        self.lost += 1

    async def _come(self) -> dtp.Stream:
        if self._here is None:
            connection = await self._dial()
            self._here = connection, await connection.open_stream()
        return self._here[1]

    def leave(self) -> None:
        """End the connection, if there is one."""
        if self._here is not None:
            self._here[0].abort()
            self._here = None


async def _visit(
    visitor: Visitor, until: float, *, http: bool, server: int
) -> tuple[list[float], list[float]]:
    """Return the seconds of round trips, and what is left of them without waits for a processor."""
    times: list[float] = []
    own: list[float] = []
    while (began := time.monotonic()) < until:
        queued = _queued(server, os.getpid())
        with contextlib.suppress(TimeoutError):
            await visitor.ask(functools.partial(_ask, http=http))
        times.append(time.monotonic() - began)
        own.append(max(0.0, times[-1] - _queued(server, os.getpid()) + queued))
        await asyncio.sleep(0.001)
    return times, own


async def _come(address: str, until: float, *, http: bool, psk: bytes | None) -> list[float]:
    """Return the seconds that newcomers took, one after the other, up to the answer to the first thing each says. Who
    is turned away comes again until it is in."""
    times: list[float] = []
    began = time.monotonic()
    while time.monotonic() < until:
        with contextlib.suppress(dtp.DtpError, TimeoutError):
            async with asyncio.timeout(GIVE_UP), dtp.connect(address, psk=psk) as connection:
                stream = await connection.open_stream()
                await _ask(stream, http=http)
                times.append(time.monotonic() - began)
                connection.abort()
                began = time.monotonic() + 0.02
        await asyncio.sleep(0.02)
    return times


async def _wait(visitor: Visitor | None, until: float, *, server: int) -> list[float]:
    """Return the seconds of the listener's own processor time up to its answers to 100 requests a second."""
    waits: list[float] = []
    clock = _clock_of(server)

    async def tell(stream: dtp.Stream) -> float:
        asked = time.clock_gettime(clock)
        stream.write(b"?")
        (answered,) = CLOCK.unpack(await stream.readexactly(CLOCK.size))
        return float(answered - asked)

    while visitor is not None and time.monotonic() < until:
        with contextlib.suppress(TimeoutError):
            waits.append(await visitor.ask(tell))
        await asyncio.sleep(0.01)
    return waits


def _clock_of(process: int) -> int:
    """The clock of the processor time of another process: `clock_getcpuclockid(3)`, which Python doesn't have."""
    return (~process << 3) | 2


@dataclass
class Guests:
    """Those who feel an attack: a visitor, one who asks for the listener's processor time (not with HTTP), and
    newcomers."""

    address: str
    http: bool
    psk: bytes | None
    server: int

    def __post_init__(self) -> None:
        self.visitor = Visitor(self.address, psk=self.psk)
        self.asker = None if self.http else Visitor(self.address, psk=self.psk, service="time")

    async def feel(self, name: str, seconds: float) -> Figures:
        """Return what they feel for so long; `name` goes before each figure."""
        began, queued, lost = time.monotonic(), _queued(self.server), self.visitor.lost
        until = began + seconds
        (visits, own), newcomers, waits = await asyncio.gather(
            _visit(self.visitor, until, http=self.http, server=self.server),
            _come(self.address, until, http=self.http, psk=self.psk),
            _wait(self.asker, until, server=self.server),
        )
        return {
            f"{name} p50": _percentile(visits, 0.5),
            f"{name} p99": _percentile(visits, 0.99),
            f"{name} lost": self.visitor.lost - lost,
            f"{name} own p99": _percentile(own, 0.99),
            f"{name} queued": (_queued(self.server) - queued) / (time.monotonic() - began),
            f"{name} newcomers": len(newcomers) / seconds,
            f"{name} new p50": _percentile(newcomers, 0.5),
            f"{name} new p99": _percentile(newcomers, 0.99),
            **({} if self.asker is None else {f"{name} wait p99": _percentile(waits, 0.99)}),
        }

    async def leave(self) -> None:
        """End their connections."""
        for each in (self.visitor, self.asker):
            if each is not None:
                each.leave()


def _turns(server: subprocess.Popen[str]) -> Figures:
    """Figures of the turns of the listener's loop since this was asked last."""
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write("\n")
    server.stdin.flush()
    found: Figures = json.loads(server.stdout.readline())
    return found


def _memory(pid: int) -> float:
    """MiB that a process has had at most."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def measure(attack: str, attackers: int, processes: int, seconds: float, nice: int = 0) -> Figures:
    """Return the figures of one attack, against a listener of its own. Attackers give way to it by `nice`."""
    with contextlib.ExitStack() as stack:
        backend = []
        if http := "HTTP" in attack:
            back = _side("back")
            stack.enter_context(_ended(back))
            assert back.stdout is not None
            backend = [back.stdout.readline().strip()]
        psk = PSK if attack == "strangers to a key" else None
        listening = backend or (hostile_carriers.listen_arguments(attack) if psk is None else ["psk"])
        server = _side("listen", *listening)
        stack.enter_context(_ended(server))
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        host, _, port = address.rpartition("@")[2].partition("/")[0].partition("?")[0].rpartition(":")
        guests = Guests(address, http, psk, server.pid)
        runner = stack.enter_context(asyncio.Runner())
        figures = runner.run(guests.feel("before", seconds / 2))
        if "one caller" in attack:
            attackers = processes = 1
        crowd = [
            _side("attack", attack, attackers // processes, address, host, port, nice=nice)
            for _ in range(processes)
        ]
        with _ended(*crowd):
            time.sleep(1.0)  # they have to start
            _turns(server)
            figures |= runner.run(guests.feel("during", seconds)) | _turns(server)
            if any(each.poll() is not None for each in crowd):
                raise MeasurementFailed(f"{attack}: attackers could not attack")
            figures["descriptors"] = len(list(Path(f"/proc/{server.pid}/fd").iterdir()))
        figures |= runner.run(guests.feel("after", seconds / 2))
        runner.run(guests.leave())
        figures["MiB"] = _memory(server.pid)
        time.sleep(max(0.0, SOON - seconds / 2))
        figures["descriptors after"] = len(list(Path(f"/proc/{server.pid}/fd").iterdir()))
    if attack in hostile_plain.ATTACKS:
        figures |= _control(attack, attackers, processes, seconds, nice)
        figures["ratio"] = figures["during p99"] / figures["plain p99"]
    return figures


def _control(attack: str, attackers: int, processes: int, seconds: float, nice: int) -> Figures:
    """Return what a visitor of a plain server feels while the same attack it: what the machine alone costs."""
    http, backend = "HTTP" in attack, []
    with contextlib.ExitStack() as stack:
        if http:
            back = _side("back")
            stack.enter_context(_ended(back))
            assert back.stdout is not None
            backend = [back.stdout.readline().strip()]
        server = _side("plain", *backend)
        stack.enter_context(_ended(server))
        assert server.stdout is not None
        port = int(server.stdout.readline())
        crowd = [
            _side("plain-attack", attack, attackers // processes, port, nice=nice) for _ in range(processes)
        ]
        stack.enter_context(_ended(*crowd))
        time.sleep(1.0)  # they have to start
        times = asyncio.run(hostile_plain.visit(port, time.monotonic() + seconds, http=http))
        if any(each.poll() is not None for each in crowd):
            raise MeasurementFailed(f"{attack}: attackers could not attack the plain server")
    return {"plain p50": _percentile(times, 0.5), "plain p99": _percentile(times, 0.99)}


_COLUMNS = ("before p50", "before p99", "during p50", "during p99", "during lost", "during own p99",
            "during queued", "after p99", "after own p99", "before new p50",
            "during new p50", "during new p99", "during newcomers", "after new p99", "before wait p99",
            "during wait p99", "after wait p99", "turn p99", "turn max", "turns stolen", "MiB", "descriptors",
            "descriptors after", "plain p50", "plain p99", "ratio")  # fmt: skip


def as_markdown(facts: dict[str, object], rows: dict[str, Figures], date: str) -> str:
    """Return the table, with the machine and the date."""
    lines = [f"# Under attack, {date}", "", *(f"- {key}: {value}" for key, value in facts.items()), ""]
    lines += [
        "Times in ms; `newcomers` a second. The verdict is of the visitor's p99 and of whether newcomers get in."
    ]
    lines += ["", "| attack | " + " | ".join(_COLUMNS) + " | verdict |", "|---" * (len(_COLUMNS) + 2) + "|"]
    for name, row in rows.items():
        cells = [f"{row[column]:.3g}" if column in row else "" for column in _COLUMNS]
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {verdict(row)} |")
    return "\n".join(lines) + "\n"


def verdict(row: Figures) -> str:
    """Return whether the bar was met."""
    met = max(row["during p99"], row["after p99"]) < BAR
    got_in = min(row["during newcomers"], row["after newcomers"]) > 0
    return "met" if met and got_in else "missed"


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m bench.hostile", description=__doc__)
    parser.add_argument("--only", action="append", choices=ATTACKS, help="one attack (repeatable)")
    parser.add_argument("--attackers", type=int, default=32, help="how many connect (default 32)")
    parser.add_argument("--processes", type=int, default=2, help="... from so many processes (default 2)")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of an attack (default 4)")
    parser.add_argument(
        "--nice",
        type=int,
        default=0,
        help="attackers give way to the listener by so much (19: they have what it leaves; default 0)",
    )
    parser.add_argument("--save", action="store_true", help="keep the result in bench/results")
    arguments = parser.parse_args()
    date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
    rows, facts = {}, machine.facts()
    for name in arguments.only or ATTACKS:
        print(name, file=sys.stderr, flush=True)
        rows[name] = measure(
            name, arguments.attackers, arguments.processes, arguments.seconds, arguments.nice
        )
    chosen = {
        "attackers": arguments.attackers,
        "processes": arguments.processes,
        "seconds": arguments.seconds,
        "attackers' nice": arguments.nice,
    }
    facts |= chosen | {"load average at the end": machine.load()}
    text = as_markdown(facts, rows, date)
    if arguments.save:
        base = ROOT / "bench" / "results" / f"{date}-hostile"
        base.with_suffix(".md").write_text(text, encoding="utf-8")
        base.with_suffix(".json").write_text(json.dumps({"facts": facts, "rows": rows}, indent=1) + "\n")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
