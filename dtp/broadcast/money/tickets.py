"""Who may listen to a sealed show, by the chain: those who hold its tickets or shares, or passes of a plan."""

from __future__ import annotations

import asyncio
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from dtp.broadcast.money import shows
from dtp.broadcast.sealed.admission import KeyAdmission, Refusal, SeatClaim, claim_statement
from dtp.chain.model import Id, canonical_id
from dtp.chain.node.client import ChainClient
from dtp.chain.show import Show, ShowShare
from dtp.chain.signer import KeySigner
from dtp.identity import PeerId
from dtp.pay import passes

#: How far a claim's time may be ahead of the producer's clock, ms. A later claim counts more, so it is bounded.
AHEAD_MS: Final = 120_000
#: How often a seat may go to another listener than the one that has it, at once, and ms until it may once more: else
#: all who share an account would have every key, each by naming itself again.
MOVES: Final = 8
MOVE_MS: Final = 600_000
#: Accounts that are asked for at once.
_AT_ONCE: Final = 16


def _now_ms() -> int:
    return int(time.time() * 1000)


def seat_claim(signer: KeySigner, show: bytes, peer: PeerId, time_ms: int) -> SeatClaim:
    """Return an account's word that `peer` listens with its tickets. Raise `SignerError` for no Ed25519 key."""
    signature = signer.sign_statement(claim_statement(show, peer, time_ms))
    return SeatClaim(signer.public_key, time_ms, signature)


class _Seated:
    """Who has the seats of one account, and how often others may have them instead: a value."""

    def __init__(self) -> None:
        self._listeners: tuple[PeerId, ...] = ()
        self._moved_until = 0

    def seat(self, named: Sequence[PeerId], count: int, now_ms: int) -> Sequence[PeerId]:
        """Return which of these have the `count` seats now; the account has named the first of them last."""
        before, chosen = self._listeners, tuple(named[:count])
        if len({*before, *chosen}) > max(count, len(before)) and not self._allow_move(now_ms):
            chosen = tuple(dict.fromkeys((*before, *named)))[:count]
        self._listeners = tuple(dict.fromkeys((*chosen, *before)))[:count]
        return [each for each in chosen if each in named]

    def _allow_move(self, now_ms: int) -> bool:
        """Return whether one more may be seated for another; it counts as done then. A clock may be set."""
        latest = now_ms + MOVES * MOVE_MS
        self._moved_until = min(max(self._moved_until, now_ms), latest)
        if self._moved_until + MOVE_MS > latest:
            return False
        self._moved_until += MOVE_MS
        return True


class Seats(KeyAdmission):
    """Admits as many identities for an account as it has tickets: those that it has named last.

    An identity speaks for the account of its own key, and for accounts that have signed a `SeatClaim`. A seat goes
    from one listener to another `MOVES` times, and once more every `MOVE_MS`; then who has it keeps it.
    """

    def __init__(self, show: bytes, clock_ms: Callable[[], int] = _now_ms) -> None:
        self._show, self._clock_ms = show, clock_ms
        #: Of accounts that have tickets.
        self._seated: dict[str, _Seated] = {}

    @abstractmethod
    async def _count_seats(self, accounts: Sequence[str]) -> dict[str, int]:
        """Return how many tickets each of these accounts has. Raise `ChainError`."""

    async def refused(self, asking: Mapping[PeerId, Sequence[SeatClaim]]) -> dict[PeerId, Refusal]:
        """Return those who have no ticket, or whose ticket another one has by now."""
        latest = self._clock_ms() + AHEAD_MS
        late = {peer for peer, claims in asking.items() if any(each.time_ms > latest for each in claims)}
        wanted: dict[str, list[tuple[int, PeerId]]] = {}
        for peer, claims in asking.items():
            if peer not in late:
                for account, when in self._list_accounts(peer, claims).items():
                    wanted.setdefault(account, []).append((when, peer))
        seats = await self._count_seats(list(wanted))
        admitted, ticketed = set[PeerId](), set[PeerId]()
        for account, those in wanted.items():
            those.sort(key=lambda each: (each[0], each[1].key), reverse=True)
            named = [peer for _, peer in those]
            if count := seats.get(account, 0):
                seated = self._seated.setdefault(account, _Seated())
                admitted.update(seated.seat(named, count, self._clock_ms()))
                ticketed.update(named)
            else:
                self._seated.pop(account, None)
        return {
            peer: Refusal.CLOCK
            if peer in late
            else Refusal.TICKET_IN_USE
            if peer in ticketed
            else Refusal.NO_TICKET
            for peer in asking
            if peer not in admitted
        }

    def _list_accounts(self, peer: PeerId, claims: Iterable[SeatClaim]) -> dict[str, int]:
        """Return the accounts that a listener speaks for, and since when: its own from ever."""
        found = {peer.sui_address: 0}
        for each in claims:
            if each.is_of(self._show, peer):
                account = PeerId(each.account).sui_address
                found[account] = max(each.time_ms, found.get(account, 0))
        return found


class TicketHolders(Seats):
    """Those who hold tickets of a ticketed show, or shares of a funded one with money in them."""

    def __init__(self, chain: ChainClient, show: Id, clock_ms: Callable[[], int] = _now_ms) -> None:
        self._id, self._chain = canonical_id(show), chain
        super().__init__(bytes.fromhex(self._id.removeprefix("0x")), clock_ms)

    async def _count_seats(self, accounts: Sequence[str]) -> dict[str, int]:
        if not accounts:
            return {}
        show = (await shows.read_show(self._chain, self._id)).show
        room = asyncio.Semaphore(_AT_ONCE)

        async def count(account: str) -> int:
            async with room:
                held = await shows.shares_of(self._chain, self._id, account)
            return sum(_is_good(show, each) for each in held)

        return dict(zip(accounts, await asyncio.gather(*map(count, accounts)), strict=True))


def _is_good(show: Show, share: ShowShare) -> bool:
    return not show.rate or show.unspent_of(share) > 0


class PassHolders(Seats):
    """Those who hold a pass of a plan that is good now."""

    def __init__(
        self, chain: ChainClient, plan: Id, show: bytes, clock_ms: Callable[[], int] = _now_ms
    ) -> None:
        super().__init__(show, clock_ms)
        self._chain, self._plan = chain, canonical_id(plan)

    async def _count_seats(self, accounts: Sequence[str]) -> dict[str, int]:
        plan, _ = await passes.read_plan(self._chain, self._plan)
        epoch = (await self._chain.epoch()).epoch
        found = dict.fromkeys(accounts, 0)
        for each in (await passes.accounts_of(self._chain, plan)).values():
            if each.holder in found and each.is_good(plan.period_ms, self._clock_ms(), epoch):
                found[each.holder] += 1
        return found
