"""`dtp graph share`: a graph that is shared in a topic, with all who share it there."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

import click

from dtp.cli.graph.handing import taking_changes
from dtp.cli.graph.opening import file_argument, graph
from dtp.cli.joining import joining_options
from dtp.cli.options import verbose_option
from dtp.cli.output import json_option, print_line
from dtp.cli.run import run, when_stdin_ends
from dtp.node.node import Node


@graph.command()
@file_argument
@click.option("--topic", required=True, metavar="NAME", help="The topic that others share it in.")
@click.option("--key", "key_text", metavar="TEXT", envvar="DTP_TOPIC_KEY", show_envvar=True,
              help="The topic's key as text, which others here may see; rather use --key-file.")  # fmt: skip
@click.option("--graph", "name", metavar="NAME", help="The graph's name. [default: the file's]")
@click.option("--until-eof", is_flag=True, help="End when standard input ends.")
@joining_options
@verbose_option
@json_option
def share(
    file: str,
    topic: str,
    key_text: str | None,
    name: str | None,
    until_eof: bool,
    make_node: Callable[[], Node],
    key: str | None,
) -> None:
    """Share FILE with all who share a graph of its name in a topic, and print where this node is. Ctrl-C ends it.

    While it runs, 'dtp graph put', 'rm', 'link', 'import' and 'prune' hand it what they change.

    \b
    Example:
      dtp graph share notes.db --topic team-notes --key-file team.key
    """
    if key is not None and key_text is not None:
        raise click.UsageError(
            "the topic's key comes from --key-file or from --key ($DTP_TOPIC_KEY), not from both"
        )
    run(_share(make_node(), file, name, topic, key or key_text, until_eof=until_eof))


async def _share(
    node: Node, file: str, name: str | None, topic: str, key: str | None, *, until_eof: bool
) -> None:
    from dtp.graph import Graph

    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    if until_eof:
        when_stdin_ends(stop.set)
    async with (
        node,
        await Graph.open(file, identity=node.identity, name=name) as opened,
        node.share(opened, topic=topic, key=key),
        taking_changes(opened, file),
    ):
        address = str(node.address)
        print_line({"event": "sharing", "graph": opened.name, "topic": topic, "address": address}, address)
        await stop.wait()
