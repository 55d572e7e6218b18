"""The handshake of docs/wire.md, both roles: bytes in, bytes out, and a `Keys` at the end."""

import struct
from dataclasses import dataclass

from .noise import PATTERNS, Noise, NoiseFault, mac, public
from .wire import (
    PATTERN_NAMES,
    SUITE_NAMES,
    Payload,
    Refusal,
    Refused,
    binding,
    check_static,
    connection_id,
    decode_payload,
    hello,
    identity_public,
    prologue,
    prove_static,
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
        """This person's payload, with the given entries."""
        return Payload(self.id, prove_static(self.seed, self.static_public), **more)  # type: ignore[arg-type]


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
    ) -> None:
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
            self.begin(pattern, suite, hello(pattern, suite))
            self.out += self.hello
            self.write()

    def begin(self, pattern: str, suite: str, six: bytes) -> None:
        self.pattern, self.suite, self.hello = pattern, suite, six
        self.message = 0
        known = self.server.static_public if self.server is not None and PATTERNS[pattern][0] else None
        self.noise = Noise(
            pattern,
            suite,
            self.client,
            prologue(six),
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
        self.out += struct.pack(">HH", 0, code)
        return Refused(code, why)

    def read_hello(self) -> bool:
        if not b"DTP".startswith(self.buffer[:3]):
            raise Refused(0, "not DTP: nothing is said")
        if len(self.buffer) < 6:
            return False
        six, self.buffer = self.buffer[:6], self.buffer[6:]
        if six[3] != 1:
            raise self.refuse(Refusal.VERSION, f"version {six[3]}")
        pattern, suite = PATTERN_NAMES.get(six[4]), SUITE_NAMES.get(six[5])
        if pattern is None or suite is None or ("psk" in pattern) != (self.psk is not None):
            raise self.refuse(Refusal.SUITE, f"pattern {six[4]}, suite {six[5]}")
        self.begin(pattern, suite, six)
        return True

    def write(self) -> None:
        assert self.noise is not None
        sent = self.noise.write(self.payload.encode() if self.carries else b"")
        self.out += struct.pack(">H", len(sent)) + sent
        self.message += 1
        self.finish()

    def read(self, message: bytes) -> None:
        assert self.noise is not None
        try:
            data = self.noise.read(message)
            if self.carries:
                self.theirs = decode_payload(data)
                assert self.noise.rs is not None
                check_static(self.theirs.id, self.noise.rs, self.theirs.proof)
                if self.server is not None and self.theirs.id != self.server.id:
                    raise Refused(Refusal.FAILED, "not the identity that was dialled")
            elif data:
                raise Refused(Refusal.FAILED, "the first payload of XX is not empty")
        except NoiseFault as error:
            raise self.refuse(Refusal.FAILED, str(error)) from error
        except Refused as error:
            raise self.refuse(Refusal.FAILED, str(error)) from error
        self.message += 1
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
            peer=self.theirs,
            mine=self.payload,
            binding=binding(self.hello, client_e, client_s, server_s),
            rest=self.buffer,
        )
        self.buffer = b""
