"""One stream of HTTP/1.1: each request has to pass the policies, then goes to a backend and its answer back. h11
parses."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Awaitable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, TypeVar

import h11

from dtp.daemon.http import conversation
from dtp.daemon.http.conversation import Conversation, Ended
from dtp.daemon.http.headers import WEBSOCKET, Headers, behind_body, to_backend, to_client, upgrades_of
from dtp.daemon.http.side import RelayEnd, Side, answered, is_silent
from dtp.daemon.http.target import doubt, fault, in_origin_form, spellings
from dtp.daemon.observing.requests import Answered
from dtp.daemon.policies import Bounds, Caller, Denial, MethodCall
from dtp.daemon.reasons import TELLINGS, Reason, words
from dtp.daemon.relays.ledger import Ending
from dtp.errors import DtpError
from dtp.net.relay import relay
from dtp.net.stream import Stream
from dtp.tasks import start_task

if TYPE_CHECKING:
    from dtp.daemon.relays.expose import Exposed

log = logging.getLogger("dtpd")

_T = TypeVar("_T")

#: Seconds for which a client may keep a connection without requests, which is nginx's default.
_KEEP = 75.0
#: Seconds to read a request that has arrived, but whose task wasn't woken yet.
_ON_ITS_WAY = 0.001
#: Seconds to wait for the answer to a ping. What a client sent before its time was over arrives before that answer.
_CAUGHT_UP = 1.0
#: Seconds between two checks whether an exchange is still wanted. Clients that ask and give up hold as many backend
#: connections as they open in that time.
_LOOK = 1.0
#: The most bytes of an unwanted body that are read, so that the client sees the answer. A longer one ends the
#: connection.
_DISCARD = 256 * 1024
#: Seconds for which a backend's connection may be reused. Node.js servers close theirs after 5.
_LINK_IDLE = 4.0
#: Methods that change nothing (RFC 9110, 9.2.1).
_SAFE = (b"GET", b"HEAD", b"OPTIONS")
FOREIGN_PAGE = b"pages of this origin may not ask\n"
_NO_WEBSOCKET = b"the backend opened no WebSocket\n"


class HttpSession(Conversation):
    """Serves a stream until its client ends it or something breaks off."""

    def __init__(self, exposed: Exposed, caller: Caller, stream: Stream, bounds: Bounds) -> None:
        super().__init__(exposed, caller, stream, bounds, keep=_KEEP)
        self._client = Side(
            h11.SERVER, self._read_more, self._write_client, stream.drain, self._wait_to_parse
        )
        self._backend: Side | None = None
        #: How a session ends that accepts nothing new; None while it goes on.
        self._end: Ending | None = None
        #: Seconds left to read the rest of a head, while one is being read.
        self._head_time: float | None = None
        #: The timeout for the next request, while it is awaited.
        self._idle: asyncio.Timeout | None = None
        self._only_websockets = exposed.config.kind == "websocket"
        #: The origin of the web page that asks, if it is allowed; every answer tells its browser so.
        self._origin: bytes | None = None
        #: Whether the request was admitted.
        self._let_in = False
        #: Whether only the head of the answer is wanted.
        self._head_only = False
        #: Bytes in the request's body; infinite where its head doesn't say.
        self._size = 0.0
        #: The request that is being answered, and the status sent to its client, 0 until then.
        self._asked: _Asked | None = None
        self._status = 0
        #: Whether the client speaks HTTP/1.0, which has neither informational answers nor trailers.
        self._old = False

    @property
    def kept(self) -> int:
        """Return how many bytes are waiting here, including those of an incomplete head that h11 has."""
        client = getattr(self, "_client", None)  # unset while a closing stream is read out
        return self._kept + (len(client.http.trailing_data[0]) if client is not None else 0)

    @property
    def _by_method(self) -> bool:
        """Whether a rule is about methods of HTTP."""
        return self.exposed.chain.by_method

    def finish(self, end: Ending) -> None:
        """Answer what was asked, and what is asked within the time that `end` gives. The last answer says that it
        is the last.

        Where the service has a successor, continue there.
        """
        if self._end is None or self._end.successor is not None:  # otherwise it is ending already
            self._end = end
        if self._idle is not None and not self._go_over():
            self._end_idle(self._idle)

    def _go_over(self) -> bool:
        """Continue, between two requests, with the service's successor; return whether that was possible."""
        successor = self._find_successor()
        if successor is None:
            return False
        self._end = None
        self._drop_link()  # the successor may have other backends
        self._bounds = successor.take_over(self, self._caller)
        self._patience = self._bounds.idle or _KEEP
        return True

    def _find_successor(self) -> Exposed | None:
        """Return the successor of `exposed`, if this session can continue with it."""
        end = self._end
        found = None if end is None or end.successor is None else end.successor(self.stream.connection)
        return found if found is not None and found.config.kind == self.exposed.config.kind else None

    def _end_idle(self, idle: asyncio.Timeout) -> None:
        """Wait for the last request only as long as there is time for it."""
        assert self._end is not None
        idle.reschedule(asyncio.get_running_loop().time() + max(_ON_ITS_WAY, self._end.patience))

    def _is_asking(self) -> bool:
        return not self._let_in

    async def _serve_stream(self) -> None:
        try:
            await self._serve_requests()
        except h11.RemoteProtocolError as error:
            if not await self._answer_malformed(error):
                self.stream.reset(Reason.MALFORMED)
                return
        except h11.LocalProtocolError as error:
            self._reset_stream(Reason.BACKEND_BROKE, str(error))
            return
        finally:
            self._note_answered()
            del self._client  # it refers to this session: only the garbage collector would free them
        await self._read_rest()
        self.stream.close()

    async def _answer_malformed(self, error: h11.RemoteProtocolError) -> bool:
        """Answer 400 to a client that violated the protocol, if it can still be answered; return whether it
        could."""
        # After the colon h11 quotes the client's bytes as Python does, and there may be a secret among them.
        self.why = f"{words(Reason.MALFORMED)}: {str(error).partition(':')[0]}"
        if self._client.http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return False
        if self._asked is None:
            self._begin_request(b"-", b"-")
        try:
            await self._run_bounded(self._answer_late())
            body = f"{self.why}\n".encode()
            end = {"Connection": "close"}
            await self._run_bounded(self._send_answer(error.error_status_hint, body, "text/plain", end))
        except (DtpError, h11.LocalProtocolError):
            return False
        return True

    # ---- requests -----------------------------------------------------------------------------------------

    async def _serve_requests(self) -> None:
        while True:
            self._moved, self._let_in = 0, False  # the body may come together with the head
            self._kept = 0
            self._go_over()
            request = await self._read_request()
            if request is None:
                return
            self._head_only, self._old = request.method == b"HEAD", request.http_version < b"1.1"
            self._size = _body_size(request)
            self._begin_request(request.method, request.target)
            try:
                keep = await self._run_bounded(self._take_up(request))
            except (Ended, OSError) as error:
                if self._broke_untold(error):
                    reason = Reason.BACKEND_BROKE
                elif self._late_untold(error):
                    reason = Reason.TIME
                else:
                    raise
                self.why = words(error.reason if isinstance(error, Ended) else reason)
                self._drop_link()
                await self._run_bounded(self._fail_request(reason, {"Connection": "close"}))
                return
            self._note_answered()
            if not keep or not self._client.try_reuse():
                return

    def _begin_request(self, method: bytes, target: bytes) -> None:
        path = target.partition(b"?")[0]
        now = asyncio.get_running_loop().time()
        self._asked = _Asked(
            method.decode("ascii", "replace"), path.decode("ascii", "replace"), now, self.counts.sent
        )

    def _note_answered(self) -> None:
        """Count the request that was being answered, once, and log it if configured."""
        asked, status = self._asked, self._status
        self._asked, self._status = None, 0
        if asked is None:
            return
        seconds, sent = asyncio.get_running_loop().time() - asked.since, self.counts.sent - asked.sent
        request = Answered(asked.method, asked.path, status, sent, seconds, asked.calls)
        self.exposed.note_answered(self._caller, request)

    async def _take_up(self, request: h11.Request) -> bool:
        """Refuse requests that could be read in two ways, and pass others on. Return True if another may follow."""
        if (two_ways := fault(request)) is None:
            request = in_origin_form(request)
            two_ways = doubt(request) if self._by_method else None
        if two_ways is not None:
            self.why = f"{words(Reason.MALFORMED)}: {two_ways}"
            await self._answer_late()
            await self._send_answer(400, f"{self.why}\n".encode(), "text/plain", {"Connection": "close"})
            return False
        return await self._exchange_message(request)

    async def _run_bounded(self, doing: Awaitable[_T]) -> _T:
        """Await `doing` for as long as a request may take, while its client wants it."""
        self._look_at(asyncio.get_running_loop().time() + _LOOK)
        try:
            return await self._in_time(doing)
        finally:
            self._looking.cancel()

    def _look_at(self, when: float) -> None:
        self._looking = asyncio.get_running_loop().call_at(when, self._check_idle)

    def _check_idle(self) -> None:
        """End an exchange whose client is gone, or which is idle.

        While the backend is answering nobody reads from the client, and while one of them reads nothing, from
        neither.
        """
        now = asyncio.get_running_loop().time()
        silent = now - self._moved_at
        # The client's end alone may only mean that it has no more requests.
        if self.stream.write_error is not None or (self.stream.at_eof() and silent > _KEEP):
            self.abort(Reason.CLIENT_GONE)
        elif self._bounds.idle is not None and silent > self._bounds.idle:
            self.abort(Reason.IDLE)
        else:
            # Keep to the original schedule. Otherwise all checks that were delayed together would run in one turn
            # from then on.
            self._look_at(now + _LOOK - (now - self._looking.when()) % _LOOK)

    async def _read_request(self) -> h11.Request | None:
        """Return the next request's head; None when the client has ended."""
        client = self._client
        if client.http.trailing_data[0]:
            await asyncio.sleep(0)  # pipelined requests are answered in a row: let others in between
        else:
            data = await self._wait_for_request()
            if data is None:
                return None
            client.http.receive_data(data)
        self._head_time = self.exposed.patience.head
        event = await client.next_event()
        self._head_time = None
        if isinstance(event, h11.ConnectionClosed):
            return None
        assert isinstance(event, h11.Request)
        return event

    async def _read_more(self, size: int) -> bytes:
        """Return what the client sends next. A head has to be complete in time; what has arrived may have to wait
        here for its turn."""
        if self._head_time is None:
            return await self._read_client(size)
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            async with asyncio.timeout(self._head_time):
                data = await self._read_uncounted(size)
        except TimeoutError:
            raise Ended(Reason.IDLE) from None
        self._head_time -= loop.time() - began
        return await self._count_read(data)

    async def _wait_for_request(self) -> bytes | None:
        """Return the first bytes of a request; None if nothing comes in time."""
        data = await self._read_in_idle_time()
        if data is None and await self._was_on_its_way():
            data = await self.stream.read(conversation.READ)
        return None if data is None else await self._count_read(data)

    async def _was_on_its_way(self) -> bool:
        """Return whether something was sent before the client's time was over: when this machine stands still for
        that long, time runs out even for a client that keeps sending requests."""
        if not self.stream.buffered:
            with contextlib.suppress(TimeoutError, DtpError):
                async with asyncio.timeout(_CAUGHT_UP):
                    await self.stream.connection.ping()
        return self.stream.buffered > 0

    async def _read_in_idle_time(self) -> bytes | None:
        idle = asyncio.timeout(None)
        # The link wouldn't be reused after that, and a client that asks nothing, or is gone, should hold no
        # descriptor.
        dropping = asyncio.get_running_loop().call_later(_LINK_IDLE, self._drop_link)
        try:
            async with idle:
                self._idle = idle
                if self._end is not None:
                    self._end_idle(idle)
                # What has arrived is answered, however long it has to wait.
                return await self._read_uncounted(conversation.READ)
        except Ended as end:
            if end.reason is not Reason.IDLE:
                raise
            return None
        except TimeoutError:
            if not idle.expired():
                raise
            return None
        finally:
            self._idle = None
            dropping.cancel()

    async def _exchange_message(self, request: h11.Request) -> bool:
        """Pass one request on, and its answer back. Return True if another may follow."""
        if self._only_websockets and (no := self._no_websocket(request)) is not None:
            status, body = no
            await self._send_answer(
                status, body, "text/plain", {"Upgrade": "websocket"} if status == 426 else {}
            )
            return await self._discard_body()
        if request.method == b"CONNECT":
            await self._send_answer(405, b"there are no tunnels here\n", "text/plain", {})
            return await self._discard_body()
        denial = self._ask_policies(self._as_call(request))
        if denial is not None:
            await self._refuse_request(denial)
            return await self._discard_body()
        headers = to_backend(
            list(request.headers), self.exposed.with_logins(self._caller), self.exposed.config.service
        )
        head = h11.Request(method=request.method, target=request.target, headers=headers)
        bodyless = request.method in _SAFE and not self._size
        if bodyless:
            await self._client.next_event()  # the end of the request is an event, too
        backend = await self._paid_backend()
        if isinstance(backend, Denial):
            await self._refuse_request(backend)
            return await self._discard_body()
        self._let_in = True
        while isinstance(backend, Side):
            # A backend may close a kept connection just when a request comes: then nothing was done.
            may_repeat = bodyless and backend.used  # the second attempt uses a new connection
            try:
                return await self._pass_request(backend, head, bodyless=bodyless)
            except (Ended, OSError) as error:
                if not may_repeat or not self._broke_untold(error):
                    raise
                self._drop_link()
            backend = await self._open_backend()
        await self._fail_request(backend)
        return await self._discard_body()

    def _as_call(self, request: h11.Request) -> MethodCall:
        """Return the call that rules are asked about. Its other spellings are only computed if a rule is about
        methods."""
        if not self._by_method:
            return MethodCall(self._caller)
        method, *also = spellings(request)
        return MethodCall(self._caller, method, tuple(also))

    def _no_websocket(self, request: h11.Request) -> tuple[int, bytes] | None:
        """Return the status and text for a request that isn't a WebSocket, or whose page may not open one; None
        otherwise."""
        asks = request.method == b"GET" and WEBSOCKET in upgrades_of(list(request.headers))
        if not asks or self._size:
            return 426, b"this service is for WebSockets\n"
        if not self._judge_origin(request):
            return 403, FOREIGN_PAGE
        return None

    def _broke_untold(self, error: Ended | OSError) -> bool:
        """True if the backend broke off before the client was sent anything."""
        own = isinstance(error, DtpError) or (
            isinstance(error, Ended) and error.reason is not Reason.BACKEND_BROKE
        )
        return not own and self._client.http.our_state in (h11.IDLE, h11.SEND_RESPONSE)

    def _late_untold(self, error: Ended | OSError) -> bool:
        """True if the backend has the whole request, and has sent nothing in time."""
        late = isinstance(error, Ended) and error.reason in (Reason.TIME, Reason.IDLE)
        http = self._client.http
        whole = self._let_in and http.their_state is not h11.SEND_BODY
        return late and whole and http.our_state is h11.SEND_RESPONSE

    async def _pass_request(self, backend: Side, head: h11.Request, *, bodyless: bool) -> bool:
        """Send one request and return its answer. Return True if another may follow."""
        await backend.send_event(head)
        if bodyless:
            await backend.send_event(h11.EndOfMessage())
            if await self._pass_answer(backend):
                await self._pass_protocol(backend)
                return False
            self._keep_link(backend)
            return True
        count_work = self.stream.connection.count_work
        pump = start_task(count_work(self._pass_body(backend)), name="dtpd-body")
        answer = start_task(count_work(self._pass_answer(backend)), name="dtpd-answer")
        try:
            await asyncio.wait((pump, answer), return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                _raise_of_client(pump)  # otherwise the backend would wait for the rest of the body
            switched = await answer
            if switched:
                await self._pass_protocol(backend)
                return False
            if not pump.done() or pump.exception() is not None:
                # It was answered before the body was complete, or accepted: nobody wants the rest.
                return False
        finally:
            pump.cancel()
            answer.cancel()
            await asyncio.gather(pump, answer, return_exceptions=True)
        self._keep_link(backend)
        return True

    async def _pass_body(self, backend: Side) -> None:
        while True:
            event = await self._client.next_event()
            if isinstance(event, h11.EndOfMessage):
                # Trailers aren't passed on (RFC 9110, 6.5.1): backends may read them as fields of the head.
                await backend.send_event(h11.EndOfMessage())
                return
            await backend.send_event(event)

    async def _pass_answer(self, backend: Side) -> bool:
        """Pass on everything that the backend answers. Return True when it changed the protocol."""
        while True:
            event = await answered(backend)
            if isinstance(event, h11.InformationalResponse):
                if self._old:  # and didn't ask for another protocol
                    continue
                await self._client.send_event(
                    h11.InformationalResponse(
                        status_code=event.status_code,
                        headers=to_client(list(event.headers), event.status_code),
                        reason=event.reason,
                    )
                )
                if event.status_code == 101:
                    self._status = event.status_code
                    return True
            elif isinstance(event, h11.Response):
                if self._only_websockets and event.status_code < 300:
                    await self._send_answer(502, _NO_WEBSOCKET, "text/plain", {})
                    return False
                headers = self._answer_headers(to_client(list(event.headers), event.status_code), most=0)
                await self._begin_answer(
                    h11.Response(status_code=event.status_code, headers=headers, reason=event.reason)
                )
            elif isinstance(event, h11.EndOfMessage):
                fields = [] if self._old else behind_body(list(event.headers))
                await self._client.send_event(h11.EndOfMessage(headers=fields))
                return False
            else:
                await self._client.send_event(event)

    async def _pass_protocol(self, backend: Side) -> None:
        """Pass bytes both ways after 101, as for a WebSocket, until both sides have ended."""
        self._note_answered()  # what follows may take hours
        assert self._link is not None
        writer = self._link.writer
        first, answered = self._client.http.trailing_data[0], backend.http.trailing_data[0]
        if first:
            writer.write(first)
        if answered:
            self._write_client(answered)
        self._patience = self._bounds.idle  # after a change of protocol a client may be quiet
        stream = self.stream
        client = RelayEnd(self._read_client, self._write_client, stream.drain, stream.write_eof)
        await relay(
            (client, client),
            (RelayEnd(self._read_backend, writer.write, writer.drain, writer.write_eof),) * 2,
        )

    # ---- answers of our own -------------------------------------------------------------------------------

    def _judge_origin(self, request: h11.Request) -> bool:
        """True if no web page is asking, or one that may. Otherwise any page could ask through a caller's
        browser."""
        origin = next((value for name, value in request.headers if name == b"origin"), None)
        allowed = self.exposed.config.origins
        passes = origin is None or "*" in allowed or origin.decode("ascii", "replace") in allowed
        self._origin = origin if passes else None
        return passes

    def _answer_headers(self, headers: Headers, *, most: int = _DISCARD) -> Headers:
        """Return the fields of an answer, with those that say that it is the last one and that the browser's page
        may read it.

        It is the last where more than `most` bytes of the request are still to come.
        """
        http = self._client.http
        # A client that waits for 100 and gets this may send its body next or another request, which can't be told
        # apart.
        # A stream for WebSockets only is one request, which is also what is paid: another one needs another stream.
        last = (
            (self._end is not None and self._find_successor() is None)
            or (self._only_websockets and self._let_in)
            or http.they_are_waiting_for_100_continue
        )
        last = last or (http.their_state is h11.SEND_BODY and self._size > most)
        if last and not any(name.lower() == b"connection" for name, _ in headers):
            headers = [*headers, (b"connection", b"close")]
        if self._origin is None:
            return headers
        kept = [(name, value) for name, value in headers if not name.startswith(b"access-control-")]
        return [*kept, (b"access-control-allow-origin", self._origin), (b"vary", b"origin")]

    async def _refuse_request(self, denial: Denial) -> None:
        body = f"{denial.policy}: {denial.why}\n".encode()
        await self._send_answer(TELLINGS[denial.reason].http, body, "text/plain", retry_after(denial.retry))

    async def _fail_request(self, reason: Reason, headers: dict[str, str] | None = None) -> None:
        telling = TELLINGS[reason]
        fields = {**retry_after(telling.retry), **(headers or {})}
        await self._send_answer(telling.http, f"{telling.words}\n".encode(), "text/plain", fields)

    async def _send_answer(self, status: int, body: bytes, kind: str | None, extra: dict[str, str]) -> None:
        headers: Headers = [(b"via", b"1.1 dtpd"), *((k.encode(), v.encode()) for k, v in extra.items())]
        if kind is not None:
            headers += [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]
        client = self._client
        phrase = HTTPStatus(status).phrase.encode()
        head = h11.Response(status_code=status, headers=self._answer_headers(headers), reason=phrase)
        await self._begin_answer(head)
        if body and not self._head_only:
            await client.send_event(h11.Data(data=body))
        await client.send_event(h11.EndOfMessage())

    async def _begin_answer(self, head: h11.Response) -> None:
        self._status = head.status_code
        await self._client.send_event(head)

    async def _discard_body(self) -> bool:
        """Read the rest of a request that was answered already. Return False if it is too long, or nothing can
        follow."""
        if self._client.http.our_state is h11.MUST_CLOSE:
            return False
        left = _DISCARD
        while self._client.http.their_state is h11.SEND_BODY:
            event = await self._client.next_event()
            if isinstance(event, h11.Data):
                left -= len(event.data)
                if left < 0:
                    return False
        return True

    # ---- the backend --------------------------------------------------------------------------------------

    async def _paid_backend(self) -> Side | Denial | Reason:
        """Return a backend for the admitted request, which is paid for once there is one; or why it wasn't paid, or
        why there is no backend."""
        backend = await self._open_backend()
        if not (calls := self._held_calls()):  # nothing to pay
            return backend
        if isinstance(backend, Reason):
            self._release_calls(calls, paid=False)
            return backend
        # A client that doesn't pay, or is slow to, holds no backend.
        dropping = asyncio.get_running_loop().call_later(_LINK_IDLE, self._drop_link)
        try:
            denial = await self._pay_calls(calls)
        finally:
            dropping.cancel()
        if denial is not None:
            self._drop_link()
            return denial
        return await self._open_backend()  # the first one may have ended meanwhile

    async def _open_backend(self) -> Side | Reason:
        """Return the side of the open backend, if it is still open, else of another one; or why there is none."""
        if self._backend is not None and self._link is not None:
            idle = asyncio.get_running_loop().time() - self._backend.since
            if idle < _LINK_IDLE and not self._link.writer.is_closing() and is_silent(self._link.reader):
                return self._backend
            self._drop_link()
        dialled = await self.exposed.dial_streams(self._caller)
        if isinstance(dialled, Reason):
            return dialled
        self._link = dialled
        writer = dialled.writer
        self._backend = Side(h11.CLIENT, self._read_backend, writer.write, writer.drain, self._wait_to_parse)
        self._backend.since = asyncio.get_running_loop().time()
        return self._backend

    def _keep_link(self, backend: Side) -> None:
        """Keep the link for another request, if the backend allows it and has sent no more than was asked for."""
        if not backend.http.trailing_data[0] and backend.try_reuse():
            backend.used, backend.since = True, asyncio.get_running_loop().time()
        else:
            self._drop_link()

    def _drop_link(self) -> None:
        super()._drop_link()
        self._backend = None


@dataclass(slots=True)
class _Asked:
    """A request that is being answered."""

    method: str
    path: str
    #: When it came, by the monotonic clock, and the bytes that the client had been sent by then.
    since: float
    sent: int
    #: Methods of JSON-RPC.
    calls: list[str] = field(default_factory=list)


def _raise_of_client(pump: asyncio.Task[None]) -> None:
    """Raise what ended the body early, except an end of the backend, which may have sent an answer before."""
    error = pump.exception()
    if error is not None and (isinstance(error, DtpError) or not isinstance(error, OSError)):
        raise error


def _body_size(request: h11.Request) -> float:
    for name, value in request.headers:
        if name == b"transfer-encoding":
            return math.inf
        if name == b"content-length":
            return int(value)
    return 0


def retry_after(seconds: float | None) -> dict[str, str]:
    """Return a Retry-After field in whole seconds, rounded up."""
    return {} if seconds is None else {"Retry-After": str(max(1, -int(-seconds // 1)))}
