"""MessagePack of strangers: whatever bytes come, there is a value or the reader's own error."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtp.errors import PeerError
from dtp.packing import pack, unpack, unpack_array


@given(st.binary(max_size=64))
def test_any_bytes_are_a_value_or_the_error_that_was_asked_for(data: bytes) -> None:
    try:
        value = unpack(data, PeerError, "it")
    except PeerError:
        with pytest.raises(PeerError, match="it is not MessagePack"):
            unpack_array(data, PeerError, "it", (1, int))
    else:
        assert repr(unpack(data, PeerError, "it", strict_map_key=False)) == repr(value)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\x91",  # an element is missing
        b"\x01\x02",  # something follows
        b"\xa1\xff",  # not UTF-8
        b"\x91" * 2000 + b"\x01",  # too deep
        b"\x81\x90\x01",  # a key that is a list
        b"\xd6\xff",  # half of a time
    ],
)
@pytest.mark.parametrize("options", [{}, {"strict_map_key": False}])
def test_what_is_no_messagepack(data: bytes, options: dict[str, Any]) -> None:
    with pytest.raises(PeerError, match="it is not MessagePack"):
        unpack(data, PeerError, "it", **options)


@pytest.mark.parametrize(
    "value",
    [
        [3],
        [1],
        [1, "a", 2],
        [1, True],
        [1, 2.0],
        [True, 2],
        [1.0, 2],
        ["1", 2],
        {"1": 2},
        1,
        [],
        None,
        [2, 1, "b"],
    ],
)
def test_an_array_of_no_form_that_is_expected(value: object) -> None:
    with pytest.raises(PeerError, match="of a kind that isn't expected here"):
        unpack_array(msgpack.packb(value, strict_types=True), PeerError, "it", (1, int), (2, bytes, str))


def test_an_array_of_a_form() -> None:
    assert unpack_array(pack([1, 5]), PeerError, "it", (1, int), (2, bytes, str)) == [1, 5]
    assert unpack_array(pack([2, b"a", "b"]), PeerError, "it", (1, int), (2, bytes, str)) == [2, b"a", "b"]
