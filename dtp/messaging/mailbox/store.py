"""What a mailbox keeps: the contract of its stores, and what they share.

It knows for whom something is, and when it came; not from whom.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

from dtp.messaging.ends.keys import DeviceKeys
from dtp.messaging.mailbox.limits import MailboxLimits
from dtp.messaging.mailbox.protocol import Refusal
from dtp.messaging.mailbox.stamps import PAID_BYTES, paid_hash, stamp_bits
from dtp.messaging.packing import MAX_NUMBER

#: What is found to be over, in one transaction.
SWEEP: Final = 1000
#: Seconds after which the time up to which that was done is noted again.
NOTED: Final = 600


class Tray(IntEnum):
    """Where envelopes wait."""

    KNOWN = 0
    STRANGERS = 1


@dataclass(frozen=True, slots=True)
class Deposit:
    """Something to keep: for whom, what, for how many seconds, and what says that it may be."""

    recipient: bytes
    envelope: bytes
    seconds: int
    access: bytes = b""
    stamp: bytes = b""


@dataclass(frozen=True, slots=True)
class KeptEnvelope:
    """An envelope that waits: its number, which rises, and when it came, Unix time in seconds."""

    id: int
    received: int
    envelope: bytes


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a deposit; `detail` is how many bits of work a stamp needs, `stamp_mib` what it costs instead,
    in MiB of room for a month."""

    refusal: Refusal
    detail: int = 0
    stamp_mib: int = 0


@dataclass(frozen=True, slots=True)
class Status:
    """What waits for a device: envelopes, bytes, those of strangers, one-time keys that are left; the bytes that it
    has paid for, and until when, Unix time in seconds."""

    count: int
    bytes: int
    strangers: int
    one_time_keys: int
    reserved: int = 0
    paid_until: int = 0


@dataclass(frozen=True, slots=True)
class StampFacts:
    """What a store knows of a stamp that somebody wants to pay: what it costs, in MiB of room for a month, 0 where
    its recipient takes none; for how many envelopes it is good already; whether there is a place for one more."""

    mib: int
    uses: int
    has_place: bool


DONE: Final = Outcome(Refusal.DONE)


