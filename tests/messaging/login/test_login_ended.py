"""What those may do who are logged in, and what a changed password ends: all that the old one has begun."""

from __future__ import annotations

import pytest
from login_world import PASSWORD, Caller, Desk

from dtp.identity import Identity
from dtp.messaging.login.limits import LoginLimits
from dtp.messaging.login.protocol import LoginOp, Refusal, Slot
from dtp.messaging.login.vault import make_key

ACCOUNT = Identity.generate()


def desk_of_alice() -> Desk:
    desk = Desk.make()
    assert desk.caller().register("alice", account=ACCOUNT) == (Refusal.DONE,)
    return desk


def change(caller: Caller, slot: Slot, password: str) -> tuple[object, ...]:
    """Have another password, or recovery code."""
    made = caller.credential("alice", slot, password, make_key())
    (_, version, _) = caller.ask(LoginOp.GET_VAULT)
    return caller.ask(LoginOp.SET_CREDENTIALS, [made.to_row()], version + 1, b"another vault")


@pytest.mark.parametrize("slot", list(Slot))
def test_a_login_that_began_before_the_password_changed_comes_to_nothing(slot: Slot) -> None:
    """Whoever had the old one kept it waiting, and was let in by it later."""
    desk = desk_of_alice()
    owner, thief = desk.caller(), desk.caller()
    login, (_, response) = thief.begin("alice")
    finalization, key, _ = login.finish(response)
    assert owner.login("alice")[0] is Refusal.DONE
    assert change(owner, slot, "another one altogether") == (Refusal.DONE,)
    sent = (finalization, thief.proof(key, "alice"), 0)
    assert thief.ask(LoginOp.LOGIN_FINISH, *sent) == (Refusal.FAILED,)
    assert thief.ask(LoginOp.GET_VAULT) == (Refusal.NOT_LOGGED_IN,)
    assert owner.ask(LoginOp.GET_VAULT)[0] is Refusal.DONE


@pytest.mark.parametrize("who", [ACCOUNT, None])
@pytest.mark.parametrize("how", ["password", "log out"])
def test_who_is_logged_in_as_the_account_itself_is_so_no_more(who: Identity | None, how: str) -> None:
    """The account's identity counts while any key of it is logged in: whoever had it from the vault went on, and
    could change the password again."""
    desk = desk_of_alice()
    owner, thief, other = desk.caller(), desk.caller(who), desk.caller(who)
    for each in (thief, owner, other):
        assert each.login("alice")[0] is Refusal.DONE
    if how == "password":
        assert change(owner, Slot.PASSWORD, "another one altogether") == (Refusal.DONE,)
    else:
        assert owner.ask(LoginOp.LOG_OUT, 1) == (Refusal.DONE,)
        assert owner.login("alice")[0] is Refusal.DONE
    for each in (thief, other):
        assert each.ask(LoginOp.GET_VAULT) == (Refusal.NOT_LOGGED_IN,)
        assert each.ask(LoginOp.PUT_VAULT, 3, b"the thief's") == (Refusal.NOT_LOGGED_IN,)
        assert each.ask(LoginOp.SET_CREDENTIALS, [], 3, b"the thief's") == (Refusal.NOT_LOGGED_IN,)
        assert each.ask(LoginOp.LEAVE) == (Refusal.NOT_LOGGED_IN,)
    assert owner.ask(LoginOp.GET_VAULT)[0] is Refusal.DONE


def test_an_ended_conversation_of_the_account_itself_stays_so_when_its_owner_comes_back() -> None:
    """The thief and the owner have the same key then: by the key alone both would be logged in again."""
    desk = desk_of_alice()
    owner, thief, again = desk.caller(), desk.caller(ACCOUNT), desk.caller(ACCOUNT)
    for each in (owner, thief):
        assert each.login("alice")[0] is Refusal.DONE
    assert change(owner, Slot.PASSWORD, "another one altogether") == (Refusal.DONE,)
    assert again.login("alice", "another one altogether")[0] is Refusal.DONE
    assert thief.ask(LoginOp.GET_VAULT) == (Refusal.NOT_LOGGED_IN,)
    assert thief.ask(LoginOp.SET_CREDENTIALS, [], 3, b"the thief's") == (Refusal.NOT_LOGGED_IN,)
    assert again.ask(LoginOp.GET_VAULT)[0] is Refusal.DONE


def test_a_key_that_logs_in_to_another_account_is_logged_in_to_the_first_no_more() -> None:
    desk = desk_of_alice()
    key = Identity.generate()
    first, second = desk.caller(key), desk.caller(key)
    assert desk.caller().register("bob") == (Refusal.DONE,)
    assert first.login("alice")[0] is Refusal.DONE
    assert second.login("bob")[0] is Refusal.DONE
    assert first.ask(LoginOp.PUT_VAULT, 2, b"of whom?") == (Refusal.NOT_LOGGED_IN,)
    assert second.ask(LoginOp.GET_VAULT)[0] is Refusal.DONE


def test_nobody_keeps_all_others_from_the_disk_by_changing_their_own_vault() -> None:
    desk = Desk.make(LoginLimits(changes=3, change_pause=10.0))
    assert desk.caller().register("alice") == (Refusal.DONE,)
    callers = [desk.caller(source=str(each)) for each in range(3)]
    for each in callers:
        assert each.login("alice")[0] is Refusal.DONE
    told = [callers[at % 3].ask(LoginOp.PUT_VAULT, at + 2, b"a vault") for at in range(4)]
    assert told == [*[(Refusal.DONE,)] * 3, (Refusal.TOO_OFTEN, 10)]
    desk.steady += 10
    assert callers[0].ask(LoginOp.PUT_VAULT, 5, b"a vault") == (Refusal.DONE,)


def test_who_is_logged_out_as_the_account_itself_is_so_though_others_are_logged_in() -> None:
    desk = desk_of_alice()
    owner, itself = desk.caller(), desk.caller(ACCOUNT)
    second = desk.caller(ACCOUNT)
    for each in (owner, itself, second):
        assert each.login("alice", PASSWORD)[0] is Refusal.DONE
    assert itself.ask(LoginOp.LOG_OUT, 0) == (Refusal.DONE,)
    assert second.ask(LoginOp.GET_VAULT) == (Refusal.NOT_LOGGED_IN,)
    assert owner.ask(LoginOp.GET_VAULT)[0] is Refusal.DONE
    found = desk.server.sessions.find(ACCOUNT.id.key, desk.now.unix)
    assert found is not None  # services take it for the account while the other is logged in
    assert found.name == "alice"
