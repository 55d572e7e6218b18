"""Sealed answers: they open with their key and with nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtp.pay.answers import MAX_ANSWER, lock_of, new_preimage, seal_answer
from dtp.pay.errors import SealedAnswerBroken

from .test_vectors import answer_in


@given(st.binary(max_size=300), st.binary(min_size=32, max_size=32), st.integers(0, 400), st.integers(1, 255))
def test_what_was_changed_does_not_open(data: Any, preimage: Any, at: Any, change: Any) -> None:
    box = seal_answer(preimage, data)
    answer = answer_in(box)
    assert answer.lock == lock_of(preimage)
    assert answer.open(preimage) == data
    broken = bytearray(answer.ciphertext)
    broken[at % len(broken)] ^= change
    with pytest.raises(SealedAnswerBroken):
        replace(answer, ciphertext=bytes(broken)).open(preimage)


def test_another_key_does_not_open() -> None:
    answer = answer_in(seal_answer(new_preimage(), b"words"))
    with pytest.raises(SealedAnswerBroken):
        answer.open(new_preimage())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes(35),
        bytes(36),
        bytes(32) + b"\xff\xff\xff\xff" + bytes(100),
        seal_answer(bytes(32), b"x")[:-1],
    ],
)
def test_broken_boxes(data: Any) -> None:
    with pytest.raises(SealedAnswerBroken):
        answer_in(data)


def test_too_much_is_not_sealed() -> None:
    with pytest.raises(SealedAnswerBroken, match="the most"):
        seal_answer(bytes(32), bytes(MAX_ANSWER + 1))
