"""Whoever attacks logins: guesses, oracles, changed and repeated messages, a server in the middle, a stolen file."""

from __future__ import annotations

import hmac
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from login_world import PASSWORD, SERVER, Caller, Desk, World, in_world
from mortal import open_by

from dtp.carriers.nearness import OF_NETWORK
from dtp.identity import Identity
from dtp.messaging.errors import StoreFailed
from dtp.messaging.login import client as client_room
from dtp.messaging.login.conversation import LoginServer, Moment
from dtp.messaging.login.errors import LoginFailed, LoginMalformed, VaultBroken
from dtp.messaging.login.limits import LoginLimits
from dtp.messaging.login.opaque import (
    FINALIZATION,
    LOGIN_REQUEST,
    LOGIN_RESPONSE,
    RECORD,
    REGISTRATION_REQUEST,
    OpaqueLogin,
    Registration,
    ServerSecrets,
)
from dtp.messaging.login.protocol import (
    FIELDS,
    LoginOp,
    Refusal,
    Slot,
    parse_answer,
    parse_request,
    registration_statement,
)
from dtp.messaging.login.store import LoginStore
from dtp.messaging.packing import pack


def registered(name: str = "alice", **options: Any) -> Desk:
    desk = Desk.make(**options)
    assert desk.caller().register(name) == (Refusal.DONE,)
    return desk


# ---- guesses -------------------------------------------------------------------------------------------------------


def test_a_wrong_password_ten_thousand_times() -> None:
    """From as many sources, one a second: 26 of them are answered, and the owner comes in meanwhile."""
    desk = registered()
    owner = desk.caller(source="home")
    assert owner.login("alice")[0] is Refusal.DONE
    request, guesser = OpaqueLogin("a wrong password").request, Identity.generate()
    answered = 0
    for number in range(10_000):
        desk.steady += 1
        code, *_ = desk.caller(guesser, f"s{number}").ask(
            LoginOp.LOGIN_START, "alice", int(Slot.PASSWORD), request
        )
        assert code in (Refusal.DONE, Refusal.TOO_OFTEN)
        answered += code is Refusal.DONE
    limits = LoginLimits()
    assert answered == limits.account_tries + 10_000 // limits.account_pause
    again = desk.caller(owner.identity, source="home")  # it has logged in before: nobody has locked it out
    assert again.login("alice")[0] is Refusal.DONE
    stranger = desk.caller(source="elsewhere")
    code, wait = stranger.begin("alice")[1]
    assert code is Refusal.TOO_OFTEN
    assert 0 < wait <= limits.account_pause
    desk.steady += wait
    assert stranger.login("alice")[0] is Refusal.DONE
    assert stranger.login("alice")[0] is Refusal.DONE  # who knew the password is counted anew


def test_registering_gives_no_more_guesses_than_logging_in() -> None:
    """What a record is made of shows whether a guess is right, beside one answer to a login with any password: each
    source had 60 of these at once."""
    desk, limits = registered(), LoginLimits()
    desk.steady += limits.account_tries * limits.account_pause
    guesser = Identity.generate()
    _, (_, answer) = desk.caller(guesser, "spy").begin("alice", "any")
    found = []
    for number, guess in enumerate([*(f"guess {each}" for each in range(60)), PASSWORD]):
        registration = Registration(guess)
        code, *told = desk.caller(guesser, f"s{number}").ask(
            LoginOp.REGISTER_START, "alice", int(Slot.PASSWORD), registration.request
        )
        if code is Refusal.DONE:
            found.append(is_of_record(answer, told[0], registration))
    assert found == [False] * (limits.account_tries - 1)
    desk.steady += limits.account_tries * limits.account_pause
    registration = Registration(PASSWORD)
    _, response = desk.caller(guesser).ask(
        LoginOp.REGISTER_START, "alice", int(Slot.PASSWORD), registration.request
    )
    assert is_of_record(answer, response, registration)


