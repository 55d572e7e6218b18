"""What each Move function costs: one transaction after another on an embedded node, as a table for `move/README.md`.

Each row is a transaction with the functions that it calls, and nothing else but splitting the payment off the gas
coin and transferring what comes back. The life of a host, a pass, channels, pipes, locks, cards and shows is
played from beginning to end, so that every call finds what it needs; keys and times are fixed, so the numbers are
the same each time.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from dtp.chain import (
    ChainClient,
    Executed,
    KeySigner,
    Network,
    Program,
    Scheme,
    card,
    channel,
    host,
    lock,
    packages,
    pass_,
    pipe,
    publish,
    show,
)
from dtp.chain.model import GasUsed, format_amount
from dtp.cli.move_build import BuildError, Checkout, PackageFinding
from dtp.identity.card import KeyRotation, account_id, rotation_message
from dtp.localnet.grpc.localnet import LocalnetThread
from dtp.sui.transaction import MoveCall

README: Final = "move/README.md"
BEGIN, END = "<!-- dtp move gas: begin -->", "<!-- dtp move gas: end -->"
_ROW = re.compile(r"^\| `(\w+::\w+)` \| (.+?) \|", re.MULTILINE)
_FUNDS, _DAY = 100_000_000_000, 86_400_000
_ENDPOINT: Final = b"e" * 32
_START: Final = 1_750_000_000_000
_TERMS: Final = host.Terms(price_request=1000, min_deposit=1000, idle_ms=3_600_000, claim_ms=600_000)


@dataclass(frozen=True)
class GasRow:
    """A transaction: the functions of ours that it calls, what is special about it, and what it cost."""

    functions: tuple[str, ...]
    note: str
    gas: GasUsed


@dataclass
class _Play:
    """Executes programs and notes what they cost. `owner` has the host, `client` the channels, `lane` signs."""

    owner: ChainClient
    client: ChainClient
    lane: KeySigner
    advance: Callable[[int], None]
    now_ms: Callable[[], int]
    rows: list[GasRow] = field(default_factory=list)
    host: str = ""
    beacon: str = ""
    cap: str = ""
    op: str = ""

    async def execute_noted(self, chain: ChainClient, program: Program, note: str = "") -> Executed:
        """Execute a program and note its row."""
        executed = await chain.execute(program)
        calls = [
            f"{each.module}::{each.function}"
            for each in program.commands(chain.deployments.package_id)
            if isinstance(each, MoveCall)
        ]
        self.rows.append(GasRow(tuple(dict.fromkeys(calls)), note, executed.gas))
        return executed

    async def call_function(
        self, chain: ChainClient, build: Callable[..., Any], *arguments: Any, about: str = "", **more: Any
    ) -> Executed:
        """Return a transaction of one function; what it returns goes to the sender."""
        program = Program()
        returned = build(program, *arguments, **more)
        if returned is not None:
            program.transfer([returned], chain.address)
        return await self.execute_noted(chain, program, about)

    async def execute_paid(
        self,
        chain: ChainClient,
        amount: int,
        build: Callable[..., Any],
        *arguments: Any,
        about: str = "",
        then: Callable[[Program, Any], None] | None = None,
        **more: Any,
    ) -> Executed:
        """Return the same with a coin of `amount` as the last argument; `then` says where what is returned goes."""
        program = Program()
        (money,) = program.split(program.gas, [amount])
        returned = build(program, *arguments, money, **more)
        if then is not None:
            then(program, returned)
        return await self.execute_noted(chain, program, about)

    def make_voucher(self, id: str, sequence: int, amount: int, preimage: bytes = b"") -> tuple[Any, ...]:
        """Return a voucher, its signature and its preimage."""
        hashed = hashlib.sha256(preimage).digest() if preimage else None
        made = channel.Voucher(id, 0, sequence, amount, amount // 1000, 0, hash_lock=hashed)
        return made, self.lane.sign_statement(channel.voucher_bytes(made)), preimage

    async def open_channel(self, about: str = "with a deposit") -> str:
        """Return a channel of the client to service 1."""
        program = Program()
        opened = (self.host, self.beacon, 1, await self.terms_revision(), 1_000_000)
        channel.open_and_share(program, *opened, self.lane.public_key)
        executed = await self.execute_noted(self.client, program, about)
        return self.client.event_in(executed, channel.SCHEMA, channel.ChannelOpened).channel

    async def terms_revision(self) -> int:
        """Return the terms' revision of service 1."""
        found = await self.client.read(host.SCHEMA, host.Host, self.host)
        return found.services[1].terms.revision


