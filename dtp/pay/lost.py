"""Channels and lanes that a program opened and didn't live to note: found by the key that was kept before."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from dtp.chain import OLDEST, EventFollower, event_types
from dtp.chain import channel as module
from dtp.chain.channel import Channel, ChannelOpened, State
from dtp.chain.client import ChainClient
from dtp.pay.cashier import read_channels
from dtp.pay.lane_lock import LaneLock
from dtp.pay.store import Bought, Store


async def find_lost(chain: ChainClient, store: Store) -> list[Channel]:
    """Look for what `store` has a kept key for that nobody waits for any more, and note it there: from then on it is
    used, or closed, as any other.

    Reads the chain's history of channels, as far as the node has it. Gives the channels. Raises what reading and the
    store raise.
    """
    if not store.kept_keys():
        return []
    await chain.connect()
    source = EventFollower(chain, event_types(chain, module.SCHEMA, ChannelOpened), start=OLDEST)
    opened = [module.SCHEMA.decode(ChannelOpened, each.event.contents) async for each in source.past()]
    ours = [each.channel for each in opened if each.client == chain.address]
    channels = await read_channels(chain, ours)
    lost = [key for key in store.kept_keys() if not lock_of(store, key).is_taken()]
    return note(chain, store, channels.values(), lost)


def lock_of(store: Store, key: bytes) -> LaneLock:
    """What whoever has sent the transaction with a kept key holds until it knows what came of it."""
    return LaneLock(store.path, f"0x{key.hex()}", 0)


def note(
    chain: ChainClient, store: Store, channels: Iterable[Channel], lost: Collection[bytes]
) -> list[Channel]:
    """Note in `store` those of the channels that it has one of these kept keys for; these. Raises `StoreError`.

    `lost`: keys that nobody waits for: who does notes its lane itself.
    """
    keys, found = store.kept_keys().keys() & lost, []
    for channel in channels:
        lanes = [(number, lane.key) for number, lane in enumerate(channel.lanes) if lane.key in keys]
        if not lanes or channel.state == State.CLOSED:
            continue
        for number, key in lanes:  # of a channel that is noted already the row stays as it is
            store.add_bought(_bought(chain, channel), number, key)
        found.append(channel)
    return found


def _bought(chain: ChainClient, channel: Channel) -> Bought:
    state = "open" if channel.state == State.OPEN else "closing"
    place = (chain.chain_id, channel.host, channel.service, channel.client)
    return Bought(channel.id, *place, state, channel.opened_ms)
