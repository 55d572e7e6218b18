"""What the store holds, as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from dtp.pay.voucher import SignedVoucher

#: The most of a coin that is noted of what a node says of one channel: no coin has more, and a sum of some of these
#: fits into SQLite's integers.
MOST_NOTED: Final = 2**60


@dataclass(frozen=True, slots=True)
class Bought:
    """A channel that this side opened. `state` is "open", "refused" (by its server), "closing" or "closed", as far
    as it is known here.

    `deposited` is what went into it less what came back, in units of `coin`; `gas` what our transactions for it took
    (MIST). Once the close is asked for, its server may claim for another `claim_ms`. `refused` is 1 when its server
    has refused it, whatever became of it since. `name` is the service's, as it was dialled, "" where only its number
    is known.
    """

    channel: str
    chain: str
    host: str
    service: int
    account: str
    state: str
    opened_ms: int
    coin: str = ""
    claim_ms: int = 0
    gas: int = 0
    refused: int = 0
    name: str = ""
    deposited: int = 0

    @property
    def purpose(self) -> tuple[str, str, int, str]:
        """Chain, host and service that it is for, and the account: what makes channels interchangeable."""
        return self.chain, self.host, self.service, self.account


@dataclass(frozen=True, slots=True)
class Sold:
    """A lane that this side is paid by, with the newest voucher and the preimage of its lock, if it has one."""

    channel: str
    lane: int
    newest: SignedVoucher
    preimage: bytes | None


@dataclass(frozen=True, slots=True)
class Loan:
    """What a connection of the program `lender` may sign: `amount` beyond `start` on a lane, in units of the coin.
    `channel` is "" until the connection has a lane."""

    lender: str
    amount: int
    channel: str
    lane: int
    start: int


@dataclass(frozen=True, slots=True)
class End:
    """A channel that the server agreed to close for `total`, or knows to be over. `chain` is the id of the chain that
    it was agreed for, "" where that isn't known."""

    channel: str
    total: int
    not_after_ms: int
    over: bool
    chain: str = ""


@dataclass(frozen=True, slots=True)
class SentOpening:
    """A transaction that was signed and is to open a channel: its digest, the id of its chain, and of what account it
    puts how much of which coin into it; `data` is the BCS of what was signed."""

    digest: str
    chain: str
    account: str = ""
    coin: str = ""
    deposit: int = 0
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class DoubtedDeposit:
    """A transaction of ours that deposits `amount` of `coin`, and of which it isn't known that the chain has it;
    `data` is the BCS of what was signed."""

    digest: str
    coin: str
    amount: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Unsettled:
    """A transaction of ours that was about to be sent at `at_ms` (Unix ms), and whose gas isn't known."""

    digest: str
    purpose: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class MovedMoney:
    """What the chain's history says of a channel of an account: what went into it, and what came back."""

    coin: str
    put: int
    back: int
