"""What commands share that write to people and read what they write: who they are, and how long they wait."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import click

from dtp.chain import ChainClient
from dtp.cli.account import card_path, load_account, read_card, save_account
from dtp.cli.durations import duration
from dtp.cli.options import IdentitySource, identity_options, verbose_option
from dtp.cli.output import json_option, print_note
from dtp.config import data_dir
from dtp.escaping import escape_text
from dtp.identity import Identity
from dtp.messaging.cards.contact_card import TEXT_PREFIX
from dtp.messaging.errors import MessageError
from dtp.messaging.mailbox.client import MailboxGone
from dtp.messaging.person.card_sources import ChainCards, DhtCards
from dtp.messaging.person.group import History
from dtp.messaging.person.groups.group_topics import GroupTopics
from dtp.messaging.person.messenger import Message, Messenger
from dtp.messaging.person.names import contact_label
from dtp.messaging.person.notices import Notice, What
from dtp.messaging.person.posts import ChainPosts
from dtp.tasks import start_task

#: Seconds that a command waits until mailboxes have what it sends, or it has what they have.
WAIT: Final = 10.0
#: ... before it says something, until it has what others' devices told meanwhile: what it says goes out later anyway.
HEAR: Final = 3.0
#: What is said where that isn't enough.
LATER: Final = "not all that waits is in mailboxes yet; the next command goes on sending it"

#: What is wrong here or at one's own mailbox: unless that is said, nobody can write, and nobody knows.
MAILBOX_WARNINGS: Final = {
    What.CLOCK_DIFFERS: "the clocks of this device and of {name} differ, and nobody can write to you there: set "
    "yours, or, if that is right, have whoever runs the mailbox set theirs",
    What.MAILBOX_REFUSES: "nobody can write to you at {name}",
    What.STAMPS_NOT_SOLD: "{name} sells no room, so no stranger can pay the stamp that you ask: name a mailbox with "
    "a price, or say 'dtp message card --stamp-mib 0'",
    What.STORE_FAILED: "what comes can't be kept on this device, and stays in your mailboxes: {name}",
}

#: What has happened to people and devices, and nobody would see otherwise.
PEOPLE_WARNINGS: Final = {
    What.KEY_REPLACED: "{name} has another key: compare safety numbers ('dtp message contacts')",
    What.CONSENT_NEEDED: "{name} has another key: compare safety numbers ('dtp message contacts'); what they write "
    "waits until 'dtp message accept'",
    What.OWN_KEY_REPLACED: "your account has another key, which its recovery key has signed: if that wasn't you, "
    "tell everybody",
    What.DEVICES_CHANGED: "another machine has changed your account, which {name} now: if that wasn't you, give it "
    "another key ('dtp account rotate')",
    What.CARD_FORKED: "two machines have changed your account at once, and not all of it counts: its card {name}; "
    "with '--account FILE' it is put beside the account's key there: then make the other change again",
    What.ACCOUNT_ENDED: "the account of {name} was ended on the chain, for good: nothing is sealed to it any more",
    What.KEY_OUTDATED: "{name} has another key on the chain, and no card with it is found: ask them for their new "
    "card, and write nothing by the one that you have",
    What.CARD_EXPIRED: "the card of {name} has ended: what they write waits until they renew it ('dtp account "
    "renew', then 'dtp message card'), and nothing can be written to them",
    What.OWN_CARD_ENDS: "your card ends at {name}: from then on nobody is shown what you write, nor writes to you; "
    "renew it ('dtp account renew', then 'dtp message card --account FILE')",
    What.REVOKED: "this device isn't one of your account any more: nobody sends it anything, nor takes what it says; "
    "to have it back, approve it where the account's key is ('dtp message approve'), then 'dtp message join' here",
    What.RENEWED: "this device has begun anew, with other keys: {name}",
    What.PAST_GIVEN: "{name} is given what was said before in a group",
    What.JOIN_REFUSED: "somebody wasn't let into a group by a link of yours: {name}",
    What.QUOTA_EXCEEDED: "somebody sends more than is kept of them: {name}",
    What.MAILBOX_NEARER: "the mailbox of {name} is in your network, which nobody there has told you, so nothing is "
    "left in it: add their card ('dtp message add')",
    What.MISSED_CALL: "{who} has called, and nobody has answered",
}
_WARNINGS: Final = MAILBOX_WARNINGS | PEOPLE_WARNINGS


save_option = click.option(
    "--save", type=click.Path(file_okay=False, path_type=Path), metavar="FOLDER",
    help="Fetch attachments into a folder, which is made if there is none. No file in it is replaced.",
)  # fmt: skip


#: For commands that stay: who only sends lets mailboxes bring it.
node_option = click.option(
    "--node", metavar="URL",
    help="Be a node that listens there, such as tcp://0.0.0.0:0: messages of large groups come from other members "
    "who are there, on this network, and with --bootstrap elsewhere.",
)  # fmt: skip


def history_amount(text: str) -> History:
    """Return what `Group.add` takes: of "all", a number of messages, or a time. Raise `click.BadParameter`."""
    if text == "all":
        return "all"
    if text.isascii() and text.isdecimal():
        return int(text)
    return timedelta(days=duration(unit="d")(text))


def make_folder(folder: Path) -> None:
    """Make a folder for attachments, if there is none. Raise `MessageError` where that can't be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise MessageError(f"{folder} can't be made: {fault.strerror}") from fault


