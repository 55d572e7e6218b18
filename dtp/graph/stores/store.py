"""Where frames are kept: the contract, and memory. Each call is whole or not at all."""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

from dtp.graph.errors import GraphError, StoreError
from dtp.graph.frames.envelope import SKIPPED, Signed
from dtp.graph.frames.proving import Proof
from dtp.plurals import count_of

MEMORY: Final = "memory:"


class Loaded(NamedTuple):
    """What a store has when it is opened."""

    #: What `save_state` was given last, None when there is none that can be used.
    state: bytes | None
    #: The envelopes that came after it, in the order in which they came.
    later: Iterator[bytes]


class Damage(NamedTuple):
    """What was found in a damaged store, which was written anew without it."""

    #: Frames that can't be read any more.
    frames: int
    #: Frames that can, but build on some of those.
    aside: int
    #: Whether the last things that were written are gone, nobody knows how many.
    tail: bool
    #: The damaged file.
    original: Path

    def with_earlier(self, other: Damage) -> Damage:
        """Return both as one."""
        return self._replace(frames=self.frames + other.frames, tail=self.tail or other.tail)

    def __str__(self) -> str:
        """Say it to people."""
        lost = [count_of(self.frames, "frame")] if self.frames else []
        lost += ["what was written last"] if self.tail else []
        what = f"{' and '.join(lost)} couldn't be read any more" if lost else "no frame was lost"
        return (
            f"the store was damaged: {what}. It was written anew from the rest; a sync with any peer brings back "
            f"what others have. The damaged file is {self.original}"
        )


def fit_sequences(parts: list[Signed], there: list[int]) -> list[int]:
    """Return the places in `there`, the sequences that are stored up to the last part's, that the parts come to.

    A part's is the first that ends with it or later: whoever has taken what is there up to it has taken the part, and
    the parts come in their order. Empty where two parts would come to one place, or they save nothing.
    """
    places = [bisect_left(there, part.sequence) for part in parts]
    is_whole = bool(there) and there[-1] == parts[-1].sequence and len(parts) < len(there)
    return places if is_whole and all(a < b for a, b in pairwise(places)) else []


