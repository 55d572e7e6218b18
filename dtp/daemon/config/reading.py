"""Reads a configuration so that all its mistakes are found at once, each with its line and column."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar, overload

from dtp.daemon.config.places import KeyPath, SourcePlace, SourcePlaces, find_places
from dtp.errors import ConfigError

T = TypeVar("T")
D = TypeVar("D")

_REQUIRED: Any = object()
# Before Python 3.14, tomllib gives the place only in its message.
_PLACE = re.compile(r" \(at (?:line (?P<line>\d+), column (?P<column>\d+)|end of document)\)$")
#: Words for true and false in other formats.
_YES_OR_NO = re.compile(r"(?:true|false|yes|no|on|off)\b", re.IGNORECASE)
#: Hints for tomllib's messages, by how a message begins.
_TOML_HINTS = {
    "Invalid value": 'a text has to be in quotes, "..."',
    "Cannot overwrite a value": "the name is there already",
    "Cannot declare": "the table is there already; of tables in [[...]] there may be several",
    "Illegal character '\\n'": "a text has to end in its line",
    "Found invalid character": "a text has to end in its line",
    "Expected newline": "there is one setting to a line, and a text in quotes has none inside",
    "Unescaped": "a text in '...' is taken as it stands",
    "Invalid statement": "a line is a setting, name = ..., a [table], or a # comment",
    "Expected '='": "a setting is written name = ...",
    "Invalid initial character for a key part": (
        "a table { ... } stands in one line and has no comma at its end; longer ones are tables of their own, [...]"
    ),
}
_KINDS = {
    str: "a text",
    int: "a whole number",
    float: "a number with a point",
    bool: "true or false",
    list: "an array",
    dict: "a table",
}


@dataclass(frozen=True, slots=True)
class Mistake:
    """A mistake and its place; `what` describes it and says what was probably meant."""

    place: SourcePlace
    what: str


class ConfigMistakes(ConfigError):
    """A configuration file has mistakes: all of them are in `mistakes`, in the order of the file."""

    code: ClassVar[str] = "config-file"

    def __init__(self, path: Path, mistakes: Collection[Mistake]) -> None:
        self.path = path
        self.mistakes = tuple(sorted(mistakes, key=lambda mistake: mistake.place))
        super().__init__(
            "\n".join(f"{path}:{one.place.line}:{one.place.column}: {one.what}" for one in self.mistakes)
        )


class Wrong(Exception):
    """A value isn't valid. Raised by functions that read values; `Section` turns it into a `Mistake`."""


@dataclass
class Document:
    """A file that is being read, and the mistakes found in it so far."""

    path: Path
    places: SourcePlaces
    mistakes: list[Mistake] = field(default_factory=list)
    #: Everything that was looked up, whether it is there or not: the name of its table ("" for the file), and its
    #: own.
    known: set[tuple[str, str]] = field(default_factory=set)

    def note_mistake(self, place: SourcePlace, what: str) -> None:
        """Note a mistake."""
        self.mistakes.append(Mistake(place, what))


def kind_of(value: object) -> str:
    """Return what kind of TOML value this is, for messages."""
    return _KINDS.get(type(value), "a date or time")


def did_you_mean(word: str, known: Collection[str]) -> str:
    """Return a hint for whoever wrote `word`: the nearest known word, or all of them."""
    by_lower = {each.lower(): each for each in known}
    near = difflib.get_close_matches(word.lower(), by_lower, n=1)
    return f"did you mean {by_lower[near[0]]}?" if near else f"known here: {', '.join(known)}"


def parse(path: Path, text: str) -> tuple[Document, Section]:
    """Return the document and its root table. Raise `ConfigMistakes` when the text is not TOML."""
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message, match = str(error), _PLACE.search(str(error))
        line = column = 1
        lines = text.splitlines() or [""]
        if match:
            message = message[: match.start()]
            line = int(match["line"] or len(lines))
            column = int(match["column"] or len(lines[-1]) + 1)
        hint = next((f"; {hint}" for begin, hint in _TOML_HINTS.items() if message.startswith(begin)), "")
        if hint and _YES_OR_NO.match(lines[line - 1], column - 1):
            hint = "; yes and no are true and false, in small letters"
        what = f"this is not TOML: {message[:1].lower()}{message[1:]}{hint}"
        raise ConfigMistakes(path, [Mistake(SourcePlace(line, column), what)]) from None
    document = Document(path, find_places(text))
    return document, Section(document, (), values)


