"""Files with secrets are made for their owner alone, whatever the umask, and closed where they were open."""

import os
import stat
import subprocess
import sys
from contextlib import closing

import pytest
from click.testing import CliRunner

from dtp.cli import main
from dtp.cli.accounts import Account
from dtp.graph.sqlite_store import SqliteStore
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
        store.bought()
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


def test_a_key_may_come_by_the_environment():
    secret = bech32.encode("suiprivkey", bytes(1) + bytes(range(32)), variant="bech32")
    account = Account(None, secret, None)
    assert account.signer().address == account.address()
    assert account.path() is None
    assert secret not in repr(account)


@pytest.mark.skipif(sys.platform != "linux", reason="prctl(2) is Linux's")
def test_commands_leave_no_core_dump():
    code = """
import ctypes
from click.testing import CliRunner
from dtp.cli import main
from dtp.cli.accounts import Account
CliRunner().invoke(main, ["keygen", "--help"])
CliRunner().invoke(main, ["show"])
print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))
"""
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0"
