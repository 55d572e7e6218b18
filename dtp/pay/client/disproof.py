"""Proof that a deposit was never made, from hashes alone, where a node's word for it isn't enough.

A node that denies an opening may hide what was deposited, so that stays counted (docs/decisions/0184). But an honest
node denies one as well, when another program of the wallet has used its coin. What tells them apart: a transaction
names its coins by version and hash; an object's hash covers which transaction wrote it; and that one's digest is the
hash of its own inputs. From a transaction that is surely on the chain, since a server has taken the channel that it
opened, hashes lead back to every use of its coins before. No node can make up a step of that.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Iterator
from typing import Final

from dtp.chain.errors import ObjectMissing
from dtp.chain.model import SUI_COIN, ObjectData, canonical_type
from dtp.chain.node.client import ChainClient
from dtp.errors import ChainError
from dtp.pay.client.top_up import now_ms
from dtp.pay.store import Store
from dtp.pay.store.journal import Journal
from dtp.pay.store.rows import DoubtedDeposit
from dtp.sui.bcs import BcsError
from dtp.sui.names import SuiNameError, format_address, format_digest, parse_address, parse_digest
from dtp.sui.objects import GAS_COIN_TYPE, OBJECT, AddressOwner, MoveObject, ObjectValue, object_digest
from dtp.sui.transaction import (
    ObjectRef,
    OwnedInput,
    ProgrammableTransaction,
    TransactionData,
    transaction_digest,
)

log = logging.getLogger("dtp.pay")

#: Deposits older than a day count for no limit.
_SINCE_MS: Final = 24 * 60 * 60_000
#: So many doubted deposits are looked into, the newest, and so many uses of a coin are gone back, for so many seconds
#: in all: a node may be slow. What isn't proven by then stays counted until a later channel is taken.
_MOST_DOUBTED: Final = 32
_MOST_STEPS: Final = 32
#: So many coins are put together by an opening, to prove what became of deposits that would have used them.
_MOST_COINS: Final = 16
_PROVING: Final = 10.0
_ID_BYTES: Final = 32


async def count_disproved_no_more(chain: ChainClient, journal: Journal[Store], known: bytes) -> int:
    """Take deposits out of the limit of a day that the transaction `known` (its BCS) proves were never made, and
    return how many. A server has taken the channel that `known` opened, so it is on the chain.

    What can't be proven, as the node is away, has forgotten what was, or lies, stays counted.
    """
    doubted, proven = await _unproven(chain, journal), 0
    try:
        async with asyncio.timeout(_PROVING if doubted else None):
            for each in doubted:
                if await is_disproved(chain, each, known):
                    await journal.run(lambda store, each=each: store.disprove_deposit(each.digest))  # type: ignore[misc]
                    proven += 1
    except (TimeoutError, ChainError) as fault:
        log.debug("whether deposits were made can't be proven now: %s", fault)
    return proven


async def _unproven(chain: ChainClient, journal: Journal[Store]) -> list[DoubtedDeposit]:
    since = now_ms() - _SINCE_MS
    return await journal.run(
        lambda store: store.unproven_deposits(chain.chain_id, chain.address, since)[:_MOST_DOUBTED]
    )


async def coins_in_doubt(chain: ChainClient, journal: Journal[Store]) -> list[ObjectData]:
    """Return coins of SUI that the account still has and that doubted deposits would have used, the largest first: a
    transaction that uses these can prove what became of those. Raises `ChainError`."""
    ids = {
        format_address(each.id)
        for deposit in await _unproven(chain, journal)
        for each in TransactionData.decode(deposit.data).gas_data.payment
    }
    if not ids:
        return []
    found = (await chain.objects(itertools.islice(ids, _MOST_COINS))).values()
    ours = [each for each in found if each.owner.address == chain.address and each.balance]
    return sorted(ours, key=lambda each: each.balance or 0, reverse=True)


async def is_disproved(chain: ChainClient, doubted: DoubtedDeposit, known: bytes) -> bool:
    """Return whether the hashes behind `known`, the BCS of a transaction that is on the chain, prove that a doubted
    one deposited nothing and never will: another has used its coins, or it failed. Raises `ChainError`."""
    lost, later = TransactionData.decode(doubted.data), TransactionData.decode(known)
    if known == doubted.data:
        return False
    for coin in lost.gas_data.payment:
        used = _use_of(later, coin.id)
        if used is None or used.version < coin.version:
            continue
        if await _is_disproved_by(chain, doubted, lost, coin, used):
            return True
    return False


async def _is_disproved_by(
    chain: ChainClient, doubted: DoubtedDeposit, lost: TransactionData, coin: ObjectRef, used: ObjectRef
) -> bool:
    """Go back from the use of a coin in a transaction that is on the chain to the one who used it, as `lost` would
    have."""
    for _ in range(_MOST_STEPS):
        if used.version <= coin.version:
            # Used up at that version by one that isn't `lost`, or there never was such a version.
            return True
        value = await _read_coin(chain, used)
        if value is None:
            return False
        if format_digest(value.previous_transaction) == doubted.digest:
            return await _took_nothing(chain, doubted, lost, value)
        data = await chain.transaction_data(format_digest(value.previous_transaction))
        if data is None or transaction_digest(data) != value.previous_transaction:
            return False
        try:
            before = _use_of(TransactionData.decode(data), coin.id)
        except BcsError:
            return False
        if before is None:  # it was made by that transaction
            return False
        used = before
    return False


async def _took_nothing(
    chain: ChainClient, doubted: DoubtedDeposit, lost: TransactionData, after: ObjectValue
) -> bool:
    """Return whether a transaction that was executed has failed, by what its first coin has lost: less than the
    deposit would be, whatever was given back for the storage of the coins that were merged into it."""
    if canonical_type(doubted.coin) != SUI_COIN:
        return False
    before = [await _read_coin(chain, each) for each in lost.gas_data.payment]
    there = given_back = 0
    for each in before:
        if each is None:
            return False
        there += _balance(each)
        given_back += each.storage_rebate
    return there - _balance(after) < doubted.amount - given_back


def _uses(data: TransactionData) -> Iterator[ObjectRef]:
    """Yield the objects that a transaction uses at an exact version."""
    yield from data.gas_data.payment
    if isinstance(data.kind, ProgrammableTransaction):
        yield from (each.ref for each in data.kind.inputs if isinstance(each, OwnedInput))


def _use_of(data: TransactionData, coin: bytes) -> ObjectRef | None:
    return next((each for each in _uses(data) if each.id == coin), None)


async def _read_coin(chain: ChainClient, ref: ObjectRef) -> ObjectValue | None:
    """Return the coin of SUI that a reference names, None where a node doesn't show what its hash is of."""
    try:
        found = await chain.object(format_address(ref.id), ref.version)
    except ObjectMissing:
        return None
    try:
        value = ObjectValue(
            MoveObject(GAS_COIN_TYPE, True, ref.version, found.contents),
            AddressOwner(parse_address(found.owner.address)),
            parse_digest(found.previous_transaction),
            found.storage_rebate,
        )
        matches = object_digest(OBJECT.encode(value)) == ref.digest
    except (BcsError, SuiNameError):  # what a node told is no such thing
        return None
    return value if matches else None


def _balance(coin: ObjectValue) -> int:
    assert isinstance(coin.data, MoveObject)  # made so by `_read_coin`
    return int.from_bytes(coin.data.contents[_ID_BYTES:], "little")
