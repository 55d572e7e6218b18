"""Writes the Move test modules that hold signatures: `python tests/move/signed_fixtures.py`.

Move can verify Ed25519 but not sign, and what is signed names the channel or lock by its id. In a test scenario
ids are deterministic (Blake2b-256 over 0xf1, the transaction's hash and a counter; the hash is the number of the
transaction, little-endian, padded with zeros), so everything can be signed beforehand. The keys are test keys
with published seeds. `test_signed_fixtures.py` checks that the files are what this script writes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import blake2b, sha256
from itertools import pairwise
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


#: Beside a field of this name.
_Bytes = bytes


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
    channel: _Bytes = field(default=CHANNEL)
    hash_lock: _Bytes | None = None
    not_after_ms: int = FOREVER

    def message(self) -> _Bytes:
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


#: The directory is the first thing that is made in a test scenario.
DIRECTORY = object_id(0, 0)
DEVICE = SigningKey(bytes([9]) * 32)
#: Keys and recovery keys of an account whose key is changed as often as can be, and once more.
TURNS = [(SigningKey(bytes([turn]) * 32), SigningKey(bytes([turn + 100]) * 32)) for turn in range(101, 134)]


def public(key: SigningKey) -> bytes:
    """The public key."""
    return bytes(key.verify_key)


def account(key: SigningKey, recovery: SigningKey) -> bytes:
    """Name of the account that begins with these keys."""
    return blake2b(b"dtp.account.v1" + public(key) + public(recovery), digest_size=32).digest()


ACCOUNT = account(KEYS["key_a"], KEYS["key_b"])


def contents(expires_ms: int) -> bytes:
    """BCS of `directory::card::Contents` as the tests have it."""
    device = b"\x01" + vector(public(DEVICE)) + vector(b"laptop")
    mailboxes = b"\x01" + vector(b"dtp+tcp://box:9000/mail")
    return vector(bytes([5]) * 32) + vector(bytes([6]) * 32) + device + mailboxes + u64(expires_ms)


def statement(generation: int, sequence: int, expires_ms: int = 0, directory: bytes = DIRECTORY) -> bytes:
    """BCS of `directory::card::Statement`."""
    head = vector(b"dtp.directory.v1") + directory + vector(ACCOUNT)
    return head + u64(generation) + u64(sequence) + contents(expires_ms)


def wallet(sequence: int, last_byte: int, linked: bool, generation: int = 1) -> bytes:
    """BCS of `directory::card::WalletStatement`, for the wallet @0x..last_byte."""
    head = vector(b"dtp.wallet.v1") + DIRECTORY + vector(ACCOUNT) + u64(generation) + u64(sequence)
    return head + bytes(31) + bytes([last_byte, linked])


def rotation(name: bytes, generation: int, key: SigningKey, recovery: SigningKey) -> bytes:
    """What a recovery key signs, as `dtp.identity.card.rotation_message` has it."""
    return (
        vector(b"dtp.card.rotation.v1")
        + name
        + generation.to_bytes(4, "big")
        + public(key)
        + public(recovery)
    )


def end(generation: int) -> bytes:
    """BCS of `directory::card::EndStatement`."""
    return vector(b"dtp.card.end.v1") + DIRECTORY + vector(ACCOUNT) + u64(generation)


def _card_signatures() -> list[tuple[str, str, bytes, str]]:
    """Name, key, message, and what it is, of each signature of an account."""
    next_keys = KEYS["key_c"], KEYS["server"]
    return [
        ("said", "key_a", statement(1, 1), "The first that the account says, for good."),
        ("said_again", "key_a", statement(1, 2, 51_000), "The next, until the millisecond 51,000."),
        ("said_briefly", "key_a", statement(1, 1, 50_000), "The first, until the millisecond 50,000."),
        ("said_elsewhere", "key_a", statement(1, 1, 0, bytes(32)), "The first, in another directory."),
        ("said_by_recovery", "key_b", statement(1, 1), "The first, by the recovery key."),
        ("said_by_next", "key_c", statement(2, 2), "What the account's second key says."),
        ("said_by_replaced", "key_a", statement(2, 2), "The same, by the key before."),
        ("rotated", "key_b", rotation(ACCOUNT, 2, *next_keys), "The second key, by the recovery key."),
        ("rotated_by_key", "key_a", rotation(ACCOUNT, 2, *next_keys), "The second key, by the first."),
        ("ended", "key_b", end(1), "The end, by the recovery key."),
        ("ended_by_key", "key_a", end(1), "The end, by the account's key."),
        ("ended_by_next", "server", end(2), "The end, by the second recovery key."),
        ("unlinked", "key_a", wallet(3, 1, False), "Unlinks the wallet @0x1, as the third statement."),
        ("unlinked_unknown", "key_a", wallet(2, 2, False), "Unlinks the wallet @0x2, as the second."),
        ("linked_by_next", "key_c", wallet(2, 1, True, 2), "Links the wallet @0x1, by the second key."),
    ]


def directory() -> str:
    """The module `directory::signed`."""

    def returns(name: str, value: bytes, why: str = "") -> str:
        comment = f"/// {why}\n" if why else ""
        return f'{comment}public fun {name}(): vector<u8> {{ x"{value.hex()}" }}\n'

    def returns_all(name: str, values: list[bytes]) -> str:
        lines = "".join(f'        x"{value.hex()}",\n' for value in values)
        return f"public fun {name}(): vector<vector<u8>> {{\n    vector[\n{lines}    ]\n}}\n"

    turns, signatures = TURNS, []
    name = account(*turns[0])
    for generation, ((_, before), (key, recovery)) in enumerate(pairwise(turns), 2):
        signatures.append(before.sign(rotation(name, generation, key, recovery)).signature)
    links = [KEYS["key_a"].sign(wallet(number + 1, number, True)).signature for number in range(1, 34)]
    return "\n".join(
        (
            HEADER + "module directory::signed;\n",
            *(returns(each, public(KEYS[each])) for each in ("key_a", "key_b", "key_c")),
            returns("key_d", public(KEYS["server"]), "Recovery key of the second generation."),
            returns("device", public(DEVICE)),
            returns("account", ACCOUNT, "Name of the account that begins with key_a and key_b."),
            *(
                returns(each, KEYS[key].sign(message).signature, why)
                for each, key, message, why in _card_signatures()
            ),
            returns_all("links", links),
            returns_all("turn_keys", [public(key) for key, _ in turns]),
            returns_all("turn_recoveries", [public(recovery) for _, recovery in turns]),
            returns_all("turn_signatures", signatures),
        )
    )


FILES = {
    ROOT / "move/transport/tests/signed.move": transport,
    ROOT / "move/escrow/tests/signed.move": escrow,
    ROOT / "move/directory/tests/signed.move": directory,
}


if __name__ == "__main__":
    for path, render in FILES.items():
        path.write_text(render())
