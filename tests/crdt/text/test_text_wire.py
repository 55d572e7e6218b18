"""Messages: the published vectors, the second implementation, and what strangers may send."""

from __future__ import annotations

import contextlib
import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference.text_reference import Malformed, Model, canonical, decode, encode, encode_version, put
from text_checks import exchange, patched
from text_vectors import FILE, MALFORMED, history

from dtp.core.sequence import TextMemory
from dtp.crdt import values as encoding
from dtp.crdt.text import Text, TextFormat, TextReference, TextStale, TextWaiting, Version
from dtp.errors import DtpError

VECTORS: dict[str, list[dict[str, Any]]] = json.loads(Path(FILE).read_text(encoding="utf-8"))


@pytest.mark.parametrize("vector", VECTORS["texts"], ids=lambda v: v["name"])
def test_vectors_of_texts(vector: dict[str, Any]) -> None:
    message = bytes.fromhex(vector["message"])
    text = Text.load(message, b"reader")
    assert str(text) == vector["text"]
    assert text.encoded_version().hex() == vector["version"]
    assert text.save() == message
    for case in vector["since"]:
        assert text.changes_since(bytes.fromhex(case["version"])).hex() == case["message"]
        other = Text(b"other")
        other.merge(message)
        other.merge(bytes.fromhex(case["message"]))
        assert other.save() == message


@pytest.mark.parametrize("vector", VECTORS["texts"], ids=lambda v: v["name"])
def test_vectors_tell_their_operations(vector: dict[str, Any]) -> None:
    if not vector["operations"]:
        return
    _, operations = decode(bytes.fromhex(vector["message"]))
    found = {(author.hex(), op.number): op for author, op in operations}
    assert len(found) == len(vector["operations"])
    for told in vector["operations"]:
        op = found[told["author"], told["number"]]
        if "delete" in told:
            assert [op.target[0].hex(), op.target[1]] == told["delete"]
        else:
            assert op.side == told["side"]


@pytest.mark.parametrize("vector", VECTORS["states"], ids=lambda v: v["name"])
def test_vectors_of_states(vector: dict[str, Any]) -> None:
    text = Text.load(bytes.fromhex(vector["message"]), b"reader")
    assert str(text) == vector["text"]
    assert text.encoded_version().hex() == vector["version"]
    text.merge(bytes.fromhex(vector["then"]))
    assert str(text) == vector["text_then"]
    text.check_structure()


@pytest.mark.parametrize("vector", VECTORS["marks"], ids=lambda v: v["name"])
def test_vectors_of_marks(vector: dict[str, Any]) -> None:
    message = bytes.fromhex(vector["message"])
    text = Text.load(message, b"reader")
    assert str(text) == vector["text"]
    assert text.save() == message
    marked = [attributes for piece, attributes in text.spans() for _ in piece]
    assert [
        {name: encoding.encode(value).hex() for name, value in attributes.items()} for attributes in marked
    ] == vector["marks"]


@pytest.mark.parametrize("vector", VECTORS["malformed"], ids=lambda v: v["name"])
def test_vectors_that_are_refused(vector: dict[str, Any]) -> None:
    text = Text(b"reader")
    with pytest.raises(TextFormat) as caught:
        text.merge(bytes.fromhex(vector["message"]))
    assert caught.value.offset == vector["at"]
    assert text.save() == b""


def test_the_file_holds_what_the_second_implementation_makes() -> None:
    assert [(v["name"], v["message"], v["at"]) for v in VECTORS["malformed"]] == MALFORMED
    for seed in (2, 3):
        model = history(seed, *((2, 8, "aé"), (3, 14, "a漢😀"))[seed - 2])
        assert VECTORS["texts"][seed + 1]["message"] == canonical(model.log, {}).hex()


@given(st.integers(0, 2**32), st.integers(1, 4), st.integers(1, 25))
def test_both_implementations_write_the_same_bytes(seed: int, authors: int, steps: int) -> None:
    model = history(seed, authors, steps, "aé漢😀")
    text = Text(b"reader")
    rng = random.Random(seed)
    operations = list(model.log)
    rng.shuffle(operations)
    for operation in operations:
        text.merge(encode([operation]))
    assert str(text) == model.text()
    assert text.encoded_version() == encode_version(model.next)
    assert text.save() == canonical(model.log, {})
    for part in (0.2, 0.5, 0.9):
        known: dict[bytes, int] = {}
        for author, op in model.log[: int(len(model.log) * part)]:
            known[author] = op.number + 1
        assert text.changes_since(Version(known)) == canonical(model.log, known)


# ---- adversaries


def taken(message: bytes, **limits: int) -> tuple[Text, DtpError | None]:
    """A text that was given a message, and how that ended."""
    text = Text(b"reader", **limits)
    text.insert(0, "own")
    try:
        text.merge(message)
    except DtpError as error:
        text.check_structure()
        return text, error
    text.check_structure()
    return text, None


