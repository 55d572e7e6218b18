"""The real `dtp` in processes of its own: ports from what it prints, no sleeps, and an end in any case."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading

import pytest
from click.testing import CliRunner

from dtp.cli import main
from dtp.localnet.grpc.localnet import LocalnetThread

#: Seconds for anything that has to happen; only a failing test waits so long.
PATIENCE = 240


class Program:
    """A running `dtp`. Its standard input stays open until `finish` or `end_input`."""

    def __init__(self, arguments, env, cwd, stdin=subprocess.PIPE, merge=False):
        """With `merge`, standard error is among the lines."""
        # -P: the package that is installed, whatever folder this is.
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "dtp", *map(str, arguments)],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if merge else subprocess.PIPE,
            env=env,
            cwd=cwd,
        )
        self._watchdog = threading.Timer(PATIENCE, self.process.kill)
        self._watchdog.daemon = True
        self._watchdog.start()
        self.errors = b""
        self._collector = threading.Thread(target=self._collect, daemon=True)
        self._collector.start()

    def _collect(self):
        if self.process.stderr is not None:
            self.errors = self.process.stderr.read()

    @property
    def stdin(self):
        return self.process.stdin

    @property
    def stdout(self):
        return self.process.stdout

    def line(self):
        line = self.process.stdout.readline().decode()
        if not line:
            self._collector.join(PATIENCE)
        assert line, f"dtp ended: {self.errors.decode()}"
        return line.rstrip("\n")

    def event(self, name, **fields):
        """The next line of JSON that is this event, with these fields."""
        while True:
            record = json.loads(self.line())
            if record["event"] == name and fields.items() <= record.items():
                return record

    def end_input(self):
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()

    def signal(self, number):
        self.process.send_signal(number)

    def wait(self, code=0):
        """Wait until it has ended, with this exit code (None: any); gives what it still printed."""
        if self.process.stdin is not None:
            self.end_input()
        rest = b"" if self.process.stdout.closed else self.process.stdout.read()
        status = self.process.wait(PATIENCE)
        self._collector.join(PATIENCE)
        assert code is None or status == code, (status, self.errors.decode())
        return rest

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.wait(None)
        self._watchdog.cancel()
        for file in filter(None, (self.process.stdout, self.process.stderr)):
            file.close()


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A settings folder that doesn't exist yet."""
    for variable in ("DTP_IDENTITY", "DTP_PEERS", "DTP_PASSPHRASE_FILE", "DTP_PSK_FILE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("DTP_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(scope="module")
def net():
    """An embedded node, for the tests of a module."""
    with LocalnetThread() as localnet:
        yield localnet


@pytest.fixture
def call(home, net, monkeypatch):
    """Run `dtp ... --json` on that node's chain; gives what it printed, or the error with `code`."""
    monkeypatch.setenv("DTP_NETWORK", net.url)
    monkeypatch.setenv("DTP_FAUCET", net.faucet_url)
    monkeypatch.delenv("DTP_WALLET", raising=False)

    def run(*arguments, code=0):
        result = CliRunner().invoke(main, [*map(str, arguments), "--json"])
        assert result.exit_code == code, (result.output, result.exception)
        return json.loads(result.stderr)["error"] if code else json.loads(result.stdout.splitlines()[-1])

    return run


@pytest.fixture
def dtp(home, tmp_path):
    """Start `dtp` with arguments; ended after the test."""
    with contextlib.ExitStack() as stack:

        def start(*arguments, **options):
            program = Program(arguments, dict(os.environ), tmp_path, **options)
            stack.callback(program.close)
            return program

        yield start


@pytest.fixture
def serve(dtp):
    """Start `dtp serve` with options; gives the program and the addresses of its services by name."""

    def start(*options):
        program = dtp("serve", "--json", "--until-eof", *options)
        wanted = sum(option in ("--echo", "--file", "--exec", "--forward") for option in options)
        listening = [program.event("listening") for _ in range(wanted)]
        return program, {record["service"]: record["address"] for record in listening}

    return start


#: What ends a program from outside.
KILL, TERM, INT = signal.SIGKILL, signal.SIGTERM, signal.SIGINT
