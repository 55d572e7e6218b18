"""The terminal program: rooms at the left, the conversation beside them, a line to write in."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import ClassVar, Final

from textual.app import App, ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.timer import Timer
from textual.widgets import Footer, Header, Input, OptionList, Static
from textual.widgets.option_list import Option

from dtp.chain.model import format_amount
from dtp.cli.chat.calls import ChatCalls, MakeMedia
from dtp.cli.chat.commands import CommandContext, find_command
from dtp.cli.chat.lines import ChatRoom, message_line, room_line
from dtp.cli.chat.writing import WriteLine
from dtp.cli.messenger import MAILBOX_WARNINGS, PEOPLE_WARNINGS
from dtp.errors import DtpError
from dtp.escaping import escape_text
from dtp.messaging.calls.calling import Calls, Media
from dtp.messaging.calls.media import MediaEnd
from dtp.messaging.person.contacts import Contact
from dtp.messaging.person.messenger import Message, Messenger
from dtp.messaging.person.names import contact_label
from dtp.messaging.person.notices import Notice, What

#: Messages of a room that are shown.
_SHOWN: Final = 300
#: Seconds for which somebody counts as typing who has said so, and after which it is said again.
_TYPING: Final = 6.0
#: Seconds between two looks at whether a mailbox is reached.
_LOOK: Final = 1.0

#: What is told of, besides what the conversation shows.
_WARNINGS: Final = {
    **MAILBOX_WARNINGS,
    **PEOPLE_WARNINGS,
    What.CONSENT_NEEDED: "{name} has another key. Messages wait until you write /accept in that room",
    What.CONTACT_ADDED: "{name} has written for the first time",
    What.PAST_GIVEN: "{name} is given what was said before",
    What.STAMP_NEEDED: "they ask {name} of strangers: 'dtp message send NAME --stamp-up-to AMOUNT'",
    What.STAMP_UNPAID: "what you wrote waits for a stamp: {name}",
}


def _send_file(file: str | None) -> Media:
    return MediaEnd(file=file)


class TextScreen(ModalScreen[None]):
    """A text of several lines, which stays until a key says that it was read: help that is gone before, or is higher
    than the terminal, is none."""

    CSS = """
    TextScreen { align: center middle; }
    #text { width: auto; max-width: 100%; height: auto; max-height: 100%; padding: 1 2; background: $panel; }
    #text Static { width: auto; max-width: 100%; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [("escape,enter,q", "dismiss", "Close")]

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def compose(self) -> ComposeResult:
        """Return the widgets."""
        with VerticalScroll(id="text"):
            yield Static(escape_text(self._text, keep="\n"), markup=False)
            yield Static("Esc closes this", markup=False)


class MessageList(OptionList):
    """The messages of a room."""

    def on_resize(self) -> None:
        """Go on showing the one that is marked: in another width all lines are elsewhere."""
        self.call_after_refresh(self.scroll_to_highlight)


