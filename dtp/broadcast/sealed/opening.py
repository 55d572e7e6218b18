"""A listener's side of a sealed show: it finds its keys in the stream, asks the producer for the first one, and opens
what they seal."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from dtp.broadcast import frames
from dtp.broadcast import messages as m
from dtp.broadcast.errors import ShowMessageError, ShowSealed
from dtp.broadcast.format import Announcement, Flag, Segment
from dtp.broadcast.receiving import Dial
from dtp.broadcast.sealed.admission import Refusal, SeatClaim
from dtp.broadcast.sealed.keys import open_key, open_segment
from dtp.errors import DtpError
from dtp.identity import Identity, PeerId

#: Keys that are kept: of an hour, by default.
_KEPT: Final = 64
#: Seconds for one question, and between two of them.
_ANSWER: Final = 5.0
_PAUSE: Final = 1.0
#: Seconds after which a producer that can't be asked is given up.
_GIVE_UP: Final = 30.0
#: What helps, by why there is no key.
_ADVICE: Final = {
    Refusal.NOT_INVITED: "its producer has to invite your identity",
    Refusal.NO_TICKET: "buy one with 'dtp show buy' or 'dtp show fund', and listen with the wallet that holds it",
    Refusal.TICKET_IN_USE: "another identity listens with your ticket since; buy one more, or begin here again",
    Refusal.CLOCK: "the clock of this machine is wrong: set it",
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
        self._keys: OrderedDict[int, bytes] = OrderedDict()

    def take_keys(self, segment: Segment, data: bytes) -> None:
        """Take the key out of a segment of keys, if it is for this identity. Raise `SegmentError`."""
        if segment.epoch not in self._keys:
            key = open_key(data, segment.stream, segment.epoch, self._identity)
            if key is not None:
                self.learn({segment.epoch: key})

    def learn(self, keys: dict[int, bytes]) -> None:
        """These are the keys of some epochs."""
        self._keys |= keys
        while len(self._keys) > _KEPT:
            self._keys.popitem(last=False)

    def has_key(self, segment: Segment) -> bool:
        """True when `open` has what it needs."""
        return not segment.epoch or Flag.KEYS in segment.flags or segment.epoch in self._keys

    def open(self, segment: Segment, data: bytes) -> bytes:
        """Return what a segment has for a listener: nothing for keys. Raise `SegmentError`, and `ShowSealed` where
        there is no key."""
        if Flag.KEYS in segment.flags:
            self.take_keys(segment, data)
            return b""
        if not segment.epoch:
            return data
        if segment.epoch not in self._keys:
            raise ShowSealed(
                f"the show is sealed, and there is no key of epoch {segment.epoch} for this identity"
            )
        return open_segment(self._keys[segment.epoch], segment, data)


class KeyAsker:
    """Asks the producer for keys."""

    def __init__(
        self, dial: Dial, places: Callable[[PeerId], Iterable[str]], claims: Claims = no_claims
    ) -> None:
        """`places` gives where a producer's keys are asked for."""
        self._dial, self._places, self._claims = dial, places, claims

    async def ask(self, announcement: Announcement) -> dict[int, bytes]:
        """Return the keys of the newest epochs of a show. Raise `ShowSealed` where this identity gets none."""
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
                if isinstance(answer, dict):
                    return answer
                if answer != Refusal.NOT_NOW:
                    raise ShowSealed(_words(answer), answer)
                why = _ADVICE[answer]
            await asyncio.sleep(_PAUSE)
        raise ShowSealed(f"the show is sealed, and there is no key: {why}", Refusal.NOT_NOW)

    async def _ask_at(self, place: str, show: bytes) -> dict[int, bytes] | Refusal:
        async with self._dial(place) as connection:
            stream = await connection.open_stream()
            frames.write(stream, m.KeyWanted(tuple(self._claims(show))))
            match await frames.read(stream):
                case m.KeysGiven(keys):
                    return keys
                case m.KeyRefused(why):
                    return why
        raise ShowMessageError("who is asked for keys answers with something else")


def _words(refusal: Refusal) -> str:
    return f"the show is sealed, and there is no key for this identity ({refusal}): {_ADVICE[refusal]}"
