"""`dtp account`, and whom `dtp graph` takes in: as people run them."""

import json

import pytest
from click.testing import CliRunner

from dtp.cli import main
from dtp.identity import Identity


def run(*arguments, code=0):
    result = CliRunner().invoke(main, [*map(str, arguments)])
    assert result.exit_code == code, result.output
    return result.stdout


def fails(*arguments):
    """Return what a command says that fails."""
    result = CliRunner().invoke(main, [*map(str, arguments)])
    assert result.exit_code == 3, result.output
    return result.stderr


@pytest.fixture
def people(home, tmp_path):
    """A laptop and a phone: the files of their identities, and their names."""
    found = {}
    for name in ("laptop", "phone"):
        identity = Identity.generate()
        found[name] = identity.save(tmp_path / f"{name}.pem"), str(identity.id)
    return found


def test_a_lost_phone(people, tmp_path):
    (laptop, laptop_id), (phone, phone_id) = people["laptop"], people["phone"]
    key, card, recovery = tmp_path / "account.pem", tmp_path / "account.card", tmp_path / "recovery.pem"
    mine, theirs = tmp_path / "laptop.db", tmp_path / "phone.db"
    made = json.loads(
        run("account", "create", "-k", key, "--recovery", recovery, f"{laptop_id}=laptop", "--json")
    )
    run("account", "create", "-k", key, "--recovery", tmp_path / "r2.pem", code=3)
    run("account", "add", "-k", key, phone_id, "phone")
    soul = f"~{made['account']}/notes"
    run("graph", "account", mine, card, "-i", laptop)
    run("graph", "put", mine, soul, "title", "laptop", "-i", laptop)
    exported = tmp_path / "all.dtpg"

    def carry(source, target):
        run("graph", "export", source, exported)
        run("graph", "import", target, exported)

    carry(mine, theirs)
    run("graph", "put", theirs, soul, "title", "phone", "-i", phone)
    carry(theirs, mine)
    assert run("graph", "get", mine, soul, "title") == "phone\n"
    run("graph", "account", mine, "--key", key, "--revoke", phone_id, "-i", laptop)
    assert phone_id not in run("account", "show", card)
    run("graph", "put", theirs, soul, "title", "thief", "-i", phone)
    carry(theirs, mine)
    assert run("graph", "get", mine, soul, "title") == "phone\n"
    listed = [json.loads(line) for line in run("graph", "account", mine, "--json").splitlines()]
    assert {one["label"]: one["ended"] is not None for one in listed} == {"": True, "laptop": False}

    assert run("graph", "recover", mine, theirs, "--author", phone_id, "-i", laptop).startswith(
        "0 envelopes received, 1 op signed again"
    )
    assert run("graph", "get", mine, soul, "title") == "thief\n"  # by the laptop now
    run("graph", "put", mine, soul, "title", "laptop", "-i", laptop)

    other = tmp_path / "other.pem"
    run(
        *("account", "rotate", "-k", other, "--card", card, "--recovery", recovery),
        *("--next-recovery", tmp_path / "next.pem", "--device", f"{laptop_id}=laptop"),
    )
    run("graph", "account", mine, "--key", other, "--take-over", "-i", laptop)
    run("graph", "account", mine, "--key", other, "--ignore", phone_id, "-i", laptop)
    assert run("graph", "get", mine, soul, "title") == "laptop\n"
    run("account", "renew", "-k", other, "--days", 30)
    assert json.loads(run("account", "show", "-k", other, "--json"))["expires_ms"] > 0
    run("account", "remove", "-k", other, laptop_id)
    assert laptop_id not in run("account", "show", "-k", other)
    run("account", "show", tmp_path / "none.card", code=3)
    run("graph", "account", mine, card, "--revoke", phone_id, code=2)


