"""One stream of JSON-RPC over HTTP/1.1: each call has to pass the policies, and those that pass are sent on
together."""

from __future__ import annotations

import json
import math
from typing import Any

import h11

from dtp.daemon.http import jsonrpc
from dtp.daemon.http.headers import to_backend, tokens
from dtp.daemon.http.session import FOREIGN_PAGE, HttpSession, retry_after
from dtp.daemon.http.side import Side, answered
from dtp.daemon.policies import Denial, MethodCall
from dtp.daemon.reasons import TELLINGS, Reason

#: The largest answer to a partly refused batch that is read into memory and merged with the refusals.
_MAX_MERGED = 16 * 1024 * 1024
#: The answer to a browser that asks whether a page may send requests (Fetch standard, CORS).
_PREFLIGHT = {
    "Access-Control-Allow-Methods": "POST",
    "Access-Control-Allow-Headers": "content-type",
    "Access-Control-Max-Age": "600",
}


class RpcSession(HttpSession):
    """Serves a stream until its client ends it or something breaks off."""

    #: What a backend was given and hasn't answered: the message, the calls in it, and the refusals of the others.
    _passed_on: tuple[jsonrpc.RpcMessage, list[jsonrpc.RpcCall], list[dict[str, Any]]] | None = None

    @property
    def _by_method(self) -> bool:
        """Return False: no rule is about methods of HTTP here."""
        return False

    @property
    def _by_call(self) -> bool:
        """Whether a rule is about methods of JSON-RPC."""
        return self.exposed.chain.by_method

    async def _exchange_message(self, request: h11.Request) -> bool:
        """Process one message: each call has to pass the policies, and those that pass are sent on together."""
        if not self._judge_origin(request):
            await self._send_answer(403, FOREIGN_PAGE, "text/plain", {})
            return await self._discard_body()
        if request.method == b"OPTIONS" and self._origin is not None:
            await self._send_answer(204, b"", None, _PREFLIGHT)
            return await self._discard_body()
        if request.method != b"POST":
            await self._send_answer(405, b"JSON-RPC is spoken by POST\n", "text/plain", {"Allow": "POST"})
            return await self._discard_body()
        if tokens(list(request.headers), b"content-encoding") - {b"identity"}:
            await self._send_answer(
                415, b"JSON-RPC comes as it is, without Content-Encoding\n", "text/plain", {}
            )
            return await self._discard_body()
        config = self.exposed.config
        if config.paths and request.target.decode("ascii") not in config.paths:
            await self._send_answer(404, b"JSON-RPC is spoken at other paths here\n", "text/plain", {})
            return await self._discard_body()
        body = await self._read_body(config.message)
        if body is None:
            telling = TELLINGS[Reason.SIZE]  # it isn't known which calls it has
            error = jsonrpc.error(None, telling.json_rpc, telling.words)
            await self._answer_json(telling.http, error, {"Connection": "close"})
            return False
        try:
            message = await self._parse_message(body)
        except jsonrpc.Malformed as fault:
            await self._answer_late()
            await self._answer_json(400, jsonrpc.error(None, fault.code, str(fault)))
            return True
        if self._asked is not None:
            self._asked.calls = [call.method for call in message.calls]
        passed, refusals, first = self._judge_calls(message)
        backend = await self._paid_backend() if passed else first
        assert backend is not None, "what isn't passed was denied"
        if isinstance(backend, Denial):
            refusals += [jsonrpc.refusal(call, backend) for call in passed if call.has_id]
            await self._answer_refused(message, refusals, backend)
            return True
        self._let_in = True
        if isinstance(backend, Reason):
            await self._answer_no_backend(message, passed, refusals, backend)
        else:
            self._passed_on = message, passed, refusals
            await self._call_backend(backend, request, message, passed, refusals)
            self._passed_on = None
        return True

    async def _fail_request(self, reason: Reason, headers: dict[str, str] | None = None) -> None:
        """Answer each call that a backend has: JSON-RPC clients read nothing else."""
        if self._passed_on is None:
            await super()._fail_request(reason, headers)
        else:
            passed_on, self._passed_on = self._passed_on, None
            await self._answer_no_backend(*passed_on, reason, headers)

    async def _parse_message(self, body: bytes) -> jsonrpc.RpcMessage:
        """Return the calls in a message. Raise `jsonrpc.Malformed`."""
        await self._wait_to_parse(len(body))
        return jsonrpc.parse(body, self.exposed.config.batch, alone=self._by_call)

    def _judge_calls(
        self, message: jsonrpc.RpcMessage
    ) -> tuple[list[jsonrpc.RpcCall], list[dict[str, Any]], Denial | None]:
        """Return the calls that pass, the answers to the others, and the first denial."""
        passed, refusals, first = [], [], None
        for call in message.calls:
            denial = self._ask_policies(MethodCall(self._caller, call.method))
            if denial is None:
                passed.append(call)
                continue
            first = first or denial
            if call.has_id:
                refusals.append(jsonrpc.refusal(call, denial))
        return passed, refusals, first

    async def _answer_refused(
        self, message: jsonrpc.RpcMessage, refusals: list[dict[str, Any]], first: Denial
    ) -> None:
        if not refusals:  # notifications aren't answered
            await self._send_answer(204, b"", None, {})
        elif message.batch:
            await self._answer_json(200, refusals)
        else:
            status = TELLINGS[first.reason].http
            # Clients know 429 as "try later"; any other status would hide the error from many of them.
            await self._answer_json(status if status == 429 else 200, refusals[0], retry_after(first.retry))

    async def _answer_no_backend(
        self,
        message: jsonrpc.RpcMessage,
        passed: list[jsonrpc.RpcCall],
        refusals: list[dict[str, Any]],
        why: Reason,
        headers: dict[str, str] | None = None,
    ) -> None:
        failures = [jsonrpc.failure(call, why) for call in passed if call.has_id]
        answer = [*refusals, *failures]
        if not answer:  # only notifications, which aren't answered
            await self._fail_request(why, headers)
        elif message.batch:
            await self._answer_json(200, answer, headers)
        else:
            fields = {**retry_after(TELLINGS[why].retry), **(headers or {})}
            await self._answer_json(TELLINGS[why].http, answer[0], fields)

    async def _call_backend(
        self,
        backend: Side,
        request: h11.Request,
        message: jsonrpc.RpcMessage,
        passed: list[jsonrpc.RpcCall],
        refusals: list[dict[str, Any]],
    ) -> None:
        body = jsonrpc.forwarded(message, passed)
        kept = jsonrpc.fields(list(request.headers), alone=self._by_call)
        headers = to_backend(kept, self.exposed.with_logins(self._caller), self.exposed.config.service)
        headers.append((b"content-length", str(len(body)).encode()))
        if refusals:
            headers = [(key, value) for key, value in headers if key != b"accept-encoding"]
        await backend.send_event(h11.Request(method=b"POST", target=request.target, headers=headers))
        await backend.send_event(h11.Data(data=body))
        await backend.send_event(h11.EndOfMessage())
        if refusals:
            await self._merge_answer(backend, passed, refusals)
        else:
            await self._pass_answer(backend)
        self._keep_link(backend)

    async def _merge_answer(
        self, backend: Side, passed: list[jsonrpc.RpcCall], refusals: list[dict[str, Any]]
    ) -> None:
        answer = await self._whole_answer(backend)
        body = None if answer is None else jsonrpc.merged(answer, refusals)
        if body is None:  # too long, or not JSON-RPC, such as an error page
            why = Reason.SIZE if answer is None else Reason.BACKEND_BROKE
            failures = [jsonrpc.failure(call, why) for call in passed if call.has_id]
            await self._answer_json(200, [*refusals, *failures])
        else:
            await self._send_answer(200, body, "application/json", {})

    async def _whole_answer(self, backend: Side) -> bytes | None:
        """Return the backend's whole answer; None when it is too long, in which case it isn't read to its end."""
        answer = bytearray()
        while not isinstance(event := await answered(backend), h11.EndOfMessage):
            if isinstance(event, h11.Data):
                answer += event.data
                self._kept += len(event.data)
                if len(answer) > _MAX_MERGED:
                    return None
        return bytes(answer)

    async def _read_body(self, most: int) -> bytes | None:
        """Return the request's whole body; None when it is longer than `most`, or says that it will be."""
        if most < self._size < math.inf:
            return None
        body = bytearray()
        if self._client.http.they_are_waiting_for_100_continue:
            await self._client.send_event(h11.InformationalResponse(status_code=100, headers=[]))
        while not isinstance(event := await self._client.next_event(), h11.EndOfMessage):
            if isinstance(event, h11.Data):
                body += event.data
                self._kept = len(body)
                if self._kept > most:
                    return None
        return bytes(body)

    async def _answer_json(self, status: int, body: object, headers: dict[str, str] | None = None) -> None:
        await self._send_answer(status, json.dumps(body).encode(), "application/json", headers or {})
