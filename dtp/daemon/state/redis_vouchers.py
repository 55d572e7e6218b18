"""Vouchers received by several daemons of one host, in Redis: `[chain] vouchers = "redis://..."`.

Vouchers are money, and Redis only keeps what it has acknowledged if it is told to. So a server that doesn't write
each change to the disk before it answers is refused, with the setting's name. Redis has no lock that ends with its
holder, so a channel is held by a lease, and its holder's writes are fenced (docs/decisions/0063). Requires `pip
install 'dtp-sockets[state-redis]'`.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import threading
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Self, TypeVar

from dtp.daemon.state.errors import StateUnusable
from dtp.errors import ConfigError
from dtp.pay.errors import NoStore, StoreError
from dtp.pay.server.stored_vouchers import PayeeLane
from dtp.pay.store.holding import ChannelHolds
from dtp.pay.store.rows import End, Sold
from dtp.pay.store.sold import end_of_row, sold_lane_of, sold_of
from dtp.pay.terms import Usage
from dtp.pay.voucher import SignedVoucher, encode_voucher

try:
    import redis
    from redis.backoff import NoBackoff
    from redis.exceptions import RedisError
    from redis.retry import Retry

    from dtp.daemon.state.redis import describe_fault, find_wrong_setting, what_mends
except ImportError as error:
    raise ConfigError("Redis for vouchers takes a package: pip install 'dtp-sockets[state-redis]'") from error

_T = TypeVar("_T")

log = logging.getLogger("dtpd")

_PREFIX = "dtp:pay:"
_TIMEOUT = 5.0
#: Milliseconds for which a silent daemon keeps a channel, or the right to claim.
LEASE = 5_000
#: Seconds between renewals of leases, several of which fit into a lease.
_RENEW = 1.0

#: Required settings of the server, with reasons. Checked at the start and after each error, since it may be another
#: server then.
_SETTINGS = {
    "appendonly": ("yes", "else a crash takes vouchers"),
    "appendfsync": ("always", "else a power cut takes the last ones"),
    "no-appendfsync-on-rewrite": ("no", "else none is synced while the file is rewritten"),
    "maxmemory-policy": ("noeviction", "else vouchers are thrown away when memory is short"),
}

# Numbers go up to 2^64 - 1, which Lua can't hold exactly: they are 20 decimal digits, compared as strings.
_RECEIVE = """
local kept, at = {}, 2
while at <= #ARGV do
  local channel, lane = ARGV[at], ARGV[at + 1]
  local name = KEYS[1] .. 'lane:' .. channel .. ':' .. lane
  local holder = redis.call('GET', KEYS[1] .. 'holder:' .. channel)
  local row = redis.call('HMGET', name, 'message', 'signature', 'sequence', 'amount', 'vouched_requests',
    'vouched_bytes', 'requests', 'bytes')
  local newer = (not row[3] or ARGV[at + 4] > row[3])
  for number = 5, 7 do
    if row[number - 1] and ARGV[at + number] < row[number - 1] then newer = false end
  end
  if holder and holder ~= ARGV[1] then
    kept[#kept + 1] = 0
  elseif newer then
    local requests, bytes = ARGV[at + 8], ARGV[at + 9]
    if row[7] and row[7] > requests then requests = row[7] end
    if row[8] and row[8] > bytes then bytes = row[8] end
    redis.call('HSET', name, 'message', ARGV[at + 2], 'signature', ARGV[at + 3], 'sequence', ARGV[at + 4],
      'amount', ARGV[at + 5], 'vouched_requests', ARGV[at + 6], 'vouched_bytes', ARGV[at + 7],
      'requests', requests, 'bytes', bytes)
    redis.call('SADD', KEYS[1] .. 'lanes:' .. channel, lane)
    redis.call('SADD', KEYS[1] .. 'channels', channel)
    kept[#kept + 1] = 1
  else
    kept[#kept + 1] = (row[1] == ARGV[at + 2] and row[2] == ARGV[at + 3]) and 1 or 0
  end
  at = at + 10
end
return kept
"""
_SERVED = """
local name = KEYS[1] .. 'lane:' .. ARGV[1] .. ':' .. ARGV[2]
for at, field in ipairs({'requests', 'bytes'}) do
  local known = redis.call('HGET', name, field)
  if not known or known < ARGV[2 + at] then redis.call('HSET', name, field, ARGV[2 + at]) end
end
redis.call('SADD', KEYS[1] .. 'lanes:' .. ARGV[1], ARGV[2])
"""
_PREIMAGE = """
local holder = redis.call('GET', KEYS[1] .. 'holder:' .. ARGV[1])
if holder and holder ~= ARGV[5] then return -1 end
local name = KEYS[1] .. 'lane:' .. ARGV[1] .. ':' .. ARGV[2]
if (redis.call('HGET', name, 'message') or '') ~= ARGV[3] then return 0 end
redis.call('HSET', name, 'preimage', ARGV[4])
redis.call('SADD', KEYS[1] .. 'lanes:' .. ARGV[1], ARGV[2])
return 1
"""
_PASS = """
local name = KEYS[1] .. 'pass:' .. ARGV[1]
for _, field in ipairs(redis.call('HKEYS', name)) do
  if tonumber(string.match(field, '^%d+')) < tonumber(ARGV[2]) then redis.call('HDEL', name, field) end
end
redis.call('HINCRBY', name, ARGV[2] .. ':requests', ARGV[3])
redis.call('HINCRBY', name, ARGV[2] .. ':bytes', ARGV[4])
"""
#: A count without a quota isn't leased, see `dtp.pay.terms.leased`.
_LEASE = """
local name = KEYS[1] .. 'pass:' .. ARGV[1]
for _, field in ipairs(redis.call('HKEYS', name)) do
  if tonumber(string.match(field, '^%d+')) < tonumber(ARGV[2]) then redis.call('HDEL', name, field) end
end
local given = {}
for place, what in ipairs({':requests', ':bytes'}) do
  local field = ARGV[2] .. what
  local left = tonumber(ARGV[4 + place]) - tonumber(redis.call('HGET', name, field) or '0')
  given[place] = math.max(0, math.min(tonumber(ARGV[2 + place]), left))
  redis.call('HINCRBY', name, field, string.format('%.0f', given[place]))
end
return given
"""
_AGREE = """
local holder = redis.call('GET', KEYS[1] .. 'holder:' .. ARGV[1])
if holder and holder ~= ARGV[4] then return false end
local name = KEYS[1] .. 'end:' .. ARGV[1]
local state = redis.call('HGET', name, 'state')
local before = tonumber(redis.call('HGET', name, 'not_after') or '0')
if not state or (state == 'agreed' and before < tonumber(ARGV[3])) then
  redis.call('HSET', name, 'total', ARGV[2], 'not_after', ARGV[3], 'state', 'agreed', 'chain', ARGV[5])
end
return redis.call('HMGET', name, 'total', 'not_after', 'state', 'chain')
"""
_OVER = """
local name = KEYS[1] .. 'end:' .. ARGV[1]
if redis.call('EXISTS', name) == 0 then redis.call('HSET', name, 'total', '0', 'not_after', '0') end
redis.call('HSET', name, 'state', 'over')
redis.call('SREM', KEYS[1] .. 'channels', ARGV[1])
"""
# A lease ends by itself. Its last holder is remembered, and nobody else writes until somebody takes it.
_TAKE = """
local holder, lease = KEYS[1] .. 'holder:' .. ARGV[2], KEYS[1] .. 'lease:' .. ARGV[2]
if redis.call('GET', holder) ~= ARGV[1] and (ARGV[4] == 'again' or redis.call('EXISTS', lease) == 1) then
  return 0
end
redis.call('SET', holder, ARGV[1])
redis.call('SET', lease, ARGV[1], 'PX', ARGV[3])
return 1
"""
_GIVE = """
local lease = KEYS[1] .. 'lease:' .. ARGV[2]
if redis.call('GET', lease) == ARGV[1] then redis.call('DEL', lease) end
"""
_RENEW_ALL = """
for at = 3, #ARGV do
  if redis.call('GET', KEYS[1] .. 'holder:' .. ARGV[at]) == ARGV[1] then
    redis.call('SET', KEYS[1] .. 'lease:' .. ARGV[at], ARGV[1], 'PX', ARGV[2])
  end
end
"""
#: Used in place of a channel for the right to claim. No channel has such a short id.
_CLAIMS = "claims"


class RedisUnsafe(StoreError, ConfigError):
    """The Redis server may lose what it has acknowledged; the message names the setting to change."""

    code = "redis-unsafe"


def _members(server: Any, name: str) -> set[bytes]:
    found: set[bytes] = server.smembers(name)
    return found


def _taken_over(channel: str) -> StoreError:
    return StoreError(
        f"the vouchers in Redis: another daemon has taken channel {channel} over; its caller comes again"
    )


def _digits(number: int) -> str:
    return f"{number:020}"


class RedisVouchers:
    """A `VoucherStore` for what is sold. Keys to pay with stay in a separate file."""

    def __init__(self, url: str, *, make: bool = True, renew: float = _RENEW) -> None:
        """Connect, and check that the server keeps what it acknowledges. Raise `StoreError`, `RedisUnsafe`,
        `StateUnusable` where the server refuses permanently, and `NoStore` where `make` is False and no daemon has
        claimed from this database.

        Leases are renewed every `renew` seconds."""
        self._renew = renew
        self._me = secrets.token_hex(16)
        self._held: dict[str, int] = {}
        self._claiming = False
        self._safe = False
        self._lock = threading.RLock()
        self._ended = threading.Event()
        check_url(url)
        # Nothing is retried automatically: after a write without an answer, nobody knows whether it was done.
        self._redis: Any = redis.Redis.from_url(
            url, socket_timeout=_TIMEOUT, socket_connect_timeout=_TIMEOUT, retry=Retry(NoBackoff(), 0)
        )
        # The last claimer is remembered for ever, and each selling daemon asks for that when it starts.
        try:
            claimed = self._do_work(lambda server: server.exists(f"{_PREFIX}holder:{_CLAIMS}"))
        except StoreError as error:
            self._redis.close()
            if (mended := what_mends(error.__cause__)) is not None:
                raise StateUnusable(f"[chain] {error}; {mended}") from error
            raise
        if not claimed and not make:
            self._redis.close()
            raise NoStore("no store in that database of Redis: no daemon has kept vouchers there")
        self._renewing = threading.Thread(target=self._renew_leases, name="dtpd-leases", daemon=True)
        self._renewing.start()

    def _do_work(self, work: Callable[[Any], _T]) -> _T:
        if self._ended.is_set():
            raise StoreError("the vouchers in Redis: closed")
        try:
            if not self._safe:
                self._check_safe()
            return work(self._redis)
        except (RedisError, OSError) as error:
            self._safe = False
            words = describe_fault(error, self._redis.connection_pool)
            raise StoreError(f"the vouchers in Redis: {words}") from error

    def _check_safe(self) -> None:
        """Raise `RedisUnsafe` for a server that may lose what it has acknowledged."""
        server = self._redis.info("server")
        role = self._redis.info("replication").get("role")
        if server.get("redis_mode") != "standalone" or role != "master":
            raise RedisUnsafe(
                f"the vouchers in Redis: {role} in mode {server.get('redis_mode')}: vouchers take a single server, "
                "since one that takes over from another may not have all of them yet"
            )
        for name, (wanted, why) in _SETTINGS.items():
            found = self._redis.config_get(name).get(name)
            if found != wanted:
                raise RedisUnsafe(
                    f"the vouchers in Redis: {name} is {found or 'not told'} there and has to be {wanted}, {why}: "
                    f"CONFIG SET {name} {wanted}, and CONFIG REWRITE"
                )
        self._safe = True

    def _run_script(self, script: str, *values: str | bytes | int) -> Any:
        return self._do_work(lambda server: server.eval(script, 1, _PREFIX, *values))

    def close(self) -> None:
        """Release everything that is held, and disconnect. Idempotent."""
        with self._lock:
            if self._ended.is_set():
                return
            with contextlib.suppress(StoreError):  # otherwise the leases end by themselves
                for channel in [*self._held, *([_CLAIMS] if self._claiming else [])]:
                    self._run_script(_GIVE, self._me, channel)
            self._ended.set()
        self._renewing.join()
        self._redis.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- leases ----------------------------------------------------------------------------------------------------

    def _renew_leases(self) -> None:
        while not self._ended.wait(self._renew):
            with self._lock:
                if self._ended.is_set():
                    return
                leases = [*self._held, *([_CLAIMS] if self._claiming else [])]
                try:
                    self._run_script(_RENEW_ALL, self._me, LEASE, *leases)
                except StoreError as error:  # writers will notice it, and what another daemon takes is fenced
                    log.debug("%s", error)

    @property
    def is_shared(self) -> bool:
        """True: daemons on several machines share the database."""
        return True

    def open_holds(self) -> ChannelHolds:
        """Return this object, which belongs to one daemon, as do the channels it holds."""
        return self

    def is_claimer(self) -> bool:
        """True if this daemon may claim: the first that asks, until it has been silent for `LEASE`."""
        with self._lock:
            self._claiming = bool(self._run_script(_TAKE, self._me, _CLAIMS, LEASE, ""))
            return self._claiming

    def hold_channel(self, channel: str) -> bool:
        """Hold a channel, once more if it is held here. Return False while another daemon holds it or did moments
        ago, or while it was lost here and not freed yet: whoever is still served on it doesn't know what another
        daemon has received."""
        with self._lock:
            if not self._run_script(
                _TAKE, self._me, channel, LEASE, "again" if channel in self._held else ""
            ):
                return False
            self._held[channel] = self._held.get(channel, 0) + 1
            return True

    def free(self, channel: str) -> None:
        """Undo one `hold_channel`."""
        with self._lock:
            left = self._held.pop(channel, 0) - 1
            if left > 0:
                self._held[channel] = left
            elif left == 0:
                self._run_script(_GIVE, self._me, channel)

    def held_channels(self, channels: Iterable[str]) -> set[str]:
        """Return those of the channels that any daemon holds."""
        asked = list(channels)
        leases = [f"{_PREFIX}lease:{channel}" for channel in asked]
        holders: list[bytes | None] = self._do_work(lambda server: server.mget(leases)) if asked else []
        return {channel for channel, holder in zip(asked, holders, strict=True) if holder is not None}

    # ---- VoucherStore ------------------------------------------------------------------------------------------

    def _read_lanes(self, channels: Iterable[str], *fields: str) -> list[tuple[str, int, list[Any]]]:
        """Return channel, lane and fields of all lanes of these channels, in order."""
        with_lanes: list[tuple[str, int]] = []
        for channel in channels:
            numbers = self._do_work(partial(_members, name=f"{_PREFIX}lanes:{channel}"))
            with_lanes += [(channel, lane) for lane in sorted(map(int, numbers))]

        def read(server: Any) -> list[Any]:
            with server.pipeline(transaction=False) as pipe:
                for channel, lane in with_lanes:
                    pipe.hmget(f"{_PREFIX}lane:{channel}:{lane}", list(fields))
                return list(pipe.execute()) if with_lanes else []

        return [(*place, row) for place, row in zip(with_lanes, self._do_work(read), strict=True)]

    def sold_lane(self, channel: str, lane: int) -> PayeeLane:
        """Return what is known of a lane that pays us, or a new one. Raise `StoreError`."""
        fields = ["message", "signature", "requests", "bytes", "preimage"]
        row: list[Any] = self._do_work(lambda server: server.hmget(f"{_PREFIX}lane:{channel}:{lane}", fields))
        row[2:4] = (row[2] or 0, row[3] or 0)
        return sold_lane_of(channel, lane, [row])

    def sold_lanes(self, channel: str | None = None) -> list[Sold]:
        """Return the lanes with a voucher, of one channel or of all that aren't over. Raise `StoreError`."""
        if channel is not None:
            channels = [channel]
        else:
            known = self._do_work(partial(_members, name=f"{_PREFIX}channels"))
            channels = [one for one in sorted(each.decode() for each in known) if not self._is_over(one)]
        rows = self._read_lanes(channels, "message", "signature", "preimage")
        return sold_of([(one, lane, *row) for one, lane, row in rows if row[0]])

    def _is_over(self, channel: str) -> bool:
        end = self.end_of(channel)
        return end is not None and end.over

    def vouched_sums(self, channel: str) -> dict[int, int]:
        """Return the amount of each lane's newest voucher. Raise `StoreError`."""
        return {lane: int(amount or 0) for _, lane, (amount,) in self._read_lanes([channel], "amount")}

    def received_all(self, received: Iterable[tuple[SignedVoucher, Usage]]) -> list[bool]:
        """Store vouchers with valid signatures, either all or none; return which of them were new. Raise
        `StoreError`.

        A voucher for a channel that another daemon has taken over isn't stored, and is exempt from this.
        """
        values: list[str | bytes] = []
        for signed, used in received:
            voucher = signed.voucher
            numbers = (voucher.sequence, voucher.amount, voucher.requests, voucher.bytes, *used)
            values += [voucher.channel, str(voucher.lane), encode_voucher(voucher), signed.signature]
            values += map(_digits, numbers)
        return [bool(one) for one in self._run_script(_RECEIVE, self._me, *values)] if values else []

    def keep_preimage(self, channel: str, lane: int, preimage: bytes) -> None:
        """Store the key of a locked charge before it is asked for. Raise `StoreError`, also while a lock is
        open."""
        for _ in range(100):
            newest = self.sold_lane(channel, lane).newest
            if newest is not None and newest.voucher.hash_lock is not None:
                raise StoreError(f"the newest voucher of lane {lane} of {channel} is still locked")
            message = b"" if newest is None else encode_voucher(newest.voucher)
            kept = self._run_script(_PREIMAGE, channel, str(lane), message, preimage, self._me)
            if kept < 0:
                raise _taken_over(channel)
            if kept:
                return
        raise StoreError(f"lane {lane} of {channel} gets vouchers too fast to sell under a lock")

    def save_served(self, channel: str, lane: int, used: Usage) -> None:
        """Store what was served on the lane so far, whether paid or not. Raise `StoreError`."""
        self._run_script(_SERVED, channel, str(lane), *map(_digits, used))

    def pass_used(self, pass_: str, period: int) -> Usage:
        """Return what was used under a pass in one of its periods. Raise `StoreError`."""
        fields = [f"{period}:requests", f"{period}:bytes"]
        requests, size = self._do_work(lambda server: server.hmget(f"{_PREFIX}pass:{pass_}", fields))
        return Usage(int(requests or 0), int(size or 0))

    def add_pass_used(self, pass_: str, period: int, more: Usage) -> None:
        """Add to what was used under a pass (which may be negative), and remove older periods. Raise
        `StoreError`."""
        self._run_script(_PASS, pass_, str(period), *map(str, more))

    def lease_pass(self, pass_: str, period: int, wanted: Usage, quota: Usage) -> Usage:
        """Count `wanted` as used, as far as the quota allows; return what was counted. Raise `StoreError`."""
        return Usage(*self._run_script(_LEASE, pass_, str(period), *map(str, (*wanted, *quota))))

    def save_agreement(self, channel: str, total: int, not_after_ms: int, chain: str) -> End:
        """Store that the channel is to be closed for `total`. Return the stored end, which of two is the one that
        is valid longer. Raise `StoreError`."""
        row = self._run_script(_AGREE, channel, str(total), str(not_after_ms), self._me, chain)
        if row is None:
            raise _taken_over(channel)
        return _end(channel, row)

    def mark_closed(self, channel: str) -> None:
        """Store that the channel is closed on the chain, so that nothing can be claimed any more. Raise
        `StoreError`."""
        self._run_script(_OVER, channel)

    def end_of(self, channel: str) -> End | None:
        """Return the agreed or known end of a channel; None while it goes on. Raise `StoreError`."""
        fields = ["total", "not_after", "state", "chain"]
        row: list[Any] = self._do_work(lambda server: server.hmget(f"{_PREFIX}end:{channel}", fields))
        return None if row[2] is None else _end(channel, row)


def _end(channel: str, row: list[bytes | None]) -> End:
    return end_of_row(channel, [(each or b"").decode() for each in row])


def check_url(url: str) -> None:
    """Raise `StateUnusable` for a URL that the client doesn't accept, or that names unusable files. No server is
    asked."""
    if (wrong := find_wrong_setting(url)) is not None:
        raise StateUnusable(f"[chain] {wrong}")
