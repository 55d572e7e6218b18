"""What one process of a measurement is told, and the meters that both sides read."""

from __future__ import annotations

import gc
import json
import os
import resource
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field

#: Size of a small message and of a request, bytes.
SMALL = 64
#: What a receiver says when it has all it waited for.
ACK = b"k"
#: The most that one read may give.
READ = 256 * 1024

#: Called by a server once it can be dialled, with what the other side has to know.
Ready = Callable[[dict[str, object]], None]
#: Numbers of one side.
Result = dict[str, object]


@dataclass(frozen=True)
class Job:
    """One measurement of one contender. Sizes in bytes, times in seconds."""

    variant: str
    workload: str
    #: Bytes in all ("bulk"), over `streams` streams, written `chunk` at a time, after `warm` bytes not measured.
    size: int = 0
    streams: int = 1
    chunk: int = READ
    warm: int = 0
    #: Round trips, messages or connections, after `warm_count` that are not measured.
    count: int = 0
    warm_count: int = 0
    #: TCP's congestion control on both ends; "" leaves the machine's default.
    congestion: str = ""
    #: The processors that this side may run on; empty: any.
    cpus: tuple[int, ...] = ()
    #: A folder with the certificate and keys of this run.
    scratch: str = ""
    #: A side that takes longer ends itself.
    timeout: float = 120.0
    extra: dict[str, object] = field(default_factory=dict)

    @property
    def per_stream(self) -> int:
        """Measured bytes of one stream."""
        return self.size // self.streams

    @property
    def warm_per_stream(self) -> int:
        """Bytes of one stream that come before."""
        return self.warm // self.streams

    def dump(self) -> str:
        """For the command line of a side."""
        return json.dumps(asdict(self))

    @classmethod
    def load(cls, text: str) -> Job:
        """The inverse of `dump`."""
        fields = json.loads(text)
        fields["cpus"] = tuple(fields["cpus"])
        return cls(**fields)


def cpu_seconds(others: Sequence[int] = ()) -> float:
    """Processor time of this process with all its threads, and of the processes `others`."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime + sum(map(_cpu_of, others))


def _cpu_of(pid: int) -> float:
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident() -> int:
    """Memory of this process alone, in bytes, after a collection: private pages, so shared libraries don't count."""
    gc.collect()
    total = 0
    with open("/proc/self/smaps_rollup", encoding="ascii") as file:
        for line in file:
            if line.startswith(("Private_Clean:", "Private_Dirty:")):
                total += int(line.split()[1]) * 1024
    return total


class Meter:
    """Time and processor time between `start` and `stop`, of this process and of the processes `others`."""

    def __init__(self, others: Sequence[int] = ()) -> None:
        self.others = others
        self._cpu = self._time = 0.0
        self.seconds = self.cpu = 0.0

    def start(self) -> None:
        """Begin."""
        self._cpu, self._time = cpu_seconds(self.others), time.perf_counter()

    def stop(self) -> None:
        """End."""
        self.seconds = time.perf_counter() - self._time
        self.cpu = cpu_seconds(self.others) - self._cpu

    @property
    def result(self) -> Result:
        """As numbers of a side."""
        return {"seconds": self.seconds, "cpu": self.cpu}


class Progress:
    """Counts, over all streams of a job, who has come to the end of the warm-up and of the measured part."""

    def __init__(self, streams: int, meter: Meter) -> None:
        self._warm = self._left = self._open = streams
        self._meter = meter

    def warmed(self) -> None:
        """One stream has what came before the measured part."""
        self._warm -= 1
        if not self._warm:
            self._meter.start()

    def done(self) -> None:
        """One stream has everything."""
        self._left -= 1
        if not self._left:
            self._meter.stop()

    def ended(self) -> bool:
        """One stream is over; True for the last."""
        self._open -= 1
        return not self._open


def percentile(values: Sequence[float], part: float) -> float:
    """The value below which `part` (0 to 1) of `values` lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def latencies(nanoseconds: Sequence[int]) -> Result:
    """Round trips as numbers of a side, microseconds."""
    return {
        "p50": percentile(nanoseconds, 0.5) / 1000,
        "p99": percentile(nanoseconds, 0.99) / 1000,
    }


def congestion_of(sock: socket.socket | None) -> str:
    """The congestion control that is in force on a TCP socket; "" where that can't be asked."""
    option = getattr(socket, "TCP_CONGESTION", None)
    if sock is None or option is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return ""
    return sock.getsockopt(socket.IPPROTO_TCP, option, 16).split(b"\0")[0].decode()
