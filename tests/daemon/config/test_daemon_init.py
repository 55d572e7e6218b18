"""`dtpd init`: what it asks again, and that what it writes has no mistakes, whatever is uncommented later.

How commands end that find some.
"""

from __future__ import annotations

import errno
import json
import re
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from dtp.carriers.errors import ListenError
from dtp.chain.errors import KeystoreError, NodeUnavailable
from dtp.cli.daemon import DtpdCommands, main
from dtp.cli.output import json_option
from dtp.daemon.config.load import load, load_text
from dtp.daemon.paying.onchain import NoOperator
from dtp.daemon.process.control import UntrustedFolder
from dtp.daemon.process.systemd import ManagerAway
from dtp.daemon.state.errors import StateError
from dtp.errors import ConfigError, DtpError
from dtp.identity import IdentityFileMissing, PassphraseNeeded


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--expose", "web", "--allow", "*"], "--expose takes NAME=HOST:PORT"),
        (["--forward", "127.0.0.1:80"], "--forward takes HOST:PORT=ADDRESS"),
        (["--expose", "web=127.0.0.1:80"], "belong together"),
    ],
)
def test_what_is_given_is_whole(tmp_path: Path, given: list[str], words: str) -> None:
    path = tmp_path / "dtpd.toml"
    done = CliRunner().invoke(main, ["init", "-c", str(path), *given])
    assert done.exit_code == 2
    assert words in done.output
    assert not path.exists()


@pytest.mark.parametrize("kind", ["tcp", "udp", "http", "websocket", "json-rpc", "grpc"])
def test_init_asks(tmp_path: Path, kind: str) -> None:
    """What can't be meant is asked again, who may come has no default, and what is written has no mistakes, also
    with all of its comments made settings."""
    path = tmp_path / "dtpd.toml"
    answers = [
        "y",
        "api",
        "htpp",
        kind,
        "127.0.0.1:99999",
        "127.0.0.1:80",
        "tcp://0.0.0.0:9000",
        "",
        "dtp1x",
        "*",
        "n",
    ]
    done = CliRunner().invoke(main, ["init", "-c", str(path)], input="\n".join(answers) + "\n")
    assert "nobody could use it: name at least one, or answer * for everyone" in done.output
    assert done.exit_code == 0, done.output
    for words in ("did you mean http?", "ports go up to 65535", "too few", "@YOUR-HOST:9000/api"):
        assert words in done.output
    assert load(path).expose[0].kind == kind
    text = path.read_text()
    assert len({line.index(" # ") for line in text.splitlines() if re.match(r"(\w.*|\[.*\]) # ", line)}) == 1
    path.write_text(re.sub(r"^# (?=(\[?[a-z-]+\]?( = |$)))", "", text, flags=re.MULTILINE))
    assert path.read_text() != text
    assert load(path).expose[0].rules != load_text(text, path).expose[0].rules


@pytest.mark.parametrize("answers", ["", "y\napi\n"])
def test_nobody_answers(tmp_path: Path, answers: str) -> None:
    """As in a script: it was the exit code of Ctrl-C, without a word."""
    path = tmp_path / "dtpd.toml"
    done = CliRunner().invoke(main, ["init", "-c", str(path)], input=answers)
    assert done.exit_code == 2
    assert "standard input has ended before all was answered" in done.output
    assert not path.exists()


def test_a_file_that_can_not_be_written(tmp_path: Path) -> None:
    path = tmp_path / f"{'x' * 300}.toml"
    done = CliRunner().invoke(main, ["init", "-c", str(path), "--expose", "web=127.0.0.1:80", "--allow", "*"])
    assert done.exit_code == 3
    assert "can't be written: File name too long" in done.output


@pytest.mark.parametrize(
    ("command", "code", "last"),
    [
        ("check", 3, "dtpd: 1 mistake"),
        ("run", 78, "dtpd: 1 mistake; nothing was started"),
        ("reload", 3, "dtpd: 1 mistake; nothing was changed"),
        ("upgrade", 3, "dtpd: 1 mistake; nothing was changed"),
    ],
)
def test_what_becomes_of_a_file_with_a_mistake(tmp_path: Path, command: str, code: int, last: str) -> None:
    path = tmp_path / "dtpd.toml"
    path.write_text(
        '[identity]\nfile = "me.pem"\ncolour = 1\n[[forward]]\nlisten = "127.0.0.1:1"\nto = "dtp://a/b"\n'
    )
    done = CliRunner().invoke(main, [command, "-c", str(path)])
    assert (done.exit_code, done.stderr.splitlines()[-1]) == (code, last)


class Failing(DtpdCommands):
    """`dtpd` whose commands all end with this error."""

    def __init__(self, error: DtpError) -> None:
        super().__init__("dtpd")
        self.error = error

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        @click.command(cmd_name)
        @json_option
        def command() -> None:
            raise self.error

        return command


def listening(number: int) -> ListenError:
    error = ListenError("tcp://0.0.0.0:443")
    error.__cause__ = OSError(number, "")
    return error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("pip install 'dtp-sockets[state-redis]'"), 78),
        (IdentityFileMissing("me.pem"), 78),
        (PassphraseNeeded("me.pem"), 78),
        (KeystoreError("wallet.pem"), 78),
        (UntrustedFolder("/tmp/x"), 78),
        (listening(errno.EACCES), 78),
        (listening(errno.EROFS), 78),
        (listening(errno.EADDRINUSE), 3),
        (listening(errno.EADDRNOTAVAIL), 3),
        (StateError("redis://x"), 5),
        (NodeUnavailable("x"), 5),
        (NoOperator("x"), 3),
        (ManagerAway("x"), 3),
    ],
    ids=lambda value: str(value)[:30],
)
@pytest.mark.parametrize("command", ["run", "check"])
def test_what_is_not_worth_another_start(command: str, error: DtpError, code: int) -> None:
    """The unit starts it again unless it ends with 78: so it does for what only a person mends, and nothing else."""
    done = CliRunner().invoke(Failing(error), [command, "--json"])
    code = {78: 3}.get(code, code) if command == "check" else code
    assert done.exit_code == json.loads(done.stderr)["error"]["exit_code"] == code
