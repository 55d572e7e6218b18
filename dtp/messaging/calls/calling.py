"""`dtp.Calls`: calls by a messenger. It drives a `CallBook` with signals, the clock and media."""

from __future__ import annotations

import asyncio
import logging
import secrets
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import ClassVar, Final, Self

from dtp.carriers.nearness import Nearness
from dtp.errors import DtpError, PeerError
from dtp.messaging.calls.book import CallBook, Command, Connect, Missed, Phase, SendSignal, Tell
from dtp.messaging.calls.signals import CallMalformed, Reason, Signal, SignalAct
from dtp.messaging.calls.tunnel import PacketTunnel
from dtp.messaging.conversation.events import ID_BYTES
from dtp.messaging.errors import CallError
from dtp.messaging.person.contacts import Contact
from dtp.messaging.person.delivery import now_ms
from dtp.messaging.person.messenger import Messenger, Person
from dtp.messaging.person.notices import CallSignalled, missed_call
from dtp.tasks import TaskSet, start_task

log = logging.getLogger("dtp.messaging")
#: Calls that wait for a program that doesn't look at them: there is one at a time, so older ones are over.
_WAITING: Final = 64


class CallEnded(PeerError):
    """A call has ended before anybody could talk, or while the program waited for more; `reason` is why."""

    code: ClassVar[str] = "call-ended"

    def __init__(self, reason: Reason) -> None:
        super().__init__(f"the call has ended: {reason.name.lower().replace('_', ' ')}")
        self.reason = reason


class Media(ABC):
    """One end of a call's media. `MediaEnd` is the one by `aiortc`; an end is for one call.

    Descriptions name the certificate of their end; whoever has another one isn't talked to.
    """

    def use_tunnel(self, tunnel: PacketTunnel) -> None:  # noqa: B027 - not every kind can
        """Reach the other end by this tunnel as well, before anything else is done."""

    @abstractmethod
    async def offer(self) -> str:
        """Return this end's description, for a call that begins here. Raise `MediaUnusable`."""

    @abstractmethod
    async def answer(self, offer: str) -> str:
        """Return this end's description for another's offer, and begin. Raise `MediaUnusable`, `CallMalformed`."""

    @abstractmethod
    async def accept(self, answer: str) -> None:
        """Begin with the description of the device that has answered. Raise `CallMalformed`."""

    @abstractmethod
    async def wait_up(self) -> bool:
        """Wait until media goes both ways, and return True; False if it can't."""

    @abstractmethod
    async def wait_down(self) -> None:
        """Wait until media has broken off."""

    @abstractmethod
    async def close(self) -> None:
        """End it. Idempotent."""


class ActiveCall:
    """A call: ours, or one that rings here."""

    def __init__(self, calls: Calls, call: bytes, person: bytes, offer: str = "", relay: str = "") -> None:
        self._calls, self._person, self._offer, self._relay = calls, person, offer, relay
        self.id = call
        #: Where it is now, and why it is over.
        self.phase = Phase.RINGING if offer else Phase.CALLING
        self.reason: Reason | None = None
        self._changed = asyncio.Event()
        self.media: Media | None = None
        self.tunnel: PacketTunnel | None = None

    @property
    def contact(self) -> Contact:
        """Who is called, or calls."""
        return self._calls.messenger.correspondence.get_contact(self._person)

    async def answer(self, media: Media) -> None:
        """Answer it, with this end of media. Raise `CallError` if it rings no more, and as `Media.answer`."""
        await self._calls.answer_call(self, self._offer, self._relay, media)

    async def refuse(self) -> None:
        """Refuse it, on all our devices. Raise `CallError` if it doesn't ring any more."""
        self._calls.refuse_call(self.id)

    async def hang_up(self) -> None:
        """End it. Nothing happens where it is over."""
        self._calls.hang_up(self.id)

    async def phases(self) -> AsyncIterator[Phase]:
        """Yield the phase that it is in now, and each later one; the last is `Phase.OVER`. For one loop."""
        last = None
        while last is not Phase.OVER:
            if self.phase is last:
                self._changed.clear()
                await self._changed.wait()
            last = self.phase
            yield last

    async def wait_talking(self) -> None:
        """Wait until media goes both ways. Raise `CallEnded`."""
        async for phase in self.phases():
            if phase is Phase.TALKING:
                return
        raise CallEnded(self.reason or Reason.FAILED)

    async def wait_over(self) -> Reason:
        """Wait until it is over, and return why."""
        async for _ in self.phases():
            pass
        return self.reason or Reason.FAILED

    def move_on(self, phase: Phase, reason: Reason | None) -> None:
        """Note where it is now. For `Calls`."""
        self.phase, self.reason = phase, reason
        self._changed.set()


