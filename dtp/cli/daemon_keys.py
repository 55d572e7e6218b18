"""The keys that a daemon's file names, and its state: read for `dtpd run`, and looked at by `dtpd check`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from dtp.cli.options import IdentitySource, read_psk_file
from dtp.daemon import state
from dtp.daemon.config.model import Config
from dtp.daemon.config.places import KeyPath, find_places
from dtp.daemon.config.reading import ConfigMistakes, Mistake
from dtp.errors import DtpError
from dtp.identity import Identity, PassphraseNeeded
from dtp.identity.private import open_to_others

if TYPE_CHECKING:
    from dtp.peers.private import PrivateNetwork


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
    from dtp.peers.private import PrivateNetwork, read_key_file

    return PrivateNetwork.parse(read_key_file(config.node.network))


def look_at_places(path: Path, config: Config) -> list[str]:
    """Return what is doubtful about the keys and the state that `config`, the file at `path`, names.

    They are read as `run` does, and nobody is asked. Raise `ConfigMistakes` with all that `run` could not use.
    """
    warnings: list[str] = []
    wrong: list[tuple[KeyPath, str]] = []

    def look(setting: KeyPath, read: Callable[[], object]) -> None:
        try:
            read()
        except DtpError as error:
            wrong.append((setting, f"{setting[-1]}: {error}"))

    look(("identity", "file"), lambda: _identity(config, warnings))
    look(("identity", "psk-file"), lambda: load_psk(config))
    look(("node", "network-file"), lambda: load_network(config))
    for number, topic in enumerate(() if config.node is None else config.node.private_topics):
        look(("node", "private-topics", number, "key-file"), topic.read_key)
    if config.chain is not None and config.chain.wallet is not None:
        from dtp.chain.keystores import load_key

        wallet = config.chain.wallet
        look(("chain", "wallet"), lambda: load_key(wallet))
    if config.state is not None:
        url = config.state
        look(("state", "url"), lambda: state.check_url(url))
    if wrong:
        places = find_places(path.read_text("utf-8-sig"))
        raise ConfigMistakes(path, [Mistake(places.find_place(setting), what) for setting, what in wrong])
    return warnings


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
