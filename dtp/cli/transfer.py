"""`dtp send` and `dtp recv`: files, with a progress bar, going on where a cut broke them off."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import logging
import os
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from dtp.carriers.errors import DialError
from dtp.cli.listening import Listening, addresses, listening_options, print_notes
from dtp.cli.options import (
    IdentitySource,
    identity_options,
    parse_address,
    psk_file_option,
    verbose_option,
)
from dtp.cli.output import json_option, print_line
from dtp.cli.paying import PaymentOptions, payment_options
from dtp.cli.progress import ProgressMeter, size_text, speed_text
from dtp.cli.run import run, when_stdin_ends
from dtp.cli.words import find_by_words, send_by_words
from dtp.errors import CarrierError, DtpError, PeerError
from dtp.files import (
    FileInfo,
    FileProblem,
    FileTransferError,
    Here,
    NameRefused,
    Progress,
    Received,
    Sent,
    TransferRefused,
    ask_file,
    check_name,
    fetch_file,
    look_here,
    receive_file,
    send_file,
)
from dtp.files.names import open_regular
from dtp.files.words import WordCode, looks_like_code
from dtp.identity import Identity, PeerId
from dtp.net.address import Address
from dtp.net.connection import Connection
from dtp.net.dial import Connecting, DialTimeout, connect
from dtp.net.listener import Listener, Refuse, Request
from dtp.net.stream import Stream
from dtp.pay.errors import UNPAID
from dtp.peers.nearby import answering, wants_lan
from dtp.session.codes import CloseCode, ConnectionClosed, ConnectionLost

if TYPE_CHECKING:
    from dtp.pay.client.budget import Opening
    from dtp.pay.dial import PaidConnecting

log = logging.getLogger("dtp.cli")

_T = TypeVar("_T")

#: Random bytes in the name of a receiver's service: only those who were given the address know it.
_NAME_SIZE = 10
#: The service at which whoever knows a person finds the files that it waits for: `dtp recv --by-name`.
PERSON_SERVICE = "dtp.recv"
#: How long a sender has to answer when another one wants its place, seconds.
_ANSWER = 3.0
#: Where a file is fetched that is sent by a code of words.
_WORDS_URL = "tcp://:0"
#: How long a peer may take to offer the file that it is asked for, seconds: a disk that has to wake up.
_OFFER = 30.0


@click.command()
@click.argument("file", type=click.Path(path_type=Path, readable=False), metavar="FILE")
@click.argument("address", metavar="[ADDRESS]", required=False, callback=parse_address)
@click.option("--name", metavar="NAME", help="Send it under another name.")
@click.option("--words", is_flag=True, help="Print a code of words for 'dtp recv', which needs no address.")
@click.option("--listen", "-l", "urls", multiple=True, metavar="URL",
              help="With --words: where the file is fetched, relay://... among them. "
              f"[default: {_WORDS_URL}, for this network]")  # fmt: skip
@click.option("--to", "person", metavar="PERSON", help="To a contact of 'dtp message': straight to a device "
              "that waits on this network ('dtp recv --by-name'), else through the mailbox.")  # fmt: skip
@click.option("--messages", type=click.Path(dir_okay=False), envvar="DTP_MESSAGES", metavar="FILE",
              help="With --to: what 'dtp message' keeps. [default: as there]")  # fmt: skip
@identity_options("--identity", "-i")
@psk_file_option
@verbose_option
@json_option
def send(
    file: Path,
    address: Address | None,
    name: str | None,
    words: bool,
    urls: tuple[str, ...],
    person: str | None,
    messages: str | None,
    identity: IdentitySource,
    psk: bytes | None,
) -> None:
    """Send FILE to a peer that runs 'dtp recv', which has printed the ADDRESS.

    With --words to whoever is told the code that is printed, on this network or by a relay. It is good for one try.
    With --to to a person whom 'dtp message' knows, whether or not they are there.

    The peer checks the SHA-256 of what arrived. After a cut run the same command again: it goes on where it was.

    \b
    Examples:
      dtp send holiday.mp4 dtp+tcp://dtp1...@192.168.1.5:40123/recv-x5mzq2...
      dtp send --words holiday.mp4
      dtp send --to alice holiday.mp4
    """
    if words + (address is not None) + (person is not None) != 1:
        raise click.UsageError("say where to: an ADDRESS, --words or --to")
    if address is not None:
        if urls:
            raise click.UsageError("--listen is for --words")
        run(_send(file, address, name, identity.load_or_make, psk))
    elif name is not None or psk is not None:
        raise click.UsageError("with --words and --to there is neither --name nor a pre-shared key")
    elif person is not None:
        if urls:
            raise click.UsageError("--listen is for --words")
        run(_send_to_person(file, person, identity, messages))
    else:
        _check_file(file, None)
        run(send_by_words(file, urls or (_WORDS_URL,)))


async def _send_to_person(file: Path, person: str, identity: IdentitySource, messages: str | None) -> None:
    from dtp.cli.messenger import open_messenger
    from dtp.cli.send_person import send_to_person

    async def straight(device: PeerId, me: Identity) -> None:
        await _send(file, Address("dtp", peer=device, service=PERSON_SERVICE), None, lambda: me, None)

    _check_file(file, None)
    await send_to_person(open_messenger(identity, messages, None, (), None), file, person, straight)


async def _send(
    file: Path, address: Address, name: str | None, identity: Callable[[], Identity], psk: bytes | None
) -> None:
    _check_file(file, name)

    async def attempt(connection: Connection, meter: ProgressMeter) -> Sent:
        with _other_services(meter, "takes no file that is sent: is it of 'dtp recv'?"):
            sent = await send_file(connection, file, name=name, progress=meter)
        meter.finish()
        return sent

    with ProgressMeter("sending") as meter:
        dial = functools.partial(connect, address, identity=identity(), psk=psk)
        sent, peer = await _persist(dial, attempt, meter)
    print_line(
        {
            "event": "sent",
            "name": sent.file.name,
            "size": sent.file.size,
            "from": sent.begin,
            "sha256": sent.digest.hex(),
            "peer": str(peer),
            **_timing(meter),
        },
        f"sent {sent.file.name}: {_summary(sent.file.size, sent.begin, meter)}\nsha256 {sent.digest.hex()}",
    )


def _check_file(file: Path, name: str | None) -> None:
    """Check that it can be sent, before a passphrase is asked for and anybody is dialled. `FileProblem`."""
    try:
        check_name(file.name if name is None else name)
    except NameRefused as error:
        raise FileProblem(f"{error}; give it another name") from None
    os.close(open_regular(file))


@click.command()
@click.argument("source", metavar="[ADDRESS|CODE]", required=False)
@click.option("--relay", "relays", multiple=True, metavar="URL",
              help="With a CODE: look for its sender at this relay too, relay://HOST:PORT?relay=dtp1...")  # fmt: skip
@click.option("--output", "-o", type=click.Path(), metavar="PATH", default=".",
              help="The folder to put it in, or a path to store it at. [default: the current folder]")  # fmt: skip
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@click.option("--keep", "-k", is_flag=True, help="Go on waiting for further files.")
@click.option(
    "--service", metavar="NAME", help="Without ADDRESS: the name of the service. [default: a random one]"
)
@click.option("--by-name", is_flag=True, help="Without ADDRESS: be found on this network by whoever knows your "
              "identity, for 'dtp send --to' you.")  # fmt: skip
@payment_options
@listening_options
@verbose_option
@json_option
def recv(
    source: str | None,
    relays: tuple[str, ...],
    output: str,
    force: bool,
    keep: bool,
    service: str | None,
    by_name: bool,
    listening: Listening,
    payment: PaymentOptions,
) -> None:
    """Wait for a file that a peer sends, or fetch the one at ADDRESS that a peer serves.

    Without ADDRESS it prints the address to give to 'dtp send', and ends when a file is here. With ADDRESS it fetches
    what 'dtp serve --file' serves: the path of the file follows the service. 'dtp send --words' prints a CODE.

    The SHA-256 is checked. What comes before a cut is kept as NAME.dtp-part and used the next time.

    With --budget a service of a host object is paid, at most so much, by vouchers as the bytes come.

    \b
    Examples:
      dtp recv --output ~/Downloads --listen tcp://:0
      dtp recv 7-cactus-violin
      dtp recv dtp://0x.../files/big.iso --budget 0.5SUI
      dtp recv dtp+tcp://dtp1...@192.168.1.5:9700/files/disk.iso
    """
    code = WordCode.parse(source) if source and looks_like_code(source) else None
    address = Address.parse(source) if source and code is None else None
    if relays and code is None:
        raise click.UsageError("--relay is for a CODE")
    path = Path(output)
    folder, name = (path, None) if path.is_dir() or output.endswith(os.sep) else (path.parent, path.name)
    if not folder.is_dir():
        raise click.UsageError(f"--output: there is no folder {folder}")
    _check_folder(folder)
    if by_name and service is not None:
        raise click.UsageError("--by-name has a service of its own, without --service")
    if source is not None:
        if keep or service or by_name or listening.allow or listening.until_eof or listening.urls:
            raise click.UsageError(
                "with an ADDRESS nobody is waited for: none of --listen, --allow, --service, --by-name, --keep"
            )
        if code is not None:
            run(_fetch_by_words(code, relays, folder, name, force, listening, payment))
        elif address is not None:
            run(_fetch(address, folder, name, force, listening, payment))
    else:
        run(
            _Receiver(
                folder, name, force, keep, listening, PERSON_SERVICE if by_name else service
            ).receive_files()
        )


def _check_folder(folder: Path) -> None:
    """Check that files can be made there, before anybody is dialled or paid. `FileProblem`."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise FileProblem(f"can't write in {folder}: {error.strerror}") from error


