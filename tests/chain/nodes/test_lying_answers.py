"""A node that has somebody else's object, package, coin or transaction taken for what was made or sent here."""

import json
from base64 import b64decode
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dtp.broadcast.money import shows
from dtp.chain import ChainClient, Program, card, publish
from dtp.chain import channel as channel_module
from dtp.chain import host as hosts
from dtp.chain import lock as locks
from dtp.chain import pass_ as passes_module
from dtp.chain import show as shows_module
from dtp.chain.errors import NodeRefused, OutcomeUnknown, TransactionFailed
from dtp.chain.model import canonical_type
from dtp.chain.node.made import object_left, object_made
from dtp.chain.packages.upgrades import UPGRADE_CAP
from dtp.chain.show import EntryKind
from dtp.chain.wallet import send
from dtp.identity import Identity
from dtp.messaging.tips.reward import lock_reward
from dtp.pay import passes, settling
from dtp.pay.hosting import ensure_service, make_host

from ..conftest import give, run

KEY = Identity.generate().id.key
THEIRS = "0x" + "66" * 32
#: A compiled package with a coin, which its publisher may make.
GOLD = Path(__file__).parents[2] / "localnet" / "node" / "fixtures" / "playground.json"


def lie(calls, *names, change):
    """Have `change` made to what these calls of the node answer of a transaction."""

    async def lying(genuine, *arguments):
        told = await genuine(*arguments)
        return told if told is None else replace(told, executed=change(told.executed))

    calls.answers.update(dict.fromkeys(names, lying))


def name_theirs(executed, old):
    """What a transaction did, with an id of somebody else's in the place of `old`."""
    own, theirs = bytes.fromhex(old[2:]), bytes.fromhex(THEIRS[2:])
    return replace(
        executed,
        changes=tuple(replace(each, id=THEIRS) if each.id == old else each for each in executed.changes),
        events=tuple(replace(each, contents=each.contents.replace(own, theirs)) for each in executed.events),
    )


def test_what_a_transaction_makes_follows_from_its_digest(client, wallet):
    async def work():
        async with client(signer := wallet()) as chain:
            program = Program()
            hosts.create(program, signer.address, operator=signer.address)
            executed = await chain.execute(program)
            made = [each.id for each in executed.created_objects()]
            assert len(made) == 4
            assert all(map(executed.has_made, made))
            assert not executed.has_made(THEIRS)
            assert not any(map(replace(executed, digest="1" * 32).has_made, made))

    run(work())


def test_a_package_of_somebody_else_is_not_taken_for_the_one_that_was_published(
    network, wallet, tmp_path, calls
):
    """All that is called later would go there, with money."""

    def change(executed):
        (package,) = [each.id for each in executed.changes if each.type == "package"]
        return name_theirs(executed, package)

    async def work():
        path = tmp_path / "packages.json"
        async with ChainClient(network, wallet(), deployments=path, rpc=calls) as chain:
            lie(calls, "execute", "transaction", change=change)
            with pytest.raises(OutcomeUnknown, match="somebody else's") as unknown:
                await publish(chain, "escrow", immutable=True)
            assert chain.deployments.get("escrow") is None
            calls.answers.clear()
            assert (await chain.wait_for(unknown.value.digest)).digest == unknown.value.digest

    run(work())


def test_another_transaction_is_not_taken_for_the_one_that_was_sent(client, wallet, calls):
    async def work():
        async with client(wallet()) as chain:
            other = await chain.execute(give())
            lie(calls, "execute", change=lambda executed: replace(executed, digest=other.digest))
            executed = await chain.execute(give())  # another question tells
            assert executed.digest != other.digest
            lie(calls, "transaction", change=lambda executed: replace(executed, digest=other.digest))
            with pytest.raises(OutcomeUnknown, match=other.digest):
                await chain.execute(give())
            with pytest.raises(NodeRefused):
                await chain.transaction(executed.digest)

    run(work())


@pytest.mark.parametrize("what", ["host", "show", "lock"])
def test_what_an_event_names_is_not_taken_for_what_was_made_here(client, wallet, calls, what):
    """A host that customers pay, a show whose id is told, a lock that a tipster signs for."""
    events = {
        "host": (hosts.SCHEMA, hosts.HostCreated, "host"),
        "show": (shows_module.SCHEMA, shows_module.ShowCreated, "show"),
        "lock": (locks.SCHEMA, locks.Locked, "lock"),
    }
    schema, event, field = events[what]

    async def work():
        async with client(wallet()) as chain:

            def change(executed):
                (told,) = chain.events_in(executed, schema, event)
                return name_theirs(executed, getattr(told, field))

            lie(calls, "execute", change=change)
            key = Identity.generate().id
            terms = shows.ShowTerms(slot_ms=1000, rate=1)
            deadline = int((await chain.service_info()).timestamp_ms or 0) + 3_600_000
            making = {
                "host": lambda: make_host(chain),
                "show": lambda: shows.create(chain, key.key, terms),
                "lock": lambda: lock_reward(chain, key, 1000, deadline_ms=deadline),
            }
            with pytest.raises(NodeRefused, match="somebody else's"):
                await making[what]()

    run(work())


