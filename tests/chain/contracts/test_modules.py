"""Every function of the packages, called through its Python form against the compiled bytecode on a node."""

import hashlib
import inspect
import keyword

import pytest

from dtp.chain import KeySigner, Program, card, channel, host, lock, pass_, pipe, show
from dtp.chain.errors import MoveAborted
from dtp.chain.model import SUI_COIN, canonical_type
from dtp.chain.node.commands import PureInput
from dtp.chain.packages import load
from dtp.chain.packages.surface import surfaces
from dtp.sui import transaction as sui
from dtp.sui.bcs import BYTES, vector

from ..conftest import run

CLAIM_MS, IDLE_MS = 60_000, 120_000
TERMS = host.Terms(
    price_request=1000, price_mib=2_000_000, min_deposit=1_000, idle_ms=IDLE_MS, claim_ms=CLAIM_MS
)
#: A key that is none of small order, whose hosts nobody dials.
ENDPOINT_KEY = b"e" * 32
COIN = canonical_type("0x2::coin::Coin<0x2::sui::SUI>")


@pytest.mark.parametrize(
    ("package", "module", "python"),
    [
        ("transport", "host", host),
        ("transport", "pass", pass_),
        ("transport", "channel", channel),
        ("transport", "pipe", pipe),
        ("escrow", "lock", lock),
        ("directory", "card", card),
        ("broadcast", "show", show),
    ],
)
def test_every_function_that_does_something_has_a_python_form(package, module, python):
    """Those that only read have none: the objects are read as dataclasses."""
    found = load(package)
    (surface,) = [each for each in surfaces(found.compiled, found.modules) if each.module == module]
    acting = {
        each.name
        for each in surface.functions
        if any(text.startswith("&mut") or not text.startswith("&") for text in each.parameters)
    }
    # Pure functions over plain values, which have a Python form of another name.
    acting -= {"voucher_bytes", "release_bytes", "ed25519_address", "cap_host"}
    acting -= {"statement_bytes", "wallet_bytes", "rotation_bytes", "end_bytes"}
    # Words that Python has for itself.
    acting = {name + "_" * (name in keyword.kwlist) for name in acting}
    forms = {name for name, _ in inspect.getmembers(python, inspect.isfunction)}
    reading = {"is_allowed", "is_denied", "has_service", "service", "is_fresh", "lane_progress"}
    reading |= {"is_valid", "valid_until", "holder"}
    reading |= {"has_card", "card_of_account", "has_account", "card_of_wallet", "names_device"}
    reading |= {"is_ticket", "value", "show"}
    assert acting - reading <= forms


class World:
    """A host with one open service, its server and a client."""

    def __init__(self, server, client):
        self.server, self.client = server, client
        self.lane = KeySigner.generate()
        self.host = self.beacon = self.cap = self.op = ""

    async def set_up(self, terms=TERMS, **service):
        chain = self.server
        program = Program()
        host.create(program, chain.address, ttl_ms=86_400_000, operator=chain.address)
        made = chain.events_in(await chain.execute(program), host.SCHEMA, host.HostCreated)[0]
        self.host, self.beacon = made.host, made.beacon
        (cap,) = await chain.owned(host.SCHEMA, host.HostCap, chain.address)
        (op,) = await chain.owned(host.SCHEMA, host.OpCap, chain.address)
        self.cap, self.op = cap.id, op.id
        program = Program()
        host.add_service(program, self.host, self.cap, 1, terms, **service)
        host.set_open(program, self.host, self.cap, 1, True)
        host.enroll(program, self.beacon, self.op, ENDPOINT_KEY, weight=3, hint=b"tcp://h:1")
        host.heartbeat(program, self.beacon, self.op, ENDPOINT_KEY, 1, 7)
        await chain.execute(program)
        return self

    async def open_channel(self, deposit=1_000_000):
        program = Program()
        channel.open_and_share(program, self.host, self.beacon, 1, 1, deposit, self.lane.public_key)
        executed = await self.client.execute(program)
        return self.client.events_in(executed, channel.SCHEMA, channel.ChannelOpened)[0].channel

    def voucher(self, id, sequence, amount, requests, size=0, **more):
        made = channel.Voucher(id, more.pop("lane", 0), sequence, amount, requests, size, **more)
        return made, self.lane.sign_statement(channel.voucher_bytes(made))

    async def read(self, id):
        return await self.client.read(channel.SCHEMA, channel.Channel, id)


