"""Changes of a graph's file that another program has: `put`, `rm` and `link` hand them to that program, which makes
and signs them. It listens at a Unix socket beside the file, which its user alone can open.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

from dtp.cli.graph.values import read_value, registers_of
from dtp.errors import CarrierError, LocalError

if TYPE_CHECKING:
    from dtp.graph import Graph
    from dtp.identity import Identity

log = logging.getLogger("dtp.graph")


class AnotherIdentity(LocalError):
    """The program that has a graph writes as another identity than the one that a change is to be signed by."""

    code: ClassVar[str] = "another-identity"


def _put(graph: Graph, soul: str, key: str, value: str) -> bool:
    registers_of(graph, soul)[key] = read_value(value)
    return True


def _delete(graph: Graph, soul: str, key: str | None) -> bool:
    if key is None:
        return graph.delete(soul)
    node = registers_of(graph, soul)
    if key not in node:
        return False
    del node[key]
    return True


def _link(graph: Graph, soul: str, key: str, target: str) -> bool:
    graph.node(soul).link(key, target)
    return True


def _unlink(graph: Graph, soul: str, key: str, target: str) -> bool:
    graph.node(soul).unlink(key, target)
    return True


#: What is done, by name: each returns whether there was something to change.
CHANGES: Final[Mapping[str, Callable[..., bool]]] = {
    "put": _put,
    "rm": _delete,
    "link": _link,
    "unlink": _unlink,
}


def change(graph: Graph, do: str, arguments: Mapping[str, Any]) -> bool:
    """Make a change of `CHANGES`; return whether there was something to change."""
    return CHANGES[do](graph, **arguments)


def socket_path(file: str) -> Path:
    """Return where the program that has a graph's file takes changes."""
    return Path(f"{os.path.realpath(file)}-socket")


@contextlib.asynccontextmanager
async def taking_changes(graph: Graph, file: str) -> AsyncIterator[None]:
    """Take changes for a graph's file, by whoever may open the socket beside it, within the block. Where there can be
    no such socket, that is logged, and such changes are refused."""
    from dtp.daemon.process.control import Control

    if "://" in file or file == "memory:":
        yield
        return

    async def carry_out(request: Mapping[str, Any]) -> Mapping[str, Any]:
        do, author, name = str(request["do"]), request.get("identity"), request.get("graph")
        if author != str(graph.identity.id) or name not in (None, graph.name):
            raise AnotherIdentity(
                f"the program that has {file} writes as {graph.identity.id} to the graph {graph.name!r}: give the "
                "same identity and name, or end that program first"
            )
        done = change(graph, do, request["arguments"])
        await graph.commit()
        return {"done": done}

    control = Control(socket_path(file), dict.fromkeys(CHANGES, carry_out))
    try:
        await control.start()
    except CarrierError as fault:
        log.warning("'dtp graph put' can't hand anything over to this program: %s", fault)
        yield
        return
    try:
        yield
    finally:
        await control.close()


async def hand_over(
    file: str, identity: Identity, name: str | None, do: str, arguments: Mapping[str, Any]
) -> bool:
    """Have the program that has a graph's file make a change; return whether there was something to change.

    Raise `NotRunning` where no program takes any there, and `CommandFailed` for what that program refuses.
    """
    from dtp.daemon.process.control import NotRunning, ask

    path = socket_path(file)
    try:
        owner = os.lstat(path).st_uid
    except OSError as fault:
        raise NotRunning(f"no program takes changes at {path}") from fault
    if owner not in (0, os.getuid()):  # what is written is not for others
        raise NotRunning(f"{path} belongs to user {owner}")
    answer = await ask(path, do, identity=str(identity.id), graph=name, arguments=dict(arguments))
    return bool(answer["done"])
