"""A service of kind `tips`: `dtpd` says the card of a line, and collects what its mailboxes have."""

from __future__ import annotations

from pathlib import Path

import pytest

import dtp
from dtp.daemon.answered.tips import TipService
from dtp.daemon.config.model import Config
from dtp.daemon.config.reading import ConfigMistakes
from dtp.daemon.server import Daemon
from dtp.messaging.cards.contact_card import ContactCard
from dtp.messaging.errors import StoreFailed
from dtp.messaging.person.card_sources import DhtCards
from dtp.messaging.tips.errors import TipError
from dtp.messaging.tips.finding import ask_card, find_line
from dtp.messaging.tips.line import TipLine
from dtp.messaging.tips.tipster import Tipster
from dtp.messaging.tips.words import TipWords

from ..conftest import FAR, config, listener_of, run_scenario, serving
from ..programs import free_port
from ..talk import seen

BOX = '[[expose]]\nservice = "dtp.mailbox"\nkind = "mailbox"\nallow = ["*"]\n[expose.mailbox]\nstore = "box.sqlite"\n'
LINE = '[[expose]]\nservice = "dtp.tip"\nkind = "tips"\nallow = ["*"]\n'
AT = "dtp+tcp://{}@127.0.0.1:{}/dtp.mailbox"


def settings(tmp_path: Path, mailbox: str, name: str = "The Herald", port: int = 0) -> Config:
    tips = (
        f'[expose.tips]\nmailboxes = ["{mailbox}"]\nname = "{name}"\nstamp-bits = 0\nstore = "tips.sqlite"\n'
    )
    return config(tmp_path, f'[daemon]\nlisten = ["tcp://127.0.0.1:{port}"]\n{BOX}{LINE}{tips}')


def tips_of(daemon: Daemon) -> TipService:
    answering = daemon.exposed["dtp.tip"].answering
    assert answering is not None
    assert isinstance(answering.source, TipService)
    return answering.source


def test_a_tip_is_given_by_the_address_alone_and_read_by_the_owner(tmp_path: Path) -> None:
    """The line's mailbox is the daemon's own: it is tried until that listens."""
    port = free_port()

    async def scenario() -> None:
        first = settings(tmp_path, AT.format(FAR.id, port), port=port)
        async with serving(first) as daemon:
            await seen(lambda: not tips_of(daemon).unreached)
            card = await ask_card(listener_of(daemon).address("dtp.tip"))
            assert (card.name, card.key) == ("The Herald", FAR.id.key)
            async with Tipster(card, TipWords.generate()) as tipster:
                await tipster.send("the bridge is cracked")
        async with serving(first) as daemon:  # collected at its start
            await seen(lambda: tips_of(daemon).letters == 1 and not tips_of(daemon).unreached)
            assert daemon.exposed["dtp.tip"].get_status(0)["tips"] == {
                "letters": 1,
                "unreached": "",
                "why": "",
            }
            async with TipLine(
                identity=FAR, store=tmp_path / "tips.sqlite"
            ) as line:  # `dtp tip read` meanwhile
                (tip,) = await line.tips()
                assert [each.letter.text for each in await line.letters(tip)] == ["the bridge is cracked"]

    run_scenario(scenario)


ALONE = (
    f'[daemon]\nlisten = ["tcp://127.0.0.1:0"]\n{LINE}[expose.tips]\nstore = "tips.sqlite"\nstamp-bits = 0\n'
)