def test_bans_purges_and_quotas(people, tmp_path):
    (laptop, _), (phone, phone_id) = people["laptop"], people["phone"]
    mine, theirs, exported = tmp_path / "laptop.db", tmp_path / "phone.db", tmp_path / "all.dtpg"
    run("graph", "put", theirs, "page", "by", "phone", "-i", phone)
    run("graph", "put", mine, "other", "by", "laptop", "-i", laptop)
    run("graph", "export", theirs, exported)
    assert (
        run("graph", "agreement", mine, "--need", "1", phone_id, "-i", laptop)
        == f"1 of 1 have to agree\n{phone_id}\n"
    )
    assert phone_id in run("graph", "agreement", mine, "-i", laptop)
    for wrong in ((phone_id,), ("--need", "1")):
        run("graph", "agreement", mine, *wrong, "-i", laptop, code=2)
    assert run("graph", "agreement", mine, "--need", "0", "-i", laptop) == "0 of 0 have to agree\n"
    run("graph", "quota", mine, "new_strangers=0", "-i", laptop)
    run("graph", "import", mine, exported, "-i", laptop)
    status = json.loads(run("graph", "status", mine, "--json", "-i", laptop))
    assert (status["authors"], status["refused"]) == (1, 1)
    assert status["refusals"]["authors"][0]["author"] == phone_id
    assert "more than 0 new strangers in 3600 s" in run("graph", "status", mine, "-i", laptop)
    run("graph", "quota", mine, "--know", phone_id, "-i", laptop)
    run("graph", "import", mine, exported, "-i", laptop)
    assert run("graph", "get", mine, "page", "by", "-i", laptop) == "phone\n"
    assert run("graph", "purge", mine, phone_id, "-i", laptop, code=3) == ""
    run("graph", "ban", mine, phone_id, "-i", laptop)
    assert run("graph", "ban", mine, "-i", laptop) == f"{phone_id}  by you\n"
    run("graph", "get", mine, "page", code=3)
    assert "bytes of envelopes removed" in run("graph", "purge", mine, phone_id, "-i", laptop)
    run("graph", "ban", mine, phone_id, "--undo", "-i", laptop)
    run("graph", "import", mine, exported, "-i", laptop)
    assert run("graph", "get", mine, "page", "by", "-i", laptop) == "phone\n"
    assert "stranger_bytes: none" in run("graph", "quota", mine, "stranger_bytes=none", "-i", laptop)
    for wrong in ("stranger_bytes", "stranger_bytes=many", "nothing=1"):
        run("graph", "quota", mine, wrong, "-i", laptop, code=2)
    run("graph", "ban", mine, "--undo", code=2)
    run("graph", "ban", mine, "--follow", phone_id, "-i", laptop)
    run("graph", "ban", mine, "--unfollow", phone_id, "-i", laptop)


def test_a_lost_phone_is_put_out_of_several_graphs(people, tmp_path):
    (laptop, laptop_id), (phone, phone_id) = people["laptop"], people["phone"]
    key, card = tmp_path / "account.pem", tmp_path / "account.card"
    devices = f"{laptop_id}=laptop", f"{phone_id}=phone"
    made = json.loads(
        run("account", "create", "-k", key, "--recovery", tmp_path / "r.pem", *devices, "--json")
    )
    used, unused = tmp_path / "used.db", tmp_path / "unused.db"
    for file in (used, unused):
        run("graph", "account", file, card, "-i", laptop)
    run("graph", "account", used, card, "-i", phone)
    run("account", "revoke", "-k", key, phone_id, used, tmp_path / "none.db", unused, "-i", laptop, code=3)
    assert phone_id not in run("account", "show", card)
    run("account", "revoke", "-k", key, phone_id, used, "-i", laptop)
    for file in (used, unused):  # in both what it writes counts no more, whatever it shows
        run("graph", "account", file, "-i", phone)
        listed = [json.loads(line) for line in run("graph", "account", file, "--json").splitlines()]
        assert {one["peer"]: one["ended"] is not None for one in listed} == {phone_id: True, laptop_id: False}
        assert listed[0]["account"] == made["account"]


def test_whoever_has_no_account_yet_is_told_how_to_make_one(people, tmp_path):
    """It said to make an identity there, which is no account."""
    (_, laptop_id), key = people["laptop"], tmp_path / "account.pem"
    for arguments in (
        ["account", "show"],
        ["account", "add", laptop_id],
        ["card", "show"],
        ["card", "publish"],
    ):
        said = fails(*arguments, "-k", key)
        assert f"no account's card at {tmp_path / 'account.card'}; 'dtp account create' makes" in said
    run("account", "create", "-k", key, "--recovery", tmp_path / "recovery.pem", f"{laptop_id}=laptop")
    key.unlink()
    assert f"no account's key at {key}: it stays where 'dtp account create'" in fails(
        "account", "renew", "-k", key
    )
