"""The only module that uses vodozemac: its classes, its formats of keys, its errors.

The library implements Olm, a double ratchet between two devices, and Megolm, a ratchet that one device writes with
and many read. A call that it refuses leaves its state unchanged.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Final, Self, TypeVar

from dtp.messaging.errors import KeysForged, MessageError, NotOpened, StoreFailed

if TYPE_CHECKING:
    from vodozemac import PreKeyMessage  # the library has the name in its stubs only

try:
    from vodozemac import (
        Account,
        AnyOlmMessage,
        Curve25519PublicKey,
        GroupSession,
        InboundGroupSession,
        MegolmMessage,
        Session,
        SessionKey,
    )
except ImportError as missing:
    raise MessageError(
        "messages need the library vodozemac: pip install 'dtp-sockets[messaging]'"
    ) from missing

_Saved = TypeVar("_Saved", Account, Session, GroupSession, InboundGroupSession)

#: Types of Olm's messages: those that begin a session, and those of a session that both devices have.
PRE_KEY, NORMAL = 0, 1
#: The key for copies that are loaded again at once. They are asked what the library doesn't tell about the session
#: itself.
_COPYING: Final = bytes(32)


class OlmSession:
    """A session with one device. `encrypt` and `decrypt` change it: store it before sending what they return."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.id: str = session.session_id

    def encrypt(self, text: bytes) -> tuple[int, bytes]:
        """Return the type and the bytes of a message that only the other device can open."""
        return self._session.encrypt(text).to_parts()

    def decrypt(self, kind: int, message: bytes) -> bytes:
        """Return the decrypted text. Raise `NotOpened`, which leaves the session unchanged."""
        try:
            return self._session.decrypt(AnyOlmMessage.from_parts(kind, message))
        except ValueError as fault:
            raise NotOpened(f"a message isn't of this session: {fault}") from None

    @property
    def is_answered(self) -> bool:
        """True once a message of the other device was opened. Until then each message begins the session anew."""
        copy = _load_saved(Session, self._session.pickle(_COPYING), _COPYING)
        kind, _ = copy.encrypt(b"").to_parts()
        return bool(kind != PRE_KEY)

    def began_with(self, message: bytes) -> bool:
        """True if this session is the one that a message of type `PRE_KEY` begins."""
        first = _pre_key(message)
        return first is not None and self._session.session_matches(first)

    def save(self, key: bytes) -> str:
        """Return the session, encrypted with a key of 32 bytes."""
        return self._session.pickle(key)

    @classmethod
    def load(cls, saved: str, key: bytes) -> Self:
        """Return the session that `save` has encrypted. Raise `StoreFailed`."""
        return cls(_load_saved(Session, saved, key))


class OlmAccount:
    """The keys of one device, from which its sessions are made."""

    def __init__(self, account: Account | None = None) -> None:
        self._account = account or Account()
        self.key: bytes = self._account.curve25519_key.to_bytes()

    def make_one_time_keys(self, count: int) -> list[bytes]:
        """Return `count` new public keys, each for one first message. They are secret until they are published."""
        self._account.generate_one_time_keys(count)
        made = [each.to_bytes() for each in self._account.one_time_keys.values()]
        self._account.mark_keys_as_published()
        return made

    def make_fallback_key(self) -> bytes:
        """Return a new public key, to be used when no one-time key is left. The previous one still opens messages
        that are under way.
        """
        self._account.generate_fallback_key()  # type: ignore[attr-defined]  # the stubs lack both
        (key,) = self._account.fallback_key.values()  # type: ignore[attr-defined]
        self._account.mark_keys_as_published()
        return bytes(key.to_bytes())

    def begin_session(self, key: bytes, one_time_key: bytes) -> OlmSession:
        """Return a new session with the device that has these keys. Raise `KeysForged`."""
        try:
            theirs = Curve25519PublicKey.from_bytes(key), Curve25519PublicKey.from_bytes(one_time_key)
            return OlmSession(self._account.create_outbound_session(*theirs))
        except ValueError as fault:
            raise KeysForged(f"these aren't keys to begin a session with: {fault}") from None

    def accept_session(self, key: bytes, message: bytes) -> tuple[OlmSession, bytes]:
        """Return the session that a first message begins, and the text of the message. `key` is the sender's.

        Raise `NotOpened` if the one-time key was used before, or was never ours. The account is unchanged then.
        """
        first = _pre_key(message)
        if first is None:
            raise NotOpened("this isn't the first message of a session")
        try:
            theirs = Curve25519PublicKey.from_bytes(key)
            session, text = self._account.create_inbound_session(theirs, first)
        except ValueError as fault:
            raise NotOpened(f"a first message doesn't open: {fault}") from None
        return OlmSession(session), text

    def save(self, key: bytes) -> str:
        """Return the account, encrypted with a key of 32 bytes."""
        return self._account.pickle(key)

    @classmethod
    def load(cls, saved: str, key: bytes) -> Self:
        """Return the account that `save` has encrypted. Raise `StoreFailed`."""
        return cls(_load_saved(Account, saved, key))


