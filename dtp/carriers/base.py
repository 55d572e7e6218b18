"""The carrier contract: what moves opaque bytes, and what it reports to.

A carrier knows no sessions, keys or frames. It is driven from one event loop; all methods are called there
and return at once. Everything it has to say it says to its `Receiver`.
"""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import ClassVar, Protocol

from dtp.errors import CarrierError


class Receiver(Protocol):
    """What a carrier reports to. Never called from inside a call to the carrier; never before `start`.

    It may call the carrier from all of these. It must not raise: what it raises goes to the loop's exception
    handler and changes nothing.
    """

    def carrier_buffer(self) -> memoryview:
        """Give writable memory (at least 64 KiB) for the next bytes. Valid until the next return to the
        loop."""

    def carrier_received(self, size: int) -> None:
        """Called when `size` bytes (> 0) were written to the front of the buffer given last."""

    def carrier_packet(self, data: bytes) -> None:
        """Called when a packet has come over the lossy path, whole: what the other side gave to `write_packet`, or
        anybody's who can send packets there. Not while nobody has started."""

    def carrier_writable(self) -> None:
        """After `write` gave False: more may be written now. Once for any number of such writes."""

    def carrier_lost(self, error: CarrierError | None) -> None:
        """Called when the carrier has ended, by `error` or (None) by an orderly end from the other side: exactly
        once, last of all, and also after `close` or `abort` by this side (then with None)."""


class CarrierState(Enum):
    """How far a carrier is."""

    OPEN = auto()
    CLOSING = auto()  # by `close`: sending the rest, then waiting for the other side's end
    ENDED = auto()


class Carrier(ABC):
    """Bytes one way and the other, in order and complete until it is lost.

    With a `packet_size` above 0 there is a lossy path beside them: packets of at most so many bytes, which may be
    lost, doubled or reordered, and hold up nothing.
    """

    #: The name in `CARRIERS`, such as "tcp".
    scheme: ClassVar[str]
    #: The most bytes of a packet on the lossy path; 0 where there is none.
    packet_size: int = 0

    #: Who is at the other end as far as the carrier knows, for limits per source and for logs: an IP address,
    #: "unix:uid=1000", "memory". Not proof of anything.
    source: str
    #: Where this carrier leads, as the URL that was dialled or a description such as "tcp://127.0.0.1:40112".
    remote: str
    #: The number of the descriptor that it takes in this process; -1 where it takes none of its own.
    descriptor: int = -1
    #: Called, if set, when bytes have come that are kept here (`held`), and nothing could be reported.
    on_kept: Callable[[], object] | None = None

    @abstractmethod
    def start(self, receiver: Receiver) -> None:
        """Begin to report to `receiver`. Called once, and before anything but `close` and `abort`. Until then
        what the other side sends waits, and stops that side when it is much."""

    @abstractmethod
    def write(self, data: memoryview) -> bool:
        """Take all of `data`; the memory may be reused as soon as this returns.

        True: more may be written at once. False: wait for `carrier_writable` first (writing all the same is
        allowed for a last goodbye and is kept in memory). After the end of the carrier: does nothing, False.
        """

    def write_packet(self, data: memoryview) -> None:  # noqa: B027 - most have no lossy path
        """Send a packet of at most `packet_size` bytes over the lossy path; the memory may be reused as soon as this
        returns. What is larger, or comes where there is no such path or the carrier is over, is dropped."""

    @abstractmethod
    def pause_reading(self) -> None:
        """Report neither bytes nor the other side's end until `resume_reading`; what comes waits, and stops that side
        when it is much. Errors and the end of `close` are reported all the same. Idempotent."""

    @abstractmethod
    def resume_reading(self) -> None:
        """Report again, not before the next turn of the loop. Idempotent."""

    @abstractmethod
    def close(self) -> None:
        """Send what was written, then end. Idempotent. Gives up after `linger` seconds of its own choosing.

        From here on nothing is reported but `carrier_lost`, once the other side has ended too or time is up;
        what still comes in is dropped, and `write` does nothing.
        """

    @abstractmethod
    def abort(self) -> None:
        """End now, also in the middle of `close`; what was not sent is dropped. Idempotent. The other side
        sees an error where the carrier has a way to tell it from an orderly end (a Unix socket has none)."""

    def broken_off(self) -> bool:
        """True if it is known, though reading may be paused, that the other side hears nothing any more: it has not
        only ended, but broken off. Then what nobody has read of it is given up, and `carrier_lost` follows."""
        return False

    def has_ended(self) -> bool:
        """True if it is known, though reading may be paused, that the other side sends nothing any more, and that all
        it has sent was reported. Whatever needs an answer of it to go on can be given up then."""
        return self.broken_off()

    @property
    def held(self) -> int:
        """Bytes that are kept here: written and not yet sent, or come and not yet reported."""
        return 0

    def detach(self) -> tuple[socket.socket, bytes] | None:
        """Give the socket away, for a carrier in another process: the socket, and what was written and isn't sent.

        From then on the carrier is over and reports nothing. None when there is more to it than a socket (TLS,
        WebSocket); then nothing has changed. Not from inside a call of the carrier's.
        """
        return None


class CarrierListener(ABC):
    """Accepts carriers until closed."""

    #: Where it listens now, as URLs that `dial` takes (port 0 replaced by the real one).
    urls: list[str]

    @abstractmethod
    async def close(self) -> None:
        """Stop accepting and free the port or path. Carriers accepted before live on. Idempotent."""

    @property
    def sockets(self) -> list[socket.socket]:
        """What it accepts on, if that is sockets; still its own. For handing copies to another process."""
        return []

    def keep_place(self) -> None:  # noqa: B027 - most have nothing to clear away
        """Let `close` clear nothing away from now on: another process listens there with copies of `sockets`."""


Dial = Callable[[str], Awaitable[Carrier]]
#: What is called with each carrier that comes in; it has to start it.
Accept = Callable[[Carrier], None]
Listen = Callable[[str, Accept], Awaitable[CarrierListener]]


@dataclass(frozen=True)
class CarrierKind:
    """A row of `CARRIERS`: how to dial and to listen at URLs of one scheme.

    `dial(url)` gives a carrier that is connected but not started. `listen(url, accept)` calls
    `accept(carrier)`, which has to start it, for each that comes in; it may leave out whoever has ended by then.
    Both raise `CarrierError` for what the network does (refused, unreachable, address in use, name unknown) and
    `LocalError` for a URL that can't be meant.
    """

    scheme: str
    dial: Dial
    listen: Listen
    #: Seconds that a handshake, and the answer to a question whether the other side lives, may take at least: for
    #: carriers on which a message takes seconds by nature. The other side isn't asked more often than this, either.
    #: With 0 only the limits of the connection say.
    patience: float = 0.0
