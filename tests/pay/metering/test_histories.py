"""Random histories of use, loss, crashes and ends: honest meters lose no more than was agreed, whatever happens."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dtp.pay.client import payer_events
from dtp.pay.errors import CountsDisputed, MalformedMeter
from dtp.pay.server import payee
from dtp.pay.terms import MIB, Exposure, Prices, Spending, Usage

from ..meters import StoredMeters
from .test_broken_charges import ask

EXPOSURE = Exposure(MIB, 4 * MIB, 8, 32)


class Histories(RuleBasedStateMachine):
    """One lane over its whole life. `crashes` of the server are what it may forget."""

    @initialize(
        request=st.sampled_from([0, 1000]), mib=st.sampled_from([0, 999_983, 2_000_000]), count=st.booleans()
    )
    def begin(self, request: Any, mib: Any, count: Any) -> None:
        deposit = 10**9 if request or mib else 0
        self.meters = StoredMeters(Prices(request, mib), deposit, EXPOSURE, count_streams=count)
        self.server_crashes = 0
        self.charged = 0
        self.heard: list[Any] = []  # frames that went to the server once
        self.meters.connect()
        self.watch()

    def watch(self) -> None:
        """Note every frame that goes to the server, to send it again later."""
        genuine = self.meters.give_server

        def noted(frame: Any) -> None:
            self.heard.append(frame)
            genuine(frame)

        if self.meters.give_server.__name__ != "noted":
            self.meters.give_server = noted

    def teardown(self) -> None:
        if hasattr(self, "meters"):
            self.meters.close()

    def connected(self) -> Any:
        return self.meters.payer is not None

    # ---- use

    @precondition(connected)
    @rule(count=st.integers(1, 3))
    def request(self, count: Any) -> None:
        self.meters.request(count)

    @precondition(connected)
    @rule(size=st.sampled_from([1, 1000, 65_536, 300_000, MIB, 5 * MIB]))
    def serve(self, size: Any) -> None:
        sent = self.meters.serve(size)
        assert sent <= size

    @precondition(connected)
    @rule(size=st.sampled_from([None, 1, 10_000, 500_000]))
    def arrive(self, size: Any) -> None:
        self.meters.arrive(size)

    @precondition(connected)
    @rule(lose=st.booleans())
    def talk(self, lose: Any) -> None:
        self.meters.pump(lose=lose)

    @precondition(connected)
    @rule(seconds=st.sampled_from([0.5, 1.0, 6.0]))
    def wait(self, seconds: Any) -> None:
        self.meters.pass_time(seconds)

    @precondition(lambda self: self.connected() and self.meters.payee.may_charge(locked=True))
    @rule(units=st.integers(1, 4), locked=st.booleans())
    def charge(self, units: Any, locked: Any) -> None:
        before = len(self.meters.told_of(payee.ChargePaid))
        self.meters.charge(units, bytes([units]) * 32 if locked else None)
        if len(self.meters.told_of(payee.ChargePaid)) > before:
            self.charged += units

    # ---- what goes wrong

    @precondition(lambda self: self.connected() and self.meters.payee.may_charge(locked=True))
    @rule(units=st.integers(1, 4), locked=st.booleans(), lost=st.sampled_from(["question", "voucher"]))
    def charge_of_which_a_step_is_lost(self, units: Any, locked: Any, lost: Any) -> None:
        self.charged += units  # it may be paid later, when it is said again
        ask(self.meters, units, lost=lost, locked=locked)

    @precondition(lambda self: self.connected() and self.heard)
    @rule(data=st.data())
    def replay(self, data: Any) -> None:
        """Any frame that the server ever heard, once more: nothing changes for the worse."""
        frame = data.draw(st.sampled_from(self.heard))
        paid = self.meters.paid
        try:
            self.meters.give_server(frame)
        except MalformedMeter:
            raise AssertionError("what was well-formed once is so again") from None
        self.meters.pump()
        assert self.meters.paid >= paid
        self.meters.refused.clear()  # charges of an earlier connection have no number here

    @precondition(connected)
    @rule()
    def lose(self) -> None:
        self.meters.lose()

    @precondition(connected)
    @rule()
    def crash_client(self) -> None:
        self.meters.crash_client()

    @precondition(connected)
    @rule()
    def crash_server(self) -> None:
        self.meters.crash_server()
        self.server_crashes += 1

    @precondition(connected)
    @rule()
    def end(self) -> None:
        charged, left = self.meters.payee.pending, self.meters.payer.left
        exact = self.meters.end()
        if exact and not charged:
            # Ended in order: paid to the last byte and request that came, and the server counts no more.
            # but for what was under way in breaks, and is left to it.
            assert not any(self.meters.server_disk.used.above(self.meters.client_disk.used.plus(*left)))
            assert self.meters.client_disk.newest is None or self.meters.paid == self.meters.prices.cost_of(
                self.meters.client_disk.used
            )

    @precondition(lambda self: not self.connected())
    @rule()
    def reconnect(self) -> None:
        self.meters.told.clear()
        try:
            self.meters.connect()
        except CountsDisputed as disputed:  # of many breaks, which the client is asked about and pays for
            self.meters.spending = Spending(slack_amount=disputed.amount)
            self.meters.connect()

    # ---- what always holds

    @invariant()
    def nothing_is_served_beyond_the_exposure(self) -> None:
        if not hasattr(self, "meters"):
            return
        meters = self.meters
        if meters.payee is not None:
            assert meters.payee.unpaid.bytes <= meters.payee.limit.bytes
            assert meters.payee.serving == (meters.payee.unpaid.requests <= meters.payee.limit.requests)
        newest = meters.server_disk.newest
        paid = Usage(newest.voucher.requests, newest.voucher.bytes) if newest else Usage()
        unpaid = meters.served.above(paid)
        assert unpaid.bytes <= EXPOSURE.most_bytes * (1 + self.server_crashes)

    @invariant()
    def nothing_is_paid_beyond_use(self) -> None:
        if not hasattr(self, "meters"):
            return
        meters = self.meters
        for newest in (
            meters.payer.newest if meters.payer else meters.client_disk.newest,
            meters.server_disk.newest,
        ):
            if newest is not None:
                self.check_paid(newest.voucher)

    def check_paid(self, voucher: Any) -> None:
        meters = self.meters
        # An honest server tells of no more than it sent, so not even after a crash is more said.
        assert voucher.bytes <= meters.served.bytes
        streams = meters.served.requests if meters.count_streams else 0
        pending = meters.payee.pending if meters.payee is not None else 0
        assert voucher.requests <= streams + self.charged + pending + self.slack()
        assert (
            voucher.amount == meters.prices.cost_of(Usage(voucher.requests, voucher.bytes)) <= meters.deposit
        )

    def slack(self) -> Any:
        """Units of charges that were agreed to and whose answer was lost with a connection."""
        return (
            4 * (1 + len(self.meters.told_of(payer_events.Adopted)) + self.server_crashes)
            if self.charged
            else 4
        )

    @invariant()
    def what_the_server_has_was_reserved_on_the_clients_disk(self) -> None:
        """That no sequence ever meant two things is checked where one is sent."""
        if not hasattr(self, "meters"):
            return
        disk, theirs = self.meters.client_disk, self.meters.server_disk.newest
        if theirs is not None:
            assert self.meters.said[theirs.voucher.sequence].signature == theirs.signature
            newest = disk.newest.voucher.sequence if disk.newest else 0
            assert theirs.voucher.sequence <= max(newest, disk.reserved.sequence)
            assert theirs.voucher.amount <= disk.most_signed

    @invariant()
    def honest_vouchers_are_never_refused(self) -> None:
        if hasattr(self, "meters"):
            assert self.meters.refused == []


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)


@pytest.mark.long
class TestLongHistories(Histories.TestCase):  # type: ignore[valid-type]
    settings = settings(max_examples=2000, stateful_step_count=150, deadline=None)
