"""Tidying up after pipes: channels that dials have opened, and the storage deposits of pipes.

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
from dtp.chain.channel import Channel, State
from dtp.chain.client import ChainClient
from dtp.chain.commands import Program
from dtp.chain.pipe import Pipe

__all__ = ["Reclaimed", "reclaim"]

#: Pipes that one transaction destroys.
_AT_ONCE: Final = 200


@dataclass(frozen=True)
class Reclaimed:
    """What was done: channels that a close was requested for, and pipes that were destroyed."""

    closing: tuple[str, ...]
    pipes: int


async def reclaim(
    chain: ChainClient, *, close: bool = False, on_closing: Callable[[Channel], object] | None = None
) -> Reclaimed:
    """Destroy the account's pipes of channels that are no longer open; their storage deposits come back.

    With `close` the account's own channels that carry pipes are asked to close first, all of them: use it when no
    connection is open. What they hold comes back when `claim_ms` is over and somebody finalizes; `on_closing` hears
    of each as soon as it was asked. Raises what reading and executing raise.
    """
    held: dict[str, list[Pipe]] = {}
    for pipe in await chain.owned(pipe_module.SCHEMA, Pipe, chain.address):
        held.setdefault(pipe.channel, []).append(pipe)
    closing: list[str] = []
    spent: list[Pipe] = []
    there = await chain.objects(held)
    for id, pipes in held.items():
        # One that isn't there was deleted by its client.
        found = chain.decode(channel_module.SCHEMA, Channel, there[id]) if id in there else None
        if found is not None and found.state == State.OPEN:
            if not close or found.client != chain.address:
                continue
            program = Program()
            channel_module.request_close(program, id, coin=found.coin)
            await chain.execute(program)
            closing.append(id)
            if on_closing is not None:
                on_closing(found)
        spent += pipes
    for at in range(0, len(spent), _AT_ONCE):
        program = Program()
        for pipe in spent[at : at + _AT_ONCE]:
            pipe_module.destroy(program, pipe.id)
        await chain.execute(program)
    return Reclaimed(tuple(closing), len(spent))
