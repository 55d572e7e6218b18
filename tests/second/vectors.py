"""Makes docs/vectors/wire.json: `python -m tests.second.vectors`. Nothing of `dtp` takes part."""

import json
import random
from pathlib import Path
from typing import Any

import msgpack

from .exchange import Exchanger
from .handshake import Handshake, Keys, Person
from .noise import PATTERNS, SUITES, public
from .peer import SecondPeer
from .wire import (
    ADD,
    APPLICATION,
    CONNECTION,
    FIN,
    FRESH,
    LISTED,
    Breach,
    Code,
    PacketOpener,
    PacketSealer,
    PathOpener,
    Payload,
    RecordSealer,
    Refused,
    Type,
    attach_proof,
    decode_payload,
    frame,
    path_key,
    prove,
    raw_frame,
    torsion,
)

PATH = Path(__file__).parents[2] / "docs" / "vectors" / "wire.json"
CLIENT, SERVER = (
    Person(bytes(range(32)), bytes(range(32, 64))),
    Person(bytes(range(64, 96)), bytes(range(96, 128))),
)
PSK = bytes(range(128, 160))
PARAMS = [1024, 1536, 2, 50]
ABOUT = (
    "Test vectors of the DTP wire protocol, version 1 (docs/wire.md, section Vectors). Bytes are in hexadecimal. "
    "Made by the second implementation, tests/second: python -m tests.second.vectors"
)


#: Alice's key and a point of order 8.
TORSION = torsion(CLIENT.id)


def nested(deep: int) -> list[Any]:
    """An array in an array..."""
    return [nested(deep - 1)] if deep > 1 else []


def key_of(label: str) -> bytes:
    return random.Random(label).randbytes(32)


def handshake(
    pattern: str, suite: str, client: Payload, server: Payload
) -> tuple[dict[str, Any], Keys, Keys]:
    """One handshake and what is to be written of it."""
    psk = PSK if "psk" in pattern else None
    entropy = [key_of(f"{pattern} {suite} {side}") for side in ("client", "server")]
    offered = SUITES[SUITES.index(suite) :]
    one = Handshake(
        True, CLIENT, entropy[0], client, pattern=pattern, suite=suite, server=SERVER, psk=psk, suites=offered
    )
    two = Handshake(False, SERVER, entropy[1], server, psk=psk, suites=offered)
    hello, messages = one.out[:7], []
    two.feed(hello)
    one.out = one.out[7:]
    sides = [(one, two), (two, one)]
    for index in range(len(PATTERNS[pattern][1])):
        writer, reader = sides[index % 2]
        data, writer.out = writer.out, b""
        messages.append(data[2:].hex())
        reader.feed(data)
    assert one.keys is not None
    assert two.keys is not None
    assert one.noise is not None
    assert two.noise is not None
    vector: dict[str, Any] = {"pattern": pattern, "suite": suite}
    if psk is not None:
        vector["psk"] = psk.hex()
    for side, person, ephemeral, mine, other in (
        ("client", CLIENT, entropy[0], one.payload, two.noise),
        ("server", SERVER, entropy[1], two.payload, one.noise),
    ):
        assert other.re is not None
        vector[side] = {
            "identity_seed": person.seed.hex(),
            "identity": person.id.hex(),
            "static_private": person.static.hex(),
            "static": person.static_public.hex(),
            "ephemeral_private": ephemeral.hex(),
            "ephemeral": other.re.hex(),
            "payload": mine.encode().hex(),
        }
    vector |= {
        "hello": hello.hex(),
        "messages": messages,
        "client_to_server": one.keys.send.hex(),
        "server_to_client": one.keys.receive.hex(),
        "h": one.keys.h.hex(),
        "secret": one.keys.secret.hex(),
        "exchange_root": one.keys.root.hex(),
        "connection_id": one.keys.connection_id.hex(),
        "binding": one.keys.binding.hex(),
    }
    return vector, one.keys, two.keys


def handshakes() -> list[dict[str, Any]]:
    client = CLIENT.payload(params=PARAMS, features=["a", "b"], service="echo", ticket=b"ticket")
    server = SERVER.payload(params=PARAMS)
    return [handshake(pattern, suite, client, server)[0] for pattern in PATTERNS for suite in SUITES]


