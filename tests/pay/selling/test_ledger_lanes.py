"""What a server knows of several lanes of one channel, what it does with a look at the chain, and how it agrees."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dtp.chain.channel import ChannelState, Lane
from dtp.chain.errors import NodeUnavailable
from dtp.chain.firewall import FirewallRefusal, refuse
from dtp.chain.host import Bearer
from dtp.pay import messages
from dtp.pay.costs import carriage
from dtp.pay.errors import StoreError
from dtp.pay.messages import VoucherSaid, build
from dtp.pay.server.ledger import _MOST_AHEAD
from dtp.pay.server.stored_vouchers import Floor
from dtp.pay.terms import MIB, NO_CARRIAGE, Usage
from dtp.pay.ticket import MAX_LANES
from dtp.session.codes import Refuse

from ..meters import CHANNEL, KEY, PRICES, voucher
from .test_claims import NOW
from .test_ledger import EXPOSURE, NEW_KEY, PIPES, agreed_by, ask_close, pay, play, rules

GONE = "0x" + "9" * 64


def broken(*_: Any) -> None:
    raise StoreError("the disk is full")


# ---- lanes beside each other


def test_what_one_lane_has_vouched_is_not_there_for_another(tmp_path: Path) -> None:
    async def scenario(served: Any) -> None:
        served.with_lanes(2, deposited=10_000, balance=10_000)
        first, second = await served.enter(0), await served.enter(1)
        assert second.payee.deposit.affordable == 10_000
        await pay(first, KEY.sign(voucher(1, 4)))
        assert second.payee.deposit.affordable == 6000
        await pay(second, NEW_KEY.sign(voucher(1, 7, lane=1)))
        assert second.connection.aborted.endswith("together are above the deposit")
        await second.wait_settled()
        assert (
            await served.enter(1)
        ).payee.deposit.affordable == 6000  # whatever it was when its ticket was checked

    play(tmp_path, scenario)


def test_two_lanes_that_sign_up_to_the_deposit_at_once_are_paid_no_more_than_it(tmp_path: Path) -> None:
    """Neither had a voucher when the other was served; what both were, is within the exposure of each."""

    async def scenario(served: Any) -> None:
        served.with_lanes(2, deposited=10_000, balance=10_000)
        first, second = await served.enter(0), await served.enter(1)
        for meter, key, lane in ((first, KEY, 0), (second, NEW_KEY, 1)):
            meter.connection.move(EXPOSURE.first_requests, 0, 0)
            meter.connection.on_meter(build(VoucherSaid.of(key.sign(voucher(1, 10, lane=lane)), 0)))
        await first.wait_settled()
        await second.wait_settled()
        assert sum(served.store.vouched_sums(CHANNEL).values()) == 10_000
        assert second.connection.aborted.endswith("together are above the deposit")
        assert not second.payee.used.above(EXPOSURE.after_payment(Usage())).requests

    play(tmp_path, scenario)


def test_all_lanes_of_a_channel_owe_no_more_at_first_than_one_exposure(tmp_path: Path) -> None:
    """Lanes cost a client next to nothing: 16 of them had 16 times as much without paying."""

    async def scenario(served: Any) -> None:
        served.with_lanes(MAX_LANES)
        most = EXPOSURE.first_amount
        shares = [(await served.enter(lane)).payee.exposure.first_amount for lane in range(MAX_LANES)]
        assert shares == [most * 3 // 4, *[most // 64] * 15]
        assert sum(shares) <= most
        # ... or than it has paid.
        await pay(served.meters[1], NEW_KEY.sign(voucher(1, 48_000, lane=1)))
        await served.meters[2].wait_settled()
        again = [(await served.enter(lane)).payee.exposure.first_amount for lane in (0, 1, 2)]
        assert again == [most * 3 // 4, 750_000, 750_000]
        await pay(served.meters[-2], NEW_KEY.sign(voucher(2, 480_000, lane=1)))
        assert (await served.enter(3)).payee.exposure.first_amount == most

    play(tmp_path, scenario)


@pytest.mark.parametrize("carrier", [PIPES, "tcp:"])
def test_transport_is_a_part_of_what_is_unpaid_at_first(tmp_path: Path, carrier: Any) -> None:
    """A MiB through the chain costs the server its frames, and who never pays gets the deposit back. What begins over
    TCP may go on over pipes."""

    async def scenario(served: Any) -> None:
        terms = replace(served.channel.terms, bearer=Bearer.CLIENT, credit=400_000)
        served.channel = replace(served.channel, terms=terms)
        meter = await served.ledger.open_meter(*served.admitted(carrier=carrier), EXPOSURE, True)
        limit = meter.payee.limit
        share, dear = 2_250_000, PRICES.mib + 64 * 400_000
        requests = min(EXPOSURE.first_requests, share // 2 // PRICES.request)
        assert limit == Usage(requests, (share - requests * PRICES.request) * MIB // dear)
        meter.begin()
        (told,) = (messages.parse(each, from_client=False) for each in meter.connection.sent)
        assert (told.first_requests, told.first_bytes) == limit

    play(tmp_path, scenario)


def test_a_lane_begins_at_what_the_chain_has_accepted_of_it(tmp_path: Path) -> None:
    async def scenario(served: Any) -> None:
        claimed = Lane(KEY.public, b"", 0, 5, 3000, 3, 0)
        served.channel = replace(served.channel, lanes=(claimed,))
        meter = await served.enter()
        assert meter.payee.vouchers.floor == Floor(5, 3000, 3, 0)
        assert meter.payee.vouchers.paid == meter.payee.used == Usage(3, 0)

    play(tmp_path, scenario)


@pytest.mark.parametrize("bearer", Bearer)
def test_what_the_terms_say_of_transport_holds_from_the_beginning(tmp_path: Path, bearer: Any) -> None:
    """Before anything is paid: counts are evidence where the server bears it, money is kept where the client does."""

    async def scenario(served: Any) -> None:
        terms = replace(served.channel.terms, bearer=bearer, credit=100)
        served.channel = replace(served.channel, terms=terms)
        meter = await served.ledger.open_meter(*served.admitted(carrier=PIPES), EXPOSURE, True)
        meter.begin()
        assert meter.payee.most_ahead == (_MOST_AHEAD if bearer is Bearer.SERVER else None)
        assert meter.payee.deposit.carriage == (carriage(terms) if bearer is Bearer.CLIENT else NO_CARRIAGE)

    play(tmp_path, scenario)


@pytest.mark.parametrize("ours", [True, False])
def test_a_client_is_told_whether_closes_are_agreed(tmp_path: Path, ours: Any) -> None:
    async def scenario(served: Any) -> None:
        if not ours:
            served.channel = replace(served.channel, server="0x5")
        meter = await served.enter()
        welcome = messages.parse(meter.connection.sent[0], from_client=False)
        assert welcome.agrees is ours

    play(tmp_path, scenario)


def test_a_lane_whose_counts_could_not_be_written_is_served_when_they_are(tmp_path: Path) -> None:
    """On a full disk a client that never pays would else have the exposure again with each connection."""

    async def scenario(served: Any) -> None:
        meter = await served.enter()
        meter.connection.move(3, MIB, 0)
        with served.store.failing("save_served"):
            meter.connection.abort(0, "")
            await meter.wait_settled()
            with pytest.raises(Refuse):
                await served.enter()
        again = await served.enter()
        assert again.payee.unpaid == Usage(3, MIB)
        again.connection.abort(0, "")
        await again.wait_settled()
        with served.store.failing("save_served"):  # it is written, so nothing else has to be
            assert await served.enter() is not None

    play(tmp_path, scenario)


def test_what_can_not_be_written_meanwhile_is_kept_as_well(tmp_path: Path) -> None:
    async def scenario(served: Any) -> None:
        genuine = served.journal.run

        async def run(work: Any) -> Any:
            done = await genuine(work)
            served.ledger._unwritten[CHANNEL, 0] = Usage(9, 0)  # of one that came and went
            return done

        served.journal.run = run
        await served.enter()
        assert served.ledger._unwritten == {(CHANNEL, 0): Usage(9, 0)}

    play(tmp_path, scenario)


# ---- what is looked at again


def test_what_was_claimed_and_added_meanwhile_counts_at_once(tmp_path: Path) -> None:
    async def scenario(served: Any) -> None:
        served.channel = replace(served.channel, deposited=3000, balance=3000)
        meter = await served.enter()
        meter.connection.move(1, 1024, 0)
        before = meter.connection.most
        assert before < MIB
        claimed = Lane(KEY.public, b"", 0, 7, 1000, 1, 0)
        served.channel = replace(
            served.channel, lanes=(claimed,), deposited=10**9, balance=10**9 - 1000, claimed=1000
        )
        await served.ledger.refresh(CHANNEL)
        assert meter.payee.vouchers.floor == Floor(7, 1000, 1, 0)
        assert meter.payee.deposit.affordable == 10**9
        assert meter.connection.most == MIB  # told to the connection, which nothing else may wake

    play(tmp_path, scenario)


@pytest.mark.parametrize("less", ["deposited", "claimed"])
def test_a_node_is_behind_where_what_only_rises_is_less(tmp_path: Path, less: Any) -> None:
    async def scenario(served: Any) -> None:
        served.channel = replace(served.channel, claimed=500, balance=served.channel.balance - 500)
        meter = await served.enter()
        before = meter.payee.deposit.affordable
        rest = served.channel.balance + {"deposited": -1, "claimed": 1}[less]
        behind = replace(served.channel, balance=rest, **{less: getattr(served.channel, less) - 1})
        claimed = Lane(KEY.public, b"", 0, 7, 1000, 1, 0)
        served.channel = replace(behind, lanes=(claimed,))
        await served.ledger.refresh(CHANNEL)
        assert (meter.payee.vouchers.floor, meter.payee.deposit.affordable) == (Floor(), before)

    play(tmp_path, scenario)


async def turns(count: int = 8) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def test_a_client_has_its_channel_looked_at_once_in_a_while(tmp_path: Path) -> None:
    async def scenario(served: Any) -> None:
        meter = await served.enter()
        entry = served.ledger._open[CHANNEL]
        for _ in range(3):
            served.ledger.look_again(meter)
        await meter.wait_settled()
        assert served.asked == [[CHANNEL]]
        assert served.quotas.refreshed == 1  # a pass may have been renewed instead
        assert not entry.looking
        served.ledger.look_again(meter)
        await turns()
        assert entry.looking
        assert served.asked == [[CHANNEL]]  # as soon as two seconds are over
        entry.looked_at = float("-inf")
        for task in list(meter._tasks):
            task.cancel()

    play(tmp_path, scenario)


def test_a_look_while_no_node_answers_ends_nothing(tmp_path: Path) -> None:
    async def scenario(served: Any) -> None:
        meter = await served.enter()
        served.fault = NodeUnavailable("no node")
        served.ledger.look_again(meter)
        await meter.wait_settled()
        assert served.asked == [[CHANNEL]]
        assert not meter.connection.closed
        assert not served.ledger._open[CHANNEL].looking

    play(tmp_path, scenario)


def test_channels_in_use_are_read_again_in_one_question(tmp_path: Path) -> None:
    async def scenario(served: Any) -> None:
        meter = await served.enter()
        served.channel = replace(served.channel, deposited=2 * 10**9, balance=2 * 10**9)
        await served.ledger.check_open_channels(None)
        assert served.asked == [[CHANNEL]]
        assert meter.payee.deposit.affordable == 2 * 10**9
        assert served.book.get_known(CHANNEL).channel == served.channel  # for those who come with it
        served.channel = replace(served.channel, state=ChannelState.CLOSING, closing_ms=NOW)
        await served.ledger.check_open_channels(None)
        assert meter.connection.aborted == "the channel is closing or closed"

    play(tmp_path, scenario)


def test_a_channel_in_use_that_is_not_there_any_more_ends_its_connections(tmp_path: Path) -> None:
    async def scenario(served: Any) -> None:
        meter = await served.enter()
        served.channel = None
        await served.ledger.check_open_channels(None)
        assert meter.connection.aborted == "the channel is closing or closed"
        assert served.book.get_known(CHANNEL) is None

    play(tmp_path, scenario)


def test_the_denied_are_sent_away_whatever_else_can_be_asked(tmp_path: Path) -> None:
    async def scenario(served: Any) -> None:
        async def away(ids: Any) -> None:
            raise NodeUnavailable("no node")

        meter = await served.enter()
        served.chain.objects = away
        with pytest.raises(NodeUnavailable):
            await served.ledger.check_open_channels(rules({"0xc"}))
        assert meter.connection.aborted == refuse(FirewallRefusal.DENIED).reason

    play(tmp_path, scenario)


# ---- agreed closes


def test_a_signature_that_was_lost_is_given_again(tmp_path: Path) -> None:
    async def scenario(served: Any) -> None:
        meter = await served.enter()
        for _ in range(2):
            meter.connection.on_meter(build(messages.AskClose()))
            await meter.wait_settled()
            # It is made up once: a client that asks again and again costs nothing.
            served.store.scripts["save_agreement"] = broken
        first, second = agreed_by(meter)
        assert first == second

    play(tmp_path, scenario)


def test_a_signature_is_void_before_the_time_for_claims_is_over(tmp_path: Path) -> None:
    """Else a client asks the chain for the close as soon as it has it, and pays for no transport."""

    async def scenario(served: Any) -> None:
        terms = replace(served.channel.terms, claim_ms=240_000)
        served.channel = replace(served.channel, terms=terms)
        meter = await served.enter()
        await ask_close(served, meter)
        (agreed,) = agreed_by(meter)
        assert agreed.not_after_ms == NOW + 120_000

    play(tmp_path, scenario)


def test_nothing_more_is_served_once_a_close_is_agreed(tmp_path: Path) -> None:
    """From before the total is made up: what was served after it nobody would pay."""

    async def scenario(served: Any) -> None:
        served.with_credit()
        served.answering.clear()
        served.with_lanes(3)
        meter, other = await served.enter(0), await served.enter(1)
        meter.connection.move(0, 1024, 0)
        await pay(meter, KEY.sign(voucher(1, 0, 1024)))
        assert meter.connection.most > 1024
        served.ledger.close_asked(meter)
        await served.reached.wait()
        assert meter.connection.most == 1024
        assert other.connection.aborted == "the channel is closed"
        assert await served.enter(2) is None
        served.answering.set()
        await meter.wait_settled()
        assert len(agreed_by(meter)) == 1

    play(tmp_path, scenario)


def test_a_voucher_that_another_lane_has_just_said_is_in_the_total(tmp_path: Path) -> None:
    async def scenario(served: Any) -> None:
        served.with_lanes(2)
        meter, other = await served.enter(0), await served.enter(1)
        other.connection.on_meter(build(VoucherSaid.of(NEW_KEY.sign(voucher(1, 1, lane=1)), 0)))
        await asyncio.sleep(0)
        assert other.checking  # being written, so the next one waits
        other.connection.on_meter(build(VoucherSaid.of(NEW_KEY.sign(voucher(2, 2, lane=1)), 0)))
        await ask_close(served, meter)
        (agreed,) = agreed_by(meter)
        assert agreed.total == PRICES.cost_of(Usage(2, 0))

    play(tmp_path, scenario)
