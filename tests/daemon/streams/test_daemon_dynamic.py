"""SOCKS5 and HTTP CONNECT: greetings byte by byte, and real clients through them."""

from __future__ import annotations

import asyncio
import struct
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtp.daemon.config.model import Config
from dtp.daemon.reasons import Reason
from dtp.daemon.relays.dynamic import HttpConnect, Rejected, Socks5, address_of
from dtp.daemon.server import Daemon
from dtp.net.address import AddressError

from ..conftest import FAR, NEAR, Backend, Pair, Run, config, echo
from ..http.test_daemon_http import mirror, site
from ..programs import PATIENCE, need

HOST = f"api.{NEAR.id}"


def socks(host: str, command: int = 1, kind: int = 3) -> bytes:
    return b"\x05\x01\x00\x05" + bytes([command, 0, kind, len(host)]) + host.encode() + struct.pack("!H", 80)


def connect(host: str) -> bytes:
    return f"CONNECT {host}:80 HTTP/1.1\r\nHost: {host}:80\r\n\r\n".encode()


@pytest.mark.parametrize(
    ("host", "address"),
    [
        (HOST, f"dtp://{NEAR.id}/api"),
        (HOST.upper() + ".", f"dtp://{NEAR.id}/api"),
        (f"v2.api.{NEAR.id}.dtp", f"dtp://{NEAR.id}/v2.api"),
        ("api.alice.dtp", "dtp://alice/api"),
        ("api?via=pipe.alice.dtp", "dtp://alice/api%3Fvia%3Dpipe"),
        ("api#x.alice.dtp", "dtp://alice/api%23x"),
        ("db%2Freplica.alice.dtp", "dtp://alice/db/replica"),
    ],
)
def test_names(host: str, address: str) -> None:
    assert str(address_of(host)) == address


@pytest.mark.parametrize(
    "host", ["", "alice", "example.com", "api.dtp1nonsense", ".dtp", "api.dtp", str(NEAR.id)]
)
def test_names_that_are_none(host: str) -> None:
    with pytest.raises(AddressError):
        address_of(host)


@pytest.mark.parametrize(("make", "request_of"), [(Socks5, socks), (HttpConnect, connect)])
@pytest.mark.parametrize("step", [1, 7, 1000])
def test_a_greeting_in_pieces(make: type, request_of: Callable[..., Any], step: int) -> None:
    data = request_of(HOST) + b"rest"
    greeting, found, at = make(), None, 0
    while found is None:
        found = greeting.receive_data(data[at : at + step])
        at += step
    assert str(found) == f"dtp://{NEAR.id}/api"
    assert greeting.rest + data[at:] == b"rest"
    assert greeting.answer == (b"\x05\x00" if make is Socks5 else b"")


@pytest.mark.parametrize(
    ("make", "data", "answer"),
    [
        (Socks5, b"\x04\x01\x00\x50", b""),
        (Socks5, b"GET / HTTP/1.1\r\n\r\n", b""),
        (Socks5, b"\x05\x01\x02", b"\x05\xff"),
        (Socks5, b"\x05\x00", b"\x05\xff"),
        (Socks5, b"\x05\x01\x00\x04\x01\x00\x03\x01x\x00\x50", b"\x05\x07\x00\x01"),
        (Socks5, b"\x05\x01\x00\x05\x01\x00\x04" + bytes(18), b"\x05\x08\x00\x01"),
        (Socks5, socks(HOST, command=2), b"\x05\x07\x00\x01"),
        (Socks5, b"\x05\x01\x00\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x50", b"\x05\x08\x00\x01"),
        (Socks5, socks("example.com"), b"\x05\x04\x00\x01"),
        (HttpConnect, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"HTTP/1.1 405 "),
        (HttpConnect, connect("example.com"), b"HTTP/1.1 502 "),
        (HttpConnect, b"\x05\x01\x00 \r\n\r\n", b"HTTP/1.1 400 "),
        (HttpConnect, b"CONNECT " + b"x" * 20_000, b"HTTP/1.1 "),
    ],
)
def test_greetings_that_are_rejected(make: type, data: bytes, answer: bytes) -> None:
    with pytest.raises(Rejected) as caught:
        make().receive_data(data)
    assert caught.value.answer.startswith(answer)


@given(st.sampled_from([Socks5, HttpConnect]), st.lists(st.binary(max_size=40), max_size=8))
def test_any_bytes_are_waited_for_or_rejected(make: type, pieces: list[bytes]) -> None:
    greeting = make()
    for piece in pieces:
        try:
            if greeting.receive_data(piece) is not None:
                return
        except Rejected:
            return


