"""Sources for the cards of people who haven't handed one over: the DHT, and the chain.

A source returns a card that the person's key has signed, or None; the caller decides which of several is the newest.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, Final, NamedTuple

from dtp.carriers.nearness import Nearness, dialled_as_told
from dtp.chain.node.networks import nearness_of_chain
from dtp.errors import DtpError, PeerError
from dtp.identity import PeerId, PeerIdError
from dtp.messaging.cards import ContactCard, ContactCardError
from dtp.messaging.errors import MessageError
from dtp.messaging.mailbox.pool import ConnectMailbox, connect_plainly

if TYPE_CHECKING:
    from dtp.chain import ChainClient
    from dtp.chain.card import PublishedCard
    from dtp.peers.dht import Dht

log = logging.getLogger("dtp.messaging")

#: The name of a device's record in the DHT, which holds its person's card.
DHT_NAME: Final = "dtp.card"


class CardRolledBack(PeerError):
    """A card is older than the chain's entry for its account: whoever gave it withholds the newer one."""

    code: ClassVar[str] = "card-rolled-back"


class CardEnded(PeerError):
    """An account was ended on the chain, for good: its cards count no more."""

    code: ClassVar[str] = "card-ended"


class FoundCard(NamedTuple):
    """A card from a source, and how near the source is at the farthest."""

    card: ContactCard
    teller: Nearness


class CardSource:
    """Finds people's cards, and publishes ours. The base class does neither; subclasses say what they do.

    Each method raises `DtpError` if the source can't be asked.
    """

    @property
    def teller(self) -> Nearness:
        """How near those who gave the cards are, at the farthest. Mailboxes that a card names aren't dialled if they
        are nearer than that."""
        return Nearness.ANYWHERE

    async def find_card(self, person: bytes) -> ContactCard | None:
        """Return the newest card of a person that can be found and that the person has signed, or None."""
        return None

    async def check_card(self, card: ContactCard) -> None:
        """Raise `CardRolledBack` or `CardEnded` if this source knows that the card counts no more."""

    async def publish_card(self, card: ContactCard) -> None:
        """Publish the public part of our card, so that others find it."""


class DhtCards(CardSource):
    """Cards in the DHT (`dtp.Node.dht`), whose identity is this device's.

    Each device publishes its person's card under its own name. An account's name isn't a key: its devices are found
    as providers of `account_content`. Cards are signed by the person, but the DHT can't prove that there is no newer
    one.
    """

    def __init__(self, dht: Dht) -> None:
        self._dht = dht

    @property
    def teller(self) -> Nearness:
        """As far as the farthest node of the DHT that was met."""
        return self._dht.farthest

    async def find_card(self, person: bytes) -> ContactCard | None:
        """Return the newest card of a person that their devices have published."""
        found = [await self._of_device(person, person)]
        for record in await self._dht.providers(account_content(person)):
            found.append(await self._of_device(record.peer.key, person))
        cards = [each for each in found if each is not None]
        return max(cards, key=lambda each: each.order) if cards else None

    async def _of_device(self, device: bytes, person: bytes) -> ContactCard | None:
        try:
            record = await self._dht.get(PeerId(device), DHT_NAME)
            card = None if record is None else ContactCard.parse(record.value)
        except (PeerIdError, ContactCardError):
            return None
        return card if card is not None and card.person == person and device in card.devices else None

    async def publish_card(self, card: ContactCard) -> None:
        """Publish the card, and republish it while the node runs."""
        from dtp.peers.dht.errors import DhtSuperseded
        from dtp.peers.dht.records import MAX_VALUE

        value = card.public().encode()
        if len(value) > MAX_VALUE:
            raise MessageError(
                f"the card has {len(value)} bytes, and the DHT takes {MAX_VALUE}: name fewer mailboxes"
            )
        try:
            await self._dht.put(value, name=DHT_NAME, sequence=card.sequence)
        except DhtSuperseded:  # another program of this device has published a newer one
            return
        if card.account is not None:
            await self._dht.provide(account_content(card.person))


class ChainCards(CardSource):
    """Accounts' cards by the chain, which has one history for everybody: a replaced key is noticed, and a card from
    before it is refused.

    The chain says which key, devices and mailboxes an account has; the card itself is requested from these mailboxes.
    """

    def __init__(
        self,
        chain: ChainClient,
        connect: ConnectMailbox = connect_plainly,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._chain = chain
        self._connect, self._clock = connect, clock
        self._directory = ""

    @property
    def teller(self) -> Nearness:
        """`ANYWHERE`, unless the chain is a private one."""
        return nearness_of_chain(self._chain)

    async def _find_published(self, account: bytes) -> PublishedCard | None:
        from dtp.chain.card import find_card, find_directory

        if not self._directory:
            self._directory = await find_directory(self._chain)
        return await find_card(self._chain, self._directory, account)

    async def find_card(self, person: bytes) -> ContactCard | None:
        """Return the newest card that an account's mailboxes have and that the chain doesn't contradict."""
        published = await self._find_published(person)
        if published is None or not published.is_current(int(self._clock() * 1000)):
            return None
        found = []
        for mailbox in published.contents.mailboxes:
            try:
                found += await self._ask_mailbox(mailbox.decode(), published)
            except (DtpError, TimeoutError, UnicodeDecodeError) as fault:  # the next one may have it
                log.info("a mailbox of %s: %s", person.hex()[:8], fault)
        return max(found, key=lambda each: each.order) if found else None

    async def _ask_mailbox(self, mailbox: str, published: PublishedCard) -> list[ContactCard]:
        with dialled_as_told(self.teller):
            client = await self._connect(mailbox, None)
        found = []
        try:
            for device in published.contents.devices:
                card = await client.get_card(device.key)
                if card.person == published.account:
                    _compare(card, published)
                    found.append(card)
        finally:
            await client.close()
        return found

    async def check_card(self, card: ContactCard) -> None:
        """Raise `CardRolledBack` for a card signed by a key that the account doesn't have any more, and
        `CardEnded`."""
        if card.account is not None and (published := await self._find_published(card.person)) is not None:
            _compare(card, published)


def _compare(card: ContactCard, published: PublishedCard) -> None:
    if published.revoked:
        raise CardEnded(f"{card.person_name} was ended on the chain")
    if card.account is None or (card.account.generation, card.key) < (published.generation, b""):
        raise CardRolledBack(f"a card of {card.person_name} is by a key that the account has replaced since")
    if card.account.generation == published.generation and card.key != published.key:
        raise CardRolledBack(
            f"a card of {card.person_name} is by another key than the account has on the chain"
        )


def account_content(account: bytes) -> bytes:
    """Return the content key, 32 bytes, that an account's devices provide in the DHT."""
    return hashlib.blake2b(account, digest_size=32, person=b"dtp.card").digest()
