"""Peers that return to a process that was replaced in an upgrade: their carriers are passed to where their
connections are.

The new process has the sockets, so a carrier that should resume a connection of an old process arrives there. The
new one asks those that are still finishing whose connection it is, and passes the carrier on, as workers do among
themselves (`dtp.daemon.workers.handover`). Messages consist of numbers, text and bytes, so that other versions
understand them.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from dtp.daemon.workers.channel import ChannelLost, NotDone, WorkerChannel

#: Set for a successor: descriptors over which it reaches previous processes.
REPLACED = "DTPD_REPLACED"
#: Seconds for a process to answer whether it has a connection. It runs on the same machine.
_PATIENCE = 2.0


class Holder(Protocol):
    """Has connections: a daemon of one process or of several."""

    async def has_connection(self, connection_id: bytes) -> bool:
        """Return True if the connection is here, open or waiting to be resumed."""

    def take_carrier(self, fields: Mapping[str, Any], descriptors: list[int]) -> None:
        """Take a carrier of a connection that is here. The descriptors are owned by the holder now."""

    async def ban(self, caller: str, until: float) -> None:
        """Ban a caller until then (Unix time), and end its connections. Raise `StateError`."""


class ReplacedProcesses:
    """Previous processes that may still have connections. They are numbered from -1 downwards, since workers have
    the other numbers."""

    def __init__(self, patience: float = _PATIENCE) -> None:
        """`patience` is the seconds that a process has to answer."""
        self._patience = patience
        self._channels: dict[int, WorkerChannel] = {}

    def reach(self, descriptors: Sequence[int]) -> None:
        """Connect to the processes at the other ends of these sockets, until they end."""
        for number, descriptor in enumerate(descriptors, 1):
            os.set_inheritable(descriptor, False)
            sock = socket.socket(fileno=descriptor)
            self._channels[-number] = WorkerChannel(sock, {}, partial(self._forget_process, -number))

    def _forget_process(self, number: int) -> None:
        del self._channels[number]

    def introduce(self) -> list[socket.socket]:
        """Return a new socket to each process, for the successor of this one."""
        found = []
        for channel in self._channels.values():
            mine, theirs = socket.socketpair()
            with theirs:
                channel.send_message("meet", [theirs.fileno()])
            found.append(mine)
        return found

    async def find_owner(self, connection_id: bytes) -> int | None:
        """Return the number of the process that has this connection; None if none has it, or it doesn't answer."""
        known = list(self._channels.items())
        answers = await asyncio.gather(
            *(self._ask_process(each, "has", connection=connection_id) for _, each in known)
        )
        return next(
            (number for (number, _), answer in zip(known, answers, strict=True) if answer is True), None
        )

    async def ban(self, caller: str, until: float) -> None:
        """Ban a caller there as well, since it may still have streams there."""
        known = list(self._channels.values())
        await asyncio.gather(*(self._ask_process(each, "ban", caller=caller, until=until) for each in known))

    def give_carrier(self, owner: int, descriptors: Sequence[int], fields: Mapping[str, Any]) -> None:
        """Send a carrier to a process; the descriptors stay the caller's. A process that has ended takes
        nothing."""
        if (channel := self._channels.get(owner)) is not None:
            channel.send_message("carrier", descriptors, **fields)

    def note_opened(self, connection_id: bytes) -> None:
        """Do nothing: replaced processes need not know."""

    note_closed = note_opened

    async def _ask_process(self, channel: WorkerChannel, do: str, **fields: Any) -> object:
        """Return the answer; None if there is none in time, or it failed."""
        try:
            async with asyncio.timeout(self._patience):
                return await channel.send_request(do, **fields)
        except (ChannelLost, NotDone, TimeoutError):
            return None

    def close(self) -> None:
        """Disconnect from all. Idempotent."""
        for channel in self._channels.values():
            channel.close()
        self._channels.clear()


class Successors:
    """The successors of this process, each at its own socket: they ask about connections, and send carriers."""

    def __init__(self, holder: Holder) -> None:
        self._holder = holder
        self._channels: set[WorkerChannel] = set()

    def meet(self, sock: socket.socket) -> None:
        """Answer the process at the other end of `sock`, which is owned by this object now."""
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
        """Stop answering. Idempotent."""
        for channel in self._channels:
            channel.close()
        self._channels.clear()


def inherited_sockets() -> list[int]:
    """Return the descriptors over which previous processes are reached. Each is returned once."""
    told = os.environ.pop(REPLACED, "")
    return [int(one) for one in told.split()] if told.replace(" ", "").isdecimal() else []
