"""The mailbox as a service: `Mailbox.serve` is the handler of connections, by convention of `MAILBOX_SERVICE`.

A device that fetches its envelopes is known by the identity that its connection proves. Senders may be anonymous.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import weakref
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Final

from dtp.carriers.crowd import source_group
from dtp.carriers.nearness import network_of_source
from dtp.carriers.source_rates import SourceLimiter
from dtp.errors import DtpError
from dtp.identity import PeerId
from dtp.limited_log import RateLimitedLog
from dtp.messaging.cards import ContactCard, ContactCardError
from dtp.messaging.ends.envelope import SIZES
from dtp.messaging.ends.keys import SKEW_MS, DeviceKeys
from dtp.messaging.errors import KeysForged, StoreAway, StoreFailed
from dtp.messaging.mailbox.age import AgeClock
from dtp.messaging.mailbox.keeper import Keeper
from dtp.messaging.mailbox.limits import DAY, MIB, MONTH
from dtp.messaging.mailbox.protocol import (
    ACCESS_BYTES,
    FETCH_BYTES,
    MAX_REQUEST,
    MailboxMalformed,
    MailboxOp,
    Refusal,
    encode,
    parse_request,
    read,
)
from dtp.messaging.mailbox.stamps import (
    DEFAULT_BITS,
    MAX_BITS,
    MAX_STAMP_MIB,
    PAID_BYTES,
    SpentStamps,
    paid_hash,
    stamp_bits,
)
from dtp.messaging.mailbox.store import Deposit, KeptEnvelope, MailboxStore, StampFacts, Status, Tray
from dtp.net.connection import Connection
from dtp.net.stream import Stream
from dtp.rates import RateLimiter
from dtp.tasks import SupervisedTask, TaskSet

log = logging.getLogger("dtp.messaging")

#: Seconds between two searches for expired contents.
_SWEEP: Final = 60.0
#: Seconds in which a device whose clock differs is logged at most once.
_HOUR: Final = 3600.0
_ONE_TIME_BYTES: Final = 96

#: Charges the payer of a connection for so many MiB for a month, and returns whether it has paid.
Charge = Callable[[Connection, int], Awaitable[bool]]


class Mailbox:
    """The service. It starts at the first request; `stop` it in the end. Connections belong to their
    listener.

    If its limits have a price, recipients pay for their room: see `dtp.messaging.mailbox.selling`.
    """

    def __init__(self, store: MailboxStore) -> None:
        self.store = store
        #: The address on the chain where room is paid for, "" while nobody can; and what charges for it.
        self.door = ""
        self.charge: Charge | None = None
        #: Why nobody can pay for room that has a price; "" while they can.
        self.not_sold = ""
        #: Counts of requests by their names, and of refusals.
        self.counters: Counter[str] = Counter()
        limits = store.limits
        self.new_devices: RateLimiter[str] = RateLimiter(
            limits.new_devices, limits.new_device_pause, limits.sources
        )
        kib = max(1, limits.source_bytes // 1024)
        self.volumes = SourceLimiter(kib, DAY / kib, limits.sources)
        self.spent_stamps = SpentStamps(limits.spent_stamps)
        self._clock_log = RateLimitedLog(log, "mailbox", "other clocks", period=_HOUR, of_one=1)
        deposits = SourceLimiter(limits.deposits, limits.deposit_pause, limits.sources)
        questions = SourceLimiter(limits.key_questions, limits.key_pause, limits.sources)
        changes = SourceLimiter(limits.changes, limits.change_pause, limits.sources)
        #: The rate limiters of requests. Other requests cost the mailbox little, or their sender more.
        self.limiters = {
            **dict.fromkeys(
                (
                    MailboxOp.DEPOSIT,
                    MailboxOp.CARD,
                    MailboxOp.PUT_PIECE,
                    MailboxOp.HAS_PIECES,
                    MailboxOp.SIGNAL,
                ),
                deposits,
            ),
            **dict.fromkeys(
                (MailboxOp.PUBLISH, MailboxOp.SETTINGS, MailboxOp.PUT_CARD, MailboxOp.LEAVE), changes
            ),
            MailboxOp.KEYS: questions,
        }
        self._rooms: weakref.WeakKeyDictionary[Connection, asyncio.Semaphore] = weakref.WeakKeyDictionary()
        self._store_places: weakref.WeakValueDictionary[str, asyncio.Semaphore] = (
            weakref.WeakValueDictionary()
        )
        self._watchers: dict[bytes, set[_Conversation]] = {}
        self._sweeping = SupervisedTask(self._run_expiry, name="dtp-mailbox-sweep")
        self._keeper: Keeper | None = None

    @property
    def keeper(self) -> Keeper:
        """The store with its thread, for the running loop. It is started at the first use."""
        if self._keeper is None:
            self._keeper = Keeper(self.store)
            loop = asyncio.get_running_loop()
            self.store.watch_others(lambda device: _soon(loop, self.notify_watchers, device))
            self._sweeping.start()
        return self._keeper

    async def stop(self) -> None:
        """Write waiting deposits, and end the store's thread. The store stays open. Idempotent."""
        await self._sweeping.stop()
        if self._keeper is not None:
            keeper, self._keeper = self._keeper, None
            await keeper.close()

    def status(self) -> dict[str, Any]:
        """Return the counts of requests and refusals by name, and, if room has a price, how it is sold."""
        price = self.store.limits.price_mib_month
        room = {"price_mib_month": price, "door": self.door, "why": self.not_sold}
        return {**self.counters, **({"room": room} if price else {})}

    async def _run_expiry(self) -> None:
        age, told = AgeClock(), False
        while True:
            swept = await self.keeper.run_in_store(self.store.last_expiry)
            now = age.expiry_time(time.time(), time.monotonic(), swept)
            if age.is_behind and not told:
                log.warning(
                    "the clock is more than a day ahead of what this mailbox has lived through: it was away, or "
                    "the clock is wrong. What waits is kept for longer"
                )
            told = age.is_behind
            while await self.keeper.run_in_store(self.store.expire_envelopes, now):
                pass
            await asyncio.sleep(_SWEEP)

    async def serve(self, connection: Connection) -> None:
        """Serve one connection until it ends: the handler of a service."""
        tasks = TaskSet()
        try:
            async for stream in connection:
                tasks.start(self.answer_stream(connection, stream), name="dtp-mailbox")
        finally:
            await tasks.stop()

    async def answer_stream(self, connection: Connection, stream: Stream, first: bytes = b"") -> None:
        """Serve one stream until it ends. For programs that accept a connection's streams themselves, and may have
        read the `first` request.
        """
        await _Conversation(self, connection, stream).run(first)

    def room_of(self, connection: Connection) -> asyncio.Semaphore:
        """Return the semaphore that bounds the requests of a connection that are answered at once, on all its
        streams.
        """
        return self._rooms.setdefault(connection, asyncio.Semaphore(self.store.limits.requests))

    def store_places_of(self, source: str) -> asyncio.Semaphore:
        """Return the semaphore that bounds the requests of a source that wait for the store at once."""
        return self._store_places.setdefault(source, asyncio.Semaphore(self.store.limits.store_requests))

    # ---- watchers ----------------------------------------------------------------------------------------------

    def add_watcher(self, device: bytes, conversation: _Conversation) -> None:
        """Notify a conversation of what comes for a device, from now on."""
        self._watchers.setdefault(device, set()).add(conversation)

    def remove_watcher(self, device: bytes, conversation: _Conversation) -> None:
        """Stop notifying a conversation."""
        watching = self._watchers.get(device, set())
        watching.discard(conversation)
        if not watching:
            self._watchers.pop(device, None)

    def notify_watchers(self, device: bytes) -> None:
        """Notify those who watch a device, or with b"" all watchers."""
        watching = [self._watchers.get(device, set())] if device else self._watchers.values()
        for each in (one for group in watching for one in group):
            each.news.set()

    def warn_of_clock(self, device: bytes, ahead_ms: int) -> None:
        """Warn the operator that a device's clock is ahead of this machine's by so much. If several devices differ,
        it is this machine's clock that is wrong.
        """
        if self._clock_log.may_log(PeerId(device).short):
            way = "ahead of" if ahead_ms > 0 else "behind"
            log.warning(
                "the clock of %s is %.1f days %s this machine's, so its keys aren't taken and nobody can write to it "
                "here: if others' are as well, set the clock of this machine",
                *(PeerId(device), abs(ahead_ms) / 86_400_000, way),
            )

    def pass_signal(self, device: bytes, envelope: bytes) -> bool:
        """Pass an ephemeral envelope on, as a datagram. Return True if the device is connected."""
        watching = self._watchers.get(device, ())
        for each in watching:
            each.connection.send_datagram(envelope)
        return bool(watching)


