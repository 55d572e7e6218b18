"""What can go wrong with a carrier, by name.

The two families of `dtp.errors` keep their meaning: `LocalError` for what the caller wrote, `CarrierError`
for what the network did. The operating system's error, where there is one, is the `__cause__`.
"""

from __future__ import annotations

import errno
import os
from typing import ClassVar

from dtp.errors import CarrierError, LocalError

#: Below it only the privileged may listen, where the system hasn't been told otherwise.
_FREE_PORTS = 1024


def reason(error: Exception, *, listening: int | None = None) -> str:
    """Return what the operating system calls `error`, such as "Connection refused"; asyncio puts words of its own
    into the exception's text. `listening` is the port that couldn't be had: what to do about it is said, too."""
    number = getattr(error, "errno", None)
    if number == errno.EACCES and listening is not None and listening < _FREE_PORTS:
        return (
            f"{os.strerror(number)}: ports below {_FREE_PORTS} are for the privileged; take a higher one, or have "
            "the socket opened for it (systemd: packaging/dtpd.socket)"
        )
    return os.strerror(number) if number is not None and number > 0 else str(error)


class CarrierUrlError(LocalError):
    """A carrier URL can't be meant: unknown scheme, missing port, unknown option. The message says which."""

    code: ClassVar[str] = "carrier-url"


class EventLoopError(LocalError):
    """The running event loop can't drive this carrier; the message names one that can."""

    code: ClassVar[str] = "event-loop"


class DialError(CarrierError):
    """No carrier came about: the name is unknown, or the other side refused or can't be reached."""

    code: ClassVar[str] = "dial"


class ListenError(LocalError, OSError):
    """Can't listen there: the address is in use, not on this machine, or not permitted. Whoever chose it has to
    act."""

    code: ClassVar[str] = "listen"


class BrokenError(CarrierError):
    """A working carrier ended without an orderly end: reset, timed out, cut off."""

    code: ClassVar[str] = "broken"


class TlsError(DialError):
    """TLS under a carrier could not be agreed on, such as a certificate that isn't trusted."""

    code: ClassVar[str] = "tls"


class UpgradeError(DialError):
    """The HTTP side refused, misunderstood or never finished the change to WebSocket or through a proxy."""

    code: ClassVar[str] = "upgrade"


class HeadSizeError(UpgradeError):
    """The other side sent more than `MAX_HEAD` bytes of HTTP header."""

    code: ClassVar[str] = "upgrade-size"


class OriginError(UpgradeError):
    """A web page asked for a WebSocket, of an origin that the listener's `origins=` doesn't name."""

    code: ClassVar[str] = "upgrade-origin"


class UpgradeTimeoutError(UpgradeError):
    """The opening handshake took longer than `UPGRADE_TIMEOUT` seconds."""

    code: ClassVar[str] = "upgrade-timeout"


class WebSocketError(BrokenError):
    """The other side broke RFC 6455, or closed with a code that isn't an orderly end."""

    code: ClassVar[str] = "websocket"


class TextMessageError(WebSocketError):
    """A text message came; carriers move binary messages only."""

    code: ClassVar[str] = "websocket-text"


class MessageSizeError(WebSocketError):
    """A message came that is larger than `MAX_MESSAGE` bytes."""

    code: ClassVar[str] = "websocket-size"


class PingTimeoutError(WebSocketError):
    """The other side has sent nothing, not even an answer to a ping, for `PING_TIMEOUT` seconds."""

    code: ClassVar[str] = "websocket-ping"


class ControlFloodError(WebSocketError):
    """The other side sends pings without reading the answers, or frames without end that carry next to nothing."""

    code: ClassVar[str] = "websocket-flood"


class CreditError(BrokenError):
    """The other side of a QUIC carrier sends more than it may, or says of more that it has it than was sent."""

    code: ClassVar[str] = "quic-credit"


class PacketFloodError(BrokenError):
    """The other side of a QUIC carrier sends packets without end that move nothing."""

    code: ClassVar[str] = "quic-flood"


class MissingLibraryError(LocalError):
    """This kind of carrier needs a library that isn't installed; the message says which."""

    code: ClassVar[str] = "missing-library"
