"""What can be asked: owned objects, balances, coins, fields, events, transactions, checkpoints, page by page."""

from __future__ import annotations

from typing import Any

import pytest
from node_world import COIN, World
from playground import Play

from dtp.localnet.model import BadCursor, CheckpointRecord, EventFilter, Executed
from dtp.sui.bcs import STRING, U64, option
from dtp.sui.effects import effects_digest, events_digest
from dtp.sui.names import parse_type
from dtp.sui.objects import GAS_COIN_TYPE, SUI_TYPE


def pages(ask: Any, limit: int) -> list[Any]:
    """All items, page by page."""
    items: list[Any] = []
    cursor = None
    while True:
        page = ask(cursor, limit)
        assert len(page.items) <= limit
        items += page.items
        cursor = page.cursor
        if cursor is None:
            return items
        assert len(page.items) == limit


def shout(play: Play, times: int) -> Executed:
    tx = play.tx()
    play.call(tx, "shout", tx.u64(times))
    return play.ok(tx)


def test_owned_objects_in_pages(play: Play) -> None:
    for value in range(5):
        play.thing(value)
    node, address = play.world.node, play.alice.address
    everything = node.objects_owned_by(address, limit=1000).items
    for limit in (1, 2, 3, 100):
        found = pages(lambda c, n: node.objects_owned_by(address, None, c, n), limit)
        assert [r.ref for r in found] == [r.ref for r in everything]
    things = node.objects_owned_by(address, play.tag("things::Thing")).items
    assert len(things) == 5
    coins = node.objects_owned_by(address, parse_type("0x2::coin::Coin")).items
    amounts = [int.from_bytes(r.contents[32:], "little") for r in coins]
    assert amounts == sorted(amounts, reverse=True)
    assert coins == node.objects_owned_by(address, GAS_COIN_TYPE).items


def test_balances(play: Play) -> None:
    node = play.world.node
    gold = play.tag("gold::GOLD")
    tx = play.tx()
    for amount in (5, 7):
        made = tx.call(play.package, "gold::mint", tx.object(play.treasury_cap()), tx.u64(amount))
        tx.send(play.alice.address, made)
    play.ok(tx)
    assert (
        node.get_balance(play.alice.address, gold).amount,
        node.get_balance(play.alice.address, gold).coins,
    ) == (
        12,
        2,
    )
    found = pages(lambda c, n: node.list_balances(play.alice.address, c, n), 1)
    assert {b.coin_type for b in found} == {gold, SUI_TYPE}
    assert node.get_balance(bytes(32), gold).amount == 0
    info = node.coin_info(gold)
    assert info is not None
    assert info.total_supply == 12
    sui = node.coin_info(parse_type(COIN))
    assert sui is not None
    assert (sui.symbol, sui.decimals) == ("SUI", 9)
    assert node.coin_info(parse_type("0x99::no::Coin")) is None


def test_cursors_fit_their_question_only(play: Play) -> None:
    node = play.world.node
    shout(play, 3)
    cursor = node.list_events(limit=1).cursor
    assert cursor is not None
    with pytest.raises(BadCursor):
        node.objects_owned_by(play.alice.address, cursor=cursor)
    for broken in (b"", b"{", b"[]", b'["events"]', b'["events", "x"]', b"\xff", cursor + b"]"):
        with pytest.raises(BadCursor):
            node.list_events(cursor=broken)


def test_events_in_order_and_by_filter(play: Play) -> None:
    node = play.world.node
    for times in (2, 3):
        shout(play, times)
    tx = play.tx()
    note, maybe = tx.pure(STRING, "hello"), tx.pure(option(U64), None)
    play.call(tx, "see", tx.u64(9), note, maybe, tx.bytes(b"\0\1"))
    play.ok(tx)
    everything = pages(lambda c, n: node.list_events(None, c, n), 2)
    rolled = [e for e in everything if str(e.type).endswith("::Rolled")]
    assert [int(e.json["value"]) for e in rolled] == [0, 1, 0, 1, 2]
    assert [(e.digest, e.index) for e in rolled] == sorted(
        {(e.digest, e.index) for e in rolled}, key=lambda k: [(e.digest, e.index) for e in rolled].index(k)
    )
    assert [e.number for e in everything] == sorted(e.number for e in everything)
    backwards = pages(lambda c, n: node.list_events(None, c, n, descending=True), 2)
    assert backwards == everything[::-1]
    only = EventFilter(type=play.tag("things::Rolled"))
    assert pages(lambda c, n: node.list_events(only, c, n), 2) == rolled
    assert all(only.matches(e) for e in rolled)
    assert node.list_events(EventFilter(sender=bytes(32))).items == ()
    assert node.list_events(EventFilter(package=play.package, module="things")).items == tuple(everything)
    assert node.list_events(EventFilter(type_module="gold")).items == ()
    last = everything[-1].checkpoint
    assert node.list_events(first_checkpoint=last).items == tuple(
        e for e in everything if e.checkpoint == last
    )
    after = node.event_cursor(everything[2])
    assert node.list_events(cursor=after, limit=1000).items == tuple(everything[3:])