def test_refusals_are_told() -> None:
    assert Socks5().failure_reply(Reason.DENIED)[1] == 2
    assert Socks5().failure_reply(Reason.NO_BACKEND)[1] == 4
    assert Socks5().failure_reply(Reason.CLOSED_NOW)[1] == 2
    assert HttpConnect().failure_reply(Reason.DENIED).startswith(b"HTTP/1.1 403 ")
    assert HttpConnect().failure_reply(Reason.CLOSED_NOW).startswith(b"HTTP/1.1 403 ")
    assert HttpConnect().failure_reply(Reason.NO_BACKEND).startswith(b"HTTP/1.1 502 ")


@pytest.mark.parametrize(("make", "request_of"), [(Socks5, socks), (HttpConnect, connect)])
def test_a_program_that_does_not_wait_for_the_answer(make: type, request_of: Callable[..., Any]) -> None:
    """However much it sends behind its greeting."""
    greeting = make()
    assert greeting.receive_data(request_of(HOST) + b"x" * 100_000) is not None
    assert greeting.rest == b"x" * 100_000


def near_config(tmp_path: Path, mode: str) -> Config:
    return config(tmp_path, f'[[forward]]\nlisten = "127.0.0.1:0"\nmode = "{mode}"\n')


async def start(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, backend_port: int
) -> int:
    """A far daemon that the peer table knows as "far", and a near one in this mode."""
    pair.expose = f'[[expose]]\nservice = "api"\nallow = ["*"]\nbackend = ["127.0.0.1:{backend_port}"]'
    pair.far = Daemon(pair.far_config(pair.expose), FAR)
    await pair.far.start()
    peers = tmp_path / "peers.toml"
    peers.write_text(f'[peers.far]\nid = "{FAR.id}"\naddresses = ["dtp+{pair.listener.urls[0]}"]\n')
    monkeypatch.setenv("DTP_PEERS", str(peers))
    pair.near = Daemon(near_config(tmp_path, mode), NEAR)
    await pair.near.start()
    return pair.port


@pytest.mark.parametrize(
    ("mode", "option"), [("socks5", "--socks5-hostname"), ("http-connect", "--proxytunnel --proxy")]
)
def test_curl_names_the_service(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, option: str
) -> None:
    need("curl")

    async def scenario(pair: Pair) -> None:
        async with site(mirror=mirror) as backend:
            port = await start(pair, tmp_path, monkeypatch, mode, backend)
            for host, code in (
                ("api.far.dtp", 0),
                (f"api.{FAR.id}", 0),
                ("none.far.dtp", None),
                ("x.example", None),
            ):
                done = await asyncio.to_thread(
                    subprocess.run,
                    ["curl", "--silent", "--max-time", str(PATIENCE), *option.split(), f"127.0.0.1:{port}",
                     "-d", "x" * 5000, f"http://{host}/mirror"],
                    capture_output=True,
                    check=False,
                )  # fmt: skip
                assert (done.returncode == 0) == (code == 0), (host, done)
                assert code is None or b'"size": 5000' in done.stdout
            assert pair.near.get_status()["forwarded"][0]["failed"] == 2

    run(scenario)


@pytest.mark.parametrize(("mode", "said"), [("socks5", b"\x05\xff"), ("http-connect", b"HTTP/1.1 503 ")])
def test_who_finds_no_room_is_told_at_once(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, said: bytes
) -> None:
    """In its own language, and nothing is kept of it."""

    async def scenario(pair: Pair) -> None:
        await start(pair, tmp_path, monkeypatch, mode, 1)
        pair.near.room.most = 0
        reader, writer = await asyncio.open_connection("127.0.0.1", pair.port)
        assert (await reader.read()).startswith(said)
        writer.close()
        assert pair.near.get_status()["forwarded"][0]["failed"] == 1
        assert pair.near.get_status()["streams"]["active"] == 0

    run(scenario)


def test_bytes_right_behind_the_greeting(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(pair: Pair) -> None:
        async with Backend(echo) as backend:
            port = await start(pair, tmp_path, monkeypatch, "socks5", backend.port)
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(socks("api.far.dtp") + b"at once")
            writer.write_eof()
            answer = await reader.read()
            assert answer == b"\x05\x00" + b"\x05\x00\x00\x01" + bytes(6) + b"at once"
            writer.close()

    run(scenario)


def test_the_place_stays_the_same_over_a_reload(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(pair: Pair) -> None:
        async with Backend(echo) as backend:
            port = await start(pair, tmp_path, monkeypatch, "socks5", backend.port)
            changed = near_config(tmp_path, "http-connect")
            await pair.near.reload(replace(changed, drain=1.0))
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(connect("api.far.dtp") + b"x")
            writer.write_eof()
            assert await reader.read() == b"HTTP/1.1 200 dtpd\r\n\r\nx"
            writer.close()

    run(scenario)