class _Conversation:
    """One stream of requests."""

    def __init__(self, mailbox: Mailbox, connection: Connection, stream: Stream) -> None:
        self._mailbox = mailbox
        self.connection = connection
        self._stream = stream
        self._device = connection.peer.key
        self._source = source_group(connection.source) or connection.peer.short
        self._room = mailbox.room_of(connection)
        self._store_places = mailbox.store_places_of(self._source)
        self._tasks = TaskSet(self._on_failed)
        #: The watched trays, each with the number of its last pushed envelope.
        self._after: dict[Tray, int] = {}
        self._pushed: set[int] = set()
        #: Set when an envelope was kept for the device, or was acknowledged.
        self.news = asyncio.Event()

    async def run(self, first: bytes) -> None:
        try:
            while body := first or await read(self._stream, MAX_REQUEST):
                first = b""
                number, op, fields = parse_request(body)
                await self._room.acquire()
                self._tasks.start(self._handle_request(number, op, fields), name="dtp-mailbox-request")
            if not self._after:
                await self._tasks.wait()
                self._stream.close()
        except MailboxMalformed as fault:
            self._mailbox.counters["malformed"] += 1
            log.info("%r: %s", self.connection, fault)
            self._stream.reset(Refusal.MALFORMED)
        except DtpError as fault:  # the client is gone
            log.debug("%r: %s", self.connection, fault)
        finally:
            self._mailbox.remove_watcher(self._device, self)
            await self._tasks.stop()

    def _on_failed(self, task: asyncio.Task[Any], fault: BaseException) -> None:
        """Reset the stream after a failed request, and report the fault if it is this program's own."""
        if not isinstance(fault, DtpError):
            self.connection.loop.call_exception_handler(
                {"message": "a mailbox's request failed", "exception": fault, "task": task}
            )
        self._stream.reset(Refusal.NOT_STORED)

    async def _handle_request(self, number: int, op: MailboxOp, fields: list[Any]) -> None:
        """Answer a request. Its place becomes free once the answer is sent, so a client that doesn't read answers
        is given no more.
        """
        try:
            await self._send_answer(number, op, fields)
        finally:
            self._room.release()

    async def _send_answer(self, number: int, op: MailboxOp, fields: list[Any]) -> None:
        counters = self._mailbox.counters
        counters[op.name.lower()] += 1
        try:
            answer = await self._call_handler(op, fields)
        except StoreFailed as fault:
            log.error("the mailbox can't keep something: %s", fault)
            answer = (Refusal.STORE_AWAY if isinstance(fault, StoreAway) else Refusal.NOT_STORED,)
        except (KeysForged, ContactCardError):
            answer = (Refusal.MALFORMED,)
        if answer[0]:
            counters[f"refused:{Refusal(answer[0]).name.lower()}"] += 1
        self._stream.write(encode(number, *answer))
        await self._stream.drain()

    async def _call_handler(self, op: MailboxOp, fields: list[Any]) -> tuple[Any, ...]:
        limiter = self._mailbox.limiters.get(op)
        if limiter is not None and not limiter.try_take(self._source, self._loop_time()):
            return (Refusal.TOO_OFTEN,)
        return await _HANDLERS[op](self, *fields)

    def _loop_time(self) -> float:
        return self.connection.loop.time()

    def _may_leave(self, size: int) -> bool:
        """Return whether this source may leave so many more bytes, and count them. If room has a price, that is the
        bound.
        """
        if self._mailbox.store.limits.price_mib_month:
            return True
        return self._mailbox.volumes.try_take(self._source, self._loop_time(), -(-size // 1024))

    # ---- for anybody -------------------------------------------------------------------------------------------

    async def _deposit_envelope(
        self, recipient: bytes, envelope: bytes, seconds: int, access: bytes, stamp: bytes
    ) -> tuple[object, ...]:
        if len(envelope) not in SIZES or not _is_access(access):
            return (Refusal.MALFORMED,)
        if not self._may_leave(len(envelope)):
            return (Refusal.TOO_OFTEN,)
        spent, by_work = self._mailbox.spent_stamps, stamp_bits(recipient, envelope, stamp) >= DEFAULT_BITS
        if by_work and spent.has_let_in(recipient, envelope):  # it may be kept, fetched and deleted already
            return (Refusal.DONE,)
        outcome = await self._mailbox.keeper.add_envelope(
            Deposit(recipient, envelope, seconds, access, stamp)
        )
        if not outcome.refusal:
            if by_work:
                spent.note_let_in(recipient, envelope)
            self._mailbox.notify_watchers(recipient)
        if outcome.refusal:
            return outcome.refusal, outcome.detail, outcome.stamp_mib
        return (outcome.refusal,)

    async def _take_keys(self, device: bytes) -> tuple[object, ...]:
        found = await self._run_in_store(self._mailbox.store.take_keys, device)
        return (Refusal.DONE, *found) if found else (Refusal.UNKNOWN_RECIPIENT,)

    async def _get_card(self, device: bytes) -> tuple[object, ...]:
        found = await self._run_in_store(self._mailbox.store.get_card, device)
        if found is None:
            return (Refusal.UNKNOWN_RECIPIENT,)
        return (Refusal.DONE, found) if found else (Refusal.MISSING,)

    async def _put_piece(
        self, recipient: bytes, piece: bytes, seconds: int, access: bytes
    ) -> tuple[object, ...]:
        store = self._mailbox.store
        if not 0 < len(piece) <= store.limits.piece or not _is_access(access):
            return (Refusal.MALFORMED,)
        if not self._may_leave(len(piece)):
            return (Refusal.TOO_OFTEN,)
        outcome = await self._run_in_store(
            store.put_piece, recipient, piece, seconds, access, int(time.time())
        )
        return (outcome.refusal,)

    async def _get_piece(self, digest: bytes) -> tuple[object, ...]:
        piece = await self._run_in_store(self._mailbox.store.get_piece, digest)
        return (Refusal.MISSING,) if piece is None else (Refusal.DONE, piece)

    async def _has_pieces(self, digests: list[Any]) -> tuple[object, ...]:
        if not all(isinstance(each, bytes) for each in digests):
            return (Refusal.MALFORMED,)
        return Refusal.DONE, await self._run_in_store(self._mailbox.store.has_pieces, digests)

    async def _signal_device(self, recipient: bytes, envelope: bytes, access: bytes) -> tuple[object, ...]:
        if len(envelope) not in SIZES[:4] or not _is_access(access):
            return (Refusal.MALFORMED,)
        if not await self._run_in_store(self._mailbox.store.has_access, recipient, access):
            return (Refusal.UNKNOWN_RECIPIENT,)
        return (Refusal.DONE if self._mailbox.pass_signal(recipient, envelope) else Refusal.AWAY,)

    async def _get_price(self) -> tuple[object, ...]:
        limits, door = self._mailbox.store.limits, self._mailbox.door
        if not limits.price_mib_month:
            return (Refusal.MISSING,)
        return Refusal.DONE, limits.price_mib_month, door, limits.free_bytes, limits.grace

    async def _reserve_room(self, device: bytes, mib: int, months: int, stamp: bytes) -> tuple[object, ...]:
        """Charge the payer of this connection for room, and reserve it. It may be for any device."""
        mailbox, store = self._mailbox, self._mailbox.store
        if not 1 <= mib <= store.limits.recipient_bytes // MIB or not 1 <= months <= store.limits.months:
            return (Refusal.MALFORMED,)
        if len(stamp) not in (0, PAID_BYTES):
            return (Refusal.MALFORMED,)
        if (before := await self._run_in_store(store.device_status, device)) is None:
            return (Refusal.UNKNOWN_RECIPIENT,)
        hashed = paid_hash(stamp) if stamp else b""
        if stamp:
            facts: StampFacts = await self._run_in_store(
                store.look_up_stamp, device, hashed, int(time.time())
            )
            if facts.uses:  # it was paid for, and the answer was lost
                return (Refusal.DONE, *_status_fields(before))
            if refused := _why_unsold(facts, mib * months):
                return refused
        if mailbox.charge is None or not await mailbox.charge(self.connection, mib * months):
            return (Refusal.NOT_PAID,)
        mailbox.counters["mib_months"] += mib * months
        seconds, now = months * MONTH, int(time.time())
        try:
            found = await self._run_in_store(store.reserve_room, device, mib * MIB, seconds, now, hashed)
        except StoreFailed:
            log.error("%d MiB were paid for %s, and aren't noted: do it by hand", mib, PeerId(device))
            raise
        return (Refusal.DONE, *_status_fields(found)) if found else (Refusal.UNKNOWN_RECIPIENT,)

    # ---- for the device ----------------------------------------------------------------------------------------

    async def _publish_keys(self, keys: bytes, one_time: list[Any]) -> tuple[object, ...]:
        told = DeviceKeys.parse(keys)
        if told.device != self._device or not all(
            isinstance(each, bytes) and len(each) == _ONE_TIME_BYTES for each in one_time
        ):
            return (Refusal.MALFORMED,)
        now_ms = int(time.time() * 1000)
        try:
            told.check_time(now_ms)
        except KeysForged:  # those from the future would never expire, and expired ones are useless
            self._mailbox.warn_of_clock(self._device, told.sequence - now_ms)
            return (Refusal.CLOCK_DIFFERS,)
        store = self._mailbox.store
        is_new = await self._run_in_store(store.device_status, self._device) is None  # it would take a place
        network = network_of_source(self._source)
        if is_new and not self._mailbox.new_devices.try_take(network, self._loop_time()):
            return (Refusal.TOO_OFTEN,)
        latest = now_ms + SKEW_MS
        outcome = await self._run_in_store(
            store.publish_keys, self._device, told.sequence, keys, one_time, latest
        )
        return (outcome.refusal,)

    async def _set_access(self, access: bytes, bits: int, stamp_mib: int) -> tuple[object, ...]:
        if not _is_access(access) or bits > MAX_BITS or stamp_mib > MAX_STAMP_MIB:
            return (Refusal.MALFORMED,)
        store = self._mailbox.store
        most = min(stamp_mib, store.limits.recipient_bytes // MIB)  # more room couldn't be paid for
        outcome = await self._run_in_store(store.set_access, self._device, access, bits, most)
        return (outcome.refusal,)

    async def _fetch_tray(self, tray: int, after: int, most: int) -> tuple[object, ...]:
        if tray not in tuple(Tray):
            return (Refusal.MALFORMED,)
        kept = await self._fetch_kept(Tray(tray), after, most)
        return Refusal.DONE, [[each.id, each.received, each.envelope] for each in kept]

    async def _fetch_kept(self, tray: Tray, after: int, most: int) -> list[KeptEnvelope]:
        most = min(most, 1024)
        fetch = self._mailbox.store.fetch_envelopes
        found: list[KeptEnvelope] = await self._run_in_store(
            fetch, self._device, tray, after, most, FETCH_BYTES
        )
        return found

    async def _acknowledge_envelopes(self, ids: list[Any]) -> tuple[object, ...]:
        if not all(type(each) is int and 0 <= each < 2**63 for each in ids):
            return (Refusal.MALFORMED,)
        await self._run_in_store(self._mailbox.store.acknowledge_envelopes, self._device, ids)
        self._pushed.difference_update(ids)
        self.news.set()
        return (Refusal.DONE,)

    async def _get_status(self) -> tuple[object, ...]:
        found = await self._run_in_store(self._mailbox.store.device_status, self._device)
        if found is None:
            return (Refusal.UNKNOWN_RECIPIENT,)
        return Refusal.DONE, *_status_fields(found)

    async def _forget_device(self) -> tuple[object, ...]:
        await self._run_in_store(self._mailbox.store.forget_device, self._device)
        return (Refusal.DONE,)

    async def _put_card(self, card: bytes) -> tuple[object, ...]:
        told = ContactCard.parse(card)
        if self._device not in told.devices or told.access:
            return (Refusal.MALFORMED,)
        store = self._mailbox.store
        before = await self._run_in_store(store.get_card, self._device)
        if before:
            kept = ContactCard.parse(before)
            if kept.supersedes(told):
                return (Refusal.OLDER_KEYS,)
        return ((await self._run_in_store(store.put_card, self._device, card)).refusal,)

    async def _watch_tray(self, tray: int, after: int) -> tuple[object, ...]:
        if tray not in tuple(Tray) or tray in self._after:
            return (Refusal.MALFORMED,)
        if not self._after:
            self._mailbox.add_watcher(self._device, self)
            self._tasks.start(self._push_envelopes(), name="dtp-mailbox-push")
        self._after[Tray(tray)] = after
        self.news.set()
        return (Refusal.DONE,)

    async def _push_envelopes(self) -> None:
        """Push envelopes that wait and that come, as long as not too many are unacknowledged."""
        limits = self._mailbox.store.limits
        while True:
            await self.news.wait()
            self.news.clear()
            for tray in sorted(self._after):
                while (room := limits.pushed - len(self._pushed)) > 0:
                    kept = await self._fetch_kept(tray, self._after[tray], room)
                    if not kept:
                        break
                    self._after[tray] = kept[-1].id
                    for each in kept:
                        self._pushed.add(each.id)
                        self._stream.write(encode(0, tray, each.id, each.received, each.envelope))
                    await self._stream.drain()

    async def _run_in_store(self, work: Callable[..., Any], *arguments: object) -> Any:
        async with self._store_places:
            return await self._mailbox.keeper.run_in_store(work, *arguments)


def _soon(loop: asyncio.AbstractEventLoop, call: Callable[[bytes], None], device: bytes) -> None:
    with contextlib.suppress(RuntimeError):  # the loop has ended
        loop.call_soon_threadsafe(call, device)


def _status_fields(found: Status) -> tuple[int, ...]:
    return (
        *(found.count, found.bytes, found.strangers, found.one_time_keys),
        found.reserved,
        found.paid_until,
    )


def _why_unsold(facts: StampFacts, mib: int) -> tuple[object, ...] | None:
    """Return the refusal for a payment of `mib` MiB and months for a stamp, or None if the stamp is sold."""
    if not facts.mib:
        return (Refusal.MISSING,)
    if mib < facts.mib:
        return Refusal.STAMP_NEEDED, 0, facts.mib
    return None if facts.has_place else (Refusal.FULL,)


def _is_access(access: bytes) -> bool:
    return len(access) in (0, ACCESS_BYTES)


_HANDLERS: Final[dict[MailboxOp, Callable[..., Awaitable[tuple[Any, ...]]]]] = {
    MailboxOp.DEPOSIT: _Conversation._deposit_envelope,
    MailboxOp.KEYS: _Conversation._take_keys,
    MailboxOp.PUBLISH: _Conversation._publish_keys,
    MailboxOp.SETTINGS: _Conversation._set_access,
    MailboxOp.FETCH: _Conversation._fetch_tray,
    MailboxOp.ACKNOWLEDGE: _Conversation._acknowledge_envelopes,
    MailboxOp.WATCH: _Conversation._watch_tray,
    MailboxOp.PUT_PIECE: _Conversation._put_piece,
    MailboxOp.GET_PIECE: _Conversation._get_piece,
    MailboxOp.HAS_PIECES: _Conversation._has_pieces,
    MailboxOp.STATUS: _Conversation._get_status,
    MailboxOp.SIGNAL: _Conversation._signal_device,
    MailboxOp.LEAVE: _Conversation._forget_device,
    MailboxOp.PUT_CARD: _Conversation._put_card,
    MailboxOp.CARD: _Conversation._get_card,
    MailboxOp.PRICE: _Conversation._get_price,
    MailboxOp.RESERVE: _Conversation._reserve_room,
}
