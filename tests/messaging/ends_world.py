"""Two devices, a store for each that keeps what was committed, and a mailbox between them that does as it likes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from dtp.identity import Identity
from dtp.messaging.ends.device import LocalDevice, save_key
from dtp.messaging.ends.envelope import Sealed, open_envelope
from dtp.messaging.ends.keys import KeyBundle
from dtp.messaging.ends.peer import RemoteDevice
from dtp.messaging.errors import KeysRolledBack, NotOpened


def identity(number: int) -> Identity:
    return Identity(bytes([number]) * 32, bytes([100 + number]) * 32)


class Killed(Exception):
    """The process ended before it wrote what it was about to write."""


@dataclass
class Mailbox:
    """Keeps what is deposited and published; tests take from it what they like."""

    envelopes: list[bytes] = field(default_factory=list)
    keys: list[bytes] = field(default_factory=list)
    one_time: list[bytes] = field(default_factory=list)

    def bundle(self, device: bytes, now_ms: int) -> KeyBundle:
        one = self.one_time.pop(0) if self.one_time else b""
        return KeyBundle.parse(self.keys[-1], one, device=device, now_ms=now_ms)


class End:
    """One device as a messenger drives it: everything is committed before it leaves or counts as received."""

    def __init__(self, number: int, other: int, mailbox: Mailbox, theirs: Mailbox) -> None:
        self.identity = identity(number)
        self.other = identity(other).id.key
        #: What comes here, and where the other's comes.
        self.mailbox, self.theirs = mailbox, theirs
        self.now_ms = 1_700_000_000_000
        self.received: list[bytes] = []
        self.outbox: dict[int, bytes] = {}
        self.ids = 0
        #: Called before each commit; may raise `Killed`.
        self.on_commit: Callable[[], None] = lambda: None
        self.begin_instance(b"%016d" % number)

    def begin_instance(self, instance: bytes, after: int = 0) -> None:
        self.local = LocalDevice.create_instance(self.identity, instance, self.now_ms, after=after)
        self.peer = RemoteDevice(self.other)
        self.saved = self.local.save(), self.peer.save(self.local.save_key)
        self.publish()

    def publish(self, count: int = 2) -> None:
        made = self.local.make_one_time_keys(count)
        self.commit()
        self.mailbox.keys.append(self.local.keys.encoded)
        self.mailbox.one_time += made

    def commit(
        self, received: Sequence[bytes] = (), sent: dict[int, bytes] | None = None, dropped: int = 0
    ) -> None:
        """One transaction: the keys' state and what it brought."""
        self.on_commit()
        self.saved = self.local.save(), self.peer.save(self.local.save_key)
        self.received += received
        self.outbox |= sent or {}
        self.outbox = {number: each for number, each in self.outbox.items() if number >= dropped}

    def restart(self) -> None:
        """What was committed is what is there."""
        self.local = LocalDevice.load(self.identity, self.saved[0])
        self.peer = RemoteDevice.load(self.saved[1], save_key(self.identity))

    def session(self) -> None:
        if not self.peer.has_session:
            self.peer.begin_session(self.local, self.theirs.bundle(self.other, self.now_ms))

    def send(self, payload: bytes) -> None:
        self.session()
        number = self.peer.outgoing.allot_number()
        envelope = self.peer.seal_payload(self.local, number, payload)
        self.commit(sent={number: payload})
        self.theirs.envelopes.append(envelope)

    def send_again(self, numbers: list[int]) -> None:
        for number in numbers:
            if number in self.outbox:
                self.session()
                envelope = self.peer.seal_payload(self.local, number, self.outbox[number])
                self.commit()
                self.theirs.envelopes.append(envelope)

    def answer(self, *, repair: bool = False) -> None:
        if self.peer.owes_answer or repair:
            self.session()
            envelope = self.peer.seal_payload(self.local, repair=repair)
            self.commit()
            self.theirs.envelopes.append(envelope)

    def repair(self) -> None:
        if self.peer.begins_repair(self.now_ms):
            try:
                self.peer.begin_session(self.local, self.theirs.bundle(self.other, self.now_ms))
            except KeysRolledBack:
                return
            self.answer(repair=True)

    def receive(self, envelope: bytes) -> None:
        """Raise what an envelope that isn't right raises."""
        sealed = Sealed.parse(open_envelope(envelope, self.identity))
        assert sealed.sender == self.other
        try:
            opened = self.peer.open_sealed(self.local, sealed)
        except NotOpened:
            self.repair()
            return
        self.commit(received=opened.payloads, dropped=self.peer.outgoing.acknowledged)
        self.send_again(opened.resend)


def pair() -> tuple[End, End]:
    here, there = Mailbox(), Mailbox()
    return End(1, 2, here, there), End(2, 1, there, here)


def settle(a: End, b: End) -> None:
    """The mailbox is honest now: time passes, and all that was sent comes."""
    for _ in range(60):
        for end in (a, b):
            end.now_ms += 86_400_000
            waiting, end.mailbox.envelopes = end.mailbox.envelopes, []
            for each in waiting:
                end.receive(each)
            end.answer()
            end.send_again(end.peer.outgoing.unacknowledged)
            if end.local.renew_keys(end.now_ms):
                end.publish(1)
        if not (a.peer.outgoing.unacknowledged or b.peer.outgoing.unacknowledged):
            return
