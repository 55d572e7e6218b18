"""The handshake as a value: bytes in, bytes out, and in the end keys and a known peer.

Source: docs/wire.md, sections "Hello" and "Handshake". On a carrier that keeps the order each message is
`u16 length, message`; the client's first is preceded by the hello. Length 0 is a refusal: `u16 code` follows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from dtp.errors import LocalError
from dtp.identity import Identity, PeerId
from dtp.session.codes import HandshakeError, HandshakeRefused, Refusal, WrongIdentity
from dtp.session.limits import DEFAULT, Limits
from dtp.session.noise import KEY, MAX_MESSAGE, HandshakePattern, NoiseHandshake, Split, StaticKey, Suite
from dtp.session.payload import VERSIONS, Params, Payload, build_payload, choose_version, parse_payload

MAGIC = b"DTP"
WIRE_VERSION = 1
#: magic, version, pattern, suite, suites that are offered
HELLO = 7
#: Go before what an identity signs in a handshake: a signature of one role is of no use in the other.
CLIENT_CONTEXT = b"dtp.client.v1"
SERVER_CONTEXT = b"dtp.server.v1"

#: Draws `n` random bytes; an argument, so that a handshake can be repeated exactly in a test.
Entropy = Callable[[int], bytes]
#: Makes the ticket for this handshake from its binding (32 bytes) and the peer that was proven.
Ticket = Callable[[bytes, PeerId | None], bytes]


def offer(suites: Iterable[Suite]) -> int:
    """Return the byte of the hello that says which suites a client would use: a bit for each."""
    return sum(1 << suite - 1 for suite in set(suites))


@dataclass(frozen=True)
class HandshakeConfig:
    """What one side brings to its handshakes, the same for all of them. `LocalError` for a `psk` not of 32 bytes."""

    identity: Identity
    suites: tuple[Suite, ...]
    limits: Limits = DEFAULT
    features: frozenset[str] = frozenset()
    psk: bytes | None = None
    static: StaticKey = field(init=False)

    def __post_init__(self) -> None:
        if not isinstance(self.identity, Identity):
            raise TypeError(f"identity has to be a dtp.Identity, not {type(self.identity).__name__}")
        if self.psk is not None and len(self.psk) != KEY:
            raise LocalError(
                f"a pre-shared key has {KEY} bytes, not {len(self.psk)}: hash a longer secret to that many"
            )
        object.__setattr__(self, "static", StaticKey(self.identity.static_private))


@dataclass(frozen=True, slots=True)
class Established:
    """A finished handshake. `binding` (32 bytes) is what a ticket in `payload` must be bound to."""

    split: Split
    pattern: HandshakePattern
    suite: Suite
    peer: PeerId
    payload: Payload
    binding: bytes
    version: int

    def to_message(self) -> dict[str, object]:
        """Return it as numbers and bytes, for another process of this program, of whichever version."""
        return {
            "split": asdict(self.split),
            "pattern": int(self.pattern),
            "suite": int(self.suite),
            "payload": build_payload(self.payload),
            "binding": self.binding,
            "version": self.version,
        }

    @classmethod
    def from_message(cls, message: Mapping[str, Any]) -> Established:
        """Return what `to_message` was of. Raises `HandshakeError` where another version says it otherwise."""
        try:
            payload = parse_payload(message["payload"], DEFAULT)
            return cls(
                split=Split(**message["split"]),
                pattern=HandshakePattern(message["pattern"]),
                suite=Suite(message["suite"]),
                peer=payload.peer,
                payload=payload,
                binding=message["binding"],
                version=message["version"],
            )
        except (LookupError, TypeError, ValueError) as error:
            raise HandshakeError(f"a handshake of another version of this program: {error}") from None


class _Handshake:
    """What both roles share: framing, payloads, and the check of who the peer is."""

    def __init__(self, endpoint: HandshakeConfig, entropy: Entropy) -> None:
        self._endpoint = endpoint
        self._entropy = entropy
        self._out = bytearray()
        self._noise: NoiseHandshake
        self._hello = b""
        self._peer_payload: Payload | None = None
        self._version = 0
        self.established: Established | None = None

    def data_to_send(self) -> bytes:
        """Return the bytes to send now; each is given once."""
        out = bytes(self._out)
        self._out.clear()
        return out

    def receive_data(self, data: bytes | memoryview) -> int:
        """Take whole messages from the front of `data` and return how many bytes they had.

        Stops behind the message that finishes the handshake: what follows are records. `HandshakeError` ends the
        handshake; `data_to_send()` may then hold a refusal to send before closing.
        """
        used = 0
        while self.established is None:
            taken = self._take_message(bytes(data[used : used + HELLO + 2 + MAX_MESSAGE]))
            if not taken:
                break
            used += taken
        return used

    @property
    def _longest(self) -> int:
        """Return the bytes of the largest message: its payload, keys and tags."""
        return self._endpoint.limits.payload + 512

    def _take_message(self, data: bytes) -> int:
        raise NotImplementedError

    def _split_message(self, data: bytes, start: int = 0) -> tuple[bytes, int] | None:
        """Return the message at `start` and where it ends; None while it is not whole."""
        if len(data) < start + 2:
            return None
        size = int.from_bytes(data[start : start + 2])
        if size == 0:
            if len(data) < start + 4:
                return None
            raise HandshakeRefused(int.from_bytes(data[start + 2 : start + 4]))
        end = start + 2 + size
        if size > self._longest:
            raise self._make_refusal(
                Refusal.FAILED,
                f"a handshake message of {size:,} bytes: something else than DTP may be at that end",
            )
        return (data[start + 2 : end], end) if len(data) >= end else None

    def _send_message(self, message: bytes) -> None:
        self._out += len(message).to_bytes(2) + message

    def _make_refusal(self, refusal: Refusal, message: str) -> HandshakeError:
        self._out += bytes(2) + int(refusal).to_bytes(2)
        return HandshakeError(message)

    def _start_noise(
        self,
        pattern: HandshakePattern,
        suite: Suite,
        offered: int,
        *,
        initiator: bool,
        remote_static: bytes | None,
    ) -> None:
        self._pattern, self._suite = pattern, suite
        self._hello = MAGIC + bytes([WIRE_VERSION, pattern, suite, offered])
        self._noise = NoiseHandshake(
            pattern,
            suite,
            initiator=initiator,
            prologue=b"dtp.noise.v1" + self._hello,
            static=self._endpoint.static,
            ephemeral=self._entropy(32),
            remote_static=remote_static,
            psk=self._endpoint.psk if pattern.psk else None,
        )

    def _make_payload(self, service: str = "", ticket: bytes = b"", resume: bytes = b"") -> bytes:
        identity = self._endpoint.identity
        return build_payload(
            Payload(
                peer=identity.id,
                proof=identity.sign(self._signed_here()),
                params=Params.from_limits(self._endpoint.limits),
                features=self._endpoint.features,
                service=service,
                ticket=ticket,
                resume=resume,
            )
        )

    def _check_payload(self, data: bytes, *, from_server: bool) -> Payload:
        """Parse the peer's payload and check all of it that is not the caller's to judge, before ours is sent."""
        payload = parse_payload(data, self._endpoint.limits, from_server=from_server)
        if not payload.peer.verify(payload.proof, self._signed_there()):
            raise HandshakeError(f"{payload.peer.short} has not signed this handshake")
        self._version = choose_version(VERSIONS, payload.versions)
        self._peer_payload = payload
        return payload

    def _signed_here(self) -> bytes:
        """Return what our identity signs of this handshake."""
        raise NotImplementedError

    def _signed_there(self) -> bytes:
        """Return what the peer's identity must have signed."""
        raise NotImplementedError

    def _server_signs(self, client_ephemeral: bytes, server_ephemeral: bytes, server_static: bytes) -> bytes:
        return SERVER_CONTEXT + self._hello + client_ephemeral + server_ephemeral + server_static

    def _make_binding(self, client_ephemeral: bytes, client_static: bytes, server_static: bytes) -> bytes:
        parts = b"dtp.binding.v1" + self._hello + client_ephemeral + client_static + server_static
        return hashlib.sha256(parts).digest()

    def _set_established(self, binding: bytes) -> None:
        split, payload = self._noise.split, self._peer_payload
        assert split is not None
        assert payload is not None
        self.established = Established(
            split, self._pattern, self._suite, payload.peer, payload, binding, self._version
        )


