"""All pipes of one chain client: follows their events, opens channels, finds the end that a frame is for.

One follower serves every carrier and listener of a client. It delivers each event once, in the chain's order, through
lost connections and dead nodes; should a node leave frames out all the same, the pipes' sequence numbers show it and
the gap is filled from history.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import ExitStack
from functools import partial
from typing import Any, Final
from weakref import WeakValueDictionary

from dtp.carriers.errors import DialError
from dtp.chain import channel as channel_module
from dtp.chain import pipe as pipe_module
from dtp.chain.channel import Channel, ChannelOpened, ChannelState
from dtp.chain.events import Cursor
from dtp.chain.host import Service
from dtp.chain.host_state import HostCache, HostState
from dtp.chain.model import SUI_COIN, Executed, canonical_type
from dtp.chain.node.client import ChainClient, Signed
from dtp.chain.node.commands import Argument, Program
from dtp.chain.node.commitment import to_its_end
from dtp.chain.node.made import check_made, object_left
from dtp.chain.pipe import Direction, Pipe, PipeFrame
from dtp.chain.pipes.end import ChannelEnd
from dtp.chain.pipes.ends import MOST_IDLE, PipeEnds
from dtp.chain.pipes.feed import Follow, FrameFeed, follow_events
from dtp.chain.pipes.frames import MAX_PIPES, Flags, Header, encode
from dtp.chain.pipes.funds import PipeFunds
from dtp.chain.pipes.gas import GasGuess
from dtp.chain.pipes.lock import PipeLocks
from dtp.chain.pipes.opening import opening, reclaim
from dtp.chain.pipes.routing import LinkListeners, OnLink, UnplacedFrames
from dtp.chain.pipes.where import ChannelInUse, NoPipeChannel, PipeEndpoint, Timing
from dtp.errors import ChainError, LocalError
from dtp.plurals import count_of
from dtp.tasks import SupervisedTask, TaskSet

__all__ = ["OnLink", "PipeHub"]

log = logging.getLogger("dtp.chain")

#: Where a client has its hub.
_HUB: Final = "_pipe_hub"
#: Makes an end, and says when something was signed for it.
Making = Callable[[Signed], Coroutine[Any, Any, ChannelEnd]]


class PipeHub:
    """The pipes of one account. `PipeHub.of(chain)` is the one of a client; it runs while somebody uses it."""

    def __init__(
        self,
        chain: ChainClient,
        *,
        timing: Timing | None = None,
        follow: Follow = follow_events,
        most_idle: int = MOST_IDLE,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.chain = chain
        self._clock = clock
        self.timing = timing or Timing()
        self.hosts = HostCache(chain, max_age=5.0)
        self.gas = GasGuess()
        self._loop = asyncio.get_running_loop()
        self._users = 0
        self._ending: asyncio.TimerHandle | None = None
        self._tasks = TaskSet()
        self.ends = PipeEnds(most_idle)
        self._feed = FrameFeed(
            chain,
            self.timing,
            follow,
            ends=lambda: self.ends,
            on_frame=lambda frame, place: self._on_frame(frame, place),
            on_opened=lambda opened: self._on_opened(opened),
        )
        self._leaving: Counter[str] = Counter()
        self._named: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._unplaced = UnplacedFrames()
        self._listeners = LinkListeners()
        self._tidying = SupervisedTask(self._reclaim_deposits, name="dtp-pipes-tidy")
        self._funds = PipeFunds(chain, self.gas)

    @classmethod
    def hub_of(cls, chain: ChainClient) -> PipeHub:
        """Return the hub of a client: it lives as long as that."""
        found: PipeHub | None = vars(chain).get(_HUB)
        return found if found is not None else cls(chain).install()

    def install(self) -> PipeHub:
        """Make this the hub of its client."""
        vars(self.chain)[_HUB] = self
        return self

    # ------------------------------------------------------------------------------------------------- being used

    async def acquire(self) -> None:
        """Use the hub: from now on no event is missed. Raises what following raises."""
        self.retain()
        try:
            await self._feed.begin()
        except BaseException:
            self.release()
            raise

    def retain(self) -> None:
        """Use it, while somebody else does already."""
        self._users += 1
        if self._ending is not None:
            self._ending.cancel()
            self._ending = None

    def release(self) -> None:
        """Use it no more."""
        self._users -= 1
        if not self._users:
            self._ending = self._loop.call_later(self.timing.keep, self._stop_ends)

    def leave(self, end: ChannelEnd) -> None:
        """Let go as `release` does, as soon as what the carrier of this end said last is on the chain."""
        if end.quiet or end not in self.ends:
            self._on_idle(end)
            self.release()
        else:
            self._leaving[end.where.channel] += 1

    def _on_idle(self, end: ChannelEnd) -> None:
        """Note that an end may be used again, or is one too many."""
        leaving = self._leaving.pop(end.where.channel, 0)
        for gone in self.ends.note_idle(end):
            self._start_task(gone.stop(), "dtp-pipes-stop")
        for _ in range(leaving):
            self.release()

    def _remove_end(self, end: ChannelEnd) -> None:
        self.ends.remove(end.where.channel)
        self._start_task(end.stop(), "dtp-pipes-stop")

    def _stop_ends(self) -> None:
        ends = self.ends.clear()
        self._ending = None
        self._feed.stop()
        self._tidying.cancel()
        self._tasks.cancel()
        for end in ends:
            self._start_task(end.stop(), "dtp-pipes-stop")
        self._unplaced.clear()

    def _start_task(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        return self._tasks.start(work, name=name)

    async def stop_sending(self, channel: str) -> tuple[str, ...]:
        """Send nothing more on a channel that is about to be closed: the pipes that can be destroyed with it."""
        end = self.ends.find(channel)
        if end is None:
            return ()
        await self._wait_idle(end)
        self.ends.remove(channel)
        await end.stop()
        return end.pipe_ids

    @property
    def gone(self) -> bool:
        """True when this can't send any more, whatever it still holds: its event loop was closed."""
        return self._loop.is_closed()

    async def hand_over(self, channel: str) -> None:
        """Let another client of this program have a channel's pipes, unless a connection goes over them."""
        if self._loop is asyncio.get_running_loop():
            await self._hand_over(channel)
            return
        done: Future[None] = Future()

        def begin() -> None:
            task = self._start_task(self._hand_over(channel), "dtp-pipes-hand-over")
            task.add_done_callback(lambda _: done.set_result(None))

        try:
            self._loop.call_soon_threadsafe(begin)
        except RuntimeError:  # its loop was closed just now
            return
        # Its thread may stand still.
        await asyncio.wait((asyncio.wrap_future(done),), timeout=2 * self.timing.linger)

    async def _hand_over(self, channel: str) -> None:
        end = self.ends.find(channel)
        if end is None or end.used:
            return
        await self._wait_idle(end)
        if end.quiet:
            if end in self.ends:
                self._remove_end(end)
            await end.stop()

    async def _wait_idle(self, end: ChannelEnd) -> None:
        """Wait until nothing is under way on an end any more, at most as long as last words may take."""
        await self.ends.wait_idle(end, self.timing.linger)

    async def _reclaim_deposits(self) -> None:
        """Take back, as a server, the deposits of pipes whose channels were closed, also by runs before this one."""
        while True:
            try:
                found = await reclaim(self.chain)
                if found.pipes:
                    log.info("given back: %s of closed channels", count_of(found.pipes, "pipe"))
            except (ChainError, LocalError) as fault:
                log.info("pipes of closed channels can't be given back for now: %s", fault)
            await asyncio.sleep(self.timing.tidy)

    # ---------------------------------------------------------------------------------------------------- routing

    def _on_frame(self, frame: PipeFrame, place: Cursor | None = None) -> None:
        end = self.ends.find(frame.channel)
        if end is not None:
            if frame.direction != end.where.direction:
                end.on_frame(frame, place)
            return
        if self._unplaced.keep_frame(frame, self._listeners):
            self._start_task(self._attach_server(frame.channel, self._feed.cursor), "dtp-pipes-attach")

    def _on_opened(self, opened: ChannelOpened) -> None:
        if self._listeners.has_host(opened.host) and opened.server == self.chain.address:
            self._unplaced.note_fresh(opened.channel)
        elif self.ends.find(opened.channel) is None:
            self._unplaced.foreign[opened.channel] = None

    # -------------------------------------------------------------------------------------------------- listening

    def listen(self, host: str, key: bytes, on_link: OnLink) -> None:
        """Take links to a host, for the endpoint of that key (zeros: for any). Raises `ListenError` if one does."""
        self._listeners.add(host, key, on_link)
        self._tidying.start()
        self._unplaced.foreign.clear()

    def stop_listening(self, host: str, key: bytes) -> None:
        """Take no more."""
        self._listeners.remove(host, key)
        if not self._listeners:
            self._tidying.cancel()

    async def _attach_server(self, channel: str, before: Cursor | None) -> None:
        """Look a channel up that sends frames towards us, and hand them to its end if it is ours."""
        try:
            found = await self.chain.read(channel_module.SCHEMA, Channel, channel)
            ours = found.server == self.chain.address and found.state == ChannelState.OPEN
            if not ours or not self._listeners.has_host(found.host):
                self._unplaced.foreign[channel] = None
                return
            fresh = self._unplaced.is_fresh(channel) and not found.acks_to_client
            end = await self._server_end(found, fresh, before)
        except (ChainError, LocalError) as fault:
            log.warning("channel %s can't be served: %s", channel, fault)
            return
        finally:
            waiting = self._unplaced.take_waiting(channel)
        self.ends.add(end)
        for frame in waiting:
            end.on_frame(frame)
        end.tell_idle()  # one that never gets a link isn't kept longer than others

    async def _server_end(self, found: Channel, fresh: bool, before: Cursor | None) -> ChannelEnd:
        state = await self.hosts.find(found.host)
        service = state.host.services.get(found.service)
        if service is None:
            raise NoPipeChannel(f"host {found.host} has no service {found.service} any more")
        where = PipeEndpoint.of_channel(found, service, Direction.TO_CLIENT)
        held = await self._own_pipes(found.id) if found.acks_to_client else []
        end = ChannelEnd(
            self.chain,
            where,
            self.gas,
            timing=self.timing,
            on_open=self._on_open,
            on_idle=self._on_idle,
            answers=lambda to: self._listeners.find(found.host, to) is not None,
            since=before,
        )
        end.start_sending(held, None if fresh else found)
        return end

    def _on_open(self, end: ChannelEnd, header: Header) -> None:
        take = self._listeners.find(end.where.host, header.to)
        if take is None:
            return
        account = end.where.peer
        if not self._listeners.may_begin(account):
            log.warning("account %s begins too many links", account)
            return
        end.note_link(header.link)
        end.opening += 1
        self._start_task(self._accept_link(end, header, take), "dtp-pipes-accept")

    async def _accept_link(self, end: ChannelEnd, header: Header, take: OnLink) -> None:
        """Take the link that a client has begun, unless it has begun a newer one meanwhile."""
        try:
            # One after the other: each of several at once would find no pipes, and open some.
            async with end.accepting:
                if end.last_link == header.link:
                    await self._answer_client(end, header)
            if end.last_link == header.link and end.failed is None:
                take(end, header.link)
        except (ChainError, LocalError) as fault:
            log.warning("a link of channel %s can't be taken: %s", end.where.channel, fault)
        finally:
            end.opening -= 1
            end.tell_idle()

    async def _answer_client(self, end: ChannelEnd, header: Header) -> None:
        """Tell a client that it is let in: over pipes that are there, or with the transaction that opens them."""
        where = end.where
        await self._funds.ensure_coins(header.pipes)
        if end.pipes:
            end.send_control(Flags.ACCEPT, header.link)
            return
        program = Program()
        # A pipe costs a deposit: no more of ours than there are of its own, whatever a client asks for.
        found = await self.chain.read(channel_module.SCHEMA, Channel, where.channel)
        count = max(1, min(header.pipes, len(found.acks_to_server) - len(found.free_to_server)))
        pipes = [pipe_module.open(program, where.channel, coin=where.coin) for _ in range(count)]
        frame, flags = encode(Header(header.link), Flags.ACCEPT), int(Flags.ACCEPT)
        pipe_module.send(program, pipes[0], where.channel, where.host, frame, flags=flags, coin=where.coin)
        for each in pipes:
            pipe_module.keep(program, each)
        end.add_pipes(self._created_pipes(await self.chain.execute(program)))

    # ---------------------------------------------------------------------------------------------------- dialling

    async def open_end(
        self, host: str, number: int, to: bytes, channel: str, pipes: int, attach: OnLink
    ) -> None:
        """Begin a link to a host's service; `attach` gets its end and number before any answer can come.

        `channel` names the one to use; without it one of before that is idle, or a new one.
        """
        state = await self.hosts.find(host)
        if number not in state.host.services:
            self.hosts.forget_host(host)
            state = await self.hosts.find(host)
        if number not in state.host.services:
            raise DialError(f"host {host} has no service {number}")
        # The chain's time, for a server takes only what is above the link before, and a clock may be set back.
        link = state.now_ms(self._clock()) * 1000
        if not channel:
            ours = [e for e in self.ends if e.where.is_client and e.leads_to(host, number, to)]
            for end in sorted(ours, key=lambda end: not end.idle):
                if not end.used:
                    # It may still be saying its last words: another channel would cost a deposit.
                    await self._wait_idle(end)
                if end.idle and end in self.ends:
                    self._reopen_link(end, link, attach)
                    return
            making = partial(self._new_channel, state, number, to, pipes, link)
            await self._begin_end(making, attach, link)
            return
        # One at a time: two ends of one channel would send through the same pipes.
        async with self._named.setdefault(channel, asyncio.Lock()):
            known = self.ends.find(channel)
            if known is not None and not known.used:  # the carrier before may still be saying its last words
                await self._wait_idle(known)
                known = self.ends.find(channel)
            if known is not None and known.idle and not known.leads_to(host, number, to):
                self._remove_end(known)  # another endpoint is meant: the one before doesn't answer, maybe
                known = None
            if known is None:
                making = partial(self._named_channel, channel, state, number, to, pipes, link)
                await self._begin_end(making, attach, link)
            elif known.idle:
                self._reopen_link(known, link, attach)
            else:
                raise ChannelInUse(f"channel {channel} is in use by another connection of this program")

    async def _begin_end(self, making: Making, attach: OnLink, link: int) -> None:
        """Have an end whose first transaction begins the link, too; answers may be here before its own."""

        async def begin(signed: Signed) -> None:
            made = await making(signed)
            attach(made, link)
            self._add_client(made)
            if not made.sent:  # nothing had to be opened
                made.send_control(Flags.OPEN, link)

        with self._unplaced.expect_answers():
            await to_its_end(begin)  # what was opened is there for the next dial

    def _reopen_link(self, end: ChannelEnd, link: int, attach: OnLink) -> None:
        number = max(link, end.last_link + 1)
        attach(end, number)
        end.send_control(Flags.OPEN, number)

    async def _named_channel(
        self, channel: str, state: HostState, number: int, to: bytes, pipes: int, link: int, signed: Signed
    ) -> ChannelEnd:
        host, service = state.host.id, state.host.services[number]
        found = await self.chain.read(channel_module.SCHEMA, Channel, channel)
        wrong = {
            "is of another account": found.client != self.chain.address,
            f"is of host {found.host}": found.host != host,
            f"is of service {found.service}": found.service != number,
            "isn't open": found.state != ChannelState.OPEN,
        }
        if any(wrong.values()):
            why = next(text for text, so in wrong.items() if so)
            raise NoPipeChannel(
                f"channel {channel} can't carry pipes to service {number} of {host}: it {why}"
            )
        locks = PipeLocks.of_home()
        if (other := locks.sender_of(channel)) not in (None, self):
            await other.hand_over(channel)
        with ExitStack() as locked:
            locked.enter_context(locks.hold_pipes(channel, self))
            end = await self._over_pipes(found, service, to, pipes, link, signed)
            end.locked = locked.pop_all()
        return end

    async def _over_pipes(
        self, found: Channel, service: Service, to: bytes, pipes: int, link: int, signed: Signed
    ) -> ChannelEnd:
        channel, host = found.id, found.host
        held = await self._own_pipes(channel) if found.acks_to_server else []
        before = self._feed.cursor
        unused = MAX_PIPES - len(found.acks_to_server) + len(found.free_to_server)
        missing = min(pipes, unused) - len(held)
        await self._funds.ensure_coins(pipes)
        if missing > 0:
            program = Program()
            opened: list[Argument] = [
                pipe_module.open(program, channel, coin=found.coin) for _ in range(missing)
            ]
            flags = Flags.OPEN | Flags.TO
            frame = encode(Header(link, to=to, pipes=missing + len(held)), flags)
            pipe_module.send(program, opened[0], channel, host, frame, flags=int(flags), coin=found.coin)
            for each in opened:
                pipe_module.keep(program, each)
            held += self._created_pipes(await self.chain.execute(program, signed=signed))
        if not held:
            raise NoPipeChannel(f"channel {channel} has no pipe left that this account holds")
        end = ChannelEnd(
            self.chain,
            PipeEndpoint.of_channel(found, service, Direction.TO_SERVER, to),
            self.gas,
            timing=self.timing,
            on_idle=self._on_idle,
            since=before,
        )
        end.start_sending(held, found)
        if missing > 0:
            end.note_opened()
        return end

    def _add_client(self, end: ChannelEnd) -> None:
        """Let an end have its frames, also those that came before it was known here."""
        self.ends.add(end)
        for frame in self._unplaced.list_early(end.where.channel):
            end.on_frame(frame)

    async def _new_channel(
        self, state: HostState, number: int, to: bytes, pipes: int, link: int, signed: Signed
    ) -> ChannelEnd:
        terms = (service := state.host.services[number]).terms
        if canonical_type(terms.coin) != SUI_COIN:
            raise NoPipeChannel(
                f"service {number} takes {terms.coin}: open a channel with it, and name it with ?channel=0x..."
            )
        before, locks = self._feed.cursor, PipeLocks.of_home()
        with self._funds.deposit(state.host.id, terms.min_deposit, signed) as deposited:
            await self._funds.ensure_coins(pipes)
            program = opening(state, number, terms, to, pipes, link)
            executed = await self.chain.execute(program, signed=deposited)
        event = self.chain.event_in(executed, channel_module.SCHEMA, ChannelOpened)
        check_made(executed, event.channel)
        made = self.chain.decode(channel_module.SCHEMA, Channel, object_left(executed, event.channel))
        where = PipeEndpoint.of_channel(made, service, Direction.TO_SERVER, to)
        end = ChannelEnd(self.chain, where, self.gas, timing=self.timing, on_idle=self._on_idle, since=before)
        end.locked.enter_context(locks.hold_pipes(made.id, self))
        end.start_sending(self._created_pipes(executed))
        end.note_opened()
        return end

    # ------------------------------------------------------------------------------------------------------ common

    def _created_pipes(self, executed: Executed) -> list[Pipe]:
        """Return the pipes that a transaction has made, as it left them."""
        kind = self.chain.type_of(pipe_module.SCHEMA, Pipe)
        return [
            self.chain.decode(pipe_module.SCHEMA, Pipe, object_left(executed, change.id))
            for change in executed.created_objects(kind)
        ]

    async def _own_pipes(self, channel: str) -> list[Pipe]:
        held = await self.chain.owned(pipe_module.SCHEMA, Pipe, self.chain.address)
        return [each for each in held if each.channel == channel]


async def surrender(chain: ChainClient, channel: str) -> tuple[str, ...]:
    """Return the pipes that `chain` sends over on a channel that is about to be closed, ready to be destroyed with
    it.

    What is under way is waited for, and the chain is asked nothing. Empty where no carrier ever lived on the channel.
    """
    found: PipeHub | None = vars(chain).get(_HUB)
    return await found.stop_sending(channel) if found is not None else ()