@pytest.fixture
def play(client, wallet):
    """Run a scenario with a world."""

    def start(scenario, **options):
        async def work():
            async with client(wallet(), **options) as server, client(wallet(), **options) as user:
                return await scenario(World(server, user))

        return run(work())

    return start


async def do(chain, build, *arguments, **options):
    program = Program()
    build(program, *arguments, **options)
    return await chain.execute(program)


async def refused(error, chain, build, *arguments, **options):
    with pytest.raises(MoveAborted) as aborted:
        await do(chain, build, *arguments, **options)
    assert aborted.value.error is error


def test_a_host_and_all_that_its_owner_does(play):
    async def scenario(world):
        chain, other = world.server, KeySigner.generate().address
        await world.set_up(kind=host.ServiceKind.HTTP, window=5, terms_hash=bytes(32))
        found = await chain.read(host.SCHEMA, host.Host, world.host)
        assert found.owner == chain.address
        service = found.services[1]
        assert (service.kind, service.open, service.window, service.terms_hash) == (
            host.ServiceKind.HTTP,
            True,
            5,
            bytes(32),
        )
        assert service.terms == host.Terms(**{**vars(TERMS), "revision": 1})
        await do(chain, host.set_owner, world.host, world.cap, other)
        await do(chain, host.set_terms, world.host, world.cap, 1, host.Terms(price_request=9))
        await do(chain, host.set_mode, world.host, world.cap, 1, host.Mode.ALLOW_LIST)
        limit = host.RateLimit(host.Rate(1000, 2), host.Rate(3, 4))
        await do(chain, host.set_limits, world.host, world.cap, 1, limit, 8, 9)
        await do(chain, host.set_open, world.host, world.cap, 1, False)
        found = await chain.read(host.SCHEMA, host.Host, world.host)
        service = found.services[1]
        assert (found.owner, service.mode, service.open) == (other, host.Mode.ALLOW_LIST, False)
        assert (service.rate, service.window, service.post_fee) == (limit, 8, 9)
        assert (service.terms.revision, service.terms.price_request) == (2, 9)
        await do(chain, host.remove_service, world.host, world.cap, 1)
        assert not (await chain.read(host.SCHEMA, host.Host, world.host)).services
        await refused(host.HostError.NO_SERVICE, chain, host.set_open, world.host, world.cap, 1, True)
        await do(chain, host.destroy, world.host, world.beacon, world.cap)
        await do(chain, host.destroy_cap, world.cap)
        assert not await chain.owned(host.SCHEMA, host.HostCap, chain.address)

    play(scenario)


