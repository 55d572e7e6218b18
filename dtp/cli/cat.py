"""`dtp cat`: copy standard input to a stream, and the stream to standard output, at the same time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
from contextlib import AbstractAsyncContextManager

import click

from dtp.cli.options import (
    IdentitySource,
    address_argument,
    identity_options,
    psk_file_option,
    verbose_option,
)
from dtp.cli.output import discard_output, json_option, print_note, wants_json, write_output
from dtp.cli.paying import PaymentOptions, payment_options
from dtp.cli.peers import named_network_option
from dtp.cli.progress import ProgressMeter
from dtp.cli.run import run
from dtp.errors import DtpError, LocalError
from dtp.net.address import Address
from dtp.net.connection import Connection
from dtp.net.relay import PIECE
from dtp.net.resolver import HostResolver, StaticResolver
from dtp.net.stream import Stream
from dtp.peers.nearby import NearbyResolver
from dtp.peers.private import PrivateNetwork
from dtp.plurals import count_of
from dtp.session.codes import TooManyStreams
from dtp.tasks import start_task

#: Seconds without progress after which the user is told what the command waits for.
PATIENCE = 1.0


@click.command()
@address_argument
@identity_options("--identity", "-i")
@psk_file_option
@named_network_option("private")  # `network` is the chain's
@payment_options
@verbose_option
@json_option
def cat(
    address: Address,
    identity: IdentitySource,
    psk: bytes | None,
    private: str | None,
    payment: PaymentOptions,
) -> None:
    """Connect standard input and output to a service: netcat, by identity and encrypted.

    The end of the input is passed on and output goes on (half close); the command ends when the peer has
    finished. Bytes pass as they are.

    \b
    Examples:
      echo hello | dtp cat dtp+tcp://dtp1...@127.0.0.1:9700/echo
      tar c photos | dtp cat dtp://alice/backup
      dtp cat --network-file family.key dtp://dtp1.../files
      ssh -o ProxyCommand='dtp cat dtp://alice/ssh' alice
    """
    if psk is not None and private is not None:
        raise click.UsageError("--network-file has a key for its handshakes: leave out --psk-file")
    network = None if private is None else PrivateNetwork.parse(private)
    run(_cat(address, identity, psk, network, payment))


async def _cat(
    address: Address,
    identity: IdentitySource,
    psk: bytes | None,
    network: PrivateNetwork | None,
    payment: PaymentOptions,
) -> None:
    resolvers = None
    if network is not None:
        psk, resolvers = network.psk, (StaticResolver(), HostResolver(), NearbyResolver(network))
    dial = payment.connect(address, identity=identity.load_or_make(), psk=psk, resolvers=resolvers)
    with payment.report_costs() as used:
        async with dial as connection, _telling(connection):
            used.append(connection)
            await _exchange(await _open(connection))


async def _open(connection: Connection) -> Stream:
    """Open the stream; after a second tell the user why nothing happens."""
    with contextlib.suppress(TooManyStreams):
        return await connection.open_stream(patience=PATIENCE)
    words = f"{connection.peer.short} allows no stream yet; waiting for it"
    print_note({"event": "waiting", "peer": str(connection.peer), "for": "streams"}, f"dtp: {words}")
    return await connection.open_stream()


async def _tell_of_credit(stream: Stream) -> None:
    """Tell the user, once each time, that the input waits because the peer reads none of it."""
    peer, before, told = stream.connection.peer, 0, False
    while True:
        await asyncio.sleep(PATIENCE)
        waiting, sent = stream.queued, stream.connection.traffic.sent
        stuck = waiting > 0 and sent == before
        if stuck and not told:
            much = count_of(waiting, "byte")
            words = f"{peer.short} takes nothing now; {much} waiting for it to read or to give credit"
            print_note({"event": "waiting", "peer": str(peer), "for": "credit"}, f"dtp: {words}")
        before, told = sent, stuck


async def _exchange(stream: Stream) -> None:
    """Copy both ways until both are over."""
    source = _Input(stream)
    source.start()
    output = start_task(_to_stdout(stream), name="dtp-cat")
    telling = start_task(_tell_of_credit(stream), name="dtp-cat-credit")
    try:
        await asyncio.wait((output, source.broken), return_when=asyncio.FIRST_COMPLETED)
        if not output.done():
            raise source.broken.result()
        await output
    except BrokenPipeError:  # the reader of our output has enough, such as `head`
        discard_output()
        stream.reset()
    except LocalError:  # a part of the input must not look like all of it
        stream.reset()
        raise
    finally:
        output.cancel()
        telling.cancel()


def _telling(connection: Connection) -> AbstractAsyncContextManager[None]:
    """Tell the user, while the block runs, when the connection is cut and when it is back, on standard error:
    standard output is for the peer's bytes."""
    return (
        contextlib.nullcontext() if wants_json() else ProgressMeter("", bar=False).watch_carriers(connection)
    )


async def _to_stdout(stream: Stream) -> None:
    """Write all that comes, in a thread, since a slow reader of our output must not stop the event loop."""
    loop = asyncio.get_running_loop()
    while data := await stream.read(PIECE):
        await loop.run_in_executor(None, write_output, data)


class InputError(LocalError):
    """Standard input can't be read; the peer was told that its data is incomplete."""

    code = "input"


class _Input(threading.Thread):
    """Reads standard input and writes it to the stream, never more than a piece ahead.

    A daemon thread: a read that blocks can't be interrupted, and must not hold up the end of the program.
    """

    def __init__(self, stream: Stream) -> None:
        super().__init__(name="dtp-stdin", daemon=True)
        self._stream = stream
        self._loop = asyncio.get_running_loop()
        self._terminal = sys.stdin.isatty()
        #: The error with which the input broke off, if it did.
        self.broken: asyncio.Future[InputError] = self._loop.create_future()

    def run(self) -> None:
        """Send the input until it ends or the stream takes nothing more."""
        with contextlib.suppress(ConnectionError, DtpError, RuntimeError):  # RuntimeError: the loop has ended
            try:
                while data := self._read_piece():
                    asyncio.run_coroutine_threadsafe(self._write_piece(data), self._loop).result()
            except InputError as error:
                self._loop.call_soon_threadsafe(self.broken.set_result, error)
            else:
                self._loop.call_soon_threadsafe(self._stream.write_eof)

    def _read_piece(self) -> bytes:
        try:
            return os.read(sys.stdin.fileno(), PIECE)
        except OSError as error:
            if self._terminal:  # standard input was closed: there is no more
                return b""
            raise InputError(f"can't read the input: {error.strerror}") from error

    async def _write_piece(self, data: bytes) -> None:
        self._stream.write(data)
        await self._stream.drain()
