"""Cards and cuts of accounts, from docs/identity.md and docs/graph.md: who writes for an account, and up to where."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import msgpack
from crdt_second import PUT, Op
from plain import name_of, read_value

from dtp.identity import bech32

FOR_GOOD = 1 << 64


@dataclass(frozen=True)
class Card:
    """What an account says of itself (its signature is checked by those who take it)."""

    name: str
    generation: int
    expires: int
    devices: frozenset[bytes]

    @property
    def end(self) -> int:
        """The highest clock that it lets in."""
        return (self.expires << 16 | 0xFFFF) if self.expires else FOR_GOOD


@dataclass(frozen=True)
class Cuts:
    """Up to which clocks an account's devices count in a graph."""

    card: Card
    clocks: dict[bytes, int]


def read_card(data: bytes) -> Card:
    body, _ = msgpack.unpackb(data)
    _, key, recovery, rotations, _, _, expires, devices = msgpack.unpackb(body)
    account = hashlib.blake2b(b"dtp.account.v1" + key + recovery, digest_size=32).digest()
    name = bech32.encode("dtpa", account)
    return Card(name, len(rotations) + 1, expires, frozenset(device for device, _ in devices))


def read_cuts(data: bytes) -> Cuts:
    _, _, card, clocks, _ = msgpack.unpackb(data)
    return Cuts(read_card(card), dict(clocks))


def cuts_of(ops: Iterable[Op]) -> dict[str, list[Cuts]]:
    """Of each account the cuts that count: those of the highest generation."""
    found: dict[str, list[Cuts]] = {}
    for op in ops:
        if op.kind != PUT or op.value is None or op.soul != f"%access/{name_of(op.author)}":
            continue
        what, _, name = op.key.partition("/")
        if what != "cuts":
            continue
        cuts = read_cuts(read_value(op.value))
        if cuts.card.name == name and op.author in cuts.card.devices:
            found.setdefault(name, []).append(cuts)
    return {
        name: [each for each in all_ if each.card.generation == max(one.card.generation for one in all_)]
        for name, all_ in found.items()
    }


def last_clock(cuts: list[Cuts], device: bytes, generation: int) -> int:
    """The last clock of a device that counts, for cards of a generation that it showed."""
    highest = cuts[0].card.generation if cuts else 0
    told = [each.clocks[device] for each in cuts if device in each.clocks]
    if generation > highest:
        return FOR_GOOD
    if told:
        return min(told)
    if generation == highest or any(device in each.card.devices for each in cuts):
        return FOR_GOOD
    return 0
