"""Two meters face to face, with disks that survive crashes and a wire that loses, repeats and reorders frames.

The bytes of streams are only counted here: `serve` lets the server send what its meter allows, `arrive` lets the
client have it. Nothing moves by itself.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import Any, Self

import pytest

from dtp.pay import messages
from dtp.pay.client import payer_events
from dtp.pay.client.lane_start import PayerLane, Reserved
from dtp.pay.client.payer import Payer
from dtp.pay.errors import VoucherRefused
from dtp.pay.messages import VoucherSaid, build
from dtp.pay.server import payee as server_side
from dtp.pay.server.payee import Payee
from dtp.pay.server.stored_vouchers import PayeeLane
from dtp.pay.store import Bought, Store
from dtp.pay.terms import MIB, Exposure, Prices, Spending, Usage
from dtp.pay.voucher import LaneKey, SignedVoucher, Voucher

CHANNEL = "0x" + "c1" * 32
KEY = LaneKey(bytes(range(32)))
PRICES = Prices(1000, 2_000_000)
#: One MiB ahead of payment, as small steps as the meter allows: tests stay short.
EXPOSURE = Exposure(MIB, 4 * MIB, 8, 32, 30.0)


@dataclass
class Meters:
    """One lane, and whoever is connected on it now."""

    prices: Prices = PRICES
    deposit: int = 1_000_000_000
    exposure: Exposure = EXPOSURE
    spending: Spending = field(default_factory=Spending)
    count_streams: bool = True
    now: float = 1000.0
    channel: str = CHANNEL
    lane: int = 0
    key: LaneKey = KEY
    #: What the server lets the lane's vouchers come to; `deposit` is the client's limit, and both without it.
    affordable: int | None = None

    def __post_init__(self) -> None:
        self.client_disk = PayerLane(self.channel, self.lane)
        self.server_disk = PayeeLane(self.channel, self.lane)
        #: Both ends while they are connected, None else.
        self.payer: Any = None
        self.payee: Any = None
        self.to_client: list[bytes] = []
        self.to_server: list[bytes] = []
        self.told: list[object] = []  # events that nobody here acts on
        self.refused: list[VoucherRefused] = []
        self.arrived = Usage()  # what truly reached the client, over all connections
        self.served = Usage()  # what truly left the server
        self.most_unpaid = Usage()
        self.auto_agree = True
        self.said: dict[
            int, messages.VoucherSaid
        ] = {}  # sequence -> voucher, of all that ever left the client

    # ---- connections

    def connect(self) -> Self:
        self.payer = Payer(
            self.client_disk, self.prices, self.deposit, lambda v: v.is_by(self.key.public), self.spending
        )
        affordable = self.deposit if self.affordable is None else self.affordable
        self.payee = Payee(self.server_disk, self.prices, affordable, self.exposure, self.count_streams)
        self.reserved = Reserved()
        self.opened = self.sent = self.received = 0
        self.under_way = 0
        self.to_client.clear()
        self.to_server.clear()
        # From here on a crash leaves this behind: the connection was not ended in order.
        self.keep_begun()
        self.payee.begin(self.now)
        self.pump()
        return self

    def _end_of_client(self, *, clean: bool) -> None:
        payer = self.payer
        self.keep_ended(payer.owed, payer.newest, clean, payer.lane.reserved, payer.believed)

    def lose(self) -> None:
        """The connection is lost for good; both sides notice and keep their counts."""
        self._end_of_client(clean=False)
        self.server_disk = replace(self.server_disk, used=self.payee.used)
        self.payer = self.payee = None

    def crash_client(self) -> None:
        self.server_disk = replace(self.server_disk, used=self.payee.used)
        self.payer = self.payee = None

    def crash_server(self) -> None:
        self._end_of_client(clean=False)
        self.payer = self.payee = None

    def end(self) -> bool:
        """An orderly end; whether both came to the same."""
        self.payer.finish(self.now)
        self.arrive()
        self.pump()
        finished = [e for e in self.told if isinstance(e, payer_events.Finished)]
        exact = bool(finished) and finished[-1].exact
        self._end_of_client(clean=exact)
        self.server_disk = replace(self.server_disk, used=self.payee.used)
        self.payer = self.payee = None
        return exact

    # ---- the client's disk: what each method of `Store` makes of it

    def keep_begun(self) -> None:
        self.client_disk = replace(self.client_disk, clean=False)

    def keep_reserved(self, more: Reserved) -> None:
        before = self.client_disk.reserved
        most = Reserved(max(before.sequence, more.sequence), max(before.amount, more.amount))
        self.client_disk = replace(self.client_disk, reserved=most)

    def keep_believed(self, believed: Usage) -> None:
        self.client_disk = replace(self.client_disk, believed=believed)

    def keep_adopted(self, voucher: SignedVoucher, used: Usage) -> None:
        # With our count, or the next crash would take back what this voucher pays for.
        self.client_disk = replace(self.client_disk, newest=voucher, used=self.client_disk.used.maximum(used))

    def keep_ended(
        self, used: Usage, newest: SignedVoucher | None, clean: bool, before: Reserved, believed: Usage
    ) -> None:
        signed = Reserved(newest.voucher.sequence, newest.voucher.amount) if newest else Reserved()
        reserved = signed if signed.sequence > before.sequence else before
        kept = self.client_disk.newest  # an older one changes nothing
        if kept is not None and (newest is None or newest.voucher.sequence < kept.voucher.sequence):
            newest = kept
        self.client_disk = replace(
            self.client_disk, newest=newest, used=used, clean=clean, reserved=reserved, believed=believed
        )

    # ---- use

    def request(self, count: int = 1) -> None:
        self.opened += count
        self.arrived = self.arrived.plus(count, 0)
        self.served = self.served.plus(count, 0)
        self._count()

    def serve(self, wanted: int) -> int:
        """The server sends what it may of `wanted` bytes; how much."""
        size = max(0, min(wanted, self.payee.send_limit() - self.sent))
        self.sent += size
        self.under_way += size
        self.served = self.served.plus(0, size)
        self._count_server()
        return size

    def arrive(self, size: int | None = None) -> None:
        size = self.under_way if size is None else min(size, self.under_way)
        self.under_way -= size
        self.received += size
        self.arrived = self.arrived.plus(0, size)
        self.payer.set_counts(self.opened, self.received, self.now)

    def stream(self, total: int, piece: int = 64 * 1024) -> int:
        """Send `total` bytes in pieces, paying on the way; how many went."""
        went = 0
        while went < total:
            size = self.serve(min(piece, total - went))
            self.arrive()
            self.pump()
            went += size
            if not size:
                break
        return went

    def _count_server(self) -> None:
        self.payee.set_counts(self.opened, self.sent, 0, self.now)
        unpaid = self.payee.unpaid
        self.most_unpaid = self.most_unpaid.maximum(unpaid)

    def _count(self) -> None:
        self._count_server()
        self.payer.set_counts(self.opened, self.received, self.now)

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.payer.handle_timer(self.now)
        self.payee.handle_timer(self.now)

    # ---- frames

    def pump(self, *, lose: bool = False) -> None:
        """Do what both meters ask for until neither asks any more; with `lose` all frames are lost."""
        for _ in range(10_000):
            asked = [*self.process_client_events(), *self.process_server_events()]
            if lose:
                self.to_client.clear()
                self.to_server.clear()
            moved = bool(asked) or bool(self.to_client) or bool(self.to_server)
            while self.to_server:
                self.give_server(self.to_server.pop(0))
            while self.to_client:
                self.payer.receive_frame(self.to_client.pop(0), self.now)
            if not moved:
                return
        raise AssertionError("the meters never come to rest")

    def give_server(self, frame: bytes) -> None:
        try:
            self.payee.receive_frame(frame, self.now)
        except VoucherRefused as refused:
            self.refused.append(refused)

    def process_client_events(self) -> list[object]:
        events = self.payer.take_events()
        for event in events:
            match event:
                case messages.SendFrame(frame):
                    self.note(frame)
                    self.to_server.append(frame)
                case payer_events.SignWanted():
                    self.sign(event)
                case payer_events.Adopted(voucher):
                    self.keep_believed(self.payer.believed)
                    self.keep_adopted(voucher, self.payer.used)
                case payer_events.ChargeOffered(number):
                    self.told.append(event)
                    if self.auto_agree:
                        self.payer.answer_charge(number, True, self.now)
                case _:
                    self.told.append(event)
        return events

    def sign(self, wanted: payer_events.SignWanted) -> None:
        """As the driver does: what isn't reserved is reserved on the disk first, and nothing else is written."""
        if self.client_disk.believed != self.payer.believed:
            self.keep_believed(self.payer.believed)
        if not self.reserved.may_sign(wanted.voucher):
            more = self.payer.to_reserve
            self.reserved = Reserved(more.sequence, max(more.amount, wanted.voucher.amount))
            self.keep_reserved(self.reserved)
        ahead = [each for each in wanted.ahead if self.reserved.may_sign(each)]
        signed = [self.key.sign(each) for each in (wanted.voucher, *ahead)]
        self.payer.voucher_signed(signed[0], wanted.charge, self.now, signed[1:])

    def note(self, frame: bytes) -> None:
        """No sequence ever means two things, in what leaves the client."""
        said = messages.parse(frame, from_client=True)
        if isinstance(said, messages.VoucherSaid):
            plain = replace(said, charge=0)
            if said.sequence not in self.said:  # else it is said again
                exposure = min(self.exposure.first_bytes, self.exposure.most_bytes)
                unasked = 0 if exposure else MIB  # at a server that moves nothing unpaid
                assert said.bytes <= self.payer.used.bytes + max(self.spending.ahead_bytes, unasked)
            assert self.said.setdefault(said.sequence, plain) == plain

    def process_server_events(self) -> list[object]:
        events = self.payee.take_events()
        for event in events:
            match event:
                case messages.SendFrame(frame):
                    self.to_client.append(frame)
                case server_side.CheckWanted(voucher, charge):
                    self.store(voucher, charge)
                case _:
                    self.told.append(event)
        return events

    def store(self, signed: SignedVoucher, charge: int) -> None:
        if not signed.is_by(self.key.public):
            self.told.append("forged")
            return
        self.server_disk = replace(
            self.server_disk, newest=signed, used=self.payee.used_with(signed.voucher, charge)
        )
        self.payee.voucher_stored(signed, charge, self.now)

    def charge(self, units: int, preimage: bytes | None = None) -> int:
        if preimage is not None:
            self.server_disk = replace(self.server_disk, preimage=preimage)
        number = self.payee.charge(units, self.now, preimage)
        self.pump()
        return number

    def told_of(self, kind: type) -> list[object]:
        return [event for event in self.told if isinstance(event, kind)]

    @property
    def paid(self) -> int:
        newest = self.server_disk.newest
        return newest.voucher.amount if newest else 0