def measure() -> list[GasRow]:
    """Return all rows, in the order of the play. Takes some seconds; nothing leaves this process but to its own
    port."""
    import asyncio

    clock = [_START]
    with LocalnetThread(now=lambda: clock[0]) as net:
        signers = [KeySigner(Scheme.ED25519, bytes([number]) * 32) for number in (1, 2, 3)]
        for each in signers[:2]:
            net.fund(each.address, _FUNDS)

        def advance(ms: int) -> None:
            clock[0] += ms

        return asyncio.run(_play(net.url, signers, advance, lambda: clock[0]))


async def _play(
    url: str, signers: list[KeySigner], advance: Callable[[int], None], now_ms: Callable[[], int]
) -> list[GasRow]:
    network = Network("gas", (url,))
    async with ChainClient(network, signers[0], deployments=None) as owner:
        published = [(name, (await publish(owner, name))[1]) for name in packages.available()]
        async with ChainClient(network, signers[1], deployments=owner.deployments) as client:
            play = _Play(owner, client, signers[2], advance, now_ms)
            for name, executed in published:
                assert executed is not None, "nothing was there before"
                play.rows.append(GasRow((), f"publishing `{name}`", executed.gas))
            await _host(play)
            await _passes(play)
            await _channels(play)
            await _pipes(play)
            await _locks(play)
            await _cards(play)
            await _shows(play)
            await _end_of_host(play)
            return play.rows


async def _host(play: _Play) -> None:
    chain = play.owner
    program = Program()
    host.create(program, chain.address, ttl_ms=_DAY, operator=chain.address)
    executed = await play.execute_noted(chain, program, "with a cap for the operator")
    made = chain.event_in(executed, host.SCHEMA, host.HostCreated)
    play.host, play.beacon = made.host, made.beacon
    (cap,) = await chain.owned(host.SCHEMA, host.HostCap, chain.address)
    (op,) = await chain.owned(host.SCHEMA, host.OpCap, chain.address)
    play.cap, play.op = cap.id, op.id
    owned = (play.host, play.cap)
    await play.call_function(chain, host.add_service, *owned, 1, _TERMS)
    await play.call_function(chain, host.set_open, *owned, 1, True)
    await play.call_function(chain, host.set_terms, *owned, 1, _TERMS)
    await play.call_function(chain, host.set_mode, *owned, 1, host.Mode.OPEN)
    limit = host.RateLimit(host.Rate(1_000_000, 100), host.Rate(1_000, 1_000_000))
    await play.call_function(chain, host.set_limits, *owned, 1, limit, 0, 10)
    await play.call_function(chain, host.set_owner, *owned, chain.address)
    await play.call_function(chain, host.set_ttl, play.beacon, play.cap, _DAY)
    hint = b"dtp+tcp://203.0.113.7:9000"
    await play.call_function(chain, host.enroll, play.beacon, play.op, _ENDPOINT, hint=hint)
    await play.call_function(
        chain, host.configure, play.beacon, play.op, _ENDPOINT, weight=2, role=host.Role.ACTIVE, hint=hint
    )
    await play.call_function(chain, host.heartbeat, play.beacon, play.op, _ENDPOINT, 1, 7)
    beacon = await chain.read(host.SCHEMA, host.Beacon, play.beacon)
    await play.call_function(chain, host.suspect, play.beacon, play.op, beacon.endpoints[0])
    await play.call_function(
        chain, host.heartbeat, play.beacon, play.op, _ENDPOINT, 1, 7, about="behind a suspicion"
    )
    address = "0x" + "5" * 64
    for add, remove in ((host.allow, host.disallow), (host.deny, host.undeny)):
        await play.call_function(chain, add, play.host, play.op, [address], about="one address")
        await play.call_function(chain, remove, play.host, play.op, [address], about="one address")


