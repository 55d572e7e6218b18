"""The `dtp` command itself, and `keygen` and `id`: exit codes, output for programs, and no identity lost."""

import importlib
import json
import os
import pty
import shutil
import stat
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

import dtp
from dtp.cli import COMMANDS, DtpCommands, main, output
from dtp.errors import CarrierError, ChainError, DtpError, LimitError, PeerError
from dtp.identity import Identity, PeerId

SUI_KEY = "suiprivkey1qzwant3kaegmjy4qxex93s0jzvemekkjmyv3r2sjwgnv2y479pgsywhveae"
SUI_ADDRESS = "0x90f3e6d73b5730f16974f4df1d3441394ebae62186baf83608599f226455afa7"


@pytest.fixture
def home(tmp_path, monkeypatch):
    for variable in ("DTP_IDENTITY", "DTP_PEERS", "DTP_PASSPHRASE_FILE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("DTP_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


class Failing(DtpCommands):
    """`dtp` whose commands all end with this error."""

    def __init__(self, error):
        super().__init__("dtp")
        self.error = error

    def get_command(self, ctx, cmd_name):
        @click.command(cmd_name)
        @output.json_option
        def command():
            raise self.error

        return command


def run(*arguments, code=0, stdin=None, program=main):
    result = CliRunner().invoke(program, [str(argument) for argument in arguments], input=stdin)
    assert result.exit_code == code, result.output
    return result


# --- The command.


def test_the_table_of_commands():
    for name, row in COMMANDS.items():
        module, _, attribute = row.target.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        assert command.name == name
        assert row.summary in run("--help").output


def test_help_imports_no_command():
    script = (
        "import sys; from dtp.cli import main\n"
        "try: main(['--help'])\n"
        "finally: print(sorted(sys.modules), file=sys.stderr)"
    )
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "Exit codes:" in loaded.stdout
    for heavy in ("dtp.cli.keys", "nacl", "cryptography", "asyncio", "rich", "dtp.net"):
        assert f"'{heavy}'" not in loaded.stderr


def test_version():
    assert run("--version").output.startswith(f"dtp {dtp.__version__} (Python 3.")


def test_wrong_command_lines(home):
    run("nothing", code=2)
    run("id", "--nothing", code=2)
    run("id", "extra", code=2)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (LimitError("x"), 3),
        (PeerError("x"), 4),
        (CarrierError("x"), 5),
        (ChainError("x"), 6),
        (DtpError("x"), 1),
    ],
)
def test_the_exit_code_says_whose_fault_it_is(error, code):
    assert run("id", code=code, program=Failing(error)).stderr == "dtp: x\n"
    report = json.loads(run("id", "--json", code=code, program=Failing(error)).stderr)
    assert report == {"error": {"code": error.code, "message": "x", "exit_code": code}}
    assert code in output.EXIT_CODES


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, click.Abort])
def test_an_interrupt_ends_with_130(interruption):
    run("id", code=130, program=Failing(interruption))


def test_a_bug_is_not_hidden():
    with pytest.raises(ZeroDivisionError):
        CliRunner().invoke(Failing(ZeroDivisionError()), ["id"], catch_exceptions=False)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é 日", "plain é 日"),
        ("a\x1b[31mb", "a\\x1b[31mb"),
        ("a\u202eb", "a\\u202eb"),
        ("a\r\nb", "a\\r\nb"),
    ],
)
def test_what_a_peer_says_does_not_drive_the_terminal(text, shown):
    assert output.printable(text) == shown


# --- keygen and id.


def test_make_and_show(home):
    made = json.loads(run("keygen", "--json").output)
    path = home / "identity.pem"
    assert made["file"] == str(path)
    assert made["encrypted"] is False
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    peer = PeerId.parse(made["id"])
    assert made["sui_address"] == peer.sui_address
    shown = json.loads(run("id", "--json").output)
    assert shown == {**{k: v for k, v in made.items() if k != "encrypted"}, "static_key_stored": True}
    assert bytes.fromhex(shown["static_key"]) == Identity.load(path).static_public
    assert run("id", "-q").output == f"{peer}\n"
    text = run("id").output
    assert f"id                 {peer}\n" in text
    assert "static key stored  yes\n" in text
    for secret in (Identity.load(path).seed, Identity.load(path).static_private):
        assert secret.hex() not in text


def test_the_file_by_option_and_by_variable(home, tmp_path, monkeypatch):
    run("keygen", "--identity", tmp_path / "a.pem")
    monkeypatch.setenv("DTP_IDENTITY", str(tmp_path / "b.pem"))
    run("keygen")
    assert run("id", "-q").output == run("id", "-q", "--identity", tmp_path / "b.pem").output
    assert run("id", "-q").output != run("id", "-q", "--identity", tmp_path / "a.pem").output
    assert not home.exists()


def test_an_identity_is_not_replaced_by_accident_nor_lost_by_force(home):
    run("keygen")
    first = (home / "identity.pem").read_bytes()
    assert "exists" in run("keygen", code=3).stderr
    assert (home / "identity.pem").read_bytes() == first
    kept = [json.loads(run("keygen", "--force", "--json").output)["old_file"] for _ in range(2)]
    assert kept == [str(home / "identity.pem.old1"), str(home / "identity.pem.old2")]
    assert (home / "identity.pem.old1").read_bytes() == first
    assert stat.S_IMODE((home / "identity.pem.old1").stat().st_mode) == 0o600
    assert sorted(os.listdir(home)) == ["identity.pem", "identity.pem.old1", "identity.pem.old2"]