class ClientHandshake(_Handshake):
    """The side that dials.

    `expected` is the identity that the address names: anyone else is `WrongIdentity`, and has then learned
    nothing about us. With `remote_static` (remembered from an earlier connection) the pattern is IK, else XX.
    """

    def __init__(
        self,
        endpoint: HandshakeConfig,
        entropy: Entropy,
        *,
        expected: PeerId | None,
        suite: Suite,
        service: str = "",
        remote_static: bytes | None = None,
        ticket: Ticket | None = None,
        resume: bytes = b"",
    ) -> None:
        super().__init__(endpoint, entropy)
        self._expected = expected
        self._service = service
        self._ticket = ticket
        self._resume = resume
        psk = endpoint.psk is not None
        if remote_static is None:
            pattern = HandshakePattern.XXpsk0 if psk else HandshakePattern.XX
        else:
            pattern = HandshakePattern.IKpsk0 if psk else HandshakePattern.IK
        offered = offer({suite, *endpoint.suites})
        self._start_noise(pattern, suite, offered, initiator=True, remote_static=remote_static)
        self._out += self._hello
        # XX sends its first payload in the clear: it stays empty.
        self._send_message(self._noise.write_message(b"" if remote_static is None else self._own_payload()))

    def _own_payload(self) -> bytes:
        ticket = self._ticket(self._client_binding(), self._expected) if self._ticket is not None else b""
        return self._make_payload(self._service, ticket, self._resume)

    def _signed_here(self) -> bytes:
        return CLIENT_CONTEXT + self._client_binding()

    def _signed_there(self) -> bytes:
        noise = self._noise
        static = noise.remote_static
        assert static is not None
        return self._server_signs(noise.ephemeral_public, noise.remote_ephemeral, static)

    def _client_binding(self) -> bytes:
        static = self._noise.remote_static
        assert static is not None
        return self._make_binding(self._noise.ephemeral_public, self._endpoint.static.public, static)

    def _take_message(self, data: bytes) -> int:
        found = self._split_message(data)
        if found is None:
            return 0
        message, end = found
        payload = self._check_payload(self._noise.read_message(message), from_server=True)
        if self._expected is not None and payload.peer != self._expected:
            raise WrongIdentity(f"expected {self._expected}, but {payload.peer} answered")
        if self._pattern.messages == 3:
            self._expected = payload.peer
            self._send_message(self._noise.write_message(self._own_payload()))
        self._set_established(self._client_binding())
        return end


