"""Groups of commands: suggestions for unknown names, and how a program handles errors."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from typing import Any, ClassVar

import click

from dtp.cli import output
from dtp.errors import DtpError
from dtp.unicode import TextNotUnicode


class CommandGroup(click.Group):
    """A group that suggests similar names for an unknown command. Only newer versions of click do so, and only for
    commands that are already imported."""

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


class RootGroup(CommandGroup):
    """All commands of a program: errors become a line and an exit code here, and nowhere else."""

    program: ClassVar[str]
    #: The exit codes; scripts may rely on them.
    exit_codes: ClassVar[Mapping[int, str]]

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run a command line. Click prints help and versions: report it if they can't be written."""
        output.say_in_any_encoding()
        return output.said(lambda: super(RootGroup, self).main(*args, **kwargs), self.program)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the exit codes, since scripts need them."""
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(code), meaning) for code, meaning in self.exit_codes.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; see `dtp.cli.output` for what an error becomes."""
        json = "--json" in ctx.args  # asked before it is parsed: a wrong command line may not get so far
        try:
            return self._invoke_command(ctx, list(ctx.args))
        except DtpError as error:
            ctx.exit(self.report_error(error, ctx))
        except PermissionError as error:  # of merely looking whether something is there, too
            if error.filename is None:
                raise
            fault = output.NotPermitted(f"can't use {os.fsdecode(error.filename)}: {error.strerror}")
            ctx.exit(self.report_error(fault, ctx))
        except click.UsageError as error:
            if not json:
                raise
            output.print_usage_error(error)
            ctx.exit(output.EXIT_USAGE)
        except BrokenPipeError:
            output.discard_output()
            ctx.exit(output.EXIT_PIPE)
        except (KeyboardInterrupt, click.Abort) as error:
            if isinstance(error.__context__, EOFError):  # click's questions make one of both
                ended = click.UsageError("standard input has ended before all was answered; see --help", ctx)
                if json:
                    output.print_usage_error(ended)
                else:
                    click.echo(err=True)  # the question stands there
                    ended.show()
                ctx.exit(output.EXIT_USAGE)
            ctx.exit(output.EXIT_INTERRUPTED)

    def _invoke_command(self, ctx: click.Context, words: list[str]) -> Any:
        """Run the command. Names of files may have any bytes; an argument that is used as text and isn't valid text
        is a usage error."""
        try:
            return super().invoke(ctx)
        except (UnicodeEncodeError, TextNotUnicode) as error:
            for word in words:
                if not _is_text(word):
                    raise click.UsageError(f"{word!r} isn't text: it has bytes that aren't UTF-8") from error
            raise

    def report_error(self, error: DtpError, ctx: click.Context) -> int:
        """Say what went wrong, and return the exit code for it."""
        status = output.exit_code(error)
        output.print_error(error, ctx, self.program, status)
        return status


def _is_text(word: str) -> bool:
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True
