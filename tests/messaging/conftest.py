"""What the tests of messages have in common; those in the folders below find the modules beside it by it, too."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mortal import make_mortal
from village import Village, villages


@pytest.fixture
def village(tmp_path: Path) -> Iterator[Callable[..., Village]]:
    """Return what makes people who are acquainted, and ends them after the test."""
    with villages(tmp_path) as make:
        yield make


@pytest.fixture
def mortal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have all files that are opened be of programs that may be killed."""
    make_mortal(monkeypatch)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: programs are killed here, not machines, and disks take long."""
    memory = Path("/dev/shm")
    if not memory.is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory, prefix="dtp-histories-") as made:
        yield Path(made)
