"""QUIC on loopback: the contract, addresses that prove nothing, sides that don't keep to their credit."""

import asyncio
import socket
import ssl
import time

import pytest
from loops import LoopFactory, needs_ipv6, on_every_loop

qh3 = pytest.importorskip("qh3", reason="qh3 not installed (the extra quic)")

from qh3._hazmat import pull_quic_header  # noqa: E402
from qh3.quic import events  # noqa: E402
from qh3.quic.configuration import QuicConfiguration  # noqa: E402
from qh3.quic.connection import QuicConnection  # noqa: E402
from qh3.quic.packet import QuicPacketType  # noqa: E402

from dtp.carriers import (  # noqa: E402
    CARRIERS,
    Carrier,
    dial,
    listen,
)
from dtp.carriers import quic as quic_carriers  # noqa: E402
from dtp.carriers.errors import CarrierUrlError, CreditError, DialError, MissingLibraryError  # noqa: E402
from dtp.carriers.quic import QuicListener  # noqa: E402
from dtp.carriers.quic import endpoint as quic_endpoint  # noqa: E402
from dtp.carriers.quic.carrier import WINDOW, QuicCarrier  # noqa: E402
from dtp.carriers.quic.endpoint import (  # noqa: E402
    ALPN,
    SMALLEST_INITIAL,
    TOKEN,
    QuicEndpoint,
    RetryTokens,
)
from dtp.testing.carrier_ends import CarrierEnd  # noqa: E402
from dtp.testing.carriers import check_carrier  # noqa: E402
from dtp.testing.clock import run  # noqa: E402


@on_every_loop
def test_it_keeps_the_contract(loop_factory: LoopFactory) -> None:
    check = check_carrier(
        CARRIERS["quic"], "quic://127.0.0.1:0", packets_expected=200, transfer=1_500_000, middle=True
    )
    run(check, loop_factory=loop_factory)


@needs_ipv6
def test_it_keeps_the_contract_over_ipv6() -> None:
    check = check_carrier(
        CARRIERS["quic"], "quic://[::1]:0", packets_expected=200, transfer=300_000, middle=True
    )
    on_sockets(check)


def on_sockets(main):
    return run(main, loop_factory=asyncio.SelectorEventLoop)


async def listening(accepted: asyncio.Queue[Carrier] | None = None) -> tuple[QuicListener, QuicEndpoint]:
    listener = await listen("quic://127.0.0.1:0", (accepted or asyncio.Queue()).put_nowait)
    assert isinstance(listener, QuicListener)
    return listener, listener.endpoints[0]


def bound(host: str) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((host, 0))
    sock.setblocking(False)
    return sock


class Stranger:
    """A QUIC client of its own on a blocking socket, which does as it likes."""

    def __init__(
        self, endpoint: QuicEndpoint, *, most_data: int = 1 << 20, source: str = "127.0.0.1"
    ) -> None:
        self.source = source
        self.sock = bound(source)
        self.there = endpoint.address
        self.quic = QuicConnection(
            configuration=QuicConfiguration(
                alpn_protocols=[ALPN],
                verify_mode=ssl.CERT_NONE,
                server_name="dtp",
                max_datagram_size=SMALLEST_INITIAL,
                max_datagram_frame_size=65535,
                max_data=most_data,
                max_stream_data=most_data,
            )
        )
        self.quic.connect(self.there, now=time.monotonic())
        self.happened: list[events.QuicEvent] = []

    def move(self) -> None:
        """Go on from another port."""
        self.sock.close()
        self.sock = bound(self.source)

    def send(self) -> None:
        for data, _ in self.quic.datagrams_to_send(now=time.monotonic()):
            self.sock.sendto(data, self.there)

    def receive(self) -> list[bytes]:
        """What has come, not looked at."""
        found = []
        while True:
            try:
                found.append(self.sock.recv(65536))
            except BlockingIOError:
                return found

    def turn(self) -> None:
        now = time.monotonic()
        for data in self.receive():
            self.quic.receive_datagram(data, self.there, now=now)
        due = self.quic.get_timer()
        if due is not None and due <= now:
            self.quic.handle_timer(now=now)
        while (event := self.quic.next_event()) is not None:
            self.happened.append(event)
        self.send()

    async def until(self, kind: type) -> events.QuicEvent:
        async with asyncio.timeout(20):
            while True:
                self.turn()
                for event in self.happened:
                    if isinstance(event, kind):
                        return event
                await asyncio.sleep(0)


async def turns(number: int = 20) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


def test_an_address_that_has_proven_nothing_gets_less_than_it_sent_and_takes_no_memory() -> None:
    async def main() -> None:
        listener, endpoint = await listening()
        for _ in range(50):
            spoofing = Stranger(endpoint)  # it never reads, as one who gives another's address never does
            (first, _), *_ = spoofing.quic.datagrams_to_send(now=time.monotonic())
            spoofing.sock.sendto(first, spoofing.there)
            answers: list[bytes] = []
            while not answers:
                await asyncio.sleep(0)
                answers = spoofing.receive()
            assert [pull_quic_header(each, 0, 8)[1] for each in answers] == [int(QuicPacketType.RETRY)]
            assert sum(map(len, answers)) < len(first) // 4
            assert not endpoint._ids
            spoofing.sock.close()
        await listener.close()

    on_sockets(main())


