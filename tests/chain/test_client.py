"""The client against a node: round trips, gas, queues, lost answers, and every error with its name."""

import asyncio
import contextlib
from collections import Counter
from dataclasses import replace

import pytest

from dtp.chain import ChainClient, Deployments, KeySigner, Network, Program, failures, publish
from dtp.chain import host as hosts
from dtp.chain._wire import Wire
from dtp.chain.endpoints import Endpoints, Retry
from dtp.chain.errors import (
    MALFORMED,
    ClientClosed,
    InsufficientFunds,
    MalformedObject,
    MoveAborted,
    NodeRefused,
    NodeUnavailable,
    ObjectMissing,
    OutcomeUnknown,
    PackageNotPublished,
    ProgramError,
    SignerError,
    StaleObject,
    TransactionFailed,
    TransactionRefused,
    WrongNetwork,
    WrongObjectType,
    was_signed,
)
from dtp.chain.gas import GasPool, ObjectQueues
from dtp.chain.model import canonical_type
from dtp.chain.wallet import send, split_gas
from dtp.localnet.grpc.localnet import LocalnetThread

from .conftest import run

COIN = canonical_type("0x2::coin::Coin<0x2::sui::SUI>")


async def no_pause(seconds):
    await asyncio.sleep(0)


class Calls:
    """Counts the calls to a node, and can lose answers: each entry of `lose` is (method, before or after)."""

    def __init__(self, monkeypatch):
        self.count = Counter()
        self.lose = []
        self.sent = []
        plain = Wire._call

        async def call(wire, service, method, message):
            self.count[method] += 1
            if method == "execute_transaction":
                self.sent.append(bytes(message))
            fault = next((each for each in self.lose if each[0] == method), None)
            if fault is not None:
                self.lose.remove(fault)
                if fault[1] == "after":
                    await plain(wire, service, method, message)
                raise NodeUnavailable("the test lost this")
            return await plain(wire, service, method, message)

        monkeypatch.setattr(Wire, "_call", call)

    def trips(self):
        found, self.count = sum(self.count.values()), Counter()
        return found


@pytest.fixture
def calls(monkeypatch):
    return Calls(monkeypatch)


def give(recipient="0x5", amount=1000):
    program = Program()
    program.transfer(list(program.split(program.gas, [amount])), recipient)
    return program


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
                (coin,) = chain._gas.idle
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
            from dtp.localnet.grpc.messages import library

            sent = library().v2.ExecuteTransactionRequest.parse(calls.sent[-1])
            from dtp.sui.transaction import TransactionData

            return TransactionData.decode(sent.transaction.bcs.value).gas_data.budget

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


def test_several_gas_coins_run_at_once(client, wallet, monkeypatch):
    signer = wallet()
    inside, most = 0, 0
    plain = Wire.execute

    async def execute(wire, *arguments):
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        for _ in range(20):
            await asyncio.sleep(0)
        try:
            return await plain(wire, *arguments)
        finally:
            inside -= 1

    async def work():
        async with client(signer) as chain:
            await split_gas(chain, 3, 500_000_000)
            monkeypatch.setattr(Wire, "execute", execute)
            await asyncio.gather(*(chain.execute(give(amount=n)) for n in range(1, 13)))
            assert len(chain._gas.idle) == 4

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
            async with queues.holding(ids), pool.take() as slot:
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


# ---- what may go wrong


def test_an_abort_has_the_name_in_the_source(client, wallet):
    signer = wallet()

    async def work():
        async with client(signer) as chain:
            program = Program()
            hosts.create(program, signer.address, ttl_ms=5)
            before = (await chain.balance(signer.address)).total
            with pytest.raises(MoveAborted) as simulated:
                await chain.execute(program)
            assert (await chain.balance(signer.address)).total == before
            await chain.execute(give())  # now the gas coin is known, and a budget saves the simulation
            with pytest.raises(MoveAborted) as executed:
                await chain.execute(program, gas_budget=20_000_000)
            return simulated.value, executed.value

    simulated, executed = run(work())
    for error in (simulated, executed):
        assert error.error is hosts.HostError.BAD_TTL
        assert (error.name, error.number, error.command) == ("EBadTtl", 18, 0)
        assert (error.place.module, error.place.function) == ("host", "assert_ttl")
        assert "ttl_ms is between ten seconds and one day" in str(error)
        assert error.code == "move_abort"
    assert simulated.simulated
    assert executed.executed.gas.net > 0