def test_operators_lists_and_endpoints(play):
    async def scenario(world):
        chain, other, key = world.server, KeySigner.generate().address, b"k" * 32
        await world.set_up()
        for add, remove, table in ((host.allow, host.disallow, "allow"), (host.deny, host.undeny, "deny")):
            await do(chain, add, world.host, world.op, [other, "0x5"])
            found = await chain.read(host.SCHEMA, host.Host, world.host)
            listed = [each async for each in chain.dynamic_fields(getattr(found, table).id)]
            assert set(host.listed_addresses(listed)) == {other, "0x" + "0" * 63 + "5"}
            await do(chain, remove, world.host, world.op, [other, "0x5"])
            assert getattr(await chain.read(host.SCHEMA, host.Host, world.host), table).size == 0
        await do(chain, host.enroll, world.beacon, world.op, key, role=host.Role.STANDBY)
        await do(
            chain, host.configure, world.beacon, world.op, key, weight=9, role=host.Role.ACTIVE, hint=b"x"
        )
        await do(chain, host.set_ttl, world.beacon, world.cap, 20_000)
        beacon = await chain.read(host.SCHEMA, host.Beacon, world.beacon)
        first, second = beacon.endpoints
        assert (second.weight, second.role, second.hint, second.seen_ms) == (9, 0, b"x", 0)
        assert beacon.ttl_ms == 20_000
        assert beacon.live_endpoints(first.seen_ms + 20_000) == (first,)
        assert beacon.live_endpoints(first.seen_ms + 20_001) == ()
        await refused(host.HostError.FENCED, chain, host.heartbeat, world.beacon, world.op, ENDPOINT_KEY, 0)
        await do(chain, host.withdraw, world.beacon, world.op, key)
        await do(chain, host.revoke_operators, world.host, world.beacon, world.cap)
        await refused(host.HostError.REVOKED_OPERATOR, chain, host.allow, world.host, world.op, ["0x1"])
        await do(chain, host.destroy_operator, world.op)

    play(scenario)


def test_a_channel_from_opening_to_its_end(play, net):
    async def scenario(world):
        await world.set_up()
        id = await world.open_channel(1_000_000)
        server, client = world.server, world.client
        # The server claims; a claim pays what the voucher grew by.
        program = Program()
        money = channel.claim(program, *world.voucher(id, 1, 10_000, 10))
        program.transfer([money], server.address)
        executed = await server.execute(program)
        (claimed,) = server.events_in(executed, channel.SCHEMA, channel.Claimed)
        assert (claimed.channel, claimed.paid, claimed.amount) == (id, 10_000, 10_000)
        stale = world.voucher(id, 2, 10_000, 10)
        await refused(channel.ChannelError.STALE_VOUCHER, server, channel.claim_for, *stale)
        # A watcher claims with a preimage, and the server is paid.
        secret = b"s" * 32
        locked = world.voucher(id, 2, 15_000, 15, hash_lock=hashlib.sha256(secret).digest())
        await refused(channel.ChannelError.WRONG_PREIMAGE, client, channel.claim_for, *locked, b"x" * 32)
        executed = await do(client, channel.claim_for, *locked, secret)
        assert client.events_in(executed, channel.SCHEMA, channel.Claimed)[0].preimage == secret
        # More money, more lanes, another key.
        program = Program()
        (money,) = program.split(program.gas, [500])
        channel.top_up(program, id, money)
        channel.add_lane(program, id, b"l" * 32)
        channel.rotate_lane(program, id, 1, b"m" * 32)
        channel.pay_owed(program, id)
        await client.execute(program)
        found = await world.read(id)
        assert (found.deposited, found.claimed, found.balance) == (1_000_500, 15_000, 985_500)
        assert [each.key for each in found.lanes] == [world.lane.public_key, b"m" * 32]
        assert found.lanes[1].old_key == b"l" * 32
        assert found.coin == SUI_COIN
        # The client asks to close; the server is too early, then anyone finalizes.
        await do(client, channel.request_close, id)
        found = await world.read(id)
        assert found.state == channel.ChannelState.CLOSING
        assert found.claims_until_ms == found.closing_ms + CLAIM_MS
        await refused(channel.ChannelError.TOO_EARLY, server, channel.finalize, id)
        net.advance_clock(CLAIM_MS)
        executed = await do(server, channel.finalize, id)
        (settled,) = server.events_in(executed, channel.SCHEMA, channel.Settled)
        assert (settled.to_client, settled.to_server, settled.state) == (
            985_500,
            0,
            channel.ChannelState.CLOSED,
        )
        await do(client, channel.destroy, id)

    play(scenario)


