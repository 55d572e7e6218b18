"""Accounts in a graph: whose devices write as one person, and what is left of one that was lost.

The part of a graph that `Graph.accounts` gives. docs/graph.md, "Accounts"; docs/identity.md has cards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

from dtp.crdt.clock import clock_seconds
from dtp.crdt.permission.access import ACCESS
from dtp.crdt.permission.accounts import CARD, CUTS, FOREVER, MAX_CUTS, make_cuts
from dtp.crdt.permission.owners import owner_name
from dtp.errors import DtpError
from dtp.graph.errors import GraphError
from dtp.graph.permission.access import key_of
from dtp.identity import Account, Card, PeerId

if TYPE_CHECKING:
    from dtp.graph.graph import Graph


class KnownDevice(NamedTuple):
    """A device of an account, as far as is known in a graph."""

    peer: PeerId
    label: str
    #: Whether the newest card names it.
    is_named: bool
    #: Up to when what it wrote counts, seconds since 1970; None while all of it does.
    ended: float | None


class Accounts:
    """The accounts of a graph: who writes for which, and up to where.

    Souls of an account, `own(path)`, are written by all devices that its card names, and by nobody else. Methods that
    take an `Account` need its key; others need none. What they change leaves with the next commit.
    """

    def __init__(self, graph: Graph, last_clock: Callable[[bytes], int]) -> None:
        """`last_clock` gives the clock of what is here last of an author."""
        self._graph = graph
        self._last_clock = last_clock

    # ---- writing for one ----------------------------------------------------------------------------------------

    def join(self, card: Card) -> None:
        """Write for an account, as one of its devices. Others learn of its devices by this card, so whoever adds one
        calls this on an older one, too. Raises `GraphError` for a card that doesn't name this identity."""
        if not isinstance(card, Card):
            raise GraphError(f"join takes a Card, not {type(card).__name__!r}: read bytes with Card.parse")
        graph = self._graph
        graph.check_writable()
        if not card.names(graph.identity.id.key):
            raise GraphError(
                f"{graph.identity.id} is not a device of {card.name}: have it added by whoever has the account's key"
            )
        graph.replica.permits.cards[card.name] = card
        if graph.replica.get(self._own_access, f"{CARD}{card.name}") != card.encode():
            graph.replica.put(self._own_access, f"{CARD}{card.name}", card.encode())

    @property
    def _own_access(self) -> str:
        return f"{ACCESS}/{owner_name(self._graph.identity.id.key)}"

    def mine(self) -> list[Card]:
        """Return the newest cards that name this identity, one of each account."""
        return [card for card in self.cards() if card.names(self._graph.identity.id.key)]

    def own(self, path: str = "", account: str | None = None) -> str:
        """Return the soul of the account's own at `path`, whichever of its devices writes there.

        `account` is its name, if this identity is a device of several. Raises `GraphError`.
        """
        names = [card.name for card in self.mine()] if account is None else [account]
        if len(names) != 1:
            raise GraphError(
                f"this identity is a device of {len(names)} accounts in this graph: "
                + ("name one" if names else "join one first (`graph.accounts.join(card)`)")
            )
        return f"~{names[0]}/{path}" if path else f"~{names[0]}"

    # ---- who there is -------------------------------------------------------------------------------------------

    def cards(self) -> list[Card]:
        """Return the newest card of each account that is known in this graph, by name."""
        replica = self._graph.replica
        newest: dict[str, Card] = {}
        for card in (*replica.access.iter_cards(replica.core), *replica.permits.cards.values()):
            if card.name not in newest or card.supersedes(newest[card.name]):
                newest[card.name] = card
        return [newest[name] for name in sorted(newest)]

    def card(self, account: str) -> Card:
        """Return the newest card of an account. Raises `GraphError` for one that isn't known here."""
        for card in self.cards():
            if card.name == account:
                return card
        raise GraphError(f"no card of {account} has come here")

    def devices(self, account: str) -> list[KnownDevice]:
        """Return all devices that an account has or had, by their keys. Raises `GraphError`."""
        card, standing = self.card(account), self._graph.replica.access.accounts.standing_of(account)
        labels = {device.key: device.label for device in card.devices}
        found = []
        for key in sorted({*labels, *self.find_writers(account), *standing.clocks}):
            generation = self._find_generation(account, key)
            last = (
                FOREVER if generation is None and key in labels else standing.last_clock(key, generation or 0)
            )
            ended = None if last == FOREVER else clock_seconds(last)
            found.append(KnownDevice(PeerId(key), labels.get(key, ""), key in labels, ended))
        return found

    def find_writers(self, account: str) -> set[bytes]:
        """Return who has written for an account here, or said that it would."""
        authors = self._graph.replica.access.authors
        return {key for key, known in authors.items() if any(name == account for name, _ in known.showing)}

    def _find_generation(self, account: str, device: bytes) -> int | None:
        shown = self._graph.replica.access.author_state(device).showing
        return max((generation for name, generation in shown if name == account), default=None)

    # ---- putting devices out ------------------------------------------------------------------------------------

    def revoke(self, account: Account, device: PeerId | str | bytes) -> Account:
        """Put a device out of an account, and return the account with its new card: keep it.

        What the device wrote up to what has come here stays; all else is void on all replicas, whenever they saw it.
        To be done in each graph in which the account is used, with the account that the first one returned:
        `revoke_device` does so in several. Raises `GraphError`, and `AccountError` for what is not a device.
        """
        gone = key_of(device)
        if account.card.names(gone) or gone not in self.find_writers(account.card.name):
            account = account.remove(PeerId(gone))
        self._end_devices(account, [gone])
        return account

    def end_device(self, account: Account, device: PeerId | str | bytes) -> None:
        """Void what a device that the account's card doesn't name any more writes in this graph from now on, whether
        it ever wrote here or not. Raises `GraphError` for one that the card names."""
        self._check_gone(account, key_of(device))
        self._end_devices(account, [key_of(device)])

    @staticmethod
    def _check_gone(account: Account, device: bytes) -> None:
        if account.card.names(device):
            raise GraphError(f"{PeerId(device)} is a device of {account.card.name}: revoke it first")

    def take_over(self, account: Account) -> None:
        """Say in this graph that the account has another key (`Account.rotate`). What devices that its card doesn't
        name wrote up to what has come here stays, all else of them is void, and so is all that the key before says.

        Of a device that a thief added, `ignore` the rest. Raises `GraphError`.
        """
        name = account.card.name
        self._end_devices(account, [key for key in self.find_writers(name) if not account.card.names(key)])

    def ignore(self, account: Account, device: PeerId | str | bytes) -> None:
        """Void all that a device ever wrote for an account. Raises `GraphError` for one that its card names."""
        gone = key_of(device)
        self._check_gone(account, gone)
        self._end_devices(account, [gone], clock=0)

    def _end_devices(self, account: Account, devices: Iterable[bytes], *, clock: int | None = None) -> None:
        graph, name = self._graph, account.card.name
        self.join(account.card)
        standing = graph.replica.access.accounts.standing_of(name)
        # all that this key said before, so that the register has it whole; a new key says only what it knows of
        clocks = dict(standing.clocks) if standing.generation == account.card.generation else {}
        for device in devices:
            last = self._last_clock(device) if clock is None else clock
            clocks[device] = min(last, standing.clocks.get(device, last))
        if len(clocks) > MAX_CUTS:
            raise GraphError(
                f"an account ends {MAX_CUTS} devices at most: give it another key (`Account.rotate`)"
            )
        cuts = make_cuts(account.identity, graph.name, account.card, clocks)
        graph.replica.put(self._own_access, f"{CUTS}{name}", cuts.encode())


class Revoked(NamedTuple):
    """What came of putting a device out of an account in several graphs."""

    #: With its new card: keep it.
    account: Account
    #: The graphs that don't say so, and why.
    refused: tuple[tuple[Graph, DtpError], ...]


async def revoke_device(graphs: Iterable[Graph], account: Account, device: PeerId | str | bytes) -> Revoked:
    """Put a device out of an account in all of these graphs, also where it never wrote, and commit each.

    A graph that refuses, since it is only read, say, doesn't stop the others: it is in `refused`. Raises `GraphError`
    for what is not a name, and `AccountError` for what is not a device.
    """
    gone, all_graphs = key_of(device), list(graphs)
    known = any(gone in graph.accounts.find_writers(account.card.name) for graph in all_graphs)
    if account.card.names(gone) or not known:
        account = account.remove(PeerId(gone))
    refused: list[tuple[Graph, DtpError]] = []
    for graph in all_graphs:
        try:
            graph.accounts.end_device(account, gone)
            await graph.commits.commit()
        except DtpError as error:
            refused.append((graph, error))
    return Revoked(account, tuple(refused))
