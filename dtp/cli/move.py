"""`dtp move`: compile the Move packages, check that what ships is what the sources give, and show it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from dtp.chain import packages
from dtp.chain.packages.deployments import known_deployments
from dtp.chain.packages.surface import Surface, surfaces
from dtp.cli import move_build
from dtp.cli.groups import CommandGroup
from dtp.cli.move_build import Checkout, CompileError, install_option, source_option
from dtp.cli.output import console, json_option, print_error, print_result, wants_json
from dtp.cli.publish import deploy, migrate, publish, restrict, upgrade, use

#: What `build` and `check` end with when a source doesn't compile or a check finds something.
EXIT_FOUND = 1

_packages_argument = click.argument("names", nargs=-1, metavar="[PACKAGE]...")


@click.group("move", cls=CommandGroup)
def move() -> None:
    """Compile, check and show the Move packages.

    Showing works everywhere. Compiling needs a source tree of dtp and Node; the compiler is Sui's own.
    """


for command in (publish, deploy, use, restrict, upgrade, migrate):
    move.add_command(command)


@move.command()
@_packages_argument
@source_option
@install_option
@click.option(
    "--tests",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Also compile the Move tests into DIR/PACKAGE_tests.json, for a Move VM to run.",
)
@json_option
@click.pass_context
def build(
    ctx: click.Context, names: tuple[str, ...], source: Path | None, install: bool, tests: Path | None
) -> None:
    """Compile packages (default: all) into dtp/chain/packages.

    Ends with 1 when a source doesn't compile; the message is the compiler's.
    """
    checkout = move_build.checkout_of(source, install)
    built = []
    try:
        for name in _chosen(checkout, names):
            package, warnings = move_build.compile_package(checkout, name)
            changed = move_build.write_package(checkout, package)
            if tests is not None:
                changed.append(_write_tests(checkout, name, tests))
            built.append(
                {
                    "package": name,
                    "digest": package.digest.hex(),
                    "modules": {module: len(code) for module, code in package.modules.items()},
                    "size": package.size,
                    "changed": [str(path) for path in changed],
                    "warnings": warnings,
                }
            )
    except CompileError as error:
        print_error(error, ctx, "dtp", EXIT_FOUND)
        ctx.exit(EXIT_FOUND)
    print_result({"packages": built}, _built_text(built))


def _write_tests(checkout: Checkout, name: str, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}_tests.json"
    path.write_text(json.dumps(move_build.compile_tests(checkout, name), indent=1) + "\n", encoding="utf-8")
    return path


@move.command()
@_packages_argument
@source_option
@install_option
@json_option
@click.pass_context
def check(ctx: click.Context, names: tuple[str, ...], source: Path | None, install: bool) -> None:
    """Check that the shipped bytecode is what the sources give, byte for byte.

    Also: that the compiler and its lints warn of nothing, that names for Python are generated from it, that
    every public item has a doc comment, every public function a row in move/README.md, every error a
    failing test, that the examples compile, and that the sources are formatted. Ends with 1 when something
    is found.
    """
    checkout = move_build.checkout_of(source, install)
    try:
        findings = [
            finding
            for name in _chosen(checkout, names)
            for finding in move_build.check_package(checkout, name)
        ]
        move_build.check_examples(checkout)
        findings += move_build.check_format(checkout)
    except CompileError as error:
        print_error(error, ctx, "dtp", EXIT_FOUND)
        ctx.exit(EXIT_FOUND)
    text = "\n".join(f"{found.file}: {found.problem}; {found.remedy}" for found in findings)
    print_result({"findings": [asdict(found) for found in findings]}, text or "all as it should be")
    if findings:
        ctx.exit(EXIT_FOUND)


@move.command("test")
@_packages_argument
@source_option
@install_option
@json_option
@click.pass_context
def test_command(ctx: click.Context, names: tuple[str, ...], source: Path | None, install: bool) -> None:
    """Run the Move tests of packages (default: all), with Sui's own runner. Ends with 1 when one fails."""
    checkout = move_build.checkout_of(source, install)
    found = []
    try:
        for name in _chosen(checkout, names):
            passed, output = move_build.run_tests(checkout, name)
            found.append({"package": name, "passed": passed, "output": output})
    except CompileError as error:
        print_error(error, ctx, "dtp", EXIT_FOUND)
        ctx.exit(EXIT_FOUND)
    print_result({"packages": found}, "\n".join(str(each["output"]) for each in found))
    if not all(each["passed"] for each in found):
        ctx.exit(EXIT_FOUND)


@move.command("format")
@source_option
@install_option
@json_option
def format_command(source: Path | None, install: bool) -> None:
    """Format all Move files with the pinned plug-in of prettier."""
    changed = move_build.format_sources(move_build.checkout_of(source, install))
    print_result({"changed": changed}, "\n".join(changed) or "nothing to change")


