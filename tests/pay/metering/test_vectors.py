"""docs/vectors/meter.json: made a second time from the documents alone, and taken by `dtp.pay` as it says."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from dtp.pay import messages
from dtp.pay.answers import SealedAnswer, read_answer, read_head, seal_answer
from dtp.pay.errors import MalformedMeter
from dtp.pay.ticket import make_ticket, parse_ticket, statement
from dtp.pay.voucher import LaneKey, SignedVoucher, Voucher, encode_voucher

from .. import second

VECTORS = json.loads(second.PATH.read_text())
KEY = LaneKey(bytes.fromhex(VECTORS["lane key"]["seed"]))
CHANNEL = "0x" + VECTORS["channel"]


def test_the_file_is_what_the_documents_say() -> None:
    assert second.vectors() == VECTORS


def test_vouchers() -> None:
    assert KEY.public.hex() == VECTORS["lane key"]["public"]
    for each in VECTORS["vouchers"]:
        lock = each["hash_lock"] and bytes.fromhex(each["hash_lock"])
        made = Voucher(
            CHANNEL,
            0,
            each["sequence"],
            each["amount"],
            each["requests"],
            each["bytes"],
            lock,
            each["not_after_ms"],
        )
        assert encode_voucher(made).hex() == each["message"]
        assert KEY.sign(made) == SignedVoucher(made, bytes.fromhex(each["signature"]))


def test_tickets() -> None:
    known = VECTORS["ticket"]
    binding = bytes.fromhex(known["binding"])
    assert statement(binding, CHANNEL, 0).hex() == known["statement"]
    assert make_ticket(KEY, CHANNEL, 0, binding).hex() == known["ticket"]
    ticket = parse_ticket(bytes.fromhex(known["ticket"]))
    assert ticket.is_by((KEY.public,), binding)
    assert not ticket.is_by((KEY.public,), bytes(32))
    assert statement(binding, CHANNEL, 0, closes=True).hex() == known["statement_to_close"]
    assert make_ticket(KEY, CHANNEL, 0, binding, closes=True).hex() == known["ticket_to_close"]


class Given:
    """A stream that has just these bytes."""

    def __init__(self, data: Any) -> None:
        self.data = data

    async def readexactly(self, n: Any) -> Any:
        if len(self.data) < n:
            raise asyncio.IncompleteReadError(self.data, n)
        taken, self.data = self.data[:n], self.data[n:]
        return taken


def answer_in(data: bytes) -> SealedAnswer:
    async def read(stream: Any) -> Any:
        return await read_answer(stream, *await read_head(stream))

    return asyncio.run(read(Given(data)))


def test_sealed_answers() -> None:
    known = VECTORS["answer"]
    preimage, plain = bytes.fromhex(known["preimage"]), bytes.fromhex(known["plain"])
    assert seal_answer(preimage, plain).hex() == known["sealed"]
    answer = answer_in(bytes.fromhex(known["sealed"]))
    assert answer.lock == second.LOCK
    assert answer.open(preimage) == plain


@pytest.mark.parametrize("name", VECTORS["taken"])
def test_frames_that_are_taken(name: Any) -> None:
    each = VECTORS["taken"][name]
    frame = bytes.fromhex(each["frame"])
    message = messages.parse(frame, from_client=each["from"] == "client")
    assert messages.build(message) == frame


@pytest.mark.parametrize("name", VECTORS["refused"])
def test_frames_that_are_refused(name: Any) -> None:
    each = VECTORS["refused"][name]
    with pytest.raises(MalformedMeter):
        messages.parse(bytes.fromhex(each["frame"]), from_client=each["from"] == "client")


def test_frames_that_are_skipped() -> None:
    for frame in VECTORS["skipped"].values():
        assert messages.parse(bytes.fromhex(frame), from_client=True) is None
