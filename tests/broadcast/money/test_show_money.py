"""Shows that are paid: on air while the pot lasts, posted slot by slot, refunded; on a localnet."""

import asyncio
import contextlib
import time
from types import SimpleNamespace
from typing import Any

import pytest
from chain_resolver.hosts import run
from shows import HERE, ME, all_of, hear, produce, until

from dtp.broadcast.errors import BroadcastError, OffAir, ShowBusy
from dtp.broadcast.money import shows
from dtp.broadcast.money.air import Air, Hysteresis
from dtp.broadcast.money.ending import end_show
from dtp.broadcast.money.keeping import ShowKeeper
from dtp.broadcast.money.shows import NoShare, NotProducer, ShowTerms
from dtp.broadcast.money.watching import Dismissed, ShowWatcher
from dtp.broadcast.producing import Broadcast
from dtp.chain import ChainClient, KeySigner
from dtp.chain.errors import InsufficientFunds, NodeRefused, NodeUnavailable
from dtp.chain.node._wire import NodeRpc
from dtp.chain.pipes.posts import MOST_FEE
from dtp.chain.show import EntryKind, ShowState, next_head
from dtp.errors import ConfigError
from dtp.pay.errors import OtherCoin, PriceTooHigh

pytestmark = pytest.mark.slow
#: Slots that a test can wait for.
SLOT = 1000
AT_ONCE = Hysteresis(floor=0.0, linger=0.0)


@pytest.fixture
def chain_ms(net):
    """The chain's time: the localnet's clock may be ahead."""
    return lambda: int(time.time() * 1000)


def test_a_funded_show_is_on_air_while_the_pot_lasts(client, wallet, tmp_path, chain_ms):
    async def work():
        async with client(wallet()) as producer, client(wallet()) as listener:
            id, _ = await shows.create(
                producer, ME.id.key, ShowTerms(slot_ms=SLOT, rate=100, start_pot=200, batch=2)
            )
            with pytest.raises(NotProducer):
                await shows.cap_of(listener, id)
            held = (await producer.balance(producer.address)).total
            options = {
                "show": id,
                "wallet": producer,
                "store": tmp_path,
                "hysteresis": AT_ONCE,
                "clock_ms": chain_ms,
            }
            async with produce(**options) as on_air:
                told = []
                watching = asyncio.ensure_future(follow(on_air, told))
                await until(lambda: told == [Air.OFF])
                with pytest.raises(OffAir):
                    await on_air.write(b"too early")
                await shows.fund(listener, id, 150)
                await until(lambda: told[-1] == Air.FUNDING)
                share, _ = await shows.fund(listener, id, 150)
                await until(lambda: told[-1] == Air.ON_AIR)
                assert on_air.next_slot == 100
                written = [await on_air.write(b"first")]
                heard = []
                listening = asyncio.ensure_future(all_of(hear(*on_air.addresses, back_ms=10**6), heard))
                while told[-1] == Air.ON_AIR:
                    try:
                        written.append(await on_air.write(b"more"))
                    except OffAir:
                        break
                    await asyncio.sleep(0.05)
                await until(lambda: on_air.keeper.show.posted == 3)
                found = (await shows.read_show(listener, id)).show
                assert (found.state, found.pot, found.earned) == (ShowState.OFF, 0, 300)
                assert found.hint.decode() == on_air.addresses[0]
                head = bytes(32)
                for slot in range(3):
                    link = [each.link for each in written if each.slot <= slot][-1]
                    head = next_head(head, link)
                assert found.head == head
                ended = await shows.end(producer, id)
                await until(lambda: told[-1] == Air.ENDED)
                await on_air.end()
                await listening
                assert len(heard) == len(written) + 1
                await watching
            takings = on_air.keeper.takings
            assert (takings.posted, takings.released) == (3, 300)
            assert (await producer.balance(producer.address)).total == held - takings.gas - ended.gas.net
            amount, _ = await shows.collect(producer, id)
            assert amount == 300
            assert [each.amount for each in await shows.refund(listener, id)] == [0, 0]
            assert share

    run(work())


def test_a_producer_is_told_of_the_gas_of_what_the_chain_has_refused(client, wallet, chain_ms, calls):
    """Of a show that can't start any more two say so at once: the chain takes the gas of both."""

    async def work():
        async with client(wallet()) as producer, client(wallet()) as listener:
            soon = chain_ms() + 2 * SLOT
            terms = ShowTerms(slot_ms=SLOT, ticket_price=70, fewest=2, slots=5, start_by_ms=soon)
            id, _ = await shows.create(producer, ME.id.key, terms)
            held = (await producer.balance(producer.address)).total
            first = True

            async def simulate(genuine, *arguments, **options):
                nonlocal first
                answer = await genuine(*arguments, **options)
                if first:
                    first = False
                    await shows.end(listener, id)
                return answer

            with calls.answering(simulate=simulate):
                async with await ShowKeeper.open(producer, id, chain_ms) as keeper:
                    await until(lambda: keeper.air == Air.ENDED and keeper.takings.gas)
            taken = held - (await producer.balance(producer.address)).total
            assert (keeper.takings.gas, keeper.takings.posted) == (taken, 0)
            assert not first

    run(work())


