"""Ports by UPnP: asked for, renewed, given back; routers that say no, or aren't there."""

import asyncio
from typing import Any

import pytest

from dtp.carriers.errors import MissingLibraryError
from dtp.peers.reach import port_mapping
from dtp.peers.reach.port_mapping import LIFETIME, PortMapping, PortMappingError


class Router:
    """What `miniupnpc.UPnP()` is, as far as it is used; `fails` names the calls that go wrong."""

    lanaddr = "10.0.0.5"

    def __init__(self, *, outside: str = "8.8.4.4", taken: bool = False, fails: str = "") -> None:
        self.outside, self.taken, self.fails = outside, taken, fails
        self.calls: list[tuple[Any, ...]] = []
        self.discoverdelay = 0

    def _do(self, name: str, *arguments: object) -> None:
        self.calls.append((name, *arguments))
        if name == self.fails:
            raise Exception("Success")  # what the library says and raises

    def discover(self) -> int:
        self._do("discover")
        return 1

    def selectigd(self) -> None:
        self._do("selectigd")

    def externalipaddress(self) -> str:
        self._do("externalipaddress")
        return self.outside

    def addanyportmapping(self, port: int, *rest: object) -> int:
        self._do("any", port, *rest)
        return port + self.taken

    def addportmapping(self, port: int, *rest: object) -> None:
        self._do("same", port, *rest)

    def deleteportmapping(self, port: int, protocol: str) -> None:
        self._do("delete", port, protocol)


def test_a_port_is_asked_for_and_given_back() -> None:
    async def main(router: Router) -> None:
        async with PortMapping(9000, make_client=lambda: router) as mapping:
            assert mapping.address == f"8.8.4.4:{9000 + router.taken}"
        assert mapping.address == ""

    for taken in (False, True):
        router = Router(taken=taken)
        asyncio.run(main(router))
        assert router.calls[-2] == ("any", 9000, "UDP", "10.0.0.5", 9000, "dtp", "", LIFETIME)
        assert router.calls[-1] == ("delete", 9000 + taken, "UDP")


def test_it_is_renewed_with_the_same_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(port_mapping, "RENEW", 0.0)
    router = Router(taken=True)

    async def main() -> None:
        async with PortMapping(9000, "TCP", make_client=lambda: router):
            while sum(call[0] == "same" for call in router.calls) < 3:  # noqa: ASYNC110 - threads alone tell
                await asyncio.sleep(0)

    asyncio.run(main())
    assert ("same", 9001, "TCP", "10.0.0.5", 9000, "dtp", "", LIFETIME) in router.calls


@pytest.mark.parametrize("call", ["discover", "selectigd", "externalipaddress", "any"])
def test_a_router_that_says_no_has_a_name(call: str) -> None:
    async def main() -> None:
        with pytest.raises(PortMappingError):
            await PortMapping(9000, make_client=lambda: Router(fails=call)).__aenter__()

    asyncio.run(main())


def test_a_router_behind_another_nat_is_of_no_use() -> None:
    router = Router(outside="192.168.178.20")

    async def main() -> None:
        with pytest.raises(PortMappingError, match="behind another NAT"):
            await PortMapping(9000, make_client=lambda: router).__aenter__()

    asyncio.run(main())
    assert not any(call[0] == "any" for call in router.calls)


def test_a_port_that_is_not_taken_back_is_no_error() -> None:
    async def main() -> None:
        async with PortMapping(9000, make_client=lambda: Router(fails="delete")):
            pass

    asyncio.run(main())


def test_without_the_library_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "miniupnpc", None)
    with pytest.raises(MissingLibraryError, match="upnp"):
        asyncio.run(PortMapping(9000).__aenter__())


def test_the_library_has_what_is_called() -> None:
    miniupnpc = pytest.importorskip("miniupnpc", reason="miniupnpc not installed (the extra upnp)")
    there = set(dir(miniupnpc.UPnP()))
    assert {name for name in vars(Router) if not name.startswith("_")} <= there
