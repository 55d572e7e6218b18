"""The process that workers are forked from: made first, when the program has one thread and no loop.

It holds what workers need and no message carries (the identity, the key that peers share), so that a worker that died
is there again at once, with its memory shared, and secrets never leave the memory that they are in. Another one like
it waits to take its place, for the parent can make none any more.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import NoReturn

#: Asks for another process like the one that is asked.
_SPARE = "spare"

#: A worker's main: its number, and its end of the channel to the parent.
Main = Callable[[int, socket.socket], None]


class Forks:
    """What has workers forked, by sockets to processes that fork when asked: one is asked, another is in reserve."""

    def __init__(self, socks: list[socket.socket]) -> None:
        self._socks = socks

    def __len__(self) -> int:
        return len(self._socks)

    def spawn_worker(self, number: int) -> tuple[socket.socket, int]:
        """Return a worker: our end of its channel, and its process id. Raises `OSError` when it can't be had."""
        if not self._socks:
            raise OSError("no process can be forked any more: this one ends")
        if len(self._socks) == 1:
            spare, _ = self._fork_process(_SPARE, socket.SOCK_SEQPACKET)
            self._socks.append(spare)
        try:
            return self._fork_process(str(number), socket.SOCK_STREAM)
        except ConnectionError:
            self._socks.pop(0).close()
            return self.spawn_worker(number)

    def _fork_process(self, what: str, kind: socket.SocketKind) -> tuple[socket.socket, int]:
        """Ask for a fork. Raises `OSError`; `ConnectionError` when whoever is to fork is gone."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
        try:
            with theirs:
                socket.send_fds(self._socks[0], [what.encode()], [theirs.fileno()])
            answer = self._socks[0].recv(256)
            if not answer:
                raise ConnectionResetError("the process that workers are made of is gone")
            return ours, int(answer)
        except ValueError:
            ours.close()
            raise OSError(f"no process can be forked: {answer.decode()}") from None
        except OSError:
            ours.close()
            raise

    def close(self) -> None:
        """Have no further ones. Idempotent."""
        for sock in self._socks:
            sock.close()
        self._socks.clear()


class Zygote:
    """The parent's handle of it, and of the one that waits."""

    def __init__(self, main: Main, keep: list[int]) -> None:
        """Fork now. `keep` are the descriptors that workers need; all others are closed there."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.pid = os.fork()
        if not self.pid:
            ours.close()
            serve_forks(theirs, main, keep)
        theirs.close()
        self._forks = Forks([ours])
        self.spawn_worker = self._forks.spawn_worker

    def kill_worker(self, pid: int) -> None:
        """End a worker now. One that has ended is left alone."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        """Have no further workers; those that run go on. Idempotent."""
        if self._forks:
            self._forks.close()
            os.waitpid(self.pid, 0)


def serve_forks(sock: socket.socket, main: Main, keep: list[int]) -> NoReturn:
    """Fork whenever asked, until the parent is gone."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the parent gets them too, and tells
    # Nobody waits for workers: their channels tell of their ends.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    _close_others({*keep, sock.fileno()})
    while True:
        data, descriptors, _, _ = socket.recv_fds(sock, 32, 1)
        if not data:
            os._exit(0)
        try:
            pid = os.fork()
        except OSError as error:
            os.close(descriptors[0])
            sock.send(f"{error.strerror}".encode())
            continue
        (channel,) = descriptors
        if not pid:
            sock.close()
            theirs = socket.socket(fileno=channel)
            if data == _SPARE.encode():
                serve_forks(theirs, main, keep)
            _run(main, int(data), theirs)
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
