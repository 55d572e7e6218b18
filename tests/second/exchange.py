"""Fresh keys (docs/wire.md): what is signed, and the keys that an exchange gives."""

import hashlib
import hmac
import struct
from dataclasses import dataclass

from .noise import NoiseFault, dh, public
from .wire import Breach, Code, Refused, check_proof, prove


def sha(key: bytes, data: bytes) -> bytes:
    return hmac.new(key, data, hashlib.sha256).digest()


def what_client_signs(h: bytes, n: int, client_key: bytes) -> bytes:
    return b"dtp.exchange.client.v1" + h + struct.pack(">Q", n) + client_key


def what_server_signs(h: bytes, n: int, client_key: bytes, server_key: bytes) -> bytes:
    return b"dtp.exchange.server.v1" + h + struct.pack(">Q", n) + client_key + server_key


def next_root(root: bytes, private: bytes, other: bytes, client_key: bytes, server_key: bytes) -> bytes:
    try:
        shared = dh(private, other)
    except NoiseFault as error:
        raise Breach(Code.PROTOCOL, "X25519 gives zeros") from error
    return sha(root, b"dtp.exchange.v1" + shared + client_key + server_key)


@dataclass
class Exchanger:
    """The exchanges of one link, seen from one side. `receive_key`, `send_key` wait until a REKEY takes them."""

    client: bool
    h: bytes
    root: bytes
    seed: bytes
    peer: bytes
    n: int = 0
    private: bytes | None = None
    receive_key: bytes | None = None
    send_key: bytes | None = None

    @property
    def is_over(self) -> bool:
        """True when another one may begin."""
        return self.private is None and self.receive_key is None and self.send_key is None

    def check(self, signed: bytes, signature: bytes) -> None:
        try:
            check_proof(self.peer, signed, signature)
        except Refused as error:
            raise Breach(Code.PROTOCOL, "EXCHANGE is not the identity's") from error

    def ask(self, private: bytes) -> tuple[bytes, bytes]:
        """Client: the fields of its EXCHANGE."""
        assert self.client
        assert self.is_over
        self.private = private
        key = public(private)
        return key, prove(self.seed, what_client_signs(self.h, self.n + 1, key))

    def answer(self, key: bytes, signature: bytes, private: bytes) -> tuple[bytes, bytes]:
        """Server: the fields of its EXCHANGE."""
        if not self.is_over:
            raise Breach(Code.PROTOCOL, "EXCHANGE before the one before is done")
        self.check(what_client_signs(self.h, self.n + 1, key), signature)
        mine = public(private)
        self.root = next_root(self.root, private, key, key, mine)
        self.n += 1
        self.receive_key, self.send_key = sha(self.root, b"client"), sha(self.root, b"server")
        return mine, prove(self.seed, what_server_signs(self.h, self.n, key, mine))

    def heard(self, key: bytes, signature: bytes) -> None:
        """Client: the server's EXCHANGE has come."""
        if self.private is None:
            raise Breach(Code.PROTOCOL, "EXCHANGE that was not asked for")
        mine = public(self.private)
        self.check(what_server_signs(self.h, self.n + 1, mine, key), signature)
        self.root = next_root(self.root, self.private, key, mine, key)
        self.n, self.private = self.n + 1, None
        self.send_key, self.receive_key = sha(self.root, b"client"), sha(self.root, b"server")
