"""Half of the nodes of `bench.gossip`, of py-libp2p: run by that with the interpreter of $BENCH_LIBP2P_PYTHON.

Settings that its defaults would lose by are set to what they should be: a heartbeat of 1 s instead of 120 s, no limit
of 10 messages a second for a topic, and a mesh of the size that ours has. Each connection is waited for until both
topics' services have it: 435 at once took more than the 10 s that it gives a handshake or a stream, by which it loses
neighbours, or ends.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from typing import Any

import trio
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_new_static
from libp2p.custom_types import TProtocol
from libp2p.network.config import ConnectionConfig
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.pubsub.gossipsub import GossipSub
from libp2p.pubsub.pubsub import Pubsub
from libp2p.security.noise.transport import PROTOCOL_ID, Transport
from libp2p.tools.anyio_service import background_trio_service
from multiaddr import Multiaddr

SIZE = 256
TOPIC = "bench"


def say(value: object) -> None:
    """Tell the parent."""
    print(json.dumps(value), flush=True)


async def hear() -> Any:
    """Wait for what the parent says."""
    return json.loads(await trio.to_thread.run_sync(sys.stdin.readline) or "null")


class Group:
    """What the nodes of this process got."""

    def __init__(self) -> None:
        self.got = self.expected = 0
        self.is_timing = False
        self.arrivals: list[tuple[int, float]] = []

    async def read(self, subscription: Any, me: bytes) -> None:
        """Take what comes to one node, but for what it wrote itself."""
        while True:
            message = await subscription.get()
            if message.from_id == me:
                continue
            self.got += 1
            if self.is_timing:
                self.arrivals.append((int.from_bytes(message.data[:8], "big"), time.monotonic()))


#: Seconds that a handshake, or opening a stream, may take on a core that is busy with other nodes; and those until a
#: connection of two nodes is usable.
PATIENCE = 60.0


async def link(host: Any, pubsub: Any, address: str) -> None:
    """Connect two nodes, and wait until they can send each other messages. Raise `RuntimeError` if they can't."""
    peer = info_from_p2p_addr(Multiaddr(address))
    with trio.move_on_after(PATIENCE):
        await host.connect(peer)
        while peer.peer_id not in pubsub.peers:  # noqa: ASYNC110
            await trio.sleep(0.01)
        return
    raise RuntimeError(f"two nodes couldn't be connected within {PATIENCE:g} s")


async def main(count: int, base: int) -> None:
    """Make the nodes, and do what the parent says."""
    group, hosts, pubsubs = Group(), [], []
    async with trio.open_nursery() as nursery:
        for _ in range(count):
            keys = create_new_key_pair()
            noise = Transport(keys, noise_privkey=create_new_static().private_key)
            host = new_host(
                key_pair=keys,
                sec_opt={PROTOCOL_ID: noise},
                connection_config=ConnectionConfig(
                    dial_timeout=PATIENCE,
                    inbound_upgrade_timeout=PATIENCE,
                    outbound_upgrade_timeout=PATIENCE,
                    inbound_stream_protocol_negotiation_timeout=PATIENCE,
                    outbound_stream_protocol_negotiation_timeout=PATIENCE,
                ),
            )
            router = GossipSub(
                protocols=[TProtocol("/meshsub/1.1.0")],
                degree=8,
                degree_low=6,
                degree_high=12,
                heartbeat_interval=1,
                max_messages_per_topic_per_second=1e9,
                max_pending_messages_per_peer=100_000,
            )
            pubsub = Pubsub(host, router)
            hosts.append(host)
            pubsubs.append(pubsub)
            await nursery.start(_run, host, pubsub, router)
        say([str(host.get_addrs()[0]) for host in hosts])
        everybody = await hear()
        for at, (host, pubsub) in enumerate(zip(hosts, pubsubs, strict=True)):
            for address in everybody[base + at + 1 :]:
                await link(host, pubsub, address)
        for host, pubsub in zip(hosts, pubsubs, strict=True):
            nursery.start_soon(group.read, await pubsub.subscribe(TOPIC), host.get_id().to_bytes())
        await trio.sleep(8)
        say("ready")
        await _serve(group, pubsubs[0])
        os._exit(0)


async def _run(host: Any, pubsub: Any, router: Any, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
    async with (
        host.run(listen_addrs=[Multiaddr("/ip4/127.0.0.1/tcp/0")]),
        background_trio_service(pubsub),
        background_trio_service(router),
    ):
        await pubsub.wait_until_ready()
        task_status.started()
        await trio.sleep_forever()


async def _serve(group: Group, pubsub: Any) -> None:
    while (order := await hear()) is not None:
        group.arrivals, group.is_timing = [], order["timing"]
        before, group.expected = group.expected, group.expected + order["expect"]
        cpu, began = time.process_time(), time.monotonic()
        say("begun")
        published: list[float] = []
        for number in range(order["publish"]):
            if order["timing"]:
                published.append(time.monotonic())
            await pubsub.publish(TOPIC, number.to_bytes(8, "big") + bytes(SIZE - 8))
            await trio.sleep(order["pause"])
        quiet, last = time.monotonic(), group.got
        while group.got < group.expected and time.monotonic() - began < order["patience"]:
            await trio.sleep(0.01)
            if group.got != last:
                quiet, last = time.monotonic(), group.got
            elif time.monotonic() - quiet > 10:
                break  # what hasn't come by now was dropped
        say(
            {
                "arrived": group.got - before,
                "all": group.got >= group.expected,
                "seconds": min(time.monotonic(), quiet) - began,
                "cpu": time.process_time() - cpu,
                "published": published,
                "arrivals": group.arrivals,
            }
        )
        group.expected = group.got


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--half")
    parser.add_argument("--nodes", type=int)
    parser.add_argument("--base", type=int)
    options = parser.parse_args()
    trio.run(main, options.nodes, options.base)
