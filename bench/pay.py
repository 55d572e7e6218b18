"""What paying costs - a metered stream beside an unmetered one, vouchers, and gas: `python -m bench --only pay`.

Two processes over loopback, the same bytes with and without a meter in turns; vouchers as they fall due, reserved and
stored on both sides' disks as they are for users. Vouchers are signed and checked on one core. Gas is what localnet
charges for the transactions of a channel's life; computation is bucketed there as on a real network, at its price.
"""

from __future__ import annotations

import asyncio
import functools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.contenders import Contender
from bench.job import Job, Ready, Result
from dtp.identity import Identity
from dtp.net.address import Address
from dtp.net.connection import Connection
from dtp.net.dial import Dialer, suites
from dtp.net.listener import listen
from dtp.pay.client.client_meter import ClientMeter
from dtp.pay.client.payer import Payer
from dtp.pay.messages import VOUCHER_HEAD, VoucherSaid, build, parse
from dtp.pay.metered import Metered
from dtp.pay.server.payee import Payee
from dtp.pay.server.server_meter import ChannelAccount, ServerMeter
from dtp.pay.server.stored_vouchers import PayeeLane
from dtp.pay.store import Bought, Store
from dtp.pay.store.journal import Journal
from dtp.pay.terms import MIB, NO_CARRIAGE, Prices, Spending, Usage
from dtp.pay.voucher import LaneKey, SignedVoucher, Voucher
from dtp.session.handshake import HandshakeConfig
from dtp.session.limits import DEFAULT

if TYPE_CHECKING:
    from dtp.chain import KeySigner
    from dtp.localnet.grpc.localnet import LocalnetThread

CHANNEL = "0x" + "c1" * 32
KEY = LaneKey(bytes(range(32)))
PRICES = Prices(1000, 2_000_000)
FUNDS = 2**62
#: The services that are metered, and when their clients sign.
SPENDING = {"voucher per MiB": Spending(voucher_bytes=MIB), "default": Spending()}
PIECE = 1024 * 1024
#: Bytes that come before the measured ones: what a lane has paid for has to earn it its whole exposure.
WARM = 192 * MIB
#: The transactions whose gas is measured, and how many GiB, or million requests, a channel may carry.
TRANSACTIONS = (
    "open a channel",
    "close by agreement, and delete",
    "claim one channel",
    "claim it again",
    "claim 16 channels at once, each",
    "top up",
    "ask for the close",
    "finalize",
    "delete",
    "a day of presence",
)
VOLUMES = (1, 10, 100, 1000)
CONTENDERS = tuple(
    Contender(name, label, "bench.pay", name, frozenset({"pay"}))
    for name, label in (
        ("unmetered", "not metered"),
        ("voucher per MiB", "metered, a voucher for each MiB"),
        ("default", "metered, with the defaults"),
    )
)


class _OneLane(ChannelAccount):
    """A server's account with a single lane and all the money there is."""

    def keys(self, meter: ServerMeter) -> tuple[bytes, ...]:
        return (KEY.public,)

    def least_end_ms(self, meter: ServerMeter) -> int:
        return 0

    def carrier_prices(self, meter: ServerMeter) -> Prices:
        return NO_CARRIAGE

    def reserve(self, meter: ServerMeter, amount: int) -> bool:
        return True

    def voucher_stored(self, meter: ServerMeter, signed: SignedVoucher) -> None:
        pass

    def add_usage(self, meter: ServerMeter, more: Usage) -> None:
        pass

    def pending_beside(self, meter: ServerMeter) -> int:
        return 0

    async def make_room(self, meter: ServerMeter, requests: int) -> None:
        pass

    def look_again(self, meter: ServerMeter) -> None:
        pass

    def close_asked(self, meter: ServerMeter) -> None:
        pass

    async def on_connection_ended(self, meter: ServerMeter) -> None:
        lane, used = meter.payee.lane, meter.payee.used
        await meter.journal.run(lambda store: store.save_served(lane.channel, lane.lane, used))


# ------------------------------------------------------------------------------------------------- both processes


def serve(job: Job, ready: Ready) -> Result:
    """The far end: sends what is asked for, metered or not by the service's name."""
    with (
        tempfile.TemporaryDirectory(prefix="bench-pay-") as folder,
        Store(Path(folder) / "pay.sqlite") as store,
    ):
        asyncio.run(_serve(store, ready))
    return {}


async def _serve(store: Store, ready: Ready) -> None:
    journal = Journal(store)
    done = asyncio.Event()

    async def handle(connection: Connection) -> None:
        if connection.service in SPENDING:
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
        ready({"address": str(listener.address())})
        await done.wait()
    await journal.close()


