"""How long a daemon waits for others before it goes on without them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds. The defaults suit people and programs that are at work; each says whom it is for."""

    #: From the first byte of a request's head to its last one: whoever takes longer means harm (slowloris).
    head: float = 10.0
    #: For a client that goes on talking to hear our last words.
    last_words: float = 2.0
    #: For a backend to take what was written to it before the end.
    flush: float = 10.0
    #: For a backend to take any of the last bytes of a stream that is over otherwise: nobody else would end it.
    left: float = 60.0
    #: For a peer that is away when a program connects: a restart goes unnoticed.
    peer: float = 3.0
    #: For a peer that allows no further stream now: it takes no more, or means harm.
    stream: float = 3.0
    #: For programs and backends that take nothing while all others of their connection wait for them.
    stuck: float = 2.0
    #: For a peer without a carrier, while this daemon drains.
    carrier: float = 5.0
    #: Between two exchanges with those who share the state: how much later a daemon knows what others have counted.
    exchange: float = 1.0
    #: Until a state that is away is told again what it has to know.
    again: float = 1.0
    #: For a node to link to those that it is to begin with, and hear of others.
    links: float = 10.0


#: What a daemon goes by unless it is told otherwise: an argument for tests and for programs with a daemon in them. No
#: setting of the file, since nobody has asked for one and most do harm when they are wrong.
PATIENCE: Final = Patience()
