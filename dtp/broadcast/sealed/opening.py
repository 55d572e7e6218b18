"""A listener's side of a sealed show: it finds its keys in the stream, asks the producer for the first one, and opens
what they seal."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from typing import Final

from dtp.bounded import BoundedDict
from dtp.broadcast import frames
from dtp.broadcast import messages as m
from dtp.broadcast.errors import KeysTooFast, ShowMessageError, ShowSealed
from dtp.broadcast.fetching import Dial
from dtp.broadcast.format import Announcement, Flag, Segment
from dtp.broadcast.sealed.admission import Refusal, SeatClaim
from dtp.broadcast.sealed.issuing import GIVEN, ROTATE
from dtp.broadcast.sealed.keys import OVERHEAD, open_key, open_segment
from dtp.carriers.nearness import Nearness, dialled_as_told
from dtp.errors import CarrierError, DtpError
from dtp.identity import Identity, PeerId
from dtp.net.address import is_dialled_as_told
from dtp.net.connection import Connection
from dtp.pay.errors import ChargeDeclined
from dtp.session.codes import ConnectionClosed, StreamReset

#: Keys that are kept: of an hour, by default.
_KEPT: Final = 64
#: Seconds for one question, and between two of them.
_ANSWER: Final = 5.0
_PAUSE: Final = 1.0
#: Seconds after which a producer that can't be asked is given up.
_GIVE_UP: Final = 30.0
#: Seconds for a purchase: a channel may have to be opened on the chain first.
_PURCHASE: Final = 60.0
#: What helps, by the reason for which there is no key.
_ADVICE: Final = {
    Refusal.NOT_INVITED: "its producer has to invite your identity",
    Refusal.NO_TICKET: "buy one with 'dtp show buy' or 'dtp show fund', and listen with the wallet that holds it; "
    "where that holds thousands, name it with --ticket",
    Refusal.NO_PASS: "buy a pass of the plan that its producer names with 'dtp pass buy', and listen with the wallet "
    "that holds it",
    Refusal.TICKET_IN_USE: "another identity listens with your ticket; buy one more, or begin here again: later, if "
    "it went from one to another often. If you did begin here last, the clock of this machine is behind: set it",
    Refusal.CLOCK: "the clock of this machine is wrong: set it",
    Refusal.FOR_SALE: "keys are sold: listen with a budget",
    Refusal.NOT_NOW: "its producer can't ask the chain now; try again later",
}

#: Signs a listener's claims to its seats at a show (its id), anew for each question.
Claims = Callable[[bytes], Sequence[SeatClaim]]


def no_claims(show: bytes) -> Sequence[SeatClaim]:
    """Return nothing: the identity speaks for its own account alone."""
    return ()


class Opener:
    """Holds the keys of one listener, and opens segments with them."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._keys: BoundedDict[int, bytes] = BoundedDict(_KEPT)

    def take_keys(self, segment: Segment, data: bytes) -> None:
        """Take the key out of a segment of keys, if it is for this identity. Raise `SegmentError`."""
        if segment.epoch not in self._keys:
            key = open_key(data, segment.stream, segment.epoch, self._identity)
            if key is not None:
                self.add_keys({segment.epoch: key})

    def add_keys(self, keys: dict[int, bytes]) -> None:
        """Add the keys of some epochs."""
        self._keys |= keys

    def has_key(self, segment: Segment) -> bool:
        """True if `open_segment` can open this segment: an empty one, such as the last, needs no key."""
        is_empty = segment.size == OVERHEAD
        return not segment.epoch or Flag.KEYS in segment.flags or is_empty or segment.epoch in self._keys

    def open_segment(self, segment: Segment, data: bytes) -> bytes:
        """Return what a segment has for a listener: nothing for keys. Raise `SegmentError`, and `ShowSealed` where
        there is no key."""
        if Flag.KEYS in segment.flags:
            self.take_keys(segment, data)
            return b""
        if not segment.epoch:
            return data
        if segment.epoch not in self._keys:
            if segment.size == OVERHEAD:
                return b""
            raise ShowSealed(
                f"the show is sealed, and there is no key of epoch {segment.epoch} for this identity"
            )
        return open_segment(self._keys[segment.epoch], segment, data)


class KeyPace:
    """How fast keys are bought: one for each `lasts` seconds, and as many at once as a producer keeps for who begins
    behind what is live. A value: else a producer could sell an hour's keys within a second."""

    def __init__(self, lasts: float) -> None:
        self.lasts = lasts
        self._paid_until = -math.inf

    def allow_purchase(self, now: float) -> bool:
        """True if one more may be bought; it counts as bought then. `now` is in seconds of one clock."""
        until = max(self._paid_until, now) + self.lasts
        if until > now + (GIVEN + 0.5) * self.lasts:  # a half, since sums of fractions aren't exact
            return False
        self._paid_until = until
        return True


