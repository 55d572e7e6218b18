"""What a server must not forget: lanes that it is paid by, agreed closes, what passes were used for."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

from dtp.pay.errors import StoreError
from dtp.pay.server.stored_vouchers import PayeeLane
from dtp.pay.store.holding import ChannelHolds, Holds, VoucherStore
from dtp.pay.store.loans import LoanStore
from dtp.pay.store.rows import End, Sold
from dtp.pay.terms import Usage, leased
from dtp.pay.voucher import SignedVoucher, decode_voucher, encode_voucher
from dtp.sqlite import primary_code


class SoldStore(LoanStore):
    """The tables of the side that is paid, in a store's file: a `VoucherStore` (`dtp.pay.store.holding`)."""

    @property
    def is_shared(self) -> bool:
        """False: a file is of one machine."""
        return False

    def open_holds(self) -> ChannelHolds:
        """Return what holds channels for one server, by locks beside the file. Raises `StoreError`."""
        return Holds(self.path)

    def is_claimer(self) -> bool:
        """Return True: whoever has the file claims."""
        return True

    def held_channels(self, channels: Iterable[str]) -> set[str]:
        """Return no channel: a server knows by itself which it serves, and of another process nothing is asked."""
        return set()

    def copy_sold(self, other: VoucherStore) -> None:
        """Take over what another store of any kind holds to claim with, in one transaction: of each lane the newer
        voucher with the key of its lock and what was served, and the ends of channels. What is newer here stays."""
        lanes = [other.sold_lane(each.channel, each.lane) for each in other.sold_lanes()]
        ids = {each.channel for each in lanes} | {each.channel for each in self.sold_lanes()}
        ends = [other.end_of(id) for id in ids]
        with self._write_transaction():
            for lane in lanes:
                if lane.newest is not None and _keep_received(self._db, lane.newest, lane.used):
                    self._db.execute(
                        "UPDATE sold SET preimage = ? WHERE channel = ? AND lane = ?",
                        (lane.preimage, lane.channel, lane.lane),
                    )
            for end in ends:
                if end is not None:
                    self._keep_end(end)

    def sold_lane(self, channel: str, lane: int) -> PayeeLane:
        """Return what is known of a lane that pays us; a new one when nothing is."""
        rows = self._fetch_rows(
            "SELECT message, signature, requests, bytes, preimage FROM sold WHERE channel = ? AND lane = ?",
            channel,
            lane,
        )
        return sold_lane_of(channel, lane, rows)

    def sold_lanes(self, channel: str | None = None) -> list[Sold]:
        """Return the lanes that hold a voucher: of one channel, or all of those that aren't over."""
        query = "SELECT channel, lane, message, signature, preimage FROM sold WHERE message IS NOT NULL"
        if channel is not None:
            rows = self._fetch_rows(f"{query} AND channel = ? ORDER BY lane", channel)
        else:
            over = "SELECT channel FROM ends WHERE state = 'over'"
            rows = self._fetch_rows(f"{query} AND channel NOT IN ({over}) ORDER BY channel, lane")
        return sold_of(rows)

    def vouched_sums(self, channel: str) -> dict[int, int]:
        """Lane -> what its newest voucher comes to."""
        return dict(self._fetch_rows("SELECT lane, amount FROM sold WHERE channel = ?", channel))

    def received_all(self, received: Iterable[tuple[SignedVoucher, Usage]]) -> list[bool]:
        """Keep vouchers whose signatures are good, before they count, in one transaction; return which were new.

        Where another as new, or one for more, is here already, nothing changes.
        """
        with self._write_transaction():
            return [_keep_received(self._db, each, used) for each, used in received]

    def receive_now(self, received: Iterable[tuple[SignedVoucher, Usage]]) -> list[bool] | None:
        """Do what `received_all` does, without a sync, which `sync` makes up for before anything of it counts, and
        without waiting. Return None, with nothing written, where another writes."""
        if self.path == ":memory:" or self._unsynced or not self._prompt_lock.acquire(blocking=False):
            return None
        try:
            db = self._prompt or self._open_prompt()
            with self._open_transaction(db):
                return [_keep_received(db, each, used) for each, used in received]
        except StoreError as fault:
            if primary_code(fault.__cause__) == sqlite3.SQLITE_BUSY:
                return None
            raise
        finally:
            self._prompt_lock.release()

    def keep_preimage(self, channel: str, lane: int, preimage: bytes) -> None:
        """Keep the key of a locked charge before it is asked for: who is paid under a lock has to be able to open it.

        The preimage of a voucher that is still locked is not replaced: `StoreError`.
        """
        with self._write_transaction():
            newest = self.sold_lane(channel, lane).newest
            if newest is not None and newest.voucher.hash_lock is not None:
                raise StoreError(f"the newest voucher of lane {lane} of {channel} is still locked")
            self._db.execute(
                "INSERT INTO sold (channel, lane, preimage) VALUES (?, ?, ?) "
                "ON CONFLICT (channel, lane) DO UPDATE SET preimage = excluded.preimage",
                (channel, lane, preimage),
            )

    def save_served(self, channel: str, lane: int, used: Usage) -> None:
        """Note what was served on the lane, paid or not, by a connection that is over or goes on."""
        with self._write_transaction():
            self._db.execute(
                "INSERT INTO sold (channel, lane, requests, bytes) VALUES (?, ?, ?, ?) "
                "ON CONFLICT (channel, lane) DO UPDATE SET "
                "requests = max(requests, excluded.requests), bytes = max(bytes, excluded.bytes)",
                (channel, lane, *used),
            )

    def pass_used(self, pass_: str, period: int) -> Usage:
        """Return what was used under a pass in one of its periods."""
        rows = self._fetch_rows(
            "SELECT requests, bytes FROM passes WHERE pass = ? AND period = ?", pass_, period
        )
        return Usage(*rows[0]) if rows else Usage()

    def add_pass_used(self, pass_: str, period: int, more: Usage) -> None:
        """Note that so much more was used under a pass, or, below 0, is given back of a lease; older periods are
        forgotten."""
        with self._write_transaction():
            self._add_pass_used(pass_, period, more)

    def _add_pass_used(self, pass_: str, period: int, more: Usage) -> None:
        self._db.execute("DELETE FROM passes WHERE pass = ? AND period < ?", (pass_, period))
        self._db.execute(
            "INSERT INTO passes VALUES (?, ?, ?, ?) ON CONFLICT (pass, period) DO UPDATE SET "
            "requests = requests + excluded.requests, bytes = bytes + excluded.bytes",
            (pass_, period, *more),
        )

    def lease_pass(self, pass_: str, period: int, wanted: Usage, quota: Usage) -> Usage:
        """Count `wanted` as used of a pass before it is, as far as its quota goes; return how much of it was counted.

        A count without a quota (0) is not bounded, and not counted.
        """
        with self._write_transaction():
            given = leased(self.pass_used(pass_, period), wanted, quota)
            if any(given):
                self._add_pass_used(pass_, period, given)
        return given

    def save_agreement(self, channel: str, total: int, not_after_ms: int, chain: str) -> End:
        """Keep that the channel of a chain (its id) is to be closed for `total`, before the signature leaves; return
        the end that is kept.

        From here on nothing more is served on it: a later voucher would not be in the total. Of two agreements the
        one stands that is good for longer.
        """
        with self._write_transaction():
            return self._keep_end(End(channel, total, not_after_ms, False, chain))

    def _keep_end(self, end: End) -> End:
        """Keep an end, within a transaction, unless what is known goes further; return what is kept."""
        known = self.end_of(end.channel)
        if known is not None and (known.over, known.not_after_ms) >= (end.over, end.not_after_ms):
            return known
        self._db.execute(
            "INSERT OR REPLACE INTO ends (channel, total, not_after_ms, state, chain) VALUES (?, ?, ?, ?, ?)",
            (end.channel, end.total, str(end.not_after_ms), "over" if end.over else "agreed", end.chain),
        )
        return end

    def mark_closed(self, channel: str) -> None:
        """Note that the channel is closed on chain: nothing can be claimed any more."""
        with self._write_transaction():
            self._db.execute(
                "INSERT INTO ends (channel, total, not_after_ms, state) VALUES (?, 0, '0', 'over') "
                "ON CONFLICT (channel) DO UPDATE SET state = 'over'",
                (channel,),
            )

    def end_of(self, channel: str) -> End | None:
        """Return the agreed or known end of a channel, None while it goes on."""
        rows = self._fetch_rows(
            "SELECT total, not_after_ms, state, chain FROM ends WHERE channel = ?", channel
        )
        return end_of_row(channel, rows[0]) if rows else None


