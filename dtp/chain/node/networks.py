"""Networks: a name or a URL, where its nodes and its faucet are, and how to tell that it is the right one.

`localnet` is what `dtp localnet` and `sui start` serve on this machine. A URL (`http://host:port`, `https://host`)
is a network of its own; several endpoints of one network are given with commas between them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from dtp.carriers.nearness import Nearness
from dtp.chain.errors import NetworkError
from dtp.chain.node._wire import parse_url

if TYPE_CHECKING:
    from dtp.chain.node.client import ChainClient

#: The network that whatever serves on this machine's usual port is. Nodes of `dtp localnet` say so of their chain.
LOCALNET: Final = "localnet"
LOCALNET_PORT: Final = 9000
FAUCET_PORT: Final = 9123
#: Names the default network; a name or a URL.
NETWORK_VARIABLE: Final = "DTP_NETWORK"
#: Names the URL of a faucet, for networks that are given by URL.
FAUCET_VARIABLE: Final = "DTP_FAUCET"


@dataclass(frozen=True)
class Network:
    """A network. `endpoints` are tried in turn; `chain_id` is what its nodes must say, empty for any; `faucet` the
    URL of `POST /v2/gas`, empty where SUI isn't given away."""

    name: str
    endpoints: tuple[str, ...]
    chain_id: str = ""
    faucet: str = ""


#: The networks that have a name, by it.
NETWORKS: Final = {
    LOCALNET: Network(
        LOCALNET, (f"http://127.0.0.1:{LOCALNET_PORT}",), faucet=f"http://127.0.0.1:{FAUCET_PORT}/v2/gas"
    ),
    "testnet": Network(
        "testnet",
        ("https://fullnode.testnet.sui.io",),
        "69WiPg3DAQiwdxfncX6wYQ2siKwAe6L9BZthQea3JNMD",
        "https://faucet.testnet.sui.io/v2/gas",
    ),
    "mainnet": Network(
        "mainnet", ("https://fullnode.mainnet.sui.io",), "4btiuiMPvEENsttpZC7CZ53DruC3MAgfznDbASZ7DR6S"
    ),
}


def nearness_of_chain(chain: ChainClient) -> Nearness:
    """Return how near those are who write to a chain that has answered: as near as its nodes for what `dtp localnet`
    serves and for the network `localnet`; anywhere for others, even where one of their nodes runs here."""
    network, info = chain.endpoints.network, chain.endpoints.info
    is_own = network.name == LOCALNET or (info is not None and info.chain == LOCALNET)
    if not is_own or chain.chain_id in {each.chain_id for each in NETWORKS.values() if each.chain_id}:
        return Nearness.ANYWHERE
    hosts = (urlsplit(each).hostname or "" for each in network.endpoints)
    return min(map(Nearness.of_host, hosts))


def find_network(text: str | None = None) -> Network:
    """Return the network of that name or URL; without one, of `$DTP_NETWORK`, else localnet. Raises
    `NetworkError`."""
    text = (text or os.environ.get(NETWORK_VARIABLE) or LOCALNET).strip()
    if text in NETWORKS:
        return NETWORKS[text]
    endpoints = tuple(part.strip() for part in text.split(",") if part.strip())
    if not endpoints or "://" not in text:
        raise NetworkError(f"no network {text!r}: there is {', '.join(NETWORKS)}, or give a URL")
    for endpoint in endpoints:
        parse_url(endpoint)
    return Network(text, endpoints, faucet=os.environ.get(FAUCET_VARIABLE, ""))
