"""The life of a paid connection on chain, step by step, for tests: host, service, heartbeat, channel, claims."""

from __future__ import annotations

from dataclasses import dataclass

from node_world import COIN, FOREVER, Tx, Wallet, World, created

from dtp.localnet.model import Executed
from dtp.sui.transaction import NestedResult

ENDPOINT = bytes([9]) * 32
DEPOSIT = 1_000_000


def voucher_bytes(channel: bytes, sequence: int, amount: int, requests: int, size: int) -> bytes:
    """BCS of `transport::channel::Voucher` on lane 0, without hash lock, valid for ever."""
    domain = b"dtp.voucher.v1"
    numbers = b"".join(n.to_bytes(8, "little") for n in (sequence, amount, requests, size))
    return bytes([len(domain)]) + domain + channel + b"\0" + numbers + b"\0" + FOREVER.to_bytes(8, "little")


@dataclass
class Transport:
    """A published `transport`, one host with one service, one server, one client."""

    world: World
    server: Wallet
    client: Wallet
    package: bytes
    host: bytes = b""
    beacon: bytes = b""
    cap: bytes = b""
    operator: bytes = b""

    @classmethod
    def begin(cls, world: World) -> Transport:
        """Publish, make the host, add and open a service, enroll an endpoint, send a heartbeat."""
        server = world.wallet("server", 20_000_000_000, 5_000_000_000)
        client = world.wallet("client", 20_000_000_000, 5_000_000_000)
        self = cls(world, server, client, world.publish_shipped(server, "transport"))
        self.create_host()
        self.heartbeat()
        return self

    def create_host(self) -> None:
        """Host, service 1 at 10 MIST a request, operator."""
        tx = self.world.tx()
        package = self.package
        made = tx.call(package, "host::new", tx.u64(60_000))
        host, beacon, cap = (NestedResult(made.command, at) for at in range(3))
        terms = tx.call(
            package,
            "host::new_terms",
            *(tx.u64(n) for n in (10, 3, 1000, FOREVER)),
            tx.u8(0),
            *(tx.u64(n) for n in (0, 7_200_000, 3_600_000)),
            types=(COIN,),
        )
        rate = tx.call(package, "host::new_rate_limit", *(tx.u64(n) for n in (0, 0, 0, 0)))
        tx.call(
            package,
            "host::add_service",
            host,
            cap,
            tx.u16(1),
            tx.u8(0),
            tx.u8(0),
            terms,
            rate,
            tx.u64(1 << 20),
            tx.u64(0),
            tx.bytes(b""),
        )
        tx.call(package, "host::set_open", host, cap, tx.u16(1), tx.bool(True))
        operator = tx.call(package, "host::new_operator", host, cap, tx.u8(3))
        tx.call(
            package,
            "host::enroll",
            beacon,
            operator,
            tx.bytes(ENDPOINT),
            tx.u16(1),
            tx.u8(0),
            tx.u64(1),
            tx.bytes(b""),
        )
        tx.call(package, "host::share", host, beacon)
        tx.send(self.server.address, cap, operator)
        done = self.world.ok(tx, self.server)
        self.host, self.beacon = created(done, "::host::Host"), created(done, "::host::Beacon")
        self.cap, self.operator = created(done, "::host::HostCap"), created(done, "::host::OpCap")

    def heartbeat(self) -> Executed:
        """The endpoint says it lives."""
        tx = self.world.tx()
        tx.call(
            self.package,
            "host::heartbeat",
            tx.object(self.beacon),
            tx.object(self.operator),
            tx.bytes(ENDPOINT),
            tx.u64(1),
            tx.u16(0),
            tx.clock(),
        )
        return self.world.ok(tx, self.server)

    def open(self, deposit: int = DEPOSIT) -> bytes:
        """A channel whose lane key is the client's."""
        tx = self.world.tx()
        coin = tx.pay(deposit)
        channel = tx.call(
            self.package,
            "channel::open",
            tx.read(self.host),
            tx.read(self.beacon),
            tx.u16(1),
            tx.u64(1),
            coin,
            tx.bytes(self.client.public),
            tx.clock(),
            types=(COIN,),
        )
        tx.call(self.package, "channel::share", channel, types=(COIN,))
        return created(self.world.ok(tx, self.client), "::channel::Channel")

    def claim_tx(
        self, channel: bytes, sequence: int, amount: int, requests: int, signer: Wallet | None = None
    ) -> Tx:
        """A claim with a voucher signed by the client (or another)."""
        tx = self.world.tx()
        message = voucher_bytes(channel, sequence, amount, requests, 0)
        voucher = tx.call(
            self.package,
            "channel::new_voucher",
            tx.address(channel),
            tx.u8(0),
            *(tx.u64(n) for n in (sequence, amount, requests, 0)),
            tx.maybe_bytes(None),
            tx.u64(FOREVER),
        )
        coin = tx.call(
            self.package,
            "channel::claim",
            tx.object(channel),
            voucher,
            tx.bytes((signer or self.client).key.sign(message)),
            tx.bytes(b""),
            tx.clock(),
            types=(COIN,),
        )
        tx.send(self.server.address, coin)
        return tx

    def request_close(self, channel: bytes) -> Executed:
        """The client asks to close."""
        tx = self.world.tx()
        tx.call(self.package, "channel::request_close", tx.object(channel), tx.clock(), types=(COIN,))
        return self.world.ok(tx, self.client)

    def finalize(self, channel: bytes) -> Tx:
        """Anyone pays both sides out."""
        tx = self.world.tx()
        tx.call(self.package, "channel::finalize", tx.object(channel), tx.clock(), types=(COIN,))
        return tx

    def destroy(self, channel: bytes) -> Tx:
        """The client deletes the closed channel."""
        tx = self.world.tx()
        tx.call(self.package, "channel::destroy", tx.object(channel), types=(COIN,))
        return tx
