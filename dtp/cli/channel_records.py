"""Payment channels as records (JSON) and as lines, for commands that show them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dtp.cli.accounts import record_of
from dtp.cli.show import amount, moment, money

if TYPE_CHECKING:
    from dtp.chain.channel import Channel, Voucher
    from dtp.cli.vouchers import Stores
    from dtp.errors import DtpError
    from dtp.pay.store.rows import Bought

STATES = ("open", "closing", "draining", "closed")


#: Fields of a channel that are sums of its coin.
_SUMS = frozenset(
    {
        "balance",
        "client_credit",
        "deposited",
        "claimed",
        "credited",
        "refunded",
        "owed",
        "credit_due",
        "epoch_spent",
        "price_request",
        "price_mib",
        "min_deposit",
        "credit",
        "amount",
    }
)


def summary_of(
    stores: Stores,
    id: str,
    found: Channel | None,
    role: str,
    ours: Bought | None = None,
    fault: DtpError | None = None,
) -> dict[str, Any]:
    """Return a channel of the store and what the chain says of it, or the `fault` for which that can't be read."""
    if role == "pays":
        lanes = [lane for _, lane in stores.bought.payer_lanes(id)]
        # Of a program that runs, or was killed, what it may have signed is written down, not what it has.
        vouched, most = sum(each.remembered for each in lanes), sum(each.most_signed for each in lanes)
    else:
        sold = [each.newest.voucher for each in stores.sold.sold_lanes(id) if each.newest is not None]
        vouched = most = sum(each.amount for each in sold)
    if fault is not None:
        return {"channel": id, "role": role, "state": "unreadable", "vouched": vouched, "reason": str(fault)}
    if found is None:
        return {"channel": id, "role": role, "state": "unknown", "vouched": vouched}
    return {
        "channel": id,
        "role": role,
        "state": STATES[found.state],
        "host": found.host,
        "service": found.service,
        "deposited": found.deposited,
        "vouched": vouched,
        "vouched_most": most,
        "claimed": found.claimed,
        "held": found.balance,
        "coin": found.coin,
        **({} if ours is None else lock_record(stores, found, ours, most)),
    }


def lock_record(stores: Stores, found: Channel, ours: Bought, most: int) -> dict[str, Any]:
    """Return until when a channel of ours keeps what isn't vouched (Unix ms), and why; `most` may be vouched."""
    from dtp.chain.channel import ChannelState
    from dtp.pay.client.budget import is_in_use, span

    until = found.claims_until_ms
    if found.state == ChannelState.CLOSING:
        why = "the server may claim until then; then the next command finalizes it"
    elif is_in_use(stores.bought, found.id):
        why = "a program uses it"
    elif ours.refused:
        why = "its server refuses it: the next command that pays asks for its close"
    else:
        claims = span(found.terms.claim_ms)
        close = "'dtp channel close' brings it back"
        if found.deposited <= most:
            close = (
                "nothing in it is known to be left, and 'dtp channel close' brings back gas for its storage"
            )
        why = f"kept for the next connection; {close}, at once where the server answers, else {claims} later"
    return {"locked_until_ms": until, "why": why, "gas_mist": ours.gas}


def last_known(stores: Stores) -> list[dict[str, Any]]:
    """Return the records of the store's channels without asking a chain: those that it doesn't know as closed."""
    from dtp.chain.model import SUI_COIN

    bought = {each.channel: each for each in stores.bought.bought_channels()}
    found = []
    for id in dict.fromkeys([*bought, *(each.channel for each in stores.sold.sold_lanes())]):
        ours = bought.get(id)
        if ours is not None and ours.state == "closed":
            continue
        record = {**summary_of(stores, id, None, "is paid" if ours is None else "pays"), "state": "not-asked"}
        if ours is not None:
            record |= {"last_state": ours.state, "host": ours.host, "service": ours.service}
            record |= {"deposited": ours.deposited, "coin": ours.coin or SUI_COIN}
        found.append(record)
    return found


def line_of(record: dict[str, Any]) -> str:
    if record["state"] == "not-asked":
        about = f"{record['channel']}  {record['role']}, not asked: vouched "
        if "last_state" not in record:  # nor is its coin known
            return f"{about}{record['vouched']} of its coin's smallest unit"
        vouched, deposited = (money(record[each], record["coin"]) for each in ("vouched", "deposited"))
        return f"{about}{vouched} of {deposited}; {record['last_state']}, as far as is known here"
    if record["state"] == "unreadable":
        why = record["reason"].removeprefix(f"{record['channel']} ")
        return f"{record['channel']}  {record['role']}, can't be read: {why}"
    if record["state"] == "unknown":
        return f"{record['channel']}  {record['role']}, not on this network"
    vouched, claimed, held = (money(record[each], record["coin"]) for each in ("vouched", "claimed", "held"))
    if record["vouched_most"] > record["vouched"]:
        vouched += f" to {money(record['vouched_most'], record['coin'])}"
    about = f"{record['channel']}  {record['role']}, {record['state']}"
    line = f"{about}: vouched {vouched}, claimed {claimed}, holds {held}"
    if record.get("why"):
        until = record["locked_until_ms"]
        line += f"\n    locked{'' if until is None else f' until {moment(until)}'}: {record['why']}"
    return line


def shown_record(record: dict[str, Any]) -> dict[str, Any]:
    """Return a channel's record for people: who bears transport by name, sums in SUI, where that is its coin."""
    from dtp.chain.host import Bearer
    from dtp.chain.model import SUI_COIN, canonical_type

    shown = {**record, "terms": {**record["terms"], "bearer": Bearer(record["terms"]["bearer"]).name.lower()}}
    return in_sui(shown) if canonical_type(record["terms"]["coin"]) == SUI_COIN else shown


def in_sui(record: Any) -> Any:
    if isinstance(record, dict):
        return {name: amount(each) if name in _SUMS else in_sui(each) for name, each in record.items()}
    return [in_sui(each) for each in record] if isinstance(record, list) else record


def voucher_record(voucher: Voucher) -> dict[str, Any]:
    record: dict[str, Any] = record_of(voucher)
    del record["domain"]  # the same in each
    return record


def keyless_record(found: Channel) -> dict[str, Any]:
    return {
        "event": "keyless",
        "channel": found.id,
        "state": STATES[found.state],
        "host": found.host,
        "service": found.service,
        "held": found.balance,
        "coin": found.coin,
        "claims_until_ms": found.claims_until_ms,
    }


def keyless_line(found: Channel) -> str:
    from dtp.chain.channel import ChannelState

    what = {
        ChannelState.OPEN: f"asks for its close: the server may claim for {found.terms.claim_ms / 1000:,.0f} s then",
        ChannelState.CLOSED: "brings back its storage deposit",
    }.get(ChannelState(found.state), "brings it back when the time for claims is over")
    return (
        f"{found.id}: {STATES[found.state]}, holds {money(found.balance, found.coin)}, and its key isn't in this "
        f"store; unless a program with another store uses it, 'dtp channel close {found.id}' {what}"
    )