class KeyAsker:
    """Asks the producer for keys, and buys them where it sells them."""

    def __init__(
        self,
        dial: Dial,
        places: Callable[[PeerId], Iterable[str]],
        claims: Claims = no_claims,
        buy: Dial | None = None,
        key_lasts: float = ROTATE,
        nearest: Nearness = Nearness.ANYWHERE,
    ) -> None:
        """`places` gives where a producer's keys are asked for; `buy` dials a paid service, and what is bought there
        has to last `key_lasts` seconds in the mean. A producer counts as at least as near as `nearest`."""
        self._dial, self._places, self._claims, self._nearest = dial, places, claims, nearest
        self._buyer = None if buy is None else KeyBuyer(buy, KeyPace(key_lasts))

    async def close(self) -> None:
        """Pay for what was bought, and buy no more. Idempotent."""
        if self._buyer is not None:
            await self._buyer.close()

    async def ask_keys(self, announcement: Announcement, epoch: int) -> dict[int, bytes]:
        """Return the keys of the newest epochs of a show, or one that was bought.

        Raise `ShowSealed` where this identity gets none of `epoch`, `KeysTooFast`, and what `buy` raises, such as
        `BudgetSpent`.
        """
        if self._buyer is not None and self._buyer.known:
            return await self._buyer.buy_key(epoch)
        loop = asyncio.get_running_loop()
        end, why = loop.time() + _GIVE_UP, "nobody knows where its producer is"
        while loop.time() < end:
            for place in self._places(announcement.producer):
                try:
                    async with asyncio.timeout(_ANSWER):
                        answer = await self._ask_at(place, announcement.show)
                except (DtpError, OSError, TimeoutError) as fault:
                    why = f"its producer can't be asked: {fault or 'no answer'}"
                    continue
                if isinstance(answer, m.KeysGiven):
                    return answer.keys
                if answer.why == Refusal.FOR_SALE and self._buyer is not None and self._buyer.known:
                    return await self._buyer.buy_key(epoch)
                if answer.why != Refusal.NOT_NOW:
                    raise ShowSealed(_words(answer.why), answer.why)
                why = _ADVICE[answer.why]
            await asyncio.sleep(_PAUSE)
        raise ShowSealed(f"the show is sealed, and there is no key: {why}", Refusal.NOT_NOW)

    async def _ask_at(self, place: str, show: bytes) -> m.KeysGiven | m.KeyRefused:
        async with self._dial(place) as connection:
            answer = await _ask(connection, m.KeyWanted(tuple(self._claims(show))))
            if isinstance(answer, m.KeyRefused) and self._buyer is not None:
                self._buyer.learn_place(answer.at, min(Nearness.of_source(connection.source), self._nearest))
            return answer


class KeyBuyer:
    """Buys keys, one for the price of a request, over a connection that stays open meanwhile."""

    def __init__(self, dial: Dial, pace: KeyPace) -> None:
        self._dial, self._pace, self._stack = dial, pace, AsyncExitStack()
        self._connection: Connection | None = None
        #: Where keys are sold; "" until the producer said so.
        self.known = ""
        self._teller = Nearness.ANYWHERE

    def learn_place(self, at: str, teller: Nearness) -> None:
        """Note where keys are sold, as a producer says that is so near; nowhere where that isn't dialled as told."""
        self.known, self._teller = (at if is_dialled_as_told(at, teller) else ""), teller

    async def buy_key(self, epoch: int) -> dict[int, bytes]:
        """Return the key of an epoch. Raise `ShowSealed` where it isn't to be had, `KeysTooFast` before it is paid
        where too many were bought of late, and what dialling raises.

        A connection that broke is made again, once: what it bought before is paid.
        """
        if not self._pace.allow_purchase(asyncio.get_running_loop().time()):
            raise KeysTooFast(
                f"the producer changes its keys faster than each {self._pace.lasts:g} s, so no more are bought: "
                "where that is worth its price, say how long one has to last (--key-lasts, key_lasts=)"
            )
        again = self._connection is not None
        while True:
            try:
                async with asyncio.timeout(_PURCHASE):
                    if self._connection is None or self._connection.closed:
                        await self.close()
                        with dialled_as_told(self._teller):
                            self._connection = await self._stack.enter_async_context(self._dial(self.known))
                    answer = await _ask(self._connection, m.KeyWanted((), epoch))
                break
            except (CarrierError, ConnectionClosed, StreamReset, ChargeDeclined, TimeoutError) as fault:
                if not again:
                    raise ShowSealed(
                        f"no key can be bought at {self.known}: {fault or 'no answer'}", Refusal.NOT_NOW
                    ) from fault
                again = False
        if isinstance(answer, m.KeyRefused) or epoch not in answer.keys:
            raise ShowSealed(f"the key of epoch {epoch} is sold no more: begin with what is live")
        return {epoch: answer.keys[epoch]}

    async def close(self) -> None:
        """Close the connection, and by it the channel. Idempotent."""
        self._connection = None
        await self._stack.aclose()


async def _ask(connection: Connection, wanted: m.KeyWanted) -> m.KeysGiven | m.KeyRefused:
    async with await connection.open_stream() as stream:
        frames.write(stream, wanted)
        stream.write_eof()
        answer = await frames.read(stream)
        if isinstance(answer, (m.KeysGiven, m.KeyRefused)):
            return answer
    raise ShowMessageError("who is asked for keys answers with something else")


def _words(refusal: Refusal) -> str:
    return f"the show is sealed, and there is no key for this identity ({refusal}): {_ADVICE[refusal]}"