def messenger_options(command: Any) -> Any:
    """Add who writes, and where that is kept."""
    for decorate in (
        json_option,
        verbose_option,
        identity_options("--identity", "-i"),
        click.option("--store", type=click.Path(dir_okay=False), envvar="DTP_MESSAGES", metavar="FILE",
                     help="What this device keeps. [default: $DTP_MESSAGES, else messages/dtp1....sqlite in the data "
                     "folder]"),
        click.option("--account", metavar="FILE", help="The account's key (see 'dtp account'), where this device has "
                     "it. [default: the identity alone]"),
        click.option("--bootstrap", "-b", multiple=True, metavar="HOST:PORT",
                     help="Find people by dtp1... in the DHT of this node, and be found there; may be repeated."),
        click.option("--chain", metavar="NETWORK", help="Find accounts (dtpa1...) on this Sui network, and refuse "
                     "cards that it says are older: mainnet, testnet, a URL."),
        click.option("--posts", metavar="0X...", help="With --chain: take messages that come through the chain, too: "
                     "those to this host object, sealed to your identity ('dtp post')."),
    ):  # fmt: skip
        command = decorate(command)
    return command


def open_messenger(
    identity: IdentitySource,
    store: str | None,
    account: str | None,
    bootstrap: tuple[str, ...],
    chain: str | None,
    posts: str | None = None,
    node: str | None = None,
    **options: Any,
) -> AbstractAsyncContextManager[Messenger]:
    """Return what begins and ends the messenger that the options mean. Its identity's file has to be there. The
    newest card of an account that comes meanwhile is kept beside its key."""
    if posts is not None and chain is None:
        raise click.UsageError("--posts is a host on a chain: say which, with --chain")
    me = identity.load_identity()
    path = Path(store) if store else data_dir() / "messages" / f"{me.id}.sqlite"
    owner = load_account(account) if account else None
    messenger = Messenger(identity=me, store=path, account=owner, **options)
    opened = _with_sources(messenger, bootstrap, chain, posts, node)
    return _keeping_card(opened, account) if account else opened


@asynccontextmanager
async def _keeping_card(
    opened: AbstractAsyncContextManager[Messenger], account: str
) -> AsyncIterator[Messenger]:
    async with opened as messenger:
        try:
            yield messenger
        finally:  # another machine may have signed it, and what is signed next would undo that
            newest = messenger.account
            if newest is not None and newest.card.supersedes(read_card(card_path(account))):
                save_account(account, newest)


@asynccontextmanager
async def _with_sources(
    messenger: Messenger,
    bootstrap: tuple[str, ...],
    chain: str | None,
    posts: str | None,
    node: str | None,
) -> AsyncIterator[Messenger]:
    async with AsyncExitStack() as stack:
        if bootstrap:
            from dtp.peers.dht import Dht

            who = Identity.generate()  # nobody needs to know who asks
            dht = Dht(messenger.identity, node=who, client=True, bootstrap=bootstrap)
            await stack.enter_async_context(dht)
            messenger.dependencies.add_source(DhtCards(dht))
        if chain is not None:
            client = await stack.enter_async_context(ChainClient(chain))
            messenger.dependencies.add_source(ChainCards(client))
            if posts is not None:
                messenger.dependencies.posts = ChainPosts(client, posts)
        if node is not None:
            from dtp.node.node import Node

            ways = ("lan", "dht") if bootstrap else ("lan",)
            made = Node(identity=messenger.identity, listen=node, discover=ways, bootstrap=bootstrap)
            messenger.dependencies.topics = GroupTopics(await stack.enter_async_context(made))
        yield await stack.enter_async_context(messenger)


async def deliver(
    messenger: Messenger, wait: float, besides: bytes = b"", *, message: Message | None = None
) -> bool:
    """Return whether mailboxes have all that is to be sent, or all of a message, within `wait` seconds. What is for
    the device `besides` isn't counted."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(wait):
            await messenger.wait_delivered(besides, message=message)
            return True
    # Somebody else's mailbox may be what is waited for.
    return message is not None and not await messenger.delivery.count_unsent(message=message.id)


async def tell_own_devices(messenger: Messenger) -> None:
    """Wait until mailboxes have what was said of a contact, for our other devices: not for long, and not if there are
    none."""
    if messenger.correspondence.own_devices:
        await deliver(messenger, WAIT)


async def collect(messenger: Messenger, wait: float) -> bool:
    """Return whether all is here that waits in the person's mailboxes, and on the chain, within `wait` seconds."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(wait):
            if messenger.tasks.posts.has_place:
                await messenger.tasks.posts.collect()
            if messenger.card.mailboxes or not messenger.tasks.posts.has_place:
                await messenger.wait_collected()
            return True
    return False


