"""`python -m dtp` is the `dtp` command."""

from __future__ import annotations

from dtp.programs import dtp

if __name__ == "__main__":
    dtp("dtp")
