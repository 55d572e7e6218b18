"""Making what needs a permission here: on souls of others by their grants, on souls under rules by those.

What all replicas would refuse isn't made in the first place. What they need to know beforehand, a document of rules
or a grant, is made before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple, Protocol

from dtp.core import crdt as core
from dtp.core.crdt import GraphCore
from dtp.core.errors import NotOwner
from dtp.crdt import values
from dtp.crdt.clock import Clock
from dtp.crdt.ops import Frame, Kind, Op, dots_of, of_list
from dtp.crdt.permission.access import ACCESS, REVOKED_DEVICE, USE, AccessState, Ruling, needs_verdict
from dtp.crdt.permission.accounts import CARD, is_of_account, root_of
from dtp.crdt.permission.judging import judge_parts
from dtp.crdt.permission.owners import owned_soul, owner_name
from dtp.crdt.permission.rules import DOCUMENT_KEY, MARK, Breach, RuleBroken, Rules
from dtp.crdt.values import Value
from dtp.identity.card import Card

Row = tuple[str, str, Value] | tuple[str, str]
#: An edit of a text that isn't known yet.
_ANY_EDIT = b"\xd1"
#: Given when all is judged.
_SETTLED: Final = object()


class Maker(Protocol):
    """Who makes ops: what `Permits` asks of a replica."""

    @property
    def author(self) -> bytes:
        """Return whose ops they are."""

    @property
    def access(self) -> AccessState:
        """Return what verdicts depend on."""

    @property
    def core(self) -> GraphCore:
        """Return the merged state."""

    @property
    def clock(self) -> Clock:
        """Return what dates ops."""

    def author_key(self, number: int) -> bytes:
        """Return the author whom the state calls by this number."""


class Permit(NamedTuple):
    """What is allowed and not yet made."""

    rows: list[Row]
    trial: Ruling


class Permits:
    """What a replica's own ops need. Raises `NotOwner` and `RuleBroken`; nothing was made then."""

    def __init__(self, replica: Maker) -> None:
        self._replica = replica
        #: Documents that were told of here and may not be in the graph yet.
        self.rules: dict[str, Rules] = {}
        #: Cards that were told of here, by the names of their accounts; likewise.
        self.cards: dict[str, Card] = {}
        self._mine: Ruling | None = None
        #: Judges what was committed, in parts: a full frame takes seconds.
        self._settling: Iterator[None] = iter(())

    @property
    def pending(self) -> bool:
        """Whether something that needed a permission was made since the last commit."""
        return self._mine is not None

    def needs_permit(self, soul: str) -> bool:
        """Return whether it isn't simply one's own or nobody's."""
        return needs_verdict(self._replica.author, soul)

    def permit_rows(self, rows: Iterable[Row]) -> Permit:
        """Return the rows to be put for these, all of them allowed: with what others need to know in front. `keep` it
        when they are put."""
        trial = self._begin_trial()
        made: list[Row] = []
        for soul, key, *value in rows:
            op = self._make_op(Kind.REGISTER_PUT, soul, key, len(made), value=value)
            made += self._rows_before(trial, op, len(made))
            op = op._replace(clock=self._next_clock() + len(made))
            self._judge_op(trial, op)
            made.append((soul, key, *value) if value else (soul, key))
        return Permit(made, trial)

    def permit_op(self, kind: int, soul: str, key: str, value: bytes) -> tuple[Permit, Permit]:
        """Return the rows to be put before an op of another kind, and the op's own permit. `keep` each when what it
        is for is made: an op may find nothing to do."""
        trial = self._begin_trial()
        decoded = [values.decode(value)] if value else []
        op = self._make_op(
            Kind(kind), soul, key, 0, value=self._written_values(Kind(kind), soul, key, decoded)
        )
        op = (
            of_list(op)
            if op.kind is Kind.LIST_EDIT
            else op._replace(dots=self._removed_dots(op.kind, soul, key, value))
        )
        before = self._rows_before(trial, op, 0)
        judged = trial.begin_trial() if before else trial
        self._judge_op(judged, op._replace(clock=op.clock + len(before)))
        return Permit(before, trial), Permit([], judged)

    def keep(self, permit: Permit) -> None:
        """Note that what a permit is for was made. No other permit may have been given since, but the second of
        `permit_op`."""
        if self._mine is None:
            self._mine = permit.trial
        else:
            self._mine.keep_trial(permit.trial)

    def may_edit(self, soul: str, key: str = "") -> None:
        """Raise unless a text may be edited at all; the edit itself is judged when it is committed."""
        self._check_op(self._make_op(Kind.TEXT_EDIT, soul, key, 0, value=[_ANY_EDIT]))

    def may_edit_list(self, soul: str, key: str, written: Sequence[Value], agents: Iterable[bytes]) -> None:
        """Raise unless these values may be written into a list, and elements of these agents be touched."""
        op = self._make_op(Kind.LIST_EDIT, soul, key, 0, value=[list(written)])
        self._check_op(op._replace(dots=dots_of(agents)))

    def _check_op(self, op: Op) -> None:
        trial = self._begin_trial()
        self._rows_before(trial, op, 0)
        if trial.judge_op(op) == core.VOID and not (
            op.kind is Kind.TEXT_EDIT and trial.breach is Breach.VALUE
        ):
            raise self._make_refusal(op, trial.reason)

    def on_committed(self, frames: Sequence[Frame]) -> None:
        """Have remembered what the frames have, as every replica does: by `settle_parts`, or when it is asked for."""
        if self._mine is not None:
            self._mine = None
            self._settling = self._settle_frames(self._replica.access, frames)

    def _settle_frames(self, access: AccessState, frames: Sequence[Frame]) -> Iterator[None]:
        for frame in frames:
            ruling = access.begin_ruling(frame.author)
            for part in judge_parts(ruling, self._replica.core, 0, frame.body, is_sum=False):
                part.find_verdicts()
                yield
            ruling.commit_verdicts()
            if core.VOID in ruling.verdicts:  # it was revoked between the making and the commit
                access.must_rebuild = True

    def settle_parts(self) -> Iterator[None]:
        """Judge what was committed; yield behind each part of it."""
        while next(self._settling, _SETTLED) is not _SETTLED:
            yield

    def settle_all(self) -> None:
        """Judge all that was committed."""
        for _ in self._settling:
            pass

    # ---- one op -------------------------------------------------------------------------------------------------

    def _begin_trial(self) -> Ruling:
        mine = self._mine
        return self._replica.access.begin_ruling(self._replica.author) if mine is None else mine.begin_trial()

    def _next_clock(self) -> int:
        """Return what the next op will have."""
        return max(self._replica.clock.wall_clock(), self._replica.core.newest_clock + 1)

    def _make_op(self, kind: Kind, soul: str, key: str, behind: int, value: list[Value]) -> Op:
        clock = self._next_clock() + behind
        shown = value[0] if value else None
        return Op(kind, soul, key, self._replica.author, clock, (), None, shown, bool(value))

    def _judge_op(self, trial: Ruling, op: Op) -> None:
        if trial.judge_op(op) == core.VOID:
            raise self._make_refusal(op, trial.reason)

    def _make_refusal(self, op: Op, reason: str) -> NotOwner | RuleBroken:
        if op.soul.startswith(MARK):
            return RuleBroken(f"{op.soul!r} {op.key!r}: {reason}")
        if reason == REVOKED_DEVICE:
            return NotOwner(
                f"{op.soul!r}: {reason}; have a device that it names write this, or add another identity"
            )
        if is_of_account(op.soul):
            return NotOwner(
                f"{op.soul!r}: {reason}; whoever has the account's key adds this device, and publishes the card"
            )
        return NotOwner(f"{op.soul!r}: {reason}; yours begin with {owned_soul(self._replica.author)}")

    def _rows_before(self, trial: Ruling, op: Op, behind: int) -> list[Row]:
        """Return what goes before the op, judged: the document of its rules, a grant, or a card."""
        replica = self._replica
        rows: list[Row] = []
        if op.soul.startswith(f"{ACCESS}/"):
            return []
        if op.soul.startswith(MARK):
            root = op.soul.partition("/")[0]
            rules = self.rules.get(root) or replica.access.documents.get(root)
            if root != op.soul and rules is not None and not trial.has_shipped(root):
                rows.append((root, DOCUMENT_KEY, rules.document))
        elif self.needs_permit(op.soul) and trial.begin_trial().judge_op(op) == core.VOID:
            rows = self._card_for(root_of(op.soul)) if is_of_account(op.soul) else self._grant_for(trial, op)
        for at, (soul, key, *value) in enumerate(rows):
            self._judge_op(trial, self._make_op(Kind.REGISTER_PUT, soul, key, behind + at, value=value))
        return rows

    def _grant_for(self, trial: Ruling, op: Op) -> list[Row]:
        """Return the grant that lets this op in, and the card by which it does if it is to an account; nothing if
        none is known."""
        replica, found = self._replica, list[Row]()
        for grant in replica.access.offered_grants(replica.core, replica.author):
            if not grant.covers_op(op) or op.clock > replica.access.revocation_of(grant, grant.id).last_clock(
                replica.author
            ):
                continue
            found = self._card_for(grant.grantee_name) if grant.to_account else []
            if not trial.has_used(grant):
                found.append((f"{ACCESS}/{owner_name(replica.author)}", f"{USE}{grant.id}", grant.encode()))
        return found

    def _card_for(self, name: str) -> list[Row]:
        """Return the newest card of an account, if one is known that names this author."""
        replica = self._replica
        known = [card for card in replica.access.iter_cards(replica.core, name) if card.names(replica.author)]
        if name in self.cards:
            known.append(self.cards[name])
        if not known:
            return []
        newest = max(known, key=lambda card: card.order)
        return [(f"{ACCESS}/{owner_name(replica.author)}", f"{CARD}{name}", newest.encode())]

    def _written_values(self, kind: Kind, soul: str, key: str, value: list[Value]) -> list[Value]:
        """Return what the op will say."""
        if kind is Kind.COUNTER_TOTAL:
            names = values.encode_name(soul), values.encode_name(key)
            totals = values.decode(self._replica.core.read_space(core.COUNTER, *names))
            return [value[0] + sum(total for by, total in totals if by == 0)]
        return [] if kind is Kind.SET_REMOVE else value

    def _removed_dots(self, kind: Kind, soul: str, key: str, value: bytes) -> tuple[tuple[bytes, int], ...]:
        """Return what the op will remove."""
        names = values.encode_name(soul), values.encode_name(key)
        found = values.decode(self._replica.core.observed_dots(kind, *names, value=value))
        return tuple((self._replica.author_key(by), at) for by, at in found)
