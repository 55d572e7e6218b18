"""The DHT: Kademlia among authenticated nodes.

`Dht` is a node on a UDP socket, `DhtNode` the value below it.
"""

from dtp.peers.dht.driver import Dht, DhtStats
from dtp.peers.dht.errors import (
    DhtAlone,
    DhtError,
    DhtRecordError,
    DhtRecordExpired,
    DhtRecordForged,
    DhtRecordFromFuture,
    DhtSuperseded,
    MessageError,
)
from dtp.peers.dht.limits import DhtLimits
from dtp.peers.dht.node import DhtNode
from dtp.peers.dht.records import Mutable, Provider, RecordKind

__all__ = [
    "Dht",
    "DhtAlone",
    "DhtError",
    "DhtLimits",
    "DhtNode",
    "DhtRecordError",
    "DhtRecordExpired",
    "DhtRecordForged",
    "DhtRecordFromFuture",
    "DhtStats",
    "DhtSuperseded",
    "MessageError",
    "Mutable",
    "Provider",
    "RecordKind",
]
