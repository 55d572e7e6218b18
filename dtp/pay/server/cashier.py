"""Claiming in the background: the vouchers in the store, the policy of `claims`, the transactions of `settling`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from typing import Final, TypeAlias, cast

from dtp.chain import Executed
from dtp.chain import channel as channel_module
from dtp.chain import pipe as pipe_module
from dtp.chain.channel import Channel, ChannelState
from dtp.chain.errors import (
    MalformedObject,
    NodeRefused,
    PackageNotPublished,
    StaleObject,
    TransactionFailed,
    WrongObjectType,
)
from dtp.chain.host import Bearer
from dtp.chain.model import SUI_COIN, canonical_type, format_amount
from dtp.chain.node.client import ChainClient
from dtp.chain.pipe import Pipe
from dtp.chain.wallet import money
from dtp.errors import DtpError
from dtp.pay.claims import Action, Decision, Policy, View, at_close, lapsed, plan, rests
from dtp.pay.costs import accrued, take_credits
from dtp.pay.server.known_channels import DoubtedEnds, KnownChannels
from dtp.pay.settling import OnFailed, Settlement, log_failed, settle
from dtp.pay.spent import noted, settle_spent
from dtp.pay.store.holding import VoucherStore
from dtp.pay.store.journal import Journal
from dtp.pay.store.rows import End, Sold
from dtp.pay.store.sold import SoldStore
from dtp.pay.terms import Usage
from dtp.plurals import count_of
from dtp.tasks import SupervisedTask

log = logging.getLogger("dtp.pay")

#: Looks in the time that a channel leaves for claims, and seconds between two of them at least.
_LOOKS: Final = 8
_LEAST_PAUSE: Final = 1.0
#: So many transactions are remembered: a server runs for years.
_DONE: Final = 1_000

#: Carries out decisions, as `settle` does.
Settle: TypeAlias = Callable[..., Awaitable[list[tuple[Settlement, list[Decision]]]]]
#: Collects what is owed for transport, as `take_credits` does.
TakeCredits: TypeAlias = Callable[[ChainClient, Channel, float], Awaitable[tuple[int, Executed] | None]]


class Cashier:
    """Claims what is worth it, when it is. For one event loop.

    `now_ms` is the chain's time, `own_ms` that here, from whenever; `busy` gives the channels that are in use: a
    close of them may be agreed on at any moment, with the credits in its total. `on_channel` hears of each that was
    read, `on_claimed` of what was claimed, `on_failed` at each look of each channel with which something could not
    be done, which is logged otherwise. `settle` and `take_credits` carry out what was decided, on the chain.
    """

    def __init__(
        self,
        chain: ChainClient,
        journal: Journal[VoucherStore],
        now_ms: Callable[[], int],
        *,
        policy: Policy | None = None,
        busy: Callable[[], Collection[str]] = tuple,
        on_channel: Callable[[Channel], None] | None = None,
        on_failed: OnFailed | None = None,
        on_claimed: Callable[[Collection[Settlement]], Awaitable[None]] | None = None,
        own_ms: Callable[[], int] = lambda: round(time.monotonic() * 1000),
        settle: Settle = settle,
        take_credits: TakeCredits = take_credits,
    ) -> None:
        self._own_ms = own_ms
        self._settle = settle
        self._collect = take_credits
        self._doubted = DoubtedEnds()
        self._on_claimed = on_claimed
        self._chain = chain
        self._on_failed = on_failed or log_failed
        #: The store; another one may take its place between two looks.
        self.journal = journal
        self._now_ms = now_ms
        #: What is worth a claim.
        self.policy = policy or Policy()
        self._busy = busy
        self._on_channel = on_channel
        self._task: SupervisedTask | None = None
        self._working = asyncio.Lock()
        #: The shortest time for claims after a close was asked for, of all channels that were seen, ms.
        self._claim_ms = float("inf")
        self._wanted = asyncio.Event()
        #: Channels to claim of at the next look, whatever it is worth beside its gas.
        self._soon: set[str] = set()
        #: What is remembered of the channels of the store.
        self.known = KnownChannels()
        #: What was done last, and what came to servers since the start, by coin.
        self.done: deque[Settlement] = deque(maxlen=_DONE)
        self.claimed: Counter[str] = Counter({SUI_COIN: 0})
        #: What claims took, MIST.
        self.gas = 0

    def start(self, interval: float) -> None:
        """Look each `interval` seconds, beginning now: a run before may have left vouchers.

        More often where channels leave less time for claims than that.
        """
        self._task = SupervisedTask(lambda: self._keep_claiming(interval), name="dtp-cashier")
        self._task.start()

    async def _keep_claiming(self, interval: float) -> None:
        while True:
            self._wanted.clear()
            try:
                await self.poll()
            except DtpError as error:  # the store may be away as well as the chain, or a row in it broken
                log.warning("nothing was claimed: %s", error)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.pause_between_polls(interval)):
                    await self._wanted.wait()

    def pause_between_polls(self, interval: float) -> float:
        """Return the seconds between two looks: several fall into the time that any channel leaves for claims."""
        return min(interval, max(_LEAST_PAUSE, self._claim_ms / 1000 / _LOOKS))

    def watch_close(self, channel: Channel) -> None:
        """Look in time at a channel, in use or not, whose client has asked for the close."""
        sooner = channel.terms.claim_ms < self._claim_ms
        self._claim_ms = min(self._claim_ms, channel.terms.claim_ms)
        if sooner or channel.state == ChannelState.CLOSING:
            self._wanted.set()

    def claim_soon(self, channel: str) -> None:
        """Look at once, and claim what is worth its gas of a channel: it is served no further before."""
        self._soon.add(channel)
        self._wanted.set()

    async def stop(self, *, claim: bool) -> None:
        """End; with `claim` after claiming what is worth its gas."""
        if self._task is not None:
            await self._task.stop()
            self._task = None
        if claim:
            try:
                await self.poll(closing=True)
            except DtpError as error:
                log.warning("not everything was claimed; the next run does: %s", error)

    async def poll(self, *, closing: bool = False) -> list[Settlement]:
        """Do what is to be done now; return what was done. Raises `ChainError`, `StoreError`.

        Nothing where another claims out of the same store: what comes second costs gas and brings nothing.
        """
        async with self._working:
            if not await self.journal.run(lambda store: store.is_claimer()):
                return []
            await self._settle_spent()
            views = await self.channel_views()
            now_ms, epoch = self._now_ms(), (await self._chain.epoch()).epoch if views else 0
            decisions = plan(views, now_ms, epoch, self.policy)
            soon, self._soon = self._soon, set()
            planned = {each.view.channel.id for each in decisions}
            rest = [view for view in views if view.channel.id not in planned]
            now = rest if closing else [view for view in rest if view.channel.id in soon]
            decisions += [at_close(view, now_ms, self.policy) for view in now]
            await self._forget_channels(
                [each.view.channel.id for each in decisions if each.action is Action.FORGET]
            )
            done = await self._settle_all(decisions)
            for paid, part in done:
                sums = money(paid.to_server, paid.coin), format_amount(paid.gas)
                log.info("%s: %s to the server, gas %s", count_of(len(part), "channel"), *sums)
                self.claimed[canonical_type(paid.coin)] += paid.to_server
                self.gas += paid.gas
            self.done += [paid for paid, _ in done]
            if self._on_claimed is not None:
                await self._on_claimed([paid for paid, _ in done])
            await self._take_credits(views, closing)
            return [paid for paid, _ in done]

    async def _settle_all(self, decisions: Sequence[Decision]) -> list[tuple[Settlement, list[Decision]]]:
        failed: list[tuple[str, DtpError]] = []
        try:
            return await self._settle(
                self._claiming,
                decisions,
                self.policy.batch,
                lambda *each: failed.append(each),
                policy=self.policy,
            )
        finally:
            await self._report_failed(failed)

    async def _report_failed(self, failed: Sequence[tuple[str, DtpError]]) -> None:
        """Tell of channels of which nothing could be claimed, but for those that their client has closed, as agreed,
        while the claim was under way: that has brought what the claim would have."""
        late = {id for id, fault in failed if isinstance(fault, TransactionFailed | StaleObject)}
        agreed = await self._agreed_of(late) if late else set()
        for id, fault in failed:
            if id in agreed and id in late:
                log.info("channel %s was closed, as agreed, before it was claimed of: %s", id, fault)
            else:
                self._on_failed(id, fault)

    async def _agreed_of(self, ids: Collection[str]) -> set[str]:
        """Return those of the channels whose close was agreed on, or that are known to be over."""
        return await self.journal.run(lambda store: {id for id in ids if store.end_of(id) is not None})

    @property
    def _claiming(self) -> ChainClient:
        return claiming(self._chain, self.journal)

    async def _settle_spent(self) -> None:
        store = self.journal.store
        if isinstance(store, SoldStore):
            await settle_spent(self._chain, cast(Journal[SoldStore], self.journal))

    def _is_credited(self, channel: Channel) -> bool:
        """Return whether we are credited for transport on this channel, and still may be."""
        ours = channel.server == self._chain.address and channel.terms.bearer == Bearer.CLIENT
        until = channel.claims_until_ms
        in_time = channel.state <= ChannelState.CLOSING and (until is None or self._now_ms() < until)
        return ours and in_time and channel.terms.credit > 0

    async def _take_credits(self, views: Sequence[View], closing: bool) -> None:
        """Collect what clients owe for transport on chain, where that is worth its gas."""
        ours = {view.channel.id: view.end for view in views if self._is_credited(view.channel)}
        # As they are now: what was claimed a moment ago is the evidence.
        for id, channel in (await read_channels(self._chain, ours)).items():
            # A client that asked the chain for the close has given up what was agreed.
            if channel.state != ChannelState.CLOSING and await self._is_promised(id):
                continue
            end = ours[id]
            over = end is not None and lapsed(end, self._now_ms())
            last = closing or over or channel.state == ChannelState.CLOSING
            gas = self.policy.gas_in(channel.coin)
            least = gas.alone if last else gas.early
            try:
                taken = await self._collect(self._claiming, channel, least)
            except (TransactionFailed, NodeRefused) as refused:  # it is to hinder no other
                self._on_failed(id, refused)
                continue
            if taken is not None:
                log.info("channel %s: %d of transport credits", id, taken[0])

    async def in_use(self, ids: Collection[str]) -> Collection[str]:
        """Return those of the channels that are served now, maybe with others. Raises `StoreError`.

        Also by other daemons: they may agree on a close as well.
        """
        return {*self._busy(), *await self.journal.run(lambda store: store.held_channels(ids))}

    async def _is_promised(self, id: str) -> bool:
        """Return whether a total that was agreed, or may be in a moment, has the credits in it: a client that closes
        by it would pay them twice."""
        used = id in await self.in_use([id])
        end = await self.journal.run(lambda store: store.end_of(id))
        # Behind its end another one may be made, with whoever is connected.
        return used or (end is not None and not lapsed(end, self._now_ms()))

    async def channel_views(self) -> list[View]:
        """Return every channel of the store that may still pay, as it is now; of those that aren't worth it some."""
        sold, ends = await self.journal.run(_holdings)
        now_ms, found = self._now_ms(), []
        asked = self.known.due(sold, now_ms)
        channels = await read_channels(self._chain, asked, self._on_failed)
        credited = {id for id, each in channels.items() if self._is_credited(each)}
        pipes = await self._chain.owned(pipe_module.SCHEMA, Pipe, self._chain.address) if credited else []
        busy = await self.in_use(credited) if credited else ()
        for id, channel in channels.items():
            self._claim_ms = min(self._claim_ms, channel.terms.claim_ms)
            if self._on_channel is not None:
                self._on_channel(channel)
            vouchers = [each.newest.voucher for each in sold[id]]
            used = Usage(sum(each.requests for each in vouchers), sum(each.bytes for each in vouchers))
            end = ends[id]
            to_be_had = id in credited and (channel.state == ChannelState.CLOSING or id not in busy)
            credits = accrued(channel, pipes, used) if to_be_had else 0
            ours = channel.server == self._chain.address
            view = View(channel, tuple(sold[id]), end, credits, ours)
            found.append(view)
            if id not in credited and rests(view, self.policy):
                self.known.rest(id, sold[id], now_ms)
        missing = [id for id in asked if id not in channels]
        at_ms = self._now_ms()
        gone = [id for id in missing if self._is_closed(ends[id]) or self.known.is_gone(id, sold[id], at_ms)]
        # What is there is no channel as far as is known here: of a package that this machine doesn't use now.
        there = await self._chain.objects(gone) if gone else ()
        await self._forget_channels([id for id in gone if id not in there])
        self.known.note_seen(channels, sold, now_ms)
        return found + await self._not_over()

    async def _not_over(self) -> list[View]:
        """Return channels that a node said to be over, and are not by what one says now."""
        own_ms, found = self._own_ms(), []
        due = self._doubted.due(own_ms)
        if not due:
            return []
        sold = await self.journal.run(lambda store: {id: tuple(store.sold_lanes(id)) for id in due})
        channels = await read_channels(self._chain, due, self._on_failed)
        for id in due:
            channel = channels.get(id)
            if channel is not None and channel.state < ChannelState.CLOSED and sold[id]:
                if self._doubted.note_there(id, own_ms):
                    log.warning(
                        "channel %s isn't over, as a node has said: it is claimed of as others are", id
                    )
                found.append(View(channel, sold[id], None, 0, channel.server == self._chain.address))
            else:
                self._doubted.note_over(id, own_ms)
        return found

    async def view_of(self, id: str) -> View | None:
        """Return a channel as it is now, with its vouchers; None where none is here, or the node doesn't know the
        channel.

        Also one that is over by what a node said before: it may have lied, or been of another chain.
        """
        sold = await self.journal.run(lambda store: store.sold_lanes(id))
        found = (await read_channels(self._chain, [id], self._on_failed)).get(id) if sold else None
        return (
            None if found is None else View(found, tuple(sold), None, 0, found.server == self._chain.address)
        )

    def _is_closed(self, end: End | None) -> bool:
        """Return whether a channel that the node doesn't know was closed by agreement, which deletes it as well.

        Known only of the chain that it was agreed for, and behind that time: no node is so far behind.
        """
        if end is None or end.chain != self._chain.chain_id:
            return False
        return lapsed(end, self._now_ms())

    async def _forget_channels(self, ids: Sequence[str]) -> None:
        def work(store: VoucherStore) -> None:
            for id in ids:
                store.mark_closed(id)

        if not ids:
            return
        agreed = await self._agreed_of(ids)
        await self.journal.run(work)
        for id in ids:  # what was agreed on is over by our own word
            if id not in agreed:
                self._doubted.add(id, self._own_ms())


def _holdings(store: VoucherStore) -> tuple[dict[str, list[Sold]], dict[str, End | None]]:
    sold: dict[str, list[Sold]] = {}
    for each in store.sold_lanes():
        sold.setdefault(each.channel, []).append(each)
    return sold, {id: store.end_of(id) for id in sold}


def claiming(chain: ChainClient, journal: Journal[VoucherStore]) -> ChainClient:
    """Return the client, whose transactions are noted as claims where the store is a file."""
    if not isinstance(journal.store, SoldStore):
        return chain
    return noted(chain, cast(Journal[SoldStore], journal).run, purpose="claim")


async def read_channels(
    chain: ChainClient, ids: Iterable[str], on_failed: OnFailed = log_failed
) -> dict[str, Channel]:
    """Return those of the channels that are there, and can be read: one that can't keeps none of the others away."""
    found: dict[str, Channel] = {}
    for id, data in (await chain.objects(ids)).items():
        try:
            found[id] = chain.decode(channel_module.SCHEMA, Channel, data)
        except (WrongObjectType, MalformedObject, PackageNotPublished) as error:
            on_failed(id, error)
    return found