def test_an_abort_of_someone_elses_package(client, wallet):
    signer = wallet()

    async def work():
        async with client(signer) as chain:
            program = Program()
            (vector,) = program.call("0x1", "vector", "empty", type_arguments=["u64"])
            program.call("0x1", "vector", "pop_back", [vector], ["u64"])
            with pytest.raises(TransactionFailed) as failed:
                await chain.execute(program)
            return failed.value

    assert run(work()).kind in ("MOVE_PRIMITIVE_RUNTIME_ERROR", "MOVE_ABORT")


def test_a_function_that_is_not_there(client, wallet):
    signer = wallet()

    async def work():
        async with client(signer) as chain:
            program = Program()
            program.call("transport", "host", "nothing")
            with pytest.raises((TransactionFailed, TransactionRefused)) as failed:
                await chain.execute(program)
            return str(failed.value)

    assert "function" in run(work()).lower()


def test_a_package_that_is_not_published(network, wallet):
    signer = wallet()

    async def work():
        async with ChainClient(network, signer, deployments=None) as chain:
            program = Program()
            hosts.create(program, signer.address)
            with pytest.raises(PackageNotPublished, match="dtp move publish transport"):
                await chain.execute(program)
            with pytest.raises(PackageNotPublished):
                await chain.read(hosts.SCHEMA, hosts.Host, "0x6")

    run(work())


def test_an_object_of_a_package_that_is_not_known_here_says_how_to_use_it(
    client, wallet, network, deployments
):
    signer = wallet()

    async def work():
        async with client(signer) as chain:
            program = Program()
            hosts.create(program, signer.address)
            made = chain.events_in(await chain.execute(program), hosts.SCHEMA, hosts.HostCreated)[0]
        async with ChainClient(network, deployments=None) as stranger:
            used = f"dtp move use transport {deployments.original_id('transport')}"
            with pytest.raises(PackageNotPublished, match=used):
                await stranger.read(hosts.SCHEMA, hosts.Host, made.host)
            with pytest.raises(
                PackageNotPublished, match="dtp move publish transport"
            ):  # no host: nothing of it
                await stranger.read(hosts.SCHEMA, hosts.Host, made.beacon)

    run(work())


def test_a_package_with_a_missing_dependency(client, wallet):
    from dtp.chain import packages

    signer = wallet()

    async def work():
        async with client(signer) as chain:
            program = Program()
            cap = program.publish(packages.load("escrow").modules.values(), ["0x1", "0x77777"])
            program.transfer([cap], signer.address)
            with pytest.raises((TransactionFailed, TransactionRefused)) as failed:
                await chain.execute(program)
            return str(failed.value)

    assert "depend" in run(work()).lower() or "package" in run(work()).lower()


def test_objects_that_are_missing_or_others(client):
    async def work():
        async with client() as chain:
            with pytest.raises(ObjectMissing, match=r"0x0+77"):
                await chain.object("0x77")
            with pytest.raises(ObjectMissing, match="at version 99"):
                await chain.object("0x6", 99)
            with pytest.raises(WrongObjectType, match="clock::Clock"):
                await chain.read(hosts.SCHEMA, hosts.Host, "0x6")
            assert await chain.objects(["0x77", "0x6"]) == {
                (await chain.object("0x6")).id: await chain.object("0x6")
            }

    run(work())