async def _passes(play: _Play) -> None:
    owner, client = play.owner, play.client
    program = Program()
    plan = pass_.new_plan(program, play.host, play.cap, 1, price=1000, period_ms=60_000)
    pass_.share(program, plan)
    executed = await play.execute_noted(owner, program)
    id = owner.event_in(executed, pass_.SCHEMA, pass_.PlanCreated).plan
    await play.call_function(owner, pass_.set_on_sale, id, play.cap, True)

    def buy(program: Program, money: Any) -> Any:
        return pass_.buy(program, id, play.host, money, 3)

    first, second = [
        client.event_in(
            await play.execute_paid(client, 3000, buy, then=pass_.keep, about=about),
            pass_.SCHEMA,
            pass_.PassPaid,
        ).pass_
        for about in ("the first", "another")
    ]
    await play.execute_paid(
        client, 1000, lambda program, money: pass_.renew(program, id, play.host, first, money, 1)
    )
    program = Program()
    opened = channel.open_with_pass(
        program, play.host, play.beacon, id, first, await play.terms_revision(), play.lane.public_key
    )
    channel.share(program, opened)
    await play.execute_noted(client, program)
    play.advance(60_000)
    await play.call_function(owner, pass_.draw, id, play.cap, [first], about="one pass")
    await play.call_function(client, pass_.cancel, id, first)
    await play.call_function(owner, pass_.revoke, id, play.host, play.op, second)
    third = client.event_in(
        await play.execute_paid(client, 3000, buy, then=pass_.keep, about="another"),
        pass_.SCHEMA,
        pass_.PassPaid,
    ).pass_
    await play.call_function(owner, pass_.revoke_as_owner, id, play.cap, third)
    await play.call_function(client, pass_.destroy, id, third, about="a revoked one")
    await play.call_function(
        owner, host.deny, play.host, play.op, [client.address], about="again, of the client"
    )
    await play.call_function(client, pass_.cancel_refused, id, play.host, first)
    await play.call_function(
        owner, host.undeny, play.host, play.op, [client.address], about="again, of the client"
    )
    play.advance(600_000)
    await play.call_function(client, pass_.destroy, id, first)
    await play.call_function(owner, pass_.set_on_sale, id, play.cap, False, about="off")
    await play.call_function(owner, pass_.forget, id, play.cap, [second], about="one pass")
    await play.call_function(owner, pass_.retire, id, play.cap)
    await play.call_function(client, pass_.discard, second)


async def _channels(play: _Play) -> None:
    owner, client = play.owner, play.client
    id = await play.open_channel()
    await play.call_function(
        owner, channel.claim, *play.make_voucher(id, 1, 1000), about="the first of a channel"
    )
    await play.call_function(owner, channel.claim, *play.make_voucher(id, 2, 2000), about="a later one")
    await play.call_function(
        owner, channel.claim_for, *play.make_voucher(id, 3, 3000), about="pays the server's address"
    )
    await play.call_function(
        client, channel.claim_for, *play.make_voucher(id, 4, 4000, b"s" * 32), about="with a preimage"
    )
    await play.execute_paid(client, 500, lambda program, money: channel.top_up(program, id, money))
    await play.call_function(client, channel.add_lane, id, b"l" * 32)
    await play.call_function(client, channel.rotate_lane, id, 1, b"m" * 32)
    await play.call_function(client, channel.pay_owed, id, about="nothing owed")
    await play.call_function(client, channel.request_close, id)
    play.advance(_TERMS.claim_ms)
    await play.call_function(owner, channel.finalize, id)
    await play.call_function(client, channel.destroy, id)
    agreed = await play.open_channel("again")
    agreement = channel.CloseAgreement(agreed, 400_000, play.now_ms() + _DAY)
    key = KeySigner(Scheme.ED25519, bytes([2]) * 32)
    signature = key.sign_statement(channel.agreement_bytes(agreement))
    await play.call_function(owner, channel.close_agreed, agreement, key.public_key, signature)
    await play.call_function(owner, channel.release, await play.open_channel("again"))
    idle = await play.open_channel("again")
    play.advance(_TERMS.idle_ms)
    await play.call_function(owner, channel.request_close, idle, about="idle, by anyone")
    await play.call_function(owner, host.heartbeat, play.beacon, play.op, _ENDPOINT, 1, 7, about="again")