async def _fetch(
    address: Address,
    folder: Path,
    name: str | None,
    force: bool,
    listening: Listening,
    payment: PaymentOptions,
) -> None:
    async def attempt(connection: Connection, meter: ProgressMeter) -> Received:
        used.append(connection)
        with _other_services(meter, "gives no file: is it of 'dtp serve --file'?"):
            async with asyncio.timeout(_OFFER) as limit:

                def moving(progress: Progress) -> None:
                    limit.reschedule(None)
                    meter(progress)

                received = await fetch_file(connection, folder, name=name, overwrite=force, progress=moving)
        # The file is here, whatever becomes of the connection's end: closing a channel needs the chain.
        meter.finish()
        meter.close()
        _print_received(received, connection.peer, meter)
        return received

    async def ask(opening: Opening) -> int | None:
        return await _ask_before_paying(folder, name, force, opening)

    try:
        with payment.report_costs() as used, ProgressMeter("receiving") as meter:
            dial = functools.partial(
                payment.connect, address, identity=listening.identity, psk=listening.psk, ask=ask
            )
            await _persist(dial, attempt, meter, payment.keep_for_another)
    except _AlreadyHere as found:
        path, file = found.here.path, found.file
        print_line(
            {"event": "here", "path": str(path), "size": file.size},
            f"{path}: {size_text(file.size)}, is here already: the size and the time are those of the server's file. "
            "Nothing was paid; --force compares what is in them",
        )