def test_an_object_is_the_one_that_was_asked_for(client, wallet, monkeypatch):
    """A node that gives another one's contents would have money sent there."""
    signer = wallet()

    async def work():
        async with client(signer) as chain:
            made = []
            for _ in range(2):
                program = Program()
                hosts.create(program, signer.address)
                made += chain.events_in(await chain.execute(program), hosts.SCHEMA, hosts.HostCreated)
            asked, other = (each.host for each in made)
            theirs = await chain.object(other)
            lie = replace(theirs, ref=replace(theirs.ref, id=asked))
            assert (await chain.read(hosts.SCHEMA, hosts.Host, asked)).id == asked

            async def objects(wire, ids, version=None):
                return {asked: lie}

            monkeypatch.setattr(Wire, "objects", objects)
            with pytest.raises(MalformedObject, match=f"is {other} for {asked}"):
                await chain.read(hosts.SCHEMA, hosts.Host, asked)

    run(work())


def test_a_client_without_a_signer_reads_only(client):
    async def work():
        async with client() as chain:
            assert (await chain.epoch()).gas_price > 0
            with pytest.raises(SignerError, match="no signer"):
                await chain.execute(give())

    run(work())


def test_a_stale_reference_is_looked_up_again(client, wallet):
    """Two clients of one account don't know of each other's transactions."""
    signer = wallet()

    async def work():
        async with client(signer) as one, client(signer) as two:
            await one.execute(give())
            await two.execute(give())  # changes the coin that `one` knows
            stale = one._gas.idle
            await one.execute(give())
            assert one._gas.idle[0].ref.version > stale[0].ref.version
            # With a budget nothing is simulated. What was signed isn't built anew unasked.
            with pytest.raises(StaleObject) as refused:
                await two.execute(give(), gas_budget=5_000_000)
            assert refused.value.digest
            await two.execute(give(), gas_budget=5_000_000)

    run(work())


def test_a_stale_reference_that_stays_stale_is_an_error(client, wallet, monkeypatch):
    signer, asked = wallet(), []

    async def refuse(wire, *arguments, **options):
        asked.append(arguments)
        raise NodeRefused("Object 0x1 Version 5 is not available for consumption", "INVALID_ARGUMENT")

    async def work():
        async with client(signer, sleep=no_pause) as chain:
            monkeypatch.setattr(Wire, "simulate", refuse)
            with pytest.raises(StaleObject, match="build it anew") as stale:
                await chain.execute(give())
            assert not stale.value.digest
        assert len(asked) == 5

    run(work())


def test_a_gift_that_was_signed_says_so(client, wallet, monkeypatch):
    async def refuse(wire, *arguments):
        raise NodeRefused("GasBalanceTooLow", "INVALID_ARGUMENT")

    async def work():
        async with client(wallet()) as chain:
            monkeypatch.setattr(Wire, "execute", refuse)
            with pytest.raises(InsufficientFunds, match="too little") as refused:
                await send(chain, "0x9", 5)
            assert was_signed(refused.value)
            with pytest.raises(InsufficientFunds, match="too little") as refused:
                await send(chain, "0x9", 10**15)
            assert not was_signed(refused.value)

    run(work())


@pytest.mark.parametrize("why", ["Object 0x1 Version 5 is not available for consumption", "GasPriceUnderRGP"])
@pytest.mark.parametrize("others", [0, 1])
def test_a_node_that_lies_about_what_was_signed_has_it_done_once(
    client, wallet, net, monkeypatch, why, others
):
    """It executes, and says that it didn't: another endpoint knows better, and without one nobody signs again."""
    signer, genuine, lied = wallet(), Wire.execute, []

    async def lie(wire, data, signatures):
        lied.append(await genuine(wire, data, signatures))
        raise NodeRefused(why, "INVALID_ARGUMENT")

    async def work():
        network = Network("several", (net.url,) * (1 + others))
        async with ChainClient(network, signer, deployments=None, sleep=no_pause) as chain:
            before = (await chain.balance("0x9")).total
            monkeypatch.setattr(Wire, "execute", lie)
            if others:
                assert await chain.execute(give("0x9", 5)) == lied[0].executed
            else:
                with pytest.raises(TransactionRefused) as refused:
                    await chain.execute(give("0x9", 5))
                assert refused.value.digest == lied[0].executed.digest
            assert (await chain.balance("0x9")).total == before + 5
        assert len(lied) == 1

    run(work())


