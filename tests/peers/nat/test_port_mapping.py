"""Ports by UPnP: asked for, renewed, given back; routers that say no, or aren't there."""

import asyncio
from typing import Any

import pytest

from dtp.carriers.errors import MissingLibraryError
from dtp.peers.reach.port_mapping import LIFETIME, PortMapping, PortMappingError


class Router:
    """What `miniupnpc.UPnP()` is, as far as it is used; `fails` names the calls that go wrong."""

    lanaddr = "10.0.0.5"

    def __init__(
        self, *, outside: str = "8.8.4.4", taken: int = 0, fails: str = "", for_good: bool = False
    ) -> None:
        """`taken` of the ports that are asked for are given away already; `for_good`: it gives them so only."""
        self.outside, self.taken, self.fails, self.for_good = outside, taken, fails, for_good
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

    def addportmapping(
        self, port: int, protocol: str, host: str, inside: int, name: str, remote: str, lease: int
    ) -> bool:
        self._do("add", port, protocol, host, inside, name, remote, lease)
        if self.for_good and lease:
            raise Exception("OnlyPermanentLeasesSupported")
        if self.taken:
            self.taken -= 1
            raise Exception("ConflictInMappingEntry")
        return True

    def deleteportmapping(self, port: int, protocol: str) -> None:
        self._do("delete", port, protocol)


def test_a_port_is_asked_for_and_given_back() -> None:
    async def main(router: Router) -> None:
        async with PortMapping(9000, make_client=lambda: router) as mapping:
            assert mapping.address == "8.8.4.4:9000"
        assert mapping.address == ""

    router = Router()
    asyncio.run(main(router))
    assert router.calls[-2] == ("add", 9000, "UDP", "10.0.0.5", 9000, "dtp", "", LIFETIME)
    assert router.calls[-1] == ("delete", 9000, "UDP")


def test_where_the_port_is_given_away_it_is_another_one() -> None:
    router = Router(taken=3)

    async def main() -> None:
        async with PortMapping(9000, make_client=lambda: router) as mapping:
            outside = int(mapping.address.rpartition(":")[2])
            assert 1024 <= outside < 65536
            assert router.calls[-1] == ("add", outside, "UDP", "10.0.0.5", 9000, "dtp", "", LIFETIME)

    asyncio.run(main())
    assert sum(call[0] == "add" for call in router.calls) == 4


def test_a_router_that_gives_ports_for_good_only_is_asked_for_that() -> None:
    router = Router(for_good=True)

    async def main() -> None:
        async with PortMapping(9000, make_client=lambda: router) as mapping:
            assert mapping.address == "8.8.4.4:9000"

    asyncio.run(main())
    assert router.calls[-2] == ("add", 9000, "UDP", "10.0.0.5", 9000, "dtp", "", 0)
    assert router.calls[-1] == ("delete", 9000, "UDP")


def test_it_is_renewed_with_the_same_port() -> None:
    router = Router(taken=1)

    async def main() -> None:
        async with PortMapping(9000, "TCP", renew=0.0, make_client=lambda: router):
            while sum(call[0] == "add" for call in router.calls) < 5:  # noqa: ASYNC110 - threads alone tell
                await asyncio.sleep(0)

    asyncio.run(main())
    asked = [call for call in router.calls if call[0] == "add"]
    assert len({call[1] for call in asked[1:]}) == 1
    assert {call[7] for call in asked} == {LIFETIME}


def test_a_router_that_was_restarted_is_looked_for_anew() -> None:
    """It has forgotten the port, may answer elsewhere, and its provider may have given it another address."""

    async def main() -> None:
        before, after, gone = Router(), Router(outside="8.8.4.9"), Router(fails="externalipaddress")
        clients = [before, gone, gone, after]
        changed: list[str] = []
        healed = asyncio.Event()
        mapping = PortMapping(9000, renew=0.0, make_client=lambda: clients.pop(0))

        def on_change() -> None:
            changed.append(mapping.address)
            if mapping.address:
                healed.set()

        mapping.on_change = on_change
        async with mapping:
            assert mapping.address == "8.8.4.4:9000"
            before.fails = "add"
            await healed.wait()
            assert mapping.address == "8.8.4.9:9000"
        assert changed == ["", "8.8.4.9:9000"]  # none while no router confirms it
        assert after.calls[-1] == ("delete", 9000, "UDP")

    asyncio.run(main())


def test_a_router_that_has_another_address_is_noticed_when_the_port_is_renewed() -> None:
    async def main() -> None:
        router, changed = Router(), asyncio.Event()
        mapping = PortMapping(9000, renew=0.0, make_client=lambda: router)
        mapping.on_change = changed.set
        async with mapping:
            router.outside = "8.8.4.9"
            await changed.wait()
            assert mapping.address == "8.8.4.9:9000"

    asyncio.run(main())


@pytest.mark.parametrize("call", ["discover", "selectigd", "externalipaddress", "add"])
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
    assert not any(call[0] == "add" for call in router.calls)


@pytest.mark.parametrize("outside", ["", "not connected", "8.8.4.4\n", "8.8.4", "x" * 100_000])
def test_a_router_that_says_nonsense_has_a_name(outside: str) -> None:
    async def main() -> None:
        with pytest.raises(PortMappingError, match="tells no address") as caught:
            await PortMapping(9000, make_client=lambda: Router(outside=outside)).__aenter__()
        assert len(str(caught.value)) < 200

    asyncio.run(main())


def test_a_port_that_is_not_taken_back_is_no_error() -> None:
    async def main() -> None:
        async with PortMapping(9000, make_client=lambda: Router(fails="delete")):
            pass

    asyncio.run(main())


def test_without_the_library_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "miniupnpc", None)
    with pytest.raises(MissingLibraryError, match="upnp"):
        asyncio.run(PortMapping(9000).__aenter__())


def test_the_library_takes_what_is_given() -> None:
    """Where no router was found: each call fails for that, and not for its arguments."""
    miniupnpc = pytest.importorskip("miniupnpc", reason="miniupnpc not installed (the extra upnp)")
    client = miniupnpc.UPnP()
    assert {name for name in vars(Router) if not name.startswith("_")} <= set(dir(client))
    for call in (
        lambda: client.addportmapping(9000, "UDP", "10.0.0.5", 9000, "dtp", "", LIFETIME),
        lambda: client.deleteportmapping(9000, "UDP"),
        client.externalipaddress,
    ):
        with pytest.raises(Exception, match=r"\w") as caught:
            call()
        assert caught.type is Exception  # not TypeError