def test_other_ends_of_channels(play, net):
    async def scenario(world):
        await world.set_up()
        server, client = world.server, world.client
        released, idle, agreed = [await world.open_channel() for _ in range(3)]
        await do(server, channel.release, released)
        assert (await world.read(released)).state == channel.ChannelState.CLOSED
        await refused(channel.ChannelError.TOO_EARLY, server, channel.request_close, idle)
        now = (await world.read(idle)).active_ms
        agreement = channel.CloseAgreement(agreed, 400_000, now + 10**9)
        signature = client.signer.sign_statement(channel.agreement_bytes(agreement))
        public = client.signer.public_key
        wrong = server.signer.sign_statement(channel.agreement_bytes(agreement))
        close = channel.close_agreed
        await refused(channel.ChannelError.BAD_SIGNATURE, server, close, agreement, public, wrong)
        executed = await do(server, close, agreement, public, signature)
        (settled,) = server.events_in(executed, channel.SCHEMA, channel.Settled)
        assert (settled.to_server, settled.to_client) == (400_000, 600_000)
        net.advance_clock(IDLE_MS)
        await do(server, channel.request_close, idle)
        await refused(channel.ChannelError.TOO_EARLY, client, channel.finalize, idle)
        net.advance_clock(CLAIM_MS)
        await do(server, channel.finalize, idle)
        assert (await world.read(idle)).refunded == 1_000_000

    play(scenario)


def test_subscriptions(play, net):
    async def scenario(world):
        server, client = world.server, world.client
        await world.set_up(mode=host.Mode.PASS)
        program = Program()
        pass_.share(program, pass_.new_plan(program, world.host, world.cap, 1, price=1000, period_ms=60_000))
        plan = server.events_in(await server.execute(program), pass_.SCHEMA, pass_.PlanCreated)[0].plan
        program = Program()
        (money,) = program.split(program.gas, [3000])
        pass_.keep(program, pass_.buy(program, plan, world.host, money, 3))
        paid = client.events_in(await client.execute(program), pass_.SCHEMA, pass_.PassPaid)[0]
        (held,) = await client.owned(pass_.SCHEMA, pass_.Pass, client.address)
        assert (held.id, held.plan, held.service, paid.periods) == (paid.pass_, plan, 1, 3)
        # Open under it: no deposit.
        program = Program()
        revision = (await client.read(host.SCHEMA, host.Host, world.host)).services[1].terms.revision
        opened = channel.open_with_pass(
            program, world.host, world.beacon, plan, held.id, revision, world.lane.public_key
        )
        channel.share(program, opened)
        executed = await client.execute(program)
        event = client.events_in(executed, channel.SCHEMA, channel.ChannelOpened)[0]
        assert (event.deposit, event.pass_) == (0, held.id)
        assert (await world.read(event.channel)).pass_ == held.id
        # Renew, draw what has elapsed, cancel the rest.
        program = Program()
        (money,) = program.split(program.gas, [1000])
        pass_.renew(program, plan, world.host, held.id, money, 1)
        await client.execute(program)
        net.advance_clock(60_000)
        program = Program()
        program.transfer([pass_.draw(program, plan, world.cap, [held.id])], server.address)
        drawn = server.events_in(await server.execute(program), pass_.SCHEMA, pass_.PlanDrawn)[0]
        assert drawn.amount == 1000
        program = Program()
        program.transfer([pass_.cancel(program, plan, held.id)], client.address)
        back = client.events_in(await client.execute(program), pass_.SCHEMA, pass_.PassRefunded)[0]
        assert (back.periods, back.revoked) == (2, False)
        (entry,) = [each async for each in client.dynamic_fields((await plan_of(client, plan)).accounts.id)]
        account = pass_.SCHEMA.decode(pass_.PassAccount, entry.value)
        assert (account.holder, account.periods, account.drawn) == (client.address, 2, 1)
        # Revoked: the running period comes back; then nothing is left and the plan goes.
        await do(server, pass_.revoke, plan, world.host, world.op, held.id)
        await do(server, pass_.set_on_sale, plan, world.cap, False)
        await do(client, pass_.destroy, plan, held.id)
        assert (await plan_of(client, plan)).pot == 0
        program = Program()
        program.transfer([pass_.retire(program, plan, world.cap)], server.address)
        await server.execute(program)

    async def plan_of(chain, id):
        return await chain.read(pass_.SCHEMA, pass_.Plan, id)

    play(scenario)


