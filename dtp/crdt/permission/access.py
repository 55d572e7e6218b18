"""Who may write what: grants by owners, accounts, and rules of kinds. Verdicts on ops, the same on every replica.

A verdict depends on the op, on what its author's own frames had before it, which every replica takes in order, and on
what the owner of a soul revoked. Revoking is the one thing that comes from elsewhere and may come late: then what was
let in before has to be taken out, and `AccessState.must_rebuild` says so. docs/graph.md, "Access" and "Rules".
"""

from __future__ import annotations

from collections import ChainMap, deque
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from dtp.core.crdt import ALLOWED, VOID, GraphCore
from dtp.crdt import values
from dtp.crdt.ops import Kind, Op
from dtp.crdt.permission import rules as language
from dtp.crdt.permission.accounts import (
    CARD,
    CUTS,
    MAX_ACCOUNTS,
    Cuts,
    CutsError,
    KnownAccounts,
    Showing,
    ShownCards,
    is_of_account,
    load_showing,
    root_of,
    save_showing,
)
from dtp.crdt.permission.grants import (
    NOT_REVOKED,
    Grant,
    GrantError,
    Revocation,
    read_grant,
    read_revocation,
)
from dtp.crdt.permission.owners import is_reserved_of, may_write, owned_soul, owner_name
from dtp.crdt.permission.rules import (
    DOCUMENT_KEY,
    MARK,
    Breach,
    Offence,
    Rule,
    RuleMatcher,
    Rules,
    RulesError,
)
from dtp.crdt.permission.weights import (
    CLOCK,
    DOCUMENT_BYTE,
    GRANT,
    RATE,
    SHIPPED,
    SHOWN,
    weigh_offence,
    weigh_once,
    weigh_revocation,
    weigh_standing,
)
from dtp.identity.card import Card, CardError

#: Where each author says what it grants, uses and revokes: `%access/dtp1...`.
ACCESS: Final = "%access"


def is_internal(soul: str) -> bool:
    """Return whether a soul is a graph's own book-keeping: grants, rings of private nodes, what others have seen."""
    return soul.partition("/")[0] == ACCESS or (
        soul.startswith("~") and soul.partition("/")[2].startswith(".")
    )


def needs_verdict(author: bytes, soul: str) -> bool:
    """Return whether an author's ops at a soul count only if they are let in: it is another's, or under rules."""
    return soul.startswith(MARK) or not may_write(author, soul)


OFFER, USE, REVOKE = "offer/", "use/", "revoke/"
#: Why an op of a device doesn't count that its account has put out.
REVOKED_DEVICE: Final = "an account's soul, and the account has revoked its author"
#: Grants of one owner that an author may use: all are looked through for an op.
MAX_GRANTS: Final = 64


_Once = tuple[str, int, str, str]


@dataclass
class _Author:
    """What is remembered of one author: all that verdicts on its next ops depend on."""

    #: Root of a document -> the clock of the op that shipped it first.
    shipped: dict[str, int] = field(default_factory=dict)
    #: (root, place of the rule, soul, key) -> the clock of the op that stands.
    once: dict[_Once, int] = field(default_factory=dict)
    #: (root, place of the rule) -> clocks of its last ops.
    rates: dict[tuple[str, int], deque[int]] = field(default_factory=dict)
    #: Grants that it uses: owner's name in souls -> id -> grant.
    grants: dict[str, dict[str, Grant]] = field(default_factory=dict)
    #: Id of a grant -> the highest clock of an op that it let in.
    used: dict[str, int] = field(default_factory=dict)
    #: Root -> the first offence.
    offences: dict[str, Offence] = field(default_factory=dict)
    #: Cards of accounts that it writes for.
    showing: Showing = field(default_factory=dict)

    def weigh(self) -> int:
        """Return the bytes of memory that it takes, about."""
        grants = sum(map(len, self.grants.values()))
        counted = SHIPPED * len(self.shipped) + GRANT * grants + SHOWN * len(self.showing)
        counted += RATE * len(self.rates) + CLOCK * sum(map(len, self.rates.values()))
        return counted + weigh_once(self.once) + sum(map(weigh_offence, self.offences.values()))


