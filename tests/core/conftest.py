"""Every test of records runs with each provider and suite that the machine has."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from dtp.core import providers
from dtp.core.providers import SUITES, install


@pytest.fixture(scope="module", params=[(p, s) for p in ("sodium", "openssl") for s in SUITES], ids="-".join)
def suite(request: pytest.FixtureRequest) -> Iterator[str]:
    """A suite's name, served by the provider of this round."""
    provider, name = request.param
    gc.collect()  # a provider is changed only while no cipher is alive
    install(provider)
    try:
        if name not in providers():
            pytest.skip(f"{provider} does not serve {name} in this Python")
        yield name
    finally:
        gc.collect()
        install()
