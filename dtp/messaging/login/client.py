"""The client of logins: `login`, `register_account`, `recover_account`, and the session that they return."""

from __future__ import annotations

import hmac
import os
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from dtp.config import data_dir
from dtp.errors import CarrierError, DtpError
from dtp.identity import Identity, PeerId
from dtp.messaging.login.errors import LoginFailed, LoginMalformed, VaultBroken, VaultRolledBack
from dtp.messaging.login.names import (
    check_new_password,
    make_recovery_code,
    normalize_name,
    normalize_password,
    normalize_recovery_code,
)
from dtp.messaging.login.opaque import OpaqueLogin, Registration, make_proof
from dtp.messaging.login.protocol import (
    MAX_MESSAGE,
    Credential,
    LoginOp,
    LoginRefused,
    Refusal,
    Slot,
    parse_answer,
    registration_statement,
)
from dtp.messaging.login.seen import SeenVaults
from dtp.messaging.login.vault import Setting, Vault, make_key, unwrap_key, wrap_key
from dtp.messaging.packing import is_number, pack_frame, read_frame
from dtp.net.address import Address
from dtp.net.dial import connect
from dtp.net.stream import Stream
from dtp.unicode import encode_text

#: The file that remembers versions of vaults: a path, True for the default one, False for none.
Remember = str | os.PathLike[str] | bool


class LoginGone(CarrierError):
    """The connection to a login server is closed. Whether the last request was carried out isn't known: log in
    again.
    """

    code = "login-gone"


class _Wire:
    """A stream of requests to a login server."""

    def __init__(self, stream: Stream, identity: Identity) -> None:
        self._stream, self.identity = stream, identity
        self.server: PeerId = stream.connection.peer

    @classmethod
    async def connect(
        cls, address: Address | str, identity: Identity | None, options: dict[str, Any]
    ) -> Self:
        who = identity or Identity.generate()
        connection = await connect(address, identity=who, **options)
        return cls(await connection.open_stream(), who)

    async def send_request(self, op: LoginOp, *fields: object) -> list[Any]:
        """Return the fields of the answer. Raise `LoginRefused`, `LoginMalformed` or `LoginGone`."""
        try:
            self._stream.write(pack_frame(int(op), *fields))
            await self._stream.drain()
            body = await read_frame(self._stream, MAX_MESSAGE, LoginMalformed)
        except LoginMalformed:
            raise
        except DtpError as fault:
            raise LoginGone(f"the login server is gone: {fault}") from fault
        if not body:
            raise LoginGone("the login server has ended the conversation")
        return parse_answer(body)

    async def close(self) -> None:
        await self._stream.connection.close()

    async def make_credential(self, name: str, slot: Slot, password: str, vault_key: bytes) -> Credential:
        """Return a credential of an account for a password or recovery code."""
        registration = Registration(password)
        match await self.send_request(LoginOp.REGISTER_START, name, int(slot), registration.request):
            case [bytes(response), *_]:
                record, export_key = registration.finish(response)
                return Credential(slot, record, wrap_key(vault_key, export_key, name, slot))
        raise LoginMalformed("an answer without the response to a registration")


@dataclass(frozen=True, slots=True)
class _Opened:
    """The result of a login."""

    vault: Vault
    key: bytes
    until: int