async def _pipes(play: _Play) -> None:
    owner, client = play.owner, play.client
    for bearer in (host.Bearer.CLIENT, host.Bearer.SERVER):
        terms = host.Terms(**{**vars(_TERMS), "bearer": bearer, "credit": 50})
        program = Program()
        host.set_terms(program, play.host, play.cap, 1, terms)
        host.set_limits(program, play.host, play.cap, 1, host.RateLimit(), 0, 10)
        await owner.execute(program)
        id = await play.open_channel("again")
        sender, receiver = (owner, client) if bearer is host.Bearer.CLIENT else (client, owner)
        program = Program()
        pipe.keep(program, pipe.open(program, id))
        await play.execute_noted(sender, program, f"by the {'server' if sender is owner else 'client'}")
        (held,) = await sender.owned(pipe.SCHEMA, pipe.Pipe, sender.address)
        for size, about in ((100, "100 B"), (1024, "1 KiB"), (16 * 1024, "16 KiB"), (64 * 1024, "64 KiB")):
            if bearer is host.Bearer.CLIENT:
                await play.call_function(sender, pipe.send, held.id, id, play.host, bytes(size), about=about)
        await play.call_function(sender, pipe.send, held.id, id, play.host, bytes(100), about="again, 100 B")
        await play.call_function(receiver, pipe.ack, id, 0, 1)
        await play.call_function(
            client, channel.claim_for, *play.make_voucher(id, 1, 10_000), about="after frames"
        )
        settle = pipe.collect_credit if bearer is host.Bearer.CLIENT else pipe.charge_credit
        await play.call_function(sender, settle, held.id, id)
        if bearer is host.Bearer.CLIENT:
            await play.call_function(sender, pipe.close, held.id, id)
        else:
            await play.call_function(sender, pipe.destroy, held.id)
    await play.execute_paid(
        client,
        10,
        lambda program, money: pipe.post(program, play.host, 1, b"r" * 32, bytes(256), money),
        about="256 B",
    )


async def _locks(play: _Play) -> None:
    payer, other = play.owner, play.client
    secret, key = b"p" * 32, KeySigner(Scheme.ED25519, bytes([4]) * 32)
    deadline = play.now_ms() + 100_000
    fee: dict[str, Any] = {"relay_fee": 10, "deadline_ms": deadline}

    def by_hash(program: Program, money: Any) -> Any:
        return lock.new_hash_lock(program, money, hashlib.sha256(secret).digest(), other.address, **fee)

    def by_key(program: Program, money: Any) -> Any:
        return lock.new_key_lock(program, money, key.public_key, **fee)

    first, second, third = [
        payer.event_in(
            await play.execute_paid(payer, 10_000, build, then=lock.share, about=about),
            lock.SCHEMA,
            lock.Locked,
        ).lock
        for build, about in ((by_hash, ""), (by_key, ""), (by_hash, "again"))
    ]
    await play.call_function(other, lock.claim_by_preimage, first, secret)
    signature = key.sign_statement(lock.release_bytes(lock.Release(second, other.address)))
    await play.call_function(other, lock.claim_by_key, second, other.address, signature)
    play.advance(200_000)
    await play.call_function(other, lock.refund, third)


