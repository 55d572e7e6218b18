"""`dtp chat`: conversations of people and groups, in the terminal."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import click

from dtp.cli.messenger import messenger_options, node_option, open_messenger
from dtp.cli.run import run
from dtp.errors import LocalError
from dtp.messaging.calls.media import MediaEnd


class NoTerminalProgram(LocalError):
    """The package that draws in the terminal isn't installed."""

    code = "no-textual"


@click.command()
@click.option("--no-receipts", is_flag=True, help="Don't tell others that you have read what they wrote.")
@click.option("--camera", metavar="DEVICE", help="In calls, send what this camera sees: /dev/video0.")
@click.option("--microphone", metavar="DEVICE", help="In calls, send what this microphone hears: default.")
@click.option("--record", type=click.Path(file_okay=False, exists=True, path_type=Path), metavar="FOLDER",
              help="Keep what comes in calls, each in a file of this folder. [default: nothing is kept]")  # fmt: skip
@node_option
@messenger_options
def chat(
    no_receipts: bool, camera: str | None, microphone: str | None, record: Path | None, **who: Any
) -> None:
    """Write to people and groups, in the terminal. Begin with 'dtp message card' and 'dtp message add'.

    Ctrl-N and Ctrl-P change the room, /help lists what can be written besides text, Ctrl-Q ends it.
    """
    try:
        from dtp.cli.chat.app import ChatApp
    except ImportError as error:
        raise NoTerminalProgram("dtp chat needs textual: pip install 'dtp-sockets[chat]'") from error

    def make_media(file: str | None) -> MediaEnd:
        kept = None if record is None else record / f"call-{datetime.now():%Y%m%d-%H%M%S}.mkv"
        if file is not None:
            return MediaEnd(file=file, record=kept)
        return MediaEnd(camera=camera, microphone=microphone, record=kept)

    async def main() -> None:
        async with open_messenger(**who, read_receipts=not no_receipts) as messenger:
            await ChatApp(messenger, make_media).run_async()

    run(main())