class MegolmSealer:
    """The sealing half of a Megolm session: one device seals messages for everybody who has its key. Each `seal`
    changes it: store it before sending what `seal` returns.
    """

    def __init__(self, session: GroupSession | None = None) -> None:
        self._session = session or GroupSession()

    @property
    def key(self) -> bytes:
        """The key that opens every message sealed from now on, and none that was sealed before. Secret."""
        return base64.b64decode(_padded(self._session.session_key.to_base64()))

    def seal(self, text: bytes) -> bytes:
        """Return a signed message that everybody who has the key can open."""
        return bytes(self._session.encrypt(text).to_bytes())

    def save(self, key: bytes) -> str:
        """Return it, encrypted with 32 bytes."""
        return self._session.pickle(key)

    @classmethod
    def load(cls, saved: str, key: bytes) -> Self:
        """Return what `save` gave. Raise `StoreFailed`."""
        return cls(_load_saved(GroupSession, saved, key))


class MegolmOpener:
    """The opening half of a Megolm session: it opens the messages of one `MegolmSealer`, beginning with the one
    that was next when its key was taken.
    """

    def __init__(self, session: InboundGroupSession) -> None:
        self._session = session
        self._saved = ""
        #: The sealer's public key, which identifies its messages.
        self.id = base64.b64decode(_padded(session.session_id))

    @classmethod
    def from_key(cls, key: bytes) -> Self:
        """Return the opener for a sealer's key. Raise `KeysForged`."""
        try:
            told = SessionKey(base64.b64encode(key).rstrip(b"=").decode())
            return cls(InboundGroupSession(told))
        except ValueError as fault:
            raise KeysForged(f"this isn't the key of a group's session: {fault}") from None

    def open(self, message: bytes) -> bytes:
        """Return the text that was sealed. Raise `NotOpened` if the message is of another session, is older than
        the key, or was changed.
        """
        try:
            return bytes(self._session.decrypt(MegolmMessage.from_bytes(message)).plaintext)
        except ValueError as fault:
            raise NotOpened(f"a message isn't of this group's session: {fault}") from None

    def save(self, key: bytes) -> str:
        """Return the opener, encrypted with a key of 32 bytes. The result stays the same, since opening messages
        changes nothing that is saved.
        """
        if not self._saved:
            self._saved = self._session.pickle(key)
        return self._saved

    @classmethod
    def load(cls, saved: str, key: bytes) -> Self:
        """Return what `save` gave. Raise `StoreFailed`."""
        loaded = cls(_load_saved(InboundGroupSession, saved, key))
        loaded._saved = saved
        return loaded


def _load_saved(kind: type[_Saved], saved: str, key: bytes) -> _Saved:
    try:
        return kind.from_pickle(saved, key)
    except ValueError as fault:
        raise StoreFailed(f"the saved state can't be read with this identity: {fault}") from None


def _padded(text: str) -> str:
    return text + "=" * (-len(text) % 4)


def _pre_key(message: bytes) -> PreKeyMessage | None:
    """Return the first message of a session that `message` encodes, or None if it doesn't parse as one."""
    try:
        return AnyOlmMessage.pre_key(message).to_pre_key()
    except ValueError:
        return None