def test_two_programs_with_the_same_account(client, wallet):
    """Both pay with the same coin and know nothing of each other: whoever comes late builds anew, or hears of it."""
    signer = wallet()

    async def insist(chain):
        with contextlib.suppress(StaleObject):
            return await chain.execute(give())
        return await insist(chain)

    async def work():
        async with client(signer) as first, client(signer) as second:
            await asyncio.gather(*(insist(each) for each in (first, second) for _ in range(3)))
            return (await first.balance(signer.address)).total, [
                each.id for each in await first.coins(signer.address)
            ]

    left, coins = run(work())
    assert left < 10_000_000_000 - 6 * 1000
    assert len(coins) == 1


def test_an_empty_program(client, wallet):
    async def work():
        async with client(wallet()) as chain:
            for work in (chain.execute, chain.simulate):
                with pytest.raises(ProgramError, match="empty"):
                    await work(Program())

    run(work())


def test_a_new_epoch_with_another_price(client, wallet, net):
    signer = wallet()

    async def work():
        async with client(signer) as chain:
            await chain.execute(give())
            price = chain._epoch.gas_price
            await asyncio.to_thread(net.run, lambda node: node.advance_epoch(reference_gas_price=price + 500))
            try:
                await chain.execute(give())
                await chain.execute(give(), gas_budget=10_000_000)
                assert chain._epoch.gas_price == price + 500
            finally:
                await asyncio.to_thread(net.run, lambda node: node.advance_epoch(reference_gas_price=price))

    run(work())


# ---- lost answers


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("times", [1, 3])
def test_identical_bytes_are_sent_again(client, wallet, calls, when, times):
    """Whether the node got the transaction or not: it is executed once, and its effects are given."""
    signer = wallet()

    async def work():
        async with client(signer, sleep=no_pause) as chain:
            before = (await chain.balance("0x7")).total
            calls.lose = [("execute_transaction", when)] * times
            executed = await chain.execute(give("0x7", 123))
            assert (await chain.balance("0x7")).total == before + 123
            assert len(set(calls.sent)) == 1
            assert len(calls.sent) == times + 1
            assert (await chain.transaction(executed.digest)).digest == executed.digest

    run(work())


def test_a_transaction_that_nobody_waits_for_any_more_keeps_its_gas(client, wallet, monkeypatch):
    """Else the next one would pay with the same version of the coin, and have it locked for the epoch."""
    genuine, asked, closed = {name: getattr(Wire, name) for name in ("execute", "simulate")}, [], []

    async def work():
        sent, answered = asyncio.Event(), asyncio.Event()

        async def execute(wire, *arguments):
            sent.set()
            await answered.wait()
            return await genuine["execute"](wire, *arguments)

        async def simulate(wire, *arguments, **options):
            asked.append(arguments)
            return await genuine["simulate"](wire, *arguments, **options)

        async with client(wallet()) as chain:
            before = (await chain.balance("0xa")).total
            monkeypatch.setattr(Wire, "execute", execute)
            monkeypatch.setattr(Wire, "simulate", simulate)
            first = asyncio.create_task(chain.execute(give("0xa", 5)))
            await sent.wait()
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            second = asyncio.create_task(chain.execute(give("0xa", 6)))
            for _ in range(20):
                await asyncio.sleep(0)
            assert len(asked) == 1  # it waits for the coin
            answered.set()
            await second
            assert (await chain.balance("0xa")).total == before + 11
            # Whoever closes it meanwhile closes no connection under what is under way.
            close = chain.endpoints.close
            monkeypatch.setattr(
                chain.endpoints, "close", lambda: close() or closed.append(len(chain._sending))
            )
            sent.clear()
            answered.clear()
            third = asyncio.create_task(chain.execute(give("0xa", 7)))
            await sent.wait()
        assert closed == []
        answered.set()
        await third
        await asyncio.sleep(0)
        assert closed == [0]

    run(work())


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_outcome_that_stays_unknown(client, wallet, calls, when):
    signer = wallet()

    async def work():
        retry = Retry(attempts=3)
        async with client(signer, sleep=no_pause, retry=retry) as chain:
            before = (await chain.balance("0x8")).total
            calls.lose = [("execute_transaction", when)] * 3 + [("get_transaction", "before")]
            with pytest.raises(OutcomeUnknown) as unknown:
                await chain.execute(give("0x8", 5))
            assert not chain._gas.idle  # its coin is in an unknown state
            executed = await chain.resubmit(unknown.value)
            assert executed.digest == unknown.value.digest
            assert (await chain.wait_for(executed.digest)).digest == executed.digest
            await chain.execute(give("0x8", 6))
            assert (await chain.balance("0x8")).total == before + 11

    run(work())


