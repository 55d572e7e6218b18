"""`dtp graph put`, `get`, `rm`, `ls`, `link`, `log`, `query`: look into a graph, and change it."""

from __future__ import annotations

import datetime
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from dtp.cli.durations import duration
from dtp.cli.graph.tables import FORMATS
from dtp.cli.output import print_line, print_result, wants_json
from dtp.plurals import count_of

if TYPE_CHECKING:
    from dtp.graph import Graph
from dtp.cli.graph.opening import GraphOpener, NotThere, file_argument, graph, graph_options
from dtp.cli.graph.values import plain_value, read_value, shown_value
from dtp.identity import PeerId


@graph.command()
@file_argument
@click.argument("soul")
@click.argument("key")
@click.argument("value")
@graph_options
def put(opened: GraphOpener, soul: str, key: str, value: str) -> None:
    """Set a key of a node.

    \b
    Examples:
      dtp graph put notes.db user/alice name Alice
      dtp graph put notes.db user/alice age 33
    """

    opened.run_change("put", soul=soul, key=key, value=value)


@graph.command()
@file_argument
@click.argument("soul")
@click.argument("key", required=False)
@graph_options
def get(opened: GraphOpener, soul: str, key: str | None) -> None:
    """Show what is at SOUL, or at one key of it: registers, and texts, lists, sets, counters and values.

    What is not a register is shown with its kind. What is at no key, such as a text that a soul is, has the key "".
    """

    async def work(graph: Graph) -> dict[str, dict[str, Any]]:
        if graph.is_private(soul):
            graph.private(soul)
        return graph.everything(soul)

    found = opened.run_read_only(work)
    if not found or (key is not None and key not in found):
        raise NotThere(f"{soul!r} has nothing" + (f" at {key!r}" if found else ""))
    if key is not None:
        lines = [shown_value(value) for value in found[key].values()]
        print_result({"value": plain_value(_by_kind(found[key]))}, "\n".join(lines))
        return
    lines = [
        f"{name}: {shown_value(value)}"
        if kind == "register"
        else f"{name}{' ' * bool(name)}({kind}): {shown_value(value)}"
        for name, kinds in sorted(found.items())
        for kind, value in kinds.items()
    ]
    print_result(plain_value({name: _by_kind(kinds) for name, kinds in found.items()}), "\n".join(lines))


def _by_kind(kinds: dict[str, Any]) -> Any:
    """Return a register as it is, all else by its kind."""
    return kinds["register"] if kinds.keys() == {"register"} else kinds


@graph.command()
@file_argument
@click.argument("soul")
@click.argument("key", required=False)
@graph_options
def rm(opened: GraphOpener, soul: str, key: str | None) -> None:
    """Delete a key of a node; without KEY the whole node, with all that is at SOUL. Links to it stay."""

    if not opened.run_change("rm", soul=soul, key=key):
        raise NotThere(f"{soul!r} has nothing" + ("" if key is None else f" at {key!r}"))


@graph.command()
@file_argument
@click.argument("prefix", default="")
@click.option(
    "--all", "internal", is_flag=True, help="With the graph's own book-keeping, and parts of documents."
)
@graph_options
def ls(opened: GraphOpener, prefix: str, internal: bool) -> None:
    """List the nodes, or those that begin with PREFIX."""

    async def work(graph: Graph) -> list[str]:
        return graph.souls(prefix, internal=internal, parts_too=internal)

    for soul in opened.run_read_only(work):
        print_line({"soul": soul}, soul)


@graph.command()
@file_argument
@click.argument("soul")
@click.argument("key")
@click.argument("target", required=False)
@click.option("--remove", is_flag=True, help="Take the link to TARGET away.")
@graph_options
def link(opened: GraphOpener, soul: str, key: str, target: str | None, remove: bool) -> None:
    """Link a node to TARGET by KEY; without TARGET, list what it links to."""

    if target is not None:
        opened.run_change("unlink" if remove else "link", soul=soul, key=key, target=target)
        return

    async def work(graph: Graph) -> list[str]:
        return graph.node(soul).links(key)

    for one in opened.run_read_only(work):
        print_line({"soul": one}, one)


