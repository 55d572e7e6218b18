"""Checking a store: that all in it is what its authors signed, each behind the one before."""

from __future__ import annotations

from dtp.core.crdt import AUTHOR_SIZE, GraphCore
from dtp.core.errors import EncodingError
from dtp.crdt.permission.owners import owner_name
from dtp.graph.errors import StoreError
from dtp.graph.frames.chains import START, ChainTip
from dtp.graph.frames.envelope import Envelope, Skipped, Summary, last_clock
from dtp.graph.stores.loading import iter_stored
from dtp.graph.stores.store import Store


def verify(store: Store) -> int:
    """Check all that a store has: how many envelopes. `StoreError` at a fault."""
    core, count = GraphCore(bytes(AUTHOR_SIZE)), 0  # the replica's own is the event loop's
    for author, last in sorted(store.last_sequences().items()):
        tip = START
        for one in iter_stored(store, author):
            tip = _verified(core, one, author, tip)
            count += 1
        if tip.sequence != last:
            raise StoreError(f"envelope {tip.sequence + 1} of {owner_name(author)} is missing")
    return count


def _verified(core: GraphCore, one: Envelope | Summary, author: bytes, tip: ChainTip) -> ChainTip:
    """Return the end of the chain behind this stored one."""
    place = f"envelope {tip.sequence + 1} of {owner_name(author)}"
    if one.author == author and one.first_sequence > tip.sequence + 1:
        raise StoreError(f"{place} is missing")
    goes_on = one.first_sequence <= tip.sequence or one.previous == tip.hash
    if one.author != author or one.sequence <= tip.sequence or not goes_on or not one.is_genuine():
        raise StoreError(f"{place} is not what its author signed there")
    try:
        before = core.check_frame(one.body, author)[0] if one.body or isinstance(one, Envelope) else one.after
        if isinstance(one, Skipped) or (tip.sequence and not tip.clock):
            return ChainTip(
                one.sequence, one.hash, last_clock(core, one)
            )  # the clocks of what is skipped aren't known
    except EncodingError as error:
        raise StoreError(f"{place} has bytes that are not a frame: {error}") from error
    if before != tip.clock and (one.first_sequence == tip.sequence + 1 or before > tip.clock):
        raise StoreError(f"{place} does not begin where the one before it ended")
    return ChainTip(one.sequence, one.hash, last_clock(core, one))
