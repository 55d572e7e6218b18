"""What makes a daemon one of several workers."""

from __future__ import annotations

from dataclasses import dataclass

from dtp.daemon.state import CountStore
from dtp.daemon.state.table import Table
from dtp.daemon.workers.handover import Handover


@dataclass(frozen=True)
class Team:
    """What a daemon that is one of several workers shares with the others (`dtp.daemon.workers.parent`)."""

    number: int
    table: Table
    store: CountStore
    handover: Handover
