"""Accounts with homes of their own, and `dtp` as processes there against a localnet."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

from dtp.identity import Identity
from dtp.pay.terms import Prices

PATIENCE = 240


class Home:
    """An account with a home of its own, and the `dtp` that runs there."""

    def __init__(self, net: Any, folder: Any) -> None:
        folder.mkdir()
        self.folder = folder
        identity = Identity.generate()
        identity.save(folder / "identity.pem")
        self.address = identity.id.sui_address
        net.fund(self.address)
        self.env = {
            **os.environ,
            "DTP_HOME": str(folder),
            "DTP_NETWORK": net.url,
            "DTP_FAUCET": net.faucet_url,
            "DTP_PACKAGES": str(net.packages),
        }

    def command(self, *arguments: Any) -> Any:
        return [sys.executable, "-P", "-m", "dtp", *map(str, arguments)]

    def _run_to_end(self, *arguments: Any, code: int = 0) -> subprocess.CompletedProcess[bytes]:
        """Run to the end, with nothing to read; it must end with this code."""
        done = subprocess.run(
            self.command(*arguments),
            env=self.env,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PATIENCE,
        )
        assert done.returncode == code, done.stderr.decode()
        return done

    def run(self, *arguments: Any, code: int = 0) -> Any:
        """Run to the end; the lines of JSON that it printed."""
        done = self._run_to_end(*arguments, "--json", code=code)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def failing(self, *arguments: Any, code: Any) -> Any:
        """Run to an end by an error; that error's record."""
        done = self._run_to_end(*arguments, "--json", code=code)
        return json.loads(done.stderr.splitlines()[-1])["error"]

    def said(self, *arguments: Any) -> Any:
        """Run to the end; what it said for people beside its result."""
        done = self._run_to_end(*arguments)
        return done.stderr.decode()

    def text(self, *arguments: Any) -> Any:
        """Run to the end; what it printed for people."""
        done = self._run_to_end(*arguments)
        return done.stdout.decode()

    def serving_says(self, *arguments: Any) -> Any:
        """What `dtp serve`, ended by the end of its input, says beside its addresses."""
        return self._run_to_end("serve", "--json", "--until-eof", *arguments).stderr.decode()

    @contextlib.contextmanager
    def serving(self, *arguments: Any, kill: bool = False) -> Iterator[Any]:
        """`dtp serve`, until the block ends or, with `kill`, is killed there; gives the address, and at the end what
        else it said."""
        process = subprocess.Popen(
            self.command("serve", "--json", "--until-eof", *arguments),
            env=self.env,
            cwd=self.folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        watchdog = threading.Timer(PATIENCE, process.kill)
        watchdog.start()
        said: list[Any] = []
        try:
            line = process.stdout.readline()
            assert line, process.stderr.read().decode()
            yield json.loads(line)["address"], said
            if kill:
                process.kill()
                return
            rest, errors = process.communicate()
            said += [json.loads(line) for line in rest.splitlines()]
            assert process.returncode == 0, errors.decode()
        finally:
            watchdog.cancel()
            process.kill()
            process.communicate()


def site(home: Any, **files: Any) -> Any:
    folder = home.folder / "site"
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


PRICED = ("--price-mib", "0.002SUI", "--price-request", "1000", "--min-deposit", "1000")
PRICES = Prices(1000, 2_000_000)
