"""Read the commands of the suite's programmable transactions: `0: SplitCoins(Gas, [Input(0)]); m::f(Result(0))`."""

from __future__ import annotations

from collections.abc import Callable

from suite_values import NotUnderstood, Resolve, Tokens, number, parse_type

from dtp.sui.transaction import (
    Argument,
    Command,
    GasCoin,
    Input,
    MakeMoveVec,
    MergeCoins,
    MoveCall,
    NestedResult,
    Publish,
    Result,
    SplitCoins,
    TransferObjects,
    Upgrade,
)

Staged = Callable[[str], tuple[bytes, ...]]


def parse_commands(text: str, resolve: Resolve, staged: Staged) -> tuple[Command, ...]:
    """Return the commands; `staged` gives the modules of a staged package."""
    tokens = Tokens(text)
    commands: list[Command] = []
    while tokens.peek():
        if tokens.peek().isdigit():
            if number(tokens.take()) != len(commands):
                raise NotUnderstood("a wrong number of a command")
            tokens.take(":")
        commands.append(_command(tokens, resolve, staged))
        if tokens.peek() == ";":
            tokens.take()
    return tuple(commands)


def _argument(tokens: Tokens) -> Argument:
    name = tokens.take()
    if name == "Gas":
        return GasCoin()
    tokens.take("(")
    numbers = tokens.list(lambda: number(tokens.take()), ")")
    match name:
        case "Input":
            return Input(numbers[0])
        case "Result":
            return Result(numbers[0])
        case "NestedResult":
            return NestedResult(numbers[0], numbers[1])
    raise NotUnderstood(f"an argument {name}")


def _arguments(tokens: Tokens, start: str, end: str) -> tuple[Argument, ...]:
    tokens.take(start)
    return tuple(tokens.list(lambda: _argument(tokens), end))


def _end(tokens: Tokens) -> None:
    if tokens.peek() == ",":
        tokens.take()
    tokens.take(")")


def _command(tokens: Tokens, resolve: Resolve, staged: Staged) -> Command:
    name = tokens.take()
    match name:
        case "TransferObjects":
            tokens.take("(")
            objects = _arguments(tokens, "[", "]")
            tokens.take(",")
            command: Command = TransferObjects(objects, _argument(tokens))
        case "SplitCoins" | "MergeCoins":
            tokens.take("(")
            coin = _argument(tokens)
            tokens.take(",")
            others = _arguments(tokens, "[", "]")
            command = SplitCoins(coin, others) if name == "SplitCoins" else MergeCoins(coin, others)
        case "MakeMoveVec":
            kind = None
            if tokens.peek() == "<":
                tokens.take()
                (kind,) = tokens.list(lambda: parse_type(tokens, resolve), ">")
            tokens.take("(")
            command = MakeMoveVec(kind, _arguments(tokens, "[", "]"))
        case "Publish" | "Upgrade":
            command = _package(name, tokens, resolve, staged)
        case _:
            return _call(name, tokens, resolve)
    _end(tokens)
    return command


def _package(name: str, tokens: Tokens, resolve: Resolve, staged: Staged) -> Command:
    tokens.take("(")
    modules = staged(tokens.take())
    tokens.take(",")
    tokens.take("[")
    dependencies = tuple(tokens.list(lambda: resolve(tokens.take()), "]"))
    if name == "Publish":
        return Publish(modules, dependencies)
    tokens.take(",")
    package = resolve(tokens.take())
    tokens.take(",")
    return Upgrade(modules, dependencies, package, _argument(tokens))


def _call(package: str, tokens: Tokens, resolve: Resolve) -> MoveCall:
    tokens.take("::")
    module = tokens.take()
    tokens.take("::")
    function = tokens.take()
    types = ()
    if tokens.peek() == "<":
        tokens.take()
        types = tuple(tokens.list(lambda: parse_type(tokens, resolve), ">"))
    return MoveCall(resolve(package), module, function, types, _arguments(tokens, "(", ")"))
