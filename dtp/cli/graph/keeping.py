"""`dtp graph verify`, `recover`, `prune`, `status`, `grant`: how a graph's file is, and who may write."""

from __future__ import annotations

import base64
import binascii
import datetime
import time
from typing import TYPE_CHECKING, Any

import click

from dtp.cli.durations import duration
from dtp.cli.output import print_line, print_note, print_result, printable, wants_json
from dtp.errors import DtpError
from dtp.plurals import count_of

if TYPE_CHECKING:
    from dtp.graph import Graph, Proof
    from dtp.graph.past.resigning import Resigned
from dtp.cli.graph.opening import GraphOpener, NotThere, file_argument, graph, graph_options
from dtp.cli.graph.values import print_done

#: What `status` says in lines of their own.
_IN_LINES = ("damage", "refusals", "waiting", "due", "ahead")


@graph.command()
@file_argument
@click.option("--repair", is_flag=True, help="Write a damaged file anew, without what can't be read of it.")
@graph_options
def verify(opened: GraphOpener, repair: bool) -> None:
    """Check everything that is stored: signatures, order and encoding. Report who signed two histories, and what
    rules forbid.

    Ends with 3 if something is damaged, or was lost and is still missing: 'dtp graph sync' with any peer, or 'dtp
    graph import', brings it back.
    """

    async def work(graph: Graph) -> tuple[dict[str, Any], list[Proof], list[dict[str, Any]], DtpError | None]:
        from dtp.graph.permission.access import describe

        count, proofs = await graph.verify(repair=repair), await graph.frames.proofs()
        broken = describe(await graph.access.offences())
        found = {"envelopes": count, "authors": len(graph.frames.vector())}
        wrong = _wrong(graph) if graph.damage or graph.frames.gaps() else None
        return found | {"forks": len(proofs), "offences": len(broken)}, proofs, broken, wrong

    found, proofs, broken, wrong = opened.run_work(work)
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
    missing = sum(last - first + 1 for _, first, last in graph.frames.gaps())
    gaps = (
        StoreError(f"{count_of(missing, 'frame')} missing from the middle; sync with a peer")
        if missing
        else None
    )
    return graph.own_fork() or damaged or graph.behind or gaps


