"""What `dtp channel list` says of a channel: until when its money is locked, and why."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dtp.chain.channel import ChannelState
from dtp.cli.channel_records import line_of, summary_of
from dtp.cli.vouchers import Stores
from dtp.pay.client.lane_lock import LaneLock
from dtp.pay.store import Store

from ..meters import CHANNEL
from ..selling.test_claims import HOUR, NOW, channel
from ..stored import BOUGHT, buy


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Any]:
    with Store(tmp_path / "pay.sqlite") as store:
        buy(store)
        yield Stores(store, store)


@pytest.mark.parametrize(
    ("state", "refused", "until", "why"),
    [
        (
            ChannelState.OPEN,
            0,
            None,
            "kept for the next connection; 'dtp channel close' brings it back, at once where the",
        ),
        (ChannelState.OPEN, 1, None, "its server refuses it: the next command that pays asks for its close"),
        (
            ChannelState.CLOSING,
            1,
            NOW + HOUR,
            "the server may claim until then; then the next command finalizes it",
        ),
    ],
)
def test_what_is_locked_is_shown_with_until_when_and_why(
    stores: Any, state: Any, refused: Any, until: Any, why: Any
) -> None:
    found = channel(state=state, closing_ms=NOW if state is ChannelState.CLOSING else 0)
    record = summary_of(stores, CHANNEL, found, "pays", replace(BOUGHT, refused=refused))
    assert record["locked_until_ms"] == until
    assert record["why"].startswith(why)
    assert f": {record['why']}" in line_of(record)
    assert (" locked until " in line_of(record)) is (until is not None)


def test_a_channel_that_a_program_uses_is_said_to_be_in_use(stores: Any) -> None:
    lock = LaneLock(stores.bought.path, CHANNEL, 0)
    assert lock.try_acquire()
    record = summary_of(stores, CHANNEL, channel(), "pays", BOUGHT)
    lock.release()
    assert record["why"] == "a program uses it"


def test_what_pays_us_and_what_the_network_does_not_have_says_nothing_of_locks(stores: Any) -> None:
    assert "why" not in summary_of(stores, CHANNEL, channel(), "is paid")
    record = summary_of(stores, CHANNEL, None, "pays", BOUGHT)
    assert line_of(record) == f"{CHANNEL}  pays, not on this network"


def test_a_channel_that_holds_nothing_brings_nothing_back_but_gas(stores: Any) -> None:
    record = summary_of(stores, CHANNEL, channel(deposited=0, balance=0), "pays", BOUGHT)
    assert "brings back gas for its storage" in record["why"]
    assert "brings it back" not in line_of(record)