class Store(ABC):
    """The contract of a place where one graph's frames are kept, by (author, sequence).

    Methods are called from one thread or another. What `add` has returned from survives the death of the process;
    with `synced`, of the machine. Whoever is killed in a method leaves what was there before it, or after it.
    Failures are `StoreError`.
    """

    #: The graph's.
    name: str
    #: Whether it is gone with the process.
    forgets: bool = False
    #: Where the graph's blobs are kept, if there is such a place.
    blob_folder: Path | None = None
    #: Where summaries for others are kept (`dtp.graph.sync.passing`); None: in memory.
    passed_folder: Path | None = None
    #: Authors whose frames are left where they are: not read into replicas (`dtp.graph.permission.admission`).
    hidden: frozenset[bytes] = frozenset()
    #: What was mended when it was opened, or read since then.
    damage: Damage | None = None

    @abstractmethod
    def load_saved(self) -> Loaded:
        """Return what is there. The first call."""

    def on_loaded(self) -> None:
        """Note that all that opening needs was read."""
        return

    def load_again(self) -> Loaded:
        """Return what `load` would give now; no state where that isn't known."""
        return Loaded(None, iter(()))

    @abstractmethod
    def last_sequences(self) -> dict[bytes, int]:
        """Return author -> its highest sequence; what is there stands for all from 1 on."""

    def newest_envelopes(self) -> Iterator[bytes]:
        """Yield the last envelope of each author."""
        for author, last in self.last_sequences().items():
            yield from self.read_frames(author, last, last)

    @abstractmethod
    def add_frames(self, envelopes: Iterable[Signed], *, synced: bool) -> None:
        """Keep them, all or none. One whose (author, sequence) is there already is left out."""

    @abstractmethod
    def read_frames(self, author: bytes, first: int, last: int) -> list[bytes]:
        """Return what an author signed that ends with one of these sequences, in order, as far as it is there."""

    @abstractmethod
    def find_covering(self, author: bytes, sequence: int) -> bytes | None:
        """Return the first that an author signed and that ends with this sequence or a later one."""

    @abstractmethod
    def replace_frames(self, parts: list[Signed]) -> int:
        """Put parts, from an author's first frame on and without gaps, in the place of all up to the last of them,
        all or none; how many fewer there are. 0, and nothing was done, where they don't fit what is there."""

    def release_space(self) -> None:
        """Give back the room of what isn't there any more."""
        return

    def read_part(self) -> bytes | None:
        """Return what `set_part` was given last: the part of the graph that is here. None: all is."""
        return None

    def set_part(self, part: bytes, own: bytes) -> None:
        """Have another part here. Of each author but `own` all goes from the first that was skipped on, to come
        again. Raises `GraphError` where that can't be now, as other programs have the store open."""
        raise GraphError("this store has no parts: keep one in a file, in memory, or in PostgreSQL")

    def size_of(self, author: bytes, first: int, last: int) -> int:
        """Return bytes of what `read` would give."""
        step = 256
        starts = range(first, last + 1, step)
        return sum(
            len(one) for at in starts for one in self.read_frames(author, at, min(last, at + step - 1))
        )

    def author_sizes(self) -> dict[bytes, int]:
        """Return author -> bytes of its envelopes."""
        return {author: self.size_of(author, 1, last) for author, last in self.last_sequences().items()}

    @abstractmethod
    def read_policy(self) -> bytes | None:
        """Return what `save_policy` was given last, None if that was nothing."""

    @abstractmethod
    def save_policy(self, policy: bytes, forget_state: bool) -> None:
        """Keep whom this graph takes in; with `forget_state` no state stays, as it may have what is hidden now."""

    @abstractmethod
    def purge_author(self, author: bytes) -> None:
        """Remove all of an author, for good: the store takes less room then. No kept state is left."""

    @abstractmethod
    def save_state(self, state: bytes) -> None:
        """Keep the state that all envelopes up to now give, so that the next `load` is fast."""

    @abstractmethod
    def add_proof(self, proof: Proof) -> None:
        """Keep the proof that an author signed two histories; the first of an author is enough."""

    @abstractmethod
    def read_proofs(self) -> list[tuple[bytes, bytes]]:
        """Return the two envelopes of each proof."""

    def watch_damage(self, on_damage: Callable[[], None]) -> None:
        """Have `on_damage` called, from any thread, when damage was found and mended: some frames may be gone."""
        return

    def rewrite_file(self) -> None:
        """Write the store anew from what can be read of it. Raises `StoreError` where it can't be."""
        raise StoreError("only a graph in a file can be mended; sync a new one with a peer")

    def read_aside(self) -> Iterator[bytes]:
        """Yield envelopes that build on lost ones, and wait here until those are there again."""
        return iter(())

    def read_gaps(self) -> list[tuple[bytes, int, int]]:
        """Return what was lost, as far as something behind it is `aside`: (author, first, last)."""
        return []

    def last_aside(self) -> list[bytes]:
        """Return the last envelope of each author of whom something is `aside`."""
        return []

    def rejoin_aside(self, author: bytes) -> bytes | None:
        """Put what was aside behind the author's other frames, up to the next gap; return the last of it, None if
        there was nothing."""
        return None

    def why_uncertain(self, author: bytes) -> str | None:
        """Return why frames that this author signed may be missing here; None if nothing speaks for it."""
        return None

    def remember_signed(self, author: bytes, sequence: int) -> None:
        """Remember, outside of the store, that this author has signed so many frames, for `uncertain`."""
        return

    def count_signed(self, author: bytes) -> int:
        """Return how many frames this author has signed in the store, as far as is remembered outside of it."""
        return 0

    def adopt_author(self, author: bytes, instead: Iterable[Signed] = ()) -> None:
        """Take this store for the one that goes on for the author: `uncertain` is None from now on.

        `instead` comes in place of what is aside of the author. The state that was kept is gone then.
        """
        return

    def read_added(self) -> list[bytes]:
        """Return what other programs have added since `load` or the last `news`, in the order in which it came."""
        return []

    def return_added(self, envelopes: list[bytes]) -> None:
        """Have `read_added` return these once more, before all else: they could not be taken yet."""
        return

    def watch_news(self, on_news: Callable[[], None]) -> None:
        """Call `on_news`, from any thread, when another program may have added something; never where none can."""
        return

    @abstractmethod
    def close(self) -> None:
        """Let go of it. Idempotent."""


