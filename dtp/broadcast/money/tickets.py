"""Who may listen to a sealed show by the chain: holders of its tickets or shares, or of passes of a plan."""

from __future__ import annotations

import asyncio
import time
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import ClassVar, Final

from dtp.bounded import BoundedDict
from dtp.broadcast.money import shows
from dtp.broadcast.sealed.admission import KeyAdmission, Refusal, SeatClaim, claim_statement
from dtp.chain.model import Id, canonical_id, id_bytes
from dtp.chain.node.client import ChainClient
from dtp.chain.show import Show, ShowShare
from dtp.chain.signer import KeySigner
from dtp.identity import PeerId
from dtp.pay import passes

#: How many ms a claim's time may be ahead of the producer's clock, and of the chain's. Of several claims the latest
#: counts.
AHEAD_MS: Final = 120_000
#: How often a ticket may change to another listener in a row, and the ms until it may once more. Otherwise all who
#: share a ticket could get every key, by claiming it in turn.
MOVES: Final = 8
MOVE_MS: Final = 600_000
#: The most accounts that are read at once.
_AT_ONCE: Final = 16
#: The most shares of one account that are read, in the chain's order: an account with very many of a MIST each
#: would take longer to read than a key lasts.
_MOST_OF_ONE: Final = 4096
#: The most tickets whose listeners are remembered.
_MOST: Final = 100_000


def _now_ms() -> int:
    return int(time.time() * 1000)


def seat_claim(
    signer: KeySigner, show: bytes, peer: PeerId, time_ms: int, ticket: Id | None = None
) -> SeatClaim:
    """Return an account's statement that `peer` listens with its tickets. Raise `SignerError` for a key that isn't
    Ed25519.

    `ticket` is one that the account holds, or a share. It is found even if the account has thousands of objects.
    """
    signature = signer.sign_statement(claim_statement(show, peer, time_ms))
    return SeatClaim(signer.public_key, time_ms, signature, b"" if ticket is None else id_bytes(ticket))


class _Seat:
    """Who listens with one ticket, and how often it may still change, as a value."""

    def __init__(self) -> None:
        self.listener: PeerId | None = None
        self._moved_until = 0

    def allow_listener(self, now_ms: int) -> bool:
        """Return True if another listener may take the ticket now, and count that. The clock may be set between
        calls."""
        if self.listener is None:
            return True
        latest = now_ms + MOVES * MOVE_MS
        self._moved_until = min(max(self._moved_until, now_ms), latest)
        if self._moved_until + MOVE_MS > latest:
            return False
        self._moved_until += MOVE_MS
        return True


def _seat_listeners(seats: Sequence[_Seat], named: Sequence[PeerId], now_ms: int) -> None:
    """Give an account's tickets to the listeners that it has named last; `named` begins with the latest.

    Unused tickets are given first, then those of listeners whom the account doesn't name any more.
    """
    known, newest, free = set(named), dict.fromkeys(named[: len(seats)]), list[_Seat]()
    for seat in seats:
        if seat.listener in newest:
            del newest[seat.listener]  # any further tickets of it are free
        else:
            free.append(seat)
    free.sort(key=lambda seat: (seat.listener is not None, seat.listener in known))
    movable = (seat for seat in free if seat.allow_listener(now_ms))
    for peer, seat in zip(newest, movable, strict=False):
        seat.listener = peer


