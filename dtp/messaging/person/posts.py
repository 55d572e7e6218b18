"""Posts: messages through the chain, to a host whose endpoint is this device. They arrive in the same inbox as all
others.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from dtp.chain import host as hosts
from dtp.chain.errors import HistoryPruned, PackageNotPublished
from dtp.chain.events import Cursor
from dtp.chain.host import HostCap
from dtp.chain.model import canonical_id
from dtp.errors import DtpError
from dtp.messaging.conversation.events import ID_BYTES, MAX_TEXT_BYTES
from dtp.messaging.errors import NoPostPlace, UnknownContact
from dtp.messaging.person.card_sources import CardEnded
from dtp.messaging.person.delivery import Delivery, now_ms
from dtp.messaging.person.lookup import LookUp
from dtp.messaging.person.notices import Notice, What
from dtp.messaging.person.post_tray import PostTaken
from dtp.tasks import SupervisedTask

if TYPE_CHECKING:
    from dtp.chain import ChainClient
    from dtp.chain.host import Endpoint
    from dtp.chain.pipes.posts import PostReader, ReceivedPost
    from dtp.identity import Identity

log = logging.getLogger("dtp.messaging")

#: The service of a person's host that receives messages.
POST_SERVICE: Final = "messages"
#: Seconds between two reads of the chain.
_EVERY: Final = 30.0


class ChainPosts:
    """The source of posts: those to a host on the chain that are sealed to this device."""

    def __init__(self, chain: ChainClient, host: str) -> None:
        """`host` is a host object. One of its endpoints is this device, and has published its static key."""
        self.chain, self.host = chain, host
        self._directory = ""

    async def place_name(self) -> str:
        """Return the name under which the cursor for this source is kept: the network and the host."""
        if not self.chain.chain_id:
            await self.chain.connect()
        return f"posts {self.chain.chain_id} {canonical_id(self.host)}"

    def make_reader(self, identity: Identity, cursor: Cursor | None) -> PostReader:
        """Return a reader of the posts to this device that come after a cursor."""
        from dtp.chain.pipes.posts import PostReader

        return PostReader(self.chain, self.host, identity, cursor=cursor)

    async def find_owner(self, wallet: str) -> bytes | None:
        """Return the account whose card links a wallet, 32 bytes, or None. Raise the errors of the chain."""
        from dtp.chain.card import find_card_of_wallet, find_directory

        try:
            self._directory = self._directory or await find_directory(self.chain)
        except PackageNotPublished:  # nobody has a card here
            return None
        card = await find_card_of_wallet(self.chain, self._directory, wallet)
        return None if card is None or card.revoked else card.account


@dataclass(frozen=True, slots=True)
class PostPlace:
    """The place where an account receives messages: a host with the service `POST_SERVICE`, and the keys (X25519)
    of the account's devices that serve it, to which messages are sealed.
    """

    host: str
    recipients: tuple[bytes, ...]


async def find_post_place(
    chain: ChainClient, account: bytes, clock_ms: Callable[[], int] = now_ms
) -> PostPlace:
    """Return the place for messages to an account (32 bytes) through the chain. Its card there links the wallet
    that owns the host, and names the devices that serve it.

    Raise `UnknownContact` for an account without a card, `CardEnded`, `NoPostPlace`, and the errors of the chain.
    """
    from dtp.chain.card import CardContents, find_card, find_directory
    from dtp.chain.host_state import ServiceClosed, ServiceMissing, read_host

    card = await find_card(chain, await find_directory(chain), account)
    if card is None:
        raise UnknownContact("no account of this name has a card on the chain")
    if card.revoked:
        raise CardEnded("this account was ended on the chain")
    says = card.contents if card.is_current(clock_ms()) else CardContents()
    devices = {each.key for each in says.devices}
    for wallet in card.wallets:
        for cap in await chain.owned(hosts.SCHEMA, HostCap, wallet):
            state = await read_host(chain, cap.host)
            try:
                state.open_service(POST_SERVICE)
            except (ServiceMissing, ServiceClosed):
                continue
            if keys := _keys_of(state.beacon.endpoints, devices):
                return PostPlace(state.host.id, keys)
    raise NoPostPlace(
        f"no wallet of this account has a host with a service {POST_SERVICE!r} and the sealed key of a device that "
        "its card names: it takes no messages through the chain"
    )


def _keys_of(endpoints: Iterable[Endpoint], devices: set[bytes]) -> tuple[bytes, ...]:
    from dtp.chain.pipes.posts import post_key

    found = (post_key(each) for each in endpoints if each.key in devices)
    return tuple(each for each in found if each is not None)


class PostCollector:
    """Brings posts into a messenger's inbox, each once. `start` and `stop` it; `collect` reads the chain now.

    Posts of known people are always kept. Those of strangers fill a tray. While it is full they are passed over,
    and reading later begins again at the first of them.
    """

    def __init__(
        self,
        posts: ChainPosts | None,
        delivery: Delivery,
        lookup: LookUp,
        on_notices: Callable[[Iterable[Notice]], None],
    ) -> None:
        self._posts, self._mail, self._delivery, self._lookup = (
            posts,
            delivery.correspondence,
            delivery,
            lookup,
        )
        self._on_notices = on_notices
        self._one_at_a_time = asyncio.Lock()
        self._task = SupervisedTask(self._keep_collecting, name="dtp-messages-posts")

    @property
    def has_place(self) -> bool:
        """True if there is a source of posts."""
        return self._posts is not None

    def start(self) -> None:
        """Begin to read posts regularly, if there is a source."""
        if self._posts is not None:
            self._task.start()

    async def stop(self) -> None:
        """Stop reading posts."""
        await self._task.stop()

    async def _keep_collecting(self) -> None:
        while True:
            try:
                await self.collect()
            except (DtpError, TimeoutError) as fault:
                log.info("posts can't be read now: %s", fault)
            await asyncio.sleep(_EVERY)

    async def collect(self) -> int:
        """Read the posts since the last time, and return how many are new. Raise the errors of the chain."""
        if self._posts is None:
            return 0
        async with self._one_at_a_time:
            return await self._collect_posts(self._posts)

    async def _collect_posts(self, posts: ChainPosts) -> int:
        place = await posts.place_name()
        known = await self._delivery.run_in_thread(self._mail.post_tray.load_cursor, place)
        cursor = Cursor.from_text(known) if known else None
        try:
            new, cursor = await self._read_posts(posts, cursor)
        except HistoryPruned:
            if cursor is None:
                raise
            log.warning("the node has pruned posts: those that it still has are read again")
            new, cursor = await self._read_posts(posts, None)
        if cursor is not None:
            await self._delivery.run_in_thread(self._mail.post_tray.put_cursor, place, cursor.to_text())
        return new

    async def _read_posts(self, posts: ChainPosts, cursor: Cursor | None) -> tuple[int, Cursor | None]:
        """Return how many posts were new, and the cursor to continue from: that of the first post for which the
        tray had no room.
        """
        reader, new, full = posts.make_reader(self._mail.identity, cursor), 0, False
        resume: Cursor | None = None
        async with aclosing(reader.read()) as found:
            async for each in found:
                taken = await self._process_post(posts, each)
                new += taken is PostTaken.NEW
                if taken is PostTaken.FULL and not full:
                    full, resume = True, reader.cursor
        if full:
            self._on_notices([Notice(What.POSTS_WAIT)])
        return new, resume if full else reader.cursor

    async def _process_post(self, posts: ChainPosts, post: ReceivedPost) -> PostTaken:
        wallet = bytes.fromhex(post.sender.removeprefix("0x"))
        sender = await posts.find_owner(post.sender) or wallet
        found = None
        if sender != wallet and self._mail.contacts.get_contact(sender) is None:
            found = await self._lookup.find_card(sender)
        mark = hashlib.blake2b(post.transaction.encode(), digest_size=ID_BYTES, person=b"dtp.post").digest()
        text = post.data.decode(errors="replace").encode()[:MAX_TEXT_BYTES].decode(errors="ignore")
        told = {"text": text, "wallet": wallet, "transaction": post.transaction}
        tray = self._mail.post_tray
        taken, notices = await self._delivery.run_in_thread(
            tray.process_post, sender, mark, told, now_ms(), found=found
        )
        self._on_notices(notices)
        return taken
