"""Shows on the chain: creating, funding, leaving and ending them, with one transaction each. The Move calls are in
`dtp.chain.show`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from dtp.broadcast.money.audience import seal_text
from dtp.carriers.nearness import Nearness
from dtp.chain import Executed, Program
from dtp.chain import show as module
from dtp.chain.model import SUI_COIN, Id, canonical_id, canonical_type, is_type
from dtp.chain.node.client import ChainClient
from dtp.chain.node.coins import coins_for
from dtp.chain.node.commands import Argument
from dtp.chain.node.commitment import to_its_end
from dtp.chain.node.made import check_made, only_one
from dtp.chain.pipes.posts import MOST_FEE
from dtp.chain.show import EntryKind, ProducerCap, Show, ShowShare
from dtp.errors import ChainError
from dtp.net.address import Address, AddressError, check_told, is_dialled_as_told
from dtp.pay.asked import check_asked, check_asked_coin
from dtp.sui.names import parse_type

#: The default number of slots posted together, which takes a tenth of the gas of posting each alone.
BATCH: Final = 10
#: The most shares that one transaction takes back.
_REFUNDED_AT_ONCE: Final = 64


class NoShare(ChainError):
    """The account holds no share or ticket of a show."""

    code: ClassVar[str] = "no-share"


class NotProducer(ChainError):
    """The account isn't the producer of a show."""

    code: ClassVar[str] = "not-producer"


@dataclass(frozen=True, slots=True)
class ShowTerms:
    """What a show costs. A funded show has a `rate`, a ticketed one a `ticket_price`; amounts in the coin's
    smallest unit."""

    slot_ms: int
    rate: int = 0
    #: The pot with which a funded show goes on air: two slots or more, or it would end with each slot.
    start_pot: int = 0
    ticket_price: int = 0
    fewest: int = 0
    #: The number of slots of a ticketed show.
    slots: int = 0
    start_by_ms: int = 0
    batch: int = BATCH
    #: The lowest amounts for a tip, a request and a question.
    prices: tuple[int, int, int] = (0, 0, 0)


def check_hint(where: str, teller: Nearness) -> None:
    """Raise `AddressError` if nobody would dial the address that the chain has for a show."""
    check_told(where)
    if is_dialled_as_told(where, teller):
        return
    if Address.parse(where).nearness == Nearness.NETWORK:
        raise AddressError(
            f"the chain says that the show is heard at {where}, a private address: if that is in your network, "
            "add --lan"
        )
    raise AddressError(
        f"the chain says that the show is heard at {where}, which is this machine: if you mean that, listen to this "
        "address instead of the show's id"
    )


@dataclass(frozen=True, slots=True)
class Found:
    """A show on the chain, the type of its coin, and the object's version."""

    show: Show
    coin: str
    #: Of the object, which rises with each change.
    version: int


async def read_show(chain: ChainClient, id: Id) -> Found:
    """Return a show. Raise as `ChainClient.read` does."""
    data = await chain.object(id)
    return Found(
        chain.decode(module.SCHEMA, Show, data), str(parse_type(data.type).arguments[0]), data.version
    )


async def create(
    chain: ChainClient, key: bytes, terms: ShowTerms, *, hint: str = "", coin: str = SUI_COIN
) -> tuple[str, Executed]:
    """Create a shared show whose segments `key` signs, with its cap for the account. Return its id."""
    program = Program()
    common: dict[str, Any] = {
        "slot_ms": terms.slot_ms,
        "batch": terms.batch,
        "prices": terms.prices,
        "hint": hint,
        "coin": coin,
    }
    if not terms.ticket_price:
        pot = terms.start_pot or 2 * terms.rate
        made, cap = module.new_funded(program, key, rate=terms.rate, start_pot=pot, **common)
    else:
        made, cap = module.new_ticketed(
            program,
            key,
            slots=terms.slots,
            ticket_price=terms.ticket_price,
            fewest=terms.fewest,
            start_by_ms=terms.start_by_ms,
            **common,
        )
    module.share(program, made, coin=coin)
    program.transfer([cap], chain.address)
    executed = await to_its_end(lambda signed: chain.execute(program, signed=signed))
    told = chain.event_in(executed, module.SCHEMA, module.ShowCreated)
    check_made(executed, told.show)
    return told.show, executed


async def _pay(
    chain: ChainClient, coin: str, amount: int, build: Callable[[Program, Argument], object]
) -> Executed:
    program = Program()
    build(program, await coins_for(chain, program, coin, amount))
    return await to_its_end(lambda signed: chain.execute(program, signed=signed))


async def fund(chain: ChainClient, id: Id, amount: int, *, coin: str = SUI_COIN) -> tuple[str, Executed]:
    """Put money into a funded show's pot and return the share. Raise `OtherCoin` if the show is paid in another
    coin."""
    found = await read_show(chain, id)
    check_asked_coin(found.coin, coin)

    def build(program: Program, money: Argument) -> None:
        program.transfer([module.contribute(program, found.show.id, money, coin=found.coin)], chain.address)

    executed = await _pay(chain, found.coin, amount, build)
    return chain.event_in(executed, module.SCHEMA, module.Contributed).share, executed