@graph.command()
@file_argument
@click.argument("source", type=click.Path(dir_okay=False), required=False)
@click.option("--author", metavar="PEER", help="Whose work to sign again. [default: yours]")
@graph_options
def recover(opened: GraphOpener, source: str | None, author: str | None) -> None:
    """Allow your identity to write to a copied or restored file again; or sign again what is stranded in SOURCE.

    Without SOURCE and --author: do this only if no other copy has more of what you wrote, and none will be written
    to. Two such copies contradict each other, and others accept only one. If a peer has all of it, 'dtp graph sync'
    is enough.

    SOURCE is the copy that was written to as well, or the file of a device that was removed; what others don't accept
    of it is signed again by you. Without SOURCE, --author does so with void changes in FILE.

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
        await graph.recover()
        return was, str(graph.identity.id)

    was, whose = opened.run_work(work, writing=True)
    text = f"{opened.file} goes on for {whose}" if was else "there is nothing to recover"
    print_result({"recovered": was}, text)


def _sign_again(opened: GraphOpener, source: str | None, author: str | None) -> None:
    async def work(graph: Graph) -> Resigned:
        done = await graph.recover_from(source, author)
        if (fork := graph.own_fork()) is not None:
            print_note({"note": str(fork)}, str(fork))
        return done

    done = opened.run_work(work, writing=True)
    record = {"received": done.received, "signed": done.ops}
    text = f"{count_of(done.received, 'envelope')} received, {count_of(done.ops, 'op')} signed again"
    print_done(text, record, done.left)


@graph.command()
@file_argument
@graph_options
def prune(opened: GraphOpener) -> None:
    """Delete stored frames of which nothing counts any more, and free their space.

    'dtp graph log' doesn't show overwritten values after that. 'dtp graph status' says how much can be freed: frames
    of others are deleted once their authors have summed them up, which happens over connections.
    """

    found = opened.run_change("prune")
    print_result(found, f"dropped {count_of(found['frames'], 'frame')}, {count_of(found['bytes'], 'byte')}")


@graph.command()
@file_argument
@graph_options
def status(opened: GraphOpener) -> None:
    """Show the state of a graph: what is here, what is missing, who signed two histories.

    Ends with 3 if there is something to do: your own identity signed two histories, or the file was copied,
    restored or damaged.
    """

    async def work(graph: Graph) -> tuple[dict[str, Any], list[Proof], DtpError | None]:
        missing = sum(last - first + 1 for _, first, last in graph.frames.gaps())
        found = {
            "name": graph.name,
            "authors": len(graph.frames.vector()),
            "frames": sum(graph.frames.vector().values()),
        }
        forks, room = await graph.frames.proofs(), await graph.upkeep.prunable()
        found |= {"bytes": room.stored, "prunable": room.overwritten}
        found |= {"missing": missing, "forks": len(forks), "clock_ahead": round(graph.clock_ahead)}
        found |= waiting(graph) | standing(graph)
        return found | {"damage": graph.damage and str(graph.damage)}, forks, _wrong(graph)

    from dtp.cli.graph.standing import refusals, standing, waiting, waiting_frames

    found, forks, wrong = opened.run_read_only(work)
    if wants_json():
        print_result(found)
    else:
        print_result({name: value for name, value in found.items() if name not in _IN_LINES})
        for line in (*refusals(found), *waiting_frames(found)):
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
@file_argument
@click.argument("peer", required=False)
@click.argument("path", default="")
@click.option("--days", type=duration(0.0001, unit="d"), help="How long the grant holds. [default: for good]")
@click.option("--revoke", is_flag=True, help="Take back what PEER was granted at PATH.")
@click.option("--use", "handed", metavar="GRANT", help="Use a grant that was handed over as text.")
@graph_options
def grant(
    opened: GraphOpener, peer: str | None, path: str, days: float | None, revoke: bool, handed: str | None
) -> None:
    """Allow PEER to write at PATH of your own souls; without PEER, list your grants.

    PEER is an identity (dtp1...), or an account (dtpa1...), of which each device may write then. The grant comes to
    PEER with the graph; with --json it is also printed as text, to be handed over if your clock was ahead.

    \b
    Examples:
      dtp graph grant notes.db dtp1... board --days 30
      dtp graph grant notes.db dtp1... board --revoke
      dtp graph grant notes.db --use GRANT
    """
    if handed is not None and (peer is not None or revoke or days):
        raise click.UsageError("--use takes a grant alone: it says itself whom it is for, and where")

    async def work(graph: Graph) -> list[Any]:
        from dtp.graph.permission.access import grantee_of

        if handed is not None:
            return [graph.access.use(_decoded(handed))]
        if peer is None:
            return graph.access.grants()
        if not revoke:
            return [graph.access.grant(peer, path, until=time.time() + days * 86_400 if days else None)]
        asked = *grantee_of(peer), path
        found = [one for one in graph.access.grants() if (one.grantee, one.to_account, one.path) == asked]
        if not found:
            raise NotThere(f"you have granted {peer} nothing at {path!r}")
        for one in found:
            graph.access.revoke(one)
        return found

    from dtp.crdt.clock import clock_seconds
    from dtp.crdt.permission.owners import owned_soul

    changes = peer is not None or handed is not None

    for one in opened.run_work(work, writing=changes, read_only=not changes):
        end = datetime.datetime.fromtimestamp(clock_seconds(one.until), datetime.UTC) if one.until else None
        until = end.isoformat(timespec="seconds") if end else None
        soul = owned_soul(one.owner, one.path)
        text = base64.urlsafe_b64encode(one.encode()).decode()
        record = {"peer": one.grantee_name, "soul": soul, "until": until, "id": one.id, "grant": text}
        print_line(record, f"{record['peer']}  {soul}  {until or 'for good'}")


def _decoded(text: str) -> bytes:
    """Return the grant in what `dtp graph grant --json` tells."""
    from dtp.graph import GraphError

    try:
        return base64.b64decode(text, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise GraphError(f"no grant: {error}; 'dtp graph grant FILE PEER PATH --json' tells one") from error