def test_a_wallet_that_is_an_identity_signs_and_posts(client, net, network, deployments):
    net.fund(KeySigner.from_identity(ME).address)

    async def work():
        async with client(KeySigner.from_identity(ME)) as producer, client() as reader:
            id, _ = await shows.create(
                producer, ME.id.key, ShowTerms(slot_ms=SLOT, rate=1, start_pot=1, batch=1)
            )
            async with ChainClient(network) as fresh:  # what 'dtp move use' keeps
                for each in deployments.list_all():
                    fresh.deployments.save(each)
            await shows.fund(producer, id, 10**6)
            async with Broadcast(id, wallet=ME, network=network, place=HERE) as on_air:
                assert on_air.identity is ME
                await anext(each async for each in on_air.states() if each == Air.ON_AIR)
                assert (await on_air.write(b"first")).number == 0
                found = (await shows.read_show(reader, id)).show
                assert found.hint.decode() == on_air.addresses[0]

    run(work())


@pytest.fixture
def node(monkeypatch):
    """Take the chain's node away from everybody, by `away`, and give it back."""
    plain, there = NodeRpc._call_method, SimpleNamespace(away=False, asked=0)

    async def call(wire, service, method, message):
        there.asked += 1
        if there.away:
            raise NodeUnavailable("the test has taken it away")
        return await plain(wire, service, method, message)

    monkeypatch.setattr(NodeRpc, "_call_method", call)
    return there


def test_while_the_chain_is_away_a_show_goes_on_as_far_as_its_pot_pays(
    client, wallet, tmp_path, chain_ms, node, calls
):
    async def work():
        async with client(wallet()) as producer, client(wallet()) as payer:
            terms = ShowTerms(slot_ms=2 * SLOT, rate=100, start_pot=200, batch=2)
            id, _ = await shows.create(producer, ME.id.key, terms)
            options = {"wallet": producer, "store": tmp_path, "hysteresis": AT_ONCE, "clock_ms": chain_ms}
            async with produce(show=id, **options) as on_air:
                told, heard, written = [], [], []
                watching = asyncio.ensure_future(follow(on_air, told))
                await shows.fund(payer, id, 300)
                await until(lambda: told and told[-1] == Air.ON_AIR)
                node.away = True
                listening = asyncio.ensure_future(all_of(hear(*on_air.addresses, start=0), heard))
                with contextlib.suppress(OffAir):
                    while True:
                        written.append(await on_air.write(b"more"))
                        await asyncio.sleep(0.05)
                await until(lambda: len(heard) == len(written) and told[-1] != Air.ON_AIR)
                before = node.asked
                await until(lambda: node.asked > before + 1)  # it is tried again
                calls.lose = [("execute", "after")]  # and then the first answer is lost
                node.away = False
                await until(lambda: on_air.keeper.show.posted == 3)
                found = (await shows.read_show(payer, id)).show
                head = bytes(32)
                for slot in range(3):
                    head = next_head(head, [each.link for each in written if each.slot <= slot][-1])
                assert (found.head, found.earned, found.pot) == (head, 300, 0)
                assert calls.lose == []
                await shows.end(producer, id)
                await on_air.end()
                await asyncio.gather(listening, watching)

    run(work())


async def follow(on_air, told):
    async for each in on_air.states():
        told.append(each)


def test_a_show_that_never_starts_is_paid_back(client, wallet, net):
    async def work():
        async with client(wallet()) as producer, client(wallet()) as listener:
            soon = int(time.time() * 1000) + 3_600_000
            terms = ShowTerms(slot_ms=SLOT, ticket_price=70, fewest=2, slots=5, start_by_ms=soon)
            id, _ = await shows.create(producer, ME.id.key, terms)
            await shows.buy(listener, id)
            (ticket,) = await shows.shares_of(listener, id, listener.address)
            assert (await shows.read_show(listener, id)).show.tickets == 1
            with pytest.raises(Exception, match="tickets stand"):
                await shows.refund(listener, id)
            await shows.end(producer, id)
            assert [(each.share, each.amount) for each in await shows.refund(listener, id)] == [
                (ticket.id, 70)
            ]
            with pytest.raises(NoShare):
                await shows.refund(listener, id)

    run(work())


