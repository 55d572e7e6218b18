"""`dtp card` as people use it: publish, look up, wallets, another key, the end; against an embedded node."""

import pytest

BOX = "dtp+tcp://box.example:9000/mail"


@pytest.fixture
def person(call, home, monkeypatch):
    """An account with a laptop, and a wallet with money; the account's name."""
    call("wallet", "new", "alice")
    call("wallet", "faucet", "--wallet", "alice")
    monkeypatch.setenv("DTP_WALLET", "alice")
    call("move", "publish", "directory", "--immutable")
    call("keygen")
    laptop = call("id")["id"]
    return call("account", "create", "--recovery", home / "recovery.pem", f"{laptop}=laptop")["account"]


def test_publish_and_show(call, person):
    assert call("card", "show", code=3)["code"] == "no-card"
    made = call("card", "publish", "--mailbox", BOX)
    assert (made["account"], made["generation"], made["sequence"]) == (person, 1, 1)
    assert [each["label"] for each in made["devices"]] == ["laptop"]
    assert made["mailboxes"] == [BOX]
    again = call("card", "publish", "--days", "1")
    assert (again["sequence"], again["mailboxes"]) == (2, [])
    assert again["expires_ms"] > 0
    shown = call("card", "show", person)
    assert shown == {key: again[key] for key in shown}


def test_wallets(call, person):
    call("card", "publish")
    linked = call("card", "link-wallet")
    (wallet,) = linked["wallets"]
    assert call("card", "show", wallet)["account"] == person
    assert call("card", "link-wallet", code=6)["code"] == "move-abort"
    assert call("card", "unlink-wallet")["wallets"] == []
    assert call("card", "show", wallet, code=3)["code"] == "no-card"
    call("card", "link-wallet")
    assert call("card", "unlink-wallet", wallet)["wallets"] == []
    assert call("card", "unlink-wallet", code=3)["code"] == "no-card"


def test_another_key(call, person, home):
    call("card", "publish")
    assert call("card", "rotate")["generation"] == 1
    rotated = ["--card", home / "account.card", "--recovery", home / "recovery.pem"]
    call("account", "rotate", *rotated, "--next-recovery", home / "next.pem", "--key", home / "new.pem")
    told = call("card", "rotate", "--card", home / "new.card")
    assert (told["generation"], told["says"], told["devices"]) == (2, "nothing", [])
    said = call("card", "publish", "--key", home / "new.pem")
    assert (said["account"], said["generation"], said["says"]) == (person, 2, "signed")
    assert call("card", "publish", code=3)["code"] == "card-diverged"


def test_the_end(call, person, home):
    call("card", "publish")
    ended = call("card", "revoke", "--recovery", home / "recovery.pem", "--yes")
    assert ended["says"] == "nothing: ended for good"
    assert call("card", "publish", code=6)["code"] == "move-abort"