class LoginSession:
    """A login to an account. The account's vault is open, and the connection stays until `close`.

    `async with` closes it. The login at the server lasts until `until`, or until `log_out`.
    """

    def __init__(self, wire: _Wire, name: str, opened: _Opened, seen: SeenVaults | None) -> None:
        self._wire, self.name, self._seen = wire, name, seen
        self.vault, self._key, self.until = opened.vault, opened.key, opened.until
        #: The recovery code that a registration, a recovery or `renew` has made; "" otherwise. Show it once.
        self.recovery_code = ""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"LoginSession({self.name!r}, {self.identity.id})"

    @property
    def identity(self) -> Identity:
        """The account's identity, the same wherever it logs in."""
        return self.vault.identity

    @property
    def server(self) -> PeerId:
        """The login server."""
        return self._wire.server

    @property
    def wallets(self) -> dict[str, str]:
        """The account's wallets, as addresses with the names that the owner gave. A copy; `save` changes them."""
        return dict(self.vault.wallets)

    @property
    def settings(self) -> dict[str, Setting]:
        """The account's settings. A copy; `save` changes them."""
        return dict(self.vault.settings)

    async def close(self) -> None:
        """Close the connection. Idempotent. The login lasts until `until`."""
        if self._seen is not None:
            self._seen.close()
        await self._wire.close()

    async def refresh(self) -> None:
        """Read the vault again, since it may have been changed from elsewhere. Raise `VaultRolledBack`."""
        match await self._wire.send_request(LoginOp.GET_VAULT):
            case [int(version), bytes(sealed), *_]:
                vault = _open_vault(sealed, version, self._key, self.name)
                if vault.version < self.vault.version:
                    raise VaultRolledBack(vault.version, self.vault.version)
                self._set_vault(vault)
                return
        raise LoginMalformed("an answer without a vault")

    async def save(
        self, *, wallets: dict[str, str] | None = None, settings: dict[str, Setting] | None = None
    ) -> None:
        """Change the vault; what isn't given stays. It is on the server's disk when this returns.

        Raise `LoginRefused` with `Refusal.OTHER_VERSION` if the vault was changed from elsewhere: `refresh` first.
        """
        vault = self.vault.with_changes(wallets=wallets, settings=settings)
        await self._wire.send_request(LoginOp.PUT_VAULT, vault.version, vault.seal(self._key, self.name))
        self._set_vault(vault)

    async def change_password(self, new: str) -> None:
        """Change the password; the recovery code stays valid. All other logins end."""
        password = check_new_password(new)
        credential = await self._wire.make_credential(self.name, Slot.PASSWORD, password, self._key)
        await self._set_credentials([credential], self.vault.with_changes(), self._key)

    async def renew(self, new: str) -> str:
        """Change the password, the recovery code and the key of the vault, for when somebody else may have the old
        ones. Return the new recovery code. All other logins end.
        """
        password, code, key = check_new_password(new), make_recovery_code(), make_key()
        credentials = await _both(self._wire, self.name, password, code, key)
        await self._set_credentials(credentials, self.vault.with_changes(), key)
        self.recovery_code = code
        return code

    async def _set_credentials(self, credentials: list[Credential], vault: Vault, key: bytes) -> None:
        rows = [each.to_row() for each in credentials]
        await self._wire.send_request(
            LoginOp.SET_CREDENTIALS, rows, vault.version, vault.seal(key, self.name)
        )
        self._key = key
        self._set_vault(vault)

    async def log_out(self, *, everywhere: bool = False) -> None:
        """Log out this connection's key, or all keys of the account. The vault stays open in this object."""
        await self._wire.send_request(LoginOp.LOG_OUT, int(everywhere))

    async def delete_account(self) -> None:
        """Have the server delete the account and its vault. This can't be undone."""
        await self._wire.send_request(LoginOp.LEAVE)
        if self._seen is not None:
            self._seen.forget_account(self.server, self.name)

    def _set_vault(self, vault: Vault) -> None:
        self.vault = vault
        if self._seen is not None:
            self._seen.note_version(self.server, self.name, vault.version)


async def login(
    address: Address | str,
    name: str,
    password: str,
    *,
    identity: Identity | None = None,
    seconds: int = 0,
    remember: Remember = True,
    accept_older: bool = False,
    **options: Any,
) -> LoginSession:
    """Log in to an account by its name and password, and open its vault. The server never learns the password.

    `identity` is the one that this device's connection proves, for example a wallet's key; by default it is a new
    one for this login. It stays logged in for `seconds` (0 for the server's default), and so does the account's own
    identity. `remember` keeps the newest version of the vault, so that an older one is noticed: see `Remember`.

    Raise `LoginFailed` for a wrong name or password, `LoginRefused`, `VaultRolledBack` unless `accept_older`, and
    what `dtp.net.dial.connect` raises, which is given `options`. This computes for 50 ms (Argon2), and blocks the
    loop meanwhile.
    """
    name, password = normalize_name(name), normalize_password(password)
    wire = await _Wire.connect(address, identity, options)
    return await _session(wire, name, Slot.PASSWORD, password, seconds, remember, accept_older)


