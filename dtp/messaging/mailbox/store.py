"""The contract of a mailbox's stores, and what they share.

A store knows for whom something is and when it came, but not from whom.
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

#: Expired items that are deleted in one transaction, at most.
SWEEP: Final = 1000
#: Seconds after which the time of the last expiry is noted again.
NOTED: Final = 600


class Tray(IntEnum):
    """The tray in which an envelope waits: from acquaintances, or from strangers."""

    KNOWN = 0
    STRANGERS = 1


@dataclass(frozen=True, slots=True)
class Deposit:
    """An envelope to keep for a device, for so many seconds, with the access or the stamp that allows it."""

    recipient: bytes
    envelope: bytes
    seconds: int
    access: bytes = b""
    stamp: bytes = b""


@dataclass(frozen=True, slots=True)
class KeptEnvelope:
    """A waiting envelope: its number, which rises, and when it came, Unix time in seconds."""

    id: int
    received: int
    envelope: bytes


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a deposit. If a stamp is needed, `detail` is its bits of work, or `stamp_mib` its price, as
    MiB of room for a month.
    """

    refusal: Refusal
    detail: int = 0
    stamp_mib: int = 0


@dataclass(frozen=True, slots=True)
class Status:
    """What waits for a device: envelopes, bytes, envelopes of strangers, and one-time keys that are left; and the
    bytes that it has paid for, and until when, Unix time in seconds.
    """

    count: int
    bytes: int
    strangers: int
    one_time_keys: int
    reserved: int = 0
    paid_until: int = 0


@dataclass(frozen=True, slots=True)
class StampFacts:
    """What a store knows about a stamp that somebody wants to pay for: its price as MiB of room for a month, 0 if
    the recipient accepts none; how many envelopes it lets in already; and whether there is a place for one more
    stamp.
    """

    mib: int
    uses: int
    has_place: bool


DONE: Final = Outcome(Refusal.DONE)


class MailboxStore(ABC):
    """The store of a mailbox. Its methods block; each is one transaction, which is safe from a crash when the
    method returns; and each raises `StoreFailed` if that fails. `now` is Unix time in seconds.

    Several processes may share a store if its engine says so: `watch_others` tells each what came through the
    others.
    """

    limits: MailboxLimits

    @abstractmethod
    def close(self) -> None:
        """Close the store. Idempotent."""

    def watch_others(self, came: Callable[[bytes], None]) -> None:  # noqa: B027 - most engines have nothing to tell
        """Have `came` called, in any thread, with each device for which another process has kept something; with
        b"" if the device isn't known. An engine whose stores belong to one process never calls it.
        """

    # ---- devices -----------------------------------------------------------------------------------------------

    @abstractmethod
    def publish_keys(
        self, device: bytes, sequence: int, keys: bytes, one_time: Sequence[bytes], latest: int = MAX_NUMBER
    ) -> Outcome:
        """Keep a device's keys, and add one-time keys; those of an earlier instance are replaced. Any keys are
        newer than those that are signed after `latest`, by a clock that was ahead.
        """

    @abstractmethod
    def take_keys(self, device: bytes) -> tuple[bytes, bytes] | None:
        """Return a device's keys and a one-time key, which nobody else is given; b"" if none is left.

        Return None for an unknown device.
        """

    @abstractmethod
    def set_access(self, device: bytes, access: bytes, bits: int, stamp_mib: int = 0) -> Outcome:
        """Set the hash of the access that the owner's acquaintances present, and what strangers' messages need: a
        stamp of `bits` of work, or, if `stamp_mib` is given, a stamp that costs as much as so many MiB of room for
        a month.
        """

    @abstractmethod
    def put_card(self, device: bytes, card: bytes) -> Outcome:
        """Keep the card of the person whose device this is, in place of an older one."""

    @abstractmethod
    def get_card(self, device: bytes) -> bytes | None:
        """Return the card of the device's person, b"" if it has left none, and None for an unknown device."""

    @abstractmethod
    def forget_device(self, device: bytes) -> None:
        """Delete a device and everything that is kept for it."""

    @abstractmethod
    def device_status(self, device: bytes) -> Status | None:
        """Return what waits for a device, or None for an unknown one."""

    @abstractmethod
    def reserve_room(
        self, device: bytes, size: int, seconds: int, now: int, stamp: bytes = b""
    ) -> Status | None:
        """Note that `size` bytes were paid for a device for so many more seconds, and return its status; None for
        an unknown device. What is left of smaller room is converted into time; larger room stays as it is, for
        longer (`add_room`). If the hash of a `stamp` is given, the stamp becomes valid for as many envelopes, and
        for as long, as the limits say.
        """

    @abstractmethod
    def look_up_stamp(self, device: bytes, stamp: bytes, now: int) -> StampFacts | None:
        """Return what is known about the paid stamp with this hash, or None for an unknown device."""

    @abstractmethod
    def has_access(self, device: bytes, access: bytes) -> bool:
        """Return True if `access` is the one that the device's owner has given to acquaintances."""

    # ---- envelopes ---------------------------------------------------------------------------------------------

    @abstractmethod
    def add_envelopes(self, deposits: Sequence[Deposit], now: int) -> list[Outcome]:
        """Keep envelopes, all in one transaction. An envelope that is there already is kept once. If a paid stamp
        lets a stranger's envelope in, one use of it is counted.
        """

    @abstractmethod
    def fetch_envelopes(
        self, device: bytes, tray: Tray, after: int, most: int, most_bytes: int
    ) -> list[KeptEnvelope]:
        """Return the envelopes that wait for a device in a tray, oldest first: those numbered above `after`, `most`
        at most, and `most_bytes` at most unless the first alone is larger. They stay until they are acknowledged.
        """

    @abstractmethod
    def acknowledge_envelopes(self, device: bytes, ids: Sequence[int]) -> None:
        """Delete envelopes that the device has received. Numbers of other devices' envelopes are ignored. A power
        cut may bring some back.
        """

    @abstractmethod
    def expire_envelopes(self, now: int) -> int:
        """Delete what has expired by `now`, at most a thousand items. Return how many were deleted.

        The time is noted as well, if it is at least `NOTED` seconds after the one that was noted last.
        """

    @abstractmethod
    def last_expiry(self) -> int | None:
        """Return the last noted time of `expire_envelopes`: 0 if none was noted, and None if nothing is kept that
        could expire.
        """

    # ---- pieces of attachments ---------------------------------------------------------------------------------

    @abstractmethod
    def put_piece(self, recipient: bytes, piece: bytes, seconds: int, access: bytes, now: int) -> Outcome:
        """Keep a sealed piece of an attachment for a device, from one of its acquaintances. Anybody who has its
        hash can fetch it.
        """

    @abstractmethod
    def get_piece(self, digest: bytes) -> bytes | None:
        """Return the piece with this hash, or None."""

    @abstractmethod
    def has_pieces(self, digests: Sequence[bytes]) -> list[bool]:
        """Return for each hash whether its piece is here."""


