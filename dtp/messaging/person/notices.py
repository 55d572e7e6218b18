"""Notices: what a program is told besides messages."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from dtp.messaging.calls.signals import Reason, SignalAct
from dtp.messaging.conversation.events import Event

#: The most notices that wait for the program.
_MOST: Final = 10_000


class What(Enum):
    """The kind of a notice."""

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
    #: Another machine has changed the devices of our account; `detail` says how.
    DEVICES_CHANGED = "devices-changed"
    #: Two machines have changed our account at once, and only one of the changes counts; `detail` says how its card
    #: differs from the other.
    CARD_FORKED = "card-forked"
    #: Our account has another key, signed by its recovery key: if you didn't do that, tell everybody.
    OWN_KEY_REPLACED = "own-key-replaced"
    #: A contact's account was ended for good, and is blocked; or our own was ended.
    ACCOUNT_ENDED = "account-ended"
    #: A contact has another key, but the card with it can't be found: anybody may have the key that is known here.
    KEY_OUTDATED = "key-outdated"
    #: A contact's card has expired: their messages wait for a newer card, and nothing can be written to them.
    CARD_EXPIRED = "card-expired"
    #: Our card has expired or expires soon: renew it, or nobody can read what we write; `detail` is when.
    OWN_CARD_ENDS = "own-card-ends"
    #: Our account's card doesn't name this device any more.
    REVOKED = "revoked"
    GROUP_CHANGED = "group-changed"
    #: A new member gets earlier messages of a group; `person` is the member, `detail` their name.
    PAST_GIVEN = "past-given"
    #: We got earlier messages of a group, from `person`; `detail` is the number of new events.
    PAST_TOLD = "past-told"
    #: Somebody tried to join a group by an invitation that doesn't let them in; `detail` says why.
    JOIN_REFUSED = "join-refused"
    #: Somebody sends more than their quota; `detail` says of what. The excess isn't kept.
    QUOTA_EXCEEDED = "quota-exceeded"
    REPAIRED = "repaired"
    RENEWED = "renewed"
    #: Somebody has called, and nobody has answered; `message` is the call's id, `detail` the name of a `Reason`. The
    #: next program gets the notice again if this one ends before it has asked for another notice.
    MISSED_CALL = "missed-call"
    #: Posts of strangers wait on the chain, since too many that were taken haven't been read yet.
    POSTS_WAIT = "posts-wait"
    #: A mailbox of ours refuses our keys, since its clock and ours differ by too much; `detail` names it.
    CLOCK_DIFFERS = "clock-differs"
    #: A mailbox of ours refuses our keys for another reason; `detail` names the mailbox and the reason.
    MAILBOX_REFUSES = "mailbox-refuses"
    #: A contact can't be reached: their mailboxes are said to be in our network, but only by sources outside it.
    #: Adding their card by hand resolves this.
    MAILBOX_NEARER = "mailbox-nearer"
    #: This device's file can't be written, so what waits in mailboxes stays there; `detail` says why.
    STORE_FAILED = "store-failed"
    #: Room in a mailbox of ours was paid for; `detail` names the mailbox, and says until when.
    ROOM_PAID = "room-paid"
    #: A mailbox of ours asks more for room than we have agreed to pay.
    ROOM_TOO_DEAR = "room-too-dear"
    #: A mailbox of ours doesn't show the room that we have paid for, and is paid no more.
    ROOM_WITHHELD = "room-withheld"
    #: Room in a mailbox of ours couldn't be paid; `detail` says why.
    ROOM_UNPAID = "room-unpaid"
    #: A first message needs a stamp that costs more than may be spent for this person; `detail` is the price in MIST.
    STAMP_NEEDED = "stamp-needed"
    #: A stamp was paid; `detail` is the price in MIST.
    STAMP_PAID = "stamp-paid"
    #: A stamp couldn't be paid; `detail` says why.
    STAMP_UNPAID = "stamp-unpaid"
    #: A mailbox has taken the price of a stamp, but accepts nothing by it; `detail` is the mailbox's identity.
    STAMP_WITHHELD = "stamp-withheld"
    #: Strangers have to pay a stamp, but this mailbox of ours sells none: no stranger can reach us there.
    STAMPS_NOT_SOLD = "stamps-not-sold"


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that has happened: by which person, in which conversation, about which message; b"" where that
    doesn't apply.

    `detail` is text for people, or "on" and "off" for typing.
    """

    what: What
    person: bytes = b""
    conversation: bytes = b""
    message: bytes = b""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class CallSignalled:
    """A signal about a call, from a person's device; `own` is true for one of our other devices."""

    person: bytes
    device: bytes
    event: Event
    own: bool


def missed_call(person: bytes, call: bytes, reason: Reason) -> Notice:
    """Return the notice of an unanswered call."""
    return Notice(What.MISSED_CALL, person, person, call, reason.name.lower())


class NoticeQueue:
    """Notices that wait for the program. If there are too many, the oldest are dropped."""

    def __init__(self) -> None:
        self._waiting: asyncio.Queue[Notice] = asyncio.Queue(_MOST)
        #: Missed calls that the program was told of.
        self._told: list[bytes] = []

    def put(self, notice: Notice) -> None:
        """Add a notice."""
        if self._waiting.full():
            self._waiting.get_nowait()
        self._waiting.put_nowait(notice)

    async def get(self) -> Notice:
        """Wait for the next notice, and return it."""
        return self._note_told(await self._waiting.get())

    def get_all(self) -> list[Notice]:
        """Return all notices that wait."""
        return [self._note_told(self._waiting.get_nowait()) for _ in range(self._waiting.qsize())]

    def take_told(self) -> list[bytes]:
        """Return the ids of missed calls that the program was told of, each once."""
        told, self._told = self._told, []
        return told

    def _note_told(self, notice: Notice) -> Notice:
        if notice.what is What.MISSED_CALL:
            self._told.append(notice.message)
        return notice


def list_without_calls(notices: Iterable[Notice | CallSignalled]) -> list[Notice]:
    """Return the notices for a program that doesn't take calls: a call that no other device of ours has dealt with
    was missed."""
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
