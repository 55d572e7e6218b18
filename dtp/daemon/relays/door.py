"""Admits callers: who gets a connection, and what the operator learns about those who don't.

Callers and streams refused at a service are counted in its `denials`, all others in `Door.refused`.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable, Callable

from dtp.daemon.mesh import Member
from dtp.daemon.observing import logs
from dtp.daemon.paying.side import ChainSide
from dtp.daemon.policies import Caller, Denial, PolicyChain
from dtp.daemon.policies.bans import Bans
from dtp.daemon.policies.base import Arrive, Clock, moment
from dtp.daemon.reasons import FREE, TELLINGS, Reason
from dtp.daemon.relays.expose import Exposed
from dtp.limited_log import RateLimitedLog
from dtp.net.listener import Crowded, Request
from dtp.peers.links import NODE_SERVICE
from dtp.session.codes import CloseCode, CloseDetail, HandshakeError, Refuse

log = logging.getLogger("dtpd")

#: Why somebody was refused who didn't get as far as a service.
UNKNOWN_SERVICE, HALF_OPEN, HANDSHAKE = "unknown-service", "half-open", "handshake"
#: The answer to callers whom the operator has banned.
BANNED = Denial("ban", Reason.DENIED, "banned by the operator")
#: The answer to another node before this one is open, or after it has left.
NOT_YET = Denial("node", Reason.DRAINING, "the node isn't open now")
#: Close codes for callers who are allowed, but have no channel to pay from.
_UNPAID = (CloseCode.PAYMENT, CloseCode.TICKET)


def refuse(denial: Denial) -> Refuse:
    """Return the refusal that the caller is told."""
    return Refuse(TELLINGS[denial.reason].close, f"{denial.policy}: {denial.why}", detail=denial.reason)


def by_chain(refusal: Refuse) -> Denial:
    """Return a denial by the host's firewall or for lack of payment, with details for the operator only."""
    why, cause = refusal.reason, str(refusal.__cause__ or "")
    if cause and cause != why:
        why = f"{why} ({cause})"
    unpaid = refusal.code in _UNPAID
    return Denial("price" if unpaid else "chain", Reason.UNPAID if unpaid else Reason.DENIED, why)


class Door:
    """Admits connections, or refuses them."""

    def __init__(
        self,
        find: Callable[[str], Exposed | None],
        shut: Callable[[], Denial | None],
        bans: Bans,
        side: ChainSide,
        member: Member,
        clock: Clock = moment,
    ) -> None:
        """`find` returns a service by its name; `shut` returns why nobody is admitted now, or None."""
        self._member = member
        #: The rules that apply to all services together.
        self.everywhere = PolicyChain(())
        self._find, self._shut = find, shut
        self._bans, self._side, self._clock = bans, side, clock
        #: Connections that got to no service, by reason.
        self.refused = Counter({UNKNOWN_SERVICE: 0, HALF_OPEN: 0, HANDSHAKE: 0})
        self._denial_log = {
            reason: RateLimitedLog(log, reason, clock=lambda: clock().steady) for reason in self.refused
        }

    def admit_request(self, request: Request) -> Awaitable[object] | None:
        """Admit a connection, either now or when the returned awaitable is done. Raise `Refuse`."""
        caller = Caller(request.peer, request.peer.sui_address, request.source)
        exposed = self._find(request.service)
        if exposed is None and request.again:
            return None  # its service was removed by a reload, and what is under way ends by itself
        if exposed is None and request.service == NODE_SERVICE and self._member.is_node:
            self._admit_node(request, caller)
            return None
        if exposed is None:
            self._no_service(caller, request.service)
            raise Refuse(CloseCode.UNKNOWN_SERVICE, f"no service {request.service!r} here")
        # Closing a channel isn't a service: no rule prevents it.
        if self._side.is_to_close(request, exposed.config):
            return self._ask_chain(request, caller, exposed)
        # Callers who were admitted before may resume while nobody new is admitted.
        denial = (None if request.again else self._shut()) or self.ban_of(caller)
        if denial is not None:
            exposed.log.log_denial(denial, caller)
            raise refuse(denial)
        exposed.admit_caller(caller)
        if request.again:
            return None  # the chain's lists are checked regularly, for all callers
        if request.ticket and exposed.config.price is None:
            exposed.log.log_denial(Denial("price", Reason.UNPAID, FREE), caller)
            raise Refuse(CloseCode.PAYMENT, FREE, detail=CloseDetail.SERVICE_FREE)
        if not exposed.config.on_chain and exposed.config.price is None:
            return None
        return self._ask_chain(request, caller, exposed)

    def _admit_node(self, request: Request, caller: Caller) -> None:
        denial = (None if request.again else self._shut()) or self.ban_of(caller)
        denial = denial or self.everywhere.ask_policies(Arrive(caller), self._clock())
        if denial is None and not self._member.takes_links:
            denial = NOT_YET
        if denial is not None:
            self.refused[NODE_SERVICE] += 1
            raise refuse(denial)

    def ban_of(self, caller: Caller) -> Denial | None:
        """Return the denial for a caller whom the operator has banned; None for others."""
        return BANNED if self._bans.is_banned(caller, self._clock().unix) else None

    async def _ask_chain(self, request: Request, caller: Caller, exposed: Exposed) -> object:
        try:
            return await self._side.admit_request(request, exposed.config)
        except Refuse as refusal:
            exposed.log.log_denial(by_chain(refusal), caller)
            raise

    def note_denial(self, caller: Caller, service: str, denial: Denial) -> None:
        """Note that an admitted caller, who had no stream yet, is refused after all."""
        exposed = self._find(service)
        if exposed is None:
            self._no_service(caller, service)
        else:
            exposed.log.log_denial(denial, caller)

    def _no_service(self, caller: Caller, service: str) -> None:
        self.refused[UNKNOWN_SERVICE] += 1
        if self._denial_log[UNKNOWN_SERVICE].may_log(str(caller.peer)):
            fields = {"event": "unknown-service", **logs.of_caller(caller), "service": service}
            log.info(
                "%s asked for the service %r, which is not here",
                *(logs.name_of(caller), service),
                extra={"fields": fields},
            )

    def note_failed(self, source: str, error: Exception) -> None:
        """Note that a carrier's handshake failed (`listen(on_failed=...)`). A peer that broke off wasn't
        refused."""
        if not isinstance(error, Crowded | HandshakeError):
            log.debug("handshake with %s: %s", source, error)
            return
        reason = HALF_OPEN if isinstance(error, Crowded) else HANDSHAKE
        self.refused[reason] += 1
        if self._denial_log[reason].may_log(source):
            # Nobody has proven an identity here: strangers must not push out what is shown about others.
            fields = {"event": "refused", "source": source, "reason": reason, "why": str(error)}
            log.info("somebody from %s refused by %s: %s", source, reason, error, extra={"fields": fields})
