"""Random lives of a node: it answers everything with a typed result, money is conserved, failure changes only gas."""

from __future__ import annotations

from typing import Any

from hypothesis import given, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule
from node_world import COIN, STD, SUI, Tx, Wallet, World, created, fixture_modules, live_ids
from playground import Play
from transport_life import Transport

from dtp.localnet.model import Executed, TransactionRejected
from dtp.localnet.node import LocalNode
from dtp.localnet.system import TOTAL_SUPPLY
from dtp.sui.bcs import BcsError
from dtp.sui.effects import OutAbsent, TransactionEffects
from dtp.sui.names import TypeTag, parse_type
from dtp.sui.objects import MoveObject
from dtp.sui.transaction import (
    Argument,
    GasCoin,
    Input,
    MakeMoveVec,
    MergeCoins,
    MoveCall,
    NestedResult,
    Publish,
    Pure,
    Result,
    SplitCoins,
    TransactionData,
    TransferObjects,
)

AMOUNTS = st.one_of(st.integers(0, 5000), st.integers(0, (1 << 64) - 1))
FUNCTIONS = (
    ("new", 1), ("keep", 1), ("burn", 1), ("set", 2), ("value", 1), ("same", 1), ("swap", 2), ("bind", 0),
    ("freeze_it", 1), ("share_it", 1), ("wrap", 1), ("unwrap", 1), ("smash", 1), ("start", 0), ("bump", 1),
    ("count", 1), ("stop", 1), ("share_again", 1), ("steal", 1), ("add_field", 3), ("drop_field", 2),
    ("attach", 3), ("detach", 2), ("shelf", 0), ("put", 3), ("clear", 1), ("potato", 0), ("cool", 1),
    ("mark", 1), ("use_mark", 1), ("pair", 0), ("grow", 1), ("lend", 1), ("only_entry", 1),
    ("entry_number", 1), ("friendly", 0), ("fail", 0), ("divide", 2), ("shout", 1), ("party", 1),
    ("receive", 2), ("wrap_new", 0), ("burn_all", 1), ("nowhere", 0),
)  # fmt: skip

ARGUMENTS: st.SearchStrategy[Argument] = st.one_of(
    st.just(GasCoin()),
    st.builds(Input, st.integers(0, 9)),
    st.builds(Result, st.integers(0, 7)),
    st.builds(NestedResult, st.integers(0, 7), st.integers(0, 2)),
)
COMMANDS = st.one_of(
    st.tuples(st.sampled_from(FUNCTIONS), st.lists(ARGUMENTS, max_size=3)),
    st.builds(SplitCoins, ARGUMENTS, st.lists(ARGUMENTS, min_size=1, max_size=3).map(tuple)),
    st.builds(MergeCoins, ARGUMENTS, st.lists(ARGUMENTS, min_size=1, max_size=3).map(tuple)),
    st.builds(TransferObjects, st.lists(ARGUMENTS, min_size=1, max_size=3).map(tuple), ARGUMENTS),
    st.builds(
        MakeMoveVec,
        st.sampled_from((None, TypeTag("u64"), TypeTag("address"))),
        st.lists(ARGUMENTS, min_size=1, max_size=3).map(tuple),
    ),
)