def test_who_is_denied_gets_the_running_period_back_and_keeps_no_plan(play, net):
    async def scenario(world):
        server, client = world.server, world.client
        await world.set_up(mode=host.Mode.PASS)
        program = Program()
        pass_.share(program, pass_.new_plan(program, world.host, world.cap, 1, price=1000, period_ms=60_000))
        made = server.events_in(await server.execute(program), pass_.SCHEMA, pass_.PlanCreated)[0]
        assert made.coin == canonical_type("0x2::sui::SUI")

        async def buys():
            program = Program()
            (money,) = program.split(program.gas, [3000])
            pass_.keep(program, pass_.buy(program, made.plan, world.host, money, 3))
            executed = await client.execute(program)
            return client.events_in(executed, pass_.SCHEMA, pass_.PassPaid)[0].pass_

        async def gives_back(held):
            program = Program()
            money = pass_.cancel_refused(program, made.plan, world.host, held)
            program.transfer([money], client.address)
            executed = await client.execute(program)
            return client.events_in(executed, pass_.SCHEMA, pass_.PassRefunded)[0]

        held = await buys()
        with pytest.raises(MoveAborted) as aborted:
            await gives_back(held)
        assert aborted.value.error is pass_.PassError.NOT_REFUSED
        net.advance_clock(60_000)
        executed = await do(server, host.deny, world.host, world.op, [client.address])
        (listed,) = server.events_in(executed, host.SCHEMA, host.ListChanged)
        assert (listed.list, listed.added, listed.addresses) == (host.HostList.DENY, True, (client.address,))
        back = await gives_back(held)
        assert (back.periods, back.amount, back.revoked) == (2, 2000, False)
        with pytest.raises(MoveAborted) as aborted:
            await buys()
        assert aborted.value.error is host.HostError.DENIED
        # The pass is kept, and keeps no plan: the first period is earned.
        await refused(pass_.PassError.ON_SALE, server, pass_.forget, made.plan, world.cap, [held])
        executed = await do(server, pass_.set_on_sale, made.plan, world.cap, False)
        assert server.events_in(executed, pass_.SCHEMA, pass_.SaleChanged)[0].on_sale is False
        program = Program()
        pass_.forget(program, made.plan, world.cap, [held])
        program.transfer([pass_.retire(program, made.plan, world.cap)], server.address)
        await server.execute(program)
        await do(client, pass_.discard, held)
        assert not await client.owned(pass_.SCHEMA, pass_.Pass, client.address)

    play(scenario)


def test_a_plan_of_a_deleted_host_ends_though_a_pass_was_thrown_away(play):
    async def scenario(world):
        server, client = world.server, world.client
        await world.set_up(mode=host.Mode.PASS)
        program = Program()
        pass_.share(program, pass_.new_plan(program, world.host, world.cap, 1, price=1000, period_ms=60_000))
        plan = server.events_in(await server.execute(program), pass_.SCHEMA, pass_.PlanCreated)[0].plan
        program = Program()
        (money,) = program.split(program.gas, [1_000_000])
        pass_.keep(program, pass_.buy(program, plan, world.host, money, 1000))
        executed = await client.execute(program)
        (bought,) = client.events_in(executed, pass_.SCHEMA, pass_.PassPaid)
        await do(client, pass_.discard, bought.pass_)
        await do(server, host.destroy, world.host, world.beacon, world.cap)
        await do(server, pass_.set_on_sale, plan, world.cap, False)
        program = Program()
        pass_.revoke_as_owner(program, plan, world.cap, bought.pass_)
        pass_.forget(program, plan, world.cap, [bought.pass_])
        program.transfer([pass_.retire(program, plan, world.cap)], server.address)
        executed = await server.execute(program)
        (back,) = server.events_in(executed, pass_.SCHEMA, pass_.PassRefunded)
        assert (back.periods, back.amount, back.revoked) == (1000, 1_000_000, True)

    play(scenario)