@pytest.mark.parametrize("known", [True, False])
def test_an_answer_that_is_none_leaves_the_outcome_open(client, wallet, monkeypatch, known):
    """The transaction was executed and the answer can't be read: it is looked up, or said to be unknown."""
    plain = Wire.execute

    async def garbled(wire, *arguments):
        await plain(wire, *arguments)
        raise NodeRefused("what is no answer", MALFORMED)

    async def unreadable(wire, digest):
        raise NodeRefused("what is no answer", MALFORMED)

    async def work():
        async with client(wallet(), sleep=no_pause, retry=Retry(attempts=2)) as chain:
            before = (await chain.balance("0x9")).total
            monkeypatch.setattr(Wire, "execute", garbled)
            if known:
                await chain.execute(give("0x9", 5))
            else:
                monkeypatch.setattr(Wire, "transaction", unreadable)
                with pytest.raises(OutcomeUnknown):
                    await chain.execute(give("0x9", 5))
            assert (await chain.balance("0x9")).total == before + 5

    run(work())


def test_a_lost_simulation_changes_nothing(client, wallet, calls):
    async def work():
        async with client(wallet(), sleep=no_pause) as chain:
            calls.lose = [("simulate_transaction", "after")] * 2
            await chain.execute(give())
            assert len(calls.sent) == 1

    run(work())


def test_waiting_for_what_never_was(client):
    from dtp.sui.names import format_digest

    async def work():
        async with client(sleep=no_pause, retry=Retry(attempts=2)) as chain:
            with pytest.raises(NodeUnavailable, match="isn't known"):
                await chain.wait_for(format_digest(bytes(32)))
            assert await chain.transaction(format_digest(bytes(32))) is None

    run(work())


# ---- endpoints


def test_the_next_endpoint_is_asked(net, client, wallet):
    network = Network("two", ("http://127.0.0.1:1", net.url))
    pauses = []

    async def sleep(seconds):
        pauses.append(seconds)

    async def work():
        async with client(wallet(), network=network, sleep=sleep) as chain:
            await chain.execute(give())
            assert chain.endpoints.wire.url == net.url

    run(work())
    assert len(pauses) == 1


def test_pauses_grow_and_end():
    retry = Retry(attempts=20, first_pause=0.1, factor=2, longest_pause=3)
    pauses = [retry.pause(n) for n in range(20)]
    assert all(0.05 * 2**n <= pause <= 0.1 * 2**n for n, pause in enumerate(pauses[:5]))
    assert all(1.5 <= pause <= 3 for pause in pauses[5:])


def test_no_endpoint_answers():
    async def work():
        endpoints = Endpoints(
            Network("x", ("http://127.0.0.1:1",)), timeout=5, retry=Retry(3), sleep=no_pause
        )
        with pytest.raises(NodeUnavailable, match="no answer in 3 attempts"):
            await endpoints.ask(Wire.service_info)
        endpoints.close()

    run(work())


def test_what_is_asked_at_the_close_opens_no_connection_again():
    async def work():
        network = Network("x", ("http://127.0.0.1:1",))

        async def sleep(seconds):
            endpoints.close()

        endpoints = Endpoints(network, timeout=5, retry=Retry(3), sleep=sleep)
        with pytest.raises(ClientClosed):
            await endpoints.ask(Wire.service_info)
        assert endpoints.wire._channel is None

    run(work())


