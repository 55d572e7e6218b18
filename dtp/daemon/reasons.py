"""Why the daemon refused or ended something: one table for every protocol in which callers are told."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from dtp.session.codes import CloseCode


class Reason(IntEnum):
    """The error code of a RESET or STOP frame by which a daemon ends a stream, and the detail of its CLOSE."""

    CLIENT_GONE = 100
    NO_BACKEND = 101
    BACKEND_BROKE = 102
    DENIED = 110
    CLOSED_NOW = 111
    METHOD = 112
    TOO_MANY = 113
    RATE = 114
    QUOTA = 115
    SIZE = 116
    TIME = 117
    IDLE = 118
    MALFORMED = 119
    DRAINING = 120
    UNPAID = 121
    NO_DESCRIPTORS = 122
    NOT_LOGGED_IN = 123
    AWAY = 124
    IN_THE_WAY = 125


@dataclass(frozen=True, slots=True)
class Telling:
    """How a reason is told: in words, as the code of CLOSE, as an HTTP status, and as JSON-RPC and gRPC codes.

    `retry` is the number of seconds after which a client may try again, where one is given.
    """

    words: str
    close: CloseCode
    http: int
    json_rpc: int
    grpc: int
    retry: int | None = None


#: -32005 is "limit exceeded" (EIP-1474); -32601 and -32600 come from the JSON-RPC specification. In gRPC 1 is
#: cancelled, 4 deadline exceeded, 7 permission denied, 8 resource exhausted, 13 internal, 14 unavailable and 16
#: unauthenticated.
TELLINGS: dict[Reason, Telling] = {
    Reason.CLIENT_GONE: Telling("the client broke off", CloseCode.NORMAL, 499, -32603, 1),
    Reason.NO_BACKEND: Telling("no backend can be reached", CloseCode.BUSY, 502, -32603, 14),
    Reason.BACKEND_BROKE: Telling("the backend broke off", CloseCode.BUSY, 502, -32603, 14),
    Reason.DENIED: Telling("the caller is not allowed here", CloseCode.DENIED, 403, -32001, 7),
    Reason.CLOSED_NOW: Telling("the service is closed at this hour", CloseCode.DENIED, 503, -32001, 14),
    Reason.METHOD: Telling("the method is not allowed", CloseCode.DENIED, 403, -32601, 7),
    Reason.TOO_MANY: Telling("too many requests at once", CloseCode.BUSY, 503, -32005, 8),
    Reason.RATE: Telling("too many requests in a time", CloseCode.BUSY, 429, -32005, 8),
    Reason.QUOTA: Telling("the quota is used up", CloseCode.BUSY, 429, -32005, 8),
    Reason.SIZE: Telling("more bytes than one request may have", CloseCode.LIMIT, 413, -32600, 8),
    Reason.TIME: Telling("longer than one request may take", CloseCode.LIMIT, 504, -32603, 4),
    Reason.IDLE: Telling("no bytes for too long", CloseCode.IDLE, 408, -32603, 14),
    Reason.MALFORMED: Telling("the request can't be understood", CloseCode.PROTOCOL, 400, -32600, 13),
    Reason.DRAINING: Telling("the daemon is about to end", CloseCode.SHUTDOWN, 503, -32603, 14),
    Reason.UNPAID: Telling("it is not paid", CloseCode.PAYMENT, 402, -32005, 8),
    Reason.NO_DESCRIPTORS: Telling(
        "the daemon has no room for another connection now", CloseCode.BUSY, 503, -32005, 14, retry=1
    ),
    Reason.NOT_LOGGED_IN: Telling("the caller is not logged in", CloseCode.DENIED, 403, -32001, 16),
    Reason.AWAY: Telling("the peer is about to end", CloseCode.SHUTDOWN, 503, -32603, 14, retry=1),
    Reason.IN_THE_WAY: Telling("nothing was taken while others waited", CloseCode.LIMIT, 408, -32603, 8),
}


#: The refusal of a connection with a payment channel to a free service: nothing would be metered.
FREE = "the service is free: come without a channel"


def words(code: int) -> str:
    """Return the words for a stream's error code, or the number itself where no daemon uses it."""
    try:
        return TELLINGS[Reason(code)].words
    except ValueError:
        return f"error code {code}"
