"""What a mailbox keeps, for whom and for how long; and how often one source may ask, as a value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from dtp.messaging.mailbox.protocol import MAX_PUSHED

MIB: Final = 1024 * 1024
DAY: Final = 86_400
#: A month, as room is paid for.
MONTH: Final = 30 * DAY


@dataclass(frozen=True, slots=True)
class MailboxLimits:
    """What a mailbox gives; each has its reason."""

    #: Devices that have published keys here; those whose keys have ended, and for whom nothing waits, make room. Each
    #: has 32 KiB of keys and card at most: 3 GiB for all of them.
    recipients: int = 100_000
    #: Envelopes and bytes that wait for one device: weeks of a busy person, and pictures.
    envelopes: int = 20_000
    recipient_bytes: int = 256 * MIB
    #: ... of strangers among them: a flood of those reaches nothing else.
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
    #: Seconds after what was paid for in which all is as before: somebody who is away for a week loses no message.
    grace: int = 7 * DAY
    #: Months that can be paid at once: a mailbox that ends takes no more of its recipients' money with it.
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
    #: New devices of one network, or it would soon have all places: those that have left make room only after 60
    #: days.
    new_devices: int = 1000
    new_device_pause: float = 60.0
    #: Keys, settings and cards of all devices of one source: each waits for the disk, and a device has some in five
    #: minutes.
    changes: int = 4000
    change_pause: float = 0.1
    #: ... and questions for keys: each takes a one-time key away.
    key_questions: int = 100
    key_pause: float = 6.0
    #: Envelopes that stamps of usual work have let in, which aren't kept a second time: to have one of them forgotten
    #: somebody has to do the work of as many.
    spent_stamps: int = 65_536
    #: Sources that are remembered.
    sources: int = 4096
    #: Requests of one source that are with the store at once, which does one after the other: others wait behind at
    #: most so many, whatever each of them costs.
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
