"""What a mailbox keeps, for whom and for how long; and how often one source may ask, as a value."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from dtp.carriers.nearness import OF_NETWORK, network_of_source
from dtp.messaging.mailbox.protocol import MAX_PUSHED

MIB: Final = 1024 * 1024
DAY: Final = 86_400
#: A month, as room is paid for.
MONTH: Final = 30 * DAY
#: The part of a pause that sums of times may be off by: without it one in some is refused that is allowed.
_ROUNDING: Final = 1e-6


@dataclass(frozen=True, slots=True)
class MailboxLimits:
    """What a mailbox gives; each has its reason."""

    #: Devices that have published keys here; those whose keys have ended, and for whom nothing waits, make room. Each
    #: has 32 KiB of keys and card at most: 3 GiB for all of them.
    recipients: int = 100_000
    #: Envelopes and bytes that wait for one device: weeks of a busy person, and pictures.
    envelopes: int = 20_000
    recipient_bytes: int = 256 * MIB
    #: ... of strangers among them: who floods them reaches nothing else.
    strangers: int = 200
    strangers_bytes: int = 2 * MIB
    #: What is left free on the disk that the file is on: strangers come with devices and attachments of their own.
    disk_free: int = 256 * MIB
    #: Bits of work that a stranger's message takes, whatever less its recipient asks for.
    stamp_bits: int = 0
    #: Envelopes that a paid stamp is good for, until `lifetime` is over: a card, what was written first, and both
    #: again until their sender is known.
    stamp_uses: int = 32
    #: Paid stamps of one recipient that are good at once: so many people's first messages in a month.
    stamps: int = 2000
    #: What a MiB costs its recipient for a month, in the coin's smallest unit; 0: nothing, and `free_bytes` is not
    #: looked at. A price has a client open a channel, so a small one is best paid for many MiB, or many months.
    price_mib_month: int = 0
    #: What waits for a device that hasn't paid: weeks of texts.
    free_bytes: int = MIB
    #: Seconds behind what was paid for in which it is as before: who is away for a week loses no message.
    grace: int = 7 * DAY
    #: Months that are paid at once, at most: a mailbox that ends takes no more of its recipients' money with it.
    months: int = 12
    #: Seconds that something is kept, at most.
    lifetime: int = 30 * DAY
    #: One-time keys that wait, for each device: for so many first messages while it is away.
    one_time_keys: int = 100
    #: Pieces of attachments, and of one at most: it is sealed in pieces of 256 KiB.
    piece: int = 256 * 1024 + 64
    #: Deposits of one source at once, and one more for each pause, seconds: several people write from one office.
    deposits: int = 1000
    deposit_pause: float = 0.02
    #: Bytes that one source leaves at once, and as many more in a day, where room costs nothing. Devices cost
    #: nothing, either: with 1,000 of its own one source filled the disk in a night.
    source_bytes: int = 4096 * MIB
    #: New devices of one network: in the 60 days until those make room that have left, it doesn't get all places.
    new_devices: int = 1000
    new_device_pause: float = 60.0
    #: Keys, settings and cards of all devices of one source: each waits for the disk, and a device has some in five
    #: minutes.
    changes: int = 4000
    change_pause: float = 0.1
    #: ... and questions for keys: each takes a one-time key away.
    key_questions: int = 100
    key_pause: float = 6.0
    #: Envelopes that stamps of usual work have let in, which aren't kept a second time: who has one of them forgotten
    #: works for all of these.
    spent_stamps: int = 65_536
    #: Sources that are remembered.
    sources: int = 4096
    #: Requests of one source that are with the store at once, which does one after the other: those of others come
    #: behind so many, whatever each of them costs.
    store_requests: int = 8
    #: Requests of one connection that are answered at once, and envelopes pushed that aren't acknowledged,
    #: of which clients take `MAX_PUSHED`.
    requests: int = 64
    pushed: int = MAX_PUSHED

    def device_room(self, reserved: int, paid_until: int, now: int) -> int:
        """Return what may wait for a device at `now`, Unix time in seconds: of one that has paid for `reserved` bytes
        until then."""
        if not self.price_mib_month:
            return self.recipient_bytes
        paid = reserved if now < paid_until + self.grace else 0
        return min(max(paid, self.free_bytes), self.recipient_bytes)


class Limiter:
    """So many at once for each source, and one more for each pause: GCRA (ITU-T I.371, annex A). Bounded."""

    def __init__(self, burst: int, pause: float, remembered: int) -> None:
        self._tolerance, self._pause, self._most = burst * pause, pause, remembered
        self._due: OrderedDict[str, float] = OrderedDict()

    def try_take(self, source: str, now: float, count: int = 1) -> bool:
        """Return True, and count it `count` times, if `source` may at time `now`, in seconds."""
        due = max(self._due.pop(source, now), now) + count * self._pause
        allowed = due - now <= self._tolerance + _ROUNDING * self._pause
        self._due[source] = due if allowed else due - count * self._pause
        while len(self._due) > self._most:
            self._due.popitem(last=False)
        return allowed

    def seconds_until_allowed(self, source: str, now: float) -> float:
        """Return the seconds until `source` may ask again."""
        return max(self._due.get(source, now) + self._pause - self._tolerance - now, 0.0)

    def full_again_at(self, source: str) -> float | None:
        """Return when `source` has its whole burst again; None if nothing is remembered of it."""
        return self._due.get(source)

    def restore_source(self, source: str, due: float, now: float) -> None:
        """Remember what `due` said before a restart, at time `now`; no more than what all at once counts for."""
        self._due[source] = min(due, now + self._tolerance)

    def reset_source(self, source: str) -> None:
        """Forget what `source` has used."""
        self._due.pop(source, None)


class SourceLimiter:
    """A `Limiter` of sources, and of the networks that they are in, which have `OF_NETWORK` times as much."""

    def __init__(self, burst: int, pause: float, remembered: int) -> None:
        self._sources = Limiter(burst, pause, remembered)
        self._networks = Limiter(burst * OF_NETWORK, pause / OF_NETWORK, remembered)

    def try_take(self, source: str, now: float, count: int = 1) -> bool:
        """Return True, and count it `count` times, if `source` may at time `now`, in seconds."""
        # The network counts what the source may alone, or one source would use up what its neighbours have.
        return self._sources.try_take(source, now, count) and self._networks.try_take(
            network_of_source(source), now, count
        )

    def seconds_until_allowed(self, source: str, now: float) -> float:
        """Return the seconds until `source` may ask again."""
        return max(
            self._sources.seconds_until_allowed(source, now),
            self._networks.seconds_until_allowed(network_of_source(source), now),
        )