class NodeLife(RuleBasedStateMachine):
    """Accounts, coins, things, channels; whatever happens, the books balance."""

    channels = Bundle("channels")

    @initialize()
    def begin(self) -> None:
        self.world = World(LocalNode.open(now=None))
        self.transport = Transport.begin(self.world)
        self.play = Play.begin(self.world)
        self.gold_type = str(self.play.tag("gold::GOLD"))
        self.wallets = [self.play.alice, self.transport.server, self.transport.client]
        self.in_channels: dict[bytes, int] = {}
        self.sequences: dict[bytes, int] = {}

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.node.close()

    def attempt(self, tx: Tx, sender: Wallet, **options: Any) -> Executed | None:
        """Run a transaction; typed refusals are fine; a failure may change nothing but gas."""
        node = self.world.node
        try:
            executed = self.world.run(tx, sender, **options)
        except (TransactionRejected, BcsError) as refused:
            note(f"refused: {refused}")
            return None
        effects = executed.effects
        assert TransactionEffects.decode(executed.transaction.effects_bcs).changed == effects.changed
        if not effects.ok:
            note(f"failed: {effects.error}")
            before = {r.id: r for r in executed.inputs}
            payer = executed.transaction.data.gas_data.payment
            for record in executed.outputs:
                old = before[record.id].value.data
                new = record.value.data
                assert isinstance(old, MoveObject)
                assert isinstance(new, MoveObject)
                if record.id != payer[0].id:
                    assert (old.contents, before[record.id].owner) == (new.contents, record.owner)
            gone = [id for id, c in effects.changed if isinstance(c.after, OutAbsent)]
            assert set(gone) <= {ref.id for ref in payer[1:]}
        for record in executed.outputs:
            assert node.find_object(record.id) == record
        return executed

    @rule(
        who=st.integers(0, 2),
        to=st.integers(0, 2),
        amounts=st.lists(AMOUNTS, min_size=1, max_size=3),
        merge=st.booleans(),
        smash=st.booleans(),
    )
    def coins(self, who: int, to: int, amounts: list[int], merge: bool, smash: bool) -> None:
        tx = self.world.tx()
        sender = self.wallets[who]
        parts = tx.split(GasCoin(), *amounts)
        if merge and len(parts) > 1:
            tx.merge(parts[0], *parts[1:])
            parts = parts[:1]
        tx.send(self.wallets[to].address, *parts)
        payment = tuple(c.ref for c in self.world.coins(sender))[: 5 if smash else 1]
        self.attempt(tx, sender, payment=payment)

    @rule(
        who=st.integers(0, 2),
        commands=st.lists(COMMANDS, min_size=1, max_size=7),
        amounts=st.lists(AMOUNTS, min_size=3, max_size=3),
        budget=st.sampled_from((1_000_000, 3_000_000, 500_000_000)),
        data=st.data(),
    )
    def anything(
        self, who: int, commands: list[Any], amounts: list[int], budget: int, data: st.DataObject
    ) -> None:
        node, sender = self.world.node, self.wallets[who]
        tx = self.world.tx()
        for amount in amounts:
            tx.u64(amount)
        tx.address(self.wallets[0].address)
        owned = node.objects_owned_by(sender.address, limit=20).items
        ids = live_ids(node, "kind != 'ObjectOwner'")[:30]
        every = [record for id in ids if (record := node.find_object(id)) is not None]
        for _ in range(5):
            record = data.draw(st.sampled_from([*owned, *every]))
            if record.package is not None:
                tx.add(Pure(record.id))
            elif data.draw(st.integers(0, 5)) == 0:
                tx.receiving(record.id)
            else:
                tx.object(record.id, mutable=data.draw(st.booleans()))
        for command in commands:
            if isinstance(command, tuple):
                (name, count), arguments = command
                arguments = (arguments * 3)[:count] if arguments else []
                command = MoveCall(self.play.package, "things", name, (), tuple(arguments))
            tx.command(command)
        self.attempt(tx, sender, budget=budget)

    @rule(
        who=st.integers(0, 2),
        to=st.integers(0, 2),
        minted=AMOUNTS,
        parts=st.lists(AMOUNTS, max_size=3),
        old=st.integers(0, 5),
        burn=st.booleans(),
    )
    def gold(self, who: int, to: int, minted: int, parts: list[int], old: int, burn: bool) -> None:
        """Mint a coin of a package's own, mix it with one that is there, split, burn, send."""
        sender = self.wallets[who]
        kind = parse_type(f"0x2::coin::Coin<{self.gold_type}>")
        held = self.world.node.objects_owned_by(sender.address, kind, limit=6).items
        tx = self.world.tx()
        coins: list[Argument] = []
        if sender is self.play.alice:
            cap = tx.object(self.play.treasury_cap())
            coins.append(tx.call(self.play.package, "gold::mint", cap, tx.u64(minted)))
        if held:
            coins.append(tx.object(held[old % len(held)].id))
        if not coins:
            return
        if parts:
            coins += tx.split(coins[0], *parts)
        if len(coins) > 2:
            tx.merge(coins[-1], coins.pop(1))
        if burn and sender is self.play.alice:
            tx.call(
                SUI, "coin::burn", tx.object(self.play.treasury_cap()), coins.pop(), types=(self.gold_type,)
            )
        if coins:
            tx.send(self.wallets[to].address, *coins)
        self.attempt(tx, sender)

    @rule(which=st.sampled_from(("playground", "playground_later")), cut=st.integers(0, 400))
    def publish(self, which: str, cut: int) -> None:
        modules = list(fixture_modules(which))
        if cut:
            broken = bytearray(modules[0])
            broken[cut % len(broken)] ^= 1 << (cut % 8)
            modules[0] = bytes(broken)
        tx = self.world.tx()
        tx.send(self.play.alice.address, tx.command(Publish(tuple(modules), (STD, SUI))))
        self.attempt(tx, self.play.alice)

    @rule(target=channels, deposit=st.integers(1000, 100_000))
    def open_channel(self, deposit: int) -> bytes:
        self.transport.heartbeat()
        channel = self.transport.open(deposit)
        self.sequences[channel] = 0
        return channel

    @rule(channel=channels, requests=st.integers(0, 50), over=st.integers(-3, 3))
    def claim(self, channel: bytes, requests: int, over: int) -> None:
        if self.world.node.find_object(channel) is None:
            return
        sequence = self.sequences[channel] + 1
        tx = self.transport.claim_tx(channel, sequence, max(0, 10 * requests + over), requests)
        done = self.attempt(tx, self.transport.server)
        if done is not None and done.effects.ok:
            self.sequences[channel] = sequence

    @rule(channel=consumes(channels))
    def close_channel(self, channel: bytes) -> None:
        tx = self.world.tx()
        tx.call(
            self.transport.package, "channel::request_close", tx.object(channel), tx.clock(), types=(COIN,)
        )
        self.attempt(tx, self.transport.client)
        self.world.node.advance_clock(3_600_000)
        self.attempt(self.transport.finalize(channel), self.play.alice)
        self.attempt(self.transport.destroy(channel), self.transport.client)

    @rule()
    def epoch(self) -> None:
        self.world.node.advance_epoch()

    @invariant()
    def money_is_conserved(self) -> None:
        if not hasattr(self, "world"):
            return
        node = self.world.node
        held = 0
        for id in live_ids(node, "type LIKE '%::channel::Channel<%'"):
            record = node.find_object(id)
            assert record is not None
            assert record.type is not None
            shown = node.render_json(record.type, record.contents)
            held += int(shown["balance"]) + int(shown["client_credit"])
        self.gold_is_conserved()
        totals = node.get_totals()
        fees = totals.storage + totals.computation_fees + totals.storage_fees
        assert self.world.sui_in_coins() + held + fees == TOTAL_SUPPLY
        paid = 0
        for id in live_ids(node):
            record = node.find_object(id)
            assert record is not None
            paid += record.storage_rebate
        assert paid == totals.storage

    def gold_is_conserved(self) -> None:
        """What the cap says was minted is what all coins hold."""
        node = self.world.node
        coins = [node.find_object(id) for id in live_ids(node, "type LIKE '%::coin::Coin<%::gold::GOLD>'")]
        held = sum(
            int.from_bytes(coin.contents[32:40], "little")
            for coin in coins
            if coin is not None and str(coin.type).endswith(f"::coin::Coin<{self.gold_type}>")
        )
        cap = node.find_object(self.play.treasury_cap())
        assert cap is not None
        assert held == int.from_bytes(cap.contents[32:40], "little")


