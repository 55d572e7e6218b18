"""Another device, as this one knows it: its keys, the sessions with it, and what was sent to it and received from
it.
"""

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

#: Sessions that are kept with one device: the older ones open messages that are still under way.
MAX_SESSIONS: Final = 5
#: Instances of one device whose numbers are remembered.
MAX_STREAMS: Final = 4
#: Ms between the first two repairs. Each further one without an answer waits twice as long, up to a day.
REPAIR_MS: Final = 60_000
_LONGEST_REPAIR_MS: Final = 86_400_000


@dataclass(frozen=True, slots=True)
class Opened:
    """What an opened envelope contains: payloads in order, each once; the numbers to send again; whether it
    acknowledges something new; an ephemeral payload, or b""; and whether the device is a new instance, which may
    have lost what it was sent.
    """

    payloads: list[bytes]
    resend: list[int]
    acknowledged: bool
    fleeting: bytes = b""
    renewed: bool = False


@dataclass
class RemoteDevice:
    """The state that is kept for one other device. Store it (`save`) before sending what depends on a change."""

    device: bytes
    #: The newest keys that the device has signed, None until some are known.
    keys: DeviceKeys | None = None
    #: Sessions, each with the instance of the device that it is with. The first is used for sending.
    sessions: list[tuple[bytes, OlmSession]] = field(default_factory=list)
    streams: dict[bytes, DeviceStream] = field(default_factory=dict)
    outgoing: Outgoing = field(default_factory=Outgoing)
    #: True while something that the device sent hasn't been acknowledged.
    owes_answer: bool = False
    #: The number of repairs since a message of the device was last opened, and the time of the last repair.
    repairs: int = 0
    repaired_ms: int = 0

    # ---- sessions ----------------------------------------------------------------------------------------------

    @property
    def has_session(self) -> bool:
        """True if there is a session with the device's present instance."""
        return self._sending_session() is not None

    @property
    def is_unanswered(self) -> bool:
        """True if there is a session to send through, but nothing has come back through it yet."""
        session = self._sending_session()
        return session is not None and not session.is_answered

    def _sending_session(self) -> OlmSession | None:
        if self.keys is None:
            return None
        return next((one for instance, one in self.sessions if instance == self.keys.instance), None)

    def begin_session(self, local: LocalDevice, bundle: KeyBundle) -> None:
        """Begin a session with the keys that a mailbox returned. Raise `KeysRolledBack` or `KeysForged`; nothing
        has changed then.

        A further session with the same instance begins with the fallback key, which always opens. A mailbox that
        was restored from a backup may hand out one-time keys a second time.
        """
        if bundle.keys.device != self.device:
            raise KeysForged("these are keys of another device than the one asked for")
        if bundle.keys.olm == NO_RATCHET:
            raise KeysForged("this device only accepts sealed letters: it is a tip line, see 'dtp tip send'")
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
        """Forget all sessions and keys, since the device no longer belongs to its owner."""
        self.sessions, self.keys = [], None

    # ---- sending -----------------------------------------------------------------------------------------------

    def seal_payload(
        self, local: LocalDevice, number: int | None = None, payload: bytes = b"", *, repair: bool = False
    ) -> bytes:
        """Return an envelope for the device. Without a number the payload is ephemeral and isn't sent again; it may
        be b"" in an envelope that only acknowledges.

        Raise `NoSession` if there is no session to send through, and `MessageTooLong`.
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
        """Return what an envelope contains. This may change the local device as well. Any keys replace keys that
        were signed after `latest`.

        Raise `NotOpened` if no session opens it, and `EnvelopeBroken` or `KeysForged` if its sender has made it
        wrong. What was received before is unchanged then.
        """
        instance, session, text, keys = self._decrypt_letter(local, sealed)
        letter = Letter.parse(text)
        if (letter.sender, letter.recipient, letter.instance) != (self.device, local.key, instance):
            raise EnvelopeBroken("a letter names other devices than those of its session")
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
        # The letter is of an older instance than the newest: the device has been restored since, and no longer has
        # what it acknowledged then.
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
        """Return True if a message that could not be opened calls for a new session now, and count the repair.

        Anybody can send messages that don't open, so repairs are limited by `REPAIR_MS`.
        """
        pause = min(REPAIR_MS << min(self.repairs, 20), _LONGEST_REPAIR_MS) if self.repairs else 0
        if self.repaired_ms <= now_ms < self.repaired_ms + pause:  # the clock may have been set back
            return False
        self.repairs, self.repaired_ms = self.repairs + 1, now_ms
        return True

    # ---- bytes -------------------------------------------------------------------------------------------------

    def save(self, key: bytes) -> bytes:
        """Return the state as bytes, with its sessions encrypted by a key of 32 bytes."""
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
        """Return the state that `save` has encoded. Raise `StoreFailed`."""
        device, keys, sessions, streams, sent, (owes, repairs, repaired) = unpack_saved(saved)
        return cls(
            device,
            DeviceKeys.parse(keys) if keys else None,
            [(instance, OlmSession.load(one, key)) for instance, one in sessions],
            {name: DeviceStream(number, dict(held)) for name, number, held in streams},
            Outgoing(*sent),
            *(owes, repairs, repaired),
        )
