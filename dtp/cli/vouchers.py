"""`--store`: whose vouchers a command is about - a file, a database that daemons share, or what a dtpd.toml says."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

import click

from dtp import config
from dtp.errors import ConfigError

if TYPE_CHECKING:
    from dtp.pay.store import Store
    from dtp.pay.store.holding import VoucherStore

_Function = TypeVar("_Function", bound=Callable[..., Any])


class Stores(NamedTuple):
    """What somebody is paid by, and what they pay with: one file, or a database and a file beside it, as a daemon has
    them."""

    sold: VoucherStore
    bought: Store


@dataclass(frozen=True)
class Vouchers:
    """Where the vouchers of a command are: a file, or a database's URL, which isn't to be shown for its password."""

    where: Path | str
    #: Whether somebody said so; else it is where they are without a word.
    named: bool

    @property
    def text(self) -> str:
        """Where, for people."""
        return self.where.partition(":")[0] if isinstance(self.where, str) else str(self.where)

    @contextmanager
    def open_stores(self, missing: Literal["empty", "make", "refuse"] = "empty") -> Iterator[Stores]:
        """Open them. A file that isn't there is refused if it was named; else `missing` says what becomes of it: an
        empty store in its place, a new file, or that it is refused, too. Raises `NoStore`, `StoreError` and
        `ConfigError`.
        """
        if isinstance(self.where, str):
            from dtp.daemon.paying.side import open_sold

            with (
                closing(open_sold(self.where, make=False)) as sold,
                _file(config.pay_store_path(), "make" if missing == "make" else "empty") as bought,
            ):
                yield Stores(sold, bought)
        else:
            refuse = self.named
            with _file(self.where, "refuse" if refuse else missing) as both:
                yield Stores(both, both)


def _file(path: Path, missing: str) -> Store:
    from dtp.pay.errors import NoStore
    from dtp.pay.store import Store

    try:
        return Store(path, make=missing == "make")
    except NoStore:
        if missing != "empty":
            raise
        return Store(":memory:")


def store_option(command: _Function) -> _Function:
    """Add `--store`; the command gets `vouchers`."""
    return click.option(
        "--store",
        "vouchers",
        metavar="WHERE",
        callback=_there,
        help="Whose vouchers: a file, a database as '[chain] vouchers' has it (postgresql://USER@HOST/DATABASE, "
        "redis://HOST:PORT/NUMBER), or a daemon's .toml, which says where they are. "
        "[default: $DTP_PAY_STORE, else pay.sqlite in the data folder]",
    )(command)


def _there(ctx: click.Context, param: click.Parameter, text: str | None) -> Vouchers:
    """Return what `--store` says; a file that isn't there is refused before a chain is asked, which may be away."""
    meant = read_where(text)
    if meant.named and isinstance(meant.where, Path) and not os.path.exists(meant.where):
        with meant.open_stores():
            pass
    return meant


def read_where(text: str | None) -> Vouchers:
    """Return what `--store` says. Raises `ConfigError`, which has nothing of a URL in it."""
    if text is None:
        return Vouchers(config.pay_store_path(), named=bool(os.environ.get("DTP_PAY_STORE")))
    from dtp.daemon.config.reading import Wrong
    from dtp.daemon.config.values import database_or

    if text.endswith(".toml"):
        return Vouchers(_said_by(Path(text)), named=True)
    try:
        return Vouchers(database_or(Path)(text), named=True)
    except Wrong as fault:
        raise ConfigError(f"--store: {fault}") from None


def _said_by(path: Path) -> Path | str:
    from dtp.daemon.config.load import load

    chain = load(path).chain
    if chain is None:
        raise ConfigError(f"--store {path}: a daemon without [chain] has no vouchers")
    return chain.vouchers or config.pay_store_path()
