"""Who doesn't pay doesn't wait for the chain's modules: they are loaded with the first wallet."""

from __future__ import annotations

import subprocess
import sys
from typing import Any


def loaded(code: Any) -> Any:
    program = f"{code}\nimport sys\nprint(*sorted(m for m in sys.modules if m.startswith('dtp.chain')))"
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_importing_dtp_and_dialling_without_a_wallet_loads_no_chain_module() -> None:
    assert loaded("import dtp") == []
    assert loaded("import dtp; dtp.connect('dtp://alice/x')") == []
    assert loaded("import dtp; dtp.listen; dtp.create_connection") == []


def test_the_names_for_payment_are_there() -> None:
    assert "dtp.chain.node.client" in loaded(
        "import dtp; dtp.serve, dtp.Metered, dtp.PaidRequest, dtp.Serving"
    )
