"""Why a link, a connection or a stream ended: the numbers on the wire and the exceptions they become.

Source of the numbers: docs/wire.md, sections "Refusal" and "CLOSE".
"""

from __future__ import annotations

from enum import IntEnum

from dtp.errors import CarrierError, DtpError, LimitError, LocalError, PeerError


class Refusal(IntEnum):
    """What a side says in the clear when a handshake can't go on. Unauthenticated, so a hint and no more."""

    VERSION = 1
    SUITE = 2
    FAILED = 3
    BUSY = 4
    DOWNGRADE = 5


class CloseCode(IntEnum):
    """The code of a CLOSE frame, when its APPLICATION flag is not set."""

    NORMAL = 0
    INTERNAL = 1
    PROTOCOL = 2
    FLOW = 3
    LIMIT = 4
    UNKNOWN_FRAME = 5
    IDLE = 6
    UNKNOWN_SERVICE = 7
    DENIED = 8
    BUSY = 9
    RESUME_UNKNOWN = 10
    RESUME_PROOF = 11
    SHUTDOWN = 12
    PAYMENT = 13
    TICKET = 14


class CloseDetail(IntEnum):
    """What a CLOSE frame is about, in more detail than its code, so that no program has to read its text.

    Numbers from 100 on are the codes by which `dtpd` ends streams (docs/daemon.md). A number that isn't known here
    says no more than the code.
    """

    NONE = 0
    # Of a ticket, or of the channel that it names.
    TICKET_MISSING = 1
    TICKET_MALFORMED = 2
    TICKET_NOT_PROVEN = 3
    CHANNEL_UNKNOWN = 4
    CHANNEL_CLOSED = 5
    CHANNEL_ELSEWHERE = 6
    CHANNEL_UNFIT = 7
    DEPOSIT_USED_UP = 8
    SERVICE_FREE = 9
    SERVER_RESTORED = 10
    # Of the pass that a channel was opened under.
    PASS_OVER = 11
    QUOTA_USED_UP = 12
    # Of paying.
    NOT_PAID = 13
    VOUCHERS_NOT_STORED = 14
    PASS_UNPROVEN = 15
    CHARGE_DECLINED = 16
    # Of the host's rules on the chain.
    NO_SERVICE = 20
    SERVICE_CLOSED = 21
    ON_DENY_LIST = 22
    NOT_ON_ALLOW_LIST = 23
    PASS_NEEDED = 24
    OVER_RATE = 25
    RULES_UNKNOWN = 26
    # Of places for connections.
    PLACE_GIVEN = 30
    ALL_AT_WORK = 31


def check_code(code: int) -> None:
    """Raise `LocalError` for a number that no frame has room for."""
    if not 0 <= code < 1 << 32:
        raise LocalError(f"a code is from 0 to 2^32 - 1, not {code}")


class Refuse(Exception):
    """Raised by whoever decides on a request (`listen(admit=...)`); all of it reaches the client.

    `code` and `detail` (`CloseDetail`) are for programs, `reason` is for people. `LocalError` for a number that
    is not from 0 to 2^32 - 1.
    """

    def __init__(
        self, code: int = CloseCode.DENIED, reason: str = "", *, detail: int = CloseDetail.NONE
    ) -> None:
        check_code(code)
        check_code(detail)
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.detail = detail


class HandshakeError(PeerError):
    """The handshake failed; the carrier is closed and nothing was sent beyond a refusal code."""

    code = "handshake"


_REFUSALS = {
    Refusal.VERSION: "it speaks another protocol version; update one of the two",
    Refusal.SUITE: "it does not support this handshake pattern or cipher suite, or wants a pre-shared key",
    Refusal.FAILED: "it could not read our message; another static or pre-shared key may be in use there",
    Refusal.BUSY: "it has too many handshakes under way; try again later",
    Refusal.DOWNGRADE: "both sides have a better cipher suite: somebody between them forges refusals of it",
}


