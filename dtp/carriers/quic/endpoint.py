"""A UDP socket with QUIC on it: whoever comes in, and whoever is dialled from it, tell each other apart by their ids.

An address that has proven nothing gets a Retry, which is smaller than what came, and takes no memory here
(RFC 9000, 8.1.2): so nobody can have others flooded, and nobody who can't be answered costs more than a hash.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import errno
import hmac
import logging
import os
import socket
import ssl
import time
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Final
from weakref import WeakKeyDictionary

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from qh3._hazmat import pull_quic_header
from qh3.quic.configuration import QuicConfiguration
from qh3.quic.packet import (
    QuicPacketType,
    QuicProtocolVersion,
    encode_quic_retry,
    encode_quic_version_negotiation,
)

from dtp.bounded import BoundedDict
from dtp.carriers.base import Accept
from dtp.carriers.crowd import Crowd
from dtp.carriers.errors import BrokenError, DialError, reason
from dtp.carriers.quic.carrier import Address, BoundedConnection, QuicCarrier, url_of
from dtp.carriers.quic.sending import RowSender
from dtp.carriers.stream_socket import hand_over
from dtp.carriers.turns import PacketTurns
from dtp.carriers.url import plain_ip
from dtp.carriers.watch import socket_watcher

#: What QUIC's handshake says is spoken on it.
ALPN: Final = "dtp/1"
#: An Initial packet is at least so long (RFC 9000, 14.1): nothing shorter is answered.
SMALLEST_INITIAL: Final = 1200
#: Handshakes of proven addresses that are under way at one socket, each of about 60 KiB, and of one source. One more
#: ends one of them, by lot, as a listener does with those that are half-open.
MOST_HANDSHAKES: Final = 256
MOST_OF_A_SOURCE: Final = MOST_HANDSHAKES // 2
#: Seconds that one may take.
HANDSHAKE: Final = 10.0
#: Seconds that a Retry's token holds: longer than any round trip.
TOKEN: Final = 20
#: Addresses that are expected, since both sides were told of each other: they need prove nothing more.
MOST_EXPECTED: Final = 64
#: Bytes of a packet: what networks carry (Ethernet), and more than the library sends. Larger ones are dropped as if
#: they had been lost, since one of 64 KiB may have twenty thousand frames.
LARGEST_PACKET: Final = 1500
#: Packets that one turn of the loop reads, 3 us each; how many it understands is in `turns`. More than come in a turn
#: of a flood: those that stay in the kernel keep everybody's waiting there, and what it has no room for is lost. With
#: 256 a turn 2 % were on a busy machine, and a visitor waited for QUIC to send again, 40 ms; with 1,024 none.
PACKETS_PER_TURN: Final = 1024
#: Bytes that the kernel holds for us between two turns; it lowers this to its own limit.
RECEIVE_BUFFER: Final = 4 * 1024 * 1024
# It warns of every connection that its other side has closed.
logging.getLogger("quic").setLevel(logging.ERROR)
_CID = 8
#: What the first byte is at least, of all packets, and of those with a long header (RFC 9000, 17); and where the
#: connection id of the others ends.
_FIXED_BIT, _LONG_HEADER, _ID_ENDS = 0x40, 0x80, 1 + _CID
_IDLE = 60.0
_UDP = 65_535
_IPV6: Final = getattr(socket, "AF_INET6", None)


@lru_cache(maxsize=1)
def _certificate() -> tuple[bytes, bytes]:
    """Return a certificate and its key, in PEM. QUIC can't do without; who is who is proven by the handshake
    inside."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "dtp")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=3650))
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return certificate.public_bytes(pem), key.private_bytes(pem, form, plain)


def quic_configuration(*, client: bool) -> QuicConfiguration:
    """Return what all connections of a side have in common."""
    configuration = QuicConfiguration(
        alpn_protocols=[ALPN],
        is_client=client,
        connection_id_length=_CID,
        idle_timeout=_IDLE,
        max_datagram_size=SMALLEST_INITIAL,
        max_datagram_frame_size=_UDP,
        server_name="dtp" if client else None,
        verify_mode=ssl.CERT_NONE,
        supported_versions=[QuicProtocolVersion.VERSION_1],
    )
    if not client:
        configuration.load_cert_chain(*_certificate())
    return configuration


