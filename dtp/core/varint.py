"""Numbers as LEB128: seven bits a byte, the lowest first."""

from __future__ import annotations


def put_varint(out: bytearray, number: int) -> None:
    """Append a number, LEB128."""
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the number at `at`, in its shortest form, and where it ends. Raises `ValueError`."""
    if at < len(data) and data[at] < 128:  # most are so small
        return data[at], at + 1
    number, shift = 0, 0
    while True:
        if at >= len(data) or shift > 56:
            raise ValueError("it ends within a number, or one is too large")
        byte, at = data[at], at + 1
        number |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            break
    if byte == 0 and shift > 7:
        raise ValueError("a number is not in the shortest form")
    return number, at
