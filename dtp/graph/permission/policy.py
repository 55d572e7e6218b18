"""What is kept beside the frames about whom to take in, and when it is written."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import msgpack

from dtp.crdt import values
from dtp.graph.errors import GraphError, StoreError
from dtp.graph.permission.agreement import Agreement, read_agreement
from dtp.graph.permission.quotas import Quotas, Refused, read_quotas
from dtp.graph.stores.store import Store

#: Without the last two fields in version 2, and the one before them in version 1.
_VERSIONS: Final = (1, 2, 3)
#: Seconds for which sums keep what only others took away, by default.
REACH: Final = 30 * 86_400.0


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


class PolicyKeeper:
    """The policy, and how much of it the store has. What was refused since is kept when that has doubled, and at the
    end."""

    def __init__(self, store: Store, run: Callable[..., Awaitable[Any]]) -> None:
        """Read what the store has. `run` calls something of the store's, in its thread. Raise `StoreError`."""
        self._store, self._run = store, run
        self.policy = read_policy(store)
        self._is_changed = False
        self._stored = b""
        self._refused_then = self.policy.refused.envelopes

    def note_changed(self) -> None:
        """Have the policy written by the next `save_changed`."""
        self._is_changed = True

    async def save_changed(self) -> None:
        """Write the policy if it was changed."""
        if self._is_changed:
            await self.save()

    async def save_doubled(self) -> None:
        """Write the policy if twice as much was refused as it says there."""
        if self.policy.refused.envelopes > 2 * self._refused_then:
            await self.save()

    async def save_refused(self) -> None:
        """Write the policy if anything was refused since."""
        if self.policy.refused.envelopes != self._refused_then:
            await self.save()

    async def save(self, *, forget_state: bool = False) -> None:
        """Write the policy; with `forget_state` the state that frames have made is removed with it."""
        self._stored = self.policy.encode()
        await self._run(self._store.save_policy, self._stored, forget_state)
        self._is_changed, self._refused_then = False, self.policy.refused.envelopes

    async def reload(self) -> None:
        """Take over what another program that shares the store has changed."""
        data = await self._run(self._store.read_policy)
        if data is not None and data != self._stored:
            self.policy, self._stored = AdmissionPolicy.decode(data), data