async def _cards(play: _Play) -> None:
    chain, wallet = play.owner, play.client
    key, recovery = (KeySigner(Scheme.ED25519, bytes([number]) * 32) for number in (5, 6))
    next_key, next_recovery = (KeySigner(Scheme.ED25519, bytes([number]) * 32) for number in (7, 8))
    first = (key.public_key, recovery.public_key)
    directory, account = await card.find_directory(chain), account_id(*first)
    devices = tuple(card.PublishedDevice(bytes([number]) * 32, b"laptop") for number in (10, 12))
    contents = card.CardContents(b"e" * 32, b"p" * 32, devices, (b"dtp+tcp://203.0.113.7:9000/mail",))

    async def found() -> card.PublishedCard:
        made = await card.find_card(chain, directory, account)
        assert made is not None, "it was published"
        return made

    async def wallet_signature(linked: bool) -> bytes:
        statement = (await found()).next_wallet_statement(wallet.address, linked)
        return key.sign_statement(card.wallet_bytes(statement))

    said = key.sign_statement(card.statement_bytes(card.Statement(directory, account, 1, 1, contents)))
    await play.call_function(
        chain, card.publish, directory, first, (), contents, said, about="two devices, a mailbox"
    )
    id = (await found()).id
    said = key.sign_statement(card.statement_bytes((await found()).next_statement(contents)))
    await play.call_function(chain, card.update, id, contents, said, about="two devices, a mailbox")
    await play.call_function(wallet, card.link_wallet, directory, id, await wallet_signature(True))
    lost = await wallet_signature(False)
    await play.call_function(chain, card.unlink_lost_wallet, directory, id, wallet.address, lost)
    await play.call_function(
        wallet, card.link_wallet, directory, id, await wallet_signature(True), about="again"
    )
    await play.call_function(wallet, card.unlink_wallet, directory, id)
    message = rotation_message(account, 2, next_key.public_key, next_recovery.public_key)
    turn = (next_key.public_key, next_recovery.public_key, recovery.sign_statement(message))
    await play.call_function(chain, card.rotate, id, KeyRotation(*turn))
    end = card.end_bytes(card.EndStatement(directory, account, 2))
    await play.call_function(chain, card.revoke, id, next_recovery.sign_statement(end))


async def _new_show(play: _Play, build: Callable[..., Any], **terms: Any) -> show.ShowCreated:
    program = Program()
    made, cap = build(program, _ENDPOINT, slot_ms=1_000, hint="dtp://radio", **terms)
    show.share(program, made)
    program.transfer([cap], play.owner.address)
    executed = await play.execute_noted(play.owner, program)
    return play.owner.event_in(executed, show.SCHEMA, show.ShowCreated)


async def _pay_show(play: _Play, build: Callable[..., Any], id: str, amount: int, about: str) -> str:
    program = Program()
    (money,) = program.split(program.gas, [amount])
    program.transfer([build(program, id, money)], play.client.address)
    executed = await play.execute_noted(play.client, program, about)
    return play.client.event_in(executed, show.SCHEMA, show.Contributed).share


async def _take_money(play: _Play, chain: ChainClient, build: Callable[..., Any], *arguments: str) -> None:
    program = Program()
    program.transfer([build(program, *arguments)], chain.address)
    await play.execute_noted(chain, program)


async def _shows(play: _Play) -> None:
    producer, listener = play.owner, play.client
    radio = await _new_show(play, show.new_funded, rate=100, start_pot=1_000)
    ours = (radio.show, radio.cap)
    held = await _pay_show(play, show.contribute, radio.show, 5_000, "the show goes on air")
    await _pay_show(play, show.contribute, radio.show, 5_000, "another")
    for slots in (1, 10):
        play.advance(slots * 1_000)
        hashes = [bytes([number]) * 32 for number in range(slots)]
        await play.call_function(producer, show.post, *ours, hashes, about=f"slots: {slots}")
    await play.call_function(producer, show.set_hint, *ours, "dtp://radio")
    program = Program()
    (tip,) = program.split(program.gas, [100])
    show.ask(program, radio.show, show.EntryKind.REQUEST, tip, b"?" * 140)
    await play.execute_noted(listener, program, "140 bytes")
    program = Program()
    (more,) = program.split(program.gas, [5])
    show.raise_(program, radio.show, 0, more)
    await play.execute_noted(listener, program)
    await _take_money(play, listener, show.take_back, radio.show, held)
    await _take_money(play, producer, show.collect, *ours)
    await play.call_function(producer, show.end, *ours)
    terms = {"slots": 100, "ticket_price": 500, "fewest": 2, "start_by_ms": play.now_ms() + 10_000}
    concert = await _new_show(play, show.new_ticketed, **terms)
    ticket = await _pay_show(play, show.buy_ticket, concert.show, 500, "the first")
    play.advance(20_000)
    await play.call_function(listener, show.expire, concert.show)
    await _take_money(play, listener, show.take_back, concert.show, ticket)
    await play.call_function(producer, show.destroy, concert.show, concert.cap)


