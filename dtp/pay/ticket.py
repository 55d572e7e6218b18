"""Tickets: what a client shows in the handshake so that a paid service lets it in. A channel, and who holds its key.

Source: docs/wire.md, section "Tickets". The proof is over the handshake's binding, so a ticket fits no other
handshake: whoever overhears or replays one has nothing. Pure: what the chain says of the channel is the affair of
`dtp.pay.server.gate`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import msgpack

from dtp.chain.model import canonical_id, id_bytes
from dtp.packing import unpack
from dtp.pay.errors import TicketRefused
from dtp.pay.voucher import SIGNATURE_SIZE, LaneKey, verify_raw
from dtp.session.codes import CloseDetail

TICKET_DOMAIN: Final = b"dtp.ticket.v1"
VERSION: Final = 1
#: Lanes of one channel, as the Move package has it.
MAX_LANES: Final = 16
#: The largest ticket, bytes; one of this version has 105 or 106.
MAX_TICKET: Final = 512
_BINDING = 32
_ID = 32


#: What a ticket to close says behind the lane, in the array and in what is signed.
_CLOSES: Final = 1


@dataclass(frozen=True, slots=True)
class Ticket:
    """A ticket that is well-formed: the channel's id, the lane's number, the signature (64 bytes).

    Who `closes` comes to agree on the channel's close, and is served nothing.
    """

    channel: str
    lane: int
    signature: bytes
    closes: bool = False

    def is_by(self, keys: Iterable[bytes], binding: bytes) -> bool:
        """Return whether one of the lane's keys made it for the handshake of this binding (32 bytes)."""
        message = statement(binding, self.channel, self.lane, closes=self.closes)
        return any(verify_raw(key, message, self.signature) for key in keys)


def statement(binding: bytes, channel: str, lane: int, *, closes: bool = False) -> bytes:
    """Return what the lane's key signs: domain, binding, channel, lane, and a byte more where it `closes`. 79 or 80
    bytes, and no voucher begins like it."""
    head = bytes((len(TICKET_DOMAIN),)) + TICKET_DOMAIN
    return head + binding + id_bytes(channel) + bytes((lane, _CLOSES) if closes else (lane,))


def make_ticket(key: LaneKey, channel: str, lane: int, binding: bytes, *, closes: bool = False) -> bytes:
    """Return the ticket for a handshake; `closes` for whoever comes only to agree on the channel's close."""
    signature = key.sign_ticket(statement(binding, channel, lane, closes=closes))
    fields = [VERSION, id_bytes(channel), lane, signature]
    packed: bytes = msgpack.packb([*fields, _CLOSES] if closes else fields)
    return packed


def is_to_close(data: bytes) -> bool:
    """True for a ticket of somebody who says that he comes only to agree on a close; whether it is good is not known
    by that."""
    try:
        return parse_ticket(data).closes
    except TicketRefused:
        return False


def parse_ticket(data: bytes) -> Ticket:
    """Return the ticket that these bytes are. Raises `TicketRefused`; whether it is good is not known by that."""
    if not data:
        raise TicketRefused(
            "this service is paid: connect with a wallet and a budget", CloseDetail.TICKET_MISSING
        )
    if len(data) > MAX_TICKET:
        raise TicketRefused(f"a ticket of {len(data)} bytes", CloseDetail.TICKET_MALFORMED)
    match unpack(data, lambda why: TicketRefused(why, CloseDetail.TICKET_MALFORMED), "the ticket"):
        case [int(version), *_] if type(version) is int and version != VERSION:
            raise TicketRefused(
                f"a ticket of version {version}; {VERSION} is spoken here", CloseDetail.TICKET_MALFORMED
            )
        case [int(version), bytes(channel), int(lane), bytes(signature), *rest] if (
            (not rest or (type(rest[0]) is int and rest == [_CLOSES]))
            and type(version) is int
            and type(lane) is int
            and len(channel) == _ID
            and 0 <= lane < MAX_LANES
            and len(signature) == SIGNATURE_SIZE
        ):
            return Ticket(canonical_id(channel), lane, signature, bool(rest))
    raise TicketRefused("the ticket is malformed", CloseDetail.TICKET_MALFORMED)
