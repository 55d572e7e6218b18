"""Short scenes of several transactions, for what random ones seldom come to."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from .things import BY_SERVER, OPEN, U64, Channel, Voucher
from .world import World

KEYS = tuple(f"key{i}" for i in range(6))

Action = tuple[str, str, dict[str, Any]]


class Scenes:
    """Choices by a seed, and scenes. The caller applies each action to the model before it asks for the next."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)

    def chance(self, p: float) -> bool:
        return self.rng.random() < p

    def near(self, right: Any, *others: Any) -> Any:
        """Mostly what is right."""
        return right if not others or self.chance(0.88) else self.rng.choice(others)

    def any(self, pool: Any) -> Any:
        return self.rng.choice(list(pool))

    def used(self, world: World) -> tuple[str, Channel] | None:
        """An open channel that isn't under a pass."""
        fit = [n for n, c in world.channels.items() if c.state == OPEN and c.pass_ is None]
        return (name := self.any(fit), world.channels[name]) if fit else None

    def growing(self, name: str, entry: Channel, lane: int, signer: str | bytes, count: int) -> Voucher:
        """A voucher of a lane for so many bytes more, and what they cost."""
        known = entry.lanes[lane]
        size = min(known.bytes + count, U64)
        worth = (known.requests * entry.terms.price_request << 20) + size * entry.terms.price_mib >> 20
        signer = signer if isinstance(signer, str) else KEYS[0]
        return Voucher(name, lane, known.sequence, min(worth, U64), known.requests, size, signer)

    def rotating(self, world: World) -> Iterator[Action]:
        """A key is changed, a close asked for, and the key before used to the end of its grace and of the claims."""
        if (found := self.used(world)) is None:
            return
        name, entry = found
        base, lane = {"channel": name}, self.rng.randrange(len(entry.lanes))
        key = entry.lanes[lane].key
        yield entry.client, "rotate_lane", base | {"lane": lane, "key": self.any(KEYS)}
        yield (
            "",
            "advance",
            {"ms": self.rng.choice([1, 1000, entry.terms.claim_ms - 1, entry.terms.claim_ms])},
        )
        if self.chance(0.8):
            yield entry.client, "request_close", base
        for until in (entry.lanes[lane].old_until_ms, entry.claims_until_ms):
            yield "", "advance", {"ms": max(1, until - world.now - self.rng.randrange(2))}
            voucher = self.growing(name, entry, lane, key, 2**20)
            yield entry.server, "claim", base | {"voucher": voucher}
        yield "dan", "finalize", base

    def crediting(self, world: World) -> Iterator[Action]:
        """Frames are sent, vouched for and credited, in parts where an epoch's cap or the deposit says so."""
        if (found := self.used(world)) is None:
            return
        name, entry = found
        base = {"channel": name}
        sender, credit = (
            (entry.client, "charge_credit")
            if entry.terms.bearer == BY_SERVER
            else (entry.server, "collect_credit")
        )
        yield sender, "pipe_open", base
        pipes = [n for n, p in world.pipes.items() if (p.channel, p.holder) == (name, sender)]
        if not pipes or entry.host not in world.hosts:
            return
        with_pipe = base | {"pipe": pipes[-1]}
        for size in self.rng.choices([100, 1000, 16_384, 50_000], k=3):
            yield sender, "pipe_send", with_pipe | {"host": entry.host, "flags": 0, "size": size}
        for _ in range(3):
            voucher = self.growing(
                name, entry, 0, entry.lanes[0].key, self.rng.choice([999, 16_384, 100_000])
            )
            yield self.near(entry.server, "dan"), "claim_for", base | {"voucher": voucher}
            yield sender, credit, with_pipe
            if self.chance(0.6):
                yield "", "epoch", {}
            yield "dan", "pay_owed", base
