"""Options that several commands share: which identity, and where its passphrase comes from."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

import click

from dtp import config
from dtp.errors import ConfigError
from dtp.identity import Identity, PassphraseNeeded

_Function = TypeVar("_Function", bound=Callable[..., Any])
_MAX_PASSPHRASE_SIZE = 4096


@dataclass(frozen=True)
class IdentitySource:
    """Where the identity of a command comes from; loaded, and a passphrase asked for, when it is used."""

    #: The file; need not exist.
    path: Path
    #: The file whose first line is the passphrase, "-" for standard input; None to ask at the terminal.
    passphrase_file: str | None = None

    def load(self) -> Identity:
        """The identity. Raises `IdentityFileError` and `ConfigError`."""
        return Identity.load(self.path, self.passphrase)

    def passphrase(self) -> bytes:
        """The passphrase of an encrypted file, from `passphrase_file` or from the terminal.

        Raises `PassphraseNeeded` where there is no terminal to ask at.
        """
        if self.passphrase_file is not None:
            return read_passphrase_file(self.passphrase_file)
        if not has_terminal():
            raise PassphraseNeeded(
                f"{self.path} is encrypted and there is no terminal to ask at; "
                "give --passphrase-file or $DTP_PASSPHRASE_FILE"
            )
        answer: str = click.prompt(f"Passphrase of {self.path}", hide_input=True, err=True)
        return answer.encode()


def passphrase_file_option(command: _Function) -> _Function:
    """Add `--passphrase-file`; the command gets `passphrase_file`, a path, "-" or None."""
    return click.option(
        "--passphrase-file",
        metavar="FILE",
        envvar="DTP_PASSPHRASE_FILE",
        help="Take the passphrase from the first line of FILE ('-': standard input). "
        "[default: $DTP_PASSPHRASE_FILE, else asked for]",
    )(command)


def identity_options(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add the option `names` (such as "--identity", "-i") and `--passphrase-file`.

    The command gets one argument for both, `identity: IdentitySource`.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def run(*args: Any, identity: Path | None, passphrase_file: str | None, **options: Any) -> Any:
            source = IdentitySource(identity or config.identity_path(), passphrase_file)
            return command(*args, identity=source, **options)

        option = click.option(
            *names,
            "identity",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="The identity file. [default: $DTP_IDENTITY, else identity.pem in the settings folder]",
        )
        return option(passphrase_file_option(run))

    return decorate


def read_passphrase_file(name: str) -> bytes:
    """The first line of the file `name` ("-": standard input), without its end. Raises `ConfigError`."""
    try:
        if name == "-":
            line = _first_line(sys.stdin.buffer)
        else:
            with open(name, "rb") as file:
                line = _first_line(file)
    except OSError as error:
        raise ConfigError(f"can't read the passphrase file {name}: {error.strerror or error}") from error
    if not line:
        raise ConfigError(f"the first line of the passphrase file {name} is empty")
    if len(line) > _MAX_PASSPHRASE_SIZE:
        raise ConfigError(
            f"the first line of {name} is longer than {_MAX_PASSPHRASE_SIZE} bytes; is it the right file?"
        )
    return line


def _first_line(file: IO[bytes]) -> bytes:
    return file.readline(_MAX_PASSPHRASE_SIZE + 2).rstrip(b"\r\n")


def has_terminal() -> bool:
    """Whether somebody can be asked."""
    return sys.stdin.isatty() and sys.stderr.isatty()