def is_of_record(answer: bytes, response: bytes, registration: Registration) -> bool:
    """Return whether a password is that of the record which an answer to a login hides (RFC 9807, 6.3.2.2)."""
    masking_key = registration.finish(response)[0][32:96]
    pad = hmac.digest(masking_key, answer[32:64] + b"CredentialResponsePad\x01", "sha512")
    server_key = bytes(a ^ b for a, b in zip(answer[64:96], pad, strict=False))
    return server_key == response[32:]


class Rebooted(Desk):
    """A server on a machine that was started since: one of its clocks began anew."""

    @property
    def now(self) -> Moment:
        return super().now._replace(steady=self.steady - 900)


def test_a_server_that_is_begun_again_has_not_forgotten_the_guesses(tmp_path: Path) -> None:
    desk, limits = registered(path=tmp_path / "box.sqlite"), LoginLimits()
    guesses = [desk.caller().begin("alice", "guess")[1][0] for _ in range(limits.account_tries)]
    assert guesses == [Refusal.DONE] * limits.account_tries
    for _ in range(3):
        desk.server.store.close()
        desk = Rebooted(LoginServer(LoginStore(tmp_path / "box.sqlite"), SERVER.id), desk.steady)
        desk.server.expire_keys(desk.now.unix)
        code, wait = desk.caller().begin("alice")[1]
        assert code is Refusal.TOO_OFTEN
        assert limits.account_pause - 1 < wait <= limits.account_pause + 1
    desk.steady += wait + 1
    stranger = desk.caller()
    assert stranger.begin("alice", "guess")[1][0] is Refusal.DONE
    assert stranger.begin("alice", "guess")[1][0] is Refusal.TOO_OFTEN
    desk.steady += limits.account_pause + 1
    assert stranger.login("alice")[0] is Refusal.DONE
    desk.server.store.close()
    desk = Rebooted(LoginServer(LoginStore(tmp_path / "box.sqlite"), SERVER.id), desk.steady)
    other = desk.caller()
    tries = [other.begin("alice", "guess")[1][0] for _ in range(limits.account_tries + 1)]
    assert tries == [
        *[Refusal.DONE] * limits.account_tries,
        Refusal.TOO_OFTEN,
    ]  # who knew it has cleared the count
    desk.server.store.close()


def test_a_flood_of_names_leaves_as_many_tries_as_are_remembered(tmp_path: Path) -> None:
    store = LoginStore(tmp_path / "box.sqlite", LoginLimits(remembered=10))
    for number in range(30):
        store.note_tries(f"n{number}", 1000.0 + number)
    store.expire_rows(1025)
    assert [number for number in range(30) if store.tries_until(f"n{number}")] == [*range(26, 30)]
    for number in range(30):
        store.note_tries(f"n{number}", 2000.0 + number)
    store.expire_rows(1026)
    assert [number for number in range(30) if store.tries_until(f"n{number}")] == [*range(20, 30)]
    store.close()


def test_one_source_guesses_one_password_for_many_names() -> None:
    desk, limits = registered(), LoginLimits()
    request = OpaqueLogin("password1").request
    caller = desk.caller(source="there")
    codes = [caller.ask(LoginOp.LOGIN_START, f"n{number}", 0, request)[0] for number in range(1000)]
    assert codes.count(Refusal.DONE) == limits.source_tries
    assert desk.caller(source="elsewhere").login("alice")[0] is Refusal.DONE


def test_who_has_an_ipv6_network_guesses_and_registers_a_few_times_as_much_as_one_source() -> None:
    """Each of 65,536 sources of a /48 had as many tries as if it were alone."""
    desk, limits = registered(), LoginLimits()
    request, tries = OpaqueLogin("password1").request, list[int]()
    made: list[int] = []
    for number in range(10):
        caller = desk.caller(source=f"2a02:db8:1:{number:x}::/64")
        tries += [caller.ask(LoginOp.LOGIN_START, f"n{number}-{at}", 0, request)[0] for at in range(60)]
        made += [caller.ask(LoginOp.REGISTER, f"m{at}", b"", b"", b"", [], b"")[0] for at in range(10)]
    assert tries.count(Refusal.DONE) == limits.source_tries * OF_NETWORK
    assert len(made) - made.count(Refusal.TOO_OFTEN) == limits.registrations * OF_NETWORK
    assert desk.caller(source="2a02:db8:2::/64").login("alice")[0] is Refusal.DONE


