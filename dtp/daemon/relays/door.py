"""Where callers come in: who gets a connection, and what the operator hears of who doesn't.

Who is refused at a service is counted in its `denials`, as are its streams; the others, in `Door.refused`.
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

#: Why somebody was refused who came to no service of this daemon.
UNKNOWN_SERVICE, HALF_OPEN, HANDSHAKE = "unknown-service", "half-open", "handshake"
#: What is said to whoever is kept out by hand.
BANNED = Denial("ban", Reason.DENIED, "banned by the operator")
#: What is said to another node before this one has begun, or when it has left.
NOT_YET = Denial("node", Reason.DRAINING, "the node isn't open now")
#: Codes of who has the right to come in, and no channel to pay by.
_UNPAID = (CloseCode.PAYMENT, CloseCode.TICKET)


def refuse(denial: Denial) -> Refuse:
    """Return how the caller hears of it."""
    return Refuse(TELLINGS[denial.reason].close, f"{denial.policy}: {denial.why}", detail=denial.reason)


def by_chain(refusal: Refuse) -> Denial:
    """Return that the host's firewall or what has to be paid keeps somebody out, with what only the operator is to
    hear."""
    why, cause = refusal.reason, str(refusal.__cause__ or "")
    if cause and cause != why:
        why = f"{why} ({cause})"
    unpaid = refusal.code in _UNPAID
    return Denial("price" if unpaid else "chain", Reason.UNPAID if unpaid else Reason.DENIED, why)


class Door:
    """Lets connections in, or refuses them."""

    def __init__(
        self,
        find: Callable[[str], Exposed | None],
        shut: Callable[[], Denial | None],
        bans: Bans,
        side: ChainSide,
        member: Member,
        clock: Clock = moment,
    ) -> None:
        """`find` gives a service by its name; `shut` says why nobody is let in now, if so."""
        self._member = member
        #: The rules that hold for all services together.
        self.everywhere = PolicyChain(())
        self._find, self._shut = find, shut
        self._bans, self._side, self._clock = bans, side, clock
        #: By reason: connections that came to no service.
        self.refused = Counter({UNKNOWN_SERVICE: 0, HALF_OPEN: 0, HANDSHAKE: 0})
        self._denial_log = {
            reason: RateLimitedLog(log, reason, clock=lambda: clock().steady) for reason in self.refused
        }

    def admit_request(self, request: Request) -> Awaitable[object] | None:
        """Let the connection in, now or once the returned is awaited. Raises `Refuse`."""
        caller = Caller(request.peer, request.peer.sui_address, request.source)
        exposed = self._find(request.service)
        if exposed is None and request.again:
            return None  # it was taken out of the configuration, and what is under way ends by itself
        if exposed is None and request.service == NODE_SERVICE and self._member.is_node:
            self._admit_node(request, caller)
            return None
        if exposed is None:
            self._no_service(caller, request.service)
            raise Refuse(CloseCode.UNKNOWN_SERVICE, f"no service {request.service!r} here")
        # Closing is not a service: no rule keeps anybody from it.
        if self._side.is_to_close(request, exposed.config):
            return self._ask_chain(request, caller, exposed)
        # Whoever was let in before may go on while nobody new is.
        denial = (None if request.again else self._shut()) or self.ban_of(caller)
        if denial is not None:
            exposed.log.log_denial(denial, caller)
            raise refuse(denial)
        exposed.admit_caller(caller)
        if request.again:
            return None  # by the chain it is looked at now and then, with all who are here
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
        """Return that it is kept out by hand; None where it isn't."""
        return BANNED if self._bans.is_banned(caller, self._clock().unix) else None

    async def _ask_chain(self, request: Request, caller: Caller, exposed: Exposed) -> object:
        try:
            return await self._side.admit_request(request, exposed.config)
        except Refuse as refusal:
            exposed.log.log_denial(by_chain(refusal), caller)
            raise

    def note_denial(self, caller: Caller, service: str, denial: Denial) -> None:
        """Note that somebody who was let in is refused after all, and had no stream yet."""
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
        """Note a carrier that came to nothing (`listen(on_failed=...)`). Who broke off was refused nothing."""
        if not isinstance(error, Crowded | HandshakeError):
            log.debug("handshake with %s: %s", source, error)
            return
        reason = HALF_OPEN if isinstance(error, Crowded) else HANDSHAKE
        self.refused[reason] += 1
        if self._denial_log[reason].may_log(source):
            # Nobody has proven who it is: strangers must not push out what is shown of others.
            fields = {"event": "refused", "source": source, "reason": reason, "why": str(error)}
            log.info("somebody from %s refused by %s: %s", source, reason, error, extra={"fields": fields})
