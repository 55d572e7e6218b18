"""The result of a run as JSON, and as Markdown for people."""

from __future__ import annotations

import json
from collections.abc import Mapping

from bench.figures import FIGURES, Figure
from bench.machine import facts
from bench.suite import Section

#: How a quantity is printed.
_FORMATS = {"CPU s/GiB": ".2f", "s/GiB": ".3f", "CPU us": ".1f", "CPU ms": ".2f", "p50": ".1f", "p99": ".1f"}
_FORMATS |= {"us": ".1f", "ms": ".1f", "SUI": ".6f", "SUI with ten claims": ".6f"}
_TITLES = {
    "p50": "p50, us",
    "p99": "p99, us",
    "CPU us": "CPU us, both ends",
    "CPU ms": "CPU ms, both ends",
    "node us": "CPU us, node",
    "CPU s/GiB": "CPU s per GiB, both ends",
    "bytes": "bytes, both ends",
    "others": "machine used by others, %",
    "ms": "ms",
}
#: Above it a result says that the machine was busy with something else.
QUIET = 10.0


def as_json(
    machine: dict[str, object], options: dict[str, object], sections: list[Section]
) -> dict[str, object]:
    """Everything, all samples included."""
    return {
        "machine": machine,
        "options": options,
        "figures": [
            {
                "name": figure.name,
                "target": figure.target,
                "at least": figure.at_least,
                "unit": figure.unit,
                "aim": figure.aim,
                "measured": value,
                "by processor time": by_cpu,
                "verdict": figure.verdict(value),
            }
            for figure, value, by_cpu in figures(sections)
        ],
        "sections": {
            section.name: {
                "title": section.title,
                "rows": {
                    name: {
                        "label": row.label,
                        "medians": row.medians(),
                        "samples": row.samples,
                        **({"missing": row.missing} if row.missing else {}),
                        **row.notes,
                    }
                    for name, row in section.rows.items()
                },
            }
            for section in sections
        },
    }


def figures(sections: list[Section]) -> list[tuple[Figure, float | None, float | None]]:
    """Each figure, what was measured, and the same by processor time where that makes sense."""
    by_name = {section.name: section for section in sections}

    def look(section: str, row: str, quantity: str) -> float | None:
        found = by_name.get(section)
        if found is None or row not in found.rows:
            return None
        return found.rows[row].medians().get(quantity)

    return [(figure, figure.measure(look), figure.by_cpu and figure.by_cpu(look)) for figure in FIGURES]


def as_markdown(
    machine: dict[str, object], options: dict[str, object], sections: list[Section], date: str
) -> str:
    """The same for people."""
    lines = [f"# Benchmark of {date}", ""]
    lines += [f"- {name}: {_plain(value)}" for name, value in machine.items()]
    lines += [f"- options: {_plain(options)}", f"- {noise(sections)}", "", "## Figures", ""]
    lines += ["| figure | target | measured | by processor time | |", "|---|---|---|---|---|"]
    for figure, value, by_cpu in figures(sections):
        target = f"{'at least' if figure.at_least else 'at most'} {figure.target:g} {figure.unit}".strip()
        target += f" (aim {figure.aim})" if figure.aim else ""
        verdict = figure.verdict(value)
        lines.append(
            f"| {figure.name} | {target} | {_short(value)} | {_short(by_cpu)} | {_emphasis(verdict)} |"
        )
    for section in sections:
        lines += ["", f"## {section.title}", "", *_table(section)]
    return "\n".join(lines) + "\n"


def noise(sections: list[Section]) -> str:
    """One sentence on how much else went on."""
    others = [
        sample["others"]
        for s in sections
        for row in s.rows.values()
        for sample in row.samples
        if "others" in sample
    ]
    if not others:
        return "others' use of the machine was not measured"
    others.sort()
    middle, worst = others[len(others) // 2], others[-1]
    verdict = (
        "QUIET" if worst < QUIET else "mostly quiet" if middle < QUIET else "NOISY: trust only large ratios"
    )
    return (
        f"machine used by others meanwhile: {middle:.0f} % in the median, {worst:.0f} % at worst ({verdict})"
    )


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}" if value < 100 else f"{value:.0f}"


def _emphasis(verdict: str) -> str:
    return f"**{verdict}**" if verdict == "missed" else verdict


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {item}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return str(value)


def _table(section: Section) -> list[str]:
    titles = [_TITLES.get(column, column) for column in section.columns]
    lines = [f"| | {' | '.join(titles)} | spread, % | |", "|---" * (len(titles) + 3) + "|"]
    for row in section.rows.values():
        if not row.samples:
            lines.append(f"| {row.label} |{' - |' * (len(titles) + 1)} {row.missing} |")
            continue
        medians = row.medians()
        cells = [_number(medians.get(column), column) for column in section.columns]
        notes = "; ".join(filter(None, [row.missing, *row.notes.values()]))
        spread = f"{100 * row.spread(section.columns[0]):.0f}"
        lines.append(f"| {row.label} | {' | '.join(cells)} | {spread} | {notes} |")
    return lines


def _number(value: float | None, column: str) -> str:
    return "-" if value is None else format(value, _FORMATS.get(column, ",.0f"))


def print_figures(figures: Mapping[str, float], load: float, *, as_json: bool) -> None:
    """Print figures by their names, as JSON or as a table, and how busy the machine was before."""
    if as_json:
        print(json.dumps({"load": load, "figures": figures}, indent=1))
        return
    print(f"load {load:.1f} before; {facts()}\n")
    print("| | |\n|---|---|")
    for name, value in figures.items():
        print(f"| {name} | {value:,.2f} |" if value < 100 else f"| {name} | {value:,.0f} |")
