"""The money of `dtp show`: create, fund, buy, give, tip, ask, refund, collect, end, status, watch, dismiss."""

from __future__ import annotations

import contextlib
import datetime
import functools
import re
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from dtp.cli.accounts import WalletOptions, account_options, executed_record, record_of, refuse_key
from dtp.cli.options import IdentitySource, identity_options
from dtp.cli.output import json_option, print_line, print_result, wants_json
from dtp.cli.paying import coin_option, most_of, most_option
from dtp.cli.show import gas_text, moment, money, table
from dtp.config import data_dir
from dtp.errors import ConfigError
from dtp.escaping import escape_text
from dtp.identity import PeerId
from dtp.plurals import count_of

if TYPE_CHECKING:
    from dtp.broadcast.money.air import Air
    from dtp.broadcast.money.audience import AudienceLine, Entry
    from dtp.broadcast.money.shows import Refund, ShowTerms
    from dtp.broadcast.producing import Broadcast
    from dtp.chain import ChainClient

_Function = TypeVar("_Function", bound=Callable[..., Any])


def chain_options(command: _Function) -> _Function:
    """Add `--network` and `--wallet` beside an identity's options; the command gets `account: Account`."""

    @functools.wraps(command)
    def with_account(*args: Any, chain_network: str | None, wallet: str | None, **options: Any) -> Any:
        return command(*args, account=WalletOptions.of_command(chain_network, wallet), **options)

    decorated: Any = with_account
    for option in (
        click.option("--wallet", callback=refuse_key, envvar="DTP_WALLET", metavar="WALLET",
                     help="Who pays and is paid on the chain. [default: $DTP_WALLET, else the --identity]"),
        click.option("--network", "chain_network", envvar="DTP_NETWORK", metavar="NETWORK",
                     help="The chain: localnet, testnet, mainnet or the URL of a node. [default: $DTP_NETWORK, else "
                     "localnet]"),
    ):  # fmt: skip
        decorated = option(decorated)
    result: _Function = decorated
    return result


_MS_OF = {"ms": 1, "s": 1000, "m": 60_000, "min": 60_000, "h": 3_600_000, "d": 86_400_000}


