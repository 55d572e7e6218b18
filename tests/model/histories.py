"""Random histories of several replicas: made from a seed, as steps that mean something wherever they stand, so that
any of them can be left out; and the smallest part of a history that still fails."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple

#: What happens, and how often beside the others.
WEIGHTS = {
    "put": 10,
    "delete": 3,
    "put_many": 2,
    "link": 3,
    "unlink": 2,
    "count": 4,
    "add": 5,
    "discard": 4,
    "set": 4,
    "unset": 2,
    "map": 5,
    "unmap": 3,
    "type": 8,
    "erase": 5,
    "undo": 1,
    "back": 4,
    "nest": 5,
    "push": 6,
    "pull": 3,
    "move": 4,
    "assign": 4,
    "vote": 3,
    "grant": 2,
    "revoke": 2,
    "publish": 2,
    "seal": 3,
    "whisper": 5,
    "commit": 8,
    "sync": 14,
    "pass": 4,
    "reorder": 2,
    "sleep": 4,
    "jump": 2,
    "reopen": 3,
    "crash": 3,
    "backup": 2,
    "restore": 1,
    "fork": 1,
    "compact": 1,
    "devices": 2,
    "ban": 2,
    "prune": 2,
    "drop": 2,
    "everyone": 2,
}


class Step(NamedTuple):
    """One thing that happens: at which replica, and numbers to choose by."""

    what: str
    at: int
    a: int
    b: int
    c: int


class History(NamedTuple):
    """Where replicas are kept, and what happens to them."""

    seed: int
    stores: tuple[str, ...]
    steps: tuple[Step, ...]
    #: Whether the last replica asks only for a part.
    has_part: bool = False
    #: How many of all replicas have to agree to a sum of frames; 0: nobody.
    need: int = 0
    #: Whether nobody asks for that in the beginning, and each by a step of its own, and otherwise again.
    is_late: bool = False

    def __str__(self) -> str:
        lines = [
            f"history {self.seed}: {', '.join(self.stores)}{', a part' if self.has_part else ''}"
            f"{f', sums need {self.need}' if self.need else ''}{', late' if self.is_late else ''}"
        ]
        return "\n".join(lines + [f"  {i:3} {' '.join(map(str, step))}" for i, step in enumerate(self.steps)])


#: What a history is mostly about: so that what has to come together does.
THEMES: tuple[tuple[str, ...], ...] = (
    (),
    ("put", "delete", "add", "discard", "map", "unmap", "set", "unset", "count", "link", "unlink"),
    ("type", "erase", "undo", "compact", "pass", "reorder"),
    ("nest", "sync", "pass", "back"),
    ("push", "pull", "move", "assign", "pass", "reorder"),
    ("grant", "revoke", "put", "add", "type", "sync"),
    ("vote", "pass"),
    ("ban", "put", "type", "push", "sync", "pass", "reopen", "grant"),
    ("devices", "put", "add", "type", "sync", "pass"),
    ("publish", "seal", "whisper", "grant", "sync"),
    ("backup", "restore", "put", "sync", "commit"),
    ("fork", "put", "commit", "pass"),
    ("prune", "put", "count", "drop", "sync", "reopen", "fork"),
    ("jump", "sleep", "put", "type", "crash", "sync"),
    ("crash", "reopen", "type", "push", "commit"),
)


def make(seed: int, *, most: int = 60) -> History:
    """The history of a seed."""
    rng = random.Random(seed)
    kept = tuple(rng.choice(("memory", "sqlite")) for _ in range(rng.randint(2, 4)))
    theme = rng.choice(THEMES)
    about = {what: weight * rng.choice((0, 1, 1, 3)) for what, weight in WEIGHTS.items()}
    about["sync"] = max(about["sync"], WEIGHTS["sync"])
    about |= dict.fromkeys(theme, 12)
    chosen = rng.choices(list(about), list(about.values()), k=rng.randint(10, most))
    steps = (_step(rng, what) for what in chosen)
    return _mixed(History(seed, kept, tuple(steps)))


#: What isn't for parts, or makes what they show depend on what they can't know.
_WHOLE = {"fork", "jump", "compact", "pass", "reorder", "restore", "backup"}
#: What makes two histories of one author, or others judge by another time or without some: of these there are others.
_AGREED = {"fork", "jump", "restore", "backup", "ban"}


def _mixed(history: History) -> History:
    """In every fifth history the last replica asks for a part; in every fourth some are kept in PostgreSQL."""
    rng = random.Random(f"mix {history.seed}")
    has_part, in_postgres = rng.random() < 1 / 5, rng.random() < 1 / 4
    if has_part:
        steps = tuple(step for step in history.steps if step.what not in _WHOLE)
        history = history._replace(steps=steps, has_part=True)
    if in_postgres:
        kept = [rng.choice((kind, "postgres")) for kind in history.stores]
        kept[rng.randrange(len(kept))] = "postgres"
        history = history._replace(stores=tuple(kept))
    return _compacted(_agreed(history))


def _agreed(history: History) -> History:
    """In every eighth history that is of no part all ask for agreement to sums. In the end some write what is worth
    one, drop the frames, and agree; and one comes who has nothing yet. In half of them one drops frames in the
    beginning, before anybody else has them. In every third nobody asks for it before the middle, and then they ask
    for this and that, more and fewer."""
    rng = random.Random(f"agreed {history.seed}")
    if history.has_part or rng.random() >= 1 / 8:
        return history
    steps = [step for step in history.steps if step.what not in _AGREED]
    few = len(history.stores)
    ends = ["swell", *rng.choices(("swell", "prune"), k=2), *["everyone"] * rng.randint(0, 2)]
    ends += rng.choices(("prune", "prune", "swell", "put", "sync"), k=2 * few)
    last = rng.choices(("sync", "sync", "sync", "prune", "swell", "pass"), k=3 * few)
    steps += [_step(rng, what) for what in [*ends, "join"]]
    steps += [_step(rng, what)._replace(at=rng.choice((few, rng.randrange(few)))) for what in last]
    if rng.random() < 1 / 2:
        first = rng.randrange(few)
        early = ["swell", "swell", *rng.choices(("swell", "prune", "put"), k=3), "prune"]
        steps[:0] = [_step(rng, what)._replace(at=first) for what in early]
    is_late = rng.random() < 1 / 3
    for _ in range(3 * few if is_late else 0):
        steps.insert(rng.randint(len(steps) // 3, len(steps)), _step(rng, "ask"))
    return history._replace(steps=tuple(steps), need=rng.randint(1, min(few, 2)), is_late=is_late)


#: What is written before all forget what is deleted, and what happens behind that, how often beside the others.
_WRITTEN = {"type": 5, "erase": 5, "push": 4, "pull": 4, "move": 2, "assign": 2}
_BEHIND = {**_WRITTEN, "undo": 1, "compact": 3, "commit": 2, "pass": 4, "reorder": 3, "sync": 2}


def _compacted(history: History) -> History:
    """In every fourth history that is of no part, and asks for no agreement, all forget twice what all have seen
    deleted of a text and a list. Behind that they edit these on, and get what others made late, and in any order: so
    it is concurrent with what is newer, and stands beside what is forgotten. Sometimes one comes who wasn't asked,
    and in every fourth of these histories somebody's store then loses what another one had made."""
    rng = random.Random(f"compacted {history.seed}")
    if history.has_part or history.need or rng.random() >= 1 / 4:
        return history
    names = ["type", "push"]
    for _ in range(2):
        names += rng.choices(["sync", *_WRITTEN], [6, *_WRITTEN.values()], k=rng.randint(6, 14))
        names += ["settle", *["join"] * (rng.random() < 1 / 8)]
        names += rng.choices(list(_BEHIND), list(_BEHIND.values()), k=rng.randint(8, 20))
    steps = [_step(rng, what) for what in names]
    steps = [step._replace(a=0) if step.what in _WRITTEN else step for step in steps]
    at = rng.randint(0, len(history.steps))
    lost = random.Random(f"lost {history.seed}")
    if lost.random() < 1 / 4:
        settled = [place for place, step in enumerate(steps) if step.what == "settle"]
        steps.insert(lost.choice(settled) + 1, _step(lost, "damage"))
    return history._replace(steps=(*history.steps[:at], *steps, *history.steps[at:]))


def _step(rng: random.Random, what: str) -> Step:
    return Step(what, *(rng.randrange(1 << 16) for _ in range(4)))


def shrink(history: History, fails: Callable[[History], bool], *, runs: int = 400) -> History:
    """The history without whatever steps it fails without, as far as `runs` tries find out."""
    size = max(1, len(history.steps) // 2)
    while runs > 0:
        at, smaller = 0, False
        while at < len(history.steps) and runs > 0:
            tried = history._replace(steps=history.steps[:at] + history.steps[at + size :])
            runs -= 1
            if fails(tried):
                history, smaller = tried, True
            else:
                at += size
        if size == 1 and not smaller:
            break
        size = max(1, size // 2)
    return history
