"""A device's outgoing and incoming payloads, without a network. Each call is one transaction.

Nothing is returned for sending, and nothing counts as received, before the keys that it changed are on the disk.
"""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from dtp.errors import PeerError
from dtp.identity import Identity
from dtp.messaging.cards import ContactCard
from dtp.messaging.conversation.events import HISTORY, Event, EventKind
from dtp.messaging.ends.device import LocalDevice, save_key
from dtp.messaging.ends.envelope import MAX_PAYLOAD, Sealed, open_envelope
from dtp.messaging.ends.keys import SKEW_MS, KeyBundle
from dtp.messaging.ends.order import RENEW_TRIES, Outgoing, resend_after
from dtp.messaging.ends.peer import RemoteDevice
from dtp.messaging.errors import MessageTooLong, NotOpened
from dtp.messaging.person.storage.store import MessageStore

#: The most devices that are kept in memory.
_CACHED: Final = 1024
#: Payloads that are sealed in one transaction.
SEALED_AT_ONCE: Final = 64


class Introduced(IntEnum):
    """What a device was told of who we are, as stored: our card, with or without the access to our mailboxes."""

    NOT = 0
    FULLY = 1
    PUBLICLY = 2


#: Returns how much a device may be told of who we are, and the event that tells it.
Introduce = Callable[[bytes], tuple[Introduced, bytes]]


@dataclass
class Peer:
    """A device, the person that it says it belongs to (b"" before that), and what it was told of who we are."""

    remote: RemoteDevice
    person: bytes = b""
    introduced: Introduced = Introduced.NOT


@dataclass(frozen=True, slots=True)
class Outbound:
    """An envelope for a device. `number` is None for a payload that isn't kept until it is acknowledged. `tries` is
    how often mailboxes have accepted the payload; one too many if a program was killed meanwhile."""

    device: bytes
    number: int | None
    envelope: bytes
    tries: int = 0


@dataclass
class ReceivedEnvelopes:
    """What envelopes contained: payloads and transient payloads, each with its device; messages of ours that a device
    acknowledges; and devices that need a new session, since something couldn't be opened."""

    payloads: list[tuple[bytes, bytes]] = field(default_factory=list)
    fleeting: list[tuple[bytes, bytes]] = field(default_factory=list)
    delivered: list[tuple[bytes, bytes]] = field(default_factory=list)
    repairs: list[bytes] = field(default_factory=list)
    answers: set[bytes] = field(default_factory=set)
    #: Devices that have acknowledged more of what waited for them.
    acknowledged: set[bytes] = field(default_factory=set)
    #: Devices that have a new instance: they may have forgotten whose device this is.
    renewed: set[bytes] = field(default_factory=set)
    #: Devices from which nothing had come before.
    newcomers: set[bytes] = field(default_factory=set)
    #: True if something has to be sent again at once.
    resends: bool = False
    #: Envelopes that weren't for this device, were changed on the way, or were malformed by their sender.
    broken: int = 0


