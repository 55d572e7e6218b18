"""Clients and servers that cheat, over real connections: what they try is refused, and what is due stays due."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from functools import partial
from typing import Any

import msgpack
import pytest
from variants import slow_after

from dtp.chain.node.commitment import to_its_end
from dtp.identity import Identity
from dtp.net import dial as net
from dtp.pay import messages
from dtp.pay.client.budget import Budget
from dtp.pay.client.buying import _add_lane, purchase
from dtp.pay.errors import CountsDisputed
from dtp.pay.messages import VoucherSaid, build
from dtp.pay.metered import Metered
from dtp.pay.server.book import BookLimits
from dtp.pay.serving import Selling
from dtp.pay.store.journal import Journal
from dtp.pay.terms import MIB, Exposure, Usage
from dtp.pay.ticket import make_ticket
from dtp.pay.voucher import LaneKey, SignedVoucher, Voucher
from dtp.session.codes import CloseCode, ConnectionClosed, ConnectionRefused
from dtp.session.handshake import HandshakeConfig
from dtp.session.limits import DEFAULT, Limits

from ..buying.test_paid import PRICES, cost_of, fetch, give
from ..conftest import Market, Play, owned_by


async def own_channel(market: Market, budget: int = 500_000_000) -> Any:
    """A channel of a client, with its key: what an attacker has that is a client."""
    buyer = await market.buyer()
    journal = Journal(buyer["store"])
    market.stack.push_async_callback(journal.close)
    return buyer, await purchase(buyer["network"], journal, market.serving.host, "files", Budget(budget))


async def knock(market: Market, ticket: Any, service: str = "files") -> Any:
    """Connect with a ticket, or what makes one of the binding; nobody meters on this side."""
    made = ticket if callable(ticket) else lambda binding, peer: ticket
    listener = market.serving.listener
    dialer = net.Dialer(
        listener.address(service),
        HandshakeConfig(Identity.generate(), net.suites(), DEFAULT),
        service,
        (),
        made,
        Metered,
    )
    connection = await dialer.connect()
    market.stack.push_async_callback(connection.wait_gone)
    market.stack.callback(connection.abort)
    return connection


def honest(bought: Any) -> Any:
    return lambda binding, peer: make_ticket(
        bought.in_use.key, bought.channel.id, bought.in_use.lane.lane, binding
    )


async def refused(
    market: Market, ticket: Any, reason: Any, service: str = "files", code: Any = CloseCode.TICKET
) -> None:
    with pytest.raises(ConnectionRefused, match=reason) as error:
        await knock(market, ticket, service)
    assert error.value.close_code == code


async def frames_of(connection: Any, count: int = 1) -> Any:
    """The first METER frames that come."""
    got, enough = [], asyncio.Event()

    def take(data: Any) -> None:
        got.append(messages.parse(data, from_client=False))
        if len(got) >= count:
            enough.set()

    connection.take_meter(take)
    await enough.wait()
    return got


# ------------------------------------------------------------------------------------------------------ tickets


def test_tickets_that_open_nothing(market: Play) -> None:
    async def scenario(market: Market) -> None:
        await market.serve(give)
        _, bought = await own_channel(market)
        _, other = await own_channel(market)
        id, lane = bought.channel.id, bought.in_use.lane.lane
        await refused(market, b"", "is paid")
        await refused(market, b"\xc1", "not MessagePack")
        await refused(market, msgpack.packb([1, 2, 3]), "malformed")
        await refused(market, msgpack.packb([2, bytes(32), 0, bytes(64)]), "version 2")
        await refused(market, msgpack.packb([True, bytes(32), 0, bytes(64)]), "malformed")
        await refused(market, msgpack.packb([1, bytes(32), 16, bytes(64)]), "malformed")
        await refused(market, bytes(600), "600 bytes")
        stranger = LaneKey.generate()
        await refused(market, lambda b, p: make_ticket(stranger, id, lane, b), "lane's key")
        await refused(
            market, lambda b, p: make_ticket(bought.in_use.key, other.channel.id, lane, b), "lane's key"
        )
        await refused(market, lambda b, p: make_ticket(bought.in_use.key, id, 5, b), "lane's key")
        await refused(market, lambda b, p: make_ticket(bought.in_use.key, id, lane, bytes(32)), "lane's key")
        await refused(
            market, lambda b, p: make_ticket(bought.in_use.key, "0x" + "77" * 32, lane, b), "no such channel"
        )
        await refused(
            market,
            lambda b, p: make_ticket(bought.in_use.key, market.serving.host, lane, b),
            "no such channel",
        )
        # The good one still works.
        await knock(market, honest(bought))

    market(scenario)


def test_a_ticket_of_another_connection(market: Play) -> None:
    async def scenario(market: Market) -> None:
        await market.serve(give)
        _, bought = await own_channel(market)
        seen = []

        def overheard(binding: Any, peer: Any) -> Any:
            seen.append(honest(bought)(binding, peer))
            return seen[-1]

        await knock(market, overheard)
        await refused(market, seen[0], "not for this connection")

    market(scenario)


def test_a_channel_of_another_service_or_host(market: Play) -> None:
    async def scenario(market: Market) -> None:
        await market.serve(give)
        _, bought = await own_channel(market)
        first = market.serving
        await market.serve(give, service="other", store=first.store)
        await refused(market, honest(bought), "for service", service="other")
        await refused(market, honest(bought), "no-service", service="nothing", code=CloseCode.UNKNOWN_SERVICE)

    market(scenario)


def test_the_denied_do_not_come_in_whatever_they_paid(market: Play) -> None:
    async def scenario(market: Market) -> None:
        from dtp.chain import Program, host

        await market.serve(give)
        _, bought = await own_channel(market)
        program = Program()
        serving = market.serving
        operator = (await owned_by(serving)).operator
        host.deny(program, serving.host, operator, [bought.channel.client])
        await serving.chain.execute(program)
        await serving.firewall.refresh()
        await refused(market, honest(bought), "denied", code=CloseCode.DENIED)

    market(scenario)


def test_hostile_tickets_cause_no_question_each(market: Play) -> None:
    """Invented channels are rationed by source and in all; who is known comes in all the same."""

    async def scenario(market: Market) -> None:
        limits = BookLimits(source_burst=5, source_interval=3600.0, all_burst=7, all_interval=3600.0)
        await market.serve(give, selling=Selling(book=limits, recheck=3600, claim_every=3600))
        _, bought = await own_channel(market)
        connection = await knock(market, honest(bought))
        asked = []
        genuine = market.serving.chain.read

        async def counted(*arguments: Any) -> Any:
            asked.append(arguments[2])
            return await genuine(*arguments)

        market.serving.chain.read = counted
        codes = []
        for _ in range(20):
            id = "0x" + os.urandom(32).hex()
            with pytest.raises(ConnectionRefused) as error:
                await knock(market, lambda b, p, id=id: make_ticket(bought.in_use.key, id, 0, b))
            codes.append(error.value.close_code)
        assert len(asked) <= 5
        assert codes[-1] == CloseCode.BUSY
        # The same one again isn't asked about twice, and a forged ticket of a known channel not at all.
        before = len(asked)
        await refused(
            market, lambda b, p: make_ticket(LaneKey.generate(), bought.channel.id, 0, b), "too many", code=9
        )
        assert len(asked) == before
        connection.abort()
        await connection.wait_gone()
        await knock(market, honest(bought))

    market(scenario)


# ----------------------------------------------------------------------------------------------------- vouchers


async def read_until_closed(stream: Any) -> Any:
    got = 0

    async def read_on() -> None:
        nonlocal got
        while True:
            got += len(await stream.read(MIB))

    with pytest.raises(ConnectionClosed) as closed:
        await read_on()
    return got, closed


def test_a_client_that_never_pays_gets_the_exposure_and_no_more(market: Play) -> None:
    async def scenario(market: Market) -> None:
        exposure = Exposure(MIB, 2 * MIB, 4, 8, patience=0.3, first_amount=10**7)
        await market.serve(give, selling=Selling(exposure=exposure, recheck=3600, claim_every=3600))
        _, bought = await own_channel(market)
        for connections in range(2):
            connection = await knock(market, honest(bought))
            stream = await connection.open_stream()
            stream.write(b"%d\n" % (50 * MIB))
            got, closed = await read_until_closed(stream)
            assert "not paid" in str(closed.value)
            assert closed.value.close_code == CloseCode.PAYMENT
            request = len(b"%d\n" % (50 * MIB))
            # Coming again gives nothing again: what was served is remembered.
            assert got == (MIB - request if connections == 0 else 0)
            await connection.wait_gone()

    market(scenario)


def test_a_client_that_uploads_and_never_pays_is_rid_of_a_window_and_no_more(market: Play) -> None:
    taken = []

    async def take(connection: Any) -> None:
        async for stream in connection:
            async for piece in stream:
                taken.append(len(piece))

    async def scenario(market: Market) -> None:
        exposure = Exposure(MIB, MIB, 4, 8, patience=0.3)
        limits = Limits(stream_window=2 * MIB, connection_window=2 * MIB)
        selling = Selling(exposure=exposure, recheck=3600, claim_every=3600)
        await market.serve(take, selling=selling, limits=limits)
        _, bought = await own_channel(market)
        for connections in range(2):
            before = len(taken)
            connection = await knock(market, honest(bought))
            stream = await connection.open_stream()
            stream.write(bytes(8 * MIB))
            await connection.wait_closed()
            await connection.wait_gone()
            # The credit that each connection begins with, at most; coming again, nobody reads what comes.
            assert sum(taken) <= 2 * MIB
            assert connections == 0 or len(taken) == before

    market(scenario)


def test_many_unpaid_requests_are_not_handed_to_the_handler(market: Play) -> None:
    handled = []

    async def count(connection: Any) -> None:
        async for stream in connection:
            handled.append(stream.id)

    async def scenario(market: Market) -> None:
        exposure = Exposure(MIB, MIB, 4, 4, patience=0.3)
        await market.serve(count, selling=Selling(exposure=exposure, recheck=3600, claim_every=3600))
        _, bought = await own_channel(market)
        connection = await knock(market, honest(bought))
        for _ in range(20):
            stream = await connection.open_stream()
            stream.write(b"x")
        await connection.wait_closed()
        assert len(handled) <= 4

    market(scenario)


def bad_vouchers(bought: Any) -> Any:
    """Frames of a client that cheats, and what it hears."""
    id, key = bought.channel.id, bought.in_use.key
    price = PRICES.cost_of(Usage(1, 0))

    def frame(key: Any = key, **changes: Any) -> Any:
        fields = {"sequence": 2, "amount": price, "requests": 1, "bytes": 0, **changes}
        made = Voucher(id, bought.in_use.lane.lane, hash_lock=fields.pop("hash_lock", None), **fields)
        return build(VoucherSaid.of(key.sign(made), 0))

    good = key.sign(Voucher(id, 0, 2, price, 1, 0))
    return {
        "forged": (frame(LaneKey.generate()), "does not verify"),
        "of another lane": (
            build(VoucherSaid.of(key.sign(replace(good.voucher, lane=1)), 0)),
            "does not verify",
        ),
        "of another channel": (
            build(VoucherSaid.of(key.sign(replace(good.voucher, channel="0x" + "11" * 32)), 0)),
            "does not verify",
        ),
        "signed for less": (
            build(replace(VoucherSaid.of(good, 0), amount=2 * price, requests=2)),
            "does not verify",
        ),
        "shrunk": (frame(sequence=3, amount=0, requests=0), "below those of an earlier"),
        "equal sequence, other sum": (
            frame(sequence=1, amount=2 * price, requests=2),
            "another voucher of this sequence",
        ),
        "underpaid": (frame(requests=5), "below what requests and bytes cost"),
        "above its price": (frame(amount=price + 1), "above what requests and bytes cost"),
        "above the deposit": (frame(requests=10**6, amount=10**9), "above the deposit"),
        "over at once": (frame(not_after_ms=1), "ends before it could be claimed"),
        "locked by nobody": (frame(hash_lock=bytes(32)), "hash lock"),
        "no MessagePack": (b"\xc1\xc1", "not MessagePack"),
        "a server's frame": (build(messages.Stored(1)), "does not send"),
        "empty": (b"", "not MessagePack"),
    }


CHEATS = [
    "forged",
    "of another lane",
    "of another channel",
    "signed for less",
    "shrunk",
    "equal sequence, other sum",
    "underpaid",
    "above its price",
    "above the deposit",
    "over at once",
    "locked by nobody",
    "no MessagePack",
    "a server's frame",
    "empty",
]


@pytest.mark.parametrize("which", slow_after(7, CHEATS))
def test_a_bad_voucher_ends_the_connection_and_what_was_paid_stands(market: Play, which: Any) -> None:
    async def scenario(market: Market) -> None:
        await market.serve(give)
        _, bought = await own_channel(market)
        connection = await knock(market, honest(bought))
        await frames_of(connection)
        stream = await connection.open_stream()
        stream.write(b"100\n")
        await stream.read(100)
        first = bought.in_use.key.sign(Voucher(bought.channel.id, 0, 1, 1000, 1, 0))
        connection.send_meter(build(VoucherSaid.of(first, 0)))
        while market.serving.store.sold_lane(bought.channel.id, 0).newest is None:
            await connection.ping()
        frame, words = bad_vouchers(bought)[which]
        connection.send_meter(frame)
        await connection.wait_closed()
        with pytest.raises(ConnectionClosed, match=words) as closed:
            await connection.open_stream()
        assert closed.value.close_code == CloseCode.PAYMENT
        assert market.serving.store.sold_lane(bought.channel.id, 0).newest == first
        # The lane goes on with a new connection.
        await knock(market, honest(bought))

    market(scenario)


def test_replayed_and_old_vouchers_change_nothing(market: Play) -> None:
    async def scenario(market: Market) -> None:
        await market.serve(give)
        _, bought = await own_channel(market)
        connection = await knock(market, honest(bought))
        await frames_of(connection)
        stream = await connection.open_stream()
        signed = [bought.in_use.key.sign(Voucher(bought.channel.id, 0, n, 1000 * n, n, 0)) for n in (1, 2, 3)]
        for each in (signed[2], signed[0], signed[2], signed[1], signed[2]):
            connection.send_meter(build(VoucherSaid.of(each, 0)))
            await connection.ping()
        stream.write(b"100\n")
        assert len(await stream.readexactly(100)) == 100
        while market.serving.store.sold_lane(bought.channel.id, 0).newest is None:
            await connection.ping()
        assert market.serving.store.sold_lane(bought.channel.id, 0).newest == signed[2]

    market(scenario)


def test_two_lanes_together_never_pass_the_deposit(market: Play) -> None:
    """Each lane's voucher alone would fit; both are sent at once."""

    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer, bought = await own_channel(market, budget=10_000)
        await to_its_end(partial(_add_lane, buyer["network"], bought.in_use.journal, bought.channel))
        (_, _), (second, _) = bought.in_use.journal.store.payer_lanes(bought.channel.id)
        first = await knock(market, honest(bought))
        other = await knock(market, lambda b, p: make_ticket(second, bought.channel.id, 1, b))
        await asyncio.gather(frames_of(first), frames_of(other))
        first.send_meter(
            build(VoucherSaid.of(bought.in_use.key.sign(Voucher(bought.channel.id, 0, 1, 6000, 6, 0)), 0))
        )
        other.send_meter(build(VoucherSaid.of(second.sign(Voucher(bought.channel.id, 1, 1, 6000, 6, 0)), 0)))
        await asyncio.wait(
            [asyncio.create_task(first.wait_closed()), asyncio.create_task(other.wait_closed())],
            return_when=asyncio.FIRST_COMPLETED,
        )
        await market.serving.close(claim=False)
        vouched = market.serving.store.vouched_sums(bought.channel.id)
        assert sum(vouched.values()) == 6000

    market(scenario)


