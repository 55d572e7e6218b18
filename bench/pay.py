"""`python -m bench.pay`: what paying costs - a metered stream beside an unmetered one, vouchers, and gas.

Two processes over loopback, the same bytes with and without a meter in turns; vouchers as they fall due, stored on
both sides and synced to the disk on the server's. Vouchers are signed and checked on one core. Gas is what localnet
charges for the transactions of a channel's life; computation is bucketed there as on a real network, at its price.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dtp.identity import Identity
from dtp.net.address import Address
from dtp.net.connection import Connection
from dtp.net.dial import Dialer, suites
from dtp.net.listener import listen
from dtp.pay.drivers import Account, ClientMeter, ServerMeter
from dtp.pay.journal import Journal
from dtp.pay.messages import build, parse
from dtp.pay.metered import Metered
from dtp.pay.payee import Payee, PayeeLane
from dtp.pay.payer import Payer, said
from dtp.pay.store import Bought, Store
from dtp.pay.terms import MIB, Prices, Spending, Usage
from dtp.pay.voucher import LaneKey, SignedVoucher, Voucher
from dtp.session.handshake import Endpoint
from dtp.session.limits import DEFAULT

if TYPE_CHECKING:
    from dtp.chain import KeySigner
    from dtp.localnet.grpc.localnet import LocalnetThread

CHANNEL = "0x" + "c1" * 32
KEY = LaneKey(bytes(range(32)))
PRICES = Prices(1000, 2_000_000)
FUNDS = 2**62
#: The services that are metered, and when their clients sign.
_METERED = {"voucher per MiB": Spending(voucher_bytes=MIB), "default": Spending()}
GIB = 1024 * MIB
PIECE = 1024 * 1024


class _OneLane(Account):
    """A server's account with a single lane and all the money there is."""

    def keys(self, meter: ServerMeter) -> tuple[bytes, ...]:
        return (KEY.public,)

    def reserve(self, meter: ServerMeter, amount: int) -> bool:
        return True

    def unreserve(self, meter: ServerMeter) -> None:
        pass

    def stored(self, meter: ServerMeter, signed: SignedVoucher) -> None:
        pass

    def used(self, meter: ServerMeter, more: Usage) -> None:
        pass

    def look_again(self, meter: ServerMeter) -> None:
        pass

    def close_asked(self, meter: ServerMeter) -> None:
        pass

    async def ended(self, meter: ServerMeter) -> None:
        lane, used = meter.payee.lane, meter.payee.used
        await meter.journal.run(lambda store: store.served(lane.channel, lane.lane, used))


# ------------------------------------------------------------------------------------------------- both processes


