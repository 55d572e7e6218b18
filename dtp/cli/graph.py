"""`dtp graph`: look into a graph's file, change it, and sync it with others."""

from __future__ import annotations

import asyncio
import base64
import datetime
import functools
import json
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dtp.cli.graph_formats import FORMATS
from dtp.cli.groups import Group
from dtp.cli.listening import Listening, addresses, listening_options, print_identity_note
from dtp.cli.options import (
    IdentitySource,
    address_argument,
    identity_options,
    psk_file_option,
    verbose_option,
)
from dtp.cli.output import json_option, print_line, print_result, printable, wants_json
from dtp.cli.run import run, when_stdin_ends
from dtp.errors import DtpError, LocalError
from dtp.plurals import count_of
from dtp.tasks import start_task

if TYPE_CHECKING:
    from dtp.crdt.types import Node
    from dtp.graph import Exported, Graph, Imported, PrivateNode, Proof
    from dtp.graph.formats.items import Left
    from dtp.graph.resigning import Resigned
    from dtp.net.address import Address
    from dtp.net.connection import Connection

#: Connections may finish for so long when the server is asked to end, seconds.
_GRACE = 2.0
SERVICE = "graph"
#: The format that has all that is stored.
FRAMES = "dtpg"


class NotThere(LocalError):
    """A graph isn't there, or a node or a key has nothing."""

    code = "not-there"


@click.group("graph", cls=Group)
def graph() -> None:
    """Graphs in files: look, change, sync, serve.

    FILE is a graph's file, made by what puts something into it. VALUE is JSON, or else text; {"link": "SOUL"}
    is a link.
    """


