"""OPAQUE (RFC 9807) by `opaque-snake`: the one file that knows the library. Bytes in, bytes out.

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
    raise LoginError("logins take the extra 'login': pip install 'dtp-sockets[login]'") from fault

_T = TypeVar("_T")

#: Bytes of each message. The library takes longer ones, and ignores what is behind.
REGISTRATION_REQUEST: Final = 32
REGISTRATION_RESPONSE: Final = 64
RECORD: Final = 192
LOGIN_REQUEST: Final = 96
LOGIN_RESPONSE: Final = 320
FINALIZATION: Final = 64
#: Bytes of a server's secrets: the library's, and a record of nobody.
_SETUP: Final = 128
SECRETS: Final = _SETUP + RECORD


def _parse(kind: Any, data: bytes, size: int) -> Any:
    if len(data) != size:
        raise LoginMalformed(f"a message of OPAQUE with {len(data)} bytes; it has {size}")
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
    """A server's keys: the seed of all accounts' keys, its own key pair, and a record of nobody.

    Whoever has them and the records can guess passwords, each guess an Argon2; either alone gives nothing to guess.
    """

    def __init__(self, encoded: bytes) -> None:
        """Read what `encoded` gave. Raise `StoreFailed`."""
        if len(encoded) != SECRETS:
            raise StoreFailed(f"secrets of a login server have {SECRETS} bytes, not {len(encoded)}")
        try:
            self._server = _opaque.OpaqueServer(encoded[:_SETUP])
            _opaque.PasswordFile.from_bytes(encoded[_SETUP:])
        except _opaque.OpaqueError:
            raise StoreFailed("these aren't secrets of a login server") from None
        self.encoded = encoded
        #: What is used to answer for accounts that don't exist: it can't be told from another one.
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
        """Return what a client needs to make a record. Raise `LoginMalformed`."""
        return _respond(self._server, request, credential)

    def check_record(self, upload: bytes) -> bytes:
        """Return the record to keep of what a client has made. Raise `LoginMalformed`."""
        parsed = _parse(_opaque.RegistrationUpload, upload, RECORD)
        kept: bytes = _translated(self._server.finish_registration, parsed).to_bytes()
        return kept

    def begin_login(self, request: bytes, credential: str, record: bytes) -> ServerLogin:
        """Return a login of whoever knows the password of `record`. Raise `LoginMalformed`."""
        asked = _parse(_opaque.CredentialRequest, request, LOGIN_REQUEST)
        kept = _parse(_opaque.PasswordFile, record, RECORD)
        response, state = _translated(self._server.create_credential_response, asked, credential, kept)
        return ServerLogin(self._server, response.to_bytes(), state)


def _respond(server: Any, request: bytes, credential: str) -> bytes:
    asked = _parse(_opaque.RegistrationRequest, request, REGISTRATION_REQUEST)
    response: bytes = _translated(server.create_registration_response, asked, credential).to_bytes()
    return response


class ServerLogin:
    """A login that has begun, at the server: `response` goes to the client. It ends once."""

    def __init__(self, server: Any, response: bytes, state: Any) -> None:
        self._server, self.response, self._state = server, response, state

    def finish(self, finalization: bytes) -> bytes:
        """Return the key that both ends have, 64 bytes. Raise `LoginFailed` and `LoginMalformed`."""
        parsed = _parse(_opaque.CredentialFinalization, finalization, FINALIZATION)
        key: bytes = _translated(self._server.finish_login, parsed, self._state).session_key
        return key


class Registration:
    """A client that makes a record: `request` goes to the server. It ends once."""

    def __init__(self, password: str) -> None:
        self._password = password
        request, self._state = _opaque.OpaqueClient().start_registration(password)
        self.request: bytes = request.to_bytes()

    def finish(self, response: bytes) -> tuple[bytes, bytes]:
        """Return the record, and the key that only the password gives, 64 bytes. Raise `LoginMalformed`."""
        parsed = _parse(_opaque.RegistrationResponse, response, REGISTRATION_RESPONSE)
        client = _opaque.OpaqueClient()
        result = _translated(client.finish_registration, parsed, self._state, self._password)
        return result.upload.to_bytes(), result.export_key


class OpaqueLogin:
    """A client that logs in: `request` goes to the server. It ends once."""

    def __init__(self, password: str) -> None:
        self._password = password
        request, self._state = _opaque.OpaqueClient().start_login(password)
        self.request: bytes = request.to_bytes()

    def finish(self, response: bytes) -> tuple[bytes, bytes, bytes]:
        """Return what ends the login, the key that both ends have, and the one that only the password gives.

        Raise `LoginFailed` and `LoginMalformed`.
        """
        parsed = _parse(_opaque.CredentialResponse, response, LOGIN_RESPONSE)
        client = _opaque.OpaqueClient()
        result = _translated(client.finish_login, parsed, self._state, self._password)
        keys = result.session_keys
        assert keys.export_key is not None, "a client's login gives it"
        return result.finalization.to_bytes(), keys.session_key, keys.export_key


def make_proof(session_key: bytes, who: bytes, *parts: bytes) -> bytes:
    """Return the proof of an end (`who`) that it has the key of this login, on a connection of these two identities:
    what a server that is another one's client passes on proves nothing. 32 bytes."""
    told = b"".join(len(each).to_bytes(2, "big") + each for each in (b"dtp.login.v1", who, *parts))
    return hmac.digest(session_key, told, "sha256")
