"""Finished shows by their hash: from whoever has them, found in the DHT, whatever others give."""

import contextlib
import resource
import time
from hashlib import sha256
from struct import pack
from typing import Any

import pytest
from shows import HERE, ME, chain, run

import dtp
from dtp.broadcast import messages as m
from dtp.broadcast.errors import ShowMessageError
from dtp.broadcast.format import Announcement, Flag, SegmentSigner
from dtp.broadcast.format.segment import pieces_of
from dtp.broadcast.hearing import NOWHERE
from dtp.broadcast.kept_recordings import (
    RecordingAbsent,
    RecordingServer,
    dial_found,
    fetch_recording,
    places_in_dht,
)
from dtp.broadcast.places import Place
from dtp.broadcast.recording import Recorder, Recording, RecordingError
from dtp.carriers.nearness import Nearness, who_tells
from dtp.identity import Identity
from dtp.peers.record import PeerRecord

OTHER = Identity.generate()


@pytest.fixture
def kept(tmp_path):
    """A recording of 600 KiB; gives its file and its hash."""
    announcement, made = chain(b"a" * 300_000, b"b" * 300_000)
    recorder = Recorder(tmp_path / "kept", announcement)
    for each in made:
        recorder.add(*each)
    return tmp_path / "kept", bytes.fromhex(recorder.close())


@contextlib.contextmanager
def file_limit(size):
    """Let no file of this process become larger, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_recording_ends_where_the_disk_is_full_with_what_was_whole(tmp_path):
    announcement, made = chain(b"a" * 50_000, b"b" * 50_000, b"c")
    told = []
    recorder = Recorder(tmp_path / "kept", announcement, told.append)
    with file_limit(70_000):
        for each in made:  # the show goes on
            recorder.add(*each)
    name = recorder.close()
    assert told == [recorder.fault]
    assert "can't record to" in str(recorder.fault)
    assert name == sha256((tmp_path / "kept").read_bytes()).hexdigest()
    with contextlib.closing(Recording(tmp_path / "kept")) as recording:
        assert [data for _, data in recording.segments()] == [b"a" * 50_000]
        assert not recording.ended


@pytest.mark.parametrize("place", [200, 150_000, 610_000])
def test_a_recording_that_was_damaged_is_not_served(kept, place):
    """It would be found by the hash of what it became, and heard as far as it is whole."""
    path, _ = kept
    data = bytearray(path.read_bytes())
    data[place % len(data)] ^= 1
    path.write_bytes(data)
    with pytest.raises(RecordingError, match=r"kept is damaged, and isn't served: .*segment 0"):
        RecordingServer([path])


def test_a_recording_with_pieces_in_another_order_or_other_words_is_none(tmp_path):
    """Each piece is the producer's; the bytes together would not be."""
    announcement, ((segment, body), _) = chain(b"a" * 20_000 + b"b" * 20_000, b"c")
    head = m.build(m.Announced(announcement.encoded)) + m.build(m.Manifest(segment.encoded))
    pieces = [m.build(m.Piece(0, index, bytes(each))) for index, each in enumerate(pieces_of(body))]

    def read(*parts):
        (tmp_path / "kept").write_bytes(head + b"".join(parts))
        with contextlib.closing(Recording(tmp_path / "kept")) as recording:
            return [data for _, data in recording.segments()]

    assert read(*pieces) == [body]
    assert read(*pieces[:2]) == []  # cut short
    for wrong in (pieces[::-1], [pieces[0], pieces[0]]):
        with pytest.raises(ShowMessageError, match="is not in its place"):
            read(*wrong)
    with pytest.raises(ShowMessageError, match="belongs to no recording"):
        read(pieces[0], m.build(m.Gap(1, 1)))


