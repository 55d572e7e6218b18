"""When a client dials again for a connection without carriers: at once, and later each time it was no use."""

from __future__ import annotations

#: Seconds before an attempt; the last of them before all that follow.
PAUSES = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8, 1.5)
#: Seconds that a carrier has to last for the next loss to be a new one.
SETTLED = 10.0


class Retries:
    """Counts the attempts of one connection. A carrier that came and went without moving anything is one that failed:
    where every one is cut at the same place, dialling at once each time would go on for ever, at full speed."""

    def __init__(self, patience: float) -> None:
        """`patience` (s): for how long carriers may come and go while nothing of what waits gets through."""
        self._patience = patience
        self._attempts = 0
        self._resumed_at = 0.0
        self._since = 0.0
        self._stood: tuple[int, int] | None = None

    def note_lost(self, now: float, moved: int, kept: int) -> None:
        """Note that the last carrier is gone: so many bytes have moved in all, and so many are kept for the peer's
        sake."""
        if self._stood != (moved, kept):
            self._stood, self._since, self._attempts = (moved, kept), now, 0
        elif now - self._resumed_at >= SETTLED:
            self._attempts = 0

    def note_resumed(self, now: float) -> None:
        """Note that the connection goes on."""
        self._resumed_at = now

    def next_pause(self, now: float) -> float | None:
        """Return the seconds to wait before the next attempt; None where there should be none."""
        if self._stood is not None and self._stood[1] and now - self._since >= self._patience:
            return None
        self._attempts += 1
        return PAUSES[min(self._attempts, len(PAUSES)) - 1]
