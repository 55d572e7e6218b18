"""What all streams whose protocol the daemon understands have in common: counted and timed bytes, one backend, one
end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from dtp.daemon.http.parsing import Parsing
from dtp.daemon.policies import Bounds, Caller, Denial, MethodCall
from dtp.daemon.reasons import Reason, words
from dtp.daemon.relays.ledger import Ending
from dtp.daemon.relays.relay import Counts, told
from dtp.errors import DtpError
from dtp.net.stream import Stream

if TYPE_CHECKING:
    from dtp.daemon.relays.expose import Exposed
    from dtp.daemon.relays.sockets import BackendLink

_T = TypeVar("_T")

#: Bytes per read.
READ = 64 * 1024
#: The most bytes of a head. A client that sends more is malicious.
HEAD_SIZE = 32 * 1024


class Ended(Exception):
    """The stream has to end now, for this reason."""

    def __init__(self, reason: Reason, why: str = "") -> None:
        super().__init__(why or words(reason))
        self.reason, self.why = reason, str(self)


class Conversation:
    """A stream whose protocol is understood, and its connection to a backend. A `Session` of the ledger."""

    def __init__(
        self, exposed: Exposed, caller: Caller, stream: Stream, bounds: Bounds, *, keep: float | None
    ) -> None:
        """`keep`: the seconds after which a client that sends nothing is idle, where the rules don't say."""
        self.stream = stream
        self.counts = Counts()
        self._kept = 0
        self.why = ""
        self.ended = False
        #: The service that serves it, which may be another one after a reload.
        self.exposed = exposed
        self._caller, self._bounds = caller, bounds
        self._parsing = Parsing.of_loop(asyncio.get_running_loop())
        self._patience = bounds.idle or keep
        self._link: BackendLink | None = None
        self._task = asyncio.current_task()
        self._moved, self._moved_at = 0, 0.0
        #: Bytes read in this turn of the event loop.
        self._in_a_row = 0
        self._aborted: Reason | None = None
        #: Admitted requests that are on hold until they are paid, by `id`.
        self._unpaid: dict[int, MethodCall] = {}
        #: Why no more of the answer may be sent.
        self._used_up: Reason | None = None

    @property
    def kept(self) -> int:
        """Return how many bytes were read and are waiting for the bytes that follow them."""
        return self._kept

    @property
    def link(self) -> BackendLink | None:
        """The current connection to a backend; None without one."""
        return self._link

    async def _wait_to_parse(self, size: int) -> None:
        """Return when `size` bytes may be parsed, which must be done at once. Raise `Ended` when the client no
        longer wants the answer: a flood of clients that give up opens thousands of streams, and most have given up
        by their turn."""
        await self._parsing.wait_turn(size, self.stream.connection.account)
        if size and self.stream.write_error is not None:
            raise Ended(Reason.CLIENT_GONE)

    def abort(self, reason: Reason) -> None:
        """End now. Idempotent."""
        if not self.ended and self._task is not None:
            self._aborted = self._aborted or reason
            self._task.cancel()

    def finish(self, end: Ending) -> None:
        """Accept nothing new, except as `end` says. What is under way may finish."""
        raise NotImplementedError

    async def run(self) -> None:
        """Serve the stream until it ends. Only `CancelledError` is raised."""
        try:
            await self._serve_stream()
        except Ended as end:
            self._reset_stream(end.reason, end.why)
        except DtpError as error:
            self._reset_stream(Reason.BACKEND_BROKE, told(error))
            # The stream keeps the error, whose traceback refers to everything here: only the garbage collector
            # would free it.
            error.__traceback__ = None
        except OSError as error:
            self._reset_stream(
                Reason.BACKEND_BROKE, f"{words(Reason.BACKEND_BROKE)}: {error.strerror or error}"
            )
        except asyncio.CancelledError:
            reason = self._aborted or Reason.DRAINING
            self._reset_stream(reason, words(reason))
            raise
        finally:
            self.ended = True
            self._release_calls(self._held_calls(), paid=False)
            self._drop_link()

    async def _serve_stream(self) -> None:
        """Serve the stream until its regular end. Raise `Ended`, or what reading and writing raise."""
        raise NotImplementedError

    async def _answer_late(self) -> None:
        """Count a malformed request, and wait before it is answered as long as its caller has to wait by now."""
        if delay := self.exposed.malformed.count_request(self._caller, asyncio.get_running_loop().time()):
            self._moved_at = max(self._moved_at, asyncio.get_running_loop().time() + delay)
            await asyncio.sleep(delay)

    async def _in_time(self, doing: Awaitable[_T]) -> _T:
        """Await `doing` for as long as a stream may take, and raise `Ended` after that. A time-out of the operating
        system is passed on as any other error."""
        scope = asyncio.timeout(self._bounds.time)
        try:
            async with scope:
                return await doing
        except TimeoutError:
            if scope.expired():
                raise Ended(Reason.TIME) from None
            raise

    async def _read_rest(self) -> None:
        """Send no more, but read for a while what the client is still sending.

        Unread bytes would reset the connection at the client before it has read our final answer.
        """
        self.stream.write_eof()
        with contextlib.suppress(TimeoutError, Ended, DtpError):
            async with asyncio.timeout(self.exposed.patience.last_words):
                while await self._read_client(READ):
                    pass

    def _reset_stream(self, reason: Reason, why: str) -> None:
        self.why = self.why or why
        self.stream.reset(reason)

    def _is_asking(self) -> bool:
        """True if nothing that could be cut off is under way: what comes next is a request, which is judged and
        answered."""
        raise NotImplementedError

    # ---- requests -----------------------------------------------------------------------------------------

    def _ask_policies(self, call: MethodCall) -> Denial | None:
        """Return why a request isn't allowed, or None. Where requests are paid one by one, an allowed one is on
        hold until `_pay_calls` or `_release_calls`."""
        denial = self.exposed.ask_policies(call)
        if denial is None and self.exposed.charge is not None:
            self._unpaid[id(call)] = call
        return denial

    def _held_calls(self) -> tuple[MethodCall, ...]:
        """Return the requests that are on hold."""
        return tuple(self._unpaid.values())

    async def _pay_calls(self, calls: Sequence[MethodCall]) -> Denial | None:
        """Pay for requests that are on hold; return why that failed, or None."""
        denial = await self.exposed.bill_requests(self._caller, self.stream, len(calls))
        self._release_calls(calls, paid=denial is None)
        return denial

    def _release_calls(self, calls: Sequence[MethodCall], *, paid: bool) -> None:
        for call in calls:
            del self._unpaid[id(call)]
            self.exposed.release_call(call, paid=paid)

    # ---- bytes --------------------------------------------------------------------------------------------

    async def _read_client(self, size: int) -> bytes:
        return await self._count_read(await self._read_uncounted(size))

    async def _read_uncounted(self, size: int) -> bytes:
        return await self._run_in_time(lambda: self.stream.read(size), self._patience)

    async def _count_read(self, data: bytes) -> bytes:
        """Return `data`, which was just read, once it may be passed on."""
        self.counts.received += len(data)
        await self._count_moved(len(data))
        if self._in_a_row >= READ:  # reading doesn't wait while there is more
            await asyncio.sleep(0)
        if not self._in_a_row:
            asyncio.get_running_loop().call_soon(self._turn_over)
        self._in_a_row += len(data)
        return data

    def _turn_over(self) -> None:
        self._in_a_row = 0

    def _write_client(self, data: bytes) -> None:
        self.counts.sent += len(data)
        self.stream.write(data)

    async def _read_backend(self, size: int) -> bytes:
        assert self._link is not None
        if self._used_up is not None and not self._is_asking():
            raise Ended(self._used_up)
        reader = self._link.reader
        data = await self._run_in_time(lambda: reader.read(size), self._bounds.idle)
        try:
            await self._count_moved(len(data))
        except Ended as end:
            if end.reason is Reason.SIZE:
                raise
            # The backend has done its work. What is cut off is the rest of a long answer; a short one is complete
            # already.
            self._used_up = end.reason
        return data

    async def _count_moved(self, size: int) -> None:
        """Count bytes of a request or its answer, and wait as long as a rate demands."""
        self._moved += size
        now = asyncio.get_running_loop().time()
        self._moved_at = max(self._moved_at, now)
        if self._bounds.data is not None and self._moved > self._bounds.data:
            raise Ended(Reason.SIZE)
        if self._is_asking():
            self._used_up = None
            verdict: float | Reason = self.exposed.compute_delay(self._caller, size)
        else:
            verdict = self.exposed.count_moved(self._caller, size)
        if isinstance(verdict, Reason):
            raise Ended(verdict)
        if verdict:
            # We are holding the bytes back: until they go on, neither side counts as silent.
            self._moved_at = max(self._moved_at, now + verdict)
            await asyncio.sleep(verdict)

    async def _run_in_time(self, act: Callable[[], Awaitable[_T]], seconds: float | None) -> _T:
        """Await `act` as long as bytes move; raise `Ended` after both sides have been silent for `seconds`."""
        if seconds is None:
            return await act()
        loop = asyncio.get_running_loop()
        since = loop.time()
        while True:
            until = max(since, self._moved_at) + seconds
            scope = asyncio.timeout_at(until)
            try:
                async with scope:
                    return await act()
            except TimeoutError:
                if not scope.expired():
                    raise  # of the operating system
                if max(since, self._moved_at) + seconds <= until:
                    raise Ended(Reason.IDLE) from None

    # ---- the backend --------------------------------------------------------------------------------------

    def _drop_link(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None
