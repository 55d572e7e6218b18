"""The producer's side of a sealed show: a new key for each epoch, sealed to those who may listen then."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from dtp.bounded import BoundedDict
from dtp.broadcast.errors import ShowSealed
from dtp.broadcast.format import Flag, Segment
from dtp.broadcast.sealed.admission import KeyAdmission, Refusal, SeatClaim
from dtp.broadcast.sealed.keys import KEY_SIZE, open_segment, seal_key
from dtp.errors import DtpError
from dtp.identity import PeerId

log = logging.getLogger("dtp.broadcast")

#: Seconds that a key is used, by default: one that loses its admission hears no more than that.
ROTATE: Final = 60.0
#: Epochs whose keys are given to a listener that asks: it may be behind what is live.
GIVEN: Final = 8


@dataclass(frozen=True, slots=True)
class Rotation:
    """The next epoch: what the segment of keys has, to be sent before all that is sealed with its key."""

    epoch: int
    key: bytes
    body: bytes


class KeyIssuer:
    """Makes keys, and says who gets them.

    Who has asked once, and was admitted, finds each further key in the stream, for as long as the admission holds.
    """

    def __init__(self, stream: bytes, admission: KeyAdmission, *, epoch: int = 0) -> None:
        """`epoch` is the last one that was used before."""
        self._stream, self._admission, self._epoch = stream, admission, epoch
        self._asked: dict[PeerId, Sequence[SeatClaim]] = {}
        self._keys: BoundedDict[int, bytes] = BoundedDict(GIVEN)
        self._next: Rotation | None = None

    @property
    def listeners(self) -> int:
        """How many the next key is for."""
        return len(self._admission.invited | self._asked.keys())

    async def rotate_key(self) -> None:
        """Make the key of the next epoch, for those who may listen now.

        When that can't be told, nobody who had the last one loses the next.
        """
        try:
            refused = await self._admission.refused(dict(self._asked))  # others are let in meanwhile
        except DtpError as fault:
            log.warning("who may listen can't be told now, so all keep their keys: %s", fault)
            refused = {}
        for each, why in refused.items():
            log.info("%s gets no key any more: %s", each.short, why)
            self._asked.pop(each, None)
        # Sorted, so that the order says nothing of who came when.
        listeners = sorted({*self._admission.invited, *self._asked}, key=lambda each: each.key)
        key, epoch = os.urandom(KEY_SIZE), self._epoch + 1
        body = await asyncio.to_thread(seal_key, key, self._stream, epoch, listeners)
        self._next = Rotation(epoch, key, body)

    def begin_epoch(self) -> Rotation | None:
        """Return what `rotate_key` has made, once: it is sent now, and its key is asked for from now on."""
        made, self._next = self._next, None
        if made is not None:
            self._epoch = made.epoch
            self._keys[made.epoch] = made.key
        return made

    @property
    def current(self) -> tuple[int, bytes]:
        """The number of this epoch, and its key. Only behind the first `begin_epoch`."""
        return self._epoch, self._keys[self._epoch]

    def open_segment(self, segment: Segment, data: bytes) -> bytes:
        """Return what a segment that was sent has: nothing for keys. Raise `ShowSealed` where its key is gone."""
        if Flag.KEYS in segment.flags:
            return b""
        key = self._keys.get(segment.epoch)
        if key is None:
            raise ShowSealed(f"the key of epoch {segment.epoch} is kept no more")
        return open_segment(key, segment, data)

    def key_of(self, epoch: int) -> bytes | None:
        """Return the key of an epoch, None for one that is kept no more or hasn't begun."""
        return self._keys.get(epoch)

    async def issue_keys(self, peer: PeerId, claims: Sequence[SeatClaim]) -> dict[int, bytes] | Refusal:
        """Return the keys of the newest epochs, or why `peer` gets none.

        Only those who speak for one of its accounts are looked at anew: else anybody who asks would have the chain
        asked about all.
        """
        mine = _accounts_of(peer, claims)
        rivals = {each: its for each, its in self._asked.items() if mine & _accounts_of(each, its)}
        try:
            refused = await self._admission.refused({**rivals, peer: claims})
        except DtpError as fault:
            log.warning("who may listen can't be told now: %s", fault)
            return Refusal.NOT_NOW
        # a ticket is one listener's: of an account that has named many the newest is remembered
        for each in refused:
            self._asked.pop(each, None)
        if peer in refused:
            return refused[peer]
        if peer not in self._admission.invited:
            self._asked[peer] = claims
        return dict(self._keys)


def _accounts_of(peer: PeerId, claims: Sequence[SeatClaim]) -> set[bytes]:
    """Return the keys of the accounts that somebody speaks for, as it says."""
    return {peer.key, *(each.account for each in claims)}
