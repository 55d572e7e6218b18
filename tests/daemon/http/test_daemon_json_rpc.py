"""JSON-RPC: messages, and calls through a pair of daemons."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.client import ClientSession
from hypothesis import given
from hypothesis import strategies as st

from dtp.daemon.http import jsonrpc
from dtp.daemon.policies import Denial, Move, moment
from dtp.daemon.reasons import Reason

from ..conftest import Backend, Pair, Run
from .test_daemon_http import expose, site

# ---- JSON-RPC messages -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "methods", "batch"),
    [
        (b'{"jsonrpc":"2.0","method":"eth_call","id":1}', ["eth_call"], False),
        (b' [ {"method":"a","id":"x"} ,\n{"method":"b"} ] ', ["a", "b"], True),
        ('{"method":"ü","params":{"Method":"x"}}'.encode(), ["ü"], False),
    ],
)
def test_messages(body: bytes, methods: list[str], batch: bool) -> None:
    message = jsonrpc.parse(body, 10)
    assert ([call.method for call in message.calls], message.batch) == (methods, batch)
    assert json.loads(jsonrpc.forwarded(message, list(message.calls))) == json.loads(body)


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        (b"", -32700, "not JSON"),
        (b"\xff", -32700, "UTF-8"),
        (b'\xef\xbb\xbf{"method":"a"}', -32700, "not JSON"),
        (b'{"method":"a"} {"method":"b"}', -32700, "not JSON"),
        (b'{"method":"a","method":"b"}', -32600, "twice"),
        (b'{"method":"a","Method":"b"}', -32600, "spelt"),
        (b'{"METHOD":"b"}', -32600, "spelt"),
        ('{"method":"a","param\u017f":[]}'.encode(), -32600, "spelt"),
        (b'{"method":1}', -32600, "needs a method"),
        (b'{"method":""}', -32600, "needs a method"),
        (b'{"method":"a b"}', -32600, "needs a method"),
        (b'{"method":"a\\u0000"}', -32600, "needs a method"),
        (b'{"method":"%s"}' % (b"a" * 257), -32600, "may have 256 characters"),
        (('{"method":"%s"}' % ("\u0315\u0300" * 10_000)).encode(), -32600, "may have 256 characters"),
        (b'{"method":"a","id":{}}', -32600, "id"),
        (b'{"method":"a","id":true}', -32600, "id"),
        ('\u00a0{"method":"a"}'.encode(), -32700, "not JSON"),
        (b'{"method":"a","params":[NaN]}', -32700, "NaN"),
        (b"[]", -32700, "not JSON"),
        (b'["a"]', -32600, "an object"),
        (b'[{"method":"a"}', -32700, "not JSON"),
        (b'[{"method":"a"},]', -32700, "not JSON"),
        (b'[{"method":"a"}] x', -32700, "not JSON"),
        (b"[" * 100_000, -32700, "JSON|deep"),
        (b'[{"method":"a"},{"method":"b"},{"method":"c"}]', -32600, "may have 2"),
    ],
)
def test_messages_that_are_refused(body: bytes, code: int, words: str) -> None:
    with pytest.raises(jsonrpc.Malformed, match=words) as caught:
        jsonrpc.parse(body, 2)
    assert caught.value.code == code


def test_a_method_may_be_as_long_as_it_may() -> None:
    (longest,) = jsonrpc.parse(b'{"method":"%s"}' % (b"a" * 256), 1).calls
    assert len(longest.method) == 256


def test_what_else_a_call_has_passes_where_no_rule_goes_by_methods() -> None:
    """A backend of GraphQL, too, would take the query of a call whose method may be called."""
    known = b'{"jsonrpc":"2.0","method":"a","params":{"query":1},"id":1}'
    for body, other in (
        (known, b'{"method":"a","query":"mutation"}'),
        (b"[%s]" % known, b'[{"query":"m","method":"a"}]'),
    ):
        for alone in (False, True):
            assert jsonrpc.parse(body, 1, alone=alone).calls[0].method == "a"
        assert jsonrpc.parse(other, 1).calls[0].method == "a"
        with pytest.raises(jsonrpc.Malformed, match="'query' is not a member of a call") as caught:
            jsonrpc.parse(other, 1, alone=True)
        assert caught.value.code == -32600


@given(st.binary(max_size=60) | st.text('[]{}",:methodid1 \\u0', max_size=60).map(str.encode))
def test_any_bytes_are_a_message_or_refused(body: bytes) -> None:
    with contextlib.suppress(jsonrpc.Malformed):
        message = jsonrpc.parse(body, 10)
        assert json.loads(body) is not None
        assert message.calls


def test_a_batch_may_be_as_long_as_it_may() -> None:
    one, other = jsonrpc.parse(b'[{"method":"a","id":null},{"method":"b"}]', 2).calls
    assert (one.has_id, other.has_id) == (True, False)  # null is an id, if a poor one


def test_answers() -> None:
    call = jsonrpc.parse(b'{"method":"a","id":7}', 1).calls[0]
    refusal = jsonrpc.refusal(call, Denial("rate", Reason.RATE, "too many", 0.25004))
    assert refusal == {
        "jsonrpc": "2.0",
        "id": 7,
        "error": {"code": -32005, "message": "too many", "data": {"policy": "rate", "retry_after": 0.25}},
    }
    for answer, count in (
        (b' [{"id":1},{"id":2}] ', 3),
        (b"[]", 1),
        (b"[ ]", 1),
        (b"", 1),
        (b'{"id":null}', 2),
    ):
        merged = json.loads(jsonrpc.merged(answer, [refusal]))  # type: ignore[arg-type]
        assert len(merged) == count
        assert merged[-1] == refusal
    for answer in (b'[{"id":1}', b'{"id":1', b"<p>", b"\xff"):
        assert jsonrpc.merged(answer, [refusal]) is None


# ---- JSON-RPC through a pair -------------------------------------------------------------------------------------


async def node(request: web.Request) -> web.Response:
    """Answers each call with its method; notifications not at all."""
    message = json.loads(await request.text())
    calls = message if isinstance(message, list) else [message]
    answers = [
        {"jsonrpc": "2.0", "id": call["id"], "result": call["method"]} for call in calls if "id" in call
    ]
    if not isinstance(message, list):
        return web.json_response(answers[0]) if answers else web.Response(status=204)
    return web.json_response(answers)


RULES = """methods = { allow = ["eth_*"], deny = ["eth_sign"] }
rate = [{ requests = "1/h", methods = ["eth_getLogs"] }]
batch = 5
message = "10KiB"
"""


def call(method: str, number: int = 1) -> dict[str, int | str]:
    return {"jsonrpc": "2.0", "method": method, "id": number}


def test_json_rpc(run: Run) -> None:
    async def scenario(pair: Pair) -> None:
        async with site(rpc=node) as backend:
            port = await pair.start(expose(backend, "json-rpc", RULES))
            async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client:

                async def ask(message: object, status: int = 200) -> Any:
                    async with client.post("/rpc", json=message) as answer:
                        assert answer.status == status, await answer.text()
                        return await answer.json() if answer.status != 204 else None

                assert await ask(call("eth_call")) == {"jsonrpc": "2.0", "id": 1, "result": "eth_call"}
                denied = await ask(call("admin_peers", 7))
                assert (denied["id"], denied["error"]["code"]) == (7, -32601)
                # A batch can't carry past the rules what a call can't.
                answers = await ask([call("eth_call"), call("eth_sign", 2), call("eth_getLogs", 3),
                                     call("eth_getLogs", 4), {"method": "admin_x"}])  # fmt: skip
                found = {one["id"]: one.get("result") or one["error"]["code"] for one in answers}
                assert found == {1: "eth_call", 2: -32601, 3: "eth_getLogs", 4: -32005}
                limited = await ask(call("eth_getLogs"), 429)
                assert limited["error"]["data"]["policy"] == "rate"
                assert limited["error"]["data"]["retry_after"] > 3500
                assert (await ask([call("eth_call")] * 6, 400))["error"]["code"] == -32600
                assert await ask({"method": "admin_x"}, 204) is None
                assert await ask([call("admin_x"), call("admin_y", 2)]) == [
                    jsonrpc.error(
                        1, -32601, "the method 'admin_x' is not allowed here", {"policy": "methods"}
                    ),
                    jsonrpc.error(
                        2, -32601, "the method 'admin_y' is not allowed here", {"policy": "methods"}
                    ),
                ]
                async with client.get("/rpc") as answer:
                    assert answer.status == 405
                async with client.post("/rpc", data=b'{"method":"eth_call","method":"admin_x"}') as answer:
                    assert answer.status == 400
                async with client.post("/rpc", data=b" " * 20_000) as answer:
                    assert answer.status == 413

    run(scenario)


@pytest.mark.parametrize(
    ("rules", "kinds", "status"),
    [(RULES, ["application/json"], 400), ("", ["application/x-www-form-urlencoded"], 200)],
)
def test_a_message_is_to_the_backend_what_it_was_to_the_rules(
    run: Run, rules: str, kinds: list[str], status: int
) -> None:
    """Not another method by a field, nor a form, nor a query of GraphQL beside the method."""

    async def scenario(pair: Pair) -> None:
        seen = []

        async def look(request: web.Request) -> web.Response:
            seen.append(request.headers)
            return await node(request)

        async with site(rpc=look) as backend:
            port = await pair.start(expose(backend, "json-rpc", rules))
            form = {
                "Content-Type": "application/x-www-form-urlencoded; charset=utf-7",
                "X-HTTP-Method-Override": "DELETE",
                "X_Method_Override": "GET",
            }
            async with aiohttp.ClientSession(f"http://127.0.0.1:{port}", headers=form) as client:
                async with client.post("/rpc", data=json.dumps(call("eth_call"))) as answer:
                    assert answer.status == 200
                query = {"method": "eth_call", "id": 1, "query": "mutation { admin }"}
                async with client.post("/rpc", data=json.dumps(query)) as answer:
                    assert (answer.status, "'query' is not a member" in await answer.text()) == (
                        status,
                        status == 400,
                    )
            assert seen[0].getall("Content-Type") == kinds
            assert not [name for name in seen[0] if "override" in name.lower()]

    run(scenario)


def test_only_paths_that_are_named_reach_the_backend(run: Run) -> None:
    """Behind others it may speak what no rule about methods judges, and a query may be one of GraphQL."""

    async def scenario(pair: Pair) -> None:
        async with site(rpc=node) as backend:
            port = await pair.start(expose(backend, "json-rpc", 'paths = ["/", "/rpc"]'))
            async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client:
                for path, status in (("/rpc", 200), ("/rpc?query=x", 404), ("/graphql", 404), ("/rpc/", 404)):
                    async with client.post(path, json=call("eth_call")) as answer:
                        assert (path, answer.status) == (path, status)

    run(scenario)


@pytest.mark.parametrize("kind", ["http", "json-rpc"])
def test_who_has_used_up_a_quota_of_bytes_is_told_when_to_come_again(run: Run, kind: str) -> None:
    """Over a connection that is there and over new ones: one that breaks off would be tried again at once."""

    async def scenario(pair: Pair) -> None:
        async with site(rpc=node) as backend:
            port = await pair.start(expose(backend, kind, 'quota = { bytes = "1MB", every = "1h" }'))

            async def ask(client: ClientSession) -> tuple[int, str, str]:
                message = {**call("eth_call"), "params": ["x" * 200_000]}
                async with client.post("/rpc", json=message) as answer:
                    return answer.status, answer.headers.get("Retry-After", ""), await answer.text()

            async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client:
                assert (await ask(client))[0] == 200
                ((_, caller),) = pair.far.callers.items()
                pair.exposed.chain.count_moved(Move(caller, 10**6), moment())
                for _ in range(2):
                    status, retry, text = await ask(client)
                    assert (status, "the quota of 1000000 bytes is used up" in text) == (429, True)
                    assert 0 < int(retry) <= 3600
                assert pair.exposed.ledger.streams == 1
            for number in range(2):
                async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client:
                    status, retry, text = await ask(client)
                    assert (status, "the quota of 1000000 bytes is used up" in text) == (429, True)
                    if kind == "json-rpc":
                        assert json.loads(text)["error"]["code"] == -32005
                assert pair.exposed.denials == {"quota": 3 + number}

    run(scenario)


@pytest.mark.parametrize(
    ("origins", "origin", "status"),
    [
        ("", None, 200),
        ("", "https://evil.example", 403),
        ('"https://app.example"', "https://app.example", 200),
        ('"https://app.example"', "https://app.example.evil", 403),
        ('"null"', "null", 200),
        ('"*"', "https://any.example", 200),
    ],
)
def test_pages_that_may_ask(run: Run, origins: str, origin: str | None, status: int) -> None:
    async def scenario(pair: Pair) -> None:
        async with site(rpc=node) as backend:
            port = await pair.start(
                expose(backend, "json-rpc", f'methods = {{ deny = ["b"] }}\norigins = [{origins}]')
            )
            headers = {} if origin is None else {"Origin": origin}
            async with aiohttp.ClientSession(f"http://127.0.0.1:{port}", headers=headers) as client:
                for method in ("a", "b"):  # one is answered by the backend, one here
                    async with client.post("/rpc", json=call(method)) as answer:
                        assert answer.status == status
                        told = answer.headers.get("Access-Control-Allow-Origin")
                        assert told == (origin if status == 200 else None)
                async with client.options("/rpc") as answer:
                    asked = 405 if origin is None else 204 if status == 200 else 403
                    assert answer.status == asked
                    assert answer.headers.get("Access-Control-Allow-Methods") == (
                        "POST" if asked == 204 else None
                    )

    run(scenario)


def test_json_rpc_whose_backend_breaks_off_under_a_call(run: Run) -> None:
    """It was told in plain text, which who asked by JSON-RPC can't read."""

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"}")
        writer.close()

    async def scenario(pair: Pair) -> None:
        async with Backend(hang_up) as backend:
            port = await pair.start(expose(backend.port, "json-rpc", 'methods = { deny = ["b"] }'))
            async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client:
                async with client.post("/", json=call("a", 7)) as answer:
                    found = await answer.json()
                    assert (answer.status, found["id"], found["error"]["code"]) == (502, 7, -32603)
                async with client.post("/", json=[call("a"), call("b", 2)]) as answer:
                    errors = {one["id"]: one["error"]["code"] for one in await answer.json()}
                    assert (answer.status, errors.keys(), errors[1]) == (200, {1, 2}, -32603)
                async with client.post("/", json={"method": "a"}) as answer:
                    assert (answer.status, await answer.text()) == (502, "the backend broke off\n")

    run(scenario)


def test_json_rpc_without_a_backend(run: Run) -> None:
    async def scenario(pair: Pair) -> None:
        port = await pair.start(expose(1, "json-rpc"))
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client:
            async with client.post("/", json=[call("a"), call("b", 2)]) as answer:
                assert [one["error"]["code"] for one in await answer.json()] == [-32603, -32603]
            async with client.post("/", json=call("a")) as answer:
                assert (answer.status, (await answer.json())["error"]["code"]) == (502, -32603)
            for notified in ({"method": "a"}, [{"method": "a"}]):
                async with client.post("/", json=notified) as answer:
                    assert (answer.status, await answer.text()) == (502, "no backend can be reached\n")

    run(scenario)