class _Usable(NamedTuple):
    """A grant that an author uses, as it is asked for each op: of a stranger there may be 64, and 65,536 ops."""

    name: str
    #: The soul that it is for, and how those below it begin.
    root: str
    below: str
    #: The last clock that it, and its owner, let in.
    last: int
    #: The account that it is to; "" for an identity.
    account: str


@dataclass
class Ruling:
    """Verdicts on ops of one author in a row. Nothing is remembered before `commit_verdicts`."""

    access: AccessState
    author: bytes
    verdicts: bytearray = field(default_factory=bytearray)
    #: That of `access` when it was begun.
    version: int = 0
    #: Why the last op is void; empty when it isn't.
    reason: str = ""
    #: How it breaks rules, where that is why.
    breach: Breach | None = None
    _shipped: MutableMapping[str, int] = field(default_factory=dict)
    _documents: MutableMapping[str, Rules] = field(default_factory=dict)
    _once: MutableMapping[_Once, int] = field(default_factory=dict)
    #: (root, place of the rule) -> clocks, and how many of them count: a trial adds to the same list, behind those.
    _rates: MutableMapping[tuple[str, int], tuple[list[int], int]] = field(default_factory=dict)
    #: Owner's name -> id -> grant: replaced, not changed, since a trial sees the same ones.
    _grants: MutableMapping[str, Mapping[str, Grant]] = field(default_factory=dict)
    _used: MutableMapping[str, int] = field(default_factory=dict)
    _revoked: MutableMapping[tuple[bytes, str], Revocation] = field(default_factory=dict)
    _offences: MutableMapping[str, Offence] = field(default_factory=dict)
    _showing: Showing = field(default_factory=dict)
    _cuts: list[Cuts] = field(default_factory=list)
    _told: int = 0
    #: Worked out once for all ops in a row, as it is asked for each: owner's name -> the grants of it that are used.
    _usable: dict[str, list[_Usable]] = field(default_factory=dict)
    #: Account's name -> the cards of it that the author has shown, and the last clock that each lets in.
    _devices: dict[str, list[tuple[ShownCards, int]]] = field(default_factory=dict)
    #: Root of a document -> what finds the rule for an op.
    _matchers: dict[str, RuleMatcher] = field(default_factory=dict)

    def judge_op(self, op: Op) -> int:
        """Return the verdict on the next op: 0 (nobody's soul, or its author's own), `VOID` or `ALLOWED`."""
        self.reason, self.breach = "", None
        if op.soul.startswith(f"{ACCESS}/") or op.soul == ACCESS:
            self.reason = self._of_access(op)
        elif op.soul.startswith(MARK):
            self.reason = self._of_rules(op)
        elif is_of_account(op.soul):
            self.reason = self._of_account(op)
        elif not may_write(op.author, op.soul):
            self.reason = self._of_owner(op)
        else:
            self.verdicts.append(0)
            return 0
        self.verdicts.append(VOID if self.reason else ALLOWED)
        return self.verdicts[-1]

    def is_current(self, access: AccessState) -> bool:
        """Return whether this is what would be found now, if nothing of its author was committed since."""
        return self.access is access and self.version == access.version

    def has_shipped(self, root: str) -> bool:
        """Return whether the author has shipped this document."""
        return root in self._shipped or root in self.access.author_state(self.author).shipped

    def begin_trial(self) -> Ruling:
        """Return one that goes on from here, with its own dicts in front of these, which aren't copied. Nothing of it
        is noted here before `keep_trial`; while it is in use this one judges nothing."""
        own: dict[str, Any] = {name: ChainMap({}, getattr(self, name)) for name in _LAYERS}
        own["_showing"] = {at: one.copy() for at, one in self._showing.items()}  # `MAX_ACCOUNTS` at most
        return Ruling(self.access, self.author, version=self.version, _matchers=self._matchers, **own)

    def keep_trial(self, trial: Ruling) -> None:
        """Note what a trial judged that was begun here."""
        for name in _LAYERS:
            getattr(self, name).update(getattr(trial, name).maps[0])
        self._showing, self._devices, self._usable = trial._showing, trial._devices, trial._usable
        self.verdicts += trial.verdicts
        self._cuts += trial._cuts
        self._told += trial._told

    # ---- grants -------------------------------------------------------------------------------------------------

    def _of_access(self, op: Op) -> str:
        if op.soul != f"{ACCESS}/{owner_name(op.author)}" or op.kind is not Kind.REGISTER_PUT:
            return "another's access"
        for prefix in (OFFER, USE, REVOKE):
            if op.key.startswith(prefix):
                name = op.key.removeprefix(prefix)
                return (
                    self._judge_revocation(op, name)
                    if prefix == REVOKE
                    else self._grants_by(op, name, prefix)
                )
        for prefix in (CARD, CUTS):
            if op.key.startswith(prefix):
                return self._judge_card(op, op.key.removeprefix(prefix), prefix)
        return "nothing that access knows"

    def _grants_by(self, op: Op, name: str, prefix: str) -> str:
        if not isinstance(op.value, bytes):
            return "no grant"
        try:
            grant = self.access.decode_grant(op.value)
        except GrantError as error:
            return str(error)
        if grant.id != name or not self._is_party(grant, op.author, prefix):
            return "a grant of others"
        if prefix == USE:
            owner = owner_name(grant.owner)
            used = self._used_of(owner)
            if name not in used and len(used) >= MAX_GRANTS:
                return f"more than {MAX_GRANTS} grants of one owner"
            self._grants[owner] = {**self._grants.get(owner, {}), name: grant}  # `MAX_GRANTS` at most
            self._usable.pop(owner, None)
        return ""

    @staticmethod
    def _is_party(grant: Grant, author: bytes, prefix: str) -> bool:
        """Return whether the author may offer or use a grant. Whether it belongs to the account that a grant names is
        asked for each op."""
        if prefix == OFFER:
            return author == grant.owner
        return grant.to_account or author == grant.grantee

    def has_used(self, grant: Grant) -> bool:
        """Return whether the author has said that it uses a grant."""
        return grant.id in self._used_of(owner_name(grant.owner))

    def _used_of(self, owner: str) -> dict[str, Grant]:
        """Return the grants of the owner of this name that the author uses."""
        before, now = self.access.author_state(self.author).grants.get(owner, {}), self._grants.get(owner)
        return {**before, **now} if now else before

    def _judge_revocation(self, op: Op, name: str) -> str:
        try:
            told = read_revocation(op.value)
        except GrantError as error:
            return str(error)
        key = op.author, name
        before = self._revoked.get(key, self.access.revoked.get(key))
        both = told if before is None else before.merged_with(told)
        if both == before:
            return "revoked already"
        self._revoked[key] = both
        return ""

    def _of_owner(self, op: Op) -> str:
        owner, soul, clock = op.soul[1:].partition("/")[0], op.soul, op.clock
        usable = self._usable.get(owner)
        if usable is None:
            usable = self._usable[owner] = [*self._list_usable(owner)]
        reason = "another's soul, without a grant for it"
        if is_reserved_of(owner, soul, op.key):
            return reason
        for name, root, below, last, account in usable:
            if not (soul == root or soul.startswith(below)):
                continue
            if clock > last:
                reason = reason and "another's soul, and the grant for it has ended or was revoked"
            elif not account or self._is_device(account, op):
                self._used[name] = clock
                reason = ""
        return reason

    def _list_usable(self, owner: str) -> Iterator[_Usable]:
        for name, grant in self._used_of(owner).items():
            last = self.access.revocation_of(grant, name).last_clock(self.author)
            account = grant.grantee_name if grant.to_account else ""
            root = owned_soul(grant.owner, grant.path)
            yield _Usable(name, root, f"{root}/", min(last, grant.until or last), account)

    # ---- accounts -----------------------------------------------------------------------------------------------

    def _judge_card(self, op: Op, name: str, prefix: str) -> str:
        """Return why an op is refused that shows a card of its author's account, or an account's cuts; "" if it
        isn't."""
        if not isinstance(op.value, bytes):
            return "no card"
        try:
            cuts = self.access.accounts.decode_cuts(op.value) if prefix == CUTS else None
            card = cuts.card if cuts else self.access.accounts.decode_card(op.value)
        except (CardError, CutsError) as error:
            return str(error)
        if card.name != name or not card.names(op.author):
            return "a card of others"
        self._told += 1
        if cuts is not None:
            self._cuts.append(cuts)
            return ""
        place = name, card.generation
        shown = self.access.author_state(self.author).showing | self._showing
        if place not in shown and len(shown) >= MAX_ACCOUNTS:
            return f"more than {MAX_ACCOUNTS} accounts of one author"
        self._devices.pop(name, None)
        if place in shown:
            self._overlay_shown(place, shown[place]).extend_until(card.expires_ms)
        else:
            self._showing[place] = ShownCards(card.expires_ms)
        return ""

    def _overlay_shown(self, place: tuple[str, int], shown: ShownCards) -> ShownCards:
        if place not in self._showing:
            self._showing[place] = shown.copy()
        return self._showing[place]

    def _of_account(self, op: Op) -> str:
        name = root_of(op.soul)
        if self._is_device(name, op):
            return ""
        shown = self._devices[name]
        if any(one.covers_clock(op.clock) for one, _ in shown):
            return REVOKED_DEVICE
        if shown:
            return "an account's soul, and the card that names its author has ended"
        return "an account's soul, without a card that names its author"

    def _is_device(self, name: str, op: Op) -> bool:
        """Return whether the op is one of a device of this account: by a card that its author showed, and up to the
        cuts."""
        devices, found = self._devices.get(name), False
        if devices is None:
            standing = self.access.accounts.standing_of(name)
            shown = self.access.author_state(self.author).showing | self._showing
            devices = self._devices[name] = [
                (self._overlay_shown(place, one), standing.last_clock(op.author, place[1]))
                for place, one in shown.items()
                if place[0] == name
            ]
        for one, last in devices:
            if one.covers_clock(op.clock):
                counts = op.clock <= last
                one.note_verdict(op.clock if counts else 0, 0 if counts else op.clock)
                found |= counts
        return found

    # ---- rules --------------------------------------------------------------------------------------------------

    def _of_rules(self, op: Op) -> str:
        root, _, path = op.soul.partition("/")
        if op.soul == root:
            return self._judge_rules(op, root)
        if not self.has_shipped(root):
            return "its author has not shipped the rules"
        author = owner_name(op.author)
        matcher = self._matchers.get(root)
        if matcher is None:
            rules = self._documents.get(root) or self.access.documents[root]
            matcher = self._matchers[root] = rules.matcher(author)
        found = matcher.first_rule(path, op.key, op.space)
        if found is None:
            return self._note_offence(op, root, Breach.NO_RULE)
        at, rule = found
        breach = rule.find_breach(op, author)
        return self._note_offence(op, root, breach) if breach else self._judge_counted(op, root, at, rule)

    def _judge_rules(self, op: Op, root: str) -> str:
        if op.kind is not Kind.REGISTER_PUT or op.key != DOCUMENT_KEY or not isinstance(op.value, bytes):
            return "not a document of rules"
        kind = root.removeprefix(MARK).partition(":")[0]
        if language.root_of(kind, op.value) != root:
            return "another document than the soul names"
        try:
            rules = language.read(op.value)
        except RulesError as error:
            return str(error)
        if rules.kind != kind:
            return "a document of another kind"
        self._shipped.setdefault(root, op.clock)
        self._documents[root] = rules
        return ""

    def _judge_counted(self, op: Op, root: str, at: int, rule: Rule) -> str:
        """Return why an op is refused by what its author did before, "" if it isn't; remember it if it is let in."""
        known = self.access.author_state(self.author)
        scope = rule.once_for(op)
        once = None if scope is None else (root, at, *scope)
        if once is not None:
            first = self._once.get(once, known.once.get(once))
            if first is not None:
                return self._note_offence(op, root, Breach.SECOND, (first,))
        if rule.rate is not None:
            count, seconds = rule.rate
            before, (now, made) = known.rates.get((root, at), deque()), self._rates.get((root, at), ([], 0))
            total = len(before) + made
            oldest = 0  # of the last `count`: if that is within, all are
            if total >= count:
                oldest = now[made - count] if count <= made else before[total - count]
            if oldest > op.clock - (int(seconds * 1000) << 16):
                told = root in self._offences or root in known.offences
                earlier = () if told else tuple([*before, *now[max(0, made - count) : made]][-count:])
                self._note_offence(op, root, Breach.RATE, earlier)
                return f"more than {count} in {seconds:g} s"
            del now[made:]  # of trials that weren't kept
            now.append(op.clock)
            self._rates[root, at] = now, made + 1
        if once is not None:
            self._once[once] = op.clock
        return ""

    def _note_offence(self, op: Op, root: str, breach: Breach, earlier: tuple[int, ...] = ()) -> str:
        self.breach = breach
        known = self.access.author_state(self.author)
        if root not in self._offences and root not in known.offences:
            shipped = known.shipped[root] if root in known.shipped else self._shipped[root]
            self._offences[root] = Offence(op.author, root, breach, op.clock, shipped, earlier)
        return breach.text

    def takes_from(self, author: bytes) -> bool:
        """Return whether these ops revoke a grant that this author uses, or end devices of an account that it writes
        for."""
        known = self.access.author_state(author)
        used = (name in known.grants.get(owner_name(owner), {}) for owner, name in self._revoked)
        showing = known.showing
        if any(place[0] == cuts.card.name for cuts in self._cuts for place in showing):
            return True
        return any(used)

    # ---- remembering --------------------------------------------------------------------------------------------

    def commit_verdicts(self) -> None:
        """Note that the ops were taken: the next verdicts depend on them."""
        access, known = self.access, self.access.author_state(self.author, keep=True)
        access.add_documents(self._documents)
        access.memory_bytes += SHIPPED * len(self._shipped.keys() - known.shipped.keys())
        for root, clock in self._shipped.items():
            known.shipped.setdefault(root, clock)
        access.memory_bytes += weigh_once(self._once)
        known.once.update(self._once)
        for place, (clocks, made) in self._rates.items():
            rate = access.documents[place[0]].rules[place[1]].rate
            kept = known.rates.setdefault(place, deque(maxlen=rate[0] if rate else 0))
            before = len(kept)
            kept.extend(clocks[:made])
            access.memory_bytes += CLOCK * (len(kept) - before) + (0 if before else RATE)
        for owner, grants in self._grants.items():
            used = known.grants.setdefault(owner, {})
            access.memory_bytes += GRANT * len(grants.keys() - used.keys())
            used.update(grants)
            access.in_use.update(grants)
        for name, clock in self._used.items():
            known.used[name] = max(clock, known.used.get(name, 0))
        access.memory_bytes += sum(map(weigh_offence, self._offences.values()))
        known.offences.update(self._offences)
        access.memory_bytes += SHOWN * len(self._showing.keys() - known.showing.keys())
        known.showing.update(self._showing)
        access.accounts.version += self._told
        access.version += bool(self._cuts or self._revoked)
        for cuts in self._cuts:
            access.end_devices(cuts)
        for key, cut in self._revoked.items():
            access.memory_bytes += weigh_revocation(cut) - weigh_revocation(access.revoked.get(key))
            access.revoked[key] = cut
            access.must_rebuild |= access.has_let_in(key, cut)