@dataclass(frozen=True, slots=True)
class Recipient:
    """What decides whether something is kept for a device."""

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
        """Return the hash of a deposit's paid stamp; b"" if it has none or needs none."""
        if len(deposit.stamp) != PAID_BYTES or self.tray_for(deposit.access) is Tray.KNOWN:
            return b""
        return paid_hash(deposit.stamp)

    def why_refused(
        self, deposit: Deposit, limits: MailboxLimits, now: int, *, paid: bool = False
    ) -> Outcome | None:
        """Return why a deposit is refused, or None. `paid` says that its stamp is paid for and valid."""
        added = len(deposit.envelope)
        refused = self.why_no_room(added, limits, now)
        if self.tray_for(deposit.access) is Tray.STRANGERS:
            if not paid and (needed := self._why_no_stamp(deposit, limits)):
                return needed
            room = limits.device_room(self.reserved, self.paid_until, now)
            most = min(limits.strangers_bytes, room // 2)  # this leaves room for acquaintances
            if self.strangers >= limits.strangers or self.strangers_size + added > most:
                return refused or Outcome(Refusal.FULL)
        return Outcome(Refusal.FULL) if self.count >= limits.envelopes else refused

    def _why_no_stamp(self, deposit: Deposit, limits: MailboxLimits) -> Outcome | None:
        """Return which stamp a deposit lacks, or None. It has no valid paid one."""
        if self.stamp_mib:
            return Outcome(Refusal.STAMP_NEEDED, 0, self.stamp_mib)
        bits = max(self.bits, limits.stamp_bits)
        worth = stamp_bits(deposit.recipient, deposit.envelope, deposit.stamp)
        return Outcome(Refusal.STAMP_NEEDED, bits) if worth < bits else None

    def stamp_facts(self, uses: int, stamps: int, limits: MailboxLimits) -> StampFacts:
        """Return what is known about a stamp that lets in `uses` envelopes, if there are so many `stamps`."""
        has_place = self.strangers < limits.strangers and stamps < limits.stamps
        return StampFacts(self.stamp_mib, uses, has_place)

    def why_no_room(self, added: int, limits: MailboxLimits, now: int) -> Outcome | None:
        """Return why `added` more bytes are refused, or None: the paid room is used up, or the limit is reached."""
        if self.size + added > limits.recipient_bytes:
            return Outcome(Refusal.FULL)
        if self.size + added > limits.device_room(self.reserved, self.paid_until, now):
            return Outcome(Refusal.NOT_PAID)
        return None


def add_room(before: tuple[int, int], size: int, seconds: int, now: int) -> tuple[int, int]:
    """Return how many bytes are paid for and until when, after `size` bytes were paid for `seconds` more. `before`
    is what was paid for until then.

    What is left of smaller room is converted into time of the new size. Room that is larger keeps its size, and the
    payment makes it last longer: anybody may pay for anybody, and nobody should be able to make another's room
    smaller.
    """
    reserved, until = before
    left = max(until - now, 0)
    if left and reserved > size:
        return reserved, until + size * seconds // reserved
    return size, now + seconds + reserved * left // size


def access_hash(access: bytes) -> bytes:
    """Return the hash of an access. A mailbox keeps only that, so that a copy of its store gives none away."""
    return hashlib.blake2b(access, digest_size=16, person=b"dtp.access").digest()


def piece_hash(piece: bytes) -> bytes:
    """Return the hash by which a piece is requested, 32 bytes."""
    return hashlib.blake2b(piece, digest_size=32, person=b"dtp.piece").digest()


def instance_of(keys: bytes) -> bytes:
    """Return the device's instance in signed keys."""
    return DeviceKeys.parse(keys).instance


def take_fitting(rows: Iterable[Sequence[Any]], most_bytes: int) -> list[KeptEnvelope]:
    """Return the first envelopes, `most_bytes` at most unless the first alone is larger."""
    found: list[KeptEnvelope] = []
    for number, received, body in rows:
        most_bytes -= len(body)
        if found and most_bytes < 0:
            break
        found.append(KeptEnvelope(number, received, bytes(body)))
    return found