async def _end_of_host(play: _Play) -> None:
    chain = play.owner
    await play.call_function(chain, host.withdraw, play.beacon, play.op, _ENDPOINT)
    program = Program()
    program.transfer([host.new_operator(program, play.host, play.cap)], chain.address)
    await play.execute_noted(chain, program)
    await play.call_function(chain, host.revoke_operators, play.host, play.beacon, play.cap)
    await play.call_function(chain, host.destroy_operator, play.op)
    await play.call_function(chain, host.remove_service, play.host, play.cap, 1)
    await play.call_function(chain, host.destroy, play.host, play.beacon, play.cap)
    await play.call_function(chain, host.destroy_cap, play.cap)


# ------------------------------------------------------------------------------------------------------- the table


def table(rows: list[GasRow]) -> str:
    """Return the rows as Markdown; what was played again, to get somewhere, has no row of its own."""
    lines = [
        "| transaction | | computation | storage | rebate | in all, SUI |",
        "|---|---|---:|---:|---:|---:|",
    ]
    seen = set()
    for row in rows:
        if row.note.startswith("again") or (row.functions, row.note) in seen:
            continue
        seen.add((row.functions, row.note))
        calls = ", ".join(f"`{each}`" for each in row.functions) or row.note
        note = row.note if row.functions else ""
        gas = row.gas
        net = format_amount(gas.net).removesuffix(" SUI")
        lines.append(
            f"| {calls} | {note} | {gas.computation // 1000:,} | {gas.storage // 1000:,} | {gas.rebate // 1000:,} "
            f"| {net} |"
        )
    return "\n".join(lines)


def without_row(readme: str, rows: list[GasRow]) -> list[str]:
    """Return the functions that the README lists as more than reading, and that no transaction calls.

    What moves an object of an older version on has none to move, where all is of the version that ships.
    """
    called = {each for row in rows for each in row.functions}
    without = ("anyone; reads", "of an older version")
    listed = [name for name, who in _ROW.findall(readme) if not any(each in who for each in without)]
    return [name for name in dict.fromkeys(listed) if name not in called]


def renewed(readme: str, rows: list[GasRow]) -> str:
    """Return the README with the table between its marks. Raises `BuildError` when they are missing."""
    head, found, rest = readme.partition(BEGIN)
    _, ended, tail = rest.partition(END)
    if not found or not ended:
        raise BuildError(f"{README} has no lines {BEGIN!r} and {END!r} to put the table between")
    return f"{head}{BEGIN}\n\n{table(rows)}\n\n{END}{tail}"


def check(checkout: Checkout, rows: list[GasRow]) -> list[PackageFinding]:
    """Return what is wrong with the table in `move/README.md`."""
    text = (checkout.root / README).read_text(encoding="utf-8")
    found = [
        PackageFinding(README, f"`{name}` has no gas", "add it to the play in dtp/cli/move_gas.py")
        for name in without_row(text, rows)
    ]
    if text != renewed(text, rows):
        found.append(
            PackageFinding(README, "the gas table isn't what the functions cost", "run `dtp move gas`")
        )
    return found


def write(checkout: Checkout, rows: list[GasRow]) -> bool:
    """Renew the table in `move/README.md`; whether that changed anything."""
    path = checkout.root / README
    text = path.read_text(encoding="utf-8")
    new = renewed(text, rows)
    if new != text:
        path.write_text(new, encoding="utf-8")
    return new != text
