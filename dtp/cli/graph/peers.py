"""`dtp graph export`, `import`, `sync`, `watch`, `serve`: a graph in files, and over connections."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dtp.cli.listening import Listening, addresses, listening_options, print_notes
from dtp.cli.options import (
    address_argument,
    psk_file_option,
    verbose_option,
)
from dtp.cli.output import json_option, print_line, print_result, wants_json
from dtp.cli.run import run, when_stdin_ends
from dtp.plurals import count_of
from dtp.tasks import start_task

if TYPE_CHECKING:
    from dtp.graph import Exported, Graph
    from dtp.net.address import Address
    from dtp.net.connection import Connection
from dtp.cli.graph.handing import import_lines, taking_changes
from dtp.cli.graph.opening import (
    FRAMES,
    SERVICE,
    GraphOpener,
    file_argument,
    format_option,
    graph,
    graph_options,
    history_option,
    prune_option,
)
from dtp.cli.graph.values import print_done
from dtp.net.dial import connect
from dtp.net.listener import Refuse, Request
from dtp.session.codes import CloseCode

#: Connections may finish for so long when the server is asked to end, seconds.
_GRACE = 2.0


@graph.command("export")
@file_argument
@click.argument("target", type=click.Path(dir_okay=False), required=False)
@click.option("--qr", is_flag=True, help="As QR codes: in the terminal, or into TARGET-1.svg and so on.")
@click.option("--chunks", "as_text", is_flag=True, help="As the texts of such codes, one a line.")
@format_option
@click.option("--prefix", default="", help="In another format: only nodes that begin with this.")
@graph_options
def export_graph(
    opened: GraphOpener, target: str | None, qr: bool, as_text: bool, form: str | None, prefix: str
) -> None:
    """Write all that is stored into one file, TARGET, or show it as codes.

    In another format than dtpg it is what the graph says now, for other programs: without signatures and history.

    \b
    Examples:
      dtp graph export notes.db notes.dtpg
      dtp graph export notes.db notes.graphml --prefix user/
      dtp graph export notes.db --qr
    """
    if qr and as_text:
        raise click.UsageError("--qr and --chunks don't go together")
    form = _form(target, form, qr or as_text)
    if qr or as_text:

        async def split(graph: Graph) -> list[str]:
            return await graph.files.export_chunks()

        _show_chunks(opened.run_read_only(split), target, qr=qr)
        return
    if target is None:
        raise click.UsageError("name the file to write, or give --qr or --chunks")
    file = target
    if form != FRAMES:

        async def write(graph: Graph) -> Exported:
            return await graph.files.export_contents(file, format=form, prefix=prefix)

        done = opened.run_read_only(write)
        print_done(f"{count_of(done.items, 'value')} written", {"values": done.items}, done.left)
        return
    if prefix:
        raise click.UsageError("--prefix is for another --format than dtpg, which has all")

    async def work(graph: Graph) -> int:
        return await graph.files.export(file)

    count = opened.run_read_only(work)
    print_result({"envelopes": count}, count_of(count, "envelope"))


def _form(file: str | None, form: str | None, as_codes: bool) -> str:
    """Return the format that is named, or that a file's ending says."""
    from dtp.graph.formats.contents import FORMATS as KNOWN

    if as_codes and form not in (None, FRAMES):
        raise click.UsageError("codes are of the format dtpg alone")
    ending = "" if as_codes or file is None else Path(file).suffix.lower()
    return form or next((name for name, (endings, *_) in KNOWN.items() if ending in endings), FRAMES)


def _show_chunks(chunks: list[str], target: str | None, *, qr: bool) -> None:
    """Show chunks as lines or as codes, in the terminal or in files."""
    if not qr:
        lines = "".join(f"{chunk}\n" for chunk in chunks)
        if target is not None:
            Path(target).write_text(lines, encoding="ascii")
        else:
            for chunk in chunks:
                print_line({"chunk": chunk}, chunk)
        return
    from dtp.graph.formats.qr import to_svg, to_terminal

    for number, chunk in enumerate(chunks, 1):
        if target is None:
            shown = to_terminal(chunk)
            print_line({"chunk": chunk}, f"{shown}\n{number} of {len(chunks)}")
        else:
            to_svg(chunk, f"{target}-{number}.svg")
    if target is not None:
        print_result({"codes": len(chunks)}, f"{count_of(len(chunks), 'code')}: {target}-1.svg and on")


