"""`python -m bench`: measures, prints Markdown, and keeps JSON and Markdown with `--save`."""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from bench import machine, report, suite
from bench.contenders import LIBP2P_PYTHON, certificates
from bench.runner import ROOT


def _size(text: str) -> int:
    units = {"K": 1024, "M": suite.MIB, "G": suite.GIB}
    unit = units.get(text[-1:].upper())
    return int(text[:-1]) * unit if unit else int(text)


def _section(name: str) -> str:
    """`--only`. Raise `argparse.ArgumentTypeError` where no section is called so."""
    if name != "rivals" and not suite.names([name]):
        known = ", ".join(suite.names())
        raise argparse.ArgumentTypeError(f"no section is called {name!r}; there are rivals, {known}")
    return name


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure DTP and its rivals side by side; ratios within one run are what counts.",
        epilog=f"py-libp2p may live in an environment of its own: put its interpreter into ${LIBP2P_PYTHON}.",
    )
    parser.add_argument("--quick", action="store_true", help="a minute, for continuous integration")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        type=_section,
        metavar="NAME",
        help="one section: bulk, roundtrip, messages, dial, handshakes, idle, layers, small, import, claims, "
        "pipes, pay, vouchers, gas, publish; or `rivals` for all that have rivals (repeatable)",
    )
    parser.add_argument("--rounds", type=int, help="interleaved rounds (default 5)")
    parser.add_argument("--size", type=_size, default=suite.GIB, help="bytes of a bulk transfer (default 1G)")
    parser.add_argument("--chunk", type=_size, default=256 * 1024, help="bytes per write (default 256K)")
    parser.add_argument(
        "--congestion",
        action="append",
        metavar="NAME",
        help="measure one stream, and a paid one, also under this TCP congestion control on both ends "
        "(repeatable; default: cubic, or what else is there)",
    )
    parser.add_argument(
        "--save", nargs="?", const="full", metavar="WHAT", help="keep the result in bench/results"
    )
    parser.add_argument("--strict", action="store_true", help="exit with 1 also when a figure is missed")
    parser.add_argument("--json", action="store_true", help="print JSON instead of Markdown")
    return parser


#: `--only rivals`.
_RIVALS = ("bulk", "roundtrip", "messages", "dial", "idle")


def _congestion(asked: list[str] | None, *, quick: bool) -> tuple[str, ...]:
    """What is measured beside the default: what was asked for, else a usual one that the kernel lets us have."""
    if asked is not None:
        return tuple(asked)
    if quick:
        return ()
    default = machine.setting("tcp_congestion_control")
    return tuple(name for name in ("cubic", "reno") if name != default and machine.may_set(name))[:1]


def _options(arguments: argparse.Namespace, scratch: str) -> suite.Options:
    only = [name for asked in arguments.only for name in (_RIVALS if asked == "rivals" else (asked,))]
    options = suite.Options(
        rounds=arguments.rounds or 5,
        size=arguments.size,
        chunk=arguments.chunk,
        only=tuple(only),
        congestion=_congestion(arguments.congestion, quick=arguments.quick),
        scratch=scratch,
    )
    return suite.quickened(options) if arguments.quick else options


def _save(what: str, date: str, result: dict[str, object], text: str) -> None:
    folder = ROOT / "bench" / "results"
    folder.mkdir(exist_ok=True)
    for suffix, content in ((".json", json.dumps(result, indent=1) + "\n"), (".md", text)):
        (folder / f"{date}-{what}{suffix}").write_text(content, encoding="utf-8")


def main() -> int:
    """The command. With `--save` the result is written after each section, so that nothing long is lost."""
    parser = _parser()
    arguments = parser.parse_args()
    date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
    facts = machine.facts()
    result: dict[str, object] = {}
    text, missed, failed = "", False, False
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        certificates.make(Path(scratch))
        options = _options(arguments, scratch)
        if not suite.names(options.only, quick=options.quick):
            parser.error(f"--quick leaves out {', '.join(options.only)}")
        for sections, took in suite.run(options):
            facts["load average at the end"] = machine.load()
            told = asdict(options) | {"seconds": round(took)}
            del told["scratch"]
            result = report.as_json(facts | {"date": date}, told, sections)
            text = report.as_markdown(facts, told, sections, date)
            missed = any(figure.verdict(value) == "missed" for figure, value, _ in report.figures(sections))
            failed = any(row.failed for section in sections for row in section.rows.values())
            if arguments.save:
                _save(arguments.save, date, result, text)
    print(json.dumps(result, indent=1) if arguments.json else text)
    return 1 if failed or (missed and arguments.strict) else 0


if __name__ == "__main__":
    sys.exit(main())