def test_events_that_a_node_hides_or_repeats_are_a_named_error(client, wallet, calls):
    """What a transaction has made was taken for the only one of a list, or the first, unseen."""

    def hidden(executed):
        return replace(executed, events=())

    def repeated(executed):
        return replace(executed, events=executed.events * 2)

    async def work():
        async with client(wallet()) as chain:
            owned = await make_host(chain)
            owned = await ensure_service(chain, owned, "files", hosts.Terms(price_request=1))
            (number,) = owned.host.services
            sold = (owned.host, owned.cap, number)
            plan, _ = await passes.make_plan(chain, *sold, keep_mode=True, price=5, period_ms=60_000)
            show, _ = await shows.create(chain, KEY, shows.ShowTerms(slot_ms=1000, rate=1))
            deadline = int((await chain.service_info()).timestamp_ms or 0) + 3_600_000
            paid = []  # one for each time that something is taken back
            for _ in range(2):
                paid.append((await shows.create(chain, KEY, shows.ShowTerms(slot_ms=1000, rate=100)))[0])
                await shows.fund(chain, paid[-1], 5)
            making = (
                lambda: make_host(chain),
                lambda: passes.make_plan(chain, *sold, keep_mode=True, price=5, period_ms=60_000),
                lambda: shows.create(chain, KEY, shows.ShowTerms(slot_ms=1000, rate=1)),
                lambda: shows.fund(chain, show, 5),
                lambda: shows.ask(chain, show, EntryKind.TIP, 5, b"for you"),
                lambda: shows.refund(chain, paid.pop()),
                lambda: shows.collect(chain, show),
                lambda: lock_reward(chain, Identity.generate().id, 1000, deadline_ms=deadline),
            )
            for make in making:
                for change, told in ((hidden, 0), (repeated, 2)):
                    lie(calls, "execute", change=change)
                    with pytest.raises(
                        NodeRefused, match=rf"one \w+ event, .* tells of {told}; it was executed"
                    ):
                        await make()
            calls.answers.clear()
            lie(calls, "execute", change=hidden)
            with pytest.raises(NodeRefused, match=r"one PassPaid event, .* tells of 0"):
                await passes.buy(chain, plan, 1)
            calls.answers.clear()
            with pytest.raises(passes.PassHeld):  # it is there, and isn't paid for twice
                await passes.buy(chain, plan, 1)

    run(work())


def test_objects_that_a_node_hides_or_makes_up_are_a_named_error(client, wallet):
    async def work():
        async with client(signer := wallet()) as chain:
            program = Program()
            hosts.create(program, signer.address, operator=signer.address)
            executed = await chain.execute(program)
            kind = chain.type_of(hosts.SCHEMA, hosts.HostCap)
            (cap,) = [each.id for each in executed.created_objects(kind)]
            assert object_made(executed, kind) == cap
            assert object_left(executed, cap).type == kind
            for changes in ((), executed.changes * 2):
                with pytest.raises(NodeRefused, match="ask another node what it did"):
                    object_made(replace(executed, changes=changes), kind)
            with pytest.raises(NodeRefused, match="somebody else's"):
                object_made(name_theirs(executed, cap), kind)
            with pytest.raises(NodeRefused, match=f"doesn't show {cap}"):
                object_left(replace(executed, objects={}), cap)

    run(work())


