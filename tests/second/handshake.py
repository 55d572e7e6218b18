"""The handshake of docs/wire.md, both roles: bytes in, bytes out, and a `Keys` at the end."""

import struct
from collections.abc import Iterable
from dataclasses import dataclass, replace

from .noise import PATTERNS, SUITES, Noise, NoiseFault, mac, public
from .wire import (
    PATTERN_NAMES,
    SUITE_NAMES,
    Payload,
    Refusal,
    Refused,
    binding,
    check_proof,
    connection_id,
    decode_payload,
    hello,
    identity_public,
    offer,
    prologue,
    prove,
    what_client_signs,
    what_server_signs,
)


@dataclass
class Person:
    """An identity's seed (32 bytes), its static private key (32 bytes)."""

    seed: bytes
    static: bytes

    @property
    def id(self) -> bytes:
        return identity_public(self.seed)

    @property
    def static_public(self) -> bytes:
        return public(self.static)

    def payload(self, **more: object) -> Payload:
        """This person's payload, with the given entries; the handshake adds the proof unless it is one of them."""
        return Payload(self.id, **more)  # type: ignore[arg-type]


@dataclass
class Keys:
    """A finished handshake, seen from one side. `rest` are bytes that came behind its last message."""

    client: bool
    pattern: str
    suite: str
    send: bytes
    receive: bytes
    h: bytes
    secret: bytes
    root: bytes
    seed: bytes
    peer: Payload
    mine: Payload
    binding: bytes
    rest: bytes

    @property
    def connection_id(self) -> bytes:
        return connection_id(self.h)


