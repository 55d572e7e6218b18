"""The errors of the DHT, by whose fault they are."""

from __future__ import annotations

from typing import ClassVar

from dtp.errors import CarrierError, LocalError, PeerError


class DhtError(LocalError):
    """The DHT was asked for something impossible; the message says what to do."""

    code: ClassVar[str] = "dht"


class DhtSuperseded(DhtError):
    """A newer record of ours is there already. The given one is neither published nor kept."""

    code: ClassVar[str] = "dht-superseded"


class DhtAlone(CarrierError):
    """No other node of the DHT has answered: nothing can be stored or found there now."""

    code: ClassVar[str] = "dht-alone"


class MessageError(PeerError):
    """A datagram is not a message of the DHT (docs/dht.md, "Datagrams")."""

    code: ClassVar[str] = "dht-message"


class DhtRecordError(PeerError):
    """A record of the DHT can't be used: it is malformed, or one of the errors below."""

    code: ClassVar[str] = "dht-record"


class DhtRecordForged(DhtRecordError):
    """A record was not signed by the peer that it names."""

    code: ClassVar[str] = "dht-record-forged"


class DhtRecordExpired(DhtRecordError):
    """A record has expired."""

    code: ClassVar[str] = "dht-record-expired"


class DhtRecordFromFuture(DhtRecordError):
    """A record was signed in the future, by more than clocks may differ."""

    code: ClassVar[str] = "dht-record-future"