class MailboxStore(ABC):
    """What a mailbox keeps. Its methods block, each is one transaction, and each raises `StoreFailed` where it can't;
    `now` is Unix time in seconds. Nothing is said to be done before it is where a crash leaves it.

    Several processes may have one store, where its engine says so: `watch` tells each of what came by the others.
    """

    limits: MailboxLimits

    @abstractmethod
    def close(self) -> None:
        """Let go of it. Idempotent."""

    def watch_others(self, came: Callable[[bytes], None]) -> None:  # noqa: B027 - most engines have nothing to tell
        """Have `came` called, in any thread, with a device for which another process has kept something; b"" where
        it isn't known for which. An engine that one process has alone never calls it.
        """

    # ---- devices -----------------------------------------------------------------------------------------------

    @abstractmethod
    def publish_keys(
        self, device: bytes, sequence: int, keys: bytes, one_time: Sequence[bytes], latest: int = MAX_NUMBER
    ) -> Outcome:
        """Keep a device's keys, and one-time keys besides those that are left: of newer keys in their place. Keys of
        after `latest` were made by a clock that was ahead, and any others are newer."""

    @abstractmethod
    def take_keys(self, device: bytes) -> tuple[bytes, bytes] | None:
        """Return a device's keys and a one-time key, which is given to nobody else; b"" if none is left.

        None for a device that isn't known here.
        """

    @abstractmethod
    def set_access(self, device: bytes, access: bytes, bits: int, stamp_mib: int = 0) -> Outcome:
        """Set the hash of what those present that the owner knows, and what a stranger's message takes: so many bits
        of work, or with `stamp_mib` a stamp for which so many MiB of the owner's room were paid."""

    @abstractmethod
    def put_card(self, device: bytes, card: bytes) -> Outcome:
        """Keep the card of the person whose device this is, in the place of an older one."""

    @abstractmethod
    def get_card(self, device: bytes) -> bytes | None:
        """Return the card of the device's person; b"" if it has given none, None for an unknown device."""

    @abstractmethod
    def forget_device(self, device: bytes) -> None:
        """Forget a device and all that is kept for it."""

    @abstractmethod
    def device_status(self, device: bytes) -> Status | None:
        """Return what waits for a device, None for one that isn't known here."""

    @abstractmethod
    def reserve_room(
        self, device: bytes, size: int, seconds: int, now: int, stamp: bytes = b""
    ) -> Status | None:
        """Note that `size` bytes were paid for a device for so many seconds more, and return how that stands; None
        for a device that isn't known here. What is left of less counts for as long as it has paid for this much;
        more stays as large (`add_room`). Who has paid has the `stamp` with this hash for that, if any: it is good for
        as many envelopes, and for as long, as the limits say."""

    @abstractmethod
    def look_up_stamp(self, device: bytes, stamp: bytes, now: int) -> StampFacts | None:
        """Return what is known of the paid stamp with this hash, None for a device that isn't known here."""

    @abstractmethod
    def has_access(self, device: bytes, access: bytes) -> bool:
        """Return True if `access` is the one that the device's owner has given to acquaintances."""

    # ---- envelopes ---------------------------------------------------------------------------------------------

    @abstractmethod
    def add_envelopes(self, deposits: Sequence[Deposit], now: int) -> list[Outcome]:
        """Keep envelopes, all in one transaction. What is there already is kept once. A paid stamp that lets a
        stranger's envelope in is good for one less."""

    @abstractmethod
    def fetch_envelopes(
        self, device: bytes, tray: Tray, after: int, most: int, most_bytes: int
    ) -> list[KeptEnvelope]:
        """Return what waits for a device in a tray, oldest first: those numbered above `after`, `most` at most, and
        no more than `most_bytes` but for the first. It stays until it is acknowledged."""

    @abstractmethod
    def acknowledge_envelopes(self, device: bytes, ids: Sequence[int]) -> None:
        """Forget envelopes of a device, which has them. Others' numbers are ignored. A power cut may bring some
        back."""

    @abstractmethod
    def expire_envelopes(self, now: int) -> int:
        """Forget what has been kept for long enough by `now`, a thousand of it at most. Return how many those were.

        That time is noted, where it is later than what was noted by `NOTED` seconds.
        """

    @abstractmethod
    def last_expiry(self) -> int | None:
        """Return the time that `expire` was told last, as far as it was noted: 0 where it wasn't, None where nothing
        is kept that could be forgotten."""

    # ---- pieces of attachments ---------------------------------------------------------------------------------

    @abstractmethod
    def put_piece(self, recipient: bytes, piece: bytes, seconds: int, access: bytes, now: int) -> Outcome:
        """Keep a sealed piece of an attachment for a device, from somebody it knows. It is had by its hash."""

    @abstractmethod
    def get_piece(self, digest: bytes) -> bytes | None:
        """Return the piece with this hash, or None."""

    @abstractmethod
    def has_pieces(self, digests: Sequence[bytes]) -> list[bool]:
        """Return of each hash whether its piece is here."""


