"""Options that several commands share: which identity, whom to let in, which pre-shared key, what to log."""

from __future__ import annotations

import functools
import logging
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

import click

from dtp import config
from dtp.cli.output import print_result
from dtp.errors import ConfigError
from dtp.escaping import LineFormatter
from dtp.identity import Identity, PassphraseNeeded, PeerId
from dtp.identity.private import open_to_others, read_private_file

if TYPE_CHECKING:
    from dtp.net.address import Address

log = logging.getLogger("dtp.cli")

_Function = TypeVar("_Function", bound=Callable[..., Any])
_MAX_PASSPHRASE_SIZE = 4096
_PSK_SIZE = 32


@dataclass(frozen=True)
class IdentitySource:
    """Where the identity of a command comes from; loaded, and a passphrase asked for, when it is used."""

    #: The file; need not exist.
    path: Path
    #: The file whose first line is the passphrase, "-" for standard input; None to ask at the terminal.
    passphrase_file: str | None = None
    #: Whether somebody named the file; else it is the default one.
    named: bool = True
    #: How somebody says where the passphrase is.
    instead: str = "give --passphrase-file or $DTP_PASSPHRASE_FILE"

    def load_identity(self) -> Identity:
        """Return the identity. Raises `IdentityFileError` and `ConfigError`."""
        return Identity.load(self.path, self.ask_passphrase)

    def load_or_make(self) -> Identity:
        """Return the identity; a new one for this run where none was named and the default file isn't there.

        Raises `IdentityFileError` and `ConfigError`.
        """
        if self.named or self.path.exists():
            return self.load_identity()
        return Identity.generate()

    def load_if_named(self) -> Identity:
        """Return the identity, where somebody named its file; else a new one for this run. Raise as `load_identity`
        does."""
        return self.load_identity() if self.named else Identity.generate()

    def ask_passphrase(self) -> bytes:
        """Return the passphrase of an encrypted file, from `passphrase_file` or from the terminal.

        Raises `PassphraseNeeded` where there is no terminal to ask at.
        """
        if self.passphrase_file is not None:
            return read_passphrase_file(self.passphrase_file)
        if not has_terminal():
            raise PassphraseNeeded(
                f"{self.path} is encrypted and there is no terminal to ask at; {self.instead}"
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
            named = identity is not None or bool(os.environ.get("DTP_IDENTITY"))
            source = IdentitySource(identity or config.identity_path(), passphrase_file, named)
            return command(*args, identity=source, **options)

        option = click.option(
            *names,
            "identity",
            type=click.Path(path_type=Path, readable=False),  # what can't be read says so when it is loaded
            metavar="FILE",
            help="The identity file. [default: $DTP_IDENTITY, else identity.pem in the settings folder]",
        )
        return option(passphrase_file_option(run))

    return decorate


def read_passphrase_file(name: str) -> bytes:
    """Return the first line of the file `name` ("-": standard input), without its end. Raises `ConfigError`."""
    try:
        if name == "-":
            line = _first_line(sys.stdin.buffer)
        else:
            with open(name, "rb") as file:
                if close := open_to_others(os.fstat(file.fileno())):
                    log.warning("%s holds a secret and may be read by others: %s %s", name, close, name)
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
    """True if somebody can be asked."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def psk_file_option(command: _Function) -> _Function:
    """Add `--psk-file`; the command gets `psk`, 32 bytes or None."""
    return click.option(
        "--psk-file",
        "psk",
        metavar="FILE",
        envvar="DTP_PSK_FILE",
        callback=lambda ctx, param, name: None if name is None else read_psk_file(name),
        help="A key that both sides hold besides their identities: 64 hex digits ('openssl rand -hex 32'). "
        "[default: $DTP_PSK_FILE]",
    )(command)


def read_psk_file(name: str) -> bytes:
    """Return the pre-shared key in the file `name`, 32 bytes. No message quotes the file.

    Raises `ConfigError`, `OpenToOthers`.
    """
    try:
        text = read_private_file(name, 4 * _PSK_SIZE).strip()
    except OSError as error:
        raise ConfigError(f"can't read the key file {name}: {error.strerror or error}") from error
    try:
        key = bytes.fromhex(text.decode("ascii"))
    except ValueError:
        key = b""
    if len(key) != _PSK_SIZE:
        raise ConfigError(f"{name} has to hold 64 hex digits, such as 'openssl rand -hex 32' prints")
    return key


def parse_limits(changes: Iterable[str]) -> dict[str, int | None]:
    """Return what arguments such as NAME=NUMBER say, None for NAME=none. Raise `click.UsageError`."""
    told: dict[str, int | None] = {}
    for one in changes:
        name, equals, number = one.partition("=")
        if not equals or not (number == "none" or (number.isascii() and number.isdecimal())):
            raise click.UsageError(f"{one!r} is not NAME=NUMBER or NAME=none")
        told[name] = None if number == "none" else int(number)
    return told


def show_limits(limits: Mapping[str, int | None]) -> None:
    """Print limits by name."""
    print_result(
        dict(limits), "\n".join(f"{name}: {'none' if n is None else n}" for name, n in limits.items())
    )


def allow_option(command: _Function) -> _Function:
    """Add `--allow` (repeatable); the command gets `allow`, a set of identities, empty for everyone."""
    return click.option(
        "--allow",
        multiple=True,
        metavar="DTP1...",
        callback=lambda ctx, param, texts: frozenset(map(PeerId.parse, texts)),
        help="Let only this identity in; may be repeated. [default: everyone]",
    )(command)


def verbose_option(command: _Function) -> _Function:
    """Add `-v`: once for what happens to connections, twice for everything."""

    def set_up(ctx: click.Context, param: click.Parameter, count: int) -> None:
        if count:
            level = logging.INFO if count == 1 else logging.DEBUG
            handler = logging.StreamHandler()
            handler.setFormatter(LineFormatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
            logging.basicConfig(level=level, handlers=[handler])

    return click.option(
        "-v", "--verbose", count=True, expose_value=False, callback=set_up, help="Log; -vv logs everything."
    )(command)


def parse_address(ctx: click.Context, param: click.Parameter, text: str | None) -> Address | None:
    """Return the `Address` of an ADDRESS argument, as its callback. `AddressError` says what is wrong."""
    from dtp.net.address import Address

    return None if text is None else Address.parse(text)


#: The ADDRESS argument of a command; it gets an `Address`.
address_argument = click.argument("address", metavar="ADDRESS", callback=parse_address)
