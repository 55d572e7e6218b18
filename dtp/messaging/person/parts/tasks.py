"""The tasks that work for a messenger beside its delivery, and what they depend on."""

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
    """What a messenger is given from outside. What is missing may be set until it is opened."""

    cards: tuple[CardSource, ...]
    connect: ConnectMailbox
    rent: Rent | None
    postage: Postage | None
    #: The source of messages through the chain.
    posts: ChainPosts | None
    #: The topics through which messages of large groups are spread.
    topics: GroupTopics | None

    def add_source(self, source: CardSource) -> None:
        """Add a source in which people's cards are looked up."""
        self.cards = (*self.cards, source)


class MessengerTasks:
    """The tasks that look up cards, pay for room and stamps, collect posts, and spread messages of large groups."""

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
        """Start the tasks."""
        self.lookup.start()
        self.posts.start()
        self.spreader.start()

    async def stop(self) -> None:
        """Stop the tasks."""
        await self.spreader.stop()
        await self.posts.stop()
        await self.lookup.stop()
        await self.stamping.stop()
