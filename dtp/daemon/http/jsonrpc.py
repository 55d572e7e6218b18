"""JSON-RPC 2.0 messages taken apart: which methods they call, and what is answered to those that may not. No IO.

It fails closed: what two parsers could understand in two ways is refused, or a call could pass as another one. That
is a name given twice, a name in another case (some parsers don't mind it), and anything that is not strict JSON.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any

from dtp.daemon.policies import Denial
from dtp.daemon.reasons import TELLINGS, Reason

PARSE_ERROR, INVALID_REQUEST = -32700, -32600
_NAMES = {"jsonrpc", "method", "params", "id"}
_BLANKS = " \t\n\r"
_GAP = re.compile(f"[{_BLANKS}]*")


class Malformed(Exception):
    """A message that can't be understood in one way only; `code` is JSON-RPC's."""

    def __init__(self, why: str, code: int = INVALID_REQUEST) -> None:
        super().__init__(why)
        self.code = code


@dataclass(frozen=True, slots=True)
class RpcCall:
    """One call of a message: its method, its text as it came, and its id (`has_id` is False for a notification)."""

    method: str
    text: str
    has_id: bool
    id: Any


@dataclass(frozen=True, slots=True)
class Message:
    """A call, or a batch of them."""

    calls: tuple[RpcCall, ...]
    batch: bool


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Malformed("a name is there twice")
    return found


def _constant(name: str) -> Any:
    raise Malformed(f"{name} is not JSON", PARSE_ERROR)


_DECODER = json.JSONDecoder(object_pairs_hook=_pairs, parse_constant=_constant)


def parse(body: bytes, most: int) -> Message:
    """The calls in `body`, a batch of at most `most`. Raises `Malformed`."""
    try:
        text = body.decode("utf-8").strip(_BLANKS)
        if not text.startswith("["):
            return Message((_call(text),), batch=False)
        return Message(tuple(_batch(text, most)), batch=True)
    except UnicodeDecodeError:
        raise Malformed("the message is not UTF-8", PARSE_ERROR) from None
    except RecursionError:
        raise Malformed("the message is nested too deeply", PARSE_ERROR) from None
    except ValueError as error:
        raise Malformed(f"the message is not JSON: {error}", PARSE_ERROR) from None


def _batch(text: str, most: int) -> list[RpcCall]:
    """The calls of a batch, each with the text it came in."""
    calls: list[RpcCall] = []
    at = _skip(text, 1)
    while True:
        value, end = _DECODER.raw_decode(text, at)
        calls.append(_checked(value, text[at:end]))
        if len(calls) > most:
            raise Malformed(f"a batch may have {most} calls")
        at = _skip(text, end)
        if text[at : at + 1] == ",":
            at = _skip(text, at + 1)
        elif text[at : at + 1] == "]" and at + 1 == len(text):
            return calls
        else:
            raise Malformed("the batch is not JSON", PARSE_ERROR)


def _skip(text: str, at: int) -> int:
    match = _GAP.match(text, at)
    assert match is not None, "it may be empty"
    return match.end()


def _call(text: str) -> RpcCall:
    return _checked(_DECODER.decode(text), text)


def _checked(value: Any, text: str) -> RpcCall:
    if not isinstance(value, dict):
        raise Malformed("a call has to be an object")
    for name in value:
        if name not in _NAMES and name.casefold() in _NAMES:
            raise Malformed(f"{name[:16]!r} is not how a call's members are spelt")
    method, call_id = value.get("method"), value.get("id")
    if not isinstance(method, str) or not method or not method.isprintable() or " " in method:
        raise Malformed("a call needs a method, a text without blanks")
    if isinstance(call_id, dict | list | bool) or call_id in (math.inf, -math.inf):
        raise Malformed("a call's id is a text, a number or null")
    return RpcCall(method, text, "id" in value, call_id)


# ---- answers ---------------------------------------------------------------------------------------------------


def error(call_id: Any, code: int, words: str, data: dict[str, Any] | None = None) -> dict[str, Any]:
    """An error as the specification has it."""
    body: dict[str, Any] = {"code": code, "message": words}
    if data:
        body["data"] = data
    return {"jsonrpc": "2.0", "id": call_id, "error": body}


def refusal(call: RpcCall, denial: Denial) -> dict[str, Any]:
    """What is answered to a call that a policy denied: why, and when it may be tried again."""
    data: dict[str, Any] = {"policy": denial.policy}
    if denial.retry is not None:
        data["retry_after"] = round(denial.retry, 3)
    return error(call.id, TELLINGS[denial.reason].json_rpc, denial.why, data)


def failure(call: RpcCall, reason: Reason) -> dict[str, Any]:
    """What is answered to a call that could not be passed on."""
    telling = TELLINGS[reason]
    return error(call.id, telling.json_rpc, telling.words)


def forwarded(message: Message, passed: list[RpcCall]) -> bytes:
    """What the backend gets: the calls that passed, as they came."""
    texts = [call.text for call in passed]
    return (f"[{','.join(texts)}]" if message.batch else texts[0]).encode()


def merged(answer: bytes, refusals: list[dict[str, Any]]) -> bytes | None:
    """A backend's answer to the rest of a batch, with the refusals behind it; None if it is no JSON-RPC."""
    text = answer.decode("utf-8", "replace").strip(_BLANKS)
    own = ",".join(json.dumps(one) for one in refusals)
    if not text:
        return f"[{own}]".encode()
    if text.startswith("[") and text.endswith("]"):
        inner = text[1:-1].strip(_BLANKS)
        return (f"[{inner},{own}]" if inner else f"[{own}]").encode()
    return f"[{text},{own}]".encode() if text.startswith("{") and text.endswith("}") else None
