"""A service of kind `mailbox`: `dtpd` keeps messages for devices that are away, over reloads and restarts."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from dtp.cli.daemon import main
from dtp.daemon.config.model import Config
from dtp.daemon.config.reading import ConfigMistakes
from dtp.daemon.server import Daemon
from dtp.identity import Identity
from dtp.messaging.errors import StoreFailed
from dtp.messaging.person.messenger import Messenger

from ..conftest import config, listener_of, run_scenario, serving

# Always the same: workers of a parallel run have to collect the same tests.
ALICE, BOB = Identity(bytes([1]) * 32), Identity(bytes([2]) * 32)
EXPOSE = '[[expose]]\nservice = "dtp.mailbox"\nkind = "mailbox"\nallow = {}\n'
LIMITS = 'lifetime = "7d"\nrecipients = 10\n'


def settings(
    tmp_path: Path,
    more: str = "",
    allow: str = '["*"]',
    listen: str = "tcp://127.0.0.1:0",
    top: str = "",
    limits: str = "",
) -> Config:
    expose = f'{EXPOSE.format(allow)}{more}\n[expose.mailbox]\nstore = "box.sqlite"\n{limits}'
    return config(tmp_path, f'[daemon]\nlisten = ["{listen}"]\n{top}\n{expose}')


def messenger(tmp_path: Path, name: str, identity: Identity, daemon: Daemon | None = None) -> Messenger:
    at = None if daemon is None else [str(listener_of(daemon).address("dtp.mailbox"))]
    return Messenger(identity=identity, store=tmp_path / f"{name}.db", mailboxes=at, name=name)


def test_it_keeps_a_message_for_who_is_away(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(settings(tmp_path)) as daemon:
            async with messenger(tmp_path, "alice", ALICE, daemon) as alice:
                await alice.wait_reached()
                card = alice.card
            (url,) = listener_of(daemon).urls
            async with messenger(tmp_path, "bob", BOB, daemon) as bob:
                await bob.wait_reached()
                await daemon.reload(settings(tmp_path, "concurrency = {service = 1000}"))
                await daemon.reload(settings(tmp_path, limits=LIMITS))
                await bob.send(await bob.add_contact(card.text), "see you at eight")
                await bob.wait_delivered()
            (status,) = daemon.get_status()["exposed"]
            assert status["kind"] == "mailbox"
            assert status["mailbox"]["deposit"] >= 1
            assert status["backends"] == []
        async with (
            serving(settings(tmp_path, listen=url, limits=LIMITS)),
            messenger(tmp_path, "alice", ALICE) as alice,
        ):
            await alice.wait_collected()
            (message,) = await alice.unread()
            assert (message.sender_name, message.text) == ("bob", "see you at eight")

    run_scenario(scenario)


def test_a_file_that_is_no_mailbox_ends_the_start(tmp_path: Path) -> None:
    (tmp_path / "box.sqlite").write_bytes(b"these are notes of something else, not messages" * 40)

    async def scenario() -> None:
        with pytest.raises(StoreFailed, match=r"box\.sqlite"):
            async with serving(settings(tmp_path)):
                raise AssertionError("it has begun")

    run_scenario(scenario)


@pytest.mark.parametrize(
    ("more", "allow", "why"),
    [
        ('backend = ["127.0.0.1:1"]', '["*"]', "has no backends"),
        ('limits = {time = "1m"}', '["*"]', "limits of its own"),
        ('price = {request = "0.01SUI"}', '["*"]', "can't pay"),
        ("", f'["{ALICE.id}"]', "temporary key"),
    ],
)
def test_what_a_mailbox_does_not_have_is_a_mistake(tmp_path: Path, more: str, allow: str, why: str) -> None:
    with pytest.raises(ConfigMistakes, match=why):
        settings(tmp_path, more, allow)


def test_a_mailbox_is_one_process_and_has_its_file_alone(tmp_path: Path) -> None:
    with pytest.raises(ConfigMistakes, match="workers = 1"):
        settings(tmp_path, top="workers = 2")
    second = (
        '[expose.mailbox]\nstore = "box.sqlite"\n[[expose]]\nservice = "b"\nkind = "mailbox"\nallow = ["*"]'
    )
    with pytest.raises(ConfigMistakes, match=r"store .* is in the file already"):
        settings(tmp_path, second)


@pytest.mark.parametrize(
    ("store", "code"),
    [
        ("postgresql://u:secret@127.0.0.1:1/x", 5),
        ("nats://u:secret@127.0.0.1:1/x", 5),
        ("notes.sqlite", 78),
        ("folder", 78),
    ],
)
def test_a_store_that_only_a_person_mends_ends_with_78_and_one_that_is_away_with_5(
    tmp_path: Path, store: str, code: int
) -> None:
    """Both ended with 3, so a service manager began a daemon anew for ever, or never again."""
    if store.startswith("postgresql"):
        pytest.importorskip("psycopg")
    if store.startswith("nats"):
        pytest.importorskip("nats")
    (tmp_path / "notes.sqlite").write_bytes(b"these are notes of something else, not messages" * 40)
    (tmp_path / "folder").mkdir()
    ALICE.save(tmp_path / "me.pem")
    path = tmp_path / "dtpd.toml"
    path.write_text(
        '[identity]\nfile = "me.pem"\n[daemon]\nlisten = ["tcp://127.0.0.1:0"]\ncontrol = "c"\n'
        f'{EXPOSE.format(["*"])}\n[expose.mailbox]\nstore = "{store}"\n'
    )
    ran = CliRunner().invoke(main, ["run", "-c", str(path)])
    assert ran.exit_code == code, ran.stderr
    assert "secret" not in ran.stderr