class StoredMeters(Meters):
    """The same beside a real `Store` of the client: after each write both have to say the same. Close it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.kept = Store(":memory:")
        self.kept.keep_key(self.key, 1)
        bought = Bought(self.channel, "chain", "0x0a", 1, "0x0b", "open", 1)
        self.kept.add_bought(bought, self.lane, self.key.public)

    def close(self) -> None:
        self.kept.close()

    def compare(self) -> None:
        ((_, lane),) = self.kept.payer_lanes(self.channel)
        assert lane == self.client_disk

    def keep_begun(self) -> None:
        super().keep_begun()
        self.kept.begin_lane(self.channel, self.lane)
        self.compare()

    def keep_reserved(self, more: Reserved) -> None:
        super().keep_reserved(more)
        self.kept.reserve(self.channel, self.lane, more)
        self.compare()

    def keep_believed(self, believed: Usage) -> None:
        super().keep_believed(believed)
        self.kept.save_trusted_usage(self.channel, self.lane, believed)
        self.compare()

    def keep_adopted(self, voucher: SignedVoucher, used: Usage) -> None:
        super().keep_adopted(voucher, used)
        self.kept.save_signed(voucher, used)
        self.compare()

    def keep_ended(
        self, used: Usage, newest: SignedVoucher | None, clean: bool, before: Reserved, believed: Usage
    ) -> None:
        super().keep_ended(used, newest, clean, before, believed)
        self.kept.end_lane(
            self.channel, self.lane, used, newest, clean=clean, before=before, believed=believed
        )
        self.compare()


def voucher(sequence: int = 1, requests: int = 0, size: int = 0, **changes: object) -> Voucher:
    """A voucher at the price of `PRICES`, with changes."""
    lock = changes.pop("hash_lock", None)
    amount = changes.pop("amount", PRICES.cost_of(Usage(requests, size)))
    channel = changes.pop("channel", CHANNEL)
    end = changes.pop("not_after_ms", 2**64 - 1)
    lane = changes.pop("lane", 0)
    assert not changes
    return Voucher(channel, lane, sequence, amount, requests, size, lock, end)


def lock_of(preimage: bytes) -> bytes:
    return hashlib.sha256(preimage).digest()


SECRET = b"s" * 32


def flaw_of(meters: Any, signed: Any, charge: int = 0) -> Any:
    with pytest.raises(VoucherRefused) as refused:
        meters.payee.receive_frame(build(VoucherSaid.of(signed, charge)), meters.now)
    return refused.value.flaw
