"""Metering a second time, from docs/wire.md and move/README.md alone: makes docs/vectors/meter.json.

    python -m tests.pay.second          # in the folder of the project, writes the file anew

Nothing of `dtp` is used: MessagePack by hand, Ed25519 and the rest by `cryptography`.
"""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

PATH = Path(__file__).parents[2] / "docs" / "vectors" / "meter.json"
SEED = bytes(range(32))
CHANNEL = bytes([0xC1]) * 32
BINDING = bytes([0xB1]) * 32
PREIMAGE = bytes([0x07]) * 32
NEVER = 2**64 - 1


def pack(value: Any) -> Any:
    """MessagePack of what metering needs, in the shortest form."""
    if value is None:
        return b"\xc0"
    if isinstance(value, bool):
        return b"\xc3" if value else b"\xc2"
    if isinstance(value, int):
        for limit, head, form in (
            (0x80, b"", "B"), (2**8, b"\xcc", "B"), (2**16, b"\xcd", ">H"), (2**32, b"\xce", ">I"),
            (2**64, b"\xcf", ">Q"),
        ):  # fmt: skip
            if 0 <= value < limit:
                return head + struct.pack(form, value)
        return b"\xff"  # -1, for what is refused
    if isinstance(value, bytes):
        return b"\xc4" + bytes([len(value)]) + value
    return bytes([0x90 + len(value)]) + b"".join(map(pack, value))


def key() -> Any:
    return Ed25519PrivateKey.from_private_bytes(SEED)


def voucher(
    sequence: Any, amount: Any, requests: Any, size: Any, lock: Any = None, end: Any = NEVER, lane: int = 0
) -> Any:
    tail = b"\x00" if lock is None else b"\x01\x20" + lock
    counts = struct.pack("<BQQQQ", lane, sequence, amount, requests, size)
    return b"\x0edtp.voucher.v1" + CHANNEL + counts + tail + struct.pack("<Q", end)


def said(
    sequence: Any, amount: Any, requests: Any, size: Any, lock: Any = None, end: Any = NEVER, charge: int = 0
) -> Any:
    signature = key().sign(voucher(sequence, amount, requests, size, lock, end))
    return [sequence, amount, requests, size, end, lock, signature, charge]


def statement(lane: int = 0, closes: bool = False) -> Any:
    return b"\x0ddtp.ticket.v1" + BINDING + CHANNEL + bytes([lane]) + (b"\x01" if closes else b"")


def sealed(data: Any) -> Any:
    lock = hashlib.sha256(PREIMAGE).digest()
    secret = HKDF(SHA256(), 32, salt=None, info=b"dtp.answer.v1").derive(PREIMAGE)
    box = ChaCha20Poly1305(secret).encrypt(bytes(12), data, lock)
    return lock + len(box).to_bytes(4, "big") + box


LOCK = hashlib.sha256(PREIMAGE).digest()
#: Name -> who says it, and the frame.
TAKEN = {
    "voucher": ("client", [0x01, *said(1, 1000, 1, 0)]),
    "voucher, locked, agreeing to charge 3": (
        "client",
        [0x01, *said(2, 3_000_000, 1000, 2**20, LOCK, NEVER, 3)],
    ),
    "voucher with the largest counts": (
        "client",
        [0x01, *said(2**63 - 1, 2**63 - 1, 2**63 - 1, 2**63 - 1, None, 0)],
    ),
    "decline": ("client", [0x02, 2**32 - 1]),
    "renewed": ("client", [0x03]),
    "finish": ("client", [0x04]),
    "close?": ("client", [0x05]),
    "heard": ("client", [0x06]),
    "budget": ("client", [0x80, 500_000_000]),
    "welcome to a new lane": ("server", [0x10, 1, 0, 0, 2**20, 2**24, 16, 1024, True, True, None]),
    "welcome back": (
        "server",
        [0x10, 1, 5, 70_000, 2**20, 2**24, 16, 1024, False, False, said(1, 1000, 1, 0)],
    ),
    "due": ("server", [0x11, 5, 70_000]),
    "charge": ("server", [0x12, 1, 7, None]),
    "charge under a lock": ("server", [0x12, 2, 7, LOCK]),
    "reveal": ("server", [0x13, PREIMAGE]),
    "bill": ("server", [0x14, 5, 70_000]),
    "agreed": ("server", [0x15, 1000, NEVER, bytes(32), bytes(64)]),
    "stored": ("server", [0x16, 1]),
}
REFUSED = {
    "a server's kind from a client": ("client", [0x16, 1]),
    "a client's kind from a server": ("server", [0x04]),
    "unknown kind": ("client", [0x07]),
    "a budget from a server": ("server", [0x80, 1]),
    "too few fields": ("client", [0x02]),
    "too many fields": ("client", [0x04, 0]),
    "below zero": ("client", [0x02, -1]),
    "above 2^63 - 1": ("server", [0x11, 2**63, 0]),
    "charge above 2^32 - 1": ("client", [0x02, 2**32]),
    "a lock of 31 bytes": ("server", [0x12, 1, 1, bytes(31)]),
    "true for a number": ("server", [0x16, True]),
    "a number for true": ("server", [0x10, 1, 0, 0, 0, 0, 0, 0, 1, True, None]),
    "nil for a signature": ("client", [0x01, 1, 1, 1, 1, 1, None, None, 0]),
}


def vectors() -> Any:
    return {
        "lane key": {"seed": SEED.hex(), "public": key().public_key().public_bytes_raw().hex()},
        "channel": CHANNEL.hex(),
        "vouchers": [
            {
                "sequence": n, "amount": amount, "requests": requests, "bytes": size,
                "hash_lock": lock and lock.hex(),
                "not_after_ms": end, "message": voucher(n, amount, requests, size, lock, end).hex(),
                "signature": key().sign(voucher(n, amount, requests, size, lock, end)).hex(),
            }
            for n, amount, requests, size, lock, end in (
                (1, 1000, 1, 0, None, NEVER), (2, 3_000_000, 1000, 2**20, LOCK, 1_700_000_000_000),
            )
        ],
        "ticket": {
            "binding": BINDING.hex(), "statement": statement().hex(),
            "ticket": pack([1, CHANNEL, 0, key().sign(statement())]).hex(),
            "statement_to_close": statement(closes=True).hex(),
            "ticket_to_close": pack([1, CHANNEL, 0, key().sign(statement(closes=True)), 1]).hex(),
        },
        "answer": {"preimage": PREIMAGE.hex(), "plain": b"forty-two".hex(), "sealed": sealed(b"forty-two").hex()},
        "taken": {name: {"from": who, "frame": pack(frame).hex()} for name, (who, frame) in TAKEN.items()},
        "refused": {name: {"from": who, "frame": pack(frame).hex()} for name, (who, frame) in REFUSED.items()},
        "skipped": {"kind 0x81": pack([0x81, 1, b"x"]).hex(), "kind 0xff": pack([0xFF]).hex()},
    }  # fmt: skip


if __name__ == "__main__":
    PATH.write_text(json.dumps(vectors(), indent=1) + "\n")
