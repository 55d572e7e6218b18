"""What is measured in which order: plans of samples, taken in interleaved rounds."""

from __future__ import annotations

import contextlib
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from bench import chain, imports, layers, pay, pipe
from bench.contenders import TABLE, Contender
from bench.job import SMALL, Job
from bench.runner import MeasurementFailed, Outcome, Placement, measure
from dtp.session.noise import HandshakePattern

MIB = 1024 * 1024
GIB = 1024 * MIB

#: Quantities of one sample by name, such as {"MB/s": 2400.0}.
Sample = dict[str, float]


@dataclass(frozen=True)
class Options:
    """What the command line asked for."""

    rounds: int = 5
    size: int = GIB
    chunk: int = 256 * 1024
    quick: bool = False
    only: tuple[str, ...] = ()
    #: Congestion controls for the headline beside the machine's default.
    congestion: tuple[str, ...] = ()
    scratch: str = ""

    @property
    def scale(self) -> float:
        """Part of the usual number of messages, round trips and so on."""
        return 0.1 if self.quick else 1.0


@dataclass
class Row:
    """One line of a section: its samples, one per round, or why there are none."""

    label: str
    take: Callable[[], Sample] | None = None
    missing: str = ""
    notes: dict[str, str] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    #: It is here and could not be measured.
    failed: bool = False

    def medians(self) -> Sample:
        """The median of each quantity."""
        names = self.samples[0] if self.samples else {}
        return {name: statistics.median(sample[name] for sample in self.samples) for name in names}

    def spread(self, name: str) -> float:
        """(largest - smallest) / median of a quantity."""
        values = [sample[name] for sample in self.samples]
        middle = statistics.median(values)
        return (max(values) - min(values)) / middle if middle else 0.0


@dataclass
class Section:
    """A table of the report: rows that are measured in turns (A B C A B C)."""

    name: str
    title: str
    #: The quantities that the table shows, first the one that ranks.
    columns: tuple[str, ...]
    rounds: int
    rows: dict[str, Row] = field(default_factory=dict)

    def run(self) -> None:
        """Take all rounds. A row that fails says why and is left out from then on."""
        for number in range(self.rounds):
            for name, row in self.rows.items():
                if row.take is None or row.missing:
                    continue
                print(
                    f"{self.name}: round {number + 1} of {self.rounds}: {name}", file=sys.stderr, flush=True
                )
                try:
                    row.samples.append(row.take())
                except MeasurementFailed as error:
                    row.missing, row.failed = f"failed: {str(error).splitlines()[-1]}", True
                    print(error, file=sys.stderr)


def names(only: Sequence[str] = (), *, quick: bool = False) -> list[str]:
    """Return the names of the sections that are asked for: all, or those called so, or so and a further word."""
    asked = [
        name
        for name in _SECTIONS
        if not only or any(name == one or name.startswith(one + " ") for one in only)
    ]
    return [name for name in asked if name in _QUICK] if quick else asked


def plan(options: Options) -> Iterator[Section]:
    """The sections that `options` ask for."""
    for name in names(options.only, quick=options.quick):
        yield _SECTIONS[name](options)
    for control in options.congestion:
        if not options.only or "bulk" in options.only:
            yield _bulk(options, streams=1, congestion=control)
        if not options.only or "pay" in options.only:
            yield _pay(options, control)


def _contenders(workload: str, options: Options) -> Iterator[Contender]:
    for contender in TABLE:
        if workload in contender.workloads and (contender.quick or not options.quick):
            yield contender


def _row(contender: Contender, job: Job, placement: Placement, read: Callable[[Outcome, Job], Sample]) -> Row:
    row = Row(contender.label, missing=contender.missing())

    def take() -> Sample:
        outcome = measure(contender, job, placement)
        for numbers in (outcome.client, outcome.server):
            for fact in ("cipher", "congestion"):
                if isinstance(numbers.get(fact), str) and numbers[fact]:
                    row.notes[fact] = str(numbers[fact])
        return read(outcome, job) | {"others": 100 * outcome.foreign}

    row.take = take
    return row


def _number(result: dict[str, object], name: str) -> float:
    value = result[name]
    assert isinstance(value, float | int)
    return float(value)


