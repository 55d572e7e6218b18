"""Which channels are served by whom, where several processes share one store of vouchers.

Two that served one channel at the same time would each take the same voucher for its own. So a channel is held by
one server at a time. For a store that is a file the holds are locks on another file beside it (`Holds`), one byte
for each channel: they end with their process, however it ends. `VoucherStore` says what any store has to do.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from typing import Final, Protocol

from dtp.locking import NameLocks
from dtp.pay.errors import StoreError
from dtp.pay.server.stored_vouchers import PayeeLane
from dtp.pay.store.rows import End, Sold
from dtp.pay.terms import Usage
from dtp.pay.voucher import SignedVoucher


class ChannelHolds(Protocol):
    """The channels that one server holds. Methods may be called in any thread."""

    def hold_channel(self, channel: str) -> bool:
        """Hold a channel, once more if it is held here; False while another server has it. Raises `StoreError`."""

    def free(self, channel: str) -> None:
        """Give back what `hold_channel` took, once. Raises `StoreError`."""


class VoucherStore(Protocol):
    """What a server needs of a store; `dtp.pay.store.Store` has it, and says of each method what it promises.

    `is_shared` is True for a store that daemons on several machines have in common: one of them claims for all.

    What was written is there after a crash and a power cut when the method has returned. Methods are called in one
    thread that is not the event loop's; several servers may call at the same time.
    """

    @property
    def is_shared(self) -> bool: ...
    def close(self) -> None: ...
    def open_holds(self) -> ChannelHolds: ...
    def is_claimer(self) -> bool: ...
    def held_channels(self, channels: Iterable[str]) -> set[str]: ...
    def sold_lane(self, channel: str, lane: int) -> PayeeLane: ...
    def sold_lanes(self, channel: str | None = None) -> list[Sold]: ...
    def vouched_sums(self, channel: str) -> dict[int, int]: ...
    def received_all(self, received: Iterable[tuple[SignedVoucher, Usage]]) -> list[bool]: ...
    def keep_preimage(self, channel: str, lane: int, preimage: bytes) -> None: ...
    def save_served(self, channel: str, lane: int, used: Usage) -> None: ...
    def pass_used(self, pass_: str, period: int) -> Usage: ...
    def add_pass_used(self, pass_: str, period: int, more: Usage) -> None: ...
    def lease_pass(self, pass_: str, period: int, wanted: Usage, quota: Usage) -> Usage: ...
    def save_agreement(self, channel: str, total: int, not_after_ms: int, chain: str) -> End: ...
    def mark_closed(self, channel: str) -> None: ...
    def end_of(self, channel: str) -> End | None: ...


class Holds:
    """The channels that one server holds of the store at a path. Close it; what it holds is free then."""

    def __init__(self, store_path: str) -> None:
        self._file = _LockFile.beside_store(store_path)
        self._counts: dict[str, int] = {}
        self._lock = threading.Lock()

    def hold_channel(self, channel: str) -> bool:
        """Hold a channel, once more if it is held here; False when another server has it. Raises `StoreError`."""
        with self._lock:
            if channel not in self._counts and not self._file.lock_channel(channel, self):
                return False
            self._counts[channel] = self._counts.get(channel, 0) + 1
            return True

    def free(self, channel: str) -> None:
        """Give back what `hold_channel` took, once."""
        with self._lock:
            left = self._counts.pop(channel, 0) - 1
            if left > 0:
                self._counts[channel] = left
            elif left == 0:
                self._file.free(channel)

    def close(self) -> None:
        """Free everything. Idempotent."""
        with self._lock:
            for channel in list(self._counts):
                del self._counts[channel]
                self._file.free(channel)


class _LockFile:
    """The lock file of a store, one for all in this process."""

    _known: Final[dict[str, _LockFile]] = {}
    _lock: Final = threading.Lock()

    def __init__(self, path: str | None) -> None:
        self._holders: dict[str, Holds] = {}
        try:
            self._locks = None if path is None else NameLocks(f"{path}.serving")
        except OSError as fault:
            raise StoreError(f"can't lock channels of {path}: {fault}") from fault

    @classmethod
    def beside_store(cls, store_path: str) -> _LockFile:
        if store_path == ":memory:":
            return cls(None)
        path = os.path.realpath(store_path)
        with cls._lock:
            if path not in cls._known:
                cls._known[path] = cls(path)
            return cls._known[path]

    def lock_channel(self, channel: str, holder: Holds) -> bool:
        with self._lock:
            if channel in self._holders:
                return False
            try:
                if self._locks is not None and not self._locks.take(channel):
                    return False
            except OSError as fault:
                raise StoreError(f"can't lock channel {channel}: {fault}") from fault
            self._holders[channel] = holder
            return True

    def free(self, channel: str) -> None:
        with self._lock:
            self._holders.pop(channel, None)
            if self._locks is not None:
                self._locks.release(channel)
