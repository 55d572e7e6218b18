"""What proves that a deposit was never made: hashes behind a transaction that a server has seen."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtp.chain import Program, model
from dtp.chain import host as host_module
from dtp.chain.errors import ObjectMissing, StaleObject, TransactionFailed
from dtp.chain.model import SUI_COIN
from dtp.chain.wallet import send
from dtp.pay.client.disproof import is_disproved
from dtp.pay.store import DoubtedDeposit
from dtp.pay.terms import MIB
from dtp.sui.names import format_address, format_digest
from dtp.sui.objects import GAS_COIN_TYPE, OBJECT, AddressOwner, MoveObject, ObjectValue, object_digest
from dtp.sui.transaction import (
    GasData,
    ObjectRef,
    OwnedInput,
    ProgrammableTransaction,
    TransactionData,
    transaction_digest,
)

from ..conftest import Market, Play
from .test_paid import cost_of, fetch, give

BUDGET = cost_of(MIB)
DEPOSIT = 1_000_000


def counted(buyer: Any) -> Any:
    chain = buyer["network"]
    place = chain.chain_id, chain.address, SUI_COIN
    return buyer["store"].deposited_since(*place, round(time.time() * 1000) - 3_600_000)


async def open_behind(market: Market, buyer: Any, before: Any, fault: Any) -> None:
    """A connect that is refused for what `before` does, once its opening is signed."""
    chain = buyer["network"]

    async def execute(genuine: Any, data: Any, signatures: Any) -> Any:
        await before(TransactionData.decode(data))
        return await genuine(data, signatures)

    with chain.node.answering(execute=execute), pytest.raises(fault):
        await market.connect(buyer, budget=BUDGET, most_per_day=4 * BUDGET)
    chain.forget_objects(Program())


async def connect_well(market: Market, buyer: Any) -> Any:
    async with market.connect(
        buyer, budget=BUDGET, most_per_day=4 * BUDGET, most_per_host=99 * BUDGET
    ) as connection:
        assert await fetch(connection, 1000) == 1000
    return connection.paid


def test_what_another_program_of_the_wallet_took_the_coin_of_is_given_back_to_the_day(market: Play) -> None:
    """Ten honest refusals reached the limit of a day."""

    async def scenario(market: Market) -> None:
        if market.chain.localnet is None:
            pytest.skip("ten openings that fail take more than a test's wallet has on a real network")
        await market.serve(give)
        buyer = await market.buyer()
        other = await market.client(buyer["wallet"])
        paid = 0

        async def use_coins(signed: Any) -> None:
            program = Program()
            program.transfer([format_address(each.id) for each in signed.gas_data.payment], other.address)
            await other.execute(program)

        for _ in range(5):
            for _ in range(2):
                await open_behind(market, buyer, use_coins, StaleObject)
            assert counted(buyer) == paid + 2 * BUDGET
            paid += await connect_well(market, buyer)
            assert counted(buyer) == paid
        assert len(buyer["store"].kept_keys()) == 10  # they stay, should that chain be made up

    market(scenario)


def test_an_opening_that_failed_is_given_back_by_what_its_coin_still_holds(market: Play) -> None:
    async def scenario(market: Market) -> None:
        serving = await market.serve(give)
        buyer = await market.buyer()

        async def switch(open: Any) -> None:
            program = Program()
            (cap,) = await serving.chain.owned(host_module.SCHEMA, host_module.HostCap, serving.chain.address)
            host = await serving.chain.read(host_module.SCHEMA, host_module.Host, cap.host)
            (number,) = host.services
            host_module.set_open(program, host.id, cap.id, number, open)
            await serving.chain.execute(program)

        async def close(signed: Any) -> None:
            await switch(False)

        await open_behind(market, buyer, close, TransactionFailed)
        await switch(True)
        assert counted(buyer) == BUDGET
        paid = await connect_well(market, buyer)
        assert counted(buyer) == paid

    market(scenario)


def told_otherwise(lie: Any, denied: Any) -> Any:
    """The answers of a node that lies about what became of the coins of what it denies."""

    async def read(genuine: Any, ids: Any, version: Any = None) -> Any:
        told = await genuine(ids, version)
        return told if version is None else {id: lied(each) for id, each in told.items() if lie != "nothing"}

    def lied(found: Any) -> Any:
        if lie == "writer" and found.previous_transaction == denied[-1]:
            found = replace(found, previous_transaction=denied[0])
        if lie == "balance" and found.previous_transaction == denied[-1]:
            contents = found.contents[:32] + (10**10).to_bytes(8, "little")
            found = replace(found, contents=contents)
        if lie == "owner":
            found = replace(found, owner=replace(found.owner, kind="object", address=""))
        return found

    async def data_of(genuine: Any, digest: Any) -> Any:
        return await genuine(denied[0] if lie == "inputs" else digest)

    return {"objects": read, "transaction_data": data_of}


@pytest.mark.parametrize("lie", ["", "writer", "balance", "owner", "nothing", "inputs"])
def test_a_node_that_makes_up_what_became_of_the_coins_has_nothing_given_back(market: Play, lie: Any) -> None:
    """It denies what it has executed, to have more deposited than the limit of a day."""

    async def scenario(market: Market) -> None:
        await market.serve(give)
        buyer = await market.buyer()
        chain, denied = buyer["network"], []
        denied.append((await send(chain, chain.address, 1000)).digest)

        async def execute(genuine: Any, data: Any, signatures: Any) -> None:
            executed = (await genuine(data, signatures)).executed
            denied.append(executed.digest)
            raise TransactionFailed("failed, says the node", kind="MOVE_ABORT")

        async def transaction(_: Any, digest: Any) -> None:
            raise TransactionFailed("failed, says the node", kind="MOVE_ABORT")

        with chain.node.answering(execute=execute, transaction=transaction):
            with pytest.raises(TransactionFailed):
                await market.connect(buyer, budget=BUDGET)
            chain.forget_objects(Program())
        with chain.node.answering(transaction=transaction, **told_otherwise(lie, denied)):
            paid = await connect_well(market, buyer)
        assert counted(buyer) == BUDGET + paid

    market(scenario)


class Ledger:
    """A chain of coins alone, with the hashes of Sui: transactions use them, and some of these never get there."""

    def __init__(self, coins: Any) -> None:
        self.owner, self.versions, self.data = bytes(32), {}, {}
        for number in range(coins):
            self._write(bytes([number + 1] * 32), 1, 10 * DEPOSIT, bytes([9] * 32))

    def _write(self, id: Any, version: Any, balance: Any, by: Any) -> None:
        coin = MoveObject(GAS_COIN_TYPE, True, version, id + balance.to_bytes(8, "little"))
        self.versions.setdefault(id, []).append(ObjectValue(coin, AddressOwner(self.owner), by, 988_000))

    def ref(self, id: Any, back: int = 0) -> Any:
        value = self.versions[id][-1 - back]
        return ObjectRef(id, value.data.version, object_digest(OBJECT.encode(value)))

    def make(self, refs: Any, nonce: Any, as_input: bool = False) -> Any:
        """A transaction over these coins that pay, or whose last one is an input."""
        inputs = tuple(OwnedInput(refs[-1]) for _ in range(as_input))
        payment = tuple(refs[:-1] if as_input else refs)
        kind = ProgrammableTransaction(inputs, ())
        return TransactionData(kind, self.owner, GasData(payment, self.owner, 1000, nonce)).encode()

    def execute(self, data: Any, taken: Any) -> None:
        """What pays is merged into the first of it; others stay."""
        decoded, digest = TransactionData.decode(data), transaction_digest(data)
        self.data[format_digest(digest)] = data
        payment = [each.id for each in decoded.gas_data.payment]
        inputs = [each.ref.id for each in decoded.kind.inputs]
        version = 1 + max(self.versions[id][-1].data.version for id in payment + inputs)
        held = {id: self.balance(id) for id in payment + inputs}
        self._write(payment[0], version, sum(held[id] for id in payment) - taken - 1000, digest)
        for id in inputs:
            self._write(id, version, held[id], digest)
        for id in payment[1:]:
            del self.versions[id]

    def balance(self, id: Any) -> Any:
        return int.from_bytes(self.versions[id][-1].data.contents[32:], "little")

    async def object(self, id: Any, version: Any) -> Any:
        for value in self.versions.get(bytes.fromhex(id[2:]), ()):
            if value.data.version == version:
                return model.ObjectData(
                    model.ObjectRef(id, version, format_digest(object_digest(OBJECT.encode(value)))),
                    model.Owner("address", format_address(self.owner), 0),
                    "0x2::coin::Coin<0x2::sui::SUI>",
                    value.data.contents,
                    None,
                    format_digest(value.previous_transaction),
                    value.storage_rebate,
                )
        raise ObjectMissing(id)

    async def transaction_data(self, digest: Any) -> Any:
        return self.data.get(digest)


class Liar:
    """Answers with what is drawn in place of what was asked for, or with a transaction that it has made up."""

    def __init__(self, ledger: Any, draw: Any, made_up: Any) -> None:
        self._ledger, self._draw, self._made_up = ledger, draw, made_up

    async def object(self, id: Any, version: Any) -> Any:
        found = await self._ledger.object(id, version)
        if self._draw(st.booleans()):
            others = [each for versions in self._ledger.versions.values() for each in versions]
            other = self._draw(st.sampled_from(others))
            found = replace(
                found,
                previous_transaction=format_digest(other.previous_transaction),
                contents=other.data.contents,
            )
        return found

    async def transaction_data(self, digest: Any) -> Any:
        true = self._ledger.data.get(digest)
        return self._draw(st.sampled_from([true, self._made_up, *self._ledger.data.values()]))


def play(work: Any) -> Any:
    """Run a coroutine that waits for nothing."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waits")


