"""Answers that are lost and endpoints that go away: bytes sent again, unknown outcomes, the next endpoint."""

import asyncio
from dataclasses import replace

import pytest

from dtp.chain import ChainClient, KeySigner, Network
from dtp.chain.errors import (
    MALFORMED,
    ClientClosed,
    NodeRefused,
    NodeUnavailable,
    OutcomeUnknown,
    WrongNetwork,
)
from dtp.chain.node._wire import NodeRpc
from dtp.chain.node.endpoints import Endpoints, Retry
from dtp.localnet.grpc.localnet import LocalnetThread

from ..conftest import give, idle_coins, no_pause, run

# ---- lost answers


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("times", [1, 3])
def test_identical_bytes_are_sent_again(client, wallet, calls, when, times):
    """Whether the node got the transaction or not: it is executed once, and its effects are given."""
    signer = wallet()

    async def work():
        async with client(signer, sleep=no_pause) as chain:
            before = (await chain.balance("0x7")).total
            calls.lose = [("execute", when)] * times
            executed = await chain.execute(give("0x7", 123))
            assert (await chain.balance("0x7")).total == before + 123
            assert len(set(calls.sent)) == 1
            assert len(calls.sent) == times + 1
            assert (await chain.transaction(executed.digest)).digest == executed.digest

    run(work())


def test_a_transaction_that_nobody_waits_for_any_more_keeps_its_gas(client, wallet, calls):
    """Else the next one would pay with the same version of the coin, and have it locked for the epoch."""
    asked, closed = [], []

    async def work():
        sent, answered = asyncio.Event(), asyncio.Event()

        async def execute(genuine, *arguments):
            sent.set()
            await answered.wait()
            return await genuine(*arguments)

        async def simulate(genuine, *arguments, **options):
            asked.append(arguments)
            return await genuine(*arguments, **options)

        async with client(wallet()) as chain:
            before = (await chain.balance("0xa")).total
            calls.answers.update(execute=execute, simulate=simulate)
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
            calls.answers["close"] = lambda genuine: genuine() or closed.append(answered.is_set())
            sent.clear()
            answered.clear()
            third = asyncio.create_task(chain.execute(give("0xa", 7)))
            await sent.wait()
        assert closed == []
        answered.set()
        await third
        await asyncio.sleep(0)
        assert closed == [True]

    run(work())


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_outcome_that_stays_unknown(client, wallet, calls, when):
    signer = wallet()

    async def work():
        retry = Retry(attempts=3)
        async with client(signer, sleep=no_pause, retry=retry) as chain:
            before = (await chain.balance("0x8")).total
            calls.lose = [("execute", when)] * 3 + [("transaction", "before")]
            with pytest.raises(OutcomeUnknown) as unknown:
                await chain.execute(give("0x8", 5))
            assert not idle_coins(chain)  # its coin is in an unknown state
            executed = await chain.resubmit(unknown.value)
            assert executed.digest == unknown.value.digest
            assert (await chain.wait_for(executed.digest)).digest == executed.digest
            await chain.execute(give("0x8", 6))
            assert (await chain.balance("0x8")).total == before + 11

    run(work())


@pytest.mark.parametrize("known", [True, False])
def test_an_answer_that_is_none_leaves_the_outcome_open(client, wallet, calls, known):
    """The transaction was executed and the answer can't be read: it is looked up, or said to be unknown."""

    async def garbled(plain, *arguments):
        await plain(*arguments)
        raise NodeRefused("what is no answer", MALFORMED)

    async def unreadable(_, digest):
        raise NodeRefused("what is no answer", MALFORMED)

    async def work():
        async with client(wallet(), sleep=no_pause, retry=Retry(attempts=2)) as chain:
            before = (await chain.balance("0x9")).total
            calls.answers["execute"] = garbled
            if known:
                await chain.execute(give("0x9", 5))
            else:
                calls.answers["transaction"] = unreadable
                with pytest.raises(OutcomeUnknown):
                    await chain.execute(give("0x9", 5))
            assert (await chain.balance("0x9")).total == before + 5

    run(work())


def test_a_lost_simulation_changes_nothing(client, wallet, calls):
    async def work():
        async with client(wallet(), sleep=no_pause) as chain:
            calls.lose = [("simulate", "after")] * 2
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
            await endpoints.ask(lambda wire: wire.service_info())
        endpoints.close()

    run(work())


def test_what_is_asked_at_the_close_opens_no_connection_again():
    async def work():
        network = Network("x", ("http://127.0.0.1:1",))

        async def sleep(seconds):
            endpoints.close()

        endpoints = Endpoints(network, timeout=5, retry=Retry(3), sleep=sleep)
        with pytest.raises(ClientClosed):
            await endpoints.ask(lambda wire: wire.service_info())
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
            wire = NodeRpc(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", timeout=5)
            channel = wire._ensure_connected()
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
