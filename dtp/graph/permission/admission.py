"""Whom a graph takes in: bans, purges and quotas. What it doesn't take it counts and names.

The part of a graph that `Graph.admission` gives. docs/keeping-graphs.md, "Bans" and "Quotas".
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgpack

from dtp.core import crdt as core
from dtp.core.crdt import FrameLoad
from dtp.crdt import values
from dtp.crdt.permission.owners import BANS, owner_name
from dtp.crdt.permission.weights import DOCUMENT_BYTE
from dtp.graph.errors import GraphError, StoreError
from dtp.graph.frames import envelope as envelopes
from dtp.graph.frames.chains import Chains
from dtp.graph.frames.envelope import Envelope, Summary
from dtp.graph.permission.access import key_of
from dtp.graph.permission.agreement import (
    Agreement,
    PendingStatements,
    Unagreed,
    is_agreed,
    read_agreement,
    waiting_sums,
)
from dtp.graph.permission.quotas import (
    Arrivals,
    Quotas,
    Refused,
    StoredUsage,
    ops_in,
    read_quotas,
    usage_of,
)
from dtp.graph.stores.store import Store
from dtp.identity import CardError, PeerId
from dtp.identity.card import PREFIX, parse_account
from dtp.identity.peer_id import PeerIdError

if TYPE_CHECKING:
    from dtp.graph.graph import Graph

log = logging.getLogger("dtp.graph")

#: Without the last two fields in version 2, and the one before them in version 1.
_VERSIONS: Final = (1, 2, 3)
#: Seconds for which sums keep what only others took away, by default.
REACH: Final = 30 * 86_400.0
#: Why an envelope of a banned author isn't taken.
BANNED: Final = "banned"
_READ: Final = 256
#: Bytes of memory that a text or a list takes that is open, however little it holds: in all, and beside C's.
_TEXT_BYTES: Final = 7_000
_TEXT_BESIDE: Final = 2_000
#: Bytes of memory that a byte of edits takes at most: a deletion has 4 and may take 102, an insertion 5 and 107.
_EDITED_BYTE: Final = 26
#: Bytes of memory that an op takes, beside its names and value, and one under rules beside that.
_OP: Final = 150
_RULED: Final = 1_100
#: Memory is measured again behind so many ops of others, and one more for so many bytes: it takes as long as they do.
#: So many bytes of an envelope count as an op: one may be thousands of edits of a text.
_OPS_LEAST: Final = 1_000
_OP_FOR_BYTES: Final = 10_000
_BYTES_OF_OP: Final = 64
#: Ops of envelopes that are let in together: a peer may send 300,000 at once, each a text.
_OPS_AT_ONCE: Final = 4_096
#: Authors of whom it is remembered how much is here, or that too much is.
_MOST: Final = 65_536


class NotedGone(NamedTuple):
    """What others had taken away of what an author made, when that was looked at."""

    #: Seconds since 1970.
    since: float
    #: As `letting_go.Gone.encode` has it.
    gone: bytes


@dataclass
class AdmissionPolicy:
    """What is kept beside the frames about whom to take in."""

    #: Banned here.
    bans: set[bytes] = field(default_factory=set)
    #: Not shown: banned here, or by whoever has the say, when that was last looked at.
    hidden: set[bytes] = field(default_factory=set)
    #: Names of owners (of an identity or an account) whose bans count here, beside the graph's.
    followed: set[str] = field(default_factory=set)
    #: Authors that are not strangers.
    known: set[bytes] = field(default_factory=set)
    quotas: Quotas = field(default_factory=Quotas)
    refused: Refused = field(default_factory=Refused)
    #: Who has to agree to sums; None: nobody.
    agreement: Agreement | None = None
    #: Seconds for which own sums keep what only others took away; None: for ever.
    reach: float | None = REACH
    #: By the identities that have opened this store.
    noted_gone: dict[bytes, NotedGone] = field(default_factory=dict)

    def encode(self) -> bytes:
        """Return MessagePack `[version, bans, hidden, followed, known, quotas, refused, agreement or nil, reach or
        nil, [[author, since, gone]...]]`."""
        sets = [sorted(each) for each in (self.bans, self.hidden, self.followed, self.known)]
        agreement = None if self.agreement is None else self.agreement.pack()
        noted = [[author, *one] for author, one in sorted(self.noted_gone.items())]
        kept = [self.quotas.to_map(), self.refused.save(), agreement, self.reach, noted]
        return values.encode([_VERSIONS[-1], *sets, *kept])

    @classmethod
    def decode(cls, data: bytes) -> AdmissionPolicy:
        """Return what `encode` gave. Raises `StoreError`."""
        try:
            version, bans, hidden, followed, known, quotas, refused, *later = values.decode(data)
            if version not in _VERSIONS:
                raise StoreError(
                    f"whom this graph takes in is kept in version {version}, not {_VERSIONS[-1]}"
                )
            sets = set(bans), set(hidden), set(followed), set(known)
            agreement = read_agreement(later[0]) if later and later[0] is not None else None
            reach, noted = later[1:] if version > _VERSIONS[1] else (REACH, [])
            gone = {author: NotedGone(*one) for author, *one in noted}
            return cls(*sets, read_quotas(quotas), Refused.load(refused), agreement, reach, gone)
        except (ValueError, TypeError, msgpack.UnpackException, GraphError) as error:
            raise StoreError(f"what is kept of whom this graph takes in is damaged: {error}") from error


def read_policy(store: Store) -> AdmissionPolicy:
    """Return what a store has of whom to take in. Raises `StoreError`."""
    data = store.read_policy()
    return AdmissionPolicy() if data is None else AdmissionPolicy.decode(data)


def owner_of(graph: str) -> str | None:
    """Return the name of who has the say in the graph of this name: the identity or account that it begins with."""
    name = graph.partition("/")[0]
    return name if _is_owner(name) else None


def _is_owner(name: str) -> bool:
    try:
        parse_account(name) if name.startswith(f"{PREFIX}1") else PeerId.parse(name)
    except (CardError, PeerIdError):
        return False
    return True


class Banned(NamedTuple):
    """An author whose frames aren't taken, passed on or shown."""

    peer: PeerId
    #: Whether it was banned here, by this program's user.
    here: bool
    #: Names of those who have the say, and banned it.
    by: tuple[str, ...]