class MemoryStore(Store):
    """Frames in memory, gone with it."""

    forgets = True

    def __init__(self, name: str = "") -> None:
        self.name = name
        self._frames: dict[tuple[bytes, int], bytes] = {}
        self._sequences: dict[bytes, list[int]] = {}
        self._proofs: dict[bytes, tuple[bytes, bytes]] = {}
        self._policy: bytes | None = None
        self._part: bytes | None = None

    def load_saved(self) -> Loaded:
        return Loaded(None, iter(list(self._frames.values())))

    def last_sequences(self) -> dict[bytes, int]:
        return {author: sequences[-1] for author, sequences in self._sequences.items()}

    def add_frames(self, envelopes: Iterable[Signed], *, synced: bool) -> None:
        for envelope in envelopes:
            key = envelope.author, envelope.sequence
            if key not in self._frames:
                self._frames[key] = envelope.encode()
                insort(self._sequences.setdefault(envelope.author, []), envelope.sequence)

    def read_frames(self, author: bytes, first: int, last: int) -> list[bytes]:
        sequences = self._sequences.get(author, [])
        some = sequences[bisect_left(sequences, first) : bisect_left(sequences, last + 1)]
        return [self._frames[author, sequence] for sequence in some]

    def find_covering(self, author: bytes, sequence: int) -> bytes | None:
        sequences = self._sequences.get(author, [])
        at = bisect_left(sequences, sequence)
        return self._frames[author, sequences[at]] if at < len(sequences) else None

    def replace_frames(self, parts: list[Signed]) -> int:
        author, upto = parts[0].author, parts[-1].sequence
        sequences = self._sequences.get(author, [])
        end = bisect_left(sequences, upto + 1)
        there = sequences[:end]
        if not fit_sequences(parts, there):
            return 0
        for sequence in there:
            del self._frames[author, sequence]
        self._sequences[author] = [part.sequence for part in parts] + sequences[end:]
        self._frames = {(author, part.sequence): part.encode() for part in parts} | self._frames
        return len(there) - len(parts)

    def read_policy(self) -> bytes | None:
        return self._policy

    def save_policy(self, policy: bytes, forget_state: bool) -> None:
        self._policy = policy

    def purge_author(self, author: bytes) -> None:
        for sequence in self._sequences.pop(author, []):
            del self._frames[author, sequence]
        self._proofs.pop(author, None)

    def read_part(self) -> bytes | None:
        return self._part

    def set_part(self, part: bytes, own: bytes) -> None:
        self._part = part
        for author, sequences in self._sequences.items():
            first = next((s for s in sequences if self._frames[author, s].startswith(SKIPPED)), None)
            if first is not None and author != own:
                for sequence in sequences[(at := sequences.index(first)) :]:
                    del self._frames[author, sequence]
                del sequences[at:]
        self._sequences = {author: some for author, some in self._sequences.items() if some}

    def save_state(self, state: bytes) -> None:
        pass  # memory is there until it isn't

    def add_proof(self, proof: Proof) -> None:
        self._proofs.setdefault(proof.author, (proof.first.encode(), proof.second.encode()))

    def read_proofs(self) -> list[tuple[bytes, bytes]]:
        return list(self._proofs.values())

    def close(self) -> None:
        pass
