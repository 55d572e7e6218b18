"""`broadcast::show`: live broadcasts that are on air for as long as they are paid for.

Functions add the commands of one Move function to a `Program`. `coin` is the type of the money. What is returned is
an argument: give it to a further command, or to `Program.transfer`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from hashlib import blake2b
from typing import Final

from dtp.chain.model import SUI_COIN, canonical_type
from dtp.chain.node.commands import Argument, ObjectLike, Program
from dtp.chain.packages.broadcast_names import PACKAGE, Module
from dtp.chain.packages.broadcast_names.show import SHOW_FIELDS, ShowError, ShowStruct
from dtp.chain.packages.broadcast_names.show import ShowFunction as Function
from dtp.chain.values import MoveSchema
from dtp.unicode import encode_text

__all__ = [
    "FIRST_HEAD",
    "SCHEMA",
    "Collected",
    "Contributed",
    "EntryAsked",
    "EntryKind",
    "ProducerCap",
    "Raised",
    "Returned",
    "Show",
    "ShowCreated",
    "ShowError",
    "ShowMigrated",
    "ShowShare",
    "ShowState",
    "SlotsPosted",
    "StateChanged",
]

#: The head of a hash chain in which nothing was posted.
FIRST_HEAD: Final = bytes(32)


class ShowState(IntEnum):
    """Whether slots are paid."""

    #: Waits for money or tickets, or has paused by itself.
    OFF = 0
    ON_AIR = 1
    #: Over: what is unspent goes back.
    ENDED = 2


class EntryKind(IntEnum):
    """What an entry of the audience line is."""

    TIP = 0
    REQUEST = 1
    QUESTION = 2


@dataclass(frozen=True)
class Show:
    """A show. `rate` and `start_pot` are 0 for ticketed ones, what is about tickets for funded ones.

    `tickets` are those that were bought and not taken back.
    `prepaid` is what those who left have paid for slots that aren't posted yet: the pot pays the rest of them.
    Contributed = released + returned + pot; released + tipped = collected + earned.
    """

    id: str
    version: int
    key: bytes
    hint: bytes
    slot_ms: int
    batch: int
    rate: int
    start_pot: int
    ticket_price: int
    fewest: int
    slots: int
    start_by_ms: int
    prices: tuple[int, ...]
    state: int
    pot: int
    earned: int
    prepaid: int
    shares: int
    round: int
    tickets: int
    posted: int
    head: bytes
    due_ms: int
    asked: int
    contributed: int
    released: int
    returned: int
    tipped: int
    collected: int

    @property
    def next_slot(self) -> int:
        """What the next slot costs; 0 while the show isn't on air."""
        if self.state != ShowState.ON_AIR:
            return 0
        return self.rate or self.pot // (self.slots - self.posted)

    @property
    def paid_slots(self) -> int:
        """How many slots of a funded show are paid: by its pot, and by those who have left it."""
        return (self.pot + self.prepaid) // self.rate if self.rate else 0

    def unspent_of(self, share: ShowShare) -> int:
        """Return a share's part of the pot, of which its part of slots that have begun is still to be paid."""
        if share.round != self.round or not self.shares:
            return 0
        return self.pot * share.shares // self.shares


@dataclass(frozen=True)
class ProducerCap:
    """Who has it is the producer of the show."""

    id: str
    show: str


@dataclass(frozen=True)
class ShowShare:
    """A part of a show's pot, and a ticket where tickets are sold."""

    id: str
    show: str
    round: int
    shares: int


@dataclass(frozen=True)
class ShowCreated:
    """Event: a show was made."""

    show: str
    cap: str
    key: bytes
    coin: str


@dataclass(frozen=True)
class Contributed:
    """Event: somebody has put money into the pot, or bought a ticket."""

    show: str
    share: str
    contributor: str
    amount: int
    pot: int
    tickets: int


@dataclass(frozen=True)
class StateChanged:
    """Event: the show is on air, or isn't any more, or is over."""

    show: str
    state: int
    pot: int


@dataclass(frozen=True)
class SlotsPosted:
    """Event: slots were posted and paid; `first` is the number of the first one."""

    show: str
    first: int
    hashes: tuple[bytes, ...]
    head: bytes
    released: int
    pot: int