def test_logging_in_to_an_own_account_gives_no_more_guesses_of_another() -> None:
    desk, limits = registered("alice"), LoginLimits()
    assert desk.caller(source="a").register("mallory") == (Refusal.DONE,)
    answered = 0
    for number in range(limits.account_tries + 5):
        caller = desk.caller(source=f"s{number}")
        assert caller.login("mallory")[0] is Refusal.DONE
        answered += caller.begin("alice", "guess")[1][0] is Refusal.DONE
    assert answered == limits.account_tries


# ---- which names there are -----------------------------------------------------------------------------------------


def test_no_answer_tells_which_accounts_there_are() -> None:
    """The same codes, sizes and limits, and for a request that is sent again the same evaluation, whether or not."""
    said: dict[str, list[Any]] = {}
    for name in ("alice", "nobody"):
        desk = registered()
        found = said[name] = []
        request = OpaqueLogin("guess").request
        for number in range(LoginLimits().account_tries + 2):
            caller = desk.caller(source=f"s{number}")
            for op, fields in (
                (LoginOp.REGISTER_START, (name, 1, Registration("x").request)),
                (LoginOp.LOGIN_START, (name, 0, request)),
                (LoginOp.LOGIN_FINISH, (bytes(FINALIZATION), bytes(32), 0)),
                (LoginOp.GET_VAULT, ()),
            ):
                code, *rest = caller.ask(op, *fields)
                found.append((op, code, [len(one) if isinstance(one, bytes) else one for one in rest]))
        codes = {(op, code) for op, code, _ in found}
        assert (LoginOp.LOGIN_FINISH, Refusal.FAILED) in codes
        assert (LoginOp.LOGIN_START, Refusal.TOO_OFTEN) in codes
    assert said["alice"] == said["nobody"]


def test_an_account_that_comes_changes_nothing_of_what_was_answered() -> None:
    desk, request = Desk.make(), OpaqueLogin("guess").request

    def evaluated() -> bytes:
        return desk.caller().ask(LoginOp.LOGIN_START, "alice", 0, request)[1][:32]

    before = evaluated()
    assert desk.caller().register("alice") == (Refusal.DONE,)
    assert evaluated() == before
    assert desk.caller().ask(LoginOp.LOGIN_START, "bob", 0, request)[1][:32] != before


def test_work_is_the_same_for_accounts_that_there_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    class Counting(sqlite3.Connection):
        def execute(self, query: str, *values: Any) -> sqlite3.Cursor:
            done.append(query)
            return super().execute(query, *values)

    open_by(monkeypatch, Counting)
    desk, counts = registered(), {}
    for name in ("alice", "nobody"):
        done.clear()
        caller = desk.caller()
        caller.begin(name)
        caller.ask(LoginOp.LOGIN_FINISH, bytes(FINALIZATION), bytes(32), 0)
        counts[name] = list(done)
    assert counts["alice"] == counts["nobody"]
    assert len(counts["alice"]) == 9


def test_names_are_asked_for_slowly_by_registering() -> None:
    caller = Desk.make(LoginLimits(registrations=3)).caller()
    assert caller.register("alice") == (Refusal.DONE,)
    assert [caller.register("alice")[0] for _ in range(3)] == [
        Refusal.NAME_TAKEN,
        Refusal.NAME_TAKEN,
        Refusal.TOO_OFTEN,
    ]
    assert Desk.make(registration="closed").caller().register("alice") == (Refusal.NOT_INVITED,)


# ---- changed and repeated messages ---------------------------------------------------------------------------------