async def buy(
    chain: ChainClient, id: Id, *, most: int | None = None, coin: str = SUI_COIN
) -> tuple[str, Executed]:
    """Buy a ticket of a ticketed show, and return it. Raise `OtherCoin`, or `PriceTooHigh` if it costs more than
    `most`."""
    found = await read_show(chain, id)
    check_asked(found.show.ticket_price, found.coin, paid_in=coin, most=most)

    def build(program: Program, money: Argument) -> None:
        program.transfer([module.buy_ticket(program, found.show.id, money, coin=found.coin)], chain.address)

    executed = await _pay(chain, found.coin, found.show.ticket_price, build)
    return chain.event_in(executed, module.SCHEMA, module.Contributed).share, executed


async def ask(
    chain: ChainClient,
    id: Id,
    kind: EntryKind,
    amount: int | None,
    text: bytes,
    *,
    sealed: bool = False,
    coin: str = SUI_COIN,
) -> tuple[int, Executed]:
    """Send a tip, request or question with `amount`, or the lowest amount that is accepted; return its number.

    With `sealed`, only the producer can read the text. Raise `OtherCoin`; and `PriceTooHigh` if no amount was given
    and the lowest one is above `MOST_FEE`, or in a coin other than SUI.
    """
    found = await read_show(chain, id)
    data = seal_text(text, found.show.key) if sealed else text
    paid = _least(found, kind, coin) if amount is None else amount
    check_asked_coin(found.coin, coin)

    def build(program: Program, money: Argument) -> None:
        module.ask(program, found.show.id, kind, money, data, sealed=sealed, coin=found.coin)

    executed = await _pay(chain, found.coin, paid, build)
    return chain.event_in(executed, module.SCHEMA, module.EntryAsked).number, executed


def _least(found: Found, kind: EntryKind, coin: str) -> int:
    """Return the lowest amount that a show accepts for a kind. Raise `OtherCoin`, or `PriceTooHigh` if the caller
    has to give an amount."""
    least = max(1, found.show.prices[kind])
    most = MOST_FEE if canonical_type(coin) == SUI_COIN else 0
    check_asked(least, found.coin, paid_in=coin, most=most, option="amount")
    return least


async def raise_(
    chain: ChainClient, id: Id, number: int, amount: int | None, *, coin: str = SUI_COIN
) -> Executed:
    """Add money to an entry, so that the producer sees it sooner. Raise as `ask` does."""
    found = await read_show(chain, id)
    paid = _least(found, EntryKind.TIP, coin) if amount is None else amount
    check_asked_coin(found.coin, coin)
    return await _pay(
        chain,
        found.coin,
        paid,
        lambda program, money: module.raise_(program, found.show.id, number, money, coin=found.coin),
    )


async def shares_of(chain: ChainClient, id: Id, holder: Id, *, most: int | None = None) -> list[ShowShare]:
    """Return the shares and tickets of a show that an account holds, among the first `most` of all that it
    holds."""
    wanted = canonical_id(id)
    held = await chain.owned(module.SCHEMA, ShowShare, holder, most=most)
    return [each for each in held if each.show == wanted]


async def shares_named(chain: ChainClient, id: Id, holder: Id, share: Id) -> list[ShowShare]:
    """Return the share or ticket with this id in a list; an empty one if the account doesn't hold it, or it is of
    another show."""
    data = (await chain.objects([share])).get(canonical_id(share))
    kind = chain.type_of(module.SCHEMA, ShowShare)
    if data is None or data.owner.address != canonical_id(holder) or not is_type(data.type, kind):
        return []
    found = chain.decode(module.SCHEMA, ShowShare, data)
    return [found] if found.show == canonical_id(id) else []


async def give_share(
    chain: ChainClient, id: Id, recipient: Id, share: Id | None = None
) -> tuple[str, Executed]:
    """Give a share or ticket, with everything unspent, to another account; return its id. If the account has
    several tickets and none is named, any of them is given.

    Raise `NoShare` if the account doesn't hold it, or has several shares of a pot and none is named.
    """
    found = await read_show(chain, id)
    if share is None:
        held = await shares_of(chain, id, chain.address)
    else:
        held = await shares_named(chain, id, chain.address, share)
    if not held:
        raise NoShare(f"{chain.address} holds no such share or ticket of {found.show.id}")
    if len(held) > 1 and not found.show.ticket_price:
        raise NoShare(f"{chain.address} holds {len(held)} shares of {found.show.id}: say which one")
    program = Program()
    program.transfer([held[0].id], recipient)
    return held[0].id, await to_its_end(lambda signed: chain.execute(program, signed=signed))


