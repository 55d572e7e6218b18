"""Files over streams: whole, resumed, refused, and what hostile names, sizes, digests and ends do."""

import asyncio
import contextlib
import errno
import hashlib
import itertools
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtp.files import (
    FileExists,
    FileProblem,
    FileTransferError,
    NameRefused,
    NoSpace,
    Received,
    TransferRefused,
    check_name,
    fetch_file,
    receive_file,
    send_file,
    serve_file,
    transfer,
)
from dtp.files import messages as m
from dtp.files.names import MAX_NAME, part_name
from dtp.files.store import CHUNK, IncomingFile, OutgoingFile
from dtp.identity import Identity
from dtp.net.dial import connect
from dtp.net.listener import listen
from dtp.net.stream import Stream
from dtp.pay.errors import BudgetSpent, MoneyNotAdded
from dtp.session.limits import DEFAULT

SERVER = Identity(b"s" * 32, b"t" * 32)
_places = itertools.count()


def content(size: int, seed: bytes = b"") -> bytes:
    return hashlib.shake_128(seed).digest(size)


def run(coroutine: Any) -> Any:
    async def limited() -> Any:
        async with asyncio.timeout(60):
            return await coroutine

    return asyncio.run(limited())


@contextlib.asynccontextmanager
async def connection_to(handler: Any) -> AsyncIterator[Any]:
    """A connection in memory to `handler`, which takes a stream; `outcome` is what it returned or raised."""
    outcome = asyncio.get_running_loop().create_future()

    async def serve(connection: Any) -> None:
        try:
            outcome.set_result(await handler(await connection.accept_stream()))
        except Exception as error:  # noqa: BLE001 - passed on to the test
            outcome.set_exception(error)
            outcome.exception()
        await connection.wait_closed()

    async with (
        await listen(f"memory://files-{next(_places)}", serve, identity=SERVER) as listener,
        connect(listener.address()) as connection,
    ):
        connection.outcome = outcome  # type: ignore[attr-defined]
        yield connection


def give(path: Any, folder: Any, **options: Any) -> Any:
    """Send the file at `path` to a receiver in `folder`; gives what both sides have to say."""

    async def main() -> Any:
        seen: list[Any] = []
        async with connection_to(lambda stream: receive_file(stream, folder, **options)) as connection:
            sent = await send_file(connection, path, progress=seen.append)
            return sent, await connection.outcome, seen

    return run(main())


def fetch(root: Any, folder: Any, path: Any = "", below: Any = "", **options: Any) -> Any:
    async def main() -> Any:
        async with connection_to(lambda stream: serve_file(stream, root, below)) as connection:
            received = await fetch_file(connection, folder, path, **options)
            return received, await connection.outcome

    return run(main())


async def hear(stream: Any) -> Any:
    size = int.from_bytes(await stream.readexactly(2))
    return msgpack.unpackb(await stream.readexactly(size))


def say(stream: Any, **fields: Any) -> None:
    body = msgpack.packb(fields)
    stream.write(len(body).to_bytes(2) + body)


@pytest.fixture
def folders(tmp_path: Path) -> Any:
    (tmp_path / "from").mkdir()
    (tmp_path / "to").mkdir()
    return tmp_path / "from", tmp_path / "to"


# --- Whole files.


@pytest.mark.parametrize("size", [0, 1, 65_519, CHUNK, CHUNK + 1, 3 * CHUNK + 7])
def test_a_file_arrives_as_it_is(folders: Any, size: int) -> None:
    here, there = folders
    data = content(size)
    (here / "größe 1.bin").write_bytes(data)
    os.utime(here / "größe 1.bin", ns=(5, 1_234_567_890_123_456_789))
    sent, received, seen = give(here / "größe 1.bin", there)
    assert received.path == there / "größe 1.bin"
    assert received.path.read_bytes() == data
    assert received.path.stat().st_mtime_ns == 1_234_567_890_123_456_789
    assert sent.digest == received.digest == hashlib.sha256(data).digest()
    assert (sent.begin, received.begin) == (0, 0)
    assert os.listdir(there) == ["größe 1.bin"]
    assert seen[-1].done == size
    assert [p.done for p in seen] == sorted(p.done for p in seen)


