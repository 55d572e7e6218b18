"""The carrier that goes through the chain: `pipe://0x<host object>?service=...`, for when nothing else gets through.

    dtp.connect("dtp://0x<host>/echo?via=pipe")       # by the wallet and the network of the environment
    kind_for(chain)                                   # by a client of one's own

Whoever dials opens a channel (or uses one) with pipes in both directions; what is written becomes frames of
ciphertext in events, which the other side follows. It is slow and costs gas for every byte. `docs/chain-carrier.md`
has the protocol, the costs and the limits.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any, ClassVar, Final
from weakref import WeakKeyDictionary

from dtp import config
from dtp.carriers.base import Accept, Carrier, CarrierKind, CarrierListener, CarrierState, Receiver
from dtp.carriers.errors import BrokenError, CarrierUrlError, DialError, ListenError
from dtp.carriers.stream_socket import hand_over
from dtp.carriers.url import CarrierUrl, parse_url
from dtp.chain.errors import SignerError
from dtp.chain.host_state import service_number
from dtp.chain.keystores import load_key, sui_signer
from dtp.chain.model import canonical_id
from dtp.chain.node.client import ChainClient
from dtp.chain.node.networks import find_network
from dtp.chain.pipes.end import ChannelEnd
from dtp.chain.pipes.frames import MAX_PIPES, Flags, IncomingPipe, OutgoingPipe
from dtp.chain.pipes.hub import PipeHub
from dtp.chain.pipes.where import PipeRefusedError
from dtp.chain.signer import Signer
from dtp.errors import CarrierError, ChainError
from dtp.sui.names import SuiNameError

__all__ = ["PipeCarrier", "PipeListener", "dial", "kind_for", "listen"]

#: Pipes in each direction when the URL doesn't say how many.
PIPES: Final = 4
#: Bytes that wait to be cut into frames from which on `write` says to wait, and down to which it says to go on.
HIGH_WATER: Final = 1024 * 1024
LOW_WATER: Final = 256 * 1024
#: Bytes that are handed to a receiver in one turn of the loop.
_TURN: Final = 1024 * 1024
_ANY: Final = bytes(32)


class PipeCarrier(Carrier):
    """One link of a channel, as a carrier."""

    scheme: ClassVar[str] = "pipe"

    def __init__(self, hub: PipeHub, end: ChannelEnd, number: int) -> None:
        where = end.where
        self.number = number
        self.outgoing = OutgoingPipe(where.frame_bytes)
        self.incoming = IncomingPipe(where.limit)
        self.source = f"sui:{where.peer}"
        self.remote = where.url
        self.accepted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._hub = hub
        self._end = end
        self._loop = asyncio.get_running_loop()
        self._receiver: Receiver | None = None
        self._state = CarrierState.OPEN
        self._blocked = False
        self._paused = False
        self._delivery: asyncio.Handle | None = None
        self._error: CarrierError | None = None
        self._linger: asyncio.TimerHandle | None = None
        end.attach_link(self)

    @property
    def channel(self) -> str:
        """The id of the channel that it lives on."""
        return self._end.where.channel

    # The contract.

    def start(self, receiver: Receiver) -> None:
        self._receiver = receiver
        if self._state is CarrierState.ENDED:
            self._loop.call_soon(receiver.carrier_lost, None)
        else:
            self._deliver_soon()

    def write(self, data: memoryview) -> bool:
        if self._state is not CarrierState.OPEN:
            return False
        if data:
            self.outgoing.write(data)
            self._end.wake_senders()
        self._blocked = self._blocked or self.outgoing.waiting > HIGH_WATER
        return not self._blocked

    def pause_reading(self) -> None:
        self._paused = True

    def resume_reading(self) -> None:
        self._paused = False
        self._deliver_soon()

    def close(self) -> None:
        if self._state is not CarrierState.OPEN:
            return
        self._state = CarrierState.CLOSING
        self._paused = False
        self.outgoing.finish()
        self._linger = self._loop.call_later(self._end.timing.linger, self._give_up)
        self._end.wake_senders()
        self._deliver_soon()

    def abort(self) -> None:
        if self._state is CarrierState.ENDED:
            return
        self.outgoing.drop_uncut()
        self._end.send_control(Flags.RESET, self.number)
        self._finish_carrier()
        receiver, self._receiver = self._receiver, None  # which has this carrier: neither would go by itself
        if receiver is not None:
            self._loop.call_soon(receiver.carrier_lost, None)

    @property
    def held(self) -> int:
        """Return the bytes that are kept here: those that wait to be sent, and frames that came before earlier
        ones."""
        return self.outgoing.waiting + self.incoming.held

    def ask_again(self) -> None:
        """Send OPEN once more: a node may not have told the server of the first."""
        self._end.send_control(Flags.OPEN, self.number)

    # What the end asks and reports (`dtp.chain.pipes.end.PipeLink`).

    @property
    def ending(self) -> bool:
        return self._state is not CarrierState.OPEN or self._error is not None

    def was_accepted(self) -> None:
        if not self.accepted.done():
            self.accepted.set_result(None)

    def data_came(self) -> None:
        if self.on_kept is not None:
            self.on_kept()
        if self._receiver is not None or self._state is CarrierState.CLOSING:
            self._deliver_soon()

    def frame_sent(self) -> None:
        if self._state is CarrierState.CLOSING and self.outgoing.finished:
            self._loop.call_soon(self._give_up)
        elif self._blocked and self.outgoing.waiting <= LOW_WATER and self._state is CarrierState.OPEN:
            self._blocked = False
            if self._receiver is not None:
                self._loop.call_soon(self._tell_writable)

    def on_link_broken(self, error: CarrierError) -> None:
        if not self.accepted.done():
            self.accepted.set_exception(error)
            self.accepted.exception()  # seen, also when nobody waits for it
        if self._error is None and self._state is not CarrierState.ENDED:
            self._error = error
            self._deliver_soon()

    # Called by the loop.

    def _deliver_soon(self) -> None:
        if self._delivery is None and (self._receiver is not None or self._state is CarrierState.CLOSING):
            self._delivery = self._loop.call_soon(self._deliver_incoming)

    def _deliver_incoming(self) -> None:
        self._delivery = None
        room = _TURN
        while (
            self.incoming.has_ready
            and room > 0
            and not self._paused
            and self._state is not CarrierState.ENDED
        ):
            room -= self._deliver_some()
        if self._state is CarrierState.ENDED:
            return
        self._end.wake_senders()  # what was taken may be acknowledged
        if self._paused:
            return
        if self.incoming.has_ready:
            self._deliver_soon()
        elif self.incoming.finished or self._error is not None:
            self._connection_lost(
                None if self._state is CarrierState.CLOSING or self.incoming.finished else self._error
            )

    def _deliver_some(self) -> int:
        if self._state is CarrierState.CLOSING or self._receiver is None:
            return self.incoming.read_into(memoryview(bytearray(65536)))
        size = self.incoming.read_into(self._receiver.carrier_buffer())
        self._receiver.carrier_received(size)
        return size

    def _tell_writable(self) -> None:
        if self._state is CarrierState.OPEN and self._receiver is not None:
            self._receiver.carrier_writable()

    def _give_up(self) -> None:
        """End a `close`: all is on the chain, or time is up."""
        if self._state is CarrierState.CLOSING:
            self._connection_lost(None)

    def _connection_lost(self, error: CarrierError | None) -> None:
        """End and report it. Only from the loop."""
        self._finish_carrier()
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.carrier_lost(error)

    def _finish_carrier(self) -> None:
        self._state = CarrierState.ENDED
        for handle in (self._linger, self._delivery):
            if handle is not None:
                handle.cancel()
        self._linger = self._delivery = None
        if not self.accepted.done():
            self.accepted.cancel()
        self._end.detach_link(self)
        self._hub.leave(self._end)


class PipeListener(CarrierListener):
    """Takes what is dialled to a host through the chain."""

    def __init__(self, hub: PipeHub, host: str, key: bytes, service: int | None, accept: Accept) -> None:
        options = [f"service={service}"] if service is not None else []
        options += [f"to={key.hex()}"] if key != _ANY else []
        self.urls = [f"pipe://{host}" + (f"?{'&'.join(options)}" if options else "")]
        self._hub = hub
        self._host = host
        self._key = key
        self._service = service
        self._accept = accept
        self._closed = False
        hub.listen(host, key, self._on_link)

    def _on_link(self, end: ChannelEnd, number: int) -> None:
        if self._service is not None and end.where.service != self._service:
            end.send_control(Flags.RESET, number)
            return
        before = end.link
        if before is not None:
            before.on_link_broken(BrokenError("the client has begun another carrier on the same channel"))
        self._hub.retain()
        hand_over(PipeCarrier(self._hub, end, number), self._accept)

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._hub.stop_listening(self._host, self._key)
            self._hub.release()


# ---------------------------------------------------------------------------------------------- dialling, listening


_DIAL_OPTIONS: Final = {"service", "to", "channel", "pipes"}
_LISTEN_OPTIONS: Final = {"service", "to"}


def _parse(url: str, options: set[str]) -> tuple[CarrierUrl, str, bytes]:
    """Return the parts, the host object, and the endpoint's key. Raises `CarrierUrlError`."""
    parts = parse_url(url, options)
    try:
        host = canonical_id(parts.host)
    except SuiNameError as fault:
        raise CarrierUrlError(f"{url}: a pipe URL is pipe://0x<host object>: {fault}") from fault
    if parts.port is not None or parts.path not in ("", "/"):
        raise CarrierUrlError(f"{url}: a pipe URL has neither port nor path")
    try:
        key = bytes.fromhex(parts.options.get("to", "")) or _ANY
    except ValueError:
        key = b""
    if len(key) != len(_ANY):
        raise CarrierUrlError(f"{url}: `to` is an endpoint's key, 64 hex digits")
    return parts, host, key