def test_who_sells_by_an_allow_list_sells_to_those_on_it(play):
    async def scenario(world):
        server, client = world.server, world.client
        await world.set_up(mode=host.Mode.ALLOW_LIST)
        program = Program()
        pass_.share(program, pass_.new_plan(program, world.host, world.cap, 1, price=1000, period_ms=60_000))
        plan = server.events_in(await server.execute(program), pass_.SCHEMA, pass_.PlanCreated)[0].plan

        def buying():
            program = Program()
            (money,) = program.split(program.gas, [1000])
            pass_.keep(program, pass_.buy(program, plan, world.host, money, 1))
            return program

        with pytest.raises(MoveAborted) as aborted:
            await client.execute(buying())
        assert aborted.value.error is host.HostError.NOT_ALLOWED
        await do(server, host.allow, world.host, world.op, [client.address])
        (paid,) = client.events_in(await client.execute(buying()), pass_.SCHEMA, pass_.PassPaid)
        assert (paid.periods, paid.amount) == (1, 1000)

    play(scenario)


def test_an_index_of_a_pipe_comes_back_and_its_numbers_go_on(play):
    async def scenario(world):
        await world.set_up()
        id = await world.open_channel()

        async def opened():
            program = Program()
            pipe.keep(program, pipe.open(program, id))
            await world.client.execute(program)
            (held,) = await world.client.owned(pipe.SCHEMA, pipe.Pipe, world.client.address)
            return held

        for before in range(18):  # a direction has sixteen indices
            held = await opened()
            assert (held.index, held.sequence) == (0, before)
            await do(world.client, pipe.send, held.id, id, world.host, b"frame")
            await do(world.client, pipe.close, held.id, id)
        await refused(channel.ChannelError.UNSENT_ACK, world.server, pipe.ack, id, 0, 2**64 - 1)
        found = await world.read(id)
        assert (found.acks_to_server, found.free_to_client) == ((0,), ())
        assert found.free_to_server == (channel.ClosedPipe(0, 18, 0, 0),)

    play(scenario)


WEAK_KEYS = [
    *(bytes([first]) + bytes(30) + bytes([last]) for first in (0, 1) for last in (0, 128)),
    *(bytes([first]) + b"\xff" * 30 + bytes([last]) for first in (0xEC, 0xED, 0xEE) for last in (127, 255)),
    *(
        bytes.fromhex(first + last)
        for last in ("05", "85")
        for first in ("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc",)
    ),
    *(
        bytes.fromhex(first + last)
        for last in ("7a", "fa")
        for first in ("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03",)
    ),
]


def test_keys_that_anyone_can_sign_for_are_refused(play, net):
    """All fourteen encodings of the eight points of small order, wherever a key is set."""
    assert len(set(WEAK_KEYS)) == 14

    async def scenario(world):
        await world.set_up()
        id = await world.open_channel()
        await do(world.client, channel.add_lane, id, ENDPOINT_KEY)
        for key in WEAK_KEYS:
            await refused(channel.ChannelError.WEAK_KEY, world.client, channel.add_lane, id, key)
            await refused(channel.ChannelError.WEAK_KEY, world.client, channel.rotate_lane, id, 0, key)
            await refused(host.HostError.WEAK_KEY, world.server, host.enroll, world.beacon, world.op, key)
            program = Program()
            (money,) = program.split(program.gas, [1000])
            deadline = net.now_ms() + 100_000
            lock.share(program, lock.new_key_lock(program, money, key, relay_fee=0, deadline_ms=deadline))
            with pytest.raises(MoveAborted) as aborted:
                await world.client.execute(program)
            assert aborted.value.error is lock.LockError.WEAK_KEY

    play(scenario)