@given(st.data(), st.sampled_from(["never", "failed", "made"]), st.booleans())
def test_only_what_was_never_made_is_proven_so_in_any_history(data: Any, fate: Any, lies: Any) -> None:
    ledger = Ledger(4)
    coins = st.sampled_from(sorted(ledger.versions))

    def use(nonce: Any) -> None:
        chosen = list(data.draw(st.lists(coins, min_size=1, max_size=2, unique=True)))
        refs = [ledger.ref(each) for each in chosen if each in ledger.versions]
        if refs:
            ledger.execute(ledger.make(refs, nonce, len(refs) > 1 and data.draw(st.booleans())), 5)

    for nonce in range(data.draw(st.integers(0, 3))):
        use(nonce)
    payment = data.draw(
        st.lists(st.sampled_from(sorted(ledger.versions)), min_size=1, max_size=2, unique=True)
    )
    amount = 5 * DEPOSIT
    lost, other = (ledger.make([ledger.ref(each) for each in payment], nonce) for nonce in (100, 101))
    if fate != "never":
        ledger.execute(lost, amount if fate == "made" else 0)
    for nonce in range(data.draw(st.integers(0, 4))):
        use(200 + nonce)
    known = ledger.make([ledger.ref(each) for each in sorted(ledger.versions)][:2], 300)
    doubted = DoubtedDeposit(format_digest(transaction_digest(lost)), SUI_COIN, amount, lost)
    node = Liar(ledger, data.draw, other) if lies else ledger
    proven = play(is_disproved(node, doubted, known))
    if fate == "made":
        assert not proven
    elif not lies:
        uses = {each.id for each in TransactionData.decode(known).gas_data.payment}
        assert proven or payment[0] not in uses or (fate == "failed" and len(payment) > 1)


