"""OPAQUE (RFC 9807) by `opaque-snake`: the only module that uses the library. Bytes in, bytes out.

ristretto255, SHA-512, 3DH; Argon2id with 19 MiB and 2 passes on the client.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Callable
from typing import Any, Final, TypeVar

from dtp.messaging.errors import StoreFailed
from dtp.messaging.login.errors import LoginError, LoginFailed, LoginMalformed

try:
    import opaque_snake as _opaque
except ImportError as fault:  # an extra
    raise LoginError("logins need the extra 'login': pip install 'dtp-sockets[login]'") from fault

_T = TypeVar("_T")

#: The exact size of each message, in bytes. The library accepts longer ones, and ignores the rest.
REGISTRATION_REQUEST: Final = 32
REGISTRATION_RESPONSE: Final = 64
RECORD: Final = 192
LOGIN_REQUEST: Final = 96
LOGIN_RESPONSE: Final = 320
FINALIZATION: Final = 64
#: Bytes of a server's secrets: the library's own, and the record of no account.
_SETUP: Final = 128
SECRETS: Final = _SETUP + RECORD


def _parse(kind: Any, data: bytes, size: int) -> Any:
    if len(data) != size:
        raise LoginMalformed(f"a message of OPAQUE with {len(data)} bytes instead of {size}")
    try:
        return kind.from_bytes(data)
    except _opaque.SerializationError:
        raise LoginMalformed("a malformed message of OPAQUE") from None


def _translated(work: Callable[..., _T], *arguments: Any) -> _T:
    try:
        return work(*arguments)
    except _opaque.AuthenticationError:
        raise LoginFailed("the name or the password is wrong") from None
    except _opaque.OpaqueError as fault:
        raise LoginMalformed(f"a malformed message of OPAQUE: {fault}") from None


class ServerSecrets:
    """A server's secrets: the seed of all accounts' keys, its own key pair, and a record that belongs to no
    account.

    Who has both these secrets and the records can guess passwords, with one Argon2 per guess. One of them alone
    isn't enough.
    """

    def __init__(self, encoded: bytes) -> None:
        """Decode the secrets. Raise `StoreFailed`."""
        if len(encoded) != SECRETS:
            raise StoreFailed(f"secrets of a login server have {SECRETS} bytes, not {len(encoded)}")
        try:
            self._server = _opaque.OpaqueServer(encoded[:_SETUP])
            _opaque.PasswordFile.from_bytes(encoded[_SETUP:])
        except _opaque.OpaqueError:
            raise StoreFailed("these aren't secrets of a login server") from None
        self.encoded = encoded
        #: The record with which logins to accounts that don't exist are answered. The answer looks like any other.
        self.nobody = encoded[_SETUP:]

    @classmethod
    def generate(cls) -> ServerSecrets:
        """Return new secrets."""
        server = _opaque.OpaqueServer()
        client = Registration(os.urandom(32).hex())
        response = _respond(server, client.request, "")
        upload, _ = client.finish(response)
        return cls(server.export_setup() + upload)

    def respond_to_registration(self, request: bytes, credential: str) -> bytes:
        """Return the response that a client needs for making its record. Raise `LoginMalformed`."""
        return _respond(self._server, request, credential)

    def check_record(self, upload: bytes) -> bytes:
        """Return the record to keep, from a client's upload. Raise `LoginMalformed`."""
        parsed = _parse(_opaque.RegistrationUpload, upload, RECORD)
        kept: bytes = _translated(self._server.finish_registration, parsed).to_bytes()
        return kept

    def begin_login(self, request: bytes, credential: str, record: bytes) -> ServerLogin:
        """Begin a login with the password of `record`. Raise `LoginMalformed`."""
        asked = _parse(_opaque.CredentialRequest, request, LOGIN_REQUEST)
        kept = _parse(_opaque.PasswordFile, record, RECORD)
        response, state = _translated(self._server.create_credential_response, asked, credential, kept)
        return ServerLogin(self._server, response.to_bytes(), state)


def _respond(server: Any, request: bytes, credential: str) -> bytes:
    asked = _parse(_opaque.RegistrationRequest, request, REGISTRATION_REQUEST)
    response: bytes = _translated(server.create_registration_response, asked, credential).to_bytes()
    return response


class ServerLogin:
    """The server's side of a login that has begun. `response` is for the client. It can be finished once."""

    def __init__(self, server: Any, response: bytes, state: Any) -> None:
        self._server, self.response, self._state = server, response, state

    def finish(self, finalization: bytes) -> bytes:
        """Return the session key, which the client has as well, 64 bytes. Raise `LoginFailed` or `LoginMalformed`."""
        parsed = _parse(_opaque.CredentialFinalization, finalization, FINALIZATION)
        key: bytes = _translated(self._server.finish_login, parsed, self._state).session_key
        return key


class Registration:
    """The client's side of making a record. `request` is for the server. It can be finished once."""

    def __init__(self, password: str) -> None:
        self._password = password
        request, self._state = _opaque.OpaqueClient().start_registration(password)
        self.request: bytes = request.to_bytes()

    def finish(self, response: bytes) -> tuple[bytes, bytes]:
        """Return the record, and the export key, which only the password yields, 64 bytes. Raise `LoginMalformed`."""
        parsed = _parse(_opaque.RegistrationResponse, response, REGISTRATION_RESPONSE)
        client = _opaque.OpaqueClient()
        result = _translated(client.finish_registration, parsed, self._state, self._password)
        return result.upload.to_bytes(), result.export_key


class OpaqueLogin:
    """The client's side of a login. `request` is for the server. It can be finished once."""

    def __init__(self, password: str) -> None:
        self._password = password
        request, self._state = _opaque.OpaqueClient().start_login(password)
        self.request: bytes = request.to_bytes()

    def finish(self, response: bytes) -> tuple[bytes, bytes, bytes]:
        """Return the last message for the server, the session key, and the export key, which only the password
        yields.

        Raise `LoginFailed` or `LoginMalformed`.
        """
        parsed = _parse(_opaque.CredentialResponse, response, LOGIN_RESPONSE)
        client = _opaque.OpaqueClient()
        result = _translated(client.finish_login, parsed, self._state, self._password)
        keys = result.session_keys
        assert keys.export_key is not None, "a client's login gives it"
        return result.finalization.to_bytes(), keys.session_key, keys.export_key


def make_proof(session_key: bytes, who: bytes, *parts: bytes) -> bytes:
    """Return the proof that an end (`who`) has the session key, 32 bytes. `parts` name both identities of the
    connection, so a server can't pass the proof on to another one.
    """
    told = b"".join(len(each).to_bytes(2, "big") + each for each in (b"dtp.login.v1", who, *parts))
    return hmac.digest(session_key, told, "sha256")