class AdmissionParts(NamedTuple):
    """What of a graph's inside admission needs."""

    #: Call something of the store's, in its thread.
    run: Callable[..., Awaitable[Any]]
    chains: Callable[[], Chains]
    #: Wake those who sync.
    tell: Callable[[], None]
    lock: asyncio.Lock


class _Pending(dict[bytes, StoredUsage]):
    """What is to be taken of whom, bytes of all strangers in it, and of memory that the graph takes without it."""

    def __init__(self, memory: int) -> None:
        super().__init__()
        self.memory = memory
        self.strangers_bytes = 0


class Admission:
    """Whom a graph takes in. Read what there is without waiting; what changes it is kept when it returns."""

    def __init__(self, graph: Graph, store: Store, inside: AdmissionParts) -> None:
        """Read what a store has of whom to take in."""
        self._graph = graph
        self._store = store
        self._inside = inside
        self._policy = read_policy(store)
        #: Who has the say in this graph: the identity or account whose name the graph's name begins with.
        self.owner = owner_of(store.name)
        self._told: dict[str, bytes] = {}  # owner's name -> its bans, as they were read last
        self._shared: dict[bytes, tuple[str, ...]] = {}
        self._is_kept = True
        self._last_kept = b""
        self._kept_at = self._policy.refused.envelopes
        self._usage: dict[bytes, StoredUsage] = {}
        self._has_looked = False
        self._acquainted: set[bytes] = set()  # who is not a stranger, as it was worked out last
        self._strangers_bytes: int | None = None
        self._measured, self._texts_measured, self._ops_unmeasured = 0, 0, _OPS_LEAST
        self._arrivals = Arrivals()
        self._met: set[bytes] = set()
        self._full: set[bytes] = set()
        self.pending_statements = PendingStatements()

    @property
    def hidden(self) -> frozenset[bytes]:
        """Authors (public keys) whose frames aren't taken, passed on or shown."""
        return self._store.hidden

    @property
    def unwanted(self) -> frozenset[bytes]:
        """Authors of whom peers are told to send nothing: hidden, or beyond their quotas."""
        return self._store.hidden | self._full

    # ---- bans -------------------------------------------------------------------------------------------------

    def banned(self) -> list[Banned]:
        """Return who is banned, by name."""
        self._read_bans()
        found = [
            Banned(PeerId(author), author in self._policy.bans, self._shared.get(author, ()))
            for author in self._policy.bans | self._shared.keys()
        ]
        return sorted(found, key=lambda one: str(one.peer))

    async def ban(self, peer: PeerId | str | bytes, *, shared: bool = False) -> None:
        """Take, pass on and show nothing more of an author. What peers have of others is taken as before.

        What the author had overwritten or deleted is shown again, but for what those took back themselves whose it
        was: also what they let go of, as others had taken it away long before (`reach`).

        With `shared` it is said in the graph, and counts for all who follow this identity or its account: all who
        have the graph, if that is its `owner`. Raises `GraphError`.
        """
        author = key_of(peer)
        self._graph.check_writable()
        if author in self._list_unbannable():
            raise GraphError("neither oneself nor who has the say can be banned")
        if shared:
            self._graph.replica.put(self._bans_soul(), owner_name(author), True)
        else:
            self._policy.bans.add(author)
        await self._on_policy_changed()

    async def unban(self, peer: PeerId | str | bytes, *, shared: bool = False) -> None:
        """Take an author in again: what is here of it is shown, and what it made since comes with the next sync.

        Raises `GraphError` for whoever isn't banned so: what others with the say have banned only they take back.
        """
        author = key_of(peer)
        self._graph.check_writable()
        if shared:
            node = self._graph.replica.node(self._bans_soul())
            if owner_name(author) not in node:
                raise GraphError(f"{owner_name(author)} isn't banned in this graph by its owner")
            del node[owner_name(author)]
        elif author not in self._policy.bans:
            raise GraphError(
                f"{owner_name(author)} isn't banned here; a ban that all follow ends by shared=True"
            )
        else:
            self._policy.bans.discard(author)
        self.refused.forget_author(author)
        await self._on_policy_changed()

    async def follow(self, name: PeerId | str) -> None:
        """Let the bans of an identity or an account count here, as those of the graph's owner do. `GraphError`."""
        self._graph.check_writable()
        if not _is_owner(str(name)):
            raise GraphError(f"{name} is not a name of an identity or an account")
        self._policy.followed.add(str(name))
        await self._on_policy_changed()

    async def unfollow(self, name: PeerId | str) -> None:
        """Let somebody's bans count no more. Those of the graph's owner do always."""
        self._graph.check_writable()
        self._policy.followed.discard(str(name))
        await self._on_policy_changed()

    def followed(self) -> list[str]:
        """Return whose bans count here, the graph's owner among them."""
        return sorted(self._policy.followed | ({self.owner} if self.owner else set()))

    def _bans_soul(self) -> str:
        """Return where this identity bans for others. Raises `GraphError`."""
        mine = str(self._graph.identity.id)
        accounts = {card.name for card in self._graph.accounts.mine()}
        says = self.owner or next(iter(sorted(accounts)), mine)
        if says != mine and says not in accounts:
            raise GraphError(
                f"in this graph {says} has the say, not {mine}: ban without `shared`, for yourself"
            )
        return f"~{says}/{BANS}"

    def _list_unbannable(self) -> set[bytes]:
        """Return who can't be banned: oneself, and who has the say."""
        peers = {PeerId.parse(name).key for name in self.followed() if not name.startswith(f"{PREFIX}1")}
        return peers | {self._graph.identity.id.key}

    async def _on_policy_changed(self) -> None:
        """Have the policy kept, and what others see put right."""
        self._is_kept = False
        await self._graph.commits.commit()
        self._inside.tell()

    def _read_bans(self) -> None:
        """Read what those who have the say have banned."""
        replica = self._graph.replica
        told = {
            name: replica.core.read_keys(core.REGISTER, values.encode_name(f"~{name}/{BANS}"))
            for name in self.followed()
        }
        if told != self._told:
            self._told = told
            self._shared = _read_shared(told)

    async def apply_bans(self) -> None:
        """Look at who is banned now, and have the replica built again if that is somebody else."""
        if self._graph.read_only:
            return
        self._read_bans()
        hidden = (self._policy.bans | self._shared.keys()) - self._list_unbannable()
        if hidden != self._store.hidden:
            if hidden - self._store.hidden:
                self._graph.replica.take_back_seen()
            self._policy.hidden = hidden
            await self._save_policy(forget_state=True)
            self._store.hidden = frozenset(hidden)
            self._usage.clear()
            self._strangers_bytes = None
            self._graph.replica.access.begin_anew()
        elif not self._is_kept:
            await self._save_policy()

    async def reload_policy(self) -> None:
        """Take over what another program that shares the store has changed."""
        data = await self._inside.run(self._store.read_policy)
        if data is not None and data != self._last_kept:
            self._policy, self._last_kept = AdmissionPolicy.decode(data), data

    async def _save_policy(self, *, forget_state: bool = False) -> None:
        self._last_kept = self._policy.encode()
        await self._inside.run(self._store.save_policy, self._last_kept, forget_state)
        self._is_kept, self._kept_at = True, self.refused.envelopes

    async def close(self) -> None:
        """Keep what was counted."""
        if self.refused.envelopes != self._kept_at and not self._graph.read_only:
            await self._save_policy()

    async def purge(self, peer: PeerId | str | bytes) -> int:
        """Remove all that an author signed from the store, for good, and return how many bytes of envelopes that was.

        It is banned, and stays so: else it would come again with the next sync. The file is written anew, without
        it; that takes as much room for a while. Others keep what they have. Raises `GraphError` for whoever isn't
        banned.
        """
        author = key_of(peer)
        self._graph.check_writable()
        if author not in self._store.hidden:
            raise GraphError(
                f"{owner_name(author)} isn't banned: ban it first, or it comes again with the next sync"
            )
        await self._graph.commits.commit()
        async with self._inside.lock:
            head = self._inside.chains().heads.get(author)
            size = 0 if head is None else await self._graph.frames.stored_bytes(author, 1, head.sequence)
            await self._inside.run(self._store.purge_author, author)
            self._inside.chains().forget_author(author)
            await asyncio.to_thread(self._graph.passed.remove_summary, author)
        return size

    # ---- how far bans reach back --------------------------------------------------------------------------------

    @property
    def reach(self) -> float | None:
        """How far bans reach back: for so many seconds what others take away of what this identity made stays in its
        sums, to come back if they are banned. None: for ever."""
        return self._policy.reach

    async def set_reach(self, seconds: float | None) -> None:
        """Have bans reach back so far, as far as it is this identity's to say: what others took away of what it made
        is removed by itself, too, the second time that it prunes after so many seconds. None: never, and its sums
        grow by all that others take away.

        Raises `GraphError` for less than 0 seconds.
        """
        self._graph.check_writable()
        if seconds is not None and not seconds >= 0:
            raise GraphError(f"bans can't reach back {seconds} seconds")
        self._policy.reach = seconds
        await self._on_policy_changed()

    @property
    def noted_gone(self) -> NotedGone | None:
        """What others had taken away of this identity's when that was looked at last; None: it wasn't."""
        return self._policy.noted_gone.get(self._graph.identity.id.key)

    async def note_gone(self, noted: NotedGone) -> None:
        """Keep what others have taken away of this identity's by now."""
        self._policy.noted_gone[self._graph.identity.id.key] = noted
        await self._save_policy()

    # ---- quotas -----------------------------------------------------------------------------------------------

    @property
    def quotas(self) -> Quotas:
        """How much is taken of whom."""
        return self._policy.quotas

    @property
    def refused(self) -> Refused:
        """What was not taken since the graph was made, and why."""
        return self._policy.refused

    async def set_quotas(self, quotas: Quotas) -> None:
        """Take so much of whom from now on. What is here already stays, and counts."""
        self._graph.check_writable()
        self._policy.quotas = quotas
        self._full.clear()
        await self._on_policy_changed()

    async def add_known(self, *peers: PeerId | str | bytes) -> None:
        """Count these authors as no strangers any more. Those who were granted something, devices of one's own
        account, and whoever has the say never are strangers."""
        self._graph.check_writable()
        self._policy.known |= {key_of(peer) for peer in peers}
        self._full.clear()
        await self._on_policy_changed()

    # ---- agreement ------------------------------------------------------------------------------------------------

    @property
    def agreement(self) -> Agreement | None:
        """How many of whom have to agree to a sum before it is taken in place of frames; None: nobody."""
        return self._policy.agreement

    @property
    def wants_frames(self) -> bool:
        """Whether peers are asked for frames as they are stored, and not for what their authors make of them now."""
        return self._graph.keeps_history or self._policy.agreement is not None

    async def set_agreement(self, need: int, of: Iterable[PeerId | str | bytes]) -> None:
        """Take sums of others' frames only when `need` of these identities agree to them; 0: whatever their authors
        signed.

        Agree those of them that prune their graph and had the frames, if this was set there as well. Until enough do
        `unagreed` tells what is missing, and is taken at once where fewer have to agree now. What is stored summed up
        stays so: set it before the first sync.
        Raises `GraphError`.
        """
        self._graph.check_writable()
        if need and (self._graph.keeps_history or self._graph.part is not None):
            raise GraphError(
                "a graph that keeps its history takes no sums, and one that has a part can't ask for them"
            )
        keys = frozenset(map(key_of, of))
        self._policy.agreement = Agreement(need, keys).check_possible() if need else None
        await self._on_policy_changed()
        if not self._graph.keeps_history:
            await self._graph.intake.take_agreed()

    def takes_sum(self, summary: Summary) -> bool:
        """Return whether a sum, which is genuine, is taken in place of frames."""
        return summary.author == self._graph.identity.id.key or is_agreed(self._graph, summary)

    def unagreed(self) -> list[Unagreed]:
        """Return the sums that came and aren't taken, since too few agree to them."""
        return waiting_sums(self._graph)

    def add_dialled(self, peer: bytes) -> None:
        """Take somebody (a public key) for no stranger until the graph is closed: whom this side has dialled."""
        self._met.add(peer)
        self._full.discard(peer)

    def is_stranger(self, author: bytes) -> bool:
        """True unless the program, or its identity, knows the author (a public key)."""
        self._look_around()
        return author not in self._acquainted

    def _look_around(self) -> None:
        """Find out which authors are known here: all others are strangers."""
        graph = self._graph
        granted = {one.grantee_name for one in graph.access.grants()}
        known = self._policy.known | self._met | self._list_unbannable()
        known |= {one.grantee for one in graph.access.grants() if not one.to_account}
        cards = [
            card
            for card in graph.accounts.cards()
            if card.name in granted or card.names(graph.identity.id.key)
        ]
        self._acquainted = known | {one.key for card in cards for one in card.devices}
        self._has_looked = True

    async def admit(
        self, batch: Iterable[Envelope | Summary]
    ) -> AsyncGenerator[list[Envelope | Summary], None]:
        """Yield those of genuine envelopes that are to be taken before the next ones are looked at: what they take
        counts then. Count the others."""
        out: dict[bytes, str] = dict.fromkeys(self.hidden, BANNED) if self.hidden else {}
        some: list[tuple[Envelope | Summary, StoredUsage]] = []
        ops = 0
        for envelope in batch:
            usage = usage_of(envelope)
            some.append((envelope, usage))
            ops += _weigh(usage)
            if ops > _OPS_AT_ONCE:
                yield await self._admit_some(some, out)
                some, ops = [], 0
        yield await self._admit_some(some, out)

    async def _admit_some(
        self, batch: list[tuple[Envelope | Summary, StoredUsage]], out: dict[bytes, str]
    ) -> list[Envelope | Summary]:
        """Return those that are to be taken, each given with what it takes. `out` has the authors of whom nothing
        more is, and why."""
        if len(self._usage) > _MOST:
            self._usage.clear()  # it is counted again
        self._has_looked = False
        taken: list[Envelope | Summary] = []
        heads, own = self._inside.chains().heads, self._graph.identity.id.key
        pending = _Pending(self._measure_memory())
        for envelope, usage in batch:
            author, head = envelope.author, heads.get(envelope.author)
            reason = out.get(author, "")
            is_new = head is None or envelope.sequence > head.sequence
            if not reason and is_new and author != own:
                is_new_author = head is None and author not in pending
                reason = await self._why_not(envelope, usage, pending, is_new=is_new_author)
            if reason:
                out[author] = reason
                self._count_refusal(author, reason, len(envelope.body))
            else:
                taken.append(envelope)
        if self.refused.envelopes > 2 * self._kept_at:
            await self._save_policy()
        return taken

    async def _why_not(
        self, envelope: Envelope | Summary, so_far: StoredUsage, pending: _Pending, *, is_new: bool
    ) -> str:
        """Return why an envelope, which takes `so_far`, isn't taken, "" if it is. `pending` is what is to be taken
        with it; `is_new` says that nothing of its author is here."""
        author, quotas = envelope.author, self.quotas
        before = pending.get(author)
        counted = 0 if before is None else before.bytes
        if before is not None:
            so_far.add_usage(before)
        usage = self._usage.get(author) or await self._count_usage(author)
        reason = usage.exceeded_limit(so_far, quotas.limits_of_known)
        memory = pending.memory + self._expect_memory_of(envelope)
        reason = reason or _why_no_memory(memory, quotas.authors_memory)
        if not reason and author not in self._acquainted:
            now, others = self._graph.replica.clock.wall(), pending.strangers_bytes - counted
            reason = _why_no_memory_for_strangers(memory, quotas.strangers_memory)
            reason = reason or await self._why_not_a_stranger(usage, so_far, others)
            if is_new and not reason and not self._arrivals.has_room(quotas, now):
                reason = (
                    f"more than {quotas.new_strangers} new strangers in {quotas.new_strangers_seconds:g} s"
                )
            if reason and not self._has_looked:  # for this batch
                self._look_around()
            if reason and author in self._acquainted:
                reason = ""
            elif is_new and not reason:
                self._arrivals.note_arrival(now)
        if not reason:
            if author not in self._acquainted:
                pending.strangers_bytes += so_far.bytes - counted
            pending[author] = so_far
        return reason

    async def _why_not_a_stranger(self, usage: StoredUsage, more: StoredUsage, others: int) -> str:
        quotas = self.quotas
        if quotas.strangers_bytes is not None:
            if self._strangers_bytes is None:
                sizes = await self._inside.run(self._store.author_sizes)
                self._look_around()
                self._strangers_bytes = sum(n for who, n in sizes.items() if who not in self._acquainted)
            if self._strangers_bytes + others + more.bytes > quotas.strangers_bytes:
                return f"more than {quotas.strangers_bytes} bytes of all strangers"
        beyond = usage.exceeded_limit(more, quotas.limits_of_stranger)
        return f"{beyond} of a stranger" if beyond else ""

    def takes_held(self, envelope: Envelope | Summary) -> bool:
        """Return whether an envelope that waited for the one before it is taken now: others may have been meanwhile
        that fill memory. One that isn't is counted as refused."""
        author, memory = envelope.author, self._measure_memory() + self._expect_memory_of(envelope)
        reason = ""
        if author != self._graph.identity.id.key:
            reason = _why_no_memory(memory, self.quotas.authors_memory)
        if not reason and author not in self._acquainted:
            reason = _why_no_memory_for_strangers(memory, self.quotas.strangers_memory)
            reason = reason if reason and self.is_stranger(author) else ""
        if reason:
            self._count_refusal(author, reason, len(envelope.body))
        return not reason

    def note_memory_released(self) -> None:
        """Have memory measured before something of strangers is refused for it: it takes less now, maybe."""
        self._measured, self._ops_unmeasured = 0, _OPS_LEAST

    def _expect_memory_of(self, envelope: Envelope | Summary) -> int:
        """Return bytes of memory that an envelope takes at most once it is merged."""
        return _expect_memory(self._graph.replica.core.load_of(envelope.body))

    def _measure_memory(self) -> int:
        """Return bytes of memory that the graph takes, about."""
        replica = self._graph.replica
        texts = replica.sequences.open_count
        if self._ops_unmeasured >= max(_OPS_LEAST, self._measured // _OP_FOR_BYTES):
            inside = replica.core.memory_bytes + replica.sequences.memory_bytes
            self._measured = inside + texts * _TEXT_BESIDE
            self._texts_measured, self._ops_unmeasured = texts, 0
        beside = _expect_memory(replica.core.waiting_load()) + replica.access.memory_bytes
        return self._measured + max(0, texts - self._texts_measured) * _TEXT_BYTES + beside

    async def _count_usage(self, author: bytes) -> StoredUsage:
        """Count what an author's envelopes that are here take, and remember it."""
        usage, graph = StoredUsage(), self._graph
        head = self._inside.chains().heads.get(author)
        if head is not None:
            usage.frames = head.sequence
            usage.bytes = await graph.frames.stored_bytes(author, 1, head.sequence)
            for first in range(1, head.sequence + 1, _READ):
                for data in await graph.frames.read(author, first, first + _READ - 1):
                    usage.ops += ops_in(envelopes.decode(graph.name, data).body)
        self._usage[author] = usage
        return usage

    def count_envelope(self, envelope: Envelope | Summary) -> None:
        """Count an envelope that was taken."""
        usage = self._usage.get(envelope.author)
        if usage is not None:
            more = usage_of(envelope)
            usage.add_usage(more)
            self._ops_unmeasured += _weigh(more)
            if self._strangers_bytes is not None and envelope.author not in self._acquainted:
                self._strangers_bytes += more.bytes

    def count_author_again(self, author: bytes) -> None:
        """Count anew what an author's envelopes take, as others are in their place."""
        self._usage.pop(author, None)
        self._strangers_bytes = None

    def _count_refusal(self, author: bytes, reason: str, size: int) -> None:
        if reason != BANNED and len(self._full) < _MOST:
            self._full.add(author)
        if self.refused.count_refused(author, reason, size) and reason != BANNED:
            log.warning(
                "graph %r takes no more of %s: %s. 'dtp graph status' (Graph.admission.refused) tells of whom, 'dtp "
                "graph quota' (Graph.admission.set_quotas) changes how much",
                self._graph.name,
                owner_name(author),
                reason,
            )


def _why_no_memory(needed: int, most: int | None) -> str:
    """Return why what needs so many bytes of memory isn't taken, "" if it is."""
    return "" if most is None or needed <= most else f"more than {most} bytes of memory"


def _why_no_memory_for_strangers(needed: int, most: int | None) -> str:
    reason = _why_no_memory(needed, most)
    return f"{reason}, with strangers" if reason else ""


def _weigh(usage: StoredUsage) -> int:
    """Return as how many ops an envelope counts by the memory that it may take."""
    return max(usage.ops, usage.bytes // _BYTES_OF_OP)


def _expect_memory(load: FrameLoad) -> int:
    """Return bytes of memory that frames take at most once they are merged."""
    expected = load.ops * _OP + load.bytes + load.edits * _TEXT_BYTES + load.edit_bytes * _EDITED_BYTE
    return expected + load.ruled * _RULED + load.ruled_bytes * DOCUMENT_BYTE


def _read_shared(told: Mapping[str, bytes]) -> dict[bytes, tuple[str, ...]]:
    """Return author -> the names of those who ban it, out of what they say."""
    found: dict[bytes, tuple[str, ...]] = {}
    for owner, bans in sorted(told.items()):
        for name, value in values.decode(bans).items():
            if value is True and _is_owner(name) and not name.startswith(f"{PREFIX}1"):
                author = PeerId.parse(name).key
                found[author] = (*found.get(author, ()), owner)
    return found