async def serve(folder: Path) -> None:
    """The far end: sends what is asked for, metered or not by the service's name."""
    with Store(folder / "server.sqlite") as store:
        journal = Journal(store)
        done = asyncio.Event()

        async def handle(connection: Connection) -> None:
            if connection.service in _METERED:
                assert isinstance(connection, Metered)
                lane = await journal.run(lambda store: store.sold_lane(CHANNEL, 0))
                payee = Payee(PayeeLane(CHANNEL, 0, lane.newest, lane.used), PRICES, FUNDS)
                connection.meter = ServerMeter(connection, journal, payee, _OneLane())
                connection.meter.begin()
            elif connection.service == "end":
                done.set()
            piece = bytes(PIECE)
            async for stream in connection:
                size = int(await stream.readline())
                cpu = time.process_time()
                for _ in range(size // PIECE):
                    stream.write(piece)
                    await stream.drain()
                await stream.flush()
                stream.write(b"%.6f\n" % (time.process_time() - cpu))
                stream.write_eof()

        async with await listen(
            "tcp://127.0.0.1:0", handle, identity=Identity.generate(), make=Metered
        ) as listener:
            print(listener.address(), flush=True)
            await done.wait()
        await journal.close()


async def _open(address: Address, service: str, journal: Journal) -> Metered:
    dialer = Dialer(address, Endpoint(Identity.generate(), suites(), DEFAULT), service, (), None, Metered)
    connection = await dialer.connect()
    assert isinstance(connection, Metered)
    if service in _METERED:
        ((key, lane),) = await journal.run(lambda store: store.lanes(CHANNEL))
        lane = replace(lane, clean=False)
        payer = Payer(lane, PRICES, FUNDS, lambda shown: shown.is_by(key.public), _METERED[service])
        connection.meter = ClientMeter(connection, journal, payer, key)
        connection.meter.begin()
        await connection.meter.welcomed()
    return connection


@dataclass
class Transfer:
    """One transfer: seconds, CPU seconds of both processes, vouchers."""

    seconds: float
    cpu: float
    vouchers: int


async def transfer(address: Address, service: str, size: int, journal: Journal) -> Transfer:
    """Fetch `size` bytes."""
    async with await _open(address, service, journal) as connection:
        first = connection.meter.payer.sequence if isinstance(connection.meter, ClientMeter) else 0
        stream = await connection.open_stream()
        began, cpu = time.perf_counter(), time.process_time()
        stream.write(b"%d\n" % size)
        got = 0
        while got < size:
            got += len(await stream.read(min(PIECE, size - got)))
        seconds = time.perf_counter() - began
        far = float(await stream.readline())
        cpu = time.process_time() - cpu + far
        last = connection.meter.payer.sequence if isinstance(connection.meter, ClientMeter) else 0
    return Transfer(seconds, cpu, last - first)


async def streams(size: int, rounds: int) -> dict[str, list[Transfer]]:
    """Unmetered and metered transfers in turns."""
    with tempfile.TemporaryDirectory(prefix="bench-pay-") as name:
        folder = Path(name)
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.pay", "--serve", name), stdout=asyncio.subprocess.PIPE
        )
        assert child.stdout is not None
        address = Address.parse((await child.stdout.readline()).decode().strip())
        found: dict[str, list[Transfer]] = {"plain": [], **{name: [] for name in _METERED}}
        with Store(folder / "client.sqlite", power_safe=False) as store:
            store.keep_key(KEY, 1)
            store.add_bought(Bought(CHANNEL, "c", "0xa", 1, "0xb", "open", 1), 0, KEY.public)
            journal = Journal(store)
            for number in range(rounds + 1):
                for service, results in found.items():
                    result = await transfer(address, service, size, journal)
                    if number:  # the first warms up
                        results.append(result)
            await (await _open(address, "end", journal)).close()
            await journal.close()
        await child.wait()
    return found


# ------------------------------------------------------------------------------------------------------ vouchers


def vouchers(count: int) -> dict[str, float]:
    """Vouchers a second on one core: signed, put into a frame, taken out, and checked."""
    began = time.process_time()
    frames = []
    for n in range(1, count + 1):
        frames.append(build(said(KEY.sign(Voucher(CHANNEL, 0, n, 2 * n, 0, n * MIB)), 0)))
    signed = time.process_time()
    for frame in frames:
        message: Any = parse(frame, from_client=True)
        voucher = Voucher(CHANNEL, 0, message.sequence, message.amount, message.requests, message.bytes)
        assert SignedVoucher(voucher, message.signature).is_by(KEY.public)
    checked = time.process_time()
    return {
        "signed": count / (signed - began),
        "checked": count / (checked - signed),
        "both": count / (checked - began),
    }


# ----------------------------------------------------------------------------------------------------------- gas


def gas() -> dict[str, int]:
    """MIST that each transaction of a channel's life costs on localnet, storage given back counted."""
    from dtp.chain import KeySigner
    from dtp.localnet.grpc.localnet import LocalnetThread

    server, client = KeySigner.generate(), KeySigner.generate()
    with LocalnetThread() as localnet:
        for each in (server, client):
            localnet.fund(each.address, 100_000_000_000, 4)
        return asyncio.run(_gas(localnet, server, client))


