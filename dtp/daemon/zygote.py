"""The process that workers are forked from: made first, when the program has one thread and no loop.

It holds what workers need and no message carries (the identity, the key that peers share), so that a worker that died
is there again at once, with its memory shared, and secrets never leave the memory that they are in.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import NoReturn

#: A worker's main: its number, and its end of the channel to the parent.
Main = Callable[[int, socket.socket], None]


class Zygote:
    """The parent's handle of it."""

    def __init__(self, main: Main, keep: list[int]) -> None:
        """Fork now. `keep` are the descriptors that workers need; all others are closed there."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.pid = os.fork()
        if not self.pid:
            ours.close()
            _serve(theirs, main, keep)
        theirs.close()
        self._sock = ours

    def spawn(self, number: int) -> tuple[socket.socket, int]:
        """A worker: our end of its channel, and its process id. Raises `OSError` when it can't be had."""
        ours, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(self._sock, [str(number).encode()], [theirs.fileno()])
        answer = self._sock.recv(32)
        if not answer.isdigit():
            ours.close()
            raise OSError("the process that workers are made of is gone, or can't fork")
        return ours, int(answer)

    def close(self) -> None:
        """Workers that run go on; no further ones can be had. Idempotent."""
        if self._sock.fileno() >= 0:
            self._sock.close()
            os.waitpid(self.pid, 0)


def _serve(sock: socket.socket, main: Main, keep: list[int]) -> NoReturn:
    """Fork whenever asked, until the parent is gone."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the parent gets them too, and tells
    signal.signal(
        signal.SIGCHLD, signal.SIG_IGN
    )  # nobody waits for workers: their channels tell of their ends
    _close_others({*keep, sock.fileno()})
    while True:
        data, descriptors, _, _ = socket.recv_fds(sock, 32, 1)
        if not data:
            os._exit(0)
        try:
            pid = os.fork()
        except OSError as error:
            os.close(descriptors[0])
            sock.send(f"- {error.strerror}"[:31].encode())
            continue
        (channel,) = descriptors
        if not pid:
            sock.close()
            _run(main, int(data), socket.socket(fileno=channel))
        os.close(channel)
        sock.send(str(pid).encode())


def _run(main: Main, number: int, channel: socket.socket) -> NoReturn:
    status = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        main(number, channel)
        status = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
        raise
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        # Not through what the parent has left to be done at its exit.
        os._exit(status)


def _close_others(keep: set[int]) -> None:
    last = 2
    for descriptor in sorted(keep):
        os.closerange(last + 1, descriptor)
        last = descriptor
    os.closerange(last + 1, os.sysconf("SC_OPEN_MAX"))
