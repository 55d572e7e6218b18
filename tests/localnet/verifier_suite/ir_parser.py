"""Move's intermediate representation (`.mvir`), of which the tests of Sui's bytecode verifier are: text to a tree.

It is bytecode with names and expressions: locals are declared, jumps go to labels, and what no compiler of Move would
write can be said. Types are tuples: `("u64",)`, `("vector", t)`, `("&", mutable, t)`, `("struct", module, name,
types)`, `("param", name)`; expressions and statements are tuples that begin with what they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")
Tree = tuple[Any, ...]

_TOKEN = re.compile(
    r"""\s+ | //[^\n]* | /\*.*?\*/
    | (?P<hex>h"[0-9a-fA-F]*")
    | (?P<address>@?0x[0-9a-fA-F]+)
    | (?P<number>\d+(?:u8|u16|u32|u64|u128|u256)?)
    | (?P<dotted>[A-Za-z_]\w*\.[A-Za-z_]\w*)
    | (?P<name>[A-Za-z_]\w*)
    | (?P<sign>&mut\b|==|!=|<=|>=|\|\||&&|<<|>>|[-+*/%^|&<>=!(){};:,.])""",
    re.VERBOSE | re.DOTALL,
)
PRIMITIVES = ("address", "bool", "signer", "u8", "u16", "u32", "u64", "u128", "u256")
ABILITIES = ("copy", "drop", "store", "key")
#: What binds closer has the larger number.
_BINDING = {
    "||": 5, "&&": 10, "==": 15, "!=": 15, "<": 15, ">": 15, "<=": 15, ">=": 15, "|": 25, "^": 30, "&": 35,
    "<<": 40, ">>": 40, "+": 45, "-": 45, "*": 50, "/": 50, "%": 50,
}  # fmt: skip
_VECTOR = re.compile(r"vec_(len|imm_borrow|mut_borrow|push_back|pop_back|swap|(?:pack|unpack)_\d+)")
_CAST = re.compile(r"to_u(8|16|32|64|128|256)")


class IrError(Exception):
    """The text is not of the language."""


@dataclass
class Struct:
    """A struct: its type parameters are (name, is phantom, abilities)."""

    name: str
    abilities: list[str]
    parameters: list[tuple[str, bool, list[str]]]
    fields: list[tuple[str, Tree]] | None


@dataclass
class Function:
    """A function; `blocks` are labels with their statements, None where it is native."""

    name: str
    visibility: str
    is_entry: bool
    parameters: list[tuple[str, bool, list[str]]]
    arguments: list[tuple[str, Tree]]
    returns: list[Tree]
    locals: list[tuple[str, Tree]] = field(default_factory=list)
    blocks: list[tuple[str, list[Tree]]] | None = None


@dataclass
class Module:
    """A module; `friends` and `imports` name others by address and name, `imports` with the name here."""

    address: int
    name: str
    friends: list[tuple[int, str]] = field(default_factory=list)
    imports: list[tuple[int, str, str]] = field(default_factory=list)
    structs: list[Struct] = field(default_factory=list)
    functions: list[Function] = field(default_factory=list)


def _tokens(text: str) -> list[tuple[str, str]]:
    found, at = [], 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise IrError(f"what is this: {text[at : at + 20]!r}")
        if match.lastgroup is not None:
            found.append((match.lastgroup, match[0]))
        at = match.end()
    return [*found, ("end", "")]


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens = _tokens(text)
        self._at = 0

    # ---- tokens

    @property
    def kind(self) -> str:
        return self._tokens[self._at][0]

    @property
    def text(self) -> str:
        return self._tokens[self._at][1]

    @property
    def following(self) -> str:
        return self._tokens[self._at + 1][1]

    def take(self, wanted: str = "") -> str:
        kind, text = self._tokens[self._at]
        if kind == "end" or (wanted and text != wanted):
            raise IrError(f"{wanted or 'more'!r} is expected, not {text!r}")
        self._at += 1
        return text

    def skip(self, wanted: str) -> bool:
        """Whether the next token is this one, which is taken."""
        if self.text != wanted or self.kind == "end":
            return False
        self._at += 1
        return True

    def name(self) -> str:
        if self.kind != "name":
            raise IrError(f"a name is expected, not {self.text!r}")
        return self.take()

    def several(self, end: str, one: Callable[[], T]) -> list[T]:
        """What is between commas, up to the end, which is taken."""
        found = []
        while not self.skip(end):
            found.append(one())
            if not self.skip(","):
                self._close(end)
                break
        return found

    def _close(self, end: str) -> None:
        if end == ">" and self.text == ">>":  # two ends in one
            self._tokens[self._at] = ("sign", ">")
        else:
            self.take(end)

    # ---- declarations

    def module(self) -> Module:
        self.take("module")
        module = Module(*self.module_id())
        self.take("{")
        while self.skip("friend"):
            module.friends.append(self.module_id())
            self.take(";")
        while self.skip("import"):
            address, name = self.module_id()
            module.imports.append((address, name, self.name() if self.skip("as") else name))
            self.take(";")
        while self.text == "struct" or (self.text == "native" and self.following == "struct"):
            module.structs.append(self.struct())
        while not self.skip("}"):
            module.functions.append(self.function())
        if self.kind != "end":
            raise IrError(f"nothing is expected behind a module, not {self.text!r}")
        return module

    def module_id(self) -> tuple[int, str]:
        if self.kind != "address":
            raise IrError(f"an address is expected, not {self.text!r}")
        address = int(self.take(), 16)
        self.take(".")
        return address, self.name()

    def parameters(self) -> list[tuple[str, bool, list[str]]]:
        return self.several(">", self.parameter) if self.skip("<") else []

    def parameter(self) -> tuple[str, bool, list[str]]:
        is_phantom = self.text == "phantom" and self.skip("phantom")
        name, abilities = self.name(), []
        if self.skip(":"):
            abilities.append(self.ability())
            while self.skip("+"):
                abilities.append(self.ability())
        return name, is_phantom, abilities

    def ability(self) -> str:
        if self.text not in ABILITIES:
            raise IrError(f"an ability is expected, not {self.text!r}")
        return self.take()

    def struct(self) -> Struct:
        is_native = self.skip("native")
        self.take("struct")
        name, parameters, abilities = self.name(), self.parameters(), []
        if self.skip("has"):
            abilities.append(self.ability())
            while self.skip(","):
                abilities.append(self.ability())
        if is_native:
            self.take(";")
            return Struct(name, abilities, parameters, None)
        self.take("{")
        return Struct(name, abilities, parameters, self.several("}", self.typed))

    def typed(self) -> tuple[str, Tree]:
        name = self.name()
        self.take(":")
        return name, self.type()

    def function(self) -> Function:
        is_native = self.skip("native")
        visibility = "private"
        if self.skip("public"):
            visibility = "public"
            if self.skip("("):
                visibility = self.take("friend")
                self.take(")")
        is_entry = self.text == "entry" and self.skip("entry")
        name, parameters = self.name(), self.parameters()
        self.take("(")
        arguments = self.several(")", self.typed)
        returns: list[Tree] = []
        if self.skip(":"):
            returns.append(self.type())
            while self.skip("*"):
                returns.append(self.type())
        made = Function(name, visibility, is_entry, parameters, arguments, returns)
        if is_native:
            self.take(";")
            return made
        self.take("{")
        while self.skip("let"):
            made.locals.append(self.typed())
            self.take(";")
        made.blocks = []
        while not self.skip("}"):
            self.take("label")
            label, statements = self.name(), []
            self.take(":")
            while self.text not in ("label", "}"):
                statements.append(self.statement())
                self.take(";")
            made.blocks.append((label, statements))
        return made

    def type(self) -> Tree:
        if self.skip("&"):
            return "&", False, self.type()
        if self.skip("&mut"):
            return "&", True, self.type()
        if self.kind == "dotted":
            module, _, name = self.take().partition(".")
            return "struct", module, name, self.types()
        name = self.name()
        if name == "vector":
            self.take("<")
            inner = self.type()
            self._close(">")
            return "vector", inner
        return (name,) if name in PRIMITIVES else ("param", name)

    def types(self) -> list[Tree]:
        return self.several(">", self.type) if self.skip("<") else []

    # ---- statements

    def statement(self) -> Tree:
        match self.text:
            case "abort":
                self.take()
                return "abort", None if self.text == ";" else self.expression()
            case "assert":
                self.take()
                self.take("(")
                condition = self.expression()
                self.take(",")
                error = self.expression()
                self.take(")")
                return "assert", condition, error
            case "jump":
                self.take()
                return "jump", self.name()
            case "jump_if" | "jump_if_false" as what:
                self.take()
                self.take("(")
                condition = self.expression()
                self.take(")")
                return what, condition, self.name()
            case "return":
                self.take()
                values = []
                while self.text != ";":
                    values.append(self.expression())
                    self.skip(",")
                return "return", values
            case "(":
                return "expression", self.term()
        if self.is_call():
            return "expression", self.call()
        if self.kind == "name" and self.text != "_" and self.following in ("{", "<"):
            return self.unpack()
        places = [self.place()]
        while self.skip(","):
            places.append(self.place())
        self.take("=")
        return "assign", places, self.expression()

    def unpack(self) -> Tree:
        name, types = self.name(), self.types()
        self.take("{")
        variables = self.several("}", self.binding)
        self.take("=")
        return "unpack", name, types, variables, self.expression()

    def binding(self) -> str:
        name = self.name()
        return self.name() if self.skip(":") else name

    def place(self) -> Tree:
        if self.skip("*"):
            return "write", self.expression()
        if self.skip("_"):
            return ("pop",)
        return "store", self.name()

    # ---- expressions

    def expression(self, least: int = 1) -> Tree:
        left = self.unary()
        while (binding := _BINDING.get(self.text, 0)) >= least:
            sign = self.take()
            left = "binary", sign, left, self.expression(binding + 1)
        return left

    def unary(self) -> Tree:
        if self.skip("!"):
            return "not", self.unary()
        if self.skip("*"):
            return "read", self.unary()
        if self.text in ("&", "&mut"):
            is_mutable = self.take() == "&mut"
            if self.kind == "name" and self.following != "{" and not self.is_call() and not self.is_use():
                return "borrow", is_mutable, self.name()
            inner = self.unary()
            self.take(".")
            owner, types = self.name(), self.types()
            self.take(":")
            self.take(":")
            return "borrow field", is_mutable, inner, owner, types, self.name()
        return self.call() if self.is_call() else self.term()

    def is_call(self) -> bool:
        text = self.text
        named = text == "freeze" or _VECTOR.fullmatch(text) or _CAST.fullmatch(text)
        return self.kind == "dotted" or (self.kind == "name" and bool(named))

    def is_use(self) -> bool:
        return self.text in ("move", "copy") and self.following == "("

    def call(self) -> Tree:
        name = self.take()
        types = self.types()
        return "call", name, types, self.call() if self.is_call() else self.term()

    def term(self) -> Tree:
        if self.is_use():
            what = self.take()
            self.take("(")
            name = self.name()
            self.take(")")
            return what, name
        if self.text in ("true", "false") or self.kind in ("number", "address", "hex"):
            return "value", self.kind, self.take()
        if self.skip("("):
            return "list", self.several(")", self.expression)
        name, types = self.name(), self.types()
        self.take("{")
        return "pack", name, types, self.several("}", self.given)

    def given(self) -> tuple[str, Tree]:
        name = self.name()
        self.take(":")
        return name, self.expression()


def parse(text: str) -> Module:
    """The module that a text says. Raises `IrError`."""
    return _Parser(text).module()