_LAYERS: Final = ("_shipped", "_documents", "_once", "_rates", "_grants", "_used", "_revoked", "_offences")


class AccessState:
    """All that verdicts depend on, for the graph of this name."""

    def __init__(
        self,
        graph: str = "",
        cuts: Mapping[tuple[bytes, str], Revocation] | None = None,
        accounts: KnownAccounts | None = None,
    ) -> None:
        """`cuts` are revocations that are known beforehand, as those of `revoked` of another."""
        self.graph = graph
        #: What is known of accounts, whose devices may write on their souls.
        self.accounts = KnownAccounts(graph) if accounts is None else accounts
        #: Revocations that are known, but not from frames that were taken here.
        self.cuts = dict(cuts or {})
        self.authors: dict[bytes, _Author] = {}
        self.documents: dict[str, Rules] = {}
        #: (owner, id of its grant) -> up to where those who use it count.
        self.revoked: dict[tuple[bytes, str], Revocation] = {}
        #: Whether what was let in before is void now: take all frames again, with `revoked` as it is.
        self.must_rebuild = False
        #: Rises with whatever may change verdicts on others than whose ops it is.
        self.version = 0
        #: Grants that their grantees have said they use, by their ids.
        self.in_use: dict[str, Grant] = {}
        #: Bytes of memory that all this takes, about.
        self.memory_bytes = 0
        self._is_outdated = False
        self._read: dict[bytes, Grant] = {}

    def begin_anew(self) -> None:
        """Have all frames taken again that are there then, and nothing known of those that were."""
        self.must_rebuild = self._is_outdated = True

    def only_revoked(self) -> AccessState:
        """Return nothing but what was revoked: to take all frames again."""
        if self._is_outdated:
            return AccessState(self.graph)
        cuts = dict(self.cuts)
        for key, cut in self.revoked.items():
            cuts[key] = cut.merged_with(cuts.get(key, NOT_REVOKED))
        return AccessState(self.graph, cuts, KnownAccounts(self.graph, self.accounts.all_standing()))

    @property
    def is_outdated(self) -> bool:
        """Whether nothing that is known of frames that were taken may be kept."""
        return self._is_outdated

    def take_over(self, known: AccessState) -> bool:
        """Take over what `again` of another gave; True if all stays that was let in here."""
        for key, cut in known.cuts.items():
            self.cuts[key] = cut.merged_with(self.cuts.get(key, NOT_REVOKED))
        self.accounts.begin_with(known.accounts.all_standing())
        return not any(self._is_wrong(author, one) for author, one in self.authors.items())

    def _is_wrong(self, author: bytes, one: _Author) -> bool:
        """Return whether something of an author was let in that is void, or the other way round."""
        used = (grant for grants in one.grants.values() for grant in grants.values() if grant.id in one.used)
        return any(
            one.used[grant.id] > self.revocation_of(grant, grant.id).last_clock(author) for grant in used
        ) or any(
            shown.is_wrong(self.accounts.standing_of(place[0]).last_clock(author, place[1]))
            for place, shown in one.showing.items()
        )

    def end_devices(self, cuts: Cuts) -> None:
        """Take an account's word where its devices end."""
        name = cuts.card.name
        before = weigh_standing(self.accounts.standings.get(name))
        self.accounts.add_cuts(cuts)
        self.memory_bytes += weigh_standing(self.accounts.standings.get(name)) - before
        standing = self.accounts.standing_of(name)
        for author, known in self.authors.items():
            for place, shown in known.showing.items():
                if place[0] == name:
                    self.must_rebuild |= shown.is_wrong(standing.last_clock(author, place[1]))

    def revocation_of(self, grant: Grant, name: str) -> Revocation:
        """Return up to where a grant, whose id is `name`, lets anything in."""
        key = grant.owner, name
        return self.revoked.get(key, NOT_REVOKED).merged_with(self.cuts.get(key, NOT_REVOKED))

    def has_let_in(self, key: tuple[bytes, str], cut: Revocation) -> bool:
        """Return whether the grant of this (owner, id) has let in what it doesn't when it is revoked so."""
        owner, name = key
        grant = self.in_use.get(name)
        if grant is None or grant.owner != owner:
            return False  # others may revoke what they like, to no effect
        if not grant.to_account:
            return self.author_state(grant.grantee).used.get(name, 0) > cut.last_clock(grant.grantee)
        return any(known.used.get(name, 0) > cut.last_clock(author) for author, known in self.authors.items())

    def author_state(self, author: bytes, *, keep: bool = False) -> _Author:
        """Return what is remembered of an author."""
        found = self.authors.get(author)
        if found is None:
            found = _Author()
            if keep:
                self.authors[author] = found
        return found

    def add_documents(self, documents: Mapping[str, Rules]) -> None:
        """Keep documents of rules, by their roots."""
        for root, rules in documents.items():
            if root not in self.documents:
                self.documents[root] = rules
                self.memory_bytes += DOCUMENT_BYTE * len(rules.document)

    def decode_grant(self, data: bytes) -> Grant:
        """Return the grant in `data`, checked for this graph once. Raises `GrantError`."""
        grant = self._read.get(data)
        if grant is None:
            grant = read_grant(self.graph, data)
            if len(self._read) >= 4096:
                self._read.clear()
            self._read[data] = grant
        return grant

    def begin_ruling(self, author: bytes, ops: Iterable[Op] = ()) -> Ruling:
        """Return verdicts on ops of an author, in order."""
        ruling = Ruling(self, author, version=self.version)
        for op in ops:
            ruling.judge_op(op)
        return ruling

    def list_offences(self) -> list[Offence]:
        """Return the first offence of each author under each document, by author and document."""
        return [
            self.authors[author].offences[root]
            for author in sorted(self.authors)
            for root in sorted(self.authors[author].offences)
        ]

    def offered_grants(self, core: GraphCore, grantee: bytes) -> Iterator[Grant]:
        """Yield grants to an author, or to an account of which a card names it, that their owners published."""
        accounts = {card.name for card in self.iter_cards(core) if card.names(grantee)}
        for soul in values.decode(core.list_souls(f"{ACCESS}/".encode())):
            for key, data in values.decode(core.read_keys(_REGISTER, soul.encode())).items():
                if key.startswith(OFFER):
                    grant = self.decode_grant(data)
                    if grant.grantee_name in accounts if grant.to_account else grant.grantee == grantee:
                        yield grant

    def iter_cards(self, core: GraphCore, name: str = "") -> Iterator[Card]:
        """Yield cards that were shown or published of the account of this name, of all without one."""
        for soul in values.decode(core.list_souls(f"{ACCESS}/".encode())):
            for key, data in values.decode(core.read_keys(_REGISTER, soul.encode())).items():
                prefix, _, account = key.partition("/")
                if f"{prefix}/" not in (CARD, CUTS) or name not in ("", account):
                    continue
                yield (
                    self.accounts.decode_cuts(data).card
                    if key.startswith(CUTS)
                    else self.accounts.decode_card(data)
                )

    # ---- as bytes -----------------------------------------------------------------------------------------------

    def save_state(self) -> list[Any]:
        """Return the same on all replicas that saw the same: documents, authors, revocations, accounts."""
        authors = [[author, *_write(self.authors[author])] for author in sorted(self.authors)]
        authors = [author for author in authors if any(author[1:])]
        documents = [self.documents[root].document for root in sorted(self.documents)]
        revoked = sorted([*key, cut.to_value()] for key, cut in self.revoked.items())
        return [documents, authors, revoked, self.accounts.save_accounts()]

    @classmethod
    def load_state(cls, graph: str, saved: list[Any]) -> AccessState:
        """Return what `save` gave. Raises what reading lists may: `ValueError`, `TypeError`, `KeyError`,
        `GrantError`."""
        access = cls(graph)
        documents, authors, revoked, accounts = saved
        access.accounts.load_accounts(accounts)
        for document in documents:
            rules = language.read(document)
            access.add_documents({language.root_of(rules.kind, document): rules})
        for author, shipped, once, rates, grants, offences, showing in authors:
            known = access.author_state(author, keep=True)
            known.shipped.update(shipped)
            known.once.update(((root, at, soul, key), clock) for root, at, soul, key, clock in once)
            for root, at, clocks in rates:
                rate = access.documents[root].rules[at].rate
                known.rates[root, at] = deque(clocks, rate[0] if rate else 0)
            for data, used in grants:
                grant = access.decode_grant(data)
                known.grants.setdefault(owner_name(grant.owner), {})[grant.id] = grant
                access.in_use[grant.id] = grant
                if used:
                    known.used[grant.id] = used
            for root, breach, clock, at, earlier in offences:
                known.offences[root] = Offence(author, root, Breach(breach), clock, at, tuple(earlier))
            known.showing = load_showing(showing)
            access.memory_bytes += known.weigh()
        access.revoked.update(((owner, name), read_revocation(cut)) for owner, name, cut in revoked)
        access.memory_bytes += sum(map(weigh_revocation, access.revoked.values()))
        access.memory_bytes += sum(map(weigh_standing, access.accounts.standings.values()))
        return access


def _write(known: _Author) -> list[Any]:
    return [
        sorted(known.shipped.items()),
        sorted([*name, clock] for name, clock in known.once.items()),
        sorted([*name, list(clocks)] for name, clocks in known.rates.items()),
        sorted(
            [grant.encode(), known.used.get(name, 0)]
            for grants in known.grants.values()
            for name, grant in grants.items()
        ),
        sorted([*offence[1:5], list(offence.earlier)] for offence in known.offences.values()),
        save_showing(known.showing),
    ]


_REGISTER: Final = 0
