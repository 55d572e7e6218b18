"""Every carrier keeps the contract; carriers that break it are found out."""

import asyncio
from pathlib import Path

import pytest

from dtp.carriers import CARRIERS
from dtp.testing.carriers import check_carrier
from dtp.testing.clock import run


def test_tcp() -> None:
    run(check_carrier(CARRIERS["tcp"], "tcp://127.0.0.1:0"), loop_factory=asyncio.SelectorEventLoop)


def test_unix(tmp_path: Path) -> None:
    check = check_carrier(CARRIERS["unix"], f"unix://{tmp_path}/s", abort_is_seen=False)
    run(check, loop_factory=asyncio.SelectorEventLoop)


@pytest.mark.parametrize(
    "options", ["", "delay=0.2", "chunk=1000", "delay=0.1&jitter=0.3&chunk=777", "capacity=1"]
)
def test_memory(options: str) -> None:
    run(check_carrier(CARRIERS["memory"], "memory://x", dial_url=lambda url: f"{url}?{options}"))


def test_memory_packets() -> None:
    options = "reliable=0&loss=0.2&duplicate=0.2&delay=0.1&jitter=0.2&seed=1"
    run(
        check_carrier(
            CARRIERS["memory"], "memory://x", dial_url=lambda url: f"{url}?{options}", packets_expected=300
        )
    )
