"""Reads and checks `[expose.accounts]`, which says where a login server keeps accounts and what its limits are, and
`login`, which says that callers have to be logged in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from dtp.daemon.config import model, values
from dtp.daemon.config.mailbox import BACKENDS
from dtp.daemon.config.reading import Section

#: Settings with the names of limits, and what reads each.
_LIMITS: Final[dict[str, Callable[[Any], Any]]] = {
    **dict.fromkeys(
        ("accounts", "account_tries", "source_tries", "registrations", "changes"), values.number(1, 2**31)
    ),
    **dict.fromkeys(
        (
            *("account_pause", "source_pause", "registration_pause", "change_pause"),
            *("session", "longest_session"),
        ),
        values.duration,
    ),
}


def read_logins(section: Section | None, file: Callable[[Any], Path]) -> model.LoginSettings:
    """Return the settings of a service of kind login, with defaults for what the section leaves out."""
    from dtp.messaging.login.limits import LoginLimits

    usual = LoginLimits()
    if section is None:
        return model.LoginSettings(None, None, "open", usual)
    store, secrets = section.read_setting("store", file, None), section.read_setting("secrets", file, None)
    registration = section.read_setting("registration", values.choice(model.REGISTRATIONS), "open")
    found = {
        name: section.read_setting(name.replace("_", "-"), read, getattr(usual, name))
        for name, read in _LIMITS.items()
    }
    for name in ("session", "longest_session"):
        found[name] = int(found[name])
        if found[name] < 1 and not section.has_failed(name.replace("_", "-")):
            key = name.replace("_", "-")
            section.note_mistake(f"{key}: has to be at least a second", key)
    section.check_unread()
    return model.LoginSettings(store, secrets, registration, LoginLimits(**found))  # type: ignore[arg-type]


def check_logins(section: Section) -> None:
    """Note as mistakes the settings that only other kinds of services have."""
    for key in BACKENDS:
        if key in section:
            section.note_mistake(f"{key}: a login server keeps accounts itself, and has no backends", key)
    for key in ("quota", "limits"):
        if key in section:
            section.note_mistake(f"{key}: a login server has limits of its own, in [expose.accounts]", key)
    for key in ("price", "on-chain"):
        if key in section:
            section.note_mistake(f"{key}: callers who log in may use a temporary key, and can't pay", key)
    if "login" in section:
        section.note_mistake("login: callers can't be logged in before they reach the login server", "login")


def check_login_servers(root: Section, config: model.Config) -> None:
    """Note as mistakes a second login server, and services with `login` in a daemon without one."""
    servers = [number for number, one in enumerate(config.expose) if one.logins is not None]
    for number in servers[1:]:
        root.note_mistake("kind: a daemon has one login server", "expose", number, "kind")
    for number, one in enumerate(config.expose):
        if one.rules.login is not None and not servers:
            what = 'login: needs a login server: [[expose]] service = "dtp.login", kind = "login"'
            root.note_mistake(what, "expose", number, "login")
