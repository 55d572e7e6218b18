"""Whom a graph takes in: bans, purges and quotas. What it doesn't take it counts and names.

The part of a graph that `Graph.admission` gives. docs/keeping-graphs.md, "Bans" and "Quotas".
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from dtp.crdt.permission.owners import BANS, owner_name
from dtp.graph.errors import GraphError
from dtp.graph.frames.chains import Chains
from dtp.graph.frames.envelope import Envelope, Summary
from dtp.graph.permission.access import key_of
from dtp.graph.permission.agreement import (
    Agreement,
    PendingStatements,
    Unagreed,
    is_agreed,
    waiting_sums,
)
from dtp.graph.permission.memory import MemoryMeter, weigh_usage
from dtp.graph.permission.policy import AdmissionPolicy, NotedGone, PolicyKeeper
from dtp.graph.permission.quotas import (
    Arrivals,
    Quotas,
    Refused,
    StoredUsage,
    usage_of,
)
from dtp.graph.permission.shared_bans import SharedBans, is_owner, owner_of
from dtp.graph.permission.strangers import Acquaintances, StoredUsages
from dtp.graph.stores.store import Store
from dtp.identity import PeerId
from dtp.identity.card import PREFIX

if TYPE_CHECKING:
    from dtp.graph.graph import Graph

log = logging.getLogger("dtp.graph")

#: Why an envelope of a banned author isn't taken.
BANNED: Final = "banned"
#: Ops of envelopes that are let in together: a peer may send 300,000 at once, each a text.
_OPS_AT_ONCE: Final = 4_096
#: Authors of whom it is remembered that too much is here.
_MOST_FULL: Final = 65_536


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
        self._kept = PolicyKeeper(store, inside.run)
        #: Who has the say in this graph: the identity or account whose name the graph's name begins with.
        self.owner = owner_of(store.name)
        self._shared_bans = SharedBans(graph)
        self._acquaintances = Acquaintances(graph, lambda: self._policy.known | self._list_unbannable())
        self._usages = StoredUsages(graph, store, inside.run, inside.chains, self._acquaintances)
        self._memory = MemoryMeter(graph)
        self._arrivals = Arrivals()
        #: Of whom too much is here.
        self._full: set[bytes] = set()
        self.pending_statements = PendingStatements()

    @property
    def _policy(self) -> AdmissionPolicy:
        return self._kept.policy

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
        self._shared_bans.read(self.followed())
        found = [
            Banned(PeerId(author), author in self._policy.bans, self._shared_bans.authors.get(author, ()))
            for author in self._policy.bans | self._shared_bans.authors.keys()
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
        if not is_owner(str(name)):
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
        self._kept.note_changed()
        await self._graph.commits.commit()
        self._inside.tell()

    async def apply_bans(self) -> None:
        """Look at who is banned now, and have the replica built again if that is somebody else."""
        if self._graph.read_only:
            return
        self._shared_bans.read(self.followed())
        hidden = (self._policy.bans | self._shared_bans.authors.keys()) - self._list_unbannable()
        if hidden != self._store.hidden:
            if hidden - self._store.hidden:
                self._graph.replica.take_back_seen()
            self._policy.hidden = hidden
            await self._kept.save(forget_state=True)
            self._store.hidden = frozenset(hidden)
            self._usages.forget_all()
            self._graph.replica.access.begin_anew()
        else:
            await self._kept.save_changed()

    async def reload_policy(self) -> None:
        """Take over what another program that shares the store has changed."""
        await self._kept.reload()

    async def close(self) -> None:
        """Keep what was counted."""
        if not self._graph.read_only:
            await self._kept.save_refused()

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
        await self._kept.save()

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
        self._usages.forget_strangers()
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
        if self._acquaintances.add_dialled(peer):
            self._usages.forget_strangers()
        self._full.discard(peer)

    def is_stranger(self, author: bytes) -> bool:
        """True unless the program, or its identity, knows the author (a public key)."""
        self._acquaintances.expire()
        self._acquaintances.refresh()
        return author not in self._acquaintances

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
            ops += weigh_usage(usage)
            if ops > _OPS_AT_ONCE:
                yield await self._admit_some(some, out)
                some, ops = [], 0
        yield await self._admit_some(some, out)

    async def _admit_some(
        self, batch: list[tuple[Envelope | Summary, StoredUsage]], out: dict[bytes, str]
    ) -> list[Envelope | Summary]:
        """Return those that are to be taken, each given with what it takes. `out` has the authors of whom nothing
        more is, and why."""
        self._usages.bound()
        self._acquaintances.expire()
        taken: list[Envelope | Summary] = []
        heads, own = self._inside.chains().heads, self._graph.identity.id.key
        pending = _Pending(self._memory.measure())
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
        await self._kept.save_doubled()
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
        usage = await self._usages.count_author(author)
        reason = usage.exceeded_limit(so_far, quotas.limits_of_known)
        memory = pending.memory + self._memory.expect(envelope.body)
        reason = reason or _why_no_memory(memory, quotas.authors_memory)
        if not reason and author not in self._acquaintances:
            now, others = self._graph.replica.clock.wall(), pending.strangers_bytes - counted
            reason = _why_no_memory_for_strangers(memory, quotas.strangers_memory)
            reason = reason or await self._why_not_a_stranger(usage, so_far, others)
            if is_new and not reason and not self._arrivals.has_room(quotas, now):
                reason = (
                    f"more than {quotas.new_strangers} new strangers in {quotas.new_strangers_seconds:g} s"
                )
            if reason:
                self._acquaintances.refresh()
            if reason and author in self._acquaintances:
                reason = ""
            elif is_new and not reason:
                self._arrivals.note_arrival(now)
        if not reason:
            if author not in self._acquaintances:
                pending.strangers_bytes += so_far.bytes - counted
            pending[author] = so_far
        return reason

    async def _why_not_a_stranger(self, usage: StoredUsage, more: StoredUsage, others: int) -> str:
        quotas = self.quotas
        if quotas.strangers_bytes is not None:
            stored = await self._usages.count_strangers_bytes()
            if stored + others + more.bytes > quotas.strangers_bytes:
                return f"more than {quotas.strangers_bytes} bytes of all strangers"
        beyond = usage.exceeded_limit(more, quotas.limits_of_stranger)
        return f"{beyond} of a stranger" if beyond else ""

    def takes_held(self, envelope: Envelope | Summary) -> bool:
        """Return whether an envelope that waited for the one before it is taken now: others may have been meanwhile
        that fill memory. One that isn't is counted as refused."""
        author, memory = envelope.author, self._memory.measure() + self._memory.expect(envelope.body)
        reason = ""
        if author != self._graph.identity.id.key:
            reason = _why_no_memory(memory, self.quotas.authors_memory)
        if not reason and author not in self._acquaintances:
            reason = _why_no_memory_for_strangers(memory, self.quotas.strangers_memory)
            reason = reason if reason and self.is_stranger(author) else ""
        if reason:
            self._count_refusal(author, reason, len(envelope.body))
        return not reason

    def note_memory_released(self) -> None:
        """Have memory measured before something of strangers is refused for it: it takes less now, maybe."""
        self._memory.note_released()

    def count_envelope(self, envelope: Envelope | Summary) -> None:
        """Count an envelope that was taken."""
        if (more := self._usages.add_envelope(envelope)) is not None:
            self._memory.note_merged(more)

    def count_author_again(self, author: bytes) -> None:
        """Count anew what an author's envelopes take, as others are in their place."""
        self._usages.forget_author(author)

    def _count_refusal(self, author: bytes, reason: str, size: int) -> None:
        if reason != BANNED and len(self._full) < _MOST_FULL:
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
