"""`python -m bench.scale.plots`: the figures of the simulations as drawings, from what `--save` has kept.

For the newest results of `bench.scale.gossip` and `bench.scale.dht`: delays and reach by hops, messages by node,
look-ups under churn, and look-ups by the size of the network. Each says whether it was simulated whole, reduced, or
extrapolated. SVG, written here: a drawing is a few lines and marks, and needs no library.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from xml.sax.saxutils import escape

from bench.runner import ROOT

RESULTS: Final = ROOT / "bench" / "results"
_WIDTH, _HEIGHT = 640, 380
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 24, 64, 56
_COLOURS: Final = ("#1b6ca8", "#c0392b", "#2e7d32", "#8e44ad")
#: Steps between marks of an axis, times a power of ten.
_STEPS: Final = (1, 2, 2.5, 5, 10)


@dataclass(frozen=True)
class Line:
    """One line of a plot: its name, and points in the order of x."""

    name: str
    points: Sequence[tuple[float, float]]
    #: True for what no run has shown.
    is_extrapolated: bool = False


@dataclass(frozen=True)
class Plot:
    """What one drawing shows. `says` is below the title: how the figures came about."""

    title: str
    says: str
    x: str
    y: str
    lines: Sequence[Line]
    #: True where x is shown by powers of ten.
    is_logarithmic: bool = False


def ticks(most: float, count: int = 6) -> list[float]:
    """Return round numbers from 0 to the first that is not below `most`, about `count` of them."""
    if most <= 0:
        return [0.0, 1.0]
    raw = most / count
    power = 10 ** math.floor(math.log10(raw))
    step = next(each * power for each in _STEPS if each * power >= raw * 0.999)
    return [round(step * number, 10) for number in range(math.ceil(most / step - 1e-9) + 1)]


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    span = high - low or 1.0
    return lambda value: start + (value - low) / span * (end - start)


def _text(x: float, y: float, words: str, anchor: str = "middle", size: int = 12, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}"{more}>{escape(words)}</text>'


def draw(plot: Plot) -> str:
    """Return a plot as SVG. Raise `ValueError` where a line has no points, or a number is none."""
    points = [point for line in plot.lines for point in line.points]
    if not all(line.points for line in plot.lines) or not points:
        raise ValueError(f"a line of {plot.title!r} has no points")
    if not all(math.isfinite(number) for point in points for number in point):
        raise ValueError(f"a number of {plot.title!r} is none")
    put_x = math.log10 if plot.is_logarithmic else float
    xs = [put_x(x) for x, _ in points]
    marks = ticks(max(y for _, y in points))
    across = _scale(min(xs), max(xs), _LEFT, _WIDTH - _RIGHT)
    up = _scale(0, marks[-1], _HEIGHT - _BOTTOM, _TOP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        _text(_LEFT, 20, plot.title, "start", 15, ' font-weight="bold"'),
        _text(_LEFT, 38, plot.says, "start", 11, ' fill="#555"'),
    ]
    for mark in marks:
        parts.append(
            f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{up(mark):.1f}" y2="{up(mark):.1f}" stroke="#ddd"/>'
        )
        parts.append(_text(_LEFT - 6, up(mark) + 4, f"{mark:g}", "end"))
    for x in sorted({x for x, _ in points}):
        parts.append(_text(across(put_x(x)), _HEIGHT - _BOTTOM + 16, f"{x:,.0f}", size=11))
    parts.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 18, plot.x))
    parts.append(
        _text(
            16, (_TOP + _HEIGHT - _BOTTOM) / 2, plot.y, more=f' transform="rotate(-90 16 {_HEIGHT / 2:.0f})"'
        )
    )
    for number, line in enumerate(plot.lines):
        parts += _draw_line(line, number, lambda x: across(put_x(x)), up)
    return "\n".join([*parts, "</svg>", ""])


def _draw_line(
    line: Line, number: int, across: Callable[[float], float], up: Callable[[float], float]
) -> list[str]:
    colour = _COLOURS[number % len(_COLOURS)]
    dashes = ' stroke-dasharray="6 4"' if line.is_extrapolated else ""
    path = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in line.points)
    y = _TOP - 12
    x = _LEFT + 140 * number
    return [
        f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"{dashes}/>',
        *(f'<circle cx="{across(a):.1f}" cy="{up(b):.1f}" r="3" fill="{colour}"/>' for a, b in line.points),
        f'<line x1="{x}" x2="{x + 22}" y1="{y}" y2="{y}" stroke="{colour}" stroke-width="2"{dashes}/>',
        _text(x + 28, y + 4, line.name, "start", 11),
    ]


# ---- what is drawn -----------------------------------------------------------------------------------------------


def _points(table: dict[str, float]) -> list[tuple[float, float]]:
    return sorted((float(x), y) for x, y in table.items())


def gossip_plots(result: dict[str, Any]) -> dict[str, Plot]:
    """Return the plots of a result of `bench.scale.gossip`, by their names."""
    nodes = result["setting"]["nodes"]
    name, case = next(iter(result["cases"].items()))
    says = f"{nodes:,} nodes, simulated whole: {name}"
    by_hops = [Line(f"p{part}", _points(case[f"p{part} s by hops"])) for part in (50, 99)]
    reach = [Line(each, _points(found["reached within hops, %"])) for each, found in result["cases"].items()]
    loads = Line("sent by a node for a message", _points(case["sent/message, by part of the nodes"]))
    return {
        "delay": Plot("How long a message takes, by hops", says, "hops", "seconds", by_hops),
        "reach": Plot(
            "Who has a message, by hops", says, "hops", "% of the nodes", [_short(each) for each in reach]
        ),
        "load": Plot("Messages by node", says, "% of the nodes send no more than", "messages", [loads]),
    }


def _short(line: Line) -> Line:
    return Line(line.name.partition(":")[0], line.points, line.is_extrapolated)


def dht_plots(result: dict[str, Any]) -> dict[str, Plot]:
    """Return the plots of a result of `bench.scale.dht`, by their names."""
    plots = {}
    if result["whole"]:
        told, minutes = result["whole"][-1]["conditions"], result["whole"][-1]["minutes"]
        says = (
            f"{told['nodes']:,} nodes, simulated whole: {100 * told['churn']:g} % replaced each minute, "
            f"{100 * told['sybils']:g} % sybils, {100 * told['loss']:g} % loss"
        )
        numbered = list(enumerate(minutes, 1))
        times = [Line(part, [(at, each[f"{part} s"]) for at, each in numbered]) for part in ("p50", "p99")]
        found = Line("found", [(at, each["found %"]) for at, each in numbered])
        plots["churn"] = Plot("Look-ups under churn", says, "minute", "seconds", times)
        plots["found"] = Plot("Look-ups that find the value", says, "minute", "%", [found])
    if result["reduced"]:
        lines = [
            Line(f"{part}, reduced", [(row["nodes"], row[f"{part} s"]) for row in result["reduced"]])
            for part in ("p50", "p99")
        ]
        for part in ("p50", "p99"):
            line = [
                (row["nodes"], row["line"]) for row in result["extrapolated"] if row["figure"] == f"{part} s"
            ]
            if line:
                lines.append(Line(f"{part}, extrapolated", line, is_extrapolated=True))
        says = "look-ups alone, tables drawn; the line is fitted to sizes up to 100,000"
        plots["size"] = Plot("Look-ups by the size of the network", says, "nodes", "seconds", lines, True)
    return plots


KINDS: Final[dict[str, Callable[[dict[str, Any]], dict[str, Plot]]]] = {
    "scale-gossip": gossip_plots,
    "scale-dht": dht_plots,
}


def write_plots(results: Path, kind: str) -> list[Path]:
    """Draw the newest result of a kind beside it; return the files. None where there is no result."""
    found = sorted(results.glob(f"*-{kind}.json"))
    if not found:
        return []
    result = json.loads(found[-1].read_text(encoding="utf-8"))
    written = []
    for name, plot in KINDS[kind](result).items():
        written.append(found[-1].with_name(f"{found[-1].stem}-{name}.svg"))
        written[-1].write_text(draw(plot), encoding="utf-8")
    return written


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m bench.scale.plots", description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder of the results")
    options = parser.parse_args()
    written = [path for kind in KINDS for path in write_plots(options.results, kind)]
    for path in written:
        print(path)
    return 0 if written else 1


if __name__ == "__main__":
    sys.exit(main())