class HandshakeRefused(HandshakeError):
    """The other side gave up the handshake. `.refusal` is its `Refusal`, or a number unknown to this version."""

    code = "handshake-refused"

    def __init__(self, refusal: int) -> None:
        known = {int(key): f"{key.name}: {text}" for key, text in _REFUSALS.items()}
        unknown = f"code {refusal}, which stands for nothing: something else answers there"
        super().__init__(f"handshake refused ({known.get(refusal, unknown)})")
        self.refusal = refusal


class WrongIdentity(HandshakeError):
    """Whoever answered is not the identity that the address names. Nothing of ours was told to it."""

    code = "wrong-identity"


class ProtocolError(PeerError):
    """The peer sent what the specification forbids. `.close_code` is what it is told."""

    code = "protocol"

    def __init__(self, message: str, close_code: CloseCode = CloseCode.PROTOCOL) -> None:
        super().__init__(message)
        self.close_code = close_code


class ConnectionRefused(PeerError):
    """The peer is who it should be, and refused the connection.

    `.close_code` (`CloseCode`) and `.detail` (`CloseDetail`, or another number) say why, `.reason` says it to people.
    """

    code = "refused"

    def __init__(self, close_code: int, reason: str, detail: int = CloseDetail.NONE) -> None:
        super().__init__(
            f"the peer refused the connection: {describe(close_code)}{': ' + reason if reason else ''}"
        )
        self.close_code = close_code
        self.reason = reason
        self.detail = detail


class ConnectionClosed(DtpError, ConnectionResetError):
    """The connection was closed before, by this side or the peer (`.by_peer`).

    `.close_code`, `.detail` and `.reason` as `ConnectionRefused` has them; if `.application`, the code is its own.
    """

    code = "closed"

    def __init__(
        self,
        close_code: int,
        reason: str,
        by_peer: bool,
        application: bool = False,
        detail: int = CloseDetail.NONE,
    ) -> None:
        name = f"code {close_code}" if application else describe(close_code)
        who = "the peer" if by_peer else "this side"
        super().__init__(f"connection closed by {who} ({name}){': ' + reason if reason else ''}")
        self.close_code = close_code
        self.reason = reason
        self.by_peer = by_peer
        self.application = application
        self.detail = detail


class ConnectionLost(CarrierError):
    """All carriers are gone and the connection could not be resumed in time. What was not acknowledged is lost."""

    code = "lost"


class StreamReset(PeerError, ConnectionResetError):
    """The peer gave up this stream (`RESET`), or doesn't want what we send (`STOP`). `.error_code` is its own."""

    code = "reset"

    def __init__(self, error_code: int, stopped: bool = False) -> None:
        what = "stopped reading" if stopped else "reset the stream"
        super().__init__(f"the peer {what} (error code {error_code})")
        self.error_code = error_code
        self.stopped = stopped


class StreamRefused(StreamReset):
    """The peer is about to end and took this stream up no more, so nothing on it was read: it may be tried elsewhere.

    `.data` is all that was written to it; None where that isn't kept any more.
    """

    code = "stream-refused"

    def __init__(self, data: bytes | None = None) -> None:
        super().__init__(CloseCode.SHUTDOWN)
        self.args = ("the peer is about to end, and has read nothing of this stream",)
        self.data = data


class StreamClosed(LocalError, ConnectionError):
    """This side has already finished or reset the stream; open another one."""

    code = "stream-closed"


class TooManyStreams(LimitError):
    """The peer allows no further stream at the moment; wait for one to end."""

    code = "too-many-streams"


class DatagramTooLarge(LimitError):
    """A datagram is above what the peer takes; cut it or use a stream."""

    code = "datagram-too-large"


def describe(close_code: int) -> str:
    """Return a close code in words: `UNKNOWN_SERVICE`, or the number where it has no name."""
    try:
        return CloseCode(close_code).name
    except ValueError:
        return str(close_code)
