"""Changes of this machine's networks as Linux tells them: links and addresses that have come or gone.

Source: rtnetlink(7), netlink(7). Elsewhere nobody tells, and they are noticed by what doesn't answer any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
from collections.abc import Callable
from struct import Struct
from struct import error as StructError
from typing import Final
from weakref import WeakKeyDictionary

log = logging.getLogger("dtp.peers")

#: RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR.
_GROUPS: Final = 0x1 | 0x10 | 0x100
_NEW_LINK, _DELETED_LINK, _NEW_ADDRESS, _DELETED_ADDRESS = 16, 17, 20, 21
#: struct nlmsghdr, ifinfomsg, ifaddrmsg, rtattr.
_MESSAGE, _LINK, _ADDRESS, _ATTRIBUTE = Struct("=LHHLL"), Struct("=BxHiII"), Struct("=BBBBI"), Struct("=HH")
#: IFF_UP, IFF_RUNNING, IFF_LOWER_UP; IFA_F_TENTATIVE: an address that can't be used yet.
_UP, _TENTATIVE = 0x1 | 0x40 | 0x10000, 0x40
#: IFA_ADDRESS, IFA_LOCAL.
_WHICH: Final = (1, 2)
#: Links and addresses that are remembered: a host of containers has hundreds.
_MOST: Final = 4096
#: Datagrams that are read in one turn of the loop, and bytes of one: the kernel's are 32 KiB at most.
_TURN, _SIZE = 16, 65536
#: Seconds from a change until it is told, as several come together; and from one time to the next.
SETTLE: Final = 0.1
PAUSE: Final = 1.0


class NetworkNews:
    """What the kernel has said of links and addresses, as a value: whether its next words are news.

    It repeats itself: each router advertisement renews IPv6 addresses, and wireless links tell of their quality.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], int] = {}

    def read(self, data: bytes) -> bool:
        """Return True if a message in a datagram tells of a change. The first word of each counts as one."""
        changed, at = False, 0
        while at + _MESSAGE.size <= len(data):
            size, kind, *_ = _MESSAGE.unpack_from(data, at)
            if not _MESSAGE.size <= size <= len(data) - at:
                break
            changed |= self._read_message(kind, data[at + _MESSAGE.size : at + size])
            at += -(-size // 4) * 4
        return changed

    def _read_message(self, kind: int, body: bytes) -> bool:
        try:
            if kind in (_NEW_LINK, _DELETED_LINK):
                _, _, index, flags, _ = _LINK.unpack_from(body)
                return self._note(("link", index), flags & _UP, is_gone=kind == _DELETED_LINK)
            if kind in (_NEW_ADDRESS, _DELETED_ADDRESS):
                family, prefix, flags, _, index = _ADDRESS.unpack_from(body)
                which = tuple(_find_attributes(body[_ADDRESS.size :]))
                key = (family, prefix, index, *which)
                return self._note(key, flags & _TENTATIVE, is_gone=kind == _DELETED_ADDRESS)
        except StructError:
            log.debug("netlink: a message of kind %d that is cut off", kind)
        return False

    def _note(self, key: tuple[object, ...], state: int, *, is_gone: bool) -> bool:
        before = self._known.pop(key, None)
        if is_gone:
            return True
        self._known[key] = state
        if len(self._known) > _MOST:
            del self._known[next(iter(self._known))]
        return before != state


def _find_attributes(data: bytes) -> list[bytes]:
    """Return the values of an address's attributes that say which one it is."""
    found, at = [], 0
    while at + _ATTRIBUTE.size <= len(data):
        size, kind = _ATTRIBUTE.unpack_from(data, at)
        if size < _ATTRIBUTE.size:
            break
        if kind in _WHICH:
            found.append(data[at + _ATTRIBUTE.size : at + size])
        at += -(-size // 4) * 4
    return found


class _Watch:
    """The socket of one loop, and who is told."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.listeners: list[Callable[[], object]] = []
        self._loop, self._news = loop, NetworkNews()
        self._socket: socket.socket | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._told = -PAUSE

    def open(self) -> None:
        """Begin to hear changes, where the system tells them."""
        if not hasattr(socket, "AF_NETLINK"):
            return
        with contextlib.ExitStack() as undo:
            try:
                made = undo.enter_context(
                    socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
                )
                made.setblocking(False)
                made.bind((0, _GROUPS))
                self._loop.add_reader(made, self._on_readable)
            except (OSError, NotImplementedError) as error:  # a sandbox; a loop without sockets
                log.info("changes of networks aren't told here: %s", error)
                return
            self._socket = made
            undo.pop_all()

    def close(self) -> None:
        """Hear nothing any more. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
        if self._socket is not None:
            self._loop.remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    def _on_readable(self) -> None:
        assert self._socket is not None
        changed = False
        for _ in range(_TURN):
            try:
                data, (sender, _) = self._socket.recvfrom(_SIZE)
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                changed = True  # there was more than the kernel keeps
                continue
            changed |= sender == 0 and self._news.read(data)  # else it is another process that speaks
        if changed and self._timer is None:
            now = self._loop.time()
            self._timer = self._loop.call_at(max(now + SETTLE, self._told + PAUSE), self._tell)

    def _tell(self) -> None:
        self._timer, self._told = None, self._loop.time()
        for each in list(self.listeners):
            each()


_WATCHES: WeakKeyDictionary[asyncio.AbstractEventLoop, _Watch] = WeakKeyDictionary()


def watch_networks(on_change: Callable[[], object]) -> Callable[[], None]:
    """Call `on_change` when links or addresses of this machine have come or gone, at most once in `PAUSE` seconds;
    return what ends that. All who watch on a loop share one socket. Nothing happens where the system doesn't tell."""
    loop = asyncio.get_running_loop()
    watch = _WATCHES.get(loop)
    if watch is None:
        watch = _WATCHES[loop] = _Watch(loop)
        watch.open()
    watch.listeners.append(on_change)

    def end() -> None:
        if on_change in watch.listeners:
            watch.listeners.remove(on_change)
        if not watch.listeners and _WATCHES.get(loop) is watch:
            del _WATCHES[loop]
            watch.close()

    return end
