"""When a voucher is due, and when a frame that was not answered is said again.

Times are seconds of the caller's clock, which goes forward.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from dtp.pay.client.lane_funds import LaneFunds
from dtp.pay.terms import LEAST_AHEAD, MIB, NEVER, Exposure, Spending, Usage

#: Times that the count is looked at while a voucher's interval is used up.
_LOOKS: Final = 8
#: The most bytes that a voucher waits for company, where its interval is no less than what a stream is given credit
#: for at a time (by default a MiB); somewhat more than that, since credit is given when a read is over.
_COMPANY: Final = MIB
_LEEWAY: Final = 3 * MIB // 2


@dataclass(slots=True)
class VoucherSchedule:
    """When the next voucher is due, by what may be unpaid at the server and by what the client chose."""

    spending: Spending
    #: How much is unpaid when a voucher is due.
    interval: Usage = field(init=False, default=Usage())
    #: A voucher is being signed.
    signing: bool = field(init=False, default=False)
    #: The server asks for one, or a locked one is to be replaced.
    demanded: bool = field(init=False, default=False)
    _exposure: Exposure = field(init=False, default_factory=Exposure)
    _unpaid_since: float | None = field(init=False, default=None)
    #: When what wasn't answered is said again.
    repeat_at: float = field(init=False, default=NEVER)

    # ---- what the server allows

    def set_exposure(self, exposure: Exposure, paid: Usage) -> None:
        """Take how much the server serves before it is paid."""
        self._exposure = exposure
        self.note_paid(paid)

    def note_paid(self, paid: Usage) -> None:
        """Set the interval, now that the newest voucher says so much."""
        self.interval = self.interval_after(paid)

    def interval_after(self, paid: Usage) -> Usage:
        """Return how much is unpaid when a voucher is due on a lane that has paid for so much."""
        return self.spending.voucher_interval(self.unpaid_after(paid))

    def unpaid_after(self, paid: Usage) -> Usage:
        """Return what may be unpaid on a lane that has paid for so much."""
        return self._exposure.after_payment(paid)

    def usage_ahead(self, used: Usage, paid: Usage, funds: LaneFunds) -> Usage:
        """Return how much is signed ahead of use: by choice, and what a server wants that moves no byte unpaid."""
        spending, size = self.spending, self.spending.ahead_bytes
        least = min(self._exposure.first_bytes, self._exposure.most_bytes)
        if least == 0 and self.unpaid_after(paid).bytes == 0:
            # Half of what came, as a server trusts a client, and to begin with what any budget has to pay for.
            step = funds.prices.bytes_within(spending.step_amount, 0)
            wanted = min(MIB, max(LEAST_AHEAD, min(used.bytes // 2, MIB if step is None else step)))
            room = funds.bytes_left(used)
            size = max(size, wanted if room is None else min(wanted, room))
        return Usage(spending.ahead_requests, size)

    # ---- when one is due

    def is_due(self, fresh: Usage, ahead: Usage, now: float) -> bool:
        """Return whether a voucher is due that says so much more than the one before, of which `ahead` is ahead of
        use."""
        interval = self.interval
        ahead_low = (ahead.requests and fresh.requests * 2 >= ahead.requests) or (
            ahead.bytes and fresh.bytes * 2 >= ahead.bytes
        )
        if fresh.bytes >= interval.bytes or fresh.requests >= interval.requests or ahead_low:
            return True
        if self._unpaid_since is None:
            self._unpaid_since = now
        return now >= self._unpaid_since + self.spending.voucher_seconds

    def begin_signing(self, now: float) -> None:
        """Note that a voucher is to be signed."""
        self.signing, self.demanded = True, False
        # So that the next byte needs no look: `forget_unpaid` sees whether there was one.
        self._unpaid_since = now

    @property
    def unpaid_until(self) -> float:
        """When a voucher is due by time."""
        if self._unpaid_since is None or self.signing:
            return NEVER
        return self._unpaid_since + self.spending.voucher_seconds

    def forget_unpaid(self, now: float) -> None:
        """Wait no more for a voucher that was due by time and is not signed: nothing was used since the last one, or
        there is no money for it. New counts and new money are looked at anyway."""
        if now >= self.unpaid_until:
            self._unpaid_since = None

    def next_look(self, unpaid: int, left: int | None) -> int:
        """Return how many bytes may move before the counts matter: 0 when the first begins something. `unpaid` bytes
        are not signed for, and `left` more are paid for by the money there is, None for any number."""
        if self.signing or (self.spending.ahead_bytes and self._unpaid_since is not None):
            due = self.interval.bytes // _LOOKS
        elif self._unpaid_since is None:
            return 0
        else:
            due = self.interval.bytes - unpaid
        return max(0, due if left is None else min(due, left))

    def leeway(self, left: int | None) -> int:
        """Return how many bytes a voucher that is due may wait for company, such as credit for what came; 0: it is
        sent at once. A record by itself costs both ends more than signing it."""
        interval = self.interval.bytes
        if interval < _COMPANY or self.signing or self._unpaid_since is None or self.spending.ahead_bytes:
            return 0
        return _LEEWAY if left is None or left > interval + _LEEWAY else 0

    # ---- what is said again

    def note_ahead_sent(self, now: float) -> None:
        """Note that a voucher was sent which was signed ahead."""
        self._unpaid_since = now
        self.repeat_after(now)

    def repeat_after(self, now: float) -> None:
        """Say again what is said now, if it stays unanswered."""
        self.repeat_at = now + self.spending.repeat

    def repeat_at_once(self) -> None:
        """Say the newest voucher again: the server lost it, or our answer was lost."""
        self.repeat_at = 0.0
