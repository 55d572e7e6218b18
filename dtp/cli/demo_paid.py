"""`dtp demo --paid`: a chain, a host, a service with a price, two processes, a file; and who got what."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from dtp.chain import ChainClient, EventFollower, KeySigner, channel, event_types, find_network, publish
from dtp.chain.events import OLDEST
from dtp.chain.model import format_amount
from dtp.chain.wallet import request_sui
from dtp.cli.demo_errors import DemoFailed
from dtp.cli.output import print_line
from dtp.cli.progress import size_text
from dtp.identity import Identity
from dtp.localnet.grpc.localnet import Localnet
from dtp.pay.hosting import make_host
from dtp.plurals import count_of

#: What a MiB and a request cost in the demo, MIST.
PRICE_MIB: Final = 2_000_000
PRICE_REQUEST: Final = 1_000
#: No heartbeat within a demo: it would be gas in the middle of the sums.
_TTL_MS = 86_400_000
_PATIENCE = 120.0


@dataclass(frozen=True)
class _Party:
    """One process's account, with a home of its own."""

    name: str
    home: Path
    identity: Identity

    @property
    def signer(self) -> KeySigner:
        return KeySigner.from_identity(self.identity)

    def make_environment(self, localnet: Localnet, packages: Path) -> dict[str, str]:
        return {
            **os.environ,
            "DTP_HOME": str(self.home),
            "DTP_NETWORK": localnet.url,
            "DTP_FAUCET": localnet.faucet_url,
            "DTP_PACKAGES": str(packages),
            "DTP_IDENTITY": str(self.home / "identity.pem"),
            "DTP_PAY_STORE": str(self.home / "pay.sqlite"),
        }


def _party(folder: Path, name: str) -> _Party:
    home = folder / name
    home.mkdir()
    identity = Identity.generate()
    identity.save(home / "identity.pem")
    return _Party(name, home, identity)


async def paid_demo(folder: Path, file: Path, digest: str) -> None:
    """Serve `file` for money in one process, buy it in another. `DemoFailed` when a sum or the file is wrong."""
    server, client = _party(folder, "server"), _party(folder, "client")
    packages = folder / "packages.json"
    async with Localnet() as localnet:
        network = replace(find_network(localnet.url), faucet=localnet.faucet_url)
        for party in (server, client):
            await request_sui(network, party.signer.address)
        async with ChainClient(network, server.signer, deployments=packages) as chain:
            await publish(chain, "transport")
            owned = await make_host(chain, _TTL_MS)
            print_line(
                {"event": "chain", "url": localnet.url, "host": owned.host.id},
                f"chain      {localnet.url}, in memory\nhost       {owned.host.id}\n"
                f"price      {format_amount(PRICE_MIB)} a MiB, {format_amount(PRICE_REQUEST)} a request",
            )
            async with _serving(server, localnet, packages, file) as (events, process):
                address = (await _next(events, "listening"))["address"]
                before = await _balances(chain, server, client)
                bought = await _buy(client, localnet, packages, address, folder)
                served = await _next(events, "served")
                after = await _balances(chain, server, client)  # before the server takes its endpoint off
                got = await _paid_by_channels(chain)
                assert process.stdin is not None
                process.stdin.close()
                await process.wait()
    spent = {name: before[name] - after[name] for name in before}
    _report(file, digest, bought, served, got, spent)


async def _balances(chain: ChainClient, *parties: _Party) -> dict[str, int]:
    return {party.name: (await chain.balance(party.signer.address)).total for party in parties}


async def _paid_by_channels(chain: ChainClient) -> int:
    """Return what channels have paid to servers by the chain's events: for claims, and with their close."""
    total = 0
    for cls, amount in (
        (channel.Claimed, "paid"),
        (channel.OwedPaid, "amount"),
        (channel.Settled, "to_server"),
    ):
        past = EventFollower(chain, event_types(chain, channel.SCHEMA, cls), start=OLDEST).past_events()
        total += sum(
            [getattr(channel.SCHEMA.decode(cls, each.event.contents), amount) async for each in past]
        )
    return total


