"""Who may listen to a sealed show, by the chain: those who hold its tickets or shares, or passes of a plan."""

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

#: How far a claim's time may be ahead of the producer's clock, ms, and of the chain's. A later claim counts more.
AHEAD_MS: Final = 120_000
#: How often in a row a ticket may go to another listener than the one that has it, and ms until it may once more:
#: else all who share it would have every key, each by naming itself again, or by passing it on.
MOVES: Final = 8
MOVE_MS: Final = 600_000
#: Accounts that are asked for at once.
_AT_ONCE: Final = 16
#: Shares of one account that are looked at, in the order that the chain has them: who has very many, of a MIST each,
#: would have the producer read them for longer than a key lasts.
_MOST_OF_ONE: Final = 4096
#: Tickets of which it is remembered who listens with them.
_MOST: Final = 100_000


def _now_ms() -> int:
    return int(time.time() * 1000)


def seat_claim(
    signer: KeySigner, show: bytes, peer: PeerId, time_ms: int, ticket: Id | None = None
) -> SeatClaim:
    """Return an account's word that `peer` listens with its tickets. Raise `SignerError` for no Ed25519 key.

    `ticket` is one that the account has, or a share: it is found also where the account has thousands of objects.
    """
    signature = signer.sign_statement(claim_statement(show, peer, time_ms))
    return SeatClaim(signer.public_key, time_ms, signature, b"" if ticket is None else id_bytes(ticket))


class _Seat:
    """Who listens with one ticket, and how often others may have it instead: a value."""

    def __init__(self) -> None:
        self.listener: PeerId | None = None
        self._moved_until = 0

    def allow_listener(self, now_ms: int) -> bool:
        """Return whether another one may listen with it now; if so, that is counted. The clock may be set
        meanwhile."""
        if self.listener is None:
            return True
        latest = now_ms + MOVES * MOVE_MS
        self._moved_until = min(max(self._moved_until, now_ms), latest)
        if self._moved_until + MOVE_MS > latest:
            return False
        self._moved_until += MOVE_MS
        return True


def _seat_listeners(seats: Sequence[_Seat], named: Sequence[PeerId], now_ms: int) -> None:
    """Have those that an account has named last listen with its tickets; `named` begins with the last of all.

    Tickets that nobody listens with go first, those of listeners whom the account doesn't name any more next.
    """
    known, newest, free = set(named), dict.fromkeys(named[: len(seats)]), list[_Seat]()
    for seat in seats:
        if seat.listener in newest:
            del newest[seat.listener]  # tickets that it has beyond that are free
        else:
            free.append(seat)
    free.sort(key=lambda seat: (seat.listener is not None, seat.listener in known))
    movable = (seat for seat in free if seat.allow_listener(now_ms))
    for peer, seat in zip(newest, movable, strict=False):
        seat.listener = peer


class Seats(KeyAdmission):
    """Admits as many identities for an account as it has tickets: those that it has named last.

    An identity speaks for the account of its own key, and for accounts that have signed a `SeatClaim`. A ticket goes
    from one listener to another `MOVES` times, and once more every `MOVE_MS`, whoever's it is meanwhile; then who
    listens with it keeps it, and where that one's account has sold it nobody does.
    """

    #: The refusal of those who have none.
    _without: ClassVar[Refusal] = Refusal.NO_TICKET

    def __init__(self, show: bytes, clock_ms: Callable[[], int] = _now_ms) -> None:
        self._show, self._clock_ms = show, clock_ms
        #: By ticket; those that were looked at last are at the end.
        self._seats: BoundedDict[str, _Seat] = BoundedDict(_MOST)

    @abstractmethod
    async def _list_tickets(self, accounts: Mapping[str, Collection[str]]) -> Mapping[str, Sequence[str]]:
        """Return the ids of the tickets that each of these accounts has, of those that its claims name (which anybody
        can write) and of others. Raise `ChainError`."""

    async def _read_time(self) -> int:
        """Return the time against which claims are held, Unix ms. Raise `ChainError`."""
        return self._clock_ms()

    async def refused(self, asking: Mapping[PeerId, Sequence[SeatClaim]]) -> dict[PeerId, Refusal]:
        """Return those who have no ticket, or whose ticket another one has by now."""
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
        # After all were read: a ticket that was sold meanwhile seems to belong to two accounts.
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
        """Return the accounts that a listener speaks for, since when (its own from ever), and the tickets of it that
        it names."""
        found: dict[str, tuple[int, Sequence[str]]] = {peer.sui_address: (0, ())}
        for each in claims:
            if each.is_of(self._show, peer):
                account = PeerId(each.account).sui_address
                when, named = found.get(account, (0, ()))
                more = (canonical_id(each.ticket),) if each.ticket else ()
                found[account] = max(each.time_ms, when), (*named, *more)
        return found


class _ChainSeats(Seats):
    """Seats that the chain knows of. Its clock counts as well: by a clock of this machine that is behind, everybody
    would be refused."""

    def __init__(self, chain: ChainClient, show: bytes, clock_ms: Callable[[], int]) -> None:
        super().__init__(show, clock_ms)
        self._chain = chain

    async def _read_time(self) -> int:
        return max(self._clock_ms(), (await self._chain.service_info()).timestamp_ms or 0)


class TicketHolders(_ChainSeats):
    """Those who hold tickets of a ticketed show, or shares of a funded one with money in them."""

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
                # One by one: what isn't a ticket may be large.
                for each in {*accounts[account]} - {each.id for each in held}:
                    held += await shows.shares_named(self._chain, self._id, account, each)
            return [each.id for each in held if is_good(show, each)]

        return dict(zip(accounts, await asyncio.gather(*map(list_good, accounts)), strict=True))


def is_good(show: Show, share: ShowShare) -> bool:
    """True if a share admits its holder: a ticket does to the end, one of a pot while something of it is unspent."""
    return not show.rate or show.unspent_of(share) > 0


class PassHolders(_ChainSeats):
    """Those who hold a pass of a plan that is good now."""

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
