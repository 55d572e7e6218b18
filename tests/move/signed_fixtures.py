"""Writes the Move test modules that hold signatures: `python tests/move/signed_fixtures.py`.

Move can verify Ed25519 but not sign, and what is signed names the channel or lock by its id. In a test scenario
ids are deterministic (Blake2b-256 over 0xf1, the transaction's hash and a counter; the hash is the number of the
transaction, little-endian, padded with zeros), so everything can be signed beforehand. The keys are test keys
with published seeds. `test_signed_fixtures.py` checks that the files are what this script writes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import blake2b, sha256
from pathlib import Path

from nacl.signing import SigningKey

ROOT = Path(__file__).resolve().parents[2]
FOREVER = (1 << 64) - 1
PREIMAGE = bytes([7]) * 32
KEYS = {
    name: SigningKey(bytes([number]) * 32)
    for number, name in enumerate(("server", "client", "key_a", "key_b", "key_c"), start=1)
}


def object_id(transaction: int, created: int) -> bytes:
    """Id of the object that is made as number `created` (from 0) in that transaction of a test scenario."""
    digest = transaction.to_bytes(8, "little") + bytes(24)
    return blake2b(b"\xf1" + digest + created.to_bytes(8, "little"), digest_size=32).digest()


CHANNEL = object_id(1, 1)
PASS_CHANNEL = object_id(2, 0)
LOCK = object_id(1, 1)


def address(key: SigningKey) -> bytes:
    """The Sui address of an Ed25519 key."""
    return blake2b(b"\x00" + bytes(key.verify_key), digest_size=32).digest()


def u64(value: int) -> bytes:
    """BCS of a u64."""
    return value.to_bytes(8, "little")


def vector(data: bytes) -> bytes:
    """BCS of a `vector<u8>` shorter than 128 bytes."""
    assert len(data) < 128
    return bytes([len(data)]) + data


@dataclass(frozen=True)
class Voucher:
    """A voucher and who signs it."""

    name: str
    sequence: int
    amount: int
    requests: int
    bytes: int
    why: str
    lane: int = 0
    key: str = "key_a"
    channel: bytes = field(default=CHANNEL)
    hash_lock: bytes | None = None
    not_after_ms: int = FOREVER

    def message(self) -> bytes:
        """BCS of `transport::channel::Voucher`."""
        lock = b"\x00" if self.hash_lock is None else b"\x01" + vector(self.hash_lock)
        counts = b"".join(map(u64, (self.sequence, self.amount, self.requests, self.bytes)))
        head = vector(b"dtp.voucher.v1") + self.channel + bytes([self.lane])
        return head + counts + lock + u64(self.not_after_ms)

    def move(self) -> str:
        """The function that returns this voucher and its signature."""
        lock = "option::none()" if self.hash_lock is None else f'option::some(x"{self.hash_lock.hex()}")'
        signature = KEYS[self.key].sign(self.message()).signature.hex()
        return f"""/// {self.why}
public fun {self.name}(): Signed {{
    let voucher = channel::new_voucher(
        object::id_from_address(@0x{self.channel.hex()}),
        {self.lane},
        {self.sequence},
        {self.amount},
        {self.requests},
        {self.bytes},
        {lock},
        {self.not_after_ms},
    );
    Signed {{ voucher, signature: x"{signature}" }}
}}
"""


HASH = sha256(PREIMAGE).digest()
VOUCHERS = (
    Voucher("first", 1, 100, 10, 0, "Ten requests at ten each."),
    Voucher("second", 2, 250, 20, 100, "Ten more requests, and bytes."),
    Voucher("third", 3, 900, 50, 50_000, "Most of the deposit, and bytes of three frames."),
    Voucher("fourth", 4, 5_000, 100, 50_000, "More than the deposit."),
    Voucher("last", 5, 5_000, 100, 50_000, "As the fourth, in the next sequence."),
    Voucher("carried", 1, 100, 10, 65_536, "As the first, and the bytes of four frames of 16 KiB."),
    Voucher("shrunk_amount", 2, 99, 10, 0, "Less than the first was for."),
    Voucher("shrunk_requests", 2, 100, 9, 10, "Fewer requests than the first counted."),
    Voucher("shrunk_bytes", 3, 250, 20, 99, "Fewer bytes than the second counted."),
    Voucher("other_sum", 1, 90, 10, 0, "The first's sequence with another amount."),
    Voucher("overpriced", 1, 101, 10, 0, "One more than ten requests cost."),
    Voucher("rounded_down", 1, 2, 0, 1_048_575, "A byte short of a MiB at three a MiB, rounded down."),
    Voucher("rounded_up", 1, 3, 0, 1_048_575, "A byte short of a MiB at three a MiB, rounded up."),
    Voucher("short_lived", 1, 100, 10, 0, "Good until the millisecond 1,000,500.", not_after_ms=1_000_500),
    Voucher("foreign", 1, 100, 10, 0, "For another channel.", channel=bytes(31) + b"\x01"),
    Voucher("locked", 1, 100, 10, 0, "Pays only with the preimage.", hash_lock=HASH),
    Voucher("badly_locked", 1, 100, 10, 0, "A hash lock that is a byte short.", hash_lock=HASH[:31]),
    Voucher("forged", 1, 100, 10, 0, "Signed by another lane's key.", key="key_b"),
    Voucher("laneless", 1, 100, 10, 0, "For a lane that isn't there.", lane=5),
    Voucher("lane_one", 1, 300, 30, 0, "Of the second lane, by its key.", lane=1, key="key_b"),
    Voucher("rotated", 2, 250, 20, 100, "Of the first lane, by its new key.", key="key_c"),
    Voucher("huge", 1, FOREVER, FOREVER, FOREVER, "All that fits."),
    Voucher("huge_lane_one", 1, FOREVER, FOREVER, FOREVER, "All that fits, again.", lane=1, key="key_b"),
    Voucher("receipt", 1, 0, 5, 20_000, "What was used under a pass.", channel=PASS_CHANNEL),
    Voucher("priced_receipt", 1, 1, 5, 20_000, "Asks for money under a pass.", channel=PASS_CHANNEL),
)


@dataclass(frozen=True)
class Agreement:
    """An agreed close and who signs it."""

    name: str
    total: int
    key: str
    why: str
    not_after_ms: int = FOREVER

    def message(self) -> bytes:
        """BCS of `transport::channel::Agreement`."""
        return vector(b"dtp.close.v1") + CHANNEL + u64(self.total) + u64(self.not_after_ms)

    def move(self) -> str:
        """The function that returns total, end, public key and signature."""
        key = KEYS[self.key]
        return f"""/// {self.why}
