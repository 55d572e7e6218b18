"""The messages between a login server and its clients: MessagePack arrays, each after its length. Each request is
answered before the next. Source: docs/login.md, "What goes over the wire".

A request is `[op, ...]`, its answer `[code, ...]`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, ClassVar, Final

from dtp.errors import PeerError
from dtp.messaging.login.errors import LoginMalformed
from dtp.messaging.login.names import is_name
from dtp.messaging.login.opaque import RECORD
from dtp.messaging.login.vault import MAX_VAULT, WRAPPED
from dtp.messaging.packing import domain_tag, is_number, pack, unpack

#: The name of the service, by convention.
LOGIN_SERVICE: Final = "dtp.login"
#: The longest message either way, in bytes: a vault, and what is sent with it.
MAX_MESSAGE: Final = MAX_VAULT + 4096


class Slot(IntEnum):
    """The kinds of credentials of an account."""

    PASSWORD = 0
    RECOVERY = 1


class LoginOp(IntEnum):
    """The operation that a request asks for."""

    REGISTER_START = 1
    REGISTER = 2
    LOGIN_START = 3
    LOGIN_FINISH = 4
    PUT_VAULT = 5
    GET_VAULT = 6
    SET_CREDENTIALS = 7
    LOG_OUT = 8
    LEAVE = 9


class Refusal(IntEnum):
    """The code of an answer: 0 if the request was carried out, otherwise the reason why not."""

    DONE = 0
    MALFORMED = 1
    FAILED = 2
    TOO_OFTEN = 3
    NAME_TAKEN = 4
    NOT_INVITED = 5
    FULL = 6
    NOT_STORED = 7
    NOT_LOGGED_IN = 8
    OTHER_VERSION = 9


REASONS: Final[Mapping[Refusal, str]] = {
    Refusal.MALFORMED: "it doesn't understand the request",
    Refusal.FAILED: "the name or the password is wrong",
    Refusal.TOO_OFTEN: "it was asked too often: try again later",
    Refusal.NAME_TAKEN: "there is an account of this name already",
    Refusal.NOT_INVITED: "it needs a valid invitation",
    Refusal.FULL: "it has no room for more accounts",
    Refusal.NOT_STORED: "it can't write to its disk",
    Refusal.NOT_LOGGED_IN: "this needs a login: log in first",
    Refusal.OTHER_VERSION: "the vault was changed meanwhile from somewhere else: read it again",
}


class LoginRefused(PeerError):
    """A login server has refused a request. `refusal` is the reason; `detail` is the seconds to wait, or the
    vault's version.
    """

    code: ClassVar[str] = "login-refused"

    def __init__(self, refusal: Refusal, detail: int = 0) -> None:
        wait = f", in {detail} s" if refusal is Refusal.TOO_OFTEN else ""
        super().__init__(f"the login server refused: {REASONS[refusal]}{wait}")
        self.refusal, self.detail = refusal, detail


@dataclass(frozen=True, slots=True)
class Credential:
    """A credential of an account: the OPAQUE record of a password, and the vault's key, sealed under its export
    key.
    """

    slot: Slot
    record: bytes
    wrapped: bytes

    def to_row(self) -> list[object]:
        """Return the credential as it is sent."""
        return [int(self.slot), self.record, self.wrapped]

    @classmethod
    def parse(cls, told: object) -> Credential:
        """Return the credential that a row encodes. Raise `LoginMalformed`."""
        match told:
            case [int(slot), bytes(record), bytes(wrapped)] if (
                slot in tuple(Slot) and len(record) == RECORD and len(wrapped) == WRAPPED
            ):
                return cls(Slot(slot), record, wrapped)
        raise LoginMalformed("a credential has to be [slot, record, key]")


def parse_credentials(told: Sequence[object]) -> list[Credential]:
    """Return the credentials, at most one for each slot. Raise `LoginMalformed`."""
    found = [Credential.parse(each) for each in told]
    if len({each.slot for each in found}) != len(found):
        raise LoginMalformed("two credentials for one slot")
    return found


def credential_id(name: str, slot: int) -> str:
    """Return the identifier from which a credential's key is derived. It is unique."""
    return f"{slot}:{name}"


def registration_statement(
    server: bytes, name: str, credentials: Sequence[Credential], vault: bytes
) -> bytes:
    """Return the statement that an account's identity signs at its registration, so that nobody can register
    another's identity.
    """
    rows = [each.to_row() for each in credentials]
    digest = hashlib.blake2b(pack([rows, vault]), digest_size=32).digest()
    return domain_tag(b"dtp.login.register.v1") + pack([server, name, digest])


_NAME, _BYTES, _NUMBER, _LIST, _KEY = "name", "bytes", "number", "list", "key"

#: The fields of each request after its operation.
FIELDS: Final[Mapping[LoginOp, tuple[str, ...]]] = {
    LoginOp.REGISTER_START: (_NAME, _NUMBER, _BYTES),  # name, slot, OPAQUE's request
    LoginOp.REGISTER: (
        _NAME,
        _BYTES,
        _KEY,
        _BYTES,
        _LIST,
        _BYTES,
    ),  # name, invitation, identity, signature, credentials, vault
    LoginOp.LOGIN_START: (_NAME, _NUMBER, _BYTES),  # name, slot, KE1
    LoginOp.LOGIN_FINISH: (_BYTES, _BYTES, _NUMBER),  # KE3, proof, seconds
    LoginOp.PUT_VAULT: (_NUMBER, _BYTES),  # version, vault
    LoginOp.GET_VAULT: (),
    LoginOp.SET_CREDENTIALS: (_LIST, _NUMBER, _BYTES),  # credentials, version, vault
    LoginOp.LOG_OUT: (_NUMBER,),  # 1: all keys of the account
    LoginOp.LEAVE: (),
}


def parse_request(body: bytes) -> tuple[LoginOp, list[Any]]:
    """Return the operation and fields of a request. Raise `LoginMalformed`. Surplus fields are ignored."""
    told = unpack(body, LoginMalformed, "a request")
    if not isinstance(told, list) or not told or type(told[0]) is not int:
        raise LoginMalformed("a request is [op, ...]")
    try:
        op = LoginOp(told[0])
    except ValueError:
        raise LoginMalformed(f"a request for the unknown operation {told[0]}") from None
    wanted = FIELDS[op]
    fields = told[1 : 1 + len(wanted)]
    if len(fields) < len(wanted) or not all(map(_fits, fields, wanted)):
        raise LoginMalformed(f"{op.name} has a field that is missing or wrong")
    return op, fields


def parse_answer(body: bytes) -> list[Any]:
    """Return the fields of an answer. Raise `LoginRefused` or `LoginMalformed`."""
    told = unpack(body, LoginMalformed, "an answer")
    if not isinstance(told, list) or not told or not is_number(told[0]):
        raise LoginMalformed("an answer is [code, ...]")
    code, *fields = told
    if not code:
        return fields
    try:
        refusal = Refusal(code)
    except ValueError:
        refusal = Refusal.MALFORMED
    raise LoginRefused(refusal, fields[0] if fields and is_number(fields[0]) else 0)


def _fits(field: object, form: str) -> bool:
    if form == _NAME:
        return is_name(field)
    if form == _NUMBER:
        return is_number(field)
    if form == _LIST:
        return isinstance(field, list) and len(field) <= len(Slot)
    return isinstance(field, bytes) and (len(field) == 32 if form == _KEY else len(field) <= MAX_VAULT)