class Calls:
    """Calls of a messenger, which has been begun. Use it with `async with`; `async for` gives calls that ring here.

    While it is there this device rings; other devices of the person do as well. `relays` are URLs at which a place is
    taken for each call of ours (`relay://...`), by which media goes where there is no direct way. `book` has the
    limits, `clock` gives ms of Unix time.
    """

    def __init__(
        self,
        messenger: Messenger,
        *,
        relays: Sequence[str] = (),
        book: CallBook | None = None,
        clock: Callable[[], int] = now_ms,
    ) -> None:
        self.messenger = messenger
        self._relays = relays
        self._clock = clock
        self._book = book or CallBook(messenger.identity.id.key)
        self._ringing: asyncio.Queue[ActiveCall] = asyncio.Queue(_WAITING)
        self._current: ActiveCall | None = None
        self._outgoing: asyncio.Queue[SendSignal | None] = asyncio.Queue()
        self._timer: asyncio.TimerHandle | None = None
        #: Calls that have come and whose outcome isn't known yet: the messenger keeps them.
        self._offered: set[bytes] = set()
        self._tasks = TaskSet()

    async def __aenter__(self) -> Self:
        """Begin to ring."""
        if self.messenger.inbox.on_call_signal is not None:
            raise CallError("this messenger has its calls already")
        self.messenger.inbox.on_call_signal = self._on_signal
        self._sending = start_task(self._send_always(), name="dtp-calls-send")
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Hang up, and ring no more."""
        self.messenger.inbox.on_call_signal = None
        if self._current is not None:
            self.hang_up(self._current.id)
        self._run_commands(self._book.miss_calls())
        if self._timer is not None:
            self._timer.cancel()
        self._outgoing.put_nowait(None)
        # The other end hears of the call's end, even if this is cancelled.
        await asyncio.shield(self._sending)
        await self._tasks.wait()

    def __aiter__(self) -> AsyncIterator[ActiveCall]:
        return self._calls_that_ring()

    async def _calls_that_ring(self) -> AsyncIterator[ActiveCall]:
        while True:
            call = await self._ringing.get()
            if call.phase is Phase.RINGING:
                yield call

    async def call(self, person: Person, media: Media) -> ActiveCall:
        """Return a call to all devices of a person, which is on its way. The media is ended with it.

        Raise `CallError` within another one, `UnknownContact`, `ConsentNeeded`, `ContactBlocked`, `MediaUnusable`.
        """
        tunnel = PacketTunnel() if self._relays else None
        try:
            named = self.messenger.correspondence.get_contact(self.messenger.conversation_of(person)).person
            await self.messenger.tasks.lookup.check_contact(named)
            devices = await self.messenger.delivery.run_in_thread(
                self.messenger.correspondence.devices_of, named
            )
            own = set(self.messenger.correspondence.own_devices)
            relay = ""
            if tunnel is not None:
                await tunnel.open_port()
                relay = await tunnel.listen_at(self._relays[0])
                media.use_tunnel(tunnel)
            description = await media.offer()
            call = secrets.token_bytes(ID_BYTES)
            called = [each for each in devices if each not in own]
            commands = self._book.begin_call(call, named, called, description, self._clock(), relay=relay)
        except BaseException:
            await media.close()
            if tunnel is not None:
                await tunnel.close()
            raise
        made = self._current = ActiveCall(self, call, named)
        made.media, made.tunnel = media, tunnel
        self._run_commands(commands)
        return made

    async def answer_call(self, call: ActiveCall, offer: str, relay: str, media: Media) -> None:
        """Answer a call that rings: `ActiveCall.answer`."""
        tunnel = await self._dial_tunnel(relay, call.contact.nearness) if relay else None
        try:
            if tunnel is not None:
                media.use_tunnel(tunnel)
            description = await media.answer(offer)
            commands = self._book.answer_call(call.id, description, self._clock())
        except BaseException as fault:
            await media.close()
            if tunnel is not None:
                await tunnel.close()
            if isinstance(fault, CallMalformed) and call.phase is Phase.RINGING:
                self._run_commands(self._book.refuse_call(call.id, Reason.FAILED))
            raise
        call.media, call.tunnel = media, tunnel
        self._tasks.start(self._watch_media(call, media), name="dtp-calls-media")
        self._run_commands(commands)

    async def _dial_tunnel(self, relay: str, teller: Nearness) -> PacketTunnel | None:
        """Return a tunnel to the caller; None if its place isn't reached: there may be a direct way."""
        tunnel = PacketTunnel()
        await tunnel.open_port()
        try:
            await tunnel.dial(relay, teller)
        except (DtpError, TimeoutError) as fault:
            log.info("the relay of a call isn't reached: %s", fault)
            await tunnel.close()
            return None
        return tunnel

    def refuse_call(self, call: bytes) -> None:
        """Refuse a call that rings: `ActiveCall.refuse`."""
        self._run_commands(self._book.refuse_call(call))

    def hang_up(self, call: bytes) -> None:
        """End a call: `ActiveCall.hang_up`."""
        self._run_commands(self._book.hang_up(call))

    # ---- what the book says ------------------------------------------------------------------------------------

    def _on_signal(self, told: CallSignalled) -> None:
        try:
            signal = Signal.parse(told.event.fields)
        except CallMalformed as fault:
            log.info("a signal about a call is dropped: %s", fault)
            return
        sent, now = told.event.sent_ms, self._clock()
        if signal.act is SignalAct.OFFER and not told.own:
            self._offered.add(signal.call)
        self._run_commands(
            self._book.receive_signal(told.device, told.person, signal, own=told.own, sent=sent, now=now),
            signal=signal,
            person=told.person,
        )

    def _run_commands(
        self, commands: Iterable[Command], *, signal: Signal | None = None, person: bytes = b""
    ) -> None:
        told = list(commands)
        for command in told:
            match command:
                case SendSignal():
                    self._outgoing.put_nowait(command)
                case Missed():
                    self.messenger.tell([missed_call(command.person, command.call, command.reason)])
                case Connect():
                    self._accept_answer(command.description)
                case Tell(call, Phase.RINGING) if signal is not None:
                    self._current = ActiveCall(self, call, person, signal.description, signal.relay)
                    if self._ringing.full():
                        self._ringing.get_nowait()
                    self._ringing.put_nowait(self._current)
                case Tell():
                    self._update_phase(command)
        missed = {each.call for each in told if isinstance(each, Missed)}
        over = {each for each in self._offered if not self._book.may_be_missed(each)}
        self._offered -= over
        if over - missed:
            self._tasks.start(self.messenger.delivery.forget_calls(over - missed), name="dtp-calls-forget")
        self._set_timer()

    def _update_phase(self, command: Tell) -> None:
        call = self._current
        if call is None or call.id != command.call:
            return
        call.move_on(command.phase, command.reason)
        if command.phase is Phase.OVER:
            self._current = None
            self._tasks.start(_close(call), name="dtp-calls-close")

    def _accept_answer(self, description: str) -> None:
        call = self._current
        if call is not None and call.media is not None:
            self._tasks.start(self._accept_media(call, call.media, description), name="dtp-calls-media")

    async def _accept_media(self, call: ActiveCall, media: Media, description: str) -> None:
        try:
            await media.accept(description)
        except CallMalformed as fault:
            log.info("a call has ended: %s", fault)
            self._run_commands(self._book.media_failed(call.id))
            return
        await self._watch_media(call, media)

    async def _watch_media(self, call: ActiveCall, media: Media) -> None:
        if await media.wait_up():
            self._run_commands(self._book.media_is_up(call.id))
            await media.wait_down()
            self._run_commands(self._book.media_broke_off(call.id, self._clock()))
        else:
            self._run_commands(self._book.media_failed(call.id))

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if (due := self._book.deadline) is not None:
            pause = max(due - self._clock(), 0) / 1000
            self._timer = asyncio.get_running_loop().call_later(pause, self._handle_timer)

    def _handle_timer(self) -> None:
        self._timer = None
        self._run_commands(self._book.handle_timer(self._clock()))

    async def _send_always(self) -> None:
        """Send signals in their order."""
        while (send := await self._outgoing.get()) is not None:
            own = self.messenger.correspondence.own_devices if send.own else ()
            devices = [*send.devices, *own]
            try:
                if devices:
                    await self.messenger.signal_call(devices, send.signal)
            except DtpError as fault:  # a store that can't write, a queue that is full: the call times out
                log.warning("a signal about a call isn't sent: %s", fault)


async def _close(call: ActiveCall) -> None:
    if call.media is not None:
        await call.media.close()
    if call.tunnel is not None:
        await call.tunnel.close()
