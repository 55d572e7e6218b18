"""What a login server keeps: killed at every write, with files that are gone, and bounded."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from deaths import deaths
from login_world import NOW, PASSWORD, SERVER, Desk

from dtp.identity import Identity
from dtp.messaging.errors import StoreFailed
from dtp.messaging.login.conversation import LoginServer
from dtp.messaging.login.limits import LoginLimits
from dtp.messaging.login.protocol import LoginOp, Refusal, Slot
from dtp.messaging.login.sessions import LoginRow, Sessions
from dtp.messaging.login.store import LoginStore, invitation_hash
from dtp.messaging.login.vault import Vault

ACCOUNT = Identity(bytes([31]) * 32, bytes([32]) * 32)
DEVICE = Identity(bytes([33]) * 32, bytes([34]) * 32)
NEW = "a quite new sentence"


@pytest.mark.slow
def test_killed_at_any_write_it_has_what_it_said_it_has(tmp_path: Path) -> None:
    """An account is registered, logged in to, changed and left. After a kill the old password opens it, or the new
    one, as was said, and never neither of them."""

    def live(number: int) -> None:
        folder = tmp_path / str(number)
        folder.mkdir()
        said = os.open(folder / "said", os.O_CREAT | os.O_WRONLY)
        desk = Desk.make(path=folder / "box.sqlite")
        caller = desk.caller(DEVICE)
        assert caller.register("alice", account=ACCOUNT)[0] is Refusal.DONE
        os.write(said, b"r")
        told = caller.login("alice")
        assert told[0] is Refusal.DONE
        os.write(said, b"l")
        key = os.urandom(32)
        credentials = [caller.credential("alice", slot, NEW, key) for slot in Slot]
        vault = Vault(ACCOUNT, version=2).seal(key, "alice")
        rows = [each.to_row() for each in credentials]
        assert caller.ask(LoginOp.SET_CREDENTIALS, rows, 2, vault)[0] is Refusal.DONE
        os.write(said, b"c")
        assert caller.ask(LoginOp.LEAVE)[0] is Refusal.DONE
        os.write(said, b"d")

    for number, _ in deaths(live):
        folder = tmp_path / str(number)
        said = (folder / "said").read_bytes().decode()
        desk = Desk.make(path=folder / "box.sqlite")
        found = desk.server.store.find_login("alice", Slot.PASSWORD, DEVICE.id.key)
        if found.account and said in ("r", "rl", "rlc"):
            assert [row.key for row in desk.server.store.list_logins(NOW)] == [DEVICE.id.key] * (
                "l" in said
            ) or said == "r"
            password, other = (NEW, PASSWORD) if "c" in said else (PASSWORD, NEW)
            opened = _opens(desk, password) or (said != "rlc" and _opens(desk, other))
            assert opened
        assert bool(found.account) >= (said in ("r", "rl"))
        assert not (found.account and "d" in said)
        if not found.account:
            assert desk.caller().register("alice")[0] is Refusal.DONE  # no half of one is in the way
        desk.server.store.close()
    assert number > 20


def _opens(desk: Desk, password: str) -> bool:
    from dtp.messaging.login.errors import LoginFailed

    try:
        return desk.caller().login("alice", password)[0] is Refusal.DONE
    except LoginFailed:
        return False


def test_its_files_are_for_its_owner(tmp_path: Path) -> None:
    LoginStore(tmp_path / "a" / "box.sqlite", secrets=tmp_path / "b" / "secret").close()
    assert (tmp_path / "a" / "box.sqlite").stat().st_mode & 0o077 == 0
    assert (tmp_path / "b" / "secret").stat().st_mode & 0o077 == 0
    (tmp_path / "b" / "secret").chmod(0o644)
    with pytest.raises(StoreFailed, match="chmod"):
        LoginStore(tmp_path / "a" / "box.sqlite", secrets=tmp_path / "b" / "secret")


def test_secrets_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "box.sqlite.key").touch(0o600)
    for content in (b"", b"x", bytes(320), bytes(321)):
        (tmp_path / "box.sqlite.key").write_bytes(content)
        with pytest.raises(StoreFailed, match="secrets"):
            LoginStore(tmp_path / "box.sqlite")
    (tmp_path / "box.sqlite.key").unlink()
    (tmp_path / "box.sqlite.key").mkdir()
    with pytest.raises(StoreFailed):
        LoginStore(tmp_path / "box.sqlite")


def test_accounts_and_keys_are_bounded() -> None:
    desk = Desk.make(LoginLimits(accounts=1, keys=2))
    caller = desk.caller(source="a")
    assert caller.register("alice") == (Refusal.DONE,)
    assert caller.register("bob") == (Refusal.FULL,)
    callers = [desk.caller() for _ in range(4)]
    for each in callers:
        desk.steady += 1
        assert each.login("alice")[0] is Refusal.DONE
    logged_in = [each.ask(LoginOp.GET_VAULT)[0] for each in callers]
    assert logged_in == [Refusal.NOT_LOGGED_IN] * 2 + [Refusal.DONE] * 2
    assert len(desk.server.sessions) == 2


def test_what_is_over_is_forgotten() -> None:
    desk = Desk.make()
    store = desk.server.store
    store.add_invitation(invitation_hash("x"), "", NOW + 10)
    caller = desk.caller()
    assert caller.register("alice") == (Refusal.DONE,)
    assert caller.login("alice")[0] is Refusal.DONE
    desk.server.expire_keys(NOW + 10**9)
    assert len(desk.server.sessions) == 0
    assert store.list_logins(NOW + 10**9) == []
    desk.server.registration = "invited"
    assert caller.register("bob", invitation=b"x")[0] is Refusal.NOT_INVITED


def test_a_login_by_a_clock_that_was_ahead_has_ended_once_the_clock_is_right(tmp_path: Path) -> None:
    """It lasted for as much longer as the clock had been ahead."""
    year = 365 * 86_400
    desk = Desk.make(path=tmp_path / "box.sqlite")
    caller, longest = desk.caller(), desk.server.store.limits.longest_session
    assert caller.register("alice") == (Refusal.DONE,)
    desk.ahead = year
    assert caller.login("alice", seconds=longest)[0] is Refusal.DONE
    key = caller.identity.id.key
    assert desk.server.sessions.find(key, desk.now.unix)
    desk.ahead -= 59  # set right a little
    assert desk.server.sessions.find(key, desk.now.unix)
    desk.ahead = 0
    assert desk.server.sessions.find(key, desk.now.unix) is None
    desk.server.expire_keys(desk.now.unix)
    assert desk.server.sessions.find(key, desk.now.unix + year) is None
    assert desk.server.store.list_logins(int(desk.now.unix)) == []
    assert caller.login("alice")[0] is Refusal.DONE
    assert desk.server.sessions.find(key, desk.now.unix)
    desk.server.store.close()


@pytest.mark.parametrize("restarted", [False, True], ids=["the same server", "begun anew"])
@pytest.mark.parametrize("seconds", [60, 20 * 86_400])
def test_a_short_login_by_a_clock_that_was_ahead_lasts_no_longer(
    tmp_path: Path, seconds: int, restarted: bool
) -> None:
    """It was to last for less than any may, and so nobody noticed by when it was to end."""
    desk = Desk.make(path=tmp_path / "box.sqlite")
    caller = desk.caller()
    assert caller.register("alice") == (Refusal.DONE,)
    desk.ahead = 5 * 86_400
    assert caller.login("alice", seconds=seconds)[0] is Refusal.DONE
    key = caller.identity.id.key
    desk.ahead = 0
    if restarted:
        desk.server = LoginServer(desk.server.store, desk.server.identity)
        desk.server.load_sessions(desk.now.unix)
    assert desk.server.sessions.find(key, desk.now.unix) is None
    desk.server.expire_keys(desk.now.unix)
    assert desk.server.sessions.find(key, desk.now.unix + 5 * 86_400 + 1) is None
    assert desk.server.store.list_logins(int(desk.now.unix)) == []
    desk.server.store.close()


def test_who_is_logged_in() -> None:
    one, two, account = (Identity.generate().id.key for _ in range(3))
    sessions = Sessions([LoginRow(one, "alice", account, 10, 0)])
    sessions.log_in(LoginRow(two, "alice", account, 20, 0))
    assert sessions.find(account, 9) == ("alice", account)
    assert sessions.find(one, 10) is None
    assert sessions.find(account, 10) == ("alice", account)  # by the other
    sessions.log_in(LoginRow(two, "bob", SERVER.id.key, 30, 0))  # the same key, to another account
    assert sessions.find(two, 25) == ("bob", SERVER.id.key)
    assert sessions.find(account, 10) is None
    sessions.log_out(two)
    sessions.log_out(two)
    assert sessions.find(SERVER.id.key, 1) is None
    sessions.expire_sessions(10)
    assert len(sessions) == 0