def _channel(parts: CarrierUrl) -> str:
    try:
        return canonical_id(parts.options["channel"]) if "channel" in parts.options else ""
    except SuiNameError as fault:
        raise CarrierUrlError(f"{parts.text}: `channel` must be an object's id: {fault}") from fault


async def dial(url: str, *, chain: ChainClient | None = None) -> PipeCarrier:
    """Dial `pipe://0x<host object>`, with `chain` or by the network and the wallet of the environment.

    Options: `service` (its name or number), `to` (the endpoint's key in hex), `pipes` (1 to 16, 4 by default) and
    `channel` (one that is open and of this account; without it one is opened with the service's least deposit, and
    used again by later dials).

    Raises `DialError` for what the chain refuses and when no server answers, `CarrierUrlError`, and `LocalError` for
    what is wrong here (no wallet, package not known).
    """
    parts, host, key = _parse(url, _DIAL_OPTIONS)
    number = service_number(parts.options.get("service", ""))
    pipes = parts.get_integer("pipes", PIPES)
    if not 0 < pipes <= MAX_PIPES:
        raise CarrierUrlError(f"{url}: pipes={pipes}: 1 to {MAX_PIPES}")
    channel = _channel(parts)
    hub = PipeHub.hub_of(chain if chain is not None else _environment_client())
    try:
        try:
            return await _begin(hub, host, number, key, channel, pipes)
        except PipeRefusedError:
            if channel:
                raise
            # The channel of before was closed meanwhile; now that this is known, another one is opened.
            return await _begin(hub, host, number, key, channel, pipes)
    except TimeoutError as fault:
        raise DialError(f"{url}: no server of the host answers on its pipes") from fault
    except (ChainError, BrokenError) as fault:
        raise DialError(f"{url}: {fault}") from fault


