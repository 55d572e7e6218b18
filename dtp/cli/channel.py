"""`dtp channel`: payment channels: what they hold, claiming, closing, and watching for a server that sleeps."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import click

from dtp.cli.accounts import WalletOptions, account_options, record_of, tell_history
from dtp.cli.channel_history import history
from dtp.cli.channel_records import (
    STATES,
    keyless_line,
    keyless_record,
    last_known,
    line_of,
    shown_record,
    summary_of,
    voucher_record,
)
from dtp.cli.durations import duration
from dtp.cli.groups import CommandGroup
from dtp.cli.options import verbose_option
from dtp.cli.output import NODE_AWAY, exit_code, json_option, print_line, print_result
from dtp.cli.show import amount, gas_text, money, table
from dtp.cli.vouchers import Vouchers, store_option
from dtp.errors import CarrierError, ChainError, DtpError, LocalError, PeerError
from dtp.plurals import count_of
from dtp.session.codes import ConnectionClosed

if TYPE_CHECKING:
    from dtp.chain import ChainClient
    from dtp.chain.channel import Channel
    from dtp.pay.client.ends import ClosingStep
    from dtp.pay.settling import OnFailed, Settlement
    from dtp.pay.store import Store
    from dtp.pay.store.holding import VoucherStore
    from dtp.pay.store.journal import Journal
    from dtp.pay.store.rows import Bought

_Kept = TypeVar("_Kept", bound="VoucherStore")
#: Seconds between two looks of the watcher.
_WATCH_EVERY = 30.0
#: What a claim has to have ahead for gas, about, MIST.
_GAS_TO_CLAIM = 20_000_000
#: How far behind a node may be, ms: so old a channel that it doesn't know is gone.
_NODES_MS = 600_000


class NoVoucher(ChainError):
    """There is nothing here to claim a channel with."""

    code = "no-voucher"


@click.group("channel", cls=CommandGroup)
def channel() -> None:
    """Payment channels: those you opened, and those that pay you.

    Vouchers are in pay.sqlite in the data folder ($DTP_PAY_STORE), or where a daemon keeps its own (--store). If you
    lose them, you lose what wasn't claimed.
    """


channel.add_command(history)


@channel.command("list")
@store_option
@account_options
def list_channels(vouchers: Vouchers, account: WalletOptions) -> None:
    """List the channels of the store, in their present state on the chain.

    If no node answers they are listed in their last known state, and the exit code is 5.
    """

    async def work(chain: ChainClient) -> list[dict[str, Any]]:
        from dtp.pay.server.cashier import read_channels

        with vouchers.open_stores() as stores:
            bought = {each.channel: each for each in stores.bought.bought_channels()}
            sold = {each.channel for each in stores.sold.sold_lanes()}
            unread: dict[str, DtpError] = {}
            found = await read_channels(chain, [*bought, *sold], unread.__setitem__)
            return [
                summary_of(
                    stores,
                    id,
                    found.get(id),
                    "pays" if id in bought else "is paid",
                    bought.get(id),
                    unread.get(id),
                )
                for id in dict.fromkeys([*bought, *sold])
                if id in found or id in unread or (id in bought and bought[id].state != "closed")
            ]

    try:
        records, away = account.run_connected(work, signing=False), None
    except DtpError as error:
        if error.code != NODE_AWAY:
            raise
        with vouchers.open_stores() as stores:
            records, away = last_known(stores), error
    text = "\n".join(line_of(each) for each in records) or "no channels"
    if records or away is None:
        print_result({"channels": records}, text)
    if away is not None:
        raise away


@channel.command()
@click.argument("id", metavar="CHANNEL")
@store_option
@account_options
def show(id: str, vouchers: Vouchers, account: WalletOptions) -> None:
    """Show a channel: its money, terms and lanes on chain, and the vouchers that are here."""

    async def work(chain: ChainClient) -> dict[str, Any]:
        found = await _read(chain, id)
        with vouchers.open_stores() as stores:
            ours = (lane for _, lane in stores.bought.payer_lanes(found.id))
            vouched = {
                **{lane.lane: lane.newest for lane in ours if lane.newest is not None},
                **{each.lane: each.newest for each in stores.sold.sold_lanes(found.id)},
            }
        return {
            **record_of(found),
            "state": STATES[found.state],
            "vouchers": {str(lane): voucher_record(each.voucher) for lane, each in vouched.items()},
        }

    record = account.run_connected(work, signing=False)
    print_result(record, table(shown_record(record)))


@channel.command()
@click.argument("id", metavar="[CHANNEL]", required=False)
@store_option
@account_options
def claim(id: str | None, vouchers: Vouchers, account: WalletOptions) -> None:
    """Claim now with the newest vouchers: of one channel, or of all that pay you more than the gas.

    A channel that is named is checked again, even if a node has said that it is over.
    """
    failures = _Failures()

    async def work(chain: ChainClient) -> None:
        from dtp.chain.channel import ChannelState
        from dtp.chain.model import canonical_id
        from dtp.pay.claims import Action, Decision, Policy, claimable, gain_of, worth_of, worthwhile
        from dtp.pay.server.cashier import Cashier, claiming
        from dtp.pay.settling import settle

        wanted, clock = None if id is None else canonical_id(id), _ChainTime(chain)
        unread: dict[str | None, DtpError] = {}
        await clock.sync()
        with vouchers.open_stores() as stores:
            async with _journal(stores.sold) as journal:
                cashier = Cashier(chain, journal, clock.now_ms, on_failed=unread.__setitem__)
                named = None if wanted is None else await cashier.view_of(wanted)
                views = await cashier.channel_views() if wanted is None else [] if named is None else [named]
            if unread and not views:
                raise next(iter(unread.values()))
            for missed, fault in unread.items():
                failures.note(missed, fault)
            if wanted is not None and not views:
                raise NoVoucher(
                    f"no voucher of {wanted} is here: 'dtp channel list' shows the channels that pay you"
                )
            decisions, small, policy = [], 0, Policy()
            for view in views:
                lanes = claimable(view, clock.now_ms())
                if wanted is None:
                    lanes = worthwhile(view, lanes, policy) or lanes
                if not lanes or view.channel.state > ChannelState.CLOSING:
                    continue
                gain = gain_of(view.channel, lanes)
                gas = policy.gas_of(view, lanes)
                if wanted is None and worth_of(view, lanes, gain) <= gas.beside:
                    small += 1
                    _print_small(view.channel, gain)
                    continue
                decisions.append(Decision(view, Action.CLAIM, lanes, gain))
            weighed = policy if wanted is None else None
            async with _journal(stores.sold) as journal:
                claims = claiming(chain, journal)
                done = await settle(claims, decisions, policy.batch, failures.note, policy=weighed)
            for paid, _ in done:
                print_paid("claimed", paid)
            if not done and weighed is not None:  # the simulation knows better what it costs
                for each in decisions:
                    _print_small(each.view.channel, each.gain)
            if not decisions and not small:
                print_line({"event": "nothing"}, "nothing to claim")

    account.run_connected(work)
    failures.exit()


def _print_small(found: Channel, gain: int) -> None:
    print_line(
        {"event": "small", "channel": found.id, "amount": gain, "coin": found.coin},
        f"{found.id}: {money(gain, found.coin)} is less than the gas; name it to claim it all the same",
    )


@channel.command()
@click.argument("file", type=click.Path(dir_okay=False))
@store_option
@json_option
def backup(file: str, vouchers: Vouchers) -> None:
    """Copy the vouchers to FILE, also while others use them; an older copy there is brought up to date.

    A plain copy of pay.sqlite lacks what was written last. A watcher on another machine can use this backup. From a
    database it copies everything that is needed to claim. Nothing in an older copy is lost.
    """
    from dtp.pay.store import Store

    with vouchers.open_stores("refuse") as stores:  # made now, it would replace a copy that has everything
        if isinstance(stores.sold, Store):
            stores.sold.backup(file)
        else:
            with Store(file) as copy:
                copy.copy_sold(stores.sold)
    record = {"event": "copied", "path": vouchers.text, "to": file}
    print_line(record, f"{vouchers.text} is copied to {file}")


@channel.command()
@click.argument("id", metavar="[CHANNEL]", required=False)
@click.option("--pipes", is_flag=True,
              help="Also all channels that carry pipes ('?via=pipe'), and give the pipes' storage deposits back. "
              "While no connection goes through the chain.")  # fmt: skip
@click.option("--slack", metavar="AMOUNT",
              help="Pay at most so much for what the server counts and what never arrived here, so that it agrees. "
              "[default: a voucher's step, at most 0.00075SUI]")  # fmt: skip
@store_option
@account_options
def close(id: str | None, pipes: bool, slack: str | None, vouchers: Vouchers, account: WalletOptions) -> None:
    """Close a channel that you opened, or continue all closes that have begun.

    The server is dialled, and if it agrees, the rest of the money comes back at once. If it can't be reached or
    doesn't agree, the close is requested on the chain. The server then has time to claim ('claim_ms' of the terms);
    run this again after that.
    """

    if slack is not None and id is None:
        raise click.UsageError("--slack is for one CHANNEL that is open; name it")
    failures = _Failures()

    async def work(chain: ChainClient) -> None:
        from dtp.pay.spent import settle_spent

        with vouchers.open_stores("make" if pipes or id is not None else "empty") as (_, store):
            async with _journal(store) as journal:
                await settle_spent(chain, journal)
            if id is not None:
                found = await _read_open(chain, store, id)
                if found is not None:
                    await _close(chain, store, found, ask=True, slack=slack)
                return
            if pipes:
                await _close_pipes(chain, store)
            waiting = await _on_their_way(chain, store, "closing", "refused")
            for each in waiting:
                found = (await _find(chain, [each.channel])).get(each.channel)
                if found is not None:
                    if each.account == chain.address:
                        await _close_next(chain, store, found, failures.note, ask=each.state == "refused")
                    else:
                        print_line(
                            {"event": "foreign", "channel": each.channel, "account": each.account},
                            f"{each.channel}: {each.account} opened it: name its wallet (--wallet)",
                        )
                elif there := await chain.objects([each.channel]):
                    package = there[each.channel].type.partition("::")[0]
                    print_line(
                        {"event": "foreign-package", "channel": each.channel, "package": package},
                        f"{each.channel}: it is of a package that isn't used here now; with 'dtp move use transport "
                        f"{package}', run this again",
                    )
                elif await _now_ms(chain) > each.opened_ms + _NODES_MS:
                    store.set_state(each.channel, "closed")
            if not waiting:
                print_line(
                    {"event": "nothing"}, "no channel is on its way to be closed; name the one to close"
                )

    account.run_connected(work)
    failures.exit()


async def _close_pipes(chain: ChainClient, store: Store) -> None:
    """Ask for the close of channels that carried pipes, and note them, so that the next run finishes it."""
    from dtp.chain.pipes.opening import reclaim

    done = await reclaim(chain, close=True, on_closing=lambda found: _note_closing(chain, store, found))
    print_line(
        {"event": "pipes", "pipes": done.pipes, "closing": list(done.closing)},
        f"{count_of(done.pipes, 'pipe')} given back; {count_of(len(done.closing), 'channel')} asked to close",
    )


async def _close_next(
    chain: ChainClient, store: Store, found: Channel, on_failed: OnFailed, *, ask: bool
) -> None:
    """Close one of several channels: an error is printed, and doesn't keep the others from being closed."""
    from dtp.chain.errors import TransactionFailed

    try:
        await _close(chain, store, found, ask=ask)
    except TransactionFailed as fault:
        on_failed(found.id, fault)


