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

#: Seconds after which Redis removes an unused key. Each exchange starts them again.
_KEEP = 40 * 86_400
_REQUESTS, _DATA = "requests", "bytes"


class RedisCountStore:
    """A hash for each key, with additions in one transaction."""

    tells = False

    def __init__(self, url: str, host: str) -> None:
        self._host = host
        #: Unreadable bans that were logged, as they are stored.
        self._unread: set[tuple[bytes | str, bytes | str]] = set()
        #: Broken counts that were logged.
        self._broken: set[str] = set()
        self._redis = redis.Redis.from_url(url, socket_timeout=5, socket_connect_timeout=5)

    def _describe(self, error: Exception) -> str:
        return f"Redis: {describe_fault(error, self._redis.connection_pool)}"

    def _key_name(self, key: CountKey) -> str:
        return f"dtpd:{self._host}:{key.scope}:{key.period}:{key.caller}"

    async def open(self) -> None:
        """Check that the server answers. Raise `StateError` if it doesn't, or `StateUnusable` if it wants another
        name or password, or can't prove its identity."""
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
        """Return True if the server answers in database 0, which every server has, and the configured one is
        another."""
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
        """Add them in one MULTI. Raise `StateError`.

        Redis executes the rest of a MULTI when a part fails. A count that can't be added to is left out, and only
        counted here: reported as a failure of all, everything would be added twice.
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
        """Do nothing: Redis removes old counts by itself."""

    async def ban(self, caller: str, until: float) -> None:
        """Ban a caller until then (Unix time). Raise `StateError`."""
        try:
            await self._redis.hset(f"dtpd:{self._host}:bans", caller, repr(until))
        except (RedisError, OSError) as error:
            raise StateError(self._describe(error)) from error

    async def list_bans(self, now: float) -> Mapping[str, float]:
        """Return the bans that hold after `now`, with their ends. Raise `StateError`."""
        try:
            found = await self._redis.hgetall(f"dtpd:{self._host}:bans")
        except (RedisError, OSError) as error:
            raise StateError(self._describe(error)) from error
        bans: dict[str, float] = {}
        unread = set()
        for row in found.items():  # a row that somebody wrote by hand must not lift all other bans
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
    """Return a caller, and the end of its ban. Raise `ValueError`."""
    moment = float(until)
    if math.isnan(moment):
        raise ValueError("not a number")
    return caller if isinstance(caller, str) else caller.decode(), moment


def what_mends(error: BaseException | None) -> str | None:
    """Return what a person has to do about a connection error; None if trying again may help."""
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
    """Return what the client doesn't accept in a URL, or which of its files it can't use; None for nothing.

    No server is asked.
    """
    try:
        pool: Any = redis.Redis.from_url(url).connection_pool  # it has no type annotations
        connection = pool.make_connection()
        if isinstance(connection, redis.SSLConnection):
            connection.ssl_context.get()
    except ValueError:  # its message isn't quoted, since it may have a password
        return "Redis doesn't take this URL: it is as in redis://HOST:PORT/NUMBER"
    except (RedisError, OSError) as error:
        return f"Redis doesn't take the URL's settings of TLS, or a file that they name: {error}"
    return None


def make(url: str, host: str) -> RedisCountStore:
    """Return the store at `url`. Raise `StateUnusable` as `check_url` does."""
    check_url(url)
    return RedisCountStore(url, host)


def check_url(url: str) -> None:
    """Raise `StateUnusable` for a URL that the client doesn't accept, or that names unusable files. No server is
    asked."""
    if (wrong := find_wrong_setting(url)) is not None:
        raise StateUnusable(f"[state] {wrong}")