def _span(ctx: click.Context, param: click.Parameter, text: str | None) -> int | None:
    """Return a duration in ms: `30s` -> 30,000."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+)(ms|s|min|m|h|d)", text)
    if match is None:
        raise click.BadParameter(f"{text!r} is not a span of time: write 30s, 5min, 1h")
    return int(match[1]) * _MS_OF[match[2]]


def _rate(ctx: click.Context, param: click.Parameter, text: str | None) -> tuple[int, int] | None:
    """Return a rate as MIST and ms: `0.02SUI/min` -> 20,000,000 and 60,000."""
    from dtp.chain.wallet import parse_amount

    if text is None:
        return None
    amount, slash, unit = text.partition("/")
    if not slash or unit not in _MS_OF:
        raise click.BadParameter(f"{text!r} is not a rate: write 0.02SUI/min")
    return parse_amount(amount), _MS_OF[unit]


def _moment(ctx: click.Context, param: click.Parameter, text: str | None) -> int | None:
    if text is None:
        return None
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a time: write 2026-12-24T20:00Z") from None
    if moment.tzinfo is None:
        raise click.BadParameter(f"{text!r} has no time zone: write a Z behind it, or +01:00")
    return round(moment.timestamp() * 1000)


def _amount(ctx: click.Context, param: click.Parameter, text: str | None) -> int | None:
    from dtp.chain.wallet import parse_amount

    return None if text is None else parse_amount(text)


@click.command()
@click.option(
    "--rate", callback=_rate, metavar="AMOUNT/UNIT", help="A funded show: what it costs, such as 0.02SUI/min."
)
@click.option("--start-pot", callback=_amount, metavar="AMOUNT",
              help="The pot with which a funded show goes on air. [default: two slots]")  # fmt: skip
@click.option("--ticket", callback=_amount, metavar="AMOUNT", help="A ticketed show: what a ticket costs.")
@click.option("--at-least", type=click.IntRange(1), metavar="COUNT", help="... and how many have to be sold.")
@click.option("--start-by", callback=_moment, metavar="TIME", help="... by when, such as 2026-12-24T20:00Z.")
@click.option(
    "--length",
    callback=_span,
    default="1h",
    show_default=True,
    metavar="SPAN",
    help="... and how long it is.",
)
@click.option("--slot", callback=_span, default="30s", show_default=True, metavar="SPAN",
              help="What is paid at once: a slot, when it is over.")  # fmt: skip
@click.option("--batch", type=click.IntRange(1, 64), default=10, show_default=True, metavar="SLOTS",
              help="Slots that are posted in one transaction.")  # fmt: skip
@click.option("--price", "prices", multiple=True, metavar="KIND=AMOUNT",
              help="The least for a tip, a request or a question: request=0.1SUI; may be repeated.")  # fmt: skip
@identity_options("--identity", "-i")
@chain_options
@json_option
def create(
    rate: tuple[int, int] | None,
    start_pot: int | None,
    ticket: int | None,
    at_least: int | None,
    start_by: int | None,
    length: int,
    slot: int,
    batch: int,
    prices: tuple[str, ...],
    identity: IdentitySource,
    account: WalletOptions,
) -> None:
    """Make a show on the chain, whose segments your identity signs.

    \b
    Examples:
      dtp show create --rate 0.02SUI/min --slot 30s
      dtp show create --ticket 1SUI --at-least 50 --start-by 2026-12-24T20:00Z
    """
    from dtp.broadcast.money.shows import create as make

    common: dict[str, Any] = {"slot_ms": slot, "batch": batch, "prices": _prices(prices)}
    if (rate is None) == (ticket is None):
        raise click.UsageError("give --rate for a funded show, or --ticket for a ticketed one")
    if rate is not None:
        if at_least is not None or start_by is not None:
            raise click.UsageError("--at-least and --start-by are for a show with tickets: leave out --rate")
        terms = _funded_terms(rate, start_pot, **common)
    else:
        if at_least is None or start_by is None:
            raise click.UsageError("--ticket needs --at-least and --start-by")
        if start_pot is not None:
            raise click.UsageError("--start-pot is for a show that is funded by --rate")
        terms = _ticketed_terms(ticket or 0, at_least, start_by, length, **common)
    key = identity.load_identity().id.key

    async def work(chain: ChainClient) -> dict[str, Any]:
        id, executed = await make(chain, key, terms)
        return {"show": id, **executed_record(executed)}

    _print(account.run_connected(work))


def _funded_terms(rate: tuple[int, int], start_pot: int | None, *, slot_ms: int, **common: Any) -> ShowTerms:
    from dtp.broadcast.money.shows import ShowTerms

    each = rate[0] * slot_ms // rate[1]
    if not each:
        raise click.UsageError("--rate comes to nothing for a slot: make it more, or --slot longer")
    return ShowTerms(rate=each, start_pot=start_pot or 2 * each, slot_ms=slot_ms, **common)


def _ticketed_terms(
    price: int, fewest: int, start_by_ms: int, length_ms: int, *, slot_ms: int, **common: Any
) -> ShowTerms:
    from dtp.broadcast.money.shows import ShowTerms

    if not price:
        raise click.UsageError("--ticket has to cost something")
    return ShowTerms(
        ticket_price=price,
        fewest=fewest,
        start_by_ms=start_by_ms,
        slots=max(1, length_ms // max(1, slot_ms)),
        slot_ms=slot_ms,
        **common,
    )


def _prices(texts: tuple[str, ...]) -> tuple[int, int, int]:
    from dtp.chain.wallet import parse_amount

    found = {"tip": 0, "request": 0, "question": 0}
    for text in texts:
        kind, equals, amount = text.partition("=")
        if not equals or kind not in found:
            raise click.UsageError(f"--price {text}: write tip=, request= or question= and an amount")
        found[kind] = parse_amount(amount)
    return found["tip"], found["request"], found["question"]


def _print(record: dict[str, Any]) -> None:
    print_result(record, table(record))


@click.command()
@click.argument("show_id", metavar="SHOW")
@click.argument("amount")
@coin_option
@account_options
def fund(show_id: str, amount: str, coin: str | None, account: WalletOptions) -> None:
    """Put AMOUNT into the pot of a funded show. What isn't spent is yours: 'dtp show refund'."""
    from dtp.broadcast.money import shows
    from dtp.chain.wallet import parse_amount

    paid_in = _paid_in(coin)
    units = parse_amount(amount, paid_in)

    async def work(chain: ChainClient) -> dict[str, Any]:
        share, executed = await shows.fund(chain, show_id, units, coin=paid_in)
        _remember(chain, show_id, share)
        return {"share": share, **executed_record(executed)}

    _print(account.run_connected(work))