def payloads() -> list[dict[str, Any]]:
    """Payloads that are taken or refused, by a side's rules for the `sender`'s; the proof is not looked at."""
    base = vars(CLIENT.payload(proof=prove(CLIENT.seed, b"")))
    good = {key: base[key] for key in ("id", "proof", "versions", "params")}
    long = {"features": ["f"] * 64, "service": "s" * 255, "resume": b"r" * 16, "ticket": b"t" * 7000}
    cases: list[tuple[str, Any, bool]] = [
        ("the least", good, True),
        ("unknown keys", good | {"later": [1, {"x": None}]}, True),
        ("more params and versions", good | {"versions": [3, 1], "params": [1, 2, 3, 4, 5]}, True),
        ("the most", good | long, True),
        ("sixteen versions", good | {"versions": list(range(16))}, True),
        ("the greatest params", good | {"params": [2**62 - 1] * 16}, True),
        ("keys in another order", dict(reversed(good.items())), True),
        ("not a map", [1], False),
        ("a key that is not a string", good | {1: 2}, False),
        ("id of 31 bytes", good | {"id": bytes(31)}, False),
        ("id of small order", good | {"id": b"\x01" + bytes(31)}, False),
        ("id with a torsion part", good | {"id": TORSION}, False),
        ("a key as bin", good | {b"later": 1}, False),
        ("sixteen deep", good | {"later": nested(15)}, True),
        ("seventeen deep", good | {"later": nested(16)}, False),
        ("id as str", good | {"id": "i" * 32}, False),
        ("proof of 65 bytes", good | {"proof": bytes(65)}, False),
        ("no common version", good | {"versions": [2]}, False),
        ("versions not an array", good | {"versions": 1}, False),
        ("versions empty", good | {"versions": []}, False),
        ("seventeen versions", good | {"versions": list(range(17))}, False),
        ("a param of 2^62", good | {"params": [2**62, 2, 3, 4]}, False),
        ("seventeen params", good | {"params": [1] * 17}, False),
        ("three params", good | {"params": [1, 2, 3]}, False),
        ("a negative param", good | {"params": [1, 2, 3, -1]}, False),
        ("a param that is not an int", good | {"params": [1, 2, 3, True]}, False),
        ("65 features", good | {"features": ["f"] * 65}, False),
        ("features of bytes", good | {"features": [b"f"]}, False),
        ("service of 256 bytes", good | {"service": "s" * 256}, False),
        ("service as bin", good | {"service": b"s"}, False),
        ("ticket as str", good | {"ticket": "t"}, False),
        ("resume of 15 bytes", good | {"resume": bytes(15)}, False),
        ("above 8,192 bytes", good | {"ticket": bytes(8192)}, False),
    ]
    cases += [(f"no {key}", {k: v for k, v in good.items() if k != key}, False) for key in good]
    out = []
    for name, value, taken in cases:
        packed = msgpack.packb(value)
        try:
            decode_payload(packed)
            assert taken, name
        except Refused:
            assert not taken, name
        out.append({"name": name, "sender": "client", "payload": packed.hex(), "taken": taken})
    packed = msgpack.packb(good | {"service": b"s", "ticket": 1, "resume": [b"r"]})
    decode_payload(packed, from_server=True)
    out.append({"name": "a client's keys", "sender": "server", "payload": packed.hex(), "taken": True})
    packed = msgpack.packb(good)
    count = bytes([0x80 | len(good) + 1])
    for name, value, taken in (
        ("an ext", b"\xd4\x05x", True),
        ("a timestamp", b"\xd6\xff" + bytes(4), True),
        ("an ext of type -1 that is no timestamp", b"\xc7\x03\xff" + bytes(3), False),
        ("an ext of another type below 0", b"\xd4\xfex", False),
        ("text that is not UTF-8", b"\xa1\xff", False),
        ("a map with a key as bin", b"\x81\xc4\x01x\x01", True),
        ("a map with an int as key", b"\x81\x01\x01", False),
        ("a map with an array as key", b"\x81\x90\x01", False),
    ):
        data = count + packed[1:] + b"\xa1x" + value
        try:
            decode_payload(data)
            assert taken, name
        except Refused:
            assert not taken, name
        out.append(
            {"name": f"in an unknown key: {name}", "sender": "client", "payload": data.hex(), "taken": taken}
        )
    for name, data in (
        ("a key twice", count + packed[1:] + msgpack.packb("versions") + msgpack.packb([1])),
        ("an unknown key's map with a key twice", count + packed[1:] + b"\xa1x\x82\xa1y\x01\xa1y\x01"),
        ("a byte behind the map", packed + b"\0"),
        ("cut short", packed[:-1]),
        ("nothing", b""),
    ):
        out.append({"name": name, "sender": "client", "payload": data.hex(), "taken": False})
    return out


