"""Changes of a graph's file that another program has: `put`, `rm`, `link`, `import` and `prune` hand them to that
program, which makes and signs them. It listens at a Unix socket beside the file, which its user alone can open.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

from dtp.cli.graph.standing import waiting
from dtp.cli.graph.values import read_value, registers_of
from dtp.errors import CarrierError, LocalError

if TYPE_CHECKING:
    from dtp.graph import Graph
    from dtp.identity import Identity

log = logging.getLogger("dtp.graph")


class AnotherIdentity(LocalError):
    """The program that has a graph writes as another identity than the one that a change is to be signed by."""

    code: ClassVar[str] = "another-identity"


async def _put(graph: Graph, soul: str, key: str, value: str) -> bool:
    registers_of(graph, soul)[key] = read_value(value)
    return True


async def _delete(graph: Graph, soul: str, key: str | None) -> bool:
    if key is None:
        return graph.delete(soul)
    node = registers_of(graph, soul)
    if key not in node:
        return False
    del node[key]
    return True


async def _link(graph: Graph, soul: str, key: str, target: str) -> bool:
    graph.node(soul).link(key, target)
    return True


async def _unlink(graph: Graph, soul: str, key: str, target: str) -> bool:
    graph.node(soul).unlink(key, target)
    return True


async def _import_contents(graph: Graph, source: str, form: str) -> dict[str, Any]:
    done = await graph.files.import_contents(source, format=form)
    return {"values": done.items, "changed": done.changed, "left": list(map(str, done.left))}


async def _import_frames(graph: Graph, source: str) -> dict[str, Any]:
    count = await graph.files.import_file(source)
    return {"new": count, **waiting(graph)}


async def _import_chunks(graph: Graph, source: str) -> dict[str, Any]:
    from dtp.graph import StoreError

    try:
        text = await asyncio.to_thread(Path(source).read_text, encoding="ascii", errors="replace")
    except OSError as error:
        raise StoreError(f"{source} could not be read: {error.strerror}") from error
    return await import_lines(graph, text.splitlines())


async def import_lines(graph: Graph, lines: Iterable[str]) -> dict[str, Any]:
    """Take in the texts of codes, one a line; return what the command says of it."""
    count = await graph.files.import_chunks([line for line in lines if line.strip()])
    return {"new": count, **waiting(graph)}


async def _prune(graph: Graph) -> dict[str, Any]:
    done = await graph.upkeep.prune()
    return {"frames": done.frames, "bytes": done.bytes}


#: What is done, by name: each returns what the command says of it, as JSON has it; of small ones that is whether
#: there was something to change.
CHANGES: Final[Mapping[str, Callable[..., Awaitable[Any]]]] = {
    "put": _put,
    "rm": _delete,
    "link": _link,
    "unlink": _unlink,
    "import-contents": _import_contents,
    "import-frames": _import_frames,
    "import-chunks": _import_chunks,
    "prune": _prune,
}
#: Those of them that take what is signed already, so that it doesn't matter whose identity the program has.
TAKING: Final = frozenset(("import-frames", "import-chunks"))


async def change(graph: Graph, do: str, arguments: Mapping[str, Any]) -> Any:
    """Make a change of `CHANGES`; return what the command says of it."""
    return await CHANGES[do](graph, **arguments)


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
        is_author = do in TAKING or author == str(graph.identity.id)
        if not is_author or name not in (None, graph.name):
            raise AnotherIdentity(
                f"the program that has {file} writes as {graph.identity.id} to the graph {graph.name!r}: give the "
                "same identity and name, or end that program first"
            )
        done = await change(graph, do, request["arguments"])
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
    file: str, identity: Identity | None, name: str | None, do: str, arguments: Mapping[str, Any]
) -> Any:
    """Have the program that has a graph's file make a change; return what the command says of it. An `identity` is
    needed but for those in `TAKING`.

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
    author = None if identity is None else str(identity.id)
    answer = await ask(path, do, identity=author, graph=name, arguments=dict(arguments))
    return answer["done"]
