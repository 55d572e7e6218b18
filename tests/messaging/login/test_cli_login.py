"""`dtp login`, each command in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dtp import Identity

#: Seconds for anything that has to happen; only a failing test waits so long.
PATIENCE = 120
pytestmark = pytest.mark.slow


def environment(home: Path) -> dict[str, str]:
    home.mkdir(exist_ok=True)
    return {**os.environ, "DTP_HOME": str(home)}


def call(home: Path, *arguments: str, code: int = 0, say: str = "") -> dict[str, Any]:
    """Return what a command has printed as JSON; of one that fails, the error."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "dtp", "login", *arguments, "--json"],
        env=environment(home),
        input=say.encode(),
        capture_output=True,
        timeout=PATIENCE,
    )
    assert done.returncode == code, done.stderr.decode()
    found: dict[str, Any] = json.loads((done.stderr if code else done.stdout).splitlines()[-1])
    return found


@contextmanager
def served(home: Path, *options: str) -> Iterator[str]:
    command = ["login", "serve", "--json", "--until-eof", "--listen", "tcp://127.0.0.1:0", *options]
    keygen = [sys.executable, "-P", "-m", "dtp", "keygen", "-i", str(home / "server.pem")]
    subprocess.run(keygen, env=environment(home), check=True, capture_output=True, timeout=PATIENCE)
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "dtp", *command, "-i", keygen[-1]],
        env=environment(home),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            yield json.loads(process.stdout.readline())["address"]
        finally:
            process.stdin.close()
            assert process.wait(PATIENCE) == 0


def test_an_account_at_the_command_line(tmp_path: Path) -> None:
    laptop, phone = tmp_path / "laptop", tmp_path / "phone"
    with served(tmp_path / "box") as address:
        who = (address, "Alice", "--password-file")
        made = call(laptop, "register", *who, "-", "--save", str(tmp_path / "a.pem"), say="correct horse\n")
        assert Identity.load(tmp_path / "a.pem").id == Identity.load(tmp_path / "a.pem").id
        assert made["identity"] == str(Identity.load(tmp_path / "a.pem").id)
        assert made["name"] == "alice"
        opened = call(phone, "open", *who, "-", say="correct horse\n")
        assert opened["identity"] == made["identity"]
        assert "recovery_code" not in opened
        assert call(phone, "open", *who, "-", say="wrong horse\n", code=3)["error"]["code"] == "login-failed"
        assert (
            call(phone, "register", *who, "-", say="another one\n", code=4)["error"]["code"]
            == "login-refused"
        )
        refused = call(
            phone, "open", *who, "-", "--save", str(tmp_path / "a.pem"), say="correct horse\n", code=3
        )
        assert refused["error"]["code"] == "local"
        (tmp_path / "old").write_text("correct horse\n")
        (tmp_path / "new").write_text("new password\n")
        (tmp_path / "code").write_text(made["recovery_code"] + "\n")
        for file in ("old", "new", "code"):
            (tmp_path / file).chmod(0o600)
        call(
            phone,
            "change-password",
            *who,
            str(tmp_path / "old"),
            "--new-password-file",
            str(tmp_path / "new"),
        )
        assert call(laptop, "open", *who, str(tmp_path / "old"), code=3)["error"]["code"] == "login-failed"
        code = ("--code-file", str(tmp_path / "code"))
        recovered = call(laptop, "recover", *who, "-", *code, say="third password\n")
        assert recovered["identity"] == made["identity"]
        assert recovered["recovery_code"] != made["recovery_code"]
        account = str(tmp_path / "account.pem")
        create = ["account", "create", "--key", account, "--recovery", str(tmp_path / "recovery.pem")]
        python = [sys.executable, "-P", "-m", "dtp"]
        subprocess.run(
            [*python, *create], env=environment(laptop), check=True, capture_output=True, timeout=PATIENCE
        )
        card = (address, "carol", "--password-file", "-")
        made = call(laptop, "register", *card, "--key", account, say="correct horse\n")
        assert made["identity"] == str(Identity.load(account).id)
        assert made["settings"]["card"].endswith("bytes")
        call(phone, "open", *card, "--save", str(tmp_path / "again.pem"), say="correct horse\n")
        show = [*python, "account", "show", "--json", "--key"]
        shown = [
            subprocess.run(
                [*show, each], env=environment(phone), check=True, capture_output=True, timeout=PATIENCE
            )
            for each in (account, str(tmp_path / "again.pem"))
        ]
        assert json.loads(shown[0].stdout)["account"] == json.loads(shown[1].stdout)["account"]
    with served(tmp_path / "box2", "--registration", "invited") as address:
        who = (address, "bob", "--password-file", "-")
        assert call(phone, "register", *who, say="password\n", code=4)["error"]["code"] == "login-refused"
        invited = call(tmp_path / "box2", "invite", "--name", "bob")["invitation"]
        assert call(phone, "register", *who, "--invitation", invited, say="password\n")["name"] == "bob"