def test_a_file_is_fetched_from_a_folder(folders: Any) -> None:
    here, there = folders
    (here / "a" / "b").mkdir(parents=True)
    (here / "a" / "b" / "c.txt").write_bytes(b"deep")
    for path, below in (("a/b/c.txt", ""), ("b/c.txt", "a"), ("", "a/b/c.txt")):
        received, sent = fetch(here, there, path, below, overwrite=True)
        assert received.path.read_bytes() == b"deep"
        assert sent.digest == received.digest


def test_one_file_is_fetched_with_and_without_its_name(folders: Any) -> None:
    here, there = folders
    (here / "one").write_bytes(b"1")
    assert fetch(here / "one", there)[0].path == there / "one"
    assert fetch(here / "one", there, "one", name="two")[0].path == there / "two"
    with pytest.raises(TransferRefused, match="no file 'other' here"):
        fetch(here / "one", there, "other")


def test_the_receiver_may_choose_the_name(folders: Any) -> None:
    here, there = folders
    (here / "a").write_bytes(b"1")
    assert give(here / "a", there, name=".hidden is mine to choose")[1].path.read_bytes() == b"1"


# --- Going on.


@pytest.mark.parametrize("have", [1, CHUNK - 1, CHUNK, 2 * CHUNK + 5, 3 * CHUNK])
def test_it_goes_on_where_it_was(folders: Any, have: Any) -> None:
    here, there = folders
    data = content(3 * CHUNK)
    (here / "f").write_bytes(data)
    (there / "f.dtp-part").write_bytes(data[:have])
    sent, received, seen = give(here / "f", there)
    assert received.path.read_bytes() == data
    assert sent.begin == received.begin == have
    assert sent.digest == received.digest == hashlib.sha256(data).digest()
    assert {p.phase for p in seen} == {"check", "move"}
    assert os.listdir(there) == ["f"]


@pytest.mark.parametrize("part", [b"x", content(CHUNK, b"other"), content(4 * CHUNK)])
def test_a_partial_file_of_something_else_is_not_used(folders: Any, part: Any) -> None:
    here, there = folders
    data = content(2 * CHUNK)
    (here / "f").write_bytes(data)
    (there / "f.dtp-part").write_bytes(part)
    sent, received, _ = give(here / "f", there)
    assert received.path.read_bytes() == data
    assert sent.begin == received.begin == 0


@pytest.mark.parametrize("theirs", [b"x", content(CHUNK), content(4 * CHUNK)])
def test_a_part_of_another_program_stays(folders: Any, theirs: bytes) -> None:
    """Browsers and others load into `NAME.part`, and whoever sends chooses the name."""
    here, there = folders
    data = content(2 * CHUNK)
    (here / "f").write_bytes(data)
    (there / "f.part").write_bytes(theirs)
    assert give(here / "f", there)[1].begin == 0
    assert (there / "f").read_bytes() == data
    assert (there / "f.part").read_bytes() == theirs


