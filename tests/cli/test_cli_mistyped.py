"""Command lines as people write them: mistyped names, completion, one name for one option, exit codes."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from dtp import Identity
from dtp.chain.node.networks import LOCALNET_PORT
from dtp.cli import daemon, daemon_files, main

ROOT = Path(__file__).parents[2]
PEER = str(Identity(bytes([1]) * 32).id)


@pytest.mark.parametrize(
    ("program", "words", "meant"),
    [
        (main, "serv", "Did you mean 'serve'"),
        (main, "keygn", "Did you mean 'keygen'?"),
        (main, "host shw", "Did you mean 'show'?"),
        (main, "graph lnk", "Did you mean 'link'?"),
        (main, "serve --ech", "'--echo'"),
        (daemon.main, "statu", "Did you mean 'status'"),
        (daemon.main, "run --confi x", "--config"),
    ],
)
def test_what_is_mistyped_is_answered_with_what_is_like_it(
    program: click.Group, words: str, meant: str
) -> None:
    done = CliRunner().invoke(program, words.split())
    assert (done.exit_code, meant in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize("order", [1, -1])
def test_a_show_of_the_chain_beside_an_address_is_answered_with_the_option_for_it(order: int) -> None:
    both = [f"dtp+tcp://{PEER}@127.0.0.1:9/show", "0x" + "5" * 64]
    done = CliRunner().invoke(main, ["show", "listen", *both[::order]])
    assert (done.exit_code, "--show 0x555" in done.stderr) == (2, True), done.stderr


def test_nothing_is_guessed_for_what_is_like_nothing() -> None:
    done = CliRunner().invoke(main, ["zzzz"])
    assert (done.exit_code, "Did you mean" in done.stderr) == (2, False)


@pytest.mark.parametrize(
    ("program", "words", "found"),
    [
        ("dtp", ["se"], ["send", "serve"]),
        ("dtp", ["host", "sho"], ["show"]),
        ("dtp", ["demo", "--car"], ["--carrier"]),
        ("dtp", ["demo", "--carrier", ""], ["tcp", "unix", "ws"]),
        ("dtpd", ["re"], ["reload"]),
    ],
)
def test_completion(program: str, words: list[str], found: list[str]) -> None:
    """As the shell asks, by the variables that the guide names."""
    guide = (ROOT / "docs" / "guide.md").read_text()
    variable = f"_{program.upper()}_COMPLETE"
    assert variable in guide
    for shell in ("bash", "zsh", "fish"):
        assert f"_DTP_COMPLETE={shell}_source dtp" in guide
    module = {"dtp": "dtp.cli", "dtpd": "dtp.cli.daemon"}[program]
    done = subprocess.run(
        [sys.executable, "-P", "-c", f"from {module} import main; main(prog_name='{program}')"],
        env={
            **os.environ,
            variable: "bash_complete",
            "COMP_WORDS": " ".join([program, *words]),
            "COMP_CWORD": str(len(words)),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert [line.partition(",")[2] for line in done.stdout.splitlines()] == found
    assert done.stderr == ""


def test_zsh_takes_the_line_of_the_guide(tmp_path: Path) -> None:
    """Where nothing has begun completion it said: command not found: compdef."""
    zsh = shutil.which("zsh")
    if zsh is None:
        pytest.skip("zsh isn't installed")
    guide = (ROOT / "docs" / "guide.md").read_text()
    (line,) = re.findall(r"^\$ echo '(.*)' >> ~/\.zshrc$", guide, re.MULTILINE)
    (tmp_path / ".zshrc").write_text(f"{line}\n")
    done = subprocess.run(
        [zsh, "-ic", 'print -r -- "<$_comps[dtp]>"'],
        env={**os.environ, "HOME": str(tmp_path), "ZDOTDIR": str(tmp_path), "ZSH_DISABLE_COMPFIX": "true",
             "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )  # fmt: skip
    assert "<_dtp_completion>" in done.stdout
    assert "not found" not in done.stderr


def every_command(command: click.Command, name: str) -> list[tuple[str, click.Command]]:
    if not isinstance(command, click.Group):
        return [(name, command)]
    context = click.Context(command)
    found: list[tuple[str, click.Command]] = []
    for each in command.list_commands(context):
        below = command.get_command(context, each)
        assert below is not None
        found += every_command(below, f"{name} {each}")
    return found


def test_one_thing_has_one_option() -> None:
    """The identity is `--identity` and `-i`, a host `--host`, the daemon's file `--config` and `-c`, everywhere."""
    commands = [*every_command(main, "dtp"), *every_command(daemon.main, "dtpd")]
    assert len(commands) > 60
    short: dict[str, set[tuple[str, ...]]] = {}
    for name, command in commands:
        for option in command.params:
            if isinstance(option, click.Option):
                names = set(option.opts)
                if "identity" in (option.name or "") or (names & {"-i", "--identity"}):
                    assert {"-i", "--identity"} <= names, name
                if option.name == "host_id":
                    assert "--host" in names, name
            elif option.name == "host_id":
                pytest.fail(f"{name} takes the host as an argument")
            for letter in (each for each in option.opts if re.fullmatch("-[a-z]", each)):
                short.setdefault(letter, set()).add(tuple(sorted(set(option.opts) - {letter})))
    for letter in ("-i", "-o", "-v", "-q"):
        assert len(short.get(letter, {()})) == 1, (letter, short[letter])