def test_who_is_closed_is_asked_nothing_before_it_connects_again(client):
    async def work():
        chain = client()
        async with chain:
            await chain.epoch()
        with pytest.raises(ClientClosed):
            await chain.epoch()
        async with chain:
            await chain.epoch()

    run(work())


def test_a_connection_that_is_made_at_the_close_is_closed():
    async def work():
        async with await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0) as server:
            wire = Wire(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", timeout=5)
            channel = wire._connected()
            connecting = asyncio.create_task(channel.__connect__())
            await asyncio.sleep(0)
            wire.close()
            with pytest.raises(OSError, match="closed while"):
                await connecting
            assert channel._protocol is None

    run(work())


def test_the_wrong_network(net, client):
    other = replace(Network("mainnet", (net.url,)), chain_id="4btiuiMPvEENsttpZC7CZ53DruC3MAgfznDbASZ7DR6S")

    async def work():
        with pytest.raises(WrongNetwork, match="4btiui"):
            async with client(network=other):
                pass

    run(work())


def test_a_second_endpoint_of_another_chain_is_not_used(net, client):
    with LocalnetThread(now=lambda: 1_800_000_000_000) as stranger:
        network = Network("mixed", (net.url, stranger.url))

        async def work():
            chain = client(network=network)
            async with chain:
                chain.endpoints.next()
                assert chain.chain_id != stranger.chain_id  # else this would check nothing
                with pytest.raises(WrongNetwork):
                    await chain.service_info()

        run(work())


def test_a_node_that_goes_away_in_the_middle(wallet, calls):
    """It ends while a transaction is on its way, comes back with its state, and the client goes on."""

    async def work(folder):
        first = LocalnetThread(folder).start()
        port, faucet = (int(url.split(":")[2].split("/")[0]) for url in (first.url, first.faucet_url))
        signer = KeySigner.generate()
        first.fund(signer.address)
        second = []

        async def restart(seconds):
            if not second:
                second.append(
                    await asyncio.to_thread(LocalnetThread(folder, port=port, faucet_port=faucet).start)
                )

        try:
            network = Network("localnet", (first.url,))
            async with ChainClient(network, signer, deployments=None, sleep=restart) as chain:
                await chain.execute(give("0x9", 1))
                await asyncio.to_thread(first.close)
                executed = await chain.execute(give("0x9", 2))
                assert (await chain.transaction(executed.digest)).digest == executed.digest
                return (await chain.balance("0x9")).total
        finally:
            for each in second:
                await asyncio.to_thread(each.close)

    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        assert run(work(Path(folder))) == 3


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
            with pytest.raises(ProgramError, match="more than nothing"):
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


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        # As full nodes put it, of several releases; theirs is text, not codes.
        (
            "Object (0x1, SequenceNumber(5), o#x) is not available for consumption, current version: 7",
            StaleObject,
        ),
        (
            "Transaction needs to be rebuilt because object 0x1 version 0x5 is unavailable for consumption, "
            "current version: 0x7",
            StaleObject,
        ),
        ("Could not find the referenced object 0x1 at version Some(5)", StaleObject),
        (
            "Failed to sign transaction by a quorum of validators because one or more of its objects is reserved "
            "for another transaction",
            StaleObject,
        ),
        ("Object (0x1, 5, o#x) already locked by a different transaction: 9xQ", StaleObject),
        ("Balance of gas object 5 is lower than the needed amount: 1000000", InsufficientFunds),
        (
            "Unable to perform gas selection due to insufficient SUI balance (in address balance)",
            InsufficientFunds,
        ),
        ("GasBalanceTooLow { gas_balance: 1, needed_gas_amount: 2 }", InsufficientFunds),
        ("Gas price 1 under reference gas price (RGP) 1000", failures.PriceTooLow),
        ("Invalid user signature: Required Signature from 0x1 is absent", TransactionRefused),
        ("Gas budget 5 is below the minimum", TransactionRefused),
    ],
)
def test_what_full_nodes_say(text, kind):
    found = failures.refusal(NodeRefused(f"https://node: {text}", "INVALID_ARGUMENT"))
    assert type(found) is kind
    assert text in str(found)
