"""Our own questions that wait for answers: tokens and proofs, timeouts, and contacts that turn out to be somebody
else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from random import Random
from typing import TypeAlias

from dtp.carriers.nearness import Nearness
from dtp.identity import Identity, PeerId, PeerIdError
from dtp.peers.dht.addresses import Endpoint
from dtp.peers.dht.admission import NONE
from dtp.peers.dht.contacts import KnownContacts, NodeContact, RoundTrips
from dtp.peers.dht.limits import DhtLimits
from dtp.peers.dht.messages import (
    TRANSACTION_SIZE,
    Arguments,
    DatagramKind,
    DhtAnswer,
    Question,
    answer_to_sign,
    encode,
    question_to_sign,
)
from dtp.peers.dht.timers import Timer, Timers


class QuestionOutcome(Enum):
    """The outcome of a question."""

    #: It was answered.
    ANSWERED = 0
    #: It takes longer than expected; one of the others follows.
    STALLED = 1
    #: There was no answer, or one from somebody else.
    FAILED = 2


#: Called with the contact, the outcome, the answer if there is one, and the time.
OnOutcome: TypeAlias = Callable[[NodeContact, QuestionOutcome, DhtAnswer | None, float], object]
#: Datagrams to send, with their destinations.
Outbox: TypeAlias = list[tuple[bytes, Endpoint]]


@dataclass(slots=True)
class _Pending:
    question: Question
    contact: NodeContact
    on_outcome: OnOutcome
    asked: float
    timer: Timer
    #: When the present form of the question was sent first. Then whether it was sent again, in case a packet was
    #: lost.
    sent: float
    again: bool = False
    #: The node for which the proof was signed; empty if none was asked for.
    proven_to: bytes = b""


class Exchange:
    """The questions that `identity` has asked."""

    def __init__(
        self,
        identity: Identity,
        limits: DhtLimits,
        timers: Timers,
        outbox: Outbox,
        known: KnownContacts,
        random: Random,
    ) -> None:
        self._identity = identity
        self._limits = limits
        self._timers = timers
        self._outbox = outbox
        self._known = known
        self._random = random
        self._pending: dict[bytes, _Pending] = {}
        self._round_trips = RoundTrips()
        #: Sent with each question: True if this node serves nobody.
        self.client = False
        self.counts: Counter[str] = Counter()
        #: How near the farthest node is that this one has met.
        self.farthest = Nearness.PROCESS

    def __len__(self) -> int:
        return len(self._pending)

    def send_question(
        self, contact: NodeContact, kind: DatagramKind, args: Arguments, on_outcome: OnOutcome, now: float
    ) -> None:
        """Send a question, and call `on_outcome` with its outcome: perhaps with `STALLED`, then with one of the
        others.

        GET and STORE are answered by PONG if the question or its answer doesn't fit beside a proof. The other node
        knows us then, and is to be asked again.
        """
        if len(self._pending) >= self._limits.pending:
            self.counts["too many questions"] += 1
            self._timers.start_timer(
                now, lambda when: on_outcome(contact, QuestionOutcome.FAILED, None, when)
            )
            return
        transaction = self._random.randbytes(TRANSACTION_SIZE)
        question = Question(kind, transaction, self._identity.id.key, args, contact.token, self.client)
        timer = self._timers.start_timer(
            now + self._timeout_for(contact), lambda when: self._on_timeout(transaction, when)
        )
        self._pending[transaction] = _Pending(question, contact, on_outcome, now, timer, now)
        self._send_datagram(encode(question), contact)

    def note_met(self, endpoint: Endpoint) -> None:
        """Note that a node has answered, or has asked and proven who it is: it may tell this node about others."""
        self.farthest = max(self.farthest, Nearness.of_host(endpoint[0]))

    def _send_datagram(self, data: bytes, contact: NodeContact) -> None:
        self.counts["asked"] += 1
        self._outbox.append((data, contact.endpoint))

    def _timeout_for(self, contact: NodeContact) -> float:
        trips = contact.round_trips if contact.round_trips.mean else self._round_trips
        return trips.current_timeout(self._limits)

    # ------------------------------------------------------------------------------------------- no answer yet

    def _on_timeout(self, transaction: bytes, now: float) -> None:
        pending = self._pending[transaction]
        wait = self._timeout_for(pending.contact)
        if not pending.again:
            pending.again = True
            self._send_datagram(
                self._sign_question(pending) if pending.proven_to else encode(pending.question),
                pending.contact,
            )
            rest = max(wait * (self._limits.give_up - 1), self._limits.shortest_patience)
            pending.timer = self._timers.start_timer(
                now + rest, lambda when: self._on_timeout(transaction, when)
            )
            pending.on_outcome(pending.contact, QuestionOutcome.STALLED, None, now)
            return
        self.counts["unanswered"] += 1
        self._finish_question(transaction, QuestionOutcome.FAILED, None, now)

    def _finish_question(
        self, transaction: bytes, outcome: QuestionOutcome, answer: DhtAnswer | None, now: float
    ) -> None:
        pending = self._pending.pop(transaction)
        pending.timer.cancel()
        contact = pending.contact
        if outcome is QuestionOutcome.ANSWERED:
            contact.failures, contact.seen = 0, now
            self.note_met(contact.endpoint)
        else:
            contact.failures += 1
        pending.on_outcome(contact, outcome, answer, now)

    # -------------------------------------------------------------------------------------------------- answers

    def receive_answer(self, answer: DhtAnswer, source: Endpoint, now: float) -> None:
        """Process an answer. One to no question of ours is only counted."""
        pending = self._pending.get(answer.transaction)
        if pending is None or pending.contact.endpoint != source:
            self.counts["answers to nothing"] += 1
            return
        if answer.kind is DatagramKind.RETRY:
            self._retry_with_proof(answer, pending, now)
            return
        if answer.kind not in (pending.question.kind + 0x80, DatagramKind.REFUSED, DatagramKind.PONG):
            self.counts["wrong answers"] += 1
            self._finish_question(answer.transaction, QuestionOutcome.FAILED, None, now)
            return
        contact = pending.contact
        if not contact.proven or answer.proof:
            if not self._is_proven(answer, pending):
                self.counts["impostors"] += 1
                self._finish_question(answer.transaction, QuestionOutcome.FAILED, None, now)
                return
            contact.proven = True
            if not contact.key:
                contact = pending.contact = self._identify_contact(contact, answer.key)
        if answer.token:
            contact.token = answer.token
        if not pending.again:  # otherwise it isn't known which of the two was answered (Karn)
            contact.round_trips.observe_round_trip(now - pending.sent)
            self._round_trips.observe_round_trip(now - pending.sent)
        self._finish_question(answer.transaction, QuestionOutcome.ANSWERED, answer, now)

    def _identify_contact(self, contact: NodeContact, key: bytes) -> NodeContact:
        """Return the contact with its key, now that it is known who is at this endpoint."""
        named = self._known.contact_at(key, contact.endpoint)
        named.token, named.proven = contact.token, True
        return named

    def _retry_with_proof(self, retry: DhtAnswer, pending: _Pending, now: float) -> None:
        """Ask again, with the token and a signature: once for each question, so that nobody can keep us signing."""
        contact = pending.contact
        if pending.proven_to == retry.key:  # we asked twice before the first RETRY came, and got two of them
            self.counts["answers to nothing"] += 1
            return
        if pending.proven_to or (contact.key and contact.key != retry.key):
            self.counts["impostors" if contact.key != retry.key else "wrong answers"] += 1
            self._finish_question(retry.transaction, QuestionOutcome.FAILED, None, now)
            return
        if contact.token == pending.question.token:  # otherwise another question has brought a newer one
            contact.token, contact.proven = NONE, False
        pending.question = replace(pending.question, token=retry.token)
        if (
            pending.question.kind is DatagramKind.STORE
        ):  # a record and a proof don't fit into one datagram: the record follows
            pending.question = replace(pending.question, kind=DatagramKind.PING, args=())
        pending.proven_to = retry.key
        if not pending.again:
            self._round_trips.observe_round_trip(now - pending.sent)
        pending.sent, pending.again = now, False
        transaction = retry.transaction
        pending.timer.cancel()
        pending.timer = self._timers.start_timer(
            now + self._timeout_for(contact), lambda when: self._on_timeout(transaction, when)
        )
        self._send_datagram(self._sign_question(pending), contact)

    def _sign_question(self, pending: _Pending) -> bytes:
        proof = self._identity.sign(question_to_sign(pending.question, pending.proven_to))
        return encode(replace(pending.question, proof=proof))

    def _is_proven(self, answer: DhtAnswer, pending: _Pending) -> bool:
        """True if the answer is signed by the node that was asked."""
        contact = pending.contact
        if not answer.proof or answer.key != pending.proven_to or (contact.key and answer.key != contact.key):
            return False
        try:
            peer = PeerId(answer.key)
        except PeerIdError:
            return False
        return peer.verify(answer.proof, answer_to_sign(answer, self._identity.id.key))