# ---- dtpd: one order of places ---------------------------------------------------------------------------


def test_the_places_of_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`init` writes where `check` and all others look next."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DTPD_CONFIG", raising=False)
    monkeypatch.setattr(daemon_files, "SYSTEM_FILE", tmp_path / "system" / "dtpd.toml")
    given = ["--expose", "web=127.0.0.1:80", "--allow", "*"]
    missing = CliRunner().invoke(daemon.main, ["check"])
    assert (missing.exit_code, "system/dtpd.toml" in missing.stderr) == (3, True)
    assert CliRunner().invoke(daemon.main, ["init", *given]).exit_code == 0
    assert "dtpd.toml: no mistakes" in CliRunner().invoke(daemon.main, ["check"]).stdout
    monkeypatch.setenv("DTPD_CONFIG", str(tmp_path / "named.toml"))
    missing = CliRunner().invoke(daemon.main, ["check"])
    assert (missing.exit_code, "named.toml" in missing.stderr) == (3, True)
    assert CliRunner().invoke(daemon.main, ["init", *given]).exit_code == 0
    assert "named.toml: no mistakes" in CliRunner().invoke(daemon.main, ["check"]).stdout
    here = CliRunner().invoke(daemon.main, ["check", "-c", "dtpd.toml"])
    assert here.stdout.startswith("dtpd.toml: no mistakes")


def test_a_file_of_somebody_else_is_not_done_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DTPD_CONFIG", raising=False)
    (tmp_path / "dtpd.toml").write_text("")
    monkeypatch.setattr(os, "geteuid", lambda: os.stat(tmp_path).st_uid + 1)
    if os.stat(tmp_path).st_uid == 0:
        os.chown(tmp_path / "dtpd.toml", 12345, -1)
    done = CliRunner().invoke(daemon.main, ["check"])
    assert (done.exit_code, "another user's" in done.stderr) == (3, True)


def test_what_dtpd_writes_leaves_the_ports_of_localnet_alone(tmp_path: Path) -> None:
    path = tmp_path / "dtpd.toml"
    words = ["init", "-c", str(path), "--expose", "web=127.0.0.1:80", "--allow", "*"]
    assert CliRunner().invoke(daemon.main, words).exit_code == 0
    for text in (path.read_text(), (ROOT / "packaging" / "dtpd.toml").read_text()):
        (port,) = re.findall(r'^listen = \["tcp://0\.0\.0\.0:(\d+)"\]', text, re.MULTILINE)
        assert int(port) not in (LOCALNET_PORT, 9123)


# ---- exit codes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["ban", "unban"])
@pytest.mark.parametrize("caller", ["foo", "*", "dtp1x", "0x12"])
def test_a_caller_that_cannot_be_meant_is_a_wrong_command_line(
    tmp_path: Path, command: str, caller: str
) -> None:
    words = [command, "-c", str(tmp_path / "dtpd.toml"), caller]
    assert CliRunner().invoke(daemon.main, words).exit_code == 2
    told = CliRunner().invoke(daemon.main, [words[0], "--json", *words[1:]])
    assert (told.exit_code, '"exit_code": 2' in told.stderr) == (2, True)


