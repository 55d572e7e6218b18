"""What nobody has read yet of a connection that has ended: it takes room as before, and is counted as before."""

from __future__ import annotations

import weakref
from collections.abc import Collection
from typing import TYPE_CHECKING

from dtp.net.held import STEP, BudgetHolder, HeldBudget
from dtp.net.stream import Stream
from dtp.session.codes import ConnectionClosed
from dtp.session.credit import ReceiveCredit
from dtp.session.datagrams import DatagramQueue

if TYPE_CHECKING:
    from dtp.net.connection import Connection


class Leftover:
    """What may still be read of a connection that has ended, as a listener's budget counts it: until nobody refers to
    the connection any more, or others need the room. Then it is dropped."""

    def __init__(
        self,
        source: str,
        streams: Collection[Stream],
        credit: ReceiveCredit,
        datagrams: DatagramQueue,
        budget: HeldBudget[BudgetHolder],
    ) -> None:
        #: Who was at the other end.
        self.source = source
        self._streams = weakref.WeakSet(streams)
        self._credit, self._datagrams = credit, datagrams
        self._budget = budget
        self._counted = 0

    def __repr__(self) -> str:
        return "<what nobody has read of a connection that has ended>"

    def replace_key(self, connection: Connection) -> None:
        """Have the budget count this in place of its connection, for as long as anybody refers to that."""
        weakref.finalize(connection, self._budget.forget_key, self).atexit = False
        self._counted = self._measure()
        self._budget.pass_on(connection, self, self._counted)

    def abort(self, code: int, reason: str) -> None:
        """Drop it: whoever reads on gets an error with this code and reason. Where much was read since it was
        counted, count it anew instead."""
        if self._measure() <= self._counted - STEP:
            self._counted = self._measure()
            self._budget.note_kept(self, self.source, self._counted)
            return
        error = ConnectionClosed(code, reason, by_peer=False)
        for stream in list(self._streams):
            stream.drop_unread(error)
        self._datagrams.clear()

    def _measure(self) -> int:
        return self._credit.unread + self._datagrams.size


class UnreadBytes:
    """What has come of a connection and nobody has read, for the day when it ends."""

    __slots__ = ("_credit", "_datagrams", "_done")

    def __init__(self, credit: ReceiveCredit, datagrams: DatagramQueue) -> None:
        self._credit, self._datagrams = credit, datagrams
        #: Streams that are over both ways, since when something of some was not read; made when there is one.
        self._done: weakref.WeakSet[Stream] | None = None

    def note_done(self, stream: Stream) -> None:
        """Note that a stream is over both ways: perhaps not all of it was read."""
        if self._credit.unread:
            if self._done is None:
                self._done = weakref.WeakSet()
            self._done.add(stream)

    def end(
        self, connection: Connection, budget: HeldBudget[BudgetHolder] | None, streams: Collection[Stream]
    ) -> None:
        """Have a budget count it in place of its connection, which has just ended with these `streams`."""
        if budget is None:
            return
        if self._credit.unread or self._datagrams:
            known = (*streams, *(self._done or ()))
            Leftover(connection.source, known, self._credit, self._datagrams, budget).replace_key(connection)
        else:
            budget.forget_key(connection)
