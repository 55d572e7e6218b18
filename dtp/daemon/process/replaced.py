"""Peers that come back to a process which an upgrade has replaced: their carriers go to where their connections are.

The new process has the sockets, so a carrier that is to resume a connection of an old one comes to it. It asks those
that still finish something whose connection that is, and gives the carrier away, as workers do among each other
(`dtp.daemon.workers.handover`). What is said is numbers, text and bytes, so that another version understands it.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from dtp.daemon.workers.channel import ChannelLost, NotDone, WorkerChannel

#: Set for a process that takes over: descriptors over which it reaches those before it.
REPLACED = "DTPD_REPLACED"
#: Seconds within which one answers whether a connection is its own; it is behind the same kernel.
_PATIENCE = 2.0


class Holder(Protocol):
    """Has connections: a daemon of one process or of several."""

    async def has_connection(self, connection_id: bytes) -> bool:
        """Return whether it is here, open or waiting to be resumed."""

    def take_carrier(self, fields: Mapping[str, Any], descriptors: list[int]) -> None:
        """Take a carrier of a connection that is here. The descriptors are this one's now."""

    async def ban(self, caller: str, until: float) -> None:
        """Keep a caller out until then, Unix time, and end its connections. Raises `StateError`."""


class ReplacedProcesses:
    """Those before this process that may still have connections. They are numbered from -1 down: workers have the
    other numbers."""

    def __init__(self, patience: float = _PATIENCE) -> None:
        """`patience`: seconds within which one has to answer."""
        self._patience = patience
        self._channels: dict[int, WorkerChannel] = {}

    def reach(self, descriptors: Sequence[int]) -> None:
        """Know those at the other ends of these sockets, until they end."""
        for number, descriptor in enumerate(descriptors, 1):
            os.set_inheritable(descriptor, False)
            sock = socket.socket(fileno=descriptor)
            self._channels[-number] = WorkerChannel(sock, {}, partial(self._forget_process, -number))

    def _forget_process(self, number: int) -> None:
        del self._channels[number]

    def introduce(self) -> list[socket.socket]:
        """Return a new socket to each, for the process that takes the place of this one."""
        found = []
        for channel in self._channels.values():
            mine, theirs = socket.socketpair()
            with theirs:
                channel.send_message("meet", [theirs.fileno()])
            found.append(mine)
        return found

    async def find_owner(self, connection_id: bytes) -> int | None:
        """Return the number of the process that has this connection; None if there is none, or it doesn't answer."""
        known = list(self._channels.items())
        answers = await asyncio.gather(
            *(self._ask_process(each, "has", connection=connection_id) for _, each in known)
        )
        return next(
            (number for (number, _), answer in zip(known, answers, strict=True) if answer is True), None
        )

    async def ban(self, caller: str, until: float) -> None:
        """Have a caller kept out there as well, whose streams may be open there yet."""
        known = list(self._channels.values())
        await asyncio.gather(*(self._ask_process(each, "ban", caller=caller, until=until) for each in known))

    def give_carrier(self, owner: int, descriptors: Sequence[int], fields: Mapping[str, Any]) -> None:
        """Send a carrier there; the descriptors stay the caller's. One that has ended meanwhile takes nothing."""
        if (channel := self._channels.get(owner)) is not None:
            channel.send_message("carrier", descriptors, **fields)

    def note_opened(self, connection_id: bytes) -> None:
        """Do nothing: those that were replaced need not know."""

    note_closed = note_opened

    async def _ask_process(self, channel: WorkerChannel, do: str, **fields: Any) -> object:
        """Return the answer; None where there is none in time, or it can't be done."""
        try:
            async with asyncio.timeout(self._patience):
                return await channel.send_request(do, **fields)
        except (ChannelLost, NotDone, TimeoutError):
            return None

    def close(self) -> None:
        """Reach nobody any more. Idempotent."""
        for channel in self._channels.values():
            channel.close()
        self._channels.clear()


class Successors:
    """The processes that took the place of this one, each at a socket of its own: they ask, and send carriers."""

    def __init__(self, holder: Holder) -> None:
        self._holder = holder
        self._channels: set[WorkerChannel] = set()

    def meet(self, sock: socket.socket) -> None:
        """Answer whoever is at the other end of `sock`, which is this one's now."""
        channel = WorkerChannel(
            sock,
            {
                "has": lambda fields, _: self._holder.has_connection(fields["connection"]),
                "carrier": self._holder.take_carrier,
                "ban": lambda fields, _: self._holder.ban(fields["caller"], fields["until"]),
                "meet": lambda _, descriptors: self.meet(socket.socket(fileno=descriptors[0])),
            },
            lambda: self._channels.discard(channel),
        )
        self._channels.add(channel)

    def close(self) -> None:
        """Answer nobody any more. Idempotent."""
        for channel in self._channels:
            channel.close()
        self._channels.clear()


def inherited_sockets() -> list[int]:
    """Return the descriptors over which processes before this one are reached; each is given once."""
    told = os.environ.pop(REPLACED, "")
    return [int(one) for one in told.split()] if told.replace(" ", "").isdecimal() else []