class Desk:
    """Sessions, sequence numbers and the outbox of one device. Don't use it from two threads at once."""

    def __init__(self, path: str | os.PathLike[str], identity: Identity, now_ms: int) -> None:
        self.identity = identity
        self.store = MessageStore(path, identity.id.key, save_key(identity))
        self._peers: OrderedDict[bytes, Peer] = OrderedDict()
        self._changed: set[bytes] = set()
        #: Why a new instance was begun when the file was opened, or "" if none was.
        self.renewed = ""
        try:
            saved = self.store.get_value("device")
            if saved is None:
                self._create_device(now_ms, 0)
            else:
                self.local = LocalDevice.load(identity, saved)
                if self.store.restored:
                    self._begin_instance(now_ms)
        except BaseException:
            self.store.close()
            raise

    def _create_device(self, now_ms: int, after: int) -> None:
        with self.store.transaction():
            self.local = LocalDevice.create_instance(
                self.identity, self.store.begin_instance(), now_ms, after=after
            )
            self.store.put_value("device", self.local.save())

    def _begin_instance(self, now_ms: int) -> None:
        """Begin a new instance: this file may be a copy, whose original has used the sessions since."""
        self.renewed, after = self.store.restored, self.local.keys.sequence
        with self.store.transaction():
            instance = self.store.begin_instance()
            self.local = LocalDevice.create_instance(self.identity, instance, now_ms, after=after)
            self.store.put_value("device", self.local.save())
            for device in self.store.list_devices():
                peer = self.peer_of(device)
                peer.remote.sessions = []
                # If nothing waits, our card goes out with the next event.
                if not self.store.count_waiting(device):
                    peer.introduced = Introduced.NOT
                first = int(peer.introduced is not Introduced.NOT)
                count = self.store.renumber_device(device, first=first)
                if first:  # the other device may be restored as well, and accept nothing without our card
                    self.store.add_outgoing(device, 0, b"", self._introduction(peer))
                peer.remote.outgoing = Outgoing(count + first, 0)
                self._save_device(device)

    def _introduction(self, peer: Peer) -> bytes:
        """Return the event that tells a device as much of our card as it was told, with the time at which the card
        was made."""
        card = ContactCard.parse(self.store.get_value("card") or b"")
        told = card.public() if peer.introduced is Introduced.PUBLICLY else card
        return Event(EventKind.CARD, card.person, 0, card.sequence, {"card": told.encode()}).encode()

    def close(self) -> None:
        """Close the file."""
        self.store.close()

    # ---- devices -----------------------------------------------------------------------------------------------

    def peer_of(self, device: bytes) -> Peer:
        """Return the state of a device, a new one if the device is unknown. It is saved when it is first used."""
        found = self._peers.pop(device, None)
        if found is None:
            saved = self.store.load_peer(device)
            if saved is None:
                found = Peer(RemoteDevice(device))
            else:
                remote = RemoteDevice.load(saved[0], self.local.save_key)
                found = Peer(remote, saved[1], Introduced(saved[2]))
        self._peers[device] = found
        while len(self._peers) > _CACHED:
            gone, peer = self._peers.popitem(last=False)
            if gone in self._changed:
                self._changed.discard(gone)
                self._put_peer(gone, peer)
        return found

    def said_person(self, device: bytes) -> bytes:
        """Return the person that a device says it belongs to, or b"". May be called in any thread: it loads no
        state."""
        known = self._peers.get(device)
        return self.store.get_person(device) if known is None else known.person

    def _save_device(self, device: bytes) -> None:
        self._put_peer(device, self.peer_of(device))

    def _put_peer(self, device: bytes, peer: Peer) -> None:
        self.store.put_peer(device, peer.remote.save(self.local.save_key), peer.person, peer.introduced)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Run the block in one transaction, which also saves the devices that `enqueue_event` has changed."""
        with self.store.transaction():
            yield
            changed, self._changed = self._changed, set()
            for device in changed:
                self._save_device(device)

    def reload_devices(self) -> None:
        """Reload what is on the disk, after a transaction that failed."""
        self._peers.clear()
        self._changed.clear()
        saved = self.store.get_value("device")
        if saved is not None:
            self.local = LocalDevice.load(self.identity, saved)

    def note_person(self, device: bytes, person: bytes) -> None:
        """Note, within a transaction, the person that a device says it belongs to."""
        self.peer_of(device).person = person
        self._save_device(device)

    def forget_device(self, device: bytes) -> None:
        """Forget, within a transaction, the sessions with a revoked device and what waits for it."""
        peer = self.peer_of(device)
        peer.remote.forget_sessions()
        peer.remote.outgoing = Outgoing(peer.remote.outgoing.next, peer.remote.outgoing.next)
        peer.person, peer.introduced = b"", Introduced.NOT
        self.store.drop_device(device)
        self._save_device(device)

    def drop_devices(self, devices: Iterable[bytes]) -> None:
        """Forget, within a transaction, everything about some devices."""
        for device in devices:
            self._peers.pop(device, None)
            self._changed.discard(device)
            self.store.drop_device(device)
            self.store.drop_peer(device)

    # ---- keys --------------------------------------------------------------------------------------------------

    def keys_to_publish(self, count: int, now_ms: int) -> tuple[bytes, list[bytes]]:
        """Return this device's signed keys and `count` new one-time keys, which are stored first."""
        with self.store.transaction():
            self.local.renew_keys(now_ms)
            made = self.local.make_one_time_keys(count) if count else []
            self.store.put_value("device", self.local.save())
        return self.local.keys.encoded, made

    def begin_session(self, device: bytes, bundle: KeyBundle) -> None:
        """Begin a session with a device. Raise `KeysRolledBack` or `KeysForged`, and change nothing then."""
        peer = self.peer_of(device)
        before = peer.remote.keys
        peer.remote.begin_session(self.local, bundle)
        with self.store.transaction():
            if before is not None and before.instance != bundle.keys.instance:
                self.introduce_again(device)
            self._save_device(device)

    # ---- sending -----------------------------------------------------------------------------------------------

    def enqueue_event(
        self,
        devices: Iterable[bytes],
        event: Event,
        introduce: Introduce | None = None,
        *,
        shown: bytes = b"",
    ) -> None:
        """Queue an event for devices, within `transaction`, behind other events for them. `shown` is the id of the
        message that it carries, if that isn't the event's own.

        If a device wasn't told who we are, or less than it may know by now, what `introduce` returns goes first. If
        the queue of a device is full, only the id of the event is noted, as missed. This device itself gets nothing,
        since anybody's card may name it. Raise `MessageTooLong`, and keep nothing, if the event could never be
        sealed.
        """
        payload = event.encode()
        if len(payload) > MAX_PAYLOAD:
            raise MessageTooLong(f"an event of {len(payload)} bytes; {MAX_PAYLOAD} are the most")
        shown = event.id if event.kind is EventKind.TEXT else shown
        for device in devices:
            if device == self.identity.id.key:
                continue
            peer = self.peer_of(device)
            outgoing = peer.remote.outgoing
            self._changed.add(device)
            if outgoing.is_full:
                self.store.missed.add_event(device, event.id if event.kind in HISTORY else shown)
                peer.introduced = Introduced.NOT  # our card may have changed by then
                continue
            if introduce is not None:
                self.introduce_device(device, introduce)
            self.store.add_outgoing(device, outgoing.allot_number(), shown, payload)

    def introduce_device(self, device: bytes, introduce: Introduce) -> None:
        """Tell a device who we are, within `transaction`, unless it was already told as much as it may know."""
        peer = self.peer_of(device)
        if peer.introduced is Introduced.FULLY:
            return
        introduced, card = introduce(device)
        if introduced is not peer.introduced:
            self._changed.add(device)
            self.store.add_outgoing(device, peer.remote.outgoing.allot_number(), b"", card)
            peer.introduced = introduced

    def introduce_again(self, device: bytes) -> None:
        """Send our card, within a transaction, to a device with a new instance, before everything that waits for it.

        The card takes the number of the last message that the device has acknowledged. The device's backup may be
        from before it got our card, without which it accepts nothing of ours.
        """
        peer = self.peer_of(device)
        number = peer.remote.outgoing.reopen_last() if peer.introduced else None
        if number is not None:
            self.store.add_outgoing(device, number, b"", self._introduction(peer))
            self._save_device(device)

    def devices_without_session(self, now_ms: int) -> list[bytes]:
        """Return the devices for which something is due and with which a session has to begin first: there is none,
        or nothing has come back by it for so long that the device may be unable to open it."""
        tries: dict[bytes, int] = {}
        for each in self.store.due_payloads(now_ms, SEALED_AT_ONCE):
            tries[each.device] = max(each.tries, tries.get(each.device, 0))
        return [device for device, most in tries.items() if self._needs_session(device, most)]

    def _needs_session(self, device: bytes, tries: int) -> bool:
        remote = self.peer_of(device).remote
        return not remote.has_session or (tries >= RENEW_TRIES and remote.is_unanswered)

    def put_off(self, device: bytes, until_ms: int) -> None:
        """Put off what waits for a device without a session until `until_ms`: its keys can't be fetched."""
        if self.peer_of(device).remote.has_session:
            return
        with self.store.transaction():
            self.store.put_off(device, until_ms)

    def hold_back(self, devices: Iterable[bytes], until_ms: int) -> None:
        """Put off what waits for these devices until that time."""
        with self.store.transaction():
            for device in devices:
                self.store.put_off(device, until_ms)

    def seal_due(self, now_ms: int) -> list[Outbound]:
        """Seal what is due for devices with a session, and return the envelopes. The payloads become due again
        later."""
        sealed = []
        with self.store.transaction():
            for each in self.store.due_payloads(now_ms, SEALED_AT_ONCE):
                remote = self.peer_of(each.device).remote
                if not remote.has_session:
                    continue
                envelope = remote.seal_payload(self.local, each.number, each.payload)
                sealed.append(Outbound(each.device, each.number, envelope, each.tries))
                due = now_ms + resend_after(each.tries + 1)
                self.store.set_due(each.device, [each.number], due, tried=1)
            self._store_sealed({each.device for each in sealed})
        return sealed

    def _store_sealed(self, devices: set[bytes]) -> None:
        for device in devices:
            self._save_device(device)
        if devices:
            self.store.note_sealed(self.local.instance)

    def note_sealed(self) -> None:
        """Count, within `transaction`, that something was sealed for a group or paid: an older copy of the file is
        recognized by this count."""
        self.store.note_sealed(self.local.instance)

    def not_sent(self, outbound: Outbound, until_ms: int) -> None:
        """Send a payload again at that time: no mailbox has accepted it."""
        if outbound.number is not None:
            with self.store.transaction():
                self.store.put_back(outbound.device, outbound.number, until_ms, outbound.tries)

    def send_now(self, device: bytes = b"") -> None:
        """Make payloads due now that no mailbox has accepted yet, for a device or for all."""
        with self.store.transaction():
            self.store.make_due(device)

    def seal_answer(self, device: bytes, *, repair: bool = False, payload: bytes = b"") -> Outbound | None:
        """Return an envelope that acknowledges what was received, or carries a transient payload; None if there is no
        session, or nothing to acknowledge and no payload."""
        remote = self.peer_of(device).remote
        if not remote.has_session or not (repair or payload or remote.owes_answer):
            return None
        with self.store.transaction():
            envelope = remote.seal_payload(self.local, None, payload, repair=repair)
            self._store_sealed({device})
        return Outbound(device, None, envelope)

    # ---- receiving ---------------------------------------------------------------------------------------------

    def open_envelopes(
        self, envelopes: Iterable[bytes], now_ms: int, is_known: Callable[[bytes], bool]
    ) -> ReceivedEnvelopes:
        """Open envelopes, and return what they contained, within a transaction that has to store that as well.

        An envelope that can't be opened leads to a new session if its device has written before, or if `is_known`
        returns True for it: this file may be from before the session began.
        """
        received = ReceivedEnvelopes()
        changed: set[bytes] = set()
        for envelope in envelopes:
            if not self.store.is_new(hashlib.blake2b(envelope, digest_size=16).digest()):
                continue
            try:
                self._open_envelope(envelope, now_ms, is_known, received, changed)
            except PeerError:
                received.broken += 1
        for device in changed:
            self._save_device(device)
        if changed:
            self.store.put_value("device", self.local.save())
        return received

    def _open_envelope(
        self,
        envelope: bytes,
        now_ms: int,
        is_known: Callable[[bytes], bool],
        received: ReceivedEnvelopes,
        changed: set[bytes],
    ) -> None:
        sealed = Sealed.parse(open_envelope(envelope, self.identity))
        device = sealed.sender
        remote = self.peer_of(device).remote
        is_new = not remote.streams
        try:
            opened = remote.open_sealed(self.local, sealed, now_ms + SKEW_MS)
        except NotOpened:
            is_worth_it = self.store.load_peer(device) is not None or is_known(device)
            if is_worth_it and remote.begins_repair(now_ms):
                received.repairs.append(device)
                changed.add(device)
            return
        changed.add(device)
        if is_new:
            received.newcomers.add(device)
        received.payloads += [(device, each) for each in opened.payloads]
        if opened.fleeting:
            received.fleeting.append((device, opened.fleeting))
        if opened.acknowledged:
            received.acknowledged.add(device)
            gone = self.store.drop_acknowledged(device, remote.outgoing.acknowledged)
            received.delivered += [(device, each) for each in gone]
        if opened.resend:
            self.store.set_due(device, opened.resend, now_ms, tried=0)
            received.resends = True
        if opened.renewed:
            received.renewed.add(device)
        if remote.owes_answer:
            received.answers.add(device)
