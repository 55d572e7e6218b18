"""Channels and lanes that a program opened and didn't live to note: found by the key that was kept before."""

from __future__ import annotations

from collections.abc import Iterable

from dtp.chain import OLDEST, EventFollower, event_types
from dtp.chain import channel as module
from dtp.chain.channel import Channel, ChannelOpened, State
from dtp.chain.client import ChainClient
from dtp.pay.cashier import read_channels
from dtp.pay.store import Bought, Store


async def find_lost(chain: ChainClient, store: Store) -> list[Channel]:
    """Look for what `store` has a kept key for, and note it there: from then on it is used, or closed, as any other.

    Reads the chain's history of channels, as far as the node has it. Gives the channels. Raises what reading and the
    store raise.
    """
    if not store.kept_keys():
        return []
    await chain.connect()
    source = EventFollower(chain, event_types(chain, module.SCHEMA, ChannelOpened), start=OLDEST)
    opened = [module.SCHEMA.decode(ChannelOpened, each.event.contents) async for each in source.past()]
    ours = [each.channel for each in opened if each.client == chain.address]
    return note(chain, store, (await read_channels(chain, ours)).values())


def note(chain: ChainClient, store: Store, channels: Iterable[Channel]) -> list[Channel]:
    """Note in `store` those of the channels that it has a kept key for; these. Raises `StoreError`."""
    keys, found = set(store.kept_keys()), []
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
