"""How long a peer that answers PING has to acknowledge what it has."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dtp.session.limits import DEFAULT
from dtp.session.watches import AckAction, AckWatch


@pytest.mark.parametrize("dead", [1.0, 2.5, 10.0])
def test_a_peer_without_a_processor_for_seconds_is_honest(dead: float) -> None:
    """A daemon gives carriers up after 2.5 s; its sessions were ended as soon where the peer's machine was busy."""
    watch = AckWatch(replace(DEFAULT, dead=dead), 0.0)
    assert watch.check_progress(watch.look_at, 100, 0) is AckAction.NOTHING
    asked = watch.look_at
    assert watch.check_progress(asked, 100, 0) is AckAction.ASK
    watch.note_pings([7])
    watch.note_pong(7, asked, 0.0)
    assert watch.look_at == asked + 10.0
    assert watch.check_progress(watch.look_at, 100, 0) is AckAction.OVERDUE
