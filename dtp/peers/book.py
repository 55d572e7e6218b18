"""The book of known peer records: the newest of each peer, up to a limit. It is kept on disk if a path is given."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Final, TypeVar

import msgpack

from dtp.carriers.nearness import Nearness
from dtp.errors import LocalError
from dtp.identity import PeerId
from dtp.identity.private import make_private_folder
from dtp.packing import pack
from dtp.peers.own_networks import has_left, is_in, keep_routers, list_kept
from dtp.peers.passing_on import hosts_of, may_be_passed_on, where_it_leads
from dtp.peers.record import MAX_SKEW, PeerRecord, PeerRecordError
from dtp.replacing import replace_file

log = logging.getLogger("dtp.peers")

#: Peers in a book, at most: about 8 MB, and more than a node talks to in a day.
SIZE: Final = 4096
#: How many of them may be peers that were reached. The others are known by hearsay only, and are evicted first.
PROVEN: Final = 3072
#: The largest file, in bytes: `SIZE` records of the largest size.
_MAX_FILE: Final = 8 * 1024 * 1024
_VERSION: Final = 3
_NEARNESSES: Final = frozenset(Nearness)
#: Seconds between two searches of a full book for expired records.
_SWEEP: Final = 60.0
#: The file's name, except for private networks (`PrivateNetwork.book`).
BOOK: Final = "peers.book"
#: The longest `source`, which is shown to people: longer texts are cut.
_MAX_SOURCE: Final = 64

C = TypeVar("C")


class BookNotKept(LocalError):
    """The file of the book can't be written."""

    code: ClassVar[str] = "book"


@dataclass(frozen=True, slots=True)
class Known:
    """A book's entry for a peer."""

    record: PeerRecord
    #: Who has told it: "lan 192.0.2.7", "exchange 192.0.2.7", "dht"...
    source: str
    #: How near the nearest of those is who have told it. On behalf of others, its addresses are dialled only if
    #: they are no nearer than that.
    teller: Nearness = Nearness.ANYWHERE
    #: The network on the internet, or the relay, in which it was last reached.
    network: str = ""
    #: How near its addresses are. Computed once, since each exchange may go through the whole book.
    leads: frozenset[Nearness] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "leads", where_it_leads(self.record))

    def is_for(self, hearer: Nearness) -> bool:
        """Return True if a peer this near may be told the record."""
        return may_be_passed_on(self.leads, self.teller, hearer)

    def is_valid(self, now: float) -> bool:
        """Return True if the record is valid at Unix time `now`."""
        return self.record.expires > now and not self.is_from_future(now)

    def is_from_future(self, now: float) -> bool:
        """Return True if the record isn't valid yet by a clock that says `now`. The clock may be behind."""
        return self.record.sequence / 1000 > now + MAX_SKEW


#: Called with a record.
OnChange = Callable[[PeerRecord], object]
#: Called with a record, and with who has told it.
OnTold = Callable[[PeerRecord, str], object]


