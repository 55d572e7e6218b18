"""Files with secrets are made for their owner alone, whatever the umask, and closed where they were open."""

import json
import os
import stat
import subprocess
import sys
from contextlib import closing

import pytest
from click.testing import CliRunner

from dtp.cli import main
from dtp.cli.accounts import WalletOptions
from dtp.graph.stores.sqlite_store import SqliteStore
from dtp.identity import Identity, bech32
from dtp.identity.private import (
    OpenToOthers,
    close_to_others,
    make_private_file,
    make_private_folder,
)
from dtp.pay.store import Store


@pytest.fixture
def open_umask():
    """Whatever is made without a mode is everybody's."""
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


def open_below(folder):
    """What others may read, change or enter below a folder."""
    return [str(each) for each in [folder, *folder.rglob("*")] if mode(each) & 0o077]


@pytest.mark.usefixtures("open_umask")
def test_what_is_made_is_its_owners_alone(tmp_path):
    home = tmp_path / "home" / "deep"
    make_private_folder(home)
    make_private_file(home / "file")
    Identity.generate().save(home / "settings" / "keys" / "me.pem")
    with Store(home / "data" / "pay.sqlite") as store:
        store.bought_channels()
        assert (home / "data" / "pay.sqlite-wal").exists()
        assert open_below(tmp_path / "home") == []
    with closing(SqliteStore(home / "graph.db")):
        assert open_below(tmp_path / "home") == []


@pytest.mark.usefixtures("open_umask")
def test_a_store_that_was_open_is_closed_with_a_word(tmp_path, caplog):
    """A pay.sqlite of mode 0644 was used without one, and a copy onto such a file left the keys to everybody."""
    path, copy = tmp_path / "pay.sqlite", tmp_path / "copy.sqlite"
    with Store(path):
        pass
    copy.touch(0o644)
    path.chmod(0o644)
    with Store(path) as store:
        wal = tmp_path / "pay.sqlite-wal"
        assert (mode(path), mode(wal)) == (0o600, 0o600)
        assert f"{path} was open to others" in caplog.text
        store.backup(copy)
        assert mode(copy) == 0o600
        assert f"{copy} was open to others" in caplog.text
        wal.chmod(0o666)
        close_to_others(path)
        assert mode(wal) == 0o600
    caplog.clear()
    with Store(path):
        assert caplog.text == ""


def test_what_can_not_be_closed_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "pay.sqlite"
    path.touch(0o600)
    path.chmod(0o644)

    def refused(file, wanted):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "chmod", refused)
    with pytest.raises(OpenToOthers, match="chmod 6"):
        Store(path)


def test_a_folder_and_a_file_that_are_there_stay_as_they_are(tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o755)
    (shared / "file").write_text("words")
    make_private_folder(shared)
    make_private_file(shared / "file")
    assert mode(shared) == 0o755
    assert (shared / "file").read_text() == "words"


@pytest.mark.parametrize("command", [("wallet", "balance"), ("channel", "list"), ("host", "show")])
@pytest.mark.parametrize("prefix", ["suiprivkey1", "SUIPRIVKEY1"])
def test_a_key_on_the_command_line_is_refused_and_not_shown(command, prefix):
    secret = prefix + "qz" * 30
    done = CliRunner().invoke(main, [*command, "--wallet", secret])
    assert done.exit_code == 3
    assert "qzqz" not in done.output
    assert "$DTP_WALLET" in done.output


@pytest.mark.parametrize("command", [("wallet", "new", "x"), ("keygen",)])
def test_a_key_in_place_of_a_file_is_refused_and_not_shown(command, tmp_path, monkeypatch):
    monkeypatch.setenv("DTP_HOME", str(tmp_path))
    done = CliRunner().invoke(main, [*command, "--import", "suiprivkey1" + "qz" * 30])
    assert done.exit_code == 3
    assert "qzqz" not in done.output
    assert "name a file with it" in done.output


#: Every way in which a command is told of a file with keys; KEY is in its place.
_FILES_OF_KEYS = {
    "identity": ("id", "--identity", "KEY"),
    "identity, short": ("id", "-i", "KEY", "-q"),
    "wallet": ("wallet", "send", "0x" + "1" * 64, "1", "--wallet", "KEY"),
    "wallet, only its address": ("wallet", "faucet", "--wallet", "KEY"),
    "imported identity": ("keygen", "--import", "KEY"),
    "imported wallet": ("wallet", "new", "x", "--import", "KEY"),
    "pre-shared key": ("cat", "--psk-file", "KEY", "memory://x"),
    "network's key": ("peers", "--network-file", "KEY"),
}


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o622])
@pytest.mark.parametrize("arguments", _FILES_OF_KEYS.values(), ids=_FILES_OF_KEYS)
def test_every_file_of_keys_is_refused_while_others_may_read_it(arguments, mode, tmp_path, monkeypatch):
    """`--import` took one of mode 0644 without a word, and each of the others had a check of its own."""
    monkeypatch.setenv("DTP_HOME", str(tmp_path / "home"))
    key = tmp_path / "key.pem"
    key.write_text(bech32.encode("suiprivkey", bytes(1) + bytes(range(32)), variant="bech32"))
    key.chmod(mode)
    if os.geteuid() == 0:
        os.chown(key, 7, 7)  # what belongs to root may be for its group
    named = [str(key) if each == "KEY" else each for each in arguments]
    done = CliRunner().invoke(main, [*named, "--json"])
    assert done.exit_code == 3
    fault = json.loads(done.stderr.splitlines()[-1])["error"]
    assert fault["code"] == "open-to-others"
    assert f"chmod 600 {key}" in fault["message"]
    assert not (tmp_path / "home").exists()


def test_a_file_with_a_passphrase_that_others_may_read_is_used_with_a_warning(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("DTP_HOME", str(tmp_path / "home"))
    said = tmp_path / "said"
    said.write_text("words")
    said.chmod(0o644)
    assert CliRunner().invoke(main, ["keygen", "--passphrase-file", str(said)]).exit_code == 0
    assert f"{said} holds a secret and may be read by others" in caplog.text


def test_a_key_may_come_by_the_environment():
    secret = bech32.encode("suiprivkey", bytes(1) + bytes(range(32)), variant="bech32")
    account = WalletOptions(None, secret, None)
    assert account.load_signer().address == account.read_address()
    assert account.wallet_path() is None
    assert secret not in repr(account)


@pytest.mark.skipif(sys.platform != "linux", reason="prctl(2) is Linux's")
def test_commands_leave_no_core_dump():
    code = """
import ctypes
from click.testing import CliRunner
from dtp.cli import main
import dtp.cli.accounts
CliRunner().invoke(main, ["keygen", "--help"])
CliRunner().invoke(main, ["show"])
print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))
"""
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0"
