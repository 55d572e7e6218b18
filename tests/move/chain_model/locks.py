"""Module `lock`."""

from __future__ import annotations

import hashlib

from .base import Base
from .things import SUI, YEAR, Lock, check_key, need


class Locks(Base):
    """Money under a hash or a key."""

    def new_lock(self, sender, amount, by_key, commitment, payee, relay_fee, deadline_ms):
        if by_key:
            check_key(commitment, "lock")
            payee = sender
        else:
            need(len(commitment) == 32, "lock", "EBadHash")
            need(payee != "nobody", "lock", "ENoPayee")
        need(amount > 0, "lock", "EZeroAmount")
        need(relay_fee <= amount, "lock", "EFeeTooLarge")
        need(deadline_ms > self.now, "lock", "EDeadlinePassed")
        need(deadline_ms - self.now <= 2 * YEAR, "lock", "EDeadlineTooFar")
        self.pay(sender, -amount)
        name = self.name("lock")
        self.locks[name] = Lock(sender, payee, amount, by_key, commitment, relay_fee, deadline_ms)
        self.tell(
            "Locked",
            lock=name,
            payer=sender,
            amount=amount,
            condition=int(by_key),
            commitment=commitment,
            deadline_ms=deadline_ms,
            coin=SUI,
        )

    def pay_lock(self, sender: str, name: str, recipient: str, preimage: bytes) -> None:
        lock = self.locks.pop(name)
        rest = lock.amount - lock.relay_fee
        self.tell(
            "LockClaimed",
            lock=name,
            recipient=recipient,
            amount=rest,
            relay_fee=lock.relay_fee,
            preimage=preimage,
            coin=SUI,
        )
        self.pay(recipient, rest)
        self.pay(sender, lock.relay_fee)

    def claim_by_preimage(self, sender, lock, preimage):
        entry = self.locks[lock]
        need(self.now <= entry.deadline_ms, "lock", "EDeadlinePassed")
        need(not entry.by_key, "lock", "ENotHashLock")
        fits = len(preimage) == 32 and hashlib.sha256(preimage).digest() == entry.commitment
        need(fits, "lock", "EWrongPreimage")
        self.pay_lock(sender, lock, entry.payee, preimage)

    def claim_by_key(self, sender, lock, recipient, signer, spoiled=False):
        entry = self.locks[lock]
        need(self.now <= entry.deadline_ms, "lock", "EDeadlinePassed")
        need(entry.by_key, "lock", "ENotKeyLock")
        need(recipient != "nobody", "lock", "ENoPayee")
        need(signer == entry.commitment and not spoiled, "lock", "EBadSignature")
        self.pay_lock(sender, lock, recipient, b"")

    def refund(self, sender, lock):
        entry = self.locks[lock]
        need(self.now > entry.deadline_ms, "lock", "ETooEarly")
        del self.locks[lock]
        self.tell("LockRefunded", lock=lock, amount=entry.amount, coin=SUI)
        self.pay(entry.payer, entry.amount)
