"""The benchmark of gossip says within a bounded time why a contender can't be measured."""

from pathlib import Path

import pytest

from bench.gossip import Failed, Half


def stand_in(folder: Path, does: str) -> str:
    """Return an interpreter that does something else."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{does}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("does", "why"),
    [
        ("echo 'no such module' >&2; exit 1", "libp2p ended; it logged last: no such module$"),
        ("exit 1", "libp2p ended$"),
        ("exec sleep 60", r"libp2p said nothing for 0\.1 s$"),
        ("printf '[1, 2'; exec sleep 60", r"libp2p said nothing for 0\.1 s$"),
    ],
)
def test_a_half_that_ends_or_idles_is_said(tmp_path: Path, does: str, why: str) -> None:
    half = Half(stand_in(tmp_path, does), "libp2p", 1, 0, None)
    try:
        with pytest.raises(Failed, match=why):
            half.hear(0.1 if "sleep" in does else 60)
    finally:
        half.end()


def test_what_a_half_says_at_once_is_heard_word_by_word(tmp_path: Path) -> None:
    half = Half(stand_in(tmp_path, "printf '\"begun\"\\n[1, 2]\\n'"), "libp2p", 1, 0, None)
    try:
        assert [half.hear(60), half.hear(60)] == ["begun", [1, 2]]
    finally:
        half.end()
