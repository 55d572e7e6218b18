"""The client against a node: round trips and gas, queues of coins and objects, reading."""

import asyncio

import pytest

from dtp.chain import ChainClient, Deployments, KeySigner, Program, publish
from dtp.chain import host as hosts
from dtp.chain.errors import (
    InsufficientFunds,
    ProgramError,
)
from dtp.chain.model import SUI_COIN, canonical_type
from dtp.chain.node.gas import GasPool, ObjectQueues
from dtp.chain.wallet import send, split_gas
from dtp.sui.transaction import TransactionData

from ..conftest import give, idle_coins, run

COIN = canonical_type("0x2::coin::Coin<0x2::sui::SUI>")


# ---- round trips and gas


def test_two_round_trips_for_a_transaction_one_with_a_budget(client, wallet, calls):
    signer = wallet()

    async def work():
        async with client(signer) as chain:
            calls.trips()
            trips = []
            for budget in (None, None, 5_000_000):
                await chain.execute(give(), gas_budget=budget)
                trips.append(calls.trips())
            # Objects that were never seen: still two.
            program = Program()
            hosts.create(program, signer.address)
            created = chain.events_in(await chain.execute(program), hosts.SCHEMA, hosts.HostCreated)[0]
            trips.append(calls.trips())
        async with client(signer) as other:
            calls.trips()
            program = Program()
            cap = (await other.owned(hosts.SCHEMA, hosts.HostCap, signer.address))[0]
            calls.trips()
            hosts.set_ttl(program, created.beacon, cap.id, 20_000)
            await other.execute(program)
            trips.append(calls.trips())
            return trips

    assert run(work()) == [2, 2, 1, 2, 2]


def test_the_gas_is_found_and_the_coin_is_kept(client, wallet):
    signer = wallet()

    async def work():
        async with client(signer) as chain:
            before = (await chain.balance(signer.address)).total
            spent = 0
            for _ in range(4):
                executed = await chain.execute(give(amount=7))
                spent += executed.gas.net + 7
                (coin,) = idle_coins(chain)
                assert coin.balance == before - spent
                assert coin.ref == (await chain.object(coin.ref.id)).ref
            assert (await chain.balance(signer.address)).total == before - spent
            assert len(await chain.coins(signer.address)) == 1

    run(work())


def test_the_budget_covers_and_is_not_all_there_is(client, wallet, calls):
    """The budget follows the simulation; an account with little more than the gas suffices."""
    signer = wallet(amount=8_000_000)

    async def work():
        async with client(signer) as chain:
            first = await chain.execute(give(amount=1))
            second = await chain.execute(give(amount=1))
            assert first.gas.net + second.gas.net + 2 <= 8_000_000
            return TransactionData.decode(calls.sent[-1]).gas_data.budget

    assert run(work()) < 8_000_000


def test_small_coins_are_joined_when_one_is_not_enough(client, wallet):
    signer = wallet(amount=30_000_000, coins=5)

    async def work():
        async with client(signer) as chain:
            await chain.execute(give(amount=1))  # one coin of the five pays
            await chain.execute(give(amount=100_000_000))  # which takes four
            return await chain.balance("0x5")

    assert run(work()).total >= 100_000_001


def test_too_little_money(client, wallet, net):
    signer = wallet(amount=20_000_000)

    async def work():
        async with client(signer) as chain:
            with pytest.raises(InsufficientFunds, match=signer.address):
                await chain.execute(give(amount=50_000_000))
        poor = KeySigner.generate()
        async with client(poor) as chain:
            with pytest.raises(InsufficientFunds, match="faucet"):
                await chain.execute(give())

    run(work())


def test_costs_have_a_limit(client, wallet):
    signer = wallet()

    async def work():
        async with client(signer, max_gas=3_000_000) as chain:
            program = Program()
            hosts.create(program, signer.address)
            with pytest.raises(ProgramError, match="max_gas"):
                await chain.execute(program)
            with pytest.raises(ProgramError, match="max_gas"):
                await chain.execute(give(), gas_budget=4_000_000)

    run(work())


# ---- queues


def test_one_gas_coin_is_used_by_one_at_a_time(client, wallet):
    signer = wallet()

    async def work():
        async with client(signer) as chain:
            executed = await asyncio.gather(*(chain.execute(give(amount=n)) for n in range(1, 13)))
            assert len({each.digest for each in executed}) == 12
            versions = [each.objects[each.gas_object].version for each in executed]
            assert len(set(versions)) == 12
            return await chain.coins(signer.address)

    assert len(run(work())) == 1