async def _close(
    chain: ChainClient, store: Store, found: Channel, *, ask: bool, slack: str | None = None
) -> None:
    """Take the next step of closing a channel."""
    from dtp.chain.channel import ChannelState
    from dtp.pay.client.ends import close_further

    if ask and found.state == ChannelState.OPEN:
        if await _close_with_server(chain, store, found, slack):
            return
        found = await _read(chain, found.id)  # its close may have been asked for there
    step = await close_further(chain, store, found, await _now_ms(chain), ask=ask)
    if step.paid is not None:
        print_paid("closed", step.paid, found.id)
    elif step.event == "closed":
        text = f"{found.id}: closed, and deleted; {gas_text(step.gas)}"
        print_line({"event": "closed", "channel": found.id, "gas_mist": step.gas}, text)
    elif step.event == "open":
        print_line(
            {"event": "open", "channel": found.id},
            f"{found.id}: is open on the chain; 'dtp channel close {found.id}' asks for its close",
        )
    elif step.digest:
        print_line(
            {
                "event": "closing",
                "channel": found.id,
                "seconds": step.seconds,
                "transaction": step.digest,
                "gas_mist": step.gas,
            },
            f"{found.id}: its close is asked for (gas {amount(step.gas)}); the server may claim for {_wait(step)}, "
            "then 'dtp channel close' brings the rest back",
        )
    else:
        print_line(
            {"event": "closing", "channel": found.id, "seconds": step.seconds},
            f"{found.id}: is closing; the server may claim for {_wait(step)} yet",
        )


