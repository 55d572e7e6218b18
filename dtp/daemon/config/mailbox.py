"""Reads and checks `[expose.mailbox]`: where a mailbox keeps its messages, and its limits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from dtp.daemon.config import model, values
from dtp.daemon.config.places import KeyPath
from dtp.daemon.config.reading import Section

#: Settings with the names of limits, and what reads each.
_LIMITS: Final[dict[str, Callable[[Any], Any]]] = {
    **dict.fromkeys(
        (
            *("recipients", "envelopes", "strangers", "deposits", "new_devices", "changes", "key_questions"),
            *("stamps", "stamp_uses"),
        ),
        values.number(1, 2**31),
    ),
    "stamp_bits": values.number(0, 26),  # dtp.messaging.mailbox.stamps.MAX_BITS
    **dict.fromkeys(
        ("recipient_bytes", "strangers_bytes", "source_bytes", "disk_free", "free_bytes"), values.size
    ),
    **dict.fromkeys(
        ("lifetime", "deposit_pause", "new_device_pause", "change_pause", "key_pause", "grace"),
        values.duration,
    ),
    "price_mib_month": values.money,
    "months": values.number(1, 120),
}
#: Those that only a mailbox with a price has.
_OF_PRICE: Final = ("free-bytes", "grace", "months", "stamps", "stamp-uses", "pay-listen")
#: Settings that only services with backends have.
BACKENDS: Final = ("backend", "balance", "health", "proxy-protocol", "connect-timeout", "slow-start")


def read_mailbox(section: Section | None, file: Callable[[Any], Path]) -> model.MailboxSettings:
    """Return the settings of a service of kind mailbox, with defaults for what the section leaves out."""
    from dtp.messaging.mailbox.limits import MailboxLimits

    usual = MailboxLimits()
    if section is None:
        return model.MailboxSettings(None, usual)
    store = section.read_setting("store", lambda told: told if _is_url(told) else file(told), None)
    found = {
        name: section.read_setting(name.replace("_", "-"), read, getattr(usual, name))
        for name, read in _LIMITS.items()
    }
    places = (
        section.take_all("pay-listen", values.carrier_url) or model.MailboxSettings(None, usual).pay_listen
    )
    for each in ("lifetime", "grace"):
        found[each] = int(found[each])
    if not found["price_mib_month"] and not section.has_failed("price-mib-month"):
        for key in _OF_PRICE:
            if key in section:
                section.note_mistake(f"{key}: only applies with price-mib-month", key)
    if found["lifetime"] < 1 and not section.has_failed("lifetime"):
        section.note_mistake("lifetime: has to be at least a second", "lifetime")
    section.check_unread()
    return model.MailboxSettings(store, MailboxLimits(**found), places)


def check_sold_room(root: Section, config: model.Config) -> None:
    """Note as mistakes what conflicts with the rest of the file."""
    if config.chain is None:
        for path in _sold_here(config):
            if path[-1] == "price-mib-month":
                root.note_mistake("price-mib-month: needs [chain], whose wallet sells the room", *path)
        return
    places: list[KeyPath] = [("chain", "endpoint")] if config.chain.endpoint else []
    first, *others = [*places, *_sold_here(config)] or [()]
    for path in others:
        what = (
            f"{path[-1]}: the host has this daemon's identity at one address, which is that of {first[-1]} already: "
            "sell this by a daemon with an identity and a wallet of its own"
        )
        root.note_mistake(what, *path)


def _sold_here(config: model.Config) -> Iterator[KeyPath]:
    """Yield the paths of settings that sell something beside the listener, each of which is an endpoint of the
    host."""
    for number, each in enumerate(config.expose):
        if each.mailbox is not None and each.mailbox.limits.price_mib_month:
            yield "expose", number, "mailbox", "price-mib-month"
        if (
            each.broadcast is not None
            and each.broadcast.origin is not None
            and each.broadcast.origin.key_price
        ):
            yield "expose", number, "broadcast", "key-price"


def _is_url(told: Any) -> bool:
    return isinstance(told, str) and told.startswith(("postgresql://", "postgres://", "nats://"))


def check_mailbox(section: Section, expose: model.Expose) -> None:
    """Note as mistakes the settings that only other kinds of services have, and a missing list of callers."""
    for key in BACKENDS:
        if key in section:
            section.note_mistake(f"{key}: a mailbox keeps messages itself, and has no backends", key)
    for key in ("quota", "limits"):
        if key in section:
            section.note_mistake(f"{key}: a mailbox has limits of its own, in [expose.mailbox]", key)
    for key in ("price", "on-chain"):
        if key in section:
            what = "senders use a temporary key and can't pay; its recipients do, by"
            section.note_mistake(f"{key}: {what} price-mib-month in [expose.mailbox]", key)
    if "allow" in section and not section.has_failed("allow") and not expose.rules.access.everyone:
        what = 'allow: senders use a temporary key, so a mailbox needs allow = ["*"]'
        section.note_mistake(what, "allow")
