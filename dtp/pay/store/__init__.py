"""What must not be forgotten, in SQLite: lanes with their keys and newest vouchers, preimages, agreed closes.

A server stores a voucher before it counts, and a client stores, before it signs, up to which sequence and amount it
may (`reserve`): one write for many vouchers. Each method is one transaction, so whoever is killed at any point finds
a state that was true. What a server counts on and what a client reserves is also synced to the disk (WAL,
`synchronous=FULL`), and a power cut takes none of it. `dtp.pay.store.journal` runs it beside an event loop.

One file may serve as both sides at once; clients and servers have tables of their own. It holds the secret keys of
lanes (a lane's key can spend what its channel holds), so it is for its owner's eyes: mode 0600.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from pathlib import Path

from dtp.pay.client.lane_start import UNRESERVED, PayerLane, Reserved
from dtp.pay.errors import StoreError
from dtp.pay.store.file import COPY, DEPOSITS_UNKNOWN, PATIENCE
from dtp.pay.store.rows import MOST_NOTED, Bought, DoubtedDeposit, End, MovedMoney, SentOpening, Sold
from dtp.pay.store.sold import SoldStore, signed_of
from dtp.pay.terms import NOTHING, Usage
from dtp.pay.voucher import LaneKey, SignedVoucher, encode_voucher

__all__ = ["MOST_NOTED", "Bought", "DoubtedDeposit", "End", "MovedMoney", "SentOpening", "Sold", "Store"]


class Store(SoldStore):
    """The store of one account's vouchers: both sides' tables in one file. Close it, or use `with`.

    `StoreError` from every method that can't."""

    def backup(self, path: str | os.PathLike[str], *, patience: float = PATIENCE) -> None:
        """Write all that is here now into the database at `path`, in place of what is in it, in one transaction, for
        which other processes that write there are waited for `patience` seconds.

        A copy of the store's own file isn't one: what was written last is in SQLite's log beside it. By the same log
        others may have the copy open, such as a watcher, and find what is new. `StoreError` for a store that isn't a
        copy of this one: what it has would be lost.
        """
        to = Path(path)
        if to.exists() and os.path.exists(self.path) and to.samefile(self.path):
            raise StoreError(f"{path} is the store itself: name another file for the copy")
        if not to.parent.is_dir():
            raise StoreError(f"can't copy the store of vouchers to {path}: there is no such folder")
        until = time.monotonic() + patience

        def give_up(status: int, remaining: int, total: int) -> None:
            if status == sqlite3.SQLITE_BUSY and time.monotonic() >= until:
                raise sqlite3.OperationalError("another process writes there all the time")

        with Store(to, make=not to.exists() or not to.stat().st_size) as copy, self._lock:
            ours = self._lane_numbers()
            if any(ours.get(each, -1) < number for each, number in copy._lane_numbers().items()):
                raise StoreError(
                    f"{path} is no older copy of {self.path}: it has channels or vouchers that aren't there; "
                    "name another file"
                )
            try:
                # Marked before it is there: who is killed in between would leave a copy that says nothing.
                with closing(sqlite3.connect("", isolation_level=None)) as marked:
                    self._db.backup(marked)
                    marked.execute(f"PRAGMA application_id={COPY}")
                    marked.execute("DELETE FROM counted")
                    marked.execute("DELETE FROM waits")
                    marked.backup(copy._db, progress=give_up)
            except sqlite3.Error as fault:
                raise StoreError(f"can't copy the store of vouchers to {path}: {fault}") from fault

    def lacks_deposits(self, chain: str, account: str) -> bool:
        """Return whether an account may have put money into channels before this file was made, or since it was made
        by `backup`, and nobody has counted it by `count_moved` yet."""
        return (self._lacks_version(DEPOSITS_UNKNOWN) or self.is_new()) and not self._fetch_rows(
            "SELECT 1 FROM counted WHERE chain = ? AND account = ?", chain, account
        )

    def count_moved(self, chain: str, account: str, moved: Mapping[str, MovedMoney], now_ms: int) -> None:
        """Note what an account's channels got and gave back by the chain's history (by channel), where less is noted.

        It is dated now, since when it was is a node's word. Of channels that aren't known here only the sum is noted.
        """
        with self._write_transaction():
            for channel, each in moved.items():
                if self.bought_channels(channel):
                    self._count_known(channel, each, now_ms)
                elif each.put > each.back:
                    self._db.execute(
                        "INSERT INTO unnoted VALUES (?, ?, ?, ?, ?, ?) "
                        "ON CONFLICT (id) DO UPDATE SET amount = excluded.amount",
                        (channel, chain, account, each.coin, now_ms, each.put - each.back),
                    )
                else:
                    self._db.execute("DELETE FROM unnoted WHERE id = ?", (channel,))
            self._db.execute("INSERT OR IGNORE INTO counted VALUES (?, ?)", (chain, account))

    def _count_known(self, channel: str, moved: MovedMoney, now_ms: int) -> None:
        noted = self.deposit_sums(channel)
        put, back = sum(each for each in noted if each > 0), -sum(each for each in noted if each < 0)
        if moved.put > put:
            self._insert_deposit(channel, now_ms, moved.put - put)
        # No more than what went in, whatever a node says.
        back_now = min(moved.back, max(put, moved.put)) - back
        if back_now > 0:
            self._insert_deposit(channel, now_ms, -back_now)

    def _lane_numbers(self) -> dict[tuple[str, str, int], int]:
        """Return the lanes that are signed for or paid by, these with how far they are: none is forgotten, or set
        back."""
        rows = self._fetch_rows(
            "SELECT 'lanes', channel, lane, 0 FROM lanes "
            "UNION ALL SELECT 'sold', channel, lane, sequence FROM sold"
        )
        return {(table, channel, lane): sequence for table, channel, lane, sequence in rows}

    def keep_key(self, key: LaneKey, now_ms: int) -> None:
        """Keep the key of a channel or lane before the transaction that names it is sent. Synced: without it that
        transaction's money is stuck until the channel ends by itself."""
        with self._synced_transaction():
            self._db.execute(
                "INSERT OR IGNORE INTO keys (public, seed, made_ms) VALUES (?, ?, ?)",
                (key.public, key.seed, now_ms),
            )

    def key_sent(self, public: bytes, sent: SentOpening) -> None:
        """Keep by which transaction a kept key is used, before it is sent. Synced.

        What it deposits counts in `deposited_since` from then on, whatever a node says of it.
        """
        with self._synced_transaction():
            self._db.execute(
                "UPDATE keys SET digest = ?, chain = ? WHERE public = ?", (sent.digest, sent.chain, public)
            )
            if sent.deposit:
                self._db.execute(
                    "INSERT OR IGNORE INTO unnoted SELECT digest, ?, ?, ?, made_ms, ? FROM keys WHERE public = ?",
                    (sent.chain, sent.account, sent.coin, sent.deposit, public),
                )
                self._keep_sent(sent.digest, sent.data)

    def _keep_sent(self, digest: str, data: bytes) -> None:
        if data:
            self._db.execute("INSERT OR IGNORE INTO sent VALUES (?, ?)", (digest, data))

    def key_kept(self, public: bytes) -> tuple[int, int]:
        """Return when a kept key was made (Unix ms, by the clock here), and what its transaction deposits, 0 where
        that isn't known."""
        query = (
            "SELECT made_ms, coalesce(amount, 0) FROM keys LEFT JOIN unnoted ON id = digest WHERE public = ?"
        )
        rows = self._fetch_rows(query, public)
        if not rows:
            raise StoreError(f"the key {public.hex()} isn't in {self.path}")
        made_ms, deposit = rows[0]
        return int(made_ms), int(deposit)

    def key_denied(self, public: bytes) -> None:
        """Note that a node says that the transaction of a kept key did nothing. It is doubted until a later one is
        noted."""
        with self._write_transaction():
            self._db.execute("UPDATE keys SET denied = 1 WHERE public = ? AND denied = 0", (public,))

    def believe_denied(self, chain: str, keys: Iterable[bytes]) -> None:
        """Doubt no more what the chain's nodes denied or know nothing of, and count it no more: the owner of these
        kept keys has looked for it himself."""
        with self._write_transaction():
            for each in keys:
                ours = "public = ? AND digest != '' AND chain IN ('', ?)"
                self._db.execute(
                    f"DELETE FROM unnoted WHERE id IN (SELECT digest FROM keys WHERE {ours})", (each, chain)
                )
                self._db.execute(
                    f"DELETE FROM sent WHERE digest IN (SELECT digest FROM keys WHERE {ours})", (each, chain)
                )
                self._db.execute(f"UPDATE keys SET denied = 2 WHERE {ours}", (each, chain))

    def sent_keys(self, chain: str, since_ms: int, *, doubted: bool = False) -> dict[bytes, str]:
        """Return public key -> digest for kept keys made since then whose transaction on that chain is known, the
        newest first. `doubted`: without those denied by a node that has opened a later one since."""
        query = (
            "SELECT public, digest FROM keys WHERE digest != '' AND chain IN ('', ?) AND made_ms >= ? "
            "AND denied < ? ORDER BY made_ms DESC"
        )
        return dict(self._fetch_rows(query, chain, since_ms, 2 if doubted else 3))

    def forget_key(self, public: bytes) -> None:
        """Forget a key that was kept for a transaction that was never sent."""
        with self._write_transaction():
            self._db.execute("DELETE FROM keys WHERE public = ?", (public,))

    def add_bought(self, bought: Bought, lane: int, public: bytes) -> None:
        """Note a channel that is open; `lane` of it has the key that was kept before."""
        with self._write_transaction():
            self._insert_bought(bought)
            self._move_key(bought.channel, lane, public)

    def add_closing(self, bought: Bought, now_ms: int) -> None:
        """Note a channel of ours that is on its way to be closed: also one without a key here, which only carried
        pipes.

        What is in one that wasn't known counts as put in now, since what comes back will count when it does.
        """
        with self._write_transaction():
            self._insert_bought(bought, now_ms)
            self._db.execute("UPDATE bought SET state = 'closing' WHERE channel = ?", (bought.channel,))

    def _insert_bought(self, bought: Bought, at_ms: int | None = None) -> None:
        is_new = self._db.execute(
            "INSERT OR IGNORE INTO bought VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                bought.channel,
                bought.chain,
                bought.host,
                bought.service,
                bought.account,
                bought.state,
                bought.opened_ms,
                bought.coin,
                bought.claim_ms,
                bought.gas,
                max(bought.refused, bought.state == "refused"),
                bought.name,
            ),
        ).rowcount
        if is_new and bought.deposited:
            at_ms = bought.opened_ms if at_ms is None else at_ms
            self._insert_deposit(bought.channel, at_ms, bought.deposited)
        self._db.execute("DELETE FROM unnoted WHERE id = ?", (bought.channel,))

    def _insert_deposit(self, channel: str, at_ms: int, amount: int, digest: str = "") -> None:
        self._db.execute("INSERT INTO deposits VALUES (?, ?, ?, ?)", (channel, at_ms, amount, digest))

    def add_deposit(self, channel: str, at_ms: int, amount: int, digest: str = "", data: bytes = b"") -> None:
        """Note that so much more goes into a channel of ours; below 0: it came back. With the digest of the
        transaction that is about to be sent, and its BCS, it counts, but is doubted until `settle_deposit`. Synced
        then.

        The same transaction, signed again by whoever died before it was sent, is one deposit.
        """
        with self._synced_transaction() if digest else self._write_transaction():
            if not (digest and digest in self.doubted_deposits(channel)):
                self._insert_deposit(channel, at_ms, amount, digest)
                self._keep_sent(digest, data)

    def settle_deposit(self, channel: str, digest: str) -> None:
        """Doubt a deposit no more: the chain has its transaction."""
        with self._write_transaction():
            self._db.execute(
                "UPDATE deposits SET digest = '' WHERE channel = ? AND digest = ?", (channel, digest)
            )
            self._db.execute("DELETE FROM sent WHERE digest = ?", (digest,))

    def unproven_deposits(self, chain: str, account: str, since_ms: int) -> list[DoubtedDeposit]:
        """Return what an account has signed since then to go into channels, and isn't known to be there: openings
        that aren't noted, and doubted deposits, as far as it is kept what was signed, the newest first."""
        query = (
            "SELECT id, coin, amount, data, at_ms FROM unnoted JOIN sent ON digest = id "
            "WHERE chain = ?1 AND account = ?2 AND at_ms >= ?3 UNION ALL "
            "SELECT digest, coin, amount, data, at_ms FROM deposits JOIN bought USING (channel) "
            "JOIN sent USING (digest) WHERE chain = ?1 AND account = ?2 AND at_ms >= ?3 ORDER BY at_ms DESC"
        )
        return [DoubtedDeposit(*row[:4]) for row in self._fetch_rows(query, chain, account, since_ms)]

    def disprove_deposit(self, digest: str) -> None:
        """Count a transaction for nothing: it is proven that it deposited nothing, and never will."""
        with self._write_transaction():
            self._db.execute("DELETE FROM unnoted WHERE id = ?", (digest,))
            self._db.execute("DELETE FROM deposits WHERE digest = ?", (digest,))
            self._db.execute("DELETE FROM sent WHERE digest = ?", (digest,))
            # The key stays: it is all that brings money back, should the proof be of a chain that never was.
            self._db.execute("UPDATE keys SET denied = 2 WHERE digest = ?", (digest,))

    def deposited_sum(self, channel: str) -> int:
        """Return what went into a channel of ours less what came back, doubted deposits counted."""
        return sum(self.deposit_sums(channel))

    def doubted_deposits(self, channel: str) -> dict[str, int]:
        """Return the deposits that were signed, and aren't known to be there: digest -> amount, the oldest first."""
        query = "SELECT digest, amount FROM deposits WHERE channel = ? AND digest != '' ORDER BY at_ms"
        return dict(self._fetch_rows(query, channel))

    def deposit_sums(self, channel: str) -> list[int]:
        """Return the sums that went into a channel of ours (above 0) or came back (below), in the order of time."""
        return [
            amount for (amount,) in self._fetch_rows("SELECT amount FROM deposits WHERE channel = ?", channel)
        ]

    def was_topped_up(self, channel: str, since_ms: int) -> bool:
        """Return whether a channel of ours got more than it was opened with since then, doubted deposits counted."""
        query = (
            "SELECT 1 FROM deposits JOIN bought USING (channel) "
            "WHERE channel = ? AND amount > 0 AND at_ms >= ? AND at_ms != opened_ms LIMIT 1"
        )
        return any(self._fetch_rows(query, channel, since_ms))

    def lanes_for(self, chain: str, host: str, service: int) -> list[PayerLane]:
        """Return the lanes of all channels that were ever opened here for a service: what was signed for it."""
        ours = [
            each
            for each in self.bought_channels()
            if (each.chain, each.host, each.service) == (chain, host, service)
        ]
        return [lane for each in ours for _, lane in self.payer_lanes(each.channel)]

    def signed_before(self, name: str, period: int, signed: int) -> tuple[int, bool]:
        """Return what had been signed when this period of a budget began, and whether it begins now: then `signed` is
        kept. A period before the newest one doesn't begin again, whatever a clock says."""
        with self._write_transaction():
            begins = self._db.execute(
                "INSERT INTO budgets VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE SET "
                "period = excluded.period, before = excluded.before WHERE excluded.period > period",
                (name, period, signed),
            ).rowcount
            ((before,),) = self._fetch_rows("SELECT before FROM budgets WHERE name = ?", name)
        return int(before), begins > 0

    def budget_period(self, name: str) -> int:
        """Return the newest period of a budget that is noted, -1 for none."""
        rows = self._fetch_rows("SELECT period FROM budgets WHERE name = ?", name)
        return int(rows[0][0]) if rows else -1

    def begin_earlier(self, name: str, period: int, signed: int) -> None:
        """Note that a period of a budget begins that is before the newest one, which a clock had begun that was
        ahead, and that so much had been signed by then."""
        with self._write_transaction():
            self._db.execute(
                "UPDATE budgets SET period = ?, before = ? WHERE name = ?", (period, signed, name)
            )

    def deposited_since(self, chain: str, account: str, coin: str, since_ms: int) -> int:
        """Return what an account has put into channels of a coin since then, less what came back since, to whatever
        host."""
        query = (
            "SELECT coalesce(sum(amount), 0) FROM deposits JOIN bought USING (channel) "
            "WHERE chain = ? AND account = ? AND coin = ? AND at_ms >= ?"
        )
        ((total,),) = self._fetch_rows(query, chain, account, coin, since_ms)
        return int(total) + self.unnoted_since(chain, account, coin, since_ms)

    def unnoted_since(self, chain: str, account: str, coin: str, since_ms: int) -> int:
        """Return what of `deposited_since` is in no channel that is noted here: openings that nodes deny or know
        nothing of, and what `count_moved` found of others."""
        query = (
            "SELECT coalesce(sum(amount), 0) FROM unnoted "
            "WHERE chain = ? AND account = ? AND coin = ? AND at_ms >= ?"
        )
        ((total,),) = self._fetch_rows(query, chain, account, coin, since_ms)
        return int(total)

    def add_lane(self, channel: str, lane: int, public: bytes) -> None:
        """Note a further lane of a channel, of a key that was kept before."""
        with self._write_transaction():
            self._move_key(channel, lane, public)

    def _move_key(self, channel: str, lane: int, public: bytes) -> None:
        row = self._db.execute("SELECT seed, chain, digest FROM keys WHERE public = ?", (public,)).fetchone()
        if row is None:
            raise StoreError(f"the key of lane {lane} of {channel} isn't in {self.path}")
        self._db.execute(
            "INSERT OR IGNORE INTO lanes (channel, lane, seed) VALUES (?, ?, ?)", (channel, lane, row[0])
        )
        self._db.execute("DELETE FROM keys WHERE public = ?", (public,))
        self._db.execute("UPDATE spent SET channel = ? WHERE digest = ?", (channel, row[2]))
        self._db.execute("DELETE FROM unnoted WHERE id = ?", (row[2],))
        self._db.execute("DELETE FROM sent WHERE digest = ?", (row[2],))
        self._db.execute("UPDATE keys SET denied = 2 WHERE denied = 1 AND chain = ?", (row[1],))

    def kept_keys(self) -> dict[bytes, LaneKey]:
        """Return keys whose channel isn't known yet, by public key: an answer was lost, or we died before it came."""
        return {public: LaneKey(seed) for public, seed in self._fetch_rows("SELECT public, seed FROM keys")}

    def bought_channels(self, channel: str | None = None) -> list[Bought]:
        """Return the channels that we opened, oldest first; or the one of that id."""
        query = (
            "SELECT channel, chain, host, service, account, state, opened_ms, coin, claim_ms, gas + "
            "(SELECT coalesce(sum(gas), 0) FROM spent WHERE spent.channel = bought.channel), refused, name, "
            "(SELECT coalesce(sum(amount), 0) FROM deposits WHERE deposits.channel = bought.channel) FROM bought"
        )
        rows = self._fetch_rows(f"{query} WHERE channel = ?", channel) if channel else self._fetch_rows(query)
        return sorted((Bought(*row) for row in rows), key=lambda each: each.opened_ms)

    def set_state(self, channel: str, state: str) -> None:
        """Set how far a channel of ours is: "open", "refused", "closing", "closed"."""
        with self._write_transaction():
            self._db.execute(
                "UPDATE bought SET state = ?, refused = max(refused, ?) WHERE channel = ?",
                (state, state == "refused", channel),
            )

    def payer_lanes(self, channel: str) -> list[tuple[LaneKey, PayerLane]]:
        """Return the lanes of a channel that we sign for."""
        rows = self._fetch_rows(
            "SELECT lane, seed, message, signature, requests, bytes, clean, reserved_sequence, reserved_amount, "
            "believed_requests, believed_bytes FROM lanes WHERE channel = ? ORDER BY lane",
            channel,
        )
        found = []
        for lane, seed, message, signature, requests, size, clean, *kept in rows:
            newest, used = signed_of(message, signature), Usage(requests, size)
            reserved, believed = Reserved(*kept[:2]), Usage(*kept[2:])
            known = PayerLane(channel, lane, newest, used, bool(clean), reserved, believed)
            found.append((LaneKey(seed), known))
        return found

    def hold_deposit(self, channel: str, lane: int, share: Callable[[dict[int, int]], int]) -> int:
        """Keep what of the deposit the connection that has the lane's lock counts on: `share`, of what those of the
        other lanes have (by lane, 0 for nothing). No two do so at once."""
        with self._write_transaction():
            rows = self._db.execute("SELECT lane, held FROM lanes WHERE channel = ?", (channel,))
            held = share({number: amount for number, amount in rows if number != lane})
            self._db.execute(
                "UPDATE lanes SET held = ? WHERE channel = ? AND lane = ?", (held, channel, lane)
            )
        return held

    def held_deposits(self, channel: str) -> dict[int, int]:
        """Return what of the deposit connections count on by `hold`, by lane."""
        return dict(self._fetch_rows("SELECT lane, held FROM lanes WHERE channel = ?", channel))

    def begin_lane(self, channel: str, lane: int) -> None:
        """Note that a connection begins: until `end_lane` says otherwise it broke off."""
        with self._write_transaction():
            self._db.execute("UPDATE lanes SET clean = 0 WHERE channel = ? AND lane = ?", (channel, lane))

    def reserve(self, channel: str, lane: int, reserved: Reserved) -> None:
        """Keep that vouchers up to this sequence and amount may be signed, before the first of them is. Synced.

        What was reserved before stays so.
        """
        with self._synced_transaction():
            changed = self._db.execute(
                "UPDATE lanes SET reserved_sequence = max(reserved_sequence, ?), "
                "reserved_amount = max(reserved_amount, ?) WHERE channel = ? AND lane = ?",
                (*reserved, channel, lane),
            ).rowcount
            if not changed:
                raise StoreError(f"lane {lane} of {channel} isn't in {self.path}")

    def save_trusted_usage(self, channel: str, lane: int, believed: Usage) -> None:
        """Keep how much of a lane is believed that never arrived, before it is signed for. Synced."""
        with self._synced_transaction():
            self._db.execute(
                "UPDATE lanes SET believed_requests = ?, believed_bytes = ? WHERE channel = ? AND lane = ?",
                (*believed, channel, lane),
            )

    def save_signed(self, signed: SignedVoucher, used: Usage) -> None:
        """Keep a voucher that we signed; `used` is our count. An older one changes nothing."""
        with self._write_transaction():
            self._keep_signed(signed, used)

    def _keep_signed(self, signed: SignedVoucher, used: Usage) -> None:
        voucher = signed.voucher
        row = self._db.execute(
            "SELECT message, signature FROM lanes WHERE channel = ? AND lane = ?",
            (voucher.channel, voucher.lane),
        ).fetchone()
        if row is None:
            raise StoreError(f"lane {voucher.lane} of {voucher.channel} isn't in {self.path}")
        newest = signed_of(*row)
        if newest is not None and newest.voucher.sequence >= voucher.sequence:
            if newest.voucher.sequence == voucher.sequence and newest != signed:
                raise StoreError(
                    f"voucher {voucher.sequence} of {voucher.channel} was signed otherwise before"
                )
            return
        self._db.execute(
            "UPDATE lanes SET message = ?, signature = ?, requests = max(requests, ?), bytes = max(bytes, ?) "
            "WHERE channel = ? AND lane = ?",
            (encode_voucher(voucher), signed.signature, *used, voucher.channel, voucher.lane),
        )

    def end_lane(
        self,
        channel: str,
        lane: int,
        used: Usage,
        newest: SignedVoucher | None,
        *,
        clean: bool,
        before: Reserved = UNRESERVED,
        believed: Usage = NOTHING,
    ) -> None:
        """Note what a connection that is over leaves: our count and what of it is only `believed`, the newest voucher
        of all, and whether the server came to no more.

        What this connection reserved and didn't sign is free again; what was reserved `before` it, by one that died,
        only when a voucher above it was signed.
        """
        with self._write_transaction():
            if newest is not None:
                self._keep_signed(newest, used)
            signed = Reserved(newest.voucher.sequence, newest.voucher.amount) if newest else UNRESERVED
            sequence, amount = signed if signed.sequence > before.sequence else before
            self._db.execute(
                "UPDATE lanes SET requests = ?, bytes = ?, clean = ?, reserved_sequence = ?, reserved_amount = ?, "
                "believed_requests = ?, believed_bytes = ?, held = 0 WHERE channel = ? AND lane = ?",
                (*used, clean, sequence, amount, *believed, channel, lane),
            )
