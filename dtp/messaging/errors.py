"""What goes wrong with messages, by whose fault it is."""

from __future__ import annotations

from typing import ClassVar

from dtp.errors import LimitError, LocalError, PeerError


class MessageError(LocalError):
    """A message can't be sent, or a store can't be used, the way it was asked for; the text says what to do."""

    code: ClassVar[str] = "message"


class MessageTooLong(MessageError, ValueError):
    """What one message says is longer than an envelope holds: send it as an attachment."""

    code: ClassVar[str] = "message-too-long"


class NoSession(MessageError):
    """There is no session with this device yet: its keys are needed first, from its mailbox."""

    code: ClassVar[str] = "message-no-session"


class UnknownContact(MessageError):
    """Nobody of this name is known here: add the card first."""

    code: ClassVar[str] = "contact-unknown"


class NoPostPlace(MessageError):
    """An account takes no messages through the chain: no host of its wallets is served by its devices."""

    code: ClassVar[str] = "no-post-place"


class ConsentNeeded(MessageError):
    """A contact's key was replaced, and messages to it wait until that is accepted."""

    code: ClassVar[str] = "contact-replaced"


class CardExpired(MessageError):
    """A contact's card isn't valid any more, and there is no newer one here yet: nothing is sent by it."""

    code: ClassVar[str] = "contact-expired"


class ContactBlocked(MessageError):
    """A contact is blocked here, so nothing is written to it."""

    code: ClassVar[str] = "contact-blocked"


class QueueFull(LimitError):
    """So much waits for all devices of a contact that nothing more is taken: none has answered for long."""

    code: ClassVar[str] = "message-queue-full"


class CallError(MessageError):
    """A call can't be begun or answered as it was asked for: this device is in another, or that one is over."""

    code: ClassVar[str] = "call"


class MediaUnusable(LocalError):
    """A camera, a microphone or a file of media can't be opened, or `aiortc` isn't installed."""

    code: ClassVar[str] = "call-media"


class StoreFailed(LocalError):
    """A file of messages, or of a mailbox, can't be opened or written; nothing that was said to be kept is lost."""

    code: ClassVar[str] = "message-store"


class StoreUnusable(StoreFailed):
    """A store of messages can't be opened, and trying again doesn't help: it is another kind of file, may not be
    used, or its server refuses for good. The text says what would."""

    code: ClassVar[str] = "message-store-unusable"


class MessageStoreFull(StoreFailed):
    """There is no room on the disk for what a store of messages has to keep. What it keeps is still there."""

    code: ClassVar[str] = "message-store-full"


class StoreAway(StoreFailed):
    """A database of messages doesn't answer, or takes nothing more now. Trying again may help."""

    code: ClassVar[str] = "message-store-away"


class EnvelopeBroken(PeerError):
    """An envelope isn't sealed to this device, was changed, or is malformed. Nothing was changed by it."""

    code: ClassVar[str] = "envelope-broken"


class NotOpened(PeerError):
    """An envelope is of a session that isn't known here. Nothing was changed; the sender has to send it again."""

    code: ClassVar[str] = "envelope-not-opened"


class KeysForged(PeerError):
    """Keys of a device are malformed, or not signed by it, or have ended."""

    code: ClassVar[str] = "device-keys"


class KeysRolledBack(PeerError):
    """Older keys of a device than those that are known: whoever gave them holds the newer ones back."""

    code: ClassVar[str] = "device-keys-older"