def records() -> list[dict[str, Any]]:
    out = []
    for suite in SUITES:
        key = key_of(f"records {suite}")
        sealer, steps = RecordSealer(suite, key), []
        plain = [
            ("empty", [], False),
            ("ping", [frame(Type.PING, 7)], False),
            (
                "stream with FIN, padding, window",
                [
                    frame(Type.STREAM, 0, 0, flags=FIN, rest=b"hello"),
                    frame(Type.PADDING, rest=bytes(9)),
                    frame(Type.WINDOW, CONNECTION, 5, 1000),
                ],
                False,
            ),
            ("rekey behind a frame", [frame(Type.READY), frame(Type.REKEY)], True),
            ("under the second key", [frame(Type.DATAGRAM, rest=b"datagram")], False),
            ("rekey alone", [frame(Type.REKEY)], True),
            ("under the third key", [frame(Type.METER, rest=b"meter")], False),
            ("rekey to a fresh key", [frame(Type.PING, 8), frame(Type.REKEY, flags=FRESH)], True),
            ("under the fresh key", [frame(Type.READY), frame(Type.REKEY)], True),
            ("under the one behind it", [frame(Type.CLOSE, 9, 0, flags=APPLICATION, rest=b"bye")], False),
        ]
        fresh = key_of(f"fresh {suite}")
        for name, frames, rekeys in plain:
            plaintext = b"".join(frames)
            steps.append(
                {
                    "name": name,
                    "frames": [each.hex() for each in frames],
                    "record": sealer.seal(plaintext).hex(),
                }
            )
            if "to a fresh key" in name:
                sealer.key = fresh
            elif rekeys:
                sealer.rekey()
        out.append({"suite": suite, "key": key.hex(), "fresh_key": fresh.hex(), "records": steps})
    return out


def packets() -> list[dict[str, Any]]:
    """Packets in the order in which they arrive; `opens` is null for those that are to be dropped."""
    out = []
    step = 1 << 24
    for suite in SUITES:
        key = key_of(f"packets {suite}")
        opener, arrivals = PacketOpener(suite, key), []

        def sealed(counter: int, plain: bytes = b"", suite: str = suite, key: bytes = key) -> bytes:
            sealer = PacketSealer(suite, key)
            sealer.counter = counter
            return sealer.seal(plain or frame(Type.PING, counter))

        forged = bytearray(sealed(5000))
        forged[-1] ^= 1
        plan = [
            ("the first", sealed(0)),
            ("one ahead", sealed(2)),
            ("out of order", sealed(1)),
            ("seen before", sealed(2)),
            ("far ahead, same key", sealed(4000)),
            ("2,047 behind", sealed(4000 - 2047)),
            ("2,048 behind", sealed(4000 - 2048)),
            ("forged", bytes(forged)),
            ("the forged one's counter, genuine", sealed(5000)),
            ("it holds REKEY", sealed(5001, frame(Type.REKEY))),
            ("it ends inside a frame", sealed(5001, frame(Type.PING, 1)[:-1])),
            ("the counter of those, whole frames", sealed(5001)),
            ("too short", sealed(5002)[:23]),
            ("the last of key 0", sealed(step - 1)),
            ("the first of key 1", sealed(step)),
            ("the previous key, within the window", sealed(step - 2)),
            ("four keys ahead", sealed(5 * step + 3)),
            ("the key before the previous", sealed(3 * step + 3)),
            ("five keys ahead", sealed(10 * step)),
            ("still the key that is current", sealed(5 * step + 2)),
        ]
        for name, packet in plan:
            plaintext = opener.open(packet)
            opens = None if plaintext is None else plaintext.hex()
            arrivals.append({"name": name, "packet": packet.hex(), "opens": opens})
        out.append({"suite": suite, "key": key.hex(), "packets": arrivals})
    return out


