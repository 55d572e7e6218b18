"""`dtp send --to`: straight to a person who waits on this network, else through the mailbox."""

import json

import pytest

pytestmark = pytest.mark.slow
PLACE = ("--listen", "tcp://127.0.0.1:0")


@pytest.fixture
def people(dtp, home, tmp_path, monkeypatch):
    """Run `dtp` as somebody, with a settings folder of their own: `start(name, ...)`."""
    monkeypatch.setenv("DTP_DISCOVER", "lan")

    def start(name, *arguments):
        monkeypatch.setenv("DTP_HOME", str(tmp_path / name))
        return dtp(*arguments, "--json")

    return start


def call(people, name, *arguments, code=0):
    return [json.loads(line) for line in people(name, *arguments).wait(code).splitlines()]


def test_a_person_gets_a_file_now_or_when_they_are_back(people, tmp_path):
    for name in ("box", "alice", "bob"):
        call(people, name, "keygen")
    box = people("box", "mailbox", "serve", *PLACE, "--until-eof")
    mailbox = box.event("listening")["address"]
    cards = {}
    for name in ("alice", "bob"):
        (made,) = call(people, name, "message", "card", "--name", name, "--mailbox", mailbox)
        cards[name] = made["card"]
    call(people, "alice", "message", "add", cards["bob"])
    call(people, "bob", "message", "add", cards["alice"])
    (file := tmp_path / "a film.bin").write_bytes(bytes(range(256)) * 4096)
    for folder in ("now", "later", "blocked"):
        (tmp_path / folder).mkdir()

    receiving = people("bob", "recv", *PLACE, "--by-name", "-o", tmp_path / "now")
    receiving.event("listening")
    *_, sent = call(people, "alice", "send", file, "--to", "Bob")
    assert (sent["event"], sent["size"]) == ("sent", 1 << 20)
    receiving.wait()
    assert (tmp_path / "now" / file.name).read_bytes() == file.read_bytes()

    *_, sent = call(people, "alice", "send", file, "--to", "bob")
    assert (sent["event"], sent["sent"]) == ("message", True)
    (got,) = call(people, "bob", "message", "read", "--save", tmp_path / "later")
    assert (got["attachments"], got["saved"]) == ([file.name], [str(tmp_path / "later" / file.name)])
    assert (tmp_path / "later" / file.name).read_bytes() == file.read_bytes()

    receiving = people("bob", "recv", *PLACE, "--by-name", "-o", tmp_path / "blocked")
    receiving.event("listening")
    call(people, "alice", "message", "block", "bob")
    assert call(people, "alice", "send", file, "--to", "bob", code=3) == []
    assert not (tmp_path / "blocked" / file.name).exists()
    receiving.close()
    assert call(people, "alice", "send", file, "--to", "nobody", code=3) == []
    assert call(people, "alice", "send", file, "--to", "bob", "--words", code=2) == []
    box.wait()