def test_inputs_that_a_node_makes_up_prove_nothing() -> None:
    """Once a later transaction has used the coin, what wrote it before is told by that one's inputs."""
    ledger = Ledger(1)
    (coin,) = ledger.versions
    lost, other = (ledger.make([ledger.ref(coin)], nonce) for nonce in (1, 2))
    ledger.execute(lost, DEPOSIT)
    later = ledger.make([ledger.ref(coin)], 3)
    ledger.execute(later, 0)
    known = ledger.make([ledger.ref(coin)], 4)
    doubted = DoubtedDeposit(format_digest(transaction_digest(lost)), SUI_COIN, DEPOSIT, lost)
    assert not play(is_disproved(ledger, doubted, known))
    ledger.data[format_digest(transaction_digest(later))] = other
    assert not play(is_disproved(ledger, doubted, known))


def test_another_coin_is_not_proven_by_the_coin_that_paid_for_gas() -> None:
    ledger = Ledger(1)
    (coin,) = ledger.versions
    lost = ledger.make([ledger.ref(coin)], 1)
    ledger.execute(lost, 0)
    doubted = DoubtedDeposit(format_digest(transaction_digest(lost)), SUI_COIN, DEPOSIT, lost)
    known = ledger.make([ledger.ref(coin)], 2)
    assert play(is_disproved(ledger, doubted, known))
    assert not play(is_disproved(ledger, replace(doubted, coin="0x5::usdc::USDC"), known))


def test_a_coin_that_was_used_often_since_is_followed_so_far_and_no_further() -> None:
    ledger = Ledger(1)
    (coin,) = ledger.versions
    lost = ledger.make([ledger.ref(coin)], 1)
    doubted = DoubtedDeposit(format_digest(transaction_digest(lost)), SUI_COIN, DEPOSIT, lost)
    verdicts = []
    for nonce in range(40):
        ledger.execute(ledger.make([ledger.ref(coin)], 10 + nonce), 0)
        verdicts.append(play(is_disproved(ledger, doubted, ledger.make([ledger.ref(coin)], 500))))
    assert verdicts[:31] == [True] * 31
    assert verdicts[33:] == [False] * 7