def _keep_received(db: sqlite3.Connection, signed: SignedVoucher, used: Usage) -> bool:
    """Keep a voucher, within a transaction, if it is new and for no less; return whether it is what is kept now."""
    voucher = signed.voucher
    changed = db.execute(
        "INSERT INTO sold VALUES (:channel, :lane, :message, :signature, :sequence, :amount, "
        ":vouched_requests, :vouched_bytes, :requests, :bytes, NULL) "
        "ON CONFLICT (channel, lane) DO UPDATE SET message = :message, signature = :signature, "
        "sequence = :sequence, amount = :amount, vouched_requests = :vouched_requests, "
        "vouched_bytes = :vouched_bytes, requests = max(requests, :requests), bytes = max(bytes, :bytes) "
        # A newer voucher for less would take the place of money; whoever checked it has overlooked something.
        "WHERE :sequence > sequence AND :amount >= amount AND :vouched_requests >= vouched_requests "
        "AND :vouched_bytes >= vouched_bytes",
        {
            "channel": voucher.channel,
            "lane": voucher.lane,
            "message": encode_voucher(voucher),
            "signature": signed.signature,
            "sequence": voucher.sequence,
            "amount": voucher.amount,
            "vouched_requests": voucher.requests,
            "vouched_bytes": voucher.bytes,
            "requests": used.requests,
            "bytes": used.bytes,
        },
    ).rowcount
    if changed:
        return True
    row = db.execute(
        "SELECT message, signature FROM sold WHERE channel = ? AND lane = ?", (voucher.channel, voucher.lane)
    ).fetchone()
    return signed_of(*row) == signed


