"""The whole life of a paid channel on the compiled packages, with vouchers that a real key signed."""

from __future__ import annotations

from node_world import COIN, FOREVER, Wallet, created
from transport_life import DEPOSIT, Transport

from dtp.chain.packages import load
from dtp.localnet.model import Executed
from dtp.localnet.system import TOTAL_SUPPLY
from dtp.sui.objects import SUI_TYPE


def abort_name(executed: Executed) -> str:
    """The constant an abort of `transport` names."""
    error = executed.effects.error
    assert error is not None
    assert error.kind == "MoveAbort", error
    code = load("transport").describe_abort(error.content["location"].module, error.content["code"])
    return str(code.name)


def test_open_claim_close(transport: Transport) -> None:
    world, node = transport.world, transport.world.node
    channel = transport.open()
    paid = 0
    for sequence in range(1, 6):
        done = world.ok(
            transport.claim_tx(channel, sequence, 100 * sequence, 10 * sequence), transport.server
        )
        coin = created(done, "::coin::Coin")
        record = node.find_object(coin)
        assert record is not None
        paid += int.from_bytes(record.contents[32:], "little")
        (event,) = done.events
        assert event.json["amount"] == str(100 * sequence)
        assert (event.package, event.module) == (transport.package, "channel")
    assert paid == 500
    transport.request_close(channel)
    assert abort_name(world.run(transport.finalize(channel), transport.server)) == "ETooEarly"
    node.advance_clock(3_600_000)
    done = world.ok(transport.finalize(channel), transport.server)
    refund = next(c for c in done.transaction.balance_changes if c.address == transport.client.address)
    assert refund.amount == DEPOSIT - 500
    world.ok(transport.destroy(channel), transport.client)
    assert node.find_object(channel) is None


def test_claims_that_are_refused(transport: Transport) -> None:
    world = transport.world
    channel = transport.open()
    world.ok(transport.claim_tx(channel, 1, 100, 10), transport.server)
    before = world.node.find_object(channel)
    assert before is not None
    thief = Wallet("thief")
    cases = (
        (transport.claim_tx(channel, 2, 200, 20, thief), "EBadSignature"),
        (transport.claim_tx(channel, 1, 100, 10), "EStaleVoucher"),
        (transport.claim_tx(channel, 2, 50, 10), "EShrunkVoucher"),
        (transport.claim_tx(channel, 2, 300, 20), "EOverPrice"),
    )
    assert [abort_name(world.run(tx, transport.server)) for tx, _ in cases] == [n for _, n in cases]
    after = world.node.find_object(channel)
    assert after is not None
    assert after.contents == before.contents


def test_only_the_server_claims(transport: Transport) -> None:
    channel = transport.open()
    tx = transport.claim_tx(channel, 1, 100, 10)
    assert abort_name(transport.world.run(tx, transport.client)) == "ENotServer"


def test_nobody_pays_a_host_that_is_offline(transport: Transport) -> None:
    world = transport.world
    world.node.advance_clock(60_001)
    tx = world.tx()
    coin = tx.pay(DEPOSIT)
    channel = tx.call(
        transport.package,
        "channel::open",
        tx.read(transport.host),
        tx.read(transport.beacon),
        tx.u16(1),
        tx.u64(1),
        coin,
        tx.bytes(transport.client.public),
        tx.clock(),
        types=(COIN,),
    )
    tx.call(transport.package, "channel::share", channel, types=(COIN,))
    executed = world.run(tx, transport.client)
    assert not executed.effects.ok
    transport.heartbeat()
    assert transport.open()


def test_money_is_conserved_through_the_life_of_channels(transport: Transport) -> None:
    world = transport.world
    channels = [transport.open() for _ in range(3)]
    for channel in channels:
        world.ok(transport.claim_tx(channel, 1, 1000, 100), transport.server)
    held = 0
    for channel in channels:
        record = world.node.find_object(channel)
        assert record is not None
        shown = world.node.render_json(record.type, record.contents)  # type: ignore[arg-type]
        held += int(shown["balance"]) + int(shown["client_credit"])
    assert held == 3 * (DEPOSIT - 1000)
    totals = world.node.get_totals()
    fees = totals.storage + totals.computation_fees + totals.storage_fees
    assert world.sui_in_coins() + held + fees == TOTAL_SUPPLY


def test_vouchers_do_not_move_between_channels(transport: Transport) -> None:
    world = transport.world
    one, two = transport.open(), transport.open()
    tx = transport.claim_tx(one, 1, 100, 10)
    other = transport.claim_tx(two, 1, 100, 10)
    # The voucher of one with the other channel as the object.
    tx.inputs[9], other.inputs[9] = other.inputs[9], tx.inputs[9]
    assert not world.run(tx, transport.server).effects.ok
    assert world.node.get_balance(transport.server.address, SUI_TYPE).amount < FOREVER