@click.command()
@click.argument("show_id", metavar="SHOW")
@click.argument("recipient", metavar="dtp1...|ADDRESS")
@click.option(
    "--ticket", metavar="ID", help="Which one, as 'dtp show buy' and 'fund' print it. [default: any ticket]"
)
@account_options
def give(show_id: str, recipient: str, ticket: str | None, account: WalletOptions) -> None:
    """Give a ticket or a share of yours to somebody: they hear the show with it, and what is unspent of it is theirs.

    Whoever listens with it hears to the end of the present key, or of the next.
    """
    from dtp.broadcast.money import shows
    from dtp.chain.model import full_address

    to = full_address(recipient) if recipient.startswith("0x") else PeerId.parse(recipient).sui_address

    async def work(chain: ChainClient) -> dict[str, Any]:
        given, executed = await shows.give_share(chain, show_id, to, ticket)
        _forget(chain, show_id, [given])
        return {"given": given, "to": to, **executed_record(executed)}

    _print(account.run_connected(work))


def _remember(chain: ChainClient, show: str, share: str) -> None:
    """Store a share for `dtp show listen`, which names it. If that fails it is bought all the same."""
    from dtp.broadcast.money.bought import bought_here

    try:
        bought_here(show).add_ticket(chain.address, share)
    except ConfigError as fault:
        told = {"event": "not-remembered", "why": str(fault)}
        print_line(told, f"{fault}: name it where you listen, with --ticket {share}", err=True)


def _forget(chain: ChainClient, show: str, shares: Iterable[str]) -> None:
    from dtp.broadcast.money.bought import bought_here

    with contextlib.suppress(ConfigError):  # they are no longer in the account anyway
        for each in shares:
            bought_here(show).remove_ticket(chain.address, each)


def _paid_in(coin: str | None) -> str:
    from dtp.chain.model import SUI_COIN

    return coin or SUI_COIN


@click.command()
@click.argument("show_id", metavar="SHOW")
@most_option
@coin_option
@account_options
def buy(show_id: str, most: str | None, coin: str | None, account: WalletOptions) -> None:
    """Buy a ticket of a ticketed show."""
    from dtp.broadcast.money import shows

    paid_in = _paid_in(coin)
    agreed = most_of(most, paid_in)

    async def work(chain: ChainClient) -> dict[str, Any]:
        share, executed = await shows.buy(chain, show_id, most=agreed, coin=paid_in)
        _remember(chain, show_id, share)
        return {"ticket": share, **executed_record(executed)}

    _print(account.run_connected(work))


@click.command()
@click.argument("show_id", metavar="SHOW")
@click.argument("amount")
@click.argument("text", default="")
@click.option("--sealed", is_flag=True, help="Only the producer can read the text.")
@coin_option
@account_options
def tip(show_id: str, amount: str, text: str, sealed: bool, coin: str | None, account: WalletOptions) -> None:
    """Give the producer AMOUNT, with a message or without."""
    from dtp.chain.show import EntryKind

    _ask(account, show_id, EntryKind.TIP, amount, text, sealed, _paid_in(coin))


@click.command()
@click.argument("show_id", metavar="SHOW")
@click.argument("text", default="")
@click.option("--amount", metavar="AMOUNT",
              help="What the producer gets. [default: the show's least, if that is 0.01 SUI or less]")  # fmt: skip
@click.option("--request", is_flag=True, help="It is a request, not a question.")
@click.option("--raise", "number", type=click.IntRange(0), metavar="NUMBER",
              help="Add to the question of this number instead; TEXT is not sent.")  # fmt: skip