def _wait(step: ClosingStep) -> str:
    from dtp.pay.client.budget import span

    return span(round(step.seconds * 1000))


async def _close_with_server(chain: ChainClient, store: Store, found: Channel, slack: str | None) -> bool:
    """Close a channel by agreement with its server. Return whether that succeeded."""
    from dtp.chain.host_state import HostUnusable
    from dtp.chain.wallet import parse_amount
    from dtp.net.resolver import NotResolved
    from dtp.pay.dial import close_with_server
    from dtp.pay.errors import ChannelUnusable
    from dtp.pay.terms import Spending

    paid_late = None if slack is None else parse_amount(slack, found.coin)
    try:
        purchase = await close_with_server(chain, store, found.id, spending=Spending(slack_amount=paid_late))
    except (CarrierError, PeerError, ConnectionClosed, ChannelUnusable, HostUnusable, NotResolved) as fault:
        print_line(
            {"event": "unreached", "channel": found.id, "reason": str(fault)},
            f"{found.id}: can't be closed by agreement with its server: {fault}",
            err=True,
        )
        return False
    if purchase.closing.closed is not None:
        paid = replace(purchase.closing.closed, to_server=found.deposited - purchase.closing.closed.to_client)
        print_paid("closed", paid, found.id)
    elif purchase.disputed_amount:
        wanted = money(purchase.disputed_amount, found.coin)
        print_line(
            {
                "event": "disputed",
                "channel": found.id,
                "amount": purchase.disputed_amount,
                "coin": found.coin,
            },
            f"{found.id}: its server counts {wanted} more than what came here, on connections that broke off, and "
            f"agrees to no close without that (--slack)",
            err=True,
        )
    return purchase.closing.closed is not None


