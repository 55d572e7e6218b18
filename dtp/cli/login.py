"""`dtp login`: names and passwords, and the server that keeps accounts without knowing any."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from dtp.cli.account import load_account, save_account
from dtp.cli.accounts import WalletOptions
from dtp.cli.groups import CommandGroup
from dtp.cli.listening import Listening, listening_options
from dtp.cli.options import (
    IdentitySource,
    has_terminal,
    identity_options,
    parse_address,
    read_passphrase_file,
    verbose_option,
)
from dtp.cli.output import json_option, print_note, print_result, wants_json
from dtp.cli.run import run, serve_for_long
from dtp.cli.selling import Sale
from dtp.cli.serve import serve_services
from dtp.cli.services import NamedService, ServiceDirectory
from dtp.config import data_dir
from dtp.errors import LocalError
from dtp.identity import Account as KeyAccount
from dtp.identity import Card
from dtp.messaging.login.client import LoginSession, recover_account, register_account
from dtp.messaging.login.client import login as log_in
from dtp.messaging.login.conversation import REGISTRATIONS
from dtp.messaging.login.limits import LoginLimits
from dtp.messaging.login.names import check_new_password, make_recovery_code, normalize_name
from dtp.messaging.login.protocol import LOGIN_SERVICE
from dtp.messaging.login.service import LoginService
from dtp.messaging.login.store import LoginStore, invitation_hash
from dtp.messaging.login.vault import Setting
from dtp.net.address import Address
from dtp.net.connection import Connection
from dtp.net.stream import Stream
from dtp.plurals import count_of

#: No price.
_FREE = Sale(None, None, None, None, (), None, False, None, None, WalletOptions(None, None, None, None))
_DAY = 86_400
#: The setting of a vault that has the account's card.
_CARD = "card"


class Logins(NamedService):
    """Answers requests of those who register and log in."""

    kind = "login"

    def __init__(self, name: str, made: LoginService) -> None:
        super().__init__(name, "")
        self._service = made

    async def serve_stream(self, connection: Connection, stream: Stream, below: str) -> None:
        """Serve one stream of requests, until its caller has enough."""
        await self._service.answer_stream(connection, stream)


@click.group(cls=CommandGroup)
def login() -> None:
    """Names and passwords, for people who use another wallet each time.

    The server never learns a password (OPAQUE), and keeps for each account a vault that it can't open: identity,
    wallets, settings.
    """


def _store_options(command: Any) -> Any:
    for decorate in (
        click.option("--store", type=click.Path(dir_okay=False), metavar="FILE",
                     help="Where accounts are kept. [default: logins.sqlite in the data folder's folder 'login']"),
        click.option("--secrets", type=click.Path(dir_okay=False), metavar="FILE",
                     help="Where the server's secrets are kept, best not where backups of --store are. [default: "
                     "--store with .key behind it]"),
    ):  # fmt: skip
        command = decorate(command)
    return command


def _store_path(store: str | None) -> Path:
    return Path(store) if store else data_dir() / "login" / "logins.sqlite"


def _open_store(store: str | None, secrets: str | None, limits: LoginLimits | None = None) -> LoginStore:
    return LoginStore(_store_path(store), limits, secrets=secrets)


@login.command()
@_store_options
@click.option("--registration", type=click.Choice(REGISTRATIONS), default="open", show_default=True,
              help="Who may make an account.")  # fmt: skip
@click.option("--accounts", type=click.IntRange(min=1), default=LoginLimits().accounts, show_default=True,
              help="Accounts that there are, at most.")  # fmt: skip
@listening_options
@verbose_option
@json_option
def serve(
    store: str | None, secrets: str | None, registration: Any, accounts: int, listening: Listening
) -> None:
    """Serve logins, and print the address to log in at. Ctrl-C ends it.

    \b
    Examples:
      dtp login serve --listen tcp://0.0.0.0:9700
      dtp login serve --store /srv/logins.sqlite --secrets /etc/dtp/logins.key --registration invited
    """
    serve_for_long()
    listening.keep_identity()
    run(_serve(_open_store(store, secrets, LoginLimits(accounts=accounts)), registration, listening))


async def _serve(store: LoginStore, registration: Any, listening: Listening) -> None:
    made = LoginService(store, listening.identity.id, registration=registration)
    service = Logins(LOGIN_SERVICE, made)
    try:
        made.begin()
        await serve_services(ServiceDirectory([service]), [service], _FREE, listening, None)
    finally:
        await made.stop()
        store.close()


@login.command()
@_store_options
@click.option("--name", default="", help="The name that it is for. [default: any]")
@click.option(
    "--days", type=click.IntRange(1, 366), default=14, show_default=True, help="How long it is good."
)
@verbose_option
@json_option
def invite(store: str | None, secrets: str | None, name: str, days: int) -> None:
    """Make an invitation for one account, for a server with --registration invited."""
    code, expires = make_recovery_code(), int(time.time()) + days * _DAY
    if not (path := _store_path(store)).exists():
        print_note({"made": str(path)}, f"there were no logins yet; 'dtp login serve' with {path} takes it")
    kept = _open_store(store, secrets)
    try:
        kept.add_invitation(invitation_hash(code), normalize_name(name) if name else "", expires)
    finally:
        kept.close()
    print_result({"invitation": code, "name": name, "expires": expires}, code)


def _client_options(command: Any) -> Any:
    for decorate in (
        click.argument("address", callback=parse_address),
        click.argument("name"),
        click.option("--password-file", metavar="FILE", help="A file whose first line is the password; '-' is "
                     "standard input. [default: it is asked for]"),
        click.option("--save", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
                     help="Write the account's identity into a new identity file."),
        identity_options("--identity", "-i"),
        verbose_option,
        json_option,
    )[::-1]:  # fmt: skip
        command = decorate(command)
    return command


def _read(file: str | None, question: str, *, confirm: bool = False) -> str:
    if file is not None:
        try:
            return read_passphrase_file(file).decode()
        except UnicodeDecodeError:
            raise click.UsageError(f"{file} is not UTF-8 text") from None
    if not has_terminal():
        raise click.UsageError(
            f"{question.lower()} is asked for at a terminal and there is none; name a file"
        )
    answer: str = click.prompt(question, hide_input=True, confirmation_prompt=confirm, err=True)
    return answer


def _come_as(identity: IdentitySource) -> dict[str, Any]:
    """Return the device's identity, if it has one: so it is known at the next login."""
    return {"identity": identity.load_identity()} if identity.named or identity.path.exists() else {}


