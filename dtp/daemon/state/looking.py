"""Checks whether the databases in a configuration would work, for `dtpd check --connect`. Nothing is created.

All raise `ConfigError` or `StoreUnusable` for what would end `dtpd run` with 78, and another `DtpError` for what
may be temporary.
"""

from __future__ import annotations

import asyncio

from dtp.daemon.state.errors import StateError, StateUnusable


def look_at_state(url: str) -> None:
    """Check the counts at `url`, which isn't a file."""
    if url.startswith("postgresql"):
        _look_at_postgresql(url, "[state]")
    elif url.startswith("redis"):
        from dtp.daemon.state.redis import RedisCountStore

        async def ask() -> None:
            store = RedisCountStore(url, "")
            try:
                await store.open()
            finally:
                await store.close()

        asyncio.run(ask())


def look_at_vouchers(url: str) -> None:
    """Check the vouchers at `url`."""
    if url.startswith("postgresql"):
        _look_at_postgresql(url, "[chain]")
        return
    from contextlib import suppress

    from dtp.daemon.state.redis_vouchers import RedisVouchers
    from dtp.pay.errors import NoStore

    with suppress(NoStore):
        RedisVouchers(url, make=False).close()


def look_at_mailbox(url: str, most_bytes: int) -> None:
    """Check the mailbox at `url`, with rows of at most this many bytes."""
    if url.startswith("nats"):
        from dtp.messaging.mailbox.nats_line import look_at

        look_at(url, most_bytes)
    elif url.startswith("postgres"):
        _look_at_postgresql(url, "the mailbox in")


def _look_at_postgresql(url: str, whose: str) -> None:
    import psycopg

    from dtp.postgresql import first_line, look_at, what_mends

    try:
        look_at(url)
    except (psycopg.Error, OSError) as error:
        words, mended = f"{whose} PostgreSQL: {first_line(error)}", what_mends(error, url, connected=False)
        if mended is None:
            raise StateError(words) from error
        raise StateUnusable(f"{words}; {mended}") from error
