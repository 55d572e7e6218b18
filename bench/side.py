"""One process of a measurement: `python -m bench.side serve|drive MODULE JOB [WHERE]`, started by `bench.runner`.

Prints one line of JSON when it can be dialled (serve) and one with its numbers at the end. Ends by itself.
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import os
import resource
import socket
import sys

from bench.job import Job


def _set_congestion(name: str) -> None:
    """Let every TCP socket that Python code makes from now on begin with this congestion control.

    Accepted ones have their listener's. Sockets made in C (ZeroMQ) and by other programs are not reached.
    """
    plain = socket.socket

    class Socket(plain):  # type: ignore[misc, valid-type]
        def __init__(
            self, family: int = -1, type: int = -1, proto: int = -1, fileno: int | None = None
        ) -> None:
            super().__init__(family, type, proto, fileno)
            if fileno is None and self.family != socket.AF_UNIX and self.type == socket.SOCK_STREAM:
                self.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, name.encode())

    socket.socket = Socket  # type: ignore[misc]


def _say(what: dict[str, object]) -> None:
    print(json.dumps(what), flush=True)


def main(arguments: list[str]) -> None:
    """Run one side."""
    role, module_name, text, *where = arguments
    job = Job.load(text)
    faulthandler.dump_traceback_later(job.timeout, exit=True)
    if job.cpus:
        os.sched_setaffinity(0, job.cpus)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if job.congestion:
        _set_congestion(job.congestion)
    module = importlib.import_module(module_name)
    if role == "serve":
        _say(module.serve(job, _say))
    else:
        _say(module.drive(job, json.loads(where[0])))


if __name__ == "__main__":
    main(sys.argv[1:])
