"""`dtp graph account`, `ban`, `purge`, `quota`, `agreement`: who writes in a graph, and who is kept out."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from dtp.cli.account import device_record, load_account, read_card, save_account
from dtp.cli.graph.opening import GraphOpener, file_argument, graph, graph_options
from dtp.cli.options import parse_limits, show_limits
from dtp.cli.output import print_line, print_result
from dtp.identity import PeerId
from dtp.plurals import count_of

if TYPE_CHECKING:
    from dtp.graph import Graph, Quotas


@graph.command("account")
@file_argument
@click.argument("card", required=False, type=click.Path(dir_okay=False))
@click.option(
    "--key", type=click.Path(dir_okay=False), help="The account's key, for what changes its devices."
)
@click.option("--revoke", metavar="PEER", help="Put a device out: what it wrote since isn't taken any more.")
@click.option("--take-over", is_flag=True, help="Tell this graph of the account's new key.")
@click.option("--ignore", metavar="PEER", help="Ignore all that a device has ever written for the account.")
@graph_options
def account_command(
    opened: GraphOpener,
    card: str | None,
    key: str | None,
    revoke: str | None,
    take_over: bool,
    ignore: str | None,
) -> None:
    """Write in FILE for the account of CARD; without CARD, list the accounts in it and their devices.

    \b
    Examples:
      dtp graph account notes.db account.card
      dtp graph account notes.db --key account.pem --revoke dtp1...
      dtp graph account notes.db --key account.pem --take-over
    """
    changes = sum((revoke is not None, take_over, ignore is not None))
    if changes > 1 or (changes and (key is None or card is not None)):
        raise click.UsageError("--revoke, --take-over and --ignore take --key, one at a time, and no CARD")
    loaded = load_account(key) if key is not None else None
    joined = read_card(card) if card is not None else None

    async def work(graph: Graph) -> list[dict[str, Any]]:
        if joined is not None:
            graph.accounts.join(joined)
        if loaded is not None and key is not None:
            if revoke is not None:
                save_account(key, graph.accounts.revoke(loaded, revoke))
            elif take_over:
                graph.accounts.take_over(loaded)
            elif ignore is not None:
                graph.accounts.ignore(loaded, ignore)
        return [
            {"account": one.name, **device_record(str(known.peer), known.label), "named": known.is_named}
            | {"ended": known.ended}
            for one in graph.accounts.cards()
            for known in graph.accounts.devices(one.name)
        ]

    writing = bool(changes) or card is not None
    for one in opened.run_work(work, writing=writing, read_only=not writing):
        state = "" if one["ended"] is None else "  ended"
        print_line(one, f"{one['account']}  {one['peer']}  {one['label']}{state}")


@graph.command()
@file_argument
@click.argument("peer", required=False)
@click.option("--shared", is_flag=True, help="For all who have the graph: you, or your account, own it.")
@click.option("--undo", is_flag=True, help="Take PEER in again.")
@click.option("--follow", metavar="NAME", help="Apply the bans of this identity or account here, too.")
@click.option("--unfollow", metavar="NAME", help="Apply the bans of this identity or account no longer.")
@graph_options
def ban(
    opened: GraphOpener, peer: str | None, shared: bool, undo: bool, follow: str | None, unfollow: str | None
) -> None:
    """Ban PEER: nothing of theirs is accepted, passed on or shown any more. Without PEER, list who is banned.

    \b
    Examples:
      dtp graph ban notes.db dtp1...
      dtp graph ban notes.db dtp1... --undo
    """
    if peer is None and (shared or undo):
        raise click.UsageError("name the PEER")

    async def work(graph: Graph) -> list[dict[str, Any]]:
        admission = graph.admission
        if follow is not None:
            await admission.follow(follow)
        if unfollow is not None:
            await admission.unfollow(unfollow)
        if peer is not None:
            await (admission.unban if undo else admission.ban)(peer, shared=shared)
        return [{"peer": str(one.peer), "here": one.here, "by": list(one.by)} for one in admission.banned()]

    writing = peer is not None or follow is not None or unfollow is not None
    for one in opened.run_work(work, writing=writing, read_only=not writing):
        who = ", ".join((["you"] if one["here"] else []) + one["by"])
        print_line(one, f"{one['peer']}  by {who}")


@graph.command()
@file_argument
@click.argument("peers", nargs=-1, metavar="[PEER]...")
@click.option(
    "--need", type=click.IntRange(min=0), help="How many of them have to agree; 0: the author is enough."
)
@graph_options
def agreement(opened: GraphOpener, peers: tuple[str, ...], need: int | None) -> None:
    """Show who has to agree to a summary of frames before FILE accepts it in place of the frames, or change that.

    Those PEERs agree who have the frames and prune their graphs, once this command was run on their files, too.

    \b
    Examples:
      dtp graph agreement notes.db
      dtp graph agreement notes.db --need 2 dtp1... dtp1... dtp1...
      dtp graph agreement notes.db --need 0
    """
    if bool(peers) != bool(need):
        raise click.UsageError("say how many have to agree (--need), and who")

    async def work(graph: Graph) -> dict[str, Any]:
        if need is not None:
            await graph.admission.set_agreement(need, peers)
        asked = graph.admission.agreement
        of = [] if asked is None else sorted(str(PeerId(one)) for one in asked.of)
        return {"need": 0 if asked is None else asked.need, "of": of}

    found = opened.run_work(work, writing=need is not None, read_only=need is None)
    print_result(found, "\n".join([f"{found['need']} of {len(found['of'])} have to agree", *found["of"]]))


@graph.command()
@file_argument
@click.argument("peer")
@graph_options
def purge(opened: GraphOpener, peer: str) -> None:
    """Delete from FILE, for good, all that the banned PEER has signed. Others keep what they have."""

    async def work(graph: Graph) -> int:
        return await graph.admission.purge(peer)

    size = opened.run_work(work, writing=True)
    print_result({"bytes": size}, f"{count_of(size, 'byte')} of envelopes removed")


@graph.command()
@file_argument
@click.argument("changes", nargs=-1, metavar="[NAME=NUMBER]...")
@click.option("--know", multiple=True, metavar="PEER", help="Take PEER for no stranger; repeatable.")
@graph_options
def quota(opened: GraphOpener, changes: tuple[str, ...], know: tuple[str, ...]) -> None:
    """Show how much is accepted from whom, or change that; NAME=none removes a limit.

    \b
    Examples:
      dtp graph quota notes.db
      dtp graph quota notes.db stranger_bytes=1000000 new_strangers=none
    """
    told: dict[str, Any] = parse_limits(changes)

    async def work(graph: Graph) -> Quotas:
        admission = graph.admission
        if wrong := told.keys() - admission.quotas.to_map().keys():
            raise click.UsageError(f"there is no quota {sorted(wrong)[0]!r}")
        if told:
            await admission.set_quotas(replace(admission.quotas, **told))
        if know:
            await admission.add_known(*know)
        return admission.quotas

    writing = bool(told or know)
    show_limits(opened.run_work(work, writing=writing, read_only=not writing).to_map())
