"""One stream that speaks gRPC: a client's HTTP/2 connection, through the filter, to a backend and back."""

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

#: Without a backend: so long calls are told so, then the client has to connect anew, and another one is tried.
_ALONE = 1.0
#: So many times less than those of heads it takes to go through bytes of calls.
_CHEAP = 4
#: What of a read may be heads and counts as such: more of them are taken up in further turns.
_HEADS = 1024
#: Frames that wait behind calls that aren't paid yet; then nothing more is read.
_MOST_HELD = 1024


class GrpcSession(Conversation):
    """Serves a stream until its client or its backend has ended it."""

    def __init__(self, exposed: Exposed, caller: Caller, stream: Stream, bounds: Bounds) -> None:
        super().__init__(exposed, caller, stream, bounds, keep=None)
        self._filter = Filter(self._judge_call, self._rewrite_headers)
        self._finishing = False
        #: Calls that are being paid, once there is a backend.
        self._bills = TaskSet()
        self._linked = asyncio.Event()
        #: Why there is no backend, once that is known.
        self._unlinked = Reason.NO_BACKEND
        #: A frame that has begun, and when it has to be there.
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
        """Have a call paid, and let it go on; others may be asked for and paid meanwhile."""
        await self._linked.wait()
        self._filter.settle_call(number, await self._pay_calls([call]))
        self._forward_calls()
        self._try_flush()

    def _forward_calls(self) -> None:
        """Send what the backend is to get now, in the order in which it was asked."""
        if self._link is not None and (data := self._filter.for_backend()):
            self._link.writer.write(data)

    def _rewrite_headers(self, fields: Headers) -> Headers:
        return to_grpc_backend(fields, self.exposed.with_logins(self._caller), self.exposed.config.service)

    @property
    def kept(self) -> int:
        """Return how many bytes wait here for what comes behind them."""
        return self._filter.kept

    @property
    def calls(self) -> int:
        """Return how many calls are under way."""
        return self._filter.calls

    def _is_asking(self) -> bool:
        return not self._filter.calls

    def finish(self, end: Ending) -> None:
        """Finish the calls that are open. The client is told to make others elsewhere, which HTTP/2 does in time."""
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
            for task in self._bills:  # nobody can serve these calls any more
                task.cancel()
        self._finishing = True  # all has been said: a drain that cut the listening short would take it back
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
                there.result()  # the client has said all; the backend may still answer
            if (lost := await back) is not None:
                await self._be_alone(lost, there)
        finally:
            for task in (there, back):
                task.cancel()
            await asyncio.gather(there, back, return_exceptions=True)

    # ---- bytes --------------------------------------------------------------------------------------------

    async def _take_client(self) -> bool:
        """Take what the client says next; False at its end. The head of a call may not trickle in."""
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
        # A field of a head may be a byte, which takes as long as eight of a head in HTTP/1.
        await self._wait_to_parse(len(data) // _CHEAP + 8 * (min(len(data), _HEADS) + self._filter.pending))
        for _ in self._filter.in_turns(data):
            await self._pass_on()
            await self._wait_to_parse(PER_TURN)
        await self._pass_on()
        return bool(data)

    async def _pass_on(self) -> None:
        """Send what both sides are to get now, as fast as they take it, and calls are paid."""
        self._forward_calls()
        self._flush_to_client()
        if self._link is not None:
            with contextlib.suppress(OSError):  # reading tells, and may have last words
                await self._link.writer.drain()
        while self._linked.is_set() and self._bills and self._filter.held > _MOST_HELD:
            await asyncio.wait(list(self._bills), return_when=asyncio.FIRST_COMPLETED)
        await self.stream.drain()

    def _flush_to_client(self) -> None:
        """Send what the client is to get, in the order in which it was made."""
        if data := self._filter.for_client():
            self._write_client(data)

    def _try_flush(self) -> None:
        """Send the same from outside: who reads from a stream that has broken off is told there."""
        with contextlib.suppress(DtpError):
            self._flush_to_client()

    async def _pump_there(self) -> None:
        """Pass on to its end what the client says; without a backend, until a call was told so."""
        await self._pass_on()
        while not (self._filter.lost and self._filter.told):
            if not await self._take_client():
                break
        if self._bills:  # what was asked before the end may still be paid
            await asyncio.wait(list(self._bills))
        if self._link is not None:
            self._link.writer.write_eof()

    async def _pump_back(self) -> Reason | None:
        """Pass on to its end what the backend says; return a reason when somebody still waits for it."""
        if self._link is None:
            return self._unlinked
        try:
            while data := await self._read_backend(READ):
                self._filter.from_backend(data)
                self._flush_to_client()
                await self._run_in_time(self.stream.drain, self._bounds.idle)  # perhaps nobody takes anything
                if self._finishing and not self._filter.calls:
                    return None
        except MalformedHttp2:
            raise Ended(Reason.BACKEND_BROKE) from None
        except DtpError:  # the client's stream
            raise
        except OSError:  # not all are a `ConnectionError`, such as one of ETIMEDOUT or EHOSTUNREACH
            return Reason.BACKEND_BROKE
        return Reason.BACKEND_BROKE if self._filter.calls or not self._filter.settled else None

    async def _be_alone(self, reason: Reason, there: asyncio.Future[None]) -> None:
        """Tell the calls that are open; where there are none yet, those of a while. The client comes anew."""
        self.why = words(reason)
        if not self._filter.lose_backend(reason):
            raise Ended(reason)
        self._flush_to_client()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0 if self._filter.told else _ALONE):
                await there
        self._filter.take_no_more()
        self._flush_to_client()
