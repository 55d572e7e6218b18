"""Logins, both ends: accounts, vaults, new passwords, recovery, who is logged in, and what a server may do wrong."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from login_world import NOW, PASSWORD, World, in_world

import dtp
from dtp.identity import Identity
from dtp.messaging.login.client import recover_account
from dtp.messaging.login.errors import (
    LoginError,
    LoginFailed,
    NameUnusable,
    VaultBroken,
    VaultRolledBack,
)
from dtp.messaging.login.limits import LoginLimits
from dtp.messaging.login.names import is_name, normalize_name, normalize_password, normalize_recovery_code
from dtp.messaging.login.protocol import LoginRefused, Refusal
from dtp.messaging.login.store import invitation_hash
from dtp.messaging.login.vault import MAX_VAULT, Vault, make_key


def test_one_account_from_any_wallet(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        service = await world.serve()
        first, second = Identity.generate(), Identity.generate()
        made = await world.register("Alice", identity=first, settings={"theme": "dark"})
        assert made.recovery_code
        again = await world.login("ALICE", identity=second)
        assert again.identity.id == made.identity.id
        assert again.settings == {"theme": "dark"}
        assert again.recovery_code == ""
        for key in (first.id.key, second.id.key, made.identity.id.key):
            found = service.sessions.find(key, world.now)
            assert found == ("alice", made.identity.id.key)
        assert service.sessions.find(Identity.generate().id.key, world.now) is None

    in_world(scenario, tmp_path)


def test_a_vault_is_changed_by_one_at_a_time(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.serve()
        one = await world.register()
        two = await world.login()
        await one.save(wallets={one.identity.id.sui_address: "phone"}, settings={"n": 1})
        with pytest.raises(LoginRefused) as refused:
            await two.save(settings={"n": 2})
        assert (refused.value.refusal, refused.value.detail) == (Refusal.OTHER_VERSION, 2)
        await two.refresh()
        assert two.wallets == one.wallets
        assert two.settings == {"n": 1}
        await two.save(settings={"n": 2})
        assert (await world.login()).settings == {"n": 2}

    in_world(scenario, tmp_path)


def test_a_wrong_password_and_a_wrong_name_are_the_same_error(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.serve()
        await world.register()
        said = []
        for name, password in (("alice", "wrong password"), ("nobody", PASSWORD)):
            with pytest.raises(LoginFailed) as failed:
                await world.login(name, password)
            said.append((type(failed.value), failed.value.code, str(failed.value)))
        assert said[0] == said[1]
        assert (await world.login()).name == "alice"

    in_world(scenario, tmp_path)


def test_a_new_password_ends_other_logins(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        service = await world.serve()
        made = await world.register()
        code = made.recovery_code
        thief = await world.login(identity=Identity.generate())
        await made.change_password("a quite new sentence")
        with pytest.raises(LoginRefused) as refused:
            await thief.save(settings={"mine": True})
        assert refused.value.refusal is Refusal.NOT_LOGGED_IN
        with pytest.raises(LoginFailed):
            await world.login()
        assert (await world.login(password="a quite new sentence")).identity.id == made.identity.id
        # The code is the one from the registration still; it is another one once it was used.
        recovered = await recover_account(
            world.address, "alice", code.lower().replace("-", " "), "third password", remember=False
        )
        async with recovered:
            assert recovered.identity.id == made.identity.id
            assert recovered.recovery_code not in ("", code)
        with pytest.raises(LoginFailed):
            await recover_account(world.address, "alice", code, "fourth password", remember=False)
        with pytest.raises(LoginFailed):
            await world.login(password="a quite new sentence")
        assert (await world.login(password="third password")).vault.version == 3
        assert service.server.counters["set_credentials"] == 2

    in_world(scenario, tmp_path)


def test_logins_end(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        service = await world.serve()
        made = await world.register()
        key = made.identity.id.key
        device = await world.login(identity=Identity.generate(), seconds=60)
        assert device.until == NOW + 60
        await made.log_out()
        assert service.sessions.find(key, NOW + 59)
        assert service.sessions.find(key, NOW + 60) is None
        world.now += 61
        with pytest.raises(LoginRefused) as refused:
            await device.refresh()
        assert refused.value.refusal is Refusal.NOT_LOGGED_IN
        one, two = await world.login(), await world.login()
        await one.log_out(everywhere=True)
        with pytest.raises(LoginRefused):
            await two.refresh()
        assert service.sessions.find(key, world.now) is None
        last = await world.login(seconds=1 << 40)
        assert last.until == world.now + LoginLimits().longest_session
        await last.delete_account()
        assert service.sessions.find(key, world.now) is None
        with pytest.raises(LoginFailed):
            await world.login()
        assert (
            await world.register()
        ).identity.id != made.identity.id  # the name is free, its past forgotten

    in_world(scenario, tmp_path)


def test_who_is_logged_in_stays_so_over_a_restart(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.serve()
        made = await world.register()
        again = await world.serve()
        assert again.sessions.find(made.identity.id.key, world.now)
        assert (await world.login()).identity.id == made.identity.id

    in_world(scenario, tmp_path)


def test_invitations(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        service = await world.serve(registration="invited")
        store = service.server.store
        store.add_invitation(invitation_hash("for anybody"), "", NOW + 10)
        store.add_invitation(invitation_hash("for bob"), "bob", NOW + 10)
        for name, invitation in (("alice", ""), ("alice", "for bob"), ("bob", "forged")):
            with pytest.raises(LoginRefused) as refused:
                await world.register(name, invitation=invitation)
            assert refused.value.refusal is Refusal.NOT_INVITED
        await world.register("bob", invitation="for bob")
        await world.register("carol", invitation="for anybody")
        with pytest.raises(LoginRefused) as refused:  # used up
            await world.register("dave", invitation="for anybody")
        assert refused.value.refusal is Refusal.NOT_INVITED
        store.add_invitation(invitation_hash("late"), "", NOW)
        with pytest.raises(LoginRefused):
            await world.register("dave", invitation="late")

    in_world(scenario, tmp_path)


def test_an_older_vault_is_noticed(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        service = await world.serve()
        made = await world.register()
        backup = tmp_path / "backup"
        backup.mkdir()
        await made.save(settings={"n": 1})
        await service.stop()
        service.server.store.close()
        for end in ("", ".key"):
            shutil.copy(tmp_path / f"box.sqlite{end}", backup / f"box.sqlite{end}")
        newer = await world.serve()
        session = await world.login()
        await session.save(settings={"n": 2})
        await session.change_password("a newer password")
        newer.server.store.close()
        world.folder = backup  # the server's disk is what it was
        await world.serve()
        with pytest.raises(VaultRolledBack) as older:
            await world.login(remember=tmp_path / "seen.sqlite")
        assert (older.value.given, older.value.seen) == (2, 4)
        accepted = await world.login(remember=tmp_path / "seen.sqlite", accept_older=True)
        await accepted.save(settings={"n": 3})
        assert (await world.login(remember=tmp_path / "seen.sqlite")).settings == {"n": 3}

    in_world(scenario, tmp_path)


def test_names_and_passwords_have_one_spelling() -> None:
    assert normalize_name("\uff21lice") == normalize_name("ALICE") == "alice"
    assert normalize_name("Straße") == "strasse"
    assert is_name("alice")
    assert not is_name("Alice")
    assert normalize_password("u\u0308ber\u00a0all") == normalize_password("\u00fcber all")
    for bad in ("", "a b", "a\u200bb", "a\x00", "x" * 65, "\ud800"):
        with pytest.raises(NameUnusable):
            normalize_name(bad)
    for bad in ("", "x" * 1025, "\ud800"):
        with pytest.raises(NameUnusable):
            normalize_password(bad)
    code = "ABCD-EFGH-IJKL-MNOP-QRST-UVWX-YZ23-4567"
    assert normalize_recovery_code(code.replace("I", "1").replace("O", "0").lower()) == code.replace("-", "")
    for bad in ("", code[:-1], code[:-1] + "9"):
        with pytest.raises(NameUnusable):
            normalize_recovery_code(bad)


def test_short_passwords_are_not_set(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.serve()
        with pytest.raises(NameUnusable):
            await world.register(password="seven77")
        session = await world.register()
        with pytest.raises(NameUnusable):
            await session.change_password("seven77")

    in_world(scenario, tmp_path)


def test_a_vault_opens_whole_or_not_at_all() -> None:
    key, owner = make_key(), Identity.generate()
    vault = Vault(owner, {"0x1": "phone"}, {"n": -3, "on": True, "raw": b"\x00", "text": "t"}, 7)
    sealed = vault.seal(key, "alice")
    opened = Vault.open(sealed, key, "alice")
    assert (opened.identity.id, opened.wallets, opened.settings, opened.version) == (
        owner.id,
        vault.wallets,
        vault.settings,
        7,
    )
    assert len(sealed) == len(Vault(owner).seal(key, "alice"))  # a size tells little
    for broken in (sealed[:-1], b"", sealed[:40], bytes((sealed[0] ^ 1,)) + sealed[1:]):
        with pytest.raises(VaultBroken):
            Vault.open(broken, key, "alice")
    for name, with_key in (("bob", key), ("alice", make_key())):
        with pytest.raises(VaultBroken):
            Vault.open(sealed, with_key, name)


@pytest.mark.parametrize(
    "settings", [{"n": 1.5}, {"n": 2**63}, {1: "x"}, {"n": None}, {"n": "x" * MAX_VAULT}], ids=str
)
def test_what_no_vault_keeps(settings: dict) -> None:
    with pytest.raises(LoginError):
        Vault(Identity.generate(), {}, settings).seal(make_key(), "alice")


def test_public_names() -> None:
    assert {"login", "register_account", "recover_account", "LoginSession", "LoginFailed"} <= set(dtp.__all__)
