"""What can be written in `dtp chat` besides text: `/command words`, each a function of its own."""

from __future__ import annotations

import shlex
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from dtp.cli.chat.calls import ChatCalls
from dtp.cli.chat.mistakes import ChatMistake
from dtp.cli.messenger import history_amount, read_card_text
from dtp.messaging.person.group import Group
from dtp.messaging.person.messenger import Message, Messenger

#: Lines that fit into a terminal of 80 columns.
HELP: Final = """\
/file PATH [TEXT]   send a file
/save [FOLDER]      fetch the files of the marked message
/reply TEXT         answer the marked message (up and down mark another)
/edit TEXT          give your marked message another text; where none is
                    marked, your last one
/delete             delete your marked message
/react EMOJI        react to the marked message; without one, take it back
/add CARD           add somebody, by the text of a card or a file
/group NAME WHO...  make a group
/leave              leave the group of this room
/remove WHO         remove somebody from the group of this room
/bring WHO [PAST]   add somebody to the group of this room; PAST is what
                    was said before and they are given: 7d, 100 (messages)
                    or all
/call [FILE]        call whom this room is with; FILE is sent in the place
                    of camera and microphone
/answer [FILE]      answer who is calling
/hangup             end the call, or refuse it
/block              take nothing more of whom this room is with
/accept             accept another key of whom this room is with, or take
                    part in a group that strangers have added you to
/decline            leave such a group
/help               this"""


@dataclass(frozen=True)
class CommandContext:
    """Where something was written: the messenger, the room, the message that is marked, the calls, and all messages
    that are shown."""

    messenger: Messenger
    room: bytes | None
    marked: Message | None
    calls: ChatCalls
    shown: tuple[Message, ...] = ()

    def chosen_room(self) -> bytes:
        """Return the room. Raise `ChatMistake` where there is none, or nothing can be written there."""
        if self.room is None:
            raise ChatMistake("there is nobody to write to: /add CARD")
        if (post := self.marked) is not None and post.wallet and post.sender is None:
            posts = self.messenger.dependencies.posts
            host = "0x..." if posts is None else posts.host
            raise ChatMistake(
                "this Sui account has no card, and is answered through the chain: "
                f"dtp post answer dtp://{host} {post.transaction} TEXT"
            )
        return self.room

    def marked_message(self) -> Message:
        """Return the marked message. Raise `ChatMistake` where there is none."""
        if self.marked is None:
            raise ChatMistake("there is no message that this could be about")
        return self.marked

    def own_message(self) -> Message:
        """Return the message to change: the marked one, or our last one while the mark is where it was at first."""
        marked = self.marked_message()
        if marked.own or not self.shown or marked.id != self.shown[-1].id:
            return marked
        return next((each for each in reversed(self.shown) if each.own), marked)

    def chosen_group(self) -> Group:
        """Return the group of the room. Raise `ChatMistake` where the room isn't a group's."""
        group = self.messenger.find_group(self.chosen_room())
        if group is None:
            raise ChatMistake("this room is not a group's: /group NAME WHO... makes one")
        return group


#: Does what was written; returns what to say of it, "" for nothing.
Command = Callable[[CommandContext, str], Awaitable[str]]


async def _text(said: CommandContext, text: str) -> str:
    await said.messenger.send(said.chosen_room(), text)
    return ""


async def _file(said: CommandContext, text: str) -> str:
    path, *words = _words(text, "/file PATH [TEXT]", 1)
    file = _path(path)
    await said.messenger.send(said.chosen_room(), " ".join(words), attachments=[file])
    return f"{file.name} is on its way"


async def _save(said: CommandContext, text: str) -> str:
    folder = _path(next(iter(_words(text, "/save [FOLDER]", 0)), "."))
    files = said.marked_message().attachments
    if not files:
        raise ChatMistake("the marked message has no files")
    return "saved " + ", ".join([str(await each.save(folder)) for each in files])


async def _reply(said: CommandContext, text: str) -> str:
    await said.marked_message().reply(_rest(text, "/reply TEXT"))
    return ""


async def _edit(said: CommandContext, text: str) -> str:
    await said.own_message().edit(_rest(text, "/edit TEXT"))
    return ""


async def _delete(said: CommandContext, text: str) -> str:
    await said.marked_message().delete()
    return ""


