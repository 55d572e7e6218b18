"""The shipped bytecode in Sui's own Move VM, which links and verifies it: the wheel `sui-sandbox`, where installed.

Its natives that take references are broken, so no signatures here; those run in the Move tests.
"""

from __future__ import annotations

import base64
from typing import Any

import pytest
import signed_fixtures as signed

from dtp.chain import packages

sandbox = pytest.importorskip("sui_sandbox", reason="the genuine VM is a wheel for x86-64 Linux: sui-sandbox")

PUBLISHED = bytes([0x11]) * 32


def published(name: str) -> list[str]:
    """The package's modules with an address of their own, as a node stores them."""
    modules = []
    for code in packages.load(name).modules.values():
        place = code.index(bytes(32))
        modules.append(base64.b64encode(code[:place] + PUBLISHED + code[place + 32 :]).decode())
    return modules


def call(
    package: str, module: str, function: str, *pure: bytes, types: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Call a function with pure arguments."""
    address = "0x" + PUBLISHED.hex()
    result: dict[str, Any] = sandbox.call_view_function(
        address,
        module,
        function,
        type_args=list(types),
        pure_inputs=list(pure),
        package_bytecodes={address: published(package)},
        fetch_deps=False,
    )
    return result


def returned(result: dict[str, Any]) -> bytes:
    """The one value that a call returned."""
    assert result["success"], result["error"]
    (value,) = result["return_values"][0]
    return base64.b64decode(value)


def test_release_bytes_are_what_the_key_signs() -> None:
    recipient = bytes(30) + b"\x0b\x0b"
    expected = signed.vector(b"dtp.lock.v1") + signed.LOCK + recipient
    result = returned(call("escrow", "lock", "release_bytes", signed.LOCK, recipient))
    assert result == signed.vector(expected)


@pytest.mark.parametrize("name", ["first", "locked", "huge", "short_lived"])
def test_vouchers_are_what_the_key_signs(name: str) -> None:
    voucher = next(v for v in signed.VOUCHERS if v.name == name)
    lock = b"\x00" if voucher.hash_lock is None else b"\x01" + signed.vector(voucher.hash_lock)
    counts = (voucher.sequence, voucher.amount, voucher.requests, voucher.bytes)
    arguments = (voucher.channel, bytes([voucher.lane]), *map(signed.u64, counts), lock)
    result = call("transport", "channel", "new_voucher", *arguments, signed.u64(voucher.not_after_ms))
    assert returned(result) == voucher.message()


def terms(bearer: int = 1, cap: int = 5, idle: int = 600_000, claim: int = 60_000) -> dict[str, Any]:
    """`host::new_terms` in SUI."""
    u64 = signed.u64
    numbers = (u64(10), u64(3), u64(1), u64(cap), bytes([bearer]), u64(2), u64(idle), u64(claim))
    return call("transport", "host", "new_terms", *numbers, types=("0x2::sui::SUI",))


def test_terms() -> None:
    coin = b"0" * 63 + b"2::sui::SUI"
    numbers = (10, 3, 1, 5)
    expected = signed.u64(0) + signed.vector(coin) + b"".join(map(signed.u64, numbers))
    expected += b"\x01" + b"".join(map(signed.u64, (2, 600_000, 60_000)))
    assert returned(terms()) == expected


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"bearer": 3}, "EBadBearer"),
        ({"cap": 0}, "EZeroCap"),
        ({"claim": 59_999}, "EBadClaimTime"),
        ({"idle": 59_999}, "EBadIdleTime"),
    ],
)
def test_refusals_carry_the_error_we_read(arguments: dict[str, int], error: str) -> None:
    result = terms(**arguments)
    assert not result["success"]
    code = int(result["error"].partition("sub_status: Some(")[2].partition(")")[0])
    abort = packages.load("transport").describe_abort("host", code)
    assert abort.name == error