@move.command()
@source_option
@click.option(
    "--check", "checking", is_flag=True, help="Write nothing; end with 1 when the table isn't right."
)
@json_option
@click.pass_context
def gas(ctx: click.Context, source: Path | None, checking: bool) -> None:
    """Measure what each function costs, on an embedded node, and renew the table in move/README.md."""
    from dtp.cli import move_gas

    checkout = move_build.checkout_of(source, False)
    rows = move_gas.measure()
    findings = move_gas.check(checkout, rows) if checking else []
    changed = not checking and move_gas.write(checkout, rows)
    record = {
        "rows": [asdict(row) for row in rows],
        "changed": changed,
        "findings": [asdict(found) for found in findings],
    }
    if findings:
        text = "\n".join(f"{found.file}: {found.problem}; {found.remedy}" for found in findings)
    else:
        text = f"wrote {move_gas.README}" if changed else "all as it should be"
    print_result(record, text)
    if findings:
        ctx.exit(EXIT_FOUND)


@move.command()
@click.argument("name", metavar="[PACKAGE]", required=False)
@click.argument("module", metavar="[MODULE]", required=False)
@json_option
def info(name: str | None, module: str | None) -> None:
    """Show what is in a shipped package, and where it is used; or all of one of its modules; or list the packages."""
    if name is None:
        loaded = [packages.load(each) for each in packages.available()]
        records = [
            {
                "package": package.name,
                "modules": list(package.modules),
                "size": package.size,
                "digest": package.digest.hex(),
            }
            for package in loaded
        ]
        if wants_json():
            print_result({"packages": records})
        else:
            _print_table("Packages", ("package", "modules", "size", "digest"), records)
        return
    package = packages.load(name)
    shown = surfaces(package.compiled, package.modules)
    if module is not None and module not in package.modules:
        raise click.BadParameter(f"no module {module!r} in {name}: there is {', '.join(package.modules)}")
    chosen = tuple(each for each in shown if module in (None, each.module))
    if wants_json():
        print_result(_info_record(package, chosen))
    elif module is None:
        _print_info(package, shown)
    else:
        _print_module(package, chosen[0])


# ---- helpers


def _chosen(checkout: Checkout, names: tuple[str, ...]) -> tuple[str, ...]:
    there = checkout.package_names()
    for name in names:
        if name not in there:
            raise click.BadParameter(f"no package {name!r} in {checkout.move}: there is {', '.join(there)}")
    return names or there


def _built_text(built: list[dict[str, Any]]) -> str:
    lines = []
    for record in built:
        sizes = ", ".join(f"{module} {size:,}" for module, size in record["modules"].items())
        lines.append(f"{record['package']}: {record['size']:,} bytes ({sizes}), digest {record['digest']}")
        lines += [f"  wrote {path}" for path in record["changed"]] or ["  nothing changed"]
        lines += [record["warnings"]] if record["warnings"] else []
    return "\n".join(lines)


def _used(name: str) -> list[dict[str, str]]:
    """Return where a package is used: chain, id, and who may upgrade it, as it was when that was looked at."""
    return [
        {"chain_id": chain, "id": each.id, "policy": each.policy, "upgrade_cap": each.upgrade_cap}
        for chain, known in known_deployments().items()
        for each in known
        if each.package == name
    ]


def _info_record(package: packages.MovePackage, shown: tuple[Surface, ...]) -> dict[str, Any]:
    return {
        "used": _used(package.name),
        "package": package.name,
        "digest": package.digest.hex(),
        "compiler": package.compiler,
        "dependencies": ["0x" + dependency.hex() for dependency in package.dependencies],
        "size": package.size,
        "modules": [asdict(module) for module in shown],
    }


def _print_table(title: str, columns: tuple[str, ...], rows: list[dict[str, Any]]) -> None:
    table = Table(title=title, title_justify="left", title_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        cells = (row[column] for column in columns)
        table.add_row(*(", ".join(map(str, cell)) if isinstance(cell, list) else str(cell) for cell in cells))
    console().print(table)


def _print_info(package: packages.MovePackage, shown: tuple[Surface, ...]) -> None:
    to = console()
    to.print(f"{package.name}: {package.size:,} bytes of bytecode, by {package.compiler}", highlight=False)
    to.print(f"digest {package.digest.hex()}", highlight=False)
    for each in _used(package.name):
        to.print(f"used at {each['id']} on chain {each['chain_id']}, {each['policy']}", highlight=False)
    rows = [
        {
            "module": module.module,
            "bytes": f"{module.size:,}",
            "functions": len(module.functions),
            "objects, values and events": len(module.datatypes),
            "errors": len(module.errors),
        }
        for module in shown
    ]
    _print_table(f"\n'dtp move info {package.name} MODULE' shows a module", tuple(rows[0]), rows)


def _print_module(package: packages.MovePackage, module: Surface) -> None:
    title = f"{package.name}::{module.module} ({module.size:,} bytes)"
    functions = [{"function": str(function)} for function in module.functions]
    _print_table(f"{title}: functions", ("function",), functions)
    structs = [
        {
            "name": datatype.name,
            "abilities": list(datatype.abilities),
            "fields": [f"{field}: {kind}" for field, kind in datatype.fields],
        }
        for datatype in module.datatypes
    ]
    _print_table(f"{title}: objects, values and events", ("name", "abilities", "fields"), structs)
    errors = [asdict(error) for error in module.errors]
    _print_table(f"{title}: errors", ("number", "name", "message"), errors)
