"""The whole model."""

from __future__ import annotations

import copy
from typing import Any

from .locks import Locks
from .passes import Passes
from .pipes import Pipes
from .things import Event, Refused


class World(Pipes, Passes, Locks):
    """All modules together: `do` is one transaction."""

    def do(self, sender: str, name: str, **arguments: Any) -> list[Event]:
        """Run one transaction; returns its events. Raises `Refused`, or `KeyError` where an object isn't
        there; then the world is as before."""
        for step, each in arguments["steps"] if name == "batch" else [(name, arguments)]:
            self.find(step, each)
        before = copy.deepcopy(vars(self))
        self.events = []
        try:
            getattr(self, name)(sender, **arguments)
        except (Refused, KeyError):
            vars(self).clear()
            vars(self).update(before)
            raise
        self.check()
        return self.events

    def find(self, name: str, arguments: dict[str, Any]) -> None:
        """Raise `KeyError` unless the objects of a function are there; some passes are only named."""
        for part, there in (
            ("host", self.hosts),
            ("beacon", self.hosts),
            ("cap", self.caps),
            ("operator", self.operators),
            ("channel", self.channels),
            ("pipe", self.pipes),
            ("plan", self.plans),
            ("pass_", self.passes),
            ("lock", self.locks),
        ):
            if part in arguments and (name, part) not in (
                ("revoke", "pass_"),
                ("revoke_as_owner", "pass_"),
                ("destroy_cap", "host"),
            ):
                there[arguments[part]]

    def check(self) -> None:
        """No coin vanishes or appears, and what each kind of object promises."""
        for channel in self.channels.values():
            channel.check()
        for plan in self.plans.values():
            plan.check()
        held = sum(c.balance + c.client_credit for c in self.channels.values())
        held += sum(p.pot for p in self.plans.values()) + sum(k.amount for k in self.locks.values())
        assert held + sum(self.balances.values()) == 0

    def batch(self, sender: str, steps: list[tuple[str, dict[str, Any]]]) -> None:
        """Several functions in one transaction, which make no objects."""
        for name, arguments in steps:
            getattr(self, name)(sender, **arguments)