def test_a_line_without_mailboxes_keeps_letters_itself_and_says_its_card_to_who_asks_nothing(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        async with serving(config(tmp_path, ALONE)) as daemon:
            await seen(lambda: not tips_of(daemon).unreached)
            here = listener_of(daemon).address("dtp.tip")
            card = await ask_card(here)
            assert card.mailboxes == (str(here),)
            async with Tipster(card, TipWords.generate()) as tipster:
                await tipster.send("the bridge is cracked")
                words = tipster.words
            line = tips_of(daemon).line
            assert await line.collect() == 1
            (tip,) = await line.tips()
            await line.answer(tip, "which bridge?")
            async with Tipster(card, words) as tipster:
                assert [each.text for each in (await tipster.read()).letters] == ["which bridge?"]
            connection = await dtp.connect(here)
            stream = await connection.open_stream()
            stream.write((1 << 30).to_bytes(4, "big"))  # nonsense ends its stream alone
            with pytest.raises(dtp.StreamReset):
                await stream.read()
            await connection.close()
        async with serving(config(tmp_path, ALONE)) as daemon:  # at another port, which the card says
            await seen(lambda: not tips_of(daemon).unreached)
            here = listener_of(daemon).address("dtp.tip")
            assert (await ask_card(here)).mailboxes == (str(here),)

    run_scenario(scenario)


def test_a_line_is_found_on_this_network_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon that is a node answers for itself; this one is none."""
    monkeypatch.setenv("DTP_DISCOVER", "lan")

    async def scenario() -> None:
        async with serving(config(tmp_path, ALONE)) as daemon:
            await seen(lambda: not tips_of(daemon).unreached)
            assert (await find_line(FAR.id)).card.key == FAR.id.key

    run_scenario(scenario)


def test_a_node_with_the_dht_puts_the_lines_card_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = []

    async def publish(cards: DhtCards, card: ContactCard) -> None:
        published.append(card)

    monkeypatch.setattr(DhtCards, "publish_card", publish)
    node = '[node]\ndiscover = ["dht"]\ndht = "127.0.0.1:0"\nmap-ports = false\n'

    async def scenario() -> None:
        async with serving(config(tmp_path, ALONE + node)) as daemon:
            await seen(lambda: not tips_of(daemon).unreached)
            assert published == [tips_of(daemon).line.card]

    run_scenario(scenario)


def test_a_reload_gives_the_line_another_name(tmp_path: Path) -> None:
    async def scenario() -> None:
        port = free_port()
        at = AT.format(FAR.id, port)
        async with serving(settings(tmp_path, at, port=port)) as daemon:
            before = tips_of(daemon)
            await daemon.reload(settings(tmp_path, at, port=port))
            assert tips_of(daemon) is before
            await daemon.reload(settings(tmp_path, at, name="The Post", port=port))
            assert (await ask_card(listener_of(daemon).address("dtp.tip"))).name == "The Post"

    run_scenario(scenario)


def test_a_store_that_is_none_or_of_another_line_is_refused_at_the_start(tmp_path: Path) -> None:
    at = AT.format(FAR.id, 1)

    async def scenario() -> None:
        (tmp_path / "tips.sqlite").write_bytes(b"nonsense" * 1000)
        with pytest.raises(StoreFailed):
            await Daemon(settings(tmp_path, at), FAR).start()
        (tmp_path / "tips.sqlite").unlink()
        from dtp.identity import Identity

        async with TipLine(identity=Identity(bytes([5]) * 32), store=tmp_path / "tips.sqlite"):
            pass
        with pytest.raises(TipError):
            await Daemon(settings(tmp_path, at), FAR).start()

    run_scenario(scenario)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ('tips = {mailboxes = "nonsense"}', "nonsense"),
        ('backend = "127.0.0.1:1"', "no backends"),
        ("price = { mib = 1 }", "temporary key"),
        ('tips = {mailboxes = "MAILBOX", stamp-bits = 27}', "stamp-bits"),
        ("tips = {mailboxes = [" + ", ".join(['"MAILBOX"'] * 9) + "]}", "at most"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, more: str, said: str) -> None:
    more = more.replace("MAILBOX", AT.format(FAR.id, 1))
    with pytest.raises(ConfigMistakes, match=said):
        config(tmp_path, f'[daemon]\nlisten = ["tcp://127.0.0.1:0"]\n{LINE}{more}\n')


def test_others_may_not_have_one_and_two_have_two_stores(tmp_path: Path) -> None:
    tips = f'[expose.tips]\nmailboxes = ["{AT.format(FAR.id, 1)}"]\n'
    listen = '[daemon]\nlisten = ["tcp://127.0.0.1:0"]\n'
    with pytest.raises(ConfigMistakes, match="the line's store"):
        config(tmp_path, f"{listen}{LINE}{tips}{LINE.replace('dtp.tip', 'b')}{tips}")
    with pytest.raises(ConfigMistakes, match="is for services of kind tips"):
        config(tmp_path, f'{listen}[[expose]]\nservice = "a"\nbackend = "x:1"\nallow = ["*"]\n{tips}')
    with pytest.raises(ConfigMistakes, match=r"allow = \["):
        config(tmp_path, f"{listen}{LINE.replace('*', str(FAR.id))}{tips}")
