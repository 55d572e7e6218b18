"""Times on the command line: "8s", "500ms", "5m", "2h", "7d", or a plain number."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

import click

_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_TIME: Final = re.compile(r"(?P<number>[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?P<unit>[a-z]*)")


def duration(
    least: float = 0, most: float | None = None, *, unit: str = "s", whole: bool = False
) -> Callable[[str], float]:
    """Return the type of an option that is a time: it gets a number of `unit`s from `least` to `most`, a whole one
    if `whole`. What is given without a unit is in these."""

    def time(text: str) -> float:  # its name is what help calls the value
        match = _TIME.fullmatch(text)
        said = unit if match is None else match["unit"] or unit
        if match is None or said not in _SECONDS:
            raise click.BadParameter(f"{text!r} is not a time: write 8s, 500ms, 5m, 2h or 7d")
        found = float(match["number"]) * (_SECONDS[said] / _SECONDS[unit])
        if found < least or (most is not None and found > most):
            upto = "" if most is None else f", {most:,.12g}{unit} at most"
            raise click.BadParameter(f"{text} is out of range: {least:,.12g}{unit} at least{upto}")
        if whole and found != int(found):
            raise click.BadParameter(f"{text} has to be a whole number of {unit}")
        return int(found) if whole else found

    return time