@dataclass(frozen=True)
class Returned:
    """Event: somebody has taken back what was unspent; `paid` was its part of slots that had begun."""

    show: str
    share: str
    amount: int
    paid: int
    pot: int


@dataclass(frozen=True)
class EntryAsked:
    """Event: a tip, a request or a question. `sealed` says that the text is for the producer alone."""

    show: str
    number: int
    kind: int
    from_: str
    amount: int
    text: bytes
    sealed: bool


@dataclass(frozen=True)
class Raised:
    """Event: somebody has added to what was asked."""

    show: str
    number: int
    from_: str
    amount: int


@dataclass(frozen=True)
class Collected:
    """Event: the producer has taken what was earned."""

    show: str
    amount: int


@dataclass(frozen=True)
class ShowMigrated:
    """Event: a show was moved to another version of the package."""

    show: str
    from_: int
    to: int


SCHEMA: Final = MoveSchema(
    PACKAGE,
    Module.SHOW,
    SHOW_FIELDS,
    {
        ShowStruct.SHOW: Show,
        ShowStruct.PRODUCER_CAP: ProducerCap,
        ShowStruct.SHARE: ShowShare,
        ShowStruct.SHOW_CREATED: ShowCreated,
        ShowStruct.CONTRIBUTED: Contributed,
        ShowStruct.STATE_CHANGED: StateChanged,
        ShowStruct.SLOTS_POSTED: SlotsPosted,
        ShowStruct.RETURNED: Returned,
        ShowStruct.ASKED: EntryAsked,
        ShowStruct.RAISED: Raised,
        ShowStruct.COLLECTED: Collected,
        ShowStruct.MIGRATED: ShowMigrated,
    },
)


def next_head(head: bytes, slot: bytes) -> bytes:
    """Return the head of a show's hash chain behind `head` and the hash of a slot."""
    return blake2b(head + slot, digest_size=32).digest()


def _call(
    program: Program, function: Function, coin: str, *arguments: Argument, results: int = 0
) -> tuple[Argument, ...]:
    return program.call(PACKAGE, Module.SHOW, function, arguments, [canonical_type(coin)], results)


def _terms(program: Program, key: bytes, hint: str, slot_ms: int, batch: int) -> tuple[Argument, ...]:
    return (
        program.pure("vector<u8>", key),
        program.pure("vector<u8>", encode_text(hint, "the hint")),
        program.pure("u64", slot_ms),
        program.pure("u64", batch),
    )


def new_funded(
    program: Program,
    key: bytes,
    *,
    slot_ms: int,
    rate: int,
    start_pot: int,
    batch: int = 10,
    hint: str = "",
    prices: Sequence[int] = (0, 0, 0),
    coin: str = SUI_COIN,
) -> tuple[Argument, Argument]:
    """Return a funded show, to be shared with `share`, and the producer's cap. `key` (Ed25519) signs the segments.

    `prices` are the least for a tip, a request and a question. Sums are in the coin's smallest unit.
    """
    show, cap = _call(
        program,
        Function.NEW_FUNDED,
        coin,
        *_terms(program, key, hint, slot_ms, batch),
        program.pure("u64", rate),
        program.pure("u64", start_pot),
        program.pure("vector<u64>", prices),
        results=2,
    )
    return show, cap


def new_ticketed(
    program: Program,
    key: bytes,
    *,
    slot_ms: int,
    slots: int,
    ticket_price: int,
    fewest: int,
    start_by_ms: int,
    batch: int = 10,
    hint: str = "",
    prices: Sequence[int] = (0, 0, 0),
    coin: str = SUI_COIN,
) -> tuple[Argument, Argument]:
    """Return a ticketed show of `slots` slots, to be shared with `share`, and the producer's cap."""
    show, cap = _call(
        program,
        Function.NEW_TICKETED,
        coin,
        *_terms(program, key, hint, slot_ms, batch),
        program.pure("u64", ticket_price),
        program.pure("u64", fewest),
        program.pure("u64", slots),
        program.pure("u64", start_by_ms),
        program.pure("vector<u64>", prices),
        program.clock(),
        results=2,
    )
    return show, cap


def share(program: Program, show: Argument, *, coin: str = SUI_COIN) -> None:
    """Share a new show."""
    _call(program, Function.SHARE, coin, program.use(show))