def drive(job: Job, where: Result) -> Result:
    """The near end: fetches `job.warm` bytes, so that the lane has paid for its exposure, and `job.size` measured.

    Gives seconds, CPU seconds of both ends, and how many vouchers were sent.
    """
    with (
        tempfile.TemporaryDirectory(prefix="bench-pay-") as folder,
        Store(Path(folder) / "pay.sqlite", power_safe=False) as store,
    ):
        store.keep_key(KEY, 1)
        store.add_bought(Bought(CHANNEL, "c", "0xa", 1, "0xb", "open", 1), 0, KEY.public)
        return asyncio.run(_drive(job, Address.parse(str(where["address"])), store))


async def _drive(job: Job, address: Address, store: Store) -> Result:
    journal = Journal(store)
    connection = await _open(address, job.variant, journal)
    await _fetch(connection, job.warm)
    sent = _count_vouchers(connection)
    result = await _fetch(connection, job.size)
    await connection.close()
    await (await _open(address, "end", journal)).close()
    await journal.close()
    return result | {"vouchers": len(sent)}


async def _open(address: Address, service: str, journal: Journal[Store]) -> Metered:
    dialer = Dialer(
        address, HandshakeConfig(Identity.generate(), suites(), DEFAULT), service, (), None, Metered
    )
    connection = await dialer.connect()
    assert isinstance(connection, Metered)
    if service in SPENDING:
        ((key, lane),) = await journal.run(lambda store: store.payer_lanes(CHANNEL))
        payer = Payer(lane, PRICES, FUNDS, lambda shown: shown.is_by(key.public), SPENDING[service])
        meter = connection.meter = ClientMeter(connection, journal, payer, key)
        meter.begin()
        await meter.wait_welcome()
    return connection


def _count_vouchers(connection: Metered) -> list[bytes]:
    """The voucher frames that the connection sends from now on."""
    sent: list[bytes] = []
    session = connection._session  # also those that go along with something else pass here
    genuine = session.send_meter

    def send(data: bytes) -> None:
        if data.startswith(VOUCHER_HEAD):  # parsing it here would count as the meter's cost
            sent.append(data)
        genuine(data)

    session.send_meter = send  # type: ignore[method-assign]
    return sent


async def _fetch(connection: Metered, size: int) -> Result:
    stream = await connection.open_stream()
    began, cpu = time.perf_counter(), time.process_time()
    stream.write(b"%d\n" % size)
    got = 0
    while got < size:
        got += len(await stream.read(min(PIECE, size - got)))
    seconds = time.perf_counter() - began
    far = float(await stream.readline())
    return {"seconds": seconds, "cpu": time.process_time() - cpu + far}


# ------------------------------------------------------------------------------------------------------ vouchers


def vouchers(count: int) -> dict[str, float]:
    """Vouchers a second on one core: signed, put into a frame, taken out, and checked."""
    began = time.process_time()
    frames = []
    for n in range(1, count + 1):
        frames.append(build(VoucherSaid.of(KEY.sign(Voucher(CHANNEL, 0, n, 2 * n, 0, n * MIB)), 0)))
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


@functools.cache
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
    from dtp.pay.hosting import HostHeartbeat, ensure_service, make_host

    costs: dict[str, int] = {}
    network = find_network(localnet.url)
    async with ChainClient(network, server, deployments=None) as chain:
        await publish(chain, "transport")
        terms = Terms(price_request=1000, price_mib=2_000_000, claim_ms=60_000)
        owned = await ensure_service(chain, await make_host(chain), "x", terms)
        ((number, service),) = owned.host.services.items()
        place = (owned, server.public_key, b"tcp://127.0.0.1:1")
        heartbeat = HostHeartbeat(chain, *place, clock=lambda: localnet.now_ms() / 1000)
        await heartbeat.start()
        await heartbeat.stop()
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
            agreement = module.CloseAgreement(first.id, 5000, 2**64 - 1)
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
        before = (await chain.balance(chain.address)).total
        for _ in range(24):
            localnet.advance_clock(3_600_000)
            await heartbeat.poll()
        costs["a day of presence"] = before - (await chain.balance(chain.address)).total
    return costs


def volumes(costs: dict[str, int]) -> dict[int, tuple[float, float]]:
    """GiB, or million requests, that a channel carries -> SUI of gas for each: closed by agreement, and claimed ten
    times besides."""
    life = costs["open a channel"] + costs["close by agreement, and delete"]
    return {per: (life / per / 1e9, (life + 10 * costs["claim it again"]) / per / 1e9) for per in VOLUMES}
