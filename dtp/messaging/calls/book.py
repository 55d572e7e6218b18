"""The state of one device's call, as a value: what is signalled, when it rings, and which device gets it. Signals
and the time go in, commands come out.

A device is in one call at a time. The calling device decides which device has answered first, and tells all others;
they believe no other device about that. Times are in ms. The owner of the book calls `handle_timer` at `deadline`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from dtp.bounded import BoundedDict
from dtp.messaging.calls.signals import MISSED, Reason, Signal, SignalAct
from dtp.messaging.errors import CallError

#: How long a call rings.
RING_MS: Final = 45_000
#: How long it may take from the answer until media flows both ways.
CONNECT_MS: Final = 30_000
#: How long to wait for the reason why media has ended, before the call counts as broken off.
HEAR_MS: Final = 10_000
#: How far apart people's clocks may be. An offer that is older than this and the time of ringing together is a
#: missed call.
SKEW_MS: Final = 60_000
#: Offers of one person in a minute that are processed. Others are ignored.
OFFERS_A_MINUTE: Final = 6
#: Calls that have ended, and people who have called, that are remembered.
_REMEMBERED: Final = 1024
#: Calls that another device may still answer, though this one can't.
_UNANSWERED: Final = 64


class Phase(Enum):
    """The phase of a call."""

    #: It was offered, and no device has reacted yet.
    CALLING = "calling"
    #: One of the called devices says that it rings.
    RINGS_THERE = "rings-there"
    #: It rings here.
    RINGING = "ringing"
    #: It was answered here, but the caller hasn't said yet which device was first.
    ANSWERED = "answered"
    CONNECTING = "connecting"
    TALKING = "talking"
    OVER = "over"


@dataclass
class Call:
    """A call. `devices` are those that it was offered to, or the one that offers it. `device` is the other end,
    once it is known.
    """

    id: bytes
    person: bytes
    phase: Phase
    deadline: int | None
    devices: set[bytes]
    device: bytes = b""
    outgoing: bool = False
    offer: str = ""
    busy: bool = False
    #: Those of `devices` that have said they can't take the call. They are told how it ends, too.
    unable: set[bytes] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class SendSignal:
    """Send a signal to these devices, and with `own` also to the other devices of this person."""

    devices: tuple[bytes, ...]
    signal: Signal
    own: bool = False


@dataclass(frozen=True, slots=True)
class Tell:
    """Tell the program the phase of a call, and the reason if it is over."""

    call: bytes
    phase: Phase
    reason: Reason | None = None


@dataclass(frozen=True, slots=True)
class Connect:
    """Connect media with the description of the device that has answered."""

    call: bytes
    description: str


@dataclass(frozen=True, slots=True)
class Missed:
    """Tell the program that somebody has called, and why the call wasn't answered."""

    call: bytes
    person: bytes
    reason: Reason


Command = SendSignal | Tell | Connect | Missed


@dataclass(frozen=True, slots=True)
class Unanswered:
    """A call that this device can't take, but another device of the person may. It is missed if none has taken it
    by `deadline`.
    """

    person: bytes
    device: bytes
    reason: Reason
    deadline: int


