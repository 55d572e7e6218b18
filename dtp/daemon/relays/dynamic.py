"""Forwards where the program names the service itself, by SOCKS5 (RFC 1928) or HTTP CONNECT (RFC 9110).

The host name is `SERVICE.PEER`, where PEER is an identity or a name of the peer table: `api.dtp1...`,
`api.alice.dtp`. Ports are ignored. No IO: bytes in, bytes and a verdict out.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from urllib.parse import quote

import h11

from dtp.daemon.reasons import Reason
from dtp.net.address import Address, AddressError

#: More than any CONNECT request needs. A SOCKS5 greeting ends by itself within 600 bytes.
_MOST = 16 * 1024
_SOCKS_VERSION, _NO_AUTHENTICATION, _NONE_ACCEPTABLE = 5, 0x00, 0xFF
_CONNECT, _DOMAIN = 1, 3
_SUFFIX = ".dtp"


class SocksReply(Enum):
    """RFC 1928, section 6."""

    SUCCEEDED = 0
    GENERAL_FAILURE = 1
    NOT_ALLOWED = 2
    HOST_UNREACHABLE = 4
    COMMAND_NOT_SUPPORTED = 7
    ADDRESS_NOT_SUPPORTED = 8


class Rejected(Exception):
    """The program asked for something that isn't available; `answer` is what to send it."""

    def __init__(self, why: str, answer: bytes) -> None:
        super().__init__(why)
        self.answer = answer


def address_of(host: str) -> Address:
    """Return the address that a host name stands for. Raise `AddressError`."""
    name = host.removesuffix(".").lower()
    service, dot, peer = name.removesuffix(_SUFFIX).rpartition(".")
    if not dot or not (peer.startswith("dtp1") or name.endswith(_SUFFIX)):
        raise AddressError(f"{host!r} is not a service; ask for api.dtp1... or api.alice.dtp")
    # A host name only names a service, so the options of an address are escaped.
    return Address.parse(f"dtp://{peer}/{quote(service, safe='%/')}")


@dataclass
class Greeting:
    """What a program sends first. `answer` has to be sent; `rest` are bytes after the greeting, for the service."""

    answer: bytes = b""
    rest: bytes = b""
    _data: bytearray = field(default_factory=bytearray)

    def receive_data(self, data: bytes) -> Address | None:
        """Process bytes; return the address once it is known. Raise `Rejected`."""
        self._data += data
        return self._parse_step()

    def _parse_step(self) -> Address | None:
        raise NotImplementedError

    def success_reply(self) -> bytes:
        """Return the reply for a program that was connected."""
        raise NotImplementedError

    def failure_reply(self, reason: Reason) -> bytes:
        """Return the reply for a program that couldn't be connected."""
        raise NotImplementedError

    def full_reply(self) -> bytes:
        """Return the reply for a program that there is no room for, sent before it says anything."""
        raise NotImplementedError


class Socks5(Greeting):
    """SOCKS5: no authentication, CONNECT by name."""

    _greeted = False

    def _parse_step(self) -> Address | None:
        data = self._data
        if not self._greeted:
            if len(data) < 2 or len(data) < 2 + data[1]:
                if data and data[0] != _SOCKS_VERSION:
                    raise Rejected("this is not SOCKS5", b"")
                return None
            if data[0] != _SOCKS_VERSION:
                raise Rejected("this is not SOCKS5", b"")
            if _NO_AUTHENTICATION not in data[2 : 2 + data[1]]:
                raise Rejected("it wants to authenticate", bytes([_SOCKS_VERSION, _NONE_ACCEPTABLE]))
            del data[: 2 + data[1]]
            self._greeted = True
            self.answer += bytes([_SOCKS_VERSION, _NO_AUTHENTICATION])
        if len(data) < 5:
            return None
        version, command, _, kind, size = data[:5]
        if version != _SOCKS_VERSION or command != _CONNECT:
            raise Rejected("only CONNECT is known", self._make_reply(SocksReply.COMMAND_NOT_SUPPORTED))
        if kind != _DOMAIN:
            raise Rejected(
                "services have names, not IP addresses", self._make_reply(SocksReply.ADDRESS_NOT_SUPPORTED)
            )
        if len(data) < 7 + size:
            return None
        host = data[5 : 5 + size].decode("ascii", "replace")
        self.rest = bytes(data[7 + size :])
        try:
            return address_of(host)
        except AddressError as error:
            raise Rejected(str(error), self._make_reply(SocksReply.HOST_UNREACHABLE)) from None

    @staticmethod
    def _make_reply(reply: SocksReply) -> bytes:
        # The bound address isn't told: 0.0.0.0, port 0.
        return struct.pack("!BBBB4sH", _SOCKS_VERSION, reply.value, 0, 1, bytes(4), 0)

    def success_reply(self) -> bytes:
        return self._make_reply(SocksReply.SUCCEEDED)

    def failure_reply(self, reason: Reason) -> bytes:
        refused = reason in (Reason.DENIED, Reason.CLOSED_NOW)
        return self._make_reply(SocksReply.NOT_ALLOWED if refused else SocksReply.HOST_UNREACHABLE)

    def full_reply(self) -> bytes:
        return bytes([_SOCKS_VERSION, _NONE_ACCEPTABLE])  # SOCKS5 has no other reply at this point


class HttpConnect(Greeting):
    """HTTP/1.1 CONNECT."""

    def __init__(self) -> None:
        super().__init__()
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=_MOST)

    def receive_data(self, data: bytes) -> Address | None:
        try:
            self._http.receive_data(data)
            event = self._http.next_event()
        except h11.RemoteProtocolError as error:
            raise Rejected(str(error), self._make_answer(error.error_status_hint)) from None
        if event is h11.NEED_DATA:
            return None
        if not isinstance(event, h11.Request) or event.method != b"CONNECT":
            raise Rejected("only CONNECT is known", self._make_answer(405))
        host = event.target.decode("ascii", "replace").rpartition(":")[0]
        self._http.next_event()  # the end of the request; the rest is for the service
        self.rest = self._http.trailing_data[0]
        try:
            return address_of(host)
        except AddressError as error:
            raise Rejected(str(error), self._make_answer(502)) from None

    @staticmethod
    def _make_answer(status: int) -> bytes:
        return f"HTTP/1.1 {status} dtpd\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()

    def success_reply(self) -> bytes:
        return b"HTTP/1.1 200 dtpd\r\n\r\n"

    def failure_reply(self, reason: Reason) -> bytes:
        return self._make_answer(403 if reason in (Reason.DENIED, Reason.CLOSED_NOW) else 502)

    def full_reply(self) -> bytes:
        return self._make_answer(503)


#: What a program sends first, by the forward's `mode`; None where it sends nothing.
GREETINGS: dict[str, Callable[[], Greeting] | None] = {
    "direct": None,
    "socks5": Socks5,
    "http-connect": HttpConnect,
}