async def _fetch_by_words(
    code: WordCode,
    relays: tuple[str, ...],
    folder: Path,
    name: str | None,
    force: bool,
    listening: Listening,
    payment: PaymentOptions,
) -> None:
    _ = listening.identity  # its passphrase is asked for before the code is used: that is good once
    places = await find_by_words(code, relays)
    for place in places:
        try:
            await _fetch(place, folder, name, force, listening, payment)
        except (DialError, DialTimeout):
            if place is places[-1]:
                raise
        else:
            return


class _AlreadyHere(Exception):
    """Nothing has to be fetched."""

    def __init__(self, here: Here, file: FileInfo) -> None:
        super().__init__(str(here.path))
        self.here, self.file = here, file


async def _ask_before_paying(folder: Path, name: str | None, force: bool, opening: Opening) -> int | None:
    """Return what the file is going to cost, before anything is paid; None where the server doesn't say.

    Raises `_AlreadyHere`, `TransferRefused` where there is no such file, and `FileExists`: then no channel is opened.
    """
    from dtp.cli.show import money
    from dtp.pay.terms import Prices, Usage

    if opening.ask is None:
        return None
    try:
        async with asyncio.timeout(_OFFER), opening.ask() as connection:
            file = await ask_file(connection)
    except (ConnectionClosed, CarrierError, FileTransferError, PeerError, TimeoutError) as fault:
        if isinstance(fault, TransferRefused) and fault.refusal != "protocol":
            raise
        log.info("%s doesn't say what it has before it is paid: %s", opening.host, fault)
        return None
    here = look_here(folder, name or file.name, file, overwrite=force)
    if here.same and not force:
        raise _AlreadyHere(here, file)
    terms = opening.terms
    price = Prices(terms.price_request, terms.price_mib).cost_of(Usage(1, file.size - here.have))
    print_line(
        {"event": "price", "name": file.name, "size": file.size, "amount": price, "coin": terms.coin},
        f"{file.name}: {size_text(file.size - here.have)} for about {money(price, terms.coin)}",
        err=True,
    )
    return price


