"""The producer's end of the chain: signs each segment once, after its position in the chain was stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import msgpack

from dtp.broadcast.errors import BroadcastError
from dtp.broadcast.format.announcement import Announcement
from dtp.broadcast.format.merkle import HASH_SIZE, leaf_hash, root_of
from dtp.broadcast.format.segment import (
    FIRST_LINK,
    MAX_DURATION_MS,
    MAX_SIZE,
    NO_INIT,
    Flag,
    Segment,
    pack_head,
    pieces_of,
    signed_message,
)
from dtp.errors import ConfigError
from dtp.identity import Identity
from dtp.packing import pack

_FIELDS: Final = ("number", "link", "init", "slot", "time_ms", "ended", "epoch")


@dataclass(frozen=True, slots=True)
class Position:
    """A position in a chain, from which the next segment goes on. It has to be stored to go on after a restart."""

    #: The number of the next segment.
    number: int = 0
    #: The link of the last one.
    link: bytes = FIRST_LINK
    #: The number of the last segment with init data.
    init: int = NO_INIT
    slot: int = 0
    time_ms: int = 0
    ended: bool = False
    #: The number of the last key.
    epoch: int = 0

    def encode(self) -> bytes:
        """Return it as bytes."""
        return pack({name: getattr(self, name) for name in _FIELDS})

    @classmethod
    def decode(cls, data: bytes) -> Position:
        """Return the position that was encoded. Raise `ConfigError` for anything else, since the chain must not
        begin again."""
        try:
            told: Any = msgpack.unpackb(data)
            made = cls(**told)
        except (ValueError, TypeError, msgpack.UnpackException) as fault:
            raise ConfigError(f"a show's position can't be read: {fault}; begin a new show") from None
        numbers = (made.number, made.init, made.slot, made.time_ms, made.epoch)
        if any(type(each) is not int or each < 0 for each in numbers) or type(made.ended) is not bool:
            raise ConfigError("the numbers in a show's saved position are damaged; begin a new show")
        if type(made.link) is not bytes or len(made.link) != HASH_SIZE:
            raise ConfigError("a show's position has no link; begin a new show")
        return made


class SegmentSigner:
    """Signs the segments of one stream, one after another.

    Two signers of one stream would make two chains, which is what `Equivocation` proves. After a restart, pass the
    `position` that was stored before the last segment was sent.
    """

    def __init__(
        self, identity: Identity, announcement: Announcement, position: Position | None = None
    ) -> None:
        """Raise `BroadcastError` if the announcement is by another identity."""
        if announcement.producer != identity.id:
            raise BroadcastError(
                f"the show was announced by {announcement.producer}, and {identity.id} is to sign it"
            )
        self.announcement = announcement
        self.position = position or Position()
        self._identity = identity

    def sign(
        self,
        data: bytes,
        *,
        time_ms: int,
        duration_ms: int = 0,
        slot: int = 0,
        epoch: int = 0,
        flags: Flag = Flag.START,
    ) -> Segment:
        """Return the next segment, with `data` as its bytes. `position` is after it then.

        A time or slot lower than the last one is replaced by that. Raise `BroadcastError` for a segment that is too
        large, or after the last one.
        """
        before = self.position
        if before.ended:
            raise BroadcastError("the show has ended: nothing can be sent behind its last segment")
        if len(data) > MAX_SIZE or not 0 <= duration_ms <= MAX_DURATION_MS:
            raise BroadcastError(
                f"a segment has at most {MAX_SIZE:,} bytes and lasts a day at most; cut it smaller"
            )
        hashes = tuple(leaf_hash(each) for each in pieces_of(data))
        init = before.number if Flag.INIT in flags else before.init
        slot, time_ms = max(slot, before.slot), max(time_ms, before.time_ms)
        head = pack_head(
            self.announcement.stream,
            before.number,
            init=init,
            slot=slot,
            time_ms=time_ms,
            duration_ms=duration_ms,
            size=len(data),
            epoch=epoch,
            flags=flags,
            root=root_of(hashes),
            previous=before.link,
        )
        made = Segment.decode_signed(head + self._identity.sign(signed_message(head))).with_hashes(hashes)
        ended, epoch = Flag.LAST in flags, max(epoch, before.epoch)
        self.position = Position(before.number + 1, made.link, init, slot, time_ms, ended, epoch)
        return made
