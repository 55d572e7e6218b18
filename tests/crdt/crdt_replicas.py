"""What these tests share: replicas with known keys, clocks and randomness, and what they hold in plain terms."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import msgpack

from dtp.core import crdt as core
from dtp.crdt import Clock, Replica


def author(number: int) -> bytes:
    """Some author's key."""
    return bytes((number + 1,)) * 32


class Wall:
    """A wall clock that goes when told to."""

    def __init__(self, seconds: float = 1_000.0) -> None:
        self.seconds = seconds

    def __call__(self) -> float:
        return self.seconds


def known_random(seed: int) -> Callable[[int], bytes]:
    return random.Random(seed).randbytes


def replica(number: int, wall: Callable[[], float] | None = None, drift: float = 60.0) -> Replica:
    return Replica(author(number), clock=Clock(wall or Wall(), drift), random=known_random(number))


def exchange(*replicas: Replica) -> None:
    """All commit, and get each other's frames."""
    frames = [frame for one in replicas for frame in one.commit()]
    for one in replicas:
        for frame in frames:
            one.merge(frame.author, frame.body)


def contents(one: Replica) -> dict[tuple[str, str, int], Any]:
    """(soul, key, space) -> what is there, in the terms of `second.Model.read`."""
    found: dict[tuple[str, str, int], Any] = {}
    for soul in one.souls():
        name = soul.encode()
        for key in msgpack.unpackb(one.core.read_keys(core.REGISTER, name), ext_hook=msgpack.ExtType):
            found[soul, key, core.REGISTER] = one.core.get_register(name, key.encode())
        for space in (core.COUNTER, core.SET, core.VALUES):
            for key in msgpack.unpackb(one.core.read_keys(space, name)):
                entries = msgpack.unpackb(one.core.read_space(space, name, key.encode()))
                if space == core.COUNTER:
                    found[soul, key, space] = sum(total for _, total in entries)
                else:
                    found[soul, key, space] = {
                        (one.author_key(by), clock): msgpack.packb(value) for by, clock, value in entries
                    }
        for key in msgpack.unpackb(one.core.read_keys(core.LIST, name)):
            if items := one.list(soul, key).comparable_contents():
                found[soul, key, core.LIST] = items
    return found
