"""The page of the dApp in a browser: OPAQUE, vault and wallets there, and one account whatever comes."""

from __future__ import annotations

import asyncio
import html
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from browsers import dump_when

import dtp
from dtp.identity import Card

PAGE = Path(__file__).parents[3] / "examples" / "dapp_page"
PASSWORD = "a sentence that only I know"
needs_packages = pytest.mark.skipif(
    not (PAGE / "node_modules").is_dir(), reason="needs `npm ci` in examples/dapp_page"
)


@pytest.fixture
def dapp() -> Iterator[tuple[str, str]]:
    """Where logins are, and the page."""
    command = [sys.executable, "-P", "-W", "error", str(PAGE / "run.py")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        places = [program.stdout.readline().split()[-1] for _ in range(2)]
        yield places[0], places[1]
        program.stdin.close()
        assert program.wait(60) == 0


def visit(page: str, button: str, *, password: str = PASSWORD, note: str = "hello") -> dict[str, str]:
    """Return what the page shows in the end to who types that, in a browser that was never used before."""
    values = {"name": "Alice", "password": password, "note": note}
    typed = "".join(f"document.getElementById({key!r}).value = {text!r};" for key, text in values.items())
    # `value` of an output isn't in the page's source, but its text is.
    shown = dump_when(
        page,
        "document.getElementById('wallets').value || document.getElementById('trouble').textContent",
        first=f"{typed} document.querySelector({button!r}).click();",
    )
    return {
        name: html.unescape(text)
        for name, text in re.findall(r'<(?:output|p) id="(\w+)"[^>]*>([^<]*)</(?:output|p)>', shown)
    }


@pytest.mark.slow
@needs_packages
def test_in_a_browser_two_wallets_are_one_account_that_programs_open_as_well(dapp: tuple[str, str]) -> None:
    logins, page = dapp
    first = visit(page, "button[name=new]")
    assert (first["trouble"], first["notes"], first["wallets"]) == ("", "alice: hello", "1")
    wrong = visit(page, "button:last-of-type", password="a sentence that I don't know")
    assert (wrong["trouble"], wrong["account"]) == ("the name or the password is wrong", "")
    second = visit(page, "button:last-of-type", note="it's me")
    assert (second["trouble"], second["notes"], second["wallets"]) == ("", "alice: hello, it's me", "2")
    assert first["account"] == second["account"]

    async def open_account() -> None:
        async with await dtp.login(logins, "alice", PASSWORD, remember=False) as session:
            assert session.identity.id.key.hex() == first["account"]
            assert sorted(session.wallets.values()) == ["wallet 1", "wallet 2"]
            card = session.settings["card"]
            assert isinstance(card, bytes)
            assert Card.parse(card).key == session.identity.id.key

    async def recover() -> None:
        code = first["code"]
        async with await dtp.recover_account(logins, "alice", code, "another one", remember=False) as session:
            assert session.identity.id.key.hex() == first["account"]

    asyncio.run(open_account())
    asyncio.run(recover())
    assert visit(page, "button:last-of-type", password="another one")["wallets"] == "3"
