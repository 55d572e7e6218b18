"""Wallets: what an account has, sending it, and asking a faucet for more on a test network."""

from __future__ import annotations

import asyncio
import json
import re
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any, Final

from dtp.chain.errors import (
    MALFORMED,
    InsufficientFunds,
    NetworkError,
    NodeRefused,
    NodeUnavailable,
    ProgramError,
)
from dtp.chain.model import (
    MIST_PER_SUI,
    SUI_COIN,
    Executed,
    Id,
    canonical_id,
    canonical_type,
    format_amount,
)
from dtp.chain.node.client import ChainClient, Signed
from dtp.chain.node.coins import coins_for
from dtp.chain.node.commands import Program
from dtp.chain.node.networks import Network

_FAUCET_TIMEOUT = 60.0
_MAX_ANSWER = 1 << 20


@dataclass(frozen=True)
class FaucetGift:
    """What a faucet gave: MIST in each coin, and the transaction that did it."""

    amounts: tuple[int, ...]
    transaction: str


#: The most that a coin holds, a u64.
_MOST: Final = 2**64 - 1
_AMOUNT = re.compile(r"([0-9]+)(?:\.([0-9]{1,9}))?\s*(sui|mist)?", re.IGNORECASE)


def parse_amount(text: str, coin: str = SUI_COIN) -> int:
    """Return MIST of "0.5SUI", "500MIST" or "500" (MIST); of another coin only a number of its smallest unit is
    understood.

    Raises `ProgramError`, also for more than a coin can hold, and `SuiNameError`.
    """
    is_sui = canonical_type(coin) == SUI_COIN
    amount = _mist(text) if is_sui else _units(text, coin)
    if amount > _MOST:
        most = format_amount(_MOST) if is_sui else f"{_MOST:,}"
        raise ProgramError(f"{text[:40]!r} is more than a coin can hold: write {most} at most")
    return amount


def _units(text: str, coin: str) -> int:
    if re.fullmatch("[0-9]+", text.strip()) is None:
        raise ProgramError(f"{text!r} is not a number of the smallest unit of {coin}")
    return _number(text)


def _number(digits: str) -> int:
    """Return the number, or one that is too large: Python reads no number of thousands of digits."""
    stripped = digits.strip().lstrip("0")
    return int(stripped or "0") if len(stripped) <= len(str(_MOST)) else _MOST + 1


def _mist(text: str) -> int:
    match = _AMOUNT.fullmatch(text.strip())
    if match is None:
        raise ProgramError(f"{text!r} is not an amount: write 0.5SUI, or 500000000MIST")
    whole, part, unit = match.groups()
    if (unit or "mist").lower() == "sui":
        return _number(whole) * MIST_PER_SUI + int((part or "").ljust(9, "0"))
    if part is not None:
        raise ProgramError(f"{text!r}: there is nothing below one MIST; write SUI behind it?")
    return _number(whole)


def money(units: int, coin: str) -> str:
    """Return a sum of a coin (its smallest unit) with its unit: "0.5 SUI", "5,000 of 0x2::usdc::USDC"."""
    return format_amount(units) if canonical_type(coin) == SUI_COIN else f"{units:,} of {coin}"


async def send(chain: ChainClient, recipient: Id, amount: int, coin: str = SUI_COIN) -> Executed:
    """Send `amount` of a coin (its smallest unit). Raises `InsufficientFunds` and what `execute` raises."""
    if amount <= 0:
        raise ProgramError(f"the amount to send must be above 0, not {amount}")
    program = Program()
    money = await coins_for(chain, program, coin, amount)
    if canonical_type(coin) != SUI_COIN:
        # Whose coins these are is the node's word, and a transfer takes any object: this call takes no other coin.
        program.call("0x2", "coin", "value", [money], [coin])
    program.transfer([money], recipient)
    try:
        return await chain.execute(program)
    except InsufficientFunds as fault:
        there = (await chain.balance(chain.address)).total
        what = f"send {format_amount(amount)} and pay the gas" if program.uses_gas_coin else "pay the gas"
        found = InsufficientFunds(f"{chain.address} has {format_amount(there)}: too little to {what}")
        found.digest = fault.digest
        raise found from fault


async def split_gas(chain: ChainClient, coins: int, amount: int, signed: Signed | None = None) -> None:
    """Make `coins` new SUI coins of `amount` MIST and pay with them, so that as many transactions run at once."""
    program = Program()
    program.transfer(list(program.split(program.gas, [amount] * coins)), chain.address)
    executed = await chain.execute(program, signed=signed)
    made = {change.id for change in executed.created_objects(canonical_type("0x2::coin::Coin"))}
    chain.use_gas_coins(each for each in executed.objects.values() if each.id in made)


async def request_sui(network: Network, address: Id) -> FaucetGift:
    """Ask the network's faucet to send SUI to an address.

    Raises `NetworkError` where there is no faucet, `NodeUnavailable` when it doesn't answer, `NodeRefused` when it
    refuses (usually: too often).
    """
    if not network.faucet:
        raise NetworkError(
            f"{network.name} has no faucet: send SUI to {canonical_id(address)}, or name one with $DTP_FAUCET"
        )
    question = {"FixedAmountRequest": {"recipient": canonical_id(address)}}
    answer = await asyncio.to_thread(_post, network.faucet, json.dumps(question).encode())
    return _gift(network.faucet, answer)


def _post(url: str, body: bytes) -> bytes:
    if not url.startswith(("http://", "https://")):
        raise NetworkError(f"{url!r} is not a URL of a faucet")
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=_FAUCET_TIMEOUT) as response:
            data: bytes = response.read(_MAX_ANSWER)
            return data
    except urllib.error.HTTPError as fault:
        with fault:
            said = fault.read(500).decode(errors="replace").strip()
        raise NodeRefused(
            f"the faucet {url} refused ({fault.code}): {said or fault.reason}", str(fault.code)
        ) from fault
    except OSError as fault:
        raise NodeUnavailable(f"the faucet {url} doesn't answer: {fault}; is it running?") from fault


def _gift(url: str, answer: bytes) -> FaucetGift:
    try:
        record: Any = json.loads(answer)
        failure = record["status"]["Failure"] if isinstance(record.get("status"), dict) else None
        coins = record.get("coins_sent") or []
        gift = FaucetGift(
            tuple(int(each["amount"]) for each in coins), str(coins[0]["transferTxDigest"]) if coins else ""
        )
    except (ValueError, KeyError, TypeError, AttributeError) as fault:
        raise NodeRefused(
            f"the faucet {url} gave an answer that can't be read: {answer[:200]!r}", MALFORMED
        ) from fault
    if failure or not gift.amounts:
        raise NodeRefused(f"the faucet {url} gave nothing: {failure or 'no coins'}", "REFUSED")
    return gift