def _speed(outcome: Outcome, job: Job) -> Sample:
    cpu = _number(outcome.client, "cpu") + _number(outcome.server, "cpu")
    return {
        "MB/s": job.size / _number(outcome.client, "seconds") / 1e6,
        "CPU s/GiB": cpu * GIB / job.size,
        "MB per CPU s": job.size / cpu / 1e6,
    }


def _bulk(options: Options, streams: int, congestion: str = "") -> Section:
    name = f"bulk {streams}" + (f" {congestion}" if congestion else "")
    title = f"{'One stream' if streams == 1 else f'{streams} streams'}, {options.size // MIB} MiB"
    title += f", congestion control {congestion}" if congestion else ""
    section = Section(name, title, ("MB/s", "CPU s/GiB", "MB per CPU s", "others"), options.rounds)
    for contender in _contenders("bulk", options):
        size = max(streams * options.chunk, int(options.size * contender.share) // streams * streams)
        job = Job(
            "",
            "bulk",
            size=size,
            warm=max(size // 16, streams * options.chunk),
            streams=streams,
            chunk=options.chunk,
            congestion=congestion,
            scratch=options.scratch,
        )
        section.rows[contender.name] = _row(contender, job, Placement.apart(), _speed)
    return section


def _round_trips(options: Options, placement: Placement, name: str, title: str) -> Section:
    section = Section(name, title, ("p50", "p99", "CPU us", "others"), options.rounds)
    for contender in _contenders("roundtrip", options):
        count = int(5000 * options.scale * max(contender.share, 1 / 8))
        job = Job("", "roundtrip", count=count, warm_count=count // 10, scratch=options.scratch)

        def read(outcome: Outcome, job: Job) -> Sample:
            cpu = _number(outcome.client, "cpu") + _number(outcome.server, "cpu")
            return {
                "p50": _number(outcome.client, "p50"),
                "p99": _number(outcome.client, "p99"),
                "CPU us": cpu / job.count * 1e6,
            }

        section.rows[contender.name] = _row(contender, job, placement, read)
    return section


def _messages(options: Options) -> Section:
    section = Section(
        "messages",
        f"Messages of {SMALL} B one way, one write each",
        ("messages/s", "CPU us", "others"),
        options.rounds,
    )
    for contender in _contenders("messages", options):
        count = int(300_000 * options.scale * contender.share)
        job = Job("", "messages", size=SMALL * count, warm=SMALL * (count // 10), scratch=options.scratch)

        def read(outcome: Outcome, job: Job) -> Sample:
            count = job.size // SMALL
            cpu = _number(outcome.client, "cpu") + _number(outcome.server, "cpu")
            return {"messages/s": count / _number(outcome.client, "seconds"), "CPU us": cpu / count * 1e6}

        section.rows[contender.name] = _row(contender, job, Placement.apart(), read)
    return section


def _dial(options: Options) -> Section:
    section = Section(
        "dial",
        "New connections per second, both ends on one core: dial, one byte there and back, close",
        ("connections/s", "CPU ms", "others"),
        options.rounds,
    )
    for contender in _contenders("dial", options):
        count = int(600 * options.scale)
        job = Job("", "dial", count=count, warm_count=count // 10, scratch=options.scratch)

        def read(outcome: Outcome, job: Job) -> Sample:
            cpu = _number(outcome.client, "cpu") + _number(outcome.server, "cpu")
            return {
                "connections/s": job.count / _number(outcome.client, "seconds"),
                "CPU ms": cpu / job.count * 1e3,
            }

        section.rows[contender.name] = _row(contender, job, Placement.together(), read)
    return section


def _idle(options: Options) -> Section:
    section = Section(
        "idle", "Memory per idle connection", ("bytes", "client", "server"), min(options.rounds, 3)
    )
    for contender in _contenders("idle", options):
        count = int(2000 * options.scale)
        job = Job("", "idle", count=count, warm_count=50, scratch=options.scratch)

        def read(outcome: Outcome, job: Job) -> Sample:
            client, server = (
                _number(side, "memory") / job.count for side in (outcome.client, outcome.server)
            )
            return {"bytes": client + server, "client": client, "server": server}

        section.rows[contender.name] = _row(contender, job, Placement.apart(), read)
    return section


def _layers(options: Options) -> Section:
    section = Section(
        "layers",
        "The same bytes through each layer, one process; by processor time",
        ("MB/s", "s/GiB"),
        options.rounds,
    )
    size = max(64 * MIB, options.size // 4)
    for name, run in layers.rows(("AESGCM", "ChaChaPoly")).items():

        def take(run: Callable[[int], float] = run) -> Sample:
            run(size // 16)
            seconds = run(size)
            return {"MB/s": size / seconds / 1e6, "s/GiB": seconds * GIB / size}

        section.rows[name] = Row(name, take)
    return section


def _handshakes(options: Options) -> Section:
    title = "Handshakes in memory, both ends on one core; by processor time"
    section = Section("handshakes", title, ("/s",), options.rounds)
    for pattern in (HandshakePattern.IK, HandshakePattern.XX):

        def take(pattern: HandshakePattern = pattern) -> Sample:
            layers.handshakes_per_second(pattern, 0.2)
            return {"/s": layers.handshakes_per_second(pattern, 2.0 * max(options.scale, 0.25))}

        section.rows[pattern.name] = Row(
            f"Noise {pattern.name}, AES-256-GCM, SHA-256, identities checked", take
        )
    return section


def _small(options: Options) -> Section:
    section = Section(
        "small",
        "One 64 B message at a time through two sessions in memory; by processor time",
        ("us",),
        options.rounds,
    )
    for cipher in ("AESGCM", "ChaChaPoly"):

        def take(cipher: str = cipher) -> Sample:
            return {"us": layers.small_messages(int(20_000 * options.scale), cipher)}

        section.rows[cipher] = Row(cipher, take)
    return section


def _import(options: Options) -> Section:
    section = Section(
        "import", "In a fresh interpreter", ("ms", "modules", "foreign modules"), 3 * options.rounds
    )
    for name in imports.ROWS:

        def take(name: str = name) -> Sample:
            took, foreign, modules = imports.measure(name)
            if foreign:
                section.rows[name].notes["foreign"] = ", ".join(foreign)
            return {"ms": took, "modules": float(modules), "foreign modules": float(len(foreign))}

        section.rows[name] = Row(f"`{imports.ROWS[name]}`", take)
    return section


def _claims(options: Options) -> Section:
    section = Section(
        "claims",
        "Channel claims against the embedded node, node and client on one core",
        ("claims/s", "p50", "p99", "CPU us", "node us", "others"),
        options.rounds,
    )
    for contender in chain.CONTENDERS:
        count = int(1000 * options.scale)
        job = Job("", "claims", count=count, warm_count=30, scratch=options.scratch)

        def read(outcome: Outcome, job: Job) -> Sample:
            cpu, client = _number(outcome.client, "cpu"), _number(outcome.client, "client")
            return {
                "claims/s": job.count / _number(outcome.client, "seconds"),
                "p50": _number(outcome.client, "p50"),
                "p99": _number(outcome.client, "p99"),
                "CPU us": cpu / job.count * 1e6,
                "node us": (cpu - client) / job.count * 1e6,
            }

        section.rows[contender.name] = _row(contender, job, Placement.together(), read)
    return section


def _pipes(options: Options) -> Section:
    section = Section(
        "pipes",
        "Bytes through the chain: both ends on one core, the embedded node on another",
        ("KiB/s", "round trip ms", "CPU ms/MiB", "others"),
        options.rounds,
    )
    for contender in pipe.CONTENDERS:
        job = Job("", "pipes", count=5, scratch=options.scratch)

        def read(outcome: Outcome, job: Job) -> Sample:
            size = _number(outcome.client, "bytes")
            return {
                "KiB/s": size / 1024 / _number(outcome.client, "seconds"),
                "round trip ms": _number(outcome.client, "p50") / 1000,
                "CPU ms/MiB": _number(outcome.client, "cpu") / size * MIB * 1000,
            }

        section.rows[contender.name] = _row(contender, job, Placement.apart(), read)
    return section


def _pay(options: Options, congestion: str = "") -> Section:
    section = Section(
        f"pay {congestion}" if congestion else "pay",
        "A paid stream, two processes: vouchers signed, sent, checked and stored on both disks"
        + (f", congestion control {congestion}" if congestion else ""),
        ("MB/s", "CPU s/GiB", "MB per CPU s", "vouchers", "others"),
        options.rounds,
    )
    for contender in pay.CONTENDERS:
        job = Job("", "pay", size=options.size, warm=pay.WARM, congestion=congestion, scratch=options.scratch)

        def read(outcome: Outcome, job: Job) -> Sample:
            seconds, cpu = _number(outcome.client, "seconds"), _number(outcome.client, "cpu")
            return {
                "MB/s": job.size / seconds / 1e6,
                "CPU s/GiB": cpu * GIB / job.size,
                "MB per CPU s": job.size / cpu / 1e6,
                "vouchers": _number(outcome.client, "vouchers"),
            }

        # Not pinned: a server's store has a thread of its own, which the system puts where there is room.
        section.rows[contender.name] = _row(contender, job, Placement((), ()), read)
    return section


def _vouchers(options: Options) -> Section:
    section = Section("vouchers", "Vouchers on one core; by processor time", ("/s",), options.rounds)
    labels = {
        "signed": "signed and put into a frame",
        "checked": "taken out and checked",
        "both": "signed and checked",
    }
    for name, label in labels.items():

        def take(name: str = name) -> Sample:
            return {"/s": pay.vouchers(int(5000 * max(options.scale, 0.2)))[name]}

        section.rows[name] = Row(label, take)
    return section


def _gas(options: Options) -> Section:
    section = Section(
        "gas", "Gas of a channel's transactions on localnet, storage given back counted", ("MIST",), 1
    )
    for name in pay.TRANSACTIONS:
        section.rows[name] = Row(name, lambda name=name: {"MIST": float(pay.gas()[name])})  # type: ignore[misc]
    return section


def _gas_of_volumes(options: Options) -> Section:
    title = "SUI of gas for each GiB, or each million requests, of which a channel carries so many"
    section = Section("gas per volume", title, ("SUI", "SUI with ten claims"), 1)
    for per in pay.VOLUMES:

        def take(per: int = per) -> Sample:
            agreed, claimed = pay.volumes(pay.gas())[per]
            return {"SUI": agreed, "SUI with ten claims": claimed}

        section.rows[str(per)] = Row(f"{per:,} in a channel", take)
    return section


def _publish(options: Options) -> Section:
    section = Section("publish", "The transaction that publishes a package", ("transaction bytes",), 1)
    section.rows["transport"] = Row(
        "transport", lambda: {"transaction bytes": float(chain.publish_bytes("transport"))}
    )
    return section


_SECTIONS: dict[str, Callable[[Options], Section]] = {
    "bulk 1": lambda options: _bulk(options, 1),
    "bulk 8": lambda options: _bulk(options, 8),
    # Of those that `--quick` measures: the others would take as long as all other sections together.
    "bulk 400": lambda options: _bulk(
        replace(options, chunk=min(options.chunk, 64 * 1024), quick=True), streams=400
    ),
    "roundtrip": lambda options: _round_trips(
        options, Placement.apart(), "roundtrip", f"Round trips of {SMALL} B, a core each"
    ),
    "roundtrip one core": lambda options: _round_trips(
        options,
        Placement.together(),
        "roundtrip one core",
        f"Round trips of {SMALL} B, both ends on one core",
    ),
    "messages": _messages,
    "dial": _dial,
    "handshakes": _handshakes,
    "idle": _idle,
    "layers": _layers,
    "small": _small,
    "import": _import,
    "claims": _claims,
    "pipes": _pipes,
    "pay": _pay,
    "vouchers": _vouchers,
    "gas": _gas,
    "gas per volume": _gas_of_volumes,
    "publish": _publish,
}
_QUICK = (
    *("bulk 1", "roundtrip one core", "handshakes", "idle", "layers", "import", "claims"),
    *("pay", "vouchers", "gas", "publish"),
)


def run(options: Options) -> Iterator[tuple[list[Section], float]]:
    """After each section: all that are done, and the seconds since the start. Ctrl-C ends a section early."""
    started = time.monotonic()
    sections: list[Section] = []
    for section in plan(options):
        with contextlib.suppress(KeyboardInterrupt):
            section.run()
        sections.append(section)
        yield sections, time.monotonic() - started


def quickened(options: Options) -> Options:
    """For continuous integration: under a minute, one round, little data."""
    return replace(options, quick=True, rounds=1, size=min(options.size, 128 * MIB))
