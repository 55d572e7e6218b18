"""Counts in Redis: `redis://HOST:PORT/NUMBER`, `rediss://` with TLS. `pip install 'dtp-sockets[state-redis]'`."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

from dtp.certificates import is_refused_for_good
from dtp.daemon.state import CountKey, Used
from dtp.daemon.state.errors import StateError, StateUnusable
from dtp.errors import ConfigError

try:
    from redis import asyncio as redis
    from redis.exceptions import (
        AuthenticationError,
        AuthorizationError,
        ConnectionError,
        NoPermissionError,
        RedisError,
        ResponseError,
        TimeoutError,
    )
except ImportError as error:
    raise ConfigError("Redis for [state] takes a package: pip install 'dtp-sockets[state-redis]'") from error

log = logging.getLogger("dtpd")

#: Seconds after which a key that nobody adds to goes by itself; each exchange begins them anew.
_KEEP = 40 * 86_400
_REQUESTS, _DATA = "requests", "bytes"


class RedisCountStore:
    """A hash for each key, added to in one transaction."""

    tells = False

    def __init__(self, url: str, host: str) -> None:
        self._host = host
        #: Bans that can't be read and were told of, as they stand there.
        self._unread: set[tuple[bytes | str, bytes | str]] = set()
        #: Counts that can't be added to and were told of.
        self._broken: set[str] = set()
        self._redis = redis.Redis.from_url(url, socket_timeout=5, socket_connect_timeout=5)

    def _describe(self, error: Exception) -> str:
        return f"Redis: {describe_fault(error, self._redis.connection_pool)}"

    def _key_name(self, key: CountKey) -> str:
        return f"dtpd:{self._host}:{key.scope}:{key.period}:{key.caller}"

    async def open(self) -> None:
        """Ask whether the server is there. Raises `StateError` when it is not, and `StateUnusable` when it wants
        another name or password, or can't prove its own."""
        try:
            await self._redis.ping()
        except (RedisError, OSError) as error:
            if (mended := what_mends(error)) is not None:
                raise StateUnusable(f"[state] {self._describe(error)}; {mended}") from error
            if isinstance(error, ResponseError) and await self._has_another_database():
                words = "the server has no database of this number"
                raise StateUnusable(f"[state] {self._describe(error)}; {words}") from error
            raise StateError(self._describe(error)) from error

    async def _has_another_database(self) -> bool:
        """Return whether the server answers in the database that each has, 0, and it isn't the one that is meant."""
        mine = self._redis.connection_pool
        if not int(mine.connection_kwargs.get("db") or 0):
            return False
        pool = redis.ConnectionPool(
            connection_class=mine.connection_class, **{**mine.connection_kwargs, "db": 0}
        )
        async with redis.Redis.from_pool(pool) as first:
            try:
                await first.ping()
            except (RedisError, OSError):
                return False
        return True

    async def exchange_counts(self, deltas: Mapping[CountKey, Used]) -> Mapping[CountKey, Used]:
        """In one MULTI. Raises `StateError`.

        Redis does the rest of one when a part fails. What can't be added to is left out, and is counted here alone:
        told as a failure of all, all would be added again.
        """
        try:
            async with self._redis.pipeline(transaction=True) as pipe:
                for key, used in deltas.items():
                    name = self._key_name(key)
                    for field, amount in zip((_REQUESTS, _DATA), used, strict=True):
                        if any(used):
                            pipe.hincrby(name, field, amount)
                        else:
                            pipe.hget(name, field)
                    pipe.expire(name, _KEEP)
                answers = await pipe.execute(raise_on_error=False) if deltas else []
        except (RedisError, OSError) as error:
            raise StateError(self._describe(error)) from error
        totals, broken = {}, set()
        for at, key in enumerate(deltas):
            requests, data, _ = answers[3 * at : 3 * at + 3]
            fault: Exception | None = next(
                (one for one in (requests, data) if isinstance(one, RedisError)), None
            )
            if fault is None:
                try:
                    totals[key] = Used(int(requests or 0), int(data or 0))
                    continue
                except ValueError as error:
                    fault = error
            broken.add(name := self._key_name(key))
            if name not in self._broken:
                log.warning("Redis: %s can't be added to, and is counted here alone: %s", name, fault)
        self._broken = broken
        return totals

    async def forget_periods(self, scope: str, before: int) -> None:
        """Do nothing: Redis forgets by itself."""

    async def ban(self, caller: str, until: float) -> None:
        """Raises `StateError`."""
        try:
            await self._redis.hset(f"dtpd:{self._host}:bans", caller, repr(until))
        except (RedisError, OSError) as error:
            raise StateError(self._describe(error)) from error

    async def list_bans(self, now: float) -> Mapping[str, float]:
        """Raises `StateError`."""
        try:
            found = await self._redis.hgetall(f"dtpd:{self._host}:bans")
        except (RedisError, OSError) as error:
            raise StateError(self._describe(error)) from error
        bans: dict[str, float] = {}
        unread = set()
        for row in found.items():  # one that somebody wrote there by hand must not lift all others
            try:
                bans.update([_ban(*row)])
            except ValueError:
                unread.add(row)
                if row not in self._unread:
                    log.warning("Redis: a ban that can't be read is left out: %.100r until %.100r", *row)
        self._unread = unread
        return {caller: until for caller, until in bans.items() if until > now}

    async def close(self) -> None:
        """Disconnect."""
        await self._redis.aclose()