class Handshake:
    """One side of a handshake. Raises Refused, after which `out` may hold what to say before closing."""

    def __init__(
        self,
        client: bool,
        me: Person,
        ephemeral: bytes,
        payload: Payload,
        *,
        pattern: str | None = None,
        suite: str | None = None,
        server: Person | None = None,
        psk: bytes | None = None,
        suites: Iterable[str] = (),
    ) -> None:
        """`suites`: all that the client would use, besides `suite`; all that the server takes (all there are)."""
        self.suites = set(suites or (() if client else SUITES))
        self.client, self.me, self.ephemeral, self.payload, self.psk = client, me, ephemeral, payload, psk
        self.server = server
        self.buffer = b""
        self.out = b""
        self.keys: Keys | None = None
        self.theirs: Payload | None = None
        self.noise: Noise | None = None
        if client:
            assert pattern is not None
            assert suite is not None
            assert server is not None
            self.begin(pattern, suite, hello(pattern, suite, self.suites))
            self.out += self.hello
            self.write()

    def begin(self, pattern: str, suite: str, seven: bytes) -> None:
        self.pattern, self.suite, self.hello = pattern, suite, seven
        self.message = 0
        known = self.server.static_public if self.server is not None and PATTERNS[pattern][0] else None
        self.noise = Noise(
            pattern,
            suite,
            self.client,
            prologue(seven),
            s=self.me.static,
            e=self.ephemeral,
            rs=known,
            psk=self.psk,
        )

    @property
    def carries(self) -> bool:
        """Whether the message that is next has a payload: all but the first of XX."""
        return PATTERNS[self.pattern][0] or self.message > 0

    def feed(self, data: bytes) -> None:
        """Takes bytes from the carrier; answers pile up in `out`."""
        self.buffer += data
        if self.noise is None and not self.read_hello():
            return
        while self.keys is None and len(self.buffer) >= 2:
            (length,) = struct.unpack_from(">H", self.buffer)
            if length == 0:
                if len(self.buffer) < 4:
                    return
                raise Refused(struct.unpack_from(">H", self.buffer, 2)[0], "heard from the peer", heard=True)
            if len(self.buffer) < 2 + length:
                return
            message, self.buffer = self.buffer[2 : 2 + length], self.buffer[2 + length :]
            self.read(message)

    def refuse(self, code: Refusal, why: str) -> Refused:
        if self.psk is None or self.message:  # who hasn't shown the key hears nothing
            self.out += struct.pack(">HH", 0, code)
        return Refused(code, why)

    def read_hello(self) -> bool:
        if not b"DTP".startswith(self.buffer[:3]):
            raise Refused(0, "not DTP: nothing is said")
        if len(self.buffer) < 7:
            return False
        seven, self.buffer = self.buffer[:7], self.buffer[7:]
        if seven[3] != 1:
            raise self.refuse(Refusal.VERSION, f"version {seven[3]}")
        pattern, suite = PATTERN_NAMES.get(seven[4]), SUITE_NAMES.get(seven[5])
        if pattern is None or suite not in self.suites or ("psk" in pattern) != (self.psk is not None):
            raise self.refuse(Refusal.SUITE, f"pattern {seven[4]}, suite {seven[5]}")
        if not seven[6] & offer([suite]):
            raise self.refuse(Refusal.SUITE, "a suite that the client says it wouldn't use")
        self.begin(pattern, suite, seven)
        return True

    def signed(self, by_client: bool) -> bytes:
        """What the client's or the server's identity signs of this handshake."""
        assert self.noise is not None
        mine_e, other_e = public(self.ephemeral), self.noise.re
        mine_s, other_s = self.me.static_public, self.noise.rs
        client_e, server_e = (mine_e, other_e) if self.client else (other_e, mine_e)
        client_s, server_s = (mine_s, other_s) if self.client else (other_s, mine_s)
        assert client_e is not None
        assert server_s is not None
        if by_client:
            assert client_s is not None
            return what_client_signs(binding(self.hello, client_e, client_s, server_s))
        assert server_e is not None
        return what_server_signs(self.hello, client_e, server_e, server_s)

    def write(self) -> None:
        assert self.noise is not None
        if self.carries and not self.payload.proof:
            signed = self.signed(self.client)
            self.payload = replace(self.payload, proof=prove(self.me.seed, signed))
        sent = self.noise.write_message(self.payload.encode() if self.carries else b"")
        self.out += struct.pack(">H", len(sent)) + sent
        self.message += 1
        self.finish()

    def read(self, message: bytes) -> None:
        assert self.noise is not None
        carries = self.carries
        try:
            data = self.noise.read_message(message)
            self.message += 1
            better = self.hello[6] & offer(self.suites) & (offer([self.suite]) - 1)
            if better and not self.client:
                raise Refused(Refusal.DOWNGRADE, "both have a better suite")
            if carries:
                self.theirs = decode_payload(data, from_server=self.client)
                check_proof(self.theirs.id, self.signed(not self.client), self.theirs.proof)
                if self.server is not None and self.theirs.id != self.server.id:
                    raise Refused(Refusal.FAILED, "not the identity that was dialled")
            elif data:
                raise Refused(Refusal.FAILED, "the first payload of XX is not empty")
        except NoiseFault as error:
            raise self.refuse(Refusal.FAILED, str(error)) from error
        except Refused as error:
            raise self.refuse(Refusal(error.code), str(error)) from error
        self.finish()
        if self.keys is None:
            self.write()

    def finish(self) -> None:
        noise = self.noise
        assert noise is not None
        if noise.keys is None:
            return
        assert self.theirs is not None
        assert noise.rs is not None
        assert noise.re is not None
        first, backward = noise.keys
        client_e, client_s, server_s = (
            (public(self.ephemeral), self.me.static_public, noise.rs)
            if self.client
            else (noise.re, noise.rs, self.me.static_public)
        )
        self.keys = Keys(
            self.client,
            self.pattern,
            self.suite,
            send=first if self.client else backward,
            receive=backward if self.client else first,
            h=noise.h,
            secret=mac(self.suite, noise.ck, b"dtp.resume.v1"),
            root=mac(self.suite, noise.ck, b"dtp.exchange.v1"),
            seed=self.me.seed,
            peer=self.theirs,
            mine=self.payload,
            binding=binding(self.hello, client_e, client_s, server_s),
            rest=self.buffer,
        )
        self.buffer = b""
