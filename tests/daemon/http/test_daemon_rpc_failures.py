"""What callers of JSON-RPC are told when a backend breaks off or is late: JSON, as of all else that fails."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dtp.daemon.config.model import MethodRule
from dtp.daemon.policies import Bounds
from dtp.daemon.policies.methods import MethodsPolicy
from dtp.testing import clock

from ..talk import End, Talk, seen

ONE = {"jsonrpc": "2.0", "id": 1, "method": "m"}
NOTE = {"jsonrpc": "2.0", "method": "n"}


def request(message: dict[str, Any] | list[dict[str, Any]], more: bytes = b"") -> bytes:
    body = message if isinstance(message, bytes) else json.dumps(message).encode()
    head = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%b\r\n"
    return head % (len(body), more) + body


def heard(talk: Talk) -> tuple[int, bytes, bytes]:
    head, _, body = bytes(talk.client.heard).partition(b"\r\n\r\n")
    return int(head.split()[1]), head.lower(), body


def die(backend: End) -> None:
    backend.mouth.feed_eof()


def say_nonsense(backend: End) -> None:
    backend.say(b"no HTTP at all\r\n\r\n")


def be_reset(backend: End) -> None:
    backend.mouth.set_exception(ConnectionResetError(104, "Connection reset by peer"))


@pytest.mark.parametrize("how", [die, say_nonsense, be_reset])
@pytest.mark.parametrize(
    ("message", "status", "ids"), [(ONE, 502, 1), ([ONE, NOTE, ONE | {"id": "b"}], 200, [1, "b"])]
)
def test_a_backend_that_breaks_off(
    tmp_path: Path,
    how: Callable[..., Any],
    message: dict[str, int | str] | list[dict[str, Any]],
    status: int,
    ids: int | list[int | str],
) -> None:
    async def scenario() -> None:
        talk = Talk(tmp_path, "json-rpc")
        talk.client.say(request(message))
        how(await talk.asked())
        await talk.ended()
        got, head, body = heard(talk)
        answer = json.loads(body)
        assert got == status
        assert b"content-type: application/json" in head
        assert b"connection: close" in head
        several = answer if isinstance(answer, list) else [answer]
        assert [one["error"]["code"] for one in several] == [-32603] * len(several)
        assert {one["error"]["message"] for one in several} == {"the backend broke off"}
        assert ([one["id"] for one in several] if isinstance(ids, list) else answer["id"]) == ids

    clock.run(scenario())


def test_an_answer_that_is_too_long_to_be_put_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a batch of which a part was refused: the stream was reset, and nobody knew why."""
    monkeypatch.setattr("dtp.daemon.http.rpc_session._MAX_MERGED", 1000)

    async def scenario() -> None:
        talk = Talk(tmp_path, "json-rpc", [MethodsPolicy(MethodRule(deny=("admin",)))])
        talk.client.say(request([ONE, NOTE, {"jsonrpc": "2.0", "id": "no", "method": "admin"}]))
        answer = b'[{"jsonrpc":"2.0","id":1,"result":"%b"}]' % (b"x" * 1000)
        backend = await talk.asked()
        backend.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(answer), answer))
        await seen(lambda: talk.client.heard.endswith(b"]"))
        status, head, body = heard(talk)
        assert (status, b"connection: close" in head) == (200, False)
        assert [
            (one["id"], one["error"]["code"], one["error"]["message"]) for one in json.loads(body)[1:]
        ] == [(1, -32600, "more bytes than one request may have")]
        assert json.loads(body)[0]["id"] == "no"
        talk.client.heard = b""
        talk.client.say(request(ONE))  # by another link: the rest of the answer is on the first one
        die(await talk.asked(2))
        await talk.ended()
        assert heard(talk)[0] == 502

    clock.run(scenario())


def test_a_backend_that_is_late(tmp_path: Path) -> None:
    async def scenario() -> None:
        talk = Talk(tmp_path, "json-rpc", bounds=Bounds(time=5.0))
        talk.client.say(request(ONE))
        await talk.asked()
        await talk.ended()
        status, _, body = heard(talk)
        assert (status, json.loads(body)["id"]) == (504, 1)

    clock.run(scenario())


def test_notifications_have_no_answer_of_json(tmp_path: Path) -> None:
    async def scenario() -> None:
        talk = Talk(tmp_path, "json-rpc")
        talk.client.say(request(NOTE))
        die(await talk.asked())
        await talk.ended()
        assert heard(talk)[::2] == (502, b"the backend broke off\n")

    clock.run(scenario())


def test_a_message_that_is_too_long(tmp_path: Path) -> None:
    async def scenario() -> None:
        talk = Talk(tmp_path, "json-rpc")
        talk.client.say(request(ONE).replace(b"Content-Length: ", b"Content-Length: 99999999"))
        await talk.ended()
        status, _, body = heard(talk)
        assert (status, json.loads(body)["id"], json.loads(body)["error"]["code"]) == (413, None, -32600)

    clock.run(scenario())


def test_who_was_answered_once_is_told_of_the_next_message_alone(tmp_path: Path) -> None:
    """A kept connection: the second message breaks off, the third's length isn't known to be of it."""

    async def scenario() -> None:
        talk = Talk(tmp_path, "json-rpc")
        talk.client.say(request(ONE))
        answer = b'{"jsonrpc":"2.0","id":1,"result":1}'
        (await talk.asked()).say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(answer), answer))
        while answer not in talk.client.heard:  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0.01)
        talk.client.heard = b""
        talk.client.say(request(ONE | {"id": 2}))
        die(await talk.asked(2))
        await talk.ended()
        assert json.loads(heard(talk)[2])["id"] == 2

    clock.run(scenario())
