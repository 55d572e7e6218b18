"""Groups of commands: what is said of a name that there isn't, and the exit codes in `--help`."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

import click


class Group(click.Group):
    """A group that answers an unknown command with those whose names are like it. Only newer versions of click do,
    and only for commands that are imported already."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that the first argument names. Raise `click.UsageError` where there is none."""
        name = args[0]
        if self.get_command(ctx, name) is None and not ctx.resilient_parsing and not name.startswith("-"):
            like = difflib.get_close_matches(name, self.list_commands(ctx))
            meant = f" Did you mean {' or '.join(map(repr, like))}?" if like else ""
            raise click.UsageError(f"No such command {name!r}.{meant}", ctx)
        return super().resolve_command(ctx, args)


def write_exit_codes(formatter: click.HelpFormatter, codes: Mapping[int, str]) -> None:
    """Write the section of `--help` that scripts need."""
    with formatter.section("Exit codes"):
        formatter.write_dl([(str(code), meaning) for code, meaning in codes.items()])