@pytest.mark.parametrize("letter", ["a", "ä"])
def test_a_file_with_the_longest_name_goes_on(folders: Any, letter: str) -> None:
    here, there = folders
    data = content(2 * CHUNK)
    name = letter * (MAX_NAME // len(letter.encode()))
    (here / name).write_bytes(data)
    (there / part_name(name)).write_bytes(data[:CHUNK])
    assert give(here / name, there)[1].begin == CHUNK
    assert os.listdir(there) == [name]


def test_what_came_before_a_cut_is_kept(folders: Any) -> None:
    here, there = folders
    data = content(2 * DEFAULT.stream_window)  # more than can be under way before anything is written
    (here / "f").write_bytes(data)

    cut_off: list[Any] = []

    async def cut() -> None:
        """The connection breaks off when the receiver has something on its disk."""
        async with connection_to(lambda stream: receive_file(stream, there, progress=look)) as connection:
            cut_off.append(connection)
            await send_file(connection, here / "f")

    def look(progress: Any) -> None:
        if progress.done:
            cut_off[0].abort(7, "cut")

    with pytest.raises(ConnectionError):
        run(cut())
    (part,) = os.listdir(there)
    assert part == "f.dtp-part"
    kept = (there / part).read_bytes()
    assert kept
    assert data.startswith(kept)
    assert give(here / "f", there)[1].begin == len(kept)


def test_a_transfer_that_is_cancelled_leaves_no_write_out() -> None:
    """One that waits in the middle of the queue was taken back, and those behind it were written at its place."""
    gate, done = threading.Event(), []

    def work(number: Any) -> None:
        if not number:
            gate.wait(30)
        done.append(number)

    async def main() -> None:
        with transfer._Threads() as threads:
            jobs = [threads.run_on_disk(work, number) for number in range(4)]
            waiting = asyncio.create_task(transfer._finished(jobs[2]))
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            gate.set()

    run(main())
    assert done == [0, 1, 2, 3]


def test_nothing_is_written_behind_what_failed(folders: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    _, there = folders
    writev = os.writev

    def full(descriptor: Any, pieces: Any) -> Any:
        if pieces == [b"second"]:
            raise OSError(errno.ENOSPC, "full")
        return writev(descriptor, pieces)

    monkeypatch.setattr(os, "writev", full)
    with contextlib.closing(IncomingFile(there, "f", m.FileInfo("f", 17, 0), overwrite=False)) as file:
        file.begin_at(0)
        file.write_pieces([b"first"])
        for pieces in ([b"second"], [b"third"]):
            with pytest.raises(NoSpace):
                file.write_pieces(pieces)
    assert (there / "f.dtp-part").read_bytes() == b"first"


class Breaking:
    """A stream that gives `after` bytes of a file, and then sets `ended` and raises `error`."""

    def __init__(self, stream: Any, after: Any, error: Any, ended: Any) -> None:
        self._stream, self._left, self._error, self._ended = stream, after, error, ended

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    async def read(self, size: int) -> Any:
        if not self._left:
            self._ended.set()
            raise self._error
        data = await self._stream.read(min(size, self._left, 10_000))
        self._left -= len(data)
        return data


@pytest.mark.parametrize("after", [1, 10_000, CHUNK + 12_345, 3 * CHUNK - 1])
@pytest.mark.parametrize(
    "error",
    [
        BudgetSpent("used up", paid=1, requests=1, bytes=1),
        ConnectionError("gone"),
        asyncio.CancelledError(),
    ],
    ids=["budget", "connection", "cancelled"],
)
def test_all_that_was_read_is_written_however_it_ends(
    folders: Any, monkeypatch: pytest.MonkeyPatch, after: Any, error: Any
) -> None:
    """It was paid for: a resume goes on behind the last byte, though the disk had written nothing by then."""
    here, there = folders
    data = content(4 * CHUNK)
    (here / "f").write_bytes(data)
    genuine, ended = IncomingFile.write_pieces, threading.Event()

    def slow(file: Any, pieces: Any) -> None:
        assert ended.wait(60)
        genuine(file, pieces)

    monkeypatch.setattr(IncomingFile, "write_pieces", slow)
    monkeypatch.setattr(transfer, "_GATHER", 60.0)

    async def main() -> None:
        async def receive(stream: Any) -> None:
            with pytest.raises(type(error)):
                await receive_file(Breaking(stream, after, error, ended), there)  # type: ignore[arg-type]

        async with connection_to(receive) as connection:
            with pytest.raises(ConnectionError):
                await send_file(connection, here / "f")
            await connection.outcome

    run(main())
    assert (there / "f.dtp-part").read_bytes() == data[:after]
    monkeypatch.setattr(IncomingFile, "write_pieces", genuine)
    assert give(here / "f", there)[1].begin == after


class EndingBeforeDone:
    """A stream that raises `error` where the receiver says that the file is here."""

    def __init__(self, stream: Stream, error: Exception) -> None:
        self._stream, self._error = stream, error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, data: bytes) -> None:
        if data == m.build(m.Done()):
            raise self._error
        self._stream.write(data)


@pytest.mark.parametrize(
    "error",
    [
        BudgetSpent("used up", paid=1, requests=1, bytes=1),
        MoneyNotAdded("none came"),
        ConnectionError("gone"),
    ],
    ids=["budget", "money", "connection"],
)
def test_a_file_that_is_here_is_received_though_the_peer_does_not_hear_of_it(
    folders: Any, error: Exception
) -> None:
    """The last bytes used the budget up: the file was stored under its name, and called unfinished."""
    here, there = folders
    data = content(10_000)
    (here / "f").write_bytes(data)

    async def main() -> Received:
        async def receive(stream: Stream) -> Received:
            return await receive_file(EndingBeforeDone(stream, error), there)  # type: ignore[arg-type]

        async with connection_to(receive) as connection:
            with contextlib.suppress(ConnectionError, FileTransferError):
                await send_file(connection, here / "f")
            return cast(Received, await connection.outcome)

    assert run(main()).path.read_bytes() == data


def test_a_file_that_is_there_already_is_not_moved_again(folders: Any) -> None:
    here, there = folders
    (here / "f").write_bytes(content(CHUNK + 3))
    give(here / "f", there)
    before = (there / "f").stat()
    sent, received, _ = give(here / "f", there)
    assert sent.begin == received.begin == CHUNK + 3
    assert (there / "f").stat().st_ino == before.st_ino
    assert os.listdir(there) == ["f"]


def test_an_unfinished_end_is_finished(folders: Any) -> None:
    """Killed between the last byte and the name."""
    here, there = folders
    (here / "f").write_bytes(b"abc")
    (there / "f.dtp-part").write_bytes(b"abc")
    assert give(here / "f", there)[1].begin == 3
    assert os.listdir(there) == ["f"]


# --- Files that are in the way.


@pytest.mark.parametrize("other", [b"", b"abd", b"longer"])
def test_another_file_stays(folders: Any, other: Any) -> None:
    here, there = folders
    (here / "f").write_bytes(b"abc")
    (there / "f").write_bytes(other)
    with pytest.raises(TransferRefused, match="another file of that name is there") as refused:
        give(here / "f", there)
    assert refused.value.refusal == "exists"
    assert (there / "f").read_bytes() == other
    assert os.listdir(there) == ["f"]
    assert give(here / "f", there, overwrite=True)[1].begin == 0
    assert (there / "f").read_bytes() == b"abc"


def test_a_file_that_comes_to_be_meanwhile_stays(folders: Any) -> None:
    here, there = folders
    (here / "f").write_bytes(content(CHUNK))
    progress = lambda p: (there / "f").write_bytes(b"mine") if p.phase == "move" else None  # noqa: E731
    with pytest.raises(TransferRefused, match="another file"):
        give(here / "f", there, progress=progress)
    assert (there / "f").read_bytes() == b"mine"
    assert (there / "f.dtp-part").read_bytes() == content(CHUNK)


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP, errno.EACCES, errno.EINVAL])
def test_without_hard_links_it_works_too(folders: Any, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """Each system says it in another way: Android forbids links, and macOS has a number of its own for that."""
    here, there = folders
    (here / "f").write_bytes(b"abc")
    (here / "g").write_bytes(b"abc")

    def link(*_: Any, **__: Any) -> None:
        raise OSError(code, "no links here")

    monkeypatch.setattr(os, "link", link)
    assert give(here / "f", there)[1].path.read_bytes() == b"abc"
    progress = lambda p: (there / "g").write_bytes(b"mine") if p.phase == "move" else None  # noqa: E731
    with pytest.raises(TransferRefused, match="another file"):
        give(here / "g", there, progress=progress)
    assert (there / "g").read_bytes() == b"mine"


def test_a_folder_and_links_in_the_way(folders: Any, tmp_path: Path) -> None:
    here, there = folders
    (here / "f").write_bytes(b"abc")
    (there / "f").mkdir()
    with pytest.raises(TransferRefused, match="exists"):
        give(here / "f", there, overwrite=True)
    (there / "f").rmdir()
    secret = tmp_path / "secret"
    secret.write_bytes(b"s")
    (there / "f.dtp-part").symlink_to(secret)
    with pytest.raises(TransferRefused, match="can't be read or written"):
        give(here / "f", there)
    (there / "f.dtp-part").unlink()
    (there / "f").symlink_to(secret)
    with pytest.raises(TransferRefused, match="exists"):
        give(here / "f", there)
    assert give(here / "f", there, overwrite=True)[1].path.read_bytes() == b"abc"
    assert not (there / "f").is_symlink()
    assert secret.read_bytes() == b"s"


def test_two_at_once(folders: Any) -> None:
    here, there = folders
    (here / "f").write_bytes(b"abc")
    lock = IncomingFile(there, "f", m.FileInfo("f", 3, 0), overwrite=False)
    with pytest.raises(TransferRefused, match="under way"):
        give(here / "f", there)
    lock.close()
    assert os.listdir(there) == []  # an empty partial file is of no use
    assert give(here / "f", there)[1].path.read_bytes() == b"abc"


# --- The disk.


def test_a_disk_without_room_is_noticed_before(folders: Any) -> None:
    here, there = folders
    (here / "f").touch()
    disk = os.statvfs(there)
    os.truncate(
        here / "f", disk.f_bavail * disk.f_frsize + (1 << 33)
    )  # sparse; others may free some meanwhile
    with pytest.raises(TransferRefused, match="the disk is too full") as refused:
        give(here / "f", there)
    assert refused.value.refusal == "space"
    assert str(there) not in str(refused.value)
    assert os.listdir(there) == []


def test_a_disk_that_fills_up(folders: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = folders
    data = content(8 * CHUNK)
    (here / "f").write_bytes(data)

    def writev(descriptor: Any, pieces: Any) -> Any:
        room = 2 * CHUNK + 5 - os.fstat(descriptor).st_size
        if room <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return os.write(descriptor, b"".join(pieces)[:room])

    real = os.write

    def write(descriptor: Any, data: Any) -> Any:
        if len(data) > 1000 and os.fstat(descriptor).st_size >= 2 * CHUNK + 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, data)

    async def main() -> None:
        async with connection_to(lambda stream: receive_file(stream, there)) as connection:
            with pytest.raises(TransferRefused, match="too full"):
                await send_file(connection, here / "f")
            with pytest.raises(NoSpace, match=r"what came is kept in f\.dtp-part"):
                await connection.outcome

    with monkeypatch.context() as patch:
        patch.setattr(os, "writev", writev)
        patch.setattr(os, "write", write)
        run(main())
    assert data.startswith((there / "f.dtp-part").read_bytes())
    assert give(here / "f", there)[1].begin == (2 * CHUNK + 5)


def test_files_that_can_not_be_sent(folders: Any, tmp_path: Path) -> None:
    here, there = folders
    os.mkfifo(here / "fifo")
    (here / ".hidden").write_bytes(b"")
    for name, words in (
        ("none", "there is no file"),
        ("fifo", "not a regular file"),
        (".hidden", "another name"),
    ):
        with pytest.raises(FileProblem, match=words):
            give(here / name, there)
    with pytest.raises(FileProblem, match="is a folder, not a file"):
        give(here, there)
    assert os.listdir(there) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda path: os.truncate(path, 4), "became shorter"),
        (lambda path: os.utime(path, ns=(0, 0)), "written to while it was sent"),
    ],
)
def test_a_file_that_changes_while_it_is_sent(folders: Any, change: Any, words: Any) -> None:
    here, there = folders
    path = here / "f"
    path.write_bytes(content(12 * CHUNK))

    async def main() -> None:
        changed: list[Any] = []

        def look(progress: Any) -> None:
            if progress.phase == "move" and not changed:
                changed.append(change(path))

        async with connection_to(lambda stream: receive_file(stream, there)) as connection:
            with pytest.raises(FileProblem, match=words):
                await send_file(connection, path, progress=look)
            with pytest.raises(FileTransferError, match="changed while it was sent"):
                await connection.outcome

    run(main())
    assert not (there / "f").exists()


