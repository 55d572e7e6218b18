"""Finds where everything in a TOML document is: the line and column of each key and value.

`tomllib` returns what a document means and no more. This scanner only reads text that `tomllib` has accepted, so it
refuses nothing and knows just enough of the grammar to find where things end (docs/decisions/0030).
"""

from __future__ import annotations

import bisect
import re
import tomllib
from dataclasses import dataclass, field

#: The path to something in a document: names of tables and keys, and indices of arrays.
KeyPath = tuple[str | int, ...]

_BLANK = re.compile(r"(?:[ \t\n]|#[^\n]*)*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
#: A number, date or boolean: it ends at one of these characters.
_BARE_VALUE = re.compile(r"[^,\]}#\n]+")
#: The four kinds of strings, longest quotes first. Up to two quotes may precede three closing ones.
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"""(?:"{0,2})|'
    r"'''.*?'''(?:'{0,2})|"
    r'"(?:[^"\\]|\\.)*"|'
    r"'[^']*'",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True, order=True)
class SourcePlace:
    """A line and a column of a text. Both start at 1; columns count characters."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class SourcePlaces:
    """Where the keys and values of a document begin. A table begins at its header."""

    keys: dict[KeyPath, SourcePlace] = field(default_factory=dict)
    values: dict[KeyPath, SourcePlace] = field(default_factory=dict)

    def find_place(self, path: KeyPath) -> SourcePlace:
        """Return where the value at `path` is, or the nearest enclosing thing whose place is known."""
        while path:
            found = self.values.get(path) or self.keys.get(path)
            if found is not None:
                return found
            path = path[:-1]
        return SourcePlace(1, 1)

    def of_key(self, path: KeyPath) -> SourcePlace:
        """Return where the key at the end of `path` is, or the nearest enclosing thing."""
        return self.keys.get(path) or self.find_place(path)


def find_places(text: str) -> SourcePlaces:
    """Return the places in `text`, which `tomllib` must have accepted."""
    scanner = _Scanner(text.replace("\r\n", "\n"))
    scanner.scan_document()
    return scanner.places


class _Scanner:
    def __init__(self, text: str) -> None:
        self.places = SourcePlaces()
        self._text = text
        self._at = 0
        self._lines = [0, *(match.end() for match in re.finditer("\n", text))]
        #: The number of tables that each array of tables has so far.
        self._arrays: dict[KeyPath, int] = {}

    def scan_document(self) -> None:
        table: KeyPath = ()
        while self._skip_blank():
            if self._text.startswith("[", self._at):
                table = self._scan_header()
            else:
                self._scan_pair(table)

    # ---- pieces -----------------------------------------------------------------------------------------

    def _skip_blank(self) -> bool:
        """Skip blanks and comments; return False at the end of the text."""
        blank = _BLANK.match(self._text, self._at)
        assert blank is not None  # it also matches the empty string
        self._at = blank.end()
        return self._at < len(self._text)

    def _current_place(self) -> SourcePlace:
        line = bisect.bisect_right(self._lines, self._at)
        return SourcePlace(line, self._at - self._lines[line - 1] + 1)

    def _take_match(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self._text, self._at)
        assert match is not None, f"not TOML at {self._current_place()}"
        self._at = match.end()
        return match.group()

    def _expect_token(self, token: str) -> None:
        self._skip_blank()
        assert self._text.startswith(token, self._at), f"no {token!r} at {self._current_place()}"
        self._at += len(token)

    def _next_is(self, token: str) -> bool:
        self._skip_blank()
        return self._text.startswith(token, self._at)

    def _scan_key(self) -> list[tuple[str, SourcePlace]]:
        """Return a dotted key: its parts and where they are."""
        parts: list[tuple[str, SourcePlace]] = []
        while True:
            self._skip_blank()
            place = self._current_place()
            if self._text[self._at] in "\"'":
                # A quoted key may have escapes, which tomllib decodes.
                parts.append((tomllib.loads(f"key = {self._take_match(_STRING)}")["key"], place))
            else:
                parts.append((self._take_match(_BARE_KEY), place))
            if not self._next_is("."):
                return parts
            self._at += 1

    def _path_below(self, base: KeyPath, parts: list[tuple[str, SourcePlace]]) -> KeyPath:
        """Return the path of a dotted key below `base`. In it an array of tables stands for its last table."""
        path = base
        for name, place in parts:
            path = (*path, name)
            self.places.keys.setdefault(path, place)
            if path in self._arrays:
                path = (*path, self._arrays[path] - 1)
        return path

    def _scan_header(self) -> KeyPath:
        start = self._current_place()
        is_array = self._text.startswith("[[", self._at)
        self._at += 2 if is_array else 1
        parts = self._scan_key()
        self._expect_token("]]" if is_array else "]")
        if not is_array:
            path = self._path_below((), parts)
        else:
            name, place = parts[-1]
            array = (*self._path_below((), parts[:-1]), name)
            self.places.keys.setdefault(array, place)
            self.places.values.setdefault(array, start)
            path = (*array, self._arrays.setdefault(array, 0))
            self._arrays[array] += 1
        self.places.values.setdefault(path, start)
        return path

    def _scan_pair(self, table: KeyPath) -> None:
        path = self._path_below(table, self._scan_key())
        self._expect_token("=")
        self._scan_value(path)

    def _scan_value(self, path: KeyPath) -> None:
        self._skip_blank()
        self.places.values[path] = self._current_place()
        first = self._text[self._at]
        if first in "\"'":
            self._take_match(_STRING)
        elif first == "[":
            self._scan_array(path)
        elif first == "{":
            self._inline_table(path)
        else:
            self._take_match(_BARE_VALUE)

    def _scan_array(self, path: KeyPath) -> None:
        self._at += 1
        number = 0
        while not self._next_is("]"):
            self._scan_value((*path, number))
            number += 1
            if self._next_is(","):
                self._at += 1
        self._at += 1

    def _inline_table(self, path: KeyPath) -> None:
        self._at += 1
        while not self._next_is("}"):
            self._scan_pair(path)
            if self._next_is(","):
                self._at += 1
        self._at += 1
