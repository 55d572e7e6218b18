"""The server's side of logins, as a value: a request and the time go in, an answer comes out. It knows no streams.

For an account that doesn't exist the answer is that for a wrong password, after the same work.
"""

from __future__ import annotations

import hmac
import math
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from dtp.carriers.source_rates import SourceLimiter
from dtp.identity import PeerId, PeerIdError
from dtp.messaging.login.errors import LoginFailed, LoginMalformed
from dtp.messaging.login.opaque import ServerLogin, make_proof
from dtp.messaging.login.protocol import (
    Credential,
    LoginOp,
    Refusal,
    Slot,
    credential_id,
    parse_credentials,
    registration_statement,
)
from dtp.messaging.login.sessions import LoginRow, Sessions
from dtp.messaging.login.store import FoundLogin, LoginStore, StoredAccount, invitation_hash
from dtp.rates import RateLimiter

#: Who may create an account: everybody, those with an invitation, or nobody.
Registration = Literal["open", "invited", "closed"]
REGISTRATIONS: Final[tuple[Registration, ...]] = ("open", "invited", "closed")

#: The code and the fields of an answer.
Answer = tuple[Any, ...]


class Moment(NamedTuple):
    """A time by two clocks, in seconds: one that only goes forward, and the calendar's (Unix time)."""

    steady: float
    unix: float


class LoginServer:
    """The state that all conversations share. Its methods may be called from one thread at a time, those of
    `sessions` from any.
    """

    def __init__(self, store: LoginStore, identity: PeerId, *, registration: Registration = "open") -> None:
        """`identity` is the one that the server's connections prove."""
        limits = store.limits
        self.store, self.identity, self.registration = store, identity, registration
        self.sessions = Sessions(longest=limits.longest_session)
        #: Counts of requests by their names, and of refusals.
        self.counters: Counter[str] = Counter()
        self.accounts: RateLimiter[str] = RateLimiter(
            limits.account_tries, limits.account_pause, limits.remembered
        )
        self.sources = SourceLimiter(limits.source_tries, limits.source_pause, limits.remembered)
        self.registrations = SourceLimiter(limits.registrations, limits.registration_pause, limits.remembered)
        self.changes: RateLimiter[str] = RateLimiter(limits.changes, limits.change_pause, limits.remembered)
        #: By account, how often all keys were logged out: conversations from before are no longer logged in.
        self.endings: Counter[int] = Counter()
        self._lock = threading.Lock()

    def load_sessions(self, unix: float) -> None:
        """Load the logins that the store has. Raise `StoreFailed`."""
        for row in self.store.list_logins(int(unix)):
            self.sessions.log_in(row)

    def expire_keys(self, unix: float) -> None:
        """Delete what has expired. Raise `StoreFailed`."""
        self.sessions.expire_sessions(unix)
        self.store.expire_rows(int(unix))

    def answer_request(
        self, conversation: LoginConversation, op: LoginOp, fields: list[Any], now: Moment
    ) -> Answer:
        """Return the answer to a request. Raise `StoreFailed`."""
        with self._lock:
            self.counters[op.name.lower()] += 1
            try:
                answer = _HANDLERS[op](conversation, now, *fields)
            except LoginMalformed:
                answer = (Refusal.MALFORMED,)
            except LoginFailed:
                answer = (Refusal.FAILED,)
            if answer[0]:
                self.counters[f"refused:{Refusal(answer[0]).name.lower()}"] += 1
            return answer


@dataclass(frozen=True, slots=True)
class _Begun:
    """A login that has been started, but not finished."""

    login: ServerLogin
    account: int
    name: str
    credential: Credential
    counted: str
    endings: int


