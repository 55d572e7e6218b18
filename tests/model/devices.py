"""An account whose devices some of the replicas are: they join, are put out, and the account gets another key."""

from __future__ import annotations

import hashlib

from histories import Step
from plain import name_of
from replicas import Difference, Replica, same

from dtp.graph import GraphBehind, GraphError
from dtp.identity import Account, Identity


def _key(what: str) -> Identity:
    name = f"account {what}".encode()
    return Identity(hashlib.sha256(name).digest(), hashlib.sha256(name + b" static").digest())


class Household:
    """The account's key, which is in no replica, and its recovery keys."""

    def __init__(self) -> None:
        self.rotations = 0
        self.account = Account.create(_key("0"), _key("recovery 0").id, [], now_ms=1)

    @property
    def soul(self) -> str:
        return f"~{self.account.card.name}/a"

    def join(self, replica: Replica) -> None:
        """Name a replica on the card, and have it show that."""
        if not self.account.card.names(replica.key):
            self.account = self.account.add(replica.identity.id, now_ms=2)
        place = f"%access/{name_of(replica.key)}", f"card/{self.account.card.name}"
        shown = replica.shown().get(place, {}).get("register", [None])[0] == self.account.card.encode()
        try:
            replica.graph.accounts.join(self.account.card)
        except GraphBehind:
            same("behind", True, replica.behind)
            return
        same("written though a restored store may lack what was signed", False, replica.behind and not shown)
        replica.dirty = replica.dirty or not shown

    def cut(self, replica: Replica, other: Replica) -> None:
        """Put a device out, said by another one."""
        card = self.account.card
        allowed = card.names(replica.key) and card.names(other.key) and other.key != replica.key
        if not allowed:
            return
        try:
            self.account = replica.graph.accounts.revoke(self.account, other.identity.id)
        except GraphBehind:
            same("behind", True, replica.behind)
            return
        except GraphError as error:
            raise Difference(f"a device can't be put out: {error}") from None
        replica.dirty = True

    def rotate(self, replica: Replica) -> None:
        """Give the account another key, and say so in one graph."""
        card = self.account.card
        if replica.behind or not card.names(replica.key) or self.rotations >= 3:
            return
        before, self.rotations = self.rotations, self.rotations + 1
        self.account = Account.rotate(
            card,
            _key(f"recovery {before}"),
            _key(str(self.rotations)),
            _key(f"recovery {self.rotations}").id,
            [device for device in card.devices if device.key == replica.key],
            now_ms=3,
        )
        replica.graph.accounts.take_over(self.account)
        replica.dirty = True


def change(household: Household, replica: Replica, step: Step, everyone: list[Replica]) -> None:
    """One of the three. Nothing is uncommitted."""
    if step.b % 4 < 2:
        household.join(replica)
    elif step.b % 4 == 2:
        household.cut(replica, everyone[step.a % len(everyone)])
    elif step.c % 3 == 0:
        household.rotate(replica)