async def _gas(localnet: LocalnetThread, server: KeySigner, client: KeySigner) -> dict[str, int]:
    from dtp.chain import ChainClient, Program, find_network, publish
    from dtp.chain import channel as module
    from dtp.chain.host import Terms
    from dtp.pay import settling
    from dtp.pay.hosting import Heart, ensure_service, make_host

    costs: dict[str, int] = {}
    network = find_network(localnet.url)
    async with ChainClient(network, server, deployments=None) as chain:
        await publish(chain, "transport")
        terms = Terms(price_request=1000, price_mib=2_000_000, claim_ms=60_000)
        owned = await ensure_service(chain, await make_host(chain, 86_400_000), "x", terms)
        ((number, service),) = owned.host.services.items()
        heart = Heart(chain, owned, server.public_key, "tcp://127.0.0.1:1")
        await heart.start()
        await heart.stop()
        async with ChainClient(network, client, deployments=chain.deployments) as buyer:

            async def opened() -> module.Channel:
                id, executed = await settling.open_channel(
                    buyer, owned.host, number, service.terms.revision, 10**9, KEY.public
                )
                costs["open a channel"] = executed.gas.net
                return await buyer.read(module.SCHEMA, module.Channel, id)

            async def cost(of: ChainClient, *steps: Callable[[Program], None]) -> int:
                program = Program()
                for step in steps:
                    step(program)
                return (await of.execute(program)).gas.net

            def claim(channel: module.Channel, n: int) -> Callable[[Program], None]:
                signed = KEY.sign(Voucher(channel.id, 0, n, 1000 * n, n, 0))
                return lambda program: program.merge(
                    program.gas, [module.claim(program, signed.voucher, signed.signature)]
                )

            first, *channels = [await opened() for _ in range(17)]
            agreement = module.Agreement(first.id, 5000, 2**64 - 1)
            signature = server.sign_statement(module.agreement_bytes(agreement))
            costs["close by agreement, and delete"] = await cost(
                buyer,
                lambda program: module.close_agreed(program, agreement, server.public_key, signature),
                lambda program: module.destroy(program, first.id),
            )
            one = channels[0]
            costs["claim one channel"] = await cost(chain, claim(one, 1))
            costs["claim it again"] = await cost(chain, claim(one, 2))
            all_of_them = await cost(chain, *(claim(each, 3) for each in channels))
            costs["claim 16 channels at once, each"] = all_of_them // len(channels)
            costs["top up"] = (await settling.add_money(buyer, one, 1000)).gas.net
            costs["ask for the close"] = (await settling.request_close(buyer, one)).gas.net
            localnet.advance_clock(60_000)
            costs["finalize"] = await cost(buyer, lambda program: module.finalize(program, one.id))
            costs["delete"] = await cost(buyer, lambda program: module.destroy(program, one.id))
    return costs


# -------------------------------------------------------------------------------------------------------- report


def report(
    found: dict[str, list[Transfer]], size: int, speed: dict[str, float], costs: dict[str, int]
) -> str:
    """Markdown."""
    plain = found["plain"]
    ratios = []
    for name in _METERED:
        pairs = list(zip(plain, found[name], strict=True))
        seconds, cpu = (
            statistics.median(getattr(a, what) / getattr(b, what) for a, b in pairs)
            for what in ("seconds", "cpu")
        )
        ratios.append(f"{name} / unmetered: {seconds:.3f} by time, {cpu:.3f} by CPU")
    rows = [
        f"| {name} | {size / MIB / statistics.median(t.seconds for t in each):,.0f} MiB/s "
        f"| {statistics.median(t.cpu for t in each) / size * GIB:.2f} "
        f"| {statistics.median(t.vouchers for t in each):,.0f} |"
        for name, each in found.items()
    ]
    life = costs["open a channel"] + costs["close by agreement, and delete"]
    volumes = "\n".join(
        f"| {per} | {life / per / 1e9:.6f} | {(life + 10 * costs['claim it again']) / per / 1e9:.6f} |"
        for per in (1, 10, 100, 1000)
    )
    return "\n".join(
        (
            f"## One stream of {size / MIB:,.0f} MiB, two processes, medians of {len(plain)} in turns\n",
            "| | | CPU s per GiB, both ends | vouchers |\n|---|---|---|---|",
            *rows,
            "",
            *ratios,
            "",
            "## Vouchers on one core, by CPU time\n",
            f"signed {speed['signed']:,.0f}/s, checked {speed['checked']:,.0f}/s, both {speed['both']:,.0f}/s\n",
            "## Gas on localnet (MIST, storage given back counted)\n",
            "| transaction | |\n|---|---|",
            *(f"| {name} | {amount:,} |" for name, amount in costs.items()),
            "\nSUI of gas for each GiB, or each million requests, of which a channel carries so many:\n",
            "| GiB, or million requests, in a channel | closed by agreement | and claimed ten times |\n|---|---|---|",
            volumes,
        )
    )


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m bench.pay", description=__doc__)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, default=512, help="MiB of a transfer (default 512)")
    parser.add_argument("--rounds", type=int, default=5, help="transfers of each kind (default 5)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of Markdown")
    options = parser.parse_args()
    if options.serve is not None:
        asyncio.run(serve(options.serve))
        return
    size = options.size * MIB
    found = asyncio.run(streams(size, options.rounds))
    speed, costs = vouchers(20_000), gas()
    if options.json:
        plain = {name: [vars(each) for each in results] for name, results in found.items()}
        print(json.dumps({"streams": plain, "vouchers": speed, "gas": costs}))
    else:
        print(report(found, size, speed, costs))


if __name__ == "__main__":
    main()
