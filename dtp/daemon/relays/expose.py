"""The server side of a service: a caller's stream passes the policies and is joined with a backend."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from dtp.daemon.config.model import OWN, Expose
from dtp.daemon.config.values import LocalPlace
from dtp.daemon.http.malformed import MalformedRequests
from dtp.daemon.http.parsing import LEAST, Parsing
from dtp.daemon.observing.requests import Answered, Requests, log_request
from dtp.daemon.patience import PATIENCE, Patience
from dtp.daemon.policies import (
    Arrive,
    Bounds,
    Caller,
    Clock,
    Close,
    Denial,
    FindLogin,
    MethodCall,
    Move,
    Open,
    Policy,
    PolicyChain,
    find_nobody,
    moment,
)
from dtp.daemon.policies.concurrency import ConcurrencyPolicy
from dtp.daemon.policies.words import price_words, words
from dtp.daemon.reasons import TELLINGS, Reason
from dtp.daemon.relays import udp
from dtp.daemon.relays.backends.balancing import Backend
from dtp.daemon.relays.backends.dialer import DIALER, BackendDialer
from dtp.daemon.relays.backends.service_backends import Dialled, ServiceBackends
from dtp.daemon.relays.dropped import BackendDrops, Dropped
from dtp.daemon.relays.ledger import LAST_REQUEST, Ending, ServedSession, SessionLedger
from dtp.daemon.relays.relay import Counts, StreamRelay
from dtp.daemon.relays.service_log import ServiceLog
from dtp.daemon.relays.sockets import BackendLink, NoDescriptors
from dtp.net.connection import Connection
from dtp.net.stream import Stream
from dtp.session.codes import Refuse
from dtp.tasks import start_task

if TYPE_CHECKING:
    from dtp.daemon.answered.stream import Answer, AnsweredStream, Answering
    from dtp.daemon.http.conversation import Conversation
    from dtp.daemon.relays.absent import Absent
    from dtp.peers.reach.relay import Relay as RelayService

log = logging.getLogger("dtpd")

#: Kinds of services whose requests are counted when they are answered.
_ANSWERED = ("http", "json-rpc", "websocket")


def _short(error: NoDescriptors) -> Denial:
    """Return a denial for a lack of descriptors. It is ours, not the backend's fault, so the backend stays up and
    no other is tried."""
    return Denial("descriptors", Reason.NO_DESCRIPTORS, str(error))


#: Makes a session that speaks the service's protocol, for an admitted stream.
_MakeConversation = Callable[["Exposed", Caller, Stream, "Bounds"], "Conversation"]


def _conversation_of(kind: str) -> _MakeConversation | None:
    """Return what makes sessions for a kind of service; None where bytes are passed on as they are."""
    if kind == "grpc":
        from dtp.daemon.http.grpc_session import GrpcSession

        return GrpcSession
    if kind == "json-rpc":
        from dtp.daemon.http.rpc_session import RpcSession

        return RpcSession
    if kind in ("http", "websocket"):
        from dtp.daemon.http.session import HttpSession

        return HttpSession
    return None


class Exposed:
    """A service that is exposed. After a reload another one takes its place, and this one finishes what is open."""

    def __init__(
        self,
        config: Expose,
        policies: Iterable[Policy],
        *,
        clock: Clock = moment,
        dialer: BackendDialer = DIALER,
        patience: Patience = PATIENCE,
    ) -> None:
        self.config = config
        self.patience = patience
        self._clock = clock
        self.chain = PolicyChain(policies)
        self.backends = ServiceBackends(config, dialer, self.with_logins, patience.flush)
        self.log = ServiceLog(config.service, clock)
        self.ledger = SessionLedger()
        #: For services whose requests are parsed.
        self.requests = Requests()
        #: Counts requests that couldn't be parsed.
        self.malformed = MalformedRequests()
        #: Admitted streams that aren't over: those in the ledger, and those that wait for a backend.
        self.active = 0
        #: Dropped datagrams of a UDP service.
        self.dropped = Dropped(config.service)
        self._full: dict[LocalPlace, BackendDrops] = {}
        self._opening: set[asyncio.Task[None]] = set()
        #: For a service of kind relay, once somebody has connected.
        self._relays: RelayService | None = None
        #: For services of kind mailbox, login, tips or broadcast.
        self.answering: Answering | None = None
        #: Tells who is logged in, where callers have to be.
        self.find_login: FindLogin = find_nobody
        #: Loaded now rather than with the first stream, for which all others would have to wait.
        self._conversation = _conversation_of(config.kind)
        #: Ends dead sessions of a caller when there is no room for a new one otherwise.
        self.absent: Absent | None = None
        #: Charges for requests that are paid one by one; returns "" or why they weren't paid. None where nothing is
        #: paid.
        self.charge: Callable[[Connection, int], Awaitable[str]] | None = None

    @property
    def denials(self) -> Counter[str]:
        """How often callers were refused, by the name of the policy."""
        return self.log.denials

    async def wait_empty(self) -> None:
        """Wait until no stream is open or waiting for a backend."""
        await self.ledger.wait_empty(self._opening)

    def abort_streams(self, reason: Reason) -> None:
        """End all streams now."""
        self.backends.stop_checks()
        for task in list(self._opening):
            task.cancel()
        self.ledger.abort_sessions(reason)

    def get_status(self, now: float) -> dict[str, Any]:
        """Return the status for `Daemon.get_status`; `now` is by the monotonic clock."""
        return {
            "service": self.config.service,
            "kind": self.config.kind,
            **self.ledger.get_status(),
            **({"requests": self.requests.get_status()} if self.config.kind in _ANSWERED else {}),
            **({"calls": self._count_calls()} if self.config.kind == "grpc" else {}),
            "denials": dict(self.log.denials),
            **({"dropped": dict(self.dropped.counts)} if self.config.kind == "udp" else {}),
            **({"relay": self._relay_status()} if self.config.kind == "relay" else {}),
            **({} if self.answering is None else self.answering.get_status()),
            "rules": [*words(self.config.rules), *price_words(self.config.price)],
            "backends": self.backends.get_status(now),
        }

    def _count_calls(self) -> int:
        from dtp.daemon.http.grpc_session import GrpcSession

        return sum(each.calls for each in self.ledger.open if isinstance(each, GrpcSession))

    def _relay_status(self) -> dict[str, object]:
        """Return what a relay has open, and what it has joined so far."""
        relays = self._relays
        if relays is None:
            return {"reservations": 0, "circuits": 0}
        book = relays.book
        return {
            "reservations": book.reservations,
            "circuits": book.circuits,
            "bytes": relays.counters["bytes"],
        }

    # ---- a caller comes -----------------------------------------------------------------------------------

    def admit_caller(self, caller: Caller) -> None:
        """Admit a connection, or raise `Refuse`."""
        denial = self.chain.ask_policies(Arrive(caller), self._clock())
        if denial is not None:
            self.log.log_denial(denial, caller)
            raise Refuse(
                TELLINGS[denial.reason].close, f"{denial.policy}: {denial.why}", detail=denial.reason
            )

    def with_logins(self, caller: Caller) -> Caller:
        """Return the caller with its current login, where the service requires one."""
        if self.config.rules.login is None:
            return caller
        found = self.find_login(caller.peer.key, self._clock().unix)
        return caller if found is None else replace(caller, login=found)

    def take_stream(self, connection: Connection, caller: Caller, stream: Stream) -> None:
        """Serve a stream that a caller has opened."""
        self.ledger.streams += 1
        opened = Open(caller)
        denial = self._may_open(opened)
        if denial is None:
            self._let_in(caller, stream, opened)
        elif (
            denial.policy == ConcurrencyPolicy.name
            and self.absent is not None
            and self.absent.has_others(connection)
        ):
            self._take_up(stream, self._take_in_room(self.absent, caller, stream, opened), lambda: None)
        else:
            self._deny_stream(denial, caller, stream)

    async def _take_in_room(self, absent: Absent, caller: Caller, stream: Stream, opened: Open) -> None:
        """Ask the policies again after the caller's dead sessions have been ended."""
        await absent.make_room(stream.connection)
        if (denial := self._may_open(opened)) is None:
            self._let_in(caller, stream, opened)
        else:
            self._deny_stream(denial, caller, stream)

    def _may_open(self, opened: Open) -> Denial | None:
        """Return why a stream isn't allowed; without a denial it counts as open."""
        now = self._clock()
        denial = self.chain.ask_policies(opened, now)
        whole = self.config.kind in ("tcp", "udp", *OWN)  # the stream is the request
        if (
            denial is None
            and whole
            and (denial := self.chain.ask_policies(MethodCall(opened.caller), now)) is not None
        ):
            self.chain.commit_event(Close(opened.caller), now)
        return denial

    def _let_in(self, caller: Caller, stream: Stream, opened: Open) -> None:
        self.active += 1
        if self.config.kind != "udp" and self.compute_delay(caller, 0):
            self._go_on(caller, stream, self._begin_delayed(caller, stream, opened))
        else:
            self._begin_stream(caller, stream, opened)

    def _begin_stream(self, caller: Caller, stream: Stream, opened: Open) -> None:
        if self.config.kind == "udp":
            self._serve_udp(caller, stream, opened)
        elif self.config.kind == "tcp":
            self._serve_now(caller, stream, opened)
        elif self.config.kind == "relay":
            self._go_on(caller, stream, self._join_peer(caller, stream))
        elif self.answering is not None:
            session = self.answering.make_session(stream)
            self._go_on(caller, stream, self._run_answer(caller, session, self.answering.answer))
        else:
            self._go_on(caller, stream, self._run_conversation(caller, stream, opened))

    def take_over(self, session: Conversation, caller: Caller) -> Bounds:
        """Serve a session from now on in place of the previous service; return its bounds here.

        Since it is open already, a lower limit doesn't end it, but it ends if its caller isn't admitted any more.
        """
        session.exposed.ledger.leave_session(session)
        session.exposed._end_stream(caller)
        session.exposed, session.counts = self, Counts()
        opened, now = Open(caller), self._clock()
        self.chain.commit_event(opened, now)
        self.active += 1
        self.ledger.streams += 1
        self.ledger.add_session(session)
        denial = self.chain.ask_policies(Arrive(caller), now)
        if denial is not None:
            self.log.log_denial(denial, caller)
            session.abort(denial.reason)
        return self.chain.stream_bounds(opened)

    async def _begin_delayed(self, caller: Caller, stream: Stream, opened: Open) -> None:
        """Begin once the byte rate allows it. The first window of each stream passes unchecked, so that many
        streams would multiply the rate."""
        while delay := self.compute_delay(caller, 0):  # noqa: ASYNC110 - only time has to pass
            await asyncio.sleep(delay)
        self._begin_stream(caller, stream, opened)

    def _go_on(self, caller: Caller, stream: Stream, serving: Coroutine[None, None, None]) -> None:
        self._take_up(stream, serving, lambda: self._end_stream(caller))

    def _take_up(
        self, stream: Stream, serving: Coroutine[None, None, None], given_up: Callable[[], object]
    ) -> None:
        """Serve a stream in a task; `given_up` is called if that is cancelled."""

        def done(task: asyncio.Task[None]) -> None:
            self._opening.discard(task)
            if task.cancelled():  # it may be cancelled before its first step, so it can't do this itself
                stream.reset(Reason.DRAINING)
                given_up()

        task = start_task(stream.connection.count_work(serving), name="dtpd-opening")
        self._opening.add(task)
        task.add_done_callback(done)

    def refuse_stream(self, caller: Caller, stream: Stream, denial: Denial) -> None:
        """Refuse a stream for a reason that isn't a rule."""
        self.ledger.streams += 1
        self._deny_stream(denial, caller, stream)

    def _deny_stream(self, denial: Denial, caller: Caller, stream: Stream) -> None:
        self.ledger.failed += 1
        self.log.log_denial(denial, caller)
        stream.reset(denial.reason)

    def ask_policies(self, call: MethodCall) -> Denial | None:
        """Return why a request on an open stream isn't allowed, or None; a denial is logged.

        Where requests are paid one by one, an allowed one is on hold until `release_call`.
        """
        denial = (self.chain.ask_policies if self.charge is None else self.chain.hold_call)(
            call, self._clock()
        )
        if denial is not None:
            self.log.log_denial(denial, call.caller)
        return denial

    def release_call(self, call: MethodCall, *, paid: bool) -> None:
        """Take a request off hold, which was paid or won't be."""
        self.chain.release_call(call, self._clock(), happened=paid)

    async def bill_requests(self, caller: Caller, stream: Stream, units: int) -> Denial | None:
        """Charge for a stream's requests where these are paid one by one; return why that failed, which is logged,
        or None."""
        assert self.charge is not None
        why = await self.charge(stream.connection, units)
        if not why:
            return None
        denial = Denial("price", Reason.UNPAID, why)
        self.log.log_denial(denial, caller)
        return denial

    def note_answered(self, caller: Caller, request: Answered) -> None:
        """Count an answered request, and log it if configured."""
        self.requests.add_request(request)
        log_request(self.config.service, caller, request)

    def count_moved(self, caller: Caller, size: int) -> float | Reason:
        """Count bytes of an open stream; return the seconds to wait before reading on, or why it must end."""
        if not self.chain.counts_bytes:
            return 0.0
        verdict = self.chain.count_moved(Move(caller, size), self._clock())
        if isinstance(verdict, Denial):
            self.log.log_denial(verdict, caller)
            return verdict.reason
        return verdict

    def compute_delay(self, caller: Caller, size: int) -> float:
        """Count bytes of a request whose quotas are checked separately, so that it can be told more than that its
        stream ends. Return the seconds to wait before reading on."""
        return self.chain.compute_delay(Move(caller, size), self._clock()) if self.chain.counts_bytes else 0.0

    # ---- kinds of services --------------------------------------------------------------------------------

    def _serve_now(self, caller: Caller, stream: Stream, opened: Open) -> None:
        """Join the stream with a backend, at once if possible, which saves a task. Otherwise a new connection takes
        1.4 times the processor time."""
        began = time.monotonic()
        tried: list[Backend] = []
        try:
            dialled, backend = self.backends.dial_now(caller, began, tried)
        except NoDescriptors as error:
            self._deny_stream(_short(error), caller, stream)
            self._end_stream(caller)
            return
        if dialled is not None:
            self._join_backend(caller, stream, opened, began, dialled)
        else:
            self._go_on(caller, stream, self._serve_tcp(caller, stream, opened, began, tried, backend))

    async def _serve_tcp(
        self,
        caller: Caller,
        stream: Stream,
        opened: Open,
        began: float,
        tried: list[Backend],
        chosen: Backend | None,
    ) -> None:
        """Join the stream with a backend that has to be waited for: `chosen`, or another that wasn't tried."""
        try:
            dialled = await self.backends.dial_backend(caller, tried, chosen)
        except NoDescriptors as error:
            self._deny_stream(_short(error), caller, stream)
            self._end_stream(caller)
            return
        if dialled is None:
            self.ledger.failed += 1
            stream.reset(Reason.NO_BACKEND)
            self._end_stream(caller)
        else:
            self._join_backend(caller, stream, opened, began, dialled)

    def _join_backend(
        self, caller: Caller, stream: Stream, opened: Open, began: float, dialled: Dialled
    ) -> None:
        backend, sock, first = dialled

        def ended(relay: StreamRelay) -> None:
            backend.active -= 1
            self._end_session(caller, backend, began, relay)

        self.ledger.add_session(
            StreamRelay(
                stream,
                sock,
                broken=Reason.BACKEND_BROKE,
                on_end=ended,
                first=first,
                meter=partial(self.count_moved, caller) if self.chain.counts_bytes else None,
                bounds=self.chain.stream_bounds(opened),
                patience=self.patience.left,
            )
        )

    def _serve_udp(self, caller: Caller, stream: Stream, opened: Open) -> None:
        """Join the stream's datagrams with a backend's socket. A missing backend looks like a silent one."""
        began = time.monotonic()
        try:
            dialled = self.backends.dial_udp(caller, began)
        except NoDescriptors as error:
            self._deny_stream(_short(error), caller, stream)
            self._end_stream(caller)
            return
        if dialled is None:
            self.ledger.failed += 1
            stream.reset(Reason.NO_BACKEND)
            self._end_stream(caller)
            return
        backend, sock = dialled
        end = udp.BackendSocket(sock, self.dropped, full=self._find_full(backend.place))

        def ended(session: udp.UdpSession) -> None:
            end.close()
            backend.active -= 1
            self._end_session(caller, backend, began, session)

        meter = partial(self.count_moved, caller) if self.chain.counts_bytes else None
        bounds = self.chain.stream_bounds(opened)
        session = udp.UdpSession(
            stream, end.deliver_datagram, ended, dropped=self.dropped, meter=meter, bounds=bounds
        )
        end.start_reading(session)
        self.ledger.add_session(session)

    def _find_full(self, place: LocalPlace) -> BackendDrops | None:
        """Return what counts datagrams that a backend has no room for; None for a backend on another machine."""
        if place.is_local and place not in self._full:
            self._full[place] = BackendDrops(place, self.dropped)
        return self._full.get(place)

    async def _join_peer(self, caller: Caller, stream: Stream) -> None:
        """Join the stream with a stream of another peer."""
        from dtp.daemon.answered.stream import AnsweredStream
        from dtp.peers.reach.relay import Relay

        if self._relays is None:
            self._relays = Relay(self.config.relay)
        await self._run_answer(caller, AnsweredStream(stream), self._relays.answer_stream)

    async def _run_answer(self, caller: Caller, session: AnsweredStream, answer: Answer) -> None:
        began = time.monotonic()
        self.ledger.add_session(session)
        try:
            with contextlib.suppress(asyncio.CancelledError):  # its client is told
                await session.serve_answer(answer)
        finally:
            self._end_session(caller, None, began, session)

    async def _run_conversation(self, caller: Caller, stream: Stream, opened: Open) -> None:
        """Serve a stream whose protocol is parsed."""
        await Parsing.of_loop(asyncio.get_running_loop()).wait_turn(LEAST, stream.connection.account)
        began = time.monotonic()
        assert self._conversation is not None
        session = self._conversation(self, caller, stream, self.chain.stream_bounds(opened))
        self.ledger.add_session(session)
        if stream.connection.peer_away:
            session.finish(Ending(LAST_REQUEST))
        try:
            with contextlib.suppress(asyncio.CancelledError):  # its client is told
                await session.run()
        finally:
            session.exposed._end_session(caller, None, began, session)

    # ---- backends -----------------------------------------------------------------------------------------

    async def dial_streams(self, caller: Caller) -> BackendLink | Reason:
        """Return a connection to a backend by asyncio's streams, or why there is none."""
        try:
            return await self.backends.dial_streams(caller) or Reason.NO_BACKEND
        except NoDescriptors as error:
            denial = _short(error)
            self.log.log_denial(denial, caller)
            return denial.reason

    def _end_stream(self, caller: Caller) -> None:
        """Note that an admitted stream is over, however far it came."""
        self.active -= 1
        if self.chain.counts_ends:
            self.chain.commit_event(Close(caller), self._clock())

    def _end_session(
        self, caller: Caller, backend: Backend | None, began: float, session: ServedSession
    ) -> None:
        self.ledger.end_session(session)
        self._end_stream(caller)
        self.log.log_ended(caller, "" if backend is None else str(backend.place), began, session)
