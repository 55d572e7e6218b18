"""Headless Chromium, whose profile and other files are gone with the test."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from os import environ

import pytest


def dump(url: str, budget: int, timeout: float = 60) -> str:
    """Return the page at `url` as it is after `budget` ms of its own time. Skip where no Chromium is installed."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("chromium is not installed")
    with tempfile.TemporaryDirectory(prefix="dtp-browser-", ignore_cleanup_errors=True) as folder:
        done = subprocess.run(
            [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
             f"--user-data-dir={folder}", f"--virtual-time-budget={budget}", "--dump-dom", url],
            env={**environ, "TMPDIR": folder, "HOME": folder},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )  # fmt: skip
    assert done.stdout, done.stderr
    return done.stdout
