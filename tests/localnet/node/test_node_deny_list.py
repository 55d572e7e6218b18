"""Regulated coins: who is denied sends none from then on, and receives none from the next epoch on."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from node_world import STD, SUI, Tx, Wallet, World, fixture_modules

from dtp.localnet.denials import DENY_LIST
from dtp.localnet.limits import RECEIVER_COST
from dtp.localnet.model import Executed, TransactionRejected
from dtp.sui.effects import PerEpochConfig
from dtp.sui.names import parse_type


@dataclass
class Mint:
    """A package of regulated coins, and who issues them."""

    world: World
    issuer: Wallet
    package: bytes

    @classmethod
    def begin(cls, world: World) -> Mint:
        issuer = world.wallet("issuer", 50_000_000_000, 10_000_000_000)
        return cls(world, issuer, world.publish(issuer, fixture_modules("regulated"), (STD, SUI)))

    def type(self, coin: str) -> str:
        return f"0x{self.package.hex()}::{coin}::{coin.upper()}"

    def name(self, coin: str) -> str:
        """As deny lists have it."""
        return self.type(coin).removeprefix("0x")

    def owned(self, wallet: Wallet, type: str) -> bytes:
        """The only object of a type that somebody has."""
        (found,) = self.world.node.objects_owned_by(wallet.address, parse_type(type)).items
        return found.id

    def coin(self, wallet: Wallet, coin: str) -> bytes:
        return self.owned(wallet, f"0x2::coin::Coin<{self.type(coin)}>")

    def call(self, function: str, coin: str, address: bytes | None = None) -> Tx:
        """A change of the deny list."""
        cap = "DenyCapV2" if "v2" in function else "DenyCap"
        tx = self.world.tx()
        arguments = [
            tx.object(DENY_LIST),
            tx.object(self.owned(self.issuer, f"0x2::coin::{cap}<{self.type(coin)}>")),
        ]
        if address is not None:
            arguments.append(tx.address(address))
        tx.call(SUI, f"coin::{function}", *arguments, types=(self.type(coin),))
        return tx

    def change(self, function: str, coin: str, address: bytes | None = None) -> Executed:
        return self.world.ok(self.call(function, coin, address), self.issuer)

    def send(self, sender: Wallet, coin: str, to: bytes) -> Executed:
        """Send one of a coin; what came of it."""
        tx = self.world.tx()
        tx.send(to, *tx.split(tx.object(self.coin(sender, coin)), 1))
        return self.world.run(tx, sender)

    def says(self, function: str, coin: str, *address: bytes) -> bool:
        """What the list itself says."""
        tx = self.world.tx()
        arguments = [tx.read(DENY_LIST), *map(tx.address, address)]
        tx.call(SUI, f"coin::{function}", *arguments, types=(self.type(coin),))
        data = self.world.data(tx, self.issuer)
        simulated = self.world.node.simulate(data, checks=False)
        assert simulated.executed.effects.ok, simulated.executed.effects.error
        return simulated.commands[0].returned[0].bcs == b"\x01"


@pytest.fixture
def mint(world: World) -> Mint:
    """A node with regulated coins."""
    return Mint.begin(world)


def refused(mint: Mint, sender: Wallet, coin: str, to: bytes, kind: str) -> None:
    with pytest.raises(TransactionRejected) as caught:
        mint.send(sender, coin, to)
    assert caught.value.kind == kind
    assert mint.name(coin) in str(caught.value)


def failed(executed: Executed) -> tuple[str, dict[str, object]]:
    error = executed.effects.error
    assert error is not None
    assert error.command is None
    return error.kind, dict(error.content)


def test_who_is_denied_receives_none_from_the_next_epoch_on(mint: Mint) -> None:
    bob = mint.world.wallet("bob", 10_000_000_000)
    mint.change("deny_list_v2_add", "iron", bob.address)
    assert mint.send(mint.issuer, "iron", bob.address).effects.ok
    assert not mint.says("deny_list_v2_contains_current_epoch", "iron", bob.address)
    assert mint.says("deny_list_v2_contains_next_epoch", "iron", bob.address)
    mint.world.node.advance_epoch()
    assert mint.says("deny_list_v2_contains_current_epoch", "iron", bob.address)
    denied = {"address": bob.address, "coin_type": mint.name("iron")}
    before = mint.coin(mint.issuer, "iron")
    assert failed(mint.send(mint.issuer, "iron", bob.address)) == ("AddressDeniedForCoin", denied)
    assert mint.coin(mint.issuer, "iron") == before
    assert mint.send(mint.issuer, "tin", bob.address).effects.ok  # of another type
    mint.change("deny_list_v2_remove", "iron", bob.address)
    assert failed(mint.send(mint.issuer, "iron", bob.address)) == ("AddressDeniedForCoin", denied)
    mint.world.node.advance_epoch()
    assert mint.send(mint.issuer, "iron", bob.address).effects.ok


def test_who_is_denied_sends_none_at_once(mint: Mint) -> None:
    bob = mint.world.wallet("bob", 10_000_000_000)
    assert mint.send(mint.issuer, "iron", bob.address).effects.ok
    mint.change("deny_list_v2_add", "iron", bob.address)
    refused(mint, bob, "iron", mint.issuer.address, "AddressDeniedForCoin")
    mint.change("deny_list_v2_remove", "iron", bob.address)
    assert mint.send(bob, "iron", mint.issuer.address).effects.ok


def test_who_is_denied_is_told_by_a_simulation_too(mint: Mint) -> None:
    bob = mint.world.wallet("bob", 10_000_000_000)
    assert mint.send(mint.issuer, "iron", bob.address).effects.ok
    mint.change("deny_list_v2_add", "iron", bob.address)
    tx = mint.world.tx()
    tx.send(mint.issuer.address, tx.object(mint.coin(bob, "iron")))
    with pytest.raises(TransactionRejected) as caught:
        mint.world.node.simulate(mint.world.data(tx, bob))
    assert caught.value.kind == "AddressDeniedForCoin"


def test_a_coin_that_is_paused_moves_nowhere(mint: Mint) -> None:
    bob = mint.world.wallet("bob", 10_000_000_000)
    assert mint.send(mint.issuer, "iron", bob.address).effects.ok
    mint.change("deny_list_v2_enable_global_pause", "iron")
    refused(mint, bob, "iron", mint.issuer.address, "CoinTypeGlobalPause")
    assert mint.says("deny_list_v2_is_global_pause_enabled_next_epoch", "iron")
    assert not mint.says("deny_list_v2_is_global_pause_enabled_current_epoch", "iron")

    def made() -> Executed:  # no coin is an input
        tx = mint.world.tx()
        cap = tx.object(mint.owned(mint.issuer, f"0x2::coin::TreasuryCap<{mint.type('iron')}>"))
        tx.send(bob.address, tx.call(SUI, "coin::mint", cap, tx.u64(5), types=(mint.type("iron"),)))
        return mint.world.run(tx, mint.issuer)

    assert made().effects.ok
    mint.world.node.advance_epoch()
    assert failed(made()) == ("CoinTypeGlobalPause", {"coin_type": mint.name("iron")})
    mint.change("deny_list_v2_disable_global_pause", "iron")
    mint.world.node.advance_epoch()
    assert made().effects.ok


def test_only_a_coin_that_says_so_is_paused(mint: Mint) -> None:
    tx = mint.call("deny_list_v2_enable_global_pause", "tin")
    failure = mint.world.fails(tx, mint.issuer, "MoveAbort").effects.error
    assert failure is not None
    assert failure.content["code"] == 3


def test_a_setting_of_one_epoch_is_set_and_unset_as_often_as_one_likes(mint: Mint) -> None:
    bob = mint.world.wallet("bob", 10_000_000_000)
    for function in ("add", "add", "remove", "add", "remove", "remove", "add"):
        mint.change(f"deny_list_v2_{function}", "iron", bob.address)
        assert mint.says("deny_list_v2_contains_next_epoch", "iron", bob.address) == (function == "add")
        assert not mint.says("deny_list_v2_contains_current_epoch", "iron", bob.address)
    mint.world.node.advance_epoch()
    mint.change("deny_list_v2_remove", "iron", bob.address)
    assert mint.says("deny_list_v2_contains_current_epoch", "iron", bob.address)
    assert not mint.says("deny_list_v2_contains_next_epoch", "iron", bob.address)


def test_version_1_denies_who_sends_and_is_taken_over_into_version_2(mint: Mint) -> None:
    bob = mint.world.wallet("bob", 10_000_000_000)
    assert mint.send(mint.issuer, "lead", bob.address).effects.ok
    mint.change("deny_list_add", "lead", bob.address)
    assert mint.says("deny_list_contains", "lead", bob.address)
    refused(mint, bob, "lead", mint.issuer.address, "AddressDeniedForCoin")
    mint.world.node.advance_epoch()
    assert mint.send(mint.issuer, "lead", bob.address).effects.ok
    mint.change("deny_list_remove", "lead", bob.address)
    assert not mint.says("deny_list_contains", "lead", bob.address)
    again = mint.call("deny_list_remove", "lead", bob.address)
    mint.world.fails(again, mint.issuer, "MoveAbort")
    mint.world.fails(mint.call("deny_list_add", "lead", DENY_LIST), mint.issuer, "MoveAbort")
    mint.change("deny_list_add", "lead", bob.address)
    tx = mint.world.tx()
    cap = tx.object(mint.owned(mint.issuer, f"0x2::coin::DenyCap<{mint.type('lead')}>"))
    no = tx.bool(False)
    migrated = tx.call(
        SUI,
        "coin::migrate_regulated_currency_to_v2",
        tx.object(DENY_LIST),
        cap,
        no,
        types=(mint.type("lead"),),
    )
    tx.send(mint.issuer.address, migrated)
    mint.world.ok(tx, mint.issuer)
    assert not mint.says("deny_list_contains", "lead", bob.address)
    assert mint.says("deny_list_v2_contains_next_epoch", "lead", bob.address)
    mint.world.node.advance_epoch()
    kind, _ = failed(mint.send(mint.issuer, "lead", bob.address))
    assert kind == "AddressDeniedForCoin"


def test_looking_costs_gas_for_each_owner_of_a_coin_and_is_named_in_the_effects(mint: Mint) -> None:
    """Coins of SUI cost nothing more, and who changes the list reads it anyway."""
    addresses = [Wallet(f"{number}").address for number in range(12)]

    def sent(coin: str | None, to: list[bytes]) -> Executed:
        tx = mint.world.tx()
        source = mint.world.coins(mint.issuer)[1].id if coin is None else mint.coin(mint.issuer, coin)
        for address, part in zip(to, tx.split(tx.object(source), *[1] * len(to)), strict=True):
            tx.send(address, part)
        return mint.world.ok(tx, mint.issuer)

    same, apart = (sent("iron", to).effects for to in (addresses[:1] * 12, addresses))
    assert dict(same.unchanged) == dict(apart.unchanged) == {DENY_LIST: PerEpochConfig()}
    assert RECEIVER_COST == 150_000  # internal units: 1,000 bytes at 10 each, read at 15
    # Two owners, and thirteen; rounded up to 1,000 units.
    assert (apart.gas_used.computation - same.gas_used.computation) // 1_000_000 in (1, 2)
    plain = [sent(None, to).effects for to in (addresses[:1] * 12, addresses)]
    assert plain[0].gas_used.computation == plain[1].gas_used.computation
    assert not plain[0].unchanged
    assert not mint.change("deny_list_v2_add", "iron", addresses[0]).effects.unchanged