class ChatApp(App[None]):
    """Conversations of a messenger, which has begun. It goes on when the program ends; calls don't.

    `make_media` makes this end of a call, which sends a file where one is given.
    """

    TITLE = "dtp chat"
    CSS = """
    #rooms { width: 28; max-width: 33%; height: 1fr; border: none; border-right: solid $primary-darken-2; }
    #messages { height: 1fr; border: none; }
    #typing { height: 1; padding: 0 1; color: $text-muted; }
    #write { border: tall $primary-darken-2; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        ("ctrl+n", "change_room(1)", "Next room"),
        ("ctrl+p", "change_room(-1)", "Previous room"),
        ("up", "mark_message(-1)", "Mark a message"),
        ("down", "mark_message(1)"),
        ("ctrl+q", "quit", "Quit"),
    ]
    ENABLE_COMMAND_PALETTE = False

    def __init__(self, messenger: Messenger, make_media: MakeMedia = _send_file) -> None:
        super().__init__()
        self.messenger = messenger
        self._calls = ChatCalls(Calls(messenger), make_media, self._show_notification, self.run_worker)
        self._rooms: list[ChatRoom] = []
        self._current: bytes | None = None
        self._messages: list[Message] = []
        #: Set while what is shown is older than what is here, and of which conversations.
        self._stale = asyncio.Event()
        self._changed: set[bytes] = set()
        self._typists: dict[tuple[bytes, bytes], Timer] = {}
        self._told_typing: Timer | None = None

    def compose(self) -> ComposeResult:
        """Return the widgets."""
        yield Header()
        with Horizontal():
            yield OptionList(id="rooms")
            with Vertical():
                yield MessageList(id="messages")
                yield Static(id="typing", markup=False)
                yield WriteLine(placeholder="Write, or /help", id="write")
        yield Footer()

    async def on_mount(self) -> None:
        """Show what there is, and begin to listen."""
        await self.show_rooms()
        self.query_one("#write").focus()
        self.run_worker(self._follow_notices(), name="dtp-chat-notices")
        self.run_worker(self._show_changes(), name="dtp-chat-changes")
        self.run_worker(self._calls.follow_calls(), name="dtp-chat-calls")
        self.set_interval(_LOOK, self._show_state)
        self._show_state()

    def _show_state(self) -> None:
        self.sub_title = "connected" if self.messenger.reached else "no mailbox can be reached"

    # ---- rooms -------------------------------------------------------------------------------------------------

    async def show_rooms(self) -> None:
        """Draw the rooms as they are now."""
        unread = Counter(conversation for conversation, _, _ in await self.messenger.list_unread())
        people = [each for each in self.messenger.contacts if not each.blocked]
        found = [
            ChatRoom(each.person, self._label(each), unread[each.person], is_stranger=each.stranger)
            for each in people
        ]
        for group in self.messenger.groups:
            is_invitation = group.is_invitation
            named = {group.id: group.name} | {each.id: f"{group.name}/{each.name}" for each in group.rooms}
            found += [
                ChatRoom(each, name, unread[each], is_group=True, is_stranger=is_invitation)
                for each, name in named.items()
            ]
        accounts = await self.messenger.list_accounts()
        found += [ChatRoom(each, f"0x{each.hex()}", unread[each]) for each in accounts]
        self._rooms = sorted(found, key=lambda each: (each.name.casefold(), each.conversation))
        at = [each.conversation for each in self._rooms]
        if at and self._current not in at:  # at first, and where somebody was blocked, or a group declined
            await self._enter_conversation(at[0])
            return
        if self._current is not None:
            self.title = f"{self.TITLE}: {self._room_title(self._current)}"
        listed = self.query_one("#rooms", OptionList)
        listed.clear_options()
        listed.add_options([Option(room_line(each), id=each.conversation.hex()) for each in self._rooms])
        listed.highlighted = at.index(self._current) if self._current in at else None
        if not self._rooms:
            self.query_one("#typing", Static).update("nobody yet: /add CARD, or 'dtp message add'")

    async def _enter_conversation(self, conversation: bytes) -> None:
        self._current = conversation
        await self._show_messages(follow=True)
        await self._mark_read()
        self._show_typing()
        await self.show_rooms()

    def _label(self, contact: Contact) -> str:
        return contact_label(contact, self.messenger.contacts, brief=True)

    def _room_title(self, conversation: bytes) -> str:
        """Return who is written to: in full where several are called alike."""
        if (contact := self.messenger.find_contact(conversation)) is not None:
            return escape_text(contact_label(contact, self.messenger.contacts))
        if (group := self.messenger.find_group(conversation)) is None:
            return f"0x{conversation.hex()}"
        room = next((f"/{each.name}" for each in group.rooms if each.id == conversation), "")
        state = " (strangers have added you: /accept or /decline)" if group.is_invitation else ""
        if group.is_left:
            state = " (you aren't in it any more)"
        return escape_text(group.name + room) + state

    async def action_change_room(self, step: int) -> None:
        """Enter the next room, or the one before."""
        at = [each.conversation for each in self._rooms]
        if at:
            index = at.index(self._current) if self._current in at else 0
            await self._enter_conversation(at[(index + step) % len(at)])

    def action_mark_message(self, step: int) -> None:
        """Mark the message below, or above: commands are about it."""
        listed = self.query_one("#messages", OptionList)
        if self._messages:
            at = len(self._messages) - 1 if listed.highlighted is None else listed.highlighted
            listed.highlighted = min(max(at + step, 0), len(self._messages) - 1)

    async def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Called when a room was chosen, or a message, which the next command is about."""
        if event.option_list.id == "rooms" and event.option.id:
            await self._enter_conversation(bytes.fromhex(event.option.id))
        self.query_one("#write").focus()

    # ---- the conversation --------------------------------------------------------------------------------------

    async def _show_messages(self, *, follow: bool) -> None:
        if self._current is None:
            return
        listed = self.query_one("#messages", OptionList)
        before, self._messages = (
            self._chosen_message(),
            await self.messenger.history(self._current, last=_SHOWN),
        )
        texts = {each.id: each.text for each in self._messages}
        group = self.messenger.find_group(self._current)
        others = len(group.members) - 1 if group else 1
        options, labels = [], dict[bytes, str]()
        for each in self._messages:
            if (known := each.sender) is not None and known.person not in labels:
                labels[known.person] = self._label(known)
            sender = labels[known.person] if known else each.sender_name
            receipts = await each.receipts() if each.own else {}
            answered = texts.get(each.reply_to, "…") if each.reply_to else None
            options.append(Option(message_line(each, sender, receipts, answered, others), id=each.id.hex()))
        listed.clear_options()
        listed.add_options(options)
        ids = [each.id for each in self._messages]
        stays = before is not None and before.id in ids and not follow
        listed.highlighted = ids.index(before.id) if before and stays else len(ids) - 1 if ids else None

    def _chosen_message(self) -> Message | None:
        """Return the message that commands are about: the one that is marked, the last one until another is."""
        at = self.query_one("#messages", OptionList).highlighted
        return self._messages[at] if at is not None and at < len(self._messages) else None

    async def _mark_read(self) -> None:
        if self._current is not None:
            await self.messenger.mark_conversation_read(self._current)

    # ---- what comes --------------------------------------------------------------------------------------------

    async def _follow_notices(self) -> None:
        async for notice in self.messenger.notices():
            if notice.what is What.TYPING:
                self._take_typing(notice)
            else:
                self.take_notice(notice)

    def take_notice(self, notice: Notice) -> None:
        """Warn, and have what has changed be shown: it is drawn once for all that comes meanwhile."""
        if text := _WARNINGS.get(notice.what):
            detail = format_amount(int(notice.detail)) if notice.what is What.STAMP_NEEDED else notice.detail
            contact = self.messenger.find_contact(notice.person)
            who = contact.name if contact else "somebody"
            self.notify(escape_text(text.format(name=detail, who=who)), severity="warning", markup=False)
        self._changed.add(notice.conversation)
        if notice.what is What.OWN_CARD and self._current is not None:
            self._changed.add(self._current)
        if notice.what is What.MESSAGE:
            self._stop_typing((notice.conversation, notice.person))
        self._stale.set()

    async def _show_changes(self) -> None:
        while await self._stale.wait():
            self._stale.clear()
            changed, self._changed = self._changed, set()
            if self._current in changed:
                last = self._messages[-1].id if self._messages else None
                chosen = self._chosen_message()
                await self._show_messages(follow=chosen is None or chosen.id == last)
                await self._mark_read()
            await self.show_rooms()

    def _take_typing(self, notice: Notice) -> None:
        who = (notice.conversation, notice.person)
        self._stop_typing(who)
        if notice.detail == "on":
            self._typists[who] = self.set_timer(_TYPING, lambda: self._stop_typing(who))
        self._show_typing()

    def _stop_typing(self, who: tuple[bytes, bytes]) -> None:
        if (timer := self._typists.pop(who, None)) is not None:
            timer.stop()
            self._show_typing()

    def _show_typing(self) -> None:
        names = [
            escape_text(contact.name)
            for conversation, person in self._typists
            if conversation == self._current and (contact := self.messenger.find_contact(person)) is not None
        ]
        told = f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} typing" if names else ""
        self.query_one("#typing", Static).update(told)

    # ---- calls -------------------------------------------------------------------------------------------------

    def _show_notification(self, text: str) -> None:
        self.notify(escape_text(text), markup=False)

    # ---- what is written ---------------------------------------------------------------------------------------

    def on_input_changed(self, event: Input.Changed) -> None:
        """Say that something is being written, once in a while."""
        is_text = bool(event.value) and not event.value.startswith("/")
        if is_text and self._told_typing is None and self._current is not None:
            self._told_typing = self.set_timer(_TYPING, self._forget_typing)
            self.run_worker(self._tell_typing(self._current, True))

    def _forget_typing(self) -> None:
        if self._told_typing is not None:
            self._told_typing.stop()
            self._told_typing = None

    async def _tell_typing(self, conversation: bytes, on: bool) -> None:
        try:
            await self.messenger.set_typing(conversation, on)
        except DtpError:  # nobody is told, which changes nothing
            return

    def on_write_line_written(self, event: WriteLine.Written) -> None:
        """Send what was written, or do what it says."""
        self._forget_typing()
        if text := event.text.strip():
            self.run_worker(self._run_line(text), name="dtp-chat-said")

    async def _run_line(self, text: str) -> None:
        said = CommandContext(
            self.messenger, self._current, self._chosen_message(), self._calls, tuple(self._messages)
        )
        try:
            done = await find_command(text)(said, text)
        except DtpError as fault:
            self.notify(escape_text(str(fault)), severity="error", markup=False)
            line = self.query_one("#write", Input)
            if not line.value:  # to be written otherwise
                line.value, line.cursor_position = text, len(text)
            return
        if "\n" in done:
            self.push_screen(TextScreen(done))
        elif done:
            self._show_notification(done)
        await self._show_messages(follow=True)
        await self.show_rooms()
