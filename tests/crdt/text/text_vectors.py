"""Makes docs/vectors/text.json: `python tests/crdt/text/text_vectors.py`. Nothing of `dtp` takes part."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from reference.mark_reference import marking, shown
from reference.text_reference import Delete, Insert, Model, canonical, encode_version

FILE = Path(__file__).parents[3] / "docs" / "vectors" / "text.json"
ABOUT = (
    "Test vectors of replicated text, version 1 (docs/text.md). Bytes are in hexadecimal. Made by the second "
    "implementation: python tests/crdt/text/text_vectors.py"
)


def spell(author: bytes, op: Insert | Delete) -> dict[str, Any]:
    """An operation in words; characters are [author, number]."""

    def name(at: tuple[bytes, int] | None) -> list[Any] | None:
        return None if at is None else [at[0].hex(), at[1]]

    told: dict[str, Any] = {"author": author.hex(), "number": op.number}
    if isinstance(op, Delete):
        return told | {"delete": name(op.target)}
    return told | {"insert": op.char, "side": op.side, "parent": name(op.parent), "origin": name(op.origin)}


def history(seed: int, authors: int, steps: int, letters: str) -> Model:
    """What some authors do who know each other's doings in part; one model at the end that knows all."""
    rng = random.Random(seed)
    names = [bytes([65 + i]) * rng.choice([1, 2]) for i in range(authors)]
    models = {name: Model() for name in names}
    made: list[tuple[bytes, Insert | Delete]] = []

    def learn(model: Model, part: float) -> None:
        held_back: set[bytes] = set()
        for author, op in made:
            if author in held_back or op.number < model.next.get(author, 0):
                continue
            if rng.random() > part or op.number > model.next.get(author, 0) or not knows(model, op):
                held_back.add(author)
                continue
            model.apply(author, op)

    for _ in range(steps):
        name = rng.choice(names)
        model = models[name]
        learn(model, 0.9)
        at = rng.randint(0, len(model.text()))
        if rng.random() < 0.3 and model.text():
            for _ in range(min(rng.choice([1, 3]), len(model.text()))):
                op: Insert | Delete = model.deletion(name, min(at, len(model.text()) - 1))
                model.apply(name, op)
                made.append((name, op))
                at -= rng.choice([0, 1])
                at = max(at, 0)
        else:
            for i, char in enumerate(rng.choice(letters) * rng.choice([1, 1, 4])):
                op = model.insertion(name, at + i, char)
                model.apply(name, op)
                made.append((name, op))
    final = Model()
    while len(final.log) < len(made):
        learn(final, 1.1)
    return final


def knows(model: Model, op: Insert | Delete) -> bool:
    """Whether what the operation refers to is there."""
    needed = [op.target] if isinstance(op, Delete) else [op.parent, op.origin]
    return all(at is None or at in model.nodes for at in needed)


def text_vector(name: str, model: Model) -> dict[str, Any]:
    """One case, with messages from an empty version and from two others."""
    since = []
    for part in (0.4, 0.8):
        numbers: dict[bytes, int] = {}
        for author, op in model.log[: int(len(model.log) * part)]:
            numbers[author] = op.number + 1
        since.append(
            {"version": encode_version(numbers).hex(), "message": canonical(model.log, numbers).hex()}
        )
    return {
        "name": name,
        "operations": [spell(author, op) for author, op in model.log],
        "text": model.text(),
        "version": encode_version(model.next).hex(),
        "message": canonical(model.log, {}).hex(),
        "since": since,
    }


def marks_vector(seed: int) -> dict[str, Any]:
    """A text in which two mark, insert and delete at the same time."""
    rng = random.Random(seed)
    model, first = Model(), Model()
    for i, char in enumerate("The quick fox"):
        op = first.insertion(b"A", i, char)
        first.apply(b"A", op)
    models = {b"A": first, b"B": Model()}
    for author, known in first.log:
        models[b"B"].apply(author, known)
    for _ in range(12):
        author = rng.choice([b"A", b"B"])
        one = models[author]
        at = rng.randrange(len(one.text()))
        what = rng.randrange(5)
        made: Insert | Delete
        if what == 0:
            made = one.insertion(author, at, "+")
        elif what == 1:
            made = one.deletion(author, at)
        else:
            stop = min(len(one.text()), at + rng.randint(1, 6))
            name, value = rng.choice(
                [(b"bold", b"\xc3"), (b"bold", b"\xc0"), (b"link", b"\xa1u"), (b"comment:1", b"\xa1c")]
            )
            sides = {"before": rng.randrange(2) == 1, "after": rng.randrange(2) == 1}
            made = marking(one, author, at, stop, name, value, **sides)
        one.apply(author, made)
    log = first.log + [entry for entry in models[b"B"].log if entry[0] == b"B"]
    for author, op in log:
        model.apply(author, op)
    return {
        "name": f"history {seed}",
        "message": canonical(model.log, {}).hex(),
        "text": model.text(),
        "marks": [
            {name.decode(): value.hex() for name, value in sorted(attributes.items())}
            for _, attributes in shown(model)
        ],
    }