class Seats(KeyAdmission):
    """Admits as many identities for an account as it has tickets: those that it has named last.

    An identity speaks for the account of its own key, and for accounts that have signed a `SeatClaim`. A ticket can
    change to another listener `MOVES` times, and once more every `MOVE_MS`, whoever owns it. After that its
    listener keeps it; if the listener's account has sold it, nobody can use it.
    """

    #: The refusal for those who have no ticket.
    _without: ClassVar[Refusal] = Refusal.NO_TICKET

    def __init__(self, show: bytes, clock_ms: Callable[[], int] = _now_ms) -> None:
        self._show, self._clock_ms = show, clock_ms
        #: By ticket; those used last are at the end.
        self._seats: BoundedDict[str, _Seat] = BoundedDict(_MOST)

    @abstractmethod
    async def _list_tickets(self, accounts: Mapping[str, Collection[str]]) -> Mapping[str, Sequence[str]]:
        """Return the ids of the tickets that each of these accounts has. The ids in `accounts` are those that its
        claims name, which anybody can write, so they are checked as well. Raise `ChainError`."""

    async def _read_time(self) -> int:
        """Return the time with which claims are compared, in Unix ms. Raise `ChainError`."""
        return self._clock_ms()

    async def refused(self, asking: Mapping[PeerId, Sequence[SeatClaim]]) -> dict[PeerId, Refusal]:
        """Return those who have no ticket, or whose ticket another listener has now."""
        latest = await self._read_time() + AHEAD_MS
        late = {peer for peer, claims in asking.items() if any(each.time_ms > latest for each in claims)}
        wanted: dict[str, list[tuple[int, PeerId]]] = {}
        said: dict[str, set[str]] = {}
        for peer, claims in asking.items():
            if peer not in late:
                for account, (when, ids) in self._list_accounts(peer, claims).items():
                    wanted.setdefault(account, []).append((when, peer))
                    said.setdefault(account, set()).update(ids)
        tickets = await self._list_tickets(said)
        found = [
            ([self._get_seat(id) for id in tickets[each]], wanted[each])
            for each in wanted
            if tickets.get(each)
        ]
        for seats, those in found:
            those.sort(key=lambda each: (each[0], each[1].key), reverse=True)
            _seat_listeners(seats, [peer for _, peer in those], self._clock_ms())
        # Only after all were read, since a ticket that is sold meanwhile seems to belong to two accounts.
        admitted, ticketed = set[PeerId](), set[PeerId]()
        for seats, those in found:
            named = {peer for _, peer in those}
            admitted |= named & {each.listener for each in seats}
            ticketed |= named
        return {
            peer: Refusal.CLOCK
            if peer in late
            else Refusal.TICKET_IN_USE
            if peer in ticketed
            else self._without
            for peer in asking
            if peer not in admitted
        }

    def _get_seat(self, ticket: str) -> _Seat:
        seat = self._seats[ticket] = self._seats.get(ticket) or _Seat()
        return seat

    def _list_accounts(
        self, peer: PeerId, claims: Iterable[SeatClaim]
    ) -> dict[str, tuple[int, Sequence[str]]]:
        """Return the accounts that a listener speaks for, each with the time of its claim (0 for its own) and the
        tickets that it names."""
        found: dict[str, tuple[int, Sequence[str]]] = {peer.sui_address: (0, ())}
        for each in claims:
            if each.is_of(self._show, peer):
                account = PeerId(each.account).sui_address
                when, named = found.get(account, (0, ()))
                more = (canonical_id(each.ticket),) if each.ticket else ()
                found[account] = max(each.time_ms, when), (*named, *more)
        return found


class _ChainSeats(Seats):
    """Seats that are on the chain, whose clock counts as well: if only a local clock that is behind did, everybody
    would be refused."""

    def __init__(self, chain: ChainClient, show: bytes, clock_ms: Callable[[], int]) -> None:
        super().__init__(show, clock_ms)
        self._chain = chain

    async def _read_time(self) -> int:
        return max(self._clock_ms(), (await self._chain.service_info()).timestamp_ms or 0)


class TicketHolders(_ChainSeats):
    """Admits holders of tickets of a ticketed show, or of shares with money left of a funded one."""

    def __init__(self, chain: ChainClient, show: Id, clock_ms: Callable[[], int] = _now_ms) -> None:
        self._id = canonical_id(show)
        super().__init__(chain, bytes.fromhex(self._id.removeprefix("0x")), clock_ms)

    async def _list_tickets(self, accounts: Mapping[str, Collection[str]]) -> Mapping[str, Sequence[str]]:
        if not accounts:
            return {}
        show = (await shows.read_show(self._chain, self._id)).show
        room = asyncio.Semaphore(_AT_ONCE)

        async def list_good(account: str) -> list[str]:
            async with room:
                held = await shows.shares_of(self._chain, self._id, account, most=_MOST_OF_ONE)
                # One by one, since what isn't a ticket may be large.
                for each in {*accounts[account]} - {each.id for each in held}:
                    held += await shows.shares_named(self._chain, self._id, account, each)
            return [each.id for each in held if is_good(show, each)]

        return dict(zip(accounts, await asyncio.gather(*map(list_good, accounts)), strict=True))


def is_good(show: Show, share: ShowShare) -> bool:
    """True if a share admits its holder: a ticket does until the end, a share of a pot while some of it is
    unspent."""
    return not show.rate or show.unspent_of(share) > 0


class PassHolders(_ChainSeats):
    """Admits holders of a pass of a plan that is valid now."""

    _without = Refusal.NO_PASS

    def __init__(
        self, chain: ChainClient, plan: Id, show: bytes, clock_ms: Callable[[], int] = _now_ms
    ) -> None:
        super().__init__(chain, show, clock_ms)
        self._plan = canonical_id(plan)

    async def _list_tickets(self, accounts: Mapping[str, Collection[str]]) -> Mapping[str, Sequence[str]]:
        plan, _ = await passes.read_plan(self._chain, self._plan)
        epoch = (await self._chain.epoch()).epoch
        found: dict[str, list[str]] = {each: [] for each in accounts}
        for id, each in (await passes.accounts_of(self._chain, plan)).items():
            if each.holder in found and each.is_good(plan.period_ms, self._clock_ms(), epoch):
                found[each.holder].append(id)
        return found