@click.option("--sealed", is_flag=True, help="Only the producer can read the text.")
@coin_option
@account_options
def ask(
    show_id: str,
    text: str,
    amount: str | None,
    request: bool,
    number: int | None,
    sealed: bool,
    coin: str | None,
    account: WalletOptions,
) -> None:
    """Ask the producer something, or request it: it is seen sooner for more money."""
    from dtp.broadcast.money import shows
    from dtp.chain.show import EntryKind
    from dtp.chain.wallet import parse_amount

    paid_in = _paid_in(coin)
    if number is None:
        if not text:
            raise click.UsageError("there is nothing to ask: give a TEXT, or --raise NUMBER")
        _ask(
            account,
            show_id,
            EntryKind.REQUEST if request else EntryKind.QUESTION,
            amount,
            text,
            sealed,
            paid_in,
        )
        return
    units = None if amount is None else parse_amount(amount, paid_in)

    async def work(chain: ChainClient) -> dict[str, Any]:
        executed = await shows.raise_(chain, show_id, number, units, coin=paid_in)
        return {"number": number, **executed_record(executed)}

    _print(account.run_connected(work))


def _ask(
    account: WalletOptions, show_id: str, kind: Any, amount: str | None, text: str, sealed: bool, coin: str
) -> None:
    from dtp.broadcast.money import shows
    from dtp.chain.wallet import parse_amount

    units = None if amount is None else parse_amount(amount, coin)

    async def work(chain: ChainClient) -> dict[str, Any]:
        data = text.encode()
        number, executed = await shows.ask(chain, show_id, kind, units, data, sealed=sealed, coin=coin)
        return {"number": number, **executed_record(executed)}

    _print(account.run_connected(work))


@click.command()
@click.argument("show_id", metavar="SHOW")
@account_options
def refund(show_id: str, account: WalletOptions) -> None:
    """Take back what is unspent of your shares and tickets.

    Of a show on air your part of slots that have begun is paid: of the one that runs, and of those that are over and
    not posted yet, a batch at most.
    """
    from dtp.broadcast.money import shows

    async def work(chain: ChainClient) -> tuple[list[shows.Refund], str]:
        coin = (await shows.read_show(chain, show_id)).coin
        done = await shows.refund(chain, show_id)
        _forget(chain, show_id, [each.share for each in done])
        return done, coin

    done, coin = account.run_connected(work)
    gas = {each.executed.digest: each.executed.gas.net for each in done}
    if wants_json():
        print_result({"shares": [_refund_record(each) for each in done], "gas_mist": sum(gas.values())})
        return
    for each in done:
        words = f"{money(each.amount, coin)} back" if each.amount else "nothing back: all of it was spent"
        if each.paid:
            words += f"; {money(each.paid, coin)} for slots that had begun"
        print_line({}, f"{each.share}: {words}")
    print_line({}, table({"gas_mist": sum(gas.values())}))


def _refund_record(done: Refund) -> dict[str, Any]:
    told = {"share": done.share, "amount": done.amount, "paid": done.paid}
    return {**told, "transaction": done.executed.digest}


@click.command()
@click.argument("show_id", metavar="SHOW")
@account_options
def collect(show_id: str, account: WalletOptions) -> None:
    """Take what your show has earned."""
    from dtp.broadcast.money import shows

    async def work(chain: ChainClient) -> dict[str, Any]:
        found = await shows.read_show(chain, show_id)
        coin = found.coin
        if not found.show.earned:  # a transaction would cost gas, and bring nothing
            await shows.cap_of(chain, show_id)
            return {"collected": 0 if wants_json() else money(0, coin)}
        amount, executed = await shows.collect(chain, show_id)
        told = amount if wants_json() else money(amount, coin)
        return {"collected": told, **executed_record(executed)}

    _print(account.run_connected(work))


@click.command()
@click.argument("show_id", metavar="SHOW")
@click.option("--unposted", is_flag=True,
              help="End it though it is on air elsewhere: what isn't posted yet isn't paid.")  # fmt: skip
@account_options
def end(show_id: str, unposted: bool, account: WalletOptions) -> None:
    """End your show for good, or one of anybody that didn't start in time: what is unspent can be taken back.

    What you are owed is posted first: by the process that broadcasts it from this machine, which then ends it by a
    transaction of its own, or here if that one was killed. One that is on air from another machine is refused: end it
    there.
    """
    from dtp.broadcast.money.ending import end_show

    async def work(chain: ChainClient) -> dict[str, Any]:
        executed = await end_show(chain, show_id, data_dir() / "shows", unposted=unposted)
        return {"ended": show_id, **({} if executed is None else executed_record(executed))}

    _print(account.run_connected(work))


