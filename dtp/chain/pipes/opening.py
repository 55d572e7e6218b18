"""Channels that dials open: the transaction that does, and tidying up after them, with the deposits of pipes.

    reclaimed = await reclaim(chain, close=True)

A dial leaves its channel open for the next one, so deposit and pipes stay where they are until somebody says that
they aren't needed any more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from dtp.chain import channel as channel_module
from dtp.chain import pipe as pipe_module
from dtp.chain.channel import Channel, ChannelState
from dtp.chain.host import Terms
from dtp.chain.host_state import HostState
from dtp.chain.node.client import ChainClient
from dtp.chain.node.commands import Argument, Program
from dtp.chain.pipe import Direction, Pipe, evidence, is_credited
from dtp.chain.pipes.frames import Flags, Header, encode
from dtp.chain.signer import KeySigner

__all__ = ["Reclaimed", "opening", "reclaim"]

#: Pipes that one transaction destroys.
_AT_ONCE: Final = 200
#: Channels that one question is about, each with a pipe: a node answers it whole.
_ASKED: Final = 50


@dataclass(frozen=True)
class Reclaimed:
    """What was done: channels that a close was requested for, and pipes that were destroyed."""

    closing: tuple[str, ...]
    pipes: int


async def reclaim(
    chain: ChainClient, *, close: bool = False, on_closing: Callable[[Channel], object] | None = None
) -> Reclaimed:
    """Destroy the account's pipes that nothing is sent through or credited for any more; their deposits come back.

    Those are of channels that are no longer open, less what a server's pipes may still be credited with while a
    channel closes: the pipe has the count of its frames. With `close` the account's own channels that carry pipes are
    asked to close first, all of them: use it when no connection is open. What they hold comes back when `claim_ms` is
    over and somebody finalizes; `on_closing` hears of each as soon as it was asked. Raises what reading and executing
    raise.
    """
    # Before the channels: what they say is at least as new.
    now_ms = (await chain.service_info()).timestamp_ms or 0
    held: dict[str, list[Pipe]] = {}
    for pipe in await chain.owned(pipe_module.SCHEMA, Pipe, chain.address):
        held.setdefault(pipe.channel, []).append(pipe)
    closing: list[str] = []
    spent: list[Pipe] = []
    there = await _channels(chain, held)
    for id, pipes in held.items():
        if id not in there:
            continue
        found = there[id]
        if found is not None and found.state == ChannelState.OPEN:
            if not close or found.client != chain.address:
                continue
            await chain.execute(_ask_close(found, pipes))
            closing.append(id)
            if on_closing is not None:
                on_closing(found)
        spent += [each for each in pipes if found is None or not _may_be_credited(found, each, now_ms)]
    for at in range(0, len(spent), _AT_ONCE):
        program = Program()
        for pipe in spent[at : at + _AT_ONCE]:
            pipe_module.destroy(program, pipe.id)
        await chain.execute(program)
    return Reclaimed(tuple(closing), len(spent))


async def _channels(chain: ChainClient, held: dict[str, list[Pipe]]) -> dict[str, Channel | None]:
    """Return the channels of these pipes, None for those that were deleted. Those that can't be told of are left out.

    Whoever has a pipe has had its channel; a node that is behind has neither, and says nothing about live ones.
    """
    found: dict[str, Channel | None] = {}
    ids = list(held)
    for at in range(0, len(ids), _ASKED):
        part = ids[at : at + _ASKED]
        there = await chain.objects(each for id in part for each in (held[id][0].id, id))
        for id in part:
            if id in there:
                found[id] = chain.decode(channel_module.SCHEMA, Channel, there[id])
            elif held[id][0].id in there:
                found[id] = None
    return found


def _ask_close(channel: Channel, pipes: list[Pipe]) -> Program:
    """Ask for the close, with what the server bears of our transport noted: the claims behind it pay that."""
    program = Program()
    if is_credited(channel.terms, Direction.TO_SERVER) and evidence(channel) > 0:
        for each in pipes:
            if each.direction == Direction.TO_SERVER and each.metered > each.credited:
                pipe_module.charge_credit(program, each.id, channel.id, coin=channel.coin)
    channel_module.request_close(program, channel.id, coin=channel.coin)
    return program


def _may_be_credited(channel: Channel, pipe: Pipe, now_ms: int) -> bool:
    """Return whether a server may still have money for the frames of its pipe, at the chain's time `now_ms`."""
    if channel.state > ChannelState.CLOSING or pipe.direction != Direction.TO_CLIENT:
        return False
    if not is_credited(channel.terms, Direction.TO_CLIENT) or pipe.metered == pipe.credited:
        return False
    until = channel.claims_until_ms
    return until is None or now_ms < until


def opening(state: HostState, number: int, terms: Terms, to: bytes, pipes: int, link: int) -> Program:
    """Open a channel with the least deposit, and pipes in it, over one of which a link is begun."""
    program, host = Program(), state.host.id
    (money,) = program.split(program.gas, [terms.min_deposit])
    # Nobody has the secret of this lane: a channel of ours only carries frames, and no voucher can be made.
    lane = KeySigner.generate().public_key
    made = channel_module.open(program, host, state.beacon.id, number, terms.revision, money, lane)
    opened: list[Argument] = [pipe_module.open(program, made) for _ in range(pipes)]
    flags = Flags.OPEN | Flags.TO
    frame = encode(Header(link, to=to, pipes=pipes), flags)
    pipe_module.send(program, opened[0], made, host, frame, flags=int(flags))
    for each in opened:
        pipe_module.keep(program, each)
    channel_module.share(program, made)
    return program
