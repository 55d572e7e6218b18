"""What `dtp serve` and `dtp recv` share: the options of a listener, and the addresses to copy."""

from __future__ import annotations

import dataclasses
import functools
import ipaddress
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import click

from dtp.cli.options import IdentitySource, allow_option, identity_options, psk_file_option
from dtp.cli.output import print_note
from dtp.identity import Identity, PeerId
from dtp.net.address import Address
from dtp.net.connection import Connection
from dtp.net.listener import Admit, Listener, Refuse, Request, listen
from dtp.net.reachable import is_any, own_ip
from dtp.peers.lan.interfaces import own_addresses, own_ipv6
from dtp.session.codes import CloseCode

_Function = TypeVar("_Function", bound=Callable[..., Any])

DEFAULT_URL = "tcp://127.0.0.1:0"


@dataclasses.dataclass(frozen=True)
class Listening:
    """The options of a listener, as the command line has them: no `urls` mean `DEFAULT_URL`."""

    urls: tuple[str, ...]
    allow: frozenset[PeerId]
    psk: bytes | None
    source: IdentitySource
    until_eof: bool

    @functools.cached_property
    def identity(self) -> Identity:
        """Who we are; asks for a passphrase where one is needed."""
        return self.source.load_or_make()

    @property
    def temporary(self) -> bool:
        """True when the identity is for this run only, since there is no file yet."""
        return not self.source.named and not self.source.path.exists()

    def keep_identity(self) -> None:
        """Make the identity's file if there is none, for a service whose address others write down, such as a mailbox
        in people's cards. Say so, and warn if the port will be another one the next time."""
        if self.temporary:
            Identity.generate().save(self.source.path)
            made = f"made an identity, by which this is found from now on: {self.source.path}; keep a copy"
            print_note({"event": "identity-made", "file": str(self.source.path)}, f"dtp: {made}")
        if any(url.endswith(":0") for url in self.urls or (DEFAULT_URL,)):
            said = "the port is another one the next time; name one, such as --listen tcp://0.0.0.0:9700"
            print_note({"event": "port-changes"}, f"dtp: {said}")

    async def listen(
        self, handler: Callable[[Connection], Awaitable[None]], check: Callable[[Request], None]
    ) -> Listener:
        """Listen; `handler` serves each connection that `--allow` and `check` (by raising `Refuse`) let in."""

        def admit(request: Request) -> None:
            if self.allow and request.peer not in self.allow:
                raise Refuse(CloseCode.DENIED, f"{request.peer} is not allowed here")
            check(request)

        decide: Admit = admit
        urls = self.urls or (DEFAULT_URL,)
        return await listen_at(urls, handler, identity=self.identity, psk=self.psk, admit=decide)


async def listen_at(urls: Sequence[str], services: Any, *, identity: Identity, **options: Any) -> Listener:
    """Listen as `dtp.listen`, also at relays."""
    direct = [url for url in urls if not url.startswith("relay:")]
    listener = await listen(direct, services, identity=identity, **options)
    try:
        for url in urls:
            if url.startswith("relay:"):
                from dtp.peers.reach.relay_client import relay_kind

                await listener.add(url, relay_kind(identity))
    except BaseException:
        await listener.close()
        raise
    return listener


def listening_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of a listener; the command gets them as `listening: Listening`."""

    @functools.wraps(command)
    def run(
        *args: Any,
        listen: tuple[str, ...],
        allow: frozenset[PeerId],
        psk: bytes | None,
        identity: IdentitySource,
        until_eof: bool,
        **options: Any,
    ) -> Any:
        listening = Listening(listen, allow, psk, identity, until_eof)
        return command(*args, listening=listening, **options)

    decorated: Callable[..., Any] = run
    for option in (
        click.option("--until-eof", is_flag=True, help="End when standard input ends, as when the program "
                     "that started this one is gone."),
        psk_file_option,
        identity_options("--identity", "-i"),
        allow_option,
        click.option("--listen", "-l", multiple=True, metavar="URL",
                     help="Where to listen: tcp://HOST:PORT, quic://HOST:PORT, unix:///PATH, ws://HOST:PORT/PATH, or "
                     "at a relay, relay://HOST:PORT?relay=dtp1...; may be repeated. "
                     f"[default: {DEFAULT_URL}, which only this machine reaches]"),
    ):  # fmt: skip
        decorated = option(decorated)
    return decorated


def addresses(listener: Listener, service: str) -> list[Address]:
    """Return what to give to those who are to reach `service`: with this machine's own IP address for "any"."""
    found = [address.with_service(service) for address in listener.addresses]
    return [as_dialled(address) for address in found]


def as_dialled(address: Address) -> Address:
    """Return an address with this machine's own IP address for "any"."""
    return dataclasses.replace(address, host=own_host(address.host))


def own_host(host: str) -> str:
    """Return `own_ip`; on a network that leads nowhere else, the address that this machine has there."""
    ip = own_ip(host)
    if not is_any(host) or not ipaddress.ip_address(ip).is_loopback:
        return ip
    found = [*own_ipv6().of_links.values()] if ":" in host else [*own_addresses().values()]
    return next((each for each in found if not ipaddress.ip_address(each).is_loopback), ip)


def print_notes(listening: Listening) -> None:
    """Say that the address will not outlive this run, or leads to it from this machine alone, if so."""
    if listening.temporary:
        print_note(
            {"event": "temporary-identity"},
            "dtp: no identity yet, so this one is for this run only; 'dtp keygen' makes one to keep",
        )
    if not listening.urls:
        print_note(
            {"event": "this-machine-only"},
            "dtp: only this machine can reach it; with --listen tcp://:0 others on the network can, too",
        )
