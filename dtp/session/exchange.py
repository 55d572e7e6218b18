"""Keys of a fresh exchange, on a link that goes on: who has got hold of the present ones reads nothing that follows.

Source: docs/wire.md, "Fresh keys". The client asks, the server answers, each signs; then each changes over by a REKEY
that says FRESH, the client first.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from dtp.identity import Identity, PeerId
from dtp.session.codes import ProtocolError
from dtp.session.frames import EXCHANGE, FrameType, Outgoing, control

CLIENT_CONTEXT: Final = b"dtp.exchange.client.v1"
SERVER_CONTEXT: Final = b"dtp.exchange.server.v1"
ROOT_CONTEXT: Final = b"dtp.exchange.v1"
#: What a request counts as, of the frames that move nothing: two signatures and two products of points, 0.3 ms.
COST: Final = 256
#: Over a carrier that is slow by nature, and mostly paid for by the message, there are so many times its patience
#: between two exchanges.
SLOW: Final = 60
#: Whether one is due is looked at so often, seconds: sealing a message costs 3 us, and looking 0.3.
LOOK: Final = 0.1


@dataclass(frozen=True, slots=True)
class Exchanges:
    """What a side needs for its exchanges: the identity that signs them, and what draws random bytes."""

    identity: Identity
    entropy: Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class FreshKeys:
    """What an exchange gives, 32 bytes each: `root` is for the next one."""

    root: bytes
    client: bytes
    server: bytes


class LinkExchange:
    """The exchanges of one link. `root` and `link_hash` (32 bytes) are those of its handshake.

    What is forged raises `ProtocolError` and changes nothing.
    """

    __slots__ = (
        "_link_hash",
        "_number",
        "_own_key",
        "_private",
        "_root",
        "asked_at",
        "changing",
        "look_at",
        "moved",
        "since",
    )

    def __init__(self, root: bytes, link_hash: bytes, now: float) -> None:
        self._root, self._link_hash = root, link_hash
        self._number = 0  # of the last one that was agreed on
        self._private: X25519PrivateKey | None = None
        self._own_key = b""
        #: When the keys in use were made, and what had moved by then (`Session.moved`).
        self.since, self.moved = now, 0
        #: From then on it is worth to look whether others are due.
        self.look_at = now
        #: Client: when it asked for those to come; None when both sides have changed over.
        self.asked_at: float | None = None
        #: True from the agreement until the peer has changed over.
        self.changing = False

    @property
    def root(self) -> bytes:
        """The root of the exchange that was agreed on last, or of the handshake: for the keys of packets."""
        return self._root

    def begin_exchange(self, own: Exchanges, now: float) -> Outgoing:
        """Return, as the client, the frame that asks for fresh keys."""
        self._private = X25519PrivateKey.from_private_bytes(own.entropy(32))
        self.asked_at = now
        key = self._private.public_key().public_bytes_raw()
        return control(FrameType.EXCHANGE, EXCHANGE.pack(key, own.identity.sign(self._client_signs(key))))

    def answer_exchange(
        self, own: Exchanges, peer: PeerId, key: bytes, signature: bytes
    ) -> tuple[Outgoing, FreshKeys]:
        """Return, as the server, the frame that answers the client's, and the keys that both have then."""
        if not peer.verify(signature, self._client_signs(key)):
            raise ProtocolError("the client has not signed its EXCHANGE")
        private = X25519PrivateKey.from_private_bytes(own.entropy(32))
        public = private.public_key().public_bytes_raw()
        fresh = self._derive_keys(private, key, key, public)
        frame = control(
            FrameType.EXCHANGE, EXCHANGE.pack(public, own.identity.sign(self._server_signs(key, public)))
        )
        self._take_keys(fresh)
        self._own_key = fresh.server
        return frame, fresh

    def finish_exchange(self, peer: PeerId, key: bytes, signature: bytes) -> FreshKeys:
        """Return, as the client, the keys that both have, by the server's answer."""
        private = self._private
        if private is None:
            raise ProtocolError("EXCHANGE that was not asked for")
        public = private.public_key().public_bytes_raw()
        if not peer.verify(signature, self._server_signs(public, key)):
            raise ProtocolError("the server has not signed its EXCHANGE")
        fresh = self._derive_keys(private, key, public, key)
        self._take_keys(fresh)
        return fresh

    def finish_change(self, now: float, moved: int) -> bytes:
        """Note that the peer seals under its fresh key now. Return the server's own, which it has not taken yet."""
        self.changing, self.asked_at = False, None
        self.since, self.moved = now, moved
        key, self._own_key = self._own_key, b""
        return key

    def close(self) -> None:
        """Forget the secrets."""
        self._root, self._own_key, self._private = b"", b"", None

    def _client_signs(self, client: bytes) -> bytes:
        return CLIENT_CONTEXT + self._link_hash + (self._number + 1).to_bytes(8) + client

    def _server_signs(self, client: bytes, server: bytes) -> bytes:
        return SERVER_CONTEXT + self._link_hash + (self._number + 1).to_bytes(8) + client + server

    def _derive_keys(self, private: X25519PrivateKey, key: bytes, client: bytes, server: bytes) -> FreshKeys:
        try:
            shared = private.exchange(X25519PublicKey.from_public_bytes(key))
        except ValueError:  # all zero: a key of small order
            raise ProtocolError("EXCHANGE with a key that agrees on nothing") from None
        root = hmac.digest(self._root, ROOT_CONTEXT + shared + client + server, "sha256")
        return FreshKeys(root, hmac.digest(root, b"client", "sha256"), hmac.digest(root, b"server", "sha256"))

    def _take_keys(self, fresh: FreshKeys) -> None:
        self._root, self._private = fresh.root, None
        self._number += 1
        self.changing = True
