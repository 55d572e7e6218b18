"""Calls that wait, made in a thread that must not: noted by a program of its own, and read from what it prints.

Python tells of calls by audit events (PEP 578); what it tells nothing of is given to `noted`. What an import reads is
left out: it happens once.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Watch:
    """Notes calls of the threads in `threads` that wait as `may_wait` says, as `[event, argument, where]`."""

    def __init__(self, may_wait: Callable[[str, tuple[Any, ...]], bool]) -> None:
        self.threads: set[int] = set()
        self._may_wait = may_wait
        self._found: set[tuple[str, str, str]] = set()
        sys.addaudithook(self.note)

    def begin(self) -> None:
        """Watch this thread."""
        self.threads.add(threading.get_ident())

    def end(self) -> None:
        """Watch no thread any more."""
        self.threads.clear()

    @property
    def found(self) -> list[tuple[str, str, str]]:
        """The calls that waited, in the order of their names."""
        return sorted(self._found)

    def note(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Note a call, if it is one that waits."""
        if threading.get_ident() not in self.threads or not self._may_wait(event, arguments):
            return
        callers, frame = [], sys._getframe(1)
        while frame is not None:
            if "importlib._bootstrap" in frame.f_code.co_filename:
                return
            callers.append(f"{Path(frame.f_code.co_filename).name}:{frame.f_code.co_qualname}")
            frame = frame.f_back
        self._found.add((event, repr(arguments[0])[:80], " < ".join(callers[:12])))

    def noted(self, event: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function, which tells of its calls by this event."""

        def told(*arguments: Any, **options: Any) -> Any:
            self.note(event, arguments)
            return function(*arguments, **options)

        return told


def run_watched(program: Path, home: Path, *arguments: str) -> Any:
    """Return what a program of this kind prints."""
    done = subprocess.run(
        [sys.executable, str(program), *arguments],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "HOME": str(home),
            "XDG_DATA_HOME": str(home),
            "XDG_STATE_HOME": str(home),
            "PYTHONPATH": str(Path(__file__).parent),
        },
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