def _note_closing(chain: ChainClient, store: Store, found: Channel) -> None:
    """Note that a channel closes, even if the store didn't know it: the next run has to finish the close."""
    from dtp.pay.client.lost import bought_of
    from dtp.pay.client.top_up import now_ms

    if found.client == chain.address:
        store.add_closing(bought_of(chain, found, "closing"), now_ms())


@channel.command()
@store_option
@account_options
def find(vouchers: Vouchers, account: WalletOptions) -> None:
    """Find all channels of your account in the chain's history, even with an empty store, and say how to close each.

    Channels that your programs opened but ended too early to note are added to the store, and the next connection
    uses them. Other channels are shown with what they hold; they can be closed but not used, since their keys aren't
    here.
    """

    async def work(chain: ChainClient) -> None:
        from dtp.pay.client.lost import find_channels

        await tell_history(chain)
        with vouchers.open_stores("make") as (_, store):  # which counts what is found for the limit of a day
            found = await find_channels(chain, store)
        for each in found.noted:
            print_line(
                {"event": "found", "channel": each.id, "held": each.balance, "coin": each.coin},
                f"{each.id}: holds {money(each.balance, each.coin)}; 'dtp channel close {each.id}' brings it back",
            )
        for each in found.keyless:
            print_line(keyless_record(each), keyless_line(each))
        if not found.noted and not found.keyless:
            print_line({"event": "nothing"}, f"no other channel of {chain.address} is on this network")

    account.run_connected(work)


