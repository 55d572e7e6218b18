"""An entry of the operand stack while a function is translated: an expression that still waits."""

from __future__ import annotations

from dataclasses import dataclass

from dtp.localnet.vm.types import Type

__all__ = ["Operand"]


@dataclass(slots=True)
class Operand:
    """One entry of the operand stack, still an expression.

    `text` is the expression; for a reference to a number, boolean or address `base` and `index` say which place of
    which container, unless it is held as a pair. `locals` are the local variables it reads: before one of them
    is assigned the entry is put into a temporary.
    """

    text: str
    type: Type
    locals: frozenset[int] = frozenset()
    base: str = ""
    index: str = ""

    @property
    def is_atom(self) -> bool:
        """Whether writing the text twice costs nothing."""
        return self.text.isidentifier() or self.text.isdigit()
