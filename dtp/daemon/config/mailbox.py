"""`[expose.mailbox]`: where a mailbox keeps what it has, and its limits: read and checked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from dtp.daemon.config import model, values
from dtp.daemon.config.reading import Section

#: Settings that are called as the limits are, and how each is read.
_LIMITS: Final[dict[str, Callable[[Any], Any]]] = {
    **dict.fromkeys(
        ("recipients", "envelopes", "strangers", "deposits", "key_questions"), values.number(1, 2**31)
    ),
    "stamp_bits": values.number(0, 26),  # dtp.messaging.mailbox.stamps.MAX_BITS
    **dict.fromkeys(("recipient_bytes", "strangers_bytes", "disk_free"), values.size),
    **dict.fromkeys(("lifetime", "deposit_pause", "key_pause"), values.duration),
}
#: What only services with backends have.
BACKENDS: Final = ("backend", "balance", "health", "proxy-protocol", "connect-timeout", "slow-start")


def read_mailbox(section: Section | None, file: Callable[[Any], Path]) -> model.MailboxSettings:
    """Return what a service of kind mailbox keeps, and where: what isn't said is usual."""
    from dtp.messaging.mailbox.limits import MailboxLimits

    usual = MailboxLimits()
    if section is None:
        return model.MailboxSettings(None, usual)
    store = section.take("store", lambda told: told if _is_url(told) else file(told), None)
    found = {
        name: section.take(name.replace("_", "-"), read, getattr(usual, name))
        for name, read in _LIMITS.items()
    }
    found["lifetime"] = int(found["lifetime"])
    if found["lifetime"] < 1 and not section.failed("lifetime"):
        section.wrong("lifetime: has to be a second at least", "lifetime")
    section.finish()
    return model.MailboxSettings(store, MailboxLimits(**found))


def _is_url(told: Any) -> bool:
    return isinstance(told, str) and told.startswith(("postgresql://", "postgres://"))


def check_mailbox(section: Section, expose: model.Expose) -> None:
    """What only other kinds of services have, and a list of those who may come."""
    for key in BACKENDS:
        if key in section:
            section.wrong(f"{key}: a mailbox keeps messages itself, and has no backends", key)
    for key in ("quota", "limits"):
        if key in section:
            section.wrong(f"{key}: a mailbox has limits of its own, in [expose.mailbox]", key)
    for key in ("price", "on-chain"):
        if key in section:
            section.wrong(f"{key}: who leaves a message comes under a key of the moment, and can't pay", key)
    if "allow" in section and not section.failed("allow") and not expose.rules.access.everyone:
        what = 'allow: who leaves a message comes under a key of the moment, so a mailbox takes allow = ["*"]'
        section.wrong(what, "allow")
