"""Accounts: the key that speaks for a person's devices, and the cards that it signs. docs/identity.md, "Accounts"."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import ClassVar

from dtp.errors import LocalError
from dtp.identity.card import Card, Device, KeyRotation, rotation_message
from dtp.identity.keys import Identity
from dtp.identity.peer_id import PeerId


class AccountError(LocalError):
    """An account was used in a way that it can't be; the message says what to do."""

    code: ClassVar[str] = "account"


@dataclass(frozen=True)
class Account:
    """The secret half of an account: its key, and the newest card that it signed.

    Who has it adds and removes devices. Devices themselves need only the card. Keep the recovery key elsewhere: it
    alone makes another key the account's, when this one is lost or in wrong hands.
    """

    identity: Identity
    card: Card

    def __post_init__(self) -> None:
        if self.identity.id.key != self.card.key:
            raise AccountError(
                f"this key isn't that of {self.card.name}, or isn't any more; load the key that was made with its "
                "newest card"
            )

    @classmethod
    def create(
        cls,
        identity: Identity,
        recovery: PeerId,
        devices: Iterable[Device] = (),
        *,
        now_ms: int | None = None,
    ) -> Account:
        """Return a new account with this key, that `recovery` can give another one. The two keys name it for good."""
        if recovery == identity.id:
            raise AccountError("the recovery key has to be another than the account's: it is kept elsewhere")
        card = Card(identity.id.key, recovery.key, (), 1, _now(now_ms), 0, tuple(devices))
        return cls(identity, card.sign_with(identity))

    def add(self, device: PeerId, label: str = "", *, now_ms: int | None = None) -> Account:
        """Return the account with one more device, or with another label for one that it has."""
        others = [each for each in self.card.devices if each.key != device.key]
        return self._with_devices([*others, Device(device.key, label)], now_ms)

    def remove(self, device: PeerId, *, now_ms: int | None = None) -> Account:
        """Return the account without a device. Raise `AccountError` for one that it hasn't.

        In each graph it has to be said, too, up to where what the device wrote counts: `Graph.accounts.revoke`.
        """
        if not self.card.names(device.key):
            raise AccountError(f"{device} is not a device of {self.card.name}")
        return self._with_devices([each for each in self.card.devices if each.key != device.key], now_ms)

    def without_removed(self, other: Card, before: Card) -> Account:
        """Return the account without the devices that `before` named and `other` doesn't: what another machine has
        removed, where both have changed the card `before` at once. Every machine that does so signs the same card.
        """
        gone = {each.key for each in before.devices if not other.names(each.key)}
        left = [each for each in self.card.devices if each.key not in gone]
        return self._with_devices(left, self.card.issued_ms) if len(left) < len(self.card.devices) else self

    def renew(self, expires_ms: int, *, now_ms: int | None = None) -> Account:
        """Return the account with a card that holds until `expires_ms` (Unix time; 0 for good)."""
        return self._with_devices(self.card.devices, now_ms, expires_ms)

    @classmethod
    def rotate(
        cls,
        card: Card,
        recovery: Identity,
        identity: Identity,
        next_recovery: PeerId,
        devices: Iterable[Device],
        *,
        now_ms: int | None = None,
    ) -> Account:
        """Return the account of `card` with another key, another recovery key and these devices. What the key
        before signs counts no more, wherever the new card is known. Raise `AccountError` where `recovery` isn't its
        recovery key.

        A recovery key is for one rotation: two that it signed would both count.
        """
        if recovery.id.key != card.recovery:
            raise AccountError(f"{recovery.id} isn't the recovery key of {card.name}")
        used = {card.first_key, card.first_recovery, *(one.key for one in card.rotations)}
        used |= {one.recovery for one in card.rotations}
        if {identity.id.key, next_recovery.key} & used or identity.id == next_recovery:
            raise AccountError("a rotation needs a new key and a new recovery key")
        message = rotation_message(card.account, card.generation + 1, identity.id.key, next_recovery.key)
        turn = KeyRotation(identity.id.key, next_recovery.key, recovery.sign(message))
        made = Card(
            card.first_key,
            card.first_recovery,
            (*card.rotations, turn),
            card.sequence + 1,
            _now(now_ms),
            0,
            tuple(devices),
        )
        return cls(identity, made.sign_with(identity))

    def _with_devices(
        self, devices: Iterable[Device], now_ms: int | None, expires_ms: int | None = None
    ) -> Account:
        card = replace(
            self.card,
            sequence=self.card.sequence + 1,
            issued_ms=_now(now_ms),
            expires_ms=self.card.expires_ms if expires_ms is None else expires_ms,
            devices=tuple(devices),
        )
        return Account(self.identity, card.sign_with(self.identity))


def _now(now_ms: int | None) -> int:
    return int(time.time() * 1000) if now_ms is None else now_ms