def test_what_is_changed_anywhere_logs_nobody_in() -> None:
    desk = registered()
    caller = desk.caller()
    login, (_, response) = caller.begin("alice")
    finalization, key, _ = login.finish(response)
    proof = caller.proof(key, "alice")
    for at in range(0, FINALIZATION, 5):
        desk.steady += 3600
        changed = bytearray(finalization)
        changed[at] ^= 1
        other = desk.caller(caller.identity)
        _login, _ = other.begin("alice")
        assert other.ask(LoginOp.LOGIN_FINISH, bytes(changed), proof, 0) == (Refusal.FAILED,)
    assert caller.ask(LoginOp.LOGIN_FINISH, finalization, bytes(32), 0) == (
        Refusal.FAILED,
    )  # without the proof
    assert caller.ask(LoginOp.LOGIN_FINISH, finalization, proof, 0) == (
        Refusal.NOT_LOGGED_IN,
    )  # it ends once
    assert caller.login("alice")[0] is Refusal.DONE


def test_a_client_refuses_an_answer_that_was_changed() -> None:
    desk = registered()
    for at in range(0, LOGIN_RESPONSE, 29):  # each costs an Argon2
        desk.steady += 3600
        login, (_, response) = desk.caller().begin("alice")
        changed = bytearray(response)
        changed[at] ^= 1
        with pytest.raises((LoginFailed, LoginMalformed)):
            login.finish(bytes(changed))


def test_what_was_recorded_is_worth_nothing_again() -> None:
    desk = registered()
    caller = desk.caller()
    login, (_, response) = caller.begin("alice")
    finalization, key, _ = login.finish(response)
    sent = (finalization, caller.proof(key, "alice"), 0)
    assert caller.ask(LoginOp.LOGIN_FINISH, *sent)[0] is Refusal.DONE
    replay = desk.caller(caller.identity)
    assert replay.ask(LoginOp.LOGIN_FINISH, *sent) == (Refusal.NOT_LOGGED_IN,)
    replay.ask(LoginOp.LOGIN_START, "alice", 0, login.request)
    assert replay.ask(LoginOp.LOGIN_FINISH, *sent) == (Refusal.FAILED,)
    assert replay.ask(LoginOp.GET_VAULT) == (Refusal.NOT_LOGGED_IN,)


def test_a_server_in_the_middle_is_not_logged_in() -> None:
    """A user was led to another server, which passes everything on: what it gets proves the ends it was made for."""
    desk = registered()
    user, middle = Identity.generate(), Identity.generate()
    caller = desk.caller(middle)
    login, (_, response) = caller.begin("alice")
    finalization, key, _ = login.finish(response)
    from dtp.messaging.login.opaque import make_proof

    for server, client in ((middle.id.key, user.id.key), (SERVER.id.key, user.id.key)):
        proof = make_proof(key, b"client", server, client, b"alice")
        assert caller.ask(LoginOp.LOGIN_FINISH, finalization, proof, 0) == (Refusal.FAILED,)
        login, (_, response) = caller.begin("alice")
        finalization, key, _ = login.finish(response)


def test_nobody_registers_the_identity_of_another() -> None:
    desk, victim, thief = Desk.make(), Identity.generate(), Identity.generate()
    caller = desk.caller()
    from dtp.messaging.login.vault import Vault, make_key

    key = make_key()
    sealed = Vault(thief).seal(key, "alice")
    credentials = [caller.credential("alice", slot, PASSWORD, key) for slot in Slot]
    rows = [each.to_row() for each in credentials]
    statement = registration_statement(SERVER.id.key, "alice", credentials, sealed)
    elsewhere = registration_statement(victim.id.key, "alice", credentials, sealed)
    for signature in (thief.sign(statement), victim.sign(elsewhere), bytes(64), b""):
        told = ("alice", b"", victim.id.key, signature, rows, sealed)
        assert caller.ask(LoginOp.REGISTER, *told) == (Refusal.MALFORMED,)
    assert caller.ask(
        LoginOp.REGISTER, "alice", b"", victim.id.key, victim.sign(statement), rows[:1], sealed
    ) == (Refusal.MALFORMED,)
    for bad in (bytes(32), b"\xff" * 32):
        told = ("alice", b"", bad, victim.sign(statement), rows, sealed)
        assert caller.ask(LoginOp.REGISTER, *told) == (Refusal.MALFORMED,)
    told = ("alice", b"", victim.id.key, victim.sign(statement), rows, sealed)
    assert caller.ask(LoginOp.REGISTER, *told) == (Refusal.DONE,)


