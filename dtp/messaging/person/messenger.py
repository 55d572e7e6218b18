"""`dtp.Messenger`: write to people, and read what they write."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Self

from dtp.carriers.nearness import Nearness
from dtp.identity import Account, Identity, PeerId
from dtp.messaging.calls.signals import Signal
from dtp.messaging.cards import ContactCard, compare_code, safety_code, safety_number
from dtp.messaging.conversation.events import MAX_TEXT_BYTES, Event, EventKind
from dtp.messaging.conversation.state import Shown
from dtp.messaging.errors import MessageError, MessageTooLong, UnknownContact
from dtp.messaging.mailbox.client import MailboxGone
from dtp.messaging.mailbox.pool import ConnectMailbox, connect_plainly
from dtp.messaging.person.attachments import Attachment, upload
from dtp.messaging.person.card_sources import CardSource
from dtp.messaging.person.contacts import Consent, Contact
from dtp.messaging.person.correspondence import Correspondence
from dtp.messaging.person.delivery import LIFETIME, Delivery, now_ms
from dtp.messaging.person.group import Group, Room
from dtp.messaging.person.groups.communities import InviteLink
from dtp.messaging.person.groups.group_topics import GroupTopics
from dtp.messaging.person.names import contact_label, find_group, find_named
from dtp.messaging.person.notices import CallSignalled, Notice, What
from dtp.messaging.person.parts.inbox import MessengerInbox
from dtp.messaging.person.parts.settings import MessengerSettings
from dtp.messaging.person.parts.tasks import MessengerDependencies, MessengerTasks
from dtp.messaging.person.postage import Postage
from dtp.messaging.person.posts import ChainPosts
from dtp.messaging.person.quotas import MessageQuotas
from dtp.messaging.person.rent import Rent
from dtp.unicode import encode_text

#: A recipient: a contact, a card, or a name: `dtp1...`, `dtpa1...`, or what a contact is called here.
Person = Contact | ContactCard | PeerId | bytes | str


class Message:
    """A message as it was when it was asked for."""

    def __init__(self, messenger: Messenger, conversation: bytes, shown: Shown) -> None:
        self._messenger = messenger
        self._shown = shown
        #: The person or group whose conversation it belongs to.
        self.conversation = conversation
        self.id = shown.id
        self.text = shown.text
        self.edited, self.deleted = shown.edited, shown.deleted
        #: The id of the message that this answers, None for none.
        self.reply_to = shown.reply_to
        #: When it was sent, as its sender says.
        self.sent_at = datetime.fromtimestamp(shown.sent_ms / 1000, UTC)
        #: Seconds after reading until it disappears, 0 for never.
        self.disappear = shown.disappear
        #: By person, the reaction.
        self.reactions = dict(shown.reactions)
        #: The original author of a forwarded message, as the forwarder says.
        self.forwarded_from = shown.forwarded_from
        #: The person who has passed it on to us as an earlier message of a group, which nobody can check; None for a
        #: message that came by itself.
        self.told_by = shown.told or None
        #: Of a message through the chain: the Sui account that sent it, and the transaction, which an answer refers
        #: to.
        self.wallet = f"0x{shown.wallet.hex()}" if shown.wallet else ""
        self.transaction = shown.transaction

    @property
    def sender(self) -> Contact | None:
        """The author; None for ourselves, and for a Sui account that no card links."""
        return self._messenger.find_contact(self._shown.sender)

    @property
    def sender_name(self) -> str:
        """The sender's name, or the address of a Sui account that no card links."""
        if self.sender is not None:
            return self.sender.name
        return (self._messenger.card.name or "me") if self.own else f"0x{self._shown.sender.hex()}"

    @property
    def sender_label(self) -> str:
        """What to show of the sender: the name, with the identity if they are a stranger or several people have that
        name."""
        if self.sender is not None:
            return contact_label(self.sender, self._messenger.contacts)
        return self.sender_name

    @property
    def teller_name(self) -> str:
        """The name of the person who passed an earlier message on, or ""."""
        teller = self._messenger.find_contact(self._shown.told)
        return teller.name if teller else self._shown.told.hex()

    @property
    def named_reactions(self) -> dict[str, str]:
        """Reactions by people's names; ours is under "you"."""
        return {self._label(person): emoji for person, emoji in self.reactions.items()}

    def _label(self, person: bytes) -> str:
        if person == self._messenger.card.person:
            return "you"
        contact = self._messenger.find_contact(person)
        return contact_label(contact, self._messenger.contacts) if contact else person.hex()

    @property
    def own(self) -> bool:
        """True if we wrote it, on any device."""
        return self._shown.sender == self._messenger.card.person

    @property
    def is_strangers(self) -> bool:
        """True if a stranger wrote it, or anybody in a group that a stranger has created."""
        group = self.group
        return group.is_strangers if group is not None else self._messenger.is_stranger(self._shown.sender)

    @property
    def group(self) -> Group | None:
        """The group in which it was written, or None for a conversation of two."""
        return self._messenger.find_group(self.conversation)

    @property
    def room(self) -> Room | None:
        """The group's room in which it was written, or None."""
        rooms = self.group.rooms if self.group else []
        return next((each for each in rooms if each.id == self.conversation), None)

    @property
    def attachments(self) -> list[Attachment]:
        """The files that came with it. `save` fetches one."""
        pool, teller = self._messenger.delivery.pool, self._nearness
        return [
            Attachment(name, size, key, tuple(roots), tuple(places), pool, teller)
            for name, size, key, roots, places in self._shown.files
        ]

    @property
    def _nearness(self) -> Nearness:
        """How near the source of its files' mailboxes is: that of its author, if we have forwarded it."""
        who = (self._shown.told or self._shown.sender, self.forwarded_from if self.own else None)
        introductions = self._messenger.correspondence.introductions
        return max(introductions.nearness_of(each) for each in who if each)

    async def mark_read(self) -> None:
        """Mark it as read: `async for` doesn't yield it again, and its sender is told unless receipts are off."""
        await self._messenger.mark_read(self.id, self._shown.sender)

    async def reply(self, text: str, **options: Any) -> Message:
        """Reply to it, as `Messenger.send` does."""
        return await self._messenger.send(self.conversation, text, reply_to=self.id, **options)

    async def react(self, emoji: str) -> None:
        """React to it; "" takes that back."""
        await self._messenger.send_event(
            self.conversation, EventKind.REACT, {"target": self.id, "emoji": emoji}
        )

    async def edit(self, text: str) -> None:
        """Change its text. Raise `MessageError` if it isn't ours."""
        self._check_own()
        await self._messenger.send_event(self.conversation, EventKind.EDIT, {"target": self.id, "text": text})

    async def delete(self) -> None:
        """Delete it for everybody. Raise `MessageError` if it isn't ours, and we don't moderate the group."""
        group = self._messenger.correspondence.group_of(self.conversation)
        if group is None or self._messenger.card.person not in group.members.moderators:
            self._check_own()
        await self._messenger.send_event(self.conversation, EventKind.DELETE, {"target": self.id})

    async def forward(self, to: Person | Group | Room) -> Message:
        """Send its text and files to somebody else, with the name of its author."""
        fields = {"text": self.text, "files": self._shown.files, "from": self._shown.sender}
        return await self._messenger.say_text(self._messenger.conversation_of(to), fields)

    async def receipts(self) -> dict[bytes, bool]:
        """Return by person, for all who have received it, whether they have read it."""
        messenger = self._messenger
        return await messenger.delivery.run_in_thread(messenger.correspondence.store.read_receipts, self.id)

    def _check_own(self) -> None:
        if not self.own:
            raise MessageError("only the person who wrote a message can change it")

    def __repr__(self) -> str:
        return f"<Message {self.id.hex()[:8]} of {self.sender_name}: {self.text[:40]!r}>"