@given(
    st.binary(max_size=60),
    st.sampled_from([b"", b"\xd1", b"\xd1\x01\x01A\x01\x00", b"\xd2", b"\xd2\x01\x01A\x05"]),
)
def test_any_bytes(data: bytes, head: bytes) -> None:
    text, error = taken(head + data)
    if error is not None:
        assert (
            isinstance(error, TextFormat | TextReference | TextStale | TextWaiting)
            or error.code == "text-diverged"
        )
    else:
        text.merge(head + data)


@given(st.integers(0, 50), st.randoms(use_true_random=False))
def test_damaged_messages(seed: int, rng: random.Random) -> None:
    message = bytearray(canonical(history(seed, 3, 12, "aé").log, {}))
    for _ in range(rng.choice([1, 1, 2, 5])):
        message[rng.randrange(len(message))] ^= 1 << rng.randrange(8)
    if rng.random() < 0.3:
        del message[rng.randrange(len(message)) :]
    text, error = taken(bytes(message))
    if isinstance(error, TextFormat):
        assert 0 <= error.offset <= len(message)
        assert str(text) == "own"
    try:
        decode(bytes(message))
    except (Malformed, IndexError, UnicodeDecodeError, AssertionError, OverflowError):
        assert isinstance(error, DtpError) or error is None  # ours may be the stricter one, never the laxer
    else:
        Text.load(text.save(), b"again").check_structure()


HUGE = put(2**31 - 3)


@pytest.mark.parametrize(
    ("message", "limits"),
    [
        pytest.param(b"\xd1" + put(2**32), {}, id="authors"),
        pytest.param(
            b"\xd1\x01\x01A\x01\x00" + bytes([0x19]) + HUGE + b"\x03\x00\x00", {}, id="dead characters"
        ),
        pytest.param(b"\xd1\x01\x01A\x01\x00" + bytes([0x18]) + HUGE + b"\x03\x00\x01a", {}, id="characters"),
        pytest.param(b"\xd2\x01\x01A" + HUGE + put(2**32), {}, id="spans"),
        pytest.param(
            b"\xd2\x01\x01A" + HUGE + b"\x01\x11" + HUGE + b"\x00\x00\x00\x00", {}, id="a dead base"
        ),
        pytest.param(b"\xd1\x00\x00" + put(2**60), {}, id="text"),
        pytest.param(
            b"\xd1"
            + put(20000)
            + b"".join(b"\x02" + i.to_bytes(2, "big") for i in range(20000))
            + b"\x00\x00",
            {"memory_limit": 100_000},
            id="names",
        ),
    ],
)
def test_huge_counts_cost_nothing(message: bytes, limits: dict[str, int]) -> None:
    text, error = taken(message, **limits)
    assert (
        error is None
        or isinstance(error, TextFormat | TextReference | TextMemory)
        or error.code == "text-diverged"
    )
    assert text.memory < 100_000


def test_deleting_a_huge_range_that_was_forgotten_is_quick() -> None:
    text = Text.load(b"\xd2\x01\x01A" + HUGE + b"\x01\x90\x00\x00\x00\x01a", b"reader")
    assert str(text) == "a"
    # B deletes all of A's numbers, of which one is there.
    text.merge(b"\xd1\x02\x01B\x01A\x01\x00\x12" + HUGE + b"\x01\x00\x03\x00\x00")
    assert str(text) == ""
    text.check_structure()


def test_references_to_what_is_no_character() -> None:
    text = Text(b"reader")
    text.merge(bytes.fromhex("d10101410100980300" + "0161"))  # A inserts a
    text.merge(bytes.fromhex("d10101410101820300" + "00"))  # and deletes it, by number 1
    for kind in ("88", "8c", "8a"):  # a right child, a left child, a deletion, of number 1
        message = bytes.fromhex("d1010141" + "0102" + kind + "01" + "0300") + (
            b"\0" if kind == "8a" else b"\x01x"
        )
        with pytest.raises(TextReference) as caught:
            text.merge(message)
        assert caught.value.offset == 6
    text.check_structure()
    assert str(text) == ""


def test_what_was_merged_before_a_fault_is_told() -> None:
    text = Text(b"reader")
    # A inserts a and b, deletes b by number 2, and then a right child of that.
    message = bytes.fromhex("d1010141" + "0100" + "1802" + "82" + "88" + "01" + "0300" + "03616278")
    with pytest.raises(TextReference) as caught:
        text.apply(message)
    assert caught.value.offset == 9
    assert patched("", caught.value.patches) == str(text) == "a"


