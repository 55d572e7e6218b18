"""A package of somebody else's on top of shows, `move/examples/resale`: tickets are sold on by it."""

import shutil
import time
from pathlib import Path

import pytest
from chain_resolver.hosts import run
from shows import ME

from dtp.broadcast.money import shows
from dtp.broadcast.money.shows import ShowTerms
from dtp.broadcast.money.tickets import TicketHolders
from dtp.chain import Program
from dtp.chain.errors import MoveAborted
from dtp.chain.model import SUI_COIN
from dtp.chain.packages.publish import publish_modules
from dtp.chain.signer import KeySigner
from dtp.cli import move_build
from dtp.identity import Identity

ROOT = Path(__file__).resolve().parents[3]
ALICE, BOB = (Identity(bytes([each]) * 32) for each in (21, 22))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("node") is None or not (ROOT / "move/node_modules").is_dir(),
        reason="needs Node, and `npm ci` in move/",
    ),
]


class Market:
    """The published package, and what one account does with it."""

    def __init__(self, package, show):
        self.package, self.show = package, show

    async def _call(self, chain, function, build):
        program = Program()
        build(program, lambda *given, results: program.call(
            self.package, "resale", function, given, [SUI_COIN], results=results
        ))  # fmt: skip
        return await chain.execute(program)

    async def offer(self, chain, ticket, price):
        def build(program, call):
            call(program.object(ticket), program.pure("u64", price), results=0)

        executed = await self._call(chain, "offer", build)
        (made,) = executed.created_objects(f"{self.package}::resale::Offer")
        return made.id

    async def buy(self, chain, offer, pays):
        def build(program, call):
            (money,) = program.split(program.gas, [pays])
            show = program.object(self.show, mutable=False)
            (ticket,) = call(program.object(offer), show, money, program.clock(), results=1)
            program.transfer([ticket, money], chain.address)

        await self._call(chain, "buy", build)

    async def withdraw(self, chain, offer):
        def build(program, call):
            (ticket,) = call(program.object(offer), results=1)
            program.transfer([ticket], chain.address)

        await self._call(chain, "withdraw", build)


async def publish_market(chain):
    folder = ROOT / "move" / "examples" / "resale"
    name, needed = move_build.needs_of(folder)
    assert (name, list(needed)) == ("resale", ["broadcast"])
    published = {each: chain.deployments.find(each) for each in needed}
    code, linked, warnings = move_build.compile_folder(move_build.Checkout(ROOT), folder, published)
    assert warnings == ""
    return (await publish_modules(chain, code, linked, immutable=True))[0]


async def refused(work):
    with pytest.raises(MoveAborted) as told:
        await work
    return str(told.value)


def test_a_ticket_that_a_package_has_sold_on_is_the_buyers_with_all_that_is_unspent(client, net):
    for each in ALICE, BOB:
        net.fund(each.id.sui_address)

    async def work():
        async with (
            client(KeySigner.from_identity(ALICE)) as alice,
            client(KeySigner.from_identity(BOB)) as bob,
        ):
            terms = ShowTerms(
                slot_ms=3_600_000,
                ticket_price=700,
                fewest=1,
                slots=7,
                start_by_ms=int(time.time() * 1000) + 10**8,
            )
            id, _ = await shows.create(alice, ME.id.key, terms)
            market = Market(await publish_market(alice), id)
            holders = TicketHolders(alice, id)
            ticket, _ = await shows.buy(alice, id)
            assert await holders.refused({ALICE.id: []}) == {}
            offer = await market.offer(alice, ticket, 601)
            assert ALICE.id in await holders.refused(
                {ALICE.id: []}
            )  # while it is for sale nobody listens with it
            assert "EOverpriced" in await refused(market.buy(bob, offer, 700))  # the first slot has begun
            assert "ENotSeller" in await refused(market.withdraw(bob, offer))
            await market.withdraw(alice, offer)
            offer = await market.offer(alice, ticket, 600)
            assert "ETooLittle" in await refused(market.buy(bob, offer, 599))
            await market.buy(bob, offer, 10_000)
            assert list(await holders.refused({ALICE.id: [], BOB.id: []})) == [ALICE.id]
            assert [each.amount for each in await shows.refund(bob, id)] == [600]

    run(work())
