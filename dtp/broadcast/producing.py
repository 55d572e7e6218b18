"""`dtp.Broadcast`: a producer's end of a show."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final

from dtp.broadcast.by_topic import TopicSender, validate_feed
from dtp.broadcast.errors import BroadcastError, ShowBusy
from dtp.broadcast.feeding import FAN_OUT, Feeder
from dtp.broadcast.format import Announcement, Flag, Position, Segment, SegmentSigner
from dtp.broadcast.format.announcement import SHOW_SIZE
from dtp.broadcast.held import HELD, HeldSegments
from dtp.broadcast.kept_position import KeptPosition
from dtp.broadcast.places import SERVICE, Place, ShowNode, ShowPlace, addresses_of, is_heard_at
from dtp.broadcast.sealed.admission import KeyAdmission
from dtp.broadcast.sealed.issuing import ROTATE, KeyIssuer
from dtp.broadcast.sealed.keys import seal_segment
from dtp.broadcast.tree.measuring import measure_from
from dtp.errors import ConfigError
from dtp.identity import Identity, PeerId
from dtp.node.node import Node
from dtp.tasks import SupervisedTask

if TYPE_CHECKING:
    from dtp.broadcast.money.air import Air, Hysteresis
    from dtp.broadcast.money.keeping import ShowKeeper
    from dtp.chain import ChainClient
    from dtp.chain.node.networks import Network
    from dtp.gossip.engines.bridge import Engine
    from dtp.pay.wallets import Wallet

log = logging.getLogger("dtp.broadcast")

#: Seconds that a producer or a relay stays for listeners that don't have the end of a show yet.
DRAIN: Final = 10.0


def _now_ms() -> int:
    return int(time.time() * 1000)


class Broadcast:
    """A show on air: what is written is signed, chained and sent to whoever listens. `async with` opens it."""

    def __init__(
        self,
        show: bytes | str | None = None,
        *,
        identity: Identity | None = None,
        place: ShowPlace | None = None,
        service: str = SERVICE,
        media: str = "",
        title: str = "",
        fan_out: int = FAN_OUT,
        relays: Collection[PeerId] = (),
        store: str | os.PathLike[str] | None = None,
        limit: int = HELD,
        wallet: ChainClient | Wallet | None = None,
        network: str | Network | None = None,
        hysteresis: Hysteresis | None = None,
        clock_ms: Callable[[], int] = _now_ms,
        admission: KeyAdmission | None = None,
        rotate: float = ROTATE,
        topic: str | None = None,
        over: Engine | None = None,
        links: Node | None = None,
    ) -> None:
        """`show` is the id of the show's object on the chain; without it the show is a new one that is free.

        `identity` signs the segments. `store` is a folder, made where it isn't there, for how far the show is: one
        that goes on after a restart needs it, or there would be two chains. `fan_out` is how many listen here
        directly: others are sent on to those; `relays` are those of them that always have a place. `limit` is how
        much is held for who comes late, bytes.
        `wallet` is the producer's account, on `network` (without it the one that is set), or a client of the chain
        with it: money drives the air then, by `states`, and slots are posted; `hysteresis` keeps it from flapping. A
        wallet that is an identity signs the segments, too.
        With an `admission` the show is sealed, and it says who gets keys (`Guests`, `TicketHolders`, `PassHolders`);
        there is a new key every `rotate` seconds.
        With a `topic` each segment is a message of that topic, too: for small feeds without init data. It is carried
        `over` a broker as well, such as `NatsEngine("nats://127.0.0.1:4222", last=3600)`.
        `links` is the node whose topic that is, by default the show's own; it has to be of the same identity.
        Raise `LocalError` for more relays than `fan_out`, `BroadcastError`, `ShowBusy` where another process has the
        show in that store, and `ConfigError` for one that can't be made or read.
        """
        self.identity = identity or (wallet if isinstance(wallet, Identity) else Identity.generate())
        self._clock_ms = clock_ms
        self._service = service
        id = os.urandom(SHOW_SIZE) if show is None else parse_show(show)
        if wallet is not None and show is None:
            raise BroadcastError(
                "a wallet is for a show on the chain: give its id, which 'dtp show create' prints"
            )
        self._store = None if store is None else KeptPosition(store, id)
        with contextlib.ExitStack() as on_fault:
            on_fault.callback(self._close_store)
            announcement, position = self._load_position(id, media, title, sealed=admission is not None)
            on_fault.pop_all()
        self.signer = SegmentSigner(self.identity, announcement, position)
        self.held = HeldSegments(announcement, limit=limit)
        self.held.edge = position.number - 1
        #: Makes keys; None for a show that is open.
        self.issuer: KeyIssuer | None = None
        if admission is not None:
            self.issuer = KeyIssuer(announcement.stream, admission, epoch=position.epoch)
        ask_keys = None if self.issuer is None else self.issuer.issue_keys
        measure = measure_from(place, announcement)
        self.feeder = Feeder(
            self.held, self.identity.id, fan_out=fan_out, ask_keys=ask_keys, measure=measure, relays=relays
        )
        self.node: ShowNode = (place or Place()).node(self.identity, {service: self.feeder.serve_connection})
        self._topic, self._over = topic, over
        if over is not None and topic is None:
            raise BroadcastError("a broker carries a topic: give topic")
        self._links = links or (self.node if isinstance(self.node, Node) else None)
        if topic is not None and self._links is None:
            raise BroadcastError("a topic takes a node: leave out place, give a Place, or links")
        self._sender: TopicSender | None = None
        self._rotate = rotate
        self._rotating = SupervisedTask(self._make_keys, name="dtp-show-keys")
        self._writing = asyncio.Lock()
        self._init = b""
        #: Is told each segment that was sent, and its bytes as they were signed: keys, too.
        self.on_sent: Callable[[Segment, bytes], object] = lambda *_: None
        self._stack = AsyncExitStack()
        self._wallet, self._network, self._hysteresis = wallet, network, hysteresis
        #: Follows the show on the chain; None for one that has none.
        self.keeper: ShowKeeper | None = None

    def _close_store(self) -> None:
        if self._store is not None:
            self._store.close()

    def _load_position(
        self, show: bytes, media: str, title: str, *, sealed: bool
    ) -> tuple[Announcement, Position]:
        kept = None if self._store is None else self._store.load()
        if kept is not None:
            if kept[0].sealed != sealed:
                kind = "sealed" if kept[0].sealed else "open"
                raise BroadcastError(f"the show was {kind} before, and stays so: begin a new one")
            if (media or kept[0].media, title or kept[0].title) != (kept[0].media, kept[0].title):
                log.warning(
                    "the show goes on as it began, with the title %r and the media type %r: begin a new one for "
                    "others",
                    kept[0].title,
                    kept[0].media,
                )
            return kept
        made = Announcement.sign(
            self.identity, show, time_ms=self._clock_ms(), media=media, title=title, sealed=sealed
        )
        return made, Position()

    async def __aenter__(self) -> Broadcast:
        async with AsyncExitStack() as stack:
            stack.callback(self._close_store)
            await stack.enter_async_context(self.node)
            if self._topic is not None and self._links is not None:
                await self._join_topic(self._topic, self._links, stack)
            if self._wallet is not None:
                await self._open_keeper(await self._open_chain(self._wallet, stack), stack)
            if self.issuer is not None:
                await self.issuer.rotate_key()
                self._rotating.start()
                stack.push_async_callback(self._rotating.stop)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _join_topic(self, name: str, node: Node, stack: AsyncExitStack) -> None:
        topic = await stack.enter_async_context(
            node.topic(name, overflow="drop-oldest", validator=validate_feed)
        )
        if self._over is not None:
            bridge = await node.gossip.attach(self._over, plain=True, only=name)
            stack.push_async_callback(node.gossip.detach, bridge)
            await bridge.wait_carried()  # else the show's beginning would go to nobody
        sender = self._sender = TopicSender(topic, self.announcement)
        telling = SupervisedTask(sender.announce_repeatedly, name="dtp-show-topic")
        telling.start()
        stack.push_async_callback(telling.stop)

    async def _open_chain(self, wallet: ChainClient | Wallet, stack: AsyncExitStack) -> ChainClient:
        """Return the client that a wallet is, or one for its account until `stack` ends."""
        from dtp.chain import ChainClient
        from dtp.pay.wallets import signer_of

        if isinstance(wallet, ChainClient):
            return wallet
        return await stack.enter_async_context(ChainClient(self._network, signer_of(wallet)))

    async def _open_keeper(self, wallet: ChainClient, stack: AsyncExitStack) -> None:
        from dtp.broadcast.money.air import Slots
        from dtp.broadcast.money.keeping import ShowKeeper

        id = "0x" + self.announcement.show.hex()
        store = self._store
        wanted = (lambda: False) if store is None else (lambda: store.end_wanted)
        last = self.signer.position
        sent = Slots(last.slot, last.link)
        keeper = await ShowKeeper.open(wallet, id, self._clock_ms, self._hysteresis, wanted, sent)
        if keeper.show.key != self.identity.id.key:
            raise BroadcastError(
                f"the segments of {id} are signed by another identity than {self.identity.id}"
            )
        where = keeper.show.hint.decode(errors="replace")
        if where and where not in self.addresses and await is_heard_at(where):
            raise ShowBusy(f"another process broadcasts the show, at {where}: end that one first")
        await keeper.say_where(next(iter(self.addresses), ""))
        self.keeper = await stack.enter_async_context(keeper)

    async def states(self) -> AsyncIterator[Air]:
        """Give how the show stands, now and at each change, up to the end. A free show is on air until `end`."""
        if self.keeper is not None:
            async for each in self.keeper.states():
                yield each
            return
        from dtp.broadcast.money.air import Air

        yield Air.ON_AIR
        while not self.held.ended:
            await self.held.wait_change()
        yield Air.ENDED

    @property
    def next_slot(self) -> int:
        """What the next slot will bring, in the coin's smallest unit; 0 for a free show, and while it is off air."""
        return 0 if self.keeper is None else self.keeper.show.next_slot

    @property
    def announcement(self) -> Announcement:
        """What the show says of itself."""
        return self.signer.announcement

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where it is listened to."""
        return addresses_of(self.node, self._service)

    @property
    def listeners(self) -> int:
        """How many listen here directly."""
        return self.feeder.listeners

    async def write(self, data: bytes, *, duration_ms: int = 0, flags: Flag = Flag.START) -> Segment:
        """Sign a segment and send it; return its head.

        Raise `BroadcastError` for one that is too large, `OffAir` while nobody pays, and `ConfigError` where the
        store can't be written, such as on a full disk: nothing was sent then, and the next one may be.

        `flags` say whether a decoder can begin with it (`Flag.START`), or has it before all else (`Flag.INIT`).
        """
        async with self._writing:
            if self._sender is not None:
                self._sender.check_data(data, flags)
            if self.keeper is not None and Flag.LAST not in flags:
                self.keeper.check_on_air()
            self._begin_epoch(flags)
            if Flag.INIT in flags:
                self._init = data
            made = self._send_segment(data, duration_ms, flags)
            if self._sender is not None:
                await self._sender.publish_waiting()
            return made

    async def rotate_key(self) -> None:
        """Make the next key of a sealed show, for those who may listen now; the next segment is sealed with it."""
        if self.issuer is None:
            raise BroadcastError("the show is open, and has no keys")
        await self.issuer.rotate_key()

    async def _make_keys(self) -> None:
        while True:
            await asyncio.sleep(self._rotate)
            await self.rotate_key()

    def _begin_epoch(self, flags: Flag) -> None:
        """Send the next key if there is one, and init data again, for listeners that come from now on."""
        made = None if self.issuer is None else self.issuer.begin_epoch()
        if made is not None:
            self._send_segment(made.body, 0, Flag.KEYS)
            if self._init and Flag.INIT not in flags:
                self._send_segment(self._init, 0, Flag.INIT)

    def _send_segment(self, data: bytes, duration_ms: int, flags: Flag) -> Segment:
        """Sign and send a segment now; in a sealed show all but keys is sealed."""
        epoch, key = (0, b"") if self.issuer is None else self.issuer.current
        if key and Flag.KEYS not in flags:
            data = seal_segment(key, self.announcement.stream, self.signer.position.number, data)
        before = self.signer.position
        made = self.signer.sign(
            data,
            time_ms=self._clock_ms(),
            duration_ms=duration_ms,
            slot=0 if self.keeper is None or Flag.LAST in flags else self.keeper.slot,
            epoch=epoch,
            flags=flags,
        )
        try:
            self._save_position()
        except ConfigError:  # nobody has seen the segment: else all would wait for it
            self.signer.position = before
            raise
        self.held.add_own(made, data)
        if self.keeper is not None:
            self.keeper.slots.note_sent(made.slot, made.link)
        if self._sender is not None:
            self._sender.add_segment(made, data)
        self.on_sent(made, data)
        return made

    def open_segment(self, segment: Segment, data: bytes) -> bytes:
        """Return what a segment that is held has for a listener. Raise `ShowSealed` where its key is kept no more."""
        return data if self.issuer is None else self.issuer.open_segment(segment, data)

    async def end(self) -> Segment:
        """End the show: whoever listens knows that no more comes."""
        return await self.write(b"", flags=Flag.LAST)

    async def wait_drained(self, patience: float = DRAIN) -> None:
        """Wait until those who listen here have all of a show that has ended, `patience` seconds at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self.feeder.wait_drained()

    def _save_position(self) -> None:
        """Keep where the chain stands before anybody sees the segment."""
        if self._store is not None:
            self._store.save(self.announcement, self.signer.position)


def parse_show(show: bytes | str) -> bytes:
    """Return a show's id as bytes. Raise `BroadcastError` for a text that is no id."""
    try:
        id = (
            bytes.fromhex(show.removeprefix("0x").rjust(2 * SHOW_SIZE, "0"))
            if isinstance(show, str)
            else show
        )
    except ValueError:
        id = b""
    if len(id) != SHOW_SIZE:
        raise BroadcastError(f"{show!r} is not an id of a show: 0x and {2 * SHOW_SIZE} hex digits")
    return id