@pytest.mark.parametrize("count", [0, 65])
def test_a_show_posts_no_more_slots_at_once_than_the_chain_takes(count: int) -> None:
    """Else the chain would refuse it, at the price of a transaction."""
    words = ["show", "create", "--rate", "1SUI/min", "--batch", str(count)]
    done = CliRunner().invoke(main, words)
    assert (done.exit_code, "is not in the range 1<=x<=64" in done.stderr) == (2, True), done.stderr


def test_a_port_that_is_taken_is_something_here_everywhere() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        serve = CliRunner().invoke(main, ["serve", "--echo", "--listen", f"tcp://127.0.0.1:{port}"])
        local = CliRunner().invoke(main, ["localnet", "--port", str(port), "--faucet-port", "0"])
    assert (serve.exit_code, local.exit_code) == (3, 3), serve.stderr + local.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["message", "card", "--name", "a\udcff", "--mailbox", f"dtp+tcp://{PEER}@127.0.0.1:1/dtp.mailbox"],
        ["message", "send", "alice", "a\udcff"],
        ["account", "create", "--recovery", "r.pem", f"{PEER}=a\udcff"],
    ],
)
def test_bytes_of_a_command_line_that_are_no_text_are_named(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As another encoding than the terminal's has them. Names of files may have any."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DTP_HOME", str(tmp_path))
    monkeypatch.setenv("DTP_MESSAGES", str(tmp_path / "messages.sqlite"))
    assert CliRunner().invoke(main, ["keygen"]).exit_code == 0
    for option in ([], ["--json"]):
        done = CliRunner().invoke(main, [*words, *option])
        assert (done.exit_code, "isn't text: it has bytes that aren't UTF-8" in done.stderr) == (2, True), (
            done.output
        )


def test_nobody_has_a_name_that_is_no_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DTP_HOME", str(tmp_path))
    assert CliRunner().invoke(main, ["keygen"]).exit_code == 0
    done = CliRunner().invoke(main, ["message", "history", "a\udcff"])
    assert (done.exit_code, done.stderr) == (
        3,
        "dtp: nobody of this name is known here: 'a\\udcff'; add their card first\n",
    )


def test_the_exit_codes_of_dtpd_are_those_of_its_page() -> None:
    page = (ROOT / "docs" / "daemon.md").read_text().partition("## Exit codes")[2].partition("\n## ")[0]
    said = {
        int(code) for row in re.findall(r"^\| ([\d, ]+) \|", page, re.MULTILINE) for code in row.split(",")
    }
    assert said == set(daemon.EXIT_CODES)
    shown = CliRunner().invoke(daemon.main, ["--help"]).stdout
    assert all(re.search(rf"^  {code} ", shown, re.MULTILINE) for code in daemon.EXIT_CODES)


@pytest.mark.parametrize("words", [["--only", "nosuch"], ["--quick", "--only", "dial"]])
def test_the_benchmark_measures_something_or_says_why_not(words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench", *words],
        cwd=ROOT,
        env={**os.environ, "PYTHONSAFEPATH": "", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    assert words[-1] in done.stderr


def test_a_device_of_an_account_has_its_label_in_one_form_everywhere(tmp_path: Path) -> None:
    key, away = str(tmp_path / "account.pem"), str(tmp_path / "away.pem")

    def change(*arguments: str) -> list[str]:
        done = CliRunner().invoke(main, ["account", *arguments, "--key", key, "--json"])
        assert done.exit_code == 0, done.stderr
        return [each["label"] for each in json.loads(done.stdout)["devices"]]

    assert change("create", "--recovery", away, f"{PEER}=laptop") == ["laptop"]
    assert change("add", f"{PEER}=desk") == ["desk"]
    assert change("add", PEER, "shelf") == ["shelf"]
    done = CliRunner().invoke(main, ["account", "add", f"{PEER}=desk", "shelf", "--key", key])
    assert (done.exit_code, "'desk' and 'shelf'" in done.stderr) == (2, True), done.stderr
