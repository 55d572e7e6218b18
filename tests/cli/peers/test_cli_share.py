"""`dtp graph share`: two processes that share a file each, of which one has what the other writes."""

import contextlib
import json
import stat
import subprocess
import sys

import pytest

import dtp

DTP = (sys.executable, "-P", "-m", "dtp")


def call(*arguments):
    return subprocess.run([*DTP, *arguments], capture_output=True, text=True, timeout=60, check=True).stdout


@contextlib.contextmanager
def shared(file, identity, *arguments):
    """Share a graph until the block ends; gives the address."""
    command = (
        *DTP,
        "graph",
        "share",
        file,
        "--graph",
        "g",
        "--topic",
        "notes",
        "--until-eof",
    )
    if "-l" not in arguments:
        arguments = ("-l", "tcp://127.0.0.1:0", *arguments)
    command += ("--discover", "none", "-i", identity, "--json", *arguments)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield json.loads(process.stdout.readline())["address"]
            process.communicate(timeout=60)
            assert process.returncode == 0
        finally:
            process.kill()


def test_the_address_is_one_that_others_dial(tmp_path, monkeypatch):
    monkeypatch.setenv("DTP_HOME", str(tmp_path / "home"))
    dtp.Identity.generate().save(key := str(tmp_path / "one.pem"))
    with shared(str(tmp_path / "one.db"), key, "-l", "tcp://0.0.0.0:0") as address:
        assert "@0.0.0.0:" not in address


@pytest.mark.slow
def test_changes_of_a_file_that_is_shared_are_made_by_the_program_that_has_it(tmp_path, monkeypatch):
    monkeypatch.setenv("DTP_HOME", str(tmp_path / "home"))
    one, key, other = (str(tmp_path / name) for name in ("one.db", "one.pem", "other.pem"))
    dtp.Identity.generate().save(key)
    dtp.Identity.generate().save(other)

    def graph(*arguments, identity=key, code=0):
        command = [*DTP, "graph", *arguments, "--graph", "g", "-i", identity]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    with shared(one, key):
        graph("put", one, "n/1", "title", "Milk")
        graph("put", one, "n/1", "count", "2")
        graph("link", one, "n/1", "next", "n/2")
        assert graph("get", one, "n/1") == 'count: 2\nnext (set): [{"link": "n/2"}]\ntitle: Milk\n'
        graph("rm", one, "n/1", "count")
        assert "has nothing" in graph("rm", one, "n/1", "count", code=3)
        graph("link", one, "n/1", "next", "n/2", "--remove")
        assert graph("link", one, "n/1", "next") == ""
        refused = graph("put", one, "n/1", "title", "Bread", identity=other, code=4)
        assert "give the same identity and name, or end that program first" in refused
        mode = (tmp_path / "one.db-socket").stat().st_mode
        assert stat.S_ISSOCK(mode)
        assert stat.S_IMODE(mode) == 0o600
    assert not (tmp_path / "one.db-socket").exists()
    assert graph("get", one, "n/1") == "title: Milk\n"


@pytest.mark.slow
def test_a_file_is_at_whoever_shares_it(tmp_path, monkeypatch):
    monkeypatch.setenv("DTP_HOME", str(tmp_path / "home"))
    one, other = str(tmp_path / "one.db"), str(tmp_path / "other.db")
    keys = [str(tmp_path / f"{name}.pem") for name in ("one", "other")]
    for key in keys:
        dtp.Identity.generate().save(key)
    call("graph", "put", one, "n/1", "title", "Milk", "--graph", "g", "-i", keys[0])
    secret = tmp_path / "team.key"
    secret.write_text("a long enough secret\n")
    secret.chmod(0o600)
    with (
        shared(one, keys[0], "--key-file", secret) as address,
        shared(other, keys[1], "-b", address, "--key", "a long enough secret"),
    ):
        for _ in range(200):
            if (
                "Milk"
                in subprocess.run(
                    [*DTP, "graph", "get", other, "n/1", "--graph", "g"], capture_output=True, text=True
                ).stdout
            ):
                break
        else:
            raise AssertionError("it did not come")


def test_keys_that_can_not_be(tmp_path, monkeypatch):
    monkeypatch.setenv("DTP_HOME", str(tmp_path / "home"))
    secret = tmp_path / "team.key"
    secret.write_text("a long enough secret\n")
    secret.chmod(0o644)
    options = [*DTP, "graph", "share", str(tmp_path / "a.db"), "--topic", "notes", "--key-file", str(secret)]

    def refused(code, *arguments):
        done = subprocess.run([*options, *arguments], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == code
        return done.stderr

    assert "open to other users" in refused(3)
    secret.chmod(0o600)
    assert "not from both" in refused(2, "--key", "another secret")
    assert not (tmp_path / "a.db").exists()
