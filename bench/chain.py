"""Claims of a channel against the embedded node: a process for the node, one for the client with pysui's messages.

A claim is what a server does again and again: it builds the transaction from a voucher, has its gas simulated (or
gives the budget itself), signs it and executes it. The node checks signatures, runs the Move of the packages and
seals checkpoints.
"""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.contenders import Contender
from bench.job import Job, Meter, Ready, Result, percentile

if TYPE_CHECKING:
    from dtp.chain import ChainClient

MODULE = "bench.chain"
#: What a claim costs is far below it; MIST.
BUDGET = 20_000_000
DEPOSIT = 1_000_000_000

#: The rows: who chooses the gas.
CONTENDERS = (
    Contender("simulated", "gas by simulation: two round trips", MODULE, "simulated", frozenset({"claims"})),
    Contender("budget", "gas budget given: one round trip", MODULE, "budget", frozenset({"claims"})),
)


def serve(job: Job, ready: Ready) -> Result:
    """The node; ends when the client says so."""
    return asyncio.run(_serve(ready))


async def _serve(ready: Ready) -> Result:
    from dtp.localnet.grpc.localnet import Localnet

    done = asyncio.Event()

    async def end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()
        done.set()

    bell = await asyncio.start_server(end, "127.0.0.1", 0)
    async with bell, Localnet() as net:
        port = bell.sockets[0].getsockname()[1]
        ready({"url": net.url, "faucet": net.faucet_url, "bell": port, "pid": os.getpid()})
        await done.wait()
    return {}


def drive(job: Job, where: dict[str, Any]) -> Result:
    """The client: opens a channel, claims `job.warm_count` and then `job.count` times."""
    return asyncio.run(_drive(job, where))


async def _drive(job: Job, where: dict[str, Any]) -> Result:
    from dtp.chain import ChainClient, KeySigner, Network, publish
    from dtp.chain.wallet import request_sui

    network = Network("bench", (where["url"],), faucet=where["faucet"])
    signer, payer = KeySigner.generate(), KeySigner.generate()
    for each in (signer, payer):
        await request_sui(network, each.address)
    async with ChainClient(network, signer, deployments=None) as chain:
        await publish(chain, "transport")
        async with ChainClient(network, payer, deployments=chain.deployments) as other:
            claims = _Claims(chain, payer, await _open(chain, other, payer.public_key))
        budget = BUDGET if job.variant == "budget" else None
        for _ in range(job.warm_count):
            await claims.claim(budget)
        client, both = Meter(), Meter((where["pid"],))
        client.start()
        both.start()
        took = [await claims.claim(budget) for _ in range(job.count)]
        both.stop()
        client.stop()
    _, writer = await asyncio.open_connection("127.0.0.1", where["bell"])
    writer.close()
    return {
        "seconds": both.seconds,
        "cpu": both.cpu,
        "client": client.cpu,
        "p50": percentile(took, 0.5) / 1000,
        "p99": percentile(took, 0.99) / 1000,
    }


async def _open(chain: ChainClient, other: ChainClient, lane: bytes) -> str:
    """A host of `chain`'s account, and a channel that `other`'s opens to it; the channel's id."""
    from dtp.chain import Program, channel, host

    program = Program()
    host.create(program, chain.address, ttl_ms=86_400_000, operator=chain.address)
    made = chain.events_in(await chain.execute(program), host.SCHEMA, host.HostCreated)[0]
    (cap,) = await chain.owned(host.SCHEMA, host.HostCap, chain.address)
    (op,) = await chain.owned(host.SCHEMA, host.OpCap, chain.address)
    program = Program()
    host.add_service(program, made.host, cap.id, 1, host.Terms(price_request=1000, min_deposit=1000))
    host.set_open(program, made.host, cap.id, 1, True)
    host.enroll(program, made.beacon, op.id, b"e" * 32)
    host.heartbeat(program, made.beacon, op.id, b"e" * 32, 1, 0)
    await chain.execute(program)
    program = Program()
    channel.open_and_share(program, made.host, made.beacon, 1, 1, DEPOSIT, lane)
    executed = await other.execute(program)
    return chain.events_in(executed, channel.SCHEMA, channel.ChannelOpened)[0].channel


@dataclass
class _Claims:
    chain: ChainClient
    #: Signs vouchers.
    lane: Any
    channel: str
    number: int = 0

    async def claim(self, budget: int | None) -> int:
        """Claim once with the next voucher; nanoseconds of building, signing and executing, without the voucher."""
        from dtp.chain import Program, channel

        self.number += 1
        voucher = channel.Voucher(self.channel, 0, self.number, 10 * self.number, self.number, 0)
        signature = self.lane.sign_statement(channel.voucher_bytes(voucher))
        started = time.perf_counter_ns()
        program = Program()
        channel.claim_for(program, voucher, signature)
        await self.chain.execute(program, gas_budget=budget)
        return time.perf_counter_ns() - started


def publish_bytes(name: str) -> int:
    """Size of the transaction that publishes a package of dtp's, with one gas coin."""
    from dtp.chain import Program, packages
    from dtp.chain.node._pysui import encode_transaction
    from dtp.chain.node.commands import bind
    from dtp.sui.transaction import GasData, ObjectRef, TransactionData

    package = packages.load(name)
    program = Program()
    program.transfer([program.publish(list(package.modules.values()), package.dependencies)], bytes(32))
    kind = bind(program, lambda name: "0x0", {})
    gas = GasData((ObjectRef(bytes(32), 1, bytes(32)),), bytes(32), 1000, 10**9)
    return len(encode_transaction(TransactionData(kind, bytes(32), gas)))