@pytest.mark.parametrize("what", ["plan", "channel", "pass"])
def test_what_a_customer_pays_for_is_not_taken_from_somebody_elses(client, wallet, calls, what):
    """A plan that customers are sent to, the channel that vouchers are signed for, a pass that was paid."""
    plan_terms: dict[str, Any] = {"price": 5, "period_ms": 60_000}

    async def work():
        async with client(wallet()) as chain, client(wallet()) as customer:
            owned = await make_host(chain)
            owned = await ensure_service(chain, owned, "files", hosts.Terms(price_request=1))
            ((number, service),) = owned.host.services.items()
            sold = (owned.host, owned.cap, number)
            plan, _ = await passes.make_plan(chain, *sold, keep_mode=True, **plan_terms)
            await chain.execute(beat(owned))
            revision = service.terms.revision
            making = {
                "plan": lambda: passes.make_plan(chain, *sold, **plan_terms),
                "channel": lambda: settling.open_channel(customer, owned.host, number, revision, 9, KEY),
                "pass": lambda: passes.buy(customer, plan, 1),
            }
            schema, event, field = {
                "plan": (passes_module.SCHEMA, passes_module.PlanCreated, "plan"),
                "channel": (channel_module.SCHEMA, channel_module.ChannelOpened, "channel"),
                "pass": (passes_module.SCHEMA, passes_module.PassPaid, "pass_"),
            }[what]

            def change(executed):
                (told,) = chain.events_in(executed, schema, event)
                return name_theirs(executed, getattr(told, field))

            lie(calls, "execute", change=change)
            with pytest.raises(NodeRefused, match="somebody else's"):
                await making[what]()
            calls.answers.clear()
            if what != "plan":  # which the host may have several of
                return
            made, _ = await making[what]()
            assert made != plan

    run(work())


def beat(owned):
    """A heartbeat of an endpoint, without which nobody opens a channel."""
    program, key = Program(), Identity.generate().id.key
    hosts.enroll(program, owned.host.beacon, owned.operator, key)
    hosts.heartbeat(program, owned.host.beacon, owned.operator, key, 1)
    return program


def test_an_upgrade_cap_of_another_package_is_not_kept(network, wallet, tmp_path, calls):
    """What is restricted later would be another one."""

    def change(executed):
        (cap,) = [each.id for each in executed.created_objects(UPGRADE_CAP)]
        return name_theirs(executed, cap)

    async def work():
        async with ChainClient(network, wallet(), deployments=tmp_path / "packages.json", rpc=calls) as chain:
            lie(calls, "execute", "transaction", change=change)
            with pytest.raises(NodeRefused, match="somebody else's"):
                await publish(chain, "escrow")
            assert chain.deployments.get("escrow") is None

    run(work())


def test_a_directory_of_somebody_else_is_not_the_packages(network, wallet, tmp_path, calls):
    """It could leave out that a key was rotated."""

    async def work():
        async with ChainClient(network, wallet(), deployments=tmp_path / "packages.json", rpc=calls) as chain:
            await publish(chain, "directory")
            genuine = await card.find_directory(chain)
            lie(calls, "transaction", change=lambda executed: name_theirs(executed, genuine))
            with pytest.raises(NodeRefused, match="somebody else's"):
                await card.find_directory(chain)
            calls.answers.clear()
            other, _ = await publish(chain, "escrow")
            swapped = (await chain.object(other.id)).previous_transaction

            async def lying(plain, digest):
                told = await plain(swapped)
                genuine_told = await plain(digest)
                return replace(told, executed=replace(told.executed, events=genuine_told.executed.events))

            calls.answers["transaction"] = lying
            with pytest.raises(NodeRefused):
                await card.find_directory(chain)

    run(work())


def test_another_coin_is_not_sent_in_place_of_the_one_that_was_named(client, wallet, calls):
    """A transfer takes any object: which coins are of the type that was named is the node's word."""
    modules = [b64decode(text) for text in json.loads(GOLD.read_text())["modules"]]

    async def mint(chain):
        program = Program()
        program.transfer([program.publish(modules, ["0x1", "0x2"])], chain.address)
        executed = await chain.execute(program)
        (package,) = [each.id for each in executed.changes if each.type == "package"]
        (cap,) = executed.created_objects(canonical_type("0x2::coin::TreasuryCap"))
        coin = f"{package}::gold::GOLD"
        program = Program()
        arguments = [
            program.object(cap.id),
            program.pure("u64", 1000),
            program.pure("address", chain.address),
        ]
        program.call("0x2", "coin", "mint_and_transfer", arguments, [coin], 0)
        await chain.execute(program)
        return coin

    async def work():
        async with client(wallet()) as chain:
            worth, worthless = await mint(chain), await mint(chain)

            async def coins(genuine, owner, type, token):
                return await genuine(owner, type.replace(worthless, worth), token)

            calls.answers["owned_objects"] = coins
            for amount in (10, 1000):
                with pytest.raises(TransactionFailed):
                    await send(chain, "0x5", amount, worthless)
            calls.answers.clear()
            assert (await chain.balance(chain.address, worth)).total == 1000
            await send(chain, "0x5", 400, worth)
            await send(chain, "0x5", 600, worth)
            assert [(await chain.balance(each, worth)).total for each in (chain.address, "0x5")] == [0, 1000]

    run(work())
