"""What `dtp send --words` and `dtp recv CODE` do before the file goes: meeting on the LAN or at a relay."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from dtp.cli.listening import addresses, listen_at
from dtp.cli.output import print_line
from dtp.cli.progress import ProgressMeter, size_text
from dtp.errors import CarrierError, DtpError, PeerError
from dtp.files import Sent, serve_file
from dtp.files.names import open_regular
from dtp.files.words import WORDS_SERVICE, CodeBurnt, WordCode, WordSender, ask_by_words
from dtp.identity import Identity
from dtp.net.address import Address
from dtp.net.connection import Connection
from dtp.net.dial import connect
from dtp.net.resolver import NotResolved
from dtp.peers.nearby import NearbyResolver, answering

#: Random bytes in the name of the file's service: only who has the words is told it.
_NAME_SIZE: Final = 10


async def send_by_words(file: Path, urls: Sequence[str]) -> None:
    """Print a code, and serve the file to whoever has it, until it is there. Raise `CodeBurnt` after a wrong
    guess."""
    os.close(open_regular(file))
    code = WordCode.make()
    sent: asyncio.Future[Sent] = asyncio.get_running_loop().create_future()
    name = f"words-{base64.b32encode(os.urandom(_NAME_SIZE)).decode().lower()}"

    async def serve(connection: Connection) -> None:
        while not sent.done():
            stream = await connection.accept_stream()
            with (
                ProgressMeter("sending") as meter,
                contextlib.suppress(DtpError),
            ):  # it comes again, and goes on there
                async with meter.watch_carriers(connection):
                    done = await serve_file(stream, file, progress=meter)
                meter.finish()
                if not sent.done():
                    sent.set_result(done)

    async with await listen_at(urls, {name: serve}, identity=Identity.generate()) as listener:
        sender = WordSender(code, addresses(listener, name))
        meeting = {WORDS_SERVICE: sender.serve_connection}
        async with (
            await listen_at(urls, meeting, identity=code.meeting) as meet,
            answering(code.meeting, meet.urls),
        ):
            print_line({"event": "code", "code": str(code)}, str(code))
            right = await sender.used
            if not right:
                raise CodeBurnt(
                    "somebody has tried the code with other words: nothing was sent; make another one"
                )
            print_line({"event": "found"}, "somebody has the words", err=True)
            done = await sent
    record = {"event": "sent", "name": done.file.name, "size": done.file.size, "sha256": done.digest.hex()}
    print_line(record, f"sent {done.file.name}: {size_text(done.file.size)}\nsha256 {done.digest.hex()}")


class NobodyThere(PeerError):
    """Nobody waits with a code of that number, here or at the relays that were named."""

    code = "words-nobody"


async def find_by_words(code: WordCode, relays: Sequence[str]) -> list[Address]:
    """Return where the file of a code is. Raise `NobodyThere`, `CodeWrong`, `CodeBurnt`."""
    from dtp.peers.reach.relay_client import RelayPlace

    who = code.meeting.id
    at_relays = [Address.direct(who, RelayPlace.parse(each).own_url, WORDS_SERVICE) for each in relays]
    for place in (Address.parse(f"dtp://{who}/{WORDS_SERVICE}"), *at_relays):
        try:
            connection = await connect(place, resolvers=[NearbyResolver()])
        except (NotResolved, CarrierError):
            continue
        async with connection:
            return await ask_by_words(connection, code)
    raise NobodyThere(
        f"nobody waits with a code of number {code.number} here: is it on this network, or at a relay?"
    )