def test_who_leaves_while_it_is_on_air_has_the_rest_back_at_once(client, wallet):
    async def work():
        async with client(wallet()) as producer, client(wallet()) as listener:
            terms = ShowTerms(slot_ms=3_600_000, rate=100, start_pot=200, prices=(1, 5, 3))
            id, _ = await shows.create(producer, ME.id.key, terms)
            await shows.fund(listener, id, 500)
            (back,) = await shows.refund(listener, id)
            assert (back.amount, back.paid) == (400, 100)
            number, _ = await shows.ask(listener, id, EntryKind.REQUEST, None, b"louder")
            await shows.raise_(listener, id, number, None)
            found = (await shows.read_show(listener, id)).show
            assert (found.asked, found.tipped) == (1, 6)
            told = [
                type(each).__name__ async for each in shows.events_of(listener, id, start=0, follow=False)
            ]
            assert told == ["ShowCreated", "Contributed", "StateChanged", "Returned", "EntryAsked", "Raised"]

    run(work())


def test_who_leaves_before_a_batch_is_posted_takes_nothing_back_that_was_sent(
    client, wallet, tmp_path, chain_ms
):
    async def work():
        async with client(wallet()) as producer, client(wallet()) as listener:
            terms = ShowTerms(slot_ms=SLOT, rate=100, start_pot=200, batch=64)
            id, _ = await shows.create(producer, ME.id.key, terms)
            options = {"wallet": producer, "store": tmp_path, "clock_ms": chain_ms}
            async with produce(show=id, **options) as on_air:
                await shows.fund(listener, id, 100_000)
                await until(lambda: on_air.keeper.slot >= 2)
                (back,) = await shows.refund(listener, id)
                assert back.paid >= 300
                assert back.amount + back.paid == 100_000
                await until(lambda: on_air.keeper.show.state == ShowState.OFF)
                found = on_air.keeper.show
                assert (found.posted, found.earned, found.pot) == (back.paid // 100, back.paid, 0)
                takings = on_air.keeper.takings
                assert (takings.posted, takings.released) == (found.posted, back.paid)

    run(work())


def test_a_show_that_ends_is_paid_for_what_is_over_by_the_chains_clock(client, wallet, tmp_path, chain_ms):
    """A producer whose clock was set ahead gave the chain slots that weren't over, and lost all others as well."""

    async def work():
        async with client(wallet()) as producer, client(wallet()) as listener:
            ahead = 0
            terms = ShowTerms(slot_ms=SLOT, rate=100, start_pot=200, batch=64)
            id, _ = await shows.create(producer, ME.id.key, terms)
            options = {"show": id, "wallet": producer, "store": tmp_path}
            async with produce(**options, clock_ms=lambda: chain_ms() + ahead) as on_air:
                await shows.fund(listener, id, 100_000)
                await until(lambda: on_air.keeper.slot >= 3)
                ahead = 5 * SLOT  # somebody has set it
                assert await end_show(producer, id, tmp_path) is None
                found = (await shows.read_show(producer, id)).show
                assert found.state == ShowState.ENDED
                assert 3 <= found.posted < 8
                assert found.earned == 100 * found.posted

    run(work())


def test_a_show_whose_slots_cant_be_posted_is_not_ended_before_they_are(
    client, wallet, tmp_path, chain_ms, calls
):
    async def work():
        async with client(wallet()) as producer, client(wallet()) as listener:
            terms = ShowTerms(slot_ms=SLOT, rate=100, start_pot=200, batch=64)
            id, _ = await shows.create(producer, ME.id.key, terms)
            options = {"show": id, "wallet": producer, "store": tmp_path, "clock_ms": chain_ms}
            async with produce(**options) as on_air:
                await shows.fund(listener, id, 100_000)
                await until(lambda: on_air.keeper.slot >= 3)
                faults = [NodeRefused("busy")]

                async def simulate(genuine, *arguments, **options):
                    if faults:
                        raise faults.pop()
                    return await genuine(*arguments, **options)

                with calls.answering(simulate=simulate):
                    assert await end_show(producer, id, tmp_path) is None
                found = (await shows.read_show(producer, id)).show
                assert faults == []
                assert found.posted >= 3
                assert found.earned == 100 * found.posted

    run(work())


def test_nobody_pays_more_than_agreed_nor_in_another_coin(client, wallet):
    """Whoever made a show has chosen its prices and its coin, and anybody can send its id."""

    async def work():
        async with client(wallet()) as producer, client(wallet()) as listener:
            soon = int(time.time() * 1000) + 3_600_000
            dear: dict[str, Any] = {"slot_ms": SLOT, "prices": (MOST_FEE + 1, MOST_FEE, MOST_FEE + 1)}
            ticketed = ShowTerms(ticket_price=70, fewest=2, slots=5, start_by_ms=soon, **dear)
            id, _ = await shows.create(producer, ME.id.key, ticketed)
            before = (await listener.balance(listener.address)).total
            with pytest.raises(PriceTooHigh, match=r"0\.00000007 SUI"):
                await shows.buy(listener, id, most=69)
            with pytest.raises(PriceTooHigh):
                await shows.ask(listener, id, EntryKind.QUESTION, None, b"why?")
            with pytest.raises(PriceTooHigh):
                await shows.raise_(listener, id, 0, None)
            other, _ = await shows.create(
                producer, ME.id.key, ShowTerms(slot_ms=SLOT, rate=100), coin=(clocks := "0x2::clock::Clock")
            )
            for refused in (
                shows.fund(listener, other, 400_000_000),
                shows.ask(listener, other, EntryKind.TIP, 400_000_000, b""),
                shows.ask(listener, other, EntryKind.TIP, None, b""),
                shows.raise_(listener, other, 0, 1),
                shows.raise_(listener, other, 0, None),
                shows.buy(listener, other),
                shows.buy(listener, id, coin=clocks),
            ):
                with pytest.raises(OtherCoin):
                    await refused
            with pytest.raises(PriceTooHigh):  # how much of another coin is little nobody knows
                await shows.ask(listener, other, EntryKind.TIP, None, b"", coin=clocks)
            with pytest.raises(InsufficientFunds):  # there is none, which is looked for once it was named
                await shows.fund(listener, other, 5, coin=clocks)
            assert (await listener.balance(listener.address)).total == before
            await shows.ask(listener, id, EntryKind.REQUEST, None, b"louder")
            await shows.ask(listener, id, EntryKind.QUESTION, MOST_FEE + 1, b"why?")
            await shows.buy(listener, id, most=70)

    run(work())


def test_a_show_that_another_machine_broadcasts_is_not_broadcast_beside_it(client, wallet, tmp_path):
    """Both would sign a chain of their own, and the chain would name one of them alone."""

    async def work():
        async with client(wallet()) as producer:
            id, _ = await shows.create(producer, ME.id.key, ShowTerms(slot_ms=SLOT, rate=100, start_pot=200))
            options = {"show": id, "wallet": producer}
            async with produce(**options, store=tmp_path / "here") as on_air:
                with pytest.raises(ShowBusy, match="end that one first"):
                    await produce(**options, store=tmp_path / "there").__aenter__()
                found = (await shows.read_show(producer, id)).show
                assert found.hint.decode() == on_air.addresses[0]
            async with produce(**options, store=tmp_path / "there") as later:
                found = (await shows.read_show(producer, id)).show
                assert found.hint.decode() == later.addresses[0]

    run(work())


def test_another_identity_cant_produce_it(client, wallet):
    async def work():
        async with client(wallet()) as producer:
            id, _ = await shows.create(producer, bytes([9] * 32), ShowTerms(slot_ms=SLOT, rate=100))
            with pytest.raises(BroadcastError, match="signed by another identity"):
                async with produce(show=id, wallet=producer):
                    pass

    run(work())


def test_the_page_has_the_money_and_the_line_and_what_was_dismissed_stays_away(client, wallet, tmp_path):
    async def work():
        async with client(wallet()) as producer, client(wallet()) as listener:
            terms = ShowTerms(slot_ms=60_000, rate=100, start_pot=1000, prices=(10, 10, 10))
            id, _ = await shows.create(producer, ME.id.key, terms)
            await shows.ask(listener, id, EntryKind.QUESTION, 20, b"why?")
            await shows.ask(listener, id, EntryKind.TIP, 50, b"for you", sealed=True)
            kept = tmp_path / "shows" / "dismissed"
            async with (
                ShowWatcher(producer, id, ME, Dismissed(kept)) as mine,
                ShowWatcher(listener, id) as theirs,
            ):
                await until(lambda: len(mine.line) == len(theirs.line) == 2)
                assert [each["text"] for each in mine.make_page()["line"]] == ["for you", "why?"]
                assert [each["text"] for each in theirs.make_page()["line"]] == ["(sealed)", "why?"]
                await shows.raise_(listener, id, 0, 100)
                await shows.fund(listener, id, 500)
                await until(
                    lambda: mine.make_page()["line"][0]["raised"] == 1 and mine.make_page()["pot"] != "0 SUI"
                )
                shown = mine.make_page()
                assert (shown["air"], shown["line"][0]["number"], shown["lasts_s"]) == ("funding", 0, 300.0)
                assert shown["is_unspent"]
                mine.dismiss_entry(0)
                assert [each["number"] for each in mine.make_page()["line"]] == [1]
            async with ShowWatcher(producer, id, ME, Dismissed(kept)) as again:
                await until(lambda: len(again.line) == 1)
                assert again.make_page()["line"][0]["text"] == "for you"
            kept.write_text("{")
            with pytest.raises(ConfigError, match="remove it"):
                Dismissed(kept)

    run(work())
