"""The keys that a daemon's file names, and its state: read for `dtpd run`, and looked at by `dtpd check`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from dtp.cli.options import IdentitySource, read_psk_file
from dtp.daemon import state
from dtp.daemon.config.model import Config
from dtp.daemon.config.places import KeyPath, find_places
from dtp.daemon.config.reading import ConfigMistakes, Mistake
from dtp.daemon.state.looking import look_at_mailbox, look_at_state, look_at_vouchers
from dtp.errors import ConfigError, DtpError
from dtp.identity import Identity, PassphraseNeeded
from dtp.identity.private import open_to_others
from dtp.messaging.errors import StoreUnusable
from dtp.peers.private import PrivateNetwork, read_key_file


def load_identity(config: Config) -> Identity:
    """Return the identity of `config`; a passphrase that no file has is asked for.

    Raise `IdentityFileError` and `ConfigError`.
    """
    said = None if config.passphrase_file is None else str(config.passphrase_file)
    return IdentitySource(
        config.identity, said, instead="name its passphrase-file in [identity]"
    ).load_identity()


def load_psk(config: Config) -> bytes | None:
    """Return the pre-shared key of `config`, 32 bytes, or None. Raise `ConfigError`."""
    return None if config.psk_file is None else read_psk_file(str(config.psk_file))


def load_network(config: Config) -> PrivateNetwork | None:
    """Return the private network of the node of `config`, or None. Raise `ConfigError`, `NetworkKeyError`."""
    if config.node is None or config.node.network is None:
        return None

    return PrivateNetwork.parse(read_key_file(config.node.network))


class _Looking:
    """What is wrong with what a file names, and what is doubtful about it."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.wrong: list[tuple[KeyPath, str]] = []

    def look(
        self, setting: KeyPath, read: Callable[[], object], ask: Callable[[], object] | None = None
    ) -> None:
        """Note what `read` raises; where it raises nothing, what `ask` does, who may find that a server is away."""
        try:
            read()
            if ask is not None:
                ask()
        except (ConfigError, StoreUnusable) as error:
            self.wrong.append((setting, f"{setting[-1]}: {error}"))
        except DtpError as error:
            if ask is None:
                self.wrong.append((setting, f"{setting[-1]}: {error}"))
            else:
                self.warnings.append(f"{setting[-1]}: {error}")


def look_at_places(path: Path, config: Config, *, connect: bool = False) -> list[str]:
    """Return what is doubtful about the keys and the stores that `config`, the file at `path`, names.

    They are read as `run` does. Databases are asked with `connect`; one that is away now is doubtful. Raise
    `ConfigMistakes` with all that `run` could not use.
    """
    found = _Looking()
    found.look(("identity", "file"), lambda: _identity(config, found.warnings))
    found.look(("identity", "psk-file"), lambda: load_psk(config))
    found.look(("node", "network-file"), lambda: load_network(config))
    for number, topic in enumerate(() if config.node is None else config.node.private_topics):
        found.look(("node", "private-topics", number, "key-file"), topic.read_key)
    if config.chain is not None and config.chain.wallet is not None:
        from dtp.chain.keystores import load_key

        wallet = config.chain.wallet
        found.look(("chain", "wallet"), lambda: load_key(wallet))
    for setting, check, ask in _databases(config):
        found.look(setting, check, ask if connect else None)
    if found.wrong:
        places = find_places(path.read_text("utf-8-sig"))
        raise ConfigMistakes(
            path, [Mistake(places.find_place(setting), what) for setting, what in found.wrong]
        )
    return found.warnings


def _databases(config: Config) -> Iterator[tuple[KeyPath, Callable[[], None], Callable[[], None]]]:
    """Yield where each is named, what looks at its URL, and what asks it."""
    if config.state is not None:
        url = config.state
        yield ("state", "url"), partial(state.check_url, url), partial(look_at_state, url)
    if config.chain is not None and isinstance(config.chain.vouchers, str):
        from dtp.daemon.paying.side import check_sold

        url = config.chain.vouchers
        yield ("chain", "vouchers"), partial(check_sold, url), partial(look_at_vouchers, url)
    for number, each in enumerate(config.expose):
        if each.mailbox is not None and isinstance(each.mailbox.store, str):
            from dtp.messaging.mailbox.opening import check_store

            url = each.mailbox.store
            ask = partial(look_at_mailbox, url, each.mailbox.limits.piece)
            yield ("expose", number, "mailbox", "store"), partial(check_store, url), ask


def _identity(config: Config, warnings: list[str]) -> None:
    if config.passphrase_file is not None:
        load_identity(config)  # which logs the same
        if close := open_to_others(os.stat(config.passphrase_file)):
            warnings.append(
                f"passphrase-file: {config.passphrase_file} may be read by others; {close} {config.passphrase_file}"
            )
        return
    try:
        Identity.load(config.identity)
    except PassphraseNeeded:
        warnings.append(
            f"file: {config.identity} is encrypted and there is no passphrase-file: 'dtpd run' asks for it at a "
            "terminal, and 'dtpd upgrade' and services have none"
        )