@click.command()
@click.argument("show_id", metavar="SHOW")
@account_options
def status(show_id: str, account: WalletOptions) -> None:
    """Show how a show stands: on air or not, its pot, what the next slot brings."""
    from dtp.broadcast.money import shows
    from dtp.broadcast.money.air import count_unposted, state_on_chain

    async def work(chain: ChainClient) -> dict[str, Any]:
        found = await shows.read_show(chain, show_id)
        show, chain_ms = found.show, (await chain.service_info()).timestamp_ms
        air = str(state_on_chain(show, 0))
        record = {**record_of(show), "hint": show.hint.decode(errors="replace"), "coin": found.coin}
        record["key"] = show.key.hex()
        unposted = 0 if chain_ms is None else count_unposted(show, chain_ms)
        return {"air": air, "chain_ms": chain_ms, "next_slot": show.next_slot, "unposted": unposted, **record}

    record = account.run_connected(work, signing=False)
    print_result(record, table(status_rows(record)))


@click.command()
@click.argument("show_id", metavar="SHOW")
@click.option("--past", is_flag=True, help="End with what there is now.")
@identity_options("--identity", "-i")
@chain_options
@json_option
def watch(show_id: str, past: bool, identity: IdentitySource, account: WalletOptions) -> None:
    """Show how a show stands, and its audience line: tips, requests and questions, sorted by what was paid.

    In a terminal it is kept up to date, until Ctrl-C. Elsewhere, and with --json, each is a line as it comes.
    """
    if not past and not wants_json() and sys.stdout.isatty():
        from dtp.cli.shows_screen import show_live

        me = identity.load_or_make()
        account.run_connected(lambda chain: show_live(chain, show_id, me), signing=False)
        return
    from dtp.broadcast.money import shows
    from dtp.broadcast.money.audience import AudienceLine
    from dtp.broadcast.money.watching import dismissed_of
    from dtp.chain import OLDEST
    from dtp.chain.show import StateChanged

    line = AudienceLine(identity.load_or_make())
    for number in dismissed_of(show_id).numbers:
        line.dismiss(number)

    async def work(chain: ChainClient) -> None:
        coin = (await shows.read_show(chain, show_id)).coin
        async for each in shows.events_of(chain, show_id, start=OLDEST, follow=not past):
            entry = _take(line, each)
            if past:
                continue
            if entry is not None:
                _print_entry(entry, coin)
            elif isinstance(each, StateChanged):
                state = ("off", "on air", "ended")[each.state]
                print_line({"event": "state", "state": state, "pot": each.pot}, f"-- {state}")
        for entry in line.ranked() if past else ():
            _print_entry(entry, coin)

    account.run_connected(work, signing=False)


@click.command()
@click.argument("show_id", metavar="SHOW")
@click.argument("numbers", nargs=-1, required=True, type=click.IntRange(0), metavar="NUMBER...")
@account_options
def dismiss(show_id: str, numbers: tuple[int, ...], account: WalletOptions) -> None:
    """Take entries off the audience line of your show: they were answered, or aren't wanted.

    It holds on this machine, for 'dtp show watch' and the page of 'dtp show broadcast' that are started then.
    """
    from dtp.broadcast.money import shows
    from dtp.broadcast.money.watching import dismissed_of

    async def work(chain: ChainClient) -> int:
        return (await shows.read_show(chain, show_id)).show.asked

    asked = account.run_connected(work, signing=False)
    if max(numbers) >= asked:  # otherwise a later entry with that number would never be seen
        raise click.BadParameter(
            f"{max(numbers)} isn't the number of an entry: there are {asked} up to now, from 0 on",
            param_hint="NUMBER",
        )
    kept = dismissed_of(show_id)
    for number in numbers:
        kept.add_number(number)
    _print({"dismissed": sorted(kept.numbers)})