@pytest.mark.parametrize("op", [op for op in LoginOp if op > LoginOp.LOGIN_FINISH])
def test_nothing_is_done_for_who_is_not_logged_in(op: LoginOp) -> None:
    fields = {"bytes": b"x", "number": 1, "list": [], "key": bytes(32), "name": "alice"}
    told = [fields[form] for form in FIELDS[op]]
    assert registered().caller().ask(op, *told) == (Refusal.NOT_LOGGED_IN,)


def test_a_login_that_fails_ends_the_one_before() -> None:
    desk = registered()
    caller = desk.caller()
    assert caller.login("alice")[0] is Refusal.DONE
    caller.begin("bob")
    assert caller.ask(LoginOp.GET_VAULT) == (Refusal.NOT_LOGGED_IN,)


# ---- a server that lies --------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("what", ["proof", "identity", "wrapped", "version", "vault", "other vault"])
def test_a_server_that_lies_is_named(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = LoginServer.answer_request
    other = registered().caller().login("alice")  # of another account that is called the same
    at = {"proof": 1, "identity": 2, "wrapped": 3, "version": 4, "vault": 5, "other vault": 5}[what]

    def answer(self: LoginServer, conversation: Any, op: LoginOp, *rest: Any) -> tuple[Any, ...]:
        told = list(genuine(self, conversation, op, *rest))
        if op is LoginOp.LOGIN_FINISH:
            changed = {"version": 9, "identity": other[2], "other vault": other[5]}
            told[at] = changed.get(what) or told[at][:-1] + bytes((told[at][-1] ^ 1,))
        return tuple(told)

    async def scenario(world: World) -> None:
        await world.serve()
        await world.register()
        monkeypatch.setattr(LoginServer, "answer_request", answer)
        with pytest.raises((VaultBroken, LoginMalformed)):
            await world.login()

    in_world(scenario, tmp_path)


@pytest.mark.parametrize("answer", [b"", b"\xc1", pack([]), pack("x"), pack([0]), pack([0, 1]), pack([99])])
def test_a_server_that_babbles_is_named(answer: bytes) -> None:
    from dtp.messaging.login.protocol import LoginRefused

    try:
        fields = parse_answer(answer)
    except (LoginMalformed, LoginRefused):
        return
    assert fields in ([], [1])  # whoever asked says what is missing


# ---- a stolen file -------------------------------------------------------------------------------------------------


def test_a_stolen_file_gives_nothing_without_guessing(tmp_path: Path) -> None:
    path = tmp_path / "box.sqlite"
    desk = Desk.make(path=path)
    account = Identity.generate()
    assert desk.caller().register("alice", account=account) == (Refusal.DONE,)
    told = desk.caller().login("alice")
    assert told[0] is Refusal.DONE
    desk.server.store.close()
    stolen = path.read_bytes()
    for secret in (PASSWORD.encode(), account.seed, account.static_private):
        assert secret not in stolen
    # The records without the secrets answer no guess, not even the right one.
    path.with_name("box.sqlite.key").unlink()
    with pytest.raises(StoreFailed, match="secrets"):
        LoginStore(path)
    path.with_name("box.sqlite.key").write_bytes(ServerSecrets.generate().encoded)
    path.with_name("box.sqlite.key").chmod(0o600)
    with pytest.raises(StoreFailed, match="not those"):
        LoginStore(path)


def test_a_record_is_of_one_name_and_one_server() -> None:
    """A record that somebody writes under another name, or has taken to another server, lets nobody in."""
    secrets, registration = ServerSecrets.generate(), Registration(PASSWORD)
    response = secrets.respond_to_registration(registration.request, "0:alice")
    record = secrets.check_record(registration.finish(response)[0])
    for server, name in ((secrets, "0:bob"), (secrets, "1:alice"), (ServerSecrets.generate(), "0:alice")):
        login = OpaqueLogin(PASSWORD)
        with pytest.raises(LoginFailed):
            login.finish(server.begin_login(login.request, name, record).response)
    login = OpaqueLogin(PASSWORD)
    began = secrets.begin_login(login.request, "0:alice", record)
    finalization, key, _ = login.finish(began.response)
    assert began.finish(finalization) == key
    with pytest.raises(LoginMalformed):
        began.finish(finalization)  # it ends once


# ---- bytes that are anything ---------------------------------------------------------------------------------------

SECRETS = ServerSecrets.generate()


@given(st.binary(max_size=400))
@settings(deadline=None)
def test_what_is_no_message_of_opaque_is_named(data: bytes) -> None:
    for work in (
        lambda: SECRETS.respond_to_registration(data, "0:alice"),
        lambda: SECRETS.check_record(data),
        lambda: SECRETS.begin_login(data, "0:alice", SECRETS.nobody),
    ):
        with pytest.raises(LoginMalformed):
            work()


@pytest.mark.parametrize("fill", [0, 255])
def test_points_that_are_none_are_refused(fill: int) -> None:
    for size, work in (
        (REGISTRATION_REQUEST, lambda data: SECRETS.respond_to_registration(data, "0:a")),
        (RECORD, SECRETS.check_record),
        (LOGIN_REQUEST, lambda data: SECRETS.begin_login(data, "0:a", SECRETS.nobody)),
        (LOGIN_RESPONSE, lambda data: OpaqueLogin("x").finish(data)),
    ):
        with pytest.raises(LoginMalformed):
            work(bytes([fill]) * size)


@given(st.recursive(st.none() | st.integers() | st.binary() | st.text(), lambda x: st.lists(x, max_size=7)))
@settings(deadline=None)
def test_requests_are_read_or_named(told: Any) -> None:
    try:
        data = pack(told)
    except (OverflowError, UnicodeEncodeError):
        return
    try:
        op, fields = parse_request(data)
    except LoginMalformed:
        return
    code, *_ = Desk(SERVER_DESK.server).caller().ask(op, *fields)
    assert code in tuple(Refusal)


SERVER_DESK = Desk.make(LoginLimits(source_tries=10**6, registrations=10**6))


@given(st.data())
@settings(deadline=None)
def test_fields_are_of_any_kind(data: st.DataObject) -> None:
    caller: Caller = SERVER_DESK.caller()
    op = data.draw(st.sampled_from(LoginOp))
    forms = {
        "bytes": st.binary(max_size=400),
        "number": st.integers(0, 2**63 - 1),
        "list": st.lists(st.lists(st.integers(0, 3) | st.binary(max_size=200), max_size=4), max_size=2),
        "key": st.binary(min_size=32, max_size=32),
        "name": st.just("alice"),
    }
    code, *_ = caller.ask(op, *[data.draw(forms[form]) for form in FIELDS[op]])
    assert code in tuple(Refusal)


def test_the_other_library_speaks_the_same() -> None:
    """`opaque-ke-py` is a binding of its own, of a release of its own: what one has made the other opens."""
    import opaque_ke_py as other

    registration = Registration(PASSWORD)
    secrets = ServerSecrets.generate()
    response = secrets.respond_to_registration(registration.request, "0:alice")
    upload, export_key = registration.finish(response)
    record = secrets.check_record(upload)
    started = other.client_login_start(PASSWORD.encode())
    began = secrets.begin_login(started.get_message(), "0:alice", record)
    finished = other.client_login_finish(PASSWORD.encode(), started.get_state(), began.response)
    assert finished.get_export_key() == export_key
    assert began.finish(finished.get_message()) == finished.get_session_key()
    server = other.ServerSetupData.from_bytes(secrets.encoded[:128])
    login = OpaqueLogin(PASSWORD)
    answered = other.server_login_start(server, record, login.request, b"0:alice")
    finalization, key, _ = login.finish(answered.get_message())
    assert other.server_login_finish(answered.get_state(), finalization).get_session_key() == key


def test_the_client_room_has_no_way_around() -> None:
    """What logs in is what is exported, so that the tests above are of what users have."""
    import dtp

    assert dtp.login is client_room.login
