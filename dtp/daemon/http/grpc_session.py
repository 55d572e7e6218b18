"""One stream of a gRPC client: its HTTP/2 connection passes through the filter to a backend and back."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from dtp.daemon.http.conversation import READ, Conversation, Ended
from dtp.daemon.http.frames import MalformedHttp2
from dtp.daemon.http.grpc import Filter, Waits
from dtp.daemon.http.headers import Headers, to_grpc_backend
from dtp.daemon.http.parsing import PER_TURN
from dtp.daemon.policies import Bounds, Caller, Denial, MethodCall
from dtp.daemon.reasons import Reason, words
from dtp.daemon.relays.ledger import Ending
from dtp.errors import DtpError
from dtp.net.stream import Stream
from dtp.tasks import TaskSet, start_task

if TYPE_CHECKING:
    from dtp.daemon.relays.expose import Exposed

#: Seconds for which calls are told that there is no backend. Then the client has to connect again, and another
#: backend is tried.
_ALONE = 1.0
#: Bytes of calls are this many times cheaper to parse than those of heads.
_CHEAP = 4
#: The bytes of each read that are counted as heads. Where more of it are heads, they take further turns.
_HEADS = 1024
#: The most frames that wait behind unpaid calls. Nothing more is read after that.
_MOST_HELD = 1024


class GrpcSession(Conversation):
    """Serves a stream until its client or its backend ends it."""

    def __init__(self, exposed: Exposed, caller: Caller, stream: Stream, bounds: Bounds) -> None:
        super().__init__(exposed, caller, stream, bounds, keep=None)
        self._filter = Filter(self._judge_call, self._rewrite_headers)
        self._finishing = False
        #: Tasks that pay for calls, which start once there is a backend.
        self._bills = TaskSet()
        self._linked = asyncio.Event()
        #: Why there is no backend, once that is known.
        self._unlinked = Reason.NO_BACKEND
        #: The number of a frame that has begun, and the time by which it has to be complete.
        self._head = 0
        self._head_until: float | None = None

    def _judge_call(self, number: int, method: str) -> Denial | Waits | None:
        call = MethodCall(self._caller, method)
        denial = self._ask_policies(call)
        if denial is not None or self.exposed.charge is None:
            return denial
        if self._filter.lost is not None:  # it is told so, for nothing
            self._release_calls([call], paid=False)
            return None
        self._bills.start(self._bill_call(number, call), name="dtpd-bill")
        return Waits.YET

    async def _bill_call(self, number: int, call: MethodCall) -> None:
        """Pay for a call, then let it go on. Others may be made and paid meanwhile."""
        await self._linked.wait()
        self._filter.settle_call(number, await self._pay_calls([call]))
        self._forward_calls()
        self._try_flush()

    def _forward_calls(self) -> None:
        """Send what the backend should get now, in the order in which it was asked for."""
        if self._link is not None and (data := self._filter.for_backend()):
            self._link.writer.write(data)

    def _rewrite_headers(self, fields: Headers) -> Headers:
        return to_grpc_backend(fields, self.exposed.with_logins(self._caller), self.exposed.config.service)

    @property
    def kept(self) -> int:
        """Return how many bytes are waiting here for the bytes that follow them."""
        return self._filter.kept

    @property
    def calls(self) -> int:
        """Return the number of calls under way."""
        return self._filter.calls

    def _is_asking(self) -> bool:
        return not self._filter.calls

    def finish(self, end: Ending) -> None:
        """Finish the calls that are open. The client is told to make new ones elsewhere, for which HTTP/2 has a
        frame."""
        if self._finishing:
            return
        self._finishing = True
        self._filter.take_no_more()
        self._try_flush()
        if not self._filter.calls and self._task is not None and not self.ended:
            self._task.cancel()

    async def _serve_stream(self) -> None:
        try:
            await self._in_time(self._serve_calls())
        except MalformedHttp2 as error:
            await self._in_time(self._answer_late())
            self._tell_malformed(error)
            return
        except asyncio.CancelledError:
            if not self._finishing or self._aborted is not None or self._task is None:
                raise
            self._task.uncancel()
        finally:
            for task in self._bills:  # these calls can't be served any more
                task.cancel()
        self._finishing = True  # all was sent: draining now would only cut the reading short
        await self._read_rest()
        self.stream.close()

    def _tell_malformed(self, error: MalformedHttp2) -> None:
        self.why = str(error)
        if not (last := self._filter.last_words(error)):
            raise Ended(Reason.MALFORMED, self.why)
        self._write_client(last)
        self.stream.write_eof()
        self.stream.stop(Reason.MALFORMED)

    async def _serve_calls(self) -> None:
        while not self._filter.begun:
            if not await self._take_client():
                return
        dialled = await self.exposed.dial_streams(self._caller)
        if isinstance(dialled, Reason):
            self._unlinked = dialled
        else:
            self._link = dialled
            self._linked.set()
        count_work = self.stream.connection.count_work
        there = start_task(count_work(self._pump_there()), name="dtpd-there")
        back = start_task(count_work(self._pump_back()), name="dtpd-back")
        try:
            await asyncio.wait((there, back), return_when=asyncio.FIRST_COMPLETED)
            if not back.done():
                there.result()  # the client has ended; the backend may still answer
            if (lost := await back) is not None:
                await self._be_alone(lost, there)
        finally:
            for task in (there, back):
                task.cancel()
            await asyncio.gather(there, back, return_exceptions=True)

    # ---- bytes --------------------------------------------------------------------------------------------

    async def _take_client(self) -> bool:
        """Process what the client sends next; return False at its end. The head of a call has to be complete in
        time."""
        loop = asyncio.get_running_loop()
        halfway = self._filter.halfway
        if halfway is None:
            self._head_until = None
        elif self._head_until is None or self._head != halfway:
            self._head, self._head_until = halfway, loop.time() + self.exposed.patience.head
        try:
            async with asyncio.timeout_at(self._head_until):
                data = await self._read_client(READ)
        except TimeoutError:
            raise Ended(Reason.IDLE) from None
        # A field may be a single byte, which takes as long to parse as eight bytes of an HTTP/1 head.
        await self._wait_to_parse(len(data) // _CHEAP + 8 * (min(len(data), _HEADS) + self._filter.pending))
        for _ in self._filter.in_turns(data):
            await self._pass_on()
            await self._wait_to_parse(PER_TURN)
        await self._pass_on()
        return bool(data)

    async def _pass_on(self) -> None:
        """Send both sides what they should get now, as fast as they read it and as calls are paid."""
        self._forward_calls()
        self._flush_to_client()
        if self._link is not None:
            with contextlib.suppress(OSError):  # reading will raise it
                await self._link.writer.drain()
        while self._linked.is_set() and self._bills and self._filter.held > _MOST_HELD:
            await asyncio.wait(list(self._bills), return_when=asyncio.FIRST_COMPLETED)
        await self.stream.drain()

    def _flush_to_client(self) -> None:
        """Send what the client should get, in the order in which it was made."""
        if data := self._filter.for_client():
            self._write_client(data)

    def _try_flush(self) -> None:
        """Do the same from elsewhere. If the stream has broken off, its reader finds out."""
        with contextlib.suppress(DtpError):
            self._flush_to_client()

    async def _pump_there(self) -> None:
        """Pass on what the client sends, to its end; without a backend, until a call was told so."""
        await self._pass_on()
        while not (self._filter.lost and self._filter.told):
            if not await self._take_client():
                break
        if self._bills:  # calls made before the end may still be paid
            await asyncio.wait(list(self._bills))
        if self._link is not None:
            self._link.writer.write_eof()

    async def _pump_back(self) -> Reason | None:
        """Pass on what the backend sends, to its end; return a reason if somebody still waits for an answer."""
        if self._link is None:
            return self._unlinked
        try:
            while data := await self._read_backend(READ):
                self._filter.from_backend(data)
                self._flush_to_client()
                await self._run_in_time(self.stream.drain, self._bounds.idle)  # perhaps nobody reads
                if self._finishing and not self._filter.calls:
                    return None
        except MalformedHttp2:
            raise Ended(Reason.BACKEND_BROKE) from None
        except DtpError:  # from the client's stream
            raise
        except OSError:  # not all are a `ConnectionError`: there are ETIMEDOUT and EHOSTUNREACH
            return Reason.BACKEND_BROKE
        return Reason.BACKEND_BROKE if self._filter.calls or not self._filter.settled else None

    async def _be_alone(self, reason: Reason, there: asyncio.Future[None]) -> None:
        """Refuse the open calls or, where there are none yet, those of the next moments. The client then connects
        again."""
        self.why = words(reason)
        if not self._filter.lose_backend(reason):
            raise Ended(reason)
        self._flush_to_client()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0 if self._filter.told else _ALONE):
                await there
        self._filter.take_no_more()
        self._flush_to_client()