class PeerBook:
    """The known records. The newest sequence of a peer counts; expired records aren't returned.

    The book has two bounded parts: peers that are known by a record only, and those for which `mark_useful` was
    called. A flood of new peers evicts only peers of the first part.
    """

    def __init__(
        self,
        path: Path | None = None,
        *,
        size: int = SIZE,
        proven: int = PROVEN,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """With `path`, begin with the records that `save` has written there: see `load`."""
        self.path = path
        #: Counts of refused records, by the code of the error, "stale" or "crowded-out".
        self.counters: Counter[str] = Counter()
        self._size, self._proven_size, self._clock = size, proven, clock
        self._new: OrderedDict[PeerId, Known] = OrderedDict()
        self._proven: OrderedDict[PeerId, Known] = OrderedDict()
        self._listeners: list[OnChange] = []
        self._nearer_listeners: list[OnChange] = []
        self._told_listeners: list[OnTold] = []
        self._changed = False
        #: This machine's addresses and routers (`dtp.peers.own_networks`) when the records were told.
        self._addresses = frozenset[str]()
        self._swept = -_SWEEP
        if path is not None:
            self.load(path)

    def __len__(self) -> int:
        return len(self._new) + len(self._proven)

    def __iter__(self) -> Iterator[Known]:
        """Iterate over the peers with valid records; those that were reached come last."""
        now = self._clock()
        return iter(
            [each for part in (self._new, self._proven) for each in part.values() if each.is_valid(now)]
        )

    def on_change(self, callback: OnChange) -> Callable[[], None]:
        """Call `callback` with each new record from now on. Return a function that ends this."""
        return _call_from_here_on(self._listeners, callback)

    async def wait_record(self, peer: PeerId) -> PeerRecord:
        """Wait for the next new record of a peer, and return it."""
        told: asyncio.Future[PeerRecord] = asyncio.get_running_loop().create_future()

        def note(record: PeerRecord) -> None:
            if record.peer == peer and not told.done():
                told.set_result(record)

        end = self.on_change(note)
        try:
            return await told
        finally:
            end()

    def on_nearer(self, callback: OnChange) -> Callable[[], None]:
        """Call `callback` with each known record that is told by somebody nearer than all who have told it before.
        Return a function that ends this.
        """
        return _call_from_here_on(self._nearer_listeners, callback)

    def on_told(self, callback: OnTold) -> Callable[[], None]:
        """Call `callback` with each record that is told, new or known, and with who has told it. Return a function
        that ends this.
        """
        return _call_from_here_on(self._told_listeners, callback)

    def learn_record(self, record: PeerRecord, source: str, teller: Nearness = Nearness.ANYWHERE) -> bool:
        """Add a record that somebody at the nearness `teller` has told. If several tell the same record, the
        nearest counts. Return True if the record is newer than the known one of its peer.
        """
        is_newer = self._learn_record(record, source, teller)
        if is_newer or self.get(record.peer) == record:
            for callback in list(self._told_listeners):
                callback(record, source)
        return is_newer

    def _learn_record(self, record: PeerRecord, source: str, teller: Nearness) -> bool:
        now = self._clock()
        try:
            record.check_time(now)
        except PeerRecordError as fault:
            self.counters[fault.code] += 1
            return False
        part = self._proven if record.peer in self._proven else self._new
        known = part.get(record.peer)
        # A record from the future was accepted or kept while this clock was set differently. Nobody else accepts it
        # now.
        if known is not None and not known.is_from_future(now) and not record.supersedes(known.record):
            self.counters["stale"] += record != known.record
            if record == known.record and teller < known.teller:
                part[record.peer] = replace(known, teller=teller)
                self._changed = True
                for callback in list(self._nearer_listeners):
                    callback(record)
            return False
        network = "" if known is None else known.network
        part[record.peer] = Known(record, source[:_MAX_SOURCE], teller, network)
        if known is None:
            self._make_room(now)
        self._changed = True
        for callback in list(self._listeners):
            callback(record)
        return True

    def learn_encoded(
        self, data: bytes, source: str, teller: Nearness = Nearness.ANYWHERE
    ) -> PeerRecord | None:
        """Decode a record, add it, and return it. Return None for one that is refused, and count it."""
        try:
            record = PeerRecord.decode(data, now=self._clock())
        except PeerRecordError as fault:
            self.counters[fault.code] += 1
            return None
        self.learn_record(record, source, teller)
        return record

    def get(self, peer: PeerId) -> PeerRecord | None:
        """Return the record of `peer`, or None if there is no valid one."""
        known = self.get_known(peer)
        return None if known is None else known.record

    def get_known(self, peer: PeerId) -> Known | None:
        """Return the entry of `peer`, or None if there is no valid record."""
        known = self._proven.get(peer) or self._new.get(peer)
        return known if known is not None and known.is_valid(self._clock()) else None

    def mark_useful(self, peer: PeerId, network: str = "") -> None:
        """Note that `peer` was reached, in a network on the internet or through a relay. Its record is then kept in
        preference to those that nobody has tried. If there are too many, one of the network that has most of them
        is demoted.
        """
        known = self._new.pop(peer, None) or self._proven.get(peer)
        if known is None:
            return
        self._proven[peer] = replace(known, network=network)
        self._proven.move_to_end(peer)
        if len(self._proven) > self._proven_size:
            spare = self._find_spare()
            self._new[spare] = self._proven.pop(spare)
        self._changed = True

    def is_useful(self, peer: PeerId) -> bool:
        """Return True if `peer` was reached."""
        return peer in self._proven

    def _find_spare(self) -> PeerId:
        """Return the reached peer that can best be spared: the oldest of the network that has most of them."""
        counts = Counter(each.network for each in self._proven.values())
        counts[""] = 1  # peers without a network don't count as one network
        most = max(counts.values())
        return next(peer for peer, each in self._proven.items() if counts[each.network] == most)

    def find_service(self, name: str) -> Iterator[Known]:
        """Iterate over the entries of peers that have this service, those that were reached first."""
        now = self._clock()
        for part in (self._proven, self._new):
            for each in reversed(part.values()):
                if name in each.record.services and each.is_valid(now):
                    yield each

    def note_addresses(self, addresses: frozenset[str]) -> None:
        """Note the addresses and routers that this machine has now. Records that were told in a network which it
        has left count as told from anywhere, since others have the same addresses now; not those of peers in a
        network where it still is.
        """
        before, self._addresses = self._addresses, keep_routers(self._addresses, addresses)
        self._changed = self._changed or before != self._addresses
        if not has_left(before, self._addresses):
            return
        stays = list_kept(before, self._addresses)
        for part in (self._new, self._proven):
            for peer, each in part.items():
                if each.teller is Nearness.NETWORK and not any(
                    is_in(host, stays) for host in hosts_of(each.record)
                ):
                    part[peer] = replace(each, teller=Nearness.ANYWHERE)

    def _make_room(self, now: float) -> None:
        if len(self) <= self._size:
            return
        # otherwise each record of a flood would cost a search of the whole book
        if not self._swept <= now < self._swept + _SWEEP:
            self._swept = now
            ended = [peer for peer, each in self._new.items() if not each.is_valid(now)]
            for peer in ended:
                del self._new[peer]
        while len(self) > self._size:
            (self._new or self._proven).popitem(last=False)
            self.counters["crowded-out"] += 1

    # ---- on disk ----------------------------------------------------------------------------------------

    async def save(self) -> None:
        """Write the book to `path` atomically, if it has changed. The disk is written in a thread.

        Raise `BookNotKept`; the book then still counts as changed.
        """
        if self.path is None or not self._changed:
            return
        data, self._changed = self.snapshot(), False
        try:
            await asyncio.to_thread(write_book, self.path, data)
        except BookNotKept:
            self._changed = True
            raise

    @property
    def changed(self) -> bool:
        """True if `save` has something to write."""
        return self._changed

    def snapshot(self) -> bytes:
        """Return the contents of the book's file. Peers that were reached come last, as the more important part.

        Records from the future are kept, since the clock may be behind. If no record is valid, all are kept, since
        the clock may be ahead.
        """
        now = self._clock()
        known = [each for part in (self._new, self._proven) for each in part.values()]
        if any(each.is_valid(now) for each in known):
            known = [each for each in known if each.is_valid(now) or each.is_from_future(now)]
        entries = [
            [each.record.encoded, each.source, each.record.peer in self._proven, each.teller, each.network]
            for each in known
        ]
        return pack([_VERSION, sorted(self._addresses), entries])

    def load(self, path: Path) -> None:
        """Add the records of a book's file, and save this book there from now on. Skip what can't be read.

        Each record is signed, so records that others have put into the file can't be forged. Records that aren't
        valid now are kept until the clock is set: many machines start with a wrong one.
        """
        self.path = path
        addresses, entries = _read_file(path)
        self._addresses = frozenset(each for each in addresses if isinstance(each, str))
        for entry in entries[: self._size]:
            match entry:
                case [bytes(data), str(source), bool(proven), int(teller), str(network)] if (
                    teller in _NEARNESSES
                ):
                    self._add_kept(data, source, Nearness(teller), network if proven else None)
                case _:
                    self.counters["peer-record"] += 1
        self._changed = False

    def _add_kept(self, data: bytes, source: str, teller: Nearness, reached: str | None) -> None:
        try:
            record = PeerRecord.decode(data, now=None)
        except PeerRecordError as fault:
            self.counters[fault.code] += 1
            return
        if record.peer in self._new or record.peer in self._proven:
            return
        self._new[record.peer] = Known(record, source[:_MAX_SOURCE], teller)
        if reached is not None:
            self.mark_useful(record.peer, reached)


def _call_from_here_on(listeners: list[C], callback: C) -> Callable[[], None]:
    listeners.append(callback)

    def end() -> None:
        if callback in listeners:
            listeners.remove(callback)

    return end


def _read_file(path: Path) -> tuple[list[object], list[object]]:
    """Return the addresses and the entries of a book's file, or none if there is no such file or it isn't a book."""
    try:
        if path.stat().st_size > _MAX_FILE:
            raise ValueError("it is too large")
        match msgpack.unpackb(path.read_bytes()):
            case [int(version), [*addresses], [*entries]] if version == _VERSION:
                return addresses, entries
        raise ValueError("it is of another version")
    except FileNotFoundError:
        return [], []
    except (OSError, ValueError, msgpack.UnpackException) as fault:
        log.warning("the peers in %s can't be read, and are found anew: %s", path, fault)
        return [], []


def look_up(path: Path, peer: PeerId) -> PeerRecord | None:
    """Return the record of one peer in a book's file, or None if there is no valid one. Only that record's
    signature is checked.
    """
    for entry in _read_file(path)[1]:
        match entry:
            case [bytes(data), *_] if peer.key in data[:64]:
                try:
                    record = PeerRecord.decode(data, now=time.time())
                except PeerRecordError as fault:
                    log.info("the cache of peers: %s", fault)
                    continue
                if record.peer == peer:
                    return record
    return None


def write_book(path: Path, data: bytes) -> None:
    """Write a book's `snapshot`. Raise `BookNotKept`."""
    try:
        make_private_folder(path.parent)
        replace_file(path, data)
    except OSError as error:
        raise BookNotKept(
            f"can't write {os.fspath(path)}, where known peers are kept: {error.strerror}"
        ) from error