class LoginConversation:
    """One stream of requests, from the key `peer` at `source`. It has one login at a time, which can be finished
    once.
    """

    def __init__(self, server: LoginServer, peer: PeerId, source: str) -> None:
        self._server, self._peer, self._source = server, peer, source
        self._begun: _Begun | None = None
        #: The account, once logged in, and the value of `endings` for it at that time.
        self._account: int | None = None
        self._endings = 0

    # ---- accounts ----------------------------------------------------------------------------------------------

    def _register_start(self, now: Moment, name: str, slot: int, request: bytes) -> Answer:
        """Answer the same whether or not the account exists: keys are derived for any name. Together with a login's
        answer this one shows whether a guess is right, so it is counted as a guess.
        """
        if slot not in tuple(Slot):
            return (Refusal.MALFORMED,)
        if refused := self._count_of_source(now):
            return refused
        _, counted = self._find_login(name, slot)
        if refused := self._count_of_account(counted, now):
            return refused
        secrets = self._server.store.secrets
        return Refusal.DONE, secrets.respond_to_registration(request, credential_id(name, slot))

    def _register_account(
        self,
        now: Moment,
        name: str,
        invitation: bytes,
        identity: bytes,
        signature: bytes,
        told: list[Any],
        vault: bytes,
    ) -> Answer:
        server = self._server
        if not server.registrations.try_take(self._source, now.steady):
            return _too_often(server.registrations, self._source, now)
        if server.registration == "closed":
            return (Refusal.NOT_INVITED,)
        credentials = self._check_credentials(told)
        statement = registration_statement(server.identity.key, name, credentials, vault)
        if len(credentials) != len(Slot) or not vault or not _is_signed(identity, signature, statement):
            return (Refusal.MALFORMED,)
        invited = None
        if server.registration == "invited":
            invited = invitation_hash(invitation.decode(errors="replace"))
        refusal = server.store.add_account(
            name, identity, credentials, vault, invitation=invited, now=int(now.unix)
        )
        if refusal is Refusal.DONE:
            self._forget_tries(name)
        return (refusal,)

    def _check_credentials(self, told: list[Any]) -> list[Credential]:
        """Return the credentials with their records checked. Raise `LoginMalformed`."""
        check = self._server.store.secrets.check_record
        return [Credential(each.slot, check(each.record), each.wrapped) for each in parse_credentials(told)]

    # ---- logging in --------------------------------------------------------------------------------------------

    def _login_start(self, now: Moment, name: str, slot: int, request: bytes) -> Answer:
        server = self._server
        self._begun = self._account = None
        if slot not in tuple(Slot):
            return (Refusal.MALFORMED,)
        if refused := self._count_of_source(now):
            return refused
        found, counted = self._find_login(name, slot)
        if refused := self._count_of_account(counted, now):
            return refused
        credential = credential_id(name, slot)
        login = server.store.secrets.begin_login(request, credential, found.credential.record)
        endings = server.endings[found.account]
        self._begun = _Begun(login, found.account, name, found.credential, counted, endings)
        return Refusal.DONE, login.response

    def _find_login(self, name: str, slot: int) -> tuple[FoundLogin, str]:
        """Return the login that a name begins with, and the key by which tries are counted. A peer that has logged
        in before has tries of its own, which nobody else can use up.
        """
        found = self._server.store.find_login(name, slot, self._peer.key)
        return found, f"{name} {self._peer}" if found.known else name

    def _count_of_source(self, now: Moment) -> Answer | None:
        """Count a possible guess. Return the refusal if the source has made too many."""
        sources = self._server.sources
        return None if sources.try_take(self._source, now.steady) else _too_often(sources, self._source, now)

    def _count_of_account(self, counted: str, now: Moment) -> Answer | None:
        """Count a possible guess. Return the refusal if there were too many for the account."""
        return None if self._may_try(counted, now) else _too_often(self._server.accounts, counted, now)

    def _may_try(self, counted: str, now: Moment) -> bool:
        """Count a try, and return True if it is allowed. The count survives a restart of the server."""
        tries, store = self._server.accounts, self._server.store
        if tries.full_again_at(counted) is None and (due := store.tries_until(counted)) > now.unix:
            tries.restore_key(counted, now.steady + due - now.unix, now.steady)
        if not tries.try_take(counted, now.steady):
            return False
        store.note_tries(counted, now.unix + (tries.full_again_at(counted) or 0.0) - now.steady)
        return True

    def _forget_tries(self, counted: str) -> None:
        """Forget tries, since whoever made them knows the password."""
        self._server.accounts.reset_key(counted)
        self._server.store.forget_tries(counted)

    def _login_finish(self, now: Moment, finalization: bytes, proof: bytes, seconds: int) -> Answer:
        begun, self._begun = self._begun, None
        if begun is None:
            return (Refusal.NOT_LOGGED_IN,)
        server, limits = self._server, self._server.store.limits
        key = begun.login.finish(finalization)
        ends = (server.identity.key, self._peer.key, begun.name.encode())
        account = server.store.get_account(begun.account)
        if not hmac.compare_digest(proof, make_proof(key, b"client", *ends)) or account is None:
            return (Refusal.FAILED,)
        if server.endings[account.id] != begun.endings:  # the password may have changed since
            return (Refusal.FAILED,)
        self._forget_tries(begun.counted)
        since = int(now.unix)
        until = since + min(seconds or limits.session, limits.longest_session)
        for ended in server.store.log_in(account.id, self._peer.key, until, since):
            server.sessions.log_out(ended)
        server.sessions.log_in(LoginRow(self._peer.key, account.name, account.identity, until, since))
        self._account, self._endings = account.id, begun.endings
        told = (account.identity, begun.credential.wrapped, account.version, account.vault, until)
        return Refusal.DONE, make_proof(key, b"server", *ends), *told

    def _own_account(self, now: Moment) -> StoredAccount | None:
        """Return the account, or None if it is gone or the peer isn't logged in to it any more. The peer has to be
        logged in itself: the account's own identity counts as logged in while any other key is.
        """
        account = None if self._account is None else self._server.store.get_account(self._account)
        found = self._server.sessions.find_own(self._peer.key, now.unix)
        is_over = self._account is None or self._server.endings[self._account] != self._endings
        if account is None or found is None or found.name != account.name or is_over:
            self._account = None
            return None
        return account

    # ---- logged in ---------------------------------------------------------------------------------------------

    def _put_vault(self, now: Moment, version: int, vault: bytes) -> Answer:
        return self._change_vault(now, version, vault, [])

    def _set_credentials(self, now: Moment, told: list[Any], version: int, vault: bytes) -> Answer:
        """Replace the credentials. Keys that logged in with the old ones are logged out."""
        credentials = self._check_credentials(told)
        answer = self._change_vault(now, version, vault, credentials)
        if not answer[0] and self._account is not None:
            self._end_others(self._account)
        return answer

    def _change_vault(self, now: Moment, version: int, vault: bytes, credentials: list[Credential]) -> Answer:
        account = self._own_account(now)
        if account is None:
            return (Refusal.NOT_LOGGED_IN,)
        if not vault:
            return (Refusal.MALFORMED,)
        changes, counted = self._server.changes, str(account.id)
        if not changes.try_take(counted, now.steady):
            return _too_often(changes, counted, now)
        there = self._server.store.put_vault(account.id, version, vault, credentials)
        return (Refusal.DONE,) if there is None else (Refusal.OTHER_VERSION, there)

    def _end_others(self, number: int) -> None:
        self._server.endings[number] += 1
        self._endings += 1
        account = self._server.store.get_account(number)
        if account is not None:
            self._server.store.log_out(number, but=self._peer.key)
            self._server.sessions.remove_account(account.identity, but=self._peer.key)

    def _get_vault(self, now: Moment) -> Answer:
        account = self._own_account(now)
        return (Refusal.NOT_LOGGED_IN,) if account is None else (Refusal.DONE, account.version, account.vault)

    def _log_out(self, now: Moment, everywhere: int) -> Answer:
        account = self._own_account(now)
        if account is None:
            return (Refusal.NOT_LOGGED_IN,)
        if everywhere:
            self._end_others(account.id)
        self._server.store.log_out(account.id, self._peer.key)
        self._server.sessions.log_out(self._peer.key)
        self._account = None
        return (Refusal.DONE,)

    def _delete_account(self, now: Moment) -> Answer:
        account = self._own_account(now)
        if account is None:
            return (Refusal.NOT_LOGGED_IN,)
        self._server.store.remove_account(account.id)
        self._server.sessions.remove_account(account.identity)
        self._account = None
        return (Refusal.DONE,)


def _too_often(limiter: RateLimiter[str] | SourceLimiter, counted: str, now: Moment) -> Answer:
    return Refusal.TOO_OFTEN, math.ceil(limiter.seconds_until_allowed(counted, now.steady))


def _is_signed(identity: bytes, signature: bytes, statement: bytes) -> bool:
    try:
        return PeerId(identity).verify(signature, statement)
    except PeerIdError:
        return False


_HANDLERS: Final[dict[LoginOp, Callable[..., Answer]]] = {
    LoginOp.REGISTER_START: LoginConversation._register_start,
    LoginOp.REGISTER: LoginConversation._register_account,
    LoginOp.LOGIN_START: LoginConversation._login_start,
    LoginOp.LOGIN_FINISH: LoginConversation._login_finish,
    LoginOp.PUT_VAULT: LoginConversation._put_vault,
    LoginOp.GET_VAULT: LoginConversation._get_vault,
    LoginOp.SET_CREDENTIALS: LoginConversation._set_credentials,
    LoginOp.LOG_OUT: LoginConversation._log_out,
    LoginOp.LEAVE: LoginConversation._delete_account,
}