class Messenger:
    """A person on this device. Use it with `async with`; `async for` yields messages that weren't marked as read.

    `store` is the path of this device's own file. `mailboxes` are the addresses where others leave messages for us.
    `account` is given on the device that has the key of an account of several devices. With `consent="ask"`, messages
    from and to a contact whose key was replaced are held back until the new key is accepted; with "tell", the
    default, the program is notified and messages go on. `cards` are sources in which people without a handed-over
    card are looked up, and in which ours is published: `DhtCards`, `ChainCards`. `stamp_bits` is the work that a
    stranger's message costs, 0 to 26 bits, by default 16; with `stamp_mib` above 0 strangers pay for that many MiB of
    our room instead. `rent` says what is paid for room in mailboxes that have a price; without it nothing is.
    `postage` pays other people's stamps, as far as `allow_stamps` permits. `posts` is where messages through the
    chain come from. `topics` spreads messages of large groups to members who are connected. `quotas` limits how much
    is kept of what others send. `mailboxes`, `consent`, `stamp_bits`, `stamp_mib` and `quotas` are stored: without
    them, the values of last time hold.
    """

    def __init__(
        self,
        *,
        identity: Identity,
        store: str | os.PathLike[str],
        mailboxes: Sequence[str] | None = None,
        name: str | None = None,
        account: Account | None = None,
        consent: Consent | None = None,
        read_receipts: bool = True,
        stamp_bits: int | None = None,
        stamp_mib: int | None = None,
        cards: Sequence[CardSource] = (),
        rent: Rent | None = None,
        postage: Postage | None = None,
        posts: ChainPosts | None = None,
        topics: GroupTopics | None = None,
        quotas: MessageQuotas | None = None,
        connect: ConnectMailbox = connect_plainly,
    ) -> None:
        self.identity = identity
        self._open_store = partial(
            Correspondence, store, identity, account=account, consent=consent, quotas=quotas
        )
        self._settings = MessengerSettings(mailboxes, name, stamp_bits, stamp_mib, read_receipts)
        #: Dependencies that aren't there yet when the messenger is created are set here before `async with`.
        self.dependencies = MessengerDependencies(tuple(cards), connect, rent, postage, posts, topics)
        #: What has come and waits for the program.
        self.inbox = MessengerInbox()
        #: What this device keeps, and what delivers it: set by `async with`.
        self.correspondence: Correspondence
        self.delivery: Delivery
        self.tasks: MessengerTasks

    async def __aenter__(self) -> Self:
        """Open the store, and start. Raise `StoreFailed`, `MessageError`, or `AddressError` for a mailbox."""
        self._settings.check_mailboxes()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="dtp-messages")
        loop = asyncio.get_running_loop()
        self.correspondence = await loop.run_in_executor(self._thread, self._open_store, now_ms())
        connect = self.dependencies.connect
        self.delivery = Delivery(self.correspondence, self._thread, connect, self.tell)
        try:
            self.tasks = MessengerTasks(self.dependencies, self.delivery, self.tell)
            await self._settings.keep(self.correspondence, self.delivery)
            self.inbox.add_messages(await self.list_unread())
        except BaseException:
            await self._close_store()
            raise
        if self.correspondence.desk.renewed:
            self.tell([Notice(What.RENEWED, detail=self.correspondence.desk.renewed)])
        self.delivery.start()
        self.tasks.start()
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Stop, and close the store. What isn't delivered yet goes out the next time."""
        await self.tasks.stop()
        await self.delivery.stop()
        await self.delivery.forget_calls(self.inbox.notices.take_told())
        await self._close_store()

    async def _close_store(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self.correspondence.close)
        self._thread.shutdown(wait=False)

    def tell(self, notices: Iterable[Notice | CallSignalled]) -> None:
        """Queue a notice for the program."""
        for each in self.inbox.add(notices):
            if each.what is What.OWN_CARD:
                self.tasks.lookup.publish_soon()
            if each.what is What.GROUP_CHANGED:
                self.delivery.wake_up()

    async def signal_call(self, devices: Iterable[bytes], signal: Signal) -> None:
        """Send a signal about a call to these devices. For `Calls`."""
        event = Event(EventKind.CALL, self.card.person, 0, now_ms(), signal.to_fields())
        await self.delivery.run_in_thread(self.correspondence.say_to_devices, tuple(devices), event, now_ms())
        self.delivery.wake_up()

    # ---- who ---------------------------------------------------------------------------------------------------

    @property
    def card(self) -> ContactCard:
        """Our card, to hand to those who may write to us; `card.public()` is for everybody."""
        return self.correspondence.card

    @property
    def reached(self) -> bool:
        """True while one of our mailboxes is connected."""
        return bool(self.delivery.own)

    @property
    def contacts(self) -> list[Contact]:
        """All contacts."""
        return list(self.correspondence.contacts)

    @property
    def groups(self) -> list[Group]:
        """The groups that we are in or were in, without declined invitations."""
        return [Group(self, each) for each in self.correspondence.allowances.list_groups()]

    @property
    def invitations(self) -> list[Group]:
        """The groups that only strangers have added us to: `accept` or `decline` each."""
        return [each for each in self.groups if each.is_invitation]

    def find_contact(self, person: bytes) -> Contact | None:
        """Return a contact by its 32 bytes, or None if it isn't known."""
        return self.correspondence.contacts.get_contact(person)

    def is_stranger(self, person: bytes) -> bool:
        """True if somebody has written but wasn't added or answered here, or isn't known at all."""
        contact = self.find_contact(person)
        return person != self.card.person and (contact is None or contact.stranger)

    def find_group(self, group: bytes) -> Group | None:
        """Return a group by its id, or by that of a room in it (32 bytes), or None."""
        found = self.correspondence.group_of(group)
        return Group(self, found.group) if found else None

    async def add_contact(self, card: ContactCard | str) -> Contact:
        """Add a contact by a card, or a card as text, that somebody has handed over. Return the contact. A card that
        is older than the one that is known changes nothing, and is told (`OLDER_CARD`).

        Raise `CardRolledBack` or `CardEnded` if the chain says that an account's card counts no more.
        """
        told = ContactCard.parse_text(card) if isinstance(card, str) else card
        await self.tasks.lookup.check_card(told)
        contact = await self.delivery.run_in_thread(self.correspondence.add_contact, told, now_ms())
        if contact.is_newer_than(told):
            self.tell([Notice(What.OLDER_CARD, contact.person, contact.person, detail=contact.name)])
        self.delivery.wake_up()  # a group of theirs may have ceased to be an invitation
        return contact

    async def find_person(self, name: PeerId | bytes | str) -> Contact:
        """Return the contact of this name. An unknown `dtp1...` or `dtpa1...` is looked up in `cards`, and added.

        Raise `UnknownContact` if nobody is known or found.
        """
        try:
            return self.correspondence.get_contact(self.conversation_of(name))
        except UnknownContact:
            if isinstance(name, str) and not name.startswith(("dtp1", "dtpa1")):
                raise
        found = await self.tasks.lookup.find_card(self.conversation_of(name))
        if found is None:
            who = name if isinstance(name, str) else "that person"
            raise UnknownContact(f"no card of {who} is found anywhere")
        add = partial(self.correspondence.add_contact, teller=found.teller)
        return await self.delivery.run_in_thread(add, found.card, now_ms())

    async def refresh_cards(self) -> None:
        """Look now for newer cards of the people we know, and of our own; otherwise that happens every six hours."""
        await self.tasks.lookup.look_for_newer()

    async def list_accounts(self) -> list[bytes]:
        """Return the Sui accounts, 32 bytes each, that have written through the chain and that no card links."""
        found = await self.delivery.run_in_thread(self.correspondence.store.list_conversations)
        return [each for each in found if not self._is_known(each)]

    async def block(self, person: Person) -> None:
        """Block somebody: nothing is accepted from them any more, and they are told nothing."""
        await self._update_contact(person, blocked=True)

    async def unblock(self, person: Person) -> None:
        """Accept messages from somebody again."""
        await self._update_contact(person, blocked=False)

    async def rename_contact(self, person: Person, nickname: str) -> None:
        """Give somebody another name on our devices."""
        await self._update_contact(person, nickname=nickname)

    async def accept_key(self, person: Person) -> None:
        """Accept the key with which a contact has replaced its former one."""
        accept = self.correspondence.known_people.accept_key
        await self.delivery.run_in_thread(accept, self.conversation_of(person), now_ms())
        self.delivery.wake_up()  # our other devices are told
        self.inbox.add_messages(await self.list_unread())

    async def _update_contact(self, person: Person, **changes: Any) -> None:
        change = partial(self.correspondence.known_people.change_contact, **changes)
        await self.delivery.run_in_thread(change, self.conversation_of(person), now_ms())
        self.delivery.wake_up()  # our other devices are told

    def safety_number(self, person: Person) -> str:
        """Return the 60 digits that two people read to each other: they differ if somebody is in the middle."""
        return safety_number(self.card, self._newest_card(person))

    def safety_code(self, person: Person) -> bytes:
        """Return the safety number in the form for a QR code."""
        return safety_code(self.card, self._newest_card(person))

    async def verify(self, person: Person, code: bytes | str) -> bool:
        """Return whether a contact's scanned code, or their number as text, is right; if so, mark the contact as
        verified."""
        right = compare_code(code, self.card, self._newest_card(person))
        if right:
            await self._update_contact(person, verified=True)
        return right

    def _newest_card(self, person: Person) -> ContactCard:
        contact = self.correspondence.get_contact(self.conversation_of(person))
        return contact.pending or contact.card

    def conversation_of(self, to: Person | Group | Room) -> bytes:
        """Return the 32 bytes of a person or group. Raise `UnknownContact` for a name that nobody has here.

        Names given by the user come first, then those that contacts and groups have chosen, then strangers'
        (`find_called`). Raise `MessageError` if several have the name. A person who has an account by now is returned
        as that account.
        """
        match to:
            case Group() | Room():
                return to.id
            case Contact() | ContactCard():
                to = to.person
            case PeerId():
                to = to.key
            case str():
                to = find_named(self.contacts, self.groups, self.card.person, to)
        return self.correspondence.succession.resolve_person(to)

    def find_group_called(self, name: str) -> Group | None:
        """Return the group of this name or hexadecimal id, or None. Raise `MessageError` if several have the name."""
        return find_group(self.contacts, self.groups, self.card.person, name)

    # ---- messages ----------------------------------------------------------------------------------------------

    async def send(
        self,
        to: Person | Group | Room,
        text: str,
        *,
        attachments: Iterable[str | os.PathLike[str]] = (),
        reply_to: bytes | None = None,
        disappear: timedelta | None = None,
    ) -> Message:
        """Queue a message, and return it: it is on the disk, and is sent as soon as a mailbox can be reached.

        If `to` is the card of somebody new, they are added. `attachments` are files, which our mailbox keeps for a
        month; `disappear` is how long the message is kept after it was read. Raise `UnknownContact`, `ConsentNeeded`,
        `ContactBlocked`, `MessageTooLong`, `QueueFull`, and the errors of `attachments`.
        """
        if len(encode_text(text)) > MAX_TEXT_BYTES:
            raise MessageTooLong(f"a text has {MAX_TEXT_BYTES} bytes at most: attach what is longer")
        if isinstance(to, ContactCard) and to.person not in (self.card.person,):
            await self.add_contact(to)
        conversation = self.conversation_of(to)
        if isinstance(to, PeerId | bytes | str) and not self._is_known(conversation):
            conversation = (await self.find_person(to)).person
        await self.tasks.lookup.check_contact(conversation)
        fields: dict[str, Any] = {"text": text}
        if files := [await self._upload_file(Path(each)) for each in attachments]:
            fields["files"] = files
        if reply_to is not None:
            fields["reply"] = reply_to
        if disappear is not None:
            fields["disappear"] = int(disappear.total_seconds())
        return await self.say_text(conversation, fields)

    async def allow_stamps(self, person: Person, up_to: int | str) -> None:
        """Agree to pay stamps for this person, if their mailboxes ask strangers for them, up to a total of `up_to`
        from now on: MIST, or text such as "0.01SUI". Without this call nothing is paid. Raise `UnknownContact`."""
        from dtp.chain.wallet import parse_amount

        most = parse_amount(up_to) if isinstance(up_to, str) else up_to
        contact = self.correspondence.get_contact(self.conversation_of(person))
        await self.tasks.stamping.allow_spending(contact.person, most)

    def _is_known(self, conversation: bytes) -> bool:
        is_person = conversation == self.card.person or self.find_contact(conversation) is not None
        return is_person or self.correspondence.group_of(conversation) is not None

    async def say_text(self, conversation: bytes, fields: dict[str, Any]) -> Message:
        """Send a text event with these fields, and return it as a message."""
        said = await self.send_event(conversation, EventKind.TEXT, fields)
        (sent,) = await self._find_message(conversation, self.card.person, said.id)
        return sent

    async def _find_message(self, conversation: bytes, sender: bytes, message: bytes) -> list[Message]:
        """Return a message in its current state, without reading its whole conversation; nothing if it has
        disappeared."""
        conversation, sender = map(self.correspondence.succession.resolve_person, (conversation, sender))
        shown = await self.delivery.run_in_thread(self.correspondence.read_history, conversation, message)
        return [Message(self, conversation, each) for each in shown if each.sender == sender]

    async def find_messages(self, message: bytes) -> list[Message]:
        """Return the messages with this id in their current state: one or none, unless others have used the same
        id."""
        known = await self.delivery.run_in_thread(self.correspondence.store.find_messages, message)
        return [each for where, who, _ in known for each in await self._find_message(where, who, message)]

    async def send_event(self, conversation: bytes, kind: EventKind, fields: dict[str, Any]) -> Event:
        """Store and queue an event, and return it. Raise what `send` raises."""
        await self.tasks.lookup.check_contact(conversation)
        said = await self.delivery.run_in_thread(
            self.correspondence.send_event, conversation, kind, fields, now_ms()
        )
        self.delivery.wake_up()
        return said.event

    async def _upload_file(self, path: Path) -> list[Any]:
        """Upload a file to one of our mailboxes. If the connection breaks, go on once a mailbox is back."""
        secret = self.correspondence.upload_secret
        while True:
            await self.wait_reached()
            address, client = next(iter(self.delivery.own.items()))
            try:
                told = await upload(
                    *(path, client, self.identity.id.key, self.correspondence.access),
                    secret=secret,
                    now_ms=now_ms(),
                    seconds=LIFETIME,
                )
                return [*told, [address]]
            except MailboxGone:
                self.delivery.forget_own(address, client)

    async def wait_reached(self) -> None:
        """Wait until one of our mailboxes is connected and has our keys.

        Raise `MessageError` if we have none.
        """
        if not self.card.mailboxes:
            raise MessageError(
                "there is no mailbox: name one, by 'dtp message card --mailbox ADDRESS', or by mailboxes=[...]; "
                "'dtp mailbox serve' runs one"
            )
        while not self.delivery.own:
            self.delivery.reached.clear()
            await self.delivery.reached.wait()

    async def wait_collected(self) -> None:
        """Wait until everything that is in our reachable mailboxes now has been collected."""
        await self.wait_reached()
        for client in list(self.delivery.own.values()):
            while (await client.get_status()).count:
                await self.delivery.took.wait()
                self.delivery.took.clear()

    async def unread(self) -> list[Message]:
        """Return the messages that weren't marked as read, oldest first."""
        return [found for each in await self.list_unread() for found in await self._find_message(*each)]

    async def list_unread(self) -> list[tuple[bytes, bytes, bytes]]:
        """Return conversation, sender and id of the unread messages, which is cheaper than reading them."""
        return await self.delivery.run_in_thread(self.correspondence.store.list_unread)

    async def set_typing(self, to: Person | Group | Room, on: bool = True) -> None:
        """Tell the members who are connected now that we are writing, or have stopped."""
        conversation = self.conversation_of(to)
        event = Event(EventKind.TYPING, conversation, 0, now_ms(), {"on": on})
        devices = await self.delivery.run_in_thread(self.correspondence.devices_of, conversation)
        await self.delivery.send_signal(devices, event.encode())

    async def mark_read(self, message: bytes, sender: bytes = b"") -> None:
        """Mark a message as read, by its id; `sender` is its author, in case several messages have that id."""
        mark, tell = self.correspondence.mark_read, self._settings.read_receipts
        if await self.delivery.run_in_thread(mark, message, now_ms(), tell=tell, sender=sender):
            self.delivery.wake_up()

    async def mark_conversation_read(self, conversation: Person | Group | Room) -> None:
        """Say that all messages of a conversation were read: in few steps, however many there are."""
        mark, tell = self.correspondence.reading.mark_conversation_read, self._settings.read_receipts
        if await self.delivery.run_in_thread(mark, self.conversation_of(conversation), now_ms(), tell=tell):
            self.delivery.wake_up()

    async def history(self, conversation: Person | Group | Room, *, last: int | None = None) -> list[Message]:
        """Return the messages of a conversation in their current state, in the order that all members see: all, or
        the `last` ones, which takes the same time however many there are."""
        named = self.conversation_of(conversation)
        shown = await self.delivery.run_in_thread(self.correspondence.read_history, named, last=last)
        return [Message(self, named, each) for each in shown]

    async def wait_delivered(self, besides: bytes = b"", *, message: Message | None = None) -> None:
        """Wait until mailboxes have everything that was sent, or all of one message, except what is for the device
        `besides`."""
        await self.delivery.wait_sent(besides, message.id if message else b"")

    def __aiter__(self) -> AsyncIterator[Message]:
        return self._iter_messages()

    async def _iter_messages(self) -> AsyncIterator[Message]:
        while True:
            for each in await self._find_message(*await self.inbox.next_message()):
                yield each

    async def notices(self) -> AsyncIterator[Notice]:
        """Yield what happens besides messages: receipts, typing, edits, cards and keys, groups. Use it in one loop
        only."""
        while True:
            await self.delivery.forget_calls(self.inbox.notices.take_told())
            yield await self.inbox.notices.get()

    def take_notices(self) -> list[Notice]:
        """Return the notices that wait; `notices` doesn't yield them any more."""
        return self.inbox.notices.get_all()

    # ---- groups and devices ------------------------------------------------------------------------------------

    async def create_group(self, name: str, people: Iterable[Person]) -> Group:
        """Create a group of these people, which we administer, and return it."""
        persons = [self.conversation_of(each) for each in people]
        group = await self.delivery.run_in_thread(self.correspondence.create_group, name, persons, now_ms())
        self.delivery.wake_up()
        return Group(self, group)

    async def join_group(self, link: str) -> None:
        """Ask to join a group by an invitation's link. The group appears in `groups` once the person who invites has
        let us in.

        Raise `LinkMalformed`, and `MessageError` for our own link.
        """
        told = InviteLink.parse(link)
        await self.tasks.lookup.check_card(told.card)
        await self.delivery.run_in_thread(self.correspondence.communities.ask_to_join, told, now_ms())
        self.delivery.wake_up()

    async def approve_device(
        self, device: PeerId, label: str = "", *, history: timedelta | None = None
    ) -> ContactCard:
        """Add a device to our account. Return our new card, for that device's `join`; with `history` the device gets
        earlier messages.

        Only on the device that has the account's key.
        """
        await self._change_account(self._require_account().add(device, label))
        if history is not None:
            since = now_ms() - int(history.total_seconds() * 1000)
            await self.delivery.run_in_thread(
                self.correspondence.missed.send_history, device.key, since, now_ms()
            )
            self.delivery.wake_up()
        return self.card

    async def revoke_device(self, device: PeerId) -> None:
        """Remove a device from our account: neither we nor our contacts seal anything to it any more."""
        await self._change_account(self._require_account().remove(device))

    async def join(self, card: ContactCard | str) -> None:
        """Become a device of the account whose card this is, once its owner has approved this device."""
        told = ContactCard.parse_text(card) if isinstance(card, str) else card
        await self.delivery.run_in_thread(self.correspondence.join_account, told, now_ms())
        self.delivery.collect_from(self.card.mailboxes)
        self.delivery.wake_up()

    @property
    def account(self) -> Account | None:
        """The account, on the device that has its key. Save it after devices were approved or revoked."""
        return self.correspondence.account

    def _require_account(self) -> Account:
        account = self.correspondence.account
        if account is None:
            raise MessageError(
                "this device hasn't the account's key, as 'dtp account create' makes it: give --account FILE, or "
                "account=..."
            )
        return account

    async def _change_account(self, account: Account) -> None:
        await self.delivery.run_in_thread(self.correspondence.change_account, account, now_ms())
        self.delivery.wake_up()
        await self.delivery.publish_again()
        self.tasks.lookup.publish_soon()