def set_hint(program: Program, show: ObjectLike, cap: ObjectLike, hint: str, *, coin: str = SUI_COIN) -> None:
    """Say anew where the show is heard."""
    _call(
        program,
        Function.SET_HINT,
        coin,
        program.use(show),
        program.use(cap, mutable=False),
        program.pure("vector<u8>", encode_text(hint, "the hint")),
    )


def migrate(program: Program, show: ObjectLike, *, coin: str = SUI_COIN) -> None:
    """Move a show to the version of the package that is called. Anyone."""
    _call(program, Function.MIGRATE, coin, program.use(show))


def _pay_in(
    program: Program, function: Function, show: ObjectLike, payment: ObjectLike, coin: str
) -> Argument:
    """Add a call that puts a payment into a show; return the share that comes of it."""
    (share,) = _call(
        program, function, coin, program.use(show), program.use(payment), program.clock(), results=1
    )
    return share


def contribute(program: Program, show: ObjectLike, payment: ObjectLike, *, coin: str = SUI_COIN) -> Argument:
    """Put money into the pot of a funded show; returns the share."""
    return _pay_in(program, Function.CONTRIBUTE, show, payment, coin)


def buy_ticket(program: Program, show: ObjectLike, payment: ObjectLike, *, coin: str = SUI_COIN) -> Argument:
    """Buy a ticket for exactly its price; returns the share that it is."""
    return _pay_in(program, Function.BUY_TICKET, show, payment, coin)


def take_back(program: Program, show: ObjectLike, held: ObjectLike, *, coin: str = SUI_COIN) -> Argument:
    """Take back what is unspent of a share, but its part of slots that have begun; returns the coin."""
    (money,) = _call(
        program,
        Function.TAKE_BACK,
        coin,
        program.use(show),
        program.use(held),
        program.clock(),
        results=1,
    )
    return money


def ask(
    program: Program,
    show: ObjectLike,
    kind: EntryKind,
    payment: ObjectLike,
    text: bytes = b"",
    *,
    sealed: bool = False,
    coin: str = SUI_COIN,
) -> Argument:
    """Tip, request or ask; `sealed` says that the text is for the producer alone. Returns its number."""
    (number,) = _call(
        program,
        Function.ASK,
        coin,
        program.use(show),
        program.pure("u8", kind),
        program.use(payment),
        program.pure("vector<u8>", text),
        program.pure("bool", sealed),
        results=1,
    )
    return number


def raise_(
    program: Program, show: ObjectLike, number: int, payment: ObjectLike, *, coin: str = SUI_COIN
) -> None:
    """Add to what was asked."""
    _call(program, Function.RAISE, coin, program.use(show), program.pure("u64", number), program.use(payment))


def post(
    program: Program, show: ObjectLike, cap: ObjectLike, hashes: Sequence[bytes], *, coin: str = SUI_COIN
) -> None:
    """Post the hashes of slots that are over, in order; each is paid."""
    _call(
        program,
        Function.POST,
        coin,
        program.use(show),
        program.use(cap, mutable=False),
        program.pure("vector<vector<u8>>", hashes),
        program.clock(),
    )


def collect(program: Program, show: ObjectLike, cap: ObjectLike, *, coin: str = SUI_COIN) -> Argument:
    """Take what was earned; returns the coin."""
    (money,) = _call(
        program, Function.COLLECT, coin, program.use(show), program.use(cap, mutable=False), results=1
    )
    return money


def end(program: Program, show: ObjectLike, cap: ObjectLike, *, coin: str = SUI_COIN) -> None:
    """End a show, or cancel one that has not begun."""
    _call(program, Function.END, coin, program.use(show), program.use(cap, mutable=False))


def expire(program: Program, show: ObjectLike, *, coin: str = SUI_COIN) -> None:
    """End a ticketed show that did not start in time. Anyone."""
    _call(program, Function.EXPIRE, coin, program.use(show), program.clock())


def destroy(program: Program, show: ObjectLike, cap: ObjectLike, *, coin: str = SUI_COIN) -> None:
    """Delete a show that is over and empty, and its cap."""
    _call(program, Function.DESTROY, coin, program.use(show), program.use(cap))
