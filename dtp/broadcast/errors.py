"""Errors of broadcasts, by whose fault they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from dtp.errors import CarrierError, LocalError, PeerError

if TYPE_CHECKING:
    from dtp.broadcast.format.equivocation import Equivocation
    from dtp.broadcast.sealed.admission import Refusal


class BroadcastError(LocalError):
    """A broadcast was used in a wrong way: a segment is too large, or the broadcast has ended."""

    code: ClassVar[str] = "broadcast"


class OffAir(BroadcastError):
    """The show isn't on air: nobody would pay for the segment."""

    code: ClassVar[str] = "off-air"


class ShowBusy(BroadcastError):
    """Another process broadcasts this show from the same store: two would sign two chains, and others could prove
    it."""

    code: ClassVar[str] = "show-busy"


class ShowMessageError(PeerError):
    """A neighbour of a show sent bytes that are not a message of this protocol."""

    code: ClassVar[str] = "show-message"


class SegmentError(PeerError):
    """A segment can't be used: it is malformed, or one of the errors below applies."""

    code: ClassVar[str] = "segment"


class SegmentForged(SegmentError):
    """A segment or an announcement wasn't signed by the producer, or a piece doesn't match the signed hash."""

    code: ClassVar[str] = "segment-forged"


class SegmentForeign(SegmentError):
    """A segment belongs to another stream than the one that is heard."""

    code: ClassVar[str] = "segment-foreign"


class ProducerEquivocated(SegmentError):
    """The producer signed two chains. `proof` proves it to anybody; nothing more of the stream is accepted."""

    code: ClassVar[str] = "producer-equivocated"

    def __init__(self, message: str, proof: Equivocation) -> None:
        super().__init__(message)
        self.proof = proof


class ShowSealed(BroadcastError):
    """The show is sealed, and there is no key for this identity; `refusal` is its producer's reason, if told."""

    code: ClassVar[str] = "show-sealed"

    def __init__(self, message: str, refusal: Refusal | None = None) -> None:
        super().__init__(message)
        self.refusal = refusal


class KeysTooFast(PeerError):
    """The producer changes the keys that it sells faster than the listener agreed to pay for them."""

    code: ClassVar[str] = "keys-too-fast"


class ShowUnreachable(CarrierError):
    """Nobody who has the show can be reached, or nobody has a free place. Trying again later may help."""

    code: ClassVar[str] = "show-unreachable"


class ShowLost(CarrierError):
    """The producer is gone or cut off, though the show hasn't ended. Listening again later may help."""

    code: ClassVar[str] = "show-lost"


class ShowReplaced(ShowLost):
    """The producer has restarted the show as another stream, or somebody replays an older stream. Listening again
    brings the newer one."""

    code: ClassVar[str] = "show-replaced"
