"""The process that workers are forked from. It is made first, while the program has one thread and no loop.

It has what workers need and no message carries: the identity, and the key that peers share. So a worker that died
is replaced at once, sharing memory, and secrets never leave that memory. A second one waits to take its place,
since the parent can't make another.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import NoReturn

#: Asks a process to fork another one like itself.
_SPARE = "spare"

#: Runs a worker, given its number and its end of the channel to the parent.
Main = Callable[[int, socket.socket], None]


class Forks:
    """Forks workers through sockets to processes that fork when asked: one is in use, another in reserve."""

    def __init__(self, socks: list[socket.socket]) -> None:
        self._socks = socks

    def __len__(self) -> int:
        return len(self._socks)

    def spawn_worker(self, number: int) -> tuple[socket.socket, int]:
        """Return our end of a new worker's channel, and its process id. Raise `OSError` if it can't be forked."""
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
        """Ask for a fork. Raise `OSError`, or `ConnectionError` when the process that forks is gone."""
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
        """Fork no more. Idempotent."""
        for sock in self._socks:
            sock.close()
        self._socks.clear()


class Zygote:
    """The parent's handle for the zygote, and for the one in reserve."""

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
        """Kill a worker. One that has already ended is left alone."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        """Fork no more workers; running ones go on. Idempotent."""
        if self._forks:
            self._forks.close()
            os.waitpid(self.pid, 0)


def serve_forks(sock: socket.socket, main: Main, keep: list[int]) -> NoReturn:
    """Fork whenever asked, until the parent is gone."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the parent gets these signals, too, and tells the workers
    # Nobody waits for workers, since their channels tell when they end.
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
        # Skip the exit handlers that were inherited from the parent.
        os._exit(status)


def _close_others(keep: set[int]) -> None:
    last = 2
    for descriptor in sorted(keep):
        os.closerange(last + 1, descriptor)
        last = descriptor
    os.closerange(last + 1, os.sysconf("SC_OPEN_MAX"))
