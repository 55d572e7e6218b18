"""Runs both sides of a measurement as processes of their own, on cores of their own, and gathers their numbers."""

from __future__ import annotations

import json
import os
import resource
import select
import subprocess
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

from bench.contenders import Contender
from bench.job import Job, Result

ROOT = Path(__file__).resolve().parent.parent
#: Seconds that a side has to end after its numbers.
END = 15.0


class MeasurementFailed(Exception):
    """A side ended without its numbers; the message has the end of what it said."""


@dataclass(frozen=True)
class Placement:
    """The cores of the server and of the client; empty: not pinned."""

    server: tuple[int, ...]
    client: tuple[int, ...]

    @classmethod
    def apart(cls) -> Placement:
        """A core each, where there are two."""
        cores = sorted(os.sched_getaffinity(0))
        return cls((cores[0],), (cores[1],)) if len(cores) > 1 else cls.together()

    @classmethod
    def together(cls) -> Placement:
        """Both on one core."""
        core = (min(os.sched_getaffinity(0)),)
        return cls(core, core)


@dataclass(frozen=True)
class Outcome:
    """The numbers of both sides, and the part of the machine (0 to 1) that others used meanwhile."""

    server: Result
    client: Result
    foreign: float


def measure(contender: Contender, job: Job, placement: Placement) -> Outcome:
    """Run `job` once. Raises `MeasurementFailed`."""
    job = replace(job, variant=contender.variant)
    before = _machine_busy(), _own_cpu(), time.monotonic()
    with _Side(contender, "serve", replace(job, cpus=placement.server)) as server:
        where = server.line()
        with _Side(contender, "drive", replace(job, cpus=placement.client), json.dumps(where)) as client:
            client_result = client.line()
            server_result = server.line()
    busy, own, now = _machine_busy(), _own_cpu(), time.monotonic()
    elapsed = (now - before[2]) * (os.cpu_count() or 1)
    foreign = max(0.0, (busy - before[0]) - (own - before[1])) / elapsed
    return Outcome(server_result, client_result, foreign)


class _Side:
    """One process. Leaving `with` by an exception kills it; otherwise it has some seconds to end."""

    def __init__(self, contender: Contender, role: str, job: Job, *more: str) -> None:
        self._timeout = job.timeout
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self._process = subprocess.Popen(
            [contender.python, "-m", "bench.side", role, contender.module, job.dump(), *more],
            cwd=ROOT,
            env=os.environ | dict(contender.env) | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            bufsize=0,  # so that `select` sees every line
        )

    def line(self) -> Result:
        """The next line of JSON that it prints. Raises `MeasurementFailed`."""
        assert self._process.stdout is not None
        readable, _, _ = select.select([self._process.stdout], [], [], self._timeout)
        line = self._process.stdout.readline() if readable else b""
        if not line:
            self._errors.seek(0)
            said = self._errors.read().decode(errors="replace").strip()
            raise MeasurementFailed(said[-600:] or "no answer in time")
        found: Result = json.loads(line)
        return found

    def __enter__(self) -> _Side:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            self._process.kill()
        try:
            self._process.wait(END)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._errors.close()


def _machine_busy() -> float:
    """Seconds that all cores were busy since the machine started, without what a hypervisor took away."""
    with open("/proc/stat", encoding="ascii") as file:
        user, nice, system, _idle, _wait, irq, softirq, *_ = map(int, file.readline().split()[1:])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def _own_cpu() -> float:
    total = 0.0
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        usage = resource.getrusage(who)
        total += usage.ru_utime + usage.ru_stime
    return total