# --- Messages.

INFOS = st.builds(
    m.FileInfo,
    st.text(min_size=1, max_size=20).filter(lambda name: not _refused(name)),
    st.integers(0, m.MAX_SIZE),
    st.integers(0, m.MAX_SIZE),
)


def _refused(name: str) -> Any:
    try:
        check_name(name)
    except NameRefused:
        return True
    return False


@given(
    st.one_of(
        st.builds(m.Put, INFOS),
        st.builds(m.Offer, INFOS),
        st.builds(m.Accept, st.integers(0, m.MAX_SIZE)),
        st.builds(m.Same, st.binary(min_size=32, max_size=32)),
        st.builds(m.Start, st.integers(0, m.MAX_SIZE)),
        st.builds(m.FileEnd, st.binary(min_size=32, max_size=32)),
        st.just(m.Done()),
    )
)
def test_messages_come_back_as_they_went(message: Any) -> None:
    encoded = m.build(message)
    assert int.from_bytes(encoded[:2]) == len(encoded) - 2
    assert m.parse(encoded[2:]) == message


_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.binary(max_size=40)
    | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.one_of(
        st.binary(max_size=200),
        st.dictionaries(
            st.sampled_from(
                ["op", "version", "name", "size", "mtime", "hash", "have", "digest", "from", "code"]
            ),
            st.sampled_from(
                ["put", "get", "file", "accept", "same", "start", "end", "done", "refuse", "sha256"]
            )
            | _VALUES,
        ).map(msgpack.packb),
        _VALUES.map(msgpack.packb),
    )
)
def test_any_bytes_are_a_message_or_a_named_error(body: Any) -> None:
    with contextlib.suppress(FileTransferError, NameRefused, TransferRefused):
        assert m.parse(body) is not None


