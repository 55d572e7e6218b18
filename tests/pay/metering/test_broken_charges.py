"""Charges of which a step is lost with the connection, or with a side: the lane goes on, and what is due is due."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dtp.pay.terms import MIB, Usage

from ..meters import PRICES, Meters

PREIMAGE = bytes(range(32))


def ask(meters: Any, units: Any, *, lost: Any, locked: bool = True) -> None:
    """A charge of which everything is lost from a step on."""
    if locked:
        meters.server_disk = replace(meters.server_disk, preimage=PREIMAGE)
    meters.payee.charge(units, meters.now, PREIMAGE if locked else None)
    meters.process_server_events()
    if lost == "question":
        meters.to_client.clear()
    while meters.to_client:
        meters.payer.receive_frame(meters.to_client.pop(0), meters.now)
    if lost == "signature":  # agreed to, and the numbers for a voucher aren't reserved yet
        meters.sign = lambda wanted: None
    while meters.process_client_events():
        pass
    meters.__dict__.pop("sign", None)
    meters.to_server.clear()


@pytest.mark.parametrize("who", ["lose", "crash_client", "crash_server"])
@pytest.mark.parametrize("lost", ["question", "signature", "voucher"])
@pytest.mark.parametrize("before", [0, MIB])
def test_a_locked_charge_that_is_lost_ends_no_lane(lost: Any, who: Any, before: Any) -> None:
    meters = Meters().connect()
    meters.request()
    meters.stream(before)
    ask(meters, 7, lost=lost)
    getattr(meters, who)()
    for _ in range(2):
        meters.connect()
        meters.request()
        meters.stream(MIB)
        meters.pass_time(6.0)
        meters.pump()
        assert meters.refused == []
        assert not any(meters.payee.unpaid)
        assert meters.payee.newest.voucher.hash_lock is None
        if who == "lose":  # nobody forgot anything: what was never given is never paid
            assert meters.paid == PRICES.cost_of(meters.served)
        meters.lose()
    # ... and the next one is sold as if nothing had been.
    meters.connect()
    meters.charge(3, bytes(32))
    meters.pump()
    assert meters.payee.pending == 0
    assert meters.payee.newest.voucher.hash_lock is None
    assert meters.refused == []


def test_what_was_agreed_to_and_never_signed_is_not_owed() -> None:
    meters = Meters().connect()
    meters.request(2)
    meters.pass_time(6.0)
    meters.pump()
    ask(meters, 50, lost="signature", locked=False)
    meters.lose()
    meters.connect()
    assert meters.end()
    assert meters.paid == PRICES.cost_of(Usage(2, 0))


def test_a_server_that_shows_a_foreign_voucher_instead_of_a_locked_one_is_left() -> None:
    from dtp.pay.errors import CountsDisputed
    from dtp.pay.voucher import LaneKey

    from ..meters import voucher

    meters = Meters().connect()
    meters.request(2)
    meters.pass_time(6.0)
    meters.pump()
    ask(meters, 5, lost="voucher")
    meters.lose()
    genuine = meters.server_disk.newest.voucher
    other = LaneKey(bytes(32)).sign(voucher(genuine.sequence, genuine.requests + 100))
    meters.server_disk = type(meters.server_disk)(meters.channel, 0, other, Usage(200, 0))
    with pytest.raises(CountsDisputed):
        meters.connect()


def test_a_large_charge_counts_after_a_restart() -> None:
    """Where counts are evidence a client may not be far ahead: what it has paid for isn't ahead."""
    meters = Meters().connect()
    meters.request()
    meters.charge(500)
    meters.crash_server()
    meters.connect()
    meters.payee.most_ahead = Usage(64, 8 * MIB)
    meters.request(20)
    meters.pass_time(6.0)
    meters.pump()
    assert meters.refused == []
    assert meters.paid == PRICES.cost_of(Usage(521, 0))