@graph.command("import")
@file_argument
@click.argument("source", type=click.Path(dir_okay=False, allow_dash=True))
@click.option(
    "--chunks", "as_text", is_flag=True, help="SOURCE has the texts of codes, one a line; - reads them here."
)
@format_option
@graph_options
def import_graph(opened: GraphOpener, source: str, as_text: bool, form: str | None) -> None:
    """Take in what 'export' wrote into SOURCE.

    In another format than dtpg the graph says what the file says, at the nodes and keys that it names, as changes of
    your own: all of it or nothing.
    """
    form = _form(source, form, as_text)
    place = str(Path(source).absolute())  # the program that has the graph may be in another folder
    if form != FRAMES:
        done = opened.run_change("import-contents", source=place, form=form)
        left = done.pop("left")
        print_done(f"{count_of(done['values'], 'value')} read, {done['changed']} changed", done, left)
        return

    from dtp.cli.graph.standing import waiting_frames

    if as_text and source == "-":  # what comes here can't be read by the program that has the graph

        async def read(graph: Graph) -> dict[str, Any]:
            return await import_lines(graph, click.open_file(source, encoding="ascii", errors="replace"))

        found = opened.run_work(read, taking=True)
    else:
        found = opened.run_change("import-chunks" if as_text else "import-frames", source=place)
    print_result(found, "\n".join([f"{found['new']} new envelopes", *waiting_frames(found)]))


@graph.command()
@file_argument
@address_argument
@psk_file_option
@history_option
@verbose_option
@graph_options
def sync(opened: GraphOpener, address: Address, psk: bytes | None, history: bool) -> None:
    """Bring FILE and the graph that a peer serves to the same.

    \b
    Example:
      dtp graph sync notes.db dtp+tcp://dtp1...@127.0.0.1:9700/graph
    """

    async def work(graph: Graph) -> dict[str, Any]:
        async with connect(address, identity=graph.identity, psk=psk) as connection:
            done = await graph.sync(connection)
        missing = sum(last - first + 1 for _, first, last in graph.frames.gaps())
        size = done.bytes_received + done.bytes_sent
        return {"received": done.received, "sent": done.sent, "bytes": size, "missing": missing}

    record = opened.run_work(work, taking=True, history=history)
    received, moved = count_of(record["received"], "envelope"), count_of(record["bytes"], "byte")
    text = f"{received} received, {record['sent']} sent, {moved}"
    if record["missing"]:
        text += f"; missing, and not known to this peer: {record['missing']} (sync with another)"
    print_result(record, text)


@graph.command()
@file_argument
@address_argument
@click.argument("pattern", default="*")
@psk_file_option
@history_option
@prune_option
@verbose_option
@graph_options
def watch(
    opened: GraphOpener, address: Address, pattern: str, psk: bytes | None, history: bool, prune: bool
) -> None:
    """Keep FILE and a peer's graph the same, and show changes at nodes like PATTERN, until interrupted."""

    async def work(graph: Graph) -> None:
        async with (
            connect(address, identity=graph.identity, psk=psk) as connection,
            taking_changes(graph, opened.file),
        ):
            changes = graph.watch(pattern)
            replicating = start_task(graph.replicate(connection), name="dtp-replicate")
            replicating.add_done_callback(lambda _: changes.close())
            print_line({"event": "watching", "pattern": pattern}, None)
            if not wants_json():
                click.echo(
                    f"watching {pattern!r} in {opened.file}, the same as {address}; Ctrl-C ends it", err=True
                )
            async for change in changes:
                what = f"{change.soul}  {change.key}  {change.space}"
                print_line(
                    {"event": "change", "soul": change.soul, "key": change.key, "space": change.space}, what
                )
            await replicating

    opened.run_work(work, taking=True, history=history, prune=prune)


@graph.command()
@file_argument
@click.option("--graph", "name", metavar="NAME", help="The graph's name. [default: the file's]")
@prune_option
@listening_options
@verbose_option
@json_option
def serve(file: str, name: str | None, prune: bool, listening: Listening) -> None:
    """Serve FILE to peers who sync or watch, and print the addresses to copy. Ctrl-C ends it.

    Who may connect may read all of it and add to it: name them with --allow.
    """
    run(_serve(file, name, listening, prune=prune))


async def _serve(file: str, name: str | None, listening: Listening, *, prune: bool) -> None:
    from dtp.graph import Graph

    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    if listening.until_eof:
        when_stdin_ends(stop.set)

    def check(request: Request) -> None:
        if request.service not in ("", SERVICE):
            raise Refuse(CloseCode.UNKNOWN_SERVICE, f"no service {request.service!r} here")

    async with await Graph.open(file, identity=listening.identity, name=name, prune=prune) as opened:

        async def handle(connection: Connection) -> None:
            await opened.serve(connection)

        async with await listening.listen(handle, check) as listener, taking_changes(opened, file):
            print_notes(listening)
            for address in addresses(listener, SERVICE):
                print_line({"event": "listening", "service": SERVICE, "address": str(address)}, str(address))
            await stop.wait()
            await listener.close(grace=_GRACE)