@contextlib.asynccontextmanager
async def _serving(
    party: _Party, localnet: Localnet, packages: Path, file: Path
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.subprocess.Process]]:
    """Run `dtp serve` with a price, in a process of its own."""
    site = party.home / "site"
    site.mkdir()
    await asyncio.to_thread(shutil.copyfile, file, site / file.name)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "dtp", "serve", "--json", "--until-eof"),
        *("--http", str(site), "--service", "files"),
        *("--price-mib", str(PRICE_MIB), "--price-request", str(PRICE_REQUEST)),
        env=party.make_environment(localnet, packages),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        yield process.stdout, process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _next(events: asyncio.StreamReader, name: str) -> dict[str, Any]:
    """Return the next event of this name. `DemoFailed` when the process ends before."""
    async with asyncio.timeout(_PATIENCE):
        while line := await events.readline():
            record: dict[str, Any] = json.loads(line)
            if record["event"] == name:
                return record
    raise DemoFailed(f"the serving process ended before it said {name!r}")


async def _buy(
    party: _Party, localnet: Localnet, packages: Path, address: str, folder: Path
) -> dict[str, dict[str, Any]]:
    """Run `dtp recv` with a budget, in a process of its own, and return what it said, by event."""
    (folder / "received").mkdir()
    name = next((folder / "server" / "site").iterdir()).name
    process = await asyncio.create_subprocess_exec(
        *(
            sys.executable,
            "-P",
            "-m",
            "dtp",
            "recv",
            "--json",
            "--yes",
            "--close-channel",
            "--budget",
            "5SUI",
        ),
        *("--output", str(folder / "received"), f"{address}/{name}"),
        env=party.make_environment(localnet, packages),
        stdout=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(_PATIENCE):
        said, _ = await process.communicate()
    if process.returncode:
        raise DemoFailed(f"the buying process ended with {process.returncode}")
    return {record["event"]: record for record in map(json.loads, said.splitlines())}


def _report(
    file: Path,
    digest: str,
    bought: dict[str, dict[str, Any]],
    served: dict[str, Any],
    got: int,
    spent: dict[str, int],
) -> None:
    """Print who got what, and check that it adds up: `got` is the server's, and `spent` what each has less by now."""
    received, paid = bought["received"], bought["paid"]
    # A server claims on the way, since it lets only so much go unclaimed, and pays the gas of that.
    server_gas = got + spent["server"]
    client_gas = spent["client"] - paid["amount"]
    claims = f", and spent {format_amount(server_gas)} on gas for claims" if server_gas else ""
    price = (paid["requests"] * PRICE_REQUEST * 2**20 + paid["bytes"] * PRICE_MIB) // 2**20
    right = {
        "the file is the one that was served": received["sha256"] == digest,
        "client and server counted the same": (paid["requests"], paid["bytes"], paid["amount"])
        == (served["requests"], served["bytes"], served["vouched"]),
        "the vouchers say what that costs": paid["amount"] == price,
        "the server got what the vouchers say": got == paid["amount"],
    }
    checks = "\n".join(f"{'yes' if good else 'NO':<10} {what}" for what, good in right.items())
    print_line(
        {
            "event": "demo",
            "ok": all(right.values()),
            "bytes": file.stat().st_size,
            "metered_bytes": paid["bytes"],
            "requests": paid["requests"],
            "paid": paid["amount"],
            "server_gained": got,
            "server_gas": server_gas,
            "client_spent": spent["client"],
            "client_gas": client_gas,
            "checks": right,
        },
        f"moved      {size_text(file.stat().st_size)}, {received['seconds']:.2f} s\n"
        f"metered    {count_of(paid['bytes'], 'byte')}, {count_of(paid['requests'], 'request')}\n"
        f"vouchers   {format_amount(paid['amount'])}\n"
        f"server     got {format_amount(got)}{claims}\n"
        f"client     spent {format_amount(spent['client'])}, {format_amount(client_gas)} of it on gas for two "
        "transactions\n"
        f"{checks}",
    )
    if not all(right.values()):
        raise DemoFailed("the sums don't add up")