class RetryTokens:
    """Tokens by which an address proves that it gets what is sent there. Nothing is kept for one."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def make_token(self, address: Address, original: bytes, now: int) -> bytes:
        """Return a token for whoever sent a first packet to the connection id `original`, to be shown soon."""
        body = (now + TOKEN).to_bytes(8) + original
        return self._make_tag(address, body) + body

    def check_token(self, address: Address, token: bytes, now: int) -> bytes | None:
        """Return the connection id of the first packet; None for a token of another address, or none of ours."""
        tag, body = token[:16], token[16:]
        if len(body) < 16 or not hmac.compare_digest(tag, self._make_tag(address, body)):
            return None
        return body[8:] if int.from_bytes(body[:8]) >= now else None

    def _make_tag(self, address: Address, body: bytes) -> bytes:
        return hmac.digest(self._key, repr(address[:2]).encode() + body, "sha256")[:16]


class QuicEndpoint:
    """A UDP socket, which it owns from here on. The socket lives until nobody listens and no carrier is left."""

    def __init__(self, sock: socket.socket, *, connected: bool = False) -> None:
        sock.setblocking(False)
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        self._sock = sock
        self._fd = sock.fileno()
        self._connected = connected
        self._sender = RowSender(sock, connected=connected)
        self._loop = asyncio.get_running_loop()
        self._watcher = socket_watcher(self._loop)
        self._watcher.add_reader(self._fd, self._on_readable)
        self._turns = PacketTurns(self._loop)
        self._accept: Accept | None = None
        self._listens = False
        self._carriers: dict[bytes, QuicCarrier] = {}
        self._ids: dict[QuicCarrier, list[bytes]] = {}
        self._handshakes = Crowd[QuicCarrier](MOST_HANDSHAKES, MOST_OF_A_SOURCE)
        self._expiry: dict[QuicCarrier, asyncio.TimerHandle] = {}
        self._expected: BoundedDict[str, float] = BoundedDict(MOST_EXPECTED)
        self._tokens = RetryTokens(os.urandom(32))
        self._server = quic_configuration(client=False)
        #: Called with what came and isn't QUIC: packets whose first byte is below 64.
        self.on_stray: Callable[[bytes, Address], object] | None = None

    # ---- listening and dialling -------------------------------------------------------------------------

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that it is bound to."""
        host, port, *_ = self._sock.getsockname()
        return host, port

    @property
    def family(self) -> int:
        """The family of its addresses."""
        return self._sock.family

    @property
    def handshakes(self) -> dict[str, int]:
        """How many are under way as a server, of each source that has any."""
        return self._handshakes.by_source

    @property
    def listening(self) -> bool:
        """True while it accepts."""
        return self._listens

    @property
    def sock(self) -> socket.socket:
        """Its socket; still its own."""
        return self._sock

    def listen(self, accept: Accept) -> None:
        """Accept from now on. Once for each `stop_listening`."""
        self._accept, self._listens = accept, True

    def stop_listening(self) -> None:
        """Accept nobody more; the carriers there are live on, but for half-done handshakes. Idempotent."""
        self._listens, self._accept = False, None
        for carrier in self._handshakes:
            carrier.abort()
        self._close_if_unused()

    def end_carriers(self) -> None:
        """End all carriers, and tell their other ends: another process has this socket from now on."""
        for carrier in list(self._ids):
            carrier.abort()

    async def dial(self, address: Address, remote: str) -> QuicCarrier:
        """Return a carrier to `address`, not started. `DialError`; no time limit of its own."""
        quic = BoundedConnection(configuration=quic_configuration(client=True))
        carrier = QuicCarrier(self, quic, address, remote, dialled=True)
        self._add_carrier(carrier, quic.host_cid)
        carrier.begin_handshake()
        try:
            await asyncio.shield(carrier.connected)
        except BaseException:
            carrier.abort()
            raise
        return carrier

    def expect_address(self, address: Address, seconds: float) -> None:
        """Let a first packet from `address` in without proof for so long: it was told of us by somebody we trust."""
        self._expected[repr(address[:2])] = self._loop.time() + seconds

    def send_stray(self, data: bytes, address: Address) -> None:
        """Send a packet that is not QUIC: its first byte has to be below 64."""
        self.send_packets([(data, address)])

    # ---- what carriers need -----------------------------------------------------------------------------

    def send_packets(self, packets: Iterable[tuple[bytes, Address]]) -> None:
        """Send each packet to its address. What the system doesn't take is lost, as on the way."""
        for row in self._sender.group(packets):
            try:
                self._sender.send_row(row)
            except (BlockingIOError, InterruptedError):
                return  # as if the network had lost it: QUIC sends it again
            except OSError as error:
                if error.errno == errno.ECONNREFUSED:  # told of a packet before this one, and only once
                    self._loop.call_soon(self._handle_error, error)
                    return

    def forget_carrier(self, carrier: QuicCarrier) -> None:
        """Take no more packets for `carrier`, which has ended."""
        self._turns.forget_taker(carrier)
        for one in self._ids.pop(carrier, ()):
            self._carriers.pop(one, None)
        self._forget_handshake(carrier)
        self._close_if_unused()

    def note_due(self, carrier: QuicCarrier) -> None:
        """Have `carrier` do what is due in its turn."""
        self._turns.note_due(carrier)

    def add_id(self, carrier: QuicCarrier, connection_id: bytes) -> None:
        """Take packets to this connection id for `carrier` as well: its other side may use each that it was given."""
        ids = self._ids.get(carrier)
        if ids is not None and connection_id not in self._carriers:
            self._carriers[connection_id] = carrier
            ids.append(connection_id)

    def remove_id(self, carrier: QuicCarrier, connection_id: bytes) -> None:
        """Take packets to this one no more."""
        if self._carriers.get(connection_id) is carrier:
            del self._carriers[connection_id]
            self._ids[carrier].remove(connection_id)

    def _forget_handshake(self, carrier: QuicCarrier) -> None:
        """It is over, one way or another. Idempotent."""
        if self._handshakes.discard(carrier):
            self._expiry.pop(carrier).cancel()

    def _add_carrier(self, carrier: QuicCarrier, *ids: bytes) -> None:
        for one in ids:
            self._carriers[one] = carrier
        self._ids[carrier] = list(ids)

    def _close_if_unused(self) -> None:
        if not self._listens and not self._ids and self._sock.fileno() >= 0:
            self._watcher.remove_reader(self._fd)
            self._sock.close()
            _forget_endpoint(self)

    @property
    def closed(self) -> bool:
        """True once its socket is."""
        return self._sock.fileno() < 0

    # ---- packets come in --------------------------------------------------------------------------------

    def _on_readable(self) -> None:
        turns, carriers = self._turns, self._carriers
        for _ in range(PACKETS_PER_TURN if turns.has_room else 0):
            try:
                data, address = self._sock.recvfrom(_UDP)
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:
                self._handle_error(error)
                break
            if not 0 < len(data) <= LARGEST_PACKET:
                continue
            if data[0] < _FIXED_BIT:
                if self.on_stray is not None:
                    self.on_stray(data, address)
            elif data[0] < _LONG_HEADER:  # the id stands first, and nothing else is looked at
                carrier = carriers.get(data[1:_ID_ENDS])
                if carrier is not None:
                    turns.put_packet(carrier, data, address)
                continue
            else:
                carrier = self._carrier_for(data, address)
                if carrier is not None:
                    turns.put_packet(carrier, data, address)
            if self.closed:
                break
        turns.give_soon()

    def _handle_error(self, error: OSError) -> None:
        """Take what the system tells of something that was sent; which carrier's is known where there is only one."""
        if not self._connected:
            return
        broken = BrokenError(reason(error))
        broken.__cause__ = error
        for carrier in list(self._ids):
            carrier.note_refused(broken)

    def _carrier_for(self, data: bytes, address: Address) -> QuicCarrier | None:
        """Return whose packet with a long header this is, of one that begins here where it does."""
        try:
            version, kind, _, destination, source, token, _, _, _, _ = pull_quic_header(data, 0, _CID)
        except ValueError:
            return None
        carrier = self._carriers.get(destination)
        if carrier is not None:
            return carrier
        if len(data) < SMALLEST_INITIAL or not version or self._connected:
            return None
        if version not in self._server.supported_versions:
            versions = list(self._server.supported_versions)
            self.send_packets([(encode_quic_version_negotiation(destination, source, versions), address)])
            return None
        if kind != int(QuicPacketType.INITIAL):
            return None
        return self._first_packet(data, version, destination, source, token, address)

    def _first_packet(
        self, data: bytes, version: int, destination: bytes, source: bytes, token: bytes, address: Address
    ) -> QuicCarrier | None:
        """Return a packet that begins a connection: return its carrier, or None where the address has to prove
        itself."""
        if len(destination) < _CID or len(destination) > 20:
            return None
        now = int(time.monotonic())
        original: bytes | None = destination
        retried = None
        if token:
            original, retried = self._tokens.check_token(address, token, now), destination
            if original is None:
                return None
        elif self._expected.get(repr(address[:2]), 0.0) < self._loop.time():
            fresh = os.urandom(_CID)
            answer = encode_quic_retry(
                version=version,
                source_cid=fresh,
                destination_cid=source,
                original_destination_cid=destination,
                retry_token=self._tokens.make_token(address, destination, now),
            )
            self.send_packets([(answer, address)])
            return None
        where = plain_ip(address)
        if not self._handshakes.has_room(where) and (drawn := self._handshakes.draw_one(where)) is not None:
            drawn.abort()
        carrier = self._take_in(destination, original, retried, address)
        if self._accept is None:
            carrier.refuse_connection(data)
            return None
        return carrier

    def _take_in(
        self, destination: bytes, original: bytes | None, retried: bytes | None, address: Address
    ) -> QuicCarrier:
        quic = BoundedConnection(
            configuration=self._server,
            original_destination_connection_id=original,
            retry_source_connection_id=retried,
        )
        carrier = QuicCarrier(self, quic, address, url_of(address), dialled=False)
        self._add_carrier(carrier, destination, quic.host_cid)
        self._handshakes.add(carrier, carrier.source)
        self._expiry[carrier] = self._loop.call_later(HANDSHAKE, carrier.abort)
        carrier.on_connected = self._came_in
        return carrier

    def _came_in(self, carrier: QuicCarrier) -> None:
        self._forget_handshake(carrier)
        if self._accept is None:  # since it began
            self._loop.call_soon(carrier.abort)
        else:
            self._loop.call_soon(hand_over, carrier, self._accept)