async def hear_first(messenger: Messenger) -> None:
    """Collect what waits in the person's mailboxes, within `HEAR` seconds, before something is said: a device that it
    would be sealed to may be revoked by now, and a member gone."""
    if messenger.card.mailboxes:
        with contextlib.suppress(TimeoutError, MailboxGone):
            async with asyncio.timeout(HEAR):
                await messenger.wait_collected()


async def look_people_up(messenger: Messenger, wait: float) -> None:
    """Look for newer cards where '--chain' and '--bootstrap' say, and wait for that `wait` seconds at most. Say so if
    that wasn't enough: what is found by then is printed among the warnings."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(wait):
            await messenger.tasks.lookup.wait_looked()
            return
    later = (
        "not everybody was looked up yet: who has another key may not be said; 'dtp message watch' goes on"
    )
    print_note({"looked_up": False}, later)


async def with_messenger(
    opened: AbstractAsyncContextManager[Messenger], work: Callable[[Messenger], Awaitable[Any]]
) -> Any:
    """Return what `work` does with a messenger that is begun for it."""
    async with with_warnings(opened) as messenger:
        return await work(messenger)


@asynccontextmanager
async def with_warnings(opened: AbstractAsyncContextManager[Messenger]) -> AsyncIterator[Messenger]:
    """Begin and end a messenger, and print what is wrong meanwhile, or has happened to people and devices."""
    async with opened as messenger:
        told: set[Notice] = set()
        telling = start_task(_tell_warnings(messenger, told), name="dtp-message-warnings")
        try:
            yield messenger
        finally:
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)
            for each in messenger.take_notices():
                _tell_warning(messenger, each, told)


async def _tell_warnings(messenger: Messenger, told: set[Notice]) -> None:
    async for notice in messenger.notices():
        _tell_warning(messenger, notice, told)


def _tell_warning(messenger: Messenger, notice: Notice, told: set[Notice]) -> None:
    if notice.what not in _WARNINGS or notice in told:  # it comes again with each connection
        return
    told.add(notice)
    contact = messenger.find_contact(notice.person)
    if notice.what in (What.CLOCK_DIFFERS, What.STAMPS_NOT_SOLD):
        record = {"event": notice.what.value, "mailbox": notice.detail}
    else:
        person = contact.card.person_name if contact else None
        record = {"event": notice.what.value, "person": person, "detail": notice.detail}
    who = contact_label(contact, messenger.contacts) if contact else "somebody"
    print_note(record, _WARNINGS[notice.what].format(name=escape_text(notice.detail), who=escape_text(who)))


async def reach(messenger: Messenger, wait: float) -> bool:
    """Return whether one of the person's mailboxes has this device's keys, within `wait` seconds."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(wait):
            await messenger.wait_reached()
            return True
    return False


async def reach_for_files(messenger: Messenger, wait: float) -> None:
    """Wait until one of the person's mailboxes is reached, where files wait for others. Raise `MailboxGone` if none
    is within `wait` seconds."""
    if not await reach(messenger, wait):
        raise MailboxGone(
            "no mailbox of yours answers, and files wait there for others: nothing is sent, try again later"
        )


async def publish_keys(messenger: Messenger) -> None:
    """Wait until one of the person's mailboxes has this device's keys, which others need; say so if none has."""
    if not await reach(messenger, WAIT):
        tried = list(messenger.card.mailboxes)
        said = (
            "no mailbox of your card has this device's keys, and until one does nobody can write to you: "
            + ", ".join(tried)
        )
        print_note({"reached": False, "mailboxes": tried}, escape_text(said))


def read_card_text(given: str) -> str:
    """Return the text of a card that is given as such, or as a file that has it."""
    if given.startswith(TEXT_PREFIX):
        return given
    try:
        return Path(given).read_text()
    except (OSError, UnicodeDecodeError) as fault:
        raise click.UsageError(f"{given!r} is neither a card nor a file that has one: {fault}") from None


def show_qr(content: str | bytes) -> None:
    """Print a QR code. Raise `MessageError` without the extra that makes one, and for more than fits into one."""
    try:
        import segno
    except ImportError:
        raise MessageError("QR codes need segno: pip install 'dtp-sockets[qr]'") from None
    try:
        made = segno.make(content, error="l")
    except segno.DataOverflowError:
        size = len(content)
        raise MessageError(
            f"{size} characters don't fit into a QR code: hand them over as a file (-o)"
        ) from None
    made.terminal(compact=True)
