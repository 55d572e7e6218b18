"""What a service costs, on the command line: terms out of options, services as JSON, and what changed of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dtp.cli.accounts import record_of
from dtp.cli.show import money, plain
from dtp.errors import ConfigError

if TYPE_CHECKING:
    from dtp.chain import ChainClient
    from dtp.chain.host import Rate, Service, Terms

KINDS = ("tcp", "udp", "http", "json-rpc", "grpc", "websocket", "other")
MODES = ("open", "allow-list", "pass")
BEARERS = ("split", "client", "server")

#: Fields of terms that are amounts of their coin.
_AMOUNTS = ("price_request", "price_mib", "min_deposit", "epoch_cap", "credit")
#: What has no limit is written so.
NONE = "none"
_NS = 10**9


def changed_terms(known: Terms | None, options: Mapping[str, Any]) -> Terms:
    """Return `known`, or the defaults of a new service, with what `options` name; what is None, or absent, stays.

    Options are fields of `Terms` as text, `idle` and `claim` in seconds. Raises `ConfigError`, `ProgramError`,
    `SuiNameError`.
    """
    from dtp.chain.host import NO_CAP, Terms
    from dtp.chain.model import canonical_type
    from dtp.chain.wallet import parse_amount

    named = {name: value for name, value in options.items() if value is not None}
    base = known or Terms()
    coin = canonical_type(named.get("coin", base.coin))
    said: dict[str, Any] = {
        name: NO_CAP if (name, named[name]) == ("epoch_cap", NONE) else parse_amount(named[name], coin)
        for name in _AMOUNTS
        if name in named
    }
    left = [each for each in _AMOUNTS if each not in said and getattr(base, each) not in (0, NO_CAP)]
    if coin != base.coin and left:
        raise ConfigError(
            f"--coin changes what amounts are of: name {', '.join(map(_option, left))}, too, in the new coin's units"
        )
    if "bearer" in named:
        said["bearer"] = BEARERS.index(named["bearer"])
    said |= {f"{name}_ms": named[name] * 1000 for name in ("idle", "claim") if name in named}
    return dataclasses.replace(base, coin=coin, revision=0, **said)


def _option(field: str) -> str:
    return f"--{field.replace('_', '-')}"


def changed_rate(known: Rate, option: str, text: str | None, burst: str | None) -> Rate:
    """Return `known` with what `--rate-...` and `--burst-...` say: "100/s", "10MiB/s", or none. Raises
    `ConfigError`."""
    from dtp.chain.host import Rate
    from dtp.daemon.config import values
    from dtp.daemon.config.reading import Wrong

    sized = option == "bytes"
    interval, most = known.interval_ns, known.burst
    try:
        if text == NONE:
            interval = most = 0
        elif text is not None:
            rate = (values.byte_rate if sized else values.request_rate)(text)
            if rate.amount > rate.seconds * _NS:
                raise ConfigError(f"--rate-{option} {text}: the chain has no rates above {_NS:,} a second")
            interval, most = -int(-rate.seconds * _NS // rate.amount), int(rate.amount)
        if burst is not None:
            most = values.size(burst) if sized else int(burst)
    except Wrong as wrong:
        raise ConfigError(f"--rate-{option}: {wrong}") from None
    if burst is not None and not interval:
        raise ConfigError(f"--burst-{option} is of a rate: give --rate-{option}, too")
    return Rate(interval, most)


# ---- as JSON, and as text


def service_record(service: Service) -> dict[str, Any]:
    """Return a service as JSON, with names for the numbers of kinds, modes and bearers."""
    kinds = {number: name for name, number in kind_numbers().items()}
    return {
        **record_of(service),
        "kind": kinds.get(service.kind, str(service.kind)),
        "mode": named(MODES, service.mode),
        "terms": terms_record(service.terms),
    }


def terms_record(terms: Terms) -> dict[str, Any]:
    """Return terms as JSON, with the bearer's name."""
    return {**record_of(terms), "bearer": named(BEARERS, terms.bearer)}


def named(names: tuple[str, ...], number: int) -> str:
    """Return the name that a number of the chain has; the number, where it has none here."""
    return names[number] if number < len(names) else str(number)


def kind_numbers() -> dict[str, int]:
    """Return the chain's numbers of `KINDS`."""
    from dtp.chain.host import ServiceKind

    return {name: ServiceKind[name.upper().replace("-", "_")].value for name in KINDS}


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return what differs between two records of a service, or of terms: each field's "old" and "new". Revisions
    aside."""
    before, after = _flat(old), _flat(new)
    return {
        name: {"old": before[name], "new": value}
        for name, value in after.items()
        if name != "revision" and before[name] != value
    }


def _flat(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields of a service's record without what they are nested in."""
    rates = {f"rate_{name}": each for name, each in record.get("rate", {}).items()}
    return {
        **{name: value for name, value in record.items() if name not in ("terms", "rate")},
        **record.get("terms", {}),
        **rates,
    }


def change_lines(changed: Mapping[str, Mapping[str, Any]], old: Terms, new: Terms) -> list[str]:
    """Return what changed, for people: "price mib: 0.001 SUI -> 0.002 SUI"."""
    return [
        f"{name.removesuffix('_ms').replace('_', ' ')}: {_shown(name, each['old'], old.coin)} -> "
        f"{_shown(name, each['new'], new.coin)}"
        for name, each in changed.items()
    ]


def _shown(name: str, value: Any, coin: str) -> str:
    from dtp.chain.host import NO_CAP

    if name in (*_AMOUNTS, "post_fee"):
        return "no cap" if value == NO_CAP else money(value, coin)
    if name.endswith("_ms"):
        return f"{value / 1000:g} s"
    return rate_text(value) if name.startswith("rate_") else plain(value)


def rate_text(rate: Mapping[str, int]) -> str:
    """Return a rate for people: "100/s, 50 at once"."""
    interval = rate["interval_ns"]
    return f"{_NS / interval:,.10g}/s, {rate['burst']:,} at once" if interval else "no limit"


def known_name(chain: ChainClient, number: int) -> str | None:
    """Return the name of a service by its number, where it is known here; else None."""
    from dtp.chain.host_state import usual_name

    name = usual_name(number, chain.deployments.services)
    return None if name == str(number) else name


def service_text(number: int | str, name: str | None) -> str:
    """Return a service's number, behind its name where that is known: the chain has numbers only."""
    return str(number) if name is None else f"{plain(name)}, number {number}"
