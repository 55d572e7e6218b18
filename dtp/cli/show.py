"""What the chain says, as text for people: tables, amounts in SUI, times, owners. JSON keeps the plain numbers."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping
from typing import Any

from dtp.cli.output import printable

#: Unix ms above it are moments; below, spans of time. 2001-09-09.
_MOMENTS = 10**12
#: ... and from here on there are no dates: the end of the year 9999.
_LAST_MOMENT = 253_402_300_800_000
#: Sums whose coin the record names as `coin`.
_SUMS = ("drawn", "refunded", "paid")
#: `u64::MAX`: how the packages say "no limit".
_NO_LIMIT = 2**64 - 1


def table(record: Mapping[str, Any]) -> str:
    """Return a record as lines of name and value; what is nested is indented below its name."""
    rows = list(_rows(record, 0))
    width = max((len(name) for name, _ in rows), default=0)
    return "\n".join(f"{name:<{width}}  {value}".rstrip() for name, value in rows)


def _rows(record: Mapping[str, Any], depth: int) -> Iterator[tuple[str, str]]:
    for key, value in record.items():
        name, shown = _field(key, value)
        label = "  " * depth + name
        if isinstance(value, Mapping) and value:
            yield label, ""
            yield from _rows(value, depth + 1)
        elif isinstance(value, list) and any(isinstance(each, Mapping) for each in value):
            yield label, ""
            for number, each in enumerate(value):
                yield from _rows({str(number): each}, depth + 1)
        else:
            yield label, shown


def _field(key: str, value: Any) -> tuple[str, str]:
    if key.endswith("_mist") and isinstance(value, int):
        return key.removesuffix("_mist").replace("_", " "), amount(value)
    if key.endswith("_ms") and isinstance(value, int) and _MOMENTS < value < _LAST_MOMENT:
        return key.removesuffix("_ms").replace("_", " "), moment(value)
    if key == "expires_ms" and value == 0:
        return "expires", "never"
    return key.replace("_", " "), plain(value)


def plain(value: Any) -> str:
    """Return a single value: no brackets, no quotes, no control characters."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or value in ("", [], {}, ()):
        return "-"
    if isinstance(value, list | tuple):
        return ", ".join(map(plain, value))
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}={plain(each)}" for key, each in value.items()) + "}"
    if value == _NO_LIMIT:
        return "no limit"
    return printable(str(value))


def inline(record: Mapping[str, Any]) -> str:
    """Return a record on one line: `name=value name=value`."""
    return " ".join(f"{key}={plain(value)}" for key, value in record.items())


def amount(mist: int) -> str:
    """Return MIST as SUI, exactly: "0.5 SUI"."""
    from dtp.chain.model import format_amount

    return format_amount(mist)


def gas_text(mist: int) -> str:
    """Return what transactions took: "gas 0.001 SUI"; below 0 more storage was given back than they cost."""
    return (
        f"gas {amount(mist)}" if mist >= 0 else f"and {amount(-mist)} more of storage given back than its gas"
    )


def money(units: int, coin: str) -> str:
    """Return a sum of a coin (its smallest unit)."""
    from dtp.chain import wallet

    return wallet.money(units, coin)


def in_coin(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a record for people: its sums with their coin, which has no line of its own then."""
    sums = {name: money(record[name], record["coin"]) for name in _SUMS if name in record}
    return {name: sums.get(name, value) for name, value in record.items() if not sums or name != "coin"}


def moment(ms: int) -> str:
    """Return Unix ms as a date and time, UTC."""
    when = datetime.datetime.fromtimestamp(ms / 1000, datetime.UTC)
    return when.isoformat(" ", "milliseconds").removesuffix("+00:00") + " UTC"


def owner(kind: str, address: str, initial_version: int) -> str:
    """Return who owns an object, in words."""
    if kind == "shared":
        return f"shared, since version {initial_version}"
    if kind == "object":
        return f"object {address}"
    return f"{kind} {address}".strip()