async def _begin(hub: PipeHub, host: str, number: int, key: bytes, channel: str, pipes: int) -> PipeCarrier:
    """Return a link that the server has taken. Raises `TimeoutError` when it doesn't, `BrokenError`, `ChainError`."""
    made: list[PipeCarrier] = []
    answered = False
    try:
        await hub.acquire()
        try:
            await hub.open_end(
                host, number, key, channel, pipes, lambda end, link: made.append(PipeCarrier(hub, end, link))
            )
        finally:
            if not made:
                hub.release()
        async with asyncio.timeout(hub.timing.dial):
            while not (await asyncio.wait([made[0].accepted], timeout=hub.timing.quiet))[0]:
                made[0].ask_again()
            made[0].accepted.result()
        answered = True
        return made[0]
    finally:
        if made and not answered:
            made[0].abort()


async def listen(url: str, accept: Accept, *, chain: ChainClient | None = None) -> PipeListener:
    """Listen at `pipe://0x<host object>`, with `chain` or by the environment; its account is the host's owner.

    Options: `service` (only links to that one) and `to` (the key of this endpoint in hex: only links for it; without
    it any). Raises `ListenError`, `CarrierUrlError`, `LocalError` as `dial`, and `ChainError`
    when the host can't be read.
    """
    parts, host, key = _parse(url, _LISTEN_OPTIONS)
    service = service_number(parts.options["service"]) if "service" in parts.options else None
    hub = PipeHub.hub_of(chain if chain is not None else _environment_client())
    await hub.acquire()
    try:
        state = await hub.hosts.find(host)
        if state.host.owner != hub.chain.address:
            raise ListenError(
                f"{url}: the host is paid to {state.host.owner}, so only that account can answer on pipes, "
                f"not {hub.chain.address}"
            )
        return PipeListener(hub, host, key, service, accept)
    except BaseException:
        hub.release()
        raise


def kind_for(chain: ChainClient) -> CarrierKind:
    """Return the kind of carrier whose pipes `chain` pays for and signs, for `CarrierKind`'s users."""

    async def dial_with(url: str) -> Carrier:
        return await dial(url, chain=chain)

    async def listen_with(url: str, accept: Accept) -> CarrierListener:
        return await listen(url, accept, chain=chain)

    return CarrierKind("pipe", dial_with, listen_with)


# --------------------------------------------------------------------------------------------------- the environment


_clients: WeakKeyDictionary[Any, dict[str, ChainClient]] = WeakKeyDictionary()


def _environment_client() -> ChainClient:
    """Return the client of the running loop for the network and the wallet that the environment names."""
    network = find_network()
    known = _clients.setdefault(asyncio.get_running_loop(), {})
    name = ",".join((*network.endpoints, os.environ.get("DTP_WALLET", "")))
    if name not in known:
        known[name] = ChainClient(network, environment_signer())
    return known[name]


def environment_signer() -> Signer:
    """Return the wallet that `$DTP_WALLET` names (as `dtp --wallet`), without it the identity. Raises `SignerError`,
    ...

    A file with a passphrase can't be used so: there is nobody to ask.
    """
    text = os.environ.get("DTP_WALLET", "")
    if text == "sui" or text.startswith("sui:"):
        return sui_signer(text.partition(":")[2] or None)
    if not text:
        path = config.identity_path()
    elif "/" in text or text.endswith(".pem"):
        path = Path(text)
    else:
        path = config.config_dir() / "wallets" / f"{text}.pem"
    if not path.exists():
        raise SignerError(
            f"there is no wallet {path} to pay for pipes; 'dtp wallet new' makes one, $DTP_WALLET names it"
        )
    return load_key(path)
