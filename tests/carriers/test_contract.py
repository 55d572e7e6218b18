"""Every carrier keeps the contract, and carriers that break it are found out."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from loops import LoopFactory, needs_ipv6, on_every_loop
from websockets.client import ClientProtocol
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from dtp.carriers import CARRIERS, memory
from dtp.carriers.base import Accept, Carrier, CarrierKind, CarrierListener, Receiver
from dtp.carriers.errors import BrokenError
from dtp.carriers.websocket_carrier import MAX_MESSAGE, WebSocketCarrier
from dtp.errors import CarrierError
from dtp.testing.carrier_ends import ContractError
from dtp.testing.carriers import check_carrier
from dtp.testing.clock import run


@on_every_loop
def test_tcp(loop_factory: LoopFactory) -> None:
    run(check_carrier(CARRIERS["tcp"], "tcp://127.0.0.1:0"), loop_factory=loop_factory)


@needs_ipv6
@on_every_loop
def test_tcp_over_ipv6(loop_factory: LoopFactory) -> None:
    run(check_carrier(CARRIERS["tcp"], "tcp://[::1]:0"), loop_factory=loop_factory)


@on_every_loop
def test_unix(loop_factory: LoopFactory, tmp_path: Path) -> None:
    check = check_carrier(CARRIERS["unix"], f"unix://{tmp_path}/s", abort_is_seen=False)
    run(check, loop_factory=loop_factory)


@on_every_loop
def test_websocket(loop_factory: LoopFactory) -> None:
    run(check_carrier(CARRIERS["ws"], "ws://127.0.0.1:0/path"), loop_factory=loop_factory)


@on_every_loop
def test_websocket_in_tls(loop_factory: LoopFactory, certificates) -> None:
    keys = f"?cert={certificates.server}&key={certificates.server}"
    check = check_carrier(
        CARRIERS["wss"],
        f"wss://127.0.0.1:0/{keys}",
        dial_url=lambda url: f"{url}?ca={certificates.ca}",
        listen_again=lambda url: url + keys,
    )
    run(check, loop_factory=loop_factory)


def test_websocket_behind_nginx(nginx) -> None:
    check = check_carrier(CARRIERS["ws"], "ws://127.0.0.1:0", dial_url=nginx.through)
    run(check, loop_factory=asyncio.SelectorEventLoop)


@pytest.mark.parametrize(
    "options",
    [
        "",
        "delay=0.2",
        "chunk=1000",
        "delay=0.1&jitter=0.3&chunk=777&seed=3",
        "capacity=1",
        "chunk=100&capacity=9",
    ],
)
def test_memory(options: str) -> None:
    check = check_carrier(
        CARRIERS["memory"],
        "memory://x",
        dial_url=lambda url: f"{url}?{options}",
        transfer=200_000,
        patience=1e6,
    )
    run(check)


def test_memory_packets() -> None:
    options = "packets=1&loss=0.2&duplicate=0.2&delay=0.1&jitter=0.2&seed=1"
    check = check_carrier(
        CARRIERS["memory"],
        "memory://x",
        dial_url=lambda url: f"{url}?{options}",
        packets_expected=300,
        transfer=200_000,
        patience=1e6,
    )
    run(check)


def _wrapped(wrap: Callable[[Carrier, bool], Carrier]) -> CarrierKind:
    """Memory carriers, each inside what `wrap(carrier, dialled)` makes of it."""

    async def dial(url: str) -> Carrier:
        return wrap(await memory.dial(url), True)

    async def listen(url: str, accept: Accept) -> CarrierListener:
        return await memory.listen(url, lambda carrier: accept(wrap(carrier, False)))

    return CarrierKind("memory", dial, listen)


@pytest.mark.parametrize("options", ["", "chunk=1013", "delay=0.1&jitter=0.1&chunk=70000"])
def test_websocket_frames_over_any_carrier(options: str) -> None:
    def wrap(carrier: Carrier, dialled: bool) -> Carrier:
        protocol = (
            ClientProtocol(parse_uri("ws://x/"), state=State.OPEN, max_size=MAX_MESSAGE)
            if dialled
            else ServerProtocol(state=State.OPEN, max_size=MAX_MESSAGE)
        )
        return WebSocketCarrier(carrier, protocol, early=b"", source="memory", remote="memory:")

    check = check_carrier(
        _wrapped(wrap), "memory://x", dial_url=lambda url: f"{url}?{options}", transfer=500_000
    )
    run(check)


class _Wrapper(Carrier):
    """Passes everything on, in both directions. The carriers below each do one thing wrong."""

    scheme = "memory"

    def __init__(self, inner: Carrier) -> None:
        self.inner = inner
        self.source = inner.source
        self.remote = inner.remote

    def start(self, receiver: Receiver) -> None:
        self.receiver = receiver
        self.inner.start(self)

    def write(self, data: memoryview) -> bool:
        return self.inner.write(data)

    def pause_reading(self) -> None:
        self.inner.pause_reading()

    def resume_reading(self) -> None:
        self.inner.resume_reading()

    def close(self) -> None:
        self.inner.close()

    def abort(self) -> None:
        self.inner.abort()

    def carrier_buffer(self) -> memoryview:
        return self.receiver.carrier_buffer()

    def carrier_received(self, size: int) -> None:
        self.receiver.carrier_received(size)

    def carrier_packet(self, data: bytes) -> None:
        self.receiver.carrier_packet(data)

    def carrier_writable(self) -> None:
        self.receiver.carrier_writable()

    def carrier_lost(self, error: CarrierError | None) -> None:
        self.receiver.carrier_lost(error)


class _KeepsTheMemory(_Wrapper):
    def write(self, data: memoryview) -> bool:
        asyncio.get_running_loop().call_soon(lambda: self.inner.write(data))
        return True


class _SwapsWrites(_Wrapper):
    held = b""

    def write(self, data: memoryview) -> bool:
        if len(data) == 2:
            self.held = bytes(data)
            return True
        result = self.inner.write(data)
        if self.held:
            self.inner.write(memoryview(self.held))
            self.held = b""
        return result


class _LosesTwice(_Wrapper):
    def carrier_lost(self, error: CarrierError | None) -> None:
        self.receiver.carrier_lost(error)
        asyncio.get_running_loop().call_soon(self.receiver.carrier_lost, error)


class _ReportsInsideCalls(_Wrapper):
    def abort(self) -> None:
        self.inner.abort()
        if hasattr(self, "receiver"):
            self.receiver.carrier_writable()


class _ForgetsTheRestOnClose(_Wrapper):
    def close(self) -> None:
        self.inner.abort()


class _NeverStopsTheWriter(_Wrapper):
    def write(self, data: memoryview) -> bool:
        return self.inner.write(data) or len(data) > 0


class _NeverResumesTheWriter(_Wrapper):
    def carrier_writable(self) -> None:
        pass


class _CallsEveryEndAnError(_Wrapper):
    def carrier_lost(self, error: CarrierError | None) -> None:
        self.receiver.carrier_lost(error or BrokenError("it ended"))


class _GoesOnAfterClose(_Wrapper):
    def close(self) -> None:
        self.inner.close()
        self.receiver.carrier_buffer()


@pytest.mark.parametrize(
    ("broken", "clause"),
    [
        (_KeepsTheMemory, "keeps_order: received .* different"),
        (_SwapsWrites, "keeps_order: received .* different"),
        (_LosesTwice, "carrier_lost after carrier_lost"),
        (_ReportsInsideCalls, "carrier_writable from inside a call to abort"),
        (_ForgetsTheRestOnClose, "received 5 bytes of 14"),
        (_NeverStopsTheWriter, "True before carrier_writable|never gave False|close must give False"),
        (_NeverResumesTheWriter, "did not happen .* carrier_writable"),
        (_CallsEveryEndAnError, "must say None|orderly end was reported as"),
        (_GoesOnAfterClose, "from inside a call to close"),
    ],
)
def test_a_broken_carrier_is_found_out(broken: type[_Wrapper], clause: str) -> None:
    check = check_carrier(_wrapped(lambda carrier, _dialled: broken(carrier)), "memory://x")
    with pytest.raises(ContractError, match=clause):
        run(check)


def test_the_wrapper_itself_is_sound() -> None:
    run(check_carrier(_wrapped(lambda carrier, _dialled: _Wrapper(carrier)), "memory://x"))


def test_a_listener_that_goes_on_is_found_out() -> None:
    class Stays(CarrierListener):
        def __init__(self, inner: CarrierListener) -> None:
            self.urls = inner.urls

        async def close(self) -> None:
            pass

    async def listen(url: str, accept: Accept) -> CarrierListener:
        return Stays(await memory.listen(url, accept))

    with pytest.raises(ContractError, match="dialled a listener that is closed"):
        run(check_carrier(CarrierKind("memory", memory.dial, listen), "memory://x"))
