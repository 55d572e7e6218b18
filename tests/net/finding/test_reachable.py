"""Where others dial what listens at "any" address."""

import socket
from typing import Any

import pytest

from dtp.net.reachable import is_any, own_ip, own_url


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("tcp://0.0.0.0:9000", "tcp://203.0.113.7:9000"),
        ("ws://[::]:80/a?b=c", "ws://[2001:db8::7]:80/a?b=c"),
        ("tcp://127.0.0.1:9000", "tcp://127.0.0.1:9000"),
        ("tcp://box.example:9000", "tcp://box.example:9000"),
        ("unix:///run/me.sock", "unix:///run/me.sock"),
    ],
)
def test_any_address_becomes_this_machine_s(url: str, told: Any) -> None:
    own = {"0.0.0.0": "203.0.113.7", "::": "2001:db8::7"}
    assert own_url(url, own.__getitem__) == told


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "box.example", "127.0.0.1"])
def test_what_is_told_can_be_dialled(host: Any) -> None:
    assert not is_any(own_ip(host))


def test_a_machine_without_a_network_tells_the_loopback_address(monkeypatch: pytest.MonkeyPatch) -> None:
    class Unreachable:
        def __init__(self, *kind: Any) -> None:
            pass

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *error: Any) -> None:
            pass

        def connect(self, place: Any) -> None:
            raise OSError

    monkeypatch.setattr(socket, "socket", Unreachable)
    assert [own_ip("0.0.0.0"), own_ip("::")] == ["127.0.0.1", "::1"]