def lossy_paths() -> list[dict[str, Any]]:
    """Packets of a client as they come to a server, which agrees on exchanges in between."""
    out = []
    for suite in SUITES:
        roots = [key_of(f"lossy path {number} {suite}") for number in range(3)]
        opener = PathOpener(suite, roots[0], "client")
        arrivals: list[dict[str, Any]] = []

        def sent(
            number: int, counter: int, plain: bytes, suite: str = suite, roots: list[bytes] = roots
        ) -> bytes:
            sealer = PacketSealer(suite, path_key(roots[number], "client"))
            sealer.counter = counter
            return bytes([number]) + sealer.seal(plain)

        hello = frame(Type.DATAGRAM, rest=b"hello")
        other = bytearray(sent(0, 9, hello))
        other[0] = 1
        back = PacketSealer(suite, path_key(roots[0], "server")).seal(hello)
        plan: list[tuple[str, bytes | None]] = [
            ("the first", sent(0, 0, hello)),
            ("seen before", sent(0, 0, hello)),
            ("two datagrams, one of them empty", sent(0, 1, hello + frame(Type.DATAGRAM))),
            ("other frames are skipped", sent(0, 2, frame(Type.PING, 7) + hello)),
            ("nothing", b""),
            ("no packet behind the number", b"\0"),
            ("of an exchange that isn't agreed on", bytes(other)),
            ("the server's own, come back", b"\0" + back),
            ("agree", None),
            ("under the fresh key", sent(1, 0, hello)),
            ("a late one under the key before", sent(0, 3, hello)),
            ("agree", None),
            ("too late: two exchanges ago", sent(0, 4, hello)),
            ("the newest", sent(2, 0, hello)),
        ]
        agreed = 0
        for name, packet in plan:
            if packet is None:
                agreed += 1
                opener.agree(roots[agreed])
                arrivals.append({"name": name, "root": roots[agreed].hex()})
                continue
            found = opener.open(packet)
            opens = None if found is None else [each.hex() for each in found]
            arrivals.append({"name": name, "packet": packet.hex(), "opens": opens})
        out.append({"suite": suite, "root": roots[0].hex(), "packets": arrivals})
    return out


def attaches() -> list[dict[str, Any]]:
    out = []
    for index, suite in enumerate(SUITES):
        _, first, _ = handshake("XX", suite, CLIENT.payload(params=PARAMS), SERVER.payload(params=PARAMS))
        resume = CLIENT.payload(params=PARAMS, resume=first.connection_id)
        again, keys, _ = handshake("IK", suite, resume, SERVER.payload(params=PARAMS))
        flags, link = (ADD if index % 2 else 0), index + 1
        vector = {
            "secret": first.secret.hex(),
            "connection_id": first.connection_id.hex(),
            "h": again["h"],
            "link": link,
            "add": bool(flags),
        }
        for side in ("client", "server"):
            proof = attach_proof(first.secret, side, keys.h)
            vector[f"{side}_proof"] = proof.hex()
            vector[f"{side}_frame"] = frame(Type.ATTACH, first.connection_id, link, proof, flags=flags).hex()
        out.append(vector)
    return out