def test_values_as_json(play: Play) -> None:
    tx = play.tx()
    note, maybe = tx.pure(STRING, "grüße"), tx.pure(option(U64), 1 << 60)
    play.call(tx, "see", tx.u64(9), note, maybe, tx.bytes(b"\0\1"))
    seen, drawn = play.ok(tx).events
    assert seen.json == {
        "value": "9",
        "note": "grüße",
        "maybe": str(1 << 60),
        "raw": "AAE=",
        "who": f"0x{play.alice.address.hex()}",
    }
    assert drawn.json == {"shape": {"@variant": "Line", "length": "9"}}
    thing = play.record(play.thing(4))
    assert thing.type is not None
    assert play.world.node.render_json(thing.type, thing.contents) == {
        "id": f"0x{thing.id.hex()}",
        "value": "4",
    }
    assert play.world.node.render_json(parse_type("0x99::a::B"), b"") is None
    assert play.world.node.render_json(thing.type, b"short") is None


def test_a_transaction_is_found_again_as_it_was(play: Play) -> None:
    done = shout(play, 2)
    found = play.world.node.find_executed(done.transaction.digest)
    assert found is not None
    assert found.transaction == done.transaction
    assert {r.ref for r in found.inputs} == {r.ref for r in done.inputs}
    assert {r.ref for r in found.outputs} == {r.ref for r in done.outputs}
    record = play.world.node.find_transaction(done.transaction.digest)
    assert record == done.transaction
    assert record.effects_digest == effects_digest(record.effects_bcs)
    assert record.effects.events_digest == events_digest(record.events_bcs)
    assert record.data.digest() == record.digest
    assert play.world.node.find_transaction(bytes(32)) is None


def test_checkpoints_chain(play: Play) -> None:
    node = play.world.node
    latest = node.find_checkpoint()
    assert latest is not None
    total = 0
    before: CheckpointRecord | None = None
    for sequence in range(latest.sequence + 1):
        record = node.find_checkpoint(sequence)
        assert record is not None
        total += len(record.digests)
        assert record.digest == record.summary.digest()
        assert record.summary.content_digest == record.contents.digest()
        assert record.summary.previous_digest == (None if before is None else before.digest)
        assert record.summary.network_total_transactions == total
        assert node.find_checkpoint(record.digest) == record
        for executed, pair in zip(
            node.checkpoint_transactions(sequence), record.contents.transactions, strict=True
        ):
            assert executed.transaction.digest == pair.transaction
            assert executed.transaction.effects_digest == pair.effects
            assert executed.transaction.checkpoint == sequence
        before = record
    assert node.service_info().checkpoint == latest.sequence
    assert node.find_checkpoint(latest.sequence + 1) is None
    assert node.find_checkpoint(bytes(32)) is None


def test_subscribers_see_every_checkpoint(world: World) -> None:
    seen: list[tuple[int, int]] = []
    stop = world.node.subscribe(lambda record, done: seen.append((record.sequence, len(done))))
    start = world.node.service_info().checkpoint
    world.wallet("alice", 5, 6)
    world.node.advance_clock(10)
    world.node.advance_epoch()
    stop()
    stop()
    world.wallet("alice", 5)
    assert seen == [(start + 1, 1), (start + 2, 1), (start + 3, 1)]


def test_pruning(play: Play) -> None:
    node = play.world.node
    thing = play.thing(1)
    old = play.record(thing)
    done = shout(play, 2)
    for value in range(4):
        tx = play.tx()
        play.call(tx, "set", tx.object(thing), tx.u64(value))
        play.ok(tx)
    live = play.record(thing)
    latest = node.service_info().checkpoint
    assert node.prune(2) == latest - 1
    assert node.service_info().lowest_checkpoint == latest - 1
    assert node.list_events().items == ()
    assert node.find_transaction(done.transaction.digest) is None
    assert node.find_checkpoint(latest - 2) is None
    assert node.find_checkpoint(latest - 1) is not None
    assert node.find_object(thing, old.version) is None
    assert node.find_object(thing) == live
    assert all(e.inputs and e.outputs for e in node.checkpoint_transactions(latest))
    assert node.prune(100) == latest - 1
    play.thing(5)