def test_an_old_key_pays_through_a_close_that_began_in_its_time(play, net):
    async def scenario(world):
        await world.set_up()
        id = await world.open_channel()
        voucher = world.voucher(id, 1, 1000, 1)
        await do(world.client, channel.rotate_lane, id, 0, KeySigner.generate().public_key)
        net.advance_clock(CLAIM_MS - 1000)
        await do(world.client, channel.request_close, id)
        net.advance_clock(CLAIM_MS - 1000)
        executed = await do(world.client, channel.claim_for, *voucher)
        (claimed,) = world.client.events_in(executed, channel.SCHEMA, channel.Claimed)
        assert (claimed.paid, claimed.coin) == (1000, canonical_type("0x2::sui::SUI"))

    play(scenario)


@pytest.mark.parametrize("size", [0, 1, 16_000, 16_376, 16_377, 16_384, 40_000, 128 * 1024])
def test_frames_are_cut_into_arguments_that_fit(size):
    """16 KiB is the most that one argument holds; together the chunks are the frame."""
    data = bytes(n % 251 for n in range(size))
    program = Program()
    pipe.send(program, "0x1", "0x2", "0x3", data, flags=9)
    given = [each.data for each in program.inputs if isinstance(each, PureInput)]
    assert all(len(each) <= 16_384 for each in given)
    vectors = [each for each in program.commands(lambda name: "0x9") if isinstance(each, sui.MakeMoveVec)]
    if vectors:
        places = [argument.index for argument in vectors[0].elements]
        chunks = [BYTES.decode(program.inputs[place].data) for place in places]
    else:
        chunks = vector(BYTES).decode(given[0])
    assert b"".join(chunks) == data


@pytest.mark.parametrize("size", [0, 1, 1000, 16_376, 16_377, 120_000])
def test_frames_arrive_as_events(play, size):
    data = bytes(n % 251 for n in range(size))

    async def scenario(world):
        await world.set_up()
        id = await world.open_channel()
        program = Program()
        pipe.keep(program, pipe.open(program, id))
        await world.client.execute(program)
        (held,) = await world.client.owned(pipe.SCHEMA, pipe.Pipe, world.client.address)
        assert (held.direction, held.index) == (pipe.Direction.TO_SERVER, 0)
        executed = await do(world.client, pipe.send, held.id, id, world.host, data, flags=3)
        (frame,) = world.client.events_in(executed, pipe.SCHEMA, pipe.PipeFrame)
        assert (frame.data, frame.flags, frame.sequence, frame.channel) == (data, 3, 1, id)

    play(scenario)


def test_frames_over_the_limit_are_refused_here():
    from dtp.chain.errors import ProgramError

    with pytest.raises(ProgramError, match="131,073 bytes"):
        pipe.send(Program(), "0x1", "0x2", "0x3", bytes(128 * 1024 + 1))


@pytest.mark.parametrize("bearer", [host.Bearer.CLIENT, host.Bearer.SERVER])
def test_acknowledgements_and_credits(play, bearer):
    terms = host.Terms(price_request=1000, bearer=bearer, credit=50, idle_ms=IDLE_MS, claim_ms=CLAIM_MS)

    async def scenario(world):
        await world.set_up(terms, window=2)
        id = await world.open_channel()
        sender = world.server if bearer is host.Bearer.CLIENT else world.client
        receiver = world.client if sender is world.server else world.server
        program = Program()
        pipe.keep(program, pipe.open(program, id))
        await sender.execute(program)
        (held,) = await sender.owned(pipe.SCHEMA, pipe.Pipe, sender.address)
        full = bytes(pipe.CREDIT_BYTES)
        for _ in range(2):
            await do(sender, pipe.send, held.id, id, world.host, full)
        await refused(pipe.PipeError.OVER_WINDOW, sender, pipe.send, held.id, id, world.host, b"frame")
        await do(receiver, pipe.ack, id, 0, 2)
        await do(sender, pipe.send, held.id, id, world.host, b"frame")
        await do(world.server, channel.claim_for, *world.voucher(id, 1, 2000, 2, 2 * pipe.CREDIT_BYTES))
        program = Program()
        if bearer is host.Bearer.CLIENT:
            program.transfer([pipe.collect_credit(program, held.id, id)], sender.address)
        else:
            pipe.charge_credit(program, held.id, id)
        done = await sender.execute(program)
        (told,) = sender.events_in(done, pipe.SCHEMA, pipe.Credited)
        assert (told.direction, told.bytes, told.amount) == (held.direction, 2 * pipe.CREDIT_BYTES, 100)
        found = await world.read(id)
        assert (found.credited, found.credit_due) == ((100, 0) if bearer is host.Bearer.CLIENT else (0, 100))
        assert (await sender.owned(pipe.SCHEMA, pipe.Pipe, sender.address))[
            0
        ].credited == 2 * pipe.CREDIT_BYTES
        await do(sender, pipe.destroy, held.id)

    play(scenario)


