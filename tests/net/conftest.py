"""Each test begins with a program that has dialled nobody yet."""

from collections.abc import Iterator

import pytest

from dtp.net.static_keys import KNOWN


@pytest.fixture(autouse=True)
def _strangers() -> Iterator[None]:
    """No peer has proven a key before, nor has one afterwards."""
    KNOWN.clear()
    yield
    KNOWN.clear()
