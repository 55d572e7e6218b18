"""Command lines that are wrong, and the pieces that commands are made of."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from dtp.cli import COMMANDS, daemon, main, output
from dtp.cli.demo import parse_size
from dtp.cli.durations import duration
from dtp.cli.mailbox_room import room_options
from dtp.cli.options import identity_options, read_psk_file
from dtp.cli.paying import payment_options
from dtp.cli.progress import ProgressMeter, size_text, speed_text
from dtp.cli.selling import selling_options
from dtp.cli.services import EchoService, ExecService, FileService, ForwardService, ServiceDirectory, make
from dtp.cli.shows_money import chain_options
from dtp.cli.stamps import stamp_options
from dtp.errors import ConfigError
from dtp.files import FileInfo, Progress
from dtp.identity import Identity
from dtp.identity.private import OpenToOthers
from dtp.session.codes import CloseCode, ConnectionClosed, ConnectionLost

ME = Identity(b"m" * 32, b"n" * 32).id


def run(*arguments, code):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["serve"], 2, "nothing to serve"),
        (["serve", "--forward", "nowhere"], 2, "HOST:PORT or unix:/PATH is needed"),
        (["serve", "--forward", "host:0"], 2, "HOST:PORT"),
        (["serve", "--forward", "host:70000"], 2, "HOST:PORT"),
        (["serve", "--exec", "'"], 2, "No closing quotation"),
        (["serve", "--exec", ""], 2, "needs a program"),
        (["serve", "--exec", "/no/such/program -x"], 2, "there is no program /no/such/program"),
        (["serve", "--exec", "a=date", "--exec", "a=ls"], 2, "two services have one name"),
        (["serve", "--file", "/no/such/folder"], 2, "there is no /no/such/folder"),
        (["serve", "--echo", "--allow", "dtp1"], 3, "dtp1"),
        (["serve", "--echo", "--listen", "nowhere"], 3, "no carrier is called"),
        (["serve", "--echo", "--listen", "127.0.0.1:9000"], 3, "did you mean tcp://127.0.0.1:9000?"),
        (["serve", "--echo", "--listen", "tcp://127.0.0.1"], 3, "a port is missing"),
        (["serve", "--echo", "--listen", "tcp://192.0.2.1:0"], 3, "192.0.2.1"),
        (["serve", "--echo", "--psk-file", "/no/such/key"], 3, "can't read the key file"),
        (["serve", "--echo", "--identity", "/no/such/identity"], 3, "/no/such/identity"),
        (["serve", "--echo", "stray"], 2, "unexpected extra argument"),
        (["cat"], 2, "Missing argument 'ADDRESS'"),
        (["cat", "tcp://x:1"], 3, "did you mean dtp+tcp"),
        (["cat", f"dtp+tcp://{ME}@h"], 3, "port"),
        (["cat", "dtp://nobody-i-know"], 3, "nobody-i-know"),
        (["ping", "-c", "-1", f"dtp://{ME}"], 2, "not in the range"),
        (["ping", f"dtp://{ME}"], 3, "peers.toml"),
        (["send", f"dtp://{ME}"], 2, "say where to: an ADDRESS, --words or --to"),
        (["send", "/no/such/file", f"dtp://{ME}"], 3, "there is no file /no/such/file"),
        (["send", "/", f"dtp://{ME}", "--name", "root"], 3, "/ is a folder, not a file"),
        (
            ["send", "/etc/hosts", f"dtp://{ME}", "--name", "a/b"],
            3,
            "has a slash; a plain name is needed; give",
        ),
        (["recv", "--listen", "tcp://127.0.0.1:0", f"dtp://{ME}/x"], 2, "nobody is waited for"),
        (["recv", "--keep", f"dtp://{ME}/x"], 2, "nobody is waited for"),
        (["recv", "--output", "/no/such/folder/x"], 2, "there is no folder"),
        (["recv", "--output", "nowhere/"], 2, "there is no folder"),
        (["demo", "--size", "much"], 2, "write 100000, 64M or 1G"),
        (["demo", "--file", "/no/such/file"], 2, "does not exist"),
        (["demo", "--carrier", "pigeon"], 2, "'tcp', 'unix', 'ws'"),
    ],
)
def test_wrong_command_lines_say_what_is_wrong(home, arguments, code, words):
    assert words in run(*arguments, code=code)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_help_says_it_all(name):
    command = main.get_command(None, name)
    groups = [(f"{name} {below}", command.commands[below]) for below in getattr(command, "commands", ())]
    for words, one in groups or [(name, command)]:
        shown = CliRunner().invoke(main, [*words.split(), "--help"])
        assert shown.exit_code == 0
        assert max(map(len, shown.output.splitlines())) <= 100
        for parameter in one.params:
            if isinstance(parameter, click.Option) and not parameter.hidden:
                assert parameter.help, f"{words}: {parameter.name}"


@pytest.mark.parametrize("name", ["cat", "demo", "id", "keygen", "ping", "recv", "send", "serve"])
def test_commands_speak_json(name):
    assert "--json" in CliRunner().invoke(main, [name, "--help"]).output


def test_errors_for_programs(home):
    error = json.loads(run("cat", "--json", "tcp://x:1", code=3))["error"]
    assert (error["code"], error["exit_code"]) == ("address", 3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["serve", "--json"], "nothing to serve"),
        (["cat", "--json"], "Missing argument 'ADDRESS'"),
        (["id", "--json", "--nothing"], "--nothing"),
        (["nothing", "--json"], "nothing"),
    ],
)
def test_wrong_command_lines_for_programs(home, arguments, words):
    error = json.loads(run(*arguments, code=2))["error"]
    assert (error["code"], error["exit_code"]) == ("usage", 2)
    assert words in error["message"]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConnectionClosed(CloseCode.SHUTDOWN, "", by_peer=True), 5),
        (ConnectionClosed(CloseCode.PROTOCOL, "", by_peer=True), 4),
        (ConnectionClosed(12, "", by_peer=True, application=True), 4),
        (ConnectionLost("x"), 5),
    ],
)
def test_the_exit_code_of_a_connection_that_ended(error, code):
    assert output.exit_code(error) == code


# --- Services.


@pytest.mark.parametrize(
    ("kind", "text", "expected", "name", "value"),
    [
        ("echo", "echo=", EchoService, "echo", ""),
        ("file", "/", FileService, "files", "/"),
        ("file", "root=/", FileService, "root", "/"),
        ("exec", "date", ExecService, "exec", "date"),
        ("exec", "d/t=date -u", ExecService, "d/t", "date -u"),
        ("exec", "env A=b date", ExecService, "exec", "env A=b date"),
        ("exec", "./a=b", ExecService, "exec", "./a=b"),
        ("forward", "127.0.0.1:80", ForwardService, "forward", "127.0.0.1:80"),
        ("forward", "web=[::1]:80", ForwardService, "web", "[::1]:80"),
        ("forward", "u=unix:/run/a=b", ForwardService, "u", "unix:/run/a=b"),
    ],
)
def test_what_a_service_option_means(kind, text, expected, name, value):
    service = make(kind, text)
    assert (type(service), service.name, service.value) == (expected, name, value)


def test_finding_a_service():
    echo, files, deep = make("echo", "echo="), make("file", "files=/"), make("exec", "files/run=date")
    directory = ServiceDirectory([echo, files, deep])
    assert directory.find_service("") == (echo, "")
    assert directory.find_service("echo") == (echo, "")
    assert directory.find_service("echo/x") is None  # an echo has nothing below it
    assert directory.find_service("files") == (files, "")
    assert directory.find_service("files/a/b") == (files, "a/b")
    assert directory.find_service("files/run") == (deep, "")
    assert directory.find_service("filesystem") is None


# --- Pre-shared keys.


@pytest.mark.parametrize("text", ["", "00", "zz" * 32, "11" * 33, "1" * 63])
def test_what_is_no_key(tmp_path, text):
    (tmp_path / "k").write_text(text)
    (tmp_path / "k").chmod(0o600)
    with pytest.raises(ConfigError, match="64 hex digits"):
        read_psk_file(str(tmp_path / "k"))


def test_a_key_that_others_may_read(tmp_path):
    (tmp_path / "k").write_text("11" * 32)
    (tmp_path / "k").chmod(0o644)
    with pytest.raises(OpenToOthers, match="chmod 600"):
        read_psk_file(str(tmp_path / "k"))
    (tmp_path / "k").chmod(0o400)
    assert read_psk_file(str(tmp_path / "k")) == b"\x11" * 32


# --- Numbers.


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("100", 100),
        ("1k", 1024),
        ("64M", 64 << 20),
        ("2GiB", 2 << 30),
        ("3 MB", 3 << 20),
        ("1T", 1 << 40),
    ],
)
def test_sizes(text, size):
    assert parse_size(None, None, text) == size


@pytest.mark.parametrize("text", ["", "-1", "1.5M", "M", "1X", "1e9"])
def test_what_is_no_size(text):
    with pytest.raises(click.BadParameter):
        parse_size(None, None, text)


@given(st.integers(0, 2**60))
def test_numbers_for_people_are_short(number):
    assert len(size_text(number)) <= 20
    assert len(speed_text(number)) <= 20
    assert size_text(1023) == "1023 bytes"
    assert size_text(1536) == "1.5 KiB"
    assert speed_text(750e6) == "750 MB/s"
    assert speed_text(1.25e9) == "1.25 GB/s"


def test_the_meter_counts_what_moved():
    times = iter([10.0, 11.0, 12.0, 14.0])
    file = FileInfo("f", 100, 0)
    meter = ProgressMeter("sending", bar=False, clock=lambda: next(times))
    with click.Context(click.Command("x")):
        for phase, done in (("check", 40), ("move", 40), ("move", 100)):
            meter(Progress(phase, file, done, 40 if phase == "move" else 0))
        meter.finish()
    assert meter.moved == 60
    assert meter.seconds == 3.0
    assert meter.speed == 20.0
    meter.restart_timing()
    assert meter.speed == 0.0


def test_nothing_of_a_peer_drives_the_terminal_in_json(capsys):
    context = click.Context(click.Command("x"))
    context.meta[output._JSON] = True
    with context:
        output.print_line({"event": "x", "name": "\x1b[2J"}, None)
    assert capsys.readouterr().out == '{"event": "x", "name": "\\u001b[2J"}\n'


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("8", 8),
        ("8s", 8),
        ("0.5", 0.5),
        (".5s", 0.5),
        ("500ms", 0.5),
        ("5m", 300),
        ("2h", 7200),
        ("7d", 604_800),
    ],
)
def test_times_have_a_unit_or_are_seconds(text: str, seconds: float) -> None:
    assert duration()(text) == pytest.approx(seconds)
    assert duration(unit="d")(text) == pytest.approx(seconds / 86_400 if text[-1] in "smhd" else float(text))


@pytest.mark.parametrize("text", ["", "s", "8x", "8 s", "-1", "-1s", "1e3", "inf", "nan", "8S", "8s9"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not a time"):
        duration()(text)


def test_times_are_within_bounds_and_whole_where_they_have_to_be() -> None:
    whole = duration(10, 60, whole=True)
    assert (whole("10"), whole("1m"), type(whole("12s"))) == (10, 60, int)
    for wrong in ("9", "61s", "2m", "10.5"):
        with pytest.raises(click.BadParameter):
            whole(wrong)


def test_all_commands_take_times_alike() -> None:
    """'--wait 8s' was refused by some, and '--longest-lock 8' by another."""

    def options(command: click.Command) -> Iterator[click.Parameter]:
        yield from command.params
        if isinstance(command, click.Group):
            context = click.Context(command)
            for name in command.list_commands(context):
                found = command.get_command(context, name)
                assert found is not None
                yield from options(found)

    found = [each for top in (main, daemon.main) for each in options(top)]
    assert len(found) > 500
    assert [
        each.name for each in found if isinstance(each.type, click.FloatRange | click.types.FloatParamType)
    ] == []
    assert [each.name for each in found if each.metavar in ("SECONDS", "DAYS", "MINUTES")] == []
    times = {each.name for each in found if each.type.name == "time"}
    assert times >= {"wait", "patience", "interval", "ttl", "disappear", "longest_lock", "every", "give_up"}


@pytest.mark.parametrize(
    "decorate", [chain_options, payment_options, room_options, selling_options, stamp_options]
)
def test_the_wallet_is_that_of_the_identity_where_none_is_named(tmp_path: Path, decorate: Any) -> None:
    """With -i it was that of the default identity, which may not be there."""
    me, other = Identity.generate(), Identity.generate()
    me.save(tmp_path / "me.pem", b"secret")
    other.save(tmp_path / "other.pem")
    (tmp_path / "passphrase").write_text("secret\n")
    who = ["-i", str(tmp_path / "me.pem"), "--passphrase-file", str(tmp_path / "passphrase")]
    signers = []

    def command(identity: Any, **options: Any) -> None:
        (told,) = (
            each for each in options.values() if hasattr(each, "account") or hasattr(each, "load_signer")
        )
        signers.append(getattr(told, "account", told).load_signer().address)

    made = click.command()(decorate(identity_options("--identity", "-i")(command)))
    for words in (who, [*who, "--wallet", str(tmp_path / "other.pem")]):
        done = CliRunner().invoke(made, words, env={"DTP_HOME": str(tmp_path)}, catch_exceptions=False)
        assert done.exit_code == 0, done.output
    assert signers == [me.id.sui_address, other.id.sui_address]
