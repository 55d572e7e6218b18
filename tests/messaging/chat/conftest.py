from __future__ import annotations

import zlib
from pathlib import Path

import pytest

pytest.importorskip("textual")

from chat_screen import Test
from post_office import post_office


@pytest.fixture
def office(tmp_path: Path, request: pytest.FixtureRequest) -> Test:
    name = str(zlib.crc32(request.node.name.encode()))
    return lambda test: post_office(test, tmp_path, name)
