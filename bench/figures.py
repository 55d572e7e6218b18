"""The figures that were promised: each a ratio within one run, its target, and whether it is met."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

#: Medians of a run: (section, row, quantity) -> number, or None when it was not measured.
Lookup = Callable[[str, str, str], float | None]


@dataclass(frozen=True)
class Figure:
    """One promise. `measure` gives the number from the medians of a run, None when a part of it is missing."""

    name: str
    target: float
    #: The number has to be at least the target, or (False) below it.
    at_least: bool
    unit: str
    measure: Callable[[Lookup], float | None]
    #: What would be better still, for the reader.
    aim: str = ""
    #: The same by processor time of both ends, which a busy machine blurs less. Not what the verdict is about.
    by_cpu: Callable[[Lookup], float | None] | None = None

    def verdict(self, value: float | None) -> str:
        """`met`, `missed` or `not measured`."""
        if value is None:
            return "not measured"
        return "met" if (value >= self.target) == self.at_least or value == self.target else "missed"


def _ratio(section: str, ours: str, theirs: str, quantity: str) -> Callable[[Lookup], float | None]:
    def measure(look: Lookup) -> float | None:
        above, below = look(section, ours, quantity), look(section, theirs, quantity)
        return above / below if above is not None and below else None

    return measure


def _value(section: str, row: str, quantity: str, scale: float = 1.0) -> Callable[[Lookup], float | None]:
    def measure(look: Lookup) -> float | None:
        value = look(section, row, quantity)
        return value * scale if value is not None else None

    return measure


def _per_second(section: str, row: str, microseconds: str) -> Callable[[Lookup], float | None]:
    def measure(look: Lookup) -> float | None:
        value = look(section, row, microseconds)
        return 1e6 / value if value else None

    return measure


def _bulk(name: str, target: float, ours: str, theirs: str, aim: str = "") -> Figure:
    """A figure of one stream's throughput."""
    return Figure(
        name,
        target,
        at_least=True,
        unit="x",
        measure=_ratio("bulk 1", ours, theirs, "MB/s"),
        aim=aim,
        by_cpu=_ratio("bulk 1", ours, theirs, "MB per CPU s"),
    )


_ONE = "one stream, "
FIGURES: tuple[Figure, ...] = (
    _bulk(_ONE + "against asyncio TLS BufferedProtocol", 1.5, "dtp", "tls-buffered", aim="3 x"),
    _bulk(
        "the same, both with callbacks: create_connection() against asyncio TLS BufferedProtocol",
        1.5,
        "dtp-protocol",
        "tls-buffered",
        aim="3 x",
    ),
    _bulk(_ONE + "against asyncio TLS streams", 4, "dtp", "tls-streams"),
    _bulk(_ONE + "against asyncio TCP BufferedProtocol", 0.6, "dtp", "raw-buffered"),
    _bulk(_ONE + "against py-libp2p Noise", 15, "dtp", "libp2p"),
    _bulk(_ONE + "against noiseprotocol", 10, "dtp", "noise"),
    _bulk("open_connection() against asyncio TLS streams", 1.5, "dtp-open", "tls-streams"),
    Figure(
        "64 B round trip p50, asyncio TLS streams' to DTP's, on two cores",
        1,
        True,
        "x",
        _ratio("roundtrip", "tls-streams", "dtp", "p50"),
    ),
    Figure("the same on one core", 1, True, "x", _ratio("roundtrip one core", "tls-streams", "dtp", "p50")),
    Figure("handshakes, IK, both ends on one core", 1200, True, "/s", _value("handshakes", "IK", "/s")),
    Figure(
        "memory per idle connection, both ends", 40, False, "KiB", _value("idle", "dtp", "bytes", 1 / 1024)
    ),
    Figure("import dtp", 80, False, "ms", _value("import", "import dtp", "ms")),
    Figure(
        "modules of chain, payment, p2p or WebSocket loaded by it",
        0,
        False,
        "",
        _value("import", "import dtp", "foreign modules"),
    ),
    Figure(
        "channel claims through gRPC and pysui, node and client on one core, gas simulated",
        150,
        True,
        "/s",
        _value("claims", "simulated", "claims/s"),
        by_cpu=_per_second("claims", "simulated", "CPU us"),
    ),
    Figure(
        "the same with a gas budget",
        150,
        True,
        "/s",
        _value("claims", "budget", "claims/s"),
        by_cpu=_per_second("claims", "budget", "CPU us"),
    ),
    Figure(
        "building, simulating, signing and executing a claim, p50",
        12,
        False,
        "ms",
        _value("claims", "simulated", "p50", 1 / 1000),
    ),
    Figure(
        "the pipe carrier, 4 pipes against 1, with 400 ms for each transaction",
        3.5,
        True,
        "x",
        _ratio("pipes", "4 far", "1 far", "KiB/s"),
    ),
    Figure(
        "the pipe carrier, 16 pipes, the same",
        2000,
        True,
        "KiB/s",
        _value("pipes", "16 far", "KiB/s"),
    ),
    Figure(
        "a metered stream against an unmetered one, a voucher for each MiB",
        0.9,
        True,
        "x",
        _ratio("pay", "voucher per MiB", "unmetered", "MB/s"),
        by_cpu=_ratio("pay", "voucher per MiB", "unmetered", "MB per CPU s"),
    ),
    Figure(
        "the same with the defaults",
        0.9,
        True,
        "x",
        _ratio("pay", "default", "unmetered", "MB/s"),
        by_cpu=_ratio("pay", "default", "unmetered", "MB per CPU s"),
    ),
    *(
        Figure(
            f"{what}, under {control}",
            0.9,
            True,
            "x",
            _ratio(f"pay {control}", name, "unmetered", "MB/s"),
            by_cpu=_ratio(f"pay {control}", name, "unmetered", "MB per CPU s"),
        )
        for control in ("cubic",)
        for what, name in (("a voucher for each MiB", "voucher per MiB"), ("the defaults", "default"))
    ),
    Figure("vouchers signed and checked on one core", 5000, True, "/s", _value("vouchers", "both", "/s")),
    Figure(
        "transaction that publishes transport",
        100,
        False,
        "kB",
        _value("publish", "transport", "transaction bytes", 1 / 1000),
    ),
)