def exchanges() -> list[dict[str, Any]]:
    """Two exchanges of one link, for each suite."""
    out = []
    for suite in SUITES:
        vector, one, two = handshake(
            "IK", suite, CLIENT.payload(params=PARAMS), SERVER.payload(params=PARAMS)
        )
        client, server = (
            Exchanger(keys.client, keys.h, keys.root, keys.seed, keys.peer.id) for keys in (one, two)
        )
        steps = []
        for n in (1, 2):
            privates = [key_of(f"exchange {suite} {n} {side}") for side in ("client", "server")]
            asked = client.ask(privates[0])
            answered = server.answer(*asked, privates[1])
            client.heard(*answered)
            assert (client.root, client.send_key, client.receive_key) == (
                server.root,
                server.receive_key,
                server.send_key,
            )
            assert client.send_key is not None
            assert client.receive_key is not None
            steps.append(
                {
                    "n": n,
                    "client_private": privates[0].hex(),
                    "server_private": privates[1].hex(),
                    "client_frame": frame(Type.EXCHANGE, *asked).hex(),
                    "server_frame": frame(Type.EXCHANGE, *answered).hex(),
                    "root": client.root.hex(),
                    "client_to_server": client.send_key.hex(),
                    "server_to_client": client.receive_key.hex(),
                }
            )
            for side in (client, server):
                side.send_key = side.receive_key = None
        people = {
            side: {key: vector[side][key] for key in ("identity_seed", "identity")}
            for side in ("client", "server")
        }
        out.append({"suite": suite, **people, "h": vector["h"], "root": one.root.hex(), "exchanges": steps})
    return out


def stream(number: int, offset: int, data: bytes, fin: bool = False) -> bytes:
    return frame(Type.STREAM, number, offset, flags=FIN if fin else 0, rest=data)


