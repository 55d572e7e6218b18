"""Links: what a carrier's handshake gave, keys and what is particular to it; and the table of a session's links.

A session has one link after another, or several at once. Frames of streams may go over any; answers to pings
and the proof that a link belongs to the session go over the link itself. Source: docs/wire.md, "Resume" and
"Several links".
"""

from __future__ import annotations

import hmac
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

from dtp.core import Frame as Received
from dtp.core import LinkOpener, Sealer
from dtp.errors import DtpError
from dtp.identity import PeerId
from dtp.session import events as ev
from dtp.session.codes import CloseCode, ProtocolError
from dtp.session.datagrams import LinkPackets
from dtp.session.exchange import Exchanges, LinkExchange
from dtp.session.frames import ADD, ATTACH, FrameType, Outgoing, control
from dtp.session.handshake import Established
from dtp.session.limits import Limits
from dtp.session.noise import Suite

#: What an entry of a list of opened frames takes, bytes.
_ENTRY = 128

_ROLE = {True: b"client", False: b"server"}

#: The kind of what stands in a link's control frames for a list (docs/wire.md, "Resume"), which is made when its turn
#: has come: so a peer that reads nothing has at most one kept for it, and it is as new as can be.
LIST_PLACE = -1


class Unread(NamedTuple):
    """Frames that were opened and nobody has read yet, with their bodies, and what was wrong behind them."""

    view: memoryview
    frames: list[Received]
    error: DtpError | None = None
    #: The code of the refusal that stands behind them, if one does.
    refusal: int | None = None

    @property
    def size(self) -> int:
        """Bytes that are kept for them, about."""
        return self.view.nbytes + _ENTRY * len(self.frames)

    def drop_first(self, count: int) -> Unread:
        """Return what is left behind the first `count`, with a copy of their bodies."""
        left = self.frames[count:]
        first, last = left[0][4], left[-1][4] + left[-1][5]
        frames = [
            (kind, flags, stream, offset, start - first, length)
            for kind, flags, stream, offset, start, length in left
        ]
        return self._replace(view=memoryview(bytes(self.view[first:last])), frames=frames)


class Link:
    """Keys and timers of one carrier. Times are seconds of the caller's clock."""

    __slots__ = (
        "adding",
        "attached",
        "confirmed",
        "control",
        "exchange",
        "hash",
        "last_received",
        "listed",
        "listing",
        "lost",
        "number",
        "opener",
        "packets",
        "patience",
        "ping_sent",
        "record_due",
        "refused",
        "rekey_at",
        "sealer",
        "suite",
        "told_silent",
        "unread",
    )

    def __init__(self, number: int, established: Established, limits: Limits, now: float) -> None:
        split = established.split
        self.number = number
        self.suite: Suite = established.suite
        self.hash = split.hash
        self.sealer = Sealer(established.suite.cipher, split.send, limits.rekey_bytes, limits.padding)
        self.opener = LinkOpener(established.suite.cipher, split.receive)
        #: True once it carries the session's frames; before, only ATTACH is accepted.
        self.attached = False
        #: It joins the links that are there (flag ADD) instead of taking their place.
        self.adding = False
        #: It could not prove that it belongs here: a CLOSE is sent, and nothing more is heard.
        self.refused = False
        #: True once the peer has sent a record: it holds the keys. An IK client has not proven that before.
        self.confirmed = False
        #: A record must go out even with nothing to say, because the peer waits for it.
        self.record_due = False
        self.lost = False
        self.control: deque[Outgoing] = deque()
        #: What is left to seal of the list whose place is the first in `control`.
        self.listing: deque[Outgoing] = deque()
        #: Streams that the list which is being read here has named.
        self.listed: set[int] = set()
        #: Seconds that an answer may take here at least, whatever the limits say: some carriers are slow by nature.
        self.patience = 0.0
        #: What goes over the lossy path of its carrier; None where there is none.
        self.packets: LinkPackets | None = None
        #: Frames of records that were opened, and for which the call that opened them had no room.
        self.unread: Unread | None = None
        self.last_received = now
        self.ping_sent: float | None = None
        self.told_silent: float | None = None  # the `ping_sent` that nothing has answered
        #: Fresh keys for this link, from time to time.
        self.exchange = LinkExchange(split.root, split.hash, now)
        self.rekey_at = now + limits.rekey_time if limits.rekey_time else float("inf")

    @property
    def is_silent(self) -> bool:
        """True while nothing answers a PING: see `SILENT` in `limits`."""
        return self.ping_sent is not None and self.ping_sent == self.told_silent

    def close(self) -> None:
        """Forget the keys. Idempotent."""
        self.lost = True
        self.unread = None
        self.control.clear()
        self.listing.clear()
        self.listed.clear()
        self.exchange.close()
        self.sealer.close()
        self.opener.close()
        if self.packets is not None:
            self.packets.close()


class LinkHistory:
    """What links there were, by their numbers, and what each side knows of those that were lost."""

    __slots__ = ("awaiting_state", "heard", "next", "told", "unanswered", "used")

    def __init__(self) -> None:
        self.next = 0
        self.used = {0}
        #: Lost ones whose STATE has not come: the peer may not know of it.
        self.unanswered: set[int] = set()
        #: Lost ones of which the peer was sent a list, and over which link.
        self.told: dict[int, int] = {}
        #: Lost ones whose STATE has come.
        self.heard: set[int] = set()
        #: True while streams wait for the peer's list, since a link has taken the place of all.
        self.awaiting_state = False


