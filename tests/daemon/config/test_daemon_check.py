"""`dtpd check` reads the keys that `run` would read, and says of each where it is named and what is wrong with it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from dtp.cli.daemon import main
from dtp.identity import Identity


@pytest.fixture
def place(tmp_path: Path) -> Callable[..., Any]:
    """A folder with a file and the keys that it names; gives what writes the file, with more settings."""
    Identity.generate().save(tmp_path / "me.pem")
    psk = tmp_path / "psk"
    psk.write_text("ab" * 32)
    psk.chmod(0o600)

    def write(identity: str = "", chain: str = "") -> Path:
        path = tmp_path / "dtpd.toml"
        path.write_text(
            f'[[forward]]\nlisten = "127.0.0.1:1"\nto = "dtp://a/b"\n'
            f'[identity]\nfile = "me.pem"\npsk-file = "psk"\n{identity}\n[chain]\nnetwork = "testnet"\n{chain}\n'
        )
        return path

    return write


def check(path: Path, *words: str) -> Result:
    return CliRunner().invoke(main, ["check", "-c", str(path), *words])


def mistake(path: Path) -> tuple[int, str]:
    """The line and the words of the one mistake."""
    done = check(path, "--json")
    assert done.exit_code == 3, done.output
    (line,) = done.stderr.splitlines()
    error = json.loads(line)["error"]
    return error["line"], error["message"]


def test_sound_keys(place: Callable[..., Path]) -> None:
    done = check(place(), "--json")
    assert (done.exit_code, json.loads(done.stdout)["warnings"]) == (0, [])


def test_a_price_without_an_endpoint_is_doubtful(place: Callable[..., Path]) -> None:
    """Nobody could open a channel, and nothing said so but a caller's log."""
    sold = """
host = "0x%s"
%s
[daemon]
listen = ["tcp://127.0.0.1:0"]
[[expose]]
service = "api"
kind = "http"
backend = "127.0.0.1:1"
allow = ["*"]
price = { request = 1 }
"""
    (warning,) = json.loads(check(place(chain=sold % ("7" * 64, "")), "--json").stdout)["warnings"]
    assert warning.startswith("api has a price, and [chain] has no endpoint")
    told = check(place(chain=sold % ("7" * 64, 'endpoint = "tcp://127.0.0.1:1"')), "--json")
    assert json.loads(told.stdout)["warnings"] == []


def test_a_key_that_is_missing_open_to_others_or_damaged(place: Callable[..., Path], tmp_path: Path) -> None:
    path, key = place(), tmp_path / "me.pem"
    key.chmod(0o644)
    line, words = mistake(path)
    assert line == 5
    assert words.startswith("file: ")
    assert "open to other users" in words
    key.chmod(0o600)
    key.write_text("no key")
    assert "not an identity file" in mistake(path)[1]
    key.unlink()
    assert "there is no identity" in mistake(path)[1]
    key.mkdir()
    assert "Is a directory" in mistake(path)[1]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_key_that_may_not_be_read(place: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "me.pem").chmod(0)
    assert "Permission denied" in mistake(place())[1]


def test_a_pre_shared_key(place: Callable[..., Path], tmp_path: Path) -> None:
    path, psk = place(), tmp_path / "psk"
    psk.write_text("ab")
    assert mistake(path) == (
        6,
        f"psk-file: {psk} has to hold 64 hex digits, such as 'openssl rand -hex 32' prints",
    )
    psk.chmod(0o644)
    assert "open to other users" in mistake(path)[1]
    psk.unlink()
    assert "No such file" in mistake(path)[1]