class Section:
    """A table of the file. Read the settings that are known; `check_unread` then reports all others.

    A setting that can't be used is noted in the document, and reading goes on with a harmless value: the default,
    or None. `load` discards what was read from a file that has mistakes.
    """

    def __init__(self, document: Document, path: KeyPath, values: dict[str, Any]) -> None:
        self.document = document
        self.path = path
        self._values = values
        self._asked: list[str] = []
        self._failed: set[str] = set()

    def _note_key(self, key: str) -> None:
        self._asked.append(key)
        table = next((part for part in reversed(self.path) if isinstance(part, str)), "")
        self.document.known.add((table, key))

    def __contains__(self, key: str) -> bool:
        return key in self._values

    @overload
    def read_setting(self, key: str, read: Callable[[Any], T]) -> T: ...

    @overload
    def read_setting(self, key: str, read: Callable[[Any], T], default: D) -> T | D: ...

    def read_setting(self, key: str, read: Callable[[Any], Any], default: Any = _REQUIRED) -> Any:
        """Return the setting `key` as `read` converts it, or `default`. `read` raises `Wrong` for what isn't
        valid."""
        self._note_key(key)
        if key not in self._values:
            if default is _REQUIRED:
                self.note_mistake(f"{key} is missing in {self.spell_table()}")
                return None
            return default
        try:
            return read(self._values[key])
        except Wrong as error:
            self._failed.add(key)
            self.note_mistake(f"{key}: {error}", key)
            return None if default is _REQUIRED else default

    def has_failed(self, key: str) -> bool:
        """True if the setting `key` is there and could not be used."""
        return key in self._failed

    def take_all(self, key: str, read: Callable[[Any], T]) -> tuple[T, ...]:
        """Return the setting `key`, an array or a single value, with each element converted by `read`; () if it
        isn't there."""
        self._note_key(key)
        values = self._values.get(key, [])
        several = isinstance(values, list)
        found = []
        for number, value in enumerate(values if several else [values]):
            try:
                found.append(read(value))
            except Wrong as error:
                self._failed.add(key)
                self.note_mistake(f"{key}: {error}", key, *([number] if several else []))
        return tuple(found)

    def get_section(self, key: str) -> Section | None:
        """Return the table at `key`, or None if it isn't there."""
        self._note_key(key)
        if key not in self._values:
            return None
        return self._section_below(key, (key,), self._values[key])

    def iter_sections(self, key: str) -> Iterator[Section]:
        """Yield each table of the array at `key`. A single table counts as an array of one."""
        self._note_key(key)
        values = self._values.get(key, [])
        several = isinstance(values, list)
        for number, value in enumerate(values if several else [values]):
            below = self._section_below(key, (key, number) if several else (key,), value)
            if below is not None:
                yield below

    def _section_below(self, key: str, path: KeyPath, value: object) -> Section | None:
        if isinstance(value, dict):
            return Section(self.document, (*self.path, *path), value)
        self.note_mistake(f"{key}: has to be a table, {{ ... }}, not {kind_of(value)}", *path)
        return None

    def note_mistake(self, what: str, *below: str | int) -> None:
        """Note a mistake about the value at `below`, or about this table."""
        self.document.note_mistake(self.document.places.find_place((*self.path, *below)), what)

    def check_unread(self) -> bool:
        """Note settings that nobody asked for as mistakes, since a misspelt one must not be ignored silently.

        Return True if there were none.
        """
        unknown = [key for key in self._values if key not in self._asked]
        for key in unknown:
            place = self.document.places.of_key((*self.path, key))
            hint = did_you_mean(key, sorted(set(self._asked)))
            self.document.note_mistake(place, f"{key} is not a setting of {self.spell_table()}; {hint}")
        return not unknown

    def spell_table(self) -> str:
        """Return this table's name as it is written in a file."""
        names = [str(part) for part in self.path if isinstance(part, str)]
        if not names:
            return "the file"
        brackets = ("[[", "]]") if isinstance(self.path[-1], int) and len(names) == 1 else ("[", "]")
        return f"{brackets[0]}{'.'.join(names)}{brackets[1]}"
