"""Where frames go whose channel has no end here, and the links that are taken."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from dtp.bounded import BoundedDict
from dtp.carriers.errors import ListenError
from dtp.chain.pipe import Direction, PipeFrame
from dtp.chain.pipes.end import ChannelEnd
from dtp.chain.pipes.frames import PipeFrameError, decode
from dtp.rates import RateLimiter

#: Channels that are remembered: of others, so that their frames cost no question, and new ones of ours.
_MAX_CHANNELS: Final = 65_536
#: Questions about channels that nobody knows: so many at once, and one more each second.
_LOOKUPS: Final = (32, 1.0)
#: Frames that wait while their channel is looked up, for each channel; history has the others.
_MAX_WAITING: Final = 4
#: Links that a listener takes from one account: each costs it a transaction.
_ACCEPTS: Final = (64, 1.0)
_MAX_ACCOUNTS: Final = 65_536
#: Frames of servers that are kept until the transaction they answer is known here to have happened.
_MAX_EARLY: Final = 256
#: The key that stands for any endpoint of a host.
_ANY: Final = bytes(32)

#: Takes a link that a client has begun: the end, its number.
OnLink = Callable[[ChannelEnd, int], None]


class LinkListeners:
    """Who takes links: each for a host, and the endpoint of a key there, or any."""

    def __init__(self) -> None:
        self._takers: dict[tuple[str, bytes], OnLink] = {}
        self._accepts: RateLimiter[str] = RateLimiter(*_ACCEPTS, _MAX_ACCOUNTS)

    def __len__(self) -> int:
        return len(self._takers)

    def add(self, host: str, key: bytes, on_link: OnLink) -> None:
        """Have links taken. Raise `ListenError` if somebody takes those already."""
        if (host, key) in self._takers:
            raise ListenError(f"pipe://{host}: this endpoint is listened for already")
        self._takers[host, key] = on_link

    def remove(self, host: str, key: bytes) -> None:
        """Have no more taken. Idempotent."""
        self._takers.pop((host, key), None)

    def find(self, host: str, to: bytes) -> OnLink | None:
        """Return who takes links to this endpoint, zeros for any; None if nobody does."""
        for key in (to, _ANY):
            if (host, key) in self._takers:
                return self._takers[host, key]
        if to == _ANY:
            return next((take for (there, _), take in self._takers.items() if there == host), None)
        return None

    def has_host(self, host: str) -> bool:
        """Return whether links to any endpoint of this host are taken."""
        return any(there == host for there, _ in self._takers)

    def are_meant(self, frame: PipeFrame) -> bool:
        """Return whether a frame names an endpoint that listens here, at whatever host."""
        try:
            header, _ = decode(frame.flags, frame.data)
        except PipeFrameError:
            return False
        return any(header.to in (_ANY, key) or key == _ANY for _, key in self._takers)

    def may_begin(self, account: str) -> bool:
        """Return whether this account may begin one more link now, and count it."""
        return self._accepts.try_take(account, time.monotonic())


class UnplacedFrames:
    """Frames of channels that have no end here: those that wait for one, and which channels are worth a question."""

    def __init__(self) -> None:
        #: By channels that are looked up.
        self.waiting: dict[str, list[PipeFrame]] = {}
        #: Channels that aren't ours.
        self.foreign: BoundedDict[str, None] = BoundedDict(_MAX_CHANNELS)
        self._fresh: BoundedDict[str, None] = BoundedDict(_MAX_CHANNELS)
        self._lookups: RateLimiter[None] = RateLimiter(*_LOOKUPS, 1)
        self._early: deque[PipeFrame] = deque(maxlen=_MAX_EARLY)
        self._expecting = 0

    def keep_frame(self, frame: PipeFrame, listeners: LinkListeners) -> bool:
        """Keep a frame, if it may be ours. True where its channel is to be looked up now: `take_waiting` then."""
        channel = frame.channel
        waiting = self.waiting.get(channel)
        if waiting is not None:
            if len(waiting) < _MAX_WAITING:
                waiting.append(frame)
            return False
        if frame.direction != Direction.TO_SERVER:
            if self._expecting:
                self._early.append(frame)
            return False
        if channel in self.foreign or not listeners.are_meant(frame):
            return False
        if channel not in self._fresh and not self._lookups.try_take(None, time.monotonic()):
            return False
        self.waiting[channel] = [frame]
        return True

    def is_fresh(self, channel: str) -> bool:
        """Return whether this side has seen how a channel was opened, and nothing of it since."""
        return channel in self._fresh

    def note_fresh(self, channel: str) -> None:
        """Note that a channel of ours was opened."""
        self._fresh[channel] = None

    def take_waiting(self, channel: str) -> list[PipeFrame]:
        """Return the frames that waited until the channel was looked up, which it was now."""
        self._fresh.pop(channel, None)
        return self.waiting.pop(channel, [])

    @contextmanager
    def expect_answers(self) -> Iterator[None]:
        """Within the block, keep frames of servers whose channel isn't known yet: `list_early` has them."""
        self._expecting += 1
        try:
            yield
        finally:
            self._expecting -= 1
            if not self._expecting:
                self._early.clear()

    def list_early(self, channel: str) -> list[PipeFrame]:
        """Return the frames of a server that came before the channel was known."""
        return [frame for frame in self._early if frame.channel == channel]

    def clear(self) -> None:
        """Forget what nobody follows any more."""
        self.waiting.clear()
        self._early.clear()
        self._fresh.clear()
