"""Shows of the package `broadcast` on a node, by their Python forms: funded, left, collected; ticketed and late."""

import pytest

from dtp.chain import Program, show
from dtp.chain.errors import MoveAborted
from dtp.chain.show import EntryKind, Show, ShowError, ShowShare, ShowState

from ..conftest import run

KEY, HASH = b"k" * 32, b"h" * 32
SLOT = 1_000


@pytest.fixture
def play(client, wallet):
    """Run a scenario with a producer and a listener."""

    def start(scenario):
        async def work():
            async with client(wallet()) as producer, client(wallet()) as listener:
                await scenario(producer, listener)

        run(work())

    return start


async def make(chain, build, **terms):
    program = Program()
    made, cap = build(program, KEY, slot_ms=SLOT, hint="dtp://dtp1.../radio", **terms)
    show.share(program, made)
    program.transfer([cap], chain.address)
    executed = await chain.execute(program)
    (told,) = chain.events_in(executed, show.SCHEMA, show.ShowCreated)
    return told.show, told.cap


async def pay(chain, build, id, amount):
    program = Program()
    (money,) = program.split(program.gas, [amount])
    program.transfer([build(program, id, money)], chain.address)
    executed = await chain.execute(program)
    (told,) = chain.events_in(executed, show.SCHEMA, show.Contributed)
    states = [each.state for each in chain.events_in(executed, show.SCHEMA, show.StateChanged)]
    return told.share, states


async def do(chain, build, *arguments, **options):
    program = Program()
    build(program, *arguments, **options)
    return await chain.execute(program)


async def take_back(chain, id, share):
    program = Program()
    program.transfer([show.take_back(program, id, share)], chain.address)
    executed = await chain.execute(program)
    return chain.events_in(executed, show.SCHEMA, show.Returned)[0].amount


def test_a_funded_show(play, net):
    async def scenario(producer, listener):
        id, cap = await make(producer, show.new_funded, rate=100, start_pot=300, prices=(1, 20, 5))
        await do(producer, show.set_hint, id, cap, "dtp://dtp1.../news")
        share, states = await pay(listener, show.contribute, id, 250)
        assert states == []
        more, states = await pay(listener, show.contribute, id, 50)
        assert states == [ShowState.ON_AIR]
        net.advance_clock(2 * SLOT)
        executed = await do(producer, show.post, id, cap, [HASH, HASH])
        (told,) = producer.events_in(executed, show.SCHEMA, show.SlotsPosted)
        assert told.head == show.next_head(show.next_head(show.FIRST_HEAD, HASH), HASH)
        assert (told.first, told.hashes, told.released, told.pot) == (0, (HASH, HASH), 200, 100)
        found = await listener.read(show.SCHEMA, Show, id)
        assert (found.next_slot, found.hint) == (100, b"dtp://dtp1.../news")
        held = await listener.read(show.SCHEMA, ShowShare, share)
        assert found.unspent_of(held) == 83
        assert await take_back(listener, id, share) == 0  # the slot that runs takes all that is left
        assert (await listener.read(show.SCHEMA, Show, id)).state == ShowState.ON_AIR
        net.advance_clock(SLOT)
        await do(producer, show.post, id, cap, [HASH])
        assert (await listener.read(show.SCHEMA, Show, id)).state == ShowState.OFF
        assert await take_back(listener, id, more) == 0
        program = Program()
        program.transfer([show.collect(program, id, cap)], producer.address)
        executed = await producer.execute(program)
        assert producer.events_in(executed, show.SCHEMA, show.Collected)[0].amount == 300
        await do(producer, show.end, id, cap)
        await do(producer, show.destroy, id, cap)

    play(scenario)


def test_a_ticketed_show_that_never_starts(play, net, client, wallet):
    async def scenario(producer, listener):
        now = net.now_ms()
        terms = {"slots": 3, "ticket_price": 300, "fewest": 2, "start_by_ms": now + 60_000}
        id, _ = await make(producer, show.new_ticketed, **terms)
        ticket, states = await pay(listener, show.buy_ticket, id, 300)
        assert states == []
        with pytest.raises(MoveAborted) as aborted:
            await take_back(listener, id, ticket)
        assert aborted.value.error is ShowError.TICKETS_STAND
        net.advance_clock(61_000)
        await do(listener, show.expire, id)
        assert await take_back(listener, id, ticket) == 300
        with pytest.raises(MoveAborted) as aborted:
            await do(listener, show.migrate, id)
        assert aborted.value.error is ShowError.UP_TO_DATE

    play(scenario)


def test_the_audience_line(play):
    async def scenario(producer, listener):
        id, _ = await make(producer, show.new_funded, rate=1, start_pot=1, prices=(1, 20, 5))

        def asks(program):
            tip, more = program.split(program.gas, [20, 3])
            show.ask(program, id, EntryKind.REQUEST, tip, b"play it again", sealed=False)
            show.raise_(program, id, 0, more)

        executed = await do(listener, asks)
        (asked,) = listener.events_in(executed, show.SCHEMA, show.EntryAsked)
        assert (asked.number, asked.kind, asked.amount, asked.text) == (
            0,
            EntryKind.REQUEST,
            20,
            b"play it again",
        )
        (raised,) = listener.events_in(executed, show.SCHEMA, show.Raised)
        assert (raised.number, raised.amount, raised.from_) == (0, 3, listener.address)
        found = await producer.read(show.SCHEMA, Show, id)
        assert (found.earned, found.tipped, found.asked) == (23, 23, 1)

    play(scenario)
