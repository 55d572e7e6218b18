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
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dtp import socket as socket
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
    from dtp.identity import PeerId as PeerId
    from dtp.net.address import Address as Address
    from dtp.net.connection import Connection as Connection
    from dtp.net.connection import Stats as Stats
    from dtp.net.listener import Listener as Listener
    from dtp.net.listener import Refuse as Refuse
    from dtp.net.listener import Request as Request
    from dtp.net.listener import listen as listen
    from dtp.net.stream import Stream as Stream
    from dtp.net.streams import StreamServer as StreamServer
    from dtp.net.streams import create_connection as create_connection
    from dtp.net.streams import create_server as create_server
    from dtp.net.streams import open_connection as open_connection
    from dtp.net.streams import start_server as start_server
    from dtp.net.streams import stream_handler as stream_handler
    from dtp.net.transport import StreamTransport as StreamTransport
    from dtp.pay.dial import connect as connect
    from dtp.pay.metered import Metered as Metered
    from dtp.pay.metered import PaidRequest as PaidRequest
    from dtp.pay.serving import Serving as Serving
    from dtp.pay.serving import serve as serve
    from dtp.session.codes import ConnectionClosed as ConnectionClosed
    from dtp.session.codes import ConnectionLost as ConnectionLost
    from dtp.session.codes import ConnectionRefused as ConnectionRefused
    from dtp.session.codes import HandshakeError as HandshakeError
    from dtp.session.codes import StreamReset as StreamReset
    from dtp.session.codes import WrongIdentity as WrongIdentity
    from dtp.session.limits import Limits as Limits

__version__ = "0.1.0"

#: Public name -> the module that has it, or that it is.
_PUBLIC = {
    "Address": "dtp.net.address",
    "CarrierError": "dtp.errors",
    "ChainError": "dtp.errors",
    "ConfigError": "dtp.errors",
    "Connection": "dtp.net.connection",
    "ConnectionClosed": "dtp.session.codes",
    "ConnectionLost": "dtp.session.codes",
    "ConnectionRefused": "dtp.session.codes",
    "DtpError": "dtp.errors",
    "Graph": "dtp.graph",
    "HandshakeError": "dtp.session.codes",
    "Identity": "dtp.identity",
    "LimitError": "dtp.errors",
    "Limits": "dtp.session.limits",
    "Link": "dtp.crdt",
    "Listener": "dtp.net.listener",
    "LocalError": "dtp.errors",
    "Metered": "dtp.pay.metered",
    "PaidRequest": "dtp.pay.metered",
    "PeerError": "dtp.errors",
    "PeerId": "dtp.identity",
    "Refuse": "dtp.net.listener",
    "Request": "dtp.net.listener",
    "Serving": "dtp.pay.serving",
    "Stats": "dtp.net.connection",
    "Stream": "dtp.net.stream",
    "StreamReset": "dtp.session.codes",
    "StreamServer": "dtp.net.streams",
    "StreamTransport": "dtp.net.transport",
    "WrongIdentity": "dtp.session.codes",
    "connect": "dtp.pay.dial",
    "create_connection": "dtp.net.streams",
    "create_server": "dtp.net.streams",
    "listen": "dtp.net.listener",
    "open_connection": "dtp.net.streams",
    "serve": "dtp.pay.serving",
    "socket": "dtp.socket",
    "start_server": "dtp.net.streams",
    "stream_handler": "dtp.net.streams",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    module = _PUBLIC.get(name)
    if module is None:
        raise AttributeError(f"module 'dtp' has no attribute {name!r}")
    value = importlib.import_module(module)
    if module != f"{__name__}.{name}":
        value = getattr(value, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
