"""The firewall of a host on Sui before a daemon's services: its lists, passes and rates, read by `dtp.chain`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from dtp.daemon.config.model import Chain
from dtp.net.listener import Request

if TYPE_CHECKING:
    from dtp.chain.client import ChainClient
    from dtp.chain.firewall import Firewall


class Gate(Protocol):
    """Lets a request in by what somebody else knows."""

    async def start(self) -> None:
        """Get ready; raises why it can't."""

    async def admit(self, request: Request) -> None:
        """Let it in, or raise `Refuse`."""

    async def close(self) -> None:
        """Give up what is open. Idempotent."""


class HostGate:
    """The gate of `[chain]`. `dtp.chain`, and with it pysui, is loaded when it starts."""

    def __init__(self, config: Chain, chain: ChainClient | None = None) -> None:
        """`chain` is a client that is connected, and stays its owner's; without, one is made for the network."""
        self._config = config
        self._given = chain
        self._own: ChainClient | None = None
        self._firewall: Firewall | None = None

    async def start(self) -> None:
        """Connect and read the rules, so that a wrong host or network is noticed now. Raises `ChainError`."""
        from dtp.chain.client import ChainClient
        from dtp.chain.firewall import Firewall

        chain = self._given
        if chain is None:
            chain = self._own = ChainClient(self._config.network)
            await chain.connect()
        self._firewall = Firewall(chain, self._config.host)
        await self.refresh()

    async def refresh(self) -> None:
        """Read the rules now, rather than when they are old and somebody asks. Raises `ChainError`."""
        assert self._firewall is not None
        await self._firewall.refresh()

    async def admit(self, request: Request) -> None:
        """As the host's lists, passes and rates say. Raises `Refuse`."""
        assert self._firewall is not None
        await self._firewall.admit(request)

    async def close(self) -> None:
        """End readings and the connection."""
        if self._firewall is not None:
            await self._firewall.close()
        if self._own is not None:
            self._own.close()
            self._own = None