@channel.command()
@click.option("--every", type=duration(1), default=f"{_WATCH_EVERY:g}s", show_default=True,
              help="How often to look; more often where channels leave less time.")  # fmt: skip
@click.option("--once", is_flag=True, help="Look once and end; the exit code says whether all went well.")
@store_option
@verbose_option
@account_options
def watch(every: float, once: bool, vouchers: Vouchers, account: WalletOptions) -> None:
    """Claim for a server that is offline, and end channels whose time has come, until interrupted.

    This needs the server's vouchers or a copy of them (--store), and a wallet with SUI for gas, but not the server's
    key: the channel fixes who is paid. Your own channels that are closing are finished, too. Vouchers in a database
    are left to a running daemon.
    """

    failures = _Failures()

    async def work(chain: ChainClient) -> None:
        from dtp.pay.server.cashier import Cashier

        clock, cashier = _ChainTime(chain), None
        while True:
            try:
                await clock.sync()
                # Opened for each look: another file may be in its place, and a daemon that begins has its turn.
                with vouchers.open_stores("refuse") as stores:
                    async with _journal(stores.sold) as journal:
                        if cashier is None:
                            await _check_watching(chain, journal)
                            cashier = Cashier(chain, journal, clock.now_ms, on_failed=failures.note)
                            _print_watching(every, once)
                        cashier.journal = journal
                        for paid in await cashier.poll():
                            print_paid("claimed", paid)
                    await _finish_ours(chain, stores.bought, failures.note)
            except DtpError as fault:  # nodes, disks, files and money for gas go and come back
                if once or cashier is None:
                    raise
                _print_failed(None, fault)
            if once:
                return
            failures.first = None
            await asyncio.sleep(cashier.pause_between_polls(every))

    account.run_connected(work)
    failures.exit()


async def _check_watching(chain: ChainClient, journal: Journal[VoucherStore]) -> None:
    """Raise `PackageNotPublished` where no channel could be claimed on this machine; say when there is no gas."""
    from dtp.chain import channel as module
    from dtp.chain.errors import InsufficientFunds, PackageNotPublished
    from dtp.pay.server.cashier import read_channels

    unknown: list[DtpError] = []

    def note(id: str, fault: DtpError) -> None:
        if isinstance(fault, PackageNotPublished):  # which says what to do, with the package's id
            unknown.append(fault)

    channels = sorted({each.channel for each in await journal.run(lambda store: store.sold_lanes())})
    found = await read_channels(chain, channels, note)
    if unknown and not found:
        raise unknown[0]
    chain.type_of(module.SCHEMA, module.Channel)
    held = (await chain.balance(chain.address)).total
    if held < _GAS_TO_CLAIM:
        text = (
            f"{chain.address} has {amount(held)}, and a claim needs {amount(_GAS_TO_CLAIM)} for its gas, of which it "
            "takes a part: send it some, or nothing can be claimed"
        )
        _print_failed(None, InsufficientFunds(text))


def _print_watching(every: float, once: bool) -> None:
    if not once:
        print_line({"event": "watching", "every": every}, f"looking every {every:g} s; Ctrl-C ends it")


async def _finish_ours(chain: ChainClient, store: Store, on_failed: OnFailed) -> None:
    """Take the next step in closing channels that we opened and that nothing uses, and print the results."""
    from dtp.pay.client.ends import close_due
    from dtp.pay.dial import is_closed_with_server
    from dtp.pay.store.journal import Journal

    journal = Journal(store)
    try:
        agree = functools.partial(is_closed_with_server, chain, store)
        done = await close_due(chain, journal, await _now_ms(chain), on_failed, agree)
    finally:
        await journal.close()
    for found, step in done:
        if step.paid is not None:
            print_paid("closed", step.paid, found.id)
        elif step.digest:
            print_line(
                {"event": "closing", "channel": found.id, "seconds": step.seconds},
                f"{found.id}: its server refuses it; its close is asked for",
            )


