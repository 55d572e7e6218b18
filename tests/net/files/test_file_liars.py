"""Peers of a transfer that lie or break off."""

import hashlib
import os
from typing import Any

import pytest
from test_files import connection_to, content, folders, hear, run, say

from dtp.files import (
    FileExists,
    FileTransferError,
    NotTheSame,
    TransferRefused,
    receive_file,
    send_file,
)
from dtp.files.store import CHUNK
from dtp.session.codes import StreamReset

__all__ = ["folders"]


# --- A peer that lies or breaks off.

OFFER = {"op": "put", "version": 1, "name": "f", "size": 4, "mtime": 0, "hash": "sha256"}
GOOD = hashlib.sha256(b"abcd").digest()


@pytest.mark.parametrize(
    ("begin", "code"),
    [
        (dict(OFFER, size=-1), "protocol"),
        (dict(OFFER, size=1 << 63), "protocol"),
        (dict(OFFER, size=(1 << 63) - 1), "space"),
        (dict(OFFER, size="4"), "protocol"),
        (dict(OFFER, size=True), "protocol"),
        (dict(OFFER, mtime=-1), "protocol"),
        (dict(OFFER, hash="md5"), "protocol"),
        (dict(OFFER, version=2), "protocol"),
        (dict(OFFER, name=b"f"), "protocol"),
        (dict(OFFER, op="get"), "protocol"),
        (dict(OFFER, op=["put"]), "protocol"),
        ({}, "protocol"),
    ],
)
def test_a_receiver_refuses_what_is_no_offer(folders: Any, begin: Any, code: Any) -> None:
    _, there = folders

    async def main() -> None:
        async with connection_to(lambda stream: receive_file(stream, there)) as connection:
            stream = await connection.open_stream()
            say(stream, **begin)
            assert (await hear(stream))["code"] == code
            assert await stream.read() == b""

    run(main())
    assert os.listdir(there) == []


def lying_sender(there: Any, *after: Any) -> Any:
    """Offer four bytes, then say or write each of `after`, then finish; what the receiver makes of it."""

    async def main() -> Any:
        async with connection_to(lambda stream: receive_file(stream, there)) as connection:
            stream = await connection.open_stream()
            say(stream, **OFFER)
            assert (await hear(stream)) == {"op": "accept", "have": 0}
            for part in after:
                if isinstance(part, bytes):
                    stream.write(part)
                else:
                    say(stream, **part)
            stream.write_eof()
            return await connection.outcome, await hear(stream)

    return run(main())


def test_an_honest_sender_by_hand(folders: Any) -> None:
    received, answer = lying_sender(folders[1], b"ab", b"cd", {"op": "end", "digest": GOOD})
    assert answer == {"op": "done"}
    assert received.path.read_bytes() == b"abcd"


def test_a_lying_digest(folders: Any) -> None:
    with pytest.raises(NotTheSame):
        lying_sender(folders[1], b"abcd", {"op": "end", "digest": bytes(32)})
    assert os.listdir(folders[1]) == []


@pytest.mark.parametrize(
    ("after", "words"),
    [
        ((), "ended after 0 of 4 bytes"),
        ((b"ab",), "ended after 2 of 4 bytes"),
        ((b"abcd",), "ended where 'end' was due"),
        ((b"abcd", {"op": "done"}), "'done' came where 'end' was due"),
        ((b"abcd", {"op": "end", "digest": b"short"}), "a digest has 32 bytes"),
        ((b"abcdefg",), "a message of"),
        ((b"abcd\0\1\xc1",), "not MessagePack"),
        ((b"abcd\0\1\x01",), "not a map"),
        ((b"abcd", {"op": "refuse", "code": "io", "message": "\x1b[2J"}), "the peer refused the file"),
    ],
)
def test_a_sender_that_breaks_the_protocol(folders: Any, after: Any, words: Any) -> None:
    with pytest.raises((FileTransferError, TransferRefused), match=words):
        lying_sender(folders[1], *after)
    assert not (folders[1] / "f").exists()


