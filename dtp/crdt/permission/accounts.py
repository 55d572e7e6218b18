"""Accounts in a graph: whose devices write on the souls of an account, and up to where. docs/graph.md, "Accounts".

A device shows the account's card in its own frames before it writes; that is all that lets it in. What takes it out
is signed by the account's key and may come late: what stands is the same whatever order its parts come in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from dtp.crdt import values
from dtp.errors import PeerError
from dtp.identity import Identity, PeerId
from dtp.identity.card import MAX_BYTES, PREFIX, Card, CardError, account_name

#: Goes before what an account signs about its devices in one graph. No other signature of this project begins so.
CONTEXT: Final = b"dtp.graph.cuts.v1"
#: Registers of `%access/name`: the card that shows whom its author writes for, and where devices of an account end.
CARD, CUTS = "card/", "cuts/"
#: Devices that one `Cuts` ends, at most.
MAX_CUTS: Final = 1024
#: Accounts that an author writes for, at most: all that it showed is remembered.
MAX_ACCOUNTS: Final = 64
#: No clock is above.
FOREVER: Final = (1 << 63) - 1
_VERSION: Final = 1
_KEY: Final = 32
_SIGNATURE: Final = 64
_ROOT: Final = f"~{PREFIX}1"


class CutsError(PeerError):
    """What is said to end devices of an account isn't what docs/graph.md says, or not signed by the account."""

    code = "graph-cuts"


def is_of_account(soul: str) -> bool:
    """True if a soul is, or would be, an account's own."""
    return soul.startswith(_ROOT)


def root_of(soul: str) -> str:
    """Return the name that an owned soul begins with."""
    return soul[1:].partition("/")[0]


@dataclass(frozen=True)
class Cuts:
    """An account's word where its devices end in one graph: device -> the last clock of it that counts.

    A device that it doesn't name goes on if the card names it, or if it was let in by a key of the account that isn't
    older than this one; else nothing of it counts.
    """

    graph: str
    card: Card
    clocks: Mapping[bytes, int]
    signature: bytes = b""

    @property
    def _parts(self) -> list[Any]:
        clocks = [[device, self.clocks[device]] for device in sorted(self.clocks)]
        return [_VERSION, self.graph, self.card.encode(), clocks]

    @property
    def _signed(self) -> bytes:
        return CONTEXT + values.encode(self._parts)

    def encode(self) -> bytes:
        """Return MessagePack `[version, graph, card, [[device, clock]...], signature]`."""
        return values.encode([*self._parts, self.signature])

    def is_genuine(self) -> bool:
        """Return whether the account's key, as of its card, signed it. The card itself was checked when it was
        parsed."""
        return PeerId(self.card.key).verify(self.signature, self._signed)


def make_cuts(identity: Identity, graph: str, card: Card, clocks: Mapping[bytes, int]) -> Cuts:
    """Sign where devices end, with the account's key."""
    unsigned = Cuts(graph, card, dict(clocks))
    return replace(unsigned, signature=identity.sign(unsigned._signed))


def read_cuts(graph: str, data: bytes) -> Cuts:
    """Return the cuts in `data`, checked for this graph. Raises `CutsError`, `CardError`."""
    parts = values.decode_document(data, CutsError, "cuts")
    match parts:
        case [version, str(name), bytes(card), [*told], bytes(signature)] if version == _VERSION:
            pass
        case _:
            raise CutsError(f"no cuts of version {_VERSION}")
    if name != graph:
        raise CutsError(f"cuts for graph {name!r}, not {graph!r}")
    if len(told) > MAX_CUTS or len(signature) != _SIGNATURE:
        raise CutsError(f"cuts of more than {MAX_CUTS} devices, or without a signature")
    cuts = Cuts(name, Card.parse(card), dict(_cut(each) for each in told), signature)
    if cuts.encode() != data or not cuts.is_genuine():
        raise CutsError("cuts that the account didn't sign")
    return cuts


def _cut(told: Any) -> tuple[bytes, int]:
    match told:
        case [bytes(device), clock] if len(device) == _KEY and type(clock) is int and 0 <= clock <= FOREVER:
            return device, clock
    raise CutsError("a cut names something that is not a device, or has no valid clock")


@dataclass(frozen=True)
class AccountStanding:
    """All that the cuts of an account that are known say together: those of its newest key, and of it every one."""

    #: Of the account's key that signed them, 0 for none.
    generation: int = 0
    #: Devices that their cards name.
    named: frozenset[bytes] = frozenset()
    #: Device -> its lowest cut.
    clocks: Mapping[bytes, int] = field(default_factory=dict)

    def with_cuts(self, cuts: Cuts) -> AccountStanding:
        """Return what stands when these are known, too."""
        named = frozenset(device.key for device in cuts.card.devices)
        return self.merged_with(AccountStanding(cuts.card.generation, named, cuts.clocks))

    def merged_with(self, other: AccountStanding) -> AccountStanding:
        """Return what both say, whichever was known first."""
        if self.generation != other.generation:
            return max(self, other, key=lambda one: one.generation)
        clocks = dict(self.clocks)
        for device, clock in other.clocks.items():
            clocks[device] = min(clock, clocks.get(device, FOREVER))
        return AccountStanding(self.generation, self.named | other.named, clocks)

    def last_clock(self, device: bytes, generation: int) -> int:
        """Return the last clock of a device that counts, which showed a card of this generation."""
        if generation > self.generation:
            return FOREVER
        ended = self.clocks.get(device)
        if ended is not None:
            return ended
        return FOREVER if generation == self.generation or device in self.named else 0


