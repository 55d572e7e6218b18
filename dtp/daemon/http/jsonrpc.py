"""Parses JSON-RPC 2.0 messages: which methods they call, and the answers to refused calls. No IO.

It fails closed: whatever two parsers could read differently is refused, or one call could pass for another. That
means duplicate names, names in another case (which some parsers accept), and anything that isn't strict JSON.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any

from dtp.daemon.http.headers import Headers, plain
from dtp.daemon.http.target import OVERRIDES
from dtp.daemon.policies import Denial
from dtp.daemon.reasons import TELLINGS, Reason

PARSE_ERROR, INVALID_REQUEST = -32700, -32600
_NAMES = {"jsonrpc", "method", "params", "id"}
#: Fields that describe the body, which is built anew, or ask for something that isn't passed on.
_OF_THE_BODY = {b"content-length", b"transfer-encoding", b"expect", b"content-encoding", b"upgrade"}
#: The most characters of a method name. No method has more, and matching takes quadratic time for some names.
LONGEST_METHOD = 256
_BLANKS = " \t\n\r"
_GAP = re.compile(f"[{_BLANKS}]*")


class Malformed(Exception):
    """A message that can't be read in exactly one way; `code` is JSON-RPC's."""

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
class RpcMessage:
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


def parse(body: bytes, most: int, *, alone: bool = False) -> RpcMessage:
    """Return the calls in `body`, which may be a batch of at most `most`. Raise `Malformed`.

    With `alone`, members that JSON-RPC doesn't define are refused, too: a backend that speaks more than JSON-RPC,
    such as GraphQL, would act on them.
    """
    try:
        text = body.decode("utf-8").strip(_BLANKS)
        if not text.startswith("["):
            return RpcMessage((_checked(_DECODER.decode(text), text, alone=alone),), batch=False)
        return RpcMessage(tuple(_batch(text, most, alone=alone)), batch=True)
    except UnicodeDecodeError:
        raise Malformed("the message is not UTF-8", PARSE_ERROR) from None
    except RecursionError:
        raise Malformed("the message is nested too deeply", PARSE_ERROR) from None
    except ValueError as error:
        raise Malformed(f"the message is not JSON: {error}", PARSE_ERROR) from None


def _batch(text: str, most: int, *, alone: bool) -> list[RpcCall]:
    """Return the calls of a batch, each with its original text."""
    calls: list[RpcCall] = []
    at = _skip(text, 1)
    while True:
        value, end = _DECODER.raw_decode(text, at)
        calls.append(_checked(value, text[at:end], alone=alone))
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


def _checked(value: Any, text: str, *, alone: bool) -> RpcCall:
    if not isinstance(value, dict):
        raise Malformed("a call has to be an object")
    for name in value:
        if name not in _NAMES and name.casefold() in _NAMES:
            raise Malformed(f"{name[:16]!r} is not how a call's members are spelt")
        if alone and name not in _NAMES:
            raise Malformed(
                f"{name[:16]!r} is not a member of a call, and this service has rules about methods"
            )
    method, call_id = value.get("method"), value.get("id")
    if not isinstance(method, str) or not method or not method.isprintable() or " " in method:
        raise Malformed("a call needs a method, a text without blanks")
    if len(method) > LONGEST_METHOD:
        raise Malformed(f"a method may have {LONGEST_METHOD} characters")
    if isinstance(call_id, dict | list | bool) or call_id in (math.inf, -math.inf):
        raise Malformed("a call's id is a text, a number or null")
    return RpcCall(method, text, "id" in value, call_id)


# ---- answers ---------------------------------------------------------------------------------------------------


def error(call_id: Any, code: int, words: str, data: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return an error object as the specification defines it."""
    body: dict[str, Any] = {"code": code, "message": words}
    if data:
        body["data"] = data
    return {"jsonrpc": "2.0", "id": call_id, "error": body}


def refusal(call: RpcCall, denial: Denial) -> dict[str, Any]:
    """Return the answer to a call that a policy denied: why, and when it may be tried again."""
    data: dict[str, Any] = {"policy": denial.policy}
    if denial.retry is not None:
        data["retry_after"] = round(denial.retry, 3)
    return error(call.id, TELLINGS[denial.reason].json_rpc, denial.why, data)


def failure(call: RpcCall, reason: Reason) -> dict[str, Any]:
    """Return the answer to a call that couldn't be passed on."""
    telling = TELLINGS[reason]
    data = None if telling.retry is None else {"retry_after": telling.retry}
    return error(call.id, telling.json_rpc, telling.words, data)


def forwarded(message: RpcMessage, passed: list[RpcCall]) -> bytes:
    """Return the message for the backend: the calls that passed, in their original text."""
    texts = [call.text for call in passed]
    return (f"[{','.join(texts)}]" if message.batch else texts[0]).encode()


def fields(headers: Headers, *, alone: bool) -> Headers:
    """Return the fields of a message for the backend, without any that would make it read something other than what
    was judged.

    The message is sent as UTF-8 JSON by POST. Where rules are about methods (`alone`), it was judged as JSON, even
    if it would also be valid as a form.
    """
    kept = []
    for key, value in headers:
        if key == b"content-type":
            kept.append((key, b"application/json" if alone else value.partition(b";")[0].strip()))
        elif key not in _OF_THE_BODY and plain(key) not in OVERRIDES:
            kept.append((key, value))
    return kept


def merged(answer: bytes, refusals: list[dict[str, Any]]) -> bytes | None:
    """Return a backend's answer to the rest of a batch with the refusals appended; None if it isn't JSON-RPC."""
    text = answer.decode("utf-8", "replace").strip(_BLANKS)
    own = ",".join(json.dumps(one) for one in refusals)
    if not text:
        return f"[{own}]".encode()
    if text.startswith("[") and text.endswith("]"):
        inner = text[1:-1].strip(_BLANKS)
        return (f"[{inner},{own}]" if inner else f"[{own}]").encode()
    return f"[{text},{own}]".encode() if text.startswith("{") and text.endswith("}") else None
