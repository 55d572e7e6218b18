"""Dialling WebSockets: servers that are none, TLS, and proxies on the way."""

import asyncio
import base64
import contextlib
import socket
import ssl
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from strangers import REQUEST, accept_key, frame, on_sockets, port_of, server_that, stranger_at

from dtp.carriers import Carrier, dial, listen, websocket
from dtp.carriers.errors import (
    CarrierUrlError,
    DialError,
    HeadSizeError,
    TlsError,
    UpgradeError,
    UpgradeTimeoutError,
)
from dtp.carriers.nearness import Nearness, dialled_as_told
from dtp.carriers.websocket import STEPS_PER_TURN
from dtp.carriers.websocket_upgrade import forwarded_for
from dtp.errors import DtpError
from dtp.testing.carrier_ends import CarrierEnd

# Hostile servers.


@pytest.mark.parametrize(
    ("answer", "error", "match"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", UpgradeError, r"HTTP/1\.1 200 OK"),
        (b"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", UpgradeError, "404"),
        (b"HTTP/1.1 302 Found\r\nLocation: ws://elsewhere/\r\nContent-Length: 0\r\n\r\n", UpgradeError, "302"),
        (b"HTTP/1.1 403 Forbidden\r\n\r\n" + b"x" * 200_000, UpgradeError, "more than 65536 bytes of text"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
         b"Sec-WebSocket-Accept: AAAA\r\n\r\n", UpgradeError, "Sec-WebSocket-Accept"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", UpgradeError, "valid HTTP response"),
        (b"HTTP/1.1 101 X\r\n" + (b"X: " + b"y" * 4000 + b"\r\n") * 8, HeadSizeError, "more than 16384 bytes"),
        (None, UpgradeError, "ended after 0 bytes"),
    ],
)  # fmt: skip
def test_servers_that_are_no_websocket_are_refused(
    answer: bytes | None, error: type[UpgradeError], match: str
) -> None:
    async def respond(_head: bytes, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if answer is None:
            writer.write_eof()
        else:
            writer.write(answer)

    async def main() -> None:
        async with server_that(respond) as url:
            with pytest.raises(error, match=match) as caught:
                await dial(url)
            assert type(caught.value) is error
            assert url in str(caught.value)

    on_sockets(main())


def test_a_server_that_never_answers_is_given_up() -> None:
    async def silence(_head: bytes, reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def main() -> None:
        async with server_that(silence) as url:
            with pytest.raises(UpgradeTimeoutError, match=r"over 0\.02 s"):
                await websocket.dial(url, patience=0.02)

    on_sockets(main())


def test_frames_in_the_same_read_as_the_answer_are_kept() -> None:
    async def respond(head: bytes, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        key = next(line for line in head.decode().split("\r\n") if line.startswith("Sec-WebSocket-Key: "))
        writer.write(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {accept_key(key.partition(' ')[2])}\r\n\r\n".encode()
            + frame(2, b"early bird", mask=False)
        )

    async def main() -> None:
        async with server_that(respond) as url:
            end = CarrierEnd(await dial(url)).start()
            await end.until_received(b"early bird")
            end.abort()

    on_sockets(main())


def test_a_port_where_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    with pytest.raises(DialError, match="refused"):
        on_sockets(dial(f"ws://127.0.0.1:{port}"))


# TLS.


@asynccontextmanager
async def secure_listener(certificates) -> AsyncIterator[tuple[str, asyncio.Queue[Carrier]]]:
    accepted: asyncio.Queue[Carrier] = asyncio.Queue()
    keys = f"?cert={certificates.server}&key={certificates.server}"
    listener = await listen(f"wss://127.0.0.1:0/{keys}", accepted.put_nowait)
    try:
        yield listener.urls[0], accepted
    finally:
        await listener.close()


def test_a_certificate_is_verified(certificates) -> None:
    async def main() -> None:
        async with secure_listener(certificates) as (url, accepted):
            for untrusted in (url, f"{url}?ca={certificates.other_ca}"):
                with pytest.raises(TlsError, match="certificate verify failed"):
                    await dial(untrusted)
            with pytest.raises(TlsError, match="certificate is not valid for 'localhost'"):
                await dial(f"{url.replace('127.0.0.1', 'localhost')}?ca={certificates.ca}")
            assert accepted.empty()
            near = await dial(f"{url}?ca={certificates.ca}")
            far = await accepted.get()
            assert near.scheme == far.scheme == "wss"
            near.abort(), far.abort()

    on_sockets(main())


def test_a_plain_stranger_at_a_tls_listener_is_ended(certificates) -> None:
    async def main() -> None:
        async with secure_listener(certificates) as (url, accepted):
            reader, writer = await asyncio.open_connection("127.0.0.1", port_of(url))
            writer.write(REQUEST + b"\r\n")
            try:
                answer = await reader.read()  # an alert at most
            except ConnectionResetError:
                answer = b""
            assert b"HTTP" not in answer
            assert accepted.empty()
            writer.close()
            with pytest.raises(DialError):
                await dial(url.replace("wss:", "ws:"))

    on_sockets(main())


def test_a_tls_client_at_a_plain_listener_is_refused(certificates) -> None:
    async def main() -> None:
        listener = await listen("ws://127.0.0.1:0", lambda _carrier: None)
        with pytest.raises(DialError):
            await dial(f"{listener.urls[0].replace('ws:', 'wss:')}?ca={certificates.ca}")
        await listener.close()

    on_sockets(main())


def test_tls_older_than_1_2_is_refused(certificates) -> None:
    async def main() -> None:
        async with secure_listener(certificates) as (url, _accepted):
            context = ssl.create_default_context(cafile=certificates.ca)
            context.set_ciphers("ALL:@SECLEVEL=0")
            with pytest.warns(DeprecationWarning, match="TLSv1_1 is deprecated"):
                context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
            with pytest.raises((ssl.SSLError, ConnectionResetError)):
                await asyncio.open_connection("127.0.0.1", port_of(url), ssl=context)

    on_sockets(main())


def test_files_that_are_no_certificates(certificates, tmp_path) -> None:
    (tmp_path / "empty").touch()
    for wrong in ("missing", "empty"):
        with pytest.raises(CarrierUrlError, match="is not a PEM file"):
            on_sockets(dial(f"wss://127.0.0.1:1?ca={tmp_path}/{wrong}"))
        with pytest.raises(CarrierUrlError, match="can't be used"):
            on_sockets(listen(f"wss://127.0.0.1:0?cert={tmp_path}/{wrong}", lambda _carrier: None))
    with pytest.raises(CarrierUrlError, match="can't be used"):  # a certificate without a key
        on_sockets(listen(f"wss://127.0.0.1:0?cert={certificates.ca}", lambda _carrier: None))


@pytest.mark.parametrize(
    ("url", "match"),
    [
        ("ws://", "takes a host"), ("ws:///path", "takes a host"), ("ws://h?ca=/x", "ws is not encrypted"),
        ("ws://h?proxy=socks5://p:1", "http://host:port"), ("ws://h?proxy=http://p:x", "no usable port"),
        ("ws://h#x", "fragment"), ("ws://u:p@h", "user part"),
    ],
)  # fmt: skip
def test_urls_that_cannot_be_dialled(url: str, match: str) -> None:
    with pytest.raises(CarrierUrlError, match=match):
        on_sockets(dial(url))


@pytest.mark.parametrize(
    ("url", "match"),
    [
        ("wss://127.0.0.1:0", "takes cert="), ("ws://127.0.0.1:0?cert=/x", "unknown option 'cert'"),
        ("ws://127.0.0.1", "a port is missing"), ("ws://127.0.0.1:0?trust_forwarded=2", "trust_forwarded=1"),
    ],
)  # fmt: skip
def test_urls_that_cannot_be_listened_at(url: str, match: str) -> None:
    with pytest.raises(CarrierUrlError, match=match):
        on_sockets(listen(url, lambda _carrier: None))


# Proxies.


@pytest.mark.parametrize(
    ("option", "source"),
    [("", "127.0.0.1"), ("?trust_forwarded=1", "2001:db8::1")],
    ids=["not trusted", "trusted"],
)
def test_forwarded_addresses_count_only_when_asked_for(option: str, source: str) -> None:
    async def main() -> None:
        async with stranger_at(f"ws://127.0.0.1:0{option}") as (stranger, accepted, _listener):
            stranger.writer.write(
                REQUEST + b"X-Forwarded-For: 10.1.1.1\r\nX-Forwarded-For: 10.2.2.2, 2001:db8::1\r\n\r\n"
            )
            assert (await stranger.head()).startswith(b"HTTP/1.1 101 ")
            carrier = await accepted.get()
            assert carrier.source == source
            carrier.abort()

    on_sockets(main())


@pytest.mark.parametrize(
    ("headers", "address"),
    [([], None), (["10.0.0.1"], "10.0.0.1"), (["a", "b, 10.0.0.2 "], "10.0.0.2"), (["10.0.0.1, unknown"], None),
     ([""], None), (["10.0.0.1:80"], None)],
)  # fmt: skip
def test_the_last_forwarded_address_is_the_one(headers: list[str], address: str | None) -> None:
    assert forwarded_for(headers) == address


def test_nginx_tells_the_address_of_the_client(nginx) -> None:
    async def main() -> None:
        accepted: asyncio.Queue[Carrier] = asyncio.Queue()
        listener = await listen("ws://127.0.0.1:0/?trust_forwarded=1", accepted.put_nowait)
        near = CarrierEnd(await dial(nginx.through(listener.urls[0]))).start()
        far = CarrierEnd(await accepted.get()).start()
        assert far.carrier.source == "127.0.0.1"
        near.write(b"through nginx")
        await far.until_received(b"through nginx")
        near.close()
        assert await near.until_lost() is None
        assert await far.until_lost() is None
        await listener.close()

    on_sockets(main())


def test_nginx_without_a_listener_behind_it_is_a_refusal(nginx) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    with pytest.raises(UpgradeError, match="502"):
        on_sockets(dial(nginx.through(f"ws://127.0.0.1:{port}/")))


@asynccontextmanager
async def connect_proxy(credentials: str = "") -> AsyncIterator[tuple[str, list[bytes]]]:
    """An HTTP proxy that only knows CONNECT; its URL, and the requests it got."""
    requests: list[bytes] = []

    async def answer(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(head)
        wanted = f"Proxy-Authorization: Basic {base64.b64encode(credentials.encode()).decode()}".encode()
        if credentials and wanted not in head:
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            return
        host, _, port = head.split()[1].decode().rpartition(":")
        up_reader, up_writer = await asyncio.open_connection(host.strip("[]"), int(port))
        writer.write(b"HTTP/1.0 200 Connection established\r\nVia: test\r\n\r\n")
        await asyncio.gather(_pump(reader, up_writer), _pump(up_reader, writer))

    async with server_that(answer) as url:
        yield url.replace("ws:", "http:"), requests


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()


@pytest.mark.parametrize("secure", [False, True])
def test_an_http_proxy_is_dialled_through(secure: bool, certificates) -> None:
    async def main() -> None:
        accepted: asyncio.Queue[Carrier] = asyncio.Queue()
        keys = f"?cert={certificates.server}&key={certificates.server}" if secure else ""
        listener = await listen(f"{'wss' if secure else 'ws'}://127.0.0.1:0/{keys}", accepted.put_nowait)
        url = listener.urls[0]
        async with connect_proxy("me:a secret") as (proxy, requests):
            proxy_option = proxy.replace("//", "//me:a%2520secret@")
            trust = f"&ca={certificates.ca}" if secure else ""
            with dialled_as_told(Nearness.NETWORK):  # by somebody who may name 127.0.0.1 only to the proxy
                carrier = await dial(f"{url}?proxy={proxy_option}{trust}")
            assert Nearness.of_source(carrier.source) == Nearness.ANYWHERE  # whoever is behind it may be
            near = CarrierEnd(carrier).start()
            far = CarrierEnd(await accepted.get()).start()
            assert requests[0].startswith(f"CONNECT 127.0.0.1:{port_of(url)} HTTP/1.1\r\n".encode())
            await near.send_all(b"through the proxy" * 1000)
            await far.until_received(b"through the proxy" * 1000)
            near.close()
            assert await far.until_lost() is None
            assert await near.until_lost() is None
            with pytest.raises(UpgradeError, match="407"):
                await dial(f"{url}?proxy={proxy}{trust}")
        await listener.close()

    on_sockets(main())


@pytest.mark.parametrize(
    "url",
    ["ws://127.0.0.1:1?proxy=http://u:secret@127.0.0.1:1", "ws://h?proxy=http://u:secret@p:x",
     "ws://h?proxy=ftp://u:secret@p", "ws://h?ca=x&proxy=http://u:secret@p", "ws://u:secret@h"],
)  # fmt: skip
def test_no_message_tells_a_password(url: str) -> None:
    with pytest.raises(DtpError) as caught:
        on_sockets(dial(url))
    assert "secret" not in str(caught.value)


def test_the_environment_names_the_proxy_but_not_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async def refuse(_head: bytes, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 403 Not there\r\n\r\n")

        async with server_that(refuse) as proxy_url, stranger_at() as (_stranger, accepted, listener):
            monkeypatch.setenv("https_proxy", proxy_url.replace("ws:", "http:"))
            for url in ("ws://a.invalid", "wss://a.invalid:9/x"):
                with pytest.raises(UpgradeError, match=r"did not connect to a\.invalid:.*403 Not there"):
                    await dial(url)
            with pytest.raises(DialError, match="can't be resolved"):
                await dial("ws://a.invalid?proxy=none")
            monkeypatch.setenv("no_proxy", "a.invalid")
            with pytest.raises(DialError, match="can't be resolved"):
                await dial("ws://a.invalid")
            (await dial(listener.urls[0])).abort()
            (await accepted.get()).abort()

    on_sockets(main())


def test_a_flood_of_hellos_is_answered_over_turns(certificates) -> None:
    """Each costs 0.3 ms and more: all who say theirs at once were one turn."""
    crowd, answers = 40, Counter[int]()

    def hello() -> bytes:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = ssl.create_default_context(cafile=str(certificates.ca))
        with contextlib.suppress(ssl.SSLWantReadError):
            context.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1").do_handshake()
        return outgoing.read()

    async def main() -> None:
        async with secure_listener(certificates) as (url, accepted):
            port = int(url.partition("127.0.0.1:")[2].partition("/")[0])
            socks = [socket.create_connection(("127.0.0.1", port)) for _ in range(crowd)]
            for _ in range(crowd):
                await asyncio.sleep(0)  # they are accepted, and wait to hear
            for each in socks:
                each.setblocking(False)
                each.sendall(hello())
            turn, left = 0, list(socks)
            async with asyncio.timeout(60):
                while left:
                    turn += 1
                    await asyncio.sleep(0)
                    for each in list(left):
                        with contextlib.suppress(BlockingIOError):
                            assert each.recv(1 << 16)
                            answers[turn] += 1
                            left.remove(each)
            for each in socks:
                each.close()
            near = await dial(f"{url}?ca={certificates.ca}")
            (await accepted.get()).abort()
            near.abort()

    on_sockets(main())
    assert answers.total() == crowd
    assert max(answers.values()) <= 2 * STEPS_PER_TURN