@pytest.mark.slow
def test_the_passphrase(place: Callable[..., Path], tmp_path: Path) -> None:
    """One that fits, one that doesn't, and none: `run` asks for it then, where there is a terminal."""
    Identity.generate().save(tmp_path / "me.pem", "sesame", overwrite=True)
    (warning,) = json.loads(check(place(), "--json").stdout)["warnings"]
    assert warning.startswith("file: ")
    assert "'dtpd run' asks for it at a terminal" in warning
    said, path = tmp_path / "said", place(identity='passphrase-file = "said"')
    assert "No such file" in mistake(path)[1]
    said.write_text("sesame\n")
    said.chmod(0o600)
    assert json.loads(check(path, "--json").stdout)["warnings"] == []
    said.chmod(0o644)
    (warning,) = json.loads(check(path, "--json").stdout)["warnings"]
    assert warning.startswith(f"passphrase-file: {said} may be read by others")
    said.write_text("simsim\n")
    assert mistake(path)[0] == 5


def test_the_wallet(place: Callable[..., Path], tmp_path: Path) -> None:
    path = place(chain='wallet = "wallet.pem"')
    line, words = mistake(path)
    assert (line, words.startswith("wallet: ")) == (10, True)
    Identity.generate().save(tmp_path / "wallet.pem")
    assert check(path).exit_code == 0
    Identity.generate().save(tmp_path / "wallet.pem", "sesame", overwrite=True)
    assert "is encrypted" in mistake(path)[1]


def test_all_of_them_at_once(place: Callable[..., Path], tmp_path: Path) -> None:
    path = place(chain='wallet = "wallet.pem"')
    (tmp_path / "me.pem").unlink()
    (tmp_path / "psk").unlink()
    assert [int(line.split(":")[1]) for line in check(path).stderr.splitlines()[:-1]] == [5, 6, 10]


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql://u:secret@h/d?sslmode=nonsense", "sslmode"),
        ("postgresql://u:secret@h/d?sslmode=verify-ca&sslrootcert=/nowhere", "/nowhere"),
        ("postgresql://u:secret@h/d?nonsense=1", "doesn't take this URL"),
        ("rediss://:secret@h/0?ssl_ca_certs=/nowhere/ca.pem", "settings of TLS"),
        ("redis://:secret@h/0?socket_timeout=soon", "doesn't take this URL"),
    ],
)
def test_where_vouchers_are_kept(place: Callable[..., Path], url: Any, words: Any) -> None:
    """It was found by `run` alone, which ends with 78."""
    pytest.importorskip("psycopg")
    pytest.importorskip("redis")
    line, said = mistake(place(chain=f'vouchers = "{url}"'))
    assert line == 10
    assert said.startswith("vouchers: [chain] ")
    assert words in said
    assert "secret" not in said


@pytest.mark.parametrize("url", ["postgresql://u@h/d?sslmode=prefer", "redis://h/0"])
def test_vouchers_whose_server_is_not_asked(place: Callable[..., Path], url: Any) -> None:
    pytest.importorskip("psycopg")
    pytest.importorskip("redis")
    assert check(place(chain=f'vouchers = "{url}"')).exit_code == 0


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgres://u:secret@h/d?sslmode=nonsense", "sslmode"),
        ("nats://u:secret@h:port", "the URL has to be as in"),
        ("nats://u:secret@h:4222/my.mailbox", "the URL has to be as in"),
        ("nats://u:secret@a:4222,:4223/mailbox", "the URL has to be as in"),
        ("nats://u:secret@a:4222,b:4223/mail-box", None),
        ("nats://h", None),
        ("postgresql://u@h/d", None),
        ("mailbox.sqlite", None),
    ],
)
def test_where_a_mailbox_is_kept(place: Callable[..., Path], url: Any, words: Any) -> None:
    pytest.importorskip("psycopg")
    pytest.importorskip("nats")
    path = place()
    mailbox = (
        f'[[expose]]\nservice = "m"\nkind = "mailbox"\nallow = ["*"]\n[expose.mailbox]\nstore = "{url}"\n'
    )
    path.write_text(f'[daemon]\nlisten = ["tcp://127.0.0.1:0"]\n{mailbox}{path.read_text()}')
    if words is None:
        assert check(path).exit_code == 0, check(path).output
        return
    line, said = mistake(path)
    assert line == 8
    assert said.startswith("store: the mailbox in ")
    assert words in said
    assert "secret" not in said
