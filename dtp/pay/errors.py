"""What can go wrong with money between two ends, each by whose fault it is and with what to do about it."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Final

from dtp.errors import ChainError, LimitError, LocalError, PeerError
from dtp.session.codes import CloseDetail

__all__ = [
    "BudgetSpent",
    "BudgetTooSmall",
    "ChannelUnusable",
    "ChargeDeclined",
    "CountsDisputed",
    "DatagramsNotMetered",
    "DayLimit",
    "Flaw",
    "HostLimit",
    "LockTooLong",
    "MalformedMeter",
    "MoneyNotAdded",
    "NoStore",
    "NotApproved",
    "NotMetered",
    "OpeningBusy",
    "OpeningUnknown",
    "OtherCoin",
    "PriceTooHigh",
    "SealedAnswerBroken",
    "StoreError",
    "TicketRefused",
    "VoucherRefused",
]


class Flaw(StrEnum):
    """What is wrong with a voucher. The texts are what the other side reads."""

    FORGED = "the signature does not verify"
    EQUIVOCAL = "another voucher of this sequence was signed before"
    SHRUNK = "amount, requests or bytes are below those of an earlier voucher"
    UNDERPAID = "the amount is below what requests and bytes cost"
    OVERPRICED = "the amount is above what requests and bytes cost"
    OVERDRAWN = "the vouchers of all lanes together are above the deposit"
    SHORT_LIVED = "the voucher ends before it could be claimed"
    WRONG_LOCK = "the hash lock is not the one that was asked for"
    INFLATED = "requests or bytes are above what was served"
    CHARGE_UNPAID = "the voucher names a charge and does not pay for it"


class MalformedMeter(PeerError):
    """A METER frame is not what docs/wire.md says; the connection is closed with PAYMENT."""

    code = "malformed-meter"


class VoucherRefused(PeerError):
    """A voucher can't be taken; what was accepted before stands. `.flaw` says why."""

    code = "voucher-refused"

    def __init__(self, flaw: Flaw) -> None:
        super().__init__(f"voucher refused: {flaw.value}")
        self.flaw = flaw


class CountsDisputed(PeerError):
    """The server asks money for more than arrived here. Nothing was signed beyond our own count.

    `requests` and `bytes` are what it wants paid and never came; with a `Spending.slack_amount` of `amount` they are.
    All are 0 where it shows vouchers that are not ours.
    """

    code = "counts-disputed"

    def __init__(self, message: str, *, requests: int = 0, bytes: int = 0, amount: int = 0) -> None:
        super().__init__(message)
        self.requests, self.bytes, self.amount = requests, bytes, amount


class ChargeDeclined(PeerError):
    """The client declined an explicit charge, or left one undecided for too long; nothing was counted for it."""

    code = "charge-declined"


class QuotaUsedUp(ChargeDeclined):
    """The quota of the pass is used up; nothing was counted for the charge."""

    code = "quota-used-up"


class TicketRefused(PeerError):
    """A ticket doesn't open this service. The message and `.detail` are what the client is told."""

    code = "ticket-refused"

    def __init__(self, message: str, detail: CloseDetail) -> None:
        super().__init__(message)
        self.detail = detail


class SealedAnswerBroken(PeerError):
    """What was bought doesn't open with the key that was paid for, or is malformed."""

    code = "sealed-answer"


class BudgetSpent(LimitError):
    """The budget, or the deposit that it allows, is used up; give a larger one to go on.

    Where it ended a connection, `paid` (smallest unit) is what was signed, and `requests` and `bytes` are what came,
    of the lane in its whole life.
    """

    code = "budget-spent"

    def __init__(self, message: str, *, paid: int = 0, requests: int = 0, bytes: int = 0) -> None:
        super().__init__(message)
        self.paid, self.requests, self.bytes = paid, requests, bytes


class BudgetTooSmall(BudgetSpent):
    """The budget pays for nothing that is of use; no transaction was sent. `least` (smallest unit) is what does."""

    code = "budget-too-small"

    def __init__(self, message: str, *, least: int) -> None:
        super().__init__(message)
        self.least = least


class PriceTooHigh(LimitError):
    """The service costs more than the caller allows; nothing was paid."""

    code = "price-too-high"


class OtherCoin(PriceTooHigh):
    """The service is paid in another coin than the budget is in; nothing was paid."""

    code = "other-coin"


class LockTooLong(LimitError):
    """By its terms the server may keep a deposit for longer than is agreed to; nothing was paid."""

    code = "lock-too-long"


class HostLimit(LimitError):
    """Channels with the host lock up as much as may be; nothing was signed. `locked` is how much (smallest unit)."""

    code = "host-limit"

    def __init__(self, message: str, *, locked: int) -> None:
        super().__init__(message)
        self.locked = locked


class DayLimit(HostLimit):
    """So much as may in a day went into channels and didn't come back; nothing was signed. `locked` is how much."""

    code = "day-limit"


class NotApproved(LimitError):
    """Whoever was asked about a deposit didn't agree to it; nothing was signed."""

    code = "not-approved"


class MoneyNotAdded(ChainError):
    """What was to be added to the deposit was refused (there is no more in the wallet, or a limit of a host, a day or
    gas is reached), and the deposit is used up; or no node of the chain took it for longer than `Spending.funding`.

    What was signed stands. Its `__cause__` says what the last try met; connect again when that is mended.
    """

    code = "money-not-added"


class OpeningBusy(LocalError):
    """Other connections of this wallet have been opening channels for so long that this one has given up. Nothing was
    signed: try again, or end the program that hangs."""

    code = "opening-busy"


class OpeningUnknown(ChainError):
    """Transactions that were signed to open channels may have been executed, and the node doesn't say, knows nothing
    of them, or says that they failed: another isn't signed, or a node that lies could have one deposit after another
    made.

    `digests` are theirs. Ask another node (`network=`), or look for the channels (`dtp channel find`), behind which
    others are opened again.
    """

    code = "opening-unknown"

    def __init__(self, digests: Sequence[str]) -> None:
        super().__init__(
            f"it isn't known whether channels were opened by {', '.join(digests)}, so no other is opened: ask "
            "another node (`network`), look for them by 'dtp channel find', behind which others are opened again, or "
            "try again in an hour"
        )
        self.digests = tuple(digests)


class ChannelUnusable(LocalError):
    """A channel can't be used: it is closing, closed, of another service, or unknown here."""

    code = "channel-unusable"


class NotMetered(LocalError):
    """Something of metering was asked of a connection that isn't metered, or not yet."""

    code = "not-metered"


class DatagramsNotMetered(LocalError):
    """A datagram was to be sent or read on a metered connection, which carries none."""

    code = "datagrams-not-metered"


class StoreError(LocalError):
    """The store of vouchers can't be used; nothing counts that isn't in it."""

    code = "pay-store"


class PayStoreFull(StoreError):
    """There is no room on the disk for what the store of vouchers has to keep. What it keeps is still there."""

    code = "pay-store-full"


class StoreBusy(StoreError):
    """Another process writes to the store of vouchers for longer than was waited."""

    code = "pay-store-busy"


class NoStore(StoreError):
    """There is no store of vouchers where one was expected, and none was made."""

    code = "no-store"


#: What a client's connection ends with that isn't paid any more: by a limit, for want of money, or since it declined.
UNPAID: Final = (LimitError, MoneyNotAdded, ChargeDeclined)
