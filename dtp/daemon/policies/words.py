"""Rules in a few words each, for the web page and the terminal. No callers are named."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import time

from dtp.daemon.config import model
from dtp.plurals import count_of

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_SIZES = ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))
_TIMES = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"))
_WHOSE = {"identity": "an identity", "service": "all together"}


def words(rules: model.ServiceRules) -> list[str]:
    """Return one text for each rule, in the order of the policies."""
    found = [_access(rules.access)]
    if rules.login is not None:
        found.append("for those who are logged in")
    if rules.schedule is not None:
        found.append(_schedule(rules.schedule))
    if rules.methods is not None:
        found.append(_methods(rules.methods))
    if rules.concurrency is not None:
        found.append("at once " + ", ".join(_concurrency(rules.concurrency)))
    if rules.quota is not None:
        found.append(_quota(rules.quota))
    found += [_rate(rule) for rule in rules.rate]
    if rules.limits is not None:
        found.append("a stream up to " + ", ".join(_limits(rules.limits)))
    return found


def price_words(price: model.Price | None) -> list[str]:
    """Return what a service costs; an empty list for one that costs nothing."""
    if price is None:
        return []
    parts = [f"{_sui(price.request)} a request"] if price.request else []
    parts += [f"{_sui(price.mib)} a MiB"] if price.mib else []
    if not parts and None in (price.request, price.mib):
        return ["costs what its host says"]
    return [f"costs {' and '.join(parts)}" if parts else "costs nothing but a channel"]


def _sui(mist: int) -> str:
    return f"{mist / 10**9:.9f}".rstrip("0").rstrip(".") + " SUI"


def _size(size: float) -> str:
    return next((f"{size / unit:.4g} {name}" for unit, name in _SIZES if size >= unit), f"{size:.0f} B")


def _time(seconds: float) -> str:
    """Return a time in the largest unit of which it is a whole number."""
    return next(
        (f"{seconds / unit:g} {name}" for unit, name in _TIMES if seconds >= unit and not seconds % unit),
        f"{seconds:g} s",
    )


def _every(seconds: float) -> str:
    """Return a time as the second half of a rate."""
    return _time(seconds).removeprefix("1 ")


def _access(rule: model.AccessRule) -> str:
    denied = len(rule.denied_peers) + len(rule.denied_accounts)
    allowed = "everyone" if rule.everyone else " and ".join(_listed(rule)) or "nobody"
    return f"for {allowed}" + (f", {denied:,} denied" if denied else "")


def _listed(rule: model.AccessRule) -> Iterator[str]:
    if rule.peers:
        yield count_of(len(rule.peers), "identity", "identities")
    if rule.accounts:
        yield count_of(len(rule.accounts), "account")


def _schedule(rule: model.ScheduleRule) -> str:
    days = "" if len(rule.days) == 7 else ", ".join(_DAYS[day] for day in sorted(rule.days)) + " "
    return f"open {days}{_hours(rule.hours)}{rule.zone}"


def _hours(hours: tuple[time, time] | None) -> str:
    return "" if hours is None else f"{hours[0]:%H:%M}-{hours[1]:%H:%M} "


def _methods(rule: model.MethodRule) -> str:
    parts = [f"methods {', '.join(rule.allow)}" if rule.allow else "all methods"]
    return " but ".join([*parts, ", ".join(rule.deny)] if rule.deny else parts)


def _concurrency(rule: model.ConcurrencyRule) -> Iterator[str]:
    if rule.identity is not None:
        yield f"{count_of(rule.identity, 'stream')} an identity"
    if rule.service is not None:
        yield f"{count_of(rule.service, 'stream')} in all"


def _quota(rule: model.QuotaRule) -> str:
    parts = [] if rule.requests is None else [count_of(rule.requests, "request")]
    parts += [] if rule.data is None else [_size(rule.data)]
    return f"{' and '.join(parts)} per {_every(rule.every)} for {_WHOSE[rule.per]}"


def _rate(rule: model.RateRule) -> str:
    parts = []
    if rule.requests is not None:
        burst = "" if rule.burst is None else f" (burst {rule.burst:,})"
        parts.append(
            f"{count_of(round(rule.requests.amount), 'request')}/{_every(rule.requests.seconds)}{burst}"
        )
    if rule.bandwidth is not None:
        parts.append(f"{_size(rule.bandwidth.amount)}/{_every(rule.bandwidth.seconds)}")
    of = f" of {', '.join(rule.methods)}" if rule.methods else ""
    return f"{' and '.join(parts)}{of} for {_WHOSE[rule.per]}"


def _limits(rule: model.LimitRule) -> Iterator[str]:
    if rule.data is not None:
        yield _size(rule.data)
    if rule.time is not None:
        yield _time(rule.time)
    if rule.idle is not None:
        yield f"{_time(rule.idle)} of silence"