@dataclass
class ShownCards:
    """An author's cards of one account and generation, and what they let in."""

    #: When the longest one ends, ms since 1970; 0 for never.
    expires_ms: int
    #: The highest clock of an op that they let in.
    used: int = 0
    #: The lowest clock of an op that they would have let in, but for a cut; 0 for none.
    denied: int = 0

    def covers_clock(self, clock: int) -> bool:
        """True if it hasn't ended by the clock."""
        return not self.expires_ms or clock >> 16 <= self.expires_ms

    def extend_until(self, expires_ms: int) -> None:
        """Take a card that ends then."""
        self.expires_ms = 0 if not expires_ms or not self.expires_ms else max(expires_ms, self.expires_ms)

    def note_verdict(self, used: int, denied: int) -> None:
        """Remember an op that was let in, and one that was not."""
        self.used = max(self.used, used)
        self.denied = min(self.denied, denied) if self.denied and denied else self.denied or denied

    def is_wrong(self, last: int) -> bool:
        """True if what was let in or not would have gone otherwise had it been known that it ends at `last`."""
        return self.used > last or 0 < self.denied <= last

    def copy(self) -> ShownCards:
        """Return another one that says the same."""
        return ShownCards(self.expires_ms, self.used, self.denied)


#: What an author showed: (account's name, generation) -> its cards.
Showing = dict[tuple[str, int], ShownCards]


class KnownAccounts:
    """What is known of all accounts in the graph of this name. `prior` is what is known of them beforehand."""

    def __init__(self, graph: str, prior: Mapping[str, AccountStanding] | None = None) -> None:
        self._graph = graph
        #: Account's name -> what stands, from frames that were taken here.
        self.standings: dict[str, AccountStanding] = {}
        #: Rises with each card and each word about devices.
        self.version = 0
        self._prior = dict(prior or {})
        self._cards: dict[bytes, Card] = {}
        self._cuts: dict[bytes, Cuts] = {}

    def decode_card(self, data: bytes) -> Card:
        """Return a genuine card, read once. Raises `CardError`."""
        card = self._cards.get(data)
        if card is None:
            if len(data) > MAX_BYTES:
                raise CardError(f"a card has {MAX_BYTES} bytes at most")
            card = Card.parse(data)
            _remember(self._cards, data, card)
        return card

    def decode_cuts(self, data: bytes) -> Cuts:
        """Return the cuts in `data`, checked for this graph once. Raises `CutsError`, `CardError`."""
        cuts = self._cuts.get(data)
        if cuts is None:
            cuts = read_cuts(self._graph, data)
            _remember(self._cuts, data, cuts)
        return cuts

    def standing_of(self, name: str) -> AccountStanding:
        """Return what is known of an account, from frames or beforehand."""
        known, prior = self.standings.get(name, AccountStanding()), self._prior.get(name)
        return known if prior is None else known.merged_with(prior)

    def add_cuts(self, cuts: Cuts) -> None:
        """Take cuts out of a frame."""
        name = account_name(cuts.card.account)
        self.standings[name] = self.standings.get(name, AccountStanding()).with_cuts(cuts)

    def begin_with(self, prior: Mapping[str, AccountStanding]) -> None:
        """Set what is known of accounts before anything was taken."""
        self._prior = dict(prior)

    def all_standing(self) -> dict[str, AccountStanding]:
        """Return all that stands, to begin again with."""
        return {name: self.standing_of(name) for name in self.standings.keys() | self._prior.keys()}

    # ---- as bytes -----------------------------------------------------------------------------------------------

    def save_accounts(self) -> list[Any]:
        """Return the same on all replicas that saw the same."""
        return [
            [name, one.generation, sorted(one.named), sorted([*each] for each in one.clocks.items())]
            for name, one in sorted(self.standings.items())
        ]

    def load_accounts(self, saved: Iterable[Any]) -> None:
        """Take what `save` gave."""
        for name, generation, named, clocks in saved:
            self.standings[name] = AccountStanding(generation, frozenset(named), dict(clocks))


def save_showing(showing: Showing) -> list[Any]:
    """Return what an author showed, as lists."""
    return sorted([*place, one.expires_ms, one.used, one.denied] for place, one in showing.items())


def load_showing(saved: Iterable[Any]) -> Showing:
    """Return what `save_showing` gave."""
    return {(name, generation): ShownCards(*numbers) for name, generation, *numbers in saved}


def _remember(cache: dict[bytes, Any], data: bytes, value: object) -> None:
    if len(cache) >= 4096:
        cache.clear()
    cache[data] = value
