"""Regular expressions for `=~`, in time that grows with the text and never faster, whatever the expression is.

The expression becomes an automaton whose sets of states are worked out as letters come, and kept (Thompson's
construction, as in RE2). There is nothing that goes back, so there are no references to groups and no look-around.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from dtp.graph.query.errors import QueryError, UnsupportedQuery

#: States that an expression has at most, and groups within groups.
_STATES: Final = 5_000
_DEPTH: Final = 50
#: Repetitions in `{}`.
_MOST: Final = 1_000
#: States in all sets that are kept; then they are worked out anew.
_KEPT: Final = 100_000
#: Letters between two looks at the budget.
_LETTERS: Final = 256
#: States that are worked on and count as a step.
_A_STEP: Final = 8

_DIGITS: Final = frozenset("0123456789")
_WORD: Final = _DIGITS | frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_")
_CLASSES: Final = {"d": _DIGITS, "w": _WORD, "s": frozenset(" \t\n\r\f\v")}
_ESCAPES: Final = {"t": "\t", "n": "\n", "r": "\r", "f": "\f", "v": "\v", "a": "\a"}
_QUANTIFIER: Final = re.compile(r"([*+?])|\{(\d{1,9})(,)?(\d{1,9})?\}")


class _Letters(NamedTuple):
    """Some letters: single ones, ranges, and what functions say; or all others."""

    single: frozenset[str] = frozenset()
    ranges: tuple[tuple[str, str], ...] = ()
    functions: tuple[Callable[[str], bool], ...] = ()
    negated: bool = False
    folded: bool = False

    def matches_letter(self, letter: str) -> bool:
        """Return whether a letter is one of them."""
        forms = {letter, letter.lower(), letter.upper()} if self.folded else (letter,)
        return self.negated != any(self._matches_any(form) for form in forms)

    def _matches_any(self, letter: str) -> bool:
        return (
            letter in self.single
            or any(low <= letter <= high for low, high in self.ranges)
            or any(function(letter) for function in self.functions)
        )


@dataclass(frozen=True)
class _Part:
    """A piece of an expression: letters, an end of the text, one after the other, one of several, or repeated."""

    letters: _Letters | None = None
    end: str = ""
    parts: tuple[_Part, ...] = ()
    either: bool = False
    times: tuple[int, int | None] | None = None


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0
        self._folded = self._dot_all = False

    def parse(self) -> _Part:
        part = self._parse_alternatives()
        if self._at < len(self._text):
            raise self._make_error("there is a ) too many")
        return part

    def _make_error(self, message: str, kind: type[QueryError] = QueryError) -> QueryError:
        return kind(f"{self._text[:80]!r} is not a regular expression: {message} (place {self._at})")

    def _next_character(self) -> str:
        if self._at >= len(self._text):
            raise self._make_error("something is missing at the end")
        self._at += 1
        return self._text[self._at - 1]

    def _is_next(self, text: str) -> bool:
        found = self._text.startswith(text, self._at)
        self._at += len(text) if found else 0
        return found

    def _parse_alternatives(self) -> _Part:
        flags = self._folded, self._dot_all
        found = [self._parse_sequence()]
        while self._is_next("|"):
            found.append(self._parse_sequence())
        self._folded, self._dot_all = flags
        return found[0] if len(found) == 1 else _Part(parts=tuple(found), either=True)

    def _parse_sequence(self) -> _Part:
        found: list[_Part] = []
        while self._at < len(self._text) and self._text[self._at] not in "|)":
            one = self._parse_one()
            while (quantifier := _QUANTIFIER.match(self._text, self._at)) is not None:
                self._at = quantifier.end()
                one = _Part(parts=(one,), times=self._parse_repeat(quantifier))
                if self._is_next("+"):
                    raise self._make_error("possessive quantifiers are not supported", UnsupportedQuery)
                self._is_next("?")  # how much is taken makes no difference to whether all of it fits
            found.append(one)
        return found[0] if len(found) == 1 else _Part(parts=tuple(found))

    def _parse_repeat(self, found: re.Match[str]) -> tuple[int, int | None]:
        if found[1]:
            return {"*": (0, None), "+": (1, None), "?": (0, 1)}[found[1]]
        least = int(found[2])
        most = int(found[4]) if found[4] else None if found[3] else least
        if least > _MOST or (most or 0) > _MOST or (most is not None and most < least):
            raise self._make_error(f"{{}} has up to {_MOST:,} repetitions, the fewest first")
        return least, most

    def _parse_one(self) -> _Part:
        letter = self._next_character()
        if letter == "(":
            return self._parse_group()
        if letter == "[":
            return _Part(self._parse_class())
        if letter == ".":
            return _Part(_Letters(frozenset() if self._dot_all else frozenset("\n"), negated=True))
        if letter in "^$":
            return _Part(end=letter)
        if letter in "*+?{":
            raise self._make_error(f"{letter} stands behind nothing; the sign itself is \\{letter}")
        if letter == "\\":
            if self._text[self._at : self._at + 1] in ("A", "z"):
                return _Part(end="^" if self._next_character() == "A" else "$")
            return _Part(self._parse_escape()._replace(folded=self._folded))
        return _Part(_Letters(frozenset(letter), folded=self._folded))

    def _parse_group(self) -> _Part:
        before = self._folded, self._dot_all
        if self._is_next("?"):
            flags = re.compile(r"(-?)([is]+)([:)])").match(self._text, self._at)
            if flags is not None:
                self._at = flags.end()
                self._folded = not flags[1] if "i" in flags[2] else self._folded
                self._dot_all = not flags[1] if "s" in flags[2] else self._dot_all
                if flags[3] == ")":
                    return _Part()
            elif (named := re.compile(r":|P?<[A-Za-z]\w*>").match(self._text, self._at)) is not None:
                self._at = named.end()
            else:
                raise self._make_error(
                    "only (?:...), (?<name>...), (?i) and (?s) are supported", UnsupportedQuery
                )
        self._depth += 1
        if self._depth > _DEPTH:
            raise self._make_error(f"there are at most {_DEPTH} groups within each other")
        found = self._parse_alternatives()
        if not self._is_next(")"):
            raise self._make_error("a ) is missing")
        self._depth -= 1
        self._folded, self._dot_all = before
        return found

    def _parse_class(self) -> _Letters:
        negated = self._is_next("^")
        single: set[str] = set()
        ranges: list[tuple[str, str]] = []
        functions: list[Callable[[str], bool]] = []
        first = True
        while (letter := self._next_character()) != "]" or first:
            first = False
            if letter == "[" or (letter == "&" and self._is_next("&")):
                raise self._make_error(
                    "classes within classes are not supported; [ itself is \\[", UnsupportedQuery
                )
            found = self._parse_escape() if letter == "\\" else _Letters(frozenset(letter))
            if len(found.single) == 1 and not found.negated and self._is_range():
                (low,), high = found.single, self._range_end()
                if high < low:
                    raise self._make_error(f"{low}-{high} is the wrong way round")
                ranges.append((low, high))
            elif found.negated or found.functions:
                functions.append(found.matches_letter)
            else:
                single |= found.single
        return _Letters(frozenset(single), tuple(ranges), tuple(functions), negated, self._folded)

    def _is_range(self) -> bool:
        behind = self._text[self._at : self._at + 2]
        if len(behind) == 2 and behind[0] == "-" and behind[1] != "]":
            self._at += 1
            return True
        return False

    def _range_end(self) -> str:
        letter = self._next_character()
        found = self._parse_escape() if letter == "\\" else _Letters(frozenset(letter))
        if len(found.single) != 1 or found.negated or letter == "[":
            raise self._make_error("a range ends with a letter")
        return next(iter(found.single))

    def _parse_escape(self) -> _Letters:
        letter = self._next_character()
        if letter.lower() in _CLASSES:
            return _Letters(_CLASSES[letter.lower()], negated=letter.isupper())
        if letter in "pP":
            return self._parse_category(negated=letter == "P")
        if letter in "xu":
            digits = self._text[self._at : self._at + (2 if letter == "x" else 4)]
            if not re.fullmatch(r"[0-9a-fA-F]{2}|[0-9a-fA-F]{4}", digits):
                raise self._make_error(
                    f"\\{letter} is followed by {2 if letter == 'x' else 4} hexadecimal digits"
                )
            self._at += len(digits)
            return _Letters(frozenset(chr(int(digits, 16))))
        if letter in _ESCAPES:
            return _Letters(frozenset(_ESCAPES[letter]))
        if letter.isascii() and letter.isalnum():
            raise self._make_error(f"\\{letter} is not supported", UnsupportedQuery)
        return _Letters(frozenset(letter))

    def _parse_category(self, *, negated: bool) -> _Letters:
        found = re.compile(r"\{([A-Z][a-z]?)\}|([A-Z])").match(self._text, self._at)
        if found is None:
            raise self._make_error("\\p is followed by a category of Unicode's, as \\p{Lu}", UnsupportedQuery)
        self._at = found.end()
        name = found[1] or found[2]
        return _Letters(
            functions=(lambda letter: unicodedata.category(letter).startswith(name),), negated=negated
        )


class Regular:
    """A regular expression that whole texts are held against. Raises `QueryError` for any other text."""

    def __init__(self, text: str, step: Callable[[], None]) -> None:
        """`step` counts what it takes."""
        self._step = step
        #: For each state: letters and where they lead to, or where it leads without one, if only at an end.
        self._letters: list[tuple[_Letters, int] | None] = []
        self._empty: list[list[tuple[int, str]]] = []
        self._pieces = 0
        self._last = self._new_state()
        first = self._build_states(_Parser(text).parse(), self._last)
        self._first = self._closure_of({first}, "^")
        self._steps: dict[tuple[frozenset[int], str], frozenset[int]] = {}
        self._kept = 0

    def matches_text(self, text: str) -> bool:
        """Return whether it is about the whole text. Raises `QueryLimit`."""
        states, known = self._first, self._steps
        for at in range(0, len(text), _LETTERS):
            self._step()
            for letter in text[at : at + _LETTERS]:
                found = known.get((states, letter))
                states = self._states_after(states, letter) if found is None else found
            if not states:
                return False
        return self._last in self._closure_of(states, "$" if text else "^$")

    def _new_state(self, letters: tuple[_Letters, int] | None = None) -> int:
        if len(self._letters) >= _STATES:
            raise QueryError(f"this regular expression is too large: it has more than {_STATES:,} states")
        self._letters.append(letters)
        self._empty.append([])
        return len(self._letters) - 1

    def _build_states(self, part: _Part, then: int) -> int:
        """Return the state before a part, behind which comes another."""
        self._pieces += 1
        if self._pieces > _STATES:
            raise QueryError(f"this regular expression is too large: it has more than {_STATES:,} parts")
        if part.letters is not None:
            return self._new_state((part.letters, then))
        if part.end:
            return self._new_join([(then, part.end)])
        if part.either:
            return self._new_join([(self._build_states(one, then), "") for one in part.parts])
        if part.times is None:
            for one in reversed(part.parts):
                then = self._build_states(one, then)
            return then
        (inner,), (least, most) = part.parts, part.times
        if most is None:
            loop = self._new_state()
            self._empty[loop] += [(self._build_states(inner, loop), ""), (then, "")]
            then = loop
        else:
            behind = then
            for _ in range(most - least):
                then = self._new_join([(self._build_states(inner, then), ""), (behind, "")])
        for _ in range(least):
            then = self._build_states(inner, then)
        return then

    def _new_join(self, to: list[tuple[int, str]]) -> int:
        state = self._new_state()
        self._empty[state] += to
        return state

    def _closure_of(self, states: set[int] | frozenset[int], ends: str) -> frozenset[int]:
        """Return the same with all states that no letter is needed for, where the text begins or ends, as `ends`
        says."""
        found, more = set(states), list(states)
        while more:
            for to, end in self._empty[more.pop()]:
                if to not in found and (not end or end in ends):
                    found.add(to)
                    more.append(to)
        return frozenset(found)

    def _states_after(self, states: frozenset[int], letter: str) -> frozenset[int]:
        there = {
            edge[1]
            for one in states
            if (edge := self._letters[one]) is not None and edge[0].matches_letter(letter)
        }
        found = self._closure_of(there, "")
        for _ in range(1 + (len(states) + len(found)) // _A_STEP):
            self._step()
        self._kept += 1 + len(found)
        if self._kept > _KEPT:
            self._steps.clear()
            self._kept = 1 + len(found)
        self._steps[states, letter] = found
        return found
