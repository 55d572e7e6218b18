"""Reads and checks `[expose.tips]`: where letters to a line for tips are kept, and what the line is called."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from dtp.daemon.config import model, values
from dtp.daemon.config.mailbox import BACKENDS
from dtp.daemon.config.reading import Section


def read_tips(section: Section | None, file: Callable[[Any], Path]) -> model.TipSettings:
    """Return the settings of a service of kind tips, with the defaults of `dtp tip open` for what is left out."""
    from dtp.messaging.cards.contact_card import MAX_MAILBOXES
    from dtp.messaging.mailbox.stamps import DEFAULT_BITS, MAX_BITS

    if section is None:
        return model.TipSettings((), None, None, DEFAULT_BITS)
    settings = model.TipSettings(
        tuple(str(each) for each in section.take_all("mailboxes", values.address)),
        section.read_setting("store", file, None),
        section.read_setting("name", values.text, None),
        section.read_setting("stamp-bits", values.number(0, MAX_BITS), DEFAULT_BITS),
    )
    if len(settings.mailboxes) > MAX_MAILBOXES:
        section.note_mistake(f"mailboxes: a card can have at most {MAX_MAILBOXES}", "mailboxes")
    section.check_unread()
    return settings


def check_tips(section: Section, expose: model.Expose) -> None:
    """Note as mistakes the settings that only other kinds of services have."""
    for key in BACKENDS:
        if key in section:
            section.note_mistake(f"{key}: a line for tips says its card itself, and has no backends", key)
    for key in ("quota", "limits", "price", "on-chain"):
        if key in section:
            section.note_mistake(f"{key}: tippers use a temporary key, and only ask for a card", key)
    if "allow" in section and not section.has_failed("allow") and not expose.rules.access.everyone:
        what = 'allow: tippers use a temporary key, so a line needs allow = ["*"]'
        section.note_mistake(what, "allow")
