"""`dtp chat`: conversations of people and groups, in the terminal."""

from __future__ import annotations

from typing import Any

import click

from dtp.cli.messenger import messenger_options, open_messenger
from dtp.cli.run import run
from dtp.errors import LocalError


class NoTerminalProgram(LocalError):
    """The package that draws in the terminal isn't installed."""

    code = "no-textual"


@click.command()
@click.option("--no-receipts", is_flag=True, help="Don't tell others that you have read what they wrote.")
@messenger_options
def chat(no_receipts: bool, **who: Any) -> None:
    """Write to people and groups, in the terminal. Begin with 'dtp message card' and 'dtp message add'.

    Ctrl-N and Ctrl-P change the room, /help lists what can be written besides text, Ctrl-Q ends it.
    """
    try:
        from dtp.cli.chat.app import ChatApp
    except ImportError as error:
        raise NoTerminalProgram("dtp chat needs textual: pip install 'dtp-sockets[chat]'") from error

    async def main() -> None:
        async with open_messenger(**who, read_receipts=not no_receipts) as messenger:
            await ChatApp(messenger).run_async()

    run(main())