def test_a_recording_that_is_read_from_the_middle_begins_with_the_init_data_that_is_needed(tmp_path):
    announcement = Announcement.sign(ME, bytes(32), time_ms=0)
    signer, recorder = SegmentSigner(ME, announcement), Recorder(tmp_path / "kept", announcement)
    for body in b"init", b"one", b"other init", b"two", b"three":
        flags = Flag.INIT if b"init" in body else Flag.START
        recorder.add(signer.sign(body, time_ms=0, flags=flags), body)
    recorder.close()
    with contextlib.closing(Recording(tmp_path / "kept")) as recording:
        given = [[data for _, data in recording.segments(start)] for start in range(5)]
    rest = [b"other init", b"two", b"three"]
    assert given == [
        [b"init", b"one", *rest],
        [b"init", b"one", *rest],
        rest,
        rest,
        [b"other init", b"three"],
    ]


def test_a_recording_that_cant_be_begun_is_refused(tmp_path):
    announcement, _ = chain(b"a")
    with file_limit(10), pytest.raises(RecordingError, match="can't record to"):
        Recorder(tmp_path / "kept", announcement)


@contextlib.asynccontextmanager
async def server_of(handler):
    async with await dtp.listen("tcp://127.0.0.1:0", {"recordings": handler}, identity=ME) as listener:
        yield str(listener.address("recordings"))


def gives(data, size=None, *, asked=None):
    """A server that gives these bytes, whatever is asked for, and says that they have this size."""

    async def serve(connection):
        async for stream in connection:
            begin = int.from_bytes((await stream.readexactly(40))[32:], "big")
            if asked is not None:
                asked.append(begin)
            stream.write(pack(">Q", len(data) if size is None else size) + data[begin:])
            stream.write_eof()

    return serve


async def fetch(kept, path, *servers, **options):
    async with contextlib.AsyncExitStack() as stack, NOWHERE.node(Identity.generate(), {}) as node:
        places = [await stack.enter_async_context(server_of(each)) for each in servers]
        await fetch_recording(kept[1], path, places, node.connect, **options)


def test_a_recording_comes_from_who_has_it(kept, tmp_path):
    (tmp_path / "got.part").write_text("what a browser is loading")
    server = RecordingServer([kept[0]])
    assert server.files == {kept[1]: kept[0]}
    run(fetch(kept, tmp_path / "got", RecordingServer([]).serve_connection, server.serve_connection))
    assert (tmp_path / "got").read_bytes() == kept[0].read_bytes()
    assert not (tmp_path / "got.dtp-part").exists()
    assert (tmp_path / "got.part").read_text() == "what a browser is loading"
    with contextlib.closing(Recording(tmp_path / "got")) as recording:
        assert sum(len(data) for _, data in recording.segments()) == 600_000


def test_where_one_breaks_off_the_next_goes_on(kept, tmp_path):
    data, asked = kept[0].read_bytes(), []
    cut = gives(data[:200_000], len(data))
    run(fetch(kept, tmp_path / "got", cut, gives(data, asked=asked)))
    assert (tmp_path / "got").read_bytes() == data
    assert asked == [200_000]


@pytest.mark.parametrize("lie", ["other bytes", "half of other bytes", "no end", "less than asked for"])
def test_lies_cost_time_and_nothing_else(kept, tmp_path, lie):
    data = kept[0].read_bytes()
    liar = {
        "other bytes": gives(bytes(len(data))),
        "half of other bytes": gives(bytes(1000), len(data)),
        "no end": gives(data, 2**63),
        "less than asked for": gives(b"", 0),
    }[lie]
    run(fetch(kept, tmp_path / "got", liar, gives(data)))
    assert (tmp_path / "got").read_bytes() == data
    with pytest.raises(RecordingAbsent) as caught:
        run(fetch(kept, tmp_path / "not", liar))
    assert caught.value.code == "recording-absent"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["got", "kept"]


def test_what_is_there_stays_and_what_is_larger_than_agreed_does_not_come(kept, tmp_path):
    with pytest.raises(RecordingError, match="is there already"):
        run(fetch(kept, kept[0], RecordingServer([kept[0]]).serve_connection))
    assert sha256(kept[0].read_bytes()).digest() == kept[1]
    with pytest.raises(RecordingAbsent, match="bytes"):
        run(fetch(kept, tmp_path / "got", RecordingServer([kept[0]]).serve_connection, most=1000))
    with pytest.raises(RecordingError, match="No such file"):
        run(fetch(kept, tmp_path / "nowhere" / "got"))