public fun {self.name}(): Agreed {{
    Agreed {{
        total: {self.total},
        not_after_ms: {self.not_after_ms},
        key: x"{bytes(key.verify_key).hex()}",
        signature: x"{key.sign(self.message()).signature.hex()}",
    }}
}}
"""


AGREEMENTS = (
    Agreement("agreed_by_server", 400, "server", "The server agrees to 400 in all."),
    Agreement("agreed_by_client", 400, "client", "The client agrees to 400 in all."),
    Agreement("agreed_by_stranger", 400, "key_a", "Somebody else agrees."),
    Agreement("agreed_low", 99, "server", "One less than the first voucher."),
    Agreement("agreed_high", 1_001, "server", "One more than the deposit."),
    Agreement("agreed_briefly", 400, "server", "Good until the millisecond 1,000,500.", 1_000_500),
)

STRUCTS = """/// A voucher and its signature.
public struct Signed has drop {
    voucher: Voucher,
    signature: vector<u8>,
}

/// An agreed close, the other party's public key and its signature.
public struct Agreed has drop {
    total: u64,
    not_after_ms: u64,
    key: vector<u8>,
    signature: vector<u8>,
}

public fun voucher(signed: &Signed): (Voucher, vector<u8>) { (signed.voucher, signed.signature) }

public fun agreement(agreed: &Agreed): (u64, u64, vector<u8>, vector<u8>) {
    (agreed.total, agreed.not_after_ms, agreed.key, agreed.signature)
}
"""

HEADER = """/// Signatures for the tests. Written by `tests/move/signed_fixtures.py`; don't edit.
#[test_only]
"""


def constants(*names: str) -> str:
    """Accessors for public keys, and for addresses of the parties."""
    parts = []
    for name in names:
        key = KEYS[name]
        if name.startswith("key"):
            parts.append(f'public fun {name}(): vector<u8> {{ x"{bytes(key.verify_key).hex()}" }}\n')
        else:
            parts.append(f"public fun {name}(): address {{ @0x{address(key).hex()} }}\n")
    parts.append(f'public fun preimage(): vector<u8> {{ x"{PREIMAGE.hex()}" }}\n')
    return "\n".join(parts)


def transport() -> str:
    """The module `transport::signed`."""
    uses = "module transport::signed;\n\nuse transport::channel::{Self, Voucher};\n"
    ids = "\n".join(
        f"public fun {name}(): ID {{ object::id_from_address(@0x{value.hex()}) }}\n"
        for name, value in (("channel_id", CHANNEL), ("pass_channel_id", PASS_CHANNEL))
    )
    body = "\n".join(entry.move() for entry in (*VOUCHERS, *AGREEMENTS))
    return "\n".join((HEADER + uses, STRUCTS, constants(*KEYS), ids, body))


def escrow() -> str:
    """The module `escrow::signed`: a release to the recipient @0xB0B, and one by another key."""
    message = vector(b"dtp.lock.v1") + LOCK + bytes(30) + b"\x0b\x0b"
    return "\n".join(
        (
            HEADER + "module escrow::signed;\n",
            constants("key_a"),
            f'public fun hash(): vector<u8> {{ x"{HASH.hex()}" }}\n',
            f"public fun lock_id(): ID {{ object::id_from_address(@0x{LOCK.hex()}) }}\n",
            "/// The key names @0xB0B.",
            f'public fun release(): vector<u8> {{ x"{KEYS["key_a"].sign(message).signature.hex()}" }}\n',
            "/// Another key names @0xB0B.",
            f'public fun forged(): vector<u8> {{ x"{KEYS["key_b"].sign(message).signature.hex()}" }}\n',
        )
    )


FILES = {
    ROOT / "move/transport/tests/signed.move": transport,
    ROOT / "move/escrow/tests/signed.move": escrow,
}


if __name__ == "__main__":
    for path, render in FILES.items():
        path.write_text(render())
