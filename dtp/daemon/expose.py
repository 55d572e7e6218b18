"""The server end of a service: a caller's stream, past the policies, to a backend."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections import Counter
from collections.abc import Iterable
from functools import partial

from dtp.carriers.errors import DialError
from dtp.daemon import health
from dtp.daemon.backends import Backend, Balancer
from dtp.daemon.config.model import Expose
from dtp.daemon.ledger import Ledger
from dtp.daemon.policies import Arrive, Call, Caller, Chain, Close, Denial, Moment, Move, Open, Policy
from dtp.daemon.reasons import TELLINGS, Reason
from dtp.daemon.relay import Relay
from dtp.daemon.sockets import connect
from dtp.net.connection import Connection
from dtp.net.stream import Stream
from dtp.session.codes import Refuse

log = logging.getLogger("dtpd")


def moment() -> Moment:
    """Now, by both clocks."""
    return Moment(time.monotonic(), time.time())


def caller_of(connection: Connection) -> Caller:
    """Who a connection is from."""
    return Caller(connection.peer, connection.peer.sui_address, connection.source)


class Exposed:
    """A service that is exposed. After a reload another one has its place, and this one finishes what it has."""

    def __init__(self, config: Expose, policies: Iterable[Policy]) -> None:
        self.config = config
        self.chain = Chain(policies)
        self.balancer = Balancer(config.backends, config.balance, config.slow_start)
        self.ledger = Ledger()
        #: By the policy's name.
        self.denials: Counter[str] = Counter()
        self._watch: asyncio.Task[None] | None = None
        self._opening: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin to look at the backends, if that is wanted."""
        if self.config.health is not None and self._watch is None:
            self._watch = asyncio.create_task(
                health.watch(self.config.service, self.balancer, self.config.health), name="dtpd-health"
            )

    def retire(self) -> None:
        """Look at the backends no more; the streams that are open go on."""
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    def abort(self, reason: Reason) -> None:
        """End all streams now."""
        self.retire()
        for task in list(self._opening):
            task.cancel()
        self.ledger.abort(reason)

    # ---- a caller comes -----------------------------------------------------------------------------------

    def admit(self, caller: Caller) -> None:
        """Let a connection in, or raise `Refuse`."""
        denial = self.chain.ask(Arrive(caller), moment())
        if denial is not None:
            self._log_denial(denial, caller)
            raise Refuse(TELLINGS[denial.reason].close, f"{denial.policy}: {denial.why}")

    def take(self, connection: Connection, caller: Caller, stream: Stream) -> None:
        """Serve a stream that the caller has opened."""
        self.ledger.streams += 1
        now = moment()
        opened = Open(caller)
        denial = self.chain.ask(opened, now)
        if denial is None and (denial := self.chain.ask(Call(caller), now)) is not None:
            self.chain.tell(Close(caller), now)
        if denial is not None:
            self._log_denial(denial, caller)
            stream.reset(denial.reason)
            return
        task = connection._loop.create_task(self._serve(caller, stream, opened))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    def _log_denial(self, denial: Denial, caller: Caller) -> None:
        self.denials[denial.policy] += 1
        log.info(
            "%s: %s refused by %s: %s",
            self.config.service,
            caller.peer.short,
            denial.policy,
            denial.why,
            extra={
                "fields": {
                    "event": "denied",
                    "service": self.config.service,
                    "peer": str(caller.peer),
                    "source": caller.source,
                    "policy": denial.policy,
                    "why": denial.why,
                }
            },
        )

    async def _serve(self, caller: Caller, stream: Stream, opened: Open) -> None:
        """Find a backend and join it with the stream. Nothing was sent yet, so any backend may still have it."""
        began = time.monotonic()
        tried: list[Backend] = []
        try:
            while (backend := self.balancer.choose(str(caller.peer), time.monotonic(), tried)) is not None:
                tried.append(backend)
                sock = await self._connect(backend)
                if sock is not None:
                    break
            else:
                self.ledger.failed += 1
                stream.reset(Reason.NO_BACKEND)
                self.chain.tell(Close(caller), moment())
                return
        except asyncio.CancelledError:
            stream.reset(Reason.DRAINING)
            self.chain.tell(Close(caller), moment())
            raise
        backend.active += 1
        relay = Relay(
            stream,
            sock,
            broken=Reason.BACKEND_BROKE,
            on_end=partial(self._ended, caller, backend, began),
            meter=partial(self._moved, caller) if self.chain.counts_bytes else None,
            bounds=self.chain.bounds(opened),
        )
        self.ledger.add(relay)

    async def _connect(self, backend: Backend) -> socket.socket | None:
        """A socket to the backend; None, and a mark on the backend, when it can't be reached."""
        try:
            async with asyncio.timeout(self.config.connect_timeout):
                sock = await connect(backend.place)
        except (DialError, TimeoutError) as error:
            self.balancer.failed(backend, time.monotonic())
            why = str(error) or f"no answer in {self.config.connect_timeout:g} s"
            log.warning(
                "%s: backend %s: %s",
                self.config.service,
                backend.place,
                why,
                extra={
                    "fields": {
                        "event": "unreachable",
                        "service": self.config.service,
                        "backend": str(backend.place),
                        "why": why,
                    }
                },
            )
            return None
        self.balancer.connected(backend, time.monotonic())
        return sock

    def _moved(self, caller: Caller, size: int) -> float | Reason:
        verdict = self.chain.moved(Move(caller, size), moment())
        if isinstance(verdict, Denial):
            self._log_denial(verdict, caller)
            return verdict.reason
        return verdict

    def _ended(self, caller: Caller, backend: Backend, began: float, relay: Relay) -> None:
        backend.active -= 1
        self.ledger.ended(relay)
        self.chain.tell(Close(caller), moment())
        log.log(
            logging.INFO if relay.why else logging.DEBUG,
            "%s: stream of %s to %s ended%s",
            self.config.service,
            caller.peer.short,
            backend.place,
            f": {relay.why}" if relay.why else "",
            extra={
                "fields": {
                    "event": "ended",
                    "service": self.config.service,
                    "peer": str(caller.peer),
                    "source": caller.source,
                    "backend": str(backend.place),
                    "seconds": round(time.monotonic() - began, 3),
                    "sent": relay.counts.sent,
                    "received": relay.counts.received,
                    "why": relay.why,
                }
            },
        )