def test_what_somebody_makes_meanwhile_stays(kept, tmp_path):
    data = kept[0].read_bytes()

    async def serve(connection):
        (tmp_path / "got").write_text("made meanwhile")
        await gives(data)(connection)

    with pytest.raises(RecordingError, match="made meanwhile by somebody else"):
        run(fetch(kept, tmp_path / "got", serve))
    assert (tmp_path / "got").read_text() == "made meanwhile"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["got", "kept"]


def test_what_is_no_recording_is_not_kept(tmp_path):
    (tmp_path / "film").write_bytes(bytes(100))
    with pytest.raises(ShowMessageError):
        RecordingServer([tmp_path / "film"])


@pytest.mark.parametrize(
    ("bootstrap", "discover", "nearness"),
    [
        (["127.0.0.1:9"], ["dht"], Nearness.MACHINE),
        (["192.168.1.9:9", "127.0.0.1:9"], ["dht"], Nearness.NETWORK),
        (["[2a00:1450::1]:9", "192.168.1.9:9"], ["dht"], Nearness.ANYWHERE),
        ([f"dtp+tcp://{ME.id}@10.0.0.1:9"], ["dht"], Nearness.NETWORK),
        ([], ["dht", "lan"], Nearness.NETWORK),
        ([], ["dht"], Nearness.ANYWHERE),
    ],
)
def test_who_says_in_the_dht_to_have_a_recording_is_as_far_as_where_it_begins(bootstrap, discover, nearness):
    tellers = find_tellers(Place(bootstrap=bootstrap, discover=discover).node(ME, {}), OTHER)
    assert tellers == {"given": None, "found": nearness}


def test_where_who_has_a_recording_is_known_it_counts_how_near_those_are_who_told_it():
    """Not where the DHT began: others may have led it farther, and who is named there may be a neighbour."""
    node = Place(bootstrap=["127.0.0.1:9"], discover=["dht"]).node(ME, {})
    for teller in (Nearness.ANYWHERE, Nearness.NETWORK):
        record = PeerRecord.sign(OTHER, now=time.time(), addresses=["tcp://192.168.1.9:9"])
        node.book.learn_record(record, "exchange", teller)
        assert find_tellers(node, OTHER)["found"] is teller


def find_tellers(node, peer):
    """Return as told by whom an address is dialled that was given, and one of `peer` that was found."""
    tellers, found = {}, f"dtp://{peer.id}/recordings"

    class Dialler:
        teller_of = node.teller_of

        @contextlib.asynccontextmanager
        async def connect(self, address):
            tellers["found" if address == found else "given"] = who_tells()
            yield None

    async def test():
        given = f"dtp://{ME.id}/recordings"
        dial = dial_found(Dialler(), [given])
        for each in (given, found):
            async with dial(each):
                assert who_tells() is None

    run(test())
    return tellers


@pytest.mark.slow
def test_who_has_it_is_found_in_the_dht(kept, tmp_path):
    async def test():
        ways: dict[str, Any] = {"listen": HERE.listen, "discover": ("dht",)}
        server = RecordingServer([kept[0]])
        async with contextlib.AsyncExitStack() as stack:
            seed = await stack.enter_async_context(dtp.Node(**ways))
            place = Place(**ways, bootstrap=[seed.record.dht])
            keeper = await stack.enter_async_context(
                place.node(Identity.generate(), {"recordings": server.serve_connection})
            )
            other = await stack.enter_async_context(place.node(Identity.generate(), {}))
            await keeper.dht.publish(keeper.record)
            await keeper.dht.provide(kept[1])
            while not (places := await places_in_dht(other, kept[1])):  # it may be on its way
                pass
            await fetch_recording(kept[1], tmp_path / "got", places, dial_found(other, ()))

    run(test())
    assert (tmp_path / "got").read_bytes() == kept[0].read_bytes()
