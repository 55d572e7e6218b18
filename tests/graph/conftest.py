"""Fixtures of several files of this folder."""

from __future__ import annotations

import pytest
from graph_people import called, people

from dtp.graph.query.run import Queries


@pytest.fixture(scope="module", params=[None, called], ids=["here", "beside"])
def queries(request: pytest.FixtureRequest) -> Queries:
    """As `Graph.query` asks, and as `Graph.query_async` does."""
    return Queries(people(), ask=request.param)