@pytest.mark.parametrize(
    ("accept", "words"),
    [
        ({"op": "accept", "have": 5}, "claims to have 5 of 4 bytes"),
        ({"op": "accept", "have": -1}, "out of range"),
        ({"op": "accept", "have": 4}, "ended where 'start' was due"),
        ({"op": "done"}, "'done' came where 'accept' was due"),
        ({"op": "refuse", "code": "space", "message": "no"}, r"refused the file \(space\): no"),
        ({"op": "refuse", "code": "invented", "message": ""}, r"refused the file \(io\)"),
        ({"op": "refuse", "code": "io", "message": 5}, "needs 'message'"),
        (None, "ended where 'accept' was due"),
    ],
)
def test_a_receiver_that_breaks_the_protocol(folders: Any, accept: Any, words: Any) -> None:
    path = folders[0] / "f"
    path.write_bytes(b"abcd")

    async def receiver(stream: Any) -> None:
        assert (await hear(stream))["size"] == 4
        if accept:
            say(stream, **accept)
        stream.write_eof()

    async def main() -> None:
        async with connection_to(receiver) as connection:
            await send_file(connection, path)

    with pytest.raises((FileTransferError, TransferRefused), match=words):
        run(main())


@pytest.mark.parametrize("have", [2, 4])
def test_a_stranger_learns_nothing_of_a_file_whose_name_and_size_it_guesses(folders: Any, have: int) -> None:
    """With a digest they could try all PINs of four digits at home."""
    there = folders[1]
    (there / ("f" if have == 4 else "f.dtp-part")).write_bytes(b"1234"[:have])

    async def main() -> Any:
        async with connection_to(lambda stream: receive_file(stream, there)) as connection:
            stream = await connection.open_stream()
            say(stream, **OFFER)
            assert await hear(stream) == {"op": "accept", "have": have}
            say(stream, op="same", digest=hashlib.sha256(b"9999"[:have]).digest())
            answer = await hear(stream)
            stream.write_eof()
            with pytest.raises((FileExists, FileTransferError)):
                await connection.outcome
            return answer

    answer = run(main())
    if have == 4:
        assert (answer["op"], answer["code"]) == ("refuse", "exists")
        assert (there / "f").read_bytes() == b"1234"
    else:
        assert answer == {"op": "start", "from": 0}


def test_a_receiver_that_claims_another_beginning_gets_it_all(folders: Any) -> None:
    path = folders[0] / "f"
    path.write_bytes(b"abcd")

    async def receiver(stream: Any) -> None:
        await hear(stream)
        say(stream, op="accept", have=2)
        assert await hear(stream) == {"op": "same", "digest": hashlib.sha256(b"ab").digest()}
        say(stream, op="start", **{"from": 0})
        assert await stream.readexactly(4) == b"abcd"
        assert await hear(stream) == {"op": "end", "digest": GOOD}
        say(stream, op="done")
        await stream.flush()

    async def main() -> None:
        async with connection_to(receiver) as connection:
            assert (await send_file(connection, path)).begin == 0
            await connection.outcome

    run(main())


def test_a_receiver_that_begins_where_it_has_not_said(folders: Any) -> None:
    path = folders[0] / "f"
    path.write_bytes(b"abcd")

    async def receiver(stream: Any) -> None:
        await hear(stream)
        say(stream, op="accept", have=2)
        await hear(stream)
        say(stream, op="start", **{"from": 3})
        assert (await hear(stream))["code"] == "protocol"

    async def main() -> None:
        async with connection_to(receiver) as connection:
            with pytest.raises(FileTransferError, match="begins at 3, which is neither 0 nor 2"):
                await send_file(connection, path)
            await connection.outcome

    run(main())


def test_a_receiver_that_stops_without_a_word(folders: Any) -> None:
    path = folders[0] / "f"
    path.write_bytes(content(4 * CHUNK))

    async def receiver(stream: Any) -> None:
        await hear(stream)
        say(stream, op="accept", have=0)
        stream.write_eof()
        stream.stop(9)

    async def main() -> None:
        async with connection_to(receiver) as connection:
            await send_file(connection, path)

    with pytest.raises((FileTransferError, StreamReset)):
        run(main())
