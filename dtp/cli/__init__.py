"""The `dtp` command. Each subcommand is a row of `COMMANDS` and is imported only when it runs."""

from __future__ import annotations

import importlib
import os
import platform
import sys
from dataclasses import dataclass

import click

import dtp
from dtp.cli import output
from dtp.cli.groups import RootGroup
from dtp.identity.private import keep_out_of_core_dumps


@dataclass(frozen=True)
class CommandRow:
    """A row of `COMMANDS`: where the command is (`module:attribute`), and its line in `dtp --help`."""

    target: str
    summary: str


COMMANDS = {
    "account": CommandRow("dtp.cli.account:account", "Your account: the devices that write for you."),
    "call": CommandRow("dtp.cli.calls:call", "Call people: audio and video, end to end."),
    "card": CommandRow("dtp.cli.cards:card", "Your account on the chain: devices, mailboxes, wallets."),
    "cat": CommandRow("dtp.cli.cat:cat", "Connect standard input and output to a service."),
    "chain": CommandRow("dtp.cli.chain:chain", "Look at a Sui network: objects, events, the node."),
    "channel": CommandRow("dtp.cli.channel:channel", "Payment channels: list, history, claim, close, watch."),
    "chat": CommandRow("dtp.cli.chat.command:chat", "Conversations of people and groups, in the terminal."),
    "demo": CommandRow("dtp.cli.demo:demo", "Move a file between two processes, and check it."),
    "dht": CommandRow("dtp.cli.dht:dht", "Public facts among peers: put, get, provide, find."),
    "find": CommandRow("dtp.cli.peers:find", "Look for a peer on this network."),
    "graph": CommandRow("dtp.cli.graph.commands:graph", "Graphs in files: look, change, sync, serve."),
    "group": CommandRow("dtp.cli.message_groups:group", "Groups of people who write to each other."),
    "host": CommandRow("dtp.cli.hosts:host", "A host on chain: its services, prices, lists and heartbeats."),
    "id": CommandRow("dtp.cli.keys:show_id", "Show your identity, and the Sui account it is."),
    "keygen": CommandRow("dtp.cli.keys:keygen", "Make an identity, or take one over from a file."),
    "localnet": CommandRow("dtp.cli.localnet:localnet", "Run a Sui-compatible network here, with a faucet."),
    "login": CommandRow("dtp.cli.login:login", "Names and passwords: serve, register, open, change."),
    "mailbox": CommandRow("dtp.cli.mailbox:mailbox", "A mailbox: sealed messages for those who are away."),
    "message": CommandRow("dtp.cli.messages:message", "Messages to people, sealed end to end."),
    "move": CommandRow("dtp.cli.move:move", "Compile, check, show and publish the Move packages."),
    "node": CommandRow("dtp.cli.node:node", "A node: found on the LAN, linked to others, serving by name."),
    "pass": CommandRow("dtp.cli.pass_:pass_group", "Subscriptions: plans, buying periods, giving them back."),
    "peers": CommandRow("dtp.cli.peers:peers", "List who is on this network."),
    "ping": CommandRow("dtp.cli.ping:ping", "Measure round trips to a peer."),
    "post": CommandRow(
        "dtp.cli.posts:post", "Send sealed messages to a host through the chain, and answer them."
    ),
    "recv": CommandRow("dtp.cli.transfer:recv", "Receive a file, or fetch one that a peer serves."),
    "send": CommandRow("dtp.cli.transfer:send", "Send a file to a peer that waits for it."),
    "serve": CommandRow("dtp.cli.serve:serve", "Serve an echo, files, programs or other sockets."),
    "show": CommandRow("dtp.cli.shows:show", "Live shows: broadcast, listen, play."),
    "tip": CommandRow("dtp.cli.tip:tip", "Tips that nobody can trace: lines, words, rewards."),
    "topic": CommandRow("dtp.cli.topic:topic", "Topics of the nodes around: publish, read."),
    "wallet": CommandRow("dtp.cli.wallet:wallet", "Accounts on Sui: what they have, and sending it."),
}


class DtpCommands(RootGroup):
    """The subcommands of `COMMANDS`."""

    program = "dtp"
    exit_codes = output.EXIT_CODES

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return names, sorted; nothing is imported."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and give the command of this name, None if there is none."""
        row = COMMANDS.get(cmd_name)
        if row is None:
            return None
        module, _, attribute = row.target.partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands out of the table: click's own way would import them all."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name].summary) for name in self.list_commands(ctx)])


def _version(ctx: click.Context, param: click.Parameter, wanted: bool) -> None:
    if wanted:
        click.echo(f"dtp {dtp.__version__} (Python {platform.python_version()}, {platform.system()})")
        ctx.exit()


@click.group(
    cls=DtpCommands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version."
)
def main() -> None:
    """Sockets addressed by identity, encrypted end to end.

    An address looks like dtp+tcp://dtp1...@host:port/service, or dtp://NAME/service for a peer that your
    peers.toml knows.
    """
    keep_out_of_core_dumps()
    _open_missing_files()


def _open_missing_files() -> None:
    """Open /dev/null for each of standard input, output and error that was closed (`<&-`).

    Python has None in their place, and the next file or socket to be opened would get their numbers.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_RDWR)
            if descriptor != number:
                os.dup2(descriptor, number)
                os.close(descriptor)
            os.set_inheritable(number, True)
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115  # for as long as the process lives
