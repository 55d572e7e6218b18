"""`python -m bench.shows_money`: from the contribution that fills the pot to the first segment at a listener.

One process: an embedded node, a producer whose segments come from a command that is started when the show goes on
air, and a listener that waits for it. `LATENCY` is added in front of every transaction: so long one takes on a main
network. Measured from the call that funds until the listener has a whole segment.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import tempfile
from typing import Any

from bench.pipe import LATENCY
from dtp.broadcast.cutting import cutter_of
from dtp.broadcast.hearing import listen_to
from dtp.broadcast.money import shows
from dtp.broadcast.places import Place
from dtp.broadcast.producing import Broadcast
from dtp.broadcast.source import Source, send_while_on_air
from dtp.chain import ChainClient, KeySigner, Network, publish
from dtp.identity import Identity
from dtp.localnet.grpc.localnet import LocalnetThread
from dtp.tasks import start_task

HERE = Place(listen=("tcp://127.0.0.1:0",))
#: What is put on air: a line each 50 ms, from when the command has begun.
COMMAND = ("sh", "-c", "while echo segment; do sleep 0.05; done")


class _Far(ChainClient):
    """Each transaction is on its way for a while before the node has it."""

    async def execute(self, *arguments: Any, **options: Any) -> Any:
        await asyncio.sleep(LATENCY)
        return await super().execute(*arguments, **options)


async def _measure(network: Network, producer: KeySigner, listener: KeySigner, deployments: Any) -> float:
    loop, identity = asyncio.get_running_loop(), Identity.generate()
    async with (
        _Far(network, producer, deployments=deployments) as theirs,
        _Far(network, listener, deployments=deployments) as mine,
    ):
        terms = shows.ShowTerms(slot_ms=10_000, rate=1000, start_pot=2000)
        id, _ = await shows.create(theirs, identity.id.key, terms)
        await shows.fund(mine, id, 1000)
        with tempfile.TemporaryDirectory() as store:
            async with Broadcast(id, identity=identity, wallet=theirs, store=store, place=HERE) as on_air:
                source = Source(cutter_of("lines"), COMMAND)
                sending = start_task(send_while_on_air(on_air, source, lambda _: None), name="bench-show")
                stream = listen_to(*on_air.addresses)
                async with stream:
                    await stream.announcement()
                    began = loop.time()
                    funding = start_task(shows.fund(mine, id, 1000), name="bench-fund")
                    async for _ in stream:
                        took = loop.time() - began
                        break
                    await funding
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
                return took


async def _run(localnet: LocalnetThread, count: int) -> dict[str, Any]:
    network = Network("bench", (localnet.url,), faucet=localnet.faucet_url)
    producer, listener = KeySigner.generate(), KeySigner.generate()
    for each in (producer, listener):
        localnet.fund(each.address, 1_000_000_000_000, 4)
    async with ChainClient(network, producer, deployments=None) as chain:
        await publish(chain, "broadcast")
        deployments = chain.deployments
    took = [await _measure(network, producer, listener, deployments) for _ in range(count)]
    return {
        "runs": count,
        "a transaction, s": LATENCY,
        "contribution to first segment, median s": round(statistics.median(took), 2),
        "contribution to first segment, most s": round(max(took), 2),
        "load": os.getloadavg()[0],
    }


def main() -> None:
    """Measure, and print JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench.shows_money", description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    given = parser.parse_args()
    with LocalnetThread() as localnet:
        result = asyncio.run(_run(localnet, given.runs))
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
