"""A store of mailboxes in JetStream of NATS: several processes, on several machines, are one mailbox. Extra `nats`.

The stream is the mailbox: each envelope, each piece and each device's record is one message in it, and envelopes
have the stream's numbers. Each process follows the stream (`StreamIndex`), so it misses nothing that another
process has stored. Decision 0383.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final, TypeVar

from dtp.messaging.ends.keys import LIFETIME_MS, are_older
from dtp.messaging.mailbox.limits import MailboxLimits
from dtp.messaging.mailbox.nats_line import Line
from dtp.messaging.mailbox.protocol import Refusal
from dtp.messaging.mailbox.stamps import DEFAULT_BITS
from dtp.messaging.mailbox.store import (
    DONE,
    NOTED,
    SWEEP,
    Deposit,
    KeptEnvelope,
    MailboxStore,
    Outcome,
    Recipient,
    StampFacts,
    Status,
    Tray,
    access_hash,
    add_room,
    instance_of,
    piece_hash,
    take_fitting,
)
from dtp.messaging.mailbox.stream_index import Facts, Row
from dtp.messaging.packing import MAX_NUMBER, pack, unpack_saved

_T = TypeVar("_T")
_NOBODY: Final = bytes(32)
_NEW: Final = Facts(0, b"", DEFAULT_BITS, 0, 0, 0, 0)
#: A paid stamp: its hash, how many envelopes it still lets in, and its expiry, Unix time in seconds.
_Stamp = tuple[bytes, int, int]
#: The keys, card, one-time keys and paid stamps of a device.
_Record = tuple[bytes, bytes, list[bytes], list[_Stamp]]


class NatsMailbox(MailboxStore):
    """The mailbox in the stream that `url` names: `nats://HOST:PORT/NAME`, with commas between several `HOST:PORT`
    for the servers of a cluster. A connection that broke is made again, to any of them.
    """

    def __init__(self, url: str, limits: MailboxLimits | None = None) -> None:
        """Connect, create the stream, and read what is there. Raise `StoreUnusable` if the server refuses for good,
        and `StoreAway` if it can't be reached.
        """
        self.limits = limits or MailboxLimits()
        self._line = Line(url, self.limits.piece)

    def close(self) -> None:
        self._line.close()

    def watch_others(self, came: Callable[[bytes], None]) -> None:
        self._line.came = came

    # ---- devices -----------------------------------------------------------------------------------------------

    async def _change_record(
        self, device: bytes, changed: Callable[[Facts, _Record], tuple[Facts, _Record] | Outcome]
    ) -> Outcome:
        """Replace a device's record by what `changed` makes of it, and try again if another process has changed it
        meanwhile.
        """
        while True:
            facts, number = self._line.index.get_facts(device), self._line.index.record_number(device)
            if facts is None:
                return Outcome(Refusal.UNKNOWN_RECIPIENT)
            body = await self._line.get_body(number)
            if body is None:  # another process has replaced it, or the device is deleted
                await self._line.catch_up()
                continue
            keys, card, one_time, stamps = unpack_saved(body)
            made = changed(facts, (keys, card, one_time, [(each[0], each[1], each[2]) for each in stamps]))
            if isinstance(made, Outcome):
                return made
            if await self._put_record(device, *made, number):
                return DONE

    async def _put_record(self, device: bytes, facts: Facts, record: _Record, last: int) -> bool:
        facts = replace(facts, one_time_keys=len(record[2]))
        kept = await self._line.put_row(Row(device, facts=facts), pack(list(record)), last)
        if not kept:
            await self._line.catch_up()
        return kept

    def publish_keys(
        self, device: bytes, sequence: int, keys: bytes, one_time: Sequence[bytes], latest: int = MAX_NUMBER
    ) -> Outcome:
        def renewed(facts: Facts, record: _Record) -> tuple[Facts, _Record] | Outcome:
            before, card, left, stamps = record
            if are_older((sequence, keys), (facts.sequence, before), latest):
                return Outcome(Refusal.OLDER_KEYS)
            if instance_of(keys) != instance_of(before):
                left = []
            left = list(dict.fromkeys([*left, *one_time]))[: max(self.limits.one_time_keys, len(left))]
            return replace(facts, sequence=sequence), (keys, card, left, stamps)

        async def publish() -> Outcome:
            while self._line.index.get_facts(device) is None:
                if self._line.index.count_devices() >= self.limits.recipients:
                    ended = self._line.index.ended_devices(sequence - LIFETIME_MS, sequence)
                    if not ended:
                        return Outcome(Refusal.FULL)
                    await self._line.forget_rows(ended)
                first = list(dict.fromkeys(one_time))[: self.limits.one_time_keys]
                facts = replace(_NEW, sequence=sequence)
                if await self._put_record(device, facts, (keys, b"", first, []), 0):
                    return DONE
            return await self._change_record(device, renewed)

        return self._line.run_in_loop(publish(), "written")

    def take_keys(self, device: bytes) -> tuple[bytes, bytes] | None:
        taken: tuple[bytes, bytes] | None = None

        def without_one(facts: Facts, record: _Record) -> tuple[Facts, _Record] | Outcome:
            nonlocal taken
            keys, card, left, stamps = record
            taken = keys, left[0] if left else b""
            return (facts, (keys, card, left[1:], stamps)) if left else DONE

        outcome = self._line.run_in_loop(self._change_record(device, without_one), "written")
        return None if outcome.refusal else taken

    def set_access(self, device: bytes, access: bytes, bits: int, stamp_mib: int = 0) -> Outcome:
        def settled(facts: Facts, record: _Record) -> tuple[Facts, _Record]:
            return replace(facts, access=access, bits=bits, stamp_mib=stamp_mib), record

        return self._line.run_in_loop(self._change_record(device, settled), "written")

    def put_card(self, device: bytes, card: bytes) -> Outcome:
        work = self._change_record(device, lambda facts, record: (facts, (record[0], card, *record[2:])))
        return self._line.run_in_loop(work, "written")

    def get_card(self, device: bytes) -> bytes | None:
        found: list[bytes] = []

        def look(facts: Facts, record: _Record) -> Outcome:
            found.append(record[1])
            return DONE

        self._line.run_in_loop(self._change_record(device, look), "read")
        return found[0] if found else None

    def forget_device(self, device: bytes) -> None:
        async def leave() -> None:
            *rest, last = self._line.index.all_of(device) or [0]
            await self._line.forget_rows(rest)
            await self._line.forget_rows([last] if last else [])

        self._line.run_in_loop(leave(), "written")

    def device_status(self, device: bytes) -> Status | None:
        return self._query_index(lambda: self._line.index.get_status(device))

    def reserve_room(
        self, device: bytes, size: int, seconds: int, now: int, stamp: bytes = b""
    ) -> Status | None:
        def more(facts: Facts, record: _Record) -> tuple[Facts, _Record]:
            reserved, until = add_room((facts.reserved, facts.paid_until), size, seconds, now)
            if stamp:
                others = [each for each in _good_stamps(record, now) if each[0] != stamp]
                sold = (stamp, self.limits.stamp_uses, now + self.limits.lifetime)
                record = (*record[:3], [*others, sold])
            return replace(facts, reserved=reserved, paid_until=until), record

        self._line.run_in_loop(self._change_record(device, more), "written")
        return self.device_status(device)

    def look_up_stamp(self, device: bytes, stamp: bytes, now: int) -> StampFacts | None:
        async def look() -> StampFacts | None:
            stamps = await self._read_stamps(device, now)
            recipient = self._line.index.get_recipient(device)
            if recipient is None:
                return None
            return recipient.stamp_facts(stamps.get(stamp, 0), len(stamps), self.limits)

        return self._line.run_in_loop(look(), "read")

    async def _read_stamps(self, device: bytes, now: int) -> dict[bytes, int]:
        """Return how many envelopes each paid stamp of a device still lets in, by its hash."""
        found: dict[bytes, int] = {}

        def look(facts: Facts, record: _Record) -> Outcome:
            found.update((hashed, uses) for hashed, uses, _ in _good_stamps(record, now))
            return DONE

        await self._change_record(device, look)
        return found

    async def _use_stamp(self, device: bytes, stamp: bytes, now: int) -> Outcome:
        """Count one use of a paid stamp; refuse if another process has used it up."""

        def less(facts: Facts, record: _Record) -> tuple[Facts, _Record] | Outcome:
            stamps = _good_stamps(record, now)
            if all(hashed != stamp for hashed, _, _ in stamps):
                return Outcome(Refusal.STAMP_NEEDED, facts.bits, facts.stamp_mib)
            left = [(hashed, uses - (hashed == stamp), expires) for hashed, uses, expires in stamps]
            return facts, (*record[:3], [each for each in left if each[1]])

        return await self._change_record(device, less)

    def has_access(self, device: bytes, access: bytes) -> bool:
        facts = self._query_index(lambda: self._line.index.get_facts(device))
        return facts is not None and bool(facts.access) and access_hash(access) == facts.access

    def _query_index(self, look: Callable[[], _T]) -> _T:
        """Return what `look` finds in the index. It is called in the index's thread."""
        return self._line.run_in_loop(self._line.query_index(look), "read")

    # ---- envelopes ---------------------------------------------------------------------------------------------

    def add_envelopes(self, deposits: Sequence[Deposit], now: int) -> list[Outcome]:
        async def deposit() -> list[Outcome]:
            recipients: dict[bytes, Recipient | None] = {}
            outcomes: list[Outcome] = []
            rows: dict[Row, bytes] = {}
            for each in deposits:
                outcome, row = await self._judge_with_stamp(recipients, each, now)
                outcomes.append(outcome)
                if row is not None:
                    rows.setdefault(row, each.envelope)
            await self._line.map_values(rows.items(), lambda kept: self._line.put_row(*kept))
            return outcomes

        return self._line.run_in_loop(deposit(), "written")

    async def _judge_with_stamp(
        self, recipients: dict[bytes, Recipient | None], deposit: Deposit, now: int
    ) -> tuple[Outcome, Row | None]:
        """Return the outcome of a deposit, and its row or None. If a paid stamp lets it in, one use of the stamp is
        counted.
        """
        device, recipient = deposit.recipient, self._line.index.get_recipient(deposit.recipient)
        stamp = recipient.paid_stamp(deposit) if recipient else b""
        paid = bool(stamp) and stamp in await self._read_stamps(device, now)
        outcome, row = self._judge_deposit(recipients, deposit, now, paid=paid)
        if paid and row is not None:
            used = await self._use_stamp(device, stamp, now)
            return (used, None) if used.refusal else (outcome, row)
        return outcome, row

    def _judge_deposit(
        self, recipients: dict[bytes, Recipient | None], deposit: Deposit, now: int, *, paid: bool
    ) -> tuple[Outcome, Row | None]:
        """Return the outcome of a deposit, and its row or None; count it in `recipients`."""
        device, size = deposit.recipient, len(deposit.envelope)
        if device not in recipients:
            recipients[device] = self._line.index.get_recipient(device)
        recipient = recipients[device]
        if recipient is None:
            return Outcome(Refusal.UNKNOWN_RECIPIENT), None
        if refused := recipient.why_refused(deposit, self.limits, now, paid=paid):
            return refused, None
        tray = recipient.tray_for(deposit.access)
        digest = hashlib.blake2b(deposit.envelope, digest_size=16).digest()
        expires = now + min(deposit.seconds, self.limits.lifetime)
        stranger = tray is Tray.STRANGERS
        recipients[device] = replace(
            recipient,
            count=recipient.count + 1,
            size=recipient.size + size,
            strangers=recipient.strangers + stranger,
            strangers_size=recipient.strangers_size + stranger * size,
        )
        return DONE, Row(device, digest, tray, now, expires, size)

    def fetch_envelopes(
        self, device: bytes, tray: Tray, after: int, most: int, most_bytes: int
    ) -> list[KeptEnvelope]:
        async def fetch() -> list[KeptEnvelope]:
            rows: list[tuple[int, Row]] = []
            left = most_bytes
            for number, row in self._line.index.iter_waiting(device, tray, after):
                left -= row.size
                if len(rows) == most or (rows and left < 0):
                    break
                rows.append((number, row))
            bodies = await self._line.map_values([number for number, _ in rows], self._line.get_body)
            found = zip(rows, bodies, strict=True)
            return take_fitting(
                [(number, row.received, body) for (number, row), body in found if body is not None],
                most_bytes,
            )

        return self._line.run_in_loop(fetch(), "read")

    def acknowledge_envelopes(self, device: bytes, ids: Sequence[int]) -> None:
        async def acknowledge() -> None:
            await self._line.forget_rows(self._line.index.numbers_of(device, ids))

        self._line.run_in_loop(acknowledge(), "written")

    def expire_envelopes(self, now: int) -> int:
        async def expire() -> int:
            over = self._line.index.list_expired(now, SWEEP)
            await self._line.forget_rows(over)
            if now - self._line.index.swept >= NOTED:
                await self._line.put_row(Row(_NOBODY, swept=now), b"", None)
            return len(over)

        return self._line.run_in_loop(expire(), "written")

    def last_expiry(self) -> int | None:
        def look() -> int | None:
            return self._line.index.swept if self._line.index.has_ends else None

        return self._query_index(look)

    # ---- pieces of attachments ---------------------------------------------------------------------------------

    def put_piece(self, recipient: bytes, piece: bytes, seconds: int, access: bytes, now: int) -> Outcome:
        async def put() -> Outcome:
            owner = self._line.index.get_recipient(recipient)
            if owner is None or owner.tray_for(access) is Tray.STRANGERS:
                return Outcome(Refusal.UNKNOWN_RECIPIENT)
            digest = piece_hash(piece)
            if self._line.index.find_piece(digest) is not None:
                return DONE
            if refused := owner.why_no_room(len(piece), self.limits, now):
                return refused
            expires = now + min(seconds, self.limits.lifetime)
            await self._line.put_row(Row(recipient, digest, None, now, expires, len(piece)), piece)
            return DONE

        return self._line.run_in_loop(put(), "written")

    def get_piece(self, digest: bytes) -> bytes | None:
        async def get() -> bytes | None:
            number = self._line.index.find_piece(digest)
            return None if number is None else await self._line.get_body(number)

        return self._line.run_in_loop(get(), "read")

    def has_pieces(self, digests: Sequence[bytes]) -> list[bool]:
        return list(
            self._query_index(lambda: [self._line.index.find_piece(each) is not None for each in digests])
        )


def _good_stamps(record: _Record, now: int) -> list[_Stamp]:
    """Return the paid stamps of a device that are valid at `now`."""
    return [each for each in record[3] if each[2] > now]
