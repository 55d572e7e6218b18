"""The state of the model."""

from __future__ import annotations

from typing import Any

from .things import Channel, Event, Host, Lock, Operator, Pass, Pipe, Plan


class Base:
    """All objects, who has how much, the time."""

    def __init__(self, now: int, epoch: int, accounts: tuple[str, ...]) -> None:
        self.now, self.epoch = now, epoch
        self.balances = dict.fromkeys(accounts, 0)  # what transactions moved, gas beside it
        self.hosts: dict[str, Host] = {}
        self.operators: dict[str, Operator] = {}
        self.channels: dict[str, Channel] = {}
        self.pipes: dict[str, Pipe] = {}
        self.plans: dict[str, Plan] = {}
        self.passes: dict[str, Pass] = {}
        self.pass_service: dict[str, int] = {}  # of passes whose plan is gone
        self.locks: dict[str, Lock] = {}
        self.caps: dict[str, str] = {}  # host -> holder
        self.label = 0  # of the transaction: part of the names of what it makes
        self.events: list[Event] = []

    def tell(self, name: str, **fields: Any) -> None:
        self.events.append((name, fields))

    def name(self, kind: str) -> str:
        return f"{kind}{self.label}"

    def pay(self, who: str, amount: int) -> None:
        self.balances[who] += amount