@dataclass(frozen=True, slots=True)
class Recipient:
    """What a store knows of a device when something comes for it."""

    id: int
    access: bytes
    bits: int
    count: int
    size: int
    strangers: int
    strangers_size: int
    reserved: int
    paid_until: int
    stamp_mib: int

    def tray_for(self, access: bytes) -> Tray:
        """Return the tray for an envelope that comes with this access."""
        known = self.access and access_hash(access) == self.access
        return Tray.KNOWN if known else Tray.STRANGERS

    def paid_stamp(self, deposit: Deposit) -> bytes:
        """Return the hash of the paid stamp of a deposit; b"" if it has none or needs none."""
        if len(deposit.stamp) != PAID_BYTES or self.tray_for(deposit.access) is Tray.KNOWN:
            return b""
        return paid_hash(deposit.stamp)

    def why_refused(
        self, deposit: Deposit, limits: MailboxLimits, now: int, *, paid: bool = False
    ) -> Outcome | None:
        """Return why a deposit is refused, or None. `paid` says that its stamp is a paid one that is good."""
        added = len(deposit.envelope)
        refused = self.why_no_room(added, limits, now)
        if self.tray_for(deposit.access) is Tray.STRANGERS:
            if not paid and (needed := self._why_no_stamp(deposit, limits)):
                return needed
            room = limits.device_room(self.reserved, self.paid_until, now)
            most = min(limits.strangers_bytes, room // 2)  # they leave room for those who are known
            if self.strangers >= limits.strangers or self.strangers_size + added > most:
                return refused or Outcome(Refusal.FULL)
        return Outcome(Refusal.FULL) if self.count >= limits.envelopes else refused

    def _why_no_stamp(self, deposit: Deposit, limits: MailboxLimits) -> Outcome | None:
        """Return what stamp a deposit lacks that isn't a paid one."""
        if self.stamp_mib:
            return Outcome(Refusal.STAMP_NEEDED, 0, self.stamp_mib)
        bits = max(self.bits, limits.stamp_bits)
        worth = stamp_bits(deposit.recipient, deposit.envelope, deposit.stamp)
        return Outcome(Refusal.STAMP_NEEDED, bits) if worth < bits else None

    def stamp_facts(self, uses: int, stamps: int, limits: MailboxLimits) -> StampFacts:
        """Return what is known of a stamp that is good for `uses` envelopes, where there are so many `stamps`."""
        has_place = self.strangers < limits.strangers and stamps < limits.stamps
        return StampFacts(self.stamp_mib, uses, has_place)

    def why_no_room(self, added: int, limits: MailboxLimits, now: int) -> Outcome | None:
        """Return why so many bytes more are refused: what was paid for is used up, or all that there is."""
        if self.size + added > limits.recipient_bytes:
            return Outcome(Refusal.FULL)
        if self.size + added > limits.device_room(self.reserved, self.paid_until, now):
            return Outcome(Refusal.NOT_PAID)
        return None


def add_room(before: tuple[int, int], size: int, seconds: int, now: int) -> tuple[int, int]:
    """Return how many bytes are paid for until when, seconds: `size` bytes for so many seconds more, with what is
    left of `before`, bytes and until when.

    More room than that stays as large for as long as there is any, and longer for what is paid now: anybody may pay
    for anybody, and nobody is to make another's room smaller.
    """
    reserved, until = before
    left = max(until - now, 0)
    if left and reserved > size:
        return reserved, until + size * seconds // reserved
    return size, now + seconds + reserved * left // size


def access_hash(access: bytes) -> bytes:
    """Return what a mailbox knows of an access: its hash, so that a mailbox's copy gives none away."""
    return hashlib.blake2b(access, digest_size=16, person=b"dtp.access").digest()


def piece_hash(piece: bytes) -> bytes:
    """Return what a piece is asked for by, 32 bytes."""
    return hashlib.blake2b(piece, digest_size=32, person=b"dtp.piece").digest()


def instance_of(keys: bytes) -> bytes:
    """Return the instance of a device that signed keys are of."""
    return DeviceKeys.parse(keys).instance


def take_fitting(rows: Iterable[Sequence[Any]], most_bytes: int) -> list[KeptEnvelope]:
    """Return envelopes from the first one on, no more than `most_bytes` but for that."""
    found: list[KeptEnvelope] = []
    for number, received, body in rows:
        most_bytes -= len(body)
        if found and most_bytes < 0:
            break
        found.append(KeptEnvelope(number, received, bytes(body)))
    return found
