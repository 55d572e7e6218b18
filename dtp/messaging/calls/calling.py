"""`dtp.Calls`: the calls of a messenger. It drives a `CallBook` with signals, the clock and media."""

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
#: Ringing calls that are queued for the program. One rings at a time, so the older ones are over.
_WAITING: Final = 64


class CallEnded(PeerError):
    """A call has ended before anybody could talk. `reason` says why."""

    code: ClassVar[str] = "call-ended"

    def __init__(self, reason: Reason) -> None:
        super().__init__(f"the call has ended: {reason.name.lower().replace('_', ' ')}")
        self.reason = reason


class Media(ABC):
    """One end of a call's media, for one call. `MediaEnd` implements it with `aiortc`.

    A description names the certificate of its end; an end with any other certificate is rejected.
    """

    def use_tunnel(self, tunnel: PacketTunnel) -> None:  # noqa: B027 - not every kind can
        """Offer this tunnel as a further way to the other end. Called before any other method."""

    @abstractmethod
    async def offer(self) -> str:
        """Return this end's description, for a call that begins here. Raise `MediaUnusable`."""

    @abstractmethod
    async def answer(self, offer: str) -> str:
        """Return this end's description for an answer, and connect. Raise `MediaUnusable` or `CallMalformed`."""

    @abstractmethod
    async def accept(self, answer: str) -> None:
        """Connect with the description of the device that has answered. Raise `CallMalformed`."""

    @abstractmethod
    async def wait_up(self) -> bool:
        """Wait until media flows both ways, and return True; return False if it can't."""

    @abstractmethod
    async def wait_down(self) -> None:
        """Wait until media has ended."""

    @abstractmethod
    async def close(self) -> None:
        """End the media. Idempotent."""


class ActiveCall:
    """A call: one that was begun here, or one that rings here."""

    def __init__(self, calls: Calls, call: bytes, person: bytes, offer: str = "", relay: str = "") -> None:
        self._calls, self._person, self._offer, self._relay = calls, person, offer, relay
        self.id = call
        #: The present phase, and why the call is over.
        self.phase = Phase.RINGING if offer else Phase.CALLING
        self.reason: Reason | None = None
        self._changed = asyncio.Event()
        self.media: Media | None = None
        self.tunnel: PacketTunnel | None = None

    @property
    def contact(self) -> Contact:
        """The person who is called, or who calls."""
        return self._calls.messenger.correspondence.get_contact(self._person)

    async def answer(self, media: Media) -> None:
        """Answer the call with `media`. Raise `CallError` if it no longer rings, and as `Media.answer`."""
        await self._calls.answer_call(self, self._offer, self._relay, media)

    async def refuse(self) -> None:
        """Refuse the call on all devices of this person. Raise `CallError` if it no longer rings."""
        self._calls.refuse_call(self.id)

    async def hang_up(self) -> None:
        """End the call. Do nothing if it is over."""
        self._calls.hang_up(self.id)

    async def phases(self) -> AsyncIterator[Phase]:
        """Yield the present phase and each later one; the last is `Phase.OVER`. For one loop at a time."""
        last = None
        while last is not Phase.OVER:
            if self.phase is last:
                self._changed.clear()
                await self._changed.wait()
            last = self.phase
            yield last

    async def wait_talking(self) -> None:
        """Wait until media flows both ways. Raise `CallEnded`."""
        async for phase in self.phases():
            if phase is Phase.TALKING:
                return
        raise CallEnded(self.reason or Reason.FAILED)

    async def wait_over(self) -> Reason:
        """Wait until the call is over, and return the reason."""
        async for _ in self.phases():
            pass
        return self.reason or Reason.FAILED

    def move_on(self, phase: Phase, reason: Reason | None) -> None:
        """Note a new phase. For `Calls`."""
        self.phase, self.reason = phase, reason
        self._changed.set()


class Calls:
    """The calls of a messenger that has been started. Use it with `async with`; `async for` yields ringing calls.

    Within the block this device rings, as other devices of the person do. `relays` are URLs (`relay://...`): calls
    from here reserve a place at the first of them, for media that finds no direct way. `book` has the limits, and
    `clock` returns Unix time in ms.
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
        #: Offered calls whose outcome isn't known yet. The messenger keeps them.
        self._offered: set[bytes] = set()
        self._tasks = TaskSet()

    async def __aenter__(self) -> Self:
        """Begin to receive calls."""
        if self.messenger.inbox.on_call_signal is not None:
            raise CallError("this messenger has a `Calls` already: use that one")
        self.messenger.inbox.on_call_signal = self._on_signal
        self._sending = start_task(self._send_always(), name="dtp-calls-send")
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Hang up, and receive no more calls."""
        self.messenger.inbox.on_call_signal = None
        if self._current is not None:
            self.hang_up(self._current.id)
        self._run_commands(self._book.miss_calls())
        if self._timer is not None:
            self._timer.cancel()
        self._outgoing.put_nowait(None)
        # The other end is told that the call has ended, even if this is cancelled.
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
        """Call all devices of a person, and return the call. `media` is closed when the call ends.

        Raise `CallError` during another call, `UnknownContact`, `ConsentNeeded`, `ContactBlocked` or `MediaUnusable`.
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
        """Answer a ringing call, for `ActiveCall.answer`."""
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
        """Return a tunnel to the caller, or None if the relay can't be reached: there may be a direct way."""
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
        """Refuse a ringing call, for `ActiveCall.refuse`."""
        self._run_commands(self._book.refuse_call(call))

    def hang_up(self, call: bytes) -> None:
        """End a call, for `ActiveCall.hang_up`."""
        self._run_commands(self._book.hang_up(call))

    # ---- commands of the book ----------------------------------------------------------------------------------

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
        """Send queued signals, in order."""
        while (send := await self._outgoing.get()) is not None:
            own = self.messenger.correspondence.own_devices if send.own else ()
            devices = [*send.devices, *own]
            try:
                if devices:
                    await self.messenger.signal_call(devices, send.signal)
            except DtpError as fault:  # the store can't write, or a queue is full: the call times out
                log.warning("a signal about a call isn't sent: %s", fault)


async def _close(call: ActiveCall) -> None:
    if call.media is not None:
        await call.media.close()
    if call.tunnel is not None:
        await call.tunnel.close()
