"""Sui: a client for its chain, the Move packages that ship with dtp, and a module for each of theirs.

    from dtp.chain import ChainClient, KeySigner, Program, channel, host

`ChainClient` reads and executes, `Program` says what a transaction does, a `Signer` signs it. `dtp.chain.host`,
`channel`, `pass_`, `pipe`, `lock`, `card` and `show` add the commands of the Move functions and hold the objects as
dataclasses. `dtp.chain.packages` holds the compiled packages and their names; nothing there needs a network. pysui is
loaded when a client first needs it.
"""

from dtp.chain.events import OLDEST, Cursor, CursorFile, EventFollower, Followed, event_types
from dtp.chain.model import MIST_PER_SUI, SUI_COIN, ChainEvent, Executed, ObjectData, ObjectRef
from dtp.chain.node.client import ChainClient, Simulated
from dtp.chain.node.commands import Program
from dtp.chain.node.networks import NETWORKS, Network, find_network
from dtp.chain.packages.deployments import Deployment, Deployments
from dtp.chain.packages.publish import adopt, publish
from dtp.chain.signer import CommandSigner, KeySigner, Scheme, Signer

__all__ = [
    "MIST_PER_SUI",
    "NETWORKS",
    "OLDEST",
    "SUI_COIN",
    "ChainClient",
    "ChainEvent",
    "CommandSigner",
    "Cursor",
    "CursorFile",
    "Deployment",
    "Deployments",
    "EventFollower",
    "Executed",
    "Followed",
    "KeySigner",
    "Network",
    "ObjectData",
    "ObjectRef",
    "Program",
    "Scheme",
    "Signer",
    "Simulated",
    "adopt",
    "event_types",
    "find_network",
    "publish",
]
