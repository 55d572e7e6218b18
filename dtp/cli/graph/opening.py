"""The group of `dtp graph`, and what its commands have in common: the file, its options, opening it."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dtp.cli.groups import CommandGroup
from dtp.cli.options import (
    IdentitySource,
    identity_options,
)
from dtp.cli.output import json_option
from dtp.cli.run import run
from dtp.errors import DtpError, LocalError
from dtp.identity import Identity

if TYPE_CHECKING:
    from dtp.graph import Graph


SERVICE = "graph"
#: The format that has all that is stored.
FRAMES = "dtpg"


class NotThere(LocalError):
    """A graph isn't there, or a node or a key has nothing."""

    code = "not-there"


@click.group("graph", cls=CommandGroup)
def graph() -> None:
    """Graphs in files: look, change, sync, serve.

    FILE is a graph's file, made by what puts something into it. VALUE is JSON, or else text; {"link": "SOUL"}
    is a link.
    """


def graph_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add FILE, `--graph`, the identity and `--json`; the command is called with `opened`, which opens the graph."""

    @functools.wraps(command)
    def wrapped(*args: Any, file: str, name: str | None, identity: IdentitySource, **options: Any) -> Any:
        return command(*args, opened=GraphOpener(file, name, identity), **options)

    decorated: Callable[..., Any] = wrapped
    for option in (
        json_option,
        identity_options("--identity", "-i"),
        click.option("--graph", "name", metavar="NAME",
                     help="The graph's name, signed with all that is written. [default: the file's]"),
    ):  # fmt: skip
        decorated = option(decorated)
    return decorated


file_argument = click.argument("file", type=click.Path(dir_okay=False))
format_option = click.option(
    "--format",
    "form",
    type=click.Choice([FRAMES, "json", "csv", "graphml", "rdf"]),
    help="The file's format. [default: by its ending, else dtpg: all that was signed]",
)
history_option = click.option(
    "--history", is_flag=True, help="Ask for all that ever was, not only for what still counts."
)
prune_option = click.option(
    "--prune", is_flag=True, help="Drop frames of which nothing counts any more as the file grows."
)


class GraphOpener:
    """How to open the graph of a command line."""

    def __init__(self, file: str, name: str | None, source: IdentitySource) -> None:
        self.file = file
        self.name = name
        self.source = source

    @asynccontextmanager
    async def open_graph(
        self, *, writing: bool, history: bool = False, read_only: bool = False, prune: bool = False
    ) -> AsyncIterator[Graph]:
        """Open the graph. To write, the identity must be one that is kept: what it wrote goes on with it."""
        from dtp.graph import Graph

        identity = self._writer if writing else self.source.load_or_make()
        async with await Graph.open(
            self.file,
            identity=identity,
            name=self.name,
            history=history,
            read_only=read_only,
            prune=prune,
        ) as opened:
            yield opened

    def run_change(self, do: str, **arguments: Any) -> Any:
        """Make a change of `dtp.cli.graph.handing.CHANGES`, here or in the program that has the file; return what the
        command says of it."""
        from dtp.cli.graph.handing import TAKING, change, hand_over
        from dtp.graph import GraphInUse

        async def work(graph: Graph) -> Any:
            return await change(graph, do, arguments)

        taking = do in TAKING
        try:
            return self.run_work(work, writing=not taking, taking=taking)
        except GraphInUse as fault:
            from dtp.daemon.process.control import NotRunning

            writer = None if taking else self._writer
            try:
                return run(hand_over(self.file, writer, self.name, do, arguments))
            except NotRunning as nobody:
                raise GraphInUse(
                    f"another program has {self.file}, and takes no changes from commands, as 'dtp graph share', "
                    f"'serve' and 'watch' do: end it, or change the graph in it ({nobody})"
                ) from fault

    @functools.cached_property
    def _writer(self) -> Identity:
        """The identity that writes; a passphrase is asked for once."""
        return self.source.load_identity()

    def run_read_only(self, work: Callable[[Graph], Awaitable[Any]]) -> Any:
        """Do work that changes nothing, beside the program that has the graph."""
        return self.run_work(work, read_only=True)

    def run_work(
        self,
        work: Callable[[Graph], Awaitable[Any]],
        *,
        writing: bool = False,
        taking: bool = False,
        history: bool = False,
        read_only: bool = False,
        prune: bool = False,
    ) -> Any:
        """Open the graph, do the work, close it. Its file is made by work that writes or takes what others wrote."""
        is_file = "://" not in self.file and self.file != "memory:"
        if is_file and not (writing or taking or Path(self.file).exists()):
            raise NotThere(f"there is no graph {self.file!r}; 'dtp graph put', 'import' and 'sync' make one")

        fresh = is_file and not Path(self.file).exists()
        made: list[bytes] = []

        async def main() -> Any:
            async with self.open_graph(
                writing=writing, history=history, read_only=read_only, prune=prune
            ) as opened:
                try:
                    return await work(opened)
                finally:
                    made.extend(opened.frames.vector())

        from dtp.graph import GraphInUse

        try:
            return run(main())
        except GraphInUse as fault:
            raise GraphInUse(
                f"another program has {self.file}, such as 'dtp graph share', 'serve' or 'watch': end it and do this "
                "again. Meanwhile 'get', 'ls', 'log', 'query' and 'export' read the file, and 'put', 'rm', 'link', "
                "'import' and 'prune' hand what they change to such a command"
            ) from fault
        except DtpError:
            if fresh and not made:  # where the source is none of the formats, say
                Path(self.file).unlink(missing_ok=True)
            raise