class OtherService(PeerError):
    """The peer has something else at this address than files, or files that go the other way."""

    code = "other-service"


@contextlib.contextmanager
def _other_services(meter: ProgressMeter, words: str) -> Iterator[None]:
    """Say it in `words` when the other side turns out not to speak of files."""
    try:
        yield
    except TimeoutError as error:  # of `_OFFER`; dtp's own are of other families
        if isinstance(error, DtpError):
            raise
        raise OtherService(f"no answer within {_OFFER:g} s; the service {words}") from None
    except (FileTransferError, TransferRefused) as error:
        if meter.began or (isinstance(error, TransferRefused) and error.refusal != "protocol"):
            raise
        raise OtherService(f"the service {words} ({error})") from error


async def _persist(
    dial: Callable[[], Connecting | PaidConnecting],
    attempt: Callable[[Connection, ProgressMeter], Awaitable[_T]],
    meter: ProgressMeter,
    on_lost: Callable[[Connection], object] = lambda _: None,
) -> tuple[_T, PeerId]:
    """Transfer over a connection; over another one if that is lost for good, as when the peer has started anew.

    Gives up when one brought nothing; then, or when it is interrupted, says that nothing is lost. `on_lost` is told
    of a connection that another one follows, before it is closed.
    """
    moved = False
    while True:
        meter.restart_timing()
        try:
            async with dial() as connection, meter.watch_carriers(connection):
                peer = connection.peer
                try:
                    return await attempt(connection, meter), peer
                except ConnectionLost:
                    if meter.moved:
                        on_lost(connection)
                    raise
        except (asyncio.CancelledError, ConnectionClosed, CarrierError, *UNPAID) as error:
            moved |= meter.moved > 0
            if meter.moved and isinstance(error, ConnectionLost):
                meter.print_event("redial", "the peer has started anew; going on where it was", peer)
                continue
            if moved:
                meter.print_event("kept", "what has come is kept; the same command goes on behind it", peer)
            raise