def test_several_gas_coins_run_at_once(client, wallet, calls):
    signer = wallet()
    inside, most = 0, 0

    async def execute(plain, *arguments):
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        for _ in range(20):
            await asyncio.sleep(0)
        try:
            return await plain(*arguments)
        finally:
            inside -= 1

    async def work():
        async with client(signer) as chain:
            await split_gas(chain, 3, 500_000_000)
            calls.answers["execute"] = execute
            await asyncio.gather(*(chain.execute(give(amount=n)) for n in range(1, 13)))
            assert len(idle_coins(chain)) == 4

    run(work())
    assert most == 4


def test_programs_over_one_owned_object_wait_for_each_other(client, wallet):
    signer = wallet()

    async def work():
        async with client(signer) as chain:
            await split_gas(chain, 3, 500_000_000)
            program = Program()
            hosts.create(program, signer.address)
            created = chain.events_in(await chain.execute(program), hosts.SCHEMA, hosts.HostCreated)[0]
            (cap,) = await chain.owned(hosts.SCHEMA, hosts.HostCap, signer.address)

            async def set_ttl(seconds):
                program = Program()
                hosts.set_ttl(program, created.beacon, cap.id, seconds * 1000)
                return await chain.execute(program)

            await asyncio.gather(*(set_ttl(n) for n in range(20, 32)))

    run(work())


def test_queues_let_go_when_their_task_is_cancelled():
    async def work():
        queues, pool = ObjectQueues(), GasPool()
        order = []

        async def use(name, ids, wait):
            async with queues.hold_objects(ids), pool.acquire_slot() as slot:
                order.append((name, slot.coin))
                if wait is not None:
                    await wait.wait()

        never = asyncio.Event()
        first = asyncio.ensure_future(use("first", ["a", "b"], never))
        await asyncio.sleep(0)
        waiting = [asyncio.ensure_future(use(name, ["b", "a"], None)) for name in ("second", "third")]
        await asyncio.sleep(0)
        waiting[0].cancel()
        first.cancel()
        await asyncio.gather(first, *waiting, return_exceptions=True)
        return order

    assert run(work()) == [("first", None), ("third", None)]


# ---- reading


def test_views_need_neither_gas_nor_a_signer(client, wallet):
    signer = wallet()

    async def work():
        async with client(signer) as chain:
            program = Program()
            hosts.create(program, signer.address)
            created = chain.events_in(await chain.execute(program), hosts.SCHEMA, hosts.HostCreated)[0]
        async with client() as reader:
            program = Program()
            arguments = [program.object(created.host, mutable=False), program.pure("address", "0x5")]
            program.call("transport", "host", "is_denied", arguments)
            seen = await reader.simulate(program, sender="0x1", checks=False)
            return seen.returned

    assert run(work()) == ((("bool", b"\0"),),)


def test_pages_are_read_to_the_end(client, wallet):
    signer = wallet(amount=1_000_000, coins=230)

    async def work():
        async with client() as chain:
            coins = await chain.coins(signer.address)
            assert (await chain.balance(signer.address)).total == 230_000_000
            (balance,) = await chain.balances(signer.address)
            assert balance.total == 230_000_000
            assert all(each.type == COIN and each.balance == 1_000_000 for each in coins)
            return len({each.id for each in coins})

    assert run(work()) == 230


def test_sending_other_coins_and_nothing(client, wallet):
    async def work():
        async with client(wallet()) as chain:
            with pytest.raises(ProgramError, match="must be above 0"):
                await send(chain, "0x5", 0)
            with pytest.raises(InsufficientFunds, match="has 0 of 0x9::m::NONE"):
                await send(chain, "0x5", 1, "0x9::m::NONE")

    run(work())


def test_publishing_twice_is_once(network, wallet, tmp_path):
    signer = wallet()

    async def work():
        path = tmp_path / "packages.json"
        async with ChainClient(network, signer, deployments=path) as chain:
            first, executed = await publish(chain, "escrow")
            assert executed is not None
        async with ChainClient(network, signer, deployments=path) as chain:
            second, nothing = await publish(chain, "escrow")
            assert (second, nothing) == (first, None)
            third, executed = await publish(chain, "escrow", again=True)
            assert executed is not None
            assert third.id != first.id
            assert Deployments(chain.chain_id, path).find("escrow") == third
            info = await chain.package(third.id)
            assert (info.original_id, info.version, list(info.modules)) == (third.id, 1, ["lock"])

    run(work())


def test_a_coin_whose_type_nests_as_deep_as_can_be_is_listed(client, wallet):
    """Anybody can make one that is worth nothing, and send it: nothing else of the account would be shown."""
    deep = "vector<" * 15 + "u8" + ">" * 15

    async def work():
        async with client(wallet()) as anybody, client(wallet()) as chain:
            program = Program()
            (coin,) = program.call("0x2", "coin", "zero", type_arguments=[deep])
            program.transfer([coin], chain.address)
            await anybody.execute(program)
            told = {each.coin: each.total for each in await chain.balances(chain.address)}
            assert told == {SUI_COIN: 10_000_000_000, deep: 0}

    run(work())