@dataclass(frozen=True, slots=True)
class Refund:
    """What a share has given back."""

    share: str
    amount: int
    #: How much of it was paid for slots that had begun and weren't posted yet.
    paid: int
    #: The transaction, which may be for several shares.
    executed: Executed


async def refund(chain: ChainClient, id: Id) -> list[Refund]:
    """Take back what is unspent of all the account's shares, many at once. If the show is on air, slots that have
    begun are still paid for.

    Raise `NoShare`, and what `ChainClient.execute` raises: `MoveAborted` where tickets can't be returned.
    """
    found = await read_show(chain, id)
    held = await shares_of(chain, id, chain.address)
    if not held:
        raise NoShare(f"{chain.address} holds no share or ticket of {found.show.id}")
    done = list[Refund]()
    for begin in range(0, len(held), _REFUNDED_AT_ONCE):
        some = [each.id for each in held[begin : begin + _REFUNDED_AT_ONCE]]
        program = Program()
        first, *others = (module.take_back(program, found.show.id, each, coin=found.coin) for each in some)
        if others:  # a coin for each share would cost more, and clutter the account
            program.merge(first, others)
        program.transfer([first], chain.address)
        executed = await to_its_end(lambda signed, program=program: chain.execute(program, signed=signed))  # type: ignore[misc]
        told = chain.events_in(executed, module.SCHEMA, module.Returned)
        for share in some:
            back = only_one(executed, [each for each in told if each.share == share], "Returned event")
            done.append(Refund(share, back.amount, back.paid, executed))
    return done


async def cap_of(chain: ChainClient, id: Id) -> str:
    """Return the producer's cap of a show, which the account has to hold. Raise `NotProducer`."""
    wanted = canonical_id(id)
    for each in await chain.owned(module.SCHEMA, ProducerCap, chain.address):
        if each.show == wanted:
            return each.id
    raise NotProducer(f"{chain.address} isn't the producer of {wanted}")


async def post(chain: ChainClient, found: Found, cap: str, hashes: Sequence[bytes]) -> module.SlotsPosted:
    """Post past slots; return the event that says what that earned."""
    program = Program()
    module.post(program, found.show.id, cap, hashes, coin=found.coin)
    return chain.event_in(await chain.execute(program), module.SCHEMA, module.SlotsPosted)


async def collect(chain: ChainClient, id: Id) -> tuple[int, Executed]:
    """Take what a show has earned; return the amount."""
    found, cap = await read_show(chain, id), await cap_of(chain, id)
    program = Program()
    program.transfer([module.collect(program, found.show.id, cap, coin=found.coin)], chain.address)
    executed = await to_its_end(lambda signed: chain.execute(program, signed=signed))
    return chain.event_in(executed, module.SCHEMA, module.Collected).amount, executed


async def end(chain: ChainClient, id: Id) -> Executed:
    """End a show. Its producer can at any time, anybody else if it is ticketed and its start-by has passed.

    Raise `NotProducer` for anybody else with a funded show.
    """
    found = await read_show(chain, id)
    program = Program()
    try:
        module.end(program, found.show.id, await cap_of(chain, id), coin=found.coin)
    except NotProducer:
        if not found.show.ticket_price:
            raise
        module.expire(program, found.show.id, coin=found.coin)
    return await chain.execute(program)


async def expire(chain: ChainClient, found: Found) -> Executed:
    """End a ticketed show that didn't start in time. Raise `MoveAborted` if it did, or still can."""
    program = Program()
    module.expire(program, found.show.id, coin=found.coin)
    return await chain.execute(program)


async def set_hint(chain: ChainClient, found: Found, cap: str, hint: str) -> Executed:
    """Set where the show is heard."""
    program = Program()
    module.set_hint(program, found.show.id, cap, hint, coin=found.coin)
    return await chain.execute(program)


async def events_of(
    chain: ChainClient, id: Id, *, start: int | None = None, follow: bool = True
) -> AsyncIterator[Any]:
    """Yield the events of a show from checkpoint `start` on, as dataclasses of `dtp.chain.show`."""
    from dtp.chain import EventFollower, event_types
    from dtp.chain.known import decode_known

    wanted = canonical_id(id)
    follower = EventFollower(chain, event_types(chain, module.SCHEMA), start=start)
    if start is None:
        await follower.begin()
    async for each in follower if follow else follower.past_events():
        value = decode_known(chain.deployments, each.event.type, each.event.contents)
        if getattr(value, "show", None) == wanted:
            yield value


async def read_at_news(news: asyncio.Event, patience: float, read: Callable[[], Awaitable[None]]) -> None:
    """Read a show again whenever `news` is set, and after `patience` seconds without it. Everything that comes
    while it is being read causes one more read. Raise what reading raises. A new iteration begins with a read."""
    while True:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await news.wait()
        news.clear()
        try:
            await read()
        except ChainError:
            news.set()
            raise
