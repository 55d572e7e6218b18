"""What works for a messenger beside its delivery, and what outside of it that works with."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from dtp.messaging.mailbox.pool import ConnectMailbox
from dtp.messaging.person.card_sources import CardSource
from dtp.messaging.person.delivery import Delivery
from dtp.messaging.person.groups.group_topics import GroupTopics, TopicSpreader
from dtp.messaging.person.lookup import LookUp
from dtp.messaging.person.notices import Notice
from dtp.messaging.person.postage import Postage, Stamping
from dtp.messaging.person.posts import ChainPosts, PostCollector
from dtp.messaging.person.rent import Rent, Renting


@dataclass(slots=True)
class MessengerDependencies:
    """What a messenger is given from outside. What isn't there yet is set before it is opened."""

    cards: tuple[CardSource, ...]
    connect: ConnectMailbox
    rent: Rent | None
    postage: Postage | None
    #: Where messages through the chain are taken from.
    posts: ChainPosts | None
    #: By what messages of large groups are spread.
    topics: GroupTopics | None

    def add_source(self, source: CardSource) -> None:
        """Look people up there as well."""
        self.cards = (*self.cards, source)


class MessengerTasks:
    """What looks for cards, pays for room and stamps, takes posts, and spreads messages of large groups."""

    def __init__(
        self, given: MessengerDependencies, delivery: Delivery, on_notices: Callable[[Iterable[Notice]], None]
    ) -> None:
        """Raise `MessageError` for topics on a node of another identity."""
        self.lookup = LookUp(given.cards, delivery.correspondence, delivery, on_notices)
        self.renting = Renting(given.rent, delivery, on_notices)
        self.stamping = Stamping(given.postage, delivery, on_notices)
        self.posts = PostCollector(given.posts, delivery, self.lookup, on_notices)
        self.spreader = TopicSpreader(given.topics, delivery, on_notices)

    def start(self) -> None:
        """Begin to work."""
        self.lookup.start()
        self.posts.start()
        self.spreader.start()

    async def stop(self) -> None:
        """Stop."""
        await self.spreader.stop()
        await self.posts.stop()
        await self.lookup.stop()
        await self.stamping.stop()
