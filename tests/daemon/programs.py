"""Real programs in processes of their own: `dtpd` and what goes through it. They end with the test in any case."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from dtp.identity import Identity

#: Seconds for anything that has to happen, and the longest life of a program that is started here, so it is beyond
#: what the longest test takes on a machine that is busy with others; only a failing test waits so long.
PATIENCE = 600
#: The program, for `python -c`.
DTPD = "from dtp.cli.daemon import main; main(prog_name='dtpd')"


def is_alive(pid: int) -> bool:
    """True while there is such a process, also one that this one hasn't started."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class Program:
    """A running program whose standard output is read line by line."""

    def __init__(self, command: Sequence[object], **options: Any) -> None:
        self.process: subprocess.Popen[bytes] = subprocess.Popen(
            [str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options
        )
        self._watchdog = threading.Timer(PATIENCE, self.process.kill)
        self._watchdog.daemon = True
        self._watchdog.start()
        self.errors = b""
        self._collector = threading.Thread(target=self._collect, daemon=True)
        self._collector.start()

    def _collect(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.errors += line

    def record(self) -> dict[str, Any]:
        """The next line of JSON."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self._collector.join(PATIENCE)
        assert line, f"it ended: {self.errors.decode()}"
        found: dict[str, Any] = json.loads(line)
        return found

    def event(self, name: str) -> dict[str, Any]:
        """The next line of JSON that is this event."""
        while True:
            record = self.record()
            if record["event"] == name:
                return record

    def log(self, words: str) -> None:
        """Wait until it has logged a line with these words."""
        deadline = time.monotonic() + PATIENCE
        while words.encode() not in self.errors:
            assert time.monotonic() < deadline, self.errors.decode()
            assert self._collector.is_alive(), self.errors.decode()
            self._collector.join(0.01)

    def wait(self, code: int | None = 0) -> None:
        """Until it has ended, with this exit code (None: any). What it has started may live on with its output."""
        status = self.process.wait(PATIENCE)
        self._collector.join(1)
        assert code is None or status == code, (status, self.errors.decode())

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._collector.join(PATIENCE)
        self._watchdog.cancel()
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()


class Place:
    """A folder in which daemons and servers run."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self.stack = stack
        self.identities: dict[str, Identity] = {}

    def identity(self, name: str) -> Identity:
        """Make an identity file, once."""
        if name not in self.identities:
            identity = self.identities[name] = Identity.generate()
            identity.save(self.folder / f"{name}.pem")
        return self.identities[name]

    def file(self, name: str, text: str) -> Path:
        """Write a daemon's file: its identity and its control socket are beside it."""
        self.identity(name)
        control = f'control = "{self.folder}/{name}.sock"'
        if "[daemon]" in text:
            text = text.replace("[daemon]", f"[daemon]\n{control}")
        else:
            text = f"[daemon]\n{control}\n{text}"
        path = self.folder / f"{name}.toml"
        path.write_text(f'[identity]\nfile = "{name}.pem"\n{text}')
        return path

    def program(self, *command: object, **options: Any) -> Program:
        program = Program(command, **options)
        self.stack.callback(program.close)
        return program

    def dtpd(
        self, name: str, text: str, *, code: str = DTPD, **options: Any
    ) -> tuple[Program, list[dict[str, Any]]]:
        """Start a daemon; gives the program, and what it says it exposes and forwards. `code` runs it."""
        path = self.file(name, text)
        program = self.program(sys.executable, "-P", "-c", code, "run", "--json", "-c", path, **options)
        places: list[Any] = []
        while True:
            record = program.record()
            if record["event"] == "ready":
                return program, places
            places.append(record)

    def command(self, *arguments: object, code: int | None = 0) -> str:
        """Run a `dtpd` command to its end; what it prints. `code` None: it has to fail."""
        done = subprocess.run(
            [sys.executable, "-P", "-c", DTPD, *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == code or (code is None and done.returncode), done.stderr
        return done.stdout if code == 0 else done.stderr

    def pair(self, backend: object, more: str = "", *, service: str = "api") -> tuple[Program, Program, int]:
        """A far daemon that exposes `backend`, a near one; gives both programs and the near port."""
        far, exposed = self.dtpd(
            "far",
            f"""[daemon]
listen = ["tcp://127.0.0.1:0"]
[[expose]]
service = "{service}"
backend = ["{backend}"]
allow = ["{self.identity("near").id}"]
{more}
""",
        )
        near, forwarded = self.dtpd(
            "near", f'[[forward]]\nlisten = "127.0.0.1:0"\nto = "{exposed[0]["address"]}"\n'
        )
        return far, near, int(forwarded[0]["listen"].rpartition(":")[2])


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setenv(
        "XDG_DATA_HOME", str(tmp_path / "data")
    )  # whoever runs the tests has vouchers of their own
    with contextlib.ExitStack() as stack:
        yield Place(tmp_path, stack)


def need(program: str) -> str:
    """The path of a program of the system; the test is skipped where it is missing."""
    path = shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin:/usr/local/sbin")
    if path is None:
        pytest.skip(f"{program} is not installed")
    return path


def _ports() -> Iterator[int]:
    """Ports below what systems give to those who ask for any (Linux: from 32768). Each process that runs tests, also
    of another run on this machine, has blocks of its own, and a socket on the first port of a block says so: between
    `free_port` and the program that is to listen there nobody else gets it."""
    for first in range(10_000, 32_000, 200):
        guard = socket.socket()
        try:
            guard.bind(("127.0.0.1", first))
        except OSError:
            guard.close()
            continue
        atexit.register(guard.close)
        yield from range(first + 1, first + 200)


_PORTS = _ports()


def free_port() -> int:
    """A port of 127.0.0.1 on which nobody listens, by TCP or UDP; each is given once."""
    for port in _PORTS:
        try:
            for kind in socket.SOCK_STREAM, socket.SOCK_DGRAM:
                with socket.socket(type=kind) as sock:
                    sock.bind(("127.0.0.1", port))
        except OSError:  # somebody else's
            continue
        return port
    raise AssertionError("all ports from 10,000 to 32,000 are taken")


def wait_for_port(port: int, program: Program) -> None:
    """Until somebody listens there."""
    deadline = time.monotonic() + PATIENCE
    while True:
        with socket.socket() as sock:
            if sock.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert program.process.poll() is None, program.errors.decode()
        assert time.monotonic() < deadline