class ServerHandshake(_Handshake):
    """The side that listens. With a pre-shared key in `endpoint` only the psk patterns are taken, and whoever has not
    shown that he holds it hears nothing, not even a refusal."""

    def __init__(self, endpoint: HandshakeConfig, entropy: Entropy) -> None:
        super().__init__(endpoint, entropy)
        self._reading_first = True

    @property
    def has_answered(self) -> bool:
        """True once the first message was read: what comes now is from whoever has heard the answer to it."""
        return not self._reading_first

    def lacks_more(self, data: memoryview) -> bool:
        """True if `data` is the fit beginning of the next message, and no more: nothing can be done with it yet."""
        start = HELLO if self._reading_first else 0
        if self._reading_first and bytes(data[:4]) != (MAGIC + bytes([WIRE_VERSION]))[: len(data)]:
            return False
        size = int.from_bytes(data[start : start + 2])
        if len(data) >= start + 2 and not 0 < size <= self._longest:
            return False
        return len(data) < start + 2 + size

    def _take_message(self, data: bytes) -> int:
        start = 0
        if not self._hello:
            if not MAGIC.startswith(data[:3]):
                raise HandshakeError("not a DTP handshake")
            if len(data) < HELLO:
                return 0
            self._read_hello(data)
        if self._reading_first:
            start = HELLO
        found = self._split_message(data, start)
        if found is None:
            return 0
        message, end = found
        refusal = Refusal.FAILED
        try:
            payload = self._noise.read_message(message)
            first, self._reading_first = self._reading_first, False
            if self._is_downgraded():
                refusal = Refusal.DOWNGRADE
                raise HandshakeError("both sides have a better suite than the one in use")
            self._read_payload(payload, first=first)
        except HandshakeError as error:
            raise self._make_refusal(refusal, str(error)) from None
        return end

    def _make_refusal(self, refusal: Refusal, message: str) -> HandshakeError:
        if self._endpoint.psk is not None and self._reading_first:
            return HandshakeError(message)
        return super()._make_refusal(refusal, message)

    def _is_downgraded(self) -> bool:
        """True where both have a better suite: somebody has forged the refusal that led to this one."""
        better = offer([self._suite]) - 1
        return bool(self._hello[-1] & offer(self._endpoint.suites) & better)

    def _read_hello(self, data: bytes) -> None:
        version, pattern, suite, offered = data[3], data[4], data[5], data[6]
        if version != WIRE_VERSION:
            raise self._make_refusal(Refusal.VERSION, f"handshake version {version}, we speak {WIRE_VERSION}")
        if pattern not in list(HandshakePattern) or HandshakePattern(pattern).psk != (
            self._endpoint.psk is not None
        ):
            raise self._make_refusal(Refusal.SUITE, f"handshake pattern {pattern} is not accepted here")
        if suite not in self._endpoint.suites or not offered & offer([Suite(suite)]):
            raise self._make_refusal(Refusal.SUITE, f"cipher suite {suite} is not accepted here")
        self._start_noise(
            HandshakePattern(pattern), Suite(suite), offered, initiator=False, remote_static=None
        )

    def _signed_here(self) -> bytes:
        noise = self._noise
        return self._server_signs(
            noise.remote_ephemeral, noise.ephemeral_public, self._endpoint.static.public
        )

    def _signed_there(self) -> bytes:
        return CLIENT_CONTEXT + self._client_binding()

    def _client_binding(self) -> bytes:
        static = self._noise.remote_static
        assert static is not None
        return self._make_binding(self._noise.remote_ephemeral, static, self._endpoint.static.public)

    def _read_payload(self, data: bytes, *, first: bool) -> None:
        """Take the payload of a message that was authentic: answer it, or finish."""
        if first and self._pattern.messages == 3:
            if data:
                raise HandshakeError("the first message of XX carries no payload")
            self._send_message(self._noise.write_message(self._make_payload()))
            return
        self._check_payload(data, from_server=False)
        if first:
            self._send_message(self._noise.write_message(self._make_payload()))
        self._set_established(self._client_binding())