class _Receiver:
    """Waits for files at a service of its own."""

    def __init__(
        self,
        folder: Path,
        name: str | None,
        force: bool,
        keep: bool,
        listening: Listening,
        service: str | None,
    ) -> None:
        self._folder, self._name, self._force, self._keep = folder, name, force, keep
        self._listening = listening
        random = base64.b32encode(os.urandom(_NAME_SIZE)).decode().lower()
        self._service = f"recv-{random}" if service is None else service
        self._stop = asyncio.Event()
        self._bar_is_free = True
        self._under_way: dict[Connection, tuple[str, asyncio.Event]] = {}  # the file's name; set when over

    async def receive_files(self) -> None:
        """Receive until a file is here, or with `keep` until interrupted."""
        if self._listening.until_eof:
            when_stdin_ends(self._stop.set)
        async with await self._listening.listen(self._handle_connection, self._check_request) as listener:
            print_notes(self._listening)
            for address in addresses(listener, self._service):
                print_line({"event": "listening", "address": str(address)}, str(address))
            async with self._on_lan(listener):
                await self._stop.wait()

    def _on_lan(self, listener: Listener) -> AbstractAsyncContextManager[object]:
        """Answer those on the LAN who ask for this identity, where the service's name is one that they know."""
        if self._service != PERSON_SERVICE or self._listening.psk is not None or not wants_lan():
            return contextlib.nullcontext()
        return answering(self._listening.identity, listener.urls)

    def _check_request(self, request: Request) -> None:
        if request.service != self._service:
            raise Refuse(CloseCode.UNKNOWN_SERVICE, "nobody waits here under this name")

    @contextlib.contextmanager
    def _make_meter(self) -> Iterator[ProgressMeter]:
        """Return a meter; its bar goes to the first of several transfers at once."""
        bar, self._bar_is_free = self._bar_is_free, False
        try:
            with ProgressMeter("receiving", bar=bar) as meter:
                yield meter
        finally:
            self._bar_is_free |= bar

    async def _handle_connection(self, connection: Connection) -> None:
        while not self._stop.is_set():
            stream = await connection.accept_stream()
            with self._make_meter() as meter:
                await self._receive_stream(connection, stream, meter)

    async def _receive_stream(self, connection: Connection, stream: Stream, meter: ProgressMeter) -> None:
        over = asyncio.Event()

        async def offered(file: FileInfo) -> None:
            await self._make_way(connection, file.name)
            self._under_way[connection] = file.name, over

        try:
            async with meter.watch_carriers(connection):
                received = await receive_file(
                    stream,
                    self._folder,
                    name=self._name,
                    overwrite=self._force,
                    offered=offered,
                    progress=meter,
                )
        except DtpError as error:
            print_line(
                {"event": "failed", "peer": str(connection.peer), "code": error.code, "reason": str(error)},
                f"dtp: {connection.peer.short}: {error}",
                err=True,
            )
            return
        finally:
            self._under_way.pop(connection, None)
            over.set()
        _print_received(received, connection.peer, meter)
        if not self._keep:
            self._stop.set()

    async def _make_way(self, connection: Connection, name: str) -> None:
        """End older transfers of this file by the same sender, or by one that is gone: it has started again.

        Else they would hold the partial file until they are given up.
        """
        for other, (file, over) in list(self._under_way.items()):
            if file != name or other is connection:
                continue
            if other.peer == connection.peer or not await _is_there(other):
                other.abort(CloseCode.SHUTDOWN, "the sender has started again")
            if other.closed:
                await over.wait()


async def _is_there(connection: Connection) -> bool:
    """True if the peer answers now; a carrier that is dead may not be known to be yet."""
    if not connection.stats.carriers:
        return False
    try:
        async with asyncio.timeout(_ANSWER):
            await connection.ping()
    except (TimeoutError, DtpError):
        return False
    return True


def _print_received(received: Received, peer: PeerId, meter: ProgressMeter) -> None:
    file = received.file
    print_line(
        {
            "event": "received",
            "path": str(received.path),
            "size": file.size,
            "from": received.begin,
            "sha256": received.digest.hex(),
            "peer": str(peer),
            **_timing(meter),
        },
        f"received {received.path}: {_summary(file.size, received.begin, meter)}\nsha256 {received.digest.hex()}",
    )


def _timing(meter: ProgressMeter) -> dict[str, float]:
    return {"seconds": round(meter.seconds, 6), "bytes_per_second": round(meter.speed)}


def _summary(size: int, begin: int, meter: ProgressMeter) -> str:
    if begin == size and size:
        return f"{size_text(size)}, was there already"
    before = f" ({size_text(begin)} were there already)" if begin else ""
    return f"{size_text(size)}{before} in {meter.seconds:.2f} s, {speed_text(meter.speed)}"