# ---- helpers


async def _on_their_way(chain: ChainClient, store: Store, *states: str) -> list[Bought]:
    """Return our channels in one of the states, of this chain: that it doesn't know another one's means nothing."""
    await chain.connect()  # before that the chain's id isn't known
    return [each for each in store.bought_channels() if each.chain == chain.chain_id and each.state in states]


class _ChainTime:
    """The chain's time: asked for by `sync`, and what has passed here since."""

    def __init__(self, chain: ChainClient) -> None:
        self._chain = chain
        self._skew = 0

    async def sync(self) -> None:
        self._skew = await _now_ms(self._chain) - round(time.time() * 1000)

    def now_ms(self) -> int:
        return round(time.time() * 1000) + self._skew


@contextlib.asynccontextmanager
async def _journal(store: _Kept) -> AsyncIterator[Journal[_Kept]]:
    from dtp.pay.store.journal import Journal

    journal = Journal(store)
    try:
        yield journal
    finally:
        await journal.close()


async def _now_ms(chain: ChainClient) -> int:
    """Return the chain's time."""
    info = await chain.service_info()
    return info.timestamp_ms if info.timestamp_ms is not None else round(time.time() * 1000)


async def _find(chain: ChainClient, ids: list[str]) -> dict[str, Channel]:
    from dtp.pay.server.cashier import read_channels

    return await read_channels(chain, ids)


async def _read(chain: ChainClient, id: str) -> Channel:
    from dtp.chain import channel as module
    from dtp.sui.names import SuiNameError

    try:
        return await chain.read(module.SCHEMA, module.Channel, id)
    except SuiNameError as fault:
        raise LocalError(f"not a channel's id: {fault}") from fault


async def _read_open(chain: ChainClient, store: Store, id: str) -> Channel | None:
    """Read a channel. If it is noted as closed and the chain has it no more, say so and return None."""
    from dtp.chain.errors import ObjectMissing
    from dtp.chain.model import canonical_id

    try:
        return await _read(chain, id)
    except ObjectMissing:
        known = store.bought_channels(canonical_id(id))
        if not any(each.state == "closed" for each in known):
            raise
    record = {"event": "over", "channel": known[0].channel}
    print_line(record, f"{known[0].channel}: is closed already; 'dtp channel history' has what it cost")
    return None


class _Failures:
    """Errors with some of several channels: each is printed at once, doesn't stop the others, and decides the exit
    code at the end."""

    def __init__(self) -> None:
        self.first: DtpError | None = None

    def note(self, id: str | None, fault: DtpError) -> None:
        """Print an error, and keep the first one."""
        _print_failed(id, fault)
        self.first = self.first or fault

    def exit(self) -> None:
        """End the command with the exit code of the first error, if there was one."""
        if self.first is not None:
            click.get_current_context().exit(exit_code(self.first))


def _print_failed(id: str | None, fault: DtpError) -> None:
    about = f"{id}: " if id is not None and not str(fault).startswith(id) else ""
    print_line(
        {"event": "failed", "channel": id, "code": fault.code, "reason": str(fault)},
        f"{about}{fault}",
        err=True,
    )


def print_paid(event: str, paid: Settlement, id: str | None = None) -> None:
    """Print what a transaction paid to whom, for the channel `id`, or for those that it names."""
    channels = paid.channels if id is None else (id,)
    about = f"{', '.join(channels)}: " if channels else ""
    print_line(
        {
            "event": event,
            "channels": list(channels),
            "transaction": paid.digest,
            "to_server": paid.to_server,
            "to_client": paid.to_client,
            "coin": paid.coin,
            "gas_mist": paid.gas,
        },
        f"{about}{event}: {money(paid.to_server, paid.coin)} to the server, {money(paid.to_client, paid.coin)} "
        f"to the client, {gas_text(paid.gas)}",
    )
