"""DHT nodes by the hundred in one process: the `DhtNode` that runs for real, on a simulated network and clock."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from dtp.identity import Identity
from dtp.peers.dht.addresses import Endpoint
from dtp.peers.dht.limits import DEFAULT_LIMITS, DhtLimits
from dtp.peers.dht.node import DhtNode, OperationEnded
from dtp.peers.dht.records import Mutable, Record, RecordKind
from dtp.testing.datagrams import DatagramNetwork

#: Unix time at the simulated clock's zero.
UNIX = 1_700_000_000.0
PORT = 4000


def global_host(number: int) -> str:
    """Return the address of the `number`th node on the simulated internet: in a subnet of its own, up to 65,536."""
    return f"60.{number >> 8 & 255}.{number & 255}.{1 + (number >> 16)}"


def local_host(number: int) -> str:
    """Return the address of the `number`th node on loopback."""
    return f"127.{1 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"


class DhtSwarm:
    """Nodes on a `DatagramNetwork`. Everything follows from `seed`: the same one gives the same run."""

    def __init__(
        self,
        seed: int = 0,
        *,
        latency: Callable[[Endpoint, Endpoint], float] = lambda source, destination: 0.001,
        loss: float = 0.0,
        limits: DhtLimits = DEFAULT_LIMITS,
        host: Callable[[int], str] = local_host,
    ) -> None:
        self.random = Random(seed)
        self.network = DatagramNetwork(self.random, latency=latency, loss=loss, start=1000.0)
        self.limits = limits
        self.nodes: dict[Endpoint, DhtNode] = {}
        self._host = host
        self._made = 0

    @property
    def now(self) -> float:
        """The simulated time, seconds."""
        return self.network.now

    @property
    def unix(self) -> float:
        """Unix time there."""
        return UNIX + self.network.now

    def new_identity(self) -> Identity:
        """Return a new identity."""
        return Identity(self.random.randbytes(32), self.random.randbytes(32))

    def add_node(
        self,
        *bootstrap: Endpoint,
        identity: Identity | None = None,
        host: str = "",
        client: bool = False,
        subnets: bool = True,
    ) -> Endpoint:
        """Add a node that joins by `bootstrap`; return where it is."""
        endpoint = (host or self._host(self._made), PORT)
        self._made += 1
        node = DhtNode(
            identity or self.new_identity(),
            now=self.now,
            unix=self.unix,
            random=Random(self.random.getrandbits(64)),
            client=client,
            subnets=subnets,
            limits=self.limits,
        )
        self.nodes[endpoint] = node
        self.network.add_node(endpoint, node)
        if bootstrap:
            node.join_network(bootstrap, self.now)
            self.network.carry_due(endpoint)
        return endpoint

    def add_nodes(self, count: int, *, settle: float = 0.2) -> list[Endpoint]:
        """Add nodes one after the other, each by one that is there already; return where they are."""
        added = []
        for _ in range(count):
            known = self.random.sample(sorted(self.nodes), min(len(self.nodes), 2))
            added.append(self.add_node(*known))
            self.run_for(settle)
        return added

    def remove_node(self, endpoint: Endpoint) -> DhtNode:
        """Take a node away without a word, as a machine that is switched off; return it."""
        self.network.remove_node(endpoint)
        return self.nodes.pop(endpoint)

    def run_for(self, seconds: float) -> None:
        """Let time pass."""
        self.network.run_until(self.now + seconds)

    def run_operation(
        self, endpoint: Endpoint, begin: Callable[[DhtNode, float], int], patience: float = 60.0
    ) -> Any:
        """Return what an operation of a node comes to; raise `TimeoutError` after simulated `patience`."""
        node = self.nodes[endpoint]
        node.take_events()
        operation = begin(node, self.now)
        self.network.carry_due(endpoint)
        found: list[Any] = []

        def ended() -> bool:
            found.extend(
                e.result
                for e in node.take_events()
                if isinstance(e, OperationEnded) and e.operation == operation
            )
            return bool(found)

        self.network.run_until(self.now + patience, ended)
        if not found and not ended():
            raise TimeoutError(f"an operation takes longer than {patience:g} s")
        return found[0]

    def put_value(
        self, endpoint: Endpoint, value: bytes, *, name: str = "value", sequence: int = 1, **sign: Any
    ) -> Record:
        """Publish a value of the node there; return the record. Raise `ValueError` where nobody has it or newer."""
        identity = self.nodes[endpoint].identity
        signed = Mutable.sign(identity, value, name=name, sequence=sequence, now=self.unix, **sign)
        record = Record.from_value(signed)
        stored = self.run_operation(endpoint, lambda node, now: node.publish_record(record, now))
        if not stored.nodes + stored.newer:
            raise ValueError("nobody has stored the record")
        return record

    def get_value(self, endpoint: Endpoint, record: Record) -> bytes | None:
        """Return the newest value at a record's place, as the node there finds it; None where it finds none."""
        found = self.run_operation(
            endpoint, lambda node, now: node.get_records(RecordKind.MUTABLE, record.target, now)
        )
        return found[0].value.value if found else None