def test_no_identity_yet(home):
    assert "'dtp keygen --identity " in run("id", code=3).stderr


@pytest.mark.slow
def test_an_encrypted_identity(home, tmp_path, monkeypatch):
    (tmp_path / "pw").write_text("correct horse\nanother line\n")
    made = json.loads(run("keygen", "--passphrase-file", tmp_path / "pw", "--json").output)
    assert made["encrypted"] is True
    assert Identity.load(home / "identity.pem", "correct horse").id == PeerId.parse(made["id"])
    assert run("id", "-q", "--passphrase-file", tmp_path / "pw").output == made["id"] + "\n"
    assert run("id", "-q", "--passphrase-file", "-", stdin="correct horse\r\n").output == made["id"] + "\n"
    assert "does not open" in run("id", "--passphrase-file", "-", stdin="wrong\n", code=3).stderr
    assert "no terminal to ask at" in run("id", code=3).stderr
    monkeypatch.setenv("DTP_PASSPHRASE_FILE", str(tmp_path / "pw"))
    assert run("id", "-q").output == made["id"] + "\n"


def test_a_passphrase_file_that_can_not_be_used(home, tmp_path):
    (tmp_path / "empty").write_text("\nsecond\n")
    (tmp_path / "long").write_text("x" * 5000)
    for name, reason in (("empty", "is empty"), ("long", "longer than 4096"), ("none", "No such file")):
        assert reason in run("keygen", "--passphrase-file", tmp_path / name, code=3).stderr
    assert not (home / "identity.pem").exists()


def test_without_a_terminal_nobody_can_be_asked(home):
    assert "use --passphrase-file" in run("keygen", "--passphrase", code=2).stderr
    assert not home.exists()


def test_at_a_terminal(home):
    """The real program at a real terminal: asks twice for a new passphrase, once for a known one."""
    assert "encrypted    yes" in at_terminal(
        ["keygen", "--passphrase"], [b"New passphrase: ", b"confirmation: "]
    )
    shown = at_terminal(["id", "-q"], [b"identity.pem: "])
    assert shown.strip() == str(Identity.load(home / "identity.pem", "correct horse").id)


def at_terminal(arguments, prompts):
    """Run `dtp`, answer each of `prompts` with the passphrase, give what came on standard output."""
    master, slave = pty.openpty()
    script = "from dtp.cli import main; main(prog_name='dtp')"
    with subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        stdin=slave,
        stderr=slave,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # or it would ask at the terminal of whoever runs the tests
    ) as process:
        os.close(slave)
        shown = b""
        for prompt in prompts:
            while not shown.endswith(prompt):
                shown += os.read(master, 1024)
            os.write(master, b"correct horse\n")
        out, _ = process.communicate(timeout=60)
    os.close(master)
    assert process.returncode == 0
    assert b"correct" not in shown
    return out


# --- keygen --import.


def test_a_sui_key(home, tmp_path):
    (tmp_path / "sui").write_text(SUI_KEY + "\n")
    (tmp_path / "sui").chmod(0o600)
    assert (
        json.loads(run("keygen", "--import", tmp_path / "sui", "--json").output)["sui_address"] == SUI_ADDRESS
    )
    assert json.loads(run("id", "--json").output)["sui_address"] == SUI_ADDRESS
    (tmp_path / "sui").write_text(SUI_KEY[:-1] + "q")
    assert (
        "checksum" in run("keygen", "--identity", tmp_path / "x", "--import", tmp_path / "sui", code=3).stderr
    )


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs the openssl command")
def test_a_key_of_openssl(home, tmp_path):
    plain = tmp_path / "openssl.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ED25519", "-out", plain], check=True)
    plain.chmod(0o600)
    result = run("id", "--identity", plain)
    assert "static key stored  no" in result.stdout
    assert "has no static key" in result.stderr
    run("keygen", "--import", plain)
    assert run("id", "-q").output == run("id", "-q", "--identity", plain).stdout
    assert "static key stored  yes" in run("id").output


@pytest.mark.slow
def test_encrypt_an_identity_later_without_leaving_a_copy(home, tmp_path):
    path = home / "identity.pem"
    made = json.loads(run("keygen", "--json").output)
    (tmp_path / "pw").write_text("secret\n")
    run("keygen", "--import", path, "--force", "--passphrase-file", tmp_path / "pw")
    assert os.listdir(home) == ["identity.pem"]
    loaded = Identity.load(path, "secret")
    assert str(loaded.id) == made["id"]
    assert loaded.static_public.hex() == made["static_key"]


@pytest.mark.slow
def test_take_over_an_encrypted_identity_with_a_passphrase_that_comes_once(home, tmp_path):
    made = json.loads(run("keygen", "--json", "--passphrase-file", "-", stdin="secret\n").output)
    copy = tmp_path / "copy.pem"
    taken = run(
        "keygen", "--json", "--import", home / "identity.pem", "--identity", copy, "--passphrase-file", "-",
        stdin="secret\n",
    )  # fmt: skip
    assert json.loads(taken.output)["id"] == made["id"]
    assert str(Identity.load(copy, "secret").id) == made["id"]
    wrong = run(
        "keygen",
        "--import",
        copy,
        "--identity",
        tmp_path / "x",
        "--passphrase-file",
        "-",
        stdin="?\n",
        code=3,
    )
    assert "does not open" in wrong.stderr


def test_a_source_that_is_missing(home, tmp_path):
    assert "can't read" in run("keygen", "--import", tmp_path / "none", code=3).stderr
    assert not (home / "identity.pem").exists()
