"""What the tests of messages have in common; those in the folders below find the modules beside it by it, too."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from village import Village, villages


@pytest.fixture
def village(tmp_path: Path) -> Iterator[Callable[..., Village]]:
    """Return what makes people who are acquainted, and ends them after the test."""
    with villages(tmp_path) as make:
        yield make
