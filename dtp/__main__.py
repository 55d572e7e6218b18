"""`python -m dtp` is the `dtp` command."""

from __future__ import annotations

from dtp.cli import main

if __name__ == "__main__":
    main(prog_name="dtp")