# ---- the sockets of a loop ------------------------------------------------------------------------------

# A listener that is closed leaves its socket to the carriers that came in by it; who listens there anew takes it.
_ENDPOINTS: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str, int], QuicEndpoint]] = (
    WeakKeyDictionary()
)


def open_endpoint(family: int, address: Address) -> QuicEndpoint:
    """Return an endpoint bound to `address`. `OSError` where that can't be had."""
    known = _ENDPOINTS.setdefault(asyncio.get_running_loop(), {})
    there = known.get((str(address[0]), int(address[1])))
    if there is not None and not there.listening:
        return there
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        if family == _IPV6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
    except BaseException:
        sock.close()
        raise
    endpoint = QuicEndpoint(sock)
    known[endpoint.address] = endpoint
    return endpoint


def adopt_endpoint(sock: socket.socket) -> QuicEndpoint:
    """Return an endpoint at a socket that is bound already."""
    endpoint = QuicEndpoint(sock)
    _ENDPOINTS.setdefault(asyncio.get_running_loop(), {})[endpoint.address] = endpoint
    return endpoint


def _forget_endpoint(endpoint: QuicEndpoint) -> None:
    known = _ENDPOINTS.get(asyncio.get_running_loop(), {})
    for address, there in list(known.items()):
        if there is endpoint:
            del known[address]


def connected_endpoint(family: int, address: Address) -> QuicEndpoint:
    """Return an endpoint of its own for dialling `address` alone, so that the system says when nobody is there."""
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.connect(address)
    except OSError as error:
        sock.close()
        raise DialError(reason(error)) from error
    return QuicEndpoint(sock, connected=True)