NodeLife.TestCase.settings = settings(max_examples=12, stateful_step_count=25)
TestNodeLife = NodeLife.TestCase


@given(cut=st.integers(0, 2000), bit=st.integers(0, 7), seed=st.integers(0, 3))
@settings(max_examples=150)
def test_damaged_transactions_are_refused_or_run(cut: int, bit: int, seed: int) -> None:
    """A bit flipped anywhere in a signed transaction: the signature or the form stops it, never a crash."""
    node = _node()
    world, transport, channel = _LIFE[0]
    tx = transport.claim_tx(channel, 1 + seed, 10, 1)
    raw = bytearray(world.data(tx, transport.server).encode())
    raw[cut % len(raw)] ^= 1 << bit
    damaged = bytes(raw)
    try:
        TransactionData.decode(damaged)
        signature = transport.server.sign(damaged)
    except BcsError:
        signature = transport.server.sign(b"")
    try:
        executed = node.execute(damaged, [signature])
    except TransactionRejected:
        return
    assert executed.transaction.data_bcs == damaged


_LIFE: list[tuple[World, Transport, bytes]] = []


def _node() -> LocalNode:
    """One node for all examples; each example leaves it usable."""
    if not _LIFE:
        world = World(LocalNode.open(now=None))
        transport = Transport.begin(world)
        _LIFE.append((world, transport, transport.open()))
    return _LIFE[0][0].node


def test_what_random_things_make_is_found(world: World) -> None:
    """The helper that the machine above relies on."""
    play = Play.begin(world)
    tx = play.tx()
    play.call(tx, "keep", tx.u64(1))
    assert play.value(created(play.ok(tx), "::Thing")) == 1
