"""What `dtp send --words` and `dtp recv CODE` do before the file goes: meeting on the LAN or at a relay."""

from __future__ import annotations

import asyncio
import base64
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from dtp.cli.listening import addresses, listen_at
from dtp.cli.output import print_line
from dtp.cli.progress import ProgressMeter, size_text
from dtp.errors import CarrierError, DtpError, PeerError
from dtp.files import FileProblem, Sent, TransferRefused, serve_file
from dtp.files.words import WORDS_SERVICE, CodeBurnt, WordCode, WordSender, ask_by_words
from dtp.identity import Identity
from dtp.net.address import Address
from dtp.net.connection import Connection
from dtp.net.dial import connect
from dtp.net.resolver import NotResolved
from dtp.net.stream import Stream
from dtp.peers.nearby import NearbyResolver, answering

log = logging.getLogger("dtp.cli")

#: Random bytes in the name of the file's service: only who has the words is told it.
_NAME_SIZE: Final = 10
#: Seconds for which nobody may be connected who has the words and not yet the file.
_PATIENCE: Final = 60.0


class ReceiverGone(PeerError):
    """Whoever had the words went away, and doesn't have the file."""

    code = "words-gone"


class FileOffer:
    """A file for the one who was told where it is, whose connections `serve` takes."""

    def __init__(self, file: Path, *, patience: float = _PATIENCE) -> None:
        self._file, self._patience = file, patience
        self._sent: asyncio.Future[Sent] = asyncio.get_running_loop().create_future()
        self._here = 0
        self._timer: asyncio.TimerHandle | None = None

    async def serve(self, connection: Connection) -> None:
        """Give the file to who asks for it on this connection, until it is there."""
        self._here += 1
        self._restart_timer()
        try:
            while not self._sent.done():
                await self._serve_stream(connection, await connection.accept_stream())
        finally:
            self._here -= 1
            self._restart_timer()

    async def _serve_stream(self, connection: Connection, stream: Stream) -> None:
        with ProgressMeter("sending") as meter:
            try:
                async with meter.watch_carriers(connection):
                    self._end_offer(await serve_file(stream, self._file, progress=meter))
            except (FileProblem, TransferRefused) as fault:  # it would end as this the next time, too
                self._end_offer(fault)
            except DtpError as fault:
                log.info("%s: it may come again, and go on there: %s", connection.peer.short, fault)
            meter.finish()

    def _end_offer(self, how: Sent | DtpError) -> None:
        if self._sent.done():
            return
        if isinstance(how, DtpError):
            self._sent.set_exception(how)
        else:
            self._sent.set_result(how)

    def _restart_timer(self) -> None:
        """Give up after a while of nobody being there."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._here and not self._sent.done():
            gone = ReceiverGone(
                "whoever has the words went away without the whole file: make another code, and it goes on there"
            )
            self._timer = self._sent.get_loop().call_later(self._patience, self._end_offer, gone)

    async def wait_sent(self) -> Sent:
        """Return once the file is there. Raise `ReceiverGone`, `TransferRefused`, `FileProblem`."""
        self._restart_timer()
        try:
            return await self._sent
        finally:
            if self._timer is not None:
                self._timer.cancel()


async def send_by_words(file: Path, urls: Sequence[str]) -> None:
    """Print a code, and serve the file to whoever has it, until it is there. Raise `CodeBurnt` after a wrong
    guess, and as `FileOffer.wait_sent`."""
    code, offer = WordCode.make(), FileOffer(file)
    name = f"words-{base64.b32encode(os.urandom(_NAME_SIZE)).decode().lower()}"
    async with await listen_at(urls, {name: offer.serve}, identity=Identity.generate()) as listener:
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
            done = await offer.wait_sent()
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
