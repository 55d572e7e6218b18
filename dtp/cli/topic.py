"""`dtp topic`: publish to a topic of the nodes around, and read one."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import signal
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import click

from dtp.cli.durations import duration
from dtp.cli.joining import joining_options
from dtp.cli.options import verbose_option
from dtp.cli.output import json_option, print_line
from dtp.cli.run import run, serve_for_long, when_stdin_ends
from dtp.escaping import escape_text
from dtp.gossip import Message, Topic
from dtp.node.node import Node
from dtp.tasks import start_task

#: Seconds that publishing waits for somebody who has joined the topic. Finding a node on the LAN takes one or two.
_WAIT = 10.0


@click.group()
def topic() -> None:
    """Topics: messages to all nodes around that have one, signed, without a broker."""


@topic.command()
@click.argument("name")
@click.argument("data", nargs=-1)
@click.option("--wait", type=duration(), default=f"{_WAIT:g}s", show_default=True,
              help="How long to wait for somebody who has the topic.")  # fmt: skip
@joining_options
@verbose_option
@json_option
def pub(
    name: str, data: tuple[str, ...], wait: float, make_node: Callable[[], Node], key: str | None
) -> None:
    """Publish DATA, a message each, or each line of standard input.

    \b
    Examples:
      dtp topic pub weather 21.5
      tail -f log | dtp topic pub logs
      dtp topic pub family hello --key-file family.key
    """
    serve_for_long()
    run(_publish(make_node(), name, key, data, wait))


async def _publish(node: Node, name: str, key: str | None, data: tuple[str, ...], wait: float) -> None:
    async with node, node.topic(name, key=key) as joined:
        reading = start_task(_discard(joined), name="dtp-topic-discard")
        try:
            async for each in _messages(data):
                message_id = await joined.publish(each, patience=wait)
                record = {"event": "published", "id": message_id.hex(), "members": len(joined.members)}
                print_line(record, None)
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)


async def _discard(joined: Topic) -> None:
    """Read and drop what others publish, which must not pile up for somebody who only writes."""
    async for _ in joined:
        pass


async def _messages(data: tuple[str, ...]) -> AsyncIterator[bytes]:
    for each in data:
        yield each.encode()
    if not data:
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer
        )
        with contextlib.closing(transport):
            async for line in reader:
                yield line.rstrip(b"\r\n")


@topic.command()
@click.argument("name")
@click.option("-c", "--count", type=click.IntRange(min=1), help="End after this many messages.")
@click.option("--history", type=duration(), default="0s",
              help="Ask others for what they hold of so long.")  # fmt: skip
@click.option("--overflow", type=click.Choice(["wait", "drop-oldest", "raise"]), default="wait",
              show_default=True, help="What happens when messages come faster than they are printed.")  # fmt: skip
@click.option("--until-eof", is_flag=True, help="End when standard input ends.")
@joining_options
@verbose_option
@json_option
def sub(
    name: str,
    count: int | None,
    history: float,
    overflow: Any,
    until_eof: bool,
    make_node: Callable[[], Node],
    key: str | None,
) -> None:
    """Print what others publish: who wrote it, and the message. Ctrl-C ends it.

    \b
    Examples:
      dtp topic sub weather
      dtp topic sub weather --history 60 --json
    """
    serve_for_long()
    run(_read(make_node(), name, count, until_eof, key=key, history=history, overflow=overflow))


async def _read(node: Node, name: str, count: int | None, until_eof: bool, **options: Any) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    if until_eof:
        when_stdin_ends(stop.set)
    async with node, node.topic(name, **options) as joined:
        for address in node.addresses:
            record = {"event": "listening", "address": str(address)}
            print_line(record, f"listening at {address}", err=True)
        reading = start_task(_print(joined, count), name="dtp-topic-print")
        stopping = start_task(stop.wait(), name="dtp-topic-stop")
        try:
            await asyncio.wait({reading, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                reading.result()
        finally:
            for each in (reading, stopping):
                each.cancel()
            await asyncio.gather(reading, stopping, return_exceptions=True)


async def _print(joined: Topic, count: int | None) -> None:
    printed = 0
    async for message in joined:
        _print_message(message)
        printed += 1
        if printed == count:
            return


def _print_message(message: Message) -> None:
    record: dict[str, Any] = {
        "event": "message",
        "id": message.id.hex(),
        "topic": message.topic,
        "author": str(message.author),
        "time": message.time,
    }
    try:
        text = message.data.decode()
        record["data"] = text
    except UnicodeDecodeError:
        text = message.data.decode(errors="backslashreplace")
        record["base64"] = base64.b64encode(message.data).decode()
    print_line(record, f"{message.author}  {escape_text(text)}")
