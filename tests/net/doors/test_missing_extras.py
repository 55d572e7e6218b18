"""Public names whose libraries aren't installed: asking for them does no harm, using them says what to install."""

from __future__ import annotations

import subprocess
import sys

import pytest

#: Refuses the libraries of all extras, as an environment without them does.
_WITHOUT = """
import importlib.abc, inspect, sys
MISSING = ("aiortc", "av", "opaque_snake", "psycopg", "qh3", "redis", "vodozemac", "zeroconf")
class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in MISSING:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Finder())
import dtp
"""


def run_without(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-P", "-c", _WITHOUT + program], capture_output=True, text=True, timeout=60
    )
    assert not done.returncode, done.stderr
    return done.stdout


def test_names_of_missing_libraries_can_be_asked_for() -> None:
    program = """
assert all(hasattr(dtp, name) for name in dtp.__all__)
assert set(dtp.__all__) <= {name for name, _ in inspect.getmembers(dtp)}
from dtp import *
assert not hasattr(login, "__wrapped__") and not hasattr(dtp, "nosuch")
assert not isinstance(1, Messenger)
"""
    run_without(program)


@pytest.mark.parametrize(
    ("use", "extra"),
    [
        ("dtp.login('dtp+tcp://x', 'name', 'password')", "login"),
        ("dtp.register_account()", "login"),
        ("dtp.LoginSession.renew()", "login"),
        ("dtp.Messenger.open(None)", "messaging"),
        ("dtp.Calls(None)", "messaging"),
        ("types.new_class('Own', (dtp.Messenger,))", "messaging"),
    ],
)
def test_using_them_says_what_to_install(use: str, extra: str) -> None:
    program = f"""
import types
try:
    {use}
except dtp.LocalError as error:
    print(error)
"""
    assert f"pip install 'dtp-sockets[{extra}]'" in run_without(program)