def _save(session: LoginSession, file: Path) -> None:
    """Write the account's key, and its card where the vault has one, as `dtp account` and `dtp card` read them."""
    session.identity.save(file)
    card = session.settings.get(_CARD)
    if isinstance(card, bytes):
        save_account(str(file), KeyAccount(session.identity, Card.parse(card)))


def _shown(value: Setting) -> str | int | bool:
    return count_of(len(value), "byte") if isinstance(value, bytes) else value


def _open(
    opening: Callable[[], Coroutine[Any, Any, LoginSession]], save: Path | None, then: Any = None
) -> None:
    async def work() -> dict[str, Any]:
        async with await opening() as session:
            if then is not None:
                await then(session)
            if save is not None:
                await asyncio.to_thread(_save, session, save)
            return {
                "name": session.name,
                "identity": str(session.identity.id),
                "account": session.identity.id.sui_address,
                "wallets": session.wallets,
                "settings": {name: _shown(value) for name, value in session.settings.items()},
                "until": session.until,
                **({"recovery_code": session.recovery_code} if session.recovery_code else {}),
            }

    record = run(work())
    until = datetime.fromtimestamp(record["until"], UTC)
    shown = {
        **{name: value for name, value in record.items() if value},
        "until": f"{until:%Y-%m-%d %H:%M} UTC",
    }
    print_result(record if wants_json() else shown)
    if "recovery_code" in record:
        note = "write the recovery code down: it opens the account without the password, and is shown once"
        print_note({"note": note}, note)


@login.command()
@_client_options
@click.option("--invitation", default="", metavar="CODE", help="What the server's operator has given you.")
@click.option("--key", "-k", "key", type=click.Path(dir_okay=False, exists=True), metavar="FILE",
              help="Your account's key, see 'dtp account create': it is the identity then, and its card goes along. "
              "[default: a new identity]")  # fmt: skip
def register(
    address: Address,
    name: str,
    password_file: str | None,
    save: Path | None,
    identity: IdentitySource,
    invitation: str,
    key: str | None,
) -> None:
    """Make an account at the server at ADDRESS, and log in to it.

    With --key, 'dtp login open --save FILE' has what 'dtp card link-wallet --key FILE' needs to tie another wallet
    to it, on any machine.
    """
    password = check_new_password(_read(password_file, "New password", confirm=True))
    _refuse_existing(save)
    who = _come_as(identity)
    if key is not None:
        own = load_account(key)
        who |= {"account": own.identity, "settings": {_CARD: own.card.encode()}}
    _open(lambda: register_account(address, name, password, invitation=invitation, **who), save)


@login.command("open")
@_client_options
@click.option("--accept-older", is_flag=True, help="Take a vault that is older than one that was seen here.")
def open_(
    address: Address,
    name: str,
    password_file: str | None,
    save: Path | None,
    identity: IdentitySource,
    accept_older: bool,
) -> None:
    """Log in at ADDRESS, and show the contents of the account's vault."""
    _refuse_existing(save)
    password, who = _read(password_file, "Password"), _come_as(identity)
    _open(lambda: log_in(address, name, password, accept_older=accept_older, **who), save)


@login.command("change-password")
@_client_options
@click.option("--new-password-file", metavar="FILE", help="A file whose first line is the new one. [default: it is "
              "asked for]")  # fmt: skip
@click.option("--renew", is_flag=True, help="Make a new recovery code and a new key of the vault, too.")
def change_password(
    address: Address,
    name: str,
    password_file: str | None,
    save: Path | None,
    identity: IdentitySource,
    new_password_file: str | None,
    renew: bool,
) -> None:
    """Change the password. All other logins to the account end."""
    _refuse_existing(save)
    password = _read(password_file, "Password")
    new = check_new_password(_read(new_password_file, "New password", confirm=True))
    who = _come_as(identity)

    async def change(session: LoginSession) -> None:
        await (session.renew(new) if renew else session.change_password(new))

    _open(lambda: log_in(address, name, password, **who), save, change)


@login.command()
@_client_options
@click.option("--code-file", metavar="FILE", help="A file whose first line is the recovery code. [default: it is "
              "asked for]")  # fmt: skip
def recover(
    address: Address,
    name: str,
    password_file: str | None,
    save: Path | None,
    identity: IdentitySource,
    code_file: str | None,
) -> None:
    """Log in by the recovery code, and get a new password and a new code."""
    _refuse_existing(save)
    code = _read(code_file, "Recovery code")
    new, who = check_new_password(_read(password_file, "New password", confirm=True)), _come_as(identity)
    _open(lambda: recover_account(address, name, code, new, **who), save)


def _refuse_existing(save: Path | None) -> None:
    """Raise `LocalError` if the file exists, before anything is done that can't be done twice."""
    if save is not None and save.exists():
        raise LocalError(f"{save} exists, and is left as it is: name another file")
