"""Attachments whose sender, or whose mailbox, isn't honest."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from dtp.carriers.nearness import Nearness
from dtp.messaging.mailbox.store import piece_hash
from dtp.messaging.person.attachments import (
    _CONTENT,
    _INDEX,
    PIECE,
    Attachment,
    AttachmentBroken,
    AttachmentGone,
    _seal,
    seal_bytes,
)

KEY = bytes(range(32))
DATA = bytes(range(256)) * (PIECE // 256) + b"the end"
LIMIT = 1 << 20


class Shelf:
    """A mailbox that has pieces, by what they are asked for."""

    def __init__(self, pieces: dict[bytes, bytes]) -> None:
        self.pieces, self.asked = pieces, 0

    async def get_piece(self, digest: bytes) -> bytes:
        self.asked += 1
        return self.pieces[digest]


class Pool:
    """Mailboxes by name, which are asked as `MailboxPool` does it."""

    def __init__(self, **shelves: Shelf) -> None:
        self.shelves = shelves

    async def try_each(
        self, addresses: tuple[str, ...], teller: Nearness, ask: Callable[[Any], Awaitable[bool]]
    ) -> bool:
        for each in addresses:
            if await ask(self.shelves[each]):
                return True
        return False


def shelve(*pieces: bytes) -> Shelf:
    return Shelf({piece_hash(each): each for each in pieces})


def attachment(size: int, roots: list[bytes], **shelves: Shelf) -> Attachment:
    return Attachment("map.png", size, KEY, tuple(roots), tuple(shelves), Pool(**shelves))  # type: ignore[arg-type]


def read(file: Attachment) -> bytes:
    return asyncio.run(file.read(limit=LIMIT))


def test_a_mailbox_that_gives_other_pieces_hides_none_that_another_has() -> None:
    (_, size, _, roots, _), pieces = seal_bytes("map.png", DATA, KEY)
    honest = shelve(*pieces)
    lying = Shelf(dict(zip(honest.pieces, [*pieces[1:], pieces[0]], strict=True)))
    assert read(attachment(size, roots, first=lying, second=honest)) == DATA
    assert lying.asked == honest.asked == 3
    with pytest.raises(AttachmentGone):
        read(attachment(size, roots, first=lying))


@pytest.mark.parametrize("lengths", [(PIECE - 1, 4096), (PIECE, 6), (PIECE, 7 + 4096)])
def test_pieces_of_other_lengths_than_the_file_is_said_to_have_are_no_file(lengths: tuple[int, int]) -> None:
    pieces = [_seal(KEY, _CONTENT, number, bytes(length)) for number, length in enumerate(lengths)]
    index = _seal(KEY, _INDEX, 0, b"".join(map(piece_hash, pieces)))
    with pytest.raises(AttachmentBroken, match="as long as its size says"):
        read(attachment(len(DATA), [piece_hash(index)], box=shelve(index, *pieces)))


@pytest.mark.parametrize("count", [1, 3])
def test_an_index_of_more_or_fewer_pieces_than_the_file_has_is_none(count: int) -> None:
    pieces = [_seal(KEY, _CONTENT, number, bytes(PIECE)) for number in range(count)]
    index = _seal(KEY, _INDEX, 0, b"".join(map(piece_hash, pieces)))
    with pytest.raises(AttachmentBroken, match="not as many pieces"):
        read(attachment(len(DATA), [piece_hash(index)], box=shelve(index, *pieces)))


def test_nothing_is_fetched_where_the_index_can_not_be_that_of_the_size() -> None:
    (_, size, _, roots, _), pieces = seal_bytes("map.png", DATA, KEY)
    for told in ([], roots * 2):
        box = shelve(*pieces)
        with pytest.raises(AttachmentBroken, match="isn't as long"):
            read(attachment(size, told, box=box))
        assert box.asked == 0