def signed_of(message: bytes | None, signature: bytes | None) -> SignedVoucher | None:
    """Return a voucher as it was stored, None where a row has none."""
    return SignedVoucher(decode_voucher(bytes(message)), bytes(signature)) if message and signature else None


def sold_lane_of(channel: str, lane: int, rows: Sequence[Sequence[Any]]) -> PayeeLane:
    """Return a lane out of the row that it has, if any: message, signature, requests, bytes, preimage."""
    if not rows:
        return PayeeLane(channel, lane)
    message, signature, requests, size, preimage = rows[0]
    used = Usage(int(requests), int(size))
    return PayeeLane(channel, lane, signed_of(message, signature), used, preimage)


def end_of_row(channel: str, row: Sequence[Any]) -> End:
    """Return a channel's end out of its row: total, not_after_ms, state, chain."""
    total, not_after_ms, state, chain = row
    return End(channel, int(total), int(not_after_ms), state == "over", chain)


def sold_of(rows: Iterable[Sequence[Any]]) -> list[Sold]:
    """Return lanes out of rows that have a voucher: channel, lane, message, signature, preimage."""
    found = []
    for channel, lane, message, signature, preimage in rows:
        newest = signed_of(message, signature)
        assert newest is not None  # the query leaves the others out
        found.append(Sold(channel, lane, newest, preimage))
    return found
