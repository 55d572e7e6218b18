"""`dtp keygen` and `dtp id`: make an identity, and show it."""

from __future__ import annotations

import itertools
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from dtp import config
from dtp.cli.accounts import refuse_key
from dtp.cli.options import (
    IdentitySource,
    has_terminal,
    identity_options,
    passphrase_file_option,
    read_passphrase_file,
)
from dtp.cli.output import json_option, print_result
from dtp.identity import Identity, IdentityFileError, IdentityFileExists
from dtp.identity.private import read_private_file
from dtp.replacing import replace_file


def _describe(identity: Identity, path: Path) -> dict[str, Any]:
    return {
        "id": str(identity.id),
        "sui_address": identity.id.sui_address,
        "static_key": identity.static_public.hex(),
        "file": str(path),
    }


@click.command()
@click.option("--identity", "-i", "path", type=click.Path(path_type=Path, readable=False), metavar="FILE",
              help="Where to put it. [default: $DTP_IDENTITY, else identity.pem in the settings folder]")  # fmt: skip
@click.option("--passphrase", "ask", is_flag=True, help="Encrypt it with a passphrase that is asked for.")
@passphrase_file_option
@click.option("--import", "source", type=click.Path(path_type=Path, readable=False), metavar="FILE",
              callback=refuse_key,
              help="Take over the key in FILE: another identity, an Ed25519 key in PKCS#8 (openssl genpkey), "
              "or a Sui key (suiprivkey1...).")  # fmt: skip
@click.option(
    "--force", is_flag=True, help="Replace an identity that is there; the old one is kept beside it."
)
@json_option
def keygen(
    path: Path | None, ask: bool, passphrase_file: str | None, source: Path | None, force: bool
) -> None:
    """Make an identity: the key that names you, which is a Sui account too.

    The file gets mode 0600. With --passphrase or --passphrase-file it is encrypted (PKCS#8: scrypt and
    AES-256-CBC), and commands ask for the passphrase. Keep a copy: whoever has the file is you.
    """
    path = path or config.identity_path()
    if not force and os.path.lexists(path):  # asked before a passphrase is
        raise IdentityFileExists(f"{path} exists; it was left as it is. Give another --identity, or --force")
    # Read once, for the old file and the new one: a pipe gives it only once.
    given = None if passphrase_file is None else read_passphrase_file(passphrase_file)
    identity = Identity.generate() if source is None else _import(source, given)
    passphrase = given if given is not None else _new_passphrase(ask, None)
    kept = _keep_old(path, source)
    identity.save(path, passphrase, overwrite=force)
    record = {**_describe(identity, path), "encrypted": passphrase is not None}
    if kept is not None:
        record["old_file"] = str(kept)
    print_result(record)


@click.command("id")
@identity_options("--identity", "-i")
@click.option("-q", "--quiet", is_flag=True, help="Print the identity (dtp1...) and nothing else.")
@json_option
def show_id(identity: IdentitySource, quiet: bool) -> None:
    """Show your identity, the Sui address of the same key, and the static key of the transport (X25519, hex).

    Give the identity to those who need to reach you: dtp+tcp://dtp1...@host:port/service.
    """
    mine = identity.load_identity()
    record = {**_describe(mine, identity.path), "static_key_stored": mine.static_stored}
    if not mine.static_stored:
        click.echo(
            f"dtp: {identity.path} has no static key, so each start makes another one; "
            f"'dtp keygen --import {identity.path}' makes a file with both",
            err=True,
        )
    print_result(record, record["id"] if quiet else None)


def _import(source: Path, passphrase: bytes | None) -> Identity:
    """Return the identity whose key is in `source`, with a static key that may be kept. Asks for a missing
    passphrase."""
    try:
        beginning = read_private_file(source, 256).strip()
    except OSError as error:
        raise IdentityFileError(f"can't read {source}: {error.strerror or error}") from error
    if beginning.startswith(b"suiprivkey1"):
        return Identity.from_sui(beginning.decode("ascii", "replace"))
    return IdentitySource(source).load_identity() if passphrase is None else Identity.load(source, passphrase)


def _new_passphrase(ask: bool, passphrase_file: str | None) -> bytes | None:
    if passphrase_file is not None:
        return read_passphrase_file(passphrase_file)
    if not ask:
        return None
    if not has_terminal():
        raise click.UsageError("--passphrase asks at a terminal and there is none; use --passphrase-file")
    answer: str = click.prompt("New passphrase", hide_input=True, confirmation_prompt=True, err=True)
    return answer.encode()


def _keep_old(path: Path, source: Path | None) -> Path | None:
    """Copy the file that is about to be replaced to a free name beside it: it may own money on Sui.

    Not when it is the source itself: then the same key stays, and an unencrypted copy of it should not.
    """
    if not path.exists() or (source is not None and path.samefile(source)):
        return None
    try:
        content = path.read_bytes()
        for number in itertools.count(1):
            kept = path.with_name(f"{path.name}.old{number}")
            with suppress(FileExistsError):
                replace_file(kept, content, new=True)
                return kept
    except OSError as error:
        raise IdentityFileError(f"can't keep a copy of {path}: {error.strerror or error}") from error
    raise AssertionError("itertools.count does not end")
