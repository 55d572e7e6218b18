"""`dtp tip open`, `send`, `read`, `answer`, `forget`: by a mailbox, on the LAN, and through a chain."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from dtp import Identity
from dtp.cli import main

pytestmark = pytest.mark.slow
PLACE = ("-l", "tcp://127.0.0.1:0")


@pytest.fixture
def call(home, monkeypatch):
    """Run `dtp ... --json`; gives what it printed as a list, or the error with `code`."""

    def run(*arguments, code=0, typed=None):
        result = CliRunner().invoke(main, [*map(str, arguments), "--json"], input=typed)
        assert result.exit_code == code, (result.output, result.exception)
        if code:
            return json.loads(result.stderr.splitlines()[-1])["error"]
        return [json.loads(line) for line in result.stdout.splitlines()]

    return run


@pytest.fixture
def line(dtp, home, call):
    """A line that is open in a process of its own: its record."""
    call("keygen")
    program = dtp(
        "tip", "open", "--name", "Herald", "--stamp-bits", 4, *PLACE, "-d", "none", "--until-eof", "--json"
    )
    yield json.loads(program.line())
    program.wait()


def test_a_tip_its_answer_and_its_end(call, line, tmp_path):
    (sent,) = call("tip", "send", line["card"], "the", "bridge")
    words = tmp_path / "words"
    words.write_text(sent["words"])
    (got,) = call("tip", "read")
    assert (got["text"], got["tip"], got["own"]) == ("the bridge", sent["tip"], False)
    assert call("tip", "read") == []  # it was read
    (tmp_path / "map.txt").write_text("x marks it\n")
    call("tip", "answer", sent["tip"], "which?", "--attach", tmp_path / "map.txt")
    (answer,) = call("tip", "read", line["card"], "--words-file", words, "--save", tmp_path)
    assert answer["text"] == "which?"
    assert Path(answer["saved"][0]).read_text() == "x marks it\n"
    address = line["mailboxes"][0].replace("dtp.mailbox", "dtp.tip")
    (again,) = call("tip", "send", address, "that", "--words-file", words)
    assert "words" not in again
    told = call("tip", "read", sent["tip"])
    assert [(each["own"], each["text"]) for each in told] == [
        (False, "the bridge"),
        (True, "which?"),
        (False, "that"),
    ]
    call("tip", "forget", sent["tip"])
    assert call("tip", "read", sent["tip"], code=3)["code"] == "tip"


def test_words_that_joiners_hold_together_are_read_as_they_were_written(call, line):
    call("tip", "send", line["card"], "क्\u200dष \u202e")
    assert "क्\u200dष \\u202e" in CliRunner().invoke(main, ["tip", "read"]).stdout


def test_mistakes_are_named(call, line, tmp_path):
    (tmp_path / "a.docx").write_bytes(b"PK")
    send = ("tip", "send", line["card"], "x")
    assert call(*send, "--attach", tmp_path / "a.docx", code=3)["code"] == "tip-metadata"
    assert call(*send, "--words-file", "-", typed="one two", code=3)["code"] == "tip-words"
    assert call(*send, "--words-file", tmp_path / "none", code=3)["code"] == "config"
    other = "legal winner thank year wave sausage worth useful legal winner thank yellow"
    assert call("tip", "read", line["card"], "--words-file", "-", typed=other, code=3)["code"] == "tip"
    call("tip", "send", line["card"], "kept", "--attach", tmp_path / "a.docx", "--as-is")
    (got,) = call("tip", "read", "--save", tmp_path)
    assert got["attachments"] == ["a.docx"]
    nobody = str(Identity.generate().id)
    assert call("tip", "read", nobody, code=3)["code"] == "tip"
    assert call("tip", "answer", nobody, "x", code=3)["code"] == "tip"


def test_through_the_chain(call, net, monkeypatch, home, tmp_path):
    monkeypatch.setenv("DTP_NETWORK", net.url)
    monkeypatch.setenv("DTP_FAUCET", net.faucet_url)
    monkeypatch.delenv("DTP_WALLET", raising=False)
    call("keygen")
    call("wallet", "faucet")  # the line's identity owns the host as well
    call("wallet", "new", "stranger")
    call("wallet", "faucet", "--wallet", "stranger")
    for package in ("transport", "escrow"):
        call("move", "publish", package, "--immutable")
    (made,) = call("host", "create")
    call("host", "service", "tips")
    call("host", "heartbeat", "--sealed")
    address = f"dtp://{made['host']}/tips"
    (sent,) = call("tip", "send", address, "by the chain", "--wallet", "stranger")
    read = ("tip", "read", "--host", made["host"])
    (got,) = call(*read)
    assert (got["text"], got["tip"]) == ("by the chain", sent["tip"])
    assert call(*read) == []
    call("tip", "answer", sent["tip"], "heard", "--host", made["host"])
    (answer,) = call("tip", "read", address, "--words-file", "-", typed=sent["words"])
    assert answer["text"] == "heard"
    assert call("tip", "answer", sent["tip"], "by mailbox", code=3)["code"] == "tip"
    assert [each["text"] for each in call(*read, sent["tip"])] == ["by the chain", "heard"]
    call("post", "send", address, "no tip at all", "--wallet", "stranger")
    assert call(*read) == []
    (tmp_path / "a.txt").write_text("words")
    attached = ("--attach", tmp_path / "a.txt")
    refused = call("tip", "send", address, "with a file", *attached, "--wallet", "stranger", code=3)
    assert refused["code"] == "tip-attachments"
    refused = call("tip", "answer", sent["tip"], "with a file", *attached, "--host", made["host"], code=3)
    assert refused["code"] == "tip-attachments"


def test_a_line_is_found_by_its_name_on_the_lan(dtp, call, monkeypatch):
    monkeypatch.setenv("DTP_DISCOVER", "lan")
    call("keygen")
    program = dtp("tip", "open", "--stamp-bits", 4, *PLACE, "-d", "lan", "--until-eof", "--json")
    name = json.loads(program.line())["line"]
    call("tip", "send", name, "by its name alone")
    assert [each["text"] for each in call("tip", "read")] == ["by its name alone"]
    program.wait()
    assert call("tip", "send", name, "x", code=5)["code"] == "tip-unreached"