@graph.command()
@file_argument
@click.argument("soul")
@click.argument("key", required=False)
@graph_options
def log(opened: GraphOpener, soul: str, key: str | None) -> None:
    """Show every change of a node: when, by whom, what, and what was there before.

    For an edit of a text or a list it shows what was deleted and inserted, and where; for marks, how they changed.
    """

    async def work(graph: Graph) -> list[tuple[Any, list[Any]]]:
        from dtp.graph.past.history import edits

        versions = await graph.history.versions(soul, key)
        return list(zip(versions, edits(graph, versions), strict=True))

    for version, changes in opened.run_read_only(work):
        op = version.op
        author = PeerId(op.author)
        when = datetime.datetime.fromtimestamp(version.when, datetime.UTC).isoformat(timespec="milliseconds")
        is_edit = op.kind.name in ("TEXT_EDIT", "LIST_EDIT")
        record = {
            "when": when,
            "author": str(author),
            "kind": op.kind.name.lower(),
            "key": op.key,
            "value": None if is_edit else plain_value(op.value),
            "deleted": op.kind == 0 and not op.has_value,
            "before": plain_value(version.before),
        }
        if is_edit:
            record["edits"] = [_edit_record(*patch) for change in changes for patch in change.patches]
            if formats := [one for change in changes for one in change.formats]:
                record["formats"] = [_format_record(*one) for one in formats]
            what = "; ".join(
                [_edit(*patch) for change in changes for patch in change.patches]
                + [_format(*one) for one in formats]
            )
        else:
            what = shown_value(op.value) if op.has_value else "deleted" if op.kind == 0 else ""
        before = f"  (was {shown_value(version.before)})" if version.had_value else ""
        print_line(record, f"{when}  {author.short}  {record['kind']}  {op.key}  {what}{before}")


def _edit_record(at: int, count: int, inserted: str | list[Any]) -> dict[str, Any]:
    """Return an edit of a text or a list, to programs."""
    new = inserted if isinstance(inserted, str) else [plain_value(one) for one in inserted]
    return {"at": at, "deleted": count, "inserted": new}


def _edit(at: int, count: int, inserted: str | list[Any]) -> str:
    """Return an edit of a text or a list, to people."""
    kind = "character" if isinstance(inserted, str) else "element"
    done = [f"{count_of(count, kind)} deleted"] if count else []
    done += [json.dumps(_edit_record(at, 0, inserted)["inserted"], ensure_ascii=False)] if inserted else []
    return f"at {at}: {', '.join(done)}"


def _format_record(at: int, length: int, attributes: dict[str, Any]) -> dict[str, Any]:
    """Return a change of marks, to programs."""
    shown = {name: None if value is None else plain_value(value) for name, value in attributes.items()}
    return {"at": at, "length": length, "attributes": shown}


def _format(at: int, length: int, attributes: dict[str, Any]) -> str:
    """Return a change of marks, to people."""
    shown = _format_record(at, length, attributes)["attributes"]
    done = [
        f"{json.dumps(name)} {json.dumps(value) if value is not None else 'gone'}"
        for name, value in shown.items()
    ]
    return f"{at} to {at + length}: {', '.join(done)}"


@graph.command()
@file_argument
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
    type=duration(),
    default="10s",
    show_default=True,
    help="How long the query may take; 0 is without a limit.",
)
@graph_options
def query(
    opened: GraphOpener, text: str, given: tuple[str, ...], explain: bool, form: str | None, seconds: float
) -> None:
    """Run an openCypher query: MATCH ... RETURN ...

    \b
    Examples:
      dtp graph query notes.db 'MATCH (u:user)-[:follows]->(f) RETURN u.name, f.name ORDER BY u.name'
      dtp graph query notes.db 'MATCH (a)-[r]->(b) RETURN a, r, b' --format svg > notes.svg
    """
    if wrong := next((one for one in given if "=" not in one), None):
        raise click.UsageError(f"--param is NAME=VALUE, not {wrong!r}")
    parameters = {one.partition("=")[0]: read_value(one.partition("=")[2]) for one in given}

    async def work(graph: Graph) -> list[dict[str, Any]] | str:
        graph.query_budget = replace(graph.query_budget, seconds=seconds or None)
        if explain:
            return graph.explain(text, **parameters)
        if form is not None:
            return FORMATS[form](graph, graph.query(text, **parameters), _answer)
        return [
            {name: _answer(value) for name, value in row.items()} for row in graph.query(text, **parameters)
        ]

    found = opened.run_read_only(work)
    if isinstance(found, str):
        print_result({"plan" if explain else "text": found}, found)
        return
    if found and not wants_json():
        click.echo("\t".join(found[0]))
    for row in found:
        print_line(row, "\t".join(shown_value(value) for value in row.values()))


def _answer(value: Any) -> Any:
    """Return a value of a row: a node is shown by its soul, a relationship by its three parts, a path by both."""
    from dtp.crdt import Node
    from dtp.graph.query.values.semantics import Path as Walked

    if isinstance(value, Node):
        return value.soul
    if isinstance(value, Walked):
        return {"nodes": _answer(list(value.nodes)), "relationships": _answer(list(value.relationships))}
    if isinstance(value, list | tuple):
        return [_answer(item) for item in value]
    if isinstance(value, dict):
        return {key: _answer(item) for key, item in value.items()}
    return plain_value(value)
