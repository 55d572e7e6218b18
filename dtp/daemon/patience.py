"""How long a daemon waits for others before it goes on without them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Patience:
    """Timeouts in seconds. The defaults suit people and running programs; each comment says what is waited for."""

    #: From the first byte of a request's head to its last. A client that takes longer is an attack (slowloris).
    head: float = 10.0
    #: For a client that is still sending to read our final answer.
    last_words: float = 2.0
    #: For a backend to accept what was written to it before the connection is closed.
    flush: float = 10.0
    #: For a backend to accept any of the last bytes of a stream that is otherwise finished: nothing else would end
    #: it.
    left: float = 60.0
    #: For a peer that is unreachable when a program connects, so that a restart goes unnoticed.
    peer: float = 3.0
    #: For a peer that currently allows no more streams. After this it is overloaded or malicious.
    stream: float = 3.0
    #: For programs and backends that read nothing while everything else on their connection waits for them.
    stuck: float = 2.0
    #: For a peer whose carrier was lost, while this daemon drains.
    carrier: float = 5.0
    #: Between two exchanges with those who share the state: a daemon learns of their counts this much later.
    exchange: float = 1.0
    #: Before an unreachable state is tried again.
    again: float = 1.0
    #: For a node to connect to its first peers and to learn of others.
    links: float = 10.0


#: The timeouts that a daemon uses by default. An argument for tests and for programs that embed a daemon rather
#: than a setting of the file: nobody has asked for one, and most wrong values would do harm.
PATIENCE: Final = Patience()