@dataclass
class CallBook:
    """The state of the call of `device`, which is this one."""

    device: bytes
    ring_ms: int = RING_MS
    connect_ms: int = CONNECT_MS
    current: Call | None = None
    _over: BoundedDict[bytes, None] = field(default_factory=lambda: BoundedDict(_REMEMBERED))
    _offers: BoundedDict[bytes, list[int]] = field(default_factory=lambda: BoundedDict(_REMEMBERED))
    _unanswered: dict[bytes, Unanswered] = field(default_factory=dict)

    @property
    def deadline(self) -> int | None:
        """The time at which `handle_timer` is due, None for never."""
        due = [each.deadline for each in self._unanswered.values()]
        if self.current is not None and self.current.deadline is not None:
            due.append(self.current.deadline)
        return min(due, default=None)

    @property
    def remembered(self) -> int:
        """The number of calls that are over or may be missed, and of people who have called, that are remembered."""
        return len(self._over) + len(self._offers) + len(self._unanswered)

    def may_be_missed(self, call: bytes) -> bool:
        """True for a call that was offered to this device and that can still be answered."""
        held = self._current_call(call)
        return call in self._unanswered or (held is not None and held.phase is Phase.RINGING)

    # ---- calls of the program ------------------------------------------------------------------------------------

    def begin_call(
        self,
        call: bytes,
        person: bytes,
        devices: Iterable[bytes],
        description: str,
        now: int,
        *,
        relay: str = "",
    ) -> list[Command]:
        """Call a person's devices. Raise `CallError` if this device is in a call, or if there are no devices."""
        called = tuple(dict.fromkeys(devices))
        if self.current is not None:
            raise CallError("this device is in a call: end that first")
        if not called:
            raise CallError("there is no device to call")
        until = now + self.ring_ms
        self.current = Call(call, person, Phase.CALLING, until, set(called), outgoing=True)
        return [
            SendSignal(called, Signal(call, SignalAct.OFFER, description, relay=relay)),
            Tell(call, Phase.CALLING),
        ]

    def answer_call(self, call: bytes, description: str, now: int) -> list[Command]:
        """Answer a ringing call. Raise `CallError` if it no longer rings."""
        ringing = self._require_ringing(call)
        ringing.phase, ringing.deadline = Phase.ANSWERED, now + self.connect_ms
        answered = Signal(call, SignalAct.ANSWER, description)
        taken = Signal(call, SignalAct.TAKEN, device=self.device)
        return [
            SendSignal((ringing.device,), answered),
            SendSignal((), taken, own=True),
            Tell(call, Phase.ANSWERED),
        ]

    def refuse_call(self, call: bytes, reason: Reason = Reason.REFUSED) -> list[Command]:
        """Refuse a ringing call for all devices of the person, or with FAILED for this one, which can't answer it.
        Raise `CallError` if it no longer rings.
        """
        ringing = self._require_ringing(call)
        end = Signal(call, SignalAct.END, reason=reason)
        return [
            SendSignal((ringing.device,), end, own=reason is not Reason.FAILED),
            *self._end_call(reason),
        ]

    def hang_up(self, call: bytes, reason: Reason = Reason.HUNG_UP) -> list[Command]:
        """End a call in any phase. Do nothing if it is over."""
        held = self._current_call(call)
        if held is None:
            return []
        others = (held.device,) if held.device else tuple(sorted(held.devices))
        return [SendSignal(others, Signal(call, SignalAct.END, reason=reason)), *self._end_call(reason)]

    def media_is_up(self, call: bytes) -> list[Command]:
        """Note that media flows both ways."""
        held = self._current_call(call)
        if held is None or held.phase not in (Phase.CONNECTING, Phase.ANSWERED):
            return []
        held.phase, held.deadline = Phase.TALKING, None
        return [Tell(call, Phase.TALKING)]

    def media_failed(self, call: bytes) -> list[Command]:
        """End a call whose media doesn't get through."""
        return self.hang_up(call, Reason.FAILED)

    def media_broke_off(self, call: bytes, now: int) -> list[Command]:
        """Note that media has ended. If the other end has hung up, its signal comes soon."""
        if (held := self._current_call(call)) is not None:
            held.deadline = now + HEAR_MS
        return []

    def handle_timer(self, now: int) -> list[Command]:
        """Give up what has waited for too long."""
        return [*self.miss_calls(now), *self._give_up_call(now)]

    def miss_calls(self, now: int | None = None) -> list[Command]:
        """Return the commands for calls that are missed by `now`, or for all unanswered calls if `now` is None."""
        due = [call for call, each in self._unanswered.items() if now is None or now >= each.deadline]
        return [self._miss_call(call) for call in due]

    def _give_up_call(self, now: int) -> list[Command]:
        held = self.current
        if held is None or held.deadline is None or now < held.deadline:
            return []
        if held.phase is Phase.RINGING:  # the caller says the same to all
            return [Missed(held.id, held.person, Reason.NO_ANSWER), *self._end_call(Reason.NO_ANSWER)]
        if held.phase in (Phase.CALLING, Phase.RINGS_THERE):
            return self.hang_up(held.id, Reason.BUSY if held.busy else Reason.NO_ANSWER)
        return self.media_failed(held.id)

    # ---- signals -------------------------------------------------------------------------------------------------

    def receive_signal(
        self, device: bytes, person: bytes, signal: Signal, *, own: bool, sent: int, now: int
    ) -> list[Command]:
        """Process a signal from a device of a person, both of which the caller has verified. `own` says that it is
        another device of this person.
        """
        if own:
            return self._of_own_device(signal)
        if signal.act is SignalAct.OFFER:
            return self._on_offer(device, person, signal, sent, now)
        if (waiting := self._unanswered.get(signal.call)) is not None:
            return self._of_unanswered(signal) if waiting.device == device else []
        held = self._current_call(signal.call)
        if held is None or held.person != person or device not in held.devices:
            # it may come before its offer, from another device of ours
            if signal.act is SignalAct.END:
                self._mark_over(signal.call)
            return []
        if held.outgoing:
            return self._of_called(held, device, signal, now)
        return self._of_caller(held, signal, now)

    def _of_unanswered(self, signal: Signal) -> list[Command]:
        """Process the caller's signal about a call that this device can't take."""
        if signal.act is SignalAct.END and signal.reason in MISSED:
            return [self._miss_call(signal.call)]
        if signal.act in (SignalAct.TAKEN, SignalAct.END):
            del self._unanswered[signal.call]
        return []

    def _of_own_device(self, signal: Signal) -> list[Command]:
        self._unanswered.pop(signal.call, None)
        held = self._current_call(signal.call)
        if held is None:
            self._mark_over(signal.call)
        elif held.phase is Phase.RINGING and signal.act is SignalAct.TAKEN:
            return self._end_call(Reason.TAKEN)
        elif held.phase is Phase.RINGING and signal.act is SignalAct.END:
            return self._end_call(signal.reason or Reason.REFUSED)
        return []

    def _on_offer(self, device: bytes, person: bytes, signal: Signal, sent: int, now: int) -> list[Command]:
        if signal.call in self._over or self._current_call(signal.call) or not self._admit_offer(person, now):
            return []
        if now - sent > self.ring_ms + SKEW_MS:
            return self._leave_call(signal.call, Unanswered(person, device, Reason.NO_ANSWER, now + HEAR_MS))
        commands: list[Command] = []
        if (held := self.current) is not None:
            crossed = held.person == person and held.phase in (Phase.CALLING, Phase.RINGS_THERE)
            if crossed and signal.call > held.id:  # the other end finds the same, and ends that call
                self._mark_over(signal.call)
                return []
            if not crossed:
                busy = SendSignal((device,), Signal(signal.call, SignalAct.END, reason=Reason.BUSY))
                missed = Unanswered(person, device, Reason.BUSY, now + self.ring_ms + HEAR_MS)
                return [busy, *self._leave_call(signal.call, missed)]
            commands = self.hang_up(held.id, Reason.CROSSED)
        self.current = Call(
            *(signal.call, person, Phase.RINGING, now + self.ring_ms, {device}, device),
            offer=signal.description,
        )
        rings = SendSignal((device,), Signal(signal.call, SignalAct.RINGING))
        return [*commands, rings, Tell(signal.call, Phase.RINGING)]

    def _of_called(self, held: Call, device: bytes, signal: Signal, now: int) -> list[Command]:
        waits = held.phase in (Phase.CALLING, Phase.RINGS_THERE)
        if signal.act is SignalAct.RINGING and held.phase is Phase.CALLING:
            held.phase = Phase.RINGS_THERE
            return [Tell(held.id, Phase.RINGS_THERE)]
        if signal.act is SignalAct.ANSWER and waits:
            held.phase, held.device, held.deadline = Phase.CONNECTING, device, now + self.connect_ms
            taken = SendSignal(tuple(sorted(held.devices)), Signal(held.id, SignalAct.TAKEN, device=device))
            return [taken, Tell(held.id, Phase.CONNECTING), Connect(held.id, signal.description)]
        if signal.act is not SignalAct.END or signal.reason is None:
            return []
        if not waits:
            return self._end_call(signal.reason) if device == held.device else []
        if signal.reason in (Reason.BUSY, Reason.FAILED):  # that device can't: others still ring
            held.unable.add(device)
            held.busy |= signal.reason is Reason.BUSY
            return [] if held.devices - held.unable else self.hang_up(held.id, signal.reason)
        others = tuple(sorted(held.devices - {device}))
        return [
            SendSignal(others, Signal(held.id, SignalAct.END, reason=signal.reason)),
            *self._end_call(signal.reason),
        ]

    def _of_caller(self, held: Call, signal: Signal, now: int) -> list[Command]:
        if signal.act is SignalAct.TAKEN:
            if signal.device != self.device:
                return self._end_call(Reason.TAKEN)
            if held.phase is Phase.ANSWERED:
                held.phase = Phase.CONNECTING
                return [Tell(held.id, Phase.CONNECTING)]
        if signal.act is SignalAct.END and signal.reason is not None:
            rang = held.phase is Phase.RINGING and signal.reason in MISSED
            missed: list[Command] = [Missed(held.id, held.person, signal.reason)] if rang else []
            return [*missed, *self._end_call(signal.reason)]
        return []

    # ---- memory --------------------------------------------------------------------------------------------------

    def _current_call(self, call: bytes) -> Call | None:
        return self.current if self.current is not None and self.current.id == call else None

    def _require_ringing(self, call: bytes) -> Call:
        held = self._current_call(call)
        if held is None or held.phase is not Phase.RINGING:
            raise CallError("that call doesn't ring here any more")
        return held

    def _end_call(self, reason: Reason) -> list[Command]:
        held, self.current = self.current, None
        assert held is not None
        self._mark_over(held.id)
        return [Tell(held.id, Phase.OVER, reason)]

    def _leave_call(self, call: bytes, to_others: Unanswered) -> list[Command]:
        """Leave a call to the person's other devices. Return the oldest such call as missed if there are too many."""
        self._mark_over(call)
        full = len(self._unanswered) == _UNANSWERED
        missed: list[Command] = [self._miss_call(next(iter(self._unanswered)))] if full else []
        self._unanswered[call] = to_others
        return missed

    def _miss_call(self, call: bytes) -> Command:
        missed = self._unanswered.pop(call)
        return Missed(call, missed.person, missed.reason)

    def _mark_over(self, call: bytes) -> None:
        self._over[call] = None

    def _admit_offer(self, person: bytes, now: int) -> bool:
        """Count an offer, and return True unless the person has called too often within a minute."""
        recent = [each for each in self._offers.get(person, []) if now - each < 60_000]
        admitted = len(recent) < OFFERS_A_MINUTE
        self._offers[person] = [*recent, now] if admitted else recent
        return admitted
