"""Answers questions of others: who may ask how much, what they get, and what strangers don't get.

A node that hasn't shown that it receives at its address gets only a token, in a datagram smaller than its own. So
nobody can use this node to flood somebody else's address.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from random import Random
from typing import Final

from dtp.carriers.nearness import Nearness
from dtp.identity import Identity, PeerId, PeerIdError
from dtp.peers.dht.addresses import (
    Endpoint,
    Scope,
    may_tell,
    pack_endpoint,
    scope_of,
    subnet_of,
    unpack_endpoint,
)
from dtp.peers.dht.admission import Tokens, TokenStanding
from dtp.peers.dht.errors import DhtRecordError
from dtp.peers.dht.limits import DhtLimits
from dtp.peers.dht.messages import (
    MAX_DATAGRAM,
    MAX_RECORDS,
    Arguments,
    DatagramKind,
    DhtAnswer,
    ProbePacket,
    Question,
    StoreVerdict,
    answer_to_sign,
    encode,
    question_to_sign,
)
from dtp.peers.dht.records import Record, decode_record
from dtp.peers.dht.store import RecordStore
from dtp.peers.dht.table import RoutingTable
from dtp.rates import RateLimiter

#: The size of an answer without its arguments: header, flags, token, and the lengths of two arguments; then the
#: size of key and proof.
_OVERHEAD: Final = 11 + 16 + 8
_PROOF: Final = 32 + 64
#: The bytes that a record needs in an answer besides its own.
_RECORD_HEAD: Final = 3
_MINUTE: Final = 60.0


class DhtServer:
    """Answers questions for one node, from its table and its store."""

    def __init__(
        self, identity: Identity, limits: DhtLimits, table: RoutingTable, store: RecordStore, random: Random
    ) -> None:
        self._identity = identity
        self._limits = limits
        self._table = table
        self._store = store
        self._random = random
        self._tokens = Tokens(random.randbytes(32), limits.token_lifetime)
        most = limits.quota_entries
        self._peers: RateLimiter[bytes] = RateLimiter(limits.peer_burst, 1 / limits.peer_rate, most)
        self._strangers: RateLimiter[object] = RateLimiter(
            limits.stranger_burst, 1 / limits.stranger_rate, most
        )
        self._proofs: RateLimiter[None] = RateLimiter(limits.proof_burst, 1 / limits.proof_rate, 1)
        checks = limits.checks_per_minute
        self._checks: RateLimiter[bytes] = RateLimiter(checks, _MINUTE / checks, most)
        #: Has a third node dial the asker. Set by the node, which has the exchange.
        self.have_dialled: Callable[[Endpoint, bytes, float], int] = lambda endpoint, nonce, now: 0
        #: The node's own records, by kind and target, and when each was published; set by the node. If it is the
        #: only one that serves, because all others are behind NATs, nobody else can keep them.
        self.published: Mapping[tuple[int, bytes], tuple[Record, float]] = {}
        #: True while this node serves nobody.
        self.client = False
        #: The difference between Unix time and `now`.
        self.unix_offset = 0.0
        self.counts: Counter[str] = Counter()

    def answer_question(
        self, question: Question, source: Endpoint, now: float
    ) -> tuple[list[tuple[bytes, Endpoint]], TokenStanding]:
        """Return the datagrams to send for a question from `source`, and what its asker has proven."""
        where = pack_endpoint(source)
        standing = self._tokens.check_token(question.token, where, question.key, now)
        self.counts["questions"] += 1
        if standing < TokenStanding.PEER_BEFORE and not (standing and question.proof):
            return self._make_retry(question, source, where, now), TokenStanding.NOTHING
        proven = standing >= TokenStanding.PEER_BEFORE
        if not proven and not self._is_proven(question, source, now):
            return [], TokenStanding.NOTHING
        if not self._peers.try_take(question.key, now):
            return self._make_refusal(question, source, StoreVerdict.BUSY, proven), TokenStanding.NOTHING
        if self.client and question.kind is not DatagramKind.PING:
            return self._make_refusal(question, source, StoreVerdict.CLIENT, proven), standing
        room = MAX_DATAGRAM - _OVERHEAD - (0 if proven else _PROOF)
        kind, args, extra = self._make_answer(question, source, room, now)
        token = b"" if standing is TokenStanding.PEER else self._tokens.peer_token(where, question.key, now)
        answer = DhtAnswer(kind, question.transaction, args, token)
        if not proven:
            answer = replace(answer, key=self._identity.id.key)
            answer = replace(answer, proof=self._identity.sign(answer_to_sign(answer, question.key)))
        self.counts["answers"] += 1
        return [(encode(answer), source), *extra], TokenStanding.PEER

    # ------------------------------------------------------------------------------------------------ strangers

    def _make_retry(
        self, question: Question, source: Endpoint, where: bytes, now: float
    ) -> list[tuple[bytes, Endpoint]]:
        if not self._strangers.try_take(subnet_of(source) or where, now):
            self.counts["strangers over their quota"] += 1
            return []
        token = self._tokens.address_token(where, question.key, now)
        self.counts["strangers"] += 1
        return [
            (
                encode(
                    DhtAnswer(
                        DatagramKind.RETRY, question.transaction, token=token, key=self._identity.id.key
                    )
                ),
                source,
            )
        ]

    def _is_proven(self, question: Question, source: Endpoint, now: float) -> bool:
        """True if the asker has signed this question for this node."""
        if not self._proofs.try_take(None, now):
            self.counts["proofs over their quota"] += 1
            return False
        try:
            peer = PeerId(question.key)
        except PeerIdError:
            self.counts["forged questions"] += 1
            return False
        good = peer.verify(question.proof, question_to_sign(question, self._identity.id.key))
        self.counts["proofs" if good else "forged questions"] += 1
        return good

    def _make_refusal(
        self, question: Question, source: Endpoint, why: StoreVerdict, proven: bool
    ) -> list[tuple[bytes, Endpoint]]:
        """Return a refusal for a proven asker, and nothing for others, for whom it would need a signature."""
        self.counts[f"refused: {why.name.lower()}"] += 1
        if not proven:
            return []
        return [(encode(DhtAnswer(DatagramKind.REFUSED, question.transaction, (int(why),))), source)]

    # -------------------------------------------------------------------------------------------------- answers

    def _make_answer(
        self, question: Question, source: Endpoint, room: int, now: float
    ) -> tuple[DatagramKind, Arguments, list[tuple[bytes, Endpoint]]]:
        """Return the kind and arguments of the answer, of at most `room` bytes, and what else to send.

        If the first record doesn't fit beside the proof, the answer is PONG, and the asker asks again without one.
        """
        args = question.args
        extra: list[tuple[bytes, Endpoint]] = []
        match question.kind:
            case DatagramKind.PING:
                return DatagramKind.PONG, (pack_endpoint(source),), extra
            case DatagramKind.FIND:
                return DatagramKind.NODES, (self._nearest_entries(args[0], source, room),), extra
            case DatagramKind.GET:
                records = self._find_records(args[1], args[0], Nearness.of_host(source[0]), now)
                fitting = _fitting(records, room)
                if records and not fitting:
                    return DatagramKind.PONG, (pack_endpoint(source),), extra
                room -= sum(len(each) + _RECORD_HEAD for each in fitting)
                return DatagramKind.FOUND, (self._nearest_entries(args[0], source, room), fitting), extra
            case DatagramKind.STORE:
                verdict, target = self._store_record(args[0], args[1], source, now)
                entries = self._nearest_entries(target, source, room) if target else b""
                return DatagramKind.STORED, (int(verdict), entries), extra
            case DatagramKind.CHECK:
                allowed = self._checks.try_take(question.key, now)
                asked = self.have_dialled(source, args[0], now) if allowed else 0
                return DatagramKind.CHECKING, (asked,), extra
            case _:
                assert question.kind is DatagramKind.DIAL
                dialled = unpack_endpoint(args[0])
                if self._may_dial(question, dialled, source, now):
                    extra.append((encode(ProbePacket(args[1])), dialled))
                return DatagramKind.DIALLED, (), extra

    def _may_dial(self, question: Question, dialled: Endpoint, source: Endpoint, now: float) -> bool:
        """True if one small packet may be sent to an address that only the asker vouches for."""
        allowed = may_tell(dialled, source) and self._checks.try_take(b"dial" + question.key, now)
        return allowed and self._checks.try_take(
            b"dialled" + (subnet_of(dialled) or pack_endpoint(dialled)), now
        )

    def _nearest_entries(self, target: bytes, source: Endpoint, room: int) -> bytes:
        """Return the nodes nearest to `target` that can be reached from `source`, as many as fit into `room`."""
        everything = scope_of(source) is not Scope.GLOBAL
        parts = []
        for each in self._table.closest_contacts(int.from_bytes(target, "big"), self._limits.k):
            if not everything and scope_of(each.endpoint) is not Scope.GLOBAL:
                continue
            room -= len(each.entry)
            if room < 0:
                break
            parts.append(each.entry)
        return b"".join(parts)

    def _find_records(self, kind: int, target: bytes, hearer: Nearness, now: float) -> list[bytes]:
        """Return the valid records at `target` that a peer at `hearer` may be told. Several are shuffled, so that
        each gets into some answers; further records of a subnet come after the first ones of all others, however
        many they are.
        """
        unix = now + self.unix_offset
        held = {
            each.record.author: (each.record, each.source)
            for each in self._store.list_held(kind, target)
            if each.record.is_for(hearer, each.teller)
        }
        own, _ = self.published.get((kind, target), (None, 0.0))
        if own is not None and (own.author not in held or own.order > held[own.author][0].order):
            held[own.author] = own, b""
        found = [(each.encoded, source) for each, source in held.values() if each.expires > unix]
        if len(found) > 1:
            self._random.shuffle(found)
            before: Counter[bytes] = Counter()
            turns = []
            for data, source in found:
                turns.append((before[source], data))
                before[source] += 1
            return [data for _, data in sorted(turns, key=lambda each: each[0])]
        return [data for data, _ in found]

    def _store_record(
        self, kind: int, data: bytes, source: Endpoint, now: float
    ) -> tuple[StoreVerdict, bytes]:
        """Store a record if it is valid and its target near this node. Return the verdict, and the target or b""."""
        try:
            record = decode_record(kind, data, now + self.unix_offset)
        except DhtRecordError as fault:
            self.counts[f"records refused: {fault.code}"] += 1
            return StoreVerdict.BAD, b""
        target = int.from_bytes(record.target, "big")
        if self._table.closer_than_us(target) >= self._limits.far * self._limits.k:
            verdict = StoreVerdict.FAR
        else:
            verdict = self._store.add_record(record, subnet_of(source), now, Nearness.of_host(source[0]))
        self.counts[f"records: {verdict.name.lower()}"] += 1
        return verdict, record.target


def _fitting(records: list[bytes], room: int) -> list[bytes]:
    """Return as many records, from the first on, as fit into `room`."""
    chosen = []
    for each in records[:MAX_RECORDS]:
        room -= len(each) + _RECORD_HEAD
        if room < 0:
            break
        chosen.append(each)
    return chosen