def _store(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add FILE, `--graph`, the identity and `--json`; the command is called with `opened`, which opens the graph."""

    @functools.wraps(command)
    def wrapped(*args: Any, file: str, name: str | None, identity: IdentitySource, **options: Any) -> Any:
        return command(*args, opened=_Opener(file, name, identity), **options)

    decorated: Callable[..., Any] = wrapped
    for option in (
        json_option,
        identity_options("--identity", "-i"),
        click.option("--graph", "name", metavar="NAME",
                     help="The graph's name, signed with all that is written. [default: the file's]"),
    ):  # fmt: skip
        decorated = option(decorated)
    return decorated


_file = click.argument("file", type=click.Path(dir_okay=False))
#: What commands of `dtp graph` in other files take (`dtp.cli.graph_people`).
graph_options, file_argument = _store, _file
_format_option = click.option(
    "--format",
    "form",
    type=click.Choice([FRAMES, "json", "csv", "graphml", "rdf"]),
    help="The file's format. [default: by its ending, else dtpg: all that was signed]",
)
_history_option = click.option(
    "--history", is_flag=True, help="Ask for all that ever was, not only for what still counts."
)
_prune_option = click.option(
    "--prune", is_flag=True, help="Drop frames of which nothing counts any more as the file grows."
)


class _Opener:
    """How to open the graph of a command line."""

    def __init__(self, file: str, name: str | None, source: IdentitySource) -> None:
        self.file = file
        self.name = name
        self.source = source

    @asynccontextmanager
    async def open(
        self, *, writing: bool, history: bool = False, read_only: bool = False, prune: bool = False
    ) -> AsyncIterator[Graph]:
        """The graph. To write, the identity must be one that is kept: what it wrote goes on with it."""
        from dtp.graph import Graph

        identity = self.source.load() if writing else self.source.load_or_make()
        async with await Graph.open(
            self.file,
            identity=identity,
            name=self.name,
            history=history,
            read_only=read_only,
            prune=prune,
        ) as opened:
            yield opened

    def look(self, work: Callable[[Graph], Awaitable[Any]]) -> Any:
        """Do work that changes nothing, beside the program that has the graph."""
        return self.run(work, read_only=True)

    def run(
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
            async with self.open(
                writing=writing, history=history, read_only=read_only, prune=prune
            ) as opened:
                try:
                    return await work(opened)
                finally:
                    made.extend(opened.vector())

        try:
            return run(main())
        except DtpError:
            if fresh and not made:  # of a source that is none, say
                Path(self.file).unlink(missing_ok=True)
            raise


# ---- values -------------------------------------------------------------------------------------------------


def _registers(graph: Graph, soul: str) -> Node | PrivateNode:
    """A node's keys and values; those of a private one are sealed and opened."""
    return graph.private(soul) if graph.is_private(soul) else graph.node(soul)


def _value(text: str) -> Any:
    """What VALUE says."""
    from dtp.crdt import GraphValueError, Link
    from dtp.crdt.temporal import NAMES, TemporalError
    from dtp.crdt.temporal_text import read

    try:
        value = json.loads(text)
    except ValueError:
        return text
    if isinstance(value, dict) and len(value) == 1:
        ((name, inner),) = value.items()
        if name == "link" and isinstance(inner, str):
            return Link(inner)
        if name in NAMES and isinstance(inner, str):
            try:
                return read(NAMES[name], inner)
            except TemporalError as error:
                raise GraphValueError(str(error)) from error
    return value


def _plain(value: Any) -> Any:
    """A value as JSON has it."""
    from dtp.crdt import BlobRef, Link
    from dtp.crdt.temporal import as_temporal, name_of

    if isinstance(value, Link):
        return {"link": value.soul}
    if isinstance(value, BlobRef):
        return {"blob": value.id.hex(), "size": value.size}
    if name := name_of(value):
        return {name: str(as_temporal(value))}
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(_plain(value), ensure_ascii=False)


# ---- looking and changing -----------------------------------------------------------------------------------


@graph.command()
@_file
@click.argument("soul")
@click.argument("key")
@click.argument("value")
@_store
def put(opened: _Opener, soul: str, key: str, value: str) -> None:
    """Set a key of a node.

    \b
    Examples:
      dtp graph put notes.db user/alice name Alice
      dtp graph put notes.db user/alice age 33
    """

    async def work(graph: Graph) -> None:
        _registers(graph, soul)[key] = _value(value)

    opened.run(work, writing=True)


@graph.command()
@_file
@click.argument("soul")
@click.argument("key", required=False)
@_store
def get(opened: _Opener, soul: str, key: str | None) -> None:
    """Show what is at SOUL, or at one key of it: registers, and texts, lists, sets, counters and values.

    What is no register is shown with its kind. What is at no key, such as a text that a soul is, has the key "".
    """

    async def work(graph: Graph) -> dict[str, dict[str, Any]]:
        if graph.is_private(soul):
            graph.private(soul)
        return graph.everything(soul)

    found = opened.look(work)
    if not found or (key is not None and key not in found):
        raise NotThere(f"{soul!r} has nothing" + (f" at {key!r}" if found else ""))
    if key is not None:
        lines = [_shown(value) for value in found[key].values()]
        print_result({"value": _plain(_by_kind(found[key]))}, "\n".join(lines))
        return
    lines = [
        f"{name}: {_shown(value)}"
        if kind == "register"
        else f"{name}{' ' * bool(name)}({kind}): {_shown(value)}"
        for name, kinds in sorted(found.items())
        for kind, value in kinds.items()
    ]
    print_result(_plain({name: _by_kind(kinds) for name, kinds in found.items()}), "\n".join(lines))


def _by_kind(kinds: dict[str, Any]) -> Any:
    """A register as it is, all else by its kind."""
    return kinds["register"] if kinds.keys() == {"register"} else kinds


@graph.command()
@_file
@click.argument("soul")
@click.argument("key", required=False)
@_store
def rm(opened: _Opener, soul: str, key: str | None) -> None:
    """Delete a key of a node; without KEY the node, with all that is at SOUL. Links to it stay."""

    async def work(graph: Graph) -> bool:
        if key is None:
            return graph.delete(soul)
        node = _registers(graph, soul)
        if key not in node:
            return False
        del node[key]
        return True

    if not opened.run(work, writing=True):
        raise NotThere(f"{soul!r} has nothing" + ("" if key is None else f" at {key!r}"))


@graph.command()
@_file
@click.argument("prefix", default="")
@click.option(
    "--all", "internal", is_flag=True, help="With the graph's own book-keeping, and parts of documents."
)
@_store
def ls(opened: _Opener, prefix: str, internal: bool) -> None:
    """List the nodes, or those that begin with PREFIX."""

    async def work(graph: Graph) -> list[str]:
        return graph.souls(prefix, internal=internal, parts_too=internal)

    for soul in opened.look(work):
        print_line({"soul": soul}, soul)


@graph.command()
@_file
@click.argument("soul")
@click.argument("key")
@click.argument("target", required=False)
@click.option("--remove", is_flag=True, help="Take the link to TARGET away.")
@_store
def link(opened: _Opener, soul: str, key: str, target: str | None, remove: bool) -> None:
    """Link a node to TARGET by KEY; without TARGET, list what it links to."""

    async def work(graph: Graph) -> list[str]:
        node = graph.node(soul)
        if target is None:
            return node.links(key)
        (node.unlink if remove else node.link)(key, target)
        return []

    for one in opened.run(work, writing=target is not None, read_only=target is None):
        print_line({"soul": one}, one)


@graph.command()
@_file
@click.argument("soul")
@click.argument("key", required=False)
@_store
def log(opened: _Opener, soul: str, key: str | None) -> None:
    """Show every change of a node: when, by whom, what, and what was there before.

    Of an edit of a text it is what was deleted and inserted, and where.
    """

    async def work(graph: Graph) -> list[tuple[Any, list[Any]]]:
        from dtp.graph.history import patches

        versions = await graph.history(soul, key)
        return list(zip(versions, patches(graph, versions), strict=True))

    from dtp.identity import PeerId

    for version, edits in opened.look(work):
        op = version.op
        author = PeerId(op.author)
        when = datetime.datetime.fromtimestamp(version.when, datetime.UTC).isoformat(timespec="milliseconds")
        is_edit = op.kind.name == "TEXT_EDIT"
        record = {
            "when": when,
            "author": str(author),
            "kind": op.kind.name.lower(),
            "key": op.key,
            "value": None if is_edit else _plain(op.value),
            "deleted": op.kind == 0 and not op.has_value,
            "before": _plain(version.before),
        }
        if is_edit:
            record["edits"] = [{"at": at, "deleted": count, "inserted": text} for at, count, text in edits]
            what = "; ".join(_edit(*one) for one in edits)
        else:
            what = _shown(op.value) if op.has_value else "deleted" if op.kind == 0 else ""
        before = f"  (was {_shown(version.before)})" if version.had_value else ""
        print_line(record, f"{when}  {author.short}  {record['kind']}  {op.key}  {what}{before}")


def _edit(at: int, count: int, text: str) -> str:
    """An edit of a text, to people."""
    done = [f"{count_of(count, 'character')} deleted"] if count else []
    done += [json.dumps(text, ensure_ascii=False)] if text else []
    return f"at {at}: {', '.join(done)}"


@graph.command()
@_file
@click.argument("text", metavar="QUERY")
@click.option(
    "--param", "-p", "given", multiple=True, metavar="NAME=VALUE", help="The value of $NAME; repeatable."
)
@click.option("--explain", is_flag=True, help="Show the SQL and its plan instead.")
@click.option(
    "--format",
    "-f",
    "form",
    type=click.Choice(sorted(FORMATS)),
    help="table, json (one array) or csv; tree and svg draw the nodes, relationships and paths in the rows.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0),
    default=10,
    show_default=True,
    help="How long the query may take; 0 for as long as it likes.",
)
@_store
def query(
    opened: _Opener, text: str, given: tuple[str, ...], explain: bool, form: str | None, seconds: float
) -> None:
    """Ask by openCypher: MATCH ... RETURN ...

    \b
    Examples:
      dtp graph query notes.db 'MATCH (u:user)-[:follows]->(f) RETURN u.name, f.name ORDER BY u.name'
      dtp graph query notes.db 'MATCH (a)-[r]->(b) RETURN a, r, b' --format svg > notes.svg
    """
    if wrong := next((one for one in given if "=" not in one), None):
        raise click.UsageError(f"--param is NAME=VALUE, not {wrong!r}")
    parameters = {one.partition("=")[0]: _value(one.partition("=")[2]) for one in given}

    async def work(graph: Graph) -> list[dict[str, Any]] | str:
        graph.query_budget = replace(graph.query_budget, seconds=seconds or None)
        if explain:
            return graph.explain(text, **parameters)
        if form is not None:
            return FORMATS[form](graph, graph.query(text, **parameters), _answer)
        return [
            {name: _answer(value) for name, value in row.items()} for row in graph.query(text, **parameters)
        ]

    found = opened.look(work)
    if isinstance(found, str):
        print_result({"plan" if explain else "text": found}, found)
        return
    if found and not wants_json():
        click.echo("\t".join(found[0]))
    for row in found:
        print_line(row, "\t".join(_shown(value) for value in row.values()))


def _answer(value: Any) -> Any:
    """A value of a row: a node is shown by its soul, a relationship by its three parts, a path by both."""
    from dtp.crdt import Node
    from dtp.graph.query.semantics import Path as Walked

    if isinstance(value, Node):
        return value.soul
    if isinstance(value, Walked):
        return {"nodes": _answer(list(value.nodes)), "relationships": _answer(list(value.relationships))}
    if isinstance(value, list | tuple):
        return [_answer(item) for item in value]
    if isinstance(value, dict):
        return {key: _answer(item) for key, item in value.items()}
    return _plain(value)


@graph.command()
@_file
@click.option("--repair", is_flag=True, help="Write a damaged file anew, without what can't be read of it.")
@_store
def verify(opened: _Opener, repair: bool) -> None:
    """Check all that is stored: signatures, order, encoding; tell who signed two histories, or what rules forbid.

    Ends with 3 if something is damaged, and while what was lost is missing: 'dtp graph sync' with any peer, or
    'dtp graph import', brings it back.
    """

    async def work(graph: Graph) -> tuple[dict[str, Any], list[Proof], list[dict[str, Any]], DtpError | None]:
        from dtp.graph.access import describe

        count, proofs = await graph.verify(repair=repair), await graph.proofs()
        broken = describe(await graph.offences())
        found = {"envelopes": count, "authors": len(graph.vector())}
        wrong = _wrong(graph) if graph.damage or graph.gaps() else None
        return found | {"forks": len(proofs), "offences": len(broken)}, proofs, broken, wrong

    found, proofs, broken, wrong = opened.run(work)
    if wants_json():
        print_result(found | {"offences": broken})
    else:
        print_result(found)
        for proof in proofs:
            click.echo(proof.describe())
        for one in broken:
            click.echo(printable("{author}, envelope {sequence}: {reason} ({kind})".format(**one)))
    if wrong is not None:
        raise wrong


def _wrong(graph: Graph) -> DtpError | None:
    """Return what the user of a graph has to do something about, None if that is nothing."""
    from dtp.graph import StoreError

    lost = graph.damage is not None and (graph.damage.frames or graph.damage.tail)
    damaged = StoreError(str(graph.damage)) if lost else None
    missing = sum(last - first + 1 for _, first, last in graph.gaps())
    gaps = (
        StoreError(f"{count_of(missing, 'frame')} missing from the middle; sync with a peer")
        if missing
        else None
    )
    return graph.own_fork() or damaged or graph.behind or gaps


@graph.command()
@_file
@click.argument("source", type=click.Path(dir_okay=False), required=False)
@click.option("--author", metavar="PEER", help="Whose work to sign again. [default: yours]")
@_store
def recover(opened: _Opener, source: str | None, author: str | None) -> None:
    """Let a copied or restored file go on for your identity; or sign again what is stranded in SOURCE.

    Without SOURCE and --author: only if no other copy has more of what you wrote, or will be written to: two that are
    contradict each other, and others take only one of them. Where a peer has all of it, 'dtp graph sync' is enough.

    SOURCE is the copy that wrote as well, or the file of a device that was put out; what others don't take of it is
    signed again by you. Without SOURCE, --author takes what is void in FILE.

    \b
    Examples:
      dtp graph recover notes.db
      dtp graph recover notes.db copy.db
      dtp graph recover notes.db phone.db --author dtp1...
    """
    if source is not None or author is not None:
        _sign_again(opened, source, author)
        return

    async def work(graph: Graph) -> tuple[bool, str]:
        was = graph.behind is not None
        graph.recover()
        return was, str(graph.identity.id)

    was, whose = opened.run(work, writing=True)
    text = f"{opened.file} goes on for {whose}" if was else "there is nothing to recover"
    print_result({"recovered": was}, text)


def _sign_again(opened: _Opener, source: str | None, author: str | None) -> None:
    async def work(graph: Graph) -> Resigned:
        return await graph.recover_from(source, author)

    done = opened.run(work, writing=True)
    record = {"received": done.received, "signed": done.ops}
    text = f"{count_of(done.received, 'envelope')} received, {count_of(done.ops, 'op')} signed again"
    _tell(text, record, done.left)


@graph.command()
@_file
@_store
def prune(opened: _Opener) -> None:
    """Drop stored frames of which nothing counts any more, and give back their room.

    What was overwritten is in no 'dtp graph log' then. 'dtp graph status' says what it can come to: frames of others
    go once their authors have summed them up, which they do over connections.
    """

    async def work(graph: Graph) -> dict[str, int]:
        done = await graph.prune()
        return {"frames": done.frames, "bytes": done.bytes}

    found = opened.run(work, writing=True)
    print_result(found, f"dropped {count_of(found['frames'], 'frame')}, {count_of(found['bytes'], 'byte')}")


@graph.command()
@_file
@_store
def status(opened: _Opener) -> None:
    """Tell how a graph stands: what is here, what is missing, who signed two histories.

    Ends with 3 if there is something to do: your own identity signed two histories, or the file was copied,
    restored or damaged.
    """

    async def work(graph: Graph) -> tuple[dict[str, Any], list[Proof], DtpError | None]:
        missing = sum(last - first + 1 for _, first, last in graph.gaps())
        found = {"name": graph.name, "authors": len(graph.vector()), "frames": sum(graph.vector().values())}
        forks, room = await graph.proofs(), await graph.prunable()
        found |= {"bytes": room.stored, "prunable": room.overwritten}
        found |= {"missing": missing, "forks": len(forks), "clock_ahead": round(graph.clock_ahead)}
        found |= standing(graph)
        return found | {"damage": graph.damage and str(graph.damage)}, forks, _wrong(graph)

    from dtp.cli.graph_standing import refusals, standing

    found, forks, wrong = opened.look(work)
    if wants_json():
        print_result(found)
    else:
        print_result({name: value for name, value in found.items() if name not in ("damage", "refusals")})
        for line in refusals(found):
            click.echo(printable(line))
        for proof in forks:
            click.echo(proof.describe())
        if found["clock_ahead"]:
            click.echo(
                f"What is written here is dated {found['clock_ahead']} s ahead of this machine's clock, behind the "
                'latest that was seen; others show it when it is due. See docs/graph.md, "Time".'
            )
    if wrong is not None:
        raise wrong


@graph.command()
@_file
@click.argument("peer", required=False)
@click.argument("path", default="")
@click.option("--days", type=click.FloatRange(min=0, min_open=True), help="For so long. [default: for good]")
@click.option("--revoke", is_flag=True, help="Take back what PEER was granted at PATH.")
@_store
def grant(opened: _Opener, peer: str | None, path: str, days: float | None, revoke: bool) -> None:
    """Let PEER write at PATH of your own souls; without PEER, list what you have granted.

    \b
    Examples:
      dtp graph grant notes.db dtp1... board --days 30
      dtp graph grant notes.db dtp1... board --revoke
    """

    async def work(graph: Graph) -> list[Any]:
        from dtp.graph.access import key_of

        if peer is None:
            return graph.grants()
        if not revoke:
            return [graph.grant(peer, path, until=time.time() + days * 86_400 if days else None)]
        found = [one for one in graph.grants() if one.grantee == key_of(peer) and one.path == path]
        if not found:
            raise NotThere(f"you have granted {peer} nothing at {path!r}")
        for one in found:
            graph.revoke(one)
        return found

    from dtp.crdt.clock import seconds
    from dtp.crdt.owners import owned, owner_name

    for one in opened.run(work, writing=peer is not None, read_only=peer is None):
        end = datetime.datetime.fromtimestamp(seconds(one.until), datetime.UTC) if one.until else None
        until = end.isoformat(timespec="seconds") if end else None
        soul = owned(one.owner, one.path)
        record = {"peer": owner_name(one.grantee), "soul": soul, "until": until, "id": one.id}
        print_line(record, f"{record['peer']}  {soul}  {until or 'for good'}")


# ---- files and peers ----------------------------------------------------------------------------------------


@graph.command("export")
@_file
@click.argument("target", type=click.Path(dir_okay=False), required=False)
@click.option("--qr", is_flag=True, help="As QR codes: in the terminal, or into TARGET-1.svg and so on.")
@click.option("--chunks", "as_text", is_flag=True, help="As the texts of such codes, one a line.")
@_format_option
@click.option("--prefix", default="", help="In another format: only nodes that begin with this.")
@_store
def export_graph(
    opened: _Opener, target: str | None, qr: bool, as_text: bool, form: str | None, prefix: str
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
            return await graph.export_chunks()

        _show_chunks(opened.look(split), target, qr=qr)
        return
    if target is None:
        raise click.UsageError("name the file to write, or give --qr or --chunks")
    file = target
    if form != FRAMES:

        async def write(graph: Graph) -> Exported:
            return await graph.export_contents(file, format=form, prefix=prefix)

        done = opened.look(write)
        _tell(f"{count_of(done.items, 'value')} written", {"values": done.items}, done.left)
        return
    if prefix:
        raise click.UsageError("--prefix is for another --format than dtpg, which has all")

    async def work(graph: Graph) -> int:
        return await graph.export(file)

    count = opened.look(work)
    print_result({"envelopes": count}, count_of(count, "envelope"))


def _form(file: str | None, form: str | None, as_codes: bool) -> str:
    """The format that is named, or that a file's ending says."""
    from dtp.graph.graph_formats import FORMATS as KNOWN

    if as_codes and form not in (None, FRAMES):
        raise click.UsageError("codes are of the format dtpg alone")
    ending = "" if as_codes or file is None else Path(file).suffix.lower()
    return form or next((name for name, (endings, *_) in KNOWN.items() if ending in endings), FRAMES)


def _tell(text: str, record: dict[str, Any], left: list[Left]) -> None:
    """Say how much there was, and what was left out."""
    lines = [text, *(f"left out: {one}" for one in left)]
    print_result(record | {"left": [str(one) for one in left]}, "\n".join(map(printable, lines)))


def _show_chunks(chunks: list[str], target: str | None, *, qr: bool) -> None:
    """Chunks as lines or as codes, in the terminal or in files."""
    if not qr:
        lines = "".join(f"{chunk}\n" for chunk in chunks)
        if target is not None:
            Path(target).write_text(lines, encoding="ascii")
        else:
            for chunk in chunks:
                print_line({"chunk": chunk}, chunk)
        return
    from dtp.graph.qr import to_svg, to_terminal

    for number, chunk in enumerate(chunks, 1):
        if target is None:
            shown = to_terminal(chunk)
            print_line({"chunk": chunk}, f"{shown}\n{number} of {len(chunks)}")
        else:
            to_svg(chunk, f"{target}-{number}.svg")
    if target is not None:
        print_result({"codes": len(chunks)}, f"{count_of(len(chunks), 'code')}: {target}-1.svg and on")


@graph.command("import")
@_file
@click.argument("source", type=click.Path(dir_okay=False, allow_dash=True))
@click.option(
    "--chunks", "as_text", is_flag=True, help="SOURCE has the texts of codes, one a line; - reads them here."
)
@_format_option
@_store
def import_graph(opened: _Opener, source: str, as_text: bool, form: str | None) -> None:
    """Take in what 'export' wrote into SOURCE.

    In another format than dtpg the graph says what the file says, at the nodes and keys that it names, as changes of
    your own: all of it or nothing.
    """
    form = _form(source, form, as_text)
    if form != FRAMES:

        async def read(graph: Graph) -> Imported:
            return await graph.import_contents(source, format=form)

        done = opened.run(read, writing=True)
        record = {"values": done.items, "changed": done.changed}
        _tell(f"{count_of(done.items, 'value')} read, {done.changed} changed", record, done.left)
        return

    async def work(graph: Graph) -> int:
        if as_text:
            with click.open_file(source, encoding="ascii", errors="replace") as file:
                return await graph.import_chunks([line for line in file if line.strip()])
        return await graph.import_file(source)

    count = opened.run(work, taking=True)
    print_result({"new": count}, f"{count} new envelopes")


@graph.command()
@_file
@address_argument
@psk_file_option
@_history_option
@verbose_option
@_store
def sync(opened: _Opener, address: Address, psk: bytes | None, history: bool) -> None:
    """Bring FILE and the graph that a peer serves to the same.

    \b
    Example:
      dtp graph sync notes.db dtp+tcp://dtp1...@127.0.0.1:9700/graph
    """
    from dtp.net.dial import connect

    async def work(graph: Graph) -> dict[str, Any]:
        async with connect(address, identity=graph.identity, psk=psk) as connection:
            done = await graph.sync(connection)
        missing = sum(last - first + 1 for _, first, last in graph.gaps())
        size = done.bytes_received + done.bytes_sent
        return {"received": done.received, "sent": done.sent, "bytes": size, "missing": missing}

    record = opened.run(work, taking=True, history=history)
    received, moved = count_of(record["received"], "envelope"), count_of(record["bytes"], "byte")
    text = f"{received} received, {record['sent']} sent, {moved}"
    if record["missing"]:
        text += f"; missing, and not known to this peer: {record['missing']} (sync with another)"
    print_result(record, text)


@graph.command()
@_file
@address_argument
@click.argument("pattern", default="*")
@psk_file_option
@_history_option
@_prune_option
@verbose_option
@_store
def watch(
    opened: _Opener, address: Address, pattern: str, psk: bytes | None, history: bool, prune: bool
) -> None:
    """Keep FILE and a peer's graph the same, and show changes at nodes like PATTERN, until interrupted."""
    from dtp.net.dial import connect

    async def work(graph: Graph) -> None:
        async with connect(address, identity=graph.identity, psk=psk) as connection:
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

    opened.run(work, taking=True, history=history, prune=prune)


@graph.command()
@_file
@click.option("--graph", "name", metavar="NAME", help="The graph's name. [default: the file's]")
@_prune_option
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
    from dtp.net.listener import Refuse, Request
    from dtp.session.codes import CloseCode

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

        async with await listening.listen(handle, check) as listener:
            print_identity_note(listening)
            for address in addresses(listener, SERVICE):
                print_line({"event": "listening", "service": SERVICE, "address": str(address)}, str(address))
            await stop.wait()
            await listener.close(grace=_GRACE)
