"""The messages between a mailbox and its clients: MessagePack arrays, each after its length. Source:
docs/messaging.md, "The mailbox".

A request is `[number, op, ...]`, its answer `[number, code, ...]`; a push is `[0, ...]`.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Any, ClassVar, Final

from dtp.errors import PeerError
from dtp.messaging.packing import MAX_NUMBER, pack_frame, read_frame, unpack
from dtp.net.stream import Stream

#: The name of the service, by convention.
MAILBOX_SERVICE: Final = "dtp.mailbox"
#: The longest request and the longest answer, in bytes: a request has one envelope or piece, an answer several
#: envelopes.
MAX_REQUEST: Final = 512 * 1024
MAX_ANSWER: Final = 2 * 1024 * 1024
#: Envelopes that a mailbox pushes on one connection before the first of them is acknowledged.
MAX_PUSHED: Final = 256
#: Bytes of envelopes in one answer, at most; a single larger one is sent as well.
FETCH_BYTES: Final = 1024 * 1024
ACCESS_BYTES: Final = 16


class MailboxOp(IntEnum):
    """The operation that a request asks for."""

    DEPOSIT = 1
    KEYS = 2
    PUBLISH = 3
    SETTINGS = 4
    FETCH = 5
    ACKNOWLEDGE = 6
    WATCH = 7
    PUT_PIECE = 8
    GET_PIECE = 9
    HAS_PIECES = 10
    STATUS = 11
    SIGNAL = 12
    LEAVE = 13
    PUT_CARD = 14
    CARD = 15
    PRICE = 16
    RESERVE = 17


class Refusal(IntEnum):
    """The code of an answer: 0 if the request was carried out, otherwise the reason why not."""

    DONE = 0
    MALFORMED = 1
    UNKNOWN_RECIPIENT = 2
    FULL = 3
    TOO_OFTEN = 4
    STAMP_NEEDED = 5
    NOT_STORED = 6
    MISSING = 7
    AWAY = 8
    NOT_PAID = 9
    OLDER_KEYS = 10
    CLOCK_DIFFERS = 11
    STORE_AWAY = 12


REASONS: Final[Mapping[Refusal, str]] = {
    Refusal.MALFORMED: "it doesn't understand the request",
    Refusal.UNKNOWN_RECIPIENT: "it keeps nothing for this device: ask its owner for a new card",
    Refusal.FULL: "it has no room for more for this device",
    Refusal.TOO_OFTEN: "it was asked too often from here: try again later",
    Refusal.STAMP_NEEDED: "a first message needs a stamp, made by work or paid for",
    Refusal.NOT_STORED: "it can't write to its disk",
    Refusal.STORE_AWAY: "the server that it keeps everything on can't be reached now: it is tried again",
    Refusal.MISSING: "it hasn't got that, or not any more",
    Refusal.AWAY: "the device isn't connected",
    Refusal.NOT_PAID: "its owner hasn't paid for more room there",
    Refusal.OLDER_KEYS: "it has newer keys of this device, or a newer card: is a copy of its file in use?",
    Refusal.CLOCK_DIFFERS: "by its clock these keys are from the future or have ended: set the clock of this device, "
    "or, if that is right, have whoever runs the mailbox set theirs",
}


class MailboxRefused(PeerError):
    """A mailbox has refused a request; `refusal` is the reason. If a stamp is needed, `detail` is its bits of work,
    or `stamp_mib` its price, as MiB of room for a month.
    """

    code: ClassVar[str] = "mailbox-refused"

    def __init__(self, refusal: Refusal, detail: int = 0, stamp_mib: int = 0) -> None:
        super().__init__(f"the mailbox refused: {REASONS[refusal]}")
        self.refusal, self.detail, self.stamp_mib = refusal, detail, stamp_mib


class MailboxMalformed(PeerError):
    """A mailbox or its client has sent a malformed message."""

    code: ClassVar[str] = "mailbox-malformed"


_KEY, _BYTES, _NUMBER, _LIST = "key", "bytes", "number", "list"

#: The fields of each request after its number and operation.
FIELDS: Final[Mapping[MailboxOp, tuple[str, ...]]] = {
    MailboxOp.DEPOSIT: (_KEY, _BYTES, _NUMBER, _BYTES, _BYTES),  # recipient, envelope, seconds, access, stamp
    MailboxOp.KEYS: (_KEY,),
    MailboxOp.PUBLISH: (_BYTES, _LIST),  # keys, one-time keys
    # hash of the access, bits of a stranger's stamp, MiB of room for a month that it costs instead
    MailboxOp.SETTINGS: (_BYTES, _NUMBER, _NUMBER),
    MailboxOp.FETCH: (_NUMBER, _NUMBER, _NUMBER),  # tray, after, most
    MailboxOp.ACKNOWLEDGE: (_LIST,),
    MailboxOp.WATCH: (_NUMBER, _NUMBER),  # tray, after
    MailboxOp.PUT_PIECE: (_KEY, _BYTES, _NUMBER, _BYTES),  # recipient, piece, seconds, access
    MailboxOp.GET_PIECE: (_KEY,),  # its hash
    MailboxOp.HAS_PIECES: (_LIST,),
    MailboxOp.STATUS: (),
    MailboxOp.SIGNAL: (_KEY, _BYTES, _BYTES),  # recipient, envelope, access
    MailboxOp.LEAVE: (),
    MailboxOp.PUT_CARD: (_BYTES,),
    MailboxOp.CARD: (_KEY,),
    MailboxOp.PRICE: (),
    MailboxOp.RESERVE: (_KEY, _NUMBER, _NUMBER, _BYTES),  # device, MiB, months, stamp
}
MAX_LIST: Final = 1024


#: Encodes a request, an answer or a push, with its length in front.
encode = pack_frame


async def read(stream: Stream, most: int) -> bytes:
    """Return the bytes of the next message, b"" at the end. Raise `MailboxMalformed` for one of more than `most`
    bytes.
    """
    return await read_frame(stream, most, MailboxMalformed)


def parse_request(body: bytes) -> tuple[int, MailboxOp, list[Any]]:
    """Return the number, operation and fields of a request. Raise `MailboxMalformed`. Surplus fields are ignored."""
    told = unpack(body, MailboxMalformed, "a request")
    if not isinstance(told, list) or len(told) < 2 or not _fits(told[0], _NUMBER) or type(told[1]) is not int:
        raise MailboxMalformed("a request is [number, op, ...]")
    try:
        op = MailboxOp(told[1])
    except ValueError:
        raise MailboxMalformed(f"a request for the unknown operation {told[1]}") from None
    wanted = FIELDS[op]
    fields = told[2 : 2 + len(wanted)]
    if len(fields) < len(wanted) or not all(map(_fits, fields, wanted)):
        raise MailboxMalformed(f"{op.name} has a field that is missing or wrong")
    return told[0], op, fields


def parse_answer(body: bytes) -> tuple[int, list[Any]]:
    """Return the number of an answer, and what follows it: a code and fields. Raise `MailboxMalformed`."""
    told = unpack(body, MailboxMalformed, "an answer")
    if not isinstance(told, list) or len(told) < 2 or not all(_fits(each, _NUMBER) for each in told[:2]):
        raise MailboxMalformed("an answer is [number, code, ...]")
    return told[0], told[1:]


def _fits(field: object, form: str) -> bool:
    if form == _NUMBER:
        return type(field) is int and 0 <= field <= MAX_NUMBER
    if form == _LIST:
        return isinstance(field, list) and len(field) <= MAX_LIST
    return isinstance(field, bytes) and (form == _BYTES or len(field) == 32)
