"""Attacks of `bench.hostile` on the carriers: frames of QUIC, hellos of TLS, frames of WebSocket.

QUIC's attackers are aioquic's connections, which seal whatever they are given; those of WebSocket are plain sockets.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import os
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import mkdtemp
from typing import Final

#: Bytes of a read.
_READ: Final = 65536
#: Packets that an attacker by QUIC sends before it hears what came.
_AT_ONCE: Final = 20
#: Seconds in which a handshake that is attacked with has to be done.
_PATIENCE: Final = 5.0


def _number(value: int) -> bytes:
    return (value | 0x80000000).to_bytes(4)


#: Packets full of one kind of frame, by how many were sent before.
QUIC: Final[dict[str, Callable[[int], bytes]]] = {
    "QUIC, questions of the way": lambda _: b"".join(b"\x1a" + os.urandom(8) for _ in range(120)),
    "QUIC, pings": lambda _: b"\x01" * 1100,
    "QUIC, pieces with gaps": lambda at: b"".join(
        b"\x0e\x02" + _number(2 * (at * 100 + n) + 1) + b"\x01x" for n in range(100)
    ),
    "QUIC, new identifiers": lambda at: b"".join(
        b"\x18" + 2 * _number(8 + at * 30 + n) + b"\x08" + os.urandom(24) for n in range(30)
    ),
    "QUIC, identifiers retired": lambda at: b"".join(b"\x19" + _number(1 + at * 200 + n) for n in range(200)),
    "QUIC, the same identifiers retired": lambda _: b"".join(b"\x19" + bytes((n % 8,)) for n in range(550)),
}
#: Connections that are begun and left.
QUIC_HANDSHAKES: Final = "QUIC, handshakes"
#: What each attack says behind a hello of TLS, or a whole one.
WSS: Final = (
    "wss, hellos",
    "wss, hellos that stay",
    "wss, handshakes of TLS",
    "wss, pings",
    "wss, a byte each",
)
HOLDERS: Final = ("QUIC, memory holders", "wss, memory holders")
ATTACKS: Final = (*QUIC, QUIC_HANDSHAKES, *WSS, *HOLDERS)


@functools.cache
def make_certificate() -> Path:
    """Return the file of a key and certificate of 127.0.0.1, whose issuer this process and those that it starts trust
    from now on."""
    import trustme

    folder = Path(mkdtemp(prefix="dtp-hostile-"))
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
    os.environ["SSL_CERT_FILE"] = str(folder / "ca.pem")
    return folder / "server.pem"


def listen_arguments(attack: str) -> list[str]:
    """Return what those come by who are attacked so, as `listen` takes it: a carrier, and the file of its key."""
    carrier = attack.partition(",")[0].lower()
    if carrier == "wss":
        return ["wss", str(make_certificate())]
    return [carrier if carrier == "quic" else "tcp"]


def listen_url(carrier: str, key: str = "") -> str:
    """Return the URL to listen at for these."""
    return f"wss://127.0.0.1:0/x?cert={key}&key={key}" if carrier == "wss" else f"{carrier}://127.0.0.1:0"


def attack(name: str, count: int, host: str, port: int) -> None:
    """Attack so, for ever, by `count` at once."""
    if name in QUIC or name == QUIC_HANDSHAKES:
        _send_packets(QUIC.get(name), count, host, port)
    elif name in ("wss, pings", "wss, a byte each"):
        _send_frames(b"\x89\x80" if "pings" in name else b"\x82\x81", count, host, port)
    else:
        _say_hello(name, 16 * count, host, port)


# ---- QUIC -----------------------------------------------------------------------------------------------


class _Attacker:
    """One connection of aioquic, on a socket of its own."""

    def __init__(self, host: str, port: int) -> None:
        from aioquic.quic.configuration import QuicConfiguration
        from aioquic.quic.connection import QuicConnection

        self.there, self.sent, self.began = (host, port), 0, time.monotonic()
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.setblocking(False)
        self.sock.connect(self.there)
        self.quic = QuicConnection(
            configuration=QuicConfiguration(
                is_client=True, alpn_protocols=["dtp/1"], verify_mode=ssl.CERT_NONE, server_name="dtp",
                max_datagram_frame_size=65535,
            )
        )  # fmt: skip
        self.quic.connect(self.there, now=self.began)

    def go_on(self) -> None:
        """Send and hear what there is."""
        now = time.monotonic()
        for data, _ in self.quic.datagrams_to_send(now=now):
            with contextlib.suppress(OSError):
                self.sock.send(data)
        with contextlib.suppress(OSError):
            while True:
                self.quic.receive_datagram(self.sock.recv(_READ), self.there, now=now)
        while self.quic.next_event() is not None:
            pass

    @property
    def is_in(self) -> bool:
        return bool(self.quic._handshake_confirmed)

    @property
    def is_over(self) -> bool:
        late = not self.is_in and time.monotonic() > self.began + _PATIENCE
        return late or self.quic._close_event is not None

    def send(self, frames: bytes) -> None:
        """Send a packet of these frames, whatever aioquic thinks of them."""
        from aioquic.quic.packet import QuicPacketType
        from aioquic.quic.packet_builder import QuicPacketBuilder
        from aioquic.tls import Epoch

        quic = self.quic
        builder = QuicPacketBuilder(
            host_cid=quic.host_cid, peer_cid=quic._peer_cid.cid, version=quic._version, is_client=True,
            packet_number=quic._packet_number, max_datagram_size=1280,
        )  # fmt: skip
        builder.start_packet(QuicPacketType.ONE_RTT, quic._cryptos[Epoch.ONE_RTT])
        builder.start_frame(frames[0], capacity=len(frames)).push_bytes(frames[1:])
        packets, _ = builder.flush()
        quic._packet_number = builder.packet_number
        self.sent += 1
        with contextlib.suppress(OSError):
            self.sock.send(packets[0])


def _send_packets(frames: Callable[[int], bytes] | None, count: int, host: str, port: int) -> None:
    """So many connections, each of which comes again when it is thrown out, or without `frames` once it is in."""
    crowd = [_Attacker(host, port) for _ in range(count)]
    while True:
        for number, one in enumerate(crowd):
            one.go_on()
            if one.is_over or (one.is_in and frames is None):
                one.sock.close()
                crowd[number] = _Attacker(host, port)
            elif one.is_in and frames is not None:
                for _ in range(_AT_ONCE):
                    one.send(frames(one.sent))


# ---- WebSocket in TLS -----------------------------------------------------------------------------------


def _client_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _hello() -> bytes:
    """Return the first message of TLS, made once."""
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        _client_context().wrap_bio(there, back, server_hostname="x").do_handshake()
    return back.read()


def _say_hello(name: str, count: int, host: str, port: int) -> None:
    """Connections that say a hello and go, or stay, `count` of them, or go once TLS is there; as fast as it goes."""
    hello, context, kept = _hello(), _client_context(), list[socket.socket]()
    while True:
        with contextlib.suppress(OSError):
            sock = socket.create_connection((host, port), timeout=_PATIENCE)
            if name == "wss, handshakes of TLS":
                context.wrap_socket(sock, server_hostname="x").close()
                continue
            sock.send(hello)
            kept.append(sock)
            if name == "wss, hellos" or len(kept) > count:
                kept.pop(0).close()


def _open_websocket(context: ssl.SSLContext, host: str, port: int) -> ssl.SSLSocket:
    sock = context.wrap_socket(socket.create_connection((host, port), timeout=_PATIENCE), server_hostname="x")
    key = base64.b64encode(os.urandom(16)).decode()
    sock.sendall(
        f"GET /x HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
    )
    if not sock.recv(_READ).startswith(b"HTTP/1.1 101"):
        raise ConnectionRefusedError
    return sock


def _send_frames(start: bytes, count: int, host: str, port: int) -> None:
    """Frames of this first and second byte, with a mask, and a byte where they have one: of so many, in turns."""
    context = _client_context()
    frame = start + bytes(4 + (start[1] & 1))
    much = frame * (16384 // len(frame))

    def one() -> Iterator[None]:
        while True:
            with contextlib.suppress(OSError), _open_websocket(context, host, port) as sock:
                sock.setblocking(False)
                while True:
                    with contextlib.suppress(ssl.SSLWantWriteError, ssl.SSLWantReadError):
                        sock.send(much)
                    with contextlib.suppress(ssl.SSLWantReadError):
                        if not sock.recv(_READ):
                            break
                    yield
            yield

    crowd = [one() for _ in range(count)]
    while True:
        for each in crowd:
            next(each)
