"""What an install brings: packages, MiB and seconds with the chain and without, `python -m bench.install [--save]`.

Each is an environment of its own, installed without pip's cache; "without" leaves out what only a chain needs, with
the packages that come for its sake. How long it takes is mostly the package index and the disk: the ratio tells more.
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path
from typing import NamedTuple

from bench import machine
from bench.runner import ROOT

#: What is left out for a program that never pays; see docs/decisions/0030.
CHAIN = ("pysui", "betterproto2")
#: What a new environment has before anything is installed.
_BEFORE = ("pip", "setuptools", "wheel")


class Install(NamedTuple):
    """One environment."""

    packages: int
    mib: float
    seconds: float


def requirements(*, chain: bool) -> list[str]:
    """Return what the package needs, with the chain or without."""
    named = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    return [each for each in named if chain or re.split(r"[^\w-]", each)[0] not in CHAIN]


def measure(folder: Path, *, chain: bool) -> Install:
    """Install into a new environment in `folder`."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = str(folder / "bin" / "python")
    pip = [python, "-m", "pip", "install", "--quiet", "--no-cache-dir", "--disable-pip-version-check"]
    began = time.monotonic()
    subprocess.run([*pip, *requirements(chain=chain)], check=True, stderr=subprocess.DEVNULL)
    subprocess.run([*pip, "--no-deps", str(ROOT)], check=True, stderr=subprocess.DEVNULL)
    took = time.monotonic() - began
    listed = subprocess.run([python, "-m", "pip", "list", "--format=json"], check=True, capture_output=True)
    names = {each["name"] for each in json.loads(listed.stdout)} - set(_BEFORE)
    (packages,) = folder.glob("lib/python*/site-packages")
    size = sum(
        path.stat().st_size
        for path in packages.rglob("*")
        if path.is_file() and path.relative_to(packages).parts[0].partition("-")[0] not in _BEFORE
    )
    return Install(len(names), size / 2**20, took)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m bench.install", description=__doc__)
    parser.add_argument("--rounds", type=int, default=2, help="interleaved rounds (default 2)")
    parser.add_argument("--save", action="store_true", help="keep the result in bench/results")
    arguments = parser.parse_args()
    found: dict[bool, list[Install]] = {True: [], False: []}
    facts = machine.facts()
    for _ in range(arguments.rounds):
        for chain in found:
            with tempfile.TemporaryDirectory(prefix="bench-install-") as folder:
                found[chain].append(measure(Path(folder), chain=chain))
    facts["load average at the end"] = machine.load()
    date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
    text = _as_markdown(date, facts, found)
    print(text, end="")
    if arguments.save:
        (ROOT / "bench" / "results" / f"{date}-install.md").write_text(text, encoding="utf-8")


def _as_markdown(date: str, facts: dict[str, object], found: dict[bool, list[Install]]) -> str:
    rows = []
    for chain, runs in found.items():
        seconds = ", ".join(f"{each.seconds:.0f}" for each in runs)
        what = "with the chain" if chain else f"without {' and '.join(CHAIN)}"
        middle = statistics.median(each.seconds for each in runs)
        rows.append(f"| {what} | {runs[0].packages} | {runs[0].mib:.1f} | {middle:.0f} | {seconds} |")
    said = "\n".join(f"- {name}: {value}" for name, value in facts.items())
    return (
        f"# Installs, {date}\n\n"
        "Packages and MiB of `site-packages`, ours included, pip and setuptools left out; seconds without pip's\n"
        "cache, rounds in turn. `python -m bench.install` measures them again.\n\n"
        "| install | packages | MiB | seconds | each round |\n|---|---|---|---|---|\n"
        + "\n".join(rows)
        + f"\n\n{said}\n"
    )


if __name__ == "__main__":
    main()
