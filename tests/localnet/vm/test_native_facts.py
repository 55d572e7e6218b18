"""What natives answer on Sui: inputs and results that its own unit tests of the framework state.

They are in `tests/crypto` of `sui-framework` (2023 to 2025, Apache-2.0). The machine of the wheel runs none of these
natives, which take references.
"""

from __future__ import annotations

import pytest
from vm_world import World

from dtp.localnet.vm import ExecutionFailure

WORLD = World()
HELLO = b"Hello, world!"
KECCAK256, SHA256, NO_HASH = 0, 1, 2
#: Of secp256k1, by the hash that was signed; with the number of the point behind it the key is recovered.
K1_KEY = "02337cca2171fdbfcfd657fa59881f46269f1e590b5ffab6023686c7ad2ecc2c1c"
K1 = {
    KECCAK256: "7e4237ebfbc36613e166bfc5f6229360a9c1949242da97ca04867e4de57b2df3"
    "0c8340bcb320328cf46d71bda51fcb519e3ce53b348eec62de852e350edbd886",
    SHA256: "e5847245b38548547f613aaea3421ad47f5b95a222366fb9f9b8c57568feb19c"
    "7077fc31e7d83e00acc1347d08c3e1ad50a4eeb6ab044f25c861ddc7be5b8f9f",
}
R1_KEY = "0227322b3a891a0a280d6bc1fb2cbb23d28f54906fd6407f5f741f6def5762609a"
R1 = {
    KECCAK256: "209841acabd0fdf6d25fa0948b2f5c6c74f930eede89c6fce59502218a3134a1"
    "47535921bf0cdf5d1990f6f0b3dadb8c05069ddc531db057d325857ce198a529",
    SHA256: "26d84720652d8bc4ddd1986434a10b3b7b69f0e35a17c6a5987e6d1cba69652f"
    "4384a342487642df5e44592d304bea0ceb0fae2e347fa3cec5ce1a8144cfbbb2",
}
ED_KEY = "cc62332e34bb2d5cd69f60efbb2a36cb916c7eb458301ea36636c4dbb012bd88"
ED_MESSAGE = bytes.fromhex("315f5bdb76d078c43b8ac0064e4a0164612b1fce77c869345bfc94c75894edd3")
ED = (
    "cce72947906dbae4c166fc01fd096432784032be43db540909bc901dbc057992"
    "b4d655ca4f4355cf0868e1266baacf6919902969f063e74162f8f04bc4056105"
)
VERIFY_K1, VERIFY_R1, VERIFY_ED = (
    "ecdsa_k1::secp256k1_verify",
    "ecdsa_r1::secp256r1_verify",
    "ed25519::ed25519_verify",
)
RECOVER = "ecdsa_k1::secp256k1_ecrecover"
#: Function, arguments (bytes as hexadecimal), and what comes back: bytes, a verdict, or the code of an abort.
FACTS: list[tuple[str, tuple[str | bytes | int, ...], str | bool | int]] = [
    (
        "hash::keccak256",
        (b"hello world!",),
        "57caa176af1ac0433c5df30e8dabcd2ec1af1e92a26eced5f719b88458777cd6",
    ),
    (
        "hash::blake2b256",
        (b"hello world!",),
        "4fccfb4d98d069558aa93e9565f997d81c33b080364efd586e77a433ddffc5e2",
    ),
    (
        "hmac::hmac_sha3_256",
        (b"my key!", b"hello world!"),
        "f6d6ae02f426eb9664e89e3c6d86c60e6103ce22b916819219c26e34e8d236dc",
    ),
    (VERIFY_ED, (ED, ED_KEY, ED_MESSAGE), True),
    (VERIFY_ED, ("cde7" + ED[4:], ED_KEY, ED_MESSAGE), False),
    (VERIFY_ED, (ED, ED_KEY, b"A" + ED_MESSAGE[1:]), False),
    (VERIFY_ED, (ED, "", ED_MESSAGE), False),
    *((VERIFY_K1, (K1[number], K1_KEY, HELLO, number), True) for number in K1),
    *((VERIFY_K1, (K1[KECCAK256] + point, K1_KEY, HELLO, KECCAK256), False) for point in ("00", "01")),
    (VERIFY_K1, (K1[SHA256], K1_KEY[:-2], HELLO, SHA256), False),
    (VERIFY_K1, (K1[SHA256], K1_KEY, HELLO, NO_HASH), False),
    (VERIFY_K1, (K1[SHA256], K1_KEY, b"Farewell, world!", KECCAK256), False),
    (RECOVER, (K1[KECCAK256] + "00", HELLO, KECCAK256), K1_KEY),
    (RECOVER, (K1[SHA256] + "01", HELLO, SHA256), K1_KEY),
    (RECOVER, ("00" * 65, b"\0", SHA256), 0),
    (RECOVER, (K1[KECCAK256], HELLO, SHA256), 1),
    *((VERIFY_R1, (R1[number], R1_KEY, HELLO, number), True) for number in R1),
    *((VERIFY_R1, (R1[KECCAK256] + point, R1_KEY, HELLO, KECCAK256), False) for point in ("00", "01")),
    (VERIFY_R1, (R1[KECCAK256], R1_KEY[:-4] + "60", HELLO, KECCAK256), False),
]


def call(target: str, *arguments: str | bytes | int) -> str | bool | int | None:
    """What a native gives, as the table has it."""
    given = [bytes.fromhex(each) if isinstance(each, str) else each for each in arguments]
    try:
        (value,) = WORLD.call(
            target, *(bytearray(each) if isinstance(each, bytes) else each for each in given)
        ).numbers()
    except ExecutionFailure as failed:
        return failed.abort_code
    return bytes(value).hex() if isinstance(value, bytearray) else value


@pytest.mark.parametrize(("target", "arguments", "result"), FACTS)
def test_a_native_answers_as_on_sui(
    target: str, arguments: tuple[str | bytes | int, ...], result: str | bool | int
) -> None:
    told = call(target, *arguments)
    assert (type(told), told) == (type(result), result)


def test_an_account_of_ethereum_is_recovered_from_its_signature() -> None:
    """Also of Sui's tests: the recovered key is decompressed, and the account the end of its hash."""
    signature = (
        "382a3e04daf88f322730f6a2972475fc5646ea8c4a7f3b5e83a90b10ba08a736"
        "4cd2f55348f2b6d210fbed7fc485abf19ecb2f3967e410d6349dd7dd1d448775" + "00"
    )
    message = b"\x19Ethereum Signed Message:\n53" + b"0x63f9a92d8d61b48a9fff8d58080425a3012d05c8igwyk4r1o7o"
    whole = call("ecdsa_k1::decompress_pubkey", str(call(RECOVER, signature, message, KECCAK256)))
    assert str(call("hash::keccak256", str(whole)[2:]))[24:] == "63f9a92d8d61b48a9fff8d58080425a3012d05c8"