def test_a_lane_is_one_connections_and_the_newer_one_has_it(market: Play) -> None:
    async def scenario(market: Market) -> None:
        await market.serve(give)
        _, bought = await own_channel(market)
        first = await knock(market, honest(bought))
        await frames_of(first)
        second = await knock(market, honest(bought))
        await frames_of(second)
        await first.wait_closed()
        assert not second.closed
        assert market.serving.ledger.channels == [bought.channel.id]

    market(scenario)


# ------------------------------------------------------------------------------------------------------ servers


def test_a_server_that_claims_too_much_is_left(market: Play) -> None:
    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer = await market.buyer()
        async with market.connect(buyer, keep=True) as connection:
            await fetch(connection, MIB)
        (channel,) = await market.channels(buyer)
        market.serving.store.save_served(channel.id, 0, Usage(1000, 2**40))
        with pytest.raises(CountsDisputed):
            await market.connect(buyer)
        assert buyer["store"].payer_lanes(channel.id)[0][1].newest.voucher.amount == cost_of(MIB)

    market(scenario)


def test_a_server_cannot_claim_what_was_not_signed(market: Play) -> None:
    from dtp.chain import Program
    from dtp.chain import channel as channel_module
    from dtp.chain.errors import MoveAborted

    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer = await market.buyer()
        connection = await market.connect(buyer)
        await fetch(connection, MIB)
        await connection.meter.pay_rest()
        (sold,) = market.serving.store.sold_lanes()
        more = replace(sold.newest.voucher, bytes=sold.newest.voucher.bytes + MIB, sequence=99)
        program = Program()
        channel_module.claim_for(program, more, sold.newest.signature)
        with pytest.raises(MoveAborted) as error:
            await market.serving.chain.execute(program)
        assert error.value.error is channel_module.ChannelError.BAD_SIGNATURE
        assert (
            SignedVoucher(more, sold.newest.signature).is_by(connection.meter.purchase.in_use.key.public)
            is False
        )
        await connection.close()

    market(scenario)