def test_what_waits_and_then_refers_to_no_character_is_thrown_away() -> None:
    text = Text(b"reader")
    text.merge(bytes.fromhex("d10201420141" + "0100" + "92" + "0101" + "0300" + "00"))  # B deletes A's 1
    assert text.waiting == 1
    text.merge(
        bytes.fromhex("d1010141" + "0100" + "98" + "82" + "0300" + "0161")
    )  # which is itself a deletion
    assert text.waiting == 0
    assert b"B" not in text.version


def test_cycles_wait_for_ever_within_bounds() -> None:
    text = Text(b"reader", waiting_limit=10_000)
    # A's first refers to B's first, and that to A's.
    a = bytes.fromhex("d10201410142" + "0100" + "90" + "0100" + "0300" + "0161")
    b = bytes.fromhex("d10201420141" + "0100" + "90" + "0100" + "0300" + "0162")
    for _ in range(10):
        text.merge(a)
        text.merge(b)
    assert text.waiting == 2
    assert str(text) == ""
    assert text.save() == b""


def test_the_same_character_twice_in_a_base() -> None:
    message = "d2" + "01" + "0141" + "05" + "02" + "940000" + "980000" + "00" + "02" + "6162"
    with pytest.raises(TextFormat):
        Text.load(bytes.fromhex(message), b"reader")
    message = "d2" + "01" + "0141" + "05" + "02" + "14030000" + "8803" + "00" + "04" + "61626364"
    with pytest.raises(TextFormat):
        Text.load(bytes.fromhex(message), b"reader")


def test_a_character_beyond_its_base() -> None:
    with pytest.raises(TextFormat):
        Text.load(
            bytes.fromhex("d2" + "01" + "0141" + "01" + "01" + "940001" + "00" + "01" + "61"), b"reader"
        )


def test_a_state_with_gaps_is_refused() -> None:
    # A's operation 6 on a base of 5: number 5 is missing.
    message = "d2" + "01" + "0141" + "05" + "01" + "940000" + "0106" + "8806" + "03" + "00" + "01" + "61"
    with pytest.raises(TextReference, match="at byte 11"):
        Text.load(bytes.fromhex(message), b"reader")


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (
            "a child on the wrong side",
            "d2020141014201000294000081900100" + "0200" + "940000" + "0300" + "0161",
        ),
        (
            "a character that is missing",
            "d202014101420100" + "01" + "940000" + "0200" + "900000" + "0300" + "0161",
        ),
        (
            "a deleted one that is visible",
            "d202014101420100" + "01" + "940000" + "0200" + "920000" + "0300" + "0161",
        ),
        (
            "a cycle",
            "d20201410142000002"
            + "900000"
            + "900100"
            + "0100"
            + "900100"
            + "03"
            + "0200"
            + "900000"
            + "0300"
            + "026162",
        ),
    ],
)
def test_states_that_contradict_themselves(what: str, message: str) -> None:
    with pytest.raises((TextFormat, TextReference)):
        Text.load(bytes.fromhex(message), b"reader")


def test_a_state_that_says_falsely_that_there_are_children() -> None:
    text = Text.load(bytes.fromhex("d2010141" + "01" + "01" + "960000" + "00" + "0161"), b"reader")
    text.append("b")
    text.insert(0, "c")
    assert str(text) == "cab"
    other = Text.load(text.save(), b"other")
    other.append("d")
    text.merge(other.take_changes())
    assert str(text) == str(other) == "cabd"
    text.check_structure()


def test_equivocation_breaks_nothing() -> None:
    # Two operations under one number: signatures above have to find that; here it must only be survived.
    one, two = Text(b"one"), Text(b"two")
    for text, letters in ((one, "abc"), (two, "xy")):
        evil = Text(b"evil")
        evil.insert(0, letters)
        evil.delete(0)
        evil.insert(0, letters)
        text.merge(evil.save())
    for text, other in ((one, two), (two, one)):
        message = other.changes_since(text.version)
        assert message == b"" if text is one else message
        with contextlib.suppress(TextReference, TextStale):
            text.merge(message)
        text.check_structure()


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_messages_in_any_buffer(kind: Any) -> None:
    author, reader = Text(b"a"), Text(b"r")
    author.insert(0, "abc")
    message = author.take_changes()
    assert reader.apply(kind(message)) == [(0, 0, "abc")]
    reader.merge(kind(message))
    with pytest.raises(TypeError):
        reader.merge("abc")  # type: ignore[arg-type]
    assert str(reader) == "abc"


def test_a_message_of_nothing() -> None:
    text = Text(b"a")
    assert text.apply(b"") == []
    assert text.apply(b"\xd1\x00\x00\x00") == []
    assert text.save() == b""
    assert text.take_changes() == b""
    text.insert(0, "")
    assert text.version == Version()
    exchange([text, Text(b"b")])


def test_the_model_agrees_on_what_nothing_is() -> None:
    assert canonical(Model().log, {}) == b""
    assert encode_version({}) == Text(b"a").encoded_version() == b"\0"
