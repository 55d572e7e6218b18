"""The limits of a mailbox, as a value: what it keeps, for whom and for how long, and how often one source may ask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from dtp.messaging.mailbox.protocol import MAX_PUSHED

MIB: Final = 1024 * 1024
DAY: Final = 86_400
#: Seconds of a month for which room is paid.
MONTH: Final = 30 * DAY


@dataclass(frozen=True, slots=True)
class MailboxLimits:
    """The limits of a mailbox, each with its reason."""

    #: Devices that have published keys here. Those whose keys have expired, and for whom nothing waits, make room
    #: for others. Each has at most 32 KiB of keys and card: 3 GiB for all.
    recipients: int = 100_000
    #: Envelopes and bytes that wait for one device: enough for weeks of a busy person, with pictures.
    envelopes: int = 20_000
    recipient_bytes: int = 256 * MIB
    #: ... of these from strangers: a flood of them doesn't affect anything else.
    strangers: int = 200
    strangers_bytes: int = 2 * MIB
    #: Bytes that are left free on the disk of the mailbox's file, since strangers can bring their own devices and
    #: attachments.
    disk_free: int = 256 * MIB
    #: Bits of work that a stranger's message needs, even if its recipient asks for fewer.
    stamp_bits: int = 0
    #: Envelopes that a paid stamp lets in, within `lifetime`: a card, the first message, and both again until the
    #: sender is known.
    stamp_uses: int = 32
    #: Valid paid stamps of one recipient at a time: first messages of as many people in a month.
    stamps: int = 2000
    #: The price of one MiB for a month, in the coin's smallest unit. If it is 0, room is free, and `free_bytes`
    #: doesn't matter. Clients open a channel to pay, so a small price is best paid for many MiB or many months at
    #: once.
    price_mib_month: int = 0
    #: Bytes that may wait for a device that hasn't paid: weeks of texts.
    free_bytes: int = MIB
    #: Seconds for which paid room stays after its end: somebody who is away for a week loses no message.
    grace: int = 7 * DAY
    #: Months that can be paid at once, so that a mailbox that closes down takes no more of its recipients' money
    #: with it.
    months: int = 12
    #: Seconds for which anything is kept, at most.
    lifetime: int = 30 * DAY
    #: One-time keys of each device: for as many first messages while it is offline.
    one_time_keys: int = 100
    #: Bytes of a piece of an attachment, at most: pieces have 256 KiB before they are sealed.
    piece: int = 256 * 1024 + 64
    #: Deposits of one source at once, and one more for each pause, in seconds: several people may write from one
    #: office.
    deposits: int = 1000
    deposit_pause: float = 0.02
    #: Bytes that one source may leave at once, and as many more in a day, where room is free. Devices are free as
    #: well: with 1,000 of its own, one source filled the disk in a night.
    source_bytes: int = 4096 * MIB
    #: New devices of one network, which could otherwise soon take all places: devices that are given up make room
    #: only after 60 days.
    new_devices: int = 1000
    new_device_pause: float = 60.0
    #: Changes of keys, settings and cards, by all devices of one source: each waits for the disk, and a device
    #: makes a few in five minutes.
    changes: int = 4000
    change_pause: float = 0.1
    #: ... and requests for keys: each uses up a one-time key.
    key_questions: int = 100
    key_pause: float = 6.0
    #: Envelopes let in by stamps of the usual work that are remembered, so that they aren't kept a second time. To
    #: push one out somebody has to do the work for as many others.
    spent_stamps: int = 65_536
    #: Sources whose rates are remembered.
    sources: int = 4096
    #: Requests of one source that may wait for the store at once. The store carries out one after the other, so
    #: requests of others wait behind at most this many.
    store_requests: int = 8
    #: Requests of one connection that are answered at once; and pushed envelopes that aren't acknowledged, of which
    #: clients accept `MAX_PUSHED`.
    requests: int = 64
    pushed: int = MAX_PUSHED

    def device_room(self, reserved: int, paid_until: int, now: int) -> int:
        """Return the bytes that may wait at `now` (Unix time in seconds) for a device that has paid for `reserved`
        bytes until `paid_until`.
        """
        if not self.price_mib_month:
            return self.recipient_bytes
        paid = reserved if now < paid_until + self.grace else 0
        return min(max(paid, self.free_bytes), self.recipient_bytes)