def test_a_version_that_is_not_spoken_is_answered_smaller_and_only_to_whole_packets() -> None:
    async def main() -> None:
        listener, endpoint = await listening()
        stranger = Stranger(endpoint)
        packet = b"\xc0" + (0x1A2A3A4A).to_bytes(4) + b"\x08" + bytes(8) + b"\x08" + bytes(8)
        stranger.sock.sendto(packet.ljust(SMALLEST_INITIAL - 1, b"\0"), stranger.there)
        stranger.sock.sendto(packet.ljust(SMALLEST_INITIAL, b"\0"), stranger.there)
        answers: list[bytes] = []
        while not answers:
            await asyncio.sleep(0)
            answers = stranger.receive()
        await turns()
        assert len(answers + stranger.receive()) == 1
        assert len(answers[0]) < 100
        stranger.sock.close()
        await listener.close()

    on_sockets(main())


def test_noise_is_not_answered_and_harms_nobody() -> None:
    async def main() -> None:
        accepted: asyncio.Queue[Carrier] = asyncio.Queue()
        listener, endpoint = await listening(accepted)
        near = CarrierEnd(await dial(listener.urls[0])).start()
        far = CarrierEnd(await accepted.get()).start()
        stranger = Stranger(endpoint)
        for number in range(300):
            first = bytes([number & 0xFF])
            stranger.sock.sendto(first + bytes(range(number % 200)), stranger.there)
            if number % 50 == 0:
                await turns()
        await near.deliver_message(b"still there", far)
        await far.deliver_message(b"so am I", near)
        assert stranger.receive() == []
        stranger.sock.close()
        near.close()
        await far.until_lost()
        await near.until_lost()
        await listener.close()

    on_sockets(main())


def test_tokens_are_of_one_address_and_of_a_short_time() -> None:
    tokens = RetryTokens(b"k" * 32)
    here, there = ("127.0.0.1", 7), ("127.0.0.2", 7)
    token = tokens.make_token(here, b"12345678", 100)
    assert tokens.check_token(here, token, 100 + TOKEN) == b"12345678"
    assert tokens.check_token(here, token, 101 + TOKEN) is None
    assert tokens.check_token(there, token, 100) is None
    assert tokens.check_token(here, token[:-1] + b"9", 100) is None
    assert tokens.check_token(here, b"", 100) is None
    assert RetryTokens(b"l" * 32).check_token(here, token, 100) is None


def test_handshakes_that_nobody_finishes_are_bounded_and_keep_nobody_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A flood of one source throws out its own: neither whoever comes behind it, nor one from elsewhere."""
    monkeypatch.setattr(quic_endpoint, "MOST_OF_A_SOURCE", 3)

    async def main() -> None:
        listener, endpoint = await listening()
        strangers = [Stranger(endpoint, source="127.0.0.2"), *(Stranger(endpoint) for _ in range(22))]
        for count, stranger in enumerate(strangers[:-1]):
            await half_done(stranger, endpoint)
            assert endpoint.handshakes.get("127.0.0.1", 0) == min(3, count)
        for stranger in (strangers[0], strangers[-1]):
            await stranger.until(events.HandshakeCompleted)
        await listener.close()
        endpoint.end_carriers()
        for stranger in strangers:
            stranger.sock.close()

    on_sockets(main())


async def half_done(stranger: Stranger, endpoint: QuicEndpoint) -> None:
    """Have it prove its address, and begin a handshake of which it hears no more."""
    known = set(endpoint._ids)
    async with asyncio.timeout(20):
        while not set(endpoint._ids) - known:
            stranger.turn()
            await asyncio.sleep(0)


def test_one_that_moves_to_another_address_has_the_line_of_its_own_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As behind a router that has given it another port; what others forge for it waits elsewhere."""

    async def main() -> None:
        accepted: asyncio.Queue[Carrier] = asyncio.Queue()
        listener, endpoint = await listening(accepted)
        stranger = Stranger(endpoint)
        await stranger.until(events.HandshakeCompleted)
        carrier = await accepted.get()
        assert isinstance(carrier, QuicCarrier)
        assert carrier.peer[:2] == stranger.sock.getsockname()
        stranger.move()
        stranger.quic.send_ping(1)
        await stranger.until(events.PingAcknowledged)
        host, port = stranger.sock.getsockname()
        assert carrier.peer[:2] == (host, port)
        assert carrier.remote == f"quic://{host}:{port}"  # which relays tell others, who dial it
        carrier.abort()
        stranger.sock.close()
        await listener.close()

    on_sockets(main())


async def misbehaving() -> tuple[QuicListener, Stranger, CarrierEnd]:
    accepted: asyncio.Queue[Carrier] = asyncio.Queue()
    listener, endpoint = await listening(accepted)
    stranger = Stranger(endpoint)
    await stranger.until(events.HandshakeCompleted)
    while accepted.empty():
        stranger.turn()
        await asyncio.sleep(0)
    end = CarrierEnd(await accepted.get())
    return listener, stranger, end


