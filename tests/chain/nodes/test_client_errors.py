"""What may go wrong for a client, each error with its name: aborts, what is missing, stale or refused."""

import asyncio
import contextlib
from dataclasses import replace

import pytest

from dtp.chain import ChainClient, Network, Program
from dtp.chain import host as hosts
from dtp.chain.errors import (
    InsufficientFunds,
    MalformedObject,
    MoveAborted,
    NodeRefused,
    ObjectMissing,
    PackageNotPublished,
    ProgramError,
    SignerError,
    StaleObject,
    TransactionFailed,
    TransactionRefused,
    WrongObjectType,
    was_signed,
)
from dtp.chain.node import failures
from dtp.chain.wallet import send

from ..conftest import give, idle_coins, no_pause, run

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
        assert error.code == "move-abort"
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
            with pytest.raises(ObjectMissing, match="at version 999999999"):
                await chain.object("0x6", 999_999_999)
            with pytest.raises(WrongObjectType, match="clock::Clock"):
                await chain.read(hosts.SCHEMA, hosts.Host, "0x6")
            found = await chain.objects(["0x77", "0x6"])  # the clock's contents may be others by now
            assert {each: of.ref.id for each, of in found.items()} == {
                "0x" + "6".zfill(64): "0x" + "6".zfill(64)
            }

    run(work())


def test_an_object_is_the_one_that_was_asked_for(client, wallet, calls):
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

            async def objects(_, ids, version=None):
                return {asked: lie}

            calls.answers["objects"] = objects
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
            stale = idle_coins(one)
            await one.execute(give())
            assert idle_coins(one)[0].ref.version > stale[0].ref.version
            # With a budget nothing is simulated. What was signed isn't built anew unasked.
            with pytest.raises(StaleObject) as refused:
                await two.execute(give(), gas_budget=5_000_000)
            assert refused.value.digest
            await two.execute(give(), gas_budget=5_000_000)

    run(work())


def test_a_stale_reference_that_stays_stale_is_an_error(client, wallet, calls):
    signer, asked = wallet(), []

    async def refuse(_, *arguments, **options):
        asked.append(arguments)
        raise NodeRefused("Object 0x1 Version 5 is not available for consumption", "INVALID_ARGUMENT")

    async def work():
        async with client(signer, sleep=no_pause) as chain:
            calls.answers["simulate"] = refuse
            with pytest.raises(StaleObject, match="build it anew") as stale:
                await chain.execute(give())
            assert not stale.value.digest
        assert len(asked) == 5

    run(work())


def test_a_gift_that_was_signed_says_so(client, wallet, calls):
    async def refuse(_, *arguments):
        raise NodeRefused("GasBalanceTooLow", "INVALID_ARGUMENT")

    async def work():
        async with client(wallet()) as chain:
            calls.answers["execute"] = refuse
            with pytest.raises(InsufficientFunds, match="too little") as refused:
                await send(chain, "0x9", 5)
            assert was_signed(refused.value)
            with pytest.raises(InsufficientFunds, match="too little") as refused:
                await send(chain, "0x9", 10**15)
            assert not was_signed(refused.value)

    run(work())


@pytest.mark.parametrize("why", ["Object 0x1 Version 5 is not available for consumption", "GasPriceUnderRGP"])
@pytest.mark.parametrize("others", [0, 1])
def test_a_node_that_lies_about_what_was_signed_has_it_done_once(client, wallet, net, calls, why, others):
    """It executes, and says that it didn't: another endpoint knows better, and without one nobody signs again."""
    signer, lied = wallet(), []

    async def lie(genuine, data, signatures):
        lied.append(await genuine(data, signatures))
        raise NodeRefused(why, "INVALID_ARGUMENT")

    async def work():
        network = Network("several", (net.url,) * (1 + others))
        async with ChainClient(network, signer, deployments=None, sleep=no_pause, rpc=calls) as chain:
            before = (await chain.balance("0x9")).total
            calls.answers["execute"] = lie
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
