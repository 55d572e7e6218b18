"""`dtp send --words` and `dtp recv CODE`, as people run them: on one network, and by a relay."""

from __future__ import annotations

import asyncio
import json
import re

import pytest

from dtp import Identity, connect, listen
from dtp.cli.words import FileOffer, ReceiverGone

HERE = ("--listen", "tcp://127.0.0.1:0")


@pytest.fixture(autouse=True)
def lan(monkeypatch):
    monkeypatch.setenv("DTP_DISCOVER", "lan")


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "a file.bin"
    path.write_bytes(bytes(range(256)) * 4096)
    return path


@pytest.fixture
def inbox(tmp_path):
    (tmp_path / "inbox").mkdir()
    return tmp_path / "inbox"


def test_a_file_by_words_on_this_network(dtp, file, inbox):
    send = dtp("send", "--words", "--json", file, *HERE)
    code = send.event("code")["code"]
    assert re.fullmatch(r"\d+-[a-z]+-[a-z]+", code)
    received = json.loads(dtp("recv", "--json", code.upper(), "-o", inbox).wait().splitlines()[-1])
    assert received["path"] == str(inbox / file.name)
    assert (inbox / file.name).read_bytes() == file.read_bytes()
    assert send.event("sent")["sha256"] == received["sha256"]
    send.wait(0)


def test_wrong_words_burn_the_code_at_both_ends(dtp, file, inbox):
    send = dtp("send", "--words", "--json", file, *HERE)
    code = send.event("code")["code"]
    number, *words = code.split("-")
    wrong = f"{number}-{'zoo' if words[0] != 'zoo' else 'abandon'}-{words[1]}"
    failed = dtp("recv", "--json", wrong, "-o", inbox)
    failed.wait(4)
    assert json.loads(failed.errors.splitlines()[-1])["error"]["code"] == "words-wrong"
    send.wait(4)
    assert json.loads(send.errors.splitlines()[-1])["error"]["code"] == "words-burnt"
    gone = dtp("recv", "--json", code, "-o", inbox)
    gone.wait(4)
    assert json.loads(gone.errors.splitlines()[-1])["error"]["code"] == "words-nobody"
    assert not list(inbox.iterdir())


def test_what_was_cut_goes_on_with_another_code(dtp, file, inbox):
    (inbox / f"{file.name}.dtp-part").write_bytes(file.read_bytes()[:500_000])
    send = dtp("send", "--words", "--json", file, *HERE)
    received = json.loads(
        dtp("recv", "--json", send.event("code")["code"], "-o", inbox).wait().splitlines()[-1]
    )
    assert (inbox / file.name).read_bytes() == file.read_bytes()
    assert received["size"] == len(file.read_bytes())
    send.wait(0)


def test_a_file_by_words_by_a_relay(dtp, file, inbox, monkeypatch):
    monkeypatch.setenv("DTP_DISCOVER", "")
    relay = dtp("serve", "--relay", "--json", "--until-eof", *HERE)
    address = relay.event("listening")["address"]
    peer, place = re.match(r"dtp\+tcp://(dtp1\w+)@([\d.:]+)/", address).groups()
    url = f"relay://{place}?relay={peer}"
    send = dtp("send", "--words", "--json", file, "--listen", url)
    code = send.event("code")["code"]
    dtp("recv", "--json", code, "-o", inbox, "--relay", url).wait()
    assert (inbox / file.name).read_bytes() == file.read_bytes()
    send.wait(0)


def test_an_identity_that_does_not_open_leaves_the_code_unused(dtp, file, inbox, tmp_path):
    """Its passphrase was asked for after the code was used, while the sender waits for a minute and no longer."""
    secret, key, wrong = tmp_path / "secret", tmp_path / "locked.pem", tmp_path / "wrong"
    secret.write_text("correct horse\n")
    wrong.write_text("wrong\n")
    dtp("keygen", "--passphrase-file", secret, "-i", key).wait()
    send = dtp("send", "--words", "--json", file, *HERE)
    code = send.event("code")["code"]
    dtp("recv", code, "-o", inbox, "-i", key, "--passphrase-file", wrong).wait(3)
    dtp("recv", code, "-o", inbox, "-i", key, "--passphrase-file", secret).wait()
    assert (inbox / file.name).read_bytes() == file.read_bytes()
    send.wait(0)


def test_a_sender_hears_why_its_file_was_not_taken(dtp, file, inbox):
    """It waited for ever, while nobody could come a second time by a code that was used."""
    (inbox / file.name).write_bytes(b"another file")
    send = dtp("send", "--words", "--json", file, *HERE)
    failed = dtp("recv", "--json", send.event("code")["code"], "-o", inbox)
    failed.wait(3)
    assert json.loads(failed.errors.splitlines()[-1])["error"]["code"] == "file-exists"
    send.wait(4)
    assert json.loads(send.errors.splitlines()[-1])["error"]["code"] == "file-refused"
    assert (inbox / file.name).read_bytes() == b"another file"


def test_a_name_that_nobody_takes_is_told_before_there_is_a_code(dtp, tmp_path):
    (tmp_path / ".hidden").write_bytes(b"x")
    failed = dtp("send", "--words", "--json", tmp_path / ".hidden", *HERE)
    assert not failed.wait(3)
    assert json.loads(failed.errors.splitlines()[-1])["error"]["code"] == "file"


def test_a_sender_gives_up_once_whoever_had_the_words_is_gone(file):
    async def main():
        offer = FileOffer(file, patience=0.0)
        listener = await listen("memory://words-gone", {"name": offer.serve}, identity=Identity.generate())
        async with asyncio.timeout(60), listener:
            async with connect(str(listener.address("name"))) as connection:
                await connection.ping()
                waiting = asyncio.ensure_future(offer.wait_sent())
                await connection.ping()
                assert not waiting.done()
            with pytest.raises(ReceiverGone):
                await waiting

    asyncio.run(main())


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("send", "--words", __file__, "dtp+tcp://dtp1x@h:1"), 3),
        (("send", __file__), 2),
        (("send", "--words", __file__, "--name", "other"), 2),
        (("recv", "7-cactus-nosuchword"), 3),
        (("recv", "--relay", "relay://h:1"), 2),
    ],
)
def test_what_cannot_be_meant(dtp, arguments, code):
    dtp(*arguments).wait(code)