def refused_cases() -> list[tuple[str, str, list[bytes], Code | None]]:
    """Name, who receives, the plaintexts of records, and the code (None: nothing is wrong with them)."""
    fixed = {
        Type.PING: 8,
        Type.PONG: 8,
        Type.RESET: 20,
        Type.STOP: 12,
        Type.WINDOW: 24,
        Type.STREAMS: 8,
        Type.AWAY: 8,
        Type.REKEY: 0,
        Type.READY: 0,
        Type.ATTACH: 52,
        Type.STATE: 20,
        Type.EXCHANGE: 96,
    }
    out: list[tuple[str, str, list[bytes], Code | None]] = []
    for kind, size in fixed.items():
        out.append((f"{kind.name} too long", "client", [raw_frame(kind, 0, bytes(size + 1))], Code.PROTOCOL))
        if size:
            out.append(
                (f"{kind.name} too short", "client", [raw_frame(kind, 0, bytes(size - 1))], Code.PROTOCOL)
            )
    for kind, size in ((Type.STREAM, 16), (Type.CLOSE, 8)):
        out.append((f"{kind.name} too short", "client", [raw_frame(kind, 0, bytes(size - 1))], Code.PROTOCOL))
    for type_ in (0x11, 0x12, 0x7F):
        out.append((f"unknown type {type_:#x}", "client", [raw_frame(type_, 0, b"x")], Code.UNKNOWN_FRAME))
    s, ping = Type.STREAM, frame(Type.PING, 1)
    out += [
        ("a record that ends inside a frame's head", "client", [ping + b"\x01\x00\x00"], Code.PROTOCOL),
        ("a record that ends inside a frame", "client", [ping + ping[:-1]], Code.PROTOCOL),
        ("REKEY not last", "client", [frame(Type.REKEY) + ping], Code.PROTOCOL),
        ("beyond the stream's credit", "server", [stream(0, 0, bytes(1025))], Code.FLOW),
        ("beyond the stream's credit by offset", "server", [stream(0, 1024, b"x")], Code.FLOW),
        ("beyond the credit by a great offset", "server", [stream(0, 2**62, b"x")], Code.FLOW),
        (
            "beyond the connection's credit",
            "server",
            [stream(0, 0, bytes(1024)) + stream(2, 0, bytes(513))],
            Code.FLOW,
        ),
        ("a RESET beyond the credit", "server", [frame(Type.RESET, 0, 1, 1025)], Code.FLOW),
        ("more streams than allowed", "server", [stream(4, 0, b"")], Code.LIMIT),
        ("RESET of a stream that is not allowed", "server", [frame(Type.RESET, 4, 0, 0)], Code.LIMIT),
        ("WINDOW of a stream that is not allowed", "client", [frame(Type.WINDOW, 5, 0, 0)], Code.LIMIT),
        ("data behind FIN", "server", [stream(0, 0, b"ab", True) + stream(0, 2, b"c")], Code.PROTOCOL),
        (
            "FIN before data that came",
            "server",
            [stream(0, 0, b"abc") + stream(0, 0, b"ab", True)],
            Code.PROTOCOL,
        ),
        ("FIN moves on", "server", [stream(0, 0, b"ab", True) + stream(0, 2, b"c", True)], Code.PROTOCOL),
        (
            "RESET with another end than FIN",
            "server",
            [stream(0, 5, b"ab", True) + frame(Type.RESET, 0, 1, 8)],
            Code.PROTOCOL,
        ),
        (
            "RESET below data that came",
            "server",
            [stream(0, 0, b"abc") + frame(Type.RESET, 0, 1, 2)],
            Code.PROTOCOL,
        ),
        (
            "two RESETs with two ends",
            "server",
            [frame(Type.RESET, 0, 1, 2) + frame(Type.RESET, 0, 1, 3)],
            Code.PROTOCOL,
        ),
        (
            "data behind RESET's end",
            "server",
            [frame(Type.RESET, 0, 1, 2) + stream(0, 2, b"x")],
            Code.PROTOCOL,
        ),
        (
            "a RESET beyond the connection's credit",
            "server",
            [stream(0, 0, bytes(1024)) + frame(Type.RESET, 2, 1, 513)],
            Code.FLOW,
        ),
        ("a datagram above `datagram`", "server", [frame(Type.DATAGRAM, rest=bytes(51))], Code.LIMIT),
        ("STREAM on a stream never opened", "client", [stream(0, 0, b"")], Code.PROTOCOL),
        ("STREAM on a stream never opened", "server", [stream(1, 0, b"")], Code.PROTOCOL),
        ("RESET of a stream never opened", "client", [frame(Type.RESET, 0, 0, 0)], Code.PROTOCOL),
        ("STOP of a stream never opened", "client", [frame(Type.STOP, 0, 0)], Code.PROTOCOL),
        ("WINDOW of a stream never opened", "server", [frame(Type.WINDOW, 1, 0, 9)], Code.PROTOCOL),
        (
            "an acknowledgement of what was not sent",
            "server",
            [stream(0, 0, b"") + frame(Type.WINDOW, 0, 1, 100)],
            Code.PROTOCOL,
        ),
        ("ATTACH on a first link", "server", [frame(Type.ATTACH, bytes(16), 1, bytes(32))], Code.PROTOCOL),
        ("ATTACH on a first link", "client", [frame(Type.ATTACH, bytes(16), 1, bytes(32))], Code.PROTOCOL),
        ("STATE on a first link", "server", [frame(Type.STATE, 0, 0, 0)], Code.PROTOCOL),
        ("STATE of a link that never was", "server", [frame(Type.STATE, 0, 0, 7)], Code.PROTOCOL),
        (
            "EXCHANGE that was not asked for",
            "client",
            [frame(Type.EXCHANGE, public(key_of("exchange")), bytes(64))],
            Code.PROTOCOL,
        ),
        (
            "EXCHANGE that nobody has signed",
            "server",
            [frame(Type.EXCHANGE, public(key_of("exchange")), bytes(64))],
            Code.PROTOCOL,
        ),
        ("a fresh key that nobody knows of", "server", [frame(Type.REKEY, flags=FRESH)], Code.PROTOCOL),
        ("a fresh key that nobody knows of", "client", [frame(Type.REKEY, flags=FRESH)], Code.PROTOCOL),
        ("READY from a client", "server", [frame(Type.READY)], Code.PROTOCOL),
        ("a reason above 256 bytes", "client", [frame(Type.CLOSE, 0, 0, rest=b"r" * 257)], Code.PROTOCOL),
        ("more than 256 frames", "server", [raw_frame(0x80, 0, b"") * 256 + frame(Type.PONG, 1)], Code.LIMIT),
        (
            "256 frames, PADDING and REKEY",
            "server",
            [raw_frame(0, 0, b"") * 99 + raw_frame(0x80, 0, b"") * 256],
            None,
        ),
        ("an empty record", "server", [b""], None),
        (
            "unknown types that are skipped",
            "server",
            [raw_frame(0x80, 7, b"x") + raw_frame(0xFF, 0, b"")],
            None,
        ),
        (
            "padding and unused flags",
            "server",
            [raw_frame(0, 0xFF, bytes(99)) + raw_frame(s, 0xFE, bytes(16))],
            None,
        ),
        ("all the credit", "server", [stream(0, 0, bytes(1024), True) + stream(2, 0, bytes(512))], None),
        (
            "data twice",
            "server",
            [stream(0, 0, b"abc") + stream(0, 1, b"bc", True) + stream(0, 0, b"a")],
            None,
        ),
        (
            "RESET behind FIN, the same end",
            "server",
            [stream(0, 0, b"ab", True) + frame(Type.RESET, 0, 1, 2)],
            None,
        ),
        (
            "RESET and STOP with the greatest code",
            "server",
            [frame(Type.RESET, 0, 2**32 - 1, 0) + frame(Type.STOP, 0, 2**32 - 1)],
            None,
        ),
        ("RESET with code 0", "server", [frame(Type.RESET, 0, 0, 0)], None),
        (
            "CLOSE with the greatest code and detail",
            "client",
            [frame(Type.CLOSE, 2**32 - 1, 2**32 - 1, flags=APPLICATION, rest=b"r" * 256)],
            None,
        ),
        ("an unpaid METER that is empty", "client", [frame(Type.METER)], None),
        ("STOP opens a stream of the peer's", "server", [frame(Type.STOP, 2, 9)], None),
        ("LISTED outside a list", "server", [frame(Type.WINDOW, 0, 0, 5, flags=LISTED)], None),
        (
            "METER of the largest size, where nothing is paid",
            "server",
            [raw_frame(Type.METER, 0, bytes(4096))],
            None,
        ),
        ("METER above 4,096 bytes", "server", [raw_frame(Type.METER, 0, bytes(4097))], Code.LIMIT),
        ("a datagram of the largest size", "server", [frame(Type.DATAGRAM, rest=bytes(50))], None),
        ("a limit that is lower", "client", [frame(Type.WINDOW, CONNECTION, 0, 1)], None),
        ("a PONG that nobody asked for", "client", [frame(Type.PONG, 99)], None),
    ]
    return out


