"""Shared test set-up: hypothesis profiles that are deterministic and print what to repeat."""

import os
import signal
import sys
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# Children that tests start find the installed package, not the sources in the folder they happen to stand in.
os.environ["PYTHONSAFEPATH"] = "1"

# A shell has what it starts in the background ignore SIGINT, and children inherit that; tests interrupt theirs.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The default run must say the same thing twice; `HYPOTHESIS_PROFILE=explore` looks for new failures.
_common: dict[str, Any] = {
    "deadline": None,
    "print_blob": True,
    # These depend on more than the test: on the machine, and on constants found in whatever is imported.
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large],
}
settings.register_profile("ci", derandomize=True, max_examples=60, **_common)
settings.register_profile("explore", max_examples=2000, **_common)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture(autouse=True)
def no_chain_connection_is_left():
    """One that a test leaves would be found in another, whenever the collector comes by."""
    yield
    if (client := sys.modules.get("grpclib.client")) is not None:
        left = [each for each in client._channels if each._protocol is not None and each._loop.is_closed()]
        client._channels.difference_update(left)  # it is told once
        assert not left