class LinkTimes:
    """Since when a session has a carrier, or none, or none that was of use. Times are the caller's, in seconds."""

    __slots__ = ("_stuck_since", "attached_at", "detached_at")

    def __init__(self, now: float) -> None:
        self.attached_at = now  # the newest link
        #: Since then without a link, or without one that was of use; None while there is one.
        self.detached_at: float | None = None
        self._stuck_since: float | None = None  # links were lost, and nothing has passed in between

    def note_attached(self, now: float) -> None:
        """Note that there is a new link."""
        self.attached_at, self.detached_at = now, None

    def note_replaced(self, now: float) -> None:
        """Note that all links there were are given up for one that is to be attached."""
        if self.detached_at is None:
            self.detached_at = now

    def note_detached(self, now: float, *, was_of_use: bool) -> None:
        """Note that the last link was lost. Where it was of no use, the time without one goes on."""
        if was_of_use or self._stuck_since is None:
            self._stuck_since = now
        self.detached_at = self._stuck_since


def attach_proof(secret: bytes, link_hash: bytes, *, client: bool) -> bytes:
    """Return what ATTACH carries: only who holds the connection's secret can say it, and only for this handshake."""
    return hmac.digest(secret, b"dtp.attach.v1" + _ROLE[client] + link_hash, "sha256")


def build_attach(connection: bytes, secret: bytes, link: Link, *, client: bool) -> Outgoing:
    """Return an ATTACH frame for `link`."""
    proof = attach_proof(secret, link.hash, client=client)
    return control(FrameType.ATTACH, ATTACH.pack(connection, link.number, proof), ADD if link.adding else 0)


@dataclass(frozen=True, slots=True)
class SessionFacts:
    """What the first handshake of a session has settled, for as long as the session lasts.

    `protocol` is the Noise protocol in full. `connection_id` (16 bytes, public) names the connection when it is
    resumed; `secret` proves that. The peer takes datagrams of at most `largest_datagram` bytes.
    """

    client: bool
    peer: PeerId
    service: str
    protocol: str
    connection_id: bytes
    secret: bytes
    largest_datagram: int


class LinkTable:
    """The links that carry a session, by their numbers, and what each side knows of those that were lost.

    `exchanges` makes fresh keys for them; None where none are made.
    """

    __slots__ = ("_events", "_facts", "_limits", "by_number", "exchanges", "history", "times")

    def __init__(
        self,
        facts: SessionFacts,
        limits: Limits,
        events: list[ev.Event],
        now: float,
        exchanges: Exchanges | None,
    ) -> None:
        self._facts, self._limits, self._events = facts, limits, events
        self.exchanges = exchanges
        self.by_number: dict[int, Link] = {}
        self.history = LinkHistory()
        self.times = LinkTimes(now)

    def new_link(self, established: Established, now: float, *, add: bool) -> Link:
        """Return a link for a further handshake: see `Session.new_link`."""
        facts, history = self._facts, self.history
        if established.peer != facts.peer:
            raise ProtocolError("another identity tries to take over a connection", CloseCode.RESUME_PROOF)
        # The client numbers the links; a server's link has no number until ATTACH tells it.
        number = history.next if facts.client or not history.next else -1
        link = Link(number, established, self._limits, now)
        if number > 0:
            history.used.add(number)
            link.adding = add
            self._queue_attach(link)
            if not add:
                self._replace_all(link)
                self.times.note_replaced(now)
        history.next += 1
        return link

    def is_proven(self, link: Link, connection: object, proof: bytes) -> bool:
        """True if the fields of an ATTACH prove that `link` belongs to this session."""
        expected = attach_proof(self._facts.secret, link.hash, client=not self._facts.client)
        return connection == self._facts.connection_id and hmac.compare_digest(expected, proof)

    def accept_link(self, link: Link, number: int, *, add: bool) -> None:
        """Answer a client's ATTACH, which is proven, with our own."""
        if number in self.history.used:
            raise ProtocolError(f"link number {number} was used before")
        if add and len(self.by_number) >= self._limits.links:
            raise ProtocolError(f"there are {len(self.by_number)} links already", CloseCode.LIMIT)
        self.history.used.add(number)
        link.number, link.adding = number, add
        self._queue_attach(link)
        if not add:
            self._replace_all(link)

    def attach_link(self, link: Link, now: float) -> None:
        """Have a link carry the session from now on."""
        link.attached = True
        self.by_number[link.number] = link
        self.times.note_attached(now)

    def remove_link(self, link: Link) -> bool:
        """Forget a link that was lost, and what waits on it; True if it carried the session."""
        link.close()
        return self.by_number.pop(link.number, None) is not None

    def send_lists(self, link: Link) -> None:
        """Send a list for each lost link that the peer has not answered for, unless one is on its way."""
        for lost in sorted(self.history.unanswered):
            self.send_list(link, lost)

    def send_list(self, link: Link, lost: int) -> None:
        """Send over `link` the list for a lost one, unless one is on its way."""
        history = self.history
        if history.told.get(lost) not in self.by_number:
            history.told[lost] = link.number
            link.control.append((LIST_PLACE, 0, lost, 0, b""))

    def _queue_attach(self, link: Link) -> None:
        facts = self._facts
        link.control.append(build_attach(facts.connection_id, facts.secret, link, client=facts.client))

    def _replace_all(self, link: Link) -> None:
        """Let `link` take the place of all others: both sides begin it with their lists."""
        for old in list(self.by_number.values()):
            old.close()
            self._events.append(ev.LinkLost(old, "replaced by a newer carrier"))
        self.by_number.clear()
        history = self.history
        history.awaiting_state = True
        history.unanswered = {link.number}
        history.told.clear()
        self.send_lists(link)
