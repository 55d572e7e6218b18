"""Where `dtp` and `dtpd` begin: Ctrl-C ends them with 130, also while their modules are loaded."""

from __future__ import annotations

import atexit
import importlib
import signal
import sys

#: As of programs that a shell has interrupted: 128 and the number of the signal.
INTERRUPTED = 130


def _run(module: str, name: str | None = None) -> None:
    """Run `main` of a module, as the program `name` (what it was started as, without one).

    Who interrupts it when all is done changes nothing: Python gives the signal its first meaning back before it frees
    what is left, which takes a while, and the program died of it.
    """
    atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)
    try:
        importlib.import_module(module).main(prog_name=name)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def dtp(name: str | None = None) -> None:
    """Run the `dtp` command."""
    _run("dtp.cli", name)


def dtpd() -> None:
    """Run the services daemon, or what talks to it."""
    _run("dtp.cli.daemon")
