"""The work that all contenders do, the same every time."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

KEYS = ("name", "age", "city", "score")


@dataclass
class Work:
    """`nodes` nodes with four properties; `updates` remote updates, of which 30 % come too late: the receiver has
    written the same property itself after they were made."""

    nodes: int
    updates: int
    seed: int = 1
    #: Soul -> key -> value.
    initial: dict[str, dict[str, object]] = field(init=False)
    #: (soul, key, value), made by somebody else.
    remote: list[tuple[str, str, object]] = field(init=False)
    #: What the receiver wrote later.
    own: list[tuple[str, str, object]] = field(init=False)

    def __post_init__(self) -> None:
        rng = random.Random(self.seed)
        self.initial = {
            f"node/{number}": {
                "name": f"user {number}",
                "age": number % 90,
                "city": f"c{number % 300}",
                "score": rng.random(),
            }
            for number in range(self.nodes)
        }
        self.remote = [
            (f"node/{rng.randrange(self.nodes)}", rng.choice(KEYS), self._value(rng))
            for _ in range(self.updates)
        ]
        late = rng.sample(self.remote, self.updates * 3 // 10)
        self.own = [(soul, key, self._value(rng)) for soul, key, _ in late]

    @staticmethod
    def _value(rng: random.Random) -> object:
        return rng.random() if rng.random() < 0.5 else rng.randrange(1_000_000)
