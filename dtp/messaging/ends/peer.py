"""Another device, as this one knows it: its keys, the sessions with it, and what was sent and received."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Self

from dtp.messaging.ends.device import LocalDevice
from dtp.messaging.ends.envelope import Sealed, check_sealing_key, seal_envelope
from dtp.messaging.ends.keys import NO_RATCHET, DeviceKeys, KeyBundle
from dtp.messaging.ends.letter import Letter
from dtp.messaging.ends.olm import PRE_KEY, OlmSession
from dtp.messaging.ends.order import DeviceStream, Outgoing
from dtp.messaging.errors import EnvelopeBroken, KeysForged, NoSession, NotOpened
from dtp.messaging.packing import MAX_NUMBER, pack, unpack_saved

#: Sessions that are kept with one device: those before are needed for what is still on its way.
MAX_SESSIONS: Final = 5
#: Instances of a device whose numbers are remembered.
MAX_STREAMS: Final = 4
#: Ms between two repairs, for the first; each further one without an answer waits twice as long, up to a day.
REPAIR_MS: Final = 60_000
_LONGEST_REPAIR_MS: Final = 86_400_000


@dataclass(frozen=True, slots=True)
class Opened:
    """What an envelope brought: payloads in order, each once; numbers that have to be sent again; whether the other
    device said something new of what it has; a payload of the moment, b"" for none; whether the device has begun
    anew, so that it may have forgotten what it was told."""

    payloads: list[bytes]
    resend: list[int]
    acknowledged: bool
    fleeting: bytes = b""
    renewed: bool = False


@dataclass
class RemoteDevice:
    """What is known of one other device. `save` it before anybody hears of a change."""

    device: bytes
    #: The newest keys it has signed, None before any are known.
    keys: DeviceKeys | None = None
    #: Sessions and the instance of the device that each is with. The first one is sent with.
    sessions: list[tuple[bytes, OlmSession]] = field(default_factory=list)
    streams: dict[bytes, DeviceStream] = field(default_factory=dict)
    outgoing: Outgoing = field(default_factory=Outgoing)
    #: True while it has sent something that it wasn't told of yet.
    owes_answer: bool = False
    #: Repairs since something of it was opened last, and when the last one was.
    repairs: int = 0
    repaired_ms: int = 0

    # ---- sessions ----------------------------------------------------------------------------------------------

    @property
    def has_session(self) -> bool:
        """True if something can be sealed to the device as it is now."""
        return self._sending_session() is not None

    @property
    def is_unanswered(self) -> bool:
        """True if there is a session to send by, and nothing has come back over it."""
        session = self._sending_session()
        return session is not None and not session.is_answered

    def _sending_session(self) -> OlmSession | None:
        if self.keys is None:
            return None
        return next((one for instance, one in self.sessions if instance == self.keys.instance), None)

    def begin_session(self, local: LocalDevice, bundle: KeyBundle) -> None:
        """Begin a session with what a mailbox gave. Raise `KeysRolledBack`, `KeysForged`; nothing is changed then.

        A further session with the same instance begins with its fallback key, which opens whatever was sent before: a
        mailbox that was put back to a backup gives one-time keys anew that were used.
        """
        if bundle.keys.device != self.device:
            raise KeysForged("these are keys of another device than was asked for")
        if bundle.keys.olm == NO_RATCHET:
            raise KeysForged(
                "this device takes sealed letters alone: it is a line for tips, see 'dtp tip send'"
            )
        bundle.keys.check_newer(self.keys, bundle.latest)
        check_sealing_key(bundle.keys.sealing)
        is_further = any(instance == bundle.keys.instance for instance, _ in self.sessions)
        one_time = b"" if is_further else bundle.one_time
        session = local.account.begin_session(bundle.keys.olm, one_time or bundle.keys.fallback)
        self.keys = bundle.keys
        self._put_first(bundle.keys.instance, session)

    def _put_first(self, instance: bytes, session: OlmSession) -> None:
        others = [each for each in self.sessions if each[1].id != session.id]
        self.sessions = [(instance, session), *others][:MAX_SESSIONS]

    def forget_sessions(self) -> None:
        """Forget all sessions and keys: the device isn't its owner's any more."""
        self.sessions, self.keys = [], None

    # ---- sending -----------------------------------------------------------------------------------------------

    def seal_payload(
        self, local: LocalDevice, number: int | None = None, payload: bytes = b"", *, repair: bool = False
    ) -> bytes:
        """Return an envelope for the device. Without a number the payload is of the moment: it may be b"", where
        only what was received is to be said, and is not repeated.

        Raise `NoSession` if there is none to seal by, `MessageTooLong`.
        """
        session = self._sending_session()
        if session is None or self.keys is None:
            raise NoSession("there is no session with this device yet: get its keys from its mailbox")
        instance = self.keys.instance
        stream = self.streams.get(instance, DeviceStream())
        oldest = self.outgoing.acknowledged if number is None else min(self.outgoing.acknowledged, number)
        letter = Letter(
            *(local.key, self.device, local.instance, number, oldest),
            *((instance, stream.next), stream.missing, repair, payload),
        )
        kind, message = session.encrypt(letter.encode())
        keys = local.keys.encoded if kind == PRE_KEY else b""
        self.owes_answer = False
        return seal_envelope(Sealed(local.key, kind, message, keys).encode(), self.keys.sealing)

    # ---- receiving ---------------------------------------------------------------------------------------------

    def open_sealed(self, local: LocalDevice, sealed: Sealed, latest: int = MAX_NUMBER) -> Opened:
        """Return what an envelope brought. The local device may have changed, too. Keys of after `latest` give way to
        any others.

        Raise `NotOpened` if no session opens it, `EnvelopeBroken` and `KeysForged` for what its sender made wrong:
        what was received before is as it was.
        """
        instance, session, text, keys = self._decrypt_letter(local, sealed)
        letter = Letter.parse(text)
        if (letter.sender, letter.recipient, letter.instance) != (self.device, local.key, instance):
            raise EnvelopeBroken("a letter is of other devices than the session it came by")
        if keys is not None and (self.keys is None or not keys.is_older(self.keys, latest)):
            self.keys = keys
        self._put_first(instance, session)
        self.repairs = 0
        return self._receive_letter(local, letter)

    def _decrypt_letter(
        self, local: LocalDevice, sealed: Sealed
    ) -> tuple[bytes, OlmSession, bytes, DeviceKeys | None]:
        known = self.sessions
        if sealed.kind == PRE_KEY:
            known = [each for each in known if each[1].began_with(sealed.message)]
            if not known:
                keys = DeviceKeys.parse(sealed.keys)
                if keys.device != self.device or sealed.sender != self.device:
                    raise KeysForged("a first message has the keys of another device")
                check_sealing_key(keys.sealing)
                session, text = local.account.accept_session(keys.olm, sealed.message)
                return keys.instance, session, text, keys
        for instance, session in known:
            try:
                return instance, session, session.decrypt(sealed.kind, sealed.message), None
            except NotOpened:
                continue
        raise NotOpened("an envelope is of a session that isn't known here, or was opened before")

    def _receive_letter(self, local: LocalDevice, letter: Letter) -> Opened:
        # Of another instance than the newest: the device was restored since, and lacks what came before.
        is_late = self.keys is not None and letter.instance != self.keys.instance
        renewed = bool(self.streams) and letter.instance not in self.streams
        stream = self.streams.pop(letter.instance, None) or DeviceStream()
        self.streams[letter.instance] = stream
        while len(self.streams) > MAX_STREAMS:
            del self.streams[next(iter(self.streams))]
        payloads = stream.skip_to(letter.oldest)
        if letter.number is not None:
            payloads += stream.add_payload(letter.number, letter.payload)
            self.owes_answer = True
        if letter.repair:
            self.owes_answer = True
        fleeting = letter.payload if letter.number is None and not is_late else b""
        instance, upto = letter.received
        is_ours = instance == local.instance and not is_late
        news = is_ours and self.outgoing.acknowledge_up_to(upto)
        if letter.repair:
            return Opened(payloads, self.outgoing.unacknowledged, news, fleeting, renewed)
        wanted = self.outgoing.find_held(letter.wanted) if is_ours else []
        return Opened(payloads, wanted, news, fleeting, renewed)

    def begins_repair(self, now_ms: int) -> bool:
        """Return whether what could not be opened is worth a new session now, and note that it is made.

        Anybody can send what doesn't open: so it is not done more often than `REPAIR_MS` says.
        """
        pause = min(REPAIR_MS << min(self.repairs, 20), _LONGEST_REPAIR_MS) if self.repairs else 0
        if self.repaired_ms <= now_ms < self.repaired_ms + pause:  # the clock may have been set back
            return False
        self.repairs, self.repaired_ms = self.repairs + 1, now_ms
        return True

    # ---- bytes -------------------------------------------------------------------------------------------------

    def save(self, key: bytes) -> bytes:
        """Return it as bytes, its sessions encrypted with 32 bytes."""
        return pack(
            [
                self.device,
                self.keys.encoded if self.keys else b"",
                [[instance, session.save(key)] for instance, session in self.sessions],
                [[name, one.next, list(one.held.items())] for name, one in self.streams.items()],
                [self.outgoing.next, self.outgoing.acknowledged],
                [self.owes_answer, self.repairs, self.repaired_ms],
            ]
        )

    @classmethod
    def load(cls, saved: bytes, key: bytes) -> Self:
        """Return what `save` gave. Raise `StoreFailed`."""
        device, keys, sessions, streams, sent, (owes, repairs, repaired) = unpack_saved(saved)
        return cls(
            device,
            DeviceKeys.parse(keys) if keys else None,
            [(instance, OlmSession.load(one, key)) for instance, one in sessions],
            {name: DeviceStream(number, dict(held)) for name, number, held in streams},
            Outgoing(*sent),
            *(owes, repairs, repaired),
        )