#: By hand from docs/text.md: what a base and groups on it stand for.
STATES = [
    {
        "name": "two characters, one forgotten between them, and a third on top",
        # kind, 1 author "A" with base 5; 3 spans: number 0 (right children), 1 deleted, 4; no groups; text "ad"
        "message": "d2"
        + "01"
        + "0141"
        + "05"
        + "03"
        + "94"
        + "00"
        + "00"
        + "85"
        + "88"
        + "04"
        + "00"
        + "02"
        + "6164",
        "text": "ad",
        "version": "01014105",
        # A's operation 5: a left child of the deleted character 1, that is between the two.
        "then": "d1" + "01" + "0141" + "01" + "05" + "8c" + "04" + "03" + "00" + "01" + "78",
        "text_then": "axd",
    },
    {
        "name": "operations on a base that are not compacted yet",
        # 2 authors, bases 6 and 0; spans: A's 0 and 1, B's 0 (x), A's 2 (deleted), A's 3 to 5; B's operations: 0 is a
        # left child of A's 2, 1 deletes A's 2
        "message": "d2"
        + "02"
        + "0141"
        + "0142"
        + "0600"
        + "04"
        + "14020000"
        + "900100"
        + "97"
        + "0002"
        + "0003"
        + "0200"
        + "94"
        + "0002"
        + "92"
        + "0002"
        + "03"
        + "00"
        + "06"
        + "616278646566",
        "text": "abxdef",
        "version": "02014106014202",
        # B's operations 2 to 4: downwards from A's 5
        "then": "d1" + "02" + "0142" + "0141" + "01" + "02" + "16030105" + "03" + "00" + "00",
        "text_then": "abx",
    },
]


def _mark(content: str) -> str:
    """The text of a message that has one mark."""
    size = len(content) // 2
    return f"{size + 2:02x}ff{size:02x}{content}"


#: Message and where it is wrong.
MALFORMED = [
    ("not a message", "00", 0),
    ("nothing behind the kind", "d1", 1),
    ("a name of no bytes", "d1010000", 2),
    ("a name of 65 bytes", "d10141" + "61" * 65 + "0000", 2),
    ("a name that is cut off", "d101056161", 2),
    ("more authors than bytes", "d1ffffffff0f", 1),
    ("a number that is not in its shortest form", "d181000000", 1),
    ("an author that is not in the table", "d101014103", 4),
    ("operations that are cut off", "d10101410100", 6),
    ("an impossible kind of operation", "d10101410100870300 00".replace(" ", ""), 6),
    ("a length of 1 told in the long form", "d1010141010018010300" + "0161", 7),
    ("a length of 0", "d1010141010018000300" + "00", 7),
    ("numbers beyond the end", "d101014101feffffff07980300" + "0161", 11),
    ("a length beyond the end", "d1010141010119feffffff070300" + "00", 12),
    ("the one before the first", "d101014101008003000161", 7),
    ("a reference to itself", "d1010141010088000300" + "0161", 7),
    ("a reference before the first", "d1010141010088010300" + "0161", 7),
    ("a reference to no author", "d10101410100900100030001" + "61", 7),
    ("a left child of nothing", "d101014101009c03000161", 7),
    ("a left child with a right origin", "d1010141010198a403000161", 8),
    ("the same right origin as none", "d10101410100f803000161", 7),
    ("deleting nothing", "d101014101019a0300" + "00", 7),
    ("deleting downwards below 0", "d10101410105160400" + "00" + "0300" + "00", 10),
    ("text that is missing", "d1010141010098030000", 9),
    ("text that is too much", "d101014101009803000261" + "61", 9),
    ("text that is cut off", "d1010141010098030005" + "61", 9),
    ("text that is no UTF-8", "d10101410100980300" + "01ff", 9),
    ("text with a surrogate", "d10101410100980300" + "03eda080", 9),
    ("text in an overlong form", "d10101410100980300" + "02c1a1", 9),
    ("something behind the message", "d10101410100980300" + "0161" + "ff", 11),
    ("a base of spans that are cut off", "d20101410105", 5),
    (
        "a state whose operations tell who is deleted",
        "d2010141" + "00" + "00" + "0100" + "99" + "0300" + "00",
        8,
    ),
    ("a span that continues none", "d2010141050180000061", 6),
    ("a span of an unknown author", "d20101410501900300" + "0161", 7),
    ("a mark that is inserted as a character", "d10101410100980300" + _mark("000c04626f6c64c3"), 9),
    ("a character that is inserted as a mark", "d1010141010007980300" + "0161", 10),
    ("a mark with others in one operation", "d101014101000718020300" + "00", 6),
    ("a mark with a side that there is not", "d1010141010007980300" + _mark("001004626f6c64c3"), 10),
    ("a mark from the beginning, but before it", "d1010141010007980300" + _mark("000404626f6c64c3"), 10),
    ("a mark to the end, but behind it", "d1010141010007980300" + _mark("000f04626f6c64c3"), 10),
    ("a mark without a name", "d1010141010007980300" + _mark("000d00c3"), 10),
    ("a mark without a value", "d1010141010007980300" + _mark("000d04626f6c64"), 10),
    ("a mark with something behind its value", "d1010141010007980300" + _mark("000d04626f6c64c3c3"), 10),
    (
        "a mark whose stamp is too high",
        "d1010141010007980300" + _mark("8080808080808080400d04626f6c64c3"),
        10,
    ),
    ("a mark that is longer than its text", "d1010141010007980300" + "05ff20000dc3", 10),
]


def main() -> None:
    """Write the file."""
    texts = [text_vector("nothing", Model())]
    for seed, (authors, steps, letters) in enumerate(
        [(1, 4, "ab"), (1, 12, "abc"), (2, 8, "aé"), (3, 14, "a漢😀"), (4, 24, "abc\n")]
    ):
        texts.append(text_vector(f"history {seed}", history(seed, authors, steps, letters)))
    malformed = [{"name": name, "message": message, "at": at} for name, message, at in MALFORMED]
    marks = [marks_vector(seed) for seed in range(4)]
    told = {"about": ABOUT, "texts": texts, "states": STATES, "marks": marks, "malformed": malformed}
    FILE.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
