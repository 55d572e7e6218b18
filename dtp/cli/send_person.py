"""`dtp send FILE --to PERSON`: straight to a device of theirs that waits for files, else through the mailbox."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from dtp.carriers.errors import DialError
from dtp.cli.messenger import WAIT, deliver, hear_first, reach_for_files
from dtp.cli.output import print_result
from dtp.identity import Identity, PeerId
from dtp.messaging.cards.contact_card import TEXT_PREFIX
from dtp.messaging.person.contacts import Contact
from dtp.messaging.person.messenger import Messenger
from dtp.net.dial import DialTimeout
from dtp.net.resolver import NotResolved
from dtp.session.codes import ConnectionRefused

#: Sends the file to a device that waits for files, as an identity; raises what connecting raises.
SendStraight = Callable[[PeerId, Identity], Awaitable[None]]


async def send_to_person(
    opened: AbstractAsyncContextManager[Messenger], file: Path, to: str, straight: SendStraight
) -> None:
    """Send a file to a person, and say which way it went. Raise `UnknownContact`, `ConsentNeeded`, `ContactBlocked`,
    and what goes wrong with the file.

    What was begun straight to a device isn't sent by the mailbox as well: the same command goes on there.
    """
    async with opened as messenger:
        is_card = to.startswith(TEXT_PREFIX)
        contact = await (messenger.add_contact(to) if is_card else messenger.find_person(to))
        await messenger.tasks.lookup.check_contact(contact.person)
        contact = messenger.correspondence.get_contact(contact.person)
        if await _send_straight(messenger, contact, straight):
            return
        await reach_for_files(messenger, WAIT)
        await hear_first(messenger)
        sent = await messenger.send(contact, "", attachments=[file])
        delivered = await deliver(messenger, WAIT, message=sent)
    record = {"event": "message", "name": file.name, "to": contact.name, "sent": delivered}
    where = (
        "it waits in the mailbox" if delivered else "no mailbox has taken it yet: the next command sends it"
    )
    print_result(record, f"{contact.name} isn't waiting for files now: {where}")


async def _send_straight(messenger: Messenger, contact: Contact, straight: SendStraight) -> bool:
    """Return whether a device of the person, on this network, has taken the file."""
    for device in contact.card.devices:
        try:
            await straight(PeerId(device), messenger.identity)
        except (NotResolved, DialError, DialTimeout, ConnectionRefused):
            continue
        return True
    return False