def _ban(caller: bytes | str, until: bytes | str) -> tuple[str, float]:
    """Raises `ValueError`."""
    moment = float(until)
    if math.isnan(moment):
        raise ValueError("not a number")
    return caller if isinstance(caller, str) else caller.decode(), moment


def what_mends(error: BaseException | None) -> str | None:
    """Return what a person has to do about an error of connecting; None where trying again may help."""
    if isinstance(error, AuthenticationError | AuthorizationError | NoPermissionError):
        return "the URL takes another name or password"
    if is_refused_for_good(error):
        return "the server's certificate has to be of this name, and of an issuer that the URL names"
    return None


def name_server(pool: Any) -> str:
    """Return the server of a client's pool as HOST:PORT, or the path of its socket, without user and password."""
    given = pool.connection_kwargs
    return str(given.get("path") or f"{given.get('host', 'localhost')}:{given.get('port', 6379)}")


def describe_fault(error: Exception, pool: Any) -> str:
    """Return an error's words; for one of a line that is gone, or was never there, with its server in front, unless
    it is named: the client does that only while it connects."""
    words, server = str(error) or repr(error), name_server(pool)
    is_of_line = isinstance(error, (ConnectionError, TimeoutError, OSError))
    return f"{server}: {words}" if is_of_line and server not in words else words


def find_wrong_setting(url: str) -> str | None:
    """Return what the client doesn't take of a URL, or which of its files it can't use; None if nothing.

    Nobody is asked.
    """
    try:
        pool: Any = redis.Redis.from_url(url).connection_pool  # whose types are not told
        connection = pool.make_connection()
        if isinstance(connection, redis.SSLConnection):
            connection.ssl_context.get()
    except ValueError:  # its words are not quoted: a password may be in them
        return "Redis doesn't take this URL: it is as in redis://HOST:PORT/NUMBER"
    except (RedisError, OSError) as error:
        return f"Redis doesn't take the URL's settings of TLS, or a file that they name: {error}"
    return None


def make(url: str, host: str) -> RedisCountStore:
    """Return the store at `url`. Raise `StateUnusable` as `check_url` does."""
    check_url(url)
    return RedisCountStore(url, host)


def check_url(url: str) -> None:
    """Raise `StateUnusable` for a URL that the client doesn't take, or one that names files it can't use; nobody is
    asked."""
    if (wrong := find_wrong_setting(url)) is not None:
        raise StateUnusable(f"[state] {wrong}")