async def register_account(
    address: Address | str,
    name: str,
    password: str,
    *,
    invitation: str = "",
    account: Identity | None = None,
    wallets: dict[str, str] | None = None,
    settings: dict[str, Setting] | None = None,
    identity: Identity | None = None,
    seconds: int = 0,
    remember: Remember = True,
    **options: Any,
) -> LoginSession:
    """Create an account and log in to it. The session's `recovery_code` opens the account without the password:
    show it once.

    `account` is the account's identity, a new one by default. Raise `NameUnusable`, `LoginRefused` with for example
    `Refusal.NAME_TAKEN`, and what `login` raises.
    """
    name, password, code = normalize_name(name), check_new_password(password), make_recovery_code()
    vault = Vault(account or Identity.generate(), dict(wallets or {}), dict(settings or {}))
    wire = await _Wire.connect(address, identity, options)
    try:
        key = make_key()
        sealed = vault.seal(key, name)
        credentials = await _both(wire, name, password, code, key)
        signature = vault.identity.sign(registration_statement(wire.server.key, name, credentials, sealed))
        rows = [each.to_row() for each in credentials]
        who = vault.identity.id.key
        await wire.send_request(
            LoginOp.REGISTER,
            name,
            encode_text(invitation.strip(), "the invitation"),
            who,
            signature,
            rows,
            sealed,
        )
    except BaseException:
        await wire.close()
        raise
    session = await _session(wire, name, Slot.PASSWORD, password, seconds, remember, accept_older=True)
    session.recovery_code = code
    return session


async def recover_account(
    address: Address | str,
    name: str,
    code: str,
    new_password: str,
    *,
    identity: Identity | None = None,
    seconds: int = 0,
    remember: Remember = True,
    accept_older: bool = False,
    **options: Any,
) -> LoginSession:
    """Log in with the recovery code, and set a new password. The code is replaced by a new one, the session's
    `recovery_code`.

    Raise what `login` raises.
    """
    name, code, new = normalize_name(name), normalize_recovery_code(code), check_new_password(new_password)
    wire = await _Wire.connect(address, identity, options)
    session = await _session(wire, name, Slot.RECOVERY, code, seconds, remember, accept_older)
    try:
        await session.renew(new)
    except BaseException:
        await session.close()
        raise
    return session


async def _both(wire: _Wire, name: str, password: str, code: str, key: bytes) -> list[Credential]:
    return [
        await wire.make_credential(name, Slot.PASSWORD, password, key),
        await wire.make_credential(name, Slot.RECOVERY, normalize_recovery_code(code), key),
    ]


async def _session(
    wire: _Wire, name: str, slot: Slot, password: str, seconds: int, remember: Remember, accept_older: bool
) -> LoginSession:
    """Log in through a connection, which is closed if that fails."""
    seen: SeenVaults | None = None
    try:
        if remember is not False:
            seen = SeenVaults(data_dir() / "logins.sqlite" if remember is True else remember)
        opened = await _log_in(wire, name, slot, password, seconds)
        if seen is not None:
            known = seen.seen_version(wire.server, name)
            if opened.vault.version < known and not accept_older:
                raise VaultRolledBack(opened.vault.version, known)
            seen.note_version(wire.server, name, opened.vault.version)
    except BaseException:
        if seen is not None:
            seen.close()
        await wire.close()
        raise
    return LoginSession(wire, name, opened, seen)


async def _log_in(wire: _Wire, name: str, slot: Slot, password: str, seconds: int) -> _Opened:
    login = OpaqueLogin(password)
    match await wire.send_request(LoginOp.LOGIN_START, name, int(slot), login.request):
        case [bytes(response), *_]:
            finalization, session_key, export_key = login.finish(response)
        case _:
            raise LoginMalformed("an answer without the response to a login")
    ends = (wire.server.key, wire.identity.id.key, name.encode())
    try:
        told = await wire.send_request(
            LoginOp.LOGIN_FINISH, finalization, make_proof(session_key, b"client", *ends), seconds
        )
    except LoginRefused as fault:
        if fault.refusal is Refusal.FAILED:  # the account has changed since, or somebody is in the middle
            raise LoginFailed("the name or the password is wrong") from fault
        raise
    match told:
        case [bytes(proof), bytes(identity), bytes(wrapped), int(version), bytes(sealed), until, *_] if (
            is_number(until)
        ):
            if not hmac.compare_digest(proof, make_proof(session_key, b"server", *ends)):
                raise LoginMalformed("the server has not proven that it has the key of this login")
            key = unwrap_key(wrapped, export_key, name, slot)
            vault = _open_vault(sealed, version, key, name)
            if vault.identity.id.key != identity:
                raise VaultBroken("the server has another identity for the account than its vault")
            return _Opened(vault, key, until)
    raise LoginMalformed("an answer without an account")


def _open_vault(sealed: bytes, version: int, key: bytes, name: str) -> Vault:
    vault = Vault.open(sealed, key, name)
    if vault.version != version:
        raise VaultBroken(f"the server says version {version} of a vault that is version {vault.version}")
    return vault
