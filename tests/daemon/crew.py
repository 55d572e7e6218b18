"""Workers that are the test: no process is forked, and what a worker would answer is given."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from socket import socket
from typing import Any, cast

from dtp.daemon.config.model import Config
from dtp.daemon.workers.channel import NotDone, WorkerChannel


class Channel:
    """In the place of the channel to a worker: what it was asked, and whether it answers."""

    def __init__(self, lost: Callable[[], None]) -> None:
        self.closed = False
        #: It never answers what changes it.
        self.hangs = False
        #: It is too busy to say how it stands.
        self.is_silent = False
        #: It can't do what this file says.
        self.refuses: Config | None = None
        #: How it stands, as it says itself.
        self.figures: dict[str, Any] = {}
        self.asked: list[tuple[str, object]] = []
        self.given: list[tuple[object, list[int]]] = []
        self._lost = lost

    async def send_request(self, do: str, descriptors: Sequence[int] = (), **fields: Any) -> Any:
        """Answer at once, or never."""
        if do == "status":
            if self.is_silent:
                await asyncio.Event().wait()
            return {**self.figures, **({"callers": ["somebody"]} if fields["callers"] else {})}
        self.asked.append((do, fields.get("config")))
        self.given.append((fields.get("places"), list(descriptors)))
        if self.refuses is not None and fields.get("config") == self.refuses:
            raise NotDone("not this one")
        if self.hangs:
            await asyncio.Event().wait()
        return None

    def send_message(self, do: str, descriptors: Sequence[int] = (), **fields: Any) -> None:
        """Die when told to end."""
        if do == "end":
            self.die()

    def die(self) -> None:
        """End as a process does that was killed."""
        if not self.closed:
            self.closed = True
            self._lost()

    def close(self) -> None:
        """Say nothing more."""
        self.closed = True


class Crew:
    """Spawns such workers; `channels` are those to them, in the order in which they began."""

    def __init__(self) -> None:
        self.channels: list[Channel] = []
        self.killed: list[int] = []
        self.spawned: list[float] = []
        self.fails = False
        #: Those that are spawned from now on hang.
        self.hangs = False

    def spawn_worker(self, number: int) -> tuple[socket, int]:
        """Return no socket: `make_channel` needs none."""
        self.spawned.append(asyncio.get_running_loop().time())
        if self.fails:
            raise OSError("no process")
        return cast("socket", None), 7

    def kill_worker(self, pid: int) -> None:
        """Note who is killed."""
        self.killed.append(pid)

    def close(self) -> None:
        """Have nothing open."""

    def make_channel(
        self, sock: socket, commands: Mapping[str, object], lost: Callable[[], None]
    ) -> WorkerChannel:
        """Return a channel to the worker that was spawned last."""
        channel = Channel(lost)
        channel.hangs = self.hangs
        self.channels.append(channel)
        return cast(WorkerChannel, channel)