def test_the_longest_messages_fit() -> None:
    longest = m.FileInfo("\U0001f600" * (MAX_NAME // 4), m.MAX_SIZE, m.MAX_SIZE)
    for message in (m.Put(longest), m.Get("é" * 512), m.FileRefusal("protocol", "\U0001f600" * 2000)):
        assert len(m.build(message)) <= m.MAX_MESSAGE + 2


def test_every_error_has_a_refusal_that_peers_know() -> None:
    from dtp.files import errors

    told = {
        kind.refusal
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.FileTransferError) and hasattr(kind, "refusal")
    }
    assert told <= set(m.REFUSALS)


def test_files_are_let_go(folders: Any) -> None:
    here, there = folders
    (here / "f").write_bytes(b"abc")
    before = set(os.listdir("/proc/self/fd"))
    with contextlib.closing(OutgoingFile(os.open(here / "f", os.O_RDONLY), "f")) as out:
        assert out.read_next() == b"abc"
        assert out.read_next() == b""
        out.check_unchanged()
    for _ in range(2):
        with pytest.raises(FileProblem):
            IncomingFile(there / "none", "f", out.info, overwrite=False)
    (there / "f").write_bytes(b"other")
    with pytest.raises(FileExists):
        IncomingFile(there, "f", out.info, overwrite=False)
    out.close()
    assert set(os.listdir("/proc/self/fd")) == before


def test_a_name_that_file_names_here_can_not_have_is_refused(tmp_path: Path) -> None:
    """As with LC_ALL=POSIX and Python's own ways around it turned off: `recv` had a traceback."""
    with pytest.raises(FileProblem, match="no such characters"):
        IncomingFile(tmp_path, "z\ud800", m.FileInfo("f", 3, 0), overwrite=False)
