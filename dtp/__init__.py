"""Sockets addressed by identity, encrypted end to end.

    import dtp

    me = dtp.Identity.load("me.pem")
    async with dtp.connect("dtp+tcp://dtp1...@127.0.0.1:9000/echo", identity=me) as connection:
        stream = await connection.open_stream()
        stream.write(b"hello")

What is used is loaded when it is used, so that `import dtp` is fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, NoReturn

from dtp.version import __version__ as __version__

if TYPE_CHECKING:
    from dtp import socket as socket
    from dtp.aio.streams import StreamServer as StreamServer
    from dtp.aio.streams import create_connection as create_connection
    from dtp.aio.streams import create_server as create_server
    from dtp.aio.streams import open_connection as open_connection
    from dtp.aio.streams import start_server as start_server
    from dtp.aio.streams import stream_handler as stream_handler
    from dtp.aio.transport import StreamTransport as StreamTransport
    from dtp.broadcast.hearing import listen_to as listen_to
    from dtp.broadcast.parents import Patience as Patience
    from dtp.broadcast.places import Place as Place
    from dtp.broadcast.producing import Broadcast as Broadcast
    from dtp.carriers.errors import DialError as DialError
    from dtp.carriers.errors import ListenError as ListenError
    from dtp.chain.host import Terms as Terms
    from dtp.crdt import Link as Link
    from dtp.errors import CarrierError as CarrierError
    from dtp.errors import ChainError as ChainError
    from dtp.errors import ConfigError as ConfigError
    from dtp.errors import DtpError as DtpError
    from dtp.errors import LimitError as LimitError
    from dtp.errors import LocalError as LocalError
    from dtp.errors import PeerError as PeerError
    from dtp.graph import Graph as Graph
    from dtp.identity import Identity as Identity
    from dtp.identity import IdentityError as IdentityError
    from dtp.identity import IdentityFileError as IdentityFileError
    from dtp.identity import PeerId as PeerId
    from dtp.identity import PeerIdError as PeerIdError
    from dtp.messaging.calls.calling import Calls as Calls
    from dtp.messaging.login.client import LoginSession as LoginSession
    from dtp.messaging.login.client import login as login
    from dtp.messaging.login.client import recover_account as recover_account
    from dtp.messaging.login.client import register_account as register_account
    from dtp.messaging.login.errors import LoginFailed as LoginFailed
    from dtp.messaging.person.messenger import Messenger as Messenger
    from dtp.net.address import Address as Address
    from dtp.net.address import AddressError as AddressError
    from dtp.net.connection import Connection as Connection
    from dtp.net.dial import DialTimeout as DialTimeout
    from dtp.net.listener import Listener as Listener
    from dtp.net.listener import Refuse as Refuse
    from dtp.net.listener import Request as Request
    from dtp.net.listener import listen as listen
    from dtp.net.parts.stats import Stats as Stats
    from dtp.net.resolver import NotResolved as NotResolved
    from dtp.net.resolver import ResolveFailed as ResolveFailed
    from dtp.net.resolver import Resolver as Resolver
    from dtp.net.stream import Stream as Stream
    from dtp.node.node import Node as Node
    from dtp.pay.claims import Policy as Policy
    from dtp.pay.dial import connect as connect
    from dtp.pay.errors import BudgetSpent as BudgetSpent
    from dtp.pay.errors import BudgetTooSmall as BudgetTooSmall
    from dtp.pay.errors import ChargeDeclined as ChargeDeclined
    from dtp.pay.errors import CountsDisputed as CountsDisputed
    from dtp.pay.errors import NotApproved as NotApproved
    from dtp.pay.errors import PriceTooHigh as PriceTooHigh
    from dtp.pay.metered import Metered as Metered
    from dtp.pay.metered import PaidRequest as PaidRequest
    from dtp.pay.serving import Selling as Selling
    from dtp.pay.serving import Serving as Serving
    from dtp.pay.serving import serve as serve
    from dtp.pay.terms import Exposure as Exposure
    from dtp.pay.terms import Spending as Spending
    from dtp.session.codes import CloseCode as CloseCode
    from dtp.session.codes import CloseDetail as CloseDetail
    from dtp.session.codes import ConnectionClosed as ConnectionClosed
    from dtp.session.codes import ConnectionLost as ConnectionLost
    from dtp.session.codes import ConnectionRefused as ConnectionRefused
    from dtp.session.codes import DatagramTooLarge as DatagramTooLarge
    from dtp.session.codes import HandshakeError as HandshakeError
    from dtp.session.codes import HandshakeRefused as HandshakeRefused
    from dtp.session.codes import StreamClosed as StreamClosed
    from dtp.session.codes import StreamRefused as StreamRefused
    from dtp.session.codes import StreamReset as StreamReset
    from dtp.session.codes import TooManyStreams as TooManyStreams
    from dtp.session.codes import WrongIdentity as WrongIdentity
    from dtp.session.limits import Limits as Limits

#: Public name -> the module that has it, or that it is.
_PUBLIC = {
    "Address": "dtp.net.address",
    "AddressError": "dtp.net.address",
    "Broadcast": "dtp.broadcast.producing",
    "BudgetSpent": "dtp.pay.errors",
    "BudgetTooSmall": "dtp.pay.errors",
    "Calls": "dtp.messaging.calls.calling",
    "CarrierError": "dtp.errors",
    "ChainError": "dtp.errors",
    "ChargeDeclined": "dtp.pay.errors",
    "CloseCode": "dtp.session.codes",
    "CloseDetail": "dtp.session.codes",
    "ConfigError": "dtp.errors",
    "Connection": "dtp.net.connection",
    "ConnectionClosed": "dtp.session.codes",
    "ConnectionLost": "dtp.session.codes",
    "ConnectionRefused": "dtp.session.codes",
    "CountsDisputed": "dtp.pay.errors",
    "DatagramTooLarge": "dtp.session.codes",
    "DialError": "dtp.carriers.errors",
    "DialTimeout": "dtp.net.dial",
    "DtpError": "dtp.errors",
    "Exposure": "dtp.pay.terms",
    "Graph": "dtp.graph",
    "HandshakeError": "dtp.session.codes",
    "HandshakeRefused": "dtp.session.codes",
    "Identity": "dtp.identity",
    "IdentityError": "dtp.identity",
    "IdentityFileError": "dtp.identity",
    "LimitError": "dtp.errors",
    "Limits": "dtp.session.limits",
    "Link": "dtp.crdt",
    "ListenError": "dtp.carriers.errors",
    "Listener": "dtp.net.listener",
    "LocalError": "dtp.errors",
    "LoginFailed": "dtp.messaging.login.errors",
    "LoginSession": "dtp.messaging.login.client",
    "Messenger": "dtp.messaging.person.messenger",
    "Metered": "dtp.pay.metered",
    "Node": "dtp.node.node",
    "NotApproved": "dtp.pay.errors",
    "NotResolved": "dtp.net.resolver",
    "PaidRequest": "dtp.pay.metered",
    "Patience": "dtp.broadcast.parents",
    "PeerError": "dtp.errors",
    "PeerId": "dtp.identity",
    "PeerIdError": "dtp.identity",
    "Place": "dtp.broadcast.places",
    "Policy": "dtp.pay.claims",
    "PriceTooHigh": "dtp.pay.errors",
    "Refuse": "dtp.net.listener",
    "Request": "dtp.net.listener",
    "ResolveFailed": "dtp.net.resolver",
    "Resolver": "dtp.net.resolver",
    "Selling": "dtp.pay.serving",
    "Serving": "dtp.pay.serving",
    "Spending": "dtp.pay.terms",
    "Stats": "dtp.net.parts.stats",
    "Stream": "dtp.net.stream",
    "StreamClosed": "dtp.session.codes",
    "StreamRefused": "dtp.session.codes",
    "StreamReset": "dtp.session.codes",
    "StreamServer": "dtp.aio.streams",
    "StreamTransport": "dtp.aio.transport",
    "Terms": "dtp.chain.host",
    "TooManyStreams": "dtp.session.codes",
    "WrongIdentity": "dtp.session.codes",
    "connect": "dtp.pay.dial",
    "create_connection": "dtp.aio.streams",
    "create_server": "dtp.aio.streams",
    "listen": "dtp.net.listener",
    "listen_to": "dtp.broadcast.hearing",
    "login": "dtp.messaging.login.client",
    "open_connection": "dtp.aio.streams",
    "recover_account": "dtp.messaging.login.client",
    "register_account": "dtp.messaging.login.client",
    "serve": "dtp.pay.serving",
    "socket": "dtp.socket",
    "start_server": "dtp.aio.streams",
    "stream_handler": "dtp.aio.streams",
}

__all__ = sorted(_PUBLIC)


class _NotInstalled:
    """Stands for a public name that needs a library which isn't installed. Using it raises the error that says what
    to install; asking for the name doesn't, so that `hasattr`, `from dtp import *` and `inspect` work."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __call__(self, *args: object, **kwargs: object) -> NoReturn:
        raise self._error.with_traceback(None)

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        self()

    def __instancecheck__(self, value: object) -> bool:
        return False

    def __mro_entries__(self, bases: tuple[object, ...]) -> NoReturn:
        self()


def __getattr__(name: str) -> Any:
    module = _PUBLIC.get(name)
    if module is None:
        raise AttributeError(f"module 'dtp' has no attribute {name!r}")
    from dtp.errors import LocalError  # here, since a program that begins can be interrupted with a traceback

    try:
        value = importlib.import_module(module)
    except LocalError as error:
        return _NotInstalled(error)
    if module != f"{__name__}.{name}":
        value = getattr(value, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
