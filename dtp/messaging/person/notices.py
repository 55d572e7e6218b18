"""What a program is told besides messages."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from dtp.messaging.calls.signals import Reason, SignalAct
from dtp.messaging.conversation.events import Event

#: Notices that wait for a program that doesn't take them.
_MOST: Final = 10_000


class What(Enum):
    """What has happened."""

    MESSAGE = "message"
    CHANGED = "changed"
    READ = "read"
    DELIVERED = "delivered"
    TYPING = "typing"
    CONTACT_ADDED = "contact-added"
    CONTACT_CHANGED = "contact-changed"
    KEY_REPLACED = "key-replaced"
    CONSENT_NEEDED = "consent-needed"
    OLDER_CARD = "older-card"
    OWN_CARD = "own-card"
    #: Another machine has changed which devices our account has; `detail` is how.
    DEVICES_CHANGED = "devices-changed"
    #: Two machines have changed our account at once, and only one of the changes counts; `detail` is how its card
    #: differs from the other.
    CARD_FORKED = "card-forked"
    #: Another key is our account's, which its recovery key has signed: if that wasn't you, tell everybody.
    OWN_KEY_REPLACED = "own-key-replaced"
    #: A contact's account was ended, for good, and is blocked; or ours was.
    ACCOUNT_ENDED = "account-ended"
    #: A contact has another key, and the card with it isn't found: whoever has the one that is known here may be
    #: anybody.
    KEY_OUTDATED = "key-outdated"
    #: A contact's card holds no longer: what they write waits for a newer one, and nothing can be written to them.
    CARD_EXPIRED = "card-expired"
    #: Ours holds no longer, or ends soon: renew it, or nobody reads what we write; `detail` is when.
    OWN_CARD_ENDS = "own-card-ends"
    #: Our account doesn't name this device any more.
    REVOKED = "revoked"
    GROUP_CHANGED = "group-changed"
    #: A member is given what was said in a group before they came; `person` is who, `detail` the name.
    PAST_GIVEN = "past-given"
    #: ... and we were told it, by `person`; `detail` is how many events are new.
    PAST_TOLD = "past-told"
    #: Somebody wanted to join a group by an invitation that doesn't let them in; `detail` is why.
    JOIN_REFUSED = "join-refused"
    #: Somebody sends more than is kept of them; `detail` says of what. The rest isn't kept.
    QUOTA_EXCEEDED = "quota-exceeded"
    REPAIRED = "repaired"
    RENEWED = "renewed"
    #: Somebody has called, and nobody has answered; `message` is the call's id, `detail` why, as of `Reason`. It is
    #: told again by the next program if this one ends without having asked for another notice.
    MISSED_CALL = "missed-call"
    #: Posts of strangers wait on the chain, since as many as are taken at once haven't been read yet.
    POSTS_WAIT = "posts-wait"
    #: A mailbox of ours doesn't take our keys, since its clock and ours differ by too much; `detail` is which.
    CLOCK_DIFFERS = "clock-differs"
    #: A mailbox of ours doesn't take our keys for another reason; `detail` is which, and why.
    MAILBOX_REFUSES = "mailbox-refuses"
    #: Nothing reaches a contact: that their mailboxes are in our network was told from farther away alone. Adding
    #: their card ends it.
    MAILBOX_NEARER = "mailbox-nearer"
    #: This device's file can't be written, so what waits in mailboxes stays there; `detail` is why.
    STORE_FAILED = "store-failed"
    #: Room in a mailbox of ours was paid for; `detail` is in which, and until when.
    ROOM_PAID = "room-paid"
    #: A mailbox of ours asks more for room than we have agreed to pay.
    ROOM_TOO_DEAR = "room-too-dear"
    #: ... doesn't show the room that we have paid for, and is paid no more.
    ROOM_WITHHELD = "room-withheld"
    #: ... couldn't be paid; `detail` is why.
    ROOM_UNPAID = "room-unpaid"
    #: A first message takes a stamp that costs more than may be spent for this person; `detail` is how much, MIST.
    STAMP_NEEDED = "stamp-needed"
    #: ... was paid; `detail` is how much, MIST.
    STAMP_PAID = "stamp-paid"
    #: ... couldn't be paid; `detail` is why.
    STAMP_UNPAID = "stamp-unpaid"
    #: A mailbox has taken the price of a stamp, and lets nothing in by it; `detail` is its identity.
    STAMP_WITHHELD = "stamp-withheld"
    #: Strangers are to pay a stamp, which nobody can at this mailbox of ours: none of them reaches it.
    STAMPS_NOT_SOLD = "stamps-not-sold"


@dataclass(frozen=True, slots=True)
class Notice:
    """One thing that has happened: by whom, in which conversation, about which message; b"" if that says nothing.

    `detail` is text for people, or "on" and "off" of typing.
    """

    what: What
    person: bytes = b""
    conversation: bytes = b""
    message: bytes = b""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class CallSignalled:
    """A person's device says something about a call; `own` is one of our other devices."""

    person: bytes
    device: bytes
    event: Event
    own: bool


def missed_call(person: bytes, call: bytes, reason: Reason) -> Notice:
    """Return the notice of a call that nobody has answered."""
    return Notice(What.MISSED_CALL, person, person, call, reason.name.lower())


class NoticeQueue:
    """Notices that wait for the program. Where it doesn't take them, the oldest go."""

    def __init__(self) -> None:
        self._waiting: asyncio.Queue[Notice] = asyncio.Queue(_MOST)
        #: Calls of which the program was told.
        self._told: list[bytes] = []

    def put(self, notice: Notice) -> None:
        """Have a notice wait."""
        if self._waiting.full():
            self._waiting.get_nowait()
        self._waiting.put_nowait(notice)

    async def get(self) -> Notice:
        """Wait for the next one, and return it."""
        return self._note_told(await self._waiting.get())

    def get_all(self) -> list[Notice]:
        """Return those that wait."""
        return [self._note_told(self._waiting.get_nowait()) for _ in range(self._waiting.qsize())]

    def take_told(self) -> list[bytes]:
        """Return the ids of missed calls that were told, each once."""
        told, self._told = self._told, []
        return told

    def _note_told(self, notice: Notice) -> Notice:
        if notice.what is What.MISSED_CALL:
            self._told.append(notice.message)
        return notice


def list_without_calls(notices: Iterable[Notice | CallSignalled]) -> list[Notice]:
    """Return notices for a program that takes no calls: a call that no other device of ours has dealt with was
    missed."""
    told = list(notices)
    signals = [each for each in told if isinstance(each, CallSignalled)]
    dealt_with = {
        each.event.fields["call"]
        for each in signals
        if each.own or each.event.fields["act"] == SignalAct.TAKEN
    }
    missed = [
        missed_call(each.person, each.event.fields["call"], Reason.NO_ANSWER)
        for each in signals
        if each.event.fields["act"] == SignalAct.OFFER and not each.own
        if each.event.fields["call"] not in dealt_with
    ]
    return [*[each for each in told if isinstance(each, Notice)], *missed]