def test_messages_to_a_host(play):
    async def scenario(world):
        await world.set_up(post_fee=700)
        program = Program()
        (fee,) = program.split(program.gas, [700])
        pipe.post(program, world.host, 1, b"r" * 32, b"sealed", fee)
        (posted,) = world.client.events_in(await world.client.execute(program), pipe.SCHEMA, pipe.Posted)
        assert (posted.sender, posted.fee, posted.data) == (world.client.address, 700, b"sealed")
        program = Program()
        (fee,) = program.split(program.gas, [699])
        pipe.post(program, world.host, 1, b"r" * 32, b"sealed", fee)
        with pytest.raises(MoveAborted) as aborted:
            await world.client.execute(program)
        assert aborted.value.error is pipe.PipeError.FEE_TOO_SMALL

    play(scenario)


def test_locks(play, net):
    async def scenario(world):
        payer, other, recipient = world.server, world.client, KeySigner.generate().address
        deadline, secret, key = net.now_ms() + 100_000, b"p" * 32, KeySigner.generate()

        async def locked(build):
            program = Program()
            (money,) = program.split(program.gas, [10_000])
            lock.share(program, build(program, money))
            return payer.events_in(await payer.execute(program), lock.SCHEMA, lock.Locked)[0].lock

        def by_hash(program, money):
            hashed = hashlib.sha256(secret).digest()
            return lock.new_hash_lock(program, money, hashed, recipient, relay_fee=10, deadline_ms=deadline)

        def by_key(program, money):
            return lock.new_key_lock(program, money, key.public_key, relay_fee=10, deadline_ms=deadline)

        first, second, third = [await locked(build) for build in (by_hash, by_key, by_hash)]
        found = await payer.read(lock.SCHEMA, lock.Lock, first)
        assert (found.payer, found.payee, found.balance) == (payer.address, recipient, 10_000)
        assert (found.condition, found.relay_fee) == (lock.LockCondition.BY_HASH, 10)
        await refused(lock.LockError.WRONG_PREIMAGE, other, lock.claim_by_preimage, first, b"x" * 32)
        claimed = other.events_in(
            await do(other, lock.claim_by_preimage, first, secret), lock.SCHEMA, lock.LockClaimed
        )
        assert (claimed[0].recipient, claimed[0].amount, claimed[0].preimage) == (recipient, 9_990, secret)
        signature = key.sign_statement(lock.release_bytes(lock.Release(second, recipient)))
        await refused(
            lock.LockError.BAD_SIGNATURE, other, lock.claim_by_key, second, other.address, signature
        )
        await do(other, lock.claim_by_key, second, recipient, signature)
        assert (await other.balance(recipient)).total == 2 * 9_990
        await refused(lock.LockError.TOO_EARLY, other, lock.refund, third)
        net.advance_clock(200_000)
        (refunded,) = other.events_in(await do(other, lock.refund, third), lock.SCHEMA, lock.Refunded)
        assert refunded.amount == 10_000

    play(scenario)