async def ended(stranger: Stranger, end: CarrierEnd) -> object:
    async with asyncio.timeout(20):
        while not end.recorder.ended:
            stranger.turn()
            await asyncio.sleep(0)
    stranger.sock.close()
    return end.recorder.lost


def test_who_sends_more_than_was_allowed_is_cut_off_and_no_more_than_that_is_kept() -> None:
    async def main() -> None:
        listener, stranger, end = await misbehaving()
        end.start()
        end.carrier.pause_reading()
        data = stranger.quic.get_next_available_stream_id(is_unidirectional=True)
        for _ in range(3 * WINDOW // 65536):
            stranger.quic.send_stream_data(data, bytes(65536))
        most = 0
        async with asyncio.timeout(20):
            while not end.recorder.ended:
                stranger.turn()
                most = max(most, end.carrier.held)
                await asyncio.sleep(0)
        assert isinstance(await ended(stranger, end), CreditError)
        assert most <= WINDOW + 2 * 65536
        await listener.close()

    on_sockets(main())


def test_who_says_to_have_read_what_was_never_sent_is_cut_off() -> None:
    async def main() -> None:
        listener, stranger, end = await misbehaving()
        end.start()
        quic = stranger.quic
        quic.send_stream_data(quic.get_next_available_stream_id(is_unidirectional=True), b"x")
        quic.send_stream_data(
            quic.get_next_available_stream_id(is_unidirectional=True), (1 << 40).to_bytes(8)
        )
        assert isinstance(await ended(stranger, end), CreditError)
        await listener.close()

    on_sockets(main())


def test_a_stream_that_has_no_meaning_ends_the_carrier() -> None:
    async def main() -> None:
        listener, stranger, end = await misbehaving()
        end.start()
        stranger.quic.send_stream_data(stranger.quic.get_next_available_stream_id(), b"x")
        assert isinstance(await ended(stranger, end), CreditError)
        await listener.close()

    on_sockets(main())


def test_one_may_dial_from_the_socket_that_listens() -> None:
    async def main() -> None:
        accepted: asyncio.Queue[Carrier] = asyncio.Queue()
        listener, endpoint = await listening()
        other, there = await listening(accepted)
        near = CarrierEnd(await endpoint.dial(there.address, other.urls[0])).start()
        far = CarrierEnd(await accepted.get()).start()
        assert far.carrier.remote == listener.urls[0]
        await near.deliver_message(b"from a port that is known", far)
        near.close()
        await far.until_lost()
        await near.until_lost()
        await listener.close()
        await other.close()
        assert endpoint.closed
        assert there.closed

    on_sockets(main())


def test_packets_that_were_sent_are_counted_for_whom_they_went_to() -> None:
    """By their number turns tell who has much sent to it from who asks for little."""

    async def main() -> None:
        accepted: asyncio.Queue[Carrier] = asyncio.Queue()
        listener, _ = await listening(accepted)
        near = CarrierEnd(await dial(listener.urls[0])).start()
        far = CarrierEnd(await accepted.get()).start()
        assert isinstance(far.carrier, QuicCarrier)
        before, size = far.carrier.sent, 100 * far.carrier.packet_size
        await far.deliver_message(bytes(size), near)
        assert far.carrier.sent - before >= 100
        near.close()
        await far.until_lost()
        await near.until_lost()
        await listener.close()

    on_sockets(main())


def test_an_expected_address_needs_no_further_round_trip() -> None:
    async def main() -> None:
        listener, endpoint = await listening()
        stranger = Stranger(endpoint)
        endpoint.expect_address(stranger.sock.getsockname(), 5)
        stranger.send()
        answers: list[bytes] = []
        while not answers:
            await asyncio.sleep(0)
            answers = stranger.receive()
        kinds = {pull_quic_header(each, 0, 8)[1] for each in answers}
        assert int(QuicPacketType.RETRY) not in kinds
        assert int(QuicPacketType.INITIAL) in kinds
        for carrier in list(endpoint._ids):
            carrier.abort()
        stranger.sock.close()
        await listener.close()

    on_sockets(main())


def test_nobody_listens() -> None:
    async def main() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("127.0.0.1", 0))
            port = sock.getsockname()[1]
        with pytest.raises(DialError):
            await dial(f"quic://127.0.0.1:{port}")

    on_sockets(main())


@pytest.mark.parametrize("url", ["quic://", "quic://h", "quic://h:1/x", "quic://h:1?a=1", "quic://h:0"])
def test_urls_that_cannot_be_meant(url: str) -> None:
    with pytest.raises(CarrierUrlError):
        on_sockets(dial(url))


def test_without_the_library_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quic_carriers, "_MISSING", ModuleNotFoundError("no qh3"))
    with pytest.raises(MissingLibraryError, match="pip install"):
        on_sockets(dial("quic://127.0.0.1:1"))