def status_rows(record: dict[str, Any]) -> dict[str, str]:
    """Return a show's state in words, from what `dtp show status --json` prints."""
    from dtp.broadcast.money.air import Air
    from dtp.pay.client.budget import span

    sums = {name: money(record[name], record["coin"]) for name in _SUMS}
    each = span(record["slot_ms"])
    rows = {
        "show": record["id"],
        "air": record["air"],
        "heard at": escape_text(record["hint"]) or "nowhere yet: its producer says so when it broadcasts",
        "signed by": str(PeerId(bytes.fromhex(record["key"]))),
    }
    if record["rate"]:
        left = record["pot"] // record["rate"]
        lasts = f", which lasts {span(left * record['slot_ms'])}" if left and record["next_slot"] else ""
        rows["costs"] = f"{sums['rate']} each {each}"
        rows["in the pot"] = sums["pot"] + lasts
        if record["air"] != Air.ENDED:
            rows["begins with"] = f"{sums['start_pot']} in the pot"
    else:
        rows["tickets"] = (
            f"{record['tickets']} held of {record['fewest']} needed, {sums['ticket_price']} each"
        )
        too_late = record["air"] in (Air.OFF, Air.FUNDING) and record["start_by_ms"] < (
            record["chain_ms"] or 0
        )
        rows["air"] += ", and can't start any more" * too_late
        if record["air"] in (Air.OFF, Air.FUNDING):
            late = ": too few tickets in time, 'dtp show refund' brings the money back" if too_late else ""
            rows["starts by"] = moment(record["start_by_ms"]) + late
        rows["length"] = f"{count_of(record['slots'], 'slot')} of {each}"
        rows["in the pot"] = sums["pot"]
    rows["next slot"] = sums["next_slot"]
    rows["posted"] = f"{count_of(record['posted'], 'slot')}, up to {record['batch']} at once"
    if record["unposted"] > record["batch"]:
        silent = span(record["unposted"] * record["slot_ms"])
        rows["posted"] += f"; none for {silent}: its producer is away, or can't post"
    rows["paid so far"] = f"{sums['released']}, and {sums['tipped']} of tips and questions"
    rows["to collect"] = sums["earned"]
    rows["given back"] = sums["returned"]
    least = (money(price, record["coin"]) if price else "any amount" for price in record["prices"])
    rows["asked so far"] = str(record["asked"])
    rows["the least"] = ", ".join(f"{kind} {price}" for kind, price in zip(_KINDS, least, strict=True))
    return rows


#: The fields of a show's record that are amounts in its coin.
_SUMS = ("rate", "start_pot", "ticket_price", "pot", "earned", "next_slot", "released", "returned", "tipped")
_KINDS = ("tip", "request", "question")


def _take(line: AudienceLine, event: object) -> Entry | None:
    from dtp.chain.show import EntryAsked, Raised

    if isinstance(event, EntryAsked):
        return line.add_entry(event)
    return line.raise_entry(event) if isinstance(event, Raised) else None


def _print_entry(entry: Entry, coin: str) -> None:
    text = entry.text or ("(sealed)" if entry.sealed else "")
    kind = entry.kind.name.lower()
    record = {"event": "asked", **record_of(entry), "kind": kind}
    raised = f", raised {count_of(entry.raised, 'time')}" if entry.raised else ""
    words = f"{entry.number:>4}  {kind:<8}  {money(entry.amount, coin):>14}{raised}  {text}"
    print_line(record, words.rstrip())


def tell_air(on_air: Broadcast, air: Air) -> None:
    """Print the state of a show on the chain for its producer."""
    if on_air.keeper is not None:
        record = {"event": "air", "air": str(air), "next_slot": on_air.next_slot}
        print_line(record, f"-- {air}", err=True)


def tell_costs(on_air: Broadcast) -> None:
    """Print what a show has earned on the chain, and what that cost."""
    keeper = on_air.keeper
    if keeper is None or not ((found := keeper.takings).released or found.gas):
        return
    record = {"event": "posted", "slots": found.posted, "released": found.released, "gas_mist": found.gas}
    brought = f"{count_of(found.posted, 'slot')} posted: {money(found.released, keeper.found.coin)}, "
    print_line(record, brought * bool(found.released) + gas_text(found.gas), err=True)


#: The commands of this file, for the group `dtp show`.
COMMANDS = (create, fund, buy, give, tip, ask, refund, collect, end, status, watch, dismiss)
