"""The process that takes the place of this one: the same program with the same sockets."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import BinaryIO

from dtp.daemon.process import systemd
from dtp.daemon.process.predecessors import BEFORE, ends_text
from dtp.daemon.process.replaced import REPLACED
from dtp.daemon.state.counted import COUNTED, Counted, file_of
from dtp.errors import LocalError

#: Why it doesn't serve, if it has ended by itself: the launcher knows how.
ENDED = "ended"
#: Seconds for a process to end after it has closed its pipe: both happen at nearly the same time.
GONE = 1.0


class UpgradeFailed(LocalError):
    """The process that should take over failed to; the old one serves as before."""

    code = "upgrade-failed"


class Launcher:
    """Starts a successor. `patience` is the seconds until it has to serve."""

    def __init__(self, command: Sequence[str] | None = None, patience: float = 120.0) -> None:
        """`command` is what to run, by default the command of this process. The patience is that of workers to
        start: on a busy machine, or with a slow database, one takes more than half a minute."""
        self._command = list(command or sys.orig_argv)
        self.patience = patience

    def start(
        self,
        socks: Mapping[str, Sequence[socket.socket]],
        counted: Counted,
        told: Mapping[int, int],
        reached: Sequence[int],
    ) -> tuple[subprocess.Popen[bytes], BinaryIO]:
        """Start this program again. It gets copies of `socks`, of the descriptors in `told`, over which this and
        previous processes report what they have open, and of those in `reached`, over which it reaches them. Return
        the process, and a pipe that tells when it serves, or has ended.

        Raises `UpgradeFailed`.
        """
        file, named = file_of(counted)
        read, write = os.pipe()
        numbers = {sock.fileno(): setting for setting, several in socks.items() for sock in several}
        environment = {
            **os.environ,
            systemd.SOCKETS: json.dumps([(setting, number) for number, setting in numbers.items()]),
            systemd.READY: str(write),
            COUNTED: named,
            BEFORE: ends_text(told),
            REPLACED: " ".join(map(str, reached)),
        }
        environment.pop(systemd.WATCHED, None)  # it names this process, which will soon be another
        try:
            process = subprocess.Popen(
                self._command, env=environment, pass_fds=(*numbers, write, file.fileno(), *told, *reached)
            )
        except OSError as error:
            os.close(read)
            raise UpgradeFailed(f"{self._command[0]} can't be started: {error.strerror}") from error
        finally:
            os.close(write)
            file.close()
        return process, os.fdopen(read, "rb")


def end_process(process: subprocess.Popen[bytes], *, patience: float = 0.0) -> str:
    """Return how a process that doesn't serve has ended within `patience` seconds; kill it if it hasn't."""
    try:
        code = process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return "it was killed"
    if code < 0:
        return f"{signal.Signals(-code).name} ended it, before it could say why"
    return f"it ended with exit code {code}, and its last lines in the log or on standard error say why"