async def _react(said: CommandContext, text: str) -> str:
    await said.marked_message().react(text.partition(" ")[2].strip())
    return ""


async def _add(said: CommandContext, text: str) -> str:
    try:
        card = read_card_text(_rest(text, "/add CARD"))
    except click.UsageError as fault:
        raise ChatMistake(fault.message) from None
    contact = await said.messenger.add_contact(card)
    return f"{contact.name} is a contact now. Compare: {said.messenger.safety_number(contact)}"


async def _group(said: CommandContext, text: str) -> str:
    name, *people = _words(text, "/group NAME WHO...", 1)
    await said.messenger.create_group(name, people)
    return f"{name} is a group now"


async def _bring(said: CommandContext, text: str) -> str:
    who, *past = _words(text, "/bring WHO [7d|100|all]", 1)
    group = said.chosen_group()
    try:
        history = history_amount(past[0]) if past else None
    except click.UsageError as fault:
        raise ChatMistake(fault.message) from None
    await group.add(who, history=history)
    return f"{who} is in {group.name}"


async def _leave(said: CommandContext, text: str) -> str:
    group = said.chosen_group()
    await group.leave()
    return f"you aren't in {group.name} any more"


async def _remove(said: CommandContext, text: str) -> str:
    group, who = said.chosen_group(), _rest(text, "/remove WHO")
    await group.remove(who)
    return f"{who} isn't in {group.name} any more"


async def _block(said: CommandContext, text: str) -> str:
    room = said.chosen_room()
    if (contact := said.messenger.find_contact(room)) is None:
        raise ChatMistake("people are blocked in their own room: go there")
    await said.messenger.block(room)
    return f"{contact.name} is blocked; 'dtp message unblock' takes that back"


async def _call(said: CommandContext, text: str) -> str:
    name = await said.calls.call_person(said.chosen_room(), _media_file(text, "/call [FILE]"))
    return f"calling {name}: /hangup ends it"


async def _answer(said: CommandContext, text: str) -> str:
    await said.calls.answer_call(_media_file(text, "/answer [FILE]"))
    return ""


async def _hang_up(said: CommandContext, text: str) -> str:
    await said.calls.hang_up()
    return ""


def _media_file(text: str, form: str) -> str | None:
    words = _words(text, form, 0)
    return str(_path(words[0])) if words else None


async def _accept(said: CommandContext, text: str) -> str:
    room = said.chosen_room()
    if (group := said.messenger.find_group(room)) is None:
        await said.messenger.accept_key(room)
        return "the key is accepted"
    if not group.is_invitation:
        raise ChatMistake("this group needn't be accepted")
    await group.accept()
    return f"you take part in {group.name}"


async def _decline(said: CommandContext, text: str) -> str:
    group = said.chosen_group()
    await group.decline()
    return f"you aren't in {group.name}"


async def _help(said: CommandContext, text: str) -> str:
    return HELP


async def _unknown(said: CommandContext, text: str) -> str:
    raise ChatMistake(f"there is no {text.split()[0]}: /help lists what there is")


_COMMANDS: Final[dict[str, Command]] = {
    "/file": _file,
    "/save": _save,
    "/reply": _reply,
    "/edit": _edit,
    "/delete": _delete,
    "/react": _react,
    "/add": _add,
    "/group": _group,
    "/bring": _bring,
    "/leave": _leave,
    "/remove": _remove,
    "/block": _block,
    "/call": _call,
    "/answer": _answer,
    "/hangup": _hang_up,
    "/accept": _accept,
    "/decline": _decline,
    "/help": _help,
}


def find_command(text: str) -> Command:
    """Return what does the thing that was written; text that begins with `//` is text that begins with `/`."""
    if text.startswith("//"):
        return lambda said, written: _text(said, written[1:])
    return _COMMANDS.get(text.split()[0], _unknown) if text.startswith("/") else _text


def _rest(text: str, form: str) -> str:
    rest = text.partition(" ")[2].strip()
    if not rest:
        raise ChatMistake(f"write {form}")
    return rest


def _words(text: str, form: str, least: int) -> list[str]:
    try:
        words = shlex.split(text)[1:]
    except ValueError:
        raise ChatMistake(f"a quotation mark is missing: {form}") from None
    if len(words) < least:
        raise ChatMistake(f"write {form}")
    return words


def _path(text: str) -> Path:
    return Path(text).expanduser()
