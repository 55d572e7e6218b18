"""A second implementation of the DHT's bytes, from docs/dht.md alone: no line of it comes from `dtp.peers.dht`.

Fields are dicts. MessagePack is spelled out too, as far as messages have it.
"""

from __future__ import annotations

import hashlib
import struct
from typing import Any

from nacl.signing import SigningKey, VerifyKey

KINDS = {
    "PING": (0x01, ""),
    "FIND": (0x02, "b"),
    "GET": (0x03, "bi"),
    "STORE": (0x04, "ib"),
    "CHECK": (0x05, "b"),
    "DIAL": (0x06, "bb"),
    "PONG": (0x81, "b"),
    "NODES": (0x82, "b"),
    "FOUND": (0x83, "bl"),
    "STORED": (0x84, "ib"),
    "CHECKING": (0x85, "i"),
    "DIALLED": (0x86, ""),
    "REFUSED": (0xF1, "i"),
}
NAMES = {number: name for name, (number, _) in KINDS.items()}


def pack_bytes(data: bytes) -> bytes:
    if len(data) < 256:
        return b"\xc4" + bytes((len(data),)) + data
    return b"\xc5" + struct.pack(">H", len(data)) + data


def pack_number(number: int) -> bytes:
    if number < 0x80:
        return bytes((number,))
    return b"\xcc" + bytes((number,))


def pack(shape: str, values: list[Any]) -> bytes:
    packed = bytes((0x90 + len(values),))
    for letter, value in zip(shape, values, strict=True):
        if letter == "b":
            packed += pack_bytes(value)
        elif letter == "i":
            packed += pack_number(value)
        elif len(value) < 16:
            packed += bytes((0x90 + len(value),)) + b"".join(map(pack_bytes, value))
        else:
            packed += b"\xdc" + struct.pack(">H", len(value)) + b"".join(map(pack_bytes, value))
    return packed


class Reader:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        part = self.data[self.at : self.at + count]
        assert len(part) == count
        self.at += count
        return part

    def value(self) -> Any:
        first = self.take(1)[0]
        if first < 0x80:
            return first
        if first == 0xCC:
            return self.take(1)[0]
        if first == 0xC4:
            return self.take(self.take(1)[0])
        if first == 0xC5:
            return self.take(struct.unpack(">H", self.take(2))[0])
        count = first - 0x90 if first < 0xA0 else struct.unpack(">H", self.take(2))[0]
        assert 0x90 <= first < 0xA0 or first == 0xDC
        return [self.value() for _ in range(count)]


def write(fields: dict[str, Any]) -> bytes:
    name = fields["kind"]
    if name == "PROBE":
        return b"\xd7\x07" + fields["nonce"]
    if name == "RETRY":
        return b"\xd7\xf0" + fields["transaction"] + fields["token"] + fields["key"]
    number, shape = KINDS[name]
    head = b"\xd7" + bytes((number,)) + fields["transaction"]
    proof = fields.get("proof", b"")
    if number < 0x80:
        flags = (1 if proof else 0) | (2 if fields.get("client") else 0)
        middle = fields["key"] + fields["token"] + proof
    else:
        token = fields.get("token", b"")
        flags = (1 if proof else 0) | (2 if token else 0)
        middle = token + ((fields["key"] + proof) if proof else b"")
    return head + bytes((flags,)) + middle + pack(shape, fields["args"])


def read(data: bytes) -> dict[str, Any]:
    assert data[0] == 0xD7
    reader = Reader(data[1:])
    number = reader.take(1)[0]
    if number == 0x07:
        return {"kind": "PROBE", "nonce": reader.take(8)}
    fields: dict[str, Any] = {"transaction": reader.take(8)}
    if number == 0xF0:
        return fields | {"kind": "RETRY", "token": reader.take(16), "key": reader.take(32)}
    fields["kind"] = NAMES[number]
    flags = reader.take(1)[0]
    if number < 0x80:
        fields |= {"key": reader.take(32), "token": reader.take(16), "client": bool(flags & 2)}
        fields["proof"] = reader.take(64) if flags & 1 else b""
    else:
        fields["token"] = reader.take(16) if flags & 2 else b""
        fields["key"] = reader.take(32) if flags & 1 else b""
        fields["proof"] = reader.take(64) if flags & 1 else b""
    fields["args"] = reader.value()
    return fields


def sign_question(fields: dict[str, Any], seed: bytes, recipient: bytes) -> dict[str, Any]:
    tag = b"dtp.dht.question.v1"
    signed = bytes((len(tag),)) + tag + recipient + write({**fields, "proof": b""})
    return {**fields, "proof": SigningKey(seed).sign(signed).signature}


def check_answer(fields: dict[str, Any], asker: bytes) -> None:
    tag = b"dtp.dht.answer.v1"
    signed = bytes((len(tag),)) + tag + asker + fields["key"] + write({**fields, "proof": b""})
    VerifyKey(fields["key"]).verify(signed, fields["proof"])


def place(person: str, *parts: bytes) -> bytes:
    return hashlib.blake2b(b"".join(parts), digest_size=32, person=person.encode()).digest()


def text(data: str) -> bytes:
    encoded = data.encode()
    assert len(encoded) < 256
    return (
        bytes((0xA0 + len(encoded),)) if len(encoded) < 32 else b"\xd9" + bytes((len(encoded),))
    ) + encoded


def big(number: int) -> bytes:
    if number < 0x80:
        return bytes((number,))
    for head, form, most in ((b"\xcc", ">B", 2**8), (b"\xcd", ">H", 2**16), (b"\xce", ">I", 2**32)):
        if number < most:
            return head + struct.pack(form, number)
    return b"\xcf" + struct.pack(">Q", number)


def mutable(seed: bytes, name: str, sequence: int, issued: int, expires: int, value: bytes) -> bytes:
    key = SigningKey(seed)
    body = (
        b"\x96"
        + pack_bytes(key.verify_key.encode())
        + text(name)
        + big(sequence)
        + big(issued)
        + big(expires)
    )
    body += pack_bytes(value)
    tag = b"dtp.dht.mutable.v1"
    return body + key.sign(bytes((len(tag),)) + tag + body).signature


def provider(seed: bytes, content: bytes, issued: int, expires: int) -> bytes:
    key = SigningKey(seed)
    body = b"\x94" + pack_bytes(place("dtp.dht.provide", content)) + pack_bytes(key.verify_key.encode())
    body += big(issued) + big(expires)
    tag = b"dtp.dht.provider.v1"
    return body + key.sign(bytes((len(tag),)) + tag + body).signature
