"""Maps ports of a router to this machine by UPnP, if the router and the network allow programs to do that.

Uses the library `miniupnpc` (`pip install 'dtp-sockets[upnp]'`), which blocks, so each call runs in a thread.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import random
from collections.abc import Callable
from typing import Any, ClassVar, Final, TypeVar

from dtp.carriers.errors import MissingLibraryError
from dtp.carriers.url import format_host
from dtp.errors import CarrierError
from dtp.tasks import SupervisedTask

log = logging.getLogger("dtp.peers")

T = TypeVar("T")

#: Milliseconds in which a router has to answer a search.
SEARCH: Final = 1000
#: Seconds for which a mapping is requested, and after which it is renewed: a program that dies leaves none for
#: long.
LIFETIME: Final = 3600
RENEW: Final = 1200.0
#: Seconds until a router that didn't confirm the mapping is searched for again; then twice as long each time, up to
#: the renewal time. A restarted router answers after a minute or two.
RETRY: Final = 60.0
#: Other ports that are tried if the router has already mapped the wanted one.
_OTHERS: Final = 4
_NAME: Final = "dtp"


class PortMappingError(CarrierError):
    """No router maps a port: none answers by UPnP, it refuses, or it has no public address itself."""

    code: ClassVar[str] = "port-mapping"


def _client() -> Any:
    try:
        import miniupnpc
    except ModuleNotFoundError as missing:
        raise MissingLibraryError(
            "UPnP needs the library miniupnpc: pip install 'dtp-sockets[upnp]'"
        ) from missing
    return miniupnpc.UPnP()


class PortMapping:
    """A port of the router that leads to `port` here, while this is open: use `async with`.

    `protocol` is "UDP" for `quic:`, and "TCP" for everything else. If the router has mapped the same port already,
    another one is used. `address` is what others dial. The mapping is renewed, and removed at the end. A router
    that only has permanent mappings keeps it if the program dies.

    If a router doesn't confirm the mapping, for example after a restart, it is searched for and asked again.
    `on_change` is called whenever `address` has changed.
    """

    def __init__(
        self,
        port: int,
        protocol: str = "UDP",
        *,
        renew: float = RENEW,
        make_client: Callable[[], Any] = _client,
    ) -> None:
        """Map `port`, and renew that every `renew` seconds. `make_client` creates the library's object."""
        self._pause = renew
        self._port, self._protocol = port, protocol
        self._make_client = make_client
        self._router: Any = None
        self._outside = self._lifetime = 0
        self._renewing = SupervisedTask(self._renew_mapping, name="dtp-port-mapping")
        #: Host and port as others dial them, such as "192.0.2.7:9000"; "" while this isn't open, or while no router
        #: confirms the mapping.
        self.address = ""
        self.on_change: Callable[[], object] = lambda: None

    async def __aenter__(self) -> PortMapping:
        """Request the mapping. Raise `PortMappingError` or `MissingLibraryError`."""
        self.address = await self._look_for_router()
        self._renewing.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._renewing.stop()
        self.address = ""
        try:
            await self._run_in_thread(lambda: self._router.deleteportmapping(self._outside, self._protocol))
        except PortMappingError as error:
            log.info("%s; the mapping ends by itself", error)

    async def _look_for_router(self) -> str:
        """Request the mapping from the router that answers now, and return the address."""
        self._router, self._outside = self._make_client(), 0
        await self._run_in_thread(self._find_router)
        return await self._run_in_thread(self._request_port)

    def _find_router(self) -> None:
        router = self._router
        router.discoverdelay = SEARCH
        try:
            router.discover()
        except Exception as error:  # the library raises this if nobody answers, with the text "Success"
            raise PortMappingError("no router answers by UPnP") from error
        router.selectigd()

    def _request_port(self) -> str:
        """Request the port that the router has mapped again, or a new one: its errors don't say which it would map.
        Return the address.
        """
        host = self._read_host()
        if self._outside:
            self._add_mapping(self._outside, self._lifetime)
        else:
            self._request_new_port()
        return format_host(host, self._outside)

    def _read_host(self) -> str:
        """Return the router's own address. Raise `PortMappingError` unless it is public."""
        host = str(self._router.externalipaddress())
        try:
            is_public = ipaddress.ip_address(host).is_global
        except ValueError:
            raise PortMappingError(f"the router tells no address, but {host[:64]!r}") from None
        if not is_public:
            raise PortMappingError(f"the router's own address is {host}: it is behind another NAT")
        return host

    def _request_new_port(self) -> None:
        others = [random.randrange(1024, 1 << 16) for _ in range(_OTHERS)]
        wanted = [(port, LIFETIME) for port in (self._port, *others)]
        for outside, lifetime in (*wanted, (self._port, 0)):  # 0: permanent, as some routers need
            try:
                self._add_mapping(outside, lifetime)
            except PortMappingError as error:
                refusal = error
            else:
                self._outside, self._lifetime = outside, lifetime
                return
        raise refusal

    def _add_mapping(self, outside: int, lifetime: int) -> None:
        router = self._router
        try:
            router.addportmapping(outside, self._protocol, router.lanaddr, self._port, _NAME, "", lifetime)
        except Exception as error:  # the library raises that itself
            raise PortMappingError(f"no port of the router: {error}") from error

    async def _renew_mapping(self) -> None:
        pause, retry = self._pause, RETRY
        while True:
            await asyncio.sleep(pause)
            try:
                address = await self._renew_port()
                pause, retry = self._pause, RETRY
            except PortMappingError as error:
                address = ""
                pause, retry = min(retry, self._pause), 2 * retry
                log.info("%s; the router is looked for again in %g s", error, pause)
            if address != self.address:
                self.address = address
                self.on_change()

    async def _renew_port(self) -> str:
        """Renew the mapping, and return the address. If the router doesn't confirm it, search for a router again."""
        try:
            return await self._run_in_thread(self._request_port)
        except PortMappingError as error:
            log.info("%s; the router is looked for", error)
            return await self._look_for_router()

    async def _run_in_thread(self, work: Callable[[], T]) -> T:
        """Run `work` in a thread, since the library blocks. Its errors have no type of their own."""
        try:
            return await asyncio.to_thread(work)
        except PortMappingError:
            raise
        except Exception as error:  # the library raises that itself
            raise PortMappingError(f"no port of the router: {error}") from error
