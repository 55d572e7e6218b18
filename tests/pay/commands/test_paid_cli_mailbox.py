"""`dtp mailbox serve` with a price, `dtp message rent`, and stamps that are paid, in processes of their own."""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from ..homes import PATIENCE

pytestmark = pytest.mark.slow


@contextlib.contextmanager
def mailbox(home: Any, *arguments: Any) -> Iterator[Any]:
    """A mailbox that sells room; gives the address that goes into cards."""
    command = home.command("mailbox", "serve", "--json", "--listen", "tcp://127.0.0.1:0", *arguments)
    process = subprocess.Popen(command, env=home.env, cwd=home.folder, stdout=subprocess.PIPE)
    watchdog = threading.Timer(PATIENCE, process.kill)
    watchdog.start()
    try:
        address = json.loads(process.stdout.readline())["address"]
        events = (json.loads(line)["event"] for line in process.stdout)
        assert "selling" in events
        yield address
    finally:
        watchdog.cancel()
        process.terminate()
        process.communicate()


def test_room_is_paid_when_it_is_due_and_shown(homes: Any) -> None:
    server, client = homes
    with mailbox(server, "--price-mib-month", "0.01SUI", "--free-mib", "2") as address:
        client.run("message", "card", "--name", "Alice", "--mailbox", address)
        (room,) = client.run("message", "rent", "--wait", 90)
        assert (room["price_mib_month"], room["free"], room["reserved"]) == (10_000_000, 2 << 20, 0)
        assert room["sold"]
        for most, reserved in (("0.009SUI", 0), ("0.01SUI", 3 << 20), ("0.01SUI", 3 << 20)):
            (room,) = client.run("message", "rent", "--wait", 90, "--mib", 3, "--most", most)
            assert (room["mailbox"], room["reserved"]) == (address, reserved)
        assert "3 MiB paid until" in client.text("message", "rent", "--wait", 90)
        (history,) = client.run("channel", "history")
        assert len(history["channel"]) == 1


def test_a_stamp_is_said_and_paid_where_that_is_agreed_to(homes: Any) -> None:
    alice, bob = homes  # who runs the mailbox has hers there
    with mailbox(alice, "--price-mib-month", "0.01SUI") as address:
        (made,) = alice.run("message", "card", "--public", "--mailbox", address, "--stamp-mib", 2)
        bob.run("message", "card", "--mailbox", address)
        bob.run("message", "add", made["card"], "--as", "alice")
        said = bob.said("message", "send", "alice", "--wait", 4, "hello")
        assert "alice asks 0.02SUI of strangers" in said
        assert bob.run("channel", "list") == [{"channels": []}]
        (sent,) = bob.run("message", "send", "alice", "--stamp-up-to", "0.02SUI", "--wait", 90)
        assert sent == {"message": None, "sent": True}
        (read,) = alice.run("message", "read", "--wait", 90)
        assert (read["text"], read["stranger"]) == ("hello", True)
        (room,) = alice.run("message", "rent", "--wait", 90)
        assert room["reserved"] == 2 << 20
    bob.failing("message", "send", "alice", code=2)


def test_options_that_are_of_no_use_are_refused(homes: Any) -> None:
    server, _ = homes
    server.failing("mailbox", "serve", "--pay-listen", "tcp://127.0.0.1:0", code=2)
    server.failing("mailbox", "serve", "--price-mib-month", "0", code=2)
    server.failing("message", "rent", "--mib", "3", code=2)