def judge(receiver: str, plaintexts: list[bytes]) -> Code | None:
    """What a fresh session of ours says to the records."""
    keys = handshake("XX", SUITES[1], CLIENT.payload(params=PARAMS), SERVER.payload(params=PARAMS))[1:]
    client, server = SecondPeer(keys[0]), SecondPeer(keys[1])
    server.receive(0, client.take(0))
    judging, other = (client, server) if receiver == "client" else (server, client)
    for plaintext in plaintexts:
        other.raw(plaintext)
    try:
        judging.receive(0, other.take(0))
    except Breach as breach:
        return breach.code
    return None


def refused() -> list[dict[str, Any]]:
    out = []
    for name, receiver, plaintexts, code in refused_cases():
        said = judge(receiver, plaintexts)
        assert said == code, (name, said)
        out.append(
            {
                "name": name,
                "receiver": receiver,
                "plaintexts": [each.hex() for each in plaintexts],
                "close": None if code is None else {"code": int(code), "name": code.name},
            }
        )
    return out


def build() -> str:
    """The whole document, as it is written."""
    vectors = {
        "about": ABOUT,
        "handshakes": handshakes(),
        "payloads": payloads(),
        "records": records(),
        "packets": packets(),
        "lossy_paths": lossy_paths(),
        "attach": attaches(),
        "exchanges": exchanges(),
        "frames": {
            "about": "A session in its first moment, both sides' params as given, gets the plaintexts as records.",
            "params": PARAMS,
            "cases": refused(),
        },
    }
    return json.dumps(vectors, indent=1) + "\n"


if __name__ == "__main__":
    PATH.write_text(build())
