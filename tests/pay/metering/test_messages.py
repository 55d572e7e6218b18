"""METER frames: every message comes back as it was said, and nothing else is taken for one."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtp.pay import messages
from dtp.pay.errors import MalformedMeter
from dtp.pay.messages import KINDS, MAX_FRAME, VoucherSaid, build, parse

SAID = VoucherSaid(5, 10, 2, 3, 2**64 - 1, None, bytes(64), 0)
EXAMPLES = [
    SAID,
    VoucherSaid(2**63 - 1, 2**63 - 1, 2**63 - 1, 2**63 - 1, 0, bytes(32), bytes(64), 2**32 - 1),
    messages.Decline(1),
    messages.Renewed(),
    messages.Finish(),
    messages.AskClose(),
    messages.Heard(),
    messages.ToldBudget(2**63 - 1),
    messages.Welcome(1, 2, 3, 4, 5, 6, 7, True, False, None),
    messages.Welcome(1, 2, 3, 4, 5, 6, 7, False, True, SAID),
    messages.Due(1, 2),
    messages.ChargeAsked(1, 2, None),
    messages.ChargeAsked(1, 2, bytes(32)),
    messages.Reveal(bytes(32)),
    messages.Bill(1, 2),
    messages.Agreed(1, 2**64 - 1, bytes(32), bytes(64)),
    messages.Stored(9),
]
SERVERS = {cls for kind, (cls, _) in KINDS.items() if 0x10 <= kind < 0x80}


def test_every_kind_has_an_example() -> None:
    assert {type(each) for each in EXAMPLES} == {cls for cls, _ in KINDS.values()}


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda m: type(m).__name__)
def test_messages_come_back(message: Any) -> None:
    frame = build(message)
    assert len(frame) <= 400
    assert parse(frame, from_client=type(message) not in SERVERS) == message


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda m: type(m).__name__)
def test_each_side_says_only_its_own(message: Any) -> None:
    with pytest.raises(MalformedMeter):
        parse(build(message), from_client=type(message) in SERVERS)


@given(st.binary(max_size=300), st.booleans())
def test_noise_is_refused_or_skipped(data: Any, from_client: Any) -> None:
    try:
        message = parse(data, from_client=from_client)
    except MalformedMeter:
        return
    assert message is None or build(message)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.binary(max_size=70)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=10) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)


@given(st.sampled_from(sorted(KINDS)), st.lists(VALUES, max_size=10), st.booleans())
def test_fields_of_other_types_are_refused(kind: Any, fields: Any, from_client: Any) -> None:
    """What is taken is exactly what building it again gives: no second spelling, no coerced value."""
    data = msgpack.packb([kind, *fields])
    try:
        message = parse(data, from_client=from_client)
    except MalformedMeter:
        return
    assert build(message) == data


@pytest.mark.parametrize(
    "fields",
    [
        [],
        [True],
        ["x"],
        [0x17],
        [0x00],
        [-1],
        [256],
        [0x04, 1],
        [0x02],
        [0x02, -1],
        [0x02, True],
        [0x02, 2**32],
        [0x02, 1.0],
        [0x01, 0, 0, 0, 0, 0, None, bytes(63), 0],
        [0x01, 0, 2**63, 0, 0, 0, None, bytes(64), 0],
        [0x01, 0, 0, 0, 0, 2**64 - 1, bytes(31), bytes(64), 0],
        [0x01, 0, 0, 0, 0, 0, "x" * 32, bytes(64), 0],
    ],
)
def test_malformed_messages_of_a_client(fields: Any) -> None:
    with pytest.raises(MalformedMeter):
        parse(msgpack.packb(fields), from_client=True)


def test_what_is_not_one_array_is_refused() -> None:
    for data in (
        b"",
        msgpack.packb({1: 2}),
        msgpack.packb(4),
        build(SAID) + b"\x00",
        b"\xc1",
        b"\x91" * 2000,
    ):
        with pytest.raises(MalformedMeter):
            parse(data, from_client=True)


def test_later_kinds_are_skipped_and_frames_bounded() -> None:
    assert parse(msgpack.packb([0x81, {"a": 1}]), from_client=True) is None
    assert parse(msgpack.packb([0xFF]), from_client=False) is None
    with pytest.raises(MalformedMeter, match="4096"):
        parse(msgpack.packb([0x81, bytes(MAX_FRAME)]), from_client=True)
